"""What callers give: arrays of NumPy or torch, checked, as the tensors that a CRF takes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.value_range import value_range
from crfrnn.data.predictions import labels_come_last

LEAST_PROBABILITY = 1e-10  # those below count as this, so that their logarithm is finite
SUM_TOLERANCE = 0.05  # what storage as float16 or in 8 bits may do to a sum of one


def checked(image: Any, predictions: Any, name: str) -> tuple[Tensor, Tensor]:
    """One image in the form in which a CRF takes it: guide (1, C, H, W), and U (1, L, H, W) float32.

    `name` is ``probabilities`` or ``logits``. Raises `refine`'s ValueErrors.
    """
    guide = guide_of(image, colour_units=True)
    planes, _ = planes_of(predictions, guide, name)
    return guide, unary_logits(planes.unsqueeze(0), name)


def unary_logits(values: Tensor, name: str) -> Tensor:
    """U (1, L, H, W) float32 from probabilities or logits, which are checked."""
    return logarithm(checked_predictions(values, name)[0], name)


def logarithm(values: Tensor, name: str) -> Tensor:
    """That of probabilities; logits as they are."""
    return values.clamp(min=LEAST_PROBABILITY).log_() if name == "probabilities" else values


def checked_predictions(values: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
    """The same as float32 and, of probabilities, the highest of each label; or a ValueError."""
    values = values.float()
    if name == "logits":
        least, most = (bound.item() for bound in values.amax(dim=1).aminmax())  # of each pixel's best label
        if not most < np.inf:  # NaN
            raise ValueError("logits: NaN or infinity in them; minus infinity is fine, for a label that is impossible")
        if least == -np.inf:
            raise ValueError("logits: minus infinity for all labels of a pixel; one at least must be possible")
        return values, None
    lowest, highest, least, most = value_range(values)
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError("probabilities: NaN or infinity in them")
    if lowest < 0:
        raise ValueError(f"probabilities: the smallest is {lowest:.3g}; logits go into logits=")
    if least < 1 - SUM_TOLERANCE or most > 1 + SUM_TOLERANCE:
        raise ValueError(
            f"probabilities: a pixel's sum to {least:.3g}..{most:.3g} over the labels instead of 1;"
            " logits go into logits=, and scores must be divided by their sum"
        )
    return values, highest


def planes_of(predictions: Any, guide: Tensor, name: str) -> tuple[Tensor, bool]:
    """The predictions as (L, H, W), and whether they came as (H, W, L), by the size of the image."""
    values = _tensor(predictions, name)
    last = _labels_last(values, guide, name)
    return values.movedim(-1, 0) if last else values, last


def _labels_last(values: Tensor, guide: Tensor, name: str) -> bool:
    """Whether the predictions are (H, W, L) instead of (L, H, W), by the size of the image."""
    shape, (height, width) = tuple(values.shape), guide.shape[2:]
    if len(shape) == 2:
        raise ValueError(
            f"{name}: shape {shape}, expected (labels, height, width); a foreground's p alone is stack([1 - p, p])"
        )
    if len(shape) != 3:
        raise ValueError(f"{name}: shape {shape}, expected (labels, height, width); several images go in a list")
    last = labels_come_last(shape, [(height, width)])
    if not last and shape[1:] != (height, width):
        swapped = "; height and width are swapped" if (width, height) in (shape[1:], shape[:2]) else ""
        raise ValueError(f"{name}: shape {shape} does not fit the image, expected (labels, {height}, {width}){swapped}")
    labels = shape[-1] if last else shape[0]
    if labels < 2:
        raise ValueError(f"{name}: {labels} label, a CRF needs at least 2; a foreground's p alone is stack([1 - p, p])")
    return last


def guide_of(image: Any, colour_units: bool) -> Tensor:
    """(1, C, H, W) from NumPy (H, W), (H, W, C) or torch (H, W), (C, H, W)."""
    pixels = _tensor(image, "image")
    if pixels.dim() not in (2, 3) or pixels.numel() == 0:
        raise ValueError(
            f"image: shape {tuple(pixels.shape)}, expected (height, width, channels) for NumPy"
            " and (channels, height, width) for torch; several images go in a list"
        )
    if pixels.dim() == 2:
        pixels = pixels.unsqueeze(0)
    elif not isinstance(image, Tensor):
        pixels = pixels.movedim(-1, 0)
    if pixels.dtype != torch.uint8:
        pixels = pixels.to(torch.float32)
        _check_units(pixels, colour_units)
    return pixels.unsqueeze(0)


def _check_units(pixels: Tensor, colour_units: bool) -> None:
    """A preset's theta_beta counts in 0..255: an image scaled to 0..1 would be blank to it, one of 16 bits noise."""
    low, high = (bound.item() for bound in pixels.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("image: NaN or infinity in it")
    scaled = high > low and ((low >= 0 and high <= 1) or (low < 0 and high - low <= 10))
    if colour_units and (scaled or high > 255.5):
        raise ValueError(
            f"image: values {low:.3g}..{high:.3g}, but theta_beta of a preset counts in 0..255; give uint8,"
            " or kernels= with a theta_beta in the image's own units"
        )


def _tensor(array: Any, name: str) -> Tensor:
    """The array's own memory as a tensor, copied only where torch cannot see it (read-only, reversed, swapped)."""
    if isinstance(array, Tensor):
        return array.detach()
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected an array of numbers, got {array.dtype}")
    plain = array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if plain else np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
