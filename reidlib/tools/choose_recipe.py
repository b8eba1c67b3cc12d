"""`reidlib recipe`: how the course's recipe was chosen, on people of seed 2 who are in no table.

Each variant changes one thing of the recipe "course". It trains in every camera (12,000 images, as notebook 02) and in
camera 5 alone (5,000, as notebook 03) on the training people of seed 2, and is scored on the test people of seed 2. A
row that the file has is not run again.
"""

import argparse
import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from reidlib.checks import check_choice, reading_inputs
from reidlib.datasets import load
from reidlib.embedders.recipes import RECIPES
from reidlib.experiments import score_benchmark, train_baseline
from reidlib.files import atomic_path, resolve
from reidlib.machine import commit, device_name, pick_device

FILE = "notebooks/recorded/choices/recipe.csv"
KEY = ["variant", "task", "loss", "seed", "size"]
VARIANTS: dict[str, dict[str, Any]] = {
    "batch 32": dict(batch=32),
    "batch 8": dict(batch=8),
    "batch 16": dict(batch=16),
    "batch 64": dict(batch=64),
    "last stride 1": dict(last_stride=1),
    **{f"augmentation {name}": dict(augmentation=name) for name in ("none", "flip_crop", "softmax", "bag_of_tricks")},
}
TASKS = {"every camera": (None, 12_000), "camera 5": ([5], 5_000)}


def compare(
    variants: Sequence[str] = tuple(VARIANTS),
    *,
    seeds: Sequence[int] = range(6),
    loss: str = "lsr",
    tasks: Sequence[str] = tuple(TASKS),
    size: str = "course",
    root: str | Path = "data",
    file: str | Path = FILE,
) -> pd.DataFrame:
    """Train and score what the file has not got, a row at a time, and return its mean differences to the first variant.

    Args:
        variants, tasks: of `VARIANTS` and `TASKS`; the first variant is what the others are compared with.
        seeds: of the trainings.
        loss: see `Baseline`.
        size, root: of the rendered people.
        file: CSV with rank-1 and mAP in percent, a row a training.

    Returns:
        A row a variant and task: mean, "difference" and its standard deviation over seeds, of mAP, and seeds that won.

    Raises:
        ValueError: an unknown variant or task.
    """
    for name in variants:
        check_choice("variant", name, VARIANTS)
    for name in tasks:
        check_choice("task", name, TASKS)
    file, bench = resolve(file), load("procedural", root, (64, 32), size=size, seed=2)
    table = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=KEY)
    for seed, variant, task in ((s, v, t) for s in seeds for v in variants for t in tasks):
        row = dict(zip(KEY, (variant, task, loss, seed, size), strict=True))
        if (table[KEY] == pd.Series(row)).all(axis=1).any():
            continue
        cameras, seen = TASKS[task]
        recipe = replace(RECIPES["course"], **VARIANTS[variant])
        options = dict(images_seen=seen, recipe=recipe, loss=loss, seed=seed, progress=False)
        method, _ = train_baseline(bench.train.select(camids=cameras), **options)
        scores = score_benchmark(method, bench)
        row |= {"rank-1": 100 * scores.rank(1), "mAP": 100 * scores.mAP}
        row |= dict(date=datetime.date.today().isoformat(), threads=torch.get_num_threads())
        row |= dict(device=device_name(pick_device()), commit=commit())
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            table.round(2).to_csv(temporary, index=False)
    return summary(table[table["size"] == size], variants[0])


def summary(table: pd.DataFrame, base: str) -> pd.DataFrame:
    """Return what each variant gains over `base` in mAP: mean, mean difference, its deviation, and seeds that won.

    >>> rows = [(v, "t", "lsr", s, x) for v, s, x in (("a", 0, 50.0), ("b", 0, 52.0), ("a", 1, 51.0), ("b", 1, 50.0))]
    >>> table = pd.DataFrame(rows, columns=[*KEY[:4], "mAP"])
    >>> summary(table, "a").loc[("t", "lsr", "b"), ["difference", "won"]].to_dict()
    {'difference': 0.5, 'won': '1 of 2'}
    """
    scores = table.pivot_table(index=["task", "loss", "seed"], columns="variant", values="mAP")
    lines = []
    for (task, loss), of in scores.groupby(level=["task", "loss"]):
        for variant in of.dropna(axis=1, how="all"):
            gain = (of[variant] - of[base]).dropna()
            won = f"{(gain > 0).sum()} of {len(gain)}"
            lines.append([task, loss, variant, of[variant].mean(), gain.mean(), gain.std(), won])
    columns = ["task", "loss", "variant", "mAP", "difference", "deviation", "won"]
    return pd.DataFrame(lines, columns=columns).set_index(columns[:3]).round(1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib recipe`."""
    parser.add_argument("variant", nargs="*", help=f"which; default all: {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", type=int, default=6, help="so many seeds, from 0 (default: 6)")
    parser.add_argument("--loss", default="lsr", help="of the trainings (default: lsr)")
    parser.add_argument("--task", action="append", choices=TASKS, help="which; default both")
    parser.add_argument("--size", default="course", help="how many people: course (default) or smoke")
    parser.add_argument("--root", default="data", help="where the people are rendered to (default: data)")
    parser.add_argument("--file", default=FILE, help=f"rows go here, and are read from here (default: {FILE})")


def run(given: argparse.Namespace) -> int:
    """Compare variants and print what each gains."""
    variants = [next(iter(VARIANTS)), *(name for name in given.variant or VARIANTS if name != next(iter(VARIANTS)))]
    with reading_inputs():
        for name in variants:
            check_choice("variant", name, VARIANTS)
    options = dict(loss=given.loss, tasks=given.task or tuple(TASKS), size=given.size, root=given.root, file=given.file)
    print(compare(variants, seeds=range(given.seeds), **options).to_string())
    return 0
