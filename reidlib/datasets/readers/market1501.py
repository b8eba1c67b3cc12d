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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from reidlib.datasets import reading
from reidlib.datasets.contract import Benchmark

FOLDER = "Market-1501-v15.09.15"
SUBSETS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test", "multi_query": "gt_bbox"}
# images of the released data set
COUNTS = {"train": 12_936, "query": 3_368, "gallery": 19_732, "gt_bbox": 25_259}


@dataclass(frozen=True)
class Layout:
    """A data set laid out like Market-1501: what differs between it and its relatives.

    `pattern` has the groups pid, camid, frame and, where names carry one, sequence; `grammar` is what a message shows.
    """

    title: str
    folder: str
    places: tuple[str, ...]
    pattern: re.Pattern
    grammar: str
    counts: Mapping[str, int]


MARKET = Layout(
    title="Market-1501",
    folder=FOLDER,
    places=(FOLDER, f"market1501/{FOLDER}", "market1501", "Market-1501"),
    pattern=re.compile(r"(?P<pid>-1|\d{4})_c(?P<camid>[1-9])s(?P<sequence>\d)_(?P<frame>\d{6})_(?P<box>\d{2})(\.jpg)+"),
    grammar="PPPP_cCsS_FFFFFF_BB.jpg",
    counts=COUNTS,
)


class Listing(NamedTuple):
    """What the file names of one folder say, sorted by name."""

    names: list[str]
    pids: list[int]
    camids: list[int]
    sequences: list[int]
    frames: list[int]


def parse_name(name: str, layout: Layout = MARKET) -> tuple[int, int, int, int] | None:
    """Return (pid, camid, sequence, frame) of a file name, or None if it does not follow the grammar.

    >>> parse_name("0002_c1s3_000451_03.jpg")
    (2, 1, 3, 451)
    >>> parse_name("-1_c6s4_013501_00.jpg.jpg")
    (-1, 6, 4, 13501)
    >>> parse_name("2_c1_f0000451.jpg") is None
    True
    """
    match = layout.pattern.fullmatch(name)
    if match is None:
        return None
    fields = match.groupdict()
    return int(fields["pid"]), int(fields["camid"]), int(fields.get("sequence", -1)), int(fields["frame"])


def list_images(folder: str | os.PathLike, layout: Layout = MARKET) -> Listing:
    """List one folder by its file names alone (no image is opened), sorted.

    Files that are not `.jpg` and hidden files are ignored. A `.jpg` whose name does not follow the grammar is left out
    with a warning that names it, because a guessed identity would quietly spoil every score.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing; a {layout.title} folder holds bounding_box_train, query and bounding_box_test"
        )
    parsed = [(name, parse_name(name, layout)) for name in reading.list_names(folder, (".jpg",))]
    reading.warn_of_names([name for name, fields in parsed if fields is None], folder, layout.grammar)
    good = [(name, *fields) for name, fields in parsed if fields is not None]
    return Listing(*(list(column) for column in zip(*good, strict=True))) if good else Listing([], [], [], [], [])


def find_folder(root: str | os.PathLike, layout: Layout = MARKET) -> Path:
    """Return the data set's own folder: `root` itself, or one of the usual names inside it.

    Raises:
        FileNotFoundError: if none of them holds bounding_box_train; the message lists where it looked.
    """
    return reading.find_folder(root, layout.places, [f"{SUBSETS['train']}/"], layout.title)


def read(
    root: str | os.PathLike,
    *,
    image_size: tuple[int, int],
    cache: str | os.PathLike | None = None,
    progress: bool = True,
    name: str = "market1501",
    layout: Layout = MARKET,
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
        layout: whose names and folders these are.

    Raises:
        FileNotFoundError: no such data set, or a subset's folder is missing.
        ValueError: a subset is empty, or an identity is in both the training and the test set.
    """
    folder = find_folder(root, layout)
    tables = {
        subset: pd.DataFrame(
            {
                "path": [f"{SUBSETS[subset]}/{file}" for file in listing.names],
                "name": listing.names,
                "pid": listing.pids,
                "camid": listing.camids,
                "sequence": listing.sequences,
                "frame": listing.frames,
            }
        )
        for subset, listing in list_subsets(folder, layout).items()
    }
    options = {"image_size": image_size, "cache": cache, "progress": progress}
    return Benchmark(name=name, folder=folder, **reading.read_images(tables, folder, name=name, **options))


def list_subsets(folder: Path, layout: Layout = MARKET) -> dict[str, Listing]:
    """List every subset of a folder by file names, and check what names can show.

    Raises:
        FileNotFoundError, ValueError: see `read`.
    """
    listings = {}
    for subset, sub in SUBSETS.items():
        if subset == "multi_query" and not (folder / sub).is_dir():
            continue
        listings[subset] = list_images(folder / sub, layout)
        if not listings[subset].names:
            raise ValueError(f"{folder / sub} holds no image named {layout.grammar}")
    if folder.name == layout.folder:
        found = {("gt_bbox" if s == "multi_query" else s): len(listing.names) for s, listing in listings.items()}
        reading.check_counts(folder, layout.title, found, layout.counts)
    reading.check_disjoint(folder, listings["train"].pids, listings["query"].pids + listings["gallery"].pids)
    if "multi_query" in listings:
        wanted = set(zip(listings["query"].pids, listings["query"].camids, strict=True))
        rows = [row for row in zip(*listings["multi_query"], strict=True) if (row[1], row[2]) in wanted]
        listings.pop("multi_query")
        if rows:
            listings["multi_query"] = Listing(*(list(column) for column in zip(*rows, strict=True)))
    return listings


def sequences_of(listing: Listing) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (pids, camids, sequences) int64 [N], which is all that `camera_pairs.split` needs."""
    return torch.tensor(listing.pids), torch.tensor(listing.camids), torch.tensor(listing.sequences)
