"""CamVid as the SegNet tutorial lays it out: ``train/``, ``trainannot/`` and so on, 11 classes and void."""

from pathlib import Path

from crfrnn.data.datasets.dataset import Classes, SegmentationDataset, chosen_split
from crfrnn.data.datasets.folders import pairs_in

CLASSES = Classes(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian",
        "bicyclist",
    ),
    void=frozenset({11}),
    palette=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip


class CamVid(SegmentationDataset):
    """Road scenes from a driving car, 480 x 360: 367 for training, 101 for validation, 233 for testing.

    Args:
        root: the folder that holds ``train``, ``trainannot``, ``val``, ``valannot``, ``test``, ``testannot``.
        split: ``train``, ``val`` or ``test``.
        size: see `SegmentationDataset`.
        partial: see `Folders`.

    Source: Brostow et al., "Semantic object classes in video", 2009; the 11 classes and the split are those of
    Badrinarayanan et al., "SegNet", 2015.
    """

    SPLITS = ("train", "val", "test")

    def __init__(
        self, root: str | Path, split: str = "train", size: tuple[int, int] | None = None, *, partial: bool = False
    ):
        folder = Path(root)
        chosen_split(split, self.SPLITS, "CamVid")
        pairs, left_out = pairs_in(folder / split, folder / f"{split}annot", partial)
        super().__init__(pairs, CLASSES, size, left_out)
