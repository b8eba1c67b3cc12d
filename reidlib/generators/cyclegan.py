r"""CycleGAN between two cameras, CamStyle's form of it, and SPGAN, which keeps identities apart.

None of them needs to know who is who: the images of camera a and of camera b come unpaired. They change a picture's
style and hold on to its content, so the scene behind the person stays where it was.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017; Zhong et al.,
"Camera Style Adaptation for Person Re-identification", CVPR 2018; Deng et al., "Image-Image Domain Adaptation with
Preserved Self-Similarity and Domain-Dissimilarity for Person Re-identification", CVPR 2018.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.generators import blocks, inputs
from reidlib.losses.adversarial import adversarial_loss, discriminator_loss
from reidlib.networks import normal_init

PRESETS = {
    "smoke": dict(image_size=(64, 32), width=8, units=1, lr=4e-4),
    "course": dict(image_size=(64, 32), width=16, units=2, lr=1e-3),
    "paper": dict(image_size=(256, 256), width=64, units=None, lr=2e-4),
}
PAPER = PRESETS["paper"] | dict(lambda_cycle=10.0, lambda_identity=0.5, pool_size=50, constant=0.5, dropout=0.0)
CAMSTYLE = dict(dropout=0.5, constant=0.6)  # what CamStyle's release has instead: 30 epochs, then 20 of falling rate
DIRECTIONS = ("a_to_b", "b_to_a")
CONTRASTS = ("later", "released", "paper")


class CycleGAN(nn.Module):
    r"""Two generators, $G_A: a \to b$ and $G_B: b \to a$, whose round trips must come back to where they started.

    $$L_G = (D_A(G_A(a)) - 1)^2 + (D_B(G_B(b)) - 1)^2
      + \lambda_c \big(\|G_B(G_A(a)) - a\|_1 + \|G_A(G_B(b)) - b\|_1\big)
      + \lambda_i \lambda_c \big(\|G_A(b) - b\|_1 + \|G_B(a) - a\|_1\big)$$
    $$L_D = \tfrac12 \big((D_A(b) - 1)^2 + D_A(G_A(a))^2\big) + \tfrac12 \big((D_B(a) - 1)^2 + D_B(G_B(b))^2\big)$$

    each a mean over pixels or patches (Zhu et al., eqs. 1-3 in their least-squares form, and their identity term). Both
    generators take one step, then both discriminators, which see the generators' images through an `ImagePool`. A batch
    is of pairs: `images` of camera a, `target_images` of b, whoever they show (`camera_pairs.random_targets`).

    Args:
        preset: "smoke", "course" (64x32, width 16, 2 residual units, learning rate 1e-3) or "paper" (256x256, width 64,
            9 units, or 6 below 256 pixels, 2e-4); sets the next three and `lr`.
        image_size: (height, width) of training images, multiples of 4.  width: channels of the first layer of
            generators and discriminators.  units: residual units.
        lambda_cycle, lambda_identity: $\lambda_c$, $\lambda_i$; the identity term is left out at 0.
        pool_size: images that each discriminator's history holds.
        lr: learning rate of all Adam optimizers, with $\beta_1 = 0.5$.
        steps: length of the run that the schedule is spread over.
        constant: share of the run with constant rate, which then falls linearly to 0 (here 1/2, CamStyle 0.6).
        dropout: in the generators' residual units. CycleGAN has none; CamStyle's release has 0.5 there, in training
            and, since its scripts never turn it off, when generating too. So it is on in both here, whatever the
            method's mode: `generate` follows `torch.manual_seed`, and `synthesise` its `seed`.
        cameras: the camids of a and b; then `condition` reads the direction off the sources.

    Attributes:
        settings: every choice above, as a dictionary for the records.
        deviations: those of them that are not as CycleGAN's authors published them (`CAMSTYLE`'s are CamStyle's).

    Raises:
        ValueError: for a preset, size or number that cannot be used.

    >>> gan = CycleGAN(preset="smoke")
    >>> gan.generate(torch.zeros(2, 3, 64, 32), "b_to_a").shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(
        self,
        *,
        preset: str = "course",
        image_size: tuple[int, int] | None = None,
        width: int | None = None,
        units: int | None = None,
        lambda_cycle: float = 10.0,
        lambda_identity: float = 0.5,
        pool_size: int = 50,
        lr: float | None = None,
        steps: int = 1000,
        constant: float = 0.5,
        dropout: float = 0.0,
        cameras: tuple[int, int] | None = None,
    ) -> None:
        chosen = blocks.choose_preset(PRESETS, locals())
        super().__init__()
        self.settings = chosen
        published = 9 if min(chosen["image_size"]) >= 256 else 6
        chosen["units"] = published if chosen["units"] is None else chosen["units"]
        self.deviations = blocks.deviations(chosen, PAPER | {"units": published})
        self.image_size, self.cameras = tuple(chosen["image_size"]), cameras
        if cameras is not None and len(set(cameras)) != 2:
            raise ValueError(f"cameras must be the numbers of two cameras, got {cameras}")
        width, units = chosen["width"], chosen["units"]
        self.G_A, self.G_B = (blocks.ResidualGenerator(width=width, units=units, dropout=dropout) for _ in range(2))
        self.D_A, self.D_B = (blocks.PatchDiscriminator(3, width=width, norm="instance") for _ in range(2))
        self.G_A.check_size(self.image_size)
        self.D_A.check_size(self.image_size)
        self.apply(normal_init)
        self.pool_A, self.pool_B = (blocks.ImagePool(pool_size, self.image_size) for _ in range(2))

    def train(self, mode: bool = True) -> "CycleGAN":
        """Set the mode of all but the generators, whose dropout stays on (nothing else in them has a mode)."""
        super().train(mode)
        for generator in (self.G_A, self.G_B):
            generator.train()
        return self

    def optimizers(self) -> blocks.Optimizers:
        """Give one Adam for both generators, "G", and one for both discriminators, "D"."""
        networks = dict(G=(self.G_A, self.G_B), D=(self.D_A, self.D_B))
        return blocks.adams(self.settings["lr"], self.schedule, **networks)

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0."""
        return blocks.linear_decay(step, self.settings["steps"], self.settings["constant"])

    def training_step(self, batch: Mapping[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        """Take one step of the generators, then one of the discriminators, on a batch of pairs.

        Returns:
            every term, unweighted, by the authors' names: G_A, G_B, cycle_A, cycle_B, idt_A, idt_B, D_A, D_B.
        """
        a, b = inputs.pair_images(batch, type(self).__name__, image_size=self.image_size)
        fake_b, fake_a, terms = self.generator_terms(a, b)
        update("G", self.generator_loss(terms))
        return terms | self.train_discriminators(a, b, fake_b, fake_a, update)

    def generator_terms(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return G_A(a), G_B(b) and the terms of the generators' loss, unweighted."""
        if self.settings["lambda_identity"]:  # one pass for both uses: instance normalisation keeps images apart
            fake_b, same_b = self.G_A(torch.cat([a, b])).float().chunk(2)
            fake_a, same_a = self.G_B(torch.cat([b, a])).float().chunk(2)
        else:
            fake_b, fake_a = self.G_A(a).float(), self.G_B(b).float()
        terms = {
            "G_A": adversarial_loss(self.D_A(fake_b), True, "least_squares"),
            "G_B": adversarial_loss(self.D_B(fake_a), True, "least_squares"),
            "cycle_A": F.l1_loss(self.G_B(fake_b).float(), a),
            "cycle_B": F.l1_loss(self.G_A(fake_a).float(), b),
        }
        if self.settings["lambda_identity"]:
            terms |= {"idt_A": F.l1_loss(same_b, b), "idt_B": F.l1_loss(same_a, a)}
        return fake_b, fake_a, terms

    def generator_loss(self, terms: dict[str, Tensor]) -> Tensor:
        """Weigh the terms of the generators' loss."""
        cycle = self.settings["lambda_cycle"]
        weights = {"cycle": cycle, "idt": cycle * self.settings["lambda_identity"]}
        return sum(weights.get(name[:-2], 1.0) * value for name, value in terms.items())

    def train_discriminators(
        self, a: Tensor, b: Tensor, fake_b: Tensor, fake_a: Tensor, update: blocks.Update
    ) -> dict[str, Tensor]:
        """Take the step of both discriminators and return their losses."""
        scores_a = self.D_A(torch.cat([b, self.pool_A(fake_b)])).chunk(2)
        scores_b = self.D_B(torch.cat([a, self.pool_B(fake_a)])).chunk(2)
        terms = {"D_A": discriminator_loss(*scores_a, "least_squares")}
        terms["D_B"] = discriminator_loss(*scores_b, "least_squares")
        update("D", terms["D_A"] + terms["D_B"])
        return terms

    def condition(
        self, targets: dict[str, Tensor] | None = None, sources: dict[str, Tensor] | None = None
    ) -> Tensor | None:
        """Return bool [B], "this source is of camera a", where `cameras` is known; else None, from a to b.

        Raises:
            ValueError: a source of a third camera.
        """
        if self.cameras is None or sources is None:
            return None
        camids = sources["camids"]
        strangers = sorted(set(camids.tolist()) - set(self.cameras))
        if strangers:
            raise ValueError(f"this {type(self).__name__} moves between cameras {self.cameras}, got {strangers}")
        return camids == self.cameras[0]

    @torch.no_grad()
    def generate(self, images: Tensor, condition: Tensor | str | None = None) -> Tensor:
        """Move images [B,3,H,W] in [-1, 1] to the other camera.

        Args:
            images: of another size than `image_size` they are resized (bicubic, antialiased) and the result is resized
                back.
            condition: "a_to_b" (also None), "b_to_a", or bool [B], True where an image goes from a to b.

        Raises:
            ValueError: for another condition.
        """
        x = inputs.resized(images, self.image_size)
        forth = condition  # from a to b
        if condition is None or (isinstance(condition, str) and condition in DIRECTIONS):
            forth = torch.full((len(x),), condition != "b_to_a")
        if not isinstance(forth, Tensor) or forth.dtype != torch.bool or len(forth) != len(x):
            raise ValueError(f"condition must be {DIRECTIONS}, None or bool [{len(images)}], got {condition!r}")
        out = torch.empty_like(x)
        for net, rows in ((self.G_A, forth), (self.G_B, ~forth)):
            if rows.any():
                out[rows] = net(x[rows]).to(out.dtype)
        return inputs.resized(out, tuple(images.shape[2:]))


