"""torchvision's Keypoint R-CNN and Mask R-CNN from your own files of weights, for `reidlib annotate`.

The weights are yours: nothing is ever downloaded. The networks need torchvision's compiled operators, which the rest of
this library does without.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidlib import torchvision_ops
from reidlib.files import resolve
from reidlib.machine import pick_device
from reidlib.networks import load_state, read_weights

Detector = Callable[[list[Tensor]], list[Mapping[str, Tensor]]]
KINDS = ("keypoints", "masks")


class MissingOperators(RuntimeError):
    """torchvision's compiled operators do not load beside this torch."""


def load_detectors(
    weights: Sequence[str | Path] = (), *, device: str | torch.device = "auto", size: int = 320
) -> dict[str, Detector]:
    """Load torchvision's detectors (ResNet-50 with feature pyramid) from your files of weights.

    Args:
        weights: files as torchvision publishes them, or safetensors; which network they belong to is seen from what
            they hold. None given: those in your torchvision cache, where you have used these networks before.
        device: see `machine.pick_device`.
        size: the shorter side that images are enlarged to. torchvision's own 800 is meant for whole scenes; a crop,
            twice as high as wide, then is larger than the networks' largest anchors.

    Raises:
        MissingOperators: torchvision's compiled operators do not load.
        FileNotFoundError: no weights.
        ValueError: a file that is not the weights of one of these networks.
    """
    if not torchvision_ops.COMPILED_OPS:
        raise MissingOperators(
            f"torchvision's compiled operators (nms) do not load beside torch {torch.__version__}, and the detectors "
            f"need them. Install torch and torchvision of one build, both for the CPU or both for your CUDA, from the "
            f"same index (pytorch.org's `Get started` page gives the command); nothing else here needs them."
        )
    device = pick_device(device)
    detectors: dict[str, Detector] = {}
    for path in find_weights(weights):
        kind, model = _load(path, size)
        if kind in detectors:
            raise ValueError(f"{path} is a second file of weights for {kind}: give one for each of {', '.join(KINDS)}")
        detectors[kind] = _on(model.to(device), device)
    return detectors


def find_weights(weights: Sequence[str | Path] = ()) -> list[Path]:
    """Return the files of weights given, or those in the torchvision cache; never downloads any.

    Raises:
        FileNotFoundError: a file is not there, or none was given and the cache has none.
    """
    given = [resolve(path) for path in weights]
    if missing := [str(path) for path in given if not path.is_file()]:
        raise FileNotFoundError(f"no such file of weights: {', '.join(missing)}")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    names = _published()
    found = given or [cache / name for name in names if (cache / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"no weights: give files (--weights FILE FILE), or put {' and '.join(names)} into {cache}. Nothing is "
            f"downloaded here; torchvision's documentation of KeypointRCNN_ResNet50_FPN_Weights and "
            f"MaskRCNN_ResNet50_FPN_Weights says where they are published and under which terms."
        )
    return found


def build(kind: str, *, n_classes: int, size: int = 320, **options: Any) -> torch.nn.Module:
    """Build torchvision's Keypoint R-CNN ("keypoints") or Mask R-CNN ("masks") with random weights.

    `options` are torchvision's own, such as `box_detections_per_img`.
    """
    from torchvision.models.detection import KeypointRCNN, MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=0)  # frozen batch norm
    return {"keypoints": KeypointRCNN, "masks": MaskRCNN}[kind](backbone, n_classes, min_size=size, **options).eval()


def _published() -> list[str]:
    """Name the files of weights that torchvision publishes for the two networks."""
    from torchvision.models.detection import KeypointRCNN_ResNet50_FPN_Weights, MaskRCNN_ResNet50_FPN_Weights

    kinds = (KeypointRCNN_ResNet50_FPN_Weights.COCO_V1, MaskRCNN_ResNet50_FPN_Weights.COCO_V1)
    return [weights.url.rpartition("/")[2] for weights in kinds]


def _load(path: Path, size: int) -> tuple[str, torch.nn.Module]:
    """Read a file of weights and build the network that they belong to."""
    try:
        state = read_weights(path)
        kind = "keypoints" if any("keypoint_predictor" in name for name in state) else "masks"
        model = build(kind, n_classes=len(state["roi_heads.box_predictor.cls_score.bias"]), size=size)
        load_state(model, state, str(path))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} holds no weights of torchvision's keypointrcnn_resnet50_fpn or maskrcnn_resnet50_fpn: {error}"
        ) from error
    if path.name in _published():  # torchvision sets this for these files alone
        for module in model.modules():
            if type(module).__name__ == "FrozenBatchNorm2d":
                module.eps = 0.0
    return kind, model


def _on(model: torch.nn.Module, device: torch.device) -> Detector:
    @torch.inference_mode()
    def detect(images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [{k: v.cpu() for k, v in found.items()} for found in model([image.to(device) for image in images])]

    return detect
