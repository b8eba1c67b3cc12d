"""Rivals: each is trained for a step or two and draws what it is asked for."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from reidlib.datasets import PersonImages, poses
from reidlib.generators.cyclegan import CycleGAN
from reidlib.generators.dcgan import DCGAN
from reidlib.networks import normalise
from reidlib.tools import rivals
from reidlib.tools.rivals import camstyle_images, draw_rivals, train_dcgan


def people(keypoints: bool) -> PersonImages:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (16, 3, 64, 32), generator=g, dtype=torch.uint8)
    joints = torch.cat([torch.rand(16, 18, 2, generator=g) * 31, torch.ones(16, 18, 1)], -1) if keypoints else None
    pids, camids = torch.arange(16) // 4, torch.arange(16) % 2 + 5
    return PersonImages(images, pids, camids, sequences=torch.zeros(16, dtype=torch.int64), keypoints=joints)


def test_every_rival_draws_every_source(monkeypatch):
    train, rows = people(True), torch.tensor([0, 4, 8])
    guide = dict(images_seen=16, loss="softmax", start="none")
    judged = []
    monkeypatch.setattr(rivals, "judge_rivals", lambda *what: judged.append(what) or pd.DataFrame([1]))
    options = dict(images_seen=16, guide=guide, preset="smoke")
    drawn, table = draw_rivals(train, (5, 6), rows, judges="judges", **options)
    names = ["CycleGAN", "CamStyle", "SPGAN", "pose transfer, no guide", "pose transfer, guided"]
    assert list(drawn) == ["source", "pose asked for", *names] and len(table) == 1
    assert torch.equal(drawn["source"], train.images[rows])
    ((made, asked, of, judges, camera),) = judged
    assert of is train and judges == "judges" and camera == 6 and list(made) == names
    assert torch.equal(asked[:, 0], rows) and set(train.camids[asked[:, 1]].tolist()) == {6}
    assert torch.equal(drawn["pose asked for"], poses.skeleton_images(train.keypoints[asked[:, 1]], (64, 32)))
    for name, images in made.items():
        assert images.pids.tolist() == [0, 1, 2] and images.camids.tolist() == [6] * 3
        assert torch.equal(images.images, drawn[name])
    pictures = torch.stack([drawn[name] for name in ("source", *names)])
    assert pictures.shape == (6, 3, 3, 64, 32)
    assert len(pictures.flatten(1).unique(dim=0)) == 6  # no two the same


def test_without_key_points_there_are_no_poses_and_without_judges_no_table():
    drawn, table = draw_rivals(people(False), (5, 6), torch.tensor([2]), images_seen=16, guide={}, preset="smoke")
    assert list(drawn) == ["source", "CycleGAN", "CamStyle", "SPGAN"] and table.empty


def test_a_rival_beats_copy_at_its_own_task_alone(monkeypatch):
    style = {"copy": 0.1, "CycleGAN": 0.1, "SPGAN": 0.2, "copy, another pose": 0.9, "pose transfer, guided": 0.5}
    pck = {"copy": 0.9, "CycleGAN": 1.0, "SPGAN": 0.5, "copy, another pose": 0.4, "pose transfer, guided": 0.5}
    train, asked, calls = people(True), torch.tensor([[0, 1], [4, 3]]), {}

    def measure(images, sources, pairs=None, *, name, targets=None, **options):
        calls[name] = (
            images.pids.tolist(),
            sources.pids[[0, 1]].tolist() if pairs is None else pairs.tolist(),
            targets,
        )
        assert options["camera"] == 6 and (options["real"].camids == 6).all() and options["gallery"] is train
        assert options["source_rows"].tolist() == [0, 4]
        return pd.DataFrame({name: {"PCK@0.1": pck[name], "camera style": style[name]}}).T

    monkeypatch.setattr(rivals, "judge_generator", measure)
    drawn = {name: train.select(indices=[0, 4]) for name in style if "copy" not in name}
    table = rivals.judge_rivals(drawn, asked, train, None, 6)
    assert table["beats copy"].to_dict() == {
        "copy": None, "CycleGAN": False, "SPGAN": True, "copy, another pose": None, "pose transfer, guided": True
    }  # fmt: skip
    assert calls["copy"] == ([0, 1], [0, 1], None) and calls["copy, another pose"] == ([0, 1], asked.tolist(), train)
    del drawn["pose transfer, guided"]
    assert list(rivals.judge_rivals(drawn, asked, train, None, 6).index) == ["copy", "CycleGAN", "SPGAN"]


def test_a_dcgan_is_judged_beside_photographs_and_its_own_first_weights():
    g = torch.Generator().manual_seed(1)
    train = PersonImages(torch.randint(100, 110, (40, 3, 64, 32), generator=g, dtype=torch.uint8), [1] * 40, [1] * 40)
    judges = SimpleNamespace(looks=lambda images: images.float().mean((2, 3)))  # mean colour
    dcgan = DCGAN(preset="smoke")
    dcgan.sample = lambda n, seed: torch.full((n, 3, 64, 32), 120, dtype=torch.uint8)
    found = rivals.judge_dcgan(dcgan, train, judges, n=12)
    assert list(found.index) == ["copy", "DCGAN", "untrained"]
    assert found["copy"] < 1 and found["DCGAN"] == pytest.approx(3 * 15.5**2, rel=0.01)  # three channels, 104.5 to 120
    assert found.equals(rivals.judge_dcgan(dcgan, train, judges, n=12))
    dcgan.sample = lambda n, seed: pytest.fail(f"{n} images") if n != 20 else train.images[:20]
    rivals.judge_dcgan(dcgan, train, judges)  # at most half of the photographs


def test_a_dcgan_learns_from_single_images():
    train = people(False)
    (first, history), (second, _) = (train_dcgan(train, preset="smoke", images_seen=n, seed=3) for n in (64, 16))
    assert (history.images, history.steps) == (64, 4)  # batches of all 16
    assert first.sample(2, seed=0).shape == (2, 3, 64, 32)
    assert not torch.equal(first.sample(2, seed=0), second.sample(2, seed=0))


def test_camstyle_moves_every_image_to_every_other_camera(tmp_path):
    images = torch.randint(0, 256, (12, 3, 24, 24), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    pids, camids = torch.arange(12) // 3 + 1, torch.arange(12) % 3 + 1  # three cameras, four images each
    train = PersonImages(images, pids, camids)
    torch.manual_seed(0)
    gans = [CycleGAN(preset="smoke", image_size=(24, 24), cameras=pair) for pair in ((2, 1), (1, 3), (2, 3))]
    fakes = camstyle_images(gans, train, folder=tmp_path, batch_size=5)
    assert len(fakes) == 12 * 2 and fakes.is_generated.all()
    seen = set()
    for i, (name, there) in enumerate(zip(fakes.info["source"], fakes.camids.tolist(), strict=True)):
        row = train.names.index(name)
        here = int(train.camids[row])
        assert here != there and fakes.pids[i] == train.pids[row]
        seen.add((name, there))
        if i % 5 == 0:  # made by the right generator, in the right direction
            gan = next(g for g in gans if set(g.cameras) == {here, there})
            net = gan.G_A if gan.cameras[0] == here else gan.G_B
            with torch.no_grad():
                want = net(normalise(train.images[row][None], "signed"))
            assert F.l1_loss(normalise(fakes.images[i][None], "signed"), want) < 0.005
    assert len(seen) == 24
    with pytest.raises(ValueError, match=r"camera pairs \[\(1, 2\), \(1, 3\), \(2, 3\)\]"):
        camstyle_images(gans[:2], train)
