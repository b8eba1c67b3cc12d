"""What image metrics see and what they miss: rendered people spoilt on purpose, under every metric."""

from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidlib.datasets import PersonImages
from reidlib.datasets.poses import limb_masks
from reidlib.datasets.procedural import render
from reidlib.evaluators import image_quality as quality
from reidlib.evaluators.judges import Judges, camera_style, identity_kept, pckh, pose_pck

SHOES = (18, 19)


def faults(judges: Judges, net: nn.Module, *, count: int = 36) -> tuple[dict[str, Tensor], pd.DataFrame]:
    """Spoil rendered people in seven ways, and measure each against the truth by ten metrics.

    Args:
        judges: of the rendered market1501 network, see `evaluators.judges.load_judges`.
        net: of LPIPS, see `image_quality.lpips_net`.
        count: people, at least six; 64x32, in six cameras.

    Returns:
        the images uint8 [count,3,64,32] by fault, the truth first; and a table with a row a fault and the columns SSIM,
        L1, LPIPS, mask-LPIPS of the person and of the limbs, FID (the judges' looks), PCK, PCKh, identity, style.
    """
    g, people = torch.Generator().manual_seed(0), torch.arange(count)
    yaws, phases, walking = (top * torch.rand(count, generator=g) for top in (360, 6, 1))
    cameras = 1 + people % 6
    shoot = partial(render, camids=cameras, image_size=(64, 32), seed=7, scene="generation")
    pose = dict(yaws=yaws, phases=phases, walking=walking)
    truth, others = (shoot(people + first, **pose) for first in (1, 201))
    turned, found = (
        shoot(people + 1, **pose | {"yaws": yaws + turn}, moments=[9] * count).images for turn in (120, 60)
    )
    x, body = truth.images, (truth.masks > 127)[:, None]
    shoes = torch.isin(truth.parsing, torch.tensor(SHOES, dtype=torch.uint8))[:, None]
    cases = {"the photograph itself": x, "two pixels aside": x.roll(2, -1)}
    cases["blurred"] = F.avg_pool2d(x.float(), 5, 1, 2, count_include_pad=False).round().to(torch.uint8)
    cases |= {"shoes inverted": torch.where(shoes, 255 - x, x), "street inverted": torch.where(body, x, 255 - x)}
    cases |= {"another pose": turned, "somebody else in that pose": others.images, "in the wrong order": x.roll(1, 0)}
    masks = {"person": (255 * body[:, 0]).to(torch.uint8), "limbs": limb_masks(truth.keypoints, (64, 32))}
    gallery, lines = PersonImages(found, people, cameras), {}
    for name, images in cases.items():
        means = {"SSIM": quality.ssim(images, x), "L1": quality.l1(images, x), "LPIPS": quality.lpips(images, x, net)}
        means |= {f"mask-LPIPS, {kind}": quality.mask_lpips(images, x, mask, net) for kind, mask in masks.items()}
        line = lines[name] = {metric: values.mean().item() for metric, values in means.items()}
        line["FID"] = quality.fid(x, images, features=judges.looks).value
        line["PCK"], line["PCKh"] = (rate(images, truth.keypoints, judges) for rate in (pose_pck, pckh))
        line["identity"] = identity_kept(images, people, gallery, judges).rank1
        line["style"] = camera_style(images, cameras, judges).share
    return cases, pd.DataFrame(lines).T
