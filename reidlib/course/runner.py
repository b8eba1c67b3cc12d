"""`reidlib run`: notebooks through papermill, one after another, each in its run's folder, going on after a failure."""

import argparse
import errno
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from reidlib.course.index import write_index
from reidlib.course.jobs import NOTEBOOKS, STATUS, Job, find_notebooks, plan
from reidlib.course.runs import FOLDER_VARIABLE, RESULTS, RESUME_VARIABLE
from reidlib.course.settings import PROFILES, ParameterError, UnreadableNotebook, read_parameters
from reidlib.files import REPOSITORY, InUseError, atomic_path, locked, resolve

SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    status: str  # "done", "failed", "skipped", "busy"
    seconds: float = 0.0
    cell: str = ""  # which cell failed: its number in the executed notebook, and the heading above it
    error: str = ""


def execute(
    job: Job, *, show: Callable[[str], None] = print, force: bool = False, threads: int | None = None
) -> Outcome:
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
        return Outcome(job, "failed", time.monotonic() - started, "", _words(error, job))


def _execute(job: Job, show: Callable[[str], None], force: bool, threads: int | None) -> Outcome:
    from papermill.exceptions import PapermillExecutionError

    resume = not force and job.status().get("code") == job.code
    job.folder.mkdir(parents=True, exist_ok=True)
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
        cell, error = lines.heading, _words(failure, job)
    seconds = time.monotonic() - started
    if job.executed.is_file():
        try:
            _to_html(job.executed)
        except Exception as failure:  # its numbers are recorded all the same
            export = f"{job.executed.name} cannot be shown as HTML: {_words(failure, job)}"
            show(f"  {job.name}: {export}")
    status = "failed" if error else "done"
    _write_status(job, status=status, seconds=seconds, cell=cell, error=error, export=export)
    return Outcome(job, status, seconds, cell, error)


def _words(error: Exception, job: Job) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {job.folder} could not be written; free some space and give the same command again"
    return str(error) if isinstance(error, UnreadableNotebook) else f"{type(error).__name__}: {error}"


def _write_status(job: Job, **facts: Any) -> None:
    headings = re.findall(
        r"^#\s+(.+)$", "\n".join(c.source for c in job.content.cells if c.cell_type == "markdown"), re.MULTILINE
    )
    facts = {"title": headings[0] if headings else job.name, "code": job.code, "parameters": dict(job.values), **facts}
    with atomic_path(job.folder / STATUS) as temporary:
        temporary.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")


class _Lines:
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
        self.tell()

    def write(self, text: str) -> None:
        """Take what the notebook prints (papermill's stdout_file)."""
        lines = [line for line in text.splitlines() if line.strip()]
        self.printed = lines[-1] if lines else self.printed
        self.tell()

    def flush(self) -> None:
        """Nothing is held back."""

    def tell(self) -> None:
        """Show a line, if the last one is old enough."""
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            parts = [f"  {self.name}", self.cell, f"{now - self.started:.0f} s", self.heading, self.printed[:80]]
            self.show(" · ".join(part for part in parts if part))


