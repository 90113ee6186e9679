"""A loop over cases inside one test."""

import functools
import inspect
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def each(names: str, cases: Iterable[Any]) -> Callable[[Callable], Callable]:
    """What `pytest.mark.parametrize` does, as one test: for cases whose names nobody selects.

    Cases run one after the other with the same fixtures; a failure names its case. Loops may be stacked.
    """
    arguments, cases = [name.strip() for name in names.split(",")], list(cases)

    def decorate(test: Callable) -> Callable:
        @functools.wraps(test)
        def loop(*args, **kwargs) -> None:
            for case in cases:
                values = dict(zip(arguments, case if len(arguments) > 1 else [case], strict=True))
                try:
                    test(*args, **kwargs, **values)
                except (Exception, pytest.fail.Exception) as error:
                    described = ", ".join(f"{name} = {reprlib.repr(value)}" for name, value in values.items())
                    raise AssertionError(f"with {described}: {error}") from error

        signature = inspect.signature(test)
        fixtures = [parameter for name, parameter in signature.parameters.items() if name not in arguments]
        vars(loop)["__signature__"] = signature.replace(parameters=fixtures)
        return loop

    return decorate
