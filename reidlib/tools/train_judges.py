r"""Training of the judges of `evaluators.judges`, and the command that made the recorded ones.

`reidlib judges` renders people of seed 1000 in both scenes, trains the three networks on them,
measures them on people of seed 1001, and writes weights and `judges.results.json` to `notebooks/weights`. With
`--measure` it trains nothing and only measures them again, on the people that the present renderer draws.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice, reading_inputs
from reidlib.course.runs import Run
from reidlib.datasets import PersonImages, extend, load
from reidlib.datasets.augment import Batch, compose, enlarge_crop, erase, flip
from reidlib.datasets.procedural import RENDERER_VERSION
from reidlib.datasets.procedural.people import SCENES
from reidlib.datasets.sampling import Augment, Batches, uniform_batches
from reidlib.evaluators import evaluate_retrieval
from reidlib.evaluators.judges import (
    COMMAND,
    FOLDER,
    NAMES,
    RESULTS,
    CameraJudge,
    IdentityJudge,
    Judges,
    PoseJudge,
    camera_style,
    file_name,
    identity_kept,
    load_judges,
    pose_pck,
)
from reidlib.experiments import train_baseline
from reidlib.files import atomic_path, resolve
from reidlib.machine import pick_device
from reidlib.networks import normalise, save_weights
from reidlib.training import fit

SEEDS = {"trained on": 1000, "measured on": 1001}  # people of no notebook
RULES = {
    "pose_pck@0.1": "visible joints within 0.1 of the image's height",
    "pose_pck@0.05": "visible joints within 0.05 of the image's height",
    "identity_kept rank-1": "nearest of all other images, all cameras",
    "identity_kept rank-10": "any of the 10 nearest of all other images, all cameras",
    "retrieval rank-1": "evaluate_retrieval, every image a query, cross_camera",
    "camera_style": "share recognised",
}
IMAGES_SEEN = {"pose": 90_000, "identity": 80_000, "camera": 16_000}
BATCH_SIZE = 64


def disturb(
    batch: Batch, generator: torch.Generator, *, colour: float = 0.25, noise: float = 10.0, blur: float = 0.3
) -> Batch:
    """Give images the faults of generated ones: other colours, noise, blur; one draw for each image.

    Args:
        batch: with images uint8 [B, 3, H, W].
        generator: on the CPU.
        colour: each channel is scaled by a factor from 1 - colour to 1 + colour.
        noise: the deviation of the noise is uniform from 0 to this many grey levels.
        blur: probability of a 3x3 binomial blur; and of a second one after it.

    >>> images = torch.full((2, 3, 8, 4), 100, dtype=torch.uint8)
    >>> plain = disturb({"images": images}, torch.Generator(), colour=0, noise=0, blur=1)["images"]
    >>> bool((plain == images).all())
    True
    """
    images = batch["images"].float()
    n, device = len(images), images.device
    draw = torch.rand(6, n, 1, 1, 1, generator=generator).to(device)
    gain = 1 + colour * (2 * draw[:3].permute(1, 0, 2, 3, 4)[..., 0] - 1)  # [B, 3, 1, 1]
    speckle = torch.randn(images.shape, generator=generator).to(device)
    out = images * gain
    kernel = torch.tensor([1.0, 2.0, 1.0], device=device) / 4
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    for chosen in (draw[3] < blur, (draw[3] < blur) & (draw[4] < blur)):
        soft = F.conv2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
        out = torch.where(chosen, soft, out)
    out = out + noise * draw[5] * speckle
    return batch | {"images": out.round().clamp(0, 255).to(torch.uint8)}


class _Training(nn.Module):
    """A judge and its loss, as a method for `fit`: Adam, one warm-up and a cosine to zero."""

    def __init__(self, judge: nn.Module, loss: Callable[[Tensor, Batch], Tensor], steps: int) -> None:
        super().__init__()
        self.judge, self.loss, self.steps = judge, loss, steps

    def optimizers(self) -> dict:
        parameters = list(self.judge.parameters())
        return {"J": (parameters, torch.optim.Adam(parameters, lr=3e-3), self.schedule)}

    def schedule(self, step: int) -> float:
        """Return the factor of the rate: up over a twentieth of the run, then a cosine to zero."""
        return min(1.0, 20 * (step + 1) / self.steps) * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def training_step(self, batch: Batch, step: int, update: Callable[[str, Tensor], None]) -> dict[str, Tensor]:
        loss = self.loss(self.judge(normalise(batch["images"])).float(), batch)
        update("J", loss)
        return {"loss": loss}


def pose_loss(maps: Tensor, batch: Batch, *, sigma: float = 1.0) -> Tensor:
    r"""Return the cross-entropy between a Gaussian about each visible joint and the judge's map.

    $$L = -\frac{1}{|V|} \sum_{j \in V} \sum_c g_j(c) \log p_j(c), \qquad
      g_j(c) \propto \exp(-\lVert c - x_j \rVert^2 / 2 \sigma^2)$$

    with $\sigma$ in cells of the map, two pixels each.
    """
    height, width = maps.shape[-2:]
    points = batch["keypoints"]
    cells = (points[..., :2] - 0.5) / 2  # pixels to cells
    rows, columns = (torch.arange(n, device=maps.device) for n in (height, width))
    squares = ((rows - cells[..., 1:]) ** 2)[..., None] + ((columns - cells[..., :1]) ** 2)[..., None, :]
    target = (-squares / (2 * sigma**2)).flatten(2).softmax(2)  # [B, 18, cells]
    entropy = -(target * maps.flatten(2).log_softmax(2)).sum(2)
    seen = (points[..., 2] > 0).float()
    return (entropy * seen).sum() / seen.sum().clamp(min=1)


def train_judges(
    images: PersonImages,
    *,
    dataset: str,
    images_seen: dict[str, int] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Judges:
    """Train the three judges on people that no generator and no re-ID network will meet.

    Args:
        images: with key points, identities (pid > 0; others are left out) and cameras, at the judges' own image size,
            multiples of 16.
        dataset: its name, which `load_judges` checks.
        images_seen: length of the training of "pose", "identity" and "camera"; default `IMAGES_SEEN`.
        seed: of weights, order and augmentation.
        device: see `training.fit`.
        progress: show progress.

    Raises:
        ValueError: no key points, one camera only, or an image size that does not fit.
    """
    lengths = IMAGES_SEEN | (images_seen or {})
    images = images.select(indices=images.pids > 0)
    camids = images.camids.unique()
    height, width = images.image_size
    if not images.has("keypoints") or len(camids) < 2 or height % 16 or width % 16:
        raise ValueError(
            f"judges are trained on images with key points, of two cameras or more, in a size of multiples of 16; "
            f"got key points: {images.has('keypoints')}, cameras {camids.tolist()}, {height}x{width}"
        )
    device = pick_device(device)
    options = {"seed": seed, "device": device, "progress": progress}
    style = torch.searchsorted(camids, images.camids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pose, camera = PoseJudge(), CameraJudge(len(camids))
        faults = compose(flip, enlarge_crop, disturb)
        _train(pose, pose_loss, images, images.pids, faults, lengths["pose"], **options)
        _train(camera, _camera_loss, images, style, compose(flip, enlarge_crop, erase), lengths["camera"], **options)
        identity = _train_identity(images, lengths["identity"], options)
    return Judges(pose, identity, camera, tuple(camids.tolist()), images.image_size, dataset)


def _camera_loss(scores: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(scores, batch["labels"], label_smoothing=0.1)


def _train(
    judge: nn.Module,
    loss: Callable[[Tensor, Batch], Tensor],
    images: PersonImages,
    labels: Tensor,
    augment: Augment,
    images_seen: int,
    *,
    seed: int,
    device: torch.device,
    progress: bool,
) -> None:
    """Train one judge in place and leave it in evaluation mode, on its device."""
    sampler = uniform_batches(len(images), BATCH_SIZE)
    batches = Batches(images, sampler, augment=augment, device=device, seed=seed, labels=labels)
    steps = max(1, images_seen // BATCH_SIZE)
    fit(_Training(judge, loss, steps), batches, steps, seed=seed, device=device, progress=progress)
    judge.eval().requires_grad_(False)


def _train_identity(images: PersonImages, images_seen: int, options: dict) -> IdentityJudge:
    """Train the re-ID baseline and keep what its features need."""
    judge = IdentityJudge()
    augment = compose(flip, enlarge_crop, partial(disturb, colour=0.05), partial(erase, p=0.3))
    width = judge.backbone.dimensions // 8
    method, _ = train_baseline(images, images_seen=images_seen, augment=augment, width=width, start="none", **options)
    judge.backbone, judge.neck = method.embedder.backbone, method.embedder.heads[0].norm
    return judge.eval().requires_grad_(False)


def judge_accuracy(judges: Judges, images: PersonImages) -> dict[str, float]:
    """Measure the judges on real images of people they were not trained on, by the rules for generated images.

    Each image looks for its person among all the others, of all cameras; "retrieval rank-1" is the harder search
    among other cameras' images only.
    """
    images = images.select(indices=images.pids > 0)
    pixels = images.images
    kept = identity_kept(pixels, images.pids, images, judges, source_rows=torch.arange(len(images)))
    features = judges.embed(pixels)
    ids = {f"{side}_{name}": getattr(images, name) for side in ("query", "gallery") for name in ("pids", "camids")}
    scores = evaluate_retrieval(features, features, **ids)
    return {
        "pose_pck@0.1": pose_pck(pixels, images.keypoints, judges, 0.1),
        "pose_pck@0.05": pose_pck(pixels, images.keypoints, judges, 0.05),
        "identity_kept rank-1": kept.rank1,
        "identity_kept rank-10": kept.rank10,
        "retrieval rank-1": scores.rank(1),
        "camera_style": camera_style(pixels, images.camids, judges).share,
    }


def save_judges(
    judges: Judges, folder: str | os.PathLike, people: dict[str, PersonImages], *, seconds: float = 0.0, **facts: Any
) -> Judges:
    """Write the judges in half precision, measure them as stored, and record the numbers beside them.

    Args:
        judges: what `train_judges` gave.
        folder: gets `judges-<name>.safetensors` and `judges.results.json`.
        people: name -> images of people they were not trained on.
        seconds: how long the training took.
        facts: further parameters to keep (seeds, command).

    Returns:
        the judges as `load_judges(folder)` gives them, with `accuracy` "name (people)".
    """
    folder = resolve(folder)
    for name in NAMES:
        save_weights(getattr(judges, name), folder / file_name(name), half=True)
    _record(judges, folder, {}, seconds, facts)  # load_judges reads what they know from here
    metrics = _measure(load_judges(folder, dataset=judges.dataset), people)
    _record(judges, folder, metrics, seconds, facts)
    return load_judges(folder, dataset=judges.dataset)


def _measure(judges: Judges, people: dict[str, PersonImages]) -> dict[str, tuple[float, str]]:
    """Return value and rule of each metric on each group of people."""
    measured = {name: judge_accuracy(judges, images) for name, images in people.items()}
    return {f"{m} ({name})": (v, RULES[m]) for name, values in measured.items() for m, v in values.items()}


def _record(judges: Judges, folder: Path, metrics: dict[str, tuple], seconds: float, facts: dict[str, Any]) -> None:
    """Write `judges.results.json`: metrics, facts, and what the judges know."""
    known = {"dataset": judges.dataset, "camids": judges.camids, "image_size": judges.image_size}
    with tempfile.TemporaryDirectory() as made:
        run = Run("judges", facts | known, Path(made), pick_device(), time.monotonic() - seconds)
        for name, (value, rule) in metrics.items():
            run.metric(name, value, rule)
        path = run.record()
        with atomic_path(folder / RESULTS) as temporary:
            temporary.write_bytes(path.read_bytes())


def measure_again(folder: str | os.PathLike, people: dict[str, PersonImages], *, renderer_version: int) -> Judges:
    """Measure stored judges on other people and record the new numbers; their weights stay.

    What `judges.results.json` says of their training stays in it: `seconds`, and in `trained` the commit, the date and
    the version of the renderer that drew the people they were trained on.

    Args:
        folder: holds what `save_judges` wrote.
        people: name -> images of people they were not trained on.
        renderer_version: of the renderer that drew these people.
    """
    folder = resolve(folder)
    old = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    facts, dataset = old["parameters"], old["parameters"]["dataset"]
    judges = load_judges(folder, dataset=dataset)
    first = {"commit": old["commit"], "finished": old["finished"], "renderer_version": facts.get("renderer_version")}
    facts |= {"trained": facts.get("trained", first), "renderer_version": renderer_version}
    _record(judges, folder, _measure(judges, people), old["seconds"], facts)
    return load_judges(folder, dataset=dataset)


def procedural_people(seed: int, scene: str, *, size: str = "course", root: str | os.PathLike = "data") -> PersonImages:
    """Render people of the `market1501` network and return all images of known people, with key points only."""
    bench = load("procedural", root, (64, 32), seed=seed, size=size, scene=scene)
    everyone = extend(bench.train, bench.query, bench.gallery)
    everyone = everyone.select(indices=everyone.pids > 0)
    return PersonImages(everyone.images, everyone.pids, everyone.camids, keypoints=everyone.keypoints)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib judges`."""
    parser.add_argument("--root", default="data", help="where the people are rendered to (default: data)")
    parser.add_argument("--folder", default=FOLDER, help=f"where the judges go (default: {FOLDER})")
    parser.add_argument("--size", default="course", help="how many people: smoke or course (default)")
    parser.add_argument("--measure", action="store_true", help="train nothing: measure the judges in FOLDER again")
    parser.add_argument("--share", type=float, default=1.0, help="of the images seen in training (default: 1)")


