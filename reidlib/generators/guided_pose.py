r"""Pose transfer with a frozen guider: a conditional GAN that a re-ID classifier tells whose picture it has to make.

The relative of the camera-transfer GANs that the thesis shows beside them (its Figures 7 and 22). Its weights are not
known here: [our choice] identity loss 1, L1 100.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets.poses import skeleton_images
from reidlib.generators import blocks, inputs
from reidlib.losses.adversarial import adversarial_loss, discriminator_loss
from reidlib.losses.identity import cross_entropy
from reidlib.networks import Frozen, normal_init, normalise, signed_to_imagenet

PRESETS = {
    "smoke": dict(width=8, units=1, lr=4e-4),
    "course": dict(width=16, units=3, lr=1e-3),
    "paper": dict(width=64, units=9, lr=2e-4),
}


class GuidedPose(nn.Module):
    r"""A generator of (image, target skeleton), a discriminator, and a guider that names the person.

    $$L_G = -\log D(x, s, G(x, s)) + \lambda_1 \|G(x, s) - y\|_1 - \lambda_\text{id} \log p_\text{id}(G(x, s)), \qquad
      L_D = \tfrac12\big(-\log D(x, s, y) - \log(1 - D(x, s, G(x, s)))\big)$$

    with s the skeleton picture of y, another image of x's person. D steps before G, as in pix2pix. A batch is of pairs
    of one identity (`sampling.same_identity_pairs`) with `target_keypoints`, and with `labels` where there is a guide.

    Args:
        guide: any network from ImageNet-normalised images to logits, or to a tuple whose last entry they are (an
            `Embedder`: `baseline.embedder`), trained on real images with the same labels. It is copied, frozen and kept
            out of this method's weights. None leaves the identity loss out.
        preset: "smoke", "course" or "paper"; sets the next two and `lr`.
        width: channels of the first layer of both networks.  units: residual units of the generator.
        lambda_l1, lambda_identity: weights.
        lr: learning rate of both Adams, with $\beta_1 = 0.5$.
        steps, constant: the rate is constant for that share of the run, then falls linearly to 0.

    Attributes:
        settings: every choice above, as a dictionary for the records.
        deviations: those of them that are not the paper preset's.

    Raises:
        TypeError: a guide that is not a network.
        ValueError: for a preset or number that cannot be used.

    >>> method = GuidedPose(preset="smoke")
    >>> method.generate(torch.zeros(2, 3, 64, 32), torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(
        self,
        guide: nn.Module | None = None,
        *,
        preset: str = "course",
        width: int | None = None,
        units: int | None = None,
        lambda_l1: float = 100.0,
        lambda_identity: float = 1.0,
        lr: float | None = None,
        steps: int = 1000,
        constant: float = 0.5,
    ) -> None:
        chosen = blocks.choose_preset(PRESETS, locals())
        super().__init__()
        self.settings = chosen | {"lambda_identity": 0.0 if guide is None else lambda_identity}
        self._guide = None if guide is None else Frozen(guide)  # no part of the state
        self.deviations = blocks.deviations(self.settings, PRESETS["paper"])
        width = chosen["width"]
        self.G = blocks.ResidualGenerator(6, width=width, units=chosen["units"])
        self.D = blocks.PatchDiscriminator(9, width=width, norm="instance")
        self.apply(normal_init)

    def optimizers(self) -> blocks.Optimizers:
        """Give the Adams of "D" and "G"."""
        return blocks.adams(self.settings["lr"], self.schedule, D=self.D, G=self.G)

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0."""
        return blocks.linear_decay(step, self.settings["steps"], self.settings["constant"])

    def training_step(self, batch: dict[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        """Take one step of the discriminator, then one of the generator.

        Returns:
            every term, unweighted: D, GAN, L1 and, with a guide, identity and "identity accuracy" (what share of the
            generated images the guide takes for the right person).

        Raises:
            ValueError: a batch without partners, key points or labels, or labels that the guide does not know.
        """
        guided = [] if self._guide is None else ["labels"]
        source, target = inputs.pair_images(batch, type(self).__name__, "target_keypoints", *guided)
        seen = torch.cat([source, self.condition({"keypoints": batch["target_keypoints"], "images": target})], 1)
        fake = self.G(seen).float()
        real_scores, fake_scores = (self.D(torch.cat([seen, picture], 1)) for picture in (target, fake.detach()))
        loss_d = discriminator_loss(real_scores, fake_scores)
        update("D", loss_d)
        terms = {"GAN": adversarial_loss(self.D(torch.cat([seen, fake], 1)), True), "L1": F.l1_loss(fake, target)}
        loss = terms["GAN"] + self.settings["lambda_l1"] * terms["L1"]
        if self._guide is not None:
            logits = blocks.logits_of(self._guide.on(fake.device)(signed_to_imagenet(fake)))
            terms["identity"] = cross_entropy(logits, batch["labels"])
            terms["identity accuracy"] = (logits.argmax(1) == batch["labels"]).float().mean()
            loss = loss + self.settings["lambda_identity"] * terms["identity"]
        update("G", loss)
        return {"D": loss_d, **terms}

    def condition(self, targets: dict[str, Tensor], sources: dict[str, Tensor] | None = None) -> Tensor:
        """Return the skeleton pictures of the targets' key points, float [B,3,H,W] in [-1, 1].

        Raises:
            ValueError: targets without key points.
        """
        keypoints = inputs.annotation(targets, "keypoints", "targets", "pose transfer")
        return normalise(skeleton_images(keypoints, tuple(targets["images"].shape[2:])), "signed")

    @torch.no_grad()
    def generate(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the persons of images [B,3,H,W] in [-1, 1] in the poses of the skeleton pictures [B,3,H,W]."""
        return self.G(inputs.join_pictures(images, condition)).to(images.dtype)
