r"""k-reciprocal re-ranking of person re-identification, from top-k lists and sparse rows instead of full matrices.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. With n = Q + G images the
classic code holds several n x n matrices (70 GB and more at MSMT17's size). All it needs of them is each row's
nearest images and its maximum, which one pass over half of the symmetric product gives; the rest is sparse.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from reidlib.evaluators.distances import Array, Distance, as_features, custom_blocks, ranking_blocks, row_chunks
from reidlib.evaluators.neighbours import smallest

_FEW = 16  # a comparison that lets fewer than 1 in 16 distances through is cheaper than a selection in every row


def rerank(
    query_features: Array | None,
    gallery_features: Array | None,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    distance: str | Distance = "euclidean",
    gallery_pids: Array | None = None,
    shape: tuple[int, int] | None = None,
) -> "RerankedDistance":
    r"""Re-rank by k-reciprocal neighbours: a distance by block, for `evaluate_retrieval` and `nearest_neighbours`.

    All n = Q + G images stand together; $d_{ij}$ is the distance divided by its row's maximum over the n images.
    $N(i, k)$ holds image i and its k nearest, and

    $$R(i, k) = \{j \in N(i, k) : i \in N(j, k)\}, \tag{2}$$
    $$R^*(i) = R(i, k_1) \cup \textstyle\bigcup \{R(j, h) : j \in R(i, k_1),\ |R(j, h) \cap R(i, k_1)|
        > \tfrac{2}{3} |R(j, h)|\}, \quad h = k_1 / 2, \tag{3}$$
    $$V_{ij} = \frac{e^{-d_{ij}}}{\sum_{l \in R^*(i)} e^{-d_{il}}} \text{ for } j \in R^*(i), \text{ else } 0, \qquad
      V_i \leftarrow \frac{1}{k_2} \sum_{j \in N(i, k_2 - 1)} V_j, \tag{7, 11}$$
    $$d_J(i, j) = 1 - \frac{m}{2 - m}, \quad m = \sum_l \min(V_{il}, V_{jl}), \qquad
      d^*(i, j) = (1 - \lambda)\, d_J(i, j) + \lambda\, d_{ij}. \tag{10, 12}$$

    As in the authors' code: the inequality of (3) is strict (the paper prints ≥), the intersection is always with the
    first $R(i, k_1)$, h is rounded half to even, the rows of V sum to 1, and lists longer than n are cut to n. An image
    is always the first of its own neighbours; other equal distances keep the order queries, then gallery.

    Neighbourhoods look at all queries and the whole gallery before any camera rule, so they hold more than one query's
    gallery. Junk belongs in none of them: leave it out, or name it by `gallery_pids`.

    Args:
        query_features, gallery_features: [Q, D] and [G, D]; None with a callable, which then needs `shape`.
        k1, k2: neighbours of a neighbourhood, and images averaged by query expansion (1: no expansion).
        lambda_value: weight of the original distance, 0 to 1; 1 returns the row-normalised distance.
        distance: "euclidean" is the *squared* Euclidean distance of the features as given, as in the original code,
            which normalises them to length 1 first; "cosine" is 1 - cos, which gives the same result as "euclidean" on
            features of length 1. A callable takes int64 row numbers [r] of all Q + G images, queries first, and returns
            their symmetric distances [r, Q + G]; it is called twice for each row, and again for the queries' blocks.
        gallery_pids: integers [G]; images with pid -1 (junk) take no part and get distance inf, so that the columns
            still fit the whole gallery.
        shape: (Q, G), only where a callable stands instead of features.

    Returns:
        A callable: int64 query rows [q] -> distances [q, G], in [0, 1] for distances that are not negative.

    Raises:
        ValueError: for shapes that do not fit, parameters out of range, NaN or infinite distances.

    >>> queries, gallery = torch.tensor([[0.0]]), torch.tensor([[1.0], [2.5], [4.6], [10.0]])
    >>> reranked = rerank(queries, gallery, k1=2, k2=1)
    >>> reranked(torch.tensor([0])).mul(1e4).round().tolist()
    [[3492.0, 5789.0, 7635.0, 10000.0]]
    """
    _check_parameters(k1, k2, lambda_value)
    if callable(distance):
        if shape is None:
            raise ValueError("a callable distance needs shape=(number of queries, number of gallery images)")
        n_queries, n_gallery = shape
        images = _FromBlocks(distance, n_queries + n_gallery)
    else:
        query_features = as_features("query_features", query_features)
        gallery_features = as_features("gallery_features", gallery_features)
        n_queries, n_gallery = len(query_features), len(gallery_features)
    kept = _kept_images(gallery_pids, n_queries, n_gallery)
    if callable(distance):
        images = images if kept is None else images.only(kept)
    else:
        images = _FromFeatures.of(query_features, gallery_features, kept, distance)
    nearest, maxima = images.nearest(max(k1 + 1, k2))
    encoding = _encode(nearest, maxima, images, k1)
    if k2 > 1:
        encoding = _average_of(nearest[:, :k2]) @ encoding  # the un-expanded rows of the k2 nearest
    return RerankedDistance(
        shape=(n_queries, n_gallery),
        lambda_value=lambda_value,
        encoding=encoding,
        maxima=maxima[:n_queries],
        columns=None if kept is None else kept[n_queries:] - n_queries,
        original=images.query_block(n_queries),
    )


@dataclass(frozen=True, eq=False)
class RerankedDistance:
    """What `rerank` returns: call it with query rows [q] for their distances [q, G].

    Attributes:
        shape: (Q, G).
        lambda_value: weight of the original distance.
        encoding: sparse [n, n], the V of the equations; row i says who belongs to image i and how much.
        maxima: [Q], each query's largest original distance.
        columns: gallery images that take part, where junk was left out.
    """

    shape: tuple[int, int]
    lambda_value: float
    encoding: sparse.csr_array = field(repr=False)
    maxima: Tensor = field(repr=False)
    columns: np.ndarray | None = field(repr=False)
    original: Callable[[Tensor], Tensor] = field(repr=False)
    _members: sparse.csr_array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # by encoding column: the gallery images that have an entry there (the classic code's inverted index)
        object.__setattr__(self, "_members", self.encoding[self.shape[0] :].T.tocsr())

    def __call__(self, query_rows: Array) -> Tensor:
        rows = torch.as_tensor(query_rows).cpu()
        if rows.ndim != 1 or rows.dtype != torch.int64 or not len(rows):
            raise ValueError(f"query rows must be int64 [q], q > 0; got {rows.dtype} {tuple(rows.shape)}")
        if int(rows.min()) < 0 or int(rows.max()) >= self.shape[0]:
            raise ValueError(f"query rows {int(rows.min())} to {int(rows.max())}: there are {self.shape[0]} queries")
        block = self.original(rows)
        device, block = block.device, block.cpu().numpy()  # [q, images of the gallery that take part]
        block *= (self.lambda_value / self.maxima[rows]).cpu().numpy()[:, None]
        for row, values in zip(rows.tolist(), block, strict=True):
            shared = self._shared(row)
            values += (1 - self.lambda_value) * (1 - shared / (2 - shared))
        if self.columns is None:
            return torch.from_numpy(block).to(device)
        whole = np.full((len(rows), self.shape[1]), np.inf, block.dtype)
        whole[:, self.columns] = block
        return torch.from_numpy(whole).to(device)

    def _shared(self, row: int) -> np.ndarray:
        """Return m = sum of minima of V between one query and every gallery image; one row stays in the cache."""
        start, stop = self.encoding.indptr[row : row + 2]
        own, columns = self.encoding.data[start:stop], self.encoding.indices[start:stop]
        members = self._members
        first, count = members.indptr[columns], np.diff(members.indptr)[columns] if False else None
        count = members.indptr[columns + 1] - first
        place = np.arange(count.sum()) + np.repeat(first - (count.cumsum() - count), count)
        least = np.minimum(np.repeat(own, count), members.data[place])
        return np.bincount(members.indices[place], least, members.shape[1])
