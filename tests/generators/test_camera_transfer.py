"""The thesis's camera transfer: U-Net and models 1-4 against its tables and by hand, loading, pairs, the extension."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.generators.camera_transfer import PRESETS, CameraTransfer, Smooth, UNet, masks_needed, transfer
from reidlib.losses import adversarial_loss, discriminator_loss, masked_condition
from reidlib.networks import load_weights, save_weights
from reidlib.training import fit

CHANNELS = {1: (3, 6), 2: (4, 7), 3: (5, 8), 4: (3, 6)}  # of the generator's and the discriminator's input
GENERATOR = {3: 54_413_955, 4: 54_414_979, 5: 54_416_003}
DISCRIMINATOR = {6: 2_768_705, 7: 2_769_729, 8: 2_770_753}
SMALL = {(64, 32): 16_659_075, (128, 64): 29_244_035, (256, 128): 41_828_995}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def batch_of(n: int = 2, size: tuple[int, int] = (64, 32), seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (n, *shape, *size), generator=g, dtype=torch.uint8)

    return {"images": draw(3), "target_images": draw(3), "masks": draw(), "target_masks": draw()}


def smoke(model: int = 4, **switches) -> CameraTransfer:
    torch.manual_seed(0)
    return CameraTransfer(model=model, preset="smoke", **switches)


def step(method: CameraTransfer, batch: dict) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Take a training step that only records what `update` is given."""
    calls = []
    losses = method.training_step(batch, 0, lambda name, loss: calls.append((name, loss.item())))
    return {name: value.item() for name, value in losses.items()}, calls


@pytest.mark.parametrize("model", [1, 2, 3, 4])
def test_1_channel_table_and_parameter_counts_of_the_paper_preset(model):
    with torch.device("meta"):
        method = CameraTransfer(model=model, preset="paper")
    seen, judged = CHANNELS[model]
    assert method.G.down[0][0].in_channels == seen and method.D.layers[0].in_channels == judged
    assert count(method.G) == GENERATOR[seen] and count(method.D) == DISCRIMINATOR[judged]
    assert method.image_size == (256, 256) and len(method.G.down) == 8


@pytest.mark.parametrize("size", [(64, 32), (128, 64), (256, 128), (64, 128), (256, 256)])
def test_1_unet_halves_to_a_point_and_comes_back(size):
    with torch.device("meta"):
        network = UNet(3, size)
        assert network(torch.zeros(1, 3, *size)).shape == (1, 3, *size)
    n = min(size).bit_length() - 1
    assert len(network.down) == len(network.up) == n
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == n - 5
    assert count(network) == SMALL.get(size, count(network))


def test_1_layers_of_the_published_table():
    with torch.device("meta"):
        network = UNet(3, (256, 256))
    down = [next(m for m in layer if isinstance(m, nn.Conv2d)) for layer in network.down]
    up = [next(m for m in layer if isinstance(m, nn.ConvTranspose2d)) for layer in network.up]
    assert [m.out_channels for m in down] == [64, 128, 256, 512, 512, 512, 512, 512]
    assert [m.in_channels for m in up] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
    assert [m.out_channels for m in up] == [512, 512, 512, 512, 256, 128, 64, 3]
    assert all(m.kernel_size == (4, 4) and m.stride == (2, 2) and m.padding == (1, 1) for m in down + up)
    assert [m.bias is None for m in down + up] == [True] * 15 + [False]
    normed = [any(isinstance(m, nn.BatchNorm2d) for m in layer) for layer in (*network.down, *network.up)]
    assert normed == [False, *[True] * 6, False, *[True] * 7, False]
    assert [any(isinstance(m, nn.Dropout) for m in layer) for layer in network.up] == [
        False, True, True, True, False, False, False, False
    ]  # fmt: skip


def test_unet_hands_each_map_to_its_twin():
    torch.manual_seed(0)
    network = UNet(3, (64, 32), width=2).eval()
    x = torch.randn(1, 3, 64, 32)
    maps = [network.down[0](x)]
    for layer in network.down[1:]:
        maps.append(layer(maps[-1]))
    e1, e2, e3, e4, e5 = maps
    y = network.up[0](e5)
    for layer, twin in zip(network.up[1:], (e4, e3, e2, e1), strict=True):
        y = layer(torch.cat([twin, y], 1))
    assert torch.equal(network(x), y) and y.abs().max() <= 1


