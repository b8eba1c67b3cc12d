r"""The re-ID baseline: one embedder, trained by identity and metric losses, as a method that `training.fit` drives."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets.person_images import PersonImages
from reidlib.embedders.recipes import RECIPES, Recipe
from reidlib.embedders.resnet import Embedder
from reidlib.losses import BatchHardTriplet, CentreLoss, QuartetLoss, lsro
from reidlib.networks import evaluating
from reidlib.networks import normalise as normalise_pixels

LOSSES = ("softmax", "lsr", "triplet", "quartet", "centre")
PRESETS = {
    "smoke": dict(backbone="small", width=8, recipe="course"),
    "course": dict(backbone="small", width=16, recipe="course"),
    "paper": dict(backbone="resnet50", width=16, recipe="softmax"),
}


class Baseline(nn.Module):
    r"""An embedder trained to tell identities apart, by a published recipe or the course's.

    $$L = L_\text{id} + w_t L_\text{triplet} + w_q L_\text{quartet} + 5 \cdot 10^{-4} L_\text{centre}$$

    with the terms that `loss` names, joined by "+": "softmax" or "lsr" (label smoothing 0.1) for $L_\text{id}$
    (softmax where neither is named), "triplet" (batch-hard, margin 0.3), "quartet" (improved, hinge), "centre".
    Triplet and centre loss see the pooled feature, the quartet loss the L2-normalised one. Images without a label
    (pid -2) aim at the uniform distribution in $L_\text{id}$ (LSRO) and take no part in the others.

    Args:
        n_classes: identities in training.
        preset: "smoke" (width 8), "course" (width 16) or "paper" (ResNet-50, the thesis's recipe); sets the next four.
        backbone: "small" or "resnet50".  width: of the small one.
        recipe: a name of `RECIPES` ("softmax", "ide", "bag_of_tricks", "course") or a `Recipe`.
        loss, last_stride, bnneck, dropout, normalise: instead of the recipe's. `normalise` scales features to length 1
            in `embed`.
        steps: length of the run that the recipe's schedule is spread over.
        weights: ResNet-50's start, see `resnet.ResNet50`.
        triplet_weight, quartet_weight, centre_weight: weights of the terms.

    Attributes:
        embedder: the network.  weights_source: what it started from ("random" or the file).
        recipe, losses: what was chosen.

    Raises:
        ValueError: for names that are not known.

    >>> method = Baseline(5, preset="smoke", steps=10)
    >>> method.embed(torch.zeros(2, 3, 64, 32, dtype=torch.uint8)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        n_classes: int,
        *,
        preset: str = "course",
        backbone: str | None = None,
        width: int | None = None,
        recipe: str | Recipe | None = None,
        loss: str | None = None,
        steps: int = 1000,
        last_stride: int | None = None,
        bnneck: bool | None = None,
        dropout: float | None = None,
        normalise: bool | None = None,
        weights: str | Path | None = "auto",
        triplet_weight: float = 1.0,
        quartet_weight: float = 1.0,
        centre_weight: float = 5e-4,
    ) -> None:
        super().__init__()
        defaults = _choose("preset", preset, PRESETS)
        recipe = defaults["recipe"] if recipe is None else recipe
        self.recipe: Recipe = recipe if isinstance(recipe, Recipe) else _choose("recipe", recipe, RECIPES)
        self.losses = _read_losses(self.recipe.loss if loss is None else loss)
        if steps < 1:
            raise ValueError(f"steps={steps}: a run has at least one step")
        self.steps = steps
        self.normalise = self.recipe.normalise if normalise is None else normalise
        self.embedder = Embedder(
            n_classes,
            backbone=defaults["backbone"] if backbone is None else backbone,
            width=defaults["width"] if width is None else width,
            last_stride=self.recipe.last_stride if last_stride is None else last_stride,
            bnneck=self.recipe.bnneck if bnneck is None else bnneck,
            dropout=self.recipe.dropout if dropout is None else dropout,
            weights=weights,
        )
        self.weights_source = self.embedder.weights_source
        self.term_weights = {"triplet": triplet_weight, "quartet": quartet_weight, "centre": centre_weight}
        self.triplet, self.quartet = BatchHardTriplet(), QuartetLoss()
        self.centre = CentreLoss(n_classes, self.embedder.dimensions) if "centre" in self.losses else None

    def optimizers(self) -> dict[str, tuple[list[nn.Parameter], torch.optim.Optimizer, Callable | None]]:
        """Give the embedder's optimizer "E" with the recipe's schedule, and "centres" (SGD, rate 0.5) if they learn."""
        parameters = [p for p in self.embedder.parameters() if p.requires_grad]
        made = {"E": (parameters, self.recipe.make_optimizer(parameters), self.schedule)}
        if self.centre is not None:
            centres = list(self.centre.parameters())
            made["centres"] = (centres, torch.optim.SGD(centres, lr=0.5), None)
        return made

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0."""
        return self.recipe.factor_at(step, self.steps)

    def training_step(
        self, batch: dict[str, Tensor], step: int, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Take one step on `images` (uint8, or float if normalised already) and int64 `labels` (below 0: unlabelled).

        Returns:
            each term by name (unweighted), "loss" (weighted sum) and "accuracy" of the labelled images.
        """
        labels = batch["labels"]
        pooled, _, logits = self.embedder(as_network_input(batch["images"]))
        terms = {"identity": lsro(logits, labels, epsilon=0.1 if "lsr" in self.losses else 0.0)}
        if "triplet" in self.losses:
            terms["triplet"] = self.triplet(pooled, labels)
        if "quartet" in self.losses:
            seed = int(torch.empty((), dtype=torch.int64).random_())  # follows torch.manual_seed, as dropout does
            terms["quartet"] = self.quartet(pooled, labels, torch.Generator().manual_seed(seed))
        if self.centre is not None:
            terms["centre"] = self.centre(pooled, labels)
        loss = sum(self.term_weights.get(name, 1.0) * value for name, value in terms.items())
        update("E", loss)
        if self.centre is not None:  # the gradient divided by the term's weight is that of the term itself
            update("centres", self.centre(pooled.detach(), labels))
        hits = (logits.argmax(1) == labels).sum() / (labels >= 0).sum().clamp(min=1)
        return {**terms, "loss": loss, "accuracy": hits}

    def embed(self, images: Tensor) -> Tensor:
        """Return the test features [B, D] of images [B, 3, H, W] (uint8, or float if normalised already).

        The network is in evaluation mode meanwhile; gradients flow to float images, so use `torch.no_grad()` or
        `embed_all` where none are wanted. With the neck it is the feature after it.
        """
        with evaluating(self.embedder):
            _, feature, _ = self.embedder(as_network_input(images))
        return F.normalize(feature, dim=1) if self.normalise else feature


def as_network_input(images: Tensor) -> Tensor:
    """Normalise uint8 images by ImageNet's mean and deviation; float images are taken as normalised."""
    return normalise_pixels(images, "imagenet") if images.dtype == torch.uint8 else images


@torch.no_grad()
def embed_all(
    method: nn.Module,
    images: PersonImages,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    flip: bool = False,
) -> Tensor:
    """Embed a whole set in batches and return its features [N, D] on the CPU, in the set's order.

    Args:
        method: anything with `embed(images uint8 [B, 3, H, W]) -> [B, D]`.
        images: the set.
        batch_size: images at a time.  device: where the method lies.
        flip: average each image's feature with its mirror image's (and scale to length 1 if the features were).

    >>> people = PersonImages(torch.zeros(3, 3, 64, 32, dtype=torch.uint8), [1, 1, 2], [1, 2, 1])
    >>> embed_all(Baseline(2, preset="smoke"), people, flip=True).shape
    torch.Size([3, 64])
    """
    if not len(images):
        raise ValueError("there are no images to embed")
    features = []
    for rows in torch.arange(len(images)).split(batch_size):
        pixels = images.batch(rows, device)["images"]
        feature = method.embed(pixels)
        if flip:
            mean = (feature + method.embed(pixels.flip(3))) / 2
            unit = torch.allclose(feature.norm(dim=1), torch.ones(len(feature), device=feature.device), atol=1e-3)
            feature = F.normalize(mean, dim=1) if unit else mean
        features.append(feature.float().cpu())
    return torch.cat(features)


def _choose(name: str, value: str, accepted: dict) -> object:
    if value not in accepted:
        raise ValueError(f"{name}={value!r}: accepted are {', '.join(map(repr, accepted))}")
    return accepted[value]


def _read_losses(loss: str) -> tuple[str, ...]:
    names = tuple(loss.split("+"))
    unknown = [name for name in names if name not in LOSSES]
    if unknown or len(set(names)) < len(names) or {"softmax", "lsr"} <= set(names):
        raise ValueError(
            f"loss={loss!r}: accepted are {', '.join(LOSSES)}, joined by '+', each once, softmax or lsr but not both"
        )
    return names if {"softmax", "lsr"} & set(names) else ("softmax", *names)
