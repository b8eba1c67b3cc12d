"""`reidlib recipe`: how the course's recipe was chosen, on people of seed 2 who are in no table.

Each variant changes one thing of the recipe "course". It trains in every camera (12,000 images, as notebook 02) and in
camera 5 alone (5,000, as notebook 03) on the training people of seed 2, and is scored on the test people of seed 2. A
row that the file has is not run again, unless the recipe has changed since (the column "recipe" tells).

`reidlib recipe --task LSRO` compares shares and weights of unlabelled images for notebook 04 in the same way: its
network A with DCGAN images added, at as many photographs seen (12,000). `reidlib recipe --task Siamese` asks whether
notebook 06 trains its Siamese network for long enough.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from reidlib.checks import check_choice, reading_inputs
from reidlib.datasets import Benchmark, PersonImages, extend, load
from reidlib.embedders.recipes import RECIPES, Recipe
from reidlib.embedders.siamese import SIAMESE_RECIPES, train_siamese
from reidlib.evaluators import RetrievalScores
from reidlib.experiments import score_benchmark, train_baseline
from reidlib.files import resolve
from reidlib.generators.dcgan import DCGAN
from reidlib.tools.choices import keep, read, rows_of, short_name
from reidlib.tools.rivals import train_dcgan

FILE = "notebooks/recorded/choices/recipe.csv"
KEY = ["variant", "task", "loss", "seed", "size", "recipe"]
VARIANTS: dict[str, dict[str, Any]] = {
    "batch 32": dict(batch=32),
    "batch 8": dict(batch=8),
    "batch 16": dict(batch=16),
    "batch 64": dict(batch=64),
    "last stride 1": dict(last_stride=1),
    **{f"augmentation {name}": dict(augmentation=name) for name in ("none", "flip_crop", "softmax", "bag_of_tricks")},
}
TASKS = {"every camera": (None, 12_000), "camera 5": ([5], 5_000)}
LENGTHS = {f"{seen:,} images": seen for seen in (8_000, 16_000)}  # the first is notebook 06's
DCGAN_IMAGES = 48_000
LSRO: dict[str, tuple[float, float]] = {  # unlabelled images for each photograph, weight of their loss
    "photographs alone": (0.0, 1.0),
    **{f"{share:g} of weight {weight:g}": (share, weight) for share in (0.25, 0.5, 1, 2) for weight in (1.0, 0.3, 0.1)},
}

OTHER_TASKS: dict[str, dict[str, Any]] = {"LSRO": LSRO, "Siamese": LENGTHS}  # with variants of their own


def recipe_of(task: str, variant: str) -> Recipe:
    """Return the recipe that a variant is trained by."""
    others = {"LSRO": RECIPES["two_step_course"], "Siamese": SIAMESE_RECIPES["course"]}
    return others[task] if task in others else replace(RECIPES["course"], **VARIANTS[variant])


def _score(bench: Benchmark, task: str, variant: str, loss: str, seed: int) -> RetrievalScores:
    """Train what a row is about and score it."""
    options = dict(seed=seed, progress=False)
    if task == "Siamese":
        method, _ = train_siamese(bench.train, images_seen=LENGTHS[variant], **options)
    elif task == "LSRO":
        share, weight = LSRO[variant]
        images = extend(bench.train, unlabelled(bench.train, share, seed)) if share else bench.train
        network = dict(form="pn_gan", loss=loss, normalise=False, unlabelled_weight=weight)
        method, _ = train_baseline(images, images_seen=round((1 + share) * 12_000), **network, **options)
    else:
        cameras, seen = TASKS[task]
        recipe = recipe_of(task, variant)
        images = bench.train.select(camids=cameras)
        method, _ = train_baseline(images, images_seen=seen, recipe=recipe, loss=loss, **options)
    return score_benchmark(method, bench)


@cache
def unlabelled(train: PersonImages, share: float, seed: int) -> PersonImages:
    """Return so many images of a DCGAN for each of these photographs."""
    return _dcgan(train, seed).unlabelled(round(share * len(train)), seed)


@cache
def _dcgan(train: PersonImages, seed: int) -> DCGAN:
    return train_dcgan(train, images_seen=DCGAN_IMAGES, seed=seed)[0]


def variants_of(task: str) -> dict[str, Any]:
    """Return what can be compared in a task, the present choice first.

    Raises:
        ValueError: another task.
    """
    check_choice("task", task, (*TASKS, *OTHER_TASKS))
    return OTHER_TASKS.get(task, VARIANTS)


def _check(tasks: Sequence[str], loss: str | None) -> None:
    if len(tasks) > 1 and (alone := [task for task in tasks if task in OTHER_TASKS]):
        raise ValueError(f"the task {alone[0]} is compared alone, got {', '.join(tasks)}")
    if "Siamese" in tasks:
        check_choice("loss of a Siamese network", loss or "softmax", ("softmax",))


def compare(
    variants: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = range(6),
    loss: str | None = None,
    tasks: Sequence[str] = tuple(TASKS),
    size: str = "course",
    root: str | Path = "data",
    file: str | Path = FILE,
) -> pd.DataFrame:
    """Train and score what the file has not got, a row at a time, and return its mean differences to the first variant.

    Args:
        variants: of `variants_of` the tasks; default all. The first is what the others are compared with.
        seeds: of the trainings.
        loss: see `Baseline`; default lsr, for the other tasks softmax, as the notebooks.
        tasks: of `TASKS`, or one of `OTHER_TASKS` alone.
        size, root: of the rendered people.
        file: CSV with rank-1 and mAP in percent, a row a training.

    Returns:
        A row a variant and task: mean, "difference" and its standard deviation over seeds, of mAP, and seeds that won.

    Raises:
        ValueError: an unknown variant or task, one of `OTHER_TASKS` beside others, another loss for a Siamese network.
    """
    variants = list(variants_of(tasks[0])) if variants is None else variants
    for task in tasks:
        for name in variants:
            check_choice("variant", name, variants_of(task))
    _check(tasks, loss)
    loss = loss or ("softmax" if tasks[0] in OTHER_TASKS else "lsr")
    scene = "generation" if tasks[0] in OTHER_TASKS else "retrieval"
    file, bench = resolve(file), load("procedural", root, (64, 32), size=size, seed=2, scene=scene)
    rows = []
    for seed, variant, task in ((s, v, t) for s in seeds for v in variants for t in tasks):

        def measure(of: tuple = (task, variant, loss, seed)) -> dict[str, float]:
            scores = _score(bench, *of)
            return {"rank-1": 100 * scores.rank(1), "mAP": 100 * scores.mAP}

        names = variant, task, loss, seed, size, short_name(recipe_of(task, variant))
        rows.append(dict(zip(KEY, names, strict=True)))
        keep(file, rows[-1], measure, digits=2)
    return summary(rows_of(read(file, KEY), rows), variants[0])


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
    parser.add_argument(
        "variant", nargs="*", help=f"which; default all of the task's: {', '.join([*VARIANTS, *LSRO, *LENGTHS])}"
    )
    parser.add_argument("--seeds", type=int, default=6, help="so many seeds, from 0 (default: 6)")
    parser.add_argument("--loss", help="of the trainings (default: lsr; softmax for LSRO and Siamese)")
    known = [*TASKS, *OTHER_TASKS]
    parser.add_argument("--task", action="append", choices=known, help=f"which; default: {', '.join(TASKS)}")
    parser.add_argument("--size", default="course", help="how many people: course (default) or smoke")
    parser.add_argument("--root", default="data", help="where the people are rendered to (default: data)")
    parser.add_argument("--file", default=FILE, help=f"rows go here, and are read from here (default: {FILE})")


def run(given: argparse.Namespace) -> int:
    """Compare variants and print what each gains."""
    tasks = tuple(given.task or TASKS)
    with reading_inputs():
        known = list(variants_of(tasks[0]))
        for name in given.variant:
            check_choice("variant", name, known)
        _check(tasks, given.loss)
    variants = [known[0], *(name for name in given.variant or known if name != known[0])]
    options = dict(loss=given.loss, tasks=tasks, size=given.size, root=given.root, file=given.file)
    print(compare(variants, seeds=range(given.seeds), **options).to_string())
    return 0
