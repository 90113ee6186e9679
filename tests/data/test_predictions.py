"""Predictions in files: arrays that come back as they were written, and those that cannot be read."""

from pathlib import Path

import numpy as np
import pytest

from crfrnn.data.predictions import read_predictions, resized, write_predictions


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


def test_impossible_labels_are_resized_without_nan():
    logits = np.random.default_rng(0).standard_normal((2, 6, 8)).astype(np.float32)
    logits[1, :, 4:] = -np.inf
    for size in ((12, 16), (3, 4), (7, 9), (6, 16)):
        scaled = resized(logits, size, (Path("l.npy"), Path("i.png")), allowed=True)
        assert not np.isnan(scaled).any()
        assert np.isfinite(scaled[0]).all()
        assert (scaled[1, :, -size[1] // 4 :] < -1e30).all()


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


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fill(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", fill)
    with pytest.raises(OSError, match="no space"):
        write_predictions(tmp_path / "p.npz", np.zeros((2, 3, 4), np.float32))
    assert list(tmp_path.iterdir()) == []
