"""Distances in blocks of query rows, for everything that ranks a gallery without holding the whole matrix."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

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
    return values if values.dtype == torch.float64 else values.float()


def ranking_blocks(query: Tensor, gallery: Tensor, distance: str) -> Callable[[int, int], Tensor]:
    r"""Return a function (start, stop) -> block [stop - start, G] by which those query rows rank the gallery.

    "euclidean" gives ‖g‖² - 2 q·g, the squared distance less ‖q‖², which no ranking needs; "cosine" gives -q·g of
    the normalised features. The next call overwrites the block.

    On the CPU a row comes out bit for bit alike however the rows are cut into chunks: the matrix product rounds alike
    from 16 rows on, and fewer are padded to 16. Equal gallery rows give equal distances.

    Raises:
        ValueError: for an unknown name, features of different length, or NaN in a block.
    """
    if distance not in ("euclidean", "cosine"):
        raise ValueError(f'distance={distance!r}: accepted are "euclidean", "cosine" or a callable')
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query features have {query.shape[1]} dimensions, gallery features {gallery.shape[1]}")
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
        with torch.autocast(query.device.type, enabled=False):
            torch.addmm(bias, rows, gallery.T, alpha=factor, out=buffer)
        return refuse_nan(buffer[: stop - start], start)

    return block


def custom_blocks(distance: Distance, n_gallery: int) -> Callable[[int, int], Tensor]:
    """Wrap a callable that takes query row numbers, so that its blocks are checked: shape [q, G], floating, no NaN."""

    def block(start: int, stop: int) -> Tensor:
        result = torch.as_tensor(distance(torch.arange(start, stop))).detach()
        if result.shape != (stop - start, n_gallery):
            raise ValueError(f"distance gave {tuple(result.shape)} for {stop - start} queries and {n_gallery} images")
        return refuse_nan(result if result.dtype in (torch.float32, torch.float64) else result.double(), start)

    return block


def refuse_nan(block: Tensor, first_row: int = 0) -> Tensor:
    """Return the block, or raise ValueError naming the first query row that holds a NaN."""
    if block.sum().isnan() and block.isnan().any():  # the sum is quick; inf - inf makes it NaN without one
        row = first_row + int(block.isnan().any(1).nonzero()[0])
        raise ValueError(f"NaN distance for query row {row}: check the features for NaN or infinite values")
    return block
