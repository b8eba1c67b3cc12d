import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from reidlib.datasets import Protocol, load
from reidlib.datasets.person_images import DISTRACTOR
from reidlib.evaluators import evaluate_retrieval

ROWS = [
    ("a/1.jpg", 1, 1, "train"),
    ("a/2.jpg", 1, 2, "train"),
    ("b/1.png", 2, 1, "query"),
    ("b/2.png", 2, 2, "gallery"),
    ("c.jpg", 0, 2, "gallery"),
    ("d.jpg", -1, 1, "gallery"),
]


@pytest.fixture
def crops(tmp_path, paint):
    folder = tmp_path / "crops"
    for i, row in enumerate(ROWS):
        paint(folder / row[0], i, (40 + 7 * i, 20 + 5 * i))  # odd sizes
    return folder


@pytest.fixture
def write(crops):
    def _write(rows=ROWS, columns=("path", "pid", "camid", "split"), name="people.csv"):
        pd.DataFrame(rows, columns=list(columns)).to_csv(crops / name, index=False)
        return crops / name

    return _write


@pytest.fixture
def read(tmp_path):
    def _read(root, **options):
        return load("folder", root, (16, 8), cache=tmp_path / "cache", progress=False, **options)

    return _read


def test_a_table_is_read(read, write, crops):
    path = write()
    for root in (path, crops):
        bench = read(root)
        assert bench.folder == crops and bench.protocol == Protocol()
        assert bench.train.names == ["a/1.jpg", "a/2.jpg"] and bench.train.camids.tolist() == [1, 2]
        assert bench.query.pids.tolist() == [2] and bench.gallery.pids.tolist() == [2, 0, -1]
        assert bench.gallery.names == ["b/2.png", "c.jpg", "d.jpg"] and bench.gallery.info is None
    write([(*row, i) for i, row in enumerate(ROWS)], ("path", "pid", "camid", "split", "height"))
    assert read(crops).gallery.info["height"].tolist() == [3, 4, 5]