def run(given: argparse.Namespace) -> int:
    """Make or measure the recorded judges and print how often each is right."""
    with reading_inputs():
        check_choice("size", given.size, ("smoke", "course"))
        if not given.share > 0:
            raise ValueError(f"share must be more than 0, got {given.share}")
        if given.measure:
            load_judges(given.folder)
    trained_on, measured_on = SEEDS.values()
    others = {p: procedural_people(measured_on, p, size=given.size, root=given.root) for p in SCENES}
    if given.measure:
        judges = measure_again(given.folder, others, renderer_version=RENDERER_VERSION)
    else:
        seen = {name: int(given.share * n) for name, n in IMAGES_SEEN.items()}
        first, second = (procedural_people(trained_on, p, size=given.size, root=given.root) for p in SCENES)
        everyone = extend(first, second.with_labels(pids=second.pids + 100_000))  # a number is another person there
        began = time.monotonic()
        judges = train_judges(everyone, dataset="procedural", images_seen=seen)
        judges = save_judges(
            judges, given.folder, others, seconds=time.monotonic() - began, command=COMMAND, seeds=SEEDS,
            network="market1501", scenes=SCENES, size=given.size, images_seen=seen, renderer_version=RENDERER_VERSION,
        )  # fmt: skip
    for name, value in judges.accuracy.items():
        print(f"{value:.3f}  {name}")
    return 0
