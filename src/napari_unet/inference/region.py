"""A part of an image run for itself: the same numbers as the whole run gives there."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ..arrays.resample import Resampled, Weights
from ..arrays.stack import SPATIAL, Stack
from ..arrays.views import Box, LazyArray, View, Within
from ..errors import UsageError
from ..grid.tiles import Factor, scaled
from .engine import Engine

PART = re.compile(r"\s*(\d*)\s*:\s*(\d*)\s*")
CLEARANCE = 2  # times what the network sees: at the image's end it also sees what lies before, mirrored


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """A part of an image, per axis that is tiled.

    The image may be resampled for the network; the part need not lie on its pixels:

        own pixels      | . . w w w w w . . . |    w: wanted
        the network's   |..s.mmmmmmmmm.s......|    m: made_of, all that any w takes something of; s...s: taken

    Parameters
    ----------
    wanted : mapping of axis to slice
        What the result is of, in pixels of the image.
    made_of : mapping of axis to slice
        What the network gives for it, in pixels of the network, as the other two.
    taken : mapping of axis to slice
        What the network is given: `made_of` and all that it sees around that, on its grid.
    own, run : mapping of axis to slice
        All of the image, and all of what the network is given of the whole.
    """

    wanted: dict[str, slice]
    made_of: dict[str, slice]
    taken: dict[str, slice]
    own: dict[str, slice]
    run: dict[str, slice]

    def cut(
        self,
        data: LazyArray,
        axes: str,
        lies: Mapping[str, slice],
        factors: Mapping[str, Factor],
        ratios: Sequence[float],
        kind: type[Resampled],
    ) -> View:
        """Return the wanted part of a result at the pixels of the image, lazily: the same as if all were resampled.

        Parameters
        ----------
        data : array
            A part of the result, at the network's pixels.
        lies : mapping of axis to slice
            Where it lies there: `taken` or `made_of`.
        factors : mapping of axis to int or Fraction
            Elements of the result per pixel.
        ratios : sequence of float
            Size of own pixels in the network's, per axis of `axes`.
        """

        def finer(parts: Mapping[str, slice]) -> Box:
            return tuple(
                scaled((parts[a],), (factors[a],))[0] if a in parts else slice(0, n)
                for a, n in zip(axes, data.shape, strict=True)
            )

        run, own = (tuple(part.stop for part in finer(whole)) for whole in (self.run, self.own))
        whole: LazyArray = Within(data, run, tuple(part.start for part in finer(lies)))
        if own != run or any(ratio != 1 for ratio in ratios):
            whole = kind(whole, own, tuple(ratios))
        return View.of(whole).cut(finer(self.wanted))


def region_of(text: str, given: Stack, own: Stack, engine: Engine) -> Region:
    """Read a region, as ``z0:z1,y0:y1,x0:x1``, and find what the network sees around it.

    Parameters
    ----------
    text : str
        One part per axis of space, in pixels from 0, the last of which is left out; an end that is missing is the
        image's.
    given : Stack
        The image whose pixels these are.
    own : Stack
        What the model takes, at these pixels; a model before it may have made them finer.
    engine : Engine
        The model on all of it, at the pixels that it is run at.

    Raises
    ------
    UsageError
        Where it is no region of the image.
    """
    axes, run, footprint = engine.axes, engine.stack, engine.footprint
    parts, space = text.split(","), [a for a in axes if a in SPATIAL]
    found = [PART.fullmatch(part) for part in parts]
    if len(parts) != len(space) or not all(found):
        example = ",".join(f"{a}0:{a}1" for a in space)
        raise UsageError(
            f"the region {text!r} does not fit {given.name}; give {example} in pixels, such as {_middle(given, space)}"
        )
    wanted = {a: slice(0, own.size(a)) for a in axes}
    for axis, match in zip(space, found, strict=True):
        low, high = match.groups() if match else ("", "")
        part, n = slice(int(low or 0), int(high or given.size(axis))), given.size(axis)
        if not 0 <= part.start < part.stop <= n:
            raise UsageError(f"the region {text!r} leaves {given.name} along {axis}, which has 0:{n}; choose within")
        (wanted[axis],) = scaled((part,), (Fraction(own.size(axis), n),))
    made_of, taken = {}, {}
    for i, axis in enumerate(axes):
        stride, n = footprint.stride[i], run.size(axis)
        part = made_of[axis] = _beneath(wanted[axis], own, run, axis, engine.factors[i])
        reach = (
            CLEARANCE * (footprint.halo[i] + footprint.margin[i] + stride - 1) if stride > 1 or footprint.halo[i] else 0
        )
        reach = max(reach, footprint.least[i] if footprint.least else 0)
        low = max(0, part.start - reach) // stride * stride
        high = min(n, math.ceil((part.stop + reach) / stride) * stride)
        taken[axis] = slice(low, high)
    wholes = [{a: slice(0, stack.size(a)) for a in axes} for stack in (own, run)]
    return Region(wanted, made_of, taken, wholes[0], wholes[1])


def _beneath(part: slice, own: Stack, run: Stack, axis: str, factor: Factor) -> slice:
    """Return the network's pixels along an axis that the result takes something of for own pixels."""
    (fine,), (coarse,) = own.scale_along(axis), run.scale_along(axis)
    ratio = float(fine / factor) / float(coarse / factor)  # as the arrays of the result have it
    if ratio == 1 and own.size(axis) == run.size(axis):
        return part
    each, size = scaled((part, slice(0, run.size(axis))), (factor, factor))
    span = Weights.of(each, ratio, size.stop).span
    return slice(math.floor(span.start / factor), math.ceil(span.stop / factor))


def _middle(stack: Stack, space: list[str]) -> str:
    return ",".join(f"{stack.size(a) // 4}:{max(1, stack.size(a) * 3 // 4)}" for a in space)
