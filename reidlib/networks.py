"""What networks of several packages share: pixel scaling, evaluation mode, weights, the small backbone."""

import copy
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import reidlib.torchvision_ops  # noqa: F401 - before torchvision
from reidlib.checks import check_choice, some
from reidlib.files import atomic_path, resolve

from torchvision.models.resnet import BasicBlock  # isort: skip

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALES = {"signed": ((0.5,) * 3, (0.5,) * 3), "imagenet": (IMAGENET_MEAN, IMAGENET_STD)}  # mean, deviation in [0, 1]
# names that trainers store weights under
WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")

# sRGB primaries to CIE XYZ; white of D65, 2 degrees
XYZ_FROM_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)


def normalise(images: Tensor, mode: str = "imagenet") -> Tensor:
    r"""Scale uint8 pixels to what networks take: `"imagenet"` $(p/255-\mu)/\sigma$, or `"signed"` $2p/255-1$.

    Args:
        images: uint8 [...,3,H,W].
        mode: `"imagenet"` for embedders and DG-Net, `"signed"` for generators (tanh's range).

    Returns:
        float32 of the same shape.

    >>> normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), "signed").flatten().tolist()
    [1.0, 1.0, 1.0]
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"normalise takes uint8 images, got {images.dtype} (already normalised?)")
    mean, std = _scale(mode, images.device)
    return images.float().sub_(mean).div_(std)


def denormalise(images: Tensor, mode: str = "imagenet") -> Tensor:
    """Turn a network's pixels back to uint8, rounded and clamped: the inverse of `normalise`.

    >>> pixels = torch.arange(0, 255, 23, dtype=torch.uint8).reshape(1, 3, 2, 2)
    >>> bool((denormalise(normalise(pixels)) == pixels).all())
    True
    """
    if not images.is_floating_point():
        raise TypeError(f"denormalise takes floating point images, got {images.dtype}")
    mean, std = _scale(mode, images.device)
    return (images.detach().float() * std + mean).round().clamp(0, 255).to(torch.uint8)


def signed_to_imagenet(images: Tensor) -> Tensor:
    """Turn a generator's pixels in [-1, 1] into what embedders take; gradients flow through.

    >>> black = torch.full((1, 3, 1, 1), -1.0)
    >>> torch.allclose(signed_to_imagenet(black), normalise(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)))
    True
    """
    mean, std = (images.new_tensor(values)[:, None, None] for values in SCALES["imagenet"])
    return ((images + 1) / 2 - mean) / std


def imagenet_to_signed(images: Tensor) -> Tensor:
    """Turn what embedders take into a generator's pixels, cut to [-1, 1]: the inverse of `signed_to_imagenet`.

    >>> images = torch.tensor([-1.0, 0.5, 1.0])[None, :, None, None]
    >>> imagenet_to_signed(signed_to_imagenet(images)).flatten().round(decimals=4).tolist()
    [-1.0, 0.5, 1.0]
    """
    mean, std = (images.new_tensor(values)[:, None, None] for values in SCALES["imagenet"])
    return (2 * (images * std + mean) - 1).clamp(-1, 1)


def rgb_to_lab(images: Tensor) -> Tensor:
    """Turn sRGB in [0, 1], float [B,3,H,W], to CIELAB (D65): L in [0, 100], a and b around 0.

    >>> white, red = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    >>> [round(value, 1) for value in rgb_to_lab(red).flatten().tolist()]
    [53.2, 80.1, 67.2]
    """
    linear = torch.where(images > 0.04045, ((images.clamp_min(0) + 0.055) / 1.055) ** 2.4, images / 12.92)
    white = images.new_tensor(WHITE)[:, None, None]
    xyz = torch.einsum("ij,bjhw->bihw", images.new_tensor(XYZ_FROM_RGB), linear) / white
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(1e-8) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Turn CIELAB (D65), float [B,3,H,W], to sRGB; colours that sRGB cannot show are cut to [0, 1].

    >>> lab_to_rgb(torch.tensor([100.0, 0.0, 0.0])[None, :, None, None]).flatten().round(decimals=2).tolist()
    [1.0, 1.0, 1.0]
    """
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * lab.new_tensor(WHITE)[:, None, None]
    inverse = torch.linalg.inv(torch.tensor(XYZ_FROM_RGB, dtype=torch.float64)).to(lab)
    linear = torch.einsum("ij,bjhw->bihw", inverse, xyz)
    bent = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-8) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return bent.clamp(0, 1)


