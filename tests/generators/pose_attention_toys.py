"""Small networks, people and batches for the tests of pose attention."""

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.datasets import PersonImages, poses
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.embedders import Embedder
from reidlib.generators.pose_attention import PoseAttention

HEAD = dict(dimensions=128, norm="batch", relu=True, dropout=0.5, feature="layer")
SIZE = (64, 32)


def people(pids: list[int], seed: int = 0, size=SIZE) -> PersonImages:
    g = torch.Generator().manual_seed(seed)
    n = len(pids)
    images = F.interpolate(torch.rand(n, 3, 8, 4, generator=g), size, mode="bilinear")
    points = torch.cat([torch.rand(n, 18, 2, generator=g) * torch.tensor([size[1], size[0]]), torch.ones(n, 18, 1)], -1)
    masks = torch.randint(0, 256, (n, *size), generator=g, dtype=torch.uint8)
    return PersonImages(
        (images * 255).to(torch.uint8), pids, [i % 2 + 1 for i in range(n)], keypoints=points, masks=masks
    )


def one_batch(ids: int = 3, size=SIZE) -> dict:
    pairs = torch.tensor([[2 * i, 2 * i + 1] for i in range(ids)])
    data = people([i + 1 for i in range(ids) for _ in range(2)], size=size)
    return Batches(data, pair_batches(pairs, ids))(0)


def encoder(n_classes: int = 3, **head) -> Embedder:
    return Embedder(n_classes, width=4, heads=[HEAD | head])


def smoke(with_encoder: bool = False, **options) -> PoseAttention:
    torch.manual_seed(0)
    published = dict(lambda_gan=5.0, adain="pose_style")  # which the course changes
    return PoseAttention(encoder() if with_encoder else None, **{"preset": "smoke", "width": 4} | published | options)


def step_of(method: PoseAttention, batch: dict) -> tuple[dict, dict]:
    """Take a training step that only records what `update` was given."""
    calls = {}
    terms = method.training_step(batch, 0, lambda name, loss: calls.setdefault(name, loss))
    return terms, calls


def pose_pair(n: int = 2, size=SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(poses.heat_maps(people([1] * n, seed, size).keypoints, size) for seed in (1, 2))


def images_of(n: int = 2, size=SIZE) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(3)) * 2 - 1


class Constant(nn.Module):
    """Gives a tensor, or what a function makes of the input."""

    def __init__(self, value) -> None:
        super().__init__()
        self.value = value

    def forward(self, *inputs: torch.Tensor):
        return self.value(*inputs) if callable(self.value) else self.value
