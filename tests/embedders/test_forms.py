"""Other papers' networks as forms of the baseline: PN-GAN's A and B in two steps, CamStyle's taking of fakes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets.person_images import PersonImages, extend
from reidlib.datasets.sampling import Batches, mixed_batches
from reidlib.embedders import RECIPES, Baseline, Embedder, embed_all
from reidlib.experiments import train_baseline
from reidlib.networks import SmallResNet, normalise
from reidlib.training import fit


def people(n_ids=6, each=6, seed=0, fakes=False):
    """One colour for each identity, with noise."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(40, 216, (n_ids, 3, 1, 1), generator=torch.Generator().manual_seed(5))
    pids = torch.arange(n_ids).repeat_interleave(each) + 1
    noise = torch.randint(-30, 31, (n_ids * each, 3, 64, 32), generator=generator)
    fake = (torch.arange(len(pids)) % 3 == 0) & fakes
    images = (colours[pids - 1] + noise).to(torch.uint8)
    return PersonImages(images, pids, torch.arange(len(pids)) % 2 + 1, is_generated=fake)


def batches(step):
    batch = people(each=4, seed=step).batch(torch.arange(24))
    return batch | {"labels": batch["pids"] - 1}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def two_step(n_classes=6, **options):
    return Baseline(n_classes, **{"form": "pn_gan", "preset": "smoke"} | options)


def test_pn_gan_parameters_of_the_paper():
    """Acceptance check 1: 30,570,287 parameters at K = 751, and 26,375,983 with the added maps."""
    form = dict(backbone="resnet50", pool="blocks", dimensions=1024)
    net = Embedder(751, **form)
    assert parameters(net) == 30_570_287
    parts = (net.backbone, net.heads[0].layer, net.heads[0].classifier)
    assert [parameters(p) for p in parts] == [23_508_032, 6_292_480, 769_775]
    assert parameters(Embedder(751, **form, merge="add")) == 26_375_983


@pytest.mark.parametrize("merge", ["concat", "add"])
def test_pn_gans_feature_is_taken_before_the_relu(merge):
    torch.manual_seed(0)
    net = Embedder(3, width=4, pool="blocks", dimensions=5, merge=merge).eval()
    images = torch.randn(2, 3, 64, 32)
    compared, feature, logits = net(images)
    layer, classifier = net.heads[0].layer, net.heads[0].classifier
    want = net.pool(images) @ layer.weight.T + layer.bias
    torch.testing.assert_close(feature, want)
    assert torch.equal(compared, feature) and (want < 0).any() and net.dimensions == 5
    torch.testing.assert_close(logits, want.clamp(min=0) @ classifier.weight.T + classifier.bias)


def test_pn_gan_in_the_papers_size_and_the_schedule_of_the_sheet():
    """One step of the paper's preset in each of its two steps, at a small image size."""
    torch.manual_seed(0)
    method = two_step(751, preset="paper", start="none", steps=50, frozen_share=0.2)
    head = method.embedder.heads[0]
    assert head.layer.in_features == 6144 and method.frozen_steps == 10
    factors = [method.schedule(step) for step in range(50)]
    assert factors == pytest.approx([1.0] * 35 + [0.1] * 15)  # ten frozen epochs, then a tenth after 25
    made = method.optimizers()
    assert set(made) == {"E", "new layers"} and made["new layers"][2] is None
    for found, optimizer, _ in made.values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"], group["weight_decay"]) == (3.5e-4, (0.9, 0.999), 5e-4)
        assert len(group["params"]) == len(found)
    assert {id(p) for p in made["E"][0]} == {id(p) for p in method.embedder.parameters()}
    assert {id(p) for p in made["new layers"][0]} == {id(p) for p in head.parameters()}
    assert RECIPES["two_step"].batch == 16 and head.dropout.p == 0.5
    batch = {"images": torch.randint(0, 255, (2, 3, 64, 32), dtype=torch.uint8), "labels": torch.tensor([0, 750])}
    for step, name in ((9, "new layers"), (10, "E")):
        asked = {}
        terms = method.train().training_step(batch, step, asked.__setitem__)
        assert list(asked) == [name] and torch.isfinite(terms["loss"])
    assert terms["loss"].item() == pytest.approx(6.62, abs=0.1)  # ln 751
    assert method.embed(batch["images"]).shape == (2, 1024)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_first_step_leaves_the_backbone_bit_identical(precision):
    """Acceptance check 13: weights and BatchNorm statistics stay in step 1 and change in step 2."""
    torch.manual_seed(0)
    method = two_step(steps=6, frozen_share=0.5)
    before = copy.deepcopy(method.embedder.state_dict())
    options = {"device": "cpu", "precision": precision, "progress": False}
    fit(method, batches, 3, **options)
    after = method.embedder.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("backbone."), name
    assert "backbone.stem.1.running_mean" in before and "backbone.stem.1.num_batches_tracked" in before
    whole = two_step(steps=6, frozen_share=0.5)
    whole.embedder.load_state_dict(before)
    fit(whole, batches, 6, **options)
    after = whole.embedder.state_dict()
    assert not any(torch.equal(value, after[name]) for name, value in before.items())


