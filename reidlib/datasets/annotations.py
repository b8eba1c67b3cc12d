"""What is known about person images, in files: key points (CSV), masks (PNG), LIP parsing (PNG), truth (CSV).

All are read; key points and masks, which `reidlib annotate` makes, are written too. The file formats are those that
public person re-ID work uses, so rendered and real data go through the same readers.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from reidlib.datasets.pictures import SUFFIXES, open_picture, upright
from reidlib.datasets.poses import MISSING
from reidlib.files import atomic_path

LIP_LABELS = (
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
)  # fmt: skip
# RGB of each class in colour pictures of LIP; other tools have the palette `lip_palette` instead
LIP_COLOURS = (
    (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85), (0, 119, 221),
    (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 255), (51, 170, 221), (0, 255, 255),
    (85, 255, 170), (170, 255, 85), (255, 255, 0), (255, 170, 0),
)  # fmt: skip
# endings of the folders that hold annotations, not photographs
BESIDE = {"openpose": "_keypoints", "masks": "_seg", "parsing": "_parsing"}
OPENPOSE_ENDING = "_keypoints.json"
# label of each LIP class in a mirrored picture: arms, legs and shoes change sides
LIP_FLIPPED = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 14, 17, 16, 19, 18)
# place of each of our 18 joints in OpenPose's BODY_25 model, which has the middle of the hips at 8 and feet at the end
BODY_25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)


def read_text(path: str | os.PathLike) -> str:
    """Read a text file in UTF-8, with or without a mark at its start; else raise ValueError naming the file."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error


def read_keypoints(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a ':'-separated key-point file `name:keypoints_y:keypoints_x` (JSON lists of 18 numbers, -1 = missing).

    Returns:
        float32 [18,3] (x, y, visible) for each name, in pixels of the stored image; missing = (-1, -1, 0).

    Raises:
        ValueError: on another header or on lists that do not hold 18 numbers, with file and line.
    """
    out = {}
    rows = csv.reader(io.StringIO(read_text(path)), delimiter=":")
    header = next(rows, None)
    if header != ["name", "keypoints_y", "keypoints_x"]:
        raise ValueError(f"{path} must start with the header name:keypoints_y:keypoints_x, got {header}")
    for line, row in enumerate(rows, start=2):
        try:
            name, y, x = row[0], json.loads(row[1]), json.loads(row[2])
            points = np.array([x, y, np.ones(18)], dtype=np.float32).T  # [18,3]
            _check_finite(points)
        except (IndexError, ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {line}: two JSON lists of 18 numbers (-1: missing) expected, got {row}"
            ) from error
        points[(points[:, :2] == -1).any(axis=1)] = MISSING  # -1 in either coordinate
        out[name] = points
    return out


def read_openpose(path: str | os.PathLike, *, centre: tuple[float, float]) -> np.ndarray:
    """Read the joints of one person from OpenPose's JSON: 18 joints (COCO model) or 25 (BODY_25).

    A crop often shows a part of somebody else. The person taken is the one with most joints found; among equals the one
    whose joints' mean lies nearest `centre`; among those the first in the file.

    Args:
        path: the file that OpenPose writes for one image.
        centre: (x, y) of the image's centre in pixels.

    Returns:
        float32 [18,3] (x, y, visible) in pixels of the stored image; missing = (-1, -1, 0), for which OpenPose writes
        confidence 0. All missing where the file lists nobody.

    Raises:
        ValueError: not such a file, or a person with another number of joints.
    """
    try:
        people = [
            np.array(person.get("pose_keypoints_2d", person.get("pose_keypoints")), np.float32).reshape(-1, 3)
            for person in json.loads(read_text(path))["people"]
        ]
        _check_finite(*people)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'{path} is not OpenPose\'s JSON: {{"people": [{{"pose_keypoints_2d": [x, y, confidence, ...]}}]}} expected'
        ) from error
    candidates = []
    for joints in people:
        if len(joints) not in (18, 25):
            raise ValueError(f"{path}: 18 joints (COCO) or 25 (BODY_25) expected, got {len(joints)}")
        points = joints[list(BODY_25)] if len(joints) == 25 else joints.copy()
        found = points[:, 2] > 0
        if found.any():
            away = float(np.linalg.norm(points[found, :2].mean(0) - centre))
            points[:, 2] = found
            points[~found] = MISSING
            candidates.append((int(found.sum()), -away, points))
    return max(candidates, key=lambda c: c[:2])[2] if candidates else np.full((18, 3), MISSING, np.float32)


def write_keypoints(path: str | os.PathLike, names: Sequence[str], keypoints: np.ndarray) -> None:
    """Write key points [N,18,3] (x, y, visible) in the format of `read_keypoints`, rounded to whole pixels.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> points = np.full((1, 18, 3), 5.0); points[0, 0] = (-1, -1, 0)
    >>> write_keypoints(Path(folder.name) / "points.csv", ["0002_c1s1_000451_03.jpg"], points)
    >>> read_keypoints(Path(folder.name) / "points.csv")["0002_c1s1_000451_03.jpg"][:2].tolist()
    [[-1.0, -1.0, 0.0], [5.0, 5.0, 1.0]]
    >>> folder.cleanup()
    """
    keypoints = np.asarray(keypoints)
    if keypoints.shape != (len(names), 18, 3):
        raise ValueError(f"keypoints must be [{len(names)}, 18, 3] for {len(names)} names, got {keypoints.shape}")
    whole = np.rint(keypoints[..., :2]).astype(int)
    whole[keypoints[..., 2] == 0] = -1
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        file.write("name:keypoints_y:keypoints_x\n")
        for name, points in zip(names, whole, strict=True):
            file.write(f"{name}:{json.dumps(points[:, 1].tolist())}:{json.dumps(points[:, 0].tolist())}\n")


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Read a person mask as uint8 [H,W], 0..255, soft edges kept; the first channel where the file has several.

    Raises:
        ValueError: other than 8 bits a channel, transparency (the mask may be there), an empty first channel beside
            others that are not, or no value above 19 but 0: labels or 0 and 1, of which nothing would remain.
    """
    with open_picture(path) as file:
        picture = upright(file)
        if "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBA"):
            low, high = picture.convert("RGBA").getchannel("A").getextrema()
            if low < 255:
                raise ValueError(f"{path}: a mask must be opaque and grey, 255 the person, got alpha {low} to {high}")
        if picture.mode in ("1", "P"):
            picture = picture.convert("RGB")
        pixels = np.asarray(picture)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{path}: a mask must have 8 bits a channel, got {pixels.dtype}")
    channels = pixels.reshape(*pixels.shape[:2], -1)
    if channels.any() and channels[..., 0].max() < len(LIP_LABELS):
        seen = ", ".join(f"0 to {channels[..., c].max()}" for c in range(channels.shape[2]))
        raise ValueError(f"{path}: a mask has values from 0 to 255, 255 the person, in its first channel; got {seen}")
    return channels[..., 0]


