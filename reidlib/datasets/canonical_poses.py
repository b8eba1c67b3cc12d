r"""Canonical poses: a few poses that stand for all, one for each cluster of the training poses.

Qian et al., "Pose-Normalized Image Generation for Person Re-identification", ECCV 2018: features $f_n$ of all training
pose pictures, K-means with $k = 8$, and the mean pose of each cluster. The paper's pictures are crisp single skeletons,
so the default takes the training pose nearest to each centre (the medoid):

$$\min_{c, \mu} \sum_n \lVert f_n - \mu_{c(n)} \rVert^2, \qquad
m_k = \arg\min_{n : c(n) = k} \lVert f_n - \mu_k \rVert$$
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reidlib.datasets import poses
from reidlib.datasets.augment import normalise
from reidlib.datasets.person_images import PersonImages
from reidlib.files import atomic_path, resolve

FEATURES = ("skeleton", "vgg19")
MODES = ("medoid", "pixel_mean", "joint_mean")


@dataclass(frozen=True, eq=False)
class CanonicalPoses:
    """k poses, the largest cluster first.

    Attributes:
        keypoints: float32 [k,18,3]; for the two means, of each joint's places in the images that show it, missing where
            fewer than half of the cluster's do.
        pictures: uint8 [k,3,H,W], pose pictures.
        rows: int64 [k], the medoids' rows in the training set (whatever the mode).
        clusters: int64 [N], the pose that each training image belongs to; -1 where too few joints were found.
        counts: int64 [k], images in each cluster.
        features: float32 [M,D], of the images that were clustered, in their order.
        mode, source: "medoid", "pixel_mean" or "joint_mean"; where the features are from.
    """

    keypoints: Tensor
    pictures: Tensor
    rows: Tensor
    clusters: Tensor
    counts: Tensor
    features: Tensor
    mode: str
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def as_images(self) -> PersonImages:
        """Return the poses as the targets of a generator: k pose pictures named 1...k, which show nobody (pid -1).

        Pixel means go without key points, so that a generator takes the blurred pictures themselves.
        """
        k = len(self)
        keypoints = None if self.mode == "pixel_mean" else self.keypoints
        names = [str(i + 1) for i in range(k)]
        return PersonImages(
            self.pictures, [-1] * k, [-1] * k, names=names, keypoints=keypoints, is_generated=[True] * k
        )

    def save(self, folder: str | Path) -> list[Path]:
        """Write the pictures as `1.png` ... `k.png` (a relative folder counts from the repository root)."""
        from PIL import Image

        paths = [resolve(folder) / f"{i + 1}.png" for i in range(len(self))]
        for path, picture in zip(paths, self.pictures, strict=True):
            with atomic_path(path) as temporary:
                Image.fromarray(picture.permute(1, 2, 0).numpy()).save(temporary)
        return paths


def canonical_poses(
    train: PersonImages,
    k: int = 8,
    *,
    mode: str = "medoid",
    features: str = "skeleton",
    weights: str | Path | None = None,
    min_joints: int = 10,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> CanonicalPoses:
    """Cluster the poses of a set and give one pose for each cluster.

    Args:
        train: with key points.
        k: clusters.
        mode: "medoid": the member nearest to the centre; "joint_mean": a skeleton of mean joints; "pixel_mean": the
            mean of the members' pictures.
        features: "vgg19": fc7 of an ImageNet VGG-19 (a reading of the paper, which names no layer); needs `weights`.
            "skeleton", without weights: see `skeleton_features`.
        weights: state dict of torchvision's vgg19, .pth or .safetensors.
        min_joints: images with fewer joints found take no part.
        seed: of K-means (10 restarts, scikit-learn).
        device: for VGG-19.

    Raises:
        ValueError: for unknown names, a set without key points, or fewer usable (or different) poses than k.

    >>> keypoints = torch.cat([torch.rand(6, 18, 2) * 31, torch.ones(6, 18, 1)], dim=-1)
    >>> people = PersonImages(torch.zeros(6, 3, 64, 32, dtype=torch.uint8), [1] * 6, [1] * 6, keypoints=keypoints)
    >>> found = canonical_poses(people, 2)
    >>> found.pictures.shape, int(found.counts.sum())
    (torch.Size([2, 3, 64, 32]), 6)
    """
    for name, value, accepted in (("mode", mode, MODES), ("features", features, FEATURES)):
        if value not in accepted:
            raise ValueError(f"{name}={value!r}: accepted are {', '.join(map(repr, accepted))}")
    if not train.has("keypoints"):
        raise ValueError("canonical poses need key points, which this set lacks")
    if (features == "vgg19") != (weights is not None):
        raise ValueError(f'features="vgg19" and weights=<path> go together, got features={features!r}, {weights=}')
    every = train.keypoints.cpu()
    used = (poses.visible(every).sum(1) >= min_joints).nonzero().flatten()
    if not 1 <= k <= len(used):
        raise ValueError(f"k must be in [1, {len(used)}] (images with {min_joints} joints and more), got {k}")
    keypoints, size = every[used], train.image_size
    if features == "vgg19":
        found = vgg19_features(keypoints, size, weights, device=device)
        source = f"VGG-19 fc7 ({Path(weights).name})"
    else:
        found, source = skeleton_features(keypoints, size), "skeleton (no weights)"
    labels, medoids = _cluster(found, k, seed)
    joints, pictures = _represent(keypoints, labels, medoids, size, mode)
    clusters = torch.full((len(train),), -1)
    clusters[used] = labels
    counts = labels.bincount(minlength=k)
    return CanonicalPoses(joints, pictures, used[medoids], clusters, counts, found, mode, source)


def skeleton_features(keypoints: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Describe poses without learnt weights: the pose picture, drawn thick and brought to 16x8.

    The skeleton is first moved so that its joints' box lies in the middle, since the place in the crop is no pose. The
    colours carry the facing direction.

    Args:
        keypoints: float32 [B,18,3] in pixels of `image_size`.
        image_size: (height, width).

    Returns:
        float32 [B,384] in [0, 1].
    """
    height, width = image_size
    found = poses.visible(keypoints)[..., None]
    low = keypoints[..., :2].masked_fill(~found, torch.inf).amin(1)
    high = keypoints[..., :2].masked_fill(~found, -torch.inf).amax(1)
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    centred = torch.cat([keypoints[..., :2] - ((low + high) / 2 - middle)[:, None], keypoints[..., 2:]], dim=-1)
    scale = torch.tensor([32 / width, 64 / height, 1.0])
    centred = poses.clear_missing(centred * scale, found[..., 0])
    out = []
    for part in centred.split(256):
        pictures = poses.skeleton_images(part, (64, 32), radius=2.0).float() / 255
        out.append(F.avg_pool2d(pictures, 4).flatten(1))
    return torch.cat(out)


