"""Exercises of notebook 00: solutions, the inputs that the check draws, and typical wrong answers with their reason."""

import pandas as pd
import torch

from reidlib.course.exercises import Exercise, whole

# 1 · the gallery that one query is compared with


def candidates(pids, camids, pid, camid):
    mine_again = (pids == pid) & (camids == camid)
    return (pids != -1) & ~mine_again


def gallery_of_a_query(g):
    n = whole(g, 30, 60)
    pids = torch.tensor([-1, -3, 4, 5, 6, 4, 5])[torch.randint(7, (n,), generator=g)]
    return pids, torch.randint(1, 4, (n,), generator=g), whole(g, 4, 6), whole(g, 1, 3)


candidates_exercise = Exercise(
    "00-1",
    candidates,
    gallery_of_a_query,
    wrong={
        "distractors are left out: they are strangers who may be confused with somebody, so they stay": (
            lambda pids, camids, pid, camid: (pids >= 0) & ~((pids == pid) & (camids == camid))
        ),
        "junk is still there: a box that cuts a person badly is neither right nor wrong": (
            lambda pids, camids, pid, camid: ~((pids == pid) & (camids == camid))
        ),
        "everything of the query's camera is left out: only the same person there is ignored": (
            lambda pids, camids, pid, camid: (pids != -1) & (camids != camid)
        ),
        "the person is left out in every camera: then no answer can be right": (
            lambda pids, camids, pid, camid: (pids != -1) & (pids != pid)
        ),
        "the query's own camera is still there: its wall would give the answer away": (
            lambda pids, camids, pid, camid: pids != -1
        ),
    },
)


# 2 · where somebody stands


def standing_place(keypoints):
    found = keypoints[..., 2:]  # [N,18,1], 1 where a joint is seen
    return (keypoints[..., :2] * found).sum(1) / found.sum(1)


def joints(g):
    points = torch.rand(whole(g, 2, 8), 18, 3, generator=g) * 30
    seen = points[..., 2] > 12
    seen[:, 1] = True  # somebody of whom nothing is seen stands nowhere
    points[..., 2] = 1
    return (torch.where(seen[..., None], points, torch.tensor([-1.0, -1.0, 0.0])),)


standing_exercise = Exercise(
    "00-2",
    standing_place,
    joints,
    wrong={
        "missing joints take part: their (-1, -1) is no place in the image": (lambda k: k[..., :2].mean(1)),
        "missing joints add nothing to the sum, but the sum is divided by all 18": (
            lambda k: (k[..., :2] * k[..., 2:]).mean(1)
        ),
        "this is the middle of the box around the joints, not their mean place": (
            lambda k: (
                (
                    k[..., :2].masked_fill(k[..., 2:] == 0, 1e9).amin(1)
                    + k[..., :2].masked_fill(k[..., 2:] == 0, -1e9).amax(1)
                )
                / 2
            )
        ),
        "the mean is over the images, not over the joints of one image": (
            lambda k: (k[..., :2] * k[..., 2:]).sum(0) / k[..., 2:].sum(0).clamp_min(1)
        ),
    },
)


# 3 · a table of the cameras


def camera_table(pids, camids):
    known = pids >= 0
    table = pd.DataFrame({"camera": camids[known].numpy(), "pid": pids[known].numpy()})
    table = table.groupby("camera")["pid"].agg(["count", "nunique"])
    return torch.tensor(table.to_numpy())


def some_images(g, junk=8):
    """Draw people, everybody twice in each camera at least, whose cameras' numbers have gaps; and junk."""
    cameras = torch.randperm(9, generator=g)[: whole(g, 2, 4)] + 1
    people = torch.arange(whole(g, 2, 4)) * whole(g, 1, 3)
    everywhere = torch.cartesian_prod(people, cameras)
    extra, cut = (everywhere[torch.randint(len(everywhere), (n,), generator=g)] for n in (9, junk))
    cut[:, 0] = -1
    rows = torch.cat([everywhere, everywhere, extra, cut])
    return tuple(rows[torch.randperm(len(rows), generator=g)].T)


def _table(pids, camids, what):
    table = pd.DataFrame({"camera": camids.numpy(), "pid": pids.numpy()})
    return torch.tensor(table.groupby("camera")["pid"].agg(what).to_numpy())


camera_table_exercise = Exercise(
    "00-3",
    camera_table,
    some_images,
    wrong={
        "junk (pid -1) is counted among the images and as one more person": (
            lambda pids, camids: _table(pids, camids, ["count", "nunique"])
        ),
        "the second column counts images again: a person of five images is one person": (
            lambda pids, camids: _table(pids[pids >= 0], camids[pids >= 0], ["count", "count"])
        ),
        "the columns are people, images; asked for were images, people": (
            lambda pids, camids: _table(pids[pids >= 0], camids[pids >= 0], ["nunique", "count"])
        ),
        "grouped by person, not by camera": (lambda pids, camids: camera_table(camids, pids.clamp_min(0))),
        "person 0 is left out: 0 is a pid like any other": (
            lambda pids, camids: _table(pids[pids > 0], camids[pids > 0], ["count", "nunique"])
        ),
    },
)


