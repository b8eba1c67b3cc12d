r"""How differences of pairs of images spread, for learned metrics: by sums over images, so no pair is enumerated.

Only KISSME's random pairs, as the Market-1501 toolkit draws them, and its every tenth pair are taken one by one.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from reidlib.evaluators.distances import Array, as_features

DRAWS = 150_000  # random pairs of the Market-1501 toolkit, of which the dissimilar ones are kept
_PIECE = 4096  # pairs whose differences are held at once


class PairCovariances(NamedTuple):
    """Mean outer products of differences of pairs [D, D], uncentred, and how many pairs each is the mean of."""

    similar: np.ndarray
    dissimilar: np.ndarray
    n_similar: int
    n_dissimilar: int


def view_covariances(x: Array, z: Array, x_labels: Array, z_labels: Array) -> PairCovariances:
    r"""Average (x - z)(x - z)ᵀ over all pairs of two views, by same and by different label.

    With $n_c$ images $X_c$ and $m_c$ images $Z_c$ of class c, $s_c$ and $t_c$ their sums:

    $$\Sigma_\text{same} = \sum_c m_c X_c^\top X_c + n_c Z_c^\top Z_c - s_c t_c^\top - t_c s_c^\top, \qquad
      \Sigma_\text{all} = m X^\top X + n Z^\top Z - s t^\top - t s^\top,$$

    the different pairs are the rest. Liao et al., "Person Re-identification by Local Maximal Occurrence Representation
    and Metric Learning", CVPR 2015, section 4.3.

    Args:
        x, z: [n, D] and [m, D].  x_labels, z_labels: integers [n] and [m].

    Raises:
        ValueError: for shapes that do not fit, or no pair of one of the kinds.

    >>> pairs = view_covariances([[0.0], [10.0]], [[1.0], [11.0]], [1, 2], [1, 2])
    >>> pairs.similar.item(), pairs.dissimilar.item()
    (1.0, 101.0)
    """
    x, z = as_matrix("x", x), as_matrix("z", z)
    x_labels, z_labels = as_integers("x_labels", x_labels, len(x)), as_integers("z_labels", z_labels, len(z))
    if x.shape[1] != z.shape[1]:
        raise ValueError(f"x has {x.shape[1]} dimensions, z has {z.shape[1]}")
    centre = x.mean(0)
    x, z = x - centre, z - centre  # differences stay, rounding is less
    labels, code = np.unique(np.concatenate([x_labels, z_labels]), return_inverse=True)
    x_code, z_code = code[: len(x)], code[len(x) :]
    n, m = np.bincount(x_code, minlength=len(labels)), np.bincount(z_code, minlength=len(labels))
    cross = _sums(x, x_code, len(labels)).T @ _sums(z, z_code, len(labels))
    same = x.T @ (m[x_code, None] * x) + z.T @ (n[z_code, None] * z) - cross - cross.T
    cross = np.outer(x.sum(0), z.sum(0))
    everything = len(z) * (x.T @ x) + len(x) * (z.T @ z) - cross - cross.T
    n_same = int(n @ m)
    _need_pairs("of one label across the two views", n_same)
    _need_pairs("of different labels", len(x) * len(z) - n_same)
    n_different = len(x) * len(z) - n_same
    return PairCovariances(same / n_same, (everything - same) / n_different, n_same, n_different)


def camera_covariances(
    features: Array,
    pids: Array,
    camids: Array,
    *,
    dissimilar: str = "sampled",
    every: int = 1,
    seed: int = 0,
) -> PairCovariances:
    r"""Average (x - y)(x - y)ᵀ over pairs from different cameras, of one person and of different people.

    All pairs within a group of n images with sum s give $n X^\top X - s s^\top$; pairs of one person across cameras are
    those of the person less those of each (person, camera).

    Args:
        features: [N, D].  pids, camids: integers [N].
        dissimilar: "sampled" takes as many pairs as there are similar ones from 150,000 random draws, as the
            Market-1501 toolkit does (fewer where the draws give fewer); "all" takes every pair, by sums.
        every: 10 keeps each tenth pair of both kinds, the toolkit's path for saving time; the similar pairs are then
            enumerated, in the order of the images.
        seed: of the draws.

    Raises:
        ValueError: for shapes that do not fit, or no pair of one of the kinds.

    >>> pairs = camera_covariances([[0.0], [1.0], [5.0]], [1, 1, 2], [1, 2, 2], dissimilar="all")
    >>> pairs.similar.item(), pairs.dissimilar.item(), pairs.n_similar, pairs.n_dissimilar
    (1.0, 25.0, 1, 1)
    """
    x = as_matrix("features", features)
    pids, camids = as_integers("pids", pids, len(x)), as_integers("camids", camids, len(x))
    _check_people(pids, camids)
    if dissimilar not in ("sampled", "all"):
        raise ValueError(f"dissimilar={dissimilar!r}: accepted are 'sampled' and 'all'")
    if every < 1 or (every > 1 and dissimilar == "all"):
        raise ValueError(f'every={every}: accepted are 1 and, with dissimilar="sampled", more')
    x = x - x.mean(0)  # differences stay, rounding is less
    both = np.unique(np.stack([pids, camids], 1), axis=0, return_inverse=True)[1].reshape(-1)
    of_person, n_person = _within(x, pids)
    of_both, n_both = _within(x, both)
    similar, n_similar = of_person - of_both, n_person - n_both
    _need_pairs("of one person in two cameras", n_similar)
    if dissimilar == "all":
        (everyone, n_all), (of_camera, n_camera) = _within(x, np.zeros(len(x), np.int64)), _within(x, camids)
        other, n_other = everyone - of_camera - similar, n_all - n_camera - n_similar
        _need_pairs("of different people in different cameras", n_other)
        return PairCovariances(similar / n_similar, other / n_other, n_similar, n_other)
    first, second = np.random.default_rng(seed).integers(0, len(x), (2, DRAWS))
    valid = np.flatnonzero((pids[first] != pids[second]) & (camids[first] != camids[second]))[:n_similar:every]
    _need_pairs("of different people in different cameras", len(valid))
    other = _outer(x, first[valid], second[valid]) / len(valid)
    if every > 1:
        chosen = _similar_pairs(pids, camids)[:, ::every]
        similar, n_similar = _outer(x, *chosen), chosen.shape[1]
    return PairCovariances(similar / n_similar, other, n_similar, len(valid))


def two_views(pids: Array, camids: Array, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pair half of each person's images with the other half at random; keep the pairs from two cameras: rows [P], [P].

    Raises:
        ValueError: for shapes that do not fit, one person or camera only, or no pair from two cameras.

    >>> first, second = two_views([7, 7, 8, 8, 8], [1, 2, 1, 2, 3])
    >>> sorted([first[0].item(), second[0].item()]), len(first)
    ([0, 1], 2)
    """
    pids = as_integers("pids", pids)
    camids = as_integers("camids", camids, len(pids))
    _check_people(pids, camids)
    generator = np.random.default_rng(seed)
    first, second = [], []
    for pid in np.unique(pids):
        rows = generator.permutation(np.flatnonzero(pids == pid))
        half = len(rows) // 2
        first.append(rows[:half])
        second.append(rows[half : 2 * half])
    first, second = np.concatenate(first), np.concatenate(second)
    kept = camids[first] != camids[second]
    _need_pairs("of one person in two cameras", int(kept.sum()))
    return first[kept], second[kept]


