"""Check a reader's answer to an exercise against its solution, on random inputs, and name the likely misconception.

An exercise cell holds a function that still returns None, so that a notebook runs from top to bottom before anybody has
solved anything; the check then says "not yet" and goes on. Solutions, the inputs drawn and typical wrong answers stand
in `notebooks/solutions/`, one plain Python file a notebook.
"""

import functools
import re
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reidlib.files import REPOSITORY

SOLUTIONS = REPOSITORY / "notebooks" / "solutions"
TRIALS = 20  # random inputs that an answer is compared on


@dataclass(frozen=True)
class Exercise:
    """An exercise that a function answers.

    Attributes:
        name: number of the notebook and of the exercise, such as "03-2".
        solution: the function that an answer should equal.
        inputs: makes one tuple of arguments from a seeded torch.Generator; draws shapes as well as values.
        wrong: typical wrong answers, each by the misconception behind it in one sentence.
        tolerance: relative and absolute, of numbers.
    """

    name: str
    solution: Callable
    inputs: Callable[[torch.Generator], tuple]
    wrong: Mapping[str, Callable] = field(default_factory=dict)
    tolerance: float = 1e-5


def exercise(name: str, folder: Path = SOLUTIONS) -> Exercise:
    """Load an exercise from its notebook's file of solutions.

    Raises:
        ValueError: a name that is not of the form "03-2", a notebook without solutions, or an unknown number.

    >>> exercise("03-1").name
    '03-1'
    """
    if not re.fullmatch(r"\d\d-\d+", name):
        raise ValueError(f"exercise {name!r}: names are a notebook's number and the exercise's, such as '03-2'")
    files = sorted(folder.glob(f"{name[:2]}_*.py"))
    if len(files) != 1:
        raise ValueError(f"exercise {name!r}: one file {folder / name[:2]}_*.py is needed, found {len(files)}")
    known = exercises_of(files[0])
    if name not in known:
        raise ValueError(f"exercise {name!r}: {files[0].name} has {', '.join(known)}")
    return known[name]


@functools.cache
def exercises_of(path: Path) -> dict[str, Exercise]:
    """Return the exercises of one file of solutions by name, in its order.

    >>> list(exercises_of(SOLUTIONS / "03_camera_transfer.py"))[:2]
    ['03-1', '03-2']
    """
    return {value.name: value for value in runpy.run_path(str(path)).values() if isinstance(value, Exercise)}


def check(exercise: Exercise, answer: Callable) -> bool:
    """Compare `answer` with an exercise's solution on random inputs, print the verdict and return whether all agreed.

    An answer that always equals one of the exercise's wrong answers is told its misconception. Every call gets inputs
    of its own, so an answer may change them.

    >>> hits = Exercise("01-1", lambda hits: hits[0], lambda g: (torch.rand(5, generator=g) > 0.5,),
    ...                 wrong={"that is the last rank": lambda hits: hits[-1]})
    >>> def rank_one(hits): return None  # the reader has not begun
    >>> check(hits, rank_one)
    not yet: rank_one returned None
    False
    >>> def rank_one(hits): return hits[-1]
    >>> check(hits, rank_one)
    not yet: rank_one returned tensor(False), expected tensor(True)
      input: (tensor([ True, False, False,  True, False]),)
      likely: that is the last rank
    False
    >>> def rank_one(hits): return hits[0]
    >>> check(hits, rank_one)
    right: rank_one agrees with the solution on 20 random inputs
    True
    """
    name = getattr(answer, "__name__", "your function")
    expected, got = _outcomes(exercise, exercise.solution), _outcomes(exercise, answer)
    equal = [_close(*pair, exercise.tolerance) for pair in zip(got, expected, strict=True)]
    if all(equal):
        print(f"right: {name} agrees with the solution on {TRIALS} random inputs")
        return True
    first = equal.index(False)
    print(f"not yet: {name} {_fault(got[first], expected[first])}")
    if got[first] is not None:
        print(f"  input: {_show(exercise.inputs(_draw(first)))}")
        for misconception, wrong in exercise.wrong.items():
            pairs = zip(got, _outcomes(exercise, wrong), strict=True)
            if all(_close(*pair, exercise.tolerance) for pair in pairs):
                print(f"  likely: {misconception}")
                break
    return False


def whole(generator: torch.Generator, low: int, high: int) -> int:
    """Draw a whole number from `low` to `high`, both included.

    >>> sorted({whole(_draw(seed), 2, 4) for seed in range(20)})
    [2, 3, 4]
    """
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def _draw(trial: int) -> torch.Generator:
    return torch.Generator().manual_seed(trial)


def _outcomes(exercise: Exercise, function: Callable) -> list[Any]:
    """Return what a function gives in each trial; an exception is an outcome too, it must not stop the notebook."""
    found = []
    for trial in range(TRIALS):
        arguments = exercise.inputs(_draw(trial))
        try:
            found.append(function(*arguments))
        except Exception as error:
            found.append(error)
    return found


def _fault(got: Any, expected: Any) -> str:
    if got is None:
        return "returned None"
    if isinstance(got, Exception):
        return f"raised {type(got).__name__}: {got}"
    return f"returned {_show(got)}, expected {_show(expected)}"


def _close(got: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(got, Exception) or isinstance(expected, Exception):
        return repr(got) == repr(expected)
    if isinstance(expected, tuple):
        same = isinstance(got, tuple | list) and len(got) == len(expected)
        return same and all(_close(*pair, tolerance) for pair in zip(got, expected, strict=True))
    try:
        got, expected = torch.as_tensor(got).double(), torch.as_tensor(expected).double()
    except (TypeError, ValueError, RuntimeError):
        return False
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=tolerance, atol=tolerance)


def _show(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) < 300 else text[:297] + "..."
