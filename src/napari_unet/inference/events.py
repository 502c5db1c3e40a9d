"""What is said of a run, before, while and after it goes on; it reaches a window, which loads no torch for it."""

import dataclasses
from pathlib import Path
from typing import Any

from ..arrays.stack import Stack
from ..arrays.views import Box
from ..events import Progress
from ..text import byte_size


@dataclasses.dataclass(frozen=True, slots=True)
class Preflight:
    """What a run will take.

    Parameters
    ----------
    blocks, done : int
        Blocks in all, and those that an unfinished run has written.
    way : str
        The blocks and the way through them, in words.
    memory, disk, free : float
        Bytes that the network will hold, that the result may take, and that the disk has.
    state : "new", "unfinished", "finished" or "other"
        What lies at the place of the result: nothing, this run, or one with other settings.
    """

    blocks: int
    done: int
    way: str
    memory: float
    disk: float
    free: float
    state: str

    @property
    def taken(self) -> bool:
        """Whether something lies at the place of the result that is left as it is unless it is overwritten."""
        return self.state in ("finished", "other")

    def __str__(self) -> str:
        parts = [self.way, f"memory about {byte_size(self.memory)}", f"disk up to {byte_size(self.disk)}"]
        if self.disk > self.free:
            parts.append(f"only {byte_size(self.free)} free")
        if self.state == "unfinished":
            parts.append(f"{self.done} of {self.blocks} blocks are done")
        return "; ".join(parts)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Progress):
    """A result that can be viewed from now on, while it fills in block by block.

    Parameters
    ----------
    path : Path
        The group that fills in, its first level in ``path / "0"``: of objects, the classes that they are made of.
    geometry : Stack
        Zeros that lie where it does, of its axes and type.
    kind : str
        "labels" or "image".
    attributes : dict
        Colours and classes of labels, as OME-Zarr has them.
    """

    path: Path
    geometry: Stack
    kind: str
    attributes: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Seam:
    """What cutting a sample into tiles did to its result.

    Parameters
    ----------
    box : box
        The sample, along the tiled axes.
    voxels : int
        Voxels that were compared.
    changed : int
        Those whose result differs.
    largest : float
        Largest difference of a probability, or of a normalised intensity.
    what : str
        Which of them.
    """

    box: Box
    voxels: int
    changed: int
    largest: float
    what: str = "probabilities"

    def __str__(self) -> str:
        return (
            f"{self.changed:,} of {self.voxels:,} voxels differ where the cuts lie elsewhere; "
            f"{self.what} differ by at most {self.largest:.2g}"
        )
