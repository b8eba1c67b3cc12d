"""Validation people: a benchmark cut from the training set by identity."""

import pytest
import torch

from reidlib.datasets import Benchmark, PersonImages, Protocol
from reidlib.datasets.person_images import DISTRACTOR, JUNK
from reidlib.evaluators import evaluate_retrieval


def bench(protocol=None, *, alone=0, people=6):
    """Pids 10, 11, ... in cameras 1 to 3, two images each; the first `alone` of them in camera 1 only; two nobodies."""
    who = [(10 + p, c) for p in range(people) for c in ((1,) if p < alone else (1, 2, 3)) for _ in range(2)]
    pids, camids = zip(*who, (JUNK, 2), (DISTRACTOR, 3), strict=True)
    pixels = torch.arange(len(pids), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 4).contiguous()
    train = PersonImages(pixels, pids, camids)
    test = PersonImages(pixels[:1], [99], [1])
    return Benchmark("toy", train, test, test, test, protocol or Protocol(ap="trapezoid"))


def held_out(cut):
    return set(cut.gallery.pids.tolist())


def test_people_are_cut_by_identity_and_the_rest_trains():
    whole = bench()
    cut = whole.validation(2, seed=3)
    assert (cut.name, cut.protocol, cut.multi_query) == ("toy, validation", whole.protocol, None)
    assert len(held_out(cut)) == 2 and all(pid >= 10 for pid in held_out(cut))
    assert not held_out(cut) & set(cut.train.pids.tolist())
    assert {JUNK, DISTRACTOR} < set(cut.train.pids.tolist())
    assert sorted(cut.train.names + cut.gallery.names) == sorted(whole.train.names)
    kept = [name for name in whole.train.names if name in cut.gallery.names]
    assert cut.gallery.names == kept  # in the training set's order
    assert len(whole.train) == 38 and whole.query.pids.tolist() == [99]  # the benchmark itself stays


def test_one_query_a_person_and_camera_and_every_query_has_a_match():
    cut = bench().validation(4)
    assert sorted(zip(cut.query.pids.tolist(), cut.query.camids.tolist(), strict=True)) == [
        (pid, camid) for pid in sorted(held_out(cut)) for camid in (1, 2, 3)
    ]
    assert set(cut.query.names) < set(cut.gallery.names)
    sides = {f"{side}_{k}": getattr(getattr(cut, side), k) for side in ("query", "gallery") for k in ("pids", "camids")}
    features = [getattr(cut, side).images.float().mean((2, 3)) for side in ("query", "gallery")]
    scores = evaluate_retrieval(*features, **sides, **cut.protocol.arguments())
    assert scores.n_valid == scores.n_queries == 12


def test_the_seed_draws_people_and_queries():
    whole = bench()
    names = {seed: (whole.validation(3, seed=seed).query.names) for seed in range(8)}
    assert names[5] == whole.validation(3, seed=5).query.names
    assert len({tuple(n) for n in names.values()}) == 8
    assert set().union(*(held_out(whole.validation(1, seed=seed)) for seed in range(60))) == set(range(10, 16))
    drawn = {name for seed in range(20) for name in whole.validation(4, seed=seed).query.names}
    assert len(drawn) == 36  # every image of a person asks under some seed


def test_nothing_is_copied():
    whole = bench()
    cut = whole.validation(2)
    for part in cut.subsets().values():
        assert part._parts[0]["images"].data_ptr() == whole.train.images.data_ptr()


def test_people_of_one_camera_stay_in_training():
    whole = bench(alone=4)
    assert held_out(whole.validation(2)) == {14, 15}
    message = r"identities=3, 6 people in toy's training set, 2 of them seen by two cameras or more"
    with pytest.raises(ValueError, match=message):
        whole.validation(3)
    with pytest.raises(ValueError, match="0 of them seen by two cameras"):
        bench(alone=6).validation(1)


@pytest.mark.parametrize("identities", [0, -1, 5, 24])
def test_too_few_people_are_refused(identities):
    with pytest.raises(ValueError, match=rf"leaves two or more to train.*got identities={identities}, 6 people"):
        bench().validation(identities)


def test_without_a_camera_rule_queries_would_find_themselves():
    with pytest.raises(ValueError, match="camera_rule='none'"):
        bench(Protocol(camera_rule="none")).validation(2)
