"""Pictures on demand, and what no camera can do: any pose, no background, the same frame in two cameras."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ..augment import resize
from .compose import Rendered, draw_shots
from .networks import network_named
from .occluders import OCCLUDERS
from .people import SCENES, describe, people
from .shots import mutedness, shots
from .write import encode, jpeg_qualities, stored_size

BATCH = 64
POSE = ("yaw", "phase", "walking", "head", "nod", "lean", "splay", "arms", "fill", "x", "y", "aspect")  # with the crop
LOSSLESS = ("cuhk03", "cuhk01")  # layouts whose files are PNG
LONGEST_TRACK = 64  # pictures


class Pictures(NamedTuple):
    """Rendered pictures with their truth, row by row."""

    images: Tensor  # uint8 [N, 3, H, W]
    pids: Tensor  # int64 [N]
    camids: Tensor  # int64 [N] from 1
    keypoints: Tensor  # float32 [N, 18, 3] x, y, visible in pixels; (-1, -1, 0) where a joint is not seen
    masks: Tensor  # uint8 [N, H, W] 0..255
    parsing: Tensor  # uint8 [N, H, W] LIP labels 0..19
    info: pd.DataFrame  # yaw, gait phase, occluder and the identity's attributes


def _each(name: str, values: int | float | Sequence | Tensor | np.ndarray, count: int) -> Tensor:
    values = torch.as_tensor(values)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != count):
        raise ValueError(
            f"{name} has shape {tuple(values.shape)}: one value, or one for each of the {count} pictures, is accepted"
        )
    return values.expand(count)


def _check(pids: list[int], camids: list[int], cameras: int, image_size: tuple[int, int], scene: str) -> None:
    if not pids:
        raise ValueError("pids is empty: one identity at least is needed")
    wrong = sorted({camera for camera in camids if not 1 <= camera <= cameras})
    if wrong:
        raise ValueError(f"camids {wrong}: accepted are 1 to {cameras}")
    height, width = image_size
    if height % 4 or width % 4 or min(height, width) < 16:
        raise ValueError(f"image_size {tuple(image_size)}: accepted are (height, width) of 16 and more, multiples of 4")
    if scene not in SCENES:
        raise ValueError(f"unknown scene {scene!r}: accepted are {', '.join(SCENES)}")


def _plain(shot: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take occluders, strangers and the detector's errors out of shots."""
    nobody = torch.zeros_like(shot["occluder"])
    half = torch.full_like(shot["x"], 0.5)
    return shot | {
        "occluder": nobody,
        "stranger": nobody,
        "x": half,
        "y": half,
        "fill": half * 1.8,
        "aspect": half * 2,
        "cut": nobody,
    }


def _draw(
    pids: list[int],
    shot: dict[str, Tensor],
    scene: str,
    difficulty: float,
    network: str,
    seed: int,
    image_size: tuple[int, int],
    background: str | tuple,
    camera_effects: bool,
    device: str,
) -> Pictures:
    """Render shots in batches and describe them."""
    known = network_named(network)
    if background != "scene" and (isinstance(background, str) or len(background) != 3):
        raise ValueError(f"background {background!r}: accepted are 'scene' or three numbers from 0 to 1")
    results = []
    for start in range(0, len(pids), BATCH):
        rows = slice(start, start + BATCH)
        results.append(
            draw_shots(
                pids[rows],
                {name: value[rows] for name, value in shot.items()},
                network=known,
                seed=seed,
                scene=scene,
                difficulty=difficulty,
                image_size=image_size,
                device=device,
                backdrop=None if background == "scene" else tuple(background),
                effects_on=camera_effects,
            )
        )
    result = Rendered(*(torch.cat(values) for values in zip(*results, strict=True)))
    look = dict(seed=known.seed(seed), muted=mutedness(scene, difficulty), outfits=shot["outfit"].tolist())
    info = describe(people(pids, **look), pids)
    info.insert(1, "camid", (shot["camera"] + 1).tolist())
    info.insert(2, "yaw", torch.rad2deg(shot["yaw"]).remainder(360).tolist())
    info.insert(3, "gait_phase", shot["phase"].remainder(2 * torch.pi).tolist())
    info.insert(4, "occluder", [OCCLUDERS[index] for index in shot["occluder"].tolist()])
    info.insert(5, "occluded", result.occluded.tolist())
    return Pictures(
        result.images, torch.tensor(pids), shot["camera"] + 1, result.keypoints, result.masks, result.parsing, info
    )


