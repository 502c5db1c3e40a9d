"""Results: what is written is read back, whatever happens on the way, and nothing else is ever touched."""

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import tree
from napari_unet.errors import IncompleteError, OutputError, ResourceError, UnetError, UnsafeError, UsageError
from napari_unet.events import wait
from napari_unet.sources.zarrays import open_own
from napari_unet.store import Output, ResultStore, verify
from napari_unet.store.journal import FOLDER
from stores import CORES, IMAGE, LABELS, Box, blocks_of, create, regions, run, steps, values
from warm import ended, warm

CHILD = """
import sys
from pathlib import Path
from stores import steps
for step in steps(Path(sys.argv[1]), version=sys.argv[2]):
    print(step, flush=True)
    sys.stdin.readline()
"""


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Output, tuple[int, ...], str]:
    axes = draw(st.sampled_from(["yx", "zyx", "cyx", "tzyx", "tczyx"]))
    shape = tuple(draw(st.integers(1, 9 if a in "tcz" else 40)) for a in axes)
    chunks = tuple(draw(st.integers(1, 6)) if a in "tcz" else draw(st.integers(4, 50)) for a in axes)
    version = draw(st.sampled_from(["0.5", "0.4"]))
    shards = None
    if version == "0.5" and draw(st.booleans()):
        shards = tuple(c * draw(st.integers(1, 3)) for c in chunks)
    core = tuple(u * draw(st.integers(1, 3)) for u in (shards or chunks))
    kind = draw(st.sampled_from(["labels", "image"]))
    dtypes = ["u1", "u2", "u4", "u8", "i2"] + (["f2", "f4", "f8"] if kind == "image" else [])
    path = "labels/a" if kind == "labels" else draw(st.sampled_from(["", "probabilities"]))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    return Output(path, kind, axes, shape, dtype, chunks=chunks, shards=shards), core, version


@settings(deadline=None, max_examples=40)
@given(layouts(), st.integers(0, 2**32 - 1))
def test_what_is_written_in_any_order_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, layout: tuple[Output, tuple[int, ...], str], seed: int
) -> None:
    output, core, version = layout
    root = tmp_path_factory.mktemp("round") / "r.ome.zarr"
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 3, output.shape).astype(output.dtype)
    if output.dtype.kind == "f":
        data[data == 1] = -0.0
        data[data == 2] = np.nan
    cores = blocks_of(output.shape, core)
    with ResultStore.create(root, [output], blocks=len(cores), settings={}, provenance={}, version=version) as store:
        for block in rng.permutation(len(cores)):
            store.write(int(block), {output.path: (cores[block], data[cores[block]])})
        wait(store.finish())
    back = zarr.open_array(root / output.path / "0", mode="r")[...]
    assert back.tobytes() == data.tobytes()
    assert wait(verify(root)) == []


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3), st.integers(0, 60), st.integers(1, 60))
def test_a_block_never_shares_a_file_with_another(
    tmp_path_factory: pytest.TempPathFactory, n: int, chunk: int, per_shard: int, start: int, length: int
) -> None:
    output = Output(
        "labels/a", "labels", "yx", (1, n), np.dtype("u1"), chunks=(1, chunk), shards=(1, chunk * per_shard)
    )
    stop, unit = start + length, chunk * per_shard
    aligned = start % unit == 0 and (stop % unit == 0 or stop == n) and stop <= n
    root = tmp_path_factory.mktemp("aligned") / "r"
    with ResultStore.create(root, [output], blocks=2, settings={}, provenance={}) as store:
        region = {"labels/a": ((slice(0, 1), slice(start, stop)), np.ones((1, length), np.uint8))}
        if aligned:
            store.write(0, region)
            with pytest.raises(UsageError, match="block 1 overlaps block 0"):
                store.write(1, region)
        else:
            with pytest.raises(UsageError, match=r"axis x|along x"):
                store.write(0, region)
        assert store.done == ({0} if aligned else set())


