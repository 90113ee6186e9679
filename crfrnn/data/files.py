"""Files that are whole or absent, and folders whose files belong together by their names."""

import functools
import itertools
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, TypeVar
from unicodedata import category

try:
    import fcntl
except ImportError:  # Windows, which deletes no file that is open
    fcntl = None

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # of pictures that hold class indices
PACKED = (".gz", ".bz2", ".zst")  # suffixes that stand behind that of what is packed
FIRST_CHANNEL, FURTHER_CHANNEL = "_0000", re.compile(r"_\d{4}$")  # ends of names, as nnU-Net has them
CONTROLS = ("Cc", "Cf", "Cs")  # characters that control, format, or are halves of others
File = TypeVar("File", Path, str)
PART = ".crfrnn-{}.part"  # a file that is being written; its name does not grow with that which it will have


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` when the block ends well, and not at all when it does not.

    Missing folders are made. The bytes go to a hidden neighbour first, which replaces `path` in one step. Neighbours
    that a killed process left are deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_parts(path.parent)
    file = _open_part(path.parent)
    part = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            if fcntl is None:
                file.close()
            os.replace(part, path)  # while it is locked
    finally:
        part.unlink(missing_ok=True)


def suffix_of(path: Path | str) -> str:
    """What a file's name says of its kind, in lower case; of packed files both suffixes.

    >>> suffix_of(Path("case.1/ct.v2.NII.gz")), suffix_of(Path("cat.JPG"))
    ('.nii.gz', '.jpg')
    """
    name = os.path.basename(path).lower()  # without pathlib, for which a million names take a while
    suffixes = [] if name.endswith(".") else [f".{part}" for part in name.lstrip(".").split(".")[1:][-2:]]
    return "".join(suffixes if suffixes[-1:] and suffixes[-1] in PACKED else suffixes[-1:])


def stem_of(path: Path) -> Path:
    """The path without `suffix_of`."""
    return path.with_name(path.name[: len(path.name) - len(suffix_of(path))])


def channels_of(first: Path, stem: str) -> list[Path]:
    """The files of one image in several, ``ct_0000.nii.gz``, ``ct_0001.nii.gz`` and so on, whose predictions have the
    stem ``ct``; else this one alone, such as ``frame_0000.jpg`` with the predictions ``frame_0000``."""
    suffix, name = suffix_of(first), Path(stem).name
    if stem_of(first).name != f"{name}{FIRST_CHANNEL}":
        return [first]
    numbered = (first.with_name(f"{name}_{number:04d}{first.name[-len(suffix) :]}") for number in range(10_000))
    return list(itertools.takewhile(Path.exists, numbered))


def printable(text: str) -> str:
    r"""The text with whatever could move a terminal's cursor, or cannot be printed at all, written out: names are not
    ours.

    >>> print(printable("a\x1b[2Jb.jpg and " + os.fsdecode(b"\xff.jpg")))
    a\x1b[2Jb.jpg and \udcff.jpg
    """
    return "".join(repr(c)[1:-1] if c not in "\n\t" and category(c) in CONTROLS else c for c in text)


def is_part(path: Path) -> bool:
    """Whether a file is one that `writing` has not finished, by its name.

    >>> is_part(Path("run/.crfrnn-12ab34cd.part")), is_part(Path("part"))
    (True, False)
    """
    return fnmatch(path.name, PART.format("*"))


def _open_part(folder: Path) -> BinaryIO:
    """A new file in a folder, locked as long as it is open: so others know that somebody is writing it."""
    while True:
        part = folder / PART.format(secrets.token_hex(4))
        file = part.open("xb")
        with suppress(OSError):  # a file system without locks
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
        if part.exists():  # nobody took it for a left one before it was locked
            return file
        file.close()


@functools.lru_cache(maxsize=256)  # a folder is looked through once, before the first file that a process writes to it
def clear_parts(folder: Path) -> None:
    """Delete what killed processes were writing in a folder; what a living one writes is locked, and stays."""
    for part in list(folder.glob(PART.format("*"))):
        with suppress(OSError):  # it is locked or gone, or locks are unknown here
            if fcntl is None:
                part.unlink()
                continue
            with part.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()


def files_by_stem(folder: Path, suffixes: Sequence[str], besides: Iterable[Path] = ()) -> dict[str, list[Path]]:
    """The files with one of the suffixes in a folder and in the folders inside of it, by their path without suffix.

    ``folder/day/cat.jpg`` has the name ``day/cat``. What is hidden and `besides`, files and folders, is left out.
    """
    by_stem: dict[str, list[Path]] = {}
    leave_out = {path.resolve() for path in besides}
    for path in _files_below(folder, leave_out):
        if suffix_of(path) in suffixes:
            by_stem.setdefault(stem_of(path.relative_to(folder)).as_posix(), []).append(path)
    return by_stem


def _files_below(folder: Path, leave_out: set[Path]) -> Iterator[Path]:
    """All files, in the order of their names; a link back to a folder that is being read is not followed."""
    inside = {*leave_out, folder.resolve()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.resolve() in inside:
            continue
        if path.is_dir():
            yield from _files_below(path, inside)
        elif path.is_file():
            yield path


def names_below(folder: Path) -> Iterator[str]:
    """The files in a folder and in the folders inside of it, as paths in it; none that is hidden. In any order.

    >>> list(names_below(Path("there is no such folder")))
    []
    """
    folders = [("", frozenset[str]())]
    while folders:
        inside, above = folders.pop()
        with suppress(FileNotFoundError), os.scandir(folder / inside) as entries:
            here = above | {os.path.realpath(folder / inside)}
            for entry in entries:
                name = f"{inside}{entry.name}"
                if entry.name.startswith(".") or (entry.is_symlink() and os.path.realpath(entry) in here):
                    continue  # a link back to a folder that is being read is not followed
                if entry.is_dir():
                    folders.append((f"{name}/", here))
                elif entry.is_file():
                    yield name


@dataclass(frozen=True)
class Pairs:
    """Two folders matched by stem: the pairs, and what is wrong with the others."""

    pairs: dict[str, tuple[Path, Path]]  # stem -> (image, prediction)
    problems: dict[Path, str]  # a prediction that cannot be worked on, and why
    lonely: list[Path]  # images without a prediction

    @property
    def unused(self) -> int:
        """How many images there are without a prediction."""
        return len(self.lonely)


def each_alone(folder: Path, suffixes: Sequence[str], besides: Iterable[Path] = ()) -> Pairs:
    """The images of a folder, each with what is in its own file."""
    found = files_by_stem(folder, suffixes, besides)
    problems = {paths[0]: f"{paths[1].name} has the same name" for paths in found.values() if len(paths) > 1}
    return Pairs({stem: (paths[0], paths[0]) for stem, paths in found.items() if len(paths) == 1}, problems, [])


def pair_by_stem(
    images: Path,
    predictions: Path,
    suffixes: Sequence[str],
    besides: Sequence[Path] = (),
    image_suffixes: Sequence[str] = IMAGE_SUFFIXES,
) -> Pairs:
    """Match the predictions of one folder (with these suffixes) to the images of another, or of the same one.

    Folders inside of them are matched too, each to the one of the same name: ``predictions/day/cat.npz`` belongs to
    ``images/day/cat.jpg``. Of an image in several files, ``ct_0000.nii.gz`` and so on, the first belongs to ``ct``.
    `besides` is left out, and so is one of the two folders where it lies in the other.
    """
    together = images.samefile(predictions)
    by_stem = files_by_stem(predictions, suffixes, besides if together else [*besides, images])
    taken = [path for paths in by_stem.values() for path in paths] if together else [predictions]
    photos = files_by_stem(images, image_suffixes, [*besides, *taken])
    pairs, problems = {}, {}
    for stem, image, prediction, problem in matches(photos, by_stem, images):
        if image is None:
            problems[prediction] = problem
        else:
            pairs[stem] = (image, prediction)
    known = by_stem.keys()
    lonely = [paths[0] for stem, paths in photos.items() if not {stem, FURTHER_CHANNEL.sub("", stem)} & known]
    return Pairs(pairs, problems, lonely)


def matches(
    images: Mapping[str, Sequence[File]], predictions: Mapping[str, Sequence[File]], place: object
) -> Iterator[tuple[str, File | None, File, str]]:
    """For each stem of the predictions: it, the image or None, the prediction, and what is wrong where it is None.

    Both are files by their stems; the images are in `place`.
    """
    for stem, files in predictions.items():
        partners = images.get(stem) or images.get(f"{stem}{FIRST_CHANNEL}", [])
        if len(files) > 1:
            yield stem, None, files[0], f"{_together(files)} have the same name"
        elif len(partners) != 1:
            same = f"{_together(partners)} have the same name"
            yield stem, None, files[0], same if partners else f"no image {stem}.* in {place}"
        else:
            yield stem, partners[0], files[0], ""


def _together(files: Sequence[Path | str]) -> str:
    return " and ".join(os.path.basename(file) for file in files)
