"""What this machine is: precision, peak memory, progress."""

import subprocess
import sys

import pytest
import torch

from reidlib import machine

CPU = torch.device("cpu")
SAPPHIRE = {"avx512_bf16": True, "amx_bf16": True}
ZEN = {"avx512_bf16": True, "amx_bf16": False}
HASWELL = {"avx512_bf16": False, "amx_bf16": False}


@pytest.mark.parametrize(
    ("capabilities", "limit", "fast"),
    [
        (SAPPHIRE, "AVX512_CORE_BF16", True),
        (SAPPHIRE, "avx512_core_fp16", True),
        (SAPPHIRE, None, False),
        (SAPPHIRE, "DEFAULT", False),
        (SAPPHIRE, "AVX512_CORE_AMX", False),
        (SAPPHIRE, "a word that oneDNN does not know", False),
        (SAPPHIRE, "AVX2", False),
        (ZEN, None, True),
        (ZEN, "AVX512_CORE_BF16", True),
        (HASWELL, "AVX512_CORE_BF16", False),
        ({}, None, False),
    ],
)
def test_bfloat16_is_fast_on_amx_only_where_onednn_is_kept_from_it(monkeypatch, capabilities, limit, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert machine.has_fast_bfloat16(CPU) is fast


NESTED = """
import torch
from reidlib import machine
cpu = torch.device("cpu")
whole = machine.watch_memory(cpu)
torch.ones(100 << 18).sum()  # 100 MB, freed again
outer = machine.peak_memory(cpu, whole)
inner = machine.watch_memory(cpu)
torch.ones(20 << 18).sum()
small = machine.peak_memory(cpu, inner)
torch.ones(50 << 18).sum()
print(outer, small, machine.peak_memory(cpu, inner), machine.peak_memory(cpu, whole), machine.peak_memory(cpu))
"""


def test_peak_memory_is_of_the_time_since_its_measurement_began():
    """In a process of its own: what other tests left in memory is freed, and taken again, at any time."""
    if not sys.platform.startswith("linux"):
        assert machine.watch_memory(CPU) is None and machine.peak_memory(CPU, None) is None
        return
    run = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, check=True)
    outer, small, inner, whole, ever = map(int, run.stdout.split())
    assert 20e6 < inner - small < 40e6
    assert 60e6 < outer - small < 100e6  # what was freed before counts no more, but in the measurement around it
    assert whole == outer <= ever


def test_peak_memory_that_cannot_be_measured_is_none(monkeypatch):
    assert machine.peak_memory(CPU, None) is None
    assert machine.peak_memory(torch.device("meta")) is None

    class Closed(type(machine.Path())):
        def write_text(self, *arguments, **options):
            raise PermissionError

    monkeypatch.setattr(machine, "Path", Closed)
    assert machine.watch_memory(CPU) is None


def test_progress_in_lines(capsys, monkeypatch):
    monkeypatch.setattr(machine, "is_interactive", lambda: False)
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    with machine.progress_bar(100, "generating", "image", done=40) as advance:
        for _ in range(6):
            advance(10, "all well")
    assert capsys.readouterr().out.splitlines() == [
        "generating 60/100 images · all well · 16 s left",
        "generating 80/100 images · all well · 8 s left",
        "generating 100/100 images · all well",
    ]
    with machine.progress_bar(1, "generating", "image", False) as advance:
        advance()
    assert capsys.readouterr().out == ""


def test_a_bar_when_interactive(capsys, monkeypatch):
    monkeypatch.setattr(machine, "is_interactive", lambda: True)
    with machine.progress_bar(4, "decoding", "image", done=1) as advance:
        advance(3, "all well")
    with machine.progress_bar(4, "decoding", "image", False) as advance:
        advance(4)
    out, err = capsys.readouterr()
    assert "decoding" in err and "4/4" in err and "all well" in err and not out
