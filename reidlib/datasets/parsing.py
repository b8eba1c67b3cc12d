r"""Parsing as networks take it: one map for each of the 20 LIP classes, made for one batch at a time, on its device.

Labels are uint8 [B,H,W]; their names, colours and reading stand in `reidlib.datasets.annotations`, and
`reidlib.datasets.augment` moves and resizes them (by nearest label) with the pixels, before they become maps here.
"""

import torch
from torch import Tensor

from reidlib.datasets.annotations import LIP_LABELS, check_labels


def one_hot(parsing: Tensor) -> Tensor:
    r"""Return one map for each class, $S_k(y,x) = [\,l(y,x) = k\,]$.

    A whole data set of these maps would take 80 times the labels' memory, so make them for a batch and forget them.

    Args:
        parsing: uint8 [B,H,W], LIP labels 0..19.

    Returns:
        float32 [B,20,H,W] of 0 and 1, on the labels' device; in every pixel one map is 1.

    Raises:
        ValueError: another type or shape, or a label above 19.

    >>> maps = one_hot(torch.tensor([[[0, 13]]], dtype=torch.uint8))
    >>> maps.shape, maps[0, 13].tolist(), maps[0, 0].tolist()
    (torch.Size([1, 20, 1, 2]), [[0.0, 1.0]], [[1.0, 0.0]])
    """
    if parsing.dtype != torch.uint8 or parsing.dim() != 3:
        raise ValueError(f"parsing must be uint8 [B,H,W], got {parsing.dtype} {list(parsing.shape)}")
    check_labels(parsing)
    classes = torch.arange(len(LIP_LABELS), dtype=torch.uint8, device=parsing.device)
    return (parsing[:, None] == classes[:, None, None]).float()
