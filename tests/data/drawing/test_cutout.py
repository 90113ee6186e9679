"""Cut-outs: opaque inside, soft at the edge as the probability is, and nothing of the photo outside."""

import numpy as np
import pytest

from crfrnn.data.drawing.cutout import FEATHER, cut_out


@pytest.mark.parametrize("size", [(1, 1), (40, 60), (1500, 1200)])
def test_doubts_far_from_the_edge_do_not_show(size: tuple[int, int]):
    height, width = size
    probability = np.where(np.arange(width) < width // 2, 0.6, 0.3).astype(np.float16)[None].repeat(height, axis=0)
    photo = np.random.default_rng(0).integers(1, 255, (height, width, 3), np.uint8)
    picture = np.asarray(cut_out(photo, probability))
    across = np.abs(np.arange(width) + 0.5 - width // 2)
    far = np.broadcast_to(across > max(1, FEATHER * np.hypot(*size)) + 2, size)
    inside = probability > 0.5
    np.testing.assert_array_equal(picture[..., 3][far], 255 * inside[far])
    np.testing.assert_array_equal(picture[..., 3] > 127, inside)
    np.testing.assert_array_equal(picture[..., :3], photo * (picture[..., 3:] > 0))
    if width > 1:  # by hand: beside a straight edge, `near` is 2 r / (2 r + 1)
        reach = round(FEATHER * np.hypot(*size)) or 1
        near = 2 * reach / (2 * reach + 1)
        edge = picture[height // 2, width // 2 - 1 : width // 2 + 1, 3] / 255
        np.testing.assert_allclose(edge, (1 - 0.4 * near, 0.3 * near), atol=1.5 / 255)
