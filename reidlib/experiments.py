"""What a row of a table is made of: train an embedder, generate, embed, score, judge.

Rows made by the same calls differ in what the table compares and in nothing else.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.datasets import Benchmark, PersonImages, extend
from reidlib.datasets.augment import reid_augmentation
from reidlib.datasets.sampling import Augment, Sampler, mixed_batches, pk_batches, seeded, target_pairs, uniform_batches
from reidlib.embedders import Baseline, Recipe, embed_all
from reidlib.embedders.recipes import choose_form, read_losses
from reidlib.evaluators import RetrievalScores, image_quality
from reidlib.evaluators.judges import Judges, judge
from reidlib.evaluators.retrieval import evaluate_retrieval, pool_queries
from reidlib.evaluators.splits import SplitScores, average_over_splits, score_splits
from reidlib.generators.synthesis import check_pairs, stream, synthesise, watched
from reidlib.networks import device_of
from reidlib.training import History, train

IMAGES_PER_IDENTITY = 4  # of a P x K batch, where the recipe names only a batch size
FAKES_PER_REAL = 46 / 128  # CamStyle's mixture


def train_baseline(
    images: PersonImages,
    *,
    images_seen: int,
    form: str = "baseline",
    preset: str = "course",
    recipe: str | Recipe | None = None,
    loss: str | None = None,
    fakes: str | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    device: str | torch.device = "auto",
    run_dir: str | Path | None = None,
    evaluate: Callable[[nn.Module, int], Any] | None = None,
    evaluations: int = 1,
    progress: bool = True,
    **options: Any,
) -> tuple[Baseline, History]:
    """Train a `Baseline` until it has seen `images_seen` images, and return it with its history.

    Losses that compare images (triplet, quartet) get P x K batches; where generated images are taken apart (`fakes`)
    and there are some, batches hold 46 of them to 128 real ones, as CamStyle's, and the recipe's size counts the real
    ones; otherwise batches are uniform. Nothing but the arguments decides the numbers: the caller's random state is
    neither used nor changed.

    Args:
        images: the training set; generated images with pid -2 are taken as unlabelled (LSRO).
        images_seen: length of the training, counted in images, so that sets of different size are compared fairly.
        form, preset, recipe, loss, fakes: see `Baseline`; `form="pn_gan"` trains PN-GAN's A and B in two steps.
        seed: of the initial weights, the order and the augmentation.
        augment: instead of the recipe's augmentation.
        device: where the network and its batches lie, see `training.fit`.
        run_dir: where the checkpoint lies; None keeps none.
        evaluate: see `training.fit`; called `evaluations` times, evenly spread, the last time at the end.
        evaluations: points of a learning curve.
        progress: show progress.
        options: further arguments of `Baseline` (start, merge, normalise, flip, frozen_share, ...).

    Raises:
        FileNotFoundError, ValueError: a start that is not there or does not fit the network and the images' size.
        ValueError: fewer than two identities, or fewer images to see than a batch.

    >>> people = PersonImages(torch.randint(0, 255, (16, 3, 64, 32), dtype=torch.uint8), [1, 2] * 8, [1] * 16)
    >>> method, history = train_baseline(people, images_seen=64, preset="smoke", progress=False)
    >>> history.steps, len(method.embed(people.images))
    (4, 16)
    """
    chosen = choose_form(form, preset, recipe=recipe, fakes=fakes, start=options.get("start"))
    options |= dict(form=form, preset=preset, recipe=recipe, loss=loss, fakes=fakes, image_size=images.image_size)
    start = "given" if isinstance(chosen["start"], Mapping) else str(chosen["start"])

    def build(steps: int, n_classes: int) -> Baseline:
        if n_classes < 2:
            raise ValueError(f"a classifier needs at least two identities, the training set has {n_classes}")
        return Baseline(n_classes, steps=steps, **options)

    return train(
        build,
        images,
        _sampler(images, chosen["recipe"], read_losses(loss or chosen["recipe"].loss), chosen.get("fakes")),
        images_seen=images_seen,
        augment=augment or reid_augmentation(chosen["recipe"].augmentation),
        seed=seed,
        device=device,
        run_dir=run_dir,
        evaluate=evaluate,
        evaluations=evaluations,
        settings=options | {"start": start, "images": len(images)},
        progress=progress,
    )


def _sampler(images: PersonImages, recipe: Recipe, losses: Sequence[str], fakes: str | None) -> Sampler:
    """Choose the batches that the losses need."""
    size = recipe.batch_size
    real = int((~images.is_generated).sum())
    if {"triplet", "quartet"} & set(losses):
        k = IMAGES_PER_IDENTITY if isinstance(recipe.batch, int) else recipe.batch[1]
        return pk_batches(images.pids, min(size // k, len(images.pids.unique())), k)
    if fakes is not None and 1 < real < len(images):
        size = min(size, real)
        return mixed_batches(images.is_generated, size, max(2, round(FAKES_PER_REAL * size)))
    return uniform_batches(len(images), min(size, len(images)), drop_last=True)


def augmented(
    train: PersonImages,
    method: nn.Module,
    factor: float = 1,
    *,
    pairs: Tensor | None = None,
    targets: PersonImages | None = None,
    seed: int = 0,
    **options: Any,
) -> PersonImages:
    """Extend a training set by generated images of its people.

    Args:
        train: the real images.
        method: a generator, see `generators.synthesis.stream`.
        factor: generated images for each real one; of 0.25 or 1.5, the fraction draws a share of the real images.
        pairs: int64 [M,2], rows of `train` and of `targets`, instead of `factor`.
        targets: whose pose, mask or camera is wanted; default None, for methods that take none. Where pairs are not
            given, each source takes random ones, never itself.
        seed: of the shares, the targets and the generator's noise.
        options: of `generators.synthesis.synthesise` (pids=-2 for LSRO, camids, folder, precision, ...).

    Raises:
        ValueError: a factor that makes no image, or repeats images of a method without targets; more targets a source
            than there are.

    >>> class Negative(nn.Module):
    ...     def condition(self, targets, sources=None): return None
    ...     def generate(self, images, condition): return -images
    >>> people = PersonImages(torch.zeros(4, 3, 8, 4, dtype=torch.uint8), [1, 1, 2, 2], [1, 2, 1, 2])
    >>> augmented(people, Negative(), 0.5).is_generated.tolist()
    [False, False, False, False, True, True]
    """
    if pairs is None:
        count, generator = round(factor * len(train)), seeded(seed, 6)
        if count < 1 or (targets is None and factor > 1):
            raise ValueError(
                f"factor={factor} with {len(train)} images: at least one image must come out, and without targets "
                "each real image gives one generated image at most"
            )
        rest = torch.randperm(len(train), generator=generator)[: count % len(train)].sort().values
        sources = torch.cat([torch.arange(len(train)).repeat_interleave(count // len(train)), rest]).sort().values
        if targets is None:
            return extend(train, synthesise(method, train.select(indices=sources), seed=seed, **options))
        pairs = target_pairs(sources, torch.arange(len(targets)), generator, itself=targets is not train)
    return extend(train, synthesise(method, train, pairs, targets=targets, seed=seed, **options))


def score_features(
    bench: Benchmark, query: Tensor, gallery: Tensor, *, multi_query: str | None = None, **rules: Any
) -> RetrievalScores:
    """Score given features of a benchmark by its own protocol, or by the `rules` given instead.

    Args:
        bench: whose people and cameras these are.
        query: [Q, D], of `bench.query`, or of `bench.multi_query` where that is asked for.
        gallery: [G, D], of `bench.gallery`.
        multi_query: "mean" or "max": a query is the pooled features of all hand-drawn boxes (`bench.multi_query`) of
            its person in its camera.
        rules: see `evaluators.evaluate_retrieval`.

    Raises:
        ValueError: `multi_query` of a benchmark without hand-drawn boxes; another number of features than of images.

    >>> people = PersonImages(torch.zeros(2, 3, 64, 32, dtype=torch.uint8), [1, 2], [2, 2])
    >>> bench = Benchmark("toy", people, people.select(indices=[0]).with_labels(camids=1), people)
    >>> score_features(bench, torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [0.0, 0.5]])).rank(2)
    1.0
    """
    asked = _asked(bench, multi_query)
    for name, features, images in (("query", query, asked), ("gallery", gallery, bench.gallery)):
        if len(features) != len(images):
            raise ValueError(f"{len(features)} {name} features for the {len(images)} images of {bench.name}")
    pids, camids = asked.pids, asked.camids
    if multi_query is not None:
        # pooled features go back to length 1 only where the gallery's have it: both sides must be of one kind
        unit = torch.allclose(gallery.norm(dim=1), gallery.new_ones(len(gallery)), atol=1e-3)
        query, pids, camids = pool_queries(query, pids, camids, mode=multi_query, normalise=unit)
    people = dict(query_pids=pids, query_camids=camids)
    people |= dict(gallery_pids=bench.gallery.pids, gallery_camids=bench.gallery.camids)
    return evaluate_retrieval(query, gallery, **people, **bench.protocol.arguments() | rules)


def score_benchmark(
    method: nn.Module, bench: Benchmark, *, multi_query: str | None = None, **rules: Any
) -> RetrievalScores:
    """Embed a benchmark's queries and gallery and score them, see `score_features`.

    The benchmark need not be the one that the method was trained on: scoring another one is the transfer setting.
    What the method says about its features (`Baseline.rule`: its start, and whether those of image and mirror are
    averaged) stands in the scores' `protocol`.

    >>> people = PersonImages(torch.zeros(2, 3, 64, 32, dtype=torch.uint8), [1, 1], [1, 2])
    >>> bench = Benchmark("toy", people, people.select(indices=[0]), people.select(indices=[1]))
    >>> score_benchmark(Baseline(2, preset="smoke"), bench).rank(1)
    1.0
    """
    sides = [embed_all(method, part) for part in (_asked(bench, multi_query), bench.gallery)]
    scores = score_features(bench, *sides, multi_query=multi_query, **rules)
    return replace(scores, features=getattr(method, "rule", ""))


def _asked(bench: Benchmark, multi_query: str | None) -> PersonImages:
    """Return the images that ask: the queries, or the hand-drawn boxes."""
    asked = bench.query if multi_query is None else bench.multi_query
    if asked is None:
        raise ValueError(f"{bench.name} has no hand-drawn boxes (gt_bbox) to pool into multi-queries")
    return asked


def judge_generator(
    made: nn.Module | PersonImages,
    sources: PersonImages,
    pairs: Tensor | None = None,
    *,
    judges: Judges | None = None,
    targets: PersonImages | None = None,
    gallery: PersonImages | None = None,
    source_rows: Tensor | None = None,
    camera: int | None = None,
    real: PersonImages | None = None,
    name: str | None = None,
    copy: bool = False,
    untrained: nn.Module | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Return one row of numbers a generator: was the pose followed, the person kept, the camera's style met, the truth?

    The wanted person is the source's. The wanted pose is the target's where there are targets with key points, else
    the source's own. Where every target shows its source's person, it is the truth: SSIM, L1, and FID against it.

    Args:
        made: a generator, or the images that it made, one for each pair.
        sources: the images that were to be changed.
        pairs: int64 [M,2], rows of `sources` and of `targets`; None: each source once, without targets.
        judges: see `evaluators.judges.load_judges`; None leaves out all but SSIM and L1.
        targets: whose pose is wanted, as for `generators.synthesis.synthesise`.
        gallery: real images to look for the person in; None leaves identity out.
        source_rows: int64 [M], the row of `gallery` that each image was made from, which it must not find.
        camera: the wanted camera; None leaves style out.
        real: the set that FID (in the judges' looks) compares with, instead of the targets.
        name: of the row; default the generator's class, or "generated".
        copy: with the row "copy of the source" above, the images unchanged.
        untrained: a generator with its first weights, for the row "untrained".
        options: of `synthesise` (precision, batch_size, ...).

    Returns:
        a table whose columns are what applies of "PCK@0.1", "PCK@0.05", "identity kept, rank-1", "identity kept, any of
        10", "identity kept, by chance", "camera style" (all in [0, 1]), "FID", "SSIM", "L1 (range 2)".

    Raises:
        ValueError: another number of images than of pairs, or nothing to measure.
    """
    pairs = check_pairs(sources, pairs, targets)
    rows = {"copy of the source": sources.select(indices=pairs[:, 0])} if copy else {}
    rows |= {} if untrained is None else {"untrained": untrained}
    name = name or ("generated" if isinstance(made, PersonImages) else type(made).__name__)
    owners, wanted, truth = sources.pids[pairs[:, 0]], sources.select(indices=pairs[:, 0]), None
    if targets is not None:
        wanted = targets.select(indices=pairs[:, 1])
        truth = wanted.images if torch.equal(wanted.pids, owners) and (owners >= 0).all() else None
    asked = dict(keypoints=wanted.keypoints, camids=camera)
    if gallery is not None:
        asked |= dict(pids=owners, gallery=gallery, source_rows=source_rows)
    table = {}
    for row, images in (rows | {name: made}).items():
        if not isinstance(images, PersonImages):
            images = synthesise(images, sources, None if targets is None else pairs, targets=targets, **options)
        if len(images) != len(pairs):
            raise ValueError(f"{row}: {len(images)} images for {len(pairs)} pairs of sources and targets")
        table[row] = _measured(images.images, judges, asked, truth, real)
    return pd.DataFrame(table).T


