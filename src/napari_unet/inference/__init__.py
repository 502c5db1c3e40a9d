"""Running a model over a stack: `predict.predict` into a store, `lazy.predict_lazy` where it is viewed."""

from .config import PredictConfig

__all__ = ["PredictConfig"]
