"""Verification against hand-worked values, slow loops over all pairs and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

from reidlib.evaluators import evaluate_retrieval, verification
from reidlib.evaluators.verification import Verification, verify


def line(places, pids, camids, query=0.0, pid=5, camid=1, **rules):
    """One query at a place of a line, and gallery images at others."""
    who = dict(query_pids=np.array([pid]), query_camids=np.array([camid]))
    who |= dict(gallery_pids=np.array(pids), gallery_camids=np.array(camids))
    return verify(np.array([[query]]), np.array(places, float)[:, None], **who, **rules)


def crowd(rng, n_people=12, n_cameras=3, images=2, dimensions=4, noise=0.7, distractors=5):
    """Features and labels of people around a centre each, every (person, camera) on both sides; distractors."""
    pids = np.repeat(np.arange(n_people), n_cameras * images)
    camids = np.tile(np.repeat(np.arange(n_cameras), images), n_people)
    centres = rng.normal(size=(n_people, dimensions))
    query, gallery = (centres[pids] + noise * rng.normal(size=(len(pids), dimensions)) for _ in range(2))
    gallery = np.concatenate([gallery, rng.normal(size=(distractors, dimensions))])
    who = dict(query_pids=pids, query_camids=camids)
    who |= dict(gallery_pids=np.append(pids, [-3] * distractors), gallery_camids=np.append(camids, [0] * distractors))
    return (torch.tensor(query), torch.tensor(gallery)), who


def all_pairs(distances, who, rule="cross_camera"):
    """Every pair that counts: rows of (distance, genuine, query, gallery image), one after the other."""
    rows = []
    for i, (pid, camid) in enumerate(zip(who["query_pids"], who["query_camids"], strict=True)):
        for j, (other, camera) in enumerate(zip(who["gallery_pids"], who["gallery_camids"], strict=True)):
            same = pid == other
            ignored = other == -1 or (rule == "cross_camera" and same and camid == camera)
            ignored |= rule == "separate_views" and camid == camera
            if not ignored:
                rows.append((float(distances[i][j]), same, i, j))
    return rows


def test_a_gallery_worked_by_hand():
    # distances 1 2 2 3 4 5: the first is ignored (own person, own camera), the last but one is junk
    found = line([1, 2, -2, 3, 4, 5], [5, 7, 5, -3, -1, 5], [1, 1, 2, 3, 2, 2])
    assert found.distances.tolist() == [2, 3, 5]  # 7 and 5 are accepted together
    assert found.true_accepts.tolist() == [1, 1, 2] and found.false_accepts.tolist() == [1, 2, 2]
    assert found.nearest.tolist() == [[2, 2]] and (found.n_genuine, found.n_impostor, found.n_people) == (2, 2, 2)
    assert found.exact and found.at(1.9) == (0, 0) and found.at(2) == (0.5, 0.5) and found.at(4.9) == (1, 0.5)
    assert found.eer == 0.5  # at distance 2
    assert found.threshold_at(0.5) == 2 and found.tar_at(0.5) == 0.5 and found.tar_at(0.99) == 0.5


def test_camera_rules_by_hand():
    gallery = [1, 2, 3, 4], [5, 7, 5, 7], [1, 1, 2, 2]
    counts = {}
    for rule in ("cross_camera", "separate_views", "none"):
        found = line(*gallery, camera_rule=rule)
        counts[rule] = found.n_genuine, found.n_impostor
    assert counts == {"cross_camera": (1, 2), "separate_views": (1, 1), "none": (2, 2)}


def test_equal_error_rate_between_two_points_of_the_curve():
    # genuine 1 2 3 9, impostors 2.5 5 6 7 8: FAR .2 and TAR .75 at 3, then FAR .4 at 5; 1 - TAR = .25 in between
    found = line([1, 2, 3, 9, 2.5, 5, 6, 7, 8], [5] * 4 + [7] * 5, [2] * 9)
    assert found.eer == pytest.approx(0.25)
    steep = line([1, 2, 3, 4], [5, 5, 7, 5], [2] * 4)  # FAR 0 to 1 at TAR 2/3
    assert steep.eer == pytest.approx(1 / 3)
    assert line([1, 2, 3, 4], [5, 5, 7, 7], [2] * 4).eer == 0


@pytest.mark.parametrize("rule", ["cross_camera", "separate_views", "none"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_slow_loop_over_all_pairs(rng, rule, distance):
    features, who = crowd(rng)
    found = verify(*features, **who, distance=distance, camera_rule=rule)
    if distance == "euclidean":
        distances = (features[0][:, None] - features[1]).norm(dim=2)
    else:
        distances = 1 - torch.nn.functional.cosine_similarity(features[0][:, None], features[1], dim=2)
    pairs = all_pairs(distances.float(), who, rule)
    for place in (0, len(found.distances) // 3, len(found.distances) - 1):
        limit = found.distances[place] + 1e-6
        assert found.true_accepts[place] == sum(same and d <= limit for d, same, *_ in pairs)
        assert found.false_accepts[place] == sum((not same) and d <= limit for d, same, *_ in pairs)
    assert found.n_genuine + found.n_impostor == len(pairs)


def test_parity_with_scikit_learn_with_ties(rng):
    _, who = crowd(rng)
    distances = rng.integers(-9, 9, (len(who["query_pids"]), len(who["gallery_pids"]))) / 4  # many ties, negative ones
    found = verify(None, None, **who, distance=lambda rows: torch.tensor(distances[rows.numpy()]))
    pairs = all_pairs(distances, who)
    labels = [same for _, same, *_ in pairs]
    far, tar, thresholds = roc_curve(labels, [-d for d, *_ in pairs], drop_intermediate=False)
    np.testing.assert_array_equal(found.distances, -thresholds[1:])
    np.testing.assert_allclose(found.far, far[1:], rtol=1e-12)
    np.testing.assert_allclose(found.tar, tar[1:], rtol=1e-12)
    for wanted in (0.01, 0.1, 0.4):
        assert found.tar_at(wanted) == max(t for t, f in zip(tar, far, strict=True) if f <= wanted)


def test_many_pairs_are_counted_as_few_are(rng, monkeypatch):
    """The streamed counts at each threshold equal the exact ones, whatever the chunks."""
    features, who = crowd(rng, n_people=40)
    exact = verify(*features, **who)
    monkeypatch.setattr(verification, "_EXACT", 0)
    for piece, elements in ((1 << 17, 1 << 25), (300, 5000)):
        monkeypatch.setattr(verification, "_PIECE", piece)
        monkeypatch.setattr("reidlib.evaluators.distances._BLOCK_ELEMENTS", elements)
        found = verify(*features, **who)
        assert not found.exact and 100 < len(found.distances) < len(exact.distances)
        for threshold, far, tar in zip(found.distances, found.far, found.tar, strict=True):
            assert (far, tar) == exact.at(threshold)
        np.testing.assert_array_equal(found.nearest, exact.nearest)
        for name, value in exact.as_dict().items():
            assert found.as_dict()[name] == pytest.approx(value, abs=0.01), name


def test_negative_distances_are_in_order(rng, monkeypatch):
    """As a callable may give them: minus a similarity."""
    (query, gallery), who = crowd(rng, n_people=40)
    minus = -(query @ gallery.T)
    exact = verify(None, None, **who, distance=lambda rows: minus[rows])
    monkeypatch.setattr(verification, "_EXACT", 0)
    found = verify(None, None, **who, distance=lambda rows: minus[rows])
    assert found.distances[0] < -1 and len(found.distances) > 100 and (np.diff(found.distances) > 0).all()
    for threshold, far, tar in zip(found.distances, found.far, found.tar, strict=True):
        assert (far, tar) == exact.at(threshold)


def test_small_rates_are_read_close_to_what_was_asked_for(rng, monkeypatch):
    """Of many pairs the thresholds lie closest where FAR is smallest."""
    features, who = crowd(rng, n_people=200)
    monkeypatch.setattr(verification, "_EXACT", 0)
    found = verify(*features, **who)
    for far in (1e-1, 1e-2, 1e-3, 1e-4):
        assert 0.95 * far - 1 / found.n_impostor < found.at(found.threshold_at(far))[0] <= far


def test_infinite_distances_are_never_accepted(rng):
    """As re-ranking gives them to junk, and a user to what must not match."""
    _, who = crowd(rng)
    distances = rng.random((len(who["query_pids"]), len(who["gallery_pids"])))
    distances[:, 0] = np.inf
    found = verify(None, None, **who, distance=lambda rows: torch.tensor(distances[rows.numpy()]))
    assert found.distances[-1] == np.inf and found.far[-1] == 1 and found.far[-2] < 1
    assert np.isfinite(found.threshold_at(0.1))


def test_open_set_identification_by_hand():
    # nearest genuine and impostor of four queries; the last query's person is not in the gallery
    distances = np.array([[1.0, 4.0, 6.0], [7.0, 2.0, 5.0], [3.0, 9.0, 8.0], [9.0, 9.0, 1.5]])
    who = dict(query_pids=np.array([0, 1, 1, 9]), query_camids=np.ones(4, int))
    who |= dict(gallery_pids=np.array([0, 1, 2]), gallery_camids=np.full(3, 2))
    found = verify(None, None, **who, distance=lambda rows: torch.tensor(distances[rows.numpy()]))
    assert found.nearest.tolist() == [[1, 4], [2, 5], [9, 3], [np.inf, 1.5]]
    # alarms at 1.5, 3, 4, 5. Of 4 queries one alarm is 0.25: below 3 queries 0 and 1 are found, of three known
    assert found.dir_at(0.25) == pytest.approx(2 / 3)
    assert found.dir_at(0.9) == pytest.approx(2 / 3)  # query 2 has an impostor first: rank-1 2/3
    with pytest.raises(ValueError, match="one of the 4 queries"):
        found.dir_at(0.2)
    near = distances.copy()
    near[1, 1] = 3.5  # beyond the second alarm
    found = verify(None, None, **who, distance=lambda rows: torch.tensor(near[rows.numpy()]))
    assert found.dir_at(0.25) == pytest.approx(1 / 3) and found.dir_at(0.5) == pytest.approx(2 / 3)


def test_a_tie_with_an_impostor_is_no_identification():
    distances = torch.tensor([[2.0, 2.0, 5.0], [9.0, 9.0, 3.0], [4.0, 1.0, 9.0]])
    who = dict(query_pids=np.array([0, 2, 1]), query_camids=np.ones(3, int))
    who |= dict(gallery_pids=np.array([0, 1, 2]), gallery_camids=np.full(3, 2))
    found = verify(None, None, **who, distance=lambda rows: distances[rows])
    assert found.nearest.tolist() == [[2, 2], [3, 9], [1, 4]]
    assert found.dir_at(0.9) == pytest.approx(2 / 3)  # all but the first query, whose impostor is as near


def test_open_set_identification_with_every_alarm_allowed_is_rank_one(rng):
    features, who = crowd(rng)
    found = verify(*features, **who)
    assert found.dir_at(0.9999) == pytest.approx(evaluate_retrieval(*features, **who).rank(1))


@pytest.mark.parametrize("many", [False, True])
def test_drawn_people_weigh_their_pairs(rng, many, monkeypatch):
    """The bootstrap's counts against a loop over all pairs, at every one of its thresholds."""
    features, who = crowd(rng, n_people=10, images=1)
    monkeypatch.setattr(verification, "_EXACT", 0 if many else 1 << 22)
    found = verify(*features, **who)
    people = found._by_person
    weights = people.drawn(3, seed=1)
    assert weights.shape == (4, 10) and (weights.sum(1) == 10).all() and (weights[0] == 1).all()
    far, tar = people.rates(weights)
    pairs = all_pairs((features[0][:, None] - features[1]).norm(dim=2), who)
    for w, f, t in zip(weights, far, tar, strict=True):
        of_query = w[who["query_pids"]]
        of_gallery = np.where(who["gallery_pids"] < 0, 1, w[who["gallery_pids"]])  # distractors count once
        counts = np.array([of_query[i] if same else of_query[i] + of_gallery[j] - 1 for _, same, i, j in pairs])
        d, same = (np.array([pair[k] for pair in pairs]) for k in (0, 1))
        for k in range(0, len(people.cuts), 7):
            accepted = d <= people.cuts[k] + 1e-6
            assert t[k] == pytest.approx(counts[accepted & same].sum() / counts[same].sum())
            wanted = max(0, counts[accepted & ~same].sum()) / counts[~same].sum()
            assert f[k] == pytest.approx(max([wanted, *f[:k]]), abs=1e-12)  # never falls


