"""Augmentation of whole batches on the device, one random draw for each image.

Every operation is `operation(batch, generator, ...) -> batch` on the dictionary that `PersonImages.batch` gives. It
returns a new dictionary, moves image, key points, masks and parsing alike, and keeps images uint8: scaling pixels is
the networks' own work (`reidlib.networks.normalise`). Images that belong together (`images` and `target_images` of a
pair) undergo the same draw, unless `compose(..., joint=False)` is asked for one draw each. Draws come from a CPU
generator whatever the device, so the same seed augments alike everywhere.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.datasets import annotations, poses, sampling
from reidlib.datasets.contract import check_size
from reidlib.networks import IMAGENET_MEAN

Batch = dict[str, Tensor]
PARTNERS = tuple(dict.fromkeys(prefix for prefixes in sampling.PREFIXES.values() for prefix in prefixes))
PREFIXES = (*PARTNERS, "clean_")  # the images of a batch, those that belong to them, and what `erase` has kept
PLANES = ("images", "masks", "parsing")
TRIES = 100  # rectangles drawn for an image, of which the first that fits counts
IN_CACHE = 2**20  # floats that a CPU keeps close: on more at a time, most of the time goes to fetching memory


def compose(*operations: Callable[..., Batch], joint: bool = True) -> sampling.Augment:
    """Return one augmentation that applies these in order (`functools.partial` sets their options).

    Args:
        operations: of this module, or alike.
        joint: whether images that belong together (pairs) undergo one draw; False draws anew for each of them, and
            every operation then treats each of them alone (erasing too).

    >>> same = torch.arange(32, dtype=torch.uint8).expand(8, 3, 4, 32)
    >>> pair = {"images": same, "target_images": same}
    >>> out = compose(flip, joint=False)(pair, torch.Generator().manual_seed(0))
    >>> bool((out["images"] == out["target_images"]).all())
    False
    """

    def together(batch: Batch, generator: torch.Generator) -> Batch:
        for operation in operations:
            batch = operation(batch, generator)
        return batch

    def each(batch: Batch, generator: torch.Generator) -> Batch:
        alone: dict[str, Batch] = {}
        for name, tensor in batch.items():
            prefix = max((p for p in PARTNERS if name.startswith(p)), key=len)
            alone.setdefault(prefix, {})[name.removeprefix(prefix)] = tensor
        return {prefix + name: t for prefix, part in alone.items() for name, t in together(part, generator).items()}

    return together if joint else each


def reid_augmentation(recipe: str = "bag_of_tricks") -> sampling.Augment:
    """Return a published training augmentation.

    - `"none"`: nothing.
    - `"flip"`: horizontal flip, p = 0.5.
    - `"flip_crop"`: flip, pad by 10 of 256 and crop.
    - `"softmax"`: torchreid's, with which the thesis trained: enlarge and crop (p = 0.5), flip.
    - `"bag_of_tricks"`: flip, pad by 10 of 256 and crop, random erasing (p = 0.5).
    - `"camstyle"`: CamStyle's random rectangle, enlarged, then flip.

    >>> batch = {"images": torch.zeros(4, 3, 64, 32, dtype=torch.uint8)}
    >>> reid_augmentation("bag_of_tricks")(batch, torch.Generator().manual_seed(0))["images"].shape
    torch.Size([4, 3, 64, 32])
    """
    recipes = {"none": (), "flip": (flip,), "flip_crop": (flip, pad_crop), "softmax": (enlarge_crop, flip)}
    recipes |= {"bag_of_tricks": (flip, pad_crop, erase), "camstyle": (random_rectangle, flip)}
    check_choice("recipe", recipe, recipes)
    return compose(*recipes[recipe])


def flip(batch: Batch, generator: torch.Generator, *, p: float = 0.5) -> Batch:
    """Mirror each image with probability p; left and right joints and LIP arms, legs and shoes change names."""
    n, _, width = _size(batch)
    device = batch["images"].device
    chosen = (torch.rand(n, generator=generator) < p).nonzero().flatten().to(device)
    swap = torch.tensor(annotations.LIP_FLIPPED, dtype=torch.uint8, device=device)

    def mirror(plane: Tensor, name: str) -> Tensor:
        mirrored = plane.index_select(0, chosen).flip(-1)
        return _put(plane, chosen, swap[mirrored.long()] if name == "parsing" else mirrored)

    return _move(batch, mirror, lambda points: _put(points, chosen, poses.flip_keypoints(points[chosen], width)))


def pad_crop(batch: Batch, generator: torch.Generator, *, pad: int | None = None, edge: bool = False) -> Batch:
    """Pad by `pad` pixels of zeros on every side and cut the old size out at a random place, uniformly.

    `pad` is 10 at height 256 by default, in proportion (2 at 64x32). Masks are padded with 0, parsing with background;
    joints that leave the image are missing. With `edge` everything is padded with its own border instead (DG-Net).
    """
    n, height, width = _size(batch)
    pad = round(10 * height / 256) if pad is None else pad
    draw = torch.randint(2 * pad + 1, (2, n), generator=generator) - pad  # where the cut begins, in the image's pixels
    return crop(batch, draw[0], draw[1], (height, width), edge=edge)


def enlarge_crop(batch: Batch, generator: torch.Generator, *, p: float = 0.5, factor: float = 1.125) -> Batch:
    """With probability p enlarge an image by `factor` and cut the old size out at a random place (torchreid's)."""
    n, height, width = _size(batch)
    chosen = (torch.rand(n, generator=generator) < p).nonzero().flatten()
    larger = (round(height * factor), round(width * factor))
    top = torch.randint(larger[0] - height + 1, (n,), generator=generator)
    left = torch.randint(larger[1] - width + 1, (n,), generator=generator)
    if len(chosen) == 0:
        return dict(batch)
    rows = chosen.to(batch["images"].device)
    part = {name: batch[name][rows] for name in _spatial(batch)}
    part = crop(resize(part, larger), top[chosen], left[chosen], (height, width))
    return batch | {name: _put(batch[name], rows, tensor) for name, tensor in part.items()}


def crop(batch: Batch, top: Tensor, left: Tensor, image_size: tuple[int, int], *, edge: bool = False) -> Batch:
    """Cut one window of `image_size` out of each image; what lies outside the image is 0, or its border with `edge`.

    Args:
        batch: with images uint8 [B,3,H,W].
        top: int64 [B] (best on the CPU), row at which each window begins; may be negative.
        left: int64 [B], column likewise.
        image_size: (height, width) of the windows.
    """
    (_, height, width), (h, w) = _size(batch), image_size
    up, down = max(0, -int(top.min())), max(0, int(top.max()) + h - height)
    before, after = max(0, -int(left.min())), max(0, int(left.max()) + w - width)
    corners = list(zip((top + up).tolist(), (left + before).tolist(), strict=True))

    def cut(plane: Tensor, name: str) -> Tensor:  # windows are views, and stack copies them in one go
        padded = F.pad(plane, (before, after, up, down), mode="replicate" if edge else "constant")
        return torch.stack([p[:, t : t + h, f : f + w] for p, (t, f) in zip(padded, corners, strict=True)])  # [B,C,h,w]

    def follow(points: Tensor) -> Tensor:
        moved = points.clone()
        moved[..., :2] -= torch.stack([left, top], dim=1)[:, None].to(points.device)
        x, y, found = moved.unbind(-1)
        inside = (x >= -0.5) & (x <= w - 0.5) & (y >= -0.5) & (y <= h - 0.5)
        return poses.clear_missing(moved, inside & (found > 0))

    return _move(batch, cut, follow)


def resize(batch: Batch, image_size: tuple[int, int]) -> Batch:
    """Resize the batch: images and masks antialiased bilinear, parsing by nearest label, key points in proportion."""
    _, height, width = _size(batch)
    size = check_size(image_size)
    if size == (height, width):
        return dict(batch)
    scale = torch.tensor([size[1] / width, size[0] / height], device=batch["images"].device)

    def interpolate(plane: Tensor, name: str) -> Tensor:
        if name == "parsing":
            return F.interpolate(plane.float(), size, mode="nearest-exact").to(torch.uint8)
        few = len(plane) if plane.device.type != "cpu" else max(1, IN_CACHE // (plane.shape[1] * size[0] * size[1]))
        scaled = (F.interpolate(p.float(), size, mode="bilinear", antialias=True) for p in plane.split(few))
        return torch.cat([p.round_().to(torch.uint8) for p in scaled])  # means of pixels: never outside 0..255

    def follow(points: Tensor) -> Tensor:
        moved = points.clone()
        moved[..., :2] = (moved[..., :2] + 0.5) * scale - 0.5  # whole coordinates are pixel centres
        return poses.clear_missing(moved, moved[..., 2] > 0)

    return _move(batch, interpolate, follow)


def erase(
    batch: Batch,
    generator: torch.Generator,
    *,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 3.33),
    fill: tuple[float, float, float] = tuple(255 * m for m in IMAGENET_MEAN),
    keep_clean: bool = False,
) -> Batch:
    """Fill one random rectangle of each image with probability p (random erasing; of pairs, in the first images only).

    `fill` is a colour in pixels of 0..255. Its default, ImageNet's mean, is 0 after `normalise` (to within rounding,
    0.01); some published code fills with the mean's own values after normalisation, which is another colour. Key
    points, masks and parsing stay: they say where the person is, not what can be seen. With `keep_clean` the batch
    holds the images as they were as `clean_images` too, for loss terms that are to see no holes (generation, say);
    operations that follow move both alike.

    >>> batch = {"images": torch.zeros(1, 3, 8, 4, dtype=torch.uint8)}
    >>> out = erase(batch, torch.Generator().manual_seed(0), p=1.0, keep_clean=True)
    >>> int(out["images"].max()), int(out["clean_images"].max())
    (124, 0)
    """
    n, height, width = _size(batch)
    boxes = erase_boxes(n, (height, width), generator, p=p, area=area, aspect=aspect)
    images = batch["images"].clone()
    colour = torch.tensor(fill, device=images.device).round().clamp(0, 255).to(torch.uint8)[:, None, None]
    for image, (t, f, h, w) in zip(images, boxes.tolist(), strict=True):
        if h:
            image[:, t : t + h, f : f + w] = colour
    return batch | ({"clean_images": batch["images"]} if keep_clean else {}) | {"images": images}


def erase_boxes(
    n: int,
    image_size: tuple[int, int],
    generator: torch.Generator,
    *,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 3.33),
) -> Tensor:
    r"""Draw the rectangles of random erasing.

    With area $a$ uniform in `area` (of the image) and aspect $r$ uniform in `aspect`: $h=\sqrt{a r}$, $w=\sqrt{a/r}$,
    rounded. The first of 100 draws with 0 < h < H and 0 < w < W counts; the place is uniform. Zhong et al., "Random
    Erasing Data Augmentation", 2017.

    Returns:
        int64 [n,4]: top, left, height, width; height and width 0 where nothing is to be erased.
    """
    height, width = image_size
    chosen = torch.rand(n, generator=generator) < p
    draws = torch.rand(4, n, TRIES, generator=generator)
    a = (area[0] + (area[1] - area[0]) * draws[0]) * height * width
    r = aspect[0] + (aspect[1] - aspect[0]) * draws[1]
    h, w = (a * r).sqrt().round(), (a / r).sqrt().round()
    fits = (h > 0) & (w > 0) & (h < height) & (w < width)  # [n,tries]
    first = fits.int().argmax(dim=1, keepdim=True)
    h, w, at_y, at_x = (t.gather(1, first)[:, 0] for t in (h, w, draws[2], draws[3]))
    top, left = (at_y * (height - h + 1)).floor(), (at_x * (width - w + 1)).floor()
    return torch.stack([top, left, h, w], dim=1).long() * (chosen & fits.any(dim=1))[:, None]


