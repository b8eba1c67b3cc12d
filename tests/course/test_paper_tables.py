"""Printed tables and claims against ours."""

import itertools
import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from reidlib.course import figures, paper_tables, sweeps

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


def test_rows_of_keeps_starts_and_generators_apart():
    names = [f"{FOUR}/rank-1", f"{FOUR}/rank-1", f"{FOUR}/rank-1"]
    recorded = pd.DataFrame({"metric": names, "value": [0.1, 0.2, 0.3], "seed": 0, "generator": 4,
                             "start": ["recorded", "recorded-2", "recorded-2"]})  # fmt: skip
    rows = paper_tables.rows_of(recorded)
    assert rows[["start", "generator", "value"]].values.tolist() == [["recorded", 4, 10.0], ["recorded-2", 4, 30.0]]


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


def arms(differences: list[float], a: str = FOUR, b: str = BASE, metric: str = "mAP", start: str | None = None) -> list:
    """Two rows whose paired differences a - b are given; b has a spread of its own."""
    lines = [(b, metric, seed, 10.0 + seed % 3) for seed in range(len(differences))]
    lines += [(a, metric, seed, 10.0 + seed % 3 + d) for seed, d in enumerate(differences)]
    return [(*line, start) for line in lines] if start else lines


STARTS = ["row", "metric", "seed", "value", "start"]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([2.0, 3.0, 2.5, 3.5, 2.0, 3.0], "holds"),
        ([-2.0, -3.0, -2.5, -3.5, -2.0, -3.0], "reversed"),
        ([0.1, -0.1, 0.2, -0.2, 0.1, -0.1], "no effect above 1"),
        ([5.0, -4.0, 3.0, -3.0, 6.0, -1.0], "undecided"),
        ([2.0, 3.0], "undecided (2 pairs)"),
    ],
)
def test_a_claim_is_decided_by_its_paired_differences(differences, verdict):
    board = paper_tables.check_claims(ours(*arms(differences)), "camera_transfer")
    assert board.index.tolist() == ["ct04"]  # the only claim whose two rows are there
    line = board.loc["ct04"]
    assert line.verdict == verdict and line.n == len(differences) and line["mAP"] == line.difference
    assert line.differences == pytest.approx(differences) and line["ours a"] - line["ours b"] == pytest.approx(
        sum(differences) / len(differences)
    )


def test_only_seeds_that_both_rows_have_count_in_the_order_of_the_seeds():
    lines = [*arms([1.0, 2.0, 3.0])[::-1], (FOUR, "mAP", 7, 99.0), (BASE, "mAP", 8, 99.0)]
    assert paper_tables.check_claims(ours(*lines), "camera_transfer").differences["ct04"] == pytest.approx((1, 2, 3))


def test_less_than_and_at_least():
    base, one, three = (f"T8|market1501|{name}" for name in ("c5c6|Baseline", "c5c6+G6|Model 1", "c5c6+G6|Model 3"))
    small = [-0.5, -0.6, -0.4, -0.5, -0.5, -0.6]
    lines = arms([-5.0, -4.0, -5.0, -6.0, -5.0, -5.5], one, base) + arms(small, three, base)
    board = paper_tables.check_claims(ours(*lines), "camera_transfer")
    assert board.verdict["ct09"] == "holds" and board.difference["ct09"] > 4  # signed as claimed: a < b
    assert board.verdict["ct06"] == "holds" and board.high["ct06"] < 0  # half a point below is as good as equal
    assert board.verdict["ct12"] == "holds" and board.difference["ct12"] == pytest.approx(4.57, abs=0.01)


def test_maps_difference_stands_beside_another_metrics():
    base, three = "T8|market1501|c5c6|Baseline", "T8|market1501|c5c6+G6|Model 3"
    lines = arms([3.0] * 6, three, base, "rank1") + arms([-2.0] * 6, three, base)
    line = paper_tables.check_claims(ours(*lines), "camera_transfer").loc["ct07"]
    assert (line.metric, line.difference, line["mAP"], line.verdict) == ("rank1", 3.0, -2.0, "holds")


def test_the_second_start_is_judged_by_itself_and_can_undo_a_verdict():
    first, up, down = (
        arms([d, d + 1] * 3, start=s) for d, s in ((2, "recorded"), (2, "recorded-2"), (-3, "recorded-2"))
    )
    for lines, verdict, second in (
        (first + up, "holds", "holds"),
        (first + down, "undecided (the starts disagree)", "reversed"),
    ):
        board = paper_tables.check_claims(pd.DataFrame(lines, columns=STARTS), "camera_transfer")
        line = board.loc["ct04"]
        assert (line.verdict, line["second start"], line.n) == (verdict, second, 6)
        assert line.difference == 2.5 and "second start" in paper_tables.readable(board)
    board = paper_tables.check_claims(pd.DataFrame(down, columns=STARTS), "camera_transfer")
    assert board.verdict["ct04"] == "reversed"  # alone it is judged as it stands
    table = paper_tables.side_by_side(pd.DataFrame(first + down, columns=STARTS), "camera_transfer", metrics=["mAP"])
    line = table.loc[("T7", "market1501", "c5+G6", "Model 4")]
    assert (line["mAP ours"], line.start, line.seeds) == ("13.5 ± 1.0", "recorded", 6)


