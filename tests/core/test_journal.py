"""The ledger: what is recorded is read back, what is torn counts as not done; plans name what changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import OutputError
from napari_unet.files import plain
from napari_unet.store.journal import DONE, PLAN, Journal, Plan, Region

REGIONS = st.builds(
    lambda array, box, crc: Region(array, tuple(a for a, _ in box), tuple(a + n for a, n in box), crc),
    st.sampled_from(["labels/a/0", "0", "probabilities/1"]),
    st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 512)), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
)
ENTRIES = st.lists(
    st.tuples(st.one_of(st.integers(0, 50), st.text(max_size=8)), st.lists(REGIONS, max_size=3)), max_size=12
)


@settings(deadline=None, max_examples=50)
@given(ENTRIES, st.integers(0, 10**6), st.sampled_from([0, 20, 60]))
def test_a_ledger_cut_anywhere_gives_back_its_whole_lines_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[Any, list[Region]]], cut: int, blocks: int
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    journal = Journal(folder, blocks)
    for unit, regions in entries:
        journal.append(unit, regions)
    assert Journal(folder).records == journal.records == dict(journal.records.walk())
    path = folder / DONE
    data = path.read_bytes() if entries else b""
    data = data[: cut % (len(data) + 1)]
    path.write_bytes(data)
    # A line that lacks just its end is whole; any other cut line is not.
    lines = data.split(b"\n")
    whole = entries[: len(lines) - 1]
    if len(whole) < len(entries) and lines[-1].endswith(b"]}"):
        whole = entries[: len(lines)]
    again = Journal(folder, blocks)
    assert again.records == {unit: tuple(regions) for unit, regions in whole}
    assert again.records.count == len(again.blocks)
    again.append(99, [])
    assert Journal(folder).records == {**{unit: tuple(regions) for unit, regions in whole}, 99: ()}


@settings(deadline=None, max_examples=50)
@given(
    st.binary(max_size=60),
    st.sampled_from([b"{}", b"[1]", b"3", b'{"unit":1}', b'{"unit":[],"regions":[]}', b'{"forget":7}']),
)
def test_lines_that_are_no_records_are_passed_over(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, line: bytes
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    good = b'{"unit":4,"regions":[["0",[0,0],[2,2],17]]}\n'
    (folder / DONE).write_bytes(noise + b"\n" + line + b"\n" + good)
    assert Journal(folder).records[4] == (Region("0", (0, 0), (2, 2), 17),)


def test_forgotten_units_are_to_be_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for unit in (1, 2, "0/1#3"):
        journal.append(unit)
    journal.forget([2, "0/1#3"])
    assert Journal(tmp_path).blocks.tolist() == [1]
    assert set(Journal(tmp_path).records) == {1}


def plan(**other: Any) -> Plan:
    given: dict[str, Any] = {"settings": {"model": {"sha": "a"}, "block": (64, 64)}, "outputs": {"": {"dtype": "<u2"}}}
    given |= {"blocks": 4, "version": "0.5", "inside": False, "provenance": {"torch": "2"}}
    return Plan(**{**given, **other})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"model": {"sha": "b"}, "block": (64, 64)}}, 'model.sha was "a" and is now "b"'),
        ({"settings": {"model": {"sha": "a"}, "block": (64, 32)}}, "block was [64, 64] and is now [64, 32]"),
        ({"settings": {"model": {"sha": "a"}}}, "block was [64, 64] and is now null"),
        ({"outputs": {"": {"dtype": "|u1"}}}, 'outputs..dtype was "<u2" and is now "|u1"'),
        ({"blocks": 5}, "blocks was 4 and is now 5"),
    ],
)
def test_the_field_that_changed_is_named(changed: dict[str, Any], said: str) -> None:
    assert plan().difference(plan(**changed)) == said
    assert plan().fingerprint != plan(**changed).fingerprint


def test_plans_are_equal_after_a_round_trip_whatever_the_versions(tmp_path: Path) -> None:
    given = plan(settings={"a": np.float32(0.5), "b": (1, None), "p": tmp_path, "n": np.arange(3), "x": float("nan")})
    given.save(tmp_path)
    back = Plan.load(tmp_path)
    assert back.difference(given) is None
    assert back.difference(plan(settings=given.settings, provenance={"torch": "3"})) is None
    assert given.settings == {"a": 0.5, "b": [1, None], "p": str(tmp_path), "n": [0, 1, 2], "x": "nan"}
    assert [f.name for f in tmp_path.iterdir()] == [PLAN]


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"settings": 3}'])
def test_a_damaged_plan_is_named(tmp_path: Path, damage: str) -> None:
    plan().save(tmp_path)
    (tmp_path / PLAN).write_text(damage)
    with pytest.raises(OutputError, match=r"plan\.json is damaged"):
        Plan.load(tmp_path)


def test_a_plan_changed_by_hand_is_refused(tmp_path: Path) -> None:
    plan().save(tmp_path)
    values = json.loads((tmp_path / PLAN).read_text())
    values["settings"]["model"]["sha"] = "b"
    (tmp_path / PLAN).write_text(json.dumps(values))
    with pytest.raises(OutputError, match="changed by hand"):
        Plan.load(tmp_path)


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_plain_values_survive_json(value: Any) -> None:
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == plain(value)
