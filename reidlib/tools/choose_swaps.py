"""`reidlib swaps`: what makes clothes swap in DG-Net at the course's size, on people of seed 2 who are in no table.

Each variant changes one thing of notebook 07's training (1,600 rows of four images; the teacher and the photographs
that E_a learns from as there). It trains on the training people of seed 2 and draws 256 swaps of the test people of
seed 2, which are judged as in the notebook. A row that the file has is not run again, unless the preset has changed
since (the column "recipe" tells). Two processes may share the work.
"""

import argparse
import copy
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from reidlib.checks import check_choice, reading_inputs
from reidlib.datasets import PersonImages, extend, load
from reidlib.datasets.augment import compose, erase, flip, pad_crop
from reidlib.datasets.backgrounds import background_augmentation
from reidlib.datasets.sampling import seeded, target_pairs
from reidlib.embedders import Baseline
from reidlib.evaluators.judges import load_judges
from reidlib.experiments import train_baseline
from reidlib.files import resolve
from reidlib.generators.dg_net import PRESETS, train_dg_net
from reidlib.tools.choices import FACTS, keep, read, rows_of, short_name
from reidlib.tools.swaps import judge_swaps

FILE = "notebooks/recorded/choices/swaps.csv"
KEY = ["variant", "seed", "size", "recipe"]
VARIANTS: dict[str, dict[str, Any]] = {  # switches of DGNet; ahead, rows, people: factors; scenes: replaced at random
    "as in the course": {},
    "street drawn": dict(background="drawn"),
    "street drawn, replaced at random": dict(background="drawn", scenes=True),
    "raw codes": dict(code_scale="raw"),
    "E_a not trained first": dict(ahead=0),
    "warm-up of 10 %": dict(warm_up=0.1),
    "warm-up of 60 %": dict(warm_up=0.6),
    "half the people": dict(people=0.5),
    "twice the rows": dict(rows=2),
    "L_id^c with weight 2": dict(lambda_id=2.0),
}
ROWS = {"course": 1600, "smoke": 16}
SWAPS = 256
COURSE = dict(background="kept", code_scale="standardised")


def recipe_of(variant: str) -> dict[str, Any]:
    """Return what a variant's training is made of: the course's preset with its switches, its length and its swaps."""
    return PRESETS["course"] | COURSE | VARIANTS[variant] | {"rows seen": ROWS["course"], "swaps": SWAPS}


@cache
def _re_id(form: str, size: str, root: str, share: float, seen: int, seed: int) -> Baseline:
    """Train a teacher, or E_a before DG-Net begins."""
    if not seen:
        torch.manual_seed(seed)
        return Baseline(len(_people(size, root, share)[0].pids.unique()), form=form)
    return train_baseline(_people(size, root, share)[0], images_seen=seen, form=form, seed=seed, progress=False)[0]


@cache
def _people(size: str, root: str, share: float = 1.0) -> tuple[PersonImages, PersonImages]:
    """Return this share of the training people of seed 2, and the test people."""
    bench = load("procedural", root, (64, 32), size=size, seed=2, scene="generation", progress=False)
    test, pids = extend(bench.query, bench.gallery), bench.train.pids.unique()
    return bench.train.select(pids=pids[: round(share * len(pids))].tolist()), test.select(indices=test.pids >= 0)


def _swapped(variant: str, seed: int, size: str, root: str) -> pd.Series:
    """Train what a row is about, and judge its swaps."""
    switches = COURSE | VARIANTS[variant]
    share, rows = switches.pop("people", 1.0), round(ROWS[size] * switches.pop("rows", 1))
    ahead = round(4 * ROWS[size] * switches.pop("ahead", 1))
    train, test = _people(size, root, share)
    steps = (flip, partial(pad_crop, edge=True), partial(erase, keep_clean=True))
    if switches.pop("scenes", False):
        steps = (background_augmentation("random", train), *steps)
    teacher = _re_id("dg_net_teacher", size, root, share, 8 * ROWS[size], seed)
    encoder = copy.deepcopy(_re_id("dg_net", size, root, share, ahead, seed))
    switches |= dict(augment=compose(*steps, joint=False), seed=seed, images_seen=rows, progress=False)
    method, _ = train_dg_net(train, encoder.embedder, teacher.embedder, train.pids, **switches)
    every = torch.arange(len(test))
    pairs = target_pairs(every, every, seeded(0, 8))
    pairs = pairs[test.pids[pairs[:, 0]] != test.pids[pairs[:, 1]]]
    pairs = pairs[torch.randperm(len(pairs), generator=seeded(0, 9))[:SWAPS]]
    return judge_swaps({"DG-Net": method}, test, pairs, judges=load_judges(), precision="auto").loc["DG-Net"]


def compare(
    variants: Sequence[str] = tuple(VARIANTS),
    *,
    seeds: Sequence[int] = (0, 1),
    size: str = "course",
    root: str = "data",
    file: str | Path = FILE,
) -> pd.DataFrame:
    """Train and judge what the file has not got, a row at a time; return each variant's means over its seeds.

    Args:
        variants: of `VARIANTS`.
        seeds: of the trainings.
        size: "course" or "smoke", of the rendered people.
        root: where they lie.
        file: CSV with the columns of `judge_swaps`, a row a training.

    Raises:
        ValueError: an unknown variant or size.
    """
    check_choice("size", size, ROWS)
    for name in variants:
        check_choice("variant", name, VARIANTS)
    file = resolve(file)
    rows = []
    for seed, variant in ((s, v) for s in seeds for v in variants):
        rows.append(dict(zip(KEY, (variant, seed, size, short_name(recipe_of(variant))), strict=True)))
        keep(file, rows[-1], partial(_swapped, variant, seed, size, root))
    table = rows_of(read(file, KEY), rows)
    numbers = [name for name in table if name not in (*KEY, *FACTS)]
    means = table.groupby("variant")[numbers].mean().reindex([v for v in variants if v in set(table.variant)])
    return means.assign(seeds=table.variant.value_counts()).round(3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib swaps`."""
    parser.add_argument("variant", nargs="*", help=f"which; default all: {', '.join(VARIANTS)}".replace("%", "%%"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the trainings (default: 0 1)")
    parser.add_argument("--size", default="course", choices=list(ROWS), help="how many people, how long a training")
    parser.add_argument("--root", default="data", help="where the people are rendered to (default: data)")
    parser.add_argument("--file", default=FILE, help=f"rows go here, and are read from here (default: {FILE})")


def run(given: argparse.Namespace) -> int:
    """Compare variants and print their means."""
    with reading_inputs():
        for name in given.variant:
            check_choice("variant", name, VARIANTS)
    names = given.variant or list(VARIANTS)
    print(compare(names, seeds=given.seeds, size=given.size, root=given.root, file=given.file).to_string())
    return 0
