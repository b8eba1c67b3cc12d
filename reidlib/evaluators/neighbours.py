"""Nearest neighbours in feature space: rank lists for figures, and searches that never hold the whole matrix."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.datasets.person_images import JUNK
from reidlib.evaluators.distances import Array, Distance, as_pair, blocks_of, row_chunks
from reidlib.evaluators.labels import Labels, check_cameras


class Neighbours(NamedTuple):
    """The k nearest gallery images of each query, nearest first: int64 [Q, k] and distances [Q, k]."""

    indices: Tensor
    distances: Tensor


def nearest_neighbours(
    query_features: Array | None,
    gallery_features: Array | None,
    k: int,
    *,
    distance: str | Distance = "euclidean",
    exclude: Array | None = None,
    shape: tuple[int, int] | None = None,
) -> Neighbours:
    """Find the k nearest gallery images of each query, in chunks; equal distances keep gallery order.

    Args:
        query_features, gallery_features: [Q, D] and [G, D]; None with a callable, which then needs `shape`.
        k: number of neighbours, 1 to G.
        distance: "euclidean" (not squared), "cosine" (1 - cos), or a callable from int64 row numbers [q] to [q, G].
        exclude: bool [Q, G] or int64 [Q]: images a query must not find. Integers name one image each (-1: none), as
            for features searched among themselves: `exclude=torch.arange(len(features))`.
        shape: (Q, G), only where a callable stands instead of features.

    Returns:
        Neighbours(indices, distances); an excluded image that had to fill up the k has distance inf.

    Raises:
        ValueError: for shapes that do not fit, k out of range, features that are not finite, or NaN distances.

    >>> found = nearest_neighbours(torch.tensor([[0.0]]), torch.tensor([[3.0], [1.0], [-1.0]]), 2)
    >>> found.indices.tolist(), found.distances.tolist()
    ([[1, 2]], [[1.0, 1.0]])
    """
    query, gallery, n_queries, n_gallery = as_pair(query_features, gallery_features, distance, shape)
    blocks = blocks_of(query, gallery, distance, n_gallery)
    if not 1 <= k <= n_gallery:
        raise ValueError(f"k={k}: accepted are 1 to {n_gallery}, the size of the gallery")
    excluded = None if exclude is None else _check_exclude(torch.as_tensor(exclude), n_queries, n_gallery)
    found = []
    for start, stop in row_chunks(n_queries, n_gallery):
        block = blocks(start, stop)
        if excluded is not None:
            block = _leave_out(block, excluded[start:stop].to(block.device))
        values, indices = smallest(block, k)
        if not callable(distance):
            values = _true_distances(query[start:stop], gallery, indices, values, distance)
        found.append((indices, values))
    return Neighbours(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def ignored_images(
    *,
    query_pids: Array,
    query_camids: Array,
    gallery_pids: Array,
    gallery_camids: Array,
    camera_rule: str = "cross_camera",
) -> Tensor:
    """Say which gallery images a query's ranked list leaves out, for `nearest_neighbours(..., exclude=)`.

    Junk (pid -1) always; with "cross_camera" also the query's own person in its own camera, with "separate_views" all
    of the query's camera. `evaluate_retrieval` applies the same rules inside; this is for looking at lists, so a query
    may be of no known person (a pid below 0).

    Returns:
        bool [Q, G].

    Raises:
        ValueError: an unknown camera rule, labels that do not fit, or missing cameras.

    >>> ignored_images(query_pids=torch.tensor([5]), query_camids=torch.tensor([1]),
    ...     gallery_pids=torch.tensor([5, 7, -1, -3, 5]), gallery_camids=torch.tensor([1, 1, 2, 3, 2])).int().tolist()
    [[1, 0, 1, 0, 0]]
    """
    query, gallery = Labels.of("query", query_pids, query_camids), Labels.of("gallery", gallery_pids, gallery_camids)
    check_cameras(query, gallery, camera_rule)
    ignored = np.tile(gallery.pids == JUNK, (len(query.pids), 1))
    if camera_rule != "none":
        same_camera = query.camids[:, None] == gallery.camids
        same_person = (query.pids[:, None] == gallery.pids) & (gallery.pids >= 0)
        ignored |= same_camera & (same_person | (camera_rule == "separate_views"))
    return torch.from_numpy(ignored)


def _check_exclude(exclude: Tensor, n_queries: int, n_gallery: int) -> Tensor:
    accepted = {torch.bool: [n_queries, n_gallery], torch.int64: [n_queries]}
    if list(exclude.shape) != accepted.get(exclude.dtype):
        raise ValueError(f"exclude must be one of {accepted}; got {exclude.dtype} {list(exclude.shape)}")
    if exclude.dtype == torch.int64 and not (int(exclude.min()) >= -1 and int(exclude.max()) < n_gallery):
        raise ValueError(f"exclude names images {int(exclude.min())} to {int(exclude.max())} of {n_gallery}")
    return exclude


def _leave_out(block: Tensor, exclude: Tensor) -> Tensor:
    if exclude.dtype == torch.bool:
        return block.masked_fill(exclude, torch.inf)
    named = (exclude >= 0).nonzero().squeeze(1)
    return block.index_put((named, exclude[named]), block.new_tensor(torch.inf))


def smallest(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest of each row by (value, column): values and columns [q, k]."""
    values, indices = block.topk(k, dim=1, largest=False)
    crowded = (block <= values.max(1, keepdim=True).values).sum(1) > k  # a tie reaches beyond the k: take the first
    if crowded.any():
        values[crowded], indices[crowded] = (x[:, :k] for x in block[crowded].sort(dim=1, stable=True))
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, stable=True)
    return values, indices.gather(1, order)


def _true_distances(query: Tensor, gallery: Tensor, indices: Tensor, values: Tensor, distance: str) -> Tensor:
    """Turn the values that rank into distances, from differences, so that equal vectors are 0 apart."""
    found = torch.empty_like(values)
    for column in range(indices.shape[1]):  # one neighbour at a time: [q, D] and no more
        near = gallery[indices[:, column].to(gallery.device)].to(query)
        if distance == "cosine":
            found[:, column] = 1 - torch.nn.functional.cosine_similarity(query, near, dim=1)
        else:
            found[:, column] = (query - near).norm(dim=1)
    return torch.where(values == torch.inf, values, found)
