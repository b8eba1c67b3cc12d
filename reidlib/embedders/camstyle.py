r"""CamStyle's re-ID side: batches of real and generated images in a fixed mixture, generated ones with smoothed labels.

Zhong et al., "Camera Style Adaptation for Person Re-identification", CVPR 2018. The images come from
`generators.cyclegan.camstyle_images`, or from any other generator that keeps identities.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets.augment import Batch, erase_boxes
from reidlib.datasets.sampling import Sampler
from reidlib.embedders.baseline import Baseline, as_network_input
from reidlib.embedders.recipes import Recipe
from reidlib.losses import cross_entropy, label_smoothing

# 50 epochs with a tenth of the rate after 40; `lr` is the backbone's, the head has ten times as much
RECIPE = Recipe("camstyle", "sgd", 0.01, 5e-4, 50, decay_at=(41,), normalise=True, batch=128, augmentation="flip")
FAKES = ("lsr", "vanilla")


class CamStyleBaseline(Baseline):
    r"""A `Baseline` that smooths the labels of generated images only.

    $$L = \frac1M \sum_{i=1}^{M} L_\text{CE}(x_i) + \frac1N \sum_{j=1}^{N} L_\text{LSR}(x_j^*)$$

    over the M real and N generated images of a batch (Zhong et al., section 3.4): each part has its own mean, so one
    generated image weighs M/N times as much as a real one. Batches must say which is which (`is_generated`, as
    `PersonImages.batch` does); `mixed_batches` makes them. The paper augments by `random_rectangle` and a flip.

    Args:
        n_classes: identities in training.
        preset: "smoke", "course": the course's network and recipe; "paper": ResNet-50 whose pooled feature goes through
            a layer of 1024 (BatchNorm, ReLU, dropout 0.5) to the classifier, SGD with Nesterov's momentum. The test
            feature is the pooled one, scaled to length 1.
        fakes: "lsr", or "vanilla" for plain cross-entropy on generated images too.
        epsilon: of the smoothing.
        hidden: units of the layer before the classifier, instead of the preset's; 0 for none.
        options: of `Baseline`, without `loss`.

    Raises:
        ValueError: for an unknown `fakes`.

    >>> method = CamStyleBaseline(5, preset="smoke")
    >>> method.embed(torch.zeros(2, 3, 64, 32, dtype=torch.uint8)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        n_classes: int,
        *,
        preset: str = "course",
        fakes: str = "lsr",
        epsilon: float = 0.1,
        hidden: int | None = None,
        **options: Any,
    ) -> None:
        if fakes not in FAKES:
            raise ValueError(f"fakes must be one of {', '.join(FAKES)}, got {fakes!r}")
        if preset == "paper":
            options = {"recipe": RECIPE} | options
        super().__init__(n_classes, preset=preset, **options, loss="softmax")
        self.epsilon = epsilon if fakes == "lsr" else 0.0
        hidden = (1024 if preset == "paper" else 0) if hidden is None else hidden
        if hidden:
            head = nn.Linear(hidden, n_classes)
            nn.init.normal_(head.weight, std=0.001)
            nn.init.zeros_(head.bias)
            self.embedder.classifier = nn.Sequential(
                nn.Linear(self.embedder.dimensions, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.5), head
            )

    def optimizers(self) -> dict[str, tuple[list[nn.Parameter], torch.optim.Optimizer, Callable | None]]:
        """Give the recipe's optimizer; for CamStyle's own recipe SGD with two rates, the head's ten times as high."""
        if self.recipe != RECIPE:
            return super().optimizers()
        backbone = list(self.embedder.backbone.parameters())
        inside = {id(p) for p in backbone}
        new = [p for p in self.embedder.parameters() if id(p) not in inside and p.requires_grad]
        groups = [{"params": backbone}, {"params": new, "lr": 10 * self.recipe.lr}]
        sgd = torch.optim.SGD(
            groups, lr=self.recipe.lr, momentum=0.9, nesterov=True, weight_decay=self.recipe.weight_decay
        )
        return {"E": (backbone + new, sgd, self.schedule)}

    def training_step(
        self, batch: dict[str, Tensor], step: int, update: Callable[[str, Tensor], None]
    ) -> dict[str, Tensor]:
        """Take one step on `images`, int64 `labels` and bool `is_generated`.

        Returns:
            "identity" of the real images, "identity of fakes" (0 where a batch has none), "loss" and "accuracy".

        Raises:
            ValueError: an image without an identity.
        """
        labels, fake = batch["labels"], batch["is_generated"]
        _, _, logits = self.embedder(as_network_input(batch["images"]))
        real_term, fake_term = mixed_loss(logits, labels, fake, self.epsilon)
        update("E", real_term + fake_term)
        hits = (logits.argmax(1) == labels).float().mean()
        return {
            "identity": real_term,
            "identity of fakes": fake_term,
            "loss": real_term + fake_term,
            "accuracy": hits,
        }


