"""The background test: what each network is trained and tested on, and that every pair is scored."""

import pytest
import torch
from torch import nn

from reidlib.datasets import Benchmark, PersonImages, backgrounds
from reidlib.tools import crosswise
from reidlib.tools.crosswise import TESTED, TRAINED, with_background


def people(seed: int, n: int = 12) -> PersonImages:
    """Noise before noise: the person is a bar in the middle, and camera 1 is brighter than camera 2."""
    g = torch.Generator().manual_seed(seed)
    camids = torch.arange(n) % 2 + 1
    images = torch.randint(128, (n, 3, 16, 8), generator=g) + 128 * (camids[:, None, None, None] == 1)
    masks = torch.zeros(n, 16, 8, dtype=torch.uint8)
    masks[:, :, 3:5] = 255
    return PersonImages(images.to(torch.uint8), torch.arange(n) // 4, camids, masks=masks)


class Colours(nn.Module):
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))


def test_backgrounds_change_and_people_stay():
    train, test = people(0), people(1, 40)
    images = {kind: with_background(test, kind, train, 2, 5).images for kind in TRAINED}
    assert torch.equal(images["original"], test.images)
    for kind in TRAINED:
        assert torch.equal(images[kind][..., 3:5], test.images[..., 3:5])
    mean = backgrounds.mean_background(train).round().to(torch.uint8)
    assert torch.equal(images["mean"][7, ..., :3], mean[..., :3])
    scenes = {kind: images[kind][..., :3] for kind in ("random", "paste")}
    for kind, sources in (("random", train), ("paste", train.select(camids=2))):
        found = (scenes[kind][:, None] == sources.images[None, ..., :3]).flatten(2).all(2)
        assert found.any(1).all() and found.any(0).all()  # each is a scene of theirs, and each of them occurs
    assert not torch.equal(scenes["random"], with_background(test, "random", train, 2, 6).images[..., :3])
    with pytest.raises(ValueError, match="grey"):
        with_background(test, "grey", train, 2, 5)


def test_every_network_is_tested_on_every_background(monkeypatch):
    train, query, gallery = people(0), people(1), people(2)
    bench = Benchmark("noise", train, query, gallery)
    trained = []

    def train_baseline(images, **options):
        assert options == {"images_seen": 64}
        trained.append(images)
        return Colours(), None

    monkeypatch.setattr(crosswise, "train_baseline", train_baseline)
    scores = crosswise.crosswise(bench, 2, images_seen=64)
    assert list(scores) == list(TRAINED) and all(list(line) == list(TESTED) for line in scores.values())
    for images, kind in zip(trained, TRAINED, strict=True):
        assert torch.equal(images.images, with_background(train, kind, train, 2, 3).images)
    by_test = {name: score.mAP for name, score in scores["original"].items()}
    assert by_test == {name: score.mAP for name, score in scores["paste"].items()}  # one and the same network here
    assert by_test["mean"] != by_test["random"] != by_test["original"]
