"""Rivals of the papers' generators, each trained by one call.

`draw_rivals`: other ways from camera to camera, CycleGAN, CamStyle's, SPGAN, pose transfer without and with a guide
(notebook 03 where its `experiments` name "neighbours"); `judge_rivals` says whether they learnt what they are for.
`camstyle_images`: CamStyle's whole set, every image in every other camera.
`train_dcgan`: the unconditional generator of LSRO (notebook 04), and `judge_dcgan`.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from reidlib.datasets import PersonImages, camera_pair, extend, poses
from reidlib.datasets.augment import flip
from reidlib.datasets.camera_pairs import random_targets
from reidlib.datasets.sampling import seeded, uniform_batches
from reidlib.evaluators import image_quality
from reidlib.evaluators.judges import Judges
from reidlib.experiments import judge_generator, train_baseline
from reidlib.generators.cyclegan import SPGAN, CycleGAN, camstyle_gan
from reidlib.generators.dcgan import DCGAN
from reidlib.generators.guided_pose import GuidedPose
from reidlib.generators.synthesis import synthesise, train_generator
from reidlib.training import History
from reidlib.training import train as train_method

POSE = "pose transfer"


def draw_rivals(
    train: PersonImages,
    cameras: tuple[int, int],
    rows: Tensor,
    *,
    images_seen: int,
    guide: dict[str, Any],
    judges: Judges | None = None,
    preset: str = "course",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """Train each rival from the first to the second of two cameras and draw the sources `rows` of `train` with it.

    The pose rivals learn from pairs of one person in both cameras and draw each source in the pose of a random image of
    the second camera. They need key points and are left out where a set has none.

    Args:
        train: with images of both cameras.
        cameras: from, to.
        rows: int64 [n], images of the first camera.
        images_seen: length of each rival's training, in pairs.
        guide: arguments of `train_baseline` for the network that guides the last of them.
        judges: see `evaluators.judges.load_judges`.
        preset, seed, device: of all of them.

    Returns:
        images uint8 [n,3,H,W] by name, the sources first, and the poses where there are any, and the table of
        `judge_rivals` (without a row where there are no judges).
    """
    a, b = cameras
    small = dict(images_seen=images_seen, batch_size=8, augment=flip, ema=0.99, seed=seed, device=device)
    sized = dict(preset=preset, image_size=train.image_size)
    builds = {"CycleGAN": partial(CycleGAN, **sized), "CamStyle": partial(camstyle_gan, cameras, **sized)}
    builds["SPGAN"] = partial(SPGAN, **sized)
    pairs = dict.fromkeys(builds, random_targets(train, a, b, seed=seed))
    of_b = (train.camids == b).nonzero()[:, 0]
    targets = of_b[torch.randint(len(of_b), (len(rows),), generator=seeded(seed, 13))]
    if train.has("keypoints"):
        network, _ = train_baseline(train, preset=preset, seed=seed, device=device, progress=False, **guide)
        for name, guided_by in ((f"{POSE}, no guide", None), (f"{POSE}, guided", network.embedder)):
            builds[name] = partial(GuidedPose, guided_by, preset=preset)
            pairs[name] = camera_pair(train, a, b).train_pairs
    asked, drawn = torch.stack([rows, targets], 1), {}
    for name, build in builds.items():
        method, _ = train_generator(build, train, pairs[name], progress=False, **small)
        if POSE in name:
            drawn[name] = synthesise(method, train, asked, targets=train, camids=b)
        else:
            drawn[name] = synthesise(method, train.select(indices=rows), camids=b, seed=seed)
    shown = {"source": train.batch(rows)["images"]}
    if train.has("keypoints"):
        shown["pose asked for"] = poses.skeleton_images(train.batch(targets)["keypoints"], train.image_size)
    shown |= {name: images.images for name, images in drawn.items()}
    return shown, judge_rivals(drawn, asked, train, judges, b) if judges else pd.DataFrame()


def judge_rivals(
    drawn: dict[str, PersonImages], asked: Tensor, train: PersonImages, judges: Judges, camera: int
) -> pd.DataFrame:
    """Judge what rivals drew, and say of each rival whether it beats a copy of the source at its own task.

    The task of CycleGAN, CamStyle and SPGAN is the style of the second camera (the judges' share of images that they
    take for it), that of the pose rivals is the pose (PCK@0.1). "copy" and "copy, another pose" are the sources.

    Args:
        drawn: n images by the rival's name, those of a pose rival begin with "pose transfer".
        asked: int64 [n,2], rows of `train`: the source, and the image whose pose was asked for.
        train: real images of both cameras.
        judges: see `evaluators.judges.load_judges`.
        camera: the second one.

    Returns:
        A row a rival and for each copy: the columns of `judge_generator`, and "beats copy" (None for a copy).
    """
    common = dict(
        judges=judges, gallery=train, source_rows=asked[:, 0], camera=camera, real=train.select(camids=camera)
    )
    sources, tables = train.select(indices=asked[:, 0]), []
    for posed in (False, True):
        copy = "copy, another pose" if posed else "copy"
        rows = {copy: sources} | {name: images for name, images in drawn.items() if (POSE in name) == posed}
        if len(rows) > 1:
            people = (train, asked) if posed else (sources,)
            options = common | ({"targets": train} if posed else {})
            table = pd.concat([judge_generator(images, *people, name=name, **options) for name, images in rows.items()])
            task = table["PCK@0.1" if posed else "camera style"]
            tables.append(table.assign(**{"beats copy": [None, *(task > task[copy]).tolist()[1:]]}))
    return pd.concat(tables)


def camstyle_images(
    gans: Sequence[CycleGAN], train: PersonImages, *, folder: str | os.PathLike | None = None, **options: Any
) -> PersonImages:
    """Move every training image to every other camera: CamStyle's fakes, L-1 for each image of L cameras.

    They keep their pid and carry the camera they were moved to. `cyclegan.camstyle_gan` makes the GAN of a pair.
    Train a re-ID network with `experiments.train_baseline(extend(train, fakes), form="camstyle")`.

    Args:
        gans: one trained `CycleGAN` with its `cameras` for each unordered pair of the set's cameras.
        train: the real images.
        folder: keep the pixels there, in one folder for each pair, see `synthesise`.
        options: of `synthesise` (batch_size, precision, progress, and `seed` of the noise that dropout draws).

    Raises:
        ValueError: if a pair of cameras has no GAN or two, or a GAN is of cameras that the set does not have.
    """
    cameras = train.camids.unique().tolist()
    wanted = [(a, b) for i, a in enumerate(cameras) for b in cameras[i + 1 :]]
    known = [None if gan.cameras is None else tuple(sorted(gan.cameras)) for gan in gans]
    if len(wanted) != len(known) or set(wanted) != set(known):
        raise ValueError(f"CamStyle needs one CycleGAN for each of the camera pairs {wanted}, got those of {known}")
    fakes = []
    for (a, b), gan in zip(known, gans, strict=True):
        both = train.select(camids=[a, b])
        place = None if folder is None else Path(folder) / f"{a}_{b}"
        fakes.append(synthesise(gan, both, camids=a + b - both.camids, folder=place, **options))
    return extend(*fakes)


def train_dcgan(train: PersonImages, *, preset: str = "course", **options: Any) -> tuple[DCGAN, History]:
    """Train a DCGAN on single images, in batches of 32 with averaged weights; options are those of `training.train`."""
    sampler = uniform_batches(len(train), min(32, len(train)), drop_last=True)
    build = partial(DCGAN, preset=preset, image_size=train.image_size)
    return train_method(lambda steps, classes: build(), train, sampler, ema=0.99, progress=False, **options)


def judge_dcgan(dcgan: DCGAN, train: PersonImages, judges: Judges, *, n: int = 1000, seed: int = 0) -> pd.Series:
    """Return the FID, in the judges' looks, of n images of a DCGAN to n photographs, beside what could be expected.

    "copy": n other photographs of the set, the best that a generator of such images can reach. "untrained": a DCGAN of
    the same settings with its first weights. n is at most half of the photographs.
    """
    order = torch.randperm(len(train), generator=seeded(seed, 14))
    real, other = (train.select(indices=order[i::2][: min(n, len(train) // 2)]) for i in (0, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = DCGAN(**dcgan.settings)
    made = {"copy": other, "DCGAN": dcgan.sample(len(real), seed), "untrained": untrained.sample(len(real), seed)}
    look = partial(image_quality.fid, real, features=judges.looks, name="judges' looks")
    return pd.Series({name: look(images).value for name, images in made.items()}, name="FID")
