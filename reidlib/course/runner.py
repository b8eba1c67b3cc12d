"""Running notebooks: through papermill, one after another, each in its run's own folder, going on after a failure."""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import torch

from reidlib.course.parameters import Parameter, ParameterError, check_names, check_value, parse_value, read_parameters
from reidlib.course.runs import FOLDER_VARIABLE, NOT_NUMBERS, RESULTS, RESUME_VARIABLE, run_id
from reidlib.files import REPOSITORY, atomic_path, resolve

NOTEBOOKS = REPOSITORY / "notebooks"
STATUS = "status.json"
SECONDS_BETWEEN_LINES = 5.0


def find_notebooks(patterns: Sequence[str] = (), folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the notebooks that `patterns` name, sorted: files, globs, or patterns of names in `folder` ("02*").

    Raises FileNotFoundError naming the pattern without a match and the notebooks there are.
    """
    there = sorted(folder.glob("*.ipynb"))
    if not patterns:
        return there
    found: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern).expanduser()
        matches = [path.absolute()] if path.is_file() else []
        if not matches and path.name != pattern:  # it names a folder
            matches = [match.absolute() for match in path.parent.glob(path.name) if match.suffix == ".ipynb"]
        matches = matches or [
            match
            for match in there
            if match.match(pattern) or match.stem.startswith(f"{pattern}_") or match.stem == pattern
        ]
        if not matches:
            names = ", ".join(match.stem for match in there) or "none"
            raise FileNotFoundError(f"no notebook matches {pattern!r}; in {folder} there are: {names}")
        found |= set(matches)
    return sorted(found)


@dataclass(frozen=True)
class Job:
    """A notebook, and the parameters to hand to it."""

    notebook: Path
    given: Mapping[str, Any]  # handed to papermill
    values: Mapping[str, Any]  # with the cell's defaults
    output_root: Path

    @property
    def name(self) -> str:
        """The notebook's name without .ipynb."""
        return self.notebook.stem

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.output_root / self.name / run_id(self.values)

    @property
    def executed(self) -> Path:
        """The executed copy."""
        return self.folder / self.notebook.name

    @property
    def measured_seconds(self) -> float | None:
        """Seconds that this profile took on two CPU cores, as noted in the notebook's metadata; None if unknown."""
        notes = nbformat.read(self.notebook, as_version=4).metadata.get("reidlib", {})
        return notes.get("seconds_on_two_cores", {}).get(self.values.get("profile"))

    @cached_property
    def code(self) -> str:
        """Hash of everything that decides the numbers: the notebook's cells, reidlib's sources, torch, parameters."""
        digest = hashlib.sha256()
        for cell in nbformat.read(self.notebook, as_version=4).cells:
            digest.update(f"{cell.cell_type}\0{cell.source}\0".encode())
        for path in sorted((REPOSITORY / "reidlib").rglob("*.py")):
            digest.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0" + path.read_bytes())
        kept = {name: value for name, value in self.values.items() if name not in NOT_NUMBERS}
        digest.update(json.dumps([torch.__version__, kept], sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def status(self) -> dict[str, Any]:
        """Return what the runner last wrote of this run; empty where it never ran."""
        try:
            return json.loads((self.folder / STATUS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def is_done(self) -> bool:
        """Say whether this very code with these parameters has already run to its end."""
        status = self.status()
        done = status.get("status") == "done" and status.get("code") == self.code
        return done and (self.folder / RESULTS).is_file() and self.executed.is_file()


def plan(
    notebook: Path, given: Mapping[str, Any], *, output_root: str | os.PathLike = "runs", typed: bool = False
) -> Job:
    """Check parameters against the notebook's cell and return the job.

    `given` holds a command line's words, or values where `typed`. A relative `output_root` counts from the repository.
    Raises ParameterError for a name or a value that does not fit.
    """
    parameters: dict[str, Parameter] = read_parameters(notebook)
    check_names(parameters, given, notebook.name)
    convert = check_value if typed else (lambda parameter, value: parse_value(parameter, str(value)))
    try:
        values = {name: convert(parameters[name], value) for name, value in given.items()}
    except ParameterError as error:
        raise ParameterError(f"{notebook.name}: {error}") from error
    root = resolve(output_root)
    if "output_root" in given:
        raise ParameterError(f"{notebook.name}: output_root is no choice of one run here; use --output-root")
    if "output_root" in parameters:
        values["output_root"] = str(root)
    return Job(notebook, values, {p.name: p.default for p in parameters.values()} | values, root)


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    status: str  # "done", "failed", "skipped"
    seconds: float = 0.0
    cell: str = ""  # which cell failed: its number in the executed notebook, and the heading above it
    error: str = ""


def execute(job: Job, *, show: Callable[[str], None] = print, force: bool = False) -> Outcome:
    """Run one job into its folder: executed notebook, HTML, status.json; `show` gets a line now and then.

    A run that was interrupted, of the same code and parameters, finds its checkpoints again unless `force`.
    """
    from papermill.exceptions import PapermillExecutionError

    resume = not force and job.status().get("code") == job.code
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / RESULTS).unlink(missing_ok=True)
    _write_status(job, status="running")
    started = time.monotonic()
    cell = error = ""
    lines = _Lines(job.name, show)
    try:
        _papermill(job, lines, resume)
        if not (job.folder / RESULTS).is_file():
            cell, error = "the end", "the notebook ended without run.finish(): there is no results.json"
    except PapermillExecutionError as failure:
        cell = " ".join(filter(None, [f"In [{failure.exec_count}]", lines.heading]))
        error = f"{failure.ename}: {failure.evalue}"
    except KeyboardInterrupt:
        _write_status(job, status="interrupted", seconds=time.monotonic() - started)
        raise
    except Exception as failure:  # a dead kernel, a notebook that is no notebook: the next one may still run
        cell, error = lines.heading, f"{type(failure).__name__}: {failure}"
    seconds = time.monotonic() - started
    if job.executed.is_file():
        _to_html(job.executed)
    status = "failed" if error else "done"
    _write_status(job, status=status, seconds=seconds, cell=cell, error=error)
    return Outcome(job, status, seconds, cell, error)


def _write_status(job: Job, **facts: Any) -> None:
    nb = nbformat.read(job.notebook, as_version=4)
    headings = re.findall(
        r"^#\s+(.+)$", "\n".join(c.source for c in nb.cells if c.cell_type == "markdown"), re.MULTILINE
    )
    facts = {"title": headings[0] if headings else job.name, "code": job.code, "parameters": dict(job.values), **facts}
    with atomic_path(job.folder / STATUS) as temporary:
        temporary.write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")


class _Lines:
    """Progress for a terminal or a log: the cell, and the last line that the notebook printed."""

    def __init__(self, name: str, show: Callable[[str], None]) -> None:
        self.name, self.show = name, show
        self.started = self.last = time.monotonic()
        self.cell, self.heading, self.printed = "", "", ""

    def on_cell(self, index: int, cells: Sequence[Any]) -> None:
        """Note that cell `index` starts."""
        cell = cells[index]
        headings = re.findall(r"^#+\s+(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        self.heading = headings[-1] if headings else self.heading
        self.cell, self.printed = f"cell {index + 1} of {len(cells)}", ""
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


def _papermill(job: Job, lines: _Lines, resume: bool) -> None:
    import papermill
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from papermill.engines import NBClientEngine, papermill_engines

    environment = {FOLDER_VARIABLE: str(job.folder), RESUME_VARIABLE: "1" if resume else "0"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))

    class ThisPython(AsyncKernelManager):
        """A kernel of the very interpreter that runs this, whatever kernels are installed."""

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python", env=environment)

    class Engine(NBClientEngine):
        """papermill's own engine, telling which cell starts."""

        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
            start = nb_man.cell_start

            def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> Any:
                lines.on_cell(cell_index or 0, nb_man.nb.cells)
                return start(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("reidlib", Engine)
    papermill.execute_notebook(
        str(job.notebook), str(job.executed), dict(job.given), engine_name="reidlib", kernel_name="python3",
        language="python", cwd=str(job.notebook.parent), progress_bar=False, stdout_file=lines,
        kernel_manager_class=ThisPython, autosave_cell_every=30,
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
