"""Rivals: each is trained for a step or two and draws what it is asked for."""

import torch

from reidlib.datasets import PersonImages, poses
from reidlib.tools.rivals import draw_rivals, train_dcgan


def people(keypoints: bool) -> PersonImages:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (16, 3, 64, 32), generator=g, dtype=torch.uint8)
    joints = torch.cat([torch.rand(16, 18, 2, generator=g) * 31, torch.ones(16, 18, 1)], -1) if keypoints else None
    pids, camids = torch.arange(16) // 4, torch.arange(16) % 2 + 5
    return PersonImages(images, pids, camids, sequences=torch.zeros(16, dtype=torch.int64), keypoints=joints)


def test_every_rival_draws_every_source():
    train, rows = people(True), torch.tensor([0, 4, 8])
    guide = dict(images_seen=16, loss="softmax", start="none")
    drawn = draw_rivals(train, (5, 6), rows, images_seen=16, guide=guide, preset="smoke")
    rivals = ["CycleGAN", "SPGAN", "pose transfer, no guide", "pose transfer, guided"]
    assert list(drawn) == ["source", "pose asked for", *rivals]
    assert torch.equal(drawn["source"], train.images[rows])
    of_six = poses.skeleton_images(train.keypoints[train.camids == 6], (64, 32))
    assert (drawn["pose asked for"][:, None] == of_six).flatten(2).all(2).any(1).all()
    pictures = torch.stack([drawn[name] for name in ("source", *rivals)])
    assert pictures.shape == (5, 3, 3, 64, 32)
    assert len(pictures.flatten(1).unique(dim=0)) == 5  # no two the same


def test_without_key_points_there_are_no_poses():
    drawn = draw_rivals(people(False), (5, 6), torch.tensor([2]), images_seen=16, guide={}, preset="smoke")
    assert list(drawn) == ["source", "CycleGAN", "SPGAN"]


def test_a_dcgan_learns_from_single_images():
    train = people(False)
    (first, history), (second, _) = (train_dcgan(train, preset="smoke", images_seen=n, seed=3) for n in (64, 16))
    assert (history.images, history.steps) == (64, 4)  # batches of all 16
    assert first.sample(2, seed=0).shape == (2, 3, 64, 32)
    assert not torch.equal(first.sample(2, seed=0), second.sample(2, seed=0))
