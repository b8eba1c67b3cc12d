r"""CUHK03: five pairs of cameras on a campus, up to five images of a person in either view, boxes found or hand-drawn.

Two forms are read, and they give the same identities, names and cameras:

- `cuhk03_release/cuhk-03.mat` as released (MATLAB 7.3, that is HDF5): `detected` and `labeled`, each five tables of
  people by ten images (columns 1 to 5 view 1, 6 to 10 view 2), and `testsets`, 20 lists of (pair, person). Images are
  decoded from it straight into the cache;
- extracted images `images_detected/` and `images_labeled/`, names `pair_person3_view_index2.png` such as
  `1_001_2_06.png`, with the splits as JSON: `splits_classic_{detected,labeled}.json` (a list with, for each split,
  either the test people as [pair, person] pairs or an object of the lists `train`, `query`, `gallery` of
  [path, pid, camid]), or `splits_new_{detected,labeled}.json`, one such object.

`camids` are the view, 1 or 2 (pairs of cameras are not told apart); `pids` run over (pair, person) with the released
843, 440, 77, 58 and 49 people of the pairs: 1 to 1,467. Released are 14,097 detected and 14,096 labelled images.

- `protocol="classic"`: 20 fixed splits of 100 test people, all others train. Query = gallery = all test images; the two
  views are ranked against each other with one random gallery image of each identity, ten draws; average the 20 splits.
- `protocol="new"` (CUHK03-NP): 767 people train and 700 test, from `cuhk03_new_protocol_config_{detected,labeled}.mat`,
  whose `labels` are the `pids`; scored like Market-1501. Detected 7,365 train, 1,400 query, 5,332 gallery images;
  labelled 7,368, 1,400, 5,328.

Status: available from its authors on request, for research only.

Source: Li et al., "DeepReID", CVPR 2014; new protocol: Zhong et al., "Re-ranking Person Re-identification with
k-reciprocal Encoding", CVPR 2017; counts from the released files.
"""

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from reidlib.checks import check_choice, some
from reidlib.datasets.contract import Protocol
from reidlib.datasets.readers import listing
from reidlib.datasets.readers.listing import Listing

NAME = re.compile(r"(?P<pair>[1-5])_(?P<person>\d{3})_(?P<view>[12])_(?P<index>\d{2})\.png")
GRAMMAR = "pair_person3_view_index2.png (pair 1-5; index 01-05 in view 1, 06-10 in view 2)"
MAT = ("cuhk03_release/cuhk-03.mat", "cuhk-03.mat")
PEOPLE = (843, 440, 77, 58, 49)  # of each pair of cameras, as released
IMAGES = {"detected": 14_097, "labeled": 14_096}
NEW_COUNTS = {
    "detected": {"train": 7_365, "query": 1_400, "gallery": 5_332},
    "labeled": {"train": 7_368, "query": 1_400, "gallery": 5_328},
}
CLASSIC = Protocol(camera_rule="separate_views", gallery_shots=1, repeats=10)
SPLITS = tuple({"split": k} for k in range(20))
SUBSETS = ("train", "query", "gallery")
LARGEST = 1 << 26  # bytes of an array in the .mat: 4,700 x 4,700 pixels
DAMAGE = (OSError, RuntimeError, LookupError, TypeError, AttributeError, MemoryError)  # what h5py says of it
CONFIG = ("train_idx", "query_idx", "gallery_idx", "labels", "filelist")  # of the new protocol
READ_CONFIG = """
import json, sys, numpy as np
from scipy.io import loadmat
names = ["train_idx", "query_idx", "gallery_idx", "labels", "filelist", "camId"]
config = loadmat(sys.argv[1], squeeze_me=True, variable_names=names)
arrays = {name: np.atleast_1d(config[name]).ravel() for name in names if name in config}
print(json.dumps({n: [str(x) for x in a] if n == "filelist" else a.tolist() for n, a in arrays.items()}))
"""


class Split(NamedTuple):
    """Names of the images of each subset; `pids` where the protocol numbers people in its own way."""

    train: list[str]
    query: list[str]
    gallery: list[str]
    pids: dict[str, int] | None = None


