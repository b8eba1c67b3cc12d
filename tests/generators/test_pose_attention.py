"""Pose attention: the networks, the fact sheet's checks 1 to 5."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from pose_attention_toys import SIZE, Constant, images_of, pose_pair, smoke
from torch import nn

from reidlib.generators.pose_attention import PoseAttention
from reidlib.generators.pose_attention_networks import Generator, PAANBlock, PAGNBlock

# ---- check 1: shapes


def traced(n_blocks: int, size=(128, 64), **options) -> tuple[dict[str, list], torch.Tensor]:
    """Return the shapes (without the batch) of what the sheet's tables list, and the images, on no device."""
    seen: dict[str, list] = {name: [] for name in ("paan", "f_I", "f_P", "a in", "a", "f_g", "A", "I in", "I")}
    with torch.device("meta"):
        network = Generator(n_blocks=n_blocks, **options)

        def watch(module, names, chosen):  # a hook that returns something would change the output
            def hook(_, inputs, outputs):
                for name, value in zip(names, chosen(inputs, outputs), strict=True):
                    seen[name].append(tuple(value.shape[1:]))

            module.register_forward_hook(hook)

        for block in network.paan.blocks:
            watch(block, ("f_I", "f_P", "paan"), lambda i, o: o)
        for block in network.pagn:
            watch(block.pose, ("a in", "a"), lambda i, o: (i[0], o))
            watch(block.picture, ("I in", "I"), lambda i, o: (i[0], o))
            watch(block, ("f_g", "A"), lambda i, o: (o[0], o[2]))
        pose = torch.zeros(2, 18, *size)
        made = network(torch.zeros(2, 3, *size), pose, pose).images
    return seen, made


def test_1_the_tables_of_shapes_for_four_blocks():
    seen, made = traced(4)
    code = [(128, 64, 32), (256, 32, 16), (512, 16, 8), (512, 8, 4)]
    assert seen["f_I"] == seen["f_P"] == seen["paan"] == code
    assert seen["a in"] == [(18, 8, 4), (530, 16, 8), (274, 32, 16), (146, 64, 32)]
    levels = [(512, 16, 8), (256, 32, 16), (128, 64, 32), (64, 128, 64)]
    assert seen["a"] == seen["f_g"] == seen["A"] == levels
    assert seen["I in"] == [(512, 16, 8), (768, 32, 16), (384, 64, 32), (192, 128, 64)]
    assert seen["I"] == [(512, 32, 16), (256, 64, 32), (128, 128, 64), (64, 128, 64)]
    assert made.shape == (2, 3, 128, 64)


@pytest.mark.parametrize(
    "n, smallest", [(1, (128, 64, 32)), (2, (256, 32, 16)), (3, (512, 16, 8)), (4, (512, 8, 4)), (5, (512, 4, 2))]
)
def test_1_one_to_five_blocks(n, smallest):
    seen, made = traced(n)
    assert made.shape == (2, 3, 128, 64) and seen["f_I"][-1] == smallest and len(seen["I"]) == n
    assert seen["f_g"][-1] == seen["I"][-1] == (64, 128, 64)


def test_1_the_isotropic_arrangement():
    seen, made = traced(4, paan="isotropic")
    assert made.shape == (2, 3, 128, 64)
    assert seen["f_I"] == seen["f_P"] == [(256, 32, 16)] * 4
    assert seen["a"] == [(256, 32, 16), (256, 32, 16), (128, 64, 32), (64, 128, 64)]
    assert seen["I"] == [(256, 32, 16), (256, 64, 32), (128, 128, 64), (64, 128, 64)]
    assert traced(2, paan="isotropic")[0]["a"] == [(128, 64, 32), (64, 128, 64)]
    assert traced(4, f0="appearance")[0]["a in"][:2] == [(530, 8, 4), (530, 16, 8)]


