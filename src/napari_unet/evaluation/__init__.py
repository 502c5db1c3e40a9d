"""Score a result against the truth: classes, objects or intensities, for one image or a folder of them."""

from .report import Evaluation
from .score import evaluate

__all__ = ["Evaluation", "evaluate"]
