r"""SAN: an image with its mask and parse map, and another mask and parse map, go in; the person in that pose comes out.

Liu, Wang, Ji and Ge, "Person Image Generation with Semantic Attention Network for Person Re-identification". With the
source image $I_{ps}$ and, of source and target, the person's mask $M$ and the 20 maps $S$ of a LIP parsing:

$$\hat I_{pt} = G(I_{ps}, M_{ps}, S_{ps};\; M_{pt}, S_{pt}), \qquad
L_{full} = \alpha L_{adv} + \beta L_{\ell 1} + \gamma L_{perc}$$

The target's parse map is the true one, and nothing in the method predicts it: that of another person carries their
clothes' layout (sleeves, skirt or trousers) into the picture.
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.datasets.parsing import one_hot
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import seeded, target_pairs, usable_pairs
from reidlib.generators import blocks, inputs
from reidlib.losses.adversarial import adversarial_loss, discriminator_loss
from reidlib.losses.perceptual import layers_of, perceptual_loss
from reidlib.networks import Frozen, evaluating, normal_init

MAPS = 21  # mask and 20 classes
CHOICES = {
    "mask_sign": (1, -1),
    "transfer": ("semantic", "appearance"),
    "sem_operand": ("convolved", "raw"),
    "fake_cond": ("source", "target"),
    "decay": ("after", "from_start"),
    "background": inputs.BACKGROUNDS,
    "p": (1, 2),
}
WEIGHTS = {"L_adv": "alpha", "L_l1": "beta", "L_perc": "gamma"}
BATCH = {"market1501": 32, "deepfashion": 8}  # pairs in a batch, as published
EPOCH = 4000  # pairs, of the relatives; 300 (500) epochs at a constant rate are printed, the fall after them is ours
PAPER = dict(
    image_size=(128, 64), width=64, discriminator_width=64, n_blocks=5, use_mask=True, mask_image=False, mask_sign=1,
    transfer="semantic", sem_operand="convolved", conditional=True, fake_cond="source", score="map", alpha=10.0,
    beta=15.0, gamma=5.0, use_perceptual=True, layer="relu1_2", p=2, relative=False, guide_shift=0,
    foreground_weight=1.0, background="target", lr=2e-4, epochs=300, n_decay=100, decay="after",
    steps=400 * EPOCH // 32,
)  # fmt: skip
DATASETS = {  # what is other than for Market-1501
    "market1501": {},
    "deepfashion": dict(image_size=(256, 256), alpha=15.0, beta=1.0, epochs=500, n_decay=200, steps=700 * EPOCH // 8),
}
SIZES = {"market1501": (64, 32), "deepfashion": (64, 64)}  # of the course
# a small re-ID network in VGG's place: all its stages, each relative to its own scale; alpha and lr were chosen on
# validation people after 4,000 pairs
_COURSE = dict(layer=None, p=1, relative=True, foreground_weight=4.0, alpha=1.0, lr=1e-3)
PRESETS = {
    "smoke": _COURSE | dict(width=4, discriminator_width=4, n_blocks=2, steps=30),
    "course": _COURSE | dict(width=12, discriminator_width=8, n_blocks=3, steps=1000),
    "paper": {},
}
_layers = partial(blocks.convolution, slope=0.2)


class SemanticAttentionBlock(nn.Module):
    r"""One semantic attention block: a mask from the semantic code, then both codes anew.

    $$S_t = B(F_{pt}^{t-1}), \quad M_t = \sigma(S_t) \;(1), \quad
    F_{ps}^t = M_t \odot F_{pt}^{t-1} + F_{ps}^{t-1} \;(2), \quad
    F_{pt}^t = \mathrm{Conv}(S_t \,\Vert\, F_{ps}^t) \;(3)$$

    $B$ is two 3x3 convolutions with normalisation and a plain third one. Equation 3 already sees the new $F_{ps}^t$.

    Args:
        channels: of both codes and of the mask.
        mask_sign: 1 for the sigmoid of the text; -1 for equation 1 as printed, $1/(1 + e^{S_t})$.
        transfer: what the mask of equation 2 is laid on: "semantic" as printed; "appearance", $B'(F_{ps}^{t-1})$.
        sem_operand: what equation 3 joins: "convolved" $S_t$ as the text says, or "raw" $F_{pt}^{t-1}$ as printed.

    >>> appearance, semantic, mask = SemanticAttentionBlock(8)(torch.zeros(2, 8, 16, 8), torch.zeros(2, 8, 16, 8))
    >>> appearance.shape, semantic.shape, mask.shape
    (torch.Size([2, 8, 16, 8]), torch.Size([2, 8, 16, 8]), torch.Size([2, 8, 16, 8]))
    """

    def __init__(
        self, channels: int, *, mask_sign: int = 1, transfer: str = "semantic", sem_operand: str = "convolved"
    ) -> None:
        super().__init__()
        blocks.check_choices(CHOICES, dict(mask_sign=mask_sign, transfer=transfer, sem_operand=sem_operand))
        self.mask_sign, self.sem_operand = mask_sign, sem_operand
        two = [*_layers(channels, channels), *_layers(channels, channels)]
        self.B = nn.Sequential(*two, nn.Conv2d(channels, channels, 3, 1, 1))
        moved = nn.Sequential(*_layers(channels, channels), *_layers(channels, channels)[:-1])
        self.B_appearance = moved if transfer == "appearance" else None
        self.conv = _layers(2 * channels, channels)

    def forward(self, appearance: Tensor, semantic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take $F_{ps}^{t-1}$ and $F_{pt}^{t-1}$, give $F_{ps}^t$, $F_{pt}^t$ and $M_t$, all [B,C,h,w]."""
        code = self.B(semantic)
        mask = (self.mask_sign * code).sigmoid()
        operand = semantic if self.B_appearance is None else self.B_appearance(appearance)
        appearance = mask * operand + appearance
        joined = code if self.sem_operand == "convolved" else semantic
        return appearance, self.conv(torch.cat([joined, appearance], dim=1)), mask


