"""Verdicts: hand-worked intervals, p values and looks, properties, and what chance alone decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reidlib.course import verdicts
from reidlib.course.verdicts import LEVEL, LOOKS, interval, sign_flip_p, verdict, with_second_start

HALVES = (1.0, -1.0)


def around(mean: float, n: int, spread: float = 1.0) -> list[float]:
    """n (even) differences mean ± spread: their standard deviation is spread * sqrt(n / (n - 1))."""
    return [mean + spread * sign for sign in HALVES] * (n // 2)


def test_the_interval_by_a_table_of_students_t():
    # differences 1 to 6: mean 3.5, s = sqrt(17.5 / 5) = 1.870829; t(5 degrees, 97.5 %) = 2.570582 in any table
    mean, low, high = interval([1, 2, 3, 4, 5, 6], level=0.95)
    assert mean == 3.5 and (high - low) / 2 == pytest.approx(2.570582 * 1.870829 / 6**0.5, rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
    # t(11, 99.5 %) = 3.105807: twelve differences of standard deviation sqrt(12 / 11)
    assert interval(around(0, 12), level=0.99)[2] == pytest.approx(3.105807 * (12 / 11) ** 0.5 / 12**0.5, rel=1e-6)


def test_three_looks_share_ten_percent():
    assert LOOKS == (6, 12, 24) and pytest.approx(0.1 / 3) == 1 - LEVEL
    decided = verdict([1, 2, 3, 4, 5, 6])
    half = stats.t.isf(0.1 / 6, 5) * 1.870829 / 6**0.5  # a sixth of 10 % on each side
    assert (decided.mean - decided.low, decided.high - decided.mean) == pytest.approx((half, half), rel=1e-6)


def test_exact_p_of_six_pairs_is_two_of_sixty_four():
    assert sign_flip_p([1, 2, 3, 4, 5, 6]) == 2 / 64  # two-sided: all plus, all minus
    assert sign_flip_p([-1, -2, -3, -4, -5, -6]) == 2 / 64
    # 3 and -1: sums 4, 2, -2, -4; at least 2 have two of four, at most 2 have three: twice the smaller share
    assert sign_flip_p([3, -1]) == 1.0
    # 5, 4, -1 sum to 8; of eight patterns 10 and 8 reach it
    assert sign_flip_p([5, 4, -1]) == 2 * 2 / 8
    assert sign_flip_p([4.0]) == 1.0 and sign_flip_p([0.0] * 6) == 1.0


def test_p_of_twelve_pairs_by_all_patterns_and_of_24_by_a_seeded_draw():
    values = np.array([0.3, 1.2, -0.4, 2.0, 0.9, -1.1, 0.7, 1.5, 0.2, -0.6, 1.9, 0.8])
    signs = np.array(np.meshgrid(*[HALVES] * 12)).reshape(12, -1).T
    reached = (signs @ values >= values.sum() - 1e-9).mean()
    assert sign_flip_p(values) == pytest.approx(2 * reached, abs=1e-12)
    many = [*values, *values]
    assert sign_flip_p(many) == sign_flip_p(many) and 0 < sign_flip_p(many) < sign_flip_p(values)
    assert sign_flip_p(many, seed=1) != sign_flip_p(many)


@pytest.mark.parametrize(
    ("differences", "direction", "expected"),
    [
        (around(3, 6), "a>b", "holds"),
        (around(-3, 6), "a>b", "reversed"),
        (around(0.4, 6, 0.3), "a>b", "holds, below 1"),
        (around(-0.4, 6, 0.3), "a<b", "reversed, below 1"),
        (around(0.1, 6, 0.3), "a>b", "no effect above 1"),
        (around(0.5, 6), "a>b", "undecided"),
        (around(0.5, 6), "a>=b", "holds"),  # the interval starts at -0.8
        (around(-0.5, 6), "a>=b", "undecided"),  # -1.8 to 0.8
        (around(-3, 6), "a>=b", "reversed"),
        (around(-1.5, 6, 0.3), "a>=b", "reversed"),
        (around(-0.9, 6, 0.05), "a>=b", "holds"),
        ([2.0] * 6, "a>b", "holds"),  # without any spread
        ([0.0] * 6, "a>b", "no effect above 1"),
    ],
)
def test_verdicts_at_the_first_look(differences, direction, expected):
    decided = verdict(differences, direction=direction)
    assert (decided.verdict, decided.look, decided.n) == (expected, 6, 6)
    assert expected.startswith(decided.kind)


def test_at_least_is_tested_against_the_margin_below():
    differences = [0.5, -0.2, 0.1, -0.4, 0.3, -0.1]
    decided = verdict(differences, direction="a>=b")
    assert decided.verdict == "holds" and decided.p == 2 / 64 and verdict(differences).p > 0.5


def test_fewer_pairs_than_a_look_are_undecided_with_their_interval():
    decided = verdict(around(9, 4, 0.1))
    assert decided.verdict == "undecided (4 pairs)" and decided.kind == "undecided" and decided.look == 4
    assert decided.low > 8 and decided.p == 2 / 16
    one = verdict([5.0])
    assert (one.verdict, one.mean, one.low, one.high, one.p) == ("undecided (1 pair)", 5, -np.inf, np.inf, 1)


def test_between_looks_the_last_looks_verdict_stands():
    six = around(0.5, 6)
    for extra in range(6):
        decided = verdict([*six, *[9.0] * extra])
        assert (decided.verdict, decided.look, decided.n, decided.mean) == ("undecided", 6, 6 + extra, 0.5)
    assert verdict([*six, *[9.0] * 6]).look == 12


def test_the_first_look_that_decides_is_the_last_one():
    decided = verdict([*around(3, 6), *around(-3, 18)])
    assert (decided.verdict, decided.look, decided.n) == ("holds", 6, 24)
    later = verdict([*around(0.5, 6), *around(3, 6), *around(-9, 12)])
    assert (later.verdict, later.look) == ("holds", 12) and later.mean == pytest.approx(1.75)
    never = verdict([*around(0.6, 30, 3)])
    assert (never.verdict, never.look, never.n) == ("undecided", 24, 30)


def test_groups_are_averaged_first_and_counted():
    decided = verdict([1, 3, 10, 2, 4, 12], groups=["g", "g", "h", "h", "g", "i"])
    assert decided.differences == (8 / 3, 6.0, 12.0) and decided.verdict == "undecided (3 groups)"
    shared = verdict(around(3, 24), groups=[i % 4 for i in range(24)])  # 24 seeds of four generators decide nothing
    assert (shared.n, shared.verdict) == (4, "undecided (4 groups)")


def test_the_second_start_undoes_what_it_turns_round():
    up, down, none, open_ = (verdict(around(m, 6, s)) for m, s in ((3, 1), (-3, 1), (0, 0.1), (0.5, 1)))
    for first, second in ((up, down), (down, up)):
        turned = with_second_start(first, second)
        assert turned.verdict == "undecided (the starts disagree)" and turned.kind == "undecided"
        assert turned.mean == first.mean
    for second in (up, none, open_):
        assert with_second_start(up, second) is up


@pytest.mark.parametrize(
    ("differences", "options", "message"),
    [
        ([], {}, "one finite number or more"),
        ([1.0, float("nan")], {}, "one finite number or more"),
        ([1.0], {"direction": "b>a"}, "direction must be one of 'a>b'"),
        ([1.0, 2.0], {"groups": ["g"]}, "got 1 for 2"),
    ],
)
def test_bad_arguments_are_named(differences, options, message):
    with pytest.raises(ValueError, match=message):
        verdict(differences, **options)


MIRROR = {"holds": "reversed", "reversed": "holds"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=26))
def test_swapping_the_arms_mirrors_the_verdict(differences):
    one, other = verdict(differences), verdict([-d for d in differences])
    assert other.kind == MIRROR.get(one.kind, one.kind) and other.look == one.look
    assert other.low == pytest.approx(-one.high) and one.low <= one.mean <= one.high
    if (one.kind, one.look) == ("holds", 6):
        assert verdict(differences, direction="a>=b").kind == "holds"


def test_chance_alone_lets_few_claims_hold():
    """No effect, 24 pairs each: at most 5 % of the claims end as "holds", whatever their direction."""
    draws = np.random.default_rng(0).normal(0, 4, (1500, 24))
    kinds = [verdict(row).kind for row in draws]
    share = {kind: kinds.count(kind) / len(kinds) for kind in verdicts.KINDS}
    assert 0.02 < share["holds"] < 0.05 + 2 * (0.05 * 0.95 / 1500) ** 0.5
    assert 0.02 < share["reversed"] < 0.05 + 2 * (0.05 * 0.95 / 1500) ** 0.5
    border = [verdict(row - 1, direction="a>=b").kind for row in draws]
    assert border == [kind if kind != "no effect" else border[i] for i, kind in enumerate(kinds)]
    assert verdicts.expected_false_holds([24] * 100) == pytest.approx(5)
    assert verdicts.expected_false_holds([5, 6, 11, 12, 23]) == pytest.approx((0 + 1 + 1 + 2 + 2) / 60)


def test_a_real_effect_is_found():
    draws = np.random.default_rng(1).normal(2, 2, (200, 24))
    kinds = [verdict(row).kind for row in draws]
    assert kinds.count("holds") > 190 and "reversed" not in kinds
