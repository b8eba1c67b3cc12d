"""Recorded generators: what is written draws the same pictures when it is read again."""

import pytest
import torch

from reidlib.generators import recorded
from reidlib.generators.camera_transfer import CameraTransfer
from reidlib.generators.dcgan import DCGAN
from reidlib.generators.pn_gan import PNGAN
from reidlib.generators.recorded import load_generator, load_recorded, save_generator

METHODS = {
    "pn_gan": (lambda: PNGAN(preset="smoke", width=8, units=3, lambda_1=7.0), 3),
    "model 2": (lambda: CameraTransfer(model=2, preset="smoke", width=8), 1),
    "model 4": (lambda: CameraTransfer(model=4, preset="smoke", width=8), 0),
}


@pytest.mark.parametrize("name", METHODS)
def test_draws_the_same_after_reading(name, tmp_path):
    build, planes = METHODS[name]
    torch.manual_seed(3)
    method = build()
    path = save_generator(method, tmp_path / "mine.safetensors", images_seen=12)
    state = torch.random.get_rng_state()
    again, facts = load_generator("mine", folder=tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    images = torch.rand(2, 3, 64, 32) * 2 - 1
    condition = torch.rand(2, planes, 64, 32) * 2 - 1 if planes else None
    for weight in method.parameters():  # as stored: rounded to half precision
        weight.data = weight.data.half().float()
    assert torch.equal(again.generate(images, condition), method.generate(images, condition))
    assert facts["images_seen"] == 12 and again.settings == method.settings and not again.training
    assert path.stat().st_size < 2.2 * sum(w.numel() for w in method.G.parameters()) + 20_000  # without D


def test_says_what_is_there_and_what_is_taken(tmp_path):
    save_generator(PNGAN(preset="smoke"), tmp_path / "one.safetensors")
    with pytest.raises(FileNotFoundError, match=r"two\.safetensors; recorded in .*: one"):
        load_generator("two", folder=tmp_path)
    with pytest.raises(ValueError, match=r"generator must be one of .*PNGAN.*got 'DCGAN'"):
        save_generator(DCGAN(preset="smoke"), tmp_path / "three.safetensors")
    with pytest.raises(ValueError, match=r"the class of .*got None"):
        load_generator("judges-pose")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.safetensors"]


def test_of_several_names_those_that_are_there_are_loaded(tmp_path):
    for model in (1, 4):
        save_generator(CameraTransfer(model=model, preset="smoke"), tmp_path / f"transfer-{model}.safetensors")
    found = load_recorded([f"transfer-{model}" for model in (4, 3, 1)], folder=tmp_path)
    assert {name: method.model for name, method in found.items()} == {"transfer-4": 4, "transfer-1": 1}


def test_a_part_that_its_class_needs_is_named():
    with pytest.raises(ValueError, match=r"dg_net.safetensors holds a DGNet, which is loaded with encoder="):
        load_recorded(["dg_net"])


def test_every_class_is_where_the_table_says():
    for name, module in recorded.MODULES.items():
        assert hasattr(__import__(f"reidlib.generators.{module}", fromlist=[name]), name)
