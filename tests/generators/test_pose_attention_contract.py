"""Pose attention as a method of the library: presets, weights, refusals, the whole way."""

from functools import partial

import pytest
import torch
from pose_attention_toys import HEAD, SIZE, Constant, encoder, images_of, one_batch, people, pose_pair, smoke, step_of
from torch import nn

from reidlib.datasets import PersonImages, load, poses
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.embedders import Embedder
from reidlib.evaluators.judges import load_judges
from reidlib.experiments import judge_generator
from reidlib.generators.pose_attention import (
    PAPER,
    PRESETS,
    Generator,
    PoseAttention,
    augmentation_pairs,
    pose_attention_pairs,
)
from reidlib.generators.recorded import load_generator, save_generator
from reidlib.generators.synthesis import stream, synthesise, train_generator
from reidlib.losses import quartet_loss
from reidlib.networks import SmallResNet, normalise
from reidlib.training import fit
from reidlib.training.updates import plain_update

# ---- the rest of the contract


def test_history_of_generated_images():
    method, batch = smoke(pool_size=3), one_batch()
    step_of(method, batch)
    assert method.pool_I.filled == method.pool_P.filled == 3
    assert method.pool_I.images.shape == (3, 6, 64, 32) and method.pool_P.images.shape == (3, 21, 64, 32)
    torch.testing.assert_close(method.pool_I.images[:, :3], normalise(batch["images"], "signed"))
    torch.testing.assert_close(method.pool_I.images[:, 3:], method.pool_P.images[:, 18:])


def test_foreground_and_guide_are_deviations_that_add_up():
    torch.manual_seed(0)
    method, batch = smoke(foreground_weight=4, guide=SmallResNet(4), lambda_guide=7), one_batch()
    terms, calls = step_of(method, batch)
    total = 5 * (terms["L_I"] + terms["L_P"]) + 10 * terms["L_R"] + 7 * terms["perceptual"]
    torch.testing.assert_close(calls["G"], total)
    assert (
        terms["perceptual"] > 0
        and method.deviations["lambda_guide"] == 7
        and method.deviations["foreground_weight"] == 4
    )
    assert method.state_dict().keys() == smoke().state_dict().keys()
    moved = smoke(guide=SmallResNet(4), lambda_guide=7, guide_shift=8)
    assert len({step_of(moved, batch)[0]["perceptual"].item() for _ in range(8)}) > 1  # drawn anew in each step


def test_presets_and_deviations():
    with torch.device("meta"):
        paper = PoseAttention(Embedder(751, backbone="resnet50", heads=[HEAD]), preset="paper")
    published = dict(
        image_size=(128, 64), encoder_size=(256, 128), width=64, n_blocks=4, discriminator_width=64, lr=2e-4, lr_E=2e-4,
        lambda_gan=5.0, lambda_reconstruction=10.0, lambda_semantic=10.0, lambda_quartet=1.0, lambda_id=1.0, epochs=800,
        steps=100_000, foreground_weight=1.0, embedding=128, pool_size=0, mode="joint", paan="pyramid", f0="pose",
        adain="pose_style", mask_relu=False, pad="reflect", kernel=7, score="map", use_appearance_discriminator=True,
        use_pose_discriminator=True, train_E_on_LS=False, semantic_feature="pooled", quartet={}, normalise=True,
        lambda_guide=0.0, guide_shift=0, background="target", preset="paper",
    )  # fmt: skip
    assert paper.deviations == {} and paper.settings == published
    assert paper.settings.keys() - {"preset"} == PAPER.keys()
    assert paper.E.pool(torch.zeros(2, 3, 256, 128, device="meta")).shape == (2, 2048)
    for preset in ("smoke", "course"):
        method = PoseAttention(encoder(), preset=preset)
        changed = {name: value for name, value in PRESETS[preset].items() if value != PRESETS["paper"][name]}
        assert method.deviations == changed | {"lr_E": method.settings["lr"], "kernel": 3}
    bare = PoseAttention(preset="smoke").deviations
    assert {name: bare[name] for name in ("lambda_semantic", "lambda_quartet", "lambda_id")} == dict.fromkeys(
        ("lambda_semantic", "lambda_quartet", "lambda_id"), 0.0
    )