def _measured(
    images: Tensor, judges: Judges | None, asked: dict, truth: Tensor | None, real: PersonImages | None
) -> dict[str, float]:
    """Measure one set of generated images by everything that applies."""
    asks = judges is not None and any(value is not None for value in asked.values())
    line = judge(images, judges, **asked) if asks else {}
    against = truth if real is None else real
    if judges is not None and against is not None:
        line["FID"] = image_quality.fid(against, images, features=judges.looks, name="judges' looks").value
    if truth is not None:
        line["SSIM"] = image_quality.ssim(images, truth).mean().item()
        line["L1 (range 2)"] = image_quality.l1(images, truth).mean().item()
    if not line:
        raise ValueError("nothing to measure by: give judges, or targets that show the sources' people")
    return line


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
    check_choice("mode", mode, MODES)
    if a.dim() != 2 or b.dim() != 3 or b.shape[::2] != a.shape or b.shape[1] < 1:
        raise ValueError(f"a [N,D] and b [N,K,D] with K > 0 are needed, got {list(a.shape)} and {list(b.shape)}")
    if normalise:
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=2)
    if mode == "a":
        return a
    if mode in ("b", "max"):  # without a copy of all 1 + K
        return b.amax(1) if mode == "b" else torch.maximum(a, b.amax(1))
    if mode == "mean":
        return (a + b.sum(1)) / (1 + b.shape[1])
    return torch.cat([a, b.flatten(1)], dim=1)


