"""Exercises of notebook 07: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.course.exercises import Exercise, whole
from reidlib.networks import normalise

# 1 · what the structure encoder sees


def structure_input(images):
    return normalise(images).mean(1, keepdim=True)


def small_images(g):
    size = whole(g, 2, 4), 3, whole(g, 3, 6), whole(g, 3, 6)
    return (torch.randint(0, 256, size, generator=g, dtype=torch.uint8),)


grey_exercise = Exercise(
    "07-1",
    structure_input,
    small_images,
    wrong={
        "the pixels are not normalised yet: the mean is taken after ImageNet's mean and deviation are out": (
            lambda images: images.float().mean(1, keepdim=True) / 255
        ),
        "these are the weights of luminance: DG-Net takes the plain mean of the channels": (
            lambda images: (normalise(images) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        ),
        "the channel dimension is gone: keep it, with size 1": (lambda images: normalise(images).mean(1)),
        "this is the mean over the batch (dim 0); channels are dim 1": (lambda images: normalise(images).mean(0)[None]),
        "the three channels are still there: the encoder takes one": (
            lambda images: normalise(images).mean(1, keepdim=True).expand(-1, 3, -1, -1)
        ),
    },
    tolerance=1e-4,
)


# 2 · AdaIN


def adain(x, scale, shift):
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
    return scale[:, :, None, None] * (x - mean) / (variance + 1e-5).sqrt() + shift[:, :, None, None]


def maps_and_numbers(g):
    n, c = whole(g, 2, 4), whole(g, 2, 5)
    x = 3 * torch.randn(n, c, whole(g, 3, 5), whole(g, 3, 5), generator=g)
    x[:, whole(g, 0, c - 1)] *= 1e-3  # a channel that is nearly constant: there epsilon decides
    x = x + torch.randn(n, c, 1, 1, generator=g)
    return x, torch.randn(n, c, generator=g), torch.randn(n, c, generator=g)


def _adain(x, scale, shift, dims=(2, 3), unbiased=False, deviation=lambda variance: (variance + 1e-5).sqrt()):
    mean, variance = x.mean(dims, keepdim=True), x.var(dims, unbiased=unbiased, keepdim=True)
    return scale[:, :, None, None] * (x - mean) / deviation(variance) + shift[:, :, None, None]


adain_exercise = Exercise(
    "07-2",
    adain,
    maps_and_numbers,
    wrong={
        "the variance divides by n - 1: here it is the biased one, by n": lambda *a: _adain(*a, unbiased=True),
        "mean and variance are those of the whole batch: each image has its own": lambda *a: _adain(*a, dims=(0, 2, 3)),
        "mean and variance are those of all channels together: each channel has its own": (
            lambda *a: _adain(*a, dims=(1, 2, 3))
        ),
        "epsilon is missing: a channel that is nearly constant is blown up": lambda *a: _adain(
            *a, deviation=torch.sqrt
        ),
        "epsilon is added to the deviation: it belongs to the variance, under the root": (
            lambda *a: _adain(*a, deviation=lambda variance: variance.sqrt() + 1e-5)
        ),
        "one was added to the scale: DG-Net takes the number as it comes": (
            lambda x, scale, shift: _adain(x, 1 + scale, shift)
        ),
        "scale and shift have changed places": lambda x, scale, shift: _adain(x, shift, scale),
        "the maps are not normalised: subtract their mean and divide by their deviation first": (
            lambda x, scale, shift: scale[:, :, None, None] * x + shift[:, :, None, None]
        ),
    },
    tolerance=1e-4,
)


# 3 · a weight that grows


def weight_at(step, first, length, top):
    return min(top, max(0.0, (step - first) / length))


def moment_of_a_run(g):
    first, length, top = whole(g, 10, 30), whole(g, 4, 9), whole(g, 2, 3)
    return whole(g, *[(0, first), (first + 1, first + length), (first + length, first + 40)][whole(g, 0, 2)]), *(
        first,
        length,
        top,
    )


weight_exercise = Exercise(
    "07-3",
    weight_at,
    moment_of_a_run,
    wrong={
        "before the first step the weight is below 0: it waits at 0": (
            lambda step, first, length, top: min(top, (step - first) / length)
        ),
        "it grows without an end: it stays at the top": (
            lambda step, first, length, top: max(0.0, (step - first) / length)
        ),
        "it jumps to the top at once: it takes `length` steps to grow by one": (
            lambda step, first, length, top: float(top) if step > first else 0.0
        ),
        "it reaches the top after `length` steps: it grows by *one* in so many": (
            lambda step, first, length, top: min(top, max(0.0, top * (step - first) / length))
        ),
        "it grows from step 0 on: nothing happens before `first`": (
            lambda step, first, length, top: min(top, step / length)
        ),
    },
)


# 4 · one band of the code


def band_of(code, band):
    return code.unflatten(1, (-1, 4))[:, :, band]


def code_and_band(g):
    return torch.randn(whole(g, 1, 4), 4 * whole(g, 3, 7), generator=g), whole(g, 0, 3)


band_exercise = Exercise(
    "07-4",
    band_of,
    code_and_band,
    wrong={
        "these are a quarter of the channels with all their bands: the four bands of a channel lie side by side": (
            lambda code, band: code.chunk(4, 1)[band]
        ),
        "bands are counted from 1: `band` 0 is the top one": lambda code, band: code.unflatten(1, (-1, 4))[
            :, :, band - 1
        ],
        "this is one channel with its four bands, not one band of all channels": (
            lambda code, band: code.unflatten(1, (-1, 4))[:, min(band, code.shape[1] // 4 - 1)]
        ),
        "bands are counted from the bottom: the first is the top one": (
            lambda code, band: code.unflatten(1, (-1, 4))[:, :, 3 - band]
        ),
        "the other bands are still there, as zeros: return the C numbers alone": (
            lambda code, band: code * (torch.arange(code.shape[1]) % 4 == band)
        ),
    },
)


# 5 · the teacher's soft label


def l_prim(student, teacher, mirrored):
    q = (teacher.softmax(1) + mirrored.softmax(1)) / 2
    return (q * (q.log() - student.log_softmax(1))).sum(1).mean()


def three_logits(g):
    return tuple(2 * torch.randn(3, whole(g, 2, 5), whole(g, 3, 7), generator=g))


def _l_prim(student, teacher, mirrored, q=None, reduce=lambda x: x.sum(1).mean()):
    q = (teacher.softmax(1) + mirrored.softmax(1)) / 2 if q is None else q
    return reduce(q * (q.log() - student.log_softmax(1)))


prim_exercise = Exercise(
    "07-5",
    l_prim,
    three_logits,
    wrong={
        "the logits were averaged before the softmax: average the two distributions": (
            lambda s, t, m: _l_prim(s, t, m, ((t + m) / 2).softmax(1))
        ),
        "the mirrored picture takes no part": lambda s, t, m: _l_prim(s, t, m, t.softmax(1)),
        "the divergence is turned round, KL(p || q): the teacher's q weighs the terms": (
            lambda s, t, m: (
                (s.softmax(1) * (s.log_softmax(1) - ((t.softmax(1) + m.softmax(1)) / 2).log())).sum(1).mean()
            )
        ),
        "this is the cross-entropy: the term q log q is missing, so equal distributions do not give 0": (
            lambda s, t, m: -((t.softmax(1) + m.softmax(1)) / 2 * s.log_softmax(1)).sum(1).mean()
        ),
        "the mean is over all elements: sum over the identities, then take the mean over the batch": (
            lambda s, t, m: _l_prim(s, t, m, reduce=torch.mean)
        ),
        "summed over the batch: take its mean": lambda s, t, m: _l_prim(s, t, m, reduce=torch.sum),
    },
    tolerance=1e-4,
)


# 6 · the score of two features


def fused_score(query, gallery, weight):
    (q_prim, q_fine), (g_prim, g_fine) = ([F.normalize(h) for h in f.chunk(2, 1)] for f in (query, gallery))
    return q_prim @ g_prim.T + weight * q_fine @ g_fine.T


def features_and_weight(g):
    d = 2 * whole(g, 2, 5)
    query, gallery = (3 * torch.randn(n, d, generator=g) for n in (whole(g, 2, 4), whole(g, 2, 5)))
    return query, gallery, 0.2 + 0.6 * float(torch.rand(1, generator=g))


def _halves(f, scale=F.normalize):
    return [scale(half) for half in f.chunk(2, 1)]


fused_exercise = Exercise(
    "07-6",
    fused_score,
    features_and_weight,
    wrong={
        "the halves are not of length 1: the longer one outweighs the other": (
            lambda q, g, w: q.chunk(2, 1)[0] @ g.chunk(2, 1)[0].T + w * q.chunk(2, 1)[1] @ g.chunk(2, 1)[1].T
        ),
        "the whole vector was brought to length 1, not each half": (
            lambda q, g, w: sum(
                factor * a @ b.T
                for factor, a, b in zip((1, w), F.normalize(q).chunk(2, 1), F.normalize(g).chunk(2, 1), strict=True)
            )
        ),
        "the weight counts twice, on the query's and on the gallery's side": (lambda q, g, w: fused_score(q, g, w * w)),
        "both halves weigh the same: f_fine has the weight": lambda q, g, w: fused_score(q, g, 1.0),
        "the weight is on f_prim, the first half": (
            lambda q, g, w: w * _halves(q)[0] @ _halves(g)[0].T + _halves(q)[1] @ _halves(g)[1].T
        ),
        "that is f_prim alone": lambda q, g, w: fused_score(q, g, 0.0),
    },
    tolerance=1e-4,
)


# 7 · two labels for one picture


def identity_terms(first, second, y_a, y_b, alpha):
    # the rows of both logits: x_ba (appearance a, structure b), then x_ab
    of_clothes, of_shape = torch.cat([y_a, y_b]), torch.cat([y_b, y_a])
    l_id = sum(F.cross_entropy(*side) for side in zip(first.chunk(2), of_clothes.chunk(2), strict=True))
    l_fine = sum(F.cross_entropy(*side) for side in zip(second.chunk(2), of_shape.chunk(2), strict=True))
    return 0.5 * l_id + alpha * l_fine


def swapped_logits(g):
    n, k = whole(g, 2, 4), whole(g, 4, 8)
    first, second = 2 * torch.randn(2, 2 * n, k, generator=g)
    y_a = torch.randint(k, (n,), generator=g)
    return (
        first,
        second,
        y_a,
        (y_a + torch.randint(1, k, (n,), generator=g)) % k,
        0.1 + 0.3 * float(torch.rand(1, generator=g)),
    )


def _terms(first, second, clothes, shape, alpha, factor=2):
    return factor * (
        0.5 * F.cross_entropy(first, torch.cat(clothes)) + alpha * F.cross_entropy(second, torch.cat(shape))
    )


label_exercise = Exercise(
    "07-7",
    identity_terms,
    swapped_logits,
    wrong={
        "both terms have the label of the clothes: L_fine asks for the person under them": (
            lambda f, s, a, b, w: _terms(f, s, [a, b], [a, b], w)
        ),
        "the labels have changed places: L_id^c names the appearance's person, L_fine the structure's": (
            lambda f, s, a, b, w: _terms(f, s, [b, a], [a, b], w)
        ),
        "both terms have the label of the structure: L_id^c asks for the person of the clothes": (
            lambda f, s, a, b, w: _terms(f, s, [b, a], [b, a], w)
        ),
        "this is the mean over both sides: each side has its mean, and the two are added": (
            lambda f, s, a, b, w: _terms(f, s, [a, b], [b, a], w, factor=1)
        ),
        "all rows have a's label, or b's: the second half of the rows is x_ab, where they are exchanged": (
            lambda f, s, a, b, w: _terms(f, s, [a, a], [b, b], w)
        ),
        "L_id^c and L_fine have the same weight": lambda f, s, a, b, w: _terms(f, s, [a, b], [b, a], 0.5),
    },
    tolerance=1e-4,
)


# 8 · the discriminator's loss with its penalty


def penalised_loss(D, real, fake):
    real = real.clone().requires_grad_()
    of_real, of_fake = D(real), D(fake)
    (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
    penalty = slope.square().sum((1, 2, 3)).mean()
    loss = of_fake.square().mean() + (of_real - 1).square().mean() + 0.01 * penalty
    gradients = torch.autograd.grad(loss, D[0].weight)
    return loss.detach(), gradients[0]


def discriminator_and_images(g):
    hidden, size = whole(g, 2, 4), (whole(g, 2, 4), 3, whole(g, 6, 9), whole(g, 6, 9))
    network = nn.Sequential(nn.Conv2d(3, hidden, 3, padding=1), nn.Tanh(), nn.Conv2d(hidden, 1, 3, stride=2, padding=1))
    for p in network.parameters():
        p.data = 0.6 * torch.randn(p.shape, generator=g)
    return network, torch.randn(size, generator=g), torch.randn(size, generator=g)


def _slopes(D, images):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(D(images).sum(), images, create_graph=True)[0]


def _loss(D, real, fake, penalty, wanted=(1, 0)):
    loss = (D(real) - wanted[0]).square().mean() + (D(fake) - wanted[1]).square().mean() + 0.01 * penalty
    return loss.detach(), torch.autograd.grad(loss, D[0].weight)[0]


penalty_exercise = Exercise(
    "07-8",
    penalised_loss,
    discriminator_and_images,
    wrong={
        "the penalty trains nothing: its slope was taken without create_graph=True, so it is a mere number": (
            lambda D, r, f: _loss(D, r, f, _slopes(D, r).square().sum((1, 2, 3)).mean().detach())
        ),
        "the penalty is missing": lambda D, r, f: _loss(D, r, f, torch.tensor(0.0)),
        "the slope was taken at the generated images: the penalty is on real ones": (
            lambda D, r, f: _loss(D, r, f, _slopes(D, f).square().sum((1, 2, 3)).mean())
        ),
        "the penalty is a mean over all pixels: sum over an image's, then take the mean over the images": (
            lambda D, r, f: _loss(D, r, f, _slopes(D, r).square().mean())
        ),
        "the length of the slope is not squared": (
            lambda D, r, f: _loss(D, r, f, _slopes(D, r).square().sum((1, 2, 3)).sqrt().mean())
        ),
        "the length of the slope is pulled to 1, as in WGAN-GP: here it is pulled to 0": (
            lambda D, r, f: _loss(D, r, f, (_slopes(D, r).square().sum((1, 2, 3)).sqrt() - 1).square().mean())
        ),
        "the wanted answers have changed places: 1 for real images, 0 for generated ones": (
            lambda D, r, f: _loss(D, r, f, _slopes(D, r).square().sum((1, 2, 3)).mean(), wanted=(0, 1))
        ),
    },
    tolerance=1e-4,
)
