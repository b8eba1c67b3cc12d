import threading

import pytest

from reidlib.files import REPOSITORY, atomic_path, resolve


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
