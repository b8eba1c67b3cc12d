"""What the readers share: finding a folder, checking what is in it, annotations beside images, tables to images.

A reader makes one table for each subset (a row for each image: `path` inside the data set's folder, `name`, `pid`,
`camid`, if it has them `sequence`, and anything else, which becomes `PersonImages.info`) and hands it to `read_images`.
Beside a folder of images `F` may lie, with the same sub-folders, all optional:

- `F_seg/`: person masks; `F_parsing/`: LIP parsing; `F_keypoints/`: OpenPose's JSON (`NAME_keypoints.json`);

and in the data set's own folder:

- `*annotation-train.csv`, `*annotation-test.csv` (or `*annotation.csv`): key points as public pose-transfer work
  writes them;
- `truth.csv`: what a renderer knows about each image.
"""

import json
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
from PIL import Image

from reidlib.datasets import annotations
from reidlib.datasets import cache as caching
from reidlib.datasets.person_images import PersonImages
from reidlib.files import resolve

OWN_COLUMNS = ("path", "name", "pid", "camid", "sequence")
KEYPOINT_TABLES = {"train": ["train"], "val": ["train"], "all": ["train", "test"]}  # of a subset; the others: test


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
    """Warn where the released data set has another number of images (a rendered tree has its own numbers)."""
    if (folder / "truth.csv").exists():
        return
    wrong = [f"{part} {n} (released: {released[part]})" for part, n in found.items() if n != released.get(part, n)]
    if wrong:
        warnings.warn(f"{folder} differs from the released {title} in its images: {', '.join(wrong)}", stacklevel=4)


def check_disjoint(folder: Path, train: Iterable[int], test: Iterable[int]) -> None:
    """Refuse a person (pid > 0) who is in both the training and the test set.

    Raises:
        ValueError: naming the first of them.
    """
    shared = sorted(pid for pid in set(train) & set(test) if pid > 0)
    if shared:
        raise ValueError(
            f"{len(shared)} identities of {folder} are in both the training and the test set "
            f"({some([f'{pid:04d}' for pid in shared])}); a score on people seen in training means nothing"
        )


def check_files(folder: Path, paths: Sequence[str], source: str) -> None:
    """Refuse a list that names files which are not there.

    Raises:
        FileNotFoundError: with how many are missing, and the first of them.
    """
    missing = [path for path in paths if not os.path.isfile(folder / path)]  # noqa: PTH113, quicker on 100,000 files
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images that {source} names are not in {folder}: {some(missing)}"
        )


def check_split(split: int, available: int, title: str) -> None:
    """Refuse a split that is not there; splits count from 0.

    Raises:
        ValueError: with the splits accepted.
    """
    if isinstance(split, bool) or not isinstance(split, int) or not 0 <= split < available:
        raise ValueError(f"{title} has {available} splits: split must be 0 to {available - 1}, got {split!r}")


def check_choice(name: str, value: object, accepted: Collection) -> None:
    """Refuse a value that is not among the accepted ones."""
    if value not in accepted:
        raise ValueError(f"{name} must be {' or '.join(map(repr, accepted))}, got {value!r}")


