r"""Camera transfer with paired GANs: pix2pix's U-Net and the thesis's models 1-4.

| model | generator sees | discriminator sees, before the candidate | losses | identities in camera b |
|---|---|---|---|---|
| 1 | x | x | cGAN + 100 L1 | needed |
| 2 | x, mask of x | x, mask of x | cGAN + 100 L1 | needed |
| 3 | x, mask of x, mask of y | x, mask of x, mask of y | cGAN + 100 L1 | needed |
| 4 | x | x with its person masked out | cGAN + 70 foreground + 30 background | not needed |

Kolbeinsson, master's thesis, 2019; Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks",
CVPR 2017, whose released defaults are the paper preset. The discriminator is `blocks.PatchDiscriminator`.

`train_transfer(train, 5, 6)` learns to move images of camera 5 to camera 6; `transfer(method, train, 5, 6)` moves them.
"""

import copy
import inspect
from collections.abc import Mapping
from functools import partial
from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.datasets.augment import PREFIXES, Batch, crop, flip
from reidlib.datasets.camera_pairs import camera_pair, random_targets
from reidlib.datasets.contract import check_size
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import seeded
from reidlib.generators import blocks, inputs
from reidlib.generators.synthesis import synthesise, train_generator
from reidlib.losses.adversarial import adversarial_loss, discriminator_loss, right_answers
from reidlib.losses.reconstruction import CONDITION_MASKS, masked_condition, static_losses, variable_losses
from reidlib.networks import evaluating, normal_init
from reidlib.training import History

VARIANTS = ("static", "variable")
MASKS_SEEN = {1: 0, 2: 1, 3: 2, 4: 0}  # person masks in the generator's input
WEIGHTS = {"G_GAN": "lambda_gan", "L1": "lambda_l1", "L_fg": "lambda_fg", "L_bg": "lambda_bg"}
PRESETS = {
    "smoke": dict(image_size=(64, 32), width=8, lambda_gan=0.3, smooth=True, lr=4e-4, constant=0.5),
    "course": dict(image_size=(64, 32), width=16, lambda_gan=0.3, smooth=True, lr=4e-4, constant=0.5),
    "paper": dict(image_size=(256, 256), width=64, lambda_gan=1.0, smooth=False, lr=2e-4, constant=1.0),
}
PAPER = PRESETS["paper"] | dict(
    lambda_l1=100.0, lambda_fg=70.0, lambda_bg=30.0, normalise_by_mask_area=False, mask_threshold=None,
    stochastic_test=False,
)  # fmt: skip


