r"""Compare images by what a trained network sees in them: its feature maps, by the names of its layers.

VGG-19 with ImageNet weights is the usual judge; its weights come from the user's own file. Any of this library's
backbones (a `stem` and `stages`) serves as well, without a download.
"""

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import reidlib.torchvision_ops  # noqa: F401 - before torchvision
from reidlib.checks import check_choice
from reidlib.networks import load_state, read_weights, signed_to_imagenet


def vgg19(weights: str | os.PathLike) -> nn.Module:
    """Return torchvision's VGG-19 with the weights of a file, in evaluation mode and without gradients.

    Args:
        weights: its state dict, .pth or .safetensors.

    Raises:
        FileNotFoundError, ValueError: see `networks.read_weights`; weights of another network.
    """
    from torchvision import models

    with torch.device("meta"):  # 144 million weights need not be drawn only to be replaced
        network = models.vgg19(weights=None)
    load_state(network, read_weights(weights), str(weights), assign=True)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # or "conv1_2" would show what "relu1_2" made of it
    return network.eval().requires_grad_(False)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Name a network's layers, in order; each takes what the one before it gives.

    A VGG has conv1_1, relu1_1, conv1_2, ..., pool5, flat, fc6, fc7 (both after their ReLU) and fc8, a backbone of this
    library stem, stage1, stage2 and so on.

    Raises:
        TypeError: a network of another kind.

    >>> from reidlib.networks import SmallResNet
    >>> list(layers_of(SmallResNet(8)))
    ['stem', 'stage1', 'stage2', 'stage3', 'stage4']
    """
    if hasattr(network, "stem") and hasattr(network, "stages"):
        return {"stem": network.stem} | {f"stage{i + 1}": stage for i, stage in enumerate(network.stages)}
    if not all(hasattr(network, part) for part in ("features", "avgpool", "classifier")):
        raise TypeError(f"feature maps need a VGG, or a network with a stem and stages; got {type(network).__name__}")
    named, block, place = {}, 1, 0
    for module in network.features:
        place += isinstance(module, nn.Conv2d)
        if isinstance(module, nn.MaxPool2d):
            named[f"pool{block}"] = module
            block, place = block + 1, 0
        else:
            named[f"{'conv' if isinstance(module, nn.Conv2d) else 'relu'}{block}_{place}"] = module
    dense = network.classifier
    tail = {"fc6": dense[:2], "fc7": dense[2:5], "fc8": dense[5:]}
    return named | {"flat": nn.Sequential(network.avgpool, nn.Flatten())} | tail


def feature_maps(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return the outputs of some layers, float32, by name; what lies behind the last of them is not computed.

    Args:
        network: see `layers_of`.
        images: float [B,3,H,W] as the network takes them (ImageNet-normalised).
        layers: names.

    Raises:
        ValueError: a layer that the network has not.

    >>> from reidlib.networks import SmallResNet
    >>> maps = feature_maps(SmallResNet(8).eval(), torch.zeros(1, 3, 64, 32), ["stage2"])
    >>> maps["stage2"].shape
    torch.Size([1, 16, 16, 8])
    """
    known, found = layers_of(network), {}
    for name in layers:
        check_choice("layer", name, known)
    x = images
    for name, module in known.items():
        if len(found) == len(set(layers)):
            break
        x = module(x)
        if name in layers:
            found[name] = x
    return {name: maps.float() for name, maps in found.items()}


def perceptual_loss(
    network: nn.Module,
    generated: Tensor,
    target: Tensor,
    *,
    layers: Sequence[str] | None = None,
    p: int = 1,
    relative: bool = False,
    shift: int = 0,
) -> Tensor:
    r"""Return the mean difference of two images' feature maps, averaged over layers.

    $$\frac{1}{S} \sum_s \frac{1}{n_s} \lVert \phi_s(\hat I) - \phi_s(I) \rVert_p^p, \qquad \text{relative: each divided
    by } \tfrac{1}{n_s} \lVert \phi_s(I) \rVert_p^p$$

    Johnson et al., "Perceptual Losses for Real-Time Style Transfer", ECCV 2016. SAN's eq. 6 is one layer of VGG-19 with
    p = 2; PATN has relu1_2 with p = 1. `relative` makes layers of different scale count alike.

    Args:
        network: see `layers_of`; in evaluation mode.
        generated, target: float [B,3,H,W] in [-1, 1]; gradients reach `generated` only.
        layers: names; default all stages of a backbone, "relu1_2" of a VGG.
        p: 1 or 2.
        shift: 0 as published; above 0 both images lose up to so many rows and columns at their upper left, drawn anew
            by torch's generator in each call. A network with strides looks harder at some pixels than at others, and
            always at the same; what is trained by it for long shows a net of their period.

    Raises:
        ValueError: an unknown layer or p, images of different shapes or too small for the shift.

    >>> from reidlib.networks import SmallResNet
    >>> black = torch.full((1, 3, 64, 32), -1.0)
    >>> perceptual_loss(SmallResNet(8).eval(), black, black).item()
    0.0
    """
    check_choice("p", p, (1, 2))
    if generated.shape != target.shape:
        raise ValueError(f"two images of one shape are compared, got {list(generated.shape)}, {list(target.shape)}")
    if not 0 <= shift < min(generated.shape[2:]):
        raise ValueError(f"0 <= shift < {min(generated.shape[2:])} is accepted for these images, got shift={shift}")
    if shift:
        top, left = torch.randint(shift + 1, (2,)).tolist()
        generated, target = generated[..., top:, left:], target[..., top:, left:]
    if layers is None:
        layers = [name for name in layers_of(network) if name.startswith("stage")] or ["relu1_2"]

    def size(maps: Tensor) -> Tensor:
        return (maps.abs() if p == 1 else maps.square()).mean()

    with torch.no_grad():
        wanted = feature_maps(network, signed_to_imagenet(target), layers)
    found = feature_maps(network, signed_to_imagenet(generated), layers)
    apart = [size(found[n] - wanted[n]) / (size(wanted[n]).clamp_min(1e-6) if relative else 1) for n in layers]
    return torch.stack(apart).mean()
