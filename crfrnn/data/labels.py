"""Label maps: palette, grey and colour-coded PNGs, read to label numbers and written back as they came."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, PngImagePlugin

from crfrnn.data.files import writing
from crfrnn.data.images import alpha_of, as_stored, open_image

UNSURE = -1  # the number of pixels without a label
TRANSPARENT = -1  # the index of pixels that a file calls so
MOST_VALUES = 1 << 16  # indices are below
GROUND = ("background", "背景")  # names of the class that is nothing
NEAR = 128  # in the RGB cube, whose edge is 255: a colour so close to one that is drawn is meant for it
MOST_LABELS = 256  # a map with more is a photograph, or its colours were blurred

Value = int | tuple[int, int, int]


def voc_palette(labels: int = 256) -> np.ndarray:
    """(labels, 3) uint8, the colours of Pascal VOC: the bits of a label dealt out to red, green and blue.

    >>> voc_palette(3).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    number = np.arange(labels)
    colours = np.zeros((labels, 3), np.uint8)
    for step in range(8):
        for channel in range(3):
            colours[:, channel] |= ((number >> (3 * step + channel)) & 1).astype(np.uint8) << (7 - step)
    return colours


@dataclass(frozen=True)
class LabelStyle:
    """How labels 0..L-1 are stored as pixels: the value of each, and the colours that a palette gives them."""

    values: tuple[Value, ...]  # the pixel value of each label: an index, or a colour (r, g, b)
    palette: bytes | None = None  # 256 colours where the map is a palette PNG
    deep: bool = False  # 16 bits
    class_names: tuple[str, ...] = ()  # where labels have names of their own
    dtype: str | None = None  # of a volume of labels, NumPy's name

    @classmethod
    def voc(cls, labels: int) -> "LabelStyle":
        """For predictions, which bring no style: indices, in VOC's colours up to 256 labels."""
        return cls(tuple(range(labels)), voc_palette().tobytes() if labels <= 256 else None, deep=labels > 256)

    @classmethod
    def named(cls, names: Sequence[str], colours: Sequence[Sequence[int]] | None = None) -> "LabelStyle":
        """For a model, which has names for its classes and perhaps colours: indices in its palette, or in VOC's."""
        style = cls.voc(len(names))
        palette = style.palette
        if colours is not None and palette is not None:
            palette = bytes(value for colour in colours for value in colour).ljust(768, b"\0")
        return cls(style.values, palette, style.deep, tuple(names))

    @property
    def colour_coded(self) -> bool:
        return isinstance(self.values[0], tuple)

    def colours(self) -> np.ndarray:
        """(L, 3) uint8, the colour in which each label is shown."""
        if self.colour_coded:
            return np.array(self.values, np.uint8)
        table = np.frombuffer(self.palette, np.uint8).reshape(-1, 3) if self.palette else voc_palette()
        return table[np.array(self.values) % len(table)]

    def names(self) -> list[str]:
        """Each label as a person writes it: its name, or else an index, or #rrggbb."""
        if self.class_names:
            return list(self.class_names)
        return [f"#{v[0]:02x}{v[1]:02x}{v[2]:02x}" if isinstance(v, tuple) else str(v) for v in self.values]

    def number(self, name: str) -> int:
        """The label that is called so: by its name, its index, or its colour, of which the closest one is meant.
        ValueError, with all names, for no label.

        >>> LabelStyle.named(["background", "cat"]).number("Cat")
        1
        >>> LabelStyle(((230, 25, 75), (60, 180, 75))).number("green")
        1
        """
        names = [known.casefold() for known in self.names()]
        if name.strip().casefold() in names:
            return names.index(name.strip().casefold())
        with suppress(ValueError):
            value = parse_unsure(name)
            if isinstance(value, int):
                return self.values.index(value)
            if self.colour_coded or (self.palette and not self.class_names):
                apart = np.linalg.norm(self.colours() - np.array(value, float), axis=1)
                if apart.min() < NEAR:
                    return int(apart.argmin())
        raise ValueError(f"no class is called {name!r}; there are {', '.join(self.names())}")

    def image(self, indices: np.ndarray) -> Image.Image:
        """Labels (H, W) as an image in this style: palette, 8-bit or 16-bit grey, or RGB."""
        table = np.array(self.values)
        if self.colour_coded:
            return Image.fromarray(table.astype(np.uint8)[indices])
        image = Image.fromarray(table.astype(np.uint16 if self.deep else np.uint8)[indices])
        if self.palette:
            image.putpalette(self.palette)
        return image


@dataclass(frozen=True)
class LabelMap:
    """A coarse label map: indices (H, W), or (z, y, x) of a volume, int32 into the style's values, `UNSURE` where there
    is no label."""

    indices: np.ndarray
    style: LabelStyle

    def probabilities(self, confidence: float) -> np.ndarray:
        """(L, *S) float32: `confidence` for a pixel's label, the rest shared evenly; 1 / L where unsure.

        As pydensecrf's ``unary_from_labels(gt_prob=confidence)``. The only label of a map is certain.

        >>> LabelMap(np.array([[0, UNSURE]]), LabelStyle((0, 1))).probabilities(0.75).tolist()
        [[[0.75, 0.5]], [[0.25, 0.5]]]
        """
        labels = len(self.style.values)
        if labels == 1:
            return np.ones((1, *self.indices.shape), np.float32)
        if not 1 / labels < confidence < 1:
            raise ValueError(
                f"confidence: {confidence} must lie between 1 / {labels} (no information, with {labels} labels) and 1"
            )
        spread = np.full((labels, *self.indices.shape), (1 - confidence) / (labels - 1), np.float32)
        for label in range(labels):
            spread[label][self.indices == label] = confidence
        spread[:, self.indices == UNSURE] = 1 / labels
        return spread


