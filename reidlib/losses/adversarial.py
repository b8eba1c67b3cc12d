r"""The adversarial game in its two usual forms: cross-entropy on logits ("vanilla") and least squares.

$D$ stands for the discriminator's patch scores; under "vanilla" the probability is $\sigma(D)$.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from reidlib.checks import check_choice

GAN_LOSSES = ("vanilla", "least_squares")


def adversarial_loss(scores: Tensor, real: bool, kind: str = "vanilla") -> Tensor:
    r"""Return how far the scores are from saying "real" (or "generated"), averaged over patches and images.

    $$L = -\log\sigma(D) \;(\text{real}), \quad -\log(1-\sigma(D)) \;(\text{generated}) \qquad\text{or}\qquad (D - t)^2,
    \; t \in \{1, 0\}$$

    The generator's own loss is `adversarial_loss(D(fake), True)`: for "vanilla" the non-saturating form.

    Args:
        scores: any shape, the discriminator's linear output.
        real: what they should say.
        kind: "vanilla" or "least_squares".

    Raises:
        ValueError: for another kind.

    >>> round(adversarial_loss(torch.zeros(2, 1, 6, 2), True).item(), 4)
    0.6931
    >>> adversarial_loss(torch.zeros(1), True, "least_squares").item()
    1.0
    """
    check_choice("kind", kind, GAN_LOSSES)
    scores = scores.float()
    target = torch.ones_like(scores) if real else torch.zeros_like(scores)
    return F.binary_cross_entropy_with_logits(scores, target) if kind == "vanilla" else F.mse_loss(scores, target)


def discriminator_loss(real_scores: Tensor, fake_scores: Tensor, kind: str = "vanilla", factor: float = 0.5) -> Tensor:
    r"""Return $f\,(L(D(\text{real}), 1) + L(D(\text{fake}), 0))$ with $f$ = `factor` (pix2pix, CycleGAN 0.5; PN-GAN 1).

    >>> round(discriminator_loss(torch.zeros(1), torch.zeros(1)).item(), 4)
    0.6931
    """
    return factor * (adversarial_loss(real_scores, True, kind) + adversarial_loss(fake_scores, False, kind))


def right_answers(real_scores: Tensor, fake_scores: Tensor, kind: str = "vanilla") -> dict[str, Tensor]:
    """Return the shares of patches that the discriminator judges rightly, "D right, real" and "D right, generated".

    A patch counts as real above the middle of the two answers: 0 for "vanilla" logits, 0.5 for "least_squares". Both
    shares at 1 mean that it always wins; near 0.5 it guesses.

    >>> [share.item() for share in right_answers(torch.tensor([3.0, -1.0]), torch.tensor([-2.0, -4.0])).values()]
    [0.5, 1.0]
    """
    check_choice("kind", kind, GAN_LOSSES)
    middle = 0.0 if kind == "vanilla" else 0.5
    right = {"real": real_scores > middle, "generated": fake_scores < middle}
    return {f"D right, {name}": patches.float().mean() for name, patches in right.items()}


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    r"""Return the zero-centred gradient penalty: $\frac1N \sum_n \lVert \nabla_{x_n} \sum D(x) \rVert^2$.

    Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018 ($R_1$, without its factor).

    Args:
        scores: what the discriminator gave for `images`, any shape; under "vanilla" losses $\sigma(D)$.
        images: float [N,C,H,W] that require gradients.

    >>> x = torch.zeros(2, 3, 4, 2, requires_grad=True)
    >>> gradient_penalty(0.5 * x.sum((1, 2, 3)), x).item()  # 24 pixels of 0.5 squared
    6.0
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
