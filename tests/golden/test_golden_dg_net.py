"""DG-Net's networks, losses and the gradient that each loss sends into each network, against the released ones.

The rule, the inputs and the tolerance are those of `README.md` in this folder.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_golden import compare, family, fill, inputs, made, parameters, record
from torch import Tensor, nn

from reidlib.embedders.resnet import Embedder
from reidlib.generators import dg_net
from reidlib.generators.dg_net import DGNet
from reidlib.generators.dg_net_networks import ASPP, Decoder, MultiScaleDiscriminator, StructureEncoder

NETWORKS, STEP = "dg_net_networks", "dg_net_step"
HEADS = [dict(dimensions=512, norm="batch", dropout=p) for p in (0.5, 0.75)]


def outputs(title: str) -> dict:
    return record(NETWORKS, title)["outputs"]


def check(network: nn.Module, title: str) -> None:
    assert parameters(network) == record(NETWORKS, title)["parameters"]
    with torch.no_grad():
        compare(fill(network)(*inputs(NETWORKS, title)), outputs(title)["output"])


@pytest.mark.parametrize("size", ["1x256x128", "2x128x64"])
def test_structure_encoder(size):
    check(StructureEncoder(), f"structure encoder {size}")


def test_aspp():
    check(ASPP(16), "ASPP alone")


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return fill(Decoder(8192))


@pytest.mark.parametrize("size", ["1x64x32", "2x32x16"])
def test_decoder(size, decoder):
    mlps = parameters(decoder.scales) + parameters(decoder.shifts)
    given = f"decoder with given AdaIN scales and biases {size}"
    for title, part, without in ((f"decoder with MLPs {size}", decoder, 0), (given, decoder.body, mlps)):
        assert parameters(decoder) - without == record(NETWORKS, title)["parameters"]
        with torch.no_grad():
            compare(part(*inputs(NETWORKS, title)), outputs(title)["output"])


def test_one_mlp(decoder):
    check(decoder.shifts[2], "one MLP")


@pytest.mark.parametrize("size", ["1x256x128", "2x128x64"])
def test_discriminator_and_its_losses(size, double):
    title, network = f"discriminator {size}", MultiScaleDiscriminator()
    assert parameters(network) == record(NETWORKS, title)["parameters"]
    method, (real,) = SimpleNamespace(D=fill(network), settings=dg_net.PAPER), inputs(NETWORKS, title)
    losses = record(NETWORKS, title)["losses"]
    fake = made(losses["fake"], family(NETWORKS)["phase"])
    with torch.no_grad():
        for scores, wanted in zip(network(real), outputs(title).values(), strict=True):
            compare(scores, wanted)
        adversarial = DGNet._adversarial(method, fake) / 2  # one side of two
    found = DGNet._discriminate(method, real, fake)
    assert found["D"].item() / 2 == pytest.approx(losses["D total incl. penalty"], rel=1e-5)
    assert found["D penalty"].item() / 2 == pytest.approx(losses["penalty (coefficient 0.01 included)"], rel=1e-5)
    assert adversarial.item() == pytest.approx(losses["G adversarial (sum over scales of 2 mean (D-1)^2)"], rel=1e-5)


def test_re_id_encoder_in_training(double):
    """E_a with batch statistics and without dropout; in evaluation it stands in `tests/embedders/test_resnet.py`."""
    title = "re-ID encoder train 4x128x64"
    network = fill(Embedder(751, backbone="resnet50", last_stride=1, pool="max", heads=HEADS)).train()
    assert parameters(network) == record(NETWORKS, title)["parameters"]
    with torch.no_grad():
        maps = network.backbone(*inputs(NETWORKS, title))
        compare(F.adaptive_max_pool2d(maps, (4, 1)).flatten(1), outputs(title)["appearance code"])
        for number, head in enumerate(network.heads, 1):
            compare(head(maps.amax((2, 3))).logits, outputs(title)[f"head {number} logits"])


@pytest.fixture(scope="module")
def method() -> DGNet:
    """Return the released networks by the rule, in float32; head 2, the shifts' MLPs and the teacher are scaled."""
    encoder = fill(Embedder(751, backbone="resnet50", last_stride=1, pool="max", heads=HEADS))
    fill(encoder.heads[1], 0.9)
    teacher = fill(Embedder(751, backbone="resnet50", heads=HEADS[:1]), 0.95)
    made = DGNet(encoder.float(), teacher.float(), preset="paper", image_size=(128, 64), re_encoding="frozen")
    for network, factor in ((made.E_s, 1.0), (made.G, 1.0), (made.G.shifts, 0.9), (made.D, 1.0)):
        fill(network, factor)
    return made.float().train()


