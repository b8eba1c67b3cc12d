"""Any Market-1501 folder named by REIDLIB_MARKET1501, from files to a score; without it there is nothing to collect."""

import os
import warnings

import torch

from reidlib.datasets import load
from reidlib.datasets.readers.market1501 import COUNTS
from reidlib.evaluators import evaluate_retrieval, pool_queries

ROOT = os.environ.get("REIDLIB_MARKET1501")


def from_files_to_a_score(root: str, cache) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sample has other counts than the released set
        bench = load("market1501", root, (32, 16), cache=cache, progress=False)
        again = load("market1501", root, (32, 16), cache=cache, progress=False)
    for name, subset in bench.subsets().items():
        assert torch.equal(subset.images, again.subsets()[name].images)
        assert subset.camids.min() >= 1 and subset.camids.max() <= 6 and subset.images.float().std() > 10
        assert len(subset) <= COUNTS.get(name, COUNTS["gt_bbox"])
    assert not set(bench.train.pids.tolist()) & set(bench.query.pids.tolist())
    features = {name: subset.images.flatten(1).float() / 255 for name, subset in bench.subsets().items()}
    numbers = {
        "query_pids": bench.query.pids,
        "query_camids": bench.query.camids,
        "gallery_pids": bench.gallery.pids,
        "gallery_camids": bench.gallery.camids,
    }
    scores = evaluate_retrieval(features["query"], features["gallery"], **numbers, **bench.protocol.arguments())
    assert 0 < scores.mAP < 1 and 0 <= scores.rank(1) <= scores.rank(10) <= 1
    # the same pixels as query and gallery, same-camera images not ignored: each query finds itself first
    same = evaluate_retrieval(
        features["query"], features["query"], **{n: v for n, v in numbers.items() if n.startswith("query")},
        gallery_pids=bench.query.pids, gallery_camids=bench.query.camids, camera_rule="none",
    )  # fmt: skip
    assert same.rank(1) == 1
    if bench.multi_query is not None:
        extra = bench.multi_query
        pooled, pids, camids = pool_queries(features["multi_query"], extra.pids, extra.camids, mode="mean")[:3]
        numbers |= {"query_pids": pids, "query_camids": camids}
        assert 0 < evaluate_retrieval(pooled, features["gallery"], **numbers, **bench.protocol.arguments()).mAP < 1


if ROOT:

    def test_real_market1501(tmp_path):
        from_files_to_a_score(ROOT, tmp_path / "cache")


def test_a_tree_of_our_own_takes_the_same_way(tree, tmp_path):
    from_files_to_a_score(str(tree.folder), tmp_path / "cache")
