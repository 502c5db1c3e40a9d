"""Zarr arrays opened lazily, behind a store that looks at each chunk before it is decompressed."""

import bz2
import errno
import lzma
import math
import stat
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numcodecs
import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, StorePath, WrapperStore, ZipStore

from ..arrays.cached import ChunkCache
from ..arrays.stack import Stack
from ..arrays.views import Box, Cast, View
from ..errors import DataError
from . import remote, zips
from .zarrmeta import INDEX_ENTRY, PACKED, ROOM, ArrayInfo, Node, array_info, is_remote, read_node

# Files that describe arrays and groups in both versions of zarr.
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
SLACK = 1024  # bytes that a codec may add to a chunk: checksums and headers
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_BLOCKS = 2**16  # of 128 KiB, so that a chunk of 2 GiB has a quarter of them
PIECE = 2**14  # bytes unpacked at once: what follows a stream in one is copied for each stream that ends there
UNPACKERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}
EMPTY = 2**64 - 1  # the place of an inner chunk that was never written, by the sharding codec of zarr 3
AT_ONCE = "async.concurrency"  # of zarr: requests that are under way at the same time
ZARRS_OWN = 10  # its own number, for disks; who has set another one means it


def open_array(node: Node) -> "zarr.Array[Any]":
    """Open the array of `node` for reading, after its metadata was checked. No chunk is touched.

    Raises
    ------
    UnsafeError, DataError
        As `array_info` does, and where zarr itself refuses it.
    """
    info = array_info(node)
    try:
        inside = zips.split(node.where) if not is_remote(node.where) else None
        packed, path = (None, "") if inside is None else (inside[0], inside[0].name(inside[1]))
        store = _bare(node.where) if packed is None else ZipStore(packed.path.absolute(), mode="r", read_only=True)
        guarded = Guarded(store, node.where, info, packed)
        if guarded.folder is not None:
            return _opened(guarded, node)
        return zarr.open_array(store=guarded, path=path, mode="r", zarr_format=2 if node.format == 2 else 3)
    except (ValueError, TypeError, KeyError, ImportError, OSError, ArithmeticError) as error:
        raise DataError(
            f"{node.where}: zarr cannot open this array: {type(error).__name__} {error}; copy it again"
        ) from error


def open_own(folder: Path, mode: str = "r") -> "zarr.Array[Any]":
    """Open an array of a result, behind the checks of metadata and chunks that any other has.

    It may come from elsewhere: a filter that runs code, a pipe or what unpacks without end may lie in it too.

    Raises
    ------
    UnsafeError, DataError
        As `array_info` does.
    FileNotFoundError
        Where there is no array.
    """
    node = read_node(str(folder))
    if node is None:
        raise FileNotFoundError(errno.ENOENT, "there is no zarr array", str(folder))
    return _opened(Guarded(LocalStore(folder.absolute(), read_only=mode == "r"), str(folder), array_info(node)), node)


def _bare(where: str) -> Store:
    if is_remote(where):
        if zarr.config.get(AT_ONCE, None) == ZARRS_OWN:
            zarr.config.set({AT_ONCE: remote.REQUESTS})
        files, path = remote.file_system(where, asynchronous=True)
        return FsspecStore(files, read_only=True, path=path)
    return LocalStore(Path(where).absolute(), read_only=True)  # workers have folders of their own


