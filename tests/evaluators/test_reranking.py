"""k-reciprocal re-ranking against the fact sheet's numbers and a dense slow loop over sets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.evaluators import distances, evaluate_retrieval, nearest_neighbours, neighbours, rerank, reranking

TOY = torch.tensor([[0.0]], dtype=torch.float64), torch.tensor([[1.0], [2.5], [4.6], [10.0]], dtype=torch.float64)


def dense(matrix, n_queries, k1, k2, lambda_value):
    """The classic algorithm on the whole matrix of distances [n, n], with sets of image numbers, image by image."""
    n = len(matrix)
    d = matrix / matrix.max(1, keepdims=True)
    own_first = matrix.copy()
    np.fill_diagonal(own_first, -np.inf)
    ranking = np.argsort(own_first, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in ranking[i, : k + 1].tolist() if i in ranking[j, : k + 1]}

    encoding = np.zeros((n, n))
    for i in range(n):
        first = reciprocal(i, k1)
        members = set(first)
        for j in first:
            candidate = reciprocal(j, int(np.around(k1 / 2)))
            if len(candidate & first) > 2 / 3 * len(candidate):
                members |= candidate
        members = sorted(members)
        encoding[i, members] = np.exp(-d[i, members])
        encoding[i] /= encoding[i].sum()
    if k2 > 1:
        encoding = np.stack([encoding[ranking[i, :k2]].mean(0) for i in range(n)])
    shared = np.stack([np.minimum(encoding[i], encoding[n_queries:]).sum(1) for i in range(n_queries)])
    return (1 - lambda_value) * (1 - shared / (2 - shared)) + lambda_value * d[:n_queries, n_queries:]


def squared(features):
    return ((features[:, None] - features[None]) ** 2).sum(-1)


def people(rng, n, d=8, n_people=12):
    return rng.normal(size=(n_people, d))[rng.integers(0, n_people, n)] + rng.normal(size=(n, d)) * 0.5


def whole(reranked):
    return reranked(torch.arange(reranked.shape[0])).numpy()


@pytest.mark.parametrize(
    "options, want",
    [
        (dict(k1=2, k2=1), [0.349216, 0.578926, 0.763480, 1.0]),
        (dict(k1=2, k2=2), [0.003, 0.368887, 0.624772, 0.937359]),
        (dict(k1=2, k2=2, lambda_value=1.0), [0.01, 0.0625, 0.2116, 1.0]),
    ],
)
def test_the_fact_sheets_numbers(options, want):
    np.testing.assert_allclose(whole(rerank(*TOY, **options))[0], want, atol=6e-7)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    q=st.integers(1, 30),
    g=st.integers(1, 90),
    k1=st.integers(1, 25),
    k2=st.integers(1, 12),
    lambda_value=st.sampled_from([0.0, 0.3, 1.0]),
    rows=st.integers(1, 40),
)
def test_equals_the_dense_algorithm_however_it_is_cut(seed, q, g, k1, k2, lambda_value, rows):
    features = people(np.random.default_rng(seed), q + g)
    matrix = squared(features)
    want = dense(matrix, q, k1, k2, lambda_value)
    options = dict(k1=k1, k2=k2, lambda_value=lambda_value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "_BLOCK_ELEMENTS", rows * (q + g))
        patch.setattr(distances, "_LEAST_ROWS", 2)
        np.testing.assert_allclose(whole(rerank(features[:q], features[q:], **options)), want, atol=1e-9)
        custom = rerank(None, None, distance=lambda r: matrix[r.numpy()], shape=(q, g), **options)
        np.testing.assert_allclose(whole(custom), want, atol=1e-9)


@pytest.mark.parametrize("by_identity", [False, True])
def test_equals_the_dense_algorithm_in_float32_at_the_usual_settings(rng, monkeypatch, by_identity):
    features = people(rng, 700, 64, 40).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    if by_identity:  # neighbours come late or all at once: the comparison with the limit lets much through
        features = features[np.argsort(features[:, 0])]
    monkeypatch.setattr(distances, "_BLOCK_ELEMENTS", 700 * 100)
    reranked = rerank(features[:150], features[150:])
    got = whole(reranked)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, dense(squared(features.astype(np.float64)), 150, 20, 6, 0.3), atol=1e-6)
    cosine = whole(rerank(features[:150] * 3, features[150:] * 3, distance="cosine"))
    np.testing.assert_allclose(cosine, got, atol=1e-6)


@pytest.mark.parametrize("length", [1e-3, 0.1, 30.0])
def test_cosine_does_not_see_the_length_of_the_features(rng, length):
    features = people(rng, 120)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    scaled = features * rng.uniform(0.5, 2, (120, 1)) * length
    got = whole(rerank(scaled[:30], scaled[30:], distance="cosine"))
    np.testing.assert_allclose(got, dense(squared(unit), 30, 20, 6, 0.3), atol=1e-9)


@pytest.mark.parametrize("k1, k2", [(20, 6), (7, 3), (3, 2)])
def test_both_ways_of_finding_the_nearest_agree(rng, monkeypatch, k1, k2):
    features = people(rng, 400)
    monkeypatch.setattr(distances, "_BLOCK_ELEMENTS", 400 * 30)
    want = whole(rerank(features[:50], features[50:], k1=k1, k2=k2))
    monkeypatch.setattr(reranking, "_FEW", np.inf)  # selection in every row, as on a GPU
    np.testing.assert_array_equal(whole(rerank(features[:50], features[50:], k1=k1, k2=k2)), want)
    monkeypatch.setattr(reranking, "_FEW", 0)  # comparison always
    np.testing.assert_array_equal(whole(rerank(features[:50], features[50:], k1=k1, k2=k2)), want)


@pytest.mark.parametrize("few", [0, 16, np.inf])
def test_equal_distances_keep_the_order_of_the_images(rng, monkeypatch, few):
    features = rng.integers(0, 3, (60, 2)).astype(np.float64)  # many copies: but oneself comes first
    monkeypatch.setattr(distances, "_BLOCK_ELEMENTS", 60 * 16)
    monkeypatch.setattr(reranking, "_FEW", few)
    got = whole(rerank(features[:10], features[10:], k1=7, k2=3))
    np.testing.assert_allclose(got, dense(squared(features), 10, 7, 3, 0.3), atol=1e-9)


def test_blocks_of_any_rows_equal_the_whole(rng):
    features = people(rng, 120)
    reranked = rerank(features[:40], features[40:])
    matrix = reranked(torch.arange(40))
    for rows in ([3, 4, 5], [39, 0, 7, 7], [11]):
        torch.testing.assert_close(reranked(torch.tensor(rows)), matrix[rows], rtol=0, atol=1e-12)
    torch.testing.assert_close(reranked(torch.arange(40)), matrix, rtol=0, atol=0)  # nothing changed in between


def test_permuting_the_gallery_permutes_the_columns(rng):
    features = people(rng, 150)
    order = rng.permutation(110)
    straight, permuted = (whole(rerank(features[:40], g)) for g in (features[40:], features[40:][order]))
    np.testing.assert_allclose(permuted, straight[:, order], atol=1e-12)


def test_junk_takes_no_part_and_keeps_its_column(rng):
    features = people(rng, 120)
    query, gallery = features[:30], features[30:]
    pids = rng.choice([-3, -1, 0, 1, 2, 3], 90)  # only junk stays out, not distractors and person 0
    want = whole(rerank(query, gallery[pids != -1], k1=8, k2=3))
    matrix = squared(features)
    options = dict(k1=8, k2=3, gallery_pids=pids)
    custom = rerank(None, None, distance=lambda r: matrix[r.numpy()], shape=(30, 90), **options)
    for got in (whole(rerank(query, gallery, **options)), whole(custom)):
        assert np.isinf(got[:, pids == -1]).all()
        np.testing.assert_allclose(got[:, pids != -1], want, atol=1e-9)


def test_scores_and_neighbours_take_it_as_a_distance(rng):
    centres = rng.normal(size=(30, 12))
    pids = np.repeat(np.arange(1, 31), 8)
    features = centres[pids - 1] + rng.normal(size=(240, 12)) * 1.1
    camids = np.tile(np.arange(8) % 4, 30)
    is_query = np.arange(240) % 8 == 0
    ids = dict(
        query_pids=pids[is_query], query_camids=camids[is_query],
        gallery_pids=pids[~is_query], gallery_camids=camids[~is_query],
    )  # fmt: skip
    reranked = rerank(features[is_query], features[~is_query], k1=8, k2=3)
    after = evaluate_retrieval(None, None, **ids, distance=reranked)
    before = evaluate_retrieval(features[is_query], features[~is_query], **ids)
    assert after.mAP > before.mAP + 0.02  # people seen eight times: what re-ranking is for
    found = nearest_neighbours(None, None, 5, distance=reranked, shape=reranked.shape)
    matrix = reranked(torch.arange(30))
    assert torch.equal(found.indices, matrix.sort(dim=1, stable=True).indices[:, :5])
    assert neighbours.Neighbours is type(found)


def test_a_distance_may_be_negative_and_all_zero(rng):
    features = people(rng, 60)
    matrix = squared(features) - 0.5  # XQDA's may be negative
    np.fill_diagonal(matrix, 0)
    got = whole(rerank(None, None, k1=5, k2=2, distance=lambda r: matrix[r.numpy()], shape=(10, 50)))
    np.testing.assert_allclose(got, dense(matrix, 10, 5, 2, 0.3), atol=1e-9)
    same = whole(rerank(np.ones((2, 3)), np.ones((4, 3)), k1=5, k2=1))  # everyone is everyone's neighbour
    np.testing.assert_allclose(same, 0, atol=1e-12)


def test_the_callers_features_stay_as_they_are(rng):
    query, gallery = torch.from_numpy(people(rng, 5)), torch.from_numpy(people(rng, 20))
    copies = query.clone(), gallery.clone()
    matrix = torch.from_numpy(squared(torch.cat([query, gallery]).numpy()))
    matrix_copy = matrix.clone()
    whole(rerank(query, gallery, distance="cosine"))
    whole(rerank(None, None, distance=lambda r: matrix[int(r[0]) : int(r[-1]) + 1], shape=(5, 20)))
    assert torch.equal(query, copies[0]) and torch.equal(gallery, copies[1]) and torch.equal(matrix, matrix_copy)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(k1=0), "k1=0"),
        (dict(k2=1.5), "k2=1.5"),
        (dict(lambda_value=1.2), "lambda_value=1.2"),
        (dict(distance="manhattan"), "manhattan"),
        (dict(distance=lambda rows: None), "needs shape"),
        (dict(gallery_pids=[1, 2]), r"gallery_pids must be integers \[4\]"),
        (dict(gallery_pids=[-1, -1, -1, -1]), "all 4 gallery images are junk"),
        (dict(gallery_features=None), "gallery_features is None"),
        (dict(gallery_features=torch.zeros(4, 2)), "1 dimensions, gallery features 2"),
        (dict(gallery_features=torch.tensor([[1.0], [torch.nan], [2.0], [3.0]])), "NaN"),
        (dict(distance=lambda rows: torch.full((len(rows), 5), torch.inf), shape=(1, 4)), "infinite"),
        (dict(distance=lambda rows: torch.zeros(len(rows), 4), shape=(1, 4)), r"distance gave \(5, 4\)"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = dict(query_features=TOY[0], gallery_features=TOY[1]) | change
    with pytest.raises(ValueError, match=message):
        rerank(arguments.pop("query_features"), arguments.pop("gallery_features"), **arguments)


@pytest.mark.parametrize("rows", [torch.tensor([0.0]), torch.tensor([1]), torch.tensor([-1]), torch.tensor([[0]])])
def test_query_rows_are_checked(rows):
    with pytest.raises(ValueError, match="query rows"):
        rerank(*TOY, k1=2)(rows)
