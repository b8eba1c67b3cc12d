import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from reidlib.datasets import load, load_splits
from reidlib.datasets.person_images import DISTRACTOR
from reidlib.datasets.readers import market1501
from reidlib.datasets.readers.market1501 import COUNTS, FOLDER, list_images, parse_name


@pytest.fixture
def read(tree, tmp_path):
    """Read the little tree through a cache of its own."""

    def _read(root=None, image_size=(64, 32), **more):
        return load("market1501", root or tree.folder, image_size, cache=tmp_path / "cache", progress=False, **more)

    return _read


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1, 1, 451)),
        ("1501_c6s4_013501_00.jpg", (1501, 6, 4, 13501)),
        ("-1_c3s2_000001_12.jpg", (-1, 3, 2, 1)),
        ("0000_c2s3_123456_01.jpg", (DISTRACTOR, 2, 3, 123456)),
        ("1488_c2s1_000311_00.jpg.jpg", (1488, 2, 1, 311)),
        ("1488_c2s1_000311_00.jpg.png", None),
        ("002_c1s1_000451_03.jpg", None),
        ("-2_c1s1_000451_03.jpg", None),
        ("0002_c0s1_000451_03.jpg", None),
        ("0002_c11s1_000451_03.jpg", None),
        ("0002_c1_f0000451.jpg", None),
        ("0002_c1s1_000451_03_copy.jpg", None),
        ("x0002_c1s1_000451_03.jpg", None),
    ],
)
def test_grammar(name, fields):
    assert parse_name(name) == fields


def test_everything_that_names_say(read):
    bench = read()
    assert bench.train.pids.tolist() == [2, 2, 7, 7, 10, 10] and bench.train.camids.tolist() == [1, 2] * 3
    assert bench.query.pids.tolist() == [1, 3, 1488]
    assert bench.query.names[2] == "1488_c2s1_000311_00.jpg.jpg"  # kept as it is
    assert bench.gallery.pids.tolist() == [-1, DISTRACTOR, 1, 3, 3, 1488]
    assert bench.gallery.sequences.tolist() == [1, 1, 2, 3, 3, 1]
    assert bench.train.info["frame"].tolist() == [201, 202, 701, 702, 1001, 1002]
    # of gt_bbox only what a query's identity and camera needs: 0001_c2 is left out, no query is (1, c2)
    assert bench.multi_query.pids.tolist() == [1, 1, 3] and bench.multi_query.camids.tolist() == [1, 1, 2]
    assert bench.train.image_size == (64, 32) and bench.train.images.dtype == torch.uint8
    assert bench.train.masks is None and bench.train.keypoints is None and bench.train.parsing is None
    assert bench.protocol.arguments() == {
        "camera_rule": "cross_camera", "ap": "plain", "divisor": "valid", "gallery_shots": None, "repeats": 10,
    }  # fmt: skip
    table = bench.table()
    assert table.loc["gallery"].tolist() == [6, 3, 2, 1, 1]
    assert list(table.index) == ["train", "query", "gallery", "multi_query"]


def test_root_may_be_the_folder_or_its_parent(read, tree):
    assert read(tree.folder).folder == read(tree.folder.parent).folder == tree.folder
    tree.folder.rename(tree.folder.with_name(FOLDER))
    with pytest.warns(UserWarning, match=r"train 6 \(expected: 12936\), query 3 \(expected: 3368\), gallery 6"):
        assert read(tree.folder.parent).folder.name == FOLDER


def test_a_rendered_tree_has_its_own_counts_and_its_truth_becomes_info(read, tree):
    rows = ["name,subset,pid,camid,sequence,frame,yaw,shirt"]
    names = list_images(tree.folder / "bounding_box_train")["name"]
    rows += [f"{name},bounding_box_train,9,9,9,9,{i}.5,red" for i, name in enumerate(names)]
    rows += ["0001_c1s1_000101_00.jpg,gt_bbox,1,1,1,1,11,grey", "0001_c1s1_000101_00.jpg,query,1,1,1,1,22,blue"]
    (tree.folder / "truth.csv").write_text("\n".join(rows))
    tree.folder.rename(tree.folder.with_name(FOLDER))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench = read(tree.folder.with_name(FOLDER))
    assert list(bench.train.info.columns) == ["frame", "subset", "yaw", "shirt"]
    assert bench.train.info["yaw"].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert bench.query.info["yaw"].tolist()[0] == 22 and bench.query.info["yaw"].isna().sum() == 2
    assert bench.multi_query.info["shirt"].tolist()[0] == "grey"  # the same name as a query, another file


