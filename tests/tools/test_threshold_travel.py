"""A threshold between two made-up camera networks that differ in a known way."""

import numpy as np
import pytest
import torch
from torch import nn

from reidlib.datasets import Benchmark, PersonImages
from reidlib.evaluators import verify
from reidlib.tools.threshold_travel import COLUMNS, REMEDIES, camera_pair_distance, travel, unlabelled_middle


class Pixels(nn.Module):
    """A feature that is a picture's four quarters' means, times `scale`."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def embed(self, images):
        return images.float().unflatten(2, (2, 4)).unflatten(4, (2, 2)).mean((3, 5)).flatten(1) * self.scale


def network(seed, contrast=1.0, n_people=30, n_cameras=3, images=2):
    """A benchmark of people of colours of their own; `contrast` scales all colours, and so all distances."""
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(2 * n_people), n_cameras * images)
    camids = np.tile(np.repeat(np.arange(1, n_cameras + 1), images), 2 * n_people)
    colours = rng.normal(0, 25, (2 * n_people, 3, 2, 2))[pids] + rng.normal(0, 9, (len(pids), 3, 2, 2))
    pixels = (128 + contrast * colours).clip(0, 255).repeat(4, 2).repeat(2, 3)
    everybody = PersonImages(torch.from_numpy(pixels.astype(np.uint8)), pids, camids)
    train, test = (everybody.select(pids=range(k * n_people, (k + 1) * n_people)) for k in (0, 1))
    return Benchmark(f"contrast {contrast}", train, test, test)


def test_distances_on_the_scale_of_their_cameras():
    rng = np.random.default_rng(0)
    x, z = torch.tensor(rng.normal(size=(12, 3))), torch.tensor(rng.normal(size=(20, 3)))
    z[10:] *= 5  # the second camera's features are longer
    a, b = torch.tensor([1, 2] * 6), torch.tensor([1] * 10 + [2] * 10)
    pids = torch.zeros(12, dtype=torch.int64), torch.tensor([-1] + [1] * 19)
    found = camera_pair_distance(x, z, a, b, pids)(torch.arange(12))
    plain = torch.cdist(x, z)
    part = plain[1::2][:, 10:].flatten().numpy()
    q = np.quantile(part, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(found[1::2][:, 10:].flatten(), (part - q[1]) / (q[2] - q[0]), rtol=1e-6)
    kept = found[::2][:, 1:10]  # junk takes no part in the median
    assert kept.median() == pytest.approx(0, abs=0.1) and found[::2][:, 10:].quantile(0.5) == pytest.approx(0)


def test_unlabelled_images_are_drawn_by_the_seed():
    bench = network(0)
    whole = unlabelled_middle(Pixels(), bench.train, len(bench.train), 0)
    few = [unlabelled_middle(Pixels(), bench.train, 40, seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert few[0] == pytest.approx(whole, rel=0.25)
    expected = np.quantile(torch.pdist(Pixels().embed(bench.train.images)).detach().numpy(), [0.25, 0.5, 0.75])
    assert whole == pytest.approx((expected[1], expected[2] - expected[0]))


def test_a_threshold_does_not_travel_to_lower_contrast_unless_remedied():
    home, same, flat = network(0), network(1), network(2, contrast=0.5)
    table = travel(Pixels(), home, {"same": same, "flat": flat}, far=0.02, n_unlabelled=60)
    assert tuple(table.columns) == COLUMNS and list(table.loc["flat"].index) == list(REMEDIES)
    assert (table["FAR wanted"] == 0.02).all()
    far = table["FAR"].unstack()
    assert far.loc["same", "none"] == pytest.approx(0.02, abs=0.012)  # other people of the same kind
    assert far.loc["flat", "none"] > 0.2  # all distances are halved
    assert far.loc["flat", "XQDA"] > 0.2
    for remedy in ("camera pairs", "re-ranked", "unlabelled images"):  # none of which sees the scale
        assert 0.002 < far.loc["flat", remedy] < 0.07, remedy
    pairs = verify(
        Pixels().embed(flat.query.images).detach(), Pixels().embed(flat.gallery.images).detach(),
        query_pids=flat.query.pids, query_camids=flat.query.camids,
        gallery_pids=flat.gallery.pids, gallery_camids=flat.gallery.camids,
    )  # fmt: skip
    row = table.loc["flat", "none"]
    assert row["EER"] == pytest.approx(pairs.eer) and row["TAR at the wanted FAR"] == pytest.approx(pairs.tar_at(0.02))
    assert (row["FAR"], row["TAR"]) == pairs.at(_limit(home))


def _limit(home):
    """The threshold of FAR 0.02 at home, by `verify` alone."""
    features, test = Pixels().embed(home.query.images).detach(), home.query
    who = dict(query_pids=test.pids, query_camids=test.camids, gallery_pids=test.pids, gallery_camids=test.camids)
    return verify(features, features, **who).threshold_at(0.02)


def test_the_same_seed_gives_the_same_table():
    tables = [travel(Pixels(), network(0), {"other": network(1)}, far=0.02) for _ in range(2)]
    assert tables[0].equals(tables[1])
