"""Check a reader's answer to an exercise against the library's own function, on random inputs.

An exercise cell holds a function that still returns None, so that a notebook runs from top to bottom before anybody has
solved anything; the check then says "not yet" and goes on.
"""

from collections.abc import Callable
from typing import Any

import torch


def check(answer: Callable, reference: Callable, inputs: Callable, *, trials: int = 20) -> bool:
    """Compare `answer` with `reference` on random inputs, print the verdict and return whether all trials agreed.

    Args:
        answer: the reader's function.
        reference: the function it should equal, within 1e-5.
        inputs: makes one tuple of arguments from a seeded torch.Generator; called once a trial.
        trials: number of random inputs.

    >>> def rank_one(hits): return None  # the reader has not begun
    >>> check(rank_one, lambda hits: hits[0], lambda g: (torch.rand(5, generator=g) > 0.5,))
    not yet: rank_one returned None
    False
    >>> check(lambda hits: hits[0], lambda hits: hits[0], lambda g: (torch.rand(5, generator=g) > 0.5,))
    right: <lambda> agrees with the reference on 20 random inputs
    True
    """
    name = getattr(answer, "__name__", "your function")
    generator = torch.Generator().manual_seed(0)
    for _ in range(trials):
        arguments = inputs(generator)
        expected = reference(*arguments)
        shown = f"\n  input: {_show(arguments)}"
        try:
            got = answer(*arguments)
        except Exception as error:  # a reader's slip must not stop the notebook; it is shown instead
            fault = f"raised {type(error).__name__}: {error}{shown}"
        else:
            fault = "" if _close(got, expected) else f"returned {_show(got)}, expected {_show(expected)}{shown}"
            fault = "returned None" if got is None else fault
        if fault:
            print(f"not yet: {name} {fault}")
            return False
    print(f"right: {name} agrees with the reference on {trials} random inputs")
    return True


def _close(got: Any, expected: Any) -> bool:
    try:
        got, expected = torch.as_tensor(got).double(), torch.as_tensor(expected).double()
    except (TypeError, ValueError, RuntimeError):
        return False
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-5, atol=1e-5)


def _show(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) < 300 else text[:297] + "..."
