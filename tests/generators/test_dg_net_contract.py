"""DG-Net as a method of the library: switches, scaled codes, kept backgrounds, refusals, the whole way."""

import copy
from functools import partial

import pytest
import torch
from dg_net_toys import K, count, encoder, people, quadruples, smoke, step_of, teacher
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.datasets.augment import compose, erase
from reidlib.datasets.procedural import render
from reidlib.datasets.sampling import Batches, two_pair_batches
from reidlib.embedders import Baseline, embed_all
from reidlib.evaluators.judges import load_judges
from reidlib.experiments import judge_generator, train_baseline
from reidlib.generators import dg_net
from reidlib.generators.blocks import as_frozen_copy
from reidlib.generators.dg_net import DGNet, train_dg_net
from reidlib.generators.dg_net_networks import Decoder, enlarged, fuse, grey
from reidlib.generators.synthesis import stream, synthesise
from reidlib.networks import imagenet_to_signed, load_weights, normalise, save_weights, signed_to_imagenet
from reidlib.training import fit


def test_erasing_touches_the_identity_terms_alone():
    holes = compose(partial(erase, p=1.0, keep_clean=True), joint=False)
    method, found = smoke(re_encoding="frozen"), {}
    for name, augment in (("whole", None), ("holes", holes)):
        found[name] = {n: v.item() for n, v in step_of(method, quadruples(augment=augment))[0].items()}
    same = {n for n, v in found["whole"].items() if v == pytest.approx(found["holes"][n], rel=1e-5)}
    assert set(found["whole"]) - same == {"L_id^s", "L_id^s positives", "E_a"}


def test_the_four_images_are_augmented_by_draws_of_their_own():
    """Borders are repeated, so plain images stay plain, but for the holes, which only the erased copies have."""
    plain = torch.full((40, 3, 64, 32), 200, dtype=torch.uint8)
    images = PersonImages(plain, torch.arange(40) % K, torch.ones(40, dtype=torch.int64))
    batch = Batches(images, two_pair_batches(images.pids, 40), augment=dg_net.augment_pairs)(0)
    erased = {}
    for name in ("", "positive_", "other_", "other_positive_"):
        assert (batch[f"{name}clean_images"] == 200).all()
        erased[name] = tuple((batch[f"{name}images"] != 200).flatten(1).any(1).tolist())
        assert 8 <= sum(erased[name]) <= 32
    assert len(set(erased.values())) == 4


@pytest.fixture(scope="module")
def full() -> dict:
    """All terms of a late step."""
    return step_of(smoke(), quadruples())[0]


@pytest.mark.parametrize(
    "switches, left_out",
    [
        ({"feed_generated": False, "teacher": None}, {"L_prim", "L_fine"}),
        ({"use_id": False}, {"L_id^c"}),
        ({"use_prim": False, "teacher": None}, {"L_prim"}),
        ({"use_fine": False}, {"L_fine"}),
        ({"use_cycle": False}, {"L_cyc"}),
    ],
)
def test_switches_leave_terms_out(switches, left_out, full):
    terms, _ = step_of(smoke(**switches), quadruples())
    assert set(full) - set(terms) == left_out
    unchanged = {"L_img1", "L_img2", "L_id^s", "D"}
    assert all(terms[name].item() == pytest.approx(full[name].item(), rel=1e-5) for name in unchanged)


def test_the_persons_pixels_may_count_more():
    batch, w = quadruples(), 3.0
    method = smoke(foreground_weight=w)
    found = step_of(method, batch)[0]["L_img1"].item()
    mask = 1 + (w - 1) * torch.cat([batch["masks"], batch["other_masks"]])[:, None].float() / 255
    real = torch.cat([normalise(batch["images"]), normalise(batch["other_images"])])
    f = torch.cat([method.E_a(i)[0] for i in real.chunk(2)])
    error = (method.G(method.E_s(grey(real)), f) - real).abs()
    assert found == pytest.approx(2 * (mask * error).sum().item() / (3 * mask.sum().item()), rel=1e-4)
    del batch["other_masks"]
    with pytest.raises(ValueError, match="foreground_weight above 1 needs a batch with other_masks"):
        method.training_step(batch, 0, lambda name, loss: None)


PREFIXES = ("", "other_", "positive_", "other_positive_")


