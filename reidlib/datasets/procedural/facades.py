"""What closes the view in the networks beside Market-1501's: a function for each kind of wall (see `scenes`).

Each takes x (right) and y (up) in metres, two colours and the size of a pixel, and returns a colour, float [..., 3].
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .cloth import noise, speckle
from .patterns import beat, cells, chance, line, mix, rgb, within

_PAINTS = ("#b8bcc2", "#23262c", "#8c1d24", "#2c4a7c", "#d9d6cd", "#5c6b5a", "#a57f3c", "#566a80")


def _paint(number: Tensor, seed: float) -> Tensor:
    """A colour for each thing of a row."""
    table = torch.stack([rgb(code) for code in _PAINTS])
    return table[(chance(number, seed) * len(_PAINTS)).long().clamp(0, len(_PAINTS) - 1)]


def _glass(x: Tensor, y: Tensor, dark: str = "#2b333c") -> Tensor:
    """A window pane that mirrors something."""
    return rgb(dark) + 0.22 * (noise(25, x * 0.3, y * 0.35) + 0.25 * y)[..., None].clamp(0, 1)


def _ashlar(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Cut stone of many shades, with pointed windows."""
    shade, moved, _ = cells(x, y, 0.62, 0.30)
    colour = mix(first.expand(*x.shape, 3), second, 0.95 * shade)
    colour = mix(colour, 0.55 * second, 0.7 * torch.maximum(line(moved, 0.62, 0.03, pixel), line(y, 0.30, 0.03, pixel)))
    place, _ = beat(x, 3.3)
    rise = 1.9 + 0.75 * (1 - (place / 0.62).abs().clamp(max=1) ** 1.6)
    hole = (place.abs() < 0.62) & (y > 0.8) & (y < rise)
    frame = (place.abs() < 0.76) & (y > 0.68) & (y < rise + 0.16)
    lead = torch.maximum(line(x + y, 0.22, 0.025, pixel), line(x - y, 0.22, 0.025, pixel))
    pane = mix(_glass(x, y), rgb("#101214"), lead)
    return torch.where(hole[..., None], pane, torch.where(frame[..., None], first * 1.18, colour))