def test_released_counts_from_names_alone(tmp_path):
    """A directory of empty files with as many right names as the released one: parsing needs no image."""
    folder, empty = tmp_path / FOLDER, tmp_path / "empty"
    empty.touch()

    def make_empty(path):
        try:
            path.hardlink_to(empty)  # many times quicker than making a file
        except OSError:  # where a file may have few names
            path.touch()

    wanted = {"bounding_box_train": 12_936, "query": 3_368, "bounding_box_test": 19_732}
    for sub, count in wanted.items():
        (folder / sub).mkdir(parents=True)
        first = 2 if sub == "bounding_box_train" else 800
        for i in range(count):
            pid = "-1" if sub == "bounding_box_test" and i < 3_819 else f"{first + i % 700:04d}"
            if sub == "bounding_box_test" and 3_819 <= i < 3_819 + 2_798:
                pid = "0000"
            doubled = ".jpg" if sub == "query" and i < 6 else ""
            make_empty(folder / sub / f"{pid}_c{i % 6 + 1}s1_{i:06d}_00.jpg{doubled}")
    (folder / "query" / "Thumbs.db").touch()
    (folder / "query" / "._0001_c1s1_000001_00.jpg").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing to warn of
        tables = market1501.read(folder).tables
    assert [len(tables[s]) for s in ("train", "query", "gallery")] == [12_936, 3_368, 19_732]
    assert (tables["gallery"]["pid"] == -1).sum() == 3_819 and (tables["gallery"]["pid"] == DISTRACTOR).sum() == 2_798
    assert tables["query"]["name"].str.endswith(".jpg.jpg").sum() == 6
    (folder / "query" / tables["query"]["name"].iloc[-1]).unlink()
    with pytest.warns(UserWarning, match=rf"query 3367 \(expected: {COUNTS['query']}\)$"):
        market1501.read(folder)
    shutil.rmtree(folder)  # pytest would keep 36,000 files for two more runs


def test_missing_folders(read, tree, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none of these holds bounding_box_train/: .*nowhere"):
        read(tmp_path / "nowhere")
    (tree.folder / "query").rename(tree.folder / "queries")
    with pytest.raises(FileNotFoundError, match="query is missing"):
        read()


def test_multi_query_is_optional(read, tree):
    (tree.folder / "gt_bbox").rename(tree.folder / "elsewhere")
    assert read().multi_query is None


def test_an_unreadable_image_is_named_and_the_rest_usable(read, tree):
    (tree.folder / "bounding_box_train" / "0007_c1s1_000701_01.jpg").write_bytes(b"not a picture")
    broken = tree.folder / "bounding_box_train" / "0010_c2s1_001002_01.jpg"
    broken.write_bytes(broken.read_bytes()[:300])  # cut short
    whole = tree.folder / "bounding_box_train" / "0010_c1s1_001001_01.jpg"
    tree.annotate()
    for _ in range(2):  # built, then from the cache: said each time
        with pytest.warns(UserWarning, match=r"train: 2 images are left out: .*0007_c1s1_000701_01\.jpg.*0010_c2s1"):
            bench = read(image_size=(128, 64))
        assert bench.train.pids.tolist() == [2, 2, 7, 10] and len(bench.train.names) == 4
        assert bench.train.info["frame"].tolist() == [201, 202, 702, 1001]
        assert bench.train.masks.shape == (4, 128, 64)
        assert torch.equal(bench.train.images[3], bench.train.batch([3])["images"][0])
        assert bench.train.images[3].float().std() > 10  # the picture of the last name, not an empty row
    from PIL import Image

    assert np.array_equal(bench.train.images[3].permute(1, 2, 0).numpy(), np.asarray(Image.open(whole)))


def test_a_subset_without_any_readable_image(read, tree):
    for path in (tree.folder / "query").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 3 images of query can be read"):
        read()


def test_wrong_names_are_named_and_left_out(read, tree):
    for name in ("me.jpg", "2_c1s1_000451_03.jpg"):
        tree.add("query", name)
    (tree.folder / "query" / "readme.txt").write_text("ignored")
    with pytest.warns(UserWarning, match=r"2 names in .*query do not follow .*: 2_c1s1_000451_03\.jpg, me\.jpg"):
        assert len(read().query) == 3


def test_an_empty_subset(read, tree):
    for path in (tree.folder / "query").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="query holds no image named PPPP_cCsS"):
        read()


