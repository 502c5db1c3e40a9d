"""Open images, labels and results of any kind as lazy stacks."""

from .describe import describe
from .open import open_labels, open_stack
from .pairs import list_images, pair_paths
from .zarrays import missing_chunks

__all__ = ["describe", "list_images", "missing_chunks", "open_labels", "open_stack", "pair_paths"]
