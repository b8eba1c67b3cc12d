r"""Learned Mahalanobis distances of person re-identification, in closed form: XQDA and KISSME.

Both compare how differences of images of one person spread (intra, similar) with how those of different people do
(extra, dissimilar). They are averaged by sums over images, so no pair is enumerated; only KISSME's random pairs, as the
Market-1501 toolkit draws them, are taken one by one.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.evaluators.distances import Array, as_features
from reidlib.evaluators.labels import Labels, as_integers

DRAWS = 150_000  # random pairs of the Market-1501 toolkit, of which the dissimilar ones are kept
_PIECE = 4096  # rows projected, or pairs whose differences are held, at once


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
    x, z = _two_matrices(x, z)
    x_labels, z_labels = as_integers("x_labels", x_labels, len(x)), as_integers("z_labels", z_labels, len(z))
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
    n_different = len(x) * len(z) - n_same
    _need_pairs("of one label across the two views", n_same)
    _need_pairs("of different labels", n_different)
    return PairCovariances(same / n_same, (everything - same) / n_different, n_same, n_different)


def camera_covariances(features: Array, pids: Array, camids: Array, *, seed: int = 0) -> PairCovariances:
    r"""Average (x - y)(x - y)ᵀ over pairs from different cameras, of one person and of different people.

    All pairs within a group of n images with sum s give $n X^\top X - s s^\top$; pairs of one person across cameras are
    those of the person less those of each (person, camera). Of different people as many pairs are taken from 150,000
    random draws, as the Market-1501 toolkit does (fewer where the draws give fewer).

    Args:
        features: [N, D].  pids, camids: integers [N].
        seed: of the draws.

    Raises:
        ValueError: for shapes that do not fit, or no pair of one of the kinds.

    >>> pairs = camera_covariances([[0.0], [1.0], [5.0]], [1, 1, 2], [1, 2, 2])
    >>> pairs.similar.item(), pairs.dissimilar.item(), pairs.n_similar, pairs.n_dissimilar
    (1.0, 25.0, 1, 1)
    """
    x = _matrix("features", features)
    pids, camids = _people(pids, camids, len(x))
    x = x - x.mean(0)  # differences stay, rounding is less
    both = np.unique(np.stack([pids, camids], 1), axis=0, return_inverse=True)[1].reshape(-1)
    (of_person, n_person), (of_both, n_both) = _within(x, pids), _within(x, both)
    n_similar = n_person - n_both
    _need_pairs("of one person in two cameras", n_similar)
    first, second = np.random.default_rng(seed).integers(0, len(x), (2, DRAWS))
    drawn = np.flatnonzero((pids[first] != pids[second]) & (camids[first] != camids[second]))[:n_similar]
    _need_pairs("of different people in different cameras", len(drawn))
    dissimilar = np.zeros_like(of_person)
    for rows in np.split(drawn, range(_PIECE, len(drawn), _PIECE)):
        difference = x[first[rows]] - x[second[rows]]
        dissimilar += difference.T @ difference
    return PairCovariances((of_person - of_both) / n_similar, dissimilar / len(drawn), n_similar, len(drawn))


def two_views(pids: Array, camids: Array, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pair half of each person's images with the other half at random; keep the pairs from two cameras: rows [P], [P].

    Raises:
        ValueError: for shapes that do not fit, one person or camera only, or no pair from two cameras.

    >>> first, second = two_views([7, 7, 8, 8, 8], [1, 2, 1, 2, 3])
    >>> sorted([first[0].item(), second[0].item()]), len(first)
    ([0, 1], 2)
    """
    pids, camids = _people(pids, camids)
    generator = np.random.default_rng(seed)
    halves = []
    for pid in np.unique(pids):
        rows = generator.permutation(np.flatnonzero(pids == pid))
        halves.append(rows[: len(rows) // 2 * 2].reshape(2, -1))
    first, second = np.concatenate(halves, 1)
    kept = camids[first] != camids[second]
    _need_pairs("of one person in two cameras", int(kept.sum()))
    return first[kept], second[kept]


def kissme_metric(similar: Array, dissimilar: Array) -> np.ndarray:
    r"""Return KISSME's matrix from the covariances of similar and dissimilar pairs [D, D].

    $$M = \Sigma_S^{-1} - \Sigma_D^{-1}$$

    projected, if it is not positive definite, by setting its eigenvalues up to 1e-10 to 1e-6. Köstinger et al., "Large
    Scale Metric Learning from Equivalence Constraints", CVPR 2012, equation (9) and section 3.

    Raises:
        ValueError: a covariance that is singular.

    >>> kissme_metric([[1.0, 0.0], [0.0, 4.0]], [[4.0, 0.0], [0.0, 4.0]]).round(7).tolist()
    [[0.75, 0.0], [0.0, 1e-06]]
    """
    metric = _inverse("similar pairs", similar) - _inverse("dissimilar pairs", dissimilar)
    metric = (metric + metric.T) / 2
    values, vectors = linalg.eigh(metric)
    if values[0] > 0:
        return metric
    return (vectors * np.where(values <= 1e-10, 1e-6, values)) @ vectors.T


class XQDASpace(NamedTuple):
    """What XQDA learns: a basis W [D, r], the metric M [r, r] in it, and the r ratios of spread, largest first."""

    basis: np.ndarray
    metric: np.ndarray
    latent: np.ndarray


def xqda_space(intra: Array, extra: Array, *, solver: str = "svd", dims: int | None = None) -> XQDASpace:
    r"""Return XQDA's subspace and metric from the covariances I (regularised) and E of same and different pairs [D, D].

    W are the left singular vectors of $I^{-1} E$ whose singular value exceeds 1, one at least;
    $M = (W^\top I W)^{-1} - (W^\top E W)^{-1}$, which is not projected: distances may be negative.

    Args:
        solver: "svd" as the authors' code; "eig" the generalised eigenvectors $E w = \lambda I w$ of the paper,
            equation (10).
        dims: take so many directions instead of those above 1.

    Raises:
        ValueError: an unknown solver, dims out of range, or a singular covariance.

    >>> space = xqda_space([[1.001]], [[101.0]])
    >>> space.latent.round(4).tolist(), space.metric.round(6).tolist()
    ([100.8991], [[0.9891]])
    """
    intra, extra = _regular("pairs of one person", intra), np.asarray(extra, np.float64)
    check_choice("solver", solver, ("svd", "eig"))
    if dims is not None and not 1 <= dims <= len(intra):
        raise ValueError(f"dims={dims}: accepted are 1 to {len(intra)}")
    if solver == "svd":
        vectors, latent = linalg.svd(linalg.solve(intra, extra, assume_a="pos"))[:2]
    else:
        latent, vectors = (np.flip(array, -1).copy() for array in linalg.eigh(extra, intra))
    basis = vectors[:, : dims or max(1, int((latent > 1).sum()))]
    metric = _inverse("pairs of one person", basis.T @ intra @ basis)
    metric = metric - _inverse("pairs of different people", basis.T @ extra @ basis)
    return XQDASpace(basis, (metric + metric.T) / 2, latent[: basis.shape[1]])


class _Learned:
    """A distance (x - y)ᵀ P M Pᵀ (x - y) with a projection P [D, r] and a symmetric metric M [r, r]."""

    projection: np.ndarray | None = None
    metric: np.ndarray
    mean: np.ndarray

    def __init__(self, dims: int | None, ridge: float, seed: int) -> None:
        if dims is not None and dims < 1:
            raise ValueError(f"dims={dims}: accepted are None and whole numbers from 1")
        if ridge < 0:
            raise ValueError(f"ridge={ridge}: accepted are numbers from 0")
        self.dims, self.ridge, self.seed = dims, ridge, seed

    def _keep(self, projection: np.ndarray, metric: np.ndarray, mean: np.ndarray, found: "PairCovariances") -> Self:
        self.projection, self.metric, self.mean = projection, metric, mean
        self.n_similar, self.n_dissimilar = found.n_similar, found.n_dissimilar
        return self

    def project(self, features: Array) -> Tensor:
        """Return features [N, D] in the learned space, [N, r]; their mean in training lies at 0.

        Raises:
            ValueError: before `fit`, or features of another length.
        """
        if self.projection is None:
            raise ValueError(f"{type(self).__name__} has not been fitted: call fit(features, pids, camids) first")
        features = as_features("features", features)
        if features.shape[1] != len(self.projection):
            raise ValueError(f"features have {features.shape[1]} dimensions, fitted were {len(self.projection)}")
        # float64 in parts: the mean is taken off before anything is rounded
        mean, projection = (torch.from_numpy(a).to(features.device) for a in (self.mean, self.projection))
        return torch.cat([((part - mean) @ projection).to(features.dtype) for part in features.split(_PIECE)])

    def distance(self, query: Array, gallery: Array) -> Callable[[Tensor], Tensor]:
        """Return the distance of query features [Q, D] to gallery features [G, D], by block of query rows.

        The callable, int64 rows [q] -> [q, G], goes to `evaluate_retrieval(None, None, distance=...)`; with queries and
        gallery in one, on both sides, to `rerank(None, None, distance=..., shape=(Q, G))`.
        """
        query, gallery = self.project(query), self.project(gallery)
        gallery = gallery.to(query)
        metric = torch.from_numpy(self.metric).to(query)
        weighted = query @ metric
        own, other = (weighted * query).sum(1), ((gallery @ metric) * gallery).sum(1)

        def block(rows: Tensor) -> Tensor:
            rows = torch.as_tensor(rows).to(query.device)
            return torch.addmm(other, weighted[rows], gallery.T, alpha=-2).add_(own[rows, None])

        return block


class KISSME(_Learned):
    r"""KISSME: $d(x, y) = (x - y)^\top M (x - y)$, see `kissme_metric` and `camera_covariances`.

    Args:
        dims: principal components kept first; None, or as many as there are, keeps all. 128 suits 2048-d features.
        ridge: this times the mean of a covariance's diagonal is added to the diagonal, for the inverse.
        seed: see `camera_covariances`.

    After `fit`: projection [D, r], metric [r, r], mean [D], n_similar, n_dissimilar.

    >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    >>> x[:, 0] += torch.arange(60) // 6 * 4  # ten people, known by their first number
    >>> learned = KISSME(dims=None).fit(x, torch.arange(60) // 6, torch.arange(60) % 3)
    >>> learned.distance(x[:1], x[[1, 59]])(torch.tensor([0])).diff().item() > 0
    True
    """

    def __init__(self, *, dims: int | None = 128, ridge: float = 1e-6, seed: int = 0) -> None:
        super().__init__(dims, ridge, seed)

    def fit(self, features: Array, pids: Array, camids: Array) -> "KISSME":
        """Learn from features [N, D] of people seen by two cameras or more; returns itself.

        Raises:
            ValueError: for shapes that do not fit, one person or camera only, no person in two cameras, a singular
                covariance.
        """
        x = _matrix("features", features)
        mean = x.mean(0)
        projection = _principal_components(x - mean, self.dims)
        found = camera_covariances((x - mean) @ projection, pids, camids, seed=self.seed)
        covariances = (_with_ridge(c, self.ridge * np.trace(c) / len(c)) for c in found[:2])
        return self._keep(projection, kissme_metric(*covariances), mean, found)


class XQDA(_Learned):
    r"""Cross-view quadratic discriminant analysis: $(x - z)^\top W M W^\top (x - z)$, see `xqda_space`.

    Args:
        ridge: $\lambda$ added to the diagonal of I, after averaging.
        solver, dims: see `xqda_space`.
        seed: of the pairs that `fit` draws.

    After `fit`: projection [D, r] (W), metric [r, r], mean [D], latent [r], n_similar, n_dissimilar.

    >>> learned = XQDA().fit_views([[0.0], [10.0]], [[1.0], [11.0]], [1, 2], [1, 2])
    >>> round(learned.distance([[0.0]], [[2.0]])(torch.tensor([0])).item(), 4)
    3.9564
    """

    def __init__(self, *, ridge: float = 1e-3, solver: str = "svd", dims: int | None = None, seed: int = 0) -> None:
        super().__init__(dims, ridge, seed)
        self.solver = solver

    def fit(self, features: Array, pids: Array, camids: Array) -> "XQDA":
        """Learn from features [N, D] of many cameras, by the IDE protocol's two views; returns itself.

        Each person's images are shuffled (seeded), the first half is paired with the second, and the pairs from two
        cameras are kept: one member is in x, the other in z.

        Raises:
            ValueError: as `fit_views`, and where no pair comes from two cameras.
        """
        x = _matrix("features", features)
        labels = as_integers("pids", pids, len(x))
        first, second = two_views(labels, camids, seed=self.seed)
        return self.fit_views(x[first], x[second], labels[first], labels[second])

    def fit_views(self, x: Array, z: Array, x_labels: Array, z_labels: Array) -> "XQDA":
        """Learn from two views [n, D] and [m, D] with their labels, as from the two cameras of CUHK01; returns itself.

        Where D > n + m the same is computed in a basis of the images, which changes nothing (what lies outside it is
        the same for all) but the cost.

        Raises:
            ValueError: for shapes that do not fit, no pair of one label or of different labels, a singular covariance.
        """
        x, z = _two_matrices(x, z)
        both = np.concatenate([x, z])
        mean = both.mean(0)
        span = None
        if x.shape[1] > len(both):
            span = linalg.qr((both - mean).T, mode="economic")[0]  # [D, n + m]
            x, z = (x - mean) @ span, (z - mean) @ span
        found = view_covariances(x, z, x_labels, z_labels)
        space = xqda_space(_with_ridge(found.similar, self.ridge), found.dissimilar, solver=self.solver, dims=self.dims)
        self.latent = space.latent
        return self._keep(space.basis if span is None else span @ space.basis, space.metric, mean, found)


def _principal_components(centred: np.ndarray, dims: int | None) -> np.ndarray:
    """Return the directions of largest spread [D, r], without those in which nothing varies."""
    d = centred.shape[1]
    if dims is None or dims >= d:
        return np.eye(d)
    values, vectors = linalg.eigh(centred.T @ centred, subset_by_index=(d - dims, d - 1))
    return np.flip(vectors[:, values > 1e-10 * values[-1]], 1).copy()


def _with_ridge(covariance: np.ndarray, amount: float) -> np.ndarray:
    return covariance + amount * np.eye(len(covariance))


def _regular(name: str, covariance: Array) -> np.ndarray:
    """Return a finite covariance [D, D] that has an inverse, or raise ValueError."""
    covariance = np.asarray(covariance, np.float64)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or not np.isfinite(covariance).all():
        raise ValueError(f"the covariance of {name} must be finite [D, D]; got {covariance.shape}")
    values = linalg.eigvalsh(covariance)
    rank = int((values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)).sum())
    if rank < len(values):
        raise ValueError(
            f"the covariance of {name} is singular (rank {rank} of {len(values)}): use fewer dims or a larger ridge"
        )
    return covariance


def _inverse(name: str, covariance: Array) -> np.ndarray:
    return linalg.inv(_regular(name, covariance))


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


def _people(pids: Array, camids: Array, n: int | None = None) -> Labels:
    """Check labels to learn from: [n] people of at least two identities, in at least two cameras."""
    labels = Labels(as_integers("pids", pids, n), as_integers("camids", camids, n or len(pids)))
    smallest = [int(values.min()) for values in labels]
    if min(smallest) < 0:
        raise ValueError("leave out images without person or camera: smallest pid {}, camid {}".format(*smallest))
    for kind, values in zip(("identities", "cameras"), labels, strict=True):
        if len(np.unique(values)) < 2:
            raise ValueError(f"a metric is learned from at least two different {kind}; got {values[0]} only")
    return labels


def _need_pairs(kind: str, n: int) -> None:
    if n < 1:
        raise ValueError(f"there is no pair {kind}: nothing can be learned")


def _matrix(name: str, values: Array) -> np.ndarray:
    """Return features as finite float64 [N, D] on the CPU, or raise ValueError."""
    return as_features(name, values).double().cpu().numpy()


def _two_matrices(x: Array, z: Array) -> tuple[np.ndarray, np.ndarray]:
    x, z = _matrix("x", x), _matrix("z", z)
    if x.shape[1] != z.shape[1]:
        raise ValueError(f"x has {x.shape[1]} dimensions, z has {z.shape[1]}")
    return x, z
