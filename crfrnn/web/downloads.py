"""The files that a visitor takes home."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from crfrnn.commands.refine.inputs import LEAST_PROBABILITY
from crfrnn.data.drawing.legend import with_legend
from crfrnn.data.files import writing
from crfrnn.data.images import write_image
from crfrnn.data.labels import write_labels
from crfrnn.data.predictions import write_predictions
from crfrnn.networks.photo_size import bands
from crfrnn.web.drawing import entries, overlays
from crfrnn.web.wording import Refusal
from crfrnn.web.workspaces import Workspace


def fresh_folder(folder: Path) -> Path:
    """A new folder for downloads in the server's, whose files expire."""
    return Path(mkdtemp(prefix="downloads-", dir=folder))


def write_downloads(workspace: Workspace, folder: Path) -> list[Path]:
    """labels.png at the photo's own size, overlay.jpg, probabilities.npz and settings.yaml."""
    settling = workspace.settling
    if settling is None or workspace.settings is None:
        raise Refusal("no_result")
    last = len(settling.labels) - 1
    paths = [folder / name for name in ("labels.png", "overlay.jpg", "probabilities.npz", "settings.yaml")]
    write_image(paths[1], with_legend(overlays(workspace, last)[1], entries(workspace, last)))
    whole = np.zeros((len(workspace.style.values), *settling.marginals.shape[1:]), np.float16)
    whole[settling.occurring] = settling.marginals
    write_predictions(paths[2], whole)
    with writing(paths[3]) as file:
        file.write(settings_yaml(workspace).encode())
    write_labels(paths[0], full_size_labels(workspace), workspace.style)
    return paths


def full_size_labels(workspace: Workspace) -> np.ndarray:
    """(H, W) labels at the size of the photo as it came: where it was scaled, the marginals are scaled back."""
    settling = workspace.settling
    if settling is None:
        raise Refusal("no_result")
    if workspace.full_size == settling.labels.shape[1:]:
        return settling.labels[-1]
    numbers = settling.occurring.astype(settling.labels.dtype)
    logits = torch.from_numpy(settling.marginals).unsqueeze(0).clamp(min=LEAST_PROBABILITY).log()
    size_alone = np.broadcast_to(np.uint8(0), (*workspace.full_size, 3))
    return np.concatenate([numbers[q.argmax(axis=0)] for _, q in bands(logits, None, size_alone, None)])


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
