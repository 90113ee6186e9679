"""`--ray` and `crfrnn.cluster.refine_dataset` on a cluster of two workers, which lives as long as this file."""

import os
import shutil
import signal
import socket
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from crfrnn import cluster, refine
from crfrnn.commands.cluster import connect
from crfrnn.commands.cluster.connect import _refused, check_look, unseen
from crfrnn.commands.cluster.images import Image as Row
from crfrnn.commands.cluster.images import Results
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.run import Todo, Workers, run_images, workers_of
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.shards import Sharing
from crfrnn.data.kinds import Photograph
from tests.support.command import run
from tests.support.folders import photos_and_predictions

ray = pytest.importorskip("ray", reason="crfrnn[ray] is not installed")
IMAGES = 20


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 waits behind whatever else is tested
    path = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    ended = signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,  # which Ray believes
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, path))}},
    )
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, ended)  # Ray leaves a handler of its own behind, by which no training is saved


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """The current folder, with photos/ and p/; one photo cannot be read and one prediction is alone."""
    monkeypatch.chdir(tmp_path)
    photos_and_predictions(IMAGES)
    return tmp_path


def contents(folder: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*g")}


@pytest.mark.slow
def test_a_folder_on_a_cluster_is_what_one_process_writes(running, folders, capsys):
    command = ("refine", "photos", "--probabilities=p", "--iterations=2")
    shutil.copy("photos/0.png", "photos/lonely.png")
    assert run(*command, "--out=plain", "--overlay=looks") == 1
    first = "photos/0.png", "--probabilities=p/0.npy", "--iterations=2"
    assert run("refine", *first, "--out=out", "--overlay=over") == 2  # no folders yet
    for folder in ("out", "over"):
        Path(folder).mkdir()
    assert run("refine", *first, "--out=out", "--overlay=over") == 0
    capsys.readouterr()
    for _ in "12":
        assert run(*command, "--out=out", "--overlay=over", "--ray=local") == 1
        out, err = capsys.readouterr()
        assert f"2 of {IMAGES + 1} failed" in err
        assert "4: " in err
        assert "not a readable image" in err
        assert "alone.npy: no image alone.* in" in err
    assert f"skipped {IMAGES - 1} that were done (--overwrite redoes them); left 1 images without" in out
    assert run("status", "out") == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{IMAGES + 1} images: {IMAGES - 1} done, 2 failed, 0 missing\nfailed: 4.png: ")
    assert out.endswith("run again: the same command with --ray (2 failed, 0 missing)\n")
    assert contents("out") == contents("plain")
    assert contents("over") == contents("looks")


@pytest.mark.slow
def test_shards_on_a_cluster(running, folders):
    Path("shards").mkdir()
    for shard, images in {"a": "02", "b": "6"}.items():
        with tarfile.open(f"shards/{shard}.tar", "w") as tar:
            for name in images:
                tar.add(f"photos/{name}.png", f"{name}.png")
                tar.add(f"p/{name}.npy", f"{name}.npy")
                assert run("refine", f"photos/{name}.png", f"--probabilities=p/{name}.npy", f"--out={name}.png") == 0
    assert run("refine", "shards", "--probabilities=shards", "--out=out", "--ray=local") == 0
    assert run("status", "out") == 0
    results = {}
    for shard in "ab":
        with tarfile.open(f"out/{shard}.tar") as tar:
            results |= {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert results == {f"{name}.png": Path(f"{name}.png").read_bytes() for name in "026"}


@pytest.mark.slow
def test_segment_on_a_cluster(running, folders, capsys):
    shutil.rmtree("photos/day")
    for path in Path("photos").iterdir():
        if path.name not in ("0.png", "2.png"):
            path.unlink()
    command = ("segment", "photos", "--model=camvid", "--iterations=1")
    assert run(*command, "--out=plain", "--overlay=looks") == 0
    assert run(*command, "--out=out", "--overlay=over", "--ray=local") == 0
    assert "segmented 2 images in" in capsys.readouterr().out
    assert contents("out") == contents("plain")
    assert contents("over") == contents("looks")


@pytest.mark.slow
def test_gpus_that_are_not_there(running, folders, capsys):
    """Ray takes anybody's word for them."""
    messages = {"0.5": "ray-gpus: Ray counts GPUs on", "2": "as much as --ray-cpus 1 and --ray-gpus 2"}
    for gpus, message in messages.items():
        assert run("refine", "photos", "--probabilities=p", "--out=out", "--ray=local", f"--ray-gpus={gpus}") > 0
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.slow
def test_an_image_that_kills_its_workers_fails_alone(running, tmp_path):
    def work(images, source, targets) -> float:
        if images[0].name == "7.png":
            os.kill(os.getpid(), signal.SIGKILL)
        targets.out.parent.mkdir(parents=True, exist_ok=True)
        with targets.out.open("x") as file:  # twice would be an error
            file.write("done")
        return 0.5

    task = Task(work, [Place("/nowhere")], None, Results({"out": Place(str(tmp_path / "out"))}, Photograph), False)
    rows, failed = Todo.of(Row(str(number), [f"{number}.png"], "") for number in range(IMAGES)), {}
    tally = run_images(ray, task, rows, "dying", Workers(2, 1, 0), failed.__setitem__)
    assert failed == {"7.png": tally.failures["7"]}
    assert tally.failures == {"7": "2 workers died over it; is there memory enough?"}
    assert tally.done + tally.skipped == IMAGES - 1
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {str(n) for n in range(IMAGES)} - {"7"}


@pytest.mark.slow
def test_a_data_set(running):
    numbers = np.random.default_rng(0)
    items = [
        {
            "id": number,
            "photo": numbers.integers(0, 256, (8, 9 + number % 2, 3), dtype=np.uint8),
            "scores": numbers.standard_normal((3, 8, 9 + number % 2)).astype(np.float32),
        }
        for number in range(6)
    ]
    columns = {"image": "photo", "logits": "scores", "marginals": "q", "preset": "deeplab-v2", "iterations": 2}
    refined = cluster.refine_dataset(ray.data.from_items(items), workers=1, **columns)
    rows = sorted(refined.take_all(), key=lambda row: row["id"])
    assert len(rows) == len(items)
    for row, item in zip(rows, items, strict=True):
        expected = refine(item["photo"], logits=item["scores"], preset="deeplab-v2", iterations=2)
        np.testing.assert_array_equal(row["labels"], expected.argmax(0))
        np.testing.assert_array_equal(row["q"], expected.astype(np.float16))
        assert (row["labels"].dtype, row["q"].dtype) == (np.uint8, np.float16)
    with pytest.raises(ValueError, match="image: there is no such column; the data set has id"):
        cluster.refine_dataset(ray.data.from_items(items))


def test_a_batch_of_other_columns():
    batch = {"image": np.zeros((1, 8, 9, 3), np.uint8), "probabilities": np.full((1, 8, 9), 0.75, np.float32)}
    assert cluster.RefineBatch(iterations=1)(batch)["labels"].tolist() == np.ones((1, 8, 9)).tolist()
    with pytest.raises(ValueError, match="p: there is no such column; the data set has image, probabilities"):
        cluster.RefineBatch(probabilities="p")(batch)
    with pytest.raises(ValueError, match="row 0 of a batch: probabilities: "):
        cluster.RefineBatch(image="probabilities", probabilities="image")(batch)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--ray=head",), 2, "ray: expected auto, local or an address such as head:6379, got 'head'"),
        (("--ray=local", "--ray-cpus=0"), 2, "ray-cpus: must be at least 1, got 0"),
        (
            ("--ray=local", "--ray-gpus=1.5"),
            2,
            "a whole number, or a share of one such as 0.5, got 1.5",
        ),
        (("--ray-gpus=1",), 2, "ray-gpus: belongs to --ray"),
        (("--ray=local", "--shard=1/2"), 2, "give one of --shard and --ray"),
        (("--ray=local", "--out=memory://x"), 2, "memory://x is the memory of one process"),
        (("--ray=local", "--out=photos"), 2, "must be a folder of its own"),
        (("--ray=local", "--probabilities=absent"), 1, "absent: there is no such folder; --ray works on folders"),
        (("--ray=local", "--out=p/0.npy"), 2, "p/0.npy must be a folder"),
    ],
)
def test_refusals(folders, capsys, options, status, message):
    assert run("refine", "photos", "--probabilities=p", "--out=out", *options) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_segment_refuses(folders, capsys):
    assert run("segment", "photos/0.png", "photos/2.png", "--out=out", "--ray=local") == 2
    assert "ray: takes one folder of photographs" in capsys.readouterr().err


