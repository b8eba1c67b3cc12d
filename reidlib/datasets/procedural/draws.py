"""Seeded uniform numbers with names: every person, track and picture is a pure function of one row of them."""

import numpy as np
import torch
from torch import Tensor


def uniform_rows(keys: list[tuple[int, ...]], columns: int) -> np.ndarray:
    """Return one row of uniform numbers in [0, 1) for each key, float64 [len(keys), columns].

    A row depends on its own key only, so a picture does not change with its batch, its chunk or its neighbours.

    >>> rows = uniform_rows([(0, 7), (0, 8)], 3)
    >>> bool((rows[1] == uniform_rows([(0, 8)], 3)[0]).all())
    True
    """
    rows = np.empty((len(keys), columns))
    for row, key in zip(rows, keys, strict=True):
        entropy = [part if part >= 0 else part & 0xFFFFFFFF for part in key]  # SeedSequence wants no negatives
        np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy))).random(out=row)
    return rows


class Draws:
    """Columns of uniform numbers, taken by name: `draws["height"]` is a float32 tensor [N].

    >>> draws = Draws("height girth", [(0, 1), (0, 2)])
    >>> draws["girth"].shape
    torch.Size([2])
    """

    def __init__(self, names: str, keys: list[tuple[int, ...]]):
        self.names = {name: index for index, name in enumerate(names.split())}
        self.table = torch.from_numpy(uniform_rows(keys, len(self.names)).astype(np.float32))
        self.table.clamp_(max=1 - 2**-24)  # float32 may round up to 1

    def __getitem__(self, name: str) -> Tensor:
        return self.table[:, self.names[name]]

    def between(self, name: str, low: float, high: float) -> Tensor:
        """Return the column spread evenly over [low, high]."""
        return low + (high - low) * self[name]

    def normal(self, name: str, spread: float = 1.0) -> Tensor:
        """Return the column as a bell-shaped number with this standard deviation, cut at three of them."""
        return spread * torch.special.ndtri(self[name].double().clamp(1e-3, 1 - 1e-3)).float().clamp(-3, 3)

    def choice(self, name: str, weights: Tensor | list[float]) -> Tensor:
        """Return an index drawn with these weights, int64 [N]; `weights` is [K] or, one set for each row, [N, K]."""
        weights = torch.as_tensor(weights, dtype=torch.float32).expand(len(self.table), -1)
        edges = (weights / weights.sum(1, keepdim=True)).cumsum(1)
        return (self[name][:, None] >= edges[:, :-1]).sum(1)
