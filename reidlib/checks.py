"""Checks at the door: what was received and what is accepted, in one form everywhere."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager


def check_choice(name: str, value: object, accepted: Collection) -> None:
    """Refuse a value that is not among the accepted ones.

    Raises:
        ValueError: with the value and all that are accepted.

    >>> check_choice("ap", "plain", ("plain", "trapezoid"))
    >>> check_choice("ap", "area", ("plain", "trapezoid"))
    Traceback (most recent call last):
    ValueError: ap must be one of 'plain', 'trapezoid'; got 'area'
    """
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}; got {value!r}")


def some(names: Collection[object], most: int = 5) -> str:
    """Write the first few of a long list.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = [str(name) for name in list(names)[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


class WrongInput(Exception):
    """An argument or an input file of a command is not as it must be; the command line says so in one line."""


@contextmanager
def reading_inputs() -> Iterator[None]:
    """Mark the part of a command that reads its arguments and input files: what fails there is a `WrongInput`.

    Anything that fails outside it is a fault of the program, and its traceback shows.

    >>> with reading_inputs():
    ...     check_choice("ap", "area", ("plain", "trapezoid"))
    Traceback (most recent call last):
    reidlib.checks.WrongInput: ap must be one of 'plain', 'trapezoid'; got 'area'
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise WrongInput(error) from error
