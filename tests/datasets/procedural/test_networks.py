"""The stand-ins for the other camera networks: own people, own places, and trees that the real readers read."""

import hashlib
import json
import re
import warnings
from itertools import combinations

import pandas as pd
import pytest
import torch

from reidlib.datasets import load, procedural
from reidlib.datasets.contract import Protocol
from reidlib.datasets.loading import load_splits
from reidlib.datasets.person_images import DISTRACTOR, JUNK
from reidlib.datasets.procedural import facades, make, places, render, same_frame, scenes, write
from reidlib.datasets.procedural.networks import NETWORKS, network_named
from reidlib.datasets.procedural.people import describe, people
from reidlib.datasets.procedural.plans import plan
from reidlib.embedders.features import pixel_features
from reidlib.evaluators import evaluate_retrieval

OTHERS = ("dukemtmc", "cuhk03", "cuhk01", "msmt17", "reserved1", "reserved2")
SIZE = (64, 32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small set of each network, rendered as small as can be."""
    root = tmp_path_factory.mktemp("networks")
    return {
        name: make(root, size="smoke", image_size=SIZE, network=name, progress=False, workers=1)
        for name in ("market1501", *OTHERS)
    }


@pytest.fixture(scope="module")
def read(folders, tmp_path_factory):
    """Read one of them by its real reader; a warning is an error."""
    cache = tmp_path_factory.mktemp("cache")

    def of(name, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return load(name, folders[name], SIZE, cache=cache, progress=False, **options)

    return of


@pytest.fixture(scope="module")
def truths(folders):
    return {name: pd.read_csv(folder / "truth.csv") for name, folder in folders.items()}


@pytest.mark.parametrize(
    ("name", "options", "counts"),
    [
        ("dukemtmc", {}, (160, None, 84)),
        ("cuhk03", {}, (None, None, None)),
        ("cuhk03", {"split": 19, "boxes": "labeled"}, (None, None, None)),
        ("cuhk03", {"protocol": "new"}, (112, 24, 90)),
        ("cuhk03", {"protocol": "new", "boxes": "labeled"}, (113, 24, 89)),
        ("cuhk01", {"split": 3, "query_view": 2}, (48, 24, 24)),
        ("msmt17", {}, (192, None, 96)),
        ("msmt17", {"train_with_val": True}, (208, None, 96)),
    ],
)
def test_the_real_reader_reads_it_and_its_protocol_scores_it(read, name, options, counts):
    bench = read(name, **options)
    for people_, count in zip((bench.train, bench.query, bench.gallery), counts, strict=True):
        assert count is None or len(people_) == count
    assert bench.multi_query is None and (bench.gallery.pids > 0).all()
    classic = name == "cuhk03" and options.get("protocol") != "new"
    assert bench.protocol.camera_rule == ("separate_views" if classic else "cross_camera")
    assert bench.protocol.gallery_shots == (1 if classic else None)
    for people_ in (bench.train, bench.query, bench.gallery):
        batch = people_.batch(range(len(people_)))
        seen = batch["keypoints"][..., 2] > 0
        assert 0.5 < seen.float().mean() < 0.98
        image, _ = seen.nonzero(as_tuple=True)
        x, y = batch["keypoints"][seen][:, :2].long().unbind(1)
        assert (batch["masks"][image, y, x] > 127).all(), "key points, masks and images belong together"
        assert torch.equal(batch["masks"] > 127, batch["parsing"] > 0)
        assert people_.info["person"].tolist() == people_.pids.tolist() and not people_.info["yaw"].isna().any()
    query, gallery = (
        pixel_features(people_.batch(range(len(people_)))["images"]) for people_ in (bench.query, bench.gallery)
    )
    scores = evaluate_retrieval(
        query, gallery, query_pids=bench.query.pids, query_camids=bench.query.camids,
        gallery_pids=bench.gallery.pids, gallery_camids=bench.gallery.camids, **bench.protocol.arguments(),
    )  # fmt: skip
    assert 0 < scores.mAP < 1 and 0 <= scores.rank(1) < scores.rank(10) <= 1


@pytest.mark.parametrize(("name", "cameras"), [("reserved1", 6), ("reserved2", 8)])
def test_reserved_networks_are_read_as_market1501_is(folders, tmp_path, monkeypatch, name, cameras):
    monkeypatch.setattr(procedural, "make", lambda root, **asked: folders[asked["network"]])
    bench = load("procedural", tmp_path, SIZE, size="smoke", network=name, cache=tmp_path / "cache", progress=False)
    assert bench.folder == folders[name] and bench.name == "procedural" and bench.protocol == Protocol()
    assert (len(bench.train), len(bench.query)) == (16 * 2 * cameras, 8 * (cameras - 1))
    for people_ in (bench.train, bench.query):
        assert people_.camids.unique().tolist() == list(range(1, cameras + 1))
    assert (bench.gallery.pids == JUNK).sum() == 12 and (bench.gallery.pids == DISTRACTOR).sum() == 12
    assert bench.multi_query is not None and len(list(load_splits(
        "procedural", tmp_path, SIZE, size="smoke", network=name, cache=tmp_path / "cache", progress=False
    ))) == 1  # fmt: skip


def test_load_renders_a_network_and_hands_it_to_its_reader(tmp_path):
    options = {"size": "smoke", "network": "cuhk01", "cache": tmp_path / "cache", "progress": False}
    benches = list(load_splits("procedural", tmp_path, SIZE, **options))
    assert len(benches) == 20 and len({tuple(bench.train.pids.unique().tolist()) for bench in benches}) == 10
    assert {tuple(bench.query.camids.unique().tolist()) for bench in benches} == {(1,), (2,)}
    assert benches[0].folder.name.startswith("cuhk01-smoke-retrieval") and "128x64" in benches[0].folder.name


def test_duke_has_people_of_one_camera_and_one_query_for_each_other_person_and_camera(read, truths):
    bench = read("dukemtmc")
    truth = truths["dukemtmc"]
    assert truth["name"].map(lambda name: bool(re.fullmatch(r"\d{4}_c[1-8]_f\d{7}\.jpg", name))).all()
    gallery = truth[truth["subset"] == "gallery"]
    cameras = gallery.groupby("pid")["camid"].nunique()
    lone = set(gallery["pid"]) - set(bench.query.pids.tolist())
    assert len(lone) == 4 and (cameras[sorted(lone)] == 1).all() and (cameras.drop(sorted(lone)) > 1).all()
    asked = list(zip(bench.query.pids.tolist(), bench.query.camids.tolist(), strict=True))
    there = gallery[~gallery["pid"].isin(lone)]
    assert len(asked) == len(set(asked)) and set(asked) == set(zip(there["pid"], there["camid"], strict=True))
    assert bench.train.camids.unique().tolist() == list(range(1, 9))


def test_cuhk03_has_up_to_five_images_a_view_and_two_kinds_of_boxes(folders, read, truths):
    truth = truths["cuhk03"]
    counts = truth.groupby(["subset", "pid", "camid"]).size()
    assert counts.max() == 5 and counts.min() >= 3 and (counts < 5).any()
    found, drawn = (truth[truth["subset"] == f"images_{boxes}"].set_index("name") for boxes in ("detected", "labeled"))
    both = found.index.intersection(drawn.index)
    assert len(both) > 200 and (found.loc[both, "yaw"] == drawn.loc[both, "yaw"]).all(), "the same moments"
    pixels = [(folders["cuhk03"] / f"images_{boxes}" / both[0]).read_bytes() for boxes in ("detected", "labeled")]
    assert pixels[0] != pixels[1]
    bench = read("cuhk03", protocol="new")
    assert (bench.query.table().groupby(["pid", "camid"]).size() == 1).all()
    assert bench.query.pids.unique().numel() == 12 and bench.query.camids.bincount().tolist() == [0, 12, 12]
    joints = (bench.train.keypoints[:][..., 2] > 0).sum(1)
    assert joints.tolist() == bench.train.info["joints_seen"].tolist(), "OpenPose's JSON holds every joint"


def test_cuhk03s_truth_is_that_of_the_boxes_read(read, truths):
    for boxes in ("detected", "labeled"):
        people = read("cuhk03", boxes=boxes).train
        truth = truths["cuhk03"]
        own = truth[truth["subset"] == f"images_{boxes}"].set_index("name").loc[people.names]
        for column in ("box", "cut", "occluded"):
            assert people.info[column].tolist() == own[column].tolist()


def test_cuhk03_has_twenty_splits(folders):
    splits = json.loads((folders["cuhk03"] / "splits_classic_detected.json").read_text())
    assert len(splits) == 20 and all(len({tuple(who) for who in split}) == 8 for split in splits)
    assert len({json.dumps(split) for split in splits}) == 20
    assert {pair for split in splits for pair, _ in split} == {1, 2, 3, 4, 5}


def test_cuhk01_has_two_images_of_everyone_in_either_view(read, truths):
    assert (truths["cuhk01"].groupby(["pid", "camid"]).size() == 2).all()
    bench = read("cuhk01")
    assert bench.query.camids.unique().tolist() == [1] and bench.gallery.camids.unique().tolist() == [2]
    assert bench.train.pids.unique().numel() == 12


def test_msmt17_lists_number_both_sides_from_zero(folders, read):
    lists = {
        part: [line.split() for line in (folders["msmt17"] / f"list_{part}.txt").read_text().splitlines()]
        for part in ("train", "val", "query", "gallery")
    }
    numbers = {part: {int(number) for _, number in lines} for part, lines in lists.items()}
    assert numbers["train"] == set(range(16)) and numbers["val"] <= numbers["train"]
    assert numbers["query"] == numbers["gallery"] == set(range(12))
    for path, number in (line for lines in lists.values() for line in lines):
        assert path.startswith(f"{int(number):04d}/{int(number):04d}_") and 1 <= int(path.split("_")[2]) <= 15
    bench = read("msmt17", train_with_val=True)
    assert bench.query.pids.min() == 1042 and bench.train.pids.unique().tolist() == list(range(1, 17))
    assert bench.query.camids.unique().numel() > 8 and bench.train.camids.max() == 15


@pytest.mark.parametrize(
    ("name", "counts", "people_"),
    [
        ("dukemtmc", {"train": 16522, "query": 2228, "gallery": 17661}, 1812),
        ("cuhk03", {"images_detected": 14097, "images_labeled": 14096}, 1467),
        ("cuhk01", {"campus": 3884}, 971),
        ("msmt17", {"train": 30248, "val": 2373, "query": 11659, "gallery": 82161}, 4101),
    ],
)
def test_full_plans_have_the_real_sets_counts(name, counts, people_):
    table = plan(network_named(name), "full", 0)
    assert table.groupby("subset").size().to_dict() == counts and table["person"].nunique() == people_
    place = "path" if name == "msmt17" else "name"
    assert not table.duplicated(["folder", place]).any()
    moments = table[["subset", "pid", "camid", "sequence", "frame"]]
    assert not moments.duplicated().any(), "no picture is shown twice"
    if name == "cuhk03":
        roles = table.groupby(["subset", "role"]).size()
        assert roles["images_detected"].to_dict() == {"gallery": 5332, "query": 1400, "train": 7365}
        assert roles["images_labeled"].to_dict() == {"gallery": 5328, "query": 1400, "train": 7368}
        pairs = table.drop_duplicates("pid")["name"].str[0].value_counts()
        assert [pairs[str(pair)] for pair in range(1, 6)] == [843, 440, 77, 58, 49]


def test_market1501_is_as_it_was():
    """Stored sets of Market-1501's network stay valid: same plan, same seeds."""
    market = network_named("market1501")
    table = plan(market, "smoke", 0)
    digest = hashlib.sha256("\n".join(table["folder"] + "/" + table["name"]).encode()).hexdigest()
    assert digest == "ba45d3920cacca590b405b796b4ecff3d7ec361c5b8ff9f092ad317d59dc591f"
    assert market.seed(7) == 7 and market.salt == 0
    code = people([1], seed=market.seed(0), muted=0.62)["upper_colour"]
    assert torch.allclose(code, people([1], seed=0, muted=0.62)["upper_colour"])


TRAINING = {  # sha256 of every training image's name, person, moment and box: size course, seed 0, renderer version 2
    "market1501": "ca56248bbcc0c2c1beeac04ce0d050c0438103b5285f5edf8674b669696d40ad",
    "dukemtmc": "3e4e8d324066118b2653a00e0d4bc7f1e369df6955fa619bc7e830a049b188a8",
    "msmt17": "20775d493689276e81fcda2cc7aca12df6da6df8c80ed06cc7b9fc7b61f1f574",
}


def _course(name):
    table = plan(network_named(name), "course", 0)
    trained = table[table["subset"].isin(["train", "val"])]
    columns = trained[["subset", "folder", "name", "person", "camid", "sequence", "frame", "step", "box"]]
    return table, hashlib.sha256(columns.to_csv(index=False).encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "gallery"), [("market1501", 192 * 18 + 480 + 390), ("dukemtmc", 192 * 16 + 540), ("msmt17", 192 * 14)]
)
def test_the_test_side_of_course_grew_and_the_training_side_stayed(name, gallery):
    table, digest = _course(name)
    assert digest == TRAINING[name]
    trained = table["subset"].isin(["train", "val"])
    asked = table[table["subset"] == "query"]
    assert table[trained]["pid"].nunique() == 96 and asked["pid"].nunique() == 192
    assert not set(table[trained]["person"]) & set(table[~trained]["person"])
    assert (table["subset"] == "gallery").sum() == gallery
    assert not table.duplicated(["folder", "path" if name == "msmt17" else "name"]).any()


