"""The state of one `fit` and the steps that change it."""

import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from reidlib.machine import Processes, device_name, peak_memory, progress_bar
from reidlib.training.checkpoints import CHECKPOINT, check_same, save_checkpoint
from reidlib.training.fingerprints import describe, of_batches, of_method, plain
from reidlib.training.history import History, Interrupted
from reidlib.training.updates import Update, check_optimizers

Evaluate = Callable[[nn.Module, int], Mapping[str, float]]  # (method, step) -> numbers
KEPT = ("step", "images", "seconds", "rows", "evaluations", "pending", "row_start", "devices", "warned")

GROWN = 1000  # so many times its first mean, or 1, and a loss has grown out of hand


def step_seed(seed: int, step: int, rank: int) -> int:
    """Mix the three into one seed for torch."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def _pieces(batch: Mapping[str, Any], count: int, least: int = 1) -> list[tuple[Mapping[str, Any], float]]:
    """Cut a batch along its images into `count` pieces of at least `least` images, each with its share of them."""
    if count == 1:
        return [(batch, 1.0)]
    size = batch_size(batch)
    if size < count * least:  # batch normalisation cannot train on a single image
        raise ValueError(f"a batch of {size} images cannot be cut into accumulation={count} pieces of {least} or more")
    cut = {n: v.tensor_split(count) for n, v in batch.items() if isinstance(v, Tensor) and v.ndim and len(v) == size}
    shares = [len(rows) / size for rows in torch.arange(size).tensor_split(count)]
    return [({**batch, **{name: parts[i] for name, parts in cut.items()}}, shares[i]) for i in range(count)]


def batch_size(batch: Mapping[str, Any]) -> int:
    """Return how many images a batch holds: the length of `images`, else of its first tensor."""
    tensors = [value for value in batch.values() if isinstance(value, Tensor) and value.ndim]
    return len(batch["images"]) if "images" in batch else len(tensors[0]) if tensors else 0


@dataclass(eq=False)
class Loop:
    """The state of one `fit`: what a checkpoint holds, and the steps that change it."""

    method: nn.Module
    batches: Callable[[int], Mapping[str, Any]]
    processes: Processes
    device: torch.device
    numerics: dict[str, Any]
    run_dir: Path | None
    seed: int
    accumulation: int
    ema_decay: float | None
    interrupted: threading.Event
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    pending: list[dict[str, float]] = field(default_factory=list)
    row_start: tuple[int, float] = (0, 0.0)  # images and seconds at the last row
    devices: list[str] = field(default_factory=list)  # in words, those that took steps
    resumed_from: int | None = None
    stopping: bool = False  # every process knows of the interrupt
    warned: list[str] = field(default_factory=list)  # losses that grew out of hand

    def start(self, stored: Mapping[str, Any] | None, settings: Any, steps: int) -> None:
        """Move the method, make its optimizers, take up the checkpoint."""
        self.method.to(self.device)
        if self.numerics["channels_last"]:
            self.method.to(memory_format=torch.channels_last)
        self.entries = check_optimizers(self.method)
        for entry in self.entries.values():  # what somebody's look at a step, or a failed one, has left
            entry.optimizer.zero_grad()
        self.update = Update(self.processes, self.entries, self.device)
        self.processes.share(list(self.method.state_dict().values()))
        self.ema = None if self.ema_decay is None else {k: v.clone() for k, v in self._averaged().items()}
        self.settings = {} if self.run_dir is None else self._facts(settings, steps, stored is not None)
        if (count := self.processes.count) > 1:
            if not hasattr(self.batches, "shard"):
                raise ValueError(f"{count} processes need batches.shard(rank, world), which these batches lack")
            self.batches = self.batches.shard(self.processes.rank, count)
            self._agree(0 if stored is None else stored["step"])
        if stored is not None:
            check_same(stored["settings"], self.settings, self.run_dir)
            self._take_up(stored, steps)

    def _take_up(self, stored: Mapping[str, Any], steps: int) -> None:
        """Go on from a checkpoint of this training."""
        self.method.load_state_dict(stored["method"])
        for name, entry in self.entries.items():
            entry.optimizer.load_state_dict(stored["optimizers"][name])
            if isinstance(entry.schedule, LRScheduler):
                entry.schedule.load_state_dict(stored["schedules"][name])
        if self.ema is not None:
            self.ema = {name: tensor.to(self.device) for name, tensor in stored["ema"].items()}
        for name in KEPT:
            setattr(self, name, stored[name])
        self.resumed_from = self.step
        before, now = (stored["processes"], self.devices[-1]), (self.processes.count, device_name(self.device))
        if self.step < steps and before != now:
            warnings.warn(
                "the checkpoint is of {} processes on {}, now there are {} on {}: the numbers will not be those of a "
                "run that never stopped".format(*before, *now), stacklevel=4)  # fmt: skip

    def _agree(self, step: int) -> None:
        """Raise where processes read different checkpoints, before they wait for each other without end."""
        mean = float(self.processes.mean(torch.tensor(float(step), device=self.device)))
        if float(self.processes.sum(torch.tensor(abs(step - mean), device=self.device))):
            raise ValueError(f"the processes read different checkpoints in {self.run_dir}; is it one shared folder?")

    def _facts(self, settings: Any, steps: int, goes_on: bool) -> dict[str, Any]:
        """Return what must be the same when a run resumes."""
        torch.manual_seed(step_seed(self.seed, 0, 0))  # for batches that draw from torch's own generator
        facts = {"seed": self.seed, "accumulation": self.accumulation, "ema": self.ema_decay}
        facts |= {"precision": self.numerics["precision"], **of_batches(self.batches, steps)}
        facts |= of_method(self.method, settings, self.run_dir if goes_on else None)
        for name, entry in self.entries.items():
            groups = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in entry.optimizer.param_groups]
            facts[f"optimizer {name}"] = [type(entry.optimizer).__name__, groups]
            kept = isinstance(entry.schedule, LRScheduler)  # its state is in the checkpoint
            function = getattr(entry.schedule, "__func__", entry.schedule)  # a method's own settings are facts already
            facts[f"schedule {name}"] = type(entry.schedule).__name__ if kept else describe(function)
        return plain(facts)

    def _averaged(self) -> dict[str, Tensor]:
        """Return the live tensors that averaged weights follow: every floating weight and buffer."""
        state = self.method.state_dict()
        return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}

    def save(self) -> None:
        """Write the checkpoint (process 0 only)."""
        if self.run_dir is None or self.processes.rank:
            return
        state = {name: getattr(self, name) for name in (*KEPT, "settings", "ema")}
        state |= {"processes": self.processes.count, "method": self.method.state_dict()}
        state["optimizers"] = {name: entry.optimizer.state_dict() for name, entry in self.entries.items()}
        schedules = {name: entry.schedule for name, entry in self.entries.items()}
        state["schedules"] = {n: s.state_dict() for n, s in schedules.items() if isinstance(s, LRScheduler)}
        save_checkpoint(self.run_dir, state)

    def run(self, steps: int, every: Mapping[str, int], evaluate: Evaluate | None, progress: bool) -> None:
        """Do the steps, and the evaluations, that are missing."""
        self.method.train()
        with progress_bar(steps, "training", "step", progress and not self.processes.rank, done=self.step) as advance:
            if 0 < self.step < steps and self.step % every["evaluate"] == 0:
                self._evaluate(evaluate)  # an interrupt at this step came first
            while self.step < steps and not self._stops():
                started = time.monotonic()
                values = self.one_step()
                self.seconds += time.monotonic() - started
                self.pending.append(values)
                if self.step % every["log"] == 0:
                    self.rows.append(self._row())
                    self._warn_of_growth(self.pending, self.rows)
                    self.pending, self.row_start = [], (self.images, self.seconds)
                losses = [f"{name} {value:.4g}" for name, value in values.items()]
                advance(1, " · ".join([*losses, f"{self.images / self.seconds:.0f} images/s"]))
                if self.step % every["evaluate"] == 0 and self.step < steps and not self._stops():
                    self._evaluate(evaluate)
                if self.step % every["checkpoint"] == 0 or self.step == steps or self._stops():
                    self.save()
        if self.step == steps and not self._stops() and self._evaluate(evaluate):
            self.save()

    def _stops(self) -> bool:
        """Say whether the run ends here: several processes stop at the step where all of them know."""
        return self.stopping or (self.processes.count == 1 and self.interrupted.is_set())

    def one_step(self) -> dict[str, float]:
        """Do one step and return its losses, averaged over processes."""
        torch.manual_seed(step_seed(self.seed, self.step, self.processes.rank))
        batch = {name: self._move(value) for name, value in self.batches(self.step).items()}
        for entry in self.entries.values():
            entry.set_rate(self.step)
        terms: dict[str, Tensor | float] = {}
        self.update.failure = None
        size = total = batch_size(batch)
        if self.processes.count > 1:
            total = int(self.processes.sum(torch.tensor(size, device=self.device)))
        # so that the mean over processes, whose shards may differ by one, is the mean over the whole batch
        mine = size * self.processes.count / total if total else 1.0
        least = 1 + any(isinstance(module, nn.BatchNorm1d) for module in self.method.modules())
        for index, (piece, share) in enumerate(_pieces(batch, self.accumulation, least)):
            share *= mine
            self.update.begin(index, self.accumulation, share)
            # autocast caches the casted weights of its whole block, so a network used again after its own optimizer
            # stepped inside the block would still see the old weights: no cache
            half = self.numerics["precision"] == "bf16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half, cache_enabled=False):
                losses = self.method.training_step(piece, self.step, self.update)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + torch.as_tensor(value).detach().float().to(self.device) * share
        self.update.average_buffers(self.method)
        flat = torch.stack([*terms.values(), torch.tensor(float(self.interrupted.is_set()), device=self.device)])
        *numbers, stop = self.processes.mean(flat).tolist()
        self.stopping = bool(stop)  # one process's interrupt is everybody's
        values = dict(zip(terms, numbers, strict=True))
        self._check_finite(values)
        self.step += 1
        self.images += total
        if (here := device_name(self.device)) not in self.devices[-1:]:
            self.devices.append(here)
        if self.ema is not None:
            weight = 1 - min(self.ema_decay, self.step / (9 + self.step))
            live = self._averaged()
            torch._foreach_lerp_(list(self.ema.values()), [live[name] for name in self.ema], weight)
        return values

    def _check_finite(self, values: Mapping[str, float]) -> None:
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad or self.update.failure:
            what = " and ".join(filter(None, [", ".join(bad), self.update.failure]))
            terms = ", ".join(f"{name} = {value:g}" for name, value in values.items())
            raise FloatingPointError(f"not finite at step {self.step}: {what}. Every loss of this step: {terms}")

    def _warn_of_growth(self, steps: list[dict[str, float]], rows: list[dict[str, float]]) -> None:
        """Warn, once a term, where its mean over the last row is far above that of its first: this training diverges.

        `steps`: the losses of that row's steps.
        """
        names = dict.fromkeys(name for values in steps for name in values if name not in self.warned)
        pairs = {name: [row[name] for row in rows if name in row] for name in names}
        grown = {name: (means[0], means[-1]) for name, means in pairs.items()
                 if abs(means[-1]) > GROWN * max(1, abs(means[0]))}  # fmt: skip
        self.warned.extend(grown)
        if grown and not self.processes.rank:
            said = ", ".join(f"{name} = {last:.3g} (at first {first:.3g})" for name, (first, last) in grown.items())
            warnings.warn(f"at step {self.step} this training diverges: {said}; try a lower rate", stacklevel=4)

    def _move(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        layout = torch.channels_last if self.numerics["channels_last"] and value.ndim == 4 else torch.preserve_format
        return value.to(self.device, non_blocking=True, memory_format=layout)

    def _row(self) -> dict[str, float]:
        names = list(dict.fromkeys(name for values in self.pending for name in values))
        means = {name: float(np.mean([values[name] for values in self.pending if name in values])) for name in names}
        rates = {f"lr/{name}": float(entry.optimizer.param_groups[0]["lr"]) for name, entry in self.entries.items()}
        images, seconds = self.images - self.row_start[0], self.seconds - self.row_start[1]
        return {"step": self.step, **means, **rates, "seconds": self.seconds,
                "images_per_second": images / max(seconds, 1e-9)}  # fmt: skip

    def _evaluate(self, evaluate: Evaluate | None) -> bool:
        """Evaluate the (averaged) weights unless that was done at this step; say whether it was done now."""
        if evaluate is None or (self.evaluations and self.evaluations[-1]["step"] == self.step):
            return False
        started = time.monotonic()
        torch.manual_seed(step_seed(self.seed, self.step, self.processes.rank))  # as a resumed run would
        raw = {} if self.ema is None else {name: tensor.clone() for name, tensor in self._averaged().items()}
        self.method.load_state_dict(self.ema or {}, strict=False)
        self.method.eval()
        try:
            with torch.no_grad():
                numbers = {name: float(value) for name, value in evaluate(self.method, self.step).items()}
        finally:
            self.method.load_state_dict(raw, strict=False)
            self.method.train()
        self.evaluations.append({"step": self.step, **numbers, "evaluation_seconds": time.monotonic() - started})
        return True

    def finish(self, since: int | None) -> History:
        """Hand out the history, once the checkpoint is there for all; raise if a SIGINT ended the run."""
        self.processes.wait()
        self.method.load_state_dict(self.ema or {}, strict=False)
        rows = self.rows + ([self._row()] if self.pending else [])
        self._warn_of_growth(self.pending, rows)
        checkpoint = None if self.run_dir is None else self.run_dir / CHECKPOINT
        history = History(
            losses=pd.DataFrame(rows), evaluations=pd.DataFrame(self.evaluations), steps=self.step, images=self.images,
            seconds=self.seconds, device=", then ".join(self.devices) or device_name(self.device),
            processes=self.processes.count, peak_memory=peak_memory(self.device, since), **self.numerics,
            resumed_from=self.resumed_from, stopped_early=self._stops(), checkpoint=checkpoint,
        )  # fmt: skip
        if history.stopped_early:
            how = f"saved in {checkpoint}: the same call goes on from there" if checkpoint else "not saved (no run_dir)"
            raise Interrupted(f"stopped after step {self.step}, {how}", history)
        return history