def test_1_sizes_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match=r"7 halvings does not fit 250x128 images: .* divisible by 128"):
        UNet(3, (250, 128))
    with pytest.raises(ValueError, match="4 halvings does not fit 48x24"):
        UNet(3, (48, 24))
    with pytest.raises(ValueError, match="divisible by 32"):
        CameraTransfer(preset="smoke", image_size=(80, 40))
    with pytest.raises(ValueError, match=r"images of \(64, 32\) \(height, width\), got \(128, 64\)"):
        UNet(3, (64, 32), width=2)(torch.zeros(1, 3, 128, 64))


@pytest.mark.parametrize("model", [1, 2, 3])
def test_a_step_of_models_1_to_3_by_hand(model):
    method, batch = smoke(model), batch_of()
    x, y = (batch[name].float() / 127.5 - 1 for name in ("images", "target_images"))
    seen = [x, *(batch[name][:, None].float() / 127.5 - 1 for name in ("masks", "target_masks")[: model - 1])]
    with torch.no_grad():
        fake = method.G(torch.cat(seen, 1))
        real_scores, fake_scores = method.D(torch.cat([*seen, y], 1)), method.D(torch.cat([*seen, fake], 1))
    losses, calls = step(smoke(model), batch)
    expected = {
        "D": discriminator_loss(real_scores, fake_scores).item(),
        "G_GAN": adversarial_loss(fake_scores, True).item(),
        "L1": F.l1_loss(fake, y).item(),
        "D right, real": (real_scores > 0).float().mean().item(),
        "D right, generated": (fake_scores < 0).float().mean().item(),
    }
    assert losses == pytest.approx(expected, rel=1e-4)
    assert calls == [("D", losses["D"]), ("G", pytest.approx(0.3 * losses["G_GAN"] + 100 * losses["L1"]))]


@pytest.mark.parametrize("kind", ["in_out_inv", "in_inv", "literal"])
def test_a_static_step_of_model_4_by_hand(kind):
    batch = batch_of()
    x, y = (batch[name].float() / 127.5 - 1 for name in ("images", "target_images"))
    m_in, m_out = (batch[name][:, None].float() / 255 for name in ("masks", "target_masks"))
    method = smoke(condition_mask=kind)
    with torch.no_grad():
        fake, context = method.G(x), masked_condition(x, m_in, m_out, kind)
        scores = [method.D(torch.cat([context, candidate], 1)) for candidate in (y, fake)]
    losses, calls = step(smoke(condition_mask=kind), batch)
    assert losses["D"] == pytest.approx(discriminator_loss(*scores).item(), rel=1e-4)
    assert losses["G_GAN"] == pytest.approx(adversarial_loss(scores[1], True).item(), rel=1e-4)
    assert losses["L_fg"] == pytest.approx(((fake - x).abs() * m_in).mean().item(), rel=1e-4)
    scene = (1 - m_in) * (1 - m_out)
    assert losses["L_bg"] == pytest.approx(((fake - y).abs() * scene).mean().item(), rel=1e-4)
    total = 0.3 * losses["G_GAN"] + 70 * losses["L_fg"] + 30 * losses["L_bg"]
    assert [name for name, _ in calls] == ["D", "G"] and calls[1][1] == pytest.approx(total)


def test_a_variable_step_with_equal_weights_is_model_1s():
    batch = batch_of()
    variable, calls = step(smoke(variant="variable", lambda_fg=100, lambda_bg=100), batch)
    plain, plain_calls = step(smoke(1), batch)  # the same networks: 3 and 6 channels, one seed
    assert variable["L_fg"] + variable["L_bg"] == pytest.approx(plain["L1"], rel=1e-5)
    assert calls == [(name, pytest.approx(value, rel=1e-5)) for name, value in plain_calls]
    del batch["masks"]  # eqs. 10-13 use the target's mask alone
    assert step(smoke(variant="variable", lambda_fg=100, lambda_bg=100), batch)[0] == variable


def test_hard_masks_and_area_change_the_static_terms():
    batch = batch_of()
    soft, _ = step(smoke(), batch)
    hard, _ = step(smoke(mask_threshold=0.5), batch)
    clean = dict(batch) | {name: (batch[name] >= 128).to(torch.uint8) * 255 for name in ("masks", "target_masks")}
    assert hard == step(smoke(), clean)[0] and hard["L_fg"] != soft["L_fg"]
    share = clean["masks"].float().mean().item() / 255
    by_area, _ = step(smoke(normalise_by_mask_area=True), clean)
    assert by_area["L_fg"] * share == pytest.approx(hard["L_fg"], rel=1e-4)


