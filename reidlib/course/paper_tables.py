"""The papers' printed results and claims (`data/paper_tables/`), and ours beside them.

A *row* of a paper's table is named `table|dataset|setting|method`, such as `T7|market1501|c5+G6|Model 4`; the
notebooks record theirs under the same names, with the rendered network of that name standing for the data set. Ours
come as a long table: `row`, `metric` (mAP, rank1, rank5, ... in percent), `seed`, `value`; and, where a recorded table
has them, `start` (the weights a re-ID network started from) and `generator` (the seed of a generator that several seeds
share).
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from reidlib.checks import check_choice
from reidlib.course import sweeps
from reidlib.course.verdicts import MARGIN, SECOND_START, Verdict, expected_false_holds, verdict, with_second_start
from reidlib.files import resolve

FOLDER = "data/paper_tables"
# the label G2 contradicts the text: cameras 5 and 6 cannot give camera 2, and only G3 and G5 had helped
MISPRINTS = {"T13|market1501|c5c6+G2|Model 1": "T13|market1501|c5c6+G5|Model 1"}
COLUMNS = ("row", "metric", "seed", "value")
OPTIONAL = ("start", "generator")
# methods of others that we built: a rival that stays below its own baseline makes a claim about it not testable
RIVALS = {
    "T1|market1501|single_query|Basel.+LSRO": "T1|market1501|single_query|ResNet-50-A",
    "T3|dukemtmc|SL|Basel. +LSRO": "T3|dukemtmc|SL|ResNet-50-A (SL)",
}
NOT_TESTABLE = "not testable"
BOARD = ("claim", "row a", "row b", "metric", "paper a", "paper b", "direction", "ours a", "ours b", "n", "look",
         "difference", "low", "high", "p", "verdict", "mAP", "second start", "reason", "differences")  # fmt: skip


def printed(paper: str) -> pd.DataFrame:
    """Return what a paper prints: columns row, table, dataset, setting, method, metric, value.

    A misprinted row goes by its corrected name (`MISPRINTS`).

    Raises:
        ValueError: for a paper that the tables do not hold.

    >>> table = printed("camera_transfer")
    >>> table[(table.row == "T7|market1501|c5+G6|Model 4") & (table.metric == "mAP")].value.item()
    20.7
    """
    return _results(paper).drop(columns="is_ours")


def _results(paper: str) -> pd.DataFrame:
    """Return what a paper prints, and in the column `is_ours` whether a method is its own."""
    table = pd.read_csv(resolve(FOLDER) / "results.csv")
    check_choice("paper", paper, sorted(set(table.paper)))
    table = table[table.paper == paper].drop(columns=["paper", "note"]).reset_index(drop=True)
    row = table.table + "|" + table.dataset + "|" + table.setting + "|" + table.method
    table.insert(0, "row", row.replace(MISPRINTS))
    return table


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
    out = out.join(metrics[[name for name in OPTIONAL if name in metrics]]).dropna(subset=list(COLUMNS))
    keys = [name for name in ("row", "metric", "seed", "start") if name in out]
    return out.drop_duplicates(keys, keep="last").reset_index(drop=True)


def side_by_side(
    ours: pd.DataFrame, paper: str, table: str | None = None, metrics: Iterable[str] = ("mAP", "rank1")
) -> pd.DataFrame:
    """Put a paper's tables and ours beside each other: a line a row of ours, "paper" and "ours" a metric.

    Ours is the mean over the seeds of one start (`sweeps.one_start`), with the standard deviation where there are
    several; rows the paper does not print (controls, say) have an empty "paper" column, and "seeds" tells rows of one
    seed from means. `table` picks one, such as "T7"; default all that ours has rows of.
    """
    _check(ours)
    paper_values = printed(paper).set_index(["row", "metric"]).value
    mine = ours if table is None else ours[ours.row.str.startswith(f"{table}|")]
    lines = {}
    # tables in their order, T2a before T2b before T10, and each one's rows as they came
    for row in sorted(mine.row.unique(), key=lambda row: (int(re.search(r"\d+", row)[0]), row.partition("|")[0])):
        chosen = sweeps.one_start(mine[mine.row == row])
        line = lines[tuple(row.split("|"))] = {"seeds": chosen.seed.nunique()}
        if "start" in chosen:
            line["start"] = chosen.start.fillna("").iloc[0]
        for metric in metrics:
            values = chosen[chosen.metric == metric].value
            line[f"{metric} paper"] = paper_values.get((row, metric), float("nan"))
            line[f"{metric} ours"] = mean_text(values) if len(values) else ""
    index = pd.MultiIndex.from_tuples(list(lines), names=["table", "data set", "setting", "method"])
    return pd.DataFrame(list(lines.values()), index=index)


def mean_text(values: Iterable[float], digits: int = 1) -> str:
    """Write values as "mean ± standard deviation", or as one number.

    >>> mean_text([1.0, 3.0]), mean_text([2.0]), mean_text([0.25, 0.5], 3)
    ('2.0 ± 1.4', '2.0', '0.375 ± 0.177')
    """
    values = pd.Series(list(values), dtype=float)
    mean, spread = (f"{number:.{digits}f}" for number in (values.mean(), values.std()))
    return f"{mean} ± {spread}" if len(values) > 1 else mean


def check_claims(ours: pd.DataFrame, paper: str) -> pd.DataFrame:
    """Hold a paper's directional claims against ours: what do the paired differences decide (`verdicts.verdict`)?

    A pair is two values of equal seed and start, one of each arm. Pairs from the second start, "recorded-2", are judged
    by themselves: a verdict that they turn from holds to reversed or back is undecided. A claim is "not testable" where
    the rival is a method of other authors that we did not build, or stays more than 1 point below its own baseline
    (`RIVALS`) here. Claims about our rows that have no pair yet are left out.

    Args:
        ours: long table (see this module's head).
        paper: whose claims.

    Returns:
        a line a claim: claim, row a, row b, metric, paper a, paper b, direction, ours a, ours b (means over all pairs),
        n (pairs, or generators), look (how many of them the next ones rest on), difference, low, high (points, as
        claimed), p, verdict, mAP (the mAP's difference), second start (its verdict), reason (why not testable),
        differences.

    >>> values = {"T7|market1501|c5|Baseline": 8.0, "T7|market1501|c5+G6|Model 4": 10.5}
    >>> lines = [(row, "mAP", seed, value + seed % 2) for row, value in values.items() for seed in range(6)]
    >>> board = check_claims(pd.DataFrame(lines, columns=["row", "metric", "seed", "value"]), "camera_transfer")
    >>> board[["n", "difference", "verdict"]].values.tolist()
    [[6, 2.5, 'holds']]
    """
    _check(ours)
    claims, results = pd.read_csv(resolve(FOLDER) / "claims.csv"), _results(paper)
    own = set(results.row[results.is_ours]) | set(RIVALS)
    lines = []
    for claim in claims[claims.paper == paper].itertuples():
        names = [MISPRINTS.get(name, name) for name in claim.comparison.split(" vs ")]
        pairs = pairs_of(ours, names, claim.metric)
        foreign = [name for name in names if name not in own]
        if pairs.empty and not foreign:
            continue
        lines.append({
            "id": claim.id, "claim": claim.claim, "row a": names[0], "row b": names[1], "metric": claim.metric,
            "paper a": claim.paper_value_a, "paper b": claim.paper_value_b, "direction": claim.direction,
            "ours a": sweeps.one_start(pairs)["value a"].mean(), "ours b": sweeps.one_start(pairs)["value b"].mean(),
            **_judged(pairs, pairs_of(ours, names, "mAP"), claim.direction),
        })  # fmt: skip
        reasons = [f"{name.rpartition('|')[2]}: a method of other authors" for name in foreign if pairs.empty]
        reasons += [_failing(ours, name, claim.metric) for name in names if name in RIVALS]
        lines[-1]["reason"] = "; ".join(filter(None, reasons))
        if lines[-1]["reason"]:
            lines[-1]["verdict"] = NOT_TESTABLE
    return pd.DataFrame(lines, columns=["id", *BOARD]).set_index("id")


def against(
    ours: pd.DataFrame, base_of: Callable[[str], str], metrics: Iterable[str] = ("rank1", "mAP")
) -> pd.DataFrame:
    """Judge each row's gain over a row of ours that it is compared with, where no printed claim names the two.

    Args:
        ours: long table (see this module's head).
        base_of: the name of the row that a row is compared with; a row that is its own base is left out.

    Returns:
        a line a row and metric: n, difference, low, high, verdict, as of `check_claims`; where there are pairs from
        the second start, its verdict too.

    >>> lines = [(row, "mAP", seed, 20 + (row == "a") + seed % 2) for row in "ab" for seed in range(6)]
    >>> against(pd.DataFrame(lines, columns=["row", "metric", "seed", "value"]), lambda row: "b").values.tolist()
    [[6, 1.0, 1.0, 1.0, 'holds']]
    """
    lines = {}
    for row, metric in itertools.product(ours.row.unique(), metrics):
        pairs = pairs_of(ours, (row, base_of(row)), metric)
        if row != base_of(row) and len(pairs):
            lines[row, metric] = _judged(pairs, pairs, "a>b")
    columns = ["n", "difference", "low", "high", "verdict", "second start"]
    found = pd.DataFrame(lines).T.reindex(columns=columns).infer_objects()
    return found if found["second start"].any() else found.drop(columns="second start")


def pairs_of(ours: pd.DataFrame, names: Sequence[str], metric: str) -> pd.DataFrame:
    """Return the pairs of two rows in the order of their seeds: seed, start, generator, value a, value b.

    Args:
        ours: long table (see this module's head).
        names: of the two rows; a value of one whose seed and start the other lacks has no pair.
        metric: mAP, rank1, ...

    >>> lines = [("a", "mAP", 0, 3.0), ("b", "mAP", 0, 2.0), ("b", "mAP", 1, 5.0)]
    >>> pairs = pairs_of(pd.DataFrame(lines, columns=["row", "metric", "seed", "value"]), ("a", "b"), "mAP")
    >>> pairs[["seed", "value a", "value b"]].values.tolist()
    [[0.0, 3.0, 2.0]]
    """
    ours = ours.assign(start=ours.start.fillna("") if "start" in ours else "")
    ours = ours.assign(generator=ours.generator if "generator" in ours else pd.NA)
    chosen = (ours[(ours.row == name) & (ours.metric == metric)] for name in names)
    a, b = (arm.drop_duplicates(["seed", "start"], keep="last").drop(columns=["row", "metric"]) for arm in chosen)
    pairs = a.merge(b, on=["seed", "start"], suffixes=(" a", " b"))
    of_either = pairs.pop("generator a").astype(object).combine_first(pairs.pop("generator b").astype(object))
    return pairs.assign(generator=of_either.fillna(pairs.seed)).sort_values("seed", ignore_index=True)


def _decide(pairs: pd.DataFrame, direction: str) -> Verdict | None:
    """Return the verdict on the pairs of one start; None without a pair."""
    sign = -1 if direction == "a<b" else 1
    differences = sign * (pairs["value a"] - pairs["value b"])
    shared = pairs.generator.nunique() < len(pairs)
    return verdict(differences, direction=direction, groups=pairs.generator if shared else None) if len(pairs) else None


def _judged(pairs: pd.DataFrame, of_map: pd.DataFrame, direction: str) -> dict[str, object]:
    """Return what pairs decide, as columns of the board; `of_map`: the same pairs' mAP."""
    first, beside = _decide(sweeps.one_start(pairs), direction), _decide(sweeps.one_start(of_map), direction)
    if first is None:
        return {"n": 0, "look": 0, "verdict": "", "second start": "", "differences": ()}
    second = _decide(pairs[pairs.start == SECOND_START], direction)
    if second and (sweeps.one_start(pairs).start != SECOND_START).all():
        first = with_second_start(first, second)
    return {
        "n": first.n, "look": first.look, "difference": first.mean, "low": first.low, "high": first.high,
        "p": first.p, "verdict": first.verdict, "mAP": beside.mean if beside else float("nan"),
        "second start": second.verdict if second else "", "differences": first.differences,
    }  # fmt: skip


def _failing(ours: pd.DataFrame, rival: str, metric: str) -> str:
    """Say how far a rival stays below its own baseline; empty where it reaches it."""
    pairs = sweeps.one_start(pairs_of(ours, (rival, RIVALS[rival]), metric))
    method, baseline = (name.rpartition("|")[2] for name in (rival, RIVALS[rival]))
    if pairs.empty:
        return f"{method}: not recorded beside its baseline, {baseline}"
    short = (pairs["value b"] - pairs["value a"]).mean()
    return f"{method}: {short:.1f} below its own baseline, {baseline} (n = {len(pairs)})" if short > MARGIN else ""


def readable(board: pd.DataFrame) -> pd.DataFrame:
    """Return the board of `check_claims` to read: difference with its interval, rounded, no column that is empty.

    >>> board = check_claims(pd.DataFrame(columns=list(COLUMNS)), "dg_net")
    >>> readable(board)[["n", "verdict"]].values.tolist()
    [['0', 'not testable'], ['0', 'not testable']]
    """
    shown = board[["claim", "metric"]].copy()
    shown["n"] = [f"{b.look} of {b.n}" if b.n > b.look else f"{b.n}" for b in board.itertuples()]
    numbers = board[["difference", "low", "high"]].astype(float).values.tolist()
    shown["difference"] = ["" if pd.isna(d) else f"{d:+.1f} {_ends(*ends)}" for d, *ends in numbers]
    shown["p"] = ["" if pd.isna(p) else f"{p:.3f}" for p in board.p]
    shown["verdict"] = board.verdict
    shown["mAP"] = ["" if pd.isna(d) else f"{d:+.1f}" for d in board["mAP"]]
    shown["second start"] = board["second start"]
    return shown if shown["second start"].any() else shown.drop(columns="second start")


def _ends(low: float, high: float) -> str:
    return f"[{low:+.1f}, {high:+.1f}]" if math.isfinite(high) else "(one pair)"


def summary(board: pd.DataFrame) -> str:
    """Count the verdicts of a board in words: the undecided share, what chance alone would give, what is not testable.

    >>> print(summary(check_claims(pd.DataFrame(columns=list(COLUMNS)), "dg_net")))
    0 claims tested
    not testable dg07: PCB: a method of other authors
    not testable dg08: Mancs: a method of other authors
    """
    tested = board[board.verdict != NOT_TESTABLE]
    counts = [f"{number} {words}" for words, number in tested.verdict.value_counts().items()]
    lines = [": ".join([f"{len(tested)} claims tested", *([", ".join(counts)] if counts else [])])]
    if len(tested):
        undecided = tested.verdict.str.startswith("undecided").mean()
        strict = tested[tested.direction != "a>=b"]  # one that says "at least" should hold without an effect
        lines.append(f"undecided: {undecided:.0%}; if no claim had an effect, chance alone would let at most "
                     f"{expected_false_holds(strict.n):.2f} of the {len(strict)} strict ones hold")  # fmt: skip
    return "\n".join(lines + [f"{NOT_TESTABLE} {b.Index}: {b.reason}" for b in board.itertuples() if b.reason])


def _check(ours: pd.DataFrame) -> None:
    missing = [name for name in COLUMNS if name not in ours]
    if missing:
        raise ValueError(f"our results need the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}")
