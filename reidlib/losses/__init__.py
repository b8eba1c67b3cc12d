"""Losses: functions first, thin modules around them."""

from reidlib.losses.adversarial import adversarial_loss, discriminator_loss, gradient_penalty, right_answers
from reidlib.losses.distillation import distillation_loss
from reidlib.losses.identity import cross_entropy, label_smoothing, lsro, mixed_loss
from reidlib.losses.metric import CentreLoss, QuartetLoss, batch_hard_triplet, centre_loss, draw_quartets, quartet_loss
from reidlib.losses.perceptual import feature_maps, perceptual_loss, vgg19
from reidlib.losses.reconstruction import MaskedLosses, masked_condition, masked_l1, static_losses, variable_losses
