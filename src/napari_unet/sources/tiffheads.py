"""The directories of a TIFF, checked before tifffile reads what they declare."""

import struct
from pathlib import Path

from ..errors import DataError

LOOKED_AT = 1000  # directories of a file; the shape of a stack is in its first
MOST_BYTES = 2**27  # of one tag: a description, or the metadata of ImageJ; 128 MiB are read in a second
MOST_PARTS = 2**22  # strips or tiles of a plane: tiles of 256 x 256 pixels make 500,000 x 500,000 of them
PARTS = (273, 279, 324, 325)  # tags with one number for each strip or tile
TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # the others take one
MOST_TAGS = 4096  # of a directory; with more of them tifffile takes it for damaged


def check_directories(path: Path) -> None:
    """Refuse a tag that says it holds more than any image needs, as one in a sparse file of no size can.

    Raises
    ------
    DataError
        Naming the tag and its size.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = 43 in head[2:4]  # BigTIFF, of 64-bit numbers
        word, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
        offset = _number(head[8 if big else 4 :], order + word)
        seen: set[int] = set()
        while 0 < offset < length and offset not in seen and len(seen) < LOOKED_AT:
            seen.add(offset)
            file.seek(offset)
            tags = _number(file.read(struct.calcsize(order + count)), order + count)
            body = file.read(min(tags, MOST_TAGS) * entry)
            for at in range(0, len(body) - entry + 1, entry):
                _check_tag(path, length, *struct.unpack_from(f"{order}HH{word}", body, at))
            offset = _number(file.read(struct.calcsize(order + word)), order + word)


def _number(raw: bytes, form: str) -> int:
    """Return a number at the beginning of some bytes, 0 where they end before it."""
    size = struct.calcsize(form)
    return int(struct.unpack(form, raw[:size])[0]) if len(raw) >= size else 0


def _check_tag(path: Path, length: int, code: int, kind: int, count: int) -> None:
    size = count * TYPE_BYTES.get(kind, 1)
    if size <= length and (size > MOST_BYTES or (code in PARTS and count > MOST_PARTS)):
        raise DataError(f"{path}: its tag {code} says that it holds {count} values; copy it again")
