r"""How good generated images are: FID through a feature net that is named, SSIM, L1, LPIPS and mask-LPIPS.

All take uint8 images [B, 3, H, W]. No weights are downloaded: FID takes any feature function, or the user's own file
of Inception weights; LPIPS needs the user's file of its trunk's weights (the linear weights come with the package).
This module imports torchvision, so `reidlib.evaluators` does not import it.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from skimage.filters import threshold_otsu
from torch import Tensor, nn

import reidlib.torchvision_ops  # noqa: F401 - before torchvision

from lpips import LPIPS  # isort: skip
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3  # isort: skip

from reidlib.checks import check_choice
from reidlib.datasets import PersonImages
from reidlib.files import resolve
from reidlib.networks import check_images, device_of, load_state, normalise, read_weights

Features = Callable[[Tensor], Tensor]
TRUNKS = {"alex": ("alexnet", 31), "vgg": ("vgg16", 16)}  # LPIPS's name -> torchvision's, smallest side in pixels


class FID(NamedTuple):
    """A Fréchet distance and what it was measured by: FIDs through different features cannot be compared.

    >>> print(FID(12.3456, "judges' looks", 160, 2304, 500))
    FID 12.35 (judges' looks, 160-d, 2304 real and 500 generated images)
    """

    value: float
    features: str
    dimensions: int
    n_real: int
    n_generated: int

    def __str__(self) -> str:
        counts = f"{self.n_real} real and {self.n_generated} generated images"
        return f"FID {self.value:.4g} ({self.features}, {self.dimensions}-d, {counts})"


class _Named(nn.Module):
    """A feature function in the form that torchmetrics takes, in double precision."""

    def __init__(self, features: Features, dimensions: int) -> None:
        super().__init__()
        self.features, self.num_features = features, dimensions

    def forward(self, images: Tensor) -> Tensor:
        found = self.features(images).double().cpu()
        if not found.isfinite().all():  # the eigenvalues of such a covariance kill the process
            raise ValueError(f"the features of {int((~found.isfinite()).any(1).sum())} images are not finite")
        return found


@torch.no_grad()
def fid(
    real: Tensor | PersonImages,
    generated: Tensor | PersonImages,
    *,
    features: Features | str | Path,
    name: str | None = None,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> FID:
    r"""Return the Fréchet distance between two sets of images, each taken as a Gaussian of its features.

    $$d^2 = \lVert \mu_1 - \mu_2 \rVert^2 + \mathrm{Tr}\big(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2}\big)$$

    with the unbiased covariances; 0 and more, lower is better (rounding may give a little less than 0). Heusel et al.,
    "GANs Trained by a Two Time-Scale Update Rule", 2017, Eq. 6. The computation is torchmetrics'.

    With no more images than feature dimensions a covariance has not full rank: the number still comes, but it grows as
    images get fewer, so compare only sets of equal size. Published numbers use Inception's 2048 pooled features and ten
    thousand images and more.

    Args:
        real, generated: uint8 [N, 3, H, W], two images at least, or `PersonImages`.
        features: uint8 images [B, 3, H, W] -> [B, D], as `Judges.looks`, which sees to its own device; or the path of
            torch-fidelity's Inception weights (pt_inception-2015-12-05-6726825d.pth): 2048 features of images enlarged
            to 299x299.
        name: of the features, for the result; default the function's or the file's own.
        batch_size: images at a time.
        device: where Inception works.

    Raises:
        ValueError: images that are not uint8 [N, 3, H, W], fewer than two of them, features that are not [B, D], or a
            file of other weights.
        FileNotFoundError: no weights at the path.

    >>> mean_colour = lambda images: images.float().mean((2, 3))
    >>> black, grey = (torch.full((4, 3, 8, 4), value, dtype=torch.uint8) for value in (0, 10))
    >>> fid(black, grey, features=mean_colour, name="mean colour").value          # 3 channels, 10 apart each
    300.0
    """
    for what, images in (("real", real), ("generated", generated)):
        if len(images) < 2:
            raise ValueError(f"a covariance needs two images at least, {what} has {len(images)}")
    if not callable(features):
        name = name or f"Inception-v3, {Path(features).name}"
        features = _inception(features, device)
    probe = features(next(_chunks(real, 2)))
    if probe.dim() != 2 or len(probe) != 2:
        raise ValueError(f"features must give [B, D] for B images; for 2 images they gave {list(probe.shape)}")
    metric = FrechetInceptionDistance(_Named(features, probe.shape[1]))
    for images, is_real in ((real, True), (generated, False)):
        for chunk in _chunks(images, batch_size):
            metric.update(chunk, real=is_real)
    name = name or getattr(features, "__qualname__", type(features).__name__)
    return FID(metric.compute().item(), name, probe.shape[1], len(real), len(generated))


def ssim(images: Tensor, targets: Tensor, *, window: str = "gaussian") -> Tensor:
    r"""Return the structural similarity of each image with its target, float32 [B], at most 1, higher is better.

    $$\text{SSIM} = \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
      {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}$$

    averaged over places and colour channels: Gaussian window of 11x11 with deviation 1.5, population covariances,
    $C_1 = (0.01 \cdot 255)^2$, $C_2 = (0.03 \cdot 255)^2$, borders of 5 pixels left out. Wang et al., "Image Quality
    Assessment", 2004, Eq. 13, computed in float64. Some pose-transfer code takes the range of each image instead of
    255; its numbers differ.

    Args:
        images, targets: uint8 [B, 3, H, W], 11 pixels each way and more.
        window: "gaussian" as above, or "uniform": 7x7 pixels of equal weight, sample covariances, borders of 3 pixels
            left out, which is the default of scikit-image and so what many papers report.

    Raises:
        ValueError: other types or shapes, or images smaller than the window.

    >>> images = torch.randint(0, 255, (2, 3, 16, 16), dtype=torch.uint8)
    >>> ssim(images, images).tolist()
    [1.0, 1.0]
    """
    _check_pair(images, targets)
    check_choice("window", window, ("gaussian", "uniform"))
    if min(images.shape[2:]) < 11:
        raise ValueError(f"SSIM's window needs 11 pixels each way, got {images.shape[2]}x{images.shape[3]}")
    taps = torch.full((7,), 1 / 7, dtype=torch.float64)
    if window == "gaussian":
        taps = torch.exp(-(torch.arange(-5.0, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    bands = [_band(taps / taps.sum(), side).to(images.device) for side in images.shape[2:]]
    sample = 49 / 48 if window == "uniform" else 1.0
    rows = max(1, 2**19 // (images.shape[2] * images.shape[3]))  # some ten float64 maps of so many pixels at a time
    parts = zip(images.split(rows), targets.split(rows), strict=True)
    return torch.cat([_similar(x.double(), y.double(), *bands, sample) for x, y in parts])


def _band(taps: Tensor, side: int) -> Tensor:
    """Return the matrix [side - K + 1, side] that moves a window of K taps along a side."""
    return torch.stack([F.pad(taps, (k, side - len(taps) - k)) for k in range(side - len(taps) + 1)])


def _similar(x: Tensor, y: Tensor, down: Tensor, across: Tensor, sample: float) -> Tensor:
    """Return the mean SSIM of float64 images [B, 3, H, W] over the places that the whole window reaches."""
    mx, my, mxx, myy, mxy = (down @ each @ across.T for each in (x, y, x * x, y * y, x * y))
    vx, vy, vxy = (sample * each for each in (mxx - mx * mx, myy - my * my, mxy - mx * my))
    c1, c2 = 2.55**2, 7.65**2
    places = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return places.mean((1, 2, 3)).float()


class Diversity(NamedTuple):
    """Of pairs of one person's images: mean SSIM, mean dissimilarity (1 - SSIM) / 2, and half its range over rounds."""

    ssim: float
    dissimilarity: float
    half_range: float


