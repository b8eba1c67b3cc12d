"""`update(name, loss)`: what each author's trainer repeats, in one place."""

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from reidlib.machine import Processes


@dataclass
class MethodOptimizer:
    """One entry of `method.optimizers()`, checked."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float] | LRScheduler | None
    calls: int = 0
    loss: Tensor | float = 0.0

    def set_rate(self, step: int) -> None:
        """Set the learning rates that a function of the step gives."""
        if self.schedule is not None and not isinstance(self.schedule, LRScheduler):
            factor = float(self.schedule(step))
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor


def check_optimizers(method: nn.Module) -> dict[str, MethodOptimizer]:
    """Read `method.optimizers()` and refuse what could not train, be saved or be resumed."""
    own = set(method.parameters())
    entries = {}
    for name, entry in method.optimizers().items():
        parameters, optimizer, schedule = entry
        parameters = list(parameters)
        stepped = [p for group in optimizer.param_groups for p in group["params"]]
        if set(parameters) != set(stepped):
            raise ValueError(
                f"optimizers()[{name!r}]: its list names {len(parameters)} parameters and its optimizer steps "
                f"{len(stepped)} others; give both the same list (a generator is used up by the first)"
            )
        if not set(stepped) <= own:
            raise ValueError(f"optimizers()[{name!r}] steps parameters that are not in the method's own parameters()")
        stepwise = schedule is None or isinstance(schedule, LRScheduler) or callable(schedule)
        if not stepwise or isinstance(schedule, ReduceLROnPlateau):
            raise TypeError(
                f"optimizers()[{name!r}]: schedule must be None, step -> factor, or an LRScheduler, got {schedule!r}"
            )
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        entries[name] = MethodOptimizer(stepped, optimizer, schedule)
    if not entries:
        raise ValueError("method.optimizers() names no optimizer")
    return entries


def plain_update(method: nn.Module) -> Callable[[str, Tensor], None]:
    """Return `update(name, loss)` without `fit`'s care: backward to that optimizer's parameters, one step.

    For looking at a single `training_step`, as notebooks and tests do.
    """
    entries = check_optimizers(method)

    def update(name: str, loss: Tensor) -> None:
        entry = entries[name]
        entry.optimizer.zero_grad()
        loss.backward(inputs=entry.parameters)
        entry.optimizer.step()

    return update


class Update:
    """The `update(name, loss)` of a step: backward, accumulation, averaging, finite check, optimizer, schedule."""

    def __init__(self, processes: Processes, entries: dict[str, MethodOptimizer], device: torch.device) -> None:
        self.processes, self.entries, self.device = processes, entries, device
        self.failure: str | None = None
        self.piece, self.pieces, self.share = 0, 1, 1.0

    def begin(self, piece: int, pieces: int, share: float) -> None:
        """Start piece `piece` of `pieces`; `share` is its part of the batch's images."""
        self.piece, self.pieces, self.share = piece, pieces, share
        for entry in self.entries.values():
            entry.calls = 0

    def __call__(self, name: str, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Take one optimizer step of `name` down the scalar `loss`."""
        if name not in self.entries:
            raise ValueError(f"update({name!r}, ...): the method's optimizers are {', '.join(sorted(self.entries))}")
        if not isinstance(loss, Tensor) or loss.ndim:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"update({name!r}, loss): loss must be a tensor holding one number, got {got}")
        if self.failure:
            return  # this step is lost already; the method only runs on to name its other losses
        entry = self.entries[name]
        entry.calls += 1
        if self.pieces > 1 and entry.calls > 1:
            raise ValueError(f"update({name!r}) is called twice a step, which accumulation={self.pieces} cannot split")
        # backward and optimizer outside autocast: double backward and foreach kernels must not be cast
        with torch.autocast(self.device.type, enabled=False):
            trainable = [p for p in entry.parameters if p.requires_grad]
            (loss.float() * self.share).backward(inputs=trainable, retain_graph=retain_graph)
            entry.loss = entry.loss + loss.detach().float() * self.share
            if self.piece == self.pieces - 1:
                self._step(name, entry, trainable)

    def _step(self, name: str, entry: MethodOptimizer, trainable: list[nn.Parameter]) -> None:
        if self.processes.count > 1:
            self._average(entry, trainable)
        gradients = [p.grad for p in trainable if p.grad is not None]
        if not gradients:
            raise ValueError(f"update({name!r}, loss): the loss reaches none of the parameters of {name!r}")
        norm = nn.utils.get_total_norm(gradients).float()
        loss_value, norm_value = torch.stack([entry.loss, norm.to(entry.loss.device)]).tolist()
        if not np.isfinite(loss_value) or not np.isfinite(norm_value):
            self.failure = f"update({name!r}): loss {loss_value:g}, norm of its gradients {norm_value:g}"
        else:
            entry.optimizer.step()
            if isinstance(entry.schedule, LRScheduler):
                entry.schedule.step()
        entry.optimizer.zero_grad(set_to_none=True)
        entry.loss = 0.0

    def _average(self, entry: MethodOptimizer, trainable: list[nn.Parameter]) -> None:
        """Average gradients and loss over the processes in one message; a gradient that none has stays None."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainable]
        has = torch.tensor([p.grad is not None for p in trainable], dtype=torch.float32, device=self.device)
        self.processes.share([*gradients, has, entry.loss], mean=True)
        for parameter, gradient, some_have in zip(trainable, gradients, has.tolist(), strict=True):
            parameter.grad = gradient if some_have else None

    @torch.no_grad()
    def average_buffers(self, method: nn.Module) -> None:
        """Average the running statistics of training normalisations; other floating buffers follow process 0."""
        if self.processes.count == 1:
            return
        kind = nn.modules.batchnorm._NormBase
        norms = [m for m in method.modules() if isinstance(m, kind) and m.training and m.track_running_stats]
        statistics = {id(b): b for m in norms for b in (m.running_mean, m.running_var) if b is not None}
        self.processes.share(list(statistics.values()), mean=True)
        self.processes.share([b for b in method.buffers() if id(b) not in statistics and b.is_floating_point()])


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Take kernels that repeat their numbers, inside the block only; where torch has none it would warn at each."""
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@contextmanager
def postponed_sigint() -> Iterator[threading.Event]:
    """Give an event that the first SIGINT sets instead of raising; the second raises KeyboardInterrupt at once.

    Outside the main thread, where Python takes no signals, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_sigint(signum: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, on_sigint)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
