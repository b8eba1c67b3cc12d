"""Who an image shows and which camera took it, checked once for everything that scores a ranking."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.datasets.person_images import DISTRACTOR, JUNK
from reidlib.evaluators.distances import Array


class Labels(NamedTuple):
    """Identities and cameras of images: two int64 arrays [N] on the CPU."""

    pids: np.ndarray
    camids: np.ndarray

    @staticmethod
    def of(name: str, pids: Array, camids: Array) -> "Labels":
        pids = as_integers(f"{name} pids", pids)
        return Labels(pids, as_integers(f"{name} camids", camids, len(pids)))

    def take(self, rows: np.ndarray | slice) -> "Labels":
        return Labels(self.pids[rows], self.camids[rows])


def as_integers(name: str, values: Array, n: int | None = None) -> np.ndarray:
    """Return integers [N] as int64 on the CPU; anything that int64 cannot hold is refused, not wrapped.

    >>> as_integers("pids", [2**63], 1)
    Traceback (most recent call last):
    ValueError: pids must be integers [1] that int64 holds; got uint64 (1,) up to 9223372036854775808
    """
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    largest = array.max() if array.dtype.kind == "u" and array.size else 0
    fits = array.ndim == 1 and len(array) and array.dtype.kind in "iu" and n in (None, len(array))
    if not fits or largest > np.iinfo(np.int64).max:
        size = "N > 0" if n is None else n
        shown = f" up to {largest}" if largest else ""
        raise ValueError(f"{name} must be integers [{size}] that int64 holds; got {array.dtype} {array.shape}{shown}")
    return array.astype(np.int64)


def check_cameras(query: Labels, gallery: Labels, camera_rule: str) -> None:
    """Refuse an unknown camera (camid below 0) where the rule compares cameras: an image could find itself.

    "cross_camera" does so for people only, "separate_views" for everything but junk.
    """
    check_choice("camera_rule", camera_rule, ("cross_camera", "separate_views", "none"))
    compared = gallery.pids >= 0 if camera_rule == "cross_camera" else gallery.pids != JUNK
    for name, camids in (("query", query.camids), ("gallery", gallery.camids[compared])):
        if camera_rule != "none" and camids.min(initial=0) < 0:
            raise ValueError(f'{name} images without a camera (camid {camids.min()}) need camera_rule="none"')


def check_people(query: Labels, gallery: Labels) -> None:
    """Refuse queries that show no person, and gallery images of which nobody knows whether they show one.

    A person is a pid from 0 on. In the gallery junk (-1) counts for nothing, distractors (-3) as wrong answers.
    """
    if query.pids.min() < 0:
        raise ValueError(f"query pid {query.pids.min()}: only people (pids from 0 on) can be looked for")
    strange = gallery.pids[(gallery.pids < 0) & ~np.isin(gallery.pids, (JUNK, DISTRACTOR))]
    if len(strange):
        accepted = f"people (pids from 0 on), junk ({JUNK}) and distractors ({DISTRACTOR})"
        raise ValueError(f"gallery pid {strange[0]}: accepted are {accepted}")


def not_junk(gallery_pids: np.ndarray) -> np.ndarray:
    """Return the rows of the gallery images that count; a gallery of nothing but junk is refused.

    >>> not_junk(np.array([-1, 5, -3])).tolist()
    [1, 2]
    """
    kept = np.flatnonzero(gallery_pids != JUNK)
    if not len(kept):
        raise ValueError(f"all {len(gallery_pids)} gallery images are junk (pid {JUNK})")
    return kept
