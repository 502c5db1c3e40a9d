from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import DataError
from napari_unet.sources import describe, list_images, pair_paths


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".zarr"):
            zarr.create_array(str(folder / name), shape=(4, 5), dtype="u1")
        else:
            (folder / name).write_bytes(b"")
    return folder


def names(pairs):
    return [(a.name, b.name) for a, b in pairs]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.from_regex(r"[a-z]{1,4}[0-9]{1,3}", fullmatch=True), min_size=2, max_size=6, unique=True),
    st.sampled_from(
        ["{}.tif", "{}_label.tif", "{}_mask.png", "label_{}.png", "mask-{}.tif", "{}.ome.tif", "{}_cp_masks.tif"]
    ),
    st.sampled_from(["{}.tif", "{}.png", "{}.ome.tif", "img_{}.tif", "{}_image.tif"]),
    st.randoms(),
)
def test_each_image_is_paired_with_the_labels_of_its_name(tmp_path_factory, stems, label, image, random):
    root = tmp_path_factory.mktemp("pairs")
    shuffled = random.sample(stems, len(stems))
    images = touch(root / "images", *(image.format(s) for s in stems))
    labels = touch(root / "labels", *(label.format(s) for s in shuffled))
    assert sorted(names(pair_paths([images], [labels]))) == sorted((image.format(s), label.format(s)) for s in stems)


def test_names_that_differ_by_a_common_part_pair_and_numbers_stay_whole(tmp_path):
    images = touch(tmp_path / "a", *(f"exp_{i}_w1.tif" for i in (1, 2, 10, 11)))
    labels = touch(tmp_path / "b", *(f"result{i}.tif" for i in (1, 2, 10, 11)))
    assert names(pair_paths([images], [labels]))[2] == ("exp_10_w1.tif", "result10.tif")
    other = touch(tmp_path / "c", "t_0.tif", "t_1.tif")
    with pytest.raises(DataError, match="no labels for"):
        pair_paths([touch(tmp_path / "d", "s_10.tif", "s_11.tif")], [other])


def test_what_has_no_partner_is_named(tmp_path):
    images, labels = touch(tmp_path / "a", "1.tif", "2.tif", "3.tif"), touch(tmp_path / "b", "2.tif", "3.tif", "4.tif")
    with pytest.raises(DataError, match=r"no labels for .*a/1\.tif, no image for .*b/4\.tif"):
        pair_paths([images], [labels])


def test_one_goes_with_one_but_nothing_else_is_paired_by_its_place(tmp_path):
    touch(tmp_path, "a.tif", "b.tif", "x.tif", "y.tif")
    files = {n: tmp_path / f"{n}.tif" for n in "abxy"}
    assert pair_paths([files["a"]], [files["y"]]) == [(files["a"], files["y"])]
    with pytest.raises(DataError, match=r"no labels for .*a\.tif.*b\.tif, no image for .*x\.tif.*rename them so that"):
        pair_paths([files["a"], files["b"]], [files["x"], files["y"]])


NUMBERED = [
    ("img_{}.tif", "mask_{:03d}.tif"),
    ("cell_{}.tif", "nucleus_{:05d}.png"),
    ("t{:02d}.tif", "t{}.tif"),
    ("2024-01-05_w1_{:04d}.tif", "{}_mask.tif"),
    ("exp1_s{}_ch0.tif", "EXP1_S{:02d}_CH0_labels.tif"),
    ("frame{}.ome.tif", "man_seg{:03d}.tif"),
    ("Pos {}.png", "pos {:04d}.png"),
]


@pytest.mark.parametrize(("image", "label"), NUMBERED)
@pytest.mark.parametrize("given", ["folders", "files", "files turned"])
def test_numbers_in_names_are_compared_as_numbers(tmp_path, image, label, given):
    numbers = [1, 2, 9, 10, 11, 100]
    folders = (
        touch(tmp_path / "i", *(image.format(n) for n in numbers)),
        touch(tmp_path / "l", *(label.format(n) for n in numbers)),
    )
    sides = [[folder] if given == "folders" else sorted(folder.iterdir()) for folder in folders]
    sides[1] = sides[1][::-1] if given == "files turned" else sides[1]
    expected = [(image.format(n), label.format(n)) for n in numbers]
    assert sorted(names(pair_paths(*sides))) == sorted(expected)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["img_0", "img_1", "img_2"], ["mask_1", "mask_2", "mask_3"]),  # counted from 0 and from 1
        (["a1", "b2"], ["b1", "a2"]),  # the letters say otherwise
        (["wt_1", "ko_1"], ["first_1", "second_1"]),
        (["t9", "t10"], ["t90", "t10"]),
        (["x1_y2", "x2_y1"], ["m_12", "m_21"]),
        (["a", "b", "c"], ["p", "q", "r"]),
        (["cell_1", "cell_2"], ["cell_1", "cell_2", "cell_3"]),
    ],
)
def test_names_that_do_not_agree_pair_nothing_and_say_what_is_left(tmp_path, images, labels):
    sides = [
        sorted(touch(tmp_path / side, *(f"{n}.tif" for n in stems)).iterdir())
        for side, stems in (("i", images), ("l", labels))
    ]
    with pytest.raises(DataError, match=r"do not pair by name: .*no image for .*; (rename|add)"):
        pair_paths(*sides)


