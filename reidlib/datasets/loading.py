"""`load`: read a data set by name. The reader lists the files; here they are decoded, cached, sized, put together."""

import inspect
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import torch

from reidlib.checks import check_choice
from reidlib.datasets import annotations, readers
from reidlib.datasets import cache as caching
from reidlib.datasets.contract import Benchmark, check_size
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.readers.listing import Listing, Subsets

OWN_COLUMNS = ("path", "name", "pid", "camid", "sequence")
KEYPOINT_TABLES = {"train": ["train"], "val": ["train"], "all": ["train", "test"]}  # of a subset; the others: test


def load(
    name: str,
    root: str | os.PathLike = "data",
    image_size: tuple[int, int] = (64, 32),
    *,
    size: str = "course",
    seed: int = 0,
    scene: str = "retrieval",
    network: str = "market1501",
    difficulty: float = 1.0,
    split: int | None = None,
    keypoint_scale: float | str = 1.0,
    cache: str | os.PathLike | None = None,
    progress: bool = True,
    **options: Any,
) -> Benchmark:
    """Load a data set: render it first (`"procedural"`), or read a folder that you have.

    Args:
        name: `"procedural"`, `"market1501"`, `"dukemtmc"`, `"cuhk03"`, `"cuhk01"`, `"msmt17"`, `"deepfashion"` or
            `"folder"` (a table of your own, see `reidlib.datasets.readers.folder`).
        root: the folder that holds the data set's own folder, or that folder itself; relative to the repository root.
        image_size: (height, width) that every image is resized to when it is decoded.
        size: how many people `"procedural"` renders: `"smoke"`, `"course"`, `"many"` or `"full"`.
        seed: which people it renders.
        scene: how hard they are: `"retrieval"` or `"generation"`.
        network: which camera network it renders, in the layout of the data set of that name; `"reserved1"` and
            `"reserved2"`, which no table uses, in Market-1501's.
        difficulty: strength of cameras, clothing collisions and occlusion.
        split: which of CUHK03's 20 or CUHK01's 10 splits, counted from 0; the others have none.
        keypoint_scale: what key points were made on: pictures so many times smaller than the stored ones (2.0: of half
            their height), or "relative" for shares of width and height, 0 to 1.
        cache: where decoded images are kept; default `data/.cache`.
        progress: show a progress bar while rendering and decoding.
        options: of one reader: `boxes`, `protocol` (cuhk03), `query_view`, `split_seed` (cuhk01), `version`,
            `train_with_val` (msmt17), `crop` (deepfashion), `table` (folder); see the readers' `read`.

    `size`, `seed`, `scene`, `network` and `difficulty` describe rendered people; real data has no such choice and
    takes no notice of them, so one notebook can pass them whatever its `dataset` is. An image that cannot be decoded
    is left out with a warning that names it.

    Raises:
        ValueError: unknown name; a scale that is no positive number; a split of a data set that has none; empty subset;
            an identity in both the training and the test set.
        TypeError: an option that the data set's reader does not take.
        FileNotFoundError: no such data set in `root`.
    """
    height, width = check_size(image_size)
    check_choice("name", name, ("procedural", *readers.NAMES))
    if keypoint_scale != "relative" and not (isinstance(keypoint_scale, (int, float)) and 0 < keypoint_scale < 1e6):
        raise ValueError(f"keypoint_scale={keypoint_scale!r}: accepted are a positive number and 'relative'")
    layout = name
    if name == "procedural":
        from reidlib.datasets import procedural
        from reidlib.datasets.procedural.networks import network_named
        from reidlib.datasets.procedural.write import stored_size

        choice = {"size": size, "seed": seed, "scene": scene, "network": network, "difficulty": difficulty}
        root = procedural.make(root, image_size=stored_size((height, width)), progress=progress, **choice)
        layout = network_named(network).layout
    read = readers.reader(layout).read
    accepted = sorted(set(inspect.signature(read).parameters) - {"root"})
    if split is not None:
        if "split" not in accepted:
            raise ValueError(f"{name} has no splits to choose from, got split={split!r}")
        options["split"] = split
    if unknown := sorted(set(options) - set(accepted)):
        raise TypeError(f"{name} takes no option {', '.join(unknown)}; it takes {', '.join(accepted) or 'none'}")
    listing = replace(read(root, **options), keypoint_scale=keypoint_scale)
    subsets = _decode(listing, name, (height, width), cache, progress)
    subsets = subsets if listing.views is None else listing.views(subsets)
    return Benchmark(name=name, folder=listing.folder, protocol=listing.protocol, **subsets)


