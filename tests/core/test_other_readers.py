"""What other readers of zarr make of our results: the same numbers, without a warning."""

import json
import warnings
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from napari_unet import open_stack, wait
from napari_unet.sources.omezarr import labels_inside
from napari_unet.sources.zarrmeta import read_node
from napari_unet.store import verify
from napari_unet.store.save import save_stack

DTYPES = ("u1", "u2", "i4", "u4", "f4", "f8")
# Codecs of zarr v2 that numcodecs has had since 0.6 and TensorStore, JZarr and zarr.js have too, with their options.
KNOWN = {"zlib": {"id", "level"}, "gzip": {"id", "level"}, "blosc": {"id", "cname", "clevel", "shuffle", "blocksize"}}


def numbers(dtype, shape=(300, 280)):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def saved(where: Path, data: np.ndarray, version: str, **more) -> Path:
    return wait(save_stack(open_stack(data, "zyx"[-data.ndim :]), where, version=version, **more))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_0_4_are_packed_as_every_reader_of_zarr_v2_knows(tmp_path, dtype):
    where = saved(tmp_path / "a.ome.zarr", numbers(dtype), "0.4")
    for level in ("0", "1"):
        about = json.loads((where / level / ".zarray").read_text())
        assert set(about["compressor"]) <= KNOWN[about["compressor"]["id"]]
        assert not about["filters"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensorstore_reads_the_same_numbers(tmp_path, dtype, version):
    tensorstore = pytest.importorskip("tensorstore", reason="TensorStore has no wheel for this system")
    data = numbers(dtype)
    where = saved(tmp_path / "a.ome.zarr", data, version)
    driver = {"0.4": "zarr", "0.5": "zarr3"}[version]
    array = tensorstore.open({"driver": driver, "kvstore": {"driver": "file", "path": f"{where / '0'}/"}}).result()
    assert np.array_equal(array.read().result(), data)


@pytest.mark.parametrize("at", [2, 50, -3, -1])
def test_a_flipped_bit_in_a_chunk_of_0_4_is_found_while_reading(tmp_path, at):
    where = saved(tmp_path / "a.ome.zarr", numbers("u2"), "0.4")
    chunk = where / "0" / "0" / "0"
    raw = bytearray(chunk.read_bytes())
    raw[at] ^= 16
    chunk.write_bytes(raw)
    with pytest.raises(Exception, match=r"(?i)zlib|decompress"):
        np.asarray(open_stack(where).data[:])
    assert len(wait(verify(where))) == 1


def test_a_run_of_0_4_packed_another_way_goes_on_as_it_began(tmp_path):
    data = numbers("u2", (3, 1500, 1500))
    where, stack = tmp_path / "a.ome.zarr", open_stack(data, "zyx")
    run = save_stack(stack, where, version="0.4")
    next(run)
    run.close()
    about = json.loads((where / "0" / ".zarray").read_text())
    about["compressor"] = {"id": "zstd", "level": 1, "checksum": True}  # as before
    (where / "0" / ".zarray").write_text(json.dumps(about))
    wait(save_stack(stack, where, version="0.4"))
    assert np.array_equal(np.asarray(open_stack(where).data[:]), data)
    chunk = next(p for p in (where / "0").rglob("*") if p.is_file() and p.name.isdigit())
    numcodecs.Zstd(checksum=True).decode(chunk.read_bytes())
    assert wait(verify(where)) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("old", [False, True])
def test_plain_readers_of_zarr_warn_of_nothing_in_a_result(tmp_path, version, old):
    data = numbers("u2")
    where = saved(tmp_path / "a.ome.zarr", data, version)
    saved(where, data, version, kind="labels", name="my labels")
    marks = list(where.rglob(".napari_unet/.zarray" if version == "0.4" else ".napari_unet/zarr.json"))
    assert len(marks) == 2
    for mark in marks if old else ():  # a result of before
        mark.unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = zarr.open_group(str(where), mode="r")
        members = dict(group.members(max_depth=None))
        group.tree()
        list(zarr.open_group(str(where), mode="r", path="labels/my labels").arrays())
    assert bool([w for w in caught if "not recognized" in str(w.message)]) == old
    assert {"0", "1", "labels", "labels/my labels", "labels/my labels/0"} <= set(members)
    assert labels_inside(read_node(str(where))) == ["labels/my labels"]
    assert wait(verify(where)) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_run_of_before_goes_on_and_its_record_is_no_stranger_to_zarr(tmp_path, version):
    where, stack = tmp_path / "a.ome.zarr", open_stack(numbers("u2", (3, 1500, 1500)), "zyx")
    run = save_stack(stack, where, version=version)
    next(run)
    run.close()
    (mark,) = where.glob(".napari_unet/.zarray" if version == "0.4" else ".napari_unet/zarr.json")
    made = mark.read_bytes()
    mark.unlink()
    wait(save_stack(stack, where, version=version))
    assert mark.read_bytes() == made
    wait(save_stack(stack, where, version=version, overwrite=True))
    assert mark.read_bytes() == made
