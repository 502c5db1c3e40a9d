import functools
import itertools
import json
import pickle
import threading
import tracemalloc
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from napari_unet.errors import DataError, UnsafeError, UsageError
from napari_unet.sources import missing_chunks, open_labels, open_stack
from napari_unet.sources.zarrays import Guarded, decoded_size

AXES = ["yx", "zyx", "cyx", "tyx", "czyx", "tzyx", "tcyx", "tczyx"]
SIZES = {"t": 2, "c": 3, "z": 4, "y": 12, "x": 10}


def attributes(axes, version, datasets=("0",), **more):
    entries = [{"name": a, "unit": "micrometer"} if a in "zyx" else {"name": a} for a in axes]
    transform = [{"type": "scale", "scale": [0.5 + i for i in range(len(axes))]}]
    listing = [{"path": path, "coordinateTransformations": transform} for path in datasets]
    ome = {"multiscales": [{"axes": entries, "datasets": listing, "version": "0.4"}], **more}
    return ome if version == 2 else {"ome": {"version": "0.5", **ome}}


def image(root, axes, version=3, data=None, name="0", **options):
    group = zarr.open_group(str(root), mode="a", zarr_format=version)
    data = np.random.default_rng(0).integers(0, 999, [SIZES[a] for a in axes]).astype("u2") if data is None else data
    options = {"chunks": tuple(min(5, n) for n in data.shape), **options}
    array = group.create_array(name, shape=data.shape, dtype=data.dtype, **options)
    array[...] = data
    group.attrs.update(attributes(axes, version))
    return data


def metadata(folder, **change):
    """Write the metadata of a zarr v3 array without a chunk."""
    grid = {"name": "regular", "configuration": {"chunk_shape": [2, 8]}}
    fields = {"zarr_format": 3, "node_type": "array", "shape": [4, 8], "data_type": "uint16", "chunk_grid": grid}
    fields["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "/"}}
    fields |= {"fill_value": 0, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "attributes": {}}
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(fields | change))
    return folder


def metadata2(folder, **change):
    """Write the metadata of a zarr v2 array without a chunk."""
    fields = {"zarr_format": 2, "shape": [4, 8], "dtype": "<u2", "chunks": [2, 8], "compressor": None, "filters": None}
    folder.mkdir(parents=True)
    (folder / ".zarray").write_text(json.dumps(fields | {"fill_value": 0, "order": "C"} | change))
    return folder


def regular(*chunks):
    return {"name": "regular", "configuration": {"chunk_shape": list(chunks)}}


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(AXES).flatmap(lambda axes: st.permutations(axes)),
    st.sampled_from([2, 3]),
    st.booleans(),
    st.data(),
)
def test_any_order_of_axes_in_either_format_reads_as_numpy_does(tmp_path_factory, axes, version, sharded, data):
    root = tmp_path_factory.mktemp("zarr") / "a.ome.zarr"
    options = {"chunks": (2,) * len(axes), "shards": (4,) * len(axes)} if sharded and version == 3 else {}
    stored = image(root, "".join(axes), version, **options)
    stack = open_stack(root)
    order = [axes.index(a) for a in stack.axes]
    want = stored.transpose(order)
    assert stack.axes == "".join(a for a in "tczyx" if a in axes)
    assert stack.scale == tuple(0.5 + i for i in order)
    assert all((unit == "micrometer") == (axis in "zyx") for axis, unit in zip(stack.axes, stack.units, strict=True))
    starts = [data.draw(st.integers(0, n - 1)) for n in want.shape]
    box = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, want.shape, strict=True))
    assert np.array_equal(stack.read(box), want[box])


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "<i2", ">u2", "<u4", ">i8", "<u8", "<f2", ">f4", "<f8"])
def test_every_real_number_is_read_as_a_native_one(tmp_path, version, dtype):
    data = np.arange(120).reshape(12, 10).astype(dtype)
    image(tmp_path / "a.zarr", "yx", version, data=data)
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.dtype.isnative
    assert stack.read((slice(0, 12), slice(0, 10))).dtype.isnative
    assert np.array_equal(stack.read((slice(0, 12), slice(0, 10))), data)