@torch.no_grad()
def fused_features(
    images: PersonImages, system: PNGANSystem, *, batch_size: int = 128, precision: str = "fp32", progress: bool = False
) -> PoseFeatures:
    """Embed images by A, and by B in each of K poses; what is generated is embedded and forgotten.

    Args:
        images: the set.
        system: the networks (anything with `embed(images uint8 [B,3,H,W]) -> [B,D]`), the generator (see
            `generators.synthesis.stream`) and the K poses, never the images' own.
        batch_size: images at a time.
        precision: of the generator, see `generators.synthesis.stream`.
        progress: show a progress bar.

    Each network and the generator run where their own parameters lie; the features come back on the CPU.
    """
    net_a, net_b, generator, poses = system
    a = embed_all(net_a, images, batch_size=batch_size)
    pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(poses)))
    b, device = torch.empty(0), device_of(net_b)
    made = stream(generator, images, pairs, targets=poses, batch_size=batch_size, precision=precision)
    for rows, pixels in watched(made, len(pairs), "embedding poses", progress):
        feature = net_b.embed(pixels.to(device)).float().cpu()
        if not len(b):
            b = feature.new_empty(len(pairs), feature.shape[1])
        b[rows] = feature
    return PoseFeatures(a, b.unflatten(0, (len(images), len(poses))))


