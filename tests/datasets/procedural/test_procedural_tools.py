"""The commands around the renderer: contact sheets, baselines, the worker, the depth buffer by hand."""

import json
import shutil
import subprocess
import sys

import torch
from PIL import Image

from reidlib.datasets import load
from reidlib.datasets.procedural import draw, write
from reidlib.datasets.procedural.builder import OBJECT, Builder, join, limb_axes, to_view
from reidlib.datasets.procedural.draws import Draws
from reidlib.datasets.procedural.sheets import contact_sheets
from reidlib.files import REPOSITORY
from reidlib.tools.difficulty import baselines


def _scene(*balls):
    """One picture of 64 x 64 samples, 16 a metre, origin in the middle; a ball is (x, y, depth, radius)."""
    groups = []
    for x, y, depth, radius in balls:
        builder = Builder(1, torch.device("cpu"))
        centre = torch.tensor([[x, y, depth]])
        builder.ellipsoid(OBJECT, centre, limb_axes(torch.tensor([[0.0, 1.0, 0.0]])), (radius, radius, radius))
        zero = torch.zeros(1, dtype=torch.int64)
        groups.append(to_view(builder.stack(), torch.eye(3)[None], torch.zeros(1, 3), zero, zero - 1))
    frame = draw.Frame(torch.full((1, 2), 16.0), torch.full((1, 2), 32.0))
    return draw.rasterise(join(groups), frame, 1, 64, 64)[0]


def test_a_ball_covers_its_disc_and_its_front_is_a_radius_nearer():
    buffer = _scene((0.0, 0.0, 1.0, 1.0))
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    distance = ((x - 32).square() + (y - 32).square()).sqrt() / 16
    assert torch.equal(buffer != draw.FAR, distance < 1)
    inside = distance < 0.99
    expected = 1 - (1 - distance[inside].square()).sqrt()
    assert (draw.key_depth(buffer)[inside] - expected).abs().max() < 2e-3


def test_the_nearer_ball_wins_whatever_the_order():
    first = _scene((0.0, 0.0, 1.0, 0.8), (0.2, 0.0, 0.0, 0.3))
    second = _scene((0.2, 0.0, 0.0, 0.3), (0.0, 0.0, 1.0, 0.8))
    assert (first[32, 35] & 2047) == 1 and (second[32, 35] & 2047) == 0
    assert torch.equal(draw.key_depth(first), draw.key_depth(second))


def test_draws_are_even_and_their_own():
    draws = Draws("a b", [(1, index) for index in range(4000)])
    assert abs(draws["a"].mean() - 0.5) < 0.03
    assert abs(torch.corrcoef(torch.stack([draws["a"], draws["b"]]))[0, 1]) < 0.05
    picked = torch.bincount(draws.choice("a", [1.0, 0.0, 3.0]), minlength=3) / 4000
    assert picked[1] == 0 and abs(picked[2] - 0.75) < 0.03
    assert Draws("a", [(-1, 5)])["a"] == Draws("a", [(-1, 5)])["a"]


def test_contact_sheets_are_small_pictures(tmp_path):
    paths = contact_sheets(tmp_path, pids=range(1, 9))
    assert len(paths) == 7
    for path in paths:
        assert path.stat().st_size < 400_000
        with Image.open(path) as image:
            assert image.format == "JPEG" and image.width > 300


def test_baselines_name_their_features_and_stay_in_range(smoke_folder, tmp_path):
    bench = load("procedural", smoke_folder.parents[1], (64, 32), size="smoke", cache=tmp_path, progress=False)
    table = baselines(bench)
    assert table["feature"].tolist() == [
        "pixels", "histogram", "striped histogram, centre, grey world", "striped histogram, exact mask"
    ]  # fmt: skip
    assert table["rank-1"].between(0, 100).all() and table["mAP"].between(0, 100).all()
    assert table["mAP"].iloc[3] > table["mAP"].iloc[1], "masks tell more than the whole picture"


def test_the_worker_renders_its_share_and_sends_people_to_the_command(smoke_folder, tmp_path):
    settings = json.loads((smoke_folder / "settings.json").read_text())
    write.prepare(tmp_path, settings)
    for chunk in sorted((smoke_folder / ".chunks").iterdir())[:-1]:  # all but the last are done
        shutil.copy(chunk, tmp_path / ".chunks")
    count = len(list((smoke_folder / ".chunks").iterdir()))
    command = [sys.executable, "-m", "reidlib.datasets.procedural"]
    share = [str(tmp_path), str((count - 1) % 2), "2"]
    subprocess.run([*command, *share], cwd=REPOSITORY, check=True)
    assert len(list((tmp_path / ".chunks").iterdir())) == count
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert result.returncode == 2 and "folder, first, every" in result.stderr
    result = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert "reidlib render" in result.stdout
