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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reidlib.checks import check_choice
from reidlib.datasets import Benchmark, load, load_splits
from reidlib.machine import pick_device

if TYPE_CHECKING:
    from nbformat import NotebookNode

DATA_SIZES = {"smoke": "smoke", "course": "course", "paper": "full"}  # of rendered data, by profile
PROFILES = tuple(DATA_SIZES)
SHARED = ("profile", "dataset", "data_root", "image_size", "seed", "device", "output_root")
_TYPES = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "tuple": tuple, "dict": dict}
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

    def __init__(self, values: Mapping[str, Any], paper_image_size: tuple[int, int] = (256, 128)) -> None:
        missing = [name for name in SHARED if name not in values]
        if missing:
            raise ParameterError(f"settings lack {', '.join(missing)}; every notebook has {', '.join(SHARED)}")
        taken = [name for name in values if hasattr(Settings, name)]
        if taken:
            raise ParameterError(f"no parameter can be called {', '.join(taken)}: settings use that name themselves")
        check_shared(values)
        self.__dict__.update(values=MappingProxyType(dict(values)), paper_image_size=paper_image_size)

    @classmethod
    def of(cls, cell: Mapping[str, Any], *, paper_image_size: tuple[int, int] = (256, 128)) -> "Settings":
        """Freeze what the parameters cell has set; call it in the next code cell with `globals()`.

        The cell's names and types are the annotations there, the values those that papermill may have put in their
        place. Values of another type are read as a command line's words are.

        Raises:
            ParameterError: there are no annotations, a shared parameter is missing, or a value does not fit.
        """
        types = {name: _written(kind) for name, kind in cell.get("__annotations__", {}).items()}
        if not types:
            raise ParameterError(
                "there are no parameters: run the notebook's parameters cell (name: type = value) first"
            )
        gone = [name for name in types if name not in cell]
        if gone:
            raise ParameterError(f"the parameters cell names {', '.join(gone)}, which have no value")
        return cls(
            {n: read_value(Parameter(n, kind, None, ""), cell[n]) for n, kind in types.items()}, paper_image_size
        )

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
        return Settings({**self.values, **values}, self.paper_image_size)

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

    def load(self, scene: str = "retrieval", **options: Any) -> Benchmark:
        """Load the data set of these settings (`datasets.load`); `options` go on to it.

        Rendered people are the same whatever `seed` is, so that seeds differ in the training alone; `seed=` here
        renders others. `dataset=` reads another set of the same folder, for transfer.
        """
        options = {"scene": scene, "size": DATA_SIZES[self.profile]} | options
        return load(options.pop("dataset", self.dataset), self.data_root, self.size, **options)

    def load_splits(self, name: str, count: int, scene: str = "retrieval", **options: Any) -> Iterator[Benchmark]:
        """Load the first `count` splits of another data set, rendered or real (CUHK01's both ways; most have one)."""
        options = {"scene": scene, "size": DATA_SIZES[self.profile]} | options
        options |= {"network": name} if self.dataset == "procedural" else {}
        reader = "procedural" if self.dataset == "procedural" else name
        every = load_splits(reader, self.data_root, self.size, **options)
        yield from itertools.islice(every, count * (2 if name == "cuhk01" else 1))


def check_shared(values: Mapping[str, Any]) -> None:
    """Raise ParameterError for a shared parameter that no run can have; parameters that are not there pass."""
    try:
        check_choice("profile", values.get("profile", "course"), PROFILES)
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


def read_parameters(notebook: "str | os.PathLike | NotebookNode") -> dict[str, Parameter]:
    """Read the parameters of a notebook, in their order.

    Raises UnreadableNotebook, and ParameterError naming every fault at once: the first code cell is not tagged
    `parameters`, a line is no `name: type = literal  # comment`, a default is not of its type.
    """
    where = "the notebook" if isinstance(notebook, Mapping) else Path(notebook).name
    nb = notebook if isinstance(notebook, Mapping) else read_notebook(notebook)
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    if not cells or "parameters" not in cells[0].metadata.get("tags", []):
        raise ParameterError(f"{where}: the first code cell must carry the tag 'parameters'")
    try:
        parameters, faults = _read_cell(cells[0].source)
    except SyntaxError as error:
        raise ParameterError(f"{where}: the parameters cell is no Python: {error}") from error
    if faults:
        raise ParameterError(f"{where}: parameters cell: " + "; ".join(faults))
    return parameters


