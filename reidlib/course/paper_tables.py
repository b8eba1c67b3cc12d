"""The papers' printed results and claims (`data/paper_tables/`), and ours beside them.

A *row* of a paper's table is named `table|dataset|setting|method`, such as `T7|market1501|c5+G6|Model 4`; the
notebooks record theirs under the same names, with the rendered network of that name standing for the data set. Ours
come as a long table: `row`, `metric` (mAP, rank1, rank5, ... in percent), `seed`, `value`.
"""

import argparse
import re
from collections.abc import Iterable, Mapping

import pandas as pd

from reidlib.checks import check_choice, reading_inputs
from reidlib.course import sweeps
from reidlib.files import resolve

FOLDER = "data/paper_tables"
DIRECTIONS = {"a>b": lambda a, b: a > b, "a<b": lambda a, b: a < b, "a>=b": lambda a, b: a >= b}
# the label G2 contradicts the text: cameras 5 and 6 cannot give camera 2, and only G3 and G5 had helped
MISPRINTS = {"T13|market1501|c5c6+G2|Model 1": "T13|market1501|c5c6+G5|Model 1"}
COLUMNS = ("row", "metric", "seed", "value")


def printed(paper: str) -> pd.DataFrame:
    """Return what a paper prints: columns row, table, dataset, setting, method, metric, value.

    A misprinted row goes by its corrected name (`MISPRINTS`).

    Raises:
        ValueError: for a paper that the tables do not hold.

    >>> table = printed("camera_transfer")
    >>> table[(table.row == "T7|market1501|c5+G6|Model 4") & (table.metric == "mAP")].value.item()
    20.7
    """
    table = pd.read_csv(resolve(FOLDER) / "results.csv")
    check_choice("paper", paper, sorted(set(table.paper)))
    table = table[table.paper == paper].drop(columns=["paper", "is_ours", "note"])
    table["value"] = pd.to_numeric(table.value, errors="coerce")
    table.insert(0, "row", table.table + "|" + table.dataset + "|" + table.setting + "|" + table.method)
    table["row"] = table.row.replace(MISPRINTS)
    return table.reset_index(drop=True)


def rows_of(metrics: pd.DataFrame | Mapping[str, Mapping], seed: int = 0) -> pd.DataFrame:
    """Pick the rows of paper tables out of recorded metrics, as our long table in percent.

    Args:
        metrics: `sweeps.recorded(...)`, or a run's `values`; names such as "T7|market1501|c5+G6|Model 4/rank-1" and
            ".../mAP (plain AP)" are taken, every other one is left out, and so is the trapezoid rule.
        seed: of a run's values; a recorded table brings its own.

    >>> rows_of({"T7|market1501|c5|Baseline/mAP (plain AP)": {"value": 0.25}, "other": {"value": 1.0}}).values.tolist()
    [['T7|market1501|c5|Baseline', 'mAP', 0, 25.0]]
    """
    if isinstance(metrics, Mapping):
        lines = [(name, entry["value"], seed) for name, entry in metrics.items()]
        metrics = pd.DataFrame(lines, columns=["metric", "value", "seed"])
    found = metrics.metric.str.extract(r"^(?P<row>T\w+(?:\|[^|/]+){3})/(?:(?P<map>mAP \(plain)|rank-(?P<rank>\d+))")
    metric = ("rank" + found["rank"]).where(found["map"].isna(), "mAP")
    out = pd.DataFrame({"row": found.row, "metric": metric, "seed": metrics.seed, "value": 100 * metrics.value})
    return out.dropna().drop_duplicates(["row", "metric", "seed"], keep="last").reset_index(drop=True)


def side_by_side(
    ours: pd.DataFrame, paper: str, table: str | None = None, metrics: Iterable[str] = ("mAP", "rank1")
) -> pd.DataFrame:
    """Put a paper's tables and ours beside each other: a line a row of ours, "paper" and "ours" a metric.

    Ours is the mean over seeds, with the standard deviation where there are several; rows the paper does not print
    (controls, say) have an empty "paper" column, and "seeds" tells rows of one seed from means. `table` picks
    one, such as "T7"; default all that ours has rows of.
    """
    _check(ours)
    paper_values = printed(paper).set_index(["row", "metric"]).value
    mine = ours if table is None else ours[ours.row.str.startswith(f"{table}|")]
    lines = {}
    # tables in their order, T2a before T2b before T10, and each one's rows as they came
    for row in sorted(mine.row.unique(), key=lambda row: (int(re.search(r"\d+", row)[0]), row.partition("|")[0])):
        line = lines[tuple(row.split("|"))] = {"seeds": mine[mine.row == row].seed.nunique()}
        for metric in metrics:
            values = mine[(mine.row == row) & (mine.metric == metric)].value
            line[f"{metric} paper"] = paper_values.get((row, metric), float("nan"))
            line[f"{metric} ours"] = mean_text(values) if len(values) else ""
    names = ["table", "data set", "setting", "method"]
    index = pd.MultiIndex.from_tuples(list(lines), names=names) if lines else None
    return pd.DataFrame(list(lines.values()), index=index)