def test_an_identity_in_training_and_test(read, tree):
    tree.add("bounding_box_test", "0007_c3s1_000777_01.jpg")
    with pytest.raises(ValueError, match=r"1 identities .* in both the training and the test set \(0007\)"):
        read()


def test_annotations_are_read_and_scaled(read, tree):
    tree.annotate()
    for subset in read(image_size=(64, 32)).subsets().values():
        assert subset.masks.shape == (len(subset), 64, 32)
        assert (subset.masks[:, :, :15] == 255).all() and (subset.masks[:, :, 17:] == 0).all()
        assert (subset.parsing[:, :, :16] == 7).all() and (subset.parsing[:, :, 16:] == 0).all()
        joints = subset.keypoints[0]
        assert joints[4].tolist() == [-1, -1, 0]  # y was -1
        assert joints[1].tolist() == [0.75, 7.25, 1]  # stored (2, 15): centres move to (p + 0.5) / 2 - 0.5
        assert joints[0].tolist() == [0, 4.75, 1]  # clamped onto the image
    whole = read(image_size=(128, 64)).train
    assert whole.keypoints[2, 17].tolist() == [34, 95, 1] and (whole.masks[:, :, :32] == 255).all()


def test_a_mask_of_another_size_is_resized_and_of_another_shape_refused(read, tree):
    from reidlib.datasets import annotations

    tree.annotate()
    folder = tree.folder / "query_seg"
    half = np.zeros((257, 128), np.uint8)  # the same aspect to within 2 %
    half[:, 64:] = 255
    annotations.write_mask(folder / "0001_c1s1_000101_00.png", half)
    bench = read()
    assert (bench.query.masks[0][:, 18:] == 255).all() and (bench.query.masks[0][:, :14] == 0).all()
    annotations.write_mask(folder / "0003_c2s1_000302_00.png", np.zeros((128, 128), np.uint8))
    said = r"query: 1 masks cannot be used, .* no masks: .*0003_c2s1.* is 128x128 but its image is 128x64"
    with pytest.warns(UserWarning, match=said):
        bench = read()
    assert bench.query.masks is None and bench.query.parsing is not None and bench.gallery.masks is not None
    assert len(bench.query) == 3


def test_a_missing_mask_and_a_missing_row(read, tree):
    tree.annotate()
    (tree.folder / "bounding_box_test_seg" / "0003_c1s3_000305_02.png").unlink()
    table = tree.folder / "market-annotation-train.csv"
    lines = [line for line in table.read_text().splitlines() if not line.startswith("0007_c2")]
    table.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning) as caught:
        bench = read()
    said = [str(w.message) for w in caught]
    assert len(said) == 1 and "gallery: 1 masks" in said[0] and "0003_c1s3_000305_02.jpg.jpg has none" in said[0]
    assert bench.gallery.masks is None and bench.train.keypoints[3].tolist() == [[-1, -1, 0]] * 18  # nobody was found
    assert bench.train.keypoints[2, 0, 2] == 1
    tree.annotate()
    table.write_text("\n".join(lines[:2]) + "\n")
    with pytest.warns(UserWarning, match=r"train: 5 images have no row in .*annotation-train.csv, .* 0002_c2s1_000202"):
        read()
    table.write_text(lines[0] + "\n")
    assert read().train.keypoints is None


def test_arguments_are_checked(tree, tmp_path):
    with pytest.raises(ValueError, match=r"'procedural', 'market1501', .*'folder'; got 'market'"):
        load("market", tree.folder)
    for size in ((64,), (64, 0), (64.0, 32), 64):
        with pytest.raises((ValueError, TypeError)):
            load("market1501", tree.folder, size)
    with pytest.raises(ValueError, match="must not lie inside the data set"):
        load("market1501", tree.folder, cache=tree.folder / "cache", progress=False)
    assert market1501.read(tree.folder).folder == tree.folder


