"""The data contract: `Benchmark`, a data set's training set, queries and gallery, and how it is to be scored."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from reidlib.datasets.person_images import DISTRACTOR, JUNK, PersonImages
from reidlib.datasets.sampling import seeded


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

    def validation(self, identities: int = 24, seed: int = 0) -> "Benchmark":
        """Cut train, query and gallery from `train` by identity: for choices, so that the test set stays unseen.

        The seed draws the people among those seen by two cameras or more. As in Market-1501, each of them gives
        one query a camera, drawn by the seed; the gallery is all their images, in the order of `train`. A query never
        finds itself, because the protocol leaves out the query's own person in its own camera, and every query has a
        match in another camera. The rest of `train` (whoever is not drawn, and images of nobody) trains.

        Args:
            identities: people held out.
            seed: of the people and of their queries.

        Returns:
            a benchmark with the same protocol, whose sets are views of `train`: no pixel is copied.

        Raises:
            ValueError: fewer people in two cameras than asked for, fewer than two left to train, or a protocol without
                a camera rule, by which queries would find themselves.

        >>> people = PersonImages(torch.zeros(12, 3, 8, 4, dtype=torch.uint8), [1, 2, 3] * 4, [1] * 6 + [2] * 6)
        >>> bench = Benchmark("toy", people, people, people).validation(1)
        >>> [len(part) for part in bench.subsets().values()], bench.query.camids.tolist()
        ([8, 2, 4], [1, 2])
        """
        pids, camids, draw = self.train.pids, self.train.camids, seeded(seed, 7)
        people = pids[pids >= 0].unique()
        met = torch.stack([pids, camids])[:, pids >= 0].unique(dim=1)  # each person in each camera once
        persons, cameras = met[0].unique(return_counts=True)
        persons = persons[cameras > 1]
        if self.protocol.camera_rule == "none" or not 1 <= identities <= min(len(persons), len(people) - 2):
            raise ValueError(
                f"validation holds out one person or more, leaves two or more to train and needs a camera rule; got"
                f" identities={identities}, {len(people)} people in {self.name}'s training set, {len(persons)} of "
                f"them seen by two cameras or more, camera_rule={self.protocol.camera_rule!r}"
            )
        chosen = persons[torch.randperm(len(persons), generator=draw)[:identities]]
        gallery = self.train.select(pids=chosen)
        order = torch.randperm(len(gallery), generator=draw)
        asking = {(int(gallery.pids[i]), int(gallery.camids[i])): i for i in order.tolist()}  # the last one stays
        query = gallery.select(indices=sorted(asking.values()))
        train = self.train.select(indices=~torch.isin(pids, chosen))
        name = f"{self.name}, validation"
        return dataclasses.replace(self, name=name, train=train, query=query, gallery=gallery, multi_query=None)


def check_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) as two positive integers, or raise ValueError.

    >>> check_size([64, 32])
    (64, 32)
    """
    sizes = tuple(image_size)
    if len(sizes) != 2 or not all(isinstance(s, int) and s > 0 for s in sizes):
        raise ValueError(f"image_size must be (height, width), two positive integers, got {image_size!r}")
    return sizes
