"""From rows to pictures: puts people, occluders, scene and camera together and keeps the truth."""

from typing import NamedTuple

import torch
from torch import Tensor

from . import draw, effects, paint, scenes, skeleton
from .camera import Network
from .cast import Cast, assemble, take
from .shots import mutedness, strength

SAMPLING = 2  # samples of a pixel along each side
# Joints that a detector reports whenever their part of the trunk is seen: neck, shoulders, hips.
TRUNK = (1, 2, 5, 8, 11)
# How far before a joint (metres) its own limb's or face's surface may lie; what is nearer covers it.
COVER = (0.035, 9, 9, 0.075, 0.070, 9, 0.075, 0.070, 9, 0.100, 0.080, 9, 0.100, 0.080, 0.040, 0.040, 0.045, 0.045)


class Rendered(NamedTuple):
    """Pictures and their truth, one row for each."""

    images: Tensor  # uint8 [B, 3, H, W]
    masks: Tensor  # uint8 [B, H, W] 0..255, the part of each pixel that shows the person
    parsing: Tensor  # uint8 [B, H, W] LIP labels
    keypoints: Tensor  # float [B, 18, 3] x, y, 1 in pixels; (-1, -1, 0) where a joint is not seen
    joints: Tensor  # float [B, 18, 2] where all joints are, seen or not
    occluded: Tensor  # float [B] part of the person's pixels in the frame that an occluder hides


def _frame(
    joints: dict[str, Tensor],
    rotation: Tensor,
    person: dict[str, Tensor],
    shot: dict[str, Tensor],
    height: int,
    width: int,
) -> draw.Frame:
    """Fit each picture's frame to its person: metres to pixels."""
    h = person["height"][:, None]
    top = joints["head"] + 0.078 * h * joints["head up"]
    ends = [top]
    for side in ("right", "left"):
        ankle, foot = joints[f"{side} ankle"], joints[f"{side} foot"]
        drop = torch.zeros_like(ankle)
        drop[:, 1] = -0.040 * h[:, 0]
        ends += [ankle + drop, ankle + drop + 0.10 * h * foot, joints[f"{side} wrist"]]
    points = torch.stack(ends, 1)  # [B, 7, 3]
    view = (rotation[:, None] @ points[..., None])[..., 0]
    high, low = view[:, :, 1].amin(1), view[:, :, 1].amax(1)
    spread = 0.5 * (view[:, :, 0].amin(1) + view[:, :, 0].amax(1))
    scale_y = shot["fill"] * height / (low - high)
    scale_x = scale_y * shot["aspect"]
    offset_x = shot["x"] * width - 0.6 * spread * scale_x
    offset_y = shot["y"] * height - 0.5 * (low + high) * scale_y
    return draw.Frame(torch.stack([scale_x, scale_y], 1), torch.stack([offset_x, offset_y], 1))


def _shadow(
    shade: Tensor,
    rows: Tensor,
    joints: dict[str, Tensor],
    rotation: Tensor,
    shift: Tensor,
    frame: draw.Frame,
    pitch: Tensor,
    light: Tensor,
    amount: Tensor,
) -> None:
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
    fall = -light[rows][:, [0, 2]] / (-light[rows][:, 1:2]).clamp(min=0.25)  # metres of shadow for a metre of height
    length = (fall.norm(dim=1) * 1.5).clamp(0.3, 1.6)[:, None, None]
    way = fall / fall.norm(dim=1, keepdim=True).clamp(min=1e-3)
    along = right * way[:, :1, None] + back * way[:, 1:, None]
    across = back * way[:, :1, None] - right * way[:, 1:, None]
    body_shadow = (
        torch.exp(-(across / 0.24).square()) * ((along + 0.15) * 5).clamp(0, 1) * ((length - along) * 3).clamp(0, 1)
    )
    dark = torch.maximum(dark, 0.8 * body_shadow)
    shade[rows] = shade[rows] * (1 - amount[rows][:, None, None] * 1.25 * dark).clamp(min=0.15)


