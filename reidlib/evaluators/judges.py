r"""Did the generator do what was asked? Three judges say: the wanted pose, the same person, the wanted camera.

A judge is a small network that was trained once, on rendered people that no generator and no re-ID network has met, so
its opinion is nobody's training loss. The recorded ones were trained on both scenes of the procedural `market1501`
network by `reidlib judges`; how often each is right on real renders of yet other people is in
`Judges.accuracy`, and no generated image can be expected to score higher. They know the six cameras and the rendered
people of that network only: for other data train judges on people that you set aside (`reidlib.tools.train_judges`).
"""

import json
import os
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets import PersonImages
from reidlib.datasets.augment import resize
from reidlib.datasets.person_images import JUNK
from reidlib.evaluators.neighbours import nearest_neighbours
from reidlib.files import resolve
from reidlib.networks import SmallResNet, device_of, load_weights, normalise

FOLDER = "notebooks/weights"
COMMAND = "reidlib judges"
RESULTS = "judges.results.json"
NAMES = ("pose", "identity", "camera")  # judges-<name>.safetensors
IDENTITY_NAMES = ("identity kept, rank-1", "identity kept, any of 10", "identity kept, by chance")
BATCH = 512


class PoseJudge(nn.Module):
    r"""Finds 18 joints: maps at half the image's size, each a distribution $p_j$ whose mean is the joint's place.

    $$\hat x_j = \sum_c p_j(c) \, x(c), \qquad p_j = \text{softmax of map } j \text{ over its cells } c$$

    Sun et al., "Integral Human Pose Regression", 2018.

    >>> PoseJudge(8)(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 18, 32, 16])
    """

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 4 * width, 6 * width)
        self.down = nn.ModuleList(nn.Sequential(_convolution(a, b, 2), _convolution(b, b)) for a, b in pairwise(sizes))
        self.across = nn.ModuleList(nn.Conv2d(size, 2 * width, 1) for size in sizes[1:])
        self.up = nn.ModuleList(_convolution(2 * width, 2 * width) for _ in sizes[1:])
        self.head = nn.Conv2d(2 * width, 18, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return unnormalised maps [B, 18, H/2, W/2] of ImageNet-normalised images [B, 3, H, W]."""
        levels = []
        for down in self.down:
            levels.append(images := down(images))
        x = torch.zeros_like(self.across[-1](levels[-1]))
        for across, up, level in reversed(list(zip(self.across, self.up, levels, strict=True))):
            x = up(across(level) + F.interpolate(x, size=level.shape[-2:]))
        return self.head(x)

    @staticmethod
    def places(maps: Tensor) -> Tensor:
        """Return the mean place of each map in pixels of the image, (x, y): [B, 18, 2]."""
        height, width = maps.shape[-2:]
        p = maps.float().flatten(2).softmax(2).unflatten(2, (height, width))
        x = torch.arange(width, device=maps.device) * 2 + 0.5  # a cell covers 2x2 pixels
        y = torch.arange(height, device=maps.device) * 2 + 0.5
        return torch.stack([(p.sum(2) * x).sum(2), (p.sum(3) * y).sum(2)], dim=2)


class IdentityJudge(nn.Module):
    """The small re-ID network with its neck, without a classifier; features of length 1.

    >>> IdentityJudge(8)(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 64])
    """

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.backbone = SmallResNet(width)
        self.neck = nn.BatchNorm1d(self.backbone.dimensions)

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, D] of ImageNet-normalised images."""
        return F.normalize(self.neck(self.backbone(images).mean((2, 3))), dim=1)


