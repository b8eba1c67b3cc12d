"""Figures that every notebook shares: grids of people, ranked lists, curves, and the truth drawn over an image.

Each function takes plain tensors or tables and returns a matplotlib figure, so a notebook shows and saves it.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from reidlib.course.verdicts import MARGIN
from reidlib.datasets.annotations import lip_palette

RIGHT, WRONG, QUERY = "#2a9d3a", "#d1343b", "#1f5fb4"
VERDICT_COLOURS = {"holds": RIGHT, "reversed": WRONG, "no effect": QUERY, "undecided": "#555555", "not": "#8a8a8a"}


def style() -> None:
    """Set the look of a notebook: figures with a light grid and readable sizes, tables in full."""
    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.max_rows", 200)
    plt.rc("figure", dpi=110)
    plt.rc("savefig", dpi=150, bbox="tight")
    plt.rc("axes", titlesize=11, grid=True)
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("grid", alpha=0.25)
    plt.rc("legend", frameon=False)
    plt.rc("image", interpolation="nearest")


def to_pictures(images: Tensor) -> np.ndarray:
    """Turn uint8 images [N,3,H,W], or floats in [0, 1], into what matplotlib draws, uint8 [N,H,W,3].

    >>> to_pictures(torch.ones(2, 3, 4, 2)).shape, to_pictures(torch.ones(1, 3, 4, 2)).max().item()
    ((2, 4, 2, 3), 255)
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be [N,3,H,W], got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        if images.min() < -1e-4 or images.max() > 1 + 1e-4:
            raise ValueError(f"float images must lie in [0, 1], got [{images.min():.2f}, {images.max():.2f}]")
        images = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return images.permute(0, 2, 3, 1).cpu().numpy()


