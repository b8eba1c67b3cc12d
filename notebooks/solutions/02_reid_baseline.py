"""Exercises of notebook 02: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.course.exercises import Exercise, whole

# 02-1 · the target of label smoothing


def smoothed_target(label, n_classes, epsilon):
    target = torch.full((n_classes,), epsilon / n_classes)
    target[label] += 1 - epsilon
    return target


def label_and_classes(g):
    n = whole(g, 3, 9)
    return whole(g, 0, n - 1), n, whole(g, 1, 5) / 10


def shared_by_the_others(label, n_classes, epsilon):
    target = torch.full((n_classes,), epsilon / (n_classes - 1))
    target[label] = 1 - epsilon
    return target


def not_added(label, n_classes, epsilon):
    target = torch.full((n_classes,), epsilon / n_classes)
    target[label] = 1 - epsilon
    return target


def one_hot(label, n_classes, epsilon):
    return F.one_hot(torch.tensor(label), n_classes)


smoothing = Exercise(
    "02-1",
    smoothed_target,
    label_and_classes,
    {
        "epsilon is spread over all K people, the right one included": shared_by_the_others,
        "the right person has 1 - epsilon and a share of epsilon on top; yours do not sum to 1": not_added,
        "that is the target without smoothing": one_hot,
        "the right person gets 1 - epsilon and all share epsilon, not the other way round": lambda label, n, epsilon: (
            smoothed_target(label, n, 1 - epsilon)
        ),
    },
)


# 02-2 · from a map to a feature


def pooled_feature(feature_map):
    return F.normalize(feature_map.mean((2, 3)), dim=1)


def a_map(g):
    return (torch.randn([whole(g, 2, 6) for _ in range(4)], generator=g),)


pooling = Exercise(
    "02-2",
    pooled_feature,
    a_map,
    {
        "the feature is to have length 1": lambda x: x.mean((2, 3)),
        "each image has a length of its own: normalise along the channels, not along the batch": lambda x: F.normalize(
            x.mean((2, 3)), dim=0
        ),
        "that pools the largest value; take the mean": lambda x: F.normalize(x.amax((2, 3)), dim=1),
        "pool first: to normalise every position and pool then does not give length 1": lambda x: F.normalize(
            x, dim=1
        ).mean((2, 3)),
        "length means the root of the sum of squares, not the sum of absolute values": lambda x: F.normalize(
            x.mean((2, 3)), p=1, dim=1
        ),
    },
)


# 02-3 · the factor of the learning rate


def lr_factor(unit, warmup, length):
    warm = min(1.0, 0.01 + 0.99 * unit / warmup)
    done = max(0, unit - 1 - warmup) / (length - warmup)
    return warm * (1 + math.cos(math.pi * done)) / 2


def a_moment(g):
    warmup = whole(g, 2, 8)
    length = warmup + whole(g, 5, 20)
    return whole(g, 1, length), warmup, length


def over_the_whole_length(unit, warmup, length):
    warm = min(1.0, 0.01 + 0.99 * unit / warmup)
    return warm * (1 + math.cos(math.pi * (unit - 1) / length)) / 2


def straight_fall(unit, warmup, length):
    warm = min(1.0, 0.01 + 0.99 * unit / warmup)
    return warm * (1 - max(0, unit - 1 - warmup) / (length - warmup))


schedule = Exercise(
    "02-3",
    lr_factor,
    a_moment,
    {
        "the cosine starts where the warm-up ends, and runs over what is left of the length": over_the_whole_length,
        "the fall is half a cosine, not a straight line": straight_fall,
        "the warm-up starts at a hundredth, not at nothing": lambda unit, warmup, length: (
            lr_factor(unit, warmup, length) * (min(1.0, unit / warmup) / min(1.0, 0.01 + 0.99 * unit / warmup))
        ),
        "the first units warm up: the rate grows before it falls": lambda unit, warmup, length: (
            (1 + math.cos(math.pi * max(0, unit - 1 - warmup) / (length - warmup))) / 2
        ),
        "after the warm-up the rate falls to zero": lambda unit, warmup, length: min(1.0, 0.01 + 0.99 * unit / warmup),
    },
)


# 02-4 · a batch of P people with K images each


def pk_rows(pids, people, k):
    rows = []
    for pid in people:
        (own,) = (pids == pid).nonzero(as_tuple=True)
        rows.append(own[torch.arange(k) % len(own)])
    return torch.cat(rows)


def people_of_a_set(g):
    n = whole(g, 4, 7)
    names = torch.randperm(50, generator=g)[:n] + 100
    pids = torch.cat([names[i].repeat(whole(g, 1, 6)) for i in range(n)])
    pids = pids[torch.randperm(len(pids), generator=g)]
    return pids, names[: whole(g, 2, n)].tolist(), whole(g, 2, 5)


def fewer_images(pids, people, k):
    return torch.cat([(pids == pid).nonzero()[:k, 0] for pid in people])


def last_again(pids, people, k):
    rows = [(pids == pid).nonzero()[:, 0] for pid in people]
    return torch.cat([own[torch.arange(k).clamp(max=len(own) - 1)] for own in rows])


balanced = Exercise(
    "02-4",
    pk_rows,
    people_of_a_set,
    {
        "a person with fewer than K images is taken round again, so that the batch has P x K rows": fewer_images,
        "start again from the person's first image; repeating the last one gives a batch of copies": last_again,
        "rows are wanted, that is positions in the set, not the people who stand there": lambda pids, people, k: pids[
            pk_rows(pids, people, k)
        ],
        "a person's K images stand together; yours alternate": lambda pids, people, k: (
            pk_rows(pids, people, k).view(-1, k).T.flatten()
        ),
        "the people stand in the order asked for, not in the order of their numbers": lambda pids, people, k: pk_rows(
            pids, sorted(people), k
        ),
    },
)


# 02-5 · batch-hard mining across cameras


def hardest_rows(features, pids, camids):
    distances = torch.cdist(features, features)
    same = pids[:, None] == pids
    positive = same & (camids[:, None] != camids)
    farthest = distances.masked_fill(~positive, -1).argmax(1)
    farthest[~positive.any(1)] = -1
    nearest = distances.masked_fill(same, torch.inf).argmin(1)
    return torch.stack([farthest, nearest], 1)


def a_batch(g):
    p, k = whole(g, 2, 4), whole(g, 2, 4)
    pids = torch.arange(p).repeat_interleave(k)[torch.randperm(p * k, generator=g)]
    return torch.randn(p * k, whole(g, 2, 5), generator=g), pids, torch.randint(3, (p * k,), generator=g)


def any_camera(features, pids, camids):
    rows = torch.arange(len(pids))
    return hardest_rows(features, pids, rows)  # every image as if in a camera of its own


def easiest_positive(features, pids, camids):
    found = hardest_rows(features, pids, camids)
    positive = (pids[:, None] == pids) & (camids[:, None] != camids)
    nearest = torch.cdist(features, features).masked_fill(~positive, torch.inf).argmin(1)
    return torch.stack([torch.where(positive.any(1), nearest, -1), found[:, 1]], 1)


def itself_if_alone(features, pids, camids):
    found = hardest_rows(features, pids, camids)
    found[:, 0] = torch.where(found[:, 0] < 0, torch.arange(len(pids)), found[:, 0])
    return found


def farthest_negative(features, pids, camids):
    other = torch.cdist(features, features).masked_fill(pids[:, None] == pids, -1).argmax(1)
    return torch.stack([hardest_rows(features, pids, camids)[:, 0], other], 1)


def negative_in_another_camera(features, pids, camids):
    close = (pids[:, None] == pids) | (camids[:, None] == camids)
    other = torch.cdist(features, features).masked_fill(close, torch.inf).argmin(1)
    return torch.stack([hardest_rows(features, pids, camids)[:, 0], other], 1)


mining = Exercise(
    "02-5",
    hardest_rows,
    a_batch,
    {
        "a positive from the anchor's own camera does not count": any_camera,
        "the hard positive is the farthest image of the person; the nearest one is the easiest": easiest_positive,
        "an anchor without a positive in another camera has -1, not itself": itself_if_alone,
        "the hard negative is the nearest of the other people, not the farthest": farthest_negative,
        "the camera rule is for positives only; negatives come from any camera": negative_in_another_camera,
        "the answer is the row's number, not its distance": lambda features, pids, camids: torch.cdist(
            features, features
        ).gather(1, hardest_rows(features, pids, camids).clamp(min=0)),
    },
)


# 02-6 · XQDA in closed form


def xqda_matrix(intra, extra):
    values, vectors = torch.linalg.eig(
        torch.linalg.solve(intra, extra)
    )  # of inverse(I) E, real since both are symmetric
    W = vectors.real[:, values.real > 1]
    inner = torch.linalg.inv(W.T @ intra @ W) - torch.linalg.inv(W.T @ extra @ W)
    return W @ inner @ W.T


def two_covariances(g):
    """Draw I, and E whose spread relative to I is above 1 in some directions and below in others."""
    d = whole(g, 3, 6)
    half = torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(d, d, generator=g, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64))[0]
    ratios = 0.3 + 0.5 * torch.rand(d, generator=g, dtype=torch.float64)
    ratios[: whole(g, 1, d - 1)] += 1 + whole(g, 0, 3)
    return half @ half.T, half @ turn @ ratios.diag() @ turn.T @ half.T


def all_directions(intra, extra):
    return torch.linalg.inv(intra) - torch.linalg.inv(extra)


def below_one(intra, extra):
    values, vectors = torch.linalg.eig(torch.linalg.solve(intra, extra))
    W = vectors.real[:, values.real <= 1]
    return W @ (torch.linalg.inv(W.T @ intra @ W) - torch.linalg.inv(W.T @ extra @ W)) @ W.T


def projection_only(intra, extra):
    values, vectors = torch.linalg.eig(torch.linalg.solve(intra, extra))
    W = vectors.real[:, values.real > 1]
    return W @ W.T


def as_if_symmetric(intra, extra):
    values, W = torch.linalg.eigh(torch.linalg.solve(intra, extra))
    W = W[:, values > 1]
    return W @ (torch.linalg.inv(W.T @ intra @ W) - torch.linalg.inv(W.T @ extra @ W)) @ W.T


xqda = Exercise(
    "02-6",
    xqda_matrix,
    two_covariances,
    {
        "that is KISSME's matrix: XQDA keeps only the directions whose ratio is above 1": all_directions,
        "keep the directions in which different people spread more than one person, ratio above 1": below_one,
        "the directions are right, but the metric inside them is missing": projection_only,
        "the product of an inverse and a covariance is not symmetric, so eigh does not apply to it": as_if_symmetric,
        "the metric is the inverse of I less the inverse of E; yours has the sign turned round": lambda intra, extra: (
            -xqda_matrix(intra, extra)
        ),
    },
    tolerance=1e-4,
)


# 02-7 · the hunt for the batch normalisation's statistics


def embed_between(network, images, train_on):
    network.eval()
    with torch.no_grad():
        features = torch.cat([F.normalize(network(part), dim=1) for part in images.split(4)])
    network.train()
    return features, train_on()


def a_network_in_training(g):
    c, d = whole(g, 2, 4), whole(g, 3, 5)
    network = nn.Sequential(nn.Linear(c, d), nn.BatchNorm1d(d), nn.ReLU(), nn.Linear(d, d))
    for name, weights in network.named_parameters():
        nn.init.normal_(weights, float(name == "1.weight"), 0.5, generator=g)
    for _ in range(5):
        network(2 * torch.randn(12, c, generator=g) + 1)  # its running averages have seen something
    images, batch = (torch.randn(n, c, generator=g) for n in (4 * whole(g, 1, 4) + whole(g, 2, 3), 6))
    return network, images, lambda: network(batch).square().mean()


def as_the_colleague(network, images, train_on):
    with torch.no_grad():
        features = torch.cat([F.normalize(network(part), dim=1) for part in images.split(4)])
    return features, train_on()


def never_back(network, images, train_on):
    network.eval()
    return as_the_colleague(network, images, train_on)


def all_at_once(network, images, train_on):
    with torch.no_grad():
        return F.normalize(network(images), dim=1), train_on()


def back_too_early(network, images, train_on):
    features = []
    network.eval()
    for part in images.split(4):
        with torch.no_grad():
            features.append(F.normalize(network(part), dim=1))
        network.train()
    return torch.cat(features), train_on()


def not_normalised(network, images, train_on):
    network.eval()
    with torch.no_grad():
        features = network(images)
    network.train()
    return features, train_on()


hunt = Exercise(
    "02-7",
    embed_between,
    a_network_in_training,
    {
        "the network still normalises by the batch: no_grad stops gradients, it does not end the training mode": (
            as_the_colleague
        ),
        "the features are right, but the training goes on in evaluation mode": never_back,
        "a larger batch hides the mistake: features still depend on the images beside them": all_at_once,
        "the network goes back to training after the first part; all parts want evaluation mode": back_too_early,
        "the features have lost their length of 1": not_normalised,
    },
    tolerance=1e-4,
)
