import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from reidlib.datasets import PersonImages, extend, person_images

MISSING = [-1.0, -1.0, 0.0]


def people(n: int, start: int = 0, **more) -> PersonImages:
    """n images, the pixels of image i all equal to start + i."""
    images = (start + torch.arange(n, dtype=torch.uint8))[:, None, None, None].expand(n, 3, 8, 4).contiguous()
    return PersonImages(images, pids=[1 + i // 2 for i in range(n)], camids=[1 + i % 2 for i in range(n)], **more)


def annotated(n: int, start: int = 0) -> PersonImages:
    keypoints = torch.ones(n, 18, 3) * torch.arange(n)[:, None, None]
    masks = torch.full((n, 8, 4), 255, dtype=torch.uint8)
    parsing = torch.full((n, 8, 4), 5, dtype=torch.uint8)
    info = pd.DataFrame({"yaw": [10 * i for i in range(n)]})
    return people(n, start, keypoints=keypoints, masks=masks, parsing=parsing, info=info)


def value(batch: dict) -> list[int]:
    return batch["images"][:, 0, 0, 0].tolist()


def test_select_combines_conditions_and_keeps_order_and_rows():
    s = annotated(8)
    view = s.select(pids=[1, 3], camids=2, indices=[5, 4, 1, 0])
    assert view.images[:, 0, 0, 0].tolist() == [5, 1]
    assert view.pids.tolist() == [3, 1] and view.camids.tolist() == [2, 2]
    assert view.info["yaw"].tolist() == [50, 10] and view.keypoints[:, 0, 0].tolist() == [5, 1]
    assert view.names == ["000005", "000001"]
    inner = view.select(indices=torch.tensor([False, True]))  # a view of a view
    assert inner.images[0, 0, 0, 0] == 1 and len(inner) == 1
    for wanted in ({1, 3}, range(1, 4, 2), torch.tensor([1, 3]), pd.Series([1, 3])):
        assert s.select(pids=wanted).pids.tolist() == [1, 1, 3, 3]


def test_select_shares_pixels_and_an_empty_selection_is_a_set():
    s = annotated(6)
    view = s.select(indices=[3, 4])
    assert view._parts[0]["images"].data_ptr() == s.images.data_ptr()
    empty = s.select(pids=99)
    assert len(empty) == 0 and empty.images.shape == (0, 3, 8, 4) and len(empty.table()) == 0
    assert empty.batch([])["pids"].shape == (0,)
    assert len(extend(s, empty)) == 6 and extend(empty, s).masks is not None


def test_batch_gathers_in_the_order_asked_from_every_part():
    s = extend(people(4), people(3, start=100), people(2, start=200))
    order = [8, 0, 5, 0, 3, 7]
    batch = s.batch(order)
    assert value(batch) == [201, 0, 101, 0, 3, 200]
    assert batch["indices"].tolist() == order
    assert batch["pids"].tolist() == [int(s.pids[i]) for i in order]
    view = s.select(indices=[8, 5, 1])
    assert value(view.batch([2, 0, 1])) == [1, 201, 101]
    assert view.images[:, 0, 0, 0].tolist() == [201, 101, 1]


def test_extend_keeps_parts_and_does_not_copy_or_repeat_them():
    a, b = people(4), people(3, start=100)
    s = extend(a.select(camids=1), b, a.select(camids=2))
    assert s.images[:, 0, 0, 0].tolist() == [0, 2, 100, 101, 102, 1, 3]
    assert [p["images"].data_ptr() for p in s._parts] == [a.images.data_ptr(), b.images.data_ptr()]
    twice = extend(s, s)
    assert len(twice) == 14 and len(twice._parts) == 2
    assert twice.images[7:, 0, 0, 0].tolist() == s.images[:, 0, 0, 0].tolist()


def test_extend_with_images_that_lack_annotations():
    real, fake = annotated(4), people(2, start=50, is_generated=[True, True])
    s = extend(real, fake)
    assert s.masks is None and s.parsing is None and "masks" not in s.batch([0])
    assert s.keypoints[4].tolist() == [MISSING] * 18 and s.keypoints[3, 0, 0] == 3
    assert s.batch([5, 1])["keypoints"][:, 0].tolist() == [MISSING, [1, 1, 1]]
    assert s.info["yaw"].tolist()[:4] == [0, 10, 20, 30] and s.info["yaw"].isna().sum() == 2
    assert s.is_generated.tolist() == [False] * 4 + [True] * 2
    back = s.select(indices=~s.is_generated)
    assert back.masks.shape == (4, 8, 4) and back.batch([1])["parsing"].unique().tolist() == [5]


def test_unknown_words_name_the_known():
    with pytest.raises(ValueError, match="annotation must be one of 'keypoints', 'masks', 'parsing'; got 'yaw'"):
        people(1).has("yaw")


def test_extend_refuses_other_sizes_and_other_things():
    with pytest.raises(ValueError, match=r"\(8, 4\), \(16, 4\)"):
        extend(people(1), PersonImages(torch.zeros(1, 3, 16, 4, dtype=torch.uint8), [1], [1]))
    with pytest.raises(TypeError, match="Tensor at position 1"):
        extend(people(1), torch.zeros(1))


def test_to_moves_what_is_shown_and_refuses_what_does_not_fit(monkeypatch):
    s = extend(annotated(4), annotated(2, start=9)).select(indices=[5, 0])
    moved = s.to("cpu")
    assert moved.images[:, 0, 0, 0].tolist() == [10, 0] and len(moved._parts) == 1
    assert moved.masks.shape == (2, 8, 4) and moved.pids.tolist() == s.pids.tolist()
    assert s.to("meta").device.type == "meta"
    monkeypatch.setattr(person_images, "free_memory", lambda device: 0.5e9)
    many = torch.zeros(1, 3, 256, 128, dtype=torch.uint8).expand(20_000, -1, -1, -1)
    huge = PersonImages(many, [1] * 20_000, [1] * 20_000)
    with pytest.raises(MemoryError, match=r"20000 images need 1\.97 GB on cpu, where 0\.50 GB are free"):
        huge.to("cpu")
    assert len(huge.select(indices=[0, 1]).to("cpu")) == 2


def test_table_and_words():
    s = extend(annotated(4), people(2, is_generated=[True] * 2))
    table = s.table()
    assert list(table.columns) == ["name", "pid", "camid", "sequence", "is_generated", "yaw"]
    assert table["pid"].tolist() == [1, 1, 2, 2, 1, 1] and table["sequence"].unique().tolist() == [-1]
    assert repr(s) == "PersonImages(6 images 8x4, 2 identities, 2 cameras, keypoints, 2 generated)"


def test_with_labels_leaves_the_first_set_alone():
    s = people(4)
    other = s.with_labels(pids=[9, 8, 7, 6], camids=3)
    assert other.pids.tolist() == [9, 8, 7, 6] and other.camids.tolist() == [3] * 4 and s.pids.tolist() == [1, 1, 2, 2]
    with pytest.raises(TypeError, match="pid"):
        s.with_labels(pid=1)
    with pytest.raises(ValueError, match="4 images"):
        s.with_labels(pids=[1])


def test_the_callers_numbers_are_not_shared():
    pids = torch.tensor([1, 2])
    s = PersonImages(torch.zeros(2, 3, 8, 4, dtype=torch.uint8), pids, pids)
    pids[0] = 50
    assert s.pids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"images": torch.zeros(2, 3, 8, 4)}, ValueError, "float32 [2, 3, 8, 4]"),
        ({"images": torch.zeros(2, 8, 4, 3, dtype=torch.uint8)}, ValueError, "[2, 8, 4, 3]"),
        ({"images": [[1]]}, TypeError, "list"),
        ({"pids": [1]}, ValueError, "each of the 2 images, got shape [1]"),
        ({"pids": [1.5, 2.0]}, TypeError, "float32"),
        ({"pids": ["a", "b"]}, TypeError, "pids must be whole numbers that fit int64, got str 'a'"),
        ({"pids": [7, "12"]}, TypeError, "got str '12'"),
        ({"camids": "12"}, TypeError, "camids must be whole numbers that fit int64, got str '1'"),
        ({"sequences": [1, None]}, TypeError, "got NoneType None"),
        ({"pids": np.array(["a", "b"])}, TypeError, "got str 'a'"),
        ({"pids": [[1], [2, 3]]}, TypeError, "got list [1]"),
        ({"pids": [1, 10**30]}, ValueError, f"got int {10**30}"),
        ({"pids": [1, 12345678901234567890]}, ValueError, "got int 12345678901234567890"),
        ({"pids": [-(2**63) - 1, 1]}, ValueError, "got int -9223372036854775809"),
        ({"pids": [1e20, 1.0]}, TypeError, "float32"),
        ({"pids": np.array([1e20, 1.0])}, TypeError, "float64"),
        ({"pids": [1 + 2j, 1]}, TypeError, "complex64"),
        ({"pids": [True, False]}, TypeError, "bool"),
        ({"pids": np.array([3, 2**63], dtype=np.uint64)}, ValueError, "got 9223372036854775808 (uint64)"),
        ({"camids": torch.tensor([2**64 - 1, 0], dtype=torch.uint64)}, ValueError, "got 18446744073709551615 (uint64)"),
        ({"pids": np.array([10**30, 1], dtype=object)}, ValueError, f"got int {10**30}"),
        ({"camids": torch.zeros(2, 1, dtype=torch.int64)}, ValueError, "[2, 1]"),
        ({"sequences": [1, 2, 3]}, ValueError, "sequences"),
        ({"names": ["a"]}, ValueError, "got 1"),
        ({"keypoints": torch.zeros(2, 17, 3)}, ValueError, "[2, 17, 3]"),
        ({"masks": torch.zeros(2, 8, 4)}, ValueError, "float32"),
        ({"masks": torch.zeros(2, 4, 8, dtype=torch.uint8)}, ValueError, "[2, 4, 8]"),
        ({"parsing": torch.zeros(1, 8, 4, dtype=torch.uint8)}, ValueError, "[1, 8, 4]"),
        (
            {"is_generated": [True]},
            ValueError,
            "is_generated must have one value for each of the 2 images, got shape [1]",
        ),
        ({"info": pd.DataFrame({"a": [1]})}, ValueError, "1 rows"),
    ],
)
def test_bad_input_is_refused_at_the_door(change, error, words):
    arguments = {"images": torch.zeros(2, 3, 8, 4, dtype=torch.uint8), "pids": [1, 2], "camids": [1, 2]} | change
    with pytest.raises(error) as caught:
        PersonImages(**arguments)
    assert words in str(caught.value)


