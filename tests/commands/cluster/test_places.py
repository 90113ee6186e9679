"""Folders and URLs, without Ray: names, pairs, what is left to do, and one image through an object store's folder."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image as Picture

from crfrnn.cli import main
from crfrnn.commands.cluster.attempts import Attempts
from crfrnn.commands.cluster.folders import check_places
from crfrnn.commands.cluster.images import Alone, Image, Pairs, Results
from crfrnn.commands.cluster.names import Names
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.errors import UsageError
from crfrnn.commands.refine.files import image_work
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.data.files import pair_by_stem
from crfrnn.data.kinds import Photograph, Volume

FILES = (
    "cat.jpg",
    "day/cat.png",
    "day/dog.jpg",
    "day/dog.png",
    "twice.jpg",
    ".hidden/a.jpg",
    "ct_0000.png",
    "ct_0001.png",
    "lonely.png",
)
PREDICTIONS = ("cat.npy", "day/cat.npz", "day/dog.npy", "twice.npy", "twice.npz", "alone.npy", "ct.npy", "looks/x.npy")


@pytest.fixture(params=["local", "memory", "s3"])
def root(request, tmp_path) -> str:
    """A place where there is nothing yet."""
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """One of a server of S3 in this process."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("crfrnn-tests")
        yield "crfrnn-tests"
    server.stop()


def make(place: Place, names: tuple[str, ...]) -> None:
    for name in names:
        with fsspec.open(f"{place.url}/{name}", "wb", auto_mkdir=True) as file:
            file.write(b"x")  # type: ignore[attr-defined]


def test_names_and_pairs_are_those_of_folders(root, tmp_path):
    """Compared with `pair_by_stem`, which looks into folders."""
    photos, predictions = Place.of(f"{root}/photos"), Place.of(f"{root}/p")
    assert not photos.exists()
    for place, folder, names in ((photos, "photos", FILES), (predictions, "p", PREDICTIONS)):
        make(place, names)
        make(Place.of(str(tmp_path / folder)), names)
    assert photos.exists()
    looks = Place.of(f"{root}/p/looks")
    assert set(predictions.names()) - set(predictions.names(besides=[looks])) == {"looks/x.npy"}
    images, of_images = Names(photos.names()).of(Photograph.suffixes), Names(predictions.names(besides=[looks]))
    pairs = Pairs(images, of_images.of((".npy", ".npz")), photos)
    expected = pair_by_stem(tmp_path / "photos", tmp_path / "p", (".npy", ".npz"), [tmp_path / "p/looks"])
    assert len(pairs) == len(expected.pairs) + len(expected.problems)
    assert pairs.unused() == expected.unused == 1
    assert {image.name: (image.images[0], image.source) for image in pairs} == {
        stem: (str(a.relative_to(tmp_path / "photos")), str(b.relative_to(tmp_path / "p")))
        for stem, (a, b) in expected.pairs.items()
    }
    assert set(pairs.problems) == {str(path.relative_to(tmp_path / "p")) for path in expected.problems}
    assert {image.name: image.images for image in pairs}["ct"] == ["ct_0000.png", "ct_0001.png"]
    alone = Alone(images)
    assert [image.name for image in alone] == ["cat", "ct_0000", "ct_0001", "day/cat", "lonely", "twice"]
    assert set(alone.problems) == {"day/dog.jpg"}


def test_what_is_left(root):
    places = {"out": Place.of(f"{root}/out"), "probabilities": Place.of(f"{root}/q")}
    results, image = Results(places, Photograph), Image("day/cat", ["day/cat.jpg"], "day/cat.npy")
    assert results.names(image) == {"out": "day/cat.png", "probabilities": "day/cat.npz"}
    assert Results({"out": places["out"]}, Volume).names(Image("ct", ["ct.nii.gz"], ""))["out"] == "ct.nii.gz"
    for target, left in (("out", True), ("probabilities", False)):
        make(places[target], (results.names(image)[target],))
        assert results.done(image) is not left
        assert list(results.left(iter([image]))) == [image] * left


