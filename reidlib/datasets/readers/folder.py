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
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from reidlib.checks import some
from reidlib.datasets.annotations import BESIDE
from reidlib.datasets.contract import Protocol
from reidlib.datasets.person_images import DISTRACTOR, JUNK
from reidlib.datasets.pictures import SUFFIXES
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing
from reidlib.files import atomic_path, resolve

TABLE = "people.csv"
LARGEST = 2**63 - 1  # what an int64 holds
SUBSETS = ("train", "query", "gallery")
CAMERA = re.compile(r"(?:^|[^a-z])(?:camera|cam|c)[_\- ]?(\d+)(?!\d)", re.IGNORECASE)
MANY = 20  # identities from which on half of them train
NAMED = {  # folders whose names say what their images are for
    "train": "train", "bounding_box_train": "train", "query": "query", "gallery": "gallery",
    "bounding_box_test": "gallery", "test": "gallery",
}  # fmt: skip


def read(root: str | os.PathLike, *, table: str | os.PathLike | None = None) -> Listing:
    """List the images that a table names.

    Args:
        root: the table, or the folder that holds it (as `people.csv`, or as the only CSV file with the right columns).
        table: the table, where it is not in `root`; its paths then count from `root`.

    Raises:
        FileNotFoundError: no folder, no table, or images that are not there.
        ValueError: columns, numbers or splits other than described, an image listed twice, no query or gallery image,
            or a person in both train and test.
    """
    path = _find_table(root) if table is None else resolve(table)
    folder = path.parent if table is None else resolve(root)
    rows = _read_table(path)
    listing.check_files(folder, rows["path"].to_list(), path.name)
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
) -> pd.DataFrame:
    r"""Make the table of a folder of crops: guess who is who, split, and write `people.csv` into the folder.

    Who is who, by the first of these that applies:

    1. `pattern`, a regular expression with the group `pid` (and, if names tell cameras, `camid`), searched in each
       image's path relative to the folder: `r"(?P<pid>\d+)_c(?P<camid>\d)"`;
    2. folders: `anna/1.jpg`, `anna/cam2/1.jpg`; the identity is the first folder (the second below `train/`, `query/`,
       `gallery/`, `bounding_box_train/`, `bounding_box_test/`, `test/`, which also fix the split);
    3. names: what stands before the first `_`, or before the last number: `anna_01.jpg`, `anna 3.jpg`, `0002_c1_7.jpg`.

    The camera is the number after `c`, `cam` or `camera` anywhere in the path; it is known where every image has one.
    Identities that are all whole numbers keep them; others are numbered from 1 in sorted order, and the column
    `identity` keeps their names. Exact copies of an image are left out with a warning, so are files that no rule fits.

    Splits, where folders do not fix them: the share `train` of the identities trains (drawn by `seed`; by default half
    from 20 identities on, else none). Each other identity with two images or more gives one query for each camera, or
    one where cameras are unknown, always leaving an image to find; all else is the gallery.

    Returns:
        The table, as written: `path`, `pid`, `camid`, `split`, `identity`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no image, a pattern without the group `pid`, `train` outside [0, 1), or nobody with two images.
    """
    folder = resolve(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if train is not None and not 0 <= train < 1:
        raise ValueError(f"train is a share of the identities, 0 <= train < 1, got {train!r}")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    inside = [path.relative_to(folder) for path in found if not path.name.startswith(".")]
    is_photograph = [not any(part.endswith(BESIDE) for part in path.parts[:-1]) for path in inside]
    paths = [path.as_posix() for path, kept in zip(inside, is_photograph, strict=True) if kept]
    if not paths:
        raise ValueError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    paths = _without_copies(folder, paths)
    who = _guess(paths, pattern)
    rows = pd.DataFrame(
        {
            "path": list(who),
            "pid": _numbers([identity for identity, _ in who.values()]),
            "camid": _cameras([camera for _, camera in who.values()]),
            "split": [NAMED.get(PurePosixPath(path).parts[0], "") for path in who],
            "identity": [identity for identity, _ in who.values()],
        }
    )
    if not (rows["split"] != "").all() or not {"query", "gallery"} <= set(rows["split"]):
        rows["split"] = _draw_split(rows, train, seed)
    if not (rows["split"] == "query").any():
        raise ValueError(
            f"nobody in {folder} has two images, so there is nothing to find: {rows['pid'].nunique()} identities"
        )
    with atomic_path(folder / TABLE if table is None else resolve(table)) as temporary:
        rows.to_csv(temporary, index=False)
    return rows


def _find_table(root: str | os.PathLike) -> Path:
    root = resolve(root)
    if root.is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is neither a table (CSV) nor a folder that holds one")
    if (root / TABLE).is_file():
        return root / TABLE
    found = [path for path in sorted(root.glob("*.csv")) if {"path", "pid"} <= set(pd.read_csv(path, nrows=0).columns)]
    if len(found) != 1:
        said = f"{len(found)} tables: {[path.name for path in found]}" if found else "no table"
        raise FileNotFoundError(
            f"{root} holds {said}; one CSV with the columns path,pid,camid,split is needed "
            f"(reidlib.datasets.readers.folder.make_table makes {TABLE} from a folder of crops)"
        )
    return found[0]


def _read_table(path: Path) -> pd.DataFrame:
    """Read and check a table; missing cameras become -1."""
    rows = pd.read_csv(path, dtype=dict.fromkeys(("path", "pid", "camid", "split"), str))
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
    cameras = set(rows["camid"][rows["split"] != "train"])
    if -1 not in cameras and len(cameras) > 1:
        return Protocol()
    why = "some images have no camera" if -1 in cameras else f"all images are from camera {min(cameras)}"
    warnings.warn(
        f'{path}: {why}, so matches are counted within a camera too (camera_rule="none"); scores of this kind are not '
        f"comparable with the cross-camera scores of the literature",
        stacklevel=3,
    )
    return Protocol(camera_rule="none")


def _copies(folder: Path, paths: Iterable[str]) -> list[list[str]]:
    """Group files of equal content; only files of equal size are read."""
    by_size, by_content = defaultdict(list), defaultdict(list)
    for path in paths:
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


def _guess(paths: list[str], pattern: str | None) -> dict[str, tuple[str, int | None]]:
    """Return identity and camera (or None) of each path; paths that no rule fits are left out with a warning."""
    if pattern is not None:
        expression = re.compile(pattern)
        if "pid" not in expression.groupindex:
            raise ValueError(f"pattern needs the group (?P<pid>...), got {pattern!r}")
        matches = {path: expression.search(path) for path in paths}
        guessed = {
            path: (match["pid"], int(match["camid"]) if "camid" in expression.groupindex and match["camid"] else None)
            for path, match in matches.items()
            if match
        }
        rule = f"the pattern {pattern!r}"
    else:
        guessed, rule = {}, "folders or names"
        inner = {path: PurePosixPath(path).parts[PurePosixPath(path).parts[0] in NAMED :] for path in paths}
        use_folders = all(len(parts) > 1 for parts in inner.values())
        for path, parts in inner.items():
            stem = PurePosixPath(parts[-1]).stem
            identity = parts[0] if use_folders else re.match(r"(-1|[^_]+?)[ \-]*(?:_.*|[\d ()]+)?$", stem)
            if identity:
                camera = CAMERA.search("/".join(parts[1:]) if use_folders else path)
                guessed[path] = (identity if use_folders else identity[1], int(camera[1]) if camera else None)
    if not guessed:
        raise ValueError(f"none of {len(paths)} images fits {rule}, for example {paths[0]}")
    if left_out := [path for path in paths if path not in guessed]:
        said = f"{len(left_out)} images do not fit {rule} and are left out"
        warnings.warn(f"{said}: {some(left_out)}", stacklevel=3)
    return guessed


def _numbers(identities: list[str]) -> list[int]:
    if all(re.fullmatch(r"-1|\d+", identity) for identity in identities):
        return [int(identity) for identity in identities]
    number = {identity: i for i, identity in enumerate(sorted(set(identities)), start=1)}
    return [number[identity] for identity in identities]


def _cameras(cameras: list[int | None]) -> list[int]:
    return [-1] * len(cameras) if None in cameras else list(cameras)


def _draw_split(rows: pd.DataFrame, train: float | None, seed: int) -> list[str]:
    """Return the split of each row: whole identities to train, then queries that leave something to find."""
    rng = np.random.default_rng(seed)
    people = sorted(set(rows["pid"][rows["pid"] >= 0]))
    share = (0.5 if len(people) >= MANY else 0.0) if train is None else train
    training = set(rng.permutation(people)[: int(share * len(people))].tolist())
    split = np.where(rows["pid"].isin(training), "train", "gallery").astype(object)
    for pid in people:
        own = np.flatnonzero((rows["pid"] == pid) & (split == "gallery"))
        cameras = rows["camid"].to_numpy()[own]
        if len(own) < 2:
            continue
        if len(set(cameras)) == 1:
            split[rng.choice(own)] = "query"
            continue
        for camera in sorted(set(cameras)):
            there = own[cameras == camera]
            left = [row for row in own if split[row] == "gallery" and row not in there]
            if left:  # an image of another camera must stay to be found
                split[rng.choice(there)] = "query"
    return split.tolist()
