"""Training of the recorded starts: what every re-ID network of the course begins from, in ImageNet's place.

`reidlib starts` renders people of the networks `reserved1` and `reserved2`, which no table trains or tests on, trains
the course's re-ID network on them, measures it untrained on other people of these networks, and writes its backbone
with `starts.results.json` to `notebooks/weights`.

Chosen on validation people (mAP of camera 5 alone, and with pasted people of camera 6): 96 people a network, each
network in one scene, 60,000 images. Of both scenes, and of 480 people, a network learnt less in that time, probably
because every (person, camera) is a class and each image is seen too few times; longer trainings were not compared.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from reidlib.checks import check_choice, reading_inputs
from reidlib.course.runs import Run
from reidlib.datasets import Benchmark, PersonImages, extend, load
from reidlib.datasets.contract import check_size
from reidlib.datasets.procedural import RENDERER_VERSION
from reidlib.embedders import Baseline
from reidlib.embedders.starts import COMMAND, FOLDER, RECORDED, WIDTH
from reidlib.experiments import score_benchmark, train_baseline
from reidlib.files import atomic_path, resolve
from reidlib.machine import commit, pick_device
from reidlib.networks import SmallResNet, load_weights, save_weights

SCENES = {"reserved1": "retrieval", "reserved2": "generation"}  # of each network
IMAGES_SEEN = 60_000
RESULTS = "starts.results.json"


class Plan(NamedTuple):
    """One start: the seed of its people, the seed of its training, its image size."""

    people: int
    seed: int
    image_size: tuple[int, int]


PLANS = {
    file.removesuffix(".safetensors"): Plan(2001 if name == "recorded-2" else 2000, name == "recorded-2", size)
    for (name, size), file in RECORDED.items()
}


def split_labels(images: PersonImages) -> PersonImages:
    """Label each person in each camera as somebody of its own, so that no label links two cameras.

    A network that learnt which images of two cameras show one person would know what camera transfer is about.

    >>> people = PersonImages(torch.zeros(4, 3, 8, 4, dtype=torch.uint8), [5, 5, 9, -1], [1, 2, 1, 1])
    >>> split_labels(people).pids.tolist()
    [0, 1, 2]
    """
    images = images.select(indices=images.pids >= 0)
    _, labels = torch.stack([images.pids, images.camids]).unique(dim=1, return_inverse=True)
    return images.with_labels(pids=labels)


def rendered(seed: int, image_size: tuple[int, int], **options: Any) -> dict[str, Benchmark]:
    """Render the people of a seed, each network in its scene, and return the sets by "network, scene"."""
    options |= dict(image_size=image_size, seed=seed)
    return {f"{n}, {scene}": load("procedural", network=n, scene=scene, **options) for n, scene in SCENES.items()}


def make_start(
    name: str,
    *,
    folder: str | os.PathLike = FOLDER,
    size: str = "course",
    root: str | os.PathLike = "data",
    images_seen: int = IMAGES_SEEN,
    image_size: tuple[int, int] | None = None,
    progress: bool = True,
) -> dict[str, float]:
    """Train a start, write its backbone in half precision, and return what it scores on people it was not trained on.

    Args:
        name: of `PLANS`.
        folder: gets `<name>.safetensors`, whose header holds the facts.
        size: of the rendered people; the start is measured on their test side.
        root: where they are rendered to.
        images_seen: length of the training.
        image_size: instead of the plan's, for a quick test.
        progress: show progress.

    Returns:
        mAP (plain AP, in [0, 1]) by "network, scene".
    """
    check_choice("name", name, PLANS)
    plan = PLANS[name]
    image_size = image_size or plan.image_size
    began = time.monotonic()
    sets = rendered(plan.people, image_size, size=size, root=root, progress=progress)
    # another set's person is another person: cameras get numbers of their own, which split labels tell apart
    apart = [bench.train.with_labels(camids=bench.train.camids + 100 * i) for i, bench in enumerate(sets.values())]
    people = split_labels(extend(*apart))
    method, history = train_baseline(
        people, images_seen=images_seen, start="none", width=WIDTH, seed=int(plan.seed), progress=progress
    )
    path = resolve(folder) / f"{name}.safetensors"
    save_weights(method.embedder.backbone, path, half=True)
    stored = Baseline(2, width=WIDTH, start=path)
    scores = {where: score_benchmark(stored, bench).mAP for where, bench in sets.items()}
    facts = dict(networks=SCENES, size=size, seed_of_people=plan.people, seed=int(plan.seed))
    facts |= dict(image_size=image_size, width=WIDTH, recipe=method.recipe.name, images=len(people))
    facts |= dict(classes=len(people.pids.unique()), images_seen=history.images, renderer_version=RENDERER_VERSION)
    facts |= dict(commit=commit(), command=f"{COMMAND} --only {name}", mAP=scores)
    facts |= dict(seconds_of_training=round(history.seconds), seconds=round(time.monotonic() - began))
    save_weights(method.embedder.backbone, path, half=True, facts=facts)
    return scores


def record(folder: str | os.PathLike = FOLDER) -> Path:
    """Write `starts.results.json` from the facts in the headers of the starts in `folder`, and return its path."""
    folder, facts = resolve(folder), {}
    for name in PLANS:
        if (path := folder / f"{name}.safetensors").is_file():
            facts[name] = load_weights(SmallResNet(WIDTH), path)
    with tempfile.TemporaryDirectory() as made:
        run = Run("starts", {"command": COMMAND, "starts": facts}, Path(made), pick_device())
        for name, of_start in facts.items():
            for test, value in of_start["mAP"].items():
                rule = "test people of the starts' networks, without training on the task, plain AP, cross camera"
                run.metric(f"{name}/{test}/mAP", value, rule)
        content = run.record().read_bytes()
    with atomic_path(folder / RESULTS) as temporary:
        temporary.write_bytes(content)
    return folder / RESULTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib starts`."""
    parser.add_argument("--only", nargs="+", default=list(PLANS), help=f"which of {', '.join(PLANS)} (default: all)")
    parser.add_argument("--root", default="data", help="where the people are rendered to (default: data)")
    parser.add_argument("--folder", default=FOLDER, help=f"where the starts go (default: {FOLDER})")
    parser.add_argument("--size", default="course", help="how many people: smoke, course (default) or many")
    parser.add_argument("--images-seen", type=int, default=IMAGES_SEEN, help=f"length (default: {IMAGES_SEEN})")
    sizes = dict(type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--image-size", help="instead of the start's own, for a quick test", **sizes)


def run(given: argparse.Namespace) -> int:
    """Make the recorded starts and print what each scores untrained."""
    with reading_inputs():
        for name in given.only:
            check_choice("--only", name, PLANS)
        image_size = check_size(given.image_size) if given.image_size else None
    options = dict(folder=given.folder, size=given.size, root=given.root, images_seen=given.images_seen)
    options |= dict(image_size=image_size)
    for name in given.only:
        for test, value in make_start(name, **options).items():
            print(f"{100 * value:.1f} % mAP  {name}, {test}", flush=True)
        record(given.folder)
    return 0
