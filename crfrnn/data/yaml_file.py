"""Settings in YAML files, read as the command line reads those of ``--config``."""

import functools
import importlib
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST_BYTES, MOST_VALUES = 200_000, 100_000  # of a file of settings
FLOAT, TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
NUMBER = re.compile(  # jsonargparse's, for ``--config``: 5e-1 is one, as in YAML 1.2, where PyYAML wants 5.0e-1
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; a ValueError of one line where it does not."""
    try:
        content = pyyaml().load(checked_text(path), _loader())
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError, pyyaml().YAMLError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a YAML file of names and values")
    return content


def checked_text(path: str | Path) -> str:
    """The text of a YAML file; ValueError where it is long, or where its aliases stand for too much."""
    size = Path(path).stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes, and settings have at most {MOST_BYTES:,}")
    text = Path(path).read_text(encoding="utf-8")
    _check_aliases(text)
    return text


def _loaded(text: str) -> Any:
    _check_aliases(text)
    return pyyaml().load(text, _loader())


def _check_aliases(text: str) -> None:
    """ValueError where they stand for too much, also in texts that are read as YAML once more (`as_number`)."""
    if "*" not in text or "&" not in text:
        return
    root = pyyaml().compose(text, pyyaml().SafeLoader)
    if root is not None and isinstance(root.value, list) and _values(root, {}) > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")


def _values(node: Any, known: dict[int, float]) -> float:
    """How many values a node stands for, with all its aliases written out; infinite where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        if isinstance(node.value, str):
            with suppress(pyyaml().YAMLError):  # a text like others
                _check_aliases(node.value)
        parts = node.value if isinstance(node.value, list) else []
        inner = [part for item in parts for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in inner)
    return known[id(node)]


def as_number(value: Any) -> Any:
    """What a text in quotes says, where a number is wanted, or each text of a list; anything else as it is."""
    if isinstance(value, list):
        return [as_number(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return _loaded(value)
    except (ValueError, RecursionError, pyyaml().YAMLError):
        return value


@functools.cache
def _loader() -> Any:
    """PyYAML's safe loader with the numbers of the command line, and no dates."""

    class Loader(pyyaml().SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (FLOAT, TIMESTAMP)]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(FLOAT, NUMBER, list("-+0123456789."))
    return Loader


def pyyaml() -> Any:
    """PyYAML, which comes with jsonargparse and so with the command line; a layer does without both."""
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise ValueError("config: YAML files need PyYAML: pip install pyyaml") from None
