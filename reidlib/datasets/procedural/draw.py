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

TILE = 8                       # edge of a square tile, in samples
FAR = 2**31 - 1                # key of a sample that nothing covers
DEPTH_STEPS = 16384            # depth buffer steps per metre
DEPTH_ORIGIN = 8.0             # metres in front of the person that still fit the buffer
PART_BITS = 12                 # up to 4096 parts in one picture


class Parts(NamedTuple):
    """Parts of all pictures of a batch, in view coordinates (X right, Y down, D away from the viewer; metres)."""

    image: Tensor        # int64 [M] picture that the part is drawn in
    owner: Tensor        # int64 [M] row of the people table that it belongs to; -1: an object
    material: Tensor     # int64 [M]
    to_local: Tensor     # float [M, 3, 4]: s = to_local @ (X, Y, D, 1)
    alpha: Tensor        # float [M]
    taper: Tensor        # float [M]
    clip: Tensor         # float [M, 5]: normal in s, lowest, highest
    bias: Tensor         # float [M] metres added to the depth where parts are compared
    box: Tensor          # float [M, 4] X and Y bounds: left, top, right, bottom
    extra: Tensor        # float [M, 6]: along start, along end, side, colour


class Frame(NamedTuple):
    """How view metres become pixels in each picture: x = X * scale_x + offset_x, y likewise."""

    scale: Tensor        # float [B, 2]
    offset: Tensor       # float [B, 2]


class Samples(NamedTuple):
    """The covered samples of a batch and the part that each of them shows."""

    position: Tensor     # int64 [S] into the flattened [B, H, W] grid of samples
    part: Tensor         # int64 [S] row of Parts
    view: Tensor         # float [S, 3] X, Y, D