def test_transformations_of_dataset_and_multiscale_combine_in_order(tmp_path):
    image(tmp_path / "a.zarr", "zyx")
    group = zarr.open_group(str(tmp_path / "a.zarr"))
    attrs = attributes("zyx", 3)
    scale = attrs["ome"]["multiscales"][0]
    scale["datasets"][0]["coordinateTransformations"].append({"type": "translation", "translation": [1, 2, 3]})
    scale["coordinateTransformations"] = [
        {"type": "scale", "scale": [2, 3, 4]},
        {"type": "translation", "translation": [7, 7, 7]},
    ]
    group.attrs.update(attrs)
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.scale == (1.0, 4.5, 10.0)
    assert stack.translation == (9.0, 13.0, 19.0)


def test_a_level_is_chosen_by_number_or_by_its_path(tmp_path):
    root = tmp_path / "a.ome.zarr"
    image(root, "yx")
    half = image(root, "yx", name="1", data=np.ones((6, 5), "u2"))
    group = zarr.open_group(str(root))
    attrs = attributes("yx", 3, ("0", "1"))
    attrs["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"] = [1.0, 3.0]
    group.attrs.update(attrs)
    for stack in (open_stack(root, level=1), open_stack(root / "1")):
        assert stack.shape == half.shape
        assert stack.scale == (1.0, 3.0)
    with pytest.raises(DataError, match="levels 0 to 1, not 2"):
        open_stack(root, level=2)


def test_channels_are_chosen_by_number_or_name_and_keep_their_axis(tmp_path):
    data = image(tmp_path / "a.zarr", "tcyx")
    group = zarr.open_group(str(tmp_path / "a.zarr"))
    group.attrs.update(attributes("tcyx", 3, omero={"channels": [{"label": n} for n in ("DAPI", "GFP", "2")]}))
    stack = open_stack(tmp_path / "a.zarr", channel="GFP", time=1)
    assert (stack.axes, stack.shape, stack.channel_names) == ("cyx", (1, 12, 10), ("GFP",))
    assert np.array_equal(stack.data[...], data[1, 1:2])
    assert open_stack(tmp_path / "a.zarr", channel="1").channel_names == ("GFP",)
    with pytest.raises(DataError, match="no channel 'RFP'; it has DAPI, GFP, 2"):
        open_stack(tmp_path / "a.zarr", channel="RFP")
    with pytest.raises(DataError, match="time points 0 to 1, not 2"):
        open_stack(tmp_path / "a.zarr", time=2)


def test_labels_inside_are_taken_where_there_is_one_and_named_where_there_are_more(tmp_path):
    root = tmp_path / "a.zarr"
    image(root, "yx")
    labels = image(root / "labels" / "cells", "yx", data=np.arange(120, dtype="u4").reshape(12, 10))
    zarr.open_group(str(root / "labels")).attrs["ome"] = {"labels": ["cells"]}
    assert np.array_equal(open_labels(root).data[...], labels)
    image(root / "labels" / "nuclei", "yx")
    zarr.open_group(str(root / "labels")).attrs["ome"] = {"labels": ["cells", "nuclei"]}
    with pytest.raises(DataError, match="labels/cells, labels/nuclei"):
        open_labels(root)


def test_a_result_of_ours_opens_as_its_labels_and_only_when_it_is_finished(tmp_path):
    root = tmp_path / "r.zarr"
    labels = image(root / "labels" / "nuclei", "yx")
    group = zarr.open_group(str(root), mode="a")
    group.attrs["napari_unet"] = {"state": "complete", "result": "labels/nuclei", "blocks": 4}
    assert np.array_equal(open_labels(root).data[...], labels)
    group.attrs["napari_unet"] = {"state": "incomplete", "result": "labels/nuclei", "blocks": 4}
    for opened in (open_labels, open_stack):
        with pytest.raises(DataError, match=r"unfinished result: 0 of 4 blocks; run the same command again"):
            opened(root)