def diversity(images: Tensor, pids: Tensor, *, rounds: int = 5, pairs: int = 10, seed: int = 0) -> Diversity:
    r"""Return how different the images of one person are, $(1 - \text{SSIM}) / 2$, as DG-Net measures its pictures.

    In each round every person gives `pairs` random pairs of two different images; the reported number is the middle
    between the lowest and the highest round's mean. SSIM is that of `window="uniform"`. In [0, 1], higher is more
    diverse, and noise is diverse too.

    Args:
        images: uint8 [N, 3, H, W].
        pids: int64 [N]; people with a single image, and images without a person (pid < 0), are left out.
        rounds, pairs: see above.
        seed: of the draw.

    Raises:
        ValueError: no person with two images, another number of pids than of images, no round or no pair.

    >>> same = torch.full((4, 3, 16, 16), 9, dtype=torch.uint8)
    >>> diversity(same, torch.tensor([1, 1, 2, 2]))
    Diversity(ssim=1.0, dissimilarity=0.0, half_range=0.0)
    """
    if pids.shape != (len(images),) or min(rounds, pairs) < 1:
        given = f"pids {list(pids.shape)} for {len(images)} images, rounds={rounds}, pairs={pairs}"
        raise ValueError(f"a pid an image, rounds >= 1 and pairs >= 1 are needed, got {given}")
    groups = [(pids == pid).nonzero()[:, 0] for pid in pids[pids >= 0].unique()]
    groups, draw = [rows for rows in groups if len(rows) > 1], torch.Generator().manual_seed(seed)
    if not groups:
        raise ValueError(f"nobody has two images to compare: {len(pids)} images of {len(pids.unique())} people")
    means = []
    for _ in range(rounds):
        drawn = [rows[torch.randperm(len(rows), generator=draw)[:2]] for rows in groups for _ in range(pairs)]
        similar = [ssim(*images[some.T], window="uniform") for some in torch.stack(drawn).split(256)]
        means.append(torch.cat(similar).double().mean().item())
    low, high = min(means), max(means)
    return Diversity(sum(means) / rounds, (1 - (low + high) / 2) / 2, (high - low) / 4)