class SiameseNet(nn.Module):
    """SPGAN's embedder: stages of 4x4 convolution (stride 2), LeakyReLU and 2x2 max-pooling, then 128 and 64 features.

    Each stage divides height and width by 4. The published net has four for 256x256; smaller images get as many as fit
    (64x32: two). Features have length 1.

    Args:
        image_size: (height, width).
        width: channels of the first stage, doubled at each later one.

    Raises:
        ValueError: images below 4 pixels.

    >>> SiameseNet((64, 32), width=8)(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 64])
    """

    def __init__(self, image_size: tuple[int, int], *, width: int = 64) -> None:
        super().__init__()
        stages, layers = sum(min(image_size) >= 4**n for n in (1, 2, 3, 4)), []
        if not stages:
            raise ValueError(f"a Siamese net needs images of at least 4 pixels each way, got {image_size}")
        channels = [3, *(width * 2**n for n in range(stages))]
        for ins, outs in pairwise(channels):
            layers += [nn.Conv2d(ins, outs, 4, 2, 1), nn.LeakyReLU(0.2), nn.MaxPool2d(2)]
        self.stages = nn.Sequential(*layers)
        numbers = channels[-1] * prod(side // 4**stages for side in image_size)
        head = [nn.Linear(numbers, 128), nn.LeakyReLU(0.2), nn.Dropout(0.5), nn.Linear(128, 64)]
        self.features = nn.Sequential(nn.Flatten(), *head)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.features(self.stages(images)).float(), dim=1)  # [B,64]


