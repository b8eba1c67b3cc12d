"""Who the people are: build, skin, hair and clothes of an identity, drawn from its seed and its number only."""

import colorsys

import pandas as pd
import torch
from torch import Tensor

from .draws import Draws

SCENES = ("retrieval", "generation")
HAIR = ("cropped", "short", "fringe", "bob", "long", "ponytail", "bun", "curly", "bald")
UPPER = ("tee", "shirt", "tank", "sweater", "jacket", "coat", "dress")
PATTERN = ("plain", "stripes", "checks", "logo", "two-tone", "pinstripes", "print", "raglan")
LOWER = ("trousers", "shorts", "skirt", "leggings")
BAG = ("none", "backpack", "shoulder bag", "hand bag")
HAT = ("none", "cap", "sun hat", "beanie")
SHOES = ("sneakers", "dark shoes", "sandals", "boots")

_COLUMNS = """figure height girth shoulders legs skin skin_tone hair hair_colour hair_tone upper upper_colour upper_hue
upper_tone upper_light pattern second second_tone period sleeve fit lower lower_colour lower_hue lower_tone lower_light
lower_length lower_fit lower_pattern shoes shoe_colour shoe_tone socks sock_colour bag bag_colour bag_tone bag_side hat
hat_colour glasses scarf inner inner_tone tucked belt posture stride cadence arms tights print_seed beard"""

# The same garment colour twice: as bright cloth and as muted cloth; a difficulty mixes the two.
_BRIGHT = (
    "#f2f2ee",
    "#26262c",
    "#8d9196",
    "#d8262f",
    "#f4c522",
    "#2f9e44",
    "#1c62c4",
    "#7b3fa8",
    "#f08fb2",
    "#f2762e",
    "#35b8c6",
    "#23305c",
    "#a8d63f",
    "#8a5a33",
    "#e9d8b4",
    "#a01f3f",
)
_MUTED = (
    "#c9c8c3",
    "#2c2c30",
    "#74777b",
    "#7d3c40",
    "#a08a4c",
    "#4c6650",
    "#44587c",
    "#5a4a69",
    "#a3808c",
    "#91644a",
    "#5f8288",
    "#30364a",
    "#7f8a58",
    "#66523f",
    "#aca087",
    "#5f3540",
)
_UPPER_WEIGHTS = (2.2, 1.7, 1.3, 1, 0.8, 0.8, 1.2, 0.7, 0.8, 0.6, 0.7, 1.1, 0.5, 0.5, 0.7, 0.6)
_LOWER_WEIGHTS = (0.5, 2.4, 1.4, 0.2, 0.15, 0.3, 0.9, 0.2, 0.2, 0.2, 0.2, 2.0, 0.2, 0.9, 1.1, 0.3)
_SKIN = ("#f3cdb0", "#e8b991", "#d49f76", "#b57d54", "#8a5a3a", "#5f3d2a")
_HAIR_COLOURS = ("#17120f", "#241a15", "#3a271b", "#5a3b24", "#8a6237", "#b98e4f", "#7d3a22", "#8f8c88")


def _rgb(codes: tuple[str, ...]) -> Tensor:
    return torch.tensor([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in codes])


