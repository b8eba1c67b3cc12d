"""The runner where something is wrong: full disks, unreadable notebooks, two runners, a signal."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_notebooks import PARAMETERS, settings_of, write_notebook

from reidlib.__main__ import main
from reidlib.course import export, jobs, runner, runs
from reidlib.files import locked
from reidlib.tools import run
from reidlib.tools.index import write_index


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
        monkeypatch.setattr(run, "write_index", full_disk)
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


def test_a_kernel_that_the_system_kills_is_said_to_want_memory(tmp_path: Path, capsys):
    """What Linux does when memory runs out: the process is gone in the middle of a cell."""
    (tmp_path / "books").mkdir()
    write_notebook(tmp_path / "books" / "03_hungry.ipynb", work="os.kill(os.getpid(), 9)")
    assert call(tmp_path, "03*") == 1
    assert "Work: Kernel died" in capsys.readouterr().out
    assert "memory ran out" in status_of(tmp_path, "03_hungry")["error"]
