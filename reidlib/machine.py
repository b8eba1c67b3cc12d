"""What this machine is: its device, precision, memory, processes and commit, asked in one place."""

import functools
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor
from tqdm.auto import tqdm

from reidlib.files import REPOSITORY

CAPPED_AT_BFLOAT16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16")  # oneDNN's instruction sets with bfloat16 and without AMX
SECONDS_BETWEEN_LINES = 5.0


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device called `name`: what `device="auto"` means, everywhere.

    "auto" is the first CUDA GPU, under torchrun the one of this process's `LOCAL_RANK`; else Apple's GPU; else the CPU.
    Only what creates a method takes `device=` (`training.fit` moves its method there too). A function that is given a
    method works where the method's parameters lie, whatever "auto" would be.

    Raises:
        ValueError: a name that torch does not know, or a device that is not there.

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
        raise ValueError(f"unknown device {name!r}; give one of auto, cpu, cuda, mps or, say, 'cuda:1'") from error
    here = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type in here and (device.index or 0) >= here[device.type]:
        raise ValueError(f"device {name!r} is not here: torch sees {here[device.type]} {device.type} devices")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether `device` computes in bfloat16 itself, and rightly, so that it is quicker there and not only possible.

    The answer comes from the hardware, never from a stopwatch: a choice by timing would make two runs of one seed
    differ. A CPU with AMX units counts only while `ONEDNN_MAX_CPU_ISA` keeps oneDNN from using them, as importing
    `reidlib` does: torch 2.13's bfloat16 convolutions on AMX give other numbers at each repeat, NaN among them. Without
    AMX only the weight gradient of strided convolutions whose input is one pixel wide fails; no network here has one.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        has = torch.cpu.get_capabilities().get
        capped = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in CAPPED_AT_BFLOAT16
        return bool(has("avx512_bf16")) and (capped or not has("amx_bf16"))
    return False


_peaks: dict[str, list[int]] = {}  # of each device: its peak between one `watch_memory` and the next


def watch_memory(device: torch.device) -> int | None:
    """Begin to measure the most memory in use; `peak_memory(device, since=...)` takes what this returns.

    Measurements may lie within each other (a training within a run). None where the system cannot start anew.
    """
    peaks = _peaks.setdefault(str(device), [])
    before = peak_memory(device, since=len(peaks))
    if device.type == "cuda":
        torch.cuda.init()  # before the first tensor there is no peak to set back
        torch.cuda.reset_peak_memory_stats(device)
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is what is resident now
        except OSError:
            return None
    peaks.append(before or 0)
    return len(peaks)


def peak_memory(device: torch.device, since: int | None = 0) -> int | None:
    """Return the most memory in bytes that was in use at once since `watch_memory` gave `since`; 0: since the start.

    On a CUDA GPU it is what torch's tensors took on it; on the CPU it is this process's resident memory, with Python
    and its libraries. The two are not comparable: put the device beside the number. None where it cannot be measured
    (a CPU outside Linux, Apple's GPU).

    >>> since = watch_memory(torch.device("cpu"))
    >>> before = torch.ones(1 << 24).sum()  # 64 MB, freed at once
    >>> peak = peak_memory(torch.device("cpu"), since)
    >>> peak is None or peak > 2**26
    True
    """
    if device.type == "cuda":
        now = torch.cuda.max_memory_allocated(device)
    elif device.type == "cpu" and Path("/proc/self/status").exists():
        lines = Path("/proc/self/status").read_text().splitlines()
        now = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
    else:
        return None
    return None if since is None or now is None else max([now, *_peaks.get(str(device), [])[since:]])


def free_memory(device: torch.device) -> int | None:
    """Return the bytes free on a device, or None where it cannot be asked."""
    if device.type == "cpu":
        import psutil  # only this function needs it

        return psutil.virtual_memory().available
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


