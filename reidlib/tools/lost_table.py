"""The columns of the table that SAN's paper lost: two re-ID systems, scored in four ways (notebook 06)."""

from typing import Any

from torch import nn

from reidlib.datasets import Benchmark, PersonImages
from reidlib.embedders import embed_all
from reidlib.embedders.siamese import train_siamese
from reidlib.evaluators import RetrievalScores
from reidlib.evaluators.metric_learning import KISSME, XQDA
from reidlib.experiments import score_benchmark, score_features, train_baseline


def score_systems(
    bench: Benchmark,
    images: PersonImages,
    *,
    images_seen: int,
    ide: nn.Module | None = None,
    options: dict[str, Any] | None = None,
    **training: Any,
) -> dict[str, RetrievalScores]:
    """Train the two re-ID systems of SAN's augmentation table on some images and score its four columns.

    "IDE + Euclidean", "IDE + XQDA", "IDE + KISSME": one softmax classifier, whose features are compared in three ways;
    "Siamese": `embedders.siamese`. Both see `images_seen` images. The learnt distances are fitted on `bench.train`, the
    real images, whatever else the networks learnt from.

    Args:
        bench: gives queries, gallery and the protocol.
        images: what both networks train on, `bench.train` or an augmented set.
        ide: a classifier that is trained already, for the first three columns.
        options: of both networks (start, width, ...).
        training: of both trainings (preset, seed, device, progress, ...).

    >>> import torch
    >>> g = torch.Generator().manual_seed(0)
    >>> pixels = torch.randint(0, 255, (24, 3, 64, 32), dtype=torch.uint8, generator=g)
    >>> people = PersonImages(pixels, [1, 2, 3, 4] * 6, [1] * 12 + [2] * 12)
    >>> bench = Benchmark("toy", people, people.select(camids=1), people.select(camids=2))
    >>> list(score_systems(bench, people, images_seen=48, preset="smoke", progress=False))
    ['IDE + Euclidean', 'IDE + XQDA', 'IDE + KISSME', 'Siamese']
    """
    options, train = options or {}, bench.train
    if ide is None:
        ide, _ = train_baseline(images, images_seen=images_seen, loss="softmax", **options, **training)
    q, g, t = (embed_all(ide, part) for part in (bench.query, bench.gallery, train))
    dims = min(128, t.shape[1], len(t) - 1)
    learnt = {"IDE + XQDA": XQDA(), "IDE + KISSME": KISSME(dims=dims)}
    scores = {"IDE + Euclidean": score_features(bench, q, g)}
    for name, distance in learnt.items():
        scores[name] = score_features(bench, q, g, distance=distance.fit(t, train.pids, train.camids).distance(q, g))
    siamese, _ = train_siamese(images, images_seen=images_seen, options=options, **training)
    return scores | {"Siamese": score_benchmark(siamese, bench)}
