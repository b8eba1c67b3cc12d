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

from reidlib.evaluators.distances import Array, Distance, as_pair, custom_blocks, ranking_blocks, row_chunks
from reidlib.evaluators.labels import as_integers, not_junk
from reidlib.evaluators.neighbours import smallest

_PIECE = 64  # rows compared at once
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
        A callable: int64 query rows [q] -> distances [q, G], 0 to 1 (up to rounding) where no distance is
        negative.

    Raises:
        ValueError: for shapes that do not fit, parameters out of range, NaN or infinite distances.

    >>> queries, gallery = torch.tensor([[0.0]]), torch.tensor([[1.0], [2.5], [4.6], [10.0]])
    >>> reranked = rerank(queries, gallery, k1=2, k2=1)
    >>> reranked(torch.tensor([0])).mul(1e4).round().tolist()
    [[3492.0, 5789.0, 7635.0, 10000.0]]
    """
    for name, value in (("k1", k1), ("k2", k2)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}={value!r}: accepted are whole numbers from 1")
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value={lambda_value!r}: accepted are 0 to 1")
    query, gallery, n_queries, n_gallery = as_pair(query_features, gallery_features, distance, shape)
    kept = None if gallery_pids is None else not_junk(as_integers("gallery_pids", gallery_pids, n_gallery))
    if kept is not None and len(kept) == n_gallery:
        kept = None  # all take part: nothing needs to be copied
    columns = slice(None) if kept is None else torch.from_numpy(kept)
    if callable(distance):
        everyone = torch.arange(n_queries + n_gallery)
        everyone = torch.cat([everyone[:n_queries], everyone[n_queries:][columns]])
        images = _FromBlocks(distance, n_queries + n_gallery, everyone)
    else:
        images = _FromFeatures(query, gallery[columns], distance)
    nearest, maxima = images.nearest(max(k1 + 1, k2))
    encoding = _encode(nearest, maxima, images, k1)
    if k2 > 1:
        encoding = _average_of(nearest[:, :k2], encoding.dtype) @ encoding  # the un-expanded rows of the k2 nearest
    return RerankedDistance(
        shape=(n_queries, n_gallery),
        lambda_value=lambda_value,
        encoding=encoding,
        maxima=maxima[:n_queries],
        columns=kept,
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
        scales = (self.lambda_value / self.maxima[rows]).cpu().numpy()
        result = np.empty_like(block)
        for row, scale, values, out in zip(rows.tolist(), scales, block, result, strict=True):
            np.multiply(values, scale, out=out)
            out += 1 - self.lambda_value
            shared = self._shared(row)
            near = np.flatnonzero(shared)  # few: whoever shares nobody stays at Jaccard distance 1
            shared = shared[near]
            out[near] -= (1 - self.lambda_value) * (shared / (2 - shared)).astype(out.dtype)
        if self.columns is not None:
            whole = np.full((len(rows), self.shape[1]), np.inf, result.dtype)
            whole[:, self.columns] = result
            result = whole
        return torch.from_numpy(result).to(device)

    def _shared(self, row: int) -> np.ndarray:
        """Return m = sum of minima of V between one query and every gallery image; one row stays in the cache."""
        start, stop = self.encoding.indptr[row : row + 2]
        own, columns = self.encoding.data[start:stop], self.encoding.indices[start:stop]
        first = self._members.indptr[columns]
        count = self._members.indptr[columns + 1] - first
        place = np.arange(count.sum()) + np.repeat(first - (count.cumsum() - count), count)
        least = np.minimum(np.repeat(own, count), self._members.data[place])
        return np.bincount(self._members.indices[place], least, self._members.shape[1])


def _encode(nearest: np.ndarray, maxima: Tensor, images: "_FromFeatures | _FromBlocks", k1: int) -> sparse.csr_array:
    """Make the rows of V before query expansion: who belongs to R*(i), weighted by exp(-d) to a sum of 1."""
    first = _reciprocal(nearest[:, : k1 + 1])
    candidates = _reciprocal(nearest[:, : round(k1 / 2) + 1])  # Python rounds half to even, as the original's numpy
    overlap = (first @ candidates.T).multiply(first).tocsr()  # |R(j, h) & R(i, k1)| for each j in R(i, k1), never 0
    sizes = np.diff(candidates.indptr)
    overlap.data = (3 * overlap.data > 2 * sizes[overlap.indices]).astype(np.int32)  # in integers: no rounding
    members = (first + overlap @ candidates).tocsr()
    members.eliminate_zeros()
    members.sort_indices()
    rows = np.repeat(np.arange(len(nearest)), np.diff(members.indptr))
    distances = images.distances(rows, members) / maxima.cpu().numpy()[rows]
    weights = np.exp(-distances)
    weights /= np.add.reduceat(weights, members.indptr[:-1])[rows]  # no row is empty: i is in R*(i)
    return sparse.csr_array((weights, members.indices, members.indptr), members.shape)


def _reciprocal(lists: np.ndarray) -> sparse.csr_array:
    """Keep of each list [n, k] the images whose own lists hold the owner: 0/1, sparse [n, n]."""
    n, k = lists.shape
    mutual = np.empty((n, k), bool)
    for start, stop in row_chunks(n, k * k):
        mutual[start:stop] = (lists[lists[start:stop]] == np.arange(start, stop)[:, None, None]).any(2)
    ends = np.concatenate([[0], mutual.sum(1).cumsum()])
    return sparse.csr_array((np.ones(ends[-1], np.int32), lists[mutual], ends), (n, n))


def _average_of(lists: np.ndarray, dtype: np.dtype) -> sparse.csr_array:
    n, k = lists.shape
    return sparse.csr_array((np.full(n * k, 1 / k, dtype), lists.ravel(), np.arange(0, n * k + 1, k)), (n, n))


class _Nearest:
    """The k nearest found so far for each of n rows, by (distance, order of arrival)."""

    def __init__(self, n: int, k: int, like: Tensor) -> None:
        self.values = like.new_full((n, k), torch.inf)
        self.indices = torch.zeros(n, k, dtype=torch.int64, device=like.device)

    def take(self, first_row: int, block: Tensor, first_column: int) -> None:
        """Look through distances [r, c] of rows first_row... to images first_column..., all later than those seen."""
        rows = slice(first_row, first_row + len(block))
        k, found = self.values.shape[1], self._few_below(block, self.values[rows, -1])
        if found is None:
            everyone = torch.arange(len(block), device=block.device)
            found = everyone, *smallest(block.contiguous(), min(k, block.shape[1]))
        touched, values, columns = found
        touched = touched + first_row
        values = torch.cat([self.values[touched], values], 1)
        indices = torch.cat([self.indices[touched], columns + first_column], 1)
        values, order = values.sort(dim=1, stable=True)
        self.values[touched], self.indices[touched] = values[:, :k], indices.gather(1, order[:, :k])

    def _few_below(self, block: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Find what lies within each row's limit: rows [t], values [t, w] padded with inf, columns; None if it is much.

        On the CPU a comparison passes over memory five times as fast as a selection; on a GPU it would not pay.
        """
        if block.device.type != "cpu":
            return None
        array, limits = block.numpy(), limits.contiguous().numpy()
        if np.isinf(limits).any():
            limits = np.minimum(limits, self._bound(array))
        by_row = array.flags.c_contiguous or array.strides[1] == array.itemsize  # else the transpose of a block
        laid, limits = (array, limits[:, None]) if by_row else (array.T, limits[None])
        found, n_found = [], 0
        for start in range(0, len(laid), _PIECE):  # a piece and its comparison stay in the cache
            stop = start + _PIECE
            found.append(np.flatnonzero(laid[start:stop] <= (limits[start:stop] if by_row else limits)))
            found[-1] += start * laid.shape[1]
            n_found += len(found[-1])
            if n_found * _FEW > array.size:
                return None
        rows, columns = np.divmod(np.concatenate(found), laid.shape[1])
        if not by_row:
            rows, columns = columns, rows
        # to rows, in the order of the columns, by counting
        few = sparse.coo_array((array[rows, columns], (rows, columns)), array.shape).tocsr()
        count = np.diff(few.indptr)
        touched, width = np.flatnonzero(count), count.max()
        if len(touched) * width * 4 > array.size:
            return None
        filled = np.arange(width) < count[touched, None]  # [t, w]
        values, columns = np.full(filled.shape, np.inf, array.dtype), np.zeros(filled.shape, np.int64)
        values[filled], columns[filled] = few.data, few.indices
        return torch.from_numpy(touched), torch.from_numpy(values), torch.from_numpy(columns)

    def _bound(self, array: np.ndarray) -> np.ndarray:
        """Bound each row's k-th smallest from above: of the minima of more than k groups, the k-th smallest."""
        k = self.values.shape[1]
        groups = 3 * k
        width = array.shape[1] // groups
        if width < 2:
            return np.full(len(array), np.inf, array.dtype)
        minima = array[:, : width * groups].reshape(len(array), width, groups).min(1)  # a view: nothing is copied
        return np.partition(minima, k - 1, axis=1)[:, k - 1]


