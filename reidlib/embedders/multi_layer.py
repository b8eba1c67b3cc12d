r"""PN-GAN's re-ID networks A and B: the maps of the last stage's blocks merged into one feature, trained in two steps.

Qian et al., "Pose-Normalized Image Generation for Person Re-identification", ECCV 2018. A sees the original images, B
the synthetic ones; the two are alike and share no weights.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets import PersonImages
from reidlib.datasets.augment import reid_augmentation
from reidlib.datasets.sampling import Batches, uniform_batches
from reidlib.embedders.baseline import as_network_input
from reidlib.embedders.recipes import Recipe
from reidlib.embedders.resnet import BACKBONES, ResNet50
from reidlib.losses import lsro
from reidlib.machine import pick_device
from reidlib.networks import SmallResNet, evaluating
from reidlib.training import History, fit

MERGES = ("concat", "add")
# the second step; the paper gives rate and batch, the rest is this library's choice
TWO_STEP = Recipe(
    "two_step", "adam", 3.5e-4, 5e-4, 40, decay_at=(26,), dropout=0.5, normalise=True, batch=16, augmentation="flip"
)
# a narrow network in some thousand steps, a unit is a thousandth of the second step
TWO_STEP_COURSE = Recipe(
    "two_step_course", "adam", 3e-3, 5e-4, 1000, unit="thousandth", curve="cosine", dropout=0.5, normalise=True,
    batch=32, augmentation="flip", image_size=None,
)  # fmt: skip
PRESETS = {
    "smoke": dict(backbone="small", width=8, dimensions=64, recipe=TWO_STEP_COURSE),
    "course": dict(backbone="small", width=16, dimensions=128, recipe=TWO_STEP_COURSE),
    "paper": dict(backbone="resnet50", width=16, dimensions=1024, recipe=TWO_STEP),
}


class MultiLayerEmbedder(nn.Module):
    r"""A backbone whose last stage's blocks are pooled one by one, merged by one layer, and classified.

    $$f = W\,[\bar m_{5a}; \bar m_{5b}; \bar m_{5c}] + b, \qquad \text{logits} = C\,\text{dropout}(\text{ReLU}(f))$$

    with $\bar m$ the average-pooled maps (ResNet-50: three of 2048 channels, the small network: two of 8 x width). The
    feature is $f$. The paper does not say how they are merged; `merge="add"` adds them instead of joining them.

    Args:
        n_classes: identities to tell apart.
        backbone: "small" (`SmallResNet`) or "resnet50".
        width: of the small backbone.
        dimensions: length of the feature, 1024 in the paper.
        merge: "concat" or "add".
        dropout: before the classifier.
        weights: ResNet-50's start, see `resnet.ResNet50`.
        start: a state dict of the backbone to start from instead, such as that of `train_baseline`'s
            `method.embedder.backbone`.

    Attributes:
        backbone, merge, classifier: the parts; the last two are what the first training step trains.
        weights_source: what the backbone started from: "random", the file, or "given".

    Raises:
        ValueError: for names that are not known, and a `start` of another network.

    >>> f, logits = MultiLayerEmbedder(10, width=8, dimensions=64)(torch.zeros(2, 3, 64, 32))
    >>> f.shape, logits.shape
    (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        n_classes: int,
        *,
        backbone: str = "small",
        width: int = 16,
        dimensions: int = 1024,
        merge: str = "concat",
        dropout: float = 0.5,
        weights: str | Path | None = "auto",
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES or merge not in MERGES:
            raise ValueError(f"backbone={backbone!r}, merge={merge!r}: accepted are {BACKBONES} and {MERGES}")
        if n_classes < 1 or dimensions < 1:
            raise ValueError(f"n_classes={n_classes}, dimensions={dimensions}: both must be at least 1")
        self.how, self.dimensions = merge, dimensions
        if backbone == "small":
            self.backbone: SmallResNet | ResNet50 = SmallResNet(width)
            self.weights_source = "random"
        else:
            self.backbone = ResNet50(weights=weights if start is None else None)
            self.weights_source = self.backbone.weights_source
        if start is not None:
            try:
                self.backbone.load_state_dict(start)
            except RuntimeError as error:
                raise ValueError(f"start is no state dict of the backbone {backbone!r} (width {width})") from error
            self.weights_source = "given"
        blocks = len(self.backbone.stages[-1]) if merge == "concat" else 1
        self.merge = nn.Linear(blocks * self.backbone.dimensions, dimensions)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dimensions, n_classes)
        nn.init.kaiming_normal_(self.merge.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.merge.bias)
        nn.init.zeros_(self.classifier.bias)

    def new_layers(self) -> list[nn.Parameter]:
        """Return what is trained from scratch: the parameters of the merge and of the classifier."""
        return [*self.merge.parameters(), *self.classifier.parameters()]

    def pool(self, images: Tensor) -> Tensor:
        """Return the merged input of the feature layer, [B, blocks x channels] or, added, [B, channels]."""
        *first, last = self.backbone.stages
        x = self.backbone.stem(images)
        for stage in first:
            x = stage(x)
        pooled = []
        for block in last:
            x = block(x)
            pooled.append(x.mean((2, 3)))  # [B,C]
        return torch.cat(pooled, dim=1) if self.how == "concat" else torch.stack(pooled).sum(0)

    def forward(self, images: Tensor, *, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """Take ImageNet-normalised float images [B,3,H,W]; give features [B,D] and logits [B,K], float32 always.

        With `frozen` the backbone runs in evaluation mode and without gradient: its weights and the statistics of its
        normalisations stay as they are.
        """
        if frozen:
            with evaluating(self.backbone), torch.no_grad():
                pooled = self.pool(images)
        else:
            pooled = self.pool(images)
        with torch.autocast(images.device.type, enabled=False):
            feature = self.merge(pooled.float())
            return feature, self.classifier(self.dropout(F.relu(feature)))


class TwoStep(nn.Module):
    r"""ResNet-50-A or -B: cross-entropy, first on the new layers alone with a frozen backbone, then on everything.

    Images without a label (pid -2) aim at the uniform distribution (LSRO). Each of the two steps has an optimizer of
    its own, with the same initial rate; it is constant in the first. The paper preset spends 10 of 50 epochs on the
    first step and divides the rate by 10 after 25 of the second's 40.

    Args:
        n_classes: identities in training.
        preset: "smoke" (width 8), "course" (width 16, rate 3e-3 with a cosine, batches of 32) or "paper" (ResNet-50);
            sets the next four.
        backbone, width, dimensions, merge, dropout, weights, start: see `MultiLayerEmbedder`.
        recipe: optimizer and schedule of the second step, a `Recipe`.
        steps: length of the run, both steps together.
        frozen_share: part of the run that the first step takes; default 0.2 where the backbone was trained before, 0
            where it is random (the paper's starts from ImageNet; a random one teaches the new layers nothing).
        normalise: scale features to length 1 in `embed`; default the recipe's (yes).

    Attributes:
        embedder: the network.  weights_source: what its backbone started from.  frozen_steps: length of the first step.

    >>> method = TwoStep(5, preset="smoke", steps=10, frozen_share=0.2)
    >>> method.frozen_steps, method.embed(torch.zeros(2, 3, 64, 32, dtype=torch.uint8)).shape
    (2, torch.Size([2, 64]))
    """

    def __init__(
        self,
        n_classes: int,
        *,
        preset: str = "course",
        backbone: str | None = None,
        width: int | None = None,
        dimensions: int | None = None,
        recipe: Recipe | None = None,
        merge: str = "concat",
        dropout: float | None = None,
        weights: str | Path | None = "auto",
        start: Mapping[str, Tensor] | None = None,
        steps: int = 1000,
        frozen_share: float | None = None,
        normalise: bool | None = None,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"preset={preset!r}: accepted are {', '.join(map(repr, PRESETS))}")
        given = dict(backbone=backbone, width=width, dimensions=dimensions, recipe=recipe)
        chosen = PRESETS[preset] | {name: value for name, value in given.items() if value is not None}
        self.recipe: Recipe = chosen.pop("recipe")
        self.embedder = MultiLayerEmbedder(
            n_classes,
            **chosen,
            merge=merge,
            dropout=self.recipe.dropout if dropout is None else dropout,
            weights=weights,
            start=start,
        )
        self.weights_source = self.embedder.weights_source
        if frozen_share is None:
            frozen_share = 0.0 if self.weights_source == "random" else 0.2
        if steps < 1 or not 0 <= frozen_share < 1:
            raise ValueError(
                f"steps={steps}, frozen_share={frozen_share}: accepted are steps >= 1 and a share in [0, 1)"
            )
        self.steps, self.frozen_steps = steps, round(frozen_share * steps)
        self.normalise = self.recipe.normalise if normalise is None else normalise

    def optimizers(self) -> dict[str, tuple[list[nn.Parameter], torch.optim.Optimizer, Callable | None]]:
        """Give the first step's optimizer "new layers" and the second's "all"."""
        new, everything = self.embedder.new_layers(), list(self.embedder.parameters())
        return {
            "new layers": (new, self.recipe.make_optimizer(new), None),
            "all": (everything, self.recipe.make_optimizer(everything), self.schedule),
        }

    def schedule(self, step: int) -> float:
        """Return the factor of the second step's learning rate at a step of the run, from 0."""
        return self.recipe.factor_at(max(0, step - self.frozen_steps), self.steps - self.frozen_steps)

    def training_step(
        self, batch: dict[str, Tensor], step: int, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Take one step on `images` (uint8) and int64 `labels` (below 0: unlabelled); give "loss" and "accuracy"."""
        frozen = step < self.frozen_steps
        labels = batch["labels"]
        _, logits = self.embedder(as_network_input(batch["images"]), frozen=frozen)
        loss = lsro(logits, labels)
        update("new layers" if frozen else "all", loss)
        hits = (logits.argmax(1) == labels).sum() / (labels >= 0).sum().clamp(min=1)
        return {"loss": loss, "accuracy": hits}

    def embed(self, images: Tensor) -> Tensor:
        """Return the test features [B,D] of images [B,3,H,W] (uint8, or float if normalised already), in eval mode."""
        with evaluating(self.embedder):
            feature, _ = self.embedder(as_network_input(images))
        return F.normalize(feature, dim=1) if self.normalise else feature


def train_two_step(
    images: PersonImages,
    *,
    images_seen: int,
    preset: str = "course",
    seed: int = 0,
    device: str | torch.device = "auto",
    run_dir: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[TwoStep, History]:
    """Train a `TwoStep` until it has seen `images_seen` images: A on original images, B on synthetic ones.

    Args:
        images: the training set; generated images with pid -2 are taken as unlabelled (LSRO).
        images_seen: length of the training in images, both steps together.
        preset: see `TwoStep`.
        seed: of the initial weights, the order and the augmentation.
        device, run_dir, progress: see `training.fit`.
        options: further arguments of `TwoStep` (`start`, `merge`, `frozen_share`, ...).

    Raises:
        ValueError: fewer than two identities, or fewer images to see than a batch.

    >>> people = PersonImages(torch.randint(0, 255, (16, 3, 64, 32), dtype=torch.uint8), [1, 2] * 8, [1] * 16)
    >>> method, history = train_two_step(people, images_seen=64, preset="smoke", progress=False)
    >>> history.steps, len(method.embed(people.images))
    (4, 16)
    """
    device = pick_device(device)
    recipe = options.get("recipe") or PRESETS.get(preset, PRESETS["course"])["recipe"]  # TwoStep refuses other presets
    sampler = uniform_batches(len(images), min(recipe.batch, len(images)), drop_last=True)
    batches = Batches(images, sampler, augment=reid_augmentation(recipe.augmentation), device=device, seed=seed)
    if batches.n_classes < 2:
        raise ValueError(f"a classifier needs at least two identities, the training set has {batches.n_classes}")
    batch_size = len(batches.rows(0))
    steps = images_seen // batch_size
    if steps < 1:
        raise ValueError(f"images_seen={images_seen} is less than one batch of {batch_size}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = TwoStep(batches.n_classes, preset=preset, steps=steps, **options)
    settings = {"preset": preset, "images": len(images), "classes": batches.n_classes, "frozen": method.frozen_steps}
    return method, fit(method, batches, steps, run_dir, seed=seed, device=device, settings=settings, progress=progress)
