"""Data sets by name. Each is a `SegmentationDataset` that knows its classes, their colours and its splits."""

from collections.abc import Callable

from crfrnn.data.datasets.camvid import CamVid
from crfrnn.data.datasets.cityscapes import Cityscapes
from crfrnn.data.datasets.dataset import VOID, Classes, Pair, Sample, SegmentationDataset
from crfrnn.data.datasets.folders import Folders
from crfrnn.data.datasets.voc import VOC2012

DATASETS: dict[str, Callable[..., SegmentationDataset]] = {
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "folders": Folders,
    "voc2012": VOC2012,
}

__all__ = [
    "DATASETS",
    "VOC2012",
    "VOID",
    "CamVid",
    "Cityscapes",
    "Classes",
    "Folders",
    "Pair",
    "Sample",
    "SegmentationDataset",
]
