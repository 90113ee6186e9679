"""Writes .caffemodel files, in the form of 2014 (``layers``) and the present one (``layer``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

FIELDS = {"layers": (2, 4, 6), "layer": (100, 1, 7)}  # of a layer in the net, of its name, of its blobs


def write_caffemodel(
    path: Path, layers: Mapping[str, Sequence[np.ndarray]], generation: str = "layer", pack: bool = True
) -> None:
    """A net of these layers and their blobs."""
    in_net, name_field, blobs_field = FIELDS[generation]
    parts = [message(1, b"written by a test")]
    for name, blobs in layers.items():
        content = message(name_field, name.encode())
        content += b"".join(message(blobs_field, _blob(blob, generation, pack)) for blob in blobs)
        parts.append(message(in_net, content))
    path.write_bytes(b"".join(parts))


def _blob(values: np.ndarray, generation: str, pack: bool) -> bytes:
    if generation == "layer":
        shape = message(7, message(1, b"".join(varint(size) for size in values.shape)))
    else:
        sizes = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(number(field, size) for field, size in enumerate(sizes, 1))
    if pack:
        return shape + message(5, packed(values, "<f4"))
    records = np.empty(values.size, [("key", "u1"), ("number", "<f4")])
    records["key"], records["number"] = 5 << 3 | 5, values.ravel()
    return shape + records.tobytes()


def message(field: int, content: bytes) -> bytes:
    """A field of bytes: text, a message, or packed numbers."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    """A field with a whole number."""
    return varint(field << 3) + varint(value)


def packed(values: np.ndarray, kind: str) -> bytes:
    """Numbers side by side."""
    return values.astype(kind).tobytes()


def varint(value: int) -> bytes:
    """A whole number in base 128, lowest digit first."""
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
