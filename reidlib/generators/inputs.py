"""What generators are given, and what their pictures are compared with: pairs, annotations, masks, maps."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.losses.reconstruction import masked_l1
from reidlib.networks import normalise

BACKGROUNDS = ("target", "source")  # whose background a generator is to draw


def resized(images: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return images [B,C,h,w] in [-1, 1] at another size (bicubic, antialiased, clamped), or as they are."""
    if tuple(images.shape[2:]) == tuple(image_size):
        return images
    return F.interpolate(images, tuple(image_size), mode="bicubic", antialias=True).clamp(-1, 1)


def pair_images(
    batch: Mapping[str, Tensor], method: str, *names: str, image_size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Return `images` and `target_images` of a batch of pairs in [-1, 1].

    Args:
        batch: what a `training_step` is given.
        method: what the method is called in messages.
        names: what else it trains on, such as "target_keypoints".
        image_size: (height, width) of its networks; None: any.

    Raises:
        ValueError: a batch that is not of pairs, lacks something, or has another image size.
    """
    wanted = ("images", "target_images", *names)
    if missing := [name for name in wanted if name not in batch]:
        raise ValueError(
            f"{method} trains on batches of pairs (see pair_batches) with {', '.join(wanted)}, "
            f"got {', '.join(sorted(batch))}: the batch lacks {', '.join(missing)}"
        )
    found = tuple(batch["images"].shape[2:])
    if image_size not in (None, found):
        raise ValueError(f"{method} trains here on images of {image_size} (height, width), the batch has {found}")
    return normalise(batch["images"], "signed"), normalise(batch["target_images"], "signed")


def wanted_images(batch: Mapping[str, Tensor], background: str = "target") -> tuple[Tensor, Tensor]:
    r"""Return the images that a pair's generated ones are compared with, and where.

    The place that a camera sees behind a person changes from photograph to photograph, and nothing that the generator
    is given tells it how: compared with the target alone it learns the mean of all places, which is fog. With
    "source" the person is to be the target's, and what stands around, of the source:

    $$\tilde I_j = m_j I_j + (1 - m_j) I_i, \qquad k = 1 - (1 - m_j)\,\hat m_i$$

    $k$ is 0 where only the source's person, $\hat m_i$ (the mask, a pixel wider), stood: what is behind them is in no
    image.

    Args:
        batch: of pairs; `images`, `target_images`, and for "source" the masks of both.
        background: "target" as published, or "source".

    Returns:
        float [B,3,H,W] in [-1, 1], and $k$, float [B,1,H,W] (1 everywhere for "target").

    Raises:
        ValueError: "source" and no masks; another background.

    >>> batch = {"images": torch.zeros(1, 3, 1, 8, dtype=torch.uint8), "masks": torch.zeros(1, 1, 8, dtype=torch.uint8)}
    >>> batch |= {f"target_{name}": value + 255 for name, value in batch.items()}
    >>> batch["target_masks"][..., 4:] = 0; batch["masks"][..., 6] = 255
    >>> wanted, known = wanted_images(batch, "source")
    >>> wanted[0, 0, 0].tolist(), known[0, 0, 0].tolist()
    ([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    """
    check_choice("background", background, BACKGROUNDS)
    target = normalise(batch["target_images"], "signed")
    if background == "target":
        return target, torch.ones_like(target[:, :1])
    masks = (annotation(batch, name, "pairs", "background='source'") for name in ("masks", "target_masks"))
    here, there = (each[:, None].float() / 255 for each in masks)
    known = 1 - (1 - there) * F.max_pool2d(here, 3, 1, 1)
    return torch.lerp(normalise(batch["images"], "signed"), target, there), known


def where_known(generated: Tensor, batch: Mapping[str, Tensor], background: str) -> Tensor:
    """Return `wanted_images` with the generated ones themselves, detached, where nothing is known to compare with."""
    return torch.lerp(generated.detach(), *wanted_images(batch, background))


def foreground_l1(
    generated: Tensor, batch: Mapping[str, Tensor], weight: float = 1.0, background: str = "target"
) -> Tensor:
    r"""Return the L1 difference from a pair's wanted image in which the target's person counts `weight` times as much.

    $$\frac{\sum w |\hat I_j - \tilde I_j|}{\sum w}, \qquad w = (1 + (\text{weight} - 1)\, m_j)\, k$$

    Args:
        generated: float [B,3,H,W] in [-1, 1].
        batch: of pairs; `target_images`, and where the weight is not 1 the mask $m_j$, `target_masks`.
        weight: 1 is the plain mean.
        background: of $\tilde I_j$ and $k$, see `wanted_images`; the target itself by default.

    Raises:
        ValueError: a weight above 1 and no masks, one that is not above 0; see `wanted_images`.

    >>> batch = {"target_images": torch.zeros(1, 3, 1, 2, dtype=torch.uint8)}
    >>> batch["target_masks"] = torch.tensor([[[255, 0]]], dtype=torch.uint8)
    >>> foreground_l1(torch.tensor([[[[-1.0, 0.0]]]]).expand(1, 3, 1, 2), batch, 3).item()  # (3 * 0 + 1 * 1) / 4
    0.25
    """
    if not weight > 0:
        raise ValueError(f"a weight above 0 is needed, got {weight}")
    wanted, known = wanted_images(batch, background)
    if weight == 1 and background == "target":
        return F.l1_loss(generated, wanted)
    if weight != 1 and "target_masks" not in batch:
        raise ValueError("foreground_weight above 1 needs the targets' masks, which this set lacks; pass 1")
    weights = known if weight == 1 else known * (1 + (weight - 1) * batch["target_masks"][:, None].float() / 255)
    return masked_l1(generated, wanted, weights, normalise_by_mask_area=True)


def annotation(batch: Mapping[str, Tensor] | None, name: str, role: str, method: str) -> Tensor:
    """Return an annotation of the sources or targets that a `condition` is made from.

    Args:
        batch: sources or targets; None where the caller gave none.
        name: "masks", "keypoints" or "parsing".
        role: "sources" or "targets", and
        method: what the method is called, in messages.

    Raises:
        ValueError: there is no batch, or it lacks the annotation.
    """
    if batch is None or name not in batch:
        got = "nothing" if batch is None else ", ".join(sorted(batch))
        raise ValueError(f"{method} needs {role} with {name}, got {got}")
    return batch[name]


def both_maps(condition: Any, images: Tensor, channels: int) -> list[Tensor]:
    """Return the maps of the "source" and of the "target" that a condition holds, each [B,channels,H,W].

    Raises:
        ValueError: anything but the two, for each image and of its size.

    >>> maps = torch.zeros(2, 18, 64, 32)
    >>> [found.shape for found in both_maps({"source": maps, "target": maps}, torch.zeros(2, 3, 64, 32), 18)]
    [torch.Size([2, 18, 64, 32]), torch.Size([2, 18, 64, 32])]
    """
    wanted = [len(images), channels, *images.shape[2:]]
    found = [condition.get(role) if isinstance(condition, Mapping) else condition for role in ("source", "target")]
    got = [list(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__ for maps in found]
    if not isinstance(condition, Mapping) or got != [wanted, wanted]:
        raise ValueError(f"condition must hold maps {wanted} of the source and of the target, got {got}")
    return found


def join_pictures(images: Tensor, condition: Tensor) -> Tensor:
    """Join images and their pose pictures along the channels: [B,6,H,W].

    Raises:
        ValueError: anything but one picture for each image, of its size.
    """
    found = list(condition.shape) if isinstance(condition, Tensor) else type(condition).__name__
    if found != list(images.shape):
        raise ValueError(f"condition must be one pose picture for each image, {list(images.shape)}, got {found}")
    return torch.cat([images, condition], dim=1)
