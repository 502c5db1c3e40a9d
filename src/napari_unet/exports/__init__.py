"""Results for other programs: outlines of objects, tables of their shapes, tracks, and TIFFs."""

from .write import export

__all__ = ["export"]