def silhouette_iou(images: Tensor, masks: Tensor, backgrounds: Tensor) -> float:
    """Return how well the person in each picture covers the wanted mask: mean intersection over union, in [0, 1].

    The person is where a picture differs from a background by more than Otsu's threshold, one for all pictures (the
    largest difference of the three channels counts). It is a rough cut: compare it with the same number of real images.

    Args:
        images: uint8 [B, 3, H, W].
        masks: uint8 [B, H, W] from 0 to 255, where the person should be.
        backgrounds: uint8 or float (0..255), [B, 3, H, W] or [3, H, W], such as `backgrounds.mean_background`.

    Raises:
        ValueError: shapes that do not fit, masks of another type.

    >>> picture = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    >>> picture[..., 0, :] = 200
    >>> silhouette_iou(picture, torch.tensor([[[255, 0], [0, 0]]], dtype=torch.uint8), torch.zeros(3, 2, 2))
    0.5
    """
    check_images(images)
    if masks.shape != (len(images), *images.shape[2:]) or backgrounds.shape[-3:] != images.shape[1:]:
        shapes = f"{list(images.shape)}, {list(masks.shape)}, {list(backgrounds.shape)}"
        raise ValueError(f"images [B,3,H,W], masks [B,H,W] and backgrounds of one size are needed, got {shapes}")
    if masks.dtype != torch.uint8:
        raise ValueError(f"masks must be uint8 from 0 to 255, got {masks.dtype}")
    difference = (images.float() - backgrounds).abs().amax(1)
    person, wanted = difference > float(threshold_otsu(difference.flatten().cpu().numpy())), masks > 127
    both, either = ((person & wanted).sum((1, 2)), (person | wanted).sum((1, 2)))
    return (both / either.clamp(min=1)).double().mean().item()


def l1(images: Tensor, targets: Tensor) -> Tensor:
    r"""Return the mean absolute difference of each image from its target, float32 [B], in units of [-1, 1].

    $$L_1 = \frac{1}{3HW} \sum \lvert x - y \rvert, \qquad x, y \in [-1, 1]$$

    from 0 (equal) to 2 (black against white); a grey level is 2/255.

    Args:
        images, targets: uint8 [B, 3, H, W].

    >>> l1(torch.full((1, 3, 4, 2), 255, dtype=torch.uint8), torch.zeros(1, 3, 4, 2, dtype=torch.uint8)).tolist()
    [2.0]
    """
    _check_pair(images, targets)
    return (images.float() - targets.float()).abs().mean((1, 2, 3)) / 127.5


