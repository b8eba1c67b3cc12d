"""Parts of many bodies at once: ellipsoids and elliptic tubes in the body frame, and their way into the view."""

import torch
from torch import Tensor

from .draw import Parts

# Materials: what the painter does with a part.
FACE, HAIRS, NECK, TORSO, ARM, HAND, LEG, SKIRT, SHORTS, SHOE, BAGS, HATS, OBJECT, LENSES, SCARF = range(15)
HOLLOW = (HAIRS, SKIRT, SHORTS, HATS)  # what one can look into
FINE = (FACE, LENSES, HAIRS)  # painted sample by sample: small things in them matter


class Builder:
    """Collects parts of N people: each call adds one part to everyone, `on` says who has it."""

    def __init__(self, count: int, device: torch.device):
        self.count, self.device = count, device
        self.rows: list[dict[str, Tensor]] = []

    def _full(self, value: Tensor | float, *shape: int) -> Tensor:
        value = torch.as_tensor(value, dtype=torch.float32, device=self.device)
        if value.ndim == 1 and len(shape) == 0:
            return value.expand(self.count)
        if value.ndim == 1 and value.shape[0] == shape[0]:
            value = value[None]
        return value.expand(self.count, *shape)

    def _add(
        self,
        material: int,
        centre: Tensor,
        axes: Tensor,
        size: Tensor,
        alpha: float,
        taper: Tensor | float,
        clip: tuple,
        bias: Tensor | float,
        on: Tensor | None,
        along: tuple,
        side: float,
        colour: Tensor,
    ) -> None:
        on = torch.ones(self.count, dtype=torch.bool, device=self.device) if on is None else on
        clip = torch.stack([self._full(value) for value in clip], -1)
        self.rows.append(
            {
                "on": on,
                "material": torch.full((self.count,), material, device=self.device),
                "centre": centre,
                "axes": axes,
                "size": size.expand(self.count, 3),
                "alpha": self._full(alpha) if alpha else -(self._full(taper) ** 2),
                "taper": self._full(taper),
                "clip": clip,
                "bias": self._full(bias),
                "extra": torch.cat(
                    [
                        torch.stack([self._full(along[0]), self._full(along[1]), self._full(side)], -1),
                        self._full(colour, 3),
                    ],
                    -1,
                ),
            }
        )

    def ellipsoid(
        self,
        material: int,
        centre: Tensor,
        axes: Tensor,
        size: Tensor | tuple,
        *,
        clip: tuple = (),
        bias: Tensor | float = 0.0,
        on: Tensor | None = None,
        along: float | Tensor = 0.0,
        side: float = 0.0,
        colour: tuple | Tensor = (0.0, 0.0, 0.0),
    ) -> None:
        """Add an ellipsoid; unit axes in the columns of `axes` [N, 3, 3], `clip` (normal, lowest, highest) in s."""
        if not torch.is_tensor(size):
            size = torch.stack([self._full(value) for value in size], -1)
        self._add(
            material,
            centre,
            axes,
            size,
            1.0,
            0.0,
            clip or (0.0, 0.0, 0.0, -1.0, 1.0),
            bias,
            on,
            (along, along),
            side,
            colour,
        )

    def tube(
        self,
        material: int,
        top: Tensor,
        bottom: Tensor,
        top_size: Tensor | float,
        bottom_size: Tensor | float,
        *,
        flat: Tensor | float = 1.0,
        left: Tensor | None = None,
        bias: Tensor | float = 0.0,
        on: Tensor | None = None,
        along: tuple = (0.0, 1.0),
        side: float = 0.0,
        colour: tuple | Tensor = (0.0, 0.0, 0.0),
    ) -> None:
        """Add a tube from `top` to `bottom`; its depth is `flat` times its width, `left` turns its sides."""
        axis = bottom - top
        length = axis.norm(dim=1).clamp(min=1e-4)
        axis = axis / length[:, None]
        axes = limb_axes(axis, left)
        wide = self._full(top_size)
        taper = self._full(bottom_size) / wide.clamp(min=1e-4) - 1
        size = torch.stack([wide, wide * self._full(flat), length], -1)
        self._add(material, top, axes, size, 0.0, taper, (0.0, 0.0, 1.0, 0.0, 1.0), bias, on, along, side, colour)

    def stack(self) -> dict[str, Tensor]:
        """Return all parts as tensors [N, P, ...]."""
        return {name: torch.stack([row[name] for row in self.rows], 1) for name in self.rows[0]}


