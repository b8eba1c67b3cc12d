"""What stands behind the people: one panorama for each camera, drawn from its geometry (pinhole, metres)."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import facades, places
from .camera import Camera
from .cloth import noise, speckle
from .networks import network_named
from .patterns import cells, line, mix, rgb

FOCAL = 640.0  # panorama pixels per unit of slope
WIDTH, HEIGHT = 1024, 384  # panorama size
TOP = 8  # rows between the horizon and the panorama's first row


class Panorama(NamedTuple):
    """The views of all cameras of a network and their half-size copies, uint8 [cameras, height, width, 3]."""

    full: Tensor
    half: Tensor


def ground(kind: str, x: Tensor, z: Tensor, camera: Camera) -> Tensor:
    """Colour of the ground at metres x (right) and z (away), float [..., 3]."""
    first, second = (rgb(code) for code in camera.ground_colours)
    x = x + camera.shift
    pixel = z * z / (FOCAL * camera.height)  # metres of ground in a row
    side = z / FOCAL
    colour = first.expand(*x.shape, 3)
    mottle = 0.6 * noise(11, x * 0.13, z * 0.13) + 0.4 * noise(12, x * 0.7, z * 0.7)
    if kind == "slabs":
        shade, moved, _ = cells(x, z, 0.6, 0.6, 0.0)
        colour = mix(
            colour, second, 0.5 * shade + 0.85 * torch.maximum(line(moved, 0.6, 0.03, side), line(z, 0.6, 0.03, pixel))
        )
    elif kind == "brick":
        shade, moved, _ = cells(x, z, 0.4, 0.2)
        colour = mix(
            colour, second, 0.8 * shade + 0.8 * torch.maximum(line(moved, 0.4, 0.02, side), line(z, 0.2, 0.02, pixel))
        )
        colour = colour * (1 + 0.10 * torch.sin((x + z * 0.5) * 1.3)[..., None].sign() * 0.6)
    elif kind == "setts":
        shade, moved, _ = cells(x, z, 0.24, 0.24)
        colour = mix(
            colour, second, 0.9 * shade + torch.maximum(line(moved, 0.24, 0.035, side), line(z, 0.24, 0.03, pixel))
        )
    elif kind == "lawn":
        grass = z > 9.6 + 0.5 * noise(13, x * 0.2, z * 0.05)
        blades = 0.5 + 0.5 * noise(14, x * 2.2, z * 1.4)
        colour = mix(colour, second, grass)
        colour = colour * torch.where(grass, 0.72 + 0.5 * blades, 0.94 + 0.10 * blades)[..., None]
    elif kind == "twotone":
        shade, moved, _ = cells(x, z, 0.5, 0.5, 0.0)
        band = ((x / 2.5).floor() + (z / 2.0).floor()) % 2
        colour = mix(
            colour,
            second,
            0.7 * band + 0.25 * shade + 0.5 * torch.maximum(line(moved, 0.5, 0.025, side), line(z, 0.5, 0.025, pixel)),
        )
    elif kind in places.GROUNDS:
        colour = places.GROUNDS[kind](x, z, first, second, side, pixel)
    else:  # asphalt with painted lines
        colour = colour * (1 + 0.14 * noise(15, x * 2.5, z * 2.5))[..., None]
        paint = torch.maximum(line(x + 0.35 * z, 5.0, 0.14, side), line(z - 8.6, 60.0, 0.12, pixel))
        colour = mix(colour, second, 0.75 * paint * (0.75 + 0.4 * noise(12, x, z)))
    return colour * (1 + 0.13 * mottle)[..., None]


def wall(kind: str, x: Tensor, y: Tensor, camera: Camera) -> Tensor:
    """Colour of the wall at metres x (right) and y (up), float [..., 3]."""
    first, second = (rgb(code) for code in camera.wall_colours)
    x = x + camera.shift
    pixel = torch.full_like(x, camera.wall_distance / FOCAL)
    if kind in facades.WALLS:
        return facades.WALLS[kind](x, y, first, second, pixel)
    colour = first.expand(*x.shape, 3)
    if kind in ("hedge", "trees"):
        leaves = (
            0.5 * noise(21, x * 0.35, y * 0.35) + 0.35 * noise(22, x * 1.2, y * 1.2) + 0.3 * noise(23, x * 3, y * 3)
        )
        colour = mix(colour, second, 0.5 + 0.9 * leaves)
        colour = colour * (1 + 0.5 * (noise(24, x * 2.3, y * 2.3) > 0.42).float())[..., None]
        if kind == "trees":
            for at, wide in ((-7.5, 0.35), (-3.1, 0.22), (0.9, 0.42), (4.6, 0.25), (8.1, 0.33)):
                trunk = ((wide / 2 - (x - at - 0.1 * torch.sin(y * 1.7 + at)).abs()) / pixel + 0.5).clamp(0, 1)
                colour = mix(
                    colour, rgb("#4a3a2c") * (0.7 + 0.9 * (x - at + wide / 2) / wide)[..., None].clamp(0.5, 1.3), trunk
                )
        return colour
    if kind == "shops":
        shade, moved, _ = cells(x, y, 0.25, 0.083)
        mortar = torch.maximum(line(moved, 0.25, 0.014, pixel), line(y, 0.083, 0.014, pixel))
        colour = mix(mix(colour, second, 0.8 * shade), rgb("#b7aca0"), 0.7 * mortar)
        phase = x - (x / 4.2).round() * 4.2
        window = (phase.abs() < 1.15) & (y > 0.75) & (y < 2.5)
        glass = rgb("#39434c") + 0.25 * (noise(25, x * 0.25, y * 0.3) + 0.4 * (y - 1.4))[..., None].clamp(0, 1)
        frame = (phase.abs() < 1.25) & (y > 0.65) & (y < 2.6)
        return torch.where(
            window[..., None], glass, torch.where(frame[..., None], rgb("#d8d3c6").expand_as(colour), colour)
        )
    if kind == "stairs":
        tread = (y / 0.165) - (y / 0.165).floor()
        colour = mix(colour, second, (tread < 0.42).float() * 0.85) * (0.86 + 0.22 * tread)[..., None]
        stain = 1 + 0.12 * noise(26, x * 0.4, y * 0.7)
        cheek = ((x + 5.5).abs() < 0.45) | ((x - 4.8).abs() < 0.45)
        return (
            torch.where(cheek[..., None], rgb("#9d9a94") * (1 + 0.1 * noise(22, x, y))[..., None], colour)
            * stain[..., None]
        )
    if kind == "glass":
        sky = 0.5 + 0.5 * noise(27, x * 0.12, y * 0.2)
        colour = mix(rgb(camera.wall_colours[1]).expand(*x.shape, 3), first * 1.35, sky * (0.35 + 0.25 * y))
        shapes = noise(28, x * 0.5, y * 0.35) > 0.28
        colour = mix(colour, rgb("#c8b79b") * 0.55, 0.5 * shapes)
        bars = torch.maximum(line(x, 1.45, 0.085, pixel), line(y - 0.35, 1.25, 0.085, pixel))
        plinth = y < 0.33
        colour = torch.where(plinth[..., None], rgb("#8b857f").expand_as(colour), colour)
        return mix(colour, rgb("#aab0b8"), bars)
    slat = (y / 0.11) - (y / 0.11).floor()  # shutter
    colour = mix(colour, second, (0.75 * (1 - slat)).square())
    panel = (x / 3.4).floor()
    tint = 0.82 + 0.36 * speckle(panel, torch.zeros_like(x), torch.tensor(0.61))
    colour = colour * tint[..., None]
    post = line(x, 3.4, 0.26, pixel)
    rust = (noise(29, x * 0.5, y * 0.25) > 0.5).float() * 0.25
    return mix(mix(colour, rgb("#7a5138"), rust), rgb("#3f434a"), post)


def _segment(x: Tensor, y: Tensor, start: tuple, end: tuple) -> Tensor:
    """Distance to a segment in metres."""
    ax, ay = start
    bx, by = end[0] - ax, end[1] - ay
    t = (((x - ax) * bx + (y - ay) * by) / (bx * bx + by * by)).clamp(0, 1)
    return ((x - ax - t * bx).square() + (y - ay - t * by).square()).sqrt()


BICYCLE = (
    ((-0.50, 0.34), (-0.12, 0.30)),
    ((-0.50, 0.34), (-0.18, 0.72)),
    ((-0.18, 0.72), (-0.12, 0.30)),
    ((-0.18, 0.70), (0.36, 0.78)),
    ((-0.12, 0.30), (0.34, 0.70)),
    ((0.50, 0.34), (0.34, 0.98)),
    ((-0.20, 0.72), (-0.22, 0.88)),
)
WHEELS = ((-0.50, 0.34, 0.32), (0.50, 0.34, 0.32))


def _bicycle(picture: Tensor, x: Tensor, y: Tensor, pixel: float, paint: Tensor) -> Tensor:
    """Draw a parked bicycle at the origin of its plane."""
    for cx, cy, radius in WHEELS:
        distance = ((x - cx).square() + (y - cy).square()).sqrt()
        tyre = ((0.024 - (distance - radius).abs()) / pixel + 0.5).clamp(0, 1)
        spokes = (distance < radius) * 0.16
        picture = mix(mix(picture, rgb("#888888"), spokes), rgb("#191919"), tyre)
    for start, end in BICYCLE:
        picture = mix(picture, paint, ((0.019 - _segment(x, y, start, end)) / pixel + 0.5).clamp(0, 1))
    for start, end in (((0.22, 1.0), (0.40, 0.99)), ((-0.33, 0.90), (-0.10, 0.89))):
        picture = mix(picture, rgb("#161616"), ((0.028 - _segment(x, y, start, end)) / pixel + 0.5).clamp(0, 1))
    basket = (x > 0.40) & (x < 0.72) & (y > 0.70) & (y < 0.95)
    mesh = ((x * 22).frac().abs() < 0.35) | ((y * 22).frac().abs() < 0.35)
    return mix(picture, rgb("#3a3a3c"), (basket & mesh).float() * 0.85)


def _prop(kind: str, picture: Tensor, x: Tensor, y: Tensor, pixel: float, generator: torch.Generator) -> Tensor:
    """Draw one thing that stands in a plane parallel to the wall; x counts from its middle, y from the ground."""

    def uniform() -> float:
        return torch.rand((), generator=generator).item()

    if kind == "bikes":
        paint = torch.tensor([0.15 + 0.6 * uniform(), 0.15 + 0.4 * uniform(), 0.2 + 0.5 * uniform()])
        flip = 1.0 if uniform() < 0.5 else -1.0
        return _bicycle(picture, flip * x, y, pixel, paint)
    if kind in ("pole", "rail"):
        half = 0.055 if kind == "pole" else 0.025
        bar = ((half - x.abs()) / pixel + 0.5).clamp(0, 1) * (y > 0) * (y < (4.0 if kind == "pole" else 1.0))
        if kind == "rail":
            bar = torch.maximum(bar, ((0.03 - (y - 0.98).abs()) / pixel + 0.5).clamp(0, 1) * (x.abs() < 1.2))
        return mix(picture, rgb("#9a9c9f") * (0.8 - 4.0 * x)[..., None].clamp(0.35, 1.25), bar)
    if kind == "bin":
        inside = (x.abs() < 0.28 + 0.03 * y) & (y > 0) & (y < 0.95)
        return mix(picture, rgb("#2f5d43") * (0.9 - 1.3 * x)[..., None], inside)
    if kind == "door":
        inside = (x.abs() < 0.55) & (y > 0) & (y < 2.15)
        return mix(picture, rgb("#1d1b1b"), inside)
    if kind == "bench":
        wood = ((y - 0.45).abs() < 0.05) | ((y - 0.80).abs() < 0.06) | ((y - 0.66).abs() < 0.04)
        legs = ((x.abs() - 0.75).abs() < 0.05) & (y < 0.8)
        return mix(picture, rgb("#6e4d33"), ((wood & (x.abs() < 0.95)) | legs) & (y > 0))
    if kind in places.PROPS:
        return places.PROPS[kind](picture, x, y, pixel, uniform)
    leaves = noise(22, x * 1.1, y * 1.1)  # plants in a tub
    crown = (x / 0.5).square() + ((y - 0.95) / 0.5).square() < 0.8 + 0.5 * leaves
    tub = (x.abs() < 0.3) & (y > 0) & (y < 0.5)
    picture = mix(picture, rgb("#77706a") * (0.9 - 0.9 * x)[..., None], tub)
    return mix(picture, rgb("#2f5a2b") * (0.9 + 0.8 * leaves)[..., None].clamp(0.3, 1.6), crown)


def panorama(camera: Camera, seed: int = 0) -> Tensor:
    """Draw the whole view of one camera, float [HEIGHT, WIDTH, 3] in 0..1; `seed` places the things along the wall."""
    generator = torch.Generator().manual_seed(1000 + seed)
    row = torch.arange(HEIGHT, dtype=torch.float32)[:, None] + 0.5 + TOP
    column = torch.arange(WIDTH, dtype=torch.float32)[None] + 0.5 - WIDTH / 2
    slope, away = row / FOCAL, camera.wall_distance
    z = (camera.height / slope).expand(HEIGHT, WIDTH)
    floor = ground(camera.ground, column * z / FOCAL, z, camera)
    x, y = (column * away / FOCAL).expand(HEIGHT, WIDTH), (camera.height - slope * away).expand(HEIGHT, WIDTH)
    back = wall(camera.wall, x, y, camera) * (0.72 + 0.28 * (y / 0.5).clamp(0, 1))[..., None]
    floor = floor * (0.62 + 0.38 * ((away - z) / 1.2).clamp(0, 1))[..., None]  # dark where the wall meets it
    dapple = noise(31 + seed % 7, column * z / FOCAL * 0.16, z * 0.11)
    floor = floor * (1 + 0.30 * camera.shadow * (dapple * 3).clamp(-1, 1))[..., None]
    picture = torch.where((y > 0)[..., None], back, floor)
    for kind in camera.props:
        copies = 11 if kind == "bikes" else 3
        for copy in range(copies):
            plane = away - 0.5 - 0.7 * torch.rand((), generator=generator).item()
            half = WIDTH / 2 * plane / FOCAL
            middle = half * (2 * (copy + torch.rand((), generator=generator).item()) / copies - 1)
            px = column * plane / FOCAL - middle
            py = camera.height - row / FOCAL * plane
            wanted = (px[0].abs() < 1.4).nonzero()[:, 0]
            if len(wanted):
                cut = slice(int(wanted[0]), int(wanted[-1]) + 1)
                shade = 1 - 0.35 * torch.exp(-(px[:, cut] / 0.7).square() - (py / 0.10).square())[..., None]
                picture[:, cut] = _prop(
                    kind,
                    picture[:, cut] * shade,
                    px[:, cut].expand(HEIGHT, -1),
                    py.expand(-1, cut.stop - cut.start),
                    plane / FOCAL,
                    generator,
                )
    grain = noise(41, column / 97, row / 97) * 0.02
    return (picture + grain[..., None]).clamp(0, 1)


@lru_cache(maxsize=7)
def panoramas(network: str) -> Panorama:
    """Draw the panoramas of a network once in a process (1.5 MB a camera)."""
    known = network_named(network)
    views = [panorama(camera, 100 * known.salt + index) for index, camera in enumerate(known.cameras)]
    full = torch.stack(views)
    half = torch.nn.functional.avg_pool2d(full.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return Panorama((full * 255).round().byte().contiguous(), (half * 255).round().byte().contiguous())


def backdrop(
    views: Panorama, camera: Tensor, left: Tensor, top: Tensor, step: Tensor, height: int, width: int
) -> Tensor:
    """Cut a window from each picture's panorama, float [B, height, width, 3] in 0..1.

    `camera` int64 [B] counts from 0; `left` and `top` are panorama pixels of the window's corner; `step` [B, 2] is the
    size of a picture's pixel in panorama pixels. Outside of the panorama the border repeats, mirrored.
    """
    device = left.device
    coarse = step[:, 1] > 1.5
    column = left[:, None] + (torch.arange(width, device=device) + 0.5) * step[:, :1]  # [B, width]
    row = top[:, None] + (torch.arange(height, device=device) + 0.5) * step[:, 1:]
    result = torch.empty(len(left), height, width, 3, device=device)
    for source, chosen, shrink in ((views.full, ~coarse, 1), (views.half, coarse, 2)):
        if not bool(chosen.any()):
            continue
        flat = source.to(device).view(-1, 3)
        high, wide = source.shape[1:3]
        x, y = column[chosen] / shrink - 0.5, row[chosen] / shrink - 0.5
        x = (wide - 1) - ((x % (2 * wide - 2)) - (wide - 1)).abs()  # mirrored at both borders
        y = y.clamp(0, high - 1)
        x0, y0 = x.floor().long().clamp(0, wide - 2), y.floor().long().clamp(0, high - 2)
        fx, fy = (x - x0)[:, None, :, None], (y - y0)[:, :, None, None]
        base = (camera[chosen, None] * high + y0)[:, :, None] * wide + x0[:, None, :]  # [b, height, width]

        def pixel(index: Tensor, flat: Tensor = flat) -> Tensor:
            return flat[index].float()

        upper = torch.lerp(pixel(base), pixel(base + 1), fx)
        lower = torch.lerp(pixel(base + wide), pixel(base + wide + 1), fx)
        result[chosen] = torch.lerp(upper, lower, fy) / 255
    return result
