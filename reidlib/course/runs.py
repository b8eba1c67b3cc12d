"""A run: one notebook with one set of parameters, its folder, and the `results.json` it leaves.

In a notebook, after the parameters cell:

    settings = Settings.of(globals())
    run = runs.start("02_reid_baseline", settings)
    ...
    run.figure(fig, "learning_curves")
    run.metrics("ide_lsr", scores)                            # RetrievalScores, each number with its rule
    run.metric("ide_lsr/mAP (plain AP)", 0.71)                # or one by one; the rule in brackets or as rule=
    run.finish(figures=["learning_curves"], metrics=["ide_lsr", "*/mAP*"])

`reidlib run` runs the notebooks (see `reidlib.tools.run` and `reidlib.course.runner`).
"""

import fnmatch
import hashlib
import json
import math
import os
import platform
import random
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from reidlib.checks import check_choice
from reidlib.course.settings import PROFILES, Settings
from reidlib.evaluators import SplitScores
from reidlib.files import atomic_path, resolve
from reidlib.machine import commit, device_name, peak_memory, pick_device, watch_memory

RESULTS, STATUS = "results.json", "status.json"  # what the notebook leaves, and what the runner says of it
MARKER = ".reidlib-run"  # only a folder that holds it is ever emptied
FOLDER_VARIABLE, RESUME_VARIABLE = "REIDLIB_RUN_DIR", "REIDLIB_RESUME"  # the runner's word to the notebook's kernel
NOT_NUMBERS = ("output_root",)  # parameters that decide where, not what


def run_id(parameters: Mapping[str, Any]) -> str:
    """Name a run by its parameters: its profile, and a hash of every value that decides numbers.

    Raises ValueError for an unknown profile, before it becomes part of a path.

    >>> run_id({"profile": "smoke", "seed": 0}) == run_id({"seed": 0, "profile": "smoke", "output_root": "elsewhere"})
    True
    """
    kept = {name: value for name, value in parameters.items() if name not in NOT_NUMBERS}
    profile = parameters.get("profile", "run")
    check_choice("profile", profile, (*PROFILES, "run"))
    return f"{profile}-{hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]}"


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all, as `files.atomic_path` does, and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file to be read by people too; what JSON does not know becomes its text."""
    return write_text(path, json.dumps(content, indent=2, default=str) + "\n")


@dataclass
class Run:
    """What a notebook reports while it runs; made by `start`."""

    notebook: str
    parameters: dict[str, Any]
    folder: Path
    device: torch.device
    started: float = field(default_factory=time.monotonic)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: dict[str, Path] = field(default_factory=dict)
    checkpoints: list[Path] = field(default_factory=list)
    since: int | None = 0  # when its memory began to be measured, see `machine.watch_memory`

    def path(self, *names: str) -> Path:
        """Return a path inside the run's folder, e.g. for `training.fit(..., run.path("ide_lsr"))`."""
        return self.folder.joinpath(*names)

    def figure(self, figure: Any, name: str) -> Path:
        """Save a matplotlib figure as `figures/<name>.png`."""
        path = self.path("figures", f"{name}.png")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=130, bbox_inches="tight")
        self.figures[name] = path
        return path

    def table(self, frame: pd.DataFrame, name: str) -> Path:
        """Save a table, e.g. `history.losses`, as `tables/<name>.csv`."""
        path = self.path("tables", f"{name}.csv")
        with atomic_path(path) as temporary:
            frame.to_csv(temporary, index=False)
        return path

    def metric(self, name: str, value: float, rule: str | None = None) -> None:
        """Note one number by name, with the rule it was computed by: `rule=`, or in brackets at the name's end.

        Raises ValueError for a number that is not finite, and for one without a rule.
        """
        in_brackets = re.search(r"\(([^()]+)\)$", name)
        rule = rule or (in_brackets[1] if in_brackets else None)
        if not rule:
            raise ValueError(
                f"metric {name!r} names no rule: give rule=..., or end its name in brackets, 'mAP (plain AP)'"
            )
        if not math.isfinite(value := float(value)):
            raise ValueError(f"metric {name!r} is {value}: only finite numbers are recorded")
        self.values[name] = {"value": value, "rule": rule}

    def metrics(self, prefix: str, scores: Any, rule: str | None = None) -> None:
        """Note several numbers as `prefix/name`: `RetrievalScores`, `SplitScores`, or a mapping name -> number.

        Of several splits the mean is noted, and their spread as `spread over splits/prefix/name`. A table is noted row
        by row, as `prefix/row/column`, but for what is None in it.
        """
        if isinstance(scores, pd.DataFrame):
            for name, line in scores.iterrows():
                self.metrics(f"{prefix}/{name}", {column: v for column, v in line.items() if v is not None}, rule)
            return
        if isinstance(scores, SplitScores):
            if len(scores.table) > 1:
                self.metrics(f"spread over splits/{prefix}", scores.std.to_dict(), "standard deviation over the splits")
            rule, scores = rule or f"mean over {len(scores.table)} splits", scores.mean.to_dict()
        elif hasattr(scores, "as_dict"):
            rule = rule or getattr(scores, "protocol", None)
            scores = scores.as_dict()
        for name, value in scores.items():
            self.metric(f"{prefix}/{name}", value, rule)

    def checkpoint(self, path: str | os.PathLike) -> Path:
        """Note a file of weights that the run leaves; it must be there at the end."""
        self.checkpoints.append(Path(path))
        return Path(path)

    def finish(self, *, figures: Iterable[str] = (), metrics: Iterable[str] = ()) -> Path:
        """Check that what the notebook promises here is there, and write `results.json`.

        `metrics` holds names, prefixes ("ide_lsr" for "ide_lsr/rank-1") or patterns ("*/mAP*"). Raises AssertionError
        naming everything that is missing.
        """
        names = dict.fromkeys([*figures, *self.figures])
        missing = [f"figure {name!r}" for name in names if not self.path("figures", f"{name}.png").is_file()]
        missing += [f"metric {name!r}" for name in metrics if not _matching(name, self.values)]
        missing += [f"checkpoint {path}" for path in self.checkpoints if not path.is_file()]
        if missing:
            raise AssertionError(f"{self.notebook} promised and did not make: {', '.join(missing)}")
        path = self.record()
        print(f"{len(self.values)} metrics and {len(self.figures)} figures recorded in {path}")
        return path

    def record(self) -> Path:
        """Write `results.json`, whole or not at all, and return its path; `finish` checks first."""
        version = next((one.version for one in metadata.distributions(name="reidlib")), "source")
        results = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "commit": commit(),
            "versions": {"reidlib": version, "torch": torch.__version__, "python": platform.python_version()},
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "seconds": round(time.monotonic() - self.started, 3),
            "peak_memory_bytes": peak_memory(self.device, self.since),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "metrics": self.values,
            "figures": [f"figures/{path.name}" for path in self.figures.values()],
            "checkpoints": [path.as_posix().removeprefix(f"{self.folder.as_posix()}/") for path in self.checkpoints],
        }
        return write_json(self.path(RESULTS), results)