def test_numbers_that_fit_come_in_any_integer_type():
    last = 2**63 - 1
    both = [last, 0]
    for pids in (both, np.array(both, np.uint64), torch.tensor(both, dtype=torch.uint64), dict.fromkeys(both),
                 pd.Series(both), range(last, -1, -last), [np.int64(last), torch.tensor(0)]):  # fmt: skip
        assert people(2).with_labels(pids=pids).pids.tolist() == [last, 0]
    assert people(2).with_labels(pids=np.array([200, 3], np.uint8)).pids.tolist() == [200, 3]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [("1", TypeError), (["1"], TypeError), (1.5, TypeError), ([1.9], TypeError), (10**30, ValueError), (None, None),
     (np.array([2**64 - 1], np.uint64), ValueError)],
)  # fmt: skip
def test_what_is_selected_is_a_whole_number(wanted, error):
    """1.9 selected person 1 without a word, and 2**64 - 1 junk (-1)."""
    s = people(4).with_labels(pids=[1, 1, -1, -1])
    if error is None:
        assert len(s.select(pids=wanted)) == 4 and len(s.select(pids=[])) == 0
        return
    for condition in ("pids", "camids"):
        with pytest.raises(error, match=f"{condition} must be whole numbers that fit int64, got"):
            s.select(**{condition: wanted})


