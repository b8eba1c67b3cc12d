"""Writes a data set in its network's own layout: once, in chunks, resumable, safe for two processes at once."""

import io
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ...files import REPOSITORY, atomic_path, resolve
from ...machine import Advance, progress_bar
from .camera import Network
from .compose import Rendered, draw_shots
from .networks import network_named
from .occluders import OCCLUDERS
from .people import SCENES, describe, people
from .plans import plan
from .shots import mutedness, shots
from .trees import TREES, further_files, keypoint_files

RENDERER_VERSION = 3  # goes up whenever pixels or people change, so that stored sets are made again
IMAGE_SIZES = ((64, 32), (128, 64), (256, 128))
CHUNK = 64
FINISHED, SETTINGS, CHUNKS = "finished.json", "settings.json", ".chunks"
LIP_COLOURS = (
    0, 0, 0, 128, 0, 0, 255, 0, 0, 0, 85, 0, 170, 0, 51,
    255, 85, 0, 0, 0, 85, 0, 119, 221, 85, 85, 0, 0, 85, 85,
    85, 51, 0, 52, 86, 128, 0, 128, 0, 0, 0, 255, 51, 170, 221,
    0, 255, 255, 85, 255, 170, 170, 255, 85, 255, 255, 0, 255, 170, 0,
)  # fmt: skip


def check(image_size: tuple[int, int], size: str, scene: str, network: str, difficulty: float) -> Network:
    """Return the network, or raise a ValueError that names the accepted values of whatever is wrong."""
    known = network_named(network)
    if tuple(image_size) not in IMAGE_SIZES:
        raise ValueError(
            f"image_size {tuple(image_size)}: accepted are {', '.join(map(str, IMAGE_SIZES))} (height, width)"
        )
    if size not in known.sizes:
        raise ValueError(f"unknown size {size!r}: accepted are {', '.join(known.sizes)}")
    if scene not in SCENES:
        raise ValueError(f"unknown scene {scene!r}: accepted are {', '.join(SCENES)}")
    if not 0 <= float(difficulty) <= 2:
        raise ValueError(f"difficulty {difficulty!r}: accepted are numbers from 0 to 2")
    return known


def stored_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of the stored files from which `datasets.load` makes images of a size."""
    return (128, 64) if image_size[0] <= 128 and image_size[1] <= 64 else (256, 128)


def folder_name(image_size: tuple[int, int], size: str, seed: int, scene: str, network: str, difficulty: float) -> str:
    """Name of a data set's folder: all that its pixels depend on.

    >>> folder_name((128, 64), "smoke", 0, "retrieval", "market1501", 1.0).startswith("market1501-smoke-retrieval")
    True
    """
    return (
        f"{network}-{size}-{scene}-difficulty{float(difficulty):g}-seed{seed}-{image_size[0]}x{image_size[1]}"
        f"-v{RENDERER_VERSION}"
    )


def _write(path: Path, content: bytes) -> None:
    """Write a small file under a temporary name and rename it."""
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
    temporary.write_bytes(content)
    temporary.replace(path)


def encode(array: np.ndarray, kind: str, quality: int = 90) -> bytes:
    """Encode a picture as JPEG, a mask as PNG, or labels as palette PNG."""
    image, buffer = Image.fromarray(array), io.BytesIO()
    if kind == "jpeg":
        image.save(buffer, "JPEG", quality=quality)
    else:
        if kind == "labels":
            image = image.convert("P") if image.mode != "L" else image
            image.putpalette(LIP_COLOURS)
        image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def jpeg_qualities(shot: dict[str, Tensor], network: Network) -> list[int]:
    """Return the JPEG quality that each shot's camera saves it with."""
    limits = torch.tensor([camera.quality for camera in network.cameras], dtype=torch.float32)[shot["camera"]]
    return (limits[:, 0] + (limits[:, 1] - limits[:, 0]) * shot["quality"]).round().int().tolist()


def _save(folder: Path, row: dict, images: np.ndarray, mask: np.ndarray, parsing: np.ndarray) -> None:
    """Write one picture with its mask and parsing (hand-drawn extra boxes have neither)."""
    path = row.get("path", row["name"])
    stem, _, ending = path.rpartition(".")
    files = {f"{row['folder']}/{path}": encode(images, "jpeg" if ending == "jpg" else "png", row["quality"])}
    if row["subset"] != "gt_bbox":
        files[f"{row['folder']}_seg/{stem}.png"] = encode(mask, "mask")
        files[f"{row['folder']}_parsing/{stem}.png"] = encode(parsing, "labels")
    for name, content in files.items():
        if path != row["name"]:
            (folder / name).parent.mkdir(exist_ok=True)
        _write(folder / name, content)


