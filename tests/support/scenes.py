"""Made-up labelled images on which no preset helps and another CRF does: noisy discs and thin poles."""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate

HEIGHT, WIDTH = 44, 60
COLOURS = np.array([[90, 90, 90], [130, 90, 80], [70, 110, 130]])
BACKGROUND, DISC, POLE = range(3)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph (H, W, 3) uint8, logits (3, H, W) of a coarse and unsure network, and the truth (H, W).

    Every preset paints the poles over, and more so the better it cleans the discs; a CRF that pulls towards the rare
    class harder than towards the others keeps both.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    truth = np.full((HEIGHT, WIDTH), BACKGROUND, np.uint8)
    for _ in range(2):
        centre, radius = random.integers(8, (HEIGHT - 8, WIDTH - 8)), random.integers(6, 12)
        truth[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = DISC
    for column in random.integers(4, WIDTH - 4, 2):
        truth[:, column : column + 2] = POLE
    image = np.clip(COLOURS[truth] + random.normal(0, 14, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    hot = torch.from_numpy(np.stack([truth == label for label in range(3)])[None].astype(np.float32))
    coarse = avg_pool2d(hot, 2)
    coarse += 0.3 * torch.randn(coarse.shape, generator=torch.Generator().manual_seed(seed))
    return image, 3 * interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")[0].numpy(), truth


def scenes(count: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Photographs, logits and truths."""
    images, logits, truths = zip(*(scene(1000 * seed + number) for number in range(count)), strict=True)
    return list(images), list(logits), list(truths)
