"""What this machine is: its device, precision, memory and commit, asked in one place."""

import os
import platform
import subprocess
import sys

import torch

from reidlib.files import REPOSITORY

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device called `name`; "auto" is the GPU where there is one (under torchrun: this process's own).

    Raises ValueError for a name that torch does not know and for a device that is not there.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if str(name) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; give one of {', '.join(DEVICES)} or, say, 'cuda:1'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not here: torch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not here")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether `device` computes in bfloat16 itself, so that it is quicker there and not only possible.

    The answer comes from the hardware, never from a stopwatch: a choice by timing would make two runs of one seed
    differ.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def peak_memory(device: torch.device) -> int:
    """Return the most memory in bytes so far: torch's on a GPU, this process's resident memory elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def device_name(device: torch.device) -> str:
    """Return `device` in words, for results: the GPU's name, or the processor with the threads torch uses."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
        return f"cpu ({cpu}, {torch.get_num_threads()} threads)"
    return str(device)


def is_interactive() -> bool:
    """Say whether somebody watches: a terminal, or a notebook in a browser (papermill's kernel cannot ask back)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        return bool(getattr(kernel, "_allow_stdin", False))
    return sys.stderr is not None and sys.stderr.isatty()


def commit(folder: str | os.PathLike = REPOSITORY) -> str:
    """Return the commit of the git checkout at `folder`, with "+dirty" where files differ, "unknown" without git.

    Recorded tables do not count: a study writes them as it goes, and no number depends on them.
    """

    def git(*arguments: str) -> str:
        call = ["git", "-C", os.fspath(folder), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+dirty" if git("status", "--porcelain", "--", ".", ":(exclude)notebooks/recorded") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
