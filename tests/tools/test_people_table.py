"""The table of a folder of photographs: names, folders, splits, and what is refused rather than guessed."""

import warnings

import pandas as pd
import pytest
from PIL import Image

from reidlib.__main__ import main
from reidlib.datasets import load
from reidlib.datasets.person_images import DISTRACTOR
from reidlib.datasets.readers.listing import check_disjoint
from reidlib.evaluators import evaluate_retrieval
from reidlib.tools.people_table import make_table


@pytest.fixture
def album(tmp_path):
    """Make a folder of pictures of these names, each of a colour of its own."""

    def _album(*names):
        for i, name in enumerate(names):
            path = tmp_path / "album" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 32), (37 * i % 200, 61 * i % 200, 97 * i % 200)).save(path, quality=98)
        return tmp_path / "album"

    return _album


@pytest.fixture
def read(tmp_path):
    def _read(root, **options):
        return load("folder", root, (16, 8), cache=tmp_path / "cache", progress=False, **options)

    return _read


def who(rows):
    return {row.path: (row.pid, row.camid) for row in rows.itertuples()}


def split_of(rows):
    return dict(zip(rows["path"], rows["split"], strict=True))


def test_identities_from_folders(album):
    rows = make_table(album("anna/1.jpg", "anna/2.jpg", "bob/x.jpg", "bob/y.png", "carl/z.webp", "notes/me.txt.jpg"))
    assert who(rows) == {
        "anna/1.jpg": (1, -1), "anna/2.jpg": (1, -1), "bob/x.jpg": (2, -1), "bob/y.png": (2, -1),
        "carl/z.webp": (3, -1), "notes/me.txt.jpg": (4, -1),
    }  # fmt: skip
    assert rows["identity"].tolist() == ["anna", "anna", "bob", "bob", "carl", "notes"]
    assert rows.groupby("pid")["split"].apply(lambda s: sorted(s)).to_dict() == {
        1: ["gallery", "query"], 2: ["gallery", "query"], 3: ["gallery"], 4: ["gallery"],
    }  # fmt: skip


def test_cameras_from_folders_and_names(album):
    folder = album("7/cam1/a.jpg", "7/cam2/a.jpg", "7/cam2/b.jpg", "12/Camera_1/a.jpg", "12/Camera_1/b.jpg")
    rows = make_table(folder)
    assert who(rows) == {
        "7/cam1/a.jpg": (7, 1), "7/cam2/a.jpg": (7, 2), "7/cam2/b.jpg": (7, 2),
        "12/Camera_1/a.jpg": (12, 1), "12/Camera_1/b.jpg": (12, 1),
    }  # fmt: skip
    split = dict(zip(rows["path"], rows["split"], strict=True))
    assert sorted(split[p] for p in split if p.startswith("7/")) == ["gallery", "gallery", "query"]
    # 7 asks once, from one camera, and leaves an image of the other camera to be found
    query = next(p for p in split if p.startswith("7/") and split[p] == "query")
    assert any(p.split("/")[1] != query.split("/")[1] for p in split if p.startswith("7/") and split[p] == "gallery")


def test_identities_from_names(album):
    folder = album(
        "0002_c1s1_000451_03.jpg", "0002_c3s1_000452_01.jpg", "-1_c2s1_000001_01.jpg", "0000_c2s1_000009_01.jpg"
    )
    assert sorted(who(make_table(folder)).values()) == [(-1, 2), (0, 2), (2, 1), (2, 3)]


@pytest.mark.parametrize("people", [("0", "1"), ("00", "7"), ("0000", "0012")])
def test_person_zero_is_a_person(album, read, people):
    folder = album(*(f"{person}/cam{c}.jpg" for person in people for c in (1, 2)))
    rows = make_table(folder, train=0)
    assert set(rows["pid"]) == {int(person) for person in people}
    assert rows["pid"][rows["split"] == "query"].tolist() == [int(person) for person in people]
    bench = read(folder)
    assert bench.table().loc["gallery", ["identities", "distractors", "junk"]].tolist() == [2, 0, 0]
    with pytest.raises(ValueError, match=r"in both the training and the test set \(0000\)"):
        check_disjoint("x", [0, 1], [0, 2])
    check_disjoint("x", [-1, DISTRACTOR], [-1, DISTRACTOR])


