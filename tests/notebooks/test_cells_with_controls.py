"""Cells with controls, as a reader moves them: what notebook 01 draws of a ranking that was typed in."""

from types import SimpleNamespace

import ipywidgets
import nbformat

from reidlib.files import REPOSITORY


def test_a_ranking_can_be_edited(shown, capsys):
    cells = nbformat.read(REPOSITORY / "notebooks" / "01_retrieval_metrics.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    saved = {}
    names = {"run": SimpleNamespace(figure=lambda figure, name: saved.setdefault(name, figure))}
    for beginning in ("from dataclasses import", "def precision_at_hits", "def score_row", "def draw_ranking"):
        (source,) = [source for source in code if source.startswith(beginning)]
        exec(source.split("\nsettings = ")[0], names)
    (box,) = [one for one in shown if isinstance(one, ipywidgets.VBox)]
    ranking, camera_rule = box.children[0].children

    def drawn():
        """Titles of what was drawn last: rank-1 and INP, and both APs."""
        axis = [one for one in shown if hasattr(one, "axes")][-1].axes[1]
        return axis.get_title(), [text.get_text() for text in axis.get_legend().get_texts()]

    assert drawn() == ("rank-1 0 %, INP 0.50", ["plain: AP = 0.500", "trapezoid: AP = 0.333"])
    assert saved["ranking"] in shown
    camera_rule.value = False  # 1 0 1 1 0 1: (1 + 2/3 + 3/4 + 4/6) / 4 by the plain rule
    assert drawn() == ("rank-1 100 %, INP 0.67", ["plain: AP = 0.771", "trapezoid: AP = 0.731"])
    ranking.value = "101001"  # the text's own
    assert drawn() == ("rank-1 100 %, INP 0.50", ["plain: AP = 0.722", "trapezoid: AP = 0.678"])
    capsys.readouterr()
    for wrong in ("10x", "00jj"):
        ranking.value = wrong
        assert "Write 1, 0, s and j" in capsys.readouterr().out