def _tiles(parts: Parts, frame: Frame, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the (part, tile) pairs whose boxes meet: part row, tile column, tile row, each int64 [T]."""
    scale, offset = frame.scale[parts.image], frame.offset[parts.image]               # [M, 2]
    low = ((parts.box[:, :2] * scale + offset) / TILE).floor().long().clamp_(min=0)
    high = ((parts.box[:, 2:] * scale + offset) / TILE).floor().long()
    high = torch.minimum(high, torch.tensor([width // TILE - 1, height // TILE - 1], device=high.device))
    count = (high - low + 1).clamp_(min=0)                                            # [M, 2] tiles across and down
    total = count[:, 0] * count[:, 1]
    part = torch.repeat_interleave(torch.arange(len(total), device=total.device), total)
    first = torch.repeat_interleave(total.cumsum(0) - total, total)
    within = torch.arange(len(part), device=part.device) - first
    across = count[part, 0]
    return part, low[part, 0] + within % across, low[part, 1] + within // across


def _dot(left: Tensor, right: Tensor, alpha: Tensor) -> Tensor:
    """The part's inner product: s1 t1 + s2 t2 + alpha s3 t3."""
    return left[:, 0] * right[:, 0] + left[:, 1] * right[:, 1] + alpha * left[:, 2] * right[:, 2]


def _roots(a: Tensor, b: Tensor, c: Tensor, clip_at: Tensor, clip_slope: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Nearest root of a D^2 + 2 b D + c whose clip coordinate lies in [low, high]; infinite where there is none."""
    disc = torch.addcmul(-a * c, b, b)
    root = disc.clamp(min=0).sqrt_()
    inverse = 1 / a
    size = inverse.abs()
    middle = -b * inverse
    reach = root * size
    near, far = middle - reach, middle + reach
    covered = disc > 0
    at = torch.addcmul(clip_at, clip_slope, near)
    near_ok = covered & (at >= low) & (at <= high)
    at = torch.addcmul(clip_at, clip_slope, far)
    far_ok = covered & (at >= low) & (at <= high)
    never = torch.full((), float("inf"), device=a.device)
    return torch.where(near_ok, near, torch.where(far_ok, far, never))


def tile_depths(parts: Parts, frame: Frame, part: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Depth of each part at the samples of its tiles, float [T, TILE * TILE], infinite where it is not."""
    device = part.device
    step = torch.arange(TILE, dtype=torch.float32, device=device) + 0.5               # sample centres
    dy, dx = (grid.reshape(-1) for grid in torch.meshgrid(step, step, indexing="ij"))  # [64]
    linear = torch.stack([torch.ones_like(dx), dx, dy])                               # [3, 64]
    quadratic = torch.stack([torch.ones_like(dx), dx, dy, dx * dx, dx * dy, dy * dy])  # [6, 64]
    image = parts.image[part]
    scale, offset = frame.scale[image], frame.offset[image]                           # [T, 2]
    local, alpha, taper = parts.to_local[part], parts.alpha[part], parts.taper[part]
    corner = (torch.stack([column, row], 1) * TILE - offset) / scale                  # view metres of the tile's corner
    origin = local[:, :, 3] + local[:, :, 0] * corner[:, :1] + local[:, :, 1] * corner[:, 1:]
    along_x, along_y = local[:, :, 0] / scale[:, :1], local[:, :, 1] / scale[:, 1:]   # [T, 3] per sample
    depth = local[:, :, 2]
    a = _dot(depth, depth, alpha)
    a = torch.where(a.abs() < 1e-3, torch.full_like(a, 1e-3), a)[:, None]
    b = torch.stack([_dot(origin, depth, alpha) - taper * depth[:, 2], _dot(along_x, depth, alpha),
                     _dot(along_y, depth, alpha)], 1) @ linear                        # [T, 64]
    c = torch.stack([
        _dot(origin, origin, alpha) - 2 * taper * origin[:, 2] - 1,
        2 * (_dot(origin, along_x, alpha) - taper * along_x[:, 2]),
        2 * (_dot(origin, along_y, alpha) - taper * along_y[:, 2]),
        _dot(along_x, along_x, alpha), 2 * _dot(along_x, along_y, alpha), _dot(along_y, along_y, alpha),
    ], 1) @ quadratic                                                                 # [T, 64]
    clip = parts.clip[part]
    normal = clip[:, :3]
    clip_at = torch.stack([(normal * v).sum(1) for v in (origin, along_x, along_y)], 1) @ linear
    slope = (normal * depth).sum(1, keepdim=True)
    return _roots(a, b, c, clip_at, slope, clip[:, 3:4], clip[:, 4:5])


def rasterise(parts: Parts, frame: Frame, batch: int, height: int, width: int) -> Tensor:
    """Return the depth buffer, int32 [batch, height, width]: depth steps and part number in one key, FAR where empty.

    Part numbers count from the first part of their picture; `parts` must be sorted by picture, and `height` and
    `width` be multiples of TILE.
    """
    device = parts.image.device
    counts = torch.bincount(parts.image, minlength=batch)
    number = torch.arange(len(parts.image), device=device) - (counts.cumsum(0) - counts)[parts.image]
    part, column, row = _tiles(parts, frame, height, width)
    depth = tile_depths(parts, frame, part, column, row) + parts.bias[part, None]
    steps = ((depth + DEPTH_ORIGIN) * DEPTH_STEPS).clamp_(0, 2**(31 - PART_BITS) - 2)
    key = (steps.int() << PART_BITS) + number[part, None].int()
    key = torch.where(torch.isfinite(depth), key, torch.full((), FAR, dtype=torch.int32, device=device))
    tiles_x, tiles_y = width // TILE, height // TILE
    tile = (parts.image[part] * tiles_y + row) * tiles_x + column
    buffer = torch.full((batch * tiles_y * tiles_x * TILE * TILE,), FAR, dtype=torch.int32, device=device)
    index = tile[:, None] * (TILE * TILE) + torch.arange(TILE * TILE, device=device)
    buffer.scatter_reduce_(0, index.reshape(-1), key.reshape(-1), "amin")
    buffer = buffer.view(batch, tiles_y, tiles_x, TILE, TILE).permute(0, 1, 3, 2, 4)
    return buffer.reshape(batch, height, width)


def key_depth(key: Tensor) -> Tensor:
    """Depth in metres of keys of the depth buffer (8 metres and more where nothing is)."""
    return (key >> PART_BITS).float() / DEPTH_STEPS - DEPTH_ORIGIN


def samples(parts: Parts, frame: Frame, buffer: Tensor) -> Samples:
    """Return the covered samples of a depth buffer with the part each one shows and its place in view metres."""
    batch, height, width = buffer.shape
    flat = buffer.reshape(-1)
    position = (flat != FAR).nonzero()[:, 0]
    key = flat[position]
    image = position // (height * width)
    counts = torch.bincount(parts.image, minlength=batch)
    part = (counts.cumsum(0) - counts)[image] + (key & (2**PART_BITS - 1)).long()
    depth = key_depth(key) - parts.bias[part]
    pixel = torch.stack([(position % width).float(), (position // width % height).float()], 1) + 0.5
    view = (pixel - frame.offset[image]) / frame.scale[image]
    return Samples(position, part, torch.cat([view, depth[:, None]], 1))
