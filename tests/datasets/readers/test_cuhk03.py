import json
import warnings

import h5py
import numpy as np
import pytest
import torch
from colours import colour_of
from PIL import Image
from scipy.io import savemat

from reidlib.datasets import Protocol, load, load_splits
from reidlib.datasets.readers import cuhk03
from reidlib.evaluators import evaluate_retrieval

# pair, person, index of each image: two pairs of cameras, six people; person 1_003 has view 1 only
CELLS = [(1, p, i) for p in (1, 2, 3) for i in ((1, 2) if p == 3 else (1, 3, 6, 10))]
CELLS += [(2, p, i) for p in (1, 2, 3) for i in (2, 7)]
TEST_SETS = [[[1, 1], [2, 3]], [[1, 3], [2, 1]]]  # people of two splits, counted from 1


def name_of(pair, person, index):
    return f"{pair}_{person:03d}_{1 + (index > 5)}_{index:02d}.png"


NAMES = sorted(name_of(*cell) for cell in CELLS)


def write_mat(path, cells=CELLS, test_sets=TEST_SETS, people=(3, 3, 0, 0, 0), images=10):
    """Write the release's structure: tables of references, MATLAB's order of dimensions, empty cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        store = file.create_group("#refs#")

        def put(array, **attributes):
            data = store.create_dataset(f"d{len(store)}", data=array)
            data.attrs.update(attributes)
            return data.ref

        for boxes in ("detected", "labeled"):
            tables = np.empty((1, len(people)), h5py.ref_dtype)
            for pair, n in enumerate(people, start=1):
                table = np.empty((images, n), h5py.ref_dtype)
                for index in range(1, images + 1):
                    for person in range(1, n + 1):
                        if (pair, person, index) in cells:
                            number = NAMES.index(name_of(pair, person, index)) + 50 * (boxes == "labeled")
                            pixels = np.full((32, 16, 3), colour_of(number), np.uint8)
                            table[index - 1, person - 1] = put(pixels.T)
                        else:
                            table[index - 1, person - 1] = put(np.zeros(2, np.uint64), MATLAB_empty=1)
                tables[0, pair - 1] = put(table) if n else put(np.empty((images, 0), h5py.ref_dtype))
            file.create_dataset(boxes, data=tables)
        sets = np.empty((1, len(test_sets)), h5py.ref_dtype)
        for k, test_set in enumerate(test_sets):
            sets[0, k] = put(np.array(test_set, float).T)
        file.create_dataset("testsets", data=sets)


def write_config(folder, train, query, gallery, names=NAMES, **more):
    labels = [cuhk03.parse_name(name)[0] for name in names]
    fields = {"train_idx": train, "query_idx": query, "gallery_idx": gallery}
    fields = {key: np.array(rows)[:, None] for key, rows in fields.items()}
    fields |= {"labels": np.array(labels)[:, None], "filelist": np.array(names, object)[:, None]}
    fields["camId"] = np.array([cuhk03.parse_name(name)[1] for name in names])[:, None]
    savemat(folder / "cuhk03_new_protocol_config_detected.mat", fields | more)


@pytest.fixture
def folder(tmp_path):
    write_mat(tmp_path / "cuhk03" / "cuhk03_release" / "cuhk-03.mat")
    return tmp_path / "cuhk03"


@pytest.fixture
def extracted(tmp_path, paint):
    for number, name in enumerate(NAMES):
        paint(tmp_path / "extracted" / "images_detected" / name, number)
    (tmp_path / "extracted" / "splits_classic_detected.json").write_text(json.dumps(TEST_SETS))
    return tmp_path / "extracted"


@pytest.fixture
def read(tmp_path):
    def _read(root, image_size=(32, 16), **options):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*differs from the released CUHK03")
            return load("cuhk03", root, image_size, cache=tmp_path / "cache", progress=False, **options)

    return _read


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("1_001_1_01.png", (1, 1, 1)),
        ("1_843_2_10.png", (843, 2, 10)),
        ("2_001_1_05.png", (844, 1, 5)),
        ("5_049_2_06.png", (1467, 2, 6)),
        ("1_844_1_01.png", None),  # pair 1 has 843 people
        ("1_000_1_01.png", None),
        ("1_001_1_06.png", None),  # index 6 belongs to view 2
        ("1_001_2_11.png", None),
        ("6_001_1_01.png", None),
        ("1_001_3_01.png", None),
        ("1_001_1_01.jpg", None),
        ("1_1_1_01.png", None),
    ],
)
def test_grammar(name, fields):
    assert cuhk03.parse_name(name) == fields


def check_classic(bench, split):
    test = {sum(cuhk03.PEOPLE[: pair - 1]) + person for pair, person in TEST_SETS[split]}
    of_test = [name for name in NAMES if cuhk03.parse_name(name)[0] in test]
    assert bench.query.names == bench.gallery.names == of_test
    assert bench.train.names == [name for name in NAMES if name not in of_test]
    for part in bench.subsets().values():
        fields = [cuhk03.parse_name(name) for name in part.names]
        assert part.pids.tolist() == [f[0] for f in fields] and part.camids.tolist() == [f[1] for f in fields]
        for name, image in zip(part.names, part.images, strict=True):
            assert image.float().mean((1, 2)).tolist() == pytest.approx(colour_of(NAMES.index(name)))
    assert bench.protocol.arguments() == {
        "camera_rule": "separate_views", "ap": "plain", "divisor": "valid", "gallery_shots": 1, "repeats": 10,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["folder", "extracted"])
def test_classic_splits_from_the_mat_and_from_extracted_images(read, request, form, tmp_path):
    root = request.getfixturevalue(form)
    for split in (0, 1):
        check_classic(read(root, split=split), split)
    check_classic(read(root.parent if form == "folder" else root), 0)
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 1  # decoded once for all splits
    with pytest.raises(ValueError, match=r"has 2 splits: split must be 0 to 1, got 2"):
        read(root, split=2)
    with pytest.raises(ValueError, match="got -1"):
        read(root, split=-1)


def test_both_forms_are_equal_and_labelled_boxes_are_others(read, folder, extracted):
    from_mat, from_files = read(folder, split=1), read(extracted, split=1)
    for subset, people in from_mat.subsets().items():
        other = from_files.subsets()[subset]
        assert torch.equal(people.images, other.images) and torch.equal(people.pids, other.pids)
    labelled = read(folder, split=1, boxes="labelled").train
    assert labelled.names == from_mat.train.names and not torch.equal(labelled.images, from_mat.train.images)
    assert torch.equal(read(folder, split=1, boxes="detected").train.images, from_mat.train.images)  # both caches live
    assert not any(folder.rglob("*.png")), "nothing may be written into the data set"


def test_a_split_of_file_lists(read, extracted):
    rows = {
        "train": [[f"/elsewhere/{NAMES[0]}", 0, 0], [f"C:\\here\\{NAMES[1]}", 0, 1]],
        "query": [["x/2_001_1_02.png", 7, 0]],
        "gallery": [["x/2_001_2_07.png", 7, 1], ["x/2_002_2_07.png", 8, 1]],
    }
    path = extracted / "splits_classic_detected.json"
    path.write_text(json.dumps([rows]))
    bench = read(extracted)
    assert bench.train.names == NAMES[:2] and bench.query.pids.tolist() == [844]
    assert bench.gallery.pids.tolist() == [844, 845] and bench.gallery.camids.tolist() == [2, 2]
    for wrong, said in (
        ([{"train": []}], "lists train, query, gallery"),
        ([rows | {"query": [3]}], "lists train, query, gallery"),
        ([rows | {"query": []}], "has no query image"),
        ([rows | {"query": rows["train"]}], "in both the training and the test set"),
        ({}, "must be a list of splits, got dict"),
        ([[[1, 900]]], r"people are \[pair, person\] counted from 1, got \[1, 900\]"),
        ([[[0, 1]]], r"got \[0, 1\]"),
        ([[5]], r"got 5"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=said):
            read(extracted)
    path.write_text("[")
    with pytest.raises(ValueError, match=r"splits_classic_detected\.json is not valid JSON"):
        read(extracted)
    path.write_text(json.dumps([rows | {"query": [["5_001_1_01.png", 1, 1]]}]))
    with pytest.raises(FileNotFoundError, match=r"1 of the 1 query images of the split are not in .*: 5_001_1_01\.png"):
        read(extracted)
    path.write_text(json.dumps([[[1, 1], [3, 9]]]))
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 test people \(pids\) of split 0 are not in .*: 1292"):
        read(extracted)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"classic protocol needs .*splits_classic_detected\.json or one of"):
        read(extracted)


def test_the_new_protocol(read, extracted, folder):
    """MATLAB counts from 1; queries per view; people of train and test are disjoint; scored like Market-1501."""
    train = [NAMES.index(name) + 1 for name in NAMES if name[0] == "1"]
    query = [NAMES.index(name) + 1 for name in ("2_002_2_07.png", "2_001_1_02.png", "2_001_2_07.png", "2_002_1_02.png")]
    for root in (extracted, folder):
        write_config(root, train, query, query[:2])
        bench = read(root, protocol="new")
        assert bench.protocol == Protocol()
        assert bench.train.names == [name for name in NAMES if name[0] == "1"] and len(bench.gallery) == 2
        assert bench.query.names == ["2_001_1_02.png", "2_001_2_07.png", "2_002_1_02.png", "2_002_2_07.png"]
        assert bench.query.pids.tolist() == [844, 844, 845, 845] and bench.query.camids.tolist() == [1, 2, 1, 2]
        assert not set(bench.train.pids.tolist()) & set(bench.query.pids.tolist())
        assert bench.query.images[0].float().mean((1, 2)).tolist() == list(colour_of(NAMES.index("2_001_1_02.png")))


def test_the_new_protocol_at_its_full_count(tmp_path):
    """Acceptance check 5 from names alone: 1 in the file is image 0; 700 queries in either view; people disjoint."""
    people = [(pair, p) for pair, n in enumerate(cuhk03.PEOPLE, start=1) for p in range(1, n + 1)]
    names = [name_of(*person, index) for person in people for index in (1, 2, 6, 7)]
    is_test = {name_of(*person, index): k >= 767 for k, person in enumerate(people) for index in (1, 2, 6, 7)}
    train = [i + 1 for i, name in enumerate(names) if not is_test[name]]
    query = [i + 1 for i, name in enumerate(names) if is_test[name] and name[-6:-4] in ("01", "06")]
    gallery = [i + 1 for i, name in enumerate(names) if is_test[name] and name[-6:-4] in ("02", "07")]
    write_config(tmp_path, train, query, gallery, names)
    split = cuhk03._new_config(tmp_path / "cuhk03_new_protocol_config_detected.mat")
    assert names[0] in split.train and len(split.train) == 767 * 4
    assert [sum(cuhk03.parse_name(name)[1] == view for name in split.query) for view in (1, 2)] == [700, 700]
    ids = [{split.pids[name] for name in part} for part in split[:3]]
    assert [len(part) for part in ids] == [767, 700, 700] and not ids[0] & ids[1] and ids[1] == ids[2]


def test_the_new_protocol_takes_its_labels_and_warns_of_cameras(read, extracted):
    labels = np.arange(len(NAMES))[:, None] + 5
    write_config(extracted, [1], [2], [3], labels=labels, camId=np.ones((len(NAMES), 1)))
    with pytest.warns(UserWarning, match=r"camId differs from the view in the names of 1_001_2_06\.png"):
        bench = read(extracted, protocol="new")
    assert [part.pids.tolist() for part in bench.subsets().values()] == [[5], [6], [7]]
    assert bench.gallery.camids.tolist() == [2]  # the name's


def test_the_new_protocol_malformed(read, extracted):
    with pytest.raises(FileNotFoundError, match=r"needs .*config_detected\.mat or splits_new_detected\.json"):
        read(extracted, protocol="new")
    rows = {"train": [[NAMES[0], 0, 0]], "query": [["2_001_1_02.png", 7, 0]], "gallery": [["2_001_2_07.png", 7, 1]]}
    (extracted / "splits_new_detected.json").write_text(json.dumps([rows]))
    assert read(extracted, protocol="new").query.pids.tolist() == [844]
    with pytest.raises(ValueError, match="new protocol has 1 splits: split must be 0 to 0, got 1"):
        read(extracted, protocol="new", split=1)
    for index, said in (
        (0, "must be 1 to 16, got 0$"),
        (17, "must be 1 to 16, got 17$"),
        (1.5, "must be 1 to 16, got 1.5$"),
    ):
        write_config(extracted, [index], [2], [3])
        with pytest.raises(ValueError, match=f"train_idx {said}"):
            read(extracted, protocol="new")
    write_config(extracted, [1], [2], [3])
    with pytest.raises(ValueError, match=r"in both the training and the test set \(0001\)"):
        read(extracted, protocol="new")
    write_config(extracted, [1], [2], [3], labels=np.ones((3, 1)))
    with pytest.raises(ValueError, match="16 names beside 3 labels"):
        read(extracted, protocol="new")
    path = extracted / "cuhk03_new_protocol_config_detected.mat"
    savemat(path, {"train_idx": [1]})
    with pytest.raises(ValueError, match="query_idx, gallery_idx, labels, filelist is missing"):
        read(extracted, protocol="new")
    path.write_bytes(b"not a mat file" * 20)
    with pytest.raises(ValueError, match="is not a MATLAB file"):
        read(extracted, protocol="new")


def test_a_malformed_mat(read, tmp_path):
    mat = tmp_path / "c" / "cuhk-03.mat"
    mat.parent.mkdir()
    mat.write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"cuhk-03\.mat is not a MATLAB 7\.3 \(HDF5\) file"):
        read(mat.parent)
    with h5py.File(mat, "w") as file:
        file["labeled"] = [1]
    with pytest.raises(ValueError, match=r"detected is not among \['labeled'\]"):
        read(mat.parent)
    write_mat(mat, images=9)
    with pytest.raises(ValueError, match=r"pair 1 of detected must be at most 843 people x 10 images, got \(3, 9\)"):
        read(mat.parent)
    write_mat(mat, people=(3, 3))
    with pytest.raises(ValueError, match="detected must hold 5 pairs of cameras, got 2"):
        read(mat.parent)
    write_mat(mat, cells=[])
    with pytest.raises(ValueError, match="holds no detected image"):
        read(mat.parent)


def test_arguments_and_folders(read, folder, extracted, tmp_path, paint):
    with pytest.raises(FileNotFoundError, match=r"none of these holds images_detected/ or cuhk03_release/cuhk-03\.mat"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="boxes must be one of 'detected', 'labeled'; got 'both'"):
        read(folder, boxes="both")
    with pytest.raises(ValueError, match="protocol must be one of 'classic', 'new'; got 'np'"):
        read(folder, protocol="np")
    with pytest.raises(TypeError, match="cuhk03 takes no option labeled; it takes boxes, protocol, split"):
        read(folder, labeled=True)
    with pytest.warns(UserWarning, match=r"the released CUHK03 in its images: detected 16 \(expected: 14097"):
        load("cuhk03", folder, (8, 4), cache=tmp_path / "cache", progress=False)
    (extracted / "images_detected" / NAMES[0]).write_bytes(b"no picture")
    paint(extracted / "images_detected" / "1_001_1_06.png", 0)
    with pytest.warns(UserWarning) as caught:
        bench = read(extracted)
    said = " ".join(str(w.message) for w in caught)
    assert "1 names in" in said and "1_001_1_06.png" in said and "1 images are left out" in said and NAMES[0] in said
    assert NAMES[0] not in bench.query.names and len(bench.query) == 5
    for path in (extracted / "images_detected").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="images_detected holds no image named pair_person3"):
        read(extracted)


def test_annotations_beside_extracted_images(read, extracted):
    for name in NAMES:
        path = extracted / "images_detected_seg" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (16, 32), 99).save(path)
    assert (read(extracted).query.masks == 99).all()


def test_the_classic_protocol_scores_views_against_each_other(read, folder):
    """Perfect features: every query with an image in the other view finds it first, in each of ten draws."""
    bench = read(folder, split=1)  # 1_003 has one view only, so its queries have nothing to find
    ids = {
        "query_pids": bench.query.pids,
        "query_camids": bench.query.camids,
        "gallery_pids": bench.gallery.pids,
        "gallery_camids": bench.gallery.camids,
    }
    features = bench.query.pids[:, None].float()
    scores = evaluate_retrieval(features, features, **ids, **bench.protocol.arguments())
    assert scores.first_hits.shape == (4, 10) and scores.n_valid == 2 and scores.rank(1) == 1
    assert "single-shot, 10 rounds" in str(scores) and "separate views" in str(scores)


def test_load_splits_gives_what_the_protocol_averages(folder, tmp_path):
    options = {"cache": tmp_path / "cache", "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        benches = list(load_splits("cuhk03", folder, (8, 4), split=1, **options))
        assert len(benches) == 1 and set(benches[0].query.pids.tolist()) == {3, 844}
        write_mat(folder / "cuhk03_release" / "cuhk-03.mat", test_sets=TEST_SETS * 10)
        assert len(list(load_splits("cuhk03", folder, (8, 4), **options))) == 20


def test_labels_beyond_whole_numbers_are_refused(read, extracted):
    for label in (1e20, -3, 0.5, np.inf):
        write_config(extracted, [1], [2], [3], labels=np.full((len(NAMES), 1), label))
        with pytest.raises(ValueError, match=r"config_detected\.mat: labels must be 0 to 9223372036854775807, got"):
            read(extracted, protocol="new")


def test_a_config_that_ends_its_reader_does_not_end_python(read, extracted, monkeypatch):
    write_config(extracted, [1], [2], [3])
    path = extracted / "cuhk03_new_protocol_config_detected.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"config_detected\.mat is damaged, or is not a MATLAB file"):
        read(extracted, protocol="new")
    path.write_bytes(whole)
    monkeypatch.setattr(cuhk03, "READ_CONFIG", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(ValueError, match=r"config_detected\.mat is damaged, .*: signal 11"):
        read(extracted, protocol="new")


def cell_of(file, pair, person, index):
    """The table that holds one image of the detected boxes, and its place there."""
    return file[file["detected"][0, pair - 1]], (index - 1, person - 1)


def too_large(file):
    return file.create_dataset("huge", (3, 100_000, 100_000), np.uint8, chunks=(3, 10, 10)).ref  # nothing is stored


def elsewhere(file):
    return file.create_dataset("far", (3, 16, 32), np.uint8, external=[("/etc/hostname", 0, 3 * 16 * 32)]).ref


def virtual(file):
    layout = h5py.VirtualLayout((3, 16, 32), np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 16, 32))
    return file.create_virtual_dataset("seen", layout).ref


@pytest.mark.parametrize("make", [too_large, elsewhere, virtual])
def test_cells_that_are_no_images_of_this_file_are_left_out_by_name(read, folder, make):
    mat = folder / "cuhk03_release" / "cuhk-03.mat"
    with h5py.File(mat, "r+") as file:
        table, place = cell_of(file, 1, 1, 3)
        cells = table[()]
        cells[place] = make(file)
        table[...] = cells
    said = r"1 images are left out: .*1_001_1_03\.png .*cuhk-03\.mat: an array in this file"
    with pytest.warns(UserWarning, match=said):
        bench = read(folder)
    assert {*bench.train.names, *bench.query.names} == set(NAMES) - {"1_001_1_03.png"}


def test_a_damaged_cell_is_left_out_by_name(read, folder):
    mat = folder / "cuhk03_release" / "cuhk-03.mat"
    with h5py.File(mat, "r") as file:
        table, place = cell_of(file, 1, 1, 3)
        address = h5py.h5o.get_info(file[table[place]].id).addr
    data = bytearray(mat.read_bytes())
    data[address : address + 16] = b"\xff" * 16  # its header
    mat.write_bytes(data)
    said = r"1 images are left out: .*1_001_1_03\.png .*cuhk-03\.mat is not .* or is damaged"
    with pytest.warns(UserWarning, match=said):
        read(folder)


def test_a_table_that_lies_in_another_file_is_refused(read, tmp_path):
    mat = tmp_path / "c" / "cuhk-03.mat"
    write_mat(mat)
    mat.rename(mat.with_name("other.h5"))
    with h5py.File(mat, "w") as file:
        file["detected"] = h5py.ExternalLink("other.h5", "/detected")
    with pytest.raises(ValueError, match=r"cuhk-03\.mat: an array in this file, .* expected; got a link"):
        read(mat.parent)
