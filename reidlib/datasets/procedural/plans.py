"""The plans of all networks: who is seen where and when, and the name and place of each picture in its own layout."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..readers.cuhk03 import PEOPLE
from ..readers.msmt17 import TRAIN_PEOPLE
from . import layout
from .camera import Network, Size
from .layout import people_rows, seen_by_chance, share_out, visits

MSMT17_FOLDERS = {
    "train": "mask_train_v2", "val": "mask_train_v2", "query": "mask_test_v2", "gallery": "mask_test_v2"
}  # fmt: skip
DAYS = ("0301", "0302", "0303", "0304")
PERIODS = ("morning", "noon", "afternoon")


def plan(network: Network, size: str, seed: int) -> pd.DataFrame:
    """Return the plan of a data set: one row for each picture, sorted by folder and path.

    `person` is whose looks are drawn; `path` (where the layout has sub-folders) is the place inside `folder`; `role`
    (CUHK03) says what a picture is in the new protocol.

    >>> from .networks import network_named
    >>> plan(network_named("cuhk01"), "smoke", 0).groupby("camid").size().to_dict()
    {1: 48, 2: 48}
    """
    if network.layout == "market1501":
        return layout.plan(network, size, seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed & 0xFFFFFFFF, 201, network.salt, *size.encode()]))
    wanted = network.sizes[size]
    makers = {"dukemtmc": _duke, "msmt17": _msmt17, "cuhk03": _cuhk03, "cuhk01": _cuhk01}
    table = makers[network.name](network, wanted, rng)
    place = "path" if "path" in table else "name"
    return table.sort_values(["folder", place], kind="stable", ignore_index=True)


def _tracks(
    subset: str, pids: np.ndarray, images: int, queries: int, network: Network, wanted: Size, rng: np.random.Generator
) -> list[dict]:
    """Rows of people who pass some of many cameras; `queries`: how many in all (0: one for each id and camera)."""
    seen = seen_by_chance(len(pids), queries, network, rng)
    weights = seen * np.array(network.share) / np.array(network.seen)
    if wanted is network.sizes["full"]:  # in real sets some people stay far longer than others
        weights = weights * rng.gamma(2.0, 1.0, (len(pids), 1))
        counts = share_out(weights, images)
    else:
        shares = share_out(np.ones(len(pids)), images)
        counts = np.stack([share_out(line, part) for line, part in zip(weights, shares, strict=True)])
    extra = seen.astype(np.int64) if subset == "gallery" else np.zeros_like(counts)
    return people_rows(pids, counts, extra, subset, network, rng)


def _duke(network: Network, wanted: Size, rng: np.random.Generator) -> pd.DataFrame:
    """DukeMTMC-reID: no junk; some people of the gallery pass one camera only and are nobody's match."""
    train, test, lone = layout.number_people(wanted, rng)
    rows = _tracks("train", train, wanted.train, 0, network, wanted, rng)
    rows += _tracks("gallery", test, wanted.gallery, wanted.query, network, wanted, rng)
    counts = np.zeros((len(lone), len(network.cameras)), dtype=np.int64)
    share = np.array(network.share) / sum(network.share)
    counts[np.arange(len(lone)), rng.choice(counts.shape[1], len(lone), p=share)] = share_out(
        np.ones(len(lone)), wanted.lone
    )
    rows += people_rows(lone, counts, np.zeros_like(counts), "gallery", network, rng)
    table = pd.DataFrame(rows)
    fields = zip(table["pid"], table["camid"], table["frame"], strict=True)
    table["name"] = [f"{pid:04d}_c{camid}_f{frame:07d}.jpg" for pid, camid, frame in fields]
    table["folder"] = table["subset"].map(layout.FOLDERS)
    return table


