"""The ``data:`` section of a configuration: which data set, where, which splits, how changed."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from crfrnn.data.augmentation import Augmentation
from crfrnn.data.datasets import DATASETS, SegmentationDataset
from crfrnn.data.yaml_file import read_yaml

COMMON = ("root", "split", "size")  # what every data set takes, and this section says in its own words


@dataclass(frozen=True)
class DataConfig:
    """Where the data are and how they are read.

    Args:
        name: camvid, cityscapes, folders or voc2012.
        root: the data set's folder.
        train: the split to train on.
        val: the split that chooses the best checkpoint.
        test: the split to report on.
        size: (width, height) in pixels to which all is scaled, for small machines; none leaves each as it is.
        options: what this data set takes besides: ``classes``, ``void``, ``images``, ``masks``, ``validation_share``
            for folders, ``sbd`` for voc2012.
        augmentation: random changes in training.
        workers: processes that read and augment.
    """

    name: str
    root: str
    train: str = "train"
    val: str = "val"
    test: str = "test"
    size: tuple[int, int] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    augmentation: Augmentation = field(default_factory=Augmentation)
    workers: int = 2


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


def read_data_config(path: str | Path, root: str | None = None) -> DataConfig:
    """The ``data:`` section of a YAML file; `root` replaces its root."""
    section = read_yaml(path).get("data")
    if not isinstance(section, Mapping):
        raise ValueError(f"{path}: has no section data: with name and root")
    try:
        return data_config({**section, "root": root or section.get("root")})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def data_config(section: Mapping[str, Any]) -> DataConfig:
    """The section as it was read; unknown names, missing ones and wrong kinds of values are ValueErrors."""
    known = {item.name for item in fields(DataConfig)}
    for name in section:
        if name not in known:
            raise ValueError(f"data.{name}: is none of {', '.join(sorted(known))}")
    for name in ("name", "root"):
        if not section.get(name):
            raise ValueError(f"data.{name}: is missing")
    parser = importlib.import_module("jsonargparse").ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataConfig, "data")
    try:
        return parser.instantiate(parser.parse_object({"data": dict(section)})).data
    except Exception as error:  # jsonargparse raises its own, with the whole parser's view of things
        raise ValueError(f"data: {' '.join(str(error).split())}") from None
