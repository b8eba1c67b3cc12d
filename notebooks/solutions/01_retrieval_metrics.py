"""Exercises of notebook 01: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import functools

import torch

from reidlib.course.exercises import Exercise, whole

# 1 · CMC(k) of several rankings


def cmc(relevance, k):
    return relevance[:, :k].any(1).double().mean()


def some_rankings(g, hits=4):
    """Draw rankings of ones and zeros, at least one 1 in each, and a rank in the middle."""
    queries, gallery = whole(g, 3, 7), whole(g, 6, 12)
    relevance = torch.rand(queries, gallery, generator=g) < hits / gallery
    relevance[torch.arange(queries), torch.randint(gallery, (queries,), generator=g)] = True
    return relevance, whole(g, 2, 5)


cmc_exercise = Exercise(
    "01-1",
    cmc,
    some_rankings,
    wrong={
        "that is precision at k: CMC asks whether there is any right image, not how many": (
            lambda relevance, k: relevance[:, :k].double().mean()
        ),
        "only rank k is looked at; ranks 1 to k count": lambda relevance, k: relevance[:, k - 1].double().mean(),
        "the first k ranks are the columns 0 to k-1": lambda relevance, k: relevance[:, : k - 1].any(1).double().mean(),
        "a share of the queries is asked for, not their number": lambda relevance, k: (
            relevance[:, :k].any(1).double().sum()
        ),
        "that is recall at k: the share of a person's images among the first k": lambda relevance, k: (
            relevance[:, :k].sum(1) / relevance.sum(1)
        ).mean(),
    },
)


# 2 · mINP


def inverse_negative_penalty(relevance):
    ranks = torch.arange(1, len(relevance) + 1)[relevance]
    return len(ranks) / ranks[-1]


def one_ranking(g):
    relevance, _ = some_rankings(g)
    relevance[0, :2] = torch.tensor([False, True])  # the first answer is wrong, so that no two readings agree
    relevance[0, -1] = False
    return (relevance[0],)


penalty_exercise = Exercise(
    "01-2",
    inverse_negative_penalty,
    one_ranking,
    wrong={
        "divided by the length of the gallery: the rank of the last right image is asked for": (
            lambda relevance: relevance.double().mean()
        ),
        "that looks at the first right image; take the last": lambda relevance: (
            relevance.sum() / (relevance.int().argmax() + 1)
        ),
        "upside down: right images over rank": lambda relevance: 1 / inverse_negative_penalty(relevance),
        "ranks start at 1, the first column is rank 1": lambda relevance: relevance.sum() / relevance.nonzero()[-1, 0],
        "that is the average precision: a mean over all right images": lambda relevance: average_precision(relevance),
    },
)


def average_precision(relevance):
    """Plain AP of one ranking, a bool [G]."""
    return (relevance.cumsum(0).double() / torch.arange(1, len(relevance) + 1))[relevance].mean()


# 3 · multi-query


def pooled(features, pids, camids):
    queries = sorted(set(zip(pids.tolist(), camids.tolist(), strict=True)))
    return torch.stack([features[(pids == pid) & (camids == camid)].mean(0) for pid, camid in queries])


def several_photographs(g):
    people, cameras = whole(g, 2, 4), whole(g, 2, 3)
    rows = torch.cartesian_prod(torch.randperm(9, generator=g)[:people], torch.randperm(6, generator=g)[:cameras])
    extra = rows[torch.randint(len(rows), (9,), generator=g)]
    rows = torch.cat([rows, rows, extra])[torch.randperm(2 * len(rows) + 9, generator=g)]
    return torch.rand(len(rows), whole(g, 2, 4), generator=g), rows[:, 0], rows[:, 1]


def _pooled_by(keys, features, pool):
    return torch.stack([pool(features[keys == key]) for key in keys.unique().tolist()])


pooling_exercise = Exercise(
    "01-3",
    pooled,
    several_photographs,
    wrong={
        "the cameras are pooled too: a query is one person in one camera, or its own camera cannot be ignored": (
            lambda features, pids, camids: _pooled_by(pids, features, lambda own: own.mean(0))
        ),
        "that is the maximum; the mean was asked for": lambda features, pids, camids: _pooled_by(
            pids * 100 + camids, features, lambda own: own.amax(0)
        ),
        "a sum grows with the number of photographs; take the mean": lambda features, pids, camids: _pooled_by(
            pids * 100 + camids, features, lambda own: own.sum(0)
        ),
        "sorted by camera first; person first, then camera": lambda features, pids, camids: _pooled_by(
            camids * 100 + pids, features, lambda own: own.mean(0)
        ),
        "one row a query is asked for, not one an image": lambda features, pids, camids: torch.stack(
            [features[(pids == p) & (camids == c)].mean(0) for p, c in zip(pids, camids, strict=True)]
        ),
    },
)


# 4 · the equal error rate


def equal_error_rate(genuine, impostor):
    far, frr = [0.0], [1.0]
    for t in torch.cat([genuine, impostor]).unique().tolist():  # ascending
        far.append((impostor <= t).double().mean().item())
        frr.append((genuine > t).double().mean().item())
    right = next(i for i in range(len(far)) if far[i] >= frr[i])
    before, after = far[right - 1] - frr[right - 1], far[right] - frr[right]  # below 0, and from 0 on
    return far[right - 1] + (far[right] - far[right - 1]) * -before / (after - before)


def two_lists(g):
    near, far = (torch.randint(0, 9, (whole(g, 4, 12),), generator=g) / 2 for _ in range(2))  # ties as well
    return near, far + 1.5


def _points(genuine, impostor):
    thresholds = torch.cat([genuine, impostor]).unique()[:, None]
    return (impostor <= thresholds).double().mean(1), (genuine > thresholds).double().mean(1)


def _nearest_point(genuine, impostor):
    far, frr = _points(genuine, impostor)
    best = (far - frr).abs().argmin()
    return (far[best] + frr[best]) / 2


def _smallest_mean(genuine, impostor):
    return (sum(_points(genuine, impostor)) / 2).min()


def _first_above(genuine, impostor):
    far, frr = _points(genuine, impostor)
    return far[(far >= frr).int().argmax()]


eer_exercise = Exercise(
    "01-4",
    equal_error_rate,
    two_lists,
    wrong={
        "a point of the curve is taken; between two points the curve is a straight line that meets FAR = 1 - TAR": (
            _nearest_point
        ),
        "that is FAR at the first threshold where it is the larger error, not where both are equal": _first_above,
        "the lists are swapped: small distances should be accepted": lambda genuine, impostor: equal_error_rate(
            impostor, genuine
        ),
        "that is the smallest mean of both errors, which need not lie where they are equal": _smallest_mean,
        "the threshold in the middle of the two means need not be where the errors are equal": (
            lambda genuine, impostor: (impostor <= (genuine.mean() + impostor.mean()) / 2).double().mean()
        ),
    },
)


# 5 · a threshold for a budget of false accepts


def threshold_for(genuine, impostor, budget):
    fits = [t for t in genuine.unique().tolist() if (impostor <= t).sum() <= budget]
    return max(fits, default=-1.0), sum(t <= max(fits, default=-1.0) for t in genuine.tolist()) / len(genuine)


def lists_and_budget(g):
    near, far = two_lists(g)
    return near, far, whole(g, 1, len(far) - 2)


def _threshold(genuine, impostor, fits):
    """Return the largest genuine distance of which `fits(t)` is true, and the share of genuine pairs up to it."""
    limit = max((t for t in genuine.unique().tolist() if fits(t)), default=-1.0)
    return limit, (genuine <= limit).double().mean()


budget_exercise = Exercise(
    "01-5",
    threshold_for,
    lists_and_budget,
    wrong={
        "impostors at the threshold itself are accepted too: count those at t or nearer": (
            lambda genuine, impostor, budget: _threshold(genuine, impostor, lambda t: (impostor < t).sum() <= budget)
        ),
        "at most `budget` impostors may be accepted: as many as that are still allowed": (
            lambda genuine, impostor, budget: _threshold(genuine, impostor, lambda t: (impostor <= t).sum() < budget)
        ),
        "the budget counts impostor pairs, not the share of them": lambda genuine, impostor, budget: _threshold(
            genuine, impostor, lambda t: (impostor <= t).double().mean() <= budget
        ),
        "the threshold is the distance of a genuine pair; beyond it nothing is gained": (
            lambda genuine, impostor, budget: (
                impostor.sort().values[budget - 1],
                (genuine <= impostor.sort().values[budget - 1]).double().mean(),
            )
        ),
        "the share of genuine pairs is asked for, not their number": lambda genuine, impostor, budget: (
            threshold_for(genuine, impostor, budget)[0],
            threshold_for(genuine, impostor, budget)[1] * len(genuine),
        ),
    },
)


# 6 · re-ranking in small


def neighbours(distances, k):
    """Who is among the k nearest of each image, itself not counted but always in: bool [n,n]."""
    nearest = distances.argsort(dim=1, stable=True)[:, : k + 1]  # an image is its own nearest
    return torch.zeros_like(distances, dtype=torch.bool).scatter(1, nearest, True)


def reranked(distances, k, old):
    near = neighbours(distances, k)
    sets = near & near.T  # k-reciprocal: j is near i, and i is near j
    return _mix(distances, sets, old)


def _mix(distances, sets, old):
    both = (sets[:, None] & sets).sum(2)
    either = (sets[:, None] | sets).sum(2)
    jaccard = 1 - both / either
    return (1 - old) * jaccard + old * distances / distances.amax(1, keepdim=True)


def distances_among(g):
    places = torch.rand(whole(g, 8, 12), 2, generator=g, dtype=torch.double)
    return torch.cdist(places, places), whole(g, 2, 4), whole(g, 2, 8) / 10


def _sets(distances, k):
    near = neighbours(distances, k)
    return near & near.T


rerank_exercise = Exercise(
    "01-6",
    reranked,
    distances_among,
    wrong={
        "near in one direction only: both must count each other among their k nearest": lambda distances, k, old: _mix(
            distances, neighbours(distances, k), old
        ),
        "near in either direction; both must hold": lambda distances, k, old: _mix(
            distances, neighbours(distances, k) | neighbours(distances, k).T, old
        ),
        "an image counts as its own neighbour: the set holds itself and k others": lambda distances, k, old: _mix(
            distances, _sets(distances, k - 1), old
        ),
        "λ weighs the old distance, 1 - λ the overlap of the sets": lambda distances, k, old: _mix(
            distances, _sets(distances, k), 1 - old
        ),
        "divide the old distance by its row's largest, so that it lies between 0 and 1 like the other": (
            lambda distances, k, old: _mix(distances, _sets(distances, k), 0) * (1 - old) + old * distances
        ),
        "that is the overlap; a distance is 1 minus it": lambda distances, k, old: (
            (1 - old) * (1 - _mix(distances, _sets(distances, k), 0))
            + old * distances / distances.amax(1, keepdim=True)
        ),
    },
)


# 7 · the whole evaluation


def evaluate(distances, query_pids, query_camids, gallery_pids, gallery_camids):
    first, precisions = [], []
    for row, pid, camid in zip(distances, query_pids, query_camids, strict=True):
        kept = (gallery_pids != -1) & ~((gallery_pids == pid) & (gallery_camids == camid))
        order = row[kept].argsort(stable=True)
        relevance = gallery_pids[kept][order] == pid
        if relevance.any():  # a query without a right image is not averaged
            first.append(relevance[0])
            precisions.append(average_precision(relevance))
    return torch.stack(first).double().mean(), torch.stack(precisions).mean()


MISTAKES = {
    "junk (pid -1) counts as wrong answers": "junk",
    "images of the query's person and camera count as right answers": "same camera",
    "everything of the query's camera is removed; only the same person there should be": "whole camera",
    "distractors (pid -3) are removed; they stay, as wrong answers": "distractors",
    "sorted from far to near: a distance is small for what is alike": "descending",
    "average precision is divided by the number of images, not by the number of right ones": "divisor",
}


def evaluate_with(mistake, distances, query_pids, query_camids, gallery_pids, gallery_camids):
    """As `evaluate`, with one of the mistakes; "" makes none."""
    first, precisions = [], []
    for row, pid, camid in zip(distances, query_pids, query_camids, strict=True):
        same_camera = gallery_camids == camid
        own = same_camera if mistake == "whole camera" else same_camera & (gallery_pids == pid)
        removed = torch.zeros_like(own) if mistake == "same camera" else own
        if mistake != "junk":
            removed = removed | (gallery_pids == -1)
        if mistake == "distractors":
            removed = removed | (gallery_pids == -3)
        order = row[~removed].argsort(stable=True, descending=mistake == "descending")
        relevance = gallery_pids[~removed][order] == pid
        if relevance.any():
            first.append(relevance[0])
            scale = relevance.double().mean() if mistake == "divisor" else 1
            precisions.append(average_precision(relevance) * scale)
    return torch.stack(first).double().mean(), torch.stack(precisions).mean()


def queries_and_gallery(g):
    """Draw queries whose persons are in the gallery, in the same and in another camera; one query's is not."""
    people, cameras = whole(g, 3, 5), 3
    everywhere = torch.cartesian_prod(torch.arange(people) + 1, torch.arange(cameras) + 1)
    others = torch.tensor([[-1, 1], [-1, 2], [-3, 1], [-3, 2], [-3, 3]]).repeat(whole(g, 1, 2), 1)
    gallery = torch.cat([everywhere, everywhere[torch.randint(len(everywhere), (8,), generator=g)], others])
    gallery = gallery[torch.randperm(len(gallery), generator=g)]
    queries = torch.cat([everywhere[torch.randint(len(everywhere), (6,), generator=g)], torch.tensor([[99, 1]])])
    distances = torch.rand(len(queries), len(gallery), generator=g)
    same = queries[:, :1] == gallery[:, 0]
    distances -= 0.3 * same + 0.3 * (queries[:, 1:] == gallery[:, 1])  # walls are alike, too
    return (distances + 1, *queries.T, *gallery.T)


