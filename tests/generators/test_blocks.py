"""The shared blocks: published parameter counts, patch sizes, initial weights."""

import pytest
import torch
from torch import nn

from reidlib.generators.blocks import (
    ImagePool,
    LayerNorm,
    PatchDiscriminator,
    ResidualDiscriminator,
    ResidualGenerator,
    ResidualUnit,
    adain,
    adam,
    as_frozen_copy,
    choose_preset,
    deviations,
    make_norm,
    style_statistics,
)
from reidlib.generators.inputs import annotation, join_pictures, pair_images, resized
from reidlib.networks import normal_init


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("channels, parameters", [(6, 2_768_705), (7, 2_769_729), (8, 2_770_753)])
def test_patch_discriminator_has_the_published_parameters(channels, parameters):
    with torch.device("meta"):
        assert count(PatchDiscriminator(channels)) == parameters


@pytest.mark.parametrize(
    "size, patches",
    [((256, 256), (30, 30)), ((256, 128), (30, 14)), ((128, 128), (14, 14)), ((128, 64), (14, 6)), ((64, 32), (6, 2))],
)
def test_patch_discriminator_gives_the_published_number_of_patches(size, patches):
    with torch.device("meta"):
        assert PatchDiscriminator(6)(torch.zeros(1, 6, *size)).shape == (1, 1, *patches)


def test_a_patch_sees_70_pixels():
    network = PatchDiscriminator(1, width=2).eval()  # running statistics: no leak through batch normalisation
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    network(image)[0, 0, 7, 7].backward()
    rows = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70


def test_instance_normalised_discriminator_and_residual_generators_have_the_published_parameters():
    with torch.device("meta"):
        assert count(PatchDiscriminator(3, norm="instance")) == 2_764_737
        assert count(ResidualGenerator(units=9)) == 11_378_179
        assert count(ResidualGenerator(units=6)) == 7_837_699


def test_residual_unit_adds_to_its_input():
    unit = ResidualUnit(4)
    for parameter in unit.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 6, 4)
    assert torch.equal(unit(x), x)
    last = ResidualUnit(4, relu_after_sum=True)
    assert last(x).min() >= 0 > unit(x).min()


def test_normal_init_sets_the_published_spread():
    torch.manual_seed(0)
    network = PatchDiscriminator(6, width=32)
    network.apply(normal_init)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.mean().abs() < 2e-3 and module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or module.bias.eq(0).all()
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02) and 0.01 < module.weight.std() < 0.03
            assert module.bias.eq(0).all()


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="at least 24 pixels each way, got 64x16"):
        PatchDiscriminator(6, width=4)(torch.zeros(1, 6, 64, 16))
    with pytest.raises(ValueError, match="multiples of 4, got 64x30"):
        ResidualGenerator(width=4, units=1)(torch.zeros(1, 3, 64, 30))
    with pytest.raises(ValueError, match="norm must be one of 'batch', 'instance', 'layer', 'none'; got 'group'"):
        make_norm("group", 4)


def numbered(numbers):
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 4, 4)


def test_pool_fills_then_swaps_half():
    torch.manual_seed(0)
    pool = ImagePool(50, (4, 4))
    first = pool(numbered(range(50)))
    assert first[:, 0, 0, 0].tolist() == list(range(50)) and pool.filled == 50
    swapped, held = 0, set(range(50))
    for start in range(50, 1050, 10):
        given = list(range(start, start + 10))
        for number, shown in zip(given, pool(numbered(given))[:, 0, 0, 0].tolist(), strict=True):
            assert shown == number or shown in held
            if shown != number:
                swapped += 1
                held = held - {shown} | {number}
        assert {*pool.images[:, 0, 0, 0].tolist()} == held
    assert 440 < swapped < 560  # 1000 draws with p = 1/2
    fakes = torch.rand(2, 3, 4, 4, requires_grad=True)
    assert not pool(fakes).requires_grad and torch.equal(ImagePool(0, (4, 4))(fakes), fakes)


def test_pool_of_other_channels_comes_back_from_a_state():
    torch.manual_seed(0)
    pool = ImagePool(3, (4, 4), channels=6)
    pool(torch.rand(2, 6, 4, 4))
    other = ImagePool(3, (4, 4), channels=6)
    other.load_state_dict(pool.state_dict())
    assert other.filled == 2 and torch.equal(other.images, pool.images) and pool.images[2].eq(0).all()


