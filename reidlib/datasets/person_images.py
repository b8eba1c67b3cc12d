"""`PersonImages`: person crops as plain tensors, with who, where, key points, masks and parsing beside them.

The pixels are never copied to make a smaller or a larger set. They lie in *parts* (one memory-mapped array for each
subset that was read, one for each batch of generated images) and a set is an index into its parts, so `select` keeps
a new index, `extend` keeps a longer list of parts, and `batch` gathers just the rows that are asked for.
"""

import copy
from collections.abc import Iterable, Sequence
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.datasets.poses import JOINT_NAMES, MISSING
from reidlib.machine import free_memory

ANNOTATIONS = ("keypoints", "masks", "parsing")
LABELS = ("pids", "camids", "sequences", "is_generated")
# A person is pid >= 0 everywhere; whoever is nobody in particular has one of these:
JUNK = -1  # a bad box that is never scored, neither right nor wrong
UNLABELLED = -2  # generated, shows no person of the set
DISTRACTOR = -3  # a wrong answer in every gallery, whoever it is (what Market-1501's layout calls pid 0)
# pixels that lie together in one place ("images"), and those of ANNOTATIONS that are known of them, by name
Part = dict[str, Tensor]


class PersonImages:
    r"""A set of person images: pixels, identity, camera and whatever else is known about each of them.

    Args:
        images: uint8 [N,3,H,W], RGB; may be memory-mapped (it is read, never written).
        pids: int64 [N], the data set's own identity numbers; a person has pid >= 0, and negative ones are `JUNK` (-1),
            `UNLABELLED` (-2) and `DISTRACTOR` (-3).
        camids: int64 [N], the data set's own camera numbers; -1 where it names no cameras.
        sequences: int64 [N]; default -1, "none".
        names: N file names; default the running number.
        keypoints: float32 [N,18,3], OpenPose order, (x, y, visible) in pixels of these images; missing = (-1, -1, 0).
        masks: uint8 [N,H,W], the person's mask from 0 to 255, soft edges kept.
        parsing: uint8 [N,H,W], LIP labels 0..19.
        is_generated: bool [N]; default False.
        info: a DataFrame of N rows with anything else (attributes, yaw, frame).

    Attributes of the same names give these back for the images of this set, in its order. Numbers and names are
    kept as they are; `images`, `masks`, `parsing` and `keypoints` of a *view* (what `select` or `extend` made) are
    gathered, and so copied, at each access: use `batch` on large sets. Where an annotation is missing for any image of
    the set, the attribute is None (key points: None only where no image has them, see `extend`).

    Raises:
        TypeError, ValueError: on a wrong type, shape or length, with what was received and what is accepted.

    >>> images = torch.zeros(3, 3, 64, 32, dtype=torch.uint8)
    >>> people = PersonImages(images, pids=[7, 7, 9], camids=[1, 2, 1])
    >>> len(people.select(pids=7)), people.select(camids=[1]).pids.tolist(), people.image_size
    (2, [7, 9], (64, 32))
    >>> people.batch([2, 0])["pids"].tolist()
    [9, 7]
    """

    def __init__(
        self,
        images: Tensor,
        pids: Tensor | Sequence[int],
        camids: Tensor | Sequence[int],
        *,
        sequences: Tensor | Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        keypoints: Tensor | None = None,
        masks: Tensor | None = None,
        parsing: Tensor | None = None,
        is_generated: Tensor | Sequence[bool] | None = None,
        info: pd.DataFrame | None = None,
    ) -> None:
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__} (torch.from_numpy makes one)")
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 [N,3,H,W], got {images.dtype} {list(images.shape)}")
        n, _, height, width = images.shape
        _check_tensor("keypoints", keypoints, torch.float32, (n, len(JOINT_NAMES), 3))
        _check_tensor("masks", masks, torch.uint8, (n, height, width))
        _check_tensor("parsing", parsing, torch.uint8, (n, height, width))
        known = {"images": images, "keypoints": keypoints, "masks": masks, "parsing": parsing}
        self._parts: tuple[Part, ...] = ({name: t for name, t in known.items() if t is not None},)
        self._rows = torch.arange(n)  # rows of the parts laid end to end
        self._is_view = False  # not all rows of one part, in order
        self.pids = _column("pids", pids, n)
        self.camids = _column("camids", camids, n)
        self.sequences = _column("sequences", [-1] * n if sequences is None else sequences, n)
        self.is_generated = _column("is_generated", [False] * n if is_generated is None else is_generated, n)
        self.names = [f"{i:06d}" for i in range(n)] if names is None else [str(name) for name in names]
        if len(self.names) != n:
            raise ValueError(f"names must have one entry for each of the {n} images, got {len(self.names)}")
        if info is not None and len(info) != n:
            raise ValueError(f"info must have one row for each of the {n} images, got {len(info)} rows")
        self.info = None if info is None else info.reset_index(drop=True)

    def __len__(self) -> int:
        return len(self.pids)

    def __repr__(self) -> str:
        height, width = self.image_size
        has = "".join(f", {name}" for name in ANNOTATIONS if self.has(name))
        fakes = int(self.is_generated.sum())
        identities = int(self.pids[self.pids >= 0].unique().numel())
        return (
            f"PersonImages({len(self)} images {height}x{width}, {identities} identities, "
            f"{self.camids.unique().numel()} cameras{has}{f', {fakes} generated' if fakes else ''})"
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return tuple(self._parts[0]["images"].shape[-2:])

    @property
    def device(self) -> torch.device:
        """Where the pixels lie (those of the first part)."""
        return self._parts[0]["images"].device

    @property
    def images(self) -> Tensor:
        """uint8 [N,3,H,W]; a copy where this set is a view of another."""
        return self._whole("images")

    @property
    def keypoints(self) -> Tensor | None:
        """float32 [N,18,3] (x, y, visible), or None."""
        return self._whole("keypoints")

    @property
    def masks(self) -> Tensor | None:
        """uint8 [N,H,W] from 0 to 255, or None; a copy where this set is a view of another."""
        return self._whole("masks")

    @property
    def parsing(self) -> Tensor | None:
        """uint8 [N,H,W] LIP labels, or None; a copy where this set is a view of another."""
        return self._whole("parsing")

    def has(self, annotation: str) -> bool:
        """Say whether this set has `"keypoints"`, `"masks"` or `"parsing"`, without reading them."""
        check_choice("annotation", annotation, ANNOTATIONS)
        return annotation in self._known()

    def select(
        self,
        *,
        pids: int | Iterable[int] | None = None,
        camids: int | Iterable[int] | None = None,
        indices: Tensor | Sequence[int] | Sequence[bool] | None = None,
    ) -> "PersonImages":
        """Return the images that meet every condition given, as a view: no pixel is copied.

        Args:
            pids: keep these identities.
            camids: keep these cameras.
            indices: positions in this set (their order is kept, repeats too), or N booleans.

        Raises:
            IndexError: if an index is not in [0, N).
            TypeError, ValueError: if pids or camids are not whole numbers that int64 holds.
        """
        chosen = torch.arange(len(self)) if indices is None else self._positions(indices)
        for name, wanted in (("pids", pids), ("camids", camids)):
            if wanted is not None:
                chosen = chosen[torch.isin(getattr(self, name)[chosen], _integers(name, wanted))]
        return self._view(chosen)

    def batch(self, indices: Tensor | Sequence[int], device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """Gather these images, in this order, onto `device`.

        Returns:
            `images` uint8 [B,3,H,W]; `pids`, `camids`, `sequences`, `indices` int64 [B]; `is_generated` bool [B]; and
            `keypoints` float32 [B,18,3], `masks` uint8 [B,H,W], `parsing` uint8 [B,H,W] where the set has them.

        Raises:
            IndexError: if an index is not in [0, N).
        """
        chosen = self._positions(indices)
        out = {name: self._gather(name, self._rows[chosen], device) for name in self._known()}
        out |= {name: getattr(self, name)[chosen].to(device) for name in LABELS}
        return out | {"indices": chosen.to(device)}

    def to(self, device: str | torch.device) -> "PersonImages":
        """Return this set with its pixels and annotations on `device` (of a view: only the images it shows).

        Raises:
            MemoryError: if they do not fit, with the bytes needed and the bytes free.
        """
        device = torch.device(device)
        per_row = [sum(t[:1].numel() * t.element_size() for t in part.values()) for part in self._parts]
        needed, free = len(self) * max(per_row), free_memory(device)
        if free is not None and needed > free:
            raise MemoryError(
                f"{len(self)} images need {needed / 1e9:.2f} GB on {device}, where {free / 1e9:.2f} GB are free; "
                f"leave them where they are and use batch(indices, device), or load a smaller image_size"
            )
        moved = copy.copy(self)
        moved._parts = ({name: self._gather(name, self._rows, device) for name in self._known()},)
        moved._rows, moved._is_view = torch.arange(len(self)), False
        return moved

    def with_labels(self, **labels: Tensor | Sequence[int] | int) -> "PersonImages":
        """Return the same pixels with other `pids`, `camids`, `sequences` or `is_generated` (N values, or one for all).

        >>> fakes = PersonImages(torch.zeros(2, 3, 8, 4, dtype=torch.uint8), [3, 4], [1, 1])
        >>> fakes.with_labels(pids=-2, is_generated=True).pids.tolist()
        [-2, -2]
        """
        out = copy.copy(self)
        for name, values in labels.items():
            if name not in LABELS:
                raise TypeError(f"with_labels takes {', '.join(LABELS)}; got {name!r}")
            values = [values] * len(self) if isinstance(values, int) else values
            setattr(out, name, _column(name, values, len(self)))
        return out

    def table(self) -> pd.DataFrame:
        """Return one row for each image: name, pid, camid, sequence, is_generated, then the columns of `info`."""
        labels = {name.removesuffix("s"): getattr(self, name).numpy() for name in LABELS}
        table = pd.DataFrame({"name": self.names} | labels)
        if self.info is not None:
            table = table.join(self.info[[c for c in self.info.columns if c not in table]])
        return table

    def _known(self) -> list[str]:
        """Name what there is: images, key points that any part has, masks and parsing that all parts have."""
        some_or_all = {"images": all, "keypoints": any, "masks": all, "parsing": all}
        return [name for name, how in some_or_all.items() if how(name in part for part in self._parts)]

    def _positions(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return indices (or N booleans) as int64 positions in this set, checked."""
        chosen = torch.as_tensor(indices).cpu()
        if chosen.dtype == torch.bool:
            if chosen.shape != (len(self),):
                raise IndexError(f"a boolean index must have {len(self)} entries, got shape {tuple(chosen.shape)}")
            return chosen.nonzero().flatten()
        if chosen.numel() == 0:
            return torch.zeros(0, dtype=torch.int64)
        if chosen.dim() != 1 or chosen.is_floating_point():
            raise IndexError(f"indices must be a list of integers, got {chosen.dtype} of shape {tuple(chosen.shape)}")
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise IndexError(f"indices must be in [0, {len(self)}), got {int(chosen.min())} to {int(chosen.max())}")
        return chosen.long()

    def _view(self, chosen: Tensor) -> "PersonImages":
        """Return the images at these positions, and keep only the parts that they lie in."""
        out = copy.copy(self)
        for name in LABELS:
            setattr(out, name, getattr(self, name)[chosen])
        out.names = [self.names[i] for i in chosen.tolist()]
        out.info = None if self.info is None else self.info.iloc[chosen.numpy()].reset_index(drop=True)
        out._rows, out._is_view = self._rows[chosen], True
        if len(self._parts) > 1 and len(chosen):
            part_of, row_of = _locate(self._parts, out._rows)
            used = part_of.unique()
            out._parts = tuple(self._parts[i] for i in used.tolist())
            out._rows = _starts(out._parts)[torch.searchsorted(used, part_of)] + row_of
        return out

    def _whole(self, name: str) -> Tensor | None:
        if name not in self._known():
            return None
        return self._gather(name, self._rows, self.device) if self._is_view else self._parts[0][name]

    def _gather(self, name: str, rows: Tensor, device: str | torch.device) -> Tensor:
        """Bring these rows of the parts together, in order."""
        if len(self._parts) == 1:
            source = self._parts[0][name]
            return source.index_select(0, rows.to(source.device)).to(device)
        part_of, row_of = _locate(self._parts, rows)
        like = next(part[name] for part in self._parts if name in part)
        out = torch.empty((len(rows), *like.shape[1:]), dtype=like.dtype, device=device)
        for i in part_of.unique().tolist():
            here = (part_of == i).nonzero().flatten()
            source = self._parts[i].get(name)
            if source is None:  # only key points come here: the images of this part have none
                out[here.to(device)] = torch.tensor(MISSING, device=device)
            else:
                out[here.to(device)] = source.index_select(0, row_of[here].to(source.device)).to(device)
        return out


def extend(first: PersonImages, *others: PersonImages) -> PersonImages:
    """Put sets one after another, without copying a pixel: the result keeps a list of their parts.

    What only some of the sets know: images of a set without key points get missing joints; masks and parsing are
    dropped unless every image has them (`select` the images that have them, and they are back); the columns of `info`
    are united and hold NaN where nothing is known.

    Raises:
        ValueError: if the sets differ in image size.

    >>> real = PersonImages(torch.zeros(2, 3, 8, 4, dtype=torch.uint8), [1, 2], [1, 1])
    >>> fakes = PersonImages(torch.ones(2, 3, 8, 4, dtype=torch.uint8), [1, 2], [2, 2], is_generated=[True, True])
    >>> extend(real, fakes).is_generated.tolist()
    [False, False, True, True]
    """
    sets = (first, *others)
    for i, other in enumerate(sets):
        if not isinstance(other, PersonImages):
            raise TypeError(f"extend takes PersonImages, got {type(other).__name__} at position {i}")
    if len({s.image_size for s in sets}) > 1:
        raise ValueError(f"all sets must have one image size (height, width), got {[s.image_size for s in sets]}")
    filled = [s for s in sets if len(s)] or [first]  # an empty set must not take annotations away from the others
    parts = {id(part): part for s in filled for part in s._parts}  # each once
    start = dict(zip(parts, _starts([*parts.values()]).tolist(), strict=True))
    rows = []
    for s in filled:
        part_of, row_of = _locate(s._parts, s._rows)
        rows.append(torch.tensor([start[id(part)] for part in s._parts])[part_of] + row_of)
    out = copy.copy(first)
    out._parts, out._rows, out._is_view = tuple(parts.values()), torch.cat(rows), True
    for name in LABELS:
        setattr(out, name, torch.cat([getattr(s, name) for s in filled]))
    out.names = [name for s in filled for name in s.names]
    if any(s.info is not None for s in filled):
        tables = [pd.DataFrame(index=range(len(s))) if s.info is None else s.info for s in filled]
        out.info = pd.concat(tables, ignore_index=True)
    return out


def _starts(parts: Sequence[Part]) -> Tensor:
    """Row at which each part starts when they are laid end to end."""
    lengths = torch.tensor([len(part["images"]) for part in parts])
    return lengths.cumsum(0) - lengths


def _locate(parts: Sequence[Part], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of each row and the row inside that part."""
    starts = _starts(parts)
    part_of = torch.searchsorted(starts, rows, right=True) - 1
    return part_of, rows - starts[part_of]


def _check_tensor(name: str, tensor: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor is None:
        return
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or None, got {type(tensor).__name__}")
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {dtype} {list(shape)}, got {tensor.dtype} {list(tensor.shape)}")


def _column(name: str, values: Tensor | Sequence[int], n: int) -> Tensor:
    """Return one of LABELS as a tensor of its own on the CPU: a whole number for each image, or a flag."""
    if name == "is_generated":
        tensor = torch.as_tensor(values, dtype=torch.bool).to("cpu", copy=True)
    else:
        tensor = _integers(name, values)
    if tuple(tensor.shape) != (n,):
        raise ValueError(f"{name} must have one value for each of the {n} images, got shape {list(tensor.shape)}")
    return tensor


def _integers(name: str, values: Tensor | int | Iterable[int]) -> Tensor:
    """Return whole numbers as int64 on the CPU, a copy; what int64 does not hold is refused, never wrapped around."""
    if isinstance(values, Iterable) and not hasattr(values, "__array__"):
        values = list(values)  # a set, a range, a dictionary's keys
    expected = f"{name} must be whole numbers that fit int64"
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        every = np.asarray(values, dtype=object).ravel()
        bad = next((v for v in every if not isinstance(v, Integral) or not -(2**63) <= int(v) < 2**63), values)
        kind = ValueError if isinstance(bad, Integral) else TypeError
        raise kind(f"{expected}, got {type(bad).__name__} {bad!r}") from error
    if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool):
        raise TypeError(f"{expected}, got {tensor.dtype}")
    out = tensor.to("cpu", torch.int64, copy=True)
    if tensor.dtype == torch.uint64 and (out < 0).any():
        raise ValueError(f"{expected}, got {int(out[out < 0][0]) + 2**64} (uint64)")
    return out
