"""What the README says: its links, its example, and its numbers, which stand in the recorded table."""

import argparse
import importlib
import json
import re
import shlex

import pandas as pd
import pytest

from reidlib.__main__ import COMMANDS
from reidlib.course import paper_tables, sweeps
from reidlib.course.verdicts import verdict
from reidlib.files import REPOSITORY

KEPT, LENGTHS = ("identity kept, rank-1", "FID"), ("11,234", "22,468", "44,936")
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and all((REPOSITORY / link).exists() for link in links), links


def test_every_notebook_is_listed_with_the_time_it_notes():
    import nbformat

    for path in sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        seconds = nbformat.read(path, as_version=4).metadata["reidlib"]["seconds_on_two_cores"]
        (row,) = [line for line in README.splitlines() if line.startswith("|") and f"notebooks/{path.name}" in line]
        assert f"| {seconds['smoke']} s | {seconds['course']} s |" in row


def results(header: str) -> list[list[str]]:
    lines = README[README.index(header) :].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: lines.index("")]]


def rows_shown(notebook: str) -> pd.DataFrame:
    """The rows that the README's table rests on: those that count; while there are none, those it calls superseded."""
    table = sweeps.recorded(notebook)
    if len(table):
        return table
    assert f"`{notebook}`: all superseded" in README
    table = sweeps.recorded(notebook, superseded=True)
    return table[table["superseded"].str.startswith("recorded before renderer version 3 (")]


def test_only_tables_without_a_row_that_counts_are_called_superseded():
    called = re.findall(r"`(\w+)`: all superseded", README)
    assert all(sweeps.recorded(notebook).empty for notebook in called)


@pytest.mark.parametrize("row", results("| people | identity kept"), ids=lambda row: row[0])
def test_people_seen_by_a_generator_are_those_recorded(row):
    name = "weights/camera_transfer-3" if row[0] == "480" else f"recorded/choices/camera_transfer-3-of-{row[0]}"
    found = json.loads((REPOSITORY / "notebooks" / f"{name}.results.json").read_text())
    assert found["parameters"]["identities"] == int(row[0])
    values = [found["metrics"][f"{n} pairs seen/{what}"]["value"] for what in KEPT for n in LENGTHS]
    assert row[1:] == [*(f"{100 * value:.1f}" for value in values[:3]), *(f"{value:.2f}" for value in values[3:])]


@pytest.mark.parametrize("row", results("| method | rank-1 |"), ids=lambda row: row[0])
def test_results_are_those_recorded(row):
    table = sweeps.one_start(rows_shown("02_reid_baseline"))
    table = table[table["study"].str.endswith(".seeds")]
    for cell, metric in zip(row[1:], ("rank-1", "mAP (plain AP)", "mAP (trapezoid AP)"), strict=True):
        values = table[table["metric"] == f"{row[0]}/{metric}"]["value"] * 100
        assert cell == (paper_tables.mean_text(values) if len(values) else "–"), metric
        assert len(values) in (0, table["seed"].nunique())