def test_start_and_the_share_that_is_frozen():
    torch.manual_seed(0)
    start = SmallResNet(8).state_dict()
    kept = {name: value.clone() for name, value in start.items()}
    random, trained = two_step(steps=50), two_step(steps=50, start=start)
    assert (random.weights_source, random.frozen_steps) == ("random", 0)
    assert (trained.weights_source, trained.frozen_steps) == ("given", 10)
    assert Baseline(6, preset="smoke", steps=50, start=start).frozen_steps == 0  # its recipe freezes nothing
    assert all(torch.equal(value, trained.embedder.backbone.state_dict()[name]) for name, value in start.items())
    fit(trained, batches, 12, device="cpu", progress=False)
    assert all(torch.equal(value, kept[name]) for name, value in start.items())  # the caller's stays


def test_pn_gan_learns_from_a_trained_start_and_embeds():
    images = people()
    first, _ = train_baseline(images, images_seen=320, preset="smoke", device="cpu", progress=False)
    arguments = {"images_seen": 800, "form": "pn_gan", "preset": "smoke", "device": "cpu", "progress": False}
    start = first.embedder.backbone.state_dict()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    method, history = train_baseline(images, start=start, **arguments)
    assert torch.equal(state, torch.get_rng_state())
    assert history.steps == 25 and method.frozen_steps == 5 and history.losses["accuracy"].iloc[-1] > 0.9
    features = embed_all(method, images, batch_size=7)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(36))
    again, _ = train_baseline(images, start=start, **arguments)
    assert torch.equal(embed_all(again, images, batch_size=7), features)
    raw = method.embedder.eval()(normalise(images.images[:2])).feature
    torch.testing.assert_close(F.normalize(raw, dim=1), features[:2], rtol=1e-4, atol=1e-5)
    own, _ = train_baseline(images, start=start, merge="add", normalise=False, **arguments)
    assert own.embedder.merge == "add"
    assert not torch.allclose(embed_all(own, images).norm(dim=1), torch.ones(36), atol=0.1)


def test_pn_gans_unlabelled_images_aim_at_the_uniform_distribution():
    fakes = people(each=2).with_labels(pids=-2, is_generated=True)
    options = {"form": "pn_gan", "preset": "smoke", "device": "cpu", "progress": False}
    method, _ = train_baseline(extend(people(), fakes), images_seen=64, **options)
    classifier = method.embedder.heads[0].classifier
    assert classifier.out_features == 6
    classifier.weight.data.normal_()
    batch = {"images": fakes.images[:3], "labels": torch.full((3,), -1)}
    with torch.no_grad():
        terms = method.eval().training_step(batch, 0, lambda name, loss: None)
        logits = method.embedder(normalise(batch["images"])).logits
    torch.testing.assert_close(terms["loss"], -logits.log_softmax(1).mean())
    assert terms["accuracy"] == 0


def camstyle(n_classes=4, **options):
    return Baseline(n_classes, **{"form": "camstyle", "preset": "smoke"} | options)


def test_camstyle_learns_a_tiny_set():
    images = people(4, fakes=True)
    torch.manual_seed(0)
    method = camstyle(steps=40)
    history = fit(
        method, Batches(images, mixed_batches(images.is_generated, 8, 4)), 40, device="cpu", progress=False, log_every=1
    )
    last = history.losses.iloc[-1]
    assert last["accuracy"] == 1.0
    assert last["loss"] == pytest.approx(last["identity"] + last["identity of fakes"], abs=1e-5)
    # smoothed targets cannot be met: -sum q log q at epsilon = 0.1, K = 4
    floor = -(0.925 * math.log(0.925) + 3 * 0.025 * math.log(0.025))
    assert last["identity"] < 0.3 and last["identity of fakes"] >= floor - 1e-3


