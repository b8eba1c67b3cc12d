r"""One training loop for every method: `fit` calls `method.training_step(batch, step, update)` and does the rest.

A method is an `nn.Module` with

- `.optimizers() -> dict[name, (parameters, optimizer, schedule)]`: `schedule` is None, a function step -> factor of the
  optimizer's own learning rate (0-based step of `fit`), or a torch `LRScheduler`, stepped after each of its
  optimizer's steps;
- `.training_step(batch, step, update) -> dict[str, Tensor]`: the paper's losses in the paper's order, by their names.
  Where the paper takes a step it calls `update("D", loss)`. Under mixed precision it casts what the networks return
  to float32 before its losses. Frozen guides are its own business: `fit` puts the whole method into training mode.

`update(name, loss)` sends gradients to that optimizer's parameters only (a generator's loss leaves nothing in the
discriminator), averages them over processes, checks that loss and gradients are finite, steps, and clears them.

Reproducible: `batches(step)` is a function of the step, and torch's generators are seeded from (seed, step, process)
before every step, so a run that stops and resumes meets the same numbers as one that never stopped. The caller's own
random state is put back afterwards.

>>> class Mean(nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.value = nn.Parameter(torch.zeros(()))
...     def optimizers(self):
...         return {"M": ([self.value], torch.optim.SGD([self.value], lr=0.5), lambda step: 1.0)}
...     def training_step(self, batch, step, update):
...         loss = 0.5 * ((batch["images"] - self.value) ** 2).mean()
...         update("M", loss)
...         return {"squared error": loss}
>>> mean = Mean()
>>> history = fit(mean, lambda step: {"images": torch.tensor([2.0, 4.0])}, 8, device="cpu", progress=False)
>>> history.steps, round(mean.value.item(), 2)
(8, 2.99)
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Augment, Batches, Sampler
from reidlib.files import locked, resolve
from reidlib.machine import Processes, has_fast_bfloat16, pick_device, watch_memory
from reidlib.training.checkpoints import CHECKPOINT, load_checkpoint, remove_leftovers
from reidlib.training.fingerprints import remember
from reidlib.training.history import History
from reidlib.training.loop import Evaluate, Loop
from reidlib.training.updates import deterministic_kernels, postponed_sigint

PRECISIONS = ("auto", "fp32", "bf16")


def settle_precision(precision: str, device: torch.device) -> str:
    """Say what a precision means on a device: "auto" is bfloat16 where the hardware is quick at it, else float32."""
    check_choice("precision", precision, PRECISIONS)
    automatic = "bf16" if has_fast_bfloat16(device) else "fp32"
    return automatic if precision == "auto" else precision


def _numerics(stored: Mapping[str, Any] | None, device: torch.device, precision: str) -> dict[str, Any]:
    """Settle the precision (for "auto" the checkpoint's, else what suits the hardware) and the memory layout."""
    precision = stored["settings"]["precision"] if stored and precision == "auto" else precision
    precision = settle_precision(precision, device)
    # never on a CPU: torch 2.13 corrupts memory there in the backward pass of some batch sizes (27 images, width 8,
    # two threads, fp32 and bf16 alike), and the layout gains a few percent
    return {"precision": precision, "channels_last": precision == "bf16" and device.type == "cuda"}


def _check_arguments(method: object, precision: str, ema: float | None, **counts: int) -> None:
    """Refuse, at the door, what `fit` cannot work with."""
    if not (isinstance(method, nn.Module) and hasattr(method, "training_step") and hasattr(method, "optimizers")):
        raise TypeError(f"method must be an nn.Module with optimizers(), training_step(); got {type(method).__name__}")
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    check_choice("precision", precision, PRECISIONS)
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must lie between 0 and 1, got {ema!r}")


def fit(
    method: nn.Module,
    batches: Callable[[int], Mapping[str, Any]],
    steps: int,
    run_dir: str | Path | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    accumulation: int = 1,
    ema: float | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    log_every: int = 10,
    checkpoint_every: int = 200,
    resume: bool = True,
    settings: Any = None,
    progress: bool = True,
) -> History:
    r"""Train `method` on `batches(0) ... batches(steps - 1)` and return what happened.

    Args:
        method: an `nn.Module` with `optimizers()` and `training_step(batch, step, update)` (see this module's head).
        batches: step -> dict of tensors, a function of the step alone. Under torchrun it also offers
            `.shard(rank, world)`, this process's part of every batch.
        steps: steps in all; a resumed run does those that are missing.
        run_dir: folder of the checkpoint; a relative one counts from the repository root. None keeps nothing. It holds
            one training, known by what decides its numbers: the weights at the start, the modules and their options,
            `settings` and the method's own, seed, length, precision, images, labels, sampler and augmentation (of
            batches that are no `sampling.Batches`: the first three batches).
        seed: with step and process it seeds torch before every step (dropout, noise).
        device: where the method is moved to, and its batches: "auto" (what `machine.pick_device` says), "cpu", "cuda",
            "cuda:1", "mps".
        precision: "fp32", "bf16" (autocast; on a GPU images and 4-D weights are then laid out channels last), or
            "auto": bf16 where the hardware is quick at it. A checkpoint made under "auto" is resumed in its own
            precision.
        accumulation: each batch goes through in so many pieces whose gradients add up to the batch's mean: the same
            step for less memory (BatchNorm and losses across a batch see a piece). One `update` a name and step.
        ema: decay of averaged weights, e.g. 0.999, reached slowly: min(ema, (1 + step) / (10 + step)). `evaluate` sees
            them, and the method comes back with them; the checkpoint keeps both.
        evaluate: (method, step) -> numbers, called in eval mode without gradients every `evaluate_every` steps and
            after the last one, on every process, with torch's generators seeded from (seed, step, process). An
            interrupt at such a step puts it off until the run goes on.
        log_every: steps in a row of `History.losses`.
        checkpoint_every: steps between checkpoints; the last step and an interruption are always saved.
        resume: go on from the checkpoint in `run_dir`; False starts anew and overwrites it.
        settings: anything JSON can hold, or a dataclass, that decides the numbers (switches, data, batch size). It is
            kept in the checkpoint, and another one is refused.
        progress: a bar when interactive, otherwise a line every few seconds and at the end.

    Warns:
        UserWarning: a loss whose mean over a row of `log_every` steps is 1,000 times that of its first row (or 1, where
            that is less); the training goes on, which a diverging one seldom deserves.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; every loss of the step is named. The weights are those
            before the failing update, the checkpoint is the last good one.
        Interrupted: SIGINT (Ctrl-C, a notebook's stop button); a KeyboardInterrupt, so that "Run all" ends there. The
            step is finished and saved first, `.history` tells what was done; calling `fit` again goes on. A second
            SIGINT stops at once.
        ValueError: the arguments do not fit each other, or the checkpoint is of another training, with what differs.
        InUseError: another process trains in this `run_dir`; its process id and host are named.
        OSError: the checkpoint cannot be written, such as on a full disk: the room it needs, the room that is free and
            the last good checkpoint are named. The method keeps the weights of the last step.

    Under torchrun every process calls `fit`; the weights start as those of process 0, gradients are averaged, running
    statistics of BatchNorm are averaged after each step (other buffers follow process 0), so weights and buffers are
    the same everywhere. Only process 0 writes files.

    """
    _check_arguments(method, precision, ema, steps=steps, accumulation=accumulation, log_every=log_every,
                     checkpoint_every=checkpoint_every, evaluate_every=evaluate_every or steps)  # fmt: skip
    device = pick_device(device)
    run_dir = None if run_dir is None else resolve(run_dir)
    processes, since = Processes(device), watch_memory(device)
    every = {"log": log_every, "checkpoint": checkpoint_every, "evaluate": evaluate_every or steps}
    with ExitStack() as stack:
        if run_dir is not None and not processes.rank:
            stack.enter_context(locked(run_dir / CHECKPOINT))
            remove_leftovers(run_dir)
        stored = load_checkpoint(run_dir) if run_dir is not None and resume else None
        numerics = _numerics(stored, device, precision)
        stack.enter_context(torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []))
        stack.enter_context(deterministic_kernels())
        interrupted = stack.enter_context(postponed_sigint())
        loop = Loop(method, batches, processes, device, numerics, run_dir, seed, accumulation, ema, interrupted)
        loop.start(stored, settings, steps)
        if run_dir is not None:  # however this call ends
            stack.callback(lambda: remember(method, run_dir, loop.settings["weights at the start"]))
        loop.run(steps, every, evaluate, progress)
        return loop.finish(since)


