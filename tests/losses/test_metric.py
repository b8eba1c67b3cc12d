"""Metric losses: the fact sheets' hand-worked values, slow loops, gradients and the rules of drawing."""

import pytest
import torch

from reidlib.losses import CentreLoss, QuartetLoss, batch_hard_triplet, centre_loss, draw_quartets, quartet_loss


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def quartet(*points):
    return [torch.tensor([p], dtype=torch.float64) for p in points]


FIRST = quartet((0, 0), (1, 0), (0, 2), (3, 0))  # d12 = 1, d13 = 4, d43 = 13, d23 = 5
SECOND = quartet((0, 0), (1, 0), (0, 1), (1, 1))


def test_batch_hard_by_hand():  # acceptance check 13
    features, labels = torch.tensor([[0.0], [1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1, 1])
    assert batch_hard_triplet(features, labels).item() == pytest.approx(0.075)
    unlabelled = torch.cat([features, features[:1] + 0.1]), torch.cat([labels, torch.tensor([-2])])
    assert batch_hard_triplet(*unlabelled).item() == pytest.approx(0.075)


def test_batch_hard_equals_a_loop():
    features = torch.randn(12, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    labels = torch.arange(12) % 4
    terms = []
    for a in range(12):
        d = (features - features[a]).square().sum(1).clamp(min=1e-12).sqrt()
        terms.append((0.3 + d[labels == labels[a]].max() - d[labels != labels[a]].min()).clamp(min=0))
    want = torch.stack(terms).mean()
    got = batch_hard_triplet(features, labels)
    torch.testing.assert_close(got, want)
    gradients = [torch.autograd.grad(loss, features)[0] for loss in (got, want)]
    torch.testing.assert_close(*gradients)


def test_an_identity_with_one_image_is_its_own_positive():
    """By hand, on a line: 0 and 1 are one person, 1.2 a second, 2 and 4 a third."""
    features, labels = torch.tensor([[0.0], [1.0], [1.2], [2.0], [4.0]]), torch.tensor([0, 0, 1, 2, 2])
    # anchors: 0.3 + 1 - 1.2, 0.3 + 1 - 0.2, 0.3 + 0 - 0.2, 0.3 + 2 - 0.8, and 0.3 + 2 - 2.8 is below 0
    assert batch_hard_triplet(features, labels).item() == pytest.approx((0.1 + 1.1 + 0.1 + 1.5 + 0) / 5)
    # nobody has a second image: 0.3 - 0.25, 0.3 - 0.25, and 0.3 - 0.75 is below 0
    alone = batch_hard_triplet(torch.tensor([[0.0], [0.25], [1.0]]), torch.tensor([4, 7, 9]))
    assert alone.item() == pytest.approx(0.1 / 3)
    # an unlabelled image makes no identity a pair
    pair = torch.tensor([[0.0], [0.1], [0.2]]), torch.tensor([0, -2, 1])
    assert batch_hard_triplet(*pair).item() == pytest.approx(0.1)


def test_a_lone_anchor_is_at_distance_0_from_itself_in_any_batch():
    """Distances of large batches of long features are rounded; that adds nothing to it, and the gradient is finite."""
    features = (10 + torch.randn(40, 256, generator=generator())).requires_grad_()
    labels = torch.arange(40)
    nearest = torch.cdist(features.detach().double(), features.detach().double()).fill_diagonal_(torch.inf).amin(1)
    loss = batch_hard_triplet(features, labels, margin=30.0)
    assert loss.item() == pytest.approx((30 - nearest).clamp(min=0).mean().item(), rel=1e-4)
    loss.backward()
    assert torch.isfinite(features.grad).all() and features.grad.any()


def test_batch_hard_without_triplets_is_zero_and_equal_features_have_a_gradient():
    features = torch.randn(4, 3, requires_grad=True)
    assert batch_hard_triplet(features, torch.zeros(4, dtype=torch.int64)).item() == 0
    same = torch.ones(4, 3, requires_grad=True)
    loss = batch_hard_triplet(same, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.3) and torch.isfinite(same.grad).all()


def test_quartet_by_hand():  # pose attention, acceptance check 6
    assert quartet_loss(*FIRST).item() == pytest.approx(0.99)
    assert quartet_loss(*FIRST, form="literal").item() == pytest.approx(0.0)
    assert quartet_loss(*FIRST, form="literal", margins=(0.5, 0.1)).item() == pytest.approx(1.5)
    assert quartet_loss(*SECOND).item() == pytest.approx(1.99)
    assert quartet_loss(*SECOND, form="literal").item() == pytest.approx(1.0)
    # prose: 2 * 1 - 4 - 5 + m1 with the margin 8 leaves 1; the equation would have nothing left
    assert quartet_loss(*FIRST, margins=(8, 2), second_negative="23").item() == pytest.approx(1.0)
    assert quartet_loss(*FIRST, margins=(8, 2)).item() == 0
    assert quartet_loss(*SECOND, beta=0.002).item() == pytest.approx(1 + 0.002 * 0.99)


def test_quartet_reductions():
    both = [torch.cat(pair) for pair in zip(FIRST, SECOND, strict=True)]
    assert quartet_loss(*both).item() == pytest.approx((0.99 + 1.99) / 2)
    assert quartet_loss(*both, reduction="sum").item() == pytest.approx(0.99 + 1.99)


@pytest.mark.parametrize("second_negative", ["43", "23"])
def test_both_readings_differ_by_a_constant_and_have_equal_gradients(second_negative):
    members = [torch.randn(9, 4, generator=generator(i), dtype=torch.float64, requires_grad=True) for i in range(4)]
    members[3].requires_grad_(second_negative == "43")  # the prose has no use for it
    learnt = [m for m in members if m.requires_grad]
    options = dict(second_negative=second_negative)
    hinge, literal = quartet_loss(*members, **options), quartet_loss(*members, form="literal", **options)
    assert (literal - hinge).item() == pytest.approx(-0.99)
    for a, b in zip(torch.autograd.grad(hinge, learnt), torch.autograd.grad(literal, learnt), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(lambda *x: quartet_loss(*x, **options), members)


def test_the_printed_threshold_is_a_trap():  # acceptance check 7
    anchor, positive, negative, other = quartet((0.0,), (0.5,), (-0.3,), (0.0264911,))
    members = [m.requires_grad_() for m in (anchor, positive, negative, other)]
    z = 2 * 0.25 - 0.09 - (0.3264911) ** 2
    assert 0 < z < 0.5  # violated: the negatives are nearer than the positive
    loss = quartet_loss(*members, form="literal", margins=(0.5, 1.0))
    loss.backward()
    assert all((m.grad == 0).all() for m in members)


def test_drawn_quartets_keep_the_rules():
    labels = torch.tensor([3, 3, 3, 5, 5, 8, 9, -2, -1])
    seen = torch.zeros(9, 9)
    for seed in range(40):
        quartets = draw_quartets(labels, generator(seed), n=20)
        assert quartets.shape == (20, 4)
        ids = labels[quartets]
        assert (ids >= 0).all() and (ids[:, 0] == ids[:, 1]).all() and (quartets[:, 0] != quartets[:, 1]).all()
        assert (ids[:, 0] != ids[:, 2]).all() and (ids[:, 0] != ids[:, 3]).all() and (ids[:, 2] != ids[:, 3]).all()
        seen.index_put_((quartets[:, 0], quartets[:, 2]), torch.ones(20), accumulate=True)
    assert (seen[0, 3:7] > 0).all() and (seen[:5].sum(1) > 100).all()  # every anchor and negative occurs
    assert draw_quartets(labels, generator())[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(draw_quartets(labels, generator(1), n=7), draw_quartets(labels, generator(1), n=7))


def test_images_without_a_label_are_no_anchors_however_many_share_their_number():
    labels = torch.tensor([-2, 4, -2, 4, 5, -1, 6, -1])
    assert draw_quartets(labels, generator())[:, 0].tolist() == [1, 3]
    assert set(draw_quartets(labels, generator(), n=50)[:, 0].tolist()) == {1, 3}


def test_quartet_module_on_a_batch():
    labels = torch.tensor([0, 0, 1, 1, 2, -2])
    features = torch.randn(6, 4, generator=generator(), requires_grad=True)
    loss = QuartetLoss()(features, labels, generator(1))
    unit = torch.nn.functional.normalize(features, dim=1)
    chosen = draw_quartets(labels, generator(1))
    torch.testing.assert_close(loss, quartet_loss(*(unit[chosen[:, i]] for i in range(4))))
    two = QuartetLoss()(features, torch.tensor([0, 0, 1, 1, 1, 1]), generator())
    two.backward()
    assert two.item() == 0 and (features.grad == 0).all()


def test_centre_loss_by_hand_and_its_step():
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0], [9.0, 9.0]])
    labels = torch.tensor([0, 1, -2])
    centres = torch.zeros(2, 2)
    assert centre_loss(features, labels, centres).item() == 5.0
    module = CentreLoss(2, 2)
    module.centres.data.zero_()
    # rate 0.5 on the gradient of weight * loss divided by weight: centre 0 moves by 0.5 * 2 / 2 * (1, 0)
    weight = 5e-4
    (weight * module(features, labels)).backward()
    torch.testing.assert_close(-0.5 * module.centres.grad / weight, torch.tensor([[0.5, 0.0], [0.0, 1.5]]))
    x, c = (torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda f, m: centre_loss(f, torch.tensor([0, 2, 2]), m), (x, c))


def test_centres_start_from_the_normal_distribution():
    torch.manual_seed(0)
    centres = CentreLoss(4000, 5).centres
    assert centres.shape == (4000, 5) and centres.requires_grad
    torch.testing.assert_close(centres.mean(0), torch.zeros(5), rtol=0, atol=0.08)  # five deviations of the mean
    torch.testing.assert_close(centres.std(0), torch.ones(5), rtol=0, atol=0.06)
    within = (centres.abs() < 1).float().mean().item()
    assert within == pytest.approx(0.6827, abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quartet_loss(*FIRST, form="square"), "form must be one of 'hinge', 'literal'; got 'square'"),
        (lambda: quartet_loss(*FIRST, second_negative="13"), "second_negative must be one of '43', '23'; got '13'"),
        (lambda: quartet_loss(*FIRST[:3], torch.zeros(2, 2)), r"\[n, D\]"),
        (lambda: draw_quartets(torch.tensor([0, 0, 1, -2]), generator()), "three identities"),
        (lambda: draw_quartets(torch.tensor([0, 1, 2]), generator()), "every identity has one"),
        (lambda: batch_hard_triplet(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)), "features"),
        (lambda: centre_loss(torch.zeros(2, 2), torch.zeros(2), torch.zeros(2, 2)), "int64"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_batch_without_labels_costs_nothing_in_the_triplet_loss():
    features = torch.ones(3, 2, requires_grad=True)
    loss = batch_hard_triplet(features, torch.tensor([-1, -1, -2]))
    loss.backward()
    assert loss.item() == 0 and features.grad.abs().sum() == 0
