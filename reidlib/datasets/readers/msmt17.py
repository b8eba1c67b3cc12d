r"""MSMT17: fifteen cameras, four days, 126,441 boxes of 4,101 people; version 1, and version 2 with blurred faces.

`MSMT17_V1/{train,test}/` or `MSMT17_V2/{mask_train_v2,mask_test_v2}/` with `list_train.txt`, `list_val.txt`,
`list_query.txt`, `list_gallery.txt`; a line is `relative/path.jpg pid`. The camera, 1 to 15, is the third field of the
path between underscores (`0000/0000_000_01_0303morning_0015_0.jpg`). Train and val together have 32,621 images of 1,041
people, query 11,659, gallery 82,161 of 3,060.

The lists number people from 0, training and test people alike. Here two people never share a number, so `pids` are the
list's number plus 1 for training people (1 to 1,041) and plus 1 + 1,041 for test people; the list's own number is the
column `list_pid` of `info`. Scored like Market-1501; val is not trained on unless you say so.

Status: on request with an agreement to sign, research only; version 1, with faces, is restricted: use version 2.

Source: Wei et al., "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification", CVPR 2018; the counts of
train (30,248) and val (2,373) alone are as commonly quoted.
"""

import os
import re
from pathlib import Path

import pandas as pd

from reidlib.checks import check_choice
from reidlib.datasets.annotations import read_text
from reidlib.datasets.person_images import extend
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing, Subsets

VERSIONS = {"MSMT17_V1": ("train", "test"), "MSMT17_V2": ("mask_train_v2", "mask_test_v2")}
LISTS = ("train", "val", "query", "gallery")
COUNTS = {"train + val": 32_621, "query": 11_659, "gallery": 82_161}
TRAIN_PEOPLE = 1_041
CAMERAS = 15
# the camera is the path's third field between underscores; 18 digits fit an int64
LINE = re.compile(r"(?P<path>[^_]*_[^_]*_(?P<camid>[0-9]{1,18})_.*\.jpg) (?P<pid>[0-9]{1,18})", re.IGNORECASE)


def parse_line(line: str) -> tuple[str, int, int] | None:
    """Return (path, number of the person, camera) of a line of a list, or None if it does not follow the grammar.

    >>> parse_line("0003/0003_011_05_0303morning_0024_1.jpg 3")
    ('0003/0003_011_05_0303morning_0024_1.jpg', 3, 5)
    >>> parse_line("0003/a.jpg 3") is None
    True
    """
    match = LINE.fullmatch(line.strip())
    if match is None or not 1 <= int(match["camid"]) <= CAMERAS:
        return None
    return match["path"], int(match["pid"]), int(match["camid"])


def read(root: str | os.PathLike, *, version: int | None = None, train_with_val: bool = False) -> Listing:
    """List MSMT17.

    Args:
        root: the data set's own folder, or the folder that holds it.
        version: 1 or 2; default the one that is there, 2 where both are.
        train_with_val: train on the validation people's images too.

    Raises:
        FileNotFoundError: no such data set, a list is missing (val: only if it is wanted), or it names images that
            are not there.
        ValueError: an empty or malformed list, a path listed twice.
    """
    check_choice("version", version, (None, 1, 2))
    wanted = ("MSMT17_V2", "MSMT17_V1") if version is None else (f"MSMT17_V{version}",)
    folder, train_folder, test_folder = _find(root, wanted)
    needed = LISTS if train_with_val or (folder / "list_val.txt").is_file() else ("train", "query", "gallery")
    rows = {"val": []} | {part: _read_list(folder / f"list_{part}.txt") for part in needed}
    offset = max(TRAIN_PEOPLE, 1 + max(number for part in LISTS[:2] for _, number, _ in rows[part]))
    found = {"train + val": len(rows["train"]) + len(rows["val"]), **{s: len(rows[s]) for s in LISTS[2:]}}
    listing.check_counts(folder, "MSMT17", found, COUNTS)
    tables = {}
    for part in LISTS if train_with_val else ("train", "query", "gallery"):
        is_train = part in LISTS[:2]
        table = pd.DataFrame(rows[part], columns=["path", "list_pid", "camid"])
        table["path"] = f"{train_folder if is_train else test_folder}/" + table["path"]
        table["name"] = table["path"].str.rpartition("/")[2]
        table["pid"] = table["list_pid"] + (1 if is_train else 1 + offset)
        listing.check_files(folder, table["path"].to_list(), f"list_{part}.txt")
        tables[part] = table.sort_values("path", ignore_index=True)
    variant = f"{'trainval-' if train_with_val else ''}{folder.name.lower()}"
    return Listing(folder, tables, variant=variant, views=_join_val)


def _join_val(decoded: Subsets) -> Subsets:
    val = decoded.pop("val", None)
    return decoded if val is None else decoded | {"train": extend(decoded["train"], val)}


def _find(root: str | os.PathLike, versions: tuple[str, ...]) -> tuple[Path, str, str]:
    """Return the data set's folder and the names of its folders of training and of test images."""
    places = [f"{parent}{version}" for version in versions for parent in ("", "msmt17/", "MSMT17/")]
    folders = {VERSIONS[version] for version in versions}
    folder = listing.find_folder(root, places, ["list_train.txt"], "MSMT17")
    for train_folder, test_folder in sorted(folders, reverse=True):
        if (folder / train_folder).is_dir():
            if not (folder / test_folder).is_dir():
                raise FileNotFoundError(f"{folder / test_folder} is missing; it belongs beside {train_folder}/")
            return folder, train_folder, test_folder
    raise FileNotFoundError(f"{folder} holds none of {sorted(folders)}")


def _read_list(path: Path) -> list[tuple[str, int, int]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; MSMT17 has {', '.join(f'list_{part}.txt' for part in LISTS)}")
    lines = [(i, line) for i, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    rows = [parse_line(line) for _, line in lines]
    if None in rows:
        i, line = lines[rows.index(None)]
        raise ValueError(
            f"{path}, line {i}: `relative/path.jpg pid` (at most 18 digits) with the camera (1 to {CAMERAS}) "
            f"as the path's third field between underscores expected, got {line!r}"
        )
    if not rows:
        raise ValueError(f"{path} lists no image")
    if twice := len(rows) - len({row[0] for row in rows}):
        raise ValueError(f"{path} lists {twice} images twice")
    return rows
