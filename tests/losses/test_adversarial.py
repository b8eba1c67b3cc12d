"""Adversarial losses by hand and against the formulas."""

import pytest
import torch

from reidlib.losses import adversarial_loss, discriminator_loss, gradient_penalty, right_answers

SCORES = torch.tensor([[3.0, -2.0, 0.5]])


def test_8_zero_logits_cost_ln_2():  # acceptance check 8 of the camera transfer sheet
    zero = torch.zeros(4, 1, 6, 2)
    assert adversarial_loss(zero, True).item() == pytest.approx(0.6931, abs=1e-4)
    assert discriminator_loss(zero, zero).item() == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize("real", [True, False])
def test_vanilla_is_the_log_of_a_probability(real):
    p = torch.sigmoid(SCORES)
    expected = -(p if real else 1 - p).log().mean()
    assert adversarial_loss(SCORES, real).item() == pytest.approx(expected.item(), rel=1e-5)


def test_least_squares_by_hand():
    assert adversarial_loss(SCORES, True, "least_squares").item() == pytest.approx((4 + 9 + 0.25) / 3)
    assert adversarial_loss(SCORES, False, "least_squares").item() == pytest.approx((9 + 4 + 0.25) / 3)


@pytest.mark.parametrize(("kind", "real", "generated"), [("vanilla", 0.5, 0.25), ("least_squares", 0.25, 0.5)])
def test_right_answers_count_patches_on_their_side_of_the_middle(kind, real, generated):
    scores = torch.tensor([[[[0.3, 0.7]]], [[[-1.0, 0.0]]]]), torch.tensor([[[[0.4, 0.6]]], [[[0.9, -0.1]]]])
    shares = right_answers(*scores, kind)
    assert {name: share.item() for name, share in shares.items()} == {
        "D right, real": real,
        "D right, generated": generated,
    }


def test_discriminator_wants_real_high_and_generated_low():
    high, low = torch.full((2,), 4.0), torch.full((2,), -4.0)
    for kind in ("vanilla", "least_squares"):
        assert discriminator_loss(high, low, kind) < discriminator_loss(low, high, kind)
    right = discriminator_loss(high, low, factor=1.0)
    assert right.item() == pytest.approx(2 * discriminator_loss(high, low).item())
    assert right.item() == pytest.approx(2 * torch.log1p(torch.exp(torch.tensor(-4.0))).item(), rel=1e-4)


def test_extreme_scores_and_half_precision_stay_finite():
    scores = torch.tensor([1e4, -1e4], dtype=torch.bfloat16, requires_grad=True)
    loss = adversarial_loss(scores, True)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and scores.grad.isfinite().all()


def test_another_kind_is_named():
    with pytest.raises(ValueError, match="'vanilla', 'least_squares'; got 'wgan'"):
        adversarial_loss(SCORES, True, "wgan")


def test_gradient_penalty_is_a_mean_over_images_and_trains_the_discriminator():
    weight = torch.tensor(3.0, requires_grad=True)
    x = torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1, 1).expand(3, 1, 2, 1).clone().requires_grad_()
    penalty = gradient_penalty(weight * x.square(), x)  # gradient 2 w x of each of two pixels
    assert penalty.item() == pytest.approx(2 * 36 * (1 + 4 + 0.25) / 3)
    penalty.backward()
    assert weight.grad.item() == pytest.approx(2 * penalty.item() / 3)
