"""The skeleton: walking and standing poses of the 18 OpenPose key points and a few helper joints.

Body frame: x to the person's left, y up from the ground, z forward; metres. View frame: X right, Y down, D away from
the viewer. Yaw 0 faces the viewer; at 90 degrees the person walks to the right of the picture.
"""

import math

import torch
from torch import Tensor

JOINTS = (
    "nose",
    "neck",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
    "right eye",
    "left eye",
    "right ear",
    "left ear",
)
ARMS = ("swing", "phone", "strap", "front", "call", "back", "pocket")

_ARM_ANGLES = (  # one column for each of ARMS; radians
    (0.00, 0.35, 0.05, 0.28, 0.95, -0.55, -0.16),  # upper arm forward of vertical
    (0.24, 1.65, 2.25, 1.20, 2.05, 0.75, 0.55),  # bend of the elbow
    (0.05, 0.55, 0.35, 0.85, -0.02, 1.30, -0.10),  # forearm turned inward
    (0.10, 0.16, 0.20, 0.10, 0.28, 0.18, 0.26),  # upper arm away from the body
)


def _vector(x: Tensor | float, y: Tensor | float, z: Tensor | float, like: Tensor) -> Tensor:
    return torch.stack([part if torch.is_tensor(part) else torch.full_like(like, part) for part in (x, y, z)], -1)


def turn(vector: Tensor, angle: Tensor) -> Tensor:
    """Turn vectors [N, 3] about the vertical; a positive angle carries the front to the person's left."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([vector[:, 0] * c + vector[:, 2] * s, vector[:, 1], vector[:, 2] * c - vector[:, 0] * s], -1)


def view_rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Rotation from the body frame to the view frame, float [N, 3, 3]; yaw and the camera's downward pitch in radians.

    >>> facing = view_rotation(torch.zeros(1), torch.zeros(1))[0]
    >>> (facing @ torch.tensor([1.0, 0, 0])).tolist()        # the left hand of one who faces us is on our right
    [1.0, 0.0, 0.0]
    """
    c, s, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    zero = torch.zeros_like(c)
    rows = [
        torch.stack([c, zero, s], -1),
        torch.stack([-s * sp, -cp, c * sp], -1),  # higher and farther is further up
        torch.stack([s * cp, -sp, -c * cp], -1),
    ]
    return torch.stack(rows, -2)


def _leg(
    side: float, swing: Tensor, phase: Tensor, pelvis: Tensor, person: dict[str, Tensor], pelvis_turn: Tensor
) -> dict[str, Tensor]:
    """Hip, knee, ankle and the foot's direction of one leg at one gait phase."""
    h, legs = person["height"], person["legs"]
    amplitude = swing / 0.45
    wide = 0.053 * h * (1 + 0.08 * person["figure"])
    hip = pelvis + turn(_vector(side * wide, 0.0, 0.0, h), pelvis_turn)
    thigh = swing * phase.sin() + 0.04 * amplitude
    lift = phase.cos().clamp(min=0)
    flexion = 0.06 + amplitude * (0.95 * lift**1.6 + 0.12 * (phase.sin().clamp(min=0)) ** 2)
    shank = thigh - flexion
    out = side * (0.03 - 0.035 * person["figure"])
    knee = hip + 0.237 * (h * legs)[:, None] * _vector(out, -thigh.cos(), thigh.sin(), h)
    ankle = knee + 0.237 * (h * legs)[:, None] * _vector(out * 0.5, -shank.cos(), shank.sin(), h)
    tip = torch.where(shank < 0, 0.75 * shank * (0.35 + 0.65 * lift), 0.55 * shank)  # toe down behind, up in front
    foot = turn(_vector(side * 0.16, tip.sin(), tip.cos(), h), pelvis_turn * 0.3)
    return {"hip": hip, "knee": knee, "ankle": ankle, "foot": foot / foot.norm(dim=1, keepdim=True)}


def _arm(side: float, swing: Tensor, mode: Tensor, shoulder: Tensor, h: Tensor, wide: Tensor) -> dict[str, Tensor]:
    """Elbow, wrist and hand of one arm; `swing` is its angle in the walk, `mode` an index into ARMS."""
    upper, bend, inward, splay = torch.tensor(_ARM_ANGLES, device=h.device)[:, mode]
    free = (mode == 0).float()
    upper = upper + swing * (0.25 + 0.75 * free)
    bend = bend + free * (0.55 * swing.clamp(min=0))
    splay = splay + wide
    direction = _vector(side * splay.sin(), -upper.cos() * splay.cos(), upper.sin() * splay.cos(), h)
    elbow = shoulder + 0.166 * h[:, None] * direction
    fore = upper + bend
    lateral = side * splay * 0.5 - side * inward.sin() * fore.sin().abs().clamp(min=0.1)
    ahead = fore.sin() * inward.cos().clamp(min=0.25)
    down = _vector(lateral, -fore.cos(), ahead, h)
    down = down / down.norm(dim=1, keepdim=True)
    wrist = elbow + 0.146 * h[:, None] * down
    return {"elbow": elbow, "wrist": wrist, "reach": down}


