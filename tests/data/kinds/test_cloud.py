"""Clouds go out as they came in, but for their classes; what cannot be read is one line with the file's name."""

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.street import ORIGIN, street
from crfrnn.data.kinds import Cloud
from crfrnn.data.kinds.points import Points, fitting_dtype, whole
from crfrnn.data.labels import LabelStyle
from tests.support.clouds import write_las, write_npz, write_ply

WRITERS = {".las": write_las, ".laz": write_las, ".npz": write_npz, ".ply": write_ply}


def made(path: Path, points: int = 50) -> Path:
    """A cloud in a file of this name, with classes 2, 6, 17 in turn."""
    WRITERS[path.suffix](path, street(points), np.array([2, 6, 17])[np.arange(points) % 3])
    return path


def opened(path: Path) -> Points:
    return Cloud.open([path]).content


def write(path: Path, points: Points, classes: np.ndarray) -> None:
    values, indices = np.unique(classes, return_inverse=True)
    Cloud(points).write_labels(path, indices, LabelStyle(tuple(values.tolist())))


@pytest.mark.parametrize("suffix", Cloud.suffixes)
class TestEveryFormat:
    def test_positions_lose_nothing(self, suffix, tmp_path):
        cloud = opened(made(tmp_path / f"a{suffix}"))
        step = 0.001 if suffix[1:3] == "la" else 0.0  # LAS counts in steps
        assert np.abs(cloud.positions - street(50).positions).max() <= step / 2 + 1e-9
        assert cloud.positions[:, 1].min() > ORIGIN[1] - 20

    def test_usual_attributes(self, suffix, tmp_path):
        cloud = opened(made(tmp_path / f"a{suffix}"))
        names, columns = cloud.attributes(None)
        assert names == ["intensity"]
        assert np.array_equal(columns, street(50).intensity[:, None])
        none, empty = cloud.attributes([])
        assert (none, empty.shape) == ([], (50, 0))
        with pytest.raises(ValueError, match=rf"^attributes: .*a\{suffix} has no 'nir'; it has .*intensity"):
            cloud.attributes(["nir"])

    def test_classes_are_written_and_all_else_is_kept(self, suffix, tmp_path):
        cloud = opened(made(tmp_path / f"a{suffix}"))
        others = {name: np.array(values) for name, values in cloud.values.items() if name != cloud.label_name}
        write(tmp_path / f"b{suffix}", cloud, np.arange(50) % 4 + 1)
        again = opened(tmp_path / f"b{suffix}")
        assert np.array_equal(again.positions, cloud.positions)
        assert np.array_equal(again.values[str(again.label_name)], np.arange(50) % 4 + 1)
        assert {*again.values} == {*others, again.label_name}
        for name, values in others.items():
            assert again.values[name].dtype == values.dtype, name
            assert np.array_equal(again.values[name], values), name

    def test_label_map(self, suffix, tmp_path):
        coarse = Cloud.read_labels(made(tmp_path / f"a{suffix}"), 6)
        assert coarse.style.values == (2, 17)
        assert np.array_equal(coarse.indices, np.array([0, -1, 1])[np.arange(50) % 3])

    def test_no_points(self, suffix, tmp_path):
        WRITERS[suffix](tmp_path / f"a{suffix}", *_nothing())
        with pytest.raises(ValueError, match=rf"a\{suffix}: there are no points in it$"):
            opened(tmp_path / f"a{suffix}")

    def test_broken_files(self, suffix, tmp_path):
        whole = made(tmp_path / f"a{suffix}", 2000).read_bytes()
        rng = np.random.default_rng(0)
        for content in (b"", b"ply", b"LASF", whole[:100], whole[: len(whole) // 2], rng.bytes(5000)):
            path = tmp_path / f"broken{suffix}"
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"^[^\n]*broken\{suffix}: [^\n]+$"):
                opened(path)

    def test_absent(self, suffix, tmp_path):
        with pytest.raises(ValueError, match=r"there is no such file$"):
            opened(tmp_path / f"absent{suffix}")


def _nothing() -> tuple[Any, np.ndarray]:
    scene = street(3)
    return type(scene)(*(array[:0] for array in scene)), np.zeros(0, np.int64)


class TestLas:
    def test_header_and_records_are_kept(self, tmp_path):
        laspy = pytest.importorskip("laspy")
        path = made(tmp_path / "a.laz")
        cloud = opened(path)
        write(tmp_path / "b.las", cloud, np.full(50, 5))
        before, after = laspy.read(path), laspy.read(tmp_path / "b.las")
        assert np.array_equal(before.header.scales, after.header.scales)
        assert np.array_equal(before.header.offsets, after.header.offsets)
        assert np.array_equal(before.X, after.X)
        assert before.point_format == after.point_format
        assert before.header.system_identifier == after.header.system_identifier == "a street by rule"
        (wkt,), (kept,) = (file.vlrs.get("WktCoordinateSystemVlr") for file in (before, after))
        assert wkt.string == kept.string == 'PROJCS["UTM 32N"]'
        assert (path.read_bytes()[104] & 0x80, (tmp_path / "b.las").read_bytes()[104] & 0x80) == (0x80, 0)  # compressed

    def test_without_laspy(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "laspy", None)
        with pytest.raises(ValueError, match=r"a\.laz: needs laspy; pip install 'crfrnn\[points\]'$"):
            opened(tmp_path / "a.laz")

    def test_cut_off_between_two_points(self, tmp_path):
        """laspy reads what is left, and raises nothing."""
        laspy = pytest.importorskip("laspy")
        path = made(tmp_path / "a.las")
        start, size = laspy.read(path).header.offset_to_point_data, laspy.read(path).point_format.size
        path.write_bytes(path.read_bytes()[: start + 20 * size])
        assert len(laspy.read(path).points) == 20
        with pytest.raises(
            ValueError, match=r"a\.las: not a readable cloud of points \(it is cut off: 20 of 50 points"
        ):
            opened(path)

    def test_an_octree_is_left_out(self, tmp_path):
        """It says where points were in another file, and readers believe it."""
        laspy = pytest.importorskip("laspy")
        las = laspy.read(made(tmp_path / "a.laz"))
        las.vlrs.append(laspy.VLR("copc", 1, "COPC info VLR", bytes(160)))
        las.write(tmp_path / "a.copc.laz")
        cloud = opened(tmp_path / "a.copc.laz")
        write(tmp_path / "b.laz", cloud, np.full(50, 5))
        assert "copc" not in [record.user_id for record in laspy.read(tmp_path / "b.laz").vlrs]

    def test_classes_that_it_cannot_hold(self, tmp_path):
        laspy = pytest.importorskip("laspy")
        las = laspy.create(point_format=3, file_version="1.2")
        las.x, las.y, las.z = street(50).positions.T
        las.write(tmp_path / "old.las")
        cloud = opened(tmp_path / "old.las")
        for classes, wrong in ((32, 32), (-1, -1)):
            with pytest.raises(ValueError, match=rf"b\.las: point format 3 holds classes 0\.\.31, and not {wrong}$"):
                write(tmp_path / "b.las", cloud, np.full(50, classes))
        assert not (tmp_path / "b.las").exists()


class TestPly:
    HEADER = """ply
format {} 1.0
comment written by a scanner
element vertex 2
property double x
property double y
property double z
property uchar red
{}element face 1
property list uchar int vertex_indices
end_header
"""

    def test_text(self, tmp_path):
        path = tmp_path / "a.ply"
        header = self.HEADER.format("ascii", "")
        path.write_text(f"{header}412345.123456789 1 2 7\n-3.50 1e-3 2 255\n3 0 1 1\n")
        cloud = opened(path)
        assert cloud.positions.tolist() == [[412345.123456789, 1, 2], [-3.5, 1e-3, 2]]
        write(tmp_path / "b.ply", cloud, np.array([3, 300]))
        labelled = self.HEADER.format("ascii", "property ushort label\n")
        assert (tmp_path / "b.ply").read_text() == (
            f"{labelled}412345.123456789 1 2 7 3\n-3.50 1e-3 2 255 300\n3 0 1 1\n"
        )

    @pytest.mark.parametrize("order", ["little", "big"])
    def test_binary(self, order, tmp_path):
        path, sign = tmp_path / "a.ply", "<" if order == "little" else ">"
        header = self.HEADER.format(f"binary_{order}_endian", "property float scalar_Label\n")
        rows = [(412345.125, 1.0, 2.0, 7, 1.0), (0.0, 1.0, 2.0, 8, 4.0)]
        face = struct.pack(f"{sign}B3i", 3, 0, 1, 1)
        path.write_bytes(header.encode() + b"".join(struct.pack(f"{sign}dddBf", *row) for row in rows) + face)
        cloud = opened(path)
        assert cloud.label_name == "scalar_Label"
        assert cloud.values["red"].tolist() == [7, 8]
        write(tmp_path / "b.ply", cloud, np.array([9, 1]))
        changed = [(*row[:4], label) for row, label in zip(rows, (9.0, 1.0), strict=True)]
        expected = header.encode() + b"".join(struct.pack(f"{sign}dddBf", *row) for row in changed) + face
        assert (tmp_path / "b.ply").read_bytes() == expected

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("format ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y", "have x, y, and not x, y and z"),
            ("format ascii 1.0\nelement vertex 1\nproperty list uchar int x", r"have a list \(x\)"),
            ("format utf8 1.0\nelement vertex 1\nproperty float x", "its format is 'utf8'"),
            ("format ascii 1.0\nelement face 1\nelement vertex 1\nproperty float x", "faces come before"),
        ],
    )
    def test_refusals(self, header, message, tmp_path):
        path = tmp_path / "a.ply"
        path.write_text(f"ply\n{header}\nend_header\n1 2\n")
        with pytest.raises(ValueError, match=rf"^.*a\.ply: not a readable cloud of points \(.*{message}"):
            opened(path)


