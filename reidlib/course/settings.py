"""The settings that every notebook shares, checked once and frozen; a notebook adds its own switches in a subclass."""

import re
from dataclasses import dataclass
from typing import ClassVar

from reidlib.course.parameters import PROFILES
from reidlib.datasets import Benchmark, load

DATA_SIZES = {"smoke": "smoke", "course": "course", "paper": "full"}  # of rendered data
WEIGHTS = ("train", "recorded")


@dataclass(frozen=True)
class Settings:
    """The shared parameters of a notebook, as its parameters cell names them.

    `image_size` "auto" is 64x32 in the smoke and course profiles on every device, so that numbers compare, and the
    paper's own size (`paper_image_size`) in the paper profile.

    Raises:
        ValueError: an unknown profile or weights, or an image size that is not "auto" or HEIGHTxWIDTH.

    >>> settings = Settings(profile="smoke", image_size="128x64")
    >>> settings.size, settings.choose(smoke=30, course=900)
    ((128, 64), 30)
    """

    profile: str = "course"
    dataset: str = "procedural"
    data_root: str = "data"
    image_size: str = "auto"
    seed: int = 0
    device: str = "auto"
    output_root: str = "runs"
    weights: str = "train"

    paper_image_size: ClassVar[tuple[int, int]] = (256, 128)

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {self.profile!r}")
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, got {self.weights!r}")
        if self.image_size != "auto" and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.image_size):
            raise ValueError(f'image_size must be "auto" or HEIGHTxWIDTH such as "128x64", got {self.image_size!r}')

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        if self.image_size == "auto":
            return self.paper_image_size if self.profile == "paper" else (64, 32)
        height, width = self.image_size.split("x")
        return int(height), int(width)

    def choose(self, smoke, course, paper=None):
        """Return the value of this profile; the paper profile takes the course's where it has none of its own."""
        return {"smoke": smoke, "course": course, "paper": course if paper is None else paper}[self.profile]

    def load(self, scene: str = "retrieval", **options) -> Benchmark:
        """Load the data set of these settings (`datasets.load`); `options` go on to it.

        Rendered people are the same whatever `seed` is, so that seeds differ in the training alone; `seed=` here
        renders others. `dataset=` reads another set of the same folder, for transfer.
        """
        options = {"scene": scene, "size": DATA_SIZES[self.profile]} | options
        return load(options.pop("dataset", self.dataset), self.data_root, self.size, **options)
