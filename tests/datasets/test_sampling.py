import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.datasets import PersonImages, extend
from reidlib.datasets.sampling import (
    Batches,
    class_labels,
    mixed_batches,
    pair_batches,
    pk_batches,
    same_identity_pairs,
    seeded,
    target_pairs,
    two_pair_batches,
    uniform_batches,
    usable_pairs,
)

TOY = torch.tensor([1] * 5 + [2] * 4 + [3] * 2)  # the sheet's counts A5, B4, C2


def people(pids, camids=None) -> PersonImages:
    n = len(pids)
    images = torch.arange(n).to(torch.uint8)[:, None, None, None].expand(n, 3, 8, 4).contiguous()
    return PersonImages(images, pids, camids or [1 + i % 3 for i in range(n)])


def epoch_of(batches: Batches, epoch: int = 0) -> list[torch.Tensor]:
    return [batches.rows(epoch * len(batches) + step) for step in range(len(batches))]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 300), size=st.integers(1, 64), seed=st.integers(0, 5))
def test_uniform_shows_every_image_once_an_epoch(n, size, seed):
    sampler = uniform_batches(n, size)
    rows = sampler.draw(seeded(seed))
    odd = size == 2 and n % 2 == 1 and n > 1  # one batch fewer, so that none has a single image
    assert len(rows) == sampler.steps == -(-n // size) - odd
    assert sorted(torch.cat(rows).tolist()) == list(range(n))
    lengths = [len(r) for r in rows]
    assert max(lengths) <= size + odd and max(lengths) - min(lengths) <= 1
    assert min(lengths) > 1 or n == 1 or size == 1


@pytest.mark.parametrize(("n", "size", "lengths"), [(5, 2, [3, 2]), (3, 2, [3]), (7, 2, [3, 2, 2]), (1, 2, [1]),
                                                    (3, 1, [1, 1, 1]), (6, 2, [2, 2, 2]), (4, 3, [2, 2])])  # fmt: skip
def test_no_batch_of_one_where_more_were_asked_for(n, size, lengths):
    pairs = torch.arange(2 * n).reshape(n, 2)
    for sampler in (uniform_batches(n, size), pair_batches(pairs, size), two_pair_batches(torch.arange(n) // 2, size)):
        assert [len(rows) for rows in sampler.draw(seeded(0))] == lengths and sampler.steps == len(lengths)
    few = pair_batches(torch.arange(40).reshape(20, 2), size, pairs_per_epoch=n)
    assert [len(rows) for rows in few.draw(seeded(0))] == lengths


def test_batch_norm_takes_every_batch_of_an_odd_set():
    batches = Batches(people([1] * 5), uniform_batches(5, 2))
    norm = torch.nn.BatchNorm1d(3).train()
    for step in range(len(batches)):
        norm(batches(step)["images"][:, :, 0, 0].float())


def test_uniform_drop_last():
    rows = uniform_batches(10, 4, drop_last=True).draw(seeded(0))
    assert [len(r) for r in rows] == [4, 4] and torch.cat(rows).unique().numel() == 8
    with pytest.raises(ValueError, match="3 images make no batch of 4"):
        uniform_batches(3, 4, drop_last=True)


@pytest.mark.parametrize("seed", range(20))
def test_pk_toy_of_the_sheet(seed):
    """Estimate 12, emitted 8: one batch of two identities, since the third is left alone."""
    sampler = pk_batches(TOY, p=2, k=4)
    rows = sampler.draw(seeded(seed))
    assert sampler.steps == 1 and sum(len(r) for r in rows) == 8


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=3, max_size=9), p=st.integers(1, 3), k=st.integers(1, 5),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_pk_batches_have_p_identities_with_k_images(counts, p, k, seed):
    pids = torch.cat([torch.full((c,), 10 * (i + 1)) for i, c in enumerate(counts)] + [torch.tensor([-1, -2])])
    sampler = pk_batches(pids, p, k)
    rows = sampler.draw(seeded(seed))
    assert len(rows) == sampler.steps >= 1
    for row in rows:
        drawn, each = pids[row].unique(return_counts=True)
        assert len(drawn) == p and each.tolist() == [k] * p and (drawn > 0).all()
        for pid in drawn:
            members = row[pids[row] == pid]
            if (pids == pid).sum() >= k:  # without replacement where there are enough
                assert members.unique().numel() == k
            assert torch.equal(pids[row].view(p, k)[:, :1].expand(p, k), pids[row].view(p, k))


def test_one_pk_pass_uses_each_image_once_at_most_and_is_at_most_the_estimate():
    pids = torch.repeat_interleave(torch.arange(1, 21), torch.randint(2, 15, (20,), generator=seeded(1)))
    rows = torch.cat(pk_batches(pids, 4, 4).draw(seeded(0)))
    enough = torch.isin(pids[rows], torch.tensor([i for i in range(1, 21) if (pids == i).sum() >= 4]))
    assert rows[enough].unique().numel() == enough.sum()
    n = pids.bincount()[1:].clamp_min(4)
    assert len(rows) <= int((n - n % 4).sum())


def test_pk_draws_identities_and_images_evenly():
    pids = torch.repeat_interleave(torch.arange(1, 7), 4)
    seen = torch.zeros(24)
    for seed in range(400):
        seen[torch.cat(pk_batches(pids, 2, 2).draw(seeded(seed)))] += 1
    assert seen.min() > 0.85 * seen.mean() and seen.max() < 1.15 * seen.mean()


def test_pk_needs_enough_identities():
    with pytest.raises(ValueError, match="at least P = 4 identities, got 3"):
        pk_batches(TOY, 4, 2)
    with pytest.raises(ValueError, match="k must be a positive integer, got 0"):
        pk_batches(TOY, 2, 0)


def test_same_identity_pairs_against_a_slow_loop():
    pids = torch.randint(-1, 6, (40,), generator=seeded(0))
    usable = torch.rand(40, generator=seeded(2)) < 0.7
    camids = torch.randint(1, 4, (40,), generator=seeded(3))
    for use, cameras in itertools.product((None, usable), (None, camids)):
        expected = [
            [i, j]
            for i in range(40)
            for j in range(40)
            if i != j and pids[i] == pids[j] >= 0
            and (use is None or (use[i] and use[j]))
            and (cameras is None or cameras[i] == cameras[j])
        ]  # fmt: skip
        assert same_identity_pairs(pids, usable=use, camids=cameras).tolist() == expected
    assert same_identity_pairs(torch.tensor([-1, -1, -3, -3, 5])).shape == (0, 2)


def test_batches_depend_on_the_step_alone():
    images = people([1 + i // 4 for i in range(40)])
    make = {"seed": 3, "augment": lambda batch, g: batch | {"draw": torch.rand(4, generator=g)}}
    one, other = Batches(images, uniform_batches(40, 6), **make), Batches(images, uniform_batches(40, 6), **make)
    forward = [one(step) for step in range(20)]
    for step in reversed(range(20)):  # any order, as after a resume
        assert all(torch.equal(forward[step][name], value) for name, value in other(step).items())
    assert len({tuple(b["draw"].tolist()) for b in forward}) == 20
    assert not torch.equal(one.rows(0), one.rows(len(one)))  # another order in the next epoch
    assert not torch.equal(one.rows(0), Batches(images, uniform_batches(40, 6), seed=4).rows(0))


def test_the_seed_decides_the_augmentation_too():
    images = people([1] * 12)

    def drawn(seed, rank=0):
        batches = Batches(images, uniform_batches(12, 4), augment=lambda _, g: {"draw": torch.rand(1, generator=g)},
                          seed=seed).shard(rank, 2)  # fmt: skip
        return [batches(step)["draw"].item() for step in range(3)]

    assert drawn(3) == drawn(3) and drawn(3, 1) == drawn(3, 1)
    assert len({*drawn(0), *drawn(3), *drawn(4), *drawn(0, 1), *drawn(3, 1), *drawn(4, 1)}) == 18


def test_batch_has_labels_and_what_the_set_has():
    images = people([9, 9, 4, 4, -1, -2])
    batch = Batches(images, uniform_batches(6, 6))(0)
    order = batch["indices"]
    assert batch["labels"].tolist() == torch.tensor([1, 1, 0, 0, -1, -1])[order].tolist()
    assert batch["images"][:, 0, 0, 0].tolist() == order.tolist()
    assert torch.equal(batch["pids"], images.pids[order])
    given = Batches(images, uniform_batches(6, 6), labels=torch.arange(6))(0)
    assert torch.equal(given["labels"], given["indices"])
    with pytest.raises(ValueError, match=r"labels must be \[6\]"):
        Batches(images, uniform_batches(6, 6), labels=torch.arange(5))


def test_generated_images_keep_the_number_of_classes():
    real = people([5, 5, 8, 8, 3])
    fake = people([8, 3]).with_labels(is_generated=True, camids=6)
    assert Batches(extend(real, fake), uniform_batches(7, 7)).n_classes == 3
    assert class_labels(extend(real, fake).pids).tolist() == [1, 1, 2, 2, 0, 2, 0]
    unlabelled = extend(real, fake.with_labels(pids=-2))
    assert Batches(unlabelled, uniform_batches(7, 7)).n_classes == 3


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["uniform", "pk", "pairs"])
def test_shards_together_are_the_whole_epoch(world, kind):
    pids = [1 + i // 6 for i in range(61)]
    images = people(pids)
    sampler = {
        "uniform": uniform_batches(61, 8),
        "pk": pk_batches(torch.tensor(pids), 4, 3),
        "pairs": pair_batches(same_identity_pairs(torch.tensor(pids)), 32),
    }[kind]
    whole = Batches(images, sampler, seed=5)
    parts = [whole.shard(rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {len(whole)}
    for epoch in (0, 1):
        for global_rows, *rows in zip(epoch_of(whole, epoch), *(epoch_of(p, epoch) for p in parts), strict=True):
            assert torch.equal(torch.cat(rows), global_rows)
            assert all(len(r) > 0 for r in rows)
            if kind == "pk":  # whole identities
                assert all((torch.tensor(pids)[r].unique(return_counts=True)[1] == 3).all() for r in rows)
    if kind == "uniform":
        seen = torch.cat([torch.cat(epoch_of(part)) for part in parts])
        assert sorted(seen.tolist()) == list(range(61))


def test_shards_augment_differently_and_too_many_processes_are_refused():
    images = people([1] * 12)
    whole = Batches(images, uniform_batches(12, 4), augment=lambda b, g: {"draw": torch.rand(1, generator=g)})
    assert whole.shard(0, 2)(0)["draw"] != whole.shard(1, 2)(0)["draw"]
    assert whole.shard(0, 1)(0)["draw"] == whole(0)["draw"]
    with pytest.raises(ValueError, match="4 units of 1 rows, too few for 5"):
        whole.shard(0, 5)
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), got 2"):
        whole.shard(2, 2)


def test_a_mixture_is_drawn_from_its_seed_alone():
    sampler = mixed_batches(torch.arange(60) % 3 == 0, 10, 5)
    for other in (123, 456):  # whatever the global generator does
        torch.manual_seed(other)
        drawn = torch.stack(sampler.draw(seeded(7)))
        if other == 123:
            first = drawn
    assert torch.equal(first, drawn) and not torch.equal(drawn, torch.stack(sampler.draw(seeded(8))))


def test_person_zero_is_a_person_and_nobody_is_not():
    pids = torch.tensor([0, 0, 4, -1, -1, -2, -2, -3, -3])
    assert same_identity_pairs(pids).tolist() == [[0, 1], [1, 0]]
    assert class_labels(pids).tolist() == [0, 0, 1] + [-1] * 6
    assert set(torch.cat(pk_batches(pids, 2, 2).draw(seeded(0))).tolist()) <= {0, 1, 2}
    assert torch.cat(two_pair_batches(pids, 3).draw(seeded(0))).unique().tolist() == [0, 1, 2]


def test_two_pairs_are_independent_and_of_one_person_each():
    pids = torch.tensor([3, -1, 5, 3, 3, 8, 5, -2, 8, 8, 8, 6])  # 6 has one image
    sampler = two_pair_batches(pids, 4)
    known = (pids >= 0).nonzero().flatten().tolist()
    partners, orders = {i: set() for i in known}, set()
    for seed in range(300):
        rows = torch.cat(sampler.draw(seeded(seed)))
        assert rows.shape == (10, 4) and sampler.steps == 3
        for anchor, positive in ((0, 1), (2, 3)):
            assert sorted(rows[:, anchor].tolist()) == known
            assert torch.equal(pids[rows[:, anchor]], pids[rows[:, positive]])
            alone = rows[:, anchor] == rows[:, positive]
            assert rows[alone, anchor].tolist() == [11]  # its own positive, and no other image is
            for i, j in rows[:, [anchor, positive]].tolist():
                partners[i].add(j)
        orders.add(tuple(rows[:, 0].tolist() + rows[:, 2].tolist()))
        assert rows[:, 0].tolist() != rows[:, 2].tolist()
    assert len(orders) == 300
    for i in known:
        others = {j for j in known if pids[j] == pids[i]} - {i}
        assert partners[i] == (others or {i})
    drawn = torch.cat([torch.cat(sampler.draw(seeded(seed))) for seed in range(900)])
    counts = drawn[drawn[:, 0] == 5, 1].bincount(minlength=12)[[8, 9, 10]] / 900  # each a third, sd 0.016
    assert ((counts - 1 / 3).abs() < 0.06).all()
    with pytest.raises(ValueError, match=r"pid >= 0\), got 2 without"):
        two_pair_batches(torch.tensor([-1, -2]), 2)


def test_two_pairs_of_two_persons():
    pids = torch.tensor([3, 3, 3, 3, 5, 8, 8, 6])  # half of them one person's
    for seed in range(20):
        rows = torch.cat(two_pair_batches(pids, 3, distinct=True).draw(seeded(seed)))
        assert (pids[rows[:, 0]] != pids[rows[:, 2]]).all() and (pids[rows[:, 2]] == pids[rows[:, 3]]).all()
        assert sorted(rows[:, 2].tolist()) == list(range(8))
    plain = [torch.cat(two_pair_batches(pids, 3).draw(seeded(seed))) for seed in range(20)]
    assert any((pids[rows[:, 0]] == pids[rows[:, 2]]).any() for rows in plain)
    with pytest.raises(ValueError, match="one identity has 4 of 7 images"):
        two_pair_batches(pids[:7], 3, distinct=True)


def test_two_pairs_come_under_four_names():
    images = people([1, 1, 2, 2, 2])
    batches = Batches(images, two_pair_batches(images.pids, 5))
    batch, rows = batches(0), batches.rows(0)
    for column, prefix in enumerate(("", "positive_", "other_", "other_positive_")):
        assert torch.equal(batch[prefix + "indices"], rows[:, column])
        assert batch[prefix + "images"][:, 0, 0, 0].tolist() == rows[:, column].tolist()
        assert torch.equal(batch[prefix + "labels"], images.pids[rows[:, column]] - 1)
    assert len(batch) == 4 * len(images.batch([0])) + 4  # and the labels
    assert [len(batches.shard(rank, 2)(0)["other_positive_images"]) for rank in (0, 1)] == [3, 2]


def test_pairs_come_as_twins():
    pids = torch.tensor([1, 1, 2, 2, 2])
    pairs = same_identity_pairs(pids)
    batches = Batches(people(pids.tolist()), pair_batches(pairs, 3))
    assert len(batches) == 3
    seen = []
    for step in range(3):
        batch = batches(step)
        assert torch.equal(batch["pids"], batch["target_pids"]) and (batch["indices"] != batch["target_indices"]).all()
        assert batch["target_images"][:, 0, 0, 0].tolist() == batch["target_indices"].tolist()
        seen += zip(batch["indices"].tolist(), batch["target_indices"].tolist(), strict=True)
    assert sorted(seen) == sorted(map(tuple, pairs.tolist()))


def test_a_part_of_the_pairs_each_epoch():
    pairs = same_identity_pairs(torch.tensor([1] * 30))  # 870
    batches = Batches(people([1] * 30), pair_batches(pairs, 16, pairs_per_epoch=100))
    first, second = (torch.cat(epoch_of(batches, e)) for e in (0, 1))
    assert len(batches) == 7 and len(first) == len(second) == 100
    assert len(first.unique(dim=0)) == 100 and not torch.equal(first, second)
    with pytest.raises(ValueError, match=r"got \[0, 2\]"):
        pair_batches(pairs[:0], 4)


@pytest.mark.parametrize("wanted", [6, 7, 100])
def test_more_pairs_an_epoch_than_there_are_is_all_of_them_once(wanted):
    pairs = same_identity_pairs(torch.tensor([1] * 3))  # 6
    few = pair_batches(pairs, 4, pairs_per_epoch=wanted)
    rows = few.draw(seeded(0))
    assert few.steps == len(rows) == 2 and [len(r) for r in rows] == [3, 3]
    assert sorted(torch.cat(rows).tolist()) == pairs.tolist()


def test_batches_hold_the_mixture():
    is_generated = torch.arange(400) % 4 != 0  # 100 real, 300 generated
    sampler = mixed_batches(is_generated, 12, 4)
    batches = sampler.draw(seeded(0))
    assert len(batches) == sampler.steps == 100 // 12
    reals = torch.cat([rows[~is_generated[rows]] for rows in batches])
    fakes = torch.cat([rows[is_generated[rows]] for rows in batches])
    assert len(reals.unique()) == len(reals) == 96 and len(fakes.unique()) == len(fakes) == 32
    for rows in batches:
        assert is_generated[rows].sum() == 4 and len(rows) == 16
        assert [int(is_generated[part].sum()) for part in rows.tensor_split(4)] == [1, 1, 1, 1]
    # fewer fakes than an epoch needs: each is taken equally often, give or take one
    few = mixed_batches(torch.arange(105) >= 100, 10, 3).draw(seeded(0))
    counts = torch.cat(few)[torch.cat(few) >= 100].bincount()[100:]
    assert counts.tolist() == [6] * 5
    sampler = mixed_batches(torch.arange(128 * 3 + 200) >= 128 * 3)
    assert sampler.steps == 3 and len(sampler.draw(seeded(0))[0]) == 128 + 46
    for real, fake, message in ((9, 1, "drawn from 8 and 3"), (4, 0, "4 real and 0 generated")):
        with pytest.raises(ValueError, match=message):
            mixed_batches(torch.arange(11) >= 8, real, fake)
    with pytest.raises(ValueError, match="and 0"):
        mixed_batches(torch.zeros(8, dtype=torch.bool), 4, 2)


def test_targets_of_another_set_may_have_the_sources_number():
    sources = torch.tensor([0, 0, 0, 2])
    drawn = target_pairs(sources, torch.arange(3), seeded(0), itself=True)
    assert drawn[:, 0].tolist() == sources.tolist() and drawn[:3, 1].sort().values.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="needs 3 targets for each image, there are 2"):
        target_pairs(sources, torch.arange(3), seeded(0))
    assert target_pairs(sources[:0], torch.arange(3), seeded(0)).shape == (0, 2)


def test_pairs_of_usable_images_and_none_at_all():
    people = PersonImages(torch.zeros(5, 3, 8, 4, dtype=torch.uint8), [4, 4, 4, 9, 9], [1, 2, 2, 1, 1])
    usable = torch.tensor([True, True, True, True, False])
    assert usable_pairs(people, usable).tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert usable_pairs(people, usable, "same_camera").tolist() == [[1, 2], [2, 1]]
    with pytest.raises(ValueError, match=r"2 of 5 images can be used \(pairs='all'\), of 2 identities"):
        usable_pairs(people, torch.tensor([True, False, False, True, False]))
    with pytest.raises(ValueError, match="'all', 'same_camera'"):
        usable_pairs(people, usable, "other_camera")