def test_1_sizes_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match="6 blocks halve images 6 times, got 128x64: the smallest map must be 2 pixels"
    ):
        traced(6)
    with pytest.raises(ValueError, match="5 blocks halve images 5 times, got 64x32"):
        PoseAttention(preset="course", n_blocks=5)
    with pytest.raises(ValueError, match="multiples of 16"):
        PoseAttention(preset="course", image_size=(72, 36))
    method = smoke(n_blocks=5, pad="zero").eval()  # a map of 2x1
    assert method.generate(images_of(), dict(zip(("source", "target"), pose_pair(), strict=True))).isfinite().all()
    for n, paan in ((0, "pyramid"), (1, "isotropic")):
        with pytest.raises(ValueError, match=f"n_blocks >= {n + 1} is accepted for paan='{paan}', got n_blocks={n}"):
            Generator(n_blocks=n, paan=paan)


def test_parameters_are_those_of_the_tables():
    """Weights without a bias before batch normalisation, which has two numbers a channel; counted by hand."""
    c, d = [64, 128, 256, 512, 512], [512, 256, 128, 64]
    count = 49 * 3 * 64 + 49 * 18 * 64 + 2 * (9 * 64 * 64 + 2 * 2 * 64)  # E_A and E_P
    for ins, outs in pairwise(c):
        count += 2 * (9 * ins * outs + 2 * outs + 9 * outs * outs) + 2 * outs + outs  # f_P has a bias and no norm
    before = [0, *d]
    for j in range(4):
        a, b, attention = 16 * (before[j] + 18) * d[j] + d[j], 512 * d[j], 9 * d[j] ** 2 + 2 * d[j]
        count += a + b + attention + (16 if j < 3 else 49) * (before[j] + d[j]) * d[j] + 2 * d[j]
    count += 49 * 128 * 3 + 3
    with torch.device("meta"):
        assert sum(p.numel() for p in Generator().parameters()) == count == 34_283_011


# ---- checks 2 and 3: PAAN


@pytest.mark.parametrize("mask_relu", [False, True])
def test_2_masks_can_suppress_unless_a_relu_precedes_the_sigmoid(mask_relu):
    torch.manual_seed(0)
    made = Generator(width=4, mask_relu=mask_relu)(images_of(), *pose_pair())
    for mask in (*made.paan, *made.pagn):
        assert ((mask > 0) & (mask < 1)).all()
        assert (mask.min() >= 0.5) == mask_relu
    assert len(made.paan) == len(made.pagn) == 4


@pytest.mark.parametrize("halve", [True, False])
def test_3_a_closed_mask_leaves_the_residual_and_an_open_one_adds_all(halve):
    torch.manual_seed(0)
    block = PAANBlock(4, 4, halve=halve)
    appearance, pose = torch.randn(2, 4, 8, 4), torch.randn(2, 4, 8, 4)
    with torch.no_grad():
        u = block.appearance_in(appearance)
        v = block.appearance_out(u)
        residual = u if halve else appearance  # as printed where the size allows it
        for forced, wanted in ((-50.0, residual), (50.0, v + residual)):
            block.pose_out.weight.zero_()
            block.pose_out.bias.fill_(forced)
            torch.testing.assert_close(block(appearance, pose)[0], wanted)


