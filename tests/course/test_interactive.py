"""Figures with controls: what is drawn first, what each control becomes, and that moving one draws again."""

import sys
from types import SimpleNamespace

import ipywidgets
import matplotlib.pyplot as plt
import pytest

import reidlib.course.interactive  # noqa: F401 (the module; its name is also its function's)
from reidlib.course.interactive import interactive

module = sys.modules["reidlib.course.interactive"]
CONTROLS = {"rank": (1, 10, 1), "weight": (0.0, 1.0, 0.1), "rule": ["plain", "trapezoid"], "row": "101", "masks": False}


@pytest.fixture
def drawn():
    """A function that notes what it was asked for, and the figures that it made."""

    def draw(rank, weight=0.3, rule="trapezoid", row="101", masks=True):
        if row == "":
            raise ValueError("a row of ones and zeros, please")
        draw.asked.append((rank, weight, rule, row, masks))
        draw.figures.append(plt.figure())
        return draw.figures[-1]

    draw.asked, draw.figures = [], []
    yield draw
    plt.close("all")


@pytest.mark.parametrize("shell", [None, SimpleNamespace(kernel=True)])
def test_where_nobody_watches_the_figure_is_drawn_once(drawn, shown, shell, monkeypatch):
    monkeypatch.setattr(module, "get_ipython", lambda: shell)
    monkeypatch.setattr(module, "is_interactive", lambda: shell is None)  # a terminal is no notebook either
    figure = interactive(drawn, **CONTROLS)
    assert figure is drawn.figures[0] and plt.fignum_exists(figure.number)  # a notebook shows what is still open
    assert drawn.asked == [(1, 0.3, "trapezoid", "101", True)] and not shown


def test_moving_a_control_draws_again(drawn, shown, capsys):
    figure = interactive(drawn, **CONTROLS)
    (box,) = [one for one in shown if isinstance(one, ipywidgets.VBox)]
    controls = dict(zip(CONTROLS, box.children[0].children, strict=True))
    kinds = [type(control).__name__ for control in controls.values()]
    assert kinds == ["IntSlider", "FloatSlider", "Dropdown", "Text", "Checkbox"]
    assert [control.value for control in controls.values()] == [1, 0.3, "trapezoid", "101", True]
    assert figure in shown and len(drawn.asked) == 1  # the first values are not drawn twice
    for name, value in {"rank": 7, "weight": 0.8, "rule": "plain", "row": "0110", "masks": False}.items():
        controls[name].value = value
    assert drawn.asked[1:] == [
        (7, 0.3, "trapezoid", "101", True),
        (7, 0.8, "trapezoid", "101", True),
        (7, 0.8, "plain", "101", True),
        (7, 0.8, "plain", "0110", True),
        (7, 0.8, "plain", "0110", False),
    ]
    assert drawn.figures[-1] in shown and not plt.get_fignums()  # or a notebook shows them once more
    controls["row"].value = ""
    assert capsys.readouterr().out.endswith("a row of ones and zeros, please\n") and len(drawn.asked) == 6


@pytest.mark.parametrize(
    ("control", "default", "fault"),
    [
        ({"x": (1, 5)}, 1, r"control x=\(1, 5\): give a list, \(lowest, highest, step\)"),
        ({"x": []}, 1, r"control x=\[\]: give"),
        ({"x": (1, 5, 1)}, 6, r"x=\(1, 5, 1\) cannot begin at 6"),
        ({"x": ["a", "b"]}, "c", r"cannot begin at 'c'"),
        ({"x": "text"}, 3, "cannot begin at 3"),
    ],
)
def test_controls_that_do_not_fit_are_refused(control, default, fault):
    with pytest.raises(ValueError, match=fault):
        interactive(lambda x=default: plt.figure(), **control)


def test_a_click_on_the_figure_moves_the_controls(shown):
    asked = []

    def draw(x=3, y=4):
        asked.append((x, y))
        figure = plt.figure(figsize=(4, 2))
        figure.add_axes((0, 0, 0.5, 1), xlim=(0, 10), ylim=(10, 0), xticks=[], yticks=[], title=" ")
        return figure

    def clicked(axis, start, end, values):
        asked.append(values)
        return {"x": round(start[0]), "y": round(end[1])}

    figure = interactive(draw, clicked, x=(0, 9, 1), y=(0, 9, 1))
    (box,) = [one for one in shown if isinstance(one, ipywidgets.VBox)]
    controls, picture, _ = box.children
    assert figure not in shown and picture.png.startswith(b"\x89PNG") and asked == [(3, 4)]
    first, tight = picture.png, picture._box
    left, right, top, bottom = 0, 2, 2, 0  # inches of the axis

    def at(x, y):
        """Shares of the picture for data coordinates."""
        inches = left + (right - left) * x / 10, top + (bottom - top) * y / 10
        return [(inches[0] - tight.x0) / tight.width, (tight.y1 - inches[1]) / tight.height]

    picture.drag = [*at(7, 1), *at(2, 8)]
    assert [control.value for control in controls.children] == [7, 8]
    assert asked[1:] == [{"x": 3, "y": 4}, (7, 4), (7, 8)] and picture.png != b""
    picture.drag = [*at(19, 5), *at(2, 8)]  # beside the axis
    assert len(asked) == 4 and first.startswith(b"\x89PNG") and not plt.get_fignums()
