r"""DG-Net: an appearance and a structure code make a picture, and pictures train the network that re-identifies.

Zheng et al., "Joint Discriminative and Generative Learning for Person Re-identification", CVPR 2019, and the released
code. With $x_{ba} = G(E_s(g(x_b)), E_a(x_a))$ the image that has b's structure and a's appearance, $g$ the mean of the
(normalised) channels, and $p_1, p_2$ the softmax of the two heads of the re-ID network $E_a$:

| loss (side a; each is summed over both sides) | definition | weight | trains |
|---|---|---|---|
| L_img1, L_img2 | $\lvert G(s_a, f_a) - x_a\rvert$, $\lvert G(s_a, f_{a^+}) - x_a\rvert$ | 5 | G, E_s |
| L_adv | $\sum_k 2 (D_k(x_{ba}) - 1)^2$ | 1 | G, E_s |
| L_code1 | $\lvert f(x_{ba}) - f_a\rvert$ | 0 to 1 | nothing (see `code_gradient`) |
| L_code2 | $\lvert E_s(g(x_{ab})) - s_a\rvert$ | 0 to 1 | E_s, or G and E_s (see `re_encoding`) |
| L_cyc | $\lvert G(s'_a, f'_a) - x_a\rvert$, codes of $x_{ab}$ and $x_{ba}$ | 0 to 2 | G, E_s |
| L_id^s | $-\log p_1(y_a \mid x_a) - w_B \log p_2(y_a \mid x_a)$; the positive $x_{a^+}$: head 1 | 1 | E_a |
| L_id^c | $-\log p_1(y_a \mid x_{ba})$ by a frozen copy of E_a | 0.5 | G, E_s |
| L_prim | $KL(q \,\Vert\, p_1)$ on $x_{ba}$, $q$ the teacher's | 0 to 2 | E_a |
| L_fine | $-\log p_2(y_b \mid x_{ba})$, b being the structure's person | 0 to 0.4 | E_a |
| D | $\sum_k D_k(x_{ba})^2 + (D_k(x_a) - 1)^2 + 0.01 \lVert\nabla D_k(x_a)\rVert^2$ | 1 | D |

The code $f$ is detached: no loss of a picture reaches E_a through it, which protects re-ID (the authors).
"""

import copy
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets.augment import compose, erase, flip, pad_crop
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Augment, seeded, two_pair_batches
from reidlib.generators import blocks, inputs
from reidlib.generators.dg_net_networks import (
    AppearanceEncoder,
    Decoder,
    MultiScaleDiscriminator,
    StructureEncoder,
    enlarged,
    grey,
)
from reidlib.generators.synthesis import train_generator
from reidlib.losses.adversarial import GAN_LOSSES, adversarial_loss, discriminator_loss, gradient_penalty
from reidlib.losses.distillation import distillation_loss
from reidlib.losses.identity import cross_entropy
from reidlib.losses.reconstruction import masked_l1
from reidlib.networks import Frozen, evaluating, imagenet_to_signed, normalise, signed_to_imagenet
from reidlib.training import History
from reidlib.training.fingerprints import weights_digest

NAMES = ("", "other_", "positive_", "other_positive_")  # of a, b, a+ and b+ in a batch
CHOICES = {
    "teacher_style": ("average", "argmax", "appearance", "uniform", "two_labels"),
    "re_encoding": ("either", "detached", "frozen"),
    "gan_loss": GAN_LOSSES,
    "background": ("drawn", "kept"),
    "encoder_optimizer": ("sgd", "adam"),
}
ALONE = ("appearance", "uniform")  # styles that ask no teacher
PAPER = dict(
    image_size=(256, 128), width=16, units=4, dilations=(3, 6, 9), kernel=5, mlp_width=512, discriminator_width=32,
    slices="channels", code_scale="raw", enlarge_up_to=128, gan_loss="least_squares", feed_generated=True, use_id=True,
    use_prim=True, use_fine=True, use_cycle=True, teacher_style="average", teacher_dropout=False, code_gradient=False,
    re_encoding="either", lambda_img=5.0, lambda_id=0.5, lambda_code1=1.0, lambda_code2=1.0, lambda_cyc=2.0,
    lambda_teacher=2.0, alpha=0.2, lambda_penalty=0.01, warm_up=0.3, ramp=0.02, milestones=(0.6, 0.9), grey_jitter=0.0,
    foreground_weight=1.0, background="drawn", lr=1e-4, encoder_optimizer="sgd", lr_encoder=0.002, steps=100_000,
)  # fmt: skip
# 64x32 images have structure codes of 16x8, too small for a dilation of 9; at 3 of them a side nothing needs enlarging
_COURSE = PAPER | dict(
    image_size=(64, 32), dilations=(1, 2, 3), kernel=3, enlarge_up_to=0, foreground_weight=4.0, lr=4e-4
)  # fmt: skip
PRESETS = {
    "smoke": _COURSE | dict(width=4, units=1, mlp_width=16, discriminator_width=8, steps=30),
    # what makes clothes swap in some hundred steps: the street stays, codes have one scale, larger steps for longer
    "course": _COURSE | dict(width=8, units=2, mlp_width=64, discriminator_width=16, background="kept",
                             code_scale="standardised", lr=2e-3, milestones=(0.85, 0.95), encoder_optimizer="adam",
                             lr_encoder=1e-3, steps=1500),
    "paper": PAPER,
}  # fmt: skip


