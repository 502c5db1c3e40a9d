"""The table of a batch: each row is written in place, whatever columns come and go, at a cost that is its own."""

import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.store.journal import FOLDER
from napari_unet.summary import COLUMNS, SUMMARY, Row, Summary

FILES = [f"{name}.tif" for name in "abcd"]
ROWS = st.builds(
    Row,
    file=st.sampled_from(FILES),
    state=st.just("failed"),
    seconds=st.just(1.5),
    message=st.sampled_from(["", "=1+1", 'a "name", with a comma', "ä\nb"]),
    counts=st.dictionaries(st.sampled_from(["background", "cell", "µm"]), st.integers(0, 9), max_size=2),
    well=st.sampled_from(["", "A1"]),
)


def made(folder: Path, name: str) -> Path:
    (folder / name / FOLDER).mkdir(parents=True)
    return folder / name


@settings(max_examples=20, deadline=None)
@given(st.lists(ROWS | st.sampled_from(FILES), max_size=12))
def test_the_table_is_that_of_its_rows_whatever_was_written_before(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("tables")
    out, rows = made(folder, "changed"), dict[str, Row]()
    table = Summary(out)
    for change in changes:
        if isinstance(change, Row):
            rows[change.file] = change
            table.put(change)
        else:
            rows.pop(change, None)
            table.drop(change)
    if rows:
        fresh = Summary(made(folder, "fresh"))
        for row in rows.values():
            fresh.put(row)
        assert (out / SUMMARY).read_bytes() == (folder / "fresh" / SUMMARY).read_bytes()
        assert list(Summary(out).rows.values()) == list(rows.values())


def test_a_row_costs_no_more_where_thousands_are_written(tmp_path):
    out = made(tmp_path, "out")
    lines = [",".join(COLUMNS), *(f"{i}.tif,failed,1.0,no image,," for i in range(5000))]
    (out / SUMMARY).write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    table, began = Summary(out), time.process_time()
    for i in range(40):
        table.put(Row(f"{i}.tif", "failed", 2.0))
    assert time.process_time() - began < 0.5  # 0.1 s; all of them written anew each time took 1.0
    assert len(Summary(out).rows) == 5000
