"""Shapes, the neck and strides."""

import pytest
import torch

from reidlib.embedders import Embedder, Head
from reidlib.embedders.resnet import ResNet50
from reidlib.embedders.starts import load_start
from reidlib.networks import SmallResNet


@pytest.fixture(scope="module")
def weights():
    return ResNet50()


@pytest.mark.parametrize("size", [(64, 32), (128, 64), (50, 30)])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_small_network_maps(size, last_stride):
    net = SmallResNet(8, last_stride).eval()
    step = 8 * last_stride
    assert net(torch.zeros(1, 3, *size)).shape == (1, 64, -(-size[0] // step), -(-size[1] // step))


def test_resnet50_strides():
    image = torch.zeros(1, 3, 64, 32)
    for last_stride, size in ((2, (2, 1)), (1, (4, 2))):
        net = ResNet50(last_stride).eval()
        assert net(image).shape == (1, 2048, *size)


def test_resnet50_equals_torchvision():
    from torchvision.models import resnet50

    import reidlib.torchvision_ops  # noqa: F401

    theirs = resnet50(weights=None).eval()
    ours = ResNet50().eval()
    assert load_start(ours, theirs.state_dict()) == "given"
    theirs.fc = torch.nn.Identity()
    image = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(image).mean((2, 3)), theirs(image))


@pytest.mark.parametrize("pool", ["avg", "max", "concat", "add"])
def test_pooling_by_hand(pool):
    torch.manual_seed(0)
    merge = {"merge": pool} if pool in ("concat", "add") else {}
    net = Embedder(3, width=4, pool="blocks" if merge else pool, **merge).eval()
    maps = []
    for block in net.backbone.stages[-1]:
        block.register_forward_hook(lambda module, inputs, output: maps.append(output))
    images = torch.randn(2, 3, 64, 32)
    pooled = net.pool(images)
    assert [m.shape for m in maps] == [(2, 32, 4, 2)] * 2
    first, last = (m.mean((2, 3)) for m in maps)
    want = {"avg": last, "max": maps[-1].amax((2, 3)), "concat": torch.cat([first, last], 1), "add": first + last}
    torch.testing.assert_close(pooled, want[pool])
    torch.testing.assert_close(maps[-1], net.backbone(images))
    assert net.heads[0].classifier.in_features == pooled.shape[1]


@pytest.mark.parametrize("feature", ["pooled", "layer", "norm"])
def test_a_head_by_hand(feature):
    torch.manual_seed(0)
    head = Head(6, 4, dimensions=5, norm="batch", relu=True, dropout=0.5, feature=feature).eval()
    head.norm.running_mean.uniform_(-1, 1)
    head.norm.bias.data.uniform_(-1, 1)
    head.layer.bias.data.uniform_(-1, 1)
    pooled = torch.randn(3, 6)
    layer = pooled @ head.layer.weight.T + head.layer.bias
    norm = (layer - head.norm.running_mean) / (head.norm.running_var + 1e-5).sqrt() + head.norm.bias
    assert (norm < 0).any()
    compared, found, logits = head(pooled)
    torch.testing.assert_close(found, {"pooled": pooled, "layer": layer, "norm": norm}[feature])
    torch.testing.assert_close(compared, pooled if feature == "pooled" else layer)
    torch.testing.assert_close(logits, norm.clamp(min=0) @ head.classifier.weight.T + head.classifier.bias)
    assert head.dimensions == found.shape[1]


def test_initial_weights_of_a_layer():
    torch.manual_seed(0)
    head = Head(2048, 751, dimensions=1024, norm="batch")
    assert head.layer.weight.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.01)  # Kaiming, fan-out: 0.044
    assert not head.layer.bias.any() and not head.classifier.bias.any()
    assert head.classifier.weight.std().item() == pytest.approx(0.001, rel=0.01)
    plain = Head(2048, 751, dimensions=1024, init="torch")
    assert plain.layer.weight.std().item() == pytest.approx((1 / 3 / 2048) ** 0.5, rel=0.01) and plain.layer.bias.any()


def by_rule(net):
    """Fill a network by a rule that knows each parameter's shape and kind only, in float64."""
    net.double()
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    scales = {id(module.weight) for module in net.modules() if isinstance(module, kinds)}
    for name, p in [*net.named_parameters(), *net.named_buffers()]:
        n = torch.arange(p.numel(), dtype=torch.float64)
        if p.dim() > 1:
            i = torch.arange(p.numel())
            values = torch.cos(2 * torch.pi * ((7919 * i * i + 104729 * i) % 1000003).double() / 1000003)
            values = values * (2 / p[0].numel()) ** 0.5
        elif name.endswith("running_mean"):
            values = 0.05 * torch.sin(n)
        elif name.endswith("running_var"):
            values = 1 + 0.1 * torch.cos(n) ** 2
        elif name.endswith("num_batches_tracked"):
            continue
        else:
            values = 1 + 0.1 * torch.sin(0.9 * n) if id(p) in scales else 0.1 * torch.cos(1.3 * n)
        p.data.copy_(values.reshape(p.shape))
    return net


def wave(*shape):
    return torch.sin(0.37 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 0.1).reshape(shape)


def check_record(found, mean, std, values):
    """Compare with the record of a published network: its mean, deviation and single values by flat index."""
    single = [(found.flatten()[i], value) for i, value in values]
    for got, want in ((found.mean(), mean), (found.std(correction=0), std), *single):
        assert abs(got.item() - want) <= 1e-5 * max(abs(want), std)


