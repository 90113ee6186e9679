"""Which kind a file or a folder is."""

from pathlib import Path

import pytest

from crfrnn.data.kinds import KINDS, Cloud, Kind, Photograph, Raster, Volume, kind_of


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.jpg", "b.PNG", "c.nii"], Photograph),
        (["a.nii.gz", "a.npz", "b.npz"], Volume),  # a volume and predictions
        (["a.jpg", "a.npz", "b.npz"], Photograph),
        (["a.npz", "b.npz"], Cloud),
        (["a.LAZ", "day/b.laz", "map.png"], Cloud),
        (["notes.txt"], Photograph),
        ([], Photograph),
    ],
)
def test_folders(names: list[str], kind: type[Kind], tmp_path: Path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert kind_of(tmp_path) is kind


def test_what_is_written_besides_does_not_count(tmp_path: Path):
    for name in ("a.laz", "out/a.png", "out/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert kind_of(tmp_path) is Photograph
    assert kind_of(tmp_path, [tmp_path / "out"]) is Cloud


@pytest.mark.parametrize("suffix", KINDS)
def test_files(suffix: str):
    """Its label map has its own suffix or that of all label maps, and never one that another kind is read from, but for
    TIFFs, into which one must look."""
    kind, image = kind_of(Path(f"a{suffix}")), Path(f"a{suffix}")
    assert kind is KINDS[suffix]
    assert suffix in kind.suffixes
    allowed = {Photograph, Raster} if kind is Raster else {kind}
    assert all(kind_of(image.with_name(f"a{ending}")) in allowed for ending in kind.written_as(image))


@pytest.mark.parametrize(
    ("image", "endings"),
    [
        ("a.jpg", (".png",)),
        ("a.nii", (".nii", ".nii.gz", ".mha", ".nrrd")),
        ("a.mhd", (".nii.gz", ".nii", ".mha", ".nrrd")),
        ("a.laz", (".laz", ".las")),
        ("a.ply", (".ply",)),
        ("a.jp2", (".tif", ".tiff")),
    ],
)
def test_suffixes_of_label_maps(image: str, endings: tuple[str, ...]):
    assert kind_of(Path(image)).written_as(Path(image)) == endings
