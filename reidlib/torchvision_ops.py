"""Let torchvision import beside a torch build that its compiled operators do not fit.

torchvision's wheel for CUDA cannot load its operators next to a CPU build of torch, and its import then stops with
`operator torchvision::nms does not exist`. Models, transforms and utils need none of those operators, so it is enough
to declare the schemas that torchvision describes to torch while it is imported. Calling them still fails, as it must.

Import this module before anything that imports torchvision (torchmetrics and lpips do). Where the operators are there
it changes nothing.
"""

import ctypes
import importlib.util
from pathlib import Path

import torch

# what torchvision's import describes to torch by name
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _has_compiled_ops() -> bool:
    """Say whether torchvision's compiled operators load beside this torch (the test torchvision makes itself)."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # nothing to repair; the import itself will say what is missing
    for extension in sorted(Path(spec.origin).parent.glob("_C.*")):
        try:
            ctypes.CDLL(str(extension))
            return True
        except OSError:
            continue
    return False


def _declare_missing() -> torch.library.Library | None:
    """Declare the missing operator schemas if, and only if, torchvision's own operators cannot load.

    Returns:
        the library of the declared schemas (torchvision's compiled operators are absent: no `torchvision.ops.nms`, no
        `torchvision.io`), None where there was nothing to do.

    >>> import torchvision
    """
    if _has_compiled_ops():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    return library


_library = _declare_missing()  # a schema lives as long as its Library object
COMPILED_OPS = _library is None
