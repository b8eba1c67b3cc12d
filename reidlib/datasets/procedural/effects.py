"""Light and lens: what a camera does to a picture between the scene and the file."""

from functools import lru_cache

import torch
from torch import Tensor

from .camera import Network

NEUTRAL = {
    "ambient": 0.55,
    "sun": (1.0, 1.0, 1.0),
    "gains": (1.0, 1.0, 1.0),
    "exposure": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "haze": 0.0,
    "light": (-0.4, -0.8, -0.4),
    "noise": 0.008,
    "shadow": 0.4,
}


def camera_table(network: Network, strength: float, device: torch.device) -> dict[str, Tensor]:
    """Return the cameras' settings as tensors [C] or [C, 3]; `strength` 0 is neutral, 1 takes them as written."""
    table = {}
    for name, neutral in NEUTRAL.items():
        written = torch.tensor([getattr(camera, name) for camera in network.cameras], device=device)
        middle = torch.tensor(neutral, device=device)
        amount = 1.0 if name in ("light", "shadow", "ambient") else strength
        table[name] = middle + (written - middle) * amount
    for name in ("height", "spread"):
        table[name] = torch.tensor([getattr(camera, name) for camera in network.cameras], device=device)
    table["blur"] = torch.tensor([camera.blur for camera in network.cameras], device=device) * (0.35 + 0.65 * strength)
    table["exposure"] = table["exposure"].clamp(0.45, 1.6)
    table["saturation"] = table["saturation"].clamp(0.3, 1.6)
    return table


def lit(normal: Tensor, direction: Tensor, ambient: Tensor, sun: Tensor) -> Tensor:
    """Light on surfaces [S, 3] from everywhere and from one direction that wraps softly around them, float [S, 3]."""
    direction = direction / direction.norm(dim=1, keepdim=True)
    wrapped = (((normal * direction).sum(1) + 0.38) / 1.38).clamp(min=0)
    sky = ambient * (0.90 - 0.16 * normal[:, 1])  # down is positive: tops are brighter
    edge = 0.80 + 0.20 * (-normal[:, 2]).clamp(0, 1) ** 0.7
    return (sky[:, None] + ((1 - ambient) * 1.75 * wrapped)[:, None] * sun) * edge[:, None]


def crevices(depth: Tensor, radius: int) -> Tensor:
    """Darkness beside nearer surfaces, 0..1, from depths [B, H, W] in metres."""
    dark = torch.zeros_like(depth)
    for dy, dx in ((radius, 0), (-radius, 0), (0, radius), (0, -radius)):
        nearer = depth - torch.roll(depth, (dy, dx), (1, 2))
        dark += ((nearer - 0.030) * 7).clamp_(0, 1) * (nearer < 0.6)
    return dark / 4


@lru_cache(maxsize=2)
def _bank(size: int = 1 << 20) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(97))


def _spread(picture: Tensor, sigma: Tensor, dim: int) -> Tensor:
    """Blur each picture of a batch [B, C, H, W] along one side with its own Gaussian, seven taps."""
    taps = torch.arange(4, device=picture.device, dtype=torch.float32)
    weight = torch.exp(-(taps / sigma[:, None].clamp(min=0.05)).square() / 2)  # [B, 4]
    weight = weight / (weight[:, :1] + 2 * weight[:, 1:].sum(1, keepdim=True))
    weight = weight[:, :, None, None, None]
    size = picture.shape[dim]
    pad = (3, 3, 0, 0) if dim == 3 else (0, 0, 3, 3)
    wide = torch.nn.functional.pad(picture, pad, mode="replicate")
    result = wide.narrow(dim, 3, size) * weight[:, 0]
    for tap in (1, 2, 3):
        result.addcmul_(wide.narrow(dim, 3 - tap, size) + wide.narrow(dim, 3 + tap, size), weight[:, tap])
    return result


def record(picture: Tensor, camera: dict[str, Tensor], shot: dict[str, Tensor], strength: float) -> Tensor:
    """Return what the camera makes of a lit scene [B, 3, H, W] in 0..1: uint8, with its colours, blur and noise.

    `camera` holds the settings of each picture's camera, [B] or [B, 3]; `shot` the picture's own light, blur and noise.
    """
    batch, _, height, width = picture.shape
    scale = height / 128

    def each(value: Tensor) -> Tensor:
        return value.reshape(batch, -1, 1, 1)

    spread = camera["spread"] * strength
    level = camera["exposure"] * torch.exp(spread * shot["light"])
    warm = 0.03 * strength * shot["warmth"]
    tint = camera["gains"] * torch.stack([1 + warm, torch.ones_like(warm), 1 - warm], 1)
    picture = picture * each(level) * each(tint)
    grey = (picture * torch.tensor([0.299, 0.587, 0.114], device=picture.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    picture = grey + (picture - grey) * each(camera["saturation"])
    picture = (picture - 0.45) * each(camera["contrast"]) + 0.45
    picture = torch.lerp(picture, torch.full_like(picture, 0.62), each(camera["haze"]))
    picture = torch.where(picture > 0.8, 0.8 + 0.25 * torch.tanh((picture - 0.8) * 4) * 0.8, picture)  # soft shoulder
    low, high = camera["blur"].unbind(1)
    sigma = (low + (high - low) * shot["blur"]) * scale
    motion = (shot["motion"] - 0.72).clamp(min=0) * 3.0 * strength * scale
    picture = _spread(_spread(picture.clamp(0, 1), sigma + motion, 3), sigma, 2)
    bank = _bank().to(picture.device)
    count = 2 * height * width
    start = (shot["noise"].double() * (len(bank) - count)).long()
    grain = bank[start[:, None] + torch.arange(count, device=picture.device)].view(batch, 2, height, width)
    noisy = picture + each(camera["noise"]) * (
        0.8 * grain[:, :1]
        + 0.6 * grain[:, 1:] * torch.tensor([0.7, -0.2, -0.9], device=picture.device).view(1, 3, 1, 1)
    )
    return (noisy * 255 + 0.5).clamp_(0, 255).to(torch.uint8)