def as_matrix(name: str, values: Array) -> np.ndarray:
    """Return features as finite float64 [N, D] on the CPU, or raise ValueError."""
    values = as_features(name, values).double().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values in row {np.flatnonzero(~np.isfinite(values).all(1))[0]}")
    return values


def as_integers(name: str, values: Array, n: int | None = None) -> np.ndarray:
    """Return integers [N] as int64 on the CPU, or raise ValueError."""
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (n is not None and len(array) != n):
        raise ValueError(f"{name} must be integers [{'N' if n is None else n}]; got {array.dtype} {array.shape}")
    return array.astype(np.int64)


def _sums(x: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    """Sum the rows of each class: [n classes, D]."""
    order = np.argsort(code, kind="stable")
    present, start = np.unique(code[order], return_index=True)
    sums = np.zeros((n, x.shape[1]))
    sums[present] = np.add.reduceat(x[order], start, axis=0)
    return sums


def _within(x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum the outer products of differences over all unordered pairs within groups, and count the pairs."""
    _, code, count = np.unique(groups, return_inverse=True, return_counts=True)
    sums = _sums(x, code, len(count))
    return x.T @ (count[code, None] * x) - sums.T @ sums, int((count * (count - 1) // 2).sum())


def _outer(x: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum the outer products of the differences of the pairs named."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(first), _PIECE):
        difference = x[first[start : start + _PIECE]] - x[second[start : start + _PIECE]]
        total += difference.T @ difference
    return total


def _similar_pairs(pids: np.ndarray, camids: np.ndarray) -> np.ndarray:
    """List the pairs of one person in two cameras, [2, P], by person and then by the order of the images."""
    found = []
    for pid in np.unique(pids):
        rows = np.flatnonzero(pids == pid)
        pairs = rows[np.stack(np.triu_indices(len(rows), 1))]
        found.append(pairs[:, camids[pairs[0]] != camids[pairs[1]]])
    return np.concatenate(found, 1)


def _check_people(pids: np.ndarray, camids: np.ndarray) -> None:
    if pids.min() < 0 or camids.min() < 0:
        raise ValueError(
            f"leave out images without identity or camera: smallest pid {pids.min()}, camid {camids.min()}"
        )
    if len(np.unique(pids)) < 2:
        raise ValueError(f"a metric is learned from at least two identities; got {np.unique(pids).tolist()}")
    if len(np.unique(camids)) < 2:
        raise ValueError(f"pairs come from at least two different cameras; got {np.unique(camids).tolist()}")


def _need_pairs(kind: str, n: int) -> None:
    if n < 1:
        raise ValueError(f"there is no pair {kind}: nothing can be learned")
