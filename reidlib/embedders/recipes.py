r"""How re-ID networks are trained: published recipes with their printed schedules, those of the course, and forms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from reidlib.checks import check_choice


@dataclass(frozen=True)
class Recipe:
    r"""Optimizer, schedule and the choices that belong to them.

    The learning rate is `lr` times `factor(unit)`, where a unit is what the paper counts in (an epoch or an
    iteration), from 1. `factor_at(step, steps)` spreads the recipe's length over a run of any number of steps, so the
    rate depends on the share of images seen; a run of the paper's own length has the paper's schedule exactly.

    Attributes:
        optimizer: "adam", "sgd" (momentum 0.9) or "nesterov" (SGD with Nesterov's).  lr, weight_decay: of the backbone.
        new_layers: the heads' learning rate is so many times `lr`.
        length: the paper's number of units; unit: what one is.
        decay_at: units from which on the rate is a tenth (again).  warmup: units of linear warm-up.
        curve: "steps" (decay_at) or "cosine" (to zero at the end, after the warm-up).
        loss, last_stride, bnneck, dropout, normalise, flip, frozen_share: what `Baseline` takes where nothing else is
            given.  metric_weight: of the triplet and the quartet term.
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
    new_layers: float = 1.0
    unit: str = "epoch"
    decay_at: tuple[int, ...] = ()
    warmup: int = 0
    curve: str = "steps"
    loss: str = "softmax"
    metric_weight: float = 1.0
    last_stride: int = 2
    bnneck: bool = False
    dropout: float = 0.0
    normalise: bool = False
    flip: bool = False
    frozen_share: float = 0.0
    batch: int | tuple[int, int] = 32
    augmentation: str = "flip"
    image_size: tuple[int, int] | None = (256, 128)

    @property
    def batch_size(self) -> int:
        """Images in a batch: those of `batch`, or P times K."""
        return self.batch if isinstance(self.batch, int) else math.prod(self.batch)

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

    def make_optimizer(
        self, backbone: Sequence[nn.Parameter], new: Sequence[nn.Parameter] = ()
    ) -> torch.optim.Optimizer:
        """Make the optimizer of a backbone's parameters and of new layers."""
        groups: list[Any] = [*backbone, *new]
        if self.new_layers != 1.0:
            groups = [{"params": list(backbone)}, {"params": list(new), "lr": self.new_layers * self.lr}]
        if self.optimizer == "adam":
            return torch.optim.Adam(groups, lr=self.lr, weight_decay=self.weight_decay)
        nesterov = self.optimizer == "nesterov"
        return torch.optim.SGD(groups, self.lr, momentum=0.9, nesterov=nesterov, weight_decay=self.weight_decay)


# ours: a small network on small images in some thousand steps from the recorded start, a unit is a thousandth of the
# run; test features are averaged over the image and its mirror, which the papers' recipes do not do; rate, weight of
# metric losses, batch, stride and augmentation were chosen on validation people (the last three by `reidlib recipe`)
COURSE = Recipe(
    "course", "adam", 1e-3, 5e-4, 1000, unit="thousandth", warmup=50, curve="cosine", loss="softmax", metric_weight=0.2,
    bnneck=True, normalise=True, flip=True, batch=16, augmentation="flip", image_size=None,
)  # fmt: skip

RECIPES = {
    recipe.name: recipe
    for recipe in (
        # the thesis's: 60 epochs, a tenth after 20 and after 40; tested on the raw pooled feature
        Recipe(
            "thesis", "adam", 3e-4, 5e-4, 60, decay_at=(21, 41), loss="lsr", batch=32, augmentation="softmax"
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
        COURSE,
        replace(COURSE, name="scratch", lr=3e-3, metric_weight=1.0, batch=32),  # from random weights
        # PN-GAN's networks: the paper gives rate and batch, the rest is this library's choice. The first fifth trains
        # the new layers alone: 10 of 50 epochs, then a tenth of the rate after 25 of the other 40
        Recipe(
            "two_step", "adam", 3.5e-4, 5e-4, 40, decay_at=(26,), dropout=0.5, normalise=True, frozen_share=0.2,
            batch=16, augmentation="flip",
        ),
        Recipe(
            "two_step_course", "adam", 3e-3, 5e-4, 1000, unit="thousandth", curve="cosine", dropout=0.5,
            normalise=True, frozen_share=0.2, batch=32, augmentation="flip", image_size=None,
        ),
        # CamStyle: 50 epochs with a tenth of the rate after 40
        Recipe(
            "camstyle", "nesterov", 0.01, 5e-4, 50, new_layers=10.0, decay_at=(41,), dropout=0.5, normalise=True,
            batch=128, augmentation="camstyle",
        ),
        # DG-Net's teacher, trained beforehand by the authors' public baseline
        Recipe(
            "dg_net", "nesterov", 0.005, 5e-4, 60, new_layers=10.0, decay_at=(41,), dropout=0.5, normalise=True,
            flip=True, batch=32, augmentation="flip_crop",
        ),
    )
}  # fmt: skip


# what every form brings in a size: the backbone, and what it starts from
SIZES: dict[str, dict[str, Any]] = {
    "smoke": dict(width=8, start="none"),
    "course": dict(width=16, start="recorded"),
    "paper": dict(backbone="resnet50", start="imagenet"),
}


def _dg_net(dimensions: int, *dropouts: float) -> list[dict[str, Any]]:
    return [dict(dimensions=dimensions, norm="batch", dropout=p) for p in dropouts]


# what a form adds: the recipe, more of the network's switches, and how generated images are taken
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "baseline": {"smoke": dict(recipe="course"), "course": dict(recipe="course"), "paper": dict(recipe="thesis")},
    "pn_gan": {
        "smoke": dict(recipe="two_step_course", dimensions=64, pool="blocks"),
        "course": dict(recipe="two_step_course", dimensions=128, pool="blocks"),
        "paper": dict(recipe="two_step", dimensions=1024, pool="blocks"),
    },
    "camstyle": {
        "smoke": dict(recipe="course", fakes="lsr"),
        "course": dict(recipe="course", fakes="lsr"),
        "paper": dict(
            recipe="camstyle", fakes="lsr", heads=[dict(dimensions=1024, norm="batch", relu=True, feature="pooled")]
        ),
    },
    # DG-Net's re-ID network E_a, whose features are f_prim and f_fine; `generators.dg_net` trains it
    "dg_net": {
        "smoke": dict(recipe="course", last_stride=1, pool="max", heads=_dg_net(32, 0.5, 0.75)),
        "course": dict(recipe="course", last_stride=1, pool="max", heads=_dg_net(128, 0.5, 0.75)),
        "paper": dict(recipe="dg_net", last_stride=1, pool="max", heads=_dg_net(512, 0.5, 0.75)),
    },
    "dg_net_teacher": {
        "smoke": dict(recipe="course", last_stride=2, heads=_dg_net(32, 0.5)),
        "course": dict(recipe="course", last_stride=2, heads=_dg_net(128, 0.5)),
        "paper": dict(recipe="dg_net", last_stride=2, heads=_dg_net(512, 0.5)),
    },
}


def choose_form(form: str, preset: str, **given: Any) -> dict[str, Any]:
    """Return what a form in a size brings, with what is given (and not None) instead; "recipe" as a `Recipe`.

    Where no recipe is given and nothing is started from, the recipe "scratch" takes the place of "course".

    >>> chosen = choose_form("pn_gan", "paper", dimensions=512, dropout=None)
    >>> chosen["recipe"].name, chosen["pool"], chosen["dimensions"], chosen["start"]
    ('two_step', 'blocks', 512, 'imagenet')
    """
    check_choice("form", form, FORMS)
    check_choice("preset", preset, FORMS[form])
    chosen = SIZES[preset] | FORMS[form][preset] | {name: value for name, value in given.items() if value is not None}
    if given.get("recipe") is None and (chosen["recipe"], chosen["start"]) == ("course", "none"):
        chosen["recipe"] = "scratch"
    if not isinstance(chosen["recipe"], Recipe):
        check_choice("recipe", chosen["recipe"], RECIPES)
        chosen["recipe"] = RECIPES[chosen["recipe"]]
    return chosen


def read_losses(loss: str) -> tuple[str, ...]:
    """Read names of losses joined by "+"; softmax comes first where no identity loss is named.

    >>> read_losses("triplet"), read_losses("lsr+centre")
    (('softmax', 'triplet'), ('lsr', 'centre'))
    """
    names = tuple(loss.split("+"))
    for name in names:
        check_choice("loss", name, ("softmax", "lsr", "triplet", "quartet", "centre"))
    if len(set(names)) < len(names) or {"softmax", "lsr"} <= set(names):
        raise ValueError(f"loss={loss!r}: each loss is named once, and softmax or lsr but not both")
    return names if {"softmax", "lsr"} & set(names) else ("softmax", *names)
