"""Chunks and coarser levels are written while a run goes on: the bytes that they always had, and nothing left to do."""

import numpy as np
import pytest

from helpers import tree
from napari_unet.events import wait
from napari_unet.store import Output, ResultStore, layout, verify
from napari_unet.store.chunks import UNMARKED, marked, write_box
from napari_unet.store.pyramid import levels_of
from stores import blocks_of

SHAPE, CORE = (6, 600, 520), (2, 128, 160)
CORES = blocks_of(SHAPE, CORE)
VALUES = {
    "labels/a": np.random.default_rng(0).integers(0, 9, SHAPE).astype("u2"),
    "": np.random.default_rng(1).standard_normal(SHAPE).astype("f4"),
}


def opened(root, planes=2):
    common = {"axes": "zyx", "shape": SHAPE, "chunks": (planes, 64, 80)}
    outputs = [Output("labels/a", "labels", dtype=np.dtype("u2"), **common)]
    outputs += [Output("", "image", dtype=np.dtype("f4"), **common)]
    blocks = len(blocks_of(SHAPE, (planes, *CORE[1:])))
    return ResultStore.create(root, outputs, blocks=blocks, settings={}, provenance={})


def put(store, blocks, values=VALUES, cores=CORES):
    for block in blocks:
        store.write(block, {path: (cores[block], data[cores[block]]) for path, data in values.items()})


@pytest.fixture(autouse=True)
def many_parts(monkeypatch):
    monkeypatch.setattr("napari_unet.store.pyramid.PART_BYTES", 2**17)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """A result whose levels were all made at its end."""
    root = tmp_path_factory.mktemp("once") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_unet.store.pyramid.PART_BYTES", 2**17)
        patch.setattr("napari_unet.store.levels.Pyramids.take", lambda *_: None)
        with opened(root) as store:
            put(store, range(len(CORES)))
            assert not (root / "1/c").exists()
            wait(store.finish())
    return tree(root)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_chunk_has_the_bytes_that_zarr_gives_it(version, dtype, tmp_path):
    output = Output("", "image", "yx", (70, 45), np.dtype(dtype), chunks=(32, 16))
    data = np.random.default_rng(0).integers(0, 200, output.shape).astype(dtype)
    data[:32, :16], data[32:, 32:] = 0, -0.0 if dtype == "f4" else 7
    data[0, 44] = np.nan if dtype == "f4" else 3
    box = tuple(slice(0, n) for n in output.shape)
    theirs, ours = (
        layout.make_array(tmp_path / name, output, levels_of(output)[0], version) for name in ("theirs", "ours")
    )
    theirs[box] = data
    mark = write_box(tmp_path / "ours", ours, box, data)
    assert tree(tmp_path / "ours") == tree(tmp_path / "theirs")
    assert mark == marked(tmp_path / "ours", ours, box) != UNMARKED
    file = max((path for path in (tmp_path / "ours").rglob("*") if path.name == "1"), key=str)
    file.write_bytes(file.read_bytes())  # in the same tick of the clock, of the same size
    assert mark != marked(tmp_path / "ours", ours, box)


def test_a_chunk_that_does_not_read_back_is_not_taken_for_written(tmp_path, monkeypatch):
    output = Output("", "image", "yx", (64, 64), np.dtype("u2"), chunks=(32, 32))
    array = layout.make_array(tmp_path / "a", output, levels_of(output)[0], "0.5")
    monkeypatch.setattr("napari_unet.store.chunks._unpacked", lambda *_: np.zeros(2048, np.uint8))
    box = (slice(0, 64), slice(0, 64))
    assert write_box(tmp_path / "a", array, box, np.ones((64, 64), "u2")) == UNMARKED


def test_nothing_is_left_to_read_at_the_end_of_a_run(at_once, tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("read again")

    for name in ("result.problem_of", "levels.problem_of", "levels.read_back"):
        monkeypatch.setattr(f"napari_unet.store.{name}", read)
    with opened(tmp_path / "r") as store:
        put(store, range(len(CORES)))
        before = [path for path in (tmp_path / "r").rglob("*/c/*/*/*") if path.is_file()]
        wait(store.finish())
    assert tree(tmp_path / "r") == at_once
    assert len(before) == len([path for path in (tmp_path / "r").rglob("*/c/*/*/*") if path.is_file()])


@pytest.mark.parametrize("held", [0, 2**26])
@pytest.mark.parametrize("seed", [0, 1])
def test_levels_do_not_depend_on_the_order_of_blocks_nor_on_what_is_held(held, seed, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_unet.store.levels.HELD", held)
    order = np.random.default_rng(seed).permutation(len(CORES)).tolist()
    with opened(tmp_path / "r") as store:
        put(store, order[:20])
    with opened(tmp_path / "r") as store:
        put(store, order[20:])
        wait(store.finish())
    assert tree(tmp_path / "r") == at_once


def test_a_part_that_was_lost_after_an_earlier_run_is_made_again(at_once, tmp_path):
    with opened(tmp_path / "r") as store:
        put(store, range(len(CORES) - 1))
    lost = tmp_path / "r/1/c/0/0/0"
    lost.write_bytes(b"")  # as after a loss of power: its name was on the disk, its bytes were not
    with opened(tmp_path / "r") as store:
        put(store, [len(CORES) - 1])
        wait(store.finish())
    assert tree(tmp_path / "r") == at_once


def test_a_block_that_is_written_again_changes_what_was_made_of_it(at_once, tmp_path):
    with opened(tmp_path / "r") as store:
        put(store, [0, 1, 2], {path: data + 1 for path, data in VALUES.items()})
        put(store, range(3, len(CORES)))
        assert (tmp_path / "r/2/c/0/0/0").exists()
        put(store, [2, 0, 1])
        wait(store.finish())
    assert tree(tmp_path / "r") == at_once
    assert wait(verify(tmp_path / "r")) == []


def test_levels_are_right_where_an_element_is_made_of_two_blocks(tmp_path, monkeypatch):
    cores = blocks_of(SHAPE, (3, *CORE[1:]))
    for name in ("run", "end"):
        if name == "end":
            monkeypatch.setattr("napari_unet.store.levels.Pyramids.take", lambda *_: None)
        with opened(tmp_path / name, 3) as store:
            put(store, range(len(cores)), cores=cores)
            wait(store.finish())
    assert tree(tmp_path / "run") == tree(tmp_path / "end")
