"""Runs and their results, and the parameters cell."""

import json
import math
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from tiny_notebooks import settings_of, write_notebook

from reidlib.course import runs
from reidlib.course.settings import Parameter, ParameterError, check_value, read_parameters, read_value
from reidlib.evaluators import average_over_splits
from reidlib.machine import commit, watch_memory


def a_figure():
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, 1])
    plt.close(figure)
    return figure


def test_a_run_leaves_its_results(tmp_path: Path):
    run = runs.start("00_toy", settings_of(tmp_path / "my runs"))
    first = torch.rand(3)
    assert torch.equal(first, torch.rand(3, generator=torch.Generator().manual_seed(3)))
    run.figure(a_figure(), "curve")
    run.table(pd.DataFrame({"step": [1]}), "losses")
    run.metric("toy/mAP (plain AP)", 0.25)
    run.metrics("toy", {"rank-1": torch.tensor(0.5)}, rule="cross camera")
    run.checkpoint(run.path("weights.safetensors")).write_bytes(b"x")
    path = run.finish(figures=["curve"], metrics=["*/mAP*", "toy/rank-1", "toy"])

    results = json.loads(path.read_text())
    assert path == run.folder / "results.json" and path.parent.parent.name == "00_toy"
    assert results["metrics"] == {
        "toy/mAP (plain AP)": {"value": 0.25, "rule": "plain AP"},
        "toy/rank-1": {"value": 0.5, "rule": "cross camera"},
    }
    assert results["figures"] == ["figures/curve.png"] and results["checkpoints"] == ["weights.safetensors"]
    assert results["parameters"]["seed"] == 3 and results["versions"]["torch"] == torch.__version__
    assert results["device"].startswith("cpu") and results["seconds"] > 0 and results["peak_memory_bytes"] > 2**20
    assert results["commit"] == commit()
    assert {p.name for p in run.folder.iterdir()} == {
        ".reidlib-run", "results.json", "figures", "tables", "weights.safetensors"}  # fmt: skip


def test_a_table_is_noted_row_by_row_without_what_is_none(tmp_path):
    run = runs.start("00_toy", settings_of(tmp_path))
    table = pd.DataFrame({"FID": [1.0, 2.0], "beats copy": [None, True]}, index=["copy", "mine"])
    run.metrics("rivals", table, "judges")
    assert {name: found["value"] for name, found in run.values.items()} == {
        "rivals/copy/FID": 1.0, "rivals/mine/FID": 2.0, "rivals/mine/beats copy": 1.0
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"rivals/copy/FID.*finite"):
        run.metrics("rivals", pd.DataFrame({"FID": [float("nan")]}, index=["copy"]), "judges")


def test_scores_bring_their_own_rule(tmp_path: Path):
    class Scores:
        protocol = "cross camera, euclidean distance"

        def as_dict(self):
            return {"mAP (trapezoid AP)": 0.1, "mINP": 0.2}

    run = runs.start("00_toy", settings_of(tmp_path))
    run.metrics("ide", Scores())
    assert list(run.values) == ["ide/mAP (trapezoid AP)", "ide/mINP"]
    assert {entry["rule"] for entry in run.values.values()} == {"cross camera, euclidean distance"}


def test_scores_of_several_splits_bring_their_spread(tmp_path: Path):
    run = runs.start("00_toy", settings_of(tmp_path))
    run.metrics("cuhk03", average_over_splits([{"rank-1": 0.5, "mAP": 0.2}, {"rank-1": 0.75, "mAP": 0.2}]))
    assert run.values == {
        "spread over splits/cuhk03/rank-1": {
            "value": pytest.approx(0.125 * 2**0.5), "rule": "standard deviation over the splits"},
        "spread over splits/cuhk03/mAP": {"value": 0.0, "rule": "standard deviation over the splits"},
        "cuhk03/rank-1": {"value": 0.625, "rule": "mean over 2 splits"},
        "cuhk03/mAP": {"value": pytest.approx(0.2), "rule": "mean over 2 splits"},
    }  # fmt: skip
    run.values.clear()
    run.metrics("cuhk01", average_over_splits([{"rank-1": 0.5}]), rule="its only split")
    assert run.values == {"cuhk01/rank-1": {"value": 0.5, "rule": "its only split"}}


