"""How SAN is trained: the sheet's acceptance checks from 8 on (their numbers are in the names), and full steps.

Check 9 is in tests/losses/test_perceptual.py too, 10 and 11 in tests/evaluators/test_image_quality.py, 14 in
tests/embedders/test_siamese.py, 15 in tests/datasets/test_parsing.py.
"""

import pytest
import torch
from semantic_attention_toys import SIZE, Constant, one_batch, people, smoke, step_of, vgg
from torch import nn

from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.generators import semantic_attention as san
from reidlib.generators.semantic_attention import SAN, augmentation_pairs, san_pairs, usable_images
from reidlib.generators.synthesis import synthesise
from reidlib.machine import free_memory
from reidlib.networks import SmallResNet
from reidlib.training import fit


@pytest.mark.parametrize(("dataset", "total"), [("market1501", 10.5), ("deepfashion", 11.2)])
def test_8_the_weights_of_the_losses(dataset, total, monkeypatch):
    monkeypatch.setattr(san, "adversarial_loss", lambda *_: torch.tensor(0.7))
    monkeypatch.setattr(san.inputs, "foreground_l1", lambda *_: torch.tensor(0.2))
    monkeypatch.setattr(san, "perceptual_loss", lambda *_, **__: torch.tensor(0.1))
    paper = SAN(preset="paper", dataset=dataset, width=4, discriminator_width=4, guide=vgg()).settings
    weights = {name: paper[name] for name in ("alpha", "beta", "gamma")}
    method = SAN(preset="smoke", guide=SmallResNet(4), **weights)
    losses, calls = step_of(method, one_batch())
    assert losses["L_full"] == pytest.approx(total) and calls[0][1].item() == pytest.approx(total)
    assert paper["lr"] == 2e-4 and (paper["layer"], paper["p"], paper["relative"]) == ("relu1_2", 2, False)
    without, _ = step_of(smoke(**weights), one_batch())
    assert without["L_full"] == pytest.approx(total - 0.5) and "L_perc" not in without


def test_8_l1_is_the_mean_and_weighs_the_person_where_asked():
    batch = one_batch()
    target = batch["target_images"].float() / 127.5 - 1
    batch["target_masks"] = torch.zeros(2, *SIZE, dtype=torch.uint8)
    batch["target_masks"][:, :16] = 200  # binarised: a whole person
    inside = torch.zeros(2, 3, *SIZE)
    inside[:, :, :16] = 0.3
    for weight, wanted in ((1.0, 0.075), (4.0, 0.3 * 4 / 7)):
        method = smoke(foreground_weight=weight)
        method.G = Constant(lambda a, s: (target + inside).requires_grad_())
        assert step_of(method, batch)[0]["L_l1"] == pytest.approx(wanted, abs=1e-5)
    del batch["target_masks"]
    assert step_of(method, batch)[0]["L_l1"] > 0  # from the labels


def test_the_sources_background_is_wanted_where_it_is_asked_for():
    """Right in the target's person and in what the source shows around its own: no loss, whatever is in the hole."""
    batch = one_batch()
    batch["masks"], batch["target_masks"] = (torch.zeros(2, *SIZE, dtype=torch.uint8) for _ in range(2))
    batch["masks"][:, 32:] = 255  # one row above it is of the hole, too: blur carries the person over the edge
    batch["target_masks"][:, :16] = 255
    source, target = (batch[name].float() / 127.5 - 1 for name in ("images", "target_images"))
    drawn = torch.cat([target[:, :, :16], source[:, :, 16:31], torch.rand(2, 3, SIZE[0] - 31, SIZE[1])], dim=2)
    guide = nn.Module()  # the pixels themselves
    guide.stem, guide.stages = nn.Identity(), nn.ModuleList([nn.Identity()])
    seen = []
    for background in ("source", "target"):
        method = smoke(background=background, guide=guide, use_perceptual=True, layer="stem", foreground_weight=4.0)
        method.G = Constant(lambda a, s: drawn.clone().requires_grad_())
        method.D.register_forward_hook(lambda m, given, _: seen.append(given[0][:, :3]))
        losses, _ = step_of(method, batch)
        for name in ("L_l1", "L_perc"):
            assert losses[name] < 1e-5 if background == "source" else losses[name] > 0.1
    alone = source.clone()
    alone[:, :, :32] = 0
    for beside in seen[:3]:  # in G's step, beside the target, beside the drawn one
        torch.testing.assert_close(beside, alone)
    torch.testing.assert_close(seen[3], source)


