"""Notebook 06 says of each metric what it sees and what it misses: held here by numbers."""

import pytest
import torch

from reidlib.evaluators.image_quality import lpips_net
from reidlib.evaluators.judges import load_judges
from reidlib.tools.faults import faults


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    return faults(load_judges(), lpips_net(None))


def test_every_fault_is_a_set_of_pictures_and_the_truth_scores_full_marks(found):
    cases, table = found
    assert list(cases) == list(table.index) and len(cases) == 8 and len(table.columns) == 10
    assert all(images.shape == (36, 3, 64, 32) and images.dtype == torch.uint8 for images in cases.values())
    truth = cases["the photograph itself"]
    assert all(not torch.equal(images, truth) for name, images in cases.items() if name != "the photograph itself")
    best = table.loc["the photograph itself"]
    assert best["SSIM"] == pytest.approx(1) and best[["L1", "LPIPS"]].abs().max() == 0 and abs(best["FID"]) < 1e-3
    assert best[["identity", "style"]].min() > 0.9


def test_each_metric_sees_one_fault_and_misses_another(found):
    """The table of section 10, row by row: what is seen, what is missed."""
    of = found[1]
    other, order, blur, aside = "somebody else in that pose", "in the wrong order", "blurred", "two pixels aside"
    plain = of.loc["the photograph itself"]
    assert of.SSIM[other] < of.SSIM[aside] < of.SSIM[blur] - 0.2 and of.L1[blur] < 0.75 * of.L1[aside] < of.L1[other]
    assert of.LPIPS[other] > 2 * of.LPIPS[aside] and of.LPIPS["shoes inverted"] < 0.5 * of.LPIPS[aside]
    assert of["mask-LPIPS, person"]["street inverted"] == 0 < of["mask-LPIPS, person"]["shoes inverted"]
    assert of["mask-LPIPS, limbs"]["street inverted"] > 0  # bars wider than thin arms hold some street
    assert of.FID[blur] > 0.5 and abs(of.FID[order]) < 1e-3
    assert of.PCK["another pose"] < plain.PCK - 0.1 and of.PCK[other] > plain.PCK - 0.04
    assert of.PCKh[aside] < plain.PCKh - 0.2 and of.PCK[aside] > plain.PCK - 0.05 and of.PCKh[other] > plain.PCKh - 0.1
    assert of.identity[other] < 0.2 and of.identity["another pose"] > 0.8
    assert of["style"][order] < 0.2 and of["style"][other] > 0.95