def _arcade(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Round columns before a dark walk."""
    place, _ = beat(x, 2.7)
    inside = second * (0.55 + 0.16 * y + 0.25 * noise(62, x * 0.3, y * 0.3))[..., None]
    inside = mix(
        inside, rgb("#e3c98a"), 0.55 * within(beat(x + 0.6, 5.4)[0], -0.4, 0.4, pixel) * within(y, 0.05, 2.0, pixel)
    )
    arch = y > 2.0 + 0.6 * (1 - (((place.abs() - 1.35) / 1.1).abs().clamp(max=1)).square()).sqrt()
    column = within(place, -0.25, 0.25, pixel)
    foot = within(place, -0.36, 0.36, pixel) * within(y, 0.0, 0.28, pixel)
    stone = first * (1.05 - 1.0 * place - 0.5 * place.square())[..., None].clamp(0.55, 1.2)
    colour = mix(inside, stone, torch.maximum(column, foot))
    return torch.where((arch & (column < 0.5))[..., None], first * (0.95 + 0.1 * noise(63, x, y))[..., None], colour)


def _fence(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Iron bars before a far meadow and shrubs."""
    far = 0.5 + 0.5 * noise(64, x * 0.12, y * 0.3)
    colour = mix(first.expand(*x.shape, 3), rgb("#b9c2a6"), (y - 0.9) * 0.5) * (0.75 + 0.45 * far)[..., None]
    shrub = y < 0.75 + 0.5 * noise(22, x * 0.25, x * 0.1)
    colour = torch.where(shrub[..., None], 0.55 * first * (1 + 0.7 * noise(23, x * 2, y * 2))[..., None], colour)
    bars = torch.maximum(line(x, 0.15, 0.028, pixel), line(x, 2.4, 0.12, pixel)) * (y < 2.0)
    rails = torch.maximum(within(y, 0.18, 0.24, pixel), within(y, 1.76, 1.84, pixel))
    return mix(colour, second, torch.maximum(bars, rails))


def _cars(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Parked cars before a wall."""
    colour = (
        mix(first.expand(*x.shape, 3), second, 0.5 + 0.6 * noise(65, x * 0.3, y * 0.5)) * (0.8 + 0.1 * y)[..., None]
    )
    place, number = beat(x, 5.1)
    paint = _paint(number, 0.33) * (0.75 + 0.4 * (y - 0.3))[..., None].clamp(0.6, 1.25)
    body = within(place, -2.15, 2.15, pixel) * within(y, 0.26, 0.86 - 0.05 * (place / 2.1).square(), pixel)
    cabin = within(place + 0.2, -1.25 + 0.55 * (y - 0.85), 1.05 - 0.75 * (y - 0.85), pixel) * within(
        y, 0.8, 1.42, pixel
    )
    pane = within(place + 0.2, -1.1 + 0.6 * (y - 0.85), 0.9 - 0.8 * (y - 0.85), pixel) * within(y, 0.88, 1.32, pixel)
    colour = mix(mix(colour, paint, body), 0.9 * paint, cabin)
    colour = mix(colour, _glass(x, y, "#1c232a"), pane * (1 - within(place + 0.25, -0.05, 0.05, pixel)))
    for at in (-1.35, 1.35):
        away = ((place - at).square() + (y - 0.31).square()).sqrt()
        colour = mix(colour, rgb("#121316"), ((0.33 - away) / pixel + 0.5).clamp(0, 1))
        colour = mix(colour, rgb("#8f9296"), ((0.17 - away) / pixel + 0.5).clamp(0, 1))
    lamps = within(place.abs(), 1.98, 2.14, pixel) * within(y, 0.58, 0.74, pixel)
    return mix(colour, torch.where((place > 0)[..., None], rgb("#d8d2bb"), rgb("#9c1c1c")), lamps)


def _corridor(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """A painted wall indoors: a darker lower half, doors, notices."""
    place, number = beat(x, 3.0)
    colour = torch.where((y < 1.05)[..., None], second, first).expand(*x.shape, 3)
    colour = mix(colour, rgb("#6a5a48"), within(y, 1.02, 1.10, pixel)) * (0.92 + 0.05 * y)[..., None]
    paper = torch.stack([speckle(x / 0.3, y / 0.4, torch.tensor(s)) for s in (0.1, 0.4, 0.9)], -1)
    board = within(place - 1.3, -0.75, 0.75, pixel) * within(y, 1.25, 2.1, pixel) * (chance(number, 0.2) < 0.6)
    notices = (paper.mean(-1) > 0.42) & (beat(x, 0.3)[0].abs() < 0.11) & (beat(y - 0.2, 0.4)[0].abs() < 0.16)
    colour = mix(mix(colour, rgb("#8b6a45"), board), 0.45 + 0.5 * paper, board * notices)
    door = within(place, -0.5, 0.5, pixel) * within(y, 0.0, 2.1, pixel)
    colour = mix(colour, rgb("#d9d5cb"), within(place, -0.58, 0.58, pixel) * within(y, 0.0, 2.18, pixel))
    colour = mix(colour, rgb("#7c5336") * (0.9 + 0.2 * noise(58, x * 3, y * 0.4))[..., None], door)
    return mix(colour, rgb("#b7c4c6"), within(place, -0.12, 0.12, pixel) * within(y, 1.35, 1.85, pixel))


def _curtain(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """A hall's glass front against the day: bright panes and dark bars."""
    outside = mix(first.expand(*x.shape, 3), rgb("#86a06c"), 1.5 - 1.3 * y + noise(66, x * 0.3, y * 0.5))
    outside = outside * (1.05 + 0.12 * y + 0.10 * noise(67, x * 0.2, y * 0.2))[..., None]
    bars = torch.maximum(line(x, 1.8, 0.13, pixel), line(y - 0.1, 1.15, 0.10, pixel))
    return mix(outside, second, torch.maximum(bars, within(y, -1.0, 0.16, pixel)))


def _panels(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Enamel panels with bright posters."""
    panel = speckle(x / 1.2, y / 0.75, torch.tensor(0.53))
    colour = first * (0.93 + 0.10 * panel + 0.06 * torch.cos(x * 2.1))[..., None]
    colour = mix(colour, second, torch.maximum(line(x, 1.2, 0.03, pixel), line(y, 0.75, 0.03, pixel)))
    colour = mix(colour, second, within(y, 1.95, 2.25, pixel))
    place, number = beat(x + 1.1, 4.3)
    frame = within(place, -0.85, 0.85, pixel) * within(y, 0.55, 1.85, pixel)
    poster = within(place, -0.78, 0.78, pixel) * within(y, 0.62, 1.78, pixel)
    tint = 0.7 * _paint(number, 0.87) + 0.3 * _paint(number + (noise(68, x * 0.5, y * 0.5) > 0).float(), 0.11)
    return mix(mix(colour, rgb("#1b1d20"), frame), tint.clamp(0, 1), poster)


def _bamboo(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """A thicket of stems."""
    colour = 0.45 * second * (1 + 0.6 * noise(69, x * 0.8, y * 0.6))[..., None]
    for period, width, seed, bend in ((0.34, 0.09, 0.3, 0.05), (0.53, 0.11, 0.6, -0.04)):
        place, number = beat(x + bend * y, period)
        tone = 0.65 + 0.6 * chance(number, seed)
        stem = within(place, -width / 2, width / 2, pixel)
        knots = 1 - 0.35 * line(y + number * 0.13, 0.42, 0.035, pixel)
        colour = mix(colour, first * (tone * knots * (1 - 3 * place))[..., None].clamp(0.3, 1.5), stem)
    leaves = noise(70, x * 1.3, y * 1.6) > 0.75 - 0.42 * y
    return torch.where(leaves[..., None], first * (0.8 + 0.6 * noise(23, x * 3, y * 3))[..., None], colour)


def _slope(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """A retaining wall of rubble under a bank of shrubs in flower."""
    row = (y / 0.26).floor()
    moved = x + 0.31 * row + 0.10 * noise(71, x * 0.8, row)
    stones = mix(first.expand(*x.shape, 3), 0.65 * first, speckle(moved / 0.43, row, torch.tensor(0.77)))
    stones = mix(stones, 0.35 * first, torch.maximum(line(moved, 0.43, 0.045, pixel), line(y, 0.26, 0.04, pixel)))
    leaves = 0.5 * noise(21, x * 0.5, y * 0.5) + 0.5 * noise(23, x * 2.6, y * 2.6)
    bank = second * (0.85 + 0.9 * leaves)[..., None].clamp(0.3, 1.7)
    flower = noise(72, x * 2.9, y * 2.9) > 0.52
    bank = torch.where(flower[..., None], rgb("#c85a8e"), bank)
    colour = mix(stones, rgb("#a9a59b"), within(y, 0.98, 1.16, pixel))
    return torch.where((y > 1.16 - 0.25 * leaves.clamp(0, 1))[..., None], bank, colour)


def _flats(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """A plastered front with barred windows, a painted base and air conditioners."""
    place, number = beat(x, 2.5)
    colour = first * (0.96 + 0.10 * noise(73, x * 0.4, y * 0.3))[..., None]
    colour = torch.where((y < 0.62)[..., None], second * (0.95 + 0.1 * noise(59, x, y))[..., None], colour)
    colour = colour * (1 - 0.25 * ((noise(74, x * 0.9, 0 * y) > 0.3) * (y < 2.4)).float())[..., None].clamp(0.8, 1)
    window = within(place, -0.62, 0.62, pixel) * within(y, 0.95, 2.3, pixel)
    colour = mix(colour, rgb("#e6e3da"), within(place, -0.7, 0.7, pixel) * within(y, 0.87, 2.38, pixel))
    curtain = mix(_glass(x, y), _paint(number, 0.47), 0.7 * (chance(number, 0.9) < 0.5) * (place < 0))
    colour = mix(colour, curtain, window)
    colour = mix(colour, rgb("#d8d8d4"), window * line(x, 0.16, 0.022, pixel))
    cooler = within(place - 1.05, -0.33, 0.33, pixel) * within(y, 0.72, 1.22, pixel) * (chance(number, 0.31) < 0.7)
    fan = ((place - 1.1).square() + (y - 0.97).square()).sqrt() < 0.19
    return mix(mix(colour, rgb("#c9ccc8"), cooler), rgb("#5d6164"), cooler * fan)


def _hoarding(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Corrugated sheets round a building site, with a band along their foot."""
    wave = torch.cos(x * 24) * (0.16 / (1 + pixel * 20))
    sheet = 0.95 + 0.1 * chance((x / 1.9).floor(), 0.66)
    colour = first * (sheet + wave)[..., None]
    slanted = ((x + y) / 0.35).floor() % 2 > 0
    band = torch.where(slanted[..., None], rgb("#e0b429"), rgb("#26262a"))
    colour = mix(colour, second, torch.maximum(line(x, 1.9, 0.09, pixel), within(y, 1.5, 1.66, pixel)))
    return mix(colour, band.expand_as(colour), within(y, 0.12, 0.36, pixel))


def _timber(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Upright boards with a long low window."""
    board = (x / 0.21).floor()
    grain = noise(58, x * 3.3, y * 0.3)
    colour = mix(first.expand(*x.shape, 3), second, 0.8 * chance(board, 0.58) + 0.25 * grain)
    colour = mix(colour, 0.4 * second, line(x, 0.21, 0.02, pixel))
    place, _ = beat(x, 6.4)
    hole = within(place, -1.9, 1.9, pixel) * within(y, 1.05, 2.0, pixel)
    colour = mix(colour, rgb("#2b2521"), within(place, -2.0, 2.0, pixel) * within(y, 0.95, 2.1, pixel))
    return mix(colour, mix(_glass(x, y, "#3b4650"), rgb("#efd49a"), 0.35 + 0.3 * noise(68, x * 0.25, y * 0.25)), hole)


def _blocks(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """A screen of pierced blocks between plain piers."""
    px, py = beat(x, 0.4)[0], beat(y, 0.4)[0]
    hole = (px.square() + py.square()).sqrt() < 0.135
    rim = (px.square() + py.square()).sqrt() < 0.165
    colour = first * (0.95 + 0.12 * speckle((x / 0.4).round(), (y / 0.4).round(), torch.tensor(0.41)))[..., None]
    colour = mix(colour, 0.7 * first, torch.maximum(line(x + 0.2, 0.4, 0.02, pixel), line(y + 0.2, 0.4, 0.02, pixel)))
    colour = torch.where(rim[..., None], 0.8 * first, colour)
    colour = torch.where((hole & (y > 0.4))[..., None], second * (0.8 + 0.4 * noise(64, x, y))[..., None], colour)
    return mix(colour, 1.08 * first.expand_as(colour), line(x, 4.1, 0.7, pixel))


def _boards(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """A long row of notice boards under a roof, a hedge behind."""
    hedge = first * (0.7 + 0.8 * (0.5 * noise(21, x * 0.5, y * 0.5) + 0.6 * noise(22, x * 1.7, y * 1.7)))[..., None]
    place, number = beat(x, 2.3)
    board = within(place, -0.98, 0.98, pixel) * within(y, 0.85, 2.05, pixel)
    paper = 0.72 + 0.25 * torch.stack([speckle(x / 0.45, y / 0.35, torch.tensor(s)) for s in (0.3, 0.6, 0.8)], -1)
    ground = mix(
        0.5 + 0.4 * _paint(number, 0.23), paper, (beat(x, 0.45)[0].abs() < 0.17) * (beat(y, 0.35)[0].abs() < 0.13)
    )
    colour = mix(hedge, second, within(place.abs(), 0.98, 1.07, pixel) * (y < 2.3))
    colour = mix(colour, second, within(place, -1.05, 1.05, pixel) * within(y, 0.78, 2.12, pixel))
    return mix(mix(colour, ground, board), 0.6 * second, within(y, 2.2, 2.4, pixel))


def _shelter(x: Tensor, y: Tensor, first: Tensor, second: Tensor, pixel: Tensor) -> Tensor:
    """Bus shelters before a street: posts, a lit advertisement, a far pavement."""
    street = mix(first.expand(*x.shape, 3), rgb("#55585c"), within(y, 0.35, 1.0, pixel) + 0.3 * noise(65, x * 0.2, y))
    place, number = beat(x, 6.8)
    street = mix(
        street, 0.75 * _paint(number, 0.71), within(place - 2.4, -1.3, 1.3, pixel) * within(y, 0.45, 1.5, pixel)
    )
    glass = within(place + 0.6, -1.9, 1.9, pixel) * within(y, 0.25, 2.15, pixel)
    colour = mix(street, rgb("#bfcbd0"), 0.35 * glass)
    colour = mix(colour, second, torch.maximum(line(x + 0.6, 1.27, 0.06, pixel) * glass, within(y, 2.15, 2.45, pixel)))
    advert = within(place - 1.0, -0.55, 0.55, pixel) * within(y, 0.4, 2.0, pixel)
    tint = mix(
        _paint(number, 0.19), rgb("#f2ead2"), within(y, 0.55, 1.15, pixel) * within(place - 1.0, -0.4, 0.3, pixel)
    )
    return mix(colour, tint, advert)


WALLS: dict[str, Callable] = {
    "ashlar": _ashlar,
    "arcade": _arcade,
    "fence": _fence,
    "cars": _cars,
    "corridor": _corridor,
    "curtain": _curtain,
    "panels": _panels,
    "bamboo": _bamboo,
    "slope": _slope,
    "flats": _flats,
    "hoarding": _hoarding,
    "timber": _timber,
    "blocks": _blocks,
    "boards": _boards,
    "shelter": _shelter,
}
