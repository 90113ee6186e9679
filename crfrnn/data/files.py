"""Files that are whole or absent, and folders whose files belong together by their names."""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` when the block ends well, and not at all when it does not.

    Missing folders are made. The bytes go to a hidden neighbour first, which replaces `path` in one step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def files_by_stem(folder: Path, suffixes: Sequence[str], besides: Iterable[Path] = ()) -> dict[str, list[Path]]:
    """The files of a folder with one of the suffixes, by name without suffix, hidden files and `besides` left out."""
    by_stem: dict[str, list[Path]] = {}
    leave_out = set(besides)
    for path in sorted(folder.iterdir()):
        fits = path.suffix.lower() in suffixes and not path.name.startswith(".")
        if fits and path not in leave_out and path.is_file():
            by_stem.setdefault(path.stem, []).append(path)
    return by_stem


@dataclass(frozen=True)
class Pairs:
    """Two folders matched by stem: the pairs, and what is wrong with the others."""

    pairs: dict[str, tuple[Path, Path]]  # stem -> (image, prediction)
    problems: dict[Path, str]  # a prediction that cannot be worked on, and why
    unused: int  # images without a prediction


def pair_by_stem(images: Path, predictions: Path, suffixes: Sequence[str]) -> Pairs:
    """Match the predictions of one folder (with these suffixes) to the images of another, or of the same one."""
    by_stem = files_by_stem(predictions, suffixes)
    taken = [path for paths in by_stem.values() for path in paths] if images.samefile(predictions) else []
    photos = files_by_stem(images, IMAGE_SUFFIXES, besides=taken)
    pairs, problems = {}, {}
    for stem, paths in by_stem.items():
        partners = photos.get(stem, [])
        if len(paths) > 1:
            problems[paths[0]] = f"{' and '.join(path.name for path in paths)} have the same name"
        elif len(partners) != 1:
            names = " and ".join(path.name for path in partners)
            problems[paths[0]] = f"{names} have the same name" if partners else f"no image {stem}.* in {images}"
        else:
            pairs[stem] = (partners[0], paths[0])
    return Pairs(pairs, problems, unused=len(photos.keys() - by_stem.keys()))
