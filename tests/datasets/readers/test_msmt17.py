import warnings

import numpy as np
import pytest

from reidlib.datasets import Protocol, annotations, load
from reidlib.datasets.readers import msmt17

LISTS = {
    "train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0000/0000_001_15_0303noon_0016_1.jpg 0",
              "0002/0002_000_09_0113afternoon_0001_0.jpg 2"],
    "val": ["0000/0000_002_03_0303morning_0033_0.jpg 0", "0001/0001_000_04_0303morning_0001_0.jpg 1"],
    "query": ["0000/0000_000_02_0303morning_0001_0.jpg 0", "0001/0001_001_05_0303morning_0007_0.jpg 1"],
    "gallery": ["0000/0000_003_07_0303morning_0009_0.jpg 0", "0001/0001_004_06_0303morning_0003_0.jpg 1"],
}  # fmt: skip


@pytest.fixture
def make(tmp_path, paint):
    def _make(version):
        folder = tmp_path / f"MSMT17_V{version}"
        train, test = msmt17.VERSIONS[folder.name]
        for part, lines in LISTS.items():
            for i, line in enumerate(lines):
                paint(folder / (train if part in ("train", "val") else test) / line.split()[0], i)
            (folder / f"list_{part}.txt").write_text("\n".join(lines) + "\n")
        return folder

    return _make


@pytest.fixture
def read(tmp_path):
    def _read(root, **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*differs from the released MSMT17")
            return load("msmt17", root, (16, 8), cache=tmp_path / "cache", progress=False, **options)

    return _read


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("0000/0000_000_01_0303morning_0008_0.jpg 0", ("0000/0000_000_01_0303morning_0008_0.jpg", 0, 1)),
        ("3059/3059_010_15_0303noon_0008_0.jpg 3059\n", ("3059/3059_010_15_0303noon_0008_0.jpg", 3059, 15)),
        ("0000/0000_000_16_0303morning_0008_0.jpg 0", None),
        ("0000/0000_000_00_0303morning_0008_0.jpg 0", None),
        ("0000/0000_000_01_0303morning_0008_0.jpg", None),
        ("0000/0000_000_01_0303morning_0008_0.jpg -1", None),
        ("0000/0000_000_xx_0303morning_0008_0.jpg 0", None),
        ("0000/0000.jpg 0", None),
        ("0000/0000_000_01_0303morning_0008_0.jpg 12345678901234567890", None),
        ("0000/0000_000_01_0303morning_0008_0.jpg ²", None),
    ],
)
def test_grammar(line, fields):
    assert msmt17.parse_line(line) == fields


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions(make, read, version):
    folder = make(version)
    for root in (folder, folder.parent):
        bench = read(root)
        assert bench.folder == folder and bench.protocol == Protocol()
        assert bench.train.pids.tolist() == [1, 1, 3] and bench.train.camids.tolist() == [1, 15, 9]
        assert bench.query.pids.tolist() == bench.gallery.pids.tolist() == [1042, 1043]  # never a training person's
        assert bench.query.camids.tolist() == [2, 5] and bench.gallery.camids.tolist() == [7, 6]
        assert bench.gallery.info["list_pid"].tolist() == [0, 1]
        assert bench.train.names[2] == "0002_000_09_0113afternoon_0001_0.jpg"
        assert bench.train.sequences.tolist() == [-1] * 3
    assert read(folder, version=version).folder == folder


def test_val_trains_only_when_asked(make, read):
    folder = make(2)
    bench = read(folder, train_with_val=True)
    assert bench.train.pids.tolist() == [1, 1, 3, 1, 2] and bench.train.camids.tolist() == [1, 15, 9, 3, 4]
    assert set(bench.subsets()) == {"train", "query", "gallery"}
    assert len(read(folder).train) == 3  # each has its own cache
    (folder / "list_val.txt").unlink()
    assert len(read(folder).train) == 3
    with pytest.raises(FileNotFoundError, match=r"list_val\.txt is missing; MSMT17 has list_train\.txt, list_val"):
        read(folder, train_with_val=True)


