from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_unet.errors import DataError, UsageError
from napari_unet.sources import open_labels, open_stack


class Counting:
    """A lazy array that counts what is read of it and refuses to be read whole."""

    def __init__(self, data):
        self.data_, self.shape, self.dtype, self.ndim, self.read = data, data.shape, data.dtype, data.ndim, 0

    def __getitem__(self, key):
        out = self.data_[key]
        self.read += out.size
        return out

    def __array__(self, *args, **kwargs):
        raise AssertionError("read whole")


def layer(data, **more):
    ndim = len((data[0] if isinstance(data, list) else data).shape) - more.get("rgb", False)
    return SimpleNamespace(**{"data": data, "scale": np.ones(ndim), "name": "cells", **more})


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from("tcz"), unique=True, max_size=3).flatmap(lambda a: st.permutations([*a, "y", "x"])),
    st.data(),
)
def test_axes_given_in_any_order_read_as_numpy_does(axes, data):
    shape = [data.draw(st.integers(1, 5)) for _ in axes]
    array = np.arange(np.prod(shape)).reshape(shape)
    lazy = Counting(array)
    stack = open_stack(lazy, axes="".join(axes))
    want = array.transpose([axes.index(a) for a in stack.axes])
    assert list(stack.axes) == sorted(axes, key="tczyx".index)
    box = tuple(slice(0, max(1, n // 2)) for n in want.shape)
    assert np.array_equal(stack.read(box), want[box])
    assert lazy.read == want[box].size


@settings(deadline=None)
@given(st.data())
def test_dimensions_of_size_one_may_be_left_out_of_the_axes(data):
    shape = data.draw(st.permutations([1, 1, 4, 5]))
    stack = open_stack(np.zeros(shape), axes="yx")
    assert stack.shape == tuple(n for n in shape if n > 1)
    assert open_stack(np.zeros(shape)).shape == stack.shape


@pytest.mark.parametrize(
    ("shape", "choices"),
    [
        ((3, 64, 64), "zyx or tyx or cyx"),
        ((64, 64, 3), "zyx or tyx or cyx or yxc"),
        ((20, 64, 3), "zyx"),
        ((2, 3, 9, 9), "ztyx or zcyx"),
    ],
)
def test_axes_that_nothing_names_are_asked_for(shape, choices):
    for array in (np.zeros(shape), da.zeros(shape)):
        with pytest.raises(DataError, match=choices):
            open_stack(array)


@pytest.mark.parametrize("axes", ["yy", "zy", "abc", "", "zyxx"])
def test_axes_that_cannot_be_are_refused(axes):
    with pytest.raises((UsageError, DataError)):
        open_stack(np.zeros((4, 5, 6)), axes=axes)


@pytest.mark.parametrize("dtype", ["c8", "O", "U3", "M8[s]", [("a", "u1")], "g"])
def test_what_is_no_real_number_is_refused_by_name(dtype):
    with pytest.raises(DataError, match="dtype"):
        open_stack(np.zeros((4, 5), dtype))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_nothing_to_read_is_refused(shape):
    with pytest.raises(DataError, match="size 0"):
        open_stack(np.zeros(shape))


def test_a_single_pixel_is_an_image():
    assert open_stack(np.ones((1, 1))).shape == (1, 1)


def test_zarr_arrays_use_their_dimension_names(tmp_path):
    array = zarr.create_array(str(tmp_path / "a"), shape=(3, 4, 5), dtype="u1", dimension_names=["z", "y", "x"])
    stack = open_stack(array)
    assert stack.axes == "zyx"
    assert stack.data is array


def test_a_stack_is_opened_as_itself_or_with_other_axes():
    stack = open_stack(np.zeros((3, 4, 5)), axes="zyx")
    assert open_stack(stack) is stack
    assert open_stack(stack, axes="tyx").axes == "tyx"
    assert open_stack(open_stack(np.zeros((2, 4, 5)), axes="tyx"), time=1).axes == "yx"


@pytest.mark.parametrize("what", [None, 3, {}, b"a.tif"])
def test_what_is_no_image_is_refused(what):
    with pytest.raises(UsageError, match="cannot be opened"):
        open_stack(what)


def test_a_layer_brings_its_pixel_size_position_units_and_name():
    lazy = Counting(np.zeros((4, 5, 6), "u2"))
    units = ("pixel", "micrometer", "micrometer")
    stack = open_stack(layer(lazy, scale=np.array([2, 0.5, 0.5]), translate=[1, 2, 3], units=units), axes="zyx")
    assert (stack.axes, stack.scale, stack.translation, stack.name) == (
        "zyx",
        (2.0, 0.5, 0.5),
        (1.0, 2.0, 3.0),
        "cells",
    )
    assert stack.units == (None, "micrometer", "micrometer")
    assert stack.data is lazy
    assert lazy.read == 0


def test_axes_of_a_layer_are_its_labels_or_asked_for():
    assert open_stack(layer(np.zeros((4, 5)))).axes == "yx"
    assert open_stack(layer(np.zeros((3, 4, 5)), axis_labels=("t", "y", "x"))).axes == "tyx"
    with pytest.raises(DataError, match="zyx or tyx or cyx"):
        open_stack(layer(np.zeros((3, 4, 5)), axis_labels=("-3", "-2", "-1")))


def test_a_colour_layer_is_three_channels():
    data = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype("u1")
    stack = open_stack(layer(data, rgb=True, scale=[0.5, 0.5]))
    assert (stack.axes, stack.scale) == ("cyx", (1.0, 0.5, 0.5))
    assert np.array_equal(stack.data[...], data.transpose(2, 0, 1))
    assert stack.notes == ("RGB taken as three channels",)


def test_levels_of_a_layer_keep_the_position_of_the_image():
    levels = [da.zeros((4, 16, 16)), da.zeros((4, 8, 8))]
    fine, coarse = (open_stack(layer(levels, scale=[3, 0.5, 0.5]), axes="zyx", level=i) for i in (0, 1))
    assert coarse.scale == (3.0, 1.0, 1.0)
    for stack in (fine, coarse):
        low = [t - s / 2 for t, s in zip(stack.translation, stack.scale, strict=True)]
        assert low == [-1.5, -0.25, -0.25]
    with pytest.raises(DataError, match="levels 0 to 1, not 2"):
        open_stack(layer(levels), level=2)


def test_a_layer_without_an_image_is_refused():
    with pytest.raises(DataError, match="choose an image"):
        open_stack(SimpleNamespace(data=object(), scale=[1, 1], name="points"))


@pytest.mark.parametrize("dtype", ["?", "u1", "i4", ">u2"])
def test_labels_are_integers(dtype):
    data = (np.arange(30).reshape(5, 6) % 2).astype(dtype)
    stack = open_labels(data)
    assert stack.dtype.kind in "iu"
    assert stack.dtype.isnative
    assert np.array_equal(stack.read((slice(0, 5), slice(0, 6))), data)


def test_float_labels_say_how_to_convert_them():
    with pytest.raises(DataError, match="float64, labels are integers; convert it with astype"):
        open_labels(np.zeros((4, 5)))


def test_one_channel_of_labels_is_labels():
    assert open_labels(np.zeros((1, 4, 5), "u1"), axes="cyx").axes == "yx"
    assert open_labels(np.zeros((3, 4, 5), "u1"), axes="cyx", channel=2).axes == "yx"
    with pytest.raises(DataError, match="3 channels where labels have none"):
        open_labels(np.zeros((3, 4, 5), "u1"), axes="cyx")


GREY = np.arange(48, dtype="u1").reshape(6, 8)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_grey_picture_is_a_plane(tmp_path, ending):
    Image.fromarray(GREY * 0 + 7).save(tmp_path / f"a.{ending}")
    stack = open_stack(tmp_path / f"a.{ending}")
    assert (stack.axes, stack.name, stack.dtype) == ("yx", "a", np.uint8)
    assert (stack.data[...] == 7).all()


def test_deep_and_one_bit_pictures_keep_their_values(tmp_path):
    deep = GREY.astype("u2") * 1000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(GREY > 20).save(tmp_path / "mask.png")
    assert np.array_equal(open_stack(tmp_path / "deep.png").data[...], deep)
    assert np.array_equal(open_labels(tmp_path / "mask.png").data[...], GREY > 20)


@pytest.mark.parametrize(("mode", "said"), [("RGB", 1), ("RGBA", 2), ("P", 1), ("LA", 1)])
def test_colours_are_channels_and_what_was_done_is_said(tmp_path, mode, said):
    Image.fromarray(np.stack([GREY, GREY + 1, GREY + 2], -1)).convert(mode).save(tmp_path / "a.png")
    stack = open_stack(tmp_path / "a.png")
    assert stack.axes == ("yx" if mode == "LA" else "cyx")
    assert len(stack.notes) == said
    if mode.startswith("RGB"):
        assert np.array_equal(stack.data[...], np.stack([GREY, GREY + 1, GREY + 2]))


def test_palette_numbers_are_labels(tmp_path):
    image = Image.fromarray(GREY % 4).convert("P")
    image.putdata((GREY % 4).ravel().tolist())
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    assert np.array_equal(open_labels(tmp_path / "a.png").data[...], GREY % 4)


@pytest.mark.parametrize("part", [0.2, 0.8])
def test_a_cut_picture_is_refused(tmp_path, part):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype("u1")
    Image.fromarray(noise).save(tmp_path / "a.png")
    raw = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        open_stack(tmp_path / "a.png")


def test_a_picture_that_declares_an_absurd_size_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    raw = bytearray((tmp_path / "a.png").read_bytes())
    raw[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.png"):
        open_stack(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"II*\0aaaa", "named .png but holds TIFF"),
        ("a.jpg", b"", "is empty"),
        ("a.xyz", b"ZISRAW", "convert it to OME-Zarr or TIFF"),
        ("a.png", b"hello you", "another format"),
    ],
)
def test_files_that_are_not_read_say_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_stack(tmp_path / name)


def test_folders_and_nothing_say_why(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_stack(tmp_path / "a.tif")
    with pytest.raises(DataError, match="open an image in it"):
        open_stack(tmp_path)


@pytest.mark.parametrize(
    "axes", ["CZYX", "channel,z,y,x", "Channels Z Y X", "('ch', 'plane', 'row', 'column')", "c z y x"]
)
def test_axes_are_given_by_letter_or_by_name(axes):
    assert open_stack(np.zeros((2, 3, 4, 5)), axes).axes == "czyx"


@pytest.mark.parametrize("axes", ["hello", "channel,z,y", "c,c,y,x", ""])
def test_axes_that_are_none_are_refused(axes):
    with pytest.raises(UsageError, match="must be letters"):
        open_stack(np.zeros((2, 3, 4, 5)), axes)


@pytest.mark.parametrize("size", ["2 0.5 0.5 um", (2, 0.5, 0.5, "um"), "2,0.5,0.5, micrometer"])
def test_a_pixel_size_that_is_given_is_that_of_the_stack(size):
    stack = open_stack(np.zeros((2, 3, 4, 5)), "czyx", pixel_size=size)
    assert (stack.scale, stack.units) == ((1, 2, 0.5, 0.5), (None, *["micrometer"] * 3))
    assert open_stack(np.zeros((4, 5)), pixel_size="0.3").scale == (0.3, 0.3)


@pytest.mark.parametrize("size", ["um", "1 2", "0", "-1 um", "nan", (1, 2, 3, 4)])
def test_a_pixel_size_that_is_none_is_refused(size):
    with pytest.raises(UsageError, match="pixel size"):
        open_stack(np.zeros((3, 4, 5)), "zyx", pixel_size=size)


@pytest.mark.parametrize("frames", [2, 3, 7])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_first_of_several_pictures_in_a_file_is_said_to_be_that(tmp_path, frames, mode):
    pictures = [Image.new(mode, (6, 5), i) for i in range(frames)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:])
    assert f"the first of {frames} pictures in the file was taken" in open_stack(tmp_path / "a.png").notes


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ((None, "um"), "x has a pixel size and y has none"),
        (("nm", None), "y has a pixel size and x has none"),
        (("pixel", "um"), "x has a pixel size and y has none"),
        (("um", "nm"), ""),
        ((None, None), ""),
        (("um", "furlong"), ""),
    ],
)
def test_a_pixel_size_along_one_side_alone_is_said(units, said):
    note = " ".join(open_stack(layer(np.zeros((4, 5)), scale=[1, 0.5], units=units)).notes)
    assert said in note and ("has a pixel size" in note) == bool(said)
