"""Images of Pascal VOC 2012 with a network's outputs, as tensors, for the diagnostics.

PATH_TO/voc2012 holds ``images/ID.jpg``, ``labels/ID.png`` (palette, 255 is void), ``unaries/ID.npz`` with ``nll16``,
uint8 (21, h, w), minus the logarithm of the network's softmax times 16, and ``ids.txt``.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

VOID = 255


def examples(folder: Path, count: int, pool: int = 4, shrink: int = 1) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(ID, guide (1, 3, H, W), logits (1, 21, H, W), labels (1, H, W)) of `count` images spread over the list.

    `pool` averages the network's maps, as a coarser network would give them; `shrink` divides the image's sides.
    """
    names = (folder / "ids.txt").read_text().split()
    for name in names[:: max(1, len(names) // count)][:count]:
        with (
            Image.open(folder / "images" / f"{name}.jpg") as picture,
            Image.open(folder / "labels" / f"{name}.png") as x,
        ):
            size = (picture.width // shrink, picture.height // shrink)
            pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), np.float32)
            labels = np.asarray(x.resize(size, Image.Resampling.NEAREST), np.int64)
        with np.load(folder / "unaries" / f"{name}.npz") as stored:
            maps = torch.from_numpy(stored["nll16"].astype(np.float32))[None] / -16
        logits = interpolate(avg_pool2d(maps, pool), size=size[::-1], mode="bilinear", align_corners=True)
        guide = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
        yield name, guide, logits, torch.from_numpy(labels)[None]
