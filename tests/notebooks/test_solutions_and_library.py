"""Solutions of the exercises that the library has too: both give the same on the inputs of the check."""

import copy
import re

import nbformat
import pytest
import torch

from reidlib import experiments
from reidlib.course import exercise
from reidlib.course.exercises import SOLUTIONS
from reidlib.datasets import poses
from reidlib.datasets.backgrounds import fill_person, mean_background, replace_background
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import same_identity_pairs
from reidlib.evaluators import RetrievalScores, evaluate_retrieval, ignored_images, pool_queries, verify
from reidlib.generators import pn_gan
from reidlib.generators.blocks import ResidualUnit
from reidlib.networks import normalise
from reidlib.tools.annotate import to_openpose


def answers(name, trials=5):
    """The check's inputs and what the solution makes of them."""
    task = exercise(name)
    for seed in range(trials):
        inputs = [task.inputs(torch.Generator().manual_seed(seed)) for _ in range(2)]
        yield inputs[0], task.solution(*inputs[1])


def test_tour():
    for (pids, camids, pid, camid), found in answers("00-1"):
        query = {"query_pids": torch.tensor([pid]), "query_camids": torch.tensor([camid])}
        assert torch.equal(found, ~ignored_images(**query, gallery_pids=pids, gallery_camids=camids)[0])
    for (pids, camids), found in answers("00-4"):
        pairs = same_identity_pairs(pids)
        assert found == int((camids[pairs[:, 0]] != camids[pairs[:, 1]]).sum())
    for (images, masks), found in answers("00-5"):
        nobody = [1] * len(images)
        people = PersonImages(images, nobody, nobody, masks=masks)
        torch.testing.assert_close(found.float(), mean_background(people))
    for (images, masks, rows, mean), found in answers("00-7"):
        scenes = fill_person(images[rows], masks[rows], mean)
        assert (found - replace_background(images, masks, scenes).float()).abs().max() <= 1  # rounded twice


LABELS = ("query_pids", "query_camids", "gallery_pids", "gallery_camids")


def score(distances, *labels):
    """The library's scores of distances [Q,G]."""
    return evaluate_retrieval(
        None, None, distance=lambda rows: distances[rows], **dict(zip(LABELS, labels, strict=True))
    )


def score_ranking(relevance):
    """The library's scores of rankings, bool [Q,G]: person 5 is asked for, 7 is another."""
    queries, gallery = relevance.shape
    found = [
        score(
            torch.arange(1.0, gallery + 1)[None],
            *[torch.tensor([n]) for n in (5, 1)],
            7 - 2 * row.long(),
            2 + 0 * row.long(),
        )
        for row in relevance
    ]
    return {k: sum(scores.rank(k) for scores in found) / queries for k in range(1, 6)}, found[0].mINP


def pairs(genuine, impostor):
    """The library's error rates of two lists of distances."""
    pids = torch.tensor([5] * len(genuine) + [7] * len(impostor))
    labels = dict(zip(LABELS, (torch.tensor([5]), torch.tensor([1]), pids, 0 * pids + 2), strict=True))
    return verify(torch.zeros(1, 1), torch.cat([genuine, impostor])[:, None], **labels)


def test_metrics():
    for (relevance, k), found in answers("01-1"):
        assert found.item() == pytest.approx(score_ranking(relevance)[0][k])
    for (relevance,), found in answers("01-2"):
        assert found.item() == pytest.approx(score_ranking(relevance[None])[1])
    for inputs, found in answers("01-3"):
        torch.testing.assert_close(found, pool_queries(*inputs, mode="mean", normalise=False)[0])
    for lists, found in answers("01-4", 20):
        assert found == pytest.approx(pairs(*lists).eer)
    for (genuine, impostor, budget), (_, share) in answers("01-5", 20):
        assert share == pytest.approx(pairs(genuine, impostor).tar_at((budget + 0.5) / len(impostor)))
    for inputs, (rank_one, mean) in answers("01-7"):
        scores = score(*inputs)
        assert (rank_one.item(), mean.item()) == pytest.approx((scores.rank(1), scores.mAP))


def test_broken_evaluators_say_what_the_notebook_prints():
    cells = nbformat.read(SOLUTIONS.parent / "01_retrieval_metrics.ipynb", as_version=4).cells
    (text,) = [cell.source for cell in cells if "Six broken evaluators" in cell.source]
    printed = re.findall(r"^\| (\d) \| .+ \| (\d) \| (0\.\d{3}|1\.000) \|$", text, re.M)
    task = exercise("01-8")
    (evaluators,) = task.inputs(torch.Generator().manual_seed(0))
    gallery = torch.tensor([[5, 1], [7, 1], [-1, 2], [-3, 3], [5, 2]])  # section 2's
    said = {}
    for number, evaluator in zip(task.solution(evaluators).tolist(), evaluators, strict=True):
        rank_one, ap = evaluator(torch.arange(1.0, 6)[None], torch.tensor([5]), torch.tensor([1]), *gallery.T)
        said[number] = (f"{rank_one:.0f}", f"{ap:.3f}")
    assert [(int(number), (rank_one, ap)) for number, rank_one, ap in printed] == sorted(said.items())
    assert len(said) == 7


