"""Shots: everything about a picture but its people's looks (pose, place, box, light), drawn from its own seeds."""

import math

import torch
from torch import Tensor

from .camera import Network
from .draws import Draws
from .occluders import OCCLUDERS
from .skeleton import ARMS

BOXES = ("detected", "drawn", "junk", "distractor")
STRANGER = 20_000  # first number of the passers-by, who have no identity in the data set

_TRACK = "heading spin place distance speed light warmth arms arm_side phase walking company blur occluder"
_FRAME = """turn head nod lean splay step fill shift_x shift_y aspect cut cut_kind blur motion noise occluder
occluder_kind occluder_x occluder_turn occluder_colour stranger stranger_x stranger_z stranger_turn
stranger_phase quality light kind zoom anchor_x anchor_y arms"""


def strength(scene: str, difficulty: float) -> float:
    """How strongly cameras differ: 1 is the network as it is written, 0 makes all cameras neutral."""
    return {"retrieval": 1.0, "generation": 0.75}[scene] * min(difficulty, 2.0) ** 0.7


def mutedness(scene: str, difficulty: float) -> float:
    """How muted clothes are, 0..1; muted clothes collide more often."""
    return min(1.0, {"retrieval": 0.62, "generation": 0.15}[scene] * difficulty)


def shots(rows: dict[str, list], *, network: Network, seed: int, scene: str, difficulty: float) -> dict[str, Tensor]:
    """Return the shot of each row as a table of tensors [B].

    `rows` holds lists: pid, camid (from 1), sequence, frame, step (its place in the track) and box (a name of BOXES).
    A drawn box shows the same moment as the detected one, without the detector's errors.
    """
    seed = network.seed(seed)
    keys = list(zip(rows["pid"], rows["camid"], rows["sequence"], strict=True))
    track = Draws(_TRACK, [(seed, 102, *key) for key in keys])
    frame = Draws(_FRAME, [(seed, 103, *key, number) for key, number in zip(keys, rows["frame"], strict=True)])
    camera = torch.tensor(rows["camid"]) - 1
    step = torch.tensor(rows["step"], dtype=torch.float32)
    box = torch.tensor([BOXES.index(name) for name in rows["box"]])
    hard = min(difficulty, 2.0) * (1.0 if scene == "retrieval" else 0.4)
    walking = track["walking"] < 0.86
    yaw = 2 * math.pi * track["heading"] + track.between("spin", -0.10, 0.10) * step + frame.normal("turn", 0.10)
    shot = {
        "camera": camera,
        "outfit": torch.zeros_like(camera),  # one's own
        "box": box,
        "yaw": yaw,
        "phase": 2 * math.pi * track["phase"] + step * 1.9 + frame.between("step", -0.6, 0.6),
        "walking": torch.where(walking, 1.0, 0.10),
        "head": frame.normal("head", 0.22),
        "nod": frame.normal("nod", 0.10) - 0.06,
        "lean": frame.normal("lean", 0.03) + 0.03,
        "splay": frame.between("splay", 0.0, 0.07),
        "arms": _arm_modes(track, frame),
        "noise": frame["noise"],
        "light": track.normal("light") + 0.35 * frame.normal("light"),
        "warmth": track.normal("warmth"),
        "blur": 0.6 * track["blur"] + 0.4 * frame["blur"],
        "motion": frame["motion"],
        "quality": frame["quality"],
    }
    near, far = (torch.tensor([getattr(c, name) for c in network.cameras])[camera] for name in ("near", "far"))
    shot["distance"] = near + (far - near) * (track["distance"] * 0.9 + 0.1 * frame["zoom"])
    spread = 1.0 if scene == "retrieval" else 0.30  # how much of the scene is walked
    stride = track.between("speed", 0.5, 1.1) * yaw.sin() * walking * step
    shot["place"] = (2 * track["place"] - 1) * 0.62 * shot["distance"] * spread + stride * spread
    return shot | _company(track, frame, hard) | _box(frame, box, hard)


