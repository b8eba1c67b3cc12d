"""Exported notebooks: every formula of the course becomes MathML, and what is shown holds no TeX."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from reidlib.course.export import formulas_to_mathml, to_html
from reidlib.course.jobs import NOTEBOOKS

BOOKS = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


class Shown(HTMLParser):
    """The text that a browser shows, without code, scripts and styles."""

    def __init__(self):
        super().__init__()
        self.inside, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style", "code", "pre", "annotation"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)


def shown(page):
    parser = Shown()
    parser.feed(page)
    return "".join(parser.text)


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)
def test_no_formula_is_left_as_tex(book, tmp_path):
    notebook = nbformat.read(book, 4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    path = tmp_path / book.name
    nbformat.write(notebook, path)
    page = to_html(path)
    source = "\n".join(cell.source for cell in notebook.cells)
    assert page.count('display="block"') == len(re.findall(r"\$\$.+?\$\$", source, re.DOTALL))
    text = shown(page)
    assert "$$" not in text and not re.search(r"\\(frac|sum|hat|text|lVert|mathbf|log)\b", text)
    assert "mathjax" not in page.lower() and not re.search(r"<script[^>]+src=\"http", page)


def test_formulas_by_hand():
    page = formulas_to_mathml("<p>$a &lt; b$ and $$\\frac{1}{2}$$</p><code>$x$ $$y$$</code> 5$ or 6$")
    assert (
        "<mi>a</mi><mo>&#x0003C;</mo><mi>b</mi>" in page
        and "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in page
    )
    assert page.endswith("<code>$x$ $$y$$</code> 5$ or 6$")


def test_the_page_is_whole(tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A\n\n$$x^2$$"), nbformat.v4.new_code_cell("1")]
    )
    path = Path(tmp_path / "a.ipynb")
    nbformat.write(notebook, path)
    assert to_html(path).count("<math") == 1 and to_html(path).rstrip().endswith("</html>")
