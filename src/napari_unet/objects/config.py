"""What counts as an object, and how a volume is cut into blocks."""

import dataclasses
from typing import Any

from ..errors import UsageError

MANY = 20  # more values than that in labels are numbers of objects, not classes
LATER = ("nearest", "cores")  # fields that came after the first models
BACKGROUND, INSIDE, BORDER, CORE = range(4)  # the classes of a network for objects


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
        Steps, or with `nearest` voxels, that objects grow into the class "border", and into nothing else.
    link : float
        IoU from which on an object has the id of the one that it lies on, one time point before; 0 links none.
    nearest : bool
        Whether what is grown over goes to the nearest object within `grow` voxels, and not step by step to the smallest
        id, as in models before 0.2.
    cores : bool
        Whether objects are the parts of the class "core", and grow over "inside" too.

    Raises
    ------
    UsageError
        Where one of them is negative, or `link` is more than 1.
    """

    min_size: int = 0
    fill_holes: int = 0
    grow: int = 2
    link: float = 0.0
    nearest: bool = False
    cores: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 0:
                raise UsageError(f"{field.name} is {getattr(self, field.name)}; it must be 0 or more")
        if not self.link <= 1:
            raise UsageError(f"link is {self.link}; it is an IoU, from 0 to 1")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; what older runs do not have is left out where it is as in these."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in LATER or value}
