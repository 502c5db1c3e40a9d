"""A small result of two arrays, written block by block, for tests of what happens on the way. It loads no torch."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet.store import Output, ResultStore

Box = tuple[slice, ...]


def blocks_of(shape: tuple[int, ...], core: tuple[int, ...]) -> list[Box]:
    corners = itertools.product(*(range(0, n, c) for n, c in zip(shape, core, strict=True)))
    return [tuple(slice(a, min(a + c, n)) for a, c, n in zip(at, core, shape, strict=True)) for at in corners]


LABELS = Output(
    "labels/cells", "labels", "yx", (300, 280), np.dtype("u2"), (0.5, 0.5), ("micrometer",) * 2, chunks=(32, 32)
)
IMAGE = Output("", "image", "yx", (300, 280), np.dtype("u1"), (0.5, 0.5), ("micrometer",) * 2, chunks=(32, 32))
CORES = blocks_of((300, 280), (64, 96))


def values(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(seed).integers(1, 200, (300, 280)).astype("u1")
    return (image // 100).astype("u2") * 1000, image


def create(root: Path, **other: Any) -> ResultStore:
    given: dict[str, Any] = {
        "blocks": len(CORES),
        "settings": {"model": "a", "block": [64, 96]},
        "provenance": {"by": "x"},
    }
    outputs = other.pop("outputs", (LABELS, IMAGE))
    return ResultStore.create(root, outputs, **{**given, **other})


def regions(block: int, seed: int = 0) -> dict[str, tuple[Box, np.ndarray]]:
    labels, image = values(seed)
    return {"labels/cells": (CORES[block], labels[CORES[block]]), "": (CORES[block], image[CORES[block]])}


def steps(root: Path, **other: Any) -> Iterator[str]:
    """Run to the end, saying each step."""
    with create(root, **other) as store:
        yield f"opened {len(store.done)}"
        for block in store.pending():
            store.write(block, regions(block))
            yield f"block {block}"
        for event in store.finish():
            yield f"{event.stage} {event.done}"


def run(root: Path, **other: Any) -> Path:
    assert list(steps(root, **other))
    return root
