"""Pose attention in training, the fact sheet's checks 6 to 12: losses, routing, schedule, ablations."""

import pytest
import torch
import torch.nn.functional as F
from pose_attention_toys import HEAD, SIZE, Constant, encoder, images_of, one_batch, people, smoke, step_of
from torch import nn

from reidlib.datasets import PersonImages, poses
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.embedders import Embedder
from reidlib.generators import pose_attention
from reidlib.generators.pose_attention import PAPER, PoseAttention, augmentation_pairs, decay, pose_attention_pairs
from reidlib.losses import draw_quartets
from reidlib.networks import normalise, signed_to_imagenet
from reidlib.training import fit
from reidlib.training.updates import plain_update

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


def test_the_condition_images_background_where_it_is_asked_for():
    """Right in the target's person and in what I_c shows around its own: no loss; D_I sees I_c's person alone."""
    batch, seen = one_batch(), []
    batch["masks"], batch["target_masks"] = (torch.zeros(len(batch["images"]), *SIZE, dtype=torch.uint8) for _ in "ab")
    batch["masks"][:, 16:], batch["target_masks"][:, :8] = 255, 255
    source, target = (batch[name].float() / 127.5 - 1 for name in ("images", "target_images"))
    drawn = torch.cat([target[:, :, :8], source[:, :, 8:15], -source[:, :, 15:]], dim=2)
    guide = nn.Module()  # the pixels themselves
    guide.stem, guide.stages = nn.Identity(), nn.ModuleList([nn.Identity()])
    for background in ("source", "target"):
        method = smoke(background=background, guide=guide, foreground_weight=4)
        method.G = Constant(pose_attention.Generated(drawn.clone().requires_grad_(), [], []))
        method.D_I.register_forward_hook(lambda m, given, _: seen.append(given[0][:, :3]))
        terms, _ = step_of(method, batch)
        for name in ("L_R", "perceptual"):
            assert terms[name] < 1e-5 if background == "source" else terms[name] > 0.1
    alone = source.clone()
    alone[:, :, :16] = 0
    for beside in seen[:3]:
        torch.testing.assert_close(beside, alone)
    torch.testing.assert_close(seen[3], source)
    del batch["masks"]
    with pytest.raises(ValueError, match="background='source' needs pairs with masks, got"):
        step_of(smoke(background="source", foreground_weight=4), batch)


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
