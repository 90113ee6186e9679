"""Soft masks: grey images of every kind to probabilities, and what is none."""

import numpy as np
import pytest
from PIL import Image

from crfrnn.data.labels import read_labels
from crfrnn.data.soft_masks import looks_soft, read_soft_mask

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_grey_images_of_every_kind(tmp_path):
    grey = Image.fromarray(LEVELS)
    images = {"L": grey, "RGB": grey.convert("RGB"), "LA": grey.convert("LA"), "RGBA": grey.convert("RGBA")}
    images["P"] = grey.convert("P")
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
        p = read_soft_mask(tmp_path / f"{name}.png")
        assert p.dtype == np.float32
        np.testing.assert_allclose(p, (np.arange(256).reshape(16, 16) + 0.5) / 256)
    Image.fromarray(LEVELS.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_soft_mask(tmp_path / "deep.png"), (LEVELS * 257.0 + 0.5) / 65536, rtol=1e-6)
    Image.fromarray(LEVELS > 99).save(tmp_path / "bits.png")
    assert np.unique(read_soft_mask(tmp_path / "bits.png")).tolist() == [0.5 / 256, 255.5 / 256]


def test_what_is_no_soft_mask(tmp_path):
    palette = Image.fromarray(LEVELS)
    palette.putpalette(bytes(range(256)) * 3)
    coloured = Image.fromarray(np.stack([LEVELS, LEVELS, LEVELS.T], axis=-1))
    transparent = Image.merge("LA", [Image.fromarray(LEVELS), Image.fromarray(LEVELS)])
    for name, image in {"P": palette, "RGB": coloured, "LA": transparent}.items():
        image.save(tmp_path / f"{name}.png")
        with pytest.raises(ValueError, match=f"{name}.png: mode {name}, but a soft mask is grey.*--labels"):
            read_soft_mask(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="no such file"):
        read_soft_mask(tmp_path / "none.png")


@pytest.mark.parametrize("levels", [(0, 1), (0, 100)])
def test_a_mask_of_two_dark_levels_is_no_soft_one(tmp_path, levels):
    """As stored by those for whom 1 is the foreground: all of it would be background."""
    Image.fromarray(np.where(LEVELS > 99, levels[1], levels[0]).astype(np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=rf"mask\.png: holds 0 and {levels[1]} alone, and white is 255; .*--labels"):
        read_soft_mask(tmp_path / "mask.png")


def test_what_looks_soft(tmp_path):
    grey, few = Image.fromarray(LEVELS), Image.fromarray(LEVELS % 30)
    deep, numbers = (Image.fromarray(LEVELS.astype(np.uint16) * factor) for factor in (257, 3))
    colours = Image.fromarray(np.stack([LEVELS, LEVELS, LEVELS.T], axis=-1))
    soft = {"L": grey, "RGB": grey.convert("RGB"), "P": grey.convert("P"), "I;16": deep}
    labels = {"few": few, "few colours": few.convert("RGB"), "numbers": numbers, "colours": colours}
    for images, expected in ((soft, True), (labels, False)):
        for name, image in images.items():
            image.save(tmp_path / "map.png")
            assert looks_soft(read_labels(tmp_path / "map.png").style) is expected, name