def test_openpose_json_beside_the_images(read, tree):
    """JSON gives joints where no table has the image; a table's row goes first."""
    names = list_images(tree.folder / "bounding_box_train")["name"]
    folder = tree.folder / "bounding_box_train_keypoints"
    folder.mkdir()
    for i, name in enumerate(names[:4]):
        joints = [10 + i, 21, 0.8] * 18
        file = name if i % 2 else name.removesuffix(".jpg")
        (folder / f"{file}_keypoints.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": joints}]}))
    table = "\n".join(["name:keypoints_y:keypoints_x", f"{names[1]}:{[3] * 18}:{[5] * 18}"])
    (tree.folder / "market-annotation-train.csv").write_text(table)
    points = read(image_size=(128, 64)).train.keypoints
    assert points[0, 0].tolist() == [10, 21, 1] and points[2, 9].tolist() == [12, 21, 1]
    assert points[1, 0].tolist() == [5, 3, 1] and points[4:, :, 2].sum() == 0
    assert read(image_size=(64, 32)).train.keypoints[0, 0].tolist() == [4.75, 10.25, 1]
    (folder / f"{names[4]}_keypoints.json").write_text("{}")
    with pytest.raises(ValueError, match=r"0010_c1s1_001001_01\.jpg_keypoints\.json is not OpenPose's JSON"):
        read(image_size=(128, 64))


def test_one_split_is_what_the_protocol_averages(read, tree, tmp_path):
    benches = list(load_splits("market1501", tree.folder, cache=tmp_path / "cache", progress=False))
    assert len(benches) == 1 and benches[0].query.names == read().query.names


@pytest.mark.parametrize("name", ["0001_c1s1_000101_01.png", "0001_c1s1_000101_01.jpeg", "0001_c1s1_000101_01.JPG"])
def test_pictures_of_another_extension_are_named(read, tree, name):
    tree.add("query", name)
    with pytest.warns(UserWarning, match=rf"1 names in .*query do not follow .* and are left out: {name}"):
        assert len(read().query) == 3


def test_names_that_are_not_utf8_are_named(read, tree):
    odd = tree.folder / "query" / b"0001_c1s1_000101_0\xe4.jpg".decode("utf-8", "surrogateescape")
    odd.write_bytes((tree.folder / "query" / "0001_c1s1_000101_00.jpg").read_bytes())
    with pytest.warns(UserWarning, match=r"1 names in .*query are not UTF-8 and are left out, rename them: .*udce4"):
        assert len(read().query) == 3


def test_a_link_to_nowhere_is_one_image_left_out(read, tree):
    (tree.folder / "query" / "0001_c1s1_000102_00.jpg").symlink_to(tree.folder / "gone.jpg")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"query: 1 images are left out: .*0001_c1s1_000102_00\.jpg"):
            assert len(read().query) == 3


def test_text_files_that_are_not_utf8_are_named(read, tree):
    table = tree.folder / "market-annotation-train.csv"
    table.write_bytes(b"name:keypoints_y:keypoints_x\n\xe4.jpg:[]:[]\n")
    with pytest.raises(ValueError, match=r"market-annotation-train\.csv is not UTF-8 text"):
        read()
    table.unlink()
    (tree.folder / "truth.csv").write_bytes(b"name\n\xff\n")
    with pytest.raises(ValueError, match=r"truth\.csv is not UTF-8 text"):
        read()


def test_a_rendered_set_that_lost_files_says_so(read, tree):
    (tree.folder / "truth.csv").write_text("name\n")
    counts = {"train": 6, "query": 3, "gallery": 6, "gt_bbox": 4}
    (tree.folder / "finished.json").write_text(json.dumps({"network": "market1501", "images": counts}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read()
    (tree.folder / "gt_bbox" / "0001_c2s1_000131_00.jpg").unlink()  # no query's, but it was rendered
    (tree.folder / "query" / "0003_c2s1_000302_00.jpg").unlink()
    with pytest.warns(UserWarning, match=r"what was rendered .*: query 2 \(expected: 3\), gt_bbox 3 \(expected: 4\)"):
        assert len(read().query) == 2
