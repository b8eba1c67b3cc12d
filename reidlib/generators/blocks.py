"""What several papers' generators share: networks, the history of generated images, optimizers, presets and checks."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.networks import evaluating

SCORES = ("map", "features")
# of a setting; of others 0
LEAST = {"steps": 1, "epochs": 2, "width": 1, "discriminator_width": 1, "foreground_weight": 1, "mask_sign": -1}

Schedule = Callable[[int], float]
Entry = tuple[list[nn.Parameter], torch.optim.Optimizer, Schedule | None]
Optimizers = dict[str, Entry]
Update = Callable[[str, Tensor], None]


class LayerNorm(nn.Module):
    r"""DG-Net's layer normalisation of maps, over channels and pixels of each image.

    $$y = \gamma_c \frac{x - \mu}{\sigma + \epsilon} + \beta_c$$

    with the unbiased deviation $\sigma$; $\epsilon = 10^{-5}$ is added to it, not to the variance. $\gamma$ starts
    uniform in [0, 1], $\beta$ at 0.

    Args:
        channels: C of the maps [B,C,H,W].

    >>> norm = LayerNorm(2)
    >>> norm(torch.zeros(1, 2, 4, 4)).abs().max().item()
    0.0
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # under mixed precision too, a deviation of this many numbers needs float32
        deviation, mean = torch.std_mean(x, (1, 2, 3), keepdim=True)
        scale = self.weight[:, None, None] / (deviation + 1e-5)  # [B,C,1,1]
        return torch.addcmul(self.bias[:, None, None] - mean * scale, x, scale)


def adain(content: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    r"""Adaptive instance normalisation: $y = \gamma \frac{x - \mu(x)}{\sqrt{\sigma^2(x) + 10^{-5}}} + \beta$.

    Mean and (biased) variance are those of each image and channel. The papers differ in where scale and shift are from:

    - Huang and Belongie 2017, and Khatun et al., eq. 3: a style's statistics, `adain(b, *style_statistics(a))`;
    - DG-Net: numbers that a network predicts, `adain(x, gamma, beta)`, without a "1 +";
    - PoseStylizer: maps that a network predicts, `adain(x, 1 + gamma, beta)`.

    Args:
        content: float [B,C,H,W].
        scale, shift: [B,C], or anything that spreads over [B,C,H,W].

    >>> x = torch.tensor([[[[1.0, 3.0]]]])
    >>> adain(x, torch.tensor([[2.0]]), torch.tensor([[5.0]])).flatten().round(decimals=3).tolist()
    [3.0, 7.0]
    """
    scale, shift = (value[..., None, None] if value.dim() == 2 else value for value in (scale, shift))
    return scale * F.instance_norm(content) + shift


def style_statistics(style: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (biased) deviation and the mean of each image and channel of maps [B,C,H,W]: two of [B,C,1,1].

    >>> [value.item() for value in style_statistics(torch.tensor([[[[1.0, 3.0]]]]))]
    [1.0, 2.0]
    """
    variance, mean = torch.var_mean(style, (2, 3), correction=0, keepdim=True)
    return variance.clamp_min(1e-12).sqrt(), mean  # the root has no gradient at 0


NORMS = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "layer": LayerNorm, "none": nn.Identity}


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return a normalisation: "batch", "instance" (nothing learnt), "layer" (`LayerNorm`) or "none"."""
    check_choice("norm", kind, NORMS)
    return NORMS[kind](channels)


def convolution(
    ins: int, outs: int, kernel: int = 3, stride: int = 1, *, pad: str = "zeros", slope: float = 0.0
) -> nn.Sequential:
    """Return a convolution that keeps the size (or halves it), batch normalisation and ReLU (or a leaky one).

    >>> convolution(3, 8, stride=2, slope=0.2)(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 8, 32, 16])
    """
    conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=False, padding_mode=pad)
    return nn.Sequential(conv, nn.BatchNorm2d(outs), nn.LeakyReLU(slope) if slope else nn.ReLU())


def doubling(ins: int, outs: int) -> nn.Sequential:
    """Return a 4x4 transposed convolution of stride 2, batch normalisation and LeakyReLU.

    >>> doubling(3, 8)(torch.zeros(2, 3, 32, 16)).shape
    torch.Size([2, 8, 64, 32])
    """
    return nn.Sequential(nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=False), nn.BatchNorm2d(outs), nn.LeakyReLU(0.2))


