"""A re-ID experiment in two calls: train an embedder on these images, score it on that benchmark.

Every table of the course that says "trained on ..." is made by them, so its rows differ in the training images alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets import Benchmark, PersonImages
from reidlib.datasets.augment import reid_augmentation
from reidlib.datasets.sampling import Augment, Batches, Sampler, pk_batches, uniform_batches
from reidlib.embedders.baseline import Baseline, embed_all
from reidlib.evaluators import (
    RetrievalScores,
    SplitScores,
    average_over_splits,
    evaluate_retrieval,
    pool_queries,
    score_splits,
)
from reidlib.generators.synthesis import stream, watched
from reidlib.machine import pick_device
from reidlib.networks import device_of
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


MODES = ("a", "b", "max", "mean", "concat")


class PoseFeatures(NamedTuple):
    """Features of N images: `a` [N,D] of the images themselves, `b` [N,K,D] of their K synthetic poses."""

    a: Tensor
    b: Tensor


class PNGANSystem(NamedTuple):
    """What tests a person image: two trained re-ID networks, the generator, and the canonical poses it is given."""

    net_a: nn.Module
    net_b: nn.Module
    generator: nn.Module
    poses: PersonImages


def fuse(a: Tensor, b: Tensor, mode: str = "max", *, normalise: bool = True) -> Tensor:
    r"""Fuse the feature of an image with those of its K synthetic poses.

    $$f = \max\Big(\frac{f_A}{\lVert f_A \rVert}, \frac{f_{B,1}}{\lVert f_{B,1} \rVert}, \dots,
    \frac{f_{B,K}}{\lVert f_{B,K} \rVert}\Big)$$

    element by element. The paper does not say whether the vectors are normalised; the released demo does it. The fused
    feature is not normalised again.

    Args:
        a: [N,D].  b: [N,K,D].
        mode: "max", "mean" or "concat" of the 1 + K vectors; "a": A's alone; "b": the maximum of B's alone.
        normalise: scale each vector to length 1 first.

    Returns:
        [N,D]; [N,(1+K)D] for "concat".

    Raises:
        ValueError: for a mode that is not known, and shapes that do not fit.

    >>> fuse(torch.tensor([[3.0, 0.0]]), torch.tensor([[[0.0, 2.0], [-3.0, -4.0]]]))
    tensor([[1., 1.]])
    >>> fuse(torch.tensor([[3.0, 0.0]]), torch.tensor([[[0.0, 2.0], [-3.0, -4.0]]]), "mean", normalise=False)
    tensor([[ 0.0000, -0.6667]])
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: accepted are {', '.join(map(repr, MODES))}")
    if a.dim() != 2 or b.dim() != 3 or b.shape[::2] != a.shape or b.shape[1] < 1:
        raise ValueError(f"a [N,D] and b [N,K,D] with K > 0 are needed, got {list(a.shape)} and {list(b.shape)}")
    if normalise:
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=2)
    if mode == "a":
        return a
    if mode == "b":
        return b.amax(1)
    if mode == "max":  # without a copy of all 1 + K
        return torch.maximum(a, b.amax(1))
    if mode == "mean":
        return (a + b.sum(1)) / (1 + b.shape[1])
    return torch.cat([a, b.flatten(1)], dim=1)


@torch.no_grad()
def fused_features(
    images: PersonImages,
    net_a: nn.Module,
    net_b: nn.Module,
    generator: nn.Module,
    poses: PersonImages,
    *,
    batch_size: int = 128,
    precision: str = "fp32",
    progress: bool = False,
) -> PoseFeatures:
    """Embed images by A, and by B in each of K poses; what is generated is embedded and forgotten.

    Args:
        images: the set.
        net_a, net_b: anything with `embed(images uint8 [B,3,H,W]) -> [B,D]`.
        generator: anything with `condition` and `generate`, see `generators.synthesis.stream`.
        poses: the K canonical poses, as `generator.condition` takes them; never the images' own.
        batch_size: images at a time.
        precision: of the generator, see `generators.synthesis.stream`.
        progress: show a progress bar.

    Each network and the generator run where their own parameters lie; the features come back on the CPU.
    """
    a = embed_all(net_a, images, batch_size=batch_size, device=device_of(net_a))
    pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(poses)))
    b, device = torch.empty(0), device_of(net_b)
    made = stream(generator, images, pairs, targets=poses, batch_size=batch_size, precision=precision)
    for rows, pixels in watched(made, len(pairs), "embedding poses", progress):
        feature = net_b.embed(pixels.to(device)).float().cpu()
        if not len(b):
            b = feature.new_empty(len(pairs), feature.shape[1])
        b[rows] = feature
    return PoseFeatures(a, b.unflatten(0, (len(images), len(poses))))


