"""The runner: notebooks run headless, what failed is named, and an index is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from tiny_notebooks import settings_of, write_notebook

from reidlib.__main__ import main
from reidlib.course import jobs, runner, runs
from reidlib.tools.index import format_value, write_index
from reidlib.tools.run import announce


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
    runner.execute(jobs.plan(notebook, {"profile": "smoke"}, **kwargs))
    runner.execute(jobs.plan(notebook, {"profile": "smoke"}, **kwargs), force=True)
    write_notebook(notebook, work='raise RuntimeError("warmer now")')
    runner.execute(jobs.plan(notebook, {"profile": "smoke"}, **kwargs))
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
    line = announce(planned)
    assert line.startswith("2 of 2 notebooks to run: about 2 min on two CPU cores (and 1 of unknown length)")
    (short,) = [jobs.plan(known, {"profile": "smoke", "data_root": str(tmp_path)}, output_root=tmp_path / "runs")]
    assert announce([short]) == "1 of 1 notebooks to run: about 20 s; the first run also renders the data set"
    (tmp_path / "procedural" / "made").mkdir(parents=True)
    assert announce([short]).endswith("about 20 s")