def test_kernel_is_that_of_the_convolutions_at_full_size():
    def sides(kernel):
        layers = Generator(width=4, n_blocks=3, kernel=kernel).modules()
        return [m.kernel_size[0] for m in layers if isinstance(m, nn.Conv2d) and m.in_channels in (3, 18, 12, 8)
                and m.out_channels in (3, 4) and m.stride == (1, 1)]  # fmt: skip

    assert sides(7) == [7] * 4 and sides(3) == [3] * 4  # E_A, E_P, the last block's picture, the head
    assert Generator(width=4, paan="isotropic", kernel=7).pagn[0].picture[0].kernel_size == (3, 3)  # not at full size
    poses_of = pose_pair()
    assert Generator(width=4, kernel=5)(images_of(), *poses_of).images.shape == images_of().shape
    for kernel in (4, 0):
        with pytest.raises(ValueError, match=f"odd kernel is accepted .* got kernel={kernel}"):
            Generator(width=4, kernel=kernel)
        with pytest.raises(ValueError, match=f"odd kernel is accepted .* got kernel={kernel}"):
            PoseAttention(preset="course", kernel=kernel)


@pytest.mark.parametrize("preset", ["smoke", "course"])
@pytest.mark.parametrize(("size", "kernel"), [((32, 16), 3), ((64, 32), 3), ((128, 64), 7), ((256, 128), 7)])
def test_the_kernel_follows_the_size_unless_it_is_given(preset, size, kernel):
    options = dict(preset=preset, image_size=size, n_blocks=2, width=2, discriminator_width=2, score="map")
    method = PoseAttention(**options)
    assert method.settings["kernel"] == method.G.head[0].kernel_size[0] == kernel
    assert PoseAttention(**options, kernel=5).settings["kernel"] == 5
    assert PoseAttention(**options | dict(preset="paper")).settings["kernel"] == 7


def test_optimizers_and_first_weights():
    torch.manual_seed(0)
    method = PoseAttention(encoder(), preset="course")
    for name, (parameters, optimizer, schedule) in method.optimizers().items():
        assert optimizer.defaults["betas"] == ((0.9, 0.999) if name == "E" else (0.5, 0.999))
        assert optimizer.defaults["lr"] == method.settings["lr"] and schedule == method.schedule
        assert len(parameters) == len(list(getattr(method, name).parameters()))
    assert PoseAttention(encoder(), preset="course", lr_E=3e-5).optimizers()["E"][1].defaults["lr"] == 3e-5
    for network in (method.G, method.D_I, method.D_P):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.weight.numel() > 2000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.08)
                assert module.bias is None or module.bias.eq(0).all()
    assert method.E.backbone.stem[0].weight.std() > 0.05  # its own


def test_activations_and_dropout_of_the_paper():
    with torch.device("meta"):
        method = PoseAttention(preset="paper")
    assert {m.negative_slope for m in method.G.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert sum(isinstance(m, nn.LeakyReLU) for m in method.G.modules()) == 4  # one a picture
    assert not any(isinstance(m, nn.Dropout) for m in method.G.modules())
    for network in (method.D_I, method.D_P):
        assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.5] * 3


def test_a_step_of_the_paper_preset():
    """The whole joint step at the paper's sizes and widths, with ResNet-50 at 256x128, on three pairs."""
    torch.manual_seed(0)
    network = Embedder(3, backbone="resnet50", heads=[HEAD])
    method = PoseAttention(network, preset="paper")
    assert method.deviations == {}
    before = {name: value.clone() for name, value in method.state_dict().items() if name.endswith("weight")}
    batch = one_batch(size=(128, 64))
    terms = method.train().training_step(batch, 0, plain_update(method))
    after = method.state_dict()
    assert all(value.isfinite() for value in terms.values())
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    assert terms["G"].item() == pytest.approx(
        (5 * (terms["L_I"] + terms["L_P"]) + 10 * terms["L_R"] + 10 * terms["L_S"]).item(), rel=1e-5
    )


