"""PN-GAN against the published parameter counts, hand-worked losses, and the behaviour its networks must show."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from reidlib.datasets import PersonImages, poses
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.generators.pn_gan import PNGAN, PRESETS, in_canonical_poses, lr_factor, pn_gan_pairs, some_pairs
from reidlib.losses import perceptual_loss
from reidlib.networks import SmallResNet
from reidlib.training import fit

# section 3 of the released networks: parameters of the convolutions in order
GENERATOR = [18_880, 73_856, 295_168, *[590_080] * 18, 295_040, 73_792, 9_408]
DISCRIMINATOR = [3_072, 131_200, 524_544, 2_097_664, 8_192]


def keypoints_of(n: int, seed: int = 0, size=(64, 32)) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.cat([torch.rand(n, 18, 2, generator=g) * torch.tensor([size[1], size[0]]), torch.ones(n, 18, 1)], -1)


def people(pids: list[int], seed: int = 0, size=(64, 32)) -> PersonImages:
    g = torch.Generator().manual_seed(seed)
    n = len(pids)
    images = torch.randint(0, 256, (n, 3, *size), generator=g, dtype=torch.uint8)
    masks = torch.randint(0, 256, (n, *size), generator=g, dtype=torch.uint8)
    return PersonImages(images, pids, [1] * n, keypoints=keypoints_of(n, seed, size), masks=masks)


def one_batch(n: int = 2, size=(64, 32)) -> dict:
    return Batches(people([1] * (n + 1), size=size), pair_batches(torch.tensor([[i, i + 1] for i in range(n)]), n))(0)


def step_of(method: PNGAN, batch: dict) -> tuple[dict, list[tuple[str, float]]]:
    """Take a training step that only records what `update` was given."""
    calls = []
    losses = method.training_step(batch, 0, lambda name, loss: calls.append((name, loss.item())))
    return {name: value.item() for name, value in losses.items()}, calls


@pytest.fixture(scope="module")
def paper() -> PNGAN:
    torch.manual_seed(0)
    return PNGAN(preset="paper")


@pytest.fixture
def smoke() -> PNGAN:
    torch.manual_seed(0)
    return PNGAN(preset="smoke")


def test_1_parameter_counts(paper):
    def counts(network: nn.Module) -> list[int]:
        layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        return [sum(p.numel() for p in layer.parameters()) for layer in layers]

    assert counts(paper.G) == GENERATOR and counts(paper.D) == DISCRIMINATOR
    assert sum(p.numel() for p in paper.G.parameters()) == sum(GENERATOR) == 11_387_584
    assert sum(p.numel() for p in paper.D.parameters()) == sum(DISCRIMINATOR) == 2_764_672
    assert paper.deviations == {} and paper.settings["padding"] == 0


def test_the_default_initial_weights_are_kept(paper):
    weight = paper.G.layers[1].weight  # torch's default for 7x7 of 6 channels: uniform in +-1/sqrt(294)
    assert weight.abs().max() <= 294**-0.5 and weight.std().item() == pytest.approx(294**-0.5 / 3**0.5, rel=0.02)


def test_2_and_9_a_full_step_of_the_paper_preset(paper):
    shapes = {}
    hooks = [
        paper.G.register_forward_hook(lambda m, i, o: shapes.update(G=(o.shape, o.abs().max().item()))),
        paper.D.register_forward_hook(lambda m, i, o: shapes.update(D=(o.shape, 0))),
    ]
    before = {k: v.clone() for k, v in paper.state_dict().items()}
    data = people([1, 1, 1], size=(256, 128))
    history = fit(paper, Batches(data, pair_batches(torch.tensor([[0, 1], [1, 2]]), 2)), 1, device="cpu",
                  precision="fp32", log_every=1, progress=False)  # fmt: skip
    for hook in hooks:
        hook.remove()
    assert shapes["G"][0] == (2, 3, 256, 128) and shapes["G"][1] <= 1 and shapes["D"][0] == (2, 1, 26, 10)
    after, row = paper.state_dict(), history.losses.iloc[-1]
    assert row["G"] == pytest.approx(row["G adversarial"] + 10 * row["L1"], rel=1e-5)
    weights = [k for k in before if k.endswith("weight")]
    assert len(weights) == len(GENERATOR) + len(DISCRIMINATOR)
    assert all(not torch.equal(before[k], after[k]) for k in weights)
    with torch.no_grad():  # Adam's first step moves each weight by the rate at most
        assert max((before[k] - after[k]).abs().max().item() for k in weights) == pytest.approx(2e-4, rel=1e-2)


def test_3_common_scale_and_shift_leave_the_generator_unchanged(smoke):
    g = torch.Generator().manual_seed(1)
    image, pose = torch.rand(2, 2, 3, 64, 32, generator=g) * 2 - 1
    out = smoke.generate(image, pose)
    assert torch.allclose(smoke.generate(1.7 * image + 0.3, 1.7 * pose + 0.3), out, atol=2e-4)
    assert (smoke.generate(1.7 * image, pose) - out).abs().max() > 0.01


def test_4_a_sample_alone_equals_the_same_in_a_batch(smoke):
    g = torch.Generator().manual_seed(1)
    image, pose = torch.rand(2, 3, 3, 64, 32, generator=g) * 2 - 1
    together = smoke.generate(image, pose)
    assert torch.allclose(
        torch.cat([smoke.generate(i[None], p[None]) for i, p in zip(image, pose, strict=True)]), together, atol=2e-5
    )  # fmt: skip  (a batch of one takes another convolution kernel)


class Constant(nn.Module):
    def __init__(self, value) -> None:
        super().__init__()
        self.value = value

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.value(images) if callable(self.value) else images.new_full((len(images), 1, 4, 2), self.value)


@pytest.mark.parametrize(
    ("score", "kind", "d", "adversarial", "right"),
    [
        (0.5, "least_squares", 0.5, 0.25, [0, 0]),
        (0.0, "least_squares", 1.0, 1.0, [0, 1]),
        (0.0, "vanilla", 1.386294, 0.693147, [0, 0]),
        (2.0, "vanilla", 2.253856, 0.126928, [1, 0]),
    ],
)
def test_5_losses_of_a_constant_discriminator(score, kind, d, adversarial, right):
    method = PNGAN(preset="smoke", gan_loss=kind)
    method.D = Constant(score)
    losses, _ = step_of(method, one_batch())
    assert losses["D"] == pytest.approx(d, abs=1e-6) and losses["G adversarial"] == pytest.approx(adversarial, abs=1e-6)
    assert [losses[f"D right, {name}"] for name in ("real", "generated")] == right


def test_5_weighted_l1_of_a_tenth_everywhere_is_one():
    method, batch = PNGAN(preset="smoke", foreground_weight=1, lambda_1=10), one_batch()
    target = batch["target_images"].float() / 127.5 - 1
    method.G, method.D = Constant(lambda x: target + 0.1), Constant(0.0)
    losses, calls = step_of(method, batch)
    assert 10 * losses["L1"] == pytest.approx(1.0, abs=1e-5) and losses["G"] == pytest.approx(2.0, abs=1e-5)
    assert [name for name, _ in calls] == ["G", "D"] and calls[0][1] == losses["G"] and calls[1][1] == losses["D"]


def test_foreground_weight_by_hand():
    method, batch = PNGAN(preset="smoke", foreground_weight=4), one_batch()
    target = batch["target_images"].float() / 127.5 - 1
    batch["target_masks"] = torch.zeros(2, 64, 32, dtype=torch.uint8)
    batch["target_masks"][:, :16] = 255
    inside = torch.zeros(2, 3, 64, 32)
    inside[:, :, :16] = 0.3
    method.G, method.D = Constant(lambda x: target + inside), Constant(0.0)
    # a quarter of the pixels are 0.3 off and count four times: 0.3 * 4 / (4 + 3)
    assert step_of(method, batch)[0]["L1"] == pytest.approx(0.3 * 4 / 7, abs=1e-5)
    del batch["target_masks"]
    with pytest.raises(ValueError, match="masks"):
        step_of(method, batch)


def test_the_sources_background_where_it_is_asked_for():
    """Right in the target's person and in what the source shows around its own: no loss, whatever is in the hole."""
    batch = one_batch()
    batch["masks"], batch["target_masks"] = (torch.zeros(2, 64, 32, dtype=torch.uint8) for _ in range(2))
    batch["masks"][:, 32:], batch["target_masks"][:, :16] = 255, 255
    source, target = (batch[name].float() / 127.5 - 1 for name in ("images", "target_images"))
    drawn = torch.cat([target[:, :, :16], source[:, :, 16:31], -source[:, :, 31:]], dim=2)
    guide = nn.Module()  # the pixels themselves
    guide.stem, guide.stages = nn.Identity(), nn.ModuleList([nn.Identity()])
    for background in ("source", "target"):
        method = PNGAN(preset="smoke", background=background, guide=guide)
        method.G, method.D = Constant(lambda x: drawn), Constant(0.0)
        losses, _ = step_of(method, batch)
        for name in ("L1", "perceptual"):
            assert losses[name] < 1e-5 if background == "source" else losses[name] > 0.1
    assert "background" not in method.deviations and PNGAN(background="source").deviations["background"] == "source"