@pytest.mark.parametrize(
    ("path", "box", "data", "why"),
    [
        ("labels/other", (slice(0, 32), slice(0, 32)), np.ones((32, 32), "u2"), "no output"),
        ("labels/cells", (slice(0, 32), slice(0, 32)), np.ones((32, 32), "u1"), "uint8"),
        ("labels/cells", (slice(0, 32), slice(0, 32)), np.ones((32, 31), "u2"), "does not fill"),
        ("labels/cells", (slice(0, 32),), np.ones(32, "u2"), "got a box"),
    ],
)
def test_a_region_that_does_not_fit_is_refused(tmp_path: Path, path: str, box: Box, data: np.ndarray, why: str) -> None:
    with create(tmp_path / "r") as store:
        before = tree(tmp_path)
        with pytest.raises(UsageError, match=why):
            store.write(0, {path: (box, data)})
        with pytest.raises(UsageError, match="cannot be written"):
            store.write(len(CORES), {path: (box, data)})
        assert tree(tmp_path) == before


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path, version: str) -> None:
    whole, killed = run(tmp_path / "whole", version=version), tmp_path / "killed"
    total = len(list(steps(tmp_path / "count", version=version)))
    rng = np.random.default_rng(7)
    moments = [*(int(k) for k in rng.integers(1, len(CORES) // 2, 3)), len(CORES), total - 3]
    opened: list[int] = []
    for moment in moments:
        child = warm(CHILD, killed, version)
        opened.append(int(child.stdout.readline().split()[1]))
        for _ in range(moment - opened[-1]):
            child.stdin.write("go\n")
            child.stdin.flush()
            child.stdout.readline()
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(rng.uniform(0, 0.01))
        child.kill()
        child.wait(60)
        assert _state(killed) == "incomplete"
        assert "multiscales" not in json.dumps(_attributes(killed))
    assert opened == sorted(opened)
    assert opened[-1] == len(CORES)
    run(killed, version=version)
    assert tree(killed) == tree(whole)
    assert wait(verify(killed)) == []
    assert not list(killed.rglob("*.partial"))


def _attributes(folder: Path) -> dict[str, Any]:
    for name in ("zarr.json", ".zattrs"):
        if (folder / name).exists():
            values = json.loads((folder / name).read_text())
            return values.get("attributes", {}) if name == "zarr.json" else values
    return {}


def _state(root: Path) -> str | None:
    return _attributes(root).get("napari_unet", {}).get("state")


def test_finished_blocks_are_not_done_again_even_when_empty(tmp_path: Path) -> None:
    empty = {p: (box, np.zeros_like(d)) for p, (box, d) in regions(3).items()}
    with create(tmp_path / "r") as store:
        store.write(3, empty)
    assert not list((tmp_path / "r/labels/cells/0").glob("c/*/*"))
    with create(tmp_path / "r") as store:
        assert store.done == {3}
        assert 3 not in store.pending()


def test_an_unfinished_result_says_so_and_shows_no_image(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with create(root) as store:
        store.write(0, regions(0))
        with pytest.raises(IncompleteError, match=f"{len(CORES) - 1} of {len(CORES)} blocks"):
            wait(store.finish())
    for folder in (root, root / "labels/cells"):
        assert _state(folder) == "incomplete"
        assert "ome" not in _attributes(folder)
    assert "cells" not in json.dumps(_attributes(root / "labels"))
    run(root)
    for folder in (root, root / "labels/cells"):
        assert _state(folder) == "complete"
        assert _attributes(folder)["ome"]["multiscales"]
    assert _attributes(root / "labels")["ome"]["labels"] == ["cells"]
    assert _attributes(root)["napari_unet"]["provenance"] == {"by": "x"}
    assert _attributes(root)["napari_unet"]["result"] == "labels/cells"


def test_a_changed_setting_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with create(root) as store:
        store.write(0, regions(0))
    before = tree(root, ledger=True)
    with pytest.raises(OutputError, match=r'model was "a" and is now "b"'):
        create(root, settings={"model": "b", "block": [64, 96]})
    other = Output("labels/cells", "labels", "yx", (300, 280), np.dtype("u1"), chunks=(32, 32))
    with pytest.raises(OutputError, match=r"dtype was"):
        create(root, outputs=(other, IMAGE))
    assert tree(root, ledger=True) == before
    with create(root, settings={"model": "b", "block": [64, 96]}, overwrite=True) as store:
        assert store.done == set()


def test_a_finished_result_is_only_replaced_when_told(tmp_path: Path) -> None:
    root = run(tmp_path / "r")
    before = tree(root, ledger=True)
    with pytest.raises(OutputError, match="finished already"):
        create(root)
    assert tree(root, ledger=True) == before
    third = Output("labels/third", "labels", "yx", (300, 280), np.dtype("u2"), chunks=(32, 32))
    with create(root, outputs=(third,), overwrite=True) as store:
        assert store.done == set()
    left = {Path(name).parts[0] + "/" + Path(name).parts[1] for name in tree(root) if name.startswith("labels/")}
    assert left == {"labels/zarr.json", "labels/third"}
    assert not (root / "labels/cells").exists()
    run(root, overwrite=True)
    assert tree(root) == tree(run(tmp_path / "fresh"))


def test_overwriting_can_be_stopped_and_done_again(tmp_path: Path) -> None:
    root = run(tmp_path / "r")
    # What a kill in the middle of removing leaves: no record, no metadata, half of the data.
    (root / "labels/cells" / FOLDER / "done.jsonl").unlink()
    (root / "zarr.json").unlink()
    (root / "0/zarr.json").unlink()
    run(root)
    assert tree(root) == tree(run(tmp_path / "fresh"))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "zarr", "file", "added", "inside", "link"])
def test_what_this_program_did_not_make_stays(tmp_path: Path, kind: str, overwrite: bool) -> None:
    root = tmp_path / "r"
    if kind == "folder":
        root.mkdir()
        (root / "thesis.docx").write_text("five years")
    elif kind == "zarr":
        zarr.create_array(root, shape=(4,), dtype="u1")[...] = 1
    elif kind == "file":
        root.write_text("five years")
    else:
        run(root)
        extra = {"added": "labels/mine/zarr.json", "inside": "0/c/0/thesis.docx", "link": "labels/cells/0/c/99"}[kind]
        (root / extra).parent.mkdir(exist_ok=True, parents=True)
        if kind == "link":
            (tmp_path / "victim").write_text("five years")
            (root / extra).symlink_to(tmp_path / "victim")
        else:
            (root / extra).write_text("{}")
    before = tree(tmp_path, ledger=True)
    with pytest.raises(OutputError):
        create(root, overwrite=overwrite)
    assert tree(tmp_path, ledger=True) == before


@pytest.mark.parametrize("link", ["r", "r/labels", "r/labels/cells"])
def test_results_are_not_written_through_links(tmp_path: Path, link: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="symbolic link"):
        create(tmp_path / "r", overwrite=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_chunk_that_is_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("five years")
    with create(tmp_path / "r") as store:
        chunk = tmp_path / "r/labels/cells/0/c/0/0"
        chunk.parent.mkdir(parents=True, exist_ok=True)
        chunk.symlink_to(victim)
        store.write(0, regions(0))
        assert not chunk.is_symlink()
    assert victim.read_text() == "five years"


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/abs",
        "a\\b",
        ".",
        "..",
        "",
        "a\0b",
        "zarr.json",
        "CON",
        "nul.txt",
        "x" * 101,
        "zähler",
        "__x",
        ".x",
        "a/b",
        "a.",
    ],
)
def test_names_that_could_leave_the_result_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        Output(f"labels/{name}", "labels", "yx", (8, 8), np.dtype("u1"))


def test_digits_alone_name_levels_of_an_image_and_no_image_beside_it() -> None:
    with pytest.raises(UsageError):
        Output("7", "image", "yx", (8, 8), np.dtype("u1"))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    huge = Output("labels/a", "labels", "zyx", (10**6,) * 3, np.dtype("u1"), chunks=(512,) * 3, shards=(512 * 256,) * 3)
    with pytest.raises(ResourceError, match="free"):
        create(tmp_path / "r", outputs=(huge,))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_named_and_the_run_goes_on_afterwards(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from stores import create, regions
from napari_unet.errors import ResourceError
with create(Path(sys.argv[1])) as store:
    store.write(0, regions(0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
    try:
        store.write(1, regions(1))
    except ResourceError as error:
        print(error)
    print(sorted(store.done))
"""
    out = ended(script, tmp_path / "r")[1].splitlines()
    assert "full" in out[0]
    assert "run the same command again" in out[0]
    assert out[1] == "[0]"
    assert not list((tmp_path / "r").rglob("*.partial"))
    assert tree(run(tmp_path / "r")) == tree(run(tmp_path / "fresh"))


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="cannot be written"):
        create(tmp_path / "file" / "r")


def test_two_runs_never_write_one_result(tmp_path: Path) -> None:
    with create(tmp_path / "r") as store:
        before = tree(tmp_path, ledger=True)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=f"being written by process {os.getpid()}"):
                create(tmp_path / "r", overwrite=overwrite)
        assert tree(tmp_path, ledger=True) == before
        store.write(0, regions(0))
    with create(tmp_path / "r") as store:
        assert store.done == {0}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


@pytest.mark.parametrize("chunk", ["labels/cells/0/c/1/2", "1/c/0/1", "0/c/9/8"])
def test_one_flipped_bit_is_found_and_its_chunk_named(tmp_path: Path, chunk: str) -> None:
    root = run(tmp_path / "r")
    _flip(root / chunk)
    problems = wait(verify(root))
    assert len(problems) == 1
    array, _, key = chunk.rpartition("/c/")
    assert array in problems[0]
    assert f"c/{key}" in problems[0]


def test_a_missing_chunk_and_a_missing_block_are_found(tmp_path: Path) -> None:
    root = run(tmp_path / "r")
    (root / "0/c/2/3").unlink()
    assert "c/2/3 is missing" in wait(verify(root))[0]
    with create(tmp_path / "half") as store:
        store.write(0, regions(0))
    assert f"1 of {len(CORES)} blocks" in wait(verify(tmp_path / "half"))[0]
    with pytest.raises(OutputError, match="no result"):
        wait(verify(tmp_path))


class Bomb:
    """What leaves a trace when it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.where,)


TEXT, PICKLE = {"id": "vlen-utf8"}, {"id": "pickle"}


@pytest.mark.parametrize(
    "forged",
    [
        {"filters": [PICKLE], "compressor": None},
        {"dtype": "|O", "filters": [TEXT, PICKLE], "compressor": None},
        {"dtype": "|O", "filters": [TEXT], "compressor": PICKLE},
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_result_with_a_filter_that_runs_code_is_neither_read_nor_written(
    tmp_path: Path, finished: bool, forged: dict[str, Any]
) -> None:
    root, trace = tmp_path / "r", tmp_path / "PWNED"
    if finished:
        run(root, version="0.4")
    else:
        with create(root, version="0.4") as store:
            store.write(0, regions(0))
    metadata = json.loads((root / "0/.zarray").read_text())
    (root / "0/.zarray").write_text(json.dumps(metadata | forged))
    for chunk in (path for path in (root / "0").rglob("*") if path.name.isdecimal() and path.is_file()):
        chunk.write_bytes(pickle.dumps(Bomb(trace)))
    assert any("pickle makes objects, or runs code" in problem for problem in wait(verify(root)))
    with pytest.raises(UnsafeError, match="pickle"):
        open_own(root / "0")
    if not finished:
        with pytest.raises(UnsafeError, match="pickle"):
            create(root, version="0.4")
    assert not trace.exists()


def test_metadata_that_is_gone_or_damaged_is_found(tmp_path: Path) -> None:
    root = run(tmp_path / "r")
    (root / "labels/cells/zarr.json").write_text("{")
    (root / "0/zarr.json").unlink()
    problems = "\n".join(wait(verify(root)))
    assert "the metadata of" in problems
    assert f"{root / '0'} cannot be opened" in problems


def test_damage_before_the_end_stops_publishing_and_is_mended_by_running_again(tmp_path: Path) -> None:
    root = tmp_path / "r"
    with create(root) as store:
        for block in store.pending():
            store.write(block, regions(block))
        _flip(root / "labels/cells/0/c/0/0")
        (root / "0/c/9/8").write_bytes(b"")
        with pytest.raises(IncompleteError, match=f"2 of {len(CORES)} blocks do not read back"):
            wait(store.finish())
        assert store.pending() == [0, len(CORES) - 1]
    assert _state(root) == "incomplete"
    run(root)
    assert tree(root) == tree(run(tmp_path / "fresh"))


def _source(root: Path, version: str) -> None:
    """Make somebody else's image, with labels drawn by hand."""
    zarr_format = {"0.4": 2, "0.5": 3}[version]
    dataset = {"path": "full", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}
    axes = [{"name": a, "type": "space"} for a in "yx"]
    found: dict[str, Any] = {"multiscales": [{"axes": axes, "datasets": [dataset], "version": "0.4"}], "mine": [1, 2]}
    labels: dict[str, Any] = {"labels": ["drawn"], "note": "keep"}
    if version == "0.5":
        found["multiscales"][0].pop("version")
        found, labels = (
            {"ome": {"version": "0.5", **found}},
            {"ome": {"version": "0.5", "labels": ["drawn"]}, "note": "keep"},
        )
    group = zarr.create_group(root, zarr_format=zarr_format, attributes=found)
    group.create_array("full", shape=(300, 280), chunks=(64, 64), dtype="u1")[...] = values()[1]
    group.create_group("labels", attributes=labels).create_array("drawn", shape=(300, 280), dtype="u1")[...] = 1


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_added_to_a_source_that_stays_as_it_is(tmp_path: Path, version: str) -> None:
    root = tmp_path / "source.ome.zarr"
    _source(root, version)
    before = tree(root)

    def add(**other: Any) -> ResultStore:
        return create(root, outputs=(LABELS,), into_existing=True, **other)

    with add() as store:
        store.write(0, {"labels/cells": regions(0)["labels/cells"]})
        assert {k: v for k, v in tree(root).items() if not k.startswith("labels/cells/")} == before
    with add() as store:
        assert store.done == {0}
        for block in store.pending():
            store.write(block, {"labels/cells": regions(block)["labels/cells"]})
        wait(store.finish())
    listing = "labels/zarr.json" if version == "0.5" else "labels/.zattrs"
    after = {k: v for k, v in tree(root).items() if not k.startswith("labels/cells/") and k != listing}
    assert after == {k: v for k, v in before.items() if k != listing}
    group = zarr.open_group(root / "labels", mode="r")
    said = group.attrs["ome"] if version == "0.5" else group.attrs
    assert said["labels"] == ["drawn", "cells"]
    assert group.attrs["note"] == "keep"
    np.testing.assert_array_equal(group["cells/0"][...], values()[0])
    assert wait(verify(root)) == []
    assert wait(verify(root / "labels/cells")) == []
    with pytest.raises(OutputError, match="finished already"):
        add()
    with add(overwrite=True):
        assert zarr.open_group(root, mode="r")["labels"].attrs.asdict() != {}
        assert "cells" not in (root / listing).read_text()
    whole = {k: v for k, v in tree(root).items() if not k.startswith("labels/cells/") and k != listing}
    assert whole == after


@pytest.mark.parametrize("overwrite", [False, True])
def test_labels_that_a_person_drew_are_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    root = tmp_path / "source.ome.zarr"
    _source(root, "0.5")
    before = tree(root, ledger=True)
    drawn = Output("labels/drawn", "labels", "yx", (300, 280), np.dtype("u2"), chunks=(32, 32))
    with pytest.raises(OutputError, match="not made by this program"):
        create(root, outputs=(drawn,), into_existing=True, overwrite=overwrite)
    with pytest.raises(OutputError, match="not made by this program"):
        create(root, overwrite=overwrite)
    assert tree(root, ledger=True) == before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_source_without_labels_gets_a_listing_only_when_they_are_there(tmp_path: Path, version: str) -> None:
    root = tmp_path / "source.ome.zarr"
    _source(root, version)
    shutil.rmtree(root / "labels/drawn")
    (root / "labels" / ("zarr.json" if version == "0.5" else ".zattrs")).unlink()
    if version == "0.5":
        zarr.create_group(root / "labels", attributes={"note": "keep"})
    before = tree(root / "labels")
    with create(root, outputs=(LABELS,), into_existing=True) as store:
        assert {k: v for k, v in tree(root / "labels").items() if not k.startswith("cells/")} == before
        for block in store.pending():
            store.write(block, {"labels/cells": regions(block)["labels/cells"]})
        wait(store.finish())
    attributes = zarr.open_group(root / "labels", mode="r").attrs
    assert (attributes["ome"] if version == "0.5" else attributes)["labels"] == ["cells"]
    assert version == "0.4" or attributes["note"] == "keep"


def test_labels_are_only_added_to_an_image(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for place in ("folder", "nowhere"):
        with pytest.raises(OutputError, match="not an OME-Zarr image"):
            create(tmp_path / place, outputs=(LABELS,), into_existing=True)
    _source(tmp_path / "s", "0.4")
    with pytest.raises(UsageError, match="only labels"):
        create(tmp_path / "s", outputs=(LABELS, IMAGE), into_existing=True)
    assert list((tmp_path / "folder").iterdir()) == []


def test_results_do_not_depend_on_when_and_in_which_order_they_were_written(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    with create(tmp_path / "second") as store:
        for block in reversed(store.pending()):
            store.write(block, regions(block, seed=1))
            store.write(block, regions(block))
        wait(store.finish())
        with pytest.raises(UsageError, match="finished"):
            store.write(0, regions(0))
    assert tree(first) == tree(tmp_path / "second")


@pytest.mark.parametrize("name", ["labels/cells/.napari_unet", ""])
def test_a_result_that_is_removed_while_it_is_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    work = steps(tmp_path / "r")
    for _ in range(3):
        next(work)
    shutil.rmtree(tmp_path / "r" / name)
    with pytest.raises(UnetError):
        list(work)
