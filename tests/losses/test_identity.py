"""Identity losses by hand, against torch and by a slow loop."""

import math

import pytest
import torch

from reidlib.losses import cross_entropy, label_smoothing, lsro, mixed_loss

THREE = torch.tensor([[2.0, 0.0, 0.0]])
FIRST = torch.tensor([0])


def test_hand_worked_values():  # acceptance check 8
    assert cross_entropy(THREE, FIRST).item() == pytest.approx(0.239545, abs=1e-6)
    assert label_smoothing(THREE, FIRST).item() == pytest.approx(0.372878, abs=1e-6)
    assert label_smoothing(THREE, FIRST, 0.0).item() == cross_entropy(THREE, FIRST).item()
    for loss in (cross_entropy, label_smoothing, lsro):
        assert loss(torch.zeros(4, 751), torch.arange(4)).item() == pytest.approx(math.log(751), rel=1e-6)


def test_smallest_smoothed_loss_at_751_identities():
    target = torch.full((1, 751), 0.1 / 751, dtype=torch.float64)
    target[0, 3] += 0.9
    assert target[0, 3].item() == pytest.approx(0.900133156, abs=1e-9)
    assert target[0, 0].item() == pytest.approx(0.000133156, abs=1e-9)
    # logits that give exactly the target distribution reach the smallest loss, its entropy
    assert label_smoothing(target.log(), torch.tensor([3])).item() == pytest.approx(0.985916, abs=1e-6)


def test_lsro_equals_a_loop_over_the_paper_formula():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([1, -2, 4, -1, 0, -2])
    log_p = logits.log_softmax(1)
    for w in (1, 0.3):
        total = 0.0
        for i, y in enumerate(labels.tolist()):
            z = float(y < 0)
            total -= (1 - z) * (log_p[i, y].item() if z == 0 else 0) + w * z / 5 * sum(log_p[i].tolist())
        assert lsro(logits, labels, weight=w).item() == pytest.approx(total / 6)
    real = labels >= 0
    torch.testing.assert_close(lsro(logits[real], labels[real]), cross_entropy(logits[real], labels[real]))
    torch.testing.assert_close(lsro(logits[real], labels[real], 0.1), label_smoothing(logits[real], labels[real]))


def test_unlabelled_images_pull_towards_uniform():
    logits = torch.tensor([[3.0, -1.0, 0.5]], requires_grad=True)
    (gradient,) = torch.autograd.grad(lsro(logits, torch.tensor([-2])), logits)
    torch.testing.assert_close(gradient, logits.softmax(1) - 1 / 3)


def test_smoothed_targets_as_published():
    """Acceptance check 11: the targets are read off the gradient, softmax minus target."""
    k = 751
    logits = torch.zeros(2, k, requires_grad=True)
    real, fake = mixed_loss(logits, torch.tensor([3, 5]), torch.tensor([False, True]))
    assert math.isclose(real.item(), 6.6214, abs_tol=5e-5) and math.isclose(fake.item(), math.log(k), rel_tol=1e-6)
    target = 1 / k - torch.autograd.grad(fake, logits, retain_graph=True)[0][1]
    assert math.isclose(target[5].item(), 0.900133, abs_tol=1e-6)
    assert math.isclose(target[4].item(), 0.000133, abs_tol=1e-6)
    hard = 1 / k - torch.autograd.grad(real, logits)[0][0]
    assert math.isclose(hard[3].item(), 1.0, abs_tol=1e-6) and abs(hard[4].item()) < 1e-6


def test_each_group_has_its_own_mean():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    labels, fake = torch.tensor([0, 2, 2, 0]), torch.tensor([False, False, False, True])
    log_p = logits.log_softmax(1)
    real_term, fake_term = mixed_loss(logits, labels, fake, epsilon=0.3)
    torch.testing.assert_close(real_term, -(log_p[0, 0] + log_p[1, 2] + log_p[2, 2]) / 3)
    torch.testing.assert_close(fake_term, -(0.8 * log_p[3, 0] + 0.1 * log_p[3, 1] + 0.1 * log_p[3, 2]))
    assert mixed_loss(logits, labels, torch.zeros(4, dtype=torch.bool))[1] == 0
    assert mixed_loss(logits, labels, torch.ones(4, dtype=torch.bool))[0] == 0
    with pytest.raises(ValueError, match="label -1"):
        mixed_loss(logits, torch.tensor([0, 2, 2, -1]), fake)


def test_gradients():
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 3, -2, 1, -1])
    assert torch.autograd.gradcheck(lambda x: lsro(x, labels, 0.1), logits)


@pytest.mark.parametrize(
    ("loss", "logits", "labels", "message"),
    [
        (cross_entropy, THREE, torch.tensor([3]), "label 3 with 3 classes"),
        (cross_entropy, THREE, torch.tensor([-2]), "need lsro"),
        (label_smoothing, THREE, torch.tensor([0, 1]), "logits"),
        (label_smoothing, THREE, torch.tensor([0.0]), "int64"),
        (lsro, THREE[0], FIRST, "logits"),
        (lambda x, y: label_smoothing(x, y, 1.0), THREE, FIRST, "epsilon=1.0"),
    ],
)
def test_bad_input_is_named(loss, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        loss(logits, labels)
