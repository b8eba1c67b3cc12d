"""Numbers that a notebook's text states of a recorded study are those recorded."""

import nbformat
import pandas as pd

from reidlib.course import paper_tables, sweeps, verdicts
from reidlib.files import REPOSITORY
from reidlib.tools import choose_swaps


def test_what_is_said_of_travelling_thresholds():
    cells = nbformat.read(REPOSITORY / "notebooks" / "10_your_own_data.ipynb", as_version=4).cells
    (text,) = [" ".join(cell.source.split()) for cell in cells if "**What it says** (five seeds" in cell.source]
    rows = sweeps.recorded("10_your_own_data")
    rows = rows[rows["metric"].str.startswith("travel/")]
    parts = rows["metric"].str.split("/", expand=True).set_axis(["_", "place", "remedy", "rate"], axis=1)
    table = 100 * rows[["value"]].join(parts).groupby(["rate", "remedy", "place"])["value"].mean().unstack("place")
    home, others = "market1501", ["dukemtmc", "cuhk03", "cuhk01", "msmt17"]
    far, tar = table.loc["FAR"], table.loc["TAR"].loc["none"]
    own = table.loc["TAR at the wanted FAR"]
    assert rows.groupby("metric")["seed"].nunique().eq(5).all()

    def between(values):
        return f"{values.min():.1f} to {values.max():.1f} %"

    for said in (
        f"accepts {between(far.loc['none', others])} of the false pairs",
        f"{tar[home]:.0f} % at home, {tar['cuhk03']:.0f} % on CUHK03",
        f"a threshold of its own would give {own.loc['none', 'cuhk03']:.0f} %",
        f"far too strict ({between(far.loc['unlabelled images', others])})",
        f"moved to CUHK01 their threshold lets {far.loc['re-ranked', 'cuhk01']:.1f} % through",
    ):
        assert said in text, said
    miss = (far - 1).abs()
    assert (miss.drop("none") > miss.loc["none"]).any(axis=1).all() and "No remedy brings every network nearer" in text
    assert (far.loc["camera pairs"] - far.loc["none"]).abs().max() < 0.5 and "less than half a point" in text
    assert (own.idxmax() == "re-ranked").sum() == 4 and "best on four of the five networks" in text


def test_what_is_said_of_clothes_that_swap():
    cells = nbformat.read(REPOSITORY / "notebooks" / "07_dg_net.ipynb", as_version=4).cells
    (text,) = [cell.source for cell in cells if "*What makes clothes swap.*" in cell.source]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = sweeps.recorded("07_dg_net")
    rows = rows[(rows["network"] == "market1501") & rows["metric"].str.startswith("swaps/DG-Net/")]
    whole = rows[rows["study"] == "07_dg_net.tables"].pivot_table("value", "seed", "metric")
    back = rows[rows["study"] == "07_dg_net.background"]
    shown, far, pose = (f"swaps/DG-Net/{name}" for name in ("appearance first", "FID", "PCK@0.1"))
    assert f"{100 * whole[shown].mean():.1f} % of the swaps" in text and len(whole) == 6
    ways = {"drawn": back["background"] == "drawn", "raw": back["code_scale"] == "raw", "0": back["encoder_seen"] == 0}
    for way, verdict in (("drawn", "holds"), ("0", "holds"), ("raw", "undecided")):
        without = back[ways[way]].pivot_table("value", "seed", "metric")
        assert verdicts.verdict(100 * (whole - without)[shown]).verdict == verdict and len(without) == 6
        share = f"{100 * without[shown].mean():.1f} %"
        assert share in text and share in readme
    drawn = back[ways["drawn"]].pivot_table("value", "seed", "metric")
    assert f"PCK {100 * drawn[pose].mean():.0f} % in place of {100 * whole[pose].mean():.0f} %" in text
    fids = f"{drawn[far].mean():.1f} in place of {whole[far].mean():.1f}"
    assert fids in text and fids in readme


def test_what_is_said_of_other_ways_to_make_clothes_swap():
    cells = nbformat.read(REPOSITORY / "notebooks" / "07_dg_net.ipynb", as_version=4).cells
    (text,) = [cell.source for cell in cells if "`reidlib swaps` changes one thing at a time" in cell.source]
    rows = pd.read_csv(REPOSITORY / choose_swaps.FILE)
    shares = 100 * rows.groupby("variant")["appearance first"].mean()
    said = [name for name in choose_swaps.VARIANTS if name not in ("twice the rows", "L_id^c with weight 2")]
    assert all(f"{shares[name]:.1f} %" in text for name in said)
    longer = rows[rows["variant"] == "twice the rows"].set_index("seed")["appearance first"]
    assert all(f"{100 * share:.1f} %" in text for share in longer)