class Processes:
    """The processes that torchrun started for one training, and what they tell each other; one alone without it.

    Attributes:
        rank: this process's number.
        count: how many there are.

    >>> alone = Processes(torch.device("cpu"))
    >>> alone.rank, alone.count, alone.mean(torch.ones(2)).tolist()
    (0, 1, [1.0, 1.0])
    """

    def __init__(self, device: torch.device) -> None:
        distributed = torch.distributed
        self.rank, self.count = 0, 1
        if not distributed.is_available():
            return
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(device)
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if distributed.is_initialized():
            self.rank, self.count = distributed.get_rank(), distributed.get_world_size()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of every process's `tensor`."""
        total = tensor.clone()
        if self.count > 1:
            torch.distributed.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of every process's `tensor`."""
        return self.sum(tensor) / self.count

    @torch.no_grad()
    def share(self, tensors: list[Tensor], *, mean: bool = False) -> None:
        """Give all processes the tensors of process 0, or their mean, in one message for each dtype."""
        for dtype in sorted({t.dtype for t in tensors}, key=str) if self.count > 1 else ():
            same = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.flatten() for t in same])
            if mean:
                flat = self.mean(flat)
            else:
                torch.distributed.broadcast(flat, src=0)
            for tensor, values in zip(same, flat.split([t.numel() for t in same]), strict=True):
                tensor.copy_(values.view_as(tensor))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()


def device_name(device: torch.device) -> str:
    """Return `device` in words, for results: the GPU's name, or the processor with the threads torch uses."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        cpu = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
        return f"cpu ({cpu}, {torch.get_num_threads()} threads)"
    return str(device)


def is_interactive() -> bool:
    """Say whether a reader can see a bar move: a terminal, or a notebook in a browser (papermill's cannot ask back)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        return bool(getattr(kernel, "_allow_stdin", False))
    return sys.stderr is not None and sys.stderr.isatty()


Advance = Callable[..., None]  # advance(count=1, note="")


@contextmanager
def progress_bar(total: int, title: str, unit: str, wanted: bool = True, *, done: int = 0) -> Iterator[Advance]:
    """Show progress: a bar when interactive, otherwise a line every few seconds and at the end; nothing if not wanted.

    Args:
        total: how many there are in all.
        title: what is being done.
        unit: one of them, in the singular.
        wanted: the caller's `progress=`.
        done: how many were done before.

    Yields:
        advance(count=1, note=""): call it when `count` more are done; `note` stands beside the numbers.

    >>> with progress_bar(2, "drawing", "image") as advance:
    ...     advance(2, "all red")
    drawing 2/2 images · all red
    """
    bar = tqdm(total=total, initial=done, desc=title, unit=unit) if wanted and is_interactive() else nullcontext()
    began = spoke = time.monotonic()
    now_done = done

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal spoke, now_done
        now_done, now = now_done + count, time.monotonic()
        if isinstance(bar, tqdm):
            bar.set_postfix_str(note, refresh=False)
            bar.update(count)
        elif wanted and count and (now - spoke >= SECONDS_BETWEEN_LINES or now_done >= total):
            spoke = now
            left = (total - now_done) * (now - began) / (now_done - done)
            parts = [f"{title} {now_done}/{total} {unit}s", note, f"{left:.0f} s left" if now_done < total else ""]
            print(" · ".join(filter(None, parts)), flush=True)

    with bar:
        yield advance


def commit(folder: str | os.PathLike = REPOSITORY) -> str:
    """Return the commit of the git checkout at `folder`, with "+dirty" where files differ, "unknown" without git.

    Recorded tables do not count: a study writes them as it goes, and no number depends on them.
    """
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, timeout=30)
    asked = (["rev-parse", "HEAD"], ["status", "--porcelain", "--", ".", ":(exclude)notebooks/recorded"])
    try:
        head, changes = (run(["git", "-C", folder, *words]).stdout.strip() for words in asked)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+dirty" if changes else "")
