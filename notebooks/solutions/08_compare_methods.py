"""Exercises of notebook 08: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch

from reidlib.course.exercises import Exercise, whole

# 1 · whose street?


def street_shares(a, b, x, outside):
    apart = (a - b).abs().mean(0)
    telling = outside & (apart > 20)
    return tuple(((x - side).abs().mean(0) <= apart / 3)[telling].float().mean() for side in (a, b))


def streets(g):
    size = 3, whole(g, 6, 12), whole(g, 4, 8)
    a, b = (255 * torch.rand(size, generator=g) for _ in range(2))
    b = torch.where(torch.rand(size[1:], generator=g) < 0.3, a + 6, b)  # the same street in both
    share = torch.rand(size[1:], generator=g).round(decimals=1)
    x = torch.lerp(a, b, share) + 6 * torch.randn(size, generator=g)
    return a, b, x, torch.rand(size[1:], generator=g) < 0.7


def _everywhere(a, b, x, outside):
    return street_shares(a, b, x, torch.ones_like(outside))


def _anywhere(a, b, x, outside):
    apart = (a - b).abs().mean(0)
    return tuple(((x - side).abs().mean(0) <= apart / 3)[outside].float().mean() for side in (a, b))


def _by_colour(a, b, x, outside):
    telling = outside & ((a - b).abs().mean(0) > 20)
    near = ((x - side).abs() <= (a - b).abs() / 3 for side in (a, b))
    return tuple(one.all(0)[telling].float().mean() for one in near)


def _nearer(a, b, x, outside):
    first, second = ((x - side).abs().mean(0) for side in (a, b))
    telling = outside & ((a - b).abs().mean(0) > 20)
    return (first < second)[telling].float().mean(), (second < first)[telling].float().mean()


street_exercise = Exercise(
    "08-1",
    street_shares,
    streets,
    wrong={
        "people stand there: only the pixels outside are asked": _everywhere,
        "where both photographs look alike a pixel tells nothing": _anywhere,
        "nearer is not near: at most a third of the distance between the two": _nearer,
        "the mean over the colours is compared, not every colour by itself": _by_colour,
        "that is B's share first": lambda a, b, x, outside: street_shares(b, a, x, outside),
    },
)


# 2 · whose joints?


def joint_counts(found, a, b, t):
    telling = (a - b).norm(dim=1) > t
    of_a, of_b = ((found - side).norm(dim=1) for side in (a, b))
    near_a, near_b = telling & (of_a <= t) & (of_a < of_b), telling & (of_b <= t) & (of_b < of_a)
    return int(telling.sum()), int(near_a.sum()), int(near_b.sum())


def joints(g):
    n, t = whole(g, 12, 24), 4 + 4 * torch.rand((), generator=g).item()
    a = 40 * torch.rand(n, 2, generator=g)
    b = a + t * 1.2 * torch.randn(n, 2, generator=g)
    return torch.lerp(a, b, torch.rand(n, 1, generator=g)) + torch.randn(n, 2, generator=g), a, b, t


def _within(found, a, b, t):
    telling = (a - b).norm(dim=1) > t
    return (int(telling.sum()), *(int((telling & ((found - side).norm(dim=1) <= t)).sum()) for side in (a, b)))


def _all_joints(found, a, b, t):
    of_a, of_b = ((found - side).norm(dim=1) for side in (a, b))
    return len(a), int(((of_a <= t) & (of_a < of_b)).sum()), int(((of_b <= t) & (of_b < of_a)).sum())


joints_exercise = Exercise(
    "08-2",
    joint_counts,
    joints,
    wrong={
        "a joint within t of both places belongs to the nearer one alone": _within,
        "joints that lie together in A and B tell nothing": _all_joints,
        "A and B more than t apart, not the picture and A": lambda found, a, b, t: (
            int(((found - a).norm(dim=1) > t).sum()),
            *joint_counts(found, a, b, t)[1:],
        ),
    },
)


# 3 · nearest but two


def nearest_but_two(pictures, gallery, pairs):
    return torch.cdist(pictures, gallery).scatter_(1, pairs, torch.inf).argmin(1)


def pictures_of(g):
    n, m, d = whole(g, 4, 9), whole(g, 6, 12), whole(g, 2, 5)
    gallery = torch.randn(m, d, generator=g)
    pairs = torch.stack([torch.randperm(m, generator=g)[:2] for _ in range(n)])
    return gallery[pairs[:, 0]] + 0.3 * torch.randn(n, d, generator=g), gallery, pairs


def _but_one(pictures, gallery, pairs):
    return nearest_but_two(pictures, gallery, pairs[:, :1])


nearest_exercise = Exercise(
    "08-3",
    nearest_but_two,
    pictures_of,
    wrong={
        "a picture finds the photograph that it was made from": lambda pictures, gallery, pairs: torch.cdist(
            pictures, gallery
        ).argmin(1),
        "two photographs went in, and both are left out": _but_one,
        "that is the farthest": lambda pictures, gallery, pairs: torch.cdist(pictures, gallery).argmax(1),
    },
)


# 4 · precision, 5 · coverage


def circles(real, k):
    """Distance of each photograph to its k-th nearest other photograph."""
    return torch.cdist(real, real).sort(1).values[:, k]


def precision_of(real, drawn, k):
    return (torch.cdist(drawn, real) <= circles(real, k)).any(1).double().mean()


def coverage_of(real, drawn, k):
    return (torch.cdist(real, drawn) <= circles(real, k)[:, None]).any(1).double().mean()


def two_crowds(g):
    n, m, d = whole(g, 8, 14), whole(g, 6, 12), whole(g, 2, 4)
    return torch.randn(n, d, generator=g), 1.3 * torch.randn(m, d, generator=g) + 0.4, whole(g, 2, 4)


precision_exercise = Exercise(
    "08-4",
    precision_of,
    two_crowds,
    wrong={
        "a photograph's nearest neighbour is itself; it does not count": lambda real, drawn, k: precision_of(
            real, drawn, k - 1
        ),
        "the other way round, that is recall": lambda real, drawn, k: precision_of(drawn, real, k),
        "the circles are the photographs', not the drawings'": lambda real, drawn, k: (
            (torch.cdist(drawn, real) <= torch.cdist(drawn, drawn).sort(1).values[:, [k]]).any(1).double().mean()
        ),
    },
)

coverage_exercise = Exercise(
    "08-5",
    coverage_of,
    two_crowds,
    wrong={
        "that is precision: the share of drawings": precision_of,
        "the circles are the photographs', not the drawings'": lambda real, drawn, k: precision_of(drawn, real, k),
        "a photograph's nearest neighbour is itself; it does not count": lambda real, drawn, k: coverage_of(
            real, drawn, k - 1
        ),
        "that is the mean number of drawings in a circle": lambda real, drawn, k: (
            (torch.cdist(real, drawn) <= circles(real, k)[:, None]).double().sum(1).mean()
        ),
    },
)


# 6 · folds by person


def fold_of(pids, folds):
    return pids.unique(return_inverse=True)[1] % folds


def some_people(g):
    names = torch.randperm(60, generator=g)[: whole(g, 4, 9)]
    return names[torch.randint(len(names), (whole(g, 12, 24),), generator=g)], whole(g, 2, 4)


fold_exercise = Exercise(
    "08-6",
    fold_of,
    some_people,
    wrong={
        "images were dealt out, not people: one person is in several folds": lambda pids, folds: (
            torch.arange(len(pids)) % folds
        ),
        "numbers have gaps; deal people out by their place in the order": lambda pids, folds: pids % folds,
    },
)


# 7 · not dominated


def worth_having(scores):
    least, better = (scores[:, None] >= scores).all(2), (scores[:, None] > scores).any(2)
    return ~(least & better).any(0)


def some_systems(g):
    scores = torch.randint(0, 5, (whole(g, 5, 9), whole(g, 2, 3)), generator=g).float()
    scores[1] = scores[0]  # equal systems do not dominate each other
    return (scores,)


worth_exercise = Exercise(
    "08-7",
    worth_having,
    some_systems,
    wrong={
        "better in all scores is too much to ask: at least as good in all, better in one": lambda scores: (
            ~(scores[:, None] > scores).all(2).any(0)
        ),
        "equal systems do not dominate each other": lambda scores: (
            ~((scores[:, None] >= scores).all(2) & ~torch.eye(len(scores), dtype=torch.bool)).any(0)
        ),
        "those are the dominated ones": lambda scores: ~worth_having(scores),
        "the best mean is one of them, but not the only one": lambda scores: scores.mean(1) == scores.mean(1).max(),
    },
)


# 8 · the winner's curse


def flattered(gains):
    first, second = gains.chunk(2, dim=1)
    best = first.mean(1).argmax()
    return first[best].mean() - second[best].mean()


def some_gains(g):
    n, pairs = whole(g, 4, 9), 2 * whole(g, 2, 5)
    return (torch.randn(n, 1, generator=g) + 2 * torch.randn(n, pairs, generator=g),)


flattered_exercise = Exercise(
    "08-8",
    flattered,
    some_gains,
    wrong={
        "the best is chosen by the first half alone": lambda gains: (
            best := gains.mean(1).argmax(),
            gains.chunk(2, 1)[0][best].mean() - gains.chunk(2, 1)[1][best].mean(),
        )[1],
        "the second half of the same system, not the best of the second half": lambda gains: (
            gains.chunk(2, 1)[0].mean(1).max() - gains.chunk(2, 1)[1].mean(1).max()
        ),
        "the other way round: the first half is the flattered one": lambda gains: -flattered(gains),
    },
)
