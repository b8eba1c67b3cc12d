"""CycleGAN, CamStyle's set, SPGAN: published sizes, loss forms by hand, order of the steps, resumed history."""

import math
import signal

import pytest
import torch
import torch.nn.functional as F

from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.generators.blocks import linear_decay
from reidlib.generators.cyclegan import CAMSTYLE, SPGAN, CycleGAN, SiameseNet, camstyle_gan, contrastive_loss
from reidlib.generators.synthesis import stream, synthesise
from reidlib.networks import evaluating
from reidlib.training import fit


def count(net):
    return sum(p.numel() for p in net.parameters())


def pair_batch(n=3, size=(64, 32), seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, n, 3, *size)
    a, b = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return {"images": a, "target_images": b, "camids": torch.full((n,), 5), "target_camids": torch.full((n,), 6)}


def signed(pixels):
    return pixels.float() / 127.5 - 1


def test_parameter_counts_of_the_paper():
    nine, six = CycleGAN(preset="paper"), CycleGAN(preset="paper", image_size=(128, 128))
    assert [count(net) for net in (nine.G_A, nine.G_B, six.G_A)] == [11_378_179, 11_378_179, 7_837_699]
    assert count(nine.D_A) == count(nine.D_B) == 2_764_737
    names = {name: sum(p.numel() for p in entry[0]) for name, entry in nine.optimizers().items()}
    assert names == {"G": 2 * 11_378_179, "D": 2 * 2_764_737}
    for _, optimizer, _ in nine.optimizers().values():
        group = optimizer.param_groups[0]
        assert group["lr"] == 2e-4 and group["betas"] == (0.5, 0.999)


def moved_by(method, batch, names):
    """Run one training step; return what each update changed, in order."""
    optimizers = method.optimizers()
    owners = {"G": ("G_A", "G_B"), "D": ("D_A", "D_B"), "M": ("siamese",)}
    nets = [net for name in names for net in owners[name]]
    changes = []

    def update(name, loss):
        before = {net: [p.clone() for p in getattr(method, net).parameters()] for net in nets}
        parameters, optimizer, _ = optimizers[name]
        loss.backward(inputs=parameters)
        optimizer.step()
        optimizer.zero_grad()
        changed = {
            net
            for net in nets
            if any(not torch.equal(p, q) for p, q in zip(before[net], getattr(method, net).parameters(), strict=True))
        }
        changes.append((name, changed))

    terms = method.training_step(batch, 0, update)
    return changes, terms


def test_each_step_moves_its_own_networks_only():
    torch.manual_seed(0)
    changes, terms = moved_by(CycleGAN(preset="smoke"), pair_batch(), "GD")
    assert changes == [("G", {"G_A", "G_B"}), ("D", {"D_A", "D_B"})]
    assert set(terms) == {"G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B", "D_A", "D_B"}
    changes, terms = moved_by(SPGAN(preset="smoke"), pair_batch(), "GDM")
    assert changes == [("G", {"G_A", "G_B"}), ("D", {"D_A", "D_B"}), ("M", {"siamese"})]
    assert {"con_G", "con_M"} < set(terms)


def test_full_width_step_of_the_paper_preset():
    torch.manual_seed(0)
    method = CycleGAN(preset="paper", image_size=(24, 24))
    optimizers, taken = method.optimizers(), []

    def update(name, loss):
        loss.backward(inputs=optimizers[name][0])
        optimizers[name][1].step()
        taken.append(name)

    terms = method.training_step(pair_batch(1, (24, 24)), 0, update)
    assert taken == ["G", "D"] and all(torch.isfinite(value) for value in terms.values())


