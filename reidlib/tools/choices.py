"""Rows of what was chosen on validation people: a CSV with a row a training, none of which is run twice."""

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from reidlib.files import atomic_path, locked
from reidlib.machine import commit, device_name, pick_device

FACTS = ("date", "threads", "device", "commit")


def short_name(recipe: Any) -> str:
    """Return eight letters that are others for every other recipe, by what it prints.

    >>> short_name({"lr": 1e-3}) == short_name({"lr": 0.001}), short_name({"lr": 1e-3}) == short_name({"lr": 2e-3})
    (True, False)
    """
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]


def read(file: Path, key: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a file; without one an empty table with the columns of `key`.

    Raises:
        ValueError: a file without one of these columns.
    """
    if not file.exists():
        return pd.DataFrame(columns=list(key))
    table = pd.read_csv(file, dtype={"recipe": str})  # eight letters may look like a number
    if missing := [name for name in key if name not in table]:
        raise ValueError(f"{file} keeps no such rows: it lacks the columns {', '.join(missing)}")
    return table


def rows_of(table: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return those rows of a table that these columns and values name.

    >>> rows_of(pd.DataFrame({"variant": ["a", "b"], "seed": [0, 1]}), [{"variant": "b", "seed": 1}]).index.tolist()
    [1]
    """
    wanted = pd.DataFrame(list(rows))
    return table[pd.MultiIndex.from_frame(table[list(wanted)]).isin(pd.MultiIndex.from_frame(wanted))]


def keep(file: Path, row: Mapping[str, Any], measure: Callable[[], Mapping[str, float]], *, digits: int = 4) -> None:
    """Add a row to a file: what names it, what is measured, and the facts of the run. A row that is there stays.

    Args:
        file: the CSV; its folder is made.
        row: the columns that name a training.
        measure: gives the other columns; called only where the file has no such row. Two processes may add to one file;
            where both measure the same row at once, the first to end is kept.
        digits: that numbers are rounded to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)

    def there() -> bool:
        return len(rows_of(read(file, [*row]), [row])) > 0

    if there():
        return
    facts = datetime.date.today().isoformat(), torch.get_num_threads(), device_name(pick_device()), commit()
    line = dict(row) | dict(measure()) | dict(zip(FACTS, facts, strict=True))
    with locked(file, wait=True):
        if not there():  # by another process, meanwhile
            with atomic_path(file) as temporary:
                table = pd.concat([read(file, [*row]), pd.DataFrame([line])], ignore_index=True)
                table.round(digits).to_csv(temporary, index=False)
