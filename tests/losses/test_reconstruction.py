"""The thesis's two reconstructions: the sheet's worked example, a slow loop, and what a term must not see."""

import pytest
import torch

from reidlib.losses import masked_condition, masked_l1, static_losses, variable_losses


def plane(*rows: tuple[float, float], channels: int = 3) -> torch.Tensor:
    return torch.tensor(rows).expand(1, channels, 2, 2).clone()


X, G, Y = plane((0, 1), (-1, 0.5)), plane((0.5, 1), (0, -0.5)), plane((1, -1), (1, 0))
M_IN, M_OUT = plane((1, 1), (0, 0), channels=1).float(), plane((0, 1), (1, 0), channels=1).float()
MASKS = dict(source_mask=M_IN, target_mask=M_OUT)


def test_4_static_losses_of_the_worked_example():
    fg, bg = static_losses(G, X, Y, **MASKS)
    assert (fg.item(), bg.item()) == (0.125, 0.125)
    assert (70 * fg.item(), 30 * bg.item(), 70 * fg.item() + 30 * bg.item()) == (8.75, 3.75, 12.5)
    fg, bg = static_losses(G, X, Y, **MASKS, normalise_by_mask_area=True)
    assert (fg.item(), bg.item()) == (0.25, 0.5)


def test_5_variable_losses_of_the_worked_example_add_up_to_l1():
    fg, bg = variable_losses(G, Y, target_mask=M_OUT)
    assert (fg.item(), bg.item()) == (0.75, 0.25)
    assert fg + bg == (G - Y).abs().mean() == 1.0


def test_6_condition_of_the_worked_example():
    for kind, rows in (
        ("in_out_inv", ((0, 0), (0, 0.5))), ("in_inv", ((0, 0), (-1, 0.5))), ("literal", ((0, 1), (0, 0)))
    ):  # fmt: skip
        assert torch.equal(masked_condition(X, M_IN, M_OUT, kind), plane(*rows).float())
    assert torch.equal(masked_condition(X, M_IN, M_OUT), masked_condition(X, M_IN, M_OUT, "in_out_inv"))


def test_every_condition_by_hand_under_soft_masks():
    """One pixel: x = 0.8, inside the source's person by 0.5 and the target's by 0.25."""
    x, m_in, m_out = (torch.full((1, channels, 1, 1), value) for channels, value in ((3, 0.8), (1, 0.5), (1, 0.25)))
    for kind, want in (("in_out_inv", 0.8 * 0.5 * 0.75), ("in_inv", 0.8 * 0.5), ("literal", 0.8 * 0.5 * 0.25)):
        torch.testing.assert_close(masked_condition(x, m_in, m_out, kind), torch.full((1, 3, 1, 1), want))
    alone = masked_condition(X, torch.ones(1, 1, 2, 2), M_OUT, "literal")  # the person stands everywhere: m_out decides
    assert torch.equal(alone, plane((0, 1), (-1, 0)).float())


def test_7_the_gap_is_seen_by_neither_static_term():
    changed = G.clone()
    changed[..., 1, 0] = 0.77  # only the target's person stands there
    assert static_losses(changed, X, Y, **MASKS) == static_losses(G, X, Y, **MASKS)
    assert variable_losses(changed, Y, target_mask=M_OUT) != variable_losses(G, Y, target_mask=M_OUT)


@pytest.mark.parametrize("by_area", [False, True])
def test_soft_masks_and_rectangles_equal_a_slow_loop(by_area):
    g = torch.Generator().manual_seed(0)
    fake, x, y = (torch.rand(2, 3, 4, 2, generator=g, dtype=torch.float64) * 2 - 1 for _ in range(3))
    m_in, m_out = (torch.rand(2, 1, 4, 2, generator=g, dtype=torch.float64) for _ in range(2))
    sums, areas = [0.0, 0.0], [0.0, 0.0]
    for b in range(2):
        for i in range(4):
            for j in range(2):
                inside, outside = m_in[b, 0, i, j], (1 - m_in[b, 0, i, j]) * (1 - m_out[b, 0, i, j])
                for k, (mask, wanted) in enumerate(((inside, x), (outside, y))):
                    areas[k] += 3 * mask.item()
                    for c in range(3):
                        sums[k] += abs(fake[b, c, i, j] * mask - wanted[b, c, i, j] * mask).item()
    expected = [s / (a if by_area else 2 * 3 * 4 * 2) for s, a in zip(sums, areas, strict=True)]
    found = static_losses(fake, x, y, source_mask=m_in, target_mask=m_out, normalise_by_mask_area=by_area)
    assert [term.item() for term in found] == pytest.approx(expected)


def test_empty_masks_cost_nothing_and_keep_gradients_finite():
    fake = G.clone().requires_grad_()
    empty = torch.zeros(1, 1, 2, 2)
    loss = masked_l1(fake, X, empty, normalise_by_mask_area=True)
    loss.backward()
    assert loss.item() == 0 and fake.grad.eq(0).all()


def test_bad_input_is_shown():
    with pytest.raises(ValueError, match=r"float \[1, 1, 2, 2\] from 0 to 1, got torch.uint8 \[1, 1, 2, 2\]"):
        masked_l1(G, X, torch.ones(1, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"got torch.float32 \[1, 2, 2\]"):
        static_losses(G, X, Y, source_mask=M_IN[0], target_mask=M_OUT)
    with pytest.raises(ValueError, match="one shape"):
        variable_losses(G, Y[..., :1], target_mask=M_OUT)
    with pytest.raises(ValueError, match="'in_out_inv', 'in_inv', 'literal'; got 'out'"):
        masked_condition(X, M_IN, M_OUT, "out")
