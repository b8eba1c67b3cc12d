"""Figures: what is drawn, where, and in which numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from reidlib.course import figures
from reidlib.datasets.annotations import lip_palette


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def pictures(*values: int) -> torch.Tensor:
    """Pictures [n,3,8,4], each of one grey."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 4)


def greys(figure: plt.Figure) -> list[int]:
    return [int(axis.images[0].get_array()[0, 0, 0]) for axis in figure.axes]


def test_image_rows_draws_each_name_in_a_row_of_its_own():
    rows = {"source": pictures(1, 2, 3), "generated": pictures(4, 5, 6)}
    figure = figures.image_rows(rows, column_labels=["a", "b", "c"])
    assert greys(figure) == [1, 2, 3, 4, 5, 6]
    assert [axis.get_ylabel() for axis in figure.axes] == ["source", "", "", "generated", "", ""]
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", "", "", ""]
    tops = [axis.get_position().y1 for axis in figure.axes]
    assert tops[0] == tops[2] > tops[3] == tops[5]
    with pytest.raises(ValueError, match=r"same number of images, got \{'a': 2, 'b': 1\}"):
        figures.image_rows({"a": pictures(1, 2), "b": pictures(3)})


def test_what_is_drawn_over_a_picture_does_not_move_its_edges():
    axis = figures.image_grid(pictures(9), 1).axes[0]
    edges = axis.get_xlim(), axis.get_ylim()
    axis.plot([-20, 30], [-20, 30])
    assert (axis.get_xlim(), axis.get_ylim()) == edges == ((-0.5, 3.5), (7.5, -0.5))


def test_loss_curves_smooths_over_five_rows_and_leaves_out_what_is_no_loss():
    table = pd.DataFrame({"step": [10, 20, 30, 40, 50, 60], "images": 8, "loss/L1": [6.0, 0, 3, 3, 3, 9], "lr/G": 0.1,
                          "loss/GAN": 1.0, "seconds": 2.0, "images_per_second": 4.0})  # fmt: skip
    figure = figures.loss_curves({"model 4": table, "model 7": table[:2]})
    first, second = figure.axes
    assert [line.get_label() for line in first.get_lines()] == ["loss/L1", "loss/GAN"]
    steps, values = first.get_lines()[0].get_data()
    assert list(steps) == table["step"].tolist() and np.allclose(values, [6, 3, 3, 3, 3, 18 / 5])
    assert (first.get_title(), second.get_title(), first.get_xlabel()) == ("model 4", "model 7", "step")
    assert first.get_yscale() == "log" and len(second.get_lines()[0].get_xdata()) == 2
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["loss/L1", "loss/GAN"]
    assert figures.loss_curves({"a": table}, log=False).axes[0].get_yscale() == "linear"


def test_percent_multiplies_fractions_only():
    table = pd.DataFrame({"rank-1": [0.12345, 1], "FID": [1.26, 30], "mAP": [None, 0.5]}, index=["a", "b"])
    shown = figures.percent(table, except_for=["FID"])
    assert shown.index.tolist() == ["a", "b"] and shown.columns.tolist() == ["rank-1", "FID", "mAP"]
    assert shown["rank-1"].tolist() == [12.3, 100] and shown["FID"].tolist() == [1.3, 30]
    assert np.isnan(shown["mAP"]["a"]) and shown["mAP"]["b"] == 50 and table["FID"].tolist() == [1.26, 30]
    assert figures.percent(table)["FID"].tolist() == [126, 3000]
    assert figures.percent(table[:0]) is None  # a notebook shows nothing, not "Empty DataFrame"


