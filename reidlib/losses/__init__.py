"""Losses: functions first, thin modules around them."""

from reidlib.losses.adversarial import adversarial_loss, discriminator_loss, gradient_penalty, right_answers
from reidlib.losses.distillation import distillation_loss
from reidlib.losses.identity import cross_entropy, label_smoothing, lsro, mixed_loss
from reidlib.losses.metric import CentreLoss, QuartetLoss, batch_hard_triplet, centre_loss, draw_quartets, quartet_loss
from reidlib.losses.perceptual import feature_maps, perceptual_loss, vgg19
from reidlib.losses.reconstruction import MaskedLosses, masked_condition, masked_l1, static_losses, variable_losses

__all__ = [
    "CentreLoss",
    "MaskedLosses",
    "QuartetLoss",
    "adversarial_loss",
    "batch_hard_triplet",
    "centre_loss",
    "cross_entropy",
    "discriminator_loss",
    "distillation_loss",
    "draw_quartets",
    "feature_maps",
    "gradient_penalty",
    "label_smoothing",
    "lsro",
    "masked_condition",
    "masked_l1",
    "mixed_loss",
    "perceptual_loss",
    "quartet_loss",
    "right_answers",
    "static_losses",
    "variable_losses",
    "vgg19",
]
