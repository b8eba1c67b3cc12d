"""The data contract: `Benchmark`, a data set's training set, queries and gallery, and how it is to be scored."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from reidlib.datasets.person_images import DISTRACTOR, JUNK, PersonImages


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
        """Return one row for each subset: images, identities (pids from 0), cameras, distractors (-3), junk (-1)."""
        rows = {
            name: {
                "images": len(people),
                "identities": people.pids[people.pids >= 0].unique().numel(),
                "cameras": people.camids.unique().numel(),
                "distractors": int((people.pids == DISTRACTOR).sum()),
                "junk": int((people.pids == JUNK).sum()),
            }
            for name, people in self.subsets().items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("subset")


def check_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) as two positive integers, or raise ValueError.

    >>> check_size([64, 32])
    (64, 32)
    """
    sizes = tuple(image_size)
    if len(sizes) != 2 or not all(isinstance(s, int) and s > 0 for s in sizes):
        raise ValueError(f"image_size must be (height, width), two positive integers, got {image_size!r}")
    return sizes
