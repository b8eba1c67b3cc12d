"""Recorded tables: what is refused, what is shown, and that the course's own are as they were recorded."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from reidlib.course import jobs, sweeps


def test_a_table_without_its_runs_is_refused(tmp_path: Path):
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "00_toy.csv").write_text("run,metric,value,rule,superseded\ncourse-1,a,1.0,b,\n")
    with pytest.raises(ValueError, match=r"00_toy\.runs\.json lacks the run course-1 of 00_toy\.csv"):
        sweeps.recorded("00_toy", tmp_path)
    (tmp_path / "recorded" / "00_toy.csv").write_text("run,metric,value,rule,superseded\ncourse-1,a,1.0,b,bad, or so\n")
    with pytest.raises(ValueError, match="a reason with a comma needs quotes"):
        sweeps.recorded("00_toy", tmp_path)


CONVERTED = {  # rows, runs and checksum of each table before its parameters moved from every row to its runs
    "02_reid_baseline": (534, 3, "62a1259b6bb099e10f51d4748171755db9dff04c7eed4036fd6e2fb97aed3863"),
    "03_camera_transfer": (875, 4, "e2ee9bbf31ef3ddcb6212536cf868c6e9e9d609b5bf2e598853be4c30569f4f6"),
    "04_pn_gan": (1332, 7, "adbfecf4afa75182b1dabdfa7b10b57af620eca233b502fa3aeda3664586d059"),
}


@pytest.mark.parametrize("notebook", CONVERTED)
def test_the_first_recordings_are_as_they_were(notebook: str):
    """Every row, fact and parameter that was recorded up to commit 2973826, to the last digit."""
    rows, n_runs, checksum = CONVERTED[notebook]
    table = sweeps.recorded(notebook, superseded=True)
    table = table[~table["superseded"].str.contains("taken out by hand")]
    first = table["run"].isin(table["run"].unique()[:n_runs])
    assert table.loc[first, "superseded"].str.startswith("recorded before renderer version 3 (").all()
    table = table[first].dropna(axis=1, how="all").drop(columns=["threads", "superseded"])
    plain = [
        {name: float(value) if isinstance(value, int | float) else str(value) for name, value in row.items()}
        for row in table[sorted(table)].to_dict("records")
    ]
    assert len(plain) == rows
    assert hashlib.sha256(json.dumps(plain).encode()).hexdigest() == checksum


def test_the_rows_that_were_taken_out_by_hand_are_back():
    table = sweeps.recorded("04_pn_gan", superseded=True)
    gone = table[table["superseded"].str.contains("taken out by hand")]
    assert set(gone["superseded"].str.partition(";")[0]) == {"the DCGAN had learnt nothing: pictures of noise"}
    assert gone["value"].tolist() == [0.77, 0.62, 0.03, 0.04] and set(gone["run"]) == {"course-39bca5df"}
    assert gone["metric"].str.startswith("LSRO/").all()
    assert len(sweeps.recorded("04_pn_gan")) == (table["superseded"] == "").sum()


def test_a_recorded_table_is_shown_or_its_command_is_said(capsys):
    table = pd.DataFrame({"value": [1.0]})
    assert sweeps.to_show(table, "00_toy.rates") is table and capsys.readouterr().out == ""
    assert sweeps.to_show(table[:0], "00_toy.rates") is None
    assert capsys.readouterr().out == "not recorded yet with the present test people: `reidlib sweep 00_toy.rates`\n"


STUDIES = sorted(path.stem for path in jobs.NOTEBOOKS.glob("*.*.json"))


@pytest.mark.parametrize("study", STUDIES)
def test_the_courses_studies_fit_their_notebooks_and_stay_recorded(study: str):
    """Renamed, typed and dropped parameters must not make recorded runs look missing."""
    states = [state for _, state, _ in sweeps.run_study(sweeps.read_study(study), dry_run=True)]
    table = sweeps.recorded(study.partition(".")[0])
    assert states.count("recorded") == table.loc[table["study"] == study, "run"].nunique()
