import math

import pandas as pd
import pytest
import torch

from reidlib.datasets import Benchmark, PersonImages
from reidlib.evaluators import average_over_splits, evaluate_retrieval, score_splits


def scores(distances, **rules):
    return evaluate_retrieval(
        None, None, query_pids=torch.tensor([1]), query_camids=torch.tensor([1]), gallery_pids=torch.tensor([1, 2, 3]),
        gallery_camids=torch.tensor([2, 2, 2]), distance=lambda rows: torch.tensor([distances]), **rules,
    )  # fmt: skip


def bench_of(train_pids, number):
    def people(pids, camera):
        return PersonImages(torch.full((len(pids), 3, 4, 2), number, dtype=torch.uint8), pids, [camera] * len(pids))

    return Benchmark(f"b{number}", people(train_pids, 1), people([9], 1), people([9], 2))


def test_mean_and_sample_standard_deviation_by_hand():
    out = average_over_splits([{"mAP": 0.2, "rank-1": 0.5}, {"mAP": 0.4, "rank-1": 0.5}, {"rank-1": 0.8, "mAP": 0.9}])
    assert out.mean.to_dict() == pytest.approx({"mAP": 0.5, "rank-1": 0.6})
    assert out.std.to_dict() == pytest.approx({"mAP": math.sqrt(0.13), "rank-1": math.sqrt(0.03)})
    assert out.table["mAP"].tolist() == [0.2, 0.4, 0.9] and out.table.index.name == "split"
    assert str(out) == "mAP 50.0 ± 36.1 %, rank-1 60.0 ± 17.3 % [3 splits]"
    assert list(out.as_dict()) == ["mAP", "rank-1", "mAP, std over 3 splits", "rank-1, std over 3 splits"]


def test_names_of_scores_carry_their_rule():
    rules = {"camera_rule": "separate_views", "gallery_shots": 1, "max_rank": 3}
    out = average_over_splits([scores([1.0, 2, 3], **rules), scores([2.0, 1, 3], **rules)])
    name = "rank-1 (separate views, single-shot x10)"
    assert out.mean[name] == 0.5 and out.std[name] == pytest.approx(math.sqrt(0.5))
    assert out.table.loc[1, "mAP (plain AP, separate views, single-shot x10)"] == 0.5


def test_what_cannot_be_averaged():
    with pytest.raises(ValueError, match="no results"):
        average_over_splits([])
    with pytest.raises(ValueError, match=r"split 1 has the scores .* not one protocol"):
        average_over_splits([scores([1.0, 2, 3]), scores([1.0, 2, 3], ap="trapezoid")])
    assert pd.isna(average_over_splits([{"a": 1.0}]).std["a"])


def test_an_experiment_over_splits_trains_once_for_equal_training_sets():
    benches = [bench_of([1, 2], 0), bench_of([1, 2], 1), bench_of([1, 3], 2), bench_of([1, 2], 3)]
    trained, scored = [], []

    def train(bench):
        trained.append(bench.name)
        return f"trained on {bench.name}"

    def score(method, bench):
        scored.append((method, bench.name))
        return {"rank-1": len(scored) / 10}

    out = score_splits(iter(benches), score, train)
    assert trained == ["b0", "b2", "b3"]
    assert [method[-2:] for method, _ in scored] == ["b0", "b0", "b2", "b3"]
    assert out.mean["rank-1"] == 0.25 and len(out.table) == 4
    assert out.table["rank-1"].tolist() == [0.1, 0.2, 0.3, 0.4] and out.table.index.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no results"):
        score_splits([], score, train)