def test_seeds_that_share_a_generator_are_averaged_first():
    lines = [(*line, line[2] // 2) for line in arms([1.0, 3.0, 2.0, 4.0])]
    board = paper_tables.check_claims(pd.DataFrame(lines, columns=[*STARTS[:4], "generator"]), "camera_transfer")
    assert board.n["ct04"] == 2 and board.differences["ct04"] == (2.0, 3.0)
    assert board.verdict["ct04"] == "undecided (2 groups)"
    of_real = [(*line[:4], pd.NA if "Baseline" in line[0] else line[4]) for line in lines]  # no generator drew these
    for rows in (of_real, of_real[::-1]):
        table = pd.DataFrame(rows, columns=[*STARTS[:4], "generator"])
        for a, b in itertools.permutations(table.row.unique()):
            assert paper_tables.pairs_of(table, (a, b), "mAP").generator.tolist() == [0, 0, 1, 1]


OURS, A, LSRO = (f"T1|market1501|single_query|{name}" for name in ("Ours (SL)", "ResNet-50-A", "Basel.+LSRO"))


@pytest.mark.parametrize(("short", "verdict"), [(5.0, "not testable"), (0.5, "holds")])
def test_a_rival_below_its_own_baseline_decides_nothing(short, verdict):
    lines = arms([-short] * 6, LSRO, A, "rank1") + arms([8.0] * 6, OURS, A, "rank1")[6:]
    board = paper_tables.check_claims(ours(*lines), "pn_gan")
    assert board.verdict["pn08"] == verdict and board.n["pn08"] == 6
    assert board.reason["pn08"] == ("" if short < 1 else "Basel.+LSRO: 5.0 below its own baseline, ResNet-50-A (n = 6)")
    assert board.verdict["pn01"] == "holds"
    words = paper_tables.summary(board).splitlines()
    assert words[0] == ("1 claims tested: 1 holds" if short > 1 else "2 claims tested: 2 holds")
    assert "not testable pn07: PDC: a method of other authors" in words
    assert ("pn08" in " ".join(words)) == (short > 1)


def test_a_rival_without_its_baseline_is_said():
    board = paper_tables.check_claims(ours(*arms([8.0] * 6, OURS, LSRO, "rank1")), "pn_gan")
    assert board.reason["pn08"] == "Basel.+LSRO: not recorded beside its baseline, ResNet-50-A"


def test_rivals_and_their_baselines_are_printed_rows():
    rows = set(paper_tables.printed("pn_gan").row)
    assert {*paper_tables.RIVALS, *paper_tables.RIVALS.values()} <= rows


def test_the_board_counts_what_is_undecided_and_what_chance_would_give():
    three = "T8|market1501|c5c6+G6|Model 3"
    lines = arms([2.0, 3.0] * 12) + arms([5.0, -4.0, 3.0, -3.0, 6.0, -1.0, 7.0], three, "T8|market1501|c5c6|Baseline")
    board = paper_tables.check_claims(ours(*lines), "camera_transfer")
    assert paper_tables.summary(board).splitlines() == [
        "2 claims tested: 1 holds, 1 undecided",  # ct06 says "at least", so 3 looks / 60
        "undecided: 50%; if no claim had an effect, chance alone would let at most 0.05 of the 1 strict ones hold",
    ]
    shown = paper_tables.readable(board)
    assert shown.loc["ct06", "n"] == "6 of 7" and shown.loc["ct04", "n"] == "6 of 24"
    assert shown.loc["ct04", ["difference", "p", "mAP"]].tolist() == ["+2.5 [+1.8, +3.2]", "0.031", "+2.5"]


def record(folder, notebook: str, lines: list[tuple]) -> None:
    """Write a recorded table of these rows: a run a seed."""
    (folder / "recorded").mkdir(exist_ok=True)
    rows = [(f"course-{seed}", f"{row}/{metric}", value / 100, "rule", "") for row, metric, seed, value in lines]
    path = sweeps.table_path(notebook, folder)
    pd.DataFrame(rows, columns=list(sweeps.COLUMNS)).to_csv(path, index=False)
    facts = {name: "" for name in sweeps.FACTS} | {"parameters": {"profile": "course"}}
    runs = {f"course-{seed}": facts | {"seed": seed} for _, _, seed, _ in lines}
    sweeps.runs_path(path).write_text(json.dumps(runs))


def test_the_command_prints_every_board(tmp_path, capsys):
    from reidlib.__main__ import main

    record(tmp_path, "03_camera_transfer", arms([2.0, 3.0] * 3, metric="mAP (plain AP)"))
    record(tmp_path, "04_pn_gan", arms([1.0], metric="rank-1"))
    assert main(["claims", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "camera_transfer (recorded in 03_camera_transfer): 1 claims tested: 1 holds\n" in said
    assert "not recorded: ct01, ct02, ct03, ct05, " in said
    assert "mAP 6 +2.5 [+1.8, +3.2] 0.031 holds +2.5" in " ".join(said.split())
    assert "pn_gan (recorded in 04_pn_gan): 0 claims tested\nnot testable pn07: PDC: a method of other" in said
    assert main(["claims", "camera_transfer", "--folder", str(tmp_path)]) == 0
    assert "pn_gan" not in capsys.readouterr().out
    assert main(["claims", "dg"]) == 2 and "got 'dg'" in capsys.readouterr().err


def test_nothing_recorded_is_an_empty_board_that_can_be_shown():
    board = paper_tables.check_claims(ours(), "camera_transfer")
    assert board.empty and tuple(board) == paper_tables.BOARD and paper_tables.readable(board).empty
    assert paper_tables.summary(board) == "0 claims tested"
    figure = figures.claims_board(board)
    assert figure.axes[0].get_title() == "no claim has a recorded pair yet"
    plt.close(figure)
    others = paper_tables.check_claims(ours(), "dg_net")
    assert others.verdict.tolist() == ["not testable"] * 2
    plt.close(figures.claims_board(others))


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match="missing: seed"):
        paper_tables.check_claims(ours().drop(columns="seed"), "camera_transfer")
    with pytest.raises(ValueError, match=r"paper must be one of .*; got 'pngan'"):
        paper_tables.check_claims(ours(), "pngan")


def test_the_misprinted_row_of_table_13_is_found_under_its_corrected_name():
    base, extended = "T13|market1501|c5c6|Baseline_c5c6", "T13|market1501|c5c6+G5|Model 1"
    claims = paper_tables.check_claims(ours((base, "rank1", 0, 5.0), (extended, "rank1", 0, 6.0)), "camera_transfer")
    assert claims.difference["ct22"] == 1 and claims.verdict["ct22"] == "undecided (1 pair)"
    assert extended in set(paper_tables.printed("camera_transfer").row)


def test_side_by_side_of_all_tables_in_their_order():
    lines = [(f"{t}|market1501|x|y", "mAP", 0, 1.0) for t in ("T10", "T9", "T2b", "T2a")]
    table = paper_tables.side_by_side(ours(*lines), "pn_gan")
    assert table.index.get_level_values("table").tolist() == ["T2a", "T2b", "T9", "T10"]
    assert table.empty is False and paper_tables.side_by_side(ours(), "pn_gan").empty


def test_gains_over_a_row_that_no_claim_names():
    """The lost table's rows against "no augmentation": pairs of one seed and start, a base of their own is left out."""
    lines = [("T2|m|a 2|SAN", m, s, 30 + s + d) for m, d in (("mAP", 2), ("rank1", -3)) for s in range(6)]
    lines += [("T2|m|a 1|none", m, s, 30 + s) for m in ("mAP", "rank1") for s in range(6)]
    lines += [("T2|m|a 4|SAN", "mAP", 7, 1.0)]  # no pair
    found = paper_tables.against(ours(*lines), lambda row: "T2|m|a 1|none")
    assert list(found.index) == [("T2|m|a 2|SAN", "rank1"), ("T2|m|a 2|SAN", "mAP")]
    assert found.difference.tolist() == [-3, 2] and found.verdict.tolist() == ["reversed", "holds"]
    assert found.n.tolist() == [6, 6] and paper_tables.against(ours(), lambda row: row).empty


def test_gains_that_the_second_start_turns_are_undecided():
    """Pairs run again from the second start stand beside the first ones' verdict, and can only withdraw it."""
    lines = [(row, "mAP", s, 30 + s % 2 + d, "recorded") for row, d in (("a", 2), ("b", 0), ("c", 3)) for s in range(6)]
    lines += [
        (row, "mAP", s, 9 + s % 2 + d, "recorded-2") for row, d in (("a", 1), ("b", 0), ("c", -4)) for s in range(6)
    ]
    two = pd.DataFrame(lines, columns=["row", "metric", "seed", "value", "start"])
    found = paper_tables.against(two, lambda row: "b", ["mAP"])
    assert found.difference.tolist() == [2, 3] and found.n.tolist() == [6, 6]
    assert found.verdict.tolist() == ["holds", "undecided (the starts disagree)"]
    assert found["second start"].tolist() == ["holds", "reversed"]
    assert "second start" not in paper_tables.against(two[two.start == "recorded"], lambda row: "b", ["mAP"])
