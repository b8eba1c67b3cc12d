r"""Your own crops: a table of `path,pid,camid,split`, and one call that makes such a table from a folder.

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
from reidlib.datasets.annotations import BESIDE, read_text
from reidlib.datasets.contract import Protocol
from reidlib.datasets.person_images import DISTRACTOR, JUNK
from reidlib.datasets.pictures import SUFFIXES
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing
from reidlib.datasets.readers.names import numbers_of, read_names, splits_of
from reidlib.files import atomic_path, resolve

TABLE = "people.csv"
LARGEST = 2**63 - 1  # what an int64 holds
SUBSETS = ("train", "query", "gallery")
MANY = 20  # identities from which on half of them train


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
    protocol = _protocol(path, rows)
    return Listing(folder, subsets, protocol=protocol, variant=path.stem)


def make_table(
    folder: str | os.PathLike,
    table: str | os.PathLike | None = None,
    *,
    pattern: str | None = None,
    train: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> pd.DataFrame:
    r"""Make the table of a folder of crops: who is who, which split; write `people.csv` into the folder.

    How the names were read is printed: three examples with their fields, and counts. Who is who, by the first of these
    that applies:

    1. `pattern`: a template of the file name, `"cam{camid}_{pid}_{n}"` (of the end of the path where it holds a `/`;
       fields of other names are passed over), or a regular expression with the group `pid` (and `camid`, if names tell
       cameras), searched in each image's path relative to the folder: `r"(?P<pid>\d+)_c(?P<camid>\d)"`;
    2. folders: `anna/1.jpg`, `anna/cam2/1.jpg`, `cam2/anna/1.jpg`; the identity is the first folder that is no camera;
    3. names: what stands before the first `_`, or before the last number, cameras and words like IMG left out:
       `anna_01.jpg`, `anna 3.jpg`, `0002_c1_7.jpg`, `cam1_anna_2.jpg`. A number alone says nothing.

    The camera is the number after `c`, `cam` or `camera` anywhere in the path; it is known where every image has one.
    Identities that are all whole numbers keep them; others are numbered from 1 in sorted order, and the column
    `identity` keeps their names. Left out with a warning: exact copies of an image, files that no rule fits, links to
    nowhere, names that are not UTF-8.

    Splits: folders `train/`, `query/`, `gallery/`, `bounding_box_train/`, `bounding_box_test/`, `test/` at the top keep
    theirs, and other folders beside them are left out with a warning. Where nothing says who trains, the share `train`
    of the identities does (drawn by `seed`; by default half from 20 identities on, else none). Where no folder says
    which are queries, each identity that does not train gives one for each camera and leaves an image of another camera
    to be found; where nobody was seen by two cameras, each identity with two images gives one. All else is the gallery.

    Returns:
        The table, as written: `path`, `pid`, `camid`, `split`, `identity`.

    Raises:
        FileNotFoundError: no such folder.
        FileExistsError: the table is there with other contents (perhaps yours) and `overwrite` is false.
        ValueError: no image, a pattern without `pid`, `train` outside [0, 1) or beside folders that say who trains,
            names that two readings fit, one identity for all images, or nobody with two images.
    """
    folder = resolve(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if train is not None and not 0 <= train < 1:
        raise ValueError(f"train is a share of the identities, 0 <= train < 1, got {train!r}")
    paths = _without_copies(folder, _find_images(folder))
    split = splits_of(paths)
    who = read_names(list(split), pattern)
    identities = [identity for identity, _ in who.values()]
    cameras = [camera for _, camera in who.values()]
    rows = pd.DataFrame(
        {
            "path": list(who),
            "pid": numbers_of(identities),
            "camid": [-1] * len(who) if None in cameras else cameras,
            "split": [split[path] for path in who],
            "identity": identities,
        }
    )
    if train is not None and (rows["split"] != "").any():
        raise ValueError(f"the folders of {folder} say who trains; train={train} cannot")
    if not (rows["split"] == "query").any():
        rows["split"] = _draw_split(rows, train, seed)
    if not {"query", "gallery"} <= set(rows["split"]):
        raise ValueError(
            f"nobody in {folder} has two images to be tested with, so there is nothing to find: "
            f"{rows['pid'].nunique()} identities, splits {rows['split'].value_counts().to_dict()}"
        )
    _write_table(rows, folder / TABLE if table is None else resolve(table), overwrite)
    known = f"{rows['camid'].nunique()} cameras" if None not in cameras else f"{cameras.count(None)} without a camera"
    examples = rows.iloc[sorted({0, len(rows) // 2, len(rows) - 1})].to_string(index=False)
    print(f"{len(rows)} images of {rows['pid'].nunique()} identities, {known}; for example\n{examples}")
    return rows


def _find_images(folder: Path) -> list[str]:
    """Return the photographs below a folder by their paths in it, sorted."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    inside = [path for path in found if path.name[0] != "." and not any(p.endswith(BESIDE) for p in path.parts[:-1])]
    paths = listing.in_utf8([path.as_posix() for path in inside], folder)
    if lost := [path for path in paths if not (folder / path).exists()]:
        warnings.warn(f"{len(lost)} links to nowhere are left out: {some(lost)}", stacklevel=3)
    paths = [path for path in paths if (folder / path).is_file()]
    if not paths:
        raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    return paths


