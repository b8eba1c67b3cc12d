"""Thin is a promise with numbers: lines of code, without blank lines, comments and docstrings.

The renderer (`datasets/procedural/`) is data, and `tools/` are commands: neither counts.
"""

import ast
import io
import tokenize
from pathlib import Path

import pytest

import reidlib

ROOT = Path(reidlib.__file__).parent
COUNTED = [p for p in sorted(ROOT.rglob("*.py")) if not {"procedural", "tools"} & set(p.relative_to(ROOT).parts)]
PROSE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_code(text: str) -> set[int]:
    """Return the numbers of the lines that hold code."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in PROSE:
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            found -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found


def test_lines_are_counted_as_by_hand():
    text = '"""Head."""\n\n# a remark\ndef f():\n    """Say\n    more."""\n    return (\n        1  # one\n    )\n'
    assert lines_of_code(text) == {4, 7, 8, 9}


def test_the_library_stays_under_ten_thousand_lines():
    assert sum(len(lines_of_code(path.read_text(encoding="utf-8"))) for path in COUNTED) <= 10_000


@pytest.mark.parametrize("path", COUNTED, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_file_over_300_lines_and_no_function_over_60(path):
    text = path.read_text(encoding="utf-8")
    code = lines_of_code(text)
    assert len(code) <= 300
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    lengths = {f.name: len(code & set(range(f.lineno, f.end_lineno + 1))) for f in functions}
    assert not {name: n for name, n in lengths.items() if n > 60}
