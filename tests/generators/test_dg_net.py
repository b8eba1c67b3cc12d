"""DG-Net: the fact sheet's eighteen checks."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from dg_net_toys import LATE, K, count, encoder, people, quadruples, reached, smoke, step_of, teacher, weightless
from torch import nn

from reidlib.datasets.procedural import render
from reidlib.datasets.sampling import Batches, two_pair_batches
from reidlib.embedders.resnet import Embedder
from reidlib.evaluators import evaluate_retrieval
from reidlib.generators.blocks import as_frozen_copy
from reidlib.generators.dg_net import DGNet
from reidlib.generators.dg_net_networks import Decoder, MultiScaleDiscriminator, StructureEncoder, fuse, grey
from reidlib.networks import normalise
from reidlib.training import fit


@pytest.fixture(scope="module")
def paper() -> DGNet:
    """The networks as published."""
    heads = [dict(dimensions=512, norm="batch", dropout=p) for p in (0.5, 0.75)]
    with weightless():
        network = Embedder(751, backbone="resnet50", last_stride=1, pool="max", heads=heads)
        label = Embedder(751, backbone="resnet50", heads=heads[:1])
        return DGNet(network, label, preset="paper")


def test_1_parameter_counts(paper):
    assert count(paper.E_s) == 380_544 and count(paper.E_s[8]) == 52_576
    assert count(paper.G.first, paper.G.second, paper.G.last) == 1_455_555
    assert count(paper.G.scales, paper.G.shifts) == 11_544_576 == 8 * count(paper.G.scales[0])
    assert count(paper.E_s, paper.G) == 13_380_675
    assert [count(scale) for scale in paper.D.scales] == [341_857] * 3
    assert count(paper.E_a) == 26_378_782 and [count(h) for h in paper.E_a.network.heads] == [1_435_375] * 2
    assert count(paper._teacher.on("meta")) == 24_943_407
    with weightless():  # what the features of `embed` come from: the backbone and both heads without their classifiers
        features = torch.cat([head.feature for head in paper.E_a(torch.zeros(2, 3, 256, 128))[1]])
        used = torch.autograd.grad(features.sum(), [*paper.E_a.parameters()], allow_unused=True)
    assert sum(gradient.numel() for gradient in used if gradient is not None) == 25_608_256
    assert paper.deviations == {} and paper.n_classes == 751


@pytest.mark.parametrize("size", [(256, 128), (128, 64)])
def test_1_shapes(paper, size):
    """Images of 128 rows and less are doubled for E_a alone."""
    height, width = size
    with weightless():
        x = torch.zeros(2, 3, *size)
        structure, (code, heads), scores = paper.E_s(grey(x)), paper.E_a(x), paper.D(x)
    assert structure.shape == (2, 128, height // 4, width // 4) and code.shape == (2, 8192)
    assert [tuple(h.logits.shape) for h in heads] == [(2, 751)] * 2 and heads[1].feature.shape == (2, 512)
    assert [tuple(n.shape) for n in paper.G.adain_numbers(code)] == [(2, 1024)] * 2
    assert paper.G(structure, code).shape == x.shape
    assert [tuple(s.shape[2:]) for s in scores] == [(height // n, width // n) for n in (4, 8, 16)]


@pytest.mark.parametrize("code_scale", ["raw", "standardised"])
def test_4_a_picture_is_made_of_its_two_codes_alone(code_scale):
    """Equal images give equal pictures, whatever else is in the batch; each of the two codes matters."""
    method = smoke(code_scale=code_scale)
    x, y, z = torch.rand(3, 1, 3, 64, 32) * 2 - 1
    own = method.generate(x, x)
    beside = method.generate(torch.cat([x, y, x, z]), torch.cat([x, z, y, x]))
    assert torch.allclose(beside[:1], own, atol=1e-5)
    for other in beside[1:].split(1):
        assert not torch.allclose(other, own, atol=1e-2)


def pictures_of(method: DGNet, batch: dict) -> torch.Tensor:
    """Return a step's first pictures [3,2,B,3,H,W]: x_ba, x_ab; x_aa, x_bb; x_aa+, x_bb+."""
    drawn, draw = [], method.G.forward
    method.G.forward = lambda *given: drawn.append(draw(*given).detach()) or drawn[-1]
    step_of(method, batch, step=0)
    return drawn[0].unflatten(0, (3, 2, -1))


