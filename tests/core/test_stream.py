import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinds import random_net
from napari_unet.network import UNetConfig, deployable, footprint
from napari_unet.network.stream import Stream
from strategies import configs


@settings(deadline=None, max_examples=60)
@given(configs(), st.data())
def test_streamed_equals_whole(config, data):
    field = footprint(config)
    size = []
    for stride, margin, remainder in zip(field.stride, field.margin, field.remainder, strict=True):
        steps = data.draw(st.integers(1, 3 if config.ndim == 3 else 5))
        size.append(stride * steps if not margin else remainder + stride * (steps - 1) + 2 * margin)
    size[0] += field.stride[0] * data.draw(st.integers(0, 4), label="longer")
    net = deployable(random_net(config))
    image = torch.randn(1, config.in_channels, *size)
    whole = net(image)
    stream, parts, at = Stream(net), [], 0
    while at < size[0]:
        planes = data.draw(st.integers(1, 12), label="slab")
        out = stream.push(image[:, :, at : at + planes], last=at + planes >= size[0])
        at += planes
        if out is not None:
            parts.append(out)
    streamed = torch.cat(parts, 2)
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() <= 1e-4 * max(1, float(whole.abs().max()))


def test_a_stream_holds_no_more_for_a_longer_image():
    net = deployable(random_net(UNetConfig(depth=3, base_features=4)))
    held = {}
    for planes in (128, 512):
        stream = Stream(net)
        for at in range(0, planes, 16):
            stream.push(torch.zeros(1, 1, 16, 24), last=at + 16 == planes)
            if at == planes - 32:
                held[planes] = sum(level._skip.planes + level._ready.planes for level in levels(stream))
    assert held[128] == held[512]


def levels(stream):
    level = stream._top
    while level.below is not None:
        yield level
        level = level.below