@pytest.mark.parametrize("name", ["market1501", "dukemtmc", "msmt17", "reserved1", "reserved2"])
def test_size_many_has_480_training_people(name):
    table = plan(network_named(name), "many", 3000)
    train = table[table["subset"] == "train"]
    assert train["person"].nunique() == 480 and len(train) >= 20 * 480
    assert table[table["subset"] == "query"]["pid"].nunique() == 64


def test_no_person_is_in_two_networks(truths):
    """Every attribute row of one network differs from every row of another, also for equal numbers and seeds."""
    ids = list(range(1, 301))
    rows = {}
    for name, network in NETWORKS.items():
        for seed in (0, 1):
            table = describe(people(ids, seed=network.seed(seed), muted=0.3), ids).drop(columns="pid")
            rows[name, seed] = set(table.itertuples(index=False, name=None))
            assert len(rows[name, seed]) == 300
    assert all(not rows[a] & rows[b] for a, b in combinations(rows, 2))
    looks = [column for column in truths["market1501"] if column.endswith("_colour")] + ["height", "hair", "upper"]
    shown = {name: set(truth[looks].itertuples(index=False, name=None)) for name, truth in truths.items()}
    assert all(not shown[a] & shown[b] for a, b in combinations(shown, 2))


def test_seeds_of_two_networks_never_meet():
    seeds = {network.seed(seed) for network in NETWORKS.values() for seed in (0, 1, -1, 2**32 - 2, 99)}
    assert len(seeds) == 5 * len(NETWORKS)


