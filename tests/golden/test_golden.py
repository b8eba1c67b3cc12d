"""Outputs and training steps of the authors' networks, under a rule that sets every parameter by its shape.

The rule, the inputs and the tolerance are those of `README.md` in this folder. Everything is computed in float64.
"""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reidlib.generators.blocks import LayerNorm, PatchDiscriminator, ResidualDiscriminator, ResidualGenerator, adain
from reidlib.generators.camera_transfer import CameraTransfer, UNet
from reidlib.generators.cyclegan import CycleGAN, SiameseNet, contrastive_loss
from reidlib.generators.pn_gan import PNGAN

HERE = Path(__file__).parent
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d, LayerNorm)


@cache
def family(name: str) -> dict:
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def record(name: str, title: str) -> dict:
    return next(r for r in family(name)["records"] if r["name"] == title)


@cache
def waves() -> Tensor:
    """Return the rule's cosines for weights; the number of turns repeats after 1,000,003 entries, a prime."""
    n = torch.arange(1000003, dtype=torch.int64)
    turns = (7919 * n * n + 104729 * n) % 1000003
    return torch.cos(2 * math.pi * turns.double() / 1000003)


def fill(network: nn.Module, factor: float = 1.0) -> nn.Module:
    """Set parameters and running statistics by the rule, in float64, and turn dropout off."""
    network.double()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            d = torch.arange(value.numel() if value.dim() < 2 else 0).double()
            if name == "bias":
                new = 0.1 * torch.cos(1.3 * d)
            elif name == "weight" and isinstance(module, NORMS):
                new = 1 + 0.1 * torch.sin(0.9 * d)
            elif name == "weight":
                cosines = waves().repeat(-(-value.numel() // 1000003))[: value.numel()]
                new = cosines * math.sqrt(2 / value[0].numel())
            elif name == "running_mean":
                new = 0.05 * torch.sin(d)
            elif name == "running_var":
                new = 1 + 0.1 * torch.cos(d) ** 2
            else:
                continue
            value.data.copy_(factor * new.view(value.shape))
    return network


def made(one: dict, phase: float) -> Tensor:
    """Return an input of a record: float64, or uint8 where it is given in bytes."""
    n = torch.arange(math.prod(one["shape"]), dtype=torch.float64)
    wave = torch.sin((0.37 + 0.04 * one["k"]) * n + phase + one["k"]).view(one["shape"])
    return torch.floor(128 + 127 * wave).to(torch.uint8) if one.get("bytes") else one["amplitude"] * wave


def inputs(name: str, title: str) -> list[Tensor]:
    return [made(one, family(name)["phase"]) for one in record(name, title)["inputs"]]


def compare(found: Tensor, wanted: dict, allowed: float = 0.0) -> None:
    found = found.detach().double()
    assert list(found.shape) == wanted["shape"]
    scale = wanted["std"]
    assert abs(found.mean().item() - wanted["mean"]) <= 1e-5 * max(abs(wanted["mean"]), scale)
    assert abs(found.std(correction=0).item() - scale) <= 1e-5 * scale
    for index, value in zip(wanted["index"], wanted["value"], strict=True):
        assert abs(found.flatten()[index].item() - value) <= max(allowed, 1e-5 * max(abs(value), scale)), index


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def check(network: nn.Module, name: str, title: str, *, eval_mode: bool = False, single: bool = False) -> None:
    """Compare a network that takes the record's inputs, joined along the channels.

    `single` computes in float32, with ten times the record's own deviation there: for the largest images, where a
    smaller record holds the same layers in float64.
    """
    wanted = record(name, title)
    assert parameters(network) == wanted["parameters"]
    fill(network).train(not eval_mode)
    x = torch.cat(inputs(name, title), 1)
    with torch.no_grad():
        found = network.float()(x.float()) if single else network(x)
        compare(found, wanted["outputs"]["output"], 10 * wanted["float32_deviation"] if single else 0.0)


@pytest.mark.parametrize("title", ["generator 1x256x128", "generator 2x128x64", "generator 2x128x64 small input"])
def test_pn_gan_generator(title):
    check(PNGAN(preset="paper").G, "pn_gan", title, single="256x128" in title)


@pytest.mark.parametrize("title", ["discriminator 1x256x128", "discriminator 2x128x64"])
def test_pn_gan_discriminator(title):
    check(PNGAN(preset="paper").D, "pn_gan", title)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_unet_of_seven_halvings(mode):
    check(UNet(3, (128, 128)), "pix2pix", f"U-Net 7 halvings 3 channels {mode}", eval_mode=mode == "eval")


@pytest.mark.parametrize("channels", [4, 5])
def test_unet_of_eight_halvings_that_sees_masks(channels):
    title = f"U-Net 8 halvings {channels} channels eval"
    check(UNet(channels, (256, 256)), "pix2pix", title, eval_mode=True, single=True)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("channels", [6, 8])
def test_patch_discriminator_with_batch_norm(channels, mode):
    title = f"PatchGAN batch norm {channels} channels {mode}"
    check(PatchDiscriminator(channels), "pix2pix", title, eval_mode=mode == "eval")


@pytest.mark.parametrize("size, title", [(256, "9 blocks"), (128, "6 blocks")])
def test_cyclegan_generator(size, title):
    method = CycleGAN(preset="paper", image_size=(size, size))
    check(method.G_A, "cyclegan", f"residual generator {title} train", single=size == 256)


@pytest.mark.parametrize("title", ["256x256", "128x64"])
def test_cyclegan_discriminator(title):
    check(CycleGAN(preset="paper").D_B, "cyclegan", f"PatchGAN instance norm {title} train")


@pytest.mark.parametrize("channels", [6, 21])
@pytest.mark.parametrize("kind", ["batch norm, eval", "batch norm, train", "instance norm, train"])
def test_residual_discriminator(channels, kind):
    norm, mode = kind.split(" norm, ")
    title = f"discriminator {norm} norm, {channels} channels, {mode}"
    network = ResidualDiscriminator(channels, norm=norm, score="features")
    check(nn.Sequential(network, nn.Sigmoid()) if norm == "batch" else network, "patn", title, eval_mode=mode == "eval")


def test_spgan_siamese_net():
    """The later code has no bias in its linear layers; ours are set to 0 here, the rest is alike."""
    title, network = "Siamese net 4x256x128", fill(SiameseNet((256, 128)))
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for layer in linear:
        nn.init.zeros_(layer.bias)
    wanted = record("spgan", title)
    assert parameters(network) - sum(layer.out_features for layer in linear) == wanted["parameters"]
    with torch.no_grad():
        # unit length is made in float32: the sheet's tolerance for that
        found = network(*inputs("spgan", title))
    wanted = wanted["outputs"]["output (unit length)"]
    for index, value in zip(wanted["index"], wanted["value"], strict=True):
        assert abs(found.flatten()[index].item() - value) <= 1e-5 * max(abs(value), wanted["std"])


def test_spgan_generator():
    """The later code leaves out biases before a normalisation, which have no effect."""
    title, network = "spgan generator, later code 1x128x64", fill(ResidualGenerator(3))
    with torch.no_grad():
        compare(network(*inputs("spgan", title)), record("spgan", title)["outputs"]["output"])


def test_spgan_contrastive_loss():
    first, second = (rows / rows.norm(dim=1, keepdim=True) for rows in inputs("spgan", "contrastive loss"))
    values = record("spgan", "contrastive loss")["values"]
    assert contrastive_loss(first, second, True).item() == pytest.approx(values["positive pairs"], rel=1e-5)
    assert contrastive_loss(first, second, False).item() == pytest.approx(values["negative pairs, margin 2"], rel=1e-5)


@pytest.mark.parametrize("amplitude", ["1.0", "0.01"])
def test_dg_nets_normalisations(amplitude):
    title = f"AdaIN alone, amplitude {amplitude}"
    compare(adain(*inputs("dg_net_networks", title)), record("dg_net_networks", title)["outputs"]["output"])
    check(LayerNorm(16), "dg_net_networks", f"layer norm alone, amplitude {amplitude}")


def steps_of(method: nn.Module, batch: dict[str, Tensor], n: int) -> list[dict[str, float]]:
    """Take training steps and return their losses, with those that `update` was given as "update D" and so on.

    No recorded number comes after the generators' last update, so that one is left out.
    """
    optimizers, rows = method.optimizers(), []
    for step in range(n):
        row = {}

        def update(name: str, loss: Tensor, row: dict = row, last: bool = step == n - 1) -> None:
            row[f"update {name}"] = loss.item()
            if last and name == "G":
                return
            own, optimizer, _ = optimizers[name]
            loss.backward(inputs=own)
            optimizer.step()
            optimizer.zero_grad()

        row |= {name: value.item() for name, value in method.training_step(batch, step, update).items()} | row
        rows.append(row)
    return rows


def assert_steps(found: list[dict[str, float]], name: str, title: str, names: dict[str, str]) -> None:
    for step, (row, wanted) in enumerate(zip(found, record(name, title)["steps"], strict=False)):
        for ours, theirs in names.items():
            assert row[ours] == pytest.approx(wanted[theirs], rel=1e-5), (step, ours)


def test_three_training_steps_of_pn_gan(double):
    """G steps through D as it was, then D on the same images; released code: the source image is the real one."""
    title = "training 2x64x64"
    source, target, pose = inputs("pn_gan", title)
    method = PNGAN(preset="paper", image_size=(64, 64), real="source")
    fill(method.G), fill(method.D)
    method._pose = lambda keypoints, size: pose.double() / 127.5 - 1
    batch = {"images": source, "target_images": target, "target_keypoints": torch.zeros(2, 18, 3)}
    names = {
        "G adversarial": "G adversarial",
        "L1": "L1 (unweighted)",
        "update G": "G total (adversarial + 10 L1)",
        "update D": "D total (sum, no 1/2)",
    }
    assert_steps(steps_of(method, batch, 3), "pn_gan", title, names)
    other = PNGAN(preset="paper", image_size=(64, 64))  # the paper: the target image
    fill(other.G), fill(other.D)
    other._pose = method._pose
    generated, real = (
        record("pn_gan", title)["steps"][0][key]
        for key in ("D on generated", "D on real if the target image were the real one")
    )
    assert steps_of(other, batch, 1)[0]["D"] == pytest.approx(generated + real, rel=1e-5)


def test_three_training_steps_of_pix2pix(double):
    """D steps first, so that G's adversarial loss contains one update of D."""
    title = "training 2x128x128"
    source, target = inputs("pix2pix", title)
    method = CameraTransfer(model=1, preset="paper", image_size=(128, 128))
    fill(method.G), fill(method.D)
    names = {
        "update D": "D total (half the sum)",
        "G_GAN": "G adversarial",
        "L1": "L1 (unweighted)",
        "update G": "G total (adversarial + 100 L1)",
    }
    assert_steps(steps_of(method, {"images": source, "target_images": target}, 3), "pix2pix", title, names)


def test_two_training_steps_of_cyclegan(double):
    title = "training 2x64x64"
    a, b = inputs("cyclegan", title)
    method = CycleGAN(preset="paper", image_size=(64, 64))
    for network, factor in ((method.G_A, 1.0), (method.D_A, 1.0), (method.G_B, 0.9), (method.D_B, 0.9)):
        fill(network, factor)
    names = {
        "G_A": "G_A adversarial",
        "G_B": "G_B adversarial",
        "cycle_A": "cycle_A (unweighted)",
        "cycle_B": "cycle_B (unweighted)",
        "idt_A": "identity_A: G_A(b) against b (unweighted)",
        "idt_B": "identity_B: G_B(a) against a (unweighted)",
        "update G": "G total (weights 1, 10, 5)",
        "D_A": "D_A (half the sum; real b)",
        "D_B": "D_B (half the sum; real a)",
    }
    assert_steps(steps_of(method, {"images": a, "target_images": b}, 2), "cyclegan", title, names)