def test_ten_photographs_of_friends(album, read):
    names = "anna_01 anna%2 anna-3 anna4 Bob%(1) Bob%(2) carl carl_at_home dora1 dora2".split()
    folder = album(*(f"{name}.jpg".replace("%", " ") for name in names))
    rows = make_table(folder)
    assert dict(zip(rows["path"], rows["identity"], strict=True)) == {
        "anna_01.jpg": "anna", "anna 2.jpg": "anna", "anna-3.jpg": "anna", "anna4.jpg": "anna", "Bob (1).jpg": "Bob",
        "Bob (2).jpg": "Bob", "carl.jpg": "carl", "carl_at_home.jpg": "carl", "dora1.jpg": "dora", "dora2.jpg": "dora",
    }  # fmt: skip
    assert rows["split"].value_counts().to_dict() == {"gallery": 6, "query": 4}
    with pytest.warns(UserWarning, match="some images have no camera"):
        bench = read(folder)
    assert len(bench.query) == 4 and len(bench.gallery) == 6 and set(bench.gallery.pids.tolist()) == {1, 2, 3, 4}
    assert pd.read_csv(folder / "people.csv").equals(rows)


def test_annotations_beside_the_photographs_are_no_people(album):
    """After `reidlib.tools.annotate`, the folder holds masks and key points too: the table stays the same."""
    names = ["anna/1.jpg", "anna/2.jpg", "ben/1.jpg", "ben/2.jpg"]
    before = make_table(album(*names))
    after = make_table(album(*names, "anna_seg/1.png", "ben_parsing/1.png", "anna_keypoints/1.png"))
    assert after.equals(before) and set(after["identity"]) == {"anna", "ben"}


def test_a_pattern_of_your_own(album):
    folder = album("img-cam2-p17.jpg", "img-cam1-p17.jpg", "img-cam1-p03.jpg", "cover.jpg")
    with pytest.warns(UserWarning, match=r"1 images do not fit the pattern .* and are left out: cover\.jpg"):
        rows = make_table(folder, pattern=r"cam(?P<camid>\d)-p(?P<pid>\d+)")
    assert who(rows) == {"img-cam1-p03.jpg": (3, 1), "img-cam1-p17.jpg": (17, 1), "img-cam2-p17.jpg": (17, 2)}
    with pytest.raises(ValueError, match=r"pattern needs the group \(\?P<pid>"):
        make_table(folder, pattern=r"p(\d+)")
    with pytest.raises(ValueError, match="none of 4 images fits the pattern"):
        make_table(folder, pattern=r"q(?P<pid>\d+)")


def test_folders_that_say_the_split(album):
    folder = album(
        "train/anna/1.jpg", "train/bob/1.jpg", "query/carl/1.jpg", "gallery/carl/2.jpg", "gallery/dora/1.jpg"
    )
    rows = make_table(folder)
    assert dict(zip(rows["path"], rows["split"], strict=True)) == {p: p.split("/")[0] for p in rows["path"]}
    assert rows["identity"].tolist() == ["carl", "dora", "carl", "anna", "bob"]
    market = album("../market/bounding_box_train/0002_c1s1_000451_03.jpg").with_name("market")
    for sub, name in (("query", "0003_c1s1_000451_00.jpg"), ("bounding_box_test", "0003_c2s1_000451_01.jpg")):
        Image.new("RGB", (8, 16)).save((market / sub).mkdir() or market / sub / name, comment=sub.encode())
    with pytest.warns(UserWarning, match=r'load\("market1501"\) knows them as distractors'):
        rows = make_table(market)
    assert rows["split"].tolist() == ["gallery", "train", "query"] and rows["pid"].tolist() == [3, 2, 3]
    assert rows["camid"].tolist() == [2, 1, 1]


def test_training_share_is_seeded_and_whole_people(album):
    folder = album(*[f"p{p:02d}/{i}.jpg" for p in range(24) for i in range(3)])
    rows = make_table(folder)
    assert rows.equals(make_table(folder)) and not rows["split"].equals(
        make_table(folder, seed=1, overwrite=True)["split"]
    )
    of_train = set(rows["pid"][rows["split"] == "train"])
    assert len(of_train) == 12 and not of_train & set(rows["pid"][rows["split"] != "train"])
    assert rows["split"].value_counts().to_dict() == {"train": 36, "gallery": 24, "query": 12}
    few = make_table(folder, train=0.25, overwrite=True)
    assert few["pid"][few["split"] == "train"].nunique() == 6
    assert "train" not in set(make_table(folder, train=0, overwrite=True)["split"])
    for wrong in (1, -0.1):
        with pytest.raises(ValueError, match="0 <= train < 1"):
            make_table(folder, train=wrong)


