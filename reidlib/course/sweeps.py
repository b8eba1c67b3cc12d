"""Studies: many parameter sets of one notebook, over as many sittings as it takes, recorded row by row.

A study is a file beside its notebook, `notebooks/<notebook>.<study>.json`:

    {
      "about": "thesis Table 5: two losses, six pairs",
      "base": {"profile": "course"},
      "sets": [{"loss": "softmax"}, {"loss": "lsr"}],
      "grid": {"seed": "0..5"},
      "threads": 1,
      "minutes": 20
    }

Every set is combined with every point of the grid over the base (here twelve runs); `sets` or `grid` may be left out,
"0..5" stands for the numbers 0 to 5; `minutes` says how long a run takes as long as none is recorded. All runs of one
seed, a pair of every comparison, come before those of the next, so a study that is stopped has whole pairs; more pairs
are a longer range, "0..11". `reidlib sweep <notebook>.<study>` runs those that are not recorded yet, each kernel with
the study's number of threads (default one) so that a repeat gives the same numbers, and appends each as it finishes: a
row a metric to `notebooks/recorded/<notebook>.csv`, its parameters, commit, device, threads and time once to
`<notebook>.runs.json` beside it. Rows are never taken out: one that no longer counts gets its reason in the column
`superseded`. Several sweeps of one notebook share the work.
"""

import itertools
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reidlib.checks import some
from reidlib.course.jobs import NOTEBOOKS, Job, plan
from reidlib.course.runner import Outcome, error_words, execute
from reidlib.course.runs import RESULTS, write_text
from reidlib.course.settings import Parameter, ParameterError, read_value
from reidlib.course.verdicts import SECOND_START
from reidlib.files import atomic_path, locked

FIELDS = ("about", "base", "sets", "grid", "threads", "minutes")
COLUMNS = ("run", "metric", "value", "rule", "superseded")
FACTS = ("study", "finished", "commit", "profile", "dataset", "image_size", "seed", "device", "threads", "seconds")
NOT_RECORDED = ("output_root", "data_root", "device")  # where it ran; the row names the real device itself

Table = tuple[pd.DataFrame, dict[str, dict[str, Any]]]  # rows, and each run's facts by its name


@dataclass(frozen=True)
class Study:
    """A study file, read and checked."""

    name: str
    notebook: Path
    sets: list[dict[str, Any]]
    threads: int = 1  # of each run's kernel: sums come out otherwise with another number of them
    minutes: float | None = None  # that a run takes, as noted by who wrote the study

    @property
    def table(self) -> Path:
        """Where its runs are recorded."""
        return table_path(self.notebook, self.notebook.parent)

    def jobs(self, output_root: str | os.PathLike) -> list[Job]:
        """Return its runs, every parameter checked against the notebook's cell.

        Raises ValueError where recorded runs had another number of threads, naming one, its threads and the study's.
        """
        jobs = [plan(self.notebook, values, output_root=output_root, typed=True) for values in self.sets]
        table = read_table(self.table)
        for job in jobs:
            threads = {table[1][run]["threads"]: run for run in recorded_runs(job, table)}
            if threads and self.threads not in threads:
                other, run = next(iter(threads.items()))
                said = f"{self.name} runs with threads = {self.threads}, but {run} was recorded with {other}"
                raise ValueError(f'{said}: numbers do not mix; write "threads": {other} into the study')
        return jobs


