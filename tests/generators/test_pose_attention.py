"""Pose attention against its fact sheet: the numbers of the tests are those of the sheet's acceptance checks."""

from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets import PersonImages, load, poses
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.embedders import Embedder
from reidlib.evaluators.judges import load_judges
from reidlib.experiments import judge_generator
from reidlib.generators import pose_attention
from reidlib.generators.pose_attention import (
    PAPER,
    PRESETS,
    Generator,
    PAANBlock,
    PAGNBlock,
    PoseAttention,
    augmentation_pairs,
    decay,
    pose_attention_pairs,
)
from reidlib.generators.recorded import load_generator, save_generator
from reidlib.generators.synthesis import stream, synthesise, train_generator
from reidlib.losses import draw_quartets, quartet_loss
from reidlib.networks import SmallResNet, normalise, signed_to_imagenet
from reidlib.training import fit
from reidlib.training.updates import plain_update

HEAD = dict(dimensions=128, norm="batch", relu=True, dropout=0.5, feature="layer")
SIZE = (64, 32)


def people(pids: list[int], seed: int = 0, size=SIZE) -> PersonImages:
    g = torch.Generator().manual_seed(seed)
    n = len(pids)
    images = F.interpolate(torch.rand(n, 3, 8, 4, generator=g), size, mode="bilinear")
    points = torch.cat([torch.rand(n, 18, 2, generator=g) * torch.tensor([size[1], size[0]]), torch.ones(n, 18, 1)], -1)
    masks = torch.randint(0, 256, (n, *size), generator=g, dtype=torch.uint8)
    return PersonImages(
        (images * 255).to(torch.uint8), pids, [i % 2 + 1 for i in range(n)], keypoints=points, masks=masks
    )


def one_batch(ids: int = 3, size=SIZE) -> dict:
    pairs = torch.tensor([[2 * i, 2 * i + 1] for i in range(ids)])
    data = people([i + 1 for i in range(ids) for _ in range(2)], size=size)
    return Batches(data, pair_batches(pairs, ids))(0)


def encoder(n_classes: int = 3, **head) -> Embedder:
    return Embedder(n_classes, width=4, heads=[HEAD | head])


def smoke(with_encoder: bool = False, **options) -> PoseAttention:
    torch.manual_seed(0)
    published = dict(lambda_gan=5.0, adain="pose_style")  # which the course changes
    return PoseAttention(encoder() if with_encoder else None, **{"preset": "smoke", "width": 4} | published | options)


def step_of(method: PoseAttention, batch: dict) -> tuple[dict, dict]:
    """Take a training step that only records what `update` was given."""
    calls = {}
    terms = method.training_step(batch, 0, lambda name, loss: calls.setdefault(name, loss))
    return terms, calls


def pose_pair(n: int = 2, size=SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(poses.heat_maps(people([1] * n, seed, size).keypoints, size) for seed in (1, 2))


def images_of(n: int = 2, size=SIZE) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(3)) * 2 - 1


class Constant(nn.Module):
    """Gives a tensor, or what a function makes of the input."""

    def __init__(self, value) -> None:
        super().__init__()
        self.value = value

    def forward(self, *inputs: torch.Tensor):
        return self.value(*inputs) if callable(self.value) else self.value


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


# ---- checks 6 and 8: the terms by hand (6 and 7 for the loss itself: tests/losses/test_metric.py)


def test_6_quartets_have_the_condition_image_as_anchor(monkeypatch):
    """The pool is {I_c, I_t, I_g}: of each pair one quartet, whose positive is another image of its identity."""
    method, batch, seen, drawn = smoke(True), one_batch(4), [], []
    method.E = encoder(4)
    method.train()
    method.E.heads[0].register_forward_hook(lambda m, i, o: seen.append(o))

    def draw(labels, generator, images):
        drawn.append(draw_quartets(labels, generator, images=images))
        return drawn[-1]

    monkeypatch.setattr(pose_attention, "draw_quartets", draw)
    terms, _ = step_of(method, batch)
    every = batch["labels"].repeat(3)
    used = drawn[0][:4]
    assert used[:, 0].tolist() == [0, 1, 2, 3] and (every[used[:, 0]] == every[used[:, 1]]).all()
    assert all(len(set(every[row[[0, 2, 3]]].tolist())) == 3 for row in used)
    found = seen[-1]
    unit = F.normalize(found.compared, dim=1)
    d = lambda i, j: (unit[used[:, i]] - unit[used[:, j]]).square().sum(1)  # noqa: E731
    wanted = (F.relu(2 * d(0, 1) - d(0, 2) - d(3, 2) + 1) + F.relu(d(0, 1) - 0.01)).mean()
    torch.testing.assert_close(terms["L_quartet"], wanted)
    torch.testing.assert_close(terms["L_id"], F.cross_entropy(found.logits, every))
    torch.testing.assert_close(terms["E"], terms["L_quartet"] + terms["L_id"])


