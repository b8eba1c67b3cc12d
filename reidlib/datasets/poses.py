r"""Poses from 18 key points: names, limbs and colours, heat maps, skeleton pictures, left/right swap; all batched.

Key points are float32 [B,18,3], (x, y, visible), in pixels with whole coordinates at pixel centres; a missing joint is
(-1, -1, 0). Order and colours are those of the public real-time multi-person pose demo (OpenPose's 18 points).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

JOINT_NAMES = (
    "nose", "neck", "R-shoulder", "R-elbow", "R-wrist", "L-shoulder", "L-elbow", "L-wrist", "R-hip", "R-knee",
    "R-ankle", "L-hip", "L-knee", "L-ankle", "R-eye", "L-eye", "R-ear", "L-ear",
)  # fmt: skip
# joint that stands at each place after a mirror: left and right change names
FLIPPED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
# the demo lists (2, 16) and (5, 17) too, but never draws them
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
# what a mask from key points fills beside the limbs: neck to ears, hip to hip, hip to shoulder, ear to ear
TRUNK = ((1, 16), (1, 17), (8, 11), (2, 8), (5, 11), (16, 17))
# RGB as pose pictures show them (the demo's triples are BGR); limb l has colour l
PALETTE = (
    (0, 0, 255), (0, 85, 255), (0, 170, 255), (0, 255, 255), (0, 255, 170), (0, 255, 85), (0, 255, 0), (85, 255, 0),
    (170, 255, 0), (255, 255, 0), (255, 170, 0), (255, 85, 0), (255, 0, 0), (255, 0, 85), (255, 0, 170), (255, 0, 255),
    (170, 0, 255), (85, 0, 255),
)  # fmt: skip
MISSING = (-1.0, -1.0, 0.0)  # a joint that was not found
TORSO = (2, 5, 8, 11)  # both shoulders and both hips


def visible(keypoints: Tensor) -> Tensor:
    """Return bool [B,18]: which joints were found.

    >>> visible(torch.tensor([[[3.0, 4.0, 1.0]] + [[-1.0, -1.0, 0.0]] * 17])).sum().item()
    1
    """
    _check(keypoints)
    return keypoints[..., 2] > 0


def has_torso(keypoints: Tensor) -> Tensor:
    """Return bool [B]: both shoulders and both hips were found (pose-transfer work pairs only such images)."""
    return visible(keypoints)[:, TORSO].all(dim=1)


def flip_keypoints(keypoints: Tensor, width: int) -> Tensor:
    """Mirror key points in an image of this width: x becomes W-1-x, and left and right joints change places.

    Applied twice it gives the key points back.
    """
    _check(keypoints)
    out = keypoints[:, FLIPPED].clone()
    found = out[..., 2] > 0
    out[..., 0] = torch.where(found, width - 1 - out[..., 0], out[..., 0])
    return out


def clear_missing(keypoints: Tensor, found: Tensor) -> Tensor:
    """Return the key points with (-1, -1, 0) wherever `found` (bool [B,18]) is False."""
    return torch.where(found[..., None], keypoints, torch.tensor(MISSING, device=keypoints.device))


def heat_maps(keypoints: Tensor, image_size: tuple[int, int], *, sigma: float | None = None) -> Tensor:
    r"""Return one Gaussian map for each joint, $\exp(-((y-y_j)^2+(x-x_j)^2)/(2\sigma^2))$, peak 1; missing: all zero.

    It is 0 where a joint is more than 6.07 sigma away along an axis.

    Args:
        keypoints: float32 [B,18,3] in pixels of `image_size`.
        image_size: (height, width).
        sigma: in pixels; default 6 at height 128, in proportion at other heights.

    Returns:
        float32 [B,18,H,W] in [0, 1].

    >>> points = torch.full((1, 18, 3), -1.0); points[..., 2] = 0; points[0, 4] = torch.tensor([10.0, 20.0, 1.0])
    >>> maps = heat_maps(points, (64, 32))
    >>> maps[0, 4, 20, 10].item(), maps[0, 5].max().item(), maps.shape
    (1.0, 0.0, torch.Size([1, 18, 64, 32]))
    """
    _check(keypoints)
    height, width = image_size
    sigma = 6 * height / 128 if sigma is None else sigma
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    rows = torch.arange(height, device=keypoints.device, dtype=torch.float32)
    columns = torch.arange(width, device=keypoints.device, dtype=torch.float32)
    # a Gaussian is a column times a row: H + W exponentials instead of H * W
    along_y = torch.exp(-((rows - keypoints[..., 1:2]) ** 2) / (2 * sigma**2))  # [B,18,H]
    along_x = torch.exp(-((columns - keypoints[..., 0:1]) ** 2) / (2 * sigma**2))  # [B,18,W]
    along_y = along_y * (keypoints[..., 2:] > 0)
    # below 1e-8 is 0: what is smaller yet becomes subnormal in a network, which makes a processor ten times slower
    along_y, along_x = (torch.where(along < 1e-8, 0.0, along) for along in (along_y, along_x))
    return along_y[..., :, None] * along_x[..., None, :]


def skeleton_images(keypoints: Tensor, image_size: tuple[int, int], *, radius: float | None = None) -> Tensor:
    """Draw coloured skeletons on black: a disc for each joint, then an ellipse for each limb, blended half and half.

    A limb with a missing end is not drawn; a joint alone still shows its disc. Edges are hard, as in the demo.

    Args:
        keypoints: float32 [B,18,3] in pixels of `image_size`.
        image_size: (height, width).
        radius: of discs, and half the thickness of limbs, in pixels; default 4 at height 256, in proportion, at least
            0.75.

    Returns:
        uint8 [B,3,H,W], RGB.

    >>> points = torch.full((1, 18, 3), -1.0); points[..., 2] = 0; points[0, 4] = torch.tensor([10.0, 20.0, 1.0])
    >>> skeleton_images(points, (64, 32))[0, :, 20, 10].tolist()
    [0, 255, 170]
    """
    height, width = image_size
    radius = max(0.75, 4 * height / 256) if radius is None else radius
    device = keypoints.device
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=device, dtype=torch.float32)[None, :]
    palette = torch.tensor(PALETTE, device=device, dtype=torch.float32)
    found = visible(keypoints)
    canvas = torch.zeros(len(keypoints), 3, height, width, device=device)

    def paint(inside: Tensor, colour: Tensor, opacity: float) -> Tensor:  # inside bool [B,H,W]
        return torch.where(inside[:, None], canvas * (1 - opacity) + colour[:, None, None] * opacity, canvas)

    for joint in range(len(JOINT_NAMES)):
        px, py = keypoints[:, joint, 0, None, None], keypoints[:, joint, 1, None, None]  # [B,1,1]
        inside = ((x - px) ** 2 + (y - py) ** 2 <= radius**2) & found[:, joint, None, None]
        canvas = paint(inside, palette[joint], 1.0)
    for limb, (a, b) in enumerate(LIMBS):
        middle = (keypoints[:, a, :2] + keypoints[:, b, :2]) / 2
        along = (keypoints[:, b, :2] - keypoints[:, a, :2]) / 2
        half = along.norm(dim=1)  # half the limb's length
        # joints in one place give no direction; any will do, but with none the whole canvas would be the limb
        along = torch.where(half[:, None] > 0, along / half[:, None].clamp_min(1e-6), along.new_tensor([1.0, 0.0]))
        half, unit = half.clamp_min(0.5), along[..., None, None]  # [B], [B,2,1,1]
        dx, dy = x - middle[:, 0, None, None], y - middle[:, 1, None, None]  # [B,H,W]
        u, v = dx * unit[:, 0] + dy * unit[:, 1], dy * unit[:, 0] - dx * unit[:, 1]
        inside = (u / half[:, None, None]) ** 2 + (v / radius) ** 2 <= 1
        canvas = paint(inside & (found[:, a] & found[:, b])[:, None, None], palette[limb], 0.5)
    return canvas.round().to(torch.uint8)


def limb_masks(keypoints: Tensor, image_size: tuple[int, int], *, radius: float | None = None) -> Tensor:
    """Return person masks made from key points: discs, rectangles along limbs and trunk, small gaps closed.

    Those of mask-LPIPS in Ren et al., "Deep Image Spatial Transformation for Person Image Generation", 2020. Clothes
    that stand off the body (a skirt, a bag) lie outside.

    Args:
        keypoints: float32 [B,18,3] in pixels of `image_size`.
        image_size: (height, width).
        radius: of discs, and half the width of rectangles, in pixels; default 4 at height 128, in proportion at other
            heights. The square that closes gaps has an odd side near it plus 1 (5 at 4).

    Returns:
        uint8 [B,H,W] of 0 and 255.

    >>> points = torch.full((1, 18, 3), -1.0); points[..., 2] = 0
    >>> points[0, 8], points[0, 9] = torch.tensor([16.0, 20.0, 1.0]), torch.tensor([16.0, 40.0, 1.0])
    >>> (limb_masks(points, (64, 32))[0, 30] == 255).nonzero().flatten().tolist()
    [14, 15, 16, 17, 18]
    """
    height, width = image_size
    radius = 4 * height / 128 if radius is None else radius
    y = torch.arange(height, device=keypoints.device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=keypoints.device, dtype=torch.float32)[None, :]
    found = visible(keypoints)[..., None, None]  # [B,18,1,1]
    px, py = (keypoints[..., i, None, None] for i in (0, 1))
    inside = torch.zeros(len(keypoints), height, width, dtype=torch.bool, device=keypoints.device)
    for joint in range(len(JOINT_NAMES)):
        inside |= found[:, joint] & ((x - px[:, joint]) ** 2 + (y - py[:, joint]) ** 2 <= radius**2)
    for a, b in (*LIMBS, *TRUNK):
        dx, dy = px[:, b] - px[:, a], py[:, b] - py[:, a]
        length = (dx**2 + dy**2).sqrt()  # [B,1,1]; joints in one place have no rectangle: 0 / 0 is in no range
        along = ((x - px[:, a]) * dx + (y - py[:, a]) * dy) / length
        across = ((x - px[:, a]) * dy - (y - py[:, a]) * dx) / length
        inside |= (along >= 0) & (along <= length) & (across.abs() <= radius) & found[:, a] & found[:, b]
    half = round(radius / 2)
    grown = F.max_pool2d(inside[:, None].float(), 2 * half + 1, 1, half)
    return (-255 * F.max_pool2d(-grown, 2 * half + 1, 1, half))[:, 0].to(torch.uint8)


def _check(keypoints: Tensor) -> None:
    if keypoints.dim() != 3 or tuple(keypoints.shape[1:]) != (len(JOINT_NAMES), 3):
        raise ValueError(f"keypoints must be [B,18,3] (x, y, visible), got {list(keypoints.shape)}")