def train(
    build: Callable[[int, int], nn.Module],
    images: PersonImages,
    sampler: Sampler,
    *,
    images_seen: int,
    augment: Augment | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    evaluations: int = 1,
    **options: Any,
) -> tuple[nn.Module, History]:
    r"""Build a method and train it until it has seen `images_seen` images (or pairs); return it with its history.

    The skeleton of every experiment: $\lfloor n / B \rfloor$ steps for n images in batches of B, so that sets and
    batches of different size are compared at equal cost. Nothing but the arguments decides the numbers: the caller's
    random state is neither used nor changed, and each evaluation starts from a generator seeded by (seed, step,
    process), so that it may draw, too.

    Args:
        build: (steps, n_classes) -> method, called under `seed`: schedules need the steps, classifiers the classes.
        images: the training set.
        sampler: how it is cut into batches, from `datasets.sampling`; of pairs, where it draws pairs.
        images_seen: length of the training in images (pairs).
        augment: (batch, generator) -> batch, see `datasets.augment`; None changes nothing.
        labels: int64 [N], class of each image; default: the identities, numbered in sorted order.
        seed: of the initial weights, the order, the augmentation and the steps.
        device: where the method and its batches lie; "auto" is what `machine.pick_device` says.
        evaluations: how often `evaluate` is called (at most), evenly spread, the last time at the end.
        options: further arguments of `fit` (run_dir, evaluate, ema, settings, precision, progress, ...).

    Returns:
        (method, history): the method in training mode, on `device`.

    Raises:
        ValueError: `images_seen` is less than one batch; and what `sampling.Batches` and `fit` raise.

    >>> class Guess(nn.Module):
    ...     def __init__(self, steps, n_classes):
    ...         super().__init__()
    ...         self.scores = nn.Parameter(torch.zeros(n_classes))
    ...     def optimizers(self):
    ...         return {"S": ([self.scores], torch.optim.SGD([self.scores], lr=0.1), None)}
    ...     def training_step(self, batch, step, update):
    ...         loss = nn.functional.cross_entropy(self.scores.expand(len(batch["labels"]), -1), batch["labels"])
    ...         update("S", loss)
    ...         return {"cross entropy": loss}
    >>> from reidlib.datasets.sampling import uniform_batches
    >>> people = PersonImages(torch.zeros(8, 3, 8, 4, dtype=torch.uint8), pids=[3] * 6 + [5] * 2, camids=[1] * 8)
    >>> method, history = train(Guess, people, uniform_batches(8, 4), images_seen=800, device="cpu", progress=False)
    >>> history.steps, history.images, method.scores.softmax(0)[0].item() > 0.7
    (200, 800, True)
    """
    device = pick_device(device)
    batches = Batches(images, sampler, augment=augment, device=device, seed=seed, labels=labels)
    batch_size = max(len(batches.rows(0)), 1)
    steps = images_seen // batch_size
    if steps < 1:
        raise ValueError(f"images_seen={images_seen} is less than one batch of {batch_size}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = build(steps, batches.n_classes)
    every = -(-steps // max(1, evaluations)) if options.get("evaluate") else None
    history = fit(method, batches, steps, seed=seed, device=device, evaluate_every=every, **options)
    return method, history
