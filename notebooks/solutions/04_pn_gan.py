"""Exercises of notebook 04: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.course.exercises import Exercise, whole

# 1 · ordered pairs of one camera


def pairs_of_one_camera(pids, camids):
    same = (pids[:, None] == pids) & (camids[:, None] == camids) & (pids >= 0)
    return same.fill_diagonal_(False).nonzero()


def people_and_junk(g):
    n = whole(g, 8, 19)
    pids = torch.cat([torch.randint(3, (n,), generator=g), torch.tensor([0, 0, 1, 1, -1, -1])])
    camids = torch.cat([torch.randint(1, 4, (n,), generator=g), torch.tensor([2, 2, 1, 3, 1, 1])])
    order = torch.randperm(len(pids), generator=g)
    return pids[order], camids[order]


def _same(pids, camids):
    return (pids[:, None] == pids) & (camids[:, None] == camids)


pairs_exercise = Exercise(
    "04-1",
    pairs_of_one_camera,
    people_and_junk,
    wrong={
        "each pair stands there once: (i, j) and (j, i) are two, since each image is source once": (
            lambda pids, camids: (_same(pids, camids) & (pids >= 0)).triu(1).nonzero()
        ),
        "an image is paired with itself: the generator would learn to copy": (
            lambda pids, camids: (_same(pids, camids) & (pids >= 0)).nonzero()
        ),
        "these are the paper's pairs, of any two cameras": (
            lambda pids, camids: pairs_of_one_camera(pids, torch.ones_like(camids))
        ),
        "junk is paired: two boxes with pid -1 do not show one person": (
            lambda pids, camids: _same(pids, camids).fill_diagonal_(False).nonzero()
        ),
        "whose images they are is not asked: all of one camera are paired, whoever they show": (
            lambda pids, camids: pairs_of_one_camera(torch.where(pids >= 0, 0, -1), camids)
        ),
    },
)


# 2 · the learning rate's factor


def lr_factor(epoch, epochs):
    half = epochs // 2
    return 1 - max(0, epoch - 1 - half) / half


def epochs_of_a_training(g):
    epochs = 2 * whole(g, 2, 29)
    return whole(g, 1, epochs), epochs


lr_exercise = Exercise(
    "04-2",
    lr_factor,
    epochs_of_a_training,
    wrong={
        "epochs are counted from 1, the formula's e from 0: the last epoch would train nothing": (
            lambda epoch, epochs: 1 - max(0, epoch - epochs // 2) / (epochs // 2)
        ),
        "it falls from the first epoch on: the first half keeps the rate": (
            lambda epoch, epochs: 1 - (epoch - 1) / epochs
        ),
        "it falls at half the speed, to a half: the fall takes n/2 epochs, not n": (
            lambda epoch, epochs: 1 - max(0, epoch - 1 - epochs // 2) / epochs
        ),
        "a step to a tenth: the second half is a straight line": (
            lambda epoch, epochs: 1.0 if epoch - 1 < epochs // 2 else 0.1
        ),
        "the fall begins with a jump: it starts from 1, at the end of the first half": (
            lambda epoch, epochs: 1.0 if epoch - 1 < epochs // 2 else 1 - (epoch - 1) / epochs
        ),
    },
)


# 3 · the disc of a joint


def disc(x, y, height, width):
    radius = max(0.75, 4 * height / 256)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def joint_in_a_picture(g):
    height, width = whole(g, *[(16, 47), (48, 150)][whole(g, 0, 1)]), whole(g, 12, 70)
    x, y = torch.rand(2, generator=g).tolist()
    return x * (width - 1), y * (height - 1), height, width


def _disc(x, y, height, width, radius):
    return (torch.arange(width) - x) ** 2 + (torch.arange(height)[:, None] - y) ** 2 <= radius**2


disc_exercise = Exercise(
    "04-3",
    disc,
    joint_in_a_picture,
    wrong={
        "a radius of 4 at every size: it is 4 at height 256, in proportion elsewhere": (
            lambda x, y, height, width: _disc(x, y, height, width, 4)
        ),
        "small pictures lose their joints: the radius is 0.75 at least": (
            lambda x, y, height, width: _disc(x, y, height, width, 4 * height / 256)
        ),
        "x and y have changed places: x counts columns, y rows": (
            lambda x, y, height, width: _disc(y, x, height, width, max(0.75, 4 * height / 256))
        ),
        "that is a square: a disc holds the pixels whose distance is at most the radius": (
            lambda x, y, height, width: (
                ((torch.arange(width) - x).abs() <= max(0.75, height / 64))
                & ((torch.arange(height)[:, None] - y).abs() <= max(0.75, height / 64))
            )
        ),
        "squared distance against the radius: square the radius too": (
            lambda x, y, height, width: _disc(x, y, height, width, max(0.75, height / 64) ** 0.5)
        ),
        "the radius goes with the height, not the width": (
            lambda x, y, height, width: _disc(x, y, height, width, max(0.75, 4 * width / 128))
        ),
    },
)


# 4 · the fused feature


def fused_by_maximum(a, b):
    every = torch.cat([a[:, None], b], dim=1)  # [N,1+K,D]
    return F.normalize(every, dim=2).amax(1)


def features_of_poses(g):
    n, k, d = whole(g, 2, 5), whole(g, 2, 8), whole(g, 3, 7)
    lengths = 0.5 + 3 * torch.rand(n, k + 1, 1, generator=g)
    features = torch.randn(n, k + 1, d, generator=g) * lengths
    return features[:, 0], features[:, 1:]


fused_exercise = Exercise(
    "04-4",
    fused_by_maximum,
    features_of_poses,
    wrong={
        "no vector was brought to length 1: the longest one wins everywhere": (
            lambda a, b: torch.cat([a[:, None], b], dim=1).amax(1)
        ),
        "the result was brought to length 1 once more: the paper leaves the maximum as it is": (
            lambda a, b: F.normalize(fused_by_maximum(a, b), dim=1)
        ),
        "this is the mean of the vectors, not their maximum": (
            lambda a, b: F.normalize(torch.cat([a[:, None], b], dim=1), dim=2).mean(1)
        ),
        "A takes no part: the photograph's feature is one of the nine": (lambda a, b: F.normalize(b, dim=2).amax(1)),
        "b was normalised along the poses (dim 1): a feature's length is along its last dimension": (
            lambda a, b: torch.maximum(F.normalize(a, dim=1), F.normalize(b, dim=1).amax(1))
        ),
        "the maximum was taken first and the length after it: bring each vector to length 1 before": (
            lambda a, b: F.normalize(torch.cat([a[:, None], b], dim=1).amax(1), dim=1)
        ),
    },
)


# 5 · a residual unit


def residual_unit(x, w1, w2):
    inner = F.relu(F.instance_norm(F.conv2d(x, w1, padding=1)))
    return F.relu(x + F.instance_norm(F.conv2d(inner, w2, padding=1)))


def maps_and_weights(g):
    n, c = whole(g, 2, 3), whole(g, 2, 5)
    x = torch.randn(n, c, whole(g, 4, 8), whole(g, 4, 8), generator=g)
    return x, torch.randn(c, c, 3, 3, generator=g), torch.randn(c, c, 3, 3, generator=g)


def _unit(x, w1, w2, norm=F.instance_norm, mode="constant"):
    def convolved(maps, weight):
        return norm(F.conv2d(F.pad(maps, (1, 1, 1, 1), mode=mode), weight))

    return convolved(F.relu(convolved(x, w1)), w2)  # without the sum


def _by_batch(maps):
    return F.batch_norm(maps, None, None, training=True)


residual_exercise = Exercise(
    "04-5",
    residual_unit,
    maps_and_weights,
    wrong={
        "the input is not added: without it this is no residual unit": (lambda x, *w: F.relu(_unit(x, *w))),
        "the last ReLU is missing: in PN-GAN it comes after the sum": (lambda x, *w: x + _unit(x, *w)),
        "the last ReLU stands before the sum: then the unit can only add": (lambda x, *w: x + F.relu(_unit(x, *w))),
        "normalised over the batch: instance normalisation takes each image by itself": (
            lambda x, *w: F.relu(x + _unit(x, *w, norm=_by_batch))
        ),
        "mirrored borders: these units pad with zeros": (lambda x, *w: F.relu(x + _unit(x, *w, mode="reflect"))),
        "nothing is normalised": (lambda x, *w: F.relu(x + _unit(x, *w, norm=lambda maps: maps))),
    },
    tolerance=1e-4,
)


# 6 · which pixels a limb covers


def in_limb(a, b, height, width, radius):
    grid = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)  # [HW,2], (x, y)
    from_middle = grid - (a + b) / 2
    half = (b - a).norm() / 2
    along = (b - a) / (2 * half)
    u, v = from_middle @ along, from_middle @ torch.stack([-along[1], along[0]])
    return ((u / half) ** 2 + (v / radius) ** 2 <= 1).view(height, width)


def limb_in_a_picture(g):
    height, width = whole(g, 24, 59), whole(g, 16, 39)
    a, way = torch.rand(2, generator=g) * torch.tensor([width, height]), torch.randn(2, generator=g)
    b = a + F.normalize(way, dim=0) * (6 + 10 * torch.rand(1, generator=g))
    return a, b, height, width, 1 + 2 * float(torch.rand(1, generator=g))


def _limb(a, b, height, width, inside, swapped=False):
    """Ask of each pixel, in the limb's own axes u and v with half its length, whether it is inside."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    (mx, my), half = (a + b) / 2, (b - a).norm() / 2
    (cx, cy) = (b - a) / (2 * half)
    x, y = (rows - mx, columns - my) if swapped else (columns - mx, rows - my)
    return inside(x * cx + y * cy, y * cx - x * cy, half)