def limb_axes(axis: Tensor, left: Tensor | None = None) -> Tensor:
    """Axes (side, front, long) of limbs that point along `axis` [N, 3], in the columns of [N, 3, 3]."""
    if left is None:
        left = torch.zeros_like(axis)
        left[:, 0] = 1
    side = left - (left * axis).sum(1, keepdim=True) * axis
    side = side / side.norm(dim=1, keepdim=True).clamp(min=1e-4)
    front = torch.linalg.cross(axis, side)
    return torch.stack([side, front, axis], -1)


def to_view(stack: dict[str, Tensor], rotation: Tensor, shift: Tensor, image: Tensor, owner: Tensor) -> Parts:
    """Move parts [N, P] of N bodies into the view frame of their pictures and keep those that are there.

    `rotation` [N, 3, 3] and `shift` [N, 3] carry a body into its view; `image` and `owner` [N] say whose they are.
    """
    on = stack["on"]
    count = on.shape[1]
    axes = rotation[:, None] @ stack["axes"]  # [N, P, 3, 3], columns in view
    centre = (rotation[:, None] @ stack["centre"][..., None])[..., 0] + shift[:, None]
    size = stack["size"].clamp(min=1e-4)
    to_local = axes.transpose(-1, -2) / size[..., None]  # s = E^T (p - c) / size
    to_local = torch.cat([to_local, -(to_local @ centre[..., None])], -1)
    reach = axes * size[..., None, :]  # half axes as vectors
    round_box = reach.square().sum(-1).sqrt()[..., :2]
    disc = reach[..., :2].square().sum(-1).sqrt()[..., :2]  # a tube's end: two axes only
    end = centre[..., :2] + reach[..., :2, 2]
    disc_end = disc * (1 + stack["taper"])[..., None]
    tube = (stack["alpha"] <= 0)[..., None]
    low = torch.where(tube, torch.minimum(centre[..., :2] - disc, end - disc_end), centre[..., :2] - round_box)
    high = torch.where(tube, torch.maximum(centre[..., :2] + disc, end + disc_end), centre[..., :2] + round_box)

    wide = size[..., :2].amax(-1) * (1 + stack["taper"]).clamp(min=1)
    axis = reach[..., :2, 2]
    start = torch.where(tube, centre[..., :2], centre[..., :2] - axis)
    spine = torch.cat([start, centre[..., :2] + axis, wide[..., None]], -1)
    hollow, fine = (torch.isin(stack["material"], torch.tensor(kinds, device=on.device)) for kinds in (HOLLOW, FINE))
    return Parts(
        image[:, None].expand(-1, count)[on],
        owner[:, None].expand(-1, count)[on],
        stack["material"][on],
        to_local[on],
        stack["alpha"][on],
        stack["taper"][on],
        stack["clip"][on],
        stack["bias"][on],
        torch.cat([low, high], -1)[on],
        spine[on],
        hollow[on],
        fine[on],
        stack["extra"][on],
    )


def join(groups: list[Parts]) -> Parts:
    """Put groups of parts into one list, sorted by picture (the order inside a picture is kept)."""
    parts = Parts(*(torch.cat(values) for values in zip(*groups, strict=True)))
    order = torch.argsort(parts.image, stable=True)
    return Parts(*(value[order] for value in parts))
