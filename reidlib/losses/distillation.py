r"""A teacher's opinion as the target: DG-Net's primary feature learning."""

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(logits: Tensor, probabilities: Tensor) -> Tensor:
    r"""Return the Kullback-Leibler divergence of a student from its teacher, without a temperature.

    $$L = \frac{1}{B} \sum_i \sum_k q_{ik} \log \frac{q_{ik}}{p_{ik}}, \qquad p = \text{softmax}(\text{logits})$$

    Zheng et al., "Joint Discriminative and Generative Learning for Person Re-identification", CVPR 2019 ($L_{prim}$).
    One-hot targets make it the cross-entropy. Gradients reach the student only.

    Args:
        logits: float [B,K], the student's.
        probabilities: float [B,K], the teacher's; each row sums to 1.

    Raises:
        ValueError: shapes that differ, rows that are no probabilities (logits of the teacher, perhaps).

    >>> import torch
    >>> round(distillation_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).item(), 4)
    0.6931
    """
    q = probabilities.detach().float()
    if logits.dim() != 2 or logits.shape != q.shape:
        raise ValueError(f"logits and probabilities must be [B,K] alike, got {list(logits.shape)}, {list(q.shape)}")
    if q.numel() and not ((q >= 0).all() and (q.sum(1) - 1).abs().max() < 1e-3):
        low, total = q.min().item(), q.sum(1).min().item()
        raise ValueError(f"each row must be probabilities that sum to 1, got {low:.4g} and a sum of {total:.4g}")
    return F.kl_div(F.log_softmax(logits.float(), dim=1), q, reduction="batchmean")