def test_the_guide_compares_stages_is_frozen_and_stays_out_of_the_state():
    g = torch.Generator().manual_seed(0)
    fake, target = torch.rand(2, 2, 3, 64, 32, generator=g) * 2 - 1
    guide = nn.Module()
    guide.stem, guide.stages = nn.Identity(), nn.ModuleList([nn.Identity(), Constant(lambda x: x.abs())])
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    a, b = (((x + 1) / 2 - mean) / std for x in (fake, target))
    expected = ((a - b).abs().mean() + (a.abs() - b.abs()).abs().mean()) / b.abs().mean() / 2
    assert perceptual_loss(guide, fake, target, relative=True).item() == pytest.approx(expected.item(), rel=1e-4)
    network = SmallResNet(8)
    method = PNGAN(preset="smoke", guide=network, lambda_guide=7)
    losses, calls = step_of(method.train(), one_batch())
    terms = losses["G adversarial"] + 100 * losses["L1"] + 7 * losses["perceptual"]
    assert losses["G"] == calls[0][1] == pytest.approx(terms, rel=1e-5) and losses["perceptual"] > 0
    assert method.state_dict().keys() == PNGAN(preset="smoke").state_dict().keys()
    kept = method._guide.on(torch.device("cpu"))
    assert not kept.training and not any(p.requires_grad for p in kept.parameters()) and network.training
    assert method.deviations["lambda_guide"] == 7


