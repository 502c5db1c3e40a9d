"""A part of an image run for itself: the same numbers as the whole run gives there."""

import dataclasses
import math
import re

from ..arrays.stack import SPATIAL, Stack
from ..arrays.views import Box
from ..errors import UsageError
from ..grid.tiles import Footprint

PART = re.compile(r"\s*(\d*)\s*:\s*(\d*)\s*")
CLEARANCE = 2  # times what the network sees: at the image's end it also sees what lies before, mirrored


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A part of an image.

    Parameters
    ----------
    wanted : mapping of axis to slice
        What the result is of.
    taken : mapping of axis to slice
        What the network is given: `wanted` and all that it sees around that, on its grid.
    """

    wanted: dict[str, slice]
    taken: dict[str, slice]

    def corner(self, axes: str) -> Box:
        """Return where the wanted part lies in what the network is given, per axis."""
        return tuple(
            slice(self.wanted[a].start - self.taken[a].start, self.wanted[a].stop - self.taken[a].start) for a in axes
        )


def region_of(text: str, stack: Stack, axes: str, footprint: Footprint) -> Region:
    """Read a region, as ``z0:z1,y0:y1,x0:x1``, and find what the network sees around it.

    Parameters
    ----------
    text : str
        One part per axis of space, in pixels from 0, the last of which is left out; an end that is missing is the
        image's.
    stack : Stack
    axes : str
        Those that are tiled, in the order of the footprint.
    footprint : Footprint

    Raises
    ------
    UsageError
        Where it is no region of the image.
    """
    parts, space = text.split(","), [a for a in axes if a in SPATIAL]
    found = [PART.fullmatch(part) for part in parts]
    if len(parts) != len(space) or not all(found):
        example = ",".join(f"{a}0:{a}1" for a in space)
        raise UsageError(
            f"the region {text!r} does not fit {stack.name}; give {example} in pixels, such as {_middle(stack, space)}"
        )
    wanted = {a: slice(0, stack.size(a)) for a in axes}
    for axis, match in zip(space, found, strict=True):
        low, high = match.groups() if match else ("", "")
        part = slice(int(low or 0), int(high or stack.size(axis)))
        if not 0 <= part.start < part.stop <= stack.size(axis):
            raise UsageError(
                f"the region {text!r} leaves {stack.name} along {axis}, which has 0:{stack.size(axis)}; choose within"
            )
        wanted[axis] = part
    taken = {}
    for i, axis in enumerate(axes):
        stride, part, n = footprint.stride[i], wanted[axis], stack.size(axis)
        reach = (
            CLEARANCE * (footprint.halo[i] + footprint.margin[i] + stride - 1) if stride > 1 or footprint.halo[i] else 0
        )
        reach = max(reach, footprint.least[i] if footprint.least else 0)
        low = max(0, part.start - reach) // stride * stride
        high = min(n, math.ceil((part.stop + reach) / stride) * stride)
        taken[axis] = slice(low, high)
    return Region(wanted, taken)


def _middle(stack: Stack, space: list[str]) -> str:
    return ",".join(f"{stack.size(a) // 4}:{max(1, stack.size(a) * 3 // 4)}" for a in space)
