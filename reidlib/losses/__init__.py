"""Losses: functions first, thin modules around them."""

from reidlib.losses.identity import LSRO, LabelSmoothing, cross_entropy, label_smoothing, lsro
from reidlib.losses.metric import (
    BatchHardTriplet,
    CentreLoss,
    QuartetLoss,
    batch_hard_triplet,
    centre_loss,
    draw_quartets,
    quartet_loss,
)

__all__ = [
    "LSRO",
    "BatchHardTriplet",
    "CentreLoss",
    "LabelSmoothing",
    "QuartetLoss",
    "batch_hard_triplet",
    "centre_loss",
    "cross_entropy",
    "draw_quartets",
    "label_smoothing",
    "lsro",
    "quartet_loss",
]
