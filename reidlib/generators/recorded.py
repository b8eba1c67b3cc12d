"""Recorded generators: small networks under `notebooks/weights`, trained for long on many rendered people.

`reidlib generators` trains and writes them. They draw people at 64x32 in the scene "generation" of the network that
their facts name, and were trained on 480 people who are in no table.
"""

import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reidlib.checks import check_choice
from reidlib.files import resolve
from reidlib.networks import load_state, read_facts, read_weights, save_weights

FOLDER = "notebooks/weights"
MODULES = {  # class: its file
    "PNGAN": "pn_gan",
    "CameraTransfer": "camera_transfer",
    "PoseAttention": "pose_attention",
    "SAN": "semantic_attention",
    "DGNet": "dg_net",
}
NOT_DRAWING = ("D", "E.", "pool_", "_")  # beginnings of the parts that `generate` does without: discriminators, ...


def save_generator(method: nn.Module, path: str | os.PathLike, **facts: Any) -> Path:
    """Write what `method.generate` needs, in half precision, with `method.settings` and `facts` in the file's header.

    Raises:
        ValueError: a class that `load_generator` does not know.
    """
    check_choice("generator", type(method).__name__, MODULES)
    facts = {"class": type(method).__name__, "settings": method.settings} | facts
    return save_weights(method, resolve(path), half=True, skip=NOT_DRAWING, facts=facts)


def load_generator(
    name: str | os.PathLike, device: str | torch.device = "cpu", folder: str | os.PathLike = FOLDER, **parts: Any
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return a recorded generator, ready for `synthesise`, and the facts of its training.

    Args:
        name: of a recorded one, such as "pn_gan" or "camera_transfer-4", or a file that `save_generator` wrote.
        device: where it goes.
        folder: where the recorded ones are.
        parts: what its class takes beside its settings, or instead of one: of DG-Net the network whose weights the file
            holds, `encoder=`, and `feed_generated=False` where it has no teacher (it is to draw, not to train).

    Raises:
        FileNotFoundError: no such file, naming those that are there.
        ValueError: a file of something else; a part that the class cannot do without.
    """
    path = Path(name) if Path(name).suffix else resolve(folder) / f"{name}.safetensors"
    if not resolve(path).is_file():
        there = ", ".join(sorted(p.stem for p in resolve(folder).glob("*.safetensors"))) or "none"
        raise FileNotFoundError(f"no recorded generator at {path}; recorded in {folder}: {there}")
    facts = read_facts(path)
    check_choice(f"the class of {path}", facts.get("class"), MODULES)
    module = import_module(f"reidlib.generators.{MODULES[facts['class']]}")
    made = getattr(module, facts["class"])
    accepted = {*signature(made).parameters, *module.PAPER}  # `PAPER` names what a class takes as `**switches`
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in facts["settings"].items() if n != "teacher"} | parts
    own = [p for p in signature(made).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if missing := [p.name for p in own if p.name not in given]:
        raise ValueError(f"{path} holds a {facts['class']}, which is loaded with {', '.join(f'{n}=' for n in missing)}")
    with torch.random.fork_rng(devices=[]):  # first weights are drawn and thrown away
        method = made(**{n: v for n, v in given.items() if n in accepted})
    load_state(method, read_weights(path), str(path), skip=NOT_DRAWING)
    return method.to(device).eval(), facts


def load_recorded(
    names: Iterable[str], device: str | torch.device = "cpu", folder: str | os.PathLike = FOLDER
) -> dict[str, nn.Module]:
    """Return those of the named generators that are recorded, each ready for `synthesise`; see `load_generator`.

    >>> load_recorded(["a generator that nobody has trained"])
    {}
    """
    there = [name for name in names if (resolve(folder) / f"{name}.safetensors").is_file()]
    return {name: load_generator(name, device, folder)[0] for name in there}
