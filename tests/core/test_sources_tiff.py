import logging
import os
import re
import tracemalloc
import uuid

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import DataError
from napari_unet.sources import describe, open_labels, open_stack

STACK = np.random.default_rng(0).integers(0, 60_000, (20, 64, 80)).astype("u2")
BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'


def everything(stack):
    return stack.read(tuple(slice(0, n) for n in stack.shape))


def write(path, data=STACK, **options):
    tifffile.imwrite(path, data, **options)
    return path


@settings(deadline=None, max_examples=30)
@given(st.permutations("tcz"), st.integers(0, 3), st.sampled_from(["ome", "shaped"]), st.booleans(), st.data())
def test_named_axes_in_any_order_read_as_numpy_does(tmp_path_factory, letters, count, kind, tiled, data):
    axes = "".join(letters[:count]) + "yx"
    shape = [{"t": 2, "c": 4, "z": 5, "y": 33, "x": 47}[a] for a in axes]
    array = np.random.default_rng(0).integers(0, 255, shape).astype("u1")
    path = tmp_path_factory.mktemp("tiff") / ("a.ome.tif" if kind == "ome" else "a.tif")
    options = {"tile": (16, 16)} if tiled else {}
    write(path, array, metadata={"axes": axes.upper()}, photometric="minisblack", ome=kind == "ome", **options)
    stack = open_stack(path)
    want = array.transpose([axes.index(a) for a in stack.axes])
    assert (stack.axes, stack.name) == ("".join(a for a in "tczyx" if a in axes), "a")
    starts = [data.draw(st.integers(0, n - 1)) for n in want.shape]
    box = tuple(slice(a, data.draw(st.integers(a + 1, n))) for a, n in zip(starts, want.shape, strict=True))
    assert np.array_equal(stack.read(box), want[box])


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", ">u2", "u4", "i8", "f2", ">f4", "f8"])
def test_every_real_number_is_read_as_a_native_one(tmp_path, dtype):
    data = (STACK[0] % 100).astype(dtype)
    stack = open_stack(write(tmp_path / "a.tif", data, byteorder=">" if dtype.startswith(">") else "<"))
    assert stack.dtype == np.dtype(dtype).newbyteorder("=")
    assert stack.dtype.isnative
    assert np.array_equal(everything(stack), data)


def test_complex_numbers_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="complex64"):
        open_stack(write(tmp_path / "a.tif", STACK[0].astype("c8")))


def test_an_imagej_hyperstack_brings_axes_pixel_size_and_unit(tmp_path):
    data = np.zeros((2, 5, 3, 32, 40), "u2")
    metadata = {"axes": "TZCYX", "spacing": 2.0, "unit": "um", "finterval": 30}
    stack = open_stack(write(tmp_path / "a.tif", data, imagej=True, metadata=metadata, resolution=(4, 5)))
    assert (stack.axes, stack.shape) == ("tczyx", (2, 3, 5, 32, 40))
    assert stack.scale_along("zyx") == (2.0, 0.2, 0.25)
    assert stack.values_along("zyx", "units") == ("micrometer",) * 3
    assert (stack.scale_along("t"), stack.values_along("t", "units")) == ((30.0,), ("second",))


def test_an_ome_tiff_brings_pixel_size_units_and_channel_names(tmp_path):
    metadata = {
        "axes": "CZYX",
        "PhysicalSizeX": 250,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.3,
        "PhysicalSizeZ": 2,
    }
    metadata["Channel"] = {"Name": ["DAPI", "a & b"]}
    stack = open_stack(
        write(tmp_path / "a.ome.tif", STACK[:4].reshape(2, 2, 64, 80), metadata=metadata), channel="DAPI"
    )
    assert stack.scale_along("zyx") == (2.0, 0.3, 250.0)
    assert stack.values_along("zyx", "units") == ("micrometer", "micrometer", "nanometer")
    assert stack.channel_names == ("DAPI",)
    assert open_stack(tmp_path / "a.ome.tif").channel_names[1] == "a & b"


