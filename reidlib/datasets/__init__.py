"""Data sets of person images: readers, the data contract, sampling and augmentation."""

from reidlib.datasets.camera_pairs import camera_pair
from reidlib.datasets.contract import Benchmark, Protocol
from reidlib.datasets.loading import load, load_splits
from reidlib.datasets.person_images import PersonImages, extend

__all__ = ["Benchmark", "PersonImages", "Protocol", "camera_pair", "extend", "load", "load_splits"]
