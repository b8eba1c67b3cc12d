"""The painter: gives each covered sample its colour and its LIP label, in the coordinates of the body it lies on."""

import torch
from torch import Tensor

from . import body, builder
from .body import has
from .cloth import noise, speckle, stripes, weave
from .draw import Parts, Samples
from .people import BAG, HAIR, LOWER, PATTERN, SHOES, UPPER

LIP = (
    "background",
    "hat",
    "hair",
    "glove",
    "sunglasses",
    "upper-clothes",
    "dress",
    "coat",
    "socks",
    "pants",
    "jumpsuits",
    "scarf",
    "skirt",
    "face",
    "left-arm",
    "right-arm",
    "left-leg",
    "right-leg",
    "left-shoe",
    "right-shoe",
)


class Surface:
    """Samples of one material with their coordinates; `surface.of(name)` looks an attribute of their wearer up."""

    def __init__(self, rows: Tensor, fields: dict[str, Tensor], person: dict[str, Tensor]):
        self.rows, self.person = rows, person
        self.owner = fields["owner"][rows]
        self.s = fields["s"][rows]
        self.place = fields["place"][rows]  # x, y, z in statures above the pelvis
        self.along, self.side = fields["along"][rows], fields["side"][rows]
        self.colour = fields["colour"][rows]
        self.angle = torch.atan2(self.s[:, 0], self.s[:, 1])  # 0 in front, positive to the left
        self.shade = torch.ones_like(self.along)

    def of(self, name: str) -> Tensor:
        return self.person[name].index_select(0, self.owner)

    def wears(self, name: str, words: tuple[str, ...], *wanted: str) -> Tensor:
        return has(self.person, name, words, *wanted).index_select(0, self.owner)

    def sided(self, left: int) -> Tensor:
        """The label `left` for the person's left side and the next one for the right."""
        return torch.where(self.side > 0, left, left + 1)


