"""Cloth: patterns in garment coordinates (metres around and along the body), so that they follow the body."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from .people import PATTERN


@lru_cache(maxsize=8)
def noise_field(seed: int, size: int = 128, octaves: int = 3) -> Tensor:
    """A smooth field that repeats at its borders, float [size, size] in -1..1."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.zeros(1, 1, size, size)
    for octave in range(octaves):
        cells = 8 * 2**octave
        coarse = torch.rand(1, 1, cells, cells, generator=generator) - 0.5
        coarse = torch.nn.functional.pad(coarse, (2, 2, 2, 2), mode="circular")
        margin = 2 * size // cells
        fine = torch.nn.functional.interpolate(coarse, scale_factor=size // cells, mode="bicubic", align_corners=False)
        field += 0.6**octave * fine[:, :, margin : margin + size, margin : margin + size]
    return (field[0, 0] / field.abs().amax()).contiguous()


def noise(seed: int, x: Tensor, y: Tensor) -> Tensor:
    """Sample the field at positions in periods of the field (any real numbers), float in -1..1."""
    field = noise_field(seed).to(x.device)
    size = field.shape[0]
    column = (x * size).long() % size
    row = (y * size).long() % size
    return field.view(-1)[row * size + column]


def speckle(x: Tensor, y: Tensor, seed: Tensor) -> Tensor:
    """A number in 0..1 for each cell of an integer grid (blocks of a print)."""
    value = torch.sin(x.floor() * 12.9898 + y.floor() * 78.233 + seed * 437.5) * 43758.547
    return value - value.floor()


def stripes(t: Tensor, period: Tensor, duty: float = 0.5) -> Tensor:
    """Soft stripes along t, 0..1."""
    wave = torch.sin(t * (2 * math.pi) / period) + (duty - 0.5) * 2
    return (wave * 3).clamp(-1, 1) * 0.5 + 0.5


def weave(kind: Tensor, around: Tensor, along: Tensor, period: Tensor, seed: Tensor) -> Tensor:
    """How much of the second colour the cloth shows, 0..1, for the patterns that cover the whole garment."""
    weight = torch.zeros_like(around)
    names = {name: index for index, name in enumerate(PATTERN)}
    for name in ("stripes", "checks", "pinstripes", "print"):
        rows = (kind == names[name]).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        a, t, p, s = around[rows], along[rows], period[rows], seed[rows]
        if name == "stripes":
            value = stripes(t, p, 0.42)
        elif name == "checks":
            value = 0.5 * stripes(t, p, 0.35) + 0.5 * stripes(a, p, 0.35)
        elif name == "pinstripes":
            value = 0.8 * stripes(a, p * 0.6, 0.22)
        else:
            size = p * 0.55
            blob = torch.sin(a / size * 5 + 9 * s) * torch.sin(t / size * 5 + 17 * s) + 0.5 * torch.sin(
                (a + t) / size * 3
            )
            value = (blob * 3 - 0.7).clamp(0, 1)
        weight[rows] = value
    return weight