def test_plates_and_series_name_the_images_inside_and_a_single_one_is_opened(tmp_path):
    for name in ("0", "1"):
        image(tmp_path / "series.zarr" / name, "yx")
    zarr.open_group(str(tmp_path / "series.zarr"), mode="a").attrs["ome"] = {"bioformats2raw.layout": 3}
    with pytest.raises(DataError, match=r"2 images; open one of them, such as .*series.zarr/0: 0, 1"):
        open_stack(tmp_path / "series.zarr")
    for well in ("A/1", "B/2"):
        image(tmp_path / "plate.zarr" / well / "0", "yx")
        zarr.open_group(str(tmp_path / "plate.zarr" / well), mode="a").attrs["ome"] = {
            "well": {"images": [{"path": "0"}]}
        }
    wells = [{"path": "A/1"}, {"path": "B/2"}]
    zarr.open_group(str(tmp_path / "plate.zarr"), mode="a").attrs["ome"] = {"plate": {"wells": wells}}
    with pytest.raises(DataError, match=r"a plate of 2 images.*A/1/0, B/2/0"):
        open_stack(tmp_path / "plate.zarr")
    assert open_stack(tmp_path / "plate.zarr" / "A" / "1").shape == (12, 10)


def test_axes_of_a_bare_array_are_asked_for_unless_it_names_them(tmp_path):
    data = np.zeros((3, 12, 10), "u1")
    zarr.create_array(str(tmp_path / "bare.zarr"), data=data)
    zarr.create_array(str(tmp_path / "named.zarr"), data=data, dimension_names=["t", "y", "x"])
    zarr.create_array(str(tmp_path / "flat.zarr"), data=data[0])
    with pytest.raises(DataError, match="zyx or tyx or cyx"):
        open_stack(tmp_path / "bare.zarr")
    assert open_stack(tmp_path / "bare.zarr", axes="zyx").axes == "zyx"
    assert open_stack(tmp_path / "named.zarr").axes == "tyx"
    assert open_stack(tmp_path / "flat.zarr").axes == "yx"


def test_opening_an_absurd_shape_costs_nothing(tmp_path):
    for name, shape, chunks in (("cube", [10**6] * 3, [64] * 3), ("long", [2**62, 4], [64, 4])):
        folder = metadata(tmp_path / name, shape=shape, chunk_grid=regular(*chunks))
        tracemalloc.start()
        stack = open_stack(folder, axes="zyx"[3 - len(shape) :])
        corner = stack.read(tuple(slice(0, 3) for _ in shape))
        assert missing_chunks(stack) > 10**9
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6
        assert corner.sum() == 0


