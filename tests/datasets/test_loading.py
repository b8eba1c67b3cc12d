import dataclasses
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from reidlib.datasets import Protocol, load, procedural, readers
from reidlib.datasets.readers.listing import Listing
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


@pytest.mark.parametrize("name", readers.NAMES)
def test_a_reader_lists_files_and_knows_nothing_of_sizes_and_caches(name):
    parameters = inspect.signature(readers.reader(name).read).parameters
    assert next(iter(parameters)) == "root"
    assert not {"image_size", "cache", "progress", "name"} & set(parameters)


def test_a_new_data_set_is_one_module_and_one_name(tmp_path, monkeypatch, paint):
    paint(tmp_path / "pets" / "a" / "1.jpg", 1)
    paint(tmp_path / "pets" / "a" / "2.jpg", 2)

    def read(root, *, fur="short"):
        rows = [(f"a/{i}.jpg", f"{i}.jpg", i, 1, fur) for i in (1, 2)]
        table = pd.DataFrame(rows, columns=["path", "name", "pid", "camid", "fur"])
        subsets = ("train", "query", "gallery")
        return Listing(Path(root), {"all": table}, views=lambda all: dict.fromkeys(subsets, all["all"]), variant=fur)

    monkeypatch.setitem(sys.modules, "reidlib.datasets.readers.pets", SimpleNamespace(read=read))
    monkeypatch.setattr(readers, "NAMES", (*readers.NAMES, "pets"))
    bench = load("pets", tmp_path / "pets", (8, 4), fur="long", cache=tmp_path / "cache", progress=False)
    assert bench.name == "pets" and bench.query.pids.tolist() == [1, 2] and set(bench.train.info["fur"]) == {"long"}
    assert next((tmp_path / "cache").iterdir()).name.startswith("pets-long-8x4-")
    with pytest.raises(TypeError, match="pets takes no option colour; it takes fur"):
        load("pets", tmp_path / "pets", colour="red")