@pytest.mark.parametrize("code_scale", ["raw", "standardised"])
def test_4_swaps_of_a_training_step_between_equals(code_scale):
    """Equal images: the swap is the reconstruction. Equal f: it is the other's. Equal s: it is one's own."""
    batch, options = quadruples(), dict(code_scale=code_scale, feed_generated=False, use_id=False)
    twins = batch | {"other_images": batch["images"]}
    swapped, own, _ = pictures_of(smoke(**options), twins)
    assert torch.allclose(swapped, own, atol=1e-4)
    x_ba, x_ab, x_aa, x_bb = pictures_of(smoke(**options), batch)[:2].flatten(0, 1)
    alike = [torch.allclose(x, y, atol=1e-2) for x, y in ((x_ba, x_aa), (x_ba, x_bb), (x_ab, x_aa), (x_ab, x_bb))]
    assert not any(alike)
    method = smoke(**options)
    method._codes = lambda images: [torch.ones(len(each), 128) for each in images]
    (x_ba, x_ab), (x_aa, x_bb), _ = pictures_of(method, batch)
    assert torch.allclose(x_ba, x_bb, atol=1e-5) and torch.allclose(x_ab, x_aa, atol=1e-5)
    method = smoke(**options)
    method.E_s.forward = lambda grey: torch.ones(len(grey), 32, 16, 8) * torch.linspace(-1, 1, 8)
    (x_ba, x_ab), (x_aa, x_bb), _ = pictures_of(method, batch)
    assert torch.allclose(x_ba, x_aa, atol=1e-5) and torch.allclose(x_ab, x_bb, atol=1e-5)
    assert not torch.allclose(x_ba, x_bb, atol=1e-2)


@pytest.mark.parametrize("mode", ["detached", "frozen"])
def test_6_which_loss_reaches_which_network(mode):
    method, generator = smoke(re_encoding=mode), {"E_s", "G", "MLPs"}
    terms, calls = step_of(method, quadruples())
    assert calls == ["D", "G", "E_a"]
    wanted = {"L_img1": generator, "L_img2": generator, "L_adv": generator | {"D"}, "L_id^c": generator,
              "L_code2": {"E_s"} if mode == "detached" else generator, "L_cyc": generator,
              "L_id^s": {"backbone", "head 1", "head 2"}, "L_id^s positives": {"backbone", "head 1"},
              "L_prim": {"backbone", "head 1"}, "L_fine": {"backbone", "head 2"}, "D": {"D"}, "D penalty": {"D"},
              "G": generator | {"D"}, "E_a": {"backbone", "head 1", "head 2"}}  # fmt: skip
    assert {name: reached(term, method) for name, term in terms.items() if name != "L_code1"} == wanted
    assert not terms["L_code1"].requires_grad  # both codes are detached
    with pytest.raises(RuntimeError, match="does not require grad"):
        terms["L_code1"].backward()


def test_6_the_cycle_reaches_the_first_decoding_in_mode_frozen_alone():
    gradients = {}
    for mode in ("detached", "frozen"):
        method = smoke(re_encoding=mode)
        term = step_of(method, quadruples())[0]["L_cyc"]
        gradients[mode] = torch.autograd.grad(term, [method.G.last[1][0].weight, method.E_s[0][0].weight])
    assert all((a - b).norm() > 0.01 * a.norm() for a, b in zip(*gradients.values(), strict=True))


def test_6_code_gradient_lets_the_code_loss_reach_the_generator():
    method = smoke(code_gradient=True)
    term = step_of(method, quadruples())[0]["L_code1"]
    assert reached(term, method) == {"E_s", "G", "MLPs"}


def test_re_encoding_is_drawn_each_step():
    method, found, batch = smoke(warm_up=0.9), set(), quadruples()
    for seed in range(12):
        torch.manual_seed(seed)  # as `fit` does before each step
        term = step_of(method, batch)[0]["L_code2"]
        (gradient,) = torch.autograd.grad(term, method.G.last[-1][0].bias, allow_unused=True)
        found.add(gradient is None)
        if len(found) == 2:
            return
    raise AssertionError(f"twelve draws alike: the first encoding alone is {found}")


