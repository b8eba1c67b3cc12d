"""SAN's networks against the sheet's acceptance checks 1 to 7 (their numbers are in the names)."""

import pytest
import torch
from semantic_attention_toys import (
    SIZE,
    Constant,
    convolutions,
    generator,
    one_batch,
    people,
    smoke,
    step_of,
    strengthen,
)
from torch import nn

from reidlib.datasets.parsing import one_hot
from reidlib.generators.blocks import ResidualDiscriminator
from reidlib.generators.semantic_attention import SAN, SemanticAttentionBlock, SemanticAttentionGenerator, semantic_maps
from reidlib.networks import normalise


@pytest.mark.parametrize(("use_mask", "channels"), [(True, (24, 21)), (False, (23, 20))])
def test_1_input_channels(use_mask, channels):
    method = smoke(use_mask=use_mask)
    seen = Constant(lambda a, s: torch.zeros(2, 3, *SIZE, requires_grad=True))
    assert (method.G.encoder_a[0].in_channels, method.G.encoder_s[0].in_channels) == channels
    method.G, batch = seen, one_batch()
    step_of(method, batch)
    appearance, semantic = seen.seen[0]
    assert (appearance.shape[1], semantic.shape[1]) == channels
    assert torch.equal(appearance[:, :3], normalise(batch["images"], "signed"))
    assert torch.equal(appearance[:, -20:], one_hot(batch["parsing"]))
    assert torch.equal(semantic[:, -20:], one_hot(batch["target_parsing"]))
    assert (semantic[:, -20:].sum(1) == 1).all() and (appearance[:, -20:].sum(1) == 1).all()
    if use_mask:
        assert torch.equal(appearance[:, 3], (batch["masks"] >= 128).float())
        assert torch.equal(semantic[:, 0], (batch["target_masks"] >= 128).float())


def test_1_masks_are_cut_at_one_half_and_come_from_the_labels_where_there_are_none():
    parsing = torch.tensor([[[0, 5, 0, 19]]], dtype=torch.uint8)
    maps = semantic_maps(parsing, torch.tensor([[[0, 127, 128, 255]]], dtype=torch.uint8))
    assert maps[0, 0, 0].tolist() == [0, 0, 1, 1]
    assert semantic_maps(parsing)[0, 0, 0].tolist() == [0, 1, 0, 1]
    assert torch.equal(maps[:, 1:], one_hot(parsing))


