"""What callers give: arrays of NumPy or torch, checked, as the tensors that a CRF takes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.refine.value_range import value_range
from crfrnn.data.depth import white_of
from crfrnn.data.predictions import AXES, Form
from crfrnn.filtering.guide_units import black_and_white, stretched
from crfrnn.filtering.kernels import per_pixel
from crfrnn.inference.problem import check_logits
from crfrnn.runtime.meta_tensors import plain as without_meta
from crfrnn.runtime.meta_tensors import spacing_of

LEAST_PROBABILITY = 1e-10  # those below count as this, so that their logarithm is finite
PICTURE, VOLUME = 2, 3  # dimensions
SUM_TOLERANCE = 0.05  # what storage as float16 or in 8 bits may do to a sum of one

Planes = TypeVar("Planes", np.ndarray, Tensor)


class Fitted(NamedTuple):
    """An image and its predictions, as a CRF takes them."""

    guide: Tensor  # (1, C, *S)
    planes: Tensor  # (L, *S), L at least 2
    form: Form  # in which the predictions came
    pixels: tuple[float, ...] | None  # to a unit of positions along each axis, where that is another
    mask: Tensor | None  # (*S) bool, where pixels count; None for everywhere


def checked(
    image: Any, predictions: Any, name: str, spacing: Sequence[float] | None = None, standardize: bool = False
) -> tuple[Tensor, Tensor, tuple[float, ...] | None]:
    """One image in the form in which a CRF takes it: guide (1, C, *S), U (1, L, *S) float32, and pixels to a unit.

    `name` is ``probabilities`` or ``logits``. Raises `refine`'s ValueErrors.
    """
    guide, planes, _, pixels, _ = fitting(image, predictions, name, True, spacing, standardize)
    return guide, unary_logits(planes.unsqueeze(0), name), pixels


def fitting(
    image: Any,
    predictions: Any,
    name: str,
    colour_units: bool,
    spacing: Sequence[float] | None = None,
    standardize: bool = False,
    mask: Any = None,
) -> Fitted:
    """An image and its predictions, which must fit.

    Args:
        image: NumPy (*S) or (*S, C), torch (*S) or (C, *S), or a batch of one.
        predictions: in any `Form`, which the size of the image tells.
        name: ``probabilities`` or ``logits``.
        colour_units: the image must be in the units in which a preset's theta_beta counts.
        spacing: along each axis; so many it has. Without one the image has two.
        standardize: bring its intensities into those units.
        mask: (*S), where pixels count.
    """
    pixels, values = as_tensor(image, "image"), as_tensor(predictions, name)
    channels_last = not isinstance(image, Tensor)
    if 0 in pixels.shape or 0 in values.shape:
        empty, shape = ("image", pixels.shape) if 0 in pixels.shape else (name, values.shape)
        raise ValueError(f"{empty}: shape {tuple(shape)}, there is nothing in it")
    spacing = spacing_of(image) if spacing is None else spacing
    dimensions = _dimensions(spacing)
    if pixels.dim() == dimensions + 2 and len(pixels) == 1:
        pixels = pixels[0]
    form = _form(values.shape, _size(pixels.shape, channels_last, dimensions))
    if form is None:
        raise ValueError(_misfit(tuple(pixels.shape), channels_last, tuple(values.shape), name, dimensions))
    if pixels.dim() == dimensions:
        pixels = pixels.unsqueeze(0)
    elif channels_last:
        pixels = pixels.movedim(-1, 0)
    planes, inside = form.planes(values), None
    if mask is not None:
        inside = _inside(mask, pixels.shape[1:])
        pixels, planes = filled(pixels, inside), filled(planes, inside)
    if pixels.dtype != torch.uint8 or standardize:
        whole = not pixels.is_floating_point()
        pixels = pixels.to(torch.float32)
        if whole and colour_units and not standardize and dimensions < VOLUME:
            pixels = _eight_bits(pixels)
        _check_units(pixels, colour_units and not standardize)
        if standardize:
            some = pixels.unsqueeze(0) if inside is None else pixels[:, inside].unsqueeze(0)
            pixels = stretched(pixels.unsqueeze(0), *black_and_white(some))[0]
    planes, guide = with_background(planes, name), pixels.unsqueeze(0)
    return Fitted(guide, planes, form, None if spacing is None else per_pixel(spacing, dimensions), inside)


def _inside(mask: Any, size: Sequence[int]) -> Tensor:
    """(*S) bool; ValueError where it is no mask of an image of this size, or nothing is in it."""
    inside = as_tensor(mask, "mask")
    if tuple(inside.shape) != tuple(size):
        raise ValueError(f"mask: shape {tuple(inside.shape)}, expected {tuple(size)}, True where a pixel counts")
    inside = inside != 0
    if not inside.any():
        raise ValueError("mask: no pixel counts; it is True where one does")
    return inside


def filled(planes: Tensor, inside: Tensor) -> Tensor:
    """(C, *S) that has outside of a mask (*S) what its first pixel has: whatever was there, nobody sees it."""
    if bool(inside.all()):
        return planes
    first = int(inside.flatten().nonzero()[0])
    return torch.where(inside, planes, planes.flatten(1)[:, first].view(-1, *(1,) * inside.dim()))


def _dimensions(spacing: Any) -> int:
    """Of an image with this spacing."""
    if spacing is None:
        return PICTURE
    if not isinstance(spacing, Sequence | np.ndarray) or len(spacing) not in (PICTURE, VOLUME):
        raise ValueError(f"spacing: expected a number for each axis, (z, y, x) of a volume, got {spacing!r}")
    return len(spacing)


def with_background(planes: Planes, name: str) -> Planes:
    """(1, *S), a foreground alone, with the background before it, (2, *S) float32; more labels as they are.

    Of logits x, whose sigmoid is the foreground's probability, they are 0 and x up to a number for each pixel, chosen
    so that an infinite x does no harm.

    >>> with_background(np.array([[[0.25, 1.0]]]), "probabilities").tolist()
    [[[0.75, 0.0]], [[0.25, 1.0]]]
    """
    if len(planes) > 1:
        return planes
    if isinstance(planes, np.ndarray):
        return with_background(torch.from_numpy(planes), name).numpy()
    foreground = planes.float()
    if name == "logits":
        return torch.cat([-foreground.clamp(min=0), foreground.clamp(max=0)])
    low, high = (bound.item() for bound in foreground.aminmax())
    if low < 0:
        raise ValueError(f"probabilities: the smallest is {low:.3g}; logits go into logits=")
    if high > 1 + SUM_TOLERANCE:
        raise ValueError(
            f"probabilities: the largest of the foreground is {high:.3g} instead of at most 1; logits go into logits=,"
            " a mask in 0..255 must be divided by 255, and a label map is (labels, height, width) with 1 and 0"
        )
    foreground = foreground.clamp(max=1)
    return torch.cat([1 - foreground, foreground])


def unary_logits(values: Tensor, name: str) -> Tensor:
    """U (1, L, *S) float32 from probabilities or logits, which are checked."""
    return logarithm(checked_predictions(values, name)[0], name)


def logarithm(values: Tensor, name: str) -> Tensor:
    """That of probabilities; logits as they are."""
    return values.clamp(min=LEAST_PROBABILITY).log_() if name == "probabilities" else values


def checked_predictions(values: Tensor, name: str) -> tuple[Tensor, Tensor | None]:
    """The same as float32 and, of probabilities, the highest of each label; or a ValueError."""
    values = values.float()
    if name == "logits":
        check_logits(values)
        return values, None
    lowest, highest, least, most = value_range(values)
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError("probabilities: NaN or infinity in them")
    if lowest < 0:
        raise ValueError(f"probabilities: the smallest is {lowest:.3g}; logits go into logits=")
    if least < 1 - SUM_TOLERANCE or most > 1 + SUM_TOLERANCE:
        raise ValueError(
            f"probabilities: they sum to {least:.3g}..{most:.3g} over the labels instead of 1;"
            " logits go into logits=, and scores must be divided by their sum"
        )
    return values, highest


def _size(shape: Sequence[int], channels_last: bool, dimensions: int) -> tuple[int, ...]:
    """Of one image of so many dimensions; () of what is none."""
    if len(shape) == dimensions:
        return tuple(shape)
    return () if len(shape) != dimensions + 1 else tuple(shape[:dimensions] if channels_last else shape[1:])


def _form(shape: Sequence[int], size: tuple[int, ...]) -> Form | None:
    """How predictions of this shape lie, if they are for an image of this size."""
    try:
        form = Form.of(shape, [size], len(size))
    except (ValueError, KeyError):
        return None
    return form if form.size(shape) == size else None


def _misfit(
    image: tuple[int, ...], channels_last: bool, shape: tuple[int, ...], name: str, dimensions: int = PICTURE
) -> str:
    """Why an image and predictions of these shapes do not belong together: the one that is wrong, and the repair."""
    axes = ", ".join(AXES[dimensions])
    layout = f"({axes}, channels)" if channels_last else f"(channels, {axes})"
    alone = len(image) == 3 and len(shape) == 4 and shape[-3:] == image and image[-1 if channels_last else 0] > 4
    if dimensions == PICTURE and alone:
        return f"image: shape {image} is a volume; say its spacing=(z, y, x), or (1, 1, 1) for voxels as the unit"
    if len(image) not in (dimensions, dimensions + 1):
        several = f"; several go in lists, refine(list(images), list({name})), and a volume needs its spacing="
        return f"image: shape {image}, expected one of ({axes}) or {layout}{several * (len(image) == 4)}"
    if len(image) == dimensions + 1 and _form(shape, _size(image, not channels_last, dimensions)):
        order = (*range(1, dimensions + 1), 0) if channels_last else (dimensions, *range(dimensions))
        of, repair = ("NumPy", "transpose") if channels_last else ("torch", "permute")
        return f"image: shape {image}, but {name} {shape}; an image of {of} is {layout}, give image.{repair}{order}"
    size = _size(image, channels_last, dimensions)
    wanted = ", ".join(map(str, size))
    expected = f"expected (labels, {wanted}), or ({wanted}) of a foreground alone"
    if _form(shape, size[::-1]):
        swapped = "height and width are swapped" if dimensions == PICTURE else "it is in the order x, y, z"
        return f"{name}: shape {shape} does not fit the image, {expected}; {swapped}"
    if len(shape) == 2 and shape[1] == math.prod(size):
        return f"{name}: shape {shape} has no rows, {expected}; give {name}.reshape(-1, {wanted})"
    several = "; several images go in lists" * (len(shape) == dimensions + 2 and shape[0] > 1)
    return f"{name}: shape {shape} does not fit the image, {expected}{several}"


def _eight_bits(pixels: Tensor) -> Tensor:
    """Whole numbers beyond 0..255 as `rgb_pixels` takes those of a file of 16 bits."""
    low, high = (int(bound) for bound in pixels.aminmax())
    return (pixels * (255 / white_of(high))).round_() if low >= 0 and 255 < high <= 65535 else pixels


def _check_units(pixels: Tensor, colour_units: bool) -> None:
    """A preset's theta_beta counts in 0..255: an image scaled to 0..1 would be blank to it, one of 16 bits noise."""
    low, high = (bound.item() for bound in pixels.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("image: NaN or infinity in it")
    scaled = high > low and ((low >= 0 and high <= 1) or (low < 0 and high - low <= 10))
    if colour_units and (scaled or high > 255.5):
        raise ValueError(
            f"image: values {low:.3g}..{high:.3g}, but theta_beta of a preset counts in 0..255; give uint8,"
            " or kernels= with a theta_beta in the image's own units, or standardize"
        )


def as_tensor(array: Any, name: str) -> Tensor:
    """The array's own memory as a tensor, copied only where torch cannot see it (read-only, reversed, swapped)."""
    if isinstance(array, Tensor):
        if array.is_complex() or array.layout is not torch.strided or array.is_meta:
            kind = "without numbers, on the meta device" if array.is_meta else f"of {array.dtype}, {array.layout}"
            raise ValueError(f"{name}: expected a dense tensor of real numbers, got one {kind}")
        return without_meta(array.detach())
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            f"{name}: a masked array; say what is there with .filled(...), and which pixels count with mask="
        )
    given = array
    try:
        array = np.asarray(array)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: expected an array of numbers, got {type(given).__name__} ({error})") from None
    if array.dtype.kind not in "fiub":
        kind = f"one of {array.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise ValueError(f"{name}: expected an array of numbers, got {kind}")
    if array.dtype.char == "g":  # long doubles, which torch does not know
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    plain = array.flags.writeable and array.dtype.isnative and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if plain else np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