class Scores(nn.Module):
    """A discriminator of one scale."""

    def __init__(self, score) -> None:
        super().__init__()
        self.score = score

    def forward(self, images):
        return [self.score(images)]


def test_7_losses_of_a_constant_discriminator():
    method = smoke()
    method.D = nn.Module()
    method.D.forward = lambda images: [images.sum() * 0 + 0.5 for _ in range(3)]
    x = torch.zeros(2, 3, 64, 32)
    assert method._discriminate(x, x)["D"].item() == pytest.approx(3.0)  # 1.5 a side
    assert method._adversarial(x).item() == pytest.approx(3.0)


def test_7_losses_of_a_fresh_discriminator():
    torch.manual_seed(0)
    method = smoke()
    method.D = MultiScaleDiscriminator()
    x, y = torch.randn(2, 2, 3, 64, 32)
    with torch.no_grad():
        assert method._adversarial(x).item() / 2 == pytest.approx(6.0, abs=0.1)
    assert method._discriminate(x, y)["D"].item() / 2 == pytest.approx(3.0, abs=0.1)


def test_7_log_losses():
    method = smoke(gan_loss="vanilla")
    method.D = Scores(lambda x: x[:, 0, 0, 0] * 0)
    x = torch.zeros(2, 3, 64, 32)
    assert method._discriminate(x, x)["D"].item() == pytest.approx(4 * math.log(2))  # of two sides, D on two pictures
    assert method._adversarial(x).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("kind, slope", [("least_squares", 1.0), ("vanilla", 0.25)])
def test_8_penalty_of_a_linear_discriminator(kind, slope):
    """0.01 c^2 98,304 = 983.04 c^2 a side; of the log loss it is the probability's gradient, a quarter at D = 0."""
    c, method = 0.1, smoke(gan_loss=kind)
    method.D = Scores(lambda x: c * x.sum((1, 2, 3)))
    real = torch.zeros(4, 3, 256, 128)
    penalty = method._discriminate(real, real)["D penalty"] / 2
    assert penalty.item() == pytest.approx(983.04 * (c * slope) ** 2, rel=1e-4)


@pytest.mark.parametrize("classes, entropy", [(751, 6.62), (702, 6.55), (1041, 6.95)])
def test_9_a_fresh_classifier_knows_nothing(classes, entropy):
    method = smoke(classes=classes, fresh=True)
    terms, _ = step_of(method, quadruples(), step=0)
    assert math.log(classes) == pytest.approx(entropy, abs=0.01)
    assert terms["L_id^s"].item() == pytest.approx(2 * entropy, abs=0.05)
    assert terms["L_id^s positives"].item() == pytest.approx(2 * entropy, abs=0.05)
    assert method.settings["lambda_id"] * terms["L_id^c"].item() == pytest.approx(entropy, abs=0.05)


def test_10_the_teachers_label():
    method = smoke()
    x, y_a, y_b = torch.randn(3, 3, 64, 32), torch.tensor([0, 1, 3]), torch.tensor([2, 1, 0])
    q = method.teacher_label(x, y_a, y_b)
    assert q.shape == (3, K) and torch.allclose(q.sum(1), torch.ones(3)) and (q > 0).all()
    assert torch.allclose(method.teacher_label(x.flip(3), y_a, y_b), q, atol=1e-6)
    label = method._teacher.on(x.device)
    by_hand = sum(as_frozen_copy(label, view).logits.softmax(1) for view in (x, x.flip(3))) / 2
    assert torch.allclose(q, by_hand)
    label.train()  # batch statistics are what its training mode has, too, but for the dropout
    for part in label.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    assert torch.allclose(label(x).logits, as_frozen_copy(label, x).logits, atol=1e-5)


def test_10_teacher_styles():
    x, y_a, y_b = torch.randn(3, 3, 64, 32), torch.tensor([0, 1, 3]), torch.tensor([2, 1, 0])

    def label(style: str, **options) -> torch.Tensor:
        return smoke(teacher_style=style, **options).teacher_label(x, y_a, y_b)

    q = label("average")
    assert torch.equal(label("argmax"), F.one_hot(q.argmax(1), K).float())
    assert torch.equal(label("appearance", teacher=None), F.one_hot(y_a, K).float())
    assert torch.equal(label("uniform", teacher=None), torch.full((3, K), 1 / K))
    two = label("two_labels")
    assert two[1].tolist() == [0, 1, 0, 0] and (two > 0).sum(1).tolist() == [2, 1, 2]
    assert torch.allclose(two[0, [0, 2]], q[0, [0, 2]] / q[0, [0, 2]].sum())
    method = smoke(teacher_dropout=True)
    assert not torch.equal(method.teacher_label(x, y_a, y_b), method.teacher_label(x, y_a, y_b))


