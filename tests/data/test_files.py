"""Files that are whole or absent, folders matched by name, arrays, and batches."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from crfrnn.commands import batch
from crfrnn.commands.batch import run_all
from crfrnn.data.files import pair_by_stem, writing
from crfrnn.data.predictions import read_predictions, write_predictions
from crfrnn.runtime import threads


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def write_half(path: Path, error: BaseException) -> None:
    with writing(path) as file:
        file.write(b"half")
        raise error


def test_a_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "new" / "file.bin"
    with pytest.raises(RuntimeError):
        write_half(target, RuntimeError())
    assert list(target.parent.iterdir()) == []
    with writing(target) as file:
        file.write(b"whole")
    with pytest.raises(KeyboardInterrupt):
        write_half(target, KeyboardInterrupt())
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"whole"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_has_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with writing(tmp_path / "ours") as file:
        file.write(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_pairs_by_stem(tmp_path):
    images = touch(tmp_path / "images", "a.jpg", "b.JPEG", "c.png", "d.jpg", "d.png", "notes.txt", ".a.jpg")
    given = touch(tmp_path / "given", "a.npz", "b.npy", "d.npz", "e.npz", "f.npy", "f.npz")
    matched = pair_by_stem(images, given, (".npy", ".npz"))
    assert matched.pairs == {"a": (images / "a.jpg", given / "a.npz"), "b": (images / "b.JPEG", given / "b.npy")}
    assert {path.name: reason for path, reason in matched.problems.items()} == {
        "d.npz": "d.jpg and d.png have the same name",
        "e.npz": f"no image e.* in {images}",
        "f.npy": "f.npy and f.npz have the same name",
    }
    assert matched.unused == 1


def test_pairs_within_one_folder(tmp_path):
    folder = touch(tmp_path / "both", "a.jpg", "a.png", "b.jpg")
    matched = pair_by_stem(folder, folder, (".png",))
    assert matched.pairs == {"a": (folder / "a.jpg", folder / "a.png")}
    assert matched.unused == 1


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_predictions_come_back_as_float16(tmp_path, suffix):
    p = np.random.default_rng(0).random((3, 4, 5), np.float32)
    write_predictions(tmp_path / f"p{suffix}", p)
    read = read_predictions(tmp_path / f"p{suffix}")
    assert read.dtype == np.float16
    np.testing.assert_allclose(read, p, atol=1e-3)


def test_arrays_that_can_be_read(tmp_path):
    p = np.arange(24).reshape(2, 3, 4)
    np.savez(tmp_path / "two.npz", scores=p, other=p)
    assert read_predictions(tmp_path / "two.npz", "scores").dtype == np.float32
    np.save(tmp_path / "batch.npy", p[None].astype(">f8"))
    read = read_predictions(tmp_path / "batch.npy")
    assert read.shape == (2, 3, 4)
    assert read.dtype == np.float64
    assert read.dtype.isnative


def test_arrays_that_cannot(tmp_path):
    np.savez(tmp_path / "two.npz", scores=np.zeros((2, 3, 4)), other=np.zeros((2, 3, 4)))
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array([[["a"]]]))
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.npz").write_bytes(b"no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    reasons = {
        "two.npz": "holds scores, other; --key must say which of them",
        "flat.npy": "expected .labels, height, width.",
        "object.npy": "not a readable array",
        "text.npy": "expected numbers",
        "half.npz": "not a readable array",
        "other.npz": "begins like neither",
        "empty.npy": "begins like neither",
        "absent.npy": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=f"{name}.*: .*{reason}"):
            read_predictions(tmp_path / name)
    with pytest.raises(ValueError, match="there is no 'nope'"):
        read_predictions(tmp_path / "two.npz", "nope")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_batch_keeps_order_and_failures_apart(torch_threads, workers):
    torch_threads(workers)
    seen = []

    def work(number: int) -> int:
        seen.append(threads.count())
        if number % 5 == 3:
            raise ValueError(f"no\n {number}s")
        if number == 6:
            raise ZeroDivisionError("by six")
        return number * number

    finished = run_all(work, range(10), "squaring")
    assert finished.results == [n * n for n in (0, 1, 2, 4, 5, 7, 9)]
    assert finished.failures == [(3, "no 3s"), (6, "ZeroDivisionError: by six"), (8, "no 8s")]
    assert set(seen[:-workers]) == {1}  # every job has one thread as long as there are more jobs than threads
    assert run_all(work, [], "nothing").results == []


def test_an_interrupted_batch_says_how_far_it_came(monkeypatch, torch_threads):
    torch_threads(1)
    under_way = threading.Event()

    def work(number: int) -> None:
        if number == 2:
            under_way.set()

    def interrupted(futures):
        assert under_way.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: \d+ of 500 done, the same command does the rest"):
        run_all(work, range(500), "waiting")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fill(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", fill)
    with pytest.raises(OSError, match="no space"):
        write_predictions(tmp_path / "p.npz", np.zeros((2, 3, 4), np.float32))
    assert list(tmp_path.iterdir()) == []
