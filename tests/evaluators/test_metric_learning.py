"""XQDA and KISSME against the fact sheet's hand values and the enumeration of all pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.evaluators import evaluate_retrieval, metric_learning, rerank
from reidlib.evaluators.metric_learning import (
    KISSME,
    XQDA,
    camera_covariances,
    kissme_metric,
    two_views,
    view_covariances,
    xqda_space,
)


def people(rng, n=120, d=6, n_people=10, n_cameras=3):
    pids, camids = rng.integers(0, n_people, n), rng.integers(1, n_cameras + 1, n)
    spread = np.linspace(0.3, 2, d)
    return rng.normal(size=(n_people, d))[pids] * 2 + rng.normal(size=(n, d)) * spread + 5, pids, camids


def mean_outer(differences):
    return np.mean([np.outer(x, x) for x in differences], axis=0)


def differences_across_cameras(x, pids, camids):
    """List the differences of all pairs from two cameras: of one person, and of two."""
    pairs = [(i, j) for i in range(len(x)) for j in range(i) if camids[i] != camids[j]]
    same = [x[i] - x[j] for i, j in pairs if pids[i] == pids[j]]
    return same, [x[i] - x[j] for i, j in pairs if pids[i] != pids[j]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 15), m=st.integers(3, 15), d=st.integers(1, 5))
def test_sums_over_classes_equal_the_enumeration_of_pairs_of_two_views(seed, n, m, d):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(n, d)) + 3, rng.normal(size=(m, d)) + 3
    a, b = rng.integers(0, 4, n), rng.integers(0, 4, m)
    a[0] = b[0]
    b[1] = b[0] + 1
    got = view_covariances(x, z, a, b)
    same = [x[i] - z[j] for i in range(n) for j in range(m) if a[i] == b[j]]
    other = [x[i] - z[j] for i in range(n) for j in range(m) if a[i] != b[j]]
    assert (got.n_similar, got.n_dissimilar) == (len(same), len(other))
    np.testing.assert_allclose(got.similar, mean_outer(same), atol=1e-8)
    np.testing.assert_allclose(got.dissimilar, mean_outer(other), atol=1e-8)


def test_drawn_pairs_are_as_many_seeded_and_of_the_right_kind(rng, monkeypatch):
    x, pids, camids = people(rng, 60)
    same, _ = differences_across_cameras(x, pids, camids)
    got = camera_covariances(x, pids, camids, seed=3)
    assert got.n_dissimilar == got.n_similar == len(same)
    np.testing.assert_allclose(got.similar, mean_outer(same), atol=1e-8)
    np.testing.assert_array_equal(got.dissimilar, camera_covariances(x, pids, camids, seed=3).dissimilar)
    assert not np.allclose(got.dissimilar, camera_covariances(x, pids, camids, seed=4).dissimilar)
    # one feature for the person and one for the camera: every difference of a dissimilar pair is not 0 in both
    told = camera_covariances(np.stack([pids * 1.0, camids * 1.0], 1), pids, camids)
    assert abs(told.similar[0, 0]) < 1e-12 and told.similar[1, 1] >= 1 and np.diag(told.dissimilar).min() >= 1
    two = np.arange(60) % 2  # of two cameras every pair is exactly 1 apart
    told = camera_covariances(np.stack([pids * 1.0, two * 1.0], 1), pids, two)
    assert told.dissimilar[1, 1] == pytest.approx(1) and told.similar[1, 1] == pytest.approx(1)
    monkeypatch.setattr(metric_learning, "DRAWS", 50)
    assert 1 <= camera_covariances(x, pids, camids).n_dissimilar < 50


def test_drawn_pairs_approach_all_pairs():
    x, pids, camids = people(np.random.default_rng(1), 2000, d=3, n_people=50)
    got = camera_covariances(x, pids, camids)
    assert got.n_dissimilar > 20_000
    chosen = np.random.default_rng(0).permutation(2000)[:500]  # all pairs of these stand for all pairs
    every = mean_outer(differences_across_cameras(x[chosen], pids[chosen], camids[chosen])[1])
    np.testing.assert_allclose(got.dissimilar, every, atol=0.03 * np.trace(every))


def test_defaults_are_those_of_the_fact_sheet(rng):
    kissme, xqda = KISSME(), XQDA()
    assert (kissme.dims, kissme.ridge, kissme.seed) == (128, 1e-6, 0)
    assert (xqda.ridge, xqda.solver, xqda.dims, xqda.seed) == (1e-3, "svd", None, 0)
    x, pids, camids = people(rng)
    for learner in (KISSME, XQDA):
        one, other, again = (learner(seed=seed).fit(x, pids, camids).metric for seed in (0, 1, 0))
        assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_kissme_hand_values():
    one = kissme_metric([[1.0]], [[4.0]])
    assert one.item() == 0.75 and 2 * one.item() * 2 == 3
    both = np.diag([1.0, 4.0]), np.diag([4.0, 4.0])
    np.testing.assert_allclose(kissme_metric(*both), np.diag([0.75, 1e-6]), atol=1e-15)
    np.testing.assert_allclose(kissme_metric(np.eye(2), np.diag([2.0, 4.0])), np.diag([0.5, 0.75]), atol=1e-15)
    clipped = kissme_metric(np.eye(2), np.diag([0.5, 2.0]))  # 1 - 2 < 0
    np.testing.assert_allclose(clipped, np.diag([1e-6, 0.5]), atol=1e-15)


@pytest.mark.parametrize("solver", ["svd", "eig"])
def test_xqda_hand_values(solver):
    learned = XQDA(solver=solver).fit_views([[0.0], [10.0]], [[1.0], [11.0]], [1, 2], [1, 2])
    assert learned.latent[0] == pytest.approx(100.8991, abs=1e-4)
    distance = learned.distance([[0.0]], [[0.0], [1.0], [2.0]])(torch.tensor([0]))
    np.testing.assert_allclose(distance[0], np.array([0, 1, 4]) * 0.989100, atol=4e-6)
    flat = dict(x=[[0.0, 0], [4, 0]], z=[[1.0, 0], [5, 0]], x_labels=[1, 2], z_labels=[1, 2])
    pairs = view_covariances(**flat)
    np.testing.assert_allclose(pairs.similar, np.diag([1.0, 0]), atol=1e-12)
    np.testing.assert_allclose(pairs.dissimilar, np.diag([17.0, 0]), atol=1e-12)
    learned = XQDA(solver=solver).fit_views(**flat)
    assert learned.projection.shape == (2, 1) and abs(learned.projection[1, 0]) < 1e-12
    far = learned.distance([[0.0, 0.0]], [[1.0, 100.0]])(torch.tensor([0])).item()
    assert far == pytest.approx(0.940177, abs=1e-6)


def test_xqda_keeps_the_directions_above_one_or_as_many_as_asked():
    intra, extra = np.diag([1.0, 2.0, 1.0, 4.0]), np.diag([0.5, 6.0, 9.0, 4.4])
    for solver in ("svd", "eig"):
        space = xqda_space(intra, extra, solver=solver)
        np.testing.assert_allclose(space.latent, [9, 3, 1.1])
        np.testing.assert_allclose(np.abs(space.basis[[2, 1, 3], [0, 1, 2]]) > 0.4, True)
        assert xqda_space(intra, extra, solver=solver, dims=2).metric.shape == (2, 2)
    assert xqda_space(np.eye(2), np.diag([0.5, 0.25])).latent.tolist() == [0.5]  # one at least


def test_solvers_agree_where_the_covariances_commute_and_differ_elsewhere(rng):
    x, pids, camids = people(rng, 300, d=5, n_people=25)
    svd, eig = (XQDA(solver=solver, dims=5).fit(x, pids, camids) for solver in ("svd", "eig"))
    rows = torch.arange(4)  # all directions kept: any basis gives the same metric
    np.testing.assert_allclose(svd.distance(x[:4], x)(rows), eig.distance(x[:4], x)(rows), atol=1e-8)
    svd, eig = (XQDA(solver=solver, dims=2).fit(x, pids, camids) for solver in ("svd", "eig"))
    assert not np.allclose(svd.distance(x[:4], x)(rows), eig.distance(x[:4], x)(rows))


@pytest.mark.parametrize("solver", ["svd", "eig"])
def test_more_dimensions_than_images_give_what_the_full_space_gives(rng, solver):
    x, z = (rng.normal(size=(8, 40)) + np.repeat(rng.normal(size=(4, 40)), 2, 0) for _ in range(2))
    labels = np.repeat(np.arange(4), 2)
    pairs = view_covariances(x, z, labels, labels)
    space = xqda_space(pairs.similar + 0.001 * np.eye(40), pairs.dissimilar, solver=solver)
    metric = space.basis @ space.metric @ space.basis.T
    learned = XQDA(solver=solver).fit_views(x, z, labels, labels)
    query, gallery = rng.normal(size=(3, 40)), rng.normal(size=(5, 40))
    difference = query[:, None] - gallery
    want = np.einsum("qgd,de,qge->qg", difference, metric, difference)
    got = learned.distance(query, gallery)(torch.arange(3)).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("learner", [KISSME(dims=4), KISSME(dims=None, seed=1), XQDA(), XQDA(dims=3)])
def test_distance_is_the_quadratic_form_in_every_block(rng, learner):
    x, pids, camids = people(rng)
    copy = x.copy()
    learner.fit(x, pids, camids)
    query, gallery = x[:20], rng.normal(size=(30, 6)) + 5
    matrix = learner.projection @ learner.metric @ learner.projection.T
    difference = query[:, None] - gallery
    want = np.einsum("qgd,de,qge->qg", difference, matrix, difference)
    block = learner.distance(query, gallery)
    np.testing.assert_allclose(block(torch.arange(20)), want, atol=1e-9 * np.abs(want).max())
    np.testing.assert_allclose(block(torch.tensor([7, 3])), want[[7, 3]], atol=1e-9 * np.abs(want).max())
    single = learner.distance(query.astype(np.float32), torch.from_numpy(gallery).float())(torch.arange(20))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_array_equal(x, copy)


def test_kissme_reduces_by_principal_components_and_survives_few_images(rng):
    x, pids, camids = people(rng, d=6)
    learned = KISSME(dims=2).fit(x, pids, camids)
    axes = np.linalg.svd(x - x.mean(0))[2][:2]
    np.testing.assert_allclose(np.abs(np.sum(learned.projection.T * axes, 1)), 1, atol=1e-9)
    assert np.linalg.eigvalsh(learned.metric)[0] > 0
    wide = KISSME(dims=128).fit(np.pad(x, ((0, 0), (0, 300))), pids, camids)
    assert wide.projection.shape == (306, 6)  # what never varies is left out


def test_two_views_pair_halves_of_each_person_from_two_cameras(rng):
    _, pids, camids = people(rng, 200)
    first, second = two_views(pids, camids, seed=5)
    assert (pids[first] == pids[second]).all() and (camids[first] != camids[second]).all()
    assert len(np.unique([first, second])) == 2 * len(first)  # nobody twice
    halves = np.bincount(pids) // 2
    assert 0.4 * halves.sum() < len(first) < 0.9 * halves.sum()  # two thirds expected of three cameras
    assert all((a == b).all() for a, b in zip(two_views(pids, camids, seed=5), (first, second), strict=True))
    assert not np.array_equal(two_views(pids, camids, seed=6)[0], first)


def test_learned_distances_beat_the_euclidean_and_go_through_re_ranking():
    rng = np.random.default_rng(2)
    n_people, noise = 60, np.r_[np.full(4, 0.5), np.full(12, 5.0)]  # most dimensions tell nothing
    pids, camids = np.repeat(np.arange(n_people), 8), np.tile(np.arange(8) % 4, n_people)
    x = np.pad(rng.normal(size=(n_people, 4)), ((0, 0), (0, 12)))[pids] + rng.normal(size=(len(pids), 16)) * noise
    trained = pids < 30
    is_query = ~trained & (np.arange(len(pids)) % 8 == 0)
    in_gallery = ~trained & ~is_query
    ids = dict(
        query_pids=pids[is_query], query_camids=camids[is_query],
        gallery_pids=pids[in_gallery], gallery_camids=camids[in_gallery],
    )  # fmt: skip
    before = evaluate_retrieval(x[is_query], x[in_gallery], **ids).mAP
    everyone = np.concatenate([x[is_query], x[in_gallery]])
    for learner in (KISSME(), XQDA()):
        learner.fit(x[trained], pids[trained], camids[trained])
        after = evaluate_retrieval(None, None, distance=learner.distance(x[is_query], x[in_gallery]), **ids).mAP
        assert after > before + 0.2
        shape = int(is_query.sum()), int(in_gallery.sum())
        reranked = rerank(None, None, k1=8, k2=3, distance=learner.distance(everyone, everyone), shape=shape)
        assert evaluate_retrieval(None, None, distance=reranked, **ids).mAP > after


SIX = np.random.default_rng(0).normal(size=(6, 2))


@pytest.mark.parametrize("learner", [KISSME(dims=None), XQDA()])
@pytest.mark.parametrize(
    "change, message",
    [
        (dict(camids=[1] * 6), "at least two different cameras"),
        (dict(pids=[4] * 6), "at least two different identities"),
        (dict(pids=[1, 1, 1, 2, 2, 2], camids=[1, 1, 1, 2, 2, 2]), "no pair of one person in two cameras"),
        (dict(pids=[-2, 1, 1, 2, 2, 2]), "smallest pid -2"),
        (dict(camids=[-1, 1, 1, 2, 2, 2]), "camid -1"),
        (dict(pids=[1, 2]), r"pids must be integers \[6\]"),
        (dict(features=[[1.0]] * 5 + [[np.nan]]), "NaN or infinite values in row 5"),
        (dict(features=[[1.0]] * 5 + [[np.inf]]), "NaN or infinite values in row 5"),
        (dict(pids=[2**63, 1, 1, 2, 2, 2]), "pids must be integers"),
        (dict(features=None), "features is None"),
    ],
)
def test_bad_training_data_is_named(learner, change, message):
    data = dict(features=SIX, pids=[1, 1, 2, 2, 3, 3], camids=[1, 2, 1, 2, 1, 2]) | change
    with pytest.raises(ValueError, match=message):
        learner.fit(**data)


def test_singular_covariances_and_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"similar pairs is singular \(rank 1 of 2\)"):
        kissme_metric(np.diag([1.0, 0.0]), np.eye(2))
    with pytest.raises(ValueError, match="singular"):
        XQDA(ridge=0).fit_views([[0.0, 0], [4, 0]], [[1.0, 0], [5, 0]], [1, 2], [1, 2])
    with pytest.raises(ValueError, match="different labels"):
        view_covariances(SIX, SIX, [1] * 6, [1] * 6)
    with pytest.raises(ValueError, match="one label across"):
        view_covariances(SIX, SIX, [1] * 6, [2] * 6)
    with pytest.raises(ValueError, match="2 dimensions, z has 1"):
        XQDA().fit_views(SIX, SIX[:, :1], [1] * 6, [2] * 6)
    with pytest.raises(ValueError, match=r"solver must be one of .*got 'qr'"):
        xqda_space(np.eye(2), np.eye(2), solver="qr")
    with pytest.raises(ValueError, match="dims=3"):
        xqda_space(np.eye(2), np.eye(2), dims=3)
    with pytest.raises(ValueError, match="not been fitted"):
        XQDA().distance(SIX, SIX)
    with pytest.raises(ValueError, match="features have 1 dimensions, fitted were 2"):
        KISSME().fit(SIX, [1, 1, 2, 2, 3, 3], [1, 2] * 3).distance(SIX[:, :1], SIX)
    with pytest.raises(ValueError, match="NaN or infinite values in row 1"):
        KISSME().fit(SIX, [1, 1, 2, 2, 3, 3], [1, 2] * 3).distance(SIX, [[0.0, 0.0], [np.inf, 0.0]])
    for learner in (KISSME, XQDA):
        for wrong in (dict(dims=0), dict(ridge=-1)):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                learner(**wrong)