SUMS = {  # ours: both sides of theirs
    "D": ("D total",),
    "D penalty": ("D penalty a (0.01 included)", "D penalty b (0.01 included)"),
    "L_img1": ("L_img1 a", "L_img1 b"),
    "L_img2": ("L_img2 a", "L_img2 b"),
    "L_code1": ("L_code1 (appearance) a", "L_code1 (appearance) b"),
    "L_code2": ("L_code2 (structure) a", "L_code2 (structure) b"),
    "L_cyc": ("L_cyc a", "L_cyc b"),
    "L_adv": ("L_adv a: D(x_ba)", "L_adv b: D(x_ab)"),
    "L_id^s": ("L_id^s anchors (both sides, head 1 plus w_B head 2)",),
    "L_id^s positives": ("L_id^s positives (both sides)",),
    "L_id^c": ("L_id^c (both sides)",),
    "L_prim": ("L_prim on x_ba", "L_prim on x_ab"),
    "L_fine": ("L_fine on x_ba (label of the structure image)", "L_fine on x_ab (label of the structure image)"),
}


def assert_norms(term: Tensor, method: DGNet, wanted: dict[str, float]) -> None:
    """Compare the norm of a term's gradient in each network; None where it reaches nothing of it.

    Where it goes through the backbone's weights, which is ResNet-50's own business, the heads' norms are enough.
    """
    network, G = method.E_a.network, method.G
    parts = {"E_a backbone": [network.backbone], "E_a head 1": [network.heads[0]], "E_a head 2": [network.heads[1]],
             "E_s": [method.E_s], "G body": [G.first, G.second, G.last], "MLPs": [G.scales, G.shifts],
             "D (discarded for generator terms)": [method.D]}  # fmt: skip
    if wanted["E_a backbone"] > 0:
        del parts["E_a backbone"]
    owned = {name: [p for part in modules for p in part.parameters()] for name, modules in parts.items()}
    every = [p for own in owned.values() for p in own]
    gradients = iter(torch.autograd.grad(term, every, retain_graph=True, allow_unused=True))
    for name in owned:
        own = [g for g in (next(gradients) for _ in owned[name]) if g is not None]
        assert bool(own) == (wanted[name] > 0), name
        if own:
            assert torch.nn.utils.get_total_norm(own).item() == pytest.approx(wanted[name], rel=0.03), name


def look_once(method: DGNet, monkeypatch) -> None:
    """Let E_a see each real image once: without erasing, those of the codes and those of L_id^s are the same."""
    look, seen = method.E_a.forward, {}

    def forward(images: Tensor):
        key = images.sum().item()
        if torch.is_grad_enabled():
            return seen.pop(key) if key in seen else look(images)
        with torch.enable_grad():
            seen[key] = look(images)
        return seen[key][0].detach(), None

    monkeypatch.setattr(method.E_a, "forward", forward)


def batch_of(title: str) -> dict[str, Tensor]:
    """The four images and two labels of a record of a full step."""
    prefixes, labels = ("", "other_", "positive_", "other_positive_"), record(STEP, title)["labels"]
    batch = {f"{prefix}images": x for prefix, x in zip(prefixes, inputs(STEP, title), strict=True)}
    return batch | {"labels": torch.tensor(labels["a"]), "other_labels": torch.tensor(labels["b"])}


def test_the_first_step(method, monkeypatch):
    """At iteration 0 codes, cycle and teacher count nothing, and head 2 takes no part."""
    look_once(method, monkeypatch)
    monkeypatch.setattr(dg_net, "normalise", Tensor.float)
    title = "generator update 4x128x64, weights of iteration 0, mode T"
    terms, wanted = method.training_step(batch_of(title), 0, lambda name, loss: None), record(STEP, title)
    wanted = wanted["losses (unweighted)"]
    for ours, theirs in SUMS.items():
        expected = sum(wanted.get(name, 0.0) for name in theirs)
        assert terms.get(ours, torch.zeros(())).item() == pytest.approx(expected, rel=1e-3), ours
    assert (terms["G"] + terms["E_a"]).item() == pytest.approx(wanted["generator total"], rel=1e-3)


