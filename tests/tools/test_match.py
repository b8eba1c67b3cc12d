"""`reidlib match`: the list by hand, what it refuses, what it says, and the fit of its threshold."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from reidlib.__main__ import main
from reidlib.datasets import Benchmark, PersonImages
from reidlib.embedders import Baseline
from reidlib.evaluators import Threshold
from reidlib.networks import save_weights
from reidlib.tools import match as tool

SIZE = (64, 32)


def red(images):
    """A feature that is the mean of the red channel, 0 to 1."""
    return images[:, :1].float().mean((2, 3)) / 255


TOY = tool.Network("redness", red, SIZE, rendered=False)
AT = Threshold(
    limit=0.2, wanted_far=0.01, far=0.01, tar=0.9, far_low=0.005, far_high=0.02, intercept=2.0, slope=10.0,
    distance="euclidean", n_people=20, n_genuine=100, n_impostor=2000, fitted_on="toys", network="redness",
)  # fmt: skip


def people(*values):
    images = torch.zeros(len(values), 3, *SIZE, dtype=torch.uint8)
    images[:, 0] = torch.tensor(values)[:, None, None]
    return PersonImages(images, [-2] * len(values), [-1] * len(values), names=[f"{v}.png" for v in values])


@pytest.fixture
def photographs(tmp_path):
    """Three files of noise, upright, each of another brightness."""
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(128, 64), (90, 40), (200, 100)]):
        pixels = rng.integers(80 * i, 80 * i + 90, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def test_the_list_by_hand():
    table = tool.match(people(100), people(255, 100, 140), TOY, AT)
    assert table["gallery picture"].tolist() == ["100.png", "140.png", "255.png"] and table["rank"].tolist() == [
        1,
        2,
        3,
    ]
    assert table["distance"].tolist() == pytest.approx([0, 40 / 255, 155 / 255], abs=1e-6)
    assert table["same"].tolist() == [True, True, False]
    assert table["probability"].tolist() == pytest.approx([1 / (1 + np.exp(10 * d - 2)) for d in table["distance"]])
    assert tool.match(people(100), people(100), TOY, AT, prior=0.1)["probability"][0] == pytest.approx(
        np.exp(2) / 9 / (1 + np.exp(2) / 9)
    )


def test_a_threshold_of_another_network_and_an_empty_side_are_refused():
    with pytest.raises(ValueError, match="fitted with redness, the pictures go through greenness"):
        tool.match(people(1), people(2), TOY._replace(name="greenness"), AT)
    with pytest.raises(ValueError, match="1 pictures against 0"):
        tool.match(people(1), people(2).select(indices=[]), TOY, AT)


def test_sheet_has_a_frame_for_each_verdict():
    asking, gallery = people(100, 0), people(255, 100, 140)
    figure = tool.contact_sheet(asking, gallery, tool.match(asking, gallery, TOY, AT), most=2)
    colours = [axis.spines["left"].get_edgecolor() for axis in figure.axes]
    hexes = ["#{:02x}{:02x}{:02x}".format(*(round(255 * c) for c in colour[:3])) for colour in colours]
    q, right, wrong = tool.figures.QUERY, tool.figures.RIGHT, tool.figures.WRONG
    assert hexes == [q, right, right, q, wrong, wrong]
    assert figure.axes[1].get_title() == "d 0.00\np 0.88"


def test_pictures_are_read_upright_with_their_names(photographs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = tool.read_pictures([photographs / "2.png", photographs], SIZE)  # a file, then a folder
    assert [name[-5:] for name in read.names] == ["2.png", "0.png", "1.png", "2.png"]
    assert read.image_size == SIZE and read.images.float().mean((1, 2, 3)).argsort().tolist()[:2] == [1, 2]


def test_what_is_no_crop_is_said(photographs):
    Image.open(photographs / "0.png").resize((64, 64)).save(photographs / "square.png")
    Image.open(photographs / "0.png").resize((16, 32)).save(photographs / "tiny.png")
    with pytest.warns(UserWarning, match=r"2 pictures .* square.png \(64x64\), tiny.png \(32x16\)"):
        tool.read_pictures([photographs], SIZE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: (f / "x.png").write_bytes((f / "0.png").read_bytes()[:400]), r"x\.png cannot be used"),
        (lambda f: (f / "x.png").write_text("no picture"), r"x\.png cannot be used: .* is none of JPEG"),
        (lambda f: Image.new("RGB", (64, 128), "grey").save(f / "x.png"), r"x\.png is of one colour"),
        (lambda f: (f / "x.png").mkdir(), r"x\.png holds no picture"),
    ],
)
def test_files_that_cannot_be_used(photographs, make, words):
    make(photographs)
    with pytest.raises(ValueError, match=words):
        tool.read_pictures([photographs / "x.png"], SIZE)
    with pytest.raises(FileNotFoundError, match=r"no picture .*nobody\.png"):
        tool.read_pictures([photographs / "nobody.png"], SIZE)


def test_a_detector_crops_to_the_person_or_finds_nobody(photographs):
    box = torch.tensor([[10.0, 20.0, 40.0, 100.0]])

    def detector(images):
        height, width = images[0].shape[1:]
        assert (height, width) == (128, 64) and images[0].max() <= 1
        return [{"boxes": box, "labels": torch.ones(1), "scores": torch.tensor([score])}]

    score = 0.9
    read = tool.read_pictures([photographs / "0.png"], SIZE, detector=detector)
    with Image.open(photographs / "0.png") as picture:
        crop = picture.crop((10, 20, 40, 100)).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read.images[0].permute(1, 2, 0), np.asarray(crop))
    score = 0.1
    with pytest.raises(ValueError, match=r"0\.png cannot be used: no person found in it"):
        tool.read_pictures([photographs / "0.png"], SIZE, detector=detector)


def test_own_weights_give_the_pooled_feature(tmp_path):
    method = Baseline(3, preset="smoke")
    images = torch.randint(0, 255, (4, 3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(method.embed(images))
    for network in (method.embedder, method.embedder.backbone):
        path = save_weights(network, tmp_path / "mine.safetensors", facts={"renderer_version": 3})
        loaded = tool.load_network(path, preset="smoke")
        assert (loaded.name, loaded.image_size, loaded.rendered) == ("mine.safetensors", SIZE, True)
        assert torch.allclose(loaded.embed(images), expected, atol=1e-4)  # the new neck does nothing yet
    save_weights(method.embedder, tmp_path / "mine.safetensors")
    assert not tool.load_network(tmp_path / "mine.safetensors", preset="smoke").rendered


def test_the_command_with_the_recorded_weights(photographs, capsys):
    """The whole way, on files: the list, the promise, and what the weights have never seen."""
    out = photographs / "out"
    files = [str(photographs / f"{i}.png") for i in range(3)]
    assert main(["match", *files, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "mind: these weights learnt from rendered people only" in said and "fitted on" in said
    assert re.search(r"if all 2 pictures show other people, at least one is taken .* with probability 0\.\d+ %", said)
    table = pd.read_csv(out / "match.csv")
    assert len(table) == 2 and set(table["gallery picture"]) == {*files[1:]} and (out / "match.png").is_file()
    assert [path.name for path in sorted(out.iterdir())] == ["match.csv", "match.png"]


def test_wrong_calls_are_one_line(photographs, tmp_path, capsys):
    one = str(photographs / "0.png")
    for words, said in (
        ([one], "1 pictures, 1 of them asking"),
        ([], "0 pictures"),
        ([one, one, "--threshold", str(tmp_path / "none.json")], "no threshold at"),
        ([one, str(tmp_path / "none.png")], "there is no picture"),
        ([one, one, "--weights", str(tmp_path / "none.safetensors")], "no weights at"),
    ):
        assert main(["match", *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error


def crowd(n_people=8):
    """A benchmark of people of one brightness each, in two cameras."""
    rng = np.random.default_rng(0)
    pids = np.repeat(np.arange(n_people), 4)
    pixels = (30 * pids[:, None, None, None] + rng.integers(0, 30, (len(pids), 3, *SIZE))).astype(np.uint8)
    everybody = PersonImages(torch.from_numpy(pixels), pids, np.tile([1, 1, 2, 2], n_people))
    return Benchmark("crowd", everybody.with_labels(pids=pids + 100), everybody, everybody)


def test_a_threshold_is_fitted_on_one_half_of_the_validation_people(tmp_path, capsys, monkeypatch):
    """It lies beside the weights; rendered people are those of the reserved seed."""
    asked = []
    monkeypatch.setattr(tool, "load", lambda *a, **o: asked.append((a, o)) or crowd())
    path = save_weights(Baseline(3, preset="smoke").embedder, tmp_path / "mine.safetensors")
    words = ["match", "--weights", str(path), "--preset", "smoke", "--far", "0.1", "--fit"]
    assert main([*words, "procedural"]) == 0
    threshold = Threshold.load(tmp_path / "mine.threshold.json")
    said = capsys.readouterr().out
    assert asked == [(("procedural", "data", SIZE), {"seed": 2})] and "seed 2" in threshold.fitted_on
    assert threshold.network == "mine.safetensors" and threshold.far <= 0.1
    assert (threshold.n_people, threshold.n_genuine, threshold.n_impostor) == (4, 4 * 8, 16 * 12)  # half of eight
    assert "on the other half: false accepts" in said and "Brier score" in said
    assert main([*words, "market1501"]) == 0  # four of its eight training people, of which two fit
    assert Threshold.load(tmp_path / "mine.threshold.json").n_people == 2
    assert "validation people of market1501" in Threshold.load(tmp_path / "mine.threshold.json").fitted_on
