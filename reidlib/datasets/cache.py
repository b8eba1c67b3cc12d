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
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reidlib.checks import some
from reidlib.datasets import annotations, pictures
from reidlib.datasets.poses import MISSING
from reidlib.datasets.readers.listing import Listing
from reidlib.files import resolve, take_space
from reidlib.machine import progress_bar

VERSION = 2  # raise it when decoding changes
LOOKED_AT = 4_000  # files of a subset whose bytes are part of the key
CHUNK = 64  # images a thread decodes before it comes back
MARGIN = 0.02  # a joint farther outside its picture, as a share of its size, belongs to another
ASPECT_TOLERANCE = 0.02  # a mask whose height/width differs from its image's by more belongs to another image
# of each kind of picture, what is said where some cannot be used
PROBLEMS = {
    "images": "are left out",
    "masks": "cannot be used, so this subset has no masks",
    "parsing": "cannot be used, so this subset has no parsing",
}


@dataclass(frozen=True)
class Files:
    """The files of one subset.

    Attributes:
        listing: says how images are opened, which columns of them count, and which file holds them all, if one does.
        images: the image files; where one file holds them all, just their names.
        names: what the tables call the images.
        tables: key points in the format of `annotations.read_keypoints`.
        beside: by kind (`annotations.BESIDE`) the annotation file of each image, None where it is missing; OpenPose's
            JSON counts for images that no table has.
    """

    listing: Listing
    images: list[Path]
    names: list[str]
    tables: list[Path]
    beside: dict[str, list[Path | None]]

    def paths(self) -> list[Path]:
        """Every file that the decoded arrays depend on."""
        images = self.images if self.listing.container is None else [self.listing.container]
        return [*images, *self.tables, *(path for paths in self.beside.values() for path in paths if path is not None)]


def decode(
    listing: Listing,
    files: Mapping[str, Files],
    *,
    name: str,
    image_size: tuple[int, int],
    cache: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, tuple[dict[str, Tensor], list[int] | None]]:
    """Return the decoded arrays of each subset, from the cache where nothing has changed since it was built.

    Images are read as `pictures.upright_rgb` says (formats, depth, transparency, EXIF's orientation); key points,
    masks and parsing are those of the upright picture. Images are resized to `image_size` with an antialiased
    bilinear filter; masks likewise, so their edges stay soft; parsing by the nearest label; key points move along
    (pixel centres at whole coordinates).

    What is wrong with the files is said in warnings, at every load: an image that cannot be decoded is left out;
    where an image lacks its mask or parsing, or that file cannot be used (broken, or its height/width is more than 2 %
    off the image's), the subset comes without masks or without parsing.

    Args:
        listing: the data set; the cache must not lie in its folder.
        files: the files of each subset.
        name: the data set's name, which starts the cache folder's name.
        image_size: (height, width).
        cache: folder for caches; default `data/.cache` of the repository.
        progress: show a progress bar.

    Returns:
        For each subset its arrays by name (`images`, and `keypoints`, `masks`, `parsing` where there are any), and the
        positions of the images that could be read, None where that is all.

    Raises:
        ValueError: if the cache would lie inside the data set, or no image of a subset can be read.
        OSError: if the disk has no room for it.
    """
    root, folder = resolve("data/.cache" if cache is None else cache), listing.folder
    if root.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the cache {root} must not lie inside the data set {folder}; pass another cache=")
    prefix = f"{name}-{f'{listing.variant}-' if listing.variant else ''}{image_size[0]}x{image_size[1]}-"
    target = root / f"{prefix}{_key(files, folder, image_size)}"
    if not (target / "index.json").is_file():
        _build(files, target, folder, image_size, progress)
        _remove_outdated(root, prefix, target, folder)
    index = json.loads((target / "index.json").read_text())
    for message in index["warnings"]:
        warnings.warn(message, stacklevel=4)  # to who called `load`
    opened = {}
    for subset in files:
        facts = index["subsets"][subset]
        # copy-on-write, because torch wants writable memory: no write ever reaches the files
        arrays = {kind: np.load(target / f"{subset}.{kind}.npy", mmap_mode="c") for kind in facts["arrays"]}
        opened[subset] = {kind: torch.from_numpy(array) for kind, array in arrays.items()}, facts["kept"]
    return opened


