"""The splits of the data set that a configuration names."""

import inspect

from crfrnn.data.config import DataConfig
from crfrnn.data.datasets import DATASETS, SegmentationDataset

COMMON = ("root", "split", "size")  # what every data set takes, and a configuration says in its own words


def open_split(config: DataConfig, split: str) -> SegmentationDataset:
    """One split; a ValueError that begins with ``data`` where the section makes no sense or the split is empty."""
    if config.name not in DATASETS:
        raise ValueError(f"data.name: {config.name!r} is none of {', '.join(DATASETS)}")
    if config.workers < 0:
        raise ValueError(f"data.workers: must be at least 0, got {config.workers}")
    builder = DATASETS[config.name]
    takes = [name for name in inspect.signature(builder).parameters if name not in COMMON]
    for option in config.options:
        if option not in takes:
            raise ValueError(f"data.options: {config.name} takes {', '.join(takes) or 'none'}, not {option!r}")
    if config.name == "folders" and "classes" not in config.options:
        raise ValueError("data.options: folders need classes, a list of names in the order of the masks' values")
    try:
        dataset = builder(config.root, split, config.size, **config.options)
    except ValueError as error:
        raise ValueError(f"data: {error}") from None
    if not len(dataset):
        raise ValueError(f"data: the split {split!r} of {config.root} is empty")
    return dataset