def image_grid(
    images: Tensor,
    columns: int = 12,
    *,
    titles: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    borders: Sequence[str | None] | None = None,
    height: float = 1.3,
) -> Figure:
    """Draw images [N,3,H,W] row by row, with optional titles, labels and coloured borders (one an image).

    Args:
        height: of one image, in inches.

    >>> len(image_grid(torch.zeros(5, 3, 8, 4, dtype=torch.uint8), columns=3).axes)
    6
    """
    pictures = to_pictures(images)
    rows = -(-len(pictures) // columns)
    width = height * pictures.shape[2] / pictures.shape[1]
    title_room = 0.22 * (1 + max(t.count("\n") for t in titles)) if titles else 0.0
    left = 0.09 * max(map(len, row_labels)) + 0.1 if row_labels else 0.0
    top = 0.3 if column_labels else 0.0
    size = (columns * (width + 0.06) + left, rows * (height + 0.06 + title_room) + top)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        if i >= len(pictures):
            axis.axis("off")
            continue
        axis.imshow(pictures[i], aspect="auto")
        axis.autoscale(False)  # what is drawn over a picture does not move its edges
        border = borders[i] if borders else None
        for spine in axis.spines.values():
            spine.set(visible=border is not None, color=border or "none", linewidth=2.5)
        if titles and titles[i]:
            axis.set_title(titles[i], fontsize=7.5, pad=2)
        if column_labels and i < columns:
            axis.set_title(column_labels[i], fontsize=9, pad=4)
        if row_labels and i % columns == 0:
            axis.set_ylabel(row_labels[i // columns], rotation=0, ha="right", va="center", fontsize=9)
    margins = {"left": left / size[0], "right": 1, "bottom": 0, "top": 1 - (top + title_room) / size[1]}
    figure.subplots_adjust(**margins, wspace=0.06, hspace=0.05 + title_room / height)
    return figure


def image_rows(rows: Mapping[str, Tensor], **options: Any) -> Figure:
    """Draw one row of images [k,3,H,W] a name, all rows of the same k; `options` are those of `image_grid`.

    >>> len(image_rows({"source": torch.zeros(3, 3, 8, 4), "generated": torch.ones(3, 3, 8, 4)}).axes)
    6
    """
    counts = {name: len(images) for name, images in rows.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"every row must have the same number of images, got {counts}")
    return image_grid(torch.cat(list(rows.values())), counts.popitem()[1], row_labels=list(rows), **options)


def rank_list(
    queries: Tensor, ranked: Tensor, right: Tensor, *, titles: Sequence[str] | None = None, height: float = 1.3
) -> Figure:
    """Draw each query and its ranked gallery images: green frames are the right person, red ones are not.

    Args:
        queries: uint8 [Q,3,H,W].
        ranked: uint8 [Q,k,3,H,W], best first, without the images that the protocol ignores.
        right: bool [Q,k], which of them show the query's person.
        titles: one for each query.
        height: of one image, in inches.

    >>> images = torch.zeros(2, 3, 8, 4, dtype=torch.uint8)
    >>> len(rank_list(images, images[None].expand(2, -1, -1, -1, -1), torch.ones(2, 2, dtype=torch.bool)).axes)
    6
    """
    k = right.shape[1]
    shown = torch.cat([queries[:, None], ranked], 1).flatten(0, 1)
    borders = [colour for row in right.tolist() for colour in [QUERY, *(RIGHT if hit else WRONG for hit in row)]]
    labels = ["query", *map(str, range(1, k + 1))]
    return image_grid(shown, k + 1, borders=borders, column_labels=labels, row_labels=titles, height=height)


def learning_curves(curves: Mapping[str, pd.Series], *, xlabel: str, ylabel: str, title: str = "") -> Figure:
    """Draw one line a name; the index of each series is its x (steps or images seen)."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    for name, curve in curves.items():
        axis.plot(curve.index, curve.to_numpy(), marker="o" if len(curve) < 15 else None, markersize=3.5, label=name)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if len(curves) > 1:
        axis.legend()
    return figure


def loss_curves(losses: Mapping[str, pd.DataFrame], *, log: bool = True) -> Figure:
    """Draw the losses of `History.losses` over steps, one panel a name, smoothed over five rows."""
    size = (3.4 * len(losses), 2.8)
    figure, axes = plt.subplots(1, len(losses), figsize=size, squeeze=False, layout="constrained")
    for axis, (title, table) in zip(axes[0], losses.items(), strict=True):
        shown = table.set_index("step").filter(regex=r"^(?!lr/|(images|seconds|images_per_second)$)")
        axis.plot(shown.index, shown.rolling(5, min_periods=1).mean(), label=list(shown))
        axis.set(title=title, xlabel="step", yscale="log" if log else "linear")
        axis.legend(fontsize=7)
    return figure


def percent(table: pd.DataFrame, except_for: Sequence[str] = ()) -> pd.DataFrame | None:
    """Show fractions as percent with one decimal, other columns as they are; of an empty table nothing is shown.

    >>> percent(pd.DataFrame({"rank-1": [0.123], "FID": [1.5]}), except_for=["FID"]).values.tolist()
    [[12.3, 1.5]]
    """
    scale = [1 if name in except_for else 100 for name in table.columns]
    return None if table.empty else table.astype(float).mul(scale).round(1)


def cmc_curves(curves: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """Draw CMC curves in percent up to rank 20, each a tensor [max_rank] of fractions."""
    percents = {n: pd.Series(np.asarray(cmc)[:20] * 100).rename(lambda i: i + 1) for n, cmc in curves.items()}
    figure = learning_curves(percents, xlabel="rank k", ylabel="CMC(k), percent", title=title)
    figure.axes[0].set_ylim(0, 101)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[0].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def bars(table: pd.DataFrame, *, ylabel: str, title: str = "", errors: pd.DataFrame | None = None) -> Figure:
    """Draw grouped bars: one group a row, one colour a column, with the value on top."""
    figure, axis = plt.subplots(figsize=(max(4.5, 0.55 * table.size + 1.5), 3.4))
    rotation = 0 if max(map(len, map(str, table.index))) < 12 else 20
    table.plot.bar(ax=axis, rot=rotation, width=0.8, yerr=errors, capsize=2)
    for container in [c for c in axis.containers if hasattr(c, "patches")]:
        axis.bar_label(container, fmt="%.1f", fontsize=7, padding=2)
    axis.set(ylabel=ylabel, xlabel="", title=title)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))  # beside the bars, never on them
    return figure


def mean_bars(rows: pd.DataFrame, *, title: str, sort: bool = False) -> Figure:
    """Draw the mean of recorded rows (`label`, `metric`, `value`), with the spread of those that have several.

    Groups are labels, in order of appearance or sorted; colours are metrics.

    >>> rows = pd.DataFrame({"label": ["A", "A", "B"], "metric": "mAP", "value": [1.0, 3.0, 5.0]})
    >>> [text.get_text() for text in mean_bars(rows, title="").axes[0].texts]
    ['2.0', '5.0']
    """
    mean, spread = (rows.pivot_table("value", "label", "metric", aggfunc=f, sort=sort) for f in ("mean", "std"))
    return bars(mean, ylabel="percent", title=title, errors=spread.reindex_like(mean))


def claims_board(board: pd.DataFrame) -> Figure:
    """Draw the board of `paper_tables.check_claims`: a row a claim, its pairs as dots, the interval, the verdict.

    To the right of zero lies what speaks for the claim; within the grey band a difference is too small to matter. Full
    dots are those that the interval and the verdict rest on, hollow ones came after the look that decided. The axis
    ends where the dots do, so a wide interval may run out of it. What is not testable has its reason, no dots.
    """
    tested = board[board.reason == ""]
    reach = max([3.0, *(abs(d) for differences in tested.differences for d in differences)]) * 1.1
    figure, axis = plt.subplots(figsize=(12, 0.46 * len(board) + 1.2), layout="constrained")
    axis.axvspan(-MARGIN, MARGIN, color="black", alpha=0.08, linewidth=0)
    axis.axvline(0, color="black", linewidth=0.8)
    for y, b in enumerate(board.itertuples()):
        colour = next(colour for kind, colour in VERDICT_COLOURS.items() if b.verdict.startswith(kind))
        words = f"{b.metric}{' at least' if b.direction == 'a>=b' else ''} · {b.verdict}"
        if b.reason:
            words = textwrap.fill(f"{words}: {b.reason}", 52)
        else:
            rests_on = [colour] * b.look + ["none"] * (b.n - b.look)
            axis.scatter(b.differences, [y - 0.2] * b.n, s=15, facecolors=rests_on, edgecolors=colour, linewidths=0.7)
            axis.plot([b.low, b.high], [y + 0.15] * 2, color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot(b.difference, y + 0.15, marker="|", color=colour, markersize=9, markeredgewidth=2.2)
            if "pair" not in b.verdict:
                words += f" · n = {b.look} of {b.n}" if b.look < b.n else f" · n = {b.n}"
        axis.text(1.015, y, words, transform=axis.get_yaxis_transform(), color=colour, va="center", fontsize=8.5)
    title = "" if len(board) else "no claim has a recorded pair yet"
    axis.set(xlim=(-reach, reach), ylim=(len(board) - 0.4, -0.6), title=title)
    axis.set_xlabel("difference in percentage points: against the claim  ←  0  →  as claimed")
    axis.set_yticks(range(len(board)), [textwrap.fill(f"{b.Index} · {b.claim}", 64) for b in board.itertuples()])
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", visible=False)
    return figure


def draw_keypoints(axis: plt.Axes, keypoints: Tensor, limbs: Sequence[tuple[int, int]]) -> None:
    """Draw the visible key points [18,3] and the limbs between them over an image; the person's right side is warm."""
    right, left = "#ff8c1a", "#3db7ff"
    side = {**dict.fromkeys((2, 3, 4, 8, 9, 10, 14, 16), right), **dict.fromkeys((5, 6, 7, 11, 12, 13, 15, 17), left)}
    points = keypoints.cpu().numpy()
    for a, b in limbs:
        if points[a, 2] > 0 and points[b, 2] > 0:
            axis.plot(points[[a, b], 0], points[[a, b], 1], color=side.get(b, side.get(a, "white")), linewidth=1.6)
    seen = points[:, 2] > 0
    dots = [side.get(i, "white") for i in np.flatnonzero(seen)]
    axis.scatter(points[seen, 0], points[seen, 1], s=9, c=dots, edgecolors="black", linewidths=0.4, zorder=3)


def parse_pictures(parsing: Tensor) -> Tensor:
    """Colour parse maps uint8 [N,H,W] by their LIP classes (`annotations.lip_palette`): uint8 [N,3,H,W].

    >>> parse_pictures(torch.tensor([[[0, 1]]], dtype=torch.uint8))[0, :, 0].T.tolist()
    [[0, 0, 0], [128, 0, 0]]
    """
    return torch.from_numpy(lip_palette())[parsing.cpu().long()].permute(0, 3, 1, 2)


def truth_rows(batch: Mapping[str, Tensor], limbs: Sequence[tuple[int, int]]) -> Figure:
    """Draw a batch of the data contract in four rows: image, key points, person mask, parsing labels.

    Args:
        batch: `images`, `keypoints`, `masks` and `parsing` of `PersonImages.batch`, the images uint8.
    """
    images, masks, parsing = (batch[name].cpu() for name in ("images", "masks", "parsing"))
    colours = parse_pictures(parsing)
    rows = {"image": images, "key points": images, "mask": masks[:, None].expand_as(images), "parsing": colours}
    figure = image_rows(rows, height=1.6)
    for axis, keypoints in zip(figure.axes[len(images) : 2 * len(images)], batch["keypoints"], strict=True):
        draw_keypoints(axis, keypoints, limbs)
    return figure


def embedding_maps(points: np.ndarray, groupings: Mapping[str, Sequence], *, title: str = "") -> Figure:
    """Draw the same 2-D points (t-SNE, PCA) once for each grouping, coloured by group."""
    size = (4.9 * len(groupings), 4.2)
    figure, axes = plt.subplots(1, len(groupings), figsize=size, squeeze=False, layout="constrained")
    for axis, (grouping, groups) in zip(axes[0], groupings.items(), strict=True):
        names = sorted(set(groups))
        palette = plt.get_cmap("tab20" if len(names) > 10 else "tab10")
        for i, name in enumerate(names):
            chosen = np.asarray([group == name for group in groups])
            axis.scatter(*points[chosen].T, s=14, color=palette(i % palette.N), label=str(name), linewidths=0)
        axis.set(xticks=[], yticks=[], title=f"coloured by {grouping}")
        axis.grid(False)
        axis.legend(title=grouping, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(names) // 16)
    figure.suptitle(title)
    return figure
