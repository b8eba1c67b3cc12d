"""Exercises of notebook 09: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch
from scipy import stats

from reidlib.course.exercises import Exercise, whole

# 1 · the spread of a difference


def paired(a, b):
    d = a - b
    return d.mean(), d.std()


def two_rows(g):
    n = whole(g, 3, 9)
    luck = torch.randn(n, generator=g)
    return tuple(50 + luck + centre + torch.randn(n, generator=g) for centre in (1.0, 0.0))


paired_exercise = Exercise(
    "09-1",
    paired,
    two_rows,
    wrong={
        "divided by n: with few pairs the spread comes out too small": lambda a, b: (
            (a - b).mean(),
            (a - b).std(correction=0),
        ),
        "that is the spread of two independent runs; the pairs share something": lambda a, b: (
            (a - b).mean(),
            (a.var() + b.var()).sqrt(),
        ),
        "the other way round: a minus b": lambda a, b: ((b - a).mean(), (b - a).std()),
    },
)


# 2 · the interval


def ends(d, t):
    half = t * d.std() / len(d) ** 0.5
    return d.mean() - half, d.mean() + half


def differences(g):
    n = whole(g, 3, 12)
    return 3 * torch.rand((), generator=g) - 1 + torch.randn(n, generator=g)


ends_exercise = Exercise(
    "09-2",
    ends,
    lambda g: (differences(g), 2 + torch.rand((), generator=g).item()),
    wrong={
        "that is where single pairs lie; the mean of n of them is surer by the root of n": lambda d, t: (
            d.mean() - t * d.std(),
            d.mean() + t * d.std(),
        ),
        "the standard error has the root of n below it, not n": lambda d, t: (
            d.mean() - t * d.std() / len(d),
            d.mean() + t * d.std() / len(d),
        ),
        "the variance is the square of what is needed": lambda d, t: (
            d.mean() - t * d.var() / len(d) ** 0.5,
            d.mean() + t * d.var() / len(d) ** 0.5,
        ),
    },
)


# 3 · what the ends decide


def decision(low, high, margin):
    if low > 0:
        return 1
    if high < 0:
        return -1
    return 0 if -margin < low and high < margin else 2


def an_interval(g):
    margin = 0.5 + torch.rand((), generator=g).item()
    kinds = [(1.5, 0.5), (0.6, 0.5), (-1.4, 0.5), (0.1, 0.8), (0.2, 4.0)]  # large, small, reversed, none, wide
    centre, width = (margin * part for part in kinds[whole(g, 0, 4)])
    return centre - width / 2, centre + width / 2, margin


decision_exercise = Exercise(
    "09-3",
    decision,
    an_interval,
    wrong={
        "the interval must exclude 0, not the margin: a small effect may be certain": lambda low, high, margin: (
            1 if low > margin else -1 if high < -margin else 0 if -margin < low and high < margin else 2
        ),
        "an interval around 0 may be wide: no effect is only claimed inside the margin": lambda low, high, margin: (
            1 if low > 0 else -1 if high < 0 else 0
        ),
        "the mean alone decides nothing": lambda low, high, margin: 1 if low + high > 0 else -1,
    },
)


# 4 · p by signs


def p_value(d):
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * len(d))
    return ((signs * d).mean(1).abs() >= d.mean().abs() - 1e-9).double().mean()


def few_differences(g):
    return (torch.randn(whole(g, 3, 8), generator=g).double() + 0.7,)


def _one_sided(d):
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * len(d))
    return ((signs * d).mean(1) >= d.mean() - 1e-9).double().mean()


def _without_itself(d):
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * len(d))
    return ((signs * d).mean(1).abs() > d.mean().abs() + 1e-9).double().mean()


p_exercise = Exercise(
    "09-4",
    p_value,
    few_differences,
    wrong={
        "one side only: a mean as far below 0 counts as well": _one_sided,
        "the pattern that was seen is one of them: at least as far, not farther": _without_itself,
        "that is the share of differences on the other side": lambda d: (d.sign() != d.mean().sign()).double().mean(),
    },
)


# 5 · one label for several seeds


def by_group(d, labels):
    means = torch.stack([d[labels == label].mean() for label in labels.unique()])
    return means, len(means)


def grouped(g):
    groups = whole(g, 2, 4)
    labels = torch.cat([torch.full((whole(g, 1, 4),), 3 * k + 1) for k in range(groups)] + [torch.tensor([1, 1])])
    labels = labels[torch.randperm(len(labels), generator=g)]
    return torch.randn(len(labels), generator=g), labels


group_exercise = Exercise(
    "09-5",
    by_group,
    grouped,
    wrong={
        "n counts generators, not seeds": lambda d, labels: (by_group(d, labels)[0], len(d)),
        "the sum of a group grows with its seeds; the mean was asked for": lambda d, labels: (
            torch.stack([d[labels == label].sum() for label in labels.unique()]),
            len(labels.unique()),
        ),
    },
)


# 6 · misled


def misled(a, b):
    table = a[:, None] - b
    crosswise = table[~torch.eye(len(a), dtype=torch.bool)]
    return (crosswise.sign() != (a - b).mean().sign()).double().mean()


misled_exercise = Exercise(
    "09-6",
    misled,
    two_rows,
    wrong={
        "the true pairs stand on the diagonal; leave them out": lambda a, b: (
            ((a[:, None] - b).sign() != (a - b).mean().sign()).double().mean()
        ),
        "those are the true pairs; the others were asked for": lambda a, b: (
            ((a - b).sign() != (a - b).mean().sign()).double().mean()
        ),
        "that is the share that agrees": lambda a, b: 1 - misled(a, b),
    },
)


# 7 · the first look that decides


def first_look(d, looks, factors):
    for n, t in zip(looks, factors, strict=True):
        if n <= len(d):
            low, high = ends(d[:n], t)
            if low > 0 or high < 0:
                return n
    return 0


def some_looks(g):
    looks = [whole(g, 3, 5), whole(g, 7, 9), whole(g, 11, 13)]
    d = torch.randn(whole(g, 6, 14), generator=g) + [0.0, 0.8, -1.5][whole(g, 0, 2)]
    return d, looks, [stats.t.ppf(0.975, n - 1) for n in looks]


def _last_look(d, looks, factors):
    found = [
        n for n, t in zip(looks, factors, strict=True) if n <= len(d) and ends(d[:n], t)[0] * ends(d[:n], t)[1] > 0
    ]
    return found[-1] if found else 0


look_exercise = Exercise(
    "09-7",
    first_look,
    some_looks,
    wrong={
        "the first look that decides ends the matter; later ones are not asked": _last_look,
        "a claim may be reversed as well: the upper end below 0 decides, too": lambda d, looks, factors: next(
            (n for n, t in zip(looks, factors, strict=True) if n <= len(d) and ends(d[:n], t)[0] > 0), 0
        ),
        "a look sees its own pairs only, not all that came later": lambda d, looks, factors: next(
            (n for n, t in zip(looks, factors, strict=True) if n <= len(d) and ends(d, t)[0] * ends(d, t)[1] > 0), 0
        ),
    },
)


# 8 · three looks, one promise


def pairs_needed(s, half, total, looks, quantile):
    q = 1 - total / looks / 2
    return next((n for n in range(2, 201) if quantile(q, n) * s / n**0.5 <= half), 0)


def student(q, n):
    """Student's t of n pairs."""
    return stats.t.ppf(q, n - 1)


def a_plan(g):
    s = 0.5 + 2 * torch.rand((), generator=g).item()
    return s, s * (0.3 + 0.7 * torch.rand((), generator=g).item()), [0.05, 0.1][whole(g, 0, 1)], whole(g, 2, 5), student


plan_exercise = Exercise(
    "09-8",
    pairs_needed,
    a_plan,
    wrong={
        "every look is another chance to be fooled: each gets its part of the total": (
            lambda s, half, total, looks, quantile: pairs_needed(s, half, total, 1, quantile)
        ),
        "two-sided: half of a look's part lies on either side": lambda s, half, total, looks, quantile: pairs_needed(
            s, half, 2 * total, looks, quantile
        ),
        "half the width was given, not the width": lambda s, half, total, looks, quantile: pairs_needed(
            s, half / 2, total, looks, quantile
        ),
    },
)
