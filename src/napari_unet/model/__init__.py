"""Trained models: what they are made of, kept and loaded without running code from them."""

from .given import Models, OneModel, as_model, as_models
from .model import Model, load_model
from .weights import weights_of

__all__ = [
    "Model",
    "Models",
    "OneModel",
    "as_model",
    "as_models",
    "load_model",
    "weights_of",
]