def parse_unsure(text: str | int) -> Value:
    """The pixel value that means "no label": an index, ``r,g,b``, ``#rrggbb`` or the name of a colour.

    >>> parse_unsure("255"), parse_unsure("0,0,0"), parse_unsure("white")
    (255, (0, 0, 0), (255, 255, 255))
    """
    text = str(text).strip()
    if text.isdigit():
        return int(text)
    try:
        red, green, blue = ImageColor.getrgb(f"rgb({text})" if "," in text else text)[:3]
    except ValueError:
        raise ValueError(f"unsure: {text!r} is neither an index (255) nor a colour (0,0,0 or #000000)") from None
    return red, green, blue


def read_labels(path: Path, unsure: Value | None = None) -> LabelMap:
    """Read a label map: each value that occurs is a label, but for the one that means "no label".

    Palette and grey maps hold indices, RGB maps one colour for each label. Wholly transparent pixels are unsure,
    whether by an alpha channel, by the palette or by the colour that the file calls transparent.
    """
    image = open_image(path)
    if image.format == "JPEG":
        raise ValueError(f"{path}: a JPEG cannot hold labels, its colours are blurred; save the map as PNG")
    image, visible = without_alpha(image)
    if image.mode == "1":
        image = image.convert("L")
    palette = _whole_palette(image) if image.mode == "P" else None
    pixels = as_stored(image)
    if image.mode == "RGB":
        packed = (pixels.astype(np.int32) * (1 << 16, 1 << 8, 1)).sum(axis=2)
    elif image.mode in ("P", "L") or image.mode.startswith("I"):
        packed = pixels.astype(np.int32)
    else:
        raise ValueError(f"{path}: mode {image.mode} is none of palette, grey and RGB")
    colour_coded = image.mode == "RGB"
    sure = packed != _void_value(path, colour_coded, palette, unsure)
    indices, values = numbered(path, packed, sure if visible is None else sure & visible)
    colours = tuple((v >> 16, (v >> 8) & 255, v & 255) for v in values)
    return LabelMap(indices, LabelStyle(colours if colour_coded else values, palette, deep=image.mode.startswith("I")))


def read_indices(path: Path) -> np.ndarray:
    """(H, W), the class indices of a palette or grey picture as they are stored; `TRANSPARENT` where it says so."""
    image = open_image(path)
    if image.format == "JPEG":
        raise ValueError(f"{path}: a JPEG cannot hold class indices, it blurs them; save the mask as PNG")
    image, visible = without_alpha(image)
    if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
        raise ValueError(f"{path}: mode {image.mode}, expected class indices in a palette or grey PNG, not colours")
    values = as_stored(image).astype(np.int64)
    if values.min() < 0 or values.max() >= MOST_VALUES:
        raise ValueError(f"{path}: values {values.min()}..{values.max()}, expected class indices")
    return values if visible is None else np.where(visible, values, TRANSPARENT)


def without_alpha(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """The image without an alpha channel, and (H, W) bool, what of it is to be seen; None for all."""
    alpha = alpha_of(image)
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert(image.mode[:-1])
    return image, None if alpha is None else alpha > 0


def numbered(path: Path, packed: np.ndarray, sure: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Label numbers 0..L-1, int32, of pixel values (*S), colours packed into one number, and the value of each.

    `sure` says which of them count, (*S) or one for all; the others are `UNSURE`.
    """
    used = np.unique(packed[sure])
    if not used.size:
        raise ValueError(f"{path}: every pixel is unsure or transparent, there is no label and no stroke in it")
    if used.size > MOST_LABELS:
        raise ValueError(
            f"{path}: {used.size} different values, which is no label map (blurred, resized, or painted on a"
            " photograph? paint on a transparent layer)"
        )
    indices = np.searchsorted(used, packed).astype(np.int32)
    return np.where(sure, indices, np.int32(UNSURE)), tuple(used.tolist())


def _void_value(path: Path, colour_coded: bool, palette: bytes | None, unsure: Value | None) -> int:
    """The packed value of unsure pixels; -1, which no pixel has, without one."""
    if unsure is None:
        return -1
    if colour_coded:
        if isinstance(unsure, int):
            raise ValueError(f"unsure: {path} is colour-coded, so give a colour such as #000000 instead of {unsure}")
        return (unsure[0] << 16) + (unsure[1] << 8) + unsure[2]
    if isinstance(unsure, int):
        return unsure
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3).tolist() if palette else []
    if list(unsure) not in colours:
        raise ValueError(f"unsure: {path} holds indices, and {unsure} is no colour of its palette; give an index")
    return colours.index(list(unsure))


def _whole_palette(image: Image.Image) -> bytes:
    """256 RGB colours, black where the file has fewer."""
    return bytes(image.getpalette("RGB") or ()).ljust(768, b"\0")[:768]


def write_labels(path: Path, indices: np.ndarray, style: LabelStyle) -> None:
    """Write labels (H, W) as a PNG in the style of their source; class names go in as text, a JSON list."""
    text = PngImagePlugin.PngInfo()
    if style.class_names:
        text.add_itxt("class_names", json.dumps(style.class_names, ensure_ascii=False))
    with writing(path) as file:
        style.image(indices).save(file, format="PNG", optimize=style.palette is not None, pnginfo=text)