def _key(files: Mapping[str, Files], folder: Path, image_size: tuple[int, int]) -> str:
    digest = hashlib.sha256(f"{VERSION} {image_size[0]} {image_size[1]}\n".encode())
    digest.update(os.fsencode(folder.resolve()))
    scales = {repr(part.listing.keypoint_scale) for part in files.values()} - {"1", "1.0"}
    digest.update("".join(scales).encode())
    for subset in sorted(files):
        names = "\n".join([f"{files[subset].listing.columns}", *files[subset].names, ""])
        digest.update(names.encode("utf-8", "surrogateescape"))
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
        with progress_bar(total, "decoding", "image", progress) as done:
            for subset, subset_files in files.items():
                index["subsets"][subset], said = _build_subset(subset_files, temporary, subset, image_size, done)
                index["warnings"] += said
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
    """Decode one subset into `out`; return which arrays it has and which images were kept, and the warnings."""
    n = len(files.images)
    arrays, problems = {}, {}
    for kind in (kind for kind in PROBLEMS if kind == "images" or kind in files.beside):
        path = out / f"{subset}.{kind}.npy"
        shape = (n, 3, *image_size) if kind == "images" else (n, *image_size)
        arrays[kind], problems[kind] = np.lib.format.open_memmap(path, "w+", np.uint8, shape), {}
        take_space(path)  # before a pixel is written: a full disk must be an error, not the end of Python
    stored = np.zeros((n, 4))  # width, height used of each file, the columns cut off at its left, its whole width

    def decode_chunk(start: int) -> int:
        rows = range(start, min(start + CHUNK, n))
        for i in rows:
            for kind, array in arrays.items():  # the image first
                try:
                    if kind == "images":
                        array[i], stored[i] = _decode_image(files, i, image_size)
                    else:
                        array[i] = _decode_plane(kind, files, i, stored[i], image_size)
                except pictures.UNREADABLE as error:
                    said = str(error).partition("\n")[0] or type(error).__name__
                    problems[kind][i] = f"{files.images[i]} ({said})" if kind == "images" else said
                    if kind == "images":
                        break
        return len(rows)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # PIL decodes outside Python's lock
        for count in pool.map(decode_chunk, range(0, n, CHUNK)):
            done(count)
    for array in arrays.values():
        array.flush()
    lost = problems["images"]
    if len(lost) == n:
        raise ValueError(f"none of the {n} images of {subset} can be read, for example {lost[0]}")
    messages = [
        f"{subset}: {len(listed)} {kind} {PROBLEMS[kind]}: {some([listed[i] for i in sorted(listed)])}"
        for kind, listed in problems.items()
        if listed
    ]
    usable = [kind for kind in arrays if kind == "images" or not problems[kind]]
    keypoints = _read_keypoints(files, subset, stored, image_size, messages)
    if keypoints is not None:
        np.save(out / f"{subset}.keypoints.npy", keypoints)
        usable.append("keypoints")
    return {"arrays": usable, "kept": [i for i in range(n) if i not in lost] if lost else None}, messages


def _decode_image(files: Files, i: int, image_size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, ...]]:
    (height, width), columns = image_size, files.listing.columns
    with files.listing.open_image(files.images[i]) as picture:
        # a large JPEG is decoded small, at twice our size or more
        pixels, stored = pictures.upright_rgb(picture, None if columns else (2 * width, 2 * height))
    left, whole = 0, stored[0]
    if columns is not None and whole >= columns[1]:
        left = columns[0]
        pixels = pixels.crop((left, 0, columns[1], stored[1]))
        stored = pixels.size
    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1), (*stored, left, whole)  # [3,H,W]


