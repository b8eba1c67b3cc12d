"""A notebook's parameters cell: its names, types and defaults stand there once; read, checked, frozen as `Settings`.

The cell holds literals only, typed, a comment each. The cell after it makes the settings:

    settings = Settings.of(globals())
    run = runs.start("02_reid_baseline", settings)

On a command line a list is `5,6`, `"5 6"` or `"[5, 6]"`; plain papermill's `-p cameras 5,6` reads likewise.
"""

import ast
import difflib
import io
import itertools
import os
import re
import tokenize
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reidlib.checks import check_choice
from reidlib.datasets import Benchmark, load, load_splits
from reidlib.files import resolve
from reidlib.machine import is_interactive, pick_device

if TYPE_CHECKING:
    from nbformat import NotebookNode

DATA_SIZES = {"smoke": "smoke", "course": "course", "paper": "full"}  # of rendered data, by profile
PROFILES = tuple(DATA_SIZES)
SHARED = ("profile", "dataset", "data_root", "image_size", "seed", "device", "output_root")
_TYPES = {"bool": bool, "int": int, "float": int | float, "str": str, "list": list, "tuple": tuple, "dict": dict}
_WORDS = {"true": True, "false": False, "none": None, "null": None}


class ParameterError(ValueError):
    """A parameters cell, a parameter's name or a value is not as it must be; the message says what is accepted."""


class UnreadableNotebook(ValueError):
    """A file is no notebook, or has no parameters cell as it must be."""


@dataclass(frozen=True)
class Parameter:
    """One line of the cell: `seed: int = 0  # random seed`."""

    name: str
    type: str  # as written: "int", "float | None", "list[str]"
    default: Any
    help: str


class Settings:
    """The parameters of a notebook as attributes, checked once and frozen.

    `image_size` "auto" is 64x32 in the smoke and course profiles on every device, so that numbers compare, and the
    paper's own size (`paper_image_size`) in the paper profile.

    >>> exec('''profile: str = "smoke"; dataset: str = "procedural"; data_root: str = "data"
    ... image_size: str = "128x64"; seed: int = 0; device: str = "cpu"; output_root: str = "runs"
    ... cameras: list[int] = [5, 6]''', cell := {})
    >>> settings = Settings.of(cell)
    >>> settings.cameras, settings.size, settings.choose(smoke=30, course=900)
    ([5, 6], (128, 64), 30)
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        paper_image_size: tuple[int, int] = (256, 128),
        accepted: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        missing = [name for name in SHARED if name not in values]
        if missing:
            raise ParameterError(f"settings lack {', '.join(missing)}; every notebook has {', '.join(SHARED)}")
        taken = [name for name in values if hasattr(Settings, name)]
        if taken:
            raise ParameterError(f"no parameter can be called {', '.join(taken)}: settings use that name themselves")
        check_shared(values)
        for name, words in accepted.items():
            given = values[name]
            for word in () if given == ["auto"] else given if isinstance(given, list) else [given]:
                _check_word(name, word, words.split())
        self.__dict__.update(
            values=MappingProxyType(dict(values)), paper_image_size=paper_image_size, accepted=accepted
        )

    @classmethod
    def of(
        cls, cell: dict[str, Any], *, paper_image_size: tuple[int, int] = (256, 128), files: str = "", **accepted: str
    ) -> "Settings":
        """Freeze what the parameters cell has set; call it in the next code cell with `globals()`.

        The cell's names and types are the annotations there, the values those that papermill may have put in their
        place. Values of another type are read as a command line's words are.

        Args:
            cell: the notebook's names.
            paper_image_size: see above.
            files: parameters, with blanks between, that name a file where they are not ""; it must be there now, and
                not only hours later where it is read.
            accepted: by a parameter's name, the words, with blanks between, that it may be, or that its list may hold;
                a list of "auto" alone may always be.

        Raises:
            ParameterError: there are no annotations, a shared parameter is missing, or a value does not fit.
        """
        types = cell.get("__annotations__", {})
        if not types:
            raise ParameterError("there are no parameters: run the notebook's parameters cell (name: type = value)")
        gone = [name for name in types if name not in cell]
        if gone:
            raise ParameterError(f"the parameters cell names {', '.join(gone)}, which have no value")
        values = {}
        for name, kind in types.items():
            written = kind.__name__ if isinstance(kind, type) else str(kind)  # int, or list[int] and float | None
            values[name] = read_value(Parameter(name, written, None, ""), cell[name])
        for name in files.split():
            if values[name] and not resolve(values[name]).is_file():
                raise ParameterError(f"{name} must be a file, or empty; there is none at {resolve(values[name])}")
        return cls(values, paper_image_size, accepted)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        if name not in values:
            raise AttributeError(f"settings have no {name!r}; they have {', '.join(values)}")
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings are frozen: set {name} in the parameters cell, or use settings.replace(...)")

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"

    def replace(self, **values: Any) -> "Settings":
        """Return settings with other values of some parameters."""
        check_names(self.values, values, "this notebook")
        return Settings({**self.values, **values}, self.paper_image_size, self.accepted)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        if self.image_size == "auto":
            return self.paper_image_size if self.profile == "paper" else (64, 32)
        height, width = self.image_size.split("x")
        return int(height), int(width)

    def choose(self, smoke: Any, course: Any, paper: Any = None) -> Any:
        """Return the value of this profile; the paper profile takes the course's where it has none of its own."""
        return {"smoke": smoke, "course": course, "paper": course if paper is None else paper}[self.profile]

    def words(self, name: str, smoke: str, course: str, paper: str) -> list[str]:
        """Return a list of words as it was given, or where it is "auto" alone this profile's, written with blanks."""
        given = self.values[name]
        return self.choose(smoke, course, paper).split() if given == ["auto"] else given

    def load(self, scene: str = "retrieval", **options: Any) -> Benchmark:
        """Load the data set of these settings (`datasets.load`); `options` go on to it.

        Rendered people are the same whatever `seed` is, so that seeds differ in the training alone; `seed=` here
        renders others. `dataset=` reads another set of the same folder, for transfer.
        """
        options = {"scene": scene, "size": DATA_SIZES[self.profile], "progress": is_interactive()} | options
        return load(options.pop("dataset", self.dataset), self.data_root, self.size, **options)

    def load_splits(self, name: str, count: int, scene: str = "retrieval", **options: Any) -> Iterator[Benchmark]:
        """Load the first `count` splits of another data set, rendered or real (CUHK01's both ways; most have one)."""
        options = {"scene": scene, "size": DATA_SIZES[self.profile], "progress": is_interactive()} | options
        reader, network = ("procedural", {"network": name}) if self.dataset == "procedural" else (name, {})
        every = load_splits(reader, self.data_root, self.size, **options | network)
        yield from itertools.islice(every, count * (2 if name == "cuhk01" else 1))