def test_11_weights_of_the_paper(paper):
    """Of both code losses, of the cycle and of the teacher's terms."""
    wanted = {30_000: (0,) * 4, 30_001: (0.0005,) * 4, 31_000: (0.5,) * 4, 32_000: (1,) * 4, 33_000: (1, 1, 1.5, 1.5),
              34_000: (1, 1, 2, 2), 99_999: (1, 1, 2, 2), 0: (0,) * 4}  # fmt: skip
    for step, weights in wanted.items():
        assert paper.weights(step) == pytest.approx(weights)


def test_the_two_code_losses_have_weights_of_their_own():
    terms, _ = step_of(smoke(lambda_code1=0.25, lambda_code2=3.0, re_encoding="detached"), quadruples())
    plain, _ = step_of(smoke(re_encoding="detached"), quadruples())
    more = 2.0 * terms["L_code2"] - 0.75 * terms["L_code1"]
    assert (terms["G"] - plain["G"]).item() == pytest.approx(more.item(), rel=1e-3)


def test_11_a_term_enters_one_step_after_its_weight():
    """30 steps: the weights leave 0 at step 10, in one step each; w_B, of head 2 on real images, is a step behind."""
    method, late = smoke(ramp=0.1), {"L_code1", "L_code2", "L_cyc", "L_prim", "L_fine"}
    assert method.weights(9) == (0,) * 4 and method.weights(10) == pytest.approx((1 / 3,) * 4)
    for step, entered in ((9, set()), (10, set()), (11, late)):
        terms, _ = step_of(method, quadruples(), step)
        assert set(terms) & late == entered
        assert ("head 2" in reached(terms["L_id^s"], method)) == bool(entered)
    reference = smoke(ramp=0.1, alpha=0.0)
    first, both = (step_of(m, quadruples(), 11)[0]["L_id^s"] for m in (reference, method))
    batch, network = quadruples(), smoke().E_a
    head_2 = sum(F.cross_entropy(network(normalise(batch[f"{p}images"]))[1][1].logits, batch[f"{p}labels"])
                 for p in ("", "other_"))  # fmt: skip
    assert (both - first).item() == pytest.approx(0.2 * head_2.item() / 3, rel=1e-3)  # alpha w_t of step 10


def test_12_learning_rates(paper):
    steps = (0, 59_999, 60_000, 89_999, 90_000, 99_999)
    assert [paper.schedule(s) for s in steps] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    made = paper.optimizers()
    assert all(schedule == paper.schedule for _, _, schedule in made.values())
    for name in ("D", "G"):
        (group,) = made[name][1].param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.0, 0.999), 5e-4)
    backbone, heads = made["E_a"][1].param_groups
    assert (backbone["lr"], heads["lr"]) == (0.002, 0.02)
    assert backbone["nesterov"] and backbone["momentum"] == 0.9 and backbone["weight_decay"] == 5e-4
    assert len(made["G"][0]) == len([*paper.E_s.parameters(), *paper.G.parameters()])
    parameters, adam, _ = smoke(encoder_optimizer="adam", lr_encoder=1e-3).optimizers()["E_a"]
    (group,) = adam.param_groups
    assert isinstance(adam, torch.optim.Adam) and (group["lr"], group["weight_decay"]) == (1e-3, 5e-4)
    assert len(parameters) == len(group["params"])


