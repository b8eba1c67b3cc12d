"""Exercises of notebook 03: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch
import torch.nn.functional as F
from torch import nn

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


# 03-3 · the generator's loss


def generator_loss(fake_scores, fake, target, weight):
    fooled = F.binary_cross_entropy_with_logits(fake_scores, torch.ones_like(fake_scores))
    return fooled + weight * (fake - target).abs().mean()


def scores_and_pictures(g):
    n, h, w = (whole(g, 1, 4) for _ in range(3))
    fake, target = (torch.rand(n, 3, 4 * h, 4 * w, generator=g) * 2 - 1 for _ in range(2))
    return 3 * torch.randn(n, 1, h, w, generator=g), fake, target, whole(g, 2, 100)


g_loss = Exercise(
    "03-3",
    generator_loss,
    scores_and_pictures,
    {
        "G asks for the label 1: it wants its pictures to be taken for real ones": lambda s, fake, y, weight: (
            generator_loss(-s, fake, y, weight)
        ),
        "minimising log(1 - D) gives hardly any gradient while D is sure; minimise -log D": lambda s, fake, y, weight: (
            -F.softplus(s).mean() + weight * (fake - y).abs().mean()
        ),
        "the weight belongs to the L1 term, not to the adversarial one": lambda s, fake, y, weight: (
            weight * generator_loss(s, fake, y, 1 / weight)
        ),
        "the reconstruction is an L1, not a squared difference": lambda s, fake, y, weight: (
            generator_loss(s, fake, y, 0) + weight * F.mse_loss(fake, y)
        ),
        "the L1 is a mean over all elements, not a sum": lambda s, fake, y, weight: generator_loss(
            s, fake, y, weight * fake.numel()
        ),
    },
)


# 03-4 · one training step


def one_step(G, D, update, x, y, weight):
    fake = G(x)
    d_loss = discriminator_loss(D(torch.cat([x, y], 1)), D(torch.cat([x, fake.detach()], 1)))
    update("D", d_loss)
    g_loss = generator_loss(D(torch.cat([x, fake], 1)), fake, y, weight)
    update("G", g_loss)
    return d_loss, g_loss, G(x)


def two_small_networks(g):
    G = nn.Sequential(nn.Conv2d(3, 3, whole(g, 0, 1) * 2 + 1, padding="same"), nn.Tanh())
    D = nn.Conv2d(6, 1, whole(g, 1, 4))
    for weights in (*G.parameters(), *D.parameters()):
        nn.init.normal_(weights, std=0.3, generator=g)

    def update(name, loss):  # one step of plain gradient descent
        network = {"G": G, "D": D}[name]
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weights in network.parameters():
                weights -= 0.3 * weights.grad

    n, h, w = whole(g, 1, 3), whole(g, 4, 8), whole(g, 4, 8)
    x, y = (torch.rand(n, 3, h, w, generator=g) * 2 - 1 for _ in range(2))
    return G, D, update, x, y, whole(g, 2, 5)


def step_without_detach(G, D, update, x, y, weight):
    fake = G(x)
    update("D", discriminator_loss(D(torch.cat([x, y], 1)), D(torch.cat([x, fake], 1))))
    update("G", generator_loss(D(torch.cat([x, fake], 1)), fake, y, weight))


def step_detached_twice(G, D, update, x, y, weight):
    fake = G(x)
    d_loss = discriminator_loss(D(torch.cat([x, y], 1)), D(torch.cat([x, fake.detach()], 1)))
    update("D", d_loss)
    g_loss = generator_loss(D(torch.cat([x, fake.detach()], 1)), fake, y, weight)
    update("G", g_loss)
    return d_loss, g_loss, G(x)


def step_generator_first(G, D, update, x, y, weight):
    fake = G(x)
    g_loss = generator_loss(D(torch.cat([x, fake], 1)), fake, y, weight)
    update("G", g_loss)
    d_loss = discriminator_loss(D(torch.cat([x, y], 1)), D(torch.cat([x, fake.detach()], 1)))
    update("D", d_loss)
    return d_loss, g_loss, G(x)


def step_with_old_scores(G, D, update, x, y, weight):
    fake = G(x)
    g_loss = generator_loss(D(torch.cat([x, fake], 1)), fake, y, weight)
    update("D", discriminator_loss(D(torch.cat([x, y], 1)), D(torch.cat([x, fake.detach()], 1))))
    update("G", g_loss)


def step_without_condition(G, D, update, x, y, weight):
    D(y)


def step_of_discriminator_only(G, D, update, x, y, weight):
    fake = G(x)
    d_loss = discriminator_loss(D(torch.cat([x, y], 1)), D(torch.cat([x, fake.detach()], 1)))
    update("D", d_loss)
    return d_loss, generator_loss(D(torch.cat([x, fake], 1)), fake, y, weight), G(x)


step = Exercise(
    "03-4",
    one_step,
    two_small_networks,
    {
        "without detach D's loss runs back through G and uses up its graph": step_without_detach,
        "in G's own step the picture must stay attached, or D teaches G nothing": step_detached_twice,
        "D steps first, then G against the D that has just stepped": step_generator_first,
        "G's scores must be computed after D's step: those from before it belong to weights that are gone": (
            step_with_old_scores
        ),
        "D looks at condition and candidate together, joined along the channels": step_without_condition,
        "G's loss was computed, but G did not step": step_of_discriminator_only,
    },
    tolerance=1e-4,
)


# 03-5 · the receptive field of a patch discriminator


def receptive_field(layers):
    field, apart = 1, 1  # pixels seen by one score, and pixels between two neighbours of this layer
    for kernel, stride in layers:
        field += (kernel - 1) * apart
        apart *= stride
    return field


def some_layers(g):
    return ([(whole(g, 1, 5), whole(g, 1, 3)) for _ in range(whole(g, 2, 6))],)


def field_with_own_stride(layers):
    field, apart = 1, 1
    for kernel, stride in layers:
        apart *= stride
        field += (kernel - 1) * apart
    return field


def product_of_kernels(layers):
    field = 1
    for kernel, _ in layers:
        field *= kernel
    return field


field = Exercise(
    "03-5",
    receptive_field,
    some_layers,
    {
        "strides count: behind a stride of 2, one step is two pixels of the image": lambda layers: (
            1 + sum(kernel - 1 for kernel, _ in layers)
        ),
        "a layer's own stride widens only the layers behind it": field_with_own_stride,
        "the first layer of the list is the one that touches the image": lambda layers: receptive_field(layers[::-1]),
        "kernels overlap, so their sizes do not multiply": product_of_kernels,
        "one score starts with one pixel, to which every layer adds": lambda layers: receptive_field(layers) - 1,
    },
)


# 03-6 · overfit four images


def overfit(G, x, y, steps, lr):
    losses = []
    for _ in range(steps):
        loss = (G(x) - y).abs().mean()
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(G.parameters()))
        with torch.no_grad():
            for weights, gradient in zip(G.parameters(), gradients, strict=True):
                weights -= lr * gradient
    return torch.tensor([*losses, (G(x) - y).abs().mean().item()])


def four_pairs(g):
    G = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 3, 1))
    for weights in G.parameters():
        nn.init.normal_(weights, std=0.3, generator=g)
    h, w = whole(g, 4, 8), whole(g, 4, 8)
    x, y = (torch.rand(4, 3, h, w, generator=g) * 2 - 1 for _ in range(2))
    return G, x, y, whole(g, 3, 6), whole(g, 2, 8) / 10


def gradients_pile_up(G, x, y, steps, lr):
    losses = []
    for _ in range(steps):
        loss = (G(x) - y).abs().mean()
        losses.append(loss.item())
        loss.backward()
        with torch.no_grad():
            for weights in G.parameters():
                weights -= lr * weights.grad
    return torch.tensor([*losses, (G(x) - y).abs().mean().item()])


def one_after_the_other(G, x, y, steps, lr):
    losses = []
    for _ in range(steps):
        losses.append((G(x) - y).abs().mean().item())
        for one in range(len(x)):
            overfit(G, x[one : one + 1], y[one : one + 1], 1, lr)
    return torch.tensor([*losses, (G(x) - y).abs().mean().item()])


def squared(G, x, y, steps, lr):
    losses = []
    for _ in range(steps):
        loss = (G(x) - y).square().mean()
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(G.parameters()))
        with torch.no_grad():
            for weights, gradient in zip(G.parameters(), gradients, strict=True):
                weights -= lr * gradient
    return torch.tensor([*losses, (G(x) - y).square().mean().item()])


four = Exercise(
    "03-6",
    overfit,
    four_pairs,
    {
        "gradients add up from step to step unless they are cleared": gradients_pile_up,
        "steps + 1 numbers are asked for: the L1 after the last step is missing": lambda G, x, y, steps, lr: overfit(
            G, x, y, steps, lr
        )[:-1],
        "the first number is the L1 before any step": lambda G, x, y, steps, lr: overfit(G, x, y, steps + 1, lr)[1:],
        "all four pairs are in every step; a step a pair is another training": one_after_the_other,
        "downhill is against the gradient; this climbs": lambda G, x, y, steps, lr: overfit(G, x, y, steps, -lr),
        "the weights do not move: nothing is written back into G": lambda G, x, y, steps, lr: overfit(
            G, x, y, steps, 0.0
        ),
        "the loss is an L1, not a squared difference": squared,
    },
    tolerance=1e-4,
)


# 03-7 · the variable losses, equations 10 to 13


def variable_loss(generated, source, target, m_in, m_out, lambda_fg, lambda_bg):
    foreground = ((generated - target) * m_out).abs().mean()
    background = ((generated - target) * (1 - m_out)).abs().mean()
    return lambda_fg * foreground + lambda_bg * background


def mean_over_the_mask(difference, mask):
    return (difference.abs() * mask).sum() / (mask.sum() * difference.shape[1])


def pictures_and_masks(g):
    n, h, w = (whole(g, 2, 5) for _ in range(3))
    pictures = (torch.rand(n, 3, h, w, generator=g) for _ in range(3))
    masks = ((torch.rand(n, 1, h, w, generator=g) > 0.4).float() for _ in range(2))
    return *pictures, *masks, whole(g, 50, 90), whole(g, 10, 40)


def static_loss(generated, source, target, m_in, m_out, lambda_fg, lambda_bg):
    foreground = ((generated - source) * m_in).abs().mean()
    background = ((generated - target) * (1 - m_in) * (1 - m_out)).abs().mean()
    return lambda_fg * foreground + lambda_bg * background


def person_from_the_source(generated, source, target, m_in, m_out, lambda_fg, lambda_bg):
    foreground = ((generated - source) * m_in).abs().mean()
    return lambda_fg * foreground + variable_loss(generated, source, target, m_in, m_out, 0, lambda_bg)


variable = Exercise(
    "03-7",
    variable_loss,
    pictures_and_masks,
    {
        "those are the static losses; the variable ones take person and scene from the target": static_loss,
        "the person comes from the target too, under the target's mask": person_from_the_source,
        "the masks must enter: with unequal weights this is no longer plain L1": lambda G, x, y, m_in, m_out, fg, bg: (
            fg * (G - y).abs().mean()
        ),
        "the mask is the target's, m_out: its person is asked for": lambda G, x, y, m_in, m_out, fg, bg: variable_loss(
            G, x, y, m_in, m_in, fg, bg
        ),
        "the weights are the wrong way round: lambda_fg belongs to the person": lambda G, x, y, m_in, m_out, fg, bg: (
            variable_loss(G, x, y, m_in, m_out, bg, fg)
        ),
        "both terms are means over all elements, however large the mask": lambda G, x, y, m_in, m_out, fg, bg: (
            fg * mean_over_the_mask(G - y, m_out) + bg * mean_over_the_mask(G - y, 1 - m_out)
        ),
    },
)
