"""Numbers that a notebook's text states and code decides."""

import nbformat
import pytest
import torch

from reidlib.embedders.recipes import RECIPES
from reidlib.files import REPOSITORY
from reidlib.generators.blocks import PatchDiscriminator
from reidlib.generators.camera_transfer import PAPER, PRESETS, TRAINING
from reidlib.generators.pn_gan import PAPER as PN_GAN
from reidlib.losses import adversarial_loss, discriminator_loss, quartet_loss


def text_of(name: str) -> str:
    cells = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def say(name: str, *sentences: str) -> None:
    text = " ".join(text_of(name).split())
    missing = [sentence for sentence in sentences if sentence not in text]
    assert not missing, f"notebook {name} no longer says {missing}"


def test_baseline_states_the_weight_of_metric_losses_and_the_quartet_s_margins():
    say("02_reid_baseline", f"In the course's recipe $w = {RECIPES['course'].metric_weight}$", "a default ($w = 1$)")
    say("02_reid_baseline", r"- d^2_{mn} + 1\,\big]_+ + \big[\,d^2_{ap} - 0.01\,\big]_+")
    a, p, n, m = torch.nn.functional.normalize(torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(0)), dim=2)
    ap, an, mn = ((x - y).square().sum(1) for x, y in ((a, p), (a, n), (m, n)))
    written = (2 * ap - an - mn + 1).clamp(min=0) + (ap - 0.01).clamp(min=0)
    torch.testing.assert_close(quartet_loss(a, p, n, m), written.mean())


def test_camera_transfer_states_its_weights_and_what_a_patch_is():
    course = PRESETS["course"]
    gan = f"$\\lambda_{{GAN}} = {PAPER['lambda_gan']:.0f}$ in the thesis and {course['lambda_gan']} in the course"
    reconstruction = f"L_{{cGAN}} + {PAPER['lambda_fg']:.0f} L_{{fg}} + {PAPER['lambda_bg']:.0f} L_{{bg}}"
    say(
        "03_camera_transfer",
        gan,
        reconstruction,
        f"width {course['width']}, a batch of {TRAINING['course']['batch_size'][4]}",
    )
    rows, columns = PatchDiscriminator(6, width=2)(torch.zeros(1, 6, 64, 32)).shape[2:]
    say("03_camera_transfer", f"the {rows}x{columns} scores all see every column and 47 to 63 of the 64 rows")
    say("03_camera_transfer", r"*Guessing*: both shares near 50 %, $D$'s loss at $\log 2 = 0.69$")
    zero = torch.zeros(1, 1, 6, 2)
    assert discriminator_loss(zero, zero).item() == pytest.approx(0.69, abs=0.005)


def test_pn_gan_states_the_yardstick_of_a_discriminator_that_guesses():
    half = torch.full((1, 1, 6, 2), 0.5)
    d = discriminator_loss(half, half, "least_squares", factor=1.0).item()
    g = adversarial_loss(half, True, "least_squares").item()
    say(
        "04_pn_gan",
        f"its loss is then {d} and the generator's {g}",
        f"$\\lambda_1 = {PN_GAN['lambda_1']:.0f}$ in the paper",
    )
