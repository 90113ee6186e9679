"""The reader of .caffemodel files, on files written here byte by byte in each form that Caffe has used."""

import struct
from pathlib import Path

import numpy as np
import pytest

from crfrnn.networks import caffemodel
from crfrnn.networks.caffemodel import read_caffemodel
from tests.support.caffe_files import message, number, packed, write_caffemodel

LAYERS = {
    "conv1_1": [np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), np.array([-1.5, 2.25], np.float32)],
    "score-fr": [np.full((4, 1, 1, 1), 0.1, np.float32)],
}


@pytest.mark.parametrize("generation", ["layer", "layers"])
@pytest.mark.parametrize("pack", [True, False])
def test_every_form_gives_the_same_numbers(tmp_path: Path, generation: str, pack: bool):
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, LAYERS, generation=generation, pack=pack)
    found = read_caffemodel(path)
    assert list(found) == list(LAYERS)
    for name, blobs in LAYERS.items():
        assert [blob.dtype for blob in found[name]] == [np.float32] * len(blobs)
        for blob, expected in zip(found[name], blobs, strict=True):
            np.testing.assert_array_equal(blob.ravel(), expected.ravel())
    assert found["conv1_1"][0].shape == (2, 3, 2, 2)
    assert found["conv1_1"][1].shape == ((2,) if generation == "layer" else (1, 1, 1, 2))


def test_fields_that_do_not_matter_are_passed_over(tmp_path: Path):
    """Types, learning rates (a run of floats in front of nothing), layers without blobs, doubles, text of any kind."""
    values = np.array([1.5, -2.0])
    blob = message(8, packed(values, "<f8")) + message(7, number(1, 1) + number(1, 2))  # unpacked dimensions
    layer = message(1, b"fc") + message(2, b"InnerProduct") + message(7, blob) + number(10, 1)
    rates = b"".join(bytes([7 << 3 | 5]) + struct.pack("<f", rate) for rate in (1, 2))
    old = message(4, "\u00e9tage".encode()) + message(6, blob) + rates + number(5, 4)
    fixed64 = bytes([9 << 3 | 1]) + struct.pack("<d", 3.0)
    relu = message(1, b"relu") + message(2, b"ReLU")
    path = tmp_path / "net.caffemodel"
    path.write_bytes(message(1, b"net") + fixed64 + message(100, layer) + message(2, old) + message(100, relu))
    found = read_caffemodel(path)
    assert list(found) == ["fc", "\u00e9tage"]
    for blobs in found.values():
        np.testing.assert_array_equal(blobs[0], [[1.5, -2.0]])


def test_long_runs_of_unpacked_floats(tmp_path: Path):
    """More numbers than are looked at in one go, with another field right behind them."""
    values = np.random.default_rng(0).standard_normal(70_001).astype(np.float32)
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, {"fc": [values, values[:3]]}, generation="layers", pack=False)
    found = read_caffemodel(path)
    np.testing.assert_array_equal(found["fc"][0].ravel(), values)
    np.testing.assert_array_equal(found["fc"][1].ravel(), values[:3])


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95, 0.999])
def test_a_file_that_is_cut_off(tmp_path: Path, kept: float, pack: bool):
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, {"conv1_1": [np.ones((64, 3, 3, 3), np.float32)]}, pack=pack)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"net\.caffemodel: is not readable as a caffemodel .*; is it complete\?$"):
        read_caffemodel(path)


@pytest.mark.parametrize(
    ("content", "message_of"),
    [
        (b"", "is no caffemodel, or one without learned layers"),
        (message(1, b"a net without layers"), "is no caffemodel, or one without learned layers"),
        (b"\x80" * 20, "a whole number has more than 64 bits"),
        (b"<!DOCTYPE html><html>", "is not readable as a caffemodel"),
        (bytes([3]), "unknown wire type 3"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes, message_of: str):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message_of):
        read_caffemodel(path)


def test_a_blob_whose_shape_and_numbers_differ(tmp_path: Path):
    blob = message(5, packed(np.zeros(5), "<f4")) + message(7, message(1, bytes([2, 3])))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(message(100, message(1, b"fc") + message(7, blob)))
    with pytest.raises(ValueError, match=r"a blob of shape \(2, 3\) holds 5 numbers"):
        read_caffemodel(path)


def test_more_fields_than_any_net_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caffemodel, "MOST_FIELDS", 20)
    path = tmp_path / "net.caffemodel"
    blob = message(5, packed(np.zeros(6), "<f4")) + message(7, message(1, bytes([2, 3])))
    layer = message(100, message(1, b"fc") + message(7, blob))
    path.write_bytes(2 * layer)
    assert read_caffemodel(path)["fc"][0].shape == (2, 3)
    path.write_bytes(6 * layer)
    with pytest.raises(ValueError, match="more than 20 fields"):
        read_caffemodel(path)


def test_more_axes_than_any_blob_has(tmp_path: Path):
    path = tmp_path / "net.caffemodel"
    blob = message(5, packed(np.zeros(1), "<f4")) + message(7, message(1, bytes([1] * 1000)))
    path.write_bytes(message(100, message(1, b"fc") + message(7, blob)))
    with pytest.raises(ValueError, match="a blob of 33 axes"):
        read_caffemodel(path)