def embed_benchmark(bench: Benchmark, system: PNGANSystem, **options: Any) -> dict[str, PoseFeatures]:
    """Return `fused_features` (with these `options`) of the query, the gallery and, if there are any, the drawn boxes.

    This is the one slow pass of a test: every mode, subset of poses and protocol is then scored from it.
    """
    subsets = {name: images for name, images in bench.subsets().items() if name != "train"}
    return {name: fused_features(images, *system, **options) for name, images in subsets.items()}


def score_fused(
    bench: Benchmark,
    features: dict[str, PoseFeatures],
    *,
    modes: Sequence[str] = MODES,
    poses: Sequence[int] | None = None,
    queries: Tensor | None = None,
    multi_query: str | None = None,
    normalise: bool = True,
    **rules: Any,
) -> dict[str, RetrievalScores]:
    """Score a benchmark by each mode of `fuse`, by its own protocol or by the `rules` given instead.

    Args:
        bench: need not be the one that the networks were trained on (the transfer setting).
        features: what `embed_benchmark` gave for it.
        modes: see `fuse`.
        poses: which of the K poses take part, counted from 0; `[3]` is the one-pose test with the fourth. Default all.
        queries: int64, rows of the queries that are scored, such as the occluded ones. Default all.
        multi_query: "mean" or "max": a query is all hand-drawn boxes of its person in its camera, pooled after fusion.
        normalise: see `fuse`.

    Raises:
        ValueError: multi-query of a benchmark without hand-drawn boxes, or of some queries only; poses that are not
            there.
    """
    side = "query" if multi_query is None else "multi_query"
    if side not in features:
        raise ValueError(f"{bench.name} has no hand-drawn boxes (gt_bbox) to pool into multi-queries")
    if queries is not None and multi_query is not None:
        raise ValueError("queries= picks single queries; it does not go with multi_query")
    count = features["gallery"].b.shape[1]
    if poses is not None and (len(poses) == 0 or min(poses) < 0 or max(poses) >= count):
        raise ValueError(f"poses={poses}: accepted are some of 0 to {count - 1}")
    asked = getattr(bench, side)
    rows = torch.arange(len(asked)) if queries is None else torch.as_tensor(queries)
    sides = [(f.a, f.b if poses is None else f.b[:, list(poses)]) for f in (features[side], features["gallery"])]
    found = {}
    for mode in modes:
        query, gallery = (fuse(a, b, mode, normalise=normalise) for a, b in sides)
        query, pids, camids = query[rows], asked.pids[rows], asked.camids[rows]
        if multi_query is not None:
            # back to length 1 only where the gallery's features have it: both sides must be of one kind
            unit = torch.allclose(gallery.norm(dim=1), gallery.new_ones(len(gallery)), atol=1e-3)
            query, pids, camids = pool_queries(query, pids, camids, mode=multi_query, normalise=unit)
        found[mode] = evaluate_retrieval(
            query,
            gallery,
            query_pids=pids,
            query_camids=camids,
            gallery_pids=bench.gallery.pids,
            gallery_camids=bench.gallery.camids,
            **bench.protocol.arguments() | rules,
        )
    return found


def score_fused_splits(
    benches: Iterable[Benchmark],
    train: Callable[[Benchmark], PNGANSystem],
    *,
    modes: Sequence[str] = MODES,
    batch_size: int = 128,
    precision: str = "fp32",
    **options: Any,
) -> dict[str, SplitScores]:
    """Train and score on every split and average each mode: CUHK03's twenty splits, CUHK01's ten both ways.

    ```
    score_fused_splits(load_splits("cuhk01", root), train=lambda bench: my_training(bench.train))
    score_fused_splits(load_splits("cuhk03", root), train=lambda bench: market_system)     # transfer
    ```

    Args:
        benches: the splits, from `datasets.load_splits`.
        train: gives the system for one split; called once for splits in a row that train on the same images.
        modes, options: see `score_fused`.  batch_size, precision: see `fused_features`.
    """
    results: list[dict[str, RetrievalScores]] = []

    def score(system: PNGANSystem, bench: Benchmark) -> dict[str, float]:
        features = embed_benchmark(bench, system, batch_size=batch_size, precision=precision)
        results.append(score_fused(bench, features, modes=modes, **options))
        return {mode: scores.rank(1) for mode, scores in results[-1].items()}

    score_splits(benches, score, train)
    return {mode: average_over_splits([result[mode] for result in results]) for mode in modes}