def drawn_by(method, batch, monkeypatch, times: int = 1) -> list[torch.Tensor]:
    """Return the quartets that a method draws of a batch."""
    drawn = []
    monkeypatch.setattr(
        pose_attention, "draw_quartets", lambda *a, **given: drawn.append(draw_quartets(*a, **given)) or drawn[-1]
    )
    for seed in range(times):
        torch.manual_seed(seed)
        step_of(method, batch)
    return drawn


def test_6_a_positive_is_another_photograph(monkeypatch):
    """Two pairs of one source, and a source that is another pair's target: the same photograph stands there twice."""
    data = people([1, 1, 1, 2, 2, 3, 3])
    pairs = torch.tensor([[0, 1], [0, 2], [2, 0], [3, 4], [5, 6]])
    method, batch = smoke(True), Batches(data, pair_batches(pairs, 5))(0)
    rows = torch.cat([batch["indices"], batch["target_indices"], 100 + torch.arange(5)])
    drawn = torch.cat([one[one[:, 0] < 5] for one in drawn_by(method, batch, monkeypatch, 30)])
    assert drawn[:, 0].bincount().tolist() == [30] * 5
    assert (rows[drawn[:, 0]] != rows[drawn[:, 1]]).all()
    chosen = [set(rows[drawn[drawn[:, 0] == anchor, 1]].tolist()) for anchor in (batch["indices"] == 0).nonzero()]
    assert all({1, 2} < one for one in chosen) and all(max(one) >= 100 for one in chosen)  # photographs and drawings


def test_6_an_image_that_stands_twice_is_no_positive_of_itself():
    labels, images = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([5, 5, 6, 7, 6, 8])
    for seed in range(20):
        drawn = draw_quartets(labels, torch.Generator().manual_seed(seed), images=images)
        assert drawn[:, :2].tolist() in ([[2, 3], [3, 2], [4, 3]], [[2, 3], [3, 4], [4, 3]])
    with pytest.raises(ValueError, match="an identity with two images"):
        draw_quartets(labels, torch.Generator(), images=torch.tensor([5, 5, 6, 6, 6, 8]))


def test_6_a_batch_of_two_people_by_chance_has_no_quartet_and_training_goes_on():
    method, batch = smoke(True).train(), one_batch() | {"labels": torch.tensor([0, 0, 1])}
    before = {name: value.clone() for name, value in method.state_dict().items()}
    terms = method.training_step(batch, 0, plain_update(method))
    assert terms["L_quartet"].item() == 0 and terms["L_quartet"].requires_grad
    torch.testing.assert_close(terms["E"], terms["L_id"])
    after = method.state_dict()
    for name in ("G", "E", "D_I", "D_P"):
        assert any(not torch.equal(after[n], v) for n, v in before.items() if n.startswith(f"{name}."))
    data = people([1, 1, 2, 2, 3, 3])
    batches = Batches(data, pair_batches(pose_attention_pairs(data), 2))  # at most two of the three people
    history = fit(smoke(True), batches, 4, device="cpu", precision="fp32", log_every=1, progress=False)
    assert history.losses["L_quartet"].eq(0).all() and history.losses["L_id"].gt(0).all()


def test_6_quartets_of_two_people_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="quartets need at least three identities, the encoder tells 2 apart"):
        PoseAttention(encoder(2), preset="smoke")
    for accepted in (dict(mode="staged"), dict(lambda_quartet=0)):
        assert step_of(PoseAttention(encoder(2), preset="smoke", **accepted), one_batch(2))[0]["G"].isfinite()


def test_6_without_their_weight_no_quartets_are_drawn(monkeypatch):
    method = smoke(True, lambda_quartet=0)
    assert drawn_by(method, one_batch(), monkeypatch) == []
    assert step_of(method, one_batch())[0]["L_quartet"].item() == 0


def test_8_the_discriminators_inputs_and_a_score_of_zero():
    method, batch, seen = smoke(), one_batch(), {"D_I": [], "D_P": []}

    def zero(name):
        return Constant(lambda x: seen[name].append(x) or x.new_zeros(len(x), 1, 16, 8))

    fakes = []
    method.G.register_forward_hook(lambda m, i, o: fakes.append(o.images))
    method.D_I, method.D_P = zero("D_I"), zero("D_P")
    terms, calls = step_of(method, batch)
    source, target = (normalise(batch[name], "signed") for name in ("images", "target_images"))
    pose = poses.heat_maps(batch["target_keypoints"], SIZE)
    for name, condition in (("D_I", source), ("D_P", pose)):  # G's pass, then real and generated ones
        for found, candidate in zip(seen[name], (fakes[0], target, fakes[0]), strict=True):
            torch.testing.assert_close(found, torch.cat([condition, candidate], dim=1))
        assert seen[name][0].shape[1] == {"D_I": 6, "D_P": 21}[name]
        assert terms[name].item() == pytest.approx(0.6931, abs=1e-4)
        assert 5 * terms[f"L_{name[-1]}"].item() == pytest.approx(3.4657, abs=1e-4)
    wanted = 5 * 2 * 0.693147 + 10 * terms["L_R"]
    torch.testing.assert_close(calls["G"], wanted)


