"""What the README says: its links, its example, and its numbers, which stand in the recorded table."""

import re

import pytest

from reidlib.course import paper_tables, sweeps
from reidlib.files import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and all((REPOSITORY / link).exists() for link in links), links


def test_every_notebook_is_listed_with_the_time_it_notes():
    import nbformat

    for path in sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        seconds = nbformat.read(path, as_version=4).metadata["reidlib"]["seconds_on_two_cores"]
        (row,) = [line for line in README.splitlines() if line.startswith("|") and f"notebooks/{path.name}" in line]
        assert f"| {seconds['smoke']} s | {seconds['course']} s |" in row


def results(header: str) -> list[list[str]]:
    lines = README[README.index(header) :].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: lines.index("")]]


@pytest.mark.parametrize("row", results("| method | rank-1 |"), ids=lambda row: row[0])
def test_results_are_those_recorded(row):
    table = sweeps.recorded("02_reid_baseline")
    for cell, metric in zip(row[1:], ("rank-1", "mAP (plain AP)", "mAP (trapezoid AP)"), strict=True):
        values = table[table["metric"] == f"{row[0]}/{metric}"]["value"] * 100
        expected = f"{values.mean():.1f} ± {values.std():.1f}" if len(values) else "–"
        assert cell == expected, metric
        assert len(values) in (0, 3)


@pytest.mark.parametrize(
    ("notebook", "row"),
    [("03_camera_transfer", row) for row in results("| camera transfer | mAP | rank-1 |")]
    + [("04_pn_gan", row) for row in results("| PN-GAN | mAP | rank-1 |")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_paper_rows_are_those_recorded(notebook, row):
    """A row is "T7 market1501 c5+G6, Model 4": table, data set, setting, method."""
    ours = paper_tables.rows_of(sweeps.recorded(notebook))
    mine = ours[ours.row == "|".join(re.fullmatch(r"(\S+) (\S+) ([^,]+), (.+)", row[0]).groups())]
    assert len(mine)
    for cell, metric in zip(row[1:], ("mAP", "rank1"), strict=True):
        assert cell == paper_tables.mean_text(mine[mine.metric == metric].value)


def test_the_example_runs(tmp_path, capsys):
    code = README[README.index("```python\n") + 10 :].split("```")[0]
    small = code.replace(
        'size="course"', f'root={str(tmp_path)!r}, size="smoke", progress=False, cache={str(tmp_path)!r}'
    )
    assert small != code
    exec(compile(small, "README.md", "exec"), {})
    assert "mAP (plain AP)" in capsys.readouterr().out
