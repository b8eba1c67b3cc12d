"""Nine features into one: by hand, invariances, and a benchmark scored by every mode from one pass."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets import Benchmark, PersonImages, Protocol, extend
from reidlib.embedders import Baseline, embed_all
from reidlib.evaluators import evaluate_retrieval
from reidlib.experiments import (
    MODES,
    PNGANSystem,
    PoseFeatures,
    embed_benchmark,
    fuse,
    fused_features,
    score_benchmark,
    score_fused,
    score_fused_splits,
)
from reidlib.generators.pn_gan import PNGAN
from reidlib.generators.synthesis import synthesise


class MeanColour(nn.Module):
    """The mean colour of an image, scaled to length 1, as its feature; counts the images that it saw."""

    def __init__(self, channels=(0, 1, 2)):
        super().__init__()
        self.channels, self.largest = list(channels), 0

    def embed(self, images):
        assert images.dtype == torch.uint8
        self.largest = max(self.largest, len(images))
        return F.normalize(images.float().mean((2, 3))[:, self.channels], dim=1)


class Tint(nn.Module):
    """The 'pose' is a colour, that of the target image, mixed half and half with the source."""

    def condition(self, targets, sources=None):
        return targets["images"].float() / 127.5 - 1

    def generate(self, images, condition):
        return (images + condition) / 2


def people(colours, pids, camids):
    images = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 8, 4).contiguous()
    return PersonImages(images, pids, camids)


def poses():
    return people([[0, 0, 0], [255, 255, 255], [0, 255, 0]], [-1] * 3, [-1] * 3)


def bench(multi_query=None, protocol=None, name="toy"):
    query = people([[200, 40, 0], [30, 180, 20]], [1, 2], [1, 1])
    gallery = people([[190, 60, 0], [60, 190, 10], [60, 60, 200], [120, 120, 20]], [1, 2, 3, 2], [2, 2, 2, 2])
    return Benchmark(name, gallery, query, gallery, multi_query, protocol or Protocol())


def system(net_a=None):
    return PNGANSystem(net_a or MeanColour(), MeanColour((2, 0, 1)), Tint(), poses())


def test_fusion_by_hand():
    a = torch.tensor([[3.0, 4.0]])
    b = torch.tensor([[[0.0, 2.0], [-5.0, 0.0]]])
    for mode, want, raw in (
        ("max", [0.6, 1.0], [3.0, 4.0]),
        ("mean", [-0.4 / 3, 0.6], [-2 / 3, 2.0]),
        ("concat", [0.6, 0.8, 0.0, 1.0, -1.0, 0.0], [3.0, 4.0, 0.0, 2.0, -5.0, 0.0]),
        ("a", [0.6, 0.8], [3.0, 4.0]),
        ("b", [0.0, 1.0], [0.0, 2.0]),
    ):
        torch.testing.assert_close(fuse(a, b, mode), torch.tensor([want]))
        torch.testing.assert_close(fuse(a, b, mode, normalise=False), torch.tensor([raw]))
    assert a.tolist() == [[3.0, 4.0]] and b[0, 0, 1] == 2  # the caller's stay


def test_fusion_does_not_ask_for_an_order():
    """Acceptance check 10."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 16, generator=generator), torch.randn(5, 8, 16, generator=generator)
    unit = F.normalize(a, dim=1)
    torch.testing.assert_close(fuse(a, a[:, None].expand(-1, 8, -1)), unit)  # the maximum of nine equal vectors
    order = torch.randperm(8, generator=generator)
    assert not torch.equal(order, torch.arange(8))
    for mode in ("max", "b"):
        assert torch.equal(fuse(a, b[:, order], mode), fuse(a, b, mode))
        assert torch.equal(fuse(a, torch.cat([b, b[:, 3:4]], 1), mode), fuse(a, b, mode))  # a copy adds nothing
    assert torch.equal(fuse(a, torch.cat([b, a[:, None]], 1)), fuse(a, b))
    torch.testing.assert_close(fuse(a, b[:, order], "mean"), fuse(a, b, "mean"))
    assert not torch.allclose(fuse(a, b[:, order], "concat"), fuse(a, b, "concat"))


