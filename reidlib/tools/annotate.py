r"""Key points and person masks for your own crops, by torchvision's Keypoint R-CNN and Mask R-CNN.

    reidlib annotate FOLDER --weights keypointrcnn.pth maskrcnn.pth

writes files that the readers find by themselves: key points into `annotation.csv` (in Market-1501's layout into
`market-annotation-train.csv` and `market-annotation-test.csv`), masks as `F_seg/NAME.png` for `F/NAME.jpg`. What is
there already is kept, so an interrupted run goes on where it stopped.

The weights are yours: nothing is ever downloaded (`tools.detectors`). A *detector* is any callable that takes a list
of images (float [3,H,W] in 0..1, each of its own size) and returns torchvision's output, a dictionary for each image:
`boxes` [N,4] (x1, y1, x2, y2), `labels` [N] (1 is a person), `scores` [N], and `keypoints` [N,17,3] with
`keypoints_scores` [N,17], or `masks` [N,1,H,W] in 0..1. So another network, or a test's stub, goes through the same
code.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.checks import reading_inputs
from reidlib.datasets import annotations
from reidlib.datasets.pictures import SUFFIXES, UNREADABLE, open_picture, upright_rgb
from reidlib.files import resolve
from reidlib.machine import progress_bar
from reidlib.tools.detectors import KINDS, Detector, MissingOperators, load_detectors

PERSON = 1  # COCO's number
# COCO's point at each of our 18 places (OpenPose's order); None is the neck, which COCO does not have
COCO_OF_OPENPOSE = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
SHOULDERS, NECK = (5, 6), 1
MARKET = {"bounding_box_train": "train", "query": "test", "bounding_box_test": "test", "gt_bbox": "test"}
PAUSE = 30.0  # seconds between two writings of the key-point table


class Summary(NamedTuple):
    """What `annotate` did: images looked at now, done before, unreadable, and those where nobody was found."""

    now: int
    before: int
    unreadable: list[str]
    nobody: list[str]


class Place(NamedTuple):
    """One image, and where its annotations belong."""

    image: Path
    name: str
    table: Path
    mask: Path


def to_openpose(points: np.ndarray) -> np.ndarray:
    """Turn COCO's 17 points [..., 17, 3] (x, y, visible) into OpenPose's 18; missing = (-1, -1, 0).

    COCO has no neck: it is put half-way between the shoulders, where both are seen, and is missing otherwise.

    >>> points = np.zeros((17, 3)); points[5] = (40, 30, 1); points[6] = (20, 32, 1)
    >>> to_openpose(points)[[1, 2, 5]].tolist()
    [[30.0, 31.0, 1.0], [20.0, 32.0, 1.0], [40.0, 30.0, 1.0]]
    """
    points = np.asarray(points, dtype=np.float32)
    if points.shape[-2:] != (17, 3):
        raise ValueError(f"points must be [..., 17, 3] in COCO's order, got {list(points.shape)}")
    shoulders = points[..., SHOULDERS, :]  # [..., 2, 3]
    out = points[..., [0 if i is None else i for i in COCO_OF_OPENPOSE], :]  # [..., 18, 3], a copy
    out[..., NECK, :] = shoulders.mean(axis=-2)
    out[..., NECK, 2] = (shoulders[..., 2] > 0).all(axis=-1)
    out[..., 2] = out[..., 2] > 0
    out[out[..., 2] == 0] = (-1, -1, 0)
    return out


def main_person(
    found: Mapping[str, Tensor], size: tuple[int, int], *, min_score: float = 0.5, points: np.ndarray | None = None
) -> int | None:
    r"""Return which of the people found the crop is about, or None where there is nobody.

    A crop often shows a part of somebody else. Of all people with a score of `min_score` or more it is the one with the
    largest $s \cdot a \cdot \exp(-d^2 / (2 \cdot 0.25^2))$: score, share of the image that the box covers, and distance
    of the box's centre from the image's, in units of its width and height. Where the key points [18,3] of the image are
    known, those whose boxes hold most of them go first, so that mask and key points show the same person.

    Args:
        found: one image's `boxes`, `labels` and `scores`.
        size: (height, width) of the image.

    >>> boxes = torch.tensor([[0.0, 0, 20, 60], [10.0, 5, 50, 120]])
    >>> main_person({"boxes": boxes, "labels": torch.ones(2), "scores": torch.tensor([0.9, 0.8])}, (128, 64))
    1
    """
    boxes, labels, scores = (found[name].detach().cpu().double().numpy() for name in ("boxes", "labels", "scores"))
    height, width = size
    candidates = np.flatnonzero((labels == PERSON) & (scores >= min_score))
    if not len(candidates):
        return None
    unit = boxes[candidates].clip(0, [width, height, width, height]) / [width, height, width, height]
    away = (unit[:, :2] + unit[:, 2:]) / 2 - 0.5
    area = (unit[:, 2:] - unit[:, :2]).prod(axis=1)
    weight = scores[candidates] * area * np.exp(-(away**2).sum(axis=1) / (2 * 0.25**2))
    inside = np.zeros(len(candidates), int)
    if points is not None:
        joints = points[points[:, 2] > 0, None, :2]  # [J, 1, 2]
        at = boxes[candidates]
        inside = ((joints >= at[:, :2]) & (joints <= at[:, 2:])).all(axis=2).sum(axis=0)
    return int(candidates[np.lexsort((weight, inside))[-1]])


def find_images(folder: Path) -> list[Place]:
    """List the images of a folder with the places of their annotations; Market-1501's layout is recognised.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: a name that the key-point table cannot hold, or two images that would share a mask.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    market = [sub for sub in MARKET if (folder / sub).is_dir()]
    if not any(sub.startswith("bounding_box") for sub in market):  # query/ and gallery/ are folders of anybody's
        market = []
    below = [path for sub in market for path in (folder / sub).iterdir()] if market else folder.rglob("*")
    places = []
    for path in sorted(p for p in below if p.suffix.lower() in SUFFIXES and p.is_file()):
        parts = path.relative_to(folder).parts
        if path.name.startswith(".") or any(part.endswith(tuple(annotations.BESIDE.values())) for part in parts[:-1]):
            continue
        beside = folder / f"{parts[0]}_seg" if len(parts) > 1 else folder.with_name(f"{folder.name}_seg")
        name = path.name if market else "/".join(parts)
        table = f"market-annotation-{MARKET[parts[0]]}.csv" if market else "annotation.csv"
        mask = beside.joinpath(*parts[1:-1], f"{annotations.bare_name(path.name)}.png")
        places.append(Place(path, name, folder / table, mask))
    if not places:
        raise FileNotFoundError(f"{folder} holds no image ({', '.join(SUFFIXES)})")
    if odd := [place.name for place in places if set(':"\n') & set(place.name)]:
        raise ValueError(f"{len(odd)} names hold a colon or a quotation mark, for example {odd[0]}: please rename them")
    owner: dict[Path, Path] = {}
    for place in places:
        if (other := owner.setdefault(place.mask, place.image)) != place.image:
            raise ValueError(f"{other} and {place.image} would share the mask {place.mask}: please rename one")
    return places


