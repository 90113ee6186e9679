"""Anybody's own data: a folder of images, a folder of masks with the same names, and a list of classes."""

import zlib
from collections.abc import Container, Sequence
from pathlib import Path

from crfrnn.data.datasets.dataset import VOID, Classes, Pair, SegmentationDataset, chosen_split, existing_folder
from crfrnn.data.files import MASK_SUFFIXES, pair_by_stem


class Folders(SegmentationDataset):
    """Images and masks that are matched by name: ``images/cat.jpg`` and ``masks/cat.png``.

    Folders inside of the two are matched too: ``images/day/cat.jpg`` belongs to ``masks/day/cat.png``, and its name is
    ``day/cat``.

    Args:
        root: the folder that holds both.
        split: ``train`` or ``val`` (and ``test`` where there is one), or ``all``.
        size: see `SegmentationDataset`.
        classes: the names, in the order of the mask's values 0, 1, 2, ...; or a text file with a name on each line.
        void: the mask values that do not count.
        images, masks: the two folders inside of `root`. With ``{split}`` in them, as in ``images/{split}``, each
            split has folders of its own.
        validation_share: where nothing else says which image belongs to which split, this share of them is ``val``
            and the others are ``train``, chosen by a checksum of their names: more images do not move the others.
        partial: take the pairs that there are, and say in `left_out` what has no partner, instead of refusing it.

    A file ``train.txt`` (``val.txt``, ``test.txt``) in `root` with one name on each line says what the split holds.
    """

    SPLITS = ("train", "val", "test", "all")

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        size: tuple[int, int] | None = None,
        *,
        classes: Sequence[str] | str,
        void: Sequence[int] = (VOID,),
        images: str = "images",
        masks: str = "masks",
        validation_share: float = 0.2,
        partial: bool = False,
    ):
        folder = existing_folder(Path(root), "give the folder that holds the images and the masks")
        chosen_split(split, self.SPLITS, "a data set of folders")
        if ("{split}" in images) != ("{split}" in masks):
            raise ValueError(f"masks: {masks!r} and {images!r} must both have {{split}} in them, or none")
        if not 0 < validation_share < 1:
            raise ValueError(f"validation_share: must lie between 0 and 1, got {validation_share}")
        named = Classes(_names(classes, folder), void=frozenset(void))
        pairs, left_out = pairs_in(folder / images.format(split=split), folder / masks.format(split=split), partial)
        if "{split}" not in images and split != "all":
            listed = folder / f"{split}.txt"
            if not listed.exists():
                _refuse_split_folders(pairs, images, masks)
            pairs, missing = _chosen(pairs, split, listed, validation_share)
            if missing and not partial:
                raise ValueError(f"{listed}: {missing[0]!r} and {len(missing) - 1} more have no image and mask")
            if missing:
                left_out = f"{len(missing)} of the names in {listed} ({missing[0]!r} has no image and mask)"
        super().__init__(pairs, named, size, left_out)


def _refuse_split_folders(pairs: Sequence[Pair], images: str, masks: str) -> None:
    """ValueError where folders inside of the two have the names of splits: else images for the test are trained on."""
    tops = {pair.name.partition("/")[0] for pair in pairs if "/" in pair.name}
    if splits := tops.intersection(("train", "val", "test")):
        raise ValueError(
            f"images: {images} has folders of its own for {', '.join(sorted(splits))};"
            f" give images: {images}/{{split}} and masks: {masks}/{{split}}, or lists such as train.txt"
        )


def pairs_in(images: Path, masks: Path, partial: bool = False) -> tuple[list[Pair], str]:
    """The images and masks of two folders, by name, and in words what has no partner.

    A ValueError where a mask or an image has none, but for `partial`, which takes the pairs that there are.
    """
    existing_folder(images, "it must hold the images")
    existing_folder(masks, "it must hold the masks")
    matched = pair_by_stem(images, masks, MASK_SUFFIXES)
    problems = list(matched.problems.items())
    if not partial:
        if problems:
            rest = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
            raise ValueError(f"{problems[0][0]}: {problems[0][1]}{rest}")
        if matched.unused:
            raise ValueError(
                f"{masks}: {matched.unused} images in {images} have no mask here, such as"
                f" {matched.lonely[0].relative_to(images)}; add masks or move the images"
            )
    left_out = [f"{matched.unused} of the images (no mask in {masks})"] * bool(matched.unused)
    left_out += [f"{len(problems)} of the masks ({path}: {reason})" for path, reason in problems[:1]]
    return [Pair(name, *paths) for name, paths in sorted(matched.pairs.items())], " and ".join(left_out)


def read_list(path: Path) -> list[str]:
    """The names on the lines of a text file, without what follows them."""
    try:
        return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such list of names") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable list of names ({error})") from None


def _names(classes: Sequence[str] | str, folder: Path) -> tuple[str, ...]:
    if isinstance(classes, str):
        path = folder / classes
        if not path.is_file():
            raise ValueError(f"classes: there is no file {path}; give it, or a list of names")
        return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    return tuple(str(name) for name in classes)


def _known(listed: str, names: Container[str]) -> str:
    """The name that a line of a list means: it may have a suffix, and a folder before it."""
    path = Path(listed)
    return next((name for name in (listed, path.with_suffix("").as_posix()) if name in names), path.stem)


def _chosen(pairs: list[Pair], split: str, listed: Path, share: float) -> tuple[list[Pair], list[str]]:
    """The pairs of a split, and the names that its list has and that are no pair."""
    if listed.exists():
        by_name = {pair.name: pair for pair in pairs}
        names = [_known(name, by_name) for name in read_list(listed)]
        return [by_name[name] for name in names if name in by_name], [name for name in names if name not in by_name]
    if split == "test":
        raise ValueError(f"split: there is neither {listed} nor a folder that says which images are for the test")
    return [pair for pair in pairs if (zlib.crc32(pair.name.encode()) / 2**32 < share) == (split == "val")], []