limb_exercise = Exercise(
    "04-6",
    in_limb,
    limb_in_a_picture,
    wrong={
        "twice as long as the limb: the half axis is half its length": (
            lambda a, b, h, w, r: _limb(a, b, h, w, lambda u, v, half: (u / (2 * half)) ** 2 + (v / r) ** 2 <= 1)
        ),
        "the ellipse is not turned: its axes are those of the limb, not the picture's": (
            lambda a, b, h, w, r: (
                ((torch.arange(w) - (a + b)[0] / 2) / r) ** 2
                + ((torch.arange(h)[:, None] - (a + b)[1] / 2) / ((b - a).norm() / 2)) ** 2
                <= 1
            )
        ),
        "the axes have changed places: the long one lies along the limb": (
            lambda a, b, h, w, r: _limb(a, b, h, w, lambda u, v, half: (v / half) ** 2 + (u / r) ** 2 <= 1)
        ),
        "a rectangle: an ellipse narrows towards both ends": (
            lambda a, b, h, w, r: _limb(a, b, h, w, lambda u, v, half: (u.abs() <= half) & (v.abs() <= r))
        ),
        "a circle around the middle: across, the half axis is the radius": (
            lambda a, b, h, w, r: _limb(a, b, h, w, lambda u, v, half: u**2 + v**2 <= half**2)
        ),
        "x and y have changed places: x counts columns, y rows": (
            lambda a, b, h, w, r: _limb(a, b, h, w, lambda u, v, half: (u / half) ** 2 + (v / r) ** 2 <= 1, True)
        ),
    },
)


