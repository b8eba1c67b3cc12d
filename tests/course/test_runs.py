"""Runs, their results, the parameters cell, and the runner's command line."""

import argparse
import errno
import importlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import psutil
import pytest
import torch
from tiny_notebooks import PARAMETERS, write_notebook

from reidlib.__main__ import COMMANDS, main
from reidlib.checks import WrongInput
from reidlib.course import export, jobs, runner, runs
from reidlib.course.index import format_value, write_index
from reidlib.course.settings import Parameter, ParameterError, Settings, check_value, read_parameters, read_value
from reidlib.evaluators import average_over_splits
from reidlib.files import locked
from reidlib.machine import commit, watch_memory
from reidlib.tools import scaling, train_judges


def settings_of(output_root: Path | str = "runs", **values) -> Settings:
    shared = {"profile": "smoke", "dataset": "procedural", "data_root": "data", "image_size": "auto", "seed": 3}
    return Settings({**shared, "device": "cpu", "output_root": str(output_root), **values})


def a_figure():
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, 1])
    plt.close(figure)
    return figure


# ---- record, Run


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
from test_runs import settings_of
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


# ---- the runner (kernels start here, so the tests share one folder of runs)


def run_cli(*arguments: str, checkout: Path, cwd: Path) -> subprocess.CompletedProcess:
    call = [sys.executable, "-m", "reidlib", "run", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Three notebooks, two failing, in a folder with a space, run once from a working folder elsewhere."""
    root = tmp_path_factory.mktemp("a course with spaces")
    # the sources decide what is done already: a copy, so that nobody edits them meanwhile
    sources = Path(runs.__file__).parents[1]
    shutil.copytree(sources, root / "check out" / "reidlib", ignore=shutil.ignore_patterns("__pycache__"))
    write_notebook(root / "note books" / "00_good.ipynb")
    write_notebook(root / "note books" / "01_bad.ipynb", work='raise RuntimeError("the <tea> is cold")')
    write_notebook(root / "note books" / "02_silent.ipynb", finish="pass")
    arguments = ("--folder", str(root / "note books"), "--output-root", str(root / "the runs"), "--profile", "smoke")
    (root / "elsewhere").mkdir()
    return root, arguments, run_cli(*arguments, checkout=root / "check out", cwd=root / "elsewhere")


def folder_of(root: Path, name: str) -> Path:
    (folder,) = (root / "the runs" / name).iterdir()
    return folder


def test_the_runner_goes_on_after_a_failure_and_says_what_failed_and_where(ran):
    root, _, ended = ran
    assert ended.returncode == 1
    assert "[3/3] 02_silent" in ended.stdout and "[1/3] 00_good: done" in ended.stdout
    assert "2 of 3 notebooks failed" in ended.stderr
    table = ended.stderr[ended.stderr.index("notebook  ") :].splitlines()
    assert re.split("  +", table[1])[:3] == ["01_bad", "In [4] Work", "RuntimeError: the <tea> is cold"]
    assert "02_silent" in table[2] and "no results.json" in table[2]
    bad = folder_of(root, "01_bad")
    assert table[1].endswith(str(bad / "01_bad.ipynb")) and (bad / "01_bad.html").is_file()
    assert json.loads((bad / "status.json").read_text())["status"] == "failed"


def test_an_executed_notebook_ran_in_this_interpreter_with_the_given_parameters(ran):
    root, _, _ = ran
    folder = folder_of(root, "00_good")
    nb = nbformat.read(folder / "00_good.ipynb", as_version=4)
    printed = "".join(output.text for cell in nb.cells for output in cell.get("outputs", []) if "text" in output)
    assert f"interpreter {sys.executable}" in printed and "from the start" in printed
    results = json.loads((folder / "results.json").read_text())
    assert results["parameters"]["profile"] == "smoke" and folder.name.startswith("smoke-")
    assert nb.metadata.kernelspec.name == "python3" and nb.cells[1].metadata.tags == ["parameters"]


def test_the_index_links_runs_results_and_figures_without_a_network(ran):
    root, _, _ = ran
    page = (root / "the runs" / "index.html").read_text()
    folder = folder_of(root, "00_good")
    for name in ("00_good.html", "00_good.ipynb", "results.json", "figures/curve.png"):
        assert f'"00_good/{folder.name}/{name}"' in page and (folder / name).is_file()
    assert "A toy &amp; its &lt;title&gt;" in page and "the &lt;tea&gt; is cold" in page
    value = json.loads((folder / "results.json").read_text())["metrics"]["toy/mAP (plain AP)"]["value"]
    assert format_value("toy/mAP (plain AP)", value) in page and "plain AP" in page
    assert "http" not in page and str(root) not in page.replace(str(root / "the runs"), "")


def test_a_done_run_is_skipped_and_force_gives_the_same_numbers(ran):
    root, arguments, _ = ran
    first = (folder_of(root, "00_good") / "results.json").read_text()
    again = run_cli("00_good", *arguments, checkout=root / "check out", cwd=root)
    assert again.returncode == 0 and "already done" in again.stdout
    assert (folder_of(root, "00_good") / "results.json").read_text() == first
    forced = run_cli("00*", *arguments, "--force", checkout=root / "check out", cwd=root)
    assert forced.returncode == 0 and "already done" not in forced.stdout
    second = (folder_of(root, "00_good") / "results.json").read_text()
    assert second != first and json.loads(second)["metrics"] == json.loads(first)["metrics"]  # to the last digit
    nb = nbformat.read(folder_of(root, "00_good") / "00_good.ipynb", as_version=4)
    assert "from the start" in str(nb.cells) and "resumed" not in [
        o.get("text", "").strip() for o in nb.cells[-2].outputs
    ]


def test_an_interrupted_run_of_the_same_code_finds_its_checkpoints_and_changed_code_does_not(ran, monkeypatch):
    root, _, _ = ran
    notebook = root / "note books" / "01_bad.ipynb"
    kwargs = {"output_root": root / "the runs"}
    seen = []
    monkeypatch.setattr(jobs, "REPOSITORY", root / "check out")
    monkeypatch.setattr(runner, "_papermill", lambda job, lines, resume, threads: seen.append(resume))
    runner.execute(jobs.plan(notebook, {"profile": "smoke"}, **kwargs), show=lambda line: None)
    runner.execute(jobs.plan(notebook, {"profile": "smoke"}, **kwargs), show=lambda line: None, force=True)
    write_notebook(notebook, work='raise RuntimeError("warmer now")')
    runner.execute(jobs.plan(notebook, {"profile": "smoke"}, **kwargs), show=lambda line: None)
    assert seen == [True, False, False]
    assert not jobs.plan(root / "note books" / "00_good.ipynb", {"profile": "smoke", "seed": "4"}, **kwargs).is_done()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "sead", "1"], "has no parameter 'sead'; did you mean seed?"),
        (["-p", "colour", "1"], "has no parameter 'colour'. It has: profile, dataset"),
        (["-p", "seed", "one"], "seed = 'one' does not read as int"),
        (["-p", "fail", "3"], "fail = '3' does not read as bool"),
        (["-p", "output_root", "x"], "use --output-root"),
        (["-p", "seed", "-1"], "seed must be 0 or more, got -1"),
        (["-p", "profile", "../.."], "profile must be one of"),
        (["-p", "device", "warp"], "unknown device 'warp'"),
        (["-p", "dataset", "caf\udce9"], r"dataset = 'caf\udce9' holds bytes that are no UTF-8"),
        (["09*"], "no notebook matches '09*'"),
    ],
)
def test_a_wrong_call_ends_before_anything_runs(tmp_path: Path, capsys, arguments: list[str], message: str):
    write_notebook(tmp_path / "books" / "00_toy.ipynb")
    code = main(["run", *arguments, "--folder", str(tmp_path / "books"), "--output-root", str(tmp_path / "runs")])
    assert code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_notebook_without_a_profile_and_an_empty_folder_are_wrong_calls(tmp_path: Path, capsys):
    write_notebook(tmp_path / "books" / "00_toy.ipynb", parameters="seed: int = 0  # random")
    folder = ["--folder", str(tmp_path / "books"), "--output-root", str(tmp_path / "runs")]
    assert main(["run", *folder, "--profile", "smoke"]) == 2
    assert "00_toy.ipynb has no parameter 'profile'" in capsys.readouterr().err
    assert main(["run", "--folder", str(tmp_path / "none")]) == 2


def test_listing_shows_every_parameter(tmp_path: Path, capsys):
    write_notebook(tmp_path / "00_toy.ipynb")
    assert main(["run", "--list", "--folder", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "00_toy" in listed and "rate: float = 0.5  # of learning" in listed
    write_notebook(tmp_path / "01_bad.ipynb", parameters="seed = 0")
    assert main(["run", "--list", "--folder", str(tmp_path)]) == 2


def test_notebooks_are_found_by_name_glob_and_file(tmp_path: Path, monkeypatch):
    for name in ("00_a", "01_b", "10_c"):
        write_notebook(tmp_path / "books" / f"{name}.ipynb")
    monkeypatch.chdir(tmp_path)

    def names(*patterns):
        return [path.stem for path in jobs.find_notebooks(patterns, tmp_path / "books")]

    assert names() == ["00_a", "01_b", "10_c"]
    assert names("1*", "00_a") == names("10", "00") == ["00_a", "10_c"] and names("0*") == ["00_a", "01_b"]
    assert names("books/0*.ipynb") == ["00_a", "01_b"] and names("books/10_c.ipynb", "10_c") == ["10_c"]


def test_plain_papermill_runs_a_notebook_too(tmp_path: Path):
    import papermill

    notebook = write_notebook(tmp_path / "note books" / "00_toy.ipynb")
    given = {"profile": "smoke", "output_root": str(tmp_path / "runs"), "seed": 1}
    papermill.execute_notebook(
        str(notebook), str(tmp_path / "out.ipynb"), given, progress_bar=False, kernel_name="python3"
    )
    (path,) = (tmp_path / "runs" / "00_toy").glob("smoke-*/results.json")
    assert json.loads(path.read_text())["parameters"]["seed"] == 1


def test_the_index_shows_what_waits_and_what_was_run_by_hand(tmp_path: Path):
    job = jobs.plan(write_notebook(tmp_path / "00_toy.ipynb"), {}, output_root=tmp_path / "runs")
    page = write_index(tmp_path / "runs", [job]).read_text()
    assert "00_toy" in page and "waiting" in page and "course" in page
    by_hand = runs.start("01_by_hand", settings_of(tmp_path / "runs"))
    by_hand.metric("toy/rank-1", 0.125, rule="cross camera")
    by_hand.finish()
    (tmp_path / "runs" / "02_x" / "smoke-0").mkdir(parents=True)
    (tmp_path / "runs" / "02_x" / "smoke-0" / "status.json").write_text("[]")  # no status of the runner
    page = write_index(tmp_path / "runs").read_text()
    assert "01_by_hand" in page and "12.5 %" in page
    assert page.count('<span class="badge unreadable">') == 2 and "'list' object" not in page.split("02_x")[0]


def test_announce_says_how_long_before_the_start(tmp_path):
    known, unknown = (write_notebook(tmp_path / f"{name}.ipynb") for name in ("01_known", "02_unknown"))
    notebook = nbformat.read(known, as_version=4)
    notebook.metadata["reidlib"] = {"seconds_on_two_cores": {"smoke": 20, "course": 150}}
    nbformat.write(notebook, known)
    planned = [jobs.plan(path, {"profile": "course"}, output_root=tmp_path / "runs") for path in (known, unknown)]
    line = runner.announce(planned)
    assert line.startswith("2 of 2 notebooks to run: about 2 min on two CPU cores (and 1 of unknown length)")
    (short,) = [jobs.plan(known, {"profile": "smoke", "data_root": str(tmp_path)}, output_root=tmp_path / "runs")]
    assert runner.announce([short]) == "1 of 1 notebooks to run: about 20 s; the first run also renders the data set"
    (tmp_path / "procedural" / "made").mkdir(parents=True)
    assert runner.announce([short]).endswith("about 20 s")


# ---- the runner where something is wrong


@pytest.fixture
def no_kernels(monkeypatch):
    """Runs that only write their results."""
    ran = []

    def papermill(job, lines, resume, threads):
        ran.append(job.name)
        (job.folder / "results.json").write_text('{"parameters": {}, "commit": "abc", "metrics": {}}')
        job.executed.write_text("{}")

    monkeypatch.setattr(runner, "_papermill", papermill)
    monkeypatch.setattr(export, "to_html", lambda executed: "")
    monkeypatch.setattr(jobs, "REPOSITORY", Path(__file__).parent)  # whose sources nobody edits meanwhile
    return ran


def call(root: Path, *arguments: str) -> int:
    return main(["run", *arguments, "--folder", str(root / "books"), "--output-root", str(root / "runs")])


def status_of(root: Path, name: str) -> dict:
    (path,) = (root / "runs" / name).glob("*/status.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("word", "value"), [("-1e-3", -1e-3), ("-inf", "-inf"), ("--force", "--force"), ("-p", "-p"), (" x", " x")]
)
def test_a_value_may_begin_with_a_dash(tmp_path: Path, no_kernels: list, word: str, value: object):
    write_notebook(tmp_path / "books" / "00_toy.ipynb")
    name = "rate" if isinstance(value, float) else "dataset"
    assert call(tmp_path, "-p", name, word, "--profile", "smoke", "-p", "seed", "4") == 0
    parameters = status_of(tmp_path, "00_toy")["parameters"]
    assert parameters[name] == value and parameters["seed"] == 4 and parameters["profile"] == "smoke"


def test_braces_tuples_and_lists_reach_the_notebook_without_warnings(tmp_path: Path, caplog):
    more = "\nshape: tuple[int, ...] = (1, 2)  # of it\ncameras: list[int] = [5, 6]  # two"
    root = tmp_path / "a {seed} in {braces}"
    work = "import matplotlib.pyplot as plt\nfig = plt.figure()\nrun.figure(fig, 'curve')\n"
    work += "run.metric('toy/sum', sum(settings.shape) + sum(settings.cameras) + settings.limit, rule='sum')\n"
    work += "run.metric('toy/threads', torch.get_num_threads(), rule='count')"
    write_notebook(root / "books" / "00_{toy}.ipynb", parameters=PARAMETERS + more, work=work)
    job = jobs.plan(
        root / "books" / "00_{toy}.ipynb",
        {"profile": "smoke", "shape": "3,4", "cameras": "1", "limit": "100"},
        output_root=root / "runs",
    )
    outcome = runner.execute(job, threads=1)
    assert outcome.status == "done", outcome.error
    results = json.loads((job.folder / "results.json").read_text())
    assert results["metrics"]["toy/sum"]["value"] == 108 and results["parameters"]["shape"] == [3, 4]
    assert results["metrics"]["toy/threads"]["value"] == results["threads"] == 1
    assert not [record for record in caplog.records if "unknown parameter" in record.getMessage()]


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\n{}\n", "\ufeff{}", ""], ids=["merge marks", "BOM", "empty"])
def test_an_unreadable_notebook_fails_alone_and_by_name(tmp_path: Path, no_kernels: list, capsys, content: str):
    for name in ("00_good", "01_bad", "02_good"):
        write_notebook(tmp_path / "books" / f"{name}.ipynb")
    (tmp_path / "books" / "01_bad.ipynb").write_text(content, encoding="utf-8")
    assert call(tmp_path, "--profile", "smoke") == 1
    said = capsys.readouterr()
    assert no_kernels == ["00_good", "02_good"] and "1 of 3 notebooks failed" in said.err
    assert "01_bad.ipynb cannot be read as a notebook" in said.err and "Traceback" not in said.err
    assert status_of(tmp_path, "01_bad")["status"] == "failed"
    assert "cannot be read as a notebook" in (tmp_path / "runs" / "index.html").read_text()
    assert call(tmp_path, "--list") == 2 and "01_bad.ipynb cannot be read" in capsys.readouterr().out


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["papermill", "first status", "last status", "index"])
def test_a_full_disk_is_said_and_the_next_notebook_runs(
    tmp_path: Path, no_kernels: list, monkeypatch, capsys, where: str
):
    for name in ("00_full", "01_next"):
        write_notebook(tmp_path / "books" / f"{name}.ipynb")
    papermill, write_status = runner._papermill, runner._write_status

    def fails(job, *arguments):
        return full_disk() if job.name == "00_full" else papermill(job, *arguments)

    def no_status(job, status, **facts):
        if job.name == "00_full" and (status == "running") == (where == "first status"):
            full_disk()
        write_status(job, status=status, **facts)

    if where == "papermill":
        monkeypatch.setattr(runner, "_papermill", fails)
    elif where == "index":
        monkeypatch.setattr(runner, "write_index", full_disk)
    else:
        monkeypatch.setattr(runner, "_write_status", no_status)
    assert call(tmp_path, "--profile", "smoke") == (0 if where == "index" else 1)
    said = capsys.readouterr()
    assert no_kernels[-1] == "01_next" and "[2/2] 01_next: done" in said.out and "Traceback" not in said.err
    assert ("the index could not be written" if where == "index" else "the disk is full: ") in said.err


def test_two_runners_on_one_output_root_leave_each_other_alone(tmp_path: Path, no_kernels: list, capsys):
    for name in ("00_taken", "01_free"):
        write_notebook(tmp_path / "books" / f"{name}.ipynb")
    taken = jobs.plan(tmp_path / "books" / "00_taken.ipynb", {"profile": "smoke"}, output_root=tmp_path / "runs")
    with locked(taken.folder):
        taken.folder.mkdir()
        (taken.folder / "results.json").write_text("the other runner's")
        assert call(tmp_path, "--profile", "smoke") == 1
        said = capsys.readouterr()
        assert f"in use by process {os.getpid()}" in said.out and "1 of 2 notebooks failed" in said.err
        assert no_kernels == ["01_free"]
        assert (taken.folder / "results.json").read_text() == "the other runner's"
    assert call(tmp_path, "--profile", "smoke") == 0 and no_kernels == ["01_free", "00_taken"]


@pytest.mark.parametrize(
    "content",
    [
        b"[]", b"{}", b"not json", b'{"a": "\xff"}', b'{"parameters": {}, "commit": 3, "metrics": {}}',
        b'{"parameters": {}, "commit": "x", "metrics": {"a": 1}}', b'{"parameters": [], "commit": "x"}', b"null",
        b'{"parameters": {}, "commit": "x", "metrics": {"a": {"value": "high", "rule": "r"}}}', b'{"accuracy": 0.9}',
    ],
)  # fmt: skip
def test_a_foreign_folder_is_one_card_marked_unreadable(tmp_path: Path, content: bytes):
    by_hand = runs.start("01_by_hand", settings_of(tmp_path))
    by_hand.metric("toy/rank-1", 0.125, rule="cross camera")
    by_hand.finish()
    foreign = tmp_path / "02_x" / "smoke-0"
    foreign.mkdir(parents=True)
    (foreign / "results.json").write_bytes(content)
    page = write_index(tmp_path).read_text(encoding="utf-8")
    assert "12.5 %" in page and page.count('<section id="02_x/smoke-0">') == 1
    assert page.count('<span class="badge unreadable">unreadable</span>') == 2  # in the overview and on its card
    (foreign / "results.json").unlink()
    (foreign / "status.json").write_text(
        json.dumps({"status": "done", "title": "caf\udce9", "parameters": {"dataset": "\udcff"}})
    )
    assert "01_by_hand" in write_index(tmp_path).read_text(encoding="utf-8")


def test_an_export_that_fails_is_marked_and_its_numbers_stay(tmp_path: Path, no_kernels: list, monkeypatch, capsys):
    for name in ("00_toy", "01_next"):
        write_notebook(tmp_path / "books" / f"{name}.ipynb")

    def to_html(executed: Path) -> str:
        if executed.stem == "00_toy":
            raise RuntimeError("no template")
        return ""

    monkeypatch.setattr(export, "to_html", to_html)
    assert call(tmp_path, "--profile", "smoke") == 0
    assert "00_toy.ipynb cannot be shown as HTML: RuntimeError: no template" in capsys.readouterr().out
    page = (tmp_path / "runs" / "index.html").read_text()
    assert page.count('class="badge unreadable"') == 2 and "no template" in page and no_kernels == ["00_toy", "01_next"]
    assert status_of(tmp_path, "00_toy")["status"] == "done"


def test_a_profile_is_checked_before_it_is_part_of_a_path(tmp_path: Path):
    for profile in ("../../x", "", "Smoke"):
        with pytest.raises(ValueError, match="profile must be one of"):
            runs.start("00_toy", {"profile": profile, "output_root": str(tmp_path)})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
def test_sigterm_leaves_the_status_stopped_and_no_kernel(tmp_path: Path):
    work = "import os, time\nrun.path('pid').write_text(str(os.getpid()))\ntime.sleep(300)"
    write_notebook(tmp_path / "books" / "00_toy.ipynb", work=work)
    arguments = [
        "run",
        "--folder",
        str(tmp_path / "books"),
        "--output-root",
        str(tmp_path / "runs"),
        "--profile",
        "smoke",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-m", "reidlib", *arguments], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while not (pids := list((tmp_path / "runs").glob("00_toy/*/pid"))) or not pids[0].read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; the same command goes on" in said.decode()
    assert status_of(tmp_path, "00_toy")["status"] == "stopped"
    assert 'class="badge stopped"' in (tmp_path / "runs" / "index.html").read_text()
    assert not psutil.pid_exists(int(pids[0].read_text()))


# ---- the command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example_that_parses(name: str, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and f"example: reidlib {name} {COMMANDS[name].example}" in said
    parser = argparse.ArgumentParser()
    importlib.import_module(f"reidlib.{COMMANDS[name].module}").add_arguments(parser)
    parser.parse_args(shlex.split(COMMANDS[name].example))


def test_help_lists_the_commands_and_loads_none_of_them(capsys):
    assert main([]) == main(["--help"]) == 0
    assert capsys.readouterr().out.count("reidlib run --profile") == 2
    assert main(["sweeps"]) == 2 and "there is no command 'sweeps'; there are: run, sweep" in capsys.readouterr().err
    code = "import sys; from reidlib.__main__ import main; main(['--help']); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip().endswith("False") and all(f"  {name}" in ended.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scaling", "--sizes", "0"], "must be at least 1"),
        (["judges", "--share", "0"], "share must be more than 0, got 0.0"),
        (["judges", "--size", "huge"], "size must be one of 'smoke', 'course'; got 'huge'"),
        (["render", "--difficulty-table", "--device", "warp"], "unknown device 'warp'"),
        (["annotate", "no such folder"], "is not a folder"),
        (["sweep", "no_such.study"], "no study is called 'no_such.study'"),
    ],
)
def test_a_wrong_call_is_one_line_and_debug_shows_its_traceback(capsys, words: list[str], message: str):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"reidlib {words[0]}: ") and message in said and said.count("\n") == 1
    with pytest.raises(WrongInput, match=re.escape(message)):
        main([*words, "--debug"])


@pytest.mark.parametrize("error", [ValueError("a slip"), FileNotFoundError("a slip"), RuntimeError("a slip")])
def test_a_fault_of_the_program_keeps_its_traceback(tmp_path: Path, monkeypatch, error: Exception):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(train_judges, "procedural_people", broken)
    monkeypatch.setattr(scaling, "resolve", broken)
    monkeypatch.setattr(runner, "announce", broken)
    write_notebook(tmp_path / "books" / "00_toy.ipynb")
    folders = ["--folder", str(tmp_path / "books"), "--output-root", str(tmp_path / "runs")]
    for words in (["judges"], ["scaling"], ["run", *folders]):
        with pytest.raises(type(error), match="a slip") as shown:
            main(words)
        assert shown.traceback[-1].name == "broken"


def test_claims_are_printed_from_the_recorded_tables(capsys):
    assert main(["claims", "camera_transfer"]) == 0
    said = capsys.readouterr().out
    assert "camera_transfer (recorded in 03_camera_transfer): " in said and "ct01" in said and "pn01" not in said
    assert "claims tested" in said and "chance alone" in said
    assert main(["claims"]) == 0 and "camera_transfer (recorded in 03_camera_transfer)" in capsys.readouterr().out
    assert main(["claims", "san"]) == 2 and "paper must be one of 'camera_transfer'" in capsys.readouterr().err


def test_render_makes_a_set_and_its_difficulty_table(tmp_path: Path, capsys):
    smoke = ["render", "--root", str(tmp_path), "--size", "smoke", "--workers", "1"]
    assert main([*smoke, "--network", "cuhk01"]) == 0
    made = Path(capsys.readouterr().out.splitlines()[-1])
    assert made.is_dir() and made.is_relative_to(tmp_path) and "cuhk01" in made.name
    assert main([*smoke, "--scene", "outdoors"]) == 2 and "'outdoors'" in capsys.readouterr().err