class CameraJudge(nn.Module):
    """Tells cameras apart by style and scene.

    >>> CameraJudge(6, 4)(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 6])
    """

    def __init__(self, cameras: int, width: int = 8) -> None:
        super().__init__()
        self.backbone = SmallResNet(width)
        self.head = nn.Linear(self.backbone.dimensions, cameras)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [B, cameras] of ImageNet-normalised images."""
        return self.head(self.backbone(images).mean((2, 3)).float())


@dataclass(frozen=True, eq=False)
class Judges:
    """The three judges and what is known about them.

    Attributes:
        pose, identity, camera: the networks.
        camids: the cameras that the camera judge knows, in the order of its outputs.
        image_size: (height, width) that images of any size are resized to, antialiased, before they are judged.
        dataset: what they were trained on.
        accuracy: name -> share that they get right on real images of people they were not trained on.
    """

    pose: nn.Module
    identity: nn.Module
    camera: nn.Module
    camids: tuple[int, ...]
    image_size: tuple[int, int] = (64, 32)
    dataset: str = "procedural"
    accuracy: dict[str, float] = field(default_factory=dict)

    def keypoints(self, images: Tensor) -> Tensor:
        """Find the joints in uint8 images [B, 3, H, W]: float32 [B, 18, 2], (x, y) in pixels of these images."""
        places = self._judge(lambda batch: PoseJudge.places(self.pose(batch)), images)
        height, width = images.shape[-2:]
        scale = torch.tensor([width / self.image_size[1], height / self.image_size[0]])
        return (places + 0.5) * scale - 0.5  # whole coordinates are pixel centres

    def embed(self, images: Tensor) -> Tensor:
        """Return the identity judge's features, float32 [B, D], of uint8 images [B, 3, H, W]."""
        return self._judge(self.identity, images)

    def looks(self, images: Tensor) -> Tensor:
        """Return what the identity and the camera judge see before they decide, float32 [B, D]: features for `fid`.

        The camera judge's part is needed: identity features are trained not to notice light, noise and blur.
        """
        backbones = (self.identity.backbone, self.camera.backbone)
        return self._judge(lambda batch: torch.cat([net(batch).mean((2, 3)) for net in backbones], 1), images)

    def cameras(self, images: Tensor) -> Tensor:
        """Recognise the camera of uint8 images [B, 3, H, W]: int64 [B], camera numbers."""
        return torch.tensor(self.camids)[self._judge(self.camera, images).argmax(1)]

    @torch.no_grad()
    def _judge(self, network: nn.Module, images: Tensor) -> Tensor:
        """Apply a network to images of any size, in batches; the answer is on the CPU."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3 or not len(images):
            raise ValueError(f"judges take uint8 images [B,3,H,W], B > 0; got {images.dtype} {list(images.shape)}")
        device = device_of(self.pose)
        answers = []
        for chunk in images.split(BATCH):
            chunk = resize({"images": chunk.to(device)}, self.image_size)["images"]
            answers.append(network(normalise(chunk)).float().cpu())
        return torch.cat(answers)


def load_judges(
    path: str | os.PathLike = FOLDER, device: str | torch.device = "cpu", *, dataset: str = "procedural"
) -> Judges:
    """Load the recorded judges, or those that `tools.train_judges.save_judges` left in the folder `path`.

    Args:
        path: a relative path counts from the repository root.
        device: where they work.
        dataset: what they are to judge; judges of another data set are refused.

    Raises:
        FileNotFoundError: files are missing; the message names the command that makes them.
        ValueError: they were trained on another data set.
    """
    folder = resolve(path)
    missing = [name for name in (RESULTS, *map(file_name, NAMES)) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"no judges in {folder}: {', '.join(missing)} missing; `{COMMAND}` makes them")
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    facts = results["parameters"]
    if facts["dataset"] != dataset:
        raise ValueError(
            f"the judges in {folder} were trained on {facts['dataset']!r} and know nothing of {dataset!r}; "
            f"train others on people set aside: reidlib.tools.train_judges.train_judges"
        )
    networks = {"pose": PoseJudge(), "identity": IdentityJudge(), "camera": CameraJudge(len(facts["camids"]))}
    for name, network in networks.items():
        load_weights(network, folder / file_name(name))
        network.to(device).eval().requires_grad_(False)
    accuracy = {name: entry["value"] for name, entry in results["metrics"].items()}
    known = {name: tuple(facts[name]) for name in ("camids", "image_size")}
    return Judges(**networks, **known, dataset=dataset, accuracy=accuracy)


def file_name(judge: str) -> str:
    """Name of a judge's weights: `judges-<judge>.safetensors`."""
    return f"judges-{judge}.safetensors"


def pose_pck(images: Tensor, keypoints: Tensor, judges: Judges, threshold: float = 0.1) -> float:
    r"""Return the share of wanted joints that the pose judge finds where they should be (PCK, by image height).

    $$\text{PCK@}t = \frac{1}{|V|} \sum_{(i, j) \in V} [\lVert \hat x_{ij} - x_{ij} \rVert_2 \le t H]$$

    over the visible joints $V$ of all images together, $H$ the image's height; in [0, 1], higher is better. Yang and
    Ramanan's percentage of correct key points (2013), with the image in the place of the person's box.

    Args:
        images: uint8 [B, 3, H, W].
        keypoints: float32 [B, 18, 3], where the joints should be, in pixels of these images.
        judges: see `load_judges`.
        threshold: t; 0.1 is lenient on small images (6.4 pixels at height 64), 0.05 strict.

    Raises:
        ValueError: shapes that do not fit, no visible joint, or a threshold that is not positive.
    """
    _check_keypoints(images, keypoints, threshold)
    keypoints = keypoints.cpu()
    wanted = keypoints[..., 2] > 0  # [B, 18]
    if not wanted.any():
        raise ValueError("no joint is visible in any of the key points, so there is no pose to judge")
    apart = (judges.keypoints(images) - keypoints[..., :2]).norm(dim=2)  # [B, 18]
    return (apart[wanted] <= threshold * images.shape[2]).double().mean().item()


