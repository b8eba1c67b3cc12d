"""What a camera and a network of cameras are: scene, light, picture; who passes, how often, how many."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How many identities and images a data set has; not every network has every kind."""

    train_ids: int
    test_ids: int
    train: int = 0
    gallery: int = 0  # images of test identities beside the queries
    junk: int = 0
    distractors: int = 0
    query: int = 0  # 0: as many as there are (id, camera) pairs
    gt_bbox: int = 0  # 0: three for each test (id, camera)
    val: int = 0  # further images of training people
    lone_ids: int = 0  # people of the gallery who pass one camera only
    lone: int = 0  # their images
    labeled: tuple[int, int] = (0, 0)  # images of training and test people in hand-drawn boxes, where both kinds exist
    classic_ids: int = 0  # test people of each split of CUHK03's classic protocol
    first: tuple[int, int, int] | None = None  # training, test, lone people who are numbered first (None: all of them)


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
    shift: float = 0.0  # metres by which the patterns of ground and wall begin elsewhere


@dataclass(frozen=True)
class Network:
    """A set of cameras and how people appear in them."""

    name: str
    cameras: tuple[Camera, ...]
    sequences: tuple[tuple[float, ...], ...]  # per camera: where all sequences but the first begin, in 0..1
    share: tuple[float, ...]  # per camera: part of the images
    seen: tuple[float, ...]  # per camera: how likely a person passes it
    sizes: dict[str, Size]
    salt: int = 0  # told apart by it: no person and no scene of one network is in another
    like: str = ""  # the network whose layout and reader it shares ("": its own)

    @property
    def layout(self) -> str:
        """Name of the network whose layout it is written in, which is the name of its reader.

        >>> from .networks import network_named
        >>> network_named("dukemtmc").layout, network_named("reserved1").layout
        ('dukemtmc', 'market1501')
        """
        return self.like or self.name

    def seed(self, seed: int) -> int:
        """Return the seed of this network's own people: Market-1501's is the seed itself.

        >>> from .networks import network_named
        >>> network_named("market1501").seed(3), network_named("dukemtmc").seed(3) == 3 + 2**32 * 11
        (3, True)
        """
        return (seed & 0xFFFFFFFF) + (self.salt << 32)
