"""Image quality against scipy, scikit-image and torchvision, with random weights in place of downloaded ones."""

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file
from skimage.metrics import structural_similarity

import reidlib.torchvision_ops  # noqa: F401 - before torchvision

import torch_fidelity.feature_extractor_inceptionv3 as fidelity  # isort: skip
from torchvision.models import alexnet  # isort: skip

from reidlib.datasets import PersonImages
from reidlib.evaluators import image_quality
from reidlib.evaluators.image_quality import diversity, fid, l1, lpips, lpips_net, mask_lpips, silhouette_iou, ssim
from reidlib.machine import peak_memory, watch_memory


def pictures(n, size=(64, 32), seed=0):
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def untrained():
    torch.manual_seed(0)
    return lpips_net(None)


def numbered(*numbers):
    """Images whose first pixel is their number, for features that are looked up."""
    return torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()


def test_fid_of_two_normal_distributions_by_hand():
    """N(0, 1) and N(1, 4), as two points each with just that mean and unbiased variance: 1 + (1 + 4 - 2 * 2) = 2."""
    table = torch.tensor([[-(0.5**0.5)], [0.5**0.5], [1 - 2**0.5], [1 + 2**0.5]], dtype=torch.float64)
    result = fid(numbered(0, 1), numbered(2, 3), features=lambda images: table[images[:, 0, 0, 0].long()], name="table")
    assert result.value == pytest.approx(2)
    assert (result.features, result.dimensions, result.n_real, result.n_generated) == ("table", 1, 2, 2)


def test_fid_equals_scipy_in_chunks_or_whole(rng):
    table = torch.from_numpy(rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + 3).float()
    real, fake = numbered(*range(90)), numbered(*range(90, 200))
    a, b = table[:90].double().numpy(), 2 * table[90:].double().numpy()

    def features(images):
        rows = images[:, 0, 0, 0].long()
        return table[rows] * torch.where(rows < 90, 1, 2)[:, None]

    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    for size in (7, 1000):
        assert fid(real, fake, features=features, batch_size=size).value == pytest.approx(want, rel=1e-6)
    doubles = fid(real, fake, features=lambda images: features(images).double()).value
    assert fid(real, fake, features=features).value == pytest.approx(
        doubles, rel=1e-11
    )  # nothing is rounded to float32
    people = PersonImages(real, [1] * 90, [1] * 90)
    assert fid(people, fake, features=features).value == pytest.approx(want, rel=1e-6)
    assert abs(fid(real, real, features=features).value) < 1e-6


def test_fid_of_few_images_is_finite():
    features = torch.nn.Flatten()
    result = fid(pictures(3, (4, 4)), pictures(3, (4, 4), 1), features=lambda images: features(images.float()))
    assert result.dimensions == 48 and 0 < result.value < float("inf")


def test_fid_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="generated has 1"):
        fid(pictures(2), pictures(1), features=lambda images: images.float().mean((2, 3)))
    with pytest.raises(ValueError, match="float32"):
        fid(pictures(2).float(), pictures(2), features=lambda images: images.mean((2, 3)))
    with pytest.raises(ValueError, match=r"they gave \[2, 3, 64, 32\]"):
        fid(pictures(2), pictures(2), features=lambda images: images)
    with pytest.raises(ValueError, match="the features of 1 images are not finite"):  # else LAPACK ends the process
        fid(pictures(2), pictures(2), features=lambda images: torch.tensor([[1.0, float("nan")], [1.0, 2.0]]))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        fid(pictures(2), pictures(2), features="nowhere.pth")