def parse_name(name: str) -> tuple[int, int, int] | None:
    """Return (pid, view, index) of an extracted image's name, or None if it does not follow the grammar.

    >>> parse_name("1_001_1_01.png"), parse_name("2_001_2_06.png"), parse_name("1_001_1_06.png")
    ((1, 1, 1), (844, 2, 6), None)
    """
    match = NAME.fullmatch(name)
    if match is None:
        return None
    pair, person, view, index = map(int, match.groups())
    if not 1 <= person <= PEOPLE[pair - 1] or not 1 <= index <= 10 or view != 1 + (index > 5):
        return None
    return sum(PEOPLE[: pair - 1]) + person, view, index


def read(root: str | os.PathLike, *, split: int = 0, boxes: str = "detected", protocol: str = "classic") -> Listing:
    """List one split of CUHK03, from the released .mat or from extracted images, whichever is there (extracted first).

    All images are decoded once; the splits are views of them.

    Args:
        root: the data set's own folder, or the folder that holds it.
        split: 0 to 19 in the classic protocol; the new one has only 0.
        boxes: "detected" or "labeled".
        protocol: "classic" or "new".

    Raises:
        FileNotFoundError: no such data set, no splits for the protocol, or a split of images that are not there.
        ValueError: unknown protocol or boxes, split out of range, malformed file, people in both train and test.
    """
    boxes = "labeled" if boxes == "labelled" else boxes
    check_choice("boxes", boxes, ("detected", "labeled"))
    check_choice("protocol", protocol, ("classic", "new"))
    sub = f"images_{boxes}"
    folder = listing.find_folder(root, ("cuhk03", "CUHK03"), (f"{sub}/", *MAT), "CUHK03")
    mat = next((folder / path for path in MAT if (folder / path).is_file()), None)
    source: dict = {}
    if (folder / sub).is_dir():
        fields = listing.named_well(folder / sub, parse_name, GRAMMAR)
    else:
        fields = {n: parse_name(n) for n in _mat_cells(mat, boxes, mat.stat().st_mtime_ns)}
        source = {"container": mat, "open_image": _open_from(mat, boxes)}
    listing.check_counts(folder, "CUHK03", {boxes: len(fields)}, IMAGES)
    chosen = (_classic_split if protocol == "classic" else _new_split)(folder, mat, boxes, fields, split)
    pids = {n: (chosen.pids or {}).get(n, pid) for n, (pid, _, _) in fields.items()}
    _check(chosen, pids, folder)
    rows = [(f"{sub}/{n}", n, pids[n], view, int(n[0])) for n, (_, view, _) in fields.items()]
    return Listing(
        folder,
        {"all": pd.DataFrame(rows, columns=["path", "name", "pid", "camid", "pair"])},
        protocol=CLASSIC if protocol == "classic" else Protocol(),
        variant=boxes,
        views=lambda decoded: {s: listing.select_names(decoded["all"], getattr(chosen, s)) for s in SUBSETS},
        **source,
    )


@lru_cache(maxsize=4)
def _mat_cells(mat: Path, boxes: str, changed: int) -> tuple[str, ...]:
    """Name the cells of the .mat that hold an image, sorted; empty cells leave gaps. `changed`: when it was."""
    names = []
    with _open_mat(mat) as file:
        tables = _references(file, boxes)
        if len(tables) != len(PEOPLE):
            raise ValueError(f"{mat}: {boxes} must hold {len(PEOPLE)} pairs of cameras, got {len(tables)}")
        for pair, reference in enumerate(tables, start=1):
            cells = _array(file, reference)  # MATLAB's people x 10 lies as 10 x people
            if cells.ndim != 2 or cells.shape[0] != 10 or cells.shape[1] > PEOPLE[pair - 1]:
                raise ValueError(
                    f"{mat}: pair {pair} of {boxes} must be at most {PEOPLE[pair - 1]} people x 10 images, "
                    f"got {cells.shape[::-1]}"
                )
            for (i, person), cell in np.ndenumerate(cells):
                if isinstance(cell, h5py.Reference) and _may_be_image(file, cell):
                    names.append(f"{pair}_{person + 1:03d}_{1 + (i > 4)}_{i + 1:02d}.png")
    if not names:
        raise ValueError(f"{mat} holds no {boxes} image")
    return tuple(sorted(names))


