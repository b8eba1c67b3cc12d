import numpy as np
import pytest
import torch
from PIL import Image

from reidlib.datasets import PersonImages, camera_pair
from reidlib.datasets.camera_pairs import random_targets
from reidlib.datasets.readers.market1501 import parse_name


def people(rows):
    pids, camids, sequences = zip(*rows, strict=True)
    images = torch.zeros(len(rows), 3, 8, 4, dtype=torch.uint8)
    return PersonImages(images, pids, camids, sequences=sequences)


# A = {1s1, 1s1, 1s2, 2s1}, B = {1s1, 1s1, 1s1, 2s2}; camera 9 and junk are in the way
TOY = [(1, 5, 1), (1, 6, 1), (1, 5, 1), (1, 9, 2), (1, 5, 2), (1, 6, 1), (2, 5, 1), (1, 6, 1), (2, 6, 2)]
TOY += [(-1, 5, 1), (-3, 6, 1)]


def test_the_thesis_toy():
    pair = camera_pair(people(TOY), 5, 6)
    assert pair.train_pairs.dtype == torch.int64
    assert pair.train_pairs.tolist() == [[0, 1], [0, 5], [0, 7], [2, 1], [2, 5], [2, 7]]
    assert pair.generate_from_a.tolist() == [4, 6]  # 1s2 and 2s1
    assert pair.generate_from_b.tolist() == [8]
    assert pair.new_ids_from_a.tolist() == pair.new_ids_from_b.tolist() == []


def test_the_other_way_round_gives_the_same_pairs():
    there, back = camera_pair(people(TOY), 5, 6), camera_pair(people(TOY), 6, 5)
    assert sorted(map(tuple, there.train_pairs.tolist())) == sorted((b, a) for a, b in back.train_pairs.tolist())
    assert torch.equal(there.generate_from_a, back.generate_from_b)


def test_against_a_slow_loop_on_names_alone():
    rng = np.random.default_rng(0)
    names = [f"{rng.integers(1, 30):04d}_c{rng.integers(1, 4)}s{rng.integers(1, 4)}_{i:06d}_01.jpg" for i in range(300)]
    names += [f"-1_c1s1_{i:06d}_01.jpg" for i in range(5)] + [f"{90 + i:04d}_c1s1_000001_01.jpg" for i in range(4)]
    fields = [parse_name(name)[:3] for name in names]
    pair = camera_pair(people(fields), 1, 2)
    a = [i for i, f in enumerate(fields) if f[1] == 1 and f[0] > 0]
    b = [i for i, f in enumerate(fields) if f[1] == 2 and f[0] > 0]

    def key(i):
        return fields[i][0], fields[i][2]

    assert pair.train_pairs.tolist() == [[i, j] for i in a for j in b if key(i) == key(j)]
    for mine, other, generate, new in (
        (a, b, pair.generate_from_a, pair.new_ids_from_a),
        (b, a, pair.generate_from_b, pair.new_ids_from_b),
    ):
        assert generate.tolist() == [i for i in mine if key(i) not in {key(j) for j in other}]
        assert new.tolist() == [i for i in mine if fields[i][0] not in {fields[j][0] for j in other}]
    assert len(pair.new_ids_from_a) >= 4


def test_person_zero_is_paired_and_nobody_is_not():
    rows = [(0, 1, 1), (0, 2, 1), (0, 1, 2)] + [(pid, camera, 1) for pid in (-1, -2, -3) for camera in (1, 2)]
    pair = camera_pair(people(rows), 1, 2)
    assert pair.train_pairs.tolist() == [[0, 1]] and pair.generate_from_a.tolist() == [2]
    with pytest.raises(ValueError, match="camera 1 has no images"):
        camera_pair(people(rows[3:]), 1, 2)


