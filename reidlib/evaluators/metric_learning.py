r"""Learned Mahalanobis distances of person re-identification, in closed form: XQDA and KISSME.

Both compare how differences of images of one person spread (intra, similar) with how those of different people do
(extra, dissimilar); `pair_covariances` averages them without enumerating the pairs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from reidlib.evaluators.distances import Array, as_features
from reidlib.evaluators.pair_covariances import as_integers, as_matrix, camera_covariances, two_views, view_covariances

_PIECE = 4096  # rows projected at once


def kissme_metric(similar: Array, dissimilar: Array, *, weight: float = 1.0, psd: bool = True) -> np.ndarray:
    r"""Return KISSME's matrix from the covariances of similar and dissimilar pairs [D, D].

    $$M = \Sigma_S^{-1} - \lambda \Sigma_D^{-1}$$

    projected, if it is not positive definite, by setting its eigenvalues up to 1e-10 to 1e-6. Köstinger et al., "Large
    Scale Metric Learning from Equivalence Constraints", CVPR 2012, equation (9) and section 3.

    Args:
        weight: $\lambda$.
        psd: project; False leaves M as it is, and distances may be negative.

    Raises:
        ValueError: a covariance that is singular.

    >>> kissme_metric([[1.0, 0.0], [0.0, 4.0]], [[4.0, 0.0], [0.0, 4.0]]).round(7).tolist()
    [[0.75, 0.0], [0.0, 1e-06]]
    """
    metric = _inverse("similar pairs", similar) - weight * _inverse("dissimilar pairs", dissimilar)
    metric = (metric + metric.T) / 2
    values, vectors = linalg.eigh(metric)
    if not psd or values[0] > 0:
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
    intra, extra = np.asarray(intra, np.float64), np.asarray(extra, np.float64)
    if solver not in ("svd", "eig"):
        raise ValueError(f"solver={solver!r}: accepted are 'svd' and 'eig'")
    if dims is not None and not 1 <= dims <= len(intra):
        raise ValueError(f"dims={dims}: accepted are 1 to {len(intra)}")
    _inverse_exists("pairs of one person", intra)
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
        weight, psd: see `kissme_metric`.
        dissimilar, every, seed: see `camera_covariances`.

    After `fit`: projection [D, r], metric [r, r], mean [D], n_similar, n_dissimilar.

    >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    >>> x[:, 0] += torch.arange(60) // 6 * 4  # ten people, known by their first number
    >>> learned = KISSME(dims=None).fit(x, torch.arange(60) // 6, torch.arange(60) % 3)
    >>> learned.distance(x[:1], x[[1, 59]])(torch.tensor([0])).diff().item() > 0
    True
    """

    def __init__(
        self,
        *,
        dims: int | None = 128,
        ridge: float = 1e-6,
        weight: float = 1.0,
        psd: bool = True,
        dissimilar: str = "sampled",
        every: int = 1,
        seed: int = 0,
    ) -> None:
        if dims is not None and dims < 1:
            raise ValueError(f"dims={dims}: accepted are None and whole numbers from 1")
        if ridge < 0:
            raise ValueError(f"ridge={ridge}: accepted are numbers from 0")
        self.dims, self.ridge, self.weight, self.psd = dims, ridge, weight, psd
        self.pairs = dict(dissimilar=dissimilar, every=every, seed=seed)

    def fit(self, features: Array, pids: Array, camids: Array) -> "KISSME":
        """Learn from features [N, D] of people seen by two cameras or more; returns itself.

        Raises:
            ValueError: for shapes that do not fit, one person or camera only, no person in two cameras, a singular
                covariance.
        """
        x = as_matrix("features", features)
        mean = x.mean(0)
        projection = _principal_components(x - mean, self.dims)
        found = camera_covariances((x - mean) @ projection, pids, camids, **self.pairs)
        covariances = (_with_ridge(c, self.ridge * np.trace(c) / len(c)) for c in found[:2])
        self.metric = kissme_metric(*covariances, weight=self.weight, psd=self.psd)
        self.projection, self.mean = projection, mean
        self.n_similar, self.n_dissimilar = found.n_similar, found.n_dissimilar
        return self


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
        if ridge < 0:
            raise ValueError(f"ridge={ridge}: accepted are numbers from 0")
        self.ridge, self.solver, self.dims, self.seed = ridge, solver, dims, seed

    def fit(self, features: Array, pids: Array, camids: Array) -> "XQDA":
        """Learn from features [N, D] of many cameras, by the IDE protocol's two views; returns itself.

        Each person's images are shuffled (seeded), the first half is paired with the second, and the pairs from two
        cameras are kept: one member is in x, the other in z.

        Raises:
            ValueError: as `fit_views`, and where no pair comes from two cameras.
        """
        x = as_matrix("features", features)
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
        x, z = as_matrix("x", x), as_matrix("z", z)
        if x.shape[1] != z.shape[1]:
            raise ValueError(f"x has {x.shape[1]} dimensions, z has {z.shape[1]}")
        both = np.concatenate([x, z])
        mean = both.mean(0)
        span = None
        if x.shape[1] > len(both):
            span = linalg.qr((both - mean).T, mode="economic")[0]  # [D, n + m]
            x, z = (x - mean) @ span, (z - mean) @ span
        found = view_covariances(x, z, x_labels, z_labels)
        space = xqda_space(_with_ridge(found.similar, self.ridge), found.dissimilar, solver=self.solver, dims=self.dims)
        self.projection = space.basis if span is None else span @ space.basis
        self.metric, self.latent, self.mean = space.metric, space.latent, mean
        self.n_similar, self.n_dissimilar = found.n_similar, found.n_dissimilar
        return self


def _principal_components(centred: np.ndarray, dims: int | None) -> np.ndarray:
    """Return the directions of largest spread [D, r], without those in which nothing varies."""
    d = centred.shape[1]
    if dims is None or dims >= d:
        return np.eye(d)
    values, vectors = linalg.eigh(centred.T @ centred, subset_by_index=(d - dims, d - 1))
    return np.flip(vectors[:, values > 1e-10 * values[-1]], 1).copy()


def _with_ridge(covariance: np.ndarray, amount: float) -> np.ndarray:
    return covariance + amount * np.eye(len(covariance))


def _inverse_exists(name: str, covariance: np.ndarray) -> None:
    values = linalg.eigvalsh(covariance)
    if values[0] <= len(values) * np.finfo(np.float64).eps * max(values[-1], 0):
        rank = int((values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)).sum())
        raise ValueError(
            f"the covariance of {name} is singular (rank {rank} of {len(values)}): use fewer dims or a larger ridge"
        )


def _inverse(name: str, covariance: Array) -> np.ndarray:
    covariance = np.asarray(covariance, np.float64)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or not np.isfinite(covariance).all():
        raise ValueError(f"the covariance of {name} must be finite [D, D]; got {covariance.shape}")
    _inverse_exists(name, covariance)
    return linalg.inv(covariance)
