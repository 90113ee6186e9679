"""pydensecrf's helpers: unary energies from labels or probabilities, features of grids of any dimension.

Energies are (labels, N) float32 and features (d, N) float32, N points in row-major order of the grid.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crfrnn.pydensecrf import arguments


def unary_from_labels(
    labels: ArrayLike, n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> NDArray[np.float32]:
    """The energy of a hard labelling that is right with probability `gt_prob`.

    Args:
        labels: whole numbers of any shape, N in all. With `zero_unsure` 1..n_labels, and 0 where nothing is known;
            else 0..n_labels - 1.
        n_labels: L, without the 0 of `zero_unsure`.
        gt_prob: probability of the label given, inside (0, 1); the others share the rest equally.
        zero_unsure: whether 0 means that all labels are equally likely.

    Returns:
        (L, N) float32, -log p.
    """
    count = arguments.whole("n_labels", n_labels, 2)
    if not 0 < gt_prob < 1:
        raise ValueError(f"gt_prob: expected a probability inside (0, 1), got {gt_prob!r}")
    flat = arguments.array("labels", labels).ravel()
    if flat.dtype.kind not in "iub":
        raise ValueError(f"labels: expected whole numbers, got {flat.dtype}; convert with .astype(int)")
    flat = flat.astype(np.int64)
    lowest, highest = (0, count) if zero_unsure else (0, count - 1)
    outside = flat[(flat < lowest) | (flat > highest)]
    if outside.size:
        raise ValueError(
            f"labels: {outside[0]} is not in {lowest}..{highest}; raise n_labels, or make unknown points 0 and set"
            " zero_unsure=True"
        )
    energy = np.full((count, flat.size), -np.log((1 - gt_prob) / (count - 1)), np.float32)
    known = np.flatnonzero(flat) if zero_unsure else np.arange(flat.size)
    energy[flat[known] - bool(zero_unsure), known] = -np.log(gt_prob)
    if zero_unsure:
        energy[:, flat == 0] = np.log(count)
    return energy


def unary_from_softmax(sm: ArrayLike, scale: float | None = None, clip: float | None = 1e-5) -> NDArray[np.float32]:
    """The energy of class probabilities.

    Args:
        sm: (L, ...) probabilities, labels first, as a softmax returns them.
        scale: inside (0, 1], how far the probabilities are trusted: sm becomes scale sm + (1 - scale) / L.
        clip: the least probability, so that no energy is infinite; None for none.

    Returns:
        (L, N) float32, -log p.
    """
    probabilities = arguments.array("sm", sm)
    if probabilities.ndim == 0 or probabilities.dtype.kind not in "fiub":
        raise ValueError(f"sm: expected (labels, ...) real numbers, got {probabilities.dtype} {probabilities.shape}")
    if probabilities.dtype not in (np.float32, np.float64):
        probabilities = probabilities.astype(np.float32 if probabilities.dtype.kind == "f" else np.float64)
    labels = probabilities.shape[0]
    if scale is not None:
        if not 0 < scale <= 1:
            raise ValueError(f"scale: expected a number inside (0, 1], got {scale!r}")
        probabilities = scale * probabilities + (1 - scale) / labels
    if clip is not None:
        if not 0 <= clip <= 1:
            raise ValueError(f"clip: expected a probability or None, got {clip!r}")
        probabilities = np.clip(probabilities, clip, 1.0)
    if not (probabilities >= 0).all():
        raise ValueError("sm: NaN or negative probabilities; pass the output of a softmax, not its logits")
    with np.errstate(divide="ignore"):
        return np.ascontiguousarray(-np.log(probabilities).reshape(labels, -1), np.float32)


def create_pairwise_gaussian(sdims: Any, shape: Sequence[int]) -> NDArray[np.float32]:
    """Positions on a grid over their bandwidths, features for `DenseCRF.addPairwiseEnergy`.

    Args:
        sdims: bandwidths in pixels, one number or one for each axis, in the order of `shape` (y before x).
        shape: sizes of the grid, any number of axes.

    Returns:
        (axes, N) float32.
    """
    sizes = [arguments.whole("shape", size, 1) for size in shape]
    return _positions(sdims, sizes, f"the axes of shape {tuple(sizes)}")


def create_pairwise_bilateral(sdims: Any, schan: Any, img: ArrayLike, chdim: int = -1) -> NDArray[np.float32]:
    """Positions and image values over their bandwidths, features for `DenseCRF.addPairwiseEnergy`.

    Args:
        sdims: bandwidths in pixels, one number or one for each axis of the grid, in the order of `img`'s axes.
        schan: bandwidths in the image's units, one number or one for each channel.
        img: an image or volume of real numbers.
        chdim: which axis of `img` holds the channels; -1 if there is none, which is *not* the last axis.

    Returns:
        (axes + channels, N) float32, positions first.
    """
    image = arguments.real("img", img)
    if chdim == -1:
        channels = image[np.newaxis]
    elif -image.ndim <= chdim < image.ndim:
        channels = np.moveaxis(image, chdim, 0)
    else:
        raise ValueError(f"chdim: img has {image.ndim} axes, {image.shape}; got {chdim!r}")
    sizes = list(channels.shape[1:])
    where = f"the axes {tuple(sizes)} of img with chdim={chdim}"
    positions = _positions(sdims, sizes, where)
    thetas = arguments.bandwidths("schan", schan, len(channels), f"the {len(channels)} channels with chdim={chdim}")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([positions, channels.reshape(len(channels), -1) / thetas[:, np.newaxis]])


def compute_unary(labels: ArrayLike, M: int, GT_PROB: float = 0.5) -> NDArray[np.float32]:
    """The old name of `unary_from_labels`."""
    warnings.warn("compute_unary is now called unary_from_labels", DeprecationWarning, stacklevel=2)
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: ArrayLike, GT_PROB: float = 1) -> NDArray[np.float32]:
    """The old name of `unary_from_softmax`, without its clipping."""
    warnings.warn("softmax_to_unary is now called unary_from_softmax", DeprecationWarning, stacklevel=2)
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def _positions(sdims: Any, sizes: list[int], what: str) -> NDArray[np.float32]:
    """(axes, N) float32 positions over bandwidths, in the order of the axes."""
    thetas = arguments.bandwidths("sdims", sdims, len(sizes), what)
    with np.errstate(over="ignore"):
        axes = [np.arange(size, dtype=np.float32) / theta for size, theta in zip(sizes, thetas, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(len(sizes), -1)
