"""Images a second and memory of the methods' own sizes where a GPU is at hand: `python tests/benchmarks/gpu_speed.py`.

Trains pose attention (128x64, width 64, ResNet-50; joint steps of 32 pairs) and DG-Net (256x128, ResNet-50; steps of 8
rows, 32 images, over a schedule of 100 steps and on at its end) by `fit` on random images, in float32 and bfloat16,
after some steps that set up kernels. Writes gpu_speed.csv beside this file: a line for each device, method and
precision, newest last. `--preset smoke --device cpu --steps 2 --out FILE` tries it anywhere.
"""

import argparse
import datetime
from pathlib import Path

import pandas as pd
import test_dg_net_speed as dg_net
import test_pose_attention_speed as pose_attention
import torch

from reidlib.machine import device_name, pick_device
from reidlib.training import fit

TABLE = Path(__file__).with_suffix(".csv")
BATCH = {"pose attention": (pose_attention, 32), "DG-Net": (dg_net, 8)}  # pairs; rows of two people
WARM = 5


def measure(name: str, preset: str, precision: str, device: torch.device, steps: int) -> dict[str, object]:
    """Train one method for some steps; return what its line of the table holds."""
    module, rows = BATCH[name]
    rows = rows if preset == "paper" else 4
    method = module.made(preset)
    batches = module.batches_of(method, rows)
    how = dict(device=device, precision=precision, progress=False, log_every=steps)
    fit(method, batches, WARM, **how)
    history = fit(method, batches, steps, **how)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name(device),
        "torch": torch.__version__,
        "method": name,
        "preset": preset,
        "image size": "x".join(map(str, method.settings["image_size"])),
        "rows": rows,
        "precision": history.precision,
        "steps": steps,
        "rows/s": round(history.images / history.seconds, 1),
        "seconds a step": round(history.seconds / steps, 4),
        "peak GiB": round((history.peak_memory or 0) / 2**30, 2),
    }


def main() -> None:
    """Measure every method in both precisions and append the lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", nargs="+", default=[*BATCH], choices=[*BATCH])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    device = pick_device(options.device)
    for name in options.methods:
        for precision in ("fp32", "bf16"):
            row = pd.DataFrame([measure(name, options.preset, precision, device, options.steps)])
            print(row.to_string(index=False, header=precision == "fp32"), flush=True)
            row.to_csv(options.out, mode="a", index=False, header=not options.out.exists())


if __name__ == "__main__":
    main()
