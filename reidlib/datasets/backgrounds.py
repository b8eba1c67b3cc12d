r"""Replacing what stands behind a person: the mean, another image's scene, or none.

Everything is one formula, $x' = m x + (1-m) b$, with the person's mask $m$ in [0, 1] and another picture $b$. What a
re-ID model loses on such images shows how much it had learnt of the background. After Tian et al., "Eliminating
Background-bias for Robust Person Re-identification", CVPR 2018; choices of ours are marked.
"""

import torch
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.datasets.augment import Batch
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Augment


def replace_background(images: Tensor, masks: Tensor, backgrounds: Tensor) -> Tensor:
    r"""Return $x' = m x + (1-m) b$, rounded.

    Args:
        images: uint8 [B,3,H,W].
        masks: uint8 [B,H,W], 255 = person; soft edges mix.
        backgrounds: uint8 or float (0..255), [B,3,H,W] or anything that broadcasts to it.

    Returns:
        uint8 [B,3,H,W].

    >>> white, masks = torch.full((1, 3, 1, 2), 255, dtype=torch.uint8), torch.tensor([[[255, 0]]], dtype=torch.uint8)
    >>> replace_background(white, masks, torch.tensor(7.0))[0, 0].tolist()
    [[255, 7]]
    """
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(f"images must be uint8 [B,3,H,W], got {images.dtype} {list(images.shape)}")
    if masks is None:
        raise ValueError("replacing backgrounds needs masks, and this set has none")
    if masks.dtype != torch.uint8 or masks.shape != (images.shape[0], *images.shape[2:]):
        expected = [images.shape[0], *images.shape[2:]]
        raise ValueError(f"masks must be uint8 {expected}, got {masks.dtype} {list(masks.shape)}")
    m = masks[:, None].float() / 255  # [B,1,H,W]
    return (m * images + (1 - m) * backgrounds).round().clamp(0, 255).to(torch.uint8)


def mean_background(people: PersonImages, *, batch_size: int = 512) -> Tensor:
    r"""Return the mean background of a set, $\mu(p) = \sum_i (1-m_i(p)) x_i(p) / \sum_i (1-m_i(p))$.

    Where no image shows background at p, [our choice] the mean over all background pixels stands in; where no image
    shows any background, the mean over all pixels.

    Args:
        people: a set with masks.
        batch_size: images read at a time.

    Returns:
        float32 [3,H,W] in 0..255.

    Raises:
        ValueError: if the set has no masks or no images.
    """
    if not people.has("masks") or len(people) == 0:
        raise ValueError(f"a mean background needs images with masks, got {people!r}")
    height, width = people.image_size
    total, weight = torch.zeros(3, height, width, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    everything = torch.zeros(3, dtype=torch.float64)
    for rows in torch.arange(len(people)).split(batch_size):
        batch = people.batch(rows)
        images, behind = batch["images"].double(), 1 - batch["masks"].double() / 255
        total += torch.einsum("bchw,bhw->chw", images, behind)
        weight += behind.sum(0)
        everything += images.sum((0, 2, 3))
    if weight.sum() > 0:
        overall = total.sum((1, 2)) / weight.sum()
    else:
        overall = everything / (len(people) * height * width)
    return torch.where(weight > 0, total / weight.clamp_min(1e-12), overall[:, None, None]).float()


def fill_person(images: Tensor, masks: Tensor, mean: Tensor) -> Tensor:
    """Return the images with their own person covered by the mean background [3,H,W]: what is left is the scene."""
    return replace_background(images, 255 - masks, mean)


def random_backgrounds(
    people: PersonImages, n: int, generator: torch.Generator, *, mean: Tensor, device: str | torch.device = "cpu"
) -> Tensor:
    """Draw n images of a set, uniformly, each with its own person covered by `mean`; uint8 [n,3,H,W]."""
    rows = torch.randint(len(people), (n,), generator=generator)
    batch = people.batch(rows, device)
    if "masks" not in batch:
        raise ValueError(f"random backgrounds from person images need their masks, got {people!r}")
    return fill_person(batch["images"], batch["masks"], mean.to(device))


def background_augmentation(kind: str, people: PersonImages, *, mean: Tensor | None = None, p: float = 1.0) -> Augment:
    """Return an augmentation that replaces the background of each image with probability p.

    - `"mean"`: by the mean background of `people`.
    - `"random"`: [our choice] by the scene of a random image of `people` (for example one camera's, to move persons
      there), its own person covered by the mean; expect halos where masks are too small or too large.
    - `"none"`: by grey.

    It belongs before flips and crops. Batches must have masks.

    Args:
        kind: one of the above.
        people: with masks; where mean and scenes come from.
        mean: float32 [3,H,W], if it is known already.
        p: probability for each image.

    Raises:
        ValueError: unknown kind, or `people` without masks.
    """
    check_choice("kind", kind, ("mean", "random", "none"))
    if kind != "none" and mean is None:
        mean = mean_background(people)

    def augment(batch: Batch, generator: torch.Generator) -> Batch:
        images, masks = batch["images"], batch.get("masks")
        n, device = len(images), images.device
        chosen = (torch.rand(n, generator=generator) < p).to(device)
        if kind == "random":
            behind = random_backgrounds(people, n, generator, mean=mean, device=device)
        else:
            behind = torch.tensor(128.0, device=device) if kind == "none" else mean.to(device)
        replaced = replace_background(images, masks, behind)
        return batch | {"images": torch.where(chosen[:, None, None, None], replaced, images)}

    return augment
