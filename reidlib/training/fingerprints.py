"""What decides a training's numbers, as plain values that its checkpoint keeps: another training is refused by name."""

import functools
import hashlib
import json
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from reidlib.datasets.person_images import ANNOTATIONS, PersonImages
from reidlib.datasets.sampling import Batches

SAMPLE = 64  # images of a set whose pixels are read
FIRST = 3  # batches whose rows are read
PLAIN = (bool, int, float, str, tuple, dict, type(None))  # attributes of a module that are settings
_begun: "weakref.WeakKeyDictionary[nn.Module, tuple[Path, str]]" = weakref.WeakKeyDictionary()


def digest(*values: Any) -> str:
    """Return 16 characters that tell tensors (shape, type and every number) and words apart.

    >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest(torch.zeros(2)) == digest(torch.zeros(1, 2))
    (True, False)
    """
    out = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            out.update(f"{value.dtype} {list(value.shape)}".encode())
            out.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            out.update(f"{value}\n".encode("utf-8", "surrogateescape"))
    return out.hexdigest()[:16]


def images_digest(images: PersonImages) -> str:
    """Digest a set of images: every name, and the pixels, annotations and cameras of 64 images spread over it.

    >>> people = PersonImages(torch.zeros(2, 3, 8, 4, dtype=torch.uint8), [1, 2], [1, 1])
    >>> images_digest(people) == images_digest(people.with_labels(camids=2))
    False
    """
    batch = images.batch(torch.linspace(0, len(images) - 1, min(SAMPLE, len(images))).long())
    return digest(*images.names, *(batch[name] for name in ("images", *ANNOTATIONS, "camids") if name in batch))


def weights_digest(method: nn.Module) -> str:
    """Digest every tensor of a method's state by its name."""
    return digest(*(item for pair in sorted(method.state_dict().items()) for item in pair))


def describe(value: Any, depth: int = 6) -> str:
    """Describe an augmentation, or another setting, by its name and the options that it holds.

    The arguments of `functools.partial`, what a closure or an object holds, and (outside this package) the constants
    and names in a function's body count: with another number in any of them it is another one.

    >>> describe(functools.partial(torch.clamp, min=0.5)), describe((1, "a", None))
    ('clamp(min=0.5)', "(1, 'a', None)")
    """
    held: Mapping[Any, Any] = {}
    inner = functools.partial(describe, depth=depth - 1)
    if depth == 0:
        return type(value).__name__
    if isinstance(value, functools.partial):
        name, held = inner(value.func), dict(enumerate(value.args)) | value.keywords
    elif isinstance(value, MethodType):
        name, held = value.__qualname__, {"self": value.__self__}
    elif isinstance(value, FunctionType):
        inside = value.__module__.split(".")[0] == "reidlib"
        name = value.__qualname__ if inside else f"{value.__qualname__}#{digest(*_body(value.__code__))}"
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        held = {key: cell.cell_contents for key, cell in cells} | (value.__kwdefaults__ or {})
    elif isinstance(value, Tensor):
        name = f"tensor#{digest(value)}"
    elif hasattr(value, "tobytes"):
        name = f"array#{digest(value.tobytes())}"
    elif isinstance(value, tuple | list):
        return f"({', '.join(map(inner, value))})"
    elif isinstance(value, dict):
        name, held = "", value
    elif hasattr(value, "__dict__") and type(value).__repr__ is object.__repr__:
        name, held = type(value).__qualname__, vars(value)
    else:
        name = getattr(value, "__name__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    options = ", ".join(f"{key}={inner(option)}" for key, option in held.items())
    return f"{name}({options})" if held else name


def _body(code: CodeType) -> list[Any]:
    """List the names, and the constants but for the docstring, of a function and of those inside it."""
    kept = [value for i, value in enumerate(code.co_consts) if i or not isinstance(value, str)]
    return [code.co_names, *(_body(value) if isinstance(value, CodeType) else value for value in kept)]


def of_method(method: nn.Module, settings: Any, run_dir: Path | None) -> dict[str, Any]:
    """Return what a method and its settings decide: weights at the start, modules and their options, shapes.

    A method that `run_dir` knows from an earlier call keeps the weights with which it began: after an interruption
    the same call goes on.
    """
    if run_dir is None or _begun.get(method, (None,))[0] != run_dir:
        _begun[method] = (run_dir, weights_digest(method))
    facts = {"method": type(method).__name__, "weights at the start": _begun[method][1]}
    for prefix, given in (("settings", settings), ("method.settings", getattr(method, "settings", None))):
        given = asdict(given) if is_dataclass(given) else given
        given = given if isinstance(given, Mapping) or given is None else {"value": given}
        facts |= {f"{prefix}.{name}": value for name, value in (given or {}).items()}
    for name, module in method.named_modules():
        own = {k: v for k, v in vars(module).items() if isinstance(v, PLAIN) and k[0] != "_" and k != "training"}
        options = module.extra_repr() if type(module).__module__.startswith("torch.nn") else describe(own)
        facts[f"module {name or 'itself'}"] = f"{type(module).__name__}({options})"
    return facts | {f"shape of {name}": list(tensor.shape) for name, tensor in method.named_parameters()}


def of_batches(batches: Callable[[int], Mapping[str, Any]], steps: int) -> dict[str, Any]:
    """Return what the batches decide: images, labels, sampler and augmentation.

    Of other objects than `sampling.Batches` only the first batches can be looked at.
    """
    facts = {"steps": steps} | ({"len(batches)": len(batches)} if hasattr(batches, "__len__") else {})
    first = range(min(FIRST, steps))
    if not isinstance(batches, Batches):
        tensors = [value for step in first for pair in sorted(batches(step).items()) for value in pair]
        return facts | {"first batches": digest(*tensors)}
    return facts | {
        "number of images": len(batches.images),
        "images": images_digest(batches.images),
        "labels": digest(batches.labels, batches.images.pids),
        "sampler": digest(*(batches.rows(step) for step in first)),
        "augmentation": describe(batches.augment),
        "seed of the batches": batches.seed,
    }


def plain(value: Any) -> Any:
    """Turn settings into JSON's plain values, so that they compare and load without executing anything."""
    return json.loads(json.dumps(value, default=describe, sort_keys=True))