def test_inception_takes_the_users_file(monkeypatch, tmp_path):
    class Untrained(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            return None

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
    net = Untrained("random", ["2048"])
    torch.save(net.state_dict(), tmp_path / "inception.pth")
    images = pictures(1, (299, 299))  # no resizing, on which the two packages differ
    found = image_quality._inception(tmp_path / "inception.pth", "cpu")(images)
    torch.testing.assert_close(found, net(images)[0])
    assert found.shape == (1, 2048)


@pytest.mark.parametrize("size", [(64, 32), (11, 20)])
def test_ssim_equals_scikit_image(size):
    images = pictures(2, size)
    targets = (images.float() * 0.7 + pictures(2, size, 1).float() * 0.3).to(torch.uint8)
    want = [
        structural_similarity(
            a.permute(1, 2, 0).numpy().astype(float), b.permute(1, 2, 0).numpy().astype(float), channel_axis=2,
            data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(images, targets, strict=True)
    ]  # fmt: skip
    torch.testing.assert_close(ssim(images, targets), torch.tensor(want, dtype=torch.float32), atol=1e-6, rtol=0)


@pytest.mark.parametrize("grey", [0, 128, 254, 255])
def test_ssim_of_equal_flat_pictures_is_1(grey):
    flat = torch.full((1, 3, 32, 16), grey, dtype=torch.uint8)
    assert ssim(flat, flat).tolist() == [1.0]
    brighter = flat.clone()
    brighter[..., ::2, ::2] = 255
    assert ssim(brighter, brighter).tolist() == [1.0]
    other = torch.full_like(flat, 200)  # flat pictures differ in their means alone
    want = (2 * grey * 200 + 2.55**2) / (grey**2 + 200**2 + 2.55**2)
    assert ssim(flat, other).item() == pytest.approx(want, abs=1e-7)


def test_l1_by_hand():
    images = torch.zeros(2, 3, 2, 1, dtype=torch.uint8)
    targets = images.clone()
    targets[1, 0] = 255  # one of three channels is 2 apart in [-1, 1]
    torch.testing.assert_close(l1(images, targets), torch.tensor([0.0, 2 / 3]))


@pytest.mark.parametrize("measure", [ssim, l1, lambda a, b: lpips(a, b, None)])
def test_pairs_must_fit(measure):
    with pytest.raises(ValueError, match=r"\[2, 3, 64, 32\], \[1, 3, 64, 32\]"):
        measure(pictures(2), pictures(1))
    with pytest.raises(ValueError, match="float32"):
        measure(pictures(2).float(), pictures(2))


def test_ssim_names_its_smallest_image():
    with pytest.raises(ValueError, match="got 10x20"):
        ssim(pictures(1, (10, 20)), pictures(1, (10, 20)))


def test_lpips_is_zero_for_equal_images_and_grows_with_noise(untrained):
    images = pictures(3, seed=2)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    distances = [
        lpips(images, (images + s * noise).clamp(0, 255).to(torch.uint8), untrained, batch_size=2) for s in (0, 20, 80)
    ]
    assert (distances[0] == 0).all()
    assert (distances[1] > 0).all() and (distances[2] > distances[1]).all()


def test_mask_lpips_sees_the_mask_only(untrained):
    net, a, b = untrained, pictures(2), pictures(2, seed=1)
    full = torch.full((2, 64, 32), 255, dtype=torch.uint8)
    torch.testing.assert_close(mask_lpips(a, b, full, net), lpips(a, b, net))
    assert (mask_lpips(a, b, 0 * full, net) == 0).all()
    for value, same_as in ((100, 0 * full), (127, 0 * full), (128, full)):  # masks are cut at one half
        assert torch.equal(mask_lpips(a, b, torch.full_like(full, value), net), mask_lpips(a, b, same_as, net))
    upper = full.clone()
    upper[:, 32:] = 0
    c = a.clone()
    c[:, :, 32:] = b[:, :, 32:]  # differs outside the mask only
    assert (mask_lpips(a, c, upper, net) == 0).all() and (lpips(a, c, net) > 0).all()
    with pytest.raises(ValueError, match=r"\[2, 64, 32\]"):
        mask_lpips(a, b, full[:1], net)


def test_lpips_is_its_equation_on_the_users_trunk(tmp_path):
    torch.manual_seed(1)
    trunk = alexnet(weights=None).eval()
    torch.save({name: value for name, value in trunk.state_dict().items() if name.startswith("features")},
               tmp_path / "alexnet.pth")  # fmt: skip
    net, a, b = lpips_net(tmp_path / "alexnet.pth"), pictures(1, (64, 64)), pictures(1, (64, 64), 1)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = torch.cat([a, b]).float() / 127.5 - 1
    x, want = (x - shift[:, None, None]) / scale[:, None, None], 0.0
    weights = iter([layer.model[-1].weight for layer in net.lins])
    for i, layer in enumerate(trunk.features[:12]):
        x = layer(x)
        if i in (1, 4, 7, 9, 11):  # the five ReLUs
            unit = x / x.norm(dim=1, keepdim=True).clamp(min=1e-10)
            want += (next(weights) * (unit[:1] - unit[1:]) ** 2).sum(1).mean()
    torch.testing.assert_close(lpips(a, b, net), want.detach()[None], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "smallest"), [("alex", 31), ("vgg", 16)])
def test_lpips_names_its_smallest_image(name, smallest):
    net = lpips_net(None, net=name)
    for size in ((smallest, 64), (64, smallest)):
        assert lpips(pictures(1, size), pictures(1, size, 1), net).isfinite().all()
    for size in ((smallest - 1, 64), (64, smallest - 1)):
        a, b, masks = pictures(1, size), pictures(1, size, 1), torch.zeros(1, *size, dtype=torch.uint8)
        for measure in (lambda a=a, b=b: lpips(a, b, net), lambda a=a, b=b, m=masks: mask_lpips(a, b, m, net)):
            with pytest.raises(ValueError, match=f"needs {smallest} pixels each way, got {size[0]}x{size[1]}"):
                measure()


def test_weights_are_found_in_the_usual_wrappings_and_named_when_wrong(tmp_path):
    trunk = alexnet(weights=None)
    torch.save({"state_dict": {f"module.{n}": v for n, v in trunk.state_dict().items()}}, tmp_path / "wrapped.pth")
    net = lpips_net(tmp_path / "wrapped.pth")
    assert torch.equal(net.net.slice1[0].weight, trunk.features[0].weight)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        lpips_net(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match=r"wrapped\.pth is not torch-fidelity's file"):
        fid(pictures(2), pictures(2), features=tmp_path / "wrapped.pth")
    torch.save(trunk, tmp_path / "objects.pth")
    for load in (lpips_net, lambda path: fid(pictures(2), pictures(2), features=path)):
        with pytest.raises(ValueError, match=r"objects\.pth cannot be read as plain tensors"):
            load(tmp_path / "objects.pth")


def test_lpips_needs_the_right_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"torchvision's alexnet \(nothing is downloaded\)"):
        lpips_net()
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors does not fit alexnet: slice1\.0\.bias: file nothing"):
        lpips_net(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="squeeze"):
        lpips_net(None, net="squeeze")


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_takes_many_images_in_pieces(window):
    """512 images of 128x64 at once filled 22 GB, and the system killed the notebook."""
    x, y = pictures(130, (128, 64)), pictures(130, (128, 64), seed=1)
    since = watch_memory(torch.device("cpu"))
    before = peak_memory(torch.device("cpu"), since)
    found = ssim(x, y, window=window)
    grown = (peak_memory(torch.device("cpu"), since) or 0) - (before or 0)
    assert grown < 2**29
    one_by_one = torch.cat([ssim(a[None], b[None], window=window) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(found, one_by_one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("noise", [0, 9, 90])
def test_ssim_of_a_uniform_window_is_scikit_images_default(noise):
    x = pictures(3)
    y = (x.float() + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 255).byte()
    pairs = zip(x.numpy(), y.numpy(), strict=True)
    wanted = [structural_similarity(a, b, channel_axis=0, data_range=255) for a, b in pairs]
    assert ssim(x, y, window="uniform").tolist() == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ValueError, match="window must be one of 'gaussian', 'uniform'"):
        ssim(x, y, window="flat")


def test_diversity_compares_one_persons_images_only():
    """Person 1 has two images, so every pair is that one; person 2 has one, and nobody takes no part."""
    x = pictures(5)
    found = diversity(x, torch.tensor([1, 1, 2, -1, -1]), rounds=3, pairs=4)
    similar = structural_similarity(x[0].numpy(), x[1].numpy(), channel_axis=0, data_range=255)
    assert found == pytest.approx((similar, (1 - similar) / 2, 0), abs=1e-6)
    x = torch.cat([x[:1], x[:1], x[1:]])
    pids, ends = torch.tensor([1, 1, 1, 2, -1, -1]), []  # of three pairs of person 1 one is of equal images
    for a, b in ((0, 1), (0, 2)):
        ends.append(structural_similarity(x[a].numpy(), x[b].numpy(), channel_axis=0, data_range=255))
    found = diversity(x, pids, rounds=40, pairs=1)
    assert found.dissimilarity == pytest.approx((1 - sum(ends) / 2) / 2, abs=1e-6)  # the middle of the rounds' range
    assert found.half_range == pytest.approx(abs(ends[0] - ends[1]) / 4, abs=1e-6)
    assert ends[1] < found.ssim < ends[0] and found.ssim != pytest.approx(sum(ends) / 2, abs=1e-3)
    assert diversity(x, pids, rounds=9, pairs=1, seed=1) != diversity(x, pids, rounds=9, pairs=1, seed=2)
    with pytest.raises(ValueError, match="nobody has two images"):
        diversity(x, torch.tensor([1, 2, 3, 4, -1, -1]))
    for given, options in ((pids[:2], {}), (pids.repeat(2), {}), (pids, dict(rounds=0)), (pids, dict(pairs=0))):
        with pytest.raises(ValueError, match="a pid an image, rounds >= 1 and pairs >= 1 are needed"):
            diversity(x, given, **options)


def test_silhouette_is_what_differs_from_the_background():
    scene = pictures(1)[0] // 4
    images, masks = scene.repeat(2, 1, 1, 1), torch.zeros(2, 64, 32, dtype=torch.uint8)
    images[0, 1, 10:20, 5:15] += 150  # one channel is enough
    images[1, :, 40:50, 5:15] += 150
    masks[0, 10:20, 5:15], masks[1, 40:60, 5:15] = 255, 255  # the second mask is twice as large
    assert silhouette_iou(images, masks, scene) == silhouette_iou(images, masks, scene.expand(2, -1, -1, -1)) == 0.75
    assert silhouette_iou(images, masks.roll(1, 0), scene) == 0
    with pytest.raises(ValueError, match=r"of one size are needed, got \[2, 3, 64, 32\], \[1, 64, 32\]"):
        silhouette_iou(images, masks[:1], scene)
    for wrong in (masks > 0, masks / 255):  # nothing of them is above 127
        with pytest.raises(ValueError, match="masks must be uint8 from 0 to 255"):
            silhouette_iou(images, wrong, scene)
