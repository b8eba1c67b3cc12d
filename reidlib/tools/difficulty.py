"""How hard a rendered set is: features that nobody trains, and, on request, a small network trained for a while."""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from reidlib.datasets import Benchmark
from reidlib.embedders.features import colour_histogram, pixel_features
from reidlib.evaluators import evaluate_retrieval
from reidlib.experiments import score_benchmark, train_baseline


def _features(bench: Benchmark) -> dict[str, list[Tensor]]:
    """Untrained features of queries and gallery by name."""
    named: dict[str, list[Tensor]] = {}
    for part in (bench.query, bench.gallery):
        batch = part.batch(range(len(part)))
        images, masks = batch["images"], batch.get("masks")
        rows = {
            "pixels": pixel_features(images),
            "histogram": colour_histogram(images),
            "striped histogram, centre, grey world": colour_histogram(images, stripes=6, centre=True, grey_world=True),
        }
        if masks is not None:
            rows["striped histogram, exact mask"] = colour_histogram(images, stripes=6, masks=masks)
        for name, values in rows.items():
            named.setdefault(name, []).append(values)
    return named


def baselines(bench: Benchmark, *, images_seen: Sequence[int] = (), seed: int = 0) -> pd.DataFrame:
    """Return rank-1 and mAP (plain AP, in percent) of untrained features and of a small net after so many images.

    `images_seen` holds lengths of separate trainings (each with its own learning-rate schedule); none by default.
    """
    who = {
        "query_pids": bench.query.pids,
        "query_camids": bench.query.camids,
        "gallery_pids": bench.gallery.pids,
        "gallery_camids": bench.gallery.camids,
    } | bench.protocol.arguments()
    rows = []
    for name, (query, gallery) in _features(bench).items():
        scores = evaluate_retrieval(query, gallery, **who)
        rows.append({"feature": name, "rank-1": 100 * scores.rank(1), "mAP": 100 * scores.mAP})
    for count in images_seen:
        method, history = train_baseline(bench.train, images_seen=count, seed=seed, progress=False)
        scores = score_benchmark(method, bench)
        rows.append(
            {
                "feature": f"small net, {count} images seen",
                "rank-1": 100 * scores.rank(1),
                "mAP": 100 * scores.mAP,
                "seconds": history.seconds,
            }
        )
    return pd.DataFrame(rows).round(1)