def list_names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """List the files of one folder with these suffixes, sorted by name; hidden files are ignored.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing")
    return sorted(e.name for e in os.scandir(folder) if e.name.lower().endswith(suffixes) and e.name[0] != ".")


def warn_of_names(wrong: Sequence[str], folder: Path, grammar: str) -> None:
    """Warn of names that do not follow the grammar: a guessed identity would quietly spoil every score."""
    if wrong:
        warnings.warn(
            f"{len(wrong)} names in {folder} do not follow {grammar} and are left out: {some(wrong)}", stacklevel=3
        )


def read_json(path: Path) -> object:
    """Read a JSON file, or raise ValueError naming the file."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def some(names: Sequence[str], most: int = 5) -> str:
    """Write the first few names of a long list.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_images(
    tables: Mapping[str, pd.DataFrame],
    folder: Path,
    *,
    name: str,
    image_size: tuple[int, int],
    cache: str | os.PathLike | None = None,
    progress: bool = True,
    open_image: Callable[[Path], Image.Image] = Image.open,
    container: Path | None = None,
    columns: tuple[int, int] | None = None,
) -> dict[str, PersonImages]:
    """Decode the images of each table through the cache and put them together with everything known about them.

    An image that cannot be decoded is left out with a warning that names it.

    Args:
        tables: for each subset a row for each image, see the module.
        folder: the data set's own folder.
        name: starts the cache folder's name; two ways of reading one folder need two names.
        image_size, cache, progress: see `cache.decode`.
        open_image, container, columns: see `cache.Files`.
    """
    files = {
        subset: caching.Files(
            images=[folder / path for path in table["path"]],
            names=table["name"].to_list(),
            keypoints=_keypoint_tables(folder, subset),
            openpose=beside(folder, table["path"], "_keypoints"),
            masks=beside(folder, table["path"], "_seg"),
            parsing=beside(folder, table["path"], "_parsing"),
            open_image=open_image,
            container=container,
            columns=columns,
        )
        for subset, table in tables.items()
        if len(table)
    }
    decoded = caching.decode(files, name=name, folder=folder, image_size=image_size, cache=cache, progress=progress)
    truth = annotations.read_truth(folder / "truth.csv")
    subsets = {}
    for subset, table in tables.items():
        if subset not in decoded:
            subsets[subset] = no_images(image_size)
            continue
        arrays = decoded[subset]
        people = PersonImages(
            arrays.images,
            table["pid"].to_list(),
            table["camid"].to_list(),
            sequences=table["sequence"].to_list() if "sequence" in table else None,
            names=table["name"].to_list(),
            keypoints=arrays.keypoints,
            masks=arrays.masks,
            parsing=arrays.parsing,
            info=_info(truth, subset, table),
        )
        subsets[subset] = people if arrays.kept is None else people.select(indices=arrays.kept)
    return subsets


def select_names(people: PersonImages, names: Iterable[str]) -> PersonImages:
    """Return the images of these names, in this order; names that could not be decoded are not there any more."""
    position = {name: i for i, name in enumerate(people.names)}
    return people.select(indices=[position[name] for name in names if name in position])


def no_images(image_size: tuple[int, int]) -> PersonImages:
    """Return an empty set of images of this size.

    >>> len(no_images((64, 32)))
    0
    """
    import torch

    return PersonImages(torch.zeros((0, 3, *image_size), dtype=torch.uint8), [], [])


def beside(folder: Path, paths: Iterable[str], ending: str) -> list[Path | None] | None:
    """Find the annotation file of each image: for `train/7/x.jpg` in `folder/train{ending}/7/`.

    Images that lie in `folder` itself have theirs in the folder beside it, which is named like it plus `ending`.

    Returns:
        One path (or None) for each image; None altogether where there is no such folder.
    """
    paths = [PurePosixPath(path) for path in paths]
    rows = defaultdict(list)
    for i, path in enumerate(paths):
        rows[path.parent].append(i)
    find = annotations.find_openpose if ending == "_keypoints" else annotations.find_beside
    found: list[Path | None] = [None] * len(paths)
    present = False
    tops = {parent.parts[0] if parent.parts else "" for parent in rows}
    there = {top: _beside_of(folder, top, ending) for top in tops}
    for parent, own in rows.items():
        place = there[parent.parts[0] if parent.parts else ""]
        here = find(place.joinpath(*parent.parts[1:]), [paths[i].name for i in own]) if place.is_dir() else None
        present = present or here is not None
        for i, path in zip(own, here or [], strict=False):
            found[i] = path
    return found if present else None


def _beside_of(folder: Path, top: str, ending: str) -> Path:
    return folder / f"{top}{ending}" if top else folder.with_name(f"{folder.name}{ending}")


def _keypoint_tables(folder: Path, subset: str) -> tuple[Path, ...]:
    """Return the key-point tables of a subset, in the data set's own folder.

    Raises:
        ValueError: two tables of one kind, of which only one can be meant.
    """
    tables = []
    splits = KEYPOINT_TABLES.get(subset, ["test"])
    for pattern in (*(f"*annotation-{split}.csv" for split in splits), "*annotation.csv"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise ValueError(f"{folder} has {len(found)} tables {pattern}, keep one: {[p.name for p in found]}")
        tables += found
    return tuple(tables)


def _info(truth: pd.DataFrame | None, subset: str, table: pd.DataFrame) -> pd.DataFrame | None:
    """Join the further columns of the table and what truth.csv knows about these images."""
    own = table.drop(columns=list(OWN_COLUMNS), errors="ignore").reset_index(drop=True)
    if truth is None:
        return own if len(own.columns) else None
    rows = truth
    if "subset" in truth.columns:  # a file's subset may go by its folder's name or by ours
        tops = {PurePosixPath(path).parts[0] for path in table["path"]}
        own_rows = truth[truth["subset"].isin([*tops, subset])]
        rows = own_rows if subset != "all" or len(own_rows) else truth
    rows = rows.drop_duplicates("name").drop(columns=[*own.columns, "pid", "camid", "sequence"], errors="ignore")
    names = pd.DataFrame({"name": table["name"].to_list()}).join(own)
    return names.merge(rows, on="name", how="left").drop(columns="name")