def _save_chunk(pictures: list[tuple], marker: Path, truth: list[dict]) -> None:
    """Write a chunk's pictures, then its truth, which marks it as done."""
    for picture in pictures:
        _save(*picture)
    _write(marker, json.dumps(truth).encode())


def _truth(rows: pd.DataFrame, shot: dict[str, torch.Tensor], result: Rendered) -> list[dict]:
    """What is written down for each picture of a chunk."""
    points = result.keypoints.round().long()
    points[result.keypoints[..., 2] == 0] = -1
    seen = (result.keypoints[..., 2] > 0).sum(1).tolist()
    known = pd.DataFrame(
        {
            "yaw": torch.rad2deg(shot["yaw"]).remainder(360).round(decimals=2).tolist(),
            "gait_phase": shot["phase"].remainder(2 * torch.pi).round(decimals=4).tolist(),
            "walking": shot["walking"].gt(0.5).long().tolist(),
            "joints_seen": seen,
            "occluder": [OCCLUDERS[index] for index in shot["occluder"].tolist()],
            "occluded": result.occluded.round(decimals=3).tolist(),
            "cut": shot["cut"].tolist(),
            "keypoints_y": points[..., 1].tolist(),
            "keypoints_x": points[..., 0].tolist(),
        }
    )
    return pd.concat([rows.reset_index(drop=True), known], axis=1).to_dict("records")


def _chunk(
    folder: Path,
    rows: pd.DataFrame,
    network: Network,
    seed: int,
    scene: str,
    difficulty: float,
    image_size: tuple[int, int],
    device: str,
) -> Iterator[tuple]:
    """Render one chunk; yields the arguments of `_save` for each picture, then the truth."""
    columns = rows.rename(columns={"pid": "label", "person": "pid"})
    table = {name: columns[name].tolist() for name in ("pid", "camid", "sequence", "frame", "step", "box")}
    shot = shots(table, network=network, seed=seed, scene=scene, difficulty=difficulty)
    result = draw_shots(
        table["pid"],
        shot,
        network=network,
        seed=seed,
        scene=scene,
        difficulty=difficulty,
        image_size=image_size,
        device=device,
    )
    result = Rendered(*(value.cpu() for value in result))
    quality = jpeg_qualities(shot, network)
    images = result.images.permute(0, 2, 3, 1).contiguous().numpy()
    masks, parsing = result.masks.numpy(), result.parsing.numpy()
    for index, row in enumerate(rows.to_dict("records")):
        yield folder, row | {"quality": quality[index]}, images[index], masks[index], parsing[index]
    yield (_truth(rows, shot, result),)


def _finish(folder: Path, chunks: list[Path], network: Network, settings: dict) -> None:
    """Join the chunks' truth into the annotation files; the marker of a finished set comes last."""
    rows = pd.DataFrame([row for path in chunks for row in json.loads(path.read_text())])
    files = keypoint_files(network.layout, rows) | further_files(network, settings["size"], settings["seed"], rows)
    for name in sorted({Path(name).parent for name in files}):
        (folder / name).mkdir(exist_ok=True)
    for name, text in files.items():
        _write(folder / name, text.encode())
    persons = sorted(rows["person"].unique().tolist())
    attributes = describe(
        people(
            persons, seed=network.seed(settings["seed"]), muted=mutedness(settings["scene"], settings["difficulty"])
        ),
        persons,
    ).rename(columns={"pid": "person"})
    truth = rows.drop(columns=["keypoints_y", "keypoints_x", "folder", "step", "path"], errors="ignore").merge(
        attributes, on="person", how="left"
    )
    with atomic_path(folder / "truth.csv") as path:
        truth.to_csv(path, index=False)
    counts = rows.groupby("subset").size().to_dict()
    _write(folder / FINISHED, json.dumps(settings | {"images": counts}, indent=1).encode())


def prepare(folder: Path, settings: dict) -> None:
    """Make the folders of a set and write down its settings."""
    for subset, name in TREES[network_named(settings["network"]).layout].folders.items():
        for suffix in ("", "_seg", "_parsing") if subset != "gt_bbox" else ("",):
            (folder / f"{name}{suffix}").mkdir(parents=True, exist_ok=True)
    (folder / CHUNKS).mkdir(exist_ok=True)
    _write(folder / SETTINGS, json.dumps(settings, indent=1).encode())


def _bar(chunks: list[Path], wanted: bool) -> AbstractContextManager[Advance]:
    """Show how many of the chunks are there."""
    done = sum(chunk.exists() for chunk in chunks)
    return progress_bar(len(chunks), "rendering people", "chunk", wanted, done=done)