@pytest.mark.parametrize("size", [(128, 64), (256, 256)])
def test_2_shapes_of_the_paper(size):
    """Computed without numbers, on torch's "meta" device."""
    with torch.device("meta"):
        network, seen = SemanticAttentionGenerator(), {}
        for name, module in network.named_modules():
            module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
        image = network(torch.zeros(1, 24, *size), torch.zeros(1, 21, *size))
        score = ResidualDiscriminator(6)(torch.zeros(1, 6, *size))

    def shape(name: str) -> list:
        c, h, w = seen[name].shape[1:]
        assert (size[0] // h, size[1] // w) == (size[0] / h, size[1] / w) and size[0] // h == size[1] // w
        return [c, size[0] // h]

    assert image.shape == (1, 3, *size) and score.shape == (1, 1, size[0] // 4, size[1] // 4)
    for side in ("encoder_a", "encoder_s"):
        assert [shape(f"{side}.{layer}") for layer in (2, 5, 8)] == [[64, 1], [128, 2], [256, 4]]
    for t in range(5):
        assert [tensor.shape for tensor in seen[f"blocks.{t}"]] == [(1, 256, size[0] // 4, size[1] // 4)] * 3
    for side in ("conv_a", "conv_s"):
        assert [shape(f"{side}.{i}") for i in range(3)] == [[512, 8], [512, 16], [512, 32]]
    assert [shape(f"decoder.{i}") for i in range(5)] == [[512, 16], [512, 8], [256, 4], [128, 2], [64, 1]]


def test_2_layers_and_parameters_of_the_paper():
    network = SemanticAttentionGenerator()
    for side, ins in (("encoder_a", 24), ("encoder_s", 21)):
        wanted = [("Conv2", ins, 64, 7, 1), ("Conv2", 64, 128, 3, 2), ("Conv2", 128, 256, 3, 2)]
        assert convolutions(getattr(network, side)) == wanted
    same = ("Conv2", 256, 256, 3, 1)
    assert len(network.blocks) == 5
    assert convolutions(network.blocks[0]) == [same, same, same, ("Conv2", 512, 256, 3, 1)]
    kinds = [type(layer).__name__ for layer in network.blocks[0].B]
    assert kinds == ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2 + ["Conv2d"]
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    down = [("Conv2", ins, 512, 3, 2) for ins in (256, 512, 512)]
    assert convolutions(network.conv_a) == convolutions(network.conv_s) == down
    sizes = [(1024, 512), (1536, 512), (1536, 256), (768, 128), (128, 64)]
    assert convolutions(network.decoder) == [("ConvT", *size, 4, 2) for size in sizes]
    assert convolutions(network.last) == [("Conv2", 64, 3, 7, 1)]
    assert network.encoder_a[0].padding_mode == network.encoder_s[0].padding_mode == "reflect"
    assert {m.padding_mode for m in network.encoder_a[1:].modules() if isinstance(m, nn.Conv2d)} == {"zeros"}
    assert network.encoder_a[0].padding == (3, 3) and type(network.last[0]).__name__ == "ReflectionPad2d"
    k7, k3, k4 = 49, 9, 16
    encoders = k7 * (24 + 21) * 64 + 2 * k3 * (64 * 128 + 128 * 256) + 2 * 2 * (64 + 128 + 256)
    block = k3 * 256 * 256 * 5 + 256 + 2 * 3 * 256  # five squares, a bias, three normalisations
    halvings = 2 * (k3 * 512 * (256 + 512 + 512) + 3 * 2 * 512)
    decoder = k4 * sum(a * b for a, b in sizes) + 2 * sum(b for _, b in sizes)
    total = encoders + 5 * block + halvings + decoder + k7 * 64 * 3 + 3
    assert sum(p.numel() for p in network.parameters()) == total == 56_416_643
    moved = SemanticAttentionBlock(256, transfer="appearance")
    assert sum(p.numel() for p in moved.parameters()) == block + 2 * (k3 * 256 * 256 + 512)
    assert [type(layer).__name__ for layer in moved.B_appearance] == [*kinds[:5]]


def test_2_the_decoder_meets_the_maps_of_both_pathways():
    """Each skip matters: without the maps of one size the picture changes."""
    torch.manual_seed(0)
    network = SemanticAttentionGenerator(width=4, n_blocks=1).eval()
    inputs = []
    for i, up in enumerate(network.decoder):
        up.register_forward_pre_hook(lambda m, x, i=i: inputs.append((i, x[0])))
    a, s = torch.rand(2, 2, 16, 16, 8, generator=generator())
    picture = network.decode(a, s)
    maps, x, y = [torch.cat([a, s], 1)], a, s
    for down_a, down_s in zip(network.conv_a, network.conv_s, strict=True):
        x, y = down_a(x), down_s(y)
        maps.append(torch.cat([x, y], 1))
    for i, given in inputs[:4]:
        assert torch.equal(given[:, -maps[3 - i].shape[1] :], maps[3 - i])
    assert inputs[4][1].shape[1] == 8  # the last step has no skip
    for i in range(4):

        def without(module, x, own=inputs[i][1].shape[1] - maps[3 - i].shape[1]):
            return (torch.cat([x[0][:, :own], torch.zeros_like(x[0][:, own:])], 1),)

        hook = network.decoder[i].register_forward_pre_hook(without)
        assert (network.decode(a, s) - picture).abs().max() > 1e-6
        hook.remove()
    assert torch.equal(network.decode(a, s), picture)


def test_2_and_the_range_of_images_in_smoke_and_course():
    for dataset, size in (("market1501", (64, 32)), ("deepfashion", (64, 64))):
        method = SAN(preset="smoke", dataset=dataset)
        maps = method.condition(*(people([1, 1], seed, size).batch([0, 1]) for seed in (0, 1)))
        source = torch.rand(2, 3, *size, generator=generator()) * 2 - 1
        made = method.generate(source, maps)
        assert made.shape == (2, 3, *size) and made.abs().max() <= 1 and not made.requires_grad and method.training
        assert torch.equal(made, method.generate(source, maps))
    for wrong in ((64, 48), (0, 32)):
        with pytest.raises(ValueError, match="multiples of 32"):
            SAN(preset="smoke", image_size=wrong)


def twin_blocks(**options) -> tuple[SemanticAttentionBlock, SemanticAttentionBlock]:
    """Two blocks of the same weights with another mask sign."""
    torch.manual_seed(0)
    blocks = [SemanticAttentionBlock(6, mask_sign=sign, **options).eval() for sign in (1, -1)]
    blocks[1].load_state_dict(blocks[0].state_dict())
    return blocks[0], blocks[1]


def force(block: SemanticAttentionBlock, value: float) -> None:
    """Make S_t a constant."""
    nn.init.zeros_(block.B[-1].weight)
    nn.init.constant_(block.B[-1].bias, value)


def test_3_both_signs_of_the_mask():
    plain, printed = twin_blocks()
    a, s = torch.rand(2, 1, 6, 8, 4, generator=generator())
    for block, wanted in ((plain, 0.880797), (printed, 0.119203)):
        force(block, 2.0)
        assert torch.allclose(block(a, s)[2], torch.tensor(wanted), atol=1e-6)
    assert torch.allclose(plain(a, s)[2] + printed(a, s)[2], torch.ones(1), atol=1e-6)


def test_3_the_printed_sign_is_a_switch_of_the_method():
    method = smoke(mask_sign=-1)
    assert [block.mask_sign for block in method.G.blocks] == [-1, -1] and method.deviations["mask_sign"] == -1


@pytest.mark.parametrize("sem_operand", ["convolved", "raw"])
def test_3_the_signs_are_one_network_under_other_weights(sem_operand):
    plain, printed = twin_blocks(sem_operand=sem_operand)
    a, s = torch.rand(2, 2, 6, 8, 4, generator=generator())
    assert not torch.allclose(plain(a, s)[0], printed(a, s)[0], atol=1e-4)
    with torch.no_grad():
        for parameter in printed.B[-1].parameters():
            parameter.neg_()
        if sem_operand == "convolved":
            printed.conv[0].weight[:, :6].neg_()  # what reads S_t
    for ours, theirs in zip(plain(a, s), printed(a, s), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_4_a_mask_of_one_adds_the_semantic_code_and_a_mask_of_zero_nothing():
    a, s = torch.randn(2, 2, 6, 8, 4, generator=generator())
    for transfer in ("semantic", "appearance"):
        block = twin_blocks(transfer=transfer)[0]
        force(block, 50.0)
        added = s if transfer == "semantic" else block.B_appearance(a)
        assert torch.allclose(block(a, s)[0], a + added, atol=1e-6)
        force(block, -50.0)
        assert torch.allclose(block(a, s)[0], a, atol=1e-6)


@pytest.mark.parametrize("sem_operand", ["convolved", "raw"])
def test_5_the_semantic_code_sees_the_new_appearance_code(sem_operand):
    block = twin_blocks(sem_operand=sem_operand)[0]
    a, s = torch.rand(2, 2, 6, 8, 4, generator=generator())
    new_a, new_s, _ = block(a, s)
    joined = block.B(s) if sem_operand == "convolved" else s
    assert torch.allclose(new_s, block.conv(torch.cat([joined, new_a], 1)), atol=1e-6)
    assert not torch.allclose(new_s, block(a + 0.1, s)[1], atol=1e-4)


def test_6_as_many_masks_as_blocks_and_the_codes_to_look_at():
    for n in (1, 3):
        method = smoke(n_blocks=n)
        strengthen(method)
        batch = people([1, 1]).batch([0, 1])
        source = batch["images"].float() / 127.5 - 1
        maps = method.condition(batch, batch)
        found = method.codes(source, maps)
        assert (len(found.masks), len(found.appearance), len(found.semantic)) == (n, n + 1, n + 1)
        for mask in found.masks:
            assert mask.shape == (2, 16, 16, 8) and mask.min() > 0 and mask.max() < 1
        with torch.no_grad():
            last = method.eval().G.decode(found.appearance[-1], found.semantic[-1])
            first = method.G.decode(found.appearance[0], found.semantic[0])
        made = method.generate(source, maps)
        assert torch.allclose(last, made, atol=1e-6) and not torch.allclose(first, made, atol=1e-3)


def test_7_the_discriminator_sees_source_and_candidate():
    batch = one_batch()
    source, target = (normalise(batch[name], "signed") for name in ("images", "target_images"))
    for fake_cond, conditional, channels in (("source", True, 6), ("target", True, 6), ("source", False, 3)):
        method = smoke(fake_cond=fake_cond, conditional=conditional)
        assert method.D.layers[1].in_channels == channels
        fake = torch.zeros(2, 3, *SIZE, requires_grad=True)
        method.G, method.D = Constant(lambda a, s, fake=fake: fake), Constant(lambda x: x.new_zeros(2, 1, 16, 8))
        losses, calls = step_of(method, batch)
        assert losses["L_adv"] == pytest.approx(0.6931, abs=1e-4) and losses["D"] == pytest.approx(0.6931, abs=1e-4)
        beside = {"source": source, "target": target}[fake_cond]
        for (seen,), pair in zip(
            method.D.seen, ((beside, fake), (source, target), (beside, fake)), strict=True
        ):  # G's look, then D's at the real and at the generated pair
            assert torch.equal(seen, torch.cat(pair, 1) if conditional else pair[1])
        assert [seen[0].requires_grad for seen in method.D.seen] == [True, False, False]
        assert [name for name, _ in calls] == ["G", "D"]
    assert smoke(score="features").D(torch.zeros(1, 6, *SIZE)).shape == (1, 16, 16, 8)
