"""The two re-ID systems of SAN's augmentation table, and what notebook 06 puts into it."""

import json

import nbformat
import pytest
import torch
from torch import nn

from reidlib.course.settings import Settings
from reidlib.datasets import Benchmark, PersonImages
from reidlib.datasets.annotations import LIP_LABELS
from reidlib.datasets.poses import limb_masks
from reidlib.embedders import embed_all
from reidlib.evaluators.metric_learning import KISSME, XQDA
from reidlib.experiments import score_features, train_baseline
from reidlib.files import REPOSITORY
from reidlib.generators import controls, semantic_attention
from reidlib.networks import normalise
from reidlib.tools.lost_table import score_systems


def coloured(ids: int, each: int) -> PersonImages:
    """People who differ in colour, noise on top, seen by two cameras in turn."""
    g = torch.Generator().manual_seed(0)
    colours = torch.randint(40, 215, (ids, 3, 1, 1), generator=g).repeat_interleave(each, 0)
    noise = torch.randint(-40, 40, (ids * each, 3, 64, 32), generator=g)
    images = (colours + noise).clamp(0, 255).to(torch.uint8)
    pids = torch.arange(ids).repeat_interleave(each)
    return PersonImages(images, pids, [1, 2] * (ids * each // 2))


def test_columns_are_those_of_the_same_classifier_and_distances_are_fitted_on_the_real_images():
    people = coloured(6, 4)
    bench = Benchmark("toy", people, people.select(camids=1), people.select(camids=2))
    added = people.select(indices=torch.arange(12))
    options = dict(preset="smoke", progress=False, device="cpu")
    images = PersonImages(
        torch.cat([people.batch(range(24))["images"], added.batch(range(12))["images"]]),
        torch.cat([people.pids, added.pids]),
        torch.cat([people.camids, added.camids]),
    )
    network, _ = train_baseline(images, images_seen=96, loss="softmax", **options)
    found = score_systems(bench, images, images_seen=96, **options)
    given = score_systems(bench, people, images_seen=96, ide=network, **options)
    q, g, t = (embed_all(network, part) for part in (bench.query, bench.gallery, people))
    wanted = {"IDE + Euclidean": score_features(bench, q, g)}
    for name, learnt in (("XQDA", XQDA()), ("KISSME", KISSME(dims=min(128, t.shape[1], 23)))):
        distance = learnt.fit(t, people.pids, people.camids).distance(q, g)
        wanted[f"IDE + {name}"] = score_features(bench, q, g, distance=distance)
    for name, scores in wanted.items():
        assert found[name].mAP == given[name].mAP == scores.mAP
    assert list(found) == [*wanted, "Siamese"] and 0 < found["Siamese"].mAP <= 1
    assert (
        found["Siamese"].cmc.tolist() != given["Siamese"].cmc.tolist() or found["Siamese"].mAP != given["Siamese"].mAP
    )


NOTEBOOK = REPOSITORY / "notebooks" / "06_semantic_attention.ipynb"


def cell(beginning: str, start: str, end: str = "\0") -> str:
    """The lines from `start` to before `end` of the notebook's code cell that begins so."""
    code = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    (source,) = [source for source in code if source.startswith(beginning)]
    return source[source.index(start) :].partition(end)[0]


def at_the_door(**given) -> dict:
    """Run the notebook up to the check of its parameters."""
    names = {"Settings": Settings}
    exec(cell("profile: ", "profile: "), names)
    names |= given
    exec(cell("import copy", "ROWS = ", "run = "), names)
    return names


def test_the_notebook_refuses_what_it_would_leave_out():
    for name, values in {"rows": (["copies"], ["auto", "SAN"]), "weights": ("record", "auto"),
                         "experiments": (["ablation"], ["auto", "studio"])}.items():  # fmt: skip
        for value in values:
            with pytest.raises(ValueError, match=f"{name} must be one of .*; got "):
                at_the_door(**{name: value})
    for name, value in (("rows", ["oracle"]), ("experiments", ["studio"])):
        at_the_door(**{name: value})
        with pytest.raises(ValueError, match=f"{name} must be one of"):  # there is nothing to render
            at_the_door(dataset="market1501", **{name: value})
    people = coloured(6, 4)
    labels = (torch.arange(24 * 64 * 32) % 3).to(torch.uint8).view(24, 64, 32)  # background and two garments
    people = PersonImages(people.images, people.pids, people.camids, parsing=labels)
    line = cell("preset, rendered", "larger = ", "\n")
    for alpha, message in (([0], "alpha must be .* got 0"), ([2, -1], "got -1"), ([25], "needs 24 .* there are 23")):
        with pytest.raises(ValueError, match=message):
            exec(line, at_the_door(alpha=alpha) | {"san": semantic_attention, "train": people})
    for study in NOTEBOOK.parent.glob("06_semantic_attention.*.json"):
        content = json.loads(study.read_text())
        for part in content.get("sets", [{}]):
            at_the_door(**content["base"] | part)


def test_deepfashion_is_trained_at_the_size_of_the_paper():
    for dataset, size in (("deepfashion", (256, 256)), ("market1501", (128, 64))):
        assert at_the_door(profile="paper", dataset=dataset)["settings"].size == size
        assert at_the_door(dataset=dataset)["settings"].size == (64, 32)


def test_colour_matching_as_a_row_is_told_the_targets_camera():
    people = coloured(4, 6)
    darker = people.batch(range(24))["images"] // people.camids[:, None, None, None]  # in camera 2
    people = PersonImages(darker.to(torch.uint8), people.pids, people.camids)
    names = {"torch": torch, "cache": lambda f: f, "controls": controls, "train": people}
    exec(cell("recolour = ", "recolour = ", "@cache"), names)
    row, batch = names["Recoloured"](), people.batch([0, 1, 2])
    assert isinstance(row, nn.Module) and batch["camids"].tolist() == [1, 2, 1]
    images = normalise(batch["images"], "signed")
    made = row.generate(images, row.condition(people.batch([1, 0, 4]), batch))
    for i, (a, b) in enumerate(((1, 2), (2, 1), (1, 1))):
        of = controls.ColourMatching(people.select(camids=a), people.select(camids=b))
        assert torch.equal(made[i], of.generate(images[i : i + 1])[0])
    assert (made[0] - images[0]).abs().max() > 0.01 and torch.allclose(made[2], images[2], atol=1e-3)


def test_each_side_is_repainted_by_its_own_label():
    label = {name: i for i, name in enumerate(LIP_LABELS)}
    where = {"torch": torch, "LABEL": label, "limb_masks": limb_masks, "PersonImages": PersonImages}
    where["settings"] = at_the_door()["settings"]
    exec(cell("SLEEVES = ", "SLEEVES = "), where)
    parsing = torch.full((1, 64, 32), label["upper-clothes"], dtype=torch.uint8)
    parsing[0, 40:, :16], parsing[0, 40:, 16:] = label["pants"], label["skirt"]
    parsing[0, 60:, :16], parsing[0, 60:, 16:] = label["right-shoe"], label["left-shoe"]
    points = torch.zeros(1, 18, 3)
    points[0, [3, 4, 6, 7]] = torch.tensor([[5.0, 10, 1], [5, 25, 1], [26, 10, 1], [26, 25, 1]])  # right, then left
    known = dict(keypoints=points, masks=torch.full((1, 64, 32), 255, dtype=torch.uint8), parsing=parsing)
    person = PersonImages(torch.zeros(1, 3, 64, 32, dtype=torch.uint8), [1], [1], **known)
    made, region = where["relabelled"](person, where["bare"] | where["edits"]["shoes to skin"])
    found = made.batch([0])["parsing"][0]
    assert (found[18, 5], found[18, 26]) == (label["right-arm"], label["left-arm"]) and found[18, 16] == 5
    assert (found[62, 5], found[62, 26]) == (label["right-leg"], label["left-leg"])
    assert torch.equal(region[0], found != parsing[0])
    both = where["edits"]["trousers to skirt"] | where["edits"]["skirt to trousers"]  # exchanged, not made one
    found = where["relabelled"](person, both)[0].batch([0])["parsing"][0]
    assert (found[50, 5], found[50, 26]) == (label["skirt"], label["pants"])