def test_the_objective_is_the_weighted_sum_and_the_order_the_sheets():
    weights = dict(lambda_gan=2, lambda_reconstruction=3, lambda_semantic=5, lambda_quartet=7, lambda_id=11)
    method = smoke(True, foreground_weight=1, **weights)
    fakes = []
    method.G.register_forward_hook(lambda m, i, o: fakes.append(o.images))
    batch = one_batch()
    terms, calls = step_of(method, batch)
    assert list(calls) == ["G", "E", "D_I", "D_P"] == list(method.optimizers())
    total = 2 * (terms["L_I"] + terms["L_P"]) + 3 * terms["L_R"] + 5 * terms["L_S"]
    torch.testing.assert_close(calls["G"], total)
    torch.testing.assert_close(calls["E"], 7 * terms["L_quartet"] + 11 * terms["L_id"])
    torch.testing.assert_close(terms["L_R"], (fakes[0] - normalise(batch["target_images"], "signed")).abs().mean())
    assert calls["D_I"] is terms["D_I"] and calls["D_P"] is terms["D_P"]


def test_the_semantic_term_compares_what_the_encoder_sees():
    source, fake = images_of(), images_of().flip(-1) * 0.5
    method = smoke(True, encoder_size=(128, 64))
    seen = [F.interpolate(x, (128, 64), mode="bilinear") for x in (source, fake)]
    network = method.E.eval()
    with torch.no_grad():
        pooled = [network.pool(signed_to_imagenet(x)) for x in seen]
        embedded = [network(signed_to_imagenet(x)).compared for x in seen]
    torch.testing.assert_close(method.semantic(source, fake), (pooled[0] - pooled[1]).abs().mean())
    method.settings["semantic_feature"] = "embedding"
    torch.testing.assert_close(method.semantic(source, fake), (embedded[0] - embedded[1]).abs().mean())


# ---- check 9: the guard


def test_9_the_semantic_term_is_zero_for_the_image_itself_and_moves_no_weight_of_the_encoder():
    method = smoke(True)
    method.train()
    state = {name: value.clone() for name, value in method.E.state_dict().items()}
    source, fake = images_of(), images_of().flip(-1).requires_grad_(True)
    assert method.semantic(source, source).item() == 0
    method.semantic(source, fake).backward()
    assert all(p.grad is None for p in method.E.parameters()) and fake.grad.abs().max() > 0
    assert all(torch.equal(value, state[name]) for name, value in method.E.state_dict().items())  # statistics, too
    assert method.E.training and all(p.requires_grad for p in method.E.parameters())
    method.semantic(source, fake.detach(), guard=False).backward()
    assert any(p.grad is not None for p in method.E.parameters())


def test_9_training_the_encoder_on_it_is_a_switch():
    method = smoke(True, train_E_on_LS=True)
    terms, calls = step_of(method, one_batch())
    torch.testing.assert_close(calls["E"], terms["L_quartet"] + terms["L_id"] + 10 * terms["L_S"])
    assert method.deviations["train_E_on_LS"] is True


def reached(loss: torch.Tensor, network: nn.Module) -> bool:
    grads = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, retain_graph=True)
    return any(g is not None and g.abs().max() > 0 for g in grads)


@pytest.mark.parametrize("mode", ["joint", "staged"])
def test_gradients_reach_whom_they_should(mode):
    method = smoke(True, mode=mode)
    method.train()
    _, calls = step_of(method, one_batch())
    networks = {name: getattr(method, name) for name in ("G", "E", "D_I", "D_P") if getattr(method, name) is not None}
    wanted = {"G": {"G", "D_I", "D_P"}, "E": {"E"}, "D_I": {"D_I"}, "D_P": {"D_P"}}  # `update` keeps D out of G's step
    for name, loss in calls.items():
        assert {other for other, network in networks.items() if reached(loss, network)} == wanted[name]
    assert set(calls) == ({"G", "E", "D_I", "D_P"} if mode == "joint" else {"G", "D_I", "D_P"})


