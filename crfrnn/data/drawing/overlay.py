"""Label maps to look at: the photo, tinted by label, with the boundaries drawn."""

import numpy as np
from PIL import Image, ImageFilter

TINT = 0.5  # how much of the label's colour covers the photo


def boundaries(indices: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose right or lower neighbour has another label.

    >>> boundaries(np.array([[0, 0, 1], [0, 0, 1]])).astype(int).tolist()
    [[0, 1, 0], [0, 1, 0]]
    """
    edge = np.zeros(indices.shape, bool)
    edge[:, :-1] |= indices[:, :-1] != indices[:, 1:]
    edge[:-1] |= indices[:-1] != indices[1:]
    return edge


def draw_overlay(photo: np.ndarray, indices: np.ndarray, colours: np.ndarray, unsure: int = -1) -> np.ndarray:
    """The photo (H, W, 3) under the labels (H, W) in their colours (L, 3), as (H, W, 3) uint8.

    Boundaries are white lines, one for every 400 pixels of the shorter side wide. A black label (VOC's background)
    leaves the photo as it is, and so do pixels with the label `unsure`.
    """
    table = np.vstack([colours, np.zeros((1, 3), colours.dtype)]).astype(np.float32)  # the last: unsure
    shown = np.where(indices == unsure, len(colours), indices)
    strength = np.where(table.any(axis=1), TINT, 0.0).astype(np.float32)[shown][..., None]
    blend = photo * (1 - strength) + table[shown] * strength
    width = 2 * round(min(indices.shape) / 1600) + 1
    edge = Image.fromarray(boundaries(indices).astype(np.uint8) * 255)
    if width > 1:  # Pillow 12.3 dies of a filter of 1
        edge = edge.filter(ImageFilter.MaxFilter(width))
    line = np.asarray(edge.filter(ImageFilter.GaussianBlur(0.5)), np.float32)[..., None] / 255
    return np.rint(blend * (1 - line) + 255 * line).astype(np.uint8)