def write_mask(path: str | os.PathLike, mask: np.ndarray) -> None:
    """Write a mask uint8 [H,W] as a grey PNG."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.ndim != 2:
        received = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"mask must be a uint8 array [H,W], got {received}")
    with atomic_path(path) as temporary:
        Image.fromarray(mask).save(temporary)


def read_parsing(path: str | os.PathLike) -> np.ndarray:
    """Read LIP labels uint8 [H,W] from a PNG: palette indices or grey values are labels, colours those of LIP.

    Parsers write other palettes, so the index in the file counts and not its colour; colour pictures have none, and
    must be in `LIP_COLOURS`.

    Raises:
        ValueError: another kind of picture, a label above 19, or a colour that no class has.
    """
    with open_picture(path) as picture:
        if picture.mode not in ("P", "L", "RGB"):
            raise ValueError(f"{path}: parsing must be a palette, grey or RGB PNG of labels, got mode {picture.mode}")
        labels = np.asarray(upright(picture))
    if labels.ndim == 3:
        alike = (labels[..., None, :] == np.array(LIP_COLOURS, np.uint8)).all(-1)  # [H,W,20]
        if len(wrong := labels[~alike.any(-1)]):
            raise ValueError(f"{path}: the colour {tuple(wrong[0].tolist())} is that of no LIP class, see LIP_COLOURS")
        labels = alike.argmax(-1).astype(np.uint8)
    check_labels(labels, f"{path}: ")
    return labels


def check_labels(labels: np.ndarray | Tensor, where: str = "") -> None:
    """Refuse labels above 19; `where` begins the message."""
    highest = int(labels.max()) if math.prod(labels.shape) else 0
    if highest >= len(LIP_LABELS):
        raise ValueError(f"{where}LIP labels go from 0 to {len(LIP_LABELS) - 1}, got {highest}")


def lip_palette() -> np.ndarray:
    """Return a colour for each LIP class, uint8 [20,3]: the bit-shuffled palette that segmentation tools share.

    >>> lip_palette()[:3].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    bits = np.arange(len(LIP_LABELS))[:, None] >> np.arange(24) & 1  # of each label, the lowest first
    # three of them at a time go to red, green and blue, the lowest to the highest bit
    return np.packbits(bits.reshape(-1, 8, 3), axis=1)[:, 0]


def find_beside(folder: Path, paths: Iterable[str], kind: str) -> list[Path | None] | None:
    """Find an annotation of each image: for `train/7/x.jpg` in `folder/train_seg/7/` (kinds and endings: `BESIDE`).

    A picture is called NAME.png or NAME.jpg, with or without the image's .jpg, and the .png wins over the .jpg;
    OpenPose's file is NAME_keypoints.json. Images that lie in `folder` itself have theirs in the folder beside it,
    which is named like it plus the ending.

    Returns:
        One path (or None) for each image; None altogether where there is no such folder.
    """
    paths = [PurePosixPath(path) for path in paths]
    found: dict[PurePosixPath, dict[str, Path]] = {}
    for parent in dict.fromkeys(path.parent for path in paths):
        top, *deeper = parent.parts or ("",)
        place = Path(f"{folder / top}{BESIDE[kind]}", *deeper)
        if place.is_dir():
            ending = OPENPOSE_ENDING if kind == "openpose" else SUFFIXES
            names = [e.name for e in os.scandir(place) if e.name.lower().endswith(ending) and e.name[0] != "."]
            names.sort(key=lambda name: (not name.endswith(".png"), name), reverse=kind != "openpose")
            found[parent] = {bare_name(name.removesuffix(OPENPOSE_ENDING)): place / name for name in names}
    return [found.get(path.parent, {}).get(bare_name(path.name)) for path in paths] if found else None


def bare_name(name: str) -> str:
    """Take every picture extension off a file name.

    >>> bare_name("0002_c1s1_000451_03.jpg.png")
    '0002_c1s1_000451_03'
    """
    while name.lower().endswith(SUFFIXES):
        name = name.rpartition(".")[0]
    return name


def read_truth(path: Path) -> pd.DataFrame | None:
    """Read a renderer's truth table (comma-separated, a `name` column), or return None where there is none."""
    if not path.is_file():
        return None
    table = pd.read_csv(io.StringIO(read_text(path)))
    if "name" not in table.columns:
        raise ValueError(f"{path} must have a column `name`, got {list(table.columns)}")
    return table


def _check_finite(*points: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in points):
        raise ValueError("null, NaN or infinite numbers")
