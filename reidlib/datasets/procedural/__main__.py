"""Commands of the embedded data set: make it, draw the contact sheets of its data card, measure how hard it is."""

import argparse
from pathlib import Path

from .write import make, write


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reidlib.datasets.procedural", description=__doc__)
    parser.add_argument("--root", default="data", help="folder that holds procedural/ (default: data)")
    parser.add_argument("--size", default="course", help="smoke, course (default) or full")
    parser.add_argument("--preset", default="retrieval", help="retrieval (default) or generation")
    parser.add_argument(
        "--network", default="market1501", help="market1501 (default), dukemtmc, cuhk03, cuhk01 or msmt17"
    )
    parser.add_argument("--seed", type=int, default=0, help="which people (default: 0)")
    parser.add_argument("--difficulty", type=float, default=1.0, help="0 to 2 (default: 1)")
    parser.add_argument("--image-size", type=int, nargs=2, default=(128, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, default=None, help="rendering processes (default: one for each core)")
    parser.add_argument("--device", default="cpu", help="where to render (default: cpu)")
    parser.add_argument("--contact-sheets", metavar="FOLDER", help="draw the data card's contact sheets instead")
    parser.add_argument("--baselines", action="store_true", help="measure how hard the set is instead")
    parser.add_argument(
        "--images-seen",
        type=int,
        nargs="*",
        default=[],
        metavar="N",
        help="with --baselines: also train a small net on so many images",
    )
    parser.add_argument("--worker", nargs=3, metavar=("FOLDER", "FIRST", "EVERY"), help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Read the command line and do what it asks."""
    arguments = _parser().parse_args()
    options = {
        "size": arguments.size,
        "seed": arguments.seed,
        "preset": arguments.preset,
        "network": arguments.network,
        "difficulty": arguments.difficulty,
    }
    if arguments.worker:
        folder, first, every = arguments.worker
        write(Path(folder), first=int(first), every=int(every), device=arguments.device)
    elif arguments.contact_sheets:
        from .sheets import contact_sheets

        for path in contact_sheets(arguments.contact_sheets):
            print(path)
    elif arguments.baselines:
        from reidlib.tools.difficulty import baselines

        from ..loading import load

        bench = load("procedural", arguments.root, (64, 32), **options)
        print(baselines(bench, images_seen=arguments.images_seen, seed=arguments.seed).to_string(index=False))
    else:
        print(
            make(
                arguments.root,
                image_size=tuple(arguments.image_size),
                workers=arguments.workers,
                device=arguments.device,
                **options,
            )
        )


if __name__ == "__main__":
    main()