# 4 · how many examples of a translation


def translation_pairs(pids, camids):
    same_person = (pids[:, None] == pids) & (pids >= 0)
    return int((same_person & (camids[:, None] != camids)).sum())


def _all_pairs(pids, camids):
    return (pids[:, None] == pids) & (pids >= 0)[:, None]


pairs_exercise = Exercise(
    "00-4",
    translation_pairs,
    some_images,
    wrong={
        "each pair is counted once: from a to b and from b to a are two examples": (
            lambda pids, camids: translation_pairs(pids, camids) // 2
        ),
        "pairs within one camera are counted: nothing is translated there": (
            lambda pids, camids: int(_all_pairs(pids, camids).sum()) - int((pids >= 0).sum())
        ),
        "junk is taken for one person: two boxes with pid -1 do not show the same body": (
            lambda pids, camids: int(((pids[:, None] == pids) & (camids[:, None] != camids)).sum())
        ),
        "an image is paired with itself": (lambda pids, camids: int(_all_pairs(pids, camids).sum())),
        "whose images they are is not asked: each one is paired with every stranger of another camera": (
            lambda pids, camids: int((camids[:, None] != camids).sum())
        ),
    },
)


# 5 · the mean background


def mean_background(images, masks):
    behind = 1 - masks[:, None].double() / 255  # [N,1,H,W]
    return (behind * images).sum(0) / behind.sum(0)


def people_with_masks(g, n=None):
    n, height, width = n or whole(g, 3, 7), whole(g, 4, 8), whole(g, 3, 5)
    images, masks = (torch.randint(256, shape, generator=g) for shape in ((n, 3, height, width), (n, height, width)))
    hard = torch.rand(masks.shape, generator=g)  # most pixels are all person or all background, edges are soft
    masks = torch.where(hard < 0.35, 0, torch.where(hard > 0.65, 255, masks))
    masks[0], masks[1] = masks[0].clamp_max(200), masks[1].clamp_min(50)  # no pixel is all person or all background
    return images.to(torch.uint8), masks.to(torch.uint8)


mean_background_exercise = Exercise(
    "00-5",
    mean_background,
    people_with_masks,
    wrong={
        "the people are in it: this is the mean image": (lambda images, masks: images.double().mean(0)),
        "this is the mean person: the mask is 255 on the person, the background has 255 - mask": (
            lambda images, masks: mean_background(images, 255 - masks)
        ),
        "too dark where people stand: divide by the weight of the background there, not by the number of images": (
            lambda images, masks: ((1 - masks[:, None].double() / 255) * images).mean(0)
        ),
        "the soft edge counts as no background at all: weigh it by 1 - mask / 255": (
            lambda images, masks: ((masks == 0)[:, None] * images.double()).sum(0) / (masks == 0).sum(0).clamp_min(1)
        ),
        "one colour for the whole picture: the mean is over the images, pixel by pixel": (
            lambda images, masks: (
                ((1 - masks[:, None].double() / 255) * images).sum((0, 2, 3), keepdim=True)[0]
                / (1 - masks.double() / 255).sum()
            ).expand(images.shape[1:])
        ),
    },
)


# 6 · a person's share of the picture, by direction