def _open_from(mat: Path, boxes: str) -> Callable[[Path], Image.Image]:
    """Return a function that opens the image of a name out of the .mat."""

    @lru_cache(maxsize=1)  # opened when the first image is wanted: a cache that is whole needs none
    def tables() -> list[tuple[h5py.File, np.ndarray]]:
        file = _open_mat(mat)
        return [(file, _array(file, reference)) for reference in _references(file, boxes)]

    def open_image(path: Path) -> Image.Image:
        pair, person, _, index = map(int, NAME.fullmatch(path.name).groups())
        file, cells = tables()[pair - 1]
        pixels = _array(file, cells[index - 1, person - 1])  # [3,W,H]: reversed, as MATLAB's
        if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"{mat}: an RGB image of 8 bits expected, got {pixels.dtype} {pixels.shape[::-1]}")
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(2, 1, 0)))

    return open_image


@contextmanager
def _damage(mat: str | Path) -> Iterator[None]:
    """Turn whatever HDF5 says of a damaged file into one error that names it."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"{mat} is not a MATLAB 7.3 (HDF5) file, or is damaged: {error}") from error


def _open_mat(mat: Path) -> h5py.File:
    with _damage(mat):
        return h5py.File(mat, "r")


def _array(file: h5py.File, key: str | h5py.Reference) -> np.ndarray:
    """Read an array of the .mat by name or reference: one that lies in this file and is not too large."""
    with _damage(file.filename):
        is_link = isinstance(key, str) and not isinstance(file.get(key, getlink=True), h5py.HardLink)
        data = None if is_link else file[key]
        if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual or data.nbytes > LARGEST:
            raise ValueError(
                f"{file.filename}: an array in this file, of at most {LARGEST} bytes, expected; got {data or 'a link'}"
            )
        return data[()]


def _may_be_image(file: h5py.File, cell: h5py.Reference) -> bool:
    """Say whether a cell holds three dimensions; one that cannot be looked at is read, and named, with the images."""
    try:
        return file[cell].ndim == 3
    except (*DAMAGE, ValueError):
        return True


def _references(file: h5py.File, key: str) -> np.ndarray:
    if key not in file:
        there = sorted(file.keys())
        raise ValueError(f"{file.filename} must hold detected, labeled and testsets; {key} is not among {there}")
    return _array(file, key).reshape(-1)


def _classic_split(folder: Path, mat: Path | None, boxes: str, fields: dict[str, tuple], split: int) -> Split:
    """Return one of the 20 splits, from the JSON file or from the .mat's test sets."""
    path = folder / f"splits_classic_{boxes}.json"
    if path.is_file():
        entries = listing.read_json(path)
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"{path} must be a list of splits, got {type(entries).__name__}")
        listing.check_split(split, len(entries), f"CUHK03 ({path.name})")
        if isinstance(entries[split], dict):
            return _lists_of(entries[split], path)
        test = _people(entries[split], f"{path}, split {split}")
    elif mat is not None:
        with _open_mat(mat) as file, _damage(mat):
            testsets = _references(file, "testsets")
            listing.check_split(split, len(testsets), "CUHK03")
            pairs = _array(file, testsets[split]).T.astype(int).tolist()
        test = _people(pairs, f"{mat}, test set {split}")
    else:
        raise FileNotFoundError(f"the classic protocol needs {path} or one of {', '.join(MAT)} in {folder}")
    absent = sorted(test - {pid for pid, _, _ in fields.values()})
    listing.check_absent(folder, absent, len(test), f"test people (pids) of split {split}")
    of_test = [n for n in fields if fields[n][0] in test]
    return Split([n for n in fields if fields[n][0] not in test], of_test, of_test)