def _mix(colour: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    return torch.lerp(colour, other, weight.to(colour.dtype)[:, None])


def _upper_label(at: Surface) -> Tensor:
    label = torch.where(at.wears("upper", UPPER, "dress"), 6, 5)
    return torch.where(at.wears("upper", UPPER, "coat", "jacket"), 7, label)


def _lower_label(at: Surface) -> Tensor:
    label = torch.where(at.wears("lower", LOWER, "skirt"), 12, 9)
    return torch.where(at.wears("upper", UPPER, "dress"), 6, label)


def _lower_cloth(at: Surface, around: Tensor, along: Tensor) -> Tensor:
    """Cloth of trousers, shorts, skirts; a dress goes on below the waist."""
    dress = at.wears("upper", UPPER, "dress")
    base = torch.where(dress[:, None], at.of("upper_colour"), at.of("lower_colour"))
    kind = torch.where(dress, at.of("pattern"), at.of("lower_pattern"))
    second = torch.where(dress[:, None], at.of("second_colour"), 0.5 * at.of("lower_colour") + 0.28)
    return _mix(base, second, weave(kind, around, along, at.of("period"), at.of("print_seed")))


def _folds(at: Surface, around: Tensor, along: Tensor, strength: float) -> None:
    seed = at.of("print_seed")
    at.shade = at.shade * (1 + strength * noise(3, around * 1.3 + along * 0.7 + seed * 7, along * 1.1 + seed * 3))


def face(at: Surface) -> tuple[Tensor, Tensor]:
    """Skin with eyes, brows, mouth, cheeks and beard in front; the hairline above."""
    skin, hair = at.of("skin_colour"), at.of("hair_colour")
    local = (at.place - at.of("head place"))[:, None, :] @ at.of("head axes")  # statures: left, up, front
    x, y, z = (local[:, 0] * (at.of("height") / at.of("head size")[:, 0])[:, None]).unbind(1)
    front = z > 0.012
    wide = x.abs()
    colour = skin * (1.03 - 0.8 * (wide * 6).square().clamp(max=0.12))[:, None]
    rosy = front & (((wide - 0.022) / 0.014).square() + ((y + 0.016) / 0.012).square() < 1)
    colour = _mix(colour, torch.tensor([0.80, 0.42, 0.38], device=x.device).expand_as(skin), 0.22 * rosy)
    beard = front & (y < -0.030) & (at.of("beard") > 0)
    colour = _mix(colour, hair, 0.55 * beard)
    mouth = front & (((x / 0.0165).square() + ((y + 0.038) / 0.0048).square()) < 1)
    lips = torch.tensor([0.66, 0.25, 0.24], device=x.device).expand_as(skin) * (
        0.35 + 0.65 * skin.mean(1, keepdim=True)
    )
    colour = _mix(colour, lips, 0.8 * mouth)
    brow = front & (((wide - 0.0195) / 0.0125).square() + ((y - 0.0190) / 0.0040).square() < 1)
    colour = _mix(colour, hair * 0.8, 0.75 * brow)
    socket = front & (((wide - 0.0185) / 0.0115).square() + ((y - 0.0070) / 0.0075).square() < 1)
    colour = _mix(colour, skin * 0.74, 0.6 * socket)
    eye = front & (((wide - 0.0185) / 0.0090).square() + ((y - 0.0060) / 0.0040).square() < 1)
    colour = _mix(colour, torch.full_like(skin, 0.82), 0.75 * eye)
    iris = front & (((wide - 0.0185) / 0.0052).square() + ((y - 0.0062) / 0.0048).square() < 1)
    colour = _mix(colour, torch.full_like(skin, 0.08), 0.95 * iris)
    line = torch.where(
        at.wears("hair", HAIR, "fringe", "bob"), 0.027, torch.where(at.wears("hair", HAIR, "bald"), 1.0, 0.046)
    ) + 0.10 * wide * (0.0 - (at.wears("hair", HAIR, "short", "long")).float())
    hairy = (y > line) & ~at.wears("hair", HAIR, "bald")
    colour = _mix(colour, hair, hairy.float())
    return colour, torch.where(hairy, 2, 13)


def hair(at: Surface) -> tuple[Tensor, Tensor]:
    """Strands and a soft gloss."""
    strands = noise(5, at.angle * 0.9, at.s[:, 2] * 0.12 + at.of("print_seed"))
    curls = at.wears("hair", HAIR, "curly").float() * noise(7, at.angle * 0.8, at.s[:, 2] * 0.8)
    gloss = torch.exp(-((at.s[:, 2] - 0.45) / 0.22).square()) * 0.5
    at.shade = at.shade * (1 + 0.30 * strands + 0.45 * curls + gloss * (0.6 + 0.4 * strands))
    return at.of("hair_colour"), torch.full_like(at.owner, 2)


def neck(at: Surface) -> tuple[Tensor, Tensor]:
    """Skin in the shadow of the chin; high collars of coats and sweaters."""
    at.shade = at.shade * (0.70 + 0.22 * at.along)
    collar = at.wears("upper", UPPER, "jacket", "shirt") & (at.along > 0.74)
    return _mix(at.of("skin_colour"), at.of("upper_colour"), collar.float()), torch.where(collar, _upper_label(at), 13)


def _straps(at: Surface, colour: Tensor, x: Tensor, v: Tensor, front: Tensor) -> Tensor:
    """Straps of backpacks (both shoulders, in front) and of shoulder bags (across, in front and behind)."""
    pack = at.wears("bag", BAG, "backpack") & front & ((x.abs() - 0.060).abs() < 0.0115) & (v > 0.10)
    slope = (0.29 - v) / 0.26
    across = (x * at.of("bag_side") - (-0.065 + 0.165 * slope)).abs() < 0.0095
    across &= at.wears("bag", BAG, "shoulder bag")
    return _mix(colour, at.of("bag_colour") * 0.9, (pack | across).float())


def _opening(at: Surface, colour: Tensor, label: Tensor, x: Tensor, v: Tensor, front: Tensor) -> tuple[Tensor, Tensor]:
    """Fronts of open coats (inner layer between two lapels), zips and button rows of closed ones, shirt plackets."""
    coat, jacket = at.wears("upper", UPPER, "coat"), at.wears("upper", UPPER, "jacket")
    is_open = coat | (jacket & (at.of("fit") < 0.6))
    width = 0.014 + 0.018 * ((0.30 - v) / 0.30).clamp(0, 1.2) + 0.026 * ((v - 0.20) / 0.10).clamp(0, 1)
    width = width * (0.8 + 0.5 * at.of("lower_fit"))
    gap = front & is_open & (x.abs() < width)
    lapel = front & is_open & ~gap & (x.abs() < width + 0.020) & (v > 0.13)
    at.shade = at.shade * torch.where(lapel, 1.16, 1.0)
    edge = front & is_open & ~gap & (x.abs() < width + 0.005)
    at.shade = at.shade * torch.where(edge, 0.62, 1.0)
    inner = at.of("inner_colour") * (0.90 - 0.10 * stripes(v, torch.full_like(v, 0.05)))[:, None]
    colour = _mix(colour, inner, gap.float())
    label = torch.where(gap, 5, label)
    seam = front & ((jacket & ~is_open) | at.wears("upper", UPPER, "shirt")) & (x.abs() < 0.0045)
    at.shade = at.shade * torch.where(seam, 0.68, 1.0)
    return colour, label


def _neckline(at: Surface, colour: Tensor, label: Tensor, x: Tensor, v: Tensor, front: Tensor) -> tuple[Tensor, Tensor]:
    """Skin in round and pointed necklines and beside the straps of tank tops."""
    tank, dress, shirt = (at.wears("upper", UPPER, name) for name in ("tank", "dress", "shirt"))
    depth = torch.where(tank, 0.048, torch.where(dress, 0.042, torch.where(shirt, 0.034, 0.018)))
    depth = depth * (0.75 + 0.6 * at.of("fit"))
    curve = torch.where(shirt, x.abs() / 0.030, (x / 0.042).square())
    bare = front & (v > 0.296 - depth * (1 - curve)) & (curve < 1.1) & ~at.wears("upper", UPPER, "coat")
    sleeveless = tank | (dress & (at.of("sleeve") < 0.45))
    armhole = sleeveless & (x.abs() > 0.064 + 0.05 * ((0.275 - v) / 0.05).clamp(0, 2)) & (v > 0.20)
    colour = _mix(colour, at.of("skin_colour"), (bare | armhole).float())
    label = torch.where(bare, 13, label)
    label = torch.where(armhole & ~bare, torch.where(x > 0, 14, 15), label)
    rim = front & ~bare & (v > 0.285 - depth * (1 - curve)) & (curve < 1.4)
    at.shade = at.shade * torch.where(rim & ~armhole, torch.where(shirt, 1.18, 0.82), 1.0)
    return colour, label


def torso(at: Surface) -> tuple[Tensor, Tensor]:
    """The upper garment: weave, print, two tones, neckline, opening, straps, hem."""
    x, v, _ = at.place.unbind(1)
    front = at.s[:, 1] > 0
    height = at.of("height")
    around, along = at.angle * 0.105, v * height
    kind = at.of("pattern")
    weight = weave(kind, around, along, at.of("period"), at.of("print_seed"))
    two = (kind == PATTERN.index("two-tone")) & (v < 0.155)
    logo = (kind == PATTERN.index("logo")) & front & (((x / 0.058).square() + ((v - 0.205) / 0.050).square()) < 1)
    blocks = speckle(x * 55, v * 55, at.of("print_seed")) > 0.38
    weight = torch.where(two | (logo & blocks), 1.0, weight)
    colour = _mix(at.of("upper_colour"), at.of("second_colour"), weight)
    _folds(at, around, along, 0.13)
    waist = torch.exp(-((v - 0.10) / 0.02).square())
    at.shade = at.shade * (1 - 0.08 * waist * (0.5 + 0.5 * torch.sin(at.angle * 9)))
    label = _upper_label(at)
    colour, label = _opening(at, colour, label, x, v, front)
    colour, label = _neckline(at, colour, label, x, v, front)
    belt = (at.of("belt") > 0) & (
        at.wears("upper", UPPER, "dress") | (at.wears("upper", UPPER, "coat") & (at.of("sleeve") > 0.6))
    )
    colour = _mix(colour, at.of("shoe_colour") * 0.8, (belt & ((v - 0.095).abs() < 0.010)).float())
    return _straps(at, colour, x, v, front), label


def arm(at: Surface) -> tuple[Tensor, Tensor]:
    """Sleeve to its length, skin beyond it."""
    sleeve = at.along <= body.sleeve_length(at.person)[at.owner]
    kind = at.of("pattern")
    metres = torch.where(at.along < 0.021, 0.30 - at.place[:, 1], at.along * 0.33) * at.of("height")
    weight = weave(kind, at.angle * 0.05, metres + 0.02, at.of("period"), at.of("print_seed"))
    weight = torch.where(kind == PATTERN.index("raglan"), 1.0, weight)
    cloth = _mix(at.of("upper_colour"), at.of("second_colour"), weight)
    bare = ~sleeve
    _folds(at, at.angle * 0.06, metres * 1.6, 0.12)
    at.shade = torch.where(bare, 1 + (at.shade - 1) * 0.25, at.shade)
    colour = torch.where(bare[:, None], at.of("skin_colour"), cloth)
    return colour, torch.where(bare, at.sided(14), _upper_label(at))


def hand(at: Surface) -> tuple[Tensor, Tensor]:
    """Skin."""
    at.shade = at.shade * 0.96
    return at.of("skin_colour"), at.sided(14)


def leg(at: Surface) -> tuple[Tensor, Tensor]:
    """Trousers, leggings and tights to their length, then skin, then socks."""
    along = at.along
    dress_or_skirt = at.wears("upper", UPPER, "dress") | at.wears("lower", LOWER, "skirt")
    covered = along <= body.leg_length(at.person)[at.owner]
    tights = dress_or_skirt & (along > 0.05)
    cloth = _lower_cloth(at, at.angle * 0.09, along * 0.85)
    line = (at.of("lower_pattern") == PATTERN.index("pinstripes")) & ((at.angle.abs() - 1.57).abs() < 0.30)
    cloth = _mix(cloth, at.of("second_colour"), line.float() * (~dress_or_skirt).float())
    cloth = torch.where(tights[:, None], at.of("skin_colour") * 0.22 + 0.03, cloth)
    _folds(at, at.angle * 0.08, along * 0.9, 0.15)
    crease = torch.exp(-((along - 0.52) / 0.05).square()) * torch.sin(along * 160 + at.angle * 2)
    at.shade = at.shade * (1 + 0.07 * crease)
    at.shade = torch.where(covered, at.shade, 1 + (at.shade - 1) * 0.2)
    socks = ~covered & (along > 0.84) & (at.of("socks") > 0) & at.wears("shoes", SHOES, "sneakers", "boots")
    colour = torch.where(covered[:, None], cloth, at.of("skin_colour"))
    colour = torch.where(socks[:, None], at.of("sock_colour"), colour)
    label = torch.where(covered, torch.where(tights, 8, _lower_label(at)), at.sided(16))
    return colour, torch.where(socks, 8, label)


def shorts(at: Surface) -> tuple[Tensor, Tensor]:
    """Loose legs of shorts."""
    _folds(at, at.angle * 0.09, at.s[:, 2] * 0.4, 0.16)
    inside = at.s[:, 2] > 0.93
    at.shade = at.shade * torch.where(inside, 0.85, 1.0)
    return _lower_cloth(at, at.angle * 0.09, at.s[:, 2] * 0.4), torch.full_like(at.owner, 9)


def skirt(at: Surface) -> tuple[Tensor, Tensor]:
    """Skirts and dresses with pleats, tails of coats with their opening."""
    x, v, _ = at.place.unbind(1)
    coat = at.wears("upper", UPPER, "coat") & ~at.wears("upper", UPPER, "dress")
    cloth = _lower_cloth(at, at.angle * 0.13, at.along * 0.5)
    upper = _mix(
        at.of("upper_colour"),
        at.of("second_colour"),
        weave(at.of("pattern"), at.angle * 0.105, v * at.of("height"), at.of("period"), at.of("print_seed")),
    )
    colour = torch.where(coat[:, None], upper, cloth)
    pleats = torch.sin(at.angle * 14 + 3 * noise(3, at.angle * 0.2, at.along * 0.3))
    at.shade = at.shade * (1 + torch.where(coat, 0.03, 0.12) * pleats * at.along.clamp(0.2, 1))
    _folds(at, at.angle * 0.1, at.along * 0.3, 0.09)
    label = torch.where(coat, 7, _lower_label(at))
    width = (0.030 + 0.022 * at.along) * (0.8 + 0.5 * at.of("lower_fit"))
    gap = coat & (at.s[:, 1] > 0) & (x.abs() < width)
    skirted = at.wears("lower", LOWER, "skirt")
    colour = torch.where(gap[:, None], at.of("lower_colour") * 0.92, colour)
    edge = coat & ~gap & (at.s[:, 1] > 0) & (x.abs() < width + 0.006)
    at.shade = at.shade * torch.where(edge, 0.62, 1.0)
    return colour, torch.where(gap, torch.where(skirted, 12, 9), label)


def shoe(at: Surface) -> tuple[Tensor, Tensor]:
    """Uppers, soles, and the skin between the straps of sandals."""
    colour = at.of("shoe_colour")
    sole = at.s[:, 1] < -0.35
    sneaker, sandal = at.wears("shoes", SHOES, "sneakers"), at.wears("shoes", SHOES, "sandals")
    sole_colour = torch.where(sneaker[:, None], torch.full_like(colour, 0.86), colour * 0.45)
    open_top = sandal & ~sole & (torch.sin(at.s[:, 2] * 7) > -0.1)
    colour = torch.where(open_top[:, None], at.of("skin_colour") * 0.92, colour)
    return torch.where(sole[:, None], sole_colour, colour), at.sided(18)


def bag(at: Surface) -> tuple[Tensor, Tensor]:
    """Bags: they belong to the person's mask and, as LIP has no bag, carry the label of the upper garment."""
    pocket = (at.along > 0.5) & (at.s[:, 2].abs() < 0.9)
    zip_line = (at.along < 0.5) & ((at.s[:, 2] + 0.42).abs() < 0.035)
    at.shade = at.shade * torch.where(pocket, 0.88, 1.0) * torch.where(zip_line, 0.6, 1.0)
    _folds(at, at.angle * 0.1, at.s[:, 2] * 0.2, 0.08)
    return at.of("bag_colour"), _upper_label(at)


def hat(at: Surface) -> tuple[Tensor, Tensor]:
    """Hats with a darker band."""
    at.shade = at.shade * (1 + 0.06 * torch.sin(at.angle * 12))
    return at.of("hat_colour"), torch.full_like(at.owner, 1)


def lenses(at: Surface) -> tuple[Tensor, Tensor]:
    """Dark glasses."""
    return torch.full_like(at.s, 0.07), torch.full_like(at.owner, 4)


def scarf(at: Surface) -> tuple[Tensor, Tensor]:
    """A wound scarf."""
    at.shade = at.shade * (1 + 0.2 * torch.sin(at.s[:, 2] * 8 + at.angle * 2))
    return at.of("second_colour"), torch.full_like(at.owner, 11)


PAINTERS = {
    builder.FACE: face,
    builder.HAIRS: hair,
    builder.NECK: neck,
    builder.TORSO: torso,
    builder.ARM: arm,
    builder.HAND: hand,
    builder.LEG: leg,
    builder.SKIRT: skirt,
    builder.SHORTS: shorts,
    builder.SHOE: shoe,
    builder.BAGS: bag,
    builder.HATS: hat,
    builder.LENSES: lenses,
    builder.SCARF: scarf,
}


def paint(
    parts: Parts, samples: Samples, person: dict[str, Tensor], rotation: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour, label, view normal and shade of each sample: float [S, 3], int64 [S], float [S, 3], float [S].

    `rotation` and `shift` carry each person's body frame into its view; `person` also holds "pelvis", "head place" and
    "head axes" in statures. Objects (owner -1) take their own colour and label 0.
    """
    part = samples.part
    local = parts.to_local.index_select(0, part)  # [S, 3, 4]
    x, y, depth = samples.view[:, :, None].unbind(1)  # [S, 1]
    s = local[:, :, 0] * x + local[:, :, 1] * y + local[:, :, 2] * depth + local[:, :, 3]
    gradient = torch.stack([s[:, 0], s[:, 1], parts.alpha[part] * s[:, 2] - parts.taper[part]], 1)
    normal = gradient[:, :1] * local[:, 0, :3] + gradient[:, 1:2] * local[:, 1, :3] + gradient[:, 2:] * local[:, 2, :3]
    normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-6)
    normal = normal * torch.where(normal[:, 2:] > 0, -1.0, 1.0)  # insides face the viewer too
    owner = parts.owner[part]
    known = owner.clamp(min=0)
    moved, turned = samples.view - shift[known], rotation[known]
    place = moved[:, :1] * turned[:, 0] + moved[:, 1:2] * turned[:, 1] + moved[:, 2:] * turned[:, 2]  # R^T (v - t)
    extra = parts.extra[part]
    fields = {
        "owner": known,
        "s": s,
        "place": (place - person["pelvis"][known]) / person["height"][known, None],
        "along": extra[:, 0] + (extra[:, 1] - extra[:, 0]) * s[:, 2].clamp(0, 1),
        "side": extra[:, 2],
        "colour": extra[:, 3:],
    }
    colour, shade = extra[:, 3:].clone(), torch.ones(len(part), device=s.device)
    label = torch.zeros_like(part)
    material = parts.material[part]
    for kind, painter in PAINTERS.items():
        rows = (material == kind).nonzero()[:, 0]
        if len(rows):
            surface = Surface(rows, fields, person)
            colour[rows], label[rows] = painter(surface)
            shade[rows] = surface.shade
    return colour, label, normal, shade
