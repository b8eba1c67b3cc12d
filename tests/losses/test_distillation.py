"""KL with a teacher: by the formula, its special cases, its gradient, and what is no teacher."""

import pytest
import torch

from reidlib.losses import cross_entropy, distillation_loss


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_by_the_formula_is_a_mean_over_the_batch():
    logits, q = draw(5, 7), draw(5, 7, seed=1).softmax(1)
    p = logits.softmax(1)
    want = sum((q[i, k] * (q[i, k] / p[i, k]).log()).item() for i in range(5) for k in range(7)) / 5
    assert distillation_loss(logits, q).item() == pytest.approx(want, rel=1e-5)
    assert distillation_loss(logits, p).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(logits, q).item() != pytest.approx(distillation_loss(q.log(), p).item(), rel=1e-3)


def test_one_hot_targets_are_the_cross_entropy_and_uniform_ones_lsros():
    logits, labels = draw(4, 3), torch.tensor([0, 2, 1, 1])
    hot = torch.nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(distillation_loss(logits, hot), cross_entropy(logits, labels))
    uniform = torch.full((4, 3), 1 / 3)
    want = -logits.log_softmax(1).mean() + torch.tensor(1 / 3).log()
    torch.testing.assert_close(distillation_loss(logits, uniform), want)


def test_gradient_is_p_minus_q_and_reaches_the_student_only():
    logits, teacher = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    distillation_loss(logits, teacher.softmax(1)).backward()
    torch.testing.assert_close(logits.grad, (logits.softmax(1) - teacher.softmax(1)).detach() / 4)
    assert teacher.grad is None


def test_what_is_no_teacher_is_refused():
    logits = draw(4, 3)
    for q, words in (
        (draw(4, 3, seed=1), "must be probabilities that sum to 1"),
        (torch.ones(4, 3), "a sum of 3"),
        (torch.ones(4, 2) / 2, r"\[B,K\] alike, got \[4, 3\], \[4, 2\]"),
        (torch.full((4, 3), float("nan")), "must be probabilities"),
    ):
        with pytest.raises(ValueError, match=words):
            distillation_loss(logits, q)
    assert distillation_loss(logits.bfloat16(), torch.eye(3)[[0, 1, 2, 0]].bfloat16()).dtype == torch.float32