def _all_queries(distances, query_pids, query_camids, gallery_pids, gallery_camids):
    found = evaluate(distances, query_pids, query_camids, gallery_pids, gallery_camids)
    return tuple(value * (len(query_pids) - 1) / len(query_pids) for value in found)


evaluate_exercise = Exercise(
    "01-7",
    evaluate,
    queries_and_gallery,
    wrong={sentence: functools.partial(evaluate_with, mistake) for sentence, mistake in MISTAKES.items()}
    | {"the query whose person is not in the gallery counts as 0; it is left out of both averages": _all_queries},
)


# 8 · six broken evaluators

PROBES = (  # a mistake's number, a gallery of (pid, camid) from near to far, and what rank-1 and AP show the mistake
    (5, [(5, 2), (7, 2), (7, 2)], lambda rank_one, ap: rank_one == 0),  # the right image stood first
    (6, [(5, 2), (7, 2), (7, 2)], lambda rank_one, ap: ap < 1),  # first and only: the AP is 1
    (1, [(-1, 2), (5, 2)], lambda rank_one, ap: rank_one == 0),  # junk stood before it
    (2, [(5, 1), (7, 2), (5, 2)], lambda rank_one, ap: rank_one == 1),  # the query's own camera was found
    (3, [(7, 1), (5, 2)], lambda rank_one, ap: rank_one == 1),  # a stranger of the query's camera was gone
    (4, [(-3, 2), (5, 2)], lambda rank_one, ap: rank_one == 1),  # a distractor was gone
)