def _arm_modes(track: Draws, frame: Draws) -> Tensor:
    """What the two arms do: mostly they swing; what one hand does lasts for the track."""
    #                                swing phone strap front call back pocket
    mode = track.choice("arms", [5.2, 1.1, 0.5, 0.6, 0.35, 0.3, 0.6])
    steady = torch.where(frame["arms"] < 0.82, mode, 0)
    both = (steady == ARMS.index("front")) | (steady == ARMS.index("back"))
    left = track["arm_side"] < 0.5
    return torch.stack([torch.where(~left | both, steady, 0), torch.where(left | both, steady, 0)], 1)


def _company(track: Draws, frame: Draws, hard: float) -> dict[str, Tensor]:
    """Occluders before the person and strangers behind."""
    occluded = (0.5 * track["occluder"] + 0.5 * frame["occluder"]) < 0.5 * (0.30 * hard) ** 0.5
    kind = 1 + frame.choice("occluder_kind", [2.2, 1.0, 1.1])
    side = torch.where(frame["occluder_x"] < 0.5, -1.0, 1.0)
    reach = (frame["occluder_x"] * 2) % 1
    narrow = torch.where(kind == OCCLUDERS.index("person"), 0.26 + 0.2 * reach, 0.05 + 0.30 * reach)
    return {
        "occluder": torch.where(occluded, kind, 0),
        "occluder_x": side * narrow,
        "occluder_turn": frame["occluder_turn"],
        "occluder_colour": frame["occluder_colour"],
        "stranger": (frame["stranger"] < 0.30 * hard).long(),
        "stranger_x": 2.2 * frame["stranger_x"] - 1.1,
        "stranger_z": frame.between("stranger_z", 1.2, 4.5),
        "stranger_yaw": 2 * math.pi * frame["stranger_turn"],
        "stranger_phase": 2 * math.pi * frame["stranger_phase"],
    }


def _box(frame: Draws, box: Tensor, hard: float) -> dict[str, Tensor]:
    """The crop: how much of its height the person fills, and where the person's middle lies (parts of the picture)."""
    detected, drawn = box == BOXES.index("detected"), box == BOXES.index("drawn")
    fill = 0.875 + frame.normal("fill", 0.035)
    x, y = 0.5 + frame.normal("shift_x", 0.045), 0.5 + frame.normal("shift_y", 0.016)
    cut = detected & (frame["cut"] < 0.13 * hard)
    kind = frame.choice("cut_kind", [1.0, 0.5, 1.0, 0.6])  # legs, head, too large, aside
    legs, head, large, aside = (cut & (kind == index) for index in range(4))
    zoom = frame.between("zoom", 0.0, 1.0)
    fill = torch.where(legs | head, 1.06 + 0.24 * zoom, torch.where(large, 0.66 + 0.10 * zoom, fill))
    y = torch.where(legs, 0.04 + fill / 2, torch.where(head, 0.97 - fill / 2, y))
    x = torch.where(aside, 0.5 + torch.where(frame["anchor_x"] < 0.5, -1, 1) * (0.20 + 0.08 * zoom), x)
    y = torch.where(large, 0.5 + 0.12 * (frame["anchor_y"] - 0.5), y)
    wrong = box >= BOXES.index("junk")
    close = frame["kind"] < 0.62
    wrong_fill = torch.where(close, 1.45 + 1.1 * zoom, 0.42 + 0.2 * zoom)
    wrong_x = torch.where(close, 0.5 + 0.7 * (frame["anchor_x"] - 0.5), 0.5 + 1.0 * (frame["anchor_x"] - 0.5))
    wrong_y = torch.where(
        close, 0.5 + (wrong_fill - 0.7) * (frame["anchor_y"] - 0.5), 0.5 + 0.7 * (frame["anchor_y"] - 0.5)
    )
    fill = torch.where(wrong, wrong_fill, torch.where(drawn, 0.93, fill))
    x = torch.where(wrong, wrong_x, torch.where(drawn, 0.5, x))
    y = torch.where(wrong, wrong_y, torch.where(drawn, 0.5, y))
    aspect = torch.where(drawn, 1.0, 1 + frame.normal("aspect", 0.05))
    return {"fill": fill, "x": x, "y": y, "aspect": aspect, "kind": frame["kind"], "cut": cut.long()}
