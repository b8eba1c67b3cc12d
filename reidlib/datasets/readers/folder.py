r"""Your own crops: a table of `path,pid,camid,split` (`reidlib table FOLDER` makes one from names and folders).

The table is a CSV with the columns

- `path`: the image, relative to the table's folder;
- `pid`: a whole number: people from 0 on; as everywhere -1 is junk and -3 a distractor;
- `camid`: a whole number from 1, or empty, or no such column: unknown (-1);
- `split`: `train`, `query` or `gallery`;

and anything else, which becomes `PersonImages.info`. `train` may be empty: scoring needs none. Where a camera is
unknown or all images are from one camera, "ignore the same person in the same camera" would leave nothing to find, so
the protocol is `camera_rule="none"` and a warning says so. For annotations beside the images see
`reidlib.datasets.readers.listing`.
"""

import hashlib
import io
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from reidlib.checks import some
from reidlib.datasets.annotations import read_text
from reidlib.datasets.contract import Protocol
from reidlib.datasets.person_images import DISTRACTOR, JUNK
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing
from reidlib.files import resolve

TABLE = "people.csv"
LARGEST = 2**63 - 1  # what an int64 holds
SUBSETS = ("train", "query", "gallery")


def read(root: str | os.PathLike, *, table: str | os.PathLike | None = None, outside: bool = False) -> Listing:
    """List the images that a table names.

    Args:
        root: the table, or the folder that holds it (as `people.csv`, or as the only CSV file with the right columns).
        table: the table, where it is not in `root`; its paths then count from `root`.
        outside: accept absolute paths and such that climb out of the folder (`../`).

    Raises:
        FileNotFoundError: no folder, no table, or images that are not there.
        ValueError: columns, numbers or splits other than described, an image listed twice, no query or gallery image,
            or a person in both train and test.
    """
    path = _find_table(root) if table is None else resolve(table)
    folder = path.parent if table is None else resolve(root)
    rows = _read_table(path)
    listing.check_files(folder, rows["path"].to_list(), path.name, outside)
    subsets = {subset: rows[rows["split"] == subset].drop(columns="split") for subset in SUBSETS}
    subsets = {s: part.sort_values("path", ignore_index=True) for s, part in subsets.items()}
    for subset in ("query", "gallery"):
        if not len(subsets[subset]):
            raise ValueError(f"{path} has no {subset} image; its splits: {rows['split'].value_counts().to_dict()}")
    listing.check_disjoint(path, subsets["train"]["pid"], rows["pid"][rows["split"] != "train"])
    _warn_of_copies(folder, subsets)
    return Listing(folder, subsets, protocol=_protocol(path, rows), variant=path.stem)


def _find_table(root: str | os.PathLike) -> Path:
    root = resolve(root)
    if root.is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is neither a table (CSV) nor a folder that holds one")
    if (root / TABLE).is_file():
        return root / TABLE
    found = [path for path in sorted(root.glob("*.csv")) if {"path", "pid"} <= _columns(path)]
    if len(found) != 1:
        said = f"{len(found)} tables: {[path.name for path in found]}" if found else "no table"
        raise FileNotFoundError(
            f"{root} holds {said}; one CSV with the columns path,pid,camid,split is needed "
            f"(`reidlib table` makes {TABLE} from a folder of crops)"
        )
    return found[0]


def _columns(path: Path) -> set[str]:
    return set(path.read_bytes()[:1000].decode("utf-8-sig", "replace").partition("\n")[0].strip().split(","))


