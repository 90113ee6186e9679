"""What visitors send: photos, strokes and predictions, each within its limits, or refused in one sentence."""

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image

from crfrnn.commands.errors import UsageError
from crfrnn.commands.refine.inputs import unary_logits, with_background
from crfrnn.data.images import (
    SIDEWAYS,
    alpha_of,
    as_shown,
    decode,
    holds_several,
    note_storage,
    rgb_pixels,
    was_stretched,
)
from crfrnn.data.labels import LabelStyle, parse_unsure, read_labels
from crfrnn.data.predictions import SUFFIXES, Form, read_predictions, unpacked_sizes
from crfrnn.data.soft_masks import FOREGROUND, looks_soft, read_soft_mask
from crfrnn.networks.photo_size import CRF_VALUES, fitting_size
from crfrnn.web.limits import MEGA, Limits
from crfrnn.web.wording import Refusal

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # of Pillow's; others have decoders of less repute
SHORTEST_SIDE = 8  # pixels along each axis
HALF = 128  # of 255: how opaque a pixel of a stroke's soft edge must be to count
NEAR = 60  # how far in 0..255 a painted colour may be from the one of its brush
ASPECT = 0.03  # how much the shapes of predictions and photo may differ


@dataclass(frozen=True)
class Photo:
    """A photo at the size at which it is worked on."""

    pixels: np.ndarray  # (H, W, 3) uint8
    full_size: tuple[int, int]  # (height, width) of the file, turned as it is shown
    notes: tuple[str, ...] = ()  # of `WORDS`
    path: Path | None = None  # of the file

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def scaled(self) -> bool:
        return self.size != self.full_size


@dataclass(frozen=True)
class Predictions:
    """Somebody's predictions for a photo."""

    logits: torch.Tensor  # (1, L, h, w)
    style: LabelStyle
    notes: tuple[str, ...] = ()


def pixels_for(labels: int, limits: Limits) -> float:
    """Pixels of the working picture with so many labels: their product is bounded, too."""
    return min(limits.pixels, CRF_VALUES / max(1, labels))