def test_features_are_those_of_a_stored_synthetic_set():
    images, (net_a, net_b, generator, targets) = bench().gallery, (whole := system())
    a, b = fused_features(images, whole, batch_size=5)
    assert net_b.largest == 5  # never the whole set
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    stored = synthesise(generator, images, pairs, targets=targets)
    assert torch.equal(b.reshape(12, 3), embed_all(net_b, stored))
    assert torch.equal(a, embed_all(net_a, images))
    assert torch.equal(b, fused_features(images, whole)[1])
    tinted = (images.images[2].float() + targets.images[1].float()) / 2  # image 2 in pose 1
    want = F.normalize(tinted.mean((1, 2))[[2, 0, 1]], dim=0)
    torch.testing.assert_close(b[2, 1], want, atol=0.01, rtol=0)


def test_a_alone_is_as_evaluated_by_itself():
    """Acceptance check 11: identical images are at distance 0; "a" alone is A's own evaluation."""
    features = embed_benchmark(bench(), system())
    twice = people([[7, 80, 30], [7, 80, 30]], [1, 1], [1, 2])
    a, b = fused_features(twice, system())
    for mode in MODES:
        fused = fuse(a, b, mode)
        assert torch.equal(fused[0], fused[1]), mode
    own = score_benchmark(MeanColour(), bench())
    alone = score_fused(bench(), features)["a"]
    assert torch.equal(alone.average_precisions, own.average_precisions) and str(alone) == str(own)


def random_features(n, seed, k=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.randn(n, k, 6, generator=generator)


def test_every_mode_and_every_pose_from_one_pass():
    features = {"query": PoseFeatures(*random_features(2, 0)), "gallery": PoseFeatures(*random_features(4, 1))}
    one = bench()
    identities = dict(query_pids=one.query.pids, query_camids=one.query.camids,
                      gallery_pids=one.gallery.pids, gallery_camids=one.gallery.camids)  # fmt: skip
    everything = score_fused(one, features)
    assert list(everything) == list(MODES)
    for mode in MODES:
        for chosen in (None, [5], [0, 7]):
            sides = [fuse(f.a, f.b[:, chosen or list(range(8))], mode) for f in features.values()]
            want = evaluate_retrieval(*sides, **identities)
            got = score_fused(one, features, modes=[mode], poses=chosen)[mode]
            assert torch.equal(got.average_precisions, want.average_precisions)
    second = score_fused(one, features, queries=torch.tensor([1]))["max"]
    assert torch.equal(second.first_hits, everything["max"].first_hits[1:])
    assert score_fused(one, features, ap="trapezoid", modes=["max"])["max"].ap == "trapezoid"
    views = bench(protocol=Protocol(camera_rule="separate_views", gallery_shots=1, repeats=3))
    assert score_fused(views, features)["mean"].first_hits.shape == (2, 3)


def test_multi_query_pools_after_fusion():
    # fused, the two boxes are (1, 0) and (0, 1), in the mean (1/2, 1/2); the mean before fusion would be (0, 0)
    nothing = torch.zeros(2, 2)
    boxes = PoseFeatures(nothing, torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]]))
    gallery = PoseFeatures(nothing, torch.tensor([[[0.5, 0.5]], [[0.0, 0.0]]]))
    drawn = people([[0, 0, 0]] * 2, [1, 1], [1, 1])
    people_of = people([[0, 0, 0]] * 2, [1, 2], [2, 2])
    toy = Benchmark("toy", people_of, drawn, people_of, drawn)
    features = {"query": boxes, "gallery": gallery, "multi_query": boxes}
    pooled = score_fused(toy, features, modes=["max"], multi_query="mean", normalise=False)["max"]
    assert pooled.n_queries == 1 and pooled.rank(1) == 1.0
    own = bench(multi_query=bench().query)
    found = embed_benchmark(own, system())
    assert list(found) == ["query", "gallery", "multi_query"]
    single, multi = (score_fused(own, found, multi_query=pool)["max"] for pool in (None, "mean"))
    assert torch.equal(single.average_precisions, multi.average_precisions)  # one box for each person and camera
    alone = score_benchmark(MeanColour(), own, multi_query="mean")
    assert torch.equal(score_fused(own, found, multi_query="mean")["a"].first_hits, alone.first_hits)


def test_an_image_that_splits_share_is_embedded_once():
    one = bench()
    larger = extend(one.gallery, people([[9, 9, 200]], [3], [1]))
    two = Benchmark("other", one.train, one.gallery, extend(one.query, larger))
    whole, known, made = system(), {}, []
    whole.net_a.embed = lambda images, embed=whole.net_a.embed: made.append(len(images)) or embed(images)
    shared = [embed_benchmark(split, whole, known=known) for split in (one, two)]
    assert sum(made) == 7  # 2 queries, 4 gallery images, and the one that only the second split has
    for split, sides in zip((one, two), shared, strict=True):
        apart = embed_benchmark(split, system())
        for side in ("query", "gallery"):
            assert all(torch.equal(a, b) for a, b in zip(sides[side], apart[side], strict=True))


