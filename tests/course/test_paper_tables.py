"""Printed tables and claims against ours."""

import pandas as pd
import pytest

from reidlib.course import paper_tables

BASE, FOUR, ONE = (f"T7|market1501|{name}" for name in ("c5|Baseline", "c5+G6|Model 4", "c5+G6|Model 1"))


def ours(*lines: tuple) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=["row", "metric", "seed", "value"])


def test_printed_values_are_numbers_under_their_row():
    table = paper_tables.printed("pn_gan").set_index(["row", "metric"]).value
    assert table["T1|market1501|single_query|Ours (SL)", "rank1"] == 89.43
    with pytest.raises(ValueError, match="got 'pngan'"):
        paper_tables.printed("pngan")


def test_rows_of_takes_plain_ap_and_ranks_of_paper_rows_only():
    recorded = pd.DataFrame(
        {
            "metric": [
                f"{FOUR}/mAP (plain AP)",
                f"{FOUR}/mAP (trapezoid AP)",
                f"{FOUR}/rank-20",
                f"{FOUR}/mINP",
                "x/rank-1",
            ],
            "value": [0.2, 0.1, 0.7, 0.5, 0.9],
            "seed": [3, 3, 3, 3, 3],
        }
    )
    assert paper_tables.rows_of(recorded).values.tolist() == [[FOUR, "mAP", 3, 20.0], [FOUR, "rank20", 3, 70.0]]


def test_rows_of_reads_rules_in_the_name():
    values = {
        f"{BASE}/mAP (plain AP, separate views, single-shot x10)": {"value": 0.5},
        f"{BASE}/rank-1 (none)": {"value": 0.25},
    }
    assert paper_tables.rows_of(values, seed=2).value.tolist() == [50.0, 25.0]


def test_side_by_side_means_over_seeds_and_leaves_what_the_paper_lacks_empty():
    control = "T7|market1501|c5+colours|control"
    table = paper_tables.side_by_side(
        ours((FOUR, "mAP", 0, 10.0), (FOUR, "mAP", 1, 12.0), (control, "mAP", 0, 7.0)), "camera_transfer", "T7", ["mAP"]
    )
    assert table.loc[("T7", "market1501", "c5+G6", "Model 4")].tolist() == [2, 20.7, "11.0 ± 1.4"]  # two seeds
    assert pd.isna(table.loc[("T7", "market1501", "c5+colours", "control"), "mAP paper"])


@pytest.mark.parametrize(
    ("model_4", "verdict", "seeds"),
    [((3, 3), "reproduced", "2 of 2"), ((3, 1), "undecided", "1 of 2"), ((1, 1), "not reproduced", "0 of 2")],
)
def test_a_claim_is_reproduced_only_where_every_seed_agrees(model_4, verdict, seeds):
    lines = [(BASE, "mAP", seed, 2.0) for seed in (0, 1)] + [(FOUR, "mAP", s, float(v)) for s, v in enumerate(model_4)]
    claims = paper_tables.check_claims(ours(*lines), "camera_transfer")
    assert claims.index.tolist() == ["ct04"]  # the only claim whose two rows are there
    assert claims.loc["ct04", ["verdict", "seeds"]].tolist() == [verdict, seeds]


def test_only_seeds_that_both_rows_have_count():
    claims = paper_tables.check_claims(
        ours((BASE, "mAP", 0, 2.0), (FOUR, "mAP", 0, 3.0), (FOUR, "mAP", 1, 1.0)), "camera_transfer"
    )
    assert claims.loc["ct04", "verdict"] == "reproduced (one seed)"


def test_less_than_and_at_least():
    rows = {name: f"T8|market1501|{name}" for name in ("c5c6|Baseline", "c5c6+G6|Model 1", "c5c6+G6|Model 3")}
    lines = [(row, "mAP", 0, value) for row, value in zip(rows.values(), (5.0, 4.0, 5.0), strict=True)]
    verdicts = paper_tables.check_claims(ours(*lines), "camera_transfer").verdict
    assert verdicts["ct06"].startswith("reproduced") and verdicts["ct09"].startswith("reproduced")


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="missing: seed"):
        paper_tables.check_claims(ours().drop(columns="seed"), "camera_transfer")


def test_the_misprinted_row_of_table_13_is_found_under_its_corrected_name():
    base, extended = "T13|market1501|c5c6|Baseline_c5c6", "T13|market1501|c5c6+G5|Model 1"
    claims = paper_tables.check_claims(ours((base, "rank1", 0, 5.0), (extended, "rank1", 0, 6.0)), "camera_transfer")
    assert claims.loc["ct22", "verdict"] == "reproduced (one seed)"
    assert extended in set(paper_tables.printed("camera_transfer").row)


def test_side_by_side_of_all_tables_in_their_order():
    lines = [(f"{t}|market1501|x|y", "mAP", 0, 1.0) for t in ("T10", "T9", "T2b", "T2a")]
    table = paper_tables.side_by_side(ours(*lines), "pn_gan")
    assert table.index.get_level_values("table").tolist() == ["T2a", "T2b", "T9", "T10"]
    assert table.empty is False and paper_tables.side_by_side(ours(), "pn_gan").empty
