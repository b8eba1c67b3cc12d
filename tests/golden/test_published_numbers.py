"""The numbers of every preset and default against the papers' fact sheets, in one table, and what they decide."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

from reidlib.datasets import poses
from reidlib.generators.blocks import ImagePool, PatchDiscriminator, ResidualGenerator, linear_decay
from reidlib.generators.camera_transfer import EPOCHS, TRAINING, CameraTransfer, load_pairs, transfer_pairs
from reidlib.generators.cyclegan import CAMSTYLE, SPGAN, CycleGAN, SiameseNet, camstyle_gan, contrastive_loss
from reidlib.generators.dcgan import DCGAN, NOISE
from reidlib.generators.guided_pose import GuidedPose
from reidlib.generators.pn_gan import PNGAN, canonical_poses, lr_factor
from reidlib.losses.adversarial import adversarial_loss, discriminator_loss

# every setting that the paper preset runs with, by method: of the papers, else of their released code
PAPER = {
    CameraTransfer: dict(
        image_size=(256, 256), width=64, discriminator_width=64, lr=2e-4, lambda_gan=1.0, lambda_l1=100.0,
        lambda_fg=70.0, lambda_bg=30.0, model=4, variant="static", condition_mask="in_out_inv", mask_threshold=None,
        smooth=False, normalise_by_mask_area=False, stochastic_test=False, constant=1.0, steps=1000, preset="paper",
    ),
    CycleGAN: dict(
        image_size=(256, 256), width=64, units=9, lr=2e-4, lambda_cycle=10.0, lambda_identity=0.5, pool_size=50,
        constant=0.5, dropout=0.0, cameras=None, steps=1000, preset="paper",
    ),
    SPGAN: dict(
        image_size=(256, 256), width=64, units=9, lr=2e-4, lambda_cycle=10.0, lambda_identity=0.5, pool_size=50,
        constant=0.5, dropout=0.0, cameras=None, steps=1000, preset="paper", lambda_contrast=2.0, margin=2.0,
        contrast="later",
    ),
    PNGAN: dict(
        image_size=(256, 128), width=64, units=9, discriminator_width=64, padding=0, lr=2e-4, lambda_1=10.0,
        gan_loss="least_squares", real="target", last_epoch_zero=False, epochs=20, steps=164_760, foreground_weight=1.0,
        lambda_guide=0.0, guide_shift=0, background="target", preset="paper",
    ),
    GuidedPose: dict(
        width=64, units=9, lr=2e-4, lambda_l1=100.0, lambda_identity=0.0, constant=0.5, steps=1000, preset="paper"
    ),
    DCGAN: dict(image_size=(128, 64), width=64, lr=2e-4, preset="paper"),
}  # fmt: skip
# what of it the two smaller presets change
SMALLER = {
    CameraTransfer: {
        "course": dict(image_size=(64, 32), width=16, discriminator_width=16, lr=4e-4, lambda_gan=0.3, smooth=True,
                       constant=0.5),
        "smoke": dict(image_size=(64, 32), width=8, discriminator_width=8, lr=4e-4, lambda_gan=0.3, smooth=True,
                      constant=0.5),
    },
    CycleGAN: {
        "course": dict(image_size=(64, 32), width=16, units=2, lr=1e-3),
        "smoke": dict(image_size=(64, 32), width=8, units=1, lr=4e-4),
    },
    PNGAN: {
        "course": dict(image_size=(64, 32), width=16, units=4, discriminator_width=16, padding=1, lr=1e-3,
                       lambda_1=100.0, foreground_weight=4.0, steps=950),
        "smoke": dict(image_size=(64, 32), width=8, units=2, discriminator_width=8, padding=1, lr=1e-3,
                      lambda_1=100.0, foreground_weight=4.0, steps=30),
    },
    GuidedPose: {"course": dict(width=16, units=3, lr=1e-3), "smoke": dict(width=8, units=1, lr=4e-4)},
    DCGAN: {
        "course": dict(image_size=(64, 32), width=16, lr=1e-3), "smoke": dict(image_size=(64, 32), width=8, lr=1e-3)
    },
}  # fmt: skip
SMALLER[SPGAN] = SMALLER[CycleGAN]


@pytest.mark.parametrize("preset", ["paper", "course", "smoke"])
@pytest.mark.parametrize("kind", list(PAPER), ids=lambda kind: kind.__name__)
def test_every_number_of_every_preset(kind, preset):
    with torch.device("meta"):
        method = kind(preset=preset)
    changed = {} if preset == "paper" else SMALLER[kind][preset]
    assert method.settings == PAPER[kind] | changed | {"preset": preset}
    # D as wide as G is no deviation of its own
    hidden = {"discriminator_width"} if kind is CameraTransfer else set()
    assert method.deviations == {name: value for name, value in changed.items() if name not in hidden}
    assert inspect.signature(kind).parameters.get(
        "preset", inspect.signature(CycleGAN).parameters["preset"]
    ).default == ("course")


@pytest.mark.parametrize(
    "kind, switches",
    [
        (CameraTransfer, dict(lambda_fg=1.0)), (CameraTransfer, dict(lambda_bg=1.0)),
        (CameraTransfer, dict(model=1, lambda_l1=1.0)), (CameraTransfer, dict(mask_threshold=0.5)),
        (CameraTransfer, dict(stochastic_test=True)), (CameraTransfer, dict(normalise_by_mask_area=True)),
        (CycleGAN, dict(lambda_cycle=1.0)), (CycleGAN, dict(lambda_identity=0.0)), (CycleGAN, dict(pool_size=0)),
        (CycleGAN, CAMSTYLE), (SPGAN, dict(margin=1.0)), (SPGAN, dict(lambda_contrast=1.0)),
        (PNGAN, dict(epochs=10)), (PNGAN, dict(steps=10)), (DCGAN, dict(lr=1e-3)), (GuidedPose, dict(units=6)),
    ],
    ids=lambda value: value.__name__ if inspect.isclass(value) else "-".join(map(str, value)),
)  # fmt: skip
def test_what_is_not_as_published_is_named(kind, switches):
    with torch.device("meta"):
        method = kind(preset="paper", **switches)
    assert method.deviations == {name: value for name, value in switches.items() if name != "model"}


def test_cyclegan_has_six_units_below_256_pixels():
    with torch.device("meta"):
        assert CycleGAN(preset="paper", image_size=(128, 128)).deviations == {"image_size": (128, 128)}
        assert CycleGAN(preset="paper", image_size=(128, 128)).settings["units"] == 6
        assert CycleGAN(preset="paper", image_size=(128, 128), units=9).deviations["units"] == 9


def test_camstyles_gans_are_cyclegans_with_dropout_in_the_generators_units():
    with torch.device("meta"):
        gan, plain = camstyle_gan((5, 6), preset="paper"), CycleGAN(preset="paper")
    assert gan.settings == PAPER[CycleGAN] | dict(constant=0.6, dropout=0.5, cameras=(5, 6))  # 30 of 50 epochs
    for network in (gan.G_A, gan.G_B):
        assert [m.p for m in layers(network, nn.Dropout)] == [0.5] * 9
        for unit in (layer for layer in network.layers if hasattr(layer, "layers")):
            names = [type(layer).__name__ for layer in unit.layers]
            assert names == ["Conv2d", "InstanceNorm2d", "ReLU", "Dropout", "Conv2d", "InstanceNorm2d"]
        assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.G_A.parameters())
    assert not layers(gan.D_A, nn.Dropout) and not layers(gan.D_B, nn.Dropout)


def default(function: Callable, name: str) -> object:
    return inspect.signature(function).parameters[name].default


def test_defaults_of_the_sheets():
    assert EPOCHS == 10 and TRAINING["paper"] == dict(batch_size={1: 1, 4: 32}, ema=None)
    assert default(transfer_pairs, "per_source") == 10
    assert default(load_pairs, "enlarge") == 286 / 256 and default(load_pairs, "p") == 0.5
    assert (default(canonical_poses, "k"), default(canonical_poses, "mode")) == (8, "medoid")
    assert default(canonical_poses, "min_joints") == 10 and default(canonical_poses, "weights") is None
    assert default(lr_factor, "epochs") == 20 and default(lr_factor, "last_epoch_zero") is False
    assert default(contrastive_loss, "margin") == 2.0 and default(linear_decay, "constant") == 0.5
    assert default(discriminator_loss, "factor") == 0.5 and default(adversarial_loss, "kind") == "vanilla"
    assert default(ResidualGenerator, "units") == 9 and default(PatchDiscriminator, "padding") == 1
    assert NOISE == 100 and default(GuidedPose, "lambda_identity") == 1.0 and default(PNGAN, "lambda_guide") == 8.0


@pytest.mark.parametrize("kind", list(PAPER), ids=lambda kind: kind.__name__)
def test_adam_of_every_method(kind):
    method = kind(preset="smoke")
    for parameters, optimizer, schedule in method.optimizers().values():
        (group,) = optimizer.param_groups
        assert isinstance(optimizer, torch.optim.Adam) and group["betas"] == (0.5, 0.999) and group["weight_decay"] == 0
        assert group["lr"] == method.settings["lr"] and group["eps"] == 1e-8 and group["params"] == parameters
        assert bool(group["fused"]) == (kind is CameraTransfer)
        assert (schedule is None) == (kind is DCGAN)
    owned = [p for parameters, _, _ in method.optimizers().values() for p in parameters]
    assert len(owned) == len({id(p) for p in owned}) == len(list(method.parameters()))


def weights_of(method: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in method.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]


@pytest.mark.parametrize("kind", [CameraTransfer, CycleGAN, SPGAN, GuidedPose, DCGAN], ids=lambda kind: kind.__name__)
def test_convolutions_start_from_normal_0_02(kind):
    torch.manual_seed(0)
    for name, module in weights_of(kind(preset="course")):
        if module.weight.numel() > 2000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.08), name
        assert module.bias is None or module.bias.eq(0).all(), name


def test_pn_gans_start_from_torchs_own_uniform():
    torch.manual_seed(0)
    for name, module in weights_of(PNGAN(preset="course")):
        fan_in = module.weight[0].numel()  # torch's, of a transposed convolution too
        assert module.weight.abs().max() <= fan_in**-0.5 and module.weight.abs().max() > 0.95 * fan_in**-0.5, name
        assert module.bias is None or module.bias.abs().max() > 0, name


def layers(network: nn.Module, kind: type) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, kind)]


def test_activations_slopes_and_dropout():
    with torch.device("meta"):
        methods = [kind(preset="paper") for kind in (CameraTransfer, CycleGAN, SPGAN, PNGAN, GuidedPose, DCGAN)]
    for method in methods:
        assert {m.negative_slope for m in layers(method, nn.LeakyReLU)} == {0.2}
        generators = [getattr(method, name) for name in ("G", "G_A", "G_B") if hasattr(method, name)]
        assert [len(layers(g, nn.Tanh)) for g in generators] == [1] * len(generators)
        assert not layers(method, nn.Hardtanh) and not layers(method, nn.Sigmoid)
    transfer, *residual = methods
    assert len(layers(transfer.G, nn.ReLU)) == 8 and len(layers(transfer.G, nn.LeakyReLU)) == 7
    assert [m.p for m in layers(transfer.G, nn.Dropout)] == [0.5] * 3 and not layers(transfer.D, nn.Dropout)
    assert [m.p for m in layers(SiameseNet((64, 32), width=4), nn.Dropout)] == [0.5]
    for method in residual[:4]:
        names = [name for name in ("G", "G_A", "G_B", "D", "D_A", "D_B") if hasattr(method, name)]
        assert not any(layers(getattr(method, name), nn.Dropout) for name in names)


def test_each_discriminator_has_its_own_history():
    torch.manual_seed(0)
    method = CycleGAN(preset="smoke", pool_size=4)
    assert isinstance(method.pool_A, ImagePool) and method.pool_A is not method.pool_B
    images = torch.randint(0, 256, (2, 2, 3, 64, 32), dtype=torch.uint8)
    method.training_step({"images": images[0], "target_images": images[1]}, 0, lambda name, loss: None)
    with torch.no_grad():
        signed = images.float() / 127.5 - 1
        for pool, wanted in ((method.pool_A, method.G_A(signed[0])), (method.pool_B, method.G_B(signed[1]))):
            assert pool.filled == 2
            torch.testing.assert_close(pool.images[:2], wanted)


def test_a_mask_on_its_threshold_is_in():
    method = CameraTransfer(model=2, preset="smoke", mask_threshold=51 / 255)
    masks = torch.tensor([50, 51, 52], dtype=torch.uint8).repeat(64, 11)[None, :, :32]
    assert method.condition(None, {"masks": masks})[0, 0, 0, :3].tolist() == [-1, 1, 1]


def test_limbs_and_faces_have_the_demos_colours_left_and_right():
    colours = {  # limb or joint: its colour in RGB, as measured in the paper's figures
        (1, 2): (0, 0, 255), (1, 5): (0, 85, 255), (2, 3): (0, 170, 255), (3, 4): (0, 255, 255), (5, 6): (0, 255, 170),
        (6, 7): (0, 255, 85), (1, 8): (0, 255, 0), (8, 9): (85, 255, 0), (9, 10): (170, 255, 0), (1, 11): (255, 255, 0),
        (11, 12): (255, 170, 0), (12, 13): (255, 85, 0), (1, 0): (255, 0, 0), (0, 14): (255, 0, 85),
        (14, 16): (255, 0, 170), (0, 15): (255, 0, 255), (15, 17): (170, 0, 255),
    }  # fmt: skip
    assert dict(zip(poses.LIMBS, poses.PALETTE, strict=False)) == colours
    assert len(poses.PALETTE) == 18 and poses.PALETTE[17] == (85, 0, 255)
    for joint in range(18):  # one joint alone: a disc of its own colour
        keypoints = torch.full((1, 18, 3), -1.0)
        keypoints[..., 2] = 0
        keypoints[0, joint] = torch.tensor([16.0, 32.0, 1.0])
        assert tuple(poses.skeleton_images(keypoints, (64, 32))[0, :, 32, 16].tolist()) == poses.PALETTE[joint]
    for limb, (a, b) in enumerate(poses.LIMBS):  # two joints alone: half their limb's colour between them
        keypoints = torch.full((1, 18, 3), -1.0)
        keypoints[..., 2] = 0
        keypoints[0, a], keypoints[0, b] = torch.tensor([16.0, 10.0, 1.0]), torch.tensor([16.0, 50.0, 1.0])
        shown = poses.skeleton_images(keypoints, (64, 32))[0, :, 30, 16]
        wanted = torch.tensor(poses.PALETTE[limb]) / 2
        assert (shown - wanted).abs().max() <= 1, (a, b)
