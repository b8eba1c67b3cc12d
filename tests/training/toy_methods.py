"""Tiny methods that the training tests train: a regressor with dropout and BatchNorm, and a two-network game."""

import signal

import torch
from torch import Tensor, nn

N_IMAGES = 24


class ToyBatches:
    """Batches of numbered 'images' [B,3,4,2] as a function of the step, like the library's own."""

    def __init__(self, batch_size: int = 8, rank: int = 0, world: int = 1) -> None:
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.images = torch.rand(N_IMAGES, 3, 4, 2, generator=torch.Generator().manual_seed(5))

    def __len__(self) -> int:
        return N_IMAGES // self.batch_size

    def __call__(self, step: int) -> dict[str, Tensor]:
        epoch, position = divmod(step, len(self))
        order = torch.randperm(N_IMAGES, generator=torch.Generator().manual_seed(epoch))
        part = order[position * self.batch_size : (position + 1) * self.batch_size][self.rank :: self.world]
        return {"images": self.images[part], "indices": part}

    def shard(self, rank: int, world: int) -> "ToyBatches":
        return ToyBatches(self.batch_size, rank, world)


def interrupt(method: nn.Module, step: int) -> dict[str, float]:
    """Press Ctrl-C: as `fit`'s `evaluate`, with `evaluate_every=n`, it stops the training after step n."""
    signal.raise_signal(signal.SIGINT)
    return {}


class Regressor(nn.Module):
    """Predicts each image's mean; dropout and BatchNorm make its numbers depend on random state and buffers."""

    def __init__(self, width: int = 6, *, schedule=None, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout),
            nn.Flatten(), nn.Linear(width * 8, 1),
        )  # fmt: skip
        self.schedule = schedule

    def optimizers(self):
        parameters = list(self.net.parameters())
        return {"E": (parameters, torch.optim.Adam(parameters, lr=0.01), self.schedule)}

    def training_step(self, batch, step, update):
        images = batch["images"].float()
        loss = ((self.net(images).float().squeeze(1) - images.mean((1, 2, 3))) ** 2).mean()
        update("E", loss)
        return {"squared error": loss}


class Game(nn.Module):
    """A generator of images and a discriminator, least-squares GAN; `poison` makes one loss NaN at that step."""

    def __init__(self, poison: int | None = None, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.G = nn.Sequential(nn.Linear(5, 24), *([nn.BatchNorm1d(24)] if norm else []), nn.ReLU(), nn.Linear(24, 24))
        self.D = nn.Sequential(nn.Linear(24, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        self.poison = poison
        self.seen: list[int] = []

    def optimizers(self):
        d, g = list(self.D.parameters()), list(self.G.parameters())
        scheduled = torch.optim.Adam(g, lr=0.01)
        return {
            "D": (d, torch.optim.SGD(d, lr=0.05, momentum=0.9), lambda step: 0.5 ** (step // 4)),
            "G": (g, scheduled, torch.optim.lr_scheduler.StepLR(scheduled, 5)),
        }

    def training_step(self, batch, step, update):
        real = batch["images"].float().flatten(1)
        self.seen += batch["indices"].tolist() if "indices" in batch else []
        fake = self.G(torch.randn(len(real), 5, device=real.device))
        loss_d = ((self.D(real).float() - 1) ** 2).mean() + (self.D(fake.detach()).float() ** 2).mean()
        update("D", loss_d)
        loss_g = ((self.D(fake).float() - 1) ** 2).mean()
        if step == self.poison:
            loss_g = loss_g * float("nan")
        update("G", loss_g)
        return {"L_D": loss_d, "L_G": loss_g}
