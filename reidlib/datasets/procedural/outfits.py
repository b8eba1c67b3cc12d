"""A rendered stand-in for DeepFashion: outfits before a studio's wall, seen from all sides."""

from collections.abc import Sequence

import torch

from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import seeded

from .pictures import render

WALL = (0.86, 0.86, 0.88)  # of the studio


def studio(
    garments: Sequence[int], views: int = 8, *, outfits: int = 1, image_size: tuple[int, int] = (64, 64), seed: int = 0
) -> PersonImages:
    """Render garments on models before a studio's grey wall, standing upright and seen from `views` sides.

    One camera, even light, no noise, the whole body in view: a stand-in for DeepFashion. There a garment's pictures
    show it in several outfits, and the identity of a pair is the garment with the two digits of the outfit; so it is
    here: an outfit is a pid, 100 times the garment and the outfit's number, and the garments are `info["garment"]`.

    Args:
        garments: whole numbers from 1 on: who models it, and its cut.
        views: pictures an outfit, about evenly around it.
        outfits: of a garment, in other colours; 1 to 99.
        image_size: square in DeepFashion (256x256).
        seed: of the people, the turns and how they stand.

    Raises:
        ValueError: no garment, no view, other numbers of outfits.

    >>> people = studio([3, 9], views=1, outfits=2)
    >>> people.pids.tolist(), people.info["garment"].tolist(), people.camids.unique().tolist(), people.image_size
    ([301, 302, 901, 902], [3, 3, 9, 9], [1], (64, 64))
    """
    if not len(garments) or views < 1 or not 1 <= outfits <= 99:
        found = f"{len(garments)}, views={views} and outfits={outfits}"
        raise ValueError(f"one garment and one view at least and 1 to 99 outfits are needed, got {found}")
    pids = torch.as_tensor(garments).repeat_interleave(outfits * views)
    worn = torch.arange(outfits).repeat_interleave(views).repeat(len(garments))
    turns = 10 * torch.randn(len(pids), generator=seeded(seed, 12))
    yaws = (360 * torch.arange(views) / views).repeat(len(garments) * outfits) + turns
    light = dict(background=WALL, camera_effects=False, scene="generation")
    stance = dict(yaws=yaws, walking=0.15, moments=range(len(pids)), outfits=worn)
    made = render(pids.tolist(), 1, **stance, image_size=image_size, seed=seed, **light)
    info = made.info.assign(garment=made.info["pid"], pid=(100 * pids + worn + 1).tolist())
    truth = dict(keypoints=made.keypoints, masks=made.masks, parsing=made.parsing, info=info)
    return PersonImages(made.images, info["pid"].tolist(), made.camids, **truth)
