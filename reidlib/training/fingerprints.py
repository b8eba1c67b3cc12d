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
# of a method that has been trained: where, its weights at the start and those with which it came back
_begun: "weakref.WeakKeyDictionary[nn.Module, tuple[Path, str, str]]" = weakref.WeakKeyDictionary()


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

    The arguments of `functools.partial`, defaults, what a closure or an object holds, and (outside this package) the
    function's body count: with another number or operation in any of them it is another one.

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
        defaults = value.__defaults__ or ()
        named = value.__code__.co_varnames[: value.__code__.co_argcount][value.__code__.co_argcount - len(defaults) :]
        held = dict(zip(named, defaults, strict=True)) | (value.__kwdefaults__ or {})
        held |= {key: cell.cell_contents for key, cell in cells}
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
    options = ", ".join(f"{key}={inner(held[key])}" for key in sorted(held, key=str))  # given in whatever order
    return f"{name}({options})" if held else name


def _body(code: CodeType) -> list[Any]:
    """List operations, names, and constants but for the docstring, of a function and of those inside it."""
    kept = [value for i, value in enumerate(code.co_consts) if i or not isinstance(value, str)]
    inner = (_body(value) if isinstance(value, CodeType) else value for value in kept)
    return [code.co_code.hex(), code.co_names, *inner]


def of_method(method: nn.Module, settings: Any, run_dir: Path | None) -> dict[str, Any]:
    """Return what a method and its settings decide: weights at the start, modules and their options, shapes.

    A method that comes back as a call with this `run_dir` left it (see `remember`) began with the weights of that
    call: after an interruption the same call goes on.
    """
    now = weights_digest(method)
    where, began, left = _begun.get(method, (None, now, now))
    facts = {"method": type(method).__name__}
    facts["weights at the start"] = began if (where, left) == (run_dir, now) else now
    for prefix, given in (("settings", settings), ("method.settings", getattr(method, "settings", None))):
        given = asdict(given) if is_dataclass(given) else given
        given = given if isinstance(given, Mapping) or given is None else {"value": given}
        facts |= {f"{prefix}.{name}": value for name, value in (given or {}).items()}
    for name, module in method.named_modules():
        own = {k: v for k, v in vars(module).items() if isinstance(v, PLAIN) and k[0] != "_" and k != "training"}
        options = module.extra_repr() if type(module).__module__.startswith("torch.nn") else describe(own)
        facts[f"module {name or 'itself'}"] = f"{type(module).__name__}({options})"
    return facts | {f"shape of {name}": list(tensor.shape) for name, tensor in method.named_parameters()}


def remember(method: nn.Module, run_dir: Path, began: str) -> None:
    """Note with which weights a training in `run_dir` began and ended, for the call that goes on."""
    _begun[method] = (run_dir, began, weights_digest(method))


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