def test_make_table_leaves_copies_out_and_refuses_what_cannot_work(album, tmp_path, read):
    folder = album("a1.jpg", "a2.jpg", "b1.jpg")
    (folder / "a3.jpg").write_bytes((folder / "a1.jpg").read_bytes())
    (folder / ".hidden.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 exact copies are left out: a3\.jpg"):
        rows = make_table(folder, tmp_path / "elsewhere" / "t.csv")
    assert rows["path"].tolist() == ["a1.jpg", "a2.jpg", "b1.jpg"] and not (folder / "people.csv").exists()
    with pytest.warns(UserWarning):
        assert len(read(folder, table=tmp_path / "elsewhere" / "t.csv").gallery) == 2
    (folder / "a2.jpg").unlink()
    (folder / "a3.jpg").unlink()
    with pytest.raises(ValueError, match=r"nobody in .* so there is nothing to find: 2 identities"):
        make_table(folder)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"holds no image \(\.jpg, "):
        make_table(folder)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        make_table(folder / "none")


def test_folders_that_say_the_split_stay_and_others_are_left_out(album):
    names = [
        "query/7/a_c1.jpg",
        "gallery/7/b_c2.jpg",
        "train/8/a_c1.jpg",
        "train/8/b_c2.jpg",
        "val/9/a_c1.jpg",
        "x.jpg",
    ]
    folder = album(*names)
    with pytest.warns(UserWarning, match="2 images in no folder, val/ are left out"):
        rows = make_table(folder)
    assert split_of(rows) == {name: name.split("/")[0] for name in names[:4]}
    assert who(rows) == {names[0]: (7, 1), names[1]: (7, 2), names[2]: (8, 1), names[3]: (8, 2)}


