r"""A Siamese network that is trained to verify pairs and to identify people at once.

Zheng, Zheng and Yang, "A Discriminatively Learned CNN Embedding for Person Reidentification", 2017. Two images go
through one backbone to $f_1, f_2$; a square layer and a linear one say whether they show one person, and one shared
classifier names each:

$$s = W \,\text{dropout}\big((f_1 - f_2)^2\big) + b, \qquad
L = L_\text{verif}(s, [y_1 = y_2]) + \tfrac12 L_\text{id}(f_1, y_1) + \tfrac12 L_\text{id}(f_2, y_2)$$
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from reidlib.datasets.augment import compose, enlarge_crop, flip
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Augment, Sampler, by_identity
from reidlib.embedders.baseline import Baseline, as_network_input
from reidlib.embedders.recipes import RECIPES, Recipe, choose_form
from reidlib.losses.identity import cross_entropy
from reidlib.training import History, train

EPOCHS = 75  # of the paper: 70 at the base rate and 5 at a tenth
GROWING = 141  # epochs in which 1.01 an epoch takes 1 negative to 4
_COURSE = replace(RECIPES["course"], name="siamese_course", lr=1e-3, bnneck=False, dropout=0.5, batch=16)
SIAMESE_RECIPES = {  # batches count pairs
    "smoke": replace(_COURSE, lr=3e-3),
    "course": _COURSE,
    "paper": Recipe(
        "siamese", "sgd", 1e-4, 5e-4, EPOCHS, new_layers=10.0, decay_at=(71,), dropout=0.9, normalise=True, batch=48,
        image_size=(224, 224),
    ),
}  # fmt: skip
CROP = partial(enlarge_crop, p=1.0, factor=256 / 224)
FLIP = compose(flip, joint=False)  # each image of a pair has a draw of its own
AUGMENTATIONS = {"smoke": FLIP, "course": FLIP, "paper": compose(CROP, flip, joint=False)}
WEIGHTS = {"verification": 1.0, "identity": 0.5, "target identity": 0.5}
REFUSED = ("form", "loss", "fakes", "passes", "frozen_share")


class Siamese(Baseline):
    """The two streams with their shared weights, the square layer and the classifier.

    The test feature is the pooled one, at length 1, so that Euclidean distances rank as cosines do.

    Args:
        n_classes: identities in training.
        preset: "smoke", "course" or "paper" (ResNet-50, SGD at 1e-4 and 1e-3 for new layers, dropout 0.9).
        steps: length of the run that the recipe's schedule is spread over.
        options: of `Baseline` and `Embedder` (recipe, start, dropout, width, ...).

    Raises:
        ValueError, FileNotFoundError: see `Baseline`.
        TypeError: options of `Baseline` that choose other losses.

    >>> method = Siamese(5, preset="smoke")
    >>> f = method.embed(torch.zeros(2, 3, 64, 32, dtype=torch.uint8))
    >>> f.shape, method.compare(f, f).shape
    (torch.Size([2, 64]), torch.Size([2, 2]))
    """

    def __init__(self, n_classes: int, *, preset: str = "course", steps: int = 1000, **options: Any) -> None:
        if refused := [name for name in REFUSED if name in options]:
            raise TypeError(f"a Siamese network has losses of its own: {', '.join(refused)} cannot be chosen")
        options = {"recipe": SIAMESE_RECIPES.get(preset)} | options
        super().__init__(n_classes, preset=preset, steps=steps, **options)
        dropout = self.embedder.heads[0].dropout.p
        self.verifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.embedder.dimensions, 2))
        nn.init.normal_(self.verifier[1].weight, std=0.001)
        nn.init.zeros_(self.verifier[1].bias)

    def optimizers(self) -> dict[str, tuple[list[nn.Parameter], torch.optim.Optimizer, Callable | None]]:
        """Give the one optimizer "E", with the recipe's schedule."""
        new = [*self.embedder.new_layers, *self.verifier.parameters()]
        backbone = list(self.embedder.backbone.parameters())
        return {"E": (backbone + new, self.recipe.make_optimizer(backbone, new), self.schedule)}

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return logits [B,2], "different" and "the same person", of pooled features [B,D] and [B,D].

        They follow $(f_1 - f_2)^2$, so the order of the two does not matter. The network was trained on features as
        they are pooled, before `embed` scales them to length 1.
        """
        return self.verifier((first - second).square()).float()

    def training_step(
        self, batch: dict[str, Tensor], step: int, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Take one step on pairs: `images`, `target_images` and their int64 `labels`, `target_labels`.

        Returns:
            "verification", "identity", "target identity" (unweighted), "loss" (their weighted sum), "accuracy" and
            "verification accuracy".

        Raises:
            ValueError: a batch that is not of pairs, or an image without an identity.
        """
        names = ("images", "target_images", "labels", "target_labels")
        if missing := [name for name in names if name not in batch]:
            raise ValueError(f"a Siamese network trains on pairs (see growing_pairs): the batch lacks {missing}")
        one, other, labels, others = (batch[name] for name in names)
        head = self.embedder(torch.cat([as_network_input(one), as_network_input(other)]))
        scores, same = self.compare(*head.compared.chunk(2)), (labels == others).long()
        first, second = head.logits.chunk(2)
        terms = {
            "verification": cross_entropy(scores, same),
            "identity": cross_entropy(first, labels),
            "target identity": cross_entropy(second, others),
        }
        loss = sum(WEIGHTS[name] * value for name, value in terms.items())
        update("E", loss)
        hits = (head.logits.argmax(1) == torch.cat([labels, others])).float().mean()
        told = (scores.argmax(1) == same).float().mean()
        return {**terms, "loss": loss, "accuracy": hits, "verification accuracy": told}