def test_an_image_is_known_by_its_pixels_not_by_its_name():
    """Sets number their images from 0 where they have no names: equal names must not share features."""
    one, known = bench(), {}
    assert one.query.names[0] == one.gallery.names[0]
    sides = embed_benchmark(one, system(), known=known)
    assert not torch.equal(sides["query"].a[0], sides["gallery"].a[0]) and len(known) == 6


def test_splits_in_one_call():
    trained = []

    def train(split):
        trained.append(split.name)
        return system()

    out = score_fused_splits([bench(name="0"), bench(name="1")], train, modes=("a", "max"), batch_size=3)
    assert list(out) == ["a", "max"] and trained == ["0"]  # both splits train on the same images
    want = score_fused(bench(), embed_benchmark(bench(), system()))["max"]
    assert len(out["max"].table) == 2 and out["max"].std["rank-1"] == 0
    other = {"0": system(), "1": PNGANSystem(MeanColour((0, 0, 1)), MeanColour((1, 1, 0)), Tint(), poses())}
    splits = [bench(name="0"), replace(bench(name="1"), train=bench().query)]
    apart = score_fused_splits(splits, lambda split: other[split.name], modes=["max"])["max"]
    for name, found in zip(other, apart.table["mAP (plain AP)"], strict=True):  # another system embeds anew
        assert found == pytest.approx(score_fused(bench(), embed_benchmark(bench(), other[name]))["max"].mAP)
    assert out["max"].mean["mAP (plain AP)"] == pytest.approx(want.mAP)


def test_from_generator_to_scores_with_the_papers_networks():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (10, 3, 64, 32), dtype=torch.uint8, generator=generator)
    joints = torch.rand(3, 18, 3, generator=generator) * torch.tensor([32.0, 64.0, 0.0]) + torch.tensor([0.0, 0, 1])
    everyone = PersonImages(images, [1, 1, 2, 2, 3, 3, 1, 2, 3, 3], [1, 2] * 5)
    canonical = PersonImages(images[:3], [-1] * 3, [-1] * 3, keypoints=joints)
    toy = Benchmark("toy", everyone, everyone.select(indices=[6, 7]), everyone.select(indices=range(6)))
    torch.manual_seed(0)
    gan = PNGAN(preset="smoke")
    net_a, net_b = (Baseline(3, form="pn_gan", preset="smoke") for _ in range(2))
    features = embed_benchmark(toy, PNGANSystem(net_a, net_b, gan, canonical), batch_size=4)
    assert features["gallery"].b.shape == (6, 3, 64)
    assert not torch.equal(features["query"].b[:, 0], features["query"].b[:, 1])
    torch.testing.assert_close(features["query"].b.norm(dim=2), torch.ones(2, 3))
    scores = score_fused(toy, features)
    assert all(0 <= found.mAP <= 1 for found in scores.values())
    assert torch.equal(scores["a"].first_hits, score_benchmark(net_a, toy).first_hits)


def test_what_does_not_fit_is_refused():
    a, b = random_features(2, 0)
    for arguments, message in (
        ((a, b, "median"), "mode must be one of 'a', 'b', 'max', .*got 'median'"),
        ((a, b[:1]), r"got \[2, 6\] and \[1, 8, 6\]"),
        ((a, b[:, :0]), r"got \[2, 6\] and \[2, 0, 6\]"),
        ((a, b[..., :5]), r"got \[2, 6\] and \[2, 8, 5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            fuse(*arguments)
    features = embed_benchmark(bench(), system())
    for options, message in (
        ({"poses": [3]}, r"poses=\[3\]: accepted are some of 0 to 2"),
        ({"poses": []}, "accepted are some of 0 to 2"),
        ({"multi_query": "mean"}, r"toy has no hand-drawn boxes \(gt_bbox\)"),
    ):
        with pytest.raises(ValueError, match=message):
            score_fused(bench(), features, **options)
    own = bench(multi_query=bench().query)
    with pytest.raises(ValueError, match="it does not go with multi_query"):
        score_fused(own, embed_benchmark(own, system()), queries=[0], multi_query="mean")