def test_each_update_moves_its_own_network_only():
    method = smoke(True)
    optimizers, moved = method.optimizers(), []

    def update(name, loss):
        before = {key: p.detach().clone() for key, p in method.named_parameters()}
        loss.backward(inputs=optimizers[name][0])
        optimizers[name][1].step()
        moved.append((name, {k.split(".")[0] for k, p in method.named_parameters() if not torch.equal(p, before[k])}))

    method.training_step(one_batch(), 0, update)
    assert moved == [(name, {name}) for name in ("G", "E", "D_I", "D_P")]


def test_every_weight_of_the_generator_learns():
    method = smoke()
    _, calls = step_of(method, one_batch())
    named = dict(method.G.named_parameters())
    grads = torch.autograd.grad(calls["G"], list(named.values()), allow_unused=True)
    assert [name for name, g in zip(named, grads, strict=True) if g is None or g.abs().max() == 0] == []


def test_staged_keeps_a_trained_encoder_frozen_and_out_of_the_state():
    network = encoder()
    method = PoseAttention(network, preset="smoke", mode="staged")
    kept = method._frozen.on(torch.device("cpu"))
    before = {name: value.clone() for name, value in kept.state_dict().items()}
    assert method.E is None and set(method.optimizers()) == {"G", "D_I", "D_P"}
    assert method.state_dict().keys() == PoseAttention(preset="smoke").state_dict().keys()
    terms = method.train().training_step(one_batch(), 0, plain_update(method))
    assert terms["L_S"] > 0 and "L_id" not in terms
    assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())
    assert method.deviations["mode"] == "staged" and method.settings["lambda_quartet"] == 0


def test_the_callers_encoder_is_copied():
    network = encoder()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    method = PoseAttention(network, preset="smoke")
    method.train().training_step(one_batch(), 0, plain_update(method))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not torch.equal(method.E.backbone.stem[0].weight, network.backbone.stem[0].weight)


# ---- check 10: the encoder


@pytest.mark.parametrize("identities", [751, 702])
def test_10_logits_and_embedding(identities):
    method = PoseAttention(encoder(identities), preset="smoke")
    assert [tuple(x.shape) for x in method.E(torch.zeros(2, 3, 64, 32))] == [(2, 128), (2, 128), (2, identities)]
    layers = [m for m in method.E.heads[0].modules() if isinstance(m, (nn.Linear, nn.BatchNorm1d, nn.Dropout))]
    assert [m.p for m in layers if isinstance(m, nn.Dropout)] == [0.5]
    assert [m.out_features for m in layers if isinstance(m, nn.Linear)] == [128, identities]


def test_two_heads_share_out_the_two_losses():
    torch.manual_seed(0)
    method = PoseAttention(Embedder(3, width=4, heads=[HEAD, HEAD]), preset="smoke")
    _, calls = step_of(method.train(), one_batch())
    first, second = method.E.heads
    assert reached(calls["E"], first.layer) and reached(calls["E"], second.classifier)
    assert not reached(calls["E"], first.classifier)


# ---- check 11: schedule and pairs


def test_11_the_schedule():
    wanted = {1: 2e-4, 400: 2e-4, 401: 1.9950e-4, 600: 1.0025e-4, 800: 4.988e-7}
    for epoch, rate in wanted.items():
        assert 2e-4 * decay(epoch) == pytest.approx(rate, rel=1e-4)
    method = smoke(steps=8000)  # ten steps an epoch
    assert [method.schedule(step) for step in (0, 3999, 4000, 5990, 7999)] == [
        1.0, 1.0, decay(401), decay(600), decay(800)
    ]  # fmt: skip
    assert smoke(steps=4).schedule(3) == decay(601)
    for epoch in (0, 801):
        with pytest.raises(ValueError, match=f"got {epoch}"):
            decay(epoch)


def test_11_pairs_of_those_with_shoulders_and_hips():
    data = people([5, 5, 5, 9, 9, 4])  # three, two and one images; cameras 1, 2, 1, 2, 1, 2
    pairs = pose_attention_pairs(data)
    assert len(pairs) == 8 and (data.pids[pairs[:, 0]] == data.pids[pairs[:, 1]]).all()
    assert pose_attention_pairs(data, "same_camera").tolist() == [[0, 2], [2, 0]]
    points = data.keypoints.clone()
    points[1, 8] = torch.tensor([-1.0, -1.0, 0.0])  # one hip is missing
    hidden = PersonImages(data.images, data.pids, data.camids, keypoints=points)
    assert pose_attention_pairs(hidden).tolist() == [[0, 2], [2, 0], [3, 4], [4, 3]]
    drawn = augmentation_pairs(hidden, 4)
    assert drawn[:, 0].tolist() == [i for i in range(6) for _ in range(4)]
    for image, found in enumerate(drawn[:, 1].view(6, 4).tolist()):  # the four others, but for the one without a pose
        assert set(found) <= {0, 2, 3, 4, 5} - {image} and len(set(found)) == 4
    drawn = [augmentation_pairs(hidden, seed=seed)[:2, 1] for seed in range(1000)]
    assert torch.equal(drawn[7], augmentation_pairs(hidden, seed=7)[:2, 1])
    first, second = torch.stack(drawn).T  # targets of the image 0 and of the image 1, which has no pose of its own
    assert first.bincount(minlength=6)[[2, 3, 4, 5]] / 1000 == pytest.approx(0.25, abs=0.05)
    assert second.bincount(minlength=6)[[0, 2, 3, 4, 5]] / 1000 == pytest.approx(0.2, abs=0.05)


