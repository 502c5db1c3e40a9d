"""Results in OME-Zarr: written block by block, resumed, verified."""

from .layout import find
from .ome import Output
from .result import ResultStore
from .verification import verify

__all__ = ["Output", "ResultStore", "find", "verify"]