BAD_ARRAYS = {
    "one chunk .* GiB": {"shape": [10**18, 2], "chunk_grid": regular(10**18, 2)},
    "zarr_format 4": {"zarr_format": 4},
    "dtype complex64": {"data_type": "complex64"},
    "dtype string": {"data_type": "string", "codecs": [{"name": "vlen-utf8"}]},
    "codec 'foo'": {"codecs": [{"name": "bytes"}, {"name": "foo"}]},
    "chunk grid 'rectilinear'": {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
    "do not fit each other": {"shape": [4, -8]},
    "metadata is damaged": {"shape": "ab"},
    "not integers of 63 bits": {"shape": [10**30, 8]},
    "axis y has size 0": {"shape": [0, 8]},
    "zarr cannot open": {"fill_value": "abc"},
    "shards .* not multiples": {
        "codecs": [
            {"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 3], "codecs": [{"name": "bytes"}]}}
        ]
    },
    "compressed 2 times": {"codecs": [{"name": "bytes"}, {"name": "gzip"}, {"name": "zstd"}]},
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_what_cannot_be_read_is_named_before_zarr_opens_it(tmp_path, message):
    with pytest.raises(DataError, match=message):
        open_stack(metadata(tmp_path / "a", **BAD_ARRAYS[message]))


@pytest.mark.parametrize("dtype", ["|O", "<c8", "|S5", "<U3", "<M8[ns]", [["a", "<u2"]], "nonsense"])
def test_v2_dtypes_that_are_no_real_numbers_are_named(tmp_path, dtype):
    with pytest.raises(DataError, match="dtype"):
        open_stack(metadata2(tmp_path / "a", dtype=dtype))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_filters_that_run_code_are_refused_in_images_levels_and_labels(tmp_path):
    filters = [{"id": "vlen-utf8"}, {"id": "pickle"}]
    root = tmp_path / "a.zarr"
    image(root, "yx", version=2)
    image(root / "labels" / "l", "yx", version=2)
    zarr.open_group(str(root / "labels"), mode="a").attrs["labels"] = ["l"]
    evil = metadata2(tmp_path / "evil.zarr", dtype="|O", filters=filters)
    (evil / "0.0").write_bytes(pickle.dumps(Bomb(str(tmp_path / "PWNED"))))
    for name in (root / "1", root / "labels" / "l" / "1"):
        metadata2(name, dtype="|O", filters=filters)
    for group in (root, root / "labels" / "l"):
        zarr.open_group(str(group)).attrs.update(attributes("yx", 2, ("0", "1")))
    for attempt in (
        lambda: open_stack(evil),
        lambda: open_stack(root, level=1),
        lambda: open_stack(root / "1"),
        lambda: open_labels(root, level=1),
    ):
        with pytest.raises(UnsafeError, match="pickle"):
            attempt()
    assert not (tmp_path / "PWNED").exists()


def test_data_is_refused_while_the_environment_lets_it_run_code(tmp_path, monkeypatch):
    image(tmp_path / "a.zarr", "yx")
    monkeypatch.setenv("NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE", "1")
    with pytest.raises(UnsafeError, match="NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE"):
        open_stack(tmp_path / "a.zarr")


@pytest.mark.parametrize("path", ["../b", "/etc", "a/../../b", "a\\b", "C:/x", ""])
def test_metadata_cannot_point_out_of_the_group(tmp_path, path):
    image(tmp_path / "a.zarr", "yx")
    zarr.open_group(str(tmp_path / "a.zarr")).attrs.update(attributes("yx", 3, (path,)))
    with pytest.raises((UnsafeError, DataError)):
        open_stack(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "content", [b"", b'{"zarr_for', b"hello", b"[]", b"[" * 100_000, b"\xff\xfe\x00", b" " * (17 << 20)]
)
def test_damaged_metadata_is_named(tmp_path, content):
    (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(DataError, match=r"zarr\.json is (damaged|larger)"):
        open_stack(tmp_path)


def test_missing_metadata_says_what_to_open_instead(tmp_path):
    root = tmp_path / "a.zarr"
    image(root, "zyx", version=2)
    (root / ".zattrs").unlink()
    with pytest.raises(DataError, match=r"no multiscales metadata \(\.zattrs\), only arrays 0; open one, such as .*/0"):
        open_stack(root)
    assert open_stack(root / "0", axes="zyx").axes == "zyx"
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DataError, match=r"no zarr\.json"):
        open_stack(tmp_path / "empty.zarr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": []}, "lists no datasets"),
        ({"datasets": [{"path": "7"}]}, "names the array '7', which is not there"),
        ({"axes": [{"name": "y"}]}, "has 1 axes, its array 3"),
        ({"coordinateTransformations": [{"type": "scale", "scale": [1, 2]}]}, "does not fit 3 axes"),
        ({"coordinateTransformations": [{"type": "scale", "scale": [1, 0, 1]}]}, "scale of axis y is 0"),
        ({"axes": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}, "give axes"),
    ],
)
def test_metadata_that_does_not_fit_is_refused_and_the_array_still_opens_by_its_path(tmp_path, change, message):
    image(tmp_path / "a.zarr", "zyx")
    attrs = attributes("zyx", 3)
    attrs["ome"]["multiscales"][0].update(change)
    zarr.open_group(str(tmp_path / "a.zarr")).attrs.update(attrs)
    with pytest.raises(DataError, match=message):
        open_stack(tmp_path / "a.zarr")
    if "scale of axis" not in message:
        assert open_stack(tmp_path / "a.zarr" / "0", axes="zyx").shape == (4, 12, 10)


@pytest.mark.parametrize("what", ["ftp://x/a.zarr", "memory://a", "https://a/b.zarr::file:///etc"])
def test_unknown_and_chained_addresses_are_refused(what):
    with pytest.raises(UsageError, match="use one of http, https, s3, gs"):
        open_stack(what)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.mark.parametrize("version", [2, 3])