def test_losses_against_the_equations():
    """Written out image by image; both networks of each pair differ, so an exchange would show."""
    torch.manual_seed(1)
    method = CycleGAN(preset="smoke", pool_size=0, lambda_cycle=7.0, lambda_identity=0.3)
    batch, losses = pair_batch(), {}
    terms = method.training_step(batch, 0, lambda name, loss: losses.setdefault(name, loss))
    a, b = signed(batch["images"]), signed(batch["target_images"])
    mse = lambda x, t: ((x - t) ** 2).mean()  # noqa: E731
    l1 = lambda x, y: (x - y).abs().mean()  # noqa: E731
    with torch.no_grad():
        fake_b, fake_a = method.G_A(a), method.G_B(b)
        want = {
            "G_A": mse(method.D_A(fake_b), 1),
            "G_B": mse(method.D_B(fake_a), 1),
            "cycle_A": l1(method.G_B(fake_b), a),
            "cycle_B": l1(method.G_A(fake_a), b),
            "idt_A": l1(method.G_A(b), b),
            "idt_B": l1(method.G_B(a), a),
            "D_A": (mse(method.D_A(b), 1) + mse(method.D_A(fake_b), 0)) / 2,
            "D_B": (mse(method.D_B(a), 1) + mse(method.D_B(fake_a), 0)) / 2,
        }
    for name, value in want.items():
        torch.testing.assert_close(terms[name], value, msg=name)
    total = want["G_A"] + want["G_B"] + 7 * (want["cycle_A"] + want["cycle_B"]) + 2.1 * (want["idt_A"] + want["idt_B"])
    torch.testing.assert_close(losses["G"].detach(), total)
    torch.testing.assert_close(losses["D"].detach(), want["D_A"] + want["D_B"])


def test_identity_term_can_be_left_out():
    torch.manual_seed(0)
    terms = CycleGAN(preset="smoke", lambda_identity=0).training_step(pair_batch(), 0, lambda name, loss: None)
    assert set(terms) == {"G_A", "G_B", "cycle_A", "cycle_B", "D_A", "D_B"}


