"""What networks share: files of weights and their refusals, frozen guides, pixel scaling, where a method lies."""

import copy
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reidlib.files import REPOSITORY
from reidlib.networks import (
    Frozen,
    SmallResNet,
    block_shapes,
    device_of,
    evaluating,
    load_state,
    load_weights,
    normalise,
    read_weights,
    save_weights,
    signed_to_imagenet,
)


def state() -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([[1.5, -2.0]]), "bias": torch.tensor([0.25]), "steps": torch.tensor(7)}


def assert_same(found, want) -> None:
    assert list(found) == list(want)
    for name, tensor in want.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_weights_are_read_from_either_kind_of_file(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    save_file(state(), path) if suffix == "safetensors" else torch.save(state(), path)
    found = read_weights(path)
    assert_same(dict(sorted(found.items())), dict(sorted(state().items())))
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "network", "net", "weights"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_what_trainers_wrap_around_weights_is_taken_off(tmp_path, wrapper, prefix):
    inner = {f"{prefix}{name}": tensor for name, tensor in state().items()}
    torch.save({"epoch": 3, "lr": 0.1, wrapper: inner, "names": ["a"]}, tmp_path / "theirs.pth")
    assert_same(read_weights(tmp_path / "theirs.pth"), state())
    torch.save({"state_dict": {wrapper: inner}}, tmp_path / "twice.pth")
    assert_same(read_weights(tmp_path / "twice.pth"), state())


def test_a_prefix_that_only_some_names_have_is_part_of_the_name(tmp_path):
    mixed = {"module.weight": torch.ones(1), "head.module.weight": torch.zeros(1)}
    torch.save(mixed, tmp_path / "own.pth")
    assert_same(read_weights(tmp_path / "own.pth"), mixed)
    inside = {"module.module.weight": torch.ones(1)}  # a network whose own part is called so, on several cards
    torch.save(inside, tmp_path / "inside.pth")
    assert list(read_weights(tmp_path / "inside.pth")) == ["module.weight"]


class Touching:
    """Unpickled, it would make a file: what a file of weights must never do."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (self.path.touch, ())


def test_a_file_that_holds_objects_is_refused_in_words_and_not_executed(tmp_path):
    trap, path = tmp_path / "executed", tmp_path / "model.pth"
    for content in (Touching(trap), {"state_dict": state(), "optimizer": Touching(trap)}, nn.Linear(2, 1)):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"model\.pth cannot be read as plain tensors .*save its state_dict alone"):
            read_weights(path)
    assert not trap.exists()


def test_a_damaged_file_is_named(tmp_path):
    torch.save(state(), tmp_path / "half.pth")
    save_file(state(), tmp_path / "half.safetensors")
    for name in ("half.pth", "half.safetensors"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_weights(path)
    for name, content in (("empty.safetensors", b""), ("words.safetensors", b"no weights at all"), ("words.pth", b"x")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))) as caught:
            read_weights(tmp_path / name)
        if name.endswith("safetensors"):  # no word of pickles, which such a file never holds
            assert f"{name} is damaged or no file of weights: " in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(1)], torch.ones(2), {"state_dict": {"a": 1}}])
def test_a_file_without_tensors_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds no tensors by name \(a state_dict\), got "):
        read_weights(tmp_path / "other.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_named(tmp_path, value, dtype):
    bad = state() | {"deep.weight": torch.zeros(3, 3, dtype=dtype)}
    bad["deep.weight"][2, 1] = value
    torch.save(bad, tmp_path / "nan.pth")
    save_file(bad, tmp_path / "nan.safetensors")
    for name in ("nan.pth", "nan.safetensors"):
        with pytest.raises(ValueError, match=rf"{name} holds weights that are not finite: deep\.weight$"):
            read_weights(tmp_path / name)


def test_a_missing_file_is_named_and_relative_paths_count_from_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(state(), tmp_path / "here.pth")
    with pytest.raises(FileNotFoundError, match=re.escape(f"no weights at {REPOSITORY / 'here.pth'}: give a file")):
        read_weights("here.pth")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_weights(tmp_path)  # a folder is no file


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_what_does_not_fit_is_named_and_nothing_is_loaded():
    own = network()
    before = copy.deepcopy(own.state_dict())
    given = {name: torch.full_like(tensor, 5) for name, tensor in before.items()}
    del given["0.bias"]
    given |= {"2.weight": torch.zeros(2, 3), "3.scale": torch.zeros(4)}
    said = (
        r"mine\.pth does not fit Sequential: 0\.bias: file nothing, here \(3,\), "
        r"2\.weight: file \(2, 3\), here \(1, 3\), 3\.scale: file \(4,\), here nothing$"
    )
    with pytest.raises(ValueError, match=said):
        load_state(own, given, "mine.pth")
    assert_same(own.state_dict(), before)
    many = {f"{letter}.weight": torch.zeros(1) for letter in "abcdefghi"}
    with pytest.raises(ValueError, match=r"0\.bias.* and 12 more$"):
        load_state(own, many, "theirs.pth")


def test_all_that_fits_is_loaded_and_an_old_file_without_counts_too():
    own, other = network(), network()
    for tensor in other.state_dict().values():
        tensor.fill_(3)
    load_state(own, other.state_dict(), "mine.pth")
    assert_same(own.state_dict(), other.state_dict())
    old = {name: tensor for name, tensor in other.state_dict().items() if "num_batches" not in name}
    load_state(own, old, "of before 2018.pth")
    assert own[1].num_batches_tracked == 0 and torch.equal(own[1].weight, torch.full((3,), 3.0))
    own[0].weight.data.zero_()
    assert old["0.weight"].all()  # the caller's stay


@pytest.mark.parametrize("left_out", ["not there", "of another shape", "left over"])
def test_parts_that_are_skipped_stay_as_they_are(left_out):
    own = network()
    head = {name: tensor.clone() for name, tensor in own.state_dict().items() if name.startswith("2.")}
    given = {name: torch.full_like(tensor, 5) for name, tensor in own.state_dict().items()}
    if left_out == "not there":
        given = {name: tensor for name, tensor in given.items() if not name.startswith("2.")}
    if left_out == "of another shape":
        given["2.weight"] = torch.zeros(9, 9)
    if left_out == "left over":
        given["2.x"] = torch.zeros(1)
    with pytest.raises(ValueError, match="does not fit"):
        load_state(own, given, "mine.pth")
    load_state(own, given, "mine.pth", skip=("2.",))
    assert_same({name: own.state_dict()[name] for name in head}, head)
    assert (own[0].weight == 5).all() and (own[1].running_var == 5).all()
    with pytest.raises(ValueError, match=r"0\.bias: file nothing"):  # what is not skipped must be there
        load_state(own, {name: tensor for name, tensor in given.items() if name != "0.bias"}, "x", skip=("2.",))


def test_a_network_without_memory_takes_the_tensors_themselves():
    with torch.device("meta"):
        empty = network()
    given = network().state_dict()
    load_state(empty, given, "mine.pth", assign=True)
    assert empty[0].weight.device.type == "cpu" and empty[0].weight.data_ptr() == given["0.weight"].data_ptr()
    own = network()
    load_state(own, given, "mine.pth")
    assert own[0].weight.data_ptr() != given["0.weight"].data_ptr()


def test_facts_travel_with_weights(tmp_path):
    path = save_weights(network(), tmp_path / "weights.safetensors", facts={"rank-1": 0.5, "size": (64, 32)})
    assert load_weights(network(), path) == {"rank-1": 0.5, "size": [64, 32]}
    torch.save(network().state_dict(), tmp_path / "theirs.pth")
    assert load_weights(network(), tmp_path / "theirs.pth") == {}


def test_a_guide_is_a_copy_that_learns_nothing_and_is_not_saved():
    class Method(nn.Module):
        def __init__(self, guide: nn.Module) -> None:
            super().__init__()
            self.own, self.guide = nn.Linear(2, 1), Frozen(guide)

    source = network().train()
    method = Method(source)
    guide = method.guide.on(torch.device("cpu"))
    assert guide is not source and source.training and all(p.requires_grad for p in source.parameters())
    assert not guide.training and not any(p.requires_grad for p in guide.parameters())
    method.train()
    assert not any(part.training for part in guide.modules())
    assert list(method.state_dict()) == ["own.weight", "own.bias"] and len(list(method.parameters())) == 2
    images = torch.randn(4, 2, requires_grad=True)
    statistics = guide[1].running_mean.clone()
    guide(images).sum().backward()
    assert images.grad.abs().sum() > 0 and all(p.grad is None for p in guide.parameters())
    assert torch.equal(guide[1].running_mean, statistics)
    with torch.no_grad():
        source[0].weight.zero_()  # training goes on with the original
    assert guide[0].weight.any()
    assert next(method.guide.on(torch.device("meta")).parameters()).device.type == "meta"
    assert source[0].weight.device.type == "cpu"
    for wrong in (None, {"weight": torch.ones(1)}, network().forward):
        with pytest.raises(TypeError, match=rf"network \(nn\.Module\) or None, got {type(wrong).__name__}"):
            Frozen(wrong)


def test_a_generators_pixels_for_an_embedder():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    signed = normalise(pixels, "signed")
    torch.testing.assert_close(signed_to_imagenet(signed), normalise(pixels, "imagenet"), rtol=0, atol=1e-6)
    grey = torch.zeros(1, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    found = signed_to_imagenet(grey)
    want = [(0.5 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert found.dtype == torch.float64 and found.flatten().tolist() == pytest.approx(want, rel=1e-12)
    found.sum().backward()  # a guide's loss reaches the generator
    assert grey.grad.flatten().tolist() == pytest.approx([0.5 / std for std in (0.229, 0.224, 0.225)])


def test_a_method_lies_where_its_parameters_do_else_its_buffers():
    class Buffers(nn.Module):
        def __init__(self, device: str) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(1, device=device))

    assert device_of(Buffers("meta")).type == "meta" and device_of(Buffers("cpu")).type == "cpu"
    both = Buffers("cpu")
    both.layer = nn.Linear(1, 1, device="meta")
    assert device_of(both).type == "meta"  # parameters first
    assert device_of(nn.ReLU()) == torch.device("cpu")


def test_every_part_has_its_own_mode_back_after_an_evaluation():
    own = network().train()
    own[1].eval()  # a frozen normalisation in a network that trains
    with pytest.raises(RuntimeError), evaluating(own):
        assert not any(part.training for part in own.modules())
        raise RuntimeError
    assert [part.training for part in own.modules()] == [True, True, False, True]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_blocks_are_listed_with_shapes_and_parameters_and_neighbours_of_a_name_together(device):
    with torch.device(device):
        network = SmallResNet(4)
        blocks = [("stem", network.stem), *(("stages", stage) for stage in network.stages), ("flat", nn.Flatten())]
        rows = block_shapes(blocks, torch.zeros(2, 3, 64, 32))
    assert [list(row.values())[:2] for row in rows] == [["stem", "4x32x16"], ["stages", "32x4x2"], ["flat", "256"]]
    assert rows[0]["parameters"] == 4 * 3 * 9 + 8 and rows[2]["parameters"] == 0
    assert rows[1]["parameters"] == sum(p.numel() for p in network.stages.parameters())
