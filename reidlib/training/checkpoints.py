"""Checkpoints that survive a kill, and the refusal of those of another training."""

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from reidlib.files import atomic_path

CHECKPOINT = "checkpoint.pt"
SHOWN = 12  # differences that are named one by one


def save_checkpoint(run_dir: Path, state: Mapping[str, Any]) -> Path:
    """Write `state` (tensors and plain values) to `run_dir/checkpoint.pt`, whole or not at all.

    The file is written beside, flushed to the disk and renamed: killed at any moment, the last whole one is there.

    Raises:
        OSError: it cannot be written, such as on a full disk; the last good checkpoint stays and is named.
    """
    path, buffer = run_dir / CHECKPOINT, io.BytesIO()
    torch.save(dict(state), buffer)
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        free = shutil.disk_usage(next(p for p in (run_dir, *run_dir.parents) if p.exists())).free
        last = f"the last good one, {path}, stays" if path.exists() else f"there is none before it in {run_dir}"
        raise OSError(
            error.errno,
            f"the checkpoint of step {state['step']} could not be written ({error.strerror}): it needs "
            f"{buffer.tell() / 1e6:.3g} MB, {free / 1e6:.3g} MB are free; {last}. The method keeps the weights of this "
            "step; make room and call fit again to go on from the last good checkpoint",
        ) from error
    return path


def remove_leftovers(run_dir: Path) -> None:
    """Remove what runs left that were killed while writing; only the process that has locked the checkpoint may."""
    for leftover in sorted(run_dir.glob(f".{Path(CHECKPOINT).stem}.*.part.pt")):
        leftover.unlink(missing_ok=True)


def load_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    """Read `run_dir/checkpoint.pt` onto the CPU; None where there is none. Nothing in it is executed."""
    path = run_dir / CHECKPOINT
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no whole checkpoint of reidlib ({error}); remove it to start anew") from error


def check_same(stored: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Raise ValueError naming every key whose value in the checkpoint is not the value of this call."""
    lines = [
        f"  {key}: checkpoint {stored.get(key, 'nothing')!r}, now {now.get(key, 'nothing')!r}"
        for key in sorted(stored.keys() | now.keys())
        if (key in stored, stored.get(key)) != (key in now, now.get(key))
    ]
    if lines:
        more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise ValueError(
            "{} is of another training and cannot be resumed:\n{}{}\nGive the old values, another run_dir, or "
            "resume=False to overwrite it.".format(where, "\n".join(lines[:SHOWN]), more)
        )
