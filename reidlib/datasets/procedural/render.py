"""From rows to pictures: puts people, occluders, scene and camera together and keeps the truth."""

from typing import NamedTuple

import torch
from torch import Tensor

from . import body, draw, effects, occluders, paint, scenes, skeleton
from .networks import Network
from .people import people
from .shots import BOXES, STRANGER, mutedness, strength

SAMPLING = 2                   # samples of a pixel along each side
# Joints that a detector reports whenever their part of the trunk is seen: neck, shoulders, hips.
TRUNK = (1, 2, 5, 8, 11)
# How far before a joint (metres) its own limb's or face's surface may lie; what is nearer covers it.
COVER = (0.035, 9, 9, 0.075, 0.070, 9, 0.075, 0.070, 9, 0.100, 0.080, 9, 0.100, 0.080, 0.040, 0.040, 0.045, 0.045)


class Rendered(NamedTuple):
    """Pictures and their truth, one row for each."""

    images: Tensor       # uint8 [B, 3, H, W]
    masks: Tensor        # uint8 [B, H, W] 0..255, the part of each pixel that shows the person
    parsing: Tensor      # uint8 [B, H, W] LIP labels
    keypoints: Tensor    # float [B, 18, 3] x, y, 1 in pixels; (-1, -1, 0) where a joint is not seen
    joints: Tensor       # float [B, 18, 2] where all joints are, seen or not
    occluded: Tensor     # float [B] part of the person's pixels in the frame that an occluder hides


def _poses(person: dict[str, Tensor], shot: dict[str, Tensor]) -> dict[str, Tensor]:
    return skeleton.pose(person, phase=shot["phase"], swing=person["stride"] * shot["walking"], arm_modes=shot["arms"],
                         head_yaw=shot["head"], nod=shot["nod"], lean=shot["lean"] + 0.05 * (person["posture"] - 0.5),
                         splay=shot["splay"])


def _take(table: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in table.items()}


