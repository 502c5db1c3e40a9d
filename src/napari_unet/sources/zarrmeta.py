"""The metadata of a zarr array or group, read as plain JSON and checked before zarr itself opens anything."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, UnsafeError, UsageError
from . import remote, zips

MAX_CHUNK = 2 * 2**30  # 2 GiB: what Blosc can hold, and more than fits beside a network
MAX_INNER_CHUNKS = 2**22  # the index of a shard, 16 bytes each, is read at once: 64 MiB
MAX_SIZE = 2**63  # sizes are 64-bit numbers with a sign in numpy
INDEX_ENTRY = 16  # bytes of a shard's index for each chunk: where it begins, and how long it is
CHECKSUM = 4  # bytes of crc32c behind the index
PACKED, ROOM = 2, 2**20  # no codec packs random bytes to twice their number; headers take their room
SCHEMES = ("http", "https", "s3", "gs")
DTYPES = ("bool", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)), "float16", "float32", "float64")
# Decoded here within the size that the metadata give.
COMPRESSORS = ("gzip", "zlib", "zstd", "blosc", "lz4", "bz2", "lzma")
FILTERS = ("shuffle", "delta", "crc32c", "crc32")  # decoded here within the size that the metadata give
OF_ARRAYS = {"transpose", "delta"}  # of zarr v3: codecs that come before the bytes
# Codecs of objects, which may be Python's own.
RUNS_CODE = ("pickle", "vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2")
# With which numcodecs unpacks pickles all the same; refused while it is set.
OVERRIDE = "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE"


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One zarr group or array: where it is, its own metadata and its attributes."""

    where: str
    format: int
    is_array: bool
    metadata: Mapping[str, Any]
    attributes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayInfo:
    """What matters of an array's metadata: sizes, and how a chunk is packed.

    `chunks` is the unit that is decoded (the inner chunk of a shard), `shards` the file, where they differ.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    compressor: str | None
    index_at_end: bool = True
    dimension_names: tuple[str | None, ...] = ()

    @property
    def chunk_bytes(self) -> int:
        """Size of one decoded chunk."""
        return math.prod(self.chunks) * self.dtype.itemsize

    @property
    def index_bytes(self) -> int:
        """Largest size of a shard's index with its checksum; 0 where there are no shards."""
        inner = math.prod(s // c for s, c in zip(self.shards, self.chunks, strict=True)) if self.shards else 0
        return inner * INDEX_ENTRY + CHECKSUM if inner else 0

    @property
    def most_bytes(self) -> int:
        """Largest size that a file of this array can have: what does not compress grows a little when it is packed."""
        return PACKED * math.prod(self.shards or self.chunks) * self.dtype.itemsize + self.index_bytes + ROOM


def is_remote(where: str) -> bool:
    """Say whether `where` is an address, refusing schemes that are not on the list."""
    scheme, separator, _ = where.partition("://")
    if not separator:
        return False
    if scheme not in SCHEMES or "::" in where:
        kind = "chained with ::" if "::" in where else f"of kind {scheme}://"
        raise UsageError(f"{where}: addresses {kind} are not opened; use one of {', '.join(SCHEMES)}")
    return True


def is_place(where: str) -> bool:
    """Say whether `where` is one at which zarr may lie: an address, a folder, or inside a zip archive."""
    return is_remote(where) or Path(where).is_dir() or zips.split(where) is not None


def below(where: str, path: str) -> str:
    """Return the address of `path` inside the group `where`, refusing paths that leave it.

    Raises
    ------
    UnsafeError
        For absolute paths, ``..``, backslashes and NUL.
    """
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path or ":" in parts[0]:
        raise UnsafeError(f"{where}: its metadata points to {path!r}, outside of the group; refused")
    return f"{where.rstrip('/')}/{path}" if is_remote(where) else str(Path(where, path))


def read_node(where: str) -> Node | None:
    """Read the metadata of the zarr group or array at `where`, None where there is none.

    Raises
    ------
    DataError
        Naming the file that is cut, empty, too large or no JSON.
    """
    v3 = _read_json(where, "zarr.json")
    if v3 is not None:
        return _node3(where, v3)
    for name in (".zarray", ".zgroup"):
        v2 = _read_json(where, name)
        if v2 is not None:
            if v2.get("zarr_format", 2) != 2:
                raise DataError(f"{where}/{name}: zarr_format {v2.get('zarr_format')} is not known; 2 and 3 are read")
            return Node(where, 2, name == ".zarray", v2, _read_json(where, ".zattrs") or {})
    attributes = _read_json(where, ".zattrs")
    return None if attributes is None else Node(where, 2, False, {}, attributes)


def _node3(where: str, metadata: dict[str, Any]) -> Node:
    if metadata.get("zarr_format") != 3:
        raise DataError(
            f"{where}/zarr.json: zarr_format {metadata.get('zarr_format')!r} is not known; 2 and 3 are read"
        )
    kind, attributes = metadata.get("node_type"), metadata.get("attributes", {})
    if kind not in ("array", "group") or not isinstance(attributes, dict):
        raise DataError(
            f"{where}/zarr.json: node_type {kind!r} with these attributes is neither an array nor a group; "
            "save it again"
        )
    return Node(where, 3, kind == "array", metadata, attributes)


def _read_json(where: str, name: str) -> dict[str, Any] | None:
    raw = remote.fetch(f"{where.rstrip('/')}/{name}") if is_remote(where) else _load(Path(where, name))
    if raw is None:
        return None
    if len(raw) > remote.MAX_METADATA:
        raise DataError(f"{where}/{name} is larger than {remote.MAX_METADATA >> 20} MiB; that is not zarr metadata")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}/{name} is damaged ({len(raw)} bytes, not JSON: {error}); copy it again") from None
    if not isinstance(value, dict):
        raise DataError(
            f"{where}/{name} is damaged: it must hold a JSON object, not a {type(value).__name__}; copy it again"
        )
    return value


