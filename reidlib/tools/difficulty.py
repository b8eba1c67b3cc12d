"""How hard a rendered set is: features that nobody trains, and, on request, a small network trained for a while."""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from reidlib.datasets import Benchmark, PersonImages
from reidlib.embedders.features import colour_histogram, pixel_features
from reidlib.experiments import score_benchmark, score_features, train_baseline


def _features(part: PersonImages) -> dict[str, Tensor]:
    """Untrained features of a set by name."""
    batch = part.batch(range(len(part)))
    images = batch["images"]
    features = {
        "pixels": pixel_features(images),
        "histogram": colour_histogram(images),
        "striped histogram, centre, grey world": colour_histogram(images, stripes=6, centre=True, grey_world=True),
    }
    if "masks" in batch:
        features["striped histogram, exact mask"] = colour_histogram(images, stripes=6, masks=batch["masks"])
    return features


def baselines(bench: Benchmark, *, images_seen: Sequence[int] = (), seed: int = 0) -> pd.DataFrame:
    """Return rank-1 and mAP (plain AP, in percent) of untrained features and of a small net after so many images.

    `images_seen` holds lengths of separate trainings (each with its own learning-rate schedule); none by default.
    """
    query, gallery = _features(bench.query), _features(bench.gallery)
    scored = {name: (score_features(bench, query[name], gallery[name]), {}) for name in query}
    for count in images_seen:
        method, history = train_baseline(bench.train, images_seen=count, seed=seed, start="none", progress=False)
        scored[f"small net, {count} images seen"] = score_benchmark(method, bench), {"seconds": history.seconds}
    rows = [
        {"feature": name, "rank-1": 100 * scores.rank(1), "mAP": 100 * scores.mAP} | more
        for name, (scores, more) in scored.items()
    ]
    return pd.DataFrame(rows).round(1)
