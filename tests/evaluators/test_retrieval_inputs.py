"""What retrieval scores accept, what they refuse, and the bootstrap over identities."""

import numpy as np
import pytest
import torch
from random_problems import problem

from reidlib.evaluators import (
    RetrievalScores,
    evaluate_retrieval,
    ignored_images,
    nearest_neighbours,
    pool_queries,
    rerank,
)


def test_inputs_stay_as_they_were_and_may_be_of_many_kinds(rng):
    features, ids = problem(rng)
    matrix = torch.cdist(*features)
    before = matrix.clone()
    base = evaluate_retrieval(*features, **ids)
    assert evaluate_retrieval(*(f.numpy() for f in features), **ids).mAP == base.mAP
    assert evaluate_retrieval(features[0].requires_grad_(), features[1], **ids).mAP == base.mAP
    assert evaluate_retrieval(*features, **{k: torch.from_numpy(v) for k, v in ids.items()}).mAP == base.mAP
    assert evaluate_retrieval(None, None, distance=lambda rows: matrix[rows[0] : rows[-1] + 1], **ids).mAP > 0
    assert torch.equal(matrix, before)
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate_retrieval(*features, **ids).mAP == base.mAP
    halves = [f.detach().half() for f in features]
    assert evaluate_retrieval(*halves, **ids).mAP == evaluate_retrieval(*(h.float() for h in halves), **ids).mAP


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(ap="voc"), "ap must be one of 'plain', 'trapezoid'"),
        (dict(camera_rule="market"), "camera_rule must be one of 'cross_camera'"),
        (dict(divisor="some"), "'valid', 'all'"),
        (dict(distance="manhattan"), "euclidean"),
        (dict(gallery_shots=2), "gallery_shots must be one of None, 1; got 2"),
        (dict(repeats=0), "repeats=0"),
        (dict(query_pids=np.array([1])), r"query camids must be integers \[1\].*\(40,\)"),
        (dict(query_pids=np.full(40, -1)), "query pid -1: only people"),
        (dict(query_pids=np.full(40, -2)), "query pid -2: only people"),
        (dict(query_pids=np.full(40, -3)), "query pid -3: only people"),
        (dict(gallery_pids=np.full(150, -2)), "gallery pid -2"),
        (dict(gallery_pids=np.full(150, -4)), "gallery pid -4"),
        (dict(query_pids=np.full(40, 1.0)), "integers"),
        (dict(query_camids=np.full(40, -1)), 'camera_rule="none"'),
        (dict(gallery_pids=np.full(150, -1)), "all 150 gallery images are junk"),
        (dict(gallery_pids=np.ones(149, int), gallery_camids=np.ones(149, int)), r"\[149, D\]"),
        (dict(distance=lambda rows: torch.zeros(len(rows), 3)), r"\(40, 3\) for 40 queries and 150 images"),
        (dict(distance=lambda rows: torch.full((len(rows), 150), torch.nan)), "NaN distance for query row 0"),
    ],
)
def test_bad_input_is_named(rng, change, message):
    features, ids = problem(rng)
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(*features, **ids | change)


def test_nan_features_and_missing_features_are_errors(rng):
    features, ids = problem(rng)
    damaged = features[1].clone()
    damaged[7, 2] = torch.nan
    with pytest.raises(ValueError, match="gallery_features holds NaN or infinite values in row 7"):
        evaluate_retrieval(features[0], damaged, **ids)
    with pytest.raises(ValueError, match="query_features is None"):
        evaluate_retrieval(None, features[1], **ids)
    with pytest.raises(ValueError, match="6 dimensions, gallery features 5"):
        evaluate_retrieval(features[0], features[1][:, :5], **ids)
    with pytest.raises(ValueError, match="accepted are 1 to 50"):
        evaluate_retrieval(features[0], torch.zeros(150, 6), **ids).rank(51)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 1e30])
@pytest.mark.parametrize("side", ["query", "gallery"])
def test_one_number_that_cannot_be_compared_is_refused_everywhere(rng, side, number, distance):
    """1e30 is finite, but its square is not in float32: all distances would be alike."""
    features, ids = problem(rng, q=5, g=20)
    features[side == "gallery"][3, 2] = number
    message = f"{side}_features holds NaN or infinite values in row 3"
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(*features, **ids, distance=distance)
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(*features, 2, distance=distance)
    with pytest.raises(ValueError, match=message):
        rerank(*features, k1=3, k2=2, distance=distance)
    with pytest.raises(ValueError, match="features holds NaN or infinite values in row 3"):
        pool_queries(features[side == "gallery"], *(ids[f"{side}_{name}"] for name in ("pids", "camids")))
    doubles = [f.double() for f in features]
    if number == 1e30:  # float64 can
        assert evaluate_retrieval(*doubles, **ids, distance=distance).n_queries == 5


