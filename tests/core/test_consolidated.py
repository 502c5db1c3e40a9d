"""Labels in a group with consolidated metadata are seen by those who trust it, as by those who look at the disk."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_unet import open_stack, wait
from napari_unet.store.save import save_stack

HOLDERS = {"0.5": "zarr.json", "0.4": ".zmetadata"}
WHERE = ["image", "labels", "image and labels", "plate"]


def plate(folder: Path, version: str) -> Path:
    """Make two images of a plate, the first with labels drawn by hand; return the first."""
    zarr_format = {"0.4": 2, "0.5": 3}[version]
    zarr.create_group(folder / "plate.zarr", zarr_format=zarr_format, attributes={"mine": 1})
    for row in "AB":
        axes = [{"name": a, "type": "space"} for a in "yx"]
        steps = [{"type": "scale", "scale": [0.5, 0.5]}]
        about = {"multiscales": [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}]}
        if version == "0.4":
            about["multiscales"][0]["version"] = "0.4"
        attributes = about if version == "0.4" else {"ome": {"version": "0.5", **about}}
        for place in (f"{row}", f"{row}/1"):
            zarr.create_group(folder / "plate.zarr" / place, zarr_format=zarr_format)
        image = zarr.create_group(folder / "plate.zarr" / row / "1/0", zarr_format=zarr_format, attributes=attributes)
        image.create_array("s0", shape=(600, 500), chunks=(200, 200), dtype="u1")[...] = 3
        if row == "A":
            listing = {"labels": ["drawn"]}
            listing = listing if version == "0.4" else {"ome": {"version": "0.5", **listing}}
            image.create_group("labels", attributes=listing).create_array("drawn", shape=(9, 9), dtype="u1")
    return folder / "plate.zarr" / "A/1/0"


def consolidate(image: Path, where: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "labels" in where:
            zarr.consolidate_metadata(str(image / "labels"))
        if "image" in where:
            zarr.consolidate_metadata(str(image))
        if where == "plate":
            zarr.consolidate_metadata(str(image.parents[2]))


def add(image: Path, name: str, **more) -> None:
    wait(save_stack(open_stack(np.ones((600, 500), "u2"), "yx"), image, kind="labels", name=name, **more))


def seen(place: Path, *path: str) -> dict[str, tuple]:
    """Return all that `zarr.open_group` shows, from the copy where there is one."""
    group = zarr.open_group(str(place), mode="r", path="")
    found = {name: (type(node).__name__, dict(node.attrs)) for name, node in group.members(max_depth=None)}
    return {name: about for name, about in found.items() if ".napari_unet" not in name}


def on_disk(place: Path) -> dict[str, tuple]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(str(place), mode="r", use_consolidated=False)
        found = {n: (type(m).__name__, dict(m.attrs)) for n, m in group.members(max_depth=None)}
    return {name: about for name, about in found.items() if ".napari_unet" not in name}


def place_of(image: Path, where: str) -> Path:
    return {"plate": image.parents[2], "labels": image / "labels"}.get(where, image)


@pytest.mark.parametrize("version", HOLDERS)
@pytest.mark.parametrize("where", WHERE)
def test_labels_are_seen_through_every_copy(tmp_path, version, where):
    image = plate(tmp_path, version)
    consolidate(image, where)
    place = place_of(image, where)
    before = seen(place)
    for name in ("cells", "more cells"):
        add(image, name)
        assert seen(place) == on_disk(place)
    prefix = {"plate": "A/1/0/labels/", "labels": ""}.get(where, "labels/")
    group = zarr.open_group(str(place), mode="r")
    assert np.asarray(group[f"{prefix}cells/0"]).sum() == 600 * 500
    assert set(before) < set(seen(place))
    assert len(seen(place)) == len(before) + 2 * 4  # two groups of three levels each


@pytest.mark.parametrize("version", HOLDERS)
def test_labels_that_are_replaced_or_unfinished_are_not_shown_as_they_were(tmp_path, version):
    image = plate(tmp_path, version)
    consolidate(image, "image")
    add(image, "cells")
    data = np.ones((100, 500), "u2")
    run = save_stack(open_stack(data, "yx"), image, kind="labels", name="cells", overwrite=True)
    assert next(run).stage == "overwrite"  # what goes is said before it does
    assert "labels/cells" in seen(image)
    next(run)
    run.close()
    assert "labels/cells" not in seen(image)
    assert "labels/drawn" in seen(image)
    wait(save_stack(open_stack(data, "yx"), image, kind="labels", name="cells"))
    assert zarr.open_group(str(image), mode="r")["labels/cells/0"].shape == (100, 500)


@pytest.mark.parametrize("version", HOLDERS)
def test_the_first_labels_of_an_image_are_seen(tmp_path, version):
    image = plate(tmp_path, version).parents[2] / "B/1/0"
    consolidate(image, "image")
    add(image, "cells")
    assert seen(image) == on_disk(image)


@pytest.mark.parametrize("version", HOLDERS)
def test_all_else_in_the_copy_stays(tmp_path, version):
    image = plate(tmp_path, version)
    consolidate(image, "plate")
    holder = image.parents[2] / HOLDERS[version]
    before = json.loads(holder.read_text())
    listed = before["consolidated_metadata"]["metadata"] if version == "0.5" else before["metadata"]
    before["note"] = float("nan")
    holder.write_text(json.dumps(before))
    add(image, "cells")
    after = json.loads(holder.read_text())
    now = after["consolidated_metadata"]["metadata"] if version == "0.5" else after["metadata"]
    assert {k: v for k, v in now.items() if "A/1/0/labels" not in k} == {
        k: v for k, v in listed.items() if "A/1/0/labels" not in k
    }
    assert str(after["note"]) == "nan"
    assert {k: v for k, v in after.items() if k not in ("note", "consolidated_metadata", "metadata")} == {
        k: v for k, v in before.items() if k not in ("note", "consolidated_metadata", "metadata")
    }


@pytest.mark.parametrize("version", HOLDERS)
@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"metadata": 5}', '{"consolidated_metadata": 5}'])
def test_a_copy_that_is_damaged_is_left_as_it_is(tmp_path, version, content):
    image = plate(tmp_path, version)
    holder = image.parents[2] / HOLDERS[version]
    holder.write_text(content)
    add(image, "cells")
    assert holder.read_text() == content


@pytest.mark.parametrize("version", HOLDERS)
def test_a_copy_that_is_a_link_is_not_written_through(tmp_path, version):
    image = plate(tmp_path, version)
    consolidate(image, "plate")
    holder = image.parents[2] / HOLDERS[version]
    before = holder.read_bytes()
    link = holder.with_name("elsewhere")
    shutil.move(holder, link)
    holder.symlink_to(link)
    add(image, "cells")
    assert link.read_bytes() == before
    assert "cells" in str(on_disk(image))


@pytest.mark.parametrize("version", HOLDERS)
def test_no_copy_is_made_where_none_was(tmp_path, version):
    image = plate(tmp_path, version)
    before = {p: p.read_bytes() for p in (tmp_path / "plate.zarr").rglob("*") if p.is_file()}
    add(image, "cells")
    listing = image / "labels" / ("zarr.json" if version == "0.5" else ".zattrs")
    now = {p: p.read_bytes() for p in (tmp_path / "plate.zarr").rglob("*") if p.is_file() and "cells" not in p.parts}
    assert {p for p in now if now[p] != before.get(p)} == {listing}