class _Scene:
    """Collects the bodies of a batch: parts, and for each body what the painter needs to know."""

    def __init__(self, batch: int, pitch: Tensor):
        self.batch, self.pitch = batch, pitch
        self.groups: list[draw.Parts] = []
        self.people: list[dict[str, Tensor]] = []
        self.rotations: list[Tensor] = []
        self.shifts: list[Tensor] = []
        self.count = 0

    def shift(self, rows: Tensor, x: Tensor, away: Tensor) -> Tensor:
        """View shift of a thing that stands `x` to the right of the person and `away` metres behind."""
        pitch = self.pitch[rows]
        return torch.stack([x, -away * pitch.sin(), away * pitch.cos()], 1)

    def add_people(self, rows: Tensor, person: dict[str, Tensor], shot: dict[str, Tensor], yaw: Tensor, x: Tensor,
                   away: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Add one person to each of some pictures; returns joints, rotation and shift."""
        joints = _poses(person, shot)
        rotation, shift = skeleton.view_rotation(yaw, self.pitch[rows]), self.shift(rows, x, away)
        owner = torch.arange(self.count, self.count + len(rows), device=rows.device)
        self.groups.append(body.to_view(body.build(person, joints), rotation, shift, rows, owner))
        h = person["height"][:, None]
        axes = torch.stack([joints["head left"], joints["head up"], joints["head front"]], -1)
        self.people.append(person | {
            "pelvis": joints["pelvis"], "head place": (joints["head"] - joints["pelvis"]) / h, "head axes": axes,
            "head size": joints["head size"]})
        self.rotations.append(rotation)
        self.shifts.append(shift)
        self.count += len(rows)
        return joints, rotation, shift

    def add_things(self, rows: Tensor, stack: dict[str, Tensor], yaw: Tensor, x: Tensor, away: Tensor) -> None:
        """Add one object to each of some pictures."""
        rotation, shift = skeleton.view_rotation(yaw, self.pitch[rows]), self.shift(rows, x, away)
        self.groups.append(body.to_view(stack, rotation, shift, rows, torch.full_like(rows, -1)))

    def all_people(self) -> dict[str, Tensor]:
        return {name: torch.cat([table[name] for table in self.people]) for name in self.people[0]}


def _frame(joints: dict[str, Tensor], rotation: Tensor, person: dict[str, Tensor], shot: dict[str, Tensor], height: int,
           width: int) -> draw.Frame:
    """Fit each picture's frame to its person: metres to pixels."""
    h = person["height"][:, None]
    top = joints["head"] + 0.078 * h * joints["head up"]
    ends = [top]
    for side in ("right", "left"):
        ankle, foot = joints[f"{side} ankle"], joints[f"{side} foot"]
        drop = torch.zeros_like(ankle)
        drop[:, 1] = -0.040 * h[:, 0]
        ends += [ankle + drop, ankle + drop + 0.10 * h * foot, joints[f"{side} wrist"]]
    points = torch.stack(ends, 1)                                                     # [B, 7, 3]
    view = (rotation[:, None] @ points[..., None])[..., 0]
    high, low = view[:, :, 1].amin(1), view[:, :, 1].amax(1)
    spread = 0.5 * (view[:, :, 0].amin(1) + view[:, :, 0].amax(1))
    scale_y = shot["fill"] * height / (low - high)
    scale_x = scale_y * shot["aspect"]
    offset_x = shot["x"] * width - 0.6 * spread * scale_x
    offset_y = shot["y"] * height - 0.5 * (low + high) * scale_y
    return draw.Frame(torch.stack([scale_x, scale_y], 1), torch.stack([offset_x, offset_y], 1))


def _shadow(shade: Tensor, rows: Tensor, joints: dict[str, Tensor], rotation: Tensor, shift: Tensor, frame: draw.Frame,
            pitch: Tensor, light: Tensor, amount: Tensor) -> None:
    """Darken the ground under and beside people; `shade` [B, H, W] is multiplied in place."""
    _, height, width = shade.shape
    device = shade.device
    x = torch.arange(width, device=device) + 0.5
    y = torch.arange(height, device=device) + 0.5
    scale, offset = frame.scale[rows], frame.offset[rows]
    slope = (pitch[rows].sin() * scale[:, 1])[:, None]

    def ground(point: Tensor) -> tuple[Tensor, Tensor]:
        """Metres right of and behind a point on the ground, for all pixels: [R, 1, W] and [R, H, 1]."""
        point = point.clone()
        point[:, 1] = 0
        view = (rotation @ point[:, :, None])[:, :, 0] + shift
        right = (x - (view[:, :1] * scale[:, :1] + offset[:, :1])) / scale[:, :1]
        back = ((view[:, 1:2] * scale[:, 1:] + offset[:, 1:]) - y) / slope
        return right[:, None, :], back[:, :, None]

    dark = torch.zeros(len(rows), height, width, device=device)
    for side in ("right", "left"):
        right, back = ground(joints[f"{side} ankle"] + 0.06 * joints[f"{side} foot"])
        dark = torch.maximum(dark, torch.exp(-(right / 0.17).square() - (back / 0.24).square()))
    right, back = ground(joints["pelvis"])
    fall = -light[rows][:, [0, 2]] / (-light[rows][:, 1:2]).clamp(min=0.25)           # metres of shadow for a metre of height
    length = (fall.norm(dim=1) * 1.5).clamp(0.3, 1.6)[:, None, None]
    way = fall / fall.norm(dim=1, keepdim=True).clamp(min=1e-3)
    along = right * way[:, :1, None] + back * way[:, 1:, None]
    across = back * way[:, :1, None] - right * way[:, 1:, None]
    body_shadow = torch.exp(-(across / 0.24).square()) * ((along + 0.15) * 5).clamp(0, 1) * ((length - along) * 3).clamp(0, 1)
    dark = torch.maximum(dark, 0.8 * body_shadow)
    shade[rows] = shade[rows] * (1 - amount[rows][:, None, None] * 1.25 * dark).clamp(min=0.15)


def _tent(grid: Tensor) -> Tensor:
    """Halve [B, H, W, C] with the tent filter 1 3 3 1."""
    for dim in (1, 2):
        size = grid.shape[dim] // 2
        inner = grid.unflatten(dim, (size, 2)).sum(dim + 1)
        first = grid.narrow(dim, 0, 1)
        last = grid.narrow(dim, 2 * size - 1, 1)
        odd = torch.cat([first, grid.narrow(dim, 1, 2 * size - 1)[(slice(None),) * dim + (slice(0, None, 2),)]], dim)[
            (slice(None),) * dim + (slice(0, size),)]
        even = torch.cat([grid.narrow(dim, 2, 2 * size - 2)[(slice(None),) * dim + (slice(0, None, 2),)], last], dim)
        grid = (3 * inner + odd + even) / 8
    return grid


def _vote(labels: Tensor) -> Tensor:
    """The label that most of a pixel's covered samples carry, uint8 [B, H, W] from [B, 2H, 2W]; 0 where none is."""
    batch, height, width = labels.shape
    four = labels.view(batch, height // 2, 2, width // 2, 2).permute(0, 1, 3, 2, 4).reshape(batch, height // 2, width // 2, 4)
    votes = (four[..., :, None] == four[..., None, :]).sum(-1, dtype=torch.uint8) + 8 * (four > 0).to(torch.uint8)
    return four.gather(-1, votes.argmax(-1, keepdim=True))[..., 0]
