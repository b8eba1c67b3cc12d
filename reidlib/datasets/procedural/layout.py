"""Market-1501's plan: which person is seen where and when, and the file name of each picture."""

import bisect

import numpy as np
import pandas as pd

from .camera import Network, Size

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test", "gt_bbox": "gt_bbox"}
RATE = 25  # frames between two pictures of a track


def sizes(network: Network) -> dict[str, Size]:
    """Return the sizes by name; `full` has the counts of the real data set."""
    return network.sizes


def _seen_evenly(ids: int, cameras: int) -> np.ndarray:
    """Who passes which camera in small sets, bool [ids, cameras]: most miss one, so every pair has new ids."""
    seen = np.ones((ids, cameras), dtype=bool)
    for person in range(ids):
        turn, group = person % (cameras + 2), person // (cameras + 2)
        if turn < cameras:
            seen[person, turn] = False
        elif turn == cameras:
            seen[person, [group % cameras, (group + cameras // 2) % cameras]] = False
    return seen


def seen_by_chance(ids: int, total: int, network: Network, rng: np.random.Generator) -> np.ndarray:
    """Who passes which camera in the full set: `total` (id, camera) pairs (0: any number), two cameras at least."""
    seen = rng.random((ids, len(network.cameras))) < np.array(network.seen)
    while True:
        few = np.flatnonzero(seen.sum(1) < 2)
        if len(few) == 0:
            break
        seen[few, rng.integers(seen.shape[1], size=len(few))] = True
    while total and seen.sum() != total:
        person, camera = (
            rng.integers(ids),
            rng.choice(len(network.cameras), p=np.array(network.seen) / sum(network.seen)),
        )
        if seen.sum() < total:
            seen[person, camera] = True
        elif seen[person].sum() > 2:
            seen[person, camera] = False
    return seen


def share_out(weights: np.ndarray, total: int) -> np.ndarray:
    """Split `total` things by weights so that every positive weight gets one at least, int64 of the same shape.

    >>> share_out(np.array([0.0, 1.0, 3.0]), 10).tolist()
    [0, 3, 7]
    """
    flat = weights.reshape(-1)
    base = (flat > 0).astype(np.int64)
    rest = total - base.sum()
    if rest < 0:
        raise ValueError(f"{total} images cannot give {base.sum()} (identity, camera) pairs one each")
    exact = flat / flat.sum() * rest
    counts = base + np.floor(exact).astype(np.int64)
    missing = total - counts.sum()
    order = np.argsort(np.floor(exact) - exact, kind="stable")  # largest remainders first
    counts[order[:missing]] += 1
    return counts.reshape(weights.shape)


def number_people(wanted: Size, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the numbers of training, test and lone people, sorted: shuffled, those who came later at the end.

    >>> wanted = Size(2, 5, lone_ids=1, first=(2, 1, 0))
    >>> [group.tolist() for group in number_people(wanted, np.random.default_rng(0))]
    [[1, 3], [2, 4, 5, 6, 7], [8]]
    """
    everyone = np.array([wanted.train_ids, wanted.test_ids, wanted.lone_ids])
    first = everyone if wanted.first is None else np.array(wanted.first)
    shuffled = 1 + rng.permutation(first.sum())
    later = 1 + np.arange(first.sum(), everyone.sum())
    groups = (np.split(pids, np.cumsum(n)[:2]) for pids, n in ((shuffled, first), (later, everyone - first)))
    return [np.sort(np.concatenate(parts)) for parts in zip(*groups, strict=True)]


def visits(pid: int, camera: int, count: int, day: np.ndarray, network: Network) -> list[tuple[int, int, int]]:
    """Sequence, frame and step of each of the `count` moments at which one camera sees one person."""
    edges = network.sequences[camera]
    first, again, chance, split, later = day
    times = [first] if count < 3 or chance > 0.4 else [first, again]
    moments = []
    for visit, time in enumerate(times):
        part = count if len(times) == 1 else (max(1, round(count * (0.4 + 0.4 * split))) if visit == 0 else 0)
        part = count - len(moments) if visit == len(times) - 1 else part
        time = (time + 0.012 * later * (camera + 1)) % 1.0
        sequence = bisect.bisect(edges, time)
        begin = (0.0, *edges)[sequence]
        start = 351 + int((time - begin) * 200_000) + 3 * pid % 25
        moments += [(sequence + 1, start + RATE * step, step) for step in range(part)]
    known: dict[tuple[int, int], int] = {}
    result = []
    for sequence, frame, step in moments:  # two visits may share a sequence
        while (sequence, frame) in known:
            frame += RATE * count
        known[sequence, frame] = step
        result.append((sequence, frame, step))
    return result


def _row(subset: str, pid: int, person: int, camera: int, moment: tuple[int, int, int], number: int, box: str) -> dict:
    sequence, frame, step = moment
    label = f"{pid:04d}" if pid >= 0 else str(pid)
    return {
        "subset": subset,
        "name": f"{label}_c{camera + 1}s{sequence}_{frame:06d}_{number:02d}.jpg",
        "pid": pid,
        "person": person,
        "camid": camera + 1,
        "sequence": sequence,
        "frame": frame,
        "step": step,
        "box": box,
    }


def people_rows(
    pids: np.ndarray, counts: np.ndarray, extra: np.ndarray, subset: str, network: Network, rng: np.random.Generator
) -> list[dict]:
    """Rows of detected boxes; where `extra` is 1 one moment of the track becomes the query, drawn by hand."""
    rows = []
    for pid, line, queries in zip(pids.tolist(), counts, extra, strict=True):
        day = rng.random(5)
        for camera, (count, query) in enumerate(zip(line.tolist(), queries.tolist(), strict=True)):
            if count + query == 0:
                continue
            moments = visits(pid, camera, count + query, day, network)
            chosen = int(rng.integers(len(moments))) if query else -1
            numbers = rng.integers(1, 7, size=len(moments))
            for index, moment in enumerate(moments):
                if index == chosen:
                    rows.append(_row("query", pid, pid, camera, moment, 0, "drawn"))
                else:
                    rows.append(_row(subset, pid, pid, camera, moment, int(numbers[index]), "detected"))
    return rows


def _false_rows(kind: str, count: int, pids: np.ndarray, network: Network, rng: np.random.Generator) -> list[dict]:
    """Rows of junk (-1: badly placed boxes around test people) or distractors (0000: boxes around something else)."""
    rows, taken = [], set()
    share = np.array(network.share) / sum(network.share)
    while len(rows) < count:
        camera = int(rng.choice(len(network.cameras), p=share))
        sequence = int(rng.integers(len(network.sequences[camera]) + 1)) + 1
        frame = int(rng.integers(351, 90_000)) * 2
        if (camera, sequence, frame) in taken:
            continue
        taken.add((camera, sequence, frame))
        person = int(rng.choice(pids)) if kind == "junk" else 30_000 + len(rows)
        rows.append(
            _row(
                "gallery",
                -1 if kind == "junk" else 0,
                person,
                camera,
                (sequence, frame, 0),
                int(rng.integers(1, 9)),
                kind,
            )
        )
    return rows


def _drawn_rows(rows: list[dict], total: int, rng: np.random.Generator) -> list[dict]:
    """Hand-drawn boxes (gt_bbox) of moments that also have a detected box; all queries are among them."""
    queries = [row for row in rows if row["subset"] == "query"]
    others = [row for row in rows if row["subset"] != "query"]
    if total:
        picked = [
            others[index] for index in sorted(rng.choice(len(others), total - len(queries), replace=False).tolist())
        ]
    else:
        seen: dict[tuple[int, int], int] = {}
        picked = []
        for row in others:
            key = (row["pid"], row["camid"])
            if row["subset"] == "gallery" and seen.get(key, 0) < 2:
                seen[key] = seen.get(key, 0) + 1
                picked.append(row)
    return [
        _row(
            "gt_bbox",
            row["pid"],
            row["person"],
            row["camid"] - 1,
            (row["sequence"], row["frame"], row["step"]),
            0,
            "drawn",
        )
        for row in queries + picked
    ]


def plan(network: Network, size: str, seed: int) -> pd.DataFrame:
    """Return the plan of a data set: one row for each picture, sorted by folder and name.

    >>> from .networks import MARKET1501
    >>> plan(MARKET1501, "smoke", 0).groupby("subset").size().to_dict()
    {'gallery': 120, 'gt_bbox': 120, 'query': 40, 'train': 192}
    """
    wanted = network.sizes[size]
    salt = [network.salt] if network.salt else []
    rng = np.random.default_rng(np.random.SeedSequence([seed & 0xFFFFFFFF, 201, *salt, *size.encode()]))
    train, test, _ = number_people(wanted, rng)
    rows: list[dict] = []
    for subset, group, images in (("train", train, wanted.train), ("gallery", test, wanted.gallery)):
        queries = wanted.query if subset == "gallery" else 0
        if size == "full":
            seen = seen_by_chance(len(group), queries, network, rng)
            weights = seen * rng.gamma(2.0, 1.0, (len(group), 1)) * np.array(network.share) / np.array(network.seen)
            counts = share_out(weights, images)
        else:
            seen = _seen_evenly(len(group), len(network.cameras))
            counts = np.stack([share_out(line.astype(float), images // len(group)) for line in seen])
        extra = seen.astype(np.int64) if subset == "gallery" else np.zeros_like(counts)
        rows += people_rows(group, counts, extra, subset, network, rng)
    drawn = _drawn_rows(rows, wanted.gt_bbox, rng)
    rows += _false_rows("junk", wanted.junk, test, network, rng)
    rows += _false_rows("distractor", wanted.distractors, test, network, rng)
    table = pd.DataFrame(rows + drawn)
    table["folder"] = table["subset"].map(FOLDERS)
    return table.sort_values(["folder", "name"], kind="stable", ignore_index=True).drop_duplicates(["folder", "name"])