def test_paans_convolutions_by_hand():
    torch.manual_seed(0)
    block = PAANBlock(3, 6, halve=True)
    appearance, pose = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)

    def normed(x):
        return F.relu(
            (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        )

    def mirrored(x):
        return F.pad(x, (1, 1, 1, 1), mode="reflect")

    u = normed(F.conv2d(appearance, block.appearance_in[0].weight, stride=2, padding=1))
    v = normed(F.conv2d(mirrored(u), block.appearance_out[0].weight))
    p = normed(F.conv2d(pose, block.pose_in[0].weight, stride=2, padding=1))
    f_p = F.conv2d(mirrored(p), block.pose_out.weight, block.pose_out.bias)
    for found, wanted in zip(
        block(appearance, pose), (torch.sigmoid(f_p) * v + u, f_p, torch.sigmoid(f_p)), strict=True
    ):
        torch.testing.assert_close(found, wanted)


# ---- check 4: PAGN


def pagn(a: torch.Tensor, b: torch.Tensor, adain: str = "pose_style") -> PAGNBlock:
    channels = a.shape[1]
    block = PAGNBlock(1, b.shape[1], channels, Constant(lambda x: x), double=True, adain=adain, mask_relu=False)
    block.pose, block.appearance = Constant(a), Constant(b)
    return block


def test_4_adain_by_hand():
    a = torch.tensor([[1.0, 1.0], [3.0, 3.0]])[None, None]
    b = torch.tensor([[0.0, 2.0], [4.0, 6.0]])[None, None]
    block = pagn(a, b)
    f, _, _ = block(None, None, b, a)
    wanted = torch.tensor([[1.6584, 2.5528], [5.4472, 6.3416]])
    torch.testing.assert_close(f[0, 0], wanted, rtol=0, atol=1e-4)
    x = (f - a)[0, 0]
    torch.testing.assert_close(x, torch.tensor([[0.6584, 1.5528], [2.4472, 3.3416]]), rtol=0, atol=1e-4)
    assert x.mean().item() == pytest.approx(2, abs=1e-5) and x.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_the_picture_sees_the_masked_x_beside_the_last_picture():
    torch.manual_seed(0)
    a, b, picture = torch.randn(2, 3, 8, 4), torch.randn(2, 3, 4, 2), torch.randn(2, 5, 8, 4)
    block = pagn(a, b)
    f, joined, mask = block(None, picture, b, a)
    grown = b.repeat_interleave(2, 2).repeat_interleave(2, 3)  # nearest neighbours, before the statistics: the same
    centred = (grown - grown.mean((2, 3), keepdim=True)) / (grown.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    x = a.std((2, 3), keepdim=True, correction=0) * centred + a.mean((2, 3), keepdim=True)
    torch.testing.assert_close(f, x + a)
    torch.testing.assert_close(mask, torch.sigmoid(block.attention(x)))
    torch.testing.assert_close(joined, torch.cat([picture, mask * x], dim=1))


def test_adain_in_the_relatives_form():
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 8, 4), torch.randn(2, 6, 4, 2)
    f, _, _ = pagn(a, b, "appearance_modulates")(None, None, b, a)
    gamma, beta = b.repeat_interleave(2, 2).repeat_interleave(2, 3).split(3, dim=1)
    torch.testing.assert_close(f - a, nn.InstanceNorm2d(3)(F.leaky_relu(a, 0.2)) * (gamma + 1) + beta)


def test_the_blocks_are_joined_as_the_equations_say():
    torch.manual_seed(0)
    network = Generator(width=4, n_blocks=2).eval()
    image, (source, target) = images_of(), pose_pair()
    small = F.interpolate(target, (16, 8), mode="bilinear"), F.interpolate(target, (32, 16), mode="bilinear")
    with torch.no_grad():
        code = network.paan(image, source)[0]
        first, second = network.pagn
        f1, i1, _ = first(None, None, code, small[0])
        f2, i2, _ = second(f1, i1, code, small[1])
        a2 = second.pose(torch.cat([f1, small[1]], dim=1))
        wanted = torch.tanh(network.head[0](torch.cat([i2, f2], dim=1)))
        torch.testing.assert_close(network(image, source, target).images, wanted)
        assert i1.shape[-2:] == f2.shape[-2:] == a2.shape[-2:] == SIZE
        network = Generator(width=4, n_blocks=2, f0="appearance").eval()
        asked = []
        network.pagn[0].pose.register_forward_pre_hook(lambda m, i: asked.append(i[0]))
        network(image, source, target)
        torch.testing.assert_close(asked[0], torch.cat([network.paan(image, source)[0], small[0]], dim=1))


# ---- check 5: what the image depends on


def test_5_both_poses_change_the_image_and_the_returned_pose_code_does_not():
    torch.manual_seed(0)
    network = Generator(width=4)
    image, (source, target) = images_of(), pose_pair()
    made = network(image, source, target).images
    assert (network(image, target, target).images - made).abs().max() > 1e-3
    assert (network(image, source, source).images - made).abs().max() > 1e-3
    parameters = list(network.paan.E_P.parameters())
    wanted = torch.autograd.grad(made.square().sum(), parameters)
    network.paan.register_forward_hook(lambda m, i, o: (o[0], o[1].detach(), o[2]))
    again = network(image, source, target).images
    assert torch.equal(again, made)
    for one, other in zip(torch.autograd.grad(again.square().sum(), parameters), wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert any(g.abs().max() > 0 for g in wanted)  # through the masks
