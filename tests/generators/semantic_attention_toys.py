"""Small networks, people and batches for the tests of SAN."""

import torch
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.generators.semantic_attention import SAN

SIZE = (64, 32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(pids: list[int], seed: int = 0, size=SIZE, **without) -> PersonImages:
    g, n = generator(seed), len(pids)
    known = dict(
        masks=torch.randint(0, 256, (n, *size), generator=g, dtype=torch.uint8),
        parsing=torch.randint(0, 20, (n, *size), generator=g, dtype=torch.uint8),
    )
    images = torch.randint(0, 256, (n, 3, *size), generator=g, dtype=torch.uint8)
    return PersonImages(images, pids, [1, 2] * (n // 2) + [1] * (n % 2), **known | without)


def one_batch(n: int = 2, size=SIZE, **without) -> dict:
    data = people([1] * (n + 1), size=size, **without)
    return Batches(data, pair_batches(torch.tensor([[i, i + 1] for i in range(n)]), n))(0)


def step_of(method: SAN, batch: dict) -> tuple[dict, list]:
    calls = []
    losses = method.training_step(batch, 0, lambda name, loss: calls.append((name, loss)))
    return {name: value.item() for name, value in losses.items()}, calls


def smoke(**options) -> SAN:
    torch.manual_seed(0)
    return SAN(preset="smoke", **{"use_perceptual": False} | options)


class Constant(nn.Module):
    """A network that gives what a function of its inputs says, and keeps what it was given."""

    def __init__(self, value) -> None:
        super().__init__()
        self.value, self.seen = value, []

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.seen.append(inputs)
        return self.value(*inputs)


def vgg() -> nn.Module:
    """The first two convolutions of a VGG, with random weights: as far as relu1_2."""
    network = nn.Module()
    network.features = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU())
    network.avgpool, network.classifier = nn.Identity(), nn.Sequential()
    return network


def strengthen(method: SAN) -> None:
    """Give larger weights: with the first ones, differences inside hardly show in the picture."""
    for module in method.G.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, generator=generator())


def convolutions(network: nn.Module) -> list[tuple]:
    found = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    return [(type(m).__name__[:5], m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in found]
