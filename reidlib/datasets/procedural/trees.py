"""How the data set of each network lies on disk: folders, key points, lists and splits, as its real one does."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..readers.cuhk03 import PEOPLE
from .camera import Network
from .layout import FOLDERS
from .plans import MSMT17_FOLDERS

CLASSIC_SPLITS = 20


@dataclass(frozen=True)
class Tree:
    """Where the pictures of each subset lie, and in which table their key points are."""

    folders: dict[str, str]
    keypoints: dict[str, str]  # a subset without a table has OpenPose's JSON in a folder beside its pictures


def _tables(name: str, train: tuple[str, ...], test: tuple[str, ...]) -> dict[str, str]:
    return {subset: f"{name}-annotation-train.csv" for subset in train} | {
        subset: f"{name}-annotation-test.csv" for subset in test
    }


_DUKE = {subset: FOLDERS[subset] for subset in ("train", "query", "gallery")}
TREES = {
    "market1501": Tree(FOLDERS, _tables("market", ("train",), ("query", "gallery", "gt_bbox"))),
    "dukemtmc": Tree(_DUKE, _tables("dukemtmc", ("train",), ("query", "gallery"))),
    "cuhk03": Tree({name: name for name in ("images_detected", "images_labeled")}, {}),
    "cuhk01": Tree({"campus": "campus"}, {"campus": "cuhk01-annotation.csv"}),
    "msmt17": Tree(MSMT17_FOLDERS, _tables("msmt17", ("train", "val"), ("query", "gallery"))),
}


def keypoint_files(network: str, rows: pd.DataFrame) -> dict[str, str]:
    """Return what the key-point files of a set hold, by path: tables, or OpenPose's JSON for each picture.

    A picture in which no joint is seen has no entry.
    """
    tree = TREES[network]
    seen = rows[rows["joints_seen"] > 0]
    files = {}
    for file in sorted(set(tree.keypoints.values())):
        chosen = seen[seen["subset"].map(tree.keypoints) == file].drop_duplicates("name")
        columns = chosen[["name", "keypoints_y", "keypoints_x"]].itertuples(index=False)
        lines = [f"{name}:{json.dumps(y)}:{json.dumps(x)}" for name, y, x in columns]
        files[file] = "name:keypoints_y:keypoints_x\n" + "\n".join(lines) + "\n"
    others = seen[~seen["subset"].isin(tree.keypoints)]
    for folder, name, ys, xs in others[["folder", "name", "keypoints_y", "keypoints_x"]].itertuples(index=False):
        joints = [number for x, y in zip(xs, ys, strict=True) for number in ((x, y, 1) if x >= 0 else (0, 0, 0))]
        text = json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": joints}]})
        files[f"{folder}_keypoints/{name.rpartition('.')[0]}_keypoints.json"] = text
    return files


def further_files(network: Network, size: str, seed: int, rows: pd.DataFrame) -> dict[str, str]:
    """Return the lists and splits that belong to a set, by name."""
    if network.name == "msmt17":
        return {f"list_{subset}.txt": _list(rows[rows["subset"] == subset]) for subset in MSMT17_FOLDERS}
    if network.name == "cuhk03":
        splits = json.dumps(_classic_splits(rows, network.sizes[size].classic_ids, [seed & 0xFFFFFFFF, 202]))
        files = {f"splits_classic_{boxes}.json": splits for boxes in ("detected", "labeled")}
        for boxes in ("detected", "labeled"):
            own = rows[rows["folder"] == f"images_{boxes}"]
            files[f"splits_new_{boxes}.json"] = json.dumps([_new_split(own)])
        return files
    return {}


def _list(rows: pd.DataFrame) -> str:
    """Lines `relative/path.jpg number` with the number that the path begins with."""
    return "".join(f"{path} {int(path.partition('/')[0])}\n" for path in sorted(rows["path"]))


def _classic_splits(rows: pd.DataFrame, test_ids: int, entropy: list[int]) -> list[list[list[int]]]:
    """The test people of each split, as [pair, person]."""
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    pids, first = np.array(sorted(rows["pid"].unique())), np.cumsum([0, *PEOPLE])
    splits = []
    for _ in range(CLASSIC_SPLITS):
        chosen = np.sort(rng.choice(pids, test_ids, replace=False))
        pairs = np.searchsorted(first, chosen)
        splits.append([[int(pair), int(pid - first[pair - 1])] for pid, pair in zip(chosen, pairs, strict=True)])
    return splits


def _new_split(rows: pd.DataFrame) -> dict[str, list]:
    """The lists of [path, pid, camid] of the new protocol."""
    columns = ["folder", "name", "pid", "camid"]
    return {
        role: [
            [f"{folder}/{name}", pid, camid]
            for folder, name, pid, camid in rows.loc[rows["role"] == role, columns].itertuples(index=False)
        ]
        for role in ("train", "query", "gallery")
    }
