"""One file a data set: each lists its files with their labels, and says how its authors score it.

A module here has `read(root, **its own options) -> Listing` and, where its protocol averages over splits, `SPLITS`: the
options of each. To add a data set: one such file, and its name below.
"""

from importlib import import_module
from types import ModuleType

NAMES = ("market1501", "dukemtmc", "cuhk03", "cuhk01", "msmt17", "deepfashion", "folder")


def reader(name: str) -> ModuleType:
    """Return the module that reads the data set of this name.

    >>> reader("cuhk01").N_SPLITS
    10
    """
    return import_module(f"{__name__}.{name}")
