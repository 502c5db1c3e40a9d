"""Objects from classes, block by block, the same for every way of cutting the volume."""

from .config import Grid, ObjectConfig
from .decode import Objects, decode, find, paint
from .merge import label_dtype

__all__ = ["Grid", "ObjectConfig", "Objects", "decode", "find", "label_dtype", "paint"]
