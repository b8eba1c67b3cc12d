"""`reidlib render`: rendered sets, the contact sheets of the data card, and how hard a set is."""

import argparse

from reidlib.checks import reading_inputs
from reidlib.datasets import load, procedural
from reidlib.datasets.procedural.networks import NETWORKS
from reidlib.datasets.procedural.sheets import contact_sheets
from reidlib.datasets.procedural.write import check
from reidlib.machine import pick_device
from reidlib.tools.difficulty import baselines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib render`."""
    parser.add_argument("--root", default="data", help="folder that holds procedural/ (default: data)")
    parser.add_argument("--size", default="course", help="smoke, course (default), many or full")
    parser.add_argument("--scene", default="retrieval", help="retrieval (default) or generation")
    parser.add_argument("--network", default="market1501", help=f"{', '.join(NETWORKS)} (default: market1501)")
    parser.add_argument("--seed", type=int, default=0, help="which people (default: 0)")
    parser.add_argument("--difficulty", type=float, default=1.0, help="0 to 2 (default: 1)")
    parser.add_argument("--image-size", type=int, nargs=2, default=(128, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, help="rendering processes (default: one for each core)")
    parser.add_argument("--device", default="cpu", help="where to render (default: cpu)")
    parser.add_argument("--contact-sheets", metavar="FOLDER", help="draw the data card's contact sheets instead")
    parser.add_argument("--difficulty-table", action="store_true", help="measure how hard the set is instead")
    parser.add_argument("--images-seen", type=int, nargs="*", default=[], metavar="N",
                        help="with --difficulty-table: also train a small network on so many images")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Make what is asked for and print where it is, or the table."""
    which = {name: getattr(options, name) for name in ("size", "seed", "scene", "network", "difficulty")}
    with reading_inputs():
        check(tuple(options.image_size), options.size, options.scene, options.network, options.difficulty)
        pick_device(options.device)
    if options.contact_sheets:
        print(*contact_sheets(options.contact_sheets), sep="\n")
    elif options.difficulty_table:
        bench = load("procedural", options.root, (64, 32), **which)
        print(baselines(bench, images_seen=options.images_seen, seed=options.seed).to_string(index=False))
    else:
        how = {"image_size": tuple(options.image_size), "workers": options.workers, "device": options.device}
        print(procedural.make(options.root, **how, **which))
    return 0
