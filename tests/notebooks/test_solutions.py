"""Every exercise: its solution passes; wrong answers, placeholders and constants fail; notebooks and files agree."""

import re

import nbformat
import pytest
import torch

from reidlib.course.exercises import SOLUTIONS, check, exercise, exercises_of

FILES = sorted(SOLUTIONS.glob("[0-9][0-9]_*.py"))
EXERCISES = [task for path in FILES for task in exercises_of(path).values()]
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_exercise = pytest.mark.parametrize("task", EXERCISES, ids=lambda task: task.name)


def third_part(path) -> list:
    """The cells of a file's notebook from the exercises on."""
    cells = nbformat.read(SOLUTIONS.parent / f"{path.stem}.ipynb", as_version=4).cells
    start = next(i for i, cell in enumerate(cells) if re.search("^## Exercises", cell.source, re.M))
    return cells[start:]


def answer_of(source):
    """Run an exercise's cell as it stands and return the function that it hands to the check."""
    handed = []
    exec(source, {"torch": torch, "exercise": exercise, "check": lambda task, answer: handed.append(answer)})
    (answer,) = handed
    return answer


@every_exercise
def test_solution_passes_and_a_constant_fails(task):
    assert check(task, task.solution)
    first = task.solution(*task.inputs(torch.Generator().manual_seed(0)))
    assert not check(task, lambda *_: first)


@every_exercise
def test_wrong_answers_fail_and_are_named(task, capsys):
    for misconception, wrong in task.wrong.items():
        assert not check(task, wrong)
        assert capsys.readouterr().out.endswith(f"  likely: {misconception}\n")


@every_file
def test_a_notebook_has_typical_wrong_answers(path):
    assert sum(len(task.wrong) for task in exercises_of(path).values()) >= 5
    assert all(name.startswith(path.stem[:2] + "-") for name in exercises_of(path))
