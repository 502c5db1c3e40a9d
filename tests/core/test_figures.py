"""Pictures of images beside each other: what is drawn is what is there."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from napari_unet.cli import app
from napari_unet.errors import OutputError, UsageError
from napari_unet.evaluation.figures import GAP, HEAD, SHOWN, grey, save_comparison


def panels(path, count):
    picture = np.asarray(Image.open(path).convert("RGB"))[HEAD:]
    width = (picture.shape[1] + GAP) // count
    return [picture[:, i * width : (i + 1) * width - GAP] for i in range(count)]


def images(shape=(300, 280)):
    truth = np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)
    result = truth.copy()
    result[..., :140] += 1000
    return result, truth


def test_panels_are_in_the_contrast_of_the_truth_and_show_the_difference(tmp_path):
    result, truth = images()
    coarse = truth[::2, ::2]
    save_comparison(tmp_path / "p.png", result, truth, coarse, "yx")
    before, found, right, off = panels(tmp_path / "p.png", 4)
    limits = tuple(map(float, np.percentile(truth, (0.5, 99.5))))
    np.testing.assert_array_equal(right, grey(truth, limits))
    np.testing.assert_array_equal(before[::2, ::2], grey(coarse, limits))
    assert (found[:, :140] == 255).all() and (found[:, 140:] == right[:, 140:]).all()
    assert (off[:, :140] == 255).all() and (off[:, 140:] == 0).all()


def test_of_a_large_volume_the_middle_is_shown(tmp_path):
    result, truth = images((5, SHOWN + 100, SHOWN + 40))
    save_comparison(tmp_path / "p.png", result, truth, axes="zyx")
    shown = panels(tmp_path / "p.png", 3)[1]
    plane = truth[2, 50:-50, 20:-20]
    np.testing.assert_array_equal(shown, grey(plane, tuple(map(float, np.percentile(plane, (0.5, 99.5))))))


@pytest.mark.parametrize(
    ("name", "before", "message"),
    [("p.jpg", None, "not a .png"), ("there.png", None, "exists"), ("p.png", (7, 280), "whole factor")],
)
def test_what_cannot_be_drawn_is_refused(name, before, message, tmp_path):
    (tmp_path / "there.png").write_bytes(b"mine")
    with pytest.raises((UsageError, OutputError), match=message) as refused:
        save_comparison(tmp_path / name, *images(), before if before is None else np.zeros(before), "yx")
    assert refused.value.exit_code == (5 if message == "exists" else 2)
    with pytest.raises(UsageError, match="of one image"):
        save_comparison(tmp_path / "q.png", images()[0][:40], images()[1], axes="yx")
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
    assert (tmp_path / "there.png").read_bytes() == b"mine"


def test_the_shell_draws_what_it_scores(tmp_path):
    for name, image in zip(("result", "truth"), images(), strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    paths = [str(tmp_path / name) for name in ("result.tif", "truth.tif")]
    given = ["--axes", "yx", "--picture", str(tmp_path / "p.png"), "--before", paths[0]]
    found = CliRunner().invoke(app, ["evaluate", *paths, *given])
    assert found.exit_code == 0, found.output
    assert "psnr" in found.output
    before, result, *_ = panels(tmp_path / "p.png", 4)
    np.testing.assert_array_equal(before, result)
