"""How hard a rendered set is: features that nobody trains, a small network, and what a turn of the body costs."""

from collections.abc import Sequence

import pandas as pd
import torch
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


def pose_separation(features: Tensor, images: PersonImages) -> tuple[pd.DataFrame, float, float]:
    """Compare distances of one person's images, by the turn between them, with those of different people in one pose.

    Only pairs of images from two cameras count. In one pose are two images whose `yaw` (the way the person faces, in
    degrees) differs by less than 22.5.

    Args:
        features: [N, D], compared by Euclidean distance.
        images: N of them, with `info["yaw"]`; junk and distractors (pid below 0) are left out.

    Returns:
        A row for each 30 degrees of turn: "pairs", their mean "distance", and the share "confused" of those farther
        apart than the nearest 1 % of different people in one pose. Then the mean distance of these, and that of the
        nearest 1 %.
    """
    known = (images.pids >= 0).nonzero()[:, 0]
    features, pids, camids = features[known], images.pids[known], images.camids[known]
    yaw = torch.tensor(images.info["yaw"].to_numpy(dtype=float))[known]
    turn = ((yaw[:, None] - yaw + 180) % 360 - 180).abs()
    apart = torch.cdist(features, features)
    cross_camera = (camids[:, None] != camids).triu()
    same = cross_camera & (pids[:, None] == pids)
    others = apart[cross_camera & (pids[:, None] != pids) & (turn < 22.5)]
    near = others.sort().values[len(others) // 100]
    lines = {}
    for low in range(0, 180, 30):
        own = apart[same & (turn >= low) & (turn <= low + 30)]
        rate = (own > near).float().mean().item()
        lines[f"{low}-{low + 30}"] = {"pairs": len(own), "distance": own.mean().item(), "confused": rate}
    return pd.DataFrame(lines).T, others.mean().item(), near.item()
