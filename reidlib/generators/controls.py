r"""Baselines that learn nothing: colour matching and pasting.

Both have the generators' `condition` and `generate`, so `synthesis.synthesise` makes whole sets with them. A GAN that
does not beat them has learnt a colour cast, or cut and paste.
"""

import torch
from torch import Tensor, nn

from reidlib.datasets.backgrounds import fill_person, mean_background
from reidlib.datasets.person_images import PersonImages
from reidlib.generators import inputs
from reidlib.networks import lab_to_rgb, normalise, rgb_to_lab


class ColourMatching(nn.Module):
    r"""Give images the colours of another camera, $y = (x - \mu_a)\,\sigma_b / \sigma_a + \mu_b$ in each Lab channel.

    Mean and deviation are those of all pixels of all images of a camera, so persons and clothes average out and what is
    left is the camera's light. Reinhard et al., "Color Transfer between Images", 2001, with CIELAB in place of their
    colour space [our choice].

    Args:
        sources: training images of camera a.
        targets: training images of camera b.

    Raises:
        ValueError: a set without images.

    >>> dark = PersonImages(torch.full((1, 3, 4, 4), 50, dtype=torch.uint8), [1], [1])
    >>> light = PersonImages(torch.full((1, 3, 4, 4), 200, dtype=torch.uint8), [2], [2])
    >>> moved = ColourMatching(dark, light).generate(normalise(dark.images, "signed"), None)
    >>> torch.allclose(moved, normalise(light.images, "signed"), atol=1e-3)
    True
    """

    def __init__(self, sources: PersonImages, targets: PersonImages) -> None:
        super().__init__()
        for name, images in (("source", sources), ("target", targets)):
            mean, deviation = lab_statistics(images)
            self.register_buffer(f"{name}_mean", mean[:, None, None])
            self.register_buffer(f"{name}_deviation", deviation[:, None, None])

    def condition(self, targets: dict[str, Tensor] | None = None, sources: dict[str, Tensor] | None = None) -> None:
        """Return None: the two cameras are all there is to know."""
        return None

    @torch.no_grad()
    def generate(self, images: Tensor, condition: None = None) -> Tensor:
        """Return images [B,3,H,W] in [-1, 1] with the target camera's colours, cut to what RGB can show."""
        # a camera of one flat colour has no spread to divide by
        spread = self.target_deviation / self.source_deviation.clamp_min(0.01)
        matched = (rgb_to_lab((images.float() + 1) / 2) - self.source_mean) * spread + self.target_mean
        return (lab_to_rgb(matched) * 2 - 1).to(images.dtype)


class Paste(nn.Module):
    r"""Put the source's person, cut out by its mask, in front of a target image whose own person is painted over.

    $x' = m x + (1 - m)\,b$, where b is the target with the target camera's mean background in place of its person. The
    thesis's paste baseline: true persons and true scenes, with halos where masks are too large and bites where they are
    too small.

    Args:
        targets: training images of the target camera, with masks; where the mean background comes from.

    Raises:
        ValueError: `targets` without masks or without images.
    """

    def __init__(self, targets: PersonImages) -> None:
        super().__init__()
        self.register_buffer("mean", mean_background(targets))  # [3,H,W] in 0..255

    def condition(
        self, targets: dict[str, Tensor] | None = None, sources: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return `masks` float [B,1,H,W] in [0, 1] of the sources and `backgrounds` float [B,3,H,W] in [-1, 1].

        Raises:
            ValueError: where sources or targets are missing or have no masks.
        """
        masks, hidden = (
            inputs.annotation(batch, "masks", role, "pasting")
            for role, batch in (("sources", sources), ("targets", targets))
        )
        scenes = fill_person(targets["images"], hidden, self.mean)
        return {"masks": masks[:, None].float() / 255, "backgrounds": normalise(scenes, "signed")}

    @torch.no_grad()
    def generate(self, images: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """Return images [B,3,H,W] in [-1, 1] with the person of `images` before the condition's backgrounds."""
        masks = condition["masks"]
        return masks * images + (1 - masks) * condition["backgrounds"]


def lab_statistics(people: PersonImages, *, batch_size: int = 512) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of L, a and b over all pixels of a set, float32 [3] each.

    Raises:
        ValueError: a set without images.
    """
    if len(people) == 0:
        raise ValueError(f"colour statistics need images, got {people!r}")
    total, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for rows in torch.arange(len(people)).split(batch_size):
        lab = rgb_to_lab(people.batch(rows)["images"].float() / 255).double()
        total += lab.sum((0, 2, 3))
        squares += lab.square().sum((0, 2, 3))
    pixels = len(people) * people.image_size[0] * people.image_size[1]
    mean = total / pixels
    return mean.float(), (squares / pixels - mean.square()).clamp_min(0).sqrt().float()