def _photographed(
    pids: list[int],
    shot: dict[str, Tensor],
    image_size: tuple[int, int],
    scene: str,
    difficulty: float,
    network: str,
    seed: int,
    device: str,
) -> Pictures:
    """Render shots as `load` would read them: drawn at the stored size, saved as the camera does, then resized."""
    made = _draw(pids, shot, scene, difficulty, network, seed, stored_size(image_size), "scene", True, device)
    planes = {name: getattr(made, name) for name in ("images", "keypoints", "masks", "parsing")}
    known = network_named(network)
    if known.layout not in LOSSLESS:
        pixels = made.images.permute(0, 2, 3, 1).cpu().numpy()
        files = (encode(p, "jpeg", q) for p, q in zip(pixels, jpeg_qualities(shot, known), strict=True))
        again = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
        planes["images"] = torch.from_numpy(again).permute(0, 3, 1, 2).contiguous().to(made.images.device)
    return made._replace(**resize(planes, image_size))


def _shots(
    pids: list[int], camids: list[int], moments: Tensor, network: str, seed: int, scene: str, difficulty: float
) -> dict[str, Tensor]:
    count = len(pids)
    rows = {
        "pid": pids,
        "camid": camids,
        "sequence": [0] * count,
        "frame": moments.tolist(),
        "step": [0] * count,
        "box": ["detected"] * count,
    }
    return shots(rows, network=network_named(network), seed=seed, scene=scene, difficulty=difficulty)


def render(
    pids: Sequence[int],
    camids: Sequence[int] | int = 1,
    *,
    yaws: float | Sequence | Tensor | None = None,
    phases: float | Sequence | Tensor | None = None,
    walking: float | Sequence | Tensor | None = None,
    moments: int | Sequence | None = None,
    outfits: int | Sequence = 0,
    plain: bool = True,
    background: str | tuple = "scene",
    camera_effects: bool = True,
    image_size: tuple[int, int] = (128, 64),
    seed: int = 0,
    scene: str = "retrieval",
    network: str = "market1501",
    difficulty: float = 1.0,
    device: str = "cpu",
) -> Pictures:
    r"""Render given identities in given cameras and poses, with the truth of every pixel.

    `pids` and `camids` (from 1) name who is seen where, one for each picture; the same pid with the same `seed` and
    `scene` is the person of the data set that `make` writes. `yaws` in degrees: 0 faces the camera, 90 walks to the
    right, 180 turns the back. `phases` in radians: the gait cycle. `walking` from 0 (stands) to 1. What is not given is
    drawn from the seed and `moments` (default 0, 1, 2, ...); the same pid, camid and moment is the same picture.
    `outfits`: 0 is what the person wears in the data set, other whole numbers the same garments in other colours.
    `plain=True` leaves out occluders, strangers and the detector's errors. `background` is "scene" or a colour
    (red, green, blue; 0..1) in place of the scene. `camera_effects=False` gives even light, no blur and no noise.
    Raises ValueError for an unknown scene, network or camera, a wrong number of values or an odd image size.

    >>> front, back = render([7, 7], yaws=[0, 180], background=(1, 1, 1), image_size=(64, 32)).keypoints
    >>> front[0, 2].item(), back[0, 2].item()          # the nose is seen from the front only
    (1.0, 0.0)
    """
    pids = [int(pid) for pid in pids]
    count = len(pids)
    camids = _each("camids", camids, count).tolist()
    _check(pids, camids, len(network_named(network).cameras), image_size, scene)
    moments = torch.arange(count) if moments is None else _each("moments", moments, count)
    shot = _shots(pids, camids, moments, network, seed, scene, difficulty)
    if plain:
        shot = _plain(shot)
    if yaws is not None:
        shot["yaw"] = torch.deg2rad(_each("yaws", yaws, count).float())
    if phases is not None:
        shot["phase"] = _each("phases", phases, count).float()
    if walking is not None:
        shot["walking"] = _each("walking", walking, count).float()
    shot["outfit"] = _each("outfits", outfits, count)
    return _draw(pids, shot, scene, difficulty, network, seed, image_size, background, camera_effects, device)


