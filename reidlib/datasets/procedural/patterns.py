"""What surfaces of scenes are made of: colours, joints, cells, in metres and softened to the size of a pixel."""

import torch
from torch import Tensor

from .cloth import speckle


def rgb(code: str) -> Tensor:
    """Return a hexadecimal colour as float [3] in 0..1."""
    return torch.tensor([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def mix(colour: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Mix two colours [..., 3] by a weight [...], which is cut to 0..1."""
    return torch.lerp(colour, other, weight.to(torch.float32)[..., None].clamp(0, 1))


def line(t: Tensor, period: float, width: float, pixel: Tensor) -> Tensor:
    """Joints at every multiple of the period, softened to the size of a pixel, 0..1."""
    distance = (t / period - (t / period).round()).abs() * period
    return ((width / 2 - distance) / pixel + 0.5).clamp(0, 1) * (width / pixel).clamp(max=1)


def cells(x: Tensor, y: Tensor, across: float, up: float, shift: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """A running bond: shade of each brick (0..1) and its coordinates."""
    row = (y / up).floor()
    moved = x + row * shift * across
    return speckle(moved / across, row, torch.tensor(0.37)), moved, y


def within(t: Tensor, low: float, high: float, pixel: Tensor | float) -> Tensor:
    """A band from `low` to `high`, softened to the size of a pixel, 0..1."""
    return ((t - low) / pixel + 0.5).clamp(0, 1) * ((high - t) / pixel + 0.5).clamp(0, 1)


def beat(x: Tensor, period: float) -> tuple[Tensor, Tensor]:
    """Repeat a thing along x: the place inside its period (-period/2..period/2) and its number."""
    number = (x / period).round()
    return x - number * period, number


def chance(number: Tensor, seed: float) -> Tensor:
    """A number in 0..1 for each thing of a row."""
    return speckle(number, torch.zeros_like(number), torch.tensor(seed))
