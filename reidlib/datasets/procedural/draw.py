r"""The rasteriser: quadric body parts, one flat list of (part, tile) pairs for the whole batch, a depth buffer.

A part is an ellipsoid or an elliptic cone in its own scaled coordinates $s$,
$s_1^2 + s_2^2 + \alpha s_3^2 - 2 k s_3 = 1$ (ellipsoid $\alpha = 1, k = 0$; cone with taper $k$: $\alpha = -k^2$),
cut to the slab $lo \le c \cdot s \le hi$. The view is orthographic, so $s = m + n D$ is linear in the depth $D$ and the
depth of a part at a pixel is a root of $A D^2 + 2 B D + C = 0$, where $A$ is one number for a part, $B$ is linear
and $C$ quadratic in the pixel's position: two small matrix products for all pixels of all tiles.
"""

from typing import NamedTuple

import torch
from torch import Tensor

TILE = 8  # edge of a square tile, in samples
FAR = 2**31 - 1  # key of a sample that nothing covers
DEPTH_STEPS = 16384  # depth buffer steps per metre
DEPTH_ORIGIN = 8.0  # metres in front of the person that still fit the buffer
PART_BITS = 12  # of a key: the part's number in its picture, below the flag of parts painted alone
ALONE = 1 << (PART_BITS - 1)


class Parts(NamedTuple):
    """Parts of all pictures of a batch, in view coordinates (X right, Y down, D away from the viewer; metres)."""

    image: Tensor  # int64 [M] picture that the part is drawn in
    owner: Tensor  # int64 [M] row of the people table that it belongs to; -1: an object
    material: Tensor  # int64 [M]
    to_local: Tensor  # float [M, 3, 4]: s = to_local @ (X, Y, D, 1)
    alpha: Tensor  # float [M]
    taper: Tensor  # float [M]
    clip: Tensor  # float [M, 5]: normal in s, lowest, highest
    bias: Tensor  # float [M] metres added to the depth where parts are compared
    box: Tensor  # float [M, 4] X and Y bounds: left, top, right, bottom
    spine: Tensor  # float [M, 5] a capsule around the part in X, Y: start, end, radius (metres)
    hollow: Tensor  # bool [M] the inside may be seen
    alone: Tensor  # bool [M] painted sample by sample, not pixel by pixel
    extra: Tensor  # float [M, 6]: along start, along end, side, colour


class Frame(NamedTuple):
    """How view metres become pixels in each picture: x = X * scale_x + offset_x, y likewise."""

    scale: Tensor  # float [B, 2]
    offset: Tensor  # float [B, 2]


class Samples(NamedTuple):
    """The covered samples of a batch and the part that each of them shows."""

    position: Tensor  # int64 [S] into the flattened [B, H, W] grid of samples
    part: Tensor  # int64 [S] row of Parts
    view: Tensor  # float [S, 3] X, Y, D


