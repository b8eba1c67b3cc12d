"""SAN on DeepFashion's own layout: a tiny tree of rendered outfits, read, paired, trained on and drawn."""

import json
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from reidlib.course.figures import to_pictures
from reidlib.datasets import extend, load
from reidlib.datasets.annotations import write_mask
from reidlib.datasets.procedural import studio
from reidlib.datasets.readers.deepfashion import pairs
from reidlib.files import REPOSITORY
from reidlib.generators.semantic_attention import BATCH, SAN, san_pairs
from reidlib.generators.synthesis import synthesise, train_generator


def wardrobe(root: Path, outfits: dict[str, range], views: int = 3) -> Path:
    """Write outfits as pictures and parse maps under DeepFashion's names; root/deepfashion is the data set."""
    for subset, numbers in outfits.items():
        people = studio(numbers, views)
        batch = people.batch(range(len(people)))
        (root / "deepfashion" / subset).mkdir(parents=True)
        (root / "deepfashion" / f"{subset}_parsing").mkdir()
        for i, (picture, labels) in enumerate(zip(to_pictures(batch["images"]), batch["parsing"], strict=True)):
            garment, outfit = divmod(int(people.pids[i]), 100)
            stem = f"fashionWOMENDressesid{garment:08d}{outfit:02d}_{i % views + 1}front"
            Image.fromarray(picture).save(root / "deepfashion" / subset / f"{stem}.jpg", quality=95)
            write_mask(root / "deepfashion" / f"{subset}_parsing" / f"{stem}.png", labels.numpy())
    return root


def read(root: Path, image_size: tuple[int, int] = (64, 64)):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*differs from the released DeepFashion")
        return load("deepfashion", root, image_size, cache=root / "cache", progress=False)


def test_pairs_of_one_outfit_train_and_draw(tmp_path):
    bench = read(wardrobe(tmp_path, {"train": range(1, 5), "test": range(5, 7)}))
    test = extend(bench.query, bench.gallery)
    assert bench.train.has("parsing") and set(bench.train.pids.tolist()).isdisjoint(test.pids.tolist())
    found = san_pairs(bench.train)
    assert len(found) == 4 * 3 * 2 and torch.equal(found, pairs(bench, "train")[1])
    assert torch.equal(found, san_pairs(bench.train, "same_camera"))  # it names no cameras
    build = partial(SAN, preset="smoke", dataset="deepfashion", use_perceptual=False, foreground_weight=1.0)
    options = dict(images_seen=16, batch_size=BATCH["deepfashion"], device="cpu", precision="fp32", progress=False)
    method, history = train_generator(build, bench.train, found, **options)
    assert history.steps == 2 and method.settings["image_size"] == (64, 64) and method.settings["beta"] == 1.0
    made = synthesise(method, test, san_pairs(test), targets=test)
    assert (
        made.images.shape == (2 * 3 * 2, 3, 64, 64) and made.pids.tolist() == test.pids[san_pairs(test)[:, 0]].tolist()
    )


@pytest.mark.filterwarnings("ignore:.*parsing cannot be used")
def test_an_outfit_without_a_parse_map_is_named(tmp_path):
    root = wardrobe(tmp_path, {"train": range(1, 3), "test": range(5, 6)})
    for file in (root / "deepfashion").glob("*_parsing/*"):
        file.unlink()
    with pytest.raises(ValueError, match="SAN needs parsing; this set has none"):
        san_pairs(read(root).train)


def test_notebook_06_runs_on_such_a_folder(tmp_path):
    """Sections 1 to 11, without judges, cameras and key points; Table 1 under the data set's own name."""
    root = wardrobe(tmp_path / "sets", {"train": range(1, 9), "test": range(11, 17)})
    given = dict(
        profile="smoke", dataset="deepfashion", data_root=root, image_size="64x64", output_root=tmp_path / "runs"
    )
    arguments = [word for name, value in given.items() for word in ("-p", name, str(value))]
    notebook = REPOSITORY / "notebooks" / "06_semantic_attention.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), "executed.ipynb", *arguments]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    (path,) = (tmp_path / "runs").glob("*/*/results.json")
    names = set(json.loads(path.read_text())["metrics"])
    assert "T1|deepfashion|pose_transfer|Our method/SSIM" in names and "pairs/SAN/SSIM" in names
    assert not any(name.startswith(("T2|", "leak/", "swap/")) for name in names)