class Codes(NamedTuple):
    """What the blocks make, to look at: codes 0 to T, each [B,4 width,H/4,W/4], and T masks in (0, 1)."""

    appearance: list[Tensor]
    semantic: list[Tensor]
    masks: list[Tensor]


class SemanticAttentionGenerator(nn.Module):
    """Two encoders, T attention blocks, three halvings of both codes, and a decoder that meets them on its way up.

    Args:
        channels: of the appearance pathway and of the semantic one.
        width: channels of the first and the last layers; the codes have 4 times as many.
        n_blocks: T, 5 as published.
        options: of each `SemanticAttentionBlock`.

    >>> network = SemanticAttentionGenerator(width=4, n_blocks=2)
    >>> network(torch.zeros(2, 24, 64, 32), torch.zeros(2, 21, 64, 32)).shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(
        self, channels: tuple[int, int] = (24, 21), *, width: int = 64, n_blocks: int = 5, **options: object
    ) -> None:
        super().__init__()

        def encoder(ins: int) -> nn.Sequential:
            halved = [*_layers(width, 2 * width, stride=2), *_layers(2 * width, 4 * width, stride=2)]
            return nn.Sequential(*_layers(ins, width, 7, pad="reflect"), *halved)

        def halvings() -> nn.ModuleList:
            sizes = (4 * width, 8 * width, 8 * width, 8 * width)
            return nn.ModuleList(_layers(ins, outs, stride=2) for ins, outs in pairwise(sizes))

        self.encoder_a, self.encoder_s = (encoder(ins) for ins in channels)
        self.blocks = nn.ModuleList(SemanticAttentionBlock(4 * width, **options) for _ in range(n_blocks))
        self.conv_a, self.conv_s = halvings(), halvings()
        sizes = ((16, 8), (24, 8), (24, 4), (12, 2), (2, 1))  # in widths; what comes in holds both pathways' maps
        self.decoder = nn.ModuleList(blocks.doubling(ins * width, outs * width) for ins, outs in sizes)
        self.last = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    @staticmethod
    def check_size(image_size: tuple[int, int]) -> None:
        """Raise ValueError where height and width are no multiples of 32."""
        if any(side % 32 or side < 32 for side in image_size):
            raise ValueError(f"height and width must be multiples of 32, got {'x'.join(map(str, image_size))}")

    def codes(self, appearance: Tensor, semantic: Tensor) -> Codes:
        """Return the codes of inputs [B,24,H,W] and [B,21,H,W] before and after every block, and the blocks' masks."""
        self.check_size(appearance.shape[-2:])
        a, s, masks = [self.encoder_a(appearance)], [self.encoder_s(semantic)], []
        for block in self.blocks:
            for kept, new in zip((a, s, masks), block(a[-1], s[-1]), strict=True):
                kept.append(new)
        return Codes(a, s, masks)

    def decode(self, appearance: Tensor, semantic: Tensor) -> Tensor:
        """Return images [B,3,H,W] in [-1, 1] of the last codes [B,4 width,H/4,W/4]."""
        met = [torch.cat([appearance, semantic], dim=1)]
        for down_a, down_s in zip(self.conv_a, self.conv_s, strict=True):
            appearance, semantic = down_a(appearance), down_s(semantic)
            met.append(torch.cat([appearance, semantic], dim=1))
        y = met.pop()  # [B,16 width,H/32,W/32]
        for up in self.decoder:
            y = up(y)
            y = torch.cat([y, met.pop()], dim=1) if met else y
        return self.last(y)

    def forward(self, appearance: Tensor, semantic: Tensor) -> Tensor:
        """Return images [B,3,H,W] in [-1, 1]; H and W must be multiples of 32."""
        codes = self.codes(appearance, semantic)
        return self.decode(codes.appearance[-1], codes.semantic[-1])


