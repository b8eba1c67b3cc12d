"""Feature maps by name and the losses on them: a VGG-19 from a file, a backbone of our own, the sheet's toy numbers."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reidlib.losses import feature_maps, perceptual_loss, vgg19
from reidlib.losses.perceptual import layers_of
from reidlib.networks import SmallResNet, save_weights, signed_to_imagenet

from torchvision import models  # isort: skip - after the shim


class Identity(nn.Module):
    """A backbone that sees its input: one stage, nothing changed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stages = nn.Identity(), nn.Sequential(nn.Identity())


def pictures(n: int = 2, size: tuple[int, int] = (64, 32), seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """A VGG-19 of random numbers; the dense layers of 144 million are drawn short and repeated."""
    with torch.device("meta"):
        network = models.vgg19(weights=None)
    g, state = torch.Generator().manual_seed(0), {}
    for name, tensor in network.state_dict().items():
        one = torch.randn(4096, generator=g) * ((2 / tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else 0.1)
        state[name] = one.repeat(-(-tensor.numel() // 4096))[: tensor.numel()].view(tensor.shape)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    return path


def test_vgg_maps_by_name_are_what_the_published_stack_gives(vgg_file):
    network, x = vgg19(vgg_file), signed_to_imagenet(pictures())
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    names = list(layers_of(network))
    assert names[:5] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    assert names[-6:] == ["relu5_4", "pool5", "flat", "fc6", "fc7", "fc8"] and len(names) == 41
    found = feature_maps(network, x, ["relu1_2", "conv1_2", "conv4_2", "fc7"])
    f = network.features
    conv1_2 = f[2](F.relu(f[0](x)))
    torch.testing.assert_close(found["conv1_2"], conv1_2)  # the ReLU behind it works in place in torchvision
    torch.testing.assert_close(found["relu1_2"], F.relu(conv1_2))  # index 3 of the stack
    assert (found["conv1_2"] < 0).any()
    torch.testing.assert_close(found["conv4_2"], f[:22](x))
    dense = network.classifier(network.avgpool(f(x)).flatten(1))
    assert found["fc7"].shape == (2, 4096) and found["fc7"].min() == 0
    torch.testing.assert_close(feature_maps(network, x, ["fc8"])["fc8"], dense)
    assert set(feature_maps(network, x, ["pool1"])) == {"pool1"}


def test_a_file_of_another_network_is_refused(tmp_path):
    path = save_weights(SmallResNet(8), tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"small\.safetensors does not fit VGG"):
        vgg19(path)


def test_vgg_default_layer_is_relu1_2(vgg_file):
    network, (a, b) = vgg19(vgg_file), (pictures(seed=1), pictures(seed=2))
    maps = [feature_maps(network, signed_to_imagenet(x), ["relu1_2"])["relu1_2"] for x in (a, b)]
    torch.testing.assert_close(perceptual_loss(network, a, b), (maps[0] - maps[1]).abs().mean())
    torch.testing.assert_close(perceptual_loss(network, a, b, p=2), (maps[0] - maps[1]).square().mean())


def test_9_half_a_unit_everywhere_costs_a_quarter_or_a_half():
    """Acceptance check 9 of the semantic attention sheet: I + 0.5 in normalised space, p = 2 and 1."""
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    target = torch.zeros(1, 3, 8, 4)
    generated = target + 0.5 * 2 * deviation
    assert perceptual_loss(Identity(), generated, target, p=2).item() == pytest.approx(0.25)
    assert perceptual_loss(Identity(), generated, target, p=1).item() == pytest.approx(0.5)
    size = signed_to_imagenet(target).abs().mean()
    assert perceptual_loss(Identity(), generated, target, relative=True).item() == pytest.approx(0.5 / size.item())


def test_stages_of_a_backbone_and_where_gradients_go():
    torch.manual_seed(0)
    network = SmallResNet(8).eval().requires_grad_(False)
    generated, target = pictures(seed=1).requires_grad_(), pictures(seed=2).requires_grad_()
    loss = perceptual_loss(network, generated, target)
    x, y = (network.stem(signed_to_imagenet(images)) for images in (generated, target))
    apart = []
    for stage in network.stages:
        x, y = stage(x), stage(y)
        apart.append((x - y).abs().mean())
    torch.testing.assert_close(loss, sum(apart) / 4)
    torch.testing.assert_close(perceptual_loss(network, generated, target, layers=["stage3"]), apart[2])
    loss.backward()
    assert generated.grad.abs().sum() > 0 and target.grad is None


def test_a_shift_compares_what_is_left_of_both_images_and_moves_the_pixel_grid():
    torch.manual_seed(0)
    network, images = SmallResNet(4).eval(), torch.rand(2, 1, 3, 16, 12) * 2 - 1
    cuts = {(y, x): perceptual_loss(network, *images[..., y:, x:]).item() for y in range(3) for x in range(3)}
    found = {perceptual_loss(network, *images, shift=2).item() for _ in range(100)}
    assert found == set(cuts.values()) and len(found) == 9  # nothing else, and every one
    state = torch.random.get_rng_state()
    assert perceptual_loss(network, *images).item() == cuts[0, 0]
    assert torch.equal(torch.random.get_rng_state(), state)  # without a shift nothing is drawn
    for shift in (-1, 12):
        with pytest.raises(ValueError, match=f"0 <= shift < 12 is accepted for these images, got shift={shift}"):
            perceptual_loss(network, *images, shift=shift)


def test_bad_input():
    network, x = SmallResNet(8).eval(), pictures()
    with pytest.raises(ValueError, match=r"layer must be one of 'stem', 'stage1', .*; got 'relu1_2'"):
        feature_maps(network, x, ["relu1_2"])
    with pytest.raises(ValueError, match="p must be one of 1, 2; got 3"):
        perceptual_loss(network, x, x, p=3)
    with pytest.raises(ValueError, match=r"one shape are compared, got \[2, 3, 64, 32\], \[1, 3, 64, 32\]"):
        perceptual_loss(network, x, x[:1])
    with pytest.raises(TypeError, match="a VGG, or a network with a stem and stages; got Linear"):
        layers_of(nn.Linear(2, 1))


@pytest.mark.parametrize("first", ["reidlib.losses.perceptual", "reidlib.losses", "reidlib.generators.pn_gan"])
def test_torchvision_comes_after_its_shim_in_a_fresh_interpreter(first):
    code = f"import {first}; from reidlib.losses.perceptual import vgg19; vgg19('no_such_file.pth')"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stderr.strip().splitlines()[-1].startswith("FileNotFoundError: no weights at")
