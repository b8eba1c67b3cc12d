"""The networks of pose attention: PAAN weighs the appearance by the pose it is in, PAGN draws it in the target pose.

`generators.pose_attention` trains them and says what the letters mean.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets.poses import JOINT_NAMES
from reidlib.generators import blocks

JOINTS = len(JOINT_NAMES)
PADDINGS = {"reflect": "reflect", "zero": "zeros"}
FORMS = {
    "paan": ("pyramid", "isotropic"),
    "adain": ("pose_style", "appearance_modulates"),
    "f0": ("pose", "appearance"),
    "pad": PADDINGS,
}


class PAANBlock(nn.Module):
    r"""A pose appearance attention block: $f_k^I = A_k \otimes v_k + u_k$, $A_k = \sigma(f_k^P)$.

    $u_k$ is the strided map and $v_k$ a convolution of it; where the block keeps the size, the residual is $f_{k-1}^I$
    as printed. $f_k^P$ is a raw convolution.

    Args:
        ins, outs: channels of both streams.
        halve: the size ("pyramid").
        pad: of the convolutions that keep it: "reflect" or "zeros".
        mask_relu: with batch normalisation and ReLU before the sigmoid, as the prose has it.
    """

    def __init__(self, ins: int, outs: int, *, halve: bool, pad: str = "reflect", mask_relu: bool = False) -> None:
        super().__init__()
        self.halve = halve
        first = dict(stride=2) if halve else dict(pad=pad)
        self.appearance_in, self.pose_in = (blocks.convolution(ins, outs, **first) for _ in range(2))
        self.appearance_out = blocks.convolution(outs, outs, pad=pad)
        raw = nn.Conv2d(outs, outs, 3, padding=1, padding_mode=pad)  # a ReLU before it leaves no mask below one half
        self.pose_out = blocks.convolution(outs, outs, pad=pad) if mask_relu else raw
        self.mask = nn.Sigmoid()

    def forward(self, appearance: Tensor, pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return $f_k^I$, $f_k^P$ and the mask $A_k$."""
        strided = self.appearance_in(appearance)
        pose = self.pose_out(self.pose_in(pose))
        mask = self.mask(pose)
        return mask * self.appearance_out(strided) + (strided if self.halve else appearance), pose, mask


