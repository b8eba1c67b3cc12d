"""Exercises of notebook 03: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch
import torch.nn.functional as F

from reidlib.course.exercises import Exercise, whole

# 03-1 · the U-Net's bridge


def double(x):
    return F.interpolate(x, scale_factor=2)


def join(bridge, deeper):
    return torch.cat([bridge, double(deeper)], 1)


def two_maps(g):
    n, c, d, h, w = (whole(g, 1, 4) for _ in range(5))
    return torch.randn(n, c, 2 * h, 2 * w, generator=g), torch.randn(n, d + 1, h, w, generator=g)


bridge = Exercise(
    "03-1",
    join,
    two_maps,
    {
        "the bridge comes first, the doubled map behind it": lambda bridge, deeper: torch.cat(
            [double(deeper), bridge], 1
        ),
        "the deeper map is half as large, so it must be doubled before the two are joined": lambda bridge, deeper: (
            torch.cat([bridge, deeper], 1)
        ),
        "a U-Net joins along the channels; to add the maps is a residual network's way": lambda bridge, deeper: (
            bridge + double(deeper)
        ),
        "doubling repeats rows and columns here, it does not interpolate between them": lambda bridge, deeper: (
            torch.cat([bridge, F.interpolate(deeper, scale_factor=2, mode="bilinear")], 1)
        ),
    },
)


# 03-2 · the discriminator's loss


def discriminator_loss(real_scores, fake_scores):
    real = F.binary_cross_entropy_with_logits(real_scores, torch.ones_like(real_scores))
    fake = F.binary_cross_entropy_with_logits(fake_scores, torch.zeros_like(fake_scores))
    return (real + fake) / 2


def two_score_maps(g):
    shape = [whole(g, 1, 4) for _ in range(3)]
    return tuple(3 * torch.randn(shape[0], 1, *shape[1:], generator=g) for _ in range(2))


d_loss = Exercise(
    "03-2",
    discriminator_loss,
    two_score_maps,
    {
        "the sum of the two halves is not halved, so D would learn twice as fast as G": lambda real, fake: (
            2 * discriminator_loss(real, fake)
        ),
        "the labels are the wrong way round: real patches want 1, generated ones 0": lambda real, fake: (
            discriminator_loss(fake, real)
        ),
        "the scores are squashed twice: binary_cross_entropy_with_logits has the sigmoid inside": lambda real, fake: (
            discriminator_loss(real.sigmoid(), fake.sigmoid())
        ),
        "generated patches want the label 0 here; the label 1 is what G asks for": lambda real, fake: (
            discriminator_loss(real, -fake)
        ),
        "the loss is the mean over patches, not their sum": lambda real, fake: (
            real.numel() * discriminator_loss(real, fake)
        ),
    },
)
