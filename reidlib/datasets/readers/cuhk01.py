r"""CUHK01: 971 people in two views of a campus, two images of each in either view: `campus/PPPPIII.png`.

Four digits of identity, three of the image, 1 to 4; `camids` are the view, 1 + (image - 1) div 2. 3,884 images.

Protocol: ten random splits of the identities in halves (485 train, 486 test); one view is the query, the other the
gallery, and both ways are scored: 20 results, averaged. The generator of the splits that others use is unseeded, so
splits differ from paper to paper. Ours are a pure function of the seed and of the identities there are: identities in
the order of the SHA-256 of "seed split pid", the first half trains. They are written to `data/.cache` (or `cache=`) and
read from there afterwards; a file `splits.json` in the data set's own folder goes first. Such a file is a list with,
for each split, the list of training identities, or an object with `train`, a list of [path, pid, camid] (splits that
repeat the training set of the one before, once for either way, are taken once).

Status: available from its authors on request, for research only. Its people overlap with CUHK02's. (A table of the
thesis gives ten cameras; there are two views.)

Source: Li et al., "Human Reidentification with Transferred Metric Learning", ACCV 2012.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from reidlib.datasets import reading
from reidlib.datasets.cache import find_root
from reidlib.datasets.contract import Benchmark
from reidlib.files import atomic_path

NAME = re.compile(r"(?P<pid>\d{4})(?P<image>00[1-4])\.png")
GRAMMAR = "PPPPIII.png (III 001-004)"
COUNTS = {"images": 3_884}
N_SPLITS = 10
SPLITS = tuple({"split": k, "query_view": view} for k in range(N_SPLITS) for view in (1, 2))


def parse_name(name: str) -> tuple[int, int] | None:
    """Return (pid, view) of a file name, or None if it does not follow the grammar.

    >>> parse_name("0971002.png"), parse_name("0971003.png"), parse_name("0971005.png")
    ((971, 1), (971, 2), None)
    """
    match = NAME.fullmatch(name)
    return None if match is None else (int(match["pid"]), 1 + (int(match["image"]) - 1) // 2)


def draw_splits(pids: Iterable[int], seed: int = 0, n: int = N_SPLITS) -> list[list[int]]:
    """Return the training identities of each split: half of them (rounded down), the same on every machine.

    >>> [len(split) for split in draw_splits(range(1, 972))]
    [485, 485, 485, 485, 485, 485, 485, 485, 485, 485]
    """
    people = sorted(set(pids))
    splits = []
    for k in range(n):
        order = {pid: hashlib.sha256(f"{seed} {k} {pid}".encode()).digest() for pid in people}
        splits.append(sorted(sorted(people, key=order.__getitem__)[: len(people) // 2]))
    return splits


def read(
    root: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    cache: str | os.PathLike | None = None,
    progress: bool = True,
    name: str = "cuhk01",
    split: int = 0,
    query_view: int = 1,
    split_seed: int = 0,
) -> Benchmark:
    """Read one split of CUHK01, one way. All images are decoded once; the splits are views of them.

    Args:
        root, image_size, cache, progress, name: see `market1501.read`.
        split: 0 to 9.
        query_view: 1 or 2; the other view is the gallery.
        split_seed: seed of the ten splits, where the folder has no `splits.json`.

    Raises:
        FileNotFoundError: no such data set, or a split that names people who are not there.
        ValueError: no image, fewer than two people, split or view out of range, malformed `splits.json`.
    """
    reading.check_choice("query_view", query_view, (1, 2))
    folder = reading.find_folder(root, ("CUHK01", "cuhk01"), ("campus/",), "CUHK01")
    names = reading.list_names(folder / "campus", (".png",))
    reading.warn_of_names([n for n in names if parse_name(n) is None], folder / "campus", GRAMMAR)
    names = [n for n in names if parse_name(n) is not None]
    if not names:
        raise ValueError(f"{folder / 'campus'} holds no image named {GRAMMAR}")
    reading.check_counts(folder, "CUHK01", {"images": len(names)}, COUNTS)
    pids, views = zip(*(parse_name(n) for n in names), strict=True)
    splits = _stored_splits(folder, sorted(set(pids)), cache, split_seed)
    reading.check_split(split, len(splits), "CUHK01")
    train = set(splits[split])
    if absent := sorted(train - set(pids)):
        raise FileNotFoundError(f"{len(absent)} people of split {split} have no image, for example {absent[0]:04d}")
    table = pd.DataFrame({"path": [f"campus/{n}" for n in names], "name": names, "pid": pids, "camid": views})
    options = {"image_size": image_size, "cache": cache, "progress": progress}
    people = reading.read_images({"all": table}, folder, name=name, **options)["all"]
    test_ids = sorted(set(pids) - train)
    subsets = {
        "train": people.select(pids=train),
        "query": people.select(pids=test_ids, camids=query_view),
        "gallery": people.select(pids=test_ids, camids=3 - query_view),
    }
    if empty := [subset for subset, images in subsets.items() if not len(images)]:
        raise ValueError(f"split {split} of {folder} has no image for {', '.join(empty)}; people: {len(set(pids))}")
    return Benchmark(name=name, folder=folder, **subsets)


def _stored_splits(folder: Path, pids: list[int], cache: str | os.PathLike | None, seed: int) -> list[list[int]]:
    """Read the data set's own splits, or those drawn before, or draw them and store them in the cache."""
    own = folder / "splits.json"
    if own.is_file():
        return _read_splits(own)
    people = hashlib.sha256(" ".join(map(str, pids)).encode()).hexdigest()[:8]
    stored = find_root(cache, folder) / f"cuhk01-splits-{people}-seed{seed}.json"
    if not stored.is_file():
        with atomic_path(stored) as temporary:
            temporary.write_text(json.dumps(draw_splits(pids, seed)))
    return _read_splits(stored)


def _read_splits(path: Path) -> list[list[int]]:
    entries = reading.read_json(path)
    splits: list[list[int]] = []
    try:
        for entry in entries:
            if isinstance(entry, dict):
                files = [PurePosixPath(str(row[0]).replace("\\", "/")).name for row in entry["train"]]
                ids = sorted({parse_name(file)[0] for file in files})
            else:
                ids = sorted({int(pid) for pid in entry})
            if not (isinstance(entry, dict) and splits and splits[-1] == ids):
                splits.append(ids)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"{path} must be a list of splits, each a list of training identities or an object whose `train` lists "
            f"[path, pid, camid] of images named {GRAMMAR}"
        ) from error
    if not splits:
        raise ValueError(f"{path} holds no split")
    return splits
