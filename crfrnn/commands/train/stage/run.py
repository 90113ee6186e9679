"""What one stage works with, where it stands, and what can stop it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from crfrnn.commands.train.options import HardwareConfig, StageConfig
from crfrnn.data.config import DataConfig
from crfrnn.networks.network import SegmentationNetwork

LAST = "last.ckpt"


class UnreadableSample(Exception):
    """A file went bad while the training ran. The message is the reason."""


class Interrupted(Exception):
    """Somebody pressed Ctrl-C, and the state is saved."""


@dataclass
class Position:
    """Where a training stands: the next batch is number `batch` of epoch `epoch`, both from 0."""

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True)
class StageRun:
    """What one stage works with: its `number` in the recipe, its own `folder`, `class_weights` (L,) or None."""

    stage: StageConfig
    number: int
    seed: int
    data: DataConfig
    hardware: HardwareConfig
    folder: Path
    class_weights: Tensor | None

    @property
    def last(self) -> Path:
        """The state from which an interrupted training goes on."""
        return self.folder / LAST

    @property
    def best(self) -> Path:
        """The network with the best validation mIoU, as `save_pretrained` leaves it."""
        return self.folder / "best"


def export(network: SegmentationNetwork, folder: Path) -> None:
    """`save_pretrained` into a folder whose files are each whole or as they were."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    network.save_pretrained(part)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(part.iterdir()):
        os.replace(file, folder / file.name)
    part.rmdir()
