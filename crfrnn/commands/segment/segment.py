"""Segment a photograph: with a trained model, or from a few strokes on it and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from crfrnn.commands.segment import stroke_training as training
from crfrnn.commands.segment.stroke_features import pixel_features
from crfrnn.commands.segment.stroke_training import (
    PixelNetwork,
    Strokes,
    logits_map,
    stroke_crf,
    train_end_to_end,
    train_network,
)
from crfrnn.inference.recurrence import check_iterations
from crfrnn.layer import CRFRNN
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.photo_size import bands, fitting_size, resized

TRAINING_PIXELS = 40_000  # the size at which a photo is learned
MOST_LABELS = 256


@dataclass(frozen=True)
class Segmentation:
    """What came of a photo (H, W)."""

    labels: np.ndarray  # (H, W), in the numbers of the model or the strokes
    network_labels: np.ndarray  # (H, W), the network's alone; with strokes as it was before the CRF came behind it
    classes: tuple[int, ...]  # (L,) the model's, or the numbers that occur in the strokes, ascending
    probabilities: np.ndarray | None  # (L, H, W) float16 in the order of `classes`, where they were asked for


@dataclass(frozen=True)
class LearnedStrokes:
    """What was learned from the strokes on one photo, at a reduced size (h, w) of it."""

    classes: tuple[int, ...]  # (L,) the numbers that occur in the strokes, ascending
    alone: torch.Tensor  # (1, L, h, w) logits of the network before the CRF came behind it
    joint: torch.Tensor  # (1, L, h, w) logits of the network that was trained with its CRF
    crf: CRFRNN  # for photos of (h, w)


def segment_photo(
    network: SegmentationNetwork, photo: np.ndarray, *, iterations: int | None = None, probabilities: bool = False
) -> Segmentation:
    """Segment a photo with a trained network: its labels with its CRF-RNN and alone, for the price of one network.

    Args:
        network: in evaluation mode.
        photo: (H, W, 3) uint8, of any size: see `SegmentationNetwork.predict`.
        iterations: T, instead of the CRF's.
        probabilities: also return the marginals.

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
    network_labels, kept = _label(logits, photo, classes, iterations, None, keep=probabilities and network.crf is None)
    labels = network_labels
    if network.crf is not None:
        labels, kept = _label(logits, photo, classes, iterations, network.crf, keep=probabilities)
    return Segmentation(labels, network_labels, classes, kept)


def segment_strokes(
    image: np.ndarray,
    strokes: np.ndarray,
    *,
    void: int = -1,
    iterations: int = 10,
    seed: int = 0,
    probabilities: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Segmentation:
    """Segment any photo into any classes from a few strokes: the only supervision, no trained model.

    A small network (colour, surroundings at five scales, position) learns the strokes, then the network and its
    CRF-RNN are trained together, end to end, T = 5, and the whole photo is labelled with T = `iterations`. Training
    happens at a reduced size, labelling at the photo's own, in bands, so that large photos need little more memory.

    Args:
        image: the photo, (H, W, 3) uint8.
        strokes: (H, W) whole numbers: the class of a pixel, or `void` where nothing is drawn. At least two classes,
            in any numbers.
        void: the number that means "nothing drawn".
        iterations: T when the photo is labelled.
        seed: the same seed gives the same result on the same machine and number of threads.
        probabilities: also return the marginals.
        progress: called after each step with (steps done, steps in all).

    Raises:
        ValueError: strokes of another size than the photo, empty strokes, one class only, an image that is not
            (H, W, 3) uint8. The message begins with the argument's name.

    Source: training and iterations of Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV
    2015; how well it works is measured in docs/strokes.md.

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
    network_labels, _ = label(learned.alone, crf=None, keep=False)
    labels, kept = label(learned.joint, crf=learned.crf, keep=probabilities)
    return Segmentation(labels, network_labels, learned.classes, kept)


def learn_strokes(
    image: np.ndarray,
    strokes: np.ndarray,
    *,
    void: int = -1,
    seed: int = 0,
    end_to_end: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> LearnedStrokes:
    """The first half of `segment_strokes`, with the same arguments: network and CRF-RNN, before the photo is labelled.

    Without `end_to_end` the CRF keeps its initial parameters and the network learns alone, in a fraction of the time.

    >>> strokes = np.array([[0, 0, -1, -1, 1, 1]] * 6)
    >>> learn_strokes(np.uint8(40 + 100 * np.stack([strokes == 1] * 3, axis=2)), strokes).joint.shape[:2]
    torch.Size([1, 2])
    """
    classes = _check(image, strokes, void)
    total = training.NETWORK_STEPS + training.JOINT_STEPS * end_to_end
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        prepared = prepare_strokes(image, strokes, classes)
        network = PixelNetwork(prepared.features.shape[1], len(classes))
        crf = stroke_crf(len(classes), prepared.size)
        train_network(network, prepared, progress=step)
        alone = network_logits(network, prepared)
        if end_to_end:
            train_end_to_end(network, crf, prepared, progress=step)
        joint = network_logits(network, prepared)
    return LearnedStrokes(classes, alone, joint, crf)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Training in small pieces: with several threads on a busy machine they would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_strokes(image: np.ndarray, strokes: np.ndarray, classes: tuple[int, ...]) -> Strokes:
    """Photo and strokes at the size of training; random features are drawn from torch's generator."""
    size = fitting_size(strokes.shape, TRAINING_PIXELS)
    small = resized(image, size)
    covered = torch.cat([_coverage(strokes == number, size) for number in classes])
    targets = torch.where(covered.amax(dim=0) > 0, covered.argmax(dim=0), -1)
    for label in range(len(classes)):
        if not (targets == label).any():  # its strokes share their pixels with broader ones: it keeps the best
            targets.view(-1)[covered[label].argmax()] = label
    flat = targets.flatten()
    pixels = (flat >= 0).nonzero().flatten()
    if len(pixels) > training.MOST_STROKES:
        pixels = pixels[torch.randperm(len(pixels))[: training.MOST_STROKES]]
    features = pixel_features(small, torch.default_generator)
    return Strokes(small, features, pixels, flat[pixels], len(classes))


def network_logits(network: PixelNetwork, strokes: Strokes) -> torch.Tensor:
    """(1, L, h, w), the network's output in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return logits_map(network, strokes)


def _coverage(drawn: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(1, *size), how much of each pixel of the reduced size a stroke covers."""
    return F.adaptive_avg_pool2d(torch.from_numpy(drawn).float().unsqueeze(0), size)


def _label(
    logits: torch.Tensor,
    image: np.ndarray,
    classes: tuple[int, ...],
    iterations: int | None,
    crf: CRFRNN | None,
    keep: bool,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels (H, W) in the numbers of the classes, and the marginals (L, H, W) if they are kept."""
    numbers = np.array(classes)
    labels = np.empty(image.shape[:2], numbers.dtype)
    kept = np.empty((len(classes), *labels.shape), np.float16) if keep else None
    with torch.no_grad():
        for rows, q in bands(logits, crf, image, iterations):
            labels[rows] = numbers[q.argmax(axis=0)]
            if kept is not None:
                kept[:, rows] = q
    return labels, kept


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
