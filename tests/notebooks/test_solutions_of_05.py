"""Solutions of notebook 05 that the library has too: both give the same on the inputs of the check."""

import pytest
import torch

from reidlib.course.exercises import TRIALS, exercise
from reidlib.datasets.poses import heat_maps
from reidlib.generators.blocks import adain
from reidlib.generators.pose_attention import Generator, PAANBlock
from reidlib.losses import draw_quartets, quartet_loss
from reidlib.losses.adversarial import adversarial_loss


def draws(number):
    """An exercise's solution, and its arguments in every trial."""
    task = exercise(f"05-{number}")
    return task.solution, [task.inputs(torch.Generator().manual_seed(trial)) for trial in range(TRIALS)]


def test_the_map_of_a_joint():
    joint_map, given = draws(1)
    for x, y, visible, height, width in given:
        keypoints = torch.zeros(1, 18, 3)
        keypoints[0, 4] = torch.tensor([x, y, float(visible)])
        torch.testing.assert_close(joint_map(x, y, visible, height, width), heat_maps(keypoints, (height, width))[0, 4])


def test_how_many_blocks_fit():
    most_blocks, given = draws(2)
    for size in [*given, (64, 32), (128, 64)]:
        n = most_blocks(*size)
        if n:
            Generator(width=1, n_blocks=n).check_size(size)
        with pytest.raises(ValueError, match="blocks halve images"):
            Generator(width=1, n_blocks=n + 1).check_size(size)
    assert most_blocks(64, 32) == 4 and most_blocks(128, 64) == 5


def test_losses():
    adversarial_terms, given = draws(3)
    for *scores, weight in given:
        wanted = weight * sum(adversarial_loss(score, True) for score in scores if score is not None)
        torch.testing.assert_close(adversarial_terms(*scores, weight), wanted)
    quartet, given = draws(6)
    for features, rows, *margins in given:
        wanted = quartet_loss(*(features[column] for column in rows.T), margins=tuple(margins))
        torch.testing.assert_close(quartet(features, rows, *margins), wanted)


def test_blocks():
    attended, given = draws(4)
    for maps in given:
        block = PAANBlock(1, 1, halve=True)
        of = dict(zip(("appearance_in", "appearance_out", "pose_out"), maps, strict=True))
        for name, value in of.items():
            setattr(block, name, torch.nn.Module())
            getattr(block, name).forward = lambda _, value=value: value
        block.pose_in = torch.nn.Identity()
        torch.testing.assert_close(attended(*maps), block(torch.zeros(1), torch.zeros(1))[0])
    modulated, given = draws(5)
    for a, gamma, beta in given:
        scale, shift = (torch.nn.functional.interpolate(one, a.shape[-2:]) for one in (gamma, beta))
        wanted = adain(torch.nn.functional.leaky_relu(a, 0.2), 1 + scale, shift)
        torch.testing.assert_close(modulated(a, gamma, beta), wanted)


def test_the_library_draws_from_every_quartet():
    all_quartets, given = draws(7)
    for (labels,) in given:
        every = {tuple(row) for row in all_quartets(labels).tolist()}
        drawn = draw_quartets(labels, torch.Generator().manual_seed(0), n=40 * len(every))
        assert {tuple(row) for row in drawn.tolist()} == every