@pytest.mark.parametrize("test", ["test", "bounding_box_test", "gallery"])
def test_train_and_test_alone_keep_their_people(album, test):
    folder = album(
        *[f"{top}/p{p + 20 * (top == test)}/{i}.jpg" for top in ("train", test) for p in range(21) for i in (1, 2)]
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="pids 0000 become a person here")
        rows = make_table(folder)
        with pytest.raises(ValueError, match=r"say who trains; train=0\.5 cannot"):
            make_table(folder, train=0.5)
    of_train = rows["path"].str.startswith("train/")
    assert set(rows["split"][of_train]) == {"train"} and of_train.sum() == 42
    assert rows["split"][~of_train].value_counts().to_dict() == {"gallery": 21, "query": 21}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["test/1.jpg", "anna/1.jpg", "anna/2.jpg"], "test/ beside anna/: is it a split or a person"),
        (["train/anna/1.jpg", "train/anna/2.jpg", "train/bob/1.jpg"], "nobody .* to be tested with"),
        (["query/anna/1.jpg", "query/bob/2.jpg", "train/carl/2.jpg"], "nobody .* to be tested with"),
        (["1.jpg", "2.jpg", "10.jpg", "11.jpg"], "none of 4 images fits folders or names, .*pass pattern="),
        (["cam1/1.jpg", "cam1/2.jpg", "cam2/1.jpg"], "none of 3 images fits"),
        (["IMG_0001.jpg", "IMG_0002.jpg", "IMG_0003.jpg"], "none of 3 images fits"),
        (["DSC_0001.jpg", "IMG 2.jpg", "photo-3.jpg"], "none of 3 images fits"),
        (["walk_0001.jpg", "walk_0002.jpg"], "all 2 images would show one person, 'walk'"),
        (["all/1.jpg", "all/2.jpg"], "all 2 images would show one person, 'all'"),
        (["1_anna.jpg", "2_anna.jpg", "1_bob.jpg", "2_bob.jpg"], "two readings fit .* '1' or 'anna'"),
        (["1_1.jpg", "1_2.jpg", "2_1.jpg", "2_2.jpg"], "two readings fit .* '1' or '1'"),
        (["2024-05-03_eva_1.jpg", "2024-05-03_ole_1.jpg", "2024-05-04_eva_1.jpg"], "'2024-05-03' or 'eva'"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused(album, names, said):
    folder = album(*names)
    with pytest.raises(ValueError, match=said):
        make_table(folder)
    assert not (folder / "people.csv").exists()


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (["cam1_anna_1.jpg", "cam1_bob_1.jpg", "cam2_anna_1.jpg", "cam2_bob_1.jpg"], ["anna", "bob"] * 2),
        (["cam01/person01/1.jpg", "cam01/person02/1.jpg", "cam02/person01/1.jpg", "cam02/person02/1.jpg"],
         ["person01", "person02"] * 2),
        (["c1_002_90.jpg", "c1_007_5.jpg", "c2_002_90.jpg", "c2_007_190.jpg"], ["002", "007"] * 2),
        (["Camera 1 - Eva - 3.jpg", "Camera 1 - Ole - 4.jpg", "Camera 2 - Eva - 5.jpg", "Camera 2 - Ole - 6.jpg"],
         ["Eva", "Ole"] * 2),
        (["IMG_cam1_eva_1.jpg", "IMG_cam1_ole_1.jpg", "IMG_cam2_eva_2.jpg", "IMG_cam2_ole_9.jpg"], ["eva", "ole"] * 2),
        (["day/cam1_anna.jpg", "day/cam1_bob.jpg", "cam2_anna.jpg", "cam2_bob.jpg"], ["anna", "bob"] * 2),
    ],
)  # fmt: skip
def test_a_camera_is_no_person(album, names, people, capsys):
    rows = make_table(album(*names)).sort_values(["camid", "path"])
    assert rows["identity"].tolist() == people and rows["camid"].tolist() == [1, 1, 2, 2]
    said = capsys.readouterr().out
    assert said.startswith("4 images of 2 identities, 2 cameras; for example\n")
    assert said.count(".jpg") == 3 and all(column in said for column in ("path", "pid", "camid", "split", "identity"))


def test_images_without_a_camera_are_counted(album, capsys):
    rows = make_table(album("anna_c1_1.jpg", "anna_c2_1.jpg", "bob_1.jpg", "bob_2.jpg"))
    assert set(rows["camid"]) == {-1} and "2 without a camera" in capsys.readouterr().out


def test_a_template(album):
    names = ["cam1_anna_1.jpg", "cam1_bob_1.png", "cam2_anna_12.jpg", "cam2_bob_1.png", "cover.jpg"]
    with pytest.warns(UserWarning, match=r"1 images do not fit the pattern 'cam\{camid\}_\{pid\}_\{n\}'.*cover"):
        rows = make_table(album(*names), pattern="cam{camid}_{pid}_{n}")
    assert who(rows) == {names[0]: (1, 1), names[1]: (2, 1), names[2]: (1, 2), names[3]: (2, 2)}
    folder = album("../b/1.5/7-x.jpg", "../b/1.5/8-x.jpg", "../b/2.5/7-x.jpg", "../b/2.5/8-x.jpg").parent / "b"
    rows = make_table(folder, pattern="{camid}.5/{pid}-x.jpg")  # dots are dots; a path from its end
    assert sorted(who(rows).values()) == [(7, 1), (7, 2), (8, 1), (8, 2)]
    for pattern, said in (
        ("{person}_{n}", r"as a template, the field \{pid\}; got"),
        ("{pid}{n}", "reads .* in two ways"),
    ):
        with pytest.raises(ValueError, match=said):
            make_table(folder, pattern=pattern)
    folder = album("../c/anna_lee_1.jpg", "../c/anna_lee_2.jpg", "../c/bob_1.jpg").parent / "c"
    with pytest.raises(ValueError, match=r"reads anna_lee_1\.jpg in two ways, as .*'anna_lee'.* and as .*'anna'"):
        make_table(folder, pattern="{pid}_{n}")


