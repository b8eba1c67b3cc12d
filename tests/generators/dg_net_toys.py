"""Small networks, people and batches for the tests of DG-Net."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.datasets.sampling import Batches, two_pair_batches
from reidlib.embedders.resnet import Embedder
from reidlib.generators import dg_net
from reidlib.generators.dg_net import DGNet

K = 4
LATE = 29  # of 30 steps: every weight has grown


def encoder(classes: int = K, *, width: int = 4, dropout: float = 0.5, **options) -> Embedder:
    heads = [dict(dimensions=16, norm="batch", dropout=p) for p in (dropout, min(1.5 * dropout, 0.9))]
    return Embedder(classes, **dict(width=width, last_stride=1, pool="max", heads=heads) | options)


def teacher(classes: int = K) -> Embedder:
    return Embedder(classes, width=4, heads=[dict(dimensions=16, norm="batch", dropout=0.5)])


def smoke(*, dropout: float = 0.0, classes: int = K, fresh: bool = False, **switches) -> DGNet:
    """Return a small method whose first scores differ from 0, unless `fresh`: as initialised all heads say nothing."""
    torch.manual_seed(0)
    options = dict(preset="smoke", foreground_weight=1.0, teacher=teacher(classes)) | switches
    method = DGNet(encoder(classes, dropout=dropout), **options)
    if not fresh:
        judge = [] if method._teacher is None else [method._teacher.on(torch.device("cpu"))]
        with torch.no_grad():
            for network in (method.E_a.network, *judge):
                for head in network.heads:
                    head.classifier.weight.mul_(500)
            for scale in method.D.scales:
                for p in scale.parameters():
                    p.mul_(4)
    return method


def people(n: int = 12, size=(64, 32), seed: int = 0) -> PersonImages:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, *size), generator=g, dtype=torch.uint8)
    masks = torch.randint(0, 256, (n, *size), generator=g, dtype=torch.uint8)
    return PersonImages(images, torch.arange(n) % K, torch.ones(n, dtype=torch.int64), masks=masks)


def quadruples(rows: int = 3, augment=None, **options) -> dict:
    images = people(**options)
    return Batches(images, two_pair_batches(images.pids, rows, distinct=True), augment=augment)(0)


def step_of(method: DGNet, batch: dict, step: int = LATE) -> tuple[dict, list[str]]:
    """Take a training step that trains nothing."""
    calls = []
    terms = method.training_step(batch, step, lambda name, loss: calls.append(name))
    return terms, calls


def reached(term: torch.Tensor, method: DGNet) -> set[str]:
    """Name the networks that a loss has a gradient for."""
    parts = {"E_s": method.E_s, "G": nn.ModuleList([method.G.first, method.G.second, method.G.last]),
             "MLPs": nn.ModuleList([method.G.scales, method.G.shifts]), "D": method.D,
             "backbone": method.E_a.network.backbone, "head 1": method.E_a.network.heads[0],
             "head 2": method.E_a.network.heads[1]}  # fmt: skip
    owners, every = zip(*((name, p) for name, part in parts.items() for p in part.parameters()), strict=True)
    gradients = torch.autograd.grad(term, every, retain_graph=True, allow_unused=True)
    return {name for name, g in zip(owners, gradients, strict=True) if g is not None and g.abs().sum() > 0}


@contextmanager
def weightless():
    """Make and run networks without numbers: shapes and counts need none. Autocast does not know such a device."""
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
        patch.setattr(dg_net, "weights_digest", lambda network: "unknown")
        yield


def count(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())
