"""Cityscapes: ``leftImg8bit/`` and ``gtFine/``, whose label ids become the 19 classes of its benchmark."""

from pathlib import Path

from crfrnn.data.datasets.dataset import Classes, Pair, SegmentationDataset, chosen_split, existing_folder

IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"

BENCHMARK = (  # name, label id, colour
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
LABEL_IDS = range(34)
CLASSES = Classes(
    names=tuple(name for name, _, _ in BENCHMARK),
    values=tuple(label for _, label, _ in BENCHMARK),
    void=frozenset(LABEL_IDS).difference(label for _, label, _ in BENCHMARK) | {255},
    palette=tuple(colour for _, _, colour in BENCHMARK),
)


class Cityscapes(SegmentationDataset):
    """Street scenes of 50 cities, 2048 x 1024, fine annotations: 2975 for training, 500 for validation.

    Args:
        root: the folder that holds ``leftImg8bit`` and ``gtFine``.
        split: ``train`` or ``val`` (the masks of ``test`` are not public, its files are all void).
        size: see `SegmentationDataset`.

    Source: Cordts et al., "The Cityscapes dataset", CVPR 2016.
    """

    SPLITS = ("train", "val", "test")

    def __init__(self, root: str | Path, split: str = "train", size: tuple[int, int] | None = None):
        chosen_split(split, self.SPLITS, "Cityscapes")
        images = existing_folder(Path(root) / "leftImg8bit" / split, "unpack leftImg8bit_trainvaltest.zip into root")
        masks = existing_folder(Path(root) / "gtFine" / split, "unpack gtFine_trainvaltest.zip into root")
        pairs = []
        for image in sorted(images.glob(f"*/*{IMAGE}")):
            name = image.name.removesuffix(IMAGE)
            mask = masks / image.parent.name / f"{name}{MASK}"
            if not mask.is_file():
                raise ValueError(f"{image}: has no mask {mask}")
            pairs.append(Pair(name, image, mask))
        super().__init__(pairs, CLASSES, size)
