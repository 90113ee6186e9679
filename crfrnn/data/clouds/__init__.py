"""Clouds of points: one dictionary from a file's suffix to what reads it, and writes it again with other labels."""

from pathlib import Path

from crfrnn.data.clouds import las, npz, ply
from crfrnn.data.clouds.cloud import Cloud, Format

FORMATS: dict[str, Format] = {
    ".las": Format(las.read, las.write),
    ".laz": Format(las.read, las.write),
    ".ply": Format(ply.read, ply.write),
    ".npz": Format(npz.read, npz.write),
}
SUFFIXES = tuple(FORMATS)


def format_of(path: Path) -> Format:
    """ValueError where a file's name says of none.

    >>> format_of(Path("street.LAZ")) == format_of(Path("street.las"))
    True
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: clouds of points end in {', '.join(SUFFIXES)}")
    return FORMATS[path.suffix.lower()]


def read_cloud(path: Path) -> Cloud:
    """A file's points; ValueError, with its name, where it cannot be read or has none."""
    cloud = format_of(path).read(path)
    cloud.check()
    return cloud
