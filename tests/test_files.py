import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reidlib.files import REPOSITORY, InUseError, atomic_path, locked, resolve


def test_relative_paths_count_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("data") == REPOSITORY / "data"
    assert resolve(tmp_path) == tmp_path
    assert resolve("~/sets").is_absolute()


def test_an_error_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_two_writers_never_mix(tmp_path):
    path = tmp_path / "numbers.txt"

    def write(digit: str) -> None:
        for _ in range(50):
            with atomic_path(path) as temporary:
                temporary.write_text(digit * 1000)

    writers = [threading.Thread(target=write, args=(digit,)) for digit in "12"]
    [writer.start() for writer in writers]
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            text = path.read_text()
            assert len(text) == 1000 and len(set(text)) == 1
    [writer.join() for writer in writers]


HOLDER = """
import sys, time
from pathlib import Path
from reidlib.files import locked
with locked(sys.argv[1]):
    Path(sys.argv[2]).touch()
    time.sleep(float(sys.argv[3]))
"""


def holding(path: Path, seconds: float) -> subprocess.Popen:
    """Start a process that holds the lock of `path`, and return once it has it."""
    ready = path.with_name(f"ready {time.monotonic_ns()}")
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), str(ready), str(seconds)])
    while not ready.exists():
        assert process.poll() is None, "the holder ended early"
        time.sleep(0.01)
    ready.unlink()
    return process


def test_a_lock_held_by_another_process_names_it(tmp_path):
    path = tmp_path / "not there yet" / "table.csv"
    path.parent.mkdir()
    holder = holding(path, 60)
    try:
        where = rf"table\.csv is in use by process {holder.pid} on {platform.node()}; wait"
        with pytest.raises(InUseError, match=where), locked(path):
            pytest.fail("two are inside")
        started = time.monotonic()
        with pytest.raises(InUseError, match=where), locked(path, wait=0.3):
            pytest.fail("two are inside")
        assert 0.25 < time.monotonic() - started < 10
        with locked(path.with_name("other.csv")):  # another file is free
            pass
    finally:
        holder.kill()
        holder.wait()
    assert (path.parent / ".table.csv.lock").exists()  # what a kill leaves locks nothing
    with locked(path):
        assert (path.parent / ".table.csv.lock").read_text().split() == [str(os.getpid()), platform.node()]
    assert list(path.parent.iterdir()) == []


def test_who_waits_goes_on_when_the_other_is_done(tmp_path):
    path = tmp_path / "table.csv"
    holder = holding(path, 0.5)
    with locked(path, wait=True):
        assert holder.wait(timeout=30) == 0 or holder.poll() is None  # it may still be ending, outside of the lock
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_never_two_at_once_in_many_threads(tmp_path):
    inside, most, count = [], [], [0]

    def work() -> None:
        for _ in range(20):
            with locked(tmp_path / "numbers", wait=True):
                inside.append(1)
                most.append(len(inside))
                value = count[0]
                time.sleep(0.0005)
                count[0] = value + 1
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert max(most) == 1 and count[0] == 80


def test_a_thread_that_locks_twice_is_told_so(tmp_path):
    with locked(tmp_path / "a"), pytest.raises(InUseError, match=rf"process {os.getpid()} on .*\(this one\)"):  # noqa: SIM117
        with locked(tmp_path / "a"):
            pytest.fail("two are inside")