@pytest.mark.parametrize(
    ("resolution", "unit", "size"),
    [
        ((20_000, 10_000), 3, 1.0),
        ((50_800, 50_800), 2, 0.5),
        ((72, 72), 2, None),
        ((300, 300), 2, None),
        ((1, 1), 1, None),
    ],
)
def test_resolution_tags_are_pixel_sizes_unless_they_are_for_a_printer(tmp_path, resolution, unit, size):
    stack = open_stack(write(tmp_path / "a.tif", STACK[0], resolution=resolution, resolutionunit=unit, metadata=None))
    assert stack.scale_along("y") == (size or 1.0,)
    assert stack.values_along("y", "units") == (("micrometer",) if size else (None,))


def test_a_pyramid_opens_at_each_level_with_its_scale(tmp_path):
    data = STACK[0]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        options = {"tile": (16, 16), "photometric": "minisblack"}
        file.write(data, subifds=1, metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options)
        file.write(data[::2, ::2], subfiletype=1, **options)
    stack = open_stack(tmp_path / "a.ome.tif", level=1)
    assert np.array_equal(everything(stack), data[::2, ::2])
    assert (stack.scale, stack.translation) == ((1.0, 1.0), (0.25, 0.25))
    assert ("level 1", "y 32 x x 40, scale y 1 micrometer, x 1 micrometer") in describe(tmp_path / "a.ome.tif")
    with pytest.raises(DataError, match="levels 0 to 1, not 2"):
        open_stack(tmp_path / "a.ome.tif", level=2)


def test_axes_that_nothing_names_are_asked_for_and_taken_as_given(tmp_path):
    path = write(tmp_path / "a.tif", STACK, photometric="minisblack")
    with pytest.raises(DataError, match=r"\(20, 64, 80\).*zyx or tyx or cyx"):
        open_stack(path)
    for axes in ("zyx", "tyx", "cyx"):
        assert open_stack(path, axes=axes).axes == axes
    swapped = open_stack(path, axes="zxy")
    assert np.array_equal(everything(swapped), STACK.transpose(0, 2, 1))
    with pytest.raises(DataError, match="do not fit the shape"):
        open_stack(path, axes="yx")


@pytest.mark.parametrize("shape", [(20, 64, 3), (20, 64, 4), (3, 64, 80), (4, 64, 80)])
def test_nothing_is_guessed_between_channels_and_planes(tmp_path, shape):
    with pytest.raises(DataError, match="give axes"):
        open_stack(write(tmp_path / "a.tif", np.zeros(shape, "u1"), photometric="minisblack"))


def test_colours_are_channels_and_alpha_is_left_out_and_both_are_said(tmp_path):
    data = STACK[:4].transpose(1, 2, 0).astype("u1")
    colours = open_stack(write(tmp_path / "a.tif", data[..., :3], photometric="rgb"))
    assert (colours.axes, colours.notes) == ("cyx", ("RGB taken as three channels",))
    assert np.array_equal(everything(colours), data[..., :3].transpose(2, 0, 1))
    alpha = open_stack(write(tmp_path / "b.tif", data, photometric="rgb", extrasamples=["unassalpha"]))
    assert alpha.shape == (3, 64, 80)
    assert "the alpha channel was left out" in alpha.notes
    planes = open_stack(write(tmp_path / "c.tif", np.stack([data[..., :3]] * 5), photometric="rgb"), axes="zyx")
    assert (planes.axes, planes.shape) == ("czyx", (3, 5, 64, 80))


