"""DG-Net's networks alone; the numbers are those of the fact sheet's checks."""

import pytest
import torch
import torch.nn.functional as F
from dg_net_toys import smoke
from torch import nn

from reidlib.generators.dg_net_networks import Decoder, DoublingConvolution, StructureEncoder, grey


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(3, 2), (4, 4), (7, 5)])
def test_a_doubled_map_is_convolved_as_it_stands(kernel, size):
    """Values and gradients are those of doubling, reflecting and convolving one behind the other."""
    mode = "reflect" if kernel > 1 else "zeros"
    layer = DoublingConvolution(2, 3, kernel, padding=kernel // 2, padding_mode=mode).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    found, wanted = layer(x), nn.Conv2d.forward(layer, F.interpolate(x, scale_factor=2))
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    of = [x, *layer.parameters()]
    slopes = (torch.autograd.grad(y.square().sum(), of) for y in (found, wanted))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(
    "options",
    [
        dict(padding_mode="zeros"),
        dict(padding_mode="replicate"),
        dict(padding=0),
        dict(stride=2),
        dict(dilation=2),
        dict(groups=2),
        dict(bias=False),
        dict(kernel_size=(5, 3), padding=(2, 1)),
    ],
    ids=lambda options: str(options),
)
def test_other_layers_than_the_decoders_are_computed_as_they_stand(kernel, options):
    usual = dict(kernel_size=kernel, padding=kernel // 2, padding_mode="reflect")
    layer, x = DoublingConvolution(2, 4, **usual | options), torch.randn(2, 2, 6, 5)
    assert torch.equal(layer(x), nn.Conv2d.forward(layer, F.interpolate(x, scale_factor=2)))


def test_a_doubled_map_by_hand():
    """Of the map 1, 2 (columns), doubled 1 1 2 2 and with its reflection 2 1 1 1 2 2 2 1, a kernel counts its left."""
    layer = DoublingConvolution(1, 1, 5, padding=2, padding_mode="reflect", bias=True)
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 2, 0] = 1
        layer.bias.fill_(10)
        row = layer(torch.tensor([1.0, 2.0]).expand(1, 1, 3, 2))
    assert row.shape == (1, 1, 6, 4)
    assert row[0, 0].tolist() == [[12.0, 11.0, 11.0, 11.0]] * 6


def test_2_structure_ignores_scale_and_shift_but_not_sign():
    torch.manual_seed(0)
    network, g = StructureEncoder(), torch.rand(1, 1, 128, 64)
    with torch.no_grad():
        s = network(g)
        spread = s.max() - s.min()
        assert (network(1.7 * g + 0.3) - s).abs().max() < 1e-4 * spread
        assert (network(-g) - s).abs().mean() > 0.1 * s.abs().mean()


def test_3_a_sample_alone_equals_the_same_in_a_batch():
    method = smoke().eval()
    s, f = torch.randn(3, 32, 16, 8), torch.randn(3, 128)
    with torch.no_grad():
        together = method.G(s, f)
        alone = torch.cat([method.G(s[i : i + 1], f[i : i + 1]) for i in range(3)])
    assert torch.allclose(alone, together, atol=3e-6 * together.abs().max().item())
    assert method.G(s[:1], f[:1]).shape == (1, 3, 64, 32)  # nothing is kept of the larger batch


@pytest.mark.parametrize("slices", ["channels", "bands"])
def test_5_slices_of_the_code(slices):
    """Slice 2 of 4 sets AdaIN layers 3 and 4 (from 1): 32 channels with all bands, or all channels of band 2."""
    torch.manual_seed(0)
    decoder = Decoder(512, width=1, units=4, mlp_width=8, slices=slices)
    code = torch.randn(1, 512)
    moved = code.clone().view(1, 128, 4)
    if slices == "channels":
        moved[:, 32:64] += 1
    else:
        moved[:, :, 1] += 1
    with torch.no_grad():
        for old, new in zip(decoder.adain_numbers(code), decoder.adain_numbers(moved.view(1, 512)), strict=True):
            changed = (old != new).view(8, 8)  # [layer, channel]
            assert changed.any(1).tolist() == [False] * 2 + [True] * 2 + [False] * 4


def test_14_grey_is_the_plain_mean_of_normalised_channels():
    assert grey(torch.tensor([0.3, 0.6, 0.9])[None, :, None, None].expand(2, 3, 4, 4)).unique().item() == pytest.approx(
        0.6
    )
