"""Studies: many parameter sets of one notebook, over as many sittings as it takes, recorded row by row.

A study is a file beside its notebook, `notebooks/<notebook>.<study>.json`:

    {
      "about": "thesis Table 5: four losses, three seeds",
      "base": {"profile": "course"},
      "sets": [{"loss": "softmax"}, {"loss": "lsr"}],
      "grid": {"seed": [0, 1, 2]}
    }

Every set is combined with every point of the grid over the base (here six runs); `sets` or `grid` may be left out.
`python -m reidlib.course.sweeps <notebook>.<study>` runs those that are not recorded yet and appends each to
`notebooks/recorded/<notebook>.csv` as it finishes: a row a metric. One sweep of a notebook at a time.
"""

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reidlib.course.parameters import ParameterError
from reidlib.course.runner import NOTEBOOKS, Job, execute, plan
from reidlib.course.runs import RESULTS
from reidlib.files import atomic_path

FIELDS = ("about", "base", "sets", "grid")
COLUMNS = ("study", "run", "finished", "commit", "profile", "dataset", "image_size", "seed", "device", "seconds",
           "metric", "value", "rule", "parameters")  # fmt: skip
NOT_RECORDED = ("output_root", "data_root", "device")  # where it ran; the row names the real device itself


@dataclass(frozen=True)
class Study:
    """A study file, read and checked."""

    name: str
    notebook: Path
    about: str
    sets: list[dict[str, Any]]

    def jobs(self, output_root: str | os.PathLike) -> list[Job]:
        """Return its runs, every parameter checked against the notebook's cell."""
        return [plan(self.notebook, values, output_root=output_root, typed=True) for values in self.sets]


def read_study(study: str | os.PathLike, folder: Path = NOTEBOOKS) -> Study:
    """Read a study by its file, its name `<notebook>.<study>`, or `<study>` alone where that is unique.

    Raises FileNotFoundError naming the studies there are, and ValueError for a file that is no study.
    """
    there = sorted(path for path in folder.glob("*.*.json") if path.with_name(_notebook_name(path)).is_file())
    path = Path(study)
    if not path.is_file():
        named = [p for p in there if str(study) in (p.stem, p.stem.partition(".")[2], p.name)]
        if len(named) != 1:
            known = ", ".join(p.stem for p in there) or "none"
            problem = "several studies are called" if named else "no study is called"
            raise FileNotFoundError(f"{problem} {str(study)!r}; in {folder} there are: {known}")
        path = named[0]
    notebook = path.absolute().with_name(_notebook_name(path))
    if not notebook.is_file():
        raise FileNotFoundError(f"{path.name} is the study of {notebook.name}, which is not beside it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sets = _expand(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no study: {error}") from error
    return Study(path.stem, notebook, content.get("about", ""), sets)


def _notebook_name(study_file: Path) -> str:
    return study_file.name.partition(".")[0] + ".ipynb"


def _expand(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every set over the base with every point of the grid; refuse unknown fields and doubles."""
    unknown = sorted(set(content) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown field {', '.join(unknown)}; it may hold {', '.join(FIELDS)}")
    grid = content.get("grid", {})
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"grid {name!r} must be a list of values, got {values!r}")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    base = content.get("base", {})
    sets = [{**base, **one, **point} for one in content.get("sets", [{}]) for point in points]
    texts = [_text(values) for values in sets]
    doubles = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
    if doubles:
        raise ValueError(f"the same set stands twice: {doubles[0]}")
    if not sets:
        raise ValueError("it names no parameter set")
    return sets


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True, default=str)


def table_path(notebook: str | os.PathLike, folder: Path = NOTEBOOKS) -> Path:
    """Return the recorded table of a notebook: `<folder>/recorded/<notebook>.csv`."""
    return folder / "recorded" / f"{Path(notebook).name.removesuffix('.ipynb')}.csv"


def read_table(path: Path) -> pd.DataFrame:
    """Read a recorded table as it stands in the file; without rows where there is none."""
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.read_csv(path, keep_default_na=False, na_values={"seconds": [""]})
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(f"{path} is no recorded table: it lacks the columns {', '.join(missing)}")
    return table


def recorded(notebook: str | os.PathLike, folder: Path = NOTEBOOKS) -> pd.DataFrame:
    """Return what studies of a notebook have recorded, a row a metric, every parameter as a column of its own."""
    table = read_table(table_path(notebook, folder))
    parameters = pd.DataFrame([json.loads(text) for text in table["parameters"]], index=table.index)
    new = parameters[[name for name in parameters if name not in table]]
    return pd.concat([table.drop(columns="parameters"), new], axis=1)


def mean_and_spread(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return mean, standard deviation and number of seeds of every metric for each value of the columns `by`."""
    groups = table.groupby([*by, "metric", "rule"], dropna=False, sort=False)["value"]
    return groups.agg(mean="mean", spread="std", runs="count").reset_index()


def is_recorded(job: Job, table: pd.DataFrame) -> bool:
    """Say whether the table has a run of these parameters.

    A parameter that the notebook has got since counts as recorded with its present default.
    """
    defaults = {name: value for name, value in job.values.items() if name not in job.given}
    mine = json.loads(_text(_kept(job.values)))
    for text in table["parameters"].unique():
        theirs = json.loads(text)
        later = {name: value for name, value in mine.items() if name not in theirs}
        if theirs == {n: v for n, v in mine.items() if n in theirs} and all(name in defaults for name in later):
            return True
    return False


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in NOT_RECORDED}


