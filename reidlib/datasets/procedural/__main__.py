"""The process that `make` starts to render its share of a set; people use `reidlib render`."""

import argparse
from pathlib import Path

from .write import write


def main() -> None:
    """Render the chunks of a prepared folder that are missing, from FIRST on, each EVERY-th."""
    parser = argparse.ArgumentParser(prog="python -m reidlib.datasets.procedural", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("every", type=int)
    given = parser.parse_args()
    write(given.folder, first=given.first, every=given.every)


if __name__ == "__main__":
    main()
