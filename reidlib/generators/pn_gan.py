r"""PN-GAN: a person's image and a pose picture go in, the person in that pose comes out.

Qian et al., "Pose-Normalized Image Generation for Person Re-identification", ECCV 2018, and the released code. With
source image $I_i$, and target image $I_j$ of the same identity, whose pose picture is $P_j$:

$$\hat I_j = G(I_i, P_j), \qquad L_G = L_{GAN} + \lambda_1 L_1, \qquad L_1 = \lVert I_j - \hat I_j \rVert_1$$

Canonical poses are a few poses that stand for all: the paper takes features $f_n$ of all training pose pictures,
K-means with $k = 8$, and the mean pose of each cluster. Its pictures are crisp single skeletons, so the default is the
training pose nearest to each centre (the medoid):

$$\min_{c, \mu} \sum_n \lVert f_n - \mu_{c(n)} \rVert^2, \qquad
m_k = \arg\min_{n : c(n) = k} \lVert f_n - \mu_k \rVert$$
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.datasets import poses
from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import seeded, usable_pairs
from reidlib.generators import blocks, inputs
from reidlib.generators.synthesis import synthesise
from reidlib.losses.adversarial import GAN_LOSSES, adversarial_loss, discriminator_loss, right_answers
from reidlib.losses.perceptual import feature_maps, perceptual_loss, vgg19
from reidlib.networks import Frozen, evaluating, normalise

REAL = ("target", "source")
# Steps of the paper: 20 epochs of the 8,238 batches of 32 that Market-1501's 263,632 pairs make. In the course's few
# minutes a generator under lambda_1 = 10 learns little but to please the discriminator; 100 lets it learn the person.
_COURSE = dict(image_size=(64, 32), units=4, padding=1, lambda_1=100.0, foreground_weight=4.0, lr=1e-3)
PRESETS = {
    "smoke": _COURSE | dict(width=8, units=2, discriminator_width=8, steps=30),
    "course": _COURSE | dict(width=16, discriminator_width=16, steps=950),
    "paper": dict(image_size=(256, 128), width=64, units=9, discriminator_width=64, padding=0, lambda_1=10.0,
                  foreground_weight=1.0, lr=2e-4, steps=20 * 8238),
}  # fmt: skip
PAPER = PRESETS["paper"] | dict(epochs=20, lambda_guide=0.0, guide_shift=0, background="target")


class PNGAN(nn.Module):
    r"""The generator and the discriminator of PN-GAN, and how they are trained.

    $$L_G = L_{GAN}(D(\hat I_j), 1) + \lambda_1 \lVert \hat I_j - I_j \rVert_1, \qquad
    L_D = L_{GAN}(D(\hat I_j), 0) + L_{GAN}(D(I_j), 1)$$

    The printed log loss is "vanilla" (G in the non-saturating form); the released code has "least_squares", the
    default. G steps first, through D as it was; then D on the same generated images.

    Args:
        preset: "smoke", "course" or "paper"; sets the arguments that are None.
        gan_loss: "least_squares" or "vanilla".
        lambda_1: weight of the reconstruction; 10 as published.
        real: what D takes for real: the "target" image (paper) or the "source" image (released code).
        last_epoch_zero: see `lr_factor`.
        image_size: (height, width) it is trained at, multiples of 4.
        width, units: of the generator (64 and 9).  discriminator_width: 64.
        padding: of D's last two layers; 0 as published, which needs 56 pixels each way; 1 fits 64x32.
        steps: length of the training, over which the schedule's `epochs` are spread.
        lr: of both Adams, with betas (0.5, 0.999); 2e-4 as published.
        guide: None as published; a trained re-ID backbone with a `stem` and `stages` (`SmallResNet`, `ResNet50`) adds
            `lambda_guide` times `perceptual_loss` (with `guide_shift`, 0, as its shift) to $L_G$. It is copied, frozen,
            and no part of the state. Train it on the generator's own training identities, or it tells about people that
            the generator must not know.
        foreground_weight: 1 as published; above 1 it is a deviation: pixels of the target's person count so many times
            as much in the reconstruction, $\sum w |\hat I_j - I_j| / \sum w$ (needs masks).
        background: "target" as published; "source" is a deviation: what the picture is to show around the person is the
            source's, see `inputs.wanted_images` (needs masks).

    Attributes:
        settings: every choice above, as a dictionary for the records.
        deviations: those in which the networks or losses differ from the published ones.

    Raises:
        ValueError: for names that are not known and sizes that the networks cannot take.

    >>> method = PNGAN(preset="smoke")
    >>> pose = torch.zeros(2, 3, 64, 32)
    >>> method.generate(torch.zeros(2, 3, 64, 32), pose).shape
    torch.Size([2, 3, 64, 32])
    """

    def __init__(
        self,
        *,
        preset: str = "course",
        gan_loss: str = "least_squares",
        lambda_1: float | None = None,
        real: str = "target",
        last_epoch_zero: bool = False,
        image_size: tuple[int, int] | None = None,
        width: int | None = None,
        units: int | None = None,
        discriminator_width: int | None = None,
        padding: int | None = None,
        steps: int | None = None,
        epochs: int = 20,
        lr: float | None = None,
        foreground_weight: float | None = None,
        guide: nn.Module | None = None,
        lambda_guide: float = 8.0,
        guide_shift: int = 0,
        background: str = "target",
    ) -> None:
        chosen = blocks.choose_preset(PRESETS, locals())
        super().__init__()
        self.settings = chosen | {"lambda_guide": 0.0 if guide is None else lambda_guide}
        check_choice("gan_loss", gan_loss, GAN_LOSSES)
        check_choice("real", real, REAL)
        check_choice("background", background, inputs.BACKGROUNDS)
        self.deviations = blocks.deviations(self.settings, PAPER)
        self._guide = None if guide is None else Frozen(guide)  # no part of the state
        self.G = blocks.ResidualGenerator(6, width=chosen["width"], units=chosen["units"], pn_gan=True)
        options = dict(norm="instance", outer_biases=False, padding=chosen["padding"])
        self.D = blocks.PatchDiscriminator(3, width=chosen["discriminator_width"], **options)
        self.G.check_size(chosen["image_size"])
        self.D.check_size(chosen["image_size"])

    def optimizers(self) -> blocks.Optimizers:
        """Give Adam for "G" and for "D", both with `schedule`."""
        return blocks.adams(self.settings["lr"], self.schedule, G=self.G, D=self.D)

    def schedule(self, step: int) -> float:
        """Return the factor of the learning rate at a step, from 0: `lr_factor` of the epoch that the step lies in."""
        epochs = self.settings["epochs"]
        epoch = min(epochs, 1 + step * epochs // self.settings["steps"])
        return lr_factor(epoch, epochs, last_epoch_zero=self.settings["last_epoch_zero"])

    def training_step(self, batch: Mapping[str, Tensor], step: int, update: blocks.Update) -> dict[str, Tensor]:
        """Take G's step, then D's, on a batch of pairs (`images` and `target_images`, `target_keypoints`).

        Returns:
            "G adversarial", "L1" (unweighted mean over pixels and channels in [-1, 1], by `foreground_weight`),
            "perceptual" (with a guide), "G" (their weighted sum) and "D"; `right_answers` of D.

        Raises:
            ValueError: a batch without pairs or key points, or without masks where `foreground_weight` needs them.
        """
        kind = self.settings["gan_loss"]
        source, target = inputs.pair_images(batch, type(self).__name__, "target_keypoints")
        pose = self._pose(batch["target_keypoints"], target.shape[-2:])
        fake = self.G(torch.cat([source, pose], dim=1)).float()
        terms = {"G adversarial": adversarial_loss(self.D(fake), True, kind)}
        weight, background = self.settings["foreground_weight"], self.settings["background"]
        terms["L1"] = inputs.foreground_l1(fake, batch, weight, background)
        loss = terms["G adversarial"] + self.settings["lambda_1"] * terms["L1"]
        if self._guide is not None:
            wanted, shift = inputs.where_known(fake, batch, background), self.settings["guide_shift"]
            terms["perceptual"] = perceptual_loss(self._guide.on(fake.device), fake, wanted, relative=True, shift=shift)
            loss = loss + self.settings["lambda_guide"] * terms["perceptual"]
        update("G", loss)
        real = target if self.settings["real"] == "target" else source
        scores = self.D(real), self.D(fake.detach())
        d_loss = discriminator_loss(*scores, kind, factor=1.0)
        update("D", d_loss)
        return {**terms, "G": loss, "D": d_loss, **right_answers(*scores, kind)}

    def condition(self, targets: Mapping[str, Tensor], sources: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the pose pictures of a batch's key points, float [B,3,H,W] in [-1, 1].

        A batch without key points whose images are drawn ones (`is_generated`) is taken for pose pictures already.

        Raises:
            ValueError: for photographs without key points.
        """
        if "keypoints" in targets:
            return self._pose(targets["keypoints"], targets["images"].shape[-2:])
        if not bool(targets["is_generated"].all()):
            raise ValueError("the targets have no key points to draw poses from, and are not pose pictures themselves")
        return normalise(targets["images"], "signed")

    @torch.no_grad()
    def generate(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the people of `images` in the poses of `condition`; all float [B,3,H,W] in [-1, 1]."""
        with evaluating(self):
            return self.G(inputs.join_pictures(images, condition)).float()

    def _pose(self, keypoints: Tensor, image_size: tuple[int, int]) -> Tensor:
        return normalise(poses.skeleton_images(keypoints, tuple(image_size)), "signed")


def lr_factor(epoch: int, epochs: int = 20, *, last_epoch_zero: bool = False) -> float:
    r"""Return the factor of the learning rate in an epoch, from 1: constant, then falling in a straight line.

    $$1 - \max(0, e - n/2) / (n/2), \qquad e = \text{epoch} - 1$$

    with $n$ epochs. With `last_epoch_zero`, $e$ = epoch: what the released code does under PyTorch 1.1 and later, where
    the last epoch trains nothing.

    >>> [round(lr_factor(epoch), 1) for epoch in (1, 11, 12, 20)], lr_factor(20, last_epoch_zero=True)
    ([1.0, 1.0, 0.9, 0.1], 0.0)
    """
    if not 1 <= epoch <= epochs:
        raise ValueError(f"epoch must be in [1, {epochs}], got {epoch}")
    constant = epochs // 2
    e = epoch if last_epoch_zero else epoch - 1
    return 1 - max(0, e - constant) / (epochs - constant)


def pn_gan_pairs(train: PersonImages, pairs: str = "all") -> Tensor:
    """List all ordered pairs (source, target) of two images of one identity that both have a pose, int64 [P,2].

    A pose is at least one joint found; the target's is the one that is drawn.

    Args:
        train: with key points.
        pairs: "all" as published, or "same_camera", see `sampling.usable_pairs`.

    Raises:
        ValueError: if the set has no key points; for another name; no pair at all.

    >>> keypoints = torch.ones(3, 18, 3); keypoints[1] = torch.tensor([-1.0, -1.0, 0.0])
    >>> people = PersonImages(torch.zeros(3, 3, 8, 4, dtype=torch.uint8), [7, 7, 7], [1, 2, 3], keypoints=keypoints)
    >>> pn_gan_pairs(people).tolist()
    [[0, 2], [2, 0]]
    """
    if not train.has("keypoints"):
        raise ValueError(
            "PN-GAN needs key points; this set has none (`reidlib annotate` or an annotation file adds them)"
        )
    return usable_pairs(train, poses.visible(train.keypoints).any(dim=1), pairs)


def some_pairs(images: PersonImages, n: int, pairs: str = "all", *, seed: int = 0) -> Tensor:
    """Draw n of `pn_gan_pairs`, without replacement (all of them where there are fewer), int64 [n,2]."""
    found = pn_gan_pairs(images, pairs)
    return found[torch.randperm(len(found), generator=seeded(seed, 4))[:n]]


def in_canonical_poses(
    images: PersonImages, method: nn.Module, targets: PersonImages, **options: object
) -> PersonImages:
    """Draw every image in every target pose: image after image, its poses together.

    Args:
        images: the sources, N of them.
        method: a trained `PNGAN`, or anything that `synthesise` takes.
        targets: K poses, such as `canonical_poses(train).as_images()`.
        options: of `synthesise` (folder, batch_size, precision, progress).

    Returns:
        N K images; row i K + j is image i in pose j.
    """
    pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(targets)))
    return synthesise(method, images, pairs, targets=targets, **options)


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


def canonical_poses(
    train: PersonImages,
    k: int = 8,
    *,
    mode: str = "medoid",
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
        weights: of torchvision's vgg19, a state dict (.pth or .safetensors): poses are then described by its fc7 (a
            reading of the paper, which names no layer). None: by `skeleton_features`.
        min_joints: images with fewer joints found take no part.
        seed: of K-means (10 restarts, scikit-learn).
        device: for VGG-19.

    Raises:
        FileNotFoundError, ValueError: see `vgg19_features`.
        ValueError: for an unknown mode, a set without key points, or fewer usable (or different) poses than k.

    >>> keypoints = torch.cat([torch.rand(6, 18, 2) * 31, torch.ones(6, 18, 1)], dim=-1)
    >>> people = PersonImages(torch.zeros(6, 3, 64, 32, dtype=torch.uint8), [1] * 6, [1] * 6, keypoints=keypoints)
    >>> found = canonical_poses(people, 2)
    >>> found.pictures.shape, int(found.counts.sum())
    (torch.Size([2, 3, 64, 32]), 6)
    """
    check_choice("mode", mode, MODES)
    if not train.has("keypoints"):
        raise ValueError("canonical poses need key points, which this set lacks")
    every = train.keypoints.cpu()
    used = (poses.visible(every).sum(1) >= min_joints).nonzero().flatten()
    if not 1 <= k <= len(used):
        raise ValueError(f"k must be in [1, {len(used)}] (images with {min_joints} joints and more), got {k}")
    keypoints, size = every[used], train.image_size
    if weights is None:
        found, source = skeleton_features(keypoints, size), "skeleton (no weights)"
    else:
        found, source = vgg19_features(keypoints, size, weights, device=device), f"VGG-19 fc7 ({Path(weights).name})"
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
    drawn = (poses.skeleton_images(part, (64, 32), radius=2.0).float() / 255 for part in centred.split(256))
    return torch.cat([F.avg_pool2d(pictures, 4).flatten(1) for pictures in drawn])


@torch.no_grad()
def vgg19_features(
    keypoints: Tensor, image_size: tuple[int, int], weights: str | Path, *, device: str | torch.device = "cpu"
) -> Tensor:
    """Return fc7 (after its ReLU) of torchvision's VGG-19 for the pose pictures at 224x224: float32 [B,4096].

    Raises:
        FileNotFoundError, ValueError: no such file; a file that does not hold a VGG-19.
    """
    network, out = vgg19(weights).to(device), []
    for part in keypoints.split(32):
        pictures = poses.skeleton_images(part, image_size).to(device)
        x = F.interpolate(normalise(pictures), (224, 224), mode="bilinear", antialias=True)
        out.append(feature_maps(network, x, ["fc7"])["fc7"].cpu())
    return torch.cat(out)


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
    return torch.tensor(order).argsort()[labels], medoids[order]


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
        place = torch.cat([place, torch.ones(18, 1)], dim=-1)
        joints.append(poses.clear_missing(place, found.mean(0)[:, 0] >= 0.5))
        if mode == "pixel_mean":
            pictures = [poses.skeleton_images(part, image_size).float().sum(0) for part in members.split(256)]
            means.append((sum(pictures) / len(members)).round().to(torch.uint8))
    together = torch.stack(joints)
    return together, torch.stack(means) if means else poses.skeleton_images(together, image_size)