def read_photo(path: str | Path, limits: Limits, pixels: float | None = None) -> Photo:
    """Any picture, turned as it is shown, on white where it is transparent, scaled to the limit of pixels.

    Its size is looked at before anything is decoded; a JPEG is decoded at a fraction of its size where that does.
    Raises Refusal.
    """
    pixels = limits.pixels if pixels is None else pixels
    path = Path(path)
    _check_weight(path, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # there is a limit of our own
            return _decode(path, limits, pixels)
    except Refusal:
        raise
    except Image.DecompressionBombError:
        raise Refusal("too_large", limit=limits.photo_megapixels) from None
    except (ValueError, OSError, SyntaxError, EOFError, OverflowError, MemoryError, struct.error):
        raise Refusal("unreadable") from None


def _decode(path: Path, limits: Limits, most: float) -> Photo:
    Image.init()  # without it Pillow knows only some of the formats by name
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        if width * height > limits.photo_megapixels * MEGA:
            raise Refusal("too_large", limit=limits.photo_megapixels)
        if min(width, height) < SHORTEST_SIDE:
            raise Refusal("too_thin")
        note_storage(image)  # the EXIF data of a PNG stand behind its pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        full_size = (width, height) if orientation in SIDEWAYS else (height, width)
        small = fitting_size(full_size, most)
        if min(small) < SHORTEST_SIDE:
            raise Refusal("too_thin")
        notes = ("animated",) if holds_several(image) else ()
        image.draft("RGB", (max(small), max(small)))  # JPEG alone can do it: decodes at 1/2, 1/4 or 1/8
        decode(image)
        shown = as_shown(image)
        if shown.mode not in ("F", "P") and not shown.mode.startswith("I") and "transparency" not in shown.info:
            shown.thumbnail((2 * small[1], 2 * small[0]), Image.Resampling.BOX, reducing_gap=None)
        upright = Image.fromarray(rgb_pixels(shown))
        notes += ("deep",) if was_stretched(shown) else ()
    if (upright.height, upright.width) != small:
        upright = upright.resize((small[1], small[0]), Image.Resampling.LANCZOS)
    return Photo(np.array(upright), full_size, notes, path)


def read_whole_photo(path: Path, limits: Limits) -> Photo:
    """The same at its full size. Raises Refusal."""
    return read_photo(path, limits, limits.photo_megapixels * MEGA)


def read_strokes(path: str | Path | None, size: tuple[int, int], colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """(H, W) int: which of the brushes' colours is drawn where, -1 where none is, at the size of the photo.

    `path` is a transparent picture of the strokes. Raises Refusal.
    """
    drawn = np.full(size, -1)
    if path is None:
        raise Refusal("no_strokes")
    try:
        Image.init()
        with Image.open(path, formats=("PNG", "WEBP", "GIF")) as layer:
            if layer.width * layer.height > 4 * MEGA + 4 * size[0] * size[1]:
                raise Refusal("unreadable")
            if holds_several(layer):
                raise Refusal("several")
            decode(layer)
            whole, alpha = layer.convert("RGBA"), alpha_of(layer)
            if alpha is not None:
                whole.putalpha(Image.fromarray(alpha))
            fitting = whole.resize((size[1], size[0]), Image.Resampling.NEAREST)
            pixels = np.asarray(fitting).astype(np.int32)
    except Refusal:
        raise
    except (ValueError, OSError, SyntaxError, EOFError, MemoryError, struct.error, Image.DecompressionBombError):
        raise Refusal("unreadable") from None
    ys, xs = (pixels[..., 3] >= HALF).nonzero()
    distances = np.abs(pixels[ys, xs, None, :3] - np.array(colours)).max(axis=2)
    nearest = distances.argmin(axis=1)
    near = distances.min(axis=1) <= NEAR
    drawn[ys[near], xs[near]] = nearest[near]
    if len(np.unique(nearest[near])) < 2:
        raise Refusal("one_class" if near.any() else "no_strokes")
    return drawn


def read_scores(
    path: str | Path | None, photo: Photo, limits: Limits, *, confidence: float = 0.7, unsure: str = ""
) -> Predictions:
    """Predictions from a label PNG, or from probabilities or logits (L, H, W) in a .npz or .npy file.

    `confidence` and `unsure` belong to label maps, as in ``crfrnn refine``. Raises Refusal.
    """
    if path is None:
        raise Refusal("no_predictions")
    path = Path(path)
    _check_weight(path, limits)
    try:
        if path.suffix.lower() in SUFFIXES:
            logits, style = _read_array(path, photo, limits)
        else:
            logits, style = _read_map(path, limits, confidence, unsure)
    except Refusal:
        raise
    except (ValueError, UsageError, OSError, MemoryError) as error:
        reason = str(error).replace(f"{path}: ", "").replace(str(path), path.name).replace("--", "")
        raise Refusal("not_predictions", reason=reason[:200].rstrip(". ")) from None
    h, w = logits.shape[2:]
    height, width = photo.full_size
    if abs(w * height / (h * width) - 1) > ASPECT:
        raise Refusal("other_shape", w=w, h=h, width=width, height=height)
    notes = ("soft",) if style is FOREGROUND else ()
    return Predictions(logits, style, (*notes, "resized") if (h, w) not in (photo.full_size, photo.size) else notes)


def _read_map(path: Path, limits: Limits, confidence: float, unsure: str) -> tuple[torch.Tensor, LabelStyle]:
    Image.init()
    with Image.open(path, formats=("PNG", "GIF", "TIFF", "BMP")) as image:
        if image.width * image.height > limits.photo_megapixels * MEGA:
            raise Refusal("too_large", limit=limits.photo_megapixels)
    coarse = read_labels(path, parse_unsure(unsure) if unsure.strip() else None)
    if looks_soft(coarse.style):
        return _unary(read_soft_mask(path)[None], limits), FOREGROUND
    labels = len(coarse.style.values)
    if labels < 2:
        raise ValueError(f"only one label, {coarse.style.names()[0]}, so there is nothing to tell apart")
    small = fitting_size(coarse.indices.shape, pixels_for(labels, limits))
    if small != coarse.indices.shape:  # every label where its pixel's middle is
        rows, columns = ((np.arange(s) * n + n // 2) // s for s, n in zip(small, coarse.indices.shape, strict=True))
        coarse = type(coarse)(coarse.indices[rows][:, columns], coarse.style)
    probabilities = torch.from_numpy(coarse.probabilities(confidence)).unsqueeze(0)
    return unary_logits(probabilities, "probabilities"), coarse.style


def _read_array(path: Path, photo: Photo, limits: Limits) -> tuple[torch.Tensor, LabelStyle]:
    _check_unpacked(path, limits)
    values = read_predictions(path)
    logits = _unary(Form.of(values.shape, (photo.full_size, photo.size)).planes(values), limits)
    return logits, LabelStyle.voc(logits.shape[1])


def _unary(values: np.ndarray, limits: Limits) -> torch.Tensor:
    """The logits (1, L, h, w) of predictions (L, H, W), or (1, H, W) of a foreground, within the limits."""
    planes = torch.from_numpy(np.ascontiguousarray(values)).unsqueeze(0)
    small = fitting_size(values.shape[1:], pixels_for(len(values), limits))
    if small != values.shape[1:]:
        planes = torch.nn.functional.interpolate(planes.float(), size=small, mode="area")
    most = 1.05 if len(values) == 1 else 2.0  # a foreground's probability, the sum of several labels'
    scores = bool((planes < 0).any()) or float(planes.float().sum(dim=1).max()) > most
    name = "logits" if scores else "probabilities"
    return unary_logits(with_background(planes[0], name).unsqueeze(0), name)


def _check_weight(path: Path, limits: Limits) -> None:
    try:
        weight = path.stat().st_size
    except OSError:
        raise Refusal("unreadable") from None
    if weight > limits.upload_megabytes * MEGA:
        raise Refusal("too_heavy", megabytes=weight / MEGA, limit=limits.upload_megabytes)


def _check_unpacked(path: Path, limits: Limits) -> None:
    """What arrays claim to hold, before memory is asked for."""
    claimed = sum(unpacked_sizes(path))
    if claimed > limits.array_megabytes * MEGA:
        raise Refusal("too_heavy", megabytes=claimed / MEGA, limit=limits.array_megabytes)
