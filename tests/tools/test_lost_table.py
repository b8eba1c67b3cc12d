"""The two re-ID systems of SAN's augmentation table."""

import torch

from reidlib.datasets import Benchmark, PersonImages
from reidlib.embedders import embed_all
from reidlib.evaluators.metric_learning import KISSME, XQDA
from reidlib.experiments import score_features, train_baseline
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
