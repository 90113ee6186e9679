"""Caffe's .caffemodel files, read without Caffe: the blobs of each layer by its name.

A caffemodel is a protocol buffer, a tree of numbered fields. Of the hundred of Caffe's format only these matter:

    NetParameter    2 layers: V1LayerParameter      100 layer: LayerParameter
    V1LayerParameter    4 name    6 blobs           LayerParameter    1 name    7 blobs
    BlobProto    5 data: floats    8 double_data    7 shape: BlobShape    1 to 4 num, channels, height, width
    BlobShape    1 dim
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
WIDTHS = {FIXED64: 8, FIXED32: 4}
NAME_AND_BLOBS = {2: (4, 6), 100: (1, 7)}  # the field of a layer in the net -> its fields of name and blobs

BLOCK = 1 << 16  # records looked at in one go, at the most; the first time FIRST
FIRST = 16
MOST_FIELDS = 100_000  # of a file, where a run of numbers is one: the largest of Caffe's own have some thousand
MOST_AXES = 32  # as in Caffe

Field = tuple[int, int, int | memoryview]  # number, wire type, value


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """The learned blobs of each layer that has any.

    Args:
        path: the file, in the present form (``layer``) or that of 2014 (``layers``).

    Returns layer name -> its blobs in Caffe's order, weights and then biases, float32, in the shapes of the file
    (files of 2014 say num, channels, height and width: a bias of L values has shape (1, 1, 1, L)).

    Raises ValueError where the file is cut off or is no caffemodel.
    """
    data = memoryview(Path(path).read_bytes())
    layers: dict[str, list[np.ndarray]] = {}
    reader = _Reader()
    try:
        for number, wire, value in reader.fields(data):
            if number in NAME_AND_BLOBS and wire == BYTES and isinstance(value, memoryview):
                name, blobs = _layer(reader, value, *NAME_AND_BLOBS[number])
                if blobs:
                    layers[name] = blobs
    except (IndexError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: is not readable as a caffemodel ({error}); is it complete?") from None
    if not layers:
        raise ValueError(f"{path}: is no caffemodel, or one without learned layers")
    return layers


def _layer(reader: "_Reader", data: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    name, blobs = "", []
    for number, wire, value in reader.fields(data):
        if wire == BYTES and isinstance(value, memoryview):
            if number == name_field:
                name = bytes(value).decode()
            elif number == blobs_field:
                blobs.append(_blob(reader, value))
    return name, blobs


def _blob(reader: "_Reader", data: memoryview) -> np.ndarray:
    parts: list[np.ndarray] = []
    shape: list[int] = []
    sizes = [0, 0, 0, 0]
    for number, wire, value in reader.fields(data):
        if number in (5, 8) and isinstance(value, memoryview):
            kind = "<f4" if number == 5 else "<f8"
            # Packed numbers lie side by side; unpacked ones come as a run, each behind its one-byte key.
            packed = wire == BYTES
            run = np.frombuffer(value, kind if packed else [("key", "u1"), ("number", kind)])
            parts.append(run if packed else run["number"])
        elif number == 7 and isinstance(value, memoryview):
            shape = _dimensions(reader, value)
        elif 1 <= number <= 4 and isinstance(value, int):
            sizes[number - 1] = value
    if len(shape) > MOST_AXES:
        raise ValueError(f"a blob of {len(shape)} axes")
    values = np.concatenate(parts).astype(np.float32, copy=False) if parts else np.zeros(0, np.float32)
    shape = shape or sizes
    if math.prod(shape) != values.size:
        raise ValueError(f"a blob of shape {tuple(shape)} holds {values.size} numbers")
    return values.reshape(shape)


def _dimensions(reader: "_Reader", data: memoryview) -> list[int]:
    dimensions: list[int] = []
    for number, _, value in reader.fields(data):
        if number == 1 and isinstance(value, int):
            dimensions.append(value)
        elif number == 1 and isinstance(value, memoryview):  # packed
            position = 0
            while position < len(value) and len(dimensions) <= MOST_AXES:
                dimension, position = _varint(value, position)
                dimensions.append(dimension)
    return dimensions


class _Reader:
    """Of the fields of messages, up to so many."""

    def __init__(self):
        self.left = MOST_FIELDS

    def fields(self, data: memoryview) -> Iterator[Field]:
        """The fields of one message. A run of equal fixed-size fields comes as one, its keys still in it."""
        position = 0
        while position < len(data):
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"more than {MOST_FIELDS:,} fields")
            start = position
            key, position = _varint(data, position)
            number, wire = key >> 3, key & 7
            if wire == VARINT:
                value, position = _varint(data, position)
                yield number, wire, value
            elif wire == BYTES:
                length, position = _varint(data, position)
                if position + length > len(data):
                    raise ValueError("a field is longer than the file")
                yield number, wire, data[position : position + length]
                position += length
            elif wire in WIDTHS:
                stride = position - start + WIDTHS[wire]
                count = _run_length(data[start:], data[start:position], stride)
                if count == 0:
                    raise ValueError("a number is cut off")
                yield number, wire, data[start : start + count * stride]
                position = start + count * stride
            else:
                raise ValueError(f"unknown wire type {wire}")


def _run_length(data: memoryview, key: memoryview, stride: int) -> int:
    """How many whole records of `stride` bytes at the start of `data` begin with this key."""
    whole, first, block = len(data) // stride, 0, FIRST  # few at first: there may be as many runs as numbers
    while first < whole:
        size = min(block, whole - first) * stride
        records = np.frombuffer(data, np.uint8, size, offset=first * stride).reshape(-1, stride)
        different = np.flatnonzero((records[:, : len(key)] != np.frombuffer(key, np.uint8)).any(axis=1))
        if different.size:
            return first + int(different[0])
        first, block = first + block, min(8 * block, BLOCK)
    return whole


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A whole number in base 128, lowest digit first, and the position behind it."""
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("a whole number has more than 64 bits")
