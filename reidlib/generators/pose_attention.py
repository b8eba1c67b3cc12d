r"""Pose-driven attention-guided generation, trained with or for a re-ID network under the quartet loss.

Khatun, Denman, Sridharan and Fookes. A condition image $I_c$ with its pose $P_c$ and a target pose $P_t$ go in, the
person in the target pose comes out; $I_t$ is the true image. $N$ PAAN blocks weigh the appearance by the condition
pose, eq. 1-2, and $N$ PAGN blocks build the picture up from the target pose, eq. 3-6:

$$A_k = \sigma(f_k^P), \qquad f_k^I = A_k \otimes \text{conv}(f_{k-1}^I) + f_{k-1}^I$$
$$x_j = \text{AdaIN}(b_j, a_j), \qquad f_j^g = x_j + a_j, \qquad A_j = \sigma(\text{conv}(x_j)), \qquad
  I_j^g = \text{deconv}(I_{j-1}^g \,\|\, A_j \otimes x_j)$$

with the content $b_j$ a 1x1 convolution of $f_N^I$ and the style $a_j$ a transposed convolution of
$f_{j-1}^g \,\|\, P_t$. The full objective, eq. 14, with the re-ID network $E$:

$$\lambda_{GAN}(L_I + L_P) + \lambda_R \lVert I_g - I_t \rVert_1 + \lambda_S \lVert E(I_c) - E(I_g) \rVert_1
  + \lambda_q L_\text{quartet} + \lambda_{id} L_{id}$$

The paper's layer tables are figures that its text does not repeat: channels, padding and the halvings inside PAAN are
those of the relatives that it builds on (PATN; PoseStylizer, "pyramid"), and each other reading is an option.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.poses import has_torso, heat_maps, visible
from reidlib.datasets.sampling import seeded, target_pairs, usable_pairs
from reidlib.generators import blocks, inputs
from reidlib.generators.pose_attention_networks import FORMS, JOINTS, Generated, Generator
from reidlib.losses.adversarial import adversarial_loss, discriminator_loss
from reidlib.losses.identity import cross_entropy
from reidlib.losses.metric import draw_quartets, quartet_loss
from reidlib.losses.perceptual import perceptual_loss
from reidlib.networks import Frozen, evaluating, normal_init, signed_to_imagenet

CHOICES = FORMS | {
    "score": (*blocks.SCORES, "patchgan"),
    "mode": ("joint", "staged"),
    "semantic_feature": ("pooled", "embedding"),
    "background": inputs.BACKGROUNDS,
}
WEIGHTS = {"L_I": "lambda_gan", "L_P": "lambda_gan", "L_R": "lambda_reconstruction", "L_S": "lambda_semantic",
           "L_quartet": "lambda_quartet", "L_id": "lambda_id", "perceptual": "lambda_guide"}  # fmt: skip
PAIRS_PER_EPOCH = 4000  # of the relatives, drawn anew each epoch
PAPER = dict(
    image_size=(128, 64), encoder_size=(256, 128), width=64, n_blocks=4, paan="pyramid", adain="pose_style", f0="pose",
    mask_relu=False, pad="reflect", kernel=7, discriminator_width=64, score="map", pool_size=0,
    use_appearance_discriminator=True, use_pose_discriminator=True, lambda_gan=5.0, lambda_reconstruction=10.0,
    lambda_semantic=10.0, lambda_quartet=1.0, lambda_id=1.0, lambda_guide=0.0, guide_shift=0, mode="joint",
    train_E_on_LS=False, semantic_feature="pooled", embedding=128, quartet={}, normalise=True,
    steps=800 * PAIRS_PER_EPOCH // 32, epochs=800, lr=2e-4, lr_E=2e-4, foreground_weight=1.0,
    background="target",
)  # fmt: skip
_DEFAULTS = PAPER | dict(lambda_guide=8.0, lr_E=None)  # 0 where there is no guide; None: as lr
# two residual discriminators, with their 7x7 layers at full size, take as long as the generator on a CPU, and half of
# the generator's own time goes into such layers; 3x3 of 64x32 is about the same part of a person as 7x7 of 128x64, so
# where none is given the kernel follows the size
# with the pose as the style its places reach the picture by sums alone; under 5 times the adversarial terms, a few
# thousand pairs teach nets and stripes
_COURSE = _DEFAULTS | dict(
    image_size=(64, 32), encoder_size=(64, 32), kernel=None, adain="appearance_modulates", score="patchgan",
    lambda_gan=0.1, lr=1e-3, foreground_weight=4.0,
)  # fmt: skip
PRESETS = {
    "smoke": _COURSE | dict(width=8, n_blocks=3, discriminator_width=8, steps=30),
    "course": _COURSE | dict(width=16, discriminator_width=16, steps=1000),
    "paper": _DEFAULTS,
}


class PoseAttention(nn.Module):
    r"""The generator, its two discriminators and the re-ID network, and how they are trained.

    The generator steps first, in the non-saturating form, then in "joint" mode the re-ID network $E$, then the
    discriminators, all on the same generated images:

    $$L_G = \lambda_{GAN}\,(-\log D_I(I_c, I_g) - \log D_P(P_t, I_g)) + \lambda_R L_R + \lambda_S L_S, \qquad
    L_E = \lambda_q L_\text{quartet} + \lambda_{id} L_{id}$$
    $$L_{D} = -\tfrac12 \big(\log D(\cdot, I_t) + \log (1 - D(\cdot, I_g))\big)$$

    $E$ learns from $I_c$, $I_t$ and the detached $I_g$ under one label, with a quartet for each pair whose anchor is
    $I_c$. $L_S$ is computed in evaluation mode, $E(I_c)$ detached, and moves the generator alone: $E$ could bring
    it to 0 by giving every image one feature.

    Args:
        encoder: E, a re-ID network such as `Embedder(K, heads=[dict(dimensions=128, norm="batch", relu=True,
            dropout=0.5, feature="layer")])` for K identities; it is copied. With two heads the quartet loss takes the
            first one's embedding and the identification loss the last one's logits. None leaves out all that needs E.
        preset: "smoke", "course" or "paper", a row of `PRESETS`, which holds what is not given (or None).
        guide: None as published; a backbone with a `stem` and `stages` adds `lambda_guide` (8) times `perceptual_loss`,
            with `guide_shift` (0) as its shift. It is copied, frozen, and no part of the state; train it on the
            generator's own training identities.
        switches: anything that `PAPER` names, with its published value:
        n_blocks, paan, adain, f0, mask_relu, pad, kernel, width: see `Generator`. kernel None, as the small presets
            have it: 7 for images of 64 pixels or more each way, else 3.
        score: of the discriminators: "map" or "features", see `ResidualDiscriminator`; or "patchgan".
        pool_size: past generated images that each discriminator is shown; 50 in the relatives.
        discriminator_width: channels of their first layer, 64.
        use_appearance_discriminator, use_pose_discriminator: without one its term is 0, and the other keeps its weight.
        lambda_gan, lambda_reconstruction, lambda_semantic, lambda_quartet, lambda_id: weights, 5, 10, 10, 1, 1.
        mode: "joint"; or "staged": E is trained already, frozen, and no part of the state.
        train_E_on_LS: E's step minimises $\lambda_S L_S$, too, without the guard (to show the collapse).
        semantic_feature: what $L_S$ compares: the "pooled" vector or the "embedding".
        embedding: length of E's embedding.
        quartet: options of `quartet_loss`.  normalise: embeddings to length 1 before it.
        image_size: (height, width) it is trained at.  encoder_size: what E's images are resized to (bilinear).
        steps: length of the training, over which the schedule's `epochs` are spread.
        lr: of the Adams, with betas (0.5, 0.999); 2e-4.  lr_E: of E's, with (0.9, 0.999); None: lr.
        foreground_weight: 1 as published; above 1: see `inputs.foreground_l1` (needs masks).
        background: "target" as published; "source": what the picture is to show around the person is the condition
            image's, see `inputs.wanted_images` (needs masks); D_I then sees that image's person alone.

    Attributes:
        settings: every choice above, as a dictionary for the records.
        deviations: those that are not the published ones, or our reading where the paper is silent.

    Raises:
        TypeError: an encoder that is no re-ID network.
        ValueError: for names that are not known, sizes that the networks cannot take, an embedding of another length,
            an encoder of fewer than three identities that is to learn by quartets ("joint").

    >>> method = PoseAttention(preset="smoke")
    >>> poses = torch.zeros(2, 18, 64, 32)
    >>> method.generate(torch.zeros(2, 3, 64, 32), {"source": poses, "target": poses}).shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        preset: str = "course",
        guide: nn.Module | None = None,
        **switches: Any,
    ) -> None:
        chosen = blocks.choose_preset(PRESETS, locals())
        super().__init__()
        blocks.check_choices(CHOICES, chosen)
        joint = encoder is not None and chosen["mode"] == "joint"
        used = dict(
            lambda_quartet=joint, lambda_id=joint, lambda_semantic=encoder is not None, lambda_guide=guide is not None
        )
        chosen |= {name: 0.0 for name, there in used.items() if not there}
        chosen["quartet"] = dict(chosen["quartet"])
        chosen["lr_E"] = chosen["lr"] if chosen["lr_E"] is None else chosen["lr_E"]
        chosen |= {"kernel": 7 if min(chosen["image_size"]) >= 64 else 3} if chosen["kernel"] is None else {}
        self.settings, self.deviations = chosen, blocks.deviations(chosen, PAPER)
        self._check(encoder, joint)
        names = ("width", "n_blocks", "paan", "adain", "f0", "mask_relu", "pad", "kernel")
        self.G = Generator(**{name: chosen[name] for name in names})
        self.G.check_size(chosen["image_size"])
        self.D_I = self._discriminator(3 + 3) if chosen["use_appearance_discriminator"] else None
        self.D_P = self._discriminator(JOINTS + 3) if chosen["use_pose_discriminator"] else None
        pool = partial(blocks.ImagePool, chosen["pool_size"], chosen["image_size"])
        self.pool_I, self.pool_P = pool(channels=3 + 3), pool(channels=JOINTS + 3)
        self.apply(normal_init)
        self.E = copy.deepcopy(encoder) if joint else None
        self._frozen = None if encoder is None or joint else Frozen(encoder)  # no part of the state
        self._guide = None if guide is None else Frozen(guide)

    def _check(self, encoder: nn.Module | None, joint: bool) -> None:
        quartet_loss(*torch.zeros(4, 1, 2), **self.settings["quartet"])
        if encoder is None:
            return
        if not hasattr(encoder, "all_heads"):
            raise TypeError(f"encoder must be a re-ID network (Embedder), got {type(encoder).__name__}")
        if encoder.dimensions != self.settings["embedding"]:
            raise ValueError(
                f"the encoder's embedding has {encoder.dimensions} numbers, embedding={self.settings['embedding']} is "
                "accepted: give it a head of that many dimensions, or pass its own number"
            )
        identities = encoder.heads[-1].classifier.out_features
        if joint and self.settings["lambda_quartet"] and identities < 3:
            raise ValueError(f"quartets need at least three identities, the encoder tells {identities} apart: give "
                             'more, or mode="staged", or lambda_quartet=0')  # fmt: skip

    def _discriminator(self, channels: int) -> nn.Module:
        width, score = self.settings["discriminator_width"], self.settings["score"]
        if score != "patchgan":
            return blocks.ResidualDiscriminator(channels, width=width, score=score)
        network = blocks.PatchDiscriminator(channels, width=width)
        network.check_size(self.settings["image_size"])
        return network

    def optimizers(self) -> blocks.Optimizers:
        """Give the Adams of "G" and of what there is of "E", "D_I" and "D_P", all with `schedule`."""
        networks = dict(G=self.G, E=self.E, D_I=self.D_I, D_P=self.D_P)
        made = blocks.adams(self.settings["lr"], self.schedule, **networks)
        if self.E is not None:
            made["E"] = blocks.adam(self.E, self.settings["lr_E"], self.schedule, betas=(0.9, 0.999))
        return made

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0: `decay` of the epoch that the step lies in."""
        epochs = self.settings["epochs"]
        return decay(min(epochs, 1 + step * epochs // self.settings["steps"]), epochs)

    def training_step(self, batch: Mapping[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        """Take the steps of G, E (in "joint" mode), D_I and D_P on a batch of pairs with both key points.

        Returns:
            every term, unweighted: "L_I" and "L_P" (of G), "L_R" (mean over pixels and channels in [-1, 1], by
            `foreground_weight`), "L_S" (mean over the feature), "perceptual" (with a guide), "G" (their weighted sum),
            "L_quartet", "L_id" and "E" (in "joint" mode), "D_I", "D_P". What is switched off counts 0, and so does
            "L_quartet" where chance gave a batch fewer than three identities.

        Raises:
            ValueError: a batch without pairs, key points, labels or indices (these two: joint), or without masks where
                `foreground_weight` needs them.
        """
        of_E = ("labels", "indices", "target_indices") if self.E is not None else ()
        names = ("keypoints", "target_keypoints", *of_E)
        source, target = inputs.pair_images(batch, type(self).__name__, *names)
        source_pose, pose = (heat_maps(batch[name], target.shape[-2:]) for name in names[:2])
        fake = self.G(source, source_pose, pose).images.float()
        weight, background = self.settings["foreground_weight"], self.settings["background"]
        # beside the whole source D_I would know the true image by its other background
        beside = source
        if background == "source":
            masks = inputs.annotation(batch, "masks", "pairs", "background='source'")
            beside = source * (masks[:, None].float() / 255)  # all but the person is grey
        sides = {"I": (self.D_I, self.pool_I, beside), "P": (self.D_P, self.pool_P, pose)}
        sides = {name: side for name, side in sides.items() if side[0] is not None}
        terms = dict.fromkeys(("L_I", "L_P", "L_S"), fake.new_zeros(()))
        for name, (network, _, seen) in sides.items():
            terms[f"L_{name}"] = adversarial_loss(network(torch.cat([seen, fake], dim=1)), True)
        terms["L_R"] = inputs.foreground_l1(fake, batch, weight, background)
        if self.settings["lambda_semantic"]:
            terms["L_S"] = self.semantic(source, fake)
        if self._guide is not None:
            shift = self.settings["guide_shift"]
            wanted = inputs.where_known(fake, batch, background)
            terms["perceptual"] = perceptual_loss(self._guide.on(fake.device), fake, wanted, relative=True, shift=shift)
        terms["G"], fake = self._weighted(terms), fake.detach()
        update("G", terms["G"])
        if self.E is not None:
            terms |= self._identity(torch.cat([source, target, fake]), *(batch[name] for name in of_E))
            update("E", terms["E"])
        for name, (network, pool, seen) in sides.items():
            real, shown = network(torch.cat([seen, target], dim=1)), pool(torch.cat([seen, fake], dim=1))
            terms[f"D_{name}"] = discriminator_loss(real, network(shown))
            update(f"D_{name}", terms[f"D_{name}"])
        return terms

    def _weighted(self, terms: Mapping[str, Tensor]) -> Tensor:
        return sum(self.settings[WEIGHTS[name]] * value for name, value in terms.items())

    def semantic(self, source: Tensor, fake: Tensor, *, guard: bool = True) -> Tensor:
        r"""Return $L_S$, the mean of $|E(I_c) - E(I_g)|$ over the feature, of images in [-1, 1].

        E is in evaluation mode; with `guard` neither its weights nor $E(I_c)$ have a gradient.
        """
        network = self.E if self.E is not None else self._frozen.on(fake.device)
        with evaluating(network), fixed(network) if guard else nullcontext():
            features = [self._feature(network, images) for images in (source, fake)]
        return F.l1_loss(features[1], features[0])

    def _feature(self, network: nn.Module, images: Tensor) -> Tensor:
        seen = self._resized(images)
        pooled = self.settings["semantic_feature"] == "pooled"
        return (network.pool(seen) if pooled else network.all_heads(seen)[0].compared).float()

    def _resized(self, images: Tensor) -> Tensor:
        return signed_to_imagenet(F.interpolate(images, tuple(self.settings["encoder_size"]), mode="bilinear"))

    def _identity(self, images: Tensor, labels: Tensor, sources: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return E's terms of I_c, I_t and I_g, one below the other [3B,3,H,W]; labels and rows of both, int64 [B]."""
        n, every = len(labels), labels.repeat(3)
        unguarded = self.settings["train_E_on_LS"]
        semantic = {"L_S": self.semantic(images[:n], images[2 * n :], guard=False)} if unguarded else {}
        heads = self.E.all_heads(self._resized(images))
        compared = heads[0].compared.float()
        compared = F.normalize(compared, dim=1) if self.settings["normalise"] else compared
        terms = {"L_quartet": compared.sum() * 0}
        if self.settings["lambda_quartet"] and len(labels.unique()) >= 3:
            seed = int(torch.empty((), dtype=torch.int64).random_())  # follows torch.manual_seed, as dropout does
            rows = torch.cat([sources, targets, -1 - torch.arange(n, device=labels.device)])  # each I_g is a new image
            quartets = draw_quartets(every, torch.Generator().manual_seed(seed), images=rows)
            members = (compared[column] for column in quartets[quartets[:, 0] < n].T)  # those whose anchor is an I_c
            terms["L_quartet"] = quartet_loss(*members, **self.settings["quartet"])
        terms["L_id"] = cross_entropy(heads[-1].logits.float(), every)
        return terms | {"E": self._weighted(terms | semantic)}

    def condition(self, targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the pose maps of both, "source" and "target", float [B,18,H,W] in [0, 1].

        Raises:
            ValueError: a batch without key points, or a target that shows no joint.
        """
        both = {"source": sources, "target": targets}
        points = {role: inputs.annotation(both[role], "keypoints", f"{role}s", "pose attention") for role in both}
        if bare := int((~visible(points["target"]).any(dim=1)).sum()):
            raise ValueError(f"{bare} of {len(points['target'])} targets show no joint, so they give no pose to draw")
        return {role: heat_maps(points[role], batch["images"].shape[-2:]) for role, batch in both.items()}

    def generate(self, images: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Return the people of `images` in the target poses; both sides float [B,3,H,W] in [-1, 1]."""
        return self.look(images, condition).images

    @torch.no_grad()
    def look(self, images: Tensor, condition: Mapping[str, Tensor]) -> Generated:
        """Generate, and return the attention masks of every block beside the images.

        Raises:
            ValueError: anything but the two pose maps for each image, of its size.
        """
        poses = inputs.both_maps(condition, images, JOINTS)
        with evaluating(self):
            made = self.G(images, *poses)
        return Generated(made.images.float(), *([mask.float() for mask in masks] for masks in made[1:]))


@contextmanager
def fixed(network: nn.Module) -> Iterator[None]:
    """Let gradients of what is computed in the block reach a network's inputs, but none of its weights."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def decay(epoch: int, epochs: int = 800) -> float:
    r"""Return the factor of the learning rate in an epoch $e$, from 1: constant, then falling in a straight line.

    $$1 - \max(0, e - n/2) / (n/2 + 1)$$

    with $n$ epochs; the relatives divide by one more than the epochs of the fall, so no epoch has the rate 0.

    >>> [round(2e-4 * decay(epoch), 10) for epoch in (400, 401, 600, 800)]
    [0.0002, 0.0001995012, 0.0001002494, 4.988e-07]
    """
    if not 1 <= epoch <= epochs:
        raise ValueError(f"epoch must be in [1, {epochs}], got {epoch}")
    constant = epochs // 2
    return 1 - max(0, epoch - constant) / (epochs - constant + 1)


def pose_attention_pairs(train: PersonImages, pairs: str = "all") -> Tensor:
    """List all ordered pairs (source, target) of two images of one identity, int64 [P,2].

    An image takes part where both shoulders and both hips were found, as in the relatives.

    Args:
        train: with key points.
        pairs: "all" as published, or "same_camera", see `sampling.usable_pairs`.

    Raises:
        ValueError: no key points, another name, or no pair at all.

    >>> keypoints = torch.ones(3, 18, 3); keypoints[1] = torch.tensor([-1.0, -1.0, 0.0])
    >>> people = PersonImages(torch.zeros(3, 3, 8, 4, dtype=torch.uint8), [7, 7, 7], [1, 2, 3], keypoints=keypoints)
    >>> pose_attention_pairs(people).tolist()
    [[0, 2], [2, 0]]
    """
    return usable_pairs(train, _posed(train), pairs)


def augmentation_pairs(train: PersonImages, per_image: int = 1, *, seed: int = 0) -> Tensor:
    """Draw target poses for every image, uniformly from those of all other images: int64 [N per_image,2].

    For `experiments.augmented(..., pairs=)`; a pose is one with both shoulders and hips.

    Raises:
        ValueError: no key points, or fewer poses than an image needs.
    """
    sources = torch.arange(len(train)).repeat_interleave(per_image)
    return target_pairs(sources, _posed(train).nonzero().flatten(), seeded(seed, 5))


def _posed(train: PersonImages) -> Tensor:
    if not train.has("keypoints"):
        raise ValueError("pose attention needs key points, which this set lacks (`reidlib annotate` adds them)")
    return has_torso(train.keypoints)