def toy_people(n=12):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (n, 3, 24, 24), generator=generator, dtype=torch.uint8)
    return PersonImages(images, torch.arange(n) // 3 + 1, torch.arange(n) % 3 + 1)


def test_resumed_training_meets_the_same_history(tmp_path):
    people = toy_people()
    pairs = torch.tensor([[0, 1], [3, 4], [6, 7], [9, 10]])
    batches = Batches(people, pair_batches(pairs, 2))

    def make():
        torch.manual_seed(0)
        return SPGAN(preset="smoke", image_size=(24, 24), width=4, pool_size=3, steps=4)

    options = dict(device="cpu", progress=False, precision="fp32")
    whole = make()
    fit(whole, batches, 4, **options)

    def interrupt(method, step):
        signal.raise_signal(signal.SIGINT)
        return {}

    with pytest.raises(KeyboardInterrupt):
        fit(make(), batches, 4, tmp_path, evaluate=interrupt, evaluate_every=2, **options)
    resumed = make()
    assert fit(resumed, batches, 4, tmp_path, **options).resumed_from == 2
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    assert whole.pool_A.filled == 3


def test_directions_and_conditions():
    torch.manual_seed(0)
    method = CycleGAN(preset="smoke", cameras=(5, 6))
    images = torch.rand(4, 3, 64, 32) * 2 - 1
    to_b, to_a = method.generate(images), method.generate(images, "b_to_a")
    torch.testing.assert_close(to_b, method.G_A(images).detach())
    torch.testing.assert_close(to_a, method.G_B(images).detach())
    assert torch.equal(to_b, method.generate(images, "a_to_b"))
    condition = method.condition(None, {"camids": torch.tensor([6, 5, 5, 6])})
    assert condition.tolist() == [False, True, True, False]
    mixed = method.generate(images, condition)
    torch.testing.assert_close(mixed, torch.where(condition[:, None, None, None], to_b, to_a))
    larger = torch.rand(2, 3, 128, 64) * 2 - 1  # is made at 64x32 and enlarged again
    small = F.interpolate(larger, (64, 32), mode="bicubic", antialias=True).clamp(-1, 1)
    want = F.interpolate(method.G_A(small).detach(), (128, 64), mode="bicubic", antialias=True).clamp(-1, 1)
    torch.testing.assert_close(method.generate(larger), want)
    assert CycleGAN(preset="smoke").condition(None, {"camids": torch.tensor([1])}) is None
    with pytest.raises(ValueError, match=r"between cameras \(5, 6\), got \[1\]"):
        method.condition(None, {"camids": torch.tensor([5, 1])})
    for wrong in ("sideways", torch.ones(4), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match="condition must be"):
            method.generate(images, wrong)


def test_schedule():
    assert [linear_decay(step, 200) for step in (0, 99, 150, 199)] == [1, 1, 0.5, 0.01]
    method = CycleGAN(preset="smoke", steps=50, constant=0.6)  # CamStyle: 30 + 20 epochs
    assert [method.schedule(step) for step in (29, 30, 40, 50, 60)] == [1, 1, 0.5, 0, 0]
    assert linear_decay(9, 10, constant=1.0) == 1


def test_siamese_stages_that_fit():
    for size, stages in (((256, 256), 4), ((256, 128), 3), ((128, 64), 3), ((64, 32), 2)):
        net = SiameseNet(size, width=4)
        assert sum(isinstance(layer, torch.nn.Conv2d) for layer in net.stages) == stages
        features = net(torch.rand(2, 3, *size))
        assert features.shape == (2, 64)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    full = SiameseNet((256, 256))
    convolutions = sum(16 * i * o + o for i, o in ((3, 64), (64, 128), (128, 256), (256, 512)))
    assert count(full) == convolutions + 512 * 128 + 128 + 128 * 64 + 64


def test_contrastive_loss_by_hand():
    """Acceptance check 11."""
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert math.isclose((x - y).norm().item(), 1.4142, abs_tol=5e-5)
    assert math.isclose(contrastive_loss(x, y, True).item(), 2.0, abs_tol=1e-6)
    assert math.isclose(contrastive_loss(x, y, False).item(), 0.3431, abs_tol=5e-5)
    assert contrastive_loss(x, -x, False) == 0 and contrastive_loss(x, -x, False, margin=3.0) == 1
    same = x.clone().requires_grad_()
    contrastive_loss(same, x, False).backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize("contrast", ["later", "released", "paper"])
def test_contrastive_forms(contrast):
    torch.manual_seed(0)
    method = SPGAN(preset="smoke", contrast=contrast).eval()  # no dropout, so that both sides see the same features
    pictures = torch.rand(4, 5, 3, 64, 32) * 2 - 1  # a, b, fake b, fake a
    a, b, fake_b, fake_a = (method.siamese(p) for p in pictures)
    d2 = lambda x, y: ((x - y) ** 2).sum(1)  # noqa: E731
    positive = (d2(a, fake_b) + d2(b, fake_a)).mean()
    negative = lambda x, y: ((2 - d2(x, y).sqrt()).clamp(min=0) ** 2).mean()  # noqa: E731
    made, real = negative(fake_b, b) + negative(fake_a, a), negative(a, b)
    want = {
        "later": ((positive + 0.5 * made) / 4, (positive + 2 * real) / 3),
        "released": ((positive + 2 * real) / 4,) * 2,
        "paper": ((positive + made) / 4,) * 2,
    }[contrast]
    for for_generators, value in zip((True, False), want, strict=True):
        torch.testing.assert_close(method.contrastive_terms(*pictures, for_generators=for_generators), value)


def test_spgan_generators_feel_the_contrastive_loss():
    losses = {}
    torch.manual_seed(0)
    method = SPGAN(preset="smoke", lambda_contrast=3.0)
    terms = method.training_step(pair_batch(), 0, lambda name, loss: losses.setdefault(name, loss))
    torch.testing.assert_close(losses["G"], method.generator_loss({k: terms[k] for k in NAMES}) + 3 * terms["con_G"])
    gradient = torch.autograd.grad(terms["con_G"], next(method.G_A.parameters()), retain_graph=True)[0]
    assert gradient.abs().sum() > 0
    assert torch.equal(losses["M"], terms["con_M"])


NAMES = ("G_A", "G_B", "cycle_A", "cycle_B", "idt_A", "idt_B")


def small_camstyle_gan(**options):
    torch.manual_seed(0)
    return camstyle_gan(**{"cameras": (1, 2), "preset": "smoke", "image_size": (24, 24)} | options)


def test_what_is_given_goes_before_camstyles_settings():
    gan = small_camstyle_gan()
    assert CAMSTYLE.items() <= gan.deviations.items() and gan.settings["dropout"] == 0.5
    plain = small_camstyle_gan(dropout=0.0)
    assert (plain.settings["dropout"], plain.settings["constant"], plain.cameras) == (0.0, 0.6, (1, 2))


def test_camstyles_dropout_is_on_when_generating_in_every_mode():
    """Published: the release's scripts neither switch it off in training nor call the evaluation mode."""
    images = torch.rand(2, 3, 24, 24) * 2 - 1
    gan = small_camstyle_gan()
    plain = CycleGAN(preset="smoke", image_size=(24, 24))
    for mode in (gan.train(), gan.eval()):
        for direction in ("a_to_b", "b_to_a"):
            torch.manual_seed(1)
            first = mode.generate(images, direction)
            assert not torch.equal(first, mode.generate(images, direction))
            torch.manual_seed(1)
            assert torch.equal(first, mode.generate(images, direction))
    with evaluating(gan):
        assert not torch.equal(gan.generate(images), gan.generate(images))
        assert not gan.D_A.training and gan.G_A.training
    assert gan.train().D_A.training
    assert torch.equal(plain.eval().generate(images), plain.train().generate(images))  # nothing else has a mode
    siamese = SPGAN(preset="smoke", image_size=(24, 24), dropout=0.5).eval()
    assert not siamese.siamese.training and not torch.equal(siamese.generate(images), siamese.generate(images))
    with pytest.raises(ValueError, match="dropout probability"):
        small_camstyle_gan(dropout=1.5)


def test_camstyles_dropout_takes_part_in_training():
    losses = []
    for seed in (1, 1, 2):
        gan = small_camstyle_gan()
        torch.manual_seed(seed)
        losses.append(gan.training_step(pair_batch(2, (24, 24)), 0, lambda *_: None)["cycle_A"].item())
    assert losses[0] == losses[1] != losses[2]


def test_generated_noise_follows_the_seed(tmp_path):
    people = toy_people().select(camids=[1, 2])
    gan = small_camstyle_gan()
    state = torch.random.get_rng_state()
    first = synthesise(gan, people, batch_size=3)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's chance is left alone
    torch.manual_seed(5)
    assert torch.equal(synthesise(gan, people, batch_size=3).images, first.images)
    assert not torch.equal(synthesise(gan, people, batch_size=3, seed=1).images, first.images)
    later = [images for _, images in stream(gan, people, batch_size=3, start=3)]  # what a resumed run makes
    assert torch.equal(torch.cat(later), first.images[3:])
    one = people.select(indices=[0] * 6)  # no two batches, and no two images, share their noise
    assert len(synthesise(gan, one, batch_size=3).images.unique(dim=0)) == 6
    synthesise(gan, people, folder=tmp_path, batch_size=3)
    assert torch.equal(synthesise(gan, people, folder=tmp_path, batch_size=3).images, first.images)
    with pytest.raises(ValueError, match="holds another set, of a different seed:"):
        synthesise(gan, people, folder=tmp_path, batch_size=3, seed=1)


def test_bad_input():
    for options, message in (
        (dict(preset="huge"), "preset must be one of 'smoke', 'course', 'paper'; got 'huge'"),
        (dict(image_size=(62, 32)), "multiples of 4"),
        (dict(image_size=(16, 16)), "at least 24 pixels each way, got 16x16"),
        (dict(cameras=(5, 5)), "two cameras"),
        (dict(pool_size=-1), "pool_size=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            CycleGAN(**options)
    with pytest.raises(ValueError, match="contrast must be one of 'later', 'released', 'paper'"):
        SPGAN(preset="smoke", contrast="tf")
    with pytest.raises(ValueError, match="at least 4 pixels"):
        SiameseNet((3, 8))
    method = CycleGAN(preset="smoke")
    batch = pair_batch()
    with pytest.raises(ValueError, match="batches of pairs"):
        method.training_step({"images": batch["images"]}, 0, lambda *_: None)
    with pytest.raises(ValueError, match=r"\(64, 32\).*\(128, 64\)"):
        method.training_step(pair_batch(1, (128, 64)), 0, lambda *_: None)
