"""Networks that turn a person crop into a feature: ResNet-50 (IDE, BNNeck) and a small one for the course's images."""

from pathlib import Path

import torch
from torch import Tensor, nn

import reidlib.torchvision_ops  # noqa: F401 - before torchvision

from torchvision.models.resnet import resnet50  # isort: skip

from reidlib.files import resolve
from reidlib.networks import SmallResNet

BACKBONES = ("small", "resnet50")


class ResNet50(nn.Module):
    """torchvision's ResNet-50 up to the last stage's map.

    Args:
        last_stride: 2 as published, 1 for a map twice as fine (one of the "tricks").
        weights: None: random; "auto": ImageNet weights from torchvision's cache if the user has them there, else
            random; or a path of a state dict (.pth or .safetensors). Nothing is ever downloaded.

    Attributes:
        weights_source: where the weights came from, in words, for the results.

    Raises:
        FileNotFoundError: for a path that is not there.
        ValueError: for a file that does not hold a ResNet-50.
    """

    def __init__(self, last_stride: int = 2, weights: str | Path | None = "auto") -> None:
        super().__init__()
        self.dimensions = 2048
        net = resnet50(weights=None)
        self.weights_source = _load_imagenet(net, weights)
        if last_stride == 1:
            net.layer4[0].conv2.stride = (1, 1)
            net.layer4[0].downsample[0].stride = (1, 1)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.Sequential(net.layer1, net.layer2, net.layer3, net.layer4)

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.stem(images))  # [B, 2048, H/32, W/32]; H/16, W/16 with last_stride=1


class Embedder(nn.Module):
    r"""A backbone, average pooling and an identity classifier: IDE, or with the BNNeck of Luo et al. 2019.

    $f$ = pooled map; with the neck $f' = \text{BN}(f)$ (its bias stays 0) goes to a classifier without bias (weights
    from N(0, 0.001²)); without it, $f$ goes through dropout to a classifier with bias.

    Args:
        n_classes: identities to tell apart.
        backbone: "small" (`SmallResNet`) or "resnet50".
        width: of the small backbone.
        last_stride: 1 or 2.  bnneck: see above.  dropout: before the classifier (IDE: 0.5).
        weights: of ResNet-50, see there; the small network always starts from random weights or a `load_state_dict`.

    Attributes:
        dimensions: length of the feature.
        weights_source: what the backbone started from: "random" or the file.

    >>> f, neck, logits = Embedder(10, width=8)(torch.zeros(2, 3, 64, 32))
    >>> f.shape, logits.shape
    (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        n_classes: int,
        *,
        backbone: str = "small",
        width: int = 16,
        last_stride: int = 2,
        bnneck: bool = False,
        dropout: float = 0.0,
        weights: str | Path | None = "auto",
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES or last_stride not in (1, 2):
            raise ValueError(f"backbone={backbone!r}, last_stride={last_stride}: accepted are {BACKBONES} and 1 or 2")
        if n_classes < 1:
            raise ValueError(f"n_classes={n_classes}: at least one identity is needed")
        if backbone == "small":
            self.backbone: SmallResNet | ResNet50 = SmallResNet(width, last_stride)
            self.weights_source = "random"
        else:
            self.backbone = ResNet50(last_stride, weights)
            self.weights_source = self.backbone.weights_source
        self.dimensions = self.backbone.dimensions
        self.neck = nn.BatchNorm1d(self.dimensions) if bnneck else nn.Identity()
        if bnneck:
            self.neck.bias.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.dimensions, n_classes, bias=not bnneck)
        nn.init.normal_(self.classifier.weight, std=0.001)
        if not bnneck:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take ImageNet-normalised float images [B, 3, H, W]; give pooled f, neck feature [B, D] and logits [B, K].

        Features and logits are float32 also under mixed precision.
        """
        pooled = self.backbone(images).mean((2, 3))  # [B, D]
        with torch.autocast(images.device.type, enabled=False):
            pooled = pooled.float()
            neck = self.neck(pooled)
            return pooled, neck, self.classifier(self.dropout(neck))


def _load_imagenet(net: nn.Module, weights: str | Path | None) -> str:
    """Load a state dict into torchvision's ResNet-50 and say where it came from."""
    if weights is None:
        return "random"
    if weights == "auto":
        cached = sorted((Path(torch.hub.get_dir()) / "checkpoints").glob("resnet50-*.pth"))
        if not cached:
            return "random"
        path = cached[0]  # resnet50-0676ba61.pth, the weights of the papers, sorts before the later ones
    else:
        path = resolve(weights)
        if not path.is_file():
            raise FileNotFoundError(f"no weights at {path}; give a state dict of torchvision's resnet50, or None")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    missing, unexpected = net.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith("fc.")]
    if missing or unexpected:
        raise ValueError(f"{path} is no ResNet-50: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return f"ImageNet ({path.name})" if weights == "auto" else path.name
