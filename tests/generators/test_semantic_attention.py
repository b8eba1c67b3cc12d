"""SAN against the sheet's acceptance checks (their numbers are in the names), and its refusals.

Check 9 is in tests/losses/test_perceptual.py too, 10 and 11 in tests/evaluators/test_image_quality.py, 14 in
tests/embedders/test_siamese.py, 15 in tests/datasets/test_parsing.py.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets import Benchmark, PersonImages, extend
from reidlib.datasets.parsing import one_hot
from reidlib.datasets.procedural import render
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.evaluators.judges import load_judges
from reidlib.experiments import augmented, judge_generator
from reidlib.generators import semantic_attention as san
from reidlib.generators.blocks import ResidualDiscriminator
from reidlib.generators.recorded import load_generator, save_generator
from reidlib.generators.semantic_attention import (
    SAN,
    SemanticAttentionBlock,
    SemanticAttentionGenerator,
    augmentation_pairs,
    san_pairs,
    semantic_maps,
    usable_images,
)
from reidlib.generators.synthesis import stream, synthesise, train_generator
from reidlib.networks import SmallResNet, normalise
from reidlib.training import fit

SIZE = (64, 32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(pids: list[int], seed: int = 0, size=SIZE, **without) -> PersonImages:
    g, n = generator(seed), len(pids)
    known = dict(
        masks=torch.randint(0, 256, (n, *size), generator=g, dtype=torch.uint8),
        parsing=torch.randint(0, 20, (n, *size), generator=g, dtype=torch.uint8),
    )
    images = torch.randint(0, 256, (n, 3, *size), generator=g, dtype=torch.uint8)
    return PersonImages(images, pids, [1, 2] * (n // 2) + [1] * (n % 2), **known | without)


def one_batch(n: int = 2, size=SIZE, **without) -> dict:
    data = people([1] * (n + 1), size=size, **without)
    return Batches(data, pair_batches(torch.tensor([[i, i + 1] for i in range(n)]), n))(0)


def step_of(method: SAN, batch: dict) -> tuple[dict, list]:
    calls = []
    losses = method.training_step(batch, 0, lambda name, loss: calls.append((name, loss)))
    return {name: value.item() for name, value in losses.items()}, calls


def smoke(**options) -> SAN:
    torch.manual_seed(0)
    return SAN(preset="smoke", **{"use_perceptual": False} | options)


class Constant(nn.Module):
    """A network that gives what a function of its inputs says, and keeps what it was given."""

    def __init__(self, value) -> None:
        super().__init__()
        self.value, self.seen = value, []

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.seen.append(inputs)
        return self.value(*inputs)


def vgg() -> nn.Module:
    """The first two convolutions of a VGG, with random weights: as far as relu1_2."""
    network = nn.Module()
    network.features = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())
    network.avgpool, network.classifier = nn.Identity(), nn.Sequential()
    return network


def strengthen(method: SAN) -> None:
    """Give larger weights: with the first ones, differences inside hardly show in the picture."""
    for module in method.G.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, generator=generator())


def convolutions(network: nn.Module) -> list[tuple]:
    found = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    return [(type(m).__name__[:5], m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in found]


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


@pytest.mark.parametrize(("dataset", "total"), [("market1501", 10.5), ("deepfashion", 11.2)])
def test_8_the_weights_of_the_losses(dataset, total, monkeypatch):
    monkeypatch.setattr(san, "adversarial_loss", lambda *_: torch.tensor(0.7))
    monkeypatch.setattr(san.blocks, "foreground_l1", lambda *_: torch.tensor(0.2))
    monkeypatch.setattr(san, "perceptual_loss", lambda *_, **__: torch.tensor(0.1))
    paper = SAN(preset="paper", dataset=dataset, width=4, discriminator_width=4, guide=vgg()).settings
    weights = {name: paper[name] for name in ("alpha", "beta", "gamma")}
    method = SAN(preset="smoke", guide=SmallResNet(4), **weights)
    losses, calls = step_of(method, one_batch())
    assert losses["L_full"] == pytest.approx(total) and calls[0][1].item() == pytest.approx(total)
    assert paper["lr"] == 2e-4 and (paper["layer"], paper["p"], paper["relative"]) == ("relu1_2", 2, False)
    without, _ = step_of(smoke(**weights), one_batch())
    assert without["L_full"] == pytest.approx(total - 0.5) and "L_perc" not in without


def test_8_l1_is_the_mean_and_weighs_the_person_where_asked():
    batch = one_batch()
    target = batch["target_images"].float() / 127.5 - 1
    batch["target_masks"] = torch.zeros(2, *SIZE, dtype=torch.uint8)
    batch["target_masks"][:, :16] = 200  # binarised: a whole person
    inside = torch.zeros(2, 3, *SIZE)
    inside[:, :, :16] = 0.3
    for weight, wanted in ((1.0, 0.075), (4.0, 0.3 * 4 / 7)):
        method = smoke(foreground_weight=weight)
        method.G = Constant(lambda a, s: (target + inside).requires_grad_())
        assert step_of(method, batch)[0]["L_l1"] == pytest.approx(wanted, abs=1e-5)
    del batch["target_masks"]
    assert step_of(method, batch)[0]["L_l1"] > 0  # from the labels


def test_without_masks_no_mask_is_read():
    """The person's weight in L1, and the cut-out source, then come from the labels."""
    batch = one_batch()
    method = smoke(use_mask=False, foreground_weight=4.0, mask_image=True)
    method.D.requires_grad_(False).eval()
    labels = {n: 255 * (batch[n.replace("masks", "parsing")] != 0).byte() for n in ("masks", "target_masks")}
    with_masks, without = smoke(foreground_weight=4.0), []
    method.G.eval()
    for given in (batch, batch | {n: 255 - m for n, m in batch.items() if "masks" in n}, batch | labels):
        without.append(step_of(method, given)[0]["L_l1"])
    assert without[0] == without[1] == without[2]
    given = batch | {"target_masks": 255 - batch["target_masks"]}
    assert step_of(with_masks, batch)[0]["L_l1"] != step_of(with_masks, given)[0]["L_l1"]