def test_an_address_is_read_like_a_folder(tmp_path, version):
    data = image(tmp_path / "a.ome.zarr", "czyx", version)
    labels = image(tmp_path / "a.ome.zarr" / "labels" / "cells", "zyx", version)
    listing = {"labels": ["cells"]}
    group = zarr.open_group(str(tmp_path / "a.ome.zarr" / "labels"), mode="a", zarr_format=version)
    group.attrs.update(listing if version == 2 else {"ome": listing})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/a.ome.zarr"
        stack = open_stack(url)
        assert (stack.axes, stack.scale, stack.name) == ("czyx", (0.5, 1.5, 2.5, 3.5), "a")
        assert np.array_equal(stack.read((slice(1, 3), slice(0, 2), slice(4, 9), slice(0, 10))), data[1:3, :2, 4:9])
        assert np.array_equal(open_labels(url).data[...], labels)
        assert missing_chunks(stack) == 0
        with pytest.raises(DataError, match="no zarr group or array"):
            open_stack(f"{url}.gone")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_are_counted_in_the_part_that_is_read(tmp_path, version):
    root = tmp_path / "a.zarr"
    image(root, "zyx", version, chunks=(1, 6, 5))
    stack = open_stack(root)
    assert missing_chunks(stack) == 0
    files = sorted(p for p in (root / "0").rglob("*") if p.is_file() and p.name[0].isdigit())
    assert len(files) == 16
    for number in (0, 5):
        files[number].unlink()
    assert missing_chunks(stack) == 2
    assert missing_chunks(stack.select(z=0)) == 1
    assert missing_chunks(stack.select(z=slice(2, 4))) == 0
    assert missing_chunks(stack.select(x=slice(5, 10))) == 1
    assert (stack.read((slice(0, 1), slice(0, 6), slice(0, 5))) == 0).all()


@pytest.mark.parametrize("cut", [0, 0.5])
@pytest.mark.parametrize("compressor", [None, ZstdCodec(), GzipCodec(), BloscCodec()])
@pytest.mark.parametrize("shards", [None, (12, 10)])
def test_a_damaged_chunk_is_named_and_the_others_are_read(tmp_path, cut, compressor, shards):
    data = image(tmp_path / "a.zarr", "yx", chunks=(6, 10), compressors=compressor, shards=shards)
    stack = open_stack(tmp_path / "a.zarr")
    victim = tmp_path / "a.zarr" / "0" / "c" / "0" / "0"
    raw = victim.read_bytes()
    victim.write_bytes(raw[: int(len(raw) * cut)])
    with pytest.raises(DataError, match=r"a\.zarr is damaged at y=0:6, x=0:10"):
        stack.read((slice(0, 6), slice(0, 10)))
    if shards is None:
        assert np.array_equal(stack.read((slice(6, 12), slice(0, 10))), data[6:])


PACKERS = {
    2: ["zlib", "gzip", "bz2", "lzma", "lz4", "zstd", "blosc"],
    3: [GzipCodec(), ZstdCodec(), BloscCodec()],
}


