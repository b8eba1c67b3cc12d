"""Contact sheets of the data card: what the people, the cameras and the truth look like."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...files import atomic_path, resolve
from .networks import network_named
from .pictures import Pictures, render, same_frame
from .write import LIP_COLOURS


def sheet(images: Tensor, columns: int, *, gap: int = 2) -> Tensor:
    """Lay pictures uint8 [N, 3, H, W] out row by row on white, uint8 [3, rows, columns].

    >>> sheet(torch.zeros(4, 3, 8, 4, dtype=torch.uint8), 2, gap=1).shape
    torch.Size([3, 17, 9])
    """
    count, _, height, width = images.shape
    rows = -(-count // columns)
    page = torch.full((3, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        page[:, top : top + height, left : left + width] = image
    return page


def _truth(pictures: Pictures) -> Tensor:
    """Each picture four times: as it is, with its key points, its mask, its parsing; uint8 [4N, 3, H, W]."""
    colours = torch.tensor(LIP_COLOURS, dtype=torch.uint8).view(-1, 3)
    dotted = pictures.images.clone()
    for image, points in zip(dotted, pictures.keypoints, strict=True):
        for x, y, seen in points.round().int().tolist():
            if seen:
                image[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = (
                    torch.tensor([255, 40, 40]).view(3, 1, 1).to(torch.uint8)
                )
    masks = pictures.masks[:, None].expand(-1, 3, -1, -1)
    parsing = colours[pictures.parsing.long()].permute(0, 3, 1, 2)
    return torch.stack([pictures.images, dotted, masks, parsing], 1).flatten(0, 1)


def _save(page: Tensor, path: Path) -> Path:
    with atomic_path(path) as temporary:
        Image.fromarray(page.permute(1, 2, 0).numpy()).save(temporary, quality=82, optimize=True)
    return path


def _people(pids: list[int], scene: str) -> Tensor:
    """Each person in all cameras, as the data set shows them, four people in a row."""
    cameras = len(network_named("market1501").cameras)
    seen = [pid for pid in pids for _ in range(cameras)]
    views = list(range(1, cameras + 1)) * len(pids)
    return sheet(render(seen, views, plain=False, scene=scene).images, cameras * 4)


def _turning(pids: list[int]) -> Tensor:
    """Each person at eight yaws, two people in a row."""
    options = {"scene": "generation", "background": (0.62, 0.64, 0.67), "image_size": (192, 96)}
    turned = [pid for pid in pids for _ in range(8)]
    yaws = [45 * step for _ in pids for step in range(8)]
    return sheet(render(turned, 1, yaws=yaws, phases=0.9, moments=turned, **options).images, 16)


def _two_rows(network: str, columns: int) -> Tensor:
    """Two rows of pictures, uint8 [2, columns, 3, H, W]: two people in all cameras, or many in two views."""
    cameras = len(network_named(network).cameras)
    if cameras == columns:
        pids, views = [1] * columns + [2] * columns, list(range(1, columns + 1)) * 2
    else:
        pids, views = list(range(1, columns + 1)) * 2, [1] * columns + [2] * columns
    return render(pids, views, plain=False, network=network).images.unflatten(0, (2, columns))


def _networks() -> Tensor:
    """All networks, two rows each: Market-1501 and DukeMTMC-reID, MSMT17, seven people in either CUHK, the reserved."""
    gap = torch.full((2, 1, 3, 128, 64), 255, dtype=torch.uint8)
    first = torch.cat([_two_rows("market1501", 6), gap, _two_rows("dukemtmc", 8)], 1)
    last = torch.cat([_two_rows("cuhk03", 7), gap, _two_rows("cuhk01", 7)], 1)
    reserved = torch.cat([_two_rows("reserved1", 6), gap, _two_rows("reserved2", 8)], 1)
    return sheet(torch.cat([first, _two_rows("msmt17", 15), last, reserved]).flatten(0, 1), 15)


def contact_sheets(folder: str | os.PathLike = "data/card", *, pids: Sequence[int] = tuple(range(1, 25))) -> list[Path]:
    """Draw the data card's pictures (JPEG) of these people into a folder and return their paths."""
    folder, pids = resolve(folder), list(pids)
    few = pids[:12]
    views = [1 + index % len(network_named("market1501").cameras) for index in range(len(few))]
    truth = render(few, views, plain=False, moments=40, scene="generation", image_size=(192, 96))
    pairs = torch.stack([shown.images for shown in same_frame(few, 5, 6, scene="generation")], 1)
    levels = [render(few, views, plain=False, difficulty=difficulty).images for difficulty in (0.0, 1.0, 2.0)]
    pages = {
        "people_retrieval": _people(pids, "retrieval"),
        "people_generation": _people(pids, "generation"),
        "turning": _turning(pids[:8]),
        "truth": sheet(_truth(truth), 16),
        "same_frame": sheet(pairs.flatten(0, 1), 24),
        "difficulty": sheet(torch.cat(levels), 12),
        "networks": _networks(),
    }
    return [_save(page, folder / f"{name}.jpg") for name, page in pages.items()]