def test_condition_and_masks_for_inspection():
    method, data = smoke(), people([1, 1])
    targets = people([1, 1], seed=5)
    condition = method.condition(targets.batch([0, 1]), data.batch([0, 1]))
    assert torch.equal(condition["source"], poses.heat_maps(data.keypoints, SIZE))
    assert torch.equal(condition["target"], poses.heat_maps(targets.keypoints, SIZE))
    image = images_of()
    method.train()
    made = method.look(image, condition)
    assert torch.equal(made.images, method.generate(image, condition)) and method.training
    assert not made.images.requires_grad and made.images.abs().max() <= 1
    assert [tuple(m.shape) for m in made.paan] == [(2, 8, 32, 16), (2, 16, 16, 8), (2, 32, 8, 4)]
    assert [tuple(m.shape) for m in made.pagn] == [(2, 16, 16, 8), (2, 8, 32, 16), (2, 4, 64, 32)]
    opened = method.G.paan.blocks[0]
    opened.mask = Constant(lambda x: torch.ones_like(x))  # the mistake that a notebook shows
    assert not torch.equal(method.generate(image, condition), made.images)


def test_bad_input_is_named():
    method, batch = smoke(True), one_batch()
    with pytest.raises(ValueError, match="PoseAttention trains on batches of pairs"):
        step_of(method, {"images": batch["images"]})
    for name in ("keypoints", "target_keypoints", "labels", "indices", "target_indices"):
        with pytest.raises(ValueError, match=f"the batch lacks {name}"):
            step_of(method, {key: value for key, value in batch.items() if key != name})
    with pytest.raises(ValueError, match="label 3 with 3 classes"):
        step_of(method, batch | {"labels": torch.tensor([0, 1, 3])})
    data = people([1, 1])
    bare = {"images": data.images}
    with pytest.raises(ValueError, match="pose attention needs targets with keypoints, got images"):
        method.condition(bare, data.batch([0, 1]))
    with pytest.raises(ValueError, match="pose attention needs sources with keypoints, got nothing"):
        method.condition(data.batch([0, 1]), None)
    lost = data.batch([0, 1])
    lost["keypoints"] = torch.tensor([-1.0, -1.0, 0.0]).expand(2, 18, 3).clone()
    lost["keypoints"][0, 3] = torch.tensor([3.0, 3.0, 1.0])
    with pytest.raises(ValueError, match="1 of 2 targets show no joint"):
        method.condition(lost, data.batch([0, 1]))
    for condition in (
        None,
        pose_pair()[0],
        {"source": pose_pair()[0]},
        dict.fromkeys(("source", "target"), pose_pair(1)[0]),
    ):
        with pytest.raises(
            ValueError, match=r"condition must hold maps \[2, 18, 64, 32\] of the source and of the target"
        ):
            method.generate(images_of(), condition)
    plain = PersonImages(data.images, [1, 1], [1, 2])
    for call in (pose_attention_pairs, augmentation_pairs):
        with pytest.raises(ValueError, match="needs key points"):
            call(plain)
    with pytest.raises(ValueError, match="pairs must be one of 'all', 'same_camera'"):
        pose_attention_pairs(data, "some")
    with pytest.raises(ValueError, match="no identity has two images"):
        pose_attention_pairs(data, "same_camera")
    nobody = PersonImages(data.images, [1, 1], [1, 2], keypoints=torch.tensor([-1.0, -1.0, 0.0]).expand(2, 18, 3))
    with pytest.raises(ValueError, match="needs 1 targets for each image, there are 0"):
        augmentation_pairs(nobody)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(preset="large"), "'smoke', 'course', 'paper'"),
        (dict(paan="tree"), "paan must be one of 'pyramid', 'isotropic'"),
        (dict(adain="none"), "adain must be one of"),
        (dict(f0="image"), "f0 must be one of"),
        (dict(pad="same"), "pad must be one of 'reflect', 'zero'"),
        (dict(score="patch"), "score must be one of 'map', 'features', 'patchgan'"),
        (dict(mode="alone"), "mode must be one of 'joint', 'staged'"),
        (dict(semantic_feature="logits"), "semantic_feature must be one of 'pooled', 'embedding'"),
        (dict(quartet=dict(form="square")), "form must be one of"),
        (dict(lambda_gan=-1), "lambda_gan"),
        (dict(lamda_gan=1), "switch must be one of 'image_size', .*; got 'lamda_gan'"),
        (dict(score="patchgan", image_size=(32, 16), n_blocks=2), "at least 24 pixels"),
        (dict(embedding=64), "embedding has 128 numbers, embedding=64 is accepted"),
    ],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PoseAttention(encoder(), **{"preset": "smoke"} | options)


