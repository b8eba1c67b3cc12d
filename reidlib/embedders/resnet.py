"""Networks that turn a person crop into a feature: ResNet-50 or a small backbone, a pooling, and one or more heads."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import reidlib.torchvision_ops  # noqa: F401 - before torchvision

from torchvision.models.resnet import resnet50  # isort: skip

from reidlib.checks import check_choice
from reidlib.embedders.starts import Start, load_start
from reidlib.networks import SmallResNet, evaluating


class ResNet50(nn.Module):
    """torchvision's ResNet-50 up to the last stage's map, with random weights.

    Args:
        last_stride: 2 as published, 1 for a map twice as fine (one of the "tricks").
    """

    def __init__(self, last_stride: int = 2) -> None:
        super().__init__()
        self.dimensions = 2048
        net = resnet50(weights=None)
        if last_stride == 1:
            net.layer4[0].conv2.stride = (1, 1)
            net.layer4[0].downsample[0].stride = (1, 1)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.Sequential(net.layer1, net.layer2, net.layer3, net.layer4)

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.stem(images))  # [B, 2048, H/32, W/32]; H/16, W/16 with last_stride=1


class Embedding(NamedTuple):
    """What a head gives: what metric losses compare [B, D], the test feature [B, D], and the logits [B, K]."""

    compared: Tensor
    feature: Tensor
    logits: Tensor


class Head(nn.Module):
    r"""What stands between a pooled map and the scores of the identities.

    $$e = W f + b, \qquad \text{logits} = C\,\text{dropout}(\text{ReLU}(\text{BN}(e)))$$

    where each part may be missing. The layer starts Kaiming normal (fan-out) with $b = 0$, the classifier from
    N(0, 0.001²) without bias at the start.

    Args:
        ins: length of the pooled vector.
        n_classes: identities to tell apart.
        dimensions: units of the layer $W$; 0: none, $e = f$.
        norm: None, "batch", or "bnneck" (Luo et al. 2019: the shift stays 0 and the classifier has no bias).
        relu: with the ReLU.
        dropout: its probability.
        feature: the test feature: "pooled" $f$, "layer" $e$ or "norm" BN(e).
        init: of the layer: "kaiming" as above, "torch" for the linear layer's own default.

    Raises:
        ValueError: for names that are not known.

    >>> head = Head(64, 10, dimensions=128, norm="batch", relu=True, dropout=0.5, feature="layer")
    >>> [tuple(x.shape) for x in head(torch.zeros(2, 64))]
    [(2, 128), (2, 128), (2, 10)]
    """

    def __init__(
        self,
        ins: int,
        n_classes: int,
        *,
        dimensions: int = 0,
        norm: str | None = None,
        relu: bool = False,
        dropout: float = 0.0,
        feature: str = "norm",
        init: str = "kaiming",
    ) -> None:
        super().__init__()
        check_choice("norm", norm, (None, "batch", "bnneck"))
        check_choice("init", init, ("kaiming", "torch"))
        check_choice("feature", feature, ("pooled", "layer", "norm"))
        if n_classes < 1 or dimensions < 0:
            raise ValueError(f"{n_classes=}, {dimensions=}: accepted are at least 1 and 0 (no layer)")
        outs = dimensions or ins
        self.feature, self.dimensions = feature, ins if feature == "pooled" else outs
        self.layer = nn.Linear(ins, dimensions) if dimensions else nn.Identity()
        self.norm = nn.BatchNorm1d(outs) if norm else nn.Identity()
        self.activation = nn.ReLU() if relu else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(outs, n_classes, bias=norm != "bnneck")
        if dimensions and init == "kaiming":
            nn.init.kaiming_normal_(self.layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(self.layer.bias)
        nn.init.normal_(self.classifier.weight, std=0.001)
        if norm == "bnneck":
            self.norm.bias.requires_grad_(False)
        else:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, pooled: Tensor) -> Embedding:
        """Take pooled vectors [B, ins], float32."""
        layer = self.layer(pooled)
        norm = self.norm(layer)
        logits = self.classifier(self.dropout(self.activation(norm)))
        known = {"pooled": pooled, "layer": layer, "norm": norm}
        return Embedding(pooled if self.feature == "pooled" else layer, known[self.feature], logits)


class Embedder(nn.Module):
    r"""A backbone, a pooling, and one or several `Head`s that classify identities.

    Without further arguments it is IDE: average pooling, dropout, a classifier. The papers' forms:

    ```
    Embedder(n, bnneck=True)                                                      # Luo et al. 2019
    Embedder(n, pool="blocks", dimensions=1024, dropout=0.5)                      # PN-GAN's networks A and B
    hidden = dict(norm="batch", relu=True, dropout=0.5)
    Embedder(n, heads=[dict(dimensions=1024, feature="pooled", **hidden)])        # CamStyle
    Embedder(n, heads=[dict(dimensions=128, feature="layer", **hidden)])          # pose attention
    Embedder(n, pool="max", last_stride=1,                                        # DG-Net: f_prim and f_fine
             heads=[dict(dimensions=512, norm="batch", dropout=p) for p in (0.5, 0.75)])
    ```

    Args:
        n_classes: identities to tell apart.
        backbone: "small" (`SmallResNet`) or "resnet50".
        width: of the small backbone.
        last_stride: 1 or 2.
        pool: "avg", "max", or "blocks": the average-pooled maps of each block of the last stage (ResNet-50: three of
            2048 channels, the small network: two of 8 x width), merged as `merge` says: "concat" or "add".
        dimensions: units of a feature layer, with a ReLU behind it; the feature is taken before the ReLU. 0: no layer.
        bnneck: the feature goes through a BatchNorm whose shift stays 0, and the classifier has no bias.
        dropout: before the classifier (IDE: 0.5), of each head that names none.
        heads: options of each `Head`, instead of the one that `dimensions` and `bnneck` describe.
        start: what the backbone starts from: "none", "recorded", "recorded-2", "imagenet", a file, or a state dict such
            as another embedder's `backbone.state_dict()`, see `starts.load_start`.
        image_size: (height, width) of the training images, which chooses the recorded start.

    Attributes:
        backbone, heads: the parts.  new_layers: parameters of the heads, which no other training knows.
        dimensions: length of the (first head's) feature.
        weights_source: what the backbone started from, in words.

    Raises:
        FileNotFoundError: a start that is not there.
        ValueError: for names that are not known, and weights of another network.

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
        pool: str = "avg",
        merge: str = "concat",
        dimensions: int = 0,
        bnneck: bool = False,
        dropout: float = 0.0,
        heads: Sequence[Mapping[str, Any]] | None = None,
        start: Start = "none",
        image_size: tuple[int, int] = (64, 32),
    ) -> None:
        super().__init__()
        check_choice("backbone", backbone, ("small", "resnet50"))
        check_choice("last_stride", last_stride, (1, 2))
        check_choice("pool", pool, ("avg", "max", "blocks"))
        check_choice("merge", merge, ("concat", "add"))
        self.pooling, self.merge = pool, merge
        self.backbone = SmallResNet(width, last_stride) if backbone == "small" else ResNet50(last_stride)
        self.weights_source = load_start(self.backbone, start, image_size)
        if heads is None:
            norm = "bnneck" if bnneck else None
            heads = [dict(dimensions=dimensions, norm=norm, relu=dimensions > 0, dropout=dropout)]
        elif not heads or dimensions or bnneck:
            raise ValueError("heads= takes at least one head; dimensions= and bnneck= describe the plain one instead")
        blocks = len(self.backbone.stages[-1]) if pool == "blocks" and merge == "concat" else 1
        self.heads = nn.ModuleList(
            Head(blocks * self.backbone.dimensions, n_classes, **{"dropout": dropout} | head) for head in heads
        )
        self.dimensions = self.heads[0].dimensions

    @property
    def new_layers(self) -> list[nn.Parameter]:
        """What is trained from scratch: the parameters of the heads."""
        return [p for p in self.heads.parameters() if p.requires_grad]

    def pool(self, images: Tensor) -> Tensor:
        """Return the pooled vector [B, C] of ImageNet-normalised float images [B, 3, H, W]."""
        if self.pooling != "blocks":
            maps = self.backbone(images)
            return maps.mean((2, 3)) if self.pooling == "avg" else maps.amax((2, 3))
        x, pooled = self.backbone.stages[:-1](self.backbone.stem(images)), []
        for block in self.backbone.stages[-1]:
            x = block(x)
            pooled.append(x.mean((2, 3)))  # [B, C]
        return torch.cat(pooled, dim=1) if self.merge == "concat" else torch.stack(pooled).sum(0)

    def forward(self, images: Tensor) -> Embedding:
        """Take ImageNet-normalised float images [B, 3, H, W]; give the first head's `Embedding`."""
        return self.all_heads(images)[0]

    def all_heads(self, images: Tensor, *, frozen: bool = False) -> list[Embedding]:
        """Give every head's `Embedding`, see `forward`; float32 also under mixed precision.

        With `frozen` the backbone runs in evaluation mode and without gradient: its weights and the statistics of its
        normalisations stay as they are.
        """
        if frozen:
            with evaluating(self.backbone), torch.no_grad():
                pooled = self.pool(images)
        else:
            pooled = self.pool(images)
        with torch.autocast(pooled.device.type, enabled=False):
            return [head(pooled.float()) for head in self.heads]