def _tiles(parts: Parts, frame: Frame, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the (part, tile) pairs that may meet: part row, tile column, tile row, each int64 [T]."""
    scale, offset = frame.scale[parts.image], frame.offset[parts.image]  # [M, 2]
    low = ((parts.box[:, :2] * scale + offset) / TILE).floor().long().clamp_(min=0)
    high = ((parts.box[:, 2:] * scale + offset) / TILE).floor().long()
    high = torch.minimum(high, torch.tensor([width // TILE - 1, height // TILE - 1], device=high.device))
    count = (high - low + 1).clamp_(min=0)  # [M, 2] tiles across and down
    total = count[:, 0] * count[:, 1]
    part = torch.repeat_interleave(torch.arange(len(total), device=total.device), total)
    first = torch.repeat_interleave(total.cumsum(0) - total, total)
    within = torch.arange(len(part), device=part.device) - first
    across = count[part, 0]
    column, row = low[part, 0] + within % across, low[part, 1] + within // across
    # Drop tiles farther from the part's capsule than its radius and half a tile's diagonal.
    start = (parts.spine[:, 0:2] * scale + offset)[part]
    end = (parts.spine[:, 2:4] * scale + offset)[part]
    radius = (parts.spine[:, 4] * scale.amax(1))[part] + 0.7072 * TILE
    middle = (torch.stack([column, row], 1) + 0.5) * TILE - start
    along = end - start
    t = ((middle * along).sum(1) / along.square().sum(1).clamp(min=1e-6)).clamp_(0, 1)
    keep = (middle - t[:, None] * along).square().sum(1) <= radius.square()
    return part[keep], column[keep], row[keep]


def _dot(left: Tensor, right: Tensor, alpha: Tensor) -> Tensor:
    """The part's inner product: s1 t1 + s2 t2 + alpha s3 t3."""
    return left[:, 0] * right[:, 0] + left[:, 1] * right[:, 1] + alpha * left[:, 2] * right[:, 2]


def _roots(
    a: Tensor, b: Tensor, c: Tensor, clip_at: Tensor, clip_slope: Tensor, low: Tensor, high: Tensor, *, hollow: bool
) -> Tensor:
    """Nearest root of a D^2 + 2 b D + c whose clip coordinate lies in [low, high]; infinite where there is none.

    Only hollow parts are looked into: there the far root counts where the near one is cut away.
    """
    never = torch.full((), float("inf"), device=a.device)
    inverse = 1 / a
    middle = b * -inverse
    reach = (torch.addcmul(-a * c, b, b)).sqrt_().mul_(inverse.abs())  # not a number beside the part
    near = middle - reach
    at = torch.addcmul(clip_at, clip_slope, near)
    near = torch.where((at >= low) & (at <= high), near, never)  # comparisons with nan are false
    if not hollow:
        return near
    far = middle.add_(reach)
    at = torch.addcmul(clip_at, clip_slope, far)
    return torch.minimum(near, torch.where((at >= low) & (at <= high), far, never))


def tile_depths(parts: Parts, frame: Frame, part: Tensor, column: Tensor, row: Tensor, *, hollow: bool) -> Tensor:
    """Depth of each part at the samples of its tiles, float [T, TILE * TILE], infinite where it is not."""
    device = part.device
    step = torch.arange(TILE, dtype=torch.float32, device=device) + 0.5  # sample centres
    dy, dx = (grid.reshape(-1) for grid in torch.meshgrid(step, step, indexing="ij"))  # [64]
    linear = torch.stack([torch.ones_like(dx), dx, dy])  # [3, 64]
    quadratic = torch.stack([torch.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy])  # [6, 64]
    image = parts.image[part]
    scale, offset = frame.scale[image], frame.offset[image]  # [T, 2]
    local, alpha, taper = parts.to_local[part], parts.alpha[part], parts.taper[part]
    corner = (torch.stack([column, row], 1) * TILE - offset) / scale  # view metres of the tile's corner
    origin = local[:, :, 3] + local[:, :, 0] * corner[:, :1] + local[:, :, 1] * corner[:, 1:]
    along_x, along_y = local[:, :, 0] / scale[:, :1], local[:, :, 1] / scale[:, 1:]  # [T, 3] per sample
    depth = local[:, :, 2]
    a = _dot(depth, depth, alpha)
    a = torch.where(a.abs() < 1e-3, torch.full_like(a, 1e-3), a)[:, None]
    b = (
        torch.stack(
            [
                _dot(origin, depth, alpha) - taper * depth[:, 2],
                _dot(along_x, depth, alpha),
                _dot(along_y, depth, alpha),
            ],
            1,
        )
        @ linear
    )  # [T, 64]
    c = (
        torch.stack(
            [
                _dot(origin, origin, alpha) - 2 * taper * origin[:, 2] - 1,
                2 * (_dot(origin, along_x, alpha) - taper * along_x[:, 2]),
                2 * (_dot(origin, along_y, alpha) - taper * along_y[:, 2]),
                _dot(along_x, along_x, alpha),
                2 * _dot(along_x, along_y, alpha),
                _dot(along_y, along_y, alpha),
            ],
            1,
        )
        @ quadratic
    )  # [T, 64]
    clip = parts.clip[part]
    normal = clip[:, :3]
    clip_at = torch.stack([(normal * v).sum(1) for v in (origin, along_x, along_y)], 1) @ linear
    slope = (normal * depth).sum(1, keepdim=True)
    return _roots(a, b, c, clip_at, slope, clip[:, 3:4], clip[:, 4:5], hollow=hollow)


def rasterise(parts: Parts, frame: Frame, batch: int, height: int, width: int) -> Tensor:
    """Return the depth buffer, int32 [batch, height, width]: depth steps and part number in one key, FAR where empty.

    Part numbers count from the first part of their picture; `parts` must be sorted by picture, and `height` and
    `width` be multiples of TILE.
    """
    device = parts.image.device
    counts = torch.bincount(parts.image, minlength=batch)
    number = (
        torch.arange(len(parts.image), device=device) - (counts.cumsum(0) - counts)[parts.image] + ALONE * parts.alone
    )
    pairs = torch.stack(_tiles(parts, frame, height, width))
    tiles_x, tiles_y = width // TILE, height // TILE
    buffer = torch.full((batch * tiles_y * tiles_x * TILE * TILE,), FAR, dtype=torch.int32, device=device)
    inside = torch.arange(TILE * TILE, device=device)
    hollow = parts.hollow[pairs[0]]
    for open_ended in (False, True):
        part, column, row = pairs[:, hollow == open_ended]
        depth = tile_depths(parts, frame, part, column, row, hollow=open_ended)
        steps = ((depth + (parts.bias[part, None] + DEPTH_ORIGIN)) * DEPTH_STEPS).clamp_(0, 2 ** (31 - PART_BITS) - 1)
        key = (steps.int() << PART_BITS) + number[part, None].int()
        key.masked_fill_(torch.isinf(depth), FAR)
        tile = (parts.image[part] * tiles_y + row) * tiles_x + column
        buffer.scatter_reduce_(0, (tile[:, None] * (TILE * TILE) + inside).reshape(-1), key.reshape(-1), "amin")
    buffer = buffer.view(batch, tiles_y, tiles_x, TILE, TILE).permute(0, 1, 3, 2, 4)
    return buffer.reshape(batch, height, width)


def key_depth(key: Tensor) -> Tensor:
    """Depth in metres of keys of the depth buffer (8 metres and more where nothing is)."""
    return (key >> PART_BITS).float() / DEPTH_STEPS - DEPTH_ORIGIN


def part_at(key: Tensor, image: Tensor, parts: Parts, batch: int) -> Tensor:
    """Row of Parts that keys of the depth buffer show, int64; any valid row where nothing is."""
    counts = torch.bincount(parts.image, minlength=batch)
    return ((counts.cumsum(0) - counts)[image] + (key & (ALONE - 1)).long()).clamp_(max=len(parts.image) - 1)


def leaders(buffer: Tensor) -> Tensor:
    """For each sample, the flat index of the sample of its pixel (2 x 2) that is painted for it, int32 [B, H, W].

    Samples of one pixel that show the same part share a leader, unless that part is painted sample by sample.
    """
    part = buffer & (2**PART_BITS - 1)
    quad = [(slice(None), slice(dy, None, 2), slice(dx, None, 2)) for dy in (0, 1) for dx in (0, 1)]
    leader = torch.arange(buffer.numel(), dtype=torch.int32, device=buffer.device).view(buffer.shape)
    shown = [part[corner] for corner in quad]
    chief = [leader[corner] for corner in quad]
    for later in (1, 2, 3):
        shared = shown[later] < ALONE
        for earlier in reversed(range(later)):
            chief[later] = torch.where((shown[later] == shown[earlier]) & shared, chief[earlier], chief[later])
    for corner, chosen in zip(quad[1:], chief[1:], strict=True):
        leader[corner] = chosen
    return leader


def samples(parts: Parts, frame: Frame, buffer: Tensor, position: Tensor) -> Samples:
    """Return the part that each of some covered samples shows, and its place in view metres."""
    batch, height, width = buffer.shape
    key = buffer.reshape(-1)[position]
    image = position // (height * width)
    part = part_at(key, image, parts, batch)
    depth = key_depth(key) - parts.bias[part]
    pixel = torch.stack([(position % width).float(), (position // width % height).float()], 1) + 0.5
    view = (pixel - frame.offset[image]) / frame.scale[image]
    return Samples(position, part, torch.cat([view, depth[:, None]], 1))
