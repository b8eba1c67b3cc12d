"""A re-ID experiment in two calls: train an embedder on these images, score it on that benchmark.

Every table of the course that says "trained on ..." is made by them, so its rows differ in the training images alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reidlib.datasets import Benchmark, PersonImages
from reidlib.datasets.augment import reid_augmentation
from reidlib.datasets.sampling import Augment, Batches, Sampler, pk_batches, uniform_batches
from reidlib.embedders.baseline import Baseline, embed_all
from reidlib.evaluators import RetrievalScores, evaluate_retrieval, pool_queries
from reidlib.machine import pick_device
from reidlib.training import History, fit

IMAGES_PER_IDENTITY = 4  # of a P x K batch, where the recipe names only a batch size


def train_baseline(
    images: PersonImages,
    *,
    images_seen: int,
    loss: str | None = None,
    preset: str = "course",
    seed: int = 0,
    device: str | torch.device = "auto",
    augment: Augment | None = None,
    run_dir: str | Path | None = None,
    evaluate: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    evaluations: int = 1,
    progress: bool = True,
    **options: Any,
) -> tuple[Baseline, History]:
    """Train a `Baseline` from scratch until it has seen `images_seen` images, and return it with its history.

    Losses that compare images (triplet, quartet) get P x K batches, the others uniform ones, both of the recipe's size.
    Nothing but the arguments decides the numbers: the caller's random state is neither used nor changed.

    Args:
        images: the training set; generated images with pid -2 are taken as unlabelled (LSRO).
        images_seen: length of the training, counted in images, so that sets of different size are compared fairly.
        loss: see `Baseline`; default the recipe's.
        preset: see `Baseline`.
        seed: of the initial weights, the order and the augmentation.
        device: see `training.fit`.
        augment: instead of the recipe's augmentation.
        run_dir: where the checkpoint lies; None keeps none.
        evaluate: see `training.fit`; called `evaluations` times, evenly spread, the last time at the end.
        evaluations: points of a learning curve.
        progress: show progress.
        options: further arguments of `Baseline`.

    Raises:
        ValueError: fewer than two identities, or fewer images to see than a batch.

    >>> people = PersonImages(torch.randint(0, 255, (16, 3, 64, 32), dtype=torch.uint8), [1, 2] * 8, [1] * 16)
    >>> method, history = train_baseline(people, images_seen=64, preset="smoke", progress=False)
    >>> history.steps, len(method.embed(people.images))
    (4, 16)
    """
    device = pick_device(device)
    with torch.random.fork_rng(devices=[]):
        probe = Baseline(2, preset=preset, loss=loss, **options)  # reads the recipe; its weights are not used
    sampler = _sampler(images, probe)
    batches = Batches(
        images, sampler, augment=augment or reid_augmentation(probe.recipe.augmentation), device=device, seed=seed
    )
    if batches.n_classes < 2:
        raise ValueError(f"a classifier needs at least two identities, the training set has {batches.n_classes}")
    batch_size = len(batches.rows(0))
    steps = images_seen // batch_size
    if steps < 1:
        raise ValueError(f"images_seen={images_seen} is less than one batch of {batch_size}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = Baseline(batches.n_classes, preset=preset, loss=loss, steps=steps, **options)
    history = fit(
        method,
        batches,
        steps,
        run_dir,
        seed=seed,
        device=device,
        evaluate=evaluate,
        evaluate_every=max(1, steps // evaluations) if evaluate else None,
        settings={"loss": loss, "preset": preset, "images": len(images), "classes": batches.n_classes},
        progress=progress,
    )
    return method, history


def score_benchmark(
    method: nn.Module,
    bench: Benchmark,
    *,
    device: str | torch.device = "auto",
    flip: bool = False,
    multi_query: str | None = None,
    **rules: Any,
) -> RetrievalScores:
    """Embed a benchmark's queries and gallery and score them by its own protocol, or by the `rules` given instead.

    The benchmark need not be the one that the method was trained on: scoring another one is the transfer setting.
    With `multi_query` "mean" or "max", a query is the pooled features of all hand-drawn boxes (`bench.multi_query`) of
    its person in its camera.

    Raises:
        ValueError: `multi_query` of a benchmark without hand-drawn boxes.

    >>> people = PersonImages(torch.zeros(2, 3, 64, 32, dtype=torch.uint8), [1, 1], [1, 2])
    >>> bench = Benchmark("toy", people, people.select(indices=[0]), people.select(indices=[1]))
    >>> score_benchmark(Baseline(2, preset="smoke"), bench).rank(1)
    1.0
    """
    device = pick_device(device)
    queries = bench.query if multi_query is None else bench.multi_query
    if queries is None:
        raise ValueError(f"{bench.name} has no hand-drawn boxes (gt_bbox) to pool into multi-queries")
    query, gallery = (embed_all(method, part, device=device, flip=flip) for part in (queries, bench.gallery))
    pids, camids = queries.pids, queries.camids
    if multi_query is not None:
        # pooled features go back to length 1 only where the gallery's have it: both sides must be of one kind
        unit = torch.allclose(gallery.norm(dim=1), gallery.new_ones(len(gallery)), atol=1e-3)
        query, pids, camids = pool_queries(query, pids, camids, mode=multi_query, normalise=unit)
    return evaluate_retrieval(
        query,
        gallery,
        query_pids=pids,
        query_camids=camids,
        gallery_pids=bench.gallery.pids,
        gallery_camids=bench.gallery.camids,
        **bench.protocol.arguments() | rules,
    )


def _sampler(images: PersonImages, method: Baseline) -> Sampler:
    """Choose P x K batches where a loss compares images, uniform ones elsewhere."""
    batch = method.recipe.batch
    size = batch if isinstance(batch, int) else batch[0] * batch[1]
    compares = {"triplet", "quartet"} & set(method.losses)
    if not compares:
        return uniform_batches(len(images), min(size, len(images)), drop_last=True)
    k = IMAGES_PER_IDENTITY if isinstance(batch, int) else batch[1]
    identities = len(images.pids.unique())
    return pk_batches(images.pids, min(size // k, identities), k)
