"""Swaps: the recorded DG-Net comes back, and drawings are judged by whose image is nearest."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.embedders import Baseline
from reidlib.generators.dg_net import DGNet
from reidlib.generators.recorded import save_generator
from reidlib.networks import save_weights
from reidlib.tools import train_generators
from reidlib.tools.swaps import judge_swaps, load_teacher, recorded_dg_net, save_teacher


def test_the_recorded_dg_net_draws_as_it_did(tmp_path):
    torch.manual_seed(0)
    encoder = Baseline(5, form="dg_net", start="none").embedder
    method = DGNet(encoder, encoder, preset="smoke", background="kept").eval()
    save_generator(method, tmp_path / "mine.safetensors", identities=5, images_seen=8)
    again, facts = recorded_dg_net("mine", folder=tmp_path)
    assert facts["images_seen"] == 8 and again.settings["background"] == "kept" and not again.training
    for weight in method.parameters():  # as stored: rounded to half precision
        weight.data = weight.data.half().float()
    condition = torch.cat([torch.rand(2, 3, 64, 32) * 2 - 1, torch.rand(2, 1, 64, 32)], 1)
    images = torch.rand(2, 3, 64, 32) * 2 - 1
    assert torch.allclose(again.generate(images, condition), method.generate(images, condition), atol=1e-3)


def test_a_teacher_comes_back_to_its_own_people_alone(tmp_path):
    def people(*pids):
        return PersonImages(torch.zeros(len(pids), 3, 64, 32, dtype=torch.uint8), pids, [1] * len(pids))

    torch.manual_seed(0)
    options = dict(preset="smoke", start="none", image_size=(64, 32))
    teacher = Baseline(3, form="dg_net_teacher", **options)
    file = save_teacher(teacher, tmp_path / "teacher.safetensors", people(7, 2, 2, 5, -1))
    again = load_teacher(file, people(5, 2, 7), **options).embedder.state_dict()
    for name, weight in teacher.embedder.state_dict().items():
        torch.testing.assert_close(again[name], weight, atol=1e-3, rtol=1e-3)
    for pids, shared in (((2, 5, 8), "2 of them among the set's 3"), ((2, 5), "2 of them among the set's 2")):
        with pytest.raises(ValueError, match=f"a teacher of 3 identities, {shared}: train one"):
            load_teacher(file, people(*pids), **options)
    save_weights(teacher.embedder, tmp_path / "plain.safetensors")  # of people who are not known
    with pytest.raises(ValueError, match="a teacher of 0 identities"):
        load_teacher(tmp_path / "plain.safetensors", people(2, 5, 7), **options)
    with pytest.raises(FileNotFoundError):
        load_teacher(tmp_path / "none.safetensors", people(2, 5, 7), **options)


def test_the_recorded_plan_trains_a_teacher_and_the_encoder_first(monkeypatch):
    """The teacher sees every image twice, E_a 60,000; both are told to DG-Net as networks of these people."""
    seen, given = {}, {}

    def train_baseline(people, *, images_seen, form, **_):
        seen[form] = images_seen
        return SimpleNamespace(embedder=form), None

    monkeypatch.setattr(train_generators, "train_baseline", train_baseline)
    monkeypatch.setattr(train_generators, "train_dg_net", lambda *names, **options: given.update(options, names=names))
    people = PersonImages(torch.zeros(11_520, 3, 4, 4, dtype=torch.uint8), torch.arange(11_520) // 24, [1] * 11_520)
    plan = train_generators.PLANS["dg_net"]
    plan.train(people, plan.images_seen, {"lambda_id": 0.5})
    assert seen == {"dg_net_teacher": 2 * 11_520, "dg_net": 60_000}
    assert given["names"][1:3] == ("dg_net", "dg_net_teacher") and given["names"][3] is people.pids
    assert given["images_seen"] == 16_000 and given["code_gradient"] and given["lambda_id"] == 0.5  # what is asked for


class Shade(nn.Module):
    """Draws everything in one grey level, or hands out one of its two images."""

    def __init__(self, level=None, structure=False):
        super().__init__()
        self.level, self.structure = level, structure

    def condition(self, targets, sources=None):
        return targets["images"].float() / 127.5 - 1

    def generate(self, images, condition):
        return (
            torch.full_like(images, self.level / 127.5 - 1) if self.level else condition if self.structure else images
        )


def test_swaps_are_judged_by_whose_image_is_nearest_beside_their_sources():
    """By mean colour: the two images that a picture was made of are left out, whichever of them is nearest."""
    levels, pids = [100, 104, 200, 206, 30, 150], [1, 1, 2, 2, 3, 4]
    images = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 4).contiguous()
    keypoints = torch.zeros(6, 18, 3)
    keypoints[:, 0] = torch.tensor([2.0, 4.0, 1.0])
    masks = torch.zeros(6, 8, 4, dtype=torch.uint8)
    masks[:, :4] = 255
    shown = PersonImages(images, pids, [1, 2, 1, 2, 1, 2], keypoints=keypoints, masks=masks)
    judges = SimpleNamespace(
        embed=lambda images: images.float().mean((2, 3)),
        looks=lambda images: images.float().mean((2, 3)),
        keypoints=lambda images: torch.full((len(images), 18, 2), 4.0) - torch.tensor([2.0, 0.0]),
    )
    pairs = torch.tensor([[0, 2], [2, 0], [1, 3], [0, 4]])
    methods = {"source": Shade(), "structure": Shade(structure=True), "dark": Shade(31), "between": Shade(103)}
    table = judge_swaps(methods, shown, pairs, judges=judges)
    rows = [name for method in methods for name in (f"{method}, reconstruction", method)]
    assert list(table.index) == ["copy of the appearance image", "copy of the structure image", *rows]
    firsts = table[["appearance first", "structure first"]]
    assert firsts.loc["source"].tolist() == firsts.iloc[0].tolist() == [1, 0]
    assert firsts.loc["structure"].tolist() == firsts.iloc[1].tolist() == [0.25, 0.75]  # person 3 has one image
    assert firsts.loc["dark"].tolist() == [0.25, 0]  # nearest is person 3; where that is left out, person 1
    assert firsts.loc["between"].tolist() == [0.75, 0.25]
    assert firsts.loc["structure, reconstruction"].tolist() == firsts.iloc[1].tolist()
    assert table.loc["source, reconstruction"].equals(table.loc["copy of the structure image"])
    assert (table["PCK@0.1"] == 1).all() and table.notna().all(axis=None)