def test_one_image_through_urls_is_what_the_command_writes(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0)
    Picture.fromarray(numbers.integers(0, 256, (8, 9, 3), dtype=np.uint8)).save("cat.png")
    np.save("cat.npy", numbers.dirichlet(np.ones(3), (8, 9)).transpose(2, 0, 1).astype(np.float32))
    photos, p = Place.of(f"{root}/photos"), Place.of(f"{root}/p")
    for place, name in ((photos, "cat.png"), (p, "cat.npy")):
        make(place, (f"day/{name}",))
        with fsspec.open(f"{place.url}/day/{name}", "wb") as file:
            file.write(Path(name).read_bytes())  # type: ignore[attr-defined]
    places = {target: Place.of(f"{root}/{target}") for target in ("out", "probabilities", "trace")}
    options = RefineOptions("photos", out="out", probabilities="p", iterations=2)
    task = Task(image_work(options, Photograph), [photos], p, Results(places, Photograph), overwrite=False)
    image = Image("day/cat", ["day/cat.png"], "day/cat.npy")
    changed = task.do(image)
    assert changed is not None
    assert 0 < changed < 1
    assert task.do(image) is None  # it is there
    outputs = ("--out=out.png", "--save-probabilities=q.npz", "--trace=t.csv", "--iterations=2")
    assert main(("refine", "cat.png", "--probabilities=cat.npy", *outputs)) == 0
    for url, name in (("out/day/cat.png", "out.png"), ("trace/day/cat.csv", "t.csv")):
        with fsspec.open(f"{root}/{url}", "rb") as file:
            assert file.read() == Path(name).read_bytes()  # type: ignore[attr-defined]
    assert "day/cat.svg" in set(places["trace"].names())
    with pytest.raises(ValueError, match=r"p/day/dog\.npy: there is no such file"):
        task.do(Image("day/dog", ["day/cat.png"], "day/dog.npy"))
    assert set(places["out"].names()) == {"day/cat.png"}


def test_places_that_cannot_be_reached():
    with pytest.raises(UsageError, match="nowhere://bucket: Protocol not known: nowhere"):
        Place.of("nowhere://bucket").exists()


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError("Unable to locate\nkeys"),
        PermissionError("Access Denied"),  # as s3fs says it
        OSError("Forbidden: b/bucket/o\nno access"),  # as gcsfs says it
        RuntimeError("Anonymous caller does not have storage.objects.list access, 401"),
    ],
)
def test_what_keys_would_mend_says_so(error):
    class Locked(Place):
        @property
        def _opened(self):
            raise error

    text = " ".join(str(error).split())
    expected = f"s3://b: cannot be used ({type(error).__name__}: {text}); give credentials as its client expects"
    with pytest.raises(ValueError, match=re.escape(expected)):
        Locked("s3://b").exists()


def test_what_keys_would_not_mend_does_not():
    class Unreachable(Place):
        @property
        def _opened(self):
            raise OSError("Could not connect to the endpoint 4010")

    with pytest.raises(ValueError, match=r"cannot be used \(OSError: Could not connect to the endpoint 4010\)$"):
        Unreachable("s3://b").exists()


def test_a_store_that_says_nothing_is_not_waited_for(monkeypatch):
    silence = threading.Event()

    class Silent(Place):
        @property
        def _opened(self):
            silence.wait()
            return fsspec.core.url_to_fs("memory://")

    monkeypatch.setattr("crfrnn.commands.cluster.places.SECONDS", 0.1)
    here, store = Place.of("."), Silent("gs://b/p")
    for read, written in ((store, here), (here, store)):
        with pytest.raises(ValueError, match=r"^gs://b/p: no answer within 0.1 s; can this machine reach it"):
            check_places([read], {"out": written})
    silence.set()


def test_attempts():
    attempts = Attempts()
    assert [attempts.begin("a"), attempts.begin("b"), attempts.begin("a")] == [1, 1, 2]
    attempts.end("a")
    assert [attempts.begin("a"), attempts.begin("b")] == [1, 2]
