"""From logits at the size of a network's training to labels at the photo's own size, in bounded memory."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.inference.recurrence import marginals
from crfrnn.layer import CRFRNN

CRF_VALUES = 6_000_000  # pixels times labels of the largest CRF over a whole photo: about 300 MB
BAND_VALUES = 6_000_000  # the same for a band of rows of a larger photo; smaller ones waste more on their margins
REACH = 3.0  # how far, in pixels of the whole photo's CRF, the one of a band looks for an edge
BAND_ITERATIONS = 3
BAND_WEIGHTS = 3.0, 1.0  # of its kernels: neighbours move no logit against another by more than both together
BLOCK = 64  # columns of a band that are worked on, or left, together


def fitting_size(size: tuple[int, int], pixels: float) -> tuple[int, int]:
    """(height, width) with the same proportions and at most about so many pixels; never larger than it was.

    >>> fitting_size((3000, 4000), 120_000), fitting_size((30, 40), 120_000)
    ((300, 400), (30, 40))
    """
    scale = min(1.0, math.sqrt(pixels / (size[0] * size[1])))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, *size) float32 in 0..255, averaged where it shrinks."""
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1).unsqueeze(0)
    if tuple(planes.shape[2:]) == size:
        return planes.float()
    return F.interpolate(planes, size=size, mode="bilinear", antialias=True).float()


def bands(
    logits: Tensor, crf: CRFRNN | None, image: np.ndarray, iterations: int | None
) -> Iterator[tuple[slice, np.ndarray]]:
    """The marginals (L, rows, W) of the photo (H, W, 3), one band of rows after the other.

    Args:
        logits: (1, L, h, w), the network's, for the whole photo at the size that network and CRF were trained on.
        crf: the trained layer, in evaluation mode; None gives the network alone.
        image: the photo.
        iterations: T; None is the layer's own. T = 0 is the network alone, at any size.

    The CRF runs over the whole photo at once up to `CRF_VALUES`, with its learned parameters and with bandwidths in
    the same share of the photo as in training. Of a larger photo the CRF sees a smaller copy, though never smaller
    than the logits, and a CRF of short reach then puts the edges in place, band by band, each with a margin that is
    thrown away.
    """
    labels = logits.shape[1]
    trained = (logits.shape[2], logits.shape[3])
    whole = max(trained, fitting_size(image.shape[:2], CRF_VALUES / labels))
    if crf is not None and not (crf.eval_iterations if iterations is None else iterations):
        crf = None
    if crf is not None:
        larger = crf if whole == trained else crf.scaled(math.hypot(*whole) / math.hypot(*trained))
        logits = larger(_scaled(logits, whole), resized(image, whole).to(logits.device), iterations)
    yield from placed(logits, image, edges=crf is not None)


def placed(logits: Tensor, image: np.ndarray, *, edges: bool) -> Iterator[tuple[slice, np.ndarray]]:
    """The second half of `bands`: logits (1, L, h, w) at the size of the photo (H, W, 3), as marginals (L, rows, W).

    With `edges` a CRF of short reach says where in the photo's own pixels they are; else they are only scaled. It is
    left out where no pixel is so undecided that its neighbours could change its label: those labels stay the same.
    """
    labels, height = logits.shape[1], image.shape[0]
    at_size = tuple(logits.shape[2:]) == image.shape[:2]
    scale = height / logits.shape[2]
    local = edges and scale > 1
    margin = math.ceil(3 * REACH * scale) if local else 0
    rows = max(16, BAND_VALUES // (labels * image.shape[1]))
    for start in range(0, height, rows):
        stop = min(height, start + rows)
        top, bottom = max(0, start - margin), min(height, stop + margin)
        part = logits[:, :, top:bottom] if at_size else _rows(logits, image.shape[:2], top, bottom)
        q = part.softmax(dim=1)
        for columns in _undecided(q) if local else ():
            left, right = max(0, columns.start - margin), min(image.shape[1], columns.stop + margin)
            there = _local(part[..., left:right], image[top:bottom, left:right], scale)
            q[..., columns] = there[..., columns.start - left : columns.stop - left]
        yield slice(start, stop), q[0, :, start - top : stop - top].cpu().numpy()


def _undecided(q: Tensor) -> Iterator[slice]:
    """The columns of marginals (1, L, h, w) in which neighbours could change a label, blocks side by side in one."""
    decided = 1 / (1 + math.exp(-sum(BAND_WEIGHTS)))  # then its logit is so far ahead of all others
    columns = (q.amax(dim=1) < decided).any(dim=1)[0]
    padded = F.pad(columns, (0, -len(columns) % BLOCK)).view(-1, BLOCK).any(dim=1)
    edges = F.pad(padded.int(), (1, 1)).diff().nonzero()[:, 0] * BLOCK
    for start, stop in edges.view(-1, 2).tolist():
        yield slice(start, min(stop, len(columns)))


def _scaled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return logits if tuple(logits.shape[2:]) == size else F.interpolate(logits, size=size, mode="bilinear")


def _rows(logits: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows top..bottom of the logits upsampled to `size`, bilinearly, with pixels as areas."""
    source = ((torch.arange(top, bottom, device=logits.device) + 0.5) * (logits.shape[2] / size[0]) - 0.5).clamp(
        0, logits.shape[2] - 1
    )
    above = source.long()
    below = (above + 1).clamp(max=logits.shape[2] - 1)
    rows = torch.lerp(logits[:, :, above], logits[:, :, below], (source - above).view(1, 1, -1, 1))
    return F.interpolate(rows, size=(bottom - top, size[1]), mode="bilinear")


def _local(logits: Tensor, image: np.ndarray, scale: float) -> Tensor:
    """Marginals of a CRF whose kernels reach no farther than the uncertainty that upsampling by `scale` left."""
    guide = resized(image, image.shape[:2]).to(logits.device)
    kernels = (Bilateral(REACH * scale, 10.0, weight=BAND_WEIGHTS[0]), Spatial(scale, weight=BAND_WEIGHTS[1]))
    filters = [kernel.prepare(guide) for kernel in kernels]
    weights = torch.tensor([[kernel.weight] for kernel in kernels], device=logits.device)
    potts = 1 - torch.eye(logits.shape[1], device=logits.device)
    return marginals(logits, filters, weights, potts, BAND_ITERATIONS)
