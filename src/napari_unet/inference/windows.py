"""A tile run window by window, where the network takes statistics of what it is given: see `network.windows`."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arrays.views import Box, overlap, within
from ..grid.tiles import scaled
from ..network import GraphConfig, KnownConfig, UNetConfig
from ..network.windows import goes_whole, importance, starts

Run = Callable[[Tensor], Tensor]


def way_of(config: UNetConfig | GraphConfig | KnownConfig, sizes: Sequence[int]) -> str:
    """Return how a network that takes statistics is run on an image of `sizes`, as it is kept; of others nothing."""
    if isinstance(config, UNetConfig) or not config.window:
        return ""
    if goes_whole(config, sizes):
        return "one pass over the whole image"
    how = "half over each other, weighed" if config.blended else "side by side"
    return f"windows of {' x '.join(map(str, config.window))}, {how}"


def side_by_side(run: Run, x: Tensor, inner: Box, config: GraphConfig | KnownConfig) -> Tensor:
    """Run windows whose cores lie beside each other, where they do in the whole image: they begin where `inner` does.

    Margins end where the image ends.

    Returns
    -------
    (B, K, *S) tensor, of `x`, right within `inner`
    """
    finer = [n * f for n, f in zip(x.shape[2:], config.factors, strict=True)]
    out = x.new_zeros((len(x), config.out_channels, *finer), dtype=torch.float32)
    begin = (range(i.start, i.stop, c) for i, c in zip(inner, config.core, strict=True))
    for at in itertools.product(*begin):
        core = tuple(slice(a, a + c) for a, c in zip(at, config.core, strict=True))
        sides = zip(core, config.margin, x.shape[2:], strict=True)
        read = tuple(slice(max(c.start - m, 0), min(c.stop + m, n)) for c, m, n in sides)
        found = run(_laid(x[_space(read)]))
        out[_space(scaled(core, config.factors))] = found[_space(scaled(within(core, read), config.factors))]
    return out


def blended(
    run: Run, x: Tensor, inner: Box, place: Sequence[int], sizes: Sequence[int], config: GraphConfig | KnownConfig
) -> Tensor:
    """Run all windows that overlap a tile's core, and return their weighed mean there.

    Each window sees the same, and they are added up in one order, wherever the tile lies.

    Parameters
    ----------
    x : (B, C, *S) tensor
        All of the image that these windows see.
    inner : box in `x`: the core
    place : sequence of int
        Where `x` begins in the whole image.
    sizes : sequence of int
        Of the whole image.

    Returns
    -------
    (B, K, *core) tensor
    """
    image = tuple(slice(0, n) for n in sizes)
    core = tuple(slice(i.start + p, i.stop + p) for i, p in zip(inner, place, strict=True))
    edges = [i.stop - i.start for i in inner]
    out = x.new_zeros((len(x), config.out_channels, *edges), dtype=torch.float32)
    total, weigh = x.new_zeros(edges, dtype=torch.float32), importance(config.window).to(x.device)
    for corner in itertools.product(*map(starts, sizes, config.window)):
        window = tuple(slice(c, c + w) for c, w in zip(corner, config.window, strict=True))
        shared, seen = overlap(core, window), overlap(image, window)
        if any(part.start >= part.stop for part in shared):
            continue
        given = x[_space(slice(s.start - p, s.stop - p) for s, p in zip(seen, place, strict=True))]
        around: list[int] = []
        for part, whole in zip(reversed(seen), reversed(window), strict=True):
            around += [part.start - whole.start, whole.stop - part.stop]
        found = run(_laid(torch.nn.functional.pad(given, around)))
        at, there = within(shared, core), within(shared, window)
        out[_space(at)] += found[_space(there)].float() * weigh[there]
        total[at] += weigh[there]
    return out / total


def _space(box: Iterable[slice]) -> Any:
    """Return what indexes the last axes of a tensor."""
    return (..., *box)


def _laid(x: Tensor) -> Tensor:
    """Return it as networks take it: channels last."""
    layout: Any = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.contiguous(memory_format=layout)
