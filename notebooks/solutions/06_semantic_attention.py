"""Exercises of notebook 06: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import torch
import torch.nn.functional as F

from reidlib.course.exercises import Exercise, whole

# 1 · one-hot maps


def one_map_a_class(labels, n):
    return (labels[:, None] == torch.arange(n)[:, None, None]).float()


def labels_of_classes(g):
    n, shape = whole(g, 3, 9), (whole(g, 2, 4), whole(g, 4, 7), whole(g, 2, 3))
    return torch.randint(n, shape, generator=g), n


one_hot_exercise = Exercise(
    "06-1",
    one_map_a_class,
    labels_of_classes,
    wrong={
        "the classes stand last: a network takes channels before rows and columns": lambda labels, n: F.one_hot(
            labels, n
        ).float(),
        "the background has lost its map: it is a class like any other": (
            lambda labels, n: one_map_a_class(labels, n)[:, 1:]
        ),
        "labels are taken as numbers: one channel with l / (n - 1) says that class 4 lies between 3 and 5": (
            lambda labels, n: labels[:, None].float() / (n - 1)
        ),
        "these maps are cumulative (l >= k): a pixel is 1 in one map only": (
            lambda labels, n: (labels[:, None] >= torch.arange(n)[:, None, None]).float()
        ),
        "rows and columns have changed places": lambda labels, n: one_map_a_class(labels.transpose(1, 2), n),
    },
)


# 2 · mirrored labels


def mirrored_labels(labels):
    table = torch.arange(20)
    table[[14, 15, 16, 17, 18, 19]] = torch.tensor([15, 14, 17, 16, 19, 18])
    return table[labels].flip(-1)


def some_labels(g):
    return (torch.randint(20, (whole(g, 2, 4), whole(g, 3, 6), whole(g, 4, 8)), generator=g),)


def _one_after_the_other(labels):
    labels = labels.flip(-1)
    for a, b in ((14, 15), (15, 14), (16, 17), (17, 16), (18, 19), (19, 18)):
        labels = torch.where(labels == a, b, labels)
    return labels


mirror_exercise = Exercise(
    "06-2",
    mirrored_labels,
    some_labels,
    wrong={
        "left and right were not exchanged: the mirrored person waves with the wrong arm": lambda labels: labels.flip(
            -1
        ),
        "nothing was mirrored: only the names have changed": lambda labels: mirrored_labels(labels).flip(-1),
        "rows were reversed: a mirror beside the person reverses columns": (
            lambda labels: mirrored_labels(labels).flip(-1).flip(1)
        ),
        "one assignment after the other: 14 becomes 15, and then all 15 become 14": _one_after_the_other,
        "only the arms were exchanged: legs and shoes have sides too": (
            lambda labels: torch.where((labels == 14) | (labels == 15), 29 - labels, labels).flip(-1)
        ),
    },
)


# 3 · equation 2


def new_appearance(appearance, semantic, s):
    return torch.sigmoid(s) * semantic + appearance


def two_codes(g):
    shape = whole(g, 1, 3), whole(g, 2, 5), whole(g, 3, 6), whole(g, 2, 4)
    return tuple(3 * torch.randn(shape, generator=g) for _ in range(3))


equation_2_exercise = Exercise(
    "06-3",
    new_appearance,
    two_codes,
    wrong={
        "the mask lies on the appearance code: printed is the semantic one, and that is added": (
            lambda appearance, semantic, s: torch.sigmoid(s) * appearance + semantic
        ),
        "this is Eq. 1 as printed, the sigmoid upside down: here it is that of the text": (
            lambda appearance, semantic, s: torch.sigmoid(-s) * semantic + appearance
        ),
        "the old appearance code is not added: a closed mask would erase the person": (
            lambda appearance, semantic, s: torch.sigmoid(s) * semantic
        ),
        "the mask shares 1 among the channels (softmax): each channel opens and closes by itself": (
            lambda appearance, semantic, s: s.softmax(1) * semantic + appearance
        ),
        "S itself multiplies: without the sigmoid it is no mask between 0 and 1": (
            lambda appearance, semantic, s: s * semantic + appearance
        ),
        "the two codes are mixed, M a + (1 - M) b: Eq. 2 keeps the whole appearance code": (
            lambda appearance, semantic, s: torch.sigmoid(s) * semantic + (1 - torch.sigmoid(s)) * appearance
        ),
    },
)


# 4 · a perceptual loss


def stages_apart(found, wanted):
    ratios = [(f - w).abs().mean() / w.abs().mean() for f, w in zip(found, wanted, strict=True)]
    return torch.stack(ratios).mean()


def maps_of_stages(g):
    n, stages = whole(g, 1, 3), whole(g, 2, 4)
    shapes = [(n, whole(g, 2, 6), 2 ** (stages - k), 2 ** (stages - k)) for k in range(stages)]
    scales = [10 ** whole(g, -1, 1) for _ in shapes]
    pair = ([c * torch.randn(shape, generator=g) for c, shape in zip(scales, shapes, strict=True)] for _ in range(2))
    return tuple(pair)


def _each_stage(found, wanted, measure):
    return torch.stack([measure(f, w) for f, w in zip(found, wanted, strict=True)])


perceptual_exercise = Exercise(
    "06-4",
    stages_apart,
    maps_of_stages,
    wrong={
        "nothing is divided: the stage with the largest numbers decides alone": (
            lambda found, wanted: _each_stage(found, wanted, lambda f, w: (f - w).abs().mean()).mean()
        ),
        "divided by the size of the drawing's features: a generator could lower that by larger features": (
            lambda found, wanted: _each_stage(found, wanted, lambda f, w: (f - w).abs().mean() / f.abs().mean()).mean()
        ),
        "the stages are added up: their mean is asked for": (
            lambda found, wanted: len(found) * stages_apart(found, wanted)
        ),
        "squared differences (p = 2, as Eq. 6): the course takes p = 1": (
            lambda found, wanted: _each_stage(
                found, wanted, lambda f, w: (f - w).square().mean() / w.square().mean()
            ).mean()
        ),
        "the sums of all stages are divided once: each stage has a scale of its own": (
            lambda found, wanted: (
                sum((f - w).abs().mean() for f, w in zip(found, wanted, strict=True))
                / sum(w.abs().mean() for w in wanted)
            )
        ),
        "each element was divided by its own target: tiny targets would then count most": (
            lambda found, wanted: _each_stage(found, wanted, lambda f, w: ((f - w).abs() / w.abs()).mean()).mean()
        ),
    },
    tolerance=1e-4,
)


# 5 · FID of uncorrelated features


def diagonal_fid(first, second):
    means = (first.mean(0) - second.mean(0)).square().sum()
    v1, v2 = first.var(0), second.var(0)
    return means + (v1 + v2 - 2 * (v1 * v2).sqrt()).sum()


def two_crowds(g):
    d = whole(g, 1, 5)
    return tuple((1 + k) * torch.randn(whole(g, 3, 9), d, generator=g) + k for k in (0, 1))


def _diagonal(first, second, spread, root):
    v1, v2 = spread(first), spread(second)
    return (first.mean(0) - second.mean(0)).square().sum() + (v1 + v2 - 2 * root(v1, v2)).sum()


fid_exercise = Exercise(
    "06-5",
    diagonal_fid,
    two_crowds,
    wrong={
        "the variances are biased, divided by N: FID takes the unbiased ones, divided by N - 1": (
            lambda a, b: _diagonal(a, b, lambda x: x.var(0, correction=0), lambda v, w: (v * w).sqrt())
        ),
        "standard deviations stand where variances belong": (
            lambda a, b: _diagonal(a, b, lambda x: x.std(0), lambda v, w: (v * w).sqrt())
        ),
        "the root is missing: two equal crowds would not have distance 0": (
            lambda a, b: _diagonal(a, b, lambda x: x.var(0), lambda v, w: v * w)
        ),
        "the means are missing: two crowds of equal spread, however far apart, would be the same": (
            lambda a, b: diagonal_fid(a - a.mean(0), b - b.mean(0))
        ),
        "the distance of the means is not squared": (
            lambda a, b: diagonal_fid(a - a.mean(0), b - b.mean(0)) + (a.mean(0) - b.mean(0)).norm()
        ),
        "this is the mean over dimensions: the trace is a sum": lambda a, b: diagonal_fid(a, b) / a.shape[1],
    },
    tolerance=1e-4,
)


# 6 · the square layer


def probability_same(f1, f2, weight, bias):
    return ((f1 - f2).square() @ weight.T + bias).softmax(1)[:, 1]


def pairs_of_features(g):
    b, d = whole(g, 2, 6), whole(g, 3, 8)
    f1, f2 = torch.randn(2, b, d, generator=g)
    return f1, f2, torch.randn(2, d, generator=g) / d, torch.randn(2, generator=g)


square_exercise = Exercise(
    "06-6",
    probability_same,
    pairs_of_features,
    wrong={
        "this is the probability of two different people: the second value says that they are the same": (
            lambda f1, f2, weight, bias: 1 - probability_same(f1, f2, weight, bias)
        ),
        "the difference is not squared: the answer would change with the order of the two": (
            lambda f1, f2, weight, bias: ((f1 - f2) @ weight.T + bias).softmax(1)[:, 1]
        ),
        "each feature was squared first: (f1 - f2)^2 is no difference of squares": (
            lambda f1, f2, weight, bias: ((f1.square() - f2.square()) @ weight.T + bias).softmax(1)[:, 1]
        ),
        "a sigmoid of the second logit alone: the two compete in a softmax": (
            lambda f1, f2, weight, bias: ((f1 - f2).square() @ weight.T + bias).sigmoid()[:, 1]
        ),
        "the squares were added up before the layer: every element has weights of its own": (
            lambda f1, f2, weight, bias: ((f1 - f2).square().sum(1, keepdim=True) * weight.mean(1) + bias).softmax(1)[
                :, 1
            ]
        ),
        "the bias is missing": lambda f1, f2, weight, bias: probability_same(f1, f2, weight, 0 * bias),
    },
)


# 7 · clothes that the source does not wear

NO_CLOTHES = torch.tensor([0, 2, 13, 14, 15, 16, 17])  # background, hair, face, arms, legs


def foreign_clothes(source, wanted):
    clothes = ~torch.isin(wanted, NO_CLOTHES)
    if not clothes.any():
        return 0.0
    return (clothes & ~torch.isin(wanted, source)).sum().item() / clothes.sum().item()


def two_maps(g):
    h, w = whole(g, 4, 8), whole(g, 3, 6)
    worn = [torch.randperm(20, generator=g)[: whole(g, 5, 11)] for _ in range(2)]
    worn[1] = NO_CLOTHES if whole(g, 1, 4) == 1 else worn[1]  # a wanted map without clothes
    return tuple(classes[torch.randint(len(classes), (h, w), generator=g)] for classes in worn)


def _share(of, among):
    return of.sum().item() / among.sum().item() if among.any() else 0.0


leak_exercise = Exercise(
    "06-7",
    foreign_clothes,
    two_maps,
    wrong={
        "a map without clothes leaves nothing to divide by: there the answer is 0": (
            lambda source, wanted: (
                (~torch.isin(wanted, NO_CLOTHES) & ~torch.isin(wanted, source)).sum().item()
                / (~torch.isin(wanted, NO_CLOTHES)).sum().item()
            )
        ),
        "the share is of all pixels: only the clothes' count": (
            lambda source, wanted: _share(
                ~torch.isin(wanted, NO_CLOTHES) & ~torch.isin(wanted, source), torch.ones_like(wanted)
            )
        ),
        "bodies are counted as clothes: hair, face, arms and legs are no garments": (
            lambda source, wanted: _share((wanted > 0) & ~torch.isin(wanted, source), wanted > 0)
        ),
        "the question is turned round: these are the source's clothes that the wanted map has not": (
            lambda source, wanted: foreign_clothes(wanted, source)
        ),
        "classes are counted, not pixels: a coat covers more than a scarf": (
            lambda source, wanted: foreign_clothes(source, wanted.unique())
        ),
        "the maps are compared pixel by pixel: another pose would already be a leak": (
            lambda source, wanted: _share(
                ~torch.isin(wanted, NO_CLOTHES) & (wanted != source), ~torch.isin(wanted, NO_CLOTHES)
            )
        ),
        "this is the share that the source does wear": (
            lambda source, wanted: _share(
                ~torch.isin(wanted, NO_CLOTHES) & torch.isin(wanted, source), ~torch.isin(wanted, NO_CLOTHES)
            )
        ),
    },
)


# 8 · the sigmoid upside down


def upside_down(weight, bias, joined):
    c = len(weight)
    return -weight, -bias, torch.cat([-joined[:, :c], joined[:, c:]], dim=1)


def convolutions_of_a_block(g):
    c = whole(g, 2, 4)
    shapes = (c, c, 3, 3), (c,), (c, 2 * c, 3, 3)
    return tuple(torch.randn(shape, generator=g) for shape in shapes)


sign_exercise = Exercise(
    "06-8",
    upside_down,
    convolutions_of_a_block,
    wrong={
        "Eq. 3 reads S too, which has changed its sign: negate those of its weights": (
            lambda weight, bias, joined: (-weight, -bias, joined)
        ),
        "all of Eq. 3's weights were negated: the second half reads the appearance code, which has not changed": (
            lambda weight, bias, joined: (-weight, -bias, -joined)
        ),
        "the wrong half of Eq. 3's weights was negated: S comes first": (
            lambda weight, bias, joined: (
                -weight,
                -bias,
                torch.cat([joined[:, : len(weight)], -joined[:, len(weight) :]], dim=1),
            )
        ),
        "the bias is a part of S as well": lambda weight, bias, joined: (
            -weight,
            bias,
            upside_down(weight, bias, joined)[2],
        ),
        "output channels of Eq. 3 were negated: it is what it reads that has changed its sign": (
            lambda weight, bias, joined: (-weight, -bias, torch.cat([-joined[:1], joined[1:]]))
        ),
    },
)
