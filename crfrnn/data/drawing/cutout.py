"""What is wanted of a photo on nothing: a picture with an alpha channel."""

import math

import numpy as np
from PIL import Image, ImageFilter

FEATHER = 1 / 150  # of the photo's diagonal: how far from its edge a cut-out may be transparent


def cut_out(photo: np.ndarray, probability: np.ndarray) -> Image.Image:
    """The photo (H, W, 3) uint8 as RGBA, opaque where the probability (H, W) of what is wanted is above 1/2.

    Near that edge the probability is the opacity, so that the edge is as soft as the marginals are; farther off it
    counts for less and less, or doubts would make holes. Where nothing is left, no colour of the photo is either.

    >>> photo = np.full((60, 80, 3), 200, np.uint8)
    >>> picture = cut_out(photo, np.linspace(0, 1, 80).reshape(1, 80).repeat(60, axis=0))
    >>> picture.mode, [picture.getpixel((x, 30))[3] for x in (10, 39, 40, 70)]
    ('RGBA', [0, 84, 171, 255])
    """
    inside = probability > 0.5
    reach = max(1, round(FEATHER * math.hypot(*inside.shape)))
    blurred = Image.fromarray(inside.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(reach))
    near = 1 - np.abs(np.asarray(blurred, np.float32) / 127.5 - 1)  # 1 at the edge, 0 from `reach` on
    opacity = inside + near * (probability - inside)
    alpha = np.rint(255 * opacity).astype(np.uint8)
    return Image.fromarray(np.dstack([photo * (alpha > 0)[..., None], alpha]))
