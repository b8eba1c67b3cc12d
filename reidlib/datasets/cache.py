"""Decode a data set once: a folder of memory-mapped uint8 arrays, found again by what the files look like.

The key is a hash of the folder, of every file's name, size, time of change in nanoseconds and some of its bytes, of the
image size and of this module's version, so a changed file or another folder makes a new cache. Bytes are read of 4,000
files at most, evenly chosen, 4 KB of each: about 15 microseconds a file that the system has in memory (60 ms together,
where asking for sizes and times takes 30). A cache is built under a temporary name and renamed when it is whole: two
processes may build the same one at once, and a killed one leaves nothing that could be mistaken for a cache.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from reidlib.datasets import annotations, pictures
from reidlib.files import resolve, take_space

VERSION = 2  # raise it when decoding changes
LOOKED_AT = 4_000  # files of a subset whose bytes are part of the key
CHUNK = 64  # images a thread decodes before it comes back
MARGIN = 0.02  # a joint farther outside its picture, as a share of its size, belongs to another
ASPECT_TOLERANCE = 0.02  # a mask whose height/width differs from its image's by more belongs to another image


@dataclass(frozen=True)
class Files:
    """The files of one subset; what belongs to single images has one entry for each (None where it is missing).

    Attributes:
        images: the image files; with a `container` just the names of what lies in it.
        names: what the tables call the images; default the files' names.
        keypoints: tables in the format of `annotations.read_keypoints`.
        openpose: OpenPose's JSON of each image, for images that no table has.
        masks, parsing: the pictures of each image.
        open_image: opens an image, for images that are not files of their own.
        container: the one file that holds all images.
        columns: keep the columns from the first to before the last of everything that is wide enough for that.
    """

    images: list[Path]
    names: list[str] | None = None
    keypoints: tuple[Path, ...] = ()
    openpose: list[Path | None] | None = None
    masks: list[Path | None] | None = None
    parsing: list[Path | None] | None = None
    open_image: Callable[[Path], Image.Image] = pictures.open_picture
    container: Path | None = None
    columns: tuple[int, int] | None = None

    def paths(self) -> list[Path]:
        """Every file that the decoded arrays depend on."""
        images = self.images if self.container is None else [self.container]
        beside = (*(self.openpose or ()), *(self.masks or ()), *(self.parsing or ()))
        return [p for p in (*images, *self.keypoints, *beside) if p is not None]


class Arrays(NamedTuple):
    """The decoded arrays of one subset. `kept` lists the images that could be read, None where that is all."""

    images: Tensor
    keypoints: Tensor | None
    masks: Tensor | None
    parsing: Tensor | None
    kept: Tensor | None


def decode(
    files: Mapping[str, Files],
    *,
    name: str,
    folder: Path,
    image_size: tuple[int, int],
    cache: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, Arrays]:
    """Return the decoded arrays of each subset, from the cache where nothing has changed since it was built.

    Images are read as `pictures.upright_rgb` says (formats, depth, transparency, EXIF's orientation); key points,
    masks and parsing are those of the upright picture. Images are resized to `image_size` with an antialiased
    bilinear filter; masks likewise, so their edges stay soft; parsing by the nearest label; key points move along
    (pixel centres at whole coordinates).

    What is wrong with the files is said in warnings, at every load: an image that cannot be decoded is left out
    (`kept`); where an image lacks its mask or parsing, or that file cannot be used (broken, or its height/width is
    more than 2 % off the image's), the subset comes without masks or without parsing.

    Args:
        files: the files of each subset.
        name: the data set's name, which starts the cache folder's name.
        folder: the data set's own folder; the cache must not lie in it.
        image_size: (height, width).
        cache: folder for caches; default `data/.cache` of the repository.
        progress: show a progress bar.

    Raises:
        ValueError: if the cache would lie inside the data set, or no image of a subset can be read.
        OSError: if the disk has no room for it.
    """
    root = find_root(cache, folder)
    prefix = f"{name}-{image_size[0]}x{image_size[1]}-"
    target = root / f"{prefix}{_key(files, folder, image_size)}"
    if not (target / "index.json").is_file():
        _build(files, target, folder, image_size, progress)
        _remove_outdated(root, prefix, target, folder)
    index = json.loads((target / "index.json").read_text())
    for message in index["warnings"]:
        warnings.warn(message, stacklevel=5)  # to who called `load`
    return {subset: _open(target, subset, index["subsets"][subset]) for subset in files}


def find_root(cache: str | os.PathLike | None, folder: Path) -> Path:
    """Return the folder for caches, default `data/.cache` of the repository.

    Raises:
        ValueError: if it would lie inside the data set.
    """
    root = resolve("data/.cache" if cache is None else cache)
    if root.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the cache {root} must not lie inside the data set {folder}; pass another cache=")
    return root


def _key(files: Mapping[str, Files], folder: Path, image_size: tuple[int, int]) -> str:
    digest = hashlib.sha256(f"{VERSION} {image_size[0]} {image_size[1]}\n".encode())
    digest.update(os.fsencode(folder.resolve()))
    for subset in sorted(files):
        names = [path.name for path in files[subset].images] if files[subset].container else files[subset].names or []
        digest.update("\n".join([f"{files[subset].columns}", *names, ""]).encode("utf-8", "surrogateescape"))
        paths = files[subset].paths()
        step = -(-len(paths) // LOOKED_AT)
        for i, path in enumerate(paths):
            digest.update(f"{subset} {os.path.relpath(path, folder)}".encode("utf-8", "surrogateescape"))
            try:
                stat = path.stat()
                digest.update(f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
                if i % step == 0:
                    digest.update(_some_bytes(path, stat.st_size))
            except OSError:  # a link to nowhere, no right to read it: decoding says so
                digest.update(b" unreadable\n")
    return digest.hexdigest()[:16]


def _some_bytes(path: Path, size: int, most: int = 2048) -> bytes:
    """Read a small file whole, and of a larger one the middle and the end: pictures of one camera begin alike."""
    with path.open("rb", buffering=0) as file:
        if size <= 2 * most:
            return file.read()
        file.seek(size // 2)
        middle = file.read(most)
        file.seek(size - most)
        return middle + file.read(most)


def _build(files: Mapping[str, Files], target: Path, folder: Path, image_size: tuple[int, int], progress: bool) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    temporary.mkdir(parents=True)
    try:
        index = {"folder": str(folder.resolve()), "subsets": {}, "warnings": []}
        total = sum(len(f.images) for f in files.values())
        # where nobody watches a terminal, a line now and then is enough
        pause = 0.2 if sys.stderr.isatty() else 10
        with tqdm(total=total, desc="decoding", unit="image", disable=not progress, mininterval=pause) as bar:
            for subset, subset_files in files.items():
                facts, problems = _build_subset(subset_files, temporary, subset, image_size, bar.update)
                index["subsets"][subset] = facts
                index["warnings"] += problems
        (temporary / "index.json").write_text(json.dumps(index))
        try:
            temporary.rename(target)
        except OSError:  # another process was quicker: its arrays are the same
            if not (target / "index.json").is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build_subset(
    files: Files, out: Path, subset: str, image_size: tuple[int, int], done: Callable[[int], object]
) -> tuple[dict, list[str]]:
    """Decode one subset into `out`; return what `_open` needs to know and the warnings."""
    n, (height, width) = len(files.images), image_size
    kinds = {"images": files.images, "masks": files.masks, "parsing": files.parsing}
    shapes = {"images": (n, 3, height, width), "masks": (n, height, width), "parsing": (n, height, width)}
    arrays = {}
    for kind in (kind for kind, paths in kinds.items() if paths is not None):
        path = out / f"{subset}.{kind}.npy"
        arrays[kind] = np.lib.format.open_memmap(path, "w+", np.uint8, shapes[kind])
        take_space(path)  # before a pixel is written: a full disk must be an error, not the end of Python
    stored = np.zeros((n, 4))  # width, height used of each file, the columns cut off at its left, its whole width
    problems: dict[str, dict[int, str]] = {kind: {} for kind in kinds}

    def decode_chunk(rows: range) -> int:
        for i in rows:
            try:
                arrays["images"][i], stored[i] = _decode_image(files, i, width, height)
            except pictures.UNREADABLE as error:
                problems["images"][i] = f"{files.images[i]} ({_short(error)})"
                continue
            for kind in ("masks", "parsing"):
                if kind not in arrays:
                    continue
                try:
                    arrays[kind][i] = _decode_plane(kind, files, i, stored[i], width, height)
                except pictures.UNREADABLE as error:
                    problems[kind][i] = _short(error)
        return len(rows)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # PIL decodes outside Python's lock
        for count in pool.map(decode_chunk, [range(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK)]):
            done(count)
    for array in arrays.values():
        array.flush()
    if len(problems["images"]) == n:
        raise ValueError(f"none of the {n} images of {subset} can be read, for example {problems['images'][0]}")
    messages = []
    for kind, consequence in (("images", "are left out"), ("masks", "no masks"), ("parsing", "no parsing")):
        if problems[kind]:
            listed = [problems[kind][i] for i in sorted(problems[kind])]
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            said = consequence if kind == "images" else f"cannot be used, so this subset has {consequence}"
            messages.append(f"{subset}: {len(listed)} {kind} {said}: {'; '.join(listed[:5])}{more}")
    keypoints, said = _read_keypoints(files, subset, stored, width, height)
    if keypoints is not None:
        np.save(out / f"{subset}.keypoints.npy", keypoints)
    kept = [i for i in range(n) if i not in problems["images"]] if problems["images"] else None
    usable = [kind for kind in arrays if kind == "images" or not problems[kind]]
    facts = {"arrays": usable + (["keypoints"] if keypoints is not None else []), "kept": kept}
    return facts, messages + said


def _decode_image(files: Files, i: int, width: int, height: int) -> tuple[np.ndarray, tuple[int, ...]]:
    with files.open_image(files.images[i]) as picture:
        # a large JPEG is decoded small, at twice our size or more
        pixels, stored = pictures.upright_rgb(picture, None if files.columns else (2 * width, 2 * height))
    left, whole = 0, stored[0]
    if files.columns is not None and stored[0] >= files.columns[1]:
        left, right = files.columns
        pixels = pixels.crop((left, 0, right, stored[1]))
        stored = pixels.size
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1), (*stored, left, whole)  # [3,H,W]


def _decode_plane(kind: str, files: Files, i: int, stored: np.ndarray, width: int, height: int) -> np.ndarray:
    path = getattr(files, kind)[i]
    if path is None:
        raise ValueError(f"{files.images[i].name} has none")
    plane = (annotations.read_mask if kind == "masks" else annotations.read_parsing)(path)
    if files.columns is not None and plane.shape[1] >= files.columns[1]:
        plane = plane[:, files.columns[0] : files.columns[1]]
    own, of_image = plane.shape[0] / plane.shape[1], stored[1] / stored[0]
    if abs(own / of_image - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"{path} is {plane.shape[0]}x{plane.shape[1]} but its image is {int(stored[1])}x{int(stored[0])}"
        )
    if plane.shape == (height, width):
        return plane
    how = Image.Resampling.BILINEAR if kind == "masks" else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(plane).resize((width, height), how))


def _read_keypoints(
    files: Files, subset: str, stored: np.ndarray, width: int, height: int
) -> tuple[np.ndarray | None, list[str]]:
    """Return float32 [n,18,3] in pixels of the resized images, None where no image has a row; and warnings."""
    if not files.keypoints and files.openpose is None:
        return None, []
    rows = {}
    for table in files.keypoints:
        rows |= (own := annotations.read_keypoints(table))
        if own and not any(points[:, 2].any() for points in own.values()):
            raise ValueError(f"{table}: all 18 joints of all {len(own)} rows are missing (-1); take the table away")
    names = files.names or [path.name for path in files.images]
    for name, path, (w, h, left, _) in zip(names, files.openpose or [], stored, strict=False):
        if path is not None and name not in rows:
            rows[name] = annotations.read_openpose(path, centre=(left + (w - 1) / 2, (h - 1) / 2))
    known = np.array([name in rows for name in names])
    if not known.any():
        return None, []
    missing = np.tile(np.array([-1, -1, 0], np.float32), (18, 1))
    points = np.stack([rows.get(name, missing) for name in names])
    messages = _check_joints(points, stored, names, subset)
    if files.columns is not None:
        points[..., 0] -= stored[:, 2:3]
        outside = (points[..., 0] < 0) | (points[..., 0] > stored[:, :1] - 1)
        points[outside & (stored[:, 2:3] > 0)] = (-1, -1, 0)
    scale = np.array([width, height]) / np.maximum(stored[:, :2], 1)[:, None]  # [n,1,2]
    # pixel centres lie at whole coordinates; clamped, so that a resized joint stays on the image
    moved = ((points[..., :2] + 0.5) * scale - 0.5).clip(0, [width - 1, height - 1])
    points[..., :2] = np.where(points[..., 2:] > 0, moved, -1)
    if known.mean() < 0.5:  # no row is what an estimator gives where it finds nobody; but not for most images
        without = [name for name, k in zip(names, known, strict=True) if not k]
        where = " or ".join([*map(str, files.keypoints), *(["OpenPose's JSON"] if files.openpose else [])])
        messages.append(f"{subset}: {len(without)} images have no row in {where}, so no joints, e.g. {without[0]}")
    return points.astype(np.float32), messages


def _check_joints(points: np.ndarray, stored: np.ndarray, names: list[str], subset: str) -> list[str]:
    """Refuse joints that cannot be pixels of their picture; warn where they look like those of a smaller one.

    Args:
        points: [n,18,3] as read.
        stored: [n,4] width used, height, columns cut off at the left, whole width; zeros where unreadable.
    """
    seen = (points[..., 2] > 0) & (stored[:, 1:2] > 0)  # [n,18]
    size = stored[:, [3, 1]][:, None]  # [n,1,2] width, height
    slack = np.maximum(1, MARGIN * size)
    outside = ((points[..., :2] < -slack) | (points[..., :2] > size - 1 + slack)).any(-1) & seen
    scaled = ((np.abs(points[..., :2]) <= 1).all(-1) | ~seen).all(1) & (seen.sum(1) > 1)  # shares, not pixels
    wrong = np.flatnonzero(outside.any(1) | scaled)
    if len(wrong):
        i = wrong[0]
        (x0, y0), (x1, y1) = (f(points[i, seen[i], :2], axis=0) for f in (np.min, np.max))
        raise ValueError(
            f"{subset}: the key points of {len(wrong)} images do not fit, e.g. {names[i]}: x {x0:g} to {x1:g}, "
            f"y {y0:g} to {y1:g}; accepted are pixels of the stored picture, x 0 to {size[i, 0, 0] - 1:g} and y 0 to "
            f"{size[i, 0, 1] - 1:g}, -1: missing"
        )
    reach = (np.where(seen[..., None], points[..., :2], 0) / np.maximum(size, 1)).max((0, 1))
    if seen.any(1).sum() >= 8 and (reach < 0.6).all():
        share = f"the left {reach[0]:.0%} and upper {reach[1]:.0%}"
        return [f"{subset}: all joints lie in {share} of their pictures: are they pixels of smaller ones?"]
    return []


def _open(target: Path, subset: str, facts: dict) -> Arrays:
    """Map the arrays. Copy-on-write, because torch wants writable memory: no write ever reaches the files."""
    arrays: dict[str, Tensor | None] = {}
    for kind in ("images", "keypoints", "masks", "parsing"):
        path = target / f"{subset}.{kind}.npy"
        arrays[kind] = torch.from_numpy(np.load(path, mmap_mode="c")) if kind in facts["arrays"] else None
    kept = facts["kept"]
    return Arrays(**arrays, kept=None if kept is None else torch.tensor(kept))


def _remove_outdated(root: Path, prefix: str, current: Path, folder: Path) -> None:
    """Delete caches of the same folder and size from before its files changed, and what killed processes left."""
    for left in root.glob(f".{prefix}*.part"):
        if time.time() - left.stat().st_mtime > 24 * 3600:  # a living process would have finished
            shutil.rmtree(left, ignore_errors=True)
    for other in sorted(path for path in root.glob(f"{prefix}*") if path != current):
        try:
            same = json.loads((other / "index.json").read_text())["folder"] == str(folder.resolve())
        except (OSError, ValueError, KeyError):
            continue
        if same:
            shutil.rmtree(other, ignore_errors=True)


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
