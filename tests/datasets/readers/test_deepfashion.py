import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from reidlib.datasets import annotations, load
from reidlib.datasets.readers.deepfashion import flatten_name, group_of, pairs

TREE = {
    "train": ["WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg", "WOMEN/Tees_Tanks/id_00007838/05_1_front.jpg",
              "WOMEN/Tees_Tanks/id_00007838/01_1_front.jpg", "MEN/Denim/id_00000080/01_2_side.jpg"],
    "test": ["MEN/Denim/id_00000089/01_1_front.jpg", "MEN/Denim/id_00000089/01_2_side.jpg",
             "MEN/Denim/id_00000089/02_1_front.jpg", "MEN/Denim/id_00000089/01_4_full.jpg"],
}  # fmt: skip
FLAT = {subset: [flatten_name(path) for path in paths] for subset, paths in TREE.items()}


@pytest.fixture
def folder(tmp_path, paint):
    for subset, names in FLAT.items():
        for i, name in enumerate(names):
            paint(tmp_path / "fashion_data" / subset / name, i, (256, 256))
        (tmp_path / "fashion_data" / f"{subset}.lst").write_text("\n".join(names))
    return tmp_path / "fashion_data"


@pytest.fixture
def read(tmp_path):
    def _read(root, image_size=(64, 44), **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*differs from the released DeepFashion")
            return load("deepfashion", root, image_size, cache=tmp_path / "cache", progress=False, **options)

    return _read


def test_flattened_names():
    assert FLAT["train"][0] == "fashionWOMENTees_Tanksid0000783805_7additional.jpg"
    assert (
        flatten_name("x/img/MEN/Shirts_Polos/id_00000001/12_4_full.jpg")
        == "fashionMENShirts_Polosid0000000112_4full.jpg"
    )
    for wrong in ("id_1/05.jpg", "05_7_additional.jpg", "WOMEN/Tees/id_1/05.jpg"):
        with pytest.raises(ValueError, match=r"gender/category/id_NNNNNNNN/NN_V_view\.jpg expected"):
            flatten_name(wrong)
    assert group_of("fashionMENShirts_Polosid0000000112_4full.jpg") == "fashionMENShirts_Polosid0000000112"
    for wrong in (
        "MENDenimid0000008001_2side.jpg",
        "fashionMENDenimid000008001_2side.jpg",
        "fashionMENDenimid0000008001.jpg",
    ):
        assert group_of(wrong) is None


def test_groups_are_identities(folder, read):
    bench = read(folder.parent)
    assert bench.folder == folder and bench.protocol.camera_rule == "none"
    assert bench.train.names == sorted(FLAT["train"]) and bench.train.camids.tolist() == [-1] * 4
    # sorted groups: MEN 80-01, MEN 89-01, MEN 89-02, WOMEN 7838-01, WOMEN 7838-05
    assert bench.train.pids.tolist() == [1, 4, 5, 5]
    assert bench.query.pids.tolist() == [2, 3] and bench.gallery.pids.tolist() == [2, 2]
    assert bench.train.info["group"][3] == "fashionWOMENTees_Tanksid0000783805"


def test_pairs(folder, read):
    bench = read(folder)
    people, found = pairs(bench)
    assert people is bench.train and found.tolist() == [[2, 3], [3, 2]]
    people, found = pairs(bench, "test")
    names = [(people.names[a], people.names[b]) for a, b in found.tolist()]
    views = ["1front", "2side", "4full"]
    assert sorted(names) == sorted(
        (f"fashionMENDenimid0000008901_{a}.jpg", f"fashionMENDenimid0000008901_{b}.jpg")
        for a in views for b in views if a != b
    )  # fmt: skip
    a, b = FLAT["test"][3], FLAT["test"][0]
    (folder / "fasion-resize-pairs-test.csv").write_text(f"from,to\n{a},{b}\n")
    people, found = pairs(bench, "test")
    assert [(people.names[i], people.names[j]) for i, j in found.tolist()] == [(a, b)]
    (folder / "fasion-resize-pairs-test.csv").write_text("from,to\n")
    assert pairs(bench, "test")[1].shape == (0, 2)
    (folder / "fasion-resize-pairs-test.csv").write_text(f"from,to\n{a},me.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"names 1 pictures that are not there: me\.jpg"):
        pairs(bench, "test")
    (folder / "fasion-resize-pairs-test.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"columns from,to; got \['a', 'b'\]"):
        pairs(bench, "test")
    (folder / "my-pairs-test.csv").write_text("from,to\n")
    with pytest.raises(ValueError, match="2 tables of pairs, keep one"):
        pairs(bench, "test")
    with pytest.raises(ValueError, match="subset must be one of 'train', 'test'; got 'query'"):
        pairs(bench, "query")


def test_pairs_need_shoulders_and_hips_where_key_points_are_known(folder, read):
    joints = np.full((4, 18, 3), 90.0)
    names = sorted(FLAT["train"])
    joints[3, 2] = (-1, -1, 0)  # one shoulder of the last
    annotations.write_keypoints(folder / "fasion-resize-annotation-train.csv", names, joints)
    assert pairs(read(folder))[1].shape == (0, 2)


@pytest.mark.filterwarnings("ignore:train. 3 images have no row")
def test_the_middle_columns(folder, read):
    """Columns 40 to 215 of 256; masks and key points move along, joints outside are missing."""
    name = FLAT["train"][0]
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[:, 40:216] = 255
    Image.fromarray(pixels).save(folder / "train" / name, quality=100)
    for n in FLAT["train"]:
        annotations.write_mask(folder / "train_seg" / n.replace(".jpg", ".png"), pixels[..., 0])
    joints = np.full((1, 18, 3), 100.0)
    joints[0, :4, 0] = (39, 40, 215, 216)
    joints[0, 4] = (-1, -1, 0)
    annotations.write_keypoints(folder / "fashion-annotation-train.csv", [name], joints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, cut = read(folder, (256, 256)), read(folder, (256, 176), crop=True)
    i = whole.train.names.index(name)
    assert (cut.train.images[i] > 240).all() and (cut.train.masks == 255).all()
    assert (whole.train.images[i][:, :, :38] < 15).all() and (whole.train.masks[:, :, :40] == 0).all()
    assert whole.train.keypoints[i, :5, 0].tolist() == [39, 40, 215, 216, -1]
    assert cut.train.keypoints[i, :5, 0].tolist() == [-1, 0, 175, -1, -1]
    assert cut.train.keypoints[i, :5, 2].tolist() == [0, 1, 1, 0, 0] and cut.train.keypoints[i, 5, 0] == 60
    assert torch.equal(read(folder, (256, 256)).train.images, whole.train.images)  # both caches live


@pytest.mark.filterwarnings("ignore:train. 3 images have no row")
def test_the_tree_as_released(folder, read, tmp_path, paint):
    flat = read(folder)
    tree = tmp_path / "released"
    for subset, paths in TREE.items():
        for i, path in enumerate(paths):
            paint(tree / "img" / path, i, (256, 256))
        (tree / f"{subset}.lst").write_text((folder / f"{subset}.lst").read_text())
    annotations.write_keypoints(tree / "annotation.csv", [FLAT["train"][0]], np.full((1, 18, 3), 8.0))
    bench = read(tree)
    assert bench.train.names == flat.train.names and torch.equal(bench.train.images, flat.train.images)
    assert bench.train.keypoints[:, 0, 2].tolist() == [0, 0, 0, 1]  # found by the flattened name
    assert bench.train.names[3] == FLAT["train"][0]


def test_without_lists_the_folders_count(folder, read, paint):
    (folder / "train.lst").unlink()
    paint(folder / "train" / "me.jpg", 0)
    with pytest.warns(UserWarning, match=r"1 names in .* and are left out: me\.jpg"):
        assert len(read(folder).train) == 4


def test_malformed(folder, read, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"DeepFashion folder: none of these holds train\.lst or train/ or img/"
    ):
        read(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match=r"train 4 \(expected: 48674\), test 4 \(expected: 4038\)"):
        load("deepfashion", folder, (8, 8), cache=tmp_path / "cache", progress=False)
    lst = folder / "train.lst"
    for text, error, said in (
        ("me.jpg", ValueError, r"1 names in .*train\.lst do not look like fashionWOMEN.*: me\.jpg"),
        (
            "fashionMENDenimid0000009901_1front.jpg",
            FileNotFoundError,
            "1 of the 1 pictures that train.lst names are not",
        ),
        ("\n".join([*FLAT["train"], FLAT["test"][0]]), ValueError, "in both the training and the test set"),
        ("", ValueError, "holds no picture for train: neither train.lst nor train/"),
    ):
        lst.write_text(text)
        with pytest.raises(error, match=said):
            read(folder)
