"""What hypothesis draws: networks and grids of every kind."""

from hypothesis import strategies as st

from napari_unet.grid.tiles import Footprint, TileGrid
from napari_unet.network import UNetConfig


@st.composite
def configs(draw, ndims=(2, 3), images=True):
    """Small networks of every kind that is tile-exact; with `images` finer and residual ones too."""
    ndim = draw(st.sampled_from(ndims))
    depth = draw(st.integers(0, 2 if ndim == 3 else 3))
    sizes = st.tuples(*[st.sampled_from([1, 3, 3] if ndim == 3 else [1, 3, 5])] * ndim)
    pools = st.tuples(*[st.sampled_from([1, 2, 2, 3])] * ndim)
    in_channels, out_channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    padding, factor = draw(st.sampled_from(["same", "valid"])), ()
    if images and padding == "same" and draw(st.booleans()):
        factor = draw(st.tuples(*[st.integers(1, 4 if ndim == 2 else 2)] * ndim))
    return UNetConfig(
        ndim=ndim,
        in_channels=in_channels,
        out_channels=out_channels,
        depth=depth,
        base_features=draw(st.integers(2, 4)),
        kernels=tuple(draw(sizes) for _ in range(depth + 1)),
        strides=tuple(draw(pools) for _ in range(depth)),
        padding=padding,
        norm=draw(st.sampled_from(["batch", "none"])),
        skips=draw(st.booleans()),
        upsample=draw(st.sampled_from(["transpose", "interpolate"])),
        dropout=draw(st.sampled_from([0.0, 0.5])),
        upscale=factor,
        residual=images and in_channels <= out_channels and draw(st.booleans()),
    )


@st.composite
def grids(draw):
    ndim = draw(st.integers(1, 3))
    parts = []
    for _ in range(ndim):
        stride = draw(st.sampled_from([1, 2, 3, 4, 8]))
        if draw(st.booleans()):
            parts.append((stride, draw(st.integers(0, 3)) * stride, 0, 0))
        else:
            parts.append((stride, 0, draw(st.integers(1, 12)), draw(st.integers(1, stride))))
    stride, halo, margin, remainder = zip(*parts, strict=True)
    shape = tuple(draw(st.integers(1, 40)) for _ in range(ndim))
    core = tuple(draw(st.integers(1, 24)) for _ in range(ndim))
    return TileGrid(shape, core, Footprint(stride, halo, margin, remainder))