def _read_cell(source: str) -> tuple[dict[str, Parameter], list[str]]:
    tree = ast.parse(source)
    comments = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    parameters, faults = {}, []
    for node in tree.body:
        line = f"line {node.lineno}"
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            faults.append(f"{line}: {node.targets[0].id} has no type, write '{node.targets[0].id}: type = ...'")
            continue
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            faults.append(f"{line}: only 'name: type = literal  # comment' may stand here")
            continue
        name, written = node.target.id, ast.unparse(node.annotation)
        try:
            default = ast.literal_eval(node.value)
            check_value(parameter := Parameter(name, written, default, comments.get(node.end_lineno, "")), default)
        except ParameterError as error:
            faults.append(f"{line}: {error}")
            continue
        except ValueError:
            faults.append(f"{line}: {name} is not a literal; compute it in the next cell (papermill would not redo it)")
            continue
        if not parameter.help:
            faults.append(f"{line}: {name} has no comment on its line")
        if name in parameters:
            faults.append(f"{line}: {name} stands twice")
        parameters[name] = parameter
    return parameters, faults


def _written(kind: Any) -> str:
    """Write a type as the cell has it: `int`, `list[int]`, `float | None`."""
    return kind.__name__ if isinstance(kind, type) else str(kind)


def check_value(parameter: Parameter, value: Any) -> Any:
    """Return `value` if it is of the parameter's type (an int passes as float, a list as tuple), else raise.

    Raises ParameterError with the value and the type.
    """
    if not _fits(ast.parse(parameter.type, mode="eval").body, value, parameter):
        raise ParameterError(f"{parameter.name} = {value!r} is {type(value).__name__}, it must be {parameter.type}")
    if isinstance(value, list | tuple):
        return tuple(value) if parameter.type.startswith("tuple") else list(value)
    return float(value) if parameter.type == "float" else value


def _fits(annotation: ast.expr, value: Any, parameter: Parameter) -> bool:
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _fits(annotation.left, value, parameter) or _fits(annotation.right, value, parameter)
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return value is None
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in ("list", "tuple"):
        inner = annotation.slice.elts[0] if isinstance(annotation.slice, ast.Tuple) else annotation.slice
        # papermill hands over JSON's lists, so a tuple may come as one
        return isinstance(value, list | tuple) and all(_fits(inner, item, parameter) for item in value)
    kind = _TYPES.get(ast.unparse(annotation))
    if kind is None:
        raise ParameterError(
            f"{parameter.name}: type {parameter.type} is not known; use {', '.join(_TYPES)}, list[...], | None"
        )
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def read_value(parameter: Parameter, value: Any) -> Any:
    """Return a value as it is where it fits the parameter's type, else read it as a command line's word.

    >>> [read_value(Parameter("cameras", "list[int]", [], ""), value) for value in ("5,6", 5, [5])]
    [[5, 6], [5], [5]]
    """
    try:
        return check_value(parameter, value)
    except ParameterError:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise
        return parse_value(parameter, str(value))


def parse_value(parameter: Parameter, text: str) -> Any:
    """Turn a command line's word into a value of the parameter's type.

    A list is written `5,6`, `5 6` or `[5, 6]`; one word is a list of one, and nothing an empty list.

    >>> parse_value(Parameter("rate", "float | None", None, ""), "-1e-3")
    -0.001
    >>> parse_value(Parameter("image_size", "str", "auto", ""), "128x64")
    '128x64'
    >>> parse_value(Parameter("losses", "list[str]", [], ""), "softmax, lsr+triplet")
    ['softmax', 'lsr+triplet']
    """
    readings = [_literal(text), text]
    if parameter.type == "str":
        readings.reverse()
    if parameter.type.startswith(("list", "tuple")):
        words = [word for word in re.split(r"[,\s]+", text.strip().strip("[]()")) if word]
        readings += [[_literal(word) for word in words], words]
    for value in readings:
        try:
            return check_value(parameter, value)
        except ParameterError:
            continue
    raise ParameterError(f"{parameter.name} = {text!r} does not read as {parameter.type}")


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_names(known: Mapping[str, Any], names: Mapping[str, Any], where: str) -> None:
    """Raise ParameterError for names that the notebook does not have, with the close ones and all that it has."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ParameterError(f"{where} has no parameter {name!r}{hint or '.'} It has: {', '.join(known)}")
