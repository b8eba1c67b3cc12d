"""`Benchmark`: a data set's training set, queries and gallery, and how it is to be scored; `load` reads one by name."""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from reidlib.datasets.person_images import PersonImages


@dataclass(frozen=True)
class Protocol:
    """How a data set is scored: the keyword arguments of `evaluate_retrieval` that its authors' protocol fixes.

    >>> Protocol().arguments()["camera_rule"]
    'cross_camera'
    """

    camera_rule: str = "cross_camera"
    ap: str = "plain"
    divisor: str = "valid"
    gallery_shots: int | None = None
    repeats: int = 10

    def arguments(self) -> dict:
        """Return the keyword arguments for `evaluate_retrieval`."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Benchmark:
    """One data set: `train`, `query`, `gallery`, `multi_query` (Market-1501's gt_bbox, or None), and its protocol."""

    name: str
    train: PersonImages
    query: PersonImages
    gallery: PersonImages
    multi_query: PersonImages | None = None
    protocol: Protocol = field(default_factory=Protocol)
    folder: Path = Path()

    def subsets(self) -> dict[str, PersonImages]:
        """Return the subsets that are there, by name."""
        names = ("train", "query", "gallery", "multi_query")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def table(self) -> pd.DataFrame:
        """Return one row for each subset: images, identities (pid > 0), cameras, distractors (pid 0), junk (pid -1)."""
        rows = {
            name: {
                "images": len(people),
                "identities": people.pids[people.pids > 0].unique().numel(),
                "cameras": people.camids.unique().numel(),
                "distractors": int((people.pids == 0).sum()),
                "junk": int((people.pids == -1).sum()),
            }
            for name, people in self.subsets().items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("subset")


def load(
    name: str,
    root: str | os.PathLike = "data",
    image_size: tuple[int, int] = (64, 32),
    *,
    size: str = "course",
    seed: int = 0,
    preset: str = "retrieval",
    network: str = "market1501",
    difficulty: float = 1.0,
    cache: str | os.PathLike | None = None,
    progress: bool = True,
) -> Benchmark:
    """Load a data set: render it first (`"procedural"`), or read a folder that you have (`"market1501"`).

    Args:
        name: `"procedural"` or `"market1501"`.
        root: the folder that holds the data set's own folder, or that folder itself; relative to the repository root.
        image_size: (height, width) that every image is resized to when it is decoded.
        size: how many people `"procedural"` renders: `"smoke"`, `"course"` or `"full"`.
        seed: which people it renders.
        preset: how hard they are: `"retrieval"` or `"generation"`.
        network: which camera network it renders.
        difficulty: strength of cameras, clothing collisions and occlusion.
        cache: where decoded images are kept; default `data/.cache`.
        progress: show a progress bar while rendering and decoding.

    `size`, `seed`, `preset`, `network` and `difficulty` describe rendered people; real data has no such choice and
    takes no notice of them, so one notebook can pass them whatever its `dataset` is.

    Raises:
        ValueError: unknown name; empty subset; an identity in both the training and the test set.
        FileNotFoundError: no such data set in `root`.
    """
    from reidlib.datasets import market1501  # here, so that importing reidlib.datasets stays light

    height, width = check_size(image_size)
    if name == "procedural":
        from reidlib.datasets import procedural

        rendered = (128, 64) if height <= 128 and width <= 64 else (256, 128)
        options = {"size": size, "seed": seed, "preset": preset, "network": network, "difficulty": difficulty}
        root = procedural.make(root, image_size=rendered, progress=progress, **options)
    elif name != "market1501":
        raise ValueError(f'name must be "procedural" or "market1501", got {name!r}')
    return market1501.read(root, image_size=(height, width), cache=cache, progress=progress, name=name)


def check_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) as two positive integers, or raise ValueError.

    >>> check_size([64, 32])
    (64, 32)
    """
    sizes = tuple(image_size)
    if len(sizes) != 2 or not all(isinstance(s, int) and s > 0 for s in sizes):
        raise ValueError(f"image_size must be (height, width), two positive integers, got {image_size!r}")
    return sizes
