"""Metadata with values that nobody means opens, or is refused in one line: never with a traceback, and at once."""

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_unet import TrainConfig, evaluate, wait
from napari_unet.arrays.cached import cached
from napari_unet.errors import DataError, UnetError
from napari_unet.objects.labelling import label_rows
from napari_unet.sources import missing_chunks, open_labels, open_stack
from napari_unet.sources.describe import describe
from napari_unet.store.save import save_stack
from napari_unet.text import escaped
from napari_unet.training.setup import outlook

MUTATIONS = 60  # of each store; thousands were tried by hand
LONGEST = 1200  # letters of a message
DEEP: Any = 1
for _ in range(60):
    DEEP = [DEEP]
ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    2**31,
    2**63,
    2**64,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "/etc",
    "\0",
    "0" * 400,
    "é\u202e\n\x1b[31m",
    "NaN",
    [],
    [[]],
    [None],
    [0],
    [1] * 100,
    {},
    {"": {}},
    {"name": 5},
    {"name": "bytes"},
    {"type": "scale", "scale": 5},
    DEEP,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value in a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(document: Any, chance: random.Random) -> Any:
    """Change, remove, add, double or exchange one to three values."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 2, 3))):
        *way, last = chance.choice([p for p in places(document) if p] or [("x",)])
        holder = document
        for key in way:
            holder = holder[key]
        change = chance.choice(("set", "set", "set", "remove", "add", "double", "swap"))
        if change == "remove":
            del holder[last]
        elif change == "add" and isinstance(holder, dict):
            words = [
                "napari_unet",
                "_ARRAY_DIMENSIONS",
                "plate",
                "well",
                "labels",
                "omero",
                "axes",
                "storage_transformers",
            ]
            holder[chance.choice(words)] = copy.deepcopy(chance.choice(ODD))
        elif change == "double" and isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last]))
        elif change == "swap" and isinstance(holder, list):
            chance.shuffle(holder)
        else:
            holder[last] = copy.deepcopy(chance.choice(ODD))
        if not isinstance(document, dict) or not document:
            break
    return document


def made(root: Path, version: str) -> Path:
    """Make an image of 0.4, 0.5 or 0.6 with two levels, channels, labels, shards and what is said of them."""
    old = version == "0.4"
    zarr_format = 2 if old else 3
    scale = [{"type": "scale", "scale": [1, 2, 0.5, 0.5]}, {"type": "translation", "translation": [0, 1, 2, 3]}]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    axes = [{"name": "c", "type": "channel"}, *axes]
    multiscale: dict[str, Any] = {"name": "a", "axes": axes}
    steps = scale
    if version == "0.6":
        multiscale = {"name": "a", "coordinateSystems": [{"name": "physical", "axes": axes}]}
        steps = [{"type": "sequence", "transformations": scale, "input": "0", "output": "physical"}]
    multiscale["datasets"] = [{"path": "0", "coordinateTransformations": steps}, {"path": "1"}]
    window = {"start": 0, "end": 9, "min": 0, "max": 9}
    channels = [{"label": n, "color": "FF0000", "window": window, "active": True} for n in "ab"]
    about: dict[str, Any] = {"multiscales": [multiscale], "omero": {"channels": channels}}
    if old:
        multiscale["version"] = "0.4"
    ours = {"napari_unet": {"state": "complete", "result": "", "blocks": 2, "provenance": {"model": "x"}}}
    group = zarr.create_group(
        str(root), zarr_format=zarr_format, attributes=(about if old else {"ome": {"version": version, **about}}) | ours
    )
    more: dict[str, Any] = {} if old else {"shards": (1, 2, 4, 4)}
    for name, shape in (("0", (2, 2, 8, 8)), ("1", (2, 2, 4, 4))):
        options = {"chunks": (1, 2, 2, 2), "dtype": "u2", **more}
        array = group.create_array(name, shape=shape, attributes={"_ARRAY_DIMENSIONS": list("czyx")}, **options)
        array[...] = 1
    listing: dict[str, Any] = {"labels": ["cells"]}
    plain = {"axes": ["y", "x"], "datasets": [{"path": "0"}], **({"version": "0.4"} if old else {})}
    image_label = {"colors": [{"label-value": 1, "rgba": [255, 0, 0, 255]}], "properties": [{"label-value": 1, "a": 2}]}
    cells: dict[str, Any] = {"multiscales": [plain], "image-label": image_label}
    labels = group.create_group("labels", attributes=listing if old else {"ome": {"version": version, **listing}})
    inner = labels.create_group("cells", attributes=cells if old else {"ome": {"version": version, **cells}})
    inner.create_array("0", shape=(8, 8), chunks=(4, 4), dtype="u1")[...] = 1
    return root


def tried(root: Path) -> str:
    """Open a store in every way; return what was done, or the message of the refusal."""
    said = []
    for attempt in (
        lambda: open_stack(root),
        lambda: open_stack(root, level=1, channel=0),
        lambda: open_stack(root / "0"),
        lambda: open_labels(root),
        lambda: describe(root),
        lambda: describe(root / "labels" / "cells"),
    ):
        try:
            found = attempt()
            if hasattr(found, "read"):
                missing_chunks(found)
                found.read(tuple(slice(0, 1) for _ in found.shape))
            said.append("opened")
        except UnetError as error:
            assert error.exit_code in (2, 3, 4), error
            said.append(escaped(error))  # as the shell shows it, in one line
    return max(said, key=len)


def files(root: Path) -> list[Path]:
    names = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    return sorted(p for p in root.rglob("*") if p.name in names and json.loads(p.read_text()))


def attack(folder: Path, version: str, seeds: range) -> list[str]:
    """Mutate one file of a store for each seed, and try it; return what was said."""
    root = made(folder / "a.zarr", version)
    said = []
    for seed in seeds:
        chance = random.Random(seed)
        file = chance.choice(files(root))
        before = file.read_text()
        file.write_text(json.dumps(mutated(json.loads(before), chance)))
        try:
            said.append(tried(root))
        except BaseException as error:
            error.add_note(f"seed {seed}, {version}, {file.relative_to(root)}: {file.read_text()[:3000]}")
            raise
        finally:
            file.write_text(before)
    shutil.rmtree(root)
    return said


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6"])
@pytest.mark.parametrize("part", range(2))
def test_mutated_metadata_opens_or_is_refused_in_one_line(tmp_path, version, part):
    said = attack(tmp_path, version, range(part * MUTATIONS, (part + 1) * MUTATIONS))
    assert all(len(text) < LONGEST for text in said)
    assert 0 < np.mean([text == "opened" for text in said]) < 1


ODD_ATTRIBUTES = [
    {"napari_unet": 5},
    {"napari_unet": [1]},
    {"napari_unet": {"state": 5, "result": 7, "provenance": []}},
    {"napari_unet": {"result": "../x"}},
    {"_ARRAY_DIMENSIONS": 5},
    {"_ARRAY_DIMENSIONS": {"y": 1}},
    {"_ARRAY_DIMENSIONS": [5, None, [], {}]},
    {"multiscales": 5},
    {"multiscales": [None]},
    {"plate": 5},
    {"plate": {"wells": [5, {"path": 5}]}},
    {"well": {"images": "x"}},
    {"omero": 5},
    {"labels": {"a": 1}},
    {"image-label": 5},
]


@pytest.mark.parametrize("odd", ODD_ATTRIBUTES, ids=str)
@pytest.mark.parametrize("place", ["", "0", "labels", "labels/cells"])
def test_odd_attributes_end_in_no_traceback(tmp_path, odd, place):
    root = made(tmp_path / "a.zarr", "0.4")
    file = root / place / ".zattrs"
    for keep in (True, False):
        file.write_text(json.dumps((json.loads(file.read_text()) if keep else {}) | odd))
        tried(root)


SHARD = {"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "codecs": [{"name": "bytes"}]}}
ARRAYS = {
    "inner chunk of 0": {"codecs": [{**SHARD, "configuration": {**SHARD["configuration"], "chunk_shape": [0, 2]}}]},
    "inner chunk of another rank": {
        "codecs": [{**SHARD, "configuration": {**SHARD["configuration"], "chunk_shape": [2]}}]
    },
    "packed before they are bytes": {"codecs": [{"name": "gzip"}, {"name": "bytes"}]},
    "turned after they are bytes": {"codecs": [{"name": "bytes"}, {"name": "transpose"}]},
    "no bytes": {"codecs": [{"name": "gzip"}]},
    "no codecs": {"codecs": []},
    "bytes twice": {"codecs": [{"name": "bytes"}, {"name": "bytes"}]},
    "index packed before it is bytes": {
        "codecs": [{**SHARD, "configuration": {**SHARD["configuration"], "index_codecs": [{"name": "crc32c"}]}}]
    },
    "shards of 0": {
        "codecs": [SHARD],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 2]}},
    },
    "chunks of 0": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 2]}}},
    "shape that is text": {"shape": "88"},
    "shape past 63 bits": {"shape": [2**63, 8]},
    "names that are numbers": {"dimension_names": 5},
    "fill value": {"fill_value": []},
    "fill value of 400 digits": {"fill_value": 10**400},
    "attributes": {"attributes": 5},
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_cannot_be_are_refused(tmp_path, case):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(8, 8), chunks=(4, 4), dtype="u2")[...] = 1
    file = tmp_path / "a.zarr" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | ARRAYS[case]))
    with pytest.raises(DataError) as caught:
        open_stack(tmp_path / "a.zarr", "yx").read((slice(0, 8), slice(0, 8)))
    assert len(escaped(caught.value)) < LONGEST


@pytest.mark.parametrize(
    ("shape", "chunk"), [((2**40, 64), 64), ((2**62, 4), 4), ((2**40, 2**40), 64), ((2**20, 2**20), 1)]
)
def test_an_image_larger_than_any_is_described_and_not_computed_on(tmp_path, shape, chunk):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=shape, chunks=(chunk, chunk), dtype="u1")
    stack = open_stack(tmp_path / "a.zarr", "yx")
    assert dict(describe(tmp_path / "a.zarr"))["axes"] == "yx"
    with pytest.raises(DataError, match="more than any disk holds"):
        cached(stack)
    with pytest.raises(DataError, match="more than any disk holds"):
        wait(save_stack(stack, tmp_path / "b.zarr"))


@pytest.mark.parametrize(("shape", "chunk"), [((2**40, 64), 2**20), ((2**20,) * 3, 64), ((2**20,) * 3, 1024)])
@pytest.mark.parametrize("use", ["instances", "intensity", "labels", "blind", "info"])
def test_an_image_larger_than_any_is_neither_scored_nor_learnt_from(tmp_path, shape, chunk, use):
    chunks = tuple(min(chunk, n) for n in shape)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=shape, chunks=chunks, dtype="u1")
    stack = open_stack(tmp_path / "a.zarr", "zyx"[-len(shape) :])
    with pytest.raises(DataError, match="more than any disk holds"):
        if use == "info":
            label_rows(stack)
        elif use in ("labels", "blind"):
            task = TrainConfig(**({"task": "restore", "blind": True} if use == "blind" else {}))
            wait(outlook([(stack, stack)], task))
        else:
            evaluate(stack, stack, use)