def embed_benchmark(
    bench: Benchmark, system: PNGANSystem, *, known: dict[bytes, tuple[Tensor, Tensor]] | None = None, **options: Any
) -> dict[str, PoseFeatures]:
    """Return `fused_features` (with these `options`) of the query, the gallery and, if there are any, the drawn boxes.

    This is the one slow pass of a test: every mode, subset of poses and protocol is then scored from it. Splits that
    share images share this pass too: give each call the same dictionary as `known`, and an image that is in it already
    is not embedded again. One dictionary serves one system.
    """
    subsets = {name: images for name, images in bench.subsets().items() if name != "train"}
    if known is None:
        return {name: fused_features(images, system, **options) for name, images in subsets.items()}
    sides = {}
    for side, images in subsets.items():
        keys = [
            hashlib.sha256(image.numpy().data).digest()
            for rows in torch.arange(len(images)).split(512)
            for image in images.batch(rows)["images"]
        ]
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            found = fused_features(images.select(indices=new), system, **options)
            known |= {keys[i]: features for i, *features in zip(new, *found, strict=True)}
        sides[side] = PoseFeatures(*(torch.stack(part) for part in zip(*(known[key] for key in keys), strict=True)))
    return sides


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
    _asked(bench, multi_query)
    if queries is not None and multi_query is not None:
        raise ValueError("queries= picks single queries; it does not go with multi_query")
    count = features["gallery"].b.shape[1]
    if poses is not None and (len(poses) == 0 or min(poses) < 0 or max(poses) >= count):
        raise ValueError(f"poses={poses}: accepted are some of 0 to {count - 1}")
    asked = features["query" if multi_query is None else "multi_query"]
    if queries is not None:
        rows = torch.as_tensor(queries)
        bench, asked = replace(bench, query=bench.query.select(indices=rows)), PoseFeatures(*(f[rows] for f in asked))
    sides = [(a, b if poses is None else b[:, list(poses)]) for a, b in (asked, features["gallery"])]
    found = {}
    for mode in modes:
        fused = [fuse(a, b, mode, normalise=normalise) for a, b in sides]
        found[mode] = score_features(bench, *fused, multi_query=multi_query, **rules)
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

    An image that several splits of one system share is drawn and embedded once.

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
    last, known = None, {}

    def score(system: PNGANSystem, bench: Benchmark) -> dict[str, float]:
        nonlocal last, known
        last, known = system, known if system is last else {}
        features = embed_benchmark(bench, system, known=known, batch_size=batch_size, precision=precision)
        results.append(score_fused(bench, features, modes=modes, **options))
        return {mode: scores.rank(1) for mode, scores in results[-1].items()}

    score_splits(benches, score, train)
    return {mode: average_over_splits([result[mode] for result in results]) for mode in modes}
