"""What a training tells: its progress while it runs, its history afterwards."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reidlib.machine import is_interactive

SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class History:
    """What a training did: tables for figures, and the facts that belong beside its numbers."""

    losses: (
        pd.DataFrame
    )  # a row per interval: step, the mean of each loss, lr of each optimizer, seconds, images_per_second
    evaluations: pd.DataFrame  # a row per call of `evaluate`: step, seconds, its numbers
    steps: int  # steps done in all, with those before a resume
    images: int
    seconds: float  # of training, without evaluation
    device: str
    precision: str
    channels_last: bool
    processes: int
    peak_memory: int  # bytes
    resumed_from: int | None
    stopped_early: bool
    checkpoint: Path | None

    @property
    def images_per_second(self) -> float:
        """Images seen a second, over all processes."""
        return self.images / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        last = {} if self.losses.empty else self.losses.iloc[-1].to_dict()
        skip = ("step", "seconds", "images_per_second")
        losses = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k not in skip and not k.startswith("lr/"))
        return (
            f"{self.steps} steps{' (stopped early)' if self.stopped_early else ''}, {self.images} images in "
            f"{self.seconds:.1f} s ({self.images_per_second:.0f} a second) on {self.device}, {self.precision}; {losses}"
        )


class Interrupted(KeyboardInterrupt):
    """Training was interrupted, its checkpoint is saved; `.history` holds what was done until then."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


class Progress:
    """A bar where somebody watches, a plain line every few seconds where nobody does, nothing when off."""

    def __init__(self, steps: int, wanted: bool) -> None:
        self.steps, self.wanted, self.bar = steps, wanted, None
        self.first: tuple[int, float] | None = None
        self.last_line = time.monotonic()
        if wanted and is_interactive():
            from tqdm.auto import tqdm

            self.bar = tqdm(total=steps, unit="step")

    def show(self, step: int, values: Mapping[str, float], rate: float) -> None:
        """Tell that `step` steps are done, with the losses of the last one and the images a second so far."""
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()}, refresh=False)
            return
        now = time.monotonic()
        self.first = self.first or (step, now)
        if self.wanted and (now - self.last_line >= SECONDS_BETWEEN_LINES or step == self.steps):
            self.last_line = now
            done, seconds = step - self.first[0], now - self.first[1]
            left = f" · {(self.steps - step) * seconds / done:.0f} s left" if done and step < self.steps else ""
            losses = " · ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"step {step}/{self.steps} · {losses} · {rate:.0f} images/s{left}", flush=True)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