def test_no_place_is_in_two_networks():
    cameras = [camera for network in NETWORKS.values() for camera in network.cameras]
    assert [len(network.cameras) for network in NETWORKS.values()] == [6, 8, 2, 2, 15, 6, 8]
    assert len({(camera.ground, camera.wall) for camera in cameras}) == len(cameras)
    assert len({(camera.ground_colours, camera.wall_colours) for camera in cameras}) == len(cameras)
    views = torch.cat([scenes.panoramas(name).half[:, ::4, ::4] for name in NETWORKS]).float().flatten(1)
    gaps = torch.cdist(views, views, p=1) / views.shape[1]
    assert gaps[~torch.eye(len(views), dtype=torch.bool)].min() > 12, "levels of 255 a pixel"


def test_every_scene_is_made_of_known_parts():
    grounds = {"slabs", "brick", "setts", "lawn", "twotone", "asphalt", *places.GROUNDS}
    walls = {"hedge", "trees", "shops", "stairs", "glass", "shutter", *facades.WALLS}
    things = {"bikes", "pole", "rail", "bin", "door", "bench", "plants", *places.PROPS}
    used = [set(), set(), set()]
    for network in NETWORKS.values():
        size = len(network.cameras)
        assert len(network.sequences) == len(network.share) == len(network.seen) == size
        for camera in network.cameras:
            assert camera.near < camera.far < camera.wall_distance
            for names, new in zip(used, ({camera.ground}, {camera.wall}, set(camera.props)), strict=True):
                names |= new
    assert used == [grounds, walls, things], "none is unknown and none is never seen"