def mean_text(values: Iterable[float]) -> str:
    """Write values as "mean ± standard deviation", or as one number.

    >>> mean_text([1.0, 3.0]), mean_text([2.0])
    ('2.0 ± 1.4', '2.0')
    """
    values = pd.Series(list(values), dtype=float)
    return f"{values.mean():.1f} ± {values.std():.1f}" if len(values) > 1 else f"{values.mean():.1f}"


def check_claims(ours: pd.DataFrame, paper: str) -> pd.DataFrame:
    """Hold a paper's directional claims against ours: does a beat b here too, and in how many seeds?

    A claim is "reproduced" where every seed agrees with its direction, "not reproduced" where no seed does, and
    "undecided" where seeds differ: a difference smaller than the luck of training decides nothing. With one seed the
    verdict says so. Claims about rows we did not run (other authors' methods) are left out.

    Args:
        ours: long table (see this module's head).
        paper: whose claims.

    Returns:
        a line a claim: claim, metric, paper a, paper b, direction, ours a, ours b, seeds (agreeing of all), verdict.

    >>> lines = [("T7|market1501|c5|Baseline", "mAP", 0, 8.0), ("T7|market1501|c5+G6|Model 4", "mAP", 0, 9.0)]
    >>> ours = pd.DataFrame(lines, columns=["row", "metric", "seed", "value"])
    >>> check_claims(ours, "camera_transfer")[["seeds", "verdict"]].values.tolist()
    [['1 of 1', 'reproduced (one seed)']]
    """
    _check(ours)
    claims = pd.read_csv(resolve(FOLDER) / "claims.csv")
    lines = []
    for claim in claims[claims.paper == paper].itertuples():
        a, b = (_values(ours, name, claim.metric) for name in claim.comparison.split(" vs "))
        seeds = sorted(set(a.index) & set(b.index))
        if not seeds:
            continue
        agreeing = sum(DIRECTIONS[claim.direction](a[seed], b[seed]) for seed in seeds)
        verdict = {len(seeds): "reproduced", 0: "not reproduced"}.get(agreeing, "undecided")
        lines.append({
            "id": claim.id, "claim": claim.claim, "metric": claim.metric,
            "paper a": claim.paper_value_a, "paper b": claim.paper_value_b, "direction": claim.direction,
            "ours a": a[seeds].mean(), "ours b": b[seeds].mean(), "seeds": f"{agreeing} of {len(seeds)}",
            "verdict": verdict + (" (one seed)" if len(seeds) == 1 else ""),
        })  # fmt: skip
    return pd.DataFrame(lines).set_index("id") if lines else pd.DataFrame()


def _values(ours: pd.DataFrame, row: str, metric: str) -> pd.Series:
    """Return the values of one row and metric by seed."""
    row = row.strip()
    chosen = ours[(ours.row == MISPRINTS.get(row, row)) & (ours.metric == metric)]
    return chosen.drop_duplicates("seed").set_index("seed").value


def _check(ours: pd.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in ours]
    if missing:
        raise ValueError(f"our results need the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib claims`."""
    parser.add_argument("paper", nargs="*", help="such as camera_transfer; default all that have a recorded table")


def run(options: argparse.Namespace) -> int:
    """Print each paper's claims beside what is recorded in the table of its notebook, `NN_<paper>.csv`."""
    tables = {path.stem.partition("_")[2]: path.stem for path in sorted((sweeps.NOTEBOOKS / "recorded").glob("*.csv"))}
    papers = [name for name in tables if name in set(pd.read_csv(resolve(FOLDER) / "claims.csv").paper)]
    with reading_inputs():
        for paper in options.paper:
            check_choice("paper", paper, papers)
        ours = {paper: rows_of(sweeps.recorded(tables[paper])) for paper in options.paper or papers}
    for paper, rows in ours.items():
        board = check_claims(rows, paper)
        counts = ", ".join(f"{number} {verdict}" for verdict, number in board.verdict.value_counts().items())
        print(f"{paper} (recorded in {tables[paper]}): {counts}")
        print(board.drop(columns=["paper a", "paper b", "direction"]).round(1).to_string(max_colwidth=90))
    return 0
