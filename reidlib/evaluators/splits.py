r"""Experiments over several splits: CUHK03's twenty, CUHK01's ten both ways; means with their spread.

A score of one split says little where the test set has a hundred people, so protocols average. The standard deviation
stands beside the mean, because two methods that differ by less than that differ by the luck of the split.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from reidlib.datasets.contract import Benchmark
from reidlib.evaluators.scores import RetrievalScores

Result = RetrievalScores | Mapping[str, float]


class SplitScores(NamedTuple):
    """Scores over splits: `table` with a row for each split, and `mean` and `std` of its columns (fractions)."""

    table: pd.DataFrame
    mean: pd.Series
    std: pd.Series

    def as_dict(self) -> dict[str, float]:
        """Return means and standard deviations by name, ready for results.json."""
        spread = {f"{name}, std over {len(self.table)} splits": float(value) for name, value in self.std.items()}
        return {name: float(value) for name, value in self.mean.items()} | spread

    def __str__(self) -> str:
        values = (f"{name} {100 * self.mean[name]:.1f} ± {100 * self.std[name]:.1f} %" for name in self.table.columns)
        return f"{', '.join(values)} [{len(self.table)} splits]"


def average_over_splits(results: Sequence[Result]) -> SplitScores:
    r"""Average the scores of the splits, each split counting the same.

    $$\bar s = \frac{1}{n} \sum_i s_i, \qquad \sigma = \sqrt{\frac{1}{n-1} \sum_i (s_i - \bar s)^2}$$

    Args:
        results: `RetrievalScores` (their `as_dict`, so every name carries its rule), or dictionaries of numbers.

    Returns:
        SplitScores(table, mean, std); the standard deviation of a single split is NaN.

    Raises:
        ValueError: no results, or results with different names (that is, scored by different rules).

    >>> average_over_splits([{"rank-1": 0.5}, {"rank-1": 0.7}, {"rank-1": 0.6}]).as_dict()
    {'rank-1': 0.6, 'rank-1, std over 3 splits': 0.1}
    """
    rows = [dict(r.as_dict() if isinstance(r, RetrievalScores) else r) for r in results]
    if not rows:
        raise ValueError("no results to average")
    for i, row in enumerate(rows):
        if set(row) != set(rows[0]):
            raise ValueError(f"split {i} has the scores {sorted(row)}, split 0 has {sorted(rows[0])}: not one protocol")
    table = pd.DataFrame(rows).rename_axis("split")
    # rounded in the last digits, so that a sum's order does not show
    return SplitScores(table, table.mean().round(15), table.std(ddof=1).round(15))


def score_splits(
    benches: Iterable[Benchmark], score: Callable[[Any, Benchmark], Result], train: Callable[[Benchmark], Any]
) -> SplitScores:
    """Run an experiment on every split and average its scores.

    ```
    score_splits(load_splits("cuhk01", root), score_benchmark,
                 train=lambda bench: train_baseline(bench.train, images_seen=40_000)[0])
    ```

    Args:
        benches: the splits, one at a time (`datasets.load_splits`).
        score: `score(method, bench)` scores one split.
        train: `train(bench)` gives the method. It is called once for splits in a row that train on the same images
            (CUHK01's two ways).

    Raises:
        ValueError: no split.
    """
    results = []
    trained_on, method = None, None
    for bench in benches:
        images = list(zip(bench.train.names, bench.train.pids.tolist(), strict=True))
        if images != trained_on:
            trained_on, method = images, train(bench)
        results.append(score(method, bench))
    return average_over_splits(results)
