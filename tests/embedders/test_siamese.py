"""The Siamese network: its square layer, its three losses, growing negatives, and a training that learns."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.datasets.sampling import Batches, seeded
from reidlib.embedders import embed_all
from reidlib.embedders.siamese import (
    AUGMENTATIONS,
    SIAMESE_RECIPES,
    Siamese,
    growing_pairs,
    negatives_per_positive,
    train_siamese,
)


def coloured(n_people: int = 4, each: int = 6) -> PersonImages:
    """People in one colour each, under noise."""
    g = torch.Generator().manual_seed(0)
    colours = torch.randint(30, 220, (n_people, 3, 1, 1), generator=g).float()
    pids = torch.arange(n_people).repeat_interleave(each)
    images = colours[pids] + 12 * torch.randn(len(pids), 3, 64, 32, generator=g)
    return PersonImages(images.clamp(0, 255).to(torch.uint8), pids + 3, torch.arange(len(pids)) % 2 + 1)


def pair_batch(n: int = 6) -> dict:
    data = coloured()
    return Batches(data, growing_pairs(data.pids, n, 1), seed=1)(0)


def test_14_swapping_a_pair_leaves_the_verification_unchanged():
    torch.manual_seed(0)
    method = Siamese(4, preset="smoke").eval()
    f = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(method.verifier[1].weight)
    forth, back = method.compare(f[0], f[1]), method.compare(f[1], f[0])
    assert forth.shape == (5, 2) and torch.equal(forth, back)
    linear = method.verifier[1]
    assert torch.allclose(forth, (f[0] - f[1]) ** 2 @ linear.weight.T + linear.bias, atol=1e-5)


def test_terms_by_hand_and_one_classifier_for_both():
    torch.manual_seed(0)
    method, batch, calls = Siamese(4, preset="smoke", dropout=0.0), pair_batch(), []
    nn.init.normal_(method.verifier[1].weight)
    terms = method.training_step(batch, 0, lambda name, loss: calls.append((name, loss)))
    pixels = torch.cat([batch["images"], batch["target_images"]]).float() / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    with torch.no_grad():
        pooled = method.embedder.backbone(pixels).mean((2, 3))
        logits = method.embedder.heads[0].classifier(pooled)
        scores = method.compare(pooled[:6], pooled[6:])
    same = (batch["labels"] == batch["target_labels"]).long()
    assert 0 < same.sum() < 6
    wanted = {
        "verification": F.cross_entropy(scores, same),
        "identity": F.cross_entropy(logits[:6], batch["labels"]),
        "target identity": F.cross_entropy(logits[6:], batch["target_labels"]),
    }
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-5)
    a, b, c = wanted.values()
    torch.testing.assert_close(calls[0][1].detach(), a + 0.5 * b + 0.5 * c, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in calls] == ["E"]
    assert terms["verification accuracy"] == (scores.argmax(1) == same).float().mean()
    assert (
        terms["accuracy"] == (logits.argmax(1) == torch.cat([batch["labels"], batch["target_labels"]])).float().mean()
    )


def test_the_papers_recipe():
    recipe = SIAMESE_RECIPES["paper"]
    assert (recipe.batch, recipe.dropout, recipe.weight_decay, recipe.image_size) == (48, 0.9, 5e-4, (224, 224))
    assert [round(recipe.lr * recipe.factor(epoch), 8) for epoch in (1, 70, 71, 75)] == [1e-4, 1e-4, 1e-5, 1e-5]
    with torch.device("meta"):
        method = Siamese(751, preset="paper", start="none")
    assert method.verifier[1].weight.shape == (2, 2048) and method.verifier[0].p == 0.9
    assert method.embedder.heads[0].classifier.weight.shape == (751, 2048) and method.normalise
    assert method.embedder.heads[0].dropout.p == 0.9 and isinstance(method.embedder.heads[0].layer, nn.Identity)
    optimizer = method.optimizers()["E"][1]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-3])
    assert optimizer.defaults["momentum"] == 0.9
    new = {id(p) for p in optimizer.param_groups[1]["params"]}
    assert new == {id(p) for p in (*method.verifier.parameters(), *method.embedder.new_layers)}
    batch = {name: torch.arange(256, dtype=torch.uint8).expand(40, 3, 256, 256) for name in ("images", "target_images")}
    cropped = AUGMENTATIONS["paper"](batch, seeded(0))
    assert cropped["images"].shape == (40, 3, 256, 256)  # a window of 224, enlarged as the data come
    assert not torch.equal(cropped["images"], cropped["target_images"])  # each has its own draw


def test_the_mixture_grows_from_one_to_four():
    for steps in (141, 750, 6000):
        ratios = [negatives_per_positive(step, steps) for step in range(steps)]
        assert ratios[0] == 1 and ratios[-1] == 4 and ratios == sorted(ratios)
        assert len({round(ratio, 9) for ratio in ratios}) == 141
    assert negatives_per_positive(2, 282) == pytest.approx(1.01) and negatives_per_positive(1, 282) == 1
    assert negatives_per_positive(299, 300, epochs=75) == pytest.approx(1.01**74)  # the paper's 75 end at 2.09
    assert {negatives_per_positive(step, 50, first=4.0) for step in range(50)} == {4.0}


def test_pairs_hold_the_mixture_and_every_image():
    pids = torch.tensor([4] * 3 + [9] * 5 + [-1] * 2 + [2] * 1 + [7] * 4)  # 2 has one image
    steps = 60
    rows = growing_pairs(pids, 20, steps, growth=1.05).draw(seeded(3))
    assert len(rows) == steps and all(batch.shape == (20, 2) for batch in rows)
    for step, batch in enumerate(rows):
        ratio = min(4.0, 1.05 ** (step * 141 // steps))
        same = pids[batch[:, 0]] == pids[batch[:, 1]]
        assert int(same.sum()) == round(20 / (1 + ratio)), step
    together = torch.cat(rows)
    same = pids[together[:, 0]] == pids[together[:, 1]]
    assert (together[:, 0] != together[:, 1]).all() and (pids[together] >= 0).all()
    known = (pids >= 0).nonzero().flatten().tolist()
    for kind, wanted in ((same, [i for i in known if pids[i] != 2]), (~same, known)):
        counts = together[kind][:, 0].bincount(minlength=len(pids))
        assert sorted(together[kind][:, 1].unique().tolist()) == wanted  # partners are of all kinds
        assert counts.nonzero().flatten().tolist() == wanted
        assert counts[wanted].max() - counts[wanted].min() <= 1  # each anchor as often as the others
    assert not torch.equal(rows[0], growing_pairs(pids, 20, steps, growth=1.05).draw(seeded(4))[0])
    first = rows[0][:, 0]
    assert not torch.equal(first.sort().values, first) and 0 < int(same[:10].sum()) < 10  # mixed in a batch


def test_it_learns_to_identify_and_to_verify():
    data = coloured()
    method, history = train_siamese(data, images_seen=32 * 40, preset="smoke", device="cpu", progress=False,
                                    precision="fp32", log_every=10)  # fmt: skip
    last = history.losses.iloc[-1]
    assert history.steps == 40 and history.images == 16 * 40
    assert last["accuracy"] > 0.9 and last["verification"] < history.losses["verification"].iloc[0]
    features = embed_all(method, data)
    assert torch.allclose(features.norm(dim=1), torch.ones(len(data)), atol=1e-5)
    near = torch.cdist(features, features).fill_diagonal_(9).argmin(1)
    assert (data.pids[near] == data.pids).float().mean() > 0.95
    again, _ = train_siamese(data, images_seen=32 * 2, preset="smoke", device="cpu", progress=False, seed=5)
    same, _ = train_siamese(data, images_seen=32 * 2, preset="smoke", device="cpu", progress=False, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), same.parameters(), strict=True))


def test_a_recipe_of_p_times_k_images_gives_as_many_pairs():
    options = {"recipe": replace(SIAMESE_RECIPES["smoke"], batch=(4, 2))}
    _, history = train_siamese(
        coloured(), images_seen=32, preset="smoke", options=options, device="cpu", progress=False
    )
    assert history.steps == 2 and history.images == 16


def test_bad_input_is_refused():
    data, batch, ignore = coloured(), pair_batch(), lambda name, loss: None
    method = Siamese(4, preset="smoke")
    with pytest.raises(ValueError, match=r"the batch lacks \['target_images'\]"):
        method.training_step({n: v for n, v in batch.items() if n != "target_images"}, 0, ignore)
    with pytest.raises(ValueError, match="label -1"):
        method.training_step(batch | {"labels": torch.full_like(batch["labels"], -1)}, 0, ignore)
    with pytest.raises(TypeError, match="loss cannot be chosen"):
        Siamese(4, preset="smoke", loss="triplet")
    with pytest.raises(ValueError, match="'smoke', 'course', 'paper'"):
        train_siamese(data, images_seen=320, preset="large")
    with pytest.raises(ValueError, match="images_seen=31 is less than one batch of 16 pairs"):
        train_siamese(data, images_seen=31, preset="smoke")
    with pytest.raises(ValueError, match="images_seen=63 is less than one batch of 32 pairs"):
        train_siamese(data, images_seen=63, preset="smoke", options={"recipe": "thesis"})
    for pids, size, words in (
        ([1, 1, 1], 4, r"got 1 people with \[3\] images"),
        ([1, 2, 3], 4, r"got 3 people with \[1, 1, 1\] images"),
        ([1, 1, 2], 1, "batch_size=1"),
    ):
        with pytest.raises(ValueError, match=words):
            growing_pairs(torch.tensor(pids), size, 3)
