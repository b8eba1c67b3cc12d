import dataclasses

import pytest

from reidlib.datasets import Protocol, load, procedural
from reidlib.files import REPOSITORY


@pytest.mark.parametrize(
    ("image_size", "rendered"), [((64, 32), (128, 64)), ((128, 64), (128, 64)), ((256, 128), (256, 128))]
)
def test_rendered_people_go_through_the_reader_and_cache_of_real_data(
    tree, tmp_path, monkeypatch, image_size, rendered
):
    asked = {}

    def make(root, **options):
        asked.update(options, root=root)
        return tree.folder

    monkeypatch.setattr(procedural, "make", make, raising=False)
    bench = load("procedural", "somewhere", image_size, size="smoke", seed=3, scene="generation", difficulty=0.5,
                 cache=tmp_path / "cache", progress=False)  # fmt: skip
    assert asked == {
        "root": "somewhere", "image_size": rendered, "size": "smoke", "seed": 3, "scene": "generation",
        "network": "market1501", "difficulty": 0.5, "progress": False,
    }  # fmt: skip
    assert bench.name == "procedural" and bench.folder == tree.folder and bench.train.image_size == image_size
    cached = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(cached) == 1 and cached[0].startswith(f"procedural-{image_size[0]}x{image_size[1]}-")


def test_real_data_takes_no_notice_of_how_people_would_be_rendered(tree, tmp_path):
    bench = load("market1501", tree.folder, size="full", seed=9, cache=tmp_path / "cache", progress=False)
    assert bench.name == "market1501" and bench.train.image_size == (64, 32)


def test_relative_roots_count_from_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        load("market1501", "no such folder")
    assert str(REPOSITORY / "no such folder") in str(caught.value)


def test_protocol_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Protocol().ap = "trapezoid"