# ---- check 12: ablations


@pytest.mark.parametrize(
    ("options", "zero"),
    [
        (dict(use_appearance_discriminator=False), "L_I"),
        (dict(use_pose_discriminator=False), "L_P"),
        (dict(lambda_semantic=0), "L_S"),
        (dict(n_blocks=1), None),
        (dict(n_blocks=2, paan="isotropic"), None),
        (dict(adain="appearance_modulates"), None),
        (dict(f0="appearance"), None),
        (dict(mask_relu=True), None),
        (dict(pad="zero"), None),
        (dict(score="map"), None),
        (dict(score="features"), None),
        (dict(quartet=dict(form="literal", second_negative="23", reduction="sum"), normalise=False), None),
    ],
)
def test_12_switches_train_a_step(options, zero):
    method = smoke(True, **options)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    update, lost = plain_update(method), []
    terms = method.train().training_step(
        one_batch(), 0, lambda name, loss: lost.append(loss.item()) or update(name, loss)
    )
    after = method.state_dict()
    assert all(value.isfinite().all() for value in terms.values())
    assert all(not torch.equal(after[n], v) for n, v in before.items() if n.endswith("weight") and "pool" not in n)
    assert (method.D_I is None, method.D_P is None) == (zero == "L_I", zero == "L_P")
    assert all((terms[name] == 0) == (name == zero) for name in ("L_I", "L_P", "L_S"))
    total = 5 * (terms["L_I"] + terms["L_P"]) + 10 * terms["L_R"] + 10 * terms["L_S"]
    assert lost[0] == pytest.approx(total.item(), rel=1e-5)
    assert {name: method.settings[name] for name in options} == options
    assert {name: value for name, value in options.items() if value != PAPER[name]}.items() <= method.deviations.items()


def test_an_ablated_term_leaves_the_others_as_they_were():
    """The other discriminator sees the same and keeps its weight of 5."""
    whole, batch = smoke(), one_batch()
    alone = smoke(use_appearance_discriminator=False)
    for name in ("G", "D_P"):
        getattr(alone, name).load_state_dict(getattr(whole, name).state_dict())
    torch.manual_seed(1)
    with torch.no_grad():  # no dropout
        whole.eval(), alone.eval()
        both, one = step_of(whole, batch)[1]["G"], step_of(alone, batch)[1]["G"]
        torch.testing.assert_close(both - one, 5 * step_of(whole, batch)[0]["L_I"])


# ---- the rest of the contract


def test_history_of_generated_images():
    method, batch = smoke(pool_size=3), one_batch()
    step_of(method, batch)
    assert method.pool_I.filled == method.pool_P.filled == 3
    assert method.pool_I.images.shape == (3, 6, 64, 32) and method.pool_P.images.shape == (3, 21, 64, 32)
    torch.testing.assert_close(method.pool_I.images[:, :3], normalise(batch["images"], "signed"))
    torch.testing.assert_close(method.pool_I.images[:, 3:], method.pool_P.images[:, 18:])


def test_foreground_and_guide_are_deviations_that_add_up():
    torch.manual_seed(0)
    method, batch = smoke(foreground_weight=4, guide=SmallResNet(4), lambda_guide=7), one_batch()
    terms, calls = step_of(method, batch)
    total = 5 * (terms["L_I"] + terms["L_P"]) + 10 * terms["L_R"] + 7 * terms["perceptual"]
    torch.testing.assert_close(calls["G"], total)
    assert (
        terms["perceptual"] > 0
        and method.deviations["lambda_guide"] == 7
        and method.deviations["foreground_weight"] == 4
    )
    assert method.state_dict().keys() == smoke().state_dict().keys()