def test_intervals_are_as_wide_as_other_people_differ(rng):
    """Of 30 draws of 50 people the spread of each rate is about what one draw's interval says."""
    drawn = [verify(*features, **who) for features, who in (crowd(rng, 50, images=1) for _ in range(30))]
    for fars, names in (((0.1,), ["EER", "TAR at FAR 0.1", "DIR at FAR 0.1"]), ((0.01,), ["TAR at FAR 0.01"])):
        spread = {name: np.std([d.as_dict(fars)[name] for d in drawn]) for name in names}
        several = [d.intervals(fars, repeats=200) for d in drawn[:6]]
        widths = {name: np.mean([np.diff(one[name]) for one in several]) for name in names}
        ratios = {name: widths[name] / (2 * 1.96 * spread[name]) for name in names}
        assert all(0.65 < ratio < 1.5 for ratio in ratios.values()), ratios


def test_intervals_hold_their_value_and_follow_the_seed(rng):
    found = verify(*crowd(rng, 30)[0], **crowd(rng, 30)[1])
    first, again, other = (found.intervals(seed=seed, repeats=100) for seed in (0, 0, 1))
    assert first == again != other and list(first) == list(found.as_dict())
    for name, value in found.as_dict().items():
        low, high = first[name]
        assert 0 <= low <= value <= high <= 1, name
    threshold = found.threshold_at(0.1)
    low, high = found.far_interval(threshold)
    assert 0 < low < found.at(threshold)[0] < high < 0.3