def test_a_table_made_by_hand_is_never_overwritten(album):
    folder = album("anna/1.jpg", "anna/2.jpg", "bob/1.jpg", "bob/2.jpg")
    mine = "path,pid,camid,split\nanna/1.jpg,3,1,query\nanna/2.jpg,3,1,gallery\n"
    (folder / "people.csv").write_text(mine)
    with pytest.raises(FileExistsError, match=r"people\.csv is there and differs: .*overwrite=True"):
        make_table(folder)
    assert (folder / "people.csv").read_text() == mine
    rows = make_table(folder, overwrite=True)
    assert pd.read_csv(folder / "people.csv").equals(rows) and make_table(folder).equals(rows)


def test_equal_numbers_written_in_two_ways_are_two_people(album):
    rows = make_table(album("1/a.jpg", "1/b.jpg", "01/a.jpg", "01/b.jpg", "002/a.jpg"))
    assert rows["pid"].nunique() == 3
    long = make_table(album("../d/" + "1" * 20 + "/a.jpg", "../d/" + "1" * 20 + "/b.jpg", "../d/2/a.jpg").parent / "d")
    assert sorted(set(long["pid"])) == [1, 2]  # more digits than an int64 holds


@pytest.mark.filterwarnings("ignore:.* exact copies among")
@pytest.mark.parametrize(
    ("names", "rule", "said"),
    [
        (
            ["a_cam1_1", "a_cam1_2", "b_cam2_1", "b_cam2_2"],
            "none",
            ["no query has an image of its person from another"],
        ),
        (["a_c1_1", "a_c1_2", "b_c2_1", "b_c2_2", "d_c3_1"], "none", ["no query has an image of its person"]),
        (["a_cam1_1", "a_cam2_1", "b_cam2_1", "b_cam2_2"], "cross_camera", []),  # b has no query
    ],
)
def test_people_seen_by_one_camera_each(album, read, names, rule, said):
    folder = album(*(f"{name}.jpg" for name in names))
    rows = make_table(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bench = read(folder)
    assert bench.protocol.camera_rule == rule and len(caught) == len(said)
    assert all(text in str(w.message) for text, w in zip(said, caught, strict=True))
    asked = rows[rows["split"] == "query"]["identity"].tolist()
    assert asked == (["a", "b"] if rule == "none" else ["a"])
    scores = evaluate_retrieval(
        bench.query.pids[:, None].float(), bench.gallery.pids[:, None].float(),
        query_pids=bench.query.pids, query_camids=bench.query.camids, gallery_pids=bench.gallery.pids,
        gallery_camids=bench.gallery.camids, **bench.protocol.arguments(),
    )  # fmt: skip
    assert scores.n_valid == len(asked) and scores.rank(1) == 1


def test_links_to_nowhere_and_odd_names(album):
    folder = album("anna/1.jpg", "anna/2.jpg", "bob/1.jpg", "bob/2.jpg")
    (folder / "bob" / "3.jpg").symlink_to(folder / "gone.jpg")
    (folder / "anna" / b"\xe4.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    with pytest.warns(UserWarning) as caught:
        rows = make_table(folder)
    said = " ".join(str(w.message) for w in caught)
    assert len(rows) == 4 and "1 links to nowhere are left out: bob/3.jpg" in said and "1 names in" in said


def test_the_command(album, capsys):
    folder = album("cam1_anna_1.jpg", "cam1_bob_1.jpg", "cam2_anna_1.jpg", "cam2_bob_1.jpg")
    words = ["table", str(folder), "--pattern", "cam{camid}_{pid}_{n}"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith("4 images of 2 identities, 2 cameras") and said.endswith(f"{folder / 'people.csv'}\n")
    rows = pd.read_csv(folder / "people.csv")
    assert who(rows)["cam2_bob_1.jpg"] == (2, 2) and set(rows["split"]) == {"query", "gallery"}
    assert main([*words, "--train", "0.5", "--seed", "3"]) == 2
    assert "people.csv is there and differs" in capsys.readouterr().err
    assert main([*words, "--train", "0.5", "--seed", "3", "--overwrite"]) == 0
    expected = make_table(folder, folder / "by_hand.csv", pattern="cam{camid}_{pid}_{n}", train=0.5, seed=3)
    assert pd.read_csv(folder / "people.csv").equals(expected) and (expected["split"] == "train").sum() == 2
    assert main(["table", str(folder), "--train", "1"]) == 2
    assert "0 <= train < 1" in capsys.readouterr().err