def test_presets_and_deviations():
    with torch.device("meta"):
        paper = PoseAttention(Embedder(751, backbone="resnet50", heads=[HEAD]), preset="paper")
    published = dict(
        image_size=(128, 64), encoder_size=(256, 128), width=64, n_blocks=4, discriminator_width=64, lr=2e-4, lr_E=2e-4,
        lambda_gan=5.0, lambda_reconstruction=10.0, lambda_semantic=10.0, lambda_quartet=1.0, lambda_id=1.0, epochs=800,
        steps=100_000, foreground_weight=1.0, embedding=128, pool_size=0, mode="joint", paan="pyramid", f0="pose",
        adain="pose_style", mask_relu=False, pad="reflect", kernel=7, score="map", use_appearance_discriminator=True,
        use_pose_discriminator=True, train_E_on_LS=False, semantic_feature="pooled", quartet={}, normalise=True,
        lambda_guide=0.0, preset="paper",
    )  # fmt: skip
    assert paper.deviations == {} and paper.settings == published
    assert paper.settings.keys() - {"preset"} == PAPER.keys()
    assert paper.E.pool(torch.zeros(2, 3, 256, 128, device="meta")).shape == (2, 2048)
    for preset in ("smoke", "course"):
        method = PoseAttention(encoder(), preset=preset)
        changed = {name: value for name, value in PRESETS[preset].items() if value != PRESETS["paper"][name]}
        assert method.deviations == changed | {"lr_E": method.settings["lr"], "kernel": 3}
    bare = PoseAttention(preset="smoke").deviations
    assert {name: bare[name] for name in ("lambda_semantic", "lambda_quartet", "lambda_id")} == dict.fromkeys(
        ("lambda_semantic", "lambda_quartet", "lambda_id"), 0.0
    )


def test_kernel_is_that_of_the_convolutions_at_full_size():
    def sides(kernel):
        layers = Generator(width=4, n_blocks=3, kernel=kernel).modules()
        return [m.kernel_size[0] for m in layers if isinstance(m, nn.Conv2d) and m.in_channels in (3, 18, 12, 8)
                and m.out_channels in (3, 4) and m.stride == (1, 1)]  # fmt: skip

    assert sides(7) == [7] * 4 and sides(3) == [3] * 4  # E_A, E_P, the last block's picture, the head
    assert Generator(width=4, paan="isotropic", kernel=7).pagn[0].picture[0].kernel_size == (3, 3)  # not at full size
    poses_of = pose_pair()
    assert Generator(width=4, kernel=5)(images_of(), *poses_of).images.shape == images_of().shape
    for kernel in (4, 0):
        with pytest.raises(ValueError, match=f"odd kernel is accepted .* got kernel={kernel}"):
            Generator(width=4, kernel=kernel)
        with pytest.raises(ValueError, match=f"odd kernel is accepted .* got kernel={kernel}"):
            PoseAttention(preset="course", kernel=kernel)


@pytest.mark.parametrize("preset", ["smoke", "course"])
@pytest.mark.parametrize(("size", "kernel"), [((32, 16), 3), ((64, 32), 3), ((128, 64), 7), ((256, 128), 7)])
def test_the_kernel_follows_the_size_unless_it_is_given(preset, size, kernel):
    options = dict(preset=preset, image_size=size, n_blocks=2, width=2, discriminator_width=2, score="map")
    method = PoseAttention(**options)
    assert method.settings["kernel"] == method.G.head[0].kernel_size[0] == kernel
    assert PoseAttention(**options, kernel=5).settings["kernel"] == 5
    assert PoseAttention(**options | dict(preset="paper")).settings["kernel"] == 7


def test_optimizers_and_first_weights():
    torch.manual_seed(0)
    method = PoseAttention(encoder(), preset="course")
    for name, (parameters, optimizer, schedule) in method.optimizers().items():
        assert optimizer.defaults["betas"] == ((0.9, 0.999) if name == "E" else (0.5, 0.999))
        assert optimizer.defaults["lr"] == method.settings["lr"] and schedule == method.schedule
        assert len(parameters) == len(list(getattr(method, name).parameters()))
    assert PoseAttention(encoder(), preset="course", lr_E=3e-5).optimizers()["E"][1].defaults["lr"] == 3e-5
    for network in (method.G, method.D_I, method.D_P):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 2000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.08)
                assert module.bias is None or module.bias.eq(0).all()
    assert method.E.backbone.stem[0].weight.std() > 0.05  # its own


def test_activations_and_dropout_of_the_paper():
    with torch.device("meta"):
        method = PoseAttention(preset="paper")
    assert {m.negative_slope for m in method.G.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert sum(isinstance(m, nn.LeakyReLU) for m in method.G.modules()) == 4  # one a picture
    assert not any(isinstance(m, nn.Dropout) for m in method.G.modules())
    for network in (method.D_I, method.D_P):
        assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5] * 3