def test_pictures_on_demand_know_the_networks():
    shown = {name: render([5, 6], 2, moments=1, network=name, image_size=SIZE) for name in NETWORKS}
    for a, b in combinations(shown.values(), 2):
        assert (a.images.float() - b.images.float()).abs().mean() > 10
        assert a.info["upper_colour"].tolist() != b.info["upper_colour"].tolist()
    first, second = same_frame([3], 14, 15, network="msmt17", image_size=SIZE)
    assert torch.equal(first.masks, second.masks) and not torch.equal(first.images, second.images)
    with pytest.raises(ValueError, match="accepted are 1 to 8"):
        render([1], 9, network="dukemtmc")
    with pytest.raises(ValueError, match="market1501, dukemtmc, cuhk03, cuhk01, msmt17, reserved1, reserved2"):
        render([1], 1, network="elsewhere")


@pytest.mark.parametrize("name", ["cuhk01", "msmt17"])
def test_an_interrupted_set_is_continued_to_the_same_bytes(folders, tmp_path, name):
    whole = folders[name]
    part = tmp_path / "procedural" / whole.name
    write.prepare(part, json.loads((whole / "settings.json").read_text()))
    write.write(part, first=1, stop_after=1)
    files = sorted(path.relative_to(part) for path in part.rglob("*.png"))
    assert files and all((part / path).read_bytes() == (whole / path).read_bytes() for path in files)
    if name == "cuhk01":
        assert make(tmp_path, size="smoke", image_size=SIZE, network=name, progress=False, workers=1) == part
        assert {p.relative_to(part): p.read_bytes() for p in part.rglob("*") if p.is_file()} == {
            p.relative_to(whole): p.read_bytes() for p in whole.rglob("*") if p.is_file()
        }
