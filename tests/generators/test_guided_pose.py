"""Pose transfer with a frozen guider: what is updated, what the guide sees, what is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.poses import skeleton_images
from reidlib.datasets.sampling import Batches, pair_batches, same_identity_pairs
from reidlib.embedders import Baseline
from reidlib.generators.guided_pose import GuidedPose
from reidlib.generators.synthesis import synthesise
from reidlib.networks import normalise
from reidlib.training import fit


def people(n=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 32, 24), generator=generator, dtype=torch.uint8)
    points = torch.rand(n, 18, 3, generator=generator) * 23
    points[..., 2] = 1
    return PersonImages(images, torch.arange(n) // 2 + 1, torch.arange(n) % 2 + 1, keypoints=points)


def pair_batch():
    images = people()
    return Batches(images, pair_batches(same_identity_pairs(images.pids), 4))(0)


def test_terms_by_hand():
    torch.manual_seed(0)
    guide = Baseline(3, preset="smoke").embedder
    method = GuidedPose(guide, preset="smoke", lambda_l1=50.0, lambda_identity=2.0)
    batch, losses = pair_batch(), {}
    terms = method.training_step(batch, 0, lambda name, loss: losses.setdefault(name, loss))
    guide.eval()
    with torch.no_grad():
        x, y = normalise(batch["images"], "signed"), normalise(batch["target_images"], "signed")
        skeleton = normalise(skeleton_images(batch["target_keypoints"], (32, 24)), "signed")
        fake = method.G(torch.cat([x, skeleton], 1))
        real_scores = method.D(torch.cat([x, skeleton, y], 1))
        fake_scores = method.D(torch.cat([x, skeleton, fake], 1))
        pixels = normalise(((fake + 1) * 127.5).round().to(torch.uint8))  # as a guide sees a stored image
        identity = F.cross_entropy(guide(pixels)[-1], batch["labels"])
    torch.testing.assert_close(terms["D"], (F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()) / 2)
    torch.testing.assert_close(terms["GAN"], F.softplus(-fake_scores).mean())
    torch.testing.assert_close(terms["L1"], (fake - y).abs().mean())
    torch.testing.assert_close(terms["identity"], identity, rtol=0, atol=2e-3)
    torch.testing.assert_close(losses["G"], terms["GAN"] + 50 * terms["L1"] + 2 * terms["identity"])


def test_guide_stays_as_it_was():
    torch.manual_seed(0)
    guide = Baseline(3, preset="smoke").embedder.train()
    before = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    method = GuidedPose(guide, preset="smoke")
    start = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    images = people()
    batches = Batches(images, pair_batches(same_identity_pairs(images.pids), 4))
    fit(method, batches, 2, device="cpu", progress=False, precision="fp32")
    kept = method._guide.on(torch.device("cpu")).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())
    assert guide.training and next(guide.parameters()).requires_grad  # the caller's own network is left alone
    assert set(method.state_dict()) == set(GuidedPose(preset="smoke").state_dict())
    assert all(not torch.equal(method.state_dict()[n], t) for n, t in start.items() if n.endswith("weight"))


def test_each_step_moves_its_own_network_only():
    torch.manual_seed(0)
    method = GuidedPose(preset="smoke")
    optimizers, changes = method.optimizers(), []

    def update(name, loss):
        before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
        loss.backward(inputs=optimizers[name][0])
        optimizers[name][1].step()
        changes.append((name, {key[0] for key, t in method.state_dict().items() if not torch.equal(t, before[key])}))

    terms = method.training_step(pair_batch(), 0, update)
    assert changes == [("D", {"D"}), ("G", {"G"})]
    assert set(terms) == {"D", "GAN", "L1"}  # no guide, no identity loss


def test_guide_without_a_tuple_and_its_gradient():
    torch.manual_seed(0)
    guide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 24, 3))
    method = GuidedPose(guide, preset="smoke")
    batch = pair_batch()
    pictures = torch.zeros(batch["images"].shape, requires_grad=True)  # grey ones
    method.G.register_forward_hook(lambda *_: pictures)
    terms = method.training_step(batch, 0, lambda *_: None)
    grey = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    logits = guide(grey[:, None, None].expand_as(pictures))
    torch.testing.assert_close(terms["identity"], F.cross_entropy(logits, batch["labels"]))
    terms["identity"].backward()
    assert pictures.grad.abs().sum() > 0


def test_generates_sets_in_the_targets_poses():
    torch.manual_seed(0)
    method, images = GuidedPose(preset="smoke"), people()
    pairs = torch.tensor([[0, 5], [0, 4], [3, 1]])
    fakes = synthesise(method, images, pairs, targets=images)
    assert fakes.pids.tolist() == [1, 1, 2]
    skeleton = normalise(skeleton_images(images.keypoints[[5]], (32, 24)), "signed")
    with torch.no_grad():
        want = method.G(torch.cat([normalise(images.images[[0]], "signed"), skeleton], 1))
    assert (normalise(fakes.images[[0]], "signed") - want).abs().max() < 0.005
    assert not torch.equal(fakes.images[0], fakes.images[1])


def test_bad_input():
    method, batch = GuidedPose(Baseline(2, preset="smoke").embedder, preset="smoke"), pair_batch()
    ignore = lambda name, loss: None  # noqa: E731
    without = {name: tensor for name, tensor in batch.items() if "keypoints" not in name}
    with pytest.raises(ValueError, match="the batch lacks target_keypoints"):
        method.training_step(without, 0, ignore)
    for targets, got in ((None, "nothing"), ({"images": batch["images"]}, "images")):
        with pytest.raises(ValueError, match=f"pose transfer needs targets with keypoints, got {got}"):
            method.condition(targets)
    with pytest.raises(ValueError, match="batches of pairs"):
        method.training_step({"images": batch["images"]}, 0, ignore)
    with pytest.raises(ValueError, match="label 2 with 2 classes"):
        method.training_step(batch | {"labels": torch.full_like(batch["labels"], 2)}, 0, ignore)
    with pytest.raises(ValueError, match="the batch lacks labels"):
        method.training_step({name: tensor for name, tensor in batch.items() if name != "labels"}, 0, ignore)
    with pytest.raises(ValueError, match="condition must be one pose picture for each image"):
        method.generate(torch.zeros(1, 3, 32, 24), None)
    with pytest.raises(TypeError, match="guide must be a network"):
        GuidedPose(lambda images: images)
    with pytest.raises(ValueError, match="lambda_l1=-1"):
        GuidedPose(lambda_l1=-1)
