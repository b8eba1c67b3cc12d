"""A figure with controls where a reader sits at the notebook; where nobody can move them, the figure as it begins."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reidlib.machine import is_interactive


def interactive(
    draw: Callable[..., Figure], clicked: Callable[..., Mapping[str, Any]] | None = None, **controls: Any
) -> Figure:
    """Show `draw(**values)` with one control for each of its arguments, and draw again when a control is moved.

    In a notebook that somebody has open the controls stand above the figure. In a notebook that runs from a command,
    and outside notebooks, the figure is drawn once. Either way the figure of the first values is returned, so that the
    notebook can save it:

        def draw(rank=3, rule="plain"):
            figure, axis = plt.subplots()
            ...
            return figure

        run.figure(interactive(draw, rank=(1, 10, 1), rule=["plain", "trapezoid"]), "rank_and_rule");

    Args:
        draw: makes a new figure from the controls' values, which come as keyword arguments. A ValueError that it raises
            is shown in place of the figure, for what a reader may type.
        clicked: makes the figure itself a control. Called with the axis that was clicked, where a press began and where
            it ended (in the axis's own coordinates), and the controls' values, it returns those that change.
        controls: by the name of an argument: a list is a menu, (lowest, highest, step) a slider (whole numbers where
            all three are), True or False a box to tick, a text a line to type in. The first value is the argument's
            default in `draw`; without one it is the list's first, the lowest, or the text or truth value itself.

    Raises:
        ValueError: for a control of another kind, and for a first value that its control cannot take.

    >>> def draw(rank, rule="trapezoid"):
    ...     figure, axis = plt.subplots()
    ...     axis.set_title(f"{rule}, {rank}")
    ...     return figure
    >>> interactive(draw, rank=(1, 10, 1), rule=["plain", "trapezoid"]).axes[0].get_title()
    'trapezoid, 1'
    """
    first = {name: _first_value(draw, name, control) for name, control in controls.items()}
    begun = draw(**first)
    if not (hasattr(get_ipython(), "kernel") and is_interactive()):
        return begun
    import ipywidgets
    from IPython.display import display

    plt.close(begun)  # or the notebook shows it a second time, below the cell

    widgets = {name: _widget(name, control, first[name]) for name, control in controls.items()}
    picture = None if clicked is None else _clickable(clicked, widgets)

    def show(**values: Any) -> None:
        try:
            figure = begun if values == first else draw(**values)
        except ValueError as error:
            print(error)
            return
        plt.close(figure)
        display(figure) if picture is None else picture.show(figure)

    shown = [ipywidgets.HBox([*widgets.values()]), *([] if picture is None else [picture])]
    display(ipywidgets.VBox([*shown, ipywidgets.interactive_output(show, widgets)]))
    return begun


def _clickable(clicked: Callable[..., Mapping[str, Any]], widgets: Mapping[str, Any]) -> Any:
    """Return the picture whose clicks set the widgets."""
    from reidlib.course.clickable import ClickablePicture

    def set_values(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
        values = {name: widget.value for name, widget in widgets.items()}
        for name, value in clicked(axis, start, end, values).items():
            widgets[name].value = value

    return ClickablePicture(set_values)


def _first_value(draw: Callable[..., Figure], name: str, control: Any) -> Any:
    default = inspect.signature(draw).parameters[name].default
    given = default is not inspect.Parameter.empty
    match control:
        case bool() | str():
            first, fits = control, isinstance(default, type(control))
        case [first, *_] if isinstance(control, list):
            fits = default in control
        case (int() | float() as first, int() | float() as highest, int() | float()):
            fits = isinstance(default, int | float) and first <= default <= highest
        case _:
            raise ValueError(f"control {name}={control!r}: give a list, (lowest, highest, step), True, False or a text")
    if given and not fits:
        raise ValueError(f"control {name}={control!r} cannot begin at {default!r}, the default of draw")
    return default if given else first


def _widget(name: str, control: Any, value: Any) -> Any:
    import ipywidgets

    widget = ipywidgets.interactive.widget_from_abbrev(control)
    widget.value, widget.description = value, name.replace("_", " ")
    widget.style.description_width = "initial"
    widget.continuous_update = False  # a slider draws when it is let go, a text when it is entered
    return widget
