"""Exercises of notebook 10: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import re

import pandas as pd
import torch

from reidlib.course.exercises import Exercise, whole

# 1 · cameras in names


def cameras_of(names):
    found = [re.search(r"cam(\d+)", name) for name in names]
    if not all(found):
        return torch.full((len(names),), -1)
    return torch.tensor([int(match[1]) for match in found])


def some_names(g, lost=None):
    people = ["anna", "ben", "carla", "camilla"]
    order = torch.randint(4, (whole(g, 3, 6),), generator=g).tolist()
    names = [f"{people[i]}_cam{whole(g, 1, 14)}_{k}.jpg" for k, i in enumerate(order)]
    if whole(g, 0, 2) == 0:
        names[whole(g, 0, len(names) - 1)] = f"{people[whole(g, 0, 3)]}_forwarded.jpg"
    return (names,)


def _cameras(names, pattern):
    found = [re.search(pattern, name) for name in names]
    return torch.tensor([int(match[1]) if match else -1 for match in found])


cameras_exercise = Exercise(
    "10-1",
    cameras_of,
    some_names,
    wrong={
        "where one name lacks its camera, the others are unknown too: no rule can be applied to half a set": (
            lambda names: _cameras(names, r"cam(\d+)")
        ),
        "a camera's number may have several digits": lambda names: (
            _cameras(names, r"cam(\d)") if all("_cam" in name for name in names) else cameras_of(names)
        ),
        "that is the number at the end of the name; the camera stands after `cam`": lambda names: (
            _cameras(names, r"(\d+)\.jpg") if all("_cam" in name for name in names) else cameras_of(names)
        ),
        "each photograph is given a camera of its own": lambda names: torch.arange(1, len(names) + 1),
    },
)


# 2 · near copies


def near_an_earlier_one(pictures, limit):
    return torch.stack([((pictures[:i] - p).norm(dim=1) < limit).any() for i, p in enumerate(pictures)])


def small_pictures(g):
    different = torch.rand(whole(g, 4, 8), whole(g, 2, 4), generator=g)
    again = different[torch.randint(len(different), (4,), generator=g)]
    again = again + 0.04 * torch.rand(again.shape, generator=g)
    pictures = torch.cat([different, again])
    return pictures[torch.randperm(len(pictures), generator=g)], 0.1


copies_exercise = Exercise(
    "10-2",
    near_an_earlier_one,
    small_pictures,
    wrong={
        "all pictures of a pair are marked; the first of them stays": lambda pictures, limit: (
            torch.cdist(pictures, pictures).fill_diagonal_(torch.inf) < limit
        ).any(1),
        "each picture is near itself: compare with those before it only": lambda pictures, limit: (
            torch.cdist(pictures, pictures) < limit
        ).any(1),
        "the last of a pair stays and the earlier ones are marked; it should be the other way round": (
            lambda pictures, limit: (torch.cdist(pictures, pictures) < limit).triu(1).any(1)
        ),
        "only the neighbour just before is looked at": lambda pictures, limit: torch.cat(
            [torch.zeros(1, dtype=torch.bool), (pictures[1:] - pictures[:-1]).norm(dim=1) < limit]
        ),
        "that is whether all earlier ones are near; one is enough": lambda pictures, limit: torch.stack(
            [((pictures[:i] - p).norm(dim=1) < limit).all() for i, p in enumerate(pictures)]
        ),
    },
)


# 3 · the error of a score, by people


def standard_error(right, pids, drawn):
    return _averages(right, pids, drawn).std()


def _averages(right, pids, drawn):
    """The mean over the queries of the people drawn, for each of the R draws."""
    mine = pids.unique()[:, None] == pids  # [P,Q]
    hits, queries = (mine & right).sum(1), mine.sum(1)  # of each person
    return hits[drawn].sum(1) / queries[drawn].sum(1)


def answers_and_draws(g):
    people = whole(g, 4, 7)
    pids = torch.cat([torch.arange(people), torch.randint(people, (whole(g, 8, 15),), generator=g)]) * 3
    luck = torch.rand(people, generator=g)[pids // 3]  # some people are easy
    right = torch.rand(len(pids), generator=g) < luck
    right[:2] = torch.tensor([True, False])
    return right, pids, torch.randint(people, (whole(g, 20, 30), people), generator=g)


def _of_each(right, pids):
    return torch.stack([right[pids == pid].double().mean() for pid in pids.unique().tolist()])


error_exercise = Exercise(
    "10-3",
    standard_error,
    answers_and_draws,
    wrong={
        "each person weighs the same: average over the queries of the people drawn, not over people": (
            lambda right, pids, drawn: _of_each(right, pids)[drawn].mean(1).std()
        ),
        "somebody who is drawn twice counts twice": lambda right, pids, drawn: torch.stack(
            [right[torch.isin(pids, pids.unique()[row])].double().mean() for row in drawn]
        ).std(),
        "the people are not drawn: that is the spread over queries, divided by the root of their number": (
            lambda right, pids, drawn: right.double().std() / len(right) ** 0.5
        ),
        "that is the variance: take the root": lambda right, pids, drawn: _averages(right, pids, drawn).var(),
        "that is the mean over the draws; how far they scatter is asked for": lambda right, pids, drawn: _averages(
            right, pids, drawn
        ).mean(),
        "the number of queries changes with the people drawn: divide by it, not by all": lambda right, pids, drawn: (
            _averages(right, pids, drawn) * _queries(pids, drawn) / len(pids)
        ).std(),
    },
)


def _queries(pids, drawn):
    return (pids.unique()[:, None] == pids).sum(1)[drawn].sum(1)


# 4 · the neck that COCO does not have


def neck_of(points):
    left, right = points[5], points[6]
    if left[2] > 0 and right[2] > 0:
        return torch.cat([(left[:2] + right[:2]) / 2, torch.ones(1)])
    return torch.tensor([-1.0, -1.0, 0.0])


def coco_points(g):
    seen = (torch.rand(17, 1, generator=g) > 0.3).float()
    places = torch.where(seen > 0, torch.rand(17, 2, generator=g) * 64, -1)
    return (torch.cat([places, seen], 1),)


def _between(points, a, b):
    return torch.cat([(points[a, :2] + points[b, :2]) / 2, torch.ones(1)])


neck_exercise = Exercise(
    "10-4",
    neck_of,
    coco_points,
    wrong={
        "a shoulder that is not seen stands at (-1, -1): the place between is then nowhere": lambda points: _between(
            points, 5, 6
        ),
        "one shoulder is not enough: its place is no neck": lambda points: (
            neck_of(points)
            if bool(points[5, 2] > 0) == bool(points[6, 2] > 0)
            else torch.cat([points[5 if points[5, 2] > 0 else 6, :2], torch.ones(1)])
        ),
        "counted from 1: the shoulders are rows 5 and 6 if the first row is 0": lambda points: (
            _between(points, 4, 5) if points[4, 2] * points[5, 2] > 0 else torch.tensor([-1.0, -1.0, 0.0])
        ),
        "a point that is missing is (-1, -1, 0), not (0, 0, 0)": lambda points: (
            neck_of(points) * (points[5, 2] * points[6, 2])
        ),
        "the third number says that it is seen: 1": lambda points: neck_of(points) * torch.tensor([1.0, 1.0, 0.0]),
    },
)


# 5 · a search through many strangers


def search(far, n, quiet):
    return (1 - far) ** n, 1 - quiet ** (1 / n)


def a_search(g):
    far, quiet = torch.rand(2, generator=g).tolist()
    return 0.001 + 0.01 * far, whole(g, 20, 500), 0.5 + 0.45 * quiet


search_exercise = Exercise(
    "10-5",
    search,
    a_search,
    wrong={
        "the probabilities do not add up: with n pairs, n * far can be more than 1": lambda far, n, quiet: (
            1 - n * far,
            (1 - quiet) / n,
        ),
        "that is the probability that somebody is accepted; nobody was asked for": lambda far, n, quiet: (
            1 - (1 - far) ** n,
            1 - quiet ** (1 / n),
        ),
        "the rate belongs to one pair; the search has n of them": lambda far, n, quiet: (1 - far, 1 - quiet),
        "that is the probability that all of them are accepted": lambda far, n, quiet: (far**n, 1 - quiet ** (1 / n)),
        "the second number is the share of pairs that are turned down; the accepted ones were asked for": (
            lambda far, n, quiet: ((1 - far) ** n, quiet ** (1 / n))
        ),
    },
    tolerance=1e-8,
)


# 6 · a threshold that was chosen on test people


def report(validation_impostor, test_genuine, test_impostor, far):
    limit = threshold_for(validation_impostor, far)
    return rates(test_genuine, test_impostor, limit)


def threshold_for(impostor, far):
    """The largest of the distances at which the share of impostors is at most `far`; -1 if there is none."""
    fits = [t for t in impostor.unique().tolist() if (impostor <= t).double().mean() <= far]
    return max(fits, default=-1.0)


def rates(genuine, impostor, limit):
    """FAR and TAR."""
    return (impostor <= limit).double().mean(), (genuine <= limit).double().mean()


def distances_of_three(g):
    shift = torch.rand(1, generator=g) - 0.5  # other people are nearer, or farther
    validation, genuine, impostor = (torch.rand(whole(g, 20, 40), generator=g) + k for k in (0.6, 0.0, 0.6))
    return validation, genuine, impostor + shift, 0.05 * whole(g, 3, 6)


threshold_exercise = Exercise(
    "10-6",
    report,
    distances_of_three,
    wrong={
        "still chosen on the test people: the wanted rate is then met, whatever the network": (
            lambda validation, genuine, impostor, far: rates(genuine, impostor, threshold_for(impostor, far))
        ),
        "chosen on validation people, but scored on them as well": lambda validation, genuine, impostor, far: rates(
            genuine, validation, threshold_for(validation, far)
        ),
        "chosen on both together: the test people must not take part": lambda validation, genuine, impostor, far: rates(
            genuine, impostor, threshold_for(torch.cat([validation, impostor]), far)
        ),
        "FAR comes first, then TAR": lambda validation, genuine, impostor, far: rates(
            genuine, impostor, threshold_for(validation, far)
        )[::-1],
        "that is the wanted rate; the one that was measured is asked for": lambda validation, genuine, impostor, far: (
            far,
            rates(genuine, impostor, threshold_for(validation, far))[1],
        ),
    },
)


# 7 · a dirty table


def repaired(table):
    text = table.map(lambda value: str(value).strip().lower())
    pid = pd.to_numeric(text["pid"], errors="coerce")
    camid = pd.to_numeric(text["camid"].str.removeprefix("cam"), errors="coerce").fillna(-1)
    clean = pd.DataFrame({"path": text["path"], "pid": pid, "camid": camid, "asks": text["split"] == "query"})
    clean = clean[pid.notna()]
    people = clean.groupby("path")["pid"].transform("nunique")
    clean = clean[people == 1].drop_duplicates("path")  # what is said to show two people is not guessed
    answered = clean.loc[~clean["asks"], "pid"]
    clean = clean[~clean["asks"] | clean["pid"].isin(answered)]
    return torch.tensor(clean.reset_index()[["index", "pid", "camid"]].to_numpy()).long()


def a_dirty_table(g):
    def one(*words):
        return words[whole(g, 0, len(words) - 1)]

    rows = []
    for pid in range(1, whole(g, 4, 6)):
        for k in range(whole(g, 2, 4)):
            written, camera = one(f"{pid}", f" {pid} ", f"{pid}.0"), whole(g, 1, 3)
            camera = one(f"{camera}", f"cam{camera}", f"{camera}.0", f" Cam{camera}", "", "?")
            split = one("query", "Query ", " QUERY") if k == 0 else one("gallery", "Gallery ")
            rows.append([f"{pid}_{k}.jpg", written, camera, split])
    rows.append([f"alone_{whole(g, 0, 9)}.jpg", "90", "1", "query"])  # nobody answers
    rows.append([f"unknown_{whole(g, 0, 9)}.jpg", one("", "?", "anna"), "2", "gallery"])
    again = rows[whole(g, 1, len(rows) - 3)]
    rows.append([f" {again[0].upper()}", *again[1:]])  # the same photograph, the same person
    disputed = rows[whole(g, 1, 3)]
    rows.append([disputed[0], "77", "1", "gallery"])  # the same photograph, somebody else
    order = torch.randperm(len(rows), generator=g).tolist()
    return (pd.DataFrame([rows[i] for i in order], columns=["path", "pid", "camid", "split"]),)


def _repaired(table, twice="none stays", lower=True, unanswered=False, no_camera=-1, cam=True):
    """`repaired` with one of its steps left out or done otherwise."""
    text = table.map(lambda value: str(value).strip().lower() if lower else str(value))
    pid = pd.to_numeric(text["pid"], errors="coerce")
    camid = pd.to_numeric(text["camid"].str.removeprefix("cam") if cam else text["camid"], errors="coerce")
    clean = pd.DataFrame({"path": text["path"], "pid": pid, "camid": camid, "asks": text["split"] == "query"})
    clean = clean[pid.notna()].fillna({"camid": no_camera or 0})
    clean = clean if no_camera else clean[clean["camid"] > 0]
    if twice != "both stay":
        people = clean.groupby("path")["pid"].transform("nunique")
        clean = clean[(people == 1) | (twice == "first stays")].drop_duplicates("path")
    answered = clean.loc[~clean["asks"], "pid"]
    clean = clean[~clean["asks"] | clean["pid"].isin(answered) | unanswered]
    return torch.tensor(clean.reset_index()[["index", "pid", "camid"]].to_numpy()).long()


table_exercise = Exercise(
    "10-7",
    repaired,
    a_dirty_table,
    wrong={
        "a photograph that is said to show two people is still there, with the first of them: do not guess": (
            lambda table: _repaired(table, twice="first stays")
        ),
        "photographs stand twice: one row of each stays": lambda table: _repaired(table, twice="both stay"),
        "a query without an answer stays: nothing can be found for it": lambda table: _repaired(table, unanswered=True),
        "rows without a camera are gone; the camera is unknown (-1), the photograph is good": lambda table: _repaired(
            table, no_camera=0
        ),
        "`cam2` is camera 2": lambda table: _repaired(table, cam=False),
        "blanks and capitals are part of your paths and splits": lambda table: _repaired(table, lower=False),
    },
)