# 7 · the medoid of each cluster


def medoids(features, labels):
    found = []
    for cluster in range(int(labels.max()) + 1):
        members = (labels == cluster).nonzero()[:, 0]
        centre = features[members].mean(0)
        found.append(members[(features[members] - centre).norm(dim=1).argmin()])
    return torch.stack(found)


def clustered_features(g):
    k, d = whole(g, 3, 5), whole(g, 2, 4)
    labels = torch.cat([torch.arange(k).repeat(4), torch.randint(k, (whole(g, 6, 30),), generator=g)])
    labels = labels[torch.randperm(len(labels), generator=g)]
    return torch.randn(k, d, generator=g)[labels] + torch.randn(len(labels), d, generator=g), labels


def _of_each(features, labels, choose):
    """Choose one of each cluster's members by their features."""
    groups = [(labels == cluster).nonzero()[:, 0] for cluster in range(int(labels.max()) + 1)]
    return torch.stack([members[choose(features[members])] for members in groups])


def _centres(features, labels):
    return torch.stack([features[labels == cluster].mean(0) for cluster in range(int(labels.max()) + 1)])


medoid_exercise = Exercise(
    "04-7",
    medoids,
    clustered_features,
    wrong={
        "these rows count within the cluster: give them as rows of all features": (
            lambda f, labels: torch.stack([(labels[:row] == labels[row]).sum() for row in medoids(f, labels)])
        ),
        "another cluster's member may be nearer to the centre: only its own members count": (
            lambda f, labels: torch.cdist(f, _centres(f, labels)).argmin(0)
        ),
        "this is the member with the smallest sum of distances to the others: here it is the one nearest to the mean": (
            lambda f, labels: _of_each(f, labels, lambda members: torch.cdist(members, members).sum(0).argmin())
        ),
        "the member farthest from the centre: argmin, not argmax": (
            lambda f, labels: _of_each(f, labels, lambda members: (members - members.mean(0)).norm(dim=1).argmax())
        ),
        "this is the centre itself, a mean that no image has: choose the member nearest to it": _centres,
        "the centre is that of all features, not of the cluster": (
            lambda f, labels: _of_each(f, labels, lambda members: (members - f.mean(0)).norm(dim=1).argmin())
        ),
    },
)


