"""What several papers' generators share: patch discriminator, residual generator, weights, schedule, presets."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.networks import normalise

NORMS = ("batch", "instance")


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return batch normalisation, or instance normalisation without learnt scale."""
    if kind not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {kind!r}")
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels)


class PatchDiscriminator(nn.Module):
    """The 70x70 PatchGAN: five 4x4 convolutions, three of stride 2, a linear score for every patch.

    Args:
        channels: of the input (condition and candidate together).
        width: channels of the first layer; then 2, 4 and 8 times as many.
        norm: "batch" or "instance", after the three middle layers.
        biases: of the first, the middle and the last layers.
        padding: of the last two layers; the paper of PN-GAN has 0 there, which needs images of 56 pixels and more.

    >>> import torch
    >>> PatchDiscriminator(6, width=8)(torch.zeros(1, 6, 64, 32)).shape
    torch.Size([1, 1, 6, 2])
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        norm: str = "batch",
        biases: tuple[bool, bool, bool] = (True, False, True),
        padding: int = 1,
    ) -> None:
        super().__init__()
        first, middle, last = biases
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=first), nn.LeakyReLU(0.2)]
        for i in range(3):
            stride, pad = (2, 1) if i < 2 else (1, padding)
            ins, outs = width * 2**i, width * 2 ** (i + 1)
            layers += [nn.Conv2d(ins, outs, 4, stride, pad, bias=middle), make_norm(norm, outs), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(width * 8, 1, 4, 1, padding, bias=last))
        self.layers = nn.Sequential(*layers)
        self.smallest = 24 if padding else 56

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [B, 1, h, w] of images [B, channels, H, W]; raise ValueError where they are too small."""
        height, width = images.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"the patch discriminator needs at least {self.smallest} pixels each way, got {height}x{width}"
            )
        return self.layers(images)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with instance normalisation, added to the input."""

    def __init__(self, channels: int, *, padding_mode: str = "reflect", relu_after_sum: bool = False) -> None:
        super().__init__()

        def convolution() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode)

        self.layers = nn.Sequential(
            convolution(), nn.InstanceNorm2d(channels), nn.ReLU(), convolution(), nn.InstanceNorm2d(channels)
        )
        self.last = nn.ReLU() if relu_after_sum else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return x + layers(x), of x's shape."""
        return self.last(x + self.layers(x))


class ResidualGenerator(nn.Module):
    """The residual image-to-image generator: 7x7 stem, two halvings, residual units, two doublings, 7x7 and tanh.

    Instance normalisation without learnt scale throughout. CycleGAN's form is the default; PN-GAN's has zero padding
    in the units, a ReLU after each sum and no bias in the last layer.

    Args:
        channels: of the input.
        width: channels of the stem; the units have 4 times as many.
        units: residual units.
        unit_padding: "reflect" or "zeros".  relu_after_sum, last_bias: see above.

    >>> import torch
    >>> ResidualGenerator(6, width=8, units=2)(torch.zeros(1, 6, 64, 32)).shape
    torch.Size([1, 3, 64, 32])
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 64,
        units: int = 9,
        unit_padding: str = "reflect",
        relu_after_sum: bool = False,
        last_bias: bool = True,
    ) -> None:
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for ins in (width, 2 * width):
            layers += [nn.Conv2d(ins, 2 * ins, 3, 2, 1), nn.InstanceNorm2d(2 * ins), nn.ReLU()]
        layers += [
            ResidualUnit(4 * width, padding_mode=unit_padding, relu_after_sum=relu_after_sum) for _ in range(units)
        ]
        for ins in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(ins, ins // 2, 3, 2, 1, output_padding=1)
            layers += [up, nn.InstanceNorm2d(ins // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7, bias=last_bias), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return images [B, 3, H, W] in [-1, 1]; H and W must be multiples of 4."""
        height, width = x.shape[-2:]
        if height % 4 or width % 4:
            raise ValueError(f"height and width must be multiples of 4, got {height}x{width}")
        return self.layers(x)


def linear_decay(step: int, steps: int, constant: float = 0.5) -> float:
    """Return 1 for the first `constant` share of `steps`, then what falls linearly to 0 at their end.

    >>> [linear_decay(step, 8) for step in (0, 4, 6, 8)]
    [1.0, 1.0, 0.5, 0.0]
    """
    falling = steps * (1 - constant)
    return 1.0 if falling == 0 else min(1.0, max(0.0, (steps - step) / falling))


def choose_preset(presets: dict[str, dict], preset: str, **given: Any) -> dict[str, Any]:
    """Return the preset's settings with those that were given (not None) instead of its own."""
    if preset not in presets:
        raise ValueError(f"preset={preset!r}: accepted are {', '.join(map(repr, presets))}")
    return presets[preset] | {name: value for name, value in given.items() if value is not None}


def resized(images: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return images [B,C,h,w] in [-1, 1] at another size (bicubic, antialiased, clamped), or as they are."""
    if tuple(images.shape[2:]) == tuple(image_size):
        return images
    return F.interpolate(images, tuple(image_size), mode="bicubic", antialias=True).clamp(-1, 1)


def pair_images(batch: dict[str, Tensor], image_size: tuple[int, int] | None, method: str) -> tuple[Tensor, Tensor]:
    """Return `images` and `target_images` of a batch of pairs in [-1, 1].

    Raises:
        ValueError: a batch that is not of pairs, or of another image size (None: any).
    """
    if "target_images" not in batch:
        raise ValueError(f"{method} trains on batches of pairs (see pair_batches), got {', '.join(sorted(batch))}")
    found = tuple(batch["images"].shape[2:])
    if image_size is not None and found != image_size:
        raise ValueError(f"this {method} trains on images of {image_size} (height, width), the batch has {found}")
    return normalise(batch["images"], "signed"), normalise(batch["target_images"], "signed")
