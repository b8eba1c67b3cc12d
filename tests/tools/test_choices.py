"""Rows of choices: kept once, read back whatever their names look like, added by two processes."""

import pandas as pd
import pytest

from reidlib.tools.choices import keep, read, rows_of, short_name


@pytest.mark.parametrize("recipe", ["01234567", "12345e67", "b681bf72"])
def test_a_row_is_measured_once(tmp_path, recipe):
    calls, file = [], tmp_path / "new" / "rows.csv"
    row = {"variant": "as it is", "seed": 3, "recipe": recipe}
    for _ in range(3):
        keep(file, row, lambda: calls.append(1) or {"mAP": 12.34567})
    keep(file, row | {"seed": 4}, lambda: {"mAP": 1.0})
    table = read(file, [*row])
    assert calls == [1] and table.mAP.tolist() == [12.3457, 1.0] and table.recipe.tolist() == [recipe] * 2
    assert not table[["date", "threads", "device", "commit"]].isna().any(axis=None)
    assert rows_of(table, [row]).seed.tolist() == [3] and rows_of(table, [row | {"recipe": "other"}]).empty


def test_a_row_that_another_process_adds_meanwhile_stays(tmp_path):
    file, row = tmp_path / "rows.csv", {"variant": "a", "seed": 0}

    def slow():
        keep(file, row, lambda: {"mAP": 1.0})
        return {"mAP": 2.0}

    keep(file, row, slow)
    assert read(file, [*row]).mAP.tolist() == [1.0]


def test_a_file_of_something_else_is_refused(tmp_path):
    pd.DataFrame({"name": ["x"]}).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ValueError, match="lacks the columns variant, seed"):
        read(tmp_path / "rows.csv", ["variant", "seed"])


def test_another_recipe_has_another_name():
    assert short_name({"lr": 1e-3}) != short_name({"lr": 2e-3})