@pytest.mark.parametrize(
    ("notebook", "row"),
    [("03_camera_transfer", row) for row in results("| camera transfer | mAP | rank-1 |")]
    + [("04_pn_gan", row) for row in results("| PN-GAN | mAP | rank-1 |")]
    + [("05_pose_attention", row) for row in results("| pose attention | mAP | rank-1 |")]
    + [("07_dg_net", row) for row in results("| DG-Net | mAP | rank-1 |")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_paper_rows_are_those_recorded(notebook, row):
    """A row is "T7 market1501 c5+G6, Model 4": table, data set, setting (some tables have but one), method."""
    only = "SL" if notebook.startswith("05") else "ablation_features"
    ours = paper_tables.rows_of(rows_shown(notebook))
    parts = re.fullmatch(r"(\S+) ([^\s,]+)(?: ([^,]+))?, (.+)", row[0]).groups(only)
    mine = sweeps.one_start(ours[ours.row == "|".join(parts)])
    assert len(mine)
    for cell, metric in zip(row[1:], ("mAP", "rank1"), strict=True):
        assert cell == paper_tables.mean_text(mine[mine.metric == metric].value)


ADDED = {"nothing": "no augmentation", "guided pose (notebook 03)": "guided-pose", "pose attention": "pose-attention"}
ADDED |= {"*paste*": "paste", "*colour matching*": "colour-matching"}


@pytest.mark.parametrize("row", results("| added | alpha |"), ids=lambda row: " ".join(row[:2]))
def test_the_lost_table_is_the_recorded_one(row):
    """A row is what was added (or, in brackets and slanted, its short name), alpha, pairs; "mAP / rank-1" a column."""
    words = re.search(r"\(\*(\w+)\*\)", row[0])
    name = words[1] if words else ADDED.get(row[0], row[0].replace("camera transfer, model ", "model-"))
    ours = sweeps.one_start(paper_tables.rows_of(rows_shown("06_semantic_attention")))
    columns = ("IDE + Euclidean", "IDE + XQDA", "IDE + KISSME", "Siamese")
    for column, cell in zip(columns, row[3:], strict=True):
        mine = ours[ours.row == f"T2|market1501|alpha {row[1]}, {column}|{name}"].drop_duplicates(["metric", "seed"])
        values = [mine[mine.metric == metric].value for metric in ("mAP", "rank1")]
        assert cell == " / ".join(map(paper_tables.mean_text, values)), column
        assert row[2] == str(len(values[0]))


def gains_of(rows, a, b):
    """By how many points of mAP one row is above another, pair by pair."""
    pairs = paper_tables.pairs_of(rows, (a, b), "mAP")
    return pairs["value a"] - pairs["value b"]


def test_what_is_said_of_table_3_and_of_the_second_start():
    """Mean gains in points of mAP, and how many swaps show the appearance's person."""

    recorded = rows_shown("05_pose_attention")
    recorded = recorded[recorded["study"].str.endswith(".ablations")]
    rows, whole = paper_tables.rows_of(recorded), "Pose-guided re-ID"
    board = paper_tables.check_claims(rows, "pose_attention")
    assert board[board.verdict == "reversed"].index.tolist() == ["pa06", "pa08"]
    assert board[board.verdict == "undecided"].index.tolist() == ["pa05", "pa07", "pa09", "pa10"]
    blocks, without_d = (-board.loc[claim, "difference"] for claim in ("pa06", "pa08"))
    assert f"({blocks:.1f} points of rank-1; pa06)" in README and f"({without_d:.1f}; pa08)" in README
    of_six = gains_of(rows, f"T3|market1501|ablation_components|{whole} without semantic-consistency loss",
                   f"T3|market1501|ablation_blocks|{whole}")  # fmt: skip
    assert len(of_six) == 6 and (of_six < 0).all() and f"({-of_six.mean():.1f} points on average)" in README
    judged = 100 * sweeps.means(recorded, r"^variants/(?P<row>[^/]+)/(?P<what>.+)$").round(4)
    kept = judged["identity kept, rank-1"].round()
    names = ("two|three|appearance", "semantic", "five", "whole")
    found = {name: kept[kept.index.str.contains(name)].unique().tolist() for name in names}
    assert list(found.values()) == [[85], [66], [57], [80]]
    assert judged["PCK@0.1"].idxmax() == "without semantic-consistency loss" and judged["PCK@0.1"].max().round() == 91
    best = rows[rows.row.str.startswith("T3") & (rows.metric == "mAP")].groupby("row").value.mean()
    alone = rows[(rows.row == "T1|market1501|SL|real only (128x64)") & (rows.metric == "mAP")].value.mean()
    assert best.max() < alone and len(best) == 7 and f"({alone:.1f} points of mAP at that size)" in README
    table = rows_shown("07_dg_net")
    table = table[table["study"].str.endswith(".second_start")]
    f_prim, baseline = (f"T1|market1501|ablation_features|{row}" for row in ("f_prim", "Baseline"))
    cost = gains_of(paper_tables.rows_of(table), f_prim, baseline).mean()
    swapped = 100 * table[table["metric"] == "swaps/DG-Net/appearance first"]["value"].mean()
    assert f"{-cost:.1f} points of mAP, and {swapped:.1f} % of the swaps show the appearance's person." in README


def test_what_is_said_of_pn_gan():
    rows = paper_tables.rows_of(rows_shown("04_pn_gan"))
    board = paper_tables.check_claims(rows, "pn_gan")
    verdicts, by = board.verdict, board.difference.map("{:.1f}".format)
    said = (verdicts == "holds").sum(), (verdicts == "reversed").sum(), (verdicts == "undecided").sum()
    assert said == (11, 1, 1) and len(board) == 15 and verdicts.pn13 == "undecided" and verdicts.pn12 == "reversed"
    assert "of the thirteen tested eleven hold, one is reversed, one is undecided (pn13)." in README
    gains = f"{by.pn04} points of mAP on DukeMTMC, {by.pn05} of rank-1 on CUHK03 and {by.pn06} on CUHK01"
    assert f"{gains} (all three hold)" in README
    printed = 73.58 - board.loc[["pn09", "pn14"], ["paper a", "paper b"]].min(axis=1)
    assert f"{by.pn09} points of rank-1 above LSRO and {by.pn14} above the system that comes unchanged" in README
    assert "(both hold with twelve pairs; the paper has {:.1f} and {:.1f})".format(*printed) in README
    assert (board.look[["pn03", "pn09", "pn14"]] == 12).all()
    fused = {}
    for query in ("single_query", "multi_query"):
        pair = (f"T1|market1501|{query}|{name}" for name in ("Ours (SL)", "ResNet-50-A"))
        fused[query] = gains_of(rows, *pair)
    one = fused["single_query"]
    assert len(one) == 12 and (one > 0).sum() == 11 and "above A in mAP in eleven of twelve pairs" in README
    assert f"by {one.mean():.1f} points on average ({fused['multi_query'].mean():.1f} for multiple queries" in README
    lsro = gains_of(rows, "T1|market1501|single_query|Basel.+LSRO", "T1|market1501|single_query|ResNet-50-A")
    recorded = sweeps.one_start(rows_shown("04_pn_gan").query("network == 'market1501' and seed < 6"))
    once = recorded.drop_duplicates(["metric", "pairs", "seed"], keep="last")
    shown = once.pivot_table("value", "metric", "pairs")
    kept, pose = (100 * shown.loc[f"canonical/PN-GAN/{name}"] for name in ("identity kept, rank-1", "PCK@0.1"))
    fid, copied = (shown.loc[f"pairs/{name}/FID"] for name in ("PN-GAN", "copy of the source"))
    far_fids = f"(FID {fid['all']:.0f} in the judges' features, a copy of the source {copied['all']:.1f}; "
    assert f"{far_fids}with pairs of one camera {fid.auto:.1f} and {copied.auto:.1f})" in README
    assert f"({kept['all']:.0f} % against {kept.auto:.0f} %)" in README
    assert f"({pose['all']:.0f} % of the joints against {pose.auto:.0f} %)" in README
    of_six = rows[rows.seed < 6]
    T4 = "T4|market1501|ablation_features|"
    gains = (gains_of(of_six, T4 + f"Ours{x}", T4 + f"ResNet-50-A{x}") for x in (" (pairs: all)", ""))
    far, near = (gain.mean() for gain in gains)
    change = gains_of(of_six, f"{T4}Ours (pairs: all)", f"{T4}Ours")
    assert f"\n{far:.1f} points of mAP with them over A against {near:.1f} (six pairs each;" in README
    assert f"{change.mean():.1f} points from one to the other, holds)" in README
    assert verdict(change.tolist()).verdict == "holds" and len(change) == 6
    of_b = gains_of(of_six, f"{T4}ResNet-50-B (pairs: all)", f"{T4}ResNet-50-B").mean()
    text_04, text_08 = (
        " ".join("".join("".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"]).split())
        for path in (REPOSITORY / "notebooks" / f"{name}.ipynb" for name in ("04_pn_gan", "08_compare_methods"))
    )
    assert f"(FID {fid.auto:.1f} against {fid['all']:.0f})" in text_04
    assert f"({kept.auto:.0f} % against {kept['all']:.0f} %)" in text_04
    assert f"({pose.auto:.0f} % of the joints against {pose['all']:.0f} %)" in text_04
    assert f"gains {far:.1f} points of mAP over A in place of {near:.1f} (six" in text_04
    assert f"B alone is {of_b:.1f} points better" in text_04 and f"and {far:.1f} (holds) where the generator" in text_08
    assert (lsro < 0).sum() == 5 and len(lsro) == 6 and "its mAP is below A's in five of six pairs here" in README


def test_the_studies_of_which_runs_are_missing_are_named():
    (said,) = re.findall(
        r"Studies of which runs are still missing \(recorded of planned\): (.+?\))\.\n", README, re.DOTALL
    )
    found = {}
    for path in sorted((REPOSITORY / "notebooks").glob("*.*.json")):
        states = [state for _, state, _ in sweeps.run_study(sweeps.read_study(path), dry_run=True)]
        if "missing" in states:
            found[path.stem] = f"{states.count('recorded')} of {len(states)}"
    assert dict(re.findall(r"`([\w.]+)` \((\d+ of \d+)\)", said)) == found


def test_the_example_runs(tmp_path, capsys):
    code = README[README.index("```python\n") + 10 :].split("```")[0]
    small = code.replace(
        'size="course"', f'root={str(tmp_path)!r}, size="smoke", progress=False, cache={str(tmp_path)!r}'
    )
    assert small != code
    exec(compile(small, "README.md", "exec"), {})
    assert "mAP (plain AP)" in capsys.readouterr().out


def commands() -> list[str]:
    """Every call of `reidlib` in README, data card and Makefile: lines of code blocks, and words in backticks."""
    texts = [(REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "data/README.md")]
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", "\n".join(texts), re.DOTALL | re.MULTILINE)).splitlines()
    inline = re.findall(
        r"`([^`\n]+)`", "\n".join(re.sub(r"^```.*?^```", "", t, flags=re.DOTALL | re.MULTILINE) for t in texts)
    )
    called = [re.search(r"(?:^|-m )reidlib (.+)", line) for line in (*blocks, *inline)]
    return sorted({call[1].partition("  ")[0].partition(" #")[0].strip() for call in called if call})


@pytest.mark.parametrize("call", commands())
def test_every_command_is_one_that_parses(call):
    name, *words = shlex.split(call)
    if name == "<study>" or not words:
        assert name in COMMANDS
        return
    parser = argparse.ArgumentParser()
    importlib.import_module(f"reidlib.{COMMANDS[name].module}").add_arguments(parser)
    parser.parse_args(words)


def test_the_reserved_seeds_are_those_in_use():
    from reidlib.tools import train_generators, train_judges

    table = {row[1]: row for row in results("| seed | people | network |")}
    assert list(table) == ["tests", "validation", "judges", "starts", "generators"]
    assert table["judges"][0] == ", ".join(map(str, train_judges.SEEDS.values()))
    assert table["generators"][0] == f"{train_generators.SEED} and on"


def test_commands_are_found():
    assert len(commands()) >= 8 and not re.search(r"python -m reidlib\.", README)
