"""Things that stand before or behind a person, as parts: bicycles and poles."""

import torch
from torch import Tensor

from .builder import OBJECT, Builder, limb_axes
from .scenes import BICYCLE, WHEELS

OCCLUDERS = ("none", "bicycle", "pole", "person")


def _points(count: int, x: float, y: float, z: float, device: torch.device) -> Tensor:
    return torch.tensor([x, y, z], dtype=torch.float32, device=device).expand(count, 3)


def bicycle(colour: Tensor) -> dict[str, Tensor]:
    """Parts of N bicycles that point along z, tensors [N, P, ...]; `colour` [N, 3] paints the frames."""
    count, device = len(colour), colour.device
    b = Builder(count, device)
    dark = (0.10, 0.10, 0.11)
    for centre_z, centre_y, radius in WHEELS:
        steps = torch.linspace(0, 2 * torch.pi, 15)
        for a, c in zip(steps[:-1].tolist(), steps[1:].tolist(), strict=True):
            start, end = (
                _points(
                    count,
                    0.0,
                    centre_y + radius * torch.sin(torch.tensor(t)).item(),
                    centre_z + radius * torch.cos(torch.tensor(t)).item(),
                    device,
                )
                for t in (a, c)
            )
            b.tube(OBJECT, start, end, 0.021, 0.021, colour=dark)
        for turn in (0.3, 1.35, 2.4):
            z, y = radius * torch.cos(torch.tensor(turn)).item(), radius * torch.sin(torch.tensor(turn)).item()
            b.tube(
                OBJECT,
                _points(count, 0, centre_y + y, centre_z + z, device),
                _points(count, 0, centre_y - y, centre_z - z, device),
                0.006,
                0.006,
                colour=(0.62, 0.62, 0.64),
            )
    for (start_z, start_y), (end_z, end_y) in BICYCLE:
        b.tube(
            OBJECT,
            _points(count, 0, start_y, start_z, device),
            _points(count, 0, end_y, end_z, device),
            0.019,
            0.019,
            colour=colour,
        )
    b.tube(
        OBJECT,
        _points(count, -0.27, 1.02, 0.28, device),
        _points(count, 0.27, 1.02, 0.28, device),
        0.016,
        0.016,
        colour=dark,
    )
    axes = limb_axes(_points(count, 0, 0, 1, device))
    b.ellipsoid(OBJECT, _points(count, 0, 0.90, -0.22, device), axes, (0.07, 0.035, 0.13), colour=dark)
    b.tube(
        OBJECT,
        _points(count, 0, 0.94, 0.52, device),
        _points(count, 0, 0.70, 0.52, device),
        0.17,
        0.14,
        flat=0.85,
        colour=(0.33, 0.31, 0.29),
    )
    return b.stack()


def pole(colour: Tensor) -> dict[str, Tensor]:
    """Parts of N round poles, tensors [N, P, ...]; `colour` [N, 3]."""
    b = Builder(len(colour), colour.device)
    b.tube(
        OBJECT,
        _points(len(colour), 0, 3.2, 0, colour.device),
        _points(len(colour), 0, 0, 0, colour.device),
        0.06,
        0.06,
        colour=colour,
    )
    b.tube(
        OBJECT,
        _points(len(colour), 0, 0.25, 0, colour.device),
        _points(len(colour), 0, 0, 0, colour.device),
        0.10,
        0.11,
        colour=colour * 0.8,
    )
    return b.stack()