def test_a_full_step_and_the_gradients_of_every_loss(method, monkeypatch):
    """All losses of the release's full update, and what each sends where, in both modes of re-encoding.

    In float32, as float64 takes minutes (there all losses agree to 4e-7); the widest deviations of float32 are those of
    batch normalisation in E_a: 5e-4 of a loss, 1.3e-2 of a gradient's norm. No random erasing, no dropout. Pictures are
    decoded by fours, so that the gradient of one four costs no more than that.
    """

    def draw(s: Tensor, f: Tensor, scene: None):
        pairs = [
            torch.cat([*map(method.G, x.split(4), y.split(4))]) for x, y in zip(s.split(8), f.split(8), strict=True)
        ]
        return pairs[0] if len(pairs) == 1 else SimpleNamespace(chunk=lambda n: pairs)

    monkeypatch.setattr(method, "draw", draw)
    look_once(method, monkeypatch)
    monkeypatch.setattr(dg_net, "normalise", Tensor.float)
    frozen, live = (f"generator update 4x128x64, full weights, mode {mode}" for mode in "FT")
    wanted = record(STEP, frozen)
    made = {"s": [], "x": []}
    method.E_s.register_forward_hook(lambda module, args, output: made["s"].append(output))
    method.G.register_forward_hook(lambda module, args, output: made["x"].append(output))
    looks, frozen_copy = [], dg_net.blocks.as_frozen_copy
    remember = lambda *given, **options: looks.append(frozen_copy(*given, **options)) or looks[-1]  # noqa: E731
    monkeypatch.setattr(dg_net.blocks, "as_frozen_copy", remember)
    batch = batch_of(frozen)
    terms = method.training_step(batch, method.settings["steps"] - 1, lambda name, loss: None)
    for ours, theirs in SUMS.items():
        expected = sum(wanted["losses (unweighted)"][name] for name in theirs)
        assert terms[ours].item() == pytest.approx(expected, rel=1e-3), ours
    total = wanted["losses (unweighted)"]["generator total"]
    assert (terms["G"] + terms["E_a"]).item() == pytest.approx(total, rel=1e-3)

    norms, x_a, four = wanted["gradient norm by term and module (unweighted terms)"], batch["images"].float(), slice(4)
    (s, _), (x_ba, x_ab, x_aa, _, x_aap, _, x_cyc, _) = made["s"], made["x"]
    for found, name in ((x_ba, "x_ba"), (x_ab, "x_ab"), (s[four], "s_a"), (x_aa, "x_aa"), (x_aap, "x_aa+")):
        record_of = wanted["intermediate"][name]
        for index, value in zip(record_of["index"], record_of["value"], strict=True):
            assert found.flatten()[index].item() == pytest.approx(value, abs=2e-3 * record_of["std"]), name
    one_side = {
        "L_img1 a": (x_aa - x_a).abs().mean(),
        "L_img2 a": (x_aap - x_a).abs().mean(),
        "L_adv a: D(x_ba)": method._adversarial(x_ba) / 2,
        "L_cyc a": (x_cyc - x_a).abs().mean(),
    }
    both = {theirs[0]: terms[ours] for ours, theirs in SUMS.items() if ours.startswith("L_id") or ours == "D"}
    both["teacher: L_prim + 0.2 L_fine (both sides)"] = terms["L_prim"] + 0.2 * terms["L_fine"]
    way_of_cycle = "L_code2 (structure) a"  # through the frozen E_s into G
    assert set(norms) == {*one_side, *both, way_of_cycle, "L_code1 (appearance) a"}
    assert not terms["L_code1"].requires_grad
    for name, term in (one_side | both).items():
        assert_norms(term, method, norms[name])

    made["s"].clear(), made["x"].clear()
    method.settings |= {"re_encoding": "detached", "use_id": False}
    monkeypatch.setattr(dg_net.blocks, "as_frozen_copy", lambda *_: looks.pop(0))  # E_a's of x_ba and x_ab: the same
    method._encode_again(method._read(batch), torch.cat([x_ba, x_ab]), s, torch.zeros(8, 8192), True)
    norms = record(STEP, live)["gradient norm by term and module (unweighted terms)"]
    again = (made["s"][0][four] - s[four].detach()).abs().mean()
    assert_norms(again, method, norms["L_code2 (structure) a"])
    assert_norms((made["x"][0] - x_a).abs().mean(), method, norms["L_cyc a"])
