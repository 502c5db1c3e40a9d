import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from napari_unet.errors import DataError
from napari_unet.evaluation.evaluate import evaluate
from napari_unet.metrics.objects import Intensity
from napari_unet.metrics.similarity import ms_ssim, resolution, ring_correlation, ssim


def image(shape=(200, 220), seed=0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2) * 100


def test_similarity_is_that_of_skimage():
    truth = image()
    result = truth + np.random.default_rng(1).normal(0, 3, truth.shape)
    spread = np.ptp(truth)
    wanted = structural_similarity(truth, result, data_range=spread, gaussian_weights=True, use_sample_covariance=False)
    assert ssim(truth, result, spread) == pytest.approx(wanted, abs=1e-6)
    assert ssim(truth, truth, spread) == ms_ssim(truth, truth, spread) == pytest.approx(1)


def test_similarity_over_scales_falls_with_noise_and_needs_a_large_plane():
    truth = image()
    noise = np.random.default_rng(1).normal(size=truth.shape)
    found = [ms_ssim(truth, truth + sd * noise, np.ptp(truth)) for sd in (1, 5, 20)]
    assert 1 > found[0] > found[1] > found[2] > 0
    assert ms_ssim(truth[:100], truth[:100], 1.0) is None


def test_rings_correlate_up_to_where_both_hold_the_same():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(256, 256))
    sharp = ndimage.gaussian_filter(truth, 3)
    found = ring_correlation(truth, sharp + 1e-4 * rng.normal(size=truth.shape))
    assert found[1] > 0.99 and abs(found[-1]) < 0.3
    assert 3 < resolution(found, 256) < 12
    assert resolution(ring_correlation(truth, truth), 256) == 2
    coarser = ndimage.gaussian_filter(truth, 6) + 1e-4 * rng.normal(size=truth.shape)
    assert resolution(ring_correlation(truth, coarser), 256) > resolution(found, 256)


def test_a_scale_and_a_shift_do_not_count():
    truth = image()
    noise = np.random.default_rng(1).normal(size=truth.shape)
    one, other = (Intensity.of(truth, r).scores() for r in (truth + noise, 7 * (truth + noise) - 40))
    assert one["si_psnr"] == pytest.approx(other["si_psnr"], abs=1e-6)
    assert other["psnr"] < one["psnr"] <= one["si_psnr"] + 1e-9
    halves = Intensity.of(truth[:90], (truth + noise)[:90]) + Intensity.of(truth[90:], (truth + noise)[90:])
    assert halves.scores() == pytest.approx(one)


def test_an_evaluation_of_images_has_all_of_them():
    truth = np.stack([image(seed=i) for i in range(2)]).astype(np.float32)
    result = truth + np.random.default_rng(3).normal(0, 2, truth.shape).astype(np.float32)
    found = evaluate(result, truth, axes="zyx").scores
    assert {"psnr", "si_psnr", "nrmse", "mae", "ssim", "ms_ssim", "frc_resolution_pixels"} <= set(found)
    each = [ssim(t, r, float(np.ptp(truth))) for t, r in zip(truth, result, strict=True)]
    assert found["ssim"] == pytest.approx(np.mean(each))


def test_planes_of_different_shapes_are_refused():
    with pytest.raises(DataError, match="planes of one shape"):
        ssim(np.zeros((3, 4)), np.zeros((4, 4)), 1.0)
