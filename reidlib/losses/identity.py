r"""Losses of identity classification: cross-entropy, label smoothing (LSR), LSRO and CamStyle's for generated images.

All take logits [B, K] and int64 labels [B] in 0 ... K-1, and average over the batch. Under mixed precision give them
float32 logits (`logits.float()`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the softmax loss $-\frac{1}{B} \sum_i \log p_{i, y_i}$.

    Raises:
        ValueError: for shapes that do not fit or labels outside 0 ... K-1 (unlabelled images need `lsro`).

    >>> cross_entropy(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
    tensor(0.2395)
    """
    return label_smoothing(logits, labels, epsilon=0.0)


def label_smoothing(logits: Tensor, labels: Tensor, epsilon: float = 0.1) -> Tensor:
    r"""Return the cross-entropy against smoothed targets (label smoothing regularisation, LSR).

    $$q_k = (1 - \varepsilon)\,[k = y] + \varepsilon / K, \qquad
      L = -\frac{1}{B} \sum_i \sum_k q_{ik} \log p_{ik}$$

    Szegedy et al. 2016, eq. 3. With K = 751 and ε = 0.1 it cannot fall below 0.986; ε = 0 is cross-entropy.

    Raises:
        ValueError: for shapes that do not fit, labels outside 0 ... K-1, or ε outside [0, 1).

    >>> label_smoothing(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
    tensor(0.3729)
    """
    _check(logits, labels, epsilon)
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"label {int(labels.min())}: images without an identity need lsro")
    return F.cross_entropy(logits, labels, label_smoothing=epsilon)


def lsro(logits: Tensor, labels: Tensor, epsilon: float = 0.0, weight: float = 1.0) -> Tensor:
    r"""Return the cross-entropy in which unlabelled generated images aim at the uniform distribution (LSRO).

    $$L = -\frac{1}{B} \sum_i \Big( (1 - Z_i) \log p_{i, y_i} + w \frac{Z_i}{K} \sum_k \log p_{ik} \Big)$$

    with $Z_i = 1$ for an image without a label (any label below 0: pid -2 becomes one in the batches). Zheng, Zheng
    and Yang 2017, eq. 6. `epsilon` smooths the labelled images' targets (the paper does not: 0), `weight` is $w$ (1 in
    the paper). Where every image has a label this is `label_smoothing`.

    Raises:
        ValueError: as `label_smoothing`, but labels below 0 are accepted.

    >>> lsro(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0, -2]))  # (0.2395 + ln 3) / 2
    tensor(0.6691)
    """
    _check(logits, labels, epsilon)
    log_p = F.log_softmax(logits, dim=1)
    uniform = -log_p.mean(1)
    true = -log_p.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    return torch.where(labels < 0, weight * uniform, (1 - epsilon) * true + epsilon * uniform).mean()


def mixed_loss(logits: Tensor, labels: Tensor, is_generated: Tensor, epsilon: float = 0.1) -> tuple[Tensor, Tensor]:
    r"""Return the mean cross-entropy of the real images and the mean smoothed one of the generated ones.

    A group that the batch does not have counts 0.

    Args:
        logits: [B,K].  labels: int64 [B].  is_generated: bool [B].
        epsilon: smoothing of the generated images' labels, $1-\varepsilon+\varepsilon/K$ and $\varepsilon/K$.

    Raises:
        ValueError: labels outside 0..K-1 (unlabelled images need `lsro`).

    >>> real, fake = mixed_loss(torch.zeros(3, 751), torch.tensor([0, 1, 2]), torch.tensor([False, True, True]))
    >>> round(real.item(), 4), round(fake.item(), 4)
    (6.6214, 6.6214)
    """
    zero = logits.sum() * 0
    real = cross_entropy(logits[~is_generated], labels[~is_generated]) if not is_generated.all() else zero
    fake = label_smoothing(logits[is_generated], labels[is_generated], epsilon) if is_generated.any() else zero
    return real, fake


def check_labels(wanted: str, values: Tensor, labels: Tensor) -> None:
    """Refuse anything but a matrix (called `wanted` in the message) and one int64 label for each of its rows.

    >>> check_labels("features [B, D]", torch.zeros(2, 8), torch.zeros(3, dtype=torch.int64))
    Traceback (most recent call last):
    ValueError: features [B, D] and int64 labels [B] are needed; got (2, 8) and torch.int64 (3,)
    """
    if values.ndim != 2 or labels.shape != values.shape[:1] or labels.dtype != torch.int64:
        got = f"{tuple(values.shape)} and {labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"{wanted} and int64 labels [B] are needed; got {got}")


def _check(logits: Tensor, labels: Tensor, epsilon: float) -> None:
    check_labels("logits [B, K]", logits, labels)
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon={epsilon}: accepted are values in [0, 1)")
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise ValueError(f"label {int(labels.max())} with {logits.shape[1]} classes: accepted are 0 to K-1")
