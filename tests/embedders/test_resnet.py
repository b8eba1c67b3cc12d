"""Shapes, the neck, strides and where weights come from."""

import pytest
import torch
from safetensors.torch import save_file

from reidlib.embedders import Embedder, ResNet50
from reidlib.networks import SmallResNet


@pytest.fixture(scope="module")
def weights():
    return ResNet50(weights=None)


@pytest.mark.parametrize("size", [(64, 32), (128, 64), (50, 30)])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_small_network_maps(size, last_stride):
    net = SmallResNet(8, last_stride).eval()
    step = 8 * last_stride
    assert net(torch.zeros(1, 3, *size)).shape == (1, 64, -(-size[0] // step), -(-size[1] // step))


def test_resnet50_strides():
    image = torch.zeros(1, 3, 64, 32)
    for last_stride, size in ((2, (2, 1)), (1, (4, 2))):
        net = ResNet50(last_stride, weights=None).eval()
        assert net(image).shape == (1, 2048, *size)
        assert net.weights_source == "random"


def test_resnet50_equals_torchvision():
    from torchvision.models import resnet50

    import reidlib.torchvision_ops  # noqa: F401

    theirs = resnet50(weights=None).eval()
    ours = ResNet50(weights=None).eval()
    theirs.fc = torch.nn.Identity()
    names = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(names)
    image = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(image).mean((2, 3)), theirs(image))


@pytest.mark.parametrize("kind", ["pth", "safetensors", "cache"])
def test_weights_from_a_file_or_the_cache(tmp_path, monkeypatch, kind):
    from torchvision.models import resnet50

    import reidlib.torchvision_ops  # noqa: F401

    state = resnet50(weights=None).state_dict()
    state["bn1.bias"] = torch.full((64,), 0.25)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert ResNet50().weights_source == "random"  # nothing in the cache: from scratch, and said so
    if kind == "safetensors":
        save_file(state, path := tmp_path / "mine.safetensors")
    else:
        path = tmp_path / ("mine.pth" if kind == "pth" else "checkpoints/resnet50-0676ba61.pth")
        path.parent.mkdir(exist_ok=True)
        torch.save(state, path)
    net = ResNet50(weights="auto" if kind == "cache" else path)
    assert (net.stem[1].bias == 0.25).all()
    assert net.weights_source == ("ImageNet (resnet50-0676ba61.pth)" if kind == "cache" else path.name)
    assert Embedder(3, backbone="resnet50", weights=path).weights_source == path.name


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere\.pth"):
        ResNet50(weights=tmp_path / "nowhere.pth")
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no ResNet-50: missing"):
        ResNet50(weights=tmp_path / "other.safetensors")


def test_the_neck():
    net = Embedder(5, width=8, bnneck=True)
    assert net.classifier.bias is None and not net.neck.bias.requires_grad
    assert net.classifier.weight.std().item() == pytest.approx(0.001, rel=0.3)
    pooled, neck, logits = net(torch.randn(16, 3, 64, 32))
    torch.testing.assert_close(neck.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, neck @ net.classifier.weight.T)
    plain = Embedder(5, width=8)
    pooled, neck, _ = plain(torch.randn(4, 3, 64, 32))
    assert torch.equal(pooled, neck) and plain.classifier.bias is not None


def test_dropout_only_in_training():
    net = Embedder(5, width=8, dropout=0.5)
    image = torch.randn(8, 3, 64, 32)
    net.classifier.weight.data.normal_()
    assert not torch.equal(net(image)[2], net(image)[2])
    net.eval()
    assert torch.equal(net(image)[2], net(image)[2])


def test_mixed_precision_gives_float32():
    net = Embedder(5, width=8, bnneck=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert {x.dtype for x in net(torch.randn(4, 3, 64, 32))} == {torch.float32}


@pytest.mark.parametrize("options", [dict(backbone="vgg"), dict(last_stride=3), dict(n_classes=0)])
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match=r"backbone|n_classes"):
        Embedder(**dict(n_classes=2) | options)
