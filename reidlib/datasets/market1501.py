r"""Market-1501 and everything laid out like it: `bounding_box_train/`, `query/`, `bounding_box_test/`, `gt_bbox/`.

A name is `PPPP_cCsS_FFFFFF_BB.jpg`: identity (0000 distractor, -1 junk), camera, sequence, frame, box. Some released
names carry the extension twice; the name is kept as it is. Besides the images a folder may hold, all optional:

- `market-annotation-train.csv`, `market-annotation-test.csv`: key points (`reidlib.datasets.annotations`);
- `bounding_box_train_seg/`, `query_seg/`, `bounding_box_test_seg/`: person masks;
- `bounding_box_train_parsing/` and its like: LIP parsing;
- `truth.csv`: what a renderer knows about each image; its columns become `PersonImages.info`.

Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; counts from the released file lists.
"""

import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from reidlib.datasets import annotations
from reidlib.datasets import cache as caching
from reidlib.datasets.benchmark import Benchmark
from reidlib.datasets.person_images import PersonImages
from reidlib.files import resolve

NAME = re.compile(r"(?P<pid>-1|\d{4})_c(?P<camid>[1-9])s(?P<sequence>\d)_(?P<frame>\d{6})_(?P<box>\d{2})(\.jpg)+")
FOLDER = "Market-1501-v15.09.15"
SUBSETS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test", "multi_query": "gt_bbox"}
# images of the released data set
COUNTS = {"train": 12_936, "query": 3_368, "gallery": 19_732, "gt_bbox": 25_259}


class Listing(NamedTuple):
    """What the file names of one folder say, sorted by name."""

    names: list[str]
    pids: list[int]
    camids: list[int]
    sequences: list[int]
    frames: list[int]


def parse_name(name: str) -> tuple[int, int, int, int] | None:
    """Return (pid, camid, sequence, frame) of a file name, or None if it does not follow the grammar.

    >>> parse_name("0002_c1s3_000451_03.jpg")
    (2, 1, 3, 451)
    >>> parse_name("-1_c6s4_013501_00.jpg.jpg")
    (-1, 6, 4, 13501)
    >>> parse_name("2_c1_f0000451.jpg") is None
    True
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    return int(match["pid"]), int(match["camid"]), int(match["sequence"]), int(match["frame"])


def list_images(folder: str | os.PathLike) -> Listing:
    """List one folder by its file names alone (no image is opened), sorted.

    Files that are not `.jpg` and hidden files are ignored. A `.jpg` whose name does not follow the grammar is left out
    with a warning that names it, because a guessed identity would quietly spoil every score.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing; a Market-1501 folder holds bounding_box_train, query and bounding_box_test"
        )
    names = sorted(e.name for e in os.scandir(folder) if e.name.lower().endswith(".jpg") and e.name[0] != ".")
    parsed = [(name, parse_name(name)) for name in names]
    wrong = [name for name, fields in parsed if fields is None]
    if wrong:
        warnings.warn(
            f"{len(wrong)} names in {folder} do not follow PPPP_cCsS_FFFFFF_BB.jpg and are left out: {_some(wrong)}",
            stacklevel=2,
        )
    good = [(name, *fields) for name, fields in parsed if fields is not None]
    return Listing(*(list(column) for column in zip(*good, strict=True))) if good else Listing([], [], [], [], [])


def find_folder(root: str | os.PathLike) -> Path:
    """Return the data set's own folder: `root` itself, or one of the usual names inside it.

    Raises:
        FileNotFoundError: if none of them holds bounding_box_train; the message lists where it looked.
    """
    root = resolve(root)
    places = [root, root / FOLDER, root / "market1501" / FOLDER, root / "market1501", root / "Market-1501"]
    for place in places:
        if (place / SUBSETS["train"]).is_dir():
            return place
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(f"no Market-1501 folder: none of these holds {SUBSETS['train']}/: {looked}")


