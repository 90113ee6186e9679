"""The splits of the data set that a configuration names."""

import inspect

from crfrnn.data.config import DataConfig
from crfrnn.data.datasets import DATASETS, SegmentationDataset

COMMON = ("root", "split", "size", "partial")  # what a configuration says in its own words, or the command for it


def open_split(config: DataConfig, split: str, partial: bool = False) -> SegmentationDataset:
    """One split; a ValueError that begins with ``data`` where the section makes no sense or the split is empty.

    With `partial` a data set that is matched by names takes the pairs that there are (see `Folders`).
    """
    if config.name not in DATASETS:
        raise ValueError(f"data.name: {config.name!r} is none of {', '.join(DATASETS)}")
    if config.workers < 0:
        raise ValueError(f"data.workers: must be at least 0, got {config.workers}")
    builder = DATASETS[config.name]
    parameters = inspect.signature(builder).parameters
    takes = [name for name in parameters if name not in COMMON]
    for option in config.options:
        if option not in takes:
            raise ValueError(f"data.options: {config.name} takes {', '.join(takes) or 'none'}, not {option!r}")
    if config.name == "folders" and "classes" not in config.options:
        raise ValueError("data.options: folders need classes, a list of names in the order of the masks' values")
    options = config.options | ({"partial": partial} if "partial" in parameters else {})
    try:
        dataset = builder(config.root, split, config.size, **options)
    except ValueError as error:
        raise ValueError(f"data: {error}") from None
    if not len(dataset):
        reason = f"; left out: {dataset.left_out}" if dataset.left_out else ""
        raise ValueError(f"data: the split {split!r} of {config.root} is empty{reason}")
    return dataset
