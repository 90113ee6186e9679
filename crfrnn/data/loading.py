"""From samples to batches: which, in which order, with which randomness, all of it decided by numbers alone.

What a batch holds depends on (seed, epoch, place in the epoch), never on what ran before. So a training that was killed
goes on in the middle of an epoch exactly as if nothing had happened, and worker processes change nothing.
"""

import math
import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from crfrnn.data.augmentation import augment, generator_for
from crfrnn.data.config import Augmentation
from crfrnn.data.datasets.dataset import VOID, SegmentationDataset

Failure = str  # what a sample is replaced with when it cannot be read: the reason, in one line


class Batch(NamedTuple):
    """Photographs (B, 3, H, W) uint8 and classes (B, H, W) uint8; or the reason why there is none."""

    images: Tensor
    masks: Tensor
    names: list[str]
    problem: str | None = None


class Prepared(NamedTuple):
    name: str
    image: Tensor
    mask: Tensor


class TrainingSamples(Dataset):
    """Augmented samples, under keys (epoch, index)."""

    def __init__(self, dataset: SegmentationDataset, augmentation: Augmentation, seed: int):
        self.dataset, self.augmentation, self.seed = dataset, augmentation, seed

    def __getitem__(self, key: tuple[int, int]) -> Prepared | Failure:
        epoch, index = key
        try:
            name, image, mask = self.dataset[index]
        except (ValueError, OSError) as error:
            return str(error)
        return Prepared(name, *augment(self.augmentation, image, mask, generator_for(self.seed, epoch, index)))


class EvaluationSamples(Dataset):
    """Samples as they are; every index beyond the last is a sample that is void all over and so does not count.

    Several processes must go through equally many batches: those whose share is smaller fill it up with such samples.
    """

    def __init__(self, dataset: SegmentationDataset):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Prepared | Failure:
        beyond = index >= len(self.dataset)
        try:
            name, image, mask = self.dataset[0 if beyond else index]
        except (ValueError, OSError) as error:
            return str(error)
        return Prepared(name, image, torch.full_like(mask, VOID) if beyond else mask)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """The batches of one epoch from batch `start` on, as keys (epoch, index), for one process of `processes`.

    Every batch is full: the last one is filled up from the epoch's beginning, so that no sample is left out.
    """

    def __init__(
        self, samples: int, batch_size: int, seed: int, epoch: int, start: int = 0, process: int = 0, processes: int = 1
    ):
        self.samples, self.batch_size = samples, batch_size
        self.seed, self.epoch, self.start = seed, epoch, start
        self.process, self.processes = process, processes

    def __len__(self) -> int:
        return batches_in_epoch(self.samples, self.batch_size, self.processes) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = torch.randperm(self.samples, generator=generator_for(self.seed, self.epoch)).tolist()
        step = self.batch_size * self.processes
        for batch in range(self.start, self.start + len(self)):
            first = batch * step + self.process
            places = range(first, first + step, self.processes)
            yield [(self.epoch, order[place % self.samples]) for place in places]


def batches_in_epoch(samples: int, batch_size: int, processes: int = 1) -> int:
    """How many batches each process goes through."""
    return math.ceil(samples / (batch_size * processes))


def training_loader(
    dataset: SegmentationDataset, augmentation: Augmentation, batches: EpochBatches, workers: int, pin: bool = False
) -> DataLoader[Batch]:
    """Augmented batches of one epoch."""
    samples = TrainingSamples(dataset, augmentation, batches.seed)
    return DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=stack,
        num_workers=workers,
        worker_init_fn=leave_ctrl_c_to_the_main_process,
        pin_memory=pin,
    )


def evaluation_loader(
    dataset: SegmentationDataset, workers: int = 0, process: int = 0, processes: int = 1, pin: bool = False
) -> DataLoader[Batch]:
    """Every sample once over all processes, one at a time, as photographs differ in size."""
    places = range(process, processes * math.ceil(len(dataset) / processes), processes)
    samples = EvaluationSamples(dataset)
    return DataLoader(
        samples,
        sampler=places,
        collate_fn=stack,
        num_workers=workers,
        worker_init_fn=leave_ctrl_c_to_the_main_process,
        pin_memory=pin,
    )


def leave_ctrl_c_to_the_main_process(worker: int) -> None:
    """In a worker process: a terminal sends Ctrl-C to all of them, but only the main process can stop in good order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stack(samples: Sequence[Prepared | Failure]) -> Batch:
    """One batch of samples of one size."""
    failure = next((sample for sample in samples if isinstance(sample, Failure)), None)
    prepared = [sample for sample in samples if not isinstance(sample, Failure)]
    shapes = {tuple(sample.mask.shape[::-1]) for sample in prepared}
    if failure is None and len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        failure = (
            f"crop: photographs of {first[0]} x {first[1]} and {second[0]} x {second[1]} pixels do not fit into one"
            " batch; set augmentation.crop, or a batch_size of 1"
        )
    if failure is not None:
        return Batch(torch.empty(0), torch.empty(0), [], failure)
    names, images, masks = zip(*prepared, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), list(names))
