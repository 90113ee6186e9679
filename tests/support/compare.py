"""Two comparisons that are never mixed: *equal*, up to rounding, and *approximately*, up to so many per cent.

Both name the quantity in their message, and refuse NaN, infinity and another shape or dtype.
"""

import numpy as np
import torch

Array = torch.Tensor | np.ndarray


def _float64(quantity: str, actual: Array, expected: Array) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype, f"{quantity}: {actual.dtype}, expected {expected.dtype}"
    assert tuple(actual.shape) == tuple(expected.shape), f"{quantity}: {actual.shape}, expected {expected.shape}"
    return _finite(f"{quantity}: actual", actual), _finite(f"{quantity}: expected", expected)


def _finite(what: str, array: Array) -> np.ndarray:
    numbers = array.detach().cpu().double().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, float)
    assert np.isfinite(numbers).all(), f"{what}: {(~np.isfinite(numbers)).sum()} entries are not finite"
    return numbers


def assert_equal(quantity: str, actual: Array, expected: Array, tolerance: float) -> None:
    """The largest difference is at most `tolerance` of the largest entry. Zero asks for the same bits."""
    a, e = _float64(quantity, actual, expected)
    if a.size == 0:
        return
    difference, scale = np.abs(a - e), float(np.abs(e).max())
    worst = np.unravel_index(difference.argmax(), difference.shape)
    assert difference.max() <= tolerance * scale, (
        f"{quantity}: differs by {difference.max() / (scale or 1):.2e} of its largest entry, above {tolerance:.0e};"
        f" at {tuple(int(i) for i in worst)} {a[worst]:.9g} is not {e[worst]:.9g}"
    )


def relative_l2(quantity: str, actual: Array, expected: Array) -> float:
    """|actual - expected| / |expected|"""
    a, e = _float64(quantity, actual, expected)
    return float(np.linalg.norm(a - e) / np.linalg.norm(e))


def assert_approximates(quantity: str, actual: Array, expected: Array, per_cent: float) -> None:
    """The relative L2 error is at most so many per cent: for what approximates by its nature."""
    error = 100 * relative_l2(quantity, actual, expected)
    assert error <= per_cent, f"{quantity}: {error:.2f} % relative L2, above {per_cent} %"
