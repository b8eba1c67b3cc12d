"""Bodies: every person's ellipsoids and tubes, dressed by their attributes."""

import torch
from torch import Tensor

from .builder import (
    ARM,
    BAGS,
    FACE,
    HAIRS,
    HAND,
    HATS,
    LEG,
    LENSES,
    NECK,
    SCARF,
    SHOE,
    SHORTS,
    SKIRT,
    TORSO,
    Builder,
    limb_axes,
)
from .people import BAG, HAIR, HAT, LOWER, SHOES, UPPER


def has(person: dict[str, Tensor], name: str, words: tuple[str, ...], *wanted: str) -> Tensor:
    """Say who has one of the wanted values of an attribute, bool [N]."""
    match = torch.zeros_like(person[name], dtype=torch.bool)
    for word in wanted:
        match |= person[name] == words.index(word)
    return match


def build(person: dict[str, Tensor], joints: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the parts of N dressed people, tensors [N, P, ...] in the body frame."""
    h = person["height"]
    builder = Builder(len(h), h.device)
    _head(builder, person, joints)
    _torso(builder, person, joints)
    for side, sign in (("right", -1.0), ("left", 1.0)):
        _arm(builder, person, joints, side, sign)
        _leg(builder, person, joints, side, sign)
    _skirt(builder, person, joints)
    _bags(builder, person, joints)
    return builder.stack()


def _head(b: Builder, person: dict[str, Tensor], joints: dict[str, Tensor]) -> None:
    """Skull, jaw, nose, ears, neck, hair in nine styles, hats, glasses."""
    axes = torch.stack([joints["head left"], joints["head front"], joints["head up"]], -1)  # s = (left, front, up)
    s = joints["head size"][:, :1]
    centre = joints["head"]

    def at(x: float, y: float, z: float) -> Tensor:
        return centre + s * (x * joints["head left"] + y * joints["head up"] + z * joints["head front"])

    def size(x: float, z: float, y: float) -> Tensor:
        return s * torch.tensor([x, z, y], device=s.device)

    b.ellipsoid(FACE, at(0, 0.012, 0), axes, size(0.0445, 0.0545, 0.0565))
    b.ellipsoid(FACE, at(0, -0.024, 0.013), axes, size(0.0355, 0.0405, 0.043))
    b.ellipsoid(FACE, at(0, -0.010, 0.053), axes, size(0.0085, 0.012, 0.016))
    for sign in (-1.0, 1.0):
        b.ellipsoid(
            FACE,
            at(sign * 0.0445, -0.002, -0.003),
            axes,
            size(0.007, 0.011, 0.018),
            side=sign,
            on=~has(person, "hair", HAIR, "bob", "long", "curly"),
        )
    b.tube(
        NECK,
        at(0, -0.03, -0.008),
        joints["neck"] - 0.012 * person["height"][:, None] * joints["spine"],
        0.0285 * s[:, 0],
        0.035 * s[:, 0],
    )
    hair = has(person, "hair", HAIR, *(name for name in HAIR if name != "bald"))
    close = has(person, "hair", HAIR, "cropped")
    curly = has(person, "hair", HAIR, "curly")
    grow = torch.where(close, 1.04, torch.where(curly, 1.34, 1.13))[:, None]
    # Hair keeps what lies above and behind a plane that runs from the forehead to the nape.
    low = torch.where(close, 0.20, torch.where(has(person, "hair", HAIR, "fringe", "bob"), 0.02, 0.12))
    b.ellipsoid(
        HAIRS,
        at(0, 0.016, -0.004),
        axes,
        size(0.0455, 0.0555, 0.0575) * grow,
        clip=(0.0, -0.72, 0.70, low - 0.28, 3.0),
        on=hair,
        bias=-0.002,
    )
    b.ellipsoid(
        HAIRS,
        at(0, -0.028, -0.024),
        axes,
        size(0.0535, 0.040, 0.060),
        clip=(0.0, -1.0, 0.0, -0.45, 2.0),
        on=has(person, "hair", HAIR, "bob", "long"),
    )
    b.ellipsoid(
        HAIRS,
        at(0, -0.085, -0.040),
        axes,
        size(0.052, 0.026, 0.105),
        clip=(0.0, -1.0, 0.0, -0.5, 2.0),
        on=has(person, "hair", HAIR, "long"),
        bias=-0.012,
    )
    b.ellipsoid(HAIRS, at(0, 0.030, -0.066), axes, size(0.018, 0.020, 0.020), on=has(person, "hair", HAIR, "ponytail"))
    b.tube(
        HAIRS,
        at(0, 0.030, -0.070),
        at(0, -0.10, -0.085),
        0.021 * s[:, 0],
        0.011 * s[:, 0],
        on=has(person, "hair", HAIR, "ponytail"),
        bias=-0.01,
    )
    b.ellipsoid(HAIRS, at(0, 0.052, -0.050), axes, size(0.026, 0.026, 0.026), on=has(person, "hair", HAIR, "bun"))
    cap, sun, wool = (has(person, "hat", HAT, name) for name in ("cap", "sun hat", "beanie"))
    b.ellipsoid(
        HATS,
        at(0, 0.024, -0.002),
        axes,
        size(0.053, 0.065, 0.060),
        clip=(0.0, -0.12, 1.0, 0.12, 2.0),
        on=cap | sun | wool,
        bias=-0.012,
    )
    b.ellipsoid(HATS, at(0, 0.034, 0.062), axes, size(0.042, 0.045, 0.007), on=cap, bias=-0.01)
    b.ellipsoid(HATS, at(0, 0.032, 0.0), axes, size(0.098, 0.108, 0.010), on=sun, bias=-0.01)
    b.ellipsoid(LENSES, at(0, 0.006, 0.046), axes, size(0.042, 0.014, 0.0085), on=person["glasses"] > 0, bias=-0.006)


def _torso(b: Builder, person: dict[str, Tensor], joints: dict[str, Tensor]) -> None:
    """Shoulders, chest, waist and hips: the surface of the upper garment."""
    h, girth, female = person["height"], person["girth"], person["figure"]
    spine, neck, pelvis = joints["spine"], joints["neck"], joints["pelvis"]
    left = joints["left shoulder"] - joints["right shoulder"]
    half = left.norm(dim=1) / 2
    left = left / left.norm(dim=1, keepdim=True)
    axes = limb_axes(-spine, left)
    hips_left = joints["left hip"] - joints["right hip"]
    heavy = has(person, "upper", UPPER, "jacket", "coat").float() + 0.5 * has(person, "upper", UPPER, "sweater").float()
    cloth = 0.004 + 0.009 * heavy + 0.004 * person["fit"]
    grow = (girth - 1) * 0.9 + 1
    loose = person["fit"] * has(person, "upper", UPPER, "tee", "shirt", "sweater", "jacket").float()

    def up(height: float) -> Tensor:  # a point of the spine, in statures
        return pelvis + (height * h)[:, None] * spine

    chest = (0.092 - 0.006 * female) * h * grow + cloth
    waist = (0.084 - 0.010 * female) * h * (1.4 * (girth - 1) + 1) + cloth + 0.010 * loose
    hip = (0.090 + 0.008 * female) * h * grow + cloth
    b.tube(TORSO, neck - (0.024 * h)[:, None] * spine, up(0.215), half * 0.86 + cloth, chest, flat=0.60, left=left)
    b.ellipsoid(
        TORSO,
        neck - (0.030 * h)[:, None] * spine,
        axes,
        torch.stack([half * 0.98 + cloth, 0.047 * h + cloth, 0.030 * h + cloth], -1),
    )
    for side in ("right", "left"):  # the slope from neck to shoulder
        b.tube(
            TORSO,
            neck + (0.010 * h)[:, None] * spine,
            joints[f"{side} shoulder"] + (0.004 * h)[:, None] * spine,
            0.023 * h + cloth,
            0.025 * h + cloth,
            flat=1.35,
            left=-spine,
        )
    b.tube(TORSO, up(0.216), up(0.10), chest, waist, flat=0.64, left=left)
    hem = 0.035 - 0.07 * person["fit"] * (1 - person["tucked"])
    b.tube(TORSO, up(0.101), up(0.03), waist, hip, flat=0.66, left=hips_left)
    b.tube(
        TORSO,
        up(0.031),
        pelvis + (hem * h)[:, None] * spine,
        hip,
        hip * (1.04 + 0.05 * loose),
        flat=0.70,
        left=hips_left,
        bias=-0.006,
    )
    b.ellipsoid(
        LEG,
        up(0.006),
        limb_axes(-spine, hips_left),
        torch.stack([hip * 0.97, hip * 0.67, 0.058 * h], -1),
        along=0.0,
        bias=0.004,
    )
    bust = up(0.205) + 0.040 * h[:, None] * axes[:, :, 1]
    b.ellipsoid(TORSO, bust, axes, torch.stack([0.072 * h, 0.024 * h * grow + cloth, 0.034 * h], -1), on=female > 0.5)
    belly = up(0.085) + (0.018 * h)[:, None] * axes[:, :, 1]
    b.ellipsoid(TORSO, belly, axes, torch.stack([waist * 0.85, waist * 0.62 * girth, 0.070 * h], -1), on=girth > 1.06)
    seat = up(0.002) - (0.022 * h)[:, None] * axes[:, :, 1]
    b.ellipsoid(LEG, seat, axes, torch.stack([hip * 0.88, 0.050 * h, 0.056 * h], -1), along=0.0, bias=0.004)
    b.ellipsoid(
        SCARF,
        neck + (0.006 * h)[:, None] * spine,
        axes,
        torch.stack([0.052 * h, 0.050 * h, 0.024 * h], -1),
        on=person["scarf"] > 0,
        bias=-0.02,
    )


def sleeve_length(person: dict[str, Tensor]) -> Tensor:
    """How far sleeves reach, in arm lengths: 0 none, 0.53 the elbow, 1 the wrist."""
    short = 0.26 + 0.16 * person["sleeve"]
    long = torch.where(person["sleeve"] < 0.2, 0.72, 0.985)
    upper = person["upper"]
    dress = torch.where(person["sleeve"] < 0.45, 0.03, short)
    table = torch.stack(
        [
            short,
            long,
            torch.full_like(short, 0.0),
            long,
            torch.full_like(short, 0.985),
            torch.full_like(short, 0.985),
            dress,
        ],
        -1,
    )
    return table.gather(1, upper[:, None])[:, 0]


def _arm(b: Builder, person: dict[str, Tensor], joints: dict[str, Tensor], side: str, sign: float) -> None:
    """Shoulder cap, upper arm, elbow, forearm, hand, and a loose short sleeve; `along` runs 0..1 to the wrist."""
    h, girth = person["height"], (person["girth"] - 1) * 0.8 + 1
    shoulder, elbow, wrist = (joints[f"{side} {name}"] for name in ("shoulder", "elbow", "wrist"))
    reach = sleeve_length(person)
    thick = torch.where(has(person, "upper", UPPER, "jacket", "coat"), 0.012, 0.006)
    upper, lower = thick * (reach > 0.2), thick * (reach > 0.6)
    slim = 1 - 0.09 * person["figure"]
    top = 0.0285 * h * girth * slim + upper
    mid = 0.0235 * h * girth * slim + upper
    fore = 0.0225 * h * girth * slim + lower
    end = 0.0150 * h * girth * slim + lower * 0.9
    down = (elbow - shoulder) / (elbow - shoulder).norm(dim=1, keepdim=True)
    out = limb_axes(down)
    b.ellipsoid(
        ARM,
        shoulder + (0.002 * h)[:, None] * down,
        out,
        torch.stack([top * 1.04, top * 1.14, top * 1.02], -1),
        along=0.02,
        side=sign,
    )
    b.tube(ARM, shoulder, elbow, top, mid, along=(0.0, 0.53), side=sign)
    b.ellipsoid(ARM, elbow, out, torch.stack([mid, mid, mid], -1), along=0.53, side=sign)
    b.tube(ARM, elbow, wrist, torch.maximum(fore, mid * 0.97), end, along=(0.53, 1.0), side=sign)
    short = (reach > 0.1) & (reach < 0.5)
    hem = shoulder + (elbow - shoulder) * (reach / 0.53)[:, None]
    loose = 0.006 + 0.009 * person["fit"]
    b.tube(
        ARM,
        shoulder + (elbow - shoulder) * 0.05,
        hem,
        top * 1.06,
        mid + loose + 0.006,
        along=(0.0, 0.0),
        side=sign,
        on=short,
    )
    hand_axis = joints[f"{side} reach"]
    turned = limb_axes(hand_axis)[:, :, [1, 0, 2]]  # palms face the thighs
    palm = wrist + (0.030 * h)[:, None] * hand_axis
    b.ellipsoid(HAND, palm, turned, torch.stack([0.0205 * h, 0.0125 * h, 0.034 * h], -1), side=sign)
    fingers = palm + (0.032 * h)[:, None] * hand_axis
    b.ellipsoid(HAND, fingers, turned, torch.stack([0.016 * h, 0.010 * h, 0.024 * h], -1), side=sign)


def leg_length(person: dict[str, Tensor]) -> Tensor:
    """How far the lower garment covers the leg: 0 bare, 0.5 the knee, 1 the ankle."""
    short = 0.22 + 0.34 * person["lower_length"]
    full = torch.full_like(short, 0.985)
    leggings = torch.where(person["lower_length"] < 0.4, 0.78, 0.985)
    bare = torch.where(person["tights"] > 0, full, torch.full_like(short, 0.04))
    table = torch.stack([full, short, bare, leggings], -1).gather(1, person["lower"][:, None])[:, 0]
    return torch.where(has(person, "upper", UPPER, "dress"), bare, table)


def _leg(b: Builder, person: dict[str, Tensor], joints: dict[str, Tensor], side: str, sign: float) -> None:
    """Thigh, knee, shank with calf, foot, and a loose leg of shorts; `along` runs 0..1 to the ankle."""
    h, girth, female = person["height"], (person["girth"] - 1) + 1, person["figure"]
    hip, knee, ankle = (joints[f"{side} {name}"] for name in ("hip", "knee", "ankle"))
    dress = has(person, "upper", UPPER, "dress")
    trousers = has(person, "lower", LOWER, "trousers") & ~dress
    skirted = has(person, "lower", LOWER, "skirt") | dress
    wide = torch.where(trousers, 0.005 + 0.014 * person["lower_fit"], torch.zeros_like(h))
    under = torch.where(skirted, 0.07, 0.0)  # thighs lie beneath skirts
    top = 0.0515 * h * girth * (1 + 0.06 * female) + wide
    middle = 0.0335 * h * girth + wide * 0.9
    low = 0.0205 * h * girth + wide * (0.8 + 0.6 * person["lower_length"])
    b.tube(LEG, hip + (hip - knee) * 0.06, knee, top, middle, along=(0.0, 0.5), side=sign, bias=under)
    axes = limb_axes((knee - hip) / (knee - hip).norm(dim=1, keepdim=True))
    b.ellipsoid(LEG, knee, axes, torch.stack([middle * 0.985, middle * 1.01, middle], -1), along=0.5, side=sign)
    b.tube(LEG, knee, ankle, middle * 0.98, low, along=(0.5, 1.0), side=sign)
    shank = limb_axes((ankle - knee) / (ankle - knee).norm(dim=1, keepdim=True))
    calf = knee + (ankle - knee) * 0.33 - (0.010 * h)[:, None] * shank[:, :, 1]
    b.ellipsoid(
        LEG,
        calf,
        shank,
        torch.stack([0.031 * h * girth, 0.032 * h * girth, 0.075 * h], -1),
        along=0.68,
        side=sign,
        on=~trousers,
    )
    length = leg_length(person)
    shorts = has(person, "lower", LOWER, "shorts") & ~dress
    hem = (
        hip
        + (knee - hip) * (length * 2).clamp(max=1.0)[:, None]
        + (ankle - knee) * (length * 2 - 1).clamp(min=0)[:, None]
    )
    start = hip + (hip - knee) * 0.08
    flare = torch.lerp(top, middle, (length * 2).clamp(max=1)) + 0.010 + 0.020 * person["lower_fit"]
    b.tube(SHORTS, start, hem, top + 0.008, flare, side=sign, on=shorts, bias=-0.004)
    _foot(b, person, joints, side, sign, ankle)


def _foot(
    b: Builder, person: dict[str, Tensor], joints: dict[str, Tensor], side: str, sign: float, ankle: Tensor
) -> None:
    """Heel, instep and toe of a shoe; boots reach up the shank."""
    h = person["height"]
    foot = joints[f"{side} foot"]
    axes = limb_axes(foot)  # (side, up, forward)
    up = axes[:, :, 1]
    sole = ankle - (0.024 * h)[:, None] * up
    b.ellipsoid(
        SHOE, sole - (0.006 * h)[:, None] * foot, axes, torch.stack([0.0205 * h, 0.0225 * h, 0.030 * h], -1), side=sign
    )
    b.ellipsoid(
        SHOE,
        sole + (0.050 * h)[:, None] * foot - (0.006 * h)[:, None] * up,
        axes,
        torch.stack([0.0245 * h, 0.0175 * h, 0.052 * h], -1),
        side=sign,
    )
    boots = has(person, "shoes", SHOES, "boots")
    shaft = ankle + (joints[f"{side} knee"] - ankle) * 0.30
    b.tube(SHOE, shaft, ankle - (0.01 * h)[:, None] * up, 0.029 * h, 0.025 * h, side=sign, on=boots, bias=-0.01)


def _skirt(b: Builder, person: dict[str, Tensor], joints: dict[str, Tensor]) -> None:
    """Skirts, the lower part of dresses and the tail of coats: flaring tubes that follow the stride."""
    h, spine, pelvis = person["height"], joints["spine"], joints["pelvis"]
    dress, coat = has(person, "upper", UPPER, "dress"), has(person, "upper", UPPER, "coat")
    skirt = has(person, "lower", LOWER, "skirt") & ~dress
    knees = (joints["left knee"] + joints["right knee"]) / 2
    spread = (joints["left knee"] - joints["right knee"]).norm(dim=1) / 2
    hips_left = joints["left hip"] - joints["right hip"]
    reach = torch.where(coat, 0.45 + 0.35 * person["sleeve"], 0.45 + 0.75 * person["lower_length"])  # in thighs
    hip = (0.090 + 0.008 * person["figure"]) * h * ((person["girth"] - 1) * 0.9 + 1) + 0.012 + 0.008 * coat
    start = pelvis + (0.045 * h)[:, None] * spine
    hem = pelvis + (knees - pelvis) * reach[:, None]
    flare = (
        hip * (1.06 + (0.12 + 0.5 * person["lower_fit"]) * reach * ~coat + 0.10 * coat)
        + 0.55 * (spread - 0.06 * h).clamp(min=0) * reach
    )
    middle = start + (hem - start) * 0.45
    bend = hip + (flare - hip) * 0.62
    on = dress | coat | skirt
    depth = 0.72 + 0.55 * ((spread / h - 0.055) * 3).clamp(0, 0.6)
    b.tube(SKIRT, start, middle, hip * 0.98, bend, flat=depth, left=hips_left, on=on, bias=-0.003, along=(0.0, 0.45))
    b.tube(SKIRT, middle, hem, bend, flare, flat=depth, left=hips_left, on=on, bias=-0.003, along=(0.45, 1.0))


def _bags(b: Builder, person: dict[str, Tensor], joints: dict[str, Tensor]) -> None:
    """A backpack on the back, a shoulder bag at the hip of one side, a bag that hangs from the hand."""
    h, spine, pelvis, neck = person["height"], joints["spine"], joints["pelvis"], joints["neck"]
    left = joints["left shoulder"] - joints["right shoulder"]
    left = left / left.norm(dim=1, keepdim=True)
    axes = limb_axes(-spine, left)
    front = axes[:, :, 1]
    back = has(person, "bag", BAG, "backpack")
    rear = (0.098 * h)[:, None] * front
    high, low = neck - (0.055 * h)[:, None] * spine - rear, neck - (0.265 * h)[:, None] * spine - rear
    b.tube(BAGS, high, low, 0.072 * h, 0.088 * h, flat=0.58, left=left, on=back)
    b.ellipsoid(BAGS, high, axes, torch.stack([0.072 * h, 0.042 * h, 0.028 * h], -1), on=back)
    b.ellipsoid(BAGS, low, axes, torch.stack([0.088 * h, 0.051 * h, 0.022 * h], -1), on=back)
    b.ellipsoid(
        BAGS,
        neck - (0.205 * h)[:, None] * spine - (0.138 * h)[:, None] * front,
        axes,
        torch.stack([0.060 * h, 0.030 * h, 0.052 * h], -1),
        on=back,
        along=1.0,
    )
    side = person["bag_side"]
    hip = pelvis + (0.035 * h)[:, None] * spine + (side * 0.128 * h)[:, None] * left - (0.02 * h)[:, None] * front
    b.ellipsoid(
        BAGS, hip, axes, torch.stack([0.030 * h, 0.082 * h, 0.062 * h], -1), on=has(person, "bag", BAG, "shoulder bag")
    )
    wrist = torch.where((side > 0)[:, None], joints["left wrist"], joints["right wrist"])
    reach = torch.where((side > 0)[:, None], joints["left reach"], joints["right reach"])
    hand = wrist + (0.055 * h)[:, None] * reach
    down = torch.zeros_like(spine)
    down[:, 1] = -1
    carried = has(person, "bag", BAG, "hand bag")
    upright = limb_axes(down)
    for step in (-1.0, 1.0):
        strap = torch.zeros_like(down)
        strap[:, 2] = step * 0.045
        b.tube(BAGS, hand, hand + 0.14 * down + strap, 0.006, 0.006, on=carried, along=(1.0, 1.0))
    b.tube(BAGS, hand + 0.12 * down, hand + 0.34 * down, 0.045, 0.050, flat=2.4, left=upright[:, :, 0], on=carried)
    b.ellipsoid(BAGS, hand + 0.34 * down, upright, (0.050, 0.118, 0.02), on=carried)