def _tent(grid: Tensor) -> Tensor:
    """Halve [B, H, W, C] with the tent filter 1 3 3 1."""
    for dim in (1, 2):
        pairs = grid.unflatten(dim, (grid.shape[dim] // 2, 2))
        first, second = pairs.select(dim + 1, 0), pairs.select(dim + 1, 1)
        size = first.shape[dim]
        before = torch.cat([first.narrow(dim, 0, 1), second.narrow(dim, 0, size - 1)], dim)
        after = torch.cat([first.narrow(dim, 1, size - 1), second.narrow(dim, size - 1, 1)], dim)
        grid = (3 * (first + second) + before + after) / 8
    return grid


def _vote(labels: Tensor) -> Tensor:
    """The label that most of a pixel's covered samples carry, uint8 [B, H, W] from [B, 2H, 2W]; 0 where none is."""
    four = [labels[:, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
    best, most = torch.zeros_like(four[0]), torch.zeros_like(four[0])
    for label in four:
        votes = sum((label == other).to(torch.uint8) for other in four) * (label > 0)
        better = votes > most
        best, most = torch.where(better, label, best), torch.where(better, votes, most)
    return best


def _visible(
    buffer: Tensor, parts: draw.Parts, frame: draw.Frame, points: Tensor, main: Tensor, mask: Tensor
) -> Tensor:
    """Say which joints are seen, bool [B, 18]: inside the frame and the mask, and not covered by something nearer."""
    batch, height, width = mask.shape
    place = points[..., :2] * frame.scale[:, None] + frame.offset[:, None]  # pixels
    pixel = place.floor().long()
    inside = (pixel[..., 0] >= 0) & (pixel[..., 0] < width) & (pixel[..., 1] >= 0) & (pixel[..., 1] < height)
    x, y = pixel[..., 0].clamp(0, width - 1), pixel[..., 1].clamp(0, height - 1)
    image = torch.arange(batch, device=mask.device)[:, None].expand(-1, points.shape[1])
    fine = (place * SAMPLING).floor().long()
    key = buffer[image, fine[..., 1].clamp(0, height * SAMPLING - 1), fine[..., 0].clamp(0, width * SAMPLING - 1)]
    part = draw.part_at(key, image, parts, batch)
    depth = draw.key_depth(key) - parts.bias[part]
    own = (parts.owner[part] == main[:, None]) & (key != draw.FAR)
    near_enough = depth >= points[..., 2] - torch.tensor(COVER, device=mask.device)
    return inside & own & near_enough & (mask[image, y, x] > 127)


def draw_shots(
    pids: list[int],
    shot: dict[str, Tensor],
    *,
    network: Network,
    seed: int,
    scene: str,
    difficulty: float,
    image_size: tuple[int, int],
    backdrop: tuple[float, float, float] | None = None,
    effects_on: bool = True,
    device: str = "cpu",
) -> Rendered:
    """Render one picture for each identity and shot.

    `backdrop` replaces the scene (and its shadows) by one colour; `effects_on=False` leaves out the camera: even light,
    no blur, no noise. Distractor shots show no person of their own.
    """
    device = torch.device(device)
    height, width = image_size
    batch = len(pids)
    shot = {name: value.to(device) for name, value in shot.items()}
    power, muted = strength(scene, difficulty), mutedness(scene, difficulty)
    camera = take(effects.camera_table(network, power, device), shot["camera"])
    pitch = shot["pitch"] if "pitch" in shot else torch.atan((camera["height"] - 0.9) / shot["distance"])
    cast = assemble(pids, shot, pitch, seed=network.seed(seed), muted=muted)
    main = torch.arange(batch, device=device)
    joints, rotation = take(cast.joints, main), cast.rotation[:batch]
    frame = _frame(joints, rotation, take(cast.person, main), shot, height, width)
    fine = draw.Frame(frame.scale * SAMPLING, frame.offset * SAMPLING)
    buffer = draw.rasterise(cast.parts, fine, batch, height * SAMPLING, width * SAMPLING)
    grid, labels = _shade(cast, fine, buffer, camera, effects_on)
    coverage = _tent(grid)  # rgb, anything, the person
    colour, alpha, own = coverage[..., :3], coverage[..., 3:4], coverage[..., 4]
    if backdrop is None:
        behind = _backdrop(network, shot, camera, frame, pitch, cast, height, width)
    else:
        behind = torch.tensor(backdrop, device=device).expand(batch, height, width, 3)
    picture = (behind * (1 - alpha) + colour).permute(0, 3, 1, 2)
    if effects_on:
        images = effects.record(picture, camera, shot, power)
    else:
        images = (picture * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    masks = (own * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    parsing = torch.where(masks > 127, _vote(labels), torch.zeros((), dtype=torch.uint8, device=device))
    points = (rotation[:, None] @ skeleton.openpose(joints)[..., None])[..., 0] + cast.shift[:batch, None]
    seen = _visible(buffer, cast.parts, frame, points, main, masks)
    place = points[..., :2] * frame.scale[:, None] + frame.offset[:, None] - 0.5  # pixel centres are whole numbers
    missing = torch.tensor([-1.0, -1.0, 0.0], device=device)
    keypoints = torch.where(seen[..., None], torch.cat([place, torch.ones_like(place[..., :1])], -1), missing)
    return Rendered(
        images, masks, parsing, keypoints, place, _hidden(cast.parts, fine, buffer, main, shot["occluder"] > 0)
    )


def _backdrop(
    network: Network,
    shot: dict[str, Tensor],
    camera: dict[str, Tensor],
    frame: draw.Frame,
    pitch: Tensor,
    cast: Cast,
    height: int,
    width: int,
) -> Tensor:
    """The scene behind the people with their shadows on its ground, float [B, H, W, 3]."""
    metre = scenes.FOCAL / shot["distance"]  # panorama pixels
    step = metre[:, None] / frame.scale
    top = metre * camera["height"] - scenes.TOP - frame.offset[:, 1] * step[:, 1]
    left = scenes.WIDTH / 2 + metre * shot["place"] - frame.offset[:, 0] * step[:, 0]
    behind = scenes.backdrop(scenes.panoramas(network.name), shot["camera"], left, top, step, height, width)
    shade = torch.ones(len(metre), height, width, device=metre.device)
    for group in cast.groups:  # each picture at most once in a group
        rows = cast.rows[group]
        _shadow(
            shade,
            rows,
            take(cast.joints, group),
            cast.rotation[group],
            cast.shift[group],
            frame,
            pitch,
            camera["light"],
            camera["shadow"],
        )
    return behind * shade[..., None]


def _shade(
    cast: Cast, fine: draw.Frame, buffer: Tensor, camera: dict[str, Tensor], lights: bool
) -> tuple[Tensor, Tensor]:
    """Colour the samples: float [B, 2H, 2W, 5] (red, green, blue, anything there, the person there) and labels."""
    batch, height, width = buffer.shape
    covered = (buffer.view(-1) != draw.FAR).nonzero()[:, 0]
    leader = draw.leaders(buffer).view(-1)[covered].long()
    first = leader == covered
    found = draw.samples(cast.parts, fine, buffer, covered[first])
    colour, label, normal, shade = paint.paint(cast.parts, found, cast.person, cast.rotation, cast.shift)
    image = found.position // (height * width)
    if lights:
        dark = effects.crevices(draw.key_depth(buffer[:, ::2, ::2]), max(1, round(height / 160)))
        pixel = (image * (height // 2) + found.position // width % height // 2) * (
            width // 2
        ) + found.position % width // 2
        light = effects.lit(normal, camera["light"][image], camera["ambient"][image], camera["sun"][image])
        colour = colour * (shade * (1 - 0.55 * dark.view(-1)[pixel]))[:, None] * light
    own = cast.parts.owner[found.part] == image  # the picture's own person
    painted = torch.cat([colour.clamp(0, 1.2), torch.ones_like(shade)[:, None], own[:, None].float()], 1)
    rank = torch.empty(batch * height * width, dtype=torch.int64, device=buffer.device)
    rank[found.position] = torch.arange(len(found.position), device=buffer.device)
    source = rank[leader]
    grid = torch.zeros(batch * height * width, 5, device=buffer.device)
    grid.index_copy_(0, covered, painted.index_select(0, source))
    labels = torch.zeros(batch * height * width, dtype=torch.uint8, device=buffer.device)
    labels[covered] = torch.where(own, label, 0).to(torch.uint8)[source]
    return grid.view(batch, height, width, 5), labels.view(batch, height, width)


def _hidden(parts: draw.Parts, fine: draw.Frame, buffer: Tensor, main: Tensor, occluded: Tensor) -> Tensor:
    """Part of each person's samples in the frame that an occluder hides, 0..1: the person is drawn once more, alone."""
    rows = occluded.nonzero()[:, 0]
    result = torch.zeros(len(main), device=buffer.device)
    if len(rows) == 0:
        return result
    where = torch.full((len(main),), -1, dtype=torch.int64, device=buffer.device)
    where[rows] = torch.arange(len(rows), device=buffer.device)
    keep = (where[parts.image] >= 0) & (parts.owner == main[parts.image])
    alone = draw.Parts(*(value[keep] for value in parts))._replace(image=where[parts.image[keep]])
    height, width = buffer.shape[1:]
    coarse = draw.Frame(fine.scale[rows] / SAMPLING, fine.offset[rows] / SAMPLING + 0.25)  # centres on first samples
    whole = draw.rasterise(alone, coarse, len(rows), height // SAMPLING, width // SAMPLING) != draw.FAR
    key = buffer[rows][:, ::SAMPLING, ::SAMPLING]
    part = draw.part_at(key, rows[:, None, None], parts, len(main))
    seen = whole & (key != draw.FAR) & (parts.owner[part] == main[rows, None, None])
    result[rows] = 1 - seen.sum((1, 2)) / whole.sum((1, 2)).clamp(min=1)
    return result