@pytest.mark.parametrize(
    "rows",
    [
        [(2**62, 1, 3), (2**62, 2, 3), (0, 1, 3), (0, 2, 5)],  # 2**62 times 4 is 0 in int64: person 0's number
        [(2**62, 1, 2), (2**62, 2, 2), (2**61, 2, 2), (0, 1, 2), (3, 2, 2)],
        [(5, 1, -4), (5, 2, -4), (4, 1, 1), (4, 2, -1)],  # sequences below -1
    ],
)
def test_large_numbers_do_not_merge_people_or_walks(rows):
    pair = camera_pair(people(rows), 1, 2)
    expected = [[i, j] for i, a in enumerate(rows) for j, b in enumerate(rows)
                if a[1] == 1 and b[1] == 2 and (a[0], a[2]) == (b[0], b[2])]  # fmt: skip
    assert pair.train_pairs.tolist() == expected
    paired = {i for row in expected for i in row}
    assert pair.generate_from_a.tolist() == [i for i, r in enumerate(rows) if r[1] == 1 and i not in paired]


def test_clear_errors():
    toy = people(TOY)
    with pytest.raises(ValueError, match=r"camera 7 has no images; the set's cameras are \[5, 6, 9\]"):
        camera_pair(toy, 5, 7)
    with pytest.raises(ValueError, match="5 twice"):
        camera_pair(toy, 5, 5)
    with pytest.raises(ValueError, match="no identity is in both camera 1 and camera 2"):
        camera_pair(people([(1, 1, 1), (2, 2, 1)]), 1, 2)
    with pytest.raises(ValueError, match="camera 3 has no images"):
        random_targets(toy, 3, 5)


def test_common_identity_but_no_common_walk_gives_no_pairs():
    pair = camera_pair(people([(1, 1, 1), (1, 2, 2)]), 1, 2)
    assert pair.train_pairs.shape == (0, 2) and pair.generate_from_a.tolist() == [0]


def test_random_targets_are_distinct_and_seeded():
    train = people([(i, 1, 1) for i in range(1, 8)] + [(i, 2, 1) for i in range(1, 14)])
    pairs = random_targets(train, 1, 2, per_source=10, seed=3)
    assert pairs.shape == (70, 2) and pairs[:, 0].unique().tolist() == list(range(7))
    for source in range(7):
        targets = pairs[pairs[:, 0] == source, 1]
        assert targets.unique().numel() == 10 and set(train.camids[targets].tolist()) == {2}
    assert torch.equal(pairs, random_targets(train, 1, 2, per_source=10, seed=3))
    assert not torch.equal(pairs, random_targets(train, 1, 2, per_source=10, seed=4))
    assert random_targets(train, 2, 1, per_source=10).shape == (13 * 7, 2)  # camera 1 has seven only


def test_write_leaves_the_thesis_folders(tmp_path):
    rows = [(1, 5, 1), (1, 6, 1), (2, 5, 1), (3, 6, 1)]
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 8, 4) * 50
    pids, camids, sequences = zip(*rows, strict=True)
    train = PersonImages(images, pids, camids, sequences=sequences, names=[f"{i}.jpg" for i in range(4)])
    assert camera_pair(train, 5, 6).write(tmp_path) == 3 + 3
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert found == [
        "A/test/2.png",
        "A/train/0+1.png",
        "B/test/3.png",
        "B/train/0+1.png",
        "test/2.png",
        "train/0+1.png",
    ]
    side_by_side = np.asarray(Image.open(tmp_path / "train" / "0+1.png"))
    assert side_by_side.shape == (8, 8, 3)
    assert (side_by_side[:, :4] == 0).all() and (side_by_side[:, 4:] == 50).all()
    camera_pair(train, 5, 6).write(tmp_path / "other", generate="a")
    assert [path.name for path in (tmp_path / "other" / "test").iterdir()] == ["3.png"]


def test_write_needs_a_camera_to_generate(tmp_path):
    with pytest.raises(ValueError, match="generate must be one of 'a', 'b'; got 'c'"):
        camera_pair(people([(1, 1, 1), (1, 2, 1)]), 1, 2).write(tmp_path, generate="c")
