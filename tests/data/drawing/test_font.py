"""Fonts: every letter of a name is drawn, not a box in its place."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from crfrnn.data.drawing import font as fonts
from crfrnn.data.drawing.font import SYSTEM, font_for
from crfrnn.data.drawing.legend import Entry, with_legend


def drawn(font: Any, letter: str) -> bytes:
    return bytes(font.getmask(letter))


def has(*letters: str) -> bool:
    """Whether the system has a font with letters of this kind: asked of Pillow alone."""
    for name in SYSTEM:
        try:
            font = ImageFont.truetype(name, 20)
        except OSError:
            continue
        pictures = [drawn(font, letter) for letter in (*letters, "\uffff")]
        if len(set(pictures)) == len(pictures):
            return True
    return False


@pytest.mark.parametrize("name", ["Straße", "Bär", "猫和狗", "кот"])
def test_every_letter_is_another_picture(name: str):
    letters = sorted(set(name))
    if not has(*letters):
        pytest.skip("the system has no font for it")
    font = font_for(["cat 83.5%", name], 20)
    pictures = {drawn(font, letter) for letter in [*letters, "\uffff"]}
    assert len(pictures) == len(letters) + 1


def test_without_a_font_of_the_system_it_is_pillows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fonts, "SYSTEM", ("no-such-font.ttf",))
    assert drawn(font_for(["猫a"], 20), "a") == drawn(ImageFont.load_default(20), "a")


def test_legends_in_chinese_differ():
    if not has("猫", "狗"):
        pytest.skip("the system has no font for it")
    photo = np.full((200, 300, 3), 128, np.uint8)
    legends = [with_legend(photo, [Entry(name, (9, 9, 9), 0.5)]) for name in ("猫", "狗")]
    assert all(isinstance(legend, Image.Image) for legend in legends)
    assert legends[0].tobytes() != legends[1].tobytes()
