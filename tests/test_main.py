"""The command line: every command explains itself, a wrong call is one line."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_notebooks import write_notebook

from reidlib.__main__ import COMMANDS, main
from reidlib.checks import WrongInput
from reidlib.tools import run, scaling, train_judges


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


def test_a_reader_who_has_seen_enough_is_no_error():
    """`reidlib claims | head -1`: the pipe is closed before all is written."""
    words = [sys.executable, "-m", "reidlib", "claims", "pn_gan"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        writer.stdout.close()
        assert writer.wait(100) == 141 and "Error" not in writer.stderr.read()


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
    monkeypatch.setattr(run, "announce", broken)
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
