"""SAN as a generator of the library: recorded, refused, on rendered people."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from semantic_attention_toys import SIZE, Constant, generator, one_batch, people, smoke, step_of, strengthen

from reidlib.datasets import Benchmark, PersonImages, extend
from reidlib.datasets.procedural import render
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.evaluators.judges import load_judges
from reidlib.experiments import augmented, judge_generator
from reidlib.generators.recorded import load_generator, save_generator
from reidlib.generators.semantic_attention import SAN, augmentation_pairs, san_pairs
from reidlib.generators.synthesis import stream, synthesise, train_generator
from reidlib.networks import SmallResNet
from reidlib.training import fit


def test_a_recorded_one_draws_the_same_without_the_guide(tmp_path):
    method, batch = smoke(guide=SmallResNet(4), use_perceptual=True), people([1, 1]).batch([0, 1])
    fit(method, lambda step: one_batch(4), 2, device="cpu", precision="fp32", progress=False)
    save_generator(method, tmp_path / "mine.safetensors")
    again, facts = load_generator("mine", folder=tmp_path)
    for tensor in method.state_dict().values():  # as stored: rounded to half precision
        tensor.copy_(tensor.half().float())
    images, maps = batch["images"].float() / 127.5 - 1, method.condition(batch, batch)
    assert torch.equal(again.generate(images, maps), method.generate(images, maps))
    assert facts["settings"]["features"] == "SmallResNet" and again.settings["features"] is None


def test_settings_say_what_is_not_as_published():
    with torch.device("meta"):
        paper = SAN(preset="paper", guide=None)
    assert paper.deviations == {"features": None}  # no VGG was given
    course = SAN(preset="course", guide=SmallResNet(4), mask_image=True)
    changed = {"features", "layer", "relative", "foreground_weight", "image_size", "width", "mask_image", "alpha"}
    assert changed <= set(course.deviations)
    assert "beta" not in course.deviations and course.settings["dataset"] == "market1501"
    assert smoke().deviations["gamma"] == 0


def test_the_image_is_multiplied_by_the_mask_where_asked():
    batch = people([1, 1]).batch([0, 1])
    images = torch.rand(2, 3, *SIZE, generator=generator())
    for mask_image in (False, True):
        method = smoke(mask_image=mask_image)
        seen = Constant(lambda a, s: a[:, :3])
        method.G = seen
        method.generate(images, method.condition(batch, batch))
        inside = (batch["masks"] > 127)[:, None] if mask_image else 1
        assert torch.equal(seen.seen[0][0][:, :3], images * inside)


def test_the_parse_map_of_the_target_changes_the_picture():
    """What the sheet calls leakage: another layout of clothes in the same pose makes another image."""
    method, batch = smoke(), people([1, 1]).batch([0, 1])
    strengthen(method)
    images = batch["images"].float() / 127.5 - 1
    edited = batch | {"parsing": torch.where(batch["parsing"] == 12, 9, batch["parsing"])}  # skirt to trousers
    plain, other = (method.generate(images, method.condition(target, batch)) for target in (batch, edited))
    assert (plain - other).abs().max() > 1e-4


def without(batch: dict, *names: str) -> dict:
    return {n: v for n, v in batch.items() if n not in names}


def test_bad_batches_are_refused():
    method, batch = smoke(), one_batch()
    for name in ("parsing", "target_parsing", "target_images"):
        with pytest.raises(ValueError, match=f"the batch lacks {name}"):
            step_of(method, without(batch, name))
    with pytest.raises(ValueError, match=r"of \(64, 32\) .*the batch has \(128, 64\)"):
        step_of(method, one_batch(size=(128, 64)))
    with pytest.raises(ValueError, match=r"masks must be uint8 \[2, 64, 32\], got torch.uint8 \[2, 32, 32\]"):
        step_of(method, batch | {"target_masks": torch.zeros(2, 32, 32, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="from 0 to 19, got 20"):
        step_of(method, batch | {"parsing": torch.full((2, *SIZE), 20, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="SAN needs parsing"):
        san_pairs(people([1, 1], parsing=None))


def test_bad_conditions_are_refused():
    method, batch = smoke(), people([1, 1]).batch([0, 1])
    for sources, targets, words in (
        (batch, None, "SAN needs targets with parsing, got nothing"),
        (None, batch, "SAN needs sources with parsing, got nothing"),
        (batch, without(batch, "parsing"), "SAN needs targets with parsing, got camids"),
    ):
        with pytest.raises(ValueError, match=words):
            method.condition(targets, sources)
    maps, images = method.condition(batch, batch), torch.zeros(2, 3, *SIZE)
    for wrong in (None, maps["source"], {"source": maps["source"]}, maps | {"target": maps["target"][:, 1:]}):
        with pytest.raises(ValueError, match=r"condition must hold maps \[2, 21, 64, 32\] of the source and of the"):
            method.generate(images, wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(preset="large"), "'smoke', 'course', 'paper'"),
        (dict(dataset="msmt17"), "'market1501', 'deepfashion'"),
        (dict(mask_sign=0), "mask_sign must be one of 1, -1"),
        (dict(transfer="both"), "'semantic', 'appearance'"),
        (dict(sem_operand="both"), "'convolved', 'raw'"),
        (dict(fake_cond="none"), "'source', 'target'"),
        (dict(decay="never"), "'after', 'from_start'"),
        (dict(score="mean"), "'map', 'features'"),
        (dict(p=3), "p must be one of 1, 2"),
        (dict(gamma=-1), "gamma=-1"),
        (dict(guide_shift=2.5), "guide_shift is a whole number of pixels, got guide_shift=2.5"),
        (dict(blocks=3), "switch must be one of 'image_size', .*; got 'blocks'"),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SAN(**{"preset": "smoke"} | options)


def test_perceptual_and_l1_pull_a_picture_to_its_target():
    """A few steps on one batch bring the mean difference down."""
    torch.manual_seed(0)
    data = people([1] * 4)
    smooth = F.interpolate(torch.rand(4, 3, 8, 4, generator=generator()), SIZE, mode="bilinear")
    data = PersonImages((smooth * 255).to(torch.uint8), data.pids, data.camids, masks=data.masks, parsing=data.parsing)
    method = SAN(preset="smoke", guide=SmallResNet(4), lr=4e-3, beta=100, steps=10**6, foreground_weight=1)
    history = fit(method, Batches(data, pair_batches(san_pairs(data), 4)), 30, device="cpu", precision="fp32",
                  log_every=5, progress=False)  # fmt: skip
    assert history.losses["L_l1"].iloc[-1] < 0.75 * history.losses["L_l1"].iloc[0]


def rendered(ids: range) -> PersonImages:
    """Each person twice in three cameras."""
    rows = [(pid, camid, moment) for pid in ids for camid in (1, 2, 3) for moment in (0, 1)]
    pids, camids, moments = zip(*rows, strict=True)
    made = render(pids, camids, moments=moments, image_size=SIZE, scene="generation", seed=0)
    return PersonImages(made.images, pids, camids, keypoints=made.keypoints, masks=made.masks, parsing=made.parsing)


def test_12_and_the_whole_way_on_rendered_people(tmp_path):
    """Pair, train (and resume), generate in memory, batch by batch and in a file, judge."""
    people = rendered(range(1, 6))
    bench = Benchmark("toy", people, people, people).validation(identities=2)
    train, test = bench.train, extend(bench.query, bench.gallery)
    pairs, asked = san_pairs(train, "same_camera"), san_pairs(test)[:8]
    assert len(pairs) == 3 * 3 * 2
    trained, tested = (set(data.pids[rows].flatten().tolist()) for data, rows in ((train, pairs), (test, asked)))
    assert trained and tested and not trained & tested
    build = partial(SAN, preset="smoke", guide=SmallResNet(4))
    options = dict(images_seen=24, batch_size=4, device="cpu", precision="fp32", progress=False)
    method, history = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")
    assert history.steps == 6 and history.losses[["L_adv", "L_l1", "L_perc", "L_full", "D"]].notna().all(axis=None)
    again, _ = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")  # the finished run is taken up
    state = method.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())
    made = synthesise(method, test, asked, targets=test, folder=tmp_path / "made", batch_size=3)
    streamed = torch.cat([images for _, images in stream(method, test, asked, targets=test, batch_size=8)])
    assert (made.images.float() - streamed.float()).abs().max() <= 1
    assert made.pids.tolist() == test.pids[asked[:, 0]].tolist()
    table = judge_generator(method, test, asked, targets=test, judges=load_judges(), gallery=test, copy=True)
    assert list(table.index) == ["copy of the source", "SAN"] and table.notna().all(axis=None)
    assert {"PCK@0.1", "identity kept, rank-1", "FID", "SSIM"} <= set(table.columns)
    assert table.loc["copy of the source", "SSIM"] != table.loc["SAN", "SSIM"]
    larger = augmented(train, method, pairs=augmentation_pairs(train, 2), targets=train)
    assert len(larger) == 2 * len(train) and int(larger.is_generated.sum()) == len(train)