def test_beside_a_drawing_the_targets_person_is_alone_too():
    """With Eq. 4 as printed D sees the target beside a drawing, and by its street it would know the true image."""
    batch, seen = one_batch(), []
    batch["masks"], batch["target_masks"] = (torch.zeros(2, *SIZE, dtype=torch.uint8) for _ in range(2))
    batch["masks"][:, 32:], batch["target_masks"][:, :16] = 255, 255
    method = smoke(background="source", fake_cond="target", use_perceptual=False)
    method.D.register_forward_hook(lambda m, given, _: seen.append(given[0][:, :3]))
    step_of(method, batch)
    source, target = (batch[name].float() / 127.5 - 1 for name in ("images", "target_images"))
    source[:, :, :32], target[:, :, 16:] = 0, 0
    for found, wanted in zip(seen, (target, source, target), strict=True):  # G's step, the true image, the drawn one
        torch.testing.assert_close(found, wanted)


def test_without_masks_no_mask_is_read():
    """The person's weight in L1, and the cut-out source, then come from the labels."""
    batch = one_batch()
    method = smoke(use_mask=False, foreground_weight=4.0, mask_image=True)
    method.D.requires_grad_(False).eval()
    labels = {n: 255 * (batch[n.replace("masks", "parsing")] != 0).byte() for n in ("masks", "target_masks")}
    with_masks, without = smoke(foreground_weight=4.0), []
    method.G.eval()
    for given in (batch, batch | {n: 255 - m for n, m in batch.items() if "masks" in n}, batch | labels):
        without.append(step_of(method, given)[0]["L_l1"])
    assert without[0] == without[1] == without[2]
    given = batch | {"target_masks": 255 - batch["target_masks"]}
    assert step_of(with_masks, batch)[0]["L_l1"] != step_of(with_masks, given)[0]["L_l1"]


@pytest.mark.parametrize(("p", "wanted"), [(2, 0.25), (1, 0.5)])
def test_9_the_perceptual_loss_of_half_a_unit(p, wanted):
    """The guide gives the normalised pixels themselves; 0.5 in them is 0.5 * std * 2 in [-1, 1]."""
    guide = nn.Module()
    guide.stem, guide.stages = nn.Identity(), nn.ModuleList([nn.Identity()])
    method, batch = smoke(guide=guide, use_perceptual=True, p=p, relative=False, layer="stem"), one_batch()
    shift = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    method.G = Constant(lambda a, s: (batch["target_images"].float() / 127.5 - 1 + shift).requires_grad_())
    assert step_of(method, batch)[0]["L_perc"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("shift", "values"), [(0, 1), (8, 2)])
def test_the_guide_sees_shifted_images(shift, values):
    method, batch = smoke(guide=SmallResNet(4), use_perceptual=True, guide_shift=shift), one_batch()
    method.G = Constant(lambda a, s: (batch["images"].float() / 127.5 - 1).requires_grad_())
    found = {step_of(method, batch)[0]["L_perc"] for _ in range(8)}
    assert min(len(found), 2) == values


def test_9_and_the_guide_is_frozen_and_no_part_of_the_state():
    guide = SmallResNet(4)
    method = smoke(guide=guide, use_perceptual=True)
    assert method.state_dict().keys() == smoke().state_dict().keys() and method.settings["features"] == "SmallResNet"
    kept = method._guide.on(torch.device("cpu"))
    assert not kept.training and not any(p.requires_grad for p in kept.parameters()) and guide.training
    with pytest.raises(ValueError, match="needs guide="):
        step_of(SAN(preset="smoke"), one_batch())
    with pytest.raises(ValueError, match="layer must be one of 'stem'"):
        step_of(smoke(guide=guide, use_perceptual=True, layer="relu1_2"), one_batch())
    with pytest.raises(TypeError, match="guide must be a network"):
        SAN(preset="smoke", guide=lambda images: images)
    paper = SAN(preset="paper", width=4, discriminator_width=4, n_blocks=1, guide=guide, image_size=SIZE)
    assert paper.settings["layer"] is paper.deviations["layer"] is None  # all stages: it has no relu1_2
    assert step_of(paper, one_batch())[0]["L_perc"] > 0
    assert SAN(preset="paper", width=4, n_blocks=1, guide=vgg()).settings["layer"] == "relu1_2"
    off = smoke(guide=guide)
    assert off.settings["gamma"] == 0 and off._guide is None


