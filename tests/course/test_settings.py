"""Settings: what the parameters cell says, checked once and frozen."""

from pathlib import Path

import pytest
from tiny_notebooks import PARAMETERS, write_notebook

from reidlib.course import settings as module
from reidlib.course.settings import Parameter, ParameterError, Settings, UnreadableNotebook, read_parameters, read_value


def cell(more: str = "", **injected: object) -> dict:
    """The globals of a notebook after its parameters cell and what papermill put in its place."""
    names: dict = {}
    exec(f"{PARAMETERS}\n{more}", names)
    return names | injected


def test_names_types_and_defaults_stand_in_the_cell_alone():
    settings = Settings.of(cell("cameras: list[int] = [5, 6]  # source, target", profile="smoke", other=3))
    assert list(settings.values) == [*read_names(), "cameras"]
    assert (settings.profile, settings.rate, settings.limit, settings.cameras) == ("smoke", 0.5, None, [5, 6])
    assert settings.size == (64, 32) and settings.choose(smoke=1, course=2) == 1
    paper = Settings.of(cell(profile="paper"), paper_image_size=(256, 256))
    assert paper.size == (256, 256) and paper.choose(1, 2) == 2 and paper.choose(1, 2, 3) == 3
    assert paper.replace(image_size="128x64").size == (128, 64)
    assert paper.replace(profile="course").replace(profile="paper").size == (256, 256)


def read_names() -> list[str]:
    return [line.partition(":")[0] for line in PARAMETERS.splitlines()]


def test_words_of_plain_papermill_are_read_by_the_type():
    more = "cameras: list[int] = [5, 6]  # a\nlosses: list[str] = []  # b\nshape: tuple[int, ...] = (1, 2)  # c"
    for given, expected in [("5,6", [5, 6]), ("[3, 2]", [3, 2]), (4, [4]), ("", []), ([1], [1]), ("1 2", [1, 2])]:
        assert Settings.of(cell(more, cameras=given)).cameras == expected
    assert Settings.of(cell(more, losses="softmax,lsr+triplet")).losses == ["softmax", "lsr+triplet"]
    assert Settings.of(cell(more, losses="[4, controls]")).losses == ["4", "controls"]
    assert Settings.of(cell(more, losses="4")).losses == ["4"]
    assert Settings.of(cell(more, shape=[3, 4])).shape == (3, 4)
    assert Settings.of(cell(more, rate=1, limit="3")).limit == 3
    for wrong in (
        {"cameras": "5,x"},
        {"cameras": [5.5]},
        {"rate": "fast"},
        {"fail": 1},
        {"cameras": None},
        {"losses": True},
    ):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            Settings.of(cell(more, **wrong))


def test_words_that_no_notebook_knows_are_refused_at_the_door():
    more = 'experiments: list[str] = ["auto"]  # what runs\nweights: str = "recorded"  # who draws'
    known = dict(experiments="none blocks rivals", weights="recorded train")
    for given, found in (("auto", ["x", "y"]), ("none", ["none"]), ("blocks,rivals", ["blocks", "rivals"]), ("[]", [])):
        settings = Settings.of(cell(more, profile="course", experiments=given), **known)
        assert settings.words("experiments", smoke="z", course="x y", paper="y") == found
    assert settings.replace(weights="train").weights == "train"
    for wrong in (
        {"experiments": "blocks,rival"},
        {"experiments": "auto,blocks"},
        {"weights": "recoded"},
        {"weights": "auto"},
    ):
        with pytest.raises(ParameterError, match=f"{next(iter(wrong))} must be one of .*; got '(rival|auto|recoded)'"):
            Settings.of(cell(more, **wrong), **known)
    with pytest.raises(ParameterError, match="got 'recoded'"):
        settings.replace(weights="recoded")


