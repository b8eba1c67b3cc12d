r"""Same person or not: error rates of a distance threshold over pairs (verification), and of open-set identification.

A pair is a query image and a gallery image that the benchmark's protocol compares: *genuine* where both show one
person, *impostor* otherwise. Junk and, by the camera rule, images of the query's own camera are left out; distractors
are impostors for everybody. Pairs are never listed: distances go through in blocks and are counted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from reidlib.evaluators.distances import Array, Distance, as_pair, blocks_of, row_chunks
from reidlib.evaluators.labels import Labels, check_cameras, check_people, not_junk
from reidlib.evaluators.retrieval import own_images

FARS = (1e-1, 1e-2, 1e-3, 1e-4)
LEAST_PEOPLE = 5  # for intervals
_EXACT = 1 << 22  # up to so many pairs every distance is kept
_SAMPLE = 1 << 20  # distances that thresholds are chosen from
_CUTS = 2048  # thresholds beyond that, chosen by impostor distances; half as many by genuine ones
_COARSE = 8  # bits: 256 thresholds at most where pairs are counted by person
_SHIFT = 12  # bits dropped of a float32 to find its place among the thresholds: 11 of the mantissa stay
_BINS = 1 << 32 - _SHIFT
_PIECE = 1 << 18  # distances counted at once at least: few enough for the cache


@dataclass(frozen=True, eq=False)
class Verification:
    r"""Error rates of every threshold: a pair is accepted as one person where its distance is at most the threshold.

    $$\text{FAR}(t) = \frac{\#\{\text{impostor pairs}: d \le t\}}{\#\{\text{impostor pairs}\}}, \qquad
      \text{TAR}(t) = \frac{\#\{\text{genuine pairs}: d \le t\}}{\#\{\text{genuine pairs}\}}$$

    (`far`, `tar`; ROC: TAR over FAR; DET: 1 - TAR over FAR.)

    Attributes:
        distances: float32 [T], ascending: the thresholds at which anything changes.
        true_accepts, false_accepts: int64 [T], genuine and impostor pairs accepted at each.
        nearest: float32 [Q, 2], each query's nearest genuine and impostor distance; inf where there is none.
        distance, camera_rule: the rules, as `verify` takes them.
        exact: every pair's distance is a threshold; otherwise about 3,000 distances are, see `verify`.
        n_people: identities (pids from 0 on).
    """

    distances: np.ndarray
    true_accepts: np.ndarray
    false_accepts: np.ndarray
    nearest: np.ndarray
    distance: str
    camera_rule: str
    exact: bool
    n_people: int
    _by_person: "_ByPerson" = field(repr=False)

    @property
    def n_genuine(self) -> int:
        """Number of genuine pairs."""
        return int(self.true_accepts[-1])

    @property
    def n_impostor(self) -> int:
        """Number of impostor pairs."""
        return int(self.false_accepts[-1])

    @cached_property
    def far(self) -> np.ndarray:
        """False-accept rate at each threshold: float64 [T]."""
        return self.false_accepts / self.n_impostor

    @cached_property
    def tar(self) -> np.ndarray:
        """True-accept rate at each threshold: float64 [T]."""
        return self.true_accepts / self.n_genuine

    @property
    def can_draw(self) -> bool:
        """Whether there are people enough for intervals."""
        return self.n_people >= LEAST_PEOPLE

    @property
    def eer(self) -> float:
        """Equal error rate: where FAR = 1 - TAR on the ROC, its points joined by straight lines."""
        return float(_equal_error(self.far, self.tar))

    def at(self, threshold: float) -> tuple[float, float]:
        """Return FAR and TAR of any threshold (of the next one in `distances` from below)."""
        place = int(np.searchsorted(self.distances, np.float32(threshold), side="right")) - 1
        return (float(self.far[place]), float(self.tar[place])) if place >= 0 else (0.0, 0.0)

    def threshold_at(self, far: float) -> float:
        """Return the largest of `distances` whose FAR is at most `far`.

        Raises:
            ValueError: a rate outside (0, 1), or below one impostor pair; no distance with so few false accepts.
        """
        self._check(far, self.n_impostor, "impostor pairs")
        place = int(np.searchsorted(self.far, far, side="right")) - 1
        if place < 0:
            raise ValueError(f"FAR is {self.far[0]:.3g} already at the smallest distance, {self.distances[0]:.6g}")
        return float(self.distances[place])

    def tar_at(self, far: float) -> float:
        """Return TAR at the largest threshold whose FAR is at most `far`; steps, nothing is interpolated.

        Raises:
            ValueError: a rate outside (0, 1), or below one impostor pair.
        """
        self._check(far, self.n_impostor, "impostor pairs")
        return float(_tar_at(self.far, self.tar, far))

    def dir_at(self, far: float) -> float:
        r"""Return the detection and identification rate (rank 1) at a false-accept rate of open-set identification.

        $$\text{DIR}(t) = \frac{|\{q \in \mathcal{K}: d_\text{genuine}(q) < d_\text{impostor}(q),\;
          d_\text{genuine}(q) \le t\}|}{|\mathcal{K}|}, \qquad
          \text{FAR}(t) = \frac{|\{q : d_\text{impostor}(q) \le t\}|}{Q}$$

        with the query's nearest distances, at the largest t whose FAR is at most `far`. $\mathcal{K}$ are the queries
        whose person is in the gallery. Each query is an unknown one as well, its person taken out of the gallery: it
        raises a false alarm where anybody is accepted. Phillips, Grother and Micheals, "Evaluation Methods in Face
        Recognition", 2011, section 21.2; for re-identification Liao et al., "Open-set Person Re-identification",
        2014, who take other people as unknown ones. A tie with an impostor is no identification.

        Raises:
            ValueError: a rate outside (0, 1), or below one query.
        """
        self._check(far, len(self.nearest), "queries")
        return float(_dir_at(self.nearest, np.ones((1, len(self.nearest))), far)[0])

    def as_dict(self, fars: tuple[float, ...] = FARS) -> dict[str, float]:
        """Return EER, TAR and DIR by name, ready for results.json, without rates too small to be measured here."""
        rates = self._rates(self.far[None], self.tar[None], np.ones((1, len(self.nearest))), fars)
        return {name: float(value[0]) for name, value in rates.items()}

    def _rates(self, far: np.ndarray, tar: np.ndarray, weights: np.ndarray, fars: tuple[float, ...]) -> dict:
        """Return `as_dict`'s values, each [repeats], of curves [repeats, T] and weights of the queries [repeats, Q]."""
        rule = "" if self.camera_rule == "cross_camera" else f" ({self.camera_rule.replace('_', ' ')})"
        pairs, queries = ([f for f in fars if _measurable(f, n)] for n in (self.n_impostor, len(self.nearest)))
        rates = {f"EER{rule}": _equal_error(far, tar)}
        rates |= {f"TAR at FAR {f:g}{rule}": _tar_at(far, tar, f) for f in pairs}
        return rates | {f"DIR at FAR {f:g}{rule}": _dir_at(self.nearest, weights, f) for f in queries}

    def intervals(
        self, fars: tuple[float, ...] = FARS, *, repeats: int = 1000, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        r"""Return the 95 % interval (low, high) of each of `as_dict`'s values, by a bootstrap over identities.

        Pairs of one person are not independent, so people are drawn, not pairs: with person i drawn $w_i$ times, a pair
        of i and j counts $w_i w_j$ times, taken to first order, $w_i + w_j - 1$; a genuine pair and a query count $w_i$
        times, a distractor once; for DIR the gallery stays as it is. The repeats know 256 thresholds at most and are
        moved by what this changes in the value itself. Bolle, Ratha and Pankanti, "Error analysis of pattern
        recognition systems: the subsets bootstrap", 2004.

        Raises:
            ValueError: repeats below 1, fewer than five people.
        """
        if repeats < 1 or not self.can_draw:
            given = f"repeats={repeats}, {self.n_people} people"
            raise ValueError(f"{given}: accepted are repeats from 1, people from {LEAST_PEOPLE}")
        people, values = self._by_person, self.as_dict(fars)
        weights = people.drawn(repeats, seed)
        drawn = self._rates(*people.rates(weights), weights[:, people.of_query], fars)
        return {name: _interval(values[name], drawn[name]) for name in values}

    def far_interval(self, threshold: float, *, repeats: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % interval (low, high) of a threshold's FAR, by the bootstrap of `intervals`."""
        people = self._by_person
        place = int(np.searchsorted(people.cuts, np.float32(threshold)))  # the first cut that is not below
        return _interval(self.at(threshold)[0], people.rates(people.drawn(repeats, seed))[0][:, place])

    def __str__(self) -> str:
        values = ", ".join(f"{name} {100 * value:.2f} %" for name, value in self.as_dict().items())
        pairs = f"{self.n_genuine:,} genuine and {self.n_impostor:,} impostor pairs"
        rule = self.camera_rule.replace("_", " ")
        return f"{values} [{rule}, {self.distance} distance, {pairs} of {self.n_people:,} people]"

    def _check(self, far: float, n: int, kind: str) -> None:
        if not _measurable(far, n):
            raise ValueError(f"far={far:g} is less than one of the {n:,} {kind}: it cannot be measured here")


def verify(
    query_features: Array | None,
    gallery_features: Array | None,
    *,
    query_pids: Array,
    query_camids: Array,
    gallery_pids: Array,
    gallery_camids: Array,
    distance: str | Distance = "euclidean",
    camera_rule: str = "cross_camera",
) -> Verification:
    """Count the genuine and impostor pairs at every distance, by the benchmark's protocol.

    Distances are rounded to float32, and equal ones are accepted together. Up to four million pairs each distance is
    a threshold. Beyond that, in bounded memory, about 3,000 are, chosen by a sample of a million pairs so that FAR and
    TAR grow in small steps. Counts at each are exact; TAR at a FAR of 1e-4 is read at a FAR at most about 1 % lower,
    at 1e-5 10 %. Pairs are counted by person too, for the intervals.

    Args:
        query_features, gallery_features: [Q, D] and [G, D], tensors (any device) or arrays; None with a callable.
        query_pids, query_camids, gallery_pids, gallery_camids: integers [Q], [Q], [G], [G].
        distance: "euclidean" (not squared), "cosine" (1 - cos), or a callable as `evaluate_retrieval` takes it.
        camera_rule: see `evaluate_retrieval`; "cross_camera" leaves out pairs of one person in one camera,
            "separate_views" all pairs of one camera, "none" no pair but junk.

    Raises:
        ValueError: as `evaluate_retrieval`; no genuine or no impostor pair.

    >>> found = verify(
    ...     torch.tensor([[0.0]]), torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]]),
    ...     query_pids=torch.tensor([5]), query_camids=torch.tensor([1]),
    ...     gallery_pids=torch.tensor([5, 7, -1, -3, 5]), gallery_camids=torch.tensor([1, 1, 2, 3, 2]))
    >>> found.distances.tolist(), found.false_accepts.tolist(), found.true_accepts.tolist()  # of 7, -3 and the last 5
    ([2.0, 4.0, 5.0], [1, 2, 2], [0, 0, 1])
    """
    query, gallery = Labels.of("query", query_pids, query_camids), Labels.of("gallery", gallery_pids, gallery_camids)
    check_people(query, gallery)
    check_cameras(query, gallery, camera_rule)
    sizes = len(query.pids), len(gallery.pids)
    kept = not_junk(gallery.pids)
    pair = as_pair(query_features, gallery_features, distance, sizes)[:2]
    blocks = blocks_of(*pair, distance, sizes[1], kept)
    counter = _Counter(query, gallery.take(kept), camera_rule)
    norms = (pair[0] ** 2).sum(1, keepdim=True) if distance == "euclidean" else None

    def finish(block: Tensor, rows: slice | np.ndarray) -> np.ndarray:
        """Return the distances of what `blocks` gives: a new array without -0.0."""
        if distance == "euclidean":
            block = torch.add(block, norms[rows]).clamp_(min=0).sqrt_()
        else:
            block = torch.add(block, 1).clamp_(min=0) if distance == "cosine" else block + 0.0
        return block.cpu().float().numpy()

    for start, stop in row_chunks(*sizes):
        counter.add(start, blocks(start, stop), finish)
    return counter.result(distance if isinstance(distance, str) else "custom")


@dataclass(frozen=True, eq=False)
class _ByPerson:
    """Counts of each person at the cut points, for the bootstrap; all cumulative over the cuts.

    Attributes:
        cuts: float32 [B], ascending, the last one inf.
        of_query: int64 [Q], each query's row among the P people.
        genuine: int64 [P, B], accepted genuine pairs.
        impostor: int64 [P, B], accepted impostor pairs in which the person is the query or in the gallery.
        twice: int64 [B], accepted impostor pairs of two people, which `impostor` counts twice.
    """

    cuts: np.ndarray
    of_query: np.ndarray
    genuine: np.ndarray
    impostor: np.ndarray
    twice: np.ndarray

    def drawn(self, repeats: int, seed: int) -> np.ndarray:
        """Draw how often each person counts: float64 [1 + repeats, P]; in the first row once each."""
        n = len(self.genuine)
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), repeats)
        return np.concatenate([np.ones((1, n)), drawn])

    def rates(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return FAR and TAR at each cut, [repeats, B], of weighted people [repeats, P]."""
        true, false = weights @ self.genuine, weights @ self.impostor - self.twice
        false = np.maximum.accumulate(np.maximum(false, 0), 1)  # to first order a count can fall below 0
        return false / np.maximum(false[:, -1:], 1), true / np.maximum(true[:, -1:], 1)


class _Counter:
    """Counts the pairs of blocks of distances at every cut, and by person (query and gallery image) at every few."""

    def __init__(self, query: Labels, gallery: Labels, camera_rule: str) -> None:
        self.query, self.gallery, self.camera_rule = query, gallery, camera_rule
        self.people = np.unique(np.concatenate([query.pids, gallery.pids[gallery.pids >= 0]]))
        self.of_query, known = (np.searchsorted(self.people, x.pids).astype(np.int32) for x in (query, gallery))
        self.of_gallery = np.where(gallery.pids < 0, np.int32(len(self.people)), known)  # distractors: last
        self.nearest = np.full((len(query.pids), 2), np.inf, np.float32)
        self.genuine: list[tuple[np.ndarray, np.ndarray]] = []  # rows of queries, distances
        self.impostors: list[np.ndarray] | None = [] if len(query.pids) * len(gallery.pids) <= _EXACT else None
        self.table: np.ndarray | None = None  # bin -> place among the cuts, from 1

    def add(self, start: int, block: Tensor, finish: Callable[[Tensor, slice | np.ndarray], np.ndarray]) -> None:
        """Count the distances [q, G] of the queries from row `start` on, finished in pieces that fit the cache."""
        rows = slice(start, start + len(block))
        own, is_match = own_images(self.query.take(rows), self.gallery, self.camera_rule)
        at = np.nonzero(is_match)
        values = finish(block[at[0], own[at]][:, None], start + at[0])[:, 0]
        np.minimum.at(self.nearest[:, 0], start + at[0], values)
        self.genuine.append((start + at[0], values))
        if self.table is None:
            each = -(-block.numel() // _SAMPLE)
            sample = finish(block[::each], slice(start, rows.stop, each))
            self._choose_cuts(np.bincount(_bins(sample, True).ravel()), _bins(values, True))
        step = max(1, max(_PIECE, self.sides[1].size) // max(block.shape[1], len(self.counts)))
        for i in range(0, len(block), step):
            piece = slice(start + i, min(start + i + step, rows.stop))
            self._add_impostors(piece.start, finish(block[i : i + step], piece), own[i : i + step])

    def _choose_cuts(self, counts: np.ndarray, genuine: np.ndarray) -> None:
        """Cut distances where FAR in a sample grows by a factor, and evenly in TAR; the last cut is inf."""
        cumulative = counts.cumsum()
        ranks = np.geomspace(1, cumulative[-1], _CUTS).astype(np.int64)
        among = np.linspace(0, len(genuine) - 1, min(len(genuine), _CUTS // 2)).astype(int)
        self.cuts = np.unique([*np.searchsorted(cumulative, ranks), *np.sort(genuine)[among], _BINS - 1])
        self.table = np.repeat(np.arange(1, len(self.cuts) + 1, dtype=np.int32), np.diff(self.cuts, prepend=-1))
        self.table[_bins(np.array([np.nan], np.float32), False)[0] :] = 0
        self.counts = np.zeros(len(self.cuts) + 1, np.int64)  # by place
        self.shift = max(0, len(self.counts).bit_length() - _COARSE)
        self.few = np.append(0, np.arange(1, len(self.counts), 1 << self.shift))  # where each of the few places begins
        # as query and as gallery image, by person (the last are distractors) and place among the few
        self.sides = np.zeros((2, len(self.people) + 1, len(self.few)), np.int64)

    def _add_impostors(self, start: int, values: np.ndarray, own: np.ndarray) -> None:
        rows = np.arange(start, start + len(values))
        at = np.nonzero(own >= 0)
        left_out = [(at[0], own[at])]
        if self.camera_rule == "separate_views":
            left_out.append(np.nonzero(self.query.camids[rows, None] == self.gallery.camids))
        for pairs in left_out:
            values[pairs] = np.inf
        self.nearest[rows, 1] = nearest = values.min(1)
        for pairs in left_out:
            values[pairs] = np.nan  # place 0
        places = self.table.take(_bins(values, nearest.min() < 0))  # among the cuts, from 1
        if self.impostors is not None:
            self.impostors.append(values[places > 0])
        n = len(self.counts)
        by_row = _count(places + (rows - start)[:, None].astype(np.int32) * np.int32(n), len(rows) * n).reshape(-1, n)
        self.counts += by_row.sum(0)
        np.add.at(self.sides[0], self.of_query[rows], np.add.reduceat(by_row, self.few, 1))
        places += (1 << self.shift) - 1
        places >>= self.shift
        places += self.of_gallery * np.int32(len(self.few))
        self.sides[1] += _count(places, self.sides[1].size).reshape(self.sides[1].shape)

    def result(self, distance: str) -> Verification:
        """Put the counts together."""
        rows, genuine = (np.concatenate(parts) for parts in zip(*self.genuine, strict=True))
        n_impostor = int(self.counts[1:].sum())
        if not len(genuine) or not n_impostor:
            raise ValueError(
                f"{len(genuine)} genuine and {n_impostor} impostor pairs among {len(self.query.pids)} queries and "
                f"{len(self.gallery.pids)} gallery images (camera_rule={self.camera_rule!r}): both are needed"
            )
        cuts = _ends(self.cuts)
        if self.impostors is None:
            thresholds, false = cuts, self.counts[1:].cumsum()
        else:
            impostors = np.sort(np.concatenate(self.impostors))
            thresholds = np.unique(np.concatenate([impostors, genuine]))
            false = np.searchsorted(impostors, thresholds, side="right")
        cuts = cuts[np.minimum(np.arange(1, len(self.few)) << self.shift, len(cuts)) - 1]  # the few
        of_person = np.zeros((len(self.people), len(cuts)), np.int64)
        np.add.at(of_person, (self.of_query[rows], np.searchsorted(cuts, genuine)), 1)
        as_query, as_gallery = self.sides[:, :-1, 1:].cumsum(2)
        return Verification(
            distances=thresholds,
            true_accepts=np.searchsorted(np.sort(genuine), thresholds, side="right").astype(np.int64),
            false_accepts=false.astype(np.int64),
            nearest=self.nearest,
            distance=distance,
            camera_rule=self.camera_rule,
            exact=self.impostors is not None,
            n_people=len(self.people),
            _by_person=_ByPerson(
                cuts, self.of_query, of_person.cumsum(1), as_query + as_gallery, twice=as_gallery.sum(0)
            ),
        )


def _bins(distances: np.ndarray, negative: bool) -> np.ndarray:
    """Return the numbers of the bins of float32 distances: their first bits, in the order of the distances."""
    bits = distances.view(np.int32)
    if negative:  # some of them, at least
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative numbers upside down
    return np.add(bits >> _SHIFT, _BINS // 2, dtype=np.int64)


def _ends(bins: np.ndarray) -> np.ndarray:
    """Return the largest float32 in each bin, inf beyond all."""
    bits = ((bins - _BINS // 2) << _SHIFT) + (1 << _SHIFT) - 1
    bits = np.minimum(bits, 0x7F800000).astype(np.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(np.float32)


def _count(numbers: np.ndarray, least: int = 0) -> np.ndarray:
    """Count how often 0, 1, ... stand in an array."""
    return torch.bincount(torch.from_numpy(numbers).flatten(), minlength=least).numpy()  # twice as fast as numpy's


def _equal_error(far: np.ndarray, tar: np.ndarray) -> np.ndarray:
    """Return the equal error rate of curves [..., T], from (0, 0) on, linear between their points."""
    far, frr = (np.concatenate([np.full((*x.shape[:-1], 1), x0), x], -1) for x, x0 in ((far, 0.0), (1 - tar, 1.0)))
    gap = far - frr  # from -1 up to 1
    right = (gap[..., :-1] < 0).sum(-1, keepdims=True)  # the first point with FAR >= 1 - TAR
    (f0, f1), (g0, g1) = ([np.take_along_axis(x, right - k, -1)[..., 0] for k in (1, 0)] for x in (far, gap))
    return f0 + (f1 - f0) * -g0 / (g1 - g0)


def _tar_at(far: np.ndarray, tar: np.ndarray, wanted: float) -> np.ndarray:
    """Return TAR at the last point of curves [..., T] whose FAR is at most `wanted`, 0 before the first."""
    place = (far <= wanted).sum(-1, keepdims=True)
    return np.take_along_axis(np.concatenate([np.zeros((*tar.shape[:-1], 1)), tar], -1), place, -1)[..., 0]


def _dir_at(nearest: np.ndarray, weights: np.ndarray, far: float) -> np.ndarray:
    """Return DIR [repeats] at a FAR for weights of the queries [repeats, Q]; see `Verification.dir_at`."""
    genuine, impostor = nearest.T
    order = np.argsort(impostor, kind="stable")
    alarms = weights[:, order].cumsum(1)
    place = (alarms / alarms[:, -1:] <= far).sum(1)  # the first query, by distance, whose alarm would be one too many
    limit = np.append(impostor[order], np.inf)[place][:, None]
    known = np.isfinite(genuine)
    found = (weights * ((genuine < impostor) & (genuine < limit)))[:, known].sum(1)
    return found / np.maximum(weights[:, known].sum(1), 1)


def _measurable(far: float, n: int) -> bool:
    """Say whether a rate is at least one of n; raise ValueError where it is none."""
    if not 0 < far < 1:
        raise ValueError(f"far={far}: accepted are rates between 0 and 1")
    return far >= 1 / n


def _interval(value: float, drawn: np.ndarray) -> tuple[float, float]:
    """Return (low, high) around a rate, from what the thresholds of the bootstrap make of it and of its repeats."""
    low, high = np.quantile((drawn[1:] + value - drawn[0]).clip(0, 1), [0.025, 0.975])
    return float(low), float(high)
