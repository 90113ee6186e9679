"""Files of clouds, as other programs write them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.street import ORIGIN, Street


def write_npz(path: Path, scene: Street, classes: np.ndarray) -> None:
    np.savez(path, xyz=scene.positions, intensity=scene.intensity, labels=classes)


def write_ply(path: Path, scene: Street, classes: np.ndarray) -> None:
    """Binary, as CloudCompare names things."""
    fields = [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("intensity", "<u2"), ("scalar_Label", "<f4")]
    rows = np.empty(len(classes), fields)
    for axis, column in zip("xyz", scene.positions.T, strict=True):
        rows[axis] = column
    rows["intensity"], rows["scalar_Label"] = scene.intensity, classes
    names = {"<f8": "double", "<u2": "ushort", "<f4": "float"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(classes)}"]
    lines += [f"property {names[code]} {name}" for name, code in fields] + ["end_header\n"]
    path.write_bytes("\n".join(lines).encode() + rows.tobytes())


def write_las(path: Path, scene: Street, classes: np.ndarray) -> None:
    """Point format 6 in millimetres, with times, a coordinate system and a dimension of its own."""
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=6, version="1.4")
    header.offsets, header.scales, header.system_identifier = ORIGIN, (0.001,) * 3, "a street by rule"
    header.add_extra_dim(laspy.ExtraBytesParams("height", "float32"))
    header.vlrs.append(laspy.VLR("LASF_Projection", 2112, "WKT", b'PROJCS["UTM 32N"]\0'))
    las = laspy.LasData(header)
    las.x, las.y, las.z = scene.positions.T
    las.intensity, las.classification = scene.intensity, classes.astype(np.uint8)
    las.gps_time = np.arange(len(classes)) / 7
    las.height = scene.positions[:, 2] - ORIGIN[2]
    las.write(path)
