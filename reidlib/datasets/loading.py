"""`Benchmark`: a data set's training set, queries and gallery, and how it is to be scored; `load` reads one by name."""

import inspect
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from reidlib.datasets.contract import Benchmark, check_size


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
        size: how many people `"procedural"` renders: `"smoke"`, `"course"` or `"full"`.
        seed: which people it renders.
        scene: how hard they are: `"retrieval"` or `"generation"`.
        network: which camera network it renders, in the layout of the data set of that name.
        difficulty: strength of cameras, clothing collisions and occlusion.
        split: which of CUHK03's 20 or CUHK01's 10 splits, counted from 0; the others have none.
        cache: where decoded images are kept; default `data/.cache`.
        progress: show a progress bar while rendering and decoding.
        options: of one reader: `boxes`, `protocol` (cuhk03), `query_view`, `split_seed` (cuhk01), `version`,
            `train_with_val` (msmt17), `crop` (deepfashion), `table` (folder); see the readers' `read`.

    `size`, `seed`, `scene`, `network` and `difficulty` describe rendered people; real data has no such choice and
    takes no notice of them, so one notebook can pass them whatever its `dataset` is.

    Raises:
        ValueError: unknown name; a split of a data set that has none; empty subset; an identity in both the training
            and the test set.
        TypeError: an option that the data set's reader does not take.
        FileNotFoundError: no such data set in `root`.
    """
    height, width = check_size(image_size)
    readers = _readers()
    if name == "procedural":
        from reidlib.datasets import procedural

        rendered = (128, 64) if height <= 128 and width <= 64 else (256, 128)
        choice = {"size": size, "seed": seed, "scene": scene, "network": network, "difficulty": difficulty}
        root = procedural.make(root, image_size=rendered, progress=progress, **choice)
    elif name not in readers:
        raise ValueError(f"name must be {', '.join(map(repr, ['procedural', *readers]))}; got {name!r}")
    read = readers[network if name == "procedural" else name].read
    if split is not None:
        options["split"] = split
    accepted = set(inspect.signature(read).parameters) - {"root", "image_size", "cache", "progress", "name", "layout"}
    if "split" in options and "split" not in accepted:
        raise ValueError(f"{name} has no splits to choose from, got split={split!r}")
    if unknown := sorted(set(options) - accepted):
        raise TypeError(
            f"{name} takes no option {', '.join(unknown)}; it takes {', '.join(sorted(accepted)) or 'none'}"
        )
    return read(root, image_size=(height, width), cache=cache, progress=progress, name=name, **options)


def load_splits(
    name: str, root: str | os.PathLike = "data", image_size: tuple[int, int] = (64, 32), **options: Any
) -> Iterator[Benchmark]:
    """Load each of the splits that a data set's protocol averages over, one after the other.

    CUHK03 gives 20, CUHK01 its ten splits both ways (20, a split's two ways after each other, with the same training
    set), every other data set one. `options` go on to `load`; what they fix is not varied (`split=3` gives CUHK01's
    two ways of that split). `evaluators.score_splits` runs an experiment over them.
    """
    reader = _readers().get(options.get("network", "market1501") if name == "procedural" else name)
    variants = getattr(reader, "SPLITS", ({},)) if options.get("protocol") != "new" else ({},)
    for variant in variants:
        if all(options.get(key, value) == value for key, value in variant.items()):
            yield load(name, root, image_size, **options | variant)


def _readers() -> dict[str, ModuleType]:
    """Return the modules that read real data by the name of their data set; a new reader is one more name here."""
    from reidlib.datasets.readers import cuhk01, cuhk03, deepfashion, dukemtmc, folder, market1501, msmt17

    modules = (market1501, dukemtmc, cuhk03, cuhk01, msmt17, deepfashion, folder)
    return {module.__name__.rpartition(".")[2]: module for module in modules}
