"""Floats that are labels: whole numbers that a program saved as floats."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays.stack import Stack
from ..arrays.views import Box, LazyArray, LazyBase, View, chunk_shape
from ..errors import DataError
from ..grid.blocks import box_at

WERE_FLOATS = "whole numbers saved as floats taken as labels"
SAMPLED = 2**22  # elements that are checked before floats are taken as labels; the others when they are read
PARTS = 16  # places that they lie in, spread over the stack
HIGHEST = 2**32  # beyond it neighbouring ids are the same number in 32-bit floats, and in uint32 there is no room
MADE_BY_IMAGEJ = 4  # bytes: it saves labels as 32-bit floats; zeros in 64 bits are an array that was never filled
CONSTANT = 0.5  # share of neighbours with the same value from which on an image is one of labels


def whole_numbers(stack: Stack) -> Stack:
    """Return a stack of floats as labels, uint32.

    Raises
    ------
    DataError
        Where a number in a sample of it is none of a label: not whole, negative, infinite. Such a number elsewhere is
        refused when it is read.
    """
    some = False
    for box in _sample(stack):
        some |= bool(_whole(stack.read(box), stack.name).any())
    if not some and stack.dtype.itemsize > MADE_BY_IMAGEJ:
        raise DataError(_refusal(stack.data, stack.name))
    data: LazyArray
    if isinstance(stack.data, View):
        data = dataclasses.replace(stack.data, base=WholeNumbers(stack.data.base, stack.name))
    else:
        data = WholeNumbers(stack.data, stack.name)
    return dataclasses.replace(stack, data=data, notes=(*stack.notes, WERE_FLOATS))


def is_patchy(stack: Stack) -> bool:
    """Say whether most neighbours in a sample have the same value, as in labels and hardly in an image."""
    same = total = 0
    for box in _sample(stack):
        data = stack.read(box)
        same += int((data[..., 1:] == data[..., :-1]).sum())
        total += data[..., 1:].size
    return total == 0 or same >= CONSTANT * total


def _sample(stack: Stack) -> Iterator[Box]:
    """Yield boxes spread over a stack: all of it where it is small."""
    steps = [min(c, 512) for c in chunk_shape(stack.data)]
    counts = [math.ceil(n / step) for n, step in zip(stack.shape, steps, strict=True)]
    total = math.prod(counts)
    places = range(total)
    if math.prod(stack.shape) > SAMPLED:
        places = range(0, total, max(1, total // PARTS))
    budget = max(1, SAMPLED // math.prod(steps)) if math.prod(stack.shape) > SAMPLED else total
    for place in itertools.islice(places, budget):
        yield box_at([int(i) for i in np.unravel_index(place, counts)], steps, stack.shape)


def _refusal(data: LazyArray, name: str) -> str:
    return f"{name} holds {np.dtype(data.dtype)}, labels are integers; convert it with astype('uint16')"


def _whole(data: np.ndarray, name: str) -> np.ndarray:
    """Return floats as integers, or say that they are none."""
    with np.errstate(invalid="ignore", over="ignore"):  # the limit is infinite in 16-bit floats
        wrong = ~((data >= 0) & (data < HIGHEST) & (data == np.floor(data)))
    if wrong.any():
        raise DataError(f"{_refusal(data, name)} (there is {data[wrong][0]:g} in it)")
    return data.astype(np.uint32)


@dataclasses.dataclass(frozen=True, slots=True)
class WholeNumbers(LazyBase):
    """A lazy array of floats read as uint32; what is not a whole number is refused where it is read."""

    base: LazyArray
    name: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return np.dtype(np.uint32)

    def read(self, box: Box) -> np.ndarray:
        """Read a box."""
        return _whole(np.asarray(self.base[box]), self.name)