def test_a_step_of_the_paper_preset():
    """The whole joint step at the paper's sizes and widths, with ResNet-50 at 256x128, on three pairs."""
    torch.manual_seed(0)
    network = Embedder(3, backbone="resnet50", heads=[HEAD])
    method = PoseAttention(network, preset="paper")
    assert method.deviations == {}
    before = {name: value.clone() for name, value in method.state_dict().items() if name.endswith("weight")}
    batch = one_batch(size=(128, 64))
    terms = method.train().training_step(batch, 0, plain_update(method))
    after = method.state_dict()
    assert all(value.isfinite() for value in terms.values())
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    assert terms["G"].item() == pytest.approx(
        (5 * (terms["L_I"] + terms["L_P"]) + 10 * terms["L_R"] + 10 * terms["L_S"]).item(), rel=1e-5
    )


def test_condition_and_masks_for_inspection():
    method, data = smoke(), people([1, 1])
    targets = people([1, 1], seed=5)
    condition = method.condition(targets.batch([0, 1]), data.batch([0, 1]))
    assert torch.equal(condition["source"], poses.heat_maps(data.keypoints, SIZE))
    assert torch.equal(condition["target"], poses.heat_maps(targets.keypoints, SIZE))
    image = images_of()
    method.train()
    made = method.look(image, condition)
    assert torch.equal(made.images, method.generate(image, condition)) and method.training
    assert not made.images.requires_grad and made.images.abs().max() <= 1
    assert [tuple(m.shape) for m in made.paan] == [(2, 8, 32, 16), (2, 16, 16, 8), (2, 32, 8, 4)]
    assert [tuple(m.shape) for m in made.pagn] == [(2, 16, 16, 8), (2, 8, 32, 16), (2, 4, 64, 32)]
    opened = method.G.paan.blocks[0]
    opened.mask = Constant(lambda x: torch.ones_like(x))  # the mistake that a notebook shows
    assert not torch.equal(method.generate(image, condition), made.images)


def test_bad_input_is_named():
    method, batch = smoke(True), one_batch()
    with pytest.raises(ValueError, match="PoseAttention trains on batches of pairs"):
        step_of(method, {"images": batch["images"]})
    for name in ("keypoints", "target_keypoints", "labels", "indices", "target_indices"):
        with pytest.raises(ValueError, match=f"the batch lacks {name}"):
            step_of(method, {key: value for key, value in batch.items() if key != name})
    with pytest.raises(ValueError, match="label 3 with 3 classes"):
        step_of(method, batch | {"labels": torch.tensor([0, 1, 3])})
    data = people([1, 1])
    bare = {"images": data.images}
    with pytest.raises(ValueError, match="pose attention needs targets with keypoints, got images"):
        method.condition(bare, data.batch([0, 1]))
    with pytest.raises(ValueError, match="pose attention needs sources with keypoints, got nothing"):
        method.condition(data.batch([0, 1]), None)
    lost = data.batch([0, 1])
    lost["keypoints"] = torch.tensor([-1.0, -1.0, 0.0]).expand(2, 18, 3).clone()
    lost["keypoints"][0, 3] = torch.tensor([3.0, 3.0, 1.0])
    with pytest.raises(ValueError, match="1 of 2 targets show no joint"):
        method.condition(lost, data.batch([0, 1]))
    for condition in (
        None,
        pose_pair()[0],
        {"source": pose_pair()[0]},
        dict.fromkeys(("source", "target"), pose_pair(1)[0]),
    ):
        with pytest.raises(
            ValueError, match=r"condition must hold maps \[2, 18, 64, 32\] of the source and of the target"
        ):
            method.generate(images_of(), condition)
    plain = PersonImages(data.images, [1, 1], [1, 2])
    for call in (pose_attention_pairs, augmentation_pairs):
        with pytest.raises(ValueError, match="needs key points"):
            call(plain)
    with pytest.raises(ValueError, match="pairs must be one of 'all', 'same_camera'"):
        pose_attention_pairs(data, "some")
    with pytest.raises(ValueError, match="no identity has two images"):
        pose_attention_pairs(data, "same_camera")
    nobody = PersonImages(data.images, [1, 1], [1, 2], keypoints=torch.tensor([-1.0, -1.0, 0.0]).expand(2, 18, 3))
    with pytest.raises(ValueError, match="needs 1 targets for each image, there are 0"):
        augmentation_pairs(nobody)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(preset="large"), "'smoke', 'course', 'paper'"),
        (dict(paan="tree"), "paan must be one of 'pyramid', 'isotropic'"),
        (dict(adain="none"), "adain must be one of"),
        (dict(f0="image"), "f0 must be one of"),
        (dict(pad="same"), "pad must be one of 'reflect', 'zero'"),
        (dict(score="patch"), "score must be one of 'map', 'features', 'patchgan'"),
        (dict(mode="alone"), "mode must be one of 'joint', 'staged'"),
        (dict(semantic_feature="logits"), "semantic_feature must be one of 'pooled', 'embedding'"),
        (dict(quartet=dict(form="square")), "form must be one of"),
        (dict(lambda_gan=-1), "lambda_gan"),
        (dict(lamda_gan=1), "switch must be one of 'image_size', .*; got 'lamda_gan'"),
        (dict(score="patchgan", image_size=(32, 16), n_blocks=2), "at least 24 pixels"),
        (dict(embedding=64), "embedding has 128 numbers, embedding=64 is accepted"),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PoseAttention(encoder(), **{"preset": "smoke"} | options)


