"""The state of one `fit` and the steps that change it."""

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from reidlib.machine import device_name, peak_memory
from reidlib.training.checkpoints import CHECKPOINT, check_same, plain, save_checkpoint
from reidlib.training.history import History, Interrupted, Progress
from reidlib.training.updates import Update, check_optimizers


def step_seed(seed: int, step: int, rank: int) -> int:
    """Mix the three into one seed for torch."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def _pieces(batch: Mapping[str, Any], count: int) -> list[tuple[Mapping[str, Any], float]]:
    """Cut a batch along its images into `count` pieces, each with its share of them."""
    if count == 1:
        return [(batch, 1.0)]
    size = batch_size(batch)
    if size < count:
        raise ValueError(f"a batch of {size} images cannot be cut into accumulation={count} pieces")

    def cut(value: Any) -> list[Any]:
        whole = not isinstance(value, Tensor) or value.ndim == 0 or len(value) != size
        return [value] * count if whole else list(value.tensor_split(count))

    columns = {name: cut(value) for name, value in batch.items()}
    sizes = [len(piece) for piece in torch.arange(size).tensor_split(count)]
    return [({name: parts[i] for name, parts in columns.items()}, sizes[i] / size) for i in range(count)]


def batch_size(batch: Mapping[str, Any]) -> int:
    """Return how many images a batch holds: the length of `images`, else of its first tensor."""
    tensors = [value for value in batch.values() if isinstance(value, Tensor) and value.ndim]
    return len(batch["images"]) if "images" in batch else len(tensors[0]) if tensors else 0


class Loop:
    """The state of one `fit`: what a checkpoint holds, and the steps that change it."""

    def __init__(
        self,
        method: nn.Module,
        batches: Callable[[int], Mapping[str, Any]],
        accelerator: Any,
        device: torch.device,
        numerics: dict[str, Any],
        run_dir: Path | None,
        *,
        seed: int,
        accumulation: int,
        ema: float | None,
    ) -> None:
        self.method, self.accelerator, self.device, self.numerics, self.run_dir = (
            method, accelerator, device, numerics, run_dir)  # fmt: skip
        self.seed, self.accumulation, self.ema_decay = seed, accumulation, ema
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        if self.processes > 1:
            if not hasattr(batches, "shard"):
                raise ValueError(
                    f"{self.processes} processes need batches.shard(rank, world), which these batches lack"
                )
            batches = batches.shard(self.rank, self.processes)
        self.batches = batches
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.rows: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []
        self.row_start = (0, 0.0)  # images and seconds at the last row
        self.resumed_from: int | None = None

    def start(self, stored: Mapping[str, Any] | None, settings: Any, steps: int) -> None:
        """Move the method, make its optimizers, take up the checkpoint."""
        self.method.to(self.device)
        if self.numerics["channels_last"]:
            self.method.to(memory_format=torch.channels_last)
        self.entries = check_optimizers(self.method)
        self.update = Update(self.accelerator, self.entries, self.device)
        self.update.share_state(self.method)
        self.ema = None if self.ema_decay is None else {k: v.clone() for k, v in self._averaged().items()}
        self.settings = self._facts(settings)
        self._agree(stored)
        if stored is None:
            return
        check_same(stored["settings"], self.settings, self.run_dir)
        if stored["step"] > steps:
            raise ValueError(
                f"the checkpoint in {self.run_dir} is at step {stored['step']}, past the {steps} steps asked for; "
                "ask for more, or give resume=False to start anew"
            )
        if stored["processes"] != self.processes:
            warnings.warn(
                f"the checkpoint is of {stored['processes']} processes, now there are {self.processes}: the numbers "
                "will not be those of a run that never stopped", stacklevel=4)  # fmt: skip
        self.method.load_state_dict(stored["method"])
        for name, entry in self.entries.items():
            entry.optimizer.load_state_dict(stored["optimizers"][name])
            if isinstance(entry.schedule, LRScheduler):
                entry.schedule.load_state_dict(stored["schedules"][name])
        if self.ema is not None:
            self.ema = {name: tensor.to(self.device) for name, tensor in stored["ema"].items()}
        for name in ("step", "images", "seconds", "rows", "evaluations", "pending", "row_start"):
            setattr(self, name, stored[name])
        self.resumed_from = self.step

    def _agree(self, stored: Mapping[str, Any] | None) -> None:
        """Stop before processes that read different checkpoints wait for each other for ever."""
        step = 0 if stored is None else stored["step"]
        if self.processes > 1:
            mean = float(self.accelerator.reduce(torch.tensor(float(step), device=self.device), "mean"))
            spread = float(self.accelerator.reduce(torch.tensor(abs(step - mean), device=self.device), "sum"))
            if spread:
                raise ValueError(
                    f"the processes read different checkpoints in {self.run_dir}; is it one shared folder?"
                )

    def _facts(self, settings: Any) -> dict[str, Any]:
        """Return what must be the same when a run resumes."""
        settings = asdict(settings) if is_dataclass(settings) else settings
        settings = settings if isinstance(settings, Mapping) or settings is None else {"value": settings}
        facts = {"method": type(self.method).__name__, "seed": self.seed, "accumulation": self.accumulation,
                 "ema": self.ema_decay, **self.numerics}  # fmt: skip
        if hasattr(self.batches, "__len__"):
            facts["len(batches)"] = len(self.batches)
        facts |= {f"settings.{name}": value for name, value in (settings or {}).items()}
        facts |= {f"shape of {name}": list(tensor.shape) for name, tensor in self.method.named_parameters()}
        for name, entry in self.entries.items():
            groups = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in entry.optimizer.param_groups]
            facts[f"optimizer {name}"] = [type(entry.optimizer).__name__, groups]
        return plain(facts)

    def _averaged(self) -> dict[str, Tensor]:
        """Return the live tensors that averaged weights follow: every floating weight and buffer."""
        state = self.method.state_dict()
        return {k: v for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}

    def save(self) -> None:
        """Write the checkpoint (process 0 only)."""
        if self.run_dir is None or not self.accelerator.is_main_process:
            return
        names = (
            "step",
            "images",
            "seconds",
            "rows",
            "evaluations",
            "pending",
            "row_start",
            "settings",
            "processes",
            "ema",
        )
        state = {name: getattr(self, name) for name in names}
        state["method"] = self.method.state_dict()
        state["optimizers"] = {name: entry.optimizer.state_dict() for name, entry in self.entries.items()}
        state["schedules"] = {name: entry.schedule.state_dict() for name, entry in self.entries.items()
                              if isinstance(entry.schedule, LRScheduler)}  # fmt: skip
        save_checkpoint(self.run_dir, state)

    def run(
        self,
        steps: int,
        every: Mapping[str, int],
        evaluate: Callable[[nn.Module, int], Mapping[str, float]] | None,
        interrupted: threading.Event,
        progress: Progress,
    ) -> None:
        """Do the steps, and the last evaluation, that are missing."""
        self.method.train()
        with contextlib.closing(progress):
            while self.step < steps and not interrupted.is_set():
                started = time.monotonic()
                values = self.one_step(interrupted)
                self.seconds += time.monotonic() - started
                self.pending.append(values)
                if self.step % every["log"] == 0:
                    self.rows.append(self._row())
                    self.pending, self.row_start = [], (self.images, self.seconds)
                progress.show(self.step, values, self.images / self.seconds)
                if self.step % every["evaluate"] == 0 and self.step < steps and not interrupted.is_set():
                    self._evaluate(evaluate)
                if self.step % every["checkpoint"] == 0 or self.step == steps or interrupted.is_set():
                    self.save()
        if self.step == steps and not interrupted.is_set() and self._evaluate(evaluate):
            self.save()

    def one_step(self, interrupted: threading.Event) -> dict[str, float]:
        """Do one step and return its losses, averaged over processes."""
        torch.manual_seed(step_seed(self.seed, self.step, self.rank))
        batch = {name: self._move(value) for name, value in self.batches(self.step).items()}
        for entry in self.entries.values():
            entry.set_rate(self.step)
        terms: dict[str, Tensor | float] = {}
        self.update.failure = None
        size, total = self._sizes(batch)
        mine = (
            size * self.processes / total if total else 1.0
        )  # so that the mean over processes is the mean over the whole batch
        for index, (piece, share) in enumerate(_pieces(batch, self.accumulation)):
            share *= mine
            self.update.begin(index, self.accumulation, share)
            with self.accelerator.autocast():
                losses = self.method.training_step(piece, self.step, self.update)
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + torch.as_tensor(value).detach().float().to(self.device) * share
        self.update.average_buffers(self.method)
        flat = torch.stack([*terms.values(), torch.tensor(float(interrupted.is_set()), device=self.device)])
        *numbers, stop = self.accelerator.reduce(flat, "mean").tolist()
        if stop:
            interrupted.set()  # one process's interrupt is everybody's
        values = dict(zip(terms, numbers, strict=True))
        self._check_finite(values)
        self.step += 1
        self.images += total
        if self.ema is not None:
            weight = 1 - min(self.ema_decay, self.step / (9 + self.step))
            live = self._averaged()
            torch._foreach_lerp_(list(self.ema.values()), [live[name] for name in self.ema], weight)
        return values

    def _sizes(self, batch: Mapping[str, Any]) -> tuple[int, int]:
        """Return the images of this process's batch and of everybody's: shards may differ by one."""
        size = batch_size(batch)
        if self.processes == 1:
            return size, size
        return size, int(self.accelerator.reduce(torch.tensor(size, device=self.device), "sum"))

    def _check_finite(self, values: Mapping[str, float]) -> None:
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        if bad or self.update.failure:
            what = " and ".join(filter(None, [", ".join(bad), self.update.failure]))
            terms = ", ".join(f"{name} = {value:g}" for name, value in values.items())
            raise FloatingPointError(f"not finite at step {self.step}: {what}. Every loss of this step: {terms}")

    def _move(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.to(self.device, non_blocking=True)
        if self.numerics["channels_last"] and value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        return value

    def _row(self) -> dict[str, float]:
        names = list(dict.fromkeys(name for values in self.pending for name in values))
        means = {name: float(np.mean([values[name] for values in self.pending if name in values])) for name in names}
        rates = {f"lr/{name}": float(entry.optimizer.param_groups[0]["lr"]) for name, entry in self.entries.items()}
        images, seconds = self.images - self.row_start[0], self.seconds - self.row_start[1]
        return {"step": self.step, **means, **rates, "seconds": self.seconds,
                "images_per_second": images / max(seconds, 1e-9)}  # fmt: skip

    def _evaluate(self, evaluate: Callable[[nn.Module, int], Mapping[str, float]] | None) -> bool:
        """Evaluate the (averaged) weights unless that was done at this step; say whether it was done now."""
        if evaluate is None or (self.evaluations and self.evaluations[-1]["step"] == self.step):
            return False
        started = time.monotonic()
        live = {} if self.ema is None else self._averaged()
        raw = {name: tensor.clone() for name, tensor in live.items()}
        self._copy(self.ema or {}, live)
        self.method.eval()
        try:
            with torch.no_grad():
                numbers = {name: float(value) for name, value in evaluate(self.method, self.step).items()}
        finally:
            self._copy(raw, live)
            self.method.train()
        self.evaluations.append({"step": self.step, **numbers, "evaluation_seconds": time.monotonic() - started})
        return True

    @staticmethod
    @torch.no_grad()
    def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name, tensor in source.items():
            target[name].copy_(tensor)

    def finish(self, interrupted: threading.Event) -> History:
        """Hand out the history, once the checkpoint is there for all; raise if a SIGINT ended the run."""
        self.accelerator.wait_for_everyone()
        if self.ema is not None:
            self._copy(self.ema, self._averaged())
        rows = self.rows + ([self._row()] if self.pending else [])
        checkpoint = None if self.run_dir is None else self.run_dir / CHECKPOINT
        history = History(
            losses=pd.DataFrame(rows), evaluations=pd.DataFrame(self.evaluations), steps=self.step, images=self.images,
            seconds=self.seconds, device=device_name(self.device), processes=self.processes, **self.numerics,
            peak_memory=peak_memory(self.device), resumed_from=self.resumed_from,
            stopped_early=interrupted.is_set(), checkpoint=checkpoint,
        )  # fmt: skip
        if interrupted.is_set():
            kept = (
                f"saved in {checkpoint}: the same call goes on from there" if checkpoint else "not saved (no run_dir)"
            )
            raise Interrupted(f"stopped after step {self.step}, {kept}", history)
        return history