class Guarded(WrapperStore[Store]):
    """A store that refuses a chunk which would decompress to more than a chunk holds.

    Each way of reading that a release of zarr has is here: one that is missing would pass by the look.

    Parameters
    ----------
    store : Store
        The folder of one array.
    where : str
        Its address, for messages.
    packed : Archive, optional
        The zip archive in which it lies.
    """

    def __init__(self, store: Store, where: str, info: ArrayInfo, packed: zips.Archive | None = None) -> None:
        super().__init__(store)
        self.inner: Any = store
        self.where = where
        self.info = info
        self.packed = packed

    @property
    def folder(self) -> Path | None:
        """Its folder on this machine's disks; None where it lies elsewhere."""
        return None if self.packed is not None or is_remote(self.where) else Path(self.where)

    def _with_store(self, store: Store) -> "Guarded":
        return type(self)(store, self.where, self.info, self.packed)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a chunk, or a part of a shard, and look at the size that it announces."""
        self._check_file(key, [byte_range])
        buffer = await self._arrived(lambda: self.inner.get(key, prototype, byte_range))
        return self._looked_at(key, buffer, byte_range)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Do the same without an event loop, as zarr from 3.2 may."""
        self._check_file(key, [byte_range])
        return self._looked_at(key, self.inner.get_sync(key, prototype=prototype, byte_range=byte_range), byte_range)

    async def get_ranges(self, key: str, byte_ranges: Sequence[Any], **options: Any) -> AsyncIterator[Any]:
        """Read several parts of a shard and look at each, however many of them zarr (from 3.2) reads at once."""
        self._check_file(key, byte_ranges)
        given = {name: value for name, value in options.items() if value is not None}

        async def groups() -> list[Any]:
            return [group async for group in self.inner.get_ranges(key, byte_ranges, **given)]

        for group in await self._arrived(groups):
            yield [(i, self._looked_at(key, buffer, byte_ranges[i])) for i, buffer in group]

    def get_ranges_sync(self, key: str, byte_ranges: Sequence[Any], **options: Any) -> list[Any]:
        """Do the same without an event loop."""
        self._check_file(key, byte_ranges)
        found = self.inner.get_ranges_sync(key, byte_ranges, **options)
        return [(i, self._looked_at(key, buffer, byte_ranges[i])) for i, buffer in found]

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of several files and look at each."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _arrived(self, read: Callable[[], Awaitable[Any]]) -> Any:
        if not is_remote(self.where):
            return await read()
        return await remote.arrive(self.where, read, lambda: self.inner.get(METADATA[0], default_buffer_prototype()))

    def _check_file(self, key: str, byte_ranges: Sequence[ByteRequest | None]) -> None:
        """Refuse what is not a plain file, or more than a chunk can be packed to, before any of it is read."""
        there = self._size(key)
        if there is None:
            return
        whole = remote.MAX_METADATA if key.rpartition("/")[2] in METADATA else self.info.most_bytes
        part = PACKED * self.info.chunk_bytes + ROOM
        for wanted in byte_ranges:
            size = there
            if isinstance(wanted, RangeByteRequest):
                size = wanted.end - wanted.start  # as a damaged index has it: room is made for all of it
            if isinstance(wanted, SuffixByteRequest):
                size = min(size, wanted.suffix)
            if size > (whole if wanted is None else max(part, self.info.index_bytes)):
                raise DataError(
                    f"{self.where}: {key} has {size} bytes to read, a chunk holds {self.info.chunk_bytes}; "
                    "it is damaged or forged"
                )

    def _size(self, key: str) -> int | None:
        """Return the bytes of a file; None where it is absent, which reads as the fill value, or not known."""
        if self.packed is not None:
            return self.packed.size(key)
        if self.folder is None:
            return None
        try:
            found = Path(self.folder, key).stat()
        except (OSError, ValueError):
            return None  # the store says it
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise DataError(f"{self.where}: {key} is not a plain file but a pipe or a device; it is not read")
        return found.st_size

    def _looked_at(self, key: str, buffer: Buffer | None, byte_range: ByteRequest | None) -> Buffer | None:
        if buffer is None or key.rpartition("/")[2] in METADATA or self.info.compressor is None:
            return buffer
        raw = buffer.as_numpy_array().view("u1").data
        whole_shard = self.info.shards is not None and byte_range is None
        for piece in _inner(raw, self.info) if whole_shard else [raw]:
            if self.info.compressor == "blosc" and int.from_bytes(piece[12:16], "little") > len(piece):
                raise DataError(f"{self.where}: chunk {key} is cut off after {len(piece)} bytes; copy it again")
            size = decoded_size(self.info.compressor, piece, self.info.chunk_bytes)
            if size > self.info.chunk_bytes + SLACK:
                raise DataError(
                    f"{self.where}: chunk {key} unpacks to {size} bytes or more, a chunk holds "
                    f"{self.info.chunk_bytes}; it is damaged or forged"
                )
        return buffer


def _opened(store: Guarded, node: Node) -> "zarr.Array[Any]":
    """Open an array on a disk by the metadata that were read and checked, which zarr would read once more."""
    metadata = {**node.metadata, "attributes": dict(node.attributes)}
    return zarr.Array(zarr.AsyncArray.from_dict(StorePath(store), metadata))


