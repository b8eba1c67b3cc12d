"""`reidlib claims`: the papers' claims beside what is recorded."""

import argparse
from pathlib import Path

import pandas as pd

from reidlib.checks import check_choice, reading_inputs
from reidlib.course.jobs import NOTEBOOKS
from reidlib.course.paper_tables import FOLDER, check_claims, readable, rows_of, summary
from reidlib.course.sweeps import recorded
from reidlib.files import resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib claims`."""
    parser.add_argument("paper", nargs="*", help="such as camera_transfer; default all that have a recorded table")
    parser.add_argument("--folder", default=str(NOTEBOOKS), help="where notebooks and their records lie")


def run(options: argparse.Namespace) -> int:
    """Print each paper's claims beside what is recorded in the table of its notebook, `NN_<paper>.csv`."""
    folder, claims = Path(options.folder), pd.read_csv(resolve(FOLDER) / "claims.csv")
    tables = {path.stem.partition("_")[2]: path.stem for path in sorted((folder / "recorded").glob("*.csv"))}
    papers = [name for name in tables if name in set(claims.paper)]
    with reading_inputs():
        for paper in options.paper:
            check_choice("paper", paper, papers)
        ours = {paper: rows_of(recorded(tables[paper], folder)) for paper in options.paper or papers}
    for paper, rows in ours.items():
        board = check_claims(rows, paper)
        print(f"{paper} (recorded in {tables[paper]}): {summary(board)}")
        if missing := [name for name in claims[claims.paper == paper].id if name not in board.index]:
            print(f"not recorded: {', '.join(missing)}")
        print(readable(board).to_string(max_colwidth=90) if len(board) else "", end="\n\n")
    return 0