def test_adain_in_all_readings():
    g = torch.Generator().manual_seed(0)
    content, style = torch.randn(2, 3, 5, 4, generator=g) * 3 + 1, torch.randn(2, 3, 7, 2, generator=g) * 0.5 - 2
    scale, shift = torch.randn(2, 2, 3, generator=g)
    out = adain(content, scale, shift)
    for i in range(2):
        for c in range(3):
            x = content[i, c].double()
            want = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * scale[i, c] + shift[i, c]
            torch.testing.assert_close(out[i, c], want.float(), rtol=1e-4, atol=1e-5)
    moved = adain(content, *style_statistics(style))  # the style's statistics arrive
    torch.testing.assert_close(moved.mean((2, 3)), style.mean((2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved.std((2, 3), correction=0), style.std((2, 3), correction=0), rtol=1e-4, atol=1e-5)
    maps = torch.randn(2, 3, 5, 4, generator=g)  # a scale at every place
    torch.testing.assert_close(adain(content, 1 + maps, 0 * maps), nn.InstanceNorm2d(3)(content) * (1 + maps))
    flat = torch.ones(1, 1, 2, 2, requires_grad=True)
    style_statistics(flat)[0].sum().backward()
    assert flat.grad.isfinite().all()


def test_layer_norm_by_hand_and_its_start():
    torch.manual_seed(0)
    norm = LayerNorm(400)
    assert 0 <= norm.weight.min() < 0.05 and 0.95 < norm.weight.max() <= 1 and norm.bias.eq(0).all()
    norm = LayerNorm(2)
    nn.init.constant_(norm.weight, 2.0)
    norm.bias.data = torch.tensor([0.0, 1.0])
    x = torch.tensor([[[[0.0, 4.0]], [[2.0, 6.0]]], [[[1e-4, 0.0]], [[0.0, 0.0]]]])
    deviation = (20 / 3) ** 0.5  # of 0, 4, 2, 6 about 3, divided by 3
    want = torch.tensor([[[-3.0, 1.0]], [[-1.0, 3.0]]]) / deviation * 2 + torch.tensor([0.0, 1.0])[:, None, None]
    torch.testing.assert_close(norm(x)[0], want, rtol=1e-4, atol=1e-5)
    small = x[1].double()
    want = (small - small.mean()) / (small.std() + 1e-5) * 2 + torch.tensor([0.0, 1.0])[:, None, None]
    torch.testing.assert_close(norm(x)[1], want.float(), rtol=1e-4, atol=1e-5)


def test_residual_discriminators_have_the_published_parameters():
    with torch.device("meta"):
        for channels, norm, parameters in (
            (6, "batch", 3_930_368), (21, "batch", 3_977_408), (6, "instance", 3_928_384), (21, "instance", 3_975_424)
        ):  # fmt: skip
            network = ResidualDiscriminator(channels, norm=norm, score="features")
            assert count(network) == parameters
            assert network(torch.zeros(2, channels, 128, 64)).shape == (2, 256, 32, 16)
        assert count(ResidualDiscriminator(6)) == 3_930_368 + 257
        assert ResidualDiscriminator(21)(torch.zeros(1, 21, 128, 64)).shape == (1, 1, 32, 16)
        drops = [m.p for m in ResidualDiscriminator(6).modules() if isinstance(m, nn.Dropout)]
        assert drops == [0.5] * 3
    with pytest.raises(ValueError, match="score must be one of 'map', 'features'; got 'patch'"):
        ResidualDiscriminator(6, score="patch")
    with pytest.raises(ValueError, match="at least 8 pixels each way, got 64x4"):
        ResidualDiscriminator(6, width=4)(torch.zeros(1, 6, 64, 4))


def test_residual_unit_with_other_norms_slopes_and_dropout():
    torch.manual_seed(0)
    unit = ResidualUnit(4, norm="none", slope=0.2, dropout=0.5).eval()
    first, second = (m for m in unit.layers if isinstance(m, nn.Conv2d))
    x = torch.randn(1, 4, 6, 4)
    torch.testing.assert_close(unit(x), x + second(nn.functional.leaky_relu(first(x), 0.2)))
    unit.train()
    assert not torch.equal(unit(x), unit(x))
    biases = {norm: ResidualUnit(4, norm=norm).layers[0].bias is not None for norm in ("batch", "instance", "layer")}
    assert biases == {"batch": False, "instance": True, "layer": True}


def test_one_adam_over_several_networks():
    a, b = nn.Linear(2, 1), nn.Linear(3, 1, bias=False)
    schedule = lambda step: 0.5  # noqa: E731
    parameters, optimizer, given = adam((a, b), 1e-3, schedule)
    group = optimizer.param_groups[0]
    assert [id(p) for p in parameters] == [id(p) for p in (*a.parameters(), *b.parameters())] and given is schedule
    assert (group["lr"], group["betas"], group["fused"], len(group["params"])) == (1e-3, (0.5, 0.999), None, 3)
    assert adam(a, 1e-3, betas=(0.9, 0.99), fused=True)[1].param_groups[0]["fused"] is True
    assert adam(a, 1e-3, betas=(0.9, 0.99))[1].defaults["betas"] == (0.9, 0.99)


def test_what_a_batch_lacks_is_named():
    images = torch.zeros(2, 3, 8, 4, dtype=torch.uint8)
    pairs = {"images": images, "target_images": images + 255, "masks": images[:, 0]}
    source, target = pair_images(pairs, "Method", "masks", image_size=(8, 4))
    assert source.eq(-1).all() and target.eq(1).all() and annotation(pairs, "masks", "sources", "it") is pairs["masks"]
    lacks = r"Method .* target_images, masks, keypoints, got images, masks: the batch lacks target_images, keypoints$"
    with pytest.raises(ValueError, match=lacks):
        pair_images({"images": images, "masks": images[:, 0]}, "Method", "masks", "keypoints")
    with pytest.raises(ValueError, match=r"images of \(4, 8\) \(height, width\), the batch has \(8, 4\)"):
        pair_images(pairs, "Method", image_size=(4, 8))
    for batch, got in ((None, "nothing"), (pairs, "images, masks, target_images")):
        with pytest.raises(ValueError, match=f"Method needs targets with parsing, got {got}"):
            annotation(batch, "parsing", "targets", "Method")


def test_images_and_pictures_are_joined():
    images, pictures = torch.zeros(2, 3, 8, 4), torch.ones(2, 3, 8, 4)
    joined = join_pictures(images, pictures)
    assert joined[:, :3].eq(0).all() and joined[:, 3:].eq(1).all() and joined.shape == (2, 6, 8, 4)
    for wrong, got in ((pictures[:1], r"\[1, 3, 8, 4\]"), (pictures[:, :, :4], r"\[2, 3, 4, 4\]"), (None, "NoneType")):
        with pytest.raises(ValueError, match=rf"one pose picture for each image, \[2, 3, 8, 4\], got {got}"):
            join_pictures(images, wrong)


PRESETS = {"course": dict(width=16, lr=1e-3), "paper": dict(width=64, lr=2e-4)}


def test_presets_fill_what_is_none_and_refuse_what_no_method_can_use():
    given = dict(preset="course", width=None, lr=0.5, pool_size=0, masks=None)
    settings = choose_preset(PRESETS, given)
    assert settings == dict(preset="course", width=16, lr=0.5, pool_size=0, masks=None)
    assert deviations(settings, PRESETS["paper"] | {"masks": None}) == {"width": 16, "lr": 0.5}
    for wrong, words in (
        (dict(preset="big"), "preset must be one of 'course', 'paper'; got 'big'"),
        (dict(width=0), "width >= 1 is accepted, got width=0"),
        (dict(lambda_x=-0.1), "lambda_x >= 0 is accepted, got lambda_x=-0.1"),
        (dict(lambda_x=float("nan")), "lambda_x >= 0 is accepted, got lambda_x=nan"),
        (dict(constant=1.5), "at most 1, got constant=1.5"),
    ):
        with pytest.raises(ValueError, match=words):
            choose_preset(PRESETS, given | wrong)


def test_resized_images_stay_in_range_though_bicubic_overshoots():
    step = torch.full((1, 3, 8, 8), -1.0)
    step[..., 4:] = 1.0
    raw = torch.nn.functional.interpolate(step, (16, 16), mode="bicubic", antialias=True)
    assert raw.max() > 1 and raw.min() < -1
    assert torch.equal(resized(step, (16, 16)), raw.clamp(-1, 1))


@pytest.mark.parametrize("training", [True, False])
def test_a_frozen_copy_is_not_made_but_acted(training):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(8, 3, requires_grad=True)
    found = as_frozen_copy(network, x)
    hidden = network[0](x)
    expected = network[3]((hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt())
    assert torch.allclose(found, expected, atol=1e-5)  # batch statistics, no dropout
    found.square().sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(part.training == training for part in network.modules())
    assert not torch.equal(as_frozen_copy(network, x, dropout=True), as_frozen_copy(network, x, dropout=True))
    with pytest.raises(RuntimeError):
        as_frozen_copy(network, x[:, :2])
    assert all(part.training == training for part in network.modules())


def test_layer_norm_counts_in_its_own_precision():
    torch.manual_seed(0)
    x = 0.01 * torch.randn(2, 4, 16, 8) + 1
    norm = LayerNorm(4)
    assert torch.equal(norm(x.bfloat16()), norm(x.bfloat16().float())) and norm(x.bfloat16()).dtype == torch.float32
