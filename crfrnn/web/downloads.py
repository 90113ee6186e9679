"""The files that a visitor takes home."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from crfrnn.commands.refine.inputs import LEAST_PROBABILITY
from crfrnn.data.drawing.cutout import cut_out
from crfrnn.data.drawing.legend import with_legend
from crfrnn.data.files import writing
from crfrnn.data.images import write_image
from crfrnn.data.labels import GROUND, write_labels
from crfrnn.data.predictions import write_predictions
from crfrnn.networks.photo_size import placed
from crfrnn.web.drawing import entries, overlays
from crfrnn.web.limits import Limits
from crfrnn.web.reading import read_whole_photo
from crfrnn.web.wording import Refusal
from crfrnn.web.workspaces import Workspace


def fresh_folder(folder: Path) -> Path:
    """A new folder for downloads in the server's, whose files expire."""
    return Path(mkdtemp(prefix="downloads-", dir=folder))


def write_downloads(workspace: Workspace, folder: Path, limits: Limits, chosen: Sequence[int]) -> list[Path]:
    """labels.png and cutout.png at the photo's own size, overlay.jpg, probabilities.npz and settings.yaml.

    Of the photo only the `chosen` classes are left in the cut-out; without any there is none. Raises Refusal where
    there is no result, and where the photo's file was put away and is needed.
    """
    settling = workspace.settling
    if settling is None or workspace.settings is None:
        raise Refusal("no_result")
    names = ("labels.png", "overlay.jpg", "probabilities.npz", "settings.yaml", *["cutout.png"] * bool(chosen))
    labels, overlay, probabilities, settings, *cutout = paths = [folder / name for name in names]
    photo, indices, probability = _full_size(workspace, limits, chosen)
    for path in cutout:
        write_image(path, cut_out(photo, probability))
    last = len(settling.labels) - 1
    write_image(overlay, with_legend(overlays(workspace, last)[1], entries(workspace, last)))
    whole = np.zeros((len(workspace.style.values), *settling.marginals.shape[1:]), np.float16)
    whole[settling.occurring] = settling.marginals
    write_predictions(probabilities, whole)
    with writing(settings) as file:
        file.write(settings_yaml(workspace).encode())
    write_labels(labels, indices, workspace.style)
    return paths


def found(workspace: Workspace) -> list[tuple[str, int]]:
    """The classes of the result, the largest first: (name, number)."""
    labels = workspace.before if workspace.settling is None else workspace.settling.labels[-1]
    numbers, counts = np.unique(labels, return_counts=True)
    names = workspace.style.names()
    return [(names[number], number) for number in numbers[np.argsort(-counts, kind="stable")].tolist()]


def foreground(classes: Sequence[tuple[str, int]]) -> list[int]:
    """What most people want to be cut out of `found`: all but the background, or but the largest class.

    >>> foreground([("cat", 8), ("background", 0), ("dog", 12)]), foreground([("sky", 0), ("road", 3)])
    ([8, 12], [3])
    """
    ground = [number for name, number in classes if name.casefold() in GROUND] or [n for _, n in classes[:1]]
    return [number for _, number in classes if number not in ground]


def _full_size(
    workspace: Workspace, limits: Limits, chosen: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The photo (H, W, 3) as it came, its labels (H, W), and the probability (H, W) of the chosen ones together.

    Where the photo was scaled, the marginals are scaled back, and a CRF of short reach places the edges, as
    `crfrnn segment` does.
    """
    settling, settings, photo = workspace.settling, workspace.settings, workspace.exploration.photo
    if settling is None or settings is None:
        raise Refusal("no_result")
    scaled = workspace.full_size != settling.labels.shape[1:]
    if scaled:
        if workspace.source is None or not workspace.source.exists():
            raise Refusal("no_result")
        photo = read_whole_photo(workspace.source, limits).pixels
    numbers = settling.occurring.astype(settling.labels.dtype)
    logits = torch.from_numpy(settling.marginals).unsqueeze(0).clamp(min=LEAST_PROBABILITY).log()
    labels, probability = np.empty(photo.shape[:2], numbers.dtype), np.empty(photo.shape[:2], np.float16)
    wanted = np.isin(numbers, chosen)
    for rows, q in placed(logits, photo, edges=scaled and settings.iterations > 0):
        labels[rows] = numbers[torch.from_numpy(q).max(0).indices.numpy()]  # argmax takes five times as long
        probability[rows] = q[wanted].sum(axis=0)
    return photo, labels if scaled else settling.labels[-1], probability


def settings_yaml(workspace: Workspace) -> str:
    """What ``crfrnn refine --config`` reads; bandwidths in pixels of the photo as it came."""
    settings = workspace.settings
    if settings is None:
        raise Refusal("no_result")
    factor = (workspace.full_size[0] * workspace.full_size[1] / workspace.before.size) ** 0.5
    weights = workspace.exploration.class_weights if workspace.learned else None
    rows = None if weights is None else tuple(map(tuple, weights.tolist()))
    parameters = settings.parameters(factor, rows)
    return "\n".join([*_comments(workspace, factor), parameters.as_yaml()])


def _comments(workspace: Workspace, factor: float) -> Iterator[str]:
    height, width = workspace.full_size
    yield "# crfrnn refine photos/ --probabilities predictions/ --out labels/ --config settings.yaml"
    yield f"# Bandwidths are for photos of {width} x {height} pixels, {factor:.3g} times those on the page."
    if workspace.learned:
        yield "# The CRF on the page was a learned one. Its weights for each class are here; its compatibility is not,"
        yield "# it stays with the model (crfrnn segment): here it is Potts."
