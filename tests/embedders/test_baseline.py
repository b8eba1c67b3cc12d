"""The baseline method: schedules as printed, losses, and learning a tiny set."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from reidlib.datasets.person_images import PersonImages
from reidlib.embedders import RECIPES, Baseline, embed_all
from reidlib.evaluators import evaluate_retrieval
from reidlib.losses import cross_entropy, label_smoothing, lsro
from reidlib.networks import normalise


def people(n_ids=6, each=6, seed=0):
    """One colour for each identity, with noise."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(40, 216, (n_ids, 3, 1, 1), generator=torch.Generator().manual_seed(5))
    pids = torch.arange(n_ids).repeat_interleave(each) + 1
    noise = torch.randint(-30, 31, (n_ids * each, 3, 64, 32), generator=generator)
    return PersonImages((colours[pids - 1] + noise).to(torch.uint8), pids, torch.arange(len(pids)) % 2 + 1)


def train(method, images, steps, batch_size=18):
    """Drive a method as `training.fit` does, without its care."""
    optimizers = method.optimizers()

    def update(name, loss):
        parameters, optimizer, schedule = optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * (schedule(step) if schedule else 1)
        loss.backward(inputs=parameters)
        optimizer.step()
        optimizer.zero_grad()

    method.train()
    for step in range(steps):
        torch.manual_seed(step)
        batch = images.batch(torch.randperm(len(images))[:batch_size])
        terms = method.training_step(batch | {"labels": batch["pids"] - 1}, step, update)
    return {name: value.item() for name, value in terms.items()}


@pytest.mark.parametrize("loss", ["softmax", "lsr", "triplet", "quartet", "lsr+triplet+centre"])
def test_learns_a_tiny_set(loss):
    torch.manual_seed(0)
    method = Baseline(6, preset="smoke", loss=loss, steps=60)
    terms = train(method, people(), 60)
    names = {"identity", "loss", "accuracy"} | ({*loss.split("+")} - {"softmax", "lsr"})
    assert set(terms) == names
    assert terms["accuracy"] == 1.0
    query, gallery = people(each=2, seed=1), people(each=4, seed=2)
    features = [embed_all(method, images, batch_size=5) for images in (query, gallery)]
    scores = evaluate_retrieval(
        *features,
        query_pids=query.pids,
        query_camids=query.camids,
        gallery_pids=gallery.pids,
        gallery_camids=gallery.camids,
    )
    assert scores.rank(1) == 1.0


def recorded(method, batch):
    """Run one training step whose updates are only written down."""
    losses = {}
    terms = method.training_step(batch, 0, lambda name, loss: losses.setdefault(name, loss))
    return terms, losses


@pytest.mark.parametrize(("recipe", "weight"), [("scratch", 1), ("course", 0.2), ("bag_of_tricks", 1)])
def test_terms_and_weights(recipe, weight):
    torch.manual_seed(0)
    method = Baseline(6, preset="smoke", recipe=recipe, loss="lsr+triplet+quartet+centre")
    batch = people().batch(range(36))
    terms, losses = recorded(method, batch | {"labels": batch["pids"] - 1})
    parts = [terms["identity"], weight * terms["triplet"], weight * terms["quartet"], 5e-4 * terms["centre"]]
    assert min(parts) > 1e-3 * sum(parts)  # a part that is left out, or taken twice, shows
    torch.testing.assert_close(losses["E"], sum(parts), rtol=1e-6, atol=0)
    torch.testing.assert_close(losses["centres"], terms["centre"])
    assert losses["centres"].requires_grad
    network = torch.autograd.grad(losses["centres"], list(method.embedder.backbone.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in network)  # the centres' step must not move the network


@pytest.mark.parametrize(("loss", "function"), [("softmax", cross_entropy), ("lsr", label_smoothing)])
def test_identity_term_and_unlabelled_images(loss, function):
    method = Baseline(6, preset="smoke", loss=loss).train()
    batch = people().batch(range(36))
    labels = batch["pids"] - 1
    terms, _ = recorded(method, batch | {"labels": labels})
    logits = method.embedder(normalise(batch["images"]))[2]
    torch.testing.assert_close(terms["identity"], function(logits, labels))
    labels = torch.where(torch.arange(36) % 3 == 0, -2, labels)  # generated images without a label: LSRO
    terms, _ = recorded(method, batch | {"labels": labels})
    torch.testing.assert_close(terms["identity"], lsro(logits, labels, 0.1 if loss == "lsr" else 0.0))
    method.unlabelled_weight = 0.0  # nothing pulls towards uniform: the labelled images' sum, over the whole batch
    terms, _ = recorded(method, batch | {"labels": labels})
    torch.testing.assert_close(terms["identity"], function(logits[labels >= 0], labels[labels >= 0]) * 24 / 36)
    method.unlabelled_weight = 1.0
    only_fakes, _ = recorded(method, batch | {"labels": torch.full((36,), -2)})
    assert only_fakes["identity"].isfinite() and only_fakes["accuracy"] == 0


def test_pixels_or_normalised_floats():
    method = Baseline(6, preset="smoke").eval()
    images = people().images[:4]
    assert torch.equal(method.embed(images), method.embed(normalise(images)))
    method.train()
    torch.testing.assert_close(method.embed(images), method.embed(images))  # evaluation mode inside, and back after
    assert method.embedder.training and method.embedder.heads[0].norm.training
    wanted = normalise(images).requires_grad_()
    assert torch.autograd.grad(method.embed(wanted).sum(), wanted)[0].abs().sum() > 0


def test_embed_all():
    method = Baseline(6, preset="smoke", flip=False)
    method.embedder.heads[0].norm.running_var.uniform_(0.5, 2)
    images = people()
    features = embed_all(method, images, batch_size=7)
    assert features.shape == (36, 64) and not features.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(features, method.embed(images.images))
    with pytest.raises(ValueError, match="no images"):
        embed_all(method, images.select(indices=[]))


def test_features_of_image_and_mirror_are_averaged():
    """The course's recipes and DG-Net's do it; each head is scaled to length 1 by itself, before and after."""
    assert Baseline(6, preset="smoke").flip and not Baseline(6, preset="smoke", form="pn_gan").flip
    assert not any(recipe.flip for name, recipe in RECIPES.items() if name not in ("course", "scratch", "dg_net"))
    images = people().images[:5]
    for normalise_features in (True, False):
        heads = [dict(norm="bnneck", dimensions=d) for d in (0, 32)]
        method = Baseline(6, preset="smoke", heads=heads, normalise=normalise_features, flip=False)
        with torch.no_grad():
            plain, mirrored = method.embed(images), method.embed(images.flip(3))
            method.flip = True
            both = method.embed(images)
        assert not torch.allclose(plain, mirrored, atol=1e-3)
        want = (plain + mirrored) / 2
        if normalise_features:
            parts = want.split((64, 32), 1)
            want = torch.cat([part / part.norm(dim=1, keepdim=True) for part in parts], 1)
        torch.testing.assert_close(both, want)
        torch.testing.assert_close(both, method.embed(images.flip(3)))


def rates(name, *units):
    recipe = RECIPES[name]
    return [recipe.lr * recipe.factor(unit) for unit in units]


def test_printed_schedules():  # acceptance check 14: the warm-up values
    assert rates("bag_of_tricks", 1, 5, 10, 39, 40, 69, 70, 120) == pytest.approx(
        [3.815e-5, 1.7675e-4, 3.5e-4, 3.5e-4, 3.5e-5, 3.5e-5, 3.5e-6, 3.5e-6]
    )
    assert rates("thesis", 1, 20, 21, 40, 41, 60) == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6])
    assert rates("ide", 1, 20_000, 20_001, 40_001, 50_000) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-5])


