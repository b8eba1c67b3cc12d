"""The command that makes recorded generators, on few people and few steps."""

import json

import matplotlib.pyplot as plt
import pytest

from reidlib.generators.recorded import load_generator
from reidlib.tools.swaps import recorded_dg_net
from reidlib.tools.train_generators import PLANS, draw_picture, make_generator


@pytest.mark.parametrize("name", ["pn_gan", "camera_transfer-3", "semantic_attention", "pose_attention"])
def test_makes_weights_and_says_how_good_they_are(name, tmp_path, monkeypatch):
    monkeypatch.setattr("reidlib.tools.train_generators.GUIDE_SEEN", 64)
    monkeypatch.setattr("reidlib.tools.train_generators.RUNS", tmp_path / "runs")
    options = dict(size="smoke", folder=tmp_path, images_seen=64, identities=9, evaluations=2, progress=False)
    options |= dict(switches={"lr": 5e-4})  # of the method, in place of the plan's or the preset's
    table = make_generator(name, **options)
    assert list(table.index) == ["32 pairs seen", "64 pairs seen", "copy of the source", "as stored"]
    assert table.loc["as stored", "FID"] == pytest.approx(table.loc["64 pairs seen", "FID"], rel=0.02)  # half precision
    assert table.loc["copy of the source", "FID"] != table.loc["as stored", "FID"]
    method, facts = load_generator(name, folder=tmp_path)
    assert method.settings["lr"] == 5e-4
    results = json.loads((tmp_path / f"{name}.results.json").read_text())
    assert facts["identities"] == results["parameters"]["identities"] == 9 and facts["seed"] == 3000
    assert results["parameters"]["command"] == f"reidlib generators {name} --identities 9 -p lr 0.0005"
    assert results["seconds"] > results["metrics"]["seconds of training"]["value"] > 0  # of the command, not its record
    stored = results["metrics"]["as stored/identity kept, rank-1"]["value"]
    assert stored == table.loc["as stored", "identity kept, rank-1"]
    assert (tmp_path / f"{name}.safetensors").stat().st_size < 3e6 and set(PLANS) >= {"pn_gan", "camera_transfer-4"}


def test_the_recorded_dg_net_is_judged_by_its_swaps(tmp_path, monkeypatch):
    monkeypatch.setattr("reidlib.tools.train_generators.RUNS", tmp_path / "runs")
    options = dict(size="smoke", folder=tmp_path, images_seen=32, identities=9, evaluations=1, progress=False)
    table = make_generator("dg_net", **options)
    copies = ["copy of the appearance image", "copy of the structure image"]
    assert list(table.index) == ["32 pairs seen", *copies, "as stored, reconstruction", "as stored"]
    assert table.loc[copies[0], "appearance first"] > 0.9 and table.loc[copies[1], "structure first"] > 0.9
    assert table.loc["as stored", "FID"] == pytest.approx(table.loc["32 pairs seen", "FID"], rel=0.02)
    method, facts = recorded_dg_net(folder=tmp_path)
    assert facts["identities"] == method.n_classes == 9 and method.settings["feed_generated"] is False
    assert (tmp_path / "dg_net.safetensors").stat().st_size < 3e6


def test_the_picture_shows_each_person_once_by_every_recorded_generator(tmp_path):
    figure = draw_picture(size="smoke", columns=3)
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert len(figure.axes) == 3 * len(labels) and len(set(labels)) == len(labels)
    assert {"moved to camera 6\n(camera transfer)", "parse map\nasked for", "drawn\n(SAN)"} < set(labels)
    assert labels[-1] == "photograph, in the\nnext one's clothes\n(DG-Net)"
    shown = [axis.images[0].get_array().tobytes() for axis in figure.axes]
    assert len(set(shown)) == len(shown)
    plt.close(figure)
    assert len(draw_picture(size="smoke", columns=3, folder=tmp_path).axes) == 3 * 2  # photographs alone
    plt.close("all")