def load_splits(
    name: str, root: str | os.PathLike = "data", image_size: tuple[int, int] = (64, 32), **options: Any
) -> Iterator[Benchmark]:
    """Load each of the splits that a data set's protocol averages over, one after the other.

    CUHK03 gives 20, CUHK01 its ten splits both ways (20, a split's two ways after each other, with the same training
    set), every other data set one. `options` go on to `load`; what they fix is not varied (`split=3` gives CUHK01's
    two ways of that split). `evaluators.score_splits` runs an experiment over them.
    """
    layout = options.get("network", "market1501") if name == "procedural" else name
    variants = getattr(readers.reader(layout), "SPLITS", ({},)) if layout in readers.NAMES else ({},)
    for variant in variants if options.get("protocol") != "new" else ({},):
        if all(options.get(key, value) == value for key, value in variant.items()):
            yield load(name, root, image_size, **options | variant)


def _decode(
    listing: Listing, name: str, image_size: tuple[int, int], cache: str | os.PathLike | None, progress: bool
) -> Subsets:
    """Decode the images of each table through the cache and put them together with everything known about them."""
    folder, files = listing.folder, {}
    for subset, table in listing.tables.items():
        found = {kind: annotations.find_beside(folder, table["path"], kind) for kind in annotations.BESIDE}
        beside = {kind: paths for kind, paths in found.items() if paths is not None}
        images = [folder / path for path in table["path"]]
        if images:
            tables = _keypoint_tables(folder, subset)
            files[subset] = caching.Files(listing, images, table["name"].to_list(), tables, beside)
    decoded = caching.decode(listing, files, name=name, image_size=image_size, cache=cache, progress=progress)
    truth = annotations.read_truth(folder / "truth.csv")
    subsets = dict.fromkeys(listing.tables, PersonImages(torch.zeros((0, 3, *image_size), dtype=torch.uint8), [], []))
    for subset, (arrays, kept) in decoded.items():
        table = listing.tables[subset]
        columns = {f"{key}s": table[key].to_list() for key in ("pid", "camid", "sequence", "name") if key in table}
        people = PersonImages(**arrays, **columns, info=_info(truth, subset, table))
        subsets[subset] = people if kept is None else people.select(indices=kept)
    return subsets


def _keypoint_tables(folder: Path, subset: str) -> list[Path]:
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
    return tables


def _info(truth: pd.DataFrame | None, subset: str, table: pd.DataFrame) -> pd.DataFrame | None:
    """Join the further columns of the table and what truth.csv knows about these images."""
    own = table.drop(columns=list(OWN_COLUMNS), errors="ignore").reset_index(drop=True)
    if truth is None:
        return own if len(own.columns) else None
    if "subset" in truth.columns:  # a file's subset may go by its folder's name or by ours
        tops = {PurePosixPath(path).parts[0] for path in table["path"]}
        own_rows = truth[truth["subset"].isin([*tops, subset])]
        truth = own_rows if subset != "all" or len(own_rows) else truth
    truth = truth.drop_duplicates("name").drop(columns=[*own.columns, "pid", "camid", "sequence"], errors="ignore")
    names = pd.DataFrame({"name": table["name"].to_list()}).join(own)
    return names.merge(truth, on="name", how="left").drop(columns="name")
