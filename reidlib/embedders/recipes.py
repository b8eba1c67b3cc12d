r"""How a re-ID baseline is trained: published recipes with their printed schedules, and one for the course."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    r"""Optimizer, schedule and the choices that belong to them.

    The learning rate is `lr` times `factor(unit)`, where a unit is what the paper counts in (an epoch or an
    iteration), from 1. `factor_at(step, steps)` spreads the recipe's length over a run of any number of steps, so the
    rate depends on the share of images seen; a run of the paper's own length has the paper's schedule exactly.

    Attributes:
        optimizer: "adam" or "sgd" (momentum 0.9).  lr, weight_decay: of all parameters.
        length: the paper's number of units; unit: what one is.
        decay_at: units from which on the rate is a tenth (again).  warmup: units of linear warm-up.
        curve: "steps" (decay_at) or "cosine" (to zero at the end, after the warm-up).
        loss, last_stride, bnneck, dropout, normalise: what `Baseline` takes when it is not told otherwise.
        batch: images in a batch, or (P, K).  augmentation: name for `datasets.augment.reid_augmentation`.
        image_size: (height, width) of the paper; None: as the data come.

    >>> bag = RECIPES["bag_of_tricks"]
    >>> [f"{bag.lr * bag.factor(e):.4g}" for e in (1, 5, 10, 40, 70)]
    ['3.815e-05', '0.0001767', '0.00035', '3.5e-05', '3.5e-06']
    """

    name: str
    optimizer: str
    lr: float
    weight_decay: float
    length: int
    unit: str = "epoch"
    decay_at: tuple[int, ...] = ()
    warmup: int = 0
    curve: str = "steps"
    loss: str = "softmax"
    last_stride: int = 2
    bnneck: bool = False
    dropout: float = 0.0
    normalise: bool = False
    batch: int | tuple[int, int] = 32
    augmentation: str = "flip"
    image_size: tuple[int, int] | None = (256, 128)

    def factor(self, unit: int) -> float:
        """Return the factor of the learning rate in unit 1, 2, ... `length`."""
        share = unit / self.warmup if self.warmup else 1.0
        warm = 0.01 * (1 - share) + share if share < 1 else 1.0
        if self.curve == "cosine":
            done = max(0, unit - 1 - self.warmup) / (self.length - self.warmup)
            return warm * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return warm * 0.1 ** sum(unit >= at for at in self.decay_at)

    def factor_at(self, step: int, steps: int) -> float:
        """Return the factor at a step (from 0) of a run of `steps`; past the end it stays at the last value."""
        return self.factor(1 + min(step, steps - 1) * self.length // steps)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the optimizer of these parameters."""
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=0.9, weight_decay=self.weight_decay)
        return torch.optim.Adam(parameters, lr=self.lr, weight_decay=self.weight_decay)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        # the thesis's: 60 epochs, a tenth after 20 and after 40; tested on the raw pooled feature
        Recipe(
            "softmax", "adam", 3e-4, 5e-4, 60, decay_at=(21, 41), loss="lsr", batch=32, augmentation="softmax"
        ),
        # ID-discriminative embedding, counted in iterations
        Recipe(
            "ide", "sgd", 1e-3, 5e-4, 50_000, unit="iteration", decay_at=(20_001, 40_001), dropout=0.5,
            normalise=True, batch=16, image_size=(224, 224),
        ),
        # Luo et al. 2019
        Recipe(
            "bag_of_tricks", "adam", 3.5e-4, 5e-4, 120, decay_at=(40, 70), warmup=10, loss="lsr+triplet",
            last_stride=1, bnneck=True, normalise=True, batch=(16, 4), augmentation="bag_of_tricks",
        ),
        # ours: a small network on small images in some thousand steps, a unit is a thousandth of the run
        Recipe(
            "course", "adam", 3e-3, 5e-4, 1000, unit="thousandth", warmup=50, curve="cosine", loss="softmax",
            bnneck=True, normalise=True, batch=32, augmentation="flip", image_size=None,
        ),
    )
}  # fmt: skip
