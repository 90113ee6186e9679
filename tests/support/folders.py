"""Folders that people give to `refine`, with what goes wrong in them."""

from pathlib import Path

import numpy as np
from PIL import Image


def photos_and_predictions(images: int) -> None:
    """photos/ and p/ in the current folder, half of them in folders inside; one photo cannot be read and one prediction
    is alone."""
    numbers = np.random.default_rng(0)
    for folder in ("photos/day", "p/day"):
        Path(folder).mkdir(parents=True)
    for number in range(images):
        name = f"day/{number}" if number % 2 else str(number)
        Image.fromarray(numbers.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(f"photos/{name}.png")
        np.save(f"p/{name}.npy", numbers.dirichlet(np.ones(3), (8, 9)).transpose(2, 0, 1).astype(np.float32))
    Path("photos/4.png").write_bytes(b"no photo")
    np.save("p/alone.npy", np.ones((3, 8, 9)) / 3)
