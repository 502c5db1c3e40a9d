"""What lies in place of a chunk or of metadata, and could be read without end, is refused at once."""

import bz2
import gzip
import json
import lzma
import os
import sys
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, ShardingCodec

from napari_unet.errors import DataError
from napari_unet.sources import open_stack
from napari_unet.sources.zarrays import decoded_size

needs_pipes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
LIMIT = 2**27


def array(where, zarr_format=3, **options):
    options = {"chunks": (32, 32), "dtype": "u2", **options}
    made = zarr.create_array(str(where), shape=(64, 64), zarr_format=zarr_format, **options)
    made[...] = np.arange(64 * 64).reshape(64, 64)
    return sorted(p for p in where.rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr.json")))


def sparse(path, size):
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


OPTIONS = [
    {},
    {"compressors": None},
    {"compressors": None, "filters": None, "chunks": (64, 64)},
    {"shards": (64, 64)},
    {"shards": (64, 64), "compressors": None},
]


@pytest.mark.parametrize("number", range(len(OPTIONS)))
@pytest.mark.parametrize("size", [2**23, 2**33, 2**40])
def test_a_sparse_file_in_place_of_a_chunk_is_not_read(tmp_path, number, size):
    for chunk in array(tmp_path / "a.zarr", **OPTIONS[number]):
        sparse(chunk, size)
    stack = open_stack(tmp_path / "a.zarr", "yx")
    tracemalloc.start()
    with pytest.raises(DataError, match="damaged or forged"):
        stack.read((slice(0, 64), slice(0, 64)))
    assert tracemalloc.get_traced_memory()[1] < LIMIT
    tracemalloc.stop()


@pytest.mark.parametrize("length", [2**24, 2**40, 2**62])
def test_an_index_that_lies_about_the_length_of_a_chunk_makes_no_room_for_it(tmp_path, length):
    sharding = ShardingCodec(chunk_shape=(32, 32), index_codecs=[BytesCodec()])  # no checksum of the index
    (shard,) = array(tmp_path / "a.zarr", chunks=(64, 64), serializer=sharding, compressors=None, filters=None)
    raw = bytearray(shard.read_bytes())
    raw[-64 + 8 : -64 + 16] = length.to_bytes(8, "little")  # of the first chunk
    shard.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(DataError, match="damaged or forged"):
        open_stack(tmp_path / "a.zarr", "yx").read((slice(0, 32), slice(0, 32)))
    assert tracemalloc.get_traced_memory()[1] < LIMIT
    tracemalloc.stop()


def test_parts_of_a_large_shard_are_read_all_the_same(tmp_path):
    (shard,) = array(tmp_path / "a.zarr", shards=(64, 64))
    raw = shard.read_bytes()
    shard.write_bytes(raw[:-68] + bytes(2**23) + raw[-68:])  # a hole before the index, as an in-place writer leaves it
    assert open_stack(tmp_path / "a.zarr", "yx").read((slice(0, 32), slice(32, 64)))[0, 0] == 32


def nameless(data):
    """Zeros as one zstd frame whose header gives no size: blocks of one repeated byte, 128 KiB each."""
    blocks, rest = divmod(len(data), 2**17)
    sizes = [2**17] * blocks + [rest]
    heads = [(n << 3 | 1 << 1 | (i == blocks)).to_bytes(3, "little") + bytes(1) for i, n in enumerate(sizes)]
    return b"\x28\xb5\x2f\xfd" + bytes([0, 0x38]) + b"".join(heads)  # a window of 128 KiB


ZSTD, SKIPPED = numcodecs.Zstd(1).encode, b"\x50\x2a\x4d\x18\x04\x00\x00\x00what"
STREAMS = {
    "zstd": (numcodecs.Zstd(), [ZSTD, nameless]),
    "gzip": (numcodecs.GZip(), [gzip.compress]),
    "bz2": (numcodecs.BZ2(), [bz2.compress]),
    "lzma": (numcodecs.LZMA(), [lzma.compress]),
}


@pytest.mark.parametrize("codec", STREAMS)
def test_what_follows_the_first_stream_of_a_chunk_counts_too(tmp_path, codec):
    compressor, ways = STREAMS[codec]
    (chunk,) = array(tmp_path / "a.zarr", 2, compressors=compressor, chunks=(64, 64))
    small, large = bytes(64), bytes(2**26)
    for pack in ways:
        for parts in ([large], [small, large], [small, large, small]):
            for before in (b"", SKIPPED) if codec == "zstd" else (b"",):
                chunk.write_bytes(before + b"".join(map(pack, parts)))
                tracemalloc.start()
                with pytest.raises(DataError, match="damaged or forged"):
                    open_stack(tmp_path / "a.zarr", "yx").read((slice(0, 64), slice(0, 64)))
                assert tracemalloc.get_traced_memory()[1] < len(large) / 2
                tracemalloc.stop()
        whole = [bytes(3000), bytes(64 * 64 * 2 - 3000)]
        chunk.write_bytes(b"".join(map(pack, whole)))
        assert not open_stack(tmp_path / "a.zarr", "yx").read((slice(0, 64), slice(0, 64))).any()


@pytest.mark.parametrize("codec", STREAMS)
def test_the_size_of_a_chunk_that_was_cut_or_changed_is_never_looked_for_without_end(codec):
    rng = np.random.default_rng(0)
    for pack in STREAMS[codec][1]:
        whole = (
            bytes(pack(rng.integers(0, 9, 3000).astype("u1").tobytes())) if pack is not nameless else pack(bytes(3000))
        )
        assert decoded_size(codec, whole, 3000) == 3000 or pack is nameless
        for number in range(300):
            changed = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            changed[rng.integers(len(changed))] = number % 256
            assert decoded_size(codec, bytes(changed), 3000) >= 0
    for count in (2**16, 2**18):  # streams that hold nothing, and blocks that hold nothing
        nothing = (
            gzip.compress(b"") * (count // 64) if codec == "gzip" else b"\x28\xb5\x2f\xfd\x20\x09" + bytes(3 * count)
        )
        assert decoded_size(codec, nothing, 3000) <= 3000 + 1024


@needs_pipes
@pytest.mark.parametrize("make", [pipe, device])
@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_a_pipe_or_a_device_in_place_of_a_chunk_is_not_waited_for(tmp_path, number, make):
    for chunk in array(tmp_path / "a.zarr", **OPTIONS[number]):
        make(chunk)
    with pytest.raises(DataError, match="pipe or a device"):
        open_stack(tmp_path / "a.zarr", "yx").read((slice(0, 64), slice(0, 64)))


@needs_pipes
@pytest.mark.parametrize("make", [pipe, device, lambda path: sparse(path, 2**40)])
@pytest.mark.parametrize("file", [".zgroup", ".zattrs", "0/.zarray", "0/.zattrs", "zarr.json", "0/zarr.json"])
def test_metadata_that_is_no_plain_file_is_not_waited_for(tmp_path, make, file):
    root, zarr_format = tmp_path / "a.zarr", 3 if "zarr.json" in file else 2
    multiscale = {"axes": ["y", "x"], "version": "0.4", "datasets": [{"path": "0"}]}
    attributes = {"multiscales": [multiscale]}
    attributes = attributes if zarr_format == 2 else {"ome": {"version": "0.5", **attributes}}
    zarr.create_group(str(root), zarr_format=zarr_format, attributes=attributes)
    array(root / "0", zarr_format)
    make(root / file)
    with pytest.raises(DataError, match=r"pipe or a device|larger than"):
        open_stack(root)


class Endless(BaseHTTPRequestHandler):
    """A server whose metadata never ends."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        try:
            self.wfile.write(b'{"zarr_format": 3, "attributes": {"a": "')
            while True:
                self.wfile.write(b"a" * 2**16)
        except OSError:
            pass

    def log_message(self, *args):
        pass


def test_endless_metadata_of_an_address_is_not_read_on():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(DataError, match="larger than 16 MiB"):
            open_stack(f"http://127.0.0.1:{server.server_address[1]}/a.zarr")
    finally:
        server.shutdown()
        server.server_close()


def test_dripping_metadata_of_an_address_is_given_up_once(monkeypatch):
    """A second try of what does not arrive would only take as long again."""
    stopped, asked = threading.Event(), []

    class Dripping(Endless):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            while not stopped.wait(0.05):
                self.wfile.write(b" ")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("napari_unet.sources.remote.METADATA_SECONDS", 0.5)
    try:
        with pytest.raises(DataError, match=r"does not arrive whole within 0\.5 s"):
            open_stack(f"http://127.0.0.1:{server.server_address[1]}/a.zarr")
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
    assert asked == ["/a.zarr/zarr.json"]


@pytest.mark.parametrize("content", [b"{", b"", b"null", json.dumps({"zarr_format": 3}).encode()])
def test_short_metadata_of_an_address_is_named(content):
    class Short(Endless):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Short)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(DataError, match=r"zarr\.json"):
            open_stack(f"http://127.0.0.1:{server.server_address[1]}/a.zarr")
    finally:
        server.shutdown()
        server.server_close()
