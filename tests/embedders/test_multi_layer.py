"""ResNet-50-A and -B: parameter counts, the merge by hand, and the training in two steps."""

import copy

import pytest
import torch
import torch.nn.functional as F

from reidlib.datasets.person_images import PersonImages, extend
from reidlib.embedders import MultiLayerEmbedder, TwoStep, embed_all, train_two_step
from reidlib.embedders.multi_layer import TWO_STEP
from reidlib.experiments import train_baseline
from reidlib.networks import SmallResNet, normalise
from reidlib.training import fit


def people(n_ids=6, each=6, seed=0):
    """One colour for each identity, with noise."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(40, 216, (n_ids, 3, 1, 1), generator=torch.Generator().manual_seed(5))
    pids = torch.arange(n_ids).repeat_interleave(each) + 1
    noise = torch.randint(-30, 31, (n_ids * each, 3, 64, 32), generator=generator)
    return PersonImages((colours[pids - 1] + noise).to(torch.uint8), pids, torch.arange(len(pids)) % 2 + 1)


def batches(step):
    batch = people(each=4, seed=step).batch(torch.arange(24))
    return batch | {"labels": batch["pids"] - 1}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_paper():
    """Acceptance check 1: 30,570,287 parameters at K = 751, and 26,375,983 with the added maps."""
    net = MultiLayerEmbedder(751, backbone="resnet50", weights=None)
    assert parameters(net) == 30_570_287
    assert [parameters(p) for p in (net.backbone, net.merge, net.classifier)] == [23_508_032, 6_292_480, 769_775]
    assert parameters(MultiLayerEmbedder(751, backbone="resnet50", merge="add", weights=None)) == 26_375_983


def test_initial_weights():
    torch.manual_seed(0)
    net = MultiLayerEmbedder(200, width=16, dimensions=1024)
    assert net.merge.weight.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.01)  # fan-out
    assert net.classifier.weight.std().item() == pytest.approx(0.001, rel=0.01)
    assert not net.merge.bias.any() and not net.classifier.bias.any()


@pytest.mark.parametrize("merge", ["concat", "add"])
def test_every_block_of_the_last_stage_is_merged(merge):
    torch.manual_seed(0)
    net = MultiLayerEmbedder(3, width=4, dimensions=5, merge=merge).eval()
    maps = []
    for block in net.backbone.stages[-1]:
        block.register_forward_hook(lambda module, inputs, output: maps.append(output))
    images = torch.randn(2, 3, 64, 32)
    feature, logits = net(images)
    assert [m.shape for m in maps] == [(2, 32, 4, 2)] * 2
    pooled = [m.mean((2, 3)) for m in maps]
    merged = torch.cat(pooled, 1) if merge == "concat" else pooled[0] + pooled[1]
    assert merged.shape[1] == net.merge.in_features
    want = merged @ net.merge.weight.T + net.merge.bias
    torch.testing.assert_close(feature, want)
    assert (want < 0).any()  # the feature is taken before the ReLU
    torch.testing.assert_close(logits, want.clamp(min=0) @ net.classifier.weight.T + net.classifier.bias)
    torch.testing.assert_close(maps[-1], net.backbone(images))


def test_resnet50_has_three_maps_and_the_schedule_of_the_sheet():
    """One step of the paper's preset in each of its two steps, at a small image size."""
    torch.manual_seed(0)
    method = TwoStep(751, preset="paper", weights=None, steps=50, frozen_share=0.2)
    assert method.embedder.merge.in_features == 6144 and method.frozen_steps == 10
    factors = [method.schedule(step) for step in range(50)]
    assert factors == pytest.approx([1.0] * 35 + [0.1] * 15)  # ten frozen epochs, then a tenth after 25
    for parameters, optimizer, _ in method.optimizers().values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"], group["weight_decay"]) == (3.5e-4, (0.9, 0.999), 5e-4)
        assert len(group["params"]) == len(parameters)
    assert TWO_STEP.batch == 16 and method.embedder.dropout.p == 0.5
    batch = {"images": torch.randint(0, 255, (2, 3, 64, 32), dtype=torch.uint8), "labels": torch.tensor([0, 750])}
    for step, name in ((9, "new layers"), (10, "all")):
        asked = {}
        terms = method.train().training_step(batch, step, asked.__setitem__)
        assert list(asked) == [name] and torch.isfinite(terms["loss"])
    assert terms["loss"].item() == pytest.approx(6.62, abs=0.1)  # ln 751
    assert method.embed(batch["images"]).shape == (2, 1024)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_first_step_leaves_the_backbone_bit_identical(precision):
    """Acceptance check 13: weights and BatchNorm statistics stay in step 1 and change in step 2."""
    torch.manual_seed(0)
    method = TwoStep(6, preset="smoke", steps=6, frozen_share=0.5)
    before = copy.deepcopy(method.embedder.state_dict())
    options = {"device": "cpu", "precision": precision, "progress": False}
    fit(method, batches, 3, **options)
    after = method.embedder.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("backbone."), name
    assert "backbone.stem.1.running_mean" in before and "backbone.stem.1.num_batches_tracked" in before
    whole = TwoStep(6, preset="smoke", steps=6, frozen_share=0.5)
    whole.embedder.load_state_dict(before)
    fit(whole, batches, 6, **options)
    after = whole.embedder.state_dict()
    assert not any(torch.equal(value, after[name]) for name, value in before.items())