def _msmt17(network: Network, wanted: Size, rng: np.random.Generator) -> pd.DataFrame:
    """MSMT17: training and test people are both numbered from 0 in names and lists; val shows training people."""
    train = 1 + np.arange(wanted.train_ids)
    test = 1 + TRAIN_PEOPLE + np.arange(wanted.test_ids)
    rows = _tracks("train", train, wanted.train + wanted.val, 0, network, wanted, rng)
    later = [i for i in range(1, len(rows)) if rows[i]["pid"] == rows[i - 1]["pid"]]  # everyone keeps one to train on
    for index in rng.choice(later, wanted.val, replace=False).tolist():
        rows[index]["subset"] = "val"
    rows += _tracks("gallery", test, wanted.gallery, wanted.query, network, wanted, rng)
    table = pd.DataFrame(rows).sort_values(["pid", "camid", "sequence", "frame"], kind="stable", ignore_index=True)
    number = table["pid"] - 1 - TRAIN_PEOPLE * (table["pid"] > TRAIN_PEOPLE)
    fields = zip(
        number,
        table.groupby("pid").cumcount(),
        table["camid"],
        table["sequence"] - 1,
        table["frame"] // layout.RATE,
        strict=True,
    )
    table["name"] = [
        f"{who:04d}_{count:03d}_{camid:02d}_{DAYS[time // 3]}{PERIODS[time % 3]}_{track % 10_000:04d}_{count % 3}.jpg"
        for who, count, camid, time, track in fields
    ]
    table["path"] = [f"{who:04d}/{name}" for who, name in zip(number, table["name"], strict=True)]
    table["folder"] = table["subset"].map(MSMT17_FOLDERS)
    return table


def _views(
    pids: Sequence[int], shots: int, subset: str, box: str, network: Network, rng: np.random.Generator
) -> list[dict]:
    """Rows of people seen `shots` times in either of two views; `slot` counts from 1 over both views."""
    rows = []
    for pid in pids:
        day = rng.random(5)
        for view in range(2):
            for slot, (sequence, frame, step) in enumerate(visits(pid, view, shots, day, network)):
                what = {"subset": subset, "pid": pid, "person": pid, "camid": view + 1, "sequence": sequence}
                when = {"frame": frame, "step": step, "box": box, "folder": subset, "slot": 1 + slot + shots * view}
                rows.append(what | when)
    return rows


def _cuhk01(network: Network, wanted: Size, rng: np.random.Generator) -> pd.DataFrame:
    """CUHK01: two hand-cropped images in either view."""
    people = range(1, wanted.train_ids + wanted.test_ids + 1)
    table = pd.DataFrame(_views(people, 2, "campus", "drawn", network, rng))
    table["name"] = [f"{pid:04d}{slot:03d}.png" for pid, slot in zip(table["pid"], table.pop("slot"), strict=True)]
    return table


def _cuhk03(network: Network, wanted: Size, rng: np.random.Generator) -> pd.DataFrame:
    """CUHK03: up to five images in either view, each in a detector's box and in a hand-drawn one; some are missing."""
    total = wanted.train_ids + wanted.test_ids
    sizes = PEOPLE if total == sum(PEOPLE) else share_out(np.array(PEOPLE, dtype=float), total).tolist()
    who = {sum(PEOPLE[:pair]) + person: (pair + 1, person) for pair in range(5) for person in range(1, sizes[pair] + 1)}
    test = set(rng.choice(sorted(who), wanted.test_ids, replace=False).tolist())
    table = pd.DataFrame(_views(sorted(who), 5, "images_detected", "detected", network, rng))
    table["role"] = np.where(table["pid"].isin(test), "gallery", "train")
    asked = table["pid"].map({pid: int(rng.integers(1, 4)) for pid in sorted(test)})
    slot = (table["slot"] - 1) % 5 + 1
    table.loc[(table["role"] == "gallery") & (slot == asked), "role"] = "query"
    labels = zip(table["pid"].map(who), table["camid"], table.pop("slot"), strict=True)
    table["name"] = [f"{pair}_{person:03d}_{view}_{index:02d}.png" for (pair, person), view, index in labels]
    order = rng.permutation(np.flatnonzero(slot > 3))  # the first three of a view are always there
    train, others = (order[is_test == (table["role"].to_numpy()[order] != "train")] for is_test in (False, True))
    boxes = {
        "images_detected": ("detected", (wanted.train, wanted.query + wanted.gallery)),
        "images_labeled": ("drawn", wanted.labeled),
    }
    parts = []
    for folder, (box, (n_train, n_test)) in boxes.items():
        lost = [*train[: 10 * wanted.train_ids - n_train], *others[: 10 * wanted.test_ids - n_test]]
        parts.append(table.drop(index=lost).assign(folder=folder, subset=folder, box=box))
    return pd.concat(parts, ignore_index=True)