def test_vanilla_does_not_smooth():
    images = people(4, fakes=True)
    batch = images.batch(range(24)) | {"labels": images.pids - 1}
    torch.manual_seed(0)
    method = camstyle(fakes="vanilla").eval()
    with torch.no_grad():
        terms = method.training_step(batch, 0, lambda name, loss: None)
        logits = method.embedder(normalise(batch["images"])).logits
    fake = images.is_generated
    torch.testing.assert_close(terms["identity of fakes"], F.cross_entropy(logits[fake], batch["labels"][fake]))
    torch.testing.assert_close(terms["identity"], F.cross_entropy(logits[~fake], batch["labels"][~fake]))
    with pytest.raises(ValueError, match="images without an identity need lsro"):
        method.training_step(batch | {"labels": torch.full((24,), -1)}, 0, lambda name, loss: None)


@pytest.mark.parametrize("heads", [None, [{"dimensions": 5, "norm": "batch"}, {"norm": "batch"}]])
def test_real_and_generated_images_have_batch_statistics_of_their_own(heads):
    """As the released code: two passes a step, real images first; "joint" sends all through together."""
    images = people(4, fakes=True)
    batch, fake = images.batch(range(24)) | {"labels": images.pids - 1}, images.is_generated
    torch.manual_seed(0)
    method = camstyle(heads=heads, dropout=0.0).train()
    before = copy.deepcopy(method.embedder)

    def cross_entropy(parts, labels, **options):
        return sum(F.cross_entropy(part.logits, labels, **options) for part in parts)

    terms = method.training_step(batch, 0, lambda name, loss: None)
    pixels, labels = normalise(batch["images"]), batch["labels"]
    real = cross_entropy(before.all_heads(pixels[~fake]), labels[~fake])
    fakes = cross_entropy(before.all_heads(pixels[fake]), labels[fake], label_smoothing=0.1)
    assert torch.equal(terms["identity"], real) and torch.equal(terms["identity of fakes"], fakes)
    for name, value in before.state_dict().items():  # the running statistics count both passes, in this order
        assert torch.equal(value, method.embedder.state_dict()[name]), name
    assert method.embedder.backbone.stem[1].num_batches_tracked == 2
    joint = camstyle(heads=heads, dropout=0.0, passes="joint").train()
    joint.embedder.load_state_dict(before.state_dict())
    logits = copy.deepcopy(joint.embedder).all_heads(pixels)
    terms = joint.training_step(batch, 0, lambda name, loss: None)
    want = sum(F.cross_entropy(part.logits[~fake], labels[~fake]) for part in logits)
    torch.testing.assert_close(terms["identity"], want)
    assert abs(terms["identity"] - real) > 1e-6 and joint.embedder.backbone.stem[1].num_batches_tracked == 3


def test_a_batch_with_one_image_of_a_kind_is_refused_by_name():
    images = people(4, fakes=True)
    rows = torch.cat([images.is_generated.nonzero()[:1, 0], (~images.is_generated).nonzero()[:5, 0]])
    batch = images.batch(rows) | {"labels": torch.arange(6) % 4}
    with pytest.raises(ValueError, match=r"\[5, 1\] real and generated images: .* two or more of each"):
        camstyle().training_step(batch, 0, lambda name, loss: None)
    assert torch.isfinite(camstyle(passes="joint").training_step(batch, 0, lambda name, loss: None)["loss"])
    options = dict(form="camstyle", preset="smoke", images_seen=12, device="cpu", progress=False)
    few = images.select(indices=[0, 1, 3, 6, 7])  # two real people in two images, and three fakes: 2 * 46 / 128 is 1
    assert few.is_generated.tolist() == [True, False, True, True, False]
    assert train_baseline(few, **options)[1].steps == 3  # the batches that it draws itself never hold one of a kind


