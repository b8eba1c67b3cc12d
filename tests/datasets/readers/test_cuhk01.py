import json
import warnings

import pytest

from reidlib.datasets import Protocol, load, load_splits
from reidlib.datasets.readers import cuhk01


@pytest.fixture
def folder(tmp_path, paint):
    for pid in range(1, 8):
        for image in range(1, 5):
            paint(tmp_path / "CUHK01" / "campus" / f"{pid:04d}{image:03d}.png", 4 * pid + image)
    return tmp_path / "CUHK01"


@pytest.fixture
def read(folder, tmp_path):
    def _read(root=None, **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*differs from the released CUHK01")
            return load("cuhk01", root or folder, (16, 8), cache=tmp_path / "cache", progress=False, **options)

    return _read


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("0001001.png", (1, 1)),
        ("0001002.png", (1, 1)),
        ("0971003.png", (971, 2)),
        ("0971004.png", (971, 2)),
        ("0971005.png", None),
        ("0971000.png", None),
        ("971001.png", None),
        ("0971001.jpg", None),
    ],
)
def test_grammar(name, fields):
    assert cuhk01.parse_name(name) == fields


def test_splits_are_halves_seeded_and_never_change():
    splits = cuhk01.draw_splits(range(1, 972))
    assert [len(split) for split in splits] == [485] * 10 and len({tuple(split) for split in splits}) == 10
    assert splits == cuhk01.draw_splits(reversed(range(1, 972))) != cuhk01.draw_splits(range(1, 972), seed=1)
    # golden: SHA-256 decides, so another machine or library version gives the same
    assert cuhk01.draw_splits(range(1, 8))[:3] == [[1, 5, 7], [1, 5, 6], [2, 5, 6]]
    shares = [sum(pid in split for split in splits) for pid in range(1, 972)]
    assert 4.5 < sum(shares) / len(shares) < 5.5 and max(shares) <= 10


def test_both_ways_of_a_split(read, folder):
    for split in (0, 9):
        one, other = read(split=split), read(split=split, query_view=2)
        train = cuhk01.draw_splits(range(1, 8))[split]
        assert one.train.pids.tolist() == [pid for pid in train for _ in range(4)] == other.train.pids.tolist()
        assert one.train.camids.tolist() == [1, 1, 2, 2] * 3
        assert set(one.query.pids.tolist()) == set(range(1, 8)) - set(train) and len(one.query) == 8
        assert set(one.query.camids.tolist()) == {1} and set(one.gallery.camids.tolist()) == {2}
        assert other.query.names == one.gallery.names and other.gallery.names == one.query.names
        assert one.protocol == Protocol() and one.query.sequences.unique().tolist() == [-1]
    assert read(folder.parent).folder == folder


def test_ten_splits_both_ways_are_twenty(folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        benches = list(load_splits("cuhk01", folder, (8, 4), cache=tmp_path / "cache", progress=False))
        one_way = list(load_splits("cuhk01", folder, (8, 4), cache=tmp_path / "cache", progress=False, query_view=2))
    assert len(benches) == 20 and len(one_way) == 10
    assert benches[0].train.names == benches[1].train.names and benches[0].query.names == benches[1].gallery.names
    assert [b.query.names for b in one_way] == [b.query.names for b in benches[1::2]]


def test_splits_are_drawn_by_their_seed_unless_the_folder_has_its_own(read, folder, tmp_path):
    assert set(read().train.pids.tolist()) == set(cuhk01.draw_splits(range(1, 8))[0])
    assert set(read(split_seed=1).train.pids.tolist()) == set(cuhk01.draw_splits(range(1, 8), seed=1)[0])
    assert not list(folder.glob("*.json")), "nothing may be written into the data set"
    # the folder's own file goes first, in the form others write: both ways after each other
    entries = [{"train": [[f"/x/campus/{pid:04d}001.png", 0, 0] for pid in ids]} for ids in ([1], [1], [4, 5], [4, 5])]
    (folder / "splits.json").write_text(json.dumps(entries))
    assert set(read(split=1).train.pids.tolist()) == {4, 5}
    with pytest.raises(ValueError, match="CUHK01 has 2 splits: split must be 0 to 1, got 2"):
        read(split=2)


def test_truth_of_a_rendered_tree(folder, tmp_path):
    rows = [f"{pid:04d}{image:03d}.png,{pid}.5" for pid in range(1, 8) for image in range(1, 5)]
    (folder / "truth.csv").write_text("\n".join(["name,yaw", *rows]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a rendered tree has its own counts
        bench = load("cuhk01", folder, (8, 4), cache=tmp_path / "cache", progress=False)
    assert bench.query.info["yaw"].tolist() == [pid + 0.5 for pid in bench.query.pids.tolist()]


def test_malformed(read, folder, tmp_path, paint):
    with pytest.raises(FileNotFoundError, match="no CUHK01 folder: none of these holds campus/"):
        read(tmp_path / "nowhere")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="must not lie inside the data set"):
        load("cuhk01", folder, cache=folder / "cache", progress=False)
    assert [path.name for path in folder.iterdir()] == ["campus"]
    with pytest.raises(ValueError, match="split must be 0 to 9, got 10"):
        read(split=10)
    with pytest.raises(ValueError, match="query_view must be one of 1, 2; got 0"):
        read(query_view=0)
    with pytest.warns(UserWarning, match=r"CUHK01 in its images: images 28 \(expected: 3884\)"):
        load("cuhk01", folder, (8, 4), cache=tmp_path / "cache", progress=False)
    own = folder / "splits.json"
    for text, error, said in (
        ("[[1, 99]]", FileNotFoundError, "1 people of split 0 have no image, for example 0099"),
        ("[[1, 2, 3, 4, 5, 6, 7]]", ValueError, "has no image for query, gallery; people: 7"),
        ("[[]]", ValueError, "no image for train"),
        ("[]", ValueError, "holds no split"),
        ("[3]", ValueError, "must be a list of splits"),
        ('[{"query": []}]', ValueError, "must be a list of splits"),
        ('[{"train": [["me.png", 0, 0]]}]', ValueError, "must be a list of splits"),
        ("{", ValueError, "is not valid JSON"),
    ):
        own.write_text(text)
        with pytest.raises(error, match=said):
            read()
    own.unlink()
    paint(folder / "campus" / "0001005.png", 1)
    (folder / "campus" / "0002001.png").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        read()
    said = " ".join(str(w.message) for w in caught)
    assert "0001005.png" in said and "all: 1 images are left out" in said
    for path in (folder / "campus").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"campus holds no image named PPPPIII\.png"):
        read()


def test_a_rendered_set_that_lost_files_says_so(folder, tmp_path):
    (folder / "truth.csv").write_text("name\n")
    (folder / "finished.json").write_text(json.dumps({"images": {"campus": 29}}))
    with pytest.warns(UserWarning, match=r"what was rendered .* in its images: images 28 \(expected: 29\)"):
        load("cuhk01", folder, (8, 4), cache=tmp_path / "cache", progress=False)
