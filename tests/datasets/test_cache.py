import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reidlib.datasets import cache, load


@pytest.fixture
def caches(tmp_path) -> Path:
    return tmp_path / "cache"


def read(tree, caches, image_size=(64, 32)):
    return load("market1501", tree.folder, image_size, cache=caches, progress=False)


def folders(caches) -> list[str]:
    return sorted(p.name for p in caches.iterdir())


def test_the_second_load_decodes_nothing_and_gives_the_same(tree, caches, monkeypatch):
    tree.annotate()
    first = read(tree, caches)
    monkeypatch.setattr(cache, "_build", lambda *a: pytest.fail("built again"))
    second = read(tree, caches)
    for name, subset in first.subsets().items():
        for kind in ("images", "masks", "parsing", "keypoints"):
            assert torch.equal(getattr(subset, kind), getattr(second.subsets()[name], kind))
    assert len(folders(caches)) == 1 and folders(caches)[0].startswith("market1501-64x32-")
    assert not list(tree.folder.rglob("*.npy"))


def test_images_are_memory_mapped_and_writing_to_them_spoils_nothing(tree, caches):
    people = read(tree, caches).train
    before = people.images.clone()
    people.images[0] = 0  # copy-on-write: only in this process
    assert torch.equal(read(tree, caches).train.images, before)
    stored = np.load(next(caches.iterdir()) / "train.images.npy", mmap_mode="r")
    assert stored.shape == (6, 3, 64, 32) and stored.dtype == np.uint8


def test_decoding_is_exact_at_the_stored_size_and_antialiased_below(tree, caches):
    path = tree.folder / "bounding_box_train" / "0002_c1s1_000201_01.jpg"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(read(tree, caches, (128, 64)).train.images[0].permute(1, 2, 0), pixels)
    # a checkerboard of single pixels must become grey, not black or white
    board = np.indices((128, 64)).sum(0) % 2 * 255
    Image.fromarray(np.repeat(board[..., None], 3, 2).astype(np.uint8)).save(path, quality=100)
    for size in ((64, 32), (32, 16)):
        inner = read(tree, caches, size).train.images[0, :, 1:-1, 1:-1].float()
        assert (inner - 127.5).abs().max() < 6


@pytest.mark.parametrize("change", ["picture", "time", "new", "gone", "mask", "csv"])
def test_a_changed_file_makes_a_new_cache_and_the_old_one_goes(tree, caches, change):
    tree.annotate()
    other_size = read(tree, caches, (32, 16))
    before = read(tree, caches)
    old = folders(caches)
    path = tree.folder / "bounding_box_train" / "0002_c1s1_000201_01.jpg"
    if change == "picture":
        Image.new("RGB", (64, 128), (200, 10, 10)).save(path)
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "new":
        tree.add("bounding_box_train", "0011_c1s1_000001_01.jpg")
    elif change == "gone":
        path.unlink()
    elif change == "mask":
        Image.new("L", (64, 128), 99).save(tree.folder / "bounding_box_train_seg" / "0002_c1s1_000201_01.png")
    else:
        table = tree.folder / "market-annotation-train.csv"
        table.write_text(table.read_text().replace("[10, 15", "[11, 15"))
    after = _quiet(tree, caches) if change == "new" else read(tree, caches)
    new = folders(caches)
    assert len(new) == 2 and len(set(new) - set(old)) == 1  # the other size is still there
    assert other_size.train.image_size == (32, 16)
    if change == "picture":
        assert after.train.images[0, :, 5, 5].tolist() == pytest.approx([200, 10, 10], abs=3)
    elif change in ("new", "gone"):
        assert len(after.train) == len(before.train) + (1 if change == "new" else -1)
    elif change == "mask":
        assert (after.train.masks[0] == 99).all()
    elif change == "csv":
        assert after.train.keypoints[0, 0, 1] == before.train.keypoints[0, 0, 1] + 0.5


def _quiet(tree, caches):
    with pytest.warns(UserWarning) as caught:
        bench = read(tree, caches)
    assert [str(w.message).split()[2] for w in caught] == ["masks", "parsing"]  # it has neither
    return bench


def test_another_folder_with_the_same_name_keeps_its_cache(tree, caches, tmp_path):
    import shutil

    read(tree, caches)
    copy = shutil.copytree(tree.folder, tmp_path / "copy")
    (copy / "bounding_box_train" / "0002_c1s1_000201_01.jpg").touch()
    load("market1501", copy, cache=caches, progress=False)
    assert len(folders(caches)) == 2


