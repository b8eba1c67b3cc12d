"""What paired differences decide about a claim: holds, reversed, no effect worth the name, or undecided.

A *pair* is one value of the seed with which both arms of a comparison were run; its difference is counted in percentage
points and signed as claimed, so that a positive one speaks for the claim. Nothing else decides a verdict.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import stats

from reidlib.checks import check_choice

LOOKS = (6, 12, 24)  # numbers of pairs at which a claim is looked at
LEVEL = 1 - 0.10 / len(LOOKS)  # of the interval of one look: 10 % split over all looks (Bonferroni)
MARGIN = 1.0  # percentage points: smaller effects do not matter
DIRECTIONS = ("a>b", "a<b", "a>=b")
KINDS = ("holds", "reversed", "no effect", "undecided")
SECOND_START = "recorded-2"  # a row's start: the same pairs run again from the second recorded weights


@dataclass(frozen=True)
class Verdict:
    """A verdict and what it rests on.

    Attributes:
        verdict: one of `KINDS` with its details, such as "holds, below 1" or "undecided (3 pairs)".
        differences: of every pair, or of every group where seeds share one; points, signed as claimed.
        look: how many of them, from the first on, the verdict and the other numbers rest on.
        mean, low, high: of these differences, and the interval of the mean; infinite for a single one.
        against: the true difference that `p` tests: 0, and -margin for a claim "a>=b".
    """

    verdict: str
    differences: tuple[float, ...]
    look: int
    mean: float
    low: float
    high: float
    against: float = 0.0

    @property
    def n(self) -> int:
        """How many pairs, or groups, there are."""
        return len(self.differences)

    @property
    def kind(self) -> str:
        """The verdict without its details: one of `KINDS`."""
        return next(kind for kind in KINDS if self.verdict.startswith(kind))

    @cached_property
    def p(self) -> float:
        """Two-sided sign-flip p of the look's differences (`sign_flip_p`)."""
        return sign_flip_p(np.array(self.differences[: self.look]) - self.against)


def verdict(differences: Sequence[float], *, direction: str = "a>b", groups: Sequence | None = None) -> Verdict:
    r"""Decide a claim by its paired differences at the first look that decides it.

    A look takes the first 6, 12, 24 differences (`LOOKS`), $n$ of them with mean $\bar d$ and standard deviation $s$,
    and the two-sided interval of Student's t with `LEVEL`,

    $$\bar d \pm t_{n-1,\,(1 + \text{level})/2}\; s / \sqrt n.$$

    - *holds*: the lower end is above 0; *reversed*: the upper end is below 0;
    - *no effect above m*: the interval lies inside ±m (`MARGIN`); with one of the first two also "holds, below m";
    - *undecided*: the rest; it waits for the next look. Fewer pairs than the first look needs are always undecided.

    A claim "a>=b" holds where the lower end is above -m, and is reversed where the upper end is below -m.

    Args:
        differences: percentage points, in the order of the pairs, signed as claimed: a - b, and b - a for "a<b".
        direction: "a>b", "a<b" (the same rule) or "a>=b".
        groups: one label a difference, such as the generator that several seeds share: differences are averaged within
            a group first, and n counts groups.

    Raises:
        ValueError: for no differences, one that is not finite, groups of another number, or an unknown direction.

    >>> decided = verdict([2.0, 3.0, 2.5, 3.5, 2.0, 3.0])
    >>> decided.verdict, round(decided.mean, 2), round(decided.low, 2), decided.p
    ('holds', 2.67, 1.95, 0.03125)
    >>> verdict([2.0, 3.0, 2.5]).verdict
    'undecided (3 pairs)'
    """
    check_choice("direction", direction, DIRECTIONS)
    values = _by_group(differences, groups)
    against = -MARGIN if direction == "a>=b" else 0.0
    reached = [look for look in LOOKS if look <= len(values)]
    for look in reached or [len(values)]:
        mean, low, high = interval(values[:look])
        words = _words(low, high, against)
        if words != "undecided":
            break
    if not reached:
        unit = "pair" if groups is None else "group"
        words = f"undecided ({look} {unit}{'s' if look > 1 else ''})"
    return Verdict(words, tuple(values.tolist()), look, mean, low, high, against)


def _by_group(differences: Sequence[float], groups: Sequence | None) -> np.ndarray:
    """Return the differences as an array, averaged within groups in the order in which these first appear."""
    values = np.asarray(list(differences), dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"differences must be one finite number or more, got {values.tolist()}")
    if groups is None:
        return values
    groups = list(groups)
    if len(groups) != len(values):
        raise ValueError(f"groups must name one group a difference, got {len(groups)} for {len(values)}")
    of_group = {group: [value for value, one in zip(values, groups, strict=True) if one == group] for group in groups}
    return np.array([np.mean(members) for members in of_group.values()])


def _words(low: float, high: float, against: float) -> str:
    """Say what an interval decides; `against` is below 0 for a claim "a>=b"."""
    words = "holds" if low > against else "reversed" if high < against else ""
    if against or not -MARGIN < low <= high < MARGIN:
        return words or "undecided"
    return f"{words}, below {MARGIN:g}" if words else f"no effect above {MARGIN:g}"


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's two-sided interval of the mean; one value has infinite ends.

    >>> [round(end, 3) for end in interval([1.0, 2.0, 3.0], level=0.95)]
    [2.0, -0.484, 4.484]
    """
    values = np.asarray(values, dtype=float)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Return the two-sided p of a mean of paired differences whose signs are exchangeable if there is no effect.

    All 2^n sign patterns are tried up to 13 pairs (the smallest p of six pairs is 2/64); of more pairs 9,999 patterns
    are drawn at random from `seed`.

    >>> sign_flip_p([2.0, 3.0, 2.5, 3.5, 2.0, 3.0]) == 2 / 64
    True
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:  # both patterns are as extreme as what was seen
        return 1.0
    how = {"permutation_type": "samples", "vectorized": True, "n_resamples": 9999, "rng": seed}
    return float(stats.permutation_test((values,), lambda x, axis: x.mean(axis=axis), **how).pvalue)


def with_second_start(first: Verdict, second: Verdict) -> Verdict:
    """Return the first start's verdict, undecided where the second start turns it from holds to reversed or back.

    >>> better, worse = verdict([2.0, 3.0] * 3), verdict([-2.0, -3.0] * 3)
    >>> with_second_start(better, worse).verdict, with_second_start(better, better).verdict
    ('undecided (the starts disagree)', 'holds')
    """
    if {first.kind, second.kind} == {"holds", "reversed"}:
        return replace(first, verdict="undecided (the starts disagree)")
    return first


def expected_false_holds(pairs: Iterable[int]) -> float:
    """Return how many claims of "more" or "less" chance alone would let hold at most, if none of them had an effect.

    Each look lets a claim without an effect hold with probability (1 - `LEVEL`) / 2; a claim has had as many looks as
    its number of pairs allows.

    >>> round(expected_false_holds([6, 6, 24, 3]), 4)  # 1 + 1 + 3 + 0 looks, each 1.67 %
    0.0833
    """
    return sum(look <= n for n in pairs for look in LOOKS) * (1 - LEVEL) / 2