def start(notebook: str, settings: Settings | Mapping[str, Any], *, resume: bool = False) -> Run:
    """Begin a run: its folder `<output_root>/<notebook>/<run id>/`, the clock, and every random generator.

    Args:
        notebook: the notebook's name, without .ipynb.
        settings: of the notebook, or a mapping; `output_root`, `seed` and `device` are used.
        resume: keep what an earlier run of the same settings left (checkpoints), so that training goes on from there.
            Otherwise the folder is emptied of an earlier run: code may have changed since. The runner says which.
    """
    parameters = dict(settings.values if isinstance(settings, Settings) else settings)
    if isinstance(settings, Settings):
        parameters["image_size"] = "{}x{}".format(*settings.size)  # what "auto" meant
    if given := os.environ.get(FOLDER_VARIABLE):
        folder, resume = Path(given), os.environ.get(RESUME_VARIABLE) == "1"
        if folder.parent.name != notebook:
            raise ValueError(f"runs.start({notebook!r}, ...) in the notebook {folder.parent.name!r}: give its own name")
    else:
        folder = resolve(parameters.get("output_root", "runs")) / notebook / run_id(parameters)
    if not resume and (folder / MARKER).exists():
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix not in (".ipynb", ".html") and path.name not in (MARKER, STATUS):
                path.unlink()
    (folder / RESULTS).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    seed = int(parameters.get("seed", 0))
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (for libraries that use the global generator)
    torch.manual_seed(seed)
    device = pick_device(parameters.get("device", "auto"))
    return Run(notebook, parameters, folder, device, since=watch_memory(device))


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    return [n for n in names if n == pattern or n.startswith(f"{pattern}/") or fnmatch.fnmatchcase(n, pattern)]