def test_person_0_is_a_person_and_a_distractor_is_wrong_for_everybody():
    query, gallery = torch.zeros(3, 1), torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    ids = dict(query_pids=[0, 5, 7], query_camids=[1, 1, 1], gallery_pids=[-3, 0, 5, -1], gallery_camids=[1, 2, 2, 2])
    scores = evaluate_retrieval(query, gallery, **ids)
    assert scores.first_hits.tolist() == [[2], [3], [0]] and scores.n_valid == 2
    shots = evaluate_retrieval(query, gallery, **ids, gallery_shots=1)
    assert shots.first_hits[:, 0].tolist() == [2, 3, 0]


def test_single_shot_keeps_every_distractor(rng):
    """Each is somebody else: three that are nearer than the match put it on rank 4 in every round."""
    ids = dict(query_pids=[1], query_camids=[1], gallery_pids=[-3, -3, 1, -3, 1], gallery_camids=[2] * 5)
    for rule in ("cross_camera", "separate_views", "none"):
        scores = evaluate_retrieval(
            torch.zeros(1, 1),
            torch.tensor([[1.0], [2.0], [9.0], [3.0], [9.0]]),
            **ids,
            gallery_shots=1,
            camera_rule=rule,
        )
        assert set(scores.first_hits.flatten().tolist()) == {4}


@pytest.mark.parametrize("rule", ["cross_camera", "separate_views"])
def test_a_gallery_image_without_a_camera_cannot_find_itself(rule):
    """The image is in the query and in the gallery; without a camera nothing would leave it out."""
    features = torch.tensor([[0.0], [1.0], [2.0]])
    ids = dict(query_pids=[1], query_camids=[1], gallery_pids=[1, 2, 1])
    for camids in ([-1, 1, 2], [2, -1, 2], [2, 2, -7]):
        with pytest.raises(ValueError, match=r'gallery images without a camera \(camid -\d\) need camera_rule="none"'):
            evaluate_retrieval(features[:1], features, **ids, gallery_camids=camids, camera_rule=rule)
        with pytest.raises(ValueError, match="gallery images without a camera"):
            ignored_images(**ids, gallery_camids=camids, camera_rule=rule)
        assert evaluate_retrieval(features[:1], features, **ids, gallery_camids=camids, camera_rule="none").rank(1) == 1
    person_0 = ids | dict(query_pids=[0], gallery_pids=[0, 2, 0])
    with pytest.raises(ValueError, match="gallery images without a camera"):
        evaluate_retrieval(features[:1], features, **person_0, gallery_camids=[-1, 1, 2], camera_rule=rule)
    with pytest.raises(ValueError, match="query images without a camera"):
        ignored_images(**ids | dict(query_camids=[-1]), gallery_camids=[1, 2, 2], camera_rule=rule)


def test_only_what_a_rule_compares_needs_a_camera():
    features = torch.tensor([[1.0], [2.0], [3.0]])
    ids = dict(query_pids=[1], query_camids=[1], gallery_pids=[-3, 1, -1], gallery_camids=[-1, 2, -1])
    assert evaluate_retrieval(torch.zeros(1, 1), features, **ids).first_hits.tolist() == [[2]]
    with pytest.raises(ValueError, match="gallery images without a camera"):
        evaluate_retrieval(torch.zeros(1, 1), features, **ids, camera_rule="separate_views")
    ids["gallery_camids"] = [3, 2, -1]  # junk counts for nothing
    assert evaluate_retrieval(torch.zeros(1, 1), features, **ids, camera_rule="separate_views").rank(2) == 1


@pytest.mark.parametrize(
    ("pids", "shown"),
    [
        (torch.tensor([2**64 - 1, 1], dtype=torch.uint64), "uint64"),  # would wrap to -1, junk
        (np.array([2**63, 1], np.uint64), "up to 9223372036854775808"),
        ([10**30, 1], "object"),
        ([1e20, 1], "float64"),
        ([True, False], "bool"),
        ([2**63, -1], "got (object|float64)"),
    ],
)
def test_numbers_beyond_int64_are_refused_not_wrapped(pids, shown):
    features = torch.zeros(2, 1)
    good = dict(query_pids=[1, 1], query_camids=[1, 1], gallery_pids=[1, 2], gallery_camids=[2, 2])
    for name in good:
        with pytest.raises(ValueError, match=f"{name.replace('_', ' ')} must be integers.*{shown}"):
            evaluate_retrieval(features, features, **good | {name: pids})
        with pytest.raises(ValueError, match=f"must be integers.*{shown}"):
            ignored_images(**good | {name: pids})
    with pytest.raises(ValueError, match=f"gallery_pids must be integers.*{shown}"):
        rerank(features, features, gallery_pids=pids)