def _people(pairs: object, source: str) -> set[int]:
    """Turn [pair, person] pairs, both counted from 1, into pids."""
    pids = set()
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        good = isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
        if not good or not 1 <= pair[0] <= 5 or not 1 <= pair[1] <= PEOPLE[pair[0] - 1]:
            raise ValueError(f"{source}: people are [pair, person] counted from 1, got {pair!r}")
        pids.add(sum(PEOPLE[: pair[0] - 1]) + pair[1])
    return pids


def _lists_of(entry: object, path: Path) -> Split:
    """Read the lists of [path, pid, camid] of one split; who and where are taken from the names alone."""
    try:
        names = ([PurePosixPath(str(row[0]).replace("\\", "/")).name for row in entry[s]] for s in SUBSETS)
        return Split(*(sorted(listed) for listed in names))
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{path}: a split holds the lists train, query, gallery of [path, pid, camid]") from error


def _new_split(folder: Path, mat: Path | None, boxes: str, fields: dict[str, tuple], split: int) -> Split:
    """Return the 767/700 split, from its .mat or from the JSON file."""
    listing.check_split(split, 1, "CUHK03's new protocol")
    path, other = folder / f"cuhk03_new_protocol_config_{boxes}.mat", folder / f"splits_new_{boxes}.json"
    if path.is_file():
        chosen = _new_config(path)
    elif other.is_file():
        entries = listing.read_json(other)
        chosen = _lists_of(entries[0] if isinstance(entries, list) and entries else entries, other)
    else:
        raise FileNotFoundError(f"the new protocol needs {path} or {other.name} beside it")
    found = {s: len(getattr(chosen, s)) for s in SUBSETS}
    listing.check_counts(folder, f"CUHK03-NP ({boxes})", found, NEW_COUNTS[boxes])
    return chosen


def _new_config(path: Path) -> Split:
    """Read a MATLAB file of version 7 or older, in a process of its own: a damaged one can end Python."""
    out = subprocess.run([sys.executable, "-c", READ_CONFIG, str(path)], capture_output=True, text=True, check=False)
    if out.returncode:
        said = f"signal {-out.returncode}" if out.returncode < 0 else (out.stderr.strip() or "?").splitlines()[-1]
        raise ValueError(f"{path} is damaged, or is not a MATLAB file of version 7 or older: {said}")
    config = json.loads(out.stdout)
    if missing := [key for key in CONFIG if key not in config]:
        raise ValueError(f"{path} must hold {', '.join(CONFIG)}; {', '.join(missing)} is missing")
    files, labels = config["filelist"], _whole(config["labels"], f"{path}: labels", 0, 2**63 - 1)
    if len(files) != len(labels):
        raise ValueError(f"{path}: {len(files)} names beside {len(labels)} labels")
    rows = [_whole(config[key], f"{path}: {key}", 1, len(files)) for key in CONFIG[:3]]  # MATLAB counts from 1
    views = config.get("camId", [])
    if len(views) == len(files):
        wrong = [n for n, v in zip(files, views, strict=True) if (parse_name(n) or (0, int(v)))[1] != int(v)]
        if wrong:
            warnings.warn(f"{path}: camId differs from the view in the names of {some(wrong)}", stacklevel=2)
    return Split(*(sorted(files[i - 1] for i in listed) for listed in rows), dict(zip(files, labels, strict=True)))


def _whole(values: list, what: str, least: int, most: int) -> list[int]:
    """Return numbers as whole ones between two limits, or raise ValueError with the first that is not."""
    for value in values:
        if not isinstance(value, int | float) or not least <= value <= most or value % 1:
            raise ValueError(f"{what} must be {least} to {most}, got {value!r}")
    return [int(value) for value in values]


def _check(chosen: Split, pids: dict[str, int], folder: Path) -> None:
    """Check that a split names what is there, that nothing is empty and nobody is on both sides."""
    for subset in SUBSETS:
        listed = getattr(chosen, subset)
        if not listed:
            raise ValueError(f"the split of {folder} has no {subset} image")
        absent = [n for n in listed if n not in pids]
        listing.check_absent(folder, absent, len(listed), f"{subset} images of the split")
    listing.check_disjoint(folder, (pids[n] for n in chosen.train), (pids[n] for n in chosen.query + chosen.gallery))
