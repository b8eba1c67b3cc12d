r"""CUHK01: 971 people in two views of a campus, two images of each in either view: `campus/PPPPIII.png`.

Four digits of identity, three of the image, 1 to 4; `camids` are the view, 1 + (image - 1) div 2. 3,884 images.

Protocol: ten random splits of the identities in halves (485 train, 486 test); one view is the query, the other the
gallery, and both ways are scored: 20 results, averaged. The generator of the splits that others use is unseeded, so
splits differ from paper to paper. Ours are a pure function of the seed and of the identities there are: identities in
the order of the SHA-256 of "seed split pid", the first half trains. A file `splits.json` in the data set's own folder
goes first: a list with, for each split, the list of training identities, or an object with `train`, a list of [path,
pid, camid] (splits that repeat the training set of the one before, once for either way, are taken once).

Status: available from its authors on request, for research only. Its people overlap with CUHK02's. (A table of the
thesis gives ten cameras; there are two views.)

Source: Li et al., "Human Reidentification with Transferred Metric Learning", ACCV 2012.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from reidlib.checks import check_choice
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing, Subsets

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


def draw_splits(pids: Iterable[int], seed: int = 0) -> list[list[int]]:
    """Return the training identities of each split: half of them (rounded down), the same on every machine.

    >>> [len(split) for split in draw_splits(range(1, 972))]
    [485, 485, 485, 485, 485, 485, 485, 485, 485, 485]
    """
    people = sorted(set(pids))
    splits = []
    for k in range(N_SPLITS):
        order = {pid: hashlib.sha256(f"{seed} {k} {pid}".encode()).digest() for pid in people}
        splits.append(sorted(sorted(people, key=order.__getitem__)[: len(people) // 2]))
    return splits


def read(root: str | os.PathLike, *, split: int = 0, query_view: int = 1, split_seed: int = 0) -> Listing:
    """List one split of CUHK01, one way. All images are decoded once; the splits are views of them.

    Args:
        root: the data set's own folder, or the folder that holds it.
        split: 0 to 9.
        query_view: 1 or 2; the other view is the gallery.
        split_seed: seed of the ten splits, where the folder has no `splits.json`.

    Raises:
        FileNotFoundError: no such data set, or a split that names people who are not there.
        ValueError: no image, fewer than two people, split or view out of range, malformed `splits.json`.
    """
    check_choice("query_view", query_view, (1, 2))
    folder = listing.find_folder(root, ("CUHK01", "cuhk01"), ("campus/",), "CUHK01")
    named = listing.named_well(folder / "campus", parse_name, GRAMMAR)
    listing.check_counts(folder, "CUHK01", {"images": len(named)}, COUNTS)
    rows = [(f"campus/{name}", name, *fields) for name, fields in named.items()]
    table = pd.DataFrame(rows, columns=["path", "name", "pid", "camid"])
    people = set(table["pid"].tolist())
    own = folder / "splits.json"
    splits = _read_splits(own) if own.is_file() else draw_splits(people, split_seed)
    listing.check_split(split, len(splits), "CUHK01")
    train = set(splits[split])
    if absent := sorted(train - people):
        raise FileNotFoundError(f"{len(absent)} people of split {split} have no image, for example {absent[0]:04d}")

    def views(decoded: Subsets) -> Subsets:
        images, test = decoded["all"], people - train
        subsets = {
            "train": images.select(pids=train),
            "query": images.select(pids=test, camids=query_view),
            "gallery": images.select(pids=test, camids=3 - query_view),
        }
        if empty := [subset for subset, chosen in subsets.items() if not len(chosen)]:
            raise ValueError(f"split {split} of {folder} has no image for {', '.join(empty)}; people: {len(people)}")
        return subsets

    return Listing(folder, {"all": table}, views=views)


def _read_splits(path: Path) -> list[list[int]]:
    entries = listing.read_json(path)
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