@pytest.mark.parametrize(("p", "wanted"), [(2, 0.25), (1, 0.5)])
def test_9_the_perceptual_loss_of_half_a_unit(p, wanted):
    """The guide gives the normalised pixels themselves; 0.5 in them is 0.5 * std * 2 in [-1, 1]."""
    guide = nn.Module()
    guide.stem, guide.stages = nn.Identity(), nn.ModuleList([nn.Identity()])
    method, batch = smoke(guide=guide, use_perceptual=True, p=p, relative=False, layer="stem"), one_batch()
    shift = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    method.G = Constant(lambda a, s: (batch["target_images"].float() / 127.5 - 1 + shift).requires_grad_())
    assert step_of(method, batch)[0]["L_perc"] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("shift", "values"), [(0, 1), (8, 2)])
def test_the_guide_sees_shifted_images(shift, values):
    method, batch = smoke(guide=SmallResNet(4), use_perceptual=True, guide_shift=shift), one_batch()
    method.G = Constant(lambda a, s: (batch["images"].float() / 127.5 - 1).requires_grad_())
    found = {step_of(method, batch)[0]["L_perc"] for _ in range(8)}
    assert min(len(found), 2) == values


def test_9_and_the_guide_is_frozen_and_no_part_of_the_state():
    guide = SmallResNet(4)
    method = smoke(guide=guide, use_perceptual=True)
    assert method.state_dict().keys() == smoke().state_dict().keys() and method.settings["features"] == "SmallResNet"
    kept = method._guide.on(torch.device("cpu"))
    assert not kept.training and not any(p.requires_grad for p in kept.parameters()) and guide.training
    with pytest.raises(ValueError, match="needs guide="):
        step_of(SAN(preset="smoke"), one_batch())
    with pytest.raises(ValueError, match="layer must be one of 'stem'"):
        step_of(smoke(guide=guide, use_perceptual=True, layer="relu1_2"), one_batch())
    with pytest.raises(TypeError, match="guide must be a network"):
        SAN(preset="smoke", guide=lambda images: images)
    paper = SAN(preset="paper", width=4, discriminator_width=4, n_blocks=1, guide=guide, image_size=SIZE)
    assert paper.settings["layer"] is paper.deviations["layer"] is None  # all stages: it has no relu1_2
    assert step_of(paper, one_batch())[0]["L_perc"] > 0
    assert SAN(preset="paper", width=4, n_blocks=1, guide=vgg()).settings["layer"] == "relu1_2"
    off = smoke(guide=guide)
    assert off.settings["gamma"] == 0 and off._guide is None


