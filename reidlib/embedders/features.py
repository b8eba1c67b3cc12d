"""Features without training: pixels and colour histograms, the baselines that every learnt feature must beat."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.networks import check_images, rgb_to_lab


def pixel_features(images: Tensor, *, size: tuple[int, int] = (16, 8)) -> Tensor:
    """Return the images shrunk to `size` (height, width), antialiased, as vectors in [0, 1].

    Args:
        images: uint8 [N, 3, H, W].

    Returns:
        float32 [N, 3 * height * width].

    >>> pixel_features(torch.full((2, 3, 64, 32), 255, dtype=torch.uint8)).shape
    torch.Size([2, 384])
    """
    check_images(images)
    small = F.interpolate(images.float() / 255, size=size, mode="bilinear", antialias=True)
    return small.flatten(1)


def colour_histogram(
    images: Tensor,
    *,
    space: str = "hsv",
    bins: tuple[int, int, int] = (8, 4, 4),
    stripes: int = 1,
    masks: Tensor | None = None,
    centre: bool = False,
    grey_world: bool = False,
) -> Tensor:
    r"""Return the joint colour histogram of each horizontal stripe, as square roots of frequencies.

    $$h_{s, b} = \sqrt{w_{s, b} / \textstyle\sum_b w_{s, b}}$$

    where $w_{s, b}$ is the weight of stripe s's pixels in colour bin b. The root makes the Euclidean distance
    Hellinger's, so that large plain areas do not rule everything.

    Args:
        images: uint8 [N, 3, H, W].
        space: "hsv", or "lab" (CIELAB with L in [0, 100], a and b in [-128, 128]).
        bins: number of bins of each channel.
        stripes: horizontal stripes, top to bottom; 1 is the whole image.
        masks: uint8 [N, H, W] weights (a person mask); an empty stripe gives zeros.
        centre: weight pixels by a Gaussian across the width (deviation a quarter of it): a crude mask.
        grey_world: first scale each channel to a common mean, which takes out a camera's white balance.

    Returns:
        float32 [N, stripes * product of bins].

    Raises:
        ValueError: for an unknown space, more stripes than rows, or masks that do not fit.

    >>> colour_histogram(torch.zeros(2, 3, 64, 32, dtype=torch.uint8), stripes=6).shape
    torch.Size([2, 768])
    """
    check_images(images)
    n, _, height, width = images.shape
    check_choice("space", space, _SPACES)
    if not 1 <= stripes <= height:
        raise ValueError(f"stripes={stripes}: accepted are 1 to the {height} rows of the images")
    if masks is not None and masks.shape != (n, height, width):
        raise ValueError(f"masks must be {(n, height, width)}; got {tuple(masks.shape)}")
    rgb = images.float() / 255
    if grey_world:
        means = rgb.mean((2, 3), keepdim=True)  # [N, 3, 1, 1]
        rgb = (rgb * means.mean(1, keepdim=True) / means.clamp(min=1e-3)).clamp(0, 1)
    channels = _SPACES[space](rgb)  # [N, 3, H, W] in [0, 1]
    counts = torch.tensor(bins, device=images.device)[:, None, None]
    levels = torch.minimum((channels * counts).long(), counts - 1).clamp(min=0)
    colour = (levels[:, 0] * bins[1] + levels[:, 1]) * bins[2] + levels[:, 2]  # [N, H, W]
    n_colours = bins[0] * bins[1] * bins[2]
    rows = torch.arange(height, device=images.device)
    cell = (rows * stripes // height)[:, None] * n_colours + colour
    weights = torch.ones_like(rgb[:, 0]) if masks is None else masks.to(images.device).float() / 255
    if centre:
        offset = (torch.arange(width, device=images.device) + 0.5) / width - 0.5
        weights = weights * torch.exp(-0.5 * (offset / 0.25) ** 2)
    histogram = torch.zeros(n, stripes * n_colours, device=images.device)
    histogram.scatter_add_(1, cell.flatten(1), weights.flatten(1))
    histogram = histogram.view(n, stripes, n_colours)
    return (histogram / histogram.sum(2, keepdim=True).clamp(min=1e-12)).sqrt().flatten(1)


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """Turn RGB [N, 3, H, W] in [0, 1] into hue, saturation and value, all in [0, 1] (grey has hue 0).

    >>> rgb_to_hsv(torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]).flatten().tolist()
    [0.3333333432674408, 1.0, 1.0]
    """
    value, index = rgb.max(1)
    spread = value - rgb.min(1).values
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    r, g, b = rgb.unbind(1)
    choices = torch.stack([(g - b) / safe, 2 + (b - r) / safe, 4 + (r - g) / safe], 1)
    hue = choices.gather(1, index[:, None])[:, 0] / 6 % 1
    saturation = spread / value.clamp(min=1e-12)
    return torch.stack([torch.where(spread > 0, hue, torch.zeros_like(hue)), saturation, value], 1)


def _scaled_lab(rgb: Tensor) -> Tensor:
    """Scale CIELAB to [0, 1]: L / 100, (a + 128) / 256 and b alike."""
    lightness, a, b = rgb_to_lab(rgb).unbind(1)
    return torch.stack([lightness / 100, (a + 128) / 256, (b + 128) / 256], 1)


_SPACES = {"hsv": rgb_to_hsv, "lab": _scaled_lab}
