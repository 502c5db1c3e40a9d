import json
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_unet.arrays.stack import Stack
from napari_unet.errors import DataError, ModelError, ResourceError, UsageError
from napari_unet.events import wait
from napari_unet.network import UNet, UNetConfig
from napari_unet.network.memory import parameters, training_bytes
from napari_unet.training import TrainConfig, make_plan
from napari_unet.training.fingerprint import Fingerprint, StackFacts, fingerprint
from napari_unet.training.plan import TrainingPlan


def facts(shape, scale=None, axes=None, diameters=(10.0, 20.0, 1000.0)):
    """A fingerprint of one stack of a shape, without its data."""
    axes = axes or "zyx"[-len(shape) :]
    scale = scale or (1.0,) * len(shape)
    units = ("micrometer",) * len(shape)
    stack = StackFacts("a", axes, shape, scale, units, "uint8", {0: 5, 1: 5}, {}, None, "")
    return Fingerprint((stack,), False, False, diameters)


def plan_of(found, **wishes):
    return make_plan(found, TrainConfig(device="cpu", **wishes), 2)


sizes = st.integers(8, 300)
steps = st.sampled_from([0.1, 0.2, 0.5, 1.0, 3.0])


@settings(deadline=None, max_examples=60)
@example((8, 179, 207), (0.1, 0.1, 0.1), 2)
@given(st.tuples(sizes, sizes, sizes), st.tuples(steps, steps, steps), st.sampled_from([2, 3]))
def test_a_plan_fits_stride_data_and_memory_and_survives_json(shape, scale, ndim):
    plan = plan_of(facts(shape, scale), ndim=ndim)
    for n, size, stride in zip(plan.patch, shape[-ndim:], plan.network.stride, strict=True):
        assert n % stride == 0
        assert n <= max(size, stride)
        assert n // stride >= 2
    assert plan.memory <= 8 * 2**30
    assert TrainingPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_coarse_axis_is_pooled_late_and_convolved_late():
    plan = plan_of(facts((64, 256, 256), (5.0, 1.0, 1.0)), ndim=3)
    strides, kernels = plan.network.stride_list, plan.network.kernel_list
    assert strides[:2] == ((1, 2, 2), (1, 2, 2))
    assert kernels[0] == (1, 3, 3)
    assert kernels[-1] == (3, 3, 3)
    assert plan.patch[0] < plan.patch[1] == plan.patch[2]


def test_an_isotropic_volume_is_treated_alike_along_all_axes():
    plan = plan_of(facts((128, 128, 128)))
    assert plan.network.ndim == 3
    assert len(set(plan.patch)) == 1
    assert all(len(set(level)) == 1 for level in plan.network.stride_list + plan.network.kernel_list)


@pytest.mark.parametrize(
    ("shape", "scale", "ndim"),
    [
        ((4, 512, 512), (1, 1, 1), 2),
        ((60, 512, 512), (50, 4, 4), 2),
        ((51, 120, 120), (1.75, 0.8, 0.8), 3),
        ((99, 99), None, 2),
    ],
)
def test_two_or_three_dimensions_follow_the_data(shape, scale, ndim):
    plan = plan_of(facts(shape, scale))
    assert plan.network.ndim == ndim
    assert bool(plan.reasons) == (ndim == 2 and len(shape) == 3)


def test_small_objects_need_no_depth():
    assert (
        plan_of(facts((512, 512), diameters=(2.0, 3.0, 4.0))).network.depth < plan_of(facts((512, 512))).network.depth
    )


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([2, 3]),
    st.integers(0, 2),
    st.sampled_from(["batch", "none", "instance"]),
    st.sampled_from(["transpose", "interpolate"]),
    st.booleans(),
)
def test_weights_are_counted_as_the_network_has_them(ndim, depth, norm, upsample, skips):
    net = UNetConfig(ndim=ndim, depth=depth, base_features=3, max_features=5, norm=norm, upsample=upsample, skips=skips)
    assert parameters(net) == sum(p.numel() for p in UNet(net).parameters())