def test_the_discriminators_step_leaves_the_generator_alone():
    method, batch = smoke(), batch_of()
    before = {name: tensor.clone() for name, tensor in method.named_parameters()}
    fit(method, lambda _: batch, 1, device="cpu", progress=False)
    assert all(not torch.equal(before[name], p) for name, p in method.named_parameters() if p.dim() > 1)
    seen = []

    def update(name: str, loss: torch.Tensor) -> None:
        grads = torch.autograd.grad(loss, list(method.G.parameters()), retain_graph=True, allow_unused=True)
        seen.append((name, any(g is not None for g in grads)))

    method.training_step(batch, 0, update)
    assert seen == [("D", False), ("G", True)]


@pytest.mark.parametrize("model", [1, 2, 3, 4])
def test_paper_preset_takes_a_full_step_at_256(model):
    torch.manual_seed(0)
    method = CameraTransfer(model=model, preset="paper")
    before = [network.state_dict() for network in (method.D, method.G)]
    before = [{name: tensor.clone() for name, tensor in list(state.items())[:3]} for state in before]
    history = fit(method, lambda _: batch_of(1, (256, 256)), 1, device="cpu", log_every=1, progress=False)
    assert history.losses.drop(columns="step").notna().all().all() and history.losses["lr/G"][0] == 2e-4
    for network, state in zip((method.D, method.G), before, strict=True):
        assert any(not torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


def test_training_lowers_the_losses():
    for model, names in ((2, ["L1"]), (4, ["L_fg", "L_bg"])):
        method, batch = smoke(model), batch_of(4)
        smooth = F.avg_pool2d(batch["images"].float(), 9, 1, 4).to(torch.uint8)
        batch |= {"images": smooth, "target_images": smooth.flip(0)}
        losses = fit(method, lambda _, b=batch: b, 30, device="cpu", progress=False).losses
        for name in names:
            assert losses[name].iloc[-1] < 0.6 * losses[name].iloc[0]


def test_generate_is_deterministic_and_leaves_modes_alone():
    method, x = smoke(), torch.rand(3, 3, 64, 32) * 2 - 1
    method.train()
    first = method.generate(x)
    assert method.G.training and not first.requires_grad and torch.equal(first, method.generate(x))
    torch.testing.assert_close(first[1:2], method.generate(x[1:2]))  # each image by itself: running statistics


def test_stochastic_test_uses_each_images_own_statistics_and_dropout():
    x = torch.rand(2, 3, 64, 32) * 2 - 1
    plain, noisy = smoke(), smoke(stochastic_test=True)
    state = {name: tensor.clone() for name, tensor in noisy.state_dict().items()}
    out = noisy.generate(x)
    assert not torch.allclose(out, plain.generate(x)) and torch.equal(out, noisy.generate(x))  # n = 5: no dropout
    plain.train()
    torch.testing.assert_close(out[:1], plain.G(x[:1]))
    assert all(torch.equal(state[name], tensor) for name, tensor in noisy.state_dict().items())
    large = CameraTransfer(preset="smoke", image_size=(128, 64), width=4, stochastic_test=True)
    x = torch.rand(1, 3, 128, 64)
    torch.manual_seed(1)
    first = large.generate(x)
    assert not torch.equal(first, large.generate(x))  # n = 6: one layer of dropout
    torch.manual_seed(1)
    assert torch.equal(first, large.generate(x))


def test_the_noise_of_a_whole_set_follows_the_seed_of_transfer():
    """Two calls used to give two sets, unless the caller had seeded torch."""
    torch.manual_seed(0)
    method = CameraTransfer(preset="smoke", image_size=(128, 64), width=4, stochastic_test=True)
    people = PersonImages(torch.randint(0, 256, (3, 3, 128, 64), dtype=torch.uint8), [1, 2, 3], [5, 5, 6])
    first, again, other = (transfer(method, people, 5, 6, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_images_of_another_size_are_resized_there_and_back():
    method, batch = smoke(3), batch_of(size=(128, 64))
    condition = method.condition({"masks": batch["target_masks"]}, {"masks": batch["masks"]})
    out = method.generate(batch["images"].float() / 127.5 - 1, condition)
    assert out.shape == (2, 3, 128, 64) and out.abs().max() <= 1


def test_condition_holds_the_masks_a_model_sees():
    batch = batch_of()
    sources, targets = {"masks": batch["masks"]}, {"masks": batch["target_masks"]}
    assert smoke(1).condition(targets, sources) is None and smoke(4).condition() is None
    two, three = smoke(2).condition(None, sources), smoke(3).condition(targets, sources)
    assert torch.equal(two[:, 0], batch["masks"].float() / 255 * 2 - 1) and two.shape == (2, 1, 64, 32)
    assert torch.equal(three[:, :1], two) and torch.equal(three[:, 1], batch["target_masks"].float() / 255 * 2 - 1)
    with pytest.raises(ValueError, match="model 3 needs targets with masks, got nothing"):
        smoke(3).condition(None, sources)
    with pytest.raises(ValueError, match="model 2 needs sources with masks, got "):
        smoke(2).condition(targets, {})
    x = torch.zeros(2, 3, 64, 32)
    for method, condition in ((smoke(2), None), (smoke(2), three), (smoke(1), two), (smoke(2), two[:1])):
        with pytest.raises(ValueError, match="takes a condition of"):
            method.generate(x, condition)


def test_bad_batches_and_switches_are_shown():
    batch = batch_of()
    for model, names in ((2, "masks"), (3, "target_masks"), (4, "masks, target_masks")):
        assert masks_needed(model)[-1] == names.split(", ")[-1]
        short = {name: tensor for name, tensor in batch.items() if name not in names.split(", ")}
        with pytest.raises(ValueError, match=f"the batch lacks {names}$"):
            step(smoke(model), short)
    with pytest.raises(ValueError, match=r"images of \(64, 32\) \(height, width\), the batch has \(128, 64\)"):
        step(smoke(), batch_of(size=(128, 64)))
    for switches, words in (
        (dict(model=5), "model must be one of 1, 2, 3, 4; got 5"),
        (dict(model=1, variant="variable"), "variant of model 1 must be one of 'static'; got 'variable'"),
        (dict(condition_mask="out"), "condition_mask must be one of 'in_out_inv', 'in_inv', 'literal'; got 'out'"),
        (dict(preset="huge"), "'smoke', 'course', 'paper'"),
        (dict(lambda_fg=-1.0), "lambda_fg=-1.0"),
        (dict(mask_threshold=128), r"mask_threshold must lie in \(0, 1\], got 128"),
    ):
        with pytest.raises(ValueError, match=words):
            CameraTransfer(**switches)


def test_weights_come_back_and_those_of_another_model_or_size_are_refused(tmp_path):
    method, x = smoke(1), torch.rand(1, 3, 64, 32)
    path = save_weights(method, tmp_path / "weights.safetensors")
    torch.manual_seed(5)
    other = CameraTransfer(model=1, preset="smoke")
    load_weights(other, path)
    assert torch.equal(other.generate(x), method.generate(x))
    state = method.state_dict()
    for model, size in ((4, (64, 32)), (1, (128, 64)), (1, (32, 64)), (3, (64, 32))):
        words = rf"weights are of model 1 for images of \(64, 32\) .* not of model {model} for \({size[0]}, {size[1]}\)"
        with pytest.raises(ValueError, match=words):
            CameraTransfer(model=model, preset="smoke", image_size=size).load_state_dict(state)
    with pytest.raises(ValueError, match=r"model 1 for images of \(64, 32\) .* not of model 1 for \(128, 64\)"):
        load_weights(CameraTransfer(model=1, preset="smoke", image_size=(128, 64)), path)


def test_smoothing_nulls_the_checkerboard_and_keeps_flat_areas_and_parameters():
    columns = torch.arange(6) % 2 * 2.0 - 1
    board = (columns[:, None] * columns).expand(1, 3, 6, 6)
    assert Smooth()(board)[..., 1:-1, 1:-1].eq(0).all() and torch.equal(Smooth()(board.abs()), board.abs())
    spot = torch.zeros(1, 1, 5, 5)
    spot[..., 2, 2] = 16
    assert Smooth()(spot)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert count(smoke(smooth=False)) == count(smoke()) and not torch.equal(
        smoke().generate(board.repeat(1, 1, 11, 6)[..., :64, :32]),
        smoke(smooth=False).generate(board.repeat(1, 1, 11, 6)[..., :64, :32]),
    )


def test_deviations_name_what_is_not_the_papers():
    assert CameraTransfer(preset="paper", image_size=(64, 32), width=4).deviations == {
        "image_size": (64, 32), "width": 4
    }  # fmt: skip
    assert set(smoke().deviations) == {"image_size", "width", "lambda_gan", "smooth", "lr", "constant"}
    assert smoke(lambda_gan=1.0, smooth=False).deviations.keys().isdisjoint({"lambda_gan", "smooth"})


def test_schedule_falls_linearly_in_the_course_and_not_in_the_paper():
    method = smoke(steps=100)
    assert [method.schedule(s) for s in (0, 50, 75, 100)] == [1, 1, 0.5, 0]
    assert [smoke(steps=100, constant=PRESETS["paper"]["constant"]).schedule(s) for s in (0, 99)] == [1, 1]