def test_an_interval_worked_by_hand():
    """Repeats 0 ... 40 hundredths, moved by what their thresholds change in the value: 10 of them more."""
    drawn = np.array([0.20, *np.arange(41) / 100])  # the first one: everybody once
    assert verification._interval(0.30, drawn) == pytest.approx((0.11, 0.49))  # 2.5 % of 40 steps is one step
    assert verification._interval(0.90, drawn) == pytest.approx((0.71, 1.0))  # rates end at 1


def test_rates_too_small_to_be_measured():
    found = line([1, 2, 3, 4], [5, 5, 7, 7], [2] * 4)
    for far, words in ((0.4, "one of the 2 impostor pairs"), (0, "between 0 and 1"), (1, "between 0 and 1")):
        for ask in (found.tar_at, found.threshold_at):
            with pytest.raises(ValueError, match=words):
                ask(far)
    assert list(found.as_dict()) == ["EER"] and list(found.as_dict((0.5,))) == ["EER", "TAR at FAR 0.5"]
    with pytest.raises(ValueError, match="2 people"):
        found.intervals()
    crowded = line([1, 1, 1], [5, 7, 7], [2] * 3)
    with pytest.raises(ValueError, match="already at the smallest distance"):
        crowded.threshold_at(0.5)
    assert crowded.tar_at(0.5) == 0 and crowded.at(0.5) == (0, 0)


def test_both_kinds_of_pair_are_needed():
    with pytest.raises(ValueError, match="0 genuine and 1 impostor"):
        line([1], [7], [2])
    with pytest.raises(ValueError, match="1 genuine and 0 impostor"):
        line([1], [5], [2])
    with pytest.raises(ValueError, match="camera_rule"):
        line([1, 2], [5, 7], [2, 2], camera_rule="all")
    with pytest.raises(ValueError, match="distance"):
        line([1, 2], [5, 7], [2, 2], distance="manhattan")


def test_words_name_the_rules():
    words = str(line([1, 2, 3, 4], [5, 5, 7, 7], [2] * 4, camera_rule="separate_views"))
    assert words == (
        "EER (separate views) 0.00 % [separate views, euclidean distance, 2 genuine and 2 impostor pairs of 2 people]"
    )
    assert isinstance(line([1, 2], [5, 7], [2, 2]), Verification)