def mixed_loss(logits: Tensor, labels: Tensor, is_generated: Tensor, epsilon: float = 0.1) -> tuple[Tensor, Tensor]:
    r"""Return the mean cross-entropy of the real images and the mean smoothed one of the generated ones.

    A group that the batch does not have counts 0.

    Args:
        logits: [B,K].  labels: int64 [B].  is_generated: bool [B].
        epsilon: smoothing of the generated images' labels, $1-\varepsilon+\varepsilon/K$ and $\varepsilon/K$.

    Raises:
        ValueError: labels outside 0..K-1 (unlabelled images need LSRO: `Baseline`).

    >>> real, fake = mixed_loss(torch.zeros(3, 751), torch.tensor([0, 1, 2]), torch.tensor([False, True, True]))
    >>> round(real.item(), 4), round(fake.item(), 4)
    (6.6214, 6.6214)
    """
    zero = logits.sum() * 0
    real = cross_entropy(logits[~is_generated], labels[~is_generated]) if not is_generated.all() else zero
    fake = label_smoothing(logits[is_generated], labels[is_generated], epsilon) if is_generated.any() else zero
    return real, fake


def mixed_batches(is_generated: Tensor, real_per_batch: int = 128, fake_per_batch: int = 46) -> Sampler:
    """Draw batches with so many real and so many generated images; CamStyle's mixture is 128 to 46.

    An epoch shows each real image once (up to real_per_batch - 1 are left out, others each time). Generated images come
    from as many shuffles of their whole set as are needed; most are not seen in one epoch. In a batch they stand evenly
    spread among the real ones, so pieces of it hold the same mixture.

    Args:
        is_generated: bool [N], of the set that the batches are gathered from.

    Raises:
        ValueError: fewer real images than a batch needs, or no generated ones.

    >>> sampler = mixed_batches(torch.tensor([False] * 8 + [True] * 3), 4, 2)
    >>> sampler.steps, [int((rows >= 8).sum()) for rows in sampler.draw(torch.Generator())]
    (2, [2, 2])
    """
    real, fake = (~is_generated).nonzero().flatten(), is_generated.nonzero().flatten()
    if real_per_batch < 1 or fake_per_batch < 1 or len(real) < real_per_batch or not len(fake):
        raise ValueError(
            f"batches of {real_per_batch} real and {fake_per_batch} generated images cannot be drawn from {len(real)} "
            f"and {len(fake)}"
        )
    steps = len(real) // real_per_batch
    places = [(torch.arange(n) + 0.5) / n for n in (real_per_batch, fake_per_batch)]
    order = torch.cat(places).argsort(stable=True)

    def draw(generator: torch.Generator) -> list[Tensor]:
        shuffled = real[torch.randperm(len(real), generator=generator)]
        passes = -(-steps * fake_per_batch // len(fake))
        fakes = torch.cat([fake[torch.randperm(len(fake), generator=generator)] for _ in range(passes)])
        return [
            torch.cat([r, f])[order]
            for r, f in zip(
                shuffled[: steps * real_per_batch].split(real_per_batch),
                fakes[: steps * fake_per_batch].split(fake_per_batch),
                strict=True,
            )
        ]

    return Sampler(steps, draw)


def random_rectangle(
    batch: Batch,
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.64, 1.0),
    aspect: tuple[float, float] = (2.0, 3.0),
) -> Batch:
    """Cut a random rectangle out of each image and enlarge it to the old size: CamStyle's crop, before its flip.

    Area (a share of the image) and height / width are uniform; where no rectangle fits, the image stays whole. Key
    points, masks and parsing, which would have to follow, are left out of the result.
    """
    images = batch["images"]
    height, width = images.shape[2:]
    pictures = []
    boxes = erase_boxes(len(images), (height, width), generator, p=1.0, area=area, aspect=aspect)
    for image, (t, f, h, w) in zip(images, boxes.tolist(), strict=True):
        if h:
            window = image[None, :, t : t + h, f : f + w].float()
            image = F.interpolate(window, (height, width), mode="bilinear")[0].round().to(torch.uint8)
        pictures.append(image)
    kept = {name: tensor for name, tensor in batch.items() if name not in ("keypoints", "masks", "parsing")}
    return kept | {"images": torch.stack(pictures)}