HEAD = (0, 1, 14, 15, 16, 17)  # nose, neck, eyes and ears


def pckh(images: Tensor, keypoints: Tensor, judges: Judges, threshold: float = 0.5) -> float:
    r"""Return the share of wanted joints that the pose judge finds where they should be, measured by the head (PCKh).

    $$|\hat x - x| < t\, w_{head} \quad\text{and}\quad |\hat y - y| < t\, h_{head}$$

    with the box around the wanted nose, neck, eyes and ears that are visible. Images that show fewer than two of them
    are left out. The share is of the visible joints of all other images; in [0, 1], higher is better. As in Zhu et al.,
    "Progressive Pose Attention Transfer for Person Image Generation", CVPR 2019.

    Args:
        images: uint8 [B, 3, H, W].
        keypoints: float32 [B, 18, 3], where the joints should be, in pixels of these images.
        judges: see `load_judges`.
        threshold: t.

    Raises:
        ValueError: shapes that do not fit, a threshold that is not positive, or no image with two joints of the head.
    """
    _check_keypoints(images, keypoints, threshold)
    keypoints = keypoints.cpu()
    head = keypoints[:, HEAD]
    seen = head[..., 2:] > 0  # [B,6,1]
    low = head[..., :2].masked_fill(~seen, torch.inf).amin(1)
    box = head[..., :2].masked_fill(~seen, -torch.inf).amax(1) - low  # [B,2]
    counted = seen.sum((1, 2)) >= 2
    if not counted.any():
        raise ValueError("no image shows two joints of the wanted head, so there is nothing to measure by")
    apart = (judges.keypoints(images) - keypoints[..., :2]).abs()[counted]  # [b,18,2]
    right = (apart < threshold * box[counted][:, None]).all(2)
    return right[keypoints[counted][..., 2] > 0].double().mean().item()


class IdentityKept(NamedTuple):
    """Rates in [0, 1]: the right person is nearest, is among the ten nearest, and is nearest by chance."""

    rank1: float
    rank10: float
    chance: float


def identity_kept(
    images: Tensor, pids: Tensor, gallery: PersonImages, judges: Judges, source_rows: Tensor | None = None
) -> IdentityKept:
    """Look for each generated image's person among real images, by the identity judge's features.

    The rates are means over the images: the nearest real image shows the person (rank1), one of the ten nearest does
    (rank10). Cameras play no part, so a real image of the wanted camera may be found. Junk (pid -1) is left out,
    distractors (pid -3) can be found and are wrong.

    Args:
        images: uint8 [B, 3, H, W], generated.
        pids: int64 [B], the people that they should show (0 and more).
        gallery: real images.
        judges: see `load_judges`.
        source_rows: int64 [B], the row of `gallery` that each image was made from (-1: none of them), which it must
            not find.

    Raises:
        ValueError: shapes that do not fit, or a person without an (other) image in the gallery.
    """
    pids = torch.as_tensor(pids).cpu()
    sources = torch.full_like(pids, -1) if source_rows is None else torch.as_tensor(source_rows).cpu()
    if pids.shape != (len(images),) or sources.shape != pids.shape or not len(pids) or not len(gallery):
        got = f"{len(images)} images, {list(pids.shape)} pids, {list(sources.shape)} source_rows, {len(gallery)} in it"
        raise ValueError(f"as many images as pids and source_rows are needed, and a gallery; got {got}")
    if not (int(sources.min()) >= -1 and int(sources.max()) < len(gallery)):
        raise ValueError(f"source_rows name images {int(sources.min())} to {int(sources.max())} of {len(gallery)}")
    ordered = gallery.pids.sort().values
    matches = torch.searchsorted(ordered, pids, right=True) - torch.searchsorted(ordered, pids)
    matches -= ((sources >= 0) & (gallery.pids[sources] == pids)).long()
    if (nobody := pids[(matches < 1) | (pids < 0)].unique()).numel():
        raise ValueError(f"the gallery has no (other) image of people {nobody.tolist()[:10]}")
    counted = gallery.pids != JUNK
    places = torch.where(counted, counted.cumsum(0) - 1, -1)  # of each row among those that count
    sources = torch.where(sources >= 0, places[sources], -1)
    gallery = gallery.select(indices=counted)
    rows = torch.arange(len(gallery)).split(BATCH)
    features = torch.cat([judges.embed(gallery.batch(some)["images"]) for some in rows])
    found = nearest_neighbours(judges.embed(images), features, min(10, len(gallery)), exclude=sources)
    hits = (gallery.pids[found.indices] == pids[:, None]) & found.distances.isfinite()  # [B, 10]
    chance = matches / (len(gallery) - (sources >= 0).long())
    return IdentityKept(*(x.double().mean().item() for x in (hits[:, 0], hits.any(1), chance)))


