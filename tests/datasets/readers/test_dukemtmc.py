import warnings
from types import SimpleNamespace

import pytest

import reidlib.datasets
from reidlib.datasets import Protocol, annotations, load
from reidlib.datasets.person_images import DISTRACTOR
from reidlib.datasets.readers import dukemtmc, market1501

NAMES = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c8_f0056541.jpg", "0005_c1_f0000001.jpg"],
    "query": ["0002_c1_f0044158.jpg", "0003_c5_f0000100.jpg"],
    "bounding_box_test": ["0002_c3_f0044200.jpg", "0003_c6_f0000300.jpg", "7000_c4_f0009999.jpg"],
}


@pytest.fixture
def duke(tmp_path, paint):
    for sub, names in NAMES.items():
        for i, name in enumerate(names):
            paint(tmp_path / "duke" / sub / name, i, (40 + 10 * i, 20 + 3 * i))  # sizes vary
    return tmp_path / "duke"


@pytest.fixture
def read(duke, tmp_path):
    def _read(root=None, **options):
        return load("dukemtmc", root or duke, (16, 8), cache=tmp_path / "cache", progress=False, **options)

    return _read


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("0005_c8_f0123456.jpg", (5, 8, -1, 123456)),
        ("0000_c1_f0123456.jpg", (DISTRACTOR, 1, -1, 123456)),
        ("0005_c9_f0123456.jpg", None),
        ("0005_c0_f0123456.jpg", None),
        ("0005_c1_f123456.jpg", None),
        ("-1_c1_f0123456.jpg", None),
        ("0005_c1s1_000451_03.jpg", None),
        ("0005_c1_f0123456.png", None),
    ],
)
def test_grammar(name, fields):
    assert market1501.parse_name(name, dukemtmc.LAYOUT) == fields


def test_everything_that_names_say(read):
    bench = read()
    assert bench.name == "dukemtmc" and bench.protocol == Protocol() and bench.multi_query is None
    assert bench.train.pids.tolist() == [1, 1, 5] and bench.train.camids.tolist() == [2, 8, 1]
    assert bench.train.sequences.tolist() == [-1] * 3 and bench.train.info["frame"].tolist() == [46182, 56541, 1]
    assert bench.query.names == NAMES["query"] and bench.gallery.pids.tolist() == [2, 3, 7000]
    assert bench.train.image_size == (16, 8)


def test_key_points_masks_and_parsing_take_the_same_way(read, duke):
    import numpy as np

    for sub, names in NAMES.items():
        for i, name in enumerate(names):
            size = (40 + 10 * i, 20 + 3 * i)
            annotations.write_mask(duke / f"{sub}_seg" / name.replace(".jpg", ".png"), np.full(size, 200, np.uint8))
            annotations.write_mask(duke / f"{sub}_parsing" / f"{name}.png", np.full(size, 7, np.uint8))
    joints = np.full((3, 18, 3), 5.0)
    annotations.write_keypoints(duke / "duke-annotation-train.csv", NAMES["bounding_box_train"], joints)
    bench = read()
    assert (bench.query.masks == 200).all() and (bench.gallery.parsing == 7).all() and bench.query.keypoints is None
    assert bench.train.keypoints[0, 0].tolist() == pytest.approx([5.5 * 8 / 20 - 0.5, 5.5 * 16 / 40 - 0.5, 1])
    (duke / "other-annotation-train.csv").write_text("name:keypoints_y:keypoints_x\n")
    with pytest.raises(ValueError, match=r"2 tables \*annotation-train\.csv, keep one: \['duke-ann.*other-ann"):
        read()


def test_released_counts_are_checked_and_only_warned_of(read, duke):
    released = duke.rename(duke.with_name("DukeMTMC-reID"))
    with pytest.warns(UserWarning, match=r"train 3 \(expected: 16522\), query 2 \(expected: 2228\), gallery 3"):
        assert read(released.parent).folder == released
    (released / "truth.csv").write_text("name\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(released)


def test_malformed(read, duke, tmp_path, paint):
    with pytest.raises(FileNotFoundError, match=r"no DukeMTMC-reID folder: .*nowhere/DukeMTMC-reID"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="dukemtmc has no splits to choose from, got split=3"):
        read(split=3)
    with pytest.raises(TypeError, match="dukemtmc takes no option boxes; it takes none"):
        read(boxes="detected")
    paint(duke / "bounding_box_test" / "0001_c1_f0000777.jpg", 0)
    with pytest.raises(ValueError, match=r"1 identities .* in both the training and the test set \(0001\)"):
        read()
    (duke / "bounding_box_test" / "0001_c1_f0000777.jpg").rename(duke / "bounding_box_test" / "0001_c1s1_000777_00.jpg")
    with pytest.warns(UserWarning, match=r"1 names in .* PPPP_cC_fFFFFFFF\.jpg and are left out: 0001_c1s1"):
        read()
    for path in (duke / "query").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"query holds no image named PPPP_cC_fFFFFFFF\.jpg"):
        read()
    (duke / "query").rmdir()
    with pytest.raises(FileNotFoundError, match="query is missing; a DukeMTMC-reID folder holds"):
        read()


def test_a_rendered_network_goes_through_its_own_reader(duke, tmp_path, monkeypatch):
    asked = {}
    renderer = SimpleNamespace(make=lambda root, **options: asked.update(options) or duke)
    monkeypatch.setattr(reidlib.datasets, "procedural", renderer, raising=False)
    bench = load("procedural", "x", (16, 8), network="dukemtmc", cache=tmp_path / "cache", progress=False)
    assert asked["network"] == "dukemtmc" and bench.name == "procedural" and bench.gallery.pids.tolist() == [2, 3, 7000]


def test_counts_of_the_releases_add_up():
    from reidlib.datasets.readers import cuhk03, deepfashion, msmt17

    assert sum(dukemtmc.COUNTS.values()) == 36_411 and sum(msmt17.COUNTS.values()) == 126_441
    assert sum(cuhk03.PEOPLE) == 1_467 and sum(deepfashion.COUNTS.values()) == 52_712
    assert all(sum(cuhk03.NEW_COUNTS[boxes].values()) == n for boxes, n in cuhk03.IMAGES.items())
