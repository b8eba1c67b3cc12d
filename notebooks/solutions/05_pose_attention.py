"""Exercises of notebook 05: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.course.exercises import Exercise, whole

# 1 · the map of a joint


def joint_map(x, y, visible, height, width):
    if not visible:
        return torch.zeros(height, width)
    sigma = 6 * height / 128
    squared = (torch.arange(width) - x) ** 2 + (torch.arange(height)[:, None] - y) ** 2
    return torch.exp(-squared / (2 * sigma**2))


def joint_in_an_image(g):
    height, width = 16 * whole(g, 2, 8), 8 * whole(g, 3, 9)
    x, y = (torch.rand(2, generator=g) * torch.tensor([width - 1.0, height - 1.0])).tolist()
    return (x, y, True, height, width) if whole(g, 0, 4) else (-1.0, -1.0, False, height, width)


def _map(x, y, visible, height, width, sigma, scale=1.0):
    squared = (torch.arange(width) - x) ** 2 + (torch.arange(height)[:, None] - y) ** 2
    return scale * torch.exp(-squared / (2 * sigma**2)) * visible


map_exercise = Exercise(
    "05-1",
    joint_map,
    joint_in_an_image,
    wrong={
        "sigma is 6 at every size: it is 6 at height 128, in proportion elsewhere": (
            lambda x, y, v, h, w: _map(x, y, v, h, w, 6)
        ),
        "the sum is 1: here the peak is 1": (
            lambda x, y, v, h, w: _map(x, y, v, h, w, 6 * h / 128, 1 / (2 * torch.pi * (6 * h / 128) ** 2))
        ),
        "a joint that was not found has a map too: it must be empty": (
            lambda x, y, v, h, w: _map(x, y, True, h, w, 6 * h / 128)
        ),
        "x and y have changed places: x counts columns, y rows": (
            lambda x, y, v, h, w: _map(y, x, v, h, w, 6 * h / 128)
        ),
        "the 2 below the fraction is missing": (lambda x, y, v, h, w: _map(x, y, v, h, w, 6 * h / 128 / 2**0.5)),
    },
)


# 2 · how many blocks fit


def most_blocks(height, width):
    n = 0
    while all(side % 2 ** (n + 1) == 0 and side // 2 ** (n + 1) >= 2 for side in (height, width)):
        n += 1
    return n


def sides_of_an_image(g):
    return tuple(2 ** whole(g, 1, 6) * whole(g, 1, 5) for _ in range(2))


def _halvings(height, width, least=2, odd=False):
    n = 0
    while n < 12 and all(
        side // 2 ** (n + 1) >= least and (odd or side % 2 ** (n + 1) == 0) for side in (height, width)
    ):
        n += 1
    return n


blocks_exercise = Exercise(
    "05-2",
    most_blocks,
    sides_of_an_image,
    wrong={
        "a map one pixel wide cannot be padded by reflection: two pixels are the least": (
            lambda height, width: _halvings(height, width, least=1)
        ),
        "a side that is odd before a halving does not come back to its size on the way up": (
            lambda height, width: _halvings(height, width, odd=True)
        ),
        "only the height was asked: the width, mostly the smaller one, decides": (
            lambda height, width: _halvings(height, height)
        ),
        "one too many: count the halvings that still leave two pixels": (
            lambda height, width: _halvings(height, width) + 1
        ),
    },
)


# 3 · two adversarial terms


def adversarial_terms(score_i, score_p, weight):
    terms = [F.softplus(-score).mean() for score in (score_i, score_p) if score is not None]
    return weight * sum(terms)


def two_maps_of_logits(g):
    maps = [2 * torch.randn(whole(g, 2, 4), 1, whole(g, 2, 5), whole(g, 1, 3), generator=g) for _ in range(2)]
    gone = whole(g, 0, 4)  # one of five has no first, one no second discriminator
    return *(None if i == gone else one for i, one in enumerate(maps)), 1 + 4 * float(torch.rand(1, generator=g))


def _terms(scores, weight, term):
    return weight * sum(term(score) for score in scores if score is not None)


terms_exercise = Exercise(
    "05-3",
    adversarial_terms,
    two_maps_of_logits,
    wrong={
        "that is the discriminator's wish for a drawing: the generator wants it taken for real": (
            lambda i, p, w: _terms((i, p), w, lambda s: F.softplus(s).mean())
        ),
        "log(1 - D) turned round saturates: minimise -log D": (
            lambda i, p, w: _terms((i, p), w, lambda s: -F.softplus(s).mean())
        ),
        "the two are averaged: the paper adds them": (
            lambda i, p, w: adversarial_terms(i, p, w) / (2 if i is not None and p is not None else 1)
        ),
        "without one discriminator the other keeps its weight, it does not get both": (
            lambda i, p, w: adversarial_terms(i, p, w) * (1 if i is not None and p is not None else 2)
        ),
        "summed over the patches: take the mean": (
            lambda i, p, w: _terms((i, p), w, lambda s: F.softplus(-s).flatten(1).sum(1).mean())
        ),
        "scores are logits: the sigmoid is missing": (
            lambda i, p, w: _terms((i, p), w, lambda s: (1 - s).square().mean())
        ),
    },
)


# 4 · an attention block


def attended(u, v, pose):
    return torch.sigmoid(pose) * v + u


def three_maps(g):
    shape = whole(g, 1, 3), whole(g, 2, 5), whole(g, 2, 6), whole(g, 2, 4)
    return torch.randn(3, *shape, generator=g).unbind(0)


attention_exercise = Exercise(
    "05-4",
    attended,
    three_maps,
    wrong={
        "the sum is missing: what the mask hides is then lost for good": (lambda u, v, p: torch.sigmoid(p) * v),
        "the mask weighs the sum: it weighs the new map alone, the old one goes on whole": (
            lambda u, v, p: torch.sigmoid(p) * (v + u)
        ),
        "u and v have changed places": (lambda u, v, p: torch.sigmoid(p) * u + v),
        "a ReLU before the sigmoid: no mask falls below one half": (lambda u, v, p: torch.sigmoid(F.relu(p)) * v + u),
        "a blend, (1 - A) u: the paper adds all of u": (
            lambda u, v, p: torch.sigmoid(p) * v + (1 - torch.sigmoid(p)) * u
        ),
        "a softmax over the channels: each number has a sigmoid of its own": (lambda u, v, p: p.softmax(1) * v + u),
    },
)


# 5 · AdaIN the other way round


def modulated(a, gamma, beta):
    scale, shift = (F.interpolate(one, a.shape[-2:]) for one in (gamma, beta))
    return F.instance_norm(F.leaky_relu(a, 0.2)) * (1 + scale) + shift


def pose_and_two_small_maps(g):
    n, c, h, w, times = whole(g, 1, 3), whole(g, 2, 4), whole(g, 2, 4), whole(g, 1, 3), 2 ** whole(g, 1, 2)
    return torch.randn(n, c, times * h, times * w, generator=g), *torch.randn(2, n, c, h, w, generator=g).unbind(0)


def _modulated(a, gamma, beta, *, one=1.0, slope=0.2, norm=F.instance_norm, mode="nearest"):
    scale, shift = (F.interpolate(x, a.shape[-2:], mode=mode) for x in (gamma, beta))
    return norm(F.leaky_relu(a, slope)) * (one + scale) + shift


modulate_exercise = Exercise(
    "05-5",
    modulated,
    pose_and_two_small_maps,
    wrong={
        "the 1 is missing: scale 0 must mean no change": (lambda a, *maps: _modulated(a, *maps, one=0.0)),
        "the LeakyReLU is missing": (lambda a, *maps: _modulated(a, *maps, slope=1.0)),
        "nothing is normalised": (lambda a, *maps: _modulated(a, *maps, norm=lambda x: x)),
        "normalised over the batch: each image and channel has statistics of its own": (
            lambda a, *maps: _modulated(a, *maps, norm=lambda x: F.batch_norm(x, None, None, training=True))
        ),
        "scale and shift have changed places": (lambda a, gamma, beta: _modulated(a, beta, gamma)),
        "the small maps are smoothed (bilinear): here each number is repeated": (
            lambda a, *maps: _modulated(a, *maps, mode="bilinear")
        ),
    },
    tolerance=1e-4,
)


# 6 · the quartet loss


def quartet(features, rows, m1, m2):
    one, two, three, four = (features[column] for column in rows.T)
    d12, d13, d43 = ((a - b).square().sum(1) for a, b in ((one, two), (one, three), (four, three)))
    return (F.relu(2 * d12 - d13 - d43 + m1) + F.relu(d12 - m2)).mean()


def features_and_rows(g):
    n = whole(g, 6, 12)
    rows = torch.stack([torch.randperm(n, generator=g)[:4] for _ in range(whole(g, 4, 9))])
    m1, m2 = (float(torch.rand(1, generator=g)) for _ in range(2))
    return 0.7 * torch.randn(n, whole(g, 2, 4), generator=g), rows, 0.5 + m1, 0.2 * m2


def _quartet(features, rows, first, second, *, power=1.0, double=2.0, last=3, mean=True, hinge=F.relu):
    f = [features[column] for column in rows.T]
    d12, d13, dx3 = ((a - b).square().sum(1) ** power for a, b in ((f[0], f[1]), (f[0], f[2]), (f[last], f[2])))
    terms = first(hinge, double * d12 - d13 - dx3) + second(hinge, d12)
    return terms.mean() if mean else terms.sum()


def _usual(m1, m2):
    return (lambda hinge, z: hinge(z + m1)), (lambda hinge, d: hinge(d - m2))


quartet_exercise = Exercise(
    "05-6",
    quartet,
    features_and_rows,
    wrong={
        "distances are squared": lambda f, rows, *m: _quartet(f, rows, *_usual(*m), power=0.5),
        "d12 counts twice in the first term, as there are two distances to other people": (
            lambda f, rows, *m: _quartet(f, rows, *_usual(*m), double=1.0)
        ),
        "the second negative pair is (4, 3), not (2, 3)": lambda f, rows, *m: _quartet(f, rows, *_usual(*m), last=1),
        "max(z, m1) as the paper prints it, with a positive margin: no gradient below m1": (
            lambda f, rows, m1, m2: _quartet(f, rows, lambda h, z: z.clamp(min=m1), lambda h, d: d.clamp(min=m2))
        ),
        "the second term is missing: nothing asks one person's images to be near each other": (
            lambda f, rows, m1, m2: _quartet(f, rows, _usual(m1, m2)[0], lambda h, d: 0 * d)
        ),
        "nothing stops at 0: both terms are hinges": (
            lambda f, rows, *m: _quartet(f, rows, *_usual(*m), hinge=lambda z: z)
        ),
        "summed over the quartets: take the mean": lambda f, rows, *m: _quartet(f, rows, *_usual(*m), mean=False),
    },
)


# 7 · every quartet of a batch


def all_quartets(labels):
    n = len(labels)
    a, b, c, d = torch.cartesian_prod(*[torch.arange(n)] * 4).T
    la, lb, lc, ld = (labels[rows] for rows in (a, b, c, d))
    known = (la >= 0) & (lc >= 0) & (ld >= 0)
    kept = known & (la == lb) & (a != b) & (lc != la) & (ld != la) & (lc != ld)
    return torch.stack([a, b, c, d], 1)[kept]


def a_small_batch(g):
    labels = torch.cat([torch.tensor([0, 0, 1, 2, -1]), torch.randint(-1, 4, (whole(g, 1, 4),), generator=g)])
    return (labels[torch.randperm(len(labels), generator=g)],)


def _quartets(labels, *, itself=False, unlabelled=False, alike=False, near=False):
    rows = torch.cartesian_prod(*[torch.arange(len(labels))] * 4)
    la, lb, lc, ld = labels[rows].T
    kept = (la == lb) & (lc != la)
    kept &= itself | (rows[:, 0] != rows[:, 1])
    kept &= near | (ld != la)
    kept &= alike | (lc != ld)
    kept &= unlabelled | ((la >= 0) & (lc >= 0) & (ld >= 0))
    return rows[kept]


every_quartet_exercise = Exercise(
    "05-7",
    all_quartets,
    a_small_batch,
    wrong={
        "an image is its own positive: their distance is 0 and teaches nothing": (
            lambda labels: _quartets(labels, itself=True)
        ),
        "both negatives may show one person: then d43 is a distance that should be small": (
            lambda labels: _quartets(labels, alike=True)
        ),
        "the fourth image may show the anchor's person": lambda labels: _quartets(labels, near=True),
        "images without a label (-1) take part: nobody knows whom they show": (
            lambda labels: _quartets(labels, unlabelled=True)
        ),
        "the two negatives change nothing when swapped, but (3, 4) and (4, 3) are two quartets: d13 is not d14": (
            lambda labels: (lambda rows: rows[rows[:, 2] < rows[:, 3]])(_quartets(labels))
        ),
    },
)


# 8 · semantic consistency, guarded


def guarded(E, G, source):
    E.eval()
    with torch.no_grad():
        wanted = E(source)
    loss = (E(G(source)) - wanted).abs().mean()
    loss.backward(inputs=list(G.parameters()))
    return loss.item(), gradient(G), gradient(E), E[1].running_mean


def gradient(network):
    """Join the gradients of a network's weights to one vector; a weight that has none counts 0."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in network.parameters()])