def _scale(mode: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation in pixels of 0..255, [3,1,1]."""
    check_choice("mode", mode, SCALES)
    return tuple(255 * torch.tensor(v, device=device)[:, None, None] for v in SCALES[mode])


def check_images(images: Tensor) -> None:
    """Refuse anything but uint8 images [B,3,H,W].

    >>> check_images(torch.zeros(1, 3, 2, 2))
    Traceback (most recent call last):
    ValueError: images must be uint8 [B,3,H,W], got torch.float32 [1, 3, 2, 2]
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        got = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be uint8 [B,3,H,W], got {got}")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for the length of the block."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def device_of(method: nn.Module) -> torch.device:
    """Return where a method's parameters lie; without any, where its buffers do; without those, the CPU."""
    return next((tensor.device for tensor in (*method.parameters(), *method.buffers())), torch.device("cpu"))


class Frozen:
    """A trained network that guides another one: copied, in evaluation mode, without gradients.

    It is no `nn.Module`, so a method that keeps one neither trains nor saves it, and `method.train()` leaves it alone.

    Raises:
        TypeError: anything but a network.

    >>> guide = Frozen(nn.Linear(2, 1))
    >>> any(p.requires_grad for p in guide.on(torch.device("cpu")).parameters())
    False
    """

    def __init__(self, network: nn.Module) -> None:
        if not isinstance(network, nn.Module):
            raise TypeError(f"guide must be a network (nn.Module) or None, got {type(network).__name__}")
        self._network = copy.deepcopy(network).eval().requires_grad_(False)

    def on(self, device: torch.device) -> nn.Module:
        """Return the network, on this device."""
        return self._network.to(device)


def save_weights(
    method: nn.Module,
    path: str | os.PathLike,
    *,
    half: bool = False,
    skip: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the weights and buffers of `method` as safetensors, with `facts` as JSON in its header.

    `half=True` stores float tensors in float16, for small files in the repository. What begins with one of `skip` is
    left out, as in `load_state`.
    """
    path = Path(path)
    tensors = {}
    for name, tensor in method.state_dict().items():
        if name.startswith(tuple(skip)):
            continue
        narrow = half and tensor.is_floating_point()
        # a copy each: safetensors takes neither shared memory nor channels_last strides
        tensors[name] = tensor.detach().to("cpu", torch.float16 if narrow else tensor.dtype, copy=True).contiguous()
    metadata = {"method": type(method).__name__, "facts": json.dumps(dict(facts or {}), default=str, sort_keys=True)}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))  # save_file would shut others out of the file
    return path


def load_weights(method: nn.Module, path: str | os.PathLike) -> dict[str, Any]:
    """Load `save_weights`' file into `method` in place and return its facts.

    Raises:
        FileNotFoundError, ValueError: see `read_weights` and `load_state`.
    """
    load_state(method, read_weights(path), str(path))
    return read_facts(path)


def read_facts(path: str | os.PathLike) -> dict[str, Any]:
    """Return the facts in the header of `save_weights`' file; none in a file of another kind."""
    path = resolve(path)
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get("facts", "{}"))


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors of a file of weights onto the CPU; nothing in it is executed, nothing is downloaded.

    What trainers wrap around them is taken off: a dictionary entry such as "state_dict", and "module." before names.

    Args:
        path: `.safetensors`, or anything that `torch.save` wrote; a relative path counts from the repository root.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, one that would execute code (a pickle of objects), one without tensors, or weights
            that are not finite.
    """
    path = resolve(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: give a file of weights (.safetensors or .pth)")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a handle, not a dict)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no file of weights: {error}") from error
    except Exception as error:  # pickle, zip and torch each raise their own
        raise ValueError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}); a file that holds Python objects is "
            f"refused, because loading it would execute what is in it: save its state_dict alone"
        ) from error
    while isinstance(state, Mapping) and (inner := [state[n] for n in WRAPPERS if isinstance(state.get(n), Mapping)]):
        state = inner[0]
    tensors = {n: v for n, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name (a state_dict), got {type(state).__name__}")
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    if bad := [n for n, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise ValueError(f"{path} holds weights that are not finite: {some(bad)}")
    return tensors


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], source: str, *, skip: Sequence[str] = (), assign: bool = False
) -> None:
    """Load weights into a network in place, all or none.

    Args:
        network: where they go.
        state: tensors by name, see `read_weights`.
        source: what they are called in messages, such as the file's path.
        skip: beginnings of names that are left as they are, whether or not the state has them ("fc.").
        assign: take the tensors themselves (for a network on the "meta" device).

    Raises:
        ValueError: naming the first tensors that are missing, left over or of another shape.

    >>> load_state(nn.Linear(2, 1), {"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, "mine.pth")
    Traceback (most recent call last):
    ValueError: mine.pth does not fit Linear: weight: file (1, 3), here (1, 2)
    """
    own = {n: v for n, v in network.state_dict().items() if not n.startswith(tuple(skip))}
    given = {n: v for n, v in state.items() if not n.startswith(tuple(skip))}
    given |= {n: torch.zeros_like(v) for n, v in own.items() if n.endswith("num_batches_tracked") and n not in given}
    shapes = [{name: tuple(value.shape) for name, value in each.items()} for each in (given, own)]
    wrong = [
        f"{name}: file {shapes[0].get(name, 'nothing')}, here {shapes[1].get(name, 'nothing')}"
        for name in sorted(given.keys() | own.keys())
        if shapes[0].get(name) != shapes[1].get(name)
    ]
    if wrong:
        with suppress(RuntimeError):  # a method that knows what its weights were trained for says it better
            copy.deepcopy(network).load_state_dict(given, strict=False)
        raise ValueError(f"{source} does not fit {type(network).__name__}: {some(wrong)}")
    network.load_state_dict(given, strict=not skip, assign=assign)


def normal_init(module: nn.Module) -> None:
    """Set convolutions to N(0, 0.02), batch normalisation to N(1, 0.02), biases to 0 (`module.apply(normal_init)`)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def block_shapes(blocks: Iterable[tuple[str, nn.Module]], x: Tensor) -> list[dict[str, Any]]:
    """Send x through named blocks one after the other; a row each: "block", "output" (without the batch), "parameters".

    Neighbours of one name share a row. On torch's "meta" device, which knows shapes only, nothing is computed.

    >>> block_shapes([("stem", nn.Conv2d(3, 8, 3, 2, 1)), ("flat", nn.Flatten())], torch.zeros(1, 3, 8, 4))[1]
    {'block': 'flat', 'output': '64', 'parameters': 0}
    """
    rows: list[dict[str, Any]] = []
    for name, block in blocks:
        x, count = block(x), sum(p.numel() for p in block.parameters())
        if rows and rows[-1]["block"] == name:
            count += rows.pop()["parameters"]
        rows.append({"block": name, "output": "x".join(map(str, x.shape[1:])), "parameters": count})
    return rows


class SmallResNet(nn.Module):
    """ResNet-18's four stages of two blocks, narrow and with a plain 3x3 stem of stride 2, for 64x32 images.

    Args:
        width: channels of the first stage; the feature has 8 times as many.
        last_stride: stride of the last stage, 2 or 1.

    >>> SmallResNet(8)(torch.zeros(2, 3, 64, 32)).shape
    torch.Size([2, 64, 4, 2])
    """

    def __init__(self, width: int = 16, last_stride: int = 2) -> None:
        super().__init__()
        self.dimensions = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        stages, channels = [], width
        for out, stride in zip((width, 2 * width, 4 * width, 8 * width), (1, 2, 2, last_stride), strict=True):
            shortcut = None
            if stride > 1 or out != channels:
                shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            stages.append(nn.Sequential(BasicBlock(channels, out, stride, shortcut), BasicBlock(out, out)))
            channels = out
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.stem(images))  # [B, 8 width, H/16, W/16]
