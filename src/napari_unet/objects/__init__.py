"""Objects from classes, block by block, the same for every way of cutting the volume."""

from ..grid.blocks import Grid
from .config import ObjectConfig
from .decode import Objects, decode, find, objects_of, paint
from .merge import label_dtype
from .scratch import Scratch

__all__ = ["Grid", "ObjectConfig", "Objects", "Scratch", "decode", "find", "label_dtype", "objects_of", "paint"]
