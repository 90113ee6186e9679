"""Checks of what a loss is given: each returns the clean value, or raises a ValueError that names the argument."""

import math

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import check_numbers, check_tensor, working_dtype
from crfrnn.runtime.layout_gpu import readable

VOID = 255  # a label that says nothing, in all of the field's data sets
ROUNDING = 1e-3  # probabilities of half precision sum to one but for this


def probabilities(scores: Tensor, logits: bool, name: str = "probabilities") -> Tensor:
    """(B, L, *S) in float32 or float64; of logits their softmax."""
    check_tensor(name, scores)
    if not 3 <= scores.dim() <= 5 or not scores.is_floating_point():
        shape = f"{scores.dtype} {tuple(scores.shape)}"
        raise ValueError(f"{name}: expected numbers (batch, labels, *sizes) of 1 to 3 axes, got {shape}")
    if scores.shape[1] < 2:
        raise ValueError(f"{name}: one label alone is never different; give both, as torch.cat([1 - p, p], dim=1)")
    check_numbers(name, scores.device)
    s = scores.to(working_dtype(scores))
    return s.softmax(dim=1) if logits else s


def check_range(name: str, s: Tensor) -> None:
    """ValueError for probabilities, by then at the size at which they are worked on, that are none."""
    if _asked(s):
        low, high = torch.stack(s.detach().aminmax()).tolist()
        if not math.isfinite(low + high):
            raise ValueError(f"{name}: NaN or infinity; look for the first step after which the network says so")
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise ValueError(f"{name}: {low:.3g}..{high:.3g} are no probabilities; take the softmax of logits first")


def guide(name: str, picture: Tensor, s: Tensor, same_size: bool = True) -> Tensor:
    """(B, C, *S), or larger, in the dtype of the probabilities `s` and without a gradient."""
    check_tensor(name, picture)
    sizes, least = tuple(picture.shape[2:]), tuple(s.shape[2:])
    fits = sizes == least if same_size else all(a >= b for a, b in zip(sizes, least, strict=False))
    if picture.dim() != s.dim() or len(picture) != len(s) or not fits:
        relation = "the sizes" if same_size else "at least the sizes"
        raise ValueError(
            f"{name}: expected (batch, channels, *sizes) with the batch and {relation} of the probabilities,"
            f" {tuple(s.shape)}, got {tuple(picture.shape)}"
        )
    _check_device(name, picture, s)
    picture = picture.detach().to(s.dtype)
    if _asked(picture) and not torch.stack(picture.aminmax()).isfinite().all():
        raise ValueError(f"{name}: NaN or infinity; clean the picture, or leave it out")
    return picture


def pixels(name: str, values: Tensor | None, like: Tensor) -> Tensor | None:
    """(B, *S) or (B, 1, *S), a number for each pixel of `like` -> (B, 1, *S), in its dtype."""
    if values is None:
        return None
    check_tensor(name, values)
    wanted = (len(like), *like.shape[2:])
    if tuple(values.shape) not in (wanted, (len(like), 1, *like.shape[2:])):
        raise ValueError(f"{name}: expected {wanted}, a number for each pixel, got {tuple(values.shape)}")
    _check_device(name, values, like)
    return values.detach().to(like.dtype).reshape(len(like), 1, *like.shape[2:])


def mask(name: str, values: Tensor | None, like: Tensor) -> Tensor | None:
    """As `pixels`, within 0..1."""
    values = pixels(name, values, like)
    if values is not None and _asked(values):
        low, high = torch.stack(values.aminmax()).tolist()
        if not 0 <= low <= high <= 1:
            raise ValueError(f"{name}: {low:.3g}..{high:.3g}; expected 1 where pixels count and 0 where not")
    return values


def weight(value: float) -> float:
    """At least 0."""
    if not 0 <= value < math.inf:
        raise ValueError(f"weight: must be at least 0 and finite, got {value}")
    return float(value)


def scale(name: str, value: float) -> float:
    """A part of the whole."""
    if not 0 < value <= 1:
        raise ValueError(f"{name}: must be above 0 and at most 1, the whole size, got {value}")
    return float(value)


def _check_device(name: str, tensor: Tensor, s: Tensor) -> None:
    if tensor.device != s.device:
        raise ValueError(f"{name}: on {tensor.device}, but the probabilities are on {s.device}; move one of them")


def _asked(tensor: Tensor) -> bool:
    """Whether its numbers are looked at: nobody waits for a GPU to check them."""
    return tensor.device.type == "cpu" and tensor.numel() > 0 and readable(tensor)
