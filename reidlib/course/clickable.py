"""A figure that knows where somebody clicked, or from where to where they dragged."""

import io
from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Point = tuple[float, float]


class ClickablePicture(anywidget.AnyWidget):
    """A picture of a figure; `clicked(axis, start, end)` is called with data coordinates of the axis under the press.

    A plain click has the same start and end. A press outside all axes is passed over.

    >>> import matplotlib.pyplot as plt
    >>> figure = plt.figure(figsize=(4, 4))
    >>> axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0, 10))
    >>> picture = ClickablePicture(lambda axis, start, end: print(*map(round, (*start, *end))))
    >>> picture.show(figure); plt.close(figure)
    >>> picture.drag = [0.5, 0.5, 0.5, 0.5]
    5 5 5 5
    """

    _esm = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")  # the part that runs in the browser
    png = traitlets.Bytes().tag(sync=True)
    drag = traitlets.List(traitlets.Float()).tag(sync=True)  # x and y of start and end, shares from the upper left

    def __init__(self, clicked: Callable[[Axes, Point, Point], object]) -> None:
        super().__init__()
        self._clicked, self._figure = clicked, None
        self.observe(self._on_drag, "drag")

    def show(self, figure: Figure) -> None:
        """Show this figure, cut to what it holds."""
        buffer, self._figure = io.BytesIO(), figure
        self._box = figure.get_tightbbox().padded(0.05)  # in inches
        figure.savefig(buffer, format="png", bbox_inches=self._box)
        self.png = buffer.getvalue()

    def _on_drag(self, change: dict) -> None:
        x0, y0, x1, y1 = change["new"]
        box, dpi = self._box, self._figure.dpi
        start, end = (
            (dpi * (box.x0 + x * box.width), dpi * (box.y1 - y * box.height)) for x, y in ((x0, y0), (x1, y1))
        )
        for axis in self._figure.axes:
            if axis.bbox.contains(*start):
                self._clicked(axis, *(tuple(axis.transData.inverted().transform(at).tolist()) for at in (start, end)))
                return
