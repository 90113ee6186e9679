"""WebDataset shards, without Ray: what goes in, what comes out, failures, and shards that are none."""

import io
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image as Picture

from crfrnn.commands.cluster.images import Image
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.tars import TarResults, TarTask, unpacked
from crfrnn.commands.refine.files import image_work
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.refine.refine import refine
from crfrnn.data.kinds import Photograph

NUMBERS = np.random.default_rng(0)
PHOTO = NUMBERS.integers(0, 256, (8, 9, 3), dtype=np.uint8)
P = NUMBERS.dirichlet(np.ones(3), (8, 9)).transpose(2, 0, 1).astype(np.float32)


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    if form == "png":
        Picture.fromarray(PHOTO).save(file, "png")
    elif form == "npy":
        np.save(file, P)
    else:
        np.savez(file, x=P)
    return file.getvalue()


def shard(**members: bytes) -> bytes:
    """A .tar; two underscores in a name are a dot."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path) -> Place:
    return Place.of(str(tmp_path / "all") if request.param == "local" else f"memory://{tmp_path.name}")


def task_in(place: Place) -> TarTask:
    places = {target: Place.of(f"{place.url}/{target}") for target in ("out", "probabilities")}
    work = image_work(RefineOptions("in", out="out", probabilities="in", iterations=2), Photograph)
    results = TarResults(places, Photograph)
    return TarTask(work, [Place.of(f"{place.url}/in")], None, results, overwrite=False, suffixes=(".npy", ".npz"))


def put(place: Place, name: str, content: bytes) -> None:
    with fsspec.open(f"{place.url}/in/{name}", "wb", auto_mkdir=True) as file:
        file.write(content)  # type: ignore[attr-defined]


def members(place: Place, name: str) -> dict[str, bytes]:
    with fsspec.open(f"{place.url}/{name}", "rb") as file, tarfile.open(fileobj=file) as tar:  # type: ignore[arg-type]
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_shards_in_and_out(place):
    first = {"a__png": encoded("png"), "a__npy": encoded("npy"), "a__json": b"{}"}
    put(place, "day/0.tar", shard(**first, **{"b__npz": encoded("npz"), "b__png": encoded("png")}))
    task, image = task_in(place), Image("day/0", ["day/0.tar"], "")
    assert list(task.results.left(iter([image]))) == [image]
    assert 0 < (task.do(image) or 0) < 1
    assert list(task.results.left(iter([image]))) == []
    assert task.do(image) is None
    expected = refine(PHOTO, P, iterations=2)
    out, q = members(place, "out/day/0.tar"), members(place, "probabilities/day/0.tar")
    assert (list(out), list(q)) == (["a.png", "b.png"], ["a.npz", "b.npz"])
    for content in out.values():
        np.testing.assert_array_equal(np.asarray(Picture.open(io.BytesIO(content))), expected.argmax(0))
    for content in q.values():
        np.testing.assert_array_equal(np.load(io.BytesIO(content))["probabilities"], expected.astype(np.float16))


def test_images_of_a_shard_fail_among_themselves(place):
    good = {"a__png": encoded("png"), "a__npy": encoded("npy")}
    put(place, "0.tar", shard(**good, b__png=b"no photo", b__npy=encoded("npy"), c__png=encoded("png")))
    task, image = task_in(place), Image("0", ["0.tar"], "")
    for _ in "12":  # it is not done as long as something fails
        with pytest.raises(
            ValueError, match=r"2 of 3 images failed: b: .*not a readable image.* and 1 more, see 0\.tar"
        ):
            task.do(image)
        assert list(members(place, "out/0.tar")) == ["a.png"]
        assert list(task.results.left(iter([image]))) == [image]
    with fsspec.open(f"{place.url}/out/0.tar.failed", "rt") as file:
        assert [line.split(":")[0] for line in file] == ["b", "c"]
    put(place, "0.tar", shard(**good))
    assert task.do(image) is not None
    assert list(task.results.left(iter([image]))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no tar at all" * 100, "s.tar: not a readable shard"),
        (shard(a__png=b"x" * 5000)[:3000], "s.tar: not a readable shard"),
        (shard(**{"../a__png": b"x"}), r"not a readable shard \(\.\./a\.png leads out of it\)"),
        (shard(a__png=b"x", a__jpg=b"x"), "a.png and a.jpg have the same key"),
    ],
)
def test_shards_that_are_none(tmp_path, content, message):
    file = tmp_path / "s.tar"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(unpacked(file, tmp_path / "into", (".png", ".jpg"), (".npy",)))
    assert not Path(tmp_path / "a.png").exists()


def test_an_empty_shard(place):
    put(place, "0.tar", shard(a__txt=b"x"))
    with pytest.raises(ValueError, match=r"0\.tar: holds no \.jpg or"):
        task_in(place).do(Image("0", ["0.tar"], ""))
