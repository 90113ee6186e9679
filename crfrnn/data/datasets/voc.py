"""Pascal VOC 2012 in the layout of its devkit, with SBD's extra annotations and the paper's reduced validation set."""

import importlib
from pathlib import Path

import numpy as np

from crfrnn.data.datasets.dataset import Classes, Pair, SegmentationDataset, chosen_split, existing_folder
from crfrnn.data.datasets.folders import read_list

CLASSES = Classes(
    names=(
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
        "tv monitor",
    ),
)  # fmt: skip
OWN = ("train", "val", "trainval")
WITH_SBD = ("train_sbd", "trainaug", "val_reduced")


class VOC2012(SegmentationDataset):
    """Photographs of 20 kinds of things and background, about 500 x 375.

    Args:
        root: the folder ``VOC2012`` of the devkit, with ``JPEGImages``, ``SegmentationClass`` and ``ImageSets``.
        split: one of VOC's own, ``train`` (1464), ``val`` (1449), ``trainval``; or, with `sbd`,
            ``val_reduced``, the images of ``val`` that SBD does not have (346, on which the paper validates);
            ``train_sbd``, everything else in VOC's trainval and SBD (11685, on which the paper trains);
            ``trainaug``, everything in both but VOC's val (10582, on which DeepLab trains).
        size: see `SegmentationDataset`.
        sbd: the folder ``dataset`` of SBD's benchmark_RELEASE, with ``train.txt``, ``val.txt`` and ``cls``, which
            holds .mat files as they were published (needs SciPy) or PNGs made of them.

    The splits come from the lists, nothing is counted on. Where both have annotated an image, VOC's finer mask with
    its void contours is taken.

    Source: Everingham et al., "The Pascal visual object classes challenge", IJCV 2010; Hariharan et al., "Semantic
    contours from inverse detectors", ICCV 2011 (SBD).
    """

    SPLITS = (*OWN, *WITH_SBD)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        size: tuple[int, int] | None = None,
        *,
        sbd: str | Path | None = None,
    ):
        folder = Path(root)
        chosen_split(split, self.SPLITS, "VOC 2012")
        for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            existing_folder(folder / name, "root must be the devkit's folder VOC2012")
        if split in WITH_SBD and sbd is None:
            raise ValueError(f"sbd: the split {split!r} needs SBD; give its folder 'dataset', or take {', '.join(OWN)}")
        extra = Path(sbd) if sbd is not None else None
        if extra is not None:
            existing_folder(extra / "cls", "sbd must be the folder 'dataset' of benchmark_RELEASE")
        lists = {name: read_list(folder / "ImageSets/Segmentation" / f"{name}.txt") for name in ("train", "val")}
        names = _names(split, lists, extra)
        super().__init__([_files(name, folder, extra) for name in names], CLASSES, size)

    def values(self, path: Path) -> np.ndarray:
        return _read_mat(path) if path.suffix == ".mat" else super().values(path)


def _names(split: str, lists: dict[str, list[str]], sbd: Path | None) -> list[str]:
    train, val = lists["train"], lists["val"]
    if split in OWN or sbd is None:
        return {"train": train, "val": val, "trainval": train + val}[split]
    extra = set(read_list(sbd / "train.txt") + read_list(sbd / "val.txt"))
    reduced = [name for name in val if name not in extra]
    if split == "val_reduced":
        return reduced
    return sorted((extra | set(train + val)) - set(reduced if split == "train_sbd" else val))


def _files(name: str, voc: Path, sbd: Path | None) -> Pair:
    image, mask = voc / "JPEGImages" / f"{name}.jpg", voc / "SegmentationClass" / f"{name}.png"
    if sbd is not None and not image.exists():
        image = sbd / "img" / f"{name}.jpg"
    if sbd is not None and not mask.exists():
        mask = next(
            (path for path in (sbd / "cls" / f"{name}{kind}" for kind in (".png", ".mat")) if path.exists()), mask
        )
    for path in (image, mask):
        if not path.exists():
            raise ValueError(f"{path}: there is no such file, but the lists name {name}")
    return Pair(name, image, mask)


def _read_mat(path: Path) -> np.ndarray:
    """SBD's ``GTcls.Segmentation``, (H, W), 0 background and 1..20."""
    try:
        loadmat = importlib.import_module("scipy.io").loadmat
    except ImportError:
        raise ValueError(f"{path}: SBD's .mat files are read with SciPy: pip install 'crfrnn[train]'") from None
    try:
        return loadmat(path, squeeze_me=True, struct_as_record=False)["GTcls"].Segmentation.astype(np.int64)
    except Exception as error:  # SciPy raises what it likes on a file that is cut short
        raise ValueError(f"{path}: not a readable SBD annotation ({type(error).__name__}: {error})") from None