# 8 · the missing detach


def step_gradients(G, D, source, target, weight):
    fake = G(source)
    g_loss = (D(fake) - 1).square().mean() + weight * (fake - target).abs().mean()
    g_loss.backward()
    D.zero_grad()  # what G's loss left there on its way through
    d_loss = (D(target) - 1).square().mean() + D(fake.detach()).square().mean()
    d_loss.backward()
    return gradient(G), gradient(D)


def gradient(network):
    """Join the gradients of a network's weights to one vector."""
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def two_networks(g):
    d, hidden, n = whole(g, 2, 4), whole(g, 3, 6), whole(g, 3, 8)
    networks = [nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, out)) for out in (d, 1)]
    for p in (p for network in networks for p in network.parameters()):
        p.data = torch.randn(p.shape, generator=g)
    source, target = torch.randn(2, n, d, generator=g)
    return *networks, source, target, 1 + 9 * float(torch.rand(1, generator=g))


def _gradients(G, D, source, target, weight, *, detach=True, clear_d=True, clear_g=False, from_d=True):
    """Take the step with one thing changed; it ends with the gradients of both networks."""
    fake = G(source)
    judged = D(fake if from_d else fake.detach())
    ((judged - 1).square().mean() + weight * (fake - target).abs().mean()).backward(retain_graph=True)
    for network, clear in ((D, clear_d), (G, clear_g)):
        if clear:
            network.zero_grad(set_to_none=False)
    ((D(target) - 1).square().mean() + D(fake.detach() if detach else fake).square().mean()).backward()
    return gradient(G), gradient(D)


detach_exercise = Exercise(
    "04-8",
    step_gradients,
    two_networks,
    wrong={
        "nothing is repaired yet: G's gradient holds D's loss, and D's gradient holds G's": (
            lambda *a: _gradients(*a, detach=False, clear_d=False)
        ),
        "D's gradient still holds G's loss: clear it before D's turn": (lambda *a: _gradients(*a, clear_d=False)),
        "G's gradient still holds D's loss, which wants D(fake) = 0: detach the fake in D's loss": (
            lambda *a: _gradients(*a, detach=False)
        ),
        "the fake is detached in G's loss too: D then teaches G nothing, L1 alone is left": (
            lambda *a: _gradients(*a, from_d=False)
        ),
        "G's gradient was cleared with D's: read it, or step, before": (lambda *a: _gradients(*a, clear_g=True)),
        "G's gradient is D's loss alone: clear D's, and detach the fake": (
            lambda *a: _gradients(*a, clear_g=True, detach=False)
        ),
    },
)
