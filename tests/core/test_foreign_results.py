"""Results from elsewhere: what their records say is checked, and nothing outside of them is touched."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from helpers import tree
from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, LedgerError, OutputError, UnetError, UnsafeError
from napari_unet.events import wait
from napari_unet.sources import open_stack
from napari_unet.store import verify
from napari_unet.store.journal import DONE, FOLDER, PLAN, Journal, Plan, Region
from napari_unet.store.save import save_stack
from stores import CORES, create, regions, run, steps

LEDGER = f"labels/cells/{FOLDER}"
posix = pytest.mark.skipif(os.name != "posix", reason="needs links and pipes of POSIX")


def half(root: Path) -> Path:
    """Stop a run after three blocks."""
    work = steps(root)
    for _ in range(4):
        next(work)
    work.close()  # type: ignore[attr-defined]
    return root


@posix
@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "link",
    [
        LEDGER,
        f"{LEDGER}/plan.json",
        f"{LEDGER}/plan.json.tmp",
        f"{LEDGER}/done.jsonl",
        f"{LEDGER}/lock",
        f"{LEDGER}/objects",
        "labels/cells/0",
        "labels/cells/0/c",
        "labels/cells/0/c/1",
        "labels/cells/0/zarr.json",
        "labels/cells/table",
        "0/c/0/0",
    ],
)
def test_nothing_is_touched_through_a_link(tmp_path: Path, link: str, overwrite: bool, dangling: bool) -> None:
    root, elsewhere = half(tmp_path / "r"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = root / link
    if place.exists():  # whoever follows the link finds just what it looks for
        shutil.move(place, elsewhere / "victim")
    else:
        (elsewhere / "victim").write_text("five years")
    if dangling:
        shutil.rmtree(elsewhere)
        elsewhere.mkdir()
    place.symlink_to(elsewhere / "victim")
    before = tree(elsewhere, ledger=True)
    with pytest.raises((UnsafeError, OutputError), match=r"link|not made? by this program|did not make"):
        create(root, overwrite=overwrite)
    assert tree(elsewhere, ledger=True) == before


@posix
@pytest.mark.parametrize("name", [PLAN, DONE, "lock"])
def test_a_pipe_in_a_record_is_not_waited_for(tmp_path: Path, name: str) -> None:
    root = half(tmp_path / "r")
    (root / LEDGER / name).unlink(missing_ok=True)
    os.mkfifo(root / LEDGER / name)
    with pytest.raises(UnetError, match="not a plain file"):
        create(root)


def forged(root: Path, **fields: Any) -> Path:
    """Give a result a plan that is whole, and says what it should not."""
    folder = root / LEDGER
    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"settings": {}, "outputs": {"labels/cells": {}}, "blocks": 1, "version": "0.5"}
    Plan(**{**given, "inside": False, "provenance": {}, **fields}).save(folder)
    return root


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        "../precious",
        "..",
        "/tmp",
        "labels/../../precious",
        "a/../../precious",
        "C:\\x",
        "labels/",
        ".",
        "labels/a/b",
        "0",
        ".",
    ],
)
def test_a_plan_that_leads_out_of_its_result_removes_nothing(tmp_path: Path, path: str, overwrite: bool) -> None:
    precious = tmp_path / "precious"
    zarr.create_array(precious / "0", shape=(8, 8), chunks=(4, 4), dtype="u2")[...] = 7
    (precious / "2024").mkdir()
    (precious / "2024/thesis.txt").write_text("five years")
    root = forged(tmp_path / "r", outputs={"labels/cells": {}, path: {"shape": [8, 8]}})
    before = tree(tmp_path, ledger=True)
    with pytest.raises(UnsafeError, match="names the output"):
        create(root, overwrite=overwrite)
    with pytest.raises(UnsafeError, match="names the output"):
        wait(verify(root))
    assert tree(tmp_path, ledger=True) == before


@pytest.mark.parametrize(
    "mine", ["notes.txt", "labels/cells/2024/7", "0/c/99/1/2", "0/7", f"{LEDGER}/notes.txt", f"{LEDGER}/objects/a.txt"]
)
def test_overwriting_keeps_what_the_arrays_of_the_plan_are_not(tmp_path: Path, mine: str) -> None:
    root = run(tmp_path / "r")
    (root / mine).parent.mkdir(parents=True, exist_ok=True)
    (root / mine).write_text("five years")
    before = tree(root, ledger=True)
    with pytest.raises(OutputError, match=mine.rpartition("/")[2]):
        create(root, overwrite=True)
    assert tree(root, ledger=True) == before


def test_a_record_without_a_plan_says_nothing_of_a_new_run(tmp_path: Path) -> None:
    folder = tmp_path / "r" / LEDGER
    folder.mkdir(parents=True)
    with create(tmp_path / "whole") as store:
        store.write(0, {p: (b, np.zeros_like(d)) for p, (b, d) in regions(0).items()})
        shutil.copy(store.ledger / DONE, folder / DONE)
    with create(tmp_path / "r") as store:
        assert store.pending() == list(range(len(CORES)))


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def sparse(path: Path) -> None:
    os.truncate(path, 2**40)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@posix
@pytest.mark.parametrize("make", [deep, pipe, sparse, folder])
@pytest.mark.parametrize(
    "name", ["zarr.json", "labels/cells/zarr.json", "labels/zarr.json", "0/zarr.json", "0/c/0/0", f"{LEDGER}/{DONE}"]
)
def test_whatever_lies_in_place_of_a_file_is_one_sentence(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    begun = half(tmp_path / "begun")
    make(begun / name)
    with contextlib.suppress(UnetError):
        run(begun)
    root = run(tmp_path / "r")
    make(root / name)
    with contextlib.suppress(UnetError):
        assert wait(verify(root)) or name == "labels/zarr.json"
    with contextlib.suppress(UnetError):
        create(root, overwrite=True).close()
    with contextlib.suppress(UnetError):
        open_stack(root / "labels/cells")


def test_an_unfinished_result_says_how_much_of_it_is_done(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"unfinished result: 3 of {len(CORES)} blocks"):
        open_stack(half(tmp_path / "r"))


ABSURD: list[Callable[[dict[str, Any]], Any]] = [
    lambda v: v.update(blocks=10**30),
    lambda v: v.update(blocks=-1),
    lambda v: v.update(blocks=True),
    lambda v: v.update(blocks="4"),
    lambda v: v.update(outputs=[]),
    lambda v: v.update(outputs={}),
    lambda v: v.update(settings=3),
    lambda v: v.update(version=[]),
    lambda v: v.update(version="0.6"),
    lambda v: v.update(inside=0),
    lambda v: v.update(provenance=None, blocks=10**12, outputs={"labels/cells": {"shape": [2**40, 64]}}),
]


@pytest.mark.parametrize("change", ABSURD)
def test_a_plan_that_no_run_can_have_is_one_sentence(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    root = half(tmp_path / "r")
    values = json.loads((root / LEDGER / PLAN).read_text())
    change(values)
    values.pop("fingerprint")
    (root / LEDGER / PLAN).write_text(json.dumps(values))
    started = time.monotonic()
    for work in (lambda: create(root), lambda: wait(verify(root))):
        with pytest.raises(LedgerError, match=r"plan\.json"):
            work()
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 5000, "1e999", "NaN", "9" * 5000, '"x"', "\0" * 99])
def test_a_plan_that_is_no_plan_is_one_sentence(tmp_path: Path, text: str) -> None:
    root = half(tmp_path / "r")
    (root / LEDGER / PLAN).write_text(text)
    with pytest.raises(LedgerError, match="damaged"):
        create(root)
    assert LedgerError.exit_code == 3


LINES = [
    b'{"unit":3,"regions":[["labels/cells/0",[0,0],[1000000000000,64],1]]}',
    b'{"unit":3,"regions":[["0",[0,0],[9223372036854775808,9223372036854775808],1]]}',
    b'{"unit":3,"regions":[["0",[-5,0],[64,96],1]]}',
    b'{"unit":3,"regions":[["0",[0.5,0],[64,96],1]]}',
    b'{"unit":3,"regions":[["0",[0],[64,96],1]]}',
    b'{"unit":3,"regions":[["0",[0,0],[64,96],1e400]]}',
    b'{"unit":3,"regions":[["../../elsewhere/0",[0,0],[64,96],1]]}',
    b'{"unit":3,"regions":[["/etc/0",[0,0],[64,96],1]]}',
    b'{"unit":3,"regions":[["0/../0",[0,0],[64,96],1]]}',
    b'{"unit":3,"regions":[[["0"],[0,0],[64,96],1]]}',
    b'{"unit":3,"regions":7}',
    b'{"unit":1000000000000000000000000000000,"regions":[]}',
    b'{"unit":999,"regions":[]}',
    b'{"unit":-1,"regions":[]}',
    b'{"unit":true,"regions":[]}',
    b'{"unit":null,"regions":[]}',
    b'{"unit":{"a":1},"regions":[]}',
    b'{"forget":[[1]]}',
    b'{"forget":[1e999]}',
    b'{"forget":7}',
    b"[" * 100_000,
    b"9" * 100_000,
    b"\0" * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_cannot_be_of_the_plan_is_passed_over(tmp_path: Path, line: bytes) -> None:
    root = half(tmp_path / "r")
    with (root / LEDGER / DONE).open("ab") as file:
        file.write(line + b"\n")
    problems = wait(verify(root))
    assert any("unfinished: 3 of" in problem for problem in problems)
    run(root)
    assert tree(root) == tree(run(tmp_path / "whole"))
    assert wait(verify(root)) == []


def test_a_file_of_nothing_is_no_record(tmp_path: Path) -> None:
    root = half(tmp_path / "r")
    with (root / LEDGER / DONE).open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(LedgerError, match="not a record of a run"):
        create(root)


def test_each_flipped_bit_of_a_record_costs_its_block_and_no_more(tmp_path: Path) -> None:
    whole, rng = run(tmp_path / "whole"), np.random.default_rng(0)
    data = (whole / LEDGER / DONE).read_bytes()
    expected = tree(whole)
    for number in rng.integers(0, 8 * len(data), 25).tolist():
        flipped = bytearray(data)
        flipped[number // 8] ^= 1 << number % 8
        (whole / LEDGER / DONE).write_bytes(flipped)
        assert wait(verify(whole)) != [], "a damaged record is said"
        with create(whole) as store:
            assert len(store.pending()) <= 2  # a line break that is lost joins two lines
        run(whole)
        assert wait(verify(whole)) == []
        assert tree(whole) == expected


def test_records_of_earlier_versions_are_read(tmp_path: Path) -> None:
    root = half(tmp_path / "r")
    path = root / LEDGER / DONE
    old = b"".join(b"{" + line[18:] for line in path.read_bytes().splitlines(keepends=True))
    assert b"sum" not in old
    path.write_bytes(old)
    with create(root) as store:
        assert store.count == 3
    run(root)
    assert path.read_bytes().startswith(old)
    assert wait(verify(root)) == []


def test_many_forgotten_units_are_several_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    units = [f"labels/cells/1#{n}" for n in range(2500)]
    for unit in units:
        journal.append(unit, [Region("labels/cells/1", (0, 0), (1, 1), 0)])
    journal.forget(units)
    assert len(Journal(tmp_path).records) == 0
    assert max(map(len, (tmp_path / DONE).read_bytes().splitlines())) < 2**16


SAVED = {
    "an image": (Stack(np.arange(96 * 96, dtype="u2").reshape(96, 96), "yx"), {}),
    "an image of 0.4": (Stack(np.arange(96 * 96, dtype="u2").reshape(96, 96), "yx"), {"version": "0.4"}),
    "labels": (Stack(np.eye(64, dtype="u4"), "yx"), {"kind": "labels"}),
    "channels": (Stack(np.ones((2, 8, 32, 32), "f4"), "czyx"), {}),
    "a time series": (Stack(np.zeros((3, 40, 30), "u1"), "tyx"), {}),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", SAVED)
def test_what_somebody_saved_is_not_replaced_by_a_run(tmp_path: Path, overwrite: bool, kind: str) -> None:
    image, options = SAVED[kind]
    wait(save_stack(image, tmp_path / "mine.ome.zarr", **options))
    before = tree(tmp_path, ledger=True)
    with pytest.raises(OutputError, match="was saved by hand"):
        create(tmp_path / "mine.ome.zarr", overwrite=overwrite)
    assert tree(tmp_path, ledger=True) == before
    wait(save_stack(image, tmp_path / "mine.ome.zarr", overwrite=True, **options))