def test_the_version_asked_for(make, read, tmp_path):
    make(1)
    with pytest.raises(FileNotFoundError, match=r"no MSMT17 folder: none of these holds list_train\.txt: .*MSMT17_V2"):
        read(tmp_path, version=2)
    with pytest.raises(FileNotFoundError, match=r"MSMT17_V1 holds none of \[\('mask_train_v2', 'mask_test_v2'\)\]"):
        read(tmp_path / "MSMT17_V1", version=2)
    with pytest.raises(ValueError, match="version must be one of None, 1, 2; got 3"):
        read(tmp_path, version=3)
    make(2)
    assert read(tmp_path).folder.name == "MSMT17_V2" and read(tmp_path, version=1).folder.name == "MSMT17_V1"


def test_masks_and_key_points_lie_beside(make, read):
    folder = make(2)
    for part, sub in (("train", "mask_train_v2"), ("query", "mask_test_v2"), ("gallery", "mask_test_v2")):
        for line in LISTS[part]:
            path = line.split()[0].replace(".jpg", ".png")
            annotations.write_mask(folder / f"{sub}_seg" / path, np.full((32, 16), 77, np.uint8))
    names = [line.split()[0].rpartition("/")[2] for line in LISTS["train"]]
    annotations.write_keypoints(folder / "msmt17-annotation-train.csv", names[:2], np.full((2, 18, 3), 4.0))
    bench = read(folder)
    assert (bench.train.masks == 77).all() and (bench.gallery.masks == 77).all()
    assert bench.train.keypoints[:, 0, 2].tolist() == [1, 1, 0] and bench.query.keypoints is None


def test_malformed(make, read, tmp_path):
    with pytest.raises(FileNotFoundError, match="no MSMT17 folder"):
        read(tmp_path / "nowhere")
    folder = make(1)
    with pytest.warns(UserWarning, match=r"train \+ val 5 \(expected: 32621\), query 2 \(expected: 11659\)"):
        load("msmt17", folder, (8, 4), cache=tmp_path / "cache", progress=False)
    query = folder / "list_query.txt"
    for text, said in (
        ("\n", "list_query.txt lists no image"),
        (LISTS["query"][0].replace(" 0", " " + "9" * 20), r"line 1: .*at most 18 digits.*got .* 9{20}'"),
        ("0000/a.jpg 0\n", r"list_query\.txt, line 1: .*got '0000/a\.jpg 0'"),
        ("\n\n0000/a.jpg 0\n", r"list_query\.txt, line 3: .*got '0000/a\.jpg 0'"),
        (LISTS["query"][0] + "\n" + LISTS["query"][0], "lists 1 images twice"),
    ):
        query.write_text(text)
        with pytest.raises(ValueError, match=said):
            read(folder)
    query.write_text("\n".join([*LISTS["query"], "0009/0009_000_02_0303morning_0001_0.jpg 9"]))
    said = r"1 of the 3 images that list_query\.txt names are not in .*: test/0009/0009_000_02_0303morning_0001_0\.jpg"
    with pytest.raises(FileNotFoundError, match=said):
        read(folder)
    query.unlink()
    with pytest.raises(FileNotFoundError, match=r"list_query\.txt is missing"):
        read(folder)
    (folder / "test").rename(folder / "tests")
    with pytest.raises(FileNotFoundError, match="test is missing; it belongs beside train/"):
        read(folder)


def test_lists_may_not_leave_their_folder(make, read, paint):
    folder = make(1)
    far = paint(folder.parent / "x_000_02_a.jpg", 3)
    for path in ("../../x_000_02_a.jpg", f"0000/../../../{far.name}"):
        (folder / "list_query.txt").write_text("\n".join([*LISTS["query"], f"{path} 7"]))
        with pytest.raises(ValueError, match=r"1 of the paths that list_query\.txt names leave"):
            read(folder)
    (folder / "list_query.txt").write_bytes(b"0000/0000_000_02_\xff.jpg 0\n")
    with pytest.raises(ValueError, match=r"list_query\.txt is not UTF-8 text"):
        read(folder)
