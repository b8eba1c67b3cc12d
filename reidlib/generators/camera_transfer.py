r"""Camera transfer as an experiment: pairs of two cameras, training, and the extension $G_b$ of a training set.

`train_transfer(train, 5, 6)` learns to move images of camera 5 to camera 6; `transfer(method, train, 5, 6)` moves them.
The networks and losses are in `reidlib.generators.pix2pix`. Kolbeinsson, master's thesis, 2019.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets.augment import PREFIXES, Batch, crop, flip
from reidlib.datasets.benchmark import check_size
from reidlib.datasets.camera_pairs import camera_pair, random_targets
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Augment, Batches, generator, pair_batches
from reidlib.generators.pix2pix import PRESETS, CameraTransfer, masks_needed
from reidlib.generators.synthesis import synthesise
from reidlib.machine import pick_device
from reidlib.training import History, fit

SUBSETS = ("all", "unpaired", "new_ids")
EPOCHS = 10  # of the thesis
TRAINING = {  # batch size of models 1-3 and of model 4, decay of averaged weights
    "smoke": dict(batch_size={1: 8, 4: 8}, ema=None),
    "course": dict(batch_size={1: 16, 4: 16}, ema=0.99),
    "paper": dict(batch_size={1: 1, 4: 32}, ema=None),
}


def load_pairs(
    batch: Batch,
    draw: torch.Generator,
    *,
    image_size: tuple[int, int] | None = None,
    enlarge: float = 286 / 256,
    p: float = 0.5,
) -> Batch:
    """Load a batch of pairs as pix2pix does: enlarge (bicubic), cut at random, mirror half of them.

    Each pair has its own cut and flip, common to image, partner and both masks. Key points and parsing are left out:
    no model of the thesis uses them.

    Args:
        batch: of pairs, or of single images; uint8 images [B,3,h,w] and masks [B,h,w] of any size.
        draw: where the cuts and flips come from.
        image_size: (height, width) of the result, which stretches images of another shape; default their own.
        enlarge: size before the cut, relative to `image_size`.
        p: probability of the flip.

    >>> batch = {"images": torch.zeros(2, 3, 128, 64, dtype=torch.uint8)}
    >>> load_pairs(batch, torch.Generator().manual_seed(0), image_size=(64, 32))["images"].shape
    torch.Size([2, 3, 64, 32])
    """
    n, _, *old = batch["images"].shape
    height, width = check_size(tuple(old) if image_size is None else image_size)
    larger = (round(height * enlarge), round(width * enlarge))
    out = {name: value for name, value in batch.items() if not name.endswith(("keypoints", "parsing"))}
    for name in [prefix + plane for prefix in PREFIXES for plane in ("images", "masks") if prefix + plane in out]:
        planes = out[name] if out[name].dim() == 4 else out[name][:, None]
        planes = F.interpolate(planes.float(), larger, mode="bicubic", antialias=True)
        planes = planes.round_().clamp_(0, 255).to(torch.uint8)
        out[name] = planes if out[name].dim() == 4 else planes[:, 0]
    top = torch.randint(larger[0] - height + 1, (n,), generator=draw)
    left = torch.randint(larger[1] - width + 1, (n,), generator=draw)
    return flip(crop(out, top, left, (height, width)), draw, p=p)


def transfer_pairs(
    train: PersonImages, a: int, b: int, *, model: int = 4, variant: str = "static", per_source: int = 10, seed: int = 0
) -> Tensor:
    """List the training pairs (image of a, image of b) of a model, int64 [P,2].

    Models 1-3 and the variable variant of model 4 take every pair of one person and sequence (`camera_pair`), static
    model 4 every image of a with `per_source` random images of b, whoever they show.

    Raises:
        ValueError: a camera without images, no person and sequence in both, missing masks.

    >>> train = PersonImages(torch.zeros(3, 3, 8, 4, dtype=torch.uint8), [1, 1, 2], [1, 2, 1], sequences=[1, 1, 1])
    >>> transfer_pairs(train, 1, 2, model=1).tolist()
    [[0, 1]]
    """
    needed = masks_needed(model, variant)
    if needed and not train.has("masks"):
        raise ValueError(f"model {model} ({variant}) trains on person masks, and this set has none: {train!r}")
    if model == 4 and variant == "static":
        return random_targets(train, a, b, per_source=per_source, seed=seed)
    pairs = camera_pair(train, a, b).train_pairs
    if len(pairs) == 0:
        raise ValueError(f"no identity is in cameras {a} and {b} in the same sequence, so model {model} has no pairs")
    return pairs


def transfer_batches(
    train: PersonImages,
    a: int,
    b: int,
    *,
    model: int = 4,
    variant: str = "static",
    per_source: int = 10,
    batch_size: int = 16,
    image_size: tuple[int, int] | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Batches:
    """Give the training batches of a model: `transfer_pairs` through `load_pairs`.

    Args:
        train: where both cameras' images are.
        a, b: camera numbers, from and to.
        model, variant, per_source, seed: see `transfer_pairs`; `seed` also orders and augments.
        batch_size: pairs in a batch.
        image_size: (height, width) of the networks; default that of `train`.
        augment: instead of `load_pairs`; it must give images of `image_size`.
        device: see `Batches`.

    Raises:
        ValueError: see `transfer_pairs`.
    """
    pairs = transfer_pairs(train, a, b, model=model, variant=variant, per_source=per_source, seed=seed)
    augment = augment or partial(load_pairs, image_size=image_size or train.image_size)
    return Batches(train, pair_batches(pairs, batch_size), augment=augment, device=device, seed=seed)


def train_transfer(
    train: PersonImages,
    a: int,
    b: int,
    *,
    model: int = 4,
    images_seen: int | None = None,
    preset: str = "course",
    batch_size: int | None = None,
    ema: float | str | None = "preset",
    per_source: int = 10,
    augment: Augment | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    run_dir: str | Path | None = None,
    evaluate: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    evaluations: int = 1,
    progress: bool = True,
    **switches: Any,
) -> tuple[CameraTransfer, History]:
    """Train a model to move images of camera a to camera b, and return it with its history.

    Args:
        train: the training set; the thesis gives it the images of both cameras.
        a, b: camera numbers.
        model: 1, 2, 3 or 4.
        images_seen: length of the training in pairs; default the thesis's 10 epochs.
        preset: see `CameraTransfer`; also batch size (course 16; paper 1, model 4: 32) and `ema` (course 0.99).
        batch_size, ema: instead of the preset's; `ema` None turns averaged weights off, see `training.fit`.
        per_source: random targets of each image, for model 4.
        augment: see `transfer_batches`.
        seed: of initial weights, pairs, order and augmentation.
        device, run_dir: see `training.fit`.
        evaluate: called `evaluations` times, evenly spread, the last time at the end.
        progress: show progress.
        switches: further arguments of `CameraTransfer`, its ablation switches among them.

    Raises:
        ValueError: see `transfer_pairs` and `CameraTransfer`; less than a batch to see.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: accepted are {', '.join(map(repr, PRESETS))}")
    device = pick_device(device)
    batch_size = batch_size or TRAINING[preset]["batch_size"][4 if model == 4 else 1]
    probe_size = switches.get("image_size") or PRESETS[preset]["image_size"]
    batches = transfer_batches(
        train, a, b, model=model, variant=switches.get("variant", "static"), per_source=per_source,
        batch_size=batch_size, image_size=probe_size, augment=augment, seed=seed, device=device,
    )  # fmt: skip
    steps = EPOCHS * len(batches) if images_seen is None else images_seen // batch_size
    if steps < 1:
        raise ValueError(f"images_seen={images_seen} is less than one batch of {batch_size}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = CameraTransfer(model=model, preset=preset, steps=steps, **switches)
    history = fit(
        method,
        batches,
        steps,
        run_dir,
        seed=seed,
        device=device,
        ema=TRAINING[preset]["ema"] if ema == "preset" else ema,
        evaluate=evaluate,
        evaluate_every=max(1, steps // evaluations) if evaluate else None,
        settings=method.settings | {"cameras": [a, b], "batch_size": batch_size, "images": len(train)},
        progress=progress,
    )
    return method, history


def transfer(
    method: CameraTransfer,
    train: PersonImages,
    a: int,
    b: int,
    *,
    subset: str | Tensor = "all",
    seed: int = 0,
    device: str | torch.device = "auto",
    folder: str | os.PathLike | None = None,
    batch_size: int = 128,
    progress: bool = False,
) -> PersonImages:
    """Move images of camera a to camera b: the extension G_b, with the sources' identities and camera number b.

    Args:
        method: what `train_transfer(train, a, b)` made.
        train: where the images are; model 3 also takes the masks of its images of b.
        a, b: camera numbers.
        subset: which images of a:
            "all" of them (the thesis's model 4, and what its tables are read as here);
            "unpaired", those whose person and sequence camera b never shows (the thesis's test set of models 1-3);
            "new_ids", those whose person camera b never shows at all;
            or their positions in `train`, int64 [M].
        seed: of model 3's target masks, each of a random image of b.
        device: where the method lies; "auto" asks its parameters.
        folder, batch_size, progress: see `synthesise`.

    Raises:
        ValueError: another subset, one without images or with images of other cameras; missing masks; for "unpaired"
            and "new_ids" also no identity in both cameras.
    """
    chosen = subset_rows(train, a, b, subset)
    sources = train.select(indices=chosen)
    options = dict(camids=b, folder=folder, batch_size=batch_size, device=device, progress=progress)
    if method.model != 3:
        return synthesise(method, sources, **options)
    targets = train.select(camids=b)
    if len(targets) == 0:
        raise ValueError(f"model 3 takes target masks from camera {b}, which has no images")
    rows = torch.randint(len(targets), (len(sources),), generator=generator(seed))
    pairs = torch.stack([torch.arange(len(sources)), rows], dim=1)
    return synthesise(method, sources, pairs, targets=targets, **options)


def subset_rows(train: PersonImages, a: int, b: int, subset: str | Tensor = "all") -> Tensor:
    """Return the positions in `train` of the images that `transfer` moves from a to b, int64 [M].

    >>> train = PersonImages(torch.zeros(3, 3, 8, 4, dtype=torch.uint8), [1, 1, 2], [1, 2, 1], sequences=[1, 1, 1])
    >>> [subset_rows(train, 1, 2, subset).tolist() for subset in SUBSETS]
    [[0, 2], [2], [2]]
    """
    if isinstance(subset, Tensor):
        rows = subset
        if others := set(train.camids[rows].tolist()) - {a}:
            raise ValueError(f"the images to move must be of camera {a}, some are of {sorted(others)}")
    elif subset not in SUBSETS:
        raise ValueError(f"subset must be one of {', '.join(SUBSETS)}, or positions in the set, got {subset!r}")
    elif subset == "all":
        rows = (train.camids == a).nonzero().flatten()
    else:
        pair = camera_pair(train, a, b)
        rows = pair.generate_from_a if subset == "unpaired" else pair.new_ids_from_a
    if len(rows) == 0:
        cameras = train.camids.unique().tolist()
        raise ValueError(f"no image of camera {a} is in the subset {subset!r}; the set's cameras are {cameras}")
    return rows