def codes_in_use(method: DGNet, batch: dict) -> list[torch.Tensor]:
    """Codes of a, b, a+ and b+ as E_a gives them in evaluation."""
    network = copy.deepcopy(method.E_a).eval()
    with torch.no_grad():
        return [network(normalise(batch[f"{name}images"]))[0] for name in PREFIXES]


def test_standardised_codes_are_those_of_use():
    """The decoder sees the 18 codes of the first batch by the mean and variance of its 12 images."""
    method, batch, seen = smoke(code_scale="standardised", feed_generated=False), quadruples(), []
    a, b, a_positive, b_positive = real = codes_in_use(method, batch)
    method.G.scales[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    step_of(method, batch, step=0)
    codes, real = torch.cat([a, b, a, b, a_positive, b_positive]), torch.cat(real)
    wanted = (codes - real.mean(0)) / (real.var(0) + 1e-5).sqrt()
    assert len(seen) == 1 and torch.allclose(seen[0], wanted, atol=1e-3)
    assert method.E_a.network.heads[1].norm.num_batches_tracked.item() == 4  # L_id^s alone
    assert method.deviations["code_scale"] == "standardised"
    refuse("code_scale must be one of", code_scale="log")


def test_statistics_of_standardised_codes_are_those_of_real_ones():
    """After late steps, which encode and decode pictures, too: the mean of what evaluation sees of each batch."""
    method, seen, means = smoke(code_scale="standardised", re_encoding="frozen"), [], []
    method.G.scales[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    method.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    for seed in range(3):
        seen.clear()
        batch = quadruples(seed=seed)
        real = codes_in_use(method, batch)
        network = copy.deepcopy(method.E_a).eval()
        terms, _ = step_of(method, batch)
        means.append(torch.cat(real).mean(0))
    assert method.G.standard.num_batches_tracked.item() == 3
    assert torch.allclose(method.G.standard.running_mean, torch.stack(means).mean(0), atol=1e-5)
    swapped = seen[2]  # after the codes and D's real images
    again, f = network(swapped)[0].detach(), torch.cat(real[:2])  # f' of x_ba, x_ab
    assert terms["L_code1"].item() == pytest.approx(2 * (again - f).abs().mean().item(), rel=1e-3)
    standard = method.G.standard
    wanted = (again - standard.running_mean) / (standard.running_var + 1e-5).sqrt()
    assert torch.allclose(seen[-1], wanted, atol=1e-3 * wanted.abs().max().item())


def test_statistics_of_codes_forget_the_start_and_then_a_tenth():
    decoder, codes = Decoder(8, width=1, units=1, mlp_width=4, code_scale="standardised"), torch.randn(15, 6, 8) + 3
    for batch in codes[:10]:
        decoder.learn_scale(batch)
    assert torch.allclose(decoder.standard.running_mean, codes[:10].mean((0, 1)), atol=1e-5)
    assert torch.allclose(decoder.standard.running_var, codes[:10].var(1).mean(0), atol=1e-5)
    mean, state = decoder.standard.running_mean.clone(), copy.deepcopy(decoder.standard.state_dict())
    decoder(torch.randn(6, 8, 4, 4), torch.full((6, 8), 9.0))  # of pictures, in training
    assert all(torch.equal(value, state[name]) for name, value in decoder.standard.state_dict().items())
    for batch in codes[10:]:
        decoder.learn_scale(batch)
        mean = 0.9 * mean + 0.1 * batch.mean(0)
    assert torch.allclose(decoder.standard.running_mean, mean, atol=1e-5) and decoder.standard.training


def test_the_grey_of_the_person_may_vary():
    """E_s sees the person's pixels with each image's own gain and offset; all else is as before."""
    batch, j, seen = quadruples(), 0.3, []
    batch |= {f"{name}masks": 255 * (batch[f"{name}masks"] > 99).byte() for name in ("", "other_")}
    method = smoke(grey_jitter=j)
    assert method.deviations["grey_jitter"] == j
    method.E_s.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    terms, _ = step_of(method, batch, step=0)
    plain = grey(torch.cat([normalise(batch[f"{name}images"]) for name in ("", "other_")]))
    person = torch.cat([batch["masks"], batch["other_masks"]])[:, None] > 0
    assert torch.equal(seen[0][~person], plain[~person])
    drawn = []
    for shown, old, mask in zip(seen[0], plain, person, strict=True):
        x, y = old[mask], shown[mask]
        gain = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        offset = y.mean() - gain * x.mean()
        assert torch.allclose(y, gain * x + offset, atol=1e-4)
        drawn.append([gain.item() - 1, offset.item()])
    drawn = torch.tensor(drawn)
    assert (drawn.abs() <= j + 1e-4).all() and (drawn.std(0) > 0.03).all()
    seen.clear()
    free, _ = step_of(smoke(), batch, step=0)
    assert terms["L_id^s"].item() == pytest.approx(free["L_id^s"].item(), rel=1e-5)
    method.generate(*torch.rand(2, 2, 3, 64, 32))
    assert len(seen) == 1  # and `generate` draws nothing
    del batch["masks"]
    with pytest.raises(ValueError, match="grey_jitter above 0 needs a batch with masks"):
        step_of(method, batch)


def test_an_accumulated_step(monkeypatch):
    """D's step is that of the pieces' mean; L_adv of the first piece is by the old D; both re-encode in one way."""
    rows, steps = 4, 8
    images = people()
    batches = Batches(images, two_pair_batches(images.pids, rows, distinct=True))
    method = smoke(warm_up=0.0, ramp=0.01, feed_generated=False)
    alone, modes, weights = copy.deepcopy(method), [], []
    adversarial, frozen = method._adversarial, as_frozen_copy
    method._adversarial = lambda swapped: (
        weights.append(method.D.scales[0][0][0].weight.clone()) or adversarial(swapped)
    )
    monkeypatch.setattr(
        dg_net.blocks, "as_frozen_copy", lambda network, *x: modes.append(network is method.E_s) or frozen(network, *x)
    )
    options = dict(device="cpu", precision="fp32", progress=False)
    fit(method, batches, 1, accumulation=2, **options)
    assert torch.equal(weights[0], alone.D.scales[0][0][0].weight) and not torch.equal(weights[1], weights[0])
    parameters, optimizer, _ = alone.optimizers()["D"]
    for piece in (slice(0, 2), slice(2, 4)):
        part = {name: value[piece] for name, value in batches(0).items()}
        alone.training_step(part, 0, lambda name, loss: name == "D" and (loss / 2).backward(inputs=parameters))
    optimizer.step()
    for p, q in zip(method.D.parameters(), parameters, strict=True):
        assert torch.allclose(p, q, atol=1e-6)
    modes.clear()
    fit(method, batches, steps, accumulation=2, **options)
    late = torch.tensor(modes[4:])  # the first step re-encodes nothing: two looks of E_a a piece
    pieces, at = [], 0
    while at < len(late):  # two looks of E_a, and E_s where it is frozen
        frozen_here = at + 2 < len(late) and bool(late[at + 2])
        pieces.append(frozen_here)
        at += 2 + frozen_here
    assert pieces[::2] == pieces[1::2] and set(pieces) == {True, False} and len(pieces) == 2 * (steps - 1)


def test_a_kept_background_is_the_structure_images():
    """Outside its mask a picture is the structure image, in training and in `generate`; no loss sees the rest of G."""
    method, batch = smoke(background="kept", re_encoding="frozen"), quadruples()
    reals = [normalise(batch[f"{side}images"]) for side in ("", "other_")]
    masks = [batch[f"{side}masks"][:, None].float() / 255 for side in ("", "other_")]
    seen = []
    method.D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    terms, _ = step_of(method, batch)
    codes, (s_a, s_b) = [method.E_a(x)[0] for x in reals], [method.E_s(grey(x)) for x in reals]
    drawn = [method.G(s_b, codes[0]), method.G(s_a, codes[1])]  # x_ba, x_ab: the structure is the other's
    wanted = torch.cat([m * x + (1 - m) * r for x, m, r in zip(drawn, masks[::-1], reals[::-1], strict=True)])
    assert torch.allclose(seen[1], wanted, atol=1e-5)
    own = [(method.G(s, f) - r).abs() * m for s, f, r, m in zip((s_a, s_b), codes, reals, masks, strict=True)]
    assert terms["L_img1"].item() == pytest.approx(2 * torch.cat(own).mean().item(), rel=1e-4)
    part = people(2).batch([0, 1]) | {"masks": torch.stack([torch.zeros(64, 32), torch.full((64, 32), 255)]).byte()}
    condition, appearance = method.condition(part), torch.rand(2, 3, 64, 32) * 2 - 1
    assert condition.shape == (2, 4, 64, 32)
    whole = copy.deepcopy(method)
    whole.settings["background"] = "drawn"
    made, free = method.generate(appearance, condition), whole.generate(appearance, condition[:, :3])
    assert torch.allclose(made[0], condition[0, :3], atol=1e-5) and torch.allclose(made[1], free[1], atol=1e-5)
    assert method.deviations["background"] == "kept"
    nobody = batch | {f"{side}masks": torch.zeros_like(batch[f"{side}masks"]) for side in ("", "other_")}
    terms, _ = step_of(method, nobody)  # where the masks are empty every picture is its structure image
    assert all(terms[name].item() == pytest.approx(0, abs=1e-6) for name in ("L_img1", "L_img2", "L_cyc"))
    with pytest.raises(ValueError, match=r"with its mask \[B,4,H,W\] for each .* got \[2, 3, 64, 32\]"):
        method.generate(appearance, condition[:, :3])
    for refused in (lambda: method.condition({"images": part["images"]}), lambda: step_of(method, batch)):
        batch.pop("other_masks", None)
        with pytest.raises(ValueError, match="background='kept' needs"):
            refused()


def test_images_go_in_and_out_in_the_range_of_generators():
    method, seen = smoke(), []
    x, y = torch.rand(2, 2, 3, 64, 32) * 2 - 1
    method.E_s.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    out = method.generate(x, y)
    assert torch.allclose(seen[0], grey(signed_to_imagenet(y))) and method.training and method.E_a.training
    method.eval()
    with torch.no_grad():
        drawn = method.G(method.E_s(grey(signed_to_imagenet(y))), method.E_a(signed_to_imagenet(x))[0])
    assert torch.allclose(out, imagenet_to_signed(drawn), atol=1e-5) and out.abs().max() <= 1
    batch = people(2).batch([0, 1])
    assert torch.equal(method.condition(batch), normalise(batch["images"], "signed"))


def test_interpolation_is_between_appearance_codes():
    method = smoke().eval()
    first, second, structure = torch.rand(3, 2, 3, 64, 32) * 2 - 1
    assert torch.equal(method.interpolate(first, second, structure, 0.0), method.generate(first, structure))
    assert torch.allclose(
        method.interpolate(first, second, structure, 1.0), method.generate(second, structure), atol=1e-6
    )
    with torch.no_grad():
        f, g = (method.E_a(signed_to_imagenet(i))[0] for i in (first, second))
        middle = method.G(method.E_s(grey(signed_to_imagenet(structure))), 0.75 * f + 0.25 * g)
    assert torch.allclose(method.interpolate(first, second, structure, 0.25), imagenet_to_signed(middle), atol=1e-5)


@pytest.mark.parametrize("kind", ["least_squares", "vanilla"])
def test_mixed_precision_leaves_the_discriminator_in_float32(kind):
    method, kinds = smoke(gan_loss=kind), set()
    for scale in method.D.scales:
        scale[0][0].register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    exact, _ = step_of(method, quadruples())
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        terms, _ = step_of(method, quadruples())
    assert kinds == {torch.float32}
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert terms["D penalty"].item() == pytest.approx(exact["D penalty"].item(), rel=1e-5)
    for name in ("L_img1", "L_img2", "L_adv", "L_code2", "L_cyc", "L_id^s", "D"):
        assert terms[name].item() == pytest.approx(exact[name].item(), rel=0.05), name
    assert torch.stack([*terms.values()]).isfinite().all() and terms["L_img1"].item() != exact["L_img1"].item()


def test_settings_say_what_deviates():
    method = smoke(teacher_style="uniform", use_cycle=False)
    assert method.deviations["dilations"] == (1, 2, 3) and method.deviations["teacher_style"] == "uniform"
    assert method.deviations["use_cycle"] is False and "lambda_img" not in method.deviations
    assert method.deviations["kernel"] == 3 and method.G.last[1][0].kernel_size == method.G.last[3][0].kernel_size == (
        3,
        3,
    )
    assert (
        method.settings["teacher"].startswith("weights ")
        and smoke(use_prim=False, teacher=None).settings["teacher"] == "none"
    )


def refuse(message: str, error=ValueError, **switches):
    with pytest.raises(error, match=message):
        smoke(**switches)


def test_what_cannot_be_built_is_refused():
    refuse("teacher_style must be one of|teacher_style", teacher_style="best")
    refuse("gan_loss", gan_loss="hinge")
    refuse("re_encoding", re_encoding="both")
    refuse("slices", slices="rows")
    refuse("needs a teacher", teacher=None)
    refuse("the teacher tells 9 identities apart and E_a 4", teacher=teacher(9))
    refuse("guide must be a network", TypeError, teacher=3)
    refuse(r"at least 40 \(4 \(largest dilation \+ 1\)\), got 64x32", dilations=(3, 6, 9))
    refuse("multiples of 4 and at least 16", image_size=(66, 32))
    refuse("cannot be cut into 3 slices", units=3)
    with pytest.raises(TypeError, match=r"two heads .* got Embedder with 1 heads"):
        DGNet(teacher(), preset="smoke")
    with pytest.raises(TypeError, match="got Linear with 0 heads"):
        DGNet(nn.Linear(2, 2), preset="smoke")


def test_batches_that_cannot_be_trained_on_are_refused():
    method, batch = smoke(), quadruples()

    def step(part: dict) -> None:
        method.training_step(part, 0, lambda name, loss: None)

    with pytest.raises(ValueError, match=r"two pairs .* lacks other_positive_images, other_labels"):
        step({n: v for n, v in batch.items() if n not in ("other_positive_images", "other_labels")})
    with pytest.raises(ValueError, match=r"two rows and more of \(64, 32\) .* has 1 of \(64, 32\)"):
        step({n: v[:1] for n, v in batch.items()})
    with pytest.raises(ValueError, match=r"has 3 of \(32, 32\)"):
        step({n: v[:, :, :32] if n.endswith("images") else v for n, v in batch.items()})
    with pytest.raises(ValueError, match="label 4 with 4 classes"):
        step(batch | {"other_labels": torch.tensor([0, 4, 1])})


def test_pictures_that_do_not_fit_are_refused():
    method, x = smoke(), torch.zeros(2, 3, 64, 32)
    with pytest.raises(ValueError, match=r"one structure image for each .* got \[1, 3, 64, 32\]"):
        method.generate(x, x[:1])
    with pytest.raises(ValueError, match="got NoneType"):
        method.generate(x, None)
    with pytest.raises(ValueError, match="got 12x12"):
        method.generate(x[..., :12, :12], x[..., :12, :12])
    with pytest.raises(ValueError, match="DG-Net needs targets with images, got nothing"):
        method.condition(None)


def test_enlarging_repeats_pixels():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert enlarged(x, 2)[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert enlarged(x, 1) is x


def rendered() -> PersonImages:
    """Four persons, twice in each of two cameras."""
    rows = [(pid, camid, moment) for pid in range(1, 1 + K) for camid in (1, 2) for moment in (0, 1)]
    pids, camids, moments = zip(*rows, strict=True)
    made = render(pids, camids, moments=moments, image_size=(64, 32), scene="generation", seed=0)
    return PersonImages(made.images, pids, camids, keypoints=made.keypoints, masks=made.masks)


def test_the_whole_way_on_rendered_people(tmp_path):
    """Train a teacher, then all together (and take that up), swap in memory and in a file, judge, embed."""
    images = rendered()
    label, _ = train_baseline(images, form="dg_net_teacher", preset="smoke", images_seen=32, progress=False)
    torch.manual_seed(0)
    start = Baseline(K, form="dg_net", preset="smoke").embedder
    options = dict(teacher=label.embedder, preset="smoke", images_seen=24, device="cpu", precision="fp32")
    options |= dict(run_dir=tmp_path / "run", warm_up=0.2, distinct=True, progress=False, teacher_pids=images.pids)
    method, history = train_dg_net(images, start, **options)
    assert history.steps == 6 and history.images == 24
    assert {"L_prim", "L_fine", "L_cyc"} <= set(history.losses.columns)
    again, _ = train_dg_net(images, start, **options)  # the finished run is taken up
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in method.state_dict().items())
    with pytest.raises(ValueError, match=r"of another training(.|\n)*teacher"):
        train_dg_net(images, start, **options | {"teacher": teacher()})
    pairs = torch.tensor([[0, 5], [4, 1], [9, 2], [3, 3]])
    made = synthesise(method, images, pairs, targets=images, folder=tmp_path / "made", batch_size=3)
    streamed = torch.cat([pictures for _, pictures in stream(method, images, pairs, targets=images)])
    assert (made.images.float() - streamed.float()).abs().max() <= 1
    assert made.pids.tolist() == images.pids[pairs[:, 0]].tolist()  # who lends the clothes
    table = judge_generator(method, images, pairs, targets=images, judges=load_judges(), gallery=images, copy=True)
    assert list(table.index) == ["copy of the source", "DGNet"] and table.notna().all(axis=None)
    features = embed_all(method, images)
    assert fuse(features).shape == (16, 64)
    assert torch.allclose(features[:2], method.embed(images.images[:2]), atol=1e-6)


def test_the_forms_of_the_re_id_networks():
    """E_a and the teacher as published; `Baseline` embeds as the joint method does."""
    with torch.device("meta"):
        named = {form: Baseline(751, form=form, preset="paper", start="none") for form in ("dg_net", "dg_net_teacher")}
    assert {form: count(method.embedder) for form, method in named.items()} == {
        "dg_net": 26_378_782, "dg_net_teacher": 24_943_407}  # fmt: skip
    recipe = named["dg_net_teacher"].recipe
    assert (recipe.lr, recipe.new_layers * recipe.lr, recipe.batch) == (0.005, 0.05, 32)
    assert [recipe.factor(epoch) for epoch in (1, 40, 41, 60)] == pytest.approx([1, 1, 0.1, 0.1])
    torch.manual_seed(0)
    plain, images = Baseline(K, form="dg_net", preset="smoke"), people(4).images
    joint = DGNet(plain.embedder, preset="smoke", feed_generated=False)
    assert torch.allclose(plain.embed(images), joint.embed(images), atol=1e-6)


def test_an_encoder_of_other_identities_is_refused():
    with pytest.raises(ValueError, match="the set shows 4 identities, E_a tells 9 apart"):
        train_dg_net(people(), encoder(9), images_seen=8, preset="smoke", feed_generated=False, progress=False)
    with pytest.raises(ValueError, match="preset"):
        train_dg_net(people(), encoder(), images_seen=8, preset="tiny")


def test_a_teacher_of_other_identities_is_refused():
    """As many others are numbered alike: their classifier would fit and name wrong people."""
    options = dict(images_seen=8, preset="smoke", progress=False)
    for pids, said in (
        ((), "0 identities .*, 0 of them among the set's 4"),
        ((1, 2, 3, 4), "4 identities .*, 3 of them"),
    ):
        with pytest.raises(ValueError, match=f"the teacher was trained on {said}"):
            train_dg_net(people(), encoder(), teacher(), pids, **options)
    options |= dict(foreground_weight=1.0, device="cpu")
    assert train_dg_net(people(), encoder(), teacher(), torch.tensor([3, 2, 1, 0, -1]), **options)[1].steps == 2


def test_weights_of_another_number_of_identities_are_refused(tmp_path):
    for large, small in ((teacher(9), teacher()), (smoke(classes=9), smoke())):
        before = copy.deepcopy(small.state_dict())
        with pytest.raises(ValueError, match="classifier"):
            load_weights(small, save_weights(large, tmp_path / "of_nine.safetensors"))
        assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_an_identity_with_one_image_is_its_own_positive():
    images = people(5)
    options = dict(images_seen=8, batch_size=4, preset="smoke", foreground_weight=1.0, progress=False, device="cpu")
    _, history = train_dg_net(images, encoder(), feed_generated=False, **options)
    assert history.steps == 2 and history.losses.notna().all(axis=None)


def test_mutual_training_of_one_row_is_refused():
    with pytest.raises(ValueError, match="two rows and more"):
        train_dg_net(people(), encoder(), images_seen=2, batch_size=1, preset="smoke", feed_generated=False,
                     progress=False, device="cpu")  # fmt: skip
