"""Studies: reading them, running what is missing, recording it."""

import errno
import json
from pathlib import Path

import pandas as pd
import pytest
from tiny_notebooks import write_notebook

from reidlib.__main__ import main
from reidlib.course import export, jobs, runner, sweeps

STUDY = {"about": "two rates, two seeds", "base": {"profile": "smoke"}, "sets": [{"rate": 0.5}, {"rate": 1}],
         "grid": {"seed": [0, 1]}}  # fmt: skip


def write_study(folder: Path, content: object = STUDY, name: str = "00_toy.rates.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def threads_of(study: sweeps.Study) -> list[int]:
    """Threads of each recorded run."""
    return [facts["threads"] for facts in sweeps.read_table(study.table)[1].values()]


@pytest.fixture
def no_kernels(monkeypatch):
    """Runs that only write their results: what a study does around them is tested without kernels."""
    ran = []

    def papermill(job, lines, resume, threads):
        ran.append(dict(job.given))
        if job.values["fail"]:
            raise RuntimeError("asked to fail")
        metrics = {"toy/mAP (plain AP)": {"value": job.values["seed"] / 10 + job.values["rate"], "rule": "plain AP"},
                   "toy/loss": {"value": 1 / 3, "rule": "mean"}}  # fmt: skip
        results = {"parameters": {"image_size": "64x32", "seed": job.values["seed"]}, "commit": "abc", "device": "cpu",
                   "threads": threads, "seconds": 1.5, "finished": f"2026-01-01T00:00:{len(ran):02}+00:00",
                   "metrics": metrics}  # fmt: skip
        (job.folder / "results.json").write_text(json.dumps(results))
        job.executed.write_text("{}")

    monkeypatch.setattr(runner, "_papermill", papermill)
    monkeypatch.setattr(export, "to_html", lambda executed: "")
    monkeypatch.setattr(jobs, "REPOSITORY", Path(__file__).parent)  # whose sources nobody edits meanwhile
    return ran


def test_a_study_is_every_set_with_every_point_of_the_grid(tmp_path: Path):
    write_notebook(tmp_path / "00_toy.ipynb")
    path = write_study(tmp_path)
    for name in (path, "00_toy.rates", "rates", "00_toy.rates.json"):
        study = sweeps.read_study(name, tmp_path)
        assert study.name == "00_toy.rates" and study.notebook == tmp_path / "00_toy.ipynb"
        assert [(s["rate"], s["seed"], s["profile"]) for s in study.sets] == [
            (0.5, 0, "smoke"), (1, 0, "smoke"), (0.5, 1, "smoke"), (1, 1, "smoke")]  # whole pairs  # fmt: skip
    assert isinstance(study.jobs(tmp_path / "runs")[3].values["rate"], float)


def test_pairs_are_a_range_and_come_whole_and_more_pairs_leave_the_first_recorded(tmp_path: Path, no_kernels: list):
    write_notebook(tmp_path / "00_toy.ipynb")
    content = {"sets": [{"rate": 0.5}, {"rate": 1}], "grid": {"limit": [1, 2], "seed": "0..1"}}
    study = sweeps.read_study(write_study(tmp_path, content), tmp_path)
    pairs = [(v["seed"], v["rate"], v["limit"]) for v in study.sets]
    assert pairs == [(s, rate, limit) for s in (0, 1) for rate in (0.5, 1) for limit in (1, 2)]
    list(sweeps.run_study(study, output_root=tmp_path / "runs"))
    content["grid"]["seed"] = "0..2"
    more = sweeps.read_study(write_study(tmp_path, content), tmp_path)
    assert [state for _, state, _ in sweeps.run_study(more, dry_run=True)] == ["recorded"] * 8 + ["missing"] * 4
    listed = {"sets": [{"seed": 2}, {"seed": 0, "rate": 1}, {"rate": 0.25}, {"seed": 2, "rate": 1}]}
    sets = sweeps.read_study(write_study(tmp_path, listed), tmp_path).sets
    assert [(v.get("seed", 0), v.get("rate")) for v in sets] == [(0, 1), (0, 0.25), (2, None), (2, 1)]


def test_a_dry_run_says_how_long_it_takes_and_from_what_that_is_known(tmp_path: Path, no_kernels: list, capsys):
    notebook = write_notebook(tmp_path / "00_toy.ipynb")
    write_study(
        tmp_path, {"base": {"profile": "course"}, "sets": [{"rate": 0.5}, {"rate": 1}], "grid": {"seed": "0..2"}}
    )
    call = ["sweep", "rates", "--folder", str(tmp_path), "--output-root", str(tmp_path / "runs")]

    def said() -> list[str]:
        assert main([*call, "--dry-run"]) == 0
        return capsys.readouterr().out.splitlines()

    lines = said()
    assert lines[0].endswith("profile=course rate=0.5 seed=0: missing · nobody knows how long")
    assert (
        lines[6]
        == "00_toy.rates: 6 runs, threads = 1; 0 recorded in 0 min, 6 missing: about 0 min and 6 of unknown length"
    )
    content = json.loads(notebook.read_text())
    content["metadata"]["reidlib"] = {"seconds_on_two_cores": {"course": 90, "smoke": 6}}
    notebook.write_text(json.dumps(content))
    lines = said()
    assert lines[0].endswith("missing · about 1.5 min, as the notebook notes for two cores")
    assert lines[6].endswith("0 recorded in 0 min, 6 missing: about 9 min")

    study = sweeps.read_study("rates", tmp_path)
    for values in ({"rate": 0.5, "seed": 0}, {"rate": 0.5, "seed": 2}, {"rate": 1.0, "seed": 0, "limit": 3}):
        one = sweeps.Study(study.name, notebook, [{"profile": "course", **values}])
        list(sweeps.run_study(one, output_root=tmp_path / "runs"))
    smoke = sweeps.Study(
        study.name, notebook, [{"profile": "smoke", "rate": 1.0, "seed": 1}]
    )  # tells nothing of course
    list(sweeps.run_study(smoke, output_root=tmp_path / "runs"))
    path = sweeps.runs_path(study.table)
    runs = json.loads(path.read_text())
    for facts, seconds in zip(runs.values(), (60, 120, 600, 1), strict=True):
        facts["seconds"] = seconds
    path.write_text(json.dumps(runs))
    lines = said()
    assert lines[0].endswith(f"recorded · took 1.0 min ({next(iter(runs))})")
    assert lines[2].endswith(
        "rate=0.5 seed=1: missing · about 1.5 min, as 2 recorded runs took"
    )  # only the seed differs
    assert lines[1].endswith("missing · about 10.0 min, as 1 recorded run took with another limit")
    assert lines[6] == "00_toy.rates: 6 runs, threads = 1; 2 recorded in 3 min, 4 missing: about 32 min"
    content = {"base": {"profile": "course"}, "sets": [{"rate": 0.5}, {"rate": 1}], "grid": {"seed": "0..2"}}
    write_study(tmp_path, content | {"minutes": 20})
    lines = said()  # its own recorded runs come before what is noted, other runs after it
    assert lines[2].endswith("about 1.5 min, as 2 recorded runs took")
    assert lines[1].endswith("missing · about 20.0 min, as the study notes")


def test_a_study_does_not_mix_numbers_of_threads(tmp_path: Path, no_kernels: list, capsys):
    write_notebook(tmp_path / "00_toy.ipynb")
    write_study(tmp_path, {"grid": {"seed": [0, 1]}, "threads": 2})
    study = sweeps.read_study("rates", tmp_path)
    assert study.threads == 2
    list(sweeps.run_study(study, output_root=tmp_path / "runs"))
    assert threads_of(study) == [2, 2]
    write_study(tmp_path, {"grid": {"seed": "0..2"}})
    call = ["sweep", "rates", "--folder", str(tmp_path), "--output-root", str(tmp_path / "runs")]
    for more in ([], ["--dry-run"]):
        assert main([*call, *more]) == 2
        said = capsys.readouterr().err
        assert "00_toy.rates runs with threads = 1, but course-" in said and 'write "threads": 2 into the study' in said
    with pytest.raises(ValueError, match="numbers do not mix"):
        next(sweeps.run_study(sweeps.read_study("rates", tmp_path), output_root=tmp_path / "runs"))
    write_study(tmp_path, {"grid": {"seed": "0..2"}, "threads": 2})
    assert main(call) == 0 and "2 recorded, 1 done" in capsys.readouterr().out and len(no_kernels) == 3


def test_what_is_no_study_is_refused(tmp_path: Path):
    write_notebook(tmp_path / "00_toy.ipynb")
    for content, message in [
        ({"grids": {}}, "unknown field grids"), ({"grid": {"seed": 1}}, "grid 'seed' must be a list"),
        ({"grid": {"seed": "0-5"}}, "or a range such as '0..5', got '0-5'"), ({"grid": {"seed": "5..0"}}, r"got \[\]"),
        ({"threads": 0}, "threads must be a number from 1 on, got 0"), ({"threads": "2"}, "got '2'"),
        ({"minutes": 0}, "minutes must be a number above 0, got 0"), ({"minutes": "20"}, "got '20'"),
        ({"sets": [{"seed": 1}, {"seed": 1}]}, "stands twice"), ([1], "is no study"), ({"sets": []}, "no parameter"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            sweeps.read_study(write_study(tmp_path, content), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'losses'; in .* there are: 00_toy\.rates"):
        sweeps.read_study("losses", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"study of 09_none\.ipynb"):
        sweeps.read_study(write_study(tmp_path, STUDY, "09_none.x.json"), tmp_path)


def test_a_study_is_recorded_row_by_row_and_only_once(tmp_path: Path, no_kernels: list, capsys):
    write_notebook(tmp_path / "00_toy.ipynb")
    write_study(tmp_path)
    call = ["sweep", "rates", "--folder", str(tmp_path), "--output-root", str(tmp_path / "runs")]
    assert main([*call, "--dry-run"]) == 0
    assert "4 missing" in capsys.readouterr().out and not no_kernels
    assert main([*call, "--limit-minutes", "0"]) == 0
    assert "4 left" in capsys.readouterr().out and not no_kernels
    assert main(call) == 0
    assert "4 done" in capsys.readouterr().out and len(no_kernels) == 4

    path = tmp_path / "recorded" / "00_toy.csv"
    text = path.read_text()
    assert text.splitlines()[0].split(",") == list(sweeps.COLUMNS) and len(text.splitlines()) == 9
    runs_text = sweeps.runs_path(path).read_text()
    assert str(tmp_path) not in text + runs_text  # rows hold nothing of where they were made
    assert len(json.loads(runs_text)) == 4 and runs_text.count('"rate"') == 4  # parameters once a run
    table = sweeps.recorded("00_toy", tmp_path)
    first = table.iloc[0]
    assert (first["study"], first["profile"], first["image_size"], first["seed"], first["rate"], first["device"]) == (
        "00_toy.rates", "smoke", "64x32", 0, 0.5, "cpu")  # fmt: skip
    assert table[table["metric"] == "toy/loss"]["value"].tolist() == [1 / 3] * 4  # to the last digit
    spread = sweeps.mean_and_spread(table[table["metric"] == "toy/mAP (plain AP)"], ["rate"])
    assert spread["mean"].tolist() == [0.55, 1.05] and spread["runs"].tolist() == [2, 2]
    assert spread["spread"].tolist() == pytest.approx([0.005**0.5] * 2)

    assert main(call) == 0  # a second sitting has nothing to do
    assert "4 recorded" in capsys.readouterr().out and len(no_kernels) == 4 and path.read_text() == text


def test_a_run_that_was_killed_before_its_row_is_not_run_again(tmp_path: Path, no_kernels: list):
    write_notebook(tmp_path / "00_toy.ipynb")
    study = sweeps.read_study(write_study(tmp_path), tmp_path)
    list(sweeps.run_study(study, output_root=tmp_path / "runs"))
    path = tmp_path / "recorded" / "00_toy.csv"
    table = pd.read_csv(path)
    odd = [name for name, facts in json.loads(sweeps.runs_path(path).read_text()).items() if facts["seed"] == 1]
    table[~table["run"].isin(odd)].to_csv(path, index=False)
    states = [state for _, state, _ in sweeps.run_study(study, output_root=tmp_path / "runs")]
    assert states == ["recorded", "recorded", "done", "done"] and len(no_kernels) == 4
    assert len(sweeps.recorded("00_toy", tmp_path)) == 8


def test_a_failure_is_told_and_the_rest_goes_on(tmp_path: Path, no_kernels: list, capsys):
    write_notebook(tmp_path / "00_toy.ipynb")
    write_study(tmp_path, {"sets": [{"fail": True}, {"seed": 3}]})
    call = ["sweep", "rates", "--folder", str(tmp_path), "--output-root", str(tmp_path / "runs")]
    assert main(call) == 1
    out = capsys.readouterr().out
    assert "failed · " in out and "asked to fail" in out and "1 failed, 1 done" in out
    assert main([*call, "--no-keep-going"]) == 1
    assert sweeps.recorded("00_toy", tmp_path)["seed"].unique().tolist() == [3]


def test_a_full_disk_at_a_row_is_said_and_the_row_is_recorded_next_time(
    tmp_path: Path, no_kernels: list, monkeypatch, capsys
):
    write_notebook(tmp_path / "00_toy.ipynb")
    write_study(tmp_path, {"grid": {"seed": [0, 1]}})
    append, full = sweeps.append, [True]

    def fails_once(*arguments):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", full.pop())
        return append(*arguments)

    monkeypatch.setattr(sweeps, "append", fails_once)
    call = ["sweep", "rates", "--folder", str(tmp_path), "--output-root", str(tmp_path / "runs")]
    assert main(call) == 1
    said = capsys.readouterr().out
    assert "failed · the disk is full: " in said and "00_toy.csv could not be written" in said
    assert "1 failed, 1 done" in said
    assert main(call) == 0 and "1 done, 1 recorded" in capsys.readouterr().out and len(no_kernels) == 2


def test_a_damaged_table_is_said_before_anything_runs(tmp_path: Path, no_kernels: list, capsys):
    write_notebook(tmp_path / "00_toy.ipynb")
    write_study(tmp_path)
    (tmp_path / "recorded").mkdir()
    for content in ("a,b\n1,2\n", "", "run,metric,value,rule,superseded\nx,a,1.0,b,\n"):
        (tmp_path / "recorded" / "00_toy.csv").write_text(content)
        assert main(["sweep", "rates", "--folder", str(tmp_path), "--output-root", str(tmp_path / "runs")]) == 2
        assert capsys.readouterr().err.startswith("reidlib sweep: ") and not no_kernels


def test_a_switch_added_later_counts_as_recorded_with_its_default(tmp_path: Path, no_kernels: list):
    notebook = write_notebook(tmp_path / "00_toy.ipynb")
    study = sweeps.read_study(write_study(tmp_path), tmp_path)
    list(sweeps.run_study(study, output_root=tmp_path / "runs"))
    from tiny_notebooks import PARAMETERS

    write_notebook(notebook, parameters=PARAMETERS + "\nwidth: int = 8  # of the net")
    states = [state for _, state, _ in sweeps.run_study(study, output_root=tmp_path / "runs", dry_run=True)]
    assert states == ["recorded"] * 4
    wider = sweeps.read_study(write_study(tmp_path, {**STUDY, "base": {"profile": "smoke", "width": 16}}), tmp_path)
    assert [state for _, state, _ in sweeps.run_study(wider, dry_run=True)] == ["missing"] * 4


def test_a_wrong_parameter_ends_before_anything_runs(tmp_path: Path, no_kernels: list, capsys):
    write_notebook(tmp_path / "00_toy.ipynb")
    call = ["sweep", "rates", "--folder", str(tmp_path), "--output-root", str(tmp_path / "runs")]
    for values, message in [
        ({"sead": 1}, "did you mean seed?"),
        ({"seed": "one"}, "seed = 'one' is str, it must be int"),
    ]:
        write_study(tmp_path, {"sets": [{"seed": 5}, values]})
        assert main(call) == 2 and message in capsys.readouterr().err
    assert not no_kernels


def test_a_notebook_without_a_record_has_an_empty_table(tmp_path: Path):
    table = sweeps.recorded("00_toy.ipynb", tmp_path)
    assert table.empty and "metric" in table
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "00_toy.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns run"):
        sweeps.recorded("00_toy", tmp_path)


def test_a_study_through_a_kernel(tmp_path: Path, capsys):
    write_notebook(tmp_path / "note books" / "00_toy.ipynb")
    write_study(tmp_path / "note books", {"base": {"profile": "smoke"}, "grid": {"rate": [0.25]}})
    call = ["sweep", "rates", "--folder", str(tmp_path / "note books"), "--output-root", str(tmp_path / "the runs")]
    assert main(call) == 0
    table = sweeps.recorded("00_toy", tmp_path / "note books")
    assert table["metric"].tolist() == ["toy/mAP (plain AP)", "toy/noise"] and table["rate"].tolist() == [0.25, 0.25]
    assert table["rule"].tolist() == ["plain AP", "one draw"] and "1 done" in capsys.readouterr().out
    assert table["threads"].tolist() == [1, 1]  # whatever this machine has


def test_two_sweeps_at_once_share_the_work_and_double_no_row(tmp_path: Path, no_kernels: list, monkeypatch):
    write_notebook(tmp_path / "00_toy.ipynb")
    study = sweeps.read_study(write_study(tmp_path), tmp_path)
    papermill, second = runner._papermill, []

    def meanwhile(job, *arguments):
        if not second:  # the first run of the first sweep: two more sweeps begin and end in the meantime
            second.append(None)
            second[:] = [state for _, state, _ in sweeps.run_study(study, output_root=job.output_root)]
            second.extend(state for _, state, _ in sweeps.run_study(study, output_root=tmp_path / "elsewhere"))
        papermill(job, *arguments)

    monkeypatch.setattr(runner, "_papermill", meanwhile)
    first = [(state, words) for _, state, words in sweeps.run_study(study, output_root=tmp_path / "runs")]
    assert second == ["busy", "done", "done", "done", "done", "recorded", "recorded", "recorded"]
    assert [state for state, _ in first] == ["done", "recorded", "recorded", "recorded"] and first[0][1].startswith(
        "0 "
    )
    table = sweeps.recorded("00_toy", tmp_path)
    assert len(table) == 8 and not table.duplicated(["run", "metric"]).any() and len(no_kernels) == 5


def test_superseded_rows_stay_and_are_run_again(tmp_path: Path, no_kernels: list, monkeypatch):
    write_notebook(tmp_path / "00_toy.ipynb")
    study = sweeps.read_study(write_study(tmp_path, {"grid": {"seed": [0, 1]}}), tmp_path)
    list(sweeps.run_study(study, output_root=tmp_path / "runs"))
    path = tmp_path / "recorded" / "00_toy.csv"
    first, *_ = lines = path.read_text().splitlines()
    assert first.endswith(",superseded")
    lines[1] += "the loss was summed"
    path.write_text("\n".join(lines) + "\n")  # one row of the first run: the run itself still counts
    assert [state for _, state, _ in sweeps.run_study(study, output_root=tmp_path / "runs")] == ["recorded"] * 2
    assert len(sweeps.recorded("00_toy", tmp_path)) == 3 and "superseded" not in sweeps.recorded("00_toy", tmp_path)
    everything = sweeps.recorded("00_toy", tmp_path, superseded=True)
    assert everything["superseded"].tolist() == ["the loss was summed", "", "", ""]
    lines[2] += "likewise"
    path.write_text("\n".join(lines) + "\n")  # all its rows: it is run again, and both recordings stay
    papermill, resumed = runner._papermill, []
    monkeypatch.setattr(runner, "_papermill", lambda *given: resumed.append(given[2]) or papermill(*given))
    assert [state for _, state, _ in sweeps.run_study(study, output_root=tmp_path / "runs")] == ["done", "recorded"]
    table = sweeps.recorded("00_toy", tmp_path, superseded=True)
    assert table["run"].nunique() == 3 and table["run"].iloc[-1] == f"{table['run'].iloc[0]}.2"
    assert table[table["superseded"] == ""]["seed"].tolist() == [1, 1, 0, 0] and len(no_kernels) == 3
    assert resumed == [False]  # nor does it go on from the old one's checkpoints
    assert path.read_text().startswith("\n".join(lines))  # nothing that stood there was touched


def test_a_table_that_was_edited_by_hand_keeps_its_form(tmp_path: Path, no_kernels: list):
    """Its columns may stand in another order, beside one of the editor's own, and the last line may lack its end."""
    write_notebook(tmp_path / "00_toy.ipynb")
    study = sweeps.read_study(write_study(tmp_path, {"grid": {"seed": [0]}}), tmp_path)
    list(sweeps.run_study(study, output_root=tmp_path / "runs"))
    path = tmp_path / "recorded" / "00_toy.csv"
    edited = sweeps.read_table(path)[0].assign(remark="seen")[
        ["remark", "superseded", "value", "run", "rule", "metric"]
    ]
    path.write_text(edited.to_csv(index=False).rstrip("\n"))
    more = sweeps.read_study(write_study(tmp_path, {"grid": {"seed": [0, 1]}}), tmp_path)
    assert [state for _, state, _ in sweeps.run_study(more, output_root=tmp_path / "runs")] == ["recorded", "done"]
    found = sweeps.recorded("00_toy", tmp_path)
    assert found["value"].tolist() == pytest.approx([0.5, 1 / 3, 0.6, 1 / 3]) and found["seed"].tolist() == [0, 0, 1, 1]
    assert sweeps.read_table(path)[0]["remark"].tolist() == ["seen", "seen", "", ""]


def test_a_run_without_numbers_fails_and_the_rest_goes_on(tmp_path: Path, no_kernels: list, monkeypatch):
    write_notebook(tmp_path / "00_toy.ipynb")
    study = sweeps.read_study(write_study(tmp_path, {"grid": {"seed": [0, 1]}}), tmp_path)
    papermill = runner._papermill

    def once_empty(job, lines, resume, threads):
        papermill(job, lines, resume, threads)
        if job.values["seed"] == 0:
            (job.folder / "results.json").write_text(json.dumps({"metrics": {}, "parameters": {}}))

    monkeypatch.setattr(runner, "_papermill", once_empty)
    states = [(state, words) for _, state, words in sweeps.run_study(study, output_root=tmp_path / "runs")]
    assert [state for state, _ in states] == ["failed", "done"] and "has no metric to record" in states[0][1]


def test_a_finished_run_of_another_number_of_threads_is_run_again(tmp_path: Path, no_kernels: list):
    write_notebook(tmp_path / "00_toy.ipynb")
    study = sweeps.read_study(write_study(tmp_path, {"grid": {"seed": [0]}}), tmp_path)
    runner.execute(study.jobs(tmp_path / "runs")[0], threads=2)
    list(sweeps.run_study(study, output_root=tmp_path / "runs"))
    assert threads_of(study) == [1] and len(no_kernels) == 2


def test_other_recorded_weights_are_other_code(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(jobs, "REPOSITORY", tmp_path)
    weights = tmp_path / "notebooks" / "weights" / "artist.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"one")
    notebook = write_notebook(tmp_path / "00_toy.ipynb")
    before, again = (jobs.plan(notebook, {}, output_root=tmp_path / "runs").code for _ in range(2))
    weights.write_bytes(b"two")
    assert before == again != jobs.plan(notebook, {}, output_root=tmp_path / "runs").code


def test_renamed_and_dropped_parameters_leave_recorded_runs_recorded(tmp_path: Path, no_kernels: list):
    from tiny_notebooks import PARAMETERS

    old = PARAMETERS + '\npair: str = "5 6"  # two cameras\nweights: str = "train"  # unused'
    notebook = write_notebook(tmp_path / "00_toy.ipynb", parameters=old)
    sets = [{"pair": "5 6", "seed": 0}, {"pair": "3 2", "seed": 1}]
    list(sweeps.run_study(sweeps.read_study(write_study(tmp_path, {"sets": sets}), tmp_path), output_root=tmp_path))

    def states(parameters: str, sets: list) -> list[str]:
        write_notebook(notebook, parameters=parameters)
        study = sweeps.read_study(write_study(tmp_path, {"sets": sets}), tmp_path)
        return [state for _, state, _ in sweeps.run_study(study, dry_run=True)]

    typed = PARAMETERS + "\npair: list[int] = [5, 6]  # two cameras"
    lists = [{"pair": [5, 6], "seed": 0}, {"pair": [3, 2], "seed": 1}, {"pair": [3, 2], "seed": 0}]
    assert states(typed, lists) == ["recorded", "missing", "recorded"]  # seed by seed
    renamed = PARAMETERS + "\ncameras: list[int] = [5, 6]  # two cameras"
    assert states(renamed, [{"seed": 0}, {"seed": 1}]) == ["missing", "missing"]  # `pair` differed: nobody can tell
    assert states(typed.replace("[5, 6]", "[7]"), [{"seed": 0, "pair": [5, 6]}, {"seed": 0}]) == ["recorded", "missing"]
