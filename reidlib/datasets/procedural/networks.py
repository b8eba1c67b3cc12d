"""Camera networks: where each camera stands, what it sees, how it records; for now Market-1501's six cameras."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Camera:
    """One camera: its scene, its light and its picture. Colours and gains are red, green, blue."""

    ground: str  # pattern of the ground, see scenes.GROUNDS
    wall: str  # what closes the view, see scenes.WALLS
    props: tuple[str, ...]  # things along the wall
    ground_colours: tuple[str, str]
    wall_colours: tuple[str, str]
    height: float = 3.0  # metres above the ground
    wall_distance: float = 14.0  # metres from the camera
    near: float = 6.0  # people walk between near and far
    far: float = 11.0
    light: tuple[float, float, float] = (-0.5, -0.7, -0.5)  # towards the light, view frame (right, down, away)
    ambient: float = 0.55  # part of the light that comes from everywhere
    sun: tuple[float, float, float] = (1.05, 1.0, 0.92)  # colour of the directed light
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)  # white balance
    exposure: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    haze: float = 0.0  # part of the picture lost to grey
    blur: tuple[float, float] = (0.3, 0.8)  # Gaussian sigma in pixels at 128x64
    noise: float = 0.012  # standard deviation, of 1
    quality: tuple[int, int] = (82, 92)  # JPEG
    shadow: float = 0.45  # darkness of shadows on the ground
    spread: float = 0.10  # light that changes from one sequence to the next


@dataclass(frozen=True)
class Network:
    """A set of cameras and how people appear in them."""

    name: str
    cameras: tuple[Camera, ...]
    sequences: tuple[tuple[float, ...], ...]  # per camera: where all sequences but the first begin, in 0..1
    share: tuple[float, ...]  # per camera: part of the images
    seen: tuple[float, ...]  # per camera: how likely a person passes it
    full: dict[str, int] = field(default_factory=dict)  # counts of the real data set


MARKET1501 = Network(
    name="market1501",
    cameras=(
        Camera(
            "slabs",
            "hedge",
            ("bikes", "pole"),
            ("#8f8d88", "#6f6e6c"),
            ("#3e5b34", "#26391f"),
            height=3.1,
            wall_distance=15,
            light=(-0.75, -0.6, -0.3),
            ambient=0.50,
            gains=(1.05, 1.0, 0.93),
            exposure=1.04,
            contrast=1.10,
            saturation=1.06,
            blur=(0.30, 0.75),
            noise=0.012,
            spread=0.10,
        ),
        Camera(
            "brick",
            "shops",
            ("door", "bin"),
            ("#8d7f76", "#6d625b"),
            ("#a3664a", "#7b4936"),
            height=2.7,
            wall_distance=12,
            near=5.5,
            far=9.5,
            light=(0.6, -0.75, -0.4),
            ambient=0.60,
            sun=(1.1, 1.0, 0.86),
            gains=(1.12, 1.0, 0.84),
            exposure=1.10,
            contrast=0.94,
            saturation=1.0,
            blur=(0.45, 0.95),
            noise=0.014,
        ),
        Camera(
            "setts",
            "stairs",
            ("rail", "pole"),
            ("#7d8288", "#5f646b"),
            ("#8a8f98", "#5c626d"),
            height=3.4,
            wall_distance=13,
            light=(0.1, -0.95, -0.3),
            ambient=0.72,
            sun=(0.94, 1.0, 1.08),
            gains=(0.90, 0.99, 1.13),
            exposure=0.92,
            contrast=0.95,
            saturation=0.82,
            haze=0.05,
            blur=(0.4, 0.9),
            noise=0.016,
            quality=(74, 88),
        ),
        Camera(
            "lawn",
            "trees",
            ("bench",),
            ("#a39a86", "#64794a"),
            ("#4f6a40", "#22301c"),
            height=2.9,
            wall_distance=17,
            near=6.5,
            far=12,
            light=(-0.45, -0.8, 0.25),
            ambient=0.56,
            sun=(1.06, 1.03, 0.86),
            gains=(0.97, 1.06, 0.89),
            exposure=1.14,
            contrast=1.10,
            saturation=1.04,
            blur=(0.3, 0.7),
            noise=0.012,
            shadow=0.6,
            spread=0.16,
        ),
        Camera(
            "twotone",
            "glass",
            ("bikes", "plants"),
            ("#a89c95", "#877d7b"),
            ("#5f6f86", "#2d3542"),
            height=3.0,
            wall_distance=11.5,
            near=5.5,
            far=9,
            light=(0.85, -0.45, -0.25),
            ambient=0.52,
            sun=(1.06, 0.98, 1.02),
            gains=(1.05, 0.95, 1.10),
            exposure=0.98,
            contrast=1.04,
            saturation=0.94,
            blur=(0.4, 0.8),
            noise=0.013,
        ),
        Camera(
            "asphalt",
            "shutter",
            ("bikes", "bikes", "pole"),
            ("#5d5f63", "#c9c9c4"),
            ("#767d86", "#4d545e"),
            height=3.6,
            wall_distance=13,
            near=6,
            far=11,
            light=(-0.4, -0.85, -0.3),
            ambient=0.66,
            gains=(1.0, 1.0, 1.0),
            exposure=0.70,
            contrast=1.0,
            saturation=0.72,
            haze=0.02,
            blur=(0.55, 1.15),
            noise=0.021,
            quality=(64, 82),
            shadow=0.35,
            spread=0.14,
        ),
    ),
    sequences=(
        (0.42, 0.58, 0.70, 0.81, 0.91),
        (0.42, 0.72),
        (0.42, 0.72),
        (0.42, 0.58, 0.70, 0.81, 0.91),
        (0.42, 0.72),
        (0.42, 0.68, 0.88),
    ),
    share=(0.157, 0.138, 0.205, 0.083, 0.187, 0.230),
    seen=(0.89, 0.71, 0.95, 0.33, 0.83, 0.78),
    full={
        "train_ids": 751,
        "test_ids": 750,
        "train": 12936,
        "query": 3368,
        "gallery": 13115,
        "distractors": 2798,
        "junk": 3819,
        "gt_bbox": 25259,
    },
)

NETWORKS = {network.name: network for network in (MARKET1501,)}


def network_named(name: str) -> Network:
    """Return the network of this name.

    >>> len(network_named("market1501").cameras)
    6
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}: accepted are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name]