def test_two_passes_give_everything_back_in_the_order_of_the_batch():
    images = people(4, fakes=True)
    batch = images.batch(torch.randperm(24, generator=torch.Generator().manual_seed(0)))
    batch |= {"labels": batch["pids"] - 1}
    torch.manual_seed(0)
    method = camstyle(loss="softmax+triplet", dropout=0.0).eval()  # evaluation: the passes cannot differ
    assert 0 < batch["is_generated"].sum() < 24
    joint = camstyle(loss="softmax+triplet", dropout=0.0, passes="joint").eval()
    joint.load_state_dict(method.state_dict())
    found, want = (m.training_step(batch, 0, lambda name, loss: None) for m in (method, joint))
    for name, value in want.items():
        torch.testing.assert_close(found[name], value)
    for kind in (False, True):  # a batch of one kind is one pass
        rows = (batch["is_generated"] == kind).nonzero()[:, 0]
        part = {name: value[rows] for name, value in batch.items()}
        terms = method.training_step(part, 0, lambda name, loss: None)
        assert terms["identity" if kind else "identity of fakes"] == 0 and torch.isfinite(terms["loss"])


def test_camstyles_layer_starts_as_in_the_released_code():
    torch.manual_seed(0)
    layer = camstyle(751, preset="paper", start="none").embedder.heads[0].layer
    assert layer.weight.std().item() == pytest.approx(0.044, abs=5e-4) and not layer.bias.any()
    own = [dict(dimensions=1024, norm="batch", relu=True, feature="pooled", init="torch")]
    layer = camstyle(751, preset="paper", start="none", heads=own).embedder.heads[0].layer
    assert layer.weight.std().item() == pytest.approx((1 / 3 / 2048) ** 0.5, rel=0.01) and layer.bias.any()


def test_camstyles_head_and_rates_of_the_paper():
    method = camstyle(751, preset="paper", start="none", steps=50)
    head = method.embedder.heads[0]
    kinds = [type(layer) for layer in (head.layer, head.norm, head.activation, head.dropout, head.classifier)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert head.layer.weight.shape == (1024, 2048) and head.classifier.weight.shape == (751, 1024)
    assert head.dropout.p == 0.5 and head.classifier.weight.std().item() == pytest.approx(0.001, rel=0.02)
    found, sgd, schedule = method.optimizers()["E"]
    backbone, new = sgd.param_groups
    assert (backbone["lr"], new["lr"]) == (0.01, 0.1) and backbone["nesterov"] and new["momentum"] == 0.9
    assert backbone["weight_decay"] == new["weight_decay"] == 5e-4
    assert {id(p) for p in new["params"]} == {id(p) for p in head.parameters()}
    assert len(found) == sum(1 for _ in method.embedder.parameters())
    assert [schedule(epoch) for epoch in (0, 39, 40, 49)] == [1, 1, pytest.approx(0.1), pytest.approx(0.1)]
    feature = method.embed(torch.zeros(2, 3, 64, 32, dtype=torch.uint8))
    assert feature.shape == (2, 2048)
    torch.testing.assert_close(feature.norm(dim=1), torch.ones(2))


def test_several_heads_train_and_embed_together():
    torch.manual_seed(0)
    heads = [dict(dimensions=5, norm="batch"), dict(dimensions=7, norm="batch")]
    method = Baseline(6, preset="smoke", heads=heads, dropout=0.0)
    batch = batches(0)
    with torch.no_grad():
        terms = method.eval().training_step(batch, 0, lambda name, loss: None)
        logits = [head.logits for head in method.embedder.all_heads(normalise(batch["images"]))]
        feature = method.embed(batch["images"])
    torch.testing.assert_close(terms["identity"], sum(F.cross_entropy(x, batch["labels"]) for x in logits))
    assert feature.shape == (24, 12)
    torch.testing.assert_close(feature[:, :5].norm(dim=1), torch.ones(24))


def test_what_does_not_fit_is_refused():
    for options, message in (
        ({"merge": "max"}, "merge must be one of 'concat', 'add'; got 'max'"),
        ({"start": SmallResNet(4).state_dict()}, r"start \(given\) does not fit SmallResNet"),
        ({"frozen_share": 1.0}, "frozen_share=1.0: accepted are"),
        ({"dimensions": -1}, "dimensions=-1: accepted are"),
    ):
        with pytest.raises(ValueError, match=message):
            two_step(**options)
    for form in ("baseline", "pn_gan", "camstyle"):
        with pytest.raises(ValueError, match="images_seen=3 is less than one batch of 32"):
            train_baseline(people(), form=form, images_seen=3, preset="smoke")
        with pytest.raises(ValueError, match="at least two identities"):
            train_baseline(people(n_ids=1), form=form, images_seen=64, preset="smoke")