@pytest.mark.parametrize("style", ["average", "appearance"])
def test_13_every_term_worked_out_slowly(style):
    """x_ba has the structure of b and the appearance of a: L_id^c and the "appearance" teacher say a, L_fine says b."""
    method, batch = smoke(teacher_style=style, re_encoding="frozen"), quadruples()
    terms, _ = step_of(method, batch)
    look, draw = method.E_a, method.G
    x = {n: normalise(batch[f"{p}images"]) for n, p in
         (("a", ""), ("b", "other_"), ("a+", "positive_"), ("b+", "other_positive_"))}  # fmt: skip
    y = {"a": batch["labels"], "b": batch["other_labels"]}
    f, s = {n: look(i)[0] for n, i in x.items()}, {n: method.E_s(i.mean(1, keepdim=True)) for n, i in x.items()}
    swap = {"a": draw(s["b"], f["a"]), "b": draw(s["a"], f["b"])}  # by appearance
    wanted = dict.fromkeys(terms, 0.0)
    for n, other in (("a", "b"), ("b", "a")):
        wanted["L_img1"] += (draw(s[n], f[n]) - x[n]).abs().mean()
        wanted["L_img2"] += (draw(s[n], f[f"{n}+"]) - x[n]).abs().mean()
        wanted["L_adv"] += sum(2 * (scores - 1).square().mean() for scores in method.D(swap[n]))
        code, heads = look(swap[n])
        wanted["L_id^c"] += F.cross_entropy(heads[0].logits, y[n])
        wanted["L_code1"] += (code - f[n]).abs().mean()
        again = method.E_s(swap[other].mean(1, keepdim=True))  # the picture with n's structure
        wanted["L_code2"] += (again - s[n]).abs().mean()
        wanted["L_cyc"] += (draw(again, code) - x[n]).abs().mean()
        first, second = look(x[n])[1]
        wanted["L_id^s"] += F.cross_entropy(first.logits, y[n]) + 0.4 * F.cross_entropy(second.logits, y[n])
        wanted["L_id^s positives"] += F.cross_entropy(look(x[f"{n}+"])[1][0].logits, y[n])
        q = method.teacher_label(swap[n], y[n], y[other]) if style == "average" else F.one_hot(y[n], K).float()
        wanted["L_prim"] += (q * (q.clamp_min(1e-30).log() - heads[0].logits.log_softmax(1))).sum(1).mean()
        wanted["L_fine"] += F.cross_entropy(heads[1].logits, y[other])
        for fake, real in zip(method.D(swap[n]), method.D(x[n].requires_grad_()), strict=True):
            (slope,) = torch.autograd.grad(real.sum(), x[n], retain_graph=True)
            wanted["D penalty"] += 0.01 * slope.square().sum((1, 2, 3)).mean()
            wanted["D"] += fake.square().mean() + (real - 1).square().mean()
    wanted["D"] += wanted["D penalty"]
    weights = {"L_img1": 5, "L_img2": 5, "L_adv": 1, "L_code1": 1, "L_code2": 1, "L_cyc": 2, "L_id^c": 0.5}
    wanted["G"] = sum(weight * wanted[name] for name, weight in weights.items())
    wanted["E_a"] = wanted["L_id^s"] + wanted["L_id^s positives"] + 2 * (wanted["L_prim"] + 0.2 * wanted["L_fine"])
    assert {n: v.item() for n, v in terms.items()} == pytest.approx({n: v.item() for n, v in wanted.items()}, rel=2e-3)
    swapped_labels = {n: F.cross_entropy(look(swap[n])[1][0].logits, y[{"a": "b", "b": "a"}[n]]) for n in "ab"}
    assert terms["L_id^c"].item() != pytest.approx(sum(swapped_labels.values()).item(), rel=2e-3)


def test_15_fused_features():
    method = smoke()
    features = method.embed(people(3).images)
    assert features.shape == (3, 32)
    assert all(torch.allclose(half.norm(dim=1), torch.ones(3), atol=1e-6) for half in features.chunk(2, 1))
    for weight, score in ((0.5, 1.5), (0.0, 1.0), (1.0, 2.0)):
        fused = fuse(features, weight)
        assert torch.allclose((fused * fused).sum(1), torch.full((3,), score), atol=1e-6)
    prim, fine = features.chunk(2, 1)
    assert torch.allclose(fuse(features) @ fuse(features).T, prim @ prim.T + 0.5 * fine @ fine.T, atol=1e-6)
    with pytest.raises(ValueError, match="weight >= 0"):
        fuse(features, -1.0)