def test_a_network_that_is_no_encoder_is_refused():
    for other in (nn.Linear(2, 1), SmallResNet(4), lambda images: images):
        with pytest.raises(TypeError, match="encoder must be a re-ID network"):
            PoseAttention(other, preset="smoke")
    with pytest.raises(ValueError, match="embedding has 32 numbers"):
        PoseAttention(encoder(feature="pooled"), preset="smoke")


def test_recorded_weights_draw_the_same_without_the_encoder(tmp_path):
    method = smoke(True, pool_size=2, quartet=dict(form="literal"))
    step_of(method.train(), one_batch())  # moves the running statistics
    save_generator(method, tmp_path / "mine.safetensors")
    again, facts = load_generator("mine", folder=tmp_path)
    for value in (*method.G.parameters(), *method.G.buffers()):
        value.data = value.data.half().to(value.dtype)  # as stored
    condition = dict(zip(("source", "target"), pose_pair(), strict=True))
    assert torch.equal(again.generate(images_of(), condition), method.generate(images_of(), condition))
    assert facts["settings"]["lambda_semantic"] == 10 and again.E is None and again.settings["lambda_semantic"] == 0


def test_reconstruction_falls_on_four_images():
    data = people([1, 1, 2, 2], size=(32, 16))
    method = smoke(width=8, n_blocks=2, foreground_weight=1, image_size=(32, 16), score="map", steps=10**6)
    batches = Batches(data, pair_batches(pose_attention_pairs(data), 4))
    history = fit(method, batches, 60, device="cpu", precision="fp32", log_every=10, progress=False)
    l1 = history.losses["L_R"]  # means over ten steps
    assert l1.iloc[-1] < 0.5 * l1.iloc[0]


def test_trains_generates_and_is_judged_on_rendered_people(tmp_path):
    bench = load("procedural", root=tmp_path, size="smoke", image_size=SIZE, cache=tmp_path, progress=False)
    train = bench.train
    pairs = pose_attention_pairs(train, "same_camera")
    network = Embedder(len(train.pids.unique()), width=4, heads=[HEAD])
    build = partial(PoseAttention, network, preset="smoke", width=4)
    options = dict(images_seen=24, batch_size=8, device="cpu", progress=False, precision="fp32", pairs_per_epoch=4000)
    method, history = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")
    assert history.steps == method.settings["steps"] == 3
    names = {"L_I", "L_P", "L_R", "L_S", "L_quartet", "L_id", "G", "E", "D_I", "D_P"}
    assert names <= set(history.losses.columns) and history.losses[sorted(names)].notna().all(axis=None)
    again, _ = train_generator(build, train, pairs, **options, run_dir=tmp_path / "run")  # the finished run is taken up
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in method.state_dict().items())
    asked = augmentation_pairs(train)[:6]
    made = synthesise(method, train, asked, targets=train)
    assert made.pids.tolist() == train.pids[:6].tolist() and made.is_generated.all()
    streamed = torch.cat([images for _, images in stream(method, train, asked, targets=train, batch_size=4)])
    assert (streamed.int() - made.images.int()).abs().max() <= 1
    some = pairs[:12]
    table = judge_generator(method, train, some, targets=train, judges=load_judges(), gallery=train, copy=True,
                            source_rows=some[:, 0])  # fmt: skip
    assert list(table.index) == ["copy of the source", "PoseAttention"]
    assert table.loc["PoseAttention", ["PCK@0.1", "identity kept, rank-1", "FID", "SSIM"]].notna().all()


def test_the_printed_loss_is_the_hinge_without_a_constant():
    """Checks 6 and 7 as the method's options reach the loss: literal and hinge differ by tau_1 + tau_2."""
    torch.manual_seed(0)
    losses = {}
    for form in ("hinge", "literal"):
        method = smoke(True, quartet=dict(form=form))
        torch.manual_seed(4)
        losses[form] = step_of(method.eval(), one_batch())[0]["L_quartet"]
    assert (losses["literal"] - losses["hinge"]).item() == pytest.approx(-0.99, abs=1e-5)
    unit = torch.eye(4)[:, None]
    assert quartet_loss(*unit).item() == pytest.approx(2 * 2 - 2 - 2 + 1 + 2 - 0.01)