def test_schedule_follows_the_share_of_the_run():
    method = Baseline(3, preset="smoke", recipe="bag_of_tricks", steps=120 * 7)  # 7 steps an epoch: as printed
    for step in (0, 6, 7, 7 * 39 - 1, 7 * 39, 7 * 69, 839, 2000):
        assert method.schedule(step) == RECIPES["bag_of_tricks"].factor(min(step // 7 + 1, 120))
    short = Baseline(3, preset="smoke", recipe="thesis", steps=30)
    assert [short.schedule(s) for s in (0, 9, 10, 19, 20, 29)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    course = Baseline(3, preset="smoke", steps=1000)
    factors = [course.schedule(step) for step in range(1000)]
    assert max(factors) <= 1 and factors[0] < 0.05 and factors[-1] < 1e-4 and factors[49] == pytest.approx(1)
    assert all(a >= b for a, b in pairwise(factors[49:]))


def test_recipes_choose_the_network():
    bag = Baseline(3, preset="paper", recipe="bag_of_tricks", backbone="small", width=8, start="none")
    assert bag.losses == ("lsr", "triplet") and bag.normalise
    assert isinstance(bag.embedder.heads[0].norm, torch.nn.BatchNorm1d)
    thesis = Baseline(3, preset="paper", start="none")
    assert thesis.embedder.dimensions == 2048 and thesis.losses == ("lsr",) and not thesis.normalise
    ide = Baseline(3, preset="smoke", recipe="ide")
    assert ide.embedder.heads[0].dropout.p == 0.5 and isinstance(ide.optimizers()["E"][1], torch.optim.SGD)
    own = Baseline(3, preset="smoke", recipe=replace(RECIPES["course"], lr=1e-3), loss="triplet")
    assert own.optimizers()["E"][1].param_groups[0]["lr"] == 1e-3 and own.losses == ("softmax", "triplet")


def test_state_dict_makes_the_same_features():
    first, second = (Baseline(4, preset="smoke", loss="softmax+centre") for _ in range(2))
    second.load_state_dict(first.state_dict())
    images = people().images
    assert torch.equal(first.embed(images), second.embed(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(preset="huge"), "preset must be one of .*got 'huge'"),
        (dict(form="pn-gan"), "form must be one of 'baseline', 'pn_gan', 'camstyle', .*; got 'pn-gan'"),
        (dict(recipe="magic"), "'bag_of_tricks'"),
        (dict(loss="softmax+lsr"), "not both"),
        (dict(loss="contrastive"), "loss must be one of 'softmax', .*got 'contrastive'"),
        (dict(loss="triplet+triplet"), "each loss is named once"),
        (dict(steps=0), "steps=0"),
        (dict(frozen_share=1.0), "frozen_share=1.0: accepted are"),
        (dict(fakes="soft"), "fakes must be one of None, 'lsr', 'vanilla'; got 'soft'"),
        (dict(passes="both"), "passes must be one of 'separate', 'joint'; got 'both'"),
        (dict(fakes="vanilla", loss="lsr"), "the loss lsr smooths them"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Baseline(3, **{"preset": "smoke"} | options)