def lpips_net(trunk: str | Path | None = "auto", *, net: str = "alex", device: str | torch.device = "cpu") -> LPIPS:
    """Build LPIPS 0.1: a trunk with your weights, and the learnt linear weights of the package `lpips`.

    Args:
        trunk: path of a state dict (.pth or .safetensors) of torchvision's AlexNet or VGG-16; "auto" looks for one in
            torchvision's cache. None leaves random weights, which measure nothing people would agree with: for tests.
        net: "alex" or "vgg".
        device: where it works.

    Raises:
        FileNotFoundError: there are no weights there.
        ValueError: an unknown net, or a file of another network.
    """
    check_choice("net", net, TRUNKS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pretrained.*|.*weight enum.*")  # lpips calls torchvision's old way
        model = LPIPS(net=net, pnet_rand=True, verbose=False)
    if trunk is not None:
        _load_trunk(model, trunk, TRUNKS[net][0])
    return model.to(device).eval().requires_grad_(False)


def lpips(images: Tensor, targets: Tensor, net: LPIPS, *, batch_size: int = 64) -> Tensor:
    r"""Return the learnt perceptual distance of each image from its target, float32 [B], 0 and more, lower is better.

    $$d(x, y) = \sum_l \frac{1}{H_l W_l} \sum_{h,w} \lVert w_l \odot (\hat x^l_{hw} - \hat y^l_{hw}) \rVert_2^2$$

    with the trunk's features $\hat x^l$ scaled to length 1 at each place and the learnt weights $w_l$. Zhang et al.,
    "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, Eq. 1. Images go in as [-1, 1].

    Args:
        images, targets: uint8 [B, 3, H, W]; AlexNet needs 31 pixels each way, VGG-16 needs 16.
        net: see `lpips_net`.
        batch_size: pairs at a time.

    Raises:
        ValueError: other types or shapes, or images that are too small for the trunk.
    """
    return _lpips(images, targets, None, net, batch_size)


def mask_lpips(images: Tensor, targets: Tensor, masks: Tensor, net: LPIPS, *, batch_size: int = 64) -> Tensor:
    """Return the LPIPS of images and targets that are both multiplied by the target's mask in [-1, 1], float32 [B].

    Masks are cut at one half. What lies outside becomes 0, mid-grey. As in the evaluation of Ren et al., "Deep Image
    Spatial Transformation for Person Image Generation", 2020, whose masks come from key points.

    Args:
        images, targets: uint8 [B, 3, H, W].
        masks: uint8 [B, H, W] from 0 to 255, of the targets.
        net: see `lpips_net`.
        batch_size: pairs at a time.

    Raises:
        ValueError: as `lpips`, or masks of another type or shape.
    """
    return _lpips(images, targets, masks, net, batch_size)


@torch.no_grad()
def _lpips(images: Tensor, targets: Tensor, masks: Tensor | None, net: LPIPS, batch_size: int) -> Tensor:
    _check_pair(images, targets)
    accepted = [len(images), *images.shape[2:]]
    if masks is not None and (masks.dtype != torch.uint8 or list(masks.shape) != accepted):
        raise ValueError(f"masks must be uint8 {accepted}, got {masks.dtype} {list(masks.shape)}")
    trunk, smallest = TRUNKS[net.pnet_type]
    if min(images.shape[2:]) < smallest:
        height, width = images.shape[2:]
        raise ValueError(f"LPIPS's {trunk} needs {smallest} pixels each way, got {height}x{width}: enlarge both images")
    device = device_of(net)
    found = []
    for rows in torch.arange(len(images)).split(batch_size):
        pair = [normalise(each[rows].to(device), "signed") for each in (images, targets)]
        if masks is not None:
            mask = (masks[rows, None] > 127).to(device)
            pair = [each * mask for each in pair]
        found.append(net(*pair).flatten().float().cpu())
    return torch.cat(found)


def _load_trunk(model: LPIPS, trunk: str | Path, name: str) -> None:
    """Copy torchvision's `features.<i>.<...>` to LPIPS's `slice<k>.<i>.<...>`."""
    if trunk == "auto":
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        trunk = next(iter(sorted(folder.glob(f"{name}-*.pth"))), None)
        if trunk is None:
            raise FileNotFoundError(f"no file of torchvision's {name} (nothing is downloaded) in {folder}: give a path")
    state = read_weights(trunk)
    wanted = {key: f"features.{key.partition('.')[2]}" for key in model.net.state_dict()}
    load_state(model.net, {key: state[old] for key, old in wanted.items() if old in state}, str(trunk))


def _inception(path: str | Path, device: str | torch.device) -> Features:
    """Return the 2048 pooled features of torch-fidelity's Inception with the user's weights."""
    file = resolve(path)
    read_weights(file)  # refuses a file with code in it; torch-fidelity would not
    try:
        net = NoTrainInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)).to(device)
    except Exception as error:  # of its own torch.load and load_state_dict
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is not torch-fidelity's file of Inception weights: {reason}") from error
    return lambda images: net(images.to(device))


def _chunks(images: Tensor | PersonImages, size: int) -> Iterator[Tensor]:
    for rows in torch.arange(len(images)).split(size):
        chunk = images.batch(rows)["images"] if isinstance(images, PersonImages) else images[rows]
        check_images(chunk)
        yield chunk


def _check_pair(images: Tensor, targets: Tensor) -> None:
    check_images(images)
    check_images(targets)
    if images.shape != targets.shape or not len(images):
        shapes = f"{list(images.shape)}, {list(targets.shape)}"
        raise ValueError(f"images and targets must be of one shape and not empty, got {shapes}")