def pose(
    person: dict[str, Tensor],
    *,
    phase: Tensor,
    swing: Tensor,
    arm_modes: Tensor,
    head_yaw: Tensor,
    nod: Tensor,
    lean: Tensor,
    splay: Tensor,
) -> dict[str, Tensor]:
    """Return named joints in the body frame, each float [N, 3], for people in given poses.

    `phase` is the gait phase in radians, `swing` the amplitude of the legs (0 stands still), `arm_modes` int64 [N, 2]
    (right, left) indices into ARMS, `head_yaw`, `nod` and `lean` radians, `splay` the extra opening of the arms.
    """
    h = person["height"]
    pelvis_turn = -0.22 * swing * phase.sin()
    chest_turn = -pelvis_turn * 0.8
    pelvis = _vector(0.0, 0.0, 0.0, h)
    legs = {
        "right": _leg(-1.0, swing, phase, pelvis, person, pelvis_turn),
        "left": _leg(1.0, swing, phase + math.pi, pelvis, person, pelvis_turn),
    }
    # The lower of the two feet stands on the ground; a tipped foot rests on its toes.
    sole = torch.stack(
        [leg["ankle"][:, 1] - 0.042 * h - 0.05 * h * (-leg["foot"][:, 1]).clamp(min=0) * 1.6 for leg in legs.values()]
    ).amin(0)
    lift = _vector(0.0, -sole, 0.0, h)
    joints = {"pelvis": pelvis + lift}
    for side, leg in legs.items():
        joints |= {f"{side} {name}": leg[name] + lift for name in ("hip", "knee", "ankle")}
        joints[f"{side} foot"] = leg["foot"]
    lean_z = lean.sin()
    spine = _vector(0.0, lean.cos(), lean_z, h)
    neck = joints["pelvis"] + 0.297 * h[:, None] * spine
    joints["neck"], joints["spine"] = neck, spine
    half = 0.103 * h * person["shoulders"]
    for side, sign, at in (("right", -1.0, phase), ("left", 1.0, phase + math.pi)):
        shoulder = neck + turn(_vector(sign * half, -0.026 * h, 0.0, h), chest_turn)
        arm_swing = -0.85 * swing * at.sin() + 0.05
        arm = _arm(sign, arm_swing, arm_modes[:, 0 if side == "right" else 1], shoulder, h, splay)
        joints[f"{side} shoulder"] = shoulder
        joints |= {f"{side} {name}": value for name, value in arm.items()}
    return joints | _head(neck, lean, head_yaw, nod, h)


def _head(neck: Tensor, lean: Tensor, head_yaw: Tensor, nod: Tensor, h: Tensor) -> dict[str, Tensor]:
    """The head's centre, its axes (left, up, front) and the five face points."""
    zero = torch.zeros_like(h)
    up = turn(_vector(0.0, nod.cos(), nod.sin(), h), head_yaw)
    front = turn(_vector(0.0, -nod.sin(), nod.cos(), h), head_yaw)
    left = turn(_vector(1.0, 0.0, 0.0, h), head_yaw)
    centre = neck + h[:, None] * (0.088 * up + _vector(zero, zero, 0.35 * lean.sin() * 0.1 + 0.008, h))
    size = h.clamp(max=1.8)[:, None]  # tall people's heads grow less

    def at(x: float, y: float, z: float) -> Tensor:
        return centre + size * (x * left + y * up + z * front)

    return {
        "head": centre,
        "head left": left,
        "head up": up,
        "head front": front,
        "head size": size.expand(-1, 3),
        "nose": at(0, -0.012, 0.058),
        "right eye": at(-0.019, 0.006, 0.049),
        "left eye": at(0.019, 0.006, 0.049),
        "right ear": at(-0.044, -0.004, -0.004),
        "left ear": at(0.044, -0.004, -0.004),
    }


def openpose(joints: dict[str, Tensor]) -> Tensor:
    """Stack the 18 key points in OpenPose's order, float [N, 18, 3]."""
    return torch.stack([joints[name] for name in JOINTS], 1)
