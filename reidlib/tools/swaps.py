"""Swaps of two people's codes: the recorded DG-Net, and how drawings of swapped codes are judged (notebook 07)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from reidlib.datasets import PersonImages
from reidlib.datasets.backgrounds import fill_person, mean_background
from reidlib.embedders import Baseline
from reidlib.evaluators import image_quality, nearest_neighbours
from reidlib.evaluators.judges import Judges, pose_pck
from reidlib.files import resolve
from reidlib.generators.recorded import FOLDER, load_generator
from reidlib.generators.synthesis import synthesise
from reidlib.networks import load_weights, read_facts, save_weights


def recorded_dg_net(
    name: str = "dg_net", *, device: str | torch.device = "cpu", folder: str | Path = FOLDER
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return the recorded DG-Net and the facts of its training, see `load_generator`; it draws, and has no teacher."""
    facts = read_facts(resolve(folder) / f"{name}.safetensors")
    encoder = Baseline(facts["identities"], form="dg_net", start="none").embedder
    return load_generator(name, device, folder, encoder=encoder, feed_generated=False)


def save_teacher(teacher: Baseline, path: str | Path, people: PersonImages) -> Path:
    """Write a teacher's weights, in half precision, with the identities of `people`, whom it was trained on."""
    return save_weights(teacher.embedder, path, half=True, facts={"pids": label_set(people)})


def load_teacher(path: str | Path, people: PersonImages, **options: Any) -> Baseline:
    """Return the teacher of `save_teacher`'s file; `options` are those of `Baseline`.

    Raises:
        FileNotFoundError, ValueError: no such file; one of a teacher of other identities than those of `people`.
    """
    known, wanted = read_facts(path).get("pids", []), label_set(people)
    if known != wanted:
        counts = f"{len(known)} identities, {len(set(known) & set(wanted))} of them among the set's {len(wanted)}"
        raise ValueError(f"{path} holds a teacher of {counts}: train one on this set")
    teacher = Baseline(len(wanted), form="dg_net_teacher", **options)
    load_weights(teacher.embedder, path)
    return teacher


def label_set(people: PersonImages) -> list[int]:
    """Return the identities that a classifier of these people tells apart, in their order."""
    return people.pids[people.pids >= 0].unique().tolist()


def judge_swaps(
    methods: Mapping[str, nn.Module], people: PersonImages, pairs: Tensor, *, judges: Judges, **options: Any
) -> pd.DataFrame:
    """Return one row of numbers a method that swaps: did structure stay, was the appearance transferred?

    Above the methods stand both images unchanged ("copy of the appearance image", "... of the structure image").

    Args:
        methods: by the name of their rows; each draws `people[pairs[:, 0]]` in the structure of `people[pairs[:, 1]]`.
            A second row a method, "<name>, reconstruction", draws each structure image from its own two codes.
        people: test images with key points and masks; also the gallery.
        pairs: int64 [M,2], rows of `people`: appearance and structure.
        judges: see `evaluators.judges.load_judges`.
        options: of `synthesise`.

    Returns:
        the columns "appearance first" and "structure first": the share of pictures whose nearest image among `people`,
        the two source images left out, shows the appearance's, or the structure's, person; "PCK@0.1" and "mask IoU"
        (`image_quality.silhouette_iou`: what differs from the structure image, its person covered by the mean scene of
        the camera) against the structure image; "FID" (judges' looks) to `people`.
    """
    sources, targets = (people.batch(rows)["images"] for rows in pairs.T)
    wanted, own = people.batch(pairs[:, 1]), pairs[:, 1:].expand(-1, 2)
    made = {"copy of the appearance image": sources, "copy of the structure image": targets}
    for name, method in methods.items():
        drawn = (synthesise(method, people, rows, targets=people, **options).images for rows in (own, pairs))
        made |= zip((f"{name}, reconstruction", name), drawn, strict=True)
    rows = torch.arange(len(people)).split(512)
    gallery = torch.cat([judges.embed(people.batch(some)["images"]) for some in rows])
    cameras, inverse = people.camids[pairs[:, 1]].unique(return_inverse=True)
    means = torch.stack([mean_background(people.select(camids=c)) for c in cameras.tolist()])[inverse]
    scenes = fill_person(targets, wanted["masks"], means)
    table = {}
    for name, images in made.items():
        found = nearest_neighbours(judges.embed(images), gallery, min(3, len(people))).indices
        other = (found[..., None] != pairs[:, None]).all(2).int().argmax(1, keepdim=True)
        first, owners = people.pids[found.gather(1, other)], people.pids[pairs]
        line = dict(
            zip(("appearance first", "structure first"), (first == owners).double().mean(0).tolist(), strict=True)
        )
        line |= {"PCK@0.1": pose_pck(images, wanted["keypoints"], judges)}
        line |= {"mask IoU": image_quality.silhouette_iou(images, wanted["masks"], scenes)}
        line |= {"FID": image_quality.fid(people, images, features=judges.looks, name="judges' looks").value}
        table[name] = line
    return pd.DataFrame(table).T