def test_own_data():
    for (pictures, limit), found in answers("10-2"):
        near = (torch.cdist(pictures, pictures) < limit).tril(-1).any(1)  # as section 2 finds them
        assert torch.equal(found, near)
    for (right, pids, _), _ in answers("10-3"):
        draws = torch.randint(
            len(pids.unique()), (4000, len(pids.unique())), generator=torch.Generator().manual_seed(0)
        )
        ranks = torch.where(right, 1, 2)[:, None]
        scores = RetrievalScores(1.0 / ranks, ranks, 1.0 / ranks, "plain", "none", "euclidean", None, "valid", 5)
        found = exercise("10-3").solution(right, pids, draws).item()
        assert found == pytest.approx(scores.bootstrap(pids, repeats=4000)["rank-1"], rel=0.1)
    for (points,), found in answers("10-4", 20):
        torch.testing.assert_close(found.double(), torch.as_tensor(to_openpose(points.numpy())[1]).double())


def only(joints):
    """Key points of one image in which only these joints are seen, {joint: (x, y)}."""
    points = torch.tensor([poses.MISSING]).repeat(18, 1)
    for joint, place in joints.items():
        points[joint] = torch.tensor([*place, 1.0])
    return points[None]


def test_pose_pictures():
    for (x, y, height, width), found in answers("04-3", 10):
        picture = poses.skeleton_images(only({4: (x, y)}), (height, width))[0]
        assert torch.equal(found, picture.amax(0) > 0)
    for (a, b, height, width, radius), found in answers("04-6", 10):
        picture = poses.skeleton_images(only({3: a.tolist(), 4: b.tolist()}), (height, width), radius=radius)[0]
        discs = poses.skeleton_images(only({3: a.tolist()}), (height, width), radius=radius)[0].amax(0) > 0
        discs |= poses.skeleton_images(only({4: b.tolist()}), (height, width), radius=radius)[0].amax(0) > 0
        assert torch.equal(found & ~discs, (picture.amax(0) > 0) & ~discs)


def test_pn_gan():
    for inputs, found in answers("04-1"):
        assert torch.equal(found, same_identity_pairs(inputs[0], camids=inputs[1]))
    for inputs, found in answers("04-2", 20):
        assert found == pytest.approx(pn_gan.lr_factor(*inputs))
    for inputs, found in answers("04-4"):
        torch.testing.assert_close(found, experiments.fuse(*inputs))
    for (x, w1, w2), found in answers("04-5"):
        unit = ResidualUnit(x.shape[1], padding_mode="zeros", relu_after_sum=True)
        first, second = (layer for layer in unit.modules() if isinstance(layer, torch.nn.Conv2d))
        first.weight.data, second.weight.data = w1, w2
        torch.testing.assert_close(found, unit(x), rtol=1e-4, atol=1e-4)


def test_medoids_are_those_of_the_canonical_poses():
    places = torch.rand(30, 18, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([31.0, 63.0])
    keypoints = torch.cat([places, torch.ones(30, 18, 1)], dim=-1)
    images = torch.zeros(30, 3, 64, 32, dtype=torch.uint8)
    found = pn_gan.canonical_poses(PersonImages(images, [1] * 30, [1] * 30, keypoints=keypoints), 4)
    assert torch.equal(exercise("04-7").solution(found.features, found.clusters), found.rows)


def test_gradients_are_those_of_the_training_step():
    method = pn_gan.PNGAN(preset="smoke", foreground_weight=1.0)
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 2, 3, 64, 32), generator=g, dtype=torch.uint8)
    keypoints = torch.cat([torch.rand(2, 18, 2, generator=g) * 31, torch.ones(2, 18, 1)], dim=-1)
    batch = {"images": images[0], "target_images": images[1], "target_keypoints": keypoints}
    wanted = {}

    def update(name, loss):
        weights = list(getattr(method, name).parameters())
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        wanted[name] = torch.cat([gradient.flatten() for gradient in gradients])

    source, target = normalise(images[0], "signed"), normalise(images[1], "signed")
    pose = normalise(poses.skeleton_images(keypoints, (64, 32)), "signed")
    networks = copy.deepcopy((method.G, method.D))
    method.training_step(batch, 0, update)
    source = torch.cat([source, pose], dim=1)
    found = exercise("04-8").solution(*networks, source, target, method.settings["lambda_1"])
    torch.testing.assert_close(found, (wanted["G"], wanted["D"]))