def test_12_pairs_of_three_two_and_one_image():
    data = people([5, 9, 5, 4, 5, 9])
    pairs = san_pairs(data)
    assert len(pairs) == 8 and (pairs[:, 0] != pairs[:, 1]).all() and 3 not in pairs
    assert (data.pids[pairs[:, 0]] == data.pids[pairs[:, 1]]).all()
    near = san_pairs(data.with_labels(camids=[1, 2, 1, 1, 2, 2]), "same_camera")  # 4 of the pairs are of one camera
    assert near.tolist() == [[0, 2], [1, 5], [2, 0], [5, 1]]
    with pytest.raises(ValueError, match="'all', 'same_camera'"):
        san_pairs(data, "other_camera")
    with pytest.raises(ValueError, match=r"no identity has two images to pair: 3 of 3 images can be used .* 3 ident"):
        san_pairs(people([1, 2, 3]))


def test_12_what_shows_nobody_is_not_paired():
    data = people([1] * 70)
    masks, parsing = data.masks.clone(), data.parsing.clone()
    masks[2] = 127  # empty at one half
    parsing[66] = torch.where(parsing[66] > 9, 5, 0)  # one class
    parsing[67] = torch.where(parsing[67] > 9, 5, 9)  # two, and no background
    data = people([1] * 70, masks=masks, parsing=parsing.to(torch.uint8))
    assert (~usable_images(data)).nonzero().flatten().tolist() == [2, 66]
    assert usable_images(people([1] * 70, masks=None, parsing=parsing))[2]
    assert len(san_pairs(data)) == 68 * 67


def test_13_alpha_multiplies_the_set():
    data = people([3, 3, 7, 7, 8])
    pairs = augmentation_pairs(data, 3, seed=4)
    made = synthesise(smoke(), data, pairs, targets=data)
    assert len(made) == 10 and made.pids.tolist() == data.pids.repeat_interleave(2).tolist()
    assert torch.equal(pairs, augmentation_pairs(data, 3, seed=4))
    assert not torch.equal(pairs, augmentation_pairs(data, 3, seed=5))
    assert (pairs[:, 0] != pairs[:, 1]).all() and len(pairs.unique(dim=0)) == 10  # never itself, none twice
    assert augmentation_pairs(data, 1).shape == (0, 2)
    assert augmentation_pairs(data, 5)[:4, 1].sort().values.tolist() == [1, 2, 3, 4]  # anybody's pose
    for alpha in (0, 1.5, -2):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            augmentation_pairs(data, alpha)
    with pytest.raises(ValueError, match="needs 5 targets for each image, there are 4"):
        augmentation_pairs(data, 6)


