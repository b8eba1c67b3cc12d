r"""Metric-learning losses: batch-hard triplet, improved quartet, centre loss.

All take features [B, D] (float32; under mixed precision give `features.float()`) and compare their distances.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.losses.identity import check_labels

_DEFAULT_MARGINS = {"hinge": (1.0, 0.01), "literal": (-1.0, 0.01)}


def batch_hard_triplet(features: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    r"""Return the triplet loss of each anchor with its farthest positive and its nearest negative in the batch.

    $$L = \frac{1}{B} \sum_a \Big[ m + \max_{p:\, y_p = y_a} d_{ap} - \min_{n:\, y_n \ne y_a} d_{an} \Big]_+,
      \qquad d_{ab} = \lVert f_a - f_b \rVert_2$$

    Hermans, Beyer and Leibe 2017, eq. 5; not squared. An anchor whose identity has no other image in the batch is its
    own positive, at distance 0: the public re-ID trainers do so, and the mean is over all anchors. An anchor without a
    negative is left out; a batch without any gives 0.

    Args:
        features: [B, D].  labels: int64 [B]; images with a label below 0 (unlabelled) take no part.

    Raises:
        ValueError: for shapes that do not fit.

    >>> batch_hard_triplet(torch.tensor([[0.0], [1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1, 1]))
    tensor(0.0750)
    """
    check_labels("features [B, D]", features, labels)
    features, labels = features[labels >= 0], labels[labels >= 0]
    distances = torch.cdist(features, features)  # [B, B]
    same = labels[:, None] == labels
    if same.all():
        return features.sum() * 0
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    farthest = distances.masked_fill(~same | itself, 0).max(1).values  # 0 where there is no other image
    nearest = distances.masked_fill(same, torch.inf).min(1).values
    return F.relu(farthest - nearest + margin).mean()


def quartet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    other_negative: Tensor,
    *,
    form: str = "hinge",
    margins: tuple[float, float] | None = None,
    second_negative: str = "43",
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    r"""Return the improved quartet loss of quartets (I¹ anchor, I² positive, I³ and I⁴ of two further identities).

    With $d_{ab} = \lVert \Theta(I^a) - \Theta(I^b) \rVert^2$ (squared) and $z = 2 d_{12} - d_{13} - d_{43}$:

    $$L_\text{hinge} = [z + m_1]_+ + \beta\,[d_{12} - m_2]_+, \qquad
      L_\text{literal} = \max\{z, \tau_1\} + \beta \max\{d_{12}, \tau_2\}$$

    Khatun et al., eq. 12, prints the second and calls both constants margins; as printed, with τ₁ > 0, gradients
    vanish as soon as z < τ₁. With τ₁ = -m₁ and τ₂ = m₂ both forms have equal gradients and differ by τ₁ + β τ₂.

    Args:
        anchor, positive, negative, other_negative: [n, D]; the paper's method L2-normalises them first.
        form: "hinge" or "literal".
        margins: (m₁, m₂), default (1, 0.01); for "literal" the signed (τ₁, τ₂), default (-1, 0.01).
        second_negative: "43" as in the equation, "23" (d₂₃ in place of d₄₃) as in the paper's prose.
        reduction: "mean" over quartets, or "sum" as the paper prints.
        beta: weight of the second term; 1 in the paper, 0.002 in the improved triplet loss it builds on.

    Raises:
        ValueError: for unknown options or shapes that differ.

    >>> quartet = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.ones(1, 2)
    >>> quartet_loss(*quartet), quartet_loss(*quartet, form="literal")
    (tensor(1.9900), tensor(1.))
    """
    check_choice("form", form, _DEFAULT_MARGINS)
    check_choice("second_negative", second_negative, ("43", "23"))
    check_choice("reduction", reduction, ("mean", "sum"))
    shapes = {tuple(x.shape) for x in (anchor, positive, negative, other_negative)}
    if len(shapes) != 1 or anchor.ndim != 2:
        raise ValueError(f"the four members of the quartets must be [n, D] alike; got {sorted(shapes)}")
    first, second = _DEFAULT_MARGINS[form] if margins is None else margins
    d12 = (anchor - positive).square().sum(1)
    d13 = (anchor - negative).square().sum(1)
    last = ((other_negative if second_negative == "43" else positive) - negative).square().sum(1)
    z = 2 * d12 - d13 - last
    if form == "hinge":
        terms = F.relu(z + first) + beta * F.relu(d12 - second)
    else:
        terms = z.clamp(min=first) + beta * d12.clamp(min=second)
    return terms.mean() if reduction == "mean" else terms.sum()


def draw_quartets(
    labels: Tensor, generator: torch.Generator, *, n: int | None = None, images: Tensor | None = None
) -> Tensor:
    """Draw random quartets of a labelled set: the positive is another image of the anchor's identity.

    The two negatives are of two further identities, each uniform over the images that qualify. Images with a label
    below 0 take no part.

    Args:
        labels: int64 [N].  generator: a CPU generator.
        n: number of quartets with anchors drawn uniformly; None takes every possible anchor once, in order.
        images: int64 [N], which image each row shows, where one may stand there twice: no positive is the anchor's own
            image. None: N different ones.

    Returns:
        int64 [n, 4] on the device of `labels`: anchor, positive, negative, other negative.

    Raises:
        ValueError: with fewer than three identities, or no identity that has two images.

    >>> labels = torch.tensor([0, 0, 1, 2])
    >>> quartets = draw_quartets(labels, torch.Generator().manual_seed(0))
    >>> labels[quartets[:, :2]].tolist(), sorted(labels[quartets[0, 2:]].tolist())
    ([[0, 0], [0, 0]], [1, 2])
    """
    here, labels = labels.device, labels.cpu()
    images = torch.arange(len(labels)) if images is None else images.cpu()
    known, inverse = labels.unique(return_inverse=True)
    counts = torch.stack([inverse, images]).unique(dim=1)[0].bincount(minlength=len(known))  # different images of each
    if int((known >= 0).sum()) < 3:
        raise ValueError(f"quartets need at least three identities; got {known[known >= 0].tolist()}")
    anchors = ((counts[inverse] > 1) & (labels >= 0)).nonzero()[:, 0]
    if not len(anchors):
        raise ValueError("quartets need an identity with two images; every identity has one")
    if n is not None:
        anchors = anchors[torch.randint(len(anchors), (n,), generator=generator)]

    def draw(allowed: Tensor) -> Tensor:  # [n, N] -> [n]
        return torch.multinomial(allowed.float(), 1, generator=generator)[:, 0]

    is_own = labels[None] == labels[anchors, None]
    positive = draw(is_own & (images != images[anchors, None]))
    others = ~is_own & (labels >= 0)
    negative = draw(others)
    other_negative = draw(others & (labels[None] != labels[negative, None]))
    return torch.stack([anchors, positive, negative, other_negative], 1).to(here)


def centre_loss(features: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    r"""Return the mean squared distance of the features to their identity's centre, not halved.

    $$L = \frac{1}{B} \sum_i \lVert f_i - c_{y_i} \rVert^2$$

    Weighted by 5e-4 in the total loss. The centres are learnt by SGD with rate 0.5 from the gradient divided by that
    weight, which is the gradient of this loss itself: step them by `centre_loss(features.detach(), labels, centres)`.
    Images with a label below 0 take no part (nothing left gives 0). Wen et al. 2016; Luo et al. 2019.

    Args:
        features: [B, D].  labels: int64 [B].  centres: [K, D].

    >>> centre_loss(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]), torch.zeros(2, 2))
    tensor(5.)
    """
    check_labels("features [B, D]", features, labels)
    features, labels = features[labels >= 0], labels[labels >= 0]
    return (features - centres[labels]).square().sum() / max(len(labels), 1)


class QuartetLoss(nn.Module):
    """`quartet_loss` of L2-normalised features, one quartet for each possible anchor of the batch.

    A batch that holds no quartet gives 0.
    """

    def forward(self, features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        known, counts = labels[labels >= 0].unique(return_counts=True)
        if len(known) < 3 or int(counts.max()) < 2:
            return features.sum() * 0
        features, quartets = F.normalize(features, dim=1), draw_quartets(labels, generator)
        return quartet_loss(*(features[column] for column in quartets.T))


class CentreLoss(nn.Module):
    """`centre_loss` with its centres [K, D] as parameters, drawn from N(0, 1)."""

    def __init__(self, n_classes: int, dimensions: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(n_classes, dimensions))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return centre_loss(features, labels, self.centres)
