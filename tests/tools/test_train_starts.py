"""The command that makes the starts: whose people, whose labels, what is written."""

import json

import pytest
import torch

from reidlib.__main__ import main
from reidlib.datasets import Benchmark, PersonImages
from reidlib.embedders import Baseline, starts
from reidlib.networks import load_weights, read_weights
from reidlib.tools import train_starts


@pytest.fixture
def asked(monkeypatch):
    """Two people in two cameras, instead of rendering; the test people are coloured as their number."""
    calls = []

    def load(name, **options):
        calls.append(options)
        pids, camids = torch.tensor([1, 1, 1, 1, 2, 2, 2, 2] * 4), torch.tensor([1, 1, 2, 2] * 8)
        pixels = (60 * pids)[:, None, None, None].expand(-1, 3, *options["image_size"]).to(torch.uint8).contiguous()
        images = PersonImages(pixels, pids, camids)
        return Benchmark(name, images, images.select(camids=1), images.select(camids=2))

    monkeypatch.setattr(train_starts, "load", load)
    return calls


def test_no_label_links_two_cameras():
    pids = torch.tensor([7, 3, 7, -1, 3, 7, 7, -2])
    camids = torch.tensor([2, 1, 1, 1, 2, 2, 9, 1])
    images = PersonImages(torch.zeros(8, 3, 8, 4, dtype=torch.uint8), pids, camids)
    split = train_starts.split_labels(images)
    assert len(split) == 6 and split.pids.unique().tolist() == [0, 1, 2, 3, 4]
    for label in split.pids.unique():
        assert len(split.camids[split.pids == label].unique()) == 1
    first, second = (split.pids[[names in ("000000", "000005")[i : i + 1] for names in split.names]] for i in (0, 1))
    assert first.equal(second)  # one person in one camera stays one


def test_every_recorded_file_is_made(asked, tmp_path, capsys):
    words = ["starts", "--folder", str(tmp_path), "--images-seen", "64", "--size", "smoke"]
    assert main([*words, "--only", "start-1", "start-2"]) == 0
    assert main([*words, "--only", "start-128x64", "--image-size", "32", "16"]) == 0
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {*starts.RECORDED.values(), "starts.results.json"}
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 3_000_000
    assert "100.0 % mAP  start-1, reserved1, retrieval" in capsys.readouterr().out
    seen = [(o["seed"], o["network"], o["scene"], o["image_size"]) for o in asked]
    sets = [("reserved1", "retrieval"), ("reserved2", "generation")]
    sizes = {"start-1": (64, 32), "start-2": (64, 32), "start-128x64": (32, 16)}
    people = {"start-1": 2000, "start-2": 2001, "start-128x64": 2000}
    assert seen == [(people[n], *one, sizes[n]) for n in people for one in sets]
    results = json.loads((tmp_path / "starts.results.json").read_text(encoding="utf-8"))
    facts = results["parameters"]["starts"]
    # 2 people x 2 cameras in each of two sets
    assert {name: (f["classes"], f["images"], f["images_seen"], f["seed"]) for name, f in facts.items()} == {
        "start-1": (8, 64, 64, 0), "start-2": (8, 64, 64, 1), "start-128x64": (8, 64, 64, 0),
    }  # fmt: skip
    assert all(f["commit"] and f["renderer_version"] and f["recipe"] == "scratch" for f in facts.values())
    assert len(results["metrics"]) == 6
    assert results["metrics"]["start-2/reserved2, generation/mAP"]["value"] == 1


def test_what_is_written_is_the_trained_backbone(asked, tmp_path, monkeypatch):
    kept = []

    def train(*arguments, **options):
        kept.append(original(*arguments, **options))
        return kept[-1]

    original = train_starts.train_baseline
    monkeypatch.setattr(train_starts, "train_baseline", train)
    options = dict(folder=tmp_path, size="smoke", images_seen=64, image_size=(32, 16), progress=False)
    train_starts.make_start("start-2", **options)
    trained = kept[0][0].embedder.backbone.state_dict()
    stored = read_weights(tmp_path / "start-2.safetensors")
    assert all(
        torch.equal(value.half() if value.is_floating_point() else value, stored[n]) for n, value in trained.items()
    )
    loaded = Baseline(2, start=tmp_path / "start-2.safetensors")
    assert loaded.weights_source == "start-2.safetensors"
    facts = load_weights(loaded.embedder.backbone, tmp_path / "start-2.safetensors")
    assert facts["command"] == "reidlib starts --only start-2" and facts["networks"] == train_starts.SCENES
    # other people, other starts: the training's seed and its people differ
    train_starts.make_start("start-1", **options)
    assert not torch.equal(read_weights(tmp_path / "start-1.safetensors")["stem.0.weight"], stored["stem.0.weight"])


def test_wrong_requests_are_named(capsys):
    assert main(["starts", "--only", "start-9"]) == 2
    assert "--only must be one of 'start-1', 'start-2', 'start-128x64'; got 'start-9'" in capsys.readouterr().err
    assert main(["starts", "--image-size", "0", "16"]) == 2
    with pytest.raises(ValueError, match="name must be one of 'start-1'"):
        train_starts.make_start("start-9")
