r"""The re-ID baseline: one embedder, trained by identity and metric losses, as a method that `training.fit` drives."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.datasets.person_images import PersonImages
from reidlib.embedders.recipes import Recipe, choose_form, read_losses
from reidlib.embedders.resnet import Embedder, Embedding
from reidlib.embedders.starts import Start
from reidlib.losses import CentreLoss, QuartetLoss, batch_hard_triplet, lsro, mixed_loss
from reidlib.networks import device_of, evaluating
from reidlib.networks import normalise as normalise_pixels

SMOOTHING = 0.1  # of labels
CENTRE = 5e-4  # weight of the centre loss


class Baseline(nn.Module):
    r"""An embedder trained to tell identities apart, by a published recipe or the course's.

    $$L = L_\text{id} + w (L_\text{triplet} + L_\text{quartet}) + 5 \cdot 10^{-4} L_\text{centre}$$

    with the terms that `loss` names, joined by "+": "softmax" or "lsr" (label smoothing 0.1) for $L_\text{id}$
    (softmax where neither is named), "triplet" (batch-hard, margin 0.3), "quartet" (improved, hinge), "centre".
    $w$ is the recipe's `metric_weight`: 1 in published ones, 0.2 in the course's. Triplet and centre loss see the
    feature before the neck, the quartet loss the same scaled to length 1. Images without a label (pid -2) aim at the
    uniform distribution in $L_\text{id}$ (LSRO) and take no part in the others.

    Two forms are other papers' networks. "pn_gan" (Qian et al. 2018): the last stage's blocks merged into one feature,
    trained in two steps, first the new layers on a frozen backbone, then everything, each with an optimizer of its own.
    "camstyle" (Zhong et al. 2018, section 3.4): generated images (`is_generated` in the batch) have smoothed labels,
    real ones have not, and each part has its own mean:

    $$L_\text{id} = \frac1M \sum_{i=1}^{M} L_\text{CE}(x_i) + \frac1N \sum_{j=1}^{N} L_\text{LSR}(x_j^*)$$

    Args:
        n_classes: identities in training.
        form: "baseline", "pn_gan" or "camstyle".
        preset: "smoke" (width 8), "course" (width 16) or "paper" (ResNet-50, the paper's recipe and layers).
        recipe: a name of `RECIPES` or a `Recipe`, instead of the preset's.
        loss, normalise, flip, frozen_share: instead of the recipe's. `normalise` scales features to length 1 in
            `embed`, `flip` averages those of the image and of its mirror there (the course's recipe does).
            `frozen_share` is the share of the run that trains the new layers alone; where the backbone starts from
            random weights the recipe's is left out, because such a backbone teaches the new layers nothing.
        steps: length of the run that the recipe's schedule is spread over.
        fakes: how generated images are taken: None as real ones, "lsr" by the equation above, "vanilla" by it with
            plain cross-entropy for both parts.
        passes: where generated images are taken apart, "separate" sends real and generated ones through the network
            one after the other, so that each has its own BatchNorm statistics (the released code), "joint" together.
        unlabelled_weight: of the uniform distribution that images without a label aim at, see `losses.lsro`.
        start: what the backbone starts from: "none", "recorded", "recorded-2", "imagenet", a file or a state dict (see
            `starts.load_start`). Default by the preset: "none" in smoke, "recorded" in course, "imagenet" in paper.
            With "none" and no `recipe`, "scratch" (three times the rate) takes the place of the recipe "course".
        network: further switches of `Embedder` (backbone, width, last_stride, pool, merge, dimensions, bnneck, dropout,
            heads, image_size), instead of the form's and the recipe's.

    Attributes:
        embedder: the network.  weights_source: what it started from, in words ("random" for nothing).
        recipe, losses, flip: what was chosen.  frozen_steps: steps that train the new layers alone.

    Raises:
        ValueError: for names that are not known, and choices that do not fit each other or the start.
        FileNotFoundError: a start that is not there.

    >>> method = Baseline(5, preset="smoke", steps=10)
    >>> method.embed(torch.zeros(2, 3, 64, 32, dtype=torch.uint8)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        n_classes: int,
        *,
        form: str = "baseline",
        preset: str = "course",
        recipe: str | Recipe | None = None,
        loss: str | None = None,
        steps: int = 1000,
        normalise: bool | None = None,
        flip: bool | None = None,
        frozen_share: float | None = None,
        fakes: str | None = None,
        passes: str = "separate",
        unlabelled_weight: float = 1.0,
        start: Start | None = None,
        **network: Any,
    ) -> None:
        super().__init__()
        chosen = choose_form(form, preset, recipe=recipe, fakes=fakes, start=start, **network)
        self.recipe: Recipe = chosen.pop("recipe")
        self.fakes = chosen.pop("fakes", None)
        self.losses = read_losses(self.recipe.loss if loss is None else loss)
        self.normalise = self.recipe.normalise if normalise is None else normalise
        self.flip = self.recipe.flip if flip is None else flip
        self.steps, self.passes, self.unlabelled_weight = steps, passes, unlabelled_weight
        if "heads" not in chosen:
            chosen = {"bnneck": self.recipe.bnneck} | chosen
        chosen = {"last_stride": self.recipe.last_stride, "dropout": self.recipe.dropout} | chosen
        self.embedder = Embedder(n_classes, **chosen)
        self.weights_source = self.embedder.weights_source
        if frozen_share is None:
            frozen_share = 0.0 if self.weights_source == "random" else self.recipe.frozen_share
        check_choice("fakes", self.fakes, (None, "lsr", "vanilla"))
        check_choice("passes", passes, ("separate", "joint"))
        if steps < 1 or not 0 <= frozen_share < 1:
            given = f"steps={steps}, frozen_share={frozen_share}"
            raise ValueError(f"{given}: accepted are steps >= 1 and a share in [0, 1)")
        if self.fakes is not None and "lsr" in self.losses:
            raise ValueError(
                f"fakes={self.fakes!r} leaves the labels of real images sharp, and the loss {'+'.join(self.losses)} "
                "smooths them: take softmax"
            )
        self.frozen_steps = round(frozen_share * steps)
        self.quartet = QuartetLoss()
        self.centre = CentreLoss(n_classes, self.embedder.dimensions) if "centre" in self.losses else None

    def optimizers(self) -> dict[str, tuple[list[nn.Parameter], torch.optim.Optimizer, Callable | None]]:
        """Give the embedder's optimizer "E" with the recipe's schedule, and others where something else learns.

        "new layers" (the recipe's rate, constant) where the backbone is frozen at first; "centres" (SGD, rate 0.5).
        """
        new, backbone = self.embedder.new_layers, list(self.embedder.backbone.parameters())
        made = {"E": (backbone + new, self.recipe.make_optimizer(backbone, new), self.schedule)}
        if self.frozen_steps:
            made["new layers"] = (new, self.recipe.make_optimizer([], new), None)
        if self.centre is not None:
            centres = list(self.centre.parameters())
            made["centres"] = (centres, torch.optim.SGD(centres, lr=0.5), None)
        return made

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0; while the backbone is frozen it does not move."""
        return self.recipe.factor_at(max(0, step - self.frozen_steps), self.steps - self.frozen_steps)

    def training_step(
        self, batch: dict[str, Tensor], step: int, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Take one step on `images` (uint8, or float if normalised already) and int64 `labels` (below 0: unlabelled).

        With `fakes`, bool `is_generated` is needed, and every image needs an identity.

        Returns:
            each term by name (unweighted; "identity of fakes" beside "identity" where they are apart), "loss" (weighted
            sum) and "accuracy" of the labelled images.

        Raises:
            ValueError: where generated images are taken apart, an image without an identity or one image of a kind.
        """
        labels, frozen = batch["labels"], step < self.frozen_steps
        heads = self._heads(batch, frozen)
        terms = self._identity(heads, labels, batch.get("is_generated"))
        compared = heads[0].compared
        if "triplet" in self.losses:
            terms["triplet"] = batch_hard_triplet(compared, labels)
        if "quartet" in self.losses:
            seed = int(torch.empty((), dtype=torch.int64).random_())  # follows torch.manual_seed, as dropout does
            terms["quartet"] = self.quartet(compared, labels, torch.Generator().manual_seed(seed))
        if self.centre is not None:
            terms["centre"] = self.centre(compared, labels)
        metric = self.recipe.metric_weight
        weights = {"triplet": metric, "quartet": metric, "centre": CENTRE}
        loss = sum(weights.get(name, 1.0) * value for name, value in terms.items())
        update("new layers" if frozen else "E", loss)
        if self.centre is not None:  # the gradient divided by the term's weight is that of the term itself
            update("centres", self.centre(compared.detach(), labels))
        hits = (heads[0].logits.argmax(1) == labels).sum() / (labels >= 0).sum().clamp(min=1)
        return {**terms, "loss": loss, "accuracy": hits}

    def _heads(self, batch: dict[str, Tensor], frozen: bool) -> list[Embedding]:
        """Send the batch through the network, whole or in two passes, and return it in its own order."""
        images = as_network_input(batch["images"])
        if self.fakes is None or self.passes == "joint":
            return self.embedder.all_heads(images, frozen=frozen)
        groups = [rows for wanted in (False, True) if len(rows := (batch["is_generated"] == wanted).nonzero()[:, 0])]
        if self.training and min(map(len, groups)) < 2:
            raise ValueError(
                f"{[len(rows) for rows in groups]} real and generated images: passes='separate' needs two or more of "
                "each in a batch, for their batch statistics; passes='joint' does not"
            )
        back = torch.cat(groups).argsort()
        passes = [self.embedder.all_heads(images[rows], frozen=frozen) for rows in groups]
        heads = zip(*passes, strict=True)  # of each head its embeddings of both passes
        return [Embedding(*(torch.cat(parts)[back] for parts in zip(*head, strict=True))) for head in heads]

    def _identity(self, heads: list[Embedding], labels: Tensor, is_generated: Tensor | None) -> dict[str, Tensor]:
        """Return the identity terms, summed over the heads."""
        epsilon = SMOOTHING if "lsr" in (*self.losses, self.fakes) else 0.0
        if self.fakes is None:
            return {"identity": sum(lsro(head.logits, labels, epsilon, self.unlabelled_weight) for head in heads)}
        pairs = [mixed_loss(head.logits, labels, is_generated, epsilon) for head in heads]
        return dict(zip(("identity", "identity of fakes"), map(sum, zip(*pairs, strict=True)), strict=True))

    def embed(self, images: Tensor) -> Tensor:
        r"""Return the test features [B, D] of images [B, 3, H, W] (uint8, or float if normalised already).

        $$f(x) = u(e(x)) \quad\text{or, with `flip`,}\quad f(x) = u(u(e(x)) + u(e(\text{mirrored } x)))$$

        for each head's feature $e$, where $u$ scales to length 1; without `normalise`, $u$ does nothing and the sum is
        halved. With the neck $e$ is the feature after it; several heads' features stand one behind the other.
        The network is in evaluation mode meanwhile; gradients flow to float images, so use `torch.no_grad()` or
        `embed_all` where none are wanted.
        """
        pixels = as_network_input(images)
        features = []
        with evaluating(self.embedder):
            for view in (pixels, pixels.flip(3)) if self.flip else (pixels,):
                heads = [head.feature for head in self.embedder.all_heads(view)]
                features.append([F.normalize(f, dim=1) if self.normalise else f for f in heads])
        means = [torch.stack(views).mean(0) for views in zip(*features, strict=True)]
        return torch.cat([F.normalize(f, dim=1) if self.normalise else f for f in means], dim=1)

    @property
    def rule(self) -> str:
        """What the rule of a scored row says about the features: the start, and the mirror.

        >>> Baseline(2, preset="smoke").rule
        'start random, features of image and mirror averaged'
        """
        return f"start {self.weights_source}" + ", features of image and mirror averaged" * self.flip


def as_network_input(images: Tensor) -> Tensor:
    """Normalise uint8 images by ImageNet's mean and deviation; float images are taken as normalised."""
    return normalise_pixels(images, "imagenet") if images.dtype == torch.uint8 else images


@torch.no_grad()
def embed_all(method: nn.Module, images: PersonImages, *, batch_size: int = 256) -> Tensor:
    """Embed a whole set in batches and return its features [N, D] on the CPU, in the set's order.

    Args:
        method: anything with `embed(images uint8 [B, 3, H, W]) -> [B, D]`; the images go where its parameters lie.
        images: the set.
        batch_size: images at a time.

    Raises:
        ValueError: an empty set.

    >>> people = PersonImages(torch.zeros(3, 3, 64, 32, dtype=torch.uint8), [1, 1, 2], [1, 2, 1])
    >>> embed_all(Baseline(2, preset="smoke"), people).shape
    torch.Size([3, 64])
    """
    if not len(images):
        raise ValueError("there are no images to embed")
    features, device = [], device_of(method)
    for rows in torch.arange(len(images)).split(batch_size):
        features.append(method.embed(images.batch(rows, device)["images"]).float().cpu())
    return torch.cat(features)