def test_12_pairs_of_three_two_and_one_image():
    data = people([5, 9, 5, 4, 5, 9])
    pairs = san_pairs(data)
    assert len(pairs) == 8 and (pairs[:, 0] != pairs[:, 1]).all() and 3 not in pairs
    assert (data.pids[pairs[:, 0]] == data.pids[pairs[:, 1]]).all()
    near = san_pairs(data.with_labels(camids=[1, 2, 1, 1, 2, 2]), "same_camera")  # 4 of the pairs are of one camera
    assert near.tolist() == [[0, 2], [1, 5], [2, 0], [5, 1]]
    with pytest.raises(ValueError, match="'all', 'same_camera'"):
        san_pairs(data, "other_camera")
    with pytest.raises(ValueError, match=r"no identity has two images to pair: 3 of 3 images can be used .* 3 ident"):
        san_pairs(people([1, 2, 3]))


def test_12_what_shows_nobody_is_not_paired():
    data = people([1] * 70)
    masks, parsing = data.masks.clone(), data.parsing.clone()
    masks[2] = 127  # empty at one half
    parsing[66] = torch.where(parsing[66] > 9, 5, 0)  # one class
    parsing[67] = torch.where(parsing[67] > 9, 5, 9)  # two, and no background
    data = people([1] * 70, masks=masks, parsing=parsing.to(torch.uint8))
    assert (~usable_images(data)).nonzero().flatten().tolist() == [2, 66]
    assert usable_images(people([1] * 70, masks=None, parsing=parsing))[2]
    assert len(san_pairs(data)) == 68 * 67


def test_13_alpha_multiplies_the_set():
    data = people([3, 3, 7, 7, 8])
    pairs = augmentation_pairs(data, 3, seed=4)
    made = synthesise(smoke(), data, pairs, targets=data)
    assert len(made) == 10 and made.pids.tolist() == data.pids.repeat_interleave(2).tolist()
    assert torch.equal(pairs, augmentation_pairs(data, 3, seed=4))
    assert not torch.equal(pairs, augmentation_pairs(data, 3, seed=5))
    assert (pairs[:, 0] != pairs[:, 1]).all() and len(pairs.unique(dim=0)) == 10  # never itself, none twice
    assert augmentation_pairs(data, 1).shape == (0, 2)
    assert augmentation_pairs(data, 5)[:4, 1].sort().values.tolist() == [1, 2, 3, 4]  # anybody's pose
    for alpha in (0, 1.5, -2):
        with pytest.raises(ValueError, match="whole number of at least 1"):
            augmentation_pairs(data, alpha)
    with pytest.raises(ValueError, match="needs 5 targets for each image, there are 4"):
        augmentation_pairs(data, 6)