def _load(path: Path) -> bytes | None:
    inside = zips.split(path)
    if inside is not None:
        packed, place = inside
        return packed.read(packed.name(place), remote.MAX_METADATA + 1)
    try:
        if not path.exists() or path.is_dir():
            return None
        if not path.is_file():
            raise DataError(f"{path} is not a plain file but a pipe or a device; it is not read")
        with path.open("rb") as file:
            return file.read(remote.MAX_METADATA + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}; check that it is there and that you may read it") from None


def array_info(node: Node) -> ArrayInfo:
    """Check an array's metadata against what is allowed.

    Raises
    ------
    UnsafeError
        For a filter that runs code from the data, or where the environment allows such filters.
    DataError
        For a dtype, codec, chunk grid or size that is not read, naming it.
    """
    if os.environ.get(OVERRIDE):
        raise UnsafeError(f"{OVERRIDE} is set, so that data could run code; unset it")
    try:
        info = _info3(node) if node.format == 3 else _info2(node)
    except DataError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise DataError(
            f"{node.where}: array metadata is damaged: {type(error).__name__} {error}; copy it again"
        ) from None
    if (
        not len(info.shape) == len(info.chunks)
        or min((0, *info.shape)) < 0
        or min((1, *info.chunks, *(info.shards or ()))) < 1
    ):
        raise DataError(
            f"{node.where}: shape {info.shape} and chunks {info.chunks} do not fit each other; save it again"
        )
    if info.chunk_bytes > MAX_CHUNK:
        raise DataError(
            f"{node.where}: one chunk {info.chunks} of {info.dtype} is {info.chunk_bytes / 2**30:.3g} GiB, more than "
            f"{MAX_CHUNK >> 30}; store it in smaller chunks"
        )
    if info.shards and math.prod(s // c for s, c in zip(info.shards, info.chunks, strict=True)) > MAX_INNER_CHUNKS:
        raise DataError(
            f"{node.where}: shards {info.shards} of chunks {info.chunks} hold too many chunks to read; "
            "save it with larger chunks"
        )
    return info


def _info2(node: Node) -> ArrayInfo:
    meta = node.metadata
    codecs = [c for c in (*(meta.get("filters") or ()), meta.get("compressor")) if c is not None]
    compressor = _check_codecs([c["id"] for c in codecs], node.where)
    dtype = meta["dtype"]
    if not isinstance(dtype, str):
        raise DataError(f"{node.where}: structured dtype {dtype} cannot be read; only bool, integers and floats are")
    return ArrayInfo(_sizes(meta["shape"]), _dtype(dtype, node.where), _sizes(meta["chunks"]), None, compressor)


def _info3(node: Node) -> ArrayInfo:
    meta = node.metadata
    if meta["data_type"] not in DTYPES:
        raise DataError(f"{node.where}: dtype {meta['data_type']} cannot be read; only bool, integers and floats are")
    grid = meta["chunk_grid"]
    if grid["name"] != "regular" or meta.get("storage_transformers"):
        raise DataError(f"{node.where}: chunk grid {grid['name']!r} (zarr v3) is not read; only regular chunks are")
    chunks, shards, codecs, at_end = _sizes(grid["configuration"]["chunk_shape"]), None, meta["codecs"], True
    sharding = [c for c in codecs if _codec_name(c) == "sharding_indexed"]
    if sharding:
        if len(codecs) != 1:
            raise DataError(
                f"{node.where}: shards packed again by another codec (zarr v3) are not read; save it without that codec"
            )
        inner = sharding[0]["configuration"]
        shards, chunks, codecs = chunks, _sizes(inner["chunk_shape"]), inner["codecs"]
        at_end = inner.get("index_location", "end") == "end"
        if any(s % c for s, c in zip(shards, chunks, strict=True)):
            raise DataError(f"{node.where}: shards {shards} are not multiples of their chunks {chunks}; save it again")
        index = [_codec_name(c) for c in inner.get("index_codecs", ())]
        _check_codecs(index, node.where)
        if index:
            _check_order(index, node.where)
    order = [_codec_name(c) for c in codecs]
    compressor = _check_codecs(order, node.where)
    _check_order(order, node.where)
    names = tuple(n if isinstance(n, str) else None for n in meta.get("dimension_names") or ())
    return ArrayInfo(_sizes(meta["shape"]), np.dtype(meta["data_type"]), chunks, shards, compressor, at_end, names)


def _codec_name(codec: Any) -> str:
    return str(codec["name"] if isinstance(codec, dict) else codec)


def _sizes(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(v) is int and v < MAX_SIZE for v in values):
        raise TypeError(f"sizes {str(values)[:100]} are not integers of 63 bits")
    return tuple(values)


def _dtype(word: str, where: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(word)
    except (TypeError, ValueError, SyntaxError):
        raise DataError(f"{where}: dtype {word!r} is not known; only bool, integers and floats are read") from None
    if dtype.name not in DTYPES:
        raise DataError(f"{where}: dtype {word} cannot be read; only bool, integers and floats are")
    return dtype


def _check_codecs(names: Sequence[str], where: str) -> str | None:
    """Refuse codecs that are not on the list, return the one that compresses."""
    plain = [name.removeprefix("numcodecs.") for name in names]
    unsafe = [name for name in plain if name in RUNS_CODE]
    if unsafe:
        raise UnsafeError(
            f"{where}: its filter {' and '.join(unsafe)} makes objects, or runs code, from the data; refused"
        )
    for name in plain:
        if name not in (*COMPRESSORS, *FILTERS, "bytes", "transpose"):
            raise DataError(f"{where}: codec {name!r} is not read; rewrite it with one of {', '.join(COMPRESSORS)}")
    compressors = [name for name in plain if name in COMPRESSORS]
    if len(compressors) > 1:
        raise DataError(f"{where}: chunks are compressed {len(compressors)} times ({', '.join(compressors)}); not read")
    return compressors[0] if compressors else None


def _check_order(names: Sequence[str], where: str) -> None:
    """Refuse codecs of zarr v3 in an order in which nothing can be unpacked: arrays, their bytes, packed bytes."""
    plain = [name.removeprefix("numcodecs.") for name in names]
    at = plain.index("bytes") if "bytes" in plain else -1
    if at < 0 or not set(plain[:at]) <= OF_ARRAYS or set(plain[at + 1 :]) & {*OF_ARRAYS, "bytes"}:
        raise DataError(f"{where}: its codecs {', '.join(plain)[:200]} do not follow each other (zarr v3); not read")


def children(where: str) -> Iterator[Node]:
    """Yield the zarr nodes directly inside a local group, by name; nothing for addresses."""
    if is_remote(where):
        return
    inside, names = zips.split(where), []
    if inside is not None:
        names = inside[0].folders(inside[1])
    elif Path(where).is_dir():
        names = sorted(entry.name for entry in Path(where).iterdir() if entry.is_dir())
    for name in names:
        if not name.startswith("."):
            node = read_node(str(Path(where, name)))
            if node is not None:
                yield node
