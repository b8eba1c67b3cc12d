"""`reidlib run`: notebooks one after another, going on after a failure, and an index of them to read."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reidlib.checks import reading_inputs
from reidlib.course.jobs import NOTEBOOKS, Job, find_notebooks, plan
from reidlib.course.runner import Outcome, execute, say
from reidlib.course.settings import PROFILES, ParameterError, UnreadableNotebook, read_parameters
from reidlib.files import resolve
from reidlib.tools.index import write_index


def announce(jobs: Sequence[Job], *, force: bool = False) -> str:
    """Say before the start how many notebooks will run and how long that took on two CPU cores."""
    pending = [job for job in jobs if force or not job.is_done()]
    times = [job.noted_seconds for job in pending]
    known = [seconds for seconds in times if seconds is not None]
    words = f"{len(pending)} of {len(jobs)} notebooks to run"
    if known:
        seconds = sum(known)
        words += f": about {seconds / 60:.0f} min on two CPU cores" if seconds >= 60 else f": about {seconds:.0f} s"
        words += f" (and {times.count(None)} of unknown length)" if None in times else ""
    rendered = [job.values.get("data_root", "data") for job in pending if job.values.get("dataset") == "procedural"]
    has_data = all(any((resolve(root) / "procedural").glob("*")) for root in rendered)
    return words if has_data else f"{words}; the first run also renders the data set"


def _run_one(job: Job, head: str, force: bool) -> Outcome:
    """Run a job unless it is done already, and say what becomes of it."""
    if not force and job.is_done():
        say(f"{head}: already done with these parameters and this code (--force runs it again)")
        return Outcome(job, "skipped")
    say(f"{head}: running into {job.folder}")
    outcome = execute(job, force=force)
    ended = f"failed at {outcome.cell or 'the start'}: {outcome.error}" if outcome.error else "done"
    say(f"{head}: {ended} after {outcome.seconds:.0f} s")
    return outcome


def _failures(failed: Sequence[Outcome]) -> str:
    """Return a table of what failed and where."""
    rows = [(o.job.name, o.cell or "-", " ".join(o.error.split())[:100], str(o.job.executed)) for o in failed]
    rows = [("notebook", "cell", "error", "executed notebook"), *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib run`."""
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help='names, globs, files ("02*"); default: all')
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="a parameter of every notebook named, e.g. -p seed 3; --list shows them")  # fmt: skip
    parser.add_argument("--profile", choices=PROFILES, help="smoke: seconds; course: minutes; paper: for a GPU")
    parser.add_argument("--output-root", default="runs", help="where runs go (relative: from the repository)")
    parser.add_argument("--folder", default=str(NOTEBOOKS), help="where notebooks are looked for")
    parser.add_argument("--list", action="store_true", help="list the notebooks with their parameters and stop")
    parser.add_argument("--force", action="store_true", help="run again what is already done, from the start")
    parser.add_argument("--keep-going", action=argparse.BooleanOptionalAction, default=True, help="after a failure")


def run(options: argparse.Namespace) -> int:
    """Run notebooks and write their index; return 0 if all is well, 1 if one failed, 2 if a listed one is faulty."""
    with reading_inputs():
        given = {name: value.removeprefix(" ") for name, value in options.parameters}
        given |= {"profile": options.profile} if options.profile else {}
        notebooks = find_notebooks(options.notebooks, Path(options.folder))
        if options.list:
            return _list(notebooks)
        jobs = [plan(notebook, given, output_root=options.output_root) for notebook in notebooks]
    root = resolve(options.output_root)

    def index(waiting: Sequence[Job]) -> None:
        try:
            write_index(root, waiting)
        except OSError as error:
            print(f"the index could not be written: {error}", file=sys.stderr)

    say(announce(jobs, force=options.force))
    index(jobs)
    outcomes: list[Outcome] = []
    try:
        for number, job in enumerate(jobs, start=1):
            outcomes.append(_run_one(job, f"[{number}/{len(jobs)}] {job.name}", options.force))
            index(jobs[number:])
            if outcomes[-1].status == "failed" and not options.keep_going:
                break
    except KeyboardInterrupt:
        index([])
        raise
    print(f"results: {root / 'index.html'}")
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        print(f"\n{len(failed)} of {len(jobs)} notebooks failed:\n{_failures(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _list(notebooks: Sequence[Path]) -> int:
    """Print every notebook with its parameters; return 2 if one is faulty."""
    code = 0
    for notebook in notebooks:
        print(notebook.stem)
        try:
            for parameter in read_parameters(notebook).values():
                print(f"    {parameter.name}: {parameter.type} = {parameter.default!r}  # {parameter.help}")
        except (ParameterError, UnreadableNotebook) as error:
            code = 2
            print(f"    {error}")
    return code
