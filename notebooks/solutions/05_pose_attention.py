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
    case = whole(g, 0, 4)  # one in five is not found and has no place, one in five is hidden but has one
    return (-1.0, -1.0, False, height, width) if case == 0 else (x, y, case > 1, height, width)


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
        "a hidden joint may have a place: `visible` says whether it was found, not the sign of x": (
            lambda x, y, v, h, w: _map(x, y, x >= 0, h, w, 6 * h / 128)
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


# 4 · what a mask lets back


def sent_back(u, v, p, g):
    mask = torch.sigmoid(p)
    return g, mask * g, mask * (1 - mask) * v * g


def three_maps_and_a_gradient(g):
    shape = whole(g, 1, 3), whole(g, 2, 5), whole(g, 2, 6), whole(g, 2, 4)
    return torch.randn(4, *shape, generator=g).unbind(0)


attention_exercise = Exercise(
    "05-4",
    sent_back,
    three_maps_and_a_gradient,
    wrong={
        "the mask weighs v alone: what goes on to u is all of g": (
            lambda u, v, p, g: (torch.sigmoid(p) * g, *sent_back(u, v, p, g)[1:])
        ),
        "the mask weighs what goes back to v, as it weighed v": lambda u, v, p, g: (g, g, sent_back(u, v, p, g)[2]),
        "the derivative of the sigmoid is missing in the gradient of p": (
            lambda u, v, p, g: (g, torch.sigmoid(p) * g, v * g)
        ),
        "the derivative of the sigmoid is A (1 - A), not A": (
            lambda u, v, p, g: (g, torch.sigmoid(p) * g, torch.sigmoid(p) * v * g)
        ),
        "v is missing in the gradient of p: where v is 0 the mask changes nothing": (
            lambda u, v, p, g: (g, torch.sigmoid(p) * g, torch.sigmoid(p) * torch.sigmoid(-p) * g)
        ),
        "the gradients of u and v have changed places": (
            lambda u, v, p, g: (torch.sigmoid(p) * g, g, sent_back(u, v, p, g)[2])
        ),
    },
)


# 5 · AdaIN of the person alone


def ada_in_inside(content, style, content_mask, style_mask):
    (mean, variance), (wanted, spread) = _inside(content, content_mask), _inside(style, style_mask)
    changed = spread.sqrt() * (content - mean) / (variance + 1e-5).sqrt() + wanted
    return torch.where(content_mask, changed, content)


def _inside(maps, mask, correction=0, dims=(2, 3)):
    """Return mean and variance of what is masked, each [B,C,1,1] (or [1,C,1,1])."""
    count, mask = mask.sum(dims, keepdim=True), mask.expand_as(maps)
    mean = (maps * mask).sum(dims, keepdim=True) / count
    return mean, ((maps - mean).square() * mask).sum(dims, keepdim=True) / (count - correction)


def two_masked_maps(g):
    n, c = whole(g, 2, 3), whole(g, 2, 4)
    maps, masks = [], []
    for _ in range(2):
        height, width = whole(g, 3, 7), whole(g, 3, 5)
        maps.append((1 + torch.rand(1, generator=g)) * torch.randn(n, c, height, width, generator=g) + 1)
        masks.append(torch.rand(n, 1, height, width, generator=g) < 0.5)
        masks[-1][..., 0, :2], masks[-1][..., -1, -1] = True, False
    return *maps, *masks


def _ada_in_inside(content, style, content_mask, style_mask, *, outside="kept", zeros=False, **options):
    masks = content_mask, style_mask
    if zeros:  # the others count as zeros
        content_side, style_side = (
            (m.mean((2, 3), keepdim=True), m.var((2, 3), correction=0, keepdim=True))
            for m in (content * content_mask, style * style_mask)
        )
    else:
        content_side, style_side = (_inside(m, k, **options) for m, k in zip((content, style), masks, strict=True))
    (mean, variance), (wanted, spread) = content_side, style_side
    changed = spread.sqrt() * (content - mean) / (variance + 1e-5).sqrt() + wanted
    return changed if outside == "changed" else torch.where(content_mask, changed, 0 if outside == "zero" else content)


inside_exercise = Exercise(
    "05-5",
    ada_in_inside,
    two_masked_maps,
    wrong={
        "statistics of all pixels: those outside the masks must not count": (
            lambda c, s, cm, sm: torch.where(cm, _ada_in_inside(c, s, cm | True, sm | True), c)
        ),
        "only the content has a mask here: the style's street counts too": (
            lambda c, s, cm, sm: _ada_in_inside(c, s, cm, sm | True)
        ),
        "only the style has a mask here: the content's street counts too": (
            lambda c, s, cm, sm: torch.where(cm, _ada_in_inside(c, s, cm | True, sm), c)
        ),
        "what is masked away counts as zeros: divide by the number of masked pixels": (
            lambda *a: _ada_in_inside(*a, zeros=True)
        ),
        "pixels outside the mask are changed too": lambda *a: _ada_in_inside(*a, outside="changed"),
        "pixels outside the mask are set to 0: they stay as they are": lambda *a: _ada_in_inside(*a, outside="zero"),
        "the variance is divided by the number of pixels, not by one less": lambda *a: _ada_in_inside(*a, correction=1),
        "statistics of the whole batch: each image has its own": lambda *a: _ada_in_inside(*a, dims=(0, 2, 3)),
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
    E.eval().requires_grad_(False)
    with torch.no_grad():
        wanted = E(source)
    loss = (E(G(source)) - wanted).abs().mean()
    E.train().requires_grad_(True)
    return report(loss, E, G)


def gradient(network):
    """Join the gradients of a network's weights to one vector; a weight that has none counts 0."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in network.parameters()])


def report(loss, E, G):
    """Send the loss back; return it, both gradients, batches that E's statistics saw, and whether E can train on."""
    ready = E.training, all(p.requires_grad for p in E.parameters())
    loss.backward()
    return loss.item(), gradient(G), gradient(E), E[1].num_batches_tracked, *ready


def two_networks_and_images(g):
    d, hidden, n = whole(g, 2, 4), whole(g, 3, 6), whole(g, 4, 8)
    E = nn.Sequential(nn.Linear(d, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, 3))
    G = nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, d))
    for p in (p for network in (E, G) for p in network.parameters()):
        p.data = torch.randn(p.shape, generator=g)
    return E.train(), G, torch.randn(n, d, generator=g)


def _consistency(E, G, source, *, train=False, fixed=("fake", "real"), through=True, after=(True, True), measure=None):
    """Guard all but what is asked for; `fixed`: which of the two features leaves no gradient in E."""
    E.train(train)
    fake, features = G(source), {}
    for name, images in (("fake", fake if through else fake.detach()), ("real", source)):
        E.requires_grad_(name not in fixed)
        features[name] = E(images)
    difference = features["fake"] - features["real"]
    loss = difference.abs().mean() if measure is None else measure(difference)
    E.train(after[0]).requires_grad_(after[1])
    return report(loss, E, G)


semantic_exercise = Exercise(
    "05-8",
    guarded,
    two_networks_and_images,
    wrong={
        "nothing is guarded yet: E learns from both features, and its normalisation has seen drawings": (
            lambda *a: _consistency(*a, train=True, fixed=())
        ),
        "E is in training mode: its normalisation takes the drawings' statistics, and remembers them": (
            lambda *a: _consistency(*a, train=True)
        ),
        "E has a gradient from both features: it could give every image one feature": (
            lambda *a: _consistency(*a, fixed=())
        ),
        "E has a gradient from the drawing's feature: its weights must not ask for one while it is computed": (
            lambda *a: _consistency(*a, fixed=("real",))
        ),
        "E has a gradient from the photograph's feature: that one is the aim, detach it": (
            lambda *a: _consistency(*a, fixed=("fake",))
        ),
        "E's weights are left frozen: its own step could not train them": (
            lambda *a: _consistency(*a, after=(True, False))
        ),
        "E is left in evaluation mode: its own step comes next": lambda *a: _consistency(*a, after=(False, True)),
        "E is left frozen and in evaluation mode: its own step comes next": (
            lambda *a: _consistency(*a, after=(False, False))
        ),
        "the drawing is detached: G learns nothing, and E does": (
            lambda *a: _consistency(*a, through=False, fixed=("real",))
        ),
        "squared differences: the paper's L1 takes absolute ones": (
            lambda *a: _consistency(*a, measure=lambda x: x.square().mean())
        ),
        "summed over the feature: take the mean": (
            lambda *a: _consistency(*a, measure=lambda x: x.abs().sum(1).mean())
        ),
    },
)
