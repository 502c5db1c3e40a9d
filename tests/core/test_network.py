import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kinds import random_net, run_tile, run_tiled
from napari_unet.errors import ModelError
from napari_unet.grid.tiles import TileGrid
from napari_unet.network import UNet, UNetConfig, deployable, footprint, receptive_radius, ronneberger2015
from strategies import configs


@settings(deadline=None, max_examples=40)
@given(configs(), st.data())
def test_tiled_equals_whole(config, data):
    top = 24 if config.ndim == 3 else 70
    shape = tuple(data.draw(st.integers(1, top), label="shape") for _ in range(config.ndim))
    core = tuple(data.draw(st.integers(1, 32), label="core") for _ in range(config.ndim))
    core = tuple(max(c, n // 3) for c, n in zip(core, shape, strict=True))
    net = random_net(config)
    image = np.random.default_rng(0).normal(size=(config.in_channels, *shape)).astype(np.float32)
    whole = run_tiled(net, image, shape)
    tiled = run_tiled(net, image, core)
    assert np.abs(tiled - whole).max() <= 1e-4 * max(1, np.abs(whole).max())


def reach_of_the_gradient(net, axis, size, rising):
    """Furthest element that the middle outputs see along an axis, to its low or high side.

    With positive weights and an image that rises (falls) along the axes, pooling hands on the last (first) of a window.
    """
    ramps = [torch.linspace(1, 2, n, dtype=torch.float64) for n in size]
    image = ramps[0][:, None] * ramps[1]
    image = (image if rising else image.flip(0, 1))[None, None].repeat(1, net.config.in_channels, 1, 1)
    image.requires_grad_()
    out = net(image)
    seen = 0
    margin, stride = footprint(net.config).margin[axis], net.config.stride
    for phase in range(stride[axis]):
        at = [n // 2 // s * s for n, s in zip(out.shape[2:], stride, strict=True)]
        at[axis] += phase
        (gradient,) = torch.autograd.grad(out[0, 0, at[0], at[1]], image, retain_graph=True)
        where = torch.nonzero(gradient[0, 0].abs().sum(1 - axis)).ravel()
        centre = at[axis] + margin
        seen = max(seen, int(where[-1]) - centre if rising else centre - int(where[0]))
    return seen


@settings(deadline=None, max_examples=10)
@given(configs(ndims=(2,), images=False))
def test_the_receptive_field_is_the_footprint_of_the_gradient(config):
    net = UNet(config).eval().double()
    for name, values in net.named_parameters():
        values.data.uniform_(0.5, 1) if "weight" in name else values.data.zero_()
    field, radius = footprint(config), receptive_radius(config)
    for axis in range(2):
        size = []
        for i, (s, r, margin, rest) in enumerate(zip(field.stride, radius, field.margin, field.remainder, strict=True)):
            wanted = -(-4 * (r + 2 * s) // s) * s if i == axis else 2 * s
            size.append(wanted if not margin else wanted + rest + 2 * margin)
        assert max(reach_of_the_gradient(net, axis, size, rising) for rising in (False, True)) == radius[axis]


@pytest.mark.parametrize("missing", [0, 8, 16])
def test_a_smaller_halo_is_not_exact(missing):
    """Negative control: the halo is needed."""
    config = UNetConfig(depth=3, base_features=4)
    net = random_net(config)
    image = np.random.default_rng(0).normal(size=(1, 192, 32)).astype(np.float32)
    field = footprint(config)
    small = type(field)(field.stride, (missing, missing), field.margin, field.remainder)
    assert missing < field.halo[0]
    whole = run_tiled(net, image, image.shape[1:])
    worst = max(
        np.abs(run_tile(net, image, tile) - whole[(slice(None), *tile.write)]).max()
        for tile in TileGrid(image.shape[1:], (64, 32), small)
    )
    assert worst > 1e-4


def test_an_origin_off_the_grid_is_not_exact():
    config = UNetConfig(depth=3, base_features=4)
    net = random_net(config)
    image = np.random.default_rng(0).normal(size=(1, 96, 96)).astype(np.float32)
    with torch.inference_mode():
        whole = net(torch.from_numpy(image)[None])
        shifted = net(torch.from_numpy(image[:, 3:, :][:, :88])[None])
    assert (whole[0, :, 43:48] - shifted[0, :, 40:45]).abs().max() > 1e-3


def test_the_paper_network():
    net = UNet(ronneberger2015(out_channels=2)).eval()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23
    field = footprint(net.config)
    assert field.margin == (92, 92)
    assert (388 - field.remainder[0]) % field.stride[0] == 0
    with torch.inference_mode():
        assert net(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert net.bottleneck[1].conv.out_channels == 1024


@settings(deadline=None, max_examples=20)
@given(configs())
def test_folding_the_norms_changes_nothing(config):
    net = random_net(config)
    field = footprint(config)
    size = [s * 2 if not m else r + 2 * m for s, m, r in zip(field.stride, field.margin, field.remainder, strict=True)]
    x = torch.randn(2, config.in_channels, *size)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.inference_mode():
        assert torch.allclose(deployable(net)(x), net(x), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_train_mode_at_inference_would_be_seen():
    """Negative control: batch statistics and running statistics differ."""
    net = random_net(UNetConfig(depth=2, base_features=4))
    x = torch.randn(1, 1, 32, 32)
    assert (net(x) - net.train()(x)).abs().max() > 1e-2


@settings(deadline=None)
@given(configs())
def test_config_survives_json(config):
    assert UNetConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ndim": 4}, "ndim is 4"),
        ({"norm": "layer"}, "choose one of batch, none"),
        ({"depth": 2, "strides": ((2, 2),)}, "depth 2 needs 2 entries"),
        ({"kernels": ((2, 2),) * 5}, "odd"),
        ({"base_features": 0}, "base_features is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"norm": "group", "base_features": 12}, "multiple of 8"),
    ],
)
def test_what_cannot_be_built_is_named(wrong, says):
    with pytest.raises(ModelError, match=says):
        UNetConfig(**wrong)


def test_unknown_settings_are_named():
    with pytest.raises(ModelError, match="attention"):
        UNetConfig.from_json({"ndim": 2, "attention": True})


def test_an_input_off_the_stride_is_refused():
    with pytest.raises(ModelError, match="cannot be pooled"):
        UNet(UNetConfig(depth=2, base_features=2))(torch.zeros(1, 1, 10, 8))


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_norms_with_statistics_of_the_tile_are_marked(norm):
    assert not UNetConfig(norm=norm).tile_exact
    assert UNetConfig().tile_exact
