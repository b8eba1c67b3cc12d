"""Training: `fit` drives any method, `train` builds one under a seed and fits it."""

from reidlib.training.fitting import PRECISIONS, fit, train
from reidlib.training.history import History, Interrupted
from reidlib.training.updates import plain_update

__all__ = ["PRECISIONS", "History", "Interrupted", "fit", "plain_update", "train"]
