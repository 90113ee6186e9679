"""Clouds as .ply, text or binary: what else is in the file, faces included, is kept byte by byte.

No library is used: plyfile's licence (GPL) is not ours, and trimesh and meshio lose properties and their types. The
format: a header of lines up to ``end_header``, then each element's rows, one after the other.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crfrnn.data.files import writing
from crfrnn.data.kinds.points import CLOUD, Points, fitting_dtype, label_name
from crfrnn.data.kinds.reading import reading

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4"}
TYPES |= {"double": "f8", "float64": "f8"}
NAMES = {np.dtype(code): name for name, code in reversed(TYPES.items())}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
LONGEST = 1 << 16  # bytes of a header


@dataclass(frozen=True)
class _Ply:
    """A file in parts: header lines up to the vertices' properties, these, the other lines; rows; what comes after."""

    encoding: str
    head: list[str]
    properties: dict[str, str]  # name -> NumPy's code of its type
    rest: list[str]
    rows: np.ndarray  # (N,) with fields; of text (N, properties) of words
    tail: bytes


def read(path: Path) -> Points:
    """The vertices. In text, numbers are read as float64, whatever the header calls them."""
    with reading(path, CLOUD):
        with path.open("rb") as file:
            header = file.read(LONGEST)
            end = header.find(b"end_header")
            if not header.startswith(b"ply") or end < 0 or (stop := header.find(b"\n", end)) < 0:
                raise ValueError("it has no header of a PLY file")
            ply, count = _header(header[:end].decode("latin-1").splitlines())
            file.seek(stop + 1)
            ply = _body(ply, count, file.read())
        names = list(ply.properties)
        if not {"x", "y", "z"} <= set(names):
            raise ValueError(f"its vertices have {', '.join(names) or 'no properties'}, and not x, y and z")
        columns = {name: _column(ply, name) for name in names}
        positions = np.stack([columns.pop(axis) for axis in "xyz"], axis=1)
        return Points(path, positions, columns, label_name(list(columns)), ply)


def write(path: Path, points: Points, classes: np.ndarray) -> None:
    """The same file with these classes, in place of the former or as a property ``label`` behind the others."""
    ply: _Ply = points.content
    name = points.label_name or "label"
    dtype = fitting_dtype(classes, np.dtype(ply.properties[name]) if points.label_name else None)
    if dtype not in NAMES:
        raise ValueError(f"{path}: a PLY file holds classes of 32 bits, and not {classes.max()}")
    properties = ply.properties | {name: dtype.str[1:]}
    if ply.encoding == "ascii":
        words = [ply.rows[:, number] for number in range(ply.rows.shape[1])]
        place = list(properties).index(name)
        words[place : place + 1] = [classes.astype(dtype).astype(str)]
        body = "".join(f"{' '.join(row)}\n" for row in zip(*words, strict=True)).encode()
    else:
        rows = np.empty(len(classes), _fields(ply.encoding, properties))
        for field in properties:
            rows[field] = classes if field == name else ply.rows[field]
        body = rows.tobytes()
    lines = [f"property {NAMES[np.dtype(code)]} {field}" for field, code in properties.items()]
    header = "\n".join([*ply.head, *lines, *ply.rest, "end_header\n"]).encode("latin-1")
    with writing(path) as file:
        file.write(header + body + ply.tail)


def _header(lines: list[str]) -> tuple[_Ply, int]:
    """The parts of a header, and how many vertices there are."""
    encoding, head, properties, rest, count, element = "", [], {}, [], 0, ""
    for line in lines:
        words = line.split()
        if words[:1] == ["format"]:
            encoding = words[1]
        if words[:1] == ["element"]:
            if element != "vertex" and words[1] != "vertex" and not properties and int(words[2]):
                raise ValueError(f"its {words[1]}s come before the vertices")
            element = words[1]
            count = int(words[2]) if element == "vertex" else count
        if words[:1] == ["property"] and element == "vertex":
            if words[1] not in TYPES:
                raise ValueError(f"its vertices have a {words[1]} ({words[-1]}), and should have numbers alone")
            properties[words[2]] = TYPES[words[1]]
        else:
            (rest if properties else head).append(line)
    if encoding not in ORDERS:
        raise ValueError(f"its format is {encoding!r}, and none of {', '.join(ORDERS)}")
    return _Ply(encoding, head, properties, rest, np.empty(0), b""), count


def _body(ply: _Ply, count: int, body: bytes) -> _Ply:
    """With the rows of the vertices, and what follows them."""
    if ply.encoding == "ascii":
        lines = body.decode("latin-1").splitlines()
        words = np.array([line.split() for line in lines[:count]])
        if words.shape != (count, len(ply.properties)) and count:
            raise ValueError(f"it is cut off, or not every one of {count} vertices has {len(ply.properties)} numbers")
        words = words.reshape(count, len(ply.properties))
        tail = "".join(f"{line}\n" for line in lines[count:])
        return replace(ply, rows=words, tail=tail.encode("latin-1"))
    fields = _fields(ply.encoding, ply.properties)
    if len(body) < count * fields.itemsize:
        raise ValueError(f"it is cut off: {len(body) // max(1, fields.itemsize)} of {count} vertices")
    return replace(ply, rows=np.frombuffer(body, fields, count), tail=body[count * fields.itemsize :])


def _fields(encoding: str, properties: dict[str, str]) -> np.dtype:
    return np.dtype([(name, ORDERS[encoding] + code) for name, code in properties.items()])


def _column(ply: _Ply, name: str) -> np.ndarray:
    if ply.encoding == "ascii":
        return ply.rows[:, list(ply.properties).index(name)].astype(np.float64)
    return ply.rows[name].astype(np.dtype(ply.properties[name]))
