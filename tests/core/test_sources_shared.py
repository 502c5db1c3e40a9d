"""Every image of the shared data opens, or says why not. Skipped where that data is absent."""

from pathlib import Path

import pytest

from napari_unet.errors import UnetError
from napari_unet.sources import describe, list_images, open_labels, open_stack, pair_paths
from napari_unet.sources.zarrmeta import read_node

SHARED = Path(__file__).parents[3] / "shared" / "data"
FILES = (".tif", ".tiff", ".png", ".jpg", ".g3")
REASONS = (
    "give axes: zyx or tyx or cyx",
    "not supported",
    "is a zarr group without an image in it",
    "is not read; convert it",
    "images; open one of them",
)
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the shared data at {SHARED}")


def sources(folder):
    for path in sorted((SHARED / folder).rglob("*")):
        is_zarr = path.is_dir() and any((path / n).is_file() for n in ("zarr.json", ".zgroup", ".zarray"))
        if is_zarr or (path.is_file() and path.suffix.lower() in FILES):
            yield path


FOLDERS = sorted(p.name for p in SHARED.iterdir() if p.is_dir()) if SHARED.is_dir() else []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_image_opens_and_reads_or_says_why_not(folder):
    opened, refused = 0, {}
    for path in sources(folder):
        try:
            stack = open_stack(path)
        except UnetError as error:
            refused[path] = str(error)
            continue
        corner = stack.read(tuple(slice(0, 2) for _ in stack.shape))
        assert corner.shape == tuple(min(2, n) for n in stack.shape)
        assert corner.dtype == stack.dtype
        assert stack.dtype.isnative
        opened += 1
    assert opened or folder in {"napari_bio_sample", "bioimageio_broad"}  # a model's package has no image
    assert not {path: why for path, why in refused.items() if not any(reason in why for reason in REASONS)}


EXPECTED = {
    "bbbc050/train/images/Emb01_t001.tif": ("zyx", (51, 124, 127), None),
    "ctc_dic_hela/images/t000.tif": ("yx", (512, 512), None),
    "ctc_fluo_n2dh_sim/images.tif": ("tyx", (10, 495, 534), None),
    "isbi2012_em/train/image/0.png": ("yx", (512, 512), None),
    "ndev_sample/scratch-assay-labeled-10T-2Ch.tiff": ("tcyx", (10, 4, 210, 576), 0.619),
    "sandstone_microct/Train_images/Sandstone_Versa0000.tif": ("yx", (1024, 996), 1 / 0.448139),
    "sandstone_microct/Train_masks/Sandstone_Versa0000.tif": ("cyx", (3, 1024, 996), None),
    "omnipose_bacteria/Sample000033.png": ("cyx", (3, 287, 377), None),
    "omezarr_real/bbbc050_zyx_ngio_0.4.ome.zarr": ("zyx", (51, 124, 127), 0.8),
    "omezarr_real/bbbc050_zyx_ngio_0.5.ome.zarr": ("zyx", (51, 124, 127), 0.8),
    "ngio_omezarr/tests/data/v04/images/test_image_c1yx.zarr": ("czyx", (2, 1, 64, 64), 0.5),
    "ngio_omezarr/tests/data/v05/images/test_image_tczyx.zarr": ("tczyx", (4, 2, 10, 64, 64), 0.5),
    "ome_zarr_fiji/testdata/5d_testing/5d_dataset_v5.ome.zarr": ("tczyx", (4, 3, 16, 64, 64), None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_axes_shape_and_pixel_size_are_those_of_the_experiment(name):
    axes, shape, size = EXPECTED[name]
    stack = open_stack(SHARED / name)
    assert (stack.axes, stack.shape) == (axes, shape)
    assert stack.scale_along("x")[0] == pytest.approx(size or 1.0)
    assert stack.values_along("x", "units") == ("micrometer" if size else None,)


@pytest.mark.parametrize(
    ("images", "labels", "count"),
    [
        ("isbi2012_em/train/image", "isbi2012_em/train/label", 22),
        ("bbbc050/train/images", "bbbc050/train/labels", 19),
        ("ctc_dic_hela/images", "ctc_dic_hela/labels", 54),
        ("sandstone_microct/Train_images", "sandstone_microct/Train_masks", 5),
        ("omnipose_bacteria", "omnipose_bacteria/masks", 3),
        ("dsb2018/fluo/images", "dsb2018/fluo/masks", 411),
        ("plant_cells3d/images", "plant_cells3d/labels", 2),
    ],
)
def test_folders_of_real_data_pair_and_fit(images, labels, count):
    pairs = pair_paths([SHARED / images], [SHARED / labels])
    assert len(pairs) == count
    for image, label in pairs[:: max(1, count // 5)]:
        stack = open_stack(image)
        truth = open_stack(label) if "sandstone" in images else open_labels(label)
        assert stack.values_along(stack.spatial, "shape") == truth.values_along(truth.spatial, "shape")


def test_every_group_with_labels_inside_opens_as_them_and_can_be_described():
    seen = 0
    for path in sources("omezarr_real"):
        if read_node(str(path)).is_array or path.name in ("labels", "nuclei", "gt"):
            continue
        labels = open_labels(path)
        assert labels.dtype.kind == "u"
        assert labels.read(tuple(slice(0, n) for n in labels.shape)).max() > 0
        assert ("labels", f"labels/{labels.name.rpartition('/')[2]}") in describe(path)
        seen += 1
    assert seen == 4


def test_folders_list_their_images():
    assert [p.name for p in list_images(SHARED / "isbi2012_em" / "train" / "image")][:3] == ["0.png", "1.png", "2.png"]