def test_person_zero_counts_and_nobody_does_not():
    assert (person_images.JUNK, person_images.UNLABELLED, person_images.DISTRACTOR) == (-1, -2, -3)
    s = people(6).with_labels(pids=[0, 0, 4, -1, -2, -3])
    assert "2 identities" in repr(s) and "0 identities" in repr(s.select(indices=[3, 4, 5]))


@pytest.mark.parametrize("indices", [[4], [-1], [0.5], [[0, 1]], [True, False]])
def test_bad_indices_are_refused(indices):
    with pytest.raises(IndexError):
        people(4).batch(indices)


AT_MSMT17_COUNT = """
import sys, threading, time
import numpy as np, psutil, torch
from reidlib.datasets import PersonImages, extend
n, ids, process = 126_441, 4_101, psutil.Process()
pixels = np.memmap(sys.argv[1], np.uint8, "w+", shape=(n, 3, 16, 8))
images = torch.from_numpy(pixels)
images += torch.arange(n).remainder(251).to(torch.uint8)[:, None, None, None]  # every page is there before we measure
points = torch.zeros(n, 18, 3)
names = [f"{i:09d}.jpg" for i in range(n)]
pids, camids = torch.arange(n) % ids, torch.arange(n) % 15 + 1
before, peak, going = process.memory_info().rss, [0], [True]
def watch():
    while going[0]:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
full = PersonImages(images, pids, camids, names=names, keypoints=points)
held = [full.select(camids=range(1, 8)), full.select(pids=range(0, ids, 2)), full.select(indices=torch.randperm(n))]
held.append(extend(full, held[1], held[2]))
g = torch.Generator().manual_seed(0)
for _ in range(50):
    rows = torch.randint(len(held[-1]), (256,), generator=g)
    batch = held[-1].batch(rows)
    origin = batch["images"][:, 0, 0, 0]
held.append(held[-1].table())
time.sleep(0.01)
going[0] = False
watcher.join()
last = held[3].batch([n, len(held[3]) - 1])
assert last["images"][0, 0, 0, 0] == 0 and len(held[3]) == 2 * n + len(held[1])
print((peak[0] - before) / 1e6)
"""


def test_memory_at_msmt17_count(tmp_path):
    """126,441 images: selecting, extending, batching and the table of all stay under 200 MB beyond the map."""
    done = subprocess.run(
        [sys.executable, "-c", AT_MSMT17_COUNT, str(tmp_path / "pixels")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 200