class PatchDiscriminator(nn.Module):
    """The 70x70 PatchGAN: five 4x4 convolutions, three of stride 2, a linear score for every patch.

    Args:
        channels: of the input (condition and candidate together).
        width: channels of the first layer; then 2, 4 and 8 times as many.
        norm: after the three middle layers, see `make_norm`; they have no bias before batch normalisation.
        outer_biases: of the first and the last layer; PN-GAN has none.
        padding: of the last two layers; the paper of PN-GAN has 0 there, which needs images of 56 pixels and more.

    >>> PatchDiscriminator(6, width=8)(torch.zeros(1, 6, 64, 32)).shape
    torch.Size([1, 1, 6, 2])
    """

    def __init__(
        self, channels: int, *, width: int = 64, norm: str = "batch", outer_biases: bool = True, padding: int = 1
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=outer_biases), nn.LeakyReLU(0.2)]
        for i in range(3):
            stride, pad = (2, 1) if i < 2 else (1, padding)
            ins, outs = width * 2**i, width * 2 ** (i + 1)
            conv = nn.Conv2d(ins, outs, 4, stride, pad, bias=norm != "batch")
            layers += [conv, make_norm(norm, outs), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(width * 8, 1, 4, 1, padding, bias=outer_biases))
        self.layers = nn.Sequential(*layers)
        self.padding = padding

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError where images of this (height, width) are too small."""
        smallest = 24 if self.padding else 56
        if min(image_size) < smallest:
            needed = f"{smallest} pixels each way" + ("" if self.padding else " (24 with padding=1)")
            raise ValueError(f"the patch discriminator needs at least {needed}, got {'x'.join(map(str, image_size))}")

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [B, 1, h, w] of images [B, channels, H, W]; raise ValueError where they are too small."""
        self.check_size(images.shape[-2:])
        return self.layers(images)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with normalisation, added to the input.

    Args:
        channels: of the maps.
        padding_mode: "reflect" or "zeros".
        norm: see `make_norm`; convolutions before batch normalisation have no bias.
        dropout: probability after the first activation (0.5 in the pose transfer networks' discriminators).
        slope: of the activation's negative side; 0 is a ReLU.
        relu_after_sum: as in PN-GAN.

    >>> ResidualUnit(4, norm="batch", dropout=0.5)(torch.zeros(2, 4, 8, 4)).shape
    torch.Size([2, 4, 8, 4])
    """

    def __init__(
        self,
        channels: int,
        *,
        padding_mode: str = "reflect",
        norm: str = "instance",
        dropout: float = 0.0,
        slope: float = 0.0,
        relu_after_sum: bool = False,
    ) -> None:
        super().__init__()

        def convolution() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode, bias=norm != "batch")

        layers = [convolution(), make_norm(norm, channels), nn.LeakyReLU(slope) if slope else nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, convolution(), make_norm(norm, channels))
        self.last = nn.ReLU() if relu_after_sum else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return x + layers(x), of x's shape."""
        return self.last(x + self.layers(x))


class ResidualDiscriminator(nn.Module):
    """The pose transfer networks' conditional discriminator: 7x7, two halvings, three residual units, a score.

    It looks at condition and candidate joined along the channels. Zhu et al., "Progressive Pose Attention Transfer for
    Person Image Generation", CVPR 2019, whose network ends in the units' maps. Khatun et al. and Liu et al. (SAN)
    follow it.

    Args:
        channels: of the input (image and image: 6; 18 pose maps and image: 21).
        width: channels of the first layer, 64 as published; the units, with dropout 0.5, have 4 times as many.
        norm: "batch" (Market-1501), or "instance" (DeepFashion).
        score: "map", a 1x1 convolution to one linear score a place, or "features": the units' 4 width maps are the
            scores, as published.

    >>> ResidualDiscriminator(6, width=8)(torch.zeros(1, 6, 64, 32)).shape
    torch.Size([1, 1, 16, 8])
    """

    def __init__(self, channels: int, *, width: int = 64, norm: str = "batch", score: str = "map") -> None:
        super().__init__()
        check_choice("score", score, SCORES)
        bias = norm != "batch"
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7, bias=bias), make_norm(norm, width), nn.ReLU()]
        for ins in (width, 2 * width):
            layers += [nn.Conv2d(ins, 2 * ins, 3, 2, 1, bias=bias), make_norm(norm, 2 * ins), nn.ReLU()]
        layers += [ResidualUnit(4 * width, norm=norm, dropout=0.5) for _ in range(3)]
        layers += [nn.Conv2d(4 * width, 1, 1)] if score == "map" else []
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return linear scores [B, 1 or 4 width, H/4, W/4] of inputs [B, channels, H, W]."""
        height, width = images.shape[-2:]
        if min(height, width) < 8:
            raise ValueError(f"the discriminator needs at least 8 pixels each way, got {height}x{width}")
        return self.layers(images)


class ResidualGenerator(nn.Module):
    """The residual image-to-image generator: 7x7 stem, two halvings, residual units, two doublings, 7x7 and tanh.

    Instance normalisation without learnt scale throughout.

    Args:
        channels: of the input.
        width: channels of the stem; the units have 4 times as many.
        units: residual units.
        dropout: in the units; CamStyle's networks have 0.5.
        pn_gan: PN-GAN's form in place of CycleGAN's: zero padding in the units, a ReLU after each sum and no bias in
            the last layer.

    >>> ResidualGenerator(6, width=8, units=2)(torch.zeros(1, 6, 64, 32)).shape
    torch.Size([1, 3, 64, 32])
    """

    def __init__(
        self, channels: int = 3, *, width: int = 64, units: int = 9, dropout: float = 0.0, pn_gan: bool = False
    ) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for ins in (width, 2 * width):
            layers += [nn.Conv2d(ins, 2 * ins, 3, 2, 1), nn.InstanceNorm2d(2 * ins), nn.ReLU()]
        options = dict(padding_mode="zeros", relu_after_sum=True) if pn_gan else {}
        layers += [ResidualUnit(4 * width, dropout=dropout, **options) for _ in range(units)]
        for ins in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(ins, ins // 2, 3, 2, 1, output_padding=1)
            layers += [up, nn.InstanceNorm2d(ins // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7, bias=not pn_gan), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def check_size(image_size: tuple[int, int]) -> None:
        """Raise ValueError where height and width are no multiples of 4."""
        if any(side % 4 for side in image_size):
            raise ValueError(f"height and width must be multiples of 4, got {'x'.join(map(str, image_size))}")

    def forward(self, x: Tensor) -> Tensor:
        """Return images [B, 3, H, W] in [-1, 1]; H and W must be multiples of 4."""
        self.check_size(x.shape[-2:])
        return self.layers(x)


class ImagePool(nn.Module):
    """Buffer of past generated images that is shown to the discriminator, so that it does not forget them.

    Until it is full every image is stored and shown; after that, with probability 1/2, an image changes places with a
    stored one, which is shown instead. Images and count are buffers, and chance is torch's own generator: a run that
    resumes from a checkpoint goes on with the same history. Each discriminator needs a pool of its own.

    Args:
        size: images kept; 0 shows every image as it comes.
        image_size: (height, width).
        channels: of the images (condition and image together, where both are kept).

    >>> pool = ImagePool(2, (4, 4))
    >>> pool(torch.ones(1, 3, 4, 4)).mean().item(), pool.filled.item()
    (1.0, 1)
    """

    def __init__(self, size: int, image_size: tuple[int, int], *, channels: int = 3) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, channels, *image_size))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, fakes: Tensor) -> Tensor:
        """Take generated images [B,3,H,W] in, give as many out, without gradients."""
        size, filled = len(self.images), int(self.filled)
        if size == 0:
            return fakes.detach()
        swap, places = torch.rand(len(fakes)) < 0.5, torch.randint(size, (len(fakes),))
        shown = []
        for fake, change, place in zip(fakes, swap.tolist(), places.tolist(), strict=True):
            if filled < size:
                self.images[filled] = fake
                filled += 1
            elif change:
                old = self.images[place].clone()
                self.images[place] = fake
                fake = old
            shown.append(fake)
        self.filled.fill_(filled)
        return torch.stack(shown)


def as_frozen_copy(network: nn.Module, *inputs: Tensor, dropout: bool = False) -> Any:
    """Run a network as a frozen copy of itself would, without making the copy.

    Gradients reach the inputs and none of its weights; batch normalisation takes the batch's own statistics and leaves
    the running ones as they are; dropout is off.

    Args:
        network: whatever mode it is in; it stays so.
        inputs: of its forward pass.
        dropout: on, where it is wanted.

    >>> x = torch.ones(2, 3, requires_grad=True)
    >>> layer = nn.Linear(3, 1)
    >>> as_frozen_copy(layer, x).sum().backward()
    >>> layer.weight.grad is None, torch.equal(x.grad, layer.weight.detach().expand(2, 3))
    (True, True)
    """
    state = {name: value.detach() for name, value in network.named_parameters()}
    state |= {name: value.clone() for name, value in network.named_buffers()}
    awake = (nn.modules.batchnorm._BatchNorm, *([nn.Dropout] if dropout else []))
    with evaluating(network):
        for part in network.modules():
            part.training = isinstance(part, awake)
        return torch.func.functional_call(network, state, inputs)


def logits_of(output: Any) -> Tensor:
    """Return a classifier's logits, float32: what it gave, or the last of several outputs (an `Embedder`'s)."""
    return (output[-1] if isinstance(output, tuple) else output).float()


def linear_decay(step: int, steps: int, constant: float = 0.5) -> float:
    """Return 1 for the first `constant` share of `steps`, then what falls linearly to 0 at their end.

    >>> [linear_decay(step, 8) for step in (0, 4, 6, 8)]
    [1.0, 1.0, 0.5, 0.0]
    """
    falling = steps * (1 - constant)
    return 1.0 if falling == 0 else min(1.0, max(0.0, (steps - step) / falling))


def adam(
    networks: nn.Module | tuple[nn.Module, ...], lr: float, schedule: Schedule | None = None, **options: Any
) -> Entry:
    """Return an entry of a method's `optimizers()`: one Adam over all parameters of one network or several.

    Args:
        networks: whose parameters it trains.
        lr: of Adam.
        schedule: step -> factor of the rate; None keeps it constant.
        options: further ones of Adam: `betas`, here (0.5, 0.999); `fused`, one kernel for all parameters, whose sums
            round differently.

    >>> parameters, optimizer, schedule = adam(nn.Linear(2, 1), 2e-4)
    >>> len(parameters), optimizer.defaults["betas"], schedule
    (2, (0.5, 0.999), None)
    """
    nets = networks if isinstance(networks, tuple) else (networks,)
    parameters = [p for net in nets for p in net.parameters()]
    return parameters, torch.optim.Adam(parameters, lr=lr, **{"betas": (0.5, 0.999)} | options), schedule


def adams(lr: float, schedule: Schedule | None = None, *, fused: bool | None = None, **networks: Any) -> Optimizers:
    """Return a method's `optimizers()`: an `adam` for each name, in this order; a network that is None has no entry.

    >>> list(adams(2e-4, D=nn.Linear(2, 1), E=None, G=(nn.Linear(2, 1), nn.Linear(2, 1))))
    ['D', 'G']
    """
    return {name: adam(nets, lr, schedule, fused=fused) for name, nets in networks.items() if nets is not None}


def choose_preset(presets: Mapping[str, dict], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every choice of a constructor: what was given, and the preset's own where that is None.

    Args:
        presets: settings by the preset's name.
        given: the constructor's `locals()`, taken first of all; networks among them are left out. What the constructor
            takes as `**switches` must be settings of the preset.

    Raises:
        ValueError: another preset or switch; a number that no method can use (below `LEAST`, a share `constant`
            above 1, a `guide_shift` that is no whole number).

    >>> choose_preset({"smoke": {"width": 8, "lr": 1e-3}}, {"preset": "smoke", "width": 4, "lr": None, "steps": 1})
    {'preset': 'smoke', 'width': 4, 'lr': 0.001, 'steps': 1}
    >>> choose_preset({"smoke": {}}, {"preset": "smoke", "steps": 0})
    Traceback (most recent call last):
    ValueError: steps >= 1 is accepted, got steps=0
    """
    check_choice("preset", given["preset"], presets)
    preset, switches = presets[given["preset"]], given.get("switches", {})
    for name in switches:
        check_choice("switch", name, preset)
    left_out = ("self", "__class__", "encoder", "guide", "options", "switches")
    own = {n: v for n, v in (given | switches).items() if n not in left_out and not isinstance(v, nn.Module)}
    settings = own | {n: v for n, v in preset.items() if own.get(n) is None}
    for name, value in settings.items():
        if isinstance(value, (int, float)) and not value >= LEAST.get(name, 0):
            raise ValueError(f"{name} >= {LEAST.get(name, 0)} is accepted, got {name}={value}")
    if settings.get("guide_shift", 0) % 1:
        raise ValueError(f"guide_shift is a whole number of pixels, got guide_shift={settings['guide_shift']}")
    if settings.get("constant", 0) > 1:
        raise ValueError(f"constant is a share of the run, at most 1, got constant={settings['constant']}")
    return settings


def check_choices(choices: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ValueError where one of the settings is none of its `choices`.

    >>> check_choices({"p": (1, 2), "layer": ("stem", "stage1")}, {"p": 3})
    Traceback (most recent call last):
    ValueError: p must be one of 1, 2; got 3
    """
    for name, known in choices.items():
        if name in settings:
            check_choice(name, settings[name], known)


def deviations(settings: Mapping[str, Any], paper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are not the paper's; what `paper` does not name is no deviation.

    >>> deviations({"width": 16, "lr": 2e-4, "steps": 10}, {"width": 64, "lr": 2e-4})
    {'width': 16}
    """
    return {name: settings[name] for name, value in paper.items() if settings[name] != value}
