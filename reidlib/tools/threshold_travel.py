"""Does a match threshold travel? Fitted on people of one camera network, used on others, before and after remedies."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from reidlib.datasets import Benchmark, PersonImages
from reidlib.embedders import embed_all
from reidlib.evaluators import Verification, rerank, verify
from reidlib.evaluators.distances import Distance
from reidlib.evaluators.metric_learning import XQDA

REMEDIES = ("none", "camera pairs", "re-ranked", "XQDA", "unlabelled images")
COLUMNS = ("FAR wanted", "FAR", "TAR", "TAR at the wanted FAR", "EER")


def camera_pair_distance(
    query: Tensor, gallery: Tensor, query_camids: Tensor, gallery_camids: Tensor, pids: tuple[Tensor, Tensor]
) -> Distance:
    r"""Return Euclidean distances on the scale of their pair of cameras, for `verify(None, None, distance=...)`.

    $$d'(q, g) = \frac{d(q, g) - m_{ab}}{s_{ab}}$$

    where $m_{ab}$ and $s_{ab}$ are the median and the distance of the quartiles of all distances from camera a to
    camera b. That needs no labels: nearly all pairs show two people. Pids are used to leave junk (-1) out.

    Args:
        query, gallery: features [Q, D] and [G, D].  query_camids, gallery_camids: int64 [Q] and [G].
        pids: of both sides, int64 [Q] and [G].

    >>> x, cameras, pids = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([1, 1, 1, 1]), torch.arange(4)
    >>> camera_pair_distance(x[:1], x, cameras[:1], cameras, (pids[:1], pids))(torch.tensor([0]))
    tensor([[-0.6154, -0.3077,  0.3077,  1.5385]])
    """
    distances = torch.cdist(query, gallery)
    for a in query_camids.unique():
        for b in gallery_camids.unique():
            rows, columns = query_camids == a, gallery_camids == b
            part = distances[rows][:, columns]
            middle, scale = _middle(part[:, pids[1][columns] != -1])
            distances[rows.nonzero(), columns.nonzero()[:, 0]] = (part - middle) / scale
    return lambda rows: distances[rows]


def _middle(distances: Tensor) -> tuple[float, float]:
    """Return the median and the distance of the quartiles, at least 1e-6."""
    low, middle, high = np.quantile(distances.numpy(), [0.25, 0.5, 0.75])
    return float(middle), max(float(high - low), 1e-6)


def unlabelled_middle(method: nn.Module, images: PersonImages, n: int, seed: int) -> tuple[float, float]:
    """Return median and quartiles' distance over all pairs of `n` images, drawn without a look at their labels."""
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]
    return _middle(torch.pdist(embed_all(method, images.select(indices=rows))))


def travel(
    method: nn.Module, home: Benchmark, others: Mapping[str, Benchmark], *, far: float = 0.01, n_unlabelled: int = 50,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Fit a threshold on `home`'s queries and gallery, and use it on other benchmarks, with each of `REMEDIES`.

    "camera pairs" normalises distances by pair of cameras (`camera_pair_distance`), "re-ranked" takes `rerank`'s
    distances, "XQDA" is fitted on `home`'s training people; each on both sides. "unlabelled images" moves and scales
    the threshold by the middle of distances between `n_unlabelled` training images at home and there.

    Args:
        method: trained on `home.train`, with `embed`.
        home: people that it has not seen, such as `bench.validation()`.
        others: by name, scored by their own camera rules.
        far: the wanted false-accept rate.
        n_unlabelled, seed: of the images drawn.

    Returns:
        a row for each benchmark and remedy (the index), with `COLUMNS` in [0, 1]: what was wanted, FAR and TAR that the
        threshold got there, and what one that is fitted there would have: TAR at the wanted FAR, and EER.
    """
    learned = XQDA().fit(embed_all(method, home.train), home.train.pids, home.train.camids)
    middles = {name: unlabelled_middle(method, bench.train, n_unlabelled, seed) for name, bench in others.items()}
    at_home = unlabelled_middle(method, home.train, n_unlabelled, seed)
    limits = {remedy: pairs.threshold_at(far) for remedy, pairs in _pairs(method, home, learned).items()}
    rows = {}
    for name, bench in others.items():
        for remedy, pairs in _pairs(method, bench, learned).items():
            limit = limits[remedy]
            if remedy == "unlabelled images":
                limit = middles[name][0] + (limit - at_home[0]) * middles[name][1] / at_home[1]
            rows[name, remedy] = dict(zip(COLUMNS, (far, *pairs.at(limit), pairs.tar_at(far), pairs.eer), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=["used on", "remedy"])


def _pairs(method: nn.Module, bench: Benchmark, learned: XQDA) -> dict[str, Verification]:
    """Count a benchmark's pairs by the distance of each remedy."""
    query, gallery = (embed_all(method, part) for part in (bench.query, bench.gallery))
    cameras, pids = (bench.query.camids, bench.gallery.camids), (bench.query.pids, bench.gallery.pids)
    who = dict(query_pids=pids[0], query_camids=cameras[0], gallery_pids=pids[1], gallery_camids=cameras[1])
    who["camera_rule"] = bench.protocol.camera_rule
    plain = verify(query, gallery, **who)
    distances = (
        camera_pair_distance(query, gallery, *cameras, pids),
        rerank(query, gallery, gallery_pids=pids[1]),
        learned.distance(query, gallery),
    )
    found = [verify(None, None, distance=distance, **who) for distance in distances]
    return dict(zip(REMEDIES, (plain, *found, plain), strict=True))
