r"""L1 reconstruction in parts: the person from one image, the scene from another.

For a generator that moves $x$ (person mask $m_{in}$) towards $y$ (person mask $m_{out}$); $\bar m = 1 - m$.
Kolbeinsson, master's thesis, 2019, eqs. 6-13. Weights are left to the caller (the thesis: 70 for the foreground, 30 for
the background).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from reidlib.checks import check_choice

CONDITION_MASKS = ("in_out_inv", "in_inv", "literal")


class MaskedLosses(NamedTuple):
    """The two terms, unweighted."""

    foreground: Tensor
    background: Tensor


def masked_l1(generated: Tensor, wanted: Tensor, mask: Tensor, *, normalise_by_mask_area: bool = False) -> Tensor:
    r"""Return the L1 difference under a mask: $\frac{1}{BCHW} \sum |G \cdot m - y \cdot m|$.

    The mean is over **all** elements, so a small mask makes a small loss (the thesis's listing);
    `normalise_by_mask_area` divides by the area under the masks of the batch instead (0 where they are empty).

    Args:
        generated, wanted: float [B,C,H,W].
        mask: float [B,1,H,W] from 0 to 1, soft edges allowed.

    Raises:
        ValueError: another shape, or masks that are not float.

    >>> g, y, m = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> masked_l1(g, y, m).item(), masked_l1(g, y, m, normalise_by_mask_area=True).item()
    (0.25, 1.0)
    """
    _check(generated, wanted, mask)
    difference = (generated - wanted).abs() * mask
    if not normalise_by_mask_area:
        return difference.mean()
    return difference.sum() / (mask.sum() * generated.shape[1]).clamp(min=torch.finfo(mask.dtype).tiny)


def static_losses(
    generated: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    source_mask: Tensor,
    target_mask: Tensor,
    normalise_by_mask_area: bool = False,
) -> MaskedLosses:
    r"""Keep the source's person, take the target's scene; the target may show anybody (the thesis's model 4).

    $$L_{fg} = \|G - x\|_1\, m_{in} \quad (7), \qquad L_{bg} = \|G - y\|_1\, \bar m_{in} \bar m_{out} \quad (8)$$

    Where only the target's person stands, $\bar m_{in} m_{out}$, neither term sees anything.

    Args:
        generated, source, target: $G$, $x$, $y$, float [B,3,H,W].
        source_mask, target_mask: float [B,1,H,W] from 0 to 1.
        normalise_by_mask_area: see `masked_l1`.

    >>> x, y, m = torch.zeros(1, 3, 4, 2), torch.ones(1, 3, 4, 2), torch.zeros(1, 1, 4, 2)
    >>> [term.item() for term in static_losses(x, x, y, source_mask=m, target_mask=m)]
    [0.0, 1.0]
    """
    under = partial(masked_l1, generated, normalise_by_mask_area=normalise_by_mask_area)
    scene = (1 - source_mask) * (1 - target_mask)
    return MaskedLosses(under(source, source_mask), under(target, scene))


def variable_losses(
    generated: Tensor, target: Tensor, *, target_mask: Tensor, normalise_by_mask_area: bool = False
) -> MaskedLosses:
    r"""Take person and scene from the target, which must show the source's person; the thesis did not train with it.

    $$L_{fg} = \|G - y\|_1\, m_{out} \quad (11), \qquad L_{bg} = \|G - y\|_1\, \bar m_{out} \quad (12)$$

    Their sum is the plain L1, so equal weights $\lambda$ give $\lambda L_1$.

    Args:
        generated, target: $G$, $y$, float [B,3,H,W].
        target_mask: float [B,1,H,W] from 0 to 1.
        normalise_by_mask_area: see `masked_l1`.

    >>> g, y = torch.zeros(1, 3, 4, 2), torch.ones(1, 3, 4, 2)
    >>> [term.item() for term in variable_losses(g, y, target_mask=torch.full((1, 1, 4, 2), 0.25))]
    [0.25, 0.75]
    """
    under = partial(masked_l1, generated, target, normalise_by_mask_area=normalise_by_mask_area)
    return MaskedLosses(under(target_mask), under(1 - target_mask))


def masked_condition(source: Tensor, source_mask: Tensor, target_mask: Tensor, kind: str = "in_out_inv") -> Tensor:
    r"""Mask the source image for the discriminator's condition (eq. 6); what is masked out is 0, the grey of [-1, 1].

    The thesis removes the person in words and figure and keeps it in the equation, hence the choice:

    - "in_out_inv": $x \bar m_{in} \bar m_{out}$, the scene that neither person hides (default);
    - "in_inv": $x \bar m_{in}$, the scene of the source image;
    - "literal": $x\, m_{in} m_{out}$, as equation 6 is printed.

    Args:
        source: float [B,3,H,W] in [-1, 1].
        source_mask, target_mask: float [B,1,H,W] from 0 to 1.

    Raises:
        ValueError: another kind or shape.

    >>> masked_condition(torch.ones(1, 3, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), "in_inv").sum().item()
    3.0
    """
    check_choice("kind", kind, CONDITION_MASKS)
    _check(source, source, source_mask)
    _check(source, source, target_mask)
    if kind == "literal":
        return source * source_mask * target_mask
    scene = source * (1 - source_mask)
    return scene if kind == "in_inv" else scene * (1 - target_mask)


def _check(generated: Tensor, wanted: Tensor, mask: Tensor) -> None:
    if generated.shape != wanted.shape or generated.dim() != 4:
        raise ValueError(
            f"images must be two of one shape [B,C,H,W], got {list(generated.shape)}, {list(wanted.shape)}"
        )
    if mask.shape != (len(generated), 1, *generated.shape[2:]) or not mask.is_floating_point():
        shape = [len(generated), 1, *generated.shape[2:]]
        raise ValueError(f"masks must be float {shape} from 0 to 1, got {mask.dtype} {list(mask.shape)}")
