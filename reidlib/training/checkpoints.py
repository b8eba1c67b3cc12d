"""Checkpoints that survive a kill, and weights that travel."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reidlib.files import atomic_path

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(run_dir: Path, state: Mapping[str, Any]) -> Path:
    """Write `state` (tensors and plain values) to `run_dir/checkpoint.pt`, whole or not at all.

    The file is written beside, flushed to the disk and renamed: killed at any moment, the last whole one is there.
    """
    path = run_dir / CHECKPOINT
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    return path


def load_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    """Read `run_dir/checkpoint.pt` onto the CPU; None where there is none. Nothing in it is executed."""
    for leftover in sorted(run_dir.glob(f".{Path(CHECKPOINT).stem}.*.part.pt")):
        leftover.unlink(missing_ok=True)  # of a run that was killed while writing
    path = run_dir / CHECKPOINT
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no whole checkpoint of reidlib ({error}); remove it to start anew") from error


def check_same(stored: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Raise ValueError naming every key whose value in the checkpoint is not the value of this call."""
    keys = sorted(stored.keys() | now.keys())
    different = [key for key in keys if key not in stored or key not in now or stored[key] != now[key]]
    if different:
        lines = [f"  {key}: checkpoint {stored.get(key, 'nothing')!r}, now {now.get(key, 'nothing')!r}"
                 for key in different]  # fmt: skip
        raise ValueError(
            f"{where} is of another training and cannot be resumed:\n" + "\n".join(lines)
            + "\nGive the old values, another run_dir, or resume=False to overwrite it."
        )  # fmt: skip


def plain(value: Any) -> Any:
    """Turn settings into JSON's plain values, so that they compare and load without executing anything."""
    return json.loads(json.dumps(value, default=str, sort_keys=True))