def test_the_rate_is_constant_then_falls():
    for dataset, constant in (("market1501", 300 / 400), ("deepfashion", 500 / 700)):
        with torch.device("meta"):
            method = SAN(preset="paper", dataset=dataset)
        steps = method.settings["steps"]
        assert steps * san.BATCH[dataset] == {"market1501": 400, "deepfashion": 700}[dataset] * 4000
        turn = round(constant * steps)
        assert [method.schedule(step) for step in (0, turn)] == pytest.approx([1, 1])
        assert method.schedule((turn + steps) // 2) == pytest.approx(0.5) and method.schedule(steps) == 0
    method = smoke(steps=100, decay="from_start")
    assert [method.schedule(step) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert smoke(steps=100, epochs=100, n_decay=0).schedule(99) == 1


@pytest.mark.parametrize(("dataset", "epochs"), [("market1501", 300), ("deepfashion", 500)])
def test_the_papers_length_follows_its_epochs(dataset, epochs):
    """The sheet: from the start, the rate reaches 0 at epoch 300 (500); epochs are of 4,000 pairs."""
    epoch = 4000 // san.BATCH[dataset]

    def paper(**options) -> SAN:
        with torch.device("meta"):
            return SAN(preset="paper", dataset=dataset, **options)

    method = paper(decay="from_start")
    last = epochs * epoch
    assert last == {"market1501": 37_500, "deepfashion": 250_000}[dataset]
    assert [method.schedule(step) for step in (0, last // 2, last)] == pytest.approx([1, 0.5, 0])
    assert (method.settings["steps"], method.settings["n_decay"]) == (last, 0)
    assert method.deviations == {"features": None, "decay": "from_start", "n_decay": 0, "steps": last}
    assert paper(n_decay=0).settings["steps"] == last and paper(n_decay=0).schedule(last - 1) == 1
    assert paper(epochs=10, n_decay=5).settings["steps"] == 15 * epoch
    assert paper(epochs=10, steps=7).settings["steps"] == 7
    with pytest.raises(ValueError, match="n_decay cannot be given"):
        paper(decay="from_start", n_decay=50)
    for name, (_, adam, _) in smoke().optimizers().items():
        assert name in "GD" and adam.defaults["betas"] == (0.5, 0.999)


def test_gradients_reach_the_named_network_only_and_all_of_it():
    method = smoke(guide=SmallResNet(4), use_perceptual=True, transfer="appearance")
    grads = {}

    def update(name: str, loss: torch.Tensor) -> None:
        parameters = dict(method.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
        grads[name] = {n for n, g in zip(parameters, found, strict=True) if g is not None and g.abs().sum() > 0}

    method.training_step(one_batch(), 0, update)
    names = {n for n, _ in method.named_parameters()}
    assert grads["D"] == {n for n in names if n.startswith("D.")}
    assert {n for n in names if n.startswith("G.")} <= grads["G"]


def test_the_first_weights():
    method = SAN(preset="smoke", width=16, discriminator_width=16)
    weights = torch.cat([m.weight.flatten() for m in method.modules() if isinstance(m, nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02) and abs(weights.mean().item()) < 1e-3
    scales = torch.cat([m.weight for m in method.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.01) and scales.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(isinstance(m, nn.Dropout) for m in method.G.modules())
    assert {m.p for m in method.D.modules() if isinstance(m, nn.Dropout)} == {0.5}


@pytest.mark.xdist_group("a full step")  # 4 to 5 GiB each: one after the other
@pytest.mark.parametrize(
    ("dataset", "size", "n", "pieces"), [("market1501", (128, 64), 32, 1), ("deepfashion", (256, 256), 8, 2)]
)
def test_a_full_step_at_the_papers_sizes(dataset, size, n, pieces):
    """The paper's networks, image sizes, losses and batch, DeepFashion's in two pieces (8 at once take over 7 GiB)."""
    torch.manual_seed(0)
    method = SAN(preset="paper", dataset=dataset, guide=vgg())
    assert sum(p.numel() for p in method.G.parameters()) == 56_416_643 and method.D.layers[1].out_channels == 64
    assert set(method.deviations) == {"features"}  # the guide's weights are random
    before = {k: v.clone() for k, v in method.state_dict().items()}
    data = people([1] * (n + 1), size=size)
    batches = Batches(data, pair_batches(torch.tensor([[i, i + 1] for i in range(n)]), n))
    options = dict(device="cpu", precision="fp32", log_every=1, progress=False)
    history = fit(method, batches, 1, accumulation=pieces, **options)
    assert history.images == n
    row, weights = history.losses.iloc[-1], method.settings
    wanted = sum(weights[weight] * row[term] for term, weight in san.WEIGHTS.items())
    assert row["L_full"] == pytest.approx(wanted, rel=1e-5) and row["L_perc"] > 0
    after = method.state_dict()
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))
    moved = max((before[k] - after[k]).abs().max().item() for k in before if k.endswith("weight"))
    assert moved == pytest.approx(2e-4, rel=1e-2)  # Adam's first step


def test_a_recorded_one_draws_the_same_without_the_guide(tmp_path):
    method, batch = smoke(guide=SmallResNet(4), use_perceptual=True), people([1, 1]).batch([0, 1])
    fit(method, lambda step: one_batch(4), 2, device="cpu", precision="fp32", progress=False)
    save_generator(method, tmp_path / "mine.safetensors")
    again, facts = load_generator("mine", folder=tmp_path)
    for tensor in method.state_dict().values():  # as stored: rounded to half precision
        tensor.copy_(tensor.half().float())
    images, maps = batch["images"].float() / 127.5 - 1, method.condition(batch, batch)
    assert torch.equal(again.generate(images, maps), method.generate(images, maps))
    assert facts["settings"]["features"] == "SmallResNet" and again.settings["features"] is None


def test_settings_say_what_is_not_as_published():
    with torch.device("meta"):
        paper = SAN(preset="paper", guide=None)
    assert paper.deviations == {"features": None}  # no VGG was given
    course = SAN(preset="course", guide=SmallResNet(4), mask_image=True)
    changed = {"features", "layer", "relative", "foreground_weight", "image_size", "width", "mask_image", "alpha"}
    assert changed <= set(course.deviations)
    assert "beta" not in course.deviations and course.settings["dataset"] == "market1501"
    assert smoke().deviations["gamma"] == 0


def test_the_image_is_multiplied_by_the_mask_where_asked():
    batch = people([1, 1]).batch([0, 1])
    images = torch.rand(2, 3, *SIZE, generator=generator())
    for mask_image in (False, True):
        method = smoke(mask_image=mask_image)
        seen = Constant(lambda a, s: a[:, :3])
        method.G = seen
        method.generate(images, method.condition(batch, batch))
        inside = (batch["masks"] > 127)[:, None] if mask_image else 1
        assert torch.equal(seen.seen[0][0][:, :3], images * inside)


def test_the_parse_map_of_the_target_changes_the_picture():
    """What the sheet calls leakage: another layout of clothes in the same pose makes another image."""
    method, batch = smoke(), people([1, 1]).batch([0, 1])
    strengthen(method)
    images = batch["images"].float() / 127.5 - 1
    edited = batch | {"parsing": torch.where(batch["parsing"] == 12, 9, batch["parsing"])}  # skirt to trousers
    plain, other = (method.generate(images, method.condition(target, batch)) for target in (batch, edited))
    assert (plain - other).abs().max() > 1e-4


def without(batch: dict, *names: str) -> dict:
    return {n: v for n, v in batch.items() if n not in names}


def test_bad_batches_are_refused():
    method, batch = smoke(), one_batch()
    for name in ("parsing", "target_parsing", "target_images"):
        with pytest.raises(ValueError, match=f"the batch lacks {name}"):
            step_of(method, without(batch, name))
    with pytest.raises(ValueError, match=r"of \(64, 32\) .*the batch has \(128, 64\)"):
        step_of(method, one_batch(size=(128, 64)))
    with pytest.raises(ValueError, match=r"masks must be uint8 \[2, 64, 32\], got torch.uint8 \[2, 32, 32\]"):
        step_of(method, batch | {"target_masks": torch.zeros(2, 32, 32, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="from 0 to 19, got 20"):
        step_of(method, batch | {"parsing": torch.full((2, *SIZE), 20, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="SAN needs parsing"):
        san_pairs(people([1, 1], parsing=None))


def test_bad_conditions_are_refused():
    method, batch = smoke(), people([1, 1]).batch([0, 1])
    for sources, targets, words in (
        (batch, None, "SAN needs targets with parsing, got nothing"),
        (None, batch, "SAN needs sources with parsing, got nothing"),
        (batch, without(batch, "parsing"), "SAN needs targets with parsing, got camids"),
    ):
        with pytest.raises(ValueError, match=words):
            method.condition(targets, sources)
    maps, images = method.condition(batch, batch), torch.zeros(2, 3, *SIZE)
    for wrong in (None, maps["source"], {"source": maps["source"]}, maps | {"target": maps["target"][:, 1:]}):
        with pytest.raises(ValueError, match=r"condition must hold maps \[2, 21, 64, 32\] of the source and of the"):
            method.generate(images, wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(preset="large"), "'smoke', 'course', 'paper'"),
        (dict(dataset="msmt17"), "'market1501', 'deepfashion'"),
        (dict(mask_sign=0), "mask_sign must be one of 1, -1"),
        (dict(transfer="both"), "'semantic', 'appearance'"),
        (dict(sem_operand="both"), "'convolved', 'raw'"),
        (dict(fake_cond="none"), "'source', 'target'"),
        (dict(decay="never"), "'after', 'from_start'"),
        (dict(score="mean"), "'map', 'features'"),
        (dict(p=3), "p must be one of 1, 2"),
        (dict(gamma=-1), "gamma=-1"),
        (dict(blocks=3), "switch must be one of 'image_size', .*; got 'blocks'"),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SAN(**{"preset": "smoke"} | options)


def test_perceptual_and_l1_pull_a_picture_to_its_target():
    """A few steps on one batch bring the mean difference down."""
    torch.manual_seed(0)
    data = people([1] * 4)
    smooth = F.interpolate(torch.rand(4, 3, 8, 4, generator=generator()), SIZE, mode="bilinear")
    data = PersonImages((smooth * 255).to(torch.uint8), data.pids, data.camids, masks=data.masks, parsing=data.parsing)
    method = SAN(preset="smoke", guide=SmallResNet(4), lr=4e-3, beta=100, steps=10**6, foreground_weight=1)
    history = fit(method, Batches(data, pair_batches(san_pairs(data), 4)), 30, device="cpu", precision="fp32",
                  log_every=5, progress=False)  # fmt: skip
    assert history.losses["L_l1"].iloc[-1] < 0.75 * history.losses["L_l1"].iloc[0]


def rendered(ids: range) -> PersonImages:
    """Each person twice in three cameras."""
    rows = [(pid, camid, moment) for pid in ids for camid in (1, 2, 3) for moment in (0, 1)]
    pids, camids, moments = zip(*rows, strict=True)
    made = render(pids, camids, moments=moments, image_size=SIZE, scene="generation", seed=0)
    return PersonImages(made.images, pids, camids, keypoints=made.keypoints, masks=made.masks, parsing=made.parsing)


def test_12_and_the_whole_way_on_rendered_people(tmp_path):
    """Pair, train (and resume), generate in memory, batch by batch and in a file, judge."""
    people = rendered(range(1, 6))
    bench = Benchmark("toy", people, people, people).validation(identities=2)
    train, test = bench.train, extend(bench.query, bench.gallery)
    pairs, asked = san_pairs(train, "same_camera"), san_pairs(test)[:8]
    assert len(pairs) == 3 * 3 * 2
    trained, tested = (set(data.pids[rows].flatten().tolist()) for data, rows in ((train, pairs), (test, asked)))
    assert trained and tested and not trained & tested
    build = partial(SAN, preset="smoke", guide=SmallResNet(4))
    options = dict(images_seen=24, batch_size=4, device="cpu", precision="fp32", progress=False)
    method, history = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")
    assert history.steps == 6 and history.losses[["L_adv", "L_l1", "L_perc", "L_full", "D"]].notna().all(axis=None)
    again, _ = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")  # the finished run is taken up
    state = method.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())
    made = synthesise(method, test, asked, targets=test, folder=tmp_path / "made", batch_size=3)
    streamed = torch.cat([images for _, images in stream(method, test, asked, targets=test, batch_size=8)])
    assert (made.images.float() - streamed.float()).abs().max() <= 1
    assert made.pids.tolist() == test.pids[asked[:, 0]].tolist()
    table = judge_generator(method, test, asked, targets=test, judges=load_judges(), gallery=test, copy=True)
    assert list(table.index) == ["copy of the source", "SAN"] and table.notna().all(axis=None)
    assert {"PCK@0.1", "identity kept, rank-1", "FID", "SSIM"} <= set(table.columns)
    assert table.loc["copy of the source", "SSIM"] != table.loc["SAN", "SSIM"]
    larger = augmented(train, method, pairs=augmentation_pairs(train, 2), targets=train)
    assert len(larger) == 2 * len(train) and int(larger.is_generated.sum()) == len(train)
