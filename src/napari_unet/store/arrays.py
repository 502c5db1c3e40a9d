"""Arrays of a result, made as zarr makes them, but without a round through its event loop, which takes a ms each."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore, MemoryStore, StorePath

from ..faults import persist
from .chunks import put_file

ZSTD_LEVEL = 1  # of images five times as fast as 3 at a tenth more, of labels as small
# All readers of zarr v2 know zlib, which has a checksum of its own; zstd with a checksum is refused by TensorStore and
# by numcodecs before 0.13. Level 1 writes 90 MB/s of images and 500 of labels, faster than any network.
ZLIB: Mapping[str, Any] = {"id": "zlib", "level": 1}
NEWEST = 3  # version of zarr of what this program writes on its own
SHAPES = 64  # kinds of arrays whose metadata are kept, some kB each: those of a batch are few
Sizes = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """What the metadata of an array say."""

    shape: Sizes
    chunks: Sizes
    shards: Sizes | None
    dtype: np.dtype[Any]
    axes: str
    zarr_format: int


def new_array(folder: Path, layout: Layout) -> "zarr.Array[Any]":
    """Make an array in a folder that holds none; the file is what zarr itself would write."""
    metadata, files = _template(layout)
    for name, data in files.items():
        persist(functools.partial(put_file, folder / name, data))
    place = StorePath(LocalStore(folder))
    return zarr.Array(zarr.AsyncArray(metadata, place, config={"write_empty_chunks": False}))


@functools.lru_cache(SHAPES)
def _template(layout: Layout) -> tuple[Any, Mapping[str, bytes]]:
    """Let zarr make the array in memory: its metadata, and the files that it wrote."""
    files: dict[str, Any] = {}
    common: dict[str, Any] = {"shape": layout.shape, "chunks": layout.chunks, "dtype": layout.dtype, "fill_value": 0}
    common |= {"store": MemoryStore(files), "zarr_format": layout.zarr_format}
    if layout.zarr_format == NEWEST:
        packing, names = ZstdCodec(level=ZSTD_LEVEL, checksum=True), list(layout.axes)
        array = zarr.create_array(compressors=packing, dimension_names=names, shards=layout.shards, **common)
    else:
        keys: Any = {"name": "v2", "separator": "/"}
        array = zarr.create_array(compressors=ZLIB, chunk_key_encoding=keys, **common)
    return array.metadata, {name: buffer.to_bytes() for name, buffer in files.items() if name != ".zattrs"}
