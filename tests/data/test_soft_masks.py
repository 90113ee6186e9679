"""Soft masks: grey images of every kind to probabilities, and what is none."""

import numpy as np
import pytest
from PIL import Image

from crfrnn.data.soft_masks import read_soft_mask

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_grey_images_of_every_kind(tmp_path):
    grey = Image.fromarray(LEVELS)
    images = {"L": grey, "RGB": grey.convert("RGB"), "LA": grey.convert("LA"), "RGBA": grey.convert("RGBA")}
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