def palette(index: Tensor, hue: Tensor, tone: Tensor, muted: float) -> Tensor:
    """Mix a palette entry between its bright and its muted form and shift it a little, float [N, 3] in 0..1."""
    colour = torch.lerp(_rgb(_BRIGHT)[index], _rgb(_MUTED)[index], muted)
    shifted = []
    for (red, green, blue), turn, light in zip(colour.tolist(), hue.tolist(), tone.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(red, green, blue)
        spread = 1 - 0.5 * muted
        shifted.append(
            colorsys.hsv_to_rgb(
                (h + 0.05 * (turn - 0.5) * spread) % 1,
                s * (0.85 + 0.3 * turn * spread),
                min(1.0, max(0.09, v * (0.86 + 0.28 * light * spread))),
            )
        )
    return torch.tensor(shifted, dtype=torch.float32).clamp(0, 1)


def _clothes(u: Draws, figure: Tensor, muted: float) -> dict[str, Tensor]:
    """Draw the garments of each person and their colours."""
    female = figure[:, None]
    upper_weights = torch.lerp(
        torch.tensor([[3.2, 1.6, 0.4, 0.8, 0.8, 0.9, 0.0]]), torch.tensor([[2.4, 1.0, 0.8, 0.7, 0.4, 0.9, 1.5]]), female
    )
    lower_weights = torch.lerp(torch.tensor([[2.0, 2.2, 0.0, 0.0]]), torch.tensor([[1.3, 1.4, 1.5, 0.7]]), female)
    upper = u.choice("upper", upper_weights)
    plain = torch.tensor([[2.6, 1.2, 0.9, 1.3, 0.9, 0.35, 0.8, 0.5]]).repeat(len(upper), 1)
    plain[(upper == 4) | (upper == 5)] *= torch.tensor([3, 0.25, 1.0, 0, 0, 1.5, 0, 0])  # coats are quieter
    plain[(upper == 2) | (upper == 6), 7] = 0  # no raglan without sleeves
    plain[upper == 6, 3] = 0
    index = u.choice("upper_colour", list(_UPPER_WEIGHTS))
    second = (index + 1 + u.choice("second", [1.0] * (len(_BRIGHT) - 1))) % len(_BRIGHT)
    lower_index = u.choice("lower_colour", list(_LOWER_WEIGHTS))
    half = torch.full_like(u["inner"], 0.5)
    return {
        "upper": upper,
        "lower": u.choice("lower", lower_weights),
        "pattern": u.choice("pattern", plain),
        "upper_colour": palette(index, u["upper_hue"], u["upper_light"], muted),
        "second_colour": palette(second, half, u["second_tone"], muted),
        "lower_colour": palette(lower_index, u["lower_hue"], u["lower_light"], muted),
        "inner_colour": palette(
            u.choice("inner", [3, 1, 1, 1, 0.5, 0.5, 0.5, 0, 0.5, 0, 0.5, 0.5, 0, 0, 1, 0.5]),
            half,
            u["inner_tone"],
            muted,
        ),
        "shoe_colour": palette(
            u.choice("shoe_colour", [3, 4, 1.5, 0.7, 0.2, 0.1, 0.6, 0, 0.4, 0.1, 0, 0.7, 0, 1, 0.7, 0]),
            half,
            u["shoe_tone"],
            0.5 * muted,
        ),
        "bag_colour": palette(
            u.choice("bag_colour", [1.2, 3, 1, 1, 0.4, 0.4, 1, 0.3, 0.5, 0.3, 0.2, 1, 0, 1.4, 1, 0.4]),
            half,
            u["bag_tone"],
            0.8 * muted,
        ),
        "hat_colour": palette(
            u.choice("hat_colour", [2, 2, 1, 1, 0.5, 0.3, 1, 0, 0.5, 0, 0, 1, 0, 0.5, 1.5, 0]), half, half, 0.8 * muted
        ),
        "sock_colour": palette(u.choice("sock_colour", [4.0, 2, 1] + [0.2] * 13), half, half, muted),
    }


def people(
    pids: list[int], *, seed: int = 0, muted: float = 0.8, outfits: list[int] | None = None
) -> dict[str, Tensor]:
    """Return the attributes of identities as a table of tensors, each [N] or [N, 3] (colours, 0..1).

    `muted` in 0..1 moves clothes from bright to muted colours, which collide more often. An outfit (default 0) other
    than 0 is the same garments in other colours.

    >>> people([1, 2])["upper_colour"].shape
    torch.Size([2, 3])
    """
    u = Draws(_COLUMNS, [(seed, 101, pid) for pid in pids])
    figure = (u["figure"] < 0.5).float()
    hair = u.choice(
        "hair",
        torch.lerp(
            torch.tensor([[1.3, 3, 1.6, 0.1, 0.05, 0.05, 0.03, 0.4, 0.35]]),
            torch.tensor([[0.05, 0.4, 0.5, 1.6, 2.6, 2.0, 0.9, 0.4, 0.0]]),
            figure[:, None],
        ),
    )
    skin_index = u.choice("skin", [2.2, 3, 2, 1, 0.8, 0.5])
    hair_index = u.choice("hair_colour", [4.0, 3, 2, 1, 0.5, 0.4, 0.3, 0.5])
    upper_bag = u.choice("bag", [3.2, 1.7, 1.5, 1.2])
    height = 1.745 - 0.115 * figure + u.normal("height", 0.062)
    table = {
        "figure": figure,
        "height": height,
        "girth": (1 + u.normal("girth", 0.085)).clamp(0.84, 1.3),
        "shoulders": 1.04 - 0.1 * figure + u.normal("shoulders", 0.04),
        "legs": 1 + u.normal("legs", 0.02),
        "skin_colour": _rgb(_SKIN)[skin_index] * (0.93 + 0.12 * u["skin_tone"])[:, None],
        "hair": hair,
        "hair_colour": _rgb(_HAIR_COLOURS)[hair_index] * (0.8 + 0.4 * u["hair_tone"])[:, None],
        "period": u.between("period", 0.045, 0.12),
        "sleeve": u["sleeve"],
        "fit": u["fit"],
        "lower_length": u["lower_length"],
        "lower_fit": u["lower_fit"],
        "lower_pattern": u.choice("lower_pattern", [5.0, 0.7, 0.6, 0, 0, 0.5, 0.5]),
        "shoes": u.choice(
            "shoes",
            torch.lerp(torch.tensor([[3.0, 2, 0.7, 0.5]]), torch.tensor([[2.2, 1.5, 1.6, 0.7]]), figure[:, None]),
        ),
        "socks": (u["socks"] < 0.5).long(),
        "bag": upper_bag,
        "bag_side": torch.where(u["bag_side"] < 0.5, -1.0, 1.0),
        "hat": u.choice("hat", [6.0, 0.7, 0.25, 0.25]),
        "glasses": (u["glasses"] < 0.16).long(),
        "scarf": (u["scarf"] < 0.05).long(),
        "tucked": (u["tucked"] < 0.3).long(),
        "belt": (u["belt"] < 0.4).long(),
        "beard": ((u["beard"] < 0.25) & (figure < 0.5)).long(),
        "tights": (u["tights"] < 0.22).long(),
        "posture": u["posture"],
        "stride": u.between("stride", 0.34, 0.52),
        "cadence": u["cadence"],
        "arms": u["arms"],
        "print_seed": u["print_seed"],
    } | _clothes(u, figure, muted)
    table["hat"] = torch.where((table["hat"] == 2) & (figure < 0.5), 1, table["hat"])
    if outfits is not None and any(outfits):
        u = Draws(_COLUMNS, [(seed, 101, pid, outfit) for pid, outfit in zip(pids, outfits, strict=True)])
        dyed, others = torch.tensor(outfits)[:, None] != 0, _clothes(u, figure, muted)
        for name in ("upper_colour", "second_colour", "lower_colour", "inner_colour", "shoe_colour"):
            table[name] = torch.where(dyed, others[name], table[name])
    return table


def describe(table: dict[str, Tensor], pids: list[int]) -> pd.DataFrame:
    """Return the attributes in words and hexadecimal colours, one row for each person.

    >>> describe(people([5]), [5]).columns[:3].tolist()
    ['pid', 'figure', 'height']
    """
    words = {
        "hair": HAIR,
        "upper": UPPER,
        "pattern": PATTERN,
        "lower": LOWER,
        "lower_pattern": PATTERN,
        "bag": BAG,
        "hat": HAT,
        "shoes": SHOES,
    }
    frame = {
        "pid": pids,
        "figure": ["slender" if f else "broad" for f in table["figure"].tolist()],
        "height": [round(h, 3) for h in table["height"].tolist()],
    }
    for name, names in words.items():
        frame[name] = [names[index] for index in table[name].tolist()]
    dress = table["upper"] == UPPER.index("dress")
    frame["lower"] = ["none" if d else word for d, word in zip(dress.tolist(), frame["lower"], strict=True)]
    for name in ("glasses", "scarf", "socks"):
        frame[name] = table[name].tolist()
    for name in ("skin", "hair", "upper", "second", "inner", "lower", "shoe", "bag", "hat"):
        rgb = (table[f"{name}_colour"].clamp(0, 1) * 255).round().int().tolist()
        frame[f"{name}_colour"] = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in rgb]
    return pd.DataFrame(frame)