def diagnose(evaluators):
    return _found_by(PROBES, evaluators)


def _found_by(probes, evaluators):
    query = torch.tensor([5]), torch.tensor([1])  # person 5 in camera 1
    found = []
    for evaluator in evaluators:
        number = 0
        for mistake, gallery, shows in probes:
            distances = torch.arange(1.0, len(gallery) + 1)[None]
            if number == 0 and shows(*evaluator(distances, *query, *torch.tensor(gallery).T)):
                number = mistake
        found.append(number)
    return torch.tensor(found)


class Evaluator:
    """An evaluation that a colleague wrote."""

    def __init__(self, mistake):
        self._mistake = mistake

    def __call__(self, distances, query_pids, query_camids, gallery_pids, gallery_camids):
        return evaluate_with(self._mistake, distances, query_pids, query_camids, gallery_pids, gallery_camids)

    def __repr__(self):
        return "evaluator"


def seven_evaluators(g):
    mistakes = ["", *MISTAKES.values()]
    return ([Evaluator(mistakes[i]) for i in torch.randperm(7, generator=g).tolist()],)


def _without(*numbers):
    return functools.partial(_found_by, [probe for probe in PROBES if probe[0] not in numbers])


diagnose_exercise = Exercise(
    "01-8",
    diagnose,
    seven_evaluators,
    wrong={
        "your galleries hold no junk, so mistake 1 looks right": _without(1),
        "the query's own person and camera stand in none of your galleries, so mistake 2 looks right": _without(2),
        "no stranger of the query's camera stands before the right image, so mistake 3 looks right": _without(3),
        "no distractor stands before the right image, so mistake 4 looks right": _without(4),
        "you look at rank-1 only, which mistake 6 leaves alone": _without(6),
        "with a right image at both ends of the gallery, from far to near is as good as from near to far": _without(5),
    },
)