def test_a_table_of_another_name_and_elsewhere(read, write, crops, tmp_path):
    path = write(name="mine.csv")
    (crops / "other.csv").write_text("a,b\n1,2\n")
    assert read(crops).query.names == ["b/1.png"]
    moved = path.rename(tmp_path / "table.csv")
    assert read(crops, table=moved).query.names == ["b/1.png"]
    with pytest.raises(FileNotFoundError, match=r"holds no table; one CSV .*`reidlib table` makes people\.csv"):
        read(crops)
    write(name="one.csv")
    write(name="two.csv")
    with pytest.raises(FileNotFoundError, match=r"2 tables: \['one\.csv', 'two\.csv'\]"):
        read(crops)
    with pytest.raises(FileNotFoundError, match=r"neither a table .* nor a folder"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("cameras", ["absent", "some", "one"])
def test_without_cameras_the_rule_is_none_and_said(read, write, crops, cameras):
    if cameras == "absent":
        write([(p, i, s) for p, i, _, s in ROWS], ("path", "pid", "split"))
    else:
        rows = [(p, i, None if cameras == "some" and p == "b/2.png" else 4, s) for p, i, _, s in ROWS]
        write(rows)
    said = "all images are from camera 4" if cameras == "one" else "some images have no camera"
    with pytest.warns(UserWarning, match=f"{said}, so matches are counted within a camera too"):
        bench = read(crops)
    assert bench.protocol == Protocol(camera_rule="none")
    assert bench.gallery.camids.tolist() == {"absent": [-1] * 3, "some": [-1, 4, 4], "one": [4] * 3}[cameras]
    scores = evaluate_retrieval(
        torch.zeros(1, 2), torch.tensor([[0.0, 0], [1, 1], [0, 0]]),
        query_pids=bench.query.pids, query_camids=bench.query.camids, gallery_pids=bench.gallery.pids,
        gallery_camids=bench.gallery.camids, **bench.protocol.arguments(),
    )  # fmt: skip
    assert scores.rank(1) == 1


def test_training_images_are_not_needed(read, write, crops):
    write(ROWS[2:])
    bench = read(crops)
    assert len(bench.train) == 0 and bench.train.image_size == (16, 8) and bench.table().loc["train", "images"] == 0


@pytest.mark.parametrize(
    ("rows", "columns", "error", "said"),
    [
        ([("b/1.png", 2)], ("path", "pid"), ValueError, r"must have the columns path,pid,camid,split; it has"),
        (
            [("b/1.png", "anna", 1, "query")],
            None,
            ValueError,
            r"line 2: pid must be a whole number from 0 to 9223372036854775807, or -1 or -3; got 'anna'",
        ),
        ([("b/1.png", -2, 1, "query")], None, ValueError, "pid must be a whole number from 0"),
        ([("b/1.png", 10**20, 1, "query")], None, ValueError, "line 2: pid must .*; got '100000000000000000000'"),
        ([("b/1.png", "1e20", 1, "query")], None, ValueError, "pid must .*; got '1e20'"),
        ([ROWS[2], ("b/2.png", 2**63, 1, "query")], None, ValueError, "line 3: pid must .*; got '9223372036854775808'"),
        ([("b/1.png", "²", 1, "query")], None, ValueError, "pid must .*; got '²'"),
        ([("b/1.png", 1, 2**64, "query")], None, ValueError, "camid must .*; got '18446744073709551616'"),
        ([("b/1.png", 1.5, 1, "query")], None, ValueError, "pid must be a whole number from 0"),
        ([("b/1.png", None, 1, "query")], None, ValueError, "pid must be a whole number from 0"),
        (
            [("b/1.png", 2, "left", "query")],
            None,
            ValueError,
            "camid must be a whole number from 0 to .*, or -1; got 'left'",
        ),
        ([("b/1.png", 2, 1, "test")], None, ValueError, r"split must be train, query, gallery; got \['test'\]"),
        ([("b/1.png", 2, 1, None)], None, ValueError, r"split must be train, query, gallery; got \[''\]"),
        ([(None, 2, 1, "query")], None, ValueError, "line 2: path is empty"),
        ([ROWS[2], ROWS[2]], None, ValueError, r"lists 1 images twice: b/1\.png"),
        (ROWS[:2], None, ValueError, r"has no query image; its splits: \{'train': 2\}"),
        (ROWS[:3], None, ValueError, "has no gallery image"),
        ([*ROWS, ("a/3.jpg", 3, 1, "query")], None, FileNotFoundError, r"1 of the 7 images .* not in .*: a/3\.jpg"),
        ([*ROWS[1:], ("a/1.jpg", 2, 1, "train")], None, ValueError, r"both the training and the test set \(0002\)"),
    ],
)
def test_malformed_tables(read, write, crops, rows, columns, error, said):
    write(rows, columns or ("path", "pid", "camid", "split"))
    with pytest.raises(error, match=said):
        read(crops)


def test_unreadable_images_and_copies_of_a_query_are_named(read, write, crops):
    write()
    (crops / "d.jpg").write_bytes(b"nothing")
    (crops / "b/2.png").write_bytes((crops / "b/1.png").read_bytes())
    with pytest.warns(UserWarning) as caught:
        bench = read(crops)
    said = " ".join(str(w.message) for w in caught)
    assert "1 query images" in said and "exact copies" in said and "b/1.png" in said
    assert "gallery: 1 images are left out" in said and bench.gallery.names == ["b/2.png", "c.jpg"]


def test_photographs_are_turned_upright(read, write, crops):
    lying = np.zeros((20, 40, 3), np.uint8)
    lying[:, :20] = 255  # its left half is the top of the upright picture after a quarter turn
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(lying).save(crops / "c.jpg", exif=exif, quality=95)
    write()
    image = read(crops).gallery.images[1].float()
    assert image[:, :7].min() > 200 and image[:, 9:].max() < 55


def test_large_numbers_stay_apart(read, write, crops):
    largest = 2**63 - 1  # as floating-point numbers these two are one
    write([("b/1.png", largest, 1.0, "query"), ("b/2.png", largest - 1, 2.0, "gallery"), ("c.jpg", 3, None, "train")])
    bench = read(crops)
    assert bench.query.pids.tolist() == [largest] and bench.gallery.pids.tolist() == [largest - 1]
    assert bench.gallery.camids.tolist() == [2]


def test_a_table_may_name_junk_and_distractors(read, write, crops):
    write([*ROWS[:4], ("c.jpg", -3, 2, "gallery"), ("d.jpg", -1, 1, "gallery")])
    bench = read(crops)
    assert bench.gallery.pids.tolist() == [2, DISTRACTOR, -1]
    assert bench.table().loc["gallery", ["identities", "distractors", "junk"]].tolist() == [1, 1, 1]


def test_real_warnings_only(read, write, crops):
    write()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(crops)


def test_queries_without_a_match_are_counted(read, write, crops):
    write([*ROWS, ("a/1.jpg", 5, 1, "query")][1:])
    with pytest.warns(
        UserWarning, match="1 of 2 queries have no image to find from another camera: left out of scores"
    ):
        assert read(crops).protocol == Protocol()
    write([*ROWS[2:], ("a/1.jpg", 5, 1, "query"), ("a/2.jpg", 2, 1, "query")], ("path", "pid", "camid", "split"))
    rows = pd.read_csv(crops / "people.csv").drop(columns="camid")
    rows.to_csv(crops / "people.csv", index=False)
    with pytest.warns(UserWarning, match="1 of 3 queries have no image to find: left out"):
        assert read(crops).protocol.camera_rule == "none"


@pytest.mark.parametrize("climb", ["../far.jpg", "a/../../far.jpg", "{absolute}"])
def test_a_table_may_not_leave_its_folder_unless_allowed(read, write, crops, paint, climb):
    path = climb.format(absolute=paint(crops.parent / "far.jpg", 40))
    write([*ROWS, (path, 2, 3, "gallery")])
    with pytest.raises(ValueError, match=r"1 of the paths that people\.csv names leave .*far\.jpg"):
        read(crops)
    bench = read(crops, outside=True)
    assert len(bench.gallery) == 4 and path in bench.gallery.names


def test_tables_of_spreadsheets(read, write, crops):
    path = write()
    path.write_text(path.read_text(), encoding="utf-8-sig")  # with the mark that spreadsheets put first
    assert read(crops).query.names == ["b/1.png"]
    path.rename(crops / "mine.csv")
    assert read(crops).query.names == ["b/1.png"]
    (crops / "mine.csv").write_bytes("path,pid".encode("utf-16"))
    with pytest.raises(ValueError, match=r"mine\.csv is not UTF-8 text"):
        read(crops / "mine.csv")


def test_a_link_to_nowhere_is_left_out(read, write, crops):
    write()
    (crops / "d.jpg").unlink()
    (crops / "d.jpg").symlink_to(crops / "gone.jpg")
    with pytest.warns(UserWarning, match=r"gallery: 1 images are left out: .*d\.jpg"):
        assert len(read(crops).gallery) == 2
