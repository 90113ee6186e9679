"""Checks of the caller's arguments: each returns the clean value, or raises a ValueError that names the argument."""

from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crfrnn.inference.problem import MOST_PENALTY

Enum = TypeVar("Enum", bound=IntEnum)


def whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`; a float without a fraction will do."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = least - 1
    if number < least or number != value:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return number


def choice(name: str, kind: type[Enum], value: Any) -> Enum:
    """A member of `kind`, or its number."""
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected one of {', '.join(kind.__members__)}, got {value!r}") from error


def array(name: str, values: Any) -> NDArray[Any]:
    """As an array; a mask, which would be lost, is refused."""
    if np.ma.is_masked(values):
        raise ValueError(f"{name}: a masked array, and a CRF knows no mask; say what is there with .filled(...)")
    return np.asarray(values)


def real(name: str, values: Any) -> NDArray[np.float32]:
    """Real numbers of any dtype, memory layout and container, as float32; read-only where the caller's are."""
    numbers = array(name, values)
    if numbers.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got {numbers.dtype}; convert with .astype(np.float32)")
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32, copy=False)


def matrix(name: str, values: Any) -> NDArray[np.float32]:
    """Real numbers in two dimensions."""
    rows = real(name, values)
    if rows.ndim != 2:
        raise ValueError(f"{name}: expected 2 dimensions, points last, got {rows.shape}; use .reshape(len(array), -1)")
    return rows


def product(name: str, model: NDArray[np.float32], f: NDArray[np.float32]) -> NDArray[np.float32]:
    """model (labels, F) times features f (F, N); `name` is the model's."""
    if model.shape[1] != f.shape[0]:
        raise ValueError(f"f: expected {model.shape[1]} rows, as many as {name} has columns, got {f.shape}")
    return model @ f


def bandwidths(name: str, value: Any, count: int, what: str) -> NDArray[np.float32]:
    """One positive bandwidth (count,) for each of the axes or channels, which `what` describes."""
    thetas = real(name, value)
    if thetas.ndim == 0:
        thetas = np.repeat(thetas, count)
    if thetas.shape != (count,):
        raise ValueError(f"{name}: expected one number or {count}, one for each of {what}, got {value!r}")
    if not (thetas > 0).all():
        raise ValueError(f"{name}: a bandwidth must be positive, got {value!r}")
    return thetas


def penalties(compat: Any, labels: int) -> NDArray[np.float32]:
    """pydensecrf's `compat` as what is subtracted from the logits: (), (labels,) or a symmetric (labels, labels).

    A number is the one form of `compat` that attracts, so its sign is turned.
    """
    array = real("compat", compat)
    if array.shape not in ((), (labels,), (labels, labels)):
        raise ValueError(f"compat: expected a number, ({labels},) or ({labels}, {labels}), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("compat: NaN or infinity; give finite numbers")
    if np.abs(array).max(initial=0) > MOST_PENALTY:
        raise ValueError(f"compat: up to {np.abs(array).max():.3g}; give numbers of at most {MOST_PENALTY:.0e}")
    if array.ndim == 2:
        return (array + array.T) / 2
    return array if array.ndim else -array