def _inner(raw: memoryview, info: ArrayInfo) -> Iterator[memoryview]:
    """Yield the packed chunks inside a whole shard, by its index; nothing where the index does not fit."""
    count = math.prod(s // c for s, c in zip(info.shards or (), info.chunks, strict=True))
    size = count * INDEX_ENTRY
    for trailer in (4, 0):
        start = len(raw) - size - trailer if info.index_at_end else 0
        index = bytes(raw[start : start + size]) if start >= 0 else b""
        words = [int.from_bytes(index[i : i + 8], "little") for i in range(0, size, INDEX_ENTRY // 2)]
        used = [(at, n) for at, n in zip(words[::2], words[1::2], strict=True) if at != EMPTY]
        if all(at + n <= len(raw) for at, n in used):
            yield from (raw[at : at + n] for at, n in used)
            return


def decoded_size(compressor: str, raw: bytes | memoryview, limit: int) -> int:
    """Return the size that packed bytes announce, or, for formats that announce none, at most a little over `limit`.

    0 where it cannot be known: damaged bytes are left to the decoder.
    """
    if compressor == "blosc":
        return int.from_bytes(raw[4:8], "little")
    if compressor == "lz4":
        return int.from_bytes(raw[:4], "little")
    if compressor == "zstd":
        return _zstd_size(raw, limit)
    if compressor == "gzip":
        announced = int.from_bytes(raw[-4:], "little")
        if announced <= limit + SLACK and len(raw) * 1100 <= limit + SLACK:
            return announced
    try:
        return _unpacked_size(UNPACKERS[compressor], raw, limit + SLACK, compressor != "zlib")
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError):
        return 0


def _unpacked_size(new: Callable[[], Any], raw: bytes | memoryview, most: int, several: bool) -> int:
    """Unpack until there is more than `most`: the size; of `several` streams, where the decoder takes them for one."""
    size, unpacker = 0, new()
    for start in range(0, len(raw), PIECE):
        piece = bytes(raw[start : start + PIECE])
        while piece:
            if unpacker.eof:
                if not several:
                    return size
                unpacker = new()
            size += len(unpacker.decompress(piece, most + 1 - size))
            if size > most:
                return size
            piece = unpacker.unused_data if unpacker.eof else b""
    return size


def _zstd_size(raw: bytes | memoryview, limit: int) -> int:
    """Return the content size that the header of a zstd frame gives (RFC 8878, section 3.1.1).

    Where it gives none, or the frame is not all there is, unpack into the room of a chunk.
    """
    if raw[:4] == ZSTD_MAGIC and len(raw) > 4:
        flags = raw[4]
        single, code = bool(flags & 0x20), flags >> 6
        at = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
        length = (1 if single else 0, 2, 4, 8)[code]
        if length and _zstd_end(raw, at + length, bool(flags & 4)) >= len(raw):
            return int.from_bytes(raw[at : at + length], "little") + (256 if code == 1 else 0)
    try:
        return len(numcodecs.Zstd().decode(raw, bytearray(limit + SLACK)))
    except (RuntimeError, ValueError) as error:
        return limit + SLACK + 1 if "too small" in str(error) else 0


def _zstd_end(raw: bytes | memoryview, at: int, has_checksum: bool) -> int:
    """Return where a zstd frame ends whose first block begins at `at`; 0 where it has more blocks than it needs."""
    for _ in range(ZSTD_BLOCKS):
        head = int.from_bytes(raw[at : at + 3], "little")
        at += 3 + (1 if head >> 1 & 3 == 1 else head >> 3)  # a block of one repeated byte holds just that
        if head & 1 or at >= len(raw):
            return at + 4 * has_checksum
    return 0


def base_array(stack: Stack) -> tuple[Any, tuple[slice | int, ...]]:
    """Return what a stack is read from in the end, and which region of it, in its own order of axes."""
    data: Any = stack.data
    index = View.of(data).index
    while isinstance(data, View | Cast | ChunkCache):
        data = data.base
    return data, index


def missing_chunks(stack: Stack) -> int:
    """Count the stored chunks (shards, where there are any) that a stack would read and that are absent.

    An absent chunk reads as the fill value. 0 for sources other than zarr arrays in a local folder.
    """
    data, index = base_array(stack)
    folder = _folder_of(data)
    if folder is None:
        return 0
    chunks = data.shards or data.chunks
    if 0 in chunks:
        return 0
    grid = [_chunk_range(part, size) for part, size in zip(index, chunks, strict=True)]
    present = sum(
        all(low <= i < high for i, (low, high) in zip(at, grid, strict=True)) for at in _stored(folder, len(chunks))
    )
    return math.prod(high - low for low, high in grid) - present


def _folder_of(data: Any) -> Path | None:
    """Return the folder of a zarr array; None where it is none, or lies elsewhere than on this machine's disks."""
    return data.store.folder if isinstance(data, zarr.Array) and isinstance(data.store, Guarded) else None


def stored_boxes(stack: Stack) -> Iterator[Box] | None:
    """Yield the region of each stored chunk (shard, where there are any) of a stack, in its own indices.

    None for sources other than zarr arrays in a local folder, where that is not known.
    """
    data, index = base_array(stack)
    folder = _folder_of(data)
    if folder is None:
        return None
    chunks = data.shards or data.chunks
    if 0 in chunks:
        return None
    return _boxes_of(folder, chunks, index, View.of(stack.data).order)


def _boxes_of(
    folder: Path, chunks: tuple[int, ...], index: tuple[slice | int, ...], order: tuple[int, ...]
) -> Iterator[Box]:
    """Yield the stored chunks of a folder as regions of a view of its array."""
    parts = [part if isinstance(part, slice) else slice(part, part + 1) for part in index]
    for at in _stored(folder, len(chunks)):
        box = [
            slice(max(i * c, p.start) - p.start, min(i * c + c, p.stop) - p.start)
            for i, c, p in zip(at, chunks, parts, strict=True)
        ]
        if all(b.start < b.stop for b in box):
            yield tuple(box[axis] for axis in order)


def _chunk_range(part: slice | int, size: int) -> tuple[int, int]:
    low, high = (part.start, part.stop) if isinstance(part, slice) else (part, part + 1)
    return low // size, max(-(-high // size), low // size)


def _stored(folder: Path, ndim: int) -> Iterator[tuple[int, ...]]:
    """Yield the grid position of each chunk file of an array: ``c/0/1``, ``0/1``, ``0.1``, ``c.0.1``."""
    for path in folder.rglob("*"):
        parts = "/".join(path.relative_to(folder).parts).replace(".", "/").split("/")
        numbers = parts[1:] if parts[0] == "c" else parts
        if len(numbers) == ndim and all(n.isdecimal() for n in numbers) and path.is_file():
            yield tuple(map(int, numbers))