def joints(tree, points, split="train"):
    """Write a table of key points for the six training pictures (64 wide, 128 high)."""
    names = sorted(path.name for path in (tree.folder / "bounding_box_train").iterdir())
    rows = [f"{name}:{[y] * 18}:{[x] * 18}" for name, (x, y) in zip(names, points, strict=True)]
    (tree.folder / f"market-annotation-{split}.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]))


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ((120, 250), r"x 120 to 120, y 250 to 250; accepted are pixels .* x 0 to 63 and y 0 to 127, -1: missing"),
        ((70, 20), "x 70 to 70"),  # one coordinate is enough
        ((20, -9), "y -9 to -9"),
        ((0.4, 0.9), "x 0.4 to 0.4, y 0.9 to 0.9"),  # shares of the picture
        ((-0.4, 0.2), "x -0.4 to -0.4"),  # shares from -1 to 1
    ],
)
def test_key_points_of_another_picture_are_refused(tree, caches, point, said):
    joints(tree, [(30, 60)] * 4 + [point] * 2)
    with pytest.raises(ValueError, match=rf"train: the key points of 2 images do not fit, e\.g\. 0010_c1.*{said}"):
        read(tree, caches)
    assert folders(caches) == []


def test_key_points_of_another_picture_fit_where_the_user_says_so(tree, caches):
    places = [(30, 60), (2, 3), (63, 127), (12.5, 80), (40, 9), (7, 100)]
    joints(tree, places)
    expected = read(tree, caches, (128, 64)).train.keypoints
    options = dict(cache=caches, progress=False)
    for scale, made_on in ((0.5, lambda v, n: 2 * v + 0.5), (4, lambda v, n: (v + 0.5) / 4 - 0.5),
                           ("relative", lambda v, n: (v + 0.5) / n)):  # fmt: skip
        joints(tree, [(made_on(x, 64), made_on(y, 128)) for x, y in places])
        found = load("market1501", tree.folder, (128, 64), keypoint_scale=scale, **options).train.keypoints
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="others need keypoint_scale="):
        read(tree, caches, (128, 64))  # the same files without a scale are no cache of theirs
    for wrong in (0, -2.0, float("nan"), "half"):
        with pytest.raises(ValueError, match="accepted are a positive number and 'relative'"):
            load("market1501", tree.folder, keypoint_scale=wrong, **options)


def test_key_points_on_the_border_are_accepted(tree, caches):
    joints(tree, [(0, 5), (63, 127), (64, 128), (63.5, 127.4), (0, 127), (30, 60)])
    points = read(tree, caches, (128, 64)).train.keypoints[:, 3]
    assert points[1].tolist() == points[2].tolist() == [63, 127, 1]  # half a pixel of rounding is no other picture


def test_a_table_without_any_joint_is_refused(tree, caches):
    joints(tree, [(-1, -1)] * 6)
    with pytest.raises(ValueError, match=r"annotation-train\.csv: all 18 joints of all 6 rows are missing"):
        read(tree, caches)
    joints(tree, [(-1, -1)] * 5 + [(30, 60)])
    assert read(tree, caches).train.keypoints[:, 0, 2].tolist() == [0, 0, 0, 0, 0, 1]


def test_key_points_of_smaller_pictures_are_noticed(tree, caches):
    for i in (1, 2):
        tree.add("bounding_box_train", f"0011_c{i}s1_00000{i}_01.jpg")
    joints(tree, [(3 * i, 60 - i) for i in range(8)])
    with pytest.warns(UserWarning, match="all joints lie in the left 33% and upper 47% .* smaller ones"):
        read(tree, caches)


def same_looks(folder, colours, size=(20, 10)):
    """Pictures without compression: equal names and sizes, and equal times to the nanosecond."""
    folder.mkdir(parents=True)
    for name, colour in zip("ab", colours, strict=True):
        Image.new("RGB", size[::-1], colour).save(folder / f"{name}.bmp")
        os.utime(folder / f"{name}.bmp", ns=(1_000, 2_000))
    (folder / "people.csv").write_text("path,pid,camid,split\na.bmp,1,1,query\nb.bmp,1,2,gallery\n")
    return folder


@pytest.mark.parametrize("size", [(20, 10), (200, 100)])  # read whole, and in part
def test_two_folders_that_look_alike_are_two_caches(tmp_path, caches, size):
    red, blue = (250, 0, 0), (0, 0, 250)
    for place, colours in (("one/k", (red, red)), ("two/k", (blue, blue)), ("three/k", (red, blue))):
        bench = load("folder", same_looks(tmp_path / place, colours, size), (16, 8), cache=caches, progress=False)
        assert bench.query.images[0, :, 0, 0].tolist() == list(colours[0])
        assert bench.gallery.images[0, :, 0, 0].tolist() == list(colours[1])
    assert len(folders(caches)) == 3