KINDS = {
    "plain": {"metadata": None},
    "shaped": {"photometric": "minisblack"},
    "deflate": {"metadata": None, "compression": "zlib"},
    "shaped deflate": {"photometric": "minisblack", "compression": "zlib"},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "imagej deflate": {"imagej": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "ome deflate": {"ome": True, "metadata": {"axes": "ZYX"}, "compression": "zlib"},
    "bigtiff": {"bigtiff": True, "metadata": {"axes": "ZYX"}},
    "pages": {"contiguous": False, "metadata": {"axes": "ZYX"}},
    "tiles": {"tile": (32, 32), "metadata": {"axes": "ZYX"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_was_cut_off_is_refused_wherever_it_was_cut(tmp_path, kind):
    whole = write(tmp_path / "whole.tif", **KINDS[kind]).read_bytes()
    assert np.array_equal(everything(open_stack(tmp_path / "whole.tif", axes="zyx")), STACK)
    for part in (0, 0.0001, 0.1, 0.3, 0.6, 0.9, 0.999):
        (tmp_path / "cut.tif").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DataError, match=r"cut\.tif (is incomplete|is empty|is damaged|is named|cannot be read)"):
            open_stack(tmp_path / "cut.tif", axes="zyx")


@pytest.mark.parametrize("kind", ["imagej", "imagej deflate", "shaped deflate"])
def test_a_cut_stack_says_how_many_planes_it_declares_and_has(tmp_path, kind):
    whole = write(tmp_path / "a.tif", **KINDS[kind]).read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) * 3 // 10])
    with pytest.raises(DataError, match="declares 20 pages, 6 readable"):
        open_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("tag", ["TileByteCounts", "TileOffsets"])
def test_a_plane_whose_tiles_are_not_all_listed_is_damaged_where_it_is_read(tmp_path, tag):
    path = write(tmp_path / "a.tif", STACK, bigtiff=True, tile=(16, 16), metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        entry = tif.pages[len(STACK) - 1].tags[tag]
        at, count = entry.offset + 4, entry.count  # behind its code and type
    data = bytearray(path.read_bytes())
    data[at : at + 8] = (count - 1).to_bytes(8, "little")
    path.write_bytes(data)
    try:
        stack = open_stack(path)
        found = np.asarray(stack.read(tuple(slice(0, n) for n in stack.shape)))
    except DataError as error:
        assert "a.tif" in str(error)
    else:  # tifffile takes a tile without an offset for one that is not stored, as some microscopes write it
        assert tag == "TileOffsets"
        np.testing.assert_array_equal(found[:-1], STACK[:-1])


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 100}, {"tile": (512, 512)}])
def test_a_large_plane_is_read_by_its_parts(tmp_path, options):
    data = np.zeros((3, 4200, 4100), "u1")
    data[:, 1000:1010, 7:9] = np.arange(1, 61).reshape(3, 10, 2)
    path = write(tmp_path / "a.tif", data, photometric="minisblack", metadata={"axes": "ZYX"}, **options)
    box = (slice(1, 3), slice(1003, 1020), slice(0, 9))
    tracemalloc.start()
    stack = open_stack(path)
    assert np.array_equal(stack.read(box), data[box])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < data[0].nbytes / 2