class Smooth(nn.Module):
    """The filter [1, 2, 1] along rows and columns: takes away the checkerboard that doublings leave, and no more.

    >>> Smooth()(torch.tensor([[[[1.0, -1.0] * 3] * 4]])).abs().max().item() < 0.6
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 1)


class UNet(nn.Module):
    r"""pix2pix's generator: halvings down to a point, doublings back, and each map handed across to its twin.

    All convolutions are 4x4 with stride 2. With $n = \log_2 \min(H, W)$ halvings the widths are w, 2w, 4w, 8w, 8w...;
    the $n - 5$ doublings after the innermost one have dropout 0.5 (none where a side has 32 pixels).

    Args:
        channels: of the input.
        image_size: (height, width), both divisible by $2^n$.
        width: w, 64 as published.
        smooth: put the last doubling through `Smooth`; not in the published network.

    Raises:
        ValueError: a size of fewer than 5 halvings, or that n of them do not divide.

    >>> UNet(3, (64, 32), width=8)(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(self, channels: int, image_size: tuple[int, int], *, width: int = 64, smooth: bool = False) -> None:
        super().__init__()
        n = int(log2(min(image_size)))
        if n < 5 or any(side < 1 or side % 2**n for side in image_size):
            raise ValueError(
                f"a U-Net with {n} halvings does not fit {image_size[0]}x{image_size[1]} images: it takes at least 5, "
                f"and a height and width divisible by {2**n}"
            )
        self.image_size = tuple(image_size)
        widths = [width * min(2**i, 8) for i in range(n)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, outs in enumerate(widths):
            layers = [nn.LeakyReLU(0.2)] if i else []
            layers.append(nn.Conv2d(widths[i - 1] if i else channels, outs, 4, 2, 1, bias=False))
            layers += [nn.BatchNorm2d(outs)] if 0 < i < n - 1 else []
            self.down.append(nn.Sequential(*layers))
        for i in reversed(range(1, n)):  # from the innermost doubling outwards
            ins = widths[i] if i == n - 1 else 2 * widths[i]
            outs = widths[i - 1]
            layers = [nn.ReLU(), nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=False), nn.BatchNorm2d(outs)]
            layers += [nn.Dropout(0.5)] if 4 <= i < n - 1 else []
            self.up.append(nn.Sequential(*layers))
        last = [nn.ReLU(), nn.ConvTranspose2d(2 * width, 3, 4, 2, 1), *([Smooth()] if smooth else []), nn.Tanh()]
        self.up.append(nn.Sequential(*last))

    def forward(self, x: Tensor) -> Tensor:
        """Return images [B,3,H,W] in [-1, 1]; H and W are those of `image_size`."""
        if tuple(x.shape[2:]) != self.image_size:
            raise ValueError(f"this U-Net is for images of {self.image_size} (height, width), got {tuple(x.shape[2:])}")
        maps = []
        for layer in self.down:
            x = layer(x)
            maps.append(x)  # [B, w * 2^i, H / 2^(i+1), W / 2^(i+1)]
        x = self.up[0](maps.pop())
        for layer in self.up[1:]:
            x = layer(torch.cat([maps.pop(), x], dim=1))
        return x


class CameraTransfer(nn.Module):
    r"""One of the thesis's four models: what an image x of camera a would look like in camera b.

    $$L_D = \tfrac12 \big(-\log D(c, y) - \log(1 - D(c, G(x)))\big), \qquad
      L_G = -\lambda_{GAN} \log D(c, G(x)) + \begin{cases} \lambda_{L1} \|y - G(x)\|_1 & \text{models 1-3 (5)} \\
      \lambda_{fg} L_{fg} + \lambda_{bg} L_{bg} & \text{model 4 (9, 13)} \end{cases}$$

    y is an image of camera b (the same person, but in model 4's static variant, where it may be anybody) and c the
    discriminator's condition. D takes its step first. Batches are of pairs, with masks where a model needs them.

    Args:
        model: 1, 2, 3 or 4.
        variant: of model 4, "static" (eqs. 6-9) or "variable" (eqs. 10-13: c = x, and y shows the same person).
        lambda_l1, lambda_fg, lambda_bg: weights of the reconstruction.
        condition_mask: of the static variant's condition, see `losses.masked_condition`.
        normalise_by_mask_area: divide model 4's terms by the area of their masks, see `losses.masked_l1`.
        mask_threshold: make masks hard at this value of 0..1; None keeps their soft edges.
        stochastic_test: generate as pix2pix's test script does: dropout on, normalisation by each image's own
            statistics. The noise follows `torch.manual_seed`; in whole sets, `seed` (see `synthesis.stream`).
        preset: "smoke", "course" or "paper"; sets the arguments that are None. At a thousand steps of 64x32 images the
            published weights leave grids and mottle, so the first two have `lambda_gan` 0.3 and `smooth`.
        image_size: (height, width) of the networks; paper 256x256, else 64x32.
        width: of G's and D's first layers; paper 64, course 16, smoke 8.  discriminator_width: where D's is another.
        lambda_gan: $\lambda_{GAN}$; 1 in the thesis.
        smooth: see `UNet`; not in the thesis.
        lr: of both Adams, with betas (0.5, 0.999); paper 2e-4, else 4e-4.
        constant: share of the run before the learning rate falls, linearly to 0 at its end; paper 1, else 1/2.
        steps: length of the run, over which the schedule is spread.

    Attributes:
        G, D: the networks.
        settings: every choice above, as a dictionary for the records.
        deviations: those of them that are not as published (D's width where it is not G's).

    Raises:
        ValueError: for a name, number or size that cannot be used.

    >>> method = CameraTransfer(model=3, preset="smoke")
    >>> images = torch.zeros(2, 3, 64, 32, dtype=torch.uint8)
    >>> batch = {"images": images, "masks": images[:, 0]}
    >>> condition = method.condition(batch, batch)
    >>> condition.shape, method.generate(images / 127.5 - 1, condition).shape
    (torch.Size([2, 2, 64, 32]), torch.Size([2, 3, 64, 32]))
    """

    def __init__(
        self,
        *,
        model: int = 4,
        variant: str = "static",
        lambda_l1: float = 100.0,
        lambda_fg: float = 70.0,
        lambda_bg: float = 30.0,
        condition_mask: str = "in_out_inv",
        normalise_by_mask_area: bool = False,
        mask_threshold: float | None = None,
        stochastic_test: bool = False,
        preset: str = "course",
        image_size: tuple[int, int] | None = None,
        width: int | None = None,
        discriminator_width: int | None = None,
        lambda_gan: float | None = None,
        smooth: bool | None = None,
        lr: float | None = None,
        constant: float | None = None,
        steps: int = 1000,
    ) -> None:
        chosen = blocks.choose_preset(PRESETS, locals())
        super().__init__()
        self.settings = chosen
        check_choice("model", model, MASKS_SEEN)
        check_choice(f"variant of model {model}", variant, VARIANTS if model == 4 else VARIANTS[:1])
        check_choice("condition_mask", condition_mask, CONDITION_MASKS)
        chosen["discriminator_width"] = chosen["width"] if discriminator_width is None else discriminator_width
        self.deviations = blocks.deviations(chosen, PAPER | {"discriminator_width": chosen["width"]})
        if mask_threshold is not None and not 0 < mask_threshold <= 1:
            raise ValueError(f"mask_threshold must lie in (0, 1], got {mask_threshold}")
        channels, size = 3 + MASKS_SEEN[model], tuple(chosen["image_size"])
        self.G = UNet(channels, size, width=chosen["width"], smooth=chosen["smooth"])
        self.D = blocks.PatchDiscriminator(channels + 3, width=chosen["discriminator_width"])
        self.apply(normal_init)
        self.model, self.image_size = model, size
        self.register_buffer("trained_for", torch.tensor([model, *size]))  # travels with the weights
        self.register_load_state_dict_pre_hook(_check_weights)

    def optimizers(self) -> blocks.Optimizers:
        """Give Adam for "D" and for "G", both with `schedule`."""
        return blocks.adams(self.settings["lr"], self.schedule, fused=True, D=self.D, G=self.G)

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0."""
        return blocks.linear_decay(step, self.settings["steps"], self.settings["constant"])

    def training_step(self, batch: Mapping[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        """Take D's step, then G's, on a batch of pairs: `images`, `target_images`, and their masks where needed.

        Returns:
            "D", "G_GAN" and, unweighted, "L1" (models 1-3) or "L_fg" and "L_bg" (model 4); `right_answers` of D.

        Raises:
            ValueError: a batch that is not of pairs, lacks masks, or has another image size.
        """
        names = masks_needed(self.model, self.settings["variant"])
        x, y = inputs.pair_images(batch, f"model {self.model}", *names, image_size=self.image_size)
        m_in, m_out = (self._mask(batch[name]) if name in names else None for name in ("masks", "target_masks"))
        seen = [x, *(2 * m - 1 for m in (m_in, m_out)[: MASKS_SEEN[self.model]])]
        fake = self.G(torch.cat(seen, dim=1)).float()
        static = self.model == 4 and self.settings["variant"] == "static"
        context = masked_condition(x, m_in, m_out, self.settings["condition_mask"]) if static else torch.cat(seen, 1)
        scores = [self.D(torch.cat([context, candidate], dim=1)) for candidate in (y, fake.detach())]
        d_loss = discriminator_loss(*scores)
        update("D", d_loss)
        terms = {"G_GAN": adversarial_loss(self.D(torch.cat([context, fake], dim=1)), True)}
        terms |= self._reconstruction(fake, x, y, m_in, m_out)
        update("G", sum(self.settings[WEIGHTS[name]] * value for name, value in terms.items()))
        return {"D": d_loss, **terms, **right_answers(*scores)}

    def condition(
        self, targets: Mapping[str, Tensor] | None = None, sources: Mapping[str, Tensor] | None = None
    ) -> Tensor | None:
        """Return the masks that the generator sees beside the image: [B,1,H,W] (model 2) or [B,2,H,W] in [-1, 1].

        Models 1 and 4 see none (None). The first is the mask of `sources`, model 3's second that of `targets`.

        Raises:
            ValueError: a batch, or its masks, is missing.
        """
        batches = (("sources", sources), ("targets", targets))[: MASKS_SEEN[self.model]]
        masks = [inputs.annotation(batch, "masks", role, f"model {self.model}") for role, batch in batches]
        return torch.cat([2 * self._mask(mask) - 1 for mask in masks], dim=1) if masks else None

    @torch.no_grad()
    def generate(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Move images [B,3,h,w] in [-1, 1] to camera b; `condition` is what `condition` returned.

        Images of another size are resized to the networks' (bicubic, antialiased) and the result is resized back.
        Deterministic, but for `stochastic_test`.

        Raises:
            ValueError: masks that are missing, left over or of another size than the images.
        """
        masks = MASKS_SEEN[self.model]
        found = None if condition is None else list(condition.shape)
        if found != ([len(images), masks, *images.shape[2:]] if masks else None):
            wanted = f"a condition of {masks} masks of the images' size {list(images.shape)}"
            raise ValueError(f"model {self.model} takes {wanted}, got {'none' if found is None else found}")
        x = images if condition is None else torch.cat([images, condition], dim=1)
        x = inputs.resized(x, self.image_size)
        if self.settings["stochastic_test"]:
            network = copy.deepcopy(self.G).train()  # a copy: its running averages move, those of G stay
            out = torch.cat([network(one) for one in x.split(1)])  # the test script has batches of one image
        else:
            with evaluating(self.G):
                out = self.G(x)
        return inputs.resized(out.float(), tuple(images.shape[2:]))

    def _mask(self, masks: Tensor) -> Tensor:
        """Turn masks uint8 [B,H,W] into float [B,1,H,W] from 0 to 1."""
        mask = masks[:, None].float() / 255
        threshold = self.settings["mask_threshold"]
        return mask if threshold is None else (mask >= threshold).float()

    def _reconstruction(
        self, fake: Tensor, x: Tensor, y: Tensor, m_in: Tensor | None, m_out: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the terms that compare images, unweighted."""
        if self.model != 4:
            return {"L1": F.l1_loss(fake, y)}
        options = dict(target_mask=m_out, normalise_by_mask_area=self.settings["normalise_by_mask_area"])
        if self.settings["variant"] == "variable":
            terms = variable_losses(fake, y, **options)
        else:
            terms = static_losses(fake, x, y, source_mask=m_in, **options)
        return {"L_fg": terms.foreground, "L_bg": terms.background}


def masks_needed(model: int, variant: str = "static") -> tuple[str, ...]:
    """Name the masks of a training batch that a model uses.

    >>> masks_needed(2), masks_needed(4, "variable")
    (('masks',), ('target_masks',))
    """
    if model == 4:
        return ("masks", "target_masks") if variant == "static" else ("target_masks",)
    return ("masks", "target_masks")[: MASKS_SEEN[model]]


def _check_weights(method: CameraTransfer, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    stored = state.get(f"{prefix}trained_for")
    own = [method.model, *method.image_size]
    if stored is not None and stored.tolist() != own:
        model, *size = stored.tolist()
        raise ValueError(
            f"these weights are of model {model} for images of {tuple(size)} (height, width), not of model "
            f"{method.model} for {method.image_size}"
        )


SWITCHES = frozenset(inspect.signature(CameraTransfer).parameters) - {"steps"}
SUBSETS = {"all": None, "unpaired": "generate_from_a", "new_ids": "new_ids_from_a"}  # of a `camera_pair`
EPOCHS = 10  # of the thesis
TRAINING = {  # batch size of models 1-3 and of model 4, decay of averaged weights
    "smoke": dict(batch_size={1: 8, 4: 8}, ema=None),
    "course": dict(batch_size={1: 16, 4: 16}, ema=0.99),
    "paper": dict(batch_size={1: 1, 4: 32}, ema=None),
}


def load_pairs(
    batch: Batch,
    draw: torch.Generator,
    *,
    image_size: tuple[int, int] | None = None,
    enlarge: float = 286 / 256,
    p: float = 0.5,
) -> Batch:
    """Load a batch of pairs as pix2pix does: enlarge (bicubic), cut at random, mirror half of them.

    Each pair has its own cut and flip, common to image, partner and both masks. Key points and parsing are left out:
    no model of the thesis uses them.

    Args:
        batch: of pairs, or of single images; uint8 images [B,3,h,w] and masks [B,h,w] of any size.
        draw: where the cuts and flips come from.
        image_size: (height, width) of the result, which stretches images of another shape; default their own.
        enlarge: size before the cut, relative to `image_size`.
        p: probability of the flip.

    >>> batch = {"images": torch.zeros(2, 3, 128, 64, dtype=torch.uint8)}
    >>> load_pairs(batch, torch.Generator().manual_seed(0), image_size=(64, 32))["images"].shape
    torch.Size([2, 3, 64, 32])
    """
    n, _, *old = batch["images"].shape
    height, width = check_size(tuple(old) if image_size is None else image_size)
    larger = (round(height * enlarge), round(width * enlarge))
    out = {name: value for name, value in batch.items() if not name.endswith(("keypoints", "parsing"))}
    for name in [prefix + plane for prefix in PREFIXES for plane in ("images", "masks") if prefix + plane in out]:
        planes = out[name] if out[name].dim() == 4 else out[name][:, None]
        planes = F.interpolate(planes.float(), larger, mode="bicubic", antialias=True)
        planes = planes.round_().clamp_(0, 255).to(torch.uint8)
        out[name] = planes if out[name].dim() == 4 else planes[:, 0]
    top = torch.randint(larger[0] - height + 1, (n,), generator=draw)
    left = torch.randint(larger[1] - width + 1, (n,), generator=draw)
    return flip(crop(out, top, left, (height, width)), draw, p=p)


def transfer_pairs(
    train: PersonImages, a: int, b: int, *, model: int = 4, variant: str = "static", per_source: int = 10, seed: int = 0
) -> Tensor:
    """List the training pairs (image of a, image of b) of a model, int64 [P,2].

    Models 1-3 and the variable variant of model 4 take every pair of one person and sequence (`camera_pair`), static
    model 4 every image of a with `per_source` random images of b, whoever they show.

    Raises:
        ValueError: a camera without images, no person and sequence in both, missing masks.

    >>> train = PersonImages(torch.zeros(3, 3, 8, 4, dtype=torch.uint8), [1, 1, 2], [1, 2, 1], sequences=[1, 1, 1])
    >>> transfer_pairs(train, 1, 2, model=1).tolist()
    [[0, 1]]
    """
    needed = masks_needed(model, variant)
    if needed and not train.has("masks"):
        raise ValueError(f"model {model} ({variant}) trains on person masks, and this set has none: {train!r}")
    if model == 4 and variant == "static":
        return random_targets(train, a, b, per_source=per_source, seed=seed)
    pairs = camera_pair(train, a, b).train_pairs
    if len(pairs) == 0:
        raise ValueError(f"no identity is in cameras {a} and {b} in the same sequence, so model {model} has no pairs")
    return pairs


def train_transfer(
    train: PersonImages,
    a: int,
    b: int,
    *,
    images_seen: int | None = None,
    batch_size: int | None = None,
    per_source: int = 10,
    **options: Any,
) -> tuple[CameraTransfer, History]:
    """Train a model to move images of camera a to camera b, and return it with its history.

    Args:
        train: the training set; the thesis gives it the images of both cameras.
        a, b: camera numbers.
        images_seen: length of the training in pairs; default the thesis's 10 epochs.
        batch_size: default the preset's (course 16; paper 1, model 4: 32).
        per_source: random targets of each image, for model 4.
        options: further arguments of `CameraTransfer` (model, preset, the ablation switches) and of `train_generator`
            (seed, device, run_dir, evaluate, evaluations, ema, augment, progress). `seed` also draws the pairs, `ema`
            is the preset's (course 0.99) where it is not given, and `augment` is `load_pairs`; another one must give
            images of the networks' size.

    Raises:
        ValueError: see `transfer_pairs` and `CameraTransfer`; less than a batch to see.
    """
    switches = {name: options.pop(name) for name in list(options) if name in SWITCHES}
    model, preset, seed = switches.get("model", 4), switches.get("preset", "course"), options.get("seed", 0)
    check_choice("preset", preset, PRESETS)
    batch_size = batch_size or TRAINING[preset]["batch_size"][4 if model == 4 else 1]
    variant = switches.get("variant", "static")
    pairs = transfer_pairs(train, a, b, model=model, variant=variant, per_source=per_source, seed=seed)
    size = switches.get("image_size") or PRESETS[preset]["image_size"]
    facts = {"cameras": [a, b], "batch_size": batch_size, "per_source": per_source, "preset": preset, **switches}
    if images_seen is None:  # the last batch of an epoch is a full one, too
        full = min(len(pairs), batch_size)
        images_seen = EPOCHS * -(-len(pairs) // full) * full
    usual = {"ema": TRAINING[preset]["ema"], "settings": facts, "augment": partial(load_pairs, image_size=size)}
    options = usual | options | {"images_seen": images_seen, "batch_size": batch_size}
    return train_generator(partial(CameraTransfer, **switches), train, pairs, **options)


def transfer(
    method: CameraTransfer,
    train: PersonImages,
    a: int,
    b: int,
    *,
    subset: str | Tensor = "all",
    seed: int = 0,
    **options: Any,
) -> PersonImages:
    """Move images of camera a to camera b: the extension G_b, with the sources' identities and camera number b.

    Args:
        method: what `train_transfer(train, a, b)` made.
        train: where the images are; model 3 also takes the masks of its images of b.
        a, b: camera numbers.
        subset: which images of a:
            "all" of them (the thesis's model 4, and what its tables are read as here);
            "unpaired", those whose person and sequence camera b never shows (the thesis's test set of models 1-3);
            "new_ids", those whose person camera b never shows at all;
            or their positions in `train`, int64 [M].
        seed: of model 3's target masks, each of a random image of b, and of the noise of `stochastic_test`.
        options: of `synthesise` (folder, batch_size, precision, progress).

    Raises:
        ValueError: another subset, one without images or with images of other cameras; missing masks; for "unpaired"
            and "new_ids" also no identity in both cameras.
    """
    sources, targets, pairs = train.select(indices=subset_rows(train, a, b, subset)), None, None
    if method.model == 3:
        targets = train.select(camids=b)
        if len(targets) == 0:
            raise ValueError(f"model 3 takes target masks from camera {b}, which has no images")
        rows = torch.randint(len(targets), (len(sources),), generator=seeded(seed))
        pairs = torch.stack([torch.arange(len(sources)), rows], dim=1)
    return synthesise(method, sources, pairs, targets=targets, camids=b, seed=seed, **options)


def subset_rows(train: PersonImages, a: int, b: int, subset: str | Tensor = "all") -> Tensor:
    """Return the positions in `train` of the images that `transfer` moves from a to b, int64 [M].

    >>> train = PersonImages(torch.zeros(3, 3, 8, 4, dtype=torch.uint8), [1, 1, 2], [1, 2, 1], sequences=[1, 1, 1])
    >>> [subset_rows(train, 1, 2, subset).tolist() for subset in SUBSETS]
    [[0, 2], [2], [2]]
    """
    if isinstance(subset, Tensor):
        rows = subset
        if others := set(train.camids[rows].tolist()) - {a}:
            raise ValueError(f"the images to move must be of camera {a}, some are of {sorted(others)}")
    else:
        check_choice("subset, where it is no positions in the set,", subset, SUBSETS)
        if subset == "all":
            rows = (train.camids == a).nonzero().flatten()
        else:
            rows = getattr(camera_pair(train, a, b), SUBSETS[subset])
    if len(rows) == 0:
        cameras = train.camids.unique().tolist()
        raise ValueError(f"no image of camera {a} is in the subset {subset!r}; the set's cameras are {cameras}")
    return rows
