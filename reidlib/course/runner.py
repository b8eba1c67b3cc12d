"""`reidlib run`: notebooks through papermill, one after another, each in its run's folder, going on after a failure."""

import argparse
import errno
import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from reidlib.checks import reading_inputs
from reidlib.course.index import write_index
from reidlib.course.jobs import NOTEBOOKS, Job, find_notebooks, plan
from reidlib.course.runs import FOLDER_VARIABLE, RESULTS, RESUME_VARIABLE, STATUS, write_json, write_text
from reidlib.course.settings import PROFILES, ParameterError, UnreadableNotebook, read_parameters
from reidlib.files import REPOSITORY, InUseError, locked, resolve
from reidlib.machine import SECONDS_BETWEEN_LINES

say = partial(print, flush=True)


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    status: str  # "done", "failed", "skipped", "busy"
    seconds: float = 0.0
    cell: str = ""  # which cell failed: its number in the executed notebook, and the heading above it
    error: str = ""


def execute(job: Job, *, show: Callable[[str], None] = say, force: bool = False, threads: int | None = None) -> Outcome:
    """Run one job into its folder: executed notebook, HTML, status.json; `show` gets a line now and then.

    A run that was interrupted, of the same code and parameters, finds its checkpoints again unless `force`. A folder
    where another runner works is left to it ("busy"), and a full disk is a failure like any other.

    Args:
        job: see `plan`.
        show: gets a line now and then.
        force: start afresh.
        threads: of torch in the notebook's kernel; default as many as it takes by itself.
    """
    started = time.monotonic()
    try:
        with locked(job.folder):
            return _execute(job, show, force, threads)
    except InUseError as error:
        return Outcome(job, "busy", error=str(error))
    except OSError as error:
        return Outcome(job, "failed", time.monotonic() - started, "", error_words(error, job.folder))


def _execute(job: Job, show: Callable[[str], None], force: bool, threads: int | None) -> Outcome:
    from papermill.exceptions import PapermillExecutionError

    resume = not force and job.status().get("code") == job.code
    (job.folder / RESULTS).unlink(missing_ok=True)
    _write_status(job, status="running")
    started = time.monotonic()
    cell = error = export = ""
    lines = _Lines(job, show)
    try:
        if job.problem:
            raise UnreadableNotebook(job.problem)
        _papermill(job, lines, resume, threads)
        if not (job.folder / RESULTS).is_file():
            cell, error = "the end", "the notebook ended without run.finish(): there is no results.json"
    except PapermillExecutionError as failure:
        cell = " ".join(filter(None, [f"In [{failure.exec_count}]", lines.heading]))
        error = f"{failure.ename}: {failure.evalue}"
    except KeyboardInterrupt:
        _write_status(job, status="stopped", seconds=time.monotonic() - started)
        raise
    except Exception as failure:  # a dead kernel, a notebook that is no notebook: the next one may still run
        cell, error = lines.heading, error_words(failure, job.folder)
    seconds = time.monotonic() - started
    if job.executed.is_file():
        try:
            from reidlib.course.export import to_html  # nbconvert takes a second to import

            write_text(job.executed.with_suffix(".html"), to_html(job.executed))
        except Exception as failure:  # its numbers are recorded all the same
            export = f"{job.executed.name} cannot be shown as HTML: {error_words(failure, job.folder)}"
            show(f"  {job.name}: {export}")
    status = "failed" if error else "done"
    _write_status(job, status=status, seconds=seconds, cell=cell, error=error, export=export)
    return Outcome(job, status, seconds, cell, error)


def error_words(error: Exception, path: Path) -> str:
    """Say in words what stopped the work at `path`."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {path} could not be written; free some space and give the same command again"
    return str(error) if isinstance(error, UnreadableNotebook) else f"{type(error).__name__}: {error}"


def _write_status(job: Job, **facts: Any) -> None:
    text = "\n".join(cell.source for cell in job.content.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    known = {"title": heading[1] if heading else job.name, "code": job.code, "parameters": dict(job.values)}
    write_json(job.folder / STATUS, known | facts)


class _Lines(io.TextIOBase):
    """Progress for a terminal or a log: the cell, and the last line that the notebook printed."""

    def __init__(self, job: Job, show: Callable[[str], None]) -> None:
        self.name, self.show = job.name, show
        self.cells = len(job.content.cells) + bool(job.given)  # papermill adds one for the parameters
        self.started = self.last = time.monotonic()
        self.cell, self.heading, self.printed = "", "", ""

    def on_cell(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Note that a cell starts."""
        headings = re.findall(r"^#+\s+(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        self.heading = headings[-1] if headings else self.heading
        self.cell, self.printed = f"cell {cell_index + 1} of {self.cells}", ""
        self.write("")

    def write(self, text: str) -> None:
        """Take what the notebook prints (papermill's stdout_file), and show a line if the last one is old enough."""
        self.printed = text.strip().rpartition("\n")[2] or self.printed
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            parts = [f"  {self.name}", self.cell, f"{now - self.started:.0f} s", self.heading, self.printed[:80]]
            self.show(" · ".join(filter(None, parts)))


def _papermill(job: Job, lines: _Lines, resume: bool, threads: int | None) -> None:
    import papermill
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    environment = {FOLDER_VARIABLE: str(job.folder), RESUME_VARIABLE: "1" if resume else "0"}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))

    class ThisPython(AsyncKernelManager):
        """A kernel of the very interpreter that runs this, whatever kernels are installed."""

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python", env=environment)

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it calls parameters unknown whose types it cannot read
    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (job.notebook, job.executed))
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in job.given.items()}
    papermill.execute_notebook(
        source, target, given, kernel_name="python3", language="python", cwd=str(job.notebook.parent),
        progress_bar=False, stdout_file=lines, kernel_manager_class=ThisPython, autosave_cell_every=30,
        on_cell_start=lines.on_cell,
    )  # fmt: skip


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
