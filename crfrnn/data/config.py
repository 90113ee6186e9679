"""The ``data:`` section of a configuration: which data set, where, which splits, how changed."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from crfrnn.data.yaml_file import read_yaml


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training sample; validation and test go without.

    Args:
        scale: the photograph is enlarged by a factor drawn evenly from this range.
        crop: (width, height) in pixels of a window at a random place; where it is larger than the scaled photograph
            the rest is filled with the mean colour and is void. Needed where a batch holds photographs of several
            sizes, or of several scales.
        flip: probability of exchanging left and right.
        colour: brightness, contrast and saturation are each multiplied by a factor from 1 - colour to 1 + colour.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    crop: tuple[int, int] | None = None
    flip: float = 0.0
    colour: float = 0.0

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError(f"scale: expected two positive factors, the smaller first, got {low} and {high}")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"crop: expected width and height in pixels, got {self.crop}")
        for name, value in (("flip", self.flip), ("colour", self.colour)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: must lie between 0 and 1, got {value}")


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
