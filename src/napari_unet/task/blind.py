"""Blind spots: voxels hidden from the network, at which it learns to predict a noisy image from what is around."""

import torch
from torch import Tensor

EDGE = {2: 8, 3: 5}  # a cell for each hidden voxel: 1.6 % and 0.8 % of all, as in the paper (64 of a patch of 64 x 64)
NEIGHBOURS = 2  # voxels to each side: what stands in must look as if it belonged there


def blind_spots(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hide about one voxel in 64 (in 3-D in 125), each behind a neighbour drawn from 2 voxels around.

    Parameters
    ----------
    images : (B, C, *S) float tensor

    Returns
    -------
    images : (B, C, *S) tensor
        A copy with the hidden voxels replaced, all channels together.
    hidden : (B, 1, *S) bool tensor

    References
    ----------
    Krull et al.: Noise2Void, CVPR 2019, section 3.3: one voxel drawn in each cell of a grid.
    """
    ndim, shape = images.ndim - 2, images.shape[2:]
    given = images.reshape(*images.shape[:2], -1)
    changed = given.clone()
    hidden = torch.zeros((len(images), 1, given.shape[2]), dtype=torch.bool, device=images.device)
    for index in range(len(images)):
        places = _places(tuple(shape), generator)
        sources = []
        for p, step, n in zip(places, _steps(ndim, len(places[0]), generator), shape, strict=True):
            moved = p + step
            sources.append(torch.where((moved < 0) | (moved >= n), p - step, moved).clamp(0, n - 1))
        at, source = (_flat(each, tuple(shape)).to(images.device) for each in (places, sources))
        hidden[index, 0, at] = True
        changed[index, :, at] = given[index, :, source]
    return changed.reshape(images.shape), hidden.reshape(len(images), 1, *shape)


def _places(shape: tuple[int, ...], generator: torch.Generator) -> list[Tensor]:
    """Draw one voxel in each cell of a grid: its index per axis."""
    ndim = len(shape)
    edge = [min(EDGE[ndim], n) for n in shape]
    cells = [-(-n // e) for n, e in zip(shape, edge, strict=True)]
    places = []
    for axis, (e, count) in enumerate(zip(edge, cells, strict=True)):
        start = (torch.arange(count) * e).reshape([-1 if i == axis else 1 for i in range(ndim)])
        places.append(start + torch.randint(e, cells, generator=generator, device=generator.device).cpu())
    inside = torch.stack([p < n for p, n in zip(places, shape, strict=True)]).all(0)
    return [p[inside] for p in places]


def _flat(places: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Turn an index per axis into one in the raveled image."""
    flat = torch.zeros_like(places[0])
    for p, n in zip(places, shape, strict=True):
        flat = flat * n + p
    return flat


def _steps(ndim: int, count: int, generator: torch.Generator) -> list[Tensor]:
    """Draw steps to a neighbour, never to the voxel itself."""
    width = 2 * NEIGHBOURS + 1
    middle = (width**ndim - 1) // 2
    drawn = torch.randint(width**ndim - 1, (count,), generator=generator, device=generator.device).cpu()
    drawn = drawn + (drawn >= middle)
    return [drawn // width**axis % width - NEIGHBOURS for axis in range(ndim)]
