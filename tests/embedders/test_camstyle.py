"""CamStyle's re-ID side: the published targets, the mixture of a batch, the head of the paper."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Batches
from reidlib.embedders.camstyle import CamStyleBaseline, mixed_batches, mixed_loss, random_rectangle
from reidlib.training import fit


def test_smoothed_targets_as_published():
    """Acceptance check 11: the targets are read off the gradient, softmax minus target."""
    k = 751
    logits = torch.zeros(2, k, requires_grad=True)
    real, fake = mixed_loss(logits, torch.tensor([3, 5]), torch.tensor([False, True]))
    assert math.isclose(real.item(), 6.6214, abs_tol=5e-5) and math.isclose(fake.item(), math.log(k), rel_tol=1e-6)
    target = 1 / k - torch.autograd.grad(fake, logits, retain_graph=True)[0][1]
    assert math.isclose(target[5].item(), 0.900133, abs_tol=1e-6)
    assert math.isclose(target[4].item(), 0.000133, abs_tol=1e-6)
    hard = 1 / k - torch.autograd.grad(real, logits)[0][0]
    assert math.isclose(hard[3].item(), 1.0, abs_tol=1e-6) and abs(hard[4].item()) < 1e-6


def test_each_group_has_its_own_mean():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    labels, fake = torch.tensor([0, 2, 2, 0]), torch.tensor([False, False, False, True])
    log_p = logits.log_softmax(1)
    real_term, fake_term = mixed_loss(logits, labels, fake, epsilon=0.3)
    torch.testing.assert_close(real_term, -(log_p[0, 0] + log_p[1, 2] + log_p[2, 2]) / 3)
    torch.testing.assert_close(fake_term, -(0.8 * log_p[3, 0] + 0.1 * log_p[3, 1] + 0.1 * log_p[3, 2]))
    assert mixed_loss(logits, labels, torch.zeros(4, dtype=torch.bool))[1] == 0
    assert mixed_loss(logits, labels, torch.ones(4, dtype=torch.bool))[0] == 0
    with pytest.raises(ValueError, match="label -1"):
        mixed_loss(logits, torch.tensor([0, 2, 2, -1]), fake)


def test_batches_hold_the_mixture():
    is_generated = torch.arange(400) % 4 != 0  # 100 real, 300 generated
    sampler = mixed_batches(is_generated, 12, 4)
    batches = sampler.draw(torch.Generator().manual_seed(0))
    assert len(batches) == sampler.steps == 100 // 12
    reals = torch.cat([rows[~is_generated[rows]] for rows in batches])
    fakes = torch.cat([rows[is_generated[rows]] for rows in batches])
    assert len(reals.unique()) == len(reals) == 96 and len(fakes.unique()) == len(fakes) == 32
    for rows in batches:
        assert is_generated[rows].sum() == 4 and len(rows) == 16
        assert [int(is_generated[part].sum()) for part in rows.tensor_split(4)] == [1, 1, 1, 1]
    # fewer fakes than an epoch needs: each is taken equally often, give or take one
    few = mixed_batches(torch.arange(105) >= 100, 10, 3).draw(torch.Generator().manual_seed(0))
    counts = torch.cat(few)[torch.cat(few) >= 100].bincount()[100:]
    assert counts.tolist() == [6] * 5
    sampler = mixed_batches(torch.arange(128 * 3 + 200) >= 128 * 3)
    assert sampler.steps == 3 and len(sampler.draw(torch.Generator())[0]) == 128 + 46
    for real, fake, message in ((9, 1, "drawn from 8 and 3"), (4, 0, "4 real and 0 generated")):
        with pytest.raises(ValueError, match=message):
            mixed_batches(torch.arange(11) >= 8, real, fake)
    with pytest.raises(ValueError, match="and 0"):
        mixed_batches(torch.zeros(8, dtype=torch.bool), 4, 2)


def colours(n_ids=4, each=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(40, 216, (n_ids, 3, 1, 1), generator=torch.Generator().manual_seed(5))
    pids = torch.arange(n_ids).repeat_interleave(each) + 1
    noise = torch.randint(-20, 21, (n_ids * each, 3, 64, 32), generator=generator)
    fake = torch.arange(n_ids * each) % 3 == 0
    return PersonImages((base[pids - 1] + noise).to(torch.uint8), pids, pids * 0 + 1, is_generated=fake)


def test_learns_a_tiny_set():
    people = colours()
    torch.manual_seed(0)
    method = CamStyleBaseline(4, preset="smoke", steps=40)
    batches = Batches(people, mixed_batches(people.is_generated, 8, 4))
    history = fit(method, batches, 40, device="cpu", progress=False, log_every=1)
    last = history.losses.iloc[-1]
    assert last["accuracy"] == 1.0
    assert last["loss"] == pytest.approx(last["identity"] + last["identity of fakes"], abs=1e-5)
    # smoothed targets cannot be met: -sum q log q at epsilon = 0.1, K = 4
    floor = -(0.925 * math.log(0.925) + 3 * 0.025 * math.log(0.025))
    assert last["identity"] < 0.3 and last["identity of fakes"] >= floor - 1e-3


def test_vanilla_does_not_smooth():
    people = colours()
    batch = people.batch(range(24)) | {"labels": people.pids - 1}
    torch.manual_seed(0)
    method = CamStyleBaseline(4, preset="smoke", fakes="vanilla").eval()
    with torch.no_grad():
        terms = method.training_step(batch, 0, lambda name, loss: None)
        logits = method.embedder((batch["images"].float() / 255 - MEAN) / STD)[2]
    fake = people.is_generated
    torch.testing.assert_close(terms["identity of fakes"], F.cross_entropy(logits[fake], batch["labels"][fake]))
    torch.testing.assert_close(terms["identity"], F.cross_entropy(logits[~fake], batch["labels"][~fake]))
    with pytest.raises(ValueError, match="fakes must be one of lsr, vanilla"):
        CamStyleBaseline(4, preset="smoke", fakes="soft")


MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def test_head_and_rates_of_the_paper():
    method = CamStyleBaseline(751, preset="paper", weights=None, steps=50)
    kinds = [type(layer) for layer in method.embedder.classifier]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    first, last = method.embedder.classifier[0], method.embedder.classifier[-1]
    assert first.weight.shape == (1024, 2048) and last.weight.shape == (751, 1024)
    assert method.embedder.classifier[3].p == 0.5 and last.weight.std().item() == pytest.approx(0.001, rel=0.02)
    parameters, sgd, schedule = method.optimizers()["E"]
    backbone, new = sgd.param_groups
    assert (backbone["lr"], new["lr"]) == (0.01, 0.1) and backbone["nesterov"] and new["momentum"] == 0.9
    assert backbone["weight_decay"] == new["weight_decay"] == 5e-4
    assert {id(p) for p in new["params"]} == {id(p) for p in method.embedder.classifier.parameters()}
    assert len(parameters) == sum(1 for _ in method.embedder.parameters())
    assert [schedule(epoch) for epoch in (0, 39, 40, 49)] == [1, 1, pytest.approx(0.1), pytest.approx(0.1)]
    feature = method.embed(torch.zeros(2, 3, 64, 32, dtype=torch.uint8))
    assert feature.shape == (2, 2048)
    torch.testing.assert_close(feature.norm(dim=1), torch.ones(2))


def test_random_rectangle_shows_a_window_of_the_image():
    """On a picture whose colours are its coordinates, each output is a window of the size that was asked for."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(32.0), indexing="ij")
    picture = torch.stack([y * 4, x * 8, y * 0]).round().to(torch.uint8)
    batch = {"images": picture.expand(200, -1, -1, -1), "masks": torch.zeros(200, 64, 32), "pids": torch.arange(200)}
    out = random_rectangle(batch, torch.Generator().manual_seed(0))
    assert set(out) == {"images", "pids"} and out["images"].shape == (200, 3, 64, 32)
    shown = out["images"].float()
    height = (shown[:, 0, -2].mean(1) - shown[:, 0, 1].mean(1)) / 4 * 64 / 61
    width = (shown[:, 1, :, -2].mean(1) - shown[:, 1, :, 1].mean(1)) / 8 * 32 / 29
    area = height * width / (64 * 32)
    assert 0.6 < area.min() < 0.7 and area.max() > 0.9
    # 2 to 3 for windows; the whole image (aspect 2) where no draw fitted
    assert (height / width).min() > 1.9 and 2.5 < (height / width).max() < 3.1
    again = random_rectangle(batch, torch.Generator().manual_seed(0))["images"]
    assert torch.equal(out["images"], again)
    whole = random_rectangle(batch, torch.Generator(), area=(1.0, 1.0), aspect=(2.0, 2.0))["images"]
    assert torch.equal(whole, batch["images"])