def read_study(study: str | os.PathLike, folder: Path = NOTEBOOKS) -> Study:
    """Read a study by its file, its name `<notebook>.<study>`, or `<study>` alone where that is unique.

    Raises FileNotFoundError naming the studies there are, and ValueError for a file that is no study.
    """
    there = sorted(path for path in folder.glob("*.*.json") if _notebook_of(path).is_file())
    path = Path(study)
    if not path.is_file():
        named = [p for p in there if str(study) in (p.stem, p.stem.partition(".")[2], p.name)]
        if len(named) != 1:
            known = ", ".join(p.stem for p in there) or "none"
            problem = "several studies are called" if named else "no study is called"
            raise FileNotFoundError(f"{problem} {str(study)!r}; in {folder} there are: {known}")
        path = named[0]
    notebook = _notebook_of(path.absolute())
    if not notebook.is_file():
        raise FileNotFoundError(f"{path.name} is the study of {notebook.name}, which is not beside it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        threads, minutes = content.get("threads", 1), content.get("minutes")
        if type(threads) is not int or threads < 1:
            raise ValueError(f"threads must be a number from 1 on, got {threads!r}")
        if minutes is not None and not (type(minutes) in (int, float) and 0 < minutes < math.inf):
            raise ValueError(f"minutes must be a number above 0, got {minutes!r}")
        return Study(path.stem, notebook, _expand(content), threads, minutes)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no study: {error}") from error


def _notebook_of(study_file: Path) -> Path:
    return study_file.with_name(study_file.name.partition(".")[0] + ".ipynb")


def _expand(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every set over the base with every point of the grid, seed by seed; refuse unknown fields and doubles."""
    unknown = sorted(set(content) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown field {', '.join(unknown)}; it may hold {', '.join(FIELDS)}")
    grid = {name: _range(values) for name, values in content.get("grid", {}).items()}
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"grid {name!r} must be a list of values or a range such as '0..5', got {values!r}")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    sets = [{**content.get("base", {}), **one, **point} for one in content.get("sets", [{}]) for point in points]
    texts = [json.dumps(values, sort_keys=True) for values in sets]
    doubles = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
    if doubles:
        raise ValueError(f"the same set stands twice: {doubles[0]}")
    if not sets:
        raise ValueError("it names no parameter set")
    whole = all(isinstance(values.get("seed", 0), int) for values in sets)  # what is no seed is refused by its notebook
    return sorted(sets, key=lambda values: values.get("seed", 0)) if whole else sets


def _range(values: Any) -> Any:
    """Write a range such as "0..5" out; anything else stays as it is."""
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", values) if isinstance(values, str) else None
    return list(range(int(ends[1]), int(ends[2]) + 1)) if ends else values


def table_path(notebook: str | os.PathLike, folder: Path = NOTEBOOKS) -> Path:
    """Return the recorded table of a notebook: `<folder>/recorded/<notebook>.csv`."""
    return folder / "recorded" / f"{Path(notebook).name.removesuffix('.ipynb')}.csv"


def read_table(path: Path) -> Table:
    """Read a recorded table as it stands: its rows, and the facts and parameters of each run by its name.

    Raises ValueError for a file of another form and for rows whose run is unknown.
    """
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS)), {}
    rows = pd.read_csv(path, keep_default_na=False)
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise ValueError(f"{path} is no recorded table: it lacks the columns {', '.join(missing)}")
    if not isinstance(rows.index, pd.RangeIndex):
        raise ValueError(f"{path}: its first row has more fields than columns; a reason with a comma needs quotes")
    runs_file = runs_path(path)
    runs = json.loads(runs_file.read_text(encoding="utf-8")) if runs_file.is_file() else {}
    unknown = sorted(set(rows["run"]) - set(runs))
    if unknown:
        raise ValueError(f"{runs_file} lacks the run {some(unknown)} of {path.name}")
    return rows, runs


def runs_path(path: Path) -> Path:
    """Return the file of a recorded table's runs: `<notebook>.runs.json` beside it."""
    return path.with_suffix(".runs.json")


def recorded(notebook: str | os.PathLike, folder: Path = NOTEBOOKS, *, superseded: bool = False) -> pd.DataFrame:
    """Return what studies of a notebook have recorded: a row a metric, every fact and parameter of its run a column.

    Rows that no longer count are left out, unless `superseded`; a column of that name then gives their reasons.
    """
    rows, runs = read_table(table_path(notebook, folder))
    if not superseded:
        rows = rows[rows["superseded"] == ""].drop(columns="superseded").reset_index(drop=True)
    facts = pd.DataFrame([{name: runs[run][name] for name in FACTS} for run in rows["run"]], columns=list(FACTS))
    parameters = pd.DataFrame([runs[run]["parameters"] for run in rows["run"]], index=rows.index)
    new = parameters[[name for name in parameters if name not in (*rows, *FACTS)]]
    parts = [facts[["study"]], rows[["run"]], facts.drop(columns="study"), rows.drop(columns="run"), new]
    return pd.concat(parts, axis=1)


def means(rows: pd.DataFrame, pattern: str) -> pd.DataFrame:
    r"""Return the means of those recorded rows whose metric fits a pattern of two named groups: its lines and columns.

    >>> rows = pd.DataFrame({"metric": ["judge/a/FID", "judge/a/FID", "judge/b/FID"], "value": [1.0, 3.0, 5.0]})
    >>> means(rows, r"^judge/(?P<row>\w+)/(?P<what>.+)$")["FID"].to_dict()
    {'a': 2.0, 'b': 5.0}
    """
    names = rows["metric"].str.extract(pattern)
    fitting = rows.join(names).dropna(subset=names.columns)
    return fitting.pivot_table("value", *names.columns, sort=False)


def to_show(table: pd.DataFrame, study: str) -> pd.DataFrame | None:
    """Return a table of recorded rows, or None where it is empty; then the command that records them is printed.

    >>> to_show(pd.DataFrame(), "02_reid_baseline.seeds")
    not recorded yet with the present test people: `reidlib sweep 02_reid_baseline.seeds`
    """
    if len(table):
        return table
    print(f"not recorded yet with the present test people: `reidlib sweep {study}`")
    return None


def one_start(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of one start, so that no mean mixes two: of the one with most rows, never the second start's.

    >>> rows_of_two = pd.DataFrame({"start": ["recorded", "recorded-2", "recorded-2"], "value": [1.0, 2.0, 3.0]})
    >>> one_start(rows_of_two).value.tolist()
    [1.0]
    """
    if "start" not in rows:
        return rows
    starts = rows.start.fillna("")
    first = starts[starts != SECOND_START]
    return rows[starts == (first.mode().iloc[0] if len(first) else SECOND_START)]


def mean_and_spread(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return mean, standard deviation and number of seeds of every metric for each value of the columns `by`."""
    groups = table.groupby([*by, "metric", "rule"], dropna=False, sort=False)["value"]
    return groups.agg(mean="mean", spread="std", runs="count").reset_index()


def recorded_runs(job: Job, table: Table) -> list[str]:
    """Return the runs of these parameters of which rows still count.

    A parameter that the notebook has got since counts as recorded with its present default, one that it has no more is
    passed over where all recorded runs had the same value, and words are compared by the notebook's present types.
    """
    rows, runs = table
    counting = {run: runs[run]["parameters"] for run in rows.loc[rows["superseded"] == "", "run"].unique()}
    found = []
    for run, theirs in counting.items():
        gone = set(theirs) - set(_kept(job.values))
        fixed = all(other.get(name) == theirs[name] for name in gone for other in counting.values())
        if fixed and not differing(job, theirs):
            found.append(run)
    return found


def differing(job: Job, theirs: Mapping[str, Any]) -> list[str]:
    """Return the parameters in which a recorded run was another than a job, and those given that it had not got yet."""
    mine = _kept(job.values)
    shared = [name for name in mine if name in theirs and not _same(job.parameters[name], theirs[name], mine[name])]
    return shared + [name for name in mine if name not in theirs and name in job.given]


def _same(parameter: Parameter, theirs: Any, mine: Any) -> bool:
    try:
        return read_value(parameter, theirs) == read_value(parameter, mine)
    except ParameterError:
        return False


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in sorted(values) if name not in NOT_RECORDED}


def append(job: Job, study: str, path: Path) -> int:
    """Append a finished run's metrics to the recorded table, all or none; return how many there are.

    Nothing is appended (0) where another sweep has recorded the run meanwhile.

    Raises ValueError for a run without metrics.
    """
    results = _results(job)
    if not results["metrics"]:
        raise ValueError(f"{job.folder / RESULTS} has no metric to record")
    values = {**job.values, **results["parameters"], **results, "study": study}
    facts = {name: values.get(name, "") for name in FACTS} | {"parameters": _kept(job.values)}
    with locked(path, wait=True):
        rows, runs = table = read_table(path)
        if recorded_runs(job, table):
            return 0
        names = (f"{job.folder.name}{'' if n == 1 else f'.{n}'}" for n in itertools.count(1))
        name = next(name for name in names if name not in set(rows["run"]))  # a repeat is a run of its own
        new = pd.DataFrame([{"run": name, "superseded": "", "metric": m, **e} for m, e in results["metrics"].items()])
        write_text(runs_path(path), json.dumps(runs | {name: facts}, indent=1, default=str) + "\n")
        old = path.read_bytes() if path.is_file() else b""
        old += b"" if old.endswith(b"\n") or not old else b"\n"  # somebody's editor has left it out
        new = new.reindex(columns=list(rows), fill_value="")  # in the table's own order
        text = new.to_csv(header=not old, index=False, lineterminator="\n")
        with atomic_path(path) as temporary:
            temporary.write_bytes(old + text.encode())
    return len(new)


def _results(job: Job) -> dict[str, Any]:
    return json.loads((job.folder / RESULTS).read_text(encoding="utf-8"))


def _lacks_its_row(job: Job, study: Study) -> bool:
    """Say whether a run was killed between its end and its row: it is done as the study asks, and in no row yet."""
    if not job.is_done():
        return False
    (rows, runs), results = read_table(study.table), _results(job)
    mine = {runs[run]["finished"] for run in rows["run"].unique() if run.startswith(job.folder.name)}  # superseded, too
    return results["threads"] == study.threads and results["finished"] not in mine


def run_study(
    study: Study,
    *,
    output_root: str | os.PathLike = "runs/studies",
    deadline: float = math.inf,
    dry_run: bool = False,
    keep_going: bool = True,
) -> Iterator[tuple[Job, str, str]]:
    """Run what is not recorded yet; yield (job, state, words) for each.

    States: "recorded", "missing" (in a dry run), "done", "failed", "busy" (another sweep runs it), "left".
    `deadline`: no run is started after this time of `time.monotonic`; those are "left" for another sitting.
    Raises ValueError for a study whose recorded runs had another number of threads.
    """
    path, stopped = study.table, False
    for job in study.jobs(output_root):
        if recorded_runs(job, read_table(path)):
            yield job, "recorded", ""
        elif dry_run:
            yield job, "missing", ""
        elif stopped or time.monotonic() >= deadline:
            yield job, "left", ""
        else:  # one whose rows are superseded begins anew
            again = dict(threads=study.threads, force=job.is_done())
            outcome = Outcome(job, "done") if _lacks_its_row(job, study) else execute(job, **again)
            words = f"{outcome.cell}: {outcome.error} ({job.executed})"
            if not outcome.error:
                try:
                    words = f"{append(job, study.name, path)} metrics to {path}"
                except (OSError, ValueError) as error:
                    outcome, words = Outcome(job, "failed"), error_words(error, path)
            stopped = outcome.status == "failed" and not keep_going
            yield job, outcome.status, words