def test_small_unsigned_numbers_are_taken_as_they_are():
    features = torch.tensor([[0.0], [1.0], [2.0]])
    ids = dict(query_pids=[255, 200, 0], query_camids=[1, 1, 1], gallery_pids=[0, 255, 200], gallery_camids=[2, 2, 2])
    want = evaluate_retrieval(features, features, **ids).first_hits
    for dtype in (torch.uint8, torch.uint16, torch.uint64, torch.int16):
        typed = {name: torch.tensor(values, dtype=torch.int64).to(dtype) for name, values in ids.items()}
        assert torch.equal(evaluate_retrieval(features, features, **typed).first_hits, want)


def test_infinite_distances_are_ordinary_values():
    matrix = torch.tensor([[torch.inf, torch.inf, 0.0], [-torch.inf, 1.0, torch.inf]])
    ids = dict(query_pids=[1, 1], query_camids=[1, 1], gallery_pids=[2, 1, 2], gallery_camids=[2, 2, 2])
    scores = evaluate_retrieval(None, None, distance=lambda rows: matrix[rows], **ids)
    assert scores.first_hits.tolist() == [[3], [2]]


@pytest.mark.parametrize(("divisor", "rounds"), [("valid", 1), ("all", 1), ("valid", 3)])
def test_bootstrap_over_identities_as_a_slow_loop(divisor, rounds):
    rng = np.random.default_rng(3)
    pids = rng.integers(0, 9, 40)
    hits = torch.from_numpy(rng.integers(1, 4, (40, rounds)))
    precisions = torch.from_numpy(rng.random((40, rounds)))
    lost = (pids == 4) | (rng.random(40) < 0.2)  # person 4 has no match at all
    hits[lost], precisions[lost] = 0, float("nan")
    scores = RetrievalScores(precisions, hits, precisions, "plain", "cross_camera", "euclidean", None, divisor, 50)
    people = sorted(set(pids.tolist()) if divisor == "all" else set(pids[~lost].tolist()))
    drawn = np.random.default_rng(5).multinomial(len(people), [1 / len(people)] * len(people), 50)
    means = {"mAP": [], "rank-1": []}
    for weights in drawn:
        ap, first = [], []
        for person, times in zip(people, weights, strict=True):
            for query in np.flatnonzero(pids == person):
                if lost[query] and divisor == "valid":
                    continue
                ap += [0.0 if lost[query] else float(precisions[query].mean())] * times
                first += [float((hits[query] == 1).double().mean())] * times
        means["mAP"].append(sum(ap) / len(ap))
        means["rank-1"].append(sum(first) / len(first))
    found = scores.bootstrap(pids, repeats=50, seed=5)
    assert found == pytest.approx({name: np.std(values, ddof=1) for name, values in means.items()})
    assert scores.bootstrap(torch.from_numpy(pids), repeats=50, seed=6) != found


def test_bootstrap_of_many_people_is_the_textbook_standard_error():
    """One query a person: the standard deviation over people divided by the root of their number."""
    rules = ("plain", "none", "euclidean", None, "valid", 9)
    values, hits = torch.from_numpy(np.random.default_rng(0).random((500, 1))), torch.ones(500, 1, dtype=torch.long)
    found = RetrievalScores(values, hits, values, *rules).bootstrap(np.arange(500), repeats=4000)
    assert found["mAP"] == pytest.approx(values.std().item() / 500**0.5, rel=0.05) and found["rank-1"] == 0
    twice = RetrievalScores(values.repeat(2, 1), hits.repeat(2, 1), values.repeat(2, 1), *rules)
    assert twice.bootstrap(np.tile(np.arange(500), 2), repeats=4000) == pytest.approx(found)  # copies tell nothing new


def test_bootstrap_says_what_it_needs():
    one = torch.ones(3, 1)
    scores = RetrievalScores(one, one.long(), one, "plain", "none", "x", None, "valid", 9)
    with pytest.raises(ValueError, match=r"must be \[3\], one a query, got \(2,\)"):
        scores.bootstrap([1, 2])
    for pids, repeats in (([1, 1, 1], 1000), ([1, 2, 3], 1)):
        with pytest.raises(ValueError, match="2 people and 2 repeats, got"):
            scores.bootstrap(pids, repeats=repeats)