class SAN(nn.Module):
    r"""The generator and the discriminator of SAN, and how they are trained.

    $$L_{full} = \alpha L_{adv} + \beta L_{\ell 1} + \gamma L_{perc} \quad (7), \qquad
    L_{\ell 1} = \lVert I_{pt} - \hat I_{pt} \rVert_1 \quad (5), \qquad
    L_{perc} = \tfrac{1}{CHW} \lVert \phi(\hat I_{pt}) - \phi(I_{pt}) \rVert_2^2 \quad (6)$$

    $$L_D = \tfrac12 \big( -\log D(I_{ps}, I_{pt}) - \log(1 - D(I_{ps}, \hat I_{pt})) \big)$$

    $L_{adv}$ in the non-saturating form. G steps first, then D on the same generated images.

    Args:
        preset: "smoke", "course" or "paper", a row of `PRESETS`; `PAPER` has what neither it nor the caller gives.
        dataset: "market1501" (128x64, weights 10, 15, 5) or "deepfashion" (256x256, weights 15, 1, 5).
        guide: a trained network whose feature maps $\phi$ are compared: VGG-19 as published
            (`losses.vgg19(your weights)`), or a backbone with a `stem` and `stages`, trained on the generator's own
            training identities. It is copied, frozen, and no part of the state.
        switches: anything that `PAPER` names:
        use_perceptual: False leaves $L_{perc}$ out ($\gamma = 0$), and no guide is needed.
        use_mask: False leaves the masks out of both pathways (23 and 20 channels) and reads none: where a person must
            be told from the background (`foreground_weight`, `mask_image`), the parse map says it.
        n_blocks, mask_sign, transfer, sem_operand: see `SemanticAttentionGenerator` and `SemanticAttentionBlock`.
        mask_image: the source image is multiplied by its mask, too.
        conditional: D sees the source image beside the candidate (6 channels, else 3).
        fake_cond: what D sees beside a generated image: the "source", as beside the real one, or the "target", as
            equation 4 is printed.
        score: of D, see `blocks.ResidualDiscriminator`.
        alpha, beta, gamma: weights.  p, relative, guide_shift: see `perceptual_loss` (shift).
        layer: of the guide; where it is not given and the guide has no "relu1_2", all its stages.
        width, discriminator_width: channels of the first layers, 64.
        image_size: (height, width) it is trained at, multiples of 32.
        steps: length of the training; in the paper preset default epochs + n_decay epochs of 4,000 pairs.
        lr: of both Adams.
        epochs, n_decay: the rate is constant for the share epochs / (epochs + n_decay) of the steps, then falls in a
            straight line to 0.
        decay: "from_start": the training has `epochs` epochs (n_decay is 0), and the rate falls through all of it.
        foreground_weight: see `inputs.foreground_l1`; 1 as published.
        background: "target" as published; "source": what the picture is to show around the person is the source's, see
            `inputs.wanted_images`; D then sees the source's person alone.

    Attributes:
        settings: every choice above, as a dictionary for the records; "features" names the guide.
        deviations: those that are not the published ones or this library's reading of them.

    Raises:
        TypeError: a guide that is not a network.
        ValueError: for names that are not known, sizes that the networks cannot take, n_decay where the rate falls
            from the start.

    >>> method = SAN(preset="smoke")
    >>> people = {"parsing": torch.zeros(2, 64, 32, dtype=torch.uint8)}
    >>> method.generate(torch.zeros(2, 3, 64, 32), method.condition(people, people)).shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(
        self, *, preset: str = "course", dataset: str = "market1501", guide: nn.Module | None = None, **switches: Any
    ) -> None:
        given = locals()
        check_choice("dataset", dataset, DATASETS)
        paper = PAPER | DATASETS[dataset]
        small = paper | {"image_size": SIZES[dataset]}
        chosen = blocks.choose_preset({n: (small if own else paper) | own for n, own in PRESETS.items()}, given)
        super().__init__()
        blocks.check_choices(CHOICES, chosen)
        if not chosen["use_perceptual"]:
            chosen["gamma"], guide = 0.0, None
        if chosen["decay"] == "from_start":
            if switches.get("n_decay"):
                raise ValueError("decay='from_start' reaches 0 after `epochs` epochs: n_decay cannot be given")
            chosen["n_decay"] = 0
        if preset == "paper" and switches.get("steps") is None:
            chosen["steps"] = (chosen["epochs"] + chosen["n_decay"]) * EPOCH // BATCH[dataset]
        self._guide = None if guide is None else Frozen(guide)  # no part of the state
        if guide is not None and switches.get("layer") is None and chosen["layer"] not in layers_of(guide):
            chosen["layer"] = None
        self.settings = chosen | {"features": None if guide is None else type(guide).__name__}
        self.deviations = blocks.deviations(self.settings, paper | {"features": "VGG"})
        options = {name: chosen[name] for name in ("width", "n_blocks", "mask_sign", "transfer", "sem_operand")}
        self.G = SemanticAttentionGenerator((24, 21) if chosen["use_mask"] else (23, 20), **options)
        options = dict(width=chosen["discriminator_width"], score=chosen["score"])
        self.D = blocks.ResidualDiscriminator(6 if chosen["conditional"] else 3, **options)
        self.G.check_size(chosen["image_size"])
        self.apply(normal_init)

    def optimizers(self) -> blocks.Optimizers:
        """Give Adam for "G" and for "D", both with `schedule`."""
        return blocks.adams(self.settings["lr"], self.schedule, G=self.G, D=self.D)

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0."""
        epochs, falling = self.settings["epochs"], self.settings["n_decay"]
        constant = 0.0 if self.settings["decay"] == "from_start" else epochs / (epochs + falling)
        return blocks.linear_decay(step, self.settings["steps"], constant)

    def training_step(self, batch: Mapping[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        r"""Take G's step, then D's, on a batch of pairs with parsing (and masks, where the set has them).

        Returns:
            "L_adv", "L_l1", "L_perc" (where $\gamma$ is not 0), all unweighted, "L_full" and "D".

        Raises:
            ValueError: a batch without pairs or parsing, of another image size, with masks of another size; a
                perceptual loss without a guide.
        """
        gamma, layer, size = self.settings["gamma"], self.settings["layer"], tuple(self.settings["image_size"])
        source, target = inputs.pair_images(batch, "SAN", "parsing", "target_parsing", image_size=size)
        if gamma and self._guide is None:
            raise ValueError(
                "SAN's perceptual loss needs guide=, a trained network (losses.vgg19 with your weights, or a re-ID "
                "backbone); use_perceptual=False leaves it out"
            )
        wanted = {name: batch.get(f"target_{name}") for name in ("parsing", "masks")}
        condition = self.condition(wanted, batch)
        fake = self.G(*self._inputs(source, condition)).float()
        background = self.settings["background"]
        seen = {"source": source, "target": target}
        if background == "source":  # by its other background D would know the true image beside the whole source
            seen = {name: image * condition[name][:, :1] for name, image in seen.items()}
        beside = seen[self.settings["fake_cond"]]
        terms = {"L_adv": adversarial_loss(self._score(beside, fake), True)}
        pair = {**batch, "masks": 255 * condition["source"][:, 0], "target_masks": 255 * condition["target"][:, 0]}
        terms["L_l1"] = inputs.foreground_l1(fake, pair, self.settings["foreground_weight"], background)
        if gamma:
            options = {"p": self.settings["p"], "relative": self.settings["relative"]}
            options |= {"layers": layer and [layer], "shift": self.settings["guide_shift"]}
            wanted = inputs.where_known(fake, pair, background)
            terms["L_perc"] = perceptual_loss(self._guide.on(fake.device), fake, wanted, **options)
        loss = sum(self.settings[WEIGHTS[name]] * value for name, value in terms.items())
        update("G", loss)
        d_loss = discriminator_loss(self._score(seen["source"], target), self._score(beside, fake.detach()))
        update("D", d_loss)
        return {**terms, "L_full": loss, "D": d_loss}

    def condition(
        self, targets: Mapping[str, Tensor], sources: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return `semantic_maps` of the "source" and of the "target", each float [B,21,H,W].

        Args:
            targets: a batch with `parsing` and, where known, `masks`: the wanted pose and layout of clothes.
            sources: the same of the images that are changed.

        Raises:
            ValueError: a batch or its parsing is missing, a label above 19, masks of another size.
        """
        found = {}
        for name, role, batch in (("source", "sources", sources), ("target", "targets", targets)):
            parsing = inputs.annotation(batch, "parsing", role, "SAN")
            found[name] = semantic_maps(parsing, batch.get("masks") if self.settings["use_mask"] else None)
        return found

    @torch.no_grad()
    def generate(self, images: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Return the people of images [B,3,H,W] in [-1, 1] in the poses that `condition` tells of."""
        with evaluating(self):
            return self.G(*self._inputs(images, condition)).float()

    @torch.no_grad()
    def codes(self, images: Tensor, condition: Mapping[str, Tensor]) -> Codes:
        """Return the blocks' codes and masks on the way from `images` to `generate(images, condition)`."""
        with evaluating(self):
            return self.G.codes(*self._inputs(images, condition))

    def _inputs(self, images: Tensor, condition: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Join image and maps to what the two pathways take."""
        source, target = inputs.both_maps(condition, images, MAPS)
        images = images * source[:, :1] if self.settings["mask_image"] else images
        first = 0 if self.settings["use_mask"] else 1
        return torch.cat([images, source[:, first:]], dim=1), target[:, first:]

    def _score(self, beside: Tensor, candidate: Tensor) -> Tensor:
        return self.D(torch.cat([beside, candidate], dim=1) if self.settings["conditional"] else candidate)


def semantic_maps(parsing: Tensor, masks: Tensor | None = None) -> Tensor:
    """Return the person's mask and the 20 maps of a parsing, float [B,21,H,W] of 0 and 1: $M$, then $S$.

    Args:
        parsing: uint8 [B,H,W], LIP labels 0..19.
        masks: uint8 [B,H,W] from 0 to 255, cut at one half; None: where the label is not background.

    Raises:
        ValueError: a label above 19, masks of another shape or type.

    >>> semantic_maps(torch.tensor([[[0, 13]]], dtype=torch.uint8))[0, [0, 1, 14], 0].tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    maps = one_hot(parsing)
    if masks is None:
        inside = parsing != 0
    elif masks.shape == parsing.shape and masks.dtype == torch.uint8:
        inside = masks > 127
    else:
        raise ValueError(f"masks must be uint8 {list(parsing.shape)}, got {masks.dtype} {list(masks.shape)}")
    return torch.cat([inside[:, None].float(), maps], dim=1)


def usable_images(images: PersonImages) -> Tensor:
    """Return bool [N]: which images may be paired, those with a person in the mask and two classes of the parsing.

    Raises:
        ValueError: a set without parsing, a label above 19.
    """
    if not images.has("parsing"):
        raise ValueError("SAN needs parsing; this set has none (label PNGs in a folder beside the images add it)")
    found = []
    for rows in torch.arange(len(images)).split(64):
        batch = images.batch(rows)
        there = semantic_maps(batch["parsing"], batch.get("masks")).amax((2, 3))  # [b,21]
        found.append((there[:, 0] > 0) & (there[:, 2:].sum(1) >= 2))
    return torch.cat(found)


def san_pairs(train: PersonImages, pairs: str = "all") -> Tensor:
    """List all ordered pairs (source, target) of two usable images of one identity, int64 [P,2].

    Args:
        train: with parsing; see `usable_images`.
        pairs: "all" as published, or "same_camera", see `sampling.usable_pairs`.

    Raises:
        ValueError: another name; a set without parsing; no identity with two usable images.

    >>> parsing = torch.tensor([[[5, 9]], [[5, 13]], [[0, 5]]], dtype=torch.uint8)
    >>> people = PersonImages(torch.zeros(3, 3, 1, 2, dtype=torch.uint8), [7] * 3, [1, 2, 2], parsing=parsing)
    >>> san_pairs(people).tolist()
    [[0, 1], [1, 0]]
    """
    return usable_pairs(train, usable_images(train), pairs)


def augmentation_pairs(train: PersonImages, alpha: int, *, seed: int = 0) -> Tensor:
    r"""Draw $\alpha - 1$ targets for each image, so that the generated images make the set $\alpha$ times as large.

    Targets are usable images of anybody, never the image itself, without replacement for one image.

    Args:
        train: with parsing.
        alpha: whole number of at least 1; 1 draws none.
        seed: of the draw.

    Returns:
        int64 [(alpha - 1) N, 2], source and target, image after image, for `experiments.augmented(..., pairs=)`.

    Raises:
        ValueError: another alpha, a set without parsing, too few targets.
    """
    if not isinstance(alpha, int) or alpha < 1:
        raise ValueError(f"alpha must be a whole number of at least 1, got {alpha!r}")
    sources = torch.arange(len(train)).repeat_interleave(alpha - 1)
    return target_pairs(sources, usable_images(train).nonzero().flatten(), seeded(seed, 8))