def test_an_image_given_twice_is_refused_under_whatever_name(tmp_path):
    images = touch(tmp_path / "i", "1.tif", "2.tif")
    labels = touch(tmp_path / "l", "1.tif", "2.tif", "3.tif")
    for again in ([images, images / "1.tif"], [images / "1.tif", images / "2.tif", images / ".." / "i" / "1.tif"]):
        with pytest.raises(DataError, match="given twice"):
            pair_paths(again, [labels])
    (images / "3.tif").symlink_to(images / "1.tif")
    with pytest.raises(DataError, match=r"3\.tif, which is .*1\.tif, is given twice"):
        pair_paths([images], [labels])


def test_folders_that_repeat_names_are_paired_one_by_one(tmp_path):
    folders = [touch(tmp_path / n, "0.png", "1.png") for n in ("i1", "i2", "l1", "l2")]
    pairs = pair_paths(folders[:2], folders[2:])
    assert [(a.parent.name, b.parent.name) for a, b in pairs] == [("i1", "l1")] * 2 + [("i2", "l2")] * 2


def test_a_file_is_not_its_own_labels_but_a_zarr_group_may_hold_both(tmp_path):
    folder = touch(tmp_path / "a", "1.tif", "2.tif")
    with pytest.raises(DataError, match="both as image and as labels"):
        pair_paths([folder], [folder])
    group = touch(tmp_path / "b", "1.zarr") / "1.zarr"
    assert pair_paths([group], [group]) == [(group, group)]


def test_images_of_a_folder_come_in_natural_order_and_a_group_counts_as_one(tmp_path):
    touch(tmp_path, "10.png", "2.png", "1.ome.tif", "notes.txt", ".hidden.tif", "3.zarr")
    assert [p.name for p in list_images(tmp_path)] == ["1.ome.tif", "2.png", "3.zarr", "10.png"]
    assert [p.name for p in list_images(tmp_path, "*.png")] == ["2.png", "10.png"]
    assert list_images(tmp_path / "3.zarr") == [tmp_path / "3.zarr"]
    touch(tmp_path / "g.zarr" / "labels", "0.tif")
    assert [p.name for p in list_images(tmp_path, "**/*")].count("0.tif") == 0


@pytest.mark.parametrize("pattern", [None, "*.tif"])
def test_a_folder_without_images_is_refused(tmp_path, pattern):
    with pytest.raises(DataError, match="holds no image"):
        list_images(tmp_path, pattern)
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "gone", pattern)


def test_a_description_says_what_would_be_opened(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((5, 64, 80), "u2"), imagej=True, metadata={"axes": "ZYX", "unit": "um"}
    )
    rows = dict(describe(tmp_path / "a.tif"))
    assert rows["axes"] == "zyx"
    assert rows["shape"] == "z 5 x y 64 x x 80, uint16, 50 KiB"
    assert dict(describe(tmp_path))["kind"] == "folder of 1 images"


def test_a_description_of_a_group_lists_levels_labels_missing_chunks_and_state(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="w")
    for path, n in (("0", 8), ("1", 4), ("labels/cells/0", 8)):
        group.create_array(path, shape=(n, n), chunks=(4, 4), dtype="u1")
    axes = [{"name": "y"}, {"name": "x"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}]}
    group["labels"].attrs["ome"] = {"labels": ["cells"]}
    group.attrs["napari_unet"] = {"state": "incomplete", "blocks": 3}
    assert any(name == "state" and value.startswith("unfinished: 0 of 3") for name, value in describe(group.store.root))
    group.attrs["napari_unet"] = {"state": "complete", "blocks": 3, "provenance": {"model": "m"}}
    rows = describe(tmp_path / "a.ome.zarr")
    assert ("kind", "OME-Zarr 0.5 (zarr v3)") in rows
    assert ("state", "complete result of napari-unet") in rows
    assert ("made with model", "m") in rows
    assert ("labels", "labels/cells") in rows
    assert dict(rows)["missing chunks"].startswith("4;")
    assert dict(rows)["level 1"].startswith("y 4 x x 4")


def test_a_description_of_an_array_without_axes_asks_for_them(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(3, 4, 5), dtype="u1")
    assert "give axes: zyx or tyx" in dict(describe(tmp_path / "a.zarr"))["axes"]


def test_what_cannot_be_opened_cannot_be_described(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        describe(Path(tmp_path / "gone"))


def test_images_of_one_name_without_a_number_are_named_as_unpaired(tmp_path):
    images = [touch(tmp_path / folder, "a.tif") / "a.tif" for folder in ("x", "y")]
    labels = touch(tmp_path / "labels", "b.tif", "c.tif")
    with pytest.raises(DataError, match=r"names that occur twice|no labels for"):
        pair_paths(images, [labels])
