"""Rivals of the papers' generators, each trained by one call.

`draw_rivals`: other ways from camera to camera, CycleGAN, SPGAN, pose transfer without and with a guide (notebook 03
shows them where its `experiments` name "neighbours"). `train_dcgan`: the unconditional generator of LSRO (notebook 04).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from reidlib.datasets import PersonImages, camera_pair, poses
from reidlib.datasets.augment import flip
from reidlib.datasets.camera_pairs import random_targets
from reidlib.datasets.sampling import uniform_batches
from reidlib.experiments import train_baseline
from reidlib.generators.cyclegan import SPGAN, CycleGAN
from reidlib.generators.dcgan import DCGAN
from reidlib.generators.guided_pose import GuidedPose
from reidlib.generators.synthesis import synthesise, train_generator
from reidlib.training import History
from reidlib.training import train as train_method


def draw_rivals(
    train: PersonImages,
    cameras: tuple[int, int],
    rows: Tensor,
    *,
    images_seen: int,
    guide: dict[str, Any],
    preset: str = "course",
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """Train each rival from the first to the second of two cameras and draw the sources `rows` of `train` with it.

    The pose rivals learn from pairs of one person in both cameras and draw each source in the pose of a random image of
    the second camera. They need key points and are left out where a set has none.

    Args:
        train: with images of both cameras.
        cameras: from, to.
        rows: int64 [n], images of the first camera.
        images_seen: length of each rival's training, in pairs.
        guide: arguments of `train_baseline` for the network that guides the last of them.
        preset, seed, device: of all of them.

    Returns:
        Images uint8 [n,3,H,W] by name; first the sources, and the poses where there are any.
    """
    a, b = cameras
    small = dict(images_seen=images_seen, batch_size=8, augment=flip, ema=0.99, seed=seed, device=device)
    pairs = dict.fromkeys(("CycleGAN", "SPGAN"), random_targets(train, a, b, seed=seed))
    builds = {kind.__name__: partial(kind, preset=preset, image_size=train.image_size) for kind in (CycleGAN, SPGAN)}
    of_b = (train.camids == b).nonzero()[:, 0]
    targets = of_b[torch.randperm(len(of_b), generator=torch.Generator().manual_seed(seed))[: len(rows)]]
    drawn = {"source": train.batch(rows)["images"]}
    if train.has("keypoints"):
        network, _ = train_baseline(train, preset=preset, seed=seed, device=device, progress=False, **guide)
        for name, guided_by in (("pose transfer, no guide", None), ("pose transfer, guided", network.embedder)):
            builds[name] = partial(GuidedPose, guided_by, preset=preset)
            pairs[name] = camera_pair(train, a, b).train_pairs
        drawn["pose asked for"] = poses.skeleton_images(train.batch(targets)["keypoints"], train.image_size)
    for name, build in builds.items():
        method, _ = train_generator(build, train, pairs[name], progress=False, **small)
        if "pose" in name:
            made = synthesise(method, train, torch.stack([rows, targets], 1), targets=train, camids=b)
        else:
            made = synthesise(method, train.select(indices=rows), camids=b)
        drawn[name] = made.images
    return drawn


def train_dcgan(train: PersonImages, *, preset: str = "course", **options: Any) -> tuple[DCGAN, History]:
    """Train a DCGAN on single images, in batches of 32 with averaged weights; options are those of `training.train`."""
    sampler = uniform_batches(len(train), min(32, len(train)), drop_last=True)
    build = partial(DCGAN, preset=preset, image_size=train.image_size)
    return train_method(lambda steps, classes: build(), train, sampler, ema=0.99, progress=False, **options)