def contrastive_loss(first: Tensor, second: Tensor, positive: bool, margin: float = 2.0) -> Tensor:
    r"""Return the mean of $d^2$ over positive pairs, or of $\max(0, m - d)^2$ over negative ones; $d$ is Euclidean.

    Features of length 1 are at most 2 apart, so with the margin 2 a negative pair is always pushed.

    Args:
        first, second: [B,D], row by row a pair.

    >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> round(contrastive_loss(x, y, True).item(), 4), round(contrastive_loss(x, y, False).item(), 4)
    (2.0, 0.3431)
    """
    squared = (first - second).square().sum(1)
    if positive:
        return squared.mean()
    distance = squared.clamp_min(1e-12).sqrt()  # the root has no gradient at 0
    return (margin - distance).clamp_min(0).square().mean()


class SPGAN(CycleGAN):
    r"""CycleGAN whose images stay like their source and unlike every image of the target camera.

    A Siamese net $e$ learns beside it, in a third step after those of the generators and the discriminators. With $+$
    for a pair's positive and $-$ for its negative contrastive loss, $S = a$, $T = b$, $G = G_A$, $F = G_B$ and

    $$P = +(x_S, G(x_S)) + +(x_T, F(x_T)), \quad N_G = -(G(x_S), x_T) + -(F(x_T), x_S), \quad N_X = -(x_S, x_T)$$

    `contrast` chooses among the published forms:

    - "later" (the authors' later code): generators $(P + \tfrac12 N_G)/4$, Siamese net $(P + 2 N_X)/3$;
    - "released" (their first code): $(P + 2 N_X)/4$ for both, so the generators see positives only;
    - "paper": $(P + N_G)/4$ for both.

    The generators' loss is CycleGAN's plus `lambda_contrast` times it.

    Args:
        lambda_contrast: its weight.  margin: of the negatives.  contrast: see above.
        options: of `CycleGAN`.

    Raises:
        ValueError: an unknown form.

    >>> sorted(SPGAN(preset="smoke").optimizers())
    ['D', 'G', 'M']
    """

    def __init__(
        self, *, lambda_contrast: float = 2.0, margin: float = 2.0, contrast: str = "later", **options: Any
    ) -> None:
        super().__init__(**options)
        check_choice("contrast", contrast, CONTRASTS)
        if min(lambda_contrast, margin) < 0:
            raise ValueError(f"lambda_contrast={lambda_contrast}, margin={margin}: negative ones are not accepted")
        self.settings |= dict(lambda_contrast=lambda_contrast, margin=margin, contrast=contrast)
        self.deviations |= blocks.deviations(self.settings, dict(lambda_contrast=2.0, margin=2.0))
        self.siamese = SiameseNet(self.image_size, width=self.settings["width"])
        self.siamese.apply(normal_init)

    def optimizers(self) -> blocks.Optimizers:
        """Give CycleGAN's two and the Siamese net's Adam, "M"."""
        return super().optimizers() | blocks.adams(self.settings["lr"], self.schedule, M=self.siamese)

    def training_step(self, batch: Mapping[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        """Take the steps of generators, discriminators and Siamese net; returns CycleGAN's terms, con_G and con_M."""
        a, b = inputs.pair_images(batch, type(self).__name__, image_size=self.image_size)
        fake_b, fake_a, terms = self.generator_terms(a, b)
        contrast = self.contrastive_terms(a, b, fake_b, fake_a, for_generators=True)
        update("G", self.generator_loss(terms) + self.settings["lambda_contrast"] * contrast)
        terms |= self.train_discriminators(a, b, fake_b, fake_a, update) | {"con_G": contrast}
        terms["con_M"] = self.contrastive_terms(a, b, fake_b.detach(), fake_a.detach(), for_generators=False)
        update("M", terms["con_M"])
        return terms

    def contrastive_terms(
        self, a: Tensor, b: Tensor, fake_b: Tensor, fake_a: Tensor, *, for_generators: bool
    ) -> Tensor:
        """Return the contrastive loss of the generators, or that of the Siamese net."""
        e_a, e_b, e_fake_b, e_fake_a = self.siamese(torch.cat([a, b, fake_b, fake_a])).chunk(4)
        positive = contrastive_loss(e_a, e_fake_b, True) + contrastive_loss(e_b, e_fake_a, True)
        margin, contrast = self.settings["margin"], self.settings["contrast"]
        made = contrastive_loss(e_fake_b, e_b, False, margin) + contrastive_loss(e_fake_a, e_a, False, margin)
        real = contrastive_loss(e_a, e_b, False, margin)
        if contrast == "paper":
            return (positive + made) / 4
        if contrast == "released":
            return (positive + 2 * real) / 4
        return (positive + 0.5 * made) / 4 if for_generators else (positive + 2 * real) / 3


def camstyle_gan(cameras: tuple[int, int], **options: Any) -> CycleGAN:
    """Return CamStyle's CycleGAN of two cameras: dropout 0.5 in the units and 3/5 of the run at a constant rate.

    `options` are `CycleGAN`'s and go before CamStyle's: `dropout=0.0` is CycleGAN's own generator.

    >>> gan = camstyle_gan((5, 6), preset="smoke")
    >>> gan.settings["dropout"], gan.settings["constant"], gan.cameras
    (0.5, 0.6, (5, 6))
    """
    return CycleGAN(**CAMSTYLE | options, cameras=cameras)
