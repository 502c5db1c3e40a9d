"""A network that is told a time: at a fixed time an ordinary U-Net, the same numbers, streamed and cut up."""

import numpy as np
import pytest
import torch

from kinds import run_tiled, told
from napari_unet.errors import ModelError
from napari_unet.network import UNetConfig, deployable, step_of
from napari_unet.network.memory import parameters
from napari_unet.network.stream import Stream

NETS = {
    2: UNetConfig(in_channels=3, out_channels=2, depth=2, base_features=4, timed=True),
    3: UNetConfig(ndim=3, in_channels=2, out_channels=1, depth=1, base_features=4, norm="none", timed=True),
}


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_step_at_a_fixed_time_is_an_ordinary_network(ndim):
    net, size = told(NETS[ndim]), (16,) * ndim
    x = torch.randn(1, net.config.in_channels, *size)
    for time, scale, length in ((0.0, 1.0, 0.25), (0.6, 1.7, 0.1)):
        moving = net.config.out_channels
        leans = [0.5, 0.0][:moving]  # of the second there is no channel in what is given
        step = step_of(net, time, (np.full(moving, scale), np.array(leans)), np.full(moving, length))
        given = torch.zeros_like(x[:, :moving])
        given[:, 0] = 0.5 * x[:, moving]
        seen = torch.cat([scale * (x[:, :moving] + given), x[:, moving:]], 1)
        with torch.inference_mode():
            velocity = net(torch.cat([seen, torch.full((1, 1, *size), time)], 1))
            found = step(x)
        assert torch.allclose(found[:, :moving], x[:, :moving] + length * velocity, atol=1e-5)
        assert torch.equal(found[:, moving:], x[:, moving:])
        assert set(step.state_dict()) == set(deployable(step).state_dict())
        assert not any("time" in name or "moment" in name for name in step.state_dict())


def test_the_time_matters_and_is_that_of_each_sample():
    net = told(NETS[2])
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        times = torch.tensor([0.2, 0.7]).reshape(2, 1, 1, 1).expand(2, 1, 16, 16)
        both = net(torch.cat([x, times], 1))
        each = [net(torch.cat([x[i : i + 1], times[i : i + 1]], 1)) for i in range(2)]
        swapped = net(torch.cat([x, times.flip(0)], 1))
    assert torch.allclose(both, torch.cat(each), atol=1e-6)
    assert (both - swapped).abs().max() > 1e-2


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_step_streams_and_is_cut_up_as_any_network(ndim):
    moving = NETS[ndim].out_channels
    step = step_of(told(NETS[ndim]), 0.3, (np.full(moving, 1.2), np.zeros(moving)), np.full(moving, 0.2))
    image = np.random.default_rng(0).normal(size=(step.config.in_channels, *(40, 32, 16)[:ndim])).astype(np.float32)
    whole = run_tiled(step, image, image.shape[1:])
    assert np.abs(run_tiled(step, image, (16,) * ndim) - whole).max() <= 1e-5
    stream, parts = Stream(step), torch.from_numpy(image)[None].split(8, 2)
    found = [stream.push(part, i == len(parts) - 1) for i, part in enumerate(parts)]
    streamed = torch.cat([part for part in found if part is not None], 2)[0].numpy()
    assert np.abs(streamed - whole).max() <= 1e-5


@pytest.mark.parametrize("ndim", [2, 3])
def test_its_weights_are_counted(ndim):
    net = told(NETS[ndim])
    assert parameters(net.config) == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("wrong", [{"norm": "instance"}, {"upscale": (2, 2)}, {"residual": True}, {"padding": "valid"}])
def test_a_time_needs_what_folds(wrong):
    with pytest.raises(ModelError, match="told a time"):
        UNetConfig(out_channels=2, timed=True, **wrong)
