"""Segment a photograph: with a trained model, or from a few strokes on it and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from crfrnn.commands.segment.stroke_features import photo_features
from crfrnn.commands.segment.stroke_similarity import SIMILARITY, similarity_logits
from crfrnn.data.drawing.figure import compare_labels
from crfrnn.data.drawing.html import html_picture
from crfrnn.data.drawing.legend import entries_of
from crfrnn.data.labels import LabelStyle
from crfrnn.inference.recurrence import check_iterations
from crfrnn.layer import CRFRNN
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.photo_size import CRF_VALUES, bands, fitting_size

MOST_LABELS = 256
COVERED = 0.5  # of what a class's strokes cover where they cover most: a place with less is at their edge
PLACES = 1000  # of the grid with strokes, at most, that all others are compared with
EVIDENCE = 20.0  # added to the logit of what is drawn: more than all that the CRF may say against it


@dataclass(frozen=True)
class Segmentation:
    """What came of a photo (H, W)."""

    labels: np.ndarray  # (H, W), in the numbers of the model or the strokes
    network_labels: np.ndarray  # (H, W), the network's alone; with strokes before the CRF
    classes: tuple[int, ...]  # (L,) the model's, or the numbers that occur in the strokes, ascending
    probabilities: np.ndarray | None  # (L, H, W) float16 in the order of `classes`, where they were asked for
    chosen: np.ndarray | None = None  # (H, W) float16, the probability of the `chosen` classes together

    def _repr_html_(self) -> str:
        """For notebooks: the labels before and with the CRF in VOC's colours, and how much of the photo is which."""
        style = LabelStyle(self.classes)
        before, after = (np.searchsorted(self.classes, labels) for labels in (self.network_labels, self.labels))
        figure = compare_labels(before, after, style.colours(), entries_of(after, style.names(), style.colours()))
        return html_picture(figure, "labels without and with the CRF")


@dataclass(frozen=True)
class LearnedStrokes:
    """What was learned from the strokes on one photo, at its own size or a smaller one, (h, w)."""

    classes: tuple[int, ...]  # (L,) the numbers that occur in the strokes, ascending
    alone: torch.Tensor  # (1, L, h, w) logits by what the strokes resemble
    unary: torch.Tensor  # (1, L, h, w) the same, certain where something is drawn
    crf: CRFRNN  # for photos of (h, w)


def segment_photo(
    network: SegmentationNetwork,
    photo: np.ndarray,
    *,
    iterations: int | None = None,
    probabilities: bool = False,
    chosen: Sequence[int] = (),
) -> Segmentation:
    """Segment a photo with a trained network: its labels with its CRF-RNN and alone, for the price of one network.

    Args:
        network: in evaluation mode.
        photo: (H, W, 3) uint8, of any size: see `SegmentationNetwork.predict`.
        iterations: T, instead of the CRF's.
        probabilities: also return the marginals.
        chosen: numbers of classes whose probability is also returned, as one; much less memory than all marginals.

    Raises ValueError, whose message begins with the argument's name, where the photo is none.

    >>> from crfrnn import build_unary
    >>> network = SegmentationNetwork(build_unary("fast-scnn", num_classes=11), CRFRNN(11), size=64).eval()
    >>> segment_photo(network, np.zeros((48, 96, 3), np.uint8)).labels.shape
    (48, 96)
    """
    if iterations is not None and iterations < 0:
        raise ValueError(f"iterations: must be at least 0, got {iterations}")
    logits = network.photo_logits(photo)
    classes = tuple(range(logits.shape[1]))
    label = partial(_label, logits, photo, classes, iterations)
    if network.crf is None:
        alone = label(None, probabilities, chosen)
        return replace(alone, network_labels=alone.labels)
    return replace(label(network.crf, probabilities, chosen), network_labels=label(None).labels)