def _decode_plane(kind: str, files: Files, i: int, stored: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    path, columns = files.beside[kind][i], files.listing.columns
    if path is None:
        raise ValueError(f"{files.images[i].name} has none")
    plane = (annotations.read_mask if kind == "masks" else annotations.read_parsing)(path)
    if columns is not None and plane.shape[1] >= columns[1]:
        plane = plane[:, slice(*columns)]
    own, of_image = plane.shape[0] / plane.shape[1], stored[1] / stored[0]
    if abs(own / of_image - 1) > ASPECT_TOLERANCE:
        size = f"{int(stored[1])}x{int(stored[0])}"
        raise ValueError(f"{path} is {plane.shape[0]}x{plane.shape[1]} but its image is {size}")
    how = Image.Resampling.BILINEAR if kind == "masks" else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(plane).resize(image_size[::-1], how))


def _read_keypoints(
    files: Files, subset: str, stored: np.ndarray, image_size: tuple[int, int], messages: list[str]
) -> np.ndarray | None:
    """Return float32 [n,18,3] in pixels of the resized images, None where no image has a row; append warnings."""
    rows, names = {}, files.names
    for table in files.tables:
        rows |= (own := annotations.read_keypoints(table))
        if own and not any(points[:, 2].any() for points in own.values()):
            raise ValueError(f"{table}: all 18 joints of all {len(own)} rows are missing (-1); take the table away")
    for name, path, (w, h, left, _) in zip(names, files.beside.get("openpose", []), stored, strict=False):
        if path is not None and name not in rows:
            rows[name] = annotations.read_openpose(path, centre=(left + (w - 1) / 2, (h - 1) / 2))
    without = [name for name in names if name not in rows]
    if len(without) == len(names):
        return None
    points = np.stack([rows.get(name, np.full((18, 3), MISSING, np.float32)) for name in names])
    if (scale := files.listing.keypoint_scale) != 1:  # pixel centres lie at whole coordinates, corners half before
        size, shift = (stored[:, None, [3, 1]], 0) if scale == "relative" else (scale, 0.5)
        points[..., :2] = np.where(points[..., 2:] > 0, (points[..., :2] + shift) * size - 0.5, points[..., :2])
    messages += _check_joints(points, stored, names, subset)
    if files.listing.columns is not None:
        points[..., 0] -= stored[:, 2:3]
        outside = (points[..., 0] < 0) | (points[..., 0] > stored[:, :1] - 1)
        points[outside & (stored[:, 2:3] > 0)] = MISSING
    last = np.array(image_size[::-1]) - 1
    scale = (last + 1) / np.maximum(stored[:, :2], 1)[:, None]  # [n,1,2]
    # pixel centres lie at whole coordinates; clamped, so that a resized joint stays on the image
    moved = ((points[..., :2] + 0.5) * scale - 0.5).clip(0, last)
    points[..., :2] = np.where(points[..., 2:] > 0, moved, -1)
    if len(without) > len(names) / 2:  # no row is what an estimator gives where it finds nobody; but not for most
        where = " or ".join([*map(str, files.tables), *["OpenPose's JSON"] * ("openpose" in files.beside)])
        messages.append(f"{subset}: {len(without)} images have no row in {where}, so no joints, e.g. {without[0]}")
    return points.astype(np.float32)


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
            f"{size[i, 0, 1] - 1:g}, -1: missing; others need keypoint_scale="
        )
    reach = (np.where(seen[..., None], points[..., :2], 0) / np.maximum(size, 1)).max((0, 1))
    if seen.any(1).sum() >= 8 and (reach < 0.6).all():
        share = f"the left {reach[0]:.0%} and upper {reach[1]:.0%}"
        return [f"{subset}: all joints lie in {share} of their pictures: are they pixels of smaller ones?"]
    return []


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
