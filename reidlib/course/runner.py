"""A notebook through papermill, in its run's folder: executed copy, HTML, what became of it."""

import errno
import io
import logging
import os
import re
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from reidlib.course.jobs import Job
from reidlib.course.runs import FOLDER_VARIABLE, RESULTS, RESUME_VARIABLE, STATUS, write_json, write_text
from reidlib.course.settings import UnreadableNotebook
from reidlib.files import REPOSITORY, InUseError, locked
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


def execute(job: Job, *, force: bool = False, threads: int | None = None) -> Outcome:
    """Run one job into its folder: executed notebook, HTML, status.json; print a line now and then.

    A run that was interrupted, of the same code and parameters, finds its checkpoints again unless `force`. A folder
    where another runner works is left to it ("busy"), and a full disk is a failure like any other.

    Args:
        job: see `plan`.
        force: start afresh.
        threads: of torch in the notebook's kernel; default as many as it takes by itself.
    """
    started = time.monotonic()
    try:
        with locked(job.folder):
            return _execute(job, force, threads)
    except InUseError as error:
        return Outcome(job, "busy", error=str(error))
    except OSError as error:
        return Outcome(job, "failed", time.monotonic() - started, "", error_words(error, job.folder))


def _execute(job: Job, force: bool, threads: int | None) -> Outcome:
    from papermill.exceptions import PapermillExecutionError

    resume = not force and job.status().get("code") == job.code
    (job.folder / RESULTS).unlink(missing_ok=True)
    _write_status(job, status="running")
    started = time.monotonic()
    cell = error = export = ""
    lines = _Lines(job)
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
            say(f"  {job.name}: {export}")
    status = "failed" if error else "done"
    _write_status(job, status=status, seconds=seconds, cell=cell, error=error, export=export)
    return Outcome(job, status, seconds, cell, error)


def error_words(error: Exception, path: Path) -> str:
    """Say in words what stopped the work at `path`."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {path} could not be written; free some space and give the same command again"
    if type(error).__name__ == "DeadKernelError":  # nbclient's, which is slow to import
        return f"{error}: the system ended the notebook's process, most often because memory ran out (`dmesg` says so)"
    return str(error) if isinstance(error, UnreadableNotebook) else f"{type(error).__name__}: {error}"


def _write_status(job: Job, **facts: Any) -> None:
    text = "\n".join(cell.source for cell in job.content.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    known = {"title": heading[1] if heading else job.name, "code": job.code, "parameters": dict(job.values)}
    write_json(job.folder / STATUS, known | facts)


class _Lines(io.TextIOBase):
    """Progress for a terminal or a log: the cell, and the last line that the notebook printed."""

    def __init__(self, job: Job) -> None:
        self.name = job.name
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
            say(" · ".join(filter(None, parts)))


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