def _check_word(name: str, word: str, accepted: Collection[str]) -> None:
    try:
        check_choice(name, word, accepted)
    except ValueError as error:
        raise ParameterError(str(error)) from error


def check_shared(values: Mapping[str, Any]) -> None:
    """Raise ParameterError for a shared parameter that no run can have; parameters that are not there pass."""
    _check_word("profile", values.get("profile", "course"), PROFILES)
    try:
        pick_device(values.get("device", "auto"))
    except ValueError as error:
        raise ParameterError(str(error)) from error
    if values.get("seed", 0) < 0:
        raise ParameterError(f"seed must be 0 or more, got {values['seed']}")
    size = values.get("image_size", "auto")
    if size != "auto" and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        raise ParameterError(f'image_size must be "auto" or HEIGHTxWIDTH such as "128x64", got {size!r}')


def read_notebook(notebook: str | os.PathLike) -> "NotebookNode":
    """Read a notebook file; raise UnreadableNotebook, naming it, for what is none (merge marks, a byte-order mark)."""
    import nbformat

    try:
        return nbformat.read(notebook, as_version=4)
    except Exception as error:  # nbformat lets JSON's, the codec's and its own errors through
        words = " ".join(str(error).split())[:200]
        raise UnreadableNotebook(f"{Path(notebook).name} cannot be read as a notebook: {words}") from error


def read_parameters(notebook: str | os.PathLike) -> dict[str, Parameter]:
    """Read the parameters of a notebook file, in their order.

    Raises UnreadableNotebook, and ParameterError naming every faulty line at once: the first code cell is not tagged
    `parameters`, a line is no `name: type = literal  # comment`, a default is not of its type.
    """
    where = Path(notebook).name
    cells = [cell for cell in read_notebook(notebook).cells if cell.cell_type == "code"]
    if not cells or "parameters" not in cells[0].metadata.get("tags", []):
        raise ParameterError(f"{where}: the first code cell must carry the tag 'parameters'")
    try:
        lines = ast.parse(cells[0].source).body
        tokens = list(tokenize.generate_tokens(io.StringIO(cells[0].source).readline))
    except SyntaxError as error:
        raise ParameterError(f"{where}: the parameters cell is no Python: {error}") from error
    comments = {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}
    parameters, faults = {}, []
    for line in lines:
        try:
            parameter = _read_line(line, comments.get(line.end_lineno, ""))
            if parameter.name in parameters:
                raise ParameterError(f"{parameter.name} stands twice")
            parameters[parameter.name] = parameter
        except ParameterError as error:
            faults.append(f"line {line.lineno}: {error}")
    if faults:
        raise ParameterError(f"{where}: parameters cell: " + "; ".join(faults))
    return parameters


