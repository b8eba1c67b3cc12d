"""The choice of a recipe: what is trained, by which rows it is remembered, and what is said of it."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from reidlib.__main__ import main
from reidlib.tools import choose_recipe

TINY = {"every camera": (None, 32), "camera 5": ([5], 16)}


@pytest.fixture
def trained(monkeypatch):
    """What was trained, in place of the trainings; a network's score is its batch size in percent."""
    calls = []

    def train(images, *, recipe, **options):
        calls.append(
            (sorted(images.camids.unique().tolist()), recipe.batch, recipe.lr, options["loss"], options["seed"])
        )
        return recipe, None

    monkeypatch.setattr(choose_recipe, "TASKS", TINY)
    monkeypatch.setattr(choose_recipe, "train_baseline", train)
    scores = SimpleNamespace
    monkeypatch.setattr(
        choose_recipe, "score_benchmark", lambda recipe, _: scores(rank=lambda k: 0.5, mAP=recipe.batch / 100)
    )
    return calls


def test_rows_are_kept_and_not_run_again(trained, tmp_path, monkeypatch):
    options = dict(tasks=["every camera", "camera 5"], size="smoke", file=tmp_path / "rows.csv")
    table = choose_recipe.compare(["batch 32", "batch 16"], seeds=[0, 1], **options)
    cameras = [[1, 2, 3, 4, 5, 6], [5]]
    wanted = [(c, batch, 1e-3, "lsr", seed) for seed in (0, 1) for batch in (32, 16) for c in cameras]
    assert trained == wanted
    assert table.loc[("camera 5", "lsr", "batch 16")].tolist() == [16, -16, 0, "0 of 2"]
    choose_recipe.compare(["batch 32", "batch 16"], seeds=[0, 1, 2], **options)
    assert [call[-1] for call in trained[8:]] == [2] * 4
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert len(rows) == 12 and set(rows["rank-1"]) == {50.0} and not rows.isna().any(axis=None)
    with monkeypatch.context() as changed:
        changed.setitem(choose_recipe.RECIPES, "course", replace(choose_recipe.RECIPES["course"], lr=2e-3))
        table = choose_recipe.compare(["batch 32"], seeds=[0], **options)  # rows of another recipe are not these
    assert [call[2] for call in trained[12:]] == [2e-3] * 2 and table.won.tolist() == ["0 of 1"] * 2
    del trained[12:]
    rows.assign(size="course").to_csv(tmp_path / "rows.csv", index=False)
    table = choose_recipe.compare(["batch 32"], seeds=[0], **options)  # rows of another size are not these
    assert len(trained) == 14 and table.won.tolist() == ["0 of 1"] * 2


def test_shares_and_weights_of_unlabelled_images(monkeypatch, tmp_path):
    calls, drawn = [], []

    def train(images, **options):
        unlabelled = int((images.pids == -2).sum())
        calls.append((unlabelled / int((images.pids > 0).sum()), options["unlabelled_weight"], options["images_seen"]))
        assert options["form"] == "pn_gan" and options["loss"] == "softmax"
        return unlabelled, None

    def dcgan(train, *, images_seen, seed):
        drawn.append((images_seen, seed))
        return choose_recipe.DCGAN(preset="smoke"), None

    monkeypatch.setattr(choose_recipe, "train_baseline", train)
    monkeypatch.setattr(choose_recipe, "train_dcgan", dcgan)
    scores = SimpleNamespace(rank=lambda k: 0.5, mAP=0.5)
    monkeypatch.setattr(choose_recipe, "score_benchmark", lambda method, _: scores)
    options = dict(tasks=["LSRO"], size="smoke", file=tmp_path / "rows.csv")
    table = choose_recipe.compare(["photographs alone", "0.5 of weight 0.3", "2 of weight 1"], seeds=[3, 4], **options)
    assert calls == [(0, 1, 12_000), (0.5, 0.3, 18_000), (2, 1, 36_000)] * 2
    assert drawn == [(48_000, 3), (48_000, 4)]  # one DCGAN a seed
    assert table.loc[("LSRO", "softmax", "2 of weight 1")].tolist() == [50, 0, 0, "0 of 2"]
    with pytest.raises(ValueError, match="batch 32"):
        choose_recipe.compare(["batch 32"], **options)


def test_lengths_of_a_siamese_network(monkeypatch, tmp_path, capsys):
    calls = []

    def train(images, *, images_seen, seed, progress):
        calls.append((images_seen, seed, len(images.pids.unique()) > 1))
        return images_seen, None

    scores = SimpleNamespace
    monkeypatch.setattr(choose_recipe, "train_siamese", train)
    monkeypatch.setattr(
        choose_recipe, "score_benchmark", lambda seen, _: scores(rank=lambda k: 0.5, mAP=seen / 100_000)
    )
    options = dict(tasks=["Siamese"], size="smoke", file=tmp_path / "rows.csv")
    table = choose_recipe.compare(seeds=[1, 2], **options)
    assert calls == [(8_000, 1, True), (16_000, 1, True), (8_000, 2, True), (16_000, 2, True)]
    assert table.loc[("Siamese", "softmax", "16,000 images")].tolist() == [16, 8, 0, "2 of 2"]
    with pytest.raises(ValueError, match="loss of a Siamese network must be one of 'softmax'; got 'lsr'"):
        choose_recipe.compare(loss="lsr", **options)
    assert main(["recipe", "--task", "Siamese", "--loss", "lsr"]) == 2
    assert main(["recipe", "--task", "Siamese", "--task", "camera 5"]) == 2
    told = capsys.readouterr().err
    assert "loss of a Siamese network" in told and "the task Siamese is compared alone, got Siamese, camera 5" in told


def test_the_command_names_what_it_does_not_know(tmp_path, capsys):
    file = str(tmp_path / "rows.csv")
    assert main(["recipe", "batch 12", "--file", file]) == 2
    assert "variant" in capsys.readouterr().err
    command = ["recipe", "batch 64", "--seeds", "1", "--task", "camera 9", "--size", "smoke", "--file", file]
    with pytest.raises(SystemExit):
        main(command)
    assert "camera 9" in capsys.readouterr().err
    with pytest.raises(ValueError, match="camera 9"):
        choose_recipe.compare(tasks=["camera 9"], file=file)


def test_the_recorded_choice_is_the_course_recipe():
    rows = pd.read_csv(choose_recipe.resolve(choose_recipe.FILE))
    table = choose_recipe.summary(rows, "batch 32").loc[("every camera", "lsr")]
    most = table[table.won.str.endswith("of 6")].mAP.idxmax()
    assert most == f"batch {choose_recipe.RECIPES['course'].batch}"
