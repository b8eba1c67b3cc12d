"""The networks of DG-Net: E_s sees a person's structure, E_a the appearance, G draws one of each, D judges patches.

`generators.dg_net` trains them together and says what the letters mean.
"""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.checks import check_choice
from reidlib.generators import blocks
from reidlib.networks import evaluating, normal_init

BANDS = 4  # horizontal, of the appearance code
SLICES = ("channels", "bands")  # how the decoder cuts it
CODE_SCALES = ("raw", "standardised")


def _unit(ins: int, outs: int, kernel: int = 3, *, norm: str = "none", act: bool = True, of=nn.Conv2d, **options):
    """Return the paper's convolution unit: reflected border, convolution with bias, normalisation, LeakyReLU 0.2."""
    padding = options.get("dilation", 1) * (kernel // 2)
    options |= dict(padding=padding, padding_mode="reflect" if padding else "zeros")
    layers = [of(ins, outs, kernel, **options), blocks.make_norm(norm, outs)]
    return nn.Sequential(*layers, *([nn.LeakyReLU(0.2)] if act else []))


class DoublingConvolution(nn.Conv2d):
    r"""Double a map's sides (nearest pixel), then convolve with a reflected border, for a third to a half of the work.

    Behind the doubling, neighbouring taps of a kernel see the same pixel of $x$; they are summed beforehand. Each of
    the four places $(p, q)$ in a doubled pixel sums them in its own way, into a kernel of half the size:

    $$y_{2i+p,\,2j+q} = \sum_{a,b} W^{pq}_{ab}\, x_{i+a,\,j+b}, \qquad
      W^{pq}_{ab} = \sum_{\lfloor (p+u)/2 \rfloor = a,\; \lfloor (q+v)/2 \rfloor = b} w_{uv}$$

    Up to rounding that is the convolution of the doubled map. It is computed so for kernels of 3x3 and 5x5 with their
    own reflected border and a bias, and for all others as it stands.

    >>> layer, x = DoublingConvolution(2, 4, 5, padding=2, padding_mode="reflect"), torch.rand(1, 2, 6, 3)
    >>> slow = nn.Conv2d.forward(layer, F.interpolate(x, scale_factor=2))
    >>> layer(x).shape, torch.allclose(layer(x), slow, atol=1e-5)
    (torch.Size([1, 4, 12, 6]), True)
    """

    def forward(self, x: Tensor) -> Tensor:
        k = self.kernel_size[0]
        usual = (2 * (k,), 2 * (k // 2,), 2 * (1,), 2 * (1,), 1, "reflect")
        mine = self.kernel_size, self.padding, self.stride, self.dilation, self.groups, self.padding_mode
        if k not in (3, 5) or mine != usual or self.bias is None or min(x.shape[2:]) < 2:
            return super().forward(F.interpolate(x, scale_factor=2))
        height, width = x.shape[2:]
        taps = (k + 1) // 2  # of each of the four kernels
        sums = self.weight.new_zeros(2, taps, k)  # which of the k are summed, at p = 0 and 1
        for p in (0, 1):
            seen = [(p + u) // 2 for u in range(-(k // 2), k // 2 + 1)]
            sums[p, [a - seen[0] for a in seen], range(k)] = 1
        four = torch.einsum("pau,qbv,oiuv->opqiab", sums, sums, self.weight).flatten(0, 2)
        y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), four, self.bias.repeat_interleave(4))
        if k == 3:  # one line more than x has: place 0 begins before place 1
            places = zip(y.unflatten(1, (-1, 4)).unbind(2), itertools.product((0, 1), repeat=2), strict=True)
            y = torch.stack([each[:, :, p : p + height, q : q + width] for each, (p, q) in places], dim=2).flatten(1, 2)
        y = F.pixel_shuffle(y, 2)
        if k == 5:  # two pixels outside, a reflection shows the second pixel of x, what is repeated the first
            for axis, kernel in ((2, self.weight), (3, self.weight.transpose(2, 3))):
                lines, missed = x.movedim(axis, 2), []
                for end, second in ((0, 1), (-1, -2)):
                    shown, repeated = (lines[:, :, i].repeat_interleave(2, dim=2) for i in (second, end))
                    if axis == 2:  # with the corners
                        more = F.pad(shown, (2, 2), mode="reflect") - F.pad(repeated, (2, 2), mode="replicate")
                    else:
                        more = F.pad(F.pad(shown - repeated, (1, 1), mode="replicate"), (1, 1))
                    missed.append(F.conv1d(more, kernel[:, :, end]))
                ends = torch.tensor([0, y.shape[axis] - 1], device=y.device)
                y = y.index_add(axis, ends, torch.stack(missed, dim=axis))
        return y


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


class ASPP(nn.Module):
    """Four branches (1x1, and 1x1 then 3x3 at three dilations) side by side, joined by 1x1: 4 `width` to 8 `width`.

    >>> ASPP(4, (1, 2, 3))(torch.zeros(1, 16, 16, 8)).shape
    torch.Size([1, 32, 16, 8])
    """

    def __init__(self, width: int, dilations: tuple[int, int, int] = (3, 6, 9)) -> None:
        super().__init__()
        ins, each = 4 * width, 2 * width
        last = dict(norm="instance", act=False)
        self.branches = nn.ModuleList([_unit(ins, each, 1, **last)])
        for dilation in dilations:
            first = _unit(ins, each, 1, norm="instance")
            self.branches.append(nn.Sequential(first, _unit(each, each, dilation=dilation, **last)))
        self.join = _unit(4 * each, 4 * each, 1, **last)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([branch(x) for branch in self.branches], dim=1))


class StructureEncoder(nn.Sequential):
    """E_s: a grey image [B,1,H,W] becomes a map [B, 8 width, H/4, W/4] of shape, pose and scene.

    Args:
        width: channels of the first layer, 16 as published.
        units: residual units, 4 as published.
        dilations: of the ASPP; 3, 6, 9 as published, whose reflected border needs images of 40 pixels a side.

    >>> StructureEncoder(4, dilations=(1, 2, 3))(torch.zeros(1, 1, 64, 32)).shape
    torch.Size([1, 32, 16, 8])
    """

    def __init__(self, width: int = 16, units: int = 4, dilations: tuple[int, int, int] = (3, 6, 9)) -> None:
        w, norm = width, "instance"
        layers = [_unit(1, w, stride=2, norm=norm), _unit(w, 2 * w, norm=norm), _unit(2 * w, 2 * w, norm=norm),
                  _unit(2 * w, 4 * w, stride=2, norm=norm)]  # fmt: skip
        super().__init__(*layers, *(blocks.ResidualUnit(4 * w, slope=0.2) for _ in range(units)), ASPP(w, dilations))
        self.smallest = 4 * (max(dilations) + 1)
        self.apply(_kaiming)

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError where (height, width) are no multiples of 4 or too small for the largest dilation."""
        if any(side % 4 or side < self.smallest for side in image_size):
            needed = f"sides that are multiples of 4 and at least {self.smallest} (4 (largest dilation + 1))"
            raise ValueError(f"the structure encoder needs {needed}, got {'x'.join(map(str, image_size))}")


class Decoder(nn.Module):
    """G: a structure code [B, 8 width, h, w] and an appearance code [B, F] become an image [B, 3, 4h, 4w].

    Each residual unit has a slice of the appearance code, from which one network makes the scales and another the
    shifts of the unit's two AdaIN layers. The image is ImageNet-normalised, without a bound.

    Args:
        code: F, length of the appearance code, a multiple of `units`.
        width, units: those of `StructureEncoder`.
        mlp_width: hidden units, 512 as published.
        kernel: side of the two convolutions behind the doublings, 5 as published; they are most of G's work.
        code_scale: "raw" as published; "standardised": each number of the code is brought to mean 0 and variance 1 by
            running statistics of real codes (see `learn_scale`), in training and afterwards, so that what people differ
            in is what the networks see.
        slices: of the code, which holds the bands of each channel side by side: "channels" cuts it as it lies, so
            that each slice has a part of the channels with all their bands (released code); "bands" puts each band
            first.

    >>> Decoder(512, width=4, units=1, mlp_width=16)(torch.zeros(1, 32, 16, 8), torch.zeros(1, 512)).shape
    torch.Size([1, 3, 64, 32])
    """

    def __init__(
        self,
        code: int,
        *,
        width: int = 16,
        units: int = 4,
        mlp_width: int = 512,
        kernel: int = 5,
        slices: str = "channels",
        code_scale: str = "raw",
    ) -> None:
        super().__init__()
        check_choice("slices", slices, SLICES)
        check_choice("code_scale", code_scale, CODE_SCALES)
        if code % (BANDS * units):
            raise ValueError(f"a code of {code} numbers in {BANDS} bands cannot be cut into {units} slices")
        channels, self.slices = 8 * width, slices

        def mlp() -> nn.Sequential:
            hidden = [nn.Linear(code // units, mlp_width), nn.LeakyReLU(0.2), nn.Linear(mlp_width, mlp_width)]
            return nn.Sequential(*hidden, nn.LeakyReLU(0.2), nn.Linear(mlp_width, 2 * channels))

        self.standard = nn.BatchNorm1d(code, affine=False) if code_scale == "standardised" else nn.Identity()
        self.scales, self.shifts = (nn.ModuleList(mlp() for _ in range(units)) for _ in range(2))
        self.first = nn.ModuleList(_unit(channels, channels, act=False) for _ in range(units))
        self.second = nn.ModuleList(_unit(channels, channels, act=False) for _ in range(units))
        doubled = dict(norm="layer", of=DoublingConvolution)
        ups = [[nn.Identity(), _unit(2 * n, n, kernel, **doubled)] for n in (4 * width, 2 * width)]
        flat = [_unit(2 * width, 2 * width), _unit(2 * width, 2 * width), _unit(2 * width, 3, 1, act=False)]
        self.last = nn.Sequential(*ups[0], *ups[1], *flat)
        self.apply(_kaiming)

    def adain_numbers(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return scales and shifts of all AdaIN layers, one behind the other, each [B, 2 units * 8 width]."""
        with evaluating(self.standard):  # a code of a picture moves no statistics
            code = self.standard(code)
        if self.slices == "bands":
            code = code.unflatten(1, (-1, BANDS)).transpose(1, 2).flatten(1)
        cut = code.chunk(len(self.scales), dim=1)
        both = self.scales, self.shifts
        return tuple(torch.cat([mlp(s) for mlp, s in zip(mlps, cut, strict=True)], 1) for mlps in both)

    @torch.no_grad()
    def learn_scale(self, codes: Tensor) -> None:
        """Update the statistics of standardised codes by a batch of real ones, float [B,F]: a tenth of it is the new.

        The first ten batches have equal parts, so that the start (mean 0, variance 1) leaves no trace.
        """
        if isinstance(self.standard, nn.BatchNorm1d):
            self.standard.momentum = max(0.1, 1 / (1 + int(self.standard.num_batches_tracked)))
            self.standard.train()(codes)

    def body(self, structure: Tensor, scales: Tensor, shifts: Tensor) -> Tensor:
        """Return the image for given AdaIN numbers."""
        x, layers = structure, iter(zip(*(n.split(structure.shape[1], dim=1) for n in (scales, shifts)), strict=True))
        for first, second in zip(self.first, self.second, strict=True):
            hidden = F.leaky_relu(blocks.adain(first(x), *next(layers)), 0.2)
            x = x + blocks.adain(second(hidden), *next(layers))
        return self.last(x)

    def forward(self, structure: Tensor, code: Tensor) -> Tensor:
        return self.body(structure, *self.adain_numbers(code))


class MultiScaleDiscriminator(nn.Module):
    """D: three networks of one form, at full, half and quarter size; each gives a score for every patch.

    It computes in float32 under mixed precision, too: its gradient penalty needs it.

    Args:
        width: channels of the first layers, 32 as published.
        units: residual units of each, 4 as published.

    >>> [tuple(scores.shape) for scores in MultiScaleDiscriminator(8, 1)(torch.zeros(1, 3, 64, 32))]
    [(1, 1, 16, 8), (1, 1, 8, 4), (1, 1, 4, 2)]
    """

    def __init__(self, width: int = 32, units: int = 4) -> None:
        super().__init__()
        w = width

        def network() -> nn.Sequential:
            layers = [_unit(3, w, 1), _unit(w, w), _unit(w, w, stride=2), _unit(w, w), _unit(w, 2 * w, stride=2)]
            layers += [blocks.ResidualUnit(2 * w, norm="none", slope=0.2) for _ in range(units)]
            return nn.Sequential(*layers, nn.Conv2d(2 * w, 1, 1))

        self.scales = nn.ModuleList(network() for _ in range(3))
        self.apply(normal_init)

    def forward(self, images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, enabled=False):
            x, scores = images.float(), []
            for network in self.scales:
                scores.append(network(x))
                x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return scores


class AppearanceEncoder(nn.Module):
    """E_a: the re-ID network, which also gives the appearance code: its map, max-pooled to four horizontal bands.

    Args:
        network: with a `backbone` that gives maps [B,C,h,w] and two `heads` that give a feature and logits of a pooled
            vector: `Embedder(n, last_stride=1, pool="max", heads=[dict(dimensions=512, norm="batch", dropout=p) for p
            in (0.5, 0.75)])`. Head 1 gives f_prim, head 2 f_fine.
        enlarge_up_to: images of this height or less are doubled first (nearest pixel); 128 as published.

    Raises:
        TypeError: a network without these parts.
    """

    def __init__(self, network: nn.Module, enlarge_up_to: int = 128) -> None:
        super().__init__()
        if not hasattr(network, "backbone") or len(getattr(network, "heads", ())) != 2:
            found = f"{type(network).__name__} with {len(getattr(network, 'heads', ()))} heads"
            raise TypeError(f"E_a must be a re-ID network with a backbone and two heads (an Embedder), got {found}")
        self.network, self.enlarge_up_to = network, enlarge_up_to

    def forward(self, images: Tensor) -> tuple[Tensor, list[NamedTuple]]:
        """Return the code [B, 4C] (with its gradient) and what the two heads give."""
        maps = self.network.backbone(enlarged(images, self.enlarge_up_to)).float()
        with torch.autocast(maps.device.type, enabled=False):
            heads = [head(maps.amax((2, 3))) for head in self.network.heads]
        return F.adaptive_max_pool2d(maps, (BANDS, 1)).flatten(1), heads


def grey(images: Tensor) -> Tensor:
    """Return the plain mean of the channels, [B,1,H,W]: what the structure encoder sees.

    >>> round(grey(torch.tensor([0.3, 0.6, 0.9])[None, :, None, None]).item(), 4)
    0.6
    """
    return images.mean(1, keepdim=True)


def enlarged(images: Tensor, up_to: int) -> Tensor:
    """Double images [B,C,H,W] (nearest pixel) whose height is `up_to` or less.

    >>> [enlarged(torch.zeros(1, 3, height, 8), 128).shape[2] for height in (128, 129)]
    [256, 129]
    """
    return F.interpolate(images, scale_factor=2) if images.shape[2] <= up_to else images


def fuse(features: Tensor, weight: float = 0.5) -> Tensor:
    r"""Weigh the halves of `DGNet.embed`'s features, so that products are $\cos(f_{prim}) + w \cos(f_{fine})$.

    Both sides, queries and gallery, are fused alike; all lengths are then equal, so Euclidean and cosine distance rank
    by that score. 0 leaves f_prim alone.

    Args:
        features: [N, 2D], two halves of length 1.
        weight: w, 0.5 as published.

    Raises:
        ValueError: a negative weight, features of odd length.

    >>> f = fuse(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    >>> round((f @ f.T).item(), 4)
    1.5
    """
    if weight < 0 or features.dim() != 2 or features.shape[1] % 2:
        raise ValueError(f"features [N, 2D] and a weight >= 0 are needed, got {list(features.shape)} and {weight}")
    prim, fine = features.chunk(2, dim=1)
    return torch.cat([prim, weight**0.5 * fine], dim=1)
