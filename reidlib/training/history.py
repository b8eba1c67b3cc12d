"""What a training did."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class History:
    """What a training did: tables for figures, and the facts that belong beside its numbers."""

    losses: pd.DataFrame  # a row per interval: step, each loss's mean, each optimizer's lr, seconds, images_per_second
    evaluations: pd.DataFrame  # a row per call of `evaluate`: step, seconds, its numbers
    steps: int  # steps done in all, with those before a resume
    images: int
    seconds: float  # of training, without evaluation
    device: str  # with the CPU's thread count, which decides the last bits; all of them if a resume changed it
    precision: str
    channels_last: bool
    processes: int
    peak_memory: int | None  # bytes, during this call of `fit`; see `machine.peak_memory`
    resumed_from: int | None
    stopped_early: bool
    checkpoint: Path | None

    def __str__(self) -> str:
        rate = self.images / self.seconds if self.seconds else 0.0
        last = {} if self.losses.empty else self.losses.iloc[-1].to_dict()
        skip = ("step", "seconds", "images_per_second")
        losses = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k not in skip and not k.startswith("lr/"))
        return (
            f"{self.steps} steps{' (stopped early)' if self.stopped_early else ''}, {self.images} images in "
            f"{self.seconds:.1f} s ({rate:.0f} a second) on {self.device}, {self.precision}; {losses}"
        )


class Interrupted(KeyboardInterrupt):
    """Training was interrupted, its checkpoint is saved; `.history` holds what was done until then."""

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history
