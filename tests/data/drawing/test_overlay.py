"""The overlay: labels tint the photograph, and boundaries are drawn over it."""

import numpy as np

from crfrnn.data.drawing.overlay import boundaries, draw_overlay


def test_the_overlay_tints_labels_and_leaves_the_background():
    photo = np.full((40, 40, 3), 100, np.uint8)
    labels = np.zeros((40, 40), int)
    labels[:, 20:] = 1
    labels[:10] = -1
    drawn = draw_overlay(photo, labels, np.array([[0, 0, 0], [200, 0, 50]], np.uint8))
    assert drawn.dtype == np.uint8
    assert (drawn[15:, :15] == 100).all()
    assert (drawn[:5] == 100).all()
    assert (drawn[15:, 25:] == [150, 50, 75]).all()
    assert (drawn[20, 17:23].max(0) > 200).all()  # a light line between them


def test_boundaries():
    assert not boundaries(np.ones((5, 5))).any()
    assert boundaries(np.eye(3)).sum() == 6