class PAGNBlock(nn.Module):
    r"""A pose appearance generation block, eq. 3-6; the picture runs one octave ahead of the features.

    Args:
        ins: channels of $f_{j-1}^g \,\|\, P_t$.
        code: channels of $f_N^I$.
        outs: channels of $a_j$, $x_j$ and $f_j^g$.
        picture: layers that make $I_j^g$ of $I_{j-1}^g \,\|\, A_j \otimes x_j$.
        double: the size of $f_{j-1}^g$.
        adain: "pose_style": $a_j$'s statistics are the style of the appearance, as printed. "appearance_modulates":
            $\text{IN}(\text{LeakyReLU}(a_j))(\gamma + 1) + \beta$ with maps of the appearance (PoseStylizer).
        mask_relu: with a ReLU before the sigmoid, as the prose has it.
    """

    def __init__(
        self, ins: int, code: int, outs: int, picture: nn.Module, *, double: bool, adain: str, mask_relu: bool
    ) -> None:
        super().__init__()
        self.modulates = adain == "appearance_modulates"
        kept = dict(padding=1, padding_mode="reflect")
        self.pose = nn.ConvTranspose2d(ins, outs, 4, 2, 1) if double else nn.Conv2d(ins, outs, 3, **kept)
        self.appearance = nn.Conv2d(code, outs * (1 + self.modulates), 1, bias=self.modulates)
        self.attention = nn.Sequential(nn.Conv2d(outs, outs, 3, padding=1, bias=False), nn.BatchNorm2d(outs))
        self.mask = nn.Sequential(nn.ReLU(), nn.Sigmoid()) if mask_relu else nn.Sigmoid()
        self.picture = picture

    def forward(
        self, features: Tensor | None, picture: Tensor | None, code: Tensor, pose: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return $f_j^g$, $I_j^g$ and the mask $A_j$; the first block has no `picture`, and no `features` either.

        `pose` are the target's maps at the size of `features`.
        """
        a = self.pose(pose if features is None else torch.cat([features, pose], dim=1))
        b = self.appearance(code)
        if self.modulates:
            scale, shift = F.interpolate(b, a.shape[-2:]).chunk(2, dim=1)
            x = blocks.adain(F.leaky_relu(a, 0.2), 1 + scale, shift)
        else:  # nearest neighbours change no statistics, so resizing comes last
            x = F.interpolate(blocks.adain(b, *blocks.style_statistics(a)), a.shape[-2:])
        mask = self.mask(self.attention(x))
        shown = mask * x
        return x + a, self.picture(shown if picture is None else torch.cat([picture, shown], dim=1)), mask


class PAAN(nn.Module):
    """The pose appearance attention network: the encoders E_A and E_P, and N blocks.

    Args:
        channels: c_0 ... c_N.
        width: of the encoders' first layer.
        halve: in every block, from full size ("pyramid"), else twice in the encoders.
        pad, mask_relu: see `PAANBlock`.
        kernel: side of the encoders' first convolution.
    """

    def __init__(self, channels: list[int], width: int, *, halve: bool, pad: str, mask_relu: bool, kernel: int) -> None:
        super().__init__()

        def encoder(ins: int) -> nn.Module:
            halvings = [blocks.convolution(c, 2 * c, stride=2) for c in (width, 2 * width)]
            then = [blocks.convolution(width, width)] if halve else halvings
            return nn.Sequential(blocks.convolution(ins, width, kernel, pad="reflect"), *then)

        self.E_A, self.E_P = encoder(3), encoder(JOINTS)
        options = dict(halve=halve, pad=pad, mask_relu=mask_relu)
        self.blocks = nn.ModuleList(PAANBlock(ins, outs, **options) for ins, outs in pairwise(channels))

    def forward(self, images: Tensor, poses: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return $f_N^I$, $f_N^P$ (which nothing consumes) and the masks of all blocks."""
        appearance, pose, masks = self.E_A(images), self.E_P(poses), []
        for block in self.blocks:
            appearance, pose, mask = block(appearance, pose)
            masks.append(mask)
        return appearance, pose, masks


class Generated(NamedTuple):
    """Images [B,3,H,W] in [-1, 1], and the attention masks of the PAAN and PAGN blocks, each [B,C,h,w] in (0, 1)."""

    images: Tensor
    paan: list[Tensor]
    pagn: list[Tensor]


class Generator(nn.Module):
    """PAAN, PAGN and the output head.

    Args:
        width: C, channels at full size; 64 as published, at most 8 C anywhere.
        n_blocks: N, the same in both networks; 4 as published.
        paan: "pyramid": every PAAN block halves and every PAGN block doubles the size. "isotropic": the encoders halve
            twice, the blocks keep the size, and the last two PAGN blocks double it (N >= 2).
        adain, mask_relu: see the blocks.
        f0: what the first PAGN block starts from: the target "pose" alone, or with the "appearance" $f_N^I$.
        pad: "reflect", or "zero", which lets the smallest map be one pixel wide.
        kernel: side of the convolutions at full size at both ends: the encoders' first, the last block's, the head.

    Raises:
        ValueError: for an even kernel, names that are not known, and fewer blocks than there must be.

    >>> poses = torch.zeros(2, 18, 64, 32)
    >>> made = Generator(width=8)(torch.zeros(2, 3, 64, 32), poses, poses)
    >>> made.images.shape, made.paan[-1].shape, made.pagn[0].shape
    (torch.Size([2, 3, 64, 32]), torch.Size([2, 64, 4, 2]), torch.Size([2, 64, 8, 4]))
    """

    def __init__(
        self,
        *,
        width: int = 64,
        n_blocks: int = 4,
        paan: str = "pyramid",
        adain: str = "pose_style",
        f0: str = "pose",
        mask_relu: bool = False,
        pad: str = "reflect",
        kernel: int = 7,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"an odd kernel is accepted (7 as published in the relatives), got kernel={kernel}")
        blocks.check_choices(FORMS, dict(paan=paan, adain=adain, f0=f0, pad=pad))
        pyramid, n = paan == "pyramid", n_blocks
        if n < (1 if pyramid else 2):
            raise ValueError(f"n_blocks >= {1 if pyramid else 2} is accepted for paan={paan!r}, got n_blocks={n}")
        self.n_blocks, self.pad, self.f0 = n, pad, f0
        self.halvings = n if pyramid else 2
        channels = [min(width * 2**k, 8 * width) for k in range(n + 1)] if pyramid else [4 * width] * (n + 1)
        self.paan = PAAN(channels, width, halve=pyramid, pad=PADDINGS[pad], mask_relu=mask_relu, kernel=kernel)
        doubles = [pyramid or j >= n - 2 for j in range(n)]
        outs = [min(width * 2 ** sum(doubles[j + 1 :]), 8 * width) for j in range(n)]
        options = dict(adain=adain, mask_relu=mask_relu)
        self.pagn, before = nn.ModuleList(), 0
        for j, out in enumerate(outs):
            if any(doubles[j + 1 : j + 2]):  # the picture has the size of the next block
                picture = blocks.doubling(before + out, out)
            else:
                picture = blocks.convolution(before + out, out, 3 if j < n - 1 else kernel, pad="reflect", slope=0.2)
            features = before if j or f0 == "pose" else channels[-1]
            self.pagn.append(PAGNBlock(features + JOINTS, channels[-1], out, picture, double=doubles[j], **options))
            before = out
        head = nn.Conv2d(2 * width, 3, kernel, padding=kernel // 2, padding_mode="reflect")
        self.head = nn.Sequential(head, nn.Tanh())

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Raise ValueError where (height, width) cannot be halved as often as the blocks do."""
        factor, least = 2**self.halvings, 2 if self.pad == "reflect" else 1
        got = f"{self.n_blocks} blocks halve images {self.halvings} times, got {'x'.join(map(str, image_size))}"
        if any(side % factor or side < least * factor for side in image_size):
            raise ValueError(
                f"{got}: the smallest map must be {least} pixels wide (pad={self.pad!r}), and height and width "
                f"multiples of {factor}"
            )

    def forward(self, images: Tensor, source_poses: Tensor, target_poses: Tensor) -> Generated:
        """Generate from images [B,3,H,W] in [-1, 1] and two poses [B,18,H,W] in [0, 1]."""
        self.check_size(images.shape[-2:])
        code, _, masks = self.paan(images, source_poses)
        features, picture, generating = code if self.f0 == "appearance" else None, None, []
        size = code.shape[-2:]
        for block in self.pagn:
            pose = F.interpolate(target_poses, size, mode="bilinear")
            features, picture, mask = block(features, picture, code, pose)
            size = features.shape[-2:]
            generating.append(mask)
        return Generated(self.head(torch.cat([picture, features], dim=1)), masks, generating)