def segment_strokes(
    image: np.ndarray,
    strokes: np.ndarray,
    *,
    void: int = -1,
    iterations: int = 10,
    seed: int = 0,
    probabilities: bool = False,
    chosen: Sequence[int] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Segmentation:
    """Segment any photo into any classes from a few strokes: the only supervision.

    A place gets the label of the strokes that it resembles, by the features of a trained network, by colour and by
    position (`learn_strokes`); then a CRF-RNN runs over the photo with T = `iterations`, and what is drawn stays. Of
    a large photo the CRF sees a smaller copy, and the edges are placed in bands of rows.

    Args:
        image: the photo, (H, W, 3) uint8.
        strokes: (H, W) whole numbers: the class of a pixel, or `void` where nothing is drawn. At least two classes,
            in any numbers.
        void: the number that means "nothing drawn".
        iterations: T when the photo is labelled.
        seed: which of the strokes are looked at, where they cover more than 1000 places. The same seed gives the same
            result on the same machine and number of threads.
        probabilities: also return the marginals.
        chosen: numbers that occur in the strokes, whose probability is also returned, as one.
        progress: called after each step with (steps done, steps in all).

    Raises:
        ValueError: strokes of another size than the photo, empty strokes, one class only, an image that is not
            (H, W, 3) uint8. The message begins with the argument's name.

    Source: iterations of Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015; how well
    it works is measured in docs/strokes.md.

    >>> image = np.full((20, 30, 3), 200, np.uint8)
    >>> image[:, 15:] = 40
    >>> strokes = np.full((20, 30), -1)
    >>> strokes[5:15, 3], strokes[5:15, 26] = 7, 2
    >>> np.unique(segment_strokes(image, strokes).labels[10], return_counts=True)
    (array([2, 7]), array([15, 15]))
    """
    iterations = check_iterations(iterations)
    learned = learn_strokes(image, strokes, void=void, seed=seed, progress=progress)
    label = partial(_label, image=image, classes=learned.classes, iterations=iterations)
    refined = label(learned.unary, crf=learned.crf, keep=probabilities, chosen=chosen)
    return replace(refined, network_labels=label(learned.alone, crf=None).labels)


def learn_strokes(
    image: np.ndarray,
    strokes: np.ndarray,
    *,
    void: int = -1,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> LearnedStrokes:
    """The first half of `segment_strokes`, with the same arguments: before the CRF runs over the photo.

    >>> strokes = np.array([[0, 0, -1, -1, 1, 1]] * 6)
    >>> learn_strokes(np.uint8(40 + 100 * np.stack([strokes == 1] * 3, axis=2)), strokes).unary.shape
    torch.Size([1, 2, 6, 6])
    """
    classes = _check(image, strokes, void)
    size = fitting_size(strokes.shape, CRF_VALUES / len(classes))
    report = progress or (lambda done, total: None)
    features = photo_features(image)
    report(1, 2)
    grid = features["position"].shape[1:]
    drawn = [strokes == number for number in classes]
    places, targets = drawn_places(drawn, (grid[0], grid[1]), seed)
    logits = similarity_logits(features, places, targets, len(classes), SIMILARITY)
    alone = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
    unary = alone + evidence_of(drawn, size)
    report(2, 2)
    return LearnedStrokes(classes, alone, unary, SIMILARITY.crf(len(classes), size))


def drawn_places(drawn: Sequence[np.ndarray], grid: tuple[int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Strokes (H, W) of each label -> places (P,) of the grid that they cover, as indices, and their labels (P,)."""
    covered = torch.cat([_coverage(strokes, grid) for strokes in drawn])
    enough = COVERED * covered.amax(dim=(1, 2), keepdim=True)
    labels = torch.where((covered >= enough).any(dim=0), covered.argmax(dim=0), -1)
    for label in range(len(drawn)):
        if not (labels == label).any():  # its strokes share their places with broader ones: it keeps the best
            labels.view(-1)[covered[label].argmax()] = label
    places = (labels.flatten() >= 0).nonzero().flatten()
    if len(places) > PLACES:
        lot = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
        places = places[lot[:PLACES]]
    return places, labels.flatten()[places]


def evidence_of(drawn: Sequence[np.ndarray], size: tuple[int, int]) -> torch.Tensor:
    """(1, L, *size), what strokes (H, W) of each label add to the logits."""
    return EVIDENCE * torch.cat([_coverage(strokes, size) for strokes in drawn]).unsqueeze(0)


def _coverage(drawn: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(1, *size), how much of each pixel of another size a stroke covers."""
    return F.adaptive_avg_pool2d(torch.from_numpy(drawn).float().unsqueeze(0), size)


def _label(
    logits: torch.Tensor,
    image: np.ndarray,
    classes: tuple[int, ...],
    iterations: int | None,
    crf: CRFRNN | None,
    keep: bool = False,
    chosen: Sequence[int] = (),
) -> Segmentation:
    """Labels (H, W) in the numbers of the classes, the marginals (L, H, W) if they are kept, those chosen in one."""
    numbers = np.array(classes)
    labels = np.empty(image.shape[:2], numbers.dtype)
    kept = np.empty((len(classes), *labels.shape), np.float16) if keep else None
    together = np.empty(labels.shape, np.float16) if chosen else None
    with torch.no_grad():
        for rows, q in bands(logits, crf, image, iterations):
            labels[rows] = numbers[q.argmax(axis=0)]
            if kept is not None:
                kept[:, rows] = q
            if together is not None:
                together[rows] = q[np.isin(numbers, chosen)].sum(axis=0)
    return Segmentation(labels, labels, classes, kept, together)


def _check(image: np.ndarray, strokes: np.ndarray, void: int) -> tuple[int, ...]:
    """The classes that occur in the strokes, or a ValueError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image: expected an array (height, width, 3) uint8, got {got}")
    if not isinstance(strokes, np.ndarray) or strokes.dtype.kind not in "iu" or strokes.ndim != 2:
        got = f"{strokes.dtype} {strokes.shape}" if isinstance(strokes, np.ndarray) else type(strokes).__name__
        raise ValueError(f"strokes: expected an array (height, width) of whole numbers, got {got}")
    if strokes.shape != image.shape[:2]:
        raise ValueError(
            f"strokes: {strokes.shape[1]} x {strokes.shape[0]} pixels, but the photo has {image.shape[1]} x"
            f" {image.shape[0]}; draw them on the photo at its own size"
        )
    classes = tuple(int(number) for number in np.unique(strokes) if number != void)
    if not classes:
        raise ValueError(
            f"strokes: nothing is drawn, every pixel is {void}; draw on each thing that is to be told apart"
        )
    if len(classes) == 1:
        raise ValueError(f"strokes: only one class, {classes[0]}; draw on the background, too, in another colour")
    if len(classes) > MOST_LABELS:
        raise ValueError(f"strokes: {len(classes)} classes, at most {MOST_LABELS}; were they blurred or resized?")
    return classes