def test_what_08_says_of_one_labelled_camera():
    """Model 4 beside pasting, and what labels of the second camera would give."""
    cells = nbformat.read(REPOSITORY / "notebooks" / "08_compare_methods.ipynb", as_version=4).cells
    (text,) = [" ".join(cell.source.split()) for cell in cells if "**One camera has labels:**" in cell.source]
    rows = paper_tables.rows_of(sweeps.recorded("03_camera_transfer"))

    def gain(row, base):
        pairs = paper_tables.pairs_of(rows, [f"{name[:2]}|market1501|{name[3:]}" for name in (row, base)], "mAP")
        return (pairs["value a"] - pairs["value b"]).tolist()

    decided = verdicts.verdict(gain("T7|c5+G6|Model 4", "T7|c5+paste|control"))
    assert f"({decided.mean:.1f} points between them, {decided.verdict})" in text
    every, one = (rows[(rows.row == f"{name}|Baseline") & (rows.metric == "mAP")] for name in
                  ("T8|market1501|c5c6", "T7|market1501|c5"))  # fmt: skip
    both = every.merge(one, on="seed")
    assert f"those gains {(both.value_x - both.value_y).mean():.1f} points" in text


def test_what_09_says_of_one_claim():
    """ct14: undecided with the first six of its pairs, decided with twelve."""
    cells = nbformat.read(REPOSITORY / "notebooks" / "09_ablations.ipynb", as_version=4).cells
    text = " ".join(" ".join(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    board = paper_tables.check_claims(paper_tables.rows_of(sweeps.recorded("03_camera_transfer")), "camera_transfer")
    claim = board.loc["ct14"]
    twelve = list(claim.differences)[:12]
    assert sum(value > 0 for value in twelve) == 11 and claim.verdict == "holds" and claim.look == 12
    assert "Eleven of twelve agree, and the verdict is *holds*." in text
    six = verdicts.verdict(twelve[:6])
    assert sum(value > 0 for value in twelve[:6]) == 5 and six.low < 0
    assert six.verdict == "undecided" and f"five of those six agreed, their mean was {six.mean:.1f} points" in text
    assert round(64 * verdicts.sign_flip_p(twelve[:6])) == 12 and "12 of the 64 patterns" in text
    assert f"4,096 patterns, and p = {verdicts.sign_flip_p(twelve):.3f}" in text
    open_one = board.loc["ct07"]
    assert open_one.verdict == "undecided" and round(open_one.difference, 1) == 1.0 and open_one.n == 12
    assert "`ct07` a mean of one point that not even twelve pairs decide" in text


def test_what_is_said_of_the_oracle_that_was_recorded_twice():
    """Every score that the mended truth does not enter is the same; its gains are those that 05 and README state."""
    table = sweeps.recorded("05_pose_attention", superseded=True)
    table = table[~table["study"].str.endswith(".ablations")]
    first, second = table[table["superseded"] != ""], table[table["superseded"] == ""]
    assert first["superseded"].str.startswith("recorded before the truth of a pose was saved and reduced").all()
    both = first.merge(second, on=["study", "seed", "device", "metric", "rule"], validate="one_to_one")
    assert (
        len(first) == len(second) == len(both) == 1980 and both.groupby("study")["seed"].nunique().tolist() == [6] * 4
    )
    touched = both["metric"].str.contains("oracle|^constructed/|^throughput/")
    assert (both["value_x"] == both["value_y"])[~touched].all() and (both["value_x"] != both["value_y"])[touched].any()

    def gain(rows, study):
        rows = paper_tables.rows_of(rows[rows["study"] == f"05_pose_attention.{study}"])
        setting = "T2|dukemtmc|SL|" if study == "dukemtmc" else "T1|market1501|SL|"
        pairs = paper_tables.pairs_of(rows, (f"{setting}oracle", f"{setting}real only"), "mAP")
        return verdicts.verdict((pairs["value a"] - pairs["value b"]).tolist())

    cells = nbformat.read(REPOSITORY / "notebooks" / "05_pose_attention.ipynb", as_version=4).cells
    (text,) = [" ".join(cell.source.split()) for cell in cells if "*What was found.*" in cell.source]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    here, there, start_2 = (gain(second, study) for study in ("tables", "dukemtmc", "second_start"))
    assert [v.verdict for v in (here, there, start_2)] == ["undecided", "holds", "undecided"]
    said = f"stand {here.mean:.1f} points of mAP above the photographs alone (undecided; {start_2.mean:.1f} from the"
    assert f"{said} second start) and {there.mean:.1f} on DukeMTMC-reID (holds)" in text
    old = [gain(first, study).mean for study in ("tables", "dukemtmc")]
    assert "from {:.1f} and {:.1f} points".format(*old) + f" of mAP to {here.mean:.1f} and {there.mean:.1f}." in text
    assert f"worth {there.mean:.1f} points of mAP on DukeMTMC-reID (holds); their {here.mean:.1f} on Market" in readme
    assert f"and the oracle adds {start_2.mean:.1f} (undecided)" in readme
    at_128 = sweeps.recorded("05_pose_attention").query("metric.str.contains('oracle .128x64./mINP')")
    assert len(at_128) == 4 and "At 128x64 two of its six pairs are from before" in text
