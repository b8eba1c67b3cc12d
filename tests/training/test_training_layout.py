"""The memory layout that `training.fit` chooses."""

import subprocess
import sys


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
