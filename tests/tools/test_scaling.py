"""The command that measures time and memory over the gallery's size."""

import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from reidlib.__main__ import main
from reidlib.tools import scaling


def test_command_writes_a_table_and_a_picture(tmp_path, capsys):
    assert (
        main(["scaling", "--out", str(tmp_path / "new"), "--sizes", "300", "--queries", "20", "--dimensions", "8"]) == 0
    )
    table = pd.read_csv(tmp_path / "new" / "scaling.csv")
    assert table.work.tolist() == ["evaluate_retrieval", "rerank"]
    assert (table.gallery == 300).all() and (table.seconds > 0).all() and (table.extra_MB >= 0).all()
    assert table.mAP[1] > table.mAP[0]
    assert Image.open(tmp_path / "new" / "scaling.png").size[0] > 1000
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["scaling.csv", "scaling.png"]
    assert "300 images" in capsys.readouterr().out


def test_peak_memory_sees_what_is_freed_again():
    """In a process of its own: in a long one resident memory rises and falls for other reasons too."""
    code = (
        "import torch; from reidlib.tools import scaling; "
        "print(*scaling.extra_memory(lambda: torch.ones(1 << 26).sum()))"  # 256 MB
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, result.stdout.split())
    assert 200 < megabytes < 400 and 0 < seconds < 60


def test_wrong_requests_are_named(capsys):
    with pytest.raises(ValueError, match=r"work must be one of .*; got 'sort'"):
        scaling.measure("sort", 1, 1, 1)
    assert main(["scaling", "--sizes", "0"]) == 2
    assert "sizes, queries and dimensions must be at least 1" in capsys.readouterr().err
