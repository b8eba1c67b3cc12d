"""Notebooks of a few lines, made for the tests of the runner and of the sweeps."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from reidlib.course.settings import Settings

PARAMETERS = """profile: str = "course"  # smoke, course or paper
dataset: str = "procedural"  # data set
data_root: str = "data"  # where it lies
image_size: str = "auto"  # height x width
seed: int = 0  # of every random generator
device: str = "cpu"  # where it computes
output_root: str = "runs"  # where runs go
rate: float = 0.5  # of learning
limit: int | None = None  # of something
fail: bool = False  # stop half-way"""

START = """import sys, os, torch
from reidlib.course import runs
from reidlib.course.settings import Settings

settings = Settings.of(globals())
run = runs.start("{name}", settings)
print("interpreter", sys.executable)"""

WORK = """import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
if not run.path("kept.txt").exists():
    run.path("kept.txt").write_text("a checkpoint")
    print("from the start")
else:
    print("resumed")
assert not fail, "asked to fail"
fig, ax = plt.subplots(figsize=(2, 1)); ax.plot([0, 1]); plt.close(fig)
run.figure(fig, "curve")
run.metric("toy/mAP (plain AP)", torch.rand(1000).std().item() * rate)
run.metric("toy/noise", torch.rand(()).item(), rule="one draw")"""


def write_notebook(
    path: Path,
    *,
    parameters: str = PARAMETERS,
    tags: tuple[str, ...] = ("parameters",),
    work: str = WORK,
    finish: str = 'run.finish(figures=["curve"], metrics=["toy/*"]);',
) -> Path:
    """Write a notebook that obeys the run contract, or breaks it in one place."""
    cells = [
        new_markdown_cell("# A toy & its <title>\n\nHow noisy is noise?"),
        new_code_cell(parameters, metadata={"tags": list(tags)}),
        new_code_cell(START.replace("{name}", path.stem)),
        new_markdown_cell("## Work"),
        new_code_cell(work),
        new_code_cell(finish),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def settings_of(output_root: Path | str = "runs", **values) -> Settings:
    shared = {"profile": "smoke", "dataset": "procedural", "data_root": "data", "image_size": "auto", "seed": 3}
    return Settings({**shared, "device": "cpu", "output_root": str(output_root), **values})
