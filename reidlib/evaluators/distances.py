"""Distances in blocks of query rows, for everything that ranks a gallery without holding the whole matrix."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from reidlib.checks import check_choice

Array = Tensor | np.ndarray
Distance = Callable[[Tensor], Array]
_BLOCK_ELEMENTS = 1 << 25  # 128 MB of float32: large enough that the matrix product runs at full speed
_LEAST_ROWS = 16  # a product of fewer rows takes another code path, which rounds differently


def row_chunks(n_rows: int, n_columns: int) -> Iterator[tuple[int, int]]:
    """Cut rows into chunks of nearly equal size whose blocks of distances stay under 128 MB.

    >>> list(row_chunks(5, 3))
    [(0, 5)]
    """
    most = max(_LEAST_ROWS, _BLOCK_ELEMENTS // n_columns)
    size = -(-n_rows // -(-n_rows // most))
    for start in range(0, n_rows, size):
        yield start, min(start + size, n_rows)


def as_features(name: str, values: Array | None, n: int | None = None) -> Tensor:
    """Return features as a detached tensor [N, D] of a floating type, or say what is wrong with them."""
    if values is None:
        raise ValueError(f"{name} is None: only a callable distance does without features")
    values = torch.as_tensor(values).detach()
    if values.ndim != 2 or 0 in values.shape or (n is not None and len(values) != n):
        rows = "N" if n is None else n
        raise ValueError(f"{name} must be [{rows}, D], none empty; got {tuple(values.shape)}")
    values = values if values.dtype == torch.float64 else values.float()
    lengths = values.norm(dim=1)  # NaN or infinite where one number of the row is, or too large to be squared
    if not lengths.isfinite().all():
        row = int((~lengths.isfinite()).nonzero()[0])
        raise ValueError(f"{name} holds NaN or infinite values in row {row}, or too large ones for {values.dtype}")
    return values


def as_pair(
    query: Array | None, gallery: Array | None, distance: str | Distance, shape: tuple[int | None, int | None] | None
) -> tuple[Tensor | None, Tensor | None, int, int]:
    """Check what is to be compared: features [Q, D] and [G, D] (None, None for a callable distance), Q and G.

    Raises:
        ValueError: an unknown distance, features that do not fit, a callable without `shape`.
    """
    if callable(distance):
        if shape is None:
            raise ValueError("a callable distance needs shape=(number of queries, number of gallery images)")
        return None, None, *shape
    check_choice("distance", distance, ("euclidean", "cosine"))
    n_queries, n_gallery = shape or (None, None)
    query = as_features("query_features", query, n_queries)
    gallery = as_features("gallery_features", gallery, n_gallery)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query features have {query.shape[1]} dimensions, gallery features {gallery.shape[1]}")
    return query, gallery, len(query), len(gallery)


def ranking_blocks(query: Tensor, gallery: Tensor, distance: str) -> Callable[[int, int], Tensor]:
    r"""Return a function (start, stop) -> block [stop - start, G] by which those query rows rank the gallery.

    "euclidean" gives ‖g‖² - 2 q·g, the squared distance less ‖q‖², which no ranking needs; "cosine" gives -q·g of
    the normalised features. The next call overwrites the block.

    On the CPU a row comes out bit for bit alike however the rows are cut into chunks: the matrix product rounds alike
    from 16 rows on, and fewer are padded to 16. Equal gallery rows give equal distances.

    Raises:
        ValueError: for a distance that is not finite.
    """
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    query, gallery = query.to(dtype), gallery.to(query.device, dtype)
    if distance == "cosine":
        query, gallery = (torch.nn.functional.normalize(x, dim=1) for x in (query, gallery))
        bias, factor = gallery.new_zeros(len(gallery)), -1.0
    else:
        bias, factor = torch.cat([(part * part).sum(1) for part in gallery.split(256)]), -2.0
    buffer = query.new_empty(0)

    def block(start: int, stop: int) -> Tensor:
        nonlocal buffer
        rows = query[start:stop]
        if len(rows) < _LEAST_ROWS:
            rows = torch.cat([rows, rows.new_zeros(_LEAST_ROWS - len(rows), rows.shape[1])])
        if buffer.shape != (len(rows), len(gallery)):
            buffer = query.new_empty(len(rows), len(gallery))
        torch.addmm(bias, rows, gallery.T, alpha=factor, out=buffer)  # with `out` autocast leaves it alone
        return _checked(buffer[: stop - start], start, lambda x: ~x.isfinite())

    return block


def custom_blocks(distance: Distance, n_gallery: int, columns: Tensor | slice) -> Callable[[int, int], Tensor]:
    """Wrap a callable that takes query row numbers, so that its blocks are checked: shape [q, G], floating, no NaN.

    The blocks have the gallery images `columns`.
    """

    def block(start: int, stop: int) -> Tensor:
        result = torch.as_tensor(distance(torch.arange(start, stop))).detach()
        if result.shape != (stop - start, n_gallery):
            raise ValueError(f"distance gave {tuple(result.shape)} for {stop - start} queries and {n_gallery} images")
        result = result if result.dtype in (torch.float32, torch.float64) else result.double()
        return _checked(result, start, torch.isnan)[:, columns]

    return block


def blocks_of(
    query: Tensor | None, gallery: Tensor | None, distance: str | Distance, n_gallery: int, kept: Array | None = None
) -> Callable[[int, int], Tensor]:
    """Return (start, stop) -> block of distances to the gallery images `kept` (None: all), of what `as_pair` gave."""
    columns = slice(None) if kept is None or len(kept) == n_gallery else torch.as_tensor(kept)
    if callable(distance):
        return custom_blocks(distance, n_gallery, columns)
    return ranking_blocks(query, gallery[columns], distance)


def _checked(block: Tensor, first_row: int, is_wrong: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the block, or raise ValueError naming the first query row that holds a wrong distance."""
    if is_wrong(block.sum()) and (rows := is_wrong(block).any(1)).any():  # the sum is quick and wrong where one is
        kind = "NaN" if is_wrong is torch.isnan else "NaN or infinite"
        raise ValueError(f"{kind} distance for query row {first_row + int(rows.nonzero()[0])}: check the features")
    return block
