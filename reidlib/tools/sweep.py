"""`reidlib sweep`: run what studies have not recorded yet, or say how long that takes."""

import argparse
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reidlib.checks import reading_inputs
from reidlib.course.jobs import NOTEBOOKS, Job
from reidlib.course.sweeps import Study, Table, differing, read_study, read_table, recorded_runs, run_study

PAIR = ("seed", "start")  # parameters that do not change how long a run takes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib sweep`."""
    parser.add_argument("study", nargs="+", metavar="STUDY", help="<notebook>.<study>, <study>, or a file")
    parser.add_argument(
        "--dry-run", action="store_true", help="list what is missing and how long it takes; run nothing"
    )
    parser.add_argument("--limit-minutes", type=float, default=math.inf, help="start no run after so many minutes")
    parser.add_argument("--output-root", default="runs/studies", help="where runs go (relative: from the repository)")
    parser.add_argument("--folder", default=str(NOTEBOOKS), help="where notebooks and studies are looked for")
    parser.add_argument("--keep-going", action=argparse.BooleanOptionalAction, default=True, help="after a failure")


def run(options: argparse.Namespace) -> int:
    """Run studies; return 0 if nothing failed, else 1. Every parameter is checked before anything runs."""
    with reading_inputs():
        studies = [read_study(name, Path(options.folder)) for name in options.study]
        for study in studies:
            study.jobs(options.output_root)
    counts: Counter[str] = Counter()
    how = {"dry_run": options.dry_run, "keep_going": options.keep_going}
    deadline = time.monotonic() + options.limit_minutes * 60
    for study in studies:
        steps = run_study(study, output_root=options.output_root, deadline=deadline, **how)
        table, times = read_table(study.table), {"recorded": [], "missing": []}
        for number, (job, state, words) in enumerate(steps, start=1):
            if options.dry_run:
                seconds, words = how_long(job, table, study.minutes)
                words = words.format(f"{seconds / 60:.1f} min")
                times[state].append(seconds)
            given = " ".join(f"{name}={value}" for name, value in job.given.items() if name != "output_root")
            line = f"[{study.name} {number}/{len(study.sets)}] {given}: {state}"
            print(f"{line} · {words}" if words else line, flush=True)
            counts[state] += 1
        if options.dry_run:
            print(_budget(study, **times))
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 1 if counts["failed"] else 0


def _budget(study: Study, recorded: Sequence[float], missing: Sequence[float]) -> str:
    """Add up in words what a study's recorded runs took and its missing ones will take, in seconds."""
    known = [seconds for seconds in missing if not math.isnan(seconds)]
    words = f"{study.name}: {len(study.sets)} runs, threads = {study.threads}"
    words += f"; {len(recorded)} recorded in {sum(recorded) / 60:.0f} min"
    words += f", {len(missing)} missing: about {sum(known) / 60:.0f} min" if missing else ", none missing"
    return words + (f" and {len(missing) - len(known)} of unknown length" if len(known) < len(missing) else "")


def how_long(job: Job, table: Table, minutes: float | None = None) -> tuple[float, str]:
    """Return how many seconds a run took, or will probably take, and in words with "{}" for the time what that is from.

    A run that is not recorded takes as long as recorded ones of the same parameters but the seed; where there are none,
    the study's `minutes`, else as long as recorded ones that are most like it; where none of its profile is recorded,
    the time noted in the notebook; not a number where there is none.
    """
    runs = table[1]
    if mine := recorded_runs(job, table):
        return float(runs[mine[-1]]["seconds"]), f"took {{}} ({mine[-1]})"
    alike = [run for run, facts in runs.items() if facts["profile"] == job.values.get("profile")]
    unlike = {run: [name for name in differing(job, runs[run]["parameters"]) if name not in PAIR] for run in alike}
    if minutes and all(unlike.values()):
        return 60 * minutes, "about {}, as the study notes"
    if unlike:
        nearest = min(reversed(unlike.values()), key=len)  # of equally near ones, the last recorded
        seconds = [float(runs[run]["seconds"]) for run, names in unlike.items() if names == nearest]
        words = f"about {{}}, as {len(seconds)} recorded run{'s' if len(seconds) > 1 else ''} took"
        return sum(seconds) / len(seconds), words + (f" with another {', '.join(nearest)}" if nearest else "")
    noted = job.noted_seconds
    return (noted, "about {}, as the notebook notes for two cores") if noted else (math.nan, "nobody knows how long")
