"""A rendered stand-in for DeepFashion: outfits before a studio's wall, seen from all sides."""

from collections.abc import Sequence

import torch

from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import seeded

from .pictures import render

WALL = (0.86, 0.86, 0.88)  # of the studio


def studio(
    outfits: Sequence[int], views: int = 8, *, image_size: tuple[int, int] = (64, 64), seed: int = 0
) -> PersonImages:
    """Render outfits before a studio's grey wall, each standing upright and seen from `views` sides.

    One camera, even light, no noise, the whole body in view: a stand-in for DeepFashion. As in that set's pairs, who
    wears another outfit is somebody else: an outfit is a pid.

    Args:
        outfits: whole numbers from 1 on.
        views: pictures an outfit, about evenly around it.
        image_size: square in DeepFashion (256x256).
        seed: of the people, the turns and how they stand.

    Raises:
        ValueError: no outfit, no view.

    >>> people = studio([1, 2], views=4)
    >>> people.pids.tolist(), people.camids.unique().tolist(), people.image_size
    ([1, 1, 1, 1, 2, 2, 2, 2], [1], (64, 64))
    """
    if not len(outfits) or views < 1:
        raise ValueError(f"one outfit and one view at least are needed, got {len(outfits)} and views={views}")
    pids = torch.as_tensor(outfits).repeat_interleave(views)
    turns = 10 * torch.randn(len(pids), generator=seeded(seed, 12))
    yaws = (360 * torch.arange(views) / views).repeat(len(outfits)) + turns
    light = dict(background=WALL, camera_effects=False, scene="generation")
    made = render(
        pids.tolist(), 1, yaws=yaws, walking=0.15, moments=range(len(pids)), image_size=image_size, seed=seed, **light
    )
    truth = dict(keypoints=made.keypoints, masks=made.masks, parsing=made.parsing, info=made.info)
    return PersonImages(made.images, made.pids, made.camids, **truth)
