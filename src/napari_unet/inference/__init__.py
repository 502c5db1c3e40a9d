"""Running a model over a stack: `predict.predict` into a store, `lazy.predict_lazy` where somebody looks."""

from .config import PredictConfig

__all__ = ["PredictConfig"]
