"""One embedder against several benchmarks and protocols: transfer, multi-query, splits."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reidlib.datasets import Benchmark, PersonImages, Protocol, load_splits
from reidlib.evaluators import score_splits
from reidlib.experiments import score_benchmark, train_baseline


class MeanColour(nn.Module):
    """The mean colour of an image as its feature."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def embed(self, images):
        return images.float().mean((2, 3))


def people(colours, pids, camids):
    images = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 8, 4).contiguous()
    return PersonImages(images, pids, camids)


def bench(name="toy", multi_query=None, protocol=None):
    """The query alone is nearer to person 2; the mean of its drawn boxes is nearer to person 1."""
    query = people([[130, 0, 0]], [1], [1])
    gallery = people([[100, 0, 0], [150, 0, 0]], [1, 2], [2, 2])
    return Benchmark(name, gallery, query, gallery, multi_query, protocol or Protocol())


def test_multi_query_pools_the_drawn_boxes():
    boxes = people([[130, 0, 0], [110, 0, 0], [90, 0, 40], [150, 0, 0]], [1, 1, 1, 2], [1, 1, 1, 1])
    assert score_benchmark(MeanColour(), bench()).rank(1) == 0
    by_mean = score_benchmark(MeanColour(), bench(multi_query=boxes), multi_query="mean")
    assert by_mean.n_queries == 2 and by_mean.rank(1) == 1
    # the largest value of each channel is (130, 0, 40) for person 1: nearer to person 2
    assert score_benchmark(MeanColour(), bench(multi_query=boxes), multi_query="max").rank(1) == 0.5
    with pytest.raises(ValueError, match=r"toy has no hand-drawn boxes \(gt_bbox\)"):
        score_benchmark(MeanColour(), bench(), multi_query="mean")
    with pytest.raises(ValueError, match="mode="):
        score_benchmark(MeanColour(), bench(multi_query=boxes), multi_query="median")


def test_multi_query_of_the_queries_alone_is_single_query():
    """Acceptance check 6: the pooled feature of one image is that image's; mean and max agree."""
    plain = bench(multi_query=bench().query)
    single = score_benchmark(MeanColour(), plain)
    for mode in ("mean", "max"):
        pooled = score_benchmark(MeanColour(), plain, multi_query=mode)
        assert torch.equal(pooled.average_precisions, single.average_precisions)
        assert torch.equal(pooled.first_hits, single.first_hits)


def test_the_benchmarks_own_protocol_is_followed():
    views = score_benchmark(
        MeanColour(), bench(protocol=Protocol(camera_rule="separate_views", gallery_shots=1, repeats=3))
    )
    assert views.first_hits.shape == (1, 3) and views.camera_rule == "separate_views"
    assert score_benchmark(MeanColour(), bench(), ap="trapezoid").ap == "trapezoid"


def test_splits_go_through_as_they_are():
    out = score_splits([bench("a"), bench("b")], score_benchmark, train=lambda _: MeanColour())
    assert len(out.table) == 2 and out.mean["rank-1"] == 0 and out.std["rank-1"] == 0


@pytest.mark.filterwarnings("ignore:.*differs from the released CUHK01")
def test_from_files_over_splits_to_a_mean(tmp_path):
    """Reader, cache, training and protocol: one split of a little CUHK01 both ways, trained once."""
    rng = np.random.default_rng(0)
    (tmp_path / "CUHK01" / "campus").mkdir(parents=True)
    for pid in range(1, 9):
        for image in range(1, 5):
            pixels = rng.integers(0, 255, (16, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "CUHK01" / "campus" / f"{pid:04d}{image:03d}.png")
    trained = []

    def train(bench):
        trained.append(bench)
        return train_baseline(bench.train, images_seen=16, preset="smoke", device="cpu", progress=False)[0]

    benches = load_splits("cuhk01", tmp_path / "CUHK01", (64, 32), split=3, cache=tmp_path / "cache", progress=False)
    out = score_splits(benches, partial(score_benchmark, device="cpu"), train)
    assert len(out.table) == 2 and len(trained) == 1 and 0 <= out.mean["rank-1"] <= 1


def test_training_leaves_the_callers_random_state_alone():
    images = PersonImages(torch.randint(0, 255, (16, 3, 64, 32), dtype=torch.uint8), [1, 2] * 8, [1] * 16)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_baseline(images, images_seen=32, preset="smoke", device="cpu", progress=False)
    assert torch.equal(torch.rand(3), expected)