class CameraStyle(NamedTuple):
    """The share in [0, 1] recognised as the wanted camera, and counts [cameras, cameras]: wanted x recognised."""

    share: float
    confusion: Tensor


def camera_style(images: Tensor, camids: Tensor | int, judges: Judges) -> CameraStyle:
    """Ask the camera judge which camera took each image, and say how often it names the wanted one.

    Args:
        images: uint8 [B, 3, H, W].
        camids: the wanted camera, one or [B].
        judges: see `load_judges`; `judges.camids` are rows and columns of the confusion.

    Raises:
        ValueError: a camera that the judge does not know, or a wrong number of camids.
    """
    known = torch.tensor(judges.camids)
    wanted = torch.as_tensor(camids).cpu()
    wanted = wanted.repeat(len(images)) if wanted.dim() == 0 else wanted
    if wanted.shape != (len(images),) or not torch.isin(wanted, known).all():
        accepted = f"one or {len(images)} of the cameras {known.tolist()} that the judge knows"
        raise ValueError(f"camids must be {accepted}; got {list(wanted.shape)} with {wanted.unique().tolist()[:10]}")
    rows, columns = ((values[:, None] == known).int().argmax(1) for values in (wanted, judges.cameras(images)))
    n = len(known)
    confusion = torch.bincount(rows * n + columns, minlength=n * n).view(n, n)
    return CameraStyle(confusion.trace().item() / len(images), confusion)


def judge(
    images: Tensor,
    judges: Judges,
    *,
    keypoints: Tensor | None = None,
    pids: Tensor | None = None,
    gallery: PersonImages | None = None,
    source_rows: Tensor | None = None,
    camids: Tensor | int | None = None,
) -> dict[str, float]:
    """Return the metrics of control that apply: pose followed, identity kept, target camera's style, each in [0, 1].

    Args:
        images: uint8 [B, 3, H, W], generated.
        judges: see `load_judges`.
        keypoints: the wanted poses, see `pose_pck`; None where no pose was asked for.
        pids, gallery, source_rows: the wanted people and where to look for them, see `identity_kept`.
        camids: the wanted cameras, see `camera_style`.

    Returns:
        name -> share, ready for results.json: "PCK@0.1", "PCK@0.05", "identity kept, rank-1", "identity kept, any of
        10", "identity kept, by chance", "camera style".

    Raises:
        ValueError: nothing to judge by, one of `pids` and `gallery` without the other, and as the three judgements.
    """
    if (pids is None) != (gallery is None):
        raise ValueError("identity is judged by pids and a gallery: give both or neither")
    found = {}
    if keypoints is not None:
        found |= {f"PCK@{t}": pose_pck(images, keypoints, judges, t) for t in (0.1, 0.05)}
    if pids is not None:
        found |= zip(IDENTITY_NAMES, identity_kept(images, pids, gallery, judges, source_rows), strict=True)
    if camids is not None:
        found["camera style"] = camera_style(images, camids, judges).share
    if not found:
        raise ValueError("nothing to judge by: give keypoints, pids with a gallery, or camids")
    return found


def _check_keypoints(images: Tensor, keypoints: Tensor, threshold: float) -> None:
    if keypoints.shape != (len(images), 18, 3):
        raise ValueError(f"keypoints must be [{len(images)},18,3] for {len(images)} images: {list(keypoints.shape)}")
    if not threshold > 0:
        raise ValueError(f"threshold={threshold}: a share above 0 is accepted")


def _convolution(ins: int, outs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(inplace=True))