def test_planes_in_several_files_of_one_folder_are_one_stack(tmp_path):
    path = write(tmp_path / "a.ome.tif", STACK[:2], metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        text = file.pages[0].description
    one = '<TiffData IFD="0" FirstZ="{0}" PlaneCount="1"><UUID FileName="{1}">urn:uuid:{2}</UUID></TiffData>'
    ids = [str(uuid.uuid4()) for _ in range(2)]
    names = ["a.ome.tif", "b.ome.tif"]
    new = "".join(one.format(i, name, key) for i, (name, key) in enumerate(zip(names, ids, strict=True)))
    text = text.replace('<TiffData IFD="0" PlaneCount="2"/>', new)
    for number, (name, key) in enumerate(zip(names, ids, strict=True)):
        own = re.sub(r'UUID="urn:uuid:[^"]*"', f'UUID="urn:uuid:{key}"', text, count=1)
        write(tmp_path / name, STACK[number : number + 1], description=own, metadata=None)
    assert np.array_equal(everything(open_stack(path)), STACK[:2])


def test_a_damaged_strip_is_named_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.tif", compression="zlib", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        offset, size = file.pages[7].dataoffsets[0], file.pages[7].databytecounts[0]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + size] = os.urandom(size)
    path.write_bytes(raw)
    stack = open_stack(path)
    plane = (slice(0, 64), slice(0, 80))
    assert np.array_equal(stack.read((slice(0, 7), *plane)), STACK[:7])
    with pytest.raises(DataError, match=r"a\.tif is damaged at z=7:8, y=0:64, x=0:80"):
        stack.read((slice(7, 8), *plane))


def test_entities_in_ome_xml_are_refused_before_they_are_expanded(tmp_path):
    text = f'<?xml version="1.0"?>{BOMB}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">&b;</OME>'
    path = write(tmp_path / "a.ome.tif", STACK[0], description=text, metadata=None)
    with pytest.raises(DataError, match="defines entities"):
        open_stack(path)


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "/etc/passwd", "..\\x.tif", "sub/x.tif"])
def test_ome_xml_that_points_out_of_the_folder_is_refused_and_nothing_is_opened(tmp_path, name):
    outside = write(tmp_path / "x.tif")
    path = write(tmp_path / "in.ome.tif", STACK[:2], metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        text = file.pages[0].description
    text = text.replace(
        'IFD="0" PlaneCount="2"/>', f'IFD="0" PlaneCount="2"><UUID FileName="{name}">urn:uuid:1</UUID></TiffData>'
    )
    assert name in text
    path = write(tmp_path / "in.ome.tif", STACK[:2], description=text, metadata=None)
    before = outside.stat().st_atime_ns
    with pytest.raises(DataError, match="outside of its folder"):
        open_stack(path)
    assert outside.stat().st_atime_ns == before


def test_planes_in_other_files_that_are_missing_are_refused(tmp_path):
    path = write(tmp_path / "in.ome.tif", STACK[:2], metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        text = file.pages[0].description
    one = '<TiffData IFD="0" FirstZ="{0}" PlaneCount="1"><UUID FileName="{1}">urn:uuid:{2}</UUID></TiffData>'
    new = one.format(0, "in.ome.tif", 1) + one.format(1, "gone.ome.tif", 2)
    text = text.replace('<TiffData IFD="0" PlaneCount="2"/>', new)
    assert "gone" in text
    with pytest.raises(DataError, match="declares 2 pages, 1 readable"):
        open_stack(write(path, STACK[:1], description=text, metadata=None))


def test_absurd_sizes_in_tags_are_refused_quickly(tmp_path):
    path = write(tmp_path / "a.tif", STACK[0], metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageWidth"].overwrite(2**31)
        file.pages[0].tags["ImageLength"].overwrite(2**31)
    with pytest.raises(DataError):
        everything(open_stack(path))


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"hello world", "another format"), (b"\x89PNG\r\n", "holds PNG")]
)
def test_what_is_no_tiff_is_said_to_be_none(tmp_path, content, message):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_stack(tmp_path / "a.tif")


def test_label_colours_are_refused_and_palette_numbers_are_labels(tmp_path):
    with pytest.raises(DataError, match="3 channels where labels have none"):
        open_labels(write(tmp_path / "a.tif", np.zeros((64, 80, 3), "u1"), photometric="rgb"))
    labels = (STACK[0] % 5).astype("u1")
    path = write(tmp_path / "b.tif", labels, photometric="palette", colormap=np.zeros((3, 256), "u2"))
    assert np.array_equal(everything(open_labels(path)), labels)


def test_opening_says_nothing_on_its_own(tmp_path, caplog):
    whole = write(tmp_path / "a.tif", imagej=True).read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.DEBUG), pytest.raises(DataError):
        open_stack(tmp_path / "a.tif")
    assert not [r for r in caplog.records if r.name == "tifffile"]
    assert not logging.getLogger("tifffile").handlers