@torch.no_grad()
def vgg19_features(
    keypoints: Tensor, image_size: tuple[int, int], weights: str | Path, *, device: str | torch.device = "cpu"
) -> Tensor:
    """Return fc7 (after its ReLU) of torchvision's VGG-19 for the pose pictures at 224x224: float32 [B,4096].

    Raises:
        FileNotFoundError, ValueError: no such file; a file that does not hold a VGG-19.
    """
    network = _read_vgg19(weights).to(device)
    out = []
    for part in keypoints.split(32):
        pictures = poses.skeleton_images(part, image_size).to(device)
        x = F.interpolate(normalise(pictures), (224, 224), mode="bilinear", antialias=True)
        x = network.avgpool(network.features(x)).flatten(1)
        out.append(network.classifier[:5](x).cpu())
    return torch.cat(out)


def _read_vgg19(weights: str | Path) -> torch.nn.Module:
    from torchvision.models import vgg19

    import reidlib.torchvision_ops  # noqa: F401  before torchvision

    path = resolve(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; give a state dict of torchvision's vgg19")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # 144 million weights need not be drawn only to be replaced
        network = vgg19(weights=None)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no VGG-19 of torchvision: {str(error)[:200]}") from error
    return network.eval()


def _cluster(features: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return each row's cluster, int64 [M], and each cluster's medoid row, int64 [k]; the largest cluster first."""
    from sklearn.cluster import KMeans

    distinct = len(features.unique(dim=0)) if k > 1 else 1
    if distinct < k:
        raise ValueError(f"k={k} clusters need as many different poses, there are {distinct}")
    fitted = KMeans(k, n_init=10, random_state=seed).fit(features.numpy())
    labels = torch.from_numpy(fitted.labels_).long()
    distances = torch.cdist(features, torch.from_numpy(fitted.cluster_centers_))  # [M,k]
    distances = distances.masked_fill(labels[:, None] != torch.arange(k), torch.inf)
    medoids = distances.argmin(0)
    order = sorted(range(k), key=lambda c: (-int((labels == c).sum()), int(medoids[c])))
    place = torch.empty(k, dtype=torch.int64)
    place[order] = torch.arange(k)
    return place[labels], medoids[order]


def _represent(
    keypoints: Tensor, labels: Tensor, medoids: Tensor, image_size: tuple[int, int], mode: str
) -> tuple[Tensor, Tensor]:
    """Return the key points [k,18,3] and the pictures [k,3,H,W] that stand for the clusters."""
    if mode == "medoid":
        return keypoints[medoids], poses.skeleton_images(keypoints[medoids], image_size)
    joints, means = [], []
    for cluster in range(len(medoids)):
        members = keypoints[labels == cluster]
        found = poses.visible(members)[..., None].float()  # [m,18,1]
        place = (members[..., :2] * found).sum(0) / found.sum(0).clamp_min(1)
        joints.append(torch.cat([place, torch.ones(18, 1)], dim=-1))
        joints[-1] = poses.clear_missing(joints[-1], found.mean(0)[:, 0] >= 0.5)
        if mode == "pixel_mean":
            pictures = [poses.skeleton_images(part, image_size).float().sum(0) for part in members.split(256)]
            means.append((sum(pictures) / len(members)).round().to(torch.uint8))
    together = torch.stack(joints)
    return together, torch.stack(means) if means else poses.skeleton_images(together, image_size)
