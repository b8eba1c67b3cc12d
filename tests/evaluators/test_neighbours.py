"""Nearest neighbours against a stable sort of the whole matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.evaluators import distances, evaluate_retrieval, ignored_images, nearest_neighbours


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), q=st.integers(1, 7), g=st.integers(1, 20), levels=st.integers(1, 4), data=st.data())
def test_equals_a_stable_sort(seed, q, g, levels, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, g))
    query, gallery = (torch.from_numpy(rng.integers(0, levels, (n, 2))).float() for n in (q, g))
    matrix = ((query[:, None] - gallery[None]) ** 2).sum(-1)
    want = matrix.sort(dim=1, stable=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "_BLOCK_ELEMENTS", 30)
        patch.setattr(distances, "_LEAST_ROWS", 2)
        found = nearest_neighbours(query, gallery, k)
        custom = nearest_neighbours(None, None, k, distance=lambda rows: matrix[rows], shape=(q, g))
    assert torch.equal(found.indices, want.indices[:, :k])
    torch.testing.assert_close(found.distances, want.values[:, :k].sqrt())
    assert torch.equal(custom.indices, found.indices) and torch.equal(custom.distances, want.values[:, :k])


def test_excluding_oneself_by_number_and_by_mask(rng):
    features = torch.from_numpy(rng.normal(size=(20, 5))).float()
    by_number = nearest_neighbours(features, features, 3, exclude=torch.arange(20))
    by_mask = nearest_neighbours(features, features, 3, exclude=torch.eye(20, dtype=torch.bool))
    assert torch.equal(by_number.indices, by_mask.indices)
    assert torch.equal(by_number.indices, nearest_neighbours(features, features, 4).indices[:, 1:])
    everything = nearest_neighbours(features[:2], features[:2], 2, exclude=torch.tensor([-1, 1]))
    assert everything.indices.tolist() == [[0, 1], [0, 1]]
    assert everything.distances[1, 1] == torch.inf and everything.distances[0, 0] == 0


def test_cosine_is_one_minus_cos():
    found = nearest_neighbours(
        torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0], [-1.0, 0.0], [5.0, 0.0]]), 3, distance="cosine"
    )
    assert found.indices.tolist() == [[2, 0, 1]]
    assert found.distances.tolist() == [[0.0, 1.0, 2.0]]


def test_chunks_are_as_few_and_as_equal_as_memory_allows():
    most = distances._BLOCK_ELEMENTS
    assert list(distances.row_chunks(64, most // 32)) == [(0, 32), (32, 64)]
    assert list(distances.row_chunks(65, most // 32)) == [(0, 22), (22, 44), (44, 65)]
    assert list(distances.row_chunks(32, most)) == [(0, 16), (16, 32)]  # never fewer than 16 at once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(k=0), "k=0"),
        (dict(k=21), "1 to 20"),
        (dict(k=1, exclude=torch.zeros(3, dtype=torch.bool)), "exclude must be"),
        (dict(k=1, exclude=torch.full((4,), 20)), "20 to 20 of 20"),
        (dict(k=1, exclude=torch.full((4,), -2)), "-2 to -2 of 20"),
        (dict(k=1, distance="manhattan"), "manhattan"),
        (dict(k=1, distance=lambda rows: rows), "shape="),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(torch.zeros(4, 2), torch.zeros(20, 2), **options)


def test_ignored_images_are_those_that_the_evaluation_leaves_out():
    """A ranking without the ignored images has its first hit where `evaluate_retrieval` finds it, under every rule."""
    generator = torch.Generator().manual_seed(3)
    query, gallery = (torch.randn(n, 4, generator=generator) for n in (30, 200))
    ids = {
        "query_pids": torch.randint(0, 9, (30,), generator=generator),
        "query_camids": torch.randint(1, 4, (30,), generator=generator),
        "gallery_pids": torch.tensor([-3, -1, *range(9)])[torch.randint(11, (200,), generator=generator)],
        "gallery_camids": torch.randint(1, 4, (200,), generator=generator),
    }
    for rule in ("cross_camera", "separate_views", "none"):
        ignored = ignored_images(**ids, camera_rule=rule)
        found = nearest_neighbours(query, gallery, 200, exclude=ignored).indices
        hits = (ids["gallery_pids"][found] == ids["query_pids"][:, None]).int()
        expected = evaluate_retrieval(query, gallery, **ids, camera_rule=rule).first_hits[:, 0]
        assert torch.equal(hits.argmax(1) + 1, expected)
    with pytest.raises(ValueError, match="cross_camera"):
        ignored_images(**ids, camera_rule="same")


def test_a_query_of_nobody_has_no_own_images():
    """Distractors, junk and unlabelled images share a pid, but are no person: no camera rule of persons applies."""
    for pid in (-1, -2, -3):
        ignored = ignored_images(
            query_pids=[pid], query_camids=[1], gallery_pids=[-3, -2, -1, 0, 4], gallery_camids=[1, 1, 1, 1, 1]
        )
        assert ignored.tolist() == [[False, False, True, False, False]]
    own = ignored_images(query_pids=[0], query_camids=[1], gallery_pids=[-3, 0, 0], gallery_camids=[1, 1, 2])
    assert own.tolist() == [[False, True, False]]
