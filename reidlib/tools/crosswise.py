"""Train on one background, test on another: what a re-ID network has learnt of the person and what of the scene.

After Tian et al., "Eliminating Background-bias for Robust Person Re-identification", CVPR 2018.
"""

from dataclasses import replace
from typing import Any

import torch

from reidlib.checks import check_choice
from reidlib.datasets import Benchmark, PersonImages, backgrounds
from reidlib.evaluators import RetrievalScores
from reidlib.experiments import score_benchmark, train_baseline

TESTED = ("original", "mean", "random")
TRAINED = (*TESTED, "paste")


def with_background(images: PersonImages, kind: str, train: PersonImages, camera: int, seed: int) -> PersonImages:
    """Return a set before another background.

    Args:
        images: with masks.
        kind: "original" changes nothing, "mean" takes the mean background of `train`, "random" the scenes of random
            images of it, "paste" those of random images of one camera.
        train: where the backgrounds are from.
        camera: of "paste".
        seed: of the random ones.
    """
    check_choice("kind", kind, TRAINED)
    if kind == "original":
        return images
    batch, behind = images.batch(range(len(images))), backgrounds.mean_background(train)
    if kind != "mean":
        scenes = train.select(camids=camera) if kind == "paste" else train
        draw = torch.Generator().manual_seed(seed)
        behind = backgrounds.random_backgrounds(scenes, len(images), draw, mean=behind)
    changed = backgrounds.replace_background(batch["images"], batch["masks"], behind)
    return PersonImages(changed, images.pids, images.camids)


def crosswise(bench: Benchmark, camera: int, **training: Any) -> dict[str, dict[str, RetrievalScores]]:
    """Train a network on each of `TRAINED` and score it on each of `TESTED`: scores by the one, then by the other.

    Args:
        bench: with masks.
        camera: whose scenes "paste" puts everybody on.
        training: arguments of `train_baseline`.
    """
    tests = {}
    for kind in TESTED:
        parts = (
            with_background(part, kind, bench.train, camera, 1 + i)
            for i, part in enumerate((bench.query, bench.gallery))
        )
        tests[kind] = replace(bench, **dict(zip(("query", "gallery"), parts, strict=True)))
    scores = {}
    for kind in TRAINED:
        method, _ = train_baseline(with_background(bench.train, kind, bench.train, camera, 3), **training)
        scores[kind] = {tested_on: score_benchmark(method, test) for tested_on, test in tests.items()}
    return scores
