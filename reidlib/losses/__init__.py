"""Losses: functions first, thin modules around them."""

from reidlib.losses.adversarial import adversarial_loss, discriminator_loss
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
from reidlib.losses.reconstruction import MaskedLosses, masked_condition, masked_l1, static_losses, variable_losses

__all__ = [
    "LSRO",
    "BatchHardTriplet",
    "CentreLoss",
    "LabelSmoothing",
    "MaskedLosses",
    "QuartetLoss",
    "adversarial_loss",
    "batch_hard_triplet",
    "centre_loss",
    "cross_entropy",
    "discriminator_loss",
    "draw_quartets",
    "label_smoothing",
    "lsro",
    "masked_condition",
    "masked_l1",
    "quartet_loss",
    "static_losses",
    "variable_losses",
]