def test_a_file_that_is_not_there_is_refused_before_anything_runs(tmp_path):
    weights, more = tmp_path / "vgg19.pth", 'vgg19: str = ""  # its weights'
    for given in ("", "README.md"):  # a relative path counts from the repository root
        assert Settings.of(cell(more, vgg19=given), files="vgg19").vgg19 == given
    with pytest.raises(ParameterError, match=r"vgg19 must be a file, or empty; there is none at .*vgg19\.pth"):
        Settings.of(cell(more, vgg19=str(weights)), files="vgg19")
    weights.touch()
    assert Settings.of(cell(more, vgg19=str(weights)), files="vgg19").vgg19 == str(weights)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"profile": "../smoke"}, r"profile must be one of 'smoke', 'course', 'paper'; got '\.\./smoke'"),
        ({"image_size": "64,32"}, "image_size must be .* got '64,32'"),
        ({"image_size": "0x32"}, "image_size must be"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_shared_parameters_are_checked(values: dict, message: str):
    with pytest.raises(ParameterError, match=message):
        Settings.of(cell(**values))


def test_a_cell_that_was_not_run_or_lacks_names_is_said():
    with pytest.raises(ParameterError, match="there are no parameters: run the notebook's parameters cell"):
        Settings.of({"profile": "smoke"})
    with pytest.raises(ParameterError, match="settings lack dataset, data_root, image_size, device, output_root"):
        exec('profile: str = "smoke"; seed: int = 0', names := {})
        Settings.of(names)
    names = cell()
    del names["rate"], names["fail"]
    with pytest.raises(ParameterError, match="names rate, fail, which have no value"):
        Settings.of(names)
    with pytest.raises(ParameterError, match="no parameter can be called size, load"):
        Settings.of(cell("size: int = 3  # a\nload: str = ''  # b"))


@pytest.fixture
def loads(monkeypatch):
    """What is asked of the data layer, in place of data: each split is its arguments and its number."""

    def splits(name, root, image_size, **options):
        for number in range(20):
            yield name, root, image_size, options, number

    monkeypatch.setattr(module, "is_interactive", lambda: False)  # then no progress lines stay in a notebook
    monkeypatch.setattr(module, "load", lambda *place, **options: (*place, options))
    monkeypatch.setattr(module, "load_splits", splits)


def test_load_takes_the_settings_data_set_and_size(loads):
    settings = Settings.of(cell(profile="paper", dataset="market1501", data_root="my data"), paper_image_size=(128, 64))
    assert settings.load() == (
        "market1501",
        "my data",
        (128, 64),
        {"scene": "retrieval", "size": "full", "progress": False},
    )
    other = settings.replace(profile="smoke", image_size="96x48").load(
        "generation", dataset="msmt17", seed=3, size="x", progress=True
    )
    assert other == ("msmt17", "my data", (96, 48), {"scene": "generation", "size": "x", "seed": 3, "progress": True})


def test_load_splits_gives_the_first_splits_of_another_data_set(loads):
    settings = Settings.of(cell(profile="course", data_root="my data"))
    place, options = (
        ("procedural", "my data", (64, 32)),
        {"scene": "generation", "size": "course", "seed": 5, "progress": False},
    )
    rendered = list(settings.load_splits("cuhk03", 3, scene="generation", seed=5))
    assert rendered == [(*place, options | {"network": "cuhk03"}, number) for number in range(3)]
    real = settings.replace(dataset="market1501")
    assert next(real.load_splits("msmt17", 1)) == (
        "msmt17", "my data", (64, 32), {"scene": "retrieval", "size": "course", "progress": False}, 0)  # fmt: skip
    for either in (settings, real):  # CUHK01's splits are scored both ways
        assert [split[-1] for split in either.load_splits("cuhk01", 2)] == [0, 1, 2, 3]
    assert list(settings.load_splits("cuhk01", 0)) == []


def test_settings_are_frozen_and_name_what_they_have():
    settings = Settings.of(cell())
    with pytest.raises(AttributeError, match="settings are frozen: set seed in the parameters cell"):
        settings.seed = 3
    with pytest.raises(TypeError):
        settings.values["seed"] = 3
    with pytest.raises(AttributeError, match="settings have no 'sead'; they have profile, dataset"):
        _ = settings.sead
    with pytest.raises(ParameterError, match="did you mean seed"):
        settings.replace(sead=1)
    assert repr(settings).startswith("Settings(profile='course', dataset='procedural'")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("list[int]", "5,6", [5, 6]), ("list[int]", " 5, 6 ", [5, 6]), ("list[int]", "[5, 6]", [5, 6]),
        ("list[int]", "(5, 6)", [5, 6]), ("list[int]", "5", [5]), ("list[int]", "", []),
        ("list[float]", "-1e-3", [-1e-3]),
        ("list[str]", "softmax lsr", ["softmax", "lsr"]), ("list[str]", "['a b', 'c']", ["a b", "c"]),
        ("list[str]", "none", ["none"]), ("tuple[int, ...]", "3,4", (3, 4)), ("list[int] | None", "none", None),
    ],
)  # fmt: skip
def test_a_list_is_written_in_three_ways(kind: str, text: str, value: object):
    result = read_value(Parameter("x", kind, None, ""), text)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    "content",
    ["<<<<<<< HEAD\n{}\n=======\n", "\ufeff{}", "", "[1, 2]", '{"cells": [', '{"cells": 3, "nbformat": 4}'],
    ids=["merge marks", "byte-order mark", "empty", "no notebook", "cut off", "no cells"],
)
def test_what_is_no_notebook_is_named(tmp_path: Path, content: str):
    path = write_notebook(tmp_path / "00_toy.ipynb")
    path.write_text(content, encoding="utf-8")
    with pytest.raises((UnreadableNotebook, ParameterError), match=r"00_toy\.ipynb"):
        read_parameters(path)