def negatives_per_positive(
    step: int, steps: int, *, first: float = 1.0, growth: float = 1.01, most: float = 4.0, epochs: int = GROWING
) -> float:
    r"""Return the number of negative pairs for each positive one: $\min(m, r_0 \, g^{e})$ in epoch $e$, from 0.

    The paper lets the ratio grow by 1.01 an epoch to 4:1, which takes 140 epochs, and trains for 75, which end at
    2.09:1 (`epochs=75`). [our choice] The growth is spread over the run, so that it ends at 4:1. The public code has
    four negatives throughout (`first=4`).

    >>> [round(negatives_per_positive(step, 141), 3) for step in (0, 1, 139, 140)]
    [1.0, 1.01, 3.987, 4.0]
    >>> negatives_per_positive(0, 9, first=4), round(negatives_per_positive(74, 75, epochs=75), 3)
    (4.0, 2.088)
    """
    return min(most, first * growth ** (step * epochs // steps))


def growing_pairs(pids: Tensor, batch_size: int, steps: int, **ratio: Any) -> Sampler:
    """Draw batches of pairs of one person (positive) and of two (negative), ever more of the latter.

    Positive pairs start from each image that has a partner, negative ones from each image, in shuffled order, over and
    over; the partner is uniform. The whole run is one epoch of the sampler, because the mixture changes with the step.

    Args:
        pids: int64 [N]; images of nobody (pid < 0) take no part.
        batch_size: pairs in a batch, 2 and more.
        steps: batches in the run.
        ratio: of `negatives_per_positive` (first, growth, most, epochs).

    Raises:
        ValueError: fewer than two people, nobody with two images, or batches too small for both kinds.

    >>> from reidlib.datasets.sampling import seeded
    >>> rows = growing_pairs(torch.tensor([7, 7, 9, 9, -1]), 4, 2).draw(seeded(0))
    >>> [batch.shape for batch in rows], int(torch.cat(rows).max())
    ([torch.Size([4, 2]), torch.Size([4, 2])], 3)
    """
    order, group, size, start = by_identity(pids)
    counts = group.bincount().tolist()
    if len(counts) < 2 or max(counts) < 2 or batch_size < 2 or steps < 1:
        raise ValueError(
            f"pairs of one person and of two need two people, one with two images, and batches of 2: got {len(counts)} "
            f"people with {counts[:5]} images, batch_size={batch_size}, steps={steps}"
        )
    ratios = torch.tensor([negatives_per_positive(step, steps, **ratio) for step in range(steps)])
    positive = (batch_size / (1 + ratios)).round().long().clamp(1, batch_size - 1)

    def draw(generator: torch.Generator) -> list[Tensor]:
        def anchors(pool: Tensor, n: int) -> Tensor:
            shuffles = [pool[torch.randperm(len(pool), generator=generator)] for _ in range(-(-n // len(pool)))]
            return torch.cat(shuffles)[:n]

        def whole(n: int) -> Tensor:
            return torch.randint(2**62, (n,), generator=generator)

        n = int(positive.sum())
        a, c = anchors((size > 1).nonzero().flatten(), n), anchors(torch.arange(len(order)), steps * batch_size - n)
        b = start[a] + (a - start[a] + 1 + whole(len(a)) % (size[a] - 1)) % size[a]
        d = (start[c] + size[c] + whole(len(c)) % (len(order) - size[c])) % len(order)
        same, other = (order[torch.stack(pair, dim=1)] for pair in ((a, b), (c, d)))
        parts = zip(same.split(positive.tolist()), other.split((batch_size - positive).tolist()), strict=True)
        return [torch.cat(pair)[torch.randperm(batch_size, generator=generator)] for pair in parts]

    return Sampler(steps, draw)


def train_siamese(
    images: PersonImages,
    *,
    images_seen: int,
    preset: str = "course",
    seed: int = 0,
    augment: Augment | None = None,
    ratio: dict[str, float] | None = None,
    options: dict[str, Any] | None = None,
    **training: Any,
) -> tuple[Siamese, History]:
    """Train a `Siamese` until it has seen `images_seen` images, two a pair; return it with its history.

    Args:
        images: the training set; generated images carry their sources' identities.
        images_seen: length in images, as of `experiments.train_baseline`, so that both see as many.
        preset, options: see `Siamese`.
        seed: of the initial weights, the pairs and the augmentation.
        augment: instead of the preset's ("paper": a random 224x224 of 256x256, and mirrors).
        ratio: of `negatives_per_positive`.
        training: of `training.train` (device, run_dir, evaluate, progress, ...).

    Raises:
        ValueError: fewer images to see than a batch holds, or a set that makes no pairs.
    """
    options, ratio = options or {}, ratio or {}
    chosen = options.get("recipe", SIAMESE_RECIPES.get(preset))
    recipe = choose_form("baseline", preset, recipe=chosen)["recipe"]  # a name becomes its recipe
    steps = images_seen // (2 * recipe.batch_size)
    if steps < 1:
        raise ValueError(f"images_seen={images_seen} is less than one batch of {recipe.batch_size} pairs")
    return train(
        lambda steps, n_classes: Siamese(n_classes, preset=preset, steps=steps, **options),
        images,
        growing_pairs(images.pids, recipe.batch_size, steps, **ratio),
        images_seen=steps * recipe.batch_size,
        augment=augment or AUGMENTATIONS[preset],
        seed=seed,
        settings={"preset": preset, "recipe": recipe.name, "images": len(images)} | ratio,
        **training,
    )
