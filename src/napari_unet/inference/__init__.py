"""Running a model over a stack."""

from .lazy import predict_lazy
from .predict import PredictConfig, predict

__all__ = ["PredictConfig", "predict", "predict_lazy"]
