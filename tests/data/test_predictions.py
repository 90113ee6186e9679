"""Predictions in files: arrays that come back as they were written, and those that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crfrnn.data import predictions
from crfrnn.data.predictions import Form, read_predictions, resized, unpacked_sizes, write_predictions


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
    assert read.shape == (1, 2, 3, 4)
    assert read.dtype == np.float64
    assert read.dtype.isnative


H, W = 3, 4
FORMS = [  # shape, the labels' axis, the axis of the rows
    ((5, H, W), 0, 1),
    ((H, W, 5), 2, 0),
    ((1, 5, H, W), 1, 2),
    ((5, 1, H, W), 0, 2),  # nnU-Net, two dimensions
    ((1, H, W, 5), 3, 1),
    ((1, 5, 1, H, W), 1, 3),
    ((H, H, W), 0, 1),  # both fit
    ((H, W), None, 0),
    ((1, H, W), None, 1),
    ((H, W, 1), None, 0),
    ((1, 1, H, W), None, 2),
]


@pytest.mark.parametrize(("shape", "labels", "rows"), FORMS)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_forms_become_planes_and_come_back(shape, labels, rows, kind):
    form = Form.of(shape, [(7, 7), (H, W)])
    assert form == Form(len(shape), rows, labels)
    given = np.arange(np.prod(shape)).reshape(shape)
    planes = form.planes(kind(given))
    first = np.moveaxis(given, labels, 0) if labels is not None else given
    np.testing.assert_array_equal(np.asarray(planes), first.reshape(-1, H, W))
    np.testing.assert_array_equal(np.asarray(form.restored(planes)), given)
    assert np.shares_memory(np.asarray(planes), np.asarray(given))
    resized_by = form.restored(planes[:, :2, :3])
    assert form.size(resized_by.shape) == (2, 3)


def test_a_form_of_another_size_has_its_labels_first():
    assert Form.of((5, 1, 30, 40), [(H, W)]) == Form(4, 2, 0)
    assert Form.of((30, 40), [(H, W)]) == Form(2, 0, None)
    for shape in ((), (5,), (2, 5, H, W), (5, 2, H, W, 1)):
        with pytest.raises(ValueError, match=r"expected \(labels, height, width\), or \(height, width\) of a foregr"):
            Form.of(shape, [(H, W)])


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
    np.save(tmp_path / "flat.npy", np.zeros(12))
    np.save(tmp_path / "nothing.npy", np.zeros((3, 0, 4)))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array([[["a"]]]))
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.npz").write_bytes(b"no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    reasons = {
        "two.npz": "holds scores, other; --key must say which of them",
        "flat.npy": "expected .labels, height, width.",
        "nothing.npy": "nothing in it",
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


def test_what_an_array_claims_is_looked_at_before_memory_is_asked_for(tmp_path, monkeypatch):
    array = np.zeros((2, 3, 4), np.float32)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=array[0])
    assert unpacked_sizes(tmp_path / "a.npy") == [array.nbytes]
    assert [size - array.nbytes for size in unpacked_sizes(tmp_path / "a.npz")] == [128, 128 - array.nbytes // 2]
    monkeypatch.setattr(predictions, "machine_memory", lambda: 95)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=rf"{name}: .*an array of 0 GB, more than the memory of this machine"):
            read_predictions(tmp_path / name, "a")
    monkeypatch.setattr(predictions, "MOST_ARRAYS", 1)
    with pytest.raises(ValueError, match=r"a\.npz: .*2 files in one"):
        read_predictions(tmp_path / "a.npz", "a")


def test_an_array_that_claims_more_than_there_is(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3, 4), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(2, 3, 4)", b"(2, 3, 9)"))
    with pytest.raises(ValueError, match=r"a\.npy: not a readable array"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("shape", "points", "labels"),
    [
        ((800, 4), 800, 1),
        ((4, 800), 800, 0),
        ((3, 3), 3, 1),  # (points, labels) where both would do
        ((2, 5), 2, 1),
        ((2, 5), 5, 0),
        ((5, 2), 7, 1),  # fits nothing: points are more
        ((800,), 800, None),
        ((800, 1), 800, None),
        ((1, 800), 800, None),
        ((1, 800, 4), 800, 2),
    ],
)
def test_forms_of_points(shape, points, labels):
    form, values = Form.of(shape, [(points,)], 1), np.random.default_rng(0).random(shape)
    assert form.labels == labels
    assert form.size(shape) == ((points,) if points in shape else (max(shape),))
    planes = form.planes(values)
    assert planes.shape == (1 if labels is None else shape[labels], *form.size(shape))
    assert np.array_equal(form.restored(planes), values)


def test_usual_forms():
    for dimensions, shape in ((1, (7, 3)), (2, (3, 5, 7)), (3, (3, 4, 5, 7))):
        size = shape[1:] if dimensions > 1 else shape[:1]
        assert Form.usual(dimensions) == Form.of(shape, [size], dimensions)
    with pytest.raises(ValueError, match=r"expected \(points, labels\), or \(points\) of a foreground alone$"):
        Form.of((2, 3, 4), [], 1)
