"""The unconditional generator: shapes at several sizes, who is updated by what, and samples that repeat."""

import pytest
import torch

from reidlib.datasets import PersonImages
from reidlib.datasets.sampling import Batches, uniform_batches
from reidlib.generators.dcgan import DCGAN
from reidlib.training import fit


def blots(n: int = 32) -> PersonImages:
    """Images with one bright half, upper or lower."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 40, (n, 3, 16, 8), generator=g, dtype=torch.uint8)
    images[::2, :, :8] += 200
    images[1::2, :, 8:] += 200
    return PersonImages(images, [1] * n, [1] * n)


@pytest.mark.parametrize("size", [(8, 4), (64, 32), (128, 64)])
def test_any_size_of_two_to_one(size):
    method = DCGAN(preset="smoke", image_size=size)
    images = method.generate(None, torch.randn(3, 100))
    assert images.shape == (3, 3, *size) and images.abs().max() <= 1 and method.training
    assert method.D(images).shape == (3, 1, 1, 1)


def test_channels_by_hand():
    """Width 16 at 64x32: 100 -> 128 (4x2) -> 64 -> 32 -> 16 (32x16) -> 3; the discriminator the other way."""
    method = DCGAN(preset="course")
    ups = [tuple(m.weight.shape[:2]) for m in method.G if hasattr(m, "stride")]
    downs = [tuple(m.weight.shape[:2]) for m in method.D if hasattr(m, "stride")]
    assert ups == [(100, 128), (128, 64), (64, 32), (32, 16), (16, 3)]
    assert downs == [(16, 3), (32, 16), (64, 32), (128, 64), (1, 128)]


def test_each_update_names_its_own_loss():
    method, calls = DCGAN(preset="smoke", image_size=(16, 8)), []
    batch = blots().batch(range(4))
    losses = method.training_step(batch, 0, lambda name, loss: calls.append((name, loss.item())))
    assert calls == [("D", losses["D"].item()), ("G", losses["G"].item())]
    method.D = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 8, 1))
    torch.nn.init.zeros_(method.D[1].weight)
    torch.nn.init.zeros_(method.D[1].bias)  # probability a half: 2 log 2 and log 2
    losses = method.training_step(batch, 0, lambda name, loss: None)
    assert losses["D"].item() == pytest.approx(1.386294, abs=1e-5)
    assert losses["G"].item() == pytest.approx(0.693147, abs=1e-5)


def test_the_discriminators_loss_does_not_reach_the_generator():
    method = DCGAN(preset="smoke", image_size=(16, 8))

    def update(name, loss):
        method.zero_grad()
        loss.backward(retain_graph=True)
        reached = {part for part in ("D", "G") if getattr(method, part)[0].weight.grad is not None}
        assert reached == ({"D"} if name == "D" else {"D", "G"})

    method.training_step(blots().batch(range(4)), 0, update)


def test_it_learns_the_two_kinds_of_image():
    torch.manual_seed(0)
    method = DCGAN(image_size=(16, 8), width=8, lr=1e-3)
    fit(method, Batches(blots(), uniform_batches(32, 16)), 200, device="cpu", precision="fp32", progress=False)
    images = method.sample(64, seed=1).float()
    difference = images[:, :, :7].mean((1, 2, 3)) - images[:, :, 9:].mean((1, 2, 3))  # 200 in the images, 0 at first
    assert difference.abs().median() > 40
    assert 0.1 < (difference > 0).float().mean() < 0.9  # both kinds are made


def test_samples_repeat_and_are_unlabelled():
    method = DCGAN(preset="smoke")
    first = method.sample(5, seed=3, batch_size=2)
    assert first.dtype == torch.uint8 and torch.equal(first, method.sample(5, seed=3))
    assert not torch.equal(first, method.sample(5, seed=4))
    fakes = method.unlabelled(5, seed=3, camid=6)
    assert torch.equal(fakes.images, first) and fakes.pids.tolist() == [-2] * 5 and fakes.camids.tolist() == [6] * 5
    assert fakes.is_generated.all() and len(set(fakes.names)) == 5


def test_bad_input_is_refused():
    for options, words in (
        (dict(preset="big"), "'smoke'"),
        (dict(image_size=(64, 64)), "4x2"),
        (dict(image_size=(48, 24)), "4x2"),
    ):
        with pytest.raises(ValueError, match=words):
            DCGAN(**options)
    method = DCGAN(preset="smoke")
    with pytest.raises(ValueError, match=r"\[2, 64\]"):
        method.generate(None, torch.zeros(2, 64))
    with pytest.raises(ValueError, match="at least 1"):
        method.sample(0)
