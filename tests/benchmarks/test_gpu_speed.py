"""The script that measures the papers' own sizes on a GPU, tried on the smallest ones."""

import sys

import gpu_speed
import pandas as pd


def test_a_line_for_each_precision_is_appended(monkeypatch, tmp_path):
    table = tmp_path / "speed.csv"
    call = f"gpu_speed.py --preset smoke --device cpu --steps 2 --methods DG-Net --out {table}"
    monkeypatch.setattr(gpu_speed, "WARM", 1)
    monkeypatch.setattr(sys, "argv", call.split())
    gpu_speed.main()
    gpu_speed.main()
    rows = pd.read_csv(table)
    assert rows["precision"].tolist() == ["fp32", "bf16"] * 2 and set(rows["device"].str[:3]) == {"cpu"}
    assert (rows["rows/s"] * rows["seconds a step"] - rows["rows"]).abs().max() < 1  # both are of the same clock
    assert list(rows) == list(pd.read_csv(gpu_speed.TABLE))