def same_frame(
    pids: Sequence[int],
    camera_a: int,
    camera_b: int,
    *,
    moments: int | Sequence | None = None,
    plain: bool = True,
    image_size: tuple[int, int] = (128, 64),
    seed: int = 0,
    scene: str = "retrieval",
    network: str = "market1501",
    difficulty: float = 1.0,
    device: str = "cpu",
) -> tuple[Pictures, Pictures]:
    r"""Render the same people at the same moment as two cameras would see them from the same place.

    The two pictures agree pixel by pixel in the person (pose, mask, parsing, key points) and differ in scene, light and
    camera: aligned pairs that no real camera gives, an oracle for transfer between cameras. Arguments as in `render`;
    as photographs of the set they are drawn at the size of its files, saved by the camera's JPEG and reduced to
    `image_size`.

    >>> a, b = same_frame([3, 4], 5, 6, image_size=(64, 32))
    >>> bool((a.masks == b.masks).all()), bool((a.images == b.images).all())
    (True, False)
    """
    pids = [int(pid) for pid in pids]
    known = network_named(network)
    _check(pids, [camera_a, camera_b], len(known.cameras), image_size, scene)
    moments = torch.arange(len(pids)) if moments is None else _each("moments", moments, len(pids))
    shot = _shots(pids, [camera_a] * len(pids), moments, network, seed, scene, difficulty)
    if plain:
        shot = _plain(shot)
    first, second = known.cameras[camera_a - 1], known.cameras[camera_b - 1]
    shot["pitch"] = torch.atan((first.height - 0.9) / shot["distance"])
    part = (shot["distance"] - first.near) / (first.far - first.near)
    other = shot | {
        "camera": torch.full_like(shot["camera"], camera_b - 1),
        "distance": second.near + part * (second.far - second.near),
    }
    options = (image_size, scene, difficulty, network, seed, device)
    return _photographed(pids, shot, *options), _photographed(pids, other, *options)


def _step_of(phase: Tensor, first: Tensor, stride: Tensor) -> list[int]:
    """Return how many steps of its track a picture lies behind the first, by its gait phase; 0 where none fits."""
    ahead = first[:, None] + stride[:, None] * torch.arange(LONGEST_TRACK)
    off = torch.remainder(ahead - phase[:, None] + torch.pi, 2 * torch.pi) - torch.pi
    nearest = off.abs().min(1)
    return torch.where(nearest.values < 0.01, nearest.indices, 0).tolist()


def in_pose(
    people: pd.DataFrame,
    poses: pd.DataFrame,
    *,
    image_size: tuple[int, int] = (128, 64),
    seed: int = 0,
    scene: str = "retrieval",
    network: str = "market1501",
    difficulty: float = 1.0,
    device: str = "cpu",
) -> Pictures:
    r"""Render the people of some images of a rendered set in the poses of others, one for each row of the two tables.

    Person, camera, light and place are those of `people`; direction, gait, head, arms and crop are those of `poses`;
    nothing stands in front. It is the true answer to "this person in that pose", which no photograph gives, and so an
    upper bound for a generator. Like the photographs of the set it is drawn at the size of its files, saved by the
    camera's JPEG and reduced to `image_size`: what is sharper than they are would be told from them by that alone.

    Args:
        people, poses: `PersonImages.table()` of images that `load("procedural", ...)` gave, of N rows each.
        image_size, seed, scene, network, difficulty: those of that set.
        device: where it is computed.

    Raises:
        ValueError: tables of different length, or without what the renderer writes down (other sets lack it).

    >>> rows = pd.DataFrame(dict(pid=[3, 5], camid=1, sequence=1, frame=[400, 900], box="detected", yaw=[0.0, 90.0],
    ...                          gait_phase=0.5))
    >>> in_pose(rows, rows.iloc[::-1], image_size=(64, 32)).info["yaw"].round().tolist()
    [90.0, 0.0]
    """
    if len(people) != len(poses):
        raise ValueError(f"one pose for each person is needed, got {len(people)} people and {len(poses)} poses")
    needed = ("pid", "camid", "sequence", "frame", "box", "yaw", "gait_phase")
    missing = [name for name in needed if name not in people or name not in poses]
    if missing:
        raise ValueError(f"the tables lack {', '.join(missing)}, which images of the procedural set have")

    def shots_of(table: pd.DataFrame) -> dict[str, Tensor]:
        rows = {name: table[name].tolist() for name in needed[:5]}
        options = dict(network=network_named(network), seed=seed, scene=scene, difficulty=difficulty)
        first, second = (shots(rows | {"step": [step] * len(table)}, **options)["phase"] for step in (0, 1))
        steps = _step_of(torch.tensor(table["gait_phase"].to_numpy(np.float32)), first, second - first)
        shot = shots(rows | {"step": steps}, **options)
        known = {"yaw": np.deg2rad(table["yaw"]), "phase": table["gait_phase"]}
        return shot | {name: torch.tensor(column.to_numpy(np.float32)) for name, column in known.items()}

    pids = people["pid"].tolist()
    _check(pids, people["camid"].tolist(), len(network_named(network).cameras), image_size, scene)
    shot, wanted = shots_of(people), shots_of(poses)
    nobody = torch.zeros_like(shot["occluder"])
    shot |= {name: wanted[name] for name in POSE} | {"occluder": nobody, "stranger": nobody, "cut": nobody}
    return _photographed(pids, shot, image_size, scene, difficulty, network, seed, device)
