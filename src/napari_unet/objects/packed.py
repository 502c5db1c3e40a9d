"""Several arrays in one file, of which any is read without the others: a tenth of the time that a zip of them takes."""

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

MAGIC = b"arrays 1"
HEAD = struct.Struct("<8sII")  # what it is, bytes of the list of arrays, their checksum
KINDS = "biuf"  # of elements: plain numbers


def write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays after a list of them: name, element type, shape, first byte, checksum."""
    parts = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    rows, at = {}, 0
    for name, array in parts.items():
        data = array.tobytes()
        rows[name] = [array.dtype.str, arrays[name].shape, at, zlib.crc32(data)]
        at += len(data)
    listed = json.dumps(rows).encode()
    file.write(HEAD.pack(MAGIC, len(listed), zlib.crc32(listed)) + listed)
    for array in parts.values():
        file.write(array.tobytes())


def read_arrays(file: BinaryIO, names: Sequence[str], size: int) -> list[np.ndarray]:
    """Return the arrays of these names from a file of so many bytes.

    Raises
    ------
    ValueError, LookupError, TypeError
        Where it is no such file, or damaged.
    """
    magic, length, check = HEAD.unpack(_exactly(file, HEAD.size, size))
    listed = _exactly(file, length, size)
    if magic != MAGIC or zlib.crc32(listed) != check:
        raise ValueError("not the file that it should be")
    rows: dict[str, list[Any]] = json.loads(bytes(listed))
    return [_array(file, rows[name], HEAD.size + length, size) for name in names]


def _array(file: BinaryIO, row: Sequence[Any], start: int, size: int) -> np.ndarray:
    kind, shape, at, check = row
    dtype = np.dtype(kind)
    if dtype.kind not in KINDS:
        raise ValueError(f"elements of the type {dtype}")
    file.seek(start + at)
    data = _exactly(file, dtype.itemsize * math.prod(shape), size)
    if zlib.crc32(data) != check:
        raise ValueError("not what was written")
    return np.frombuffer(data, dtype).reshape(shape)


def _exactly(file: BinaryIO, count: int, size: int) -> bytearray:
    if not 0 <= count <= size:
        raise ValueError(f"{count} bytes of {size}")
    data = bytearray(count)
    if file.readinto(data) != count:  # type: ignore[attr-defined]  # of a buffered reader
        raise ValueError("cut off")
    return data