DG_NET = [dict(dimensions=512, norm="batch", dropout=p) for p in (0.5, 0.75)]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_heads_are_dg_nets(mode):
    """The released heads' values for parameters and a pooled vector that a formula fixes; 1,435,375 parameters each."""
    head = Head(2048, 751, dimensions=512, norm="batch", dropout=0.0)
    assert sum(p.numel() for p in head.parameters()) == 1_435_375
    with torch.no_grad():
        _, feature, logits = by_rule(head).train(mode == "train")(wave(4, 2048))
    if mode == "eval":
        check_record(feature, 0.002425791, 0.7199106, [(1265, -0.9196172), (483, 0.07164286), (184, -1.748955)])
        check_record(logits, -0.00102619, 0.7066762, [(1856, -0.01841457), (270, -1.190052), (2565, -0.3051854)])
    else:
        check_record(feature, -4.371067e-05, 1.005097, [(1265, -1.482489), (483, -1.221735), (184, -1.159712)])
        check_record(logits, -0.0001372064, 0.9778898, [(1856, -0.4278884), (270, -1.614709), (2565, 0.4501757)])


def test_the_embedder_is_dg_nets_re_id_encoder_and_teacher():
    """Published values of E_a (stride 1, max pooling, two heads) and of the teacher (stride 2, average, one head)."""
    net = Embedder(751, backbone="resnet50", last_stride=1, pool="max", heads=DG_NET)
    assert sum(p.numel() for p in net.parameters()) == 26_378_782
    with torch.no_grad():
        maps = by_rule(net).eval().backbone(wave(1, 3, 256, 128))
        bands = torch.nn.functional.adaptive_max_pool2d(maps, (4, 1)).flatten(1)
        check_record(bands, 3.654741, 3.265223, [(1933, 0.5732512), (6996, 5.151647), (6540, 8.387184)])
        for head in net.double().heads:
            _, feature, logits = head(maps.amax((2, 3)))
            assert feature.shape == (1, 512)
            check_record(logits, -0.01649452, 5.082489, [(464, 2.812942), (177, 12.89128), (709, -5.548563)])
    assert [head.dropout.p for head in net.heads] == [0.5, 0.75]
    teacher = Embedder(751, backbone="resnet50", heads=DG_NET[:1])
    assert sum(p.numel() for p in teacher.parameters()) == 24_943_407
    with torch.no_grad():
        logits = by_rule(teacher).eval().heads[0](teacher.pool(wave(2, 3, 256, 128))).logits
    check_record(logits, -0.03441302, 3.252501, [(928, 7.016006), (709, -4.06514), (1418, -6.462602)])


def test_every_head_describes_the_same_vector():
    torch.manual_seed(0)
    net = Embedder(4, width=8, pool="max", heads=[dict(dimensions=5, norm="batch"), dict(dimensions=6)]).eval()
    images = torch.randn(2, 3, 64, 32)
    found = net.all_heads(images)
    assert [tuple(head.feature.shape) for head in found] == [(2, 5), (2, 6)] and net.dimensions == 5
    for got, head in zip(found, net.heads, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, head(net.pool(images)), strict=True))
    assert torch.equal(net(images).logits, found[0].logits)
    assert [p.shape for p in net.new_layers] == [p.shape for head in net.heads for p in head.parameters()]


def test_the_neck():
    net = Embedder(5, width=8, bnneck=True)
    assert net.heads[0].classifier.bias is None and not net.heads[0].norm.bias.requires_grad
    assert net.heads[0].classifier.weight.std().item() == pytest.approx(0.001, rel=0.3)
    pooled, neck, logits = net(torch.randn(16, 3, 64, 32))
    torch.testing.assert_close(neck.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, neck @ net.heads[0].classifier.weight.T)
    plain = Embedder(5, width=8)
    pooled, neck, _ = plain(torch.randn(4, 3, 64, 32))
    assert torch.equal(pooled, neck) and plain.heads[0].classifier.bias is not None


def test_dropout_only_in_training():
    net = Embedder(5, width=8, dropout=0.5)
    image = torch.randn(8, 3, 64, 32)
    net.heads[0].classifier.weight.data.normal_()
    assert not torch.equal(net(image)[2], net(image)[2])
    net.eval()
    assert torch.equal(net(image)[2], net(image)[2])


def test_mixed_precision_gives_float32():
    net = Embedder(5, width=8, bnneck=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert {x.dtype for x in net(torch.randn(4, 3, 64, 32))} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backbone="vgg"), "backbone must be one of 'small', 'resnet50'; got 'vgg'"),
        (dict(last_stride=3), "last_stride must be one of 1, 2; got 3"),
        (dict(pool="min"), "pool must be one of 'avg', 'max', 'blocks'; got 'min'"),
        (dict(merge="max"), "merge must be one of 'concat', 'add'; got 'max'"),
        (dict(n_classes=0), "n_classes=0"),
        (dict(dimensions=-1), "dimensions=-1"),
        (dict(heads=[]), "at least one head"),
        (dict(heads=[{}], bnneck=True), "bnneck= describe the plain one instead"),
        (dict(heads=[{"norm": "layer"}]), "norm must be one of None, 'batch', 'bnneck'; got 'layer'"),
        (dict(heads=[{"feature": "logits"}]), "feature must be one of 'pooled', 'layer', 'norm'; got 'logits'"),
        (dict(heads=[{"init": "he"}]), "init must be one of 'kaiming', 'torch'; got 'he'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Embedder(**dict(n_classes=2) | options)