def _chunk_paths(folder: Path, table: pd.DataFrame) -> list[Path]:
    return [folder / CHUNKS / f"{index:05d}.json" for index in range(-(-len(table) // CHUNK))]


def write(
    folder: Path,
    *,
    first: int = 0,
    every: int = 1,
    progress: bool = False,
    device: str = "cpu",
    stop_after: int | None = None,
) -> None:
    """Render the chunks of a prepared folder that are still missing, beginning at `first` and taking each `every`-th.

    `stop_after` ends the work after that many chunks (an interruption).
    """
    settings = json.loads((folder / SETTINGS).read_text())
    network = network_named(settings["network"])
    table = plan(network, settings["size"], settings["seed"])
    options = {name: settings[name] for name in ("seed", "scene", "difficulty")} | {
        "image_size": tuple(settings["image_size"])
    }
    chunks, worked = _chunk_paths(folder, table), 0
    with _bar(chunks, progress) as advance, ThreadPoolExecutor(1) as pool:  # files are written while the next is drawn
        jobs: list[Future] = []
        for index in range(first, len(chunks), every):
            if chunks[index].exists():
                continue
            if stop_after is not None and worked >= stop_after:
                break
            *pictures, (truth,) = _chunk(
                folder, table.iloc[index * CHUNK : (index + 1) * CHUNK], network, **options, device=device
            )
            for job in jobs:
                job.result()
            jobs = [pool.submit(_save_chunk, pictures, chunks[index], truth)]
            worked += 1
            advance()
        for job in jobs:
            job.result()


def _workers(folder: Path, count: int, chunks: list[Path], progress: bool) -> None:
    """Let several processes of one thread each render the chunks: threads do not pay in steps as small as these."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
    done = sum(chunk.exists() for chunk in chunks)
    running = [
        subprocess.Popen([sys.executable, "-m", __package__, str(folder), str(index), str(count)], env=environment)
        for index in range(count)
    ]
    try:
        with _bar(chunks, progress) as advance:
            while any(process.poll() is None for process in running):
                time.sleep(0.2)
                done, before = sum(chunk.exists() for chunk in chunks), done
                advance(done - before)
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
            process.wait()
    failed = [process.returncode for process in running if process.returncode]
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {count} rendering processes ended with {failed}; finished chunks are kept"
        )


def make(
    root: str | os.PathLike = "data",
    *,
    image_size: tuple[int, int] = (128, 64),
    size: str = "course",
    seed: int = 0,
    scene: str = "retrieval",
    network: str = "market1501",
    difficulty: float = 1.0,
    progress: bool = True,
    device: str = "cpu",
    workers: int | None = None,
) -> Path:
    r"""Make the embedded data set in the layout of the network's real data set, once, and return its folder.

    The folder `<root>/procedural/<name made from all arguments>` holds for "market1501" `bounding_box_train`, `query`,
    `bounding_box_test`, `gt_bbox`, masks (`*_seg`), LIP parsing (`*_parsing`), key points (`market-annotation-*.csv`)
    and `truth.csv`; for "dukemtmc", "cuhk03", "cuhk01" and "msmt17" what `reidlib.datasets`' readers of these names
    read, with the same annotations; for "reserved1" and "reserved2", which no table uses, what Market-1501's reads. No
    person and no place is in two networks. A finished set is returned at once; an
    interrupted one is continued to the same bytes; two processes may make the same set together.

    `image_size` is (height, width) of the stored files: (128, 64) like Market-1501, (256, 128) or (64, 32). `size`:
    "smoke", "course", "many" (480 training identities) or "full" (the real set's counts), where the network has it.
    `scene`: "retrieval" (hard) or "generation" (milder noise and backgrounds, brighter clothes). `difficulty` in 0..2
    scales camera strength, clothing collisions and occlusion. `progress` shows how far it is, in chunks of 64 images.
    `workers` processes render larger sets (default: one for each core, 8 at most).
    Raises ValueError, naming the accepted values, for anything else.

    >>> make(size="huge")
    Traceback (most recent call last):
    ValueError: unknown size 'huge': accepted are smoke, course, many, full
    """
    known = check(image_size, size, scene, network, difficulty)
    folder = resolve(root) / "procedural" / folder_name(image_size, size, seed, scene, network, difficulty)
    if (folder / FINISHED).exists():
        return folder
    settings = {
        "network": network,
        "size": size,
        "scene": scene,
        "difficulty": float(difficulty),
        "seed": int(seed),
        "image_size": list(image_size),
        "renderer_version": RENDERER_VERSION,
    }
    prepare(folder, settings)
    chunks = _chunk_paths(folder, plan(known, size, seed))
    missing = sum(not chunk.exists() for chunk in chunks)
    count = min(missing // 4, os.cpu_count() or 1, 8) if workers is None else workers
    if count > 1 and device == "cpu":
        _workers(folder, count, chunks, progress)
    write(folder, progress=progress, device=device)  # all of a small set, leftovers of a large one
    _finish(folder, chunks, known, settings)
    return folder