def test_a_network_that_is_no_encoder_is_refused():
    for other in (nn.Linear(2, 1), SmallResNet(4), lambda images: images):
        with pytest.raises(TypeError, match="encoder must be a re-ID network"):
            PoseAttention(other, preset="smoke")
    with pytest.raises(ValueError, match="embedding has 32 numbers"):
        PoseAttention(encoder(feature="pooled"), preset="smoke")


def test_recorded_weights_draw_the_same_without_the_encoder(tmp_path):
    method = smoke(True, pool_size=2, quartet=dict(form="literal"))
    step_of(method.train(), one_batch())  # moves the running statistics
    save_generator(method, tmp_path / "mine.safetensors")
    again, facts = load_generator("mine", folder=tmp_path)
    for value in (*method.G.parameters(), *method.G.buffers()):
        value.data = value.data.half().to(value.dtype)  # as stored
    condition = dict(zip(("source", "target"), pose_pair(), strict=True))
    assert torch.equal(again.generate(images_of(), condition), method.generate(images_of(), condition))
    assert facts["settings"]["lambda_semantic"] == 10 and again.E is None and again.settings["lambda_semantic"] == 0


def test_reconstruction_falls_on_four_images():
    data = people([1, 1, 2, 2], size=(32, 16))
    method = smoke(width=8, n_blocks=2, foreground_weight=1, image_size=(32, 16), score="map", steps=10**6)
    batches = Batches(data, pair_batches(pose_attention_pairs(data), 4))
    history = fit(method, batches, 60, device="cpu", precision="fp32", log_every=10, progress=False)
    l1 = history.losses["L_R"]  # means over ten steps
    assert l1.iloc[-1] < 0.5 * l1.iloc[0]


def test_trains_generates_and_is_judged_on_rendered_people(tmp_path):
    bench = load("procedural", root=tmp_path, size="smoke", image_size=SIZE, cache=tmp_path, progress=False)
    train = bench.train
    pairs = pose_attention_pairs(train, "same_camera")
    network = Embedder(len(train.pids.unique()), width=4, heads=[HEAD])
    build = partial(PoseAttention, network, preset="smoke", width=4)
    options = dict(images_seen=24, batch_size=8, device="cpu", progress=False, precision="fp32", pairs_per_epoch=4000)
    method, history = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")
    assert history.steps == method.settings["steps"] == 3
    names = {"L_I", "L_P", "L_R", "L_S", "L_quartet", "L_id", "G", "E", "D_I", "D_P"}
    assert names <= set(history.losses.columns) and history.losses[sorted(names)].notna().all(axis=None)
    again, _ = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")  # the finished run is taken up
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in method.state_dict().items())
    asked = augmentation_pairs(train)[:6]
    made = synthesise(method, train, asked, targets=train)
    assert made.pids.tolist() == train.pids[:6].tolist() and made.is_generated.all()
    streamed = torch.cat([images for _, images in stream(method, train, asked, targets=train, batch_size=4)])
    assert (streamed.int() - made.images.int()).abs().max() <= 1
    some = pairs[:12]
    table = judge_generator(method, train, some, targets=train, judges=load_judges(), gallery=train, copy=True,
                            source_rows=some[:, 0])  # fmt: skip
    assert list(table.index) == ["copy of the source", "PoseAttention"]
    assert table.loc["PoseAttention", ["PCK@0.1", "identity kept, rank-1", "FID", "SSIM"]].notna().all()


def test_the_printed_loss_is_the_hinge_without_a_constant():
    """Checks 6 and 7 as the method's options reach the loss: literal and hinge differ by tau_1 + tau_2."""
    torch.manual_seed(0)
    losses = {}
    for form in ("hinge", "literal"):
        method = smoke(True, quartet=dict(form=form))
        torch.manual_seed(4)
        losses[form] = step_of(method.eval(), one_batch())[0]["L_quartet"]
    assert (losses["literal"] - losses["hinge"]).item() == pytest.approx(-0.99, abs=1e-5)
    unit = torch.eye(4)[:, None]
    assert quartet_loss(*unit).item() == pytest.approx(2 * 2 - 2 - 2 + 1 + 2 - 0.01)