def test_real_is_the_target_or_the_source():
    batch = one_batch()
    batch["images"].fill_(255)  # +1
    batch["target_images"].fill_(0)  # -1
    for real, expected in (("target", 4.0), ("source", 0.0)):  # D scores by mean brightness: (-1 - 1)^2 and (1 - 1)^2
        method = PNGAN(preset="smoke", real=real)
        method.G, method.D = Constant(lambda x: torch.zeros(2, 3, 64, 32)), Constant(lambda x: x.mean((1, 2, 3)))
        assert step_of(method, batch)[0]["D"] == pytest.approx(expected, abs=1e-6)


def test_6_learning_rate_factor_by_epoch():
    default = [round(lr_factor(e), 6) for e in range(1, 21)]
    assert default == [1.0] * 11 + [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    zero = [round(lr_factor(e, last_epoch_zero=True), 6) for e in range(1, 21)]
    assert zero == [1.0] * 10 + [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    method = PNGAN(preset="smoke", steps=200, last_epoch_zero=True)  # 10 steps an epoch
    assert [round(method.schedule(s), 6) for s in (0, 99, 100, 109, 110, 189, 190, 199)] == [
        1,
        1,
        0.9,
        0.9,
        0.8,
        0.1,
        0,
        0,
    ]
    with pytest.raises(ValueError, match="21"):
        lr_factor(21)


def test_7_pairs_and_the_targets_pose(smoke):
    data = people([5, 9, 5, 4, 5, 9])  # three, two and one images
    pairs = pn_gan_pairs(data)
    assert len(pairs) == 8 and (pairs[:, 0] != pairs[:, 1]).all()
    assert (data.pids[pairs[:, 0]] == data.pids[pairs[:, 1]]).all() and 3 not in pairs
    seen = {}
    smoke.G.register_forward_pre_hook(lambda m, i: seen.update(x=i[0]))
    batch = Batches(data, pair_batches(pairs, 8))(0)
    step_of(smoke, batch)
    expected = poses.skeleton_images(batch["target_keypoints"], (64, 32)).float() / 127.5 - 1
    assert torch.allclose(seen["x"][:, 3:], expected, atol=1e-6)
    assert torch.allclose(seen["x"][:, :3], batch["images"].float() / 127.5 - 1, atol=1e-6)
    without = PersonImages(torch.zeros(2, 3, 64, 32, dtype=torch.uint8), [1, 1], [1, 1])
    with pytest.raises(ValueError, match="key points"):
        pn_gan_pairs(without)


def test_pairs_of_one_camera_only():
    data = people([5, 5, 5, 5])
    data.camids[:] = torch.tensor([1, 2, 1, 2])
    found = pn_gan_pairs(data, "same_camera")
    assert found.tolist() == [[0, 2], [1, 3], [2, 0], [3, 1]] and len(pn_gan_pairs(data)) == 12
    assert {tuple(pair) for pair in some_pairs(data, 3, "same_camera").tolist()} < {(0, 2), (1, 3), (2, 0), (3, 1)}
    with pytest.raises(ValueError, match="pairs must be one of 'all', 'same_camera'; got 'one_camera'"):
        pn_gan_pairs(data, "one_camera")


def test_condition_draws_or_takes_pictures(smoke):
    keypoints = keypoints_of(3)
    pictures = poses.skeleton_images(keypoints, (64, 32))
    drawn = smoke.condition(
        PersonImages(torch.zeros_like(pictures), [1] * 3, [1] * 3, keypoints=keypoints).batch([0, 1, 2])
    )
    plain = PersonImages(pictures, [1] * 3, [1] * 3)
    taken = smoke.condition(plain.with_labels(is_generated=[True] * 3).batch([0, 1, 2]))
    assert torch.equal(drawn, taken) and drawn.min() == -1 and drawn.max() == 1
    with pytest.raises(ValueError, match="key points"):
        smoke.condition(plain.batch([0]))


def test_12_each_step_leaves_the_other_network_alone(smoke):
    batch, (g, d) = one_batch(), (list(smoke.G.parameters()), list(smoke.D.parameters()))
    seen = []
    smoke.D.register_forward_pre_hook(lambda m, i: seen.append(i[0].requires_grad))
    optimizers = smoke.optimizers()

    def update(name, loss):
        own, other = (g, d) if name == "G" else (d, g)
        before = [p.detach().clone() for p in other]
        loss.backward(inputs=own)
        optimizers[name][1].step()
        optimizers[name][1].zero_grad()
        assert all(torch.equal(a, b) for a, b in zip(before, other, strict=True)) and all(p.grad is None for p in other)

    smoke.training_step(batch, 0, update)
    assert seen == [True, False, False]  # G's pass; then real and detached fakes


def toy(preset: str = "smoke", **options) -> tuple[PNGAN, Batches]:
    torch.manual_seed(0)
    data = people([1] * 4 + [2] * 4)
    smooth = nn.functional.interpolate(torch.rand(8, 3, 8, 4), (64, 32), mode="bilinear")
    data = PersonImages((smooth * 255).to(torch.uint8), data.pids, data.camids, keypoints=data.keypoints)
    return PNGAN(preset=preset, foreground_weight=1, lambda_1=10, **options), Batches(
        data, pair_batches(pn_gan_pairs(data), 2)
    )


def test_15_reconstruction_falls_by_a_quarter_within_120_steps():
    method, batches = toy(width=32, lr=2e-4, steps=10**6)
    history = fit(method, batches, 80, device="cpu", precision="fp32", log_every=10, progress=False)
    l1 = history.losses["L1"]  # means over ten steps
    assert l1.iloc[-1] < 0.75 * l1.iloc[0]


def test_16_outputs_differ_by_pose_and_never_by_chance():
    method, batches = toy()
    fit(method, batches, 30, device="cpu", precision="fp32", progress=False)
    source = torch.rand(1, 3, 64, 32).expand(8, -1, -1, -1) * 2 - 1
    images = people([1] * 8, seed=7)
    condition = method.condition(images.batch(range(8)))
    first, second = method.generate(source, condition), method.generate(source, condition)
    assert torch.equal(first, second) and not first.requires_grad and method.training
    differences = (first[:, None] - first[None]).abs().mean((2, 3, 4))
    assert differences[~torch.eye(8, dtype=torch.bool)].min() > 1e-3


def test_the_course_presets_differ_by_name_only():
    for preset in ("smoke", "course"):
        method = PNGAN(preset=preset)
        assert method.deviations == {k: v for k, v in PRESETS[preset].items() if v != PRESETS["paper"][k]}
        assert method.deviations["padding"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(preset="large"), "'smoke', 'course', 'paper'"),
        (dict(gan_loss="wasserstein"), "'vanilla', 'least_squares'"),
        (dict(real="both"), "'target', 'source'"),
        (dict(background="none"), "'target', 'source'"),
        (dict(preset="smoke", padding=0), "56 pixels"),
        (dict(preset="smoke", image_size=(62, 32)), "multiples of 4"),
        (dict(preset="smoke", foreground_weight=0.5), "foreground_weight >= 1"),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PNGAN(**options)
    method = PNGAN(preset="smoke")
    with pytest.raises(ValueError, match="one pose picture"):
        method.generate(torch.zeros(2, 3, 64, 32), torch.zeros(1, 3, 64, 32))


def test_a_batch_that_is_no_pair_or_lacks_key_points_is_refused():
    method, batch = PNGAN(preset="smoke"), one_batch()
    with pytest.raises(ValueError, match="PNGAN trains on batches of pairs"):
        step_of(method, {"images": batch["images"]})
    with pytest.raises(ValueError, match="the batch lacks target_keypoints"):
        step_of(method, {name: value for name, value in batch.items() if "keypoints" not in name})


def test_some_pairs_are_pairs_and_follow_the_seed():
    data = people([5, 9, 5, 4, 5, 9])
    every = {tuple(pair) for pair in pn_gan_pairs(data).tolist()}
    first, again, other = (some_pairs(data, 5, seed=seed) for seed in (1, 1, 2))
    assert len({tuple(pair) for pair in first.tolist()} & every) == 5 and torch.equal(first, again)
    assert not torch.equal(first, other) and len(some_pairs(data, 100)) == len(every) == 8


def test_every_image_in_every_pose_image_after_image(smoke):
    data, targets = people([1, 2, 3]), people([-1, -1], seed=5)
    drawn = in_canonical_poses(data, smoke, targets, batch_size=4)
    assert drawn.pids.tolist() == [1, 1, 2, 2, 3, 3]
    assert len(set(drawn.names)) == 6
    pose = smoke.condition(targets.batch([1]))
    want = smoke.generate(data.images[2:3].float() / 127.5 - 1, pose)
    assert (drawn.images[5].float() - (want[0] + 1) * 127.5).abs().max() < 1.01


def test_vgg19_is_read_in_a_fresh_interpreter():
    """torchvision's import before its shim used to stop with an operator that does not exist."""
    code = (
        "import torch; from reidlib.generators.pn_gan import vgg19_features; "
        "vgg19_features(torch.ones(1, 18, 3), (64, 32), 'no_such_file.pth')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 1 and out.stderr.strip().splitlines()[-1].startswith("FileNotFoundError: no weights at")


def test_the_schedules_epochs_are_equal_shares_of_any_length():
    method = PNGAN(preset="smoke", steps=30)
    assert [method.schedule(step) for step in range(30)] == [lr_factor(1 + step * 20 // 30) for step in range(30)]
    assert method.schedule(29) == lr_factor(20) and method.schedule(16) == lr_factor(11) != method.schedule(17)