def _write_table(rows: pd.DataFrame, path: Path, overwrite: bool) -> None:
    text = rows.to_csv(index=False)
    if path.exists() and not overwrite and path.read_text(encoding="utf-8", errors="replace") != text:
        raise FileExistsError(f"{path} is there and differs: move it, pass another table=, or overwrite=True")
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
            f"(reidlib.datasets.readers.folder.make_table makes {TABLE} from a folder of crops)"
        )
    return found[0]


def _columns(path: Path) -> set[str]:
    return set(path.read_bytes()[:1000].decode("utf-8-sig", "replace").partition("\n")[0].strip().split(","))


def _read_table(path: Path) -> pd.DataFrame:
    """Read and check a table; missing cameras become -1."""
    rows = pd.read_csv(io.StringIO(read_text(path)), dtype=dict.fromkeys(("path", "pid", "camid", "split"), str))
    missing = [column for column in ("path", "pid", "split") if column not in rows]
    if missing:
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
    other = sorted(set(rows["split"]) - set(SUBSETS))
    if other:
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
    test = rows[rows["split"] != "train"]
    cameras = set(test["camid"])
    queries, gallery = (test[test["split"] == subset] for subset in ("query", "gallery"))
    seen = set(zip(gallery["pid"], gallery["camid"], strict=True))
    of = gallery.groupby("pid")["camid"].agg(set).to_dict()
    pairs = list(zip(queries["pid"], queries["camid"], strict=True))
    crossing = sum(bool(of.get(pid, set()) - {camid}) for pid, camid in pairs)
    if -1 in cameras:
        why = "some images have no camera"
    elif len(cameras) == 1:
        why = f"all images are from camera {min(cameras)}"
    elif not crossing and any(pair in seen for pair in pairs):
        why = "no query has an image of its person from another camera"
    else:
        why = ""
    matched = sum(pid in of for pid, _ in pairs) if why else crossing
    if why:
        _warn(
            f'{path}: {why}, so matches are counted within a camera too (camera_rule="none"); scores of this kind are '
            f"not comparable with the cross-camera scores of the literature"
        )
    if matched < len(pairs):
        where = "" if why else " from another camera"
        _warn(
            f"{path}: {len(pairs) - matched} of {len(pairs)} queries have no image to find{where}: left out of scores"
        )
    return Protocol(camera_rule="none") if why else Protocol()


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)  # to who called `load`


def _copies(folder: Path, paths: Iterable[str]) -> list[list[str]]:
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
    groups = _copies(folder, [*subsets["query"]["path"], *subsets["gallery"]["path"]])
    wrong = [same[0] for same in groups if queries & set(same)]
    if wrong:
        warnings.warn(
            f"{len(wrong)} query images of {folder} have exact copies among the test images, which makes them easy to "
            f"find: {some(wrong)}",
            stacklevel=3,
        )


def _without_copies(folder: Path, paths: list[str]) -> list[str]:
    copies = [path for same in _copies(folder, paths) for path in same[1:]]
    if copies:
        warnings.warn(f"{len(copies)} exact copies are left out: {some(copies)}", stacklevel=3)
    return [path for path in paths if path not in set(copies)]


def _draw_split(rows: pd.DataFrame, train: float | None, seed: int) -> list[str]:
    """Return the split of each row: whole identities to train, then queries that leave something to find."""
    rng = np.random.default_rng(seed)
    split = rows["split"].to_numpy(dtype=object)
    people = sorted(set(rows["pid"][rows["pid"] >= 0]))
    if not split.any():
        share = (0.5 if len(people) >= MANY else 0.0) if train is None else train
        training = set(rng.permutation(people)[: int(share * len(people))].tolist())
        split = np.where(rows["pid"].isin(training), "train", "gallery").astype(object)
    tested = rows[split == "gallery"]
    crossing = (tested[tested["pid"] >= 0].groupby("pid")["camid"].nunique() > 1).any()
    for pid in people:
        own = np.flatnonzero((rows["pid"] == pid) & (split == "gallery"))
        cameras = rows["camid"].to_numpy()[own]
        if not crossing and len(own) > 1:
            split[rng.choice(own)] = "query"
        for camera in sorted(set(cameras)) if crossing else ():
            there = own[cameras == camera]
            left = [row for row in own if split[row] == "gallery" and row not in there]
            if left:  # an image of another camera must stay to be found
                split[rng.choice(there)] = "query"
    return split.tolist()
