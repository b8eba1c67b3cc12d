r"""`reidlib table FOLDER`: the table of your own photographs, who is who and which split, from names and folders.

    reidlib table photographs --pattern "cam{camid}_{pid}_{n}"

writes `people.csv` into the folder, which `reidlib.datasets.readers.folder` reads from then on.
"""

import argparse
import os
import re
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from reidlib.checks import reading_inputs, some
from reidlib.datasets.annotations import BESIDE
from reidlib.datasets.pictures import SUFFIXES
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.folder import TABLE, copies
from reidlib.files import atomic_path, resolve

MANY = 20  # identities from which on half of them train
CAMERA = re.compile(r"(?:^|[^a-z])(?:camera|cam|c)[_\- ]?(\d+)(?!\d)", re.IGNORECASE)
NOBODY = re.compile(  # parts of a name that are never a person: a camera, what a camera calls its pictures
    r"(?:^|(?<=[_\- ]))(?:(?:camera|cam|c)[_\- ]?\d+(?:s\d+)?|img|dsc[nf]?|pxl|image|photo|picture|frame)(?=$|[_\- ])",
    re.IGNORECASE,
)
NAMED = {  # folders whose names say what their images are for
    "train": "train", "bounding_box_train": "train", "query": "query", "gallery": "gallery",
    "bounding_box_test": "gallery", "test": "gallery",
}  # fmt: skip


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
    split = _splits_of(paths)
    who = _read_names(list(split), pattern)
    identities = [identity for identity, _ in who.values()]
    cameras = [camera for _, camera in who.values()]
    rows = pd.DataFrame(
        {
            "path": list(who),
            "pid": _numbers_of(identities),
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


def _read_names(paths: list[str], pattern: str | None) -> dict[str, tuple[str, int | None]]:
    """Return identity and camera (or None) of each path; paths that no rule fits are left out with a warning."""
    rule = "folders or names" if pattern is None else f"the pattern {pattern!r}"
    read = _guess(paths) if pattern is None else _match(paths, pattern)
    if not read:
        raise ValueError(f"none of {len(paths)} images fits {rule}, for example {paths[0]}; pass pattern=")
    if left_out := [path for path in paths if path not in read]:
        said = f"{len(left_out)} images do not fit {rule} and are left out"
        warnings.warn(f"{said}: {some(left_out)}", stacklevel=3)
    if pattern is None and len({identity for identity, _ in read.values()}) == 1:
        raise ValueError(
            f"all {len(read)} images would show one person, {next(iter(read.values()))[0]!r}, for example "
            f'{next(iter(read))}; put each person into a folder, or pass pattern="{{pid}}_{{n}}" or its like'
        )
    return read


def _match(paths: list[str], pattern: str) -> dict[str, tuple[str, int | None]]:
    """Read paths by a template or a regular expression.

    Raises:
        ValueError: without `pid`, or a template that fits a name in two ways.
    """
    if not ("(?P<pid>" in pattern or ("{pid}" in pattern and "(?P<" not in pattern)):
        raise ValueError(f"pattern needs the group (?P<pid>...) or, as a template, the field {{pid}}; got {pattern!r}")
    readings = [
        {path: match.groupdict() for path in paths if (match := expression.search(_target(path, pattern)))}
        for expression in _expressions(pattern)
    ]
    for path, fields in readings[0].items():
        if readings[-1][path] != fields:
            raise ValueError(f"{pattern!r} reads {path} in two ways, as {fields} and as {readings[-1][path]}")
    return {
        path: (fields["pid"], int(fields["camid"]) if fields.get("camid") else None)
        for path, fields in readings[0].items()
    }


def _target(path: str, pattern: str) -> str:
    """Return what a pattern is compared with: a template without an extension knows none."""
    is_template = "(?P<" not in pattern
    return path.rpartition(".")[0] if is_template and not pattern.lower().endswith(SUFFIXES) else path


def _expressions(pattern: str) -> list[re.Pattern]:
    """Compile a pattern: of a template the readings with the longest and with the shortest fields."""
    if "(?P<" in pattern:
        return [re.compile(pattern)]
    kinds = {"pid": "(?P<pid>[^/]+{})", "camid": r"(?P<camid>\d+{})"}
    pieces = re.split(r"\{(\w+)\}", pattern)
    compiled = []
    for how in ("", "?"):
        fields = [kinds.get(field, "[^/]+{}").format(how) for field in pieces[1::2]]
        text = "".join(re.escape(word) + field for word, field in zip(pieces[::2], [*fields, ""], strict=True))
        compiled.append(re.compile(f"(?:^|/){text}$"))
    return compiled


def _guess(paths: list[str]) -> dict[str, tuple[str, int | None]]:
    """Read paths by their folders or, where some have none that may be a person, by their names."""
    inner = {path: PurePosixPath(path).parts[PurePosixPath(path).parts[0] in NAMED :] for path in paths}
    folders = {path: [part for part in parts[:-1] if not NOBODY.fullmatch(part)] for path, parts in inner.items()}
    if all(folders.values()):
        who = {path: own[0] for path, own in folders.items()}
    else:
        names = {path: NOBODY.sub("", PurePosixPath(path).stem) for path in paths}
        names = {path: re.sub(r"^(?!-1(?:_|$))[_ \-]+", "", name) for path, name in names.items()}
        matches = {path: re.match(r"(-1|[^_]+?)[ \-]*(?:_.*|[\d ()]+)?$", name) for path, name in names.items()}
        numbers = {path for path, name in names.items() if re.fullmatch(r"[\d ()\-]+", name)}
        who = {path: match[1] for path, match in matches.items() if match and path not in numbers}
        _refuse_two_readings({path: [part for part in names[path].split("_") if part] for path in who})
    read = {}
    for path, identity in who.items():
        rest = "/".join(part for part in inner[path] if part != identity)
        camera = CAMERA.search(rest)
        read[path] = (identity, int(camera[1]) if camera else None)
    return read


def _refuse_two_readings(fields: dict[str, list[str]]) -> None:
    """Refuse names whose first field is a number where another field may be the person as well.

    That is a word that some images share (`1_anna`), or a number as long where there are just two (`1_2`).
    """
    columns = list(zip(*fields.values(), strict=False))
    if not columns or not all(re.fullmatch(r"[\d\-]+", value) for value in columns[0]):
        return
    for column in columns[1:]:
        words = all(re.search(r"[^\W\d]", value) for value in column)
        alike = len(columns) == 2 and {len(value) for value in column} == {len(value) for value in columns[0]}
        if 1 < len(set(column)) < len(column) and (words or (alike and len(set(columns[0])) < len(column))):
            raise ValueError(
                f"two readings fit names like {next(iter(fields))}: is the person {columns[0][0]!r} or {column[0]!r}? "
                f'Say so with pattern="{{pid}}_{{n}}" or its like'
            )


def _numbers_of(identities: list[str]) -> list[int]:
    """Number people: by their own numbers where all have one and no two the same, otherwise from 1 in sorted order."""
    people = sorted(set(identities))
    whole = all(re.fullmatch(r"-1|\d{1,18}", identity, re.ASCII) for identity in people)
    if whole and len({int(identity) for identity in people}) == len(people):
        return [int(identity) for identity in identities]
    number = {identity: i for i, identity in enumerate(people, start=1)}
    return [number[identity] for identity in identities]


def _splits_of(paths: list[str]) -> dict[str, str]:
    """Return the split of each path by its first folder, "" where no folder says it; others are left out."""
    tops = {path: PurePosixPath(path).parts[0] if "/" in path else "" for path in paths}
    named = sorted({top for top in tops.values() if top in NAMED})
    others = sorted({f"{top}/" if top else "no folder" for top in tops.values() if top not in NAMED})
    if not named:
        return dict.fromkeys(paths, "")
    if "bounding_box_test" in named:
        warnings.warn('pids 0000 become a person here; load("market1501") knows them as distractors', stacklevel=3)
    if others and len({NAMED[top] for top in named}) == 1:
        raise ValueError(
            f"{named[0]}/ beside {some(others)}: is it a split or a person? Rename it, or put all images into train/, "
            f"query/ and gallery/"
        )
    if others:
        left_out = sum(top not in NAMED for top in tops.values())
        warnings.warn(
            f"{', '.join(named)} say what their images are for; {left_out} images in {some(others)} are left out",
            stacklevel=3,
        )
    return {path: NAMED[top] for path, top in tops.items() if top in NAMED}


def _find_images(folder: Path) -> list[str]:
    """Return the photographs below a folder by their paths in it, sorted."""
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    beside = tuple(BESIDE.values())
    inside = [path for path in found if path.name[0] != "." and not any(p.endswith(beside) for p in path.parts[:-1])]
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


def _without_copies(folder: Path, paths: list[str]) -> list[str]:
    extra = [path for same in copies(folder, paths) for path in same[1:]]
    if extra:
        warnings.warn(f"{len(extra)} exact copies are left out: {some(extra)}", stacklevel=3)
    return [path for path in paths if path not in set(extra)]


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib table`."""
    parser.add_argument("folder", help="your photographs, one person on each")
    parser.add_argument(
        "--pattern",
        help='how names are read, such as "cam{camid}_{pid}_{n}", or a regular expression with the group pid '
        "(default: by folders, else by the words of the names)",
    )
    share = f"share of the people to train on, from 0 to below 1 (default: half from {MANY} people on, else none)"
    parser.add_argument("--train", type=float, metavar="SHARE", help=share)
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help=f"replace a {TABLE} of other contents")


def run(options: argparse.Namespace) -> int:
    """Make the table; say how the names were read and where it is."""
    how = {name: getattr(options, name) for name in ("pattern", "train", "seed", "overwrite")}
    with reading_inputs():
        make_table(options.folder, **how)
    print(resolve(options.folder) / TABLE)
    return 0
