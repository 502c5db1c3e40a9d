"""Objects from classes, block by block, the same for every way of cutting the volume."""

from .config import ObjectConfig
from .decode import Canvas, Objects, decode, find, paint
from .grid import ObjectGrid
from .merge import label_dtype
from .part import PartObjects, objects_of, objects_of_part
from .scratch import InMemory, Scratch

__all__ = [
    "Canvas",
    "InMemory",
    "ObjectConfig",
    "ObjectGrid",
    "Objects",
    "PartObjects",
    "Scratch",
    "decode",
    "find",
    "label_dtype",
    "objects_of",
    "objects_of_part",
    "paint",
]
