"""What makes clothes swap: what is trained, by which rows it is remembered, and what is refused."""

import pandas as pd
import pytest

from reidlib.__main__ import main
from reidlib.tools import choose_swaps


def test_rows_are_kept_and_not_run_again(monkeypatch, tmp_path):
    ran = []

    def swapped(variant, seed, size, root):
        ran.append((variant, seed))
        return pd.Series({"appearance first": 0.1 * len(ran), "PCK@0.1": 0.5})

    monkeypatch.setattr(choose_swaps, "_swapped", swapped)
    options = dict(size="smoke", file=tmp_path / "new folder" / "rows.csv")
    names = ["as in the course", "raw codes"]
    table = choose_swaps.compare(names, seeds=[0, 1], **options)
    assert ran == [(name, seed) for seed in (0, 1) for name in names]
    assert table["appearance first"].tolist() == pytest.approx([0.2, 0.3]) and table.seeds.tolist() == [2, 2]
    assert choose_swaps.compare(names[1:], seeds=[0, 1, 2], **options).seeds.tolist() == [3]
    assert choose_swaps.compare(names[1:], seeds=[1], **options)["appearance first"].tolist() == pytest.approx([0.4])
    assert ran[4:] == [("raw codes", 2)]
    rows = pd.read_csv(options["file"])
    assert len(rows) == 5 and not rows.isna().any(axis=None)
    assert choose_swaps.compare(names, seeds=[0], size="course", file=options["file"]).seeds.tolist() == [1, 1]
    monkeypatch.setitem(choose_swaps.PRESETS, "course", choose_swaps.PRESETS["course"] | {"lr": 0.5})
    anew = choose_swaps.compare(names[:1], seeds=[0], **options)
    assert anew.seeds.tolist() == [1]  # rows of the old preset stay out
    assert len(pd.read_csv(options["file"])) == 8


def test_a_variant_changes_what_it_says(monkeypatch, tmp_path):
    """The whole way on tiny people: what DG-Net is given, and that its swaps are judged."""
    given, train = [], choose_swaps.train_dg_net

    def trained(images, encoder, *rest, **options):
        given.append(options | {"people": len(images.pids.unique()), "operations": options["augment"]})
        return train(images, encoder, *rest, **options)

    monkeypatch.setattr(choose_swaps, "train_dg_net", trained)
    names = ["half the people", "warm-up of 60 %", "street drawn, replaced at random"]
    table = choose_swaps.compare(names, seeds=[0], size="smoke", root=str(tmp_path), file=tmp_path / "rows.csv")
    half, late, drawn = given
    assert half["people"] == late["people"] // 2 and late["warm_up"] == 0.6 and "warm_up" not in half
    assert late["background"] == "kept" and drawn["background"] == "drawn"
    assert table.index.tolist() == names and table[["appearance first", "PCK@0.1"]].notna().all(axis=None)


def test_what_is_not_known_is_refused_at_the_door(capsys, tmp_path):
    assert main(["swaps", "street gone", "--file", str(tmp_path / "rows.csv")]) == 2
    assert "street gone" in capsys.readouterr().err and not (tmp_path / "rows.csv").exists()
    with pytest.raises(ValueError, match="size"):
        choose_swaps.compare(size="many", file=tmp_path / "rows.csv")