def annotate(
    folder: str | Path,
    detectors: Mapping[str, Detector],
    *,
    min_score: float = 0.5,
    min_joint_score: float = 2.0,
    batch_size: int = 4,
    progress: bool = True,
) -> Summary:
    """Write key points and masks of every image of a folder that has none yet, where the readers look for them.

    Where nobody is found, all joints are missing and the mask is black, so that a second run does not look again.
    Images that cannot be opened get nothing, with a warning (the readers leave them out too).

    Args:
        folder: crops in any layout that `datasets.folder` reads, or Market-1501's.
        detectors: a detector for "keypoints", for "masks" or for both (see the module).
        min_score: people below this score do not count.
        min_joint_score: joints below this `keypoints_scores` are missing. These are peaks of heat maps before the
            softmax, no probabilities; 2 is what Detectron, where the network comes from, shows joints by.
        batch_size: images that a detector is given at once.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: see `find_images`; another kind of annotation; output that is not torchvision's.
    """
    if not detectors or set(detectors) - set(KINDS):
        raise ValueError(f"detectors must be a mapping with {' or '.join(KINDS)}, got {sorted(detectors)}")
    places = find_images(resolve(folder))
    tables = _Tables({place.table for place in places})
    limits = {"min_score": min_score, "min_joint_score": min_joint_score}
    missing = [place for place in places if _missing(place, detectors, tables)]
    unreadable, nobody = [], []
    try:
        with progress_bar(len(missing), "annotating", "image", progress) as advance:
            for start in range(0, len(missing), batch_size):
                opened = []
                for place in missing[start : start + batch_size]:
                    try:
                        opened.append((place, _open(place.image)))
                    except UNREADABLE as error:
                        unreadable.append(place.name)
                        warnings.warn(f"{place.image} cannot be opened and is left out ({error})", stacklevel=2)
                nobody += _annotate_batch(opened, detectors, tables, **limits)
                tables.write(every=PAUSE)
                advance(len(missing[start : start + batch_size]))
    finally:
        tables.write()
    return Summary(len(missing) - len(unreadable), len(places) - len(missing), unreadable, nobody)