def test_15_embed_adds_the_mirror_image_and_takes_head_1_first():
    method, images = smoke(), people(3).images
    features = method.embed(images)
    assert torch.allclose(method.embed(images.flip(3)), features, atol=1e-6)
    method.E_a.eval()
    pixels = normalise(images)
    both = [method.E_a(view)[1] for view in (pixels, pixels.flip(3))]
    for i, half in enumerate(features.chunk(2, 1)):
        mean = sum(F.normalize(heads[i].feature) for heads in both)
        assert torch.allclose(half, F.normalize(mean), atol=1e-6)


def test_16_four_images_are_learnt_by_heart():
    """The sheet's: reconstruction alone, networks as published, four 128x64 images, fixed random codes, Adam 1e-4.

    What differs: the images are rendered.
    """
    torch.manual_seed(0)
    E_s, G, f = StructureEncoder(), Decoder(8192), torch.randn(4, 8192)
    made = render([1, 2, 3, 4], [1, 1, 2, 2], moments=[0] * 4, image_size=(128, 64), scene="generation", seed=0)
    x = normalise(made.images)
    optimizer = torch.optim.Adam([*E_s.parameters(), *G.parameters()], lr=1e-4, betas=(0.0, 0.999), weight_decay=5e-4)
    errors = []
    for _ in range(200):
        errors.append((G(E_s(grey(x)), f) - x).abs().mean())
        optimizer.zero_grad()
        (5 * errors[-1]).backward()
        optimizer.step()
    assert errors[0] > 0.7 and errors[99] < 0.25 and errors[-1] < 0.2


def test_17_the_teacher_stays_and_the_rest_learns():
    """Ten full steps; every tensor of the four networks moves, the teacher's and the caller's encoder's do not."""
    torch.manual_seed(0)
    start, label = encoder(), teacher()
    kept = [copy.deepcopy(network.state_dict()) for network in (start, label)]
    method = DGNet(start, label, preset="smoke", units=2, warm_up=0.0, ramp=0.1, foreground_weight=1.0)
    frozen = copy.deepcopy(method._teacher.on(torch.device("cpu")).state_dict())
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    images = people()
    batches = Batches(images, two_pair_batches(images.pids, 3))
    history = fit(method, batches, 10, device="cpu", precision="fp32", log_every=1, progress=False)
    assert {"L_prim", "L_fine", "L_cyc", "L_code1", "L_code2"} <= set(history.losses.columns)
    after = method._teacher.on(torch.device("cpu")).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())
    for network, state in zip((start, label), kept, strict=True):
        assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())
    assert not any("teacher" in name for name in method.state_dict())
    assert {name.split(".")[0] for name in before} == {"E_s", "G", "D", "E_a"}
    assert [name for name, p in method.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("slices", ["channels", "bands"])
def test_17_every_tensor_has_a_gradient_of_its_own_loss(slices):
    """Weight decay moves what no loss reaches, too."""
    method = smoke(units=2, slices=slices, re_encoding="detached")
    terms, _ = step_of(method, quadruples())
    names = {p: name for name, p in method.named_parameters()}
    for loss, (parameters, _, _) in method.optimizers().items():
        gradients = torch.autograd.grad(terms[loss], parameters, retain_graph=True, allow_unused=True)
        dead = [names[p] for p, g in zip(parameters, gradients, strict=True) if g is None or g.abs().sum() == 0]
        assert dead == [], loss


def test_17_running_statistics_see_eight_and_later_ten_batches():
    for step, passes in ((0, 8), (LATE, 10)):
        method = smoke()
        step_of(method, quadruples(), step)
        assert method.E_a.network.heads[1].norm.num_batches_tracked.item() == passes


def test_18_the_papers_average_precision():
    """Hits at ranks 1 and 3 of two good images; junk between changes nothing."""

    def score(distances, pids):
        return evaluate_retrieval(
            torch.zeros(1, 1), torch.tensor(distances)[:, None], query_pids=torch.tensor([5]),
            query_camids=torch.tensor([1]), gallery_pids=torch.tensor(pids),
            gallery_camids=torch.full((len(pids),), 2), ap="trapezoid",
        ).mAP  # fmt: skip

    assert score([1.0, 2.0, 3.0], [5, 7, 5]) == pytest.approx(0.7917, abs=1e-4)
    for place in (0.5, 1.5, 2.5, 3.5):
        assert score([1.0, 2.0, 3.0, place], [5, 7, 5, -1]) == pytest.approx(0.7917, abs=1e-4)
