"""The embedded data set on disk: plan, layout, names, queries, resuming, determinism, arguments."""

import hashlib
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reidlib.datasets import camera_pair, load
from reidlib.datasets.procedural import make, write
from reidlib.datasets.procedural.layout import FOLDERS, plan, share_out, sizes
from reidlib.datasets.procedural.networks import MARKET1501

NAME = re.compile(r"(-1|\d{4})_c([1-6])s([1-7])_(\d{6})_(\d{2})\.jpg")


@pytest.fixture(scope="module")
def folder(smoke_folder):
    return smoke_folder


@pytest.fixture(scope="module")
def truth(folder):
    return pd.read_csv(folder / "truth.csv")


def _hash(folder):
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".chunks" not in path.parts:
            digests[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def test_every_name_follows_market1501s_grammar(folder):
    for subset, name in FOLDERS.items():
        names = sorted(path.name for path in (folder / name).iterdir())
        assert names and all(NAME.fullmatch(entry) for entry in names), subset
        if subset in ("query", "gt_bbox"):
            assert all(entry.endswith("_00.jpg") for entry in names)
        with Image.open(folder / name / names[0]) as image:
            assert image.size == (64, 128) and image.format == "JPEG"


def test_subsets_have_their_sizes_and_disjoint_identities(truth):
    counts = truth.groupby("subset").size()
    assert counts["train"] == 16 * 12 and counts["gallery"] == 8 * 12 + 12 + 12
    train, test = (set(truth[truth["subset"] == subset]["pid"]) - {0, -1} for subset in ("train", "gallery"))
    assert len(train) == 16 and len(test) == 8 and not train & test
    assert set(truth[truth["subset"] == "query"]["pid"]) == test
    gallery = truth[truth["subset"] == "gallery"]["pid"]
    assert (gallery == -1).sum() == 12 and (gallery == 0).sum() == 12


def test_one_query_for_each_test_identity_and_camera_with_a_match_elsewhere(truth):
    query, gallery = (truth[truth["subset"] == subset] for subset in ("query", "gallery"))
    assert not query.duplicated(["pid", "camid"]).any()
    good = gallery[gallery["pid"] > 0]
    assert set(zip(query["pid"], query["camid"], strict=True)) == set(zip(good["pid"], good["camid"], strict=True))
    for pid, camid in zip(query["pid"], query["camid"], strict=True):
        assert ((good["pid"] == pid) & (good["camid"] != camid)).any()
    key = ["pid", "camid", "sequence", "frame"]
    assert query[key].merge(good[key]).empty, "no frame is both query and gallery"


def test_gt_bbox_holds_every_query_frame(truth):
    key = ["pid", "camid", "sequence", "frame"]
    query, drawn = (truth[truth["subset"] == subset] for subset in ("query", "gt_bbox"))
    assert len(query[key].merge(drawn[key])) == len(query) and len(drawn) > len(query)


def test_annotations_cover_their_images(folder, truth):
    for file, subsets in (("train", ["train"]), ("test", ["query", "gallery", "gt_bbox"])):
        lines = (folder / f"market-annotation-{file}.csv").read_text().splitlines()
        assert lines[0] == "name:keypoints_y:keypoints_x"
        names = [line.split(":")[0] for line in lines[1:]]
        assert len(names) == len(set(names))
        wanted = truth[truth["subset"].isin(subsets) & (truth["joints_seen"] > 0)]["name"]
        assert set(names) == set(wanted)
        for line in lines[1:]:
            y, x = (json.loads(part) for part in line.split(":")[1:])
            assert len(y) == len(x) == 18
            assert all((a == b == -1) or (0 <= a < 128 and 0 <= b < 64) for a, b in zip(y, x, strict=True))


def test_masks_and_parsing_lie_beside_the_images_and_agree(folder):
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        stems = {path.stem for path in (folder / name).iterdir()}
        assert stems == {path.stem for path in (folder / f"{name}_seg").iterdir()}
        assert stems == {path.stem for path in (folder / f"{name}_parsing").iterdir()}
        for stem in sorted(stems)[:12]:
            mask = np.asarray(Image.open(folder / f"{name}_seg" / f"{stem}.png"))
            with Image.open(folder / f"{name}_parsing" / f"{stem}.png") as image:
                assert image.mode == "P"
                labels = np.asarray(image)
            assert mask.dtype == np.uint8 and labels.max() < 20
            assert ((mask > 127) == (labels > 0)).all()


def test_the_reader_reads_it(folder, tmp_path):
    bench = load("procedural", folder.parents[1], (64, 32), size="smoke", cache=tmp_path, progress=False)
    assert len(bench.train) == 192 and bench.train.keypoints is not None and bench.train.parsing is not None
    assert bench.multi_query is not None and "yaw" in bench.train.info
    for a in range(1, 7):
        for b in range(1, 7):
            if a != b:
                pair = camera_pair(bench.train, a, b)
                assert len(pair.train_pairs) and len(pair.generate_from_a) and len(pair.new_ids_from_a)


def test_a_finished_set_is_returned_at_once(folder):
    before = (folder / "truth.csv").stat().st_mtime_ns
    assert make(folder.parents[1], size="smoke", progress=False) == folder
    assert (folder / "truth.csv").stat().st_mtime_ns == before


def test_a_set_made_before_the_scene_had_its_name_is_found(tmp_path):
    """Facts of older sets say `preset`; their folders' names are the same, and nothing is rendered anew."""
    old = tmp_path / "procedural" / f"dukemtmc-smoke-generation-difficulty0.5-seed4-64x32-v{write.RENDERER_VERSION}"
    old.mkdir(parents=True)
    (old / "finished.json").write_text(json.dumps({"network": "dukemtmc", "preset": "generation"}))
    options = {"size": "smoke", "scene": "generation", "network": "dukemtmc", "seed": 4, "image_size": (64, 32)}
    assert make(tmp_path, difficulty=0.5, progress=False, **options) == old
    assert [path.name for path in tmp_path.rglob("*")] == ["procedural", old.name, "finished.json"]


def test_a_set_of_an_older_renderer_is_left_alone_and_a_new_one_rendered_beside_it(tmp_path):
    options = {"size": "smoke", "seed": 5, "progress": False}
    name = write.folder_name((128, 64), "smoke", 5, "retrieval", "market1501", 1.0)
    old = tmp_path / "procedural" / name.replace(f"-v{write.RENDERER_VERSION}", "-v2")
    (old / "bounding_box_train").mkdir(parents=True)
    (old / "bounding_box_train" / "0001_c1s1_000351_01.jpg").write_bytes(b"of another renderer")
    (old / "finished.json").write_text(json.dumps({"renderer_version": 2}))
    bench = load("procedural", tmp_path, (64, 32), cache=tmp_path / "cache", **options)
    assert bench.folder == old.with_name(name) != old and len(bench.train) == 192
    assert json.loads((bench.folder / "finished.json").read_text())["renderer_version"] == write.RENDERER_VERSION > 2
    assert sorted(path.name for path in old.rglob("*.*")) == ["0001_c1s1_000351_01.jpg", "finished.json"]


def test_an_interrupted_set_is_continued_by_two_processes_to_the_same_bytes(folder, tmp_path):
    part = tmp_path / "procedural" / folder.name
    write.prepare(part, json.loads((folder / "settings.json").read_text()))
    with ThreadPoolExecutor(2) as pool:  # two at once, some chunks by both
        for job in [pool.submit(write.write, part, first=first, every=2, stop_after=3) for first in (0, 2)]:
            job.result()
    assert not (part / "finished.json").exists()
    sorted((part / ".chunks").iterdir())[0].unlink()  # killed before the chunk's marker
    assert make(tmp_path, size="smoke", progress=False, workers=2) == part
    ours, theirs = _hash(part), _hash(folder)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_progress_is_printed_only_on_request(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("reidlib.machine.SECONDS_BETWEEN_LINES", 0)
    settings = {
        "network": "market1501",
        "size": "smoke",
        "scene": "generation",
        "difficulty": 1.0,
        "seed": 1,
        "image_size": [64, 32],
        "renderer_version": 0,
    }
    write.prepare(tmp_path, settings)
    write.write(tmp_path, stop_after=1, progress=False)
    assert capfd.readouterr() == ("", "")
    write.write(tmp_path, stop_after=2, progress=True)
    said = capfd.readouterr()
    assert [line[:22] for line in said.out.splitlines()] == [
        "rendering people 2/8 c",
        "rendering people 3/8 c",
    ] and not said.err


def test_the_plan_depends_on_its_seed_alone():
    first, again, other = (plan(MARKET1501, "smoke", seed) for seed in (0, 0, 1))
    assert first.equals(again) and not first["name"].equals(other["name"])


def test_the_full_plan_has_market1501s_counts():
    table = plan(MARKET1501, "full", 0)
    counts = table.groupby("subset").size().to_dict()
    assert counts == {"train": 12936, "query": 3368, "gallery": 19732, "gt_bbox": 25259}
    train = table[table["subset"] == "train"]
    assert train["pid"].nunique() == 751 and table[table["subset"] == "query"]["pid"].nunique() == 750
    assert train.groupby("pid").size().max() > 40 and train.groupby("pid")["camid"].nunique().min() >= 2
    cameras = train.groupby("camid").size()
    assert cameras.idxmin() == 4 and cameras.max() > 2.0 * cameras.min()
    sequences = train.groupby("camid")["sequence"].nunique().tolist()
    assert sequences == [6, 3, 3, 6, 3, 4]
    assert not table.duplicated(["folder", "name"]).any()


def test_tracks_move_on():
    """Pictures of a track follow each other in time; their frames rise by a fixed step."""
    table = plan(MARKET1501, "course", 0)
    train = table[table["subset"] == "train"].sort_values("frame")
    steps = Counter(
        np.concatenate([np.diff(group["frame"]) for _, group in train.groupby(["pid", "camid", "sequence"])]).tolist()
    )
    assert steps.most_common(1)[0][0] == 25 and min(steps) > 0


def test_sizes_by_name():
    course = sizes(MARKET1501)["course"]
    assert (course.train_ids, course.train, course.test_ids, course.gallery) == (96, 96 * 24, 192, 192 * 18)


def test_share_out_refuses_too_little():
    with pytest.raises(ValueError, match="3 images cannot give 4"):
        share_out(np.ones(4), 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "smoke, course, many, full"),
        ({"scene": "easy"}, "retrieval, generation"),
        ({"network": "nowhere"}, "market1501"),
        ({"image_size": (100, 50)}, r"\(128, 64\)"),
        ({"difficulty": 3}, "from 0 to 2"),
        ({"difficulty": float("nan")}, "from 0 to 2"),
    ],
)
def test_unknown_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **arguments)
    assert not any(tmp_path.iterdir())