def _read_line(line: ast.stmt, comment: str) -> Parameter:
    match line:
        case ast.Assign(targets=[ast.Name(name), *_]):
            raise ParameterError(f"{name} has no type, write '{name}: type = ...'")
        case ast.AnnAssign(target=ast.Name(name), value=ast.expr()):
            pass
        case _:
            raise ParameterError("only 'name: type = literal  # comment' may stand here")
    try:
        default = ast.literal_eval(line.value)
    except (ValueError, TypeError) as error:
        reason = "is not a literal; compute it in the next cell (papermill would not redo it)"
        raise ParameterError(f"{name} {reason}") from error
    parameter = Parameter(name, ast.unparse(line.annotation), default, comment)
    check_value(parameter, default)
    if not comment:
        raise ParameterError(f"{name} has no comment on its line")
    return parameter


def check_value(parameter: Parameter, value: Any) -> Any:
    """Return `value` if it is of the parameter's type (an int passes as float, a list as tuple), else raise.

    Raises ParameterError with the value and the type.
    """
    if not _fits(ast.parse(parameter.type, mode="eval").body, value, parameter):
        raise ParameterError(f"{parameter.name} = {value!r} is {type(value).__name__}, it must be {parameter.type}")
    if isinstance(value, list | tuple):  # papermill hands over JSON's lists, so a tuple may come as one
        return tuple(value) if parameter.type.startswith("tuple") else list(value)
    return float(value) if parameter.type == "float" else value


def _fits(kind: ast.expr, value: Any, parameter: Parameter) -> bool:
    match kind:
        case ast.BinOp(left, ast.BitOr(), right):
            return _fits(left, value, parameter) or _fits(right, value, parameter)
        case ast.Constant(None):
            return value is None
        case ast.Subscript(ast.Name("list" | "tuple"), ast.Tuple([inner, *_]) | inner):
            return isinstance(value, list | tuple) and all(_fits(inner, item, parameter) for item in value)
        case ast.Name(name) if name in _TYPES:
            return isinstance(value, _TYPES[name]) and (name == "bool" or not isinstance(value, bool))
    known = ", ".join(_TYPES)
    raise ParameterError(f"{parameter.name}: type {parameter.type} is not known; use {known}, list[...], | None")


def read_value(parameter: Parameter, value: Any) -> Any:
    """Return a value of the parameter's type, which a command line's word may stand for.

    A list is written `5,6`, `5 6` or `[5, 6]`; one word is a list of one, and nothing an empty list.

    >>> [read_value(Parameter("cameras", "list[int]", [], ""), value) for value in ("5,6", 5, [5])]
    [[5, 6], [5], [5]]
    >>> read_value(Parameter("rate", "float | None", None, ""), "-1e-3")
    -0.001
    >>> read_value(Parameter("image_size", "str", "auto", ""), "128x64")
    '128x64'
    >>> read_value(Parameter("losses", "list[str]", [], ""), "softmax, lsr+triplet")
    ['softmax', 'lsr+triplet']
    """
    readings = [literal(value)]
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        words = [word for word in re.split(r"[,\s]+", str(value).strip().strip("[]()")) if word]
        readings += [str(value), [literal(word) for word in words], words]
    for reading in readings[1:] if parameter.type == "str" else readings:
        try:
            return check_value(parameter, reading)
        except ParameterError:
            continue
    raise ParameterError(f"{parameter.name} = {value!r} does not read as {parameter.type}")


def literal(value: Any) -> Any:
    """Return the value that a text is of, as Python or a word such as `true` writes it; else the text itself.

    >>> [literal(text) for text in ("1e-3", "false", "(1, 2)", "kept")]
    [0.001, False, (1, 2), 'kept']
    """
    try:
        return _WORDS[value.lower()] if value.lower() in _WORDS else ast.literal_eval(value)
    except (AttributeError, ValueError, SyntaxError):  # no text, or a plain word
        return value


def check_names(known: Mapping[str, Any], names: Mapping[str, Any], where: str) -> None:
    """Raise ParameterError for names that the notebook does not have, with the close ones and all that it has."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ParameterError(f"{where} has no parameter {name!r}{hint or '.'} It has: {', '.join(known)}")