def test_an_address_where_nobody_answers(folders, capsys, monkeypatch):
    """A port that is closed, and one behind which somebody says nothing."""
    monkeypatch.setattr(connect, "SECONDS", 3)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        for _ in "12":
            command = ("refine", "photos", "--probabilities=p", "--out=out", f"--ray=127.0.0.1:{port}")
            assert run(*command) == 1
            error = capsys.readouterr().err
            assert f"ray: no cluster answers at 127.0.0.1:{port} within 3 s" in error
            assert error.count("\n") == 1
            silent.listen()


def test_what_ray_refuses():
    mismatch = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.7\n"
        "This process on node 10.0.0.3 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    expected = "ray: the cluster at h:1 has Ray 2.59.0, Python 3.11.7, and here is Ray 2.60.0, Python 3.11.7; install"
    assert _refused("h:1", mismatch).startswith(expected)
    with pytest.raises(RuntimeError) as raised:  # that this is how Ray says it
        ray._private.utils.check_version_info({"ray_version": "2.59.0", "python_version": "3.11.7"}, "here")
    assert _refused("h:1", str(raised.value)).startswith("ray: the cluster at h:1 has Ray 2.59.0, Python 3.11.7, and")


def test_without_ray(folders, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    monkeypatch.setattr(connect, "load", lambda module, name: __import__(module))
    assert run("refine", "photos", "--probabilities=p", "--out=out", "--ray=local") == 2
    error = capsys.readouterr().err
    assert "ray: needs Ray" in error
    assert "pip install 'crfrnn[ray]'" in error


def test_a_folder_that_a_machine_does_not_see(tmp_path):
    marker = tmp_path / "out" / ".crfrnn-shards" / "ab.seen"
    assert unseen([str(tmp_path), str(marker)]) == [str(marker)]
    with pytest.raises(ValueError, match=rf"ray: {tmp_path}/out is not seen by 10\.0\.0\.2; give a"):
        check_look("10.0.0.2", [str(marker)])
    check_look("10.0.0.2", [])
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}]
    connect.check_seen(SimpleNamespace(nodes=lambda: nodes), [Place(str(tmp_path))], [])  # one machine sees itself