@pytest.mark.parametrize(("ndim", "patch"), [(2, (64, 64)), (3, (16, 32, 32))])
def test_the_estimate_holds_what_autograd_keeps(ndim, patch):
    config = UNetConfig(ndim=ndim, depth=2, base_features=8)
    net, kept = UNet(config), {}

    def keep(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = net(torch.zeros(2, 1, *patch))
    assert out.shape[2:] == patch
    estimate = training_bytes(config, patch, 2, 4)
    assert 0.8 * sum(kept.values()) < estimate < 2.5 * sum(kept.values())


def test_the_papers_preset_is_the_papers_network():
    plan = plan_of(facts((512, 512)), preset="ronneberger2015")
    assert plan.patch == (388, 388)
    assert [n + 2 * m for n, m in zip(plan.patch, plan.margin, strict=True)] == [572, 572]
    assert (plan.batch, plan.optimiser, plan.network.features[-1]) == (1, "sgd", 1024)


def test_less_memory_takes_batch_then_patch_then_refuses():
    found = facts((512, 512))
    wide, narrow, tiny = (plan_of(found, memory=m, base_features=32) for m in (4, 0.3, 0.18))
    assert wide.batch > narrow.batch
    assert math.prod(tiny.patch) < math.prod(narrow.patch)
    assert tiny.memory <= 0.18 * 2**30
    with pytest.raises(ResourceError, match="allow more memory"):
        plan_of(found, memory=0.05, base_features=64)


@pytest.mark.parametrize("preset", ["default", "ronneberger2015"])
def test_without_skips_the_network_is_a_plain_encoder_decoder(preset):
    assert plan_of(facts((512, 512)), preset=preset).network.skips
    assert not plan_of(facts((512, 512)), preset=preset, skips=False).network.skips


def test_wishes_are_taken_or_refused():
    plan = plan_of(facts((512, 512)), patch=(64, 96), batch=3, depth=2, base_features=5, learning_rate=0.5)
    assert (plan.patch, plan.batch, plan.network.depth) == ((64, 96), 3, 2)
    assert (plan.network.base_features, plan.learning_rate) == (5, 0.5)
    assert plan_of(facts((512, 512)), base_features=8, max_features=20, depth=3).network.features == (8, 16, 20, 20)
    paper = plan_of(facts((512, 512)), preset="ronneberger2015", base_features=8, max_features=20).network
    assert paper.features == (8, 16, 20, 20, 20)
    with pytest.raises(UsageError, match="first level"):
        plan_of(facts((512, 512)), base_features=21, max_features=20)
    with pytest.raises(UsageError, match="multiple"):
        plan_of(facts((512, 512)), patch=(63, 96))
    with pytest.raises(UsageError, match="cannot be pooled"):
        plan_of(facts((512, 512)), patch=(16, 16), depth=6)
    with pytest.raises(DataError, match="need"):
        plan_of(facts((512, 512)), ndim=3)
    with pytest.raises(ModelError, match="channels"):
        make_plan(facts((99, 99)), TrainConfig(), 2, UNetConfig(in_channels=3))
    for wrong in ({"patch": (8,)}, {"ndim": 4}, {"minutes": 0}, {"preset": "best"}, {"patch": (8, 8), "ndim": 3}):
        with pytest.raises(UsageError):
            TrainConfig(**wrong)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_fingerprint_counts_every_voxel_once_and_remembers_true_places(seed, height, width, sparse):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 3, 200], size=(3, height, width)).astype(np.uint16)
    labels[0, 0, 0], labels[1, 0, 0], labels[2, 0, 0] = 0, 3, 200
    image = rng.normal(size=labels.shape)
    found = wait(fingerprint([(Stack(image, "zyx"), Stack(labels, "zyx"))], sparse))
    values, counts = np.unique(labels, return_counts=True)
    assert found.stacks[0].counts == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert found.values == ((3, 200) if sparse else (0, 3, 200))
    assert sum(found.frequencies.values()) == pytest.approx(1)
    for value, places in found.stacks[0].places.items():
        assert value in found.values
        assert (labels[tuple(places.T)] == value).all()
        assert len(np.unique(places, axis=0)) == len(places) == min(found.stacks[0].counts[value], 2048)


def test_a_factor_along_z_takes_a_volume_however_few_its_planes():
    found = facts((12, 120, 120), (20.0, 1.0, 1.0))
    assert plan_of(found).network.ndim == 2
    planned = plan_of(found, task="super_resolve", upscale=(4, 1, 1)).network
    assert (planned.ndim, planned.upscale) == (3, (4, 1, 1))
