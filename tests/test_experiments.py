"""One embedder against several benchmarks and protocols: transfer, multi-query, splits."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reidlib.datasets import Benchmark, PersonImages, Protocol, load_splits
from reidlib.evaluators import image_quality, score_splits
from reidlib.evaluators.judges import camera_style, identity_kept, load_judges, pose_pck
from reidlib.experiments import augmented, judge_generator, score_benchmark, score_features, train_baseline
from reidlib.generators.synthesis import synthesise


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
    with pytest.raises(ValueError, match="mode must be one of 'mean', 'max'; got 'median'"):
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
    out = score_splits(benches, score_benchmark, train)
    assert len(out.table) == 2 and len(trained) == 1 and 0 <= out.mean["rank-1"] <= 1


def test_training_leaves_the_callers_random_state_alone():
    images = PersonImages(torch.randint(0, 255, (16, 3, 64, 32), dtype=torch.uint8), [1, 2] * 8, [1] * 16)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_baseline(images, images_seen=32, preset="smoke", device="cpu", progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_features_that_are_given_are_scored_by_the_benchmarks_protocol():
    boxes = people([[130, 0, 0], [110, 0, 0], [90, 0, 40], [150, 0, 0]], [1, 1, 1, 2], [1, 1, 1, 1])
    one = bench(multi_query=boxes, protocol=Protocol(ap="trapezoid"))
    query, gallery, drawn = (part.images.float().mean((2, 3)) for part in (one.query, one.gallery, boxes))
    for features, options in ((query, {}), (drawn, {"multi_query": "mean"}), (query, {"camera_rule": "none"})):
        found = score_features(one, features, gallery, **options)
        want = score_benchmark(MeanColour(), one, **options)
        assert str(found) == str(want) and found.ap == "trapezoid"
        assert torch.equal(found.average_precisions, want.average_precisions)
    for sides, message in (
        ((drawn, gallery), "4 query features for the 1 images of toy"),
        ((query, gallery[:1]), "1 gallery features for the 2 images of toy"),
    ):
        with pytest.raises(ValueError, match=message):
            score_features(one, *sides)


def test_the_network_is_scored_where_it_lies():
    """Features are asked for on the device of the parameters, whatever the machine has."""
    seen = []

    class Elsewhere(MeanColour):
        def embed(self, images):
            seen.append(images.device.type)
            return torch.zeros(len(images), 3)

    score_benchmark(Elsewhere().to("meta"), bench())
    assert set(seen) == {"meta"}


@pytest.mark.parametrize("form", ["baseline", "camstyle"])
def test_batches_hold_the_mixture_where_fakes_are_taken_apart(form, monkeypatch):
    from reidlib import experiments

    pids = torch.arange(4).repeat_interleave(40)
    images = PersonImages(torch.zeros(160, 3, 64, 32, dtype=torch.uint8), pids, pids, is_generated=pids % 2 == 1)
    seen = []

    def train(build, images, sampler, **options):
        seen.append([int(images.is_generated[rows].sum()) for rows in sampler.draw(torch.Generator())])
        return build(3, 4), options["settings"]

    monkeypatch.setattr(experiments, "train", train)
    method, settings = train_baseline(images, images_seen=64, form=form, preset="smoke")
    assert settings["form"] == form and settings["images"] == 160
    if form == "camstyle":
        assert seen == [[12, 12]] and method.fakes == "lsr"  # 32 real ones and 32 * 46 / 128 = 11.5, rounded to even
    else:
        assert len(seen[0]) == 5 and method.fakes is None
    train_baseline(images.select(pids=[0, 2]), images_seen=64, form=form, preset="smoke")
    assert seen[1] == [0, 0]  # nothing generated: plain batches


class Marked(nn.Module):
    """Writes the target's (else the source's) first pixel into the whole image, plus one."""

    def condition(self, targets, sources=None):
        return (sources if targets is None else targets)["images"][:, :, :1, :1].float() / 127.5 - 1

    def generate(self, images, condition):
        return (condition + 2 / 255).expand_as(images)


def numbered(n=10):
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 4).contiguous()
    return PersonImages(images, torch.arange(n) // 2, torch.arange(n) % 2 + 1)


@pytest.mark.parametrize("factor", [0.3, 1, 2, 2.5])
def test_an_extended_training_set(factor):
    train = numbered()
    targets = None if factor <= 1 else train
    out = augmented(train, Marked(), factor, targets=targets, seed=4)
    assert len(out) == 10 + round(10 * factor) and torch.equal(out.images[:10], train.images)
    fakes = out.select(indices=out.is_generated)
    sources = torch.tensor([train.names.index(name) for name in fakes.info["source"]])
    assert torch.equal(fakes.pids, train.pids[sources])
    counts = torch.bincount(sources, minlength=10)
    assert counts.min() == int(factor) and counts.max() - counts.min() <= 1
    shown = fakes.images[:, 0, 0, 0].long() - 1
    if targets is None:
        assert torch.equal(shown, sources)
    else:
        assert (shown != sources).all()  # never posed as itself
        assert len({*zip(sources.tolist(), shown.tolist(), strict=True)}) == len(fakes)  # and no pose twice
    again = augmented(train, Marked(), factor, targets=targets, seed=4)
    assert torch.equal(again.images, out.images)
    if factor != 1:
        assert not torch.equal(augmented(train, Marked(), factor, targets=targets, seed=5).images, out.images)


def test_extended_by_given_pairs_and_what_is_refused():
    train = numbered()
    out = augmented(train, Marked(), pairs=torch.tensor([[3, 7], [3, 8]]), targets=train, pids=-2)
    assert out.pids[10:].tolist() == [-2, -2] and out.images[10:, 0, 0, 0].tolist() == [8, 9]
    for options, message in (
        ({"factor": 0.01}, "factor=0.01 with 10 images"),
        ({"factor": 2}, "without targets each real image gives one"),
        ({"factor": 3, "targets": train.select(indices=[0, 1])}, "needs 3 targets for each image, there are 2"),
    ):
        with pytest.raises(ValueError, match=message):
            augmented(train, Marked(), **options)


@pytest.fixture(scope="module")
def judges():
    return load_judges()


def rendered(n=12, size=(64, 32)):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (n, 3, *size), dtype=torch.uint8, generator=generator)
    joints = torch.rand(n, 18, 3, generator=generator) * torch.tensor([32.0, 64.0, 0.0]) + torch.tensor([0.0, 0, 1])
    return PersonImages(images, torch.arange(n) // 3, torch.arange(n) % 3 + 1, keypoints=joints)


def test_a_transfer_between_cameras_is_judged_by_everything_that_applies(judges):
    """Images of camera 1 moved to camera 2: each number is that of the single judge."""
    train = rendered()
    moved = (train.camids == 1).nonzero()[:, 0]
    sources, real = train.select(indices=moved), train.select(camids=2)
    fakes = synthesise(Marked(), sources, camids=2)
    options = dict(judges=judges, gallery=train, source_rows=moved, camera=2, real=real)
    table = judge_generator(fakes, sources, **options, name="model 1", copy=True, untrained=Marked())
    assert list(table.index) == ["copy of the source", "untrained", "model 1"]
    for name, images in (
        ("model 1", fakes.images),
        ("untrained", fakes.images),
        ("copy of the source", sources.images),
    ):
        kept = identity_kept(images, sources.pids, train, judges, source_rows=moved)
        want = {
            "PCK@0.1": pose_pck(images, sources.keypoints, judges),
            "PCK@0.05": pose_pck(images, sources.keypoints, judges, 0.05),
            "identity kept, rank-1": kept.rank1,
            "identity kept, any of 10": kept.rank10,
            "identity kept, by chance": kept.chance,
            "camera style": camera_style(images, 2, judges).share,
            "FID": image_quality.fid(real, images, features=judges.looks).value,
        }
        assert table.loc[name].to_dict() == want
    with pytest.raises(ValueError, match=r"model 1: 3 images for 4 pairs"):
        judge_generator(fakes.select(indices=range(3)), sources, **options, name="model 1")


def test_pictures_of_the_same_person_have_a_truth(judges):
    people = rendered()
    pairs = torch.tensor([[0, 1], [1, 2], [4, 3], [8, 7]])
    truth = people.batch(pairs[:, 1])
    table = judge_generator(Marked(), people, pairs, targets=people, judges=judges, copy=True)
    assert list(table.index) == ["copy of the source", "Marked"]
    images = {
        "copy of the source": people.batch(pairs[:, 0])["images"],
        "Marked": synthesise(Marked(), people, pairs, targets=people).images,
    }
    for name, made in images.items():
        want = {
            "PCK@0.1": pose_pck(made, truth["keypoints"], judges),
            "PCK@0.05": pose_pck(made, truth["keypoints"], judges, 0.05),
            "FID": image_quality.fid(truth["images"], made, features=judges.looks).value,
            "SSIM": image_quality.ssim(made, truth["images"]).mean().item(),
            "L1 (range 2)": image_quality.l1(made, truth["images"]).mean().item(),
        }
        assert table.loc[name].to_dict() == want
    plain = PersonImages(people.images, people.pids, people.camids)  # no pose is known
    assert list(judge_generator(Marked(), plain, pairs, targets=plain, judges=judges).columns) == list(want)[2:]
    alone = judge_generator(Marked(), people, pairs, targets=people)
    assert list(alone.columns) == ["SSIM", "L1 (range 2)"]
    nobody = people.with_labels(pids=-1)  # poses of no person in particular: nothing is the truth
    posed = judge_generator(Marked(), people, pairs, targets=nobody, judges=judges)
    assert list(posed.columns) == ["PCK@0.1", "PCK@0.05"]
    with pytest.raises(ValueError, match="nothing to measure by"):
        judge_generator(Marked(), people, pairs, targets=nobody)