def test_start_and_the_share_that_is_frozen():
    torch.manual_seed(0)
    start = SmallResNet(8).state_dict()
    kept = {name: value.clone() for name, value in start.items()}
    random, trained = TwoStep(6, preset="smoke", steps=50), TwoStep(6, preset="smoke", steps=50, start=start)
    assert (random.weights_source, random.frozen_steps) == ("random", 0)
    assert (trained.weights_source, trained.frozen_steps) == ("given", 10)
    assert all(torch.equal(value, trained.embedder.backbone.state_dict()[name]) for name, value in start.items())
    fit(trained, batches, 12, device="cpu", progress=False)
    assert all(torch.equal(value, kept[name]) for name, value in start.items())  # the caller's stays


def test_learns_from_a_trained_start_and_embeds():
    images = people()
    first, _ = train_baseline(images, images_seen=320, preset="smoke", device="cpu", progress=False)
    arguments = {"images_seen": 800, "preset": "smoke", "device": "cpu", "progress": False}
    start = first.embedder.backbone.state_dict()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    method, history = train_two_step(images, start=start, **arguments)
    assert torch.equal(state, torch.get_rng_state())
    assert history.steps == 25 and method.frozen_steps == 5 and history.losses["accuracy"].iloc[-1] > 0.9
    features = embed_all(method, images, batch_size=7)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(36))
    again, _ = train_two_step(images, start=start, **arguments)
    assert torch.equal(embed_all(again, images, batch_size=7), features)
    raw, _ = method.embedder.eval()(normalise(images.images[:2]))
    torch.testing.assert_close(F.normalize(raw, dim=1), features[:2], rtol=1e-4, atol=1e-5)


def test_unlabelled_images_aim_at_the_uniform_distribution():
    torch.manual_seed(0)
    fakes = people(each=2).with_labels(pids=-2, is_generated=True)
    method, _ = train_two_step(extend(people(), fakes), images_seen=64, preset="smoke", device="cpu", progress=False)
    assert method.embedder.classifier.out_features == 6
    method.embedder.classifier.weight.data.normal_()
    batch = {"images": fakes.images[:3], "labels": torch.full((3,), -1)}
    with torch.no_grad():
        terms = method.eval().training_step(batch, 0, lambda name, loss: None)
        _, logits = method.embedder(normalise(batch["images"]))
    torch.testing.assert_close(terms["loss"], -logits.log_softmax(1).mean())
    assert terms["accuracy"] == 0


def test_what_does_not_fit_is_refused():
    for arguments, message in (
        ({"preset": "large"}, "preset='large': accepted are 'smoke'"),
        ({"merge": "max"}, "merge='max': accepted are .* 'add'"),
        ({"start": SmallResNet(4).state_dict()}, r"start is no state dict of the backbone 'small' \(width 8\)"),
        ({"frozen_share": 1.0}, "frozen_share=1.0: accepted are"),
        ({"dimensions": 0}, "dimensions=0: both must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            TwoStep(6, **{"preset": "smoke"} | arguments)
    with pytest.raises(ValueError, match="images_seen=3 is less than one batch of 32"):
        train_two_step(people(), images_seen=3, preset="smoke")
    with pytest.raises(ValueError, match="at least two identities"):
        train_two_step(people(n_ids=1), images_seen=64, preset="smoke")
