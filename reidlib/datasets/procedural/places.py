"""Grounds of the networks beside Market-1501's, and things that stand in their scenes (metres; see `scenes`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from .cloth import noise, speckle
from .patterns import beat, cells, line, mix, rgb, within

# Grounds: x to the right, z away from the camera, two colours, metres of a pixel along x and along z.


def _joints(x: Tensor, z: Tensor, across: float, along: float, width: float, side: Tensor, pixel: Tensor) -> Tensor:
    return torch.maximum(line(x, across, width, side), line(z, along, width, pixel))


def _concrete(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """Cast panels with wide joints, stains and a crack."""
    stain = (noise(51, x * 0.22, z * 0.22) * 2.2 - 0.5).clamp(0, 1)
    crack = line(x + 0.9 * noise(52, z * 0.3, x * 0.02), 6.3, 0.035, side)
    panel = speckle(x / 2.4, z / 2.4, torch.tensor(0.13))
    return mix(
        first.expand(*x.shape, 3),
        second,
        0.35 * stain + 0.25 * panel + 0.6 * crack + 0.8 * _joints(x, z, 2.4, 2.4, 0.05, side, pixel),
    )


def _gravel(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """Small stones between two edges of grass."""
    stones = 0.5 + 0.5 * noise(53, x * 4.5, z * 3.0) + 0.4 * noise(54, x * 9, z * 5)
    colour = first * (0.72 + 0.4 * stones)[..., None]
    edge = z - 10.2 - 0.5 * torch.sin(x * 0.6) - 0.3 * noise(55, x * 0.4, z * 0.2)
    grass = second * (0.8 + 0.4 * noise(14, x * 2.0, z * 1.5))[..., None]
    return torch.where((edge > 0)[..., None], grass, mix(colour, rgb("#6d6455"), within(edge, -0.16, 0, pixel)))


def _zebra(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """Asphalt with a crossing."""
    colour = first * (1 + 0.16 * noise(15, x * 2.7, z * 2.7))[..., None]
    bars = within(beat(x, 1.1)[0], -0.27, 0.27, side) * within(z, 6.6, 9.6, pixel)
    stop = within(z, 10.4, 10.75, pixel)
    worn = (0.85 + 0.5 * noise(56, x * 1.7, z * 1.7)).clamp(0, 1)
    return mix(colour, second, 0.9 * torch.maximum(bars, stop) * worn)


def _tiles(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """A polished floor of large tiles that mirrors the lamps above."""
    tile = speckle(x / 0.8, z / 0.8, torch.tensor(0.71))
    colour = mix(first.expand(*x.shape, 3), second, 0.22 * tile + 0.7 * _joints(x, z, 0.8, 0.8, 0.02, side, pixel))
    shine = torch.exp(-(beat(x + 0.06 * noise(57, x, z), 3.1)[0] / 0.42).square()) * (z / 14).clamp(0, 1)
    return colour * (1 + 0.38 * shine)[..., None]


def _herringbone(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """Bricks whose direction changes from square to square."""
    turned = ((x / 0.44).floor() + (z / 0.44).floor()) % 2 > 0
    a, b = torch.where(turned, x, z), torch.where(turned, z, x)
    shade = speckle(a / 0.22, b / 0.44, torch.tensor(0.19))
    joints = torch.where(turned, line(x, 0.22, 0.02, side), line(z, 0.22, 0.02, pixel))
    return (
        mix(first.expand(*x.shape, 3), second, 0.75 * shade + 0.55 * joints)
        * torch.where(turned, 1.07, 0.93)[..., None]
    )


def _planks(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """A deck of boards that lead away."""
    board = (x / 0.19).floor()
    shade = speckle(board, z / 2.2 + 0.37 * board, torch.tensor(0.43))
    grain = noise(58, x * 3.1, z * 0.35)
    joints = torch.maximum(line(x, 0.19, 0.022, side), 0.6 * line(z + 0.81 * board, 2.2, 0.02, pixel))
    return mix(first.expand(*x.shape, 3), second, 0.6 * shade + 0.25 * grain + 0.8 * joints)


def _court(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """A running track: lanes with white lines, a field behind."""
    colour = first * (1 + 0.10 * noise(59, x * 3.3, z * 3.3))[..., None]
    across = z + 0.16 * x
    lanes = line(across, 1.22, 0.07, pixel)
    field = second * (0.85 + 0.25 * ((x / 2).floor() % 2) + 0.25 * noise(14, x * 2, z * 1.4))[..., None]
    return torch.where((across > 11.0)[..., None], field, mix(colour, rgb("#e9e6de"), 0.85 * lanes))


def _kerb(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """A road with two yellow lines, its kerb and a pavement behind."""
    road = first * (1 + 0.15 * noise(15, x * 2.3, z * 2.3))[..., None]
    yellow = torch.maximum(within(z, 7.75, 7.87, pixel), within(z, 7.98, 8.10, pixel))
    road = mix(road, rgb("#c9a63a"), 0.85 * yellow)
    shade, moved, _ = cells(x, z, 0.9, 0.45)
    joints = torch.maximum(line(moved, 0.9, 0.03, side), line(z, 0.45, 0.03, pixel))
    pavement = mix(second.expand_as(road), 0.6 * second, 0.35 * shade + 0.7 * joints)
    stone = mix(
        pavement, rgb("#b9b7b0") * (0.9 + 0.2 * ((x / 1.0).floor() % 2))[..., None], within(z, 8.5, 8.85, pixel)
    )
    return torch.where((z > 8.5)[..., None], stone, mix(road, rgb("#1c1d20"), 0.6 * within(z, 8.32, 8.5, pixel)))


def _terrazzo(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """A ground floor of speckled stone with thin strips."""
    chips = (noise(60, x * 6.5, z * 4.5) > 0.25).float() * 0.5 + (noise(54, x * 8.1, z * 6.1) > 0.45).float() * 0.4
    colour = mix(first.expand(*x.shape, 3), second, chips)
    return mix(colour, rgb("#a58a4d"), 0.8 * _joints(x, z, 1.6, 1.6, 0.03, side, pixel))


def _meadow(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """Mown grass that a trodden path crosses."""
    mown = 0.88 + 0.16 * (((x + 0.8 * z) / 1.5).floor() % 2)
    colour = first * (mown * (0.85 + 0.35 * noise(14, x * 2.6, z * 1.8)))[..., None]
    way = (z - 8.3 + 0.24 * x + 0.7 * noise(61, x * 0.12, z * 0.05)).abs()
    return mix(colour, second * (1 + 0.15 * noise(53, x * 2, z * 2))[..., None], (1.5 - 1.1 * way) * 1.4)


def _cobble(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """Round stones in arcs."""
    bent = z + 0.35 * torch.cos(beat(x, 1.8)[0] * 1.7)
    row = (bent / 0.17).floor()
    moved = x + 0.5 * row * 0.17
    dome = (torch.cos(moved * 37) * torch.cos((bent / 0.17 - row - 0.5) * 3)).clamp(-1, 1)
    shade = speckle(moved / 0.17, row, torch.tensor(0.29))
    far = (pixel / 0.17).clamp(0, 1)
    return mix(first.expand(*x.shape, 3), second, (0.75 * shade + 0.35 - 0.45 * dome) * (1 - 0.5 * far) + 0.25 * far)


def _platform(x: Tensor, z: Tensor, first: Tensor, second: Tensor, side: Tensor, pixel: Tensor) -> Tensor:
    """Slabs with a strip of studs that the feet can read."""
    shade = speckle(x / 0.5, z / 1.0, torch.tensor(0.57))
    colour = mix(
        first.expand(*x.shape, 3), 0.7 * first, 0.45 * shade + 0.6 * _joints(x, z, 0.5, 1.0, 0.02, side, pixel)
    )
    studs = 0.85 + 0.15 * torch.sin(x * 60) * torch.sin(z * 60)
    strip = torch.maximum(within(z, 8.8, 9.25, pixel), within(x - 2.6, -0.2, 0.2, side) * (z > 9).float())
    return mix(colour, second * studs[..., None], strip)


GROUNDS: dict[str, Callable] = {
    "concrete": _concrete,
    "gravel": _gravel,
    "zebra": _zebra,
    "tiles": _tiles,
    "herringbone": _herringbone,
    "planks": _planks,
    "court": _court,
    "kerb": _kerb,
    "terrazzo": _terrazzo,
    "meadow": _meadow,
    "cobble": _cobble,
    "platform": _platform,
}

# Things that stand in a plane before the wall: x counts from their middle, y from the ground.


def _rod(x: Tensor, y: Tensor, half: float, top: float, pixel: float) -> Tensor:
    return within(x, -half, half, pixel) * within(y, 0.0, top, pixel)


def _lamp(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    picture = mix(picture, rgb("#23262a"), torch.maximum(_rod(x, y, 0.05, 4.0, pixel), _rod(x, y, 0.11, 0.5, pixel)))
    return mix(picture, rgb("#f4efd8"), within(x, -0.16, 0.16, pixel) * within(y, 2.35, 2.75, pixel))


def _bollards(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    paint = rgb("#c8b02f") if uniform() < 0.5 else rgb("#4a4d52")
    for at in (-0.9, 0.0, 0.9):
        picture = mix(
            picture, paint * (0.95 - 3.0 * (x - at))[..., None].clamp(0.4, 1.2), _rod(x - at, y, 0.09, 0.85, pixel)
        )
        picture = mix(picture, rgb("#efefea"), within(x - at, -0.09, 0.09, pixel) * within(y, 0.62, 0.72, pixel))
    return picture


def _sign(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    paint = (rgb("#1f5fa8"), rgb("#b3262b"), rgb("#1e7a4a"), rgb("#d9a520"))[int(uniform() * 4)]
    picture = mix(picture, rgb("#8d9094"), _rod(x, y, 0.035, 2.2, pixel))
    board = within(x, -0.42, 0.42, pixel) * within(y, 1.35, 2.15, pixel)
    text = (within(x, -0.30, 0.26, pixel) * line(y, 0.17, 0.05, torch.full_like(y, pixel))) * (y > 1.45) * (y < 2.0)
    return mix(mix(picture, paint, board), rgb("#f3f3ee"), text * board)


def _cone(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    body = within(x.abs() - (0.20 - 0.23 * y), -9.0, 0.0, pixel) * within(y, 0.0, 0.72, pixel)
    picture = mix(
        picture, rgb("#e2571c"), torch.maximum(body, within(x, -0.24, 0.24, pixel) * within(y, 0, 0.06, pixel))
    )
    return mix(picture, rgb("#f4f1ea"), body * within(y, 0.32, 0.48, pixel))


def _vending(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    paint = (rgb("#b5232b"), rgb("#24569c"), rgb("#d8d9d6"))[int(uniform() * 3)]
    picture = mix(picture, paint, within(x, -0.52, 0.52, pixel) * within(y, 0.0, 1.85, pixel))
    goods = 0.45 + 0.4 * torch.stack([speckle(x / 0.11, y / 0.2, torch.tensor(s)) for s in (0.2, 0.5, 0.8)], -1)
    window = within(x, -0.42, 0.24, pixel) * within(y, 0.7, 1.7, pixel)
    return mix(mix(picture, goods, window), rgb("#15171a"), within(x, -0.3, 0.3, pixel) * within(y, 0.25, 0.5, pixel))


def _tree(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    lean, tone = uniform() - 0.5, 0.75 + 0.5 * uniform()
    trunk = within(x - 0.1 * lean * y, -0.13 + 0.02 * lean, 0.13, pixel) * (y > 0)
    picture = mix(picture, rgb("#574636") * (0.9 - 2.5 * x)[..., None].clamp(0.4, 1.3), trunk)
    leaves = noise(22, x * 0.8 + lean, y * 0.8)
    crown = ((x / 1.25).square() + ((y - 2.9) / 1.0).square() < 0.8 + 0.6 * leaves).float()
    return mix(picture, rgb("#43642f") * tone * (0.85 + 0.9 * leaves)[..., None].clamp(0.35, 1.6), crown)


def _seats(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    paint = (rgb("#c9572c"), rgb("#2f6f8f"), rgb("#7d8084"))[int(uniform() * 3)]
    place = beat(x, 0.55)[0]
    shell = within(place, -0.22, 0.22, pixel) * torch.maximum(within(y, 0.40, 0.48, pixel), within(y, 0.55, 0.9, pixel))
    legs = within(beat(x, 1.1)[0], -0.03, 0.03, pixel) * within(y, 0.0, 0.42, pixel)
    near = (x.abs() < 1.1).float()
    return mix(mix(picture, rgb("#3c3f44"), legs * near), paint, shell * near)


def _hydrant(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    shape = torch.maximum(_rod(x, y, 0.12, 0.7, pixel), within(x, -0.2, 0.2, pixel) * within(y, 0.42, 0.54, pixel))
    return mix(picture, rgb("#b4282b") * (0.95 - 2.2 * x)[..., None].clamp(0.4, 1.2), shape)


def _pillar(picture: Tensor, x: Tensor, y: Tensor, pixel: float, uniform: Callable) -> Tensor:
    tone = 0.55 + 0.35 * uniform()
    return mix(
        picture, tone * rgb("#e4e0d6") * (0.95 - 0.9 * x)[..., None].clamp(0.45, 1.2), _rod(x, y, 0.34, 4.0, pixel)
    )


PROPS: dict[str, Callable] = {
    "lamp": _lamp,
    "bollards": _bollards,
    "sign": _sign,
    "cone": _cone,
    "vending": _vending,
    "tree": _tree,
    "seats": _seats,
    "hydrant": _hydrant,
    "pillar": _pillar,
}
