r"""Market-1501 and everything laid out like it: `bounding_box_train/`, `query/`, `bounding_box_test/`, `gt_bbox/`.

A name is `PPPP_cCsS_FFFFFF_BB.jpg`: identity, camera, sequence, frame, box. Identity -1 is junk and 0000 a distractor,
which gets the pid `DISTRACTOR` (-3), here and in DukeMTMC-reID: everywhere else 0 is a person. Some released names
carry the extension twice; the name is kept as it is. Besides the images a folder may hold, all optional:

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

import pandas as pd

from reidlib.datasets.person_images import DISTRACTOR
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing

FOLDER = "Market-1501-v15.09.15"
SUBSETS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test", "multi_query": "gt_bbox"}
# images of the released data set
COUNTS = {"train": 12_936, "query": 3_368, "gallery": 19_732, "gt_bbox": 25_259}


@dataclass(frozen=True)
class Layout:
    """A data set laid out like Market-1501: what differs between it and its relatives.

    `places` are its folder's usual names, the release's own first; `pattern` has the groups pid, camid, frame and,
    where names carry one, sequence; `grammar` is what a message shows.
    """

    title: str
    places: tuple[str, ...]
    pattern: re.Pattern
    grammar: str
    counts: Mapping[str, int]


MARKET = Layout(
    title="Market-1501",
    places=(FOLDER, f"market1501/{FOLDER}", "market1501", "Market-1501"),
    pattern=re.compile(r"(?P<pid>-1|\d{4})_c(?P<camid>[1-9])s(?P<sequence>\d)_(?P<frame>\d{6})_(?P<box>\d{2})(\.jpg)+"),
    grammar="PPPP_cCsS_FFFFFF_BB.jpg",
    counts=COUNTS,
)


def parse_name(name: str, layout: Layout = MARKET) -> tuple[int, int, int, int] | None:
    """Return (pid, camid, sequence, frame) of a file name, or None if it does not follow the grammar.

    >>> parse_name("0002_c1s3_000451_03.jpg")
    (2, 1, 3, 451)
    >>> parse_name("-1_c6s4_013501_00.jpg.jpg")
    (-1, 6, 4, 13501)
    >>> parse_name("0000_c2s1_000211_01.jpg")[0] == DISTRACTOR
    True
    >>> parse_name("2_c1_f0000451.jpg") is None
    True
    """
    match = layout.pattern.fullmatch(name)
    if match is None:
        return None
    fields = match.groupdict()
    pid = DISTRACTOR if fields["pid"] == "0000" else int(fields["pid"])
    return pid, int(fields["camid"]), int(fields.get("sequence", -1)), int(fields["frame"])


def read(root: str | os.PathLike) -> Listing:
    """List Market-1501: `read_layout` with its own names and folders.

    Args:
        root: the data set's own folder, or the folder that holds it.
    """
    return read_layout(root, MARKET)


def read_layout(root: str | os.PathLike, layout: Layout) -> Listing:
    """List a folder in Market-1501's layout.

    Of `gt_bbox` only the images of a query's identity and camera are listed: those that multi-query evaluation pools.

    Raises:
        FileNotFoundError: no such data set, or a subset's folder is missing.
        ValueError: a subset is empty, or an identity is in both the training and the test set.
    """
    folder = listing.find_folder(root, layout.places, [f"{SUBSETS['train']}/"], layout.title)
    tables = {}
    for subset, sub in SUBSETS.items():
        if (folder / sub).is_dir() or subset != "multi_query":
            tables[subset] = list_images(folder / sub, layout)
    if folder.name == layout.places[0] or (folder / "finished.json").is_file():
        found = {("gt_bbox" if subset == "multi_query" else subset): len(table) for subset, table in tables.items()}
        listing.check_counts(folder, layout.title, found, layout.counts)
    listing.check_disjoint(folder, tables["train"]["pid"], [*tables["query"]["pid"], *tables["gallery"]["pid"]])
    if "multi_query" in tables:
        extra, queries = tables.pop("multi_query"), tables["query"]
        wanted = set(zip(queries["pid"], queries["camid"], strict=True))
        pooled = extra[[key in wanted for key in zip(extra["pid"], extra["camid"], strict=True)]]
        if len(pooled):
            tables["multi_query"] = pooled.reset_index(drop=True)
    return Listing(folder, tables)


def list_images(folder: Path, layout: Layout = MARKET) -> pd.DataFrame:
    """List one folder by its file names alone: path, name, pid, camid, sequence, frame, sorted by name.

    Pictures of other names, `.png` and `.jpeg` among them, are named in a warning and left out.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if no name follows the grammar.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is missing; a {layout.title} folder holds bounding_box_train, query and bounding_box_test"
        )
    named = listing.named_well(folder, lambda name: parse_name(name, layout), layout.grammar)
    rows = [(f"{folder.name}/{name}", name, *fields) for name, fields in named.items()]
    return pd.DataFrame(rows, columns=["path", "name", "pid", "camid", "sequence", "frame"])