def append(job: Job, study: str, path: Path) -> int:
    """Append a finished run's metrics to the recorded table, all or none; return how many there are."""
    results = json.loads((job.folder / RESULTS).read_text(encoding="utf-8"))
    values = {**job.values, **results["parameters"]}
    common = {name: values.get(name, "") for name in ("profile", "dataset", "image_size", "seed")}
    common |= {name: results[name] for name in ("finished", "commit", "device", "seconds")}
    common |= {"study": study, "run": job.folder.name, "parameters": _text(_kept(job.values))}
    rows = [common | {"metric": name, **entry} for name, entry in results["metrics"].items()]
    old, new = read_table(path), pd.DataFrame(rows, columns=list(COLUMNS))
    with atomic_path(path) as temporary:
        (new if old.empty else pd.concat([old, new], ignore_index=True)).to_csv(temporary, index=False)
    return len(new)


def run_study(
    study: Study,
    *,
    output_root: str | os.PathLike = "runs/studies",
    limit_minutes: float | None = None,
    dry_run: bool = False,
    keep_going: bool = True,
) -> Iterator[tuple[Job, str, str]]:
    """Run what is not recorded yet; yield (job, "recorded" | "missing" | "done" | "failed" | "left", words) for each.

    `limit_minutes`: no run is started after so many minutes; those are "left" for another sitting.
    """
    path = table_path(study.notebook, study.notebook.parent)
    started, stopped = time.monotonic(), False
    for job in study.jobs(output_root):
        late = limit_minutes is not None and time.monotonic() - started >= limit_minutes * 60
        if is_recorded(job, read_table(path)):
            yield job, "recorded", ""
        elif dry_run:
            yield job, "missing", ""
        elif stopped or late:
            yield job, "left", ""
        else:
            if not job.is_done():  # else it was killed between its end and its row
                outcome = execute(job, show=lambda line: print(line, flush=True))
                if outcome.error:
                    stopped = not keep_going
                    yield job, "failed", f"{outcome.cell}: {outcome.error} ({job.executed})"
                    continue
            yield job, "done", f"{append(job, study.name, path)} metrics to {path}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if nothing failed, 1 if a run failed, 2 if the call was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m reidlib.course.sweeps",
        description="Run the parameter sets of a study that are not recorded yet.",
    )
    parser.add_argument("study", nargs="+", metavar="STUDY", help="<notebook>.<study>, <study>, or a file")
    parser.add_argument("--dry-run", action="store_true", help="list what is missing and run nothing")
    parser.add_argument("--limit-minutes", type=float, help="start no run after so many minutes")
    parser.add_argument("--output-root", default="runs/studies", help="where runs go (relative: from the repository)")
    parser.add_argument("--folder", default=str(NOTEBOOKS), help="where notebooks and studies are looked for")
    parser.add_argument("--keep-going", action=argparse.BooleanOptionalAction, default=True,
                        help="go on after a failure (the default)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        studies = [read_study(name, Path(options.folder)) for name in options.study]
        for study in studies:
            study.jobs(options.output_root)  # every parameter is checked before anything runs
    except (OSError, ValueError, ParameterError) as error:
        print(f"reidlib.course.sweeps: {error}", file=sys.stderr)
        return 2
    counts: dict[str, int] = {}
    deadline = None if options.limit_minutes is None else time.monotonic() + options.limit_minutes * 60
    try:
        for study in studies:
            left = None if deadline is None else (deadline - time.monotonic()) / 60
            steps = run_study(study, output_root=options.output_root, limit_minutes=left, dry_run=options.dry_run,
                              keep_going=options.keep_going)  # fmt: skip
            for number, (job, state, words) in enumerate(steps, start=1):
                given = " ".join(f"{name}={value}" for name, value in job.given.items() if name != "output_root")
                print(
                    f"[{study.name} {number}/{len(study.sets)}] {given}: {state}{' · ' + words if words else ''}",
                    flush=True,
                )
                counts[state] = counts.get(state, 0) + 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is not recorded", file=sys.stderr)
        return 130
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 1 if counts.get("failed") else 0


if __name__ == "__main__":
    raise SystemExit(main())
