"""The shared blocks: published parameter counts, patch sizes, initial weights."""

import pytest
import torch
from torch import nn

from reidlib.generators.blocks import PatchDiscriminator, ResidualGenerator, ResidualUnit, make_norm
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
        assert count(PatchDiscriminator(3, norm="instance", biases=(True, True, True))) == 2_764_737
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
    with pytest.raises(ValueError, match="batch, instance, got 'layer'"):
        make_norm("layer", 4)
