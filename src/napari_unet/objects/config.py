"""What counts as an object, and how a volume is cut into blocks."""

import dataclasses
from typing import Any

import numpy as np

from ..errors import UsageError

MANY = 20  # more values than that in labels are numbers of objects, not classes
LATER = ("nearest", "cores", "kinds")  # fields that came after the first models
BACKGROUND, INSIDE, BORDER, CORE = range(4)  # the classes of a network for objects
PARTS = 4  # of them there are so many; an inside of the class k of objects, from 0, is INSIDE + PARTS * k
MOST_KINDS = 63  # classes of objects: what is inside of one, or core, is written with 8 bits


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
    kinds : tuple of str
        Names of the classes of objects, by which inside, and core, are told apart; empty where objects have none.

    Raises
    ------
    UsageError
        Where one of them is negative, `link` is more than 1, or there are too many classes.
    """

    min_size: int = 0
    fill_holes: int = 0
    grow: int = 2
    link: float = 0.0
    nearest: bool = False
    cores: bool = False
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "kinds" and getattr(self, field.name) < 0:
                raise UsageError(f"{field.name} is {getattr(self, field.name)}; it must be 0 or more")
        if not self.link <= 1:
            raise UsageError(f"link is {self.link}; it is an IoU, from 0 to 1")
        if len(self.kinds) > MOST_KINDS:
            raise UsageError(f"objects have {len(self.kinds)} classes; at most {MOST_KINDS} can be told apart")

    def parts(self, classes: np.ndarray) -> np.ndarray:
        """Return classes without those of objects: background, inside, border and core."""
        return classes % PARTS if self.kinds else classes

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; what older runs do not have is left out where it is as in these."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in LATER or value}
