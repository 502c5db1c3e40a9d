"""The blocks of a volume in which objects are found, and the axes that these lie within."""

import dataclasses

from ..arrays.stack import SPATIAL
from ..arrays.views import Box
from ..errors import UsageError
from ..grid.blocks import Blocks


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectGrid(Blocks):
    """A volume of objects, cut into blocks.

    Parameters
    ----------
    axes : str
        ``yx``, ``zyx``, ``tyx`` or ``tzyx``.
    ndim : int, optional
        Objects lie within the last so many axes; all of z, y and x if not given.

    Raises
    ------
    UsageError
        Where axes, shape and block do not fit each other.
    """

    axes: str
    ndim: int | None = None

    def __post_init__(self) -> None:
        if self.axes.removeprefix("t") not in ("yx", "zyx") or self.ndim not in (None, 2, 3):
            raise UsageError(f"axes are {self.axes!r}; objects are made from yx, zyx, tyx or tzyx")
        if not len(self.axes) == len(self.shape) == len(self.core):
            raise UsageError(f"shape {self.shape} and block {self.core} need one size for each of {self.axes!r}")
        if min(self.shape + self.core) < 1:
            raise UsageError(f"shape {self.shape} and block {self.core} must be 1 or more along each axis")

    @property
    def spatial(self) -> tuple[int, ...]:
        """Positions of the axes within which objects lie."""
        axes = tuple(i for i, a in enumerate(self.axes) if a in SPATIAL)
        return axes if self.ndim is None else axes[-self.ndim :]

    @property
    def link_axis(self) -> int | None:
        """Position of the axis along which objects may be linked: time, or of a 2-D model the planes of one time."""
        apart = (i for i, n in enumerate(self.shape) if i not in self.spatial and n > 1)
        return next(apart, None)

    def around(self, box: Box, margin: int) -> Box:
        """Return `box` with `margin` more on both sides of each spatial axis, within the volume."""
        more = [margin if i in self.spatial else 0 for i in range(len(self.shape))]
        return tuple(
            slice(max(0, part.start - m), min(end, part.stop + m))
            for part, m, end in zip(box, more, self.shape, strict=True)
        )
