"""An executed notebook as one HTML file that needs no network: pictures inside, formulas as MathML."""

import html
import re
from pathlib import Path

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

# what is code stays as it is; then display formulas and those inside a line
_MATH = re.compile(
    r"<(code|pre)\b.*?</\1>|\$\$(?P<display>.+?)\$\$|(?<![\\$])\$(?P<inline>[^$\s](?:[^$]*?[^$\s])?)\$", re.S
)
_MATHJAX = re.compile(r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.DOTALL)


def formulas_to_mathml(page: str) -> str:
    r"""Return HTML in which TeX formulas between $ or $$ are MathML, which browsers typeset without a script.

    What stands in `<code>` or `<pre>` is no formula.

    >>> formulas_to_mathml("the margin $m$, <code>$PATH</code>")[:30]
    'the margin <math xmlns="http:/'
    >>> formulas_to_mathml("$$a^2$$").count('display="block"')
    1
    """

    def replace(match: re.Match) -> str:
        kind = "display" if match["display"] else "inline"
        if not match[kind]:
            return match[0]
        return convert(html.unescape(match[kind]).strip(), display="block" if kind == "display" else "inline")

    return _MATH.sub(replace, page)


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context, source):
        return formulas_to_mathml(super().markdown2html(context, source))


def to_html(executed: Path) -> str:
    """Return an executed notebook as one HTML page: no script that waits for a network before the page shows."""
    body, _ = _Exporter(require_js_url="data:text/javascript,").from_filename(str(executed))
    return _MATHJAX.sub("", body)
