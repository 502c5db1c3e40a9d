import dataclasses

import pytest
import torch

from napari_unet import TrainConfig
from napari_unet.errors import UsageError
from napari_unet.training.augment import AugmentConfig, augment, augmentation, displacement

SHAPES = [(48, 64), (12, 24, 32)]
NONE = AugmentConfig.none()
ALL = AugmentConfig(deform=1.0, intensity=1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(shape, seed=0, batch=2):
    """Smooth images, and as targets where they are above 0.5; a corner is not annotated."""
    rough = torch.rand((batch, 1, *(3,) * len(shape)), generator=generator(seed))
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    images = torch.nn.functional.interpolate(rough, shape, mode=mode, align_corners=True)
    targets = (images[:, 0] > 0.5).long()
    targets[(slice(None), *(slice(0, n // 4) for n in shape))] = -1
    return images, targets


@pytest.mark.parametrize("shape", SHAPES)
def test_none_is_the_identity_bit_for_bit(shape):
    images, targets = blobs(shape)
    out = augment(images, targets, generator(), NONE)
    assert torch.equal(out[0], images) and torch.equal(out[1], targets)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_deformation_of_strength_zero_changes_nothing(shape):
    images, targets = blobs(shape)
    config = AugmentConfig(flip=False, turn=False, deform=1.0, intensity=0.0, strength=0.0)
    out = augment(images, targets, generator(), config)
    torch.testing.assert_close(out[0], images, atol=1e-5, rtol=0)
    assert torch.equal(out[1], targets)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_image_and_labels_move_together(shape, seed):
    images, _ = blobs(shape, seed)
    targets = (images[:, 0] > 0.5).long()
    config = AugmentConfig(deform=1.0, intensity=0.0)
    moved, labels = augment(images, targets, generator(seed), config)
    agree = (moved[:, 0] > 0.5).long() == labels
    near = (moved[:, 0] - 0.5).abs() < 0.12  # at the edge, the nearest and the interpolated element may differ
    assert (agree | near).all()
    assert not torch.equal(moved, images)


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8), (6, 10, 12)])
def test_flips_and_turns_only_rearrange(shape):
    images, _ = blobs(shape, batch=12)
    images = images + torch.rand(images.shape, generator=generator(3))
    targets = (images[:, 0] * 1000).long()
    config = AugmentConfig(deform=0.0, intensity=0.0)
    moved, labels = augment(images, targets, generator(), config)
    for before, after in zip(images, moved, strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
    assert torch.equal((moved[:, 0] * 1000).long(), labels)
    assert len({tuple(m.flatten()[:4].tolist()) for m in moved - images}) > 3


@pytest.mark.parametrize("chosen", [{}, {"preset": "ronneberger2015"}, {"task": "restore"}])
def test_without_mirroring_a_direction_stays_as_it_is(chosen):
    images = torch.arange(16.0).expand(12, 1, 16, 16).contiguous()
    for mirror in (True, False):
        full = augmentation(TrainConfig(flips=mirror, **chosen))
        config = dataclasses.replace(full, intensity=0.0, rotation=30.0, elastic=0.0)
        moved, _ = augment(images, images[:, 0], generator(), config)
        rises = (moved[:, 0, :, 10] > moved[:, 0, :, 5]).all(1)
        assert rises.all() != mirror


def test_anisotropic_stacks_are_turned_and_rotated_in_the_plane_only():
    images = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(6, 1, 8, 8, 8).contiguous()
    config = AugmentConfig(flip=False, deform=1.0, intensity=0.0, elastic=0.0, scale=0.0)
    moved, _ = augment(images, images[:, 0].long(), generator(), config, (5.0, 1.0, 1.0))
    torch.testing.assert_close(moved, images, atol=1e-4, rtol=0)
    free, _ = augment(images, images[:, 0].long(), generator(), config, (1.0, 1.0, 1.0))
    assert (free - images).abs().max() > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_the_seed_decides_and_the_global_state_does_not(shape):
    images, targets = blobs(shape)
    state = torch.random.get_rng_state()
    first = augment(images, targets, generator(5), ALL)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(10)
    second, other = augment(images, targets, generator(5), ALL), augment(images, targets, generator(6), ALL)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("shape", [*SHAPES, (1, 9), (1, 8, 8), (3, 5, 7)])
@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_values_stay_finite_and_targets_keep_their_classes(shape, strength):
    images, targets = blobs(shape)
    images[0] = 0.25  # a constant patch
    config = AugmentConfig(deform=1.0, intensity=1.0, strength=strength)
    for seed in range(4):
        moved, labels = augment(images, targets, generator(seed), config)
        assert moved.isfinite().all() and moved.shape == images.shape and moved.dtype == images.dtype
        assert set(labels.unique().tolist()) <= {-1, 0, 1} and labels.dtype == targets.dtype


def test_what_is_not_annotated_stays_so():
    images, targets = blobs((32, 32))
    assert (augment(images, torch.full_like(targets, -1), generator(), ALL)[1] == -1).all()
    kept = [(augment(images, targets, generator(s), ALL)[1] == -1).float().mean() for s in range(20)]
    assert 0.02 < sum(kept) / 20 < 0.12  # 1/16 of the patch


@pytest.mark.parametrize("shape", [(65, 65), (17, 33, 33)])
def test_displacements_have_the_papers_deviation_at_the_grid_points(shape):
    draws = generator()
    fields = torch.stack([displacement(shape, AugmentConfig.ronneberger2015().elastic, draws) for _ in range(200)])
    at = fields[(..., *torch.meshgrid(*(torch.tensor([0, n // 2, n - 1]) for n in shape), indexing="ij"))]
    assert at.std().item() == pytest.approx(10, rel=0.05)
    assert at.mean().item() == pytest.approx(0, abs=0.6)
    assert 4 < fields.std().item() < 10


def test_displacements_are_smooth():
    field = displacement((128, 128), 10.0, generator())
    assert field.diff(dim=-1).abs().max() < 1.5
    assert field.diff(n=2, dim=-1).abs().max() < 0.1


def test_floating_targets_are_interpolated_with_the_image():
    images, _ = blobs((32, 32))
    config = AugmentConfig(deform=1.0, intensity=0.0)
    moved, target = augment(images, images.clone(), generator(), config)
    assert torch.equal(moved, target)


def test_shapes_that_do_not_fit_are_refused():
    images, targets = blobs((32, 32))
    with pytest.raises(UsageError, match="do not fit"):
        augment(images, targets[:, 1:], generator(), ALL)
    with pytest.raises(UsageError, match="rotation"):
        AugmentConfig(rotation=181)