def two_networks_and_images(g):
    d, hidden, n = whole(g, 2, 4), whole(g, 3, 6), whole(g, 4, 8)
    E = nn.Sequential(nn.Linear(d, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, 3))
    G = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, d))
    for p in (p for network in (E, G) for p in network.parameters()):
        p.data = torch.randn(p.shape, generator=g)
    return E.train(), G, torch.randn(n, d, generator=g)


def _consistency(E, G, source, *, train=False, for_e=False, through=True, measure=lambda x: x.abs().mean()):
    E.train(train)
    fake = G(source)
    loss = measure(E(fake if through else fake.detach()) - E(source))
    if loss.requires_grad:
        loss.backward(inputs=[*(G.parameters() if through else []), *(E.parameters() if for_e else [])] or None)
    return loss.item(), gradient(G), gradient(E), E[1].running_mean


semantic_exercise = Exercise(
    "05-8",
    guarded,
    two_networks_and_images,
    wrong={
        "nothing is guarded yet: E learns from it, and its normalisation has seen drawings": (
            lambda *a: _consistency(*a, train=True, for_e=True)
        ),
        "E is in training mode: its normalisation takes the drawings' statistics, and remembers them": (
            lambda *a: _consistency(*a, train=True)
        ),
        "E has a gradient too: it could give every image one feature": (lambda *a: _consistency(*a, for_e=True)),
        "the drawing is detached: G learns nothing, and E does": (
            lambda *a: _consistency(*a, through=False, for_e=True)
        ),
        "squared differences: the paper's L1 takes absolute ones": (
            lambda *a: _consistency(*a, measure=lambda x: x.square().mean())
        ),
        "summed over the feature: take the mean": (
            lambda *a: _consistency(*a, measure=lambda x: x.abs().sum(1).mean())
        ),
    },
)