@pytest.mark.parametrize(("version", "number"), [(v, i) for v, known in PACKERS.items() for i in range(len(known))])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_chunk_that_unpacks_to_more_than_a_chunk_is_refused_without_unpacking_it(tmp_path, version, number, sharded):
    import numcodecs

    compressor = PACKERS[version][number]
    if version == 2:
        names = {
            "zlib": "Zlib",
            "gzip": "GZip",
            "bz2": "BZ2",
            "lzma": "LZMA",
            "lz4": "LZ4",
            "zstd": "Zstd",
            "blosc": "Blosc",
        }
        compressor = getattr(numcodecs, names[compressor])()
    size = 32 << 20
    group = zarr.open_group(str(tmp_path / "a"), mode="w", zarr_format=version)
    shape = (size // 64, 64)
    options = {"filters": None} if version == 2 else {}
    if sharded and version == 3:
        options["shards"] = shape
    big = group.create_array(
        "0", shape=shape, chunks=shape, dtype="u1", compressors=compressor, fill_value=1, **options
    )
    big[...] = 0
    name = ".zarray" if version == 2 else "zarr.json"
    text = (tmp_path / "a" / "0" / name).read_text()
    (tmp_path / "a" / "0" / name).write_text(text.replace(str(shape[0]), "64"))
    stack = open_stack(tmp_path / "a" / "0")
    tracemalloc.start()
    with pytest.raises(DataError, match="unpacks to"):
        stack.read((slice(0, 64), slice(0, 64)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2


def _shard_by_hand(folder, pieces, chunk):
    """Write an array of one shard, whose inner chunks are the given packed bytes."""
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [chunk[0] * len(pieces), chunk[1]],
        "data_type": "uint8",
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [chunk[0] * len(pieces), chunk[1]]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": list(chunk),
                    "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 0, "checksum": False}}],
                    "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                    "index_location": "end",
                },
            }
        ],
        "attributes": {},
    }
    (folder / "c" / "0").mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(metadata))
    starts = np.cumsum([0, *map(len, pieces[:-1])])
    index = np.array([(at, len(piece)) for at, piece in zip(starts, pieces, strict=True)], "<u8")
    (folder / "c" / "0" / "0").write_bytes(b"".join(pieces) + index.tobytes())


@pytest.mark.parametrize("forged", range(6))
@pytest.mark.parametrize("rows", [slice(0, 48), slice(8, 40)])
def test_each_chunk_of_a_part_of_a_shard_is_looked_at(tmp_path, forged, rows):
    import numcodecs

    zstd = numcodecs.Zstd()
    pieces = [bytes(zstd.encode(bytes([i]) * 128)) for i in range(6)]
    pieces[forged] = bytes(zstd.encode(bytes(32 << 20)))
    _shard_by_hand(tmp_path / "a", pieces, (8, 16))
    stack = open_stack(tmp_path / "a", axes="yx")
    if rows.start <= forged * 8 < rows.stop:
        tracemalloc.start()
        with pytest.raises(DataError, match="unpacks to"):
            stack.read((rows, slice(0, 16)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20
    else:
        found = stack.read((rows, slice(0, 16)))
        assert np.array_equal(found[:, 0], np.arange(rows.start, rows.stop) // 8)


def test_no_way_of_reading_passes_by_the_guard():
    reads = {name for name in dir(Store) if name.startswith("get") and not name.startswith("getsize")}
    assert reads | {"get_sync"} <= set(vars(Guarded))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 70_000), st.integers(1, 19))
def test_the_size_a_zstd_frame_announces_is_its_size(size, level):
    import numcodecs

    packed = bytes(numcodecs.Zstd(level=level).encode(bytes(size)))
    assert decoded_size("zstd", packed, 10**9) == size


def test_opening_touches_no_chunk_and_a_stack_travels_to_another_process(tmp_path):
    data = image(tmp_path / "a.zarr", "zyx")
    for chunk in (tmp_path / "a.zarr" / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.chmod(0o000)
    stack = open_stack(tmp_path / "a.zarr")
    for chunk in (tmp_path / "a.zarr" / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.chmod(0o600)
    again = pickle.loads(pickle.dumps(stack))
    assert np.array_equal(again.read((slice(1, 3), slice(2, 9), slice(0, 10))), data[1:3, 2:9])


def test_every_compressor_of_both_formats_reads_back(tmp_path):
    import numcodecs

    data = np.random.default_rng(1).integers(0, 50, (12, 10)).astype("u2")
    old = [
        numcodecs.Zlib(),
        numcodecs.GZip(),
        numcodecs.BZ2(),
        numcodecs.LZMA(),
        numcodecs.LZ4(),
        numcodecs.Blosc(),
        None,
    ]
    for number, (compressor, filters) in enumerate(
        itertools.product(old, [None, [numcodecs.Delta("u2")], [numcodecs.Shuffle(2)]])
    ):
        root = tmp_path / f"{number}.zarr"
        image(root, "yx", version=2, data=data, compressors=compressor, filters=filters)
        assert np.array_equal(open_stack(root).data[...], data)
