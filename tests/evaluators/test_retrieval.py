"""Retrieval against a slow loop that sorts everything, and against the fact sheet's hand-worked cases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import problem

from reidlib.evaluators import RetrievalScores, distances, evaluate_retrieval, pool_queries, retrieval


def brute_force(distance, query_pids, query_camids, gallery_pids, gallery_camids, *, ap="plain", camera_rule):
    """Sort each row stably, filter, walk down the list: (AP, first hit, INP) or None for each query."""
    results = []
    for row, pid, camid in zip(distance, query_pids, query_camids, strict=True):
        hits = []
        for j in np.argsort(row, kind="stable"):
            same_camera = gallery_camids[j] == camid
            same_pid = gallery_pids[j] == pid
            if gallery_pids[j] == -1:
                continue
            if camera_rule == "cross_camera" and same_pid and same_camera:
                continue
            if camera_rule == "separate_views" and same_camera:
                continue
            hits.append(same_pid)
        if not any(hits):
            results.append(None)
            continue
        n, total, previous = 0, 0.0, 1.0
        for i, hit in enumerate(hits, start=1):
            n += hit
            precision = n / i
            if hit:
                total += precision if ap == "plain" else (previous + precision) / 2
                last = i
            previous = precision
        results.append((total / sum(hits), hits.index(True) + 1, sum(hits) / last))
    return results


def score_ranking(r, ap):
    """Score one query whose filtered ranking is r."""
    return evaluate_retrieval(
        torch.zeros(1, 1),
        torch.arange(1.0, len(r) + 1)[:, None],
        query_pids=[1],
        query_camids=[1],
        gallery_pids=[1 if hit else 2 for hit in r],
        gallery_camids=[2] * len(r),
        ap=ap,
    )


@st.composite
def cases(draw):
    """Small random retrieval problems on a coarse grid, so that most distances are tied."""
    q, g = draw(st.integers(1, 9)), draw(st.integers(1, 24))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    levels = draw(st.integers(1, 6))
    people = np.array(draw(st.sampled_from([(0, 1, 2, 3), (0, 255, 2**40, 2**63 - 1)])))
    return dict(
        query=rng.integers(0, levels, (q, 2)).astype(np.float32),
        gallery=rng.integers(0, levels, (g, 2)).astype(np.float32),
        ids=dict(
            query_pids=rng.choice(people, q),
            query_camids=rng.integers(1, 4, q),
            gallery_pids=rng.choice([-3, -1, *people], g),
            gallery_camids=rng.integers(1, 4, g),
        ),
    )


@settings(max_examples=150, deadline=None)
@given(
    case=cases(),
    ap=st.sampled_from(["plain", "trapezoid"]),
    camera_rule=st.sampled_from(["cross_camera", "separate_views", "none"]),
    route=st.sampled_from(["features", "callable", "device"]),
)
def test_equals_a_loop_that_sorts(case, ap, camera_rule, route):
    if (case["ids"]["gallery_pids"] == -1).all():
        return
    difference = case["query"][:, None] - case["gallery"][None]
    squared = (difference**2).sum(-1)
    want = brute_force(squared, **case["ids"], ap=ap, camera_rule=camera_rule)
    options = dict(**case["ids"], ap=ap, camera_rule=camera_rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "_BLOCK_ELEMENTS", 40)  # several chunks
        patch.setattr(distances, "_LEAST_ROWS", 2)
        if route == "device":  # the whole-block counting that a GPU uses
            patch.setattr(retrieval, "_count_before_cpu", retrieval._count_before)
        if route == "callable":
            got = evaluate_retrieval(None, None, distance=lambda rows: squared[rows.numpy()], **options)
        else:
            got = evaluate_retrieval(case["query"], case["gallery"], **options)
    assert got.valid.tolist() == [w is not None for w in want]
    for i, expected in enumerate(want):
        if expected is None:
            assert torch.isnan(got.average_precisions[i, 0])
        else:
            values = (got.average_precisions, got.first_hits, got.inverse_negative_penalties)
            assert [float(v[i, 0]) for v in values] == pytest.approx(expected, abs=1e-12)
    if any(want):
        found = [w for w in want if w]
        assert got.mAP == pytest.approx(np.mean([w[0] for w in found]))
        assert got.cmc.tolist() == pytest.approx([np.mean([w[1] <= k for w in found]) for k in range(1, 51)])
        assert got.mINP == pytest.approx(np.mean([w[2] for w in found]))


@pytest.mark.parametrize(
    ("r", "plain", "trapezoid"),
    [
        ([1, 0, 1, 0, 0, 1], 0.722222, 0.677778),
        ([0, 1], 0.5, 0.25),
        ([0, 1, 0, 1], 0.5, 0.333333),
        ([1, 0, 0, 1], 0.75, 0.708333),
        ([0, 0, 1], 0.333333, 0.166667),
        ([1, 1, 1], 1, 1),
    ],
)
def test_both_ap_rules_by_hand(r, plain, trapezoid):  # acceptance check 1
    assert score_ranking(r, "plain").mAP == pytest.approx(plain, abs=1e-6)
    assert score_ranking(r, "trapezoid").mAP == pytest.approx(trapezoid, abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=20).filter(any))
def test_gap_between_the_ap_rules(r):  # acceptance check 1: its closed form
    hits = [(k, i) for k, i in enumerate((i for i, hit in enumerate(r, 1) if hit), 1)]
    gap = sum((i - k) / (2 * i * (i - 1)) for k, i in hits if i > 1) / len(hits)
    plain, trapezoid = score_ranking(r, "plain").mAP, score_ranking(r, "trapezoid").mAP
    assert plain - trapezoid == pytest.approx(gap)
    assert plain / 2 - 1e-12 <= trapezoid <= plain + 1e-12


def toy(**options):
    """The filtering toy: kept are 7, a distractor, 5."""
    return evaluate_retrieval(
        torch.zeros(1, 1),
        torch.arange(1.0, 6.0)[:, None],
        query_pids=torch.tensor([5]),
        query_camids=torch.tensor([1]),
        gallery_pids=torch.tensor([5, 7, -1, -3, 5]),
        gallery_camids=torch.tensor([1, 1, 2, 3, 2]),
        **options,
    )


def test_market_filtering_toy():  # acceptance check 2
    assert toy().first_hits.tolist() == [[3]]
    assert toy().mAP == pytest.approx(1 / 3)
    assert toy(ap="trapezoid").mAP == pytest.approx(1 / 6)
    assert toy(camera_rule="none").first_hits.tolist() == [[1]]
    assert toy(camera_rule="separate_views").first_hits.tolist() == [[2]]  # 7 of the query's view goes too


def test_query_without_a_match_and_the_divisor():  # acceptance check 3
    ids = dict(query_pids=[1, 2], query_camids=[1, 1], gallery_pids=[1, 2, 3], gallery_camids=[2, 1, 2])
    features = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0], [9.0]])
    valid = evaluate_retrieval(*features, **ids)
    every = evaluate_retrieval(*features, **ids, divisor="all")
    assert (valid.n_valid, valid.n_queries, valid.mAP, valid.rank(1), valid.mINP) == (1, 2, 1.0, 1.0, 1.0)
    assert (every.mAP, every.rank(1), every.rank(50), every.mINP) == (0.5, 0.5, 0.5, 0.5)
    none = evaluate_retrieval(features[0][1:], features[1], **ids | dict(query_pids=[2], query_camids=[1]))
    with pytest.raises(ValueError, match="none of the 1 queries has a match"):
        _ = none.mAP


def test_multi_query_of_one_image_is_single_query(rng):  # acceptance check 6
    features = torch.from_numpy(rng.normal(size=(6, 4)))
    features = torch.nn.functional.normalize(features, dim=1)
    pids, camids = np.array([2, 1, 1, 3, 3, 2]), np.array([1, 2, 1, 1, 2, 2])
    gallery = dict(gallery_pids=rng.integers(1, 4, 30), gallery_camids=rng.integers(1, 4, 30))
    gallery_features = torch.from_numpy(rng.normal(size=(30, 4)))
    single = evaluate_retrieval(features, gallery_features, query_pids=pids, query_camids=camids, **gallery)
    for mode in ("mean", "max"):
        pooled, pooled_pids, pooled_camids = pool_queries(features, pids, camids, mode=mode)
        order = np.lexsort((camids, pids))
        torch.testing.assert_close(pooled, features[order])
        multi = evaluate_retrieval(
            pooled, gallery_features, query_pids=pooled_pids, query_camids=pooled_camids, **gallery
        )
        assert (multi.mAP, multi.cmc.tolist()) == (single.mAP, single.cmc.tolist())


def test_pooling_by_hand():
    features = torch.tensor([[3.0, 0.0], [5.0, 8.0], [1.0, 1.0], [7.0, 7.0], [9.0, 9.0]])
    pids, camids = torch.tensor([4, 4, 0, -1, -3]), torch.tensor([1, 1, 3, 1, 1])
    mean, out_pids, out_camids = pool_queries(features, pids, camids, normalise=False)
    assert mean.tolist() == [[1.0, 1.0], [4.0, 4.0]]
    assert (out_pids.tolist(), out_camids.tolist()) == ([0, 4], [3, 1])
    assert pool_queries(features, pids, camids, mode="max", normalise=False)[0].tolist() == [[1.0, 1.0], [5.0, 8.0]]
    torch.testing.assert_close(pool_queries(features, pids, camids)[0][1], torch.full((2,), 0.5**0.5))
    with pytest.raises(ValueError, match="multi-query needs"):
        pool_queries(None, pids, camids)
    with pytest.raises(ValueError, match="none of the 5 images shows a person"):
        pool_queries(features, torch.tensor([-1, -2, -3, -1, -1]), camids)
    with pytest.raises(ValueError, match=r"\[5, D\]"):
        pool_queries(features[:4], pids, camids)


@pytest.mark.parametrize("camera_rule", ["cross_camera", "separate_views", "none"])
def test_single_shot_with_one_image_each_is_ordinary_cmc(rng, camera_rule):  # acceptance check 7
    features, _ = problem(rng, q=5, g=12)
    ids = dict(query_pids=[1, 2, 3, 11, 12], query_camids=[1] * 5, gallery_pids=range(1, 13), gallery_camids=[2] * 12)
    ids = {name: np.array(values) for name, values in ids.items()}
    whole = evaluate_retrieval(*features, **ids, camera_rule=camera_rule)
    for seed in (0, 1):
        shots = evaluate_retrieval(*features, **ids, camera_rule=camera_rule, gallery_shots=1, seed=seed)
        assert shots.first_hits.shape == (5, 10)
        assert shots.cmc.tolist() == whole.cmc.tolist() and shots.mAP == pytest.approx(whole.mAP, abs=1e-12)


@pytest.mark.parametrize("camera_rule", ["cross_camera", "separate_views", "none"])
def test_single_shot_draws_one_image_of_each_identity_uniformly(rng, camera_rule):
    features, ids = problem(rng, q=6, g=30, people=5)
    rounds = 1000
    got = evaluate_retrieval(*features, **ids, camera_rule=camera_rule, gallery_shots=1, repeats=rounds)
    distance = torch.cdist(*features).numpy()
    for i in range(6):  # expected CMC(1): the drawn match beats the drawn image of every other identity
        pid, camid = ids["query_pids"][i], ids["query_camids"][i]
        junk = ids["gallery_pids"] == -1
        away = ids["gallery_camids"] != camid
        own = (ids["gallery_pids"] == pid) & (away if camera_rule != "none" else True)
        assert got.valid[i] == own.any()
        first = 0.0
        for j in np.flatnonzero(own):
            chance = 1 / own.sum()
            for other in set(ids["gallery_pids"][~junk]) - {pid}:
                theirs = ids["gallery_pids"] == other
                theirs = theirs & away if camera_rule == "separate_views" else theirs
                chance *= (distance[i][theirs] > distance[i, j]).mean() if theirs.any() else 1
            first += chance
        assert (got.first_hits[i] == 1).double().mean().item() == pytest.approx(first, abs=0.06)
    again = evaluate_retrieval(*features, **ids, camera_rule=camera_rule, gallery_shots=1, repeats=rounds)
    assert torch.equal(again.first_hits, got.first_hits)


def test_unit_features_rank_alike_by_every_distance(rng):  # acceptance check 15
    (query, gallery), ids = problem(rng)
    query, gallery = (torch.nn.functional.normalize(x.double(), dim=1) for x in (query, gallery))
    squared = torch.cdist(query, gallery) ** 2
    a, b, c = (
        evaluate_retrieval(query, gallery, distance=d, **ids) for d in ("euclidean", "cosine", lambda i: squared[i])
    )
    assert torch.equal(a.first_hits, b.first_hits) and torch.equal(a.first_hits, c.first_hits)
    assert a.mAP == b.mAP == c.mAP


@pytest.mark.parametrize("options", [{}, dict(gallery_shots=1, camera_rule="separate_views"), dict(divisor="all")])
def test_shards_combine_to_one_process(rng, options):
    features, ids = problem(rng, q=41, g=333)
    whole = evaluate_retrieval(*features, **ids, **options)
    parts = []
    for rank in (1, 0, 2):  # strided, out of order, as a gather may bring them
        own = np.arange(41)[rank::3]
        shard = ids | dict(query_pids=ids["query_pids"][own], query_camids=ids["query_camids"][own])
        parts.append(evaluate_retrieval(features[0][own], features[1], **shard, **options))
    joined = RetrievalScores.combine(parts)
    assert (joined.mAP, joined.mINP, joined.cmc.tolist()) == (whole.mAP, whole.mINP, whole.cmc.tolist())
    assert str(joined) == str(whole)
    with pytest.raises(ValueError, match="parts differ in ap"):
        RetrievalScores.combine([whole, evaluate_retrieval(*features, **ids, **options, ap="trapezoid")])


def test_a_shard_of_one_query_rounds_like_the_whole(rng):
    """A product of few rows takes another path in the matrix library; near ties must not turn round."""
    query = torch.from_numpy(rng.normal(size=(40, 512))).float()
    gallery = (query[:1] + 1e-4 * torch.from_numpy(rng.normal(size=(600, 512)))).float()
    ids = dict(gallery_pids=rng.integers(1, 9, 600), gallery_camids=np.full(600, 2))
    pids = rng.integers(1, 9, 40)
    whole = evaluate_retrieval(query, gallery, query_pids=pids, query_camids=np.ones(40, int), **ids)
    for i in (0, 1, 39):
        one = evaluate_retrieval(
            query[i : i + 1], gallery, query_pids=pids[i : i + 1], query_camids=np.ones(1, int), **ids
        )
        assert torch.equal(one.average_precisions[0], whole.average_precisions[i])


def test_other_seeds_draw_other_galleries_and_rounds_differ(rng):
    features, ids = problem(rng)
    first, second, again = (evaluate_retrieval(*features, **ids, gallery_shots=1, seed=s).first_hits for s in (0, 1, 0))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert (first != first[:, :1]).any()


def test_a_hit_behind_the_curve_is_no_hit():
    scores = score_ranking([0, 0, 1], "plain")
    assert scores.cmc[:4].tolist() == [0, 0, 1, 1] and scores.rank(50) == 1
    short = toy(max_rank=2)
    assert short.cmc.tolist() == [0, 0] and short.first_hits.tolist() == [[3]]
    for k in (0, 3):
        with pytest.raises(ValueError, match=rf"rank\({k}\): accepted are 1 to 2"):
            short.rank(k)


def test_a_custom_distance_may_be_whole_numbers_and_carry_gradients():
    ids = dict(query_pids=[1], query_camids=[1], gallery_pids=[2, 1], gallery_camids=[2, 2])
    block = torch.tensor([[2**24 + 1, 2**24]])  # alike in float32
    assert evaluate_retrieval(None, None, distance=lambda rows: block, **ids).rank(1) == 1
    learnt = torch.tensor([[2.0, 1.0]], requires_grad=True)
    assert evaluate_retrieval(None, None, distance=lambda rows: learnt, **ids).rank(1) == 1


def test_the_mean_does_not_depend_on_the_order_of_the_queries():
    values = torch.tensor([[1e-17], [1.0], [1e-17], [1e-17]], dtype=torch.float64).repeat(30, 1)
    ones = torch.ones(120, 1, dtype=torch.int64)
    rules = dict(ap="plain", camera_rule="none", distance="custom", gallery_shots=None, divisor="valid", max_rank=1)
    sums = {RetrievalScores(part, ones, part, **rules).mAP for part in (values, values.sort(0).values, values.flip(0))}
    assert len(sums) == 1


def test_words_and_dictionary_carry_the_rules():
    scores = toy(ap="trapezoid")
    assert "trapezoid AP" in str(scores) and "cross camera" in str(scores) and "1 of 1 queries" in str(scores)
    assert scores.as_dict() == {
        "mAP (trapezoid AP)": pytest.approx(1 / 6),
        "rank-1": 0,
        "rank-5": 1,
        "rank-10": 1,
        "mINP": pytest.approx(1 / 3),
    }
    single = toy(camera_rule="separate_views", gallery_shots=1, repeats=2).as_dict(ranks=(1,))
    assert list(single) == [
        "mAP (plain AP, separate views, single-shot x2)",
        "rank-1 (separate views, single-shot x2)",
        "mINP (separate views, single-shot x2)",
    ]