def _read_table(path: Path) -> pd.DataFrame:
    """Read and check a table; missing cameras become -1."""
    rows = pd.read_csv(io.StringIO(read_text(path)), dtype=dict.fromkeys(("path", "pid", "camid", "split"), str))
    if not {"path", "pid", "split"} <= set(rows.columns):
        raise ValueError(f"{path} must have the columns path,pid,camid,split; it has {list(rows.columns)}")
    rows["camid"] = rows["camid"].fillna("-1") if "camid" in rows else "-1"
    for column, special in (("pid", (JUNK, DISTRACTOR)), ("camid", (-1,))):
        numbers = [_whole(text) for text in rows[column]]
        for line, number in enumerate(numbers, start=2):
            if number is None or (number < 0 and number not in special):
                raise ValueError(
                    f"{path}, line {line}: {column} must be a whole number from 0 to {LARGEST}, or "
                    f"{' or '.join(map(str, special))}; got {rows[column][line - 2]!r}"
                )
        rows[column] = numbers
    rows["split"] = rows["split"].fillna("").str.strip()
    if other := sorted(set(rows["split"]) - set(SUBSETS)):
        raise ValueError(f"{path}: split must be {', '.join(SUBSETS)}; got {other[:5]}")
    if rows["path"].isna().any():
        raise ValueError(f"{path}, line {int(np.flatnonzero(rows['path'].isna())[0]) + 2}: path is empty")
    rows["path"] = rows["path"].str.replace("\\", "/")
    if twice := rows["path"][rows["path"].duplicated()].to_list():
        raise ValueError(f"{path} lists {len(twice)} images twice: {some(twice)}")
    return rows.assign(name=rows["path"])


def _whole(text: object) -> int | None:
    """Return the whole number that a cell holds ("7", "7.0"), or None; never by way of a float, which loses digits."""
    match = re.fullmatch(r"\s*(-?\d+)(?:\.0*)?\s*", str(text), re.ASCII)
    return int(match[1]) if match and len(match[1]) < 4_000 and int(match[1]) <= LARGEST else None


def _protocol(path: Path, rows: pd.DataFrame) -> Protocol:
    """Choose the rule that the queries can be scored by, and say what it leaves out."""
    queries, gallery = (rows[rows["split"] == subset] for subset in ("query", "gallery"))
    cameras = {*queries["camid"], *gallery["camid"]}
    cameras_of = gallery.groupby("pid")["camid"].agg(set).to_dict()
    asked = [(camid, cameras_of.get(pid, set())) for pid, camid in zip(queries["pid"], queries["camid"], strict=True)]
    crossing = sum(bool(found - {camid}) for camid, found in asked)
    if -1 in cameras:
        why = "some images have no camera"
    elif len(cameras) == 1:
        why = f"all images are from camera {min(cameras)}"
    elif not crossing and any(camid in found for camid, found in asked):
        why = "no query has an image of its person from another camera"
    else:
        why = ""
    matched = sum(bool(found) for _, found in asked) if why else crossing
    if why:
        _warn(
            f'{path}: {why}, so matches are counted within a camera too (camera_rule="none"); scores of this kind are '
            f"not comparable with the cross-camera scores of the literature"
        )
    if matched < len(asked):
        where = "" if why else " from another camera"
        _warn(
            f"{path}: {len(asked) - matched} of {len(asked)} queries have no image to find{where}: left out of scores"
        )
    return Protocol(camera_rule="none") if why else Protocol()


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # to who called `load`


def copies(folder: Path, paths: Iterable[str]) -> list[list[str]]:
    """Group files of equal content; only files of equal size are read."""
    by_size, by_content = defaultdict(list), defaultdict(list)
    for path in paths:
        if (folder / path).is_file():  # no link to nowhere
            by_size[(folder / path).stat().st_size].append(path)
    for same in by_size.values():
        for path in same if len(same) > 1 else ():
            by_content[hashlib.sha256((folder / path).read_bytes()).digest()].append(path)
    return [same for same in by_content.values() if len(same) > 1]


def _warn_of_copies(folder: Path, subsets: dict[str, pd.DataFrame]) -> None:
    """Warn of a query that is also in the gallery: it finds itself, which is no achievement."""
    queries = set(subsets["query"]["path"])
    groups = copies(folder, [*subsets["query"]["path"], *subsets["gallery"]["path"]])
    if wrong := [same[0] for same in groups if queries & set(same)]:
        said = f"{len(wrong)} query images of {folder} have exact copies among the test images"
        _warn(f"{said}, which makes them easy to find: {some(wrong)}")
