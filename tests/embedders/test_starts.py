"""What a backbone starts from: names, files, other trainers' names, image sizes, and what is said of it."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reidlib.datasets import Benchmark, PersonImages
from reidlib.embedders import Baseline, Embedder, starts
from reidlib.embedders.resnet import ResNet50
from reidlib.experiments import score_benchmark, train_baseline
from reidlib.networks import SmallResNet, save_weights

SIZES = {(64, 32): 1, (128, 64): 2}


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A folder with starts that say which they are, in half precision as the real ones."""
    for number, file in enumerate(starts.RECORDED.values(), 1):
        net = SmallResNet(starts.WIDTH)
        net.stem[0].weight.data.fill_(number / 4)
        save_weights(net, tmp_path / file, half=True)
    monkeypatch.setattr(starts, "FOLDER", tmp_path)
    return tmp_path


def stem(method):
    return method.embedder.backbone.stem[0].weight.unique().tolist()


def people(size=(64, 32)):
    return PersonImages(torch.randint(0, 255, (32, 3, *size), dtype=torch.uint8), [1, 2] * 16, [1] * 16 + [2] * 16)


def test_each_size_of_a_method_has_its_start(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(ResNet50().state_dict(), tmp_path / "checkpoints" / "resnet50-0676ba61.pth")
    for form in ("baseline", "pn_gan", "camstyle"):
        assert Baseline(3, form=form, preset="smoke").weights_source == "random"
        course = Baseline(3, form=form)
        assert (course.weights_source, stem(course)) == ("recorded (start-1.safetensors)", [0.25])
        assert Baseline(3, form=form, start="none").weights_source == "random"
    assert Baseline(3, preset="paper").weights_source == "ImageNet (resnet50-0676ba61.pth)"


def test_the_training_images_size_chooses_the_recorded_file(recorded):
    options = {"images_seen": 32, "device": "cpu", "progress": False, "recipe": "two_step_course"}
    found = {}
    for start, size in starts.RECORDED:
        method, _ = train_baseline(people(size), start=start, frozen_share=0.5, **options)
        found[start, size] = method.weights_source
    assert found == {
        ("recorded", (64, 32)): "recorded (start-1.safetensors)",
        ("recorded-2", (64, 32)): "recorded-2 (start-2.safetensors)",
        ("recorded", (128, 64)): "recorded (start-128x64.safetensors)",
    }
    assert [stem(Baseline(3, start=start, image_size=list(size))) for start, size in found] == [[0.25], [0.5], [0.75]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 8}, r"start='recorded' does not fit SmallResNet with features of 64 and images of 64x32: recorded"),
        ({"backbone": "resnet50"}, "does not fit ResNet50 with features of 2048"),
        ({"image_size": (256, 128)}, r"images of 256x128: .* width 16 are 'recorded' at 64x32, 'recorded-2' at 64x32"),
        ({"start": "recorded-2", "image_size": (128, 64)}, "start='recorded-2' does not fit .* images of 128x64"),
        ({"start": "recorded-3"}, "start='recorded-3': accepted are 'recorded', .*, a file of weights or a state dict"),
        ({"start": ""}, "start=''"),
    ],
)
def test_what_fits_nowhere_is_refused_in_words(recorded, options, message):
    with pytest.raises(ValueError, match=message):
        Baseline(3, **options)


def test_missing_files_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(starts, "FOLDER", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"start='imagenet' needs torchvision's ResNet-50 weights.*start='none'"
    ):
        Baseline(3, preset="paper")
    with pytest.raises(FileNotFoundError, match=r"start-1.safetensors: `reidlib starts` makes it"):
        Baseline(3)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere\.pth"):
        Embedder(3, start=tmp_path / "nowhere.pth")


def test_a_state_dict_or_a_file(tmp_path):
    torch.manual_seed(0)
    state = SmallResNet(8).state_dict()
    save_file(state, tmp_path / "start.safetensors")
    for start, source in ((state, "given"), (tmp_path / "start.safetensors", "start.safetensors")):
        net = Embedder(3, width=8, start=start)
        assert net.weights_source == source
        assert all(torch.equal(value, state[name]) for name, value in net.backbone.state_dict().items())
    net.backbone.stem[0].weight.data.zero_()
    assert state["stem.0.weight"].any()  # the caller's stays
    with pytest.raises(ValueError, match=r"start \(given\) does not fit SmallResNet: .*file \(4,\), here \(8,\)"):
        Embedder(3, width=8, start=SmallResNet(4).state_dict())
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"start \(other.safetensors\) does not fit ResNet50: .*here nothing"):
        Embedder(3, backbone="resnet50", start=tmp_path / "other.safetensors")


@pytest.mark.parametrize("kind", ["imagenet", "pth", "safetensors"])
def test_torchvisions_names(tmp_path, monkeypatch, kind):
    from torchvision.models import resnet50

    import reidlib.torchvision_ops  # noqa: F401

    theirs = resnet50(weights=None)
    theirs.bn1.bias.data.fill_(0.25)
    state = theirs.state_dict()
    if kind == "safetensors":
        save_file(state, path := tmp_path / "mine.safetensors")
    else:
        path = tmp_path / ("mine.pth" if kind == "pth" else "checkpoints/resnet50-0676ba61.pth")
        path.parent.mkdir(exist_ok=True)
        torch.save(state, path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    net = Embedder(3, backbone="resnet50", last_stride=1, start=kind if kind == "imagenet" else path)
    assert net.weights_source == ("ImageNet (resnet50-0676ba61.pth)" if kind == "imagenet" else path.name)
    theirs.layer4[0].conv2.stride = theirs.layer4[0].downsample[0].stride = (1, 1)
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(net.eval().pool(images), theirs.eval()(images))


@pytest.mark.parametrize("wrap", ["module.", "state_dict", "both"])
def test_weights_that_trainers_wrapped_load_alike(tmp_path, wrap):
    """Of several cards ("module." before the names), inside a checkpoint, or both; the classifier may be another's."""
    from torchvision.models import resnet50

    import reidlib.torchvision_ops  # noqa: F401

    own = resnet50(weights=None, num_classes=10).state_dict()
    state = own if wrap == "state_dict" else {f"module.{name}": value for name, value in own.items()}
    torch.save(state if wrap == "module." else {"epoch": 3, "state_dict": state}, tmp_path / "theirs.pth")
    loaded = Embedder(3, backbone="resnet50", start=tmp_path / "theirs.pth").backbone
    kept = [value for name, value in own.items() if not name.startswith("fc.")]
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), kept, strict=True))


def test_the_start_stands_in_the_rows_rule_and_decides_a_training(recorded, tmp_path):
    images = people()
    bench = Benchmark("toy", images, images.select(camids=1), images)
    options = {"images_seen": 32, "device": "cpu", "progress": False, "run_dir": tmp_path / "run"}
    method, _ = train_baseline(images, **options)
    rule = score_benchmark(method, bench).protocol
    assert rule.endswith(
        "average over those, start recorded (start-1.safetensors), features of image and mirror averaged"
    )
    assert train_baseline(images, **options)[1].steps == 2  # found again
    with pytest.raises(ValueError, match="start"):
        train_baseline(images, start="none", **options)
    with pytest.raises(ValueError, match="start"):
        train_baseline(images, start=method.embedder.backbone.state_dict(), **options)
    thesis = Baseline(3, preset="smoke", recipe="thesis")
    assert score_benchmark(thesis, bench).protocol.endswith("start random")
