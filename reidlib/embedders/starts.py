"""What a backbone starts from: the recorded weights, ImageNet's, a file, another network's weights, or nothing."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from reidlib.files import resolve
from reidlib.networks import SmallResNet, load_state, read_weights

STARTS = ("recorded", "recorded-2", "imagenet", "none")
FOLDER = "notebooks/weights"
COMMAND = "reidlib starts"
WIDTH = 16  # of the recorded starts, the course's
RECORDED = {  # by name and image size
    ("recorded", (64, 32)): "start-1.safetensors",
    ("recorded-2", (64, 32)): "start-2.safetensors",
    ("recorded", (128, 64)): "start-128x64.safetensors",
}
# torchvision's names and ours
TORCHVISION = {"conv1.": "stem.0.", "bn1.": "stem.1."} | {f"layer{k}.": f"stages.{k - 1}." for k in range(1, 5)}

Start = str | Path | Mapping[str, Tensor]


def load_start(backbone: nn.Module, start: Start, image_size: tuple[int, int] = (64, 32)) -> str:
    """Load what `start` names into a backbone in place, and return the source in words, for the results.

    Args:
        backbone: `SmallResNet` or `resnet.ResNet50`.
        start: "none": the random weights stay. "recorded" and "recorded-2": what the command `reidlib starts` trained
            from two seeds on rendered people of networks that no table uses, for the small backbone of width 16 at
            64x32 (the first also at 128x64). "imagenet": ResNet-50's weights from torchvision's cache, where the user
            put them; nothing is downloaded. Else a file (see `networks.read_weights`) or a state dict, of this backbone
            or with torchvision's names.
        image_size: (height, width) of the training images, which chooses the recorded file.

    Returns:
        "random", "given" for a state dict, the file's name, or the start's name with the file's.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: another name, or weights that do not fit the backbone or the image size.

    >>> load_start(SmallResNet(8), "none"), load_start(SmallResNet(8), SmallResNet(8).state_dict())
    ('random', 'given')
    """
    if isinstance(start, Mapping):
        state, source = start, "given"
    elif start == "none":
        return "random"
    else:
        path, source = _file(backbone, start, tuple(image_size))
        state = read_weights(path)
    names = {name: next((n for n in TORCHVISION if name.startswith(n)), "") for name in state}
    own = {TORCHVISION.get(n, "") + name.removeprefix(n): state[name] for name, n in names.items()}
    load_state(backbone, own, f"start ({source})", skip=("fc.",))
    return source


def _file(backbone: nn.Module, start: str | Path, image_size: tuple[int, int]) -> tuple[Path, str]:
    """Return the file that a start means, and what it is called."""
    name = str(start)
    if name == "imagenet":
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        # resnet50-0676ba61.pth, the weights of the papers, sorts before the later ones
        cached = sorted(folder.glob("resnet50-*.pth"))
        if not cached:
            raise FileNotFoundError(
                f"start='imagenet' needs torchvision's ResNet-50 weights, and {folder} holds no resnet50-*.pth: put "
                f"resnet50-0676ba61.pth there, or choose start='none' or a file"
            )
        return cached[0], f"ImageNet ({cached[0].name})"
    if name not in {recorded for recorded, _ in RECORDED}:
        if not Path(name).suffix:
            accepted = ", ".join(map(repr, STARTS))
            raise ValueError(f"start={name!r}: accepted are {accepted}, a file of weights or a state dict")
        return Path(start), Path(start).name
    fits = isinstance(backbone, SmallResNet) and backbone.dimensions == 8 * WIDTH
    if not fits or (name, image_size) not in RECORDED:
        sizes = ", ".join(f"{n!r} at {h}x{w}" for n, (h, w) in RECORDED)
        raise ValueError(
            f"start={name!r} does not fit {type(backbone).__name__} with features of {backbone.dimensions} and images "
            f"of {image_size[0]}x{image_size[1]}: recorded for SmallResNet of width {WIDTH} are {sizes}; choose "
            f"start='none', a file or a state dict"
        )
    path = resolve(FOLDER) / RECORDED[name, image_size]
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: `{COMMAND}` makes it")
    return path, f"{name} ({path.name})"
