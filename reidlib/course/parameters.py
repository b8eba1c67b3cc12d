"""A notebook's parameters cell: literals only, typed, a comment each. Reading it, and checking values against it."""

import ast
import difflib
import io
import os
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

PROFILES = ("smoke", "course", "paper")
_TYPES = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "tuple": tuple, "dict": dict}


class ParameterError(ValueError):
    """A parameters cell, a parameter's name or a value is not as it must be; the message says what is accepted."""


@dataclass(frozen=True)
class Parameter:
    """One line of the cell: `seed: int = 0  # random seed`."""

    name: str
    type: str  # as written: "int", "float | None", "list[str]"
    default: Any
    help: str


def read_parameters(notebook: "str | os.PathLike | NotebookNode") -> dict[str, Parameter]:
    """Read the parameters of a notebook, in their order.

    Raises ParameterError naming every fault at once: the first code cell is not tagged `parameters`, a line is no
    `name: type = literal  # comment`, a default is not of its type.
    """
    import nbformat

    where = "the notebook" if isinstance(notebook, Mapping) else Path(notebook).name
    nb = notebook if isinstance(notebook, Mapping) else nbformat.read(notebook, as_version=4)
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


def check_value(parameter: Parameter, value: Any) -> Any:
    """Return `value` if it is of the parameter's type (an int passes as float), else raise ParameterError."""
    if _fits(ast.parse(parameter.type, mode="eval").body, value, parameter):
        return float(value) if parameter.type == "float" else value
    raise ParameterError(f"{parameter.name} = {value!r} is {type(value).__name__}, it must be {parameter.type}")


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


def parse_value(parameter: Parameter, text: str) -> Any:
    """Turn a command line's word into a value of the parameter's type.

    >>> parse_value(Parameter("rate", "float | None", None, ""), "1e-3")
    0.001
    >>> parse_value(Parameter("image_size", "str", "auto", ""), "128x64")
    '128x64'
    """
    words = {"true": True, "false": False, "none": None, "null": None}
    literal: Any = text
    if text.lower() in words:
        literal = words[text.lower()]
    else:
        try:
            literal = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            literal = text
    for value in (text, literal) if parameter.type == "str" else (literal, text):
        try:
            return check_value(parameter, value)
        except ParameterError:
            continue
    raise ParameterError(f"{parameter.name} = {text!r} does not read as {parameter.type}")


def check_names(parameters: Mapping[str, Parameter], names: Mapping[str, Any], where: str) -> None:
    """Raise ParameterError for names that the notebook does not have, with the close ones and all that it has."""
    for name in names:
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ParameterError(f"{where} has no parameter {name!r}{hint or '.'} It has: {', '.join(parameters)}")
