"""Training: `fit` drives any method, `train` builds one under a seed and fits it."""

from reidlib.training.fitting import fit, settle_precision, train
from reidlib.training.history import History, Interrupted
from reidlib.training.updates import plain_update

__all__ = ["History", "Interrupted", "fit", "plain_update", "settle_precision", "train"]
