"""What counts as an object, and how a volume is cut into blocks."""

import dataclasses

from ..errors import UsageError

MANY = 20  # more values than that in labels are numbers of objects, not classes
BACKGROUND, INSIDE, BORDER = 0, 1, 2  # the classes of a network for objects


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectConfig:
    """How objects are made from classes.

    Parameters
    ----------
    min_size : int
        Objects of fewer voxels, their filled holes included and before growth, are dropped.
    fill_holes : int
        Largest hole that is filled, in voxels; 0 fills none.
    grow : int
        Steps that objects grow into the class "border", and into nothing else.
    link : float
        IoU from which on an object has the id of the one that it lies on, one time point before; 0 links none.

    Raises
    ------
    UsageError
        Where one of them is negative, or `link` is more than 1.
    """

    min_size: int = 0
    fill_holes: int = 0
    grow: int = 2
    link: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise UsageError(f"{field.name} is {getattr(self, field.name)}; it must be 0 or more")
        if not self.link <= 1:
            raise UsageError(f"link is {self.link}; it is an IoU, from 0 to 1")
