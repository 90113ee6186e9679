"""What the page asks for: a photo, strokes or predictions in, a result that can be looked at from all sides."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from crfrnn.commands.segment.segment import learn_strokes
from crfrnn.data.labels import GROUND, LabelStyle
from crfrnn.filtering.gaussian_filter import NORMALIZATIONS
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.parameters import DEFAULT, PRESETS, CRFParameters
from crfrnn.runtime import threads
from crfrnn.web.downloads import foreground, found, write_downloads
from crfrnn.web.drawing import curve, entries, legend, overlays
from crfrnn.web.explore import Exploration, Settings
from crfrnn.web.limits import Limits
from crfrnn.web.reading import Photo, pixels_for, read_photo, read_scores, read_strokes
from crfrnn.web.samples import BRUSHES
from crfrnn.web.wording import Refusal, class_name, say
from crfrnn.web.workspaces import Workspace, Workspaces

LEARNED = "learned"
NAME = 40  # characters of a class's name
LEAST_THING = 0.002  # of the photo: what the network finds on less is nothing
SURE = 0.7  # mean probability of what it finds, without the CRF: below on 3 of 58 photos of VOC, and on scikit-image's
# rocket (0.51), retina (0.61), page (0.64), coins (0.68) and grass (0.69), of which it knows nothing
RANGES: dict[str, tuple[float, float, float]] = {  # least, most, step of what can be moved
    "theta_alpha": (1, 300, 1),
    "theta_beta": (1, 60, 0.5),
    "bilateral_weight": (0, 20, 0.1),
    "theta_gamma": (0.5, 30, 0.5),
    "spatial_weight": (0, 20, 0.1),
    "iterations": (0, 20, 1),
}


@dataclass(frozen=True)
class View:
    """What is to be seen of a workspace at iteration t."""

    key: str
    before: np.ndarray  # (H, W, 3)
    after: np.ndarray
    t: int
    legend: str  # HTML
    curve: str  # HTML
    summary: str
    settings: Settings
    learned: bool  # whether there is a learned CRF to go back to
    classes: list[tuple[str, int]]  # (name, number) of what is in the result, the largest first
    chosen: list[int]  # of them what most people want to be cut out


class Studio:
    """One model, the limits, and the workspaces of all visitors. Its methods raise `Refusal`."""

    def __init__(self, network: SegmentationNetwork, name: str, limits: Limits):
        Exploration(np.zeros((8, 8, 3), np.uint8), torch.zeros(1, _labels_of(network), 8, 8), network.crf)  # fits?
        self.network, self.name, self.limits = network, name, limits
        self.workspaces = Workspaces(limits.memory_megabytes)

    def classes(self) -> list[str]:
        names = self.network.class_names
        return names if names is not None else [str(number) for number in range(_labels_of(self.network))]

    def segment(self, path: str | None, language: str, key: str = "") -> View:
        """A photo, by the network and its CRF."""
        photo = self.read(path)
        start = time.perf_counter()
        with _cores(self.limits):
            logits = self.network.photo_logits(photo.pixels)
            exploration = Exploration(photo.pixels, logits, self.network.crf)
        if not _recognised(logits, self.classes()):
            photo = replace(photo, notes=(*photo.notes, "unknown"))
        style = LabelStyle.named(self.classes(), self.network.palette)
        return self._begin("photo", exploration, exploration.logits, photo, style, language, key, start)

    def learn(
        self,
        path: str | None,
        layer: str | None,
        names: Sequence[str],
        language: str,
        key: str = "",
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> View:
        """A photo and strokes in the colours of `BRUSHES`, with a name for each: labels by what resembles them."""
        photo = self.read(path)
        drawn = read_strokes(layer, photo.size, list(BRUSHES.values()))
        start = time.perf_counter()
        with _cores(self.limits):
            learned = learn_strokes(photo.pixels, drawn, progress=progress)
            exploration = Exploration(photo.pixels, learned.unary, learned.crf)
            alone = Exploration(photo.pixels, learned.alone).logits
        brushes = [list(BRUSHES)[number] for number in learned.classes]
        called = [
            names[number].strip()[:NAME] or say(language, brush)
            for number, brush in zip(learned.classes, brushes, strict=True)
        ]
        style = LabelStyle.named(called, [BRUSHES[brush] for brush in brushes])
        return self._begin("strokes", exploration, alone, photo, style, language, key, start)

    def refine(
        self,
        path: str | None,
        predictions: str | None,
        language: str,
        key: str = "",
        *,
        confidence: float = 0.7,
        unsure: str = "",
    ) -> View:
        """A photo and predictions for it."""
        photo = self.read(path)
        start = time.perf_counter()
        scores = read_scores(predictions, photo, self.limits, confidence=confidence, unsure=unsure)
        labels = scores.logits.shape[1]
        if photo.pixels[..., 0].size > 1.1 * pixels_for(labels, self.limits):
            photo = replace(self.read(path, pixels_for(labels, self.limits)), notes=photo.notes)
        with _cores(self.limits):
            exploration = Exploration(photo.pixels, scores.logits)
        photo = replace(photo, notes=photo.notes + scores.notes)
        return self._begin("predictions", exploration, exploration.logits, photo, scores.style, language, key, start)

    def read(self, path: str | None, pixels: float | None = None) -> Photo:
        """The photo of a file that a visitor sent."""
        if not path:
            raise Refusal("no_photo")
        return read_photo(path, self.limits, pixels)

    def change(self, key: str, wanted: Mapping[str, float | str], preset: str, language: str) -> View:
        """The same picture with other settings; `preset` says whether the learned CRF is meant."""
        workspace = self.workspaces.find(key)
        settings = _checked(wanted)
        with workspace.lock:
            workspace.learned = preset == LEARNED and workspace.exploration.learned is not None
            workspace.settings = settings
            self._run(workspace)
        self.workspaces.tidy()
        return self.view(key, settings.iterations, language)

    def start_from(self, key: str, preset: str, language: str) -> View:
        """The same picture with the settings of a preset, or with those that were learned."""
        exploration = self.workspaces.find(key).exploration
        if preset not in (LEARNED, *PRESETS):
            raise Refusal("wrong_settings")
        settings = exploration.learned if preset == LEARNED else Settings.of(CRFParameters.of_preset(preset))
        return self.change(key, vars(settings or Settings.of(PRESETS[DEFAULT])), preset, language)

    def view(self, key: str, t: int, language: str) -> View:
        """What is to be seen at iteration t; nothing is computed again."""
        workspace = self.workspaces.find(key)
        settling, settings = workspace.settling, workspace.settings
        if settling is None or settings is None:
            raise Refusal("no_result")
        if not isinstance(t, int | float) or not math.isfinite(t):
            raise Refusal("wrong_settings")
        t = min(max(0, int(t)), len(settling.labels) - 1)
        before, after = overlays(workspace, t)
        classes, present = found(workspace), entries(workspace, t)
        chosen = foreground(classes)
        if workspace.kind != "strokes":  # whose names are the visitor's own words
            present = [replace(entry, name=class_name(language, entry.name)) for entry in present]
            classes = [(class_name(language, name), number) for name, number in classes]
        return View(
            key=key,
            before=before,
            after=after,
            t=t,
            legend=legend(present),
            curve=curve(settling.change, t, say(language, "curve")),
            summary=_summary(workspace, language),
            settings=settings,
            learned=workspace.exploration.learned is not None,
            classes=classes,
            chosen=chosen,
        )

    def files(self, key: str, folder: Path, chosen: Sequence[int] | None = None) -> list[Path]:
        """The downloads, written into a folder; with a cut-out of the chosen classes, or of the foreground."""
        workspace = self.workspaces.find(key)
        if chosen is not None and not all(isinstance(number, int) for number in chosen):
            raise Refusal("wrong_settings")
        with workspace.lock, _cores(self.limits):
            wanted = foreground(found(workspace)) if chosen is None else chosen
            return write_downloads(workspace, folder, self.limits, wanted)

    def _begin(
        self,
        kind: str,
        exploration: Exploration,
        before: torch.Tensor,
        photo: Photo,
        style: LabelStyle,
        language: str,
        key: str,
        start: float,
    ) -> View:
        labels = before[0].max(dim=0).indices.numpy()
        if before is exploration.logits:
            labels = exploration.occurring[labels]
        workspace = Workspace(kind, exploration, labels, photo.full_size, style, photo.notes, source=photo.path)
        workspace.learned = exploration.learned is not None
        workspace.settings = exploration.learned or Settings.of(PRESETS[DEFAULT])
        self._run(workspace)
        workspace.seconds = time.perf_counter() - start
        key = self.workspaces.add(workspace, instead=key)
        return self.view(key, workspace.settings.iterations, language)

    def _run(self, workspace: Workspace) -> None:
        assert workspace.settings is not None
        start = time.perf_counter()
        with _cores(self.limits):
            workspace.settling = workspace.exploration.run(workspace.settings, learned=workspace.learned)
        workspace.seconds = time.perf_counter() - start


@contextmanager
def _cores(limits: Limits):
    """A share of the cores for the CRF's kernels; torch's own threads would wait for each other (see `serve`)."""
    with threads.limited(max(1, threads.cores() // limits.at_once)), torch.inference_mode(False):
        yield


def _recognised(logits: torch.Tensor, classes: Sequence[str]) -> bool:
    """Whether the network is sure of anything but background in logits (1, L, h, w); see `SURE`."""
    q, best = logits[0].softmax(dim=0).max(dim=0)
    grounds = [number for number, name in enumerate(classes) if name.casefold() in GROUND]
    things = ~torch.isin(best, torch.tensor(grounds, device=best.device))
    return float(things.float().mean()) >= LEAST_THING and float(q[things].mean()) >= SURE


def _labels_of(network: SegmentationNetwork) -> int:
    labels = network.num_classes
    if labels is None:
        raise ValueError("model: the number of its classes is not known; save it with class_names")
    return labels


def _checked(wanted: Mapping[str, float | str]) -> Settings:
    """Settings from the page, or from anybody who writes requests by hand."""
    try:
        settings = Settings(**wanted)  # type: ignore[arg-type]
        inside = all(
            math.isfinite(value := float(getattr(settings, name))) and 0 <= value <= 10 * most
            for name, (_, most, _) in RANGES.items()
        )
        positive = min(settings.theta_alpha, settings.theta_beta, settings.theta_gamma) >= 0.1
    except (TypeError, ValueError):
        raise Refusal("wrong_settings") from None
    iterations = RANGES["iterations"][1]
    if not inside or not positive or settings.normalization not in NORMALIZATIONS or settings.iterations > iterations:
        raise Refusal("wrong_settings")
    return replace(settings, iterations=int(settings.iterations))


def _summary(workspace: Workspace, language: str) -> str:
    assert workspace.settling is not None
    last = workspace.settling.labels[-1]
    height, width = last.shape
    done = {"width": width, "height": height, "labels": len(np.unique(last)), "seconds": workspace.seconds}
    lines = [say(language, "done", **done)]
    if len(workspace.settling.labels) > 1:
        lines.append(say(language, "changed", changed=float(np.mean(last != workspace.before))))
    else:
        lines.append(say(language, "left_out"))
    if workspace.full_size != last.shape:
        lines.append(say(language, "scaled", width=workspace.full_size[1], height=workspace.full_size[0]))
    return " ".join([*lines, *(say(language, note) for note in workspace.notes)])