def _papermill(job: Job, lines: _Lines, resume: bool, threads: int | None) -> None:
    import papermill
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    environment = {FOLDER_VARIABLE: str(job.folder), RESUME_VARIABLE: "1" if resume else "0"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
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


def _to_html(executed: Path) -> None:
    """Write the executed notebook as one HTML file, pictures inside."""
    from nbconvert import HTMLExporter

    # nothing that waits for a network before the page shows: no require.js, formulas typeset when MathJax arrives
    body, _ = HTMLExporter(require_js_url="data:text/javascript,").from_filename(str(executed))
    body = re.sub(r'<script src="(?=[^"]*mathjax)', '<script async src="', body)
    with atomic_path(executed.with_suffix(".html")) as temporary:
        temporary.write_text(body, encoding="utf-8")


def announce(jobs: Sequence[Job], *, force: bool = False) -> str:
    """Say before the start how many notebooks will run and how long that took on two CPU cores."""
    pending = [job for job in jobs if force or not job.is_done()]
    seconds = [job.measured_seconds for job in pending]
    words = f"{len(pending)} of {len(jobs)} notebooks to run"
    if not pending:
        return words
    known = sum(value for value in seconds if value is not None)
    unknown = seconds.count(None)
    if unknown < len(pending):
        words += (
            f": about {max(1, round(known / 60))} min on two CPU cores" if known >= 60 else f": about {known:.0f} s"
        )
        words += f" (and {unknown} of unknown length)" if unknown else ""
    return words + ("; the first run also renders the data set" if not _has_data(pending) else "")


def _has_data(jobs: Sequence[Job]) -> bool:
    """Say whether rendered data lies where these jobs look for it, or they want none."""
    roots = {resolve(job.values.get("data_root", "data")) for job in jobs if job.values.get("dataset") == "procedural"}
    return all(any((root / "procedural").glob("*")) for root in roots)


def run_all(
    jobs: Sequence[Job],
    *,
    force: bool = False,
    keep_going: bool = True,
    show: Callable[[str], None] = print,
    after_each: Callable[[list[Outcome], Sequence[Job]], None] = lambda outcomes, waiting: None,
) -> list[Outcome]:
    """Run `jobs` one after another, skipping what is done; `after_each` gets the outcomes so far and what waits."""
    outcomes: list[Outcome] = []
    for number, job in enumerate(jobs, start=1):
        head = f"[{number}/{len(jobs)}] {job.name}"
        if not force and job.is_done():
            show(f"{head}: already done with these parameters and this code (--force runs it again)")
            outcomes.append(Outcome(job, "skipped"))
        else:
            show(f"{head}: running into {job.folder}")
            outcomes.append(outcome := execute(job, show=show, force=force))
            ended = f"failed at {outcome.cell or 'the start'}: {outcome.error}" if outcome.error else "done"
            show(f"{head}: {ended} after {outcome.seconds:.0f} s")
        after_each(outcomes, jobs[number:])
        if outcomes[-1].status == "failed" and not keep_going:
            break
    return outcomes


def failures(outcomes: Sequence[Outcome]) -> str:
    """Return a table of what failed and where; empty if nothing did."""
    rows = [
        (o.job.name, o.cell or "-", " ".join(o.error.split())[:100], str(o.job.executed)) for o in outcomes if o.error
    ]
    if not rows:
        return ""
    rows = [("notebook", "cell", "error", "executed notebook"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib run`."""
    parser.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help='names, globs or files ("02*"); all by default'
    )
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="a parameter of every notebook named, e.g. -p seed 3; --list shows them")  # fmt: skip
    parser.add_argument("--profile", choices=PROFILES, help="smoke: seconds; course: minutes; paper: for a GPU")
    parser.add_argument("--output-root", default="runs", help="where runs go (relative: from the repository)")
    parser.add_argument("--folder", default=str(NOTEBOOKS), help="where notebooks are looked for")
    parser.add_argument("--list", action="store_true", help="list the notebooks with their parameters and stop")
    parser.add_argument("--force", action="store_true", help="run again what is already done, from the start")
    parser.add_argument("--keep-going", action=argparse.BooleanOptionalAction, default=True,
                        help="go on after a failure (the default)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run notebooks and write their index; return 0 if all is well, 1 if one failed, 2 if a listed one is faulty."""
    given = {name: value.removeprefix(" ") for name, value in options.parameters}
    if options.profile:
        given["profile"] = options.profile
    notebooks = find_notebooks(options.notebooks, Path(options.folder))
    if not notebooks:
        raise FileNotFoundError(f"there are no notebooks in {options.folder}")
    if options.list:
        return _list(notebooks)
    jobs = [plan(notebook, given, output_root=options.output_root) for notebook in notebooks]
    root = resolve(options.output_root)

    def show(line: str) -> None:
        print(line, flush=True)

    def index(outcomes: Sequence[Outcome], waiting: Sequence[Job]) -> None:
        try:
            write_index(root, waiting)
        except OSError as error:
            print(f"the index could not be written: {error}", file=sys.stderr)

    show(announce(jobs, force=options.force))
    index([], jobs)
    try:
        outcomes = run_all(jobs, force=options.force, keep_going=options.keep_going, show=show, after_each=index)
    except KeyboardInterrupt:
        index([], [])
        raise
    print(f"results: {root / 'index.html'}")
    table = failures(outcomes)
    if table:
        print(f"\n{sum(bool(o.error) for o in outcomes)} of {len(jobs)} notebooks failed:\n{table}", file=sys.stderr)
    return 1 if table else 0


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