def test_a_run_reports_the_memory_of_its_own_time(tmp_path: Path):
    """In a process of its own: after other tests, freed memory is still resident and may hold the 128 MB."""
    if watch_memory(torch.device("cpu")) is None:  # only Linux can measure memory anew
        assert not sys.platform.startswith("linux")
        return
    code = f"""
import json, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tiny_notebooks import settings_of
import torch
from reidlib.course import runs
torch.ones(1 << 27).sum()  # 512 MB before the run, freed at once
run = runs.start("00_toy", settings_of(Path({str(tmp_path)!r})))
print(json.loads(run.record().read_text())["peak_memory_bytes"])
torch.ones(1 << 25).sum()  # 128 MB within it
print(json.loads(run.record().read_text())["peak_memory_bytes"])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    small, large = map(int, ended.stdout.split())
    assert 100e6 < large - small < 256e6


def test_results_say_which_image_size_auto_was(tmp_path: Path):
    settings = settings_of(tmp_path)
    run = runs.start("00_toy", settings)
    assert run.parameters["image_size"] == "64x32" and settings.image_size == "auto"
    assert run.folder == runs.start("00_toy", settings.replace(image_size="64x32")).folder


def test_promises_that_are_not_kept_are_named(tmp_path: Path):
    run = runs.start("00_toy", settings_of(tmp_path))
    with pytest.raises(ValueError, match="'toy/mAP' names no rule"):
        run.metric("toy/mAP", 0.2)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"'toy/loss \(L1\)' is (nan|inf): only finite"):
            run.metric("toy/loss (L1)", value)
    run.metric("toy/[a] (sum)", 1)
    run.finish(metrics=["toy/[a] (sum)"]).unlink()  # a name is no pattern
    run.checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(AssertionError, match=r"figure 'curve', metric '\*/mAP\*', checkpoint .*gone"):
        run.finish(figures=["curve"], metrics=["*/mAP*"])
    run.figure(a_figure(), "lost").unlink()
    with pytest.raises(AssertionError, match="did not make: figure 'lost', checkpoint"):
        run.finish()
    assert not (run.folder / "results.json").exists()


def test_a_fresh_run_forgets_an_earlier_one_and_a_resumed_run_keeps_it(tmp_path: Path):
    settings = settings_of(tmp_path)
    run = runs.start("00_toy", settings)
    run.path("ide").mkdir()
    run.path("ide", "checkpoint.pt").write_bytes(b"old")
    run.path("00_toy.ipynb").write_text("being written")
    assert runs.start("00_toy", settings, resume=True).path("ide", "checkpoint.pt").exists()
    again = runs.start("00_toy", settings)
    assert not again.path("ide").exists() and again.path("00_toy.ipynb").exists()
    assert runs.start("00_toy", settings_of(tmp_path, seed=4)).folder != run.folder
    foreign = tmp_path / "00_toy" / runs.run_id({"profile": "smoke", "seed": 9})
    (foreign / "photos").mkdir(parents=True)
    runs.start("00_toy", {"profile": "smoke", "seed": 9, "output_root": str(tmp_path)})
    assert (foreign / "photos").exists()  # a folder that no run has made is never emptied


def test_a_notebook_under_the_runner_must_give_its_own_name(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("REIDLIB_RUN_DIR", str(tmp_path / "00_toy" / "smoke-1"))
    monkeypatch.setenv("REIDLIB_RESUME", "1")
    assert runs.start("00_toy", settings_of()).folder == tmp_path / "00_toy" / "smoke-1"
    with pytest.raises(ValueError, match="in the notebook '00_toy': give its own name"):
        runs.start("00_tow", settings_of())


def test_commit_says_when_files_differ(tmp_path: Path):
    assert commit(tmp_path) == "unknown"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for call in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *call], check=True)
    clean = commit(tmp_path)
    assert len(clean) == 40
    recorded = tmp_path / "notebooks" / "recorded" / "00_toy.csv"
    recorded.parent.mkdir(parents=True)
    recorded.touch()
    assert commit(tmp_path) == clean
    (tmp_path / "new.txt").touch()
    assert commit(tmp_path) == clean + "+dirty"


# ---- the parameters cell


def test_reading_the_parameters_cell(tmp_path: Path):
    parameters = read_parameters(write_notebook(tmp_path / "00_toy.ipynb"))
    assert list(parameters)[:5] == ["profile", "dataset", "data_root", "image_size", "seed"]
    assert parameters["limit"] == Parameter("limit", "int | None", None, "of something")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed = 0  # random seed", "line 1: seed has no type"),
        ("seed: int = 0", "seed has no comment"),
        ("seed: int = int(1)  # random", "seed is not a literal"),
        ("seed: int = 0.5  # random", "seed = 0.5 is float, it must be int"),
        ("seed: int = True  # random", "seed = True is bool, it must be int"),
        ("seed: Seed = 0  # random", "type Seed is not known"),
        ("import os", "only 'name: type = literal"),
        ("seed: int = 0  # random\nseed: int = 1  # again", "seed stands twice"),
        ("seed: int = (", "is no Python"),
    ],
)
def test_a_faulty_parameters_cell_is_refused(tmp_path: Path, line: str, message: str):
    with pytest.raises(ParameterError, match=message):
        read_parameters(write_notebook(tmp_path / "00_toy.ipynb", parameters=line))


def test_the_parameters_cell_needs_its_tag(tmp_path: Path):
    with pytest.raises(ParameterError, match="must carry the tag 'parameters'"):
        read_parameters(write_notebook(tmp_path / "00_toy.ipynb", tags=()))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "3", 3), ("float", "3", 3.0), ("bool", "false", False), ("str", "3", "3"), ("int | None", "none", None),
        ("list[int]", "[1, 2]", [1, 2]), ("tuple[int, ...]", "(1, 2)", (1, 2)), ("str | None", "None", None),
        ("str | None", "abc", "abc"), ("str", "true", "true"), ("str", "'a'", "'a'"),
    ],
)  # fmt: skip
def test_words_become_values_of_the_type(kind: str, text: str, value: object):
    result = read_value(Parameter("x", kind, None, ""), text)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(("kind", "text"), [("int", "3.5"), ("int", "true"), ("bool", "1"), ("list[int]", "[1, 'a']")])
def test_words_of_another_type_are_refused(kind: str, text: str):
    with pytest.raises(ParameterError, match="does not read as"):
        read_value(Parameter("x", kind, None, ""), text)
    with pytest.raises(ParameterError, match="must be int"):
        check_value(Parameter("x", "int", 0, ""), "3")