class _Tables:
    """The key-point tables of a folder: rows by name, whole numbers as they are stored, written now and then."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.rows: dict[Path, dict[str, np.ndarray]] = {}
        self.found: dict[Path, Path] = {}
        self.changed: set[Path] = set()
        self.written = time.monotonic()
        for path in sorted(paths):
            there = sorted(path.parent.glob(f"*{path.name.removeprefix('market-')}"))
            if len(there) > 1:
                raise ValueError(f"{path.parent} has {len(there)} tables, keep one: {[p.name for p in there]}")
            self.found[path] = there[0] if there else path
            self.rows[path] = annotations.read_keypoints(there[0]) if there else {}

    def get(self, place: Place) -> np.ndarray | None:
        return self.rows[place.table].get(place.name)

    def put(self, place: Place, points: np.ndarray) -> None:
        self.rows[place.table][place.name] = points
        self.changed.add(place.table)

    def write(self, every: float = 0.0) -> None:
        if time.monotonic() - self.written < every:
            return
        for path in sorted(self.changed):
            names = sorted(self.rows[path])
            annotations.write_keypoints(self.found[path], names, np.stack([self.rows[path][name] for name in names]))
        self.changed.clear()
        self.written = time.monotonic()


def _missing(place: Place, detectors: Mapping[str, Detector], tables: _Tables) -> list[str]:
    """Name the annotations that this image lacks."""
    there = {"keypoints": tables.get(place) is not None, "masks": place.mask.is_file()}
    return [kind for kind in KINDS if kind in detectors and not there[kind]]


def _annotate_batch(
    opened: Sequence[tuple[Place, Tensor]],
    detectors: Mapping[str, Detector],
    tables: _Tables,
    *,
    min_score: float,
    min_joint_score: float,
) -> list[str]:
    """Run the detectors on what lacks their annotation, key points first; return the names where nobody was found."""
    nobody = []
    for kind in KINDS:
        wanted = [(place, image) for place, image in opened if kind in _missing(place, detectors, tables)]
        results = detectors[kind]([image for _, image in wanted]) if wanted else []
        if len(results) != len(wanted):
            raise ValueError(f"the detector of {kind} returned {len(results)} results for {len(wanted)} images")
        for (place, image), found in zip(wanted, results, strict=True):
            height, width = image.shape[1:]
            _check(found, kind, (height, width))
            known = tables.get(place) if kind == "masks" else None
            person = main_person(found, (height, width), min_score=min_score, points=known)
            if kind == "keypoints":
                tables.put(place, _joints(found, person, (height, width), min_joint_score))
            else:
                mask = torch.zeros(height, width) if person is None else found["masks"][person, 0].detach().cpu()
                annotations.write_mask(place.mask, (mask.float().clamp(0, 1) * 255).round().byte().numpy())
            if person is None and place.name not in nobody:
                nobody.append(place.name)
    return nobody


def _joints(found: Mapping[str, Tensor], person: int | None, size: tuple[int, int], least: float) -> np.ndarray:
    """Return one person's joints float32 [18,3] as whole pixels inside the image, missing where their score is low."""
    points = np.zeros((17, 3), np.float32)
    if person is not None:
        height, width = size
        points[:, :2] = found["keypoints"][person, :, :2].detach().cpu().numpy()  # the third number is always 1
        points[:, 2] = (found["keypoints_scores"][person] >= least).cpu().numpy()
        points[:, :2] = points[:, :2].clip(0, [width - 1, height - 1])
    points = to_openpose(points)
    points[:, :2] = np.rint(points[:, :2])
    return points


def _check(found: Mapping[str, Tensor], kind: str, size: tuple[int, int]) -> None:
    n = len(found["boxes"]) if "boxes" in found else 0
    wanted = {"boxes": (n, 4), "labels": (n,), "scores": (n,)}
    wanted |= (
        {"keypoints": (n, 17, 3), "keypoints_scores": (n, 17)} if kind == "keypoints" else {"masks": (n, 1, *size)}
    )
    got = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if any(got.get(name) != shape for name, shape in wanted.items()):
        raise ValueError(f"the detector of {kind} must return {wanted} for an image of {size}, got {got}")


def _open(path: Path) -> Tensor:
    """Open a photograph upright, as float [3,H,W] in 0..1."""
    with open_picture(path) as picture:
        pixels = np.asarray(upright_rgb(picture)[0])
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib annotate`."""
    parser.add_argument("folder", help="crops, or Market-1501's layout (relative: from the repository)")
    parser.add_argument("--weights", nargs="+", default=[], metavar="FILE", help="default: your torchvision cache")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--size", type=int, default=320, help="shorter side given to the networks (320)")
    parser.add_argument("--batch-size", type=int, default=4, help="images at once (4)")
    parser.add_argument("--min-score", type=float, default=0.5, help="of a person, 0 to 1 (0.5)")
    parser.add_argument("--min-joint-score", type=float, default=2.0, help="of a joint, before the softmax (2)")


def run(options: argparse.Namespace) -> int:
    """Annotate a folder; return 0, or 2 with a message where torchvision's operators are missing."""
    try:
        with reading_inputs():
            places = find_images(resolve(options.folder))  # a wrong folder is said before the networks are loaded
            _Tables({place.table for place in places})
            detectors = load_detectors(options.weights, device=options.device, size=options.size)
    except MissingOperators as error:
        print(f"reidlib annotate: {error}", file=sys.stderr)
        return 2
    limits = {"min_score": options.min_score, "min_joint_score": options.min_joint_score}
    done = annotate(options.folder, detectors, batch_size=options.batch_size, **limits)
    print(f"{' and '.join(detectors)}: {done.now} images, {done.before} done before, {len(done.unreadable)} unreadable")
    if done.nobody:
        print(f"nobody found in {len(done.nobody)}, for example {done.nobody[0]}: their joints are all missing")
    return 0