def random_rectangle(
    batch: Batch,
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.64, 1.0),
    aspect: tuple[float, float] = (2.0, 3.0),
) -> Batch:
    """Cut a random rectangle out of each image and enlarge it to the old size: CamStyle's crop, before its flip.

    Area (a share of the image) and height / width are uniform; where no rectangle fits, the image stays whole. Key
    points, masks and parsing, which would have to follow, are left out of the result.
    """
    n, height, width = _size(batch)
    boxes = erase_boxes(n, (height, width), generator, p=1.0, area=area, aspect=aspect).tolist()
    out = {name: tensor for name, tensor in batch.items() if not name.endswith(("keypoints", "masks", "parsing"))}
    for name in _spatial(out):
        out[name] = out[name].clone()
        for image, (t, f, h, w) in zip(out[name], boxes, strict=True):
            if h:
                window = image[None, :, t : t + h, f : f + w].float()
                image[:] = F.interpolate(window, (height, width), mode="bilinear")[0].round().to(torch.uint8)
    return out


def _size(batch: Batch) -> tuple[int, int, int]:
    images = batch["images"]
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise ValueError(f"augmentation takes uint8 images [B,3,H,W], got {images.dtype} {list(images.shape)}")
    return images.shape[0], images.shape[2], images.shape[3]


def _spatial(batch: Batch) -> list[str]:
    """Names of what moves with the pixels."""
    return [prefix + name for prefix in PREFIXES for name in (*PLANES, "keypoints") if prefix + name in batch]


def _move(batch: Batch, plane: Callable[[Tensor, str], Tensor], points: Callable[[Tensor], Tensor]) -> Batch:
    """Apply `plane` to each of PLANES as [B,C,H,W] (it is told which), and `points` to key points."""
    out = dict(batch)
    for name in _spatial(batch):
        tensor, kind = batch[name], name.rpartition("_")[2]
        if kind == "keypoints":
            out[name] = points(tensor)
        else:
            out[name] = plane(tensor, kind) if tensor.dim() == 4 else plane(tensor[:, None], kind)[:, 0]
    return out


def _put(tensor: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    """Return the tensor with these rows replaced (several times quicker for bytes than index_copy on the CPU)."""
    place = torch.arange(len(tensor), device=tensor.device)
    place[chosen] = len(tensor) + torch.arange(len(chosen), device=tensor.device)
    return torch.cat([tensor, values]).index_select(0, place)