class DGNet(nn.Module):
    r"""The networks of DG-Net, and how they are trained together.

    With $x_a, x_b$ two images, $x_{a^+}, x_{b^+}$ others of the same persons, and the losses of this module's head:

    $$L_G = 5 (L_{img1} + L_{img2}) + L_{adv} + w_1 L_{code1} + w_2 L_{code2} + w_c L_{cyc} + 0.5 L_{id^c}, \qquad
      L_{E_a} = L_{id^s} + w_t (L_{prim} + 0.2\, L_{fine})$$

    D steps first, on detached pictures, then G and E_s, then E_a. The weights $w$ are 0 until `warm_up`, then grow; see
    `weights`. Batches are of `two_pair_batches`; where `erase(keep_clean=True)` has made holes, only L_id^s sees them.

    With `fit(accumulation=)` a step is not that of the whole batch: D steps in the last piece, so L_adv of the pieces
    before it is by D as it was; batch statistics (of E_a, and of standardised codes) are each piece's own.

    Args:
        encoder: the re-ID network, see `AppearanceEncoder`; copied.
        teacher: a network from ImageNet-normalised images to logits, or to a tuple whose last entry they are (an
            `Embedder`), trained on the same identities; copied and frozen, no part of the state. It has batch
            statistics, as published.
        preset: "smoke", "course" or "paper", a row of `PRESETS`, which holds what is not given (or None).
        switches: anything that `PAPER` names, with its published value:
        image_size: (height, width) of the training images.
        width, units, dilations, mlp_width, discriminator_width, kernel, slices, enlarge_up_to: of the networks.
        code_scale: "raw" as published; "standardised" gives the decoder standardised codes (see there), and all codes,
            of real images and f' of pictures, come from E_a as it will be used, with its running statistics, in place
            of a batch's.
        feed_generated: L_prim and L_fine; False is the paper's "without feed".
        use_id: L_id^c ("without id" has neither it nor the feed).
        use_prim, use_fine, use_cycle: L_prim, L_fine, L_cyc.
        teacher_style: the label q of a picture: the teacher's "average" over it and its mirror image (published), that
            average's "argmax", the "appearance" label, "uniform" (LSRO), or the average kept to the "two_labels" of
            appearance and structure. Only three of them need a teacher.
        teacher_dropout: the teacher's dropout stays on, as it does in the released run after its first sampling.
        code_gradient: let L_code1 train G and E_s through the picture; the released code detaches both codes.
        re_encoding: what trains by L_code2 and L_cyc: "detached" (E_s encodes detached pictures), "frozen" (a frozen
            copy of it encodes pictures with their gradient) or "either", drawn each step (published), by
            torch's seed, which `fit` sets for each step: alike in the pieces of an accumulated batch.
        gan_loss: "least_squares" (released code) or "vanilla" (the paper's log loss).
        lambda_img, lambda_id, alpha, lambda_penalty: 5, 0.5, 0.2 and 0.01 above.
        lambda_code1, lambda_code2, lambda_cyc, lambda_teacher: what $w_1, w_2, w_c, w_t$ grow to: 1, 1, 2, 2.
        warm_up, ramp: share of the run before they grow, and in which they grow by 1 (30,000 and 2,000 of 100,000).
        milestones: shares of the run at which all learning rates fall to a tenth.
        grey_jitter: 0 as published; j above 0 gives the person's pixels of E_s's grey real images another gain, in
            [1 - j, 1 + j], and offset, in [-j, j], drawn for each image of each step, so that how light the clothes
            are has to come from the appearance code (needs masks).
        foreground_weight: 1 as published; above 1 the person's pixels count so many times in L_img1, L_img2 and L_cyc
            (needs masks).
        background: "drawn" as published: G draws the whole picture. "kept": what lies outside the person's mask in the
            structure image is put behind what G draws, in training and in `generate`, so that no code has to hold the
            scene's colours (needs masks).
        lr: of the Adams of D, and of G and E_s, with betas (0, 0.999) and L2 5e-4.
        encoder_optimizer: of E_a: "sgd" as published (Nesterov 0.9; the heads have ten times the rate), or "adam", one
            rate for all of it; L2 5e-4.
        lr_encoder: its rate.
        steps: length of the run, which the shares refer to.

    Attributes:
        E_s, E_a, G, D: the networks.  n_classes: identities that E_a tells apart.
        settings: every choice above.  deviations: those that are not as published.

    Raises:
        TypeError, ValueError: networks, names, numbers and sizes that cannot be used; a teacher of other classes.

    >>> from reidlib.embedders.resnet import Embedder
    >>> heads = [dict(dimensions=16, norm="batch", dropout=p) for p in (0.5, 0.75)]
    >>> method = DGNet(Embedder(5, width=8, last_stride=1, pool="max", heads=heads), preset="smoke",
    ...                feed_generated=False)
    >>> appearance, structure = torch.zeros(2, 2, 3, 64, 32)
    >>> method.generate(appearance, structure).shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(
        self, encoder: nn.Module, teacher: nn.Module | None = None, *, preset: str = "course", **switches: Any
    ) -> None:
        chosen = blocks.choose_preset(PRESETS, locals())
        super().__init__()
        blocks.check_choices(CHOICES, chosen)
        self._teacher = None if teacher is None else Frozen(teacher)  # no part of the state
        self.settings = chosen | {"teacher": "none" if teacher is None else f"weights {weights_digest(teacher)}"}
        self.deviations = blocks.deviations(self.settings, PAPER)
        w, units = chosen["width"], chosen["units"]
        self.E_s = StructureEncoder(w, units, tuple(chosen["dilations"]))
        self.E_s.check_size(chosen["image_size"])
        self.E_a = AppearanceEncoder(copy.deepcopy(encoder), chosen["enlarge_up_to"])
        code, heads = self._look(self.E_a)
        of_decoder = {name: chosen[name] for name in ("mlp_width", "kernel", "slices", "code_scale")}
        self.G = Decoder(code.shape[1], width=w, units=units, **of_decoder)
        self.D = MultiScaleDiscriminator(chosen["discriminator_width"], units)
        self.n_classes = heads[0].logits.shape[1]
        self._check_teacher()

    def _look(self, network: nn.Module) -> Any:
        """Return what a network makes of one image, wherever it lies."""
        with evaluating(network), torch.no_grad():
            return network(next(network.parameters()).new_zeros(1, 3, *self.settings["image_size"]))

    def _check_teacher(self) -> None:
        style, used = self.settings["teacher_style"], self.settings["feed_generated"] and self.settings["use_prim"]
        if self._teacher is None and used and style not in ALONE:
            others = f"a style without one {ALONE}, or use_prim=False"
            raise ValueError(f"teacher_style={style!r} needs a teacher; give one, or {others}")
        if self._teacher is not None:
            found = blocks.logits_of(self._look(self._teacher.on(next(self.parameters()).device))).shape[1]
            if found != self.n_classes:
                raise ValueError(f"the teacher tells {found} identities apart and E_a {self.n_classes}: must agree")

    def optimizers(self) -> blocks.Optimizers:
        """Give Adam for "D" and for "G" (with E_s), SGD (or Adam) for "E_a"."""
        options = dict(betas=(0.0, 0.999), weight_decay=5e-4)
        adam = partial(blocks.adam, lr=self.settings["lr"], schedule=self.schedule, **options)
        network, rate = self.E_a.network, self.settings["lr_encoder"]
        old, new = ([p for p in part.parameters() if p.requires_grad] for part in (network.backbone, network.heads))
        groups = [{"params": old}, {"params": new, "lr": 10 * rate}]
        of_encoder = torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
        if self.settings["encoder_optimizer"] == "adam":
            of_encoder = torch.optim.Adam(old + new, rate, weight_decay=5e-4)
        return {"D": adam(self.D), "G": adam((self.E_s, self.G)), "E_a": (old + new, of_encoder, self.schedule)}

    def schedule(self, step: int) -> float:
        """Return the factor of all learning rates at a step, from 0."""
        return 0.1 ** sum(step >= round(share * self.settings["steps"]) for share in self.settings["milestones"])

    def weights(self, step: int) -> tuple[float, float, float, float]:
        r"""Return the weights $(w_1, w_2, w_c, w_t)$ of the two code, cycle and teacher losses at a step, from 0.

        $$w = \min(\lambda, \max(0, (i - i_0) / n))$$

        with $i_0$ = `warm_up` and $n$ = `ramp`, in steps. As in the released code a term takes part from the step
        *after* the one at which its weight leaves 0, and the weight $w_B = \alpha w_t$ of head 2 on real images is the
        step before's.
        """
        chosen = self.settings
        start, length = round(chosen["warm_up"] * chosen["steps"]), max(1, round(chosen["ramp"] * chosen["steps"]))
        grown = max(0.0, (step - start) / length)
        return tuple(min(chosen[f"lambda_{name}"], grown) for name in ("code1", "code2", "cyc", "teacher"))

    def training_step(self, batch: Mapping[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        """Take D's step, then that of G and E_s, then E_a's, on a batch of `two_pair_batches`.

        Returns:
            every term of the step, unweighted and summed over both sides, by the names of this module's head ("L_id^s
            positives" apart; those whose weight is still 0 are left out), "D penalty", and the totals "D", "G", "E_a".

        Raises:
            ValueError: a batch that is not of two pairs, of another size, with a single row or labels that E_a does not
                know, or without masks where `foreground_weight` needs them.
        """
        seen, chosen = self._read(batch), self.settings
        (w_1, w_2, w_c, w_t), before = self.weights(step), self.weights(step - 1)
        with torch.no_grad():
            f_a, f_b, f_a_positive, f_b_positive = real_codes = self._codes(seen.clean)
        self.G.learn_scale(torch.cat(real_codes))
        structure = self.E_s(seen.grey)  # of a, then of b
        shapes, scenes = (
            None if each is None else torch.cat([*reversed(each.chunk(2)), each, each])
            for each in (structure, seen.scene)
        )
        codes = torch.cat([f_a, f_b, f_a, f_b, f_a_positive, f_b_positive])
        swapped, own, positive = self.draw(shapes, codes, scenes).chunk(3)  # x_ba, x_ab | x_aa, x_bb | x_aa+, x_bb+
        terms = self._discriminate(seen.real, swapped.detach())
        update("D", terms["D"])
        terms["L_img1"], terms["L_img2"] = (seen.difference(pictures) for pictures in (own, positive))
        terms["L_adv"] = self._adversarial(swapped)
        terms |= self._encode_again(seen, swapped, structure, torch.cat([f_a, f_b]), any(before))
        weights = {"L_img1": chosen["lambda_img"], "L_img2": chosen["lambda_img"], "L_adv": 1.0, "L_code1": w_1,
                   "L_code2": w_2, "L_cyc": w_c, "L_id^c": chosen["lambda_id"]}  # fmt: skip
        terms["G"] = sum(weights[name] * terms[name] for name in weights if name in terms)
        update("G", terms["G"])
        terms |= self._identify(seen, before[3] * chosen["alpha"])
        if before[3] > 0 and chosen["feed_generated"]:
            terms |= self._feed(seen, swapped.detach())
        weights = {"L_id^s": 1.0, "L_id^s positives": 1.0, "L_prim": w_t, "L_fine": w_t * chosen["alpha"]}
        terms["E_a"] = sum(weights[name] * terms[name] for name in weights if name in terms)
        update("E_a", terms["E_a"])
        return terms

    def _read(self, batch: Mapping[str, Tensor]) -> "_Seen":
        wanted = [*(f"{name}images" for name in NAMES), "labels", "other_labels"]
        if missing := [name for name in wanted if name not in batch]:
            found = f"got {', '.join(sorted(batch))}: the batch lacks {', '.join(missing)}"
            raise ValueError(f"DG-Net trains on rows of two pairs (two_pair_batches) with {', '.join(wanted)}, {found}")
        n, *size = batch["images"].shape[0], *batch["images"].shape[2:]
        if tuple(size) != tuple(self.settings["image_size"]) or n < 2:
            accepted = f"two rows and more of {self.settings['image_size']} (height, width)"
            raise ValueError(f"DG-Net trains here on {accepted}, the batch has {n} of {tuple(size)}")
        clean = [normalise(batch.get(f"{name}clean_images", batch[f"{name}images"])) for name in NAMES]
        holes = [normalise(batch[f"{name}images"]) for name in NAMES]
        real = torch.cat(clean[:2])
        weight, scene, shown = torch.ones_like(real[:, :1]), None, grey(real)
        extra, kept = self.settings["foreground_weight"] - 1, self.settings["background"] == "kept"
        if extra > 0 or kept or self.settings["grey_jitter"] > 0:
            role = "foreground_weight above 1" if extra > 0 else "background='kept'" if kept else "grey_jitter above 0"
            masks = [inputs.annotation(batch, f"{name}masks", "a batch", role) for name in NAMES[:2]]
            mask = torch.cat(masks)[:, None].float() / 255
            weight, scene = weight + extra * mask, torch.cat([real, mask], 1) if kept else None
            gain, offset = self.settings["grey_jitter"] * real.new_empty(2, len(real), 1, 1, 1).uniform_(-1, 1)
            shown = shown + mask * (gain * shown + offset)
        return _Seen(clean, holes, real, shown, weight, scene, [batch["labels"], batch["other_labels"]])

    def _codes(self, images: list[Tensor]) -> list[Tensor]:
        """Return codes: raw, by the batch statistics of each entry alone; standardised, by E_a's running statistics."""
        raw = self.settings["code_scale"] == "raw"
        with nullcontext() if raw else evaluating(self.E_a):
            return [self.E_a(each)[0] for each in images]

    def draw(self, structure: Tensor, code: Tensor, scene: Tensor | None = None) -> Tensor:
        """Draw; `scene` [B,4,H,W] is the structure image with its mask where the background is kept."""
        pictures = self.G(structure, code).float()
        return pictures if scene is None else torch.lerp(scene[:, :3], pictures, scene[:, 3:])

    def _discriminate(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return D's loss, both sides together, with its penalty, in float32."""
        kind = self.settings["gan_loss"]
        with torch.autocast(real.device.type, enabled=False):
            real = real.detach().requires_grad_()
            reals, fakes = self.D(real), self.D(fake)
            loss = sum(discriminator_loss(r, f, kind, factor=1.0) for r, f in zip(reals, fakes, strict=True))
            probabilities = [scores.sigmoid() if kind == "vanilla" else scores for scores in reals]
            penalty = self.settings["lambda_penalty"] * sum(gradient_penalty(p, real) for p in probabilities)
        return {"D": 2 * (loss + penalty), "D penalty": 2 * penalty}

    def _adversarial(self, swapped: Tensor) -> Tensor:
        kind = self.settings["gan_loss"]
        factor = 2 if kind == "least_squares" else 1
        return 2 * factor * sum(adversarial_loss(scores, True, kind) for scores in self.D(swapped))

    def _encode_again(
        self, seen: "_Seen", swapped: Tensor, structure: Tensor, codes: Tensor, late: bool
    ) -> dict[str, Tensor]:
        """Return L_id^c, and once they have weights the code and cycle terms."""
        terms, chosen = {}, self.settings
        looks = [blocks.as_frozen_copy(self.E_a, pictures) for pictures in swapped.chunk(2)]
        if chosen["use_id"]:
            pairs = zip(looks, seen.labels, strict=True)
            terms["L_id^c"] = sum(cross_entropy(heads[0].logits, labels) for (_, heads), labels in pairs)
        if late:
            again = [f for f, _ in looks] if chosen["code_scale"] == "raw" else self._codes([*swapped.chunk(2)])
            again = torch.cat(again)  # f' of a, of b, by the statistics of f
            pictures = torch.cat([*reversed(swapped.chunk(2))])  # with the structure of a, then of b
            kind = chosen["re_encoding"]
            if kind == "frozen" or (kind == "either" and torch.rand((), generator=seeded(torch.initial_seed())) < 0.5):
                structure_again = blocks.as_frozen_copy(self.E_s, grey(pictures))
            else:
                structure_again = self.E_s(grey(pictures.detach()))
            terms["L_code1"] = 2 * F.l1_loss(again if chosen["code_gradient"] else again.detach(), codes)
            terms["L_code2"] = 2 * F.l1_loss(structure_again.float(), structure.detach().float())
            if chosen["use_cycle"]:
                terms["L_cyc"] = seen.difference(self.draw(structure_again, again.detach(), seen.scene))
        return terms

    def _identify(self, seen: "_Seen", weight: float) -> dict[str, Tensor]:
        """Return L_id^s of the anchors (head 2 by `weight`) and of the positives."""
        heads = [self.E_a(images)[1] for images in seen.holes]  # of a, b, a+, b+
        first, second = (
            [cross_entropy(h[i].logits, y) for h, y in zip(heads, 2 * seen.labels, strict=True)] for i in (0, 1)
        )
        return {"L_id^s": sum(first[:2]) + weight * sum(second[:2]), "L_id^s positives": sum(first[2:])}

    def _feed(self, seen: "_Seen", swapped: Tensor) -> dict[str, Tensor]:
        """Return L_prim and L_fine of the pictures, which E_a sees in training mode."""
        prim, fine = [], []
        for pictures, appearance, structure in zip(swapped.chunk(2), seen.labels, seen.labels[::-1], strict=True):
            first, second = self.E_a(pictures)[1]
            if self.settings["use_prim"]:
                prim.append(distillation_loss(first.logits, self.teacher_label(pictures, appearance, structure)))
            if self.settings["use_fine"]:
                fine.append(cross_entropy(second.logits, structure))
        return {name: sum(values) for name, values in (("L_prim", prim), ("L_fine", fine)) if values}

    @torch.no_grad()
    def teacher_label(self, pictures: Tensor, appearance: Tensor, structure: Tensor) -> Tensor:
        """Return the soft label q that L_prim aims at, by `teacher_style`: float [B,K], each row sums to 1.

        Args:
            pictures: float [B,3,H,W], ImageNet-normalised.
            appearance, structure: int64 [B], whose clothes and whose shape they have.
        """
        style, n_classes = self.settings["teacher_style"], self.n_classes
        if style == "appearance":
            return F.one_hot(appearance, n_classes).float()
        if style == "uniform":
            return pictures.new_full((len(pictures), n_classes), 1 / n_classes)
        network, dropout = self._teacher.on(pictures.device), self.settings["teacher_dropout"]
        views = (enlarged(view, self.settings["enlarge_up_to"]) for view in (pictures, pictures.flip(3)))
        logits = [blocks.logits_of(blocks.as_frozen_copy(network, view, dropout=dropout)) for view in views]
        average = torch.stack(logits).softmax(2).mean(0)
        if style == "argmax":
            return F.one_hot(average.argmax(1), n_classes).float()
        if style == "two_labels":
            average = average * (F.one_hot(appearance, n_classes) + F.one_hot(structure, n_classes))
            return average / average.sum(1, keepdim=True).clamp_min(torch.finfo(average.dtype).tiny)
        return average

    def condition(self, targets: Mapping[str, Tensor], sources: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the images whose structure is wanted, float [B,3,H,W] in [-1, 1].

        Where the background is kept their masks, in [0, 1], are a fourth channel.
        """
        images = normalise(inputs.annotation(targets, "images", "targets", "DG-Net"), "signed")
        if self.settings["background"] == "drawn":
            return images
        masks = inputs.annotation(targets, "masks", "targets", "DG-Net with background='kept'")
        return torch.cat([images, masks[:, None].float() / 255], 1)

    def generate(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the people of `images` (their appearance) in the structure of `condition`; both [B,3,H,W] in [-1, 1].

        `condition` is what the method of that name gives.

        Raises:
            ValueError: another number or size of images than of structures, or one that E_s cannot take.
        """
        return self.interpolate(images, images, condition, 0.0)

    @torch.no_grad()
    def interpolate(self, first: Tensor, second: Tensor, condition: Tensor, share: float) -> Tensor:
        r"""Return pictures whose appearance lies between two: $G(s, (1 - t) f_1 + t f_2)$.

        Args:
            first, second: images that give the appearances, float [B,3,H,W] in [-1, 1].
            condition: images that give the structure, see `condition`.
            share: $t$, 0 for the first and 1 for the second.
        """
        found = list(condition.shape) if isinstance(condition, Tensor) else type(condition).__name__
        kept = self.settings["background"] == "kept"
        wanted = [len(first), 3 + kept, *first.shape[2:]]
        if found != wanted or first.shape != second.shape:
            image = f"structure image{' with its mask [B,4,H,W]' * kept} for each appearance image"
            raise ValueError(f"one {image} {list(first.shape)} and {list(second.shape)} is needed, got {found}")
        self.E_s.check_size(first.shape[2:])
        structure = signed_to_imagenet(condition[:, :3])
        scene = torch.cat([structure, condition[:, 3:]], 1) if kept else None
        with evaluating(self):
            code = self.E_a(signed_to_imagenet(first))[0]
            if share != 0:
                code = torch.lerp(code, self.E_a(signed_to_imagenet(second))[0], share)
            return imagenet_to_signed(self.draw(self.E_s(grey(structure)), code, scene))

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        r"""Return the test features [B, 2D] of images uint8 [B,3,H,W]: f_prim, then f_fine, each of length 1.

        $$u(u(e(x)) + u(e(\text{mirrored } x)))$$

        of both heads' $e$, where $u$ scales to length 1. `fuse` weighs the halves.
        """
        pixels = normalise(images)
        with evaluating(self):
            views = [[F.normalize(head.feature) for head in self.E_a(view)[1]] for view in (pixels, pixels.flip(3))]
        return torch.cat([F.normalize(plain + mirrored) for plain, mirrored in zip(*views, strict=True)], dim=1)


class _Seen(NamedTuple):
    """A batch as the losses see it; lists are of a, b, a+, b+."""

    clean: list[Tensor]
    holes: list[Tensor]  # with random erasing
    real: Tensor  # a, then b
    grey: Tensor  # of them, as E_s sees it
    weight: Tensor  # of their pixels
    scene: Tensor | None  # [2B,4,H,W]: real and masks, where the background is kept
    labels: list[Tensor]  # of a, of b

    def difference(self, pictures: Tensor) -> Tensor:
        """Return the weighted L1 difference of pictures from the anchors, summed over both sides."""
        return 2 * masked_l1(pictures, self.real, self.weight, normalise_by_mask_area=True)


augment_pairs = compose(flip, partial(pad_crop, edge=True), partial(erase, keep_clean=True), joint=False)


def train_dg_net(
    images: PersonImages,
    encoder: nn.Module,
    teacher: nn.Module | None = None,
    teacher_pids: Iterable[int] = (),
    *,
    batch_size: int | None = None,
    distinct: bool = False,
    augment: Augment = augment_pairs,
    **options: Any,
) -> tuple[DGNet, History]:
    """Train encoder, decoder and discriminator together and return the method with its history.

    Args:
        images: the training set; generated images without a label take no part.
        encoder, teacher: see `DGNet`; both classify the set's identities, numbered in sorted order.
        teacher_pids: the identities that the teacher was trained on, needed with a teacher. Others, though as many,
            would be numbered alike, and its soft labels would name wrong people without an error.
        batch_size: rows in a batch; default 8, as published (smoke 4).
        distinct: the two anchors of a row show two persons; the released code does not see to it.
        augment: each image by a draw of its own; default flip, shifted crop with its border repeated, and erasing whose
            clean images are kept.
        options: further arguments of `DGNet` (preset, the switches) and of `train_generator`: images_seen, the length
            of the training in rows of two pairs (four images each), always; seed, device, run_dir, ema and so on.

    Raises:
        ValueError: an encoder of another number of identities, a teacher of others; see `DGNet`, `two_pair_batches`.
    """
    known, wanted = ({int(pid) for pid in pids if pid >= 0} for pids in (teacher_pids, images.pids))
    if teacher is not None and known != wanted:
        found = f"{len(known)} identities (teacher_pids), {len(known & wanted)} of them among the set's {len(wanted)}"
        raise ValueError(f"the teacher was trained on {found}: they must be the same")
    preset = options.pop("preset", "course")
    switches = {name: options.pop(name) for name in list(options) if name in PAPER}
    batch_size = batch_size or (4 if preset == "smoke" else 8)

    def build(steps: int) -> DGNet:
        method = DGNet(encoder, teacher, preset=preset, steps=steps, **switches)
        if method.n_classes != len(wanted):
            raise ValueError(f"the set shows {len(wanted)} identities, E_a tells {method.n_classes} apart")
        return method

    facts = {"batch_size": batch_size, "distinct": distinct, "preset": preset, **switches}
    sampler = two_pair_batches(images.pids, batch_size, distinct=distinct)
    return train_generator(build, images, sampler, augment=augment, **{"settings": facts} | options)
