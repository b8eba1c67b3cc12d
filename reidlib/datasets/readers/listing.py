"""`Listing`, what every reader gives back, and the checks that readers share.

A reader makes one table for each subset: a row for each image with `path` (inside the data set's folder), `name`,
`pid`, `camid`, if it has them `sequence`, and anything else, which becomes `PersonImages.info`. It opens no image:
`reidlib.datasets.load` decodes, caches and sizes. Beside a folder of images `F` may lie, with the same sub-folders, all
optional:

- `F_seg/`: person masks; `F_parsing/`: LIP parsing; `F_keypoints/`: OpenPose's JSON (`NAME_keypoints.json`);

and in the data set's own folder:

- `*annotation-train.csv`, `*annotation-test.csv` (or `*annotation.csv`): key points as public pose-transfer work
  writes them;
- `truth.csv`: what a renderer knows about each image.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from reidlib.checks import some
from reidlib.datasets.annotations import read_text
from reidlib.datasets.contract import Protocol
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.pictures import SUFFIXES, open_picture
from reidlib.files import resolve

Subsets = dict[str, PersonImages]


@dataclass(frozen=True)
class Listing:
    """The files of a data set with their labels, and all that `load` needs to make a `Benchmark` of them.

    Attributes:
        folder: the data set's own folder.
        tables: for each decoded table its rows, see the module; named like the subsets unless `views` says otherwise.
        protocol: how its authors score it.
        variant: ends the cache's name; two ways of reading one folder need two.
        open_image: opens an image, for images that are not files of their own; default a picture file.
        container: the one file that holds all images.
        columns: keep the columns from the first to before the last of all pictures that are wide enough for that.
        views: makes the subsets of the decoded tables, where several subsets share one.
        keypoint_scale: see `load`.
    """

    folder: Path
    tables: Mapping[str, pd.DataFrame]
    protocol: Protocol = field(default_factory=Protocol)
    variant: str = ""
    open_image: Callable[[Path], Image.Image] = open_picture
    container: Path | None = None
    columns: tuple[int, int] | None = None
    views: Callable[[Subsets], Subsets] | None = None
    keypoint_scale: float | str = 1.0


def find_folder(root: str | os.PathLike, names: Sequence[str], markers: Sequence[str], title: str) -> Path:
    """Return the data set's own folder: `root` itself or one of the usual `names` in it that holds one of `markers`.

    Raises:
        FileNotFoundError: if there is none; the message lists where it looked.
    """
    root = resolve(root)
    places = [root, *(root / name for name in names)]
    for place in places:
        if any((place / marker).exists() for marker in markers):
            return place
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(f"no {title} folder: none of these holds {' or '.join(markers)}: {looked}")


def check_counts(folder: Path, title: str, found: Mapping[str, int], released: Mapping[str, int]) -> None:
    """Warn where the released data set, or of a rendered one what was rendered, has another number of images."""
    expected, source = released, f"the released {title}"
    if (folder / "finished.json").is_file():
        images = read_json(folder / "finished.json")["images"]
        expected = {name.removeprefix("images_").replace("campus", "images"): n for name, n in images.items()}
        source = "what was rendered (take the folder away to render it again)"
    elif (folder / "truth.csv").exists():
        return
    if wrong := [f"{part} {n} (expected: {expected[part]})" for part, n in found.items() if n != expected.get(part, n)]:
        warnings.warn(f"{folder} differs from {source} in its images: {', '.join(wrong)}", stacklevel=4)


def check_disjoint(folder: Path, train: Iterable[int], test: Iterable[int]) -> None:
    """Refuse a person (pid from 0) who is in both the training and the test set.

    Raises:
        ValueError: naming the first of them.
    """
    if shared := sorted(pid for pid in set(train) & set(test) if pid >= 0):
        raise ValueError(
            f"{len(shared)} identities of {folder} are in both the training and the test set "
            f"({some([f'{pid:04d}' for pid in shared])}); a score on people seen in training means nothing"
        )


def check_files(folder: Path, paths: Sequence[str], source: str, outside: bool = False) -> None:
    """Refuse a list that names files which are not there, or which lie outside of the folder.

    Raises:
        FileNotFoundError: with how many are missing, and the first of them.
        ValueError: a path that is absolute or climbs up (`../`), unless `outside` is true.
    """
    climbing = [path for path in paths if path.startswith("/") or ".." in path.split("/")]
    if climbing and not outside:
        raise ValueError(f"{len(climbing)} of the paths that {source} names leave {folder}: {some(climbing)}")
    # a link to nowhere is an image that cannot be read, like others; os.path is quicker on 100,000 files
    missing = [p for p in paths if not (os.path.isfile(folder / p) or os.path.islink(folder / p))]  # noqa: PTH113, PTH114
    check_absent(folder, missing, len(paths), f"images that {source} names")


def check_absent(folder: Path, absent: Sequence[object], of: int, what: str) -> None:
    """Refuse a list that names what the data set does not have.

    Raises:
        FileNotFoundError: with how many are missing, and the first of them.
    """
    if absent:
        raise FileNotFoundError(f"{len(absent)} of the {of} {what} are not in {folder}: {some(absent)}")


def check_split(split: int, available: int, title: str) -> None:
    """Refuse a split that is not there; splits count from 0.

    Raises:
        ValueError: with the splits accepted.
    """
    if isinstance(split, bool) or not isinstance(split, int) or not 0 <= split < available:
        raise ValueError(f"{title} has {available} splits: split must be 0 to {available - 1}, got {split!r}")


def in_utf8(names: Sequence[str], folder: Path) -> list[str]:
    """Return the names that are UTF-8; others, which no table could hold, are named in a warning and left out."""
    if wrong := {name for name in names if any("\ud800" <= letter <= "\udfff" for letter in name)}:
        said = f"{len(wrong)} names in {folder} are not UTF-8 and are left out, rename them"
        warnings.warn(f"{said}: {some([ascii(name) for name in sorted(wrong)])}", stacklevel=4)
    return [name for name in names if name not in wrong]


def list_names(folder: Path) -> list[str]:
    """List the picture files of one folder, sorted by name; hidden files are ignored."""
    names = [e.name for e in os.scandir(folder) if e.name.lower().endswith(SUFFIXES) and e.name[0] != "."]
    return sorted(in_utf8(names, folder))


def named_well(folder: Path, parse: Callable[[str], Any], grammar: str) -> dict[str, Any]:
    """List the picture files of one folder, sorted by name, each with what `parse` reads in its name.

    Those of which it understands nothing (answers None) are named in a warning and left out: a guessed identity would
    quietly spoil every score.

    Raises:
        ValueError: if no name follows the grammar.
    """
    fields = {name: parse(name) for name in list_names(folder)}
    if wrong := [name for name in fields if fields[name] is None]:
        said = f"{len(wrong)} names in {folder} do not follow {grammar} and are left out"
        warnings.warn(f"{said}: {some(wrong)}", stacklevel=4)
    if len(wrong) == len(fields):
        raise ValueError(f"{folder} holds no image named {grammar}")
    return {name: found for name, found in fields.items() if found is not None}


def read_json(path: Path) -> object:
    """Read a JSON file, or raise ValueError naming the file."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def select_names(people: PersonImages, names: Iterable[str]) -> PersonImages:
    """Return the images of these names, in this order; names that could not be decoded are not there any more."""
    position = {name: i for i, name in enumerate(people.names)}
    return people.select(indices=[position[name] for name in names if name in position])
