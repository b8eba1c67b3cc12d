"""Commands of the embedded data set: make it, draw the contact sheets of its data card, measure its baselines."""

import argparse
from pathlib import Path

from .write import make, write


def main() -> None:
    """Read the command line and do what it asks."""
    parser = argparse.ArgumentParser(prog="python -m reidlib.datasets.procedural", description=__doc__)
    parser.add_argument("--root", default="data", help="folder that holds procedural/ (default: data)")
    parser.add_argument("--size", default="course", help="smoke, course or full")
    parser.add_argument("--preset", default="retrieval", help="retrieval or generation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--difficulty", type=float, default=1.0, help="0 to 2")
    parser.add_argument("--image-size", type=int, nargs=2, default=(128, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, default=None, help="rendering processes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worker", nargs=3, metavar=("FOLDER", "FIRST", "EVERY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, first, every = arguments.worker
        write(Path(folder), first=int(first), every=int(every))
        return
    print(make(arguments.root, image_size=tuple(arguments.image_size), size=arguments.size, seed=arguments.seed,
               preset=arguments.preset, difficulty=arguments.difficulty, workers=arguments.workers, device=arguments.device))


if __name__ == "__main__":
    main()