def read(
    root: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    cache: str | os.PathLike | None = None,
    progress: bool = True,
    name: str = "market1501",
) -> Benchmark:
    """Read a folder in Market-1501's layout, through the cache of decoded images.

    An image that cannot be decoded is left out with a warning that names it. Of `gt_bbox` only the images of a query's
    identity and camera are read: those that multi-query evaluation pools.

    Args:
        root: the data set's own folder, or the folder that holds it.
        image_size: (height, width) of the result.
        cache: where decoded images are kept; default `data/.cache`.
        progress: show a progress bar while decoding.
        name: the name that the benchmark gets.

    Raises:
        FileNotFoundError: no such data set, or a subset's folder is missing.
        ValueError: a subset is empty, or an identity is in both the training and the test set.
    """
    folder = find_folder(root)
    listings = list_subsets(folder)
    files = {
        subset: caching.Files(
            images=[folder / SUBSETS[subset] / file for file in listing.names],
            keypoints=_existing(folder / f"market-annotation-{'train' if subset == 'train' else 'test'}.csv"),
            masks=annotations.find_beside(folder / f"{SUBSETS[subset]}_seg", listing.names),
            parsing=annotations.find_beside(folder / f"{SUBSETS[subset]}_parsing", listing.names),
        )
        for subset, listing in listings.items()
    }
    decoded = caching.decode(files, name=name, folder=folder, image_size=image_size, cache=cache, progress=progress)
    truth = annotations.read_truth(folder / "truth.csv")
    subsets = {}
    for subset, listing in listings.items():
        arrays = decoded[subset]
        people = PersonImages(
            arrays.images,
            listing.pids,
            listing.camids,
            sequences=listing.sequences,
            names=listing.names,
            keypoints=arrays.keypoints,
            masks=arrays.masks,
            parsing=arrays.parsing,
            info=_info(truth, SUBSETS[subset], subset, listing),
        )
        subsets[subset] = people if arrays.kept is None else people.select(indices=arrays.kept)
    return Benchmark(name=name, folder=folder, **subsets)


def list_subsets(folder: Path) -> dict[str, Listing]:
    """List every subset of a folder by file names, and check what names can show.

    Raises:
        FileNotFoundError, ValueError: see `read`.
    """
    listings = {}
    for subset, sub in SUBSETS.items():
        if subset == "multi_query" and not (folder / sub).is_dir():
            continue
        listings[subset] = list_images(folder / sub)
        if not listings[subset].names:
            raise ValueError(f"{folder / sub} holds no image named PPPP_cCsS_FFFFFF_BB.jpg")
    _check_counts(folder, listings)
    test = set(listings["query"].pids) | set(listings["gallery"].pids)
    shared = sorted(pid for pid in set(listings["train"].pids) & test if pid > 0)
    if shared:
        raise ValueError(
            f"{len(shared)} identities of {folder} are in both the training and the test set "
            f"({_some([f'{pid:04d}' for pid in shared])}); a score on people seen in training means nothing"
        )
    if "multi_query" in listings:
        wanted = set(zip(listings["query"].pids, listings["query"].camids, strict=True))
        rows = [row for row in zip(*listings["multi_query"], strict=True) if (row[1], row[2]) in wanted]
        listings.pop("multi_query")
        if rows:
            listings["multi_query"] = Listing(*(list(column) for column in zip(*rows, strict=True)))
    return listings


def _check_counts(folder: Path, listings: dict[str, Listing]) -> None:
    """Warn where the released data set should have another number of images (a rendered tree has its own numbers)."""
    if folder.name != FOLDER or (folder / "truth.csv").exists():
        return
    found = {("gt_bbox" if s == "multi_query" else s): len(listing.names) for s, listing in listings.items()}
    wrong = [f"{subset} {n} (released: {COUNTS[subset]})" for subset, n in found.items() if n != COUNTS[subset]]
    if wrong:
        warnings.warn(f"{folder} differs from the released Market-1501 in its images: {', '.join(wrong)}", stacklevel=3)


def _info(truth: pd.DataFrame | None, folder: str, subset: str, listing: Listing) -> pd.DataFrame | None:
    """Rows of truth.csv for these images (the subset may go by its folder's name or by ours), and the frame."""
    frames = pd.DataFrame({"name": listing.names, "frame": listing.frames})
    if truth is None:
        return frames[["frame"]]
    rows = truth
    if "subset" in truth.columns:
        rows = truth[truth["subset"].isin([folder, subset])]
    rows = rows.drop_duplicates("name").drop(columns=["frame", "pid", "camid", "sequence"], errors="ignore")
    return frames.merge(rows, on="name", how="left").drop(columns="name")


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def sequences_of(listing: Listing) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (pids, camids, sequences) int64 [N], which is all that `camera_pairs.split` needs."""
    return torch.tensor(listing.pids), torch.tensor(listing.camids), torch.tensor(listing.sequences)
