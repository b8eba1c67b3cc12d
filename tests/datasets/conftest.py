"""Small trees in Market-1501's layout, made for a test."""

import json
from pathlib import Path

import numpy as np
import pytest
from colours import colour_of
from PIL import Image

from reidlib.datasets import annotations

NAMES = {
    "bounding_box_train": [f"{pid:04d}_c{c}s1_{100 * pid + c:06d}_01.jpg" for pid in (2, 7, 10) for c in (1, 2)],
    "query": ["0001_c1s1_000101_00.jpg", "0003_c2s1_000302_00.jpg", "1488_c2s1_000311_00.jpg.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000111_01.jpg",
        "0000_c2s1_000211_01.jpg",
        "0001_c2s2_000120_01.jpg",
        "0003_c1s3_000301_01.jpg",
        "0003_c1s3_000305_02.jpg.jpg",
        "1488_c1s1_000313_01.jpg",
    ],
    "gt_bbox": [
        "0001_c1s1_000101_00.jpg",
        "0001_c1s1_000109_00.jpg",
        "0001_c2s1_000131_00.jpg",
        "0003_c2s1_000302_00.jpg",
    ],
}


class Tree:
    """A folder of small pictures that can be spoilt in one way or another."""

    def __init__(self, folder: Path, stored: tuple[int, int] = (128, 64)) -> None:
        self.folder, self.stored = folder, stored
        self.rng = np.random.default_rng(0)
        for sub, names in NAMES.items():
            (folder / sub).mkdir(parents=True)
            for name in names:
                self.add(sub, name)

    def add(self, sub: str, name: str) -> Path:
        """Write one smooth random picture."""
        small = self.rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize(self.stored[::-1], Image.Resampling.BICUBIC)
        picture.save(self.folder / sub / name, format="JPEG", quality=95)
        return self.folder / sub / name

    def annotate(self) -> None:
        """Add key points, masks and parsing for every picture: a rectangle of coat on the left half."""
        width = self.stored[1]
        mask = np.zeros(self.stored, np.uint8)
        mask[:, : width // 2] = 255
        for sub, names in NAMES.items():
            for name in names:
                annotations.write_mask(self.folder / f"{sub}_seg" / f"{annotations.bare_name(name)}.png", mask)
                annotations.write_mask(self.folder / f"{sub}_parsing" / f"{name}.png", mask // 255 * 7)
        for split in ("train", "test"):
            subs = [sub for sub in NAMES if (sub == "bounding_box_train") == (split == "train")]
            y, x = [10 + 5 * j for j in range(18)], [2 * j for j in range(18)]
            y[4] = -1
            lines = [f"{name}:{json.dumps(y)}:{json.dumps(x)}" for sub in subs for name in NAMES[sub]]
            text = "\n".join(["name:keypoints_y:keypoints_x", *dict.fromkeys(lines)])
            (self.folder / f"market-annotation-{split}.csv").write_text(text + "\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A complete little Market-1501 without annotations, in a folder whose path holds a space."""
    return Tree(tmp_path / "some data" / "market1501")


@pytest.fixture
def paint():
    """Write a smooth picture whose mean colour is its own, so that a mix-up of two files shows."""

    def _paint(path: Path, number: int, size: tuple[int, int] = (32, 16)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size[::-1], colour_of(number)).save(path, quality=98)
        return path

    return _paint
