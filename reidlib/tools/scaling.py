"""`reidlib scaling`: seconds and extra memory of an evaluation as the gallery grows.

Measures `evaluate_retrieval` alone and on top of `rerank`, each size in a process of its own, on random features around
one centre for each person. Writes scaling.csv and scaling.png. On two cores the default, up to 100,000 gallery images
of 512 dimensions, takes a few minutes.
"""

import argparse
import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import torch
from torch import Tensor

from reidlib.checks import check_choice, reading_inputs
from reidlib.evaluators.reranking import rerank
from reidlib.evaluators.retrieval import evaluate_retrieval
from reidlib.files import atomic_path, resolve

SIZES = (1000, 2000, 5000, 10000, 20000, 50000, 100000)
WORK = {"evaluate_retrieval": "ranking and scores", "rerank": "k-reciprocal re-ranking, then scores"}
COLOURS = {"evaluate_retrieval": "#1f5fb4", "rerank": "#d1343b"}
IMAGES_A_PERSON, CAMERAS = 20, 6


def extra_memory(function: Callable[[], object]) -> tuple[float, float]:
    """Call a function; return its seconds and the megabytes of resident memory it took beyond those held before.

    >>> seconds, megabytes = extra_memory(lambda: torch.ones(1 << 24))
    >>> seconds > 0, megabytes < 130  # 64 MB, less where the process gave memory back meanwhile
    (True, True)
    """
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    sampler = threading.Thread(target=sample)
    sampler.start()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    peak = max(peak, process.memory_info().rss)
    del result
    done.set()
    sampler.join()
    return seconds, (peak - before) / 2**20


def made_up_people(n_queries: int, n_gallery: int, dimensions: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Draw features of length 1, [Q, D] and [G, D], around one centre for each person, with pids and camids.

    >>> {name: tuple(values.shape) for name, values in made_up_people(2, 50, 8).items() if "query" in name}
    {'query_features': (2, 8), 'query_pids': (2,), 'query_camids': (2,)}
    """
    generator = torch.Generator().manual_seed(seed)
    n_people = max(2, n_gallery // IMAGES_A_PERSON)
    centres = torch.randn(n_people, dimensions, generator=generator)
    drawn = {}
    for name, n in (("query", n_queries), ("gallery", n_gallery)):
        pids = torch.randint(1, n_people + 1, (n,), generator=generator)
        features = torch.empty(n, dimensions).normal_(generator=generator).mul_(2.5)
        for part, own in zip(features.split(1024), pids.split(1024), strict=True):
            part += centres[own - 1]
            part /= part.norm(dim=1, keepdim=True)
        drawn[f"{name}_features"], drawn[f"{name}_pids"] = features, pids
        drawn[f"{name}_camids"] = torch.randint(1, CAMERAS + 1, (n,), generator=generator)
    return drawn


def measure(work: str, n_queries: int, n_gallery: int, dimensions: int) -> dict[str, float | int | str]:
    """Measure one work at one size, after a small run that loads and warms what is needed.

    Raises:
        ValueError: an unknown work.

    >>> row = measure("rerank", 10, 100, 16)
    >>> row["gallery"], 0 < row["mAP"] <= 1
    (100, True)
    """
    check_choice("work", work, WORK)

    def run(query_features: Tensor, gallery_features: Tensor, **ids: Tensor) -> float:
        if work == "evaluate_retrieval":
            return evaluate_retrieval(query_features, gallery_features, **ids).mAP
        reranked = rerank(query_features, gallery_features)
        return evaluate_retrieval(None, None, distance=reranked, **ids).mAP

    run(**made_up_people(20, 200, dimensions))
    people = made_up_people(n_queries, n_gallery, dimensions)
    scores = []
    seconds, megabytes = extra_memory(lambda: scores.append(run(**people)))
    return {
        "work": work,
        "queries": n_queries,
        "gallery": n_gallery,
        "dimensions": dimensions,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "extra_MB": megabytes,
        "features_MB": (n_queries + n_gallery) * dimensions * 4 / 2**20,
        "one_full_matrix_MB": (n_queries + n_gallery) ** 2 * 4 / 2**20,
        "mAP": scores[0],
    }


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw seconds and extra memory over the gallery's size, beside one full matrix of the classic re-ranking."""
    from reidlib.course.figures import plt, style  # the measuring processes do without

    with plt.rc_context():
        style()
        figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
        for work, rows in table.groupby("work", sort=False):
            look = dict(marker="o", markersize=4, color=COLOURS[work], label=WORK[work])
            left.plot(rows["gallery"], rows["seconds"], **look)
            right.plot(rows["gallery"], rows["extra_MB"], **look)
        sizes = table.drop_duplicates("gallery")
        right.plot(sizes["gallery"], sizes["features_MB"], color="#9a9a9a", label="the features themselves")
        matrix = dict(color="#555555", linestyle="--", label="one full (Q + G)² matrix (computed)")
        right.plot(sizes["gallery"], sizes["one_full_matrix_MB"], **matrix)
        first = table.iloc[0]
        left.set(title="Time", ylabel="seconds")
        right.set(title="Memory beyond the features", ylabel="MB")
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel="gallery images")
            axes.set_xticks(sizes["gallery"], [f"{n / 1000:g}k" for n in sizes["gallery"]])
            axes.minorticks_off()
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            axes.legend(loc="upper left", fontsize=8.5)
        title = f"{first['queries']:,} queries, {first['dimensions']} dimensions, CPU threads: {first['threads']}"
        figure.suptitle(title, fontsize=11)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
        plt.close(figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib scaling`."""
    parser.add_argument("--out", default="runs/scaling", help="folder for scaling.csv and scaling.png (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="gallery images")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--dimensions", type=int, default=512)


def run(options: argparse.Namespace) -> int:
    """Measure, print a line for each size, write the table and the picture."""
    with reading_inputs():
        if min(*options.sizes, options.queries, options.dimensions) < 1:
            raise ValueError("sizes, queries and dimensions must be at least 1")
    folder = resolve(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    context = multiprocessing.get_context("spawn")  # a fresh process: no memory left over from the size before
    for size in sorted(set(options.sizes)):
        for work in WORK:
            with context.Pool(1) as pool:
                rows.append(pool.apply(measure, (work, options.queries, size, options.dimensions)))
            row = rows[-1]
            print(f"{work:>18} {size:>7,} images: {row['seconds']:8.2f} s {row['extra_MB']:8.0f} MB", flush=True)
    table = pd.DataFrame(rows).sort_values(["work", "gallery"], kind="stable")
    with atomic_path(folder / "scaling.csv") as temporary:
        table.round(4).to_csv(temporary, index=False)
    plot(table, folder / "scaling.png")
    print(json.dumps({"table": str(folder / "scaling.csv"), "picture": str(folder / "scaling.png")}))
    return 0