def test_folders_of_results_that_are_not_there_yet(tmp_path, monkeypatch):
    """Several machines look at all that is read and written, and nothing of the look stays."""
    (tmp_path / "photos").mkdir()
    asked = []

    def remote(look):
        return SimpleNamespace(
            options=lambda **_: SimpleNamespace(remote=lambda paths: asked.append(paths) or look(paths))
        )

    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}, "NodeID": name, "NodeManagerAddress": name} for name in ("a", "b")
    ]
    machines: Any = SimpleNamespace(nodes=lambda: nodes, remote=lambda **_: remote, get=lambda answer: answer)
    monkeypatch.setattr(connect, "load", lambda *_: lambda *_, **__: None)
    written = [Place(str(tmp_path / name)) for name in ("labels", "looks")] + [Place.of("s3://bucket/q")]
    connect.check_seen(machines, [Place(str(tmp_path / "photos"))], written)
    assert [len(paths) for paths in asked] == [3, 3]
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["labels", "looks", "photos"]


@pytest.mark.parametrize(("gpus", "number"), [(0, 7), (1, 3), (0.5, 6), (0.3, 6), (2, 1)])
def test_workers_are_as_many_as_fit_on_each_machine(gpus, number):
    """Of 4, 9 and 3 cores, two for each worker, and 1, 2 and no GPUs; a machine that has left counts for nothing."""
    resources = {"CPU": 4.0, "GPU": 1.0}, {"CPU": 9.0, "GPU": 2.0}, {"CPU": 3.0}, {"CPU": 99.0, "GPU": 99.0}
    nodes = [{"Alive": number < 3, "Resources": resource} for number, resource in enumerate(resources)]
    assert workers_of(SimpleNamespace(nodes=lambda: nodes), Sharing("local", 2, gpus)).number == number