class _FromFeatures:
    """Squared Euclidean distances among images [n, D]."""

    def __init__(self, query: Tensor, gallery: Tensor, distance: str) -> None:
        self.features = torch.cat([query, gallery.to(query.device)])  # our own copy
        if distance == "cosine":  # 1 - cos is half the squared distance, and the row's maximum takes the half away
            self.features /= self.features.norm(dim=1, keepdim=True).clamp_(min=1e-12)
        self.squares = torch.cat([(part * part).sum(1) for part in self.features.split(256)])

    def nearest(self, k: int) -> tuple[np.ndarray, Tensor]:
        """Return each image's k nearest, itself first, and its largest distance: from half of the symmetric matrix."""
        n = len(self.features)
        found = _Nearest(n, min(k, n) - 1, self.features)
        maxima = torch.zeros_like(self.squares)
        for start, stop in row_chunks(n, n):
            part = self.features[start:stop]
            block = ranking_blocks(part, self.features[start:], "euclidean")(0, len(part))  # [r, n - start]
            block.add_(self.squares[start:stop, None]).clamp_(min=0)
            mirrored = block[:, len(part) :]  # [r, n - stop]: seen from the later images
            maxima[start:stop] = torch.maximum(maxima[start:stop], block.amax(1))
            block.diagonal().fill_(torch.inf)
            found.take(start, block, start)
            if stop < n:
                maxima[stop:] = torch.maximum(maxima[stop:], mirrored.amax(0))
                found.take(stop, mirrored.T, start)
        return _with_self(found.indices), _checked(maxima)

    def distances(self, rows: np.ndarray, pairs: sparse.csr_array) -> np.ndarray:
        """Return the distances at the pairs of a sparse matrix, one dot product each."""
        columns = torch.from_numpy(pairs.indices).to(self.features.device, torch.int64)
        ends = torch.from_numpy(pairs.indptr).to(self.features.device, torch.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse", UserWarning)  # torch calls its sparse rows a beta
            wanted = torch.sparse_csr_tensor(
                ends, columns, self.squares.new_zeros(len(columns)), pairs.shape, check_invariants=False
            )
            products = torch.sparse.sampled_addmm(wanted, self.features, self.features.T, beta=0.0).values()
        rows = torch.from_numpy(rows).to(columns.device)
        result = (self.squares[rows] + self.squares[columns] - 2 * products).clamp_(min=0)
        return result.masked_fill_(rows == columns, 0).cpu().numpy()

    def query_block(self, n_queries: int) -> Callable[[Tensor], Tensor]:
        """Return query rows [q] -> their distances to the gallery [q, G]."""
        gallery = self.features[n_queries:]

        def block(rows: Tensor) -> Tensor:
            rows = rows.to(gallery.device)
            values = ranking_blocks(self.features[rows], gallery, "euclidean")(0, len(rows))
            return values.add_(self.squares[rows, None]).clamp_(min=0)

        return block


@dataclass(frozen=True)
class _FromBlocks:
    """Distances that a callable gives for rows of all images; `kept` are those that take part."""

    distance: Distance
    n_images: int
    kept: Tensor

    def rows(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the distances between the given images [r, c], checked, in memory of their own."""
        return custom_blocks(lambda r: self.distance(rows[r]), self.n_images, columns)(0, len(rows))

    def nearest(self, k: int) -> tuple[np.ndarray, Tensor]:
        found, maxima = None, []
        for start, stop in row_chunks(len(self.kept), self.n_images):
            block = self.rows(self.kept[start:stop], self.kept)
            maxima.append(block.amax(1))
            found = found or _Nearest(len(self.kept), min(k, len(self.kept)) - 1, block)
            block[torch.arange(stop - start), torch.arange(start, stop)] = torch.inf
            found.take(start, block, 0)
        return _with_self(found.indices), _checked(torch.cat(maxima))

    def distances(self, rows: np.ndarray, pairs: sparse.csr_array) -> np.ndarray:
        parts = []
        for start, stop in row_chunks(len(self.kept), self.n_images):
            low, high = pairs.indptr[start], pairs.indptr[stop]
            block = self.rows(self.kept[start:stop], self.kept)
            parts.append(block[rows[low:high] - start, pairs.indices[low:high]].cpu().numpy())
        return np.concatenate(parts)

    def query_block(self, n_queries: int) -> Callable[[Tensor], Tensor]:
        return lambda rows: self.rows(rows, self.kept[n_queries:])


def _with_self(others: Tensor) -> np.ndarray:
    n = len(others)
    return torch.cat([torch.arange(n, device=others.device)[:, None], others], 1).cpu().numpy().astype(np.int32)


def _checked(maxima: Tensor) -> Tensor:
    """Return the rows' maxima for division: 1 where all distances of a row are 0."""
    if not maxima.isfinite().all():
        row = int((~maxima.isfinite()).nonzero()[0])
        raise ValueError(f"infinite distance for row {row} of the queries and gallery: it cannot be normalised")
    return torch.where(maxima > 0, maxima, 1)
