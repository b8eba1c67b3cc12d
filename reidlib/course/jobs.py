"""Which notebooks to run, with which parameters, into which folder; what of it is done already."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import torch

from reidlib.course import settings
from reidlib.course.runs import RESULTS, STATUS, run_id
from reidlib.course.settings import Parameter, ParameterError, UnreadableNotebook
from reidlib.files import REPOSITORY, resolve

NOTEBOOKS = REPOSITORY / "notebooks"


def find_notebooks(patterns: Sequence[str] = (), folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the notebooks that `patterns` name, sorted: files, globs, or patterns of names in `folder` ("02*").

    Raises FileNotFoundError naming the pattern without a match and the notebooks there are.
    """
    there = sorted(folder.glob("*.ipynb"))
    found: set[Path] = set()
    for pattern in patterns or ["*"]:
        path = Path(pattern).expanduser()
        matches = [path] if path.is_file() else []
        if not matches and path.name != pattern:  # it names a folder
            matches = [match for match in path.parent.glob(path.name) if match.suffix == ".ipynb"]
        matches = matches or [p for p in there if any(p.match(pattern + end) for end in ("", ".ipynb", "_*"))]
        if not matches:
            names = ", ".join(match.stem for match in there) or "none"
            raise FileNotFoundError(f"no notebook matches {pattern!r}; in {folder} there are: {names}")
        found |= {match.absolute() for match in matches}
    return sorted(found)


@dataclass(frozen=True)
class Job:
    """A notebook, and the parameters to hand to it."""

    notebook: Path
    parameters: Mapping[str, Parameter]  # of its cell
    given: Mapping[str, Any]  # handed to papermill
    values: Mapping[str, Any]  # with the cell's defaults
    output_root: Path
    problem: str = ""  # why the notebook cannot be read

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

    @cached_property
    def content(self) -> nbformat.NotebookNode:
        """The notebook, without cells where it cannot be read."""
        return nbformat.v4.new_notebook() if self.problem else settings.read_notebook(self.notebook)

    @property
    def noted_seconds(self) -> float | None:
        """How long the notebook says that this profile takes on two CPU cores."""
        return self.content.metadata.get("reidlib", {}).get("seconds_on_two_cores", {}).get(self.values.get("profile"))

    @cached_property
    def code(self) -> str:
        """Hash of what decides the numbers beside the parameters: cells, reidlib's sources, recorded weights, torch."""
        digest = hashlib.sha256(torch.__version__.encode())
        for cell in self.content.cells:
            digest.update(f"{cell.cell_type}\0{cell.source}\0".encode())
        weights = REPOSITORY / "notebooks" / "weights"
        for path in sorted([*(REPOSITORY / "reidlib").rglob("*.py"), *weights.glob("*.safetensors")]):
            digest.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0" + path.read_bytes())
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


def plan(notebook: Path, given: Mapping, *, output_root: str | os.PathLike = "runs", typed: bool = False) -> Job:
    """Check parameters against the notebook's cell and return the job.

    `given` holds a command line's words, or values where `typed`. A relative `output_root` counts from the repository.
    A file that is no notebook becomes a job that fails, so that the others run.

    Raises ParameterError for a name or a value that does not fit, and for a faulty parameters cell.
    """
    root = resolve(output_root)
    try:
        parameters = settings.read_parameters(notebook)
    except UnreadableNotebook as error:
        return Job(notebook, {}, {}, {}, root, str(error))
    settings.check_names(parameters, given, notebook.name)
    if "output_root" in given:
        raise ParameterError(f"{notebook.name}: output_root is no choice of one run here; use --output-root")
    convert = settings.check_value if typed else settings.read_value
    try:
        for name, value in {"--output-root": root, **given}.items():
            if re.search("[\ud800-\udfff]", str(value)):
                raise ParameterError(f"{name} = {str(value)!r} holds bytes that are no UTF-8")
        values = {name: convert(parameters[name], value) for name, value in given.items()}
        if "output_root" in parameters:
            values["output_root"] = str(root)
        all_values = {p.name: p.default for p in parameters.values()} | values
        settings.check_shared(all_values)
    except ParameterError as error:
        raise ParameterError(f"{notebook.name}: {error}") from error
    return Job(notebook, parameters, values, all_values, root)