def test_the_rate_is_constant_then_falls():
    for dataset, constant in (("market1501", 300 / 400), ("deepfashion", 500 / 700)):
        with torch.device("meta"):
            method = SAN(preset="paper", dataset=dataset)
        steps = method.settings["steps"]
        assert steps * san.BATCH[dataset] == {"market1501": 400, "deepfashion": 700}[dataset] * 4000
        turn = round(constant * steps)
        assert [method.schedule(step) for step in (0, turn)] == pytest.approx([1, 1])
        assert method.schedule((turn + steps) // 2) == pytest.approx(0.5) and method.schedule(steps) == 0
    method = smoke(steps=100, decay="from_start")
    assert [method.schedule(step) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert smoke(steps=100, epochs=100, n_decay=0).schedule(99) == 1


@pytest.mark.parametrize(("dataset", "epochs"), [("market1501", 300), ("deepfashion", 500)])
def test_the_papers_length_follows_its_epochs(dataset, epochs):
    """The sheet: from the start, the rate reaches 0 at epoch 300 (500); epochs are of 4,000 pairs."""
    epoch = 4000 // san.BATCH[dataset]

    def paper(**options) -> SAN:
        with torch.device("meta"):
            return SAN(preset="paper", dataset=dataset, **options)

    method = paper(decay="from_start")
    last = epochs * epoch
    assert last == {"market1501": 37_500, "deepfashion": 250_000}[dataset]
    assert [method.schedule(step) for step in (0, last // 2, last)] == pytest.approx([1, 0.5, 0])
    assert (method.settings["steps"], method.settings["n_decay"]) == (last, 0)
    assert method.deviations == {"features": None, "decay": "from_start", "n_decay": 0, "steps": last}
    assert paper(n_decay=0).settings["steps"] == last and paper(n_decay=0).schedule(last - 1) == 1
    assert paper(epochs=10, n_decay=5).settings["steps"] == 15 * epoch
    assert paper(epochs=10, steps=7).settings["steps"] == 7
    with pytest.raises(ValueError, match="n_decay cannot be given"):
        paper(decay="from_start", n_decay=50)
    for name, (_, adam, _) in smoke().optimizers().items():
        assert name in "GD" and adam.defaults["betas"] == (0.5, 0.999)


def test_gradients_reach_the_named_network_only_and_all_of_it():
    method = smoke(guide=SmallResNet(4), use_perceptual=True, transfer="appearance")
    grads = {}

    def update(name: str, loss: torch.Tensor) -> None:
        parameters = dict(method.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
        grads[name] = {n for n, g in zip(parameters, found, strict=True) if g is not None and g.abs().sum() > 0}

    method.training_step(one_batch(), 0, update)
    names = {n for n, _ in method.named_parameters()}
    assert grads["D"] == {n for n in names if n.startswith("D.")}
    assert {n for n in names if n.startswith("G.")} <= grads["G"]


def test_the_first_weights():
    method = SAN(preset="smoke", width=16, discriminator_width=16)
    weights = torch.cat([m.weight.flatten() for m in method.modules() if isinstance(m, nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02) and abs(weights.mean().item()) < 1e-3
    scales = torch.cat([m.weight for m in method.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.01) and scales.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(isinstance(m, nn.Dropout) for m in method.G.modules())
    assert {m.p for m in method.D.modules() if isinstance(m, nn.Dropout)} == {0.5}


@pytest.mark.xdist_group("a full step")  # 4 to 5 GiB each: one after the other
@pytest.mark.parametrize(
    ("dataset", "size", "n", "gib"), [("market1501", (128, 64), 32, 4), ("deepfashion", (256, 256), 8, 8)]
)
def test_a_full_step_at_the_papers_sizes(dataset, size, n, gib):
    """The paper's networks, image sizes, losses and batch; in two pieces where there is too little memory for it."""
    torch.manual_seed(0)
    pieces = 1 if free_memory(torch.device("cpu")) > (gib + 4) * 2**30 else 2
    method = SAN(preset="paper", dataset=dataset, guide=vgg())
    assert sum(p.numel() for p in method.G.parameters()) == 56_416_643 and method.D.layers[1].out_channels == 64
    assert set(method.deviations) == {"features"}  # the guide's weights are random
    before = {k: v.clone() for k, v in method.state_dict().items()}
    data = people([1] * (n + 1), size=size)
    batches = Batches(data, pair_batches(torch.tensor([[i, i + 1] for i in range(n)]), n))
    options = dict(device="cpu", precision="fp32", log_every=1, progress=False)
    history = fit(method, batches, 1, accumulation=pieces, **options)
    assert history.images == n
    row, weights = history.losses.iloc[-1], method.settings
    wanted = sum(weights[weight] * row[term] for term, weight in san.WEIGHTS.items())
    assert row["L_full"] == pytest.approx(wanted, rel=1e-5) and row["L_perc"] > 0
    after = method.state_dict()
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))
    moved = max((before[k] - after[k]).abs().max().item() for k in before if k.endswith("weight"))
    assert moved == pytest.approx(2e-4, rel=1e-2)  # Adam's first step
