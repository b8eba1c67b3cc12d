"""Who and what is in the pictures of a batch: the person of each, strangers, occluders, and their parts in view."""

from typing import NamedTuple

import torch
from torch import Tensor

from . import body, draw, occluders, skeleton
from .builder import join, to_view
from .people import people
from .shots import BOXES, STRANGER


class Cast(NamedTuple):
    """All people of a batch, the pictures' own first (in the order of the pictures), and all parts."""

    parts: draw.Parts
    rows: Tensor  # int64 [N] the picture that each one is in
    person: dict[str, Tensor]  # attributes of each, with what the painter needs of the pose
    joints: dict[str, Tensor]  # body frame
    rotation: Tensor  # float [N, 3, 3] body frame to view frame
    shift: Tensor  # float [N, 3]
    groups: tuple[Tensor, ...]  # rows of this table: those with a body of their own, strangers, people in front


def take(table: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The given rows of every column of a table."""
    return {name: value[rows] for name, value in table.items()}


def _stand(pitch: Tensor, x: Tensor, away: Tensor) -> Tensor:
    """View shift of a thing that stands `x` metres to the right of the person and `away` metres behind."""
    return torch.stack([x, -away * pitch.sin(), away * pitch.cos()], 1)


def _things(shot: dict[str, Tensor], pitch: Tensor) -> list[draw.Parts]:
    """Bicycles and poles in front of people."""
    groups = []
    for kind, make in (("bicycle", occluders.bicycle), ("pole", occluders.pole)):
        rows = (shot["occluder"] == occluders.OCCLUDERS.index(kind)).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        tone, turn = shot["occluder_colour"][rows], shot["occluder_turn"][rows]
        colour = torch.stack([0.15 + 0.6 * tone, 0.2 + 0.4 * turn, 0.55 - 0.4 * tone], 1)
        if kind == "pole":
            colour = (0.35 + 0.4 * tone)[:, None].expand(-1, 3).contiguous()
        yaw = torch.where(turn < 0.5, 1.0, -1.0) * torch.pi / 2 + (turn - 0.5) * 1.1
        shift = _stand(pitch[rows], shot["occluder_x"][rows] * 1.3, torch.full_like(tone, -0.60))
        rotation = skeleton.view_rotation(yaw, pitch[rows])
        groups.append(to_view(make(colour), rotation, shift, rows, torch.full_like(rows, -1)))
    return groups


def assemble(pids: list[int], shot: dict[str, Tensor], pitch: Tensor, *, seed: int, muted: float) -> Cast:
    """Build every body and thing of a batch of shots; `pitch` [B] is how far the camera looks down, in radians."""
    device, batch = pitch.device, len(pids)
    empty = (shot["box"] == BOXES.index("distractor")) & (shot["kind"] < 0.55)  # a box around nobody
    main = torch.arange(batch, device=device)
    behind = (shot["stranger"] == 1).nonzero()[:, 0]
    before = (shot["occluder"] == occluders.OCCLUDERS.index("person")).nonzero()[:, 0]
    rows = torch.cat([main, behind, before])
    number = (shot["noise"] * 9973).long()
    others = torch.cat([number[behind], number[before] + 5000]) + STRANGER
    every, outfits = [*pids, *others.tolist()], [*shot["outfit"].tolist(), *[0] * len(others)]
    table = people(every, seed=seed, muted=muted, outfits=outfits)
    person = {name: value.to(device) for name, value in table.items()}
    own = take(shot, rows)
    other = torch.arange(len(rows), device=device) >= batch
    nothing = torch.zeros_like(own["yaw"])
    in_front = torch.arange(len(rows), device=device) >= batch + len(behind)
    yaw = torch.where(other, own["stranger_yaw"], own["yaw"])
    x = torch.where(in_front, own["occluder_x"], torch.where(other, own["stranger_x"], nothing))
    away = torch.where(in_front, -0.75, torch.where(other, own["stranger_z"], nothing))
    joints = skeleton.pose(
        person,
        phase=torch.where(other, own["stranger_phase"], own["phase"]),
        arm_modes=own["arms"],
        head_yaw=own["head"],
        swing=person["stride"] * torch.where(other, 1.0, own["walking"]),
        nod=own["nod"],
        splay=own["splay"],
        lean=own["lean"] + 0.05 * (person["posture"] - 0.5),
    )
    rotation, shift = skeleton.view_rotation(yaw, pitch[rows]), _stand(pitch[rows], x, away)
    shown = torch.cat([main[~empty], torch.arange(batch, len(rows), device=device)])
    stack = take(body.build(person, joints), shown)
    parts = join([to_view(stack, rotation[shown], shift[shown], rows[shown], shown), *_things(shot, pitch)])
    person |= {
        "pelvis": joints["pelvis"],
        "head size": joints["head size"],
        "head place": (joints["head"] - joints["pelvis"]) / person["height"][:, None],
        "head axes": torch.stack([joints["head left"], joints["head up"], joints["head front"]], -1),
    }
    groups = (
        main[~empty],
        batch + torch.arange(len(behind), device=device),
        batch + len(behind) + torch.arange(len(before), device=device),
    )
    return Cast(parts, rows, person, joints, rotation, shift, groups)
