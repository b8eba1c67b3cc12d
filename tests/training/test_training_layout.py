"""What torch 2.13 gets wrong on a CPU, and how `training.fit` keeps away from it: memory layout, AMX."""

import subprocess
import sys

BFLOAT16 = """
import reidlib, torch
from torch import nn
from reidlib import training

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(8, 64, 5, stride=2, padding=2)  # of 2x1 images: AMX's gradient of these weights fails
    def optimizers(self):
        parameters = list(self.parameters())
        return {"E": (parameters, torch.optim.SGD(parameters, lr=0.01), None)}
    def training_step(self, batch, step, update):
        loss = (self.last(self.first(batch["images"]).relu()).float() - 1).square().mean()
        update("E", loss)
        return {"loss": loss}

def batches(step):
    torch.full((1 << 18,), float("nan")), torch.full((1 << 12,), float("nan"))  # what is read unwritten shows
    return {"images": torch.randn(18, 3, 4, 2, generator=torch.Generator().manual_seed(step))}

torch.set_num_threads(1)
for repeat in range(3):
    torch.manual_seed(0)
    options = dict(device="cpu", precision="bf16", progress=False, log_every=1)
    try:
        print(training.fit(Net(), batches, 20, **options).losses["loss"].tolist())
    except FloatingPointError as error:
        print("not finite", repeat, error)
"""


def test_bfloat16_convolutions_repeat_their_numbers():
    """Importing reidlib keeps oneDNN from the AMX units; with ONEDNN_MAX_CPU_ISA=DEFAULT there this test fails."""
    result = subprocess.run([sys.executable, "-c", BFLOAT16], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    first, *others = result.stdout.splitlines()
    assert "not finite" not in result.stdout and others == [first, first], result.stdout


def test_a_batch_of_27_images_trains_on_two_threads():
    """In channels_last torch 2.13 corrupts memory here on a CPU, so "auto" must not choose it."""
    code = (
        "import torch; from reidlib.datasets import PersonImages; from reidlib.experiments import train_baseline\n"
        "torch.set_num_threads(2)\n"
        "torch.manual_seed(0); images = torch.randint(0, 255, (27, 3, 64, 32), dtype=torch.uint8)\n"
        "people = PersonImages(images, torch.arange(27) % 14, torch.ones(27, dtype=torch.long))\n"
        "options = dict(images_seen=480, loss='lsr', preset='smoke', device='cpu', progress=False)\n"
        "histories = [train_baseline(people, seed=seed, **options)[1] for seed in range(3)]\n"
        "print([history.channels_last for history in histories])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "[False, False, False]"