def area_by_direction(masks, yaws):
    octant = ((yaws + 22.5) % 360 // 45).long()
    area = masks.double().mean((1, 2)) / 255
    return torch.stack([area[octant == i].mean() for i in range(8)])


def turned_masks(g):
    yaws = torch.cat([torch.arange(8.0) * 45 + 40 * torch.rand(8, generator=g) - 20 for _ in range(whole(g, 4, 8))])
    yaws = (yaws % 360)[torch.randperm(len(yaws), generator=g)]
    _, masks = people_with_masks(g, len(yaws))
    return masks, yaws


def _by(area, octant):
    return torch.stack([area[octant == i].sum() / (octant == i).sum().clamp_min(1) for i in range(8)])


area_exercise = Exercise(
    "00-6",
    area_by_direction,
    turned_masks,
    wrong={
        "the first group begins at 0 degrees: it should lie around it, from -22.5 to 22.5": (
            lambda masks, yaws: _by(masks.double().mean((1, 2)) / 255, (yaws // 45).long())
        ),
        "yaws above 337.5 face the camera too: take the angle modulo 360 after the shift": (
            lambda masks, yaws: _by(masks.double().mean((1, 2)) / 255, ((yaws + 22.5) // 45).long())
        ),
        "masks are bytes: divide by 255 for a share": (lambda masks, yaws: 255 * area_by_direction(masks, yaws)),
        "every pixel that the person touches counts whole: a soft edge counts in part": (
            lambda masks, yaws: area_by_direction((masks > 0).to(torch.uint8) * 255, yaws)
        ),
        "areas are added up: a direction in which many people walk is then a large one": (
            lambda masks, yaws: (
                area_by_direction(masks, yaws) * ((yaws + 22.5) % 360 // 45).long().bincount(minlength=8)
            )
        ),
    },
)


# 7 · another scene behind everybody


def other_scenes(images, masks, rows, mean):
    m = masks[:, None].float() / 255  # [N,1,H,W]
    scenes = m[rows] * mean + (1 - m[rows]) * images[rows]  # [N,3,H,W]: the chosen images without their people
    return m * images + (1 - m) * scenes


def people_and_rows(g):
    images, masks = people_with_masks(g)
    rows = torch.randint(len(images), (len(images),), generator=g)
    return images, masks, rows, 255 * torch.rand(images.shape[1:], generator=g)


def _mixed(masks, images, scenes, scene_masks=None, mean=0.0):
    m, other = masks[:, None] / 255, 0.0 if scene_masks is None else scene_masks[:, None] / 255
    return m * images + (1 - m) * (other * mean + (1 - other) * scenes)


other_scenes_exercise = Exercise(
    "00-7",
    other_scenes,
    people_and_rows,
    wrong={
        "the other image's person is still in the scene: cover them by the mean first": (
            lambda images, masks, rows, mean: _mixed(masks, images, images[rows])
        ),
        "the person went and the background stayed: the own mask is the wrong way round": (
            lambda images, masks, rows, mean: _mixed(255 - masks, images, images[rows], masks[rows], mean)
        ),
        "the mean covers the scene and not its person: the other mask is the wrong way round": (
            lambda images, masks, rows, mean: _mixed(masks, images, images[rows], 255 - masks[rows], mean)
        ),
        "one mask for both: the other image's person stands elsewhere, take its own mask": (
            lambda images, masks, rows, mean: _mixed(masks, images, images[rows], masks, mean)
        ),
        "a hard edge: the mask's values between 0 and 255 mix person and scene": (
            lambda images, masks, rows, mean: other_scenes(images, (masks > 127) * 255, rows, mean)
        ),
        "everybody stands in front of the mean background: the rows are not used": (
            lambda images, masks, rows, mean: _mixed(masks, images, mean)
        ),
    },
    tolerance=1e-4,
)


# 8 · the hardest pair of cameras


def mean_between(distances, wanted, camids):
    """Mean of the wanted distances between each two cameras, [C,C]."""
    cameras = camids.unique().tolist()
    groups = [[distances[wanted & (camids[:, None] == a) & (camids == b)] for b in cameras] for a in cameras]
    return torch.stack([torch.stack([group.mean() for group in row]) for row in groups])


def camera_difficulty(features, pids, camids):
    distances, same = torch.cdist(features, features), pids[:, None] == pids
    own = same & ~torch.eye(len(pids), dtype=torch.bool)  # no image with itself
    return mean_between(distances, own, camids) / mean_between(distances, ~same, camids)


def features_of_people(g):
    pids, camids = some_images(g, junk=0)
    place = torch.rand(10, whole(g, 2, 5), generator=g) * 3  # every camera has its own light
    return torch.randn(len(pids), place.shape[1], generator=g) + place[camids], pids, camids


def _ratio(f, camids, above, below, power=1):
    distances = torch.cdist(f, f) ** power
    return mean_between(distances, above, camids) / mean_between(distances, below, camids)


def _same(pids):
    return pids[:, None] == pids


def _no_self(pids):
    return ~torch.eye(len(pids), dtype=torch.bool)


difficulty_exercise = Exercise(
    "00-8",
    camera_difficulty,
    features_of_people,
    wrong={
        "only the numerator: in a pair where all distances are large, one person's are too": (
            lambda f, pids, camids: mean_between(torch.cdist(f, f), _same(pids) & _no_self(pids), camids)
        ),
        "upside down: one person's distance belongs above the bar": (
            lambda f, pids, camids: 1 / camera_difficulty(f, pids, camids)
        ),
        "below the bar stand all pairs: it should be different people only": (
            lambda f, pids, camids: _ratio(f, camids, _same(pids) & _no_self(pids), _no_self(pids))
        ),
        "each image is compared with itself: the zeros make the diagonal look easy": (
            lambda f, pids, camids: _ratio(f, camids, _same(pids), ~_same(pids))
        ),
        "squared distances: the large ones rule the mean": (
            lambda f, pids, camids: _ratio(f, camids, _same(pids) & _no_self(pids), ~_same(pids), 2)
        ),
    },
)