def test_truth_rows_draws_image_key_points_mask_and_parsing():
    keypoints = torch.zeros(2, 18, 3)
    keypoints[1, 3] = torch.tensor([2.0, 5, 1])
    masks, parsing = pictures(0, 255)[:, 0], pictures(0, 19)[:, 0]
    batch = {"images": pictures(10, 20), "masks": masks, "parsing": parsing, "keypoints": keypoints}
    axes = figures.truth_rows(batch, limbs=[(2, 3)]).axes
    assert greys(axes[0].figure)[:6] == [10, 20, 10, 20, 0, 255]
    assert [axis.get_ylabel() for axis in axes[::2]] == ["image", "key points", "mask", "parsing"]
    assert [axis.images[0].get_array()[0, 0].tolist() for axis in axes[6:]] == lip_palette()[[0, 19]].tolist()
    dots = [axis.collections[0].get_offsets().tolist() if axis.collections else None for axis in axes]
    assert dots == [None, None, [], [[2, 5]], None, None, None, None]


def test_cmc_curves_are_percent_from_rank_1_to_20():
    figure = figures.cmc_curves({"a": torch.linspace(0.5, 0.99, 50), "b": torch.ones(3)}, title="CMC")
    long, short = figure.axes[0].get_lines()
    assert list(long.get_xdata()) == list(range(1, 21)) and list(short.get_xdata()) == [1, 2, 3]
    assert np.allclose(long.get_ydata()[[0, 19]], [50, 69]) and list(short.get_ydata()) == [100] * 3
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b"]


def test_claims_board_shows_every_pair_the_interval_and_the_verdict_or_its_reason():
    lines = [
        ("x1", "two looks", "mAP", "a>b", "holds", 3, 2, 2.0, 1.0, 3.0, (1.0, 3.0, 2.5), ""),
        ("x2", "one pair", "rank1", "a>=b", "undecided (1 pair)", 1, 1, -4.0, -np.inf, np.inf, (-4.0,), ""),
        ("x3", "a rival", "rank1", "a>b", "not testable", 2, 2, 50.0, 40.0, 60.0, (45.0, 55.0), "it learnt nothing"),
    ]
    names = "id claim metric direction verdict n look difference low high differences reason".split()
    figure = figures.claims_board(pd.DataFrame(lines, columns=names).set_index("id"))
    figure.canvas.draw()
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["x1 · two looks", "x2 · one pair", "x3 · a rival"]
    first, second, third = (text.get_text() for text in axis.texts)
    assert (first, second) == ("mAP · holds · n = 2 of 3", "rank1 at least · undecided (1 pair)")
    assert third == "rank1 · not testable: it learnt nothing"
    dots = [[x for x, _ in part.get_offsets().tolist()] for part in axis.collections]
    assert dots == [[1.0, 3.0, 2.5], [-4.0]]  # none of the rival's
    assert [colour[3] for colour in axis.collections[0].get_facecolors().tolist()] == [1, 1, 0]  # the third came later
    intervals = [line.get_xdata() for line in axis.get_lines() if len(line.get_xdata()) == 2]
    assert [1.0, 3.0] in [list(ends) for ends in intervals]
    assert axis.get_ylim()[0] > axis.get_ylim()[1] and 4 < axis.get_xlim()[1] < 5 and not axis.get_title()


@pytest.mark.parametrize(("sort", "labels", "means"), [(False, ["50", "0"], [2.5, 6]), (True, ["0", "50"], [6, 2.5])])
def test_mean_bars_draw_means_and_spreads_in_the_order_asked_for(sort, labels, means):
    rows = pd.DataFrame({"label": [50, 50, 0, 50], "metric": ["mAP", "mAP", "mAP", "rank1"], "value": [1.0, 4, 6, 9]})
    axis = figures.mean_bars(rows, title="", sort=sort).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == labels
    groups = {group.get_label(): group for group in axis.containers if hasattr(group, "patches")}
    assert [bar.get_height() for bar in groups["mAP"]] == means
    ends = [segment[:, 1].tolist() for segment in groups["mAP"].errorbar.lines[2][0].get_segments() if len(segment)]
    assert [2.5 - 4.5**0.5, 2.5 + 4.5**0.5] in [pytest.approx(end) for end in ends]