@pytest.mark.parametrize("size", [(20, 10), (200, 100)])
def test_another_picture_of_the_same_name_size_and_time_is_noticed(tmp_path, caches, size):
    import shutil

    folder = same_looks(tmp_path / "k", ((250, 0, 0), (0, 250, 0)), size)
    load("folder", folder, (16, 8), cache=caches, progress=False)
    shutil.rmtree(folder)
    same_looks(tmp_path / "k", ((0, 250, 0), (250, 0, 0)), size)  # swapped
    bench = load("folder", folder, (16, 8), cache=caches, progress=False)
    assert bench.query.images[0, :, 0, 0].tolist() == [0, 250, 0] and len(folders(caches)) == 1


def test_bytes_of_a_sample_of_many_files_are_read(tree, caches, monkeypatch):
    looked = []
    real = cache._some_bytes
    monkeypatch.setattr(cache, "_some_bytes", lambda path, size: looked.append(path.name) or real(path, size))
    monkeypatch.setattr(cache, "LOOKED_AT", 3)
    read(tree, caches)
    of_train = [name for name in looked if name[:4] in ("0002", "0007", "0010")]
    assert of_train == ["0002_c1s1_000201_01.jpg", "0007_c1s1_000701_01.jpg", "0010_c1s1_001001_01.jpg"]


@pytest.mark.parametrize("place", ["cache", "query/cache", "../market1501"])
def test_the_cache_never_lies_in_the_data_set(tree, tmp_path, place):
    link = tmp_path / "link"
    link.symlink_to(tree.folder)
    for inside in (tree.folder / place, link / place):
        with pytest.raises(ValueError, match="must not lie inside the data set"):
            read(tree, inside)
    assert not list(tree.folder.rglob("*.npy")) and not (tree.folder / "cache").exists()


def test_an_interrupted_build_leaves_no_cache(tree, caches, monkeypatch):
    real, calls = cache._build_subset, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(cache, "_build_subset", stop)
    with pytest.raises(KeyboardInterrupt):
        read(tree, caches)
    assert folders(caches) == []
    monkeypatch.undo()
    assert len(read(tree, caches).train) == 6


@pytest.mark.parametrize("at", [1, 3])  # the first array, and one of a later subset
def test_a_full_disk_is_said_in_words(tree, caches, monkeypatch, at):
    """A mapped file that cannot grow ends Python with a bus error; its room is taken before anything is written."""
    real, calls = os.posix_fallocate, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"\.images\.npy needs 0\.00 GB, its disk has .* GB free .*: make room") as caught:
        read(tree, caches)
    assert caught.value.errno == errno.ENOSPC and folders(caches) == []
    assert len(read(tree, caches).train) == 6


@pytest.mark.parametrize("system_call", [True, False])
def test_the_room_is_taken_before_pixels_are_written(tree, caches, monkeypatch, system_call):
    if not system_call:
        monkeypatch.delattr(os, "posix_fallocate")
    real, taken = cache._decode_image, []

    def look(*arguments):
        taken.append([path.stat().st_blocks * 512 for path in caches.glob(".*.part/*.images.npy")])
        return real(*arguments)

    monkeypatch.setattr(cache, "_decode_image", look)
    read(tree, caches)
    assert taken[0][0] >= 6 * 3 * 64 * 32


def test_what_a_killed_process_left_goes_after_a_day(tree, caches):
    names = ("market1501-64x32-abc.1.part", "market1501-64x32-abc.2.part")
    for name in names:
        (caches / f".{name}").mkdir(parents=True)
    os.utime(caches / f".{names[0]}", (1, 1))
    read(tree, caches)
    assert [name for name in folders(caches) if name.startswith(".")] == [f".{names[1]}"]  # that one may be alive


def test_two_processes_may_build_at_once(tree, caches):
    code = (
        "import sys; from reidlib.datasets import load; "
        "b = load('market1501', sys.argv[1], cache=sys.argv[2], progress=False); print(int(b.train.images.sum()))"
    )
    command = [sys.executable, "-c", code, str(tree.folder), str(caches)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] == f"{int(read(tree, caches).train.images.sum())}\n"
    assert len(folders(caches)) == 1


def test_losing_the_race_uses_what_the_other_built(tree, caches, monkeypatch):
    real = cache._build_subset

    def slower(files, out, subset, *rest):
        if subset == "train" and not getattr(slower, "done", False):
            slower.done = True
            read(tree, caches)  # another process finishes first
        return real(files, out, subset, *rest)

    monkeypatch.setattr(cache, "_build_subset", slower)
    assert len(read(tree, caches).train) == 6
    assert len(folders(caches)) == 1 and not folders(caches)[0].startswith(".")