class TestNpz:
    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"p": np.zeros((3, 3))}, "it holds p, and none of positions, points, xyz"),
            ({"xyz": np.zeros((3, 4))}, r"xyz: float64 of shape \(3, 4\), expected numbers \(points, 3\)"),
            ({"xyz": np.array(["a"])}, "xyz: <U1 of shape"),
        ],
    )
    def test_refusals(self, arrays, message, tmp_path):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=rf"a\.npz: not a readable cloud of points \({message}"):
            opened(tmp_path / "a.npz")

    def test_a_point_that_is_nowhere(self, tmp_path):
        np.savez(tmp_path / "a.npz", xyz=np.array([[0, 0, np.nan], [1, 2, 3]]))
        with pytest.raises(ValueError, match=r"a\.npz: 1 of 2 points are nowhere"):
            opened(tmp_path / "a.npz")

    def test_arrays_of_another_length_are_kept(self, tmp_path):
        np.savez(tmp_path / "a.npz", xyz=np.ones((2, 3)), names=np.array(["ground", "wall", "pole"]), pose=np.eye(4))
        cloud = opened(tmp_path / "a.npz")
        assert not cloud.values
        write(tmp_path / "b.npz", cloud, np.array([1, 2]))
        with np.load(tmp_path / "b.npz") as again:
            assert {*again.files} == {"xyz", "names", "pose", "labels"}
            assert again["labels"].dtype == np.uint8


def test_classes_that_are_none(tmp_path):
    for classes in (np.array([0.5, 1]), np.array([np.nan, 1]), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="labels must be one whole number for each point"):
            whole(tmp_path, classes)
    np.save(tmp_path / "a.npy", np.zeros(4))
    with pytest.raises(ValueError, match=r"a\.npy: every pixel is unsure"):
        Cloud.read_labels(tmp_path / "a.npy", 0)
    np.save(tmp_path / "a.npy", np.arange(300))
    with pytest.raises(ValueError, match=r"a\.npy: 300 different values"):
        Cloud.read_labels(tmp_path / "a.npy")
    with pytest.raises(ValueError, match=r"^unsure: .*a\.npy holds numbers"):
        Cloud.read_labels(tmp_path / "a.npy", (0, 0, 0))


def test_dtypes_of_classes():
    assert fitting_dtype(np.array([0, 200]), np.dtype("float32")) == np.float32
    assert fitting_dtype(np.array([0, 300]), np.dtype("uint8")) == np.uint16
    assert fitting_dtype(np.array([-1, 3]), None) == np.int8
