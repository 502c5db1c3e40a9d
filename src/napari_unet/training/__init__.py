"""From labelled stacks to a model."""

from .config import TrainConfig
from .fingerprint import Fingerprint, fingerprint
from .fit import finish, train
from .plan import Plan, make_plan

__all__ = ["Fingerprint", "Plan", "TrainConfig", "fingerprint", "finish", "make_plan", "train"]
