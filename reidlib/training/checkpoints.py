"""Checkpoints that survive a kill, and weights that travel."""

import contextlib
import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

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


def save_weights(
    method: nn.Module,
    path: str | os.PathLike,
    *,
    half: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the weights and buffers of `method` as safetensors, with `facts` as JSON in its header.

    `half=True` stores float tensors in float16, for small files in the repository.
    """
    path = Path(path)
    tensors = {}
    for name, tensor in method.state_dict().items():
        narrow = half and tensor.is_floating_point()
        # a copy each: safetensors takes neither shared memory nor channels_last strides
        tensors[name] = tensor.detach().to("cpu", torch.float16 if narrow else tensor.dtype, copy=True).contiguous()
    metadata = {"method": type(method).__name__, "facts": json.dumps(plain(facts or {}))}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    return path


def load_weights(method: nn.Module, path: str | os.PathLike) -> dict[str, Any]:
    """Load `save_weights`' file into `method` in place and return its facts.

    Raises FileNotFoundError, and ValueError naming the first tensors that are missing, left over or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; train with weights='train', or give a safetensors file")
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a handle, not a dict)
        facts = json.loads((file.metadata() or {}).get("facts", "{}"))
    shapes = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    wrong = [
        f"{name}: file {tuple(stored[name].shape) if name in stored else 'nothing'}, here {shapes.get(name, 'nothing')}"
        for name in sorted(stored.keys() | shapes.keys())
        if name not in stored or name not in shapes or tuple(stored[name].shape) != shapes[name]
    ]
    if wrong:
        with contextlib.suppress(RuntimeError):  # a method that knows what its weights were trained for says it better
            copy.deepcopy(method).load_state_dict(stored)
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{path} does not fit {type(method).__name__}: {'; '.join(wrong[:5])}{more}")
    method.load_state_dict(stored)
    return facts
