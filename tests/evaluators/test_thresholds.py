"""A threshold keeps its promise on other people of the same kind, its probability is right, its file is strict."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from reidlib.evaluators.thresholds import Threshold, reliability
from reidlib.evaluators.verification import verify


def made(seed, n_people=60, genuine=(1.0, 0.2), impostor=(2.0, 0.2)):
    """Distances drawn from two normal distributions, of 1 query and 4 gallery images a person."""
    rng = np.random.default_rng(seed)
    query, gallery = np.arange(n_people), np.repeat(np.arange(n_people), 4)
    same = query[:, None] == gallery
    distances = torch.tensor(np.where(same, rng.normal(*genuine, same.shape), rng.normal(*impostor, same.shape)))
    who = dict(query_pids=query, query_camids=query * 0, gallery_pids=gallery, gallery_camids=gallery * 0 + 1)
    return verify(None, None, **who, distance=lambda rows: distances[rows])


@pytest.fixture(scope="module")
def fitted():
    return Threshold.fit(made(0), 0.01, fitted_on="60 made-up people", network="none")


def test_the_promise_holds_on_other_people(fitted):
    far, tar = made(1, 200).at(fitted.limit)
    assert fitted.far <= 0.01 < fitted.far + 1e-3 and far == pytest.approx(0.01, abs=0.003)
    assert fitted.limit == pytest.approx(2 - 2.326 * 0.2, abs=0.02)  # the normal distribution's 1 % point
    assert tar == pytest.approx(fitted.tar, abs=0.02) and 0.005 < fitted.far_low < 0.01 < fitted.far_high < 0.015
    assert (fitted.n_people, fitted.n_genuine, fitted.n_impostor) == (60, 240, 60 * 236)


def test_accept_takes_numbers_and_tensors(fitted):
    assert fitted.accept(fitted.limit) and not fitted.accept(np.nextafter(fitted.limit, 9))
    assert fitted.accept(torch.tensor([1.0, 2.0])).tolist() == [True, False]


def test_probability_of_two_normal_distributions():
    """Equal spread s: log-odds are linear in d, with slope (m1 - m0) / s² and 0 in the middle."""
    fitted = Threshold.fit(made(0, 200, (1.0, 0.5), (2.0, 0.5)), 0.01, fitted_on="", network="")
    assert fitted.slope == pytest.approx(4, rel=0.1)
    assert fitted.intercept / fitted.slope == pytest.approx(1.5, abs=0.03)
    middle = fitted.intercept / fitted.slope
    assert fitted.probability(middle) == pytest.approx(0.5)
    assert fitted.probability(middle, prior=0.2) == pytest.approx(0.2)  # even evidence leaves the prior
    odds = fitted.intercept - fitted.slope * 1.1
    assert fitted.probability(1.1, prior=0.2) == pytest.approx(0.25 * math.exp(odds) / (1 + 0.25 * math.exp(odds)))
    d = torch.tensor([0.5, 1.5, 3.0])
    assert torch.allclose(
        fitted.probability(d).double(), torch.tensor([fitted.probability(x) for x in d.tolist()]).double()
    )
    np.testing.assert_allclose(fitted.probability(d.numpy()), fitted.probability(d).numpy(), rtol=1e-5)
    for prior in (0, 1, -1):
        with pytest.raises(ValueError, match="prior"):
            fitted.probability(1.0, prior)


def test_separable_pairs_give_finite_numbers():
    fitted = Threshold.fit(made(0, 20, (1.0, 0.01), (3.0, 0.01)), 0.01, fitted_on="", network="")
    assert 1 < fitted.slope < 100 and 1.2 < fitted.intercept / fitted.slope < 2.8
    assert 0.9 < fitted.probability(1.0) < 1 and 0 < fitted.probability(3.0) < 0.1


def test_reliability_on_other_people(fitted):
    table = reliability(fitted, made(1, 300), bins=5)
    well_filled = table[table["weight"] > 0.005]
    assert (well_filled["predicted"] - well_filled["observed"]).abs().max() < 0.2
    assert table["weight"].sum() == pytest.approx(1) and (table["predicted"].diff().dropna() > 0).all()
    assert table.attrs["brier"] < 0.02
    wrong = replace(fitted, intercept=fitted.intercept + 5)  # sure of too much
    assert reliability(wrong, made(1, 300)).attrs["brier"] > 2 * table.attrs["brier"]


def test_brier_score_by_hand(fitted):
    even = replace(fitted, slope=0.0, intercept=math.log(3))  # 3/4, whatever the distance
    table = reliability(even, made(1), bins=10)
    assert len(table) == 1 and table.iloc[0].tolist() == pytest.approx([0.75, 0.5, 1.0])
    assert table.attrs["brier"] == pytest.approx(0.5 * 0.25**2 + 0.5 * 0.75**2)
    with pytest.raises(ValueError, match="cosine"):
        reliability(replace(fitted, distance="cosine"), made(1))


def test_reliability_at_another_prior_by_hand(fitted):
    even = replace(fitted, slope=0.0, intercept=0.0)  # always the prior
    table = reliability(even, made(1), prior=0.2)
    assert table.iloc[0].tolist() == pytest.approx([0.2, 0.2, 1.0])
    assert table.attrs["brier"] == pytest.approx(0.2 * 0.8)


def test_the_calibration_is_logistic_regression_on_platts_targets():
    """Against a search for the least loss, written out; few pairs, so that the targets are far from 0 and 1."""
    found = made(3, 6, (1.0, 0.1), (1.6, 0.3))
    fitted = Threshold.fit(found, 0.1, fitted_on="", network="")
    counts = [np.diff(x, prepend=0) for x in (found.true_accepts, found.false_accepts)]
    d, targets = found.distances.astype(float), ((24 + 1) / (24 + 2), 1 / (6 * 20 + 2))
    assert [c.sum() for c in counts] == [24, 6 * 20]

    def loss(parameters):
        odds = parameters[0] - parameters[1] * d
        terms = [t * np.logaddexp(0, -odds) + (1 - t) * np.logaddexp(0, odds) for t in targets]
        return sum((c / c.sum() * term).sum() for c, term in zip(counts, terms, strict=True))

    best = minimize(loss, [0.0, 1.0], method="Nelder-Mead", options=dict(xatol=1e-9, fatol=1e-13, maxiter=10_000)).x
    assert [fitted.intercept, fitted.slope] == pytest.approx(best, rel=1e-4)


def test_a_file_gives_it_back(fitted, tmp_path):
    path = tmp_path / "a.threshold.json"
    fitted.save(path)
    assert Threshold.load(path) == fitted and [p.name for p in tmp_path.iterdir()] == [path.name]
    few = Threshold.fit(made(0, 4), 0.05, fitted_on="four people", network="")
    few.save(path)
    assert math.isnan(few.far_low) and math.isnan(Threshold.load(path).far_high)
    assert Threshold.load(path).limit == few.limit


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": "1"}, "limit must be float"),
        ({"limit": True}, "limit must be float"),
        ({"limit": math.inf}, "limit must be float"),
        ({"far": None}, "far must be float"),
        ({"n_people": 1.5}, "n_people must be int"),
        ({"fitted_on": 3}, "fitted_on must be str"),
        ({"more": 1}, "it must hold limit, wanted_far"),
    ],
)
def test_a_file_of_another_form_is_refused(fitted, tmp_path, change, words):
    path = tmp_path / "b.json"
    fitted.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=words):
        Threshold.load(path)


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(FileNotFoundError):
        Threshold.load(tmp_path / "none.json")
    for text in ("{", "[1]"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(ValueError, match=r"c\.json is n"):
            Threshold.load(tmp_path / "c.json")


def test_words_say_what_it_was_fitted_on(fitted):
    words = str(fitted)
    assert "custom distance" in words and "fitted on 60 people" in words and "60 made-up people" in words
