"""Camera transfer's data: pairs of cameras, loading, batches; training on them, and the extension that comes of it."""

from functools import partial

import numpy as np
import pytest
import torch

from reidlib.datasets import PersonImages, camera_pair, extend
from reidlib.datasets.sampling import Batches, pair_batches
from reidlib.generators import camera_transfer
from reidlib.generators.camera_transfer import (
    CameraTransfer,
    load_pairs,
    subset_rows,
    train_transfer,
    transfer,
    transfer_pairs,
)

CAMERAS = [5, 5, 5, 5, 6, 6, 6, 6, 1]  # 5 has 1s1, 1s1, 1s2, 2s1; 6 has 1s1, 1s1, 1s1, 2s2
PIDS, SEQUENCES = [1, 1, 1, 2, 1, 1, 1, 2, 9], [1, 1, 2, 1, 1, 1, 1, 2, 1]


def people(size: tuple[int, int] = (64, 32), masks: bool = True, **others) -> PersonImages:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (9, 3, *size), generator=g, dtype=torch.uint8)
    mask = torch.randint(0, 256, (9, *size), generator=g, dtype=torch.uint8) if masks else None
    return PersonImages(images, PIDS, CAMERAS, sequences=SEQUENCES, masks=mask, **others)


def numbers_only(camids: list[int]) -> PersonImages:
    """A set of many images that share one pixel: enough to count pairs."""
    n = len(camids)
    pixels, masks = torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, 1, dtype=torch.uint8)
    return PersonImages(pixels.expand(n, 3, 1, 1), [1] * n, camids, masks=masks.expand(n, 1, 1))


@pytest.fixture(scope="module")
def trained() -> CameraTransfer:
    method, _ = train_transfer(people(), 5, 6, model=3, images_seen=16, preset="smoke", device="cpu", progress=False)
    return method


def test_3_model_4_pairs_of_cameras_5_and_6_at_market_1501s_size():
    train = numbers_only([5] * 2338 + [6] * 3245)
    pairs = transfer_pairs(train, 5, 6, model=4, seed=0)
    assert pairs.shape == (23_380, 2)
    by_source = pairs[:, 1].reshape(2338, 10).sort(1).values
    assert torch.equal(pairs[:, 0].unique(return_counts=True)[1], torch.full((2338,), 10))
    assert (by_source.diff(dim=1) > 0).all() and by_source.min() >= 2338
    assert torch.equal(pairs, transfer_pairs(train, 5, 6, model=4, seed=0))
    assert not torch.equal(pairs, transfer_pairs(train, 5, 6, model=4, seed=1))


def test_2_pairs_and_subsets_of_the_toy_split():
    train = people()
    for options in (dict(model=1), dict(model=2), dict(model=3), dict(model=4, variant="variable")):
        assert len(transfer_pairs(train, 5, 6, **options)) == 6
    assert len(transfer_pairs(train, 5, 6, model=4, per_source=3)) == 12
    assert subset_rows(train, 5, 6).tolist() == [0, 1, 2, 3]
    assert subset_rows(train, 5, 6, "unpaired").tolist() == [2, 3]
    assert len(camera_pair(train, 5, 6).new_ids_from_a) == 0
    with pytest.raises(ValueError, match="no image of camera 5 is in the subset 'new_ids'"):
        subset_rows(train, 5, 6, "new_ids")


def test_9_image_partner_and_masks_are_cut_and_flipped_alike():
    g = torch.Generator().manual_seed(3)
    grey = torch.randint(0, 256, (16, 64, 32), generator=g, dtype=torch.uint8)
    batch = {name: grey[:, None].expand(-1, 3, -1, -1) for name in ("images", "target_images")}
    batch |= {"masks": grey, "target_masks": grey, "pids": torch.arange(16)}
    out = load_pairs(batch, torch.Generator().manual_seed(7))
    for name in ("masks", "target_masks"):
        assert torch.equal(out["images"][:, 0], out[name]) and torch.equal(out["images"], out["target_images"])
    again = load_pairs(batch, torch.Generator().manual_seed(7))
    assert all(torch.equal(out[name], again[name]) for name in out)
    assert not torch.equal(out["images"], load_pairs(batch, torch.Generator().manual_seed(8))["images"])
    one_image = {name: tensor[:1].expand(16, *tensor.shape[1:]) for name, tensor in batch.items()}
    draws = load_pairs(one_image, torch.Generator().manual_seed(7))["images"]
    assert len({image.numpy().tobytes() for image in draws}) > 12  # every image has its own draw


def test_loading_enlarges_by_286_over_256_before_the_cut(monkeypatch):
    seen = []
    monkeypatch.setattr(
        camera_transfer, "crop", lambda b, top, left, size: seen.append((b["images"].shape, top, left, size)) or b
    )
    batch = {"images": torch.zeros(400, 3, 128, 64, dtype=torch.uint8)}
    for wanted, larger in (((64, 32), (72, 36)), ((128, 64), (143, 72)), ((256, 256), (286, 286))):
        rows = 400 if wanted == (64, 32) else 2
        load_pairs({"images": batch["images"][:rows]}, torch.Generator().manual_seed(0), image_size=wanted)
        shape, top, left, size = seen[-1]
        assert (*shape[2:], *size) == (*larger, *wanted)
        if rows == 400:
            assert set(top.tolist()) == set(range(9)) and set(left.tolist()) == set(range(5))


def test_loading_is_bicubic_antialiased_like_pillow():
    from PIL import Image

    image = torch.randint(0, 256, (1, 3, 128, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    smooth = torch.nn.functional.avg_pool2d(image.float(), 5, 1, 2).round().to(torch.uint8)
    found = load_pairs({"images": smooth}, torch.Generator(), image_size=(64, 32), enlarge=1.0, p=0.0)["images"]
    wanted = Image.fromarray(smooth[0].permute(1, 2, 0).numpy()).resize((32, 64), Image.Resampling.BICUBIC)
    assert np.abs(found[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(wanted).astype(int)).max() <= 1


def test_batches_have_what_a_model_needs():
    for model in (1, 2, 3, 4):
        train = people((128, 64))
        sampler = pair_batches(transfer_pairs(train, 5, 6, model=model), 4)
        batch = Batches(train, sampler, augment=partial(load_pairs, image_size=(64, 32)))(0)
        assert batch["images"].shape[2:] == batch["target_masks"].shape[1:] == (64, 32)
        assert batch["camids"].eq(5).all() and batch["target_camids"].eq(6).all()
        assert model == 4 or torch.equal(batch["pids"], batch["target_pids"])
        CameraTransfer(model=model, preset="smoke").training_step(batch, 0, lambda name, loss: None)


def test_training_repeats_and_follows_the_seed():
    options = dict(model=2, images_seen=16, preset="smoke", device="cpu", progress=False)
    (first, history), (second, _), (other, _) = (train_transfer(people(), 5, 6, seed=s, **options) for s in (0, 0, 1))
    assert history.steps == 2 and history.images == 12  # two epochs of the six pairs
    assert all(torch.equal(t, second.state_dict()[name]) for name, t in first.state_dict().items())
    assert not torch.equal(first.G.down[0][0].weight, other.G.down[0][0].weight)
    method, history = train_transfer(people(), 5, 6, model=1, preset="smoke", device="cpu", progress=False)
    assert history.steps == method.settings["steps"] == 10 and history.images == 60  # the thesis's 10 epochs


def test_model_4_trains_with_any_people_in_camera_b_and_the_others_need_known_ones():
    train = people().with_labels(pids=[1, 1, 1, 2, 11, 12, 13, 14, 9])
    train_transfer(train, 5, 6, model=4, images_seen=8, preset="smoke", device="cpu", progress=False)
    with pytest.raises(ValueError, match="no identity is in both camera 5 and camera 6"):
        transfer_pairs(train, 5, 6, model=1)
    with pytest.raises(ValueError, match="no identity is in cameras 5 and 6 in the same sequence, so model 2"):
        transfer_pairs(people().select(indices=[2, 3, 4, 7]), 5, 6, model=2)


def test_sets_that_cannot_be_trained_on_are_refused():
    bare = people(masks=False)
    assert len(transfer_pairs(bare, 5, 6, model=1)) == 6  # the one model that needs no mask
    for model in (2, 3, 4):
        with pytest.raises(ValueError, match=f"model {model} .* trains on person masks, and this set has none"):
            transfer_pairs(bare, 5, 6, model=model)
    for model in (1, 4):
        with pytest.raises(ValueError, match=r"camera 7 has no images; the set's cameras are \[1, 5, 6\]"):
            transfer_pairs(people(), 5, 7, model=model)
    with pytest.raises(ValueError, match="images_seen=7 is less than one batch of 8"):
        train_transfer(people(), 5, 6, images_seen=7, preset="smoke", device="cpu", progress=False)
    with pytest.raises(ValueError, match="'smoke', 'course', 'paper'"):
        train_transfer(people(), 5, 6, preset="large")


def test_extension_keeps_people_and_names_camera_b(trained):
    train = people()
    fakes = transfer(trained, train, 5, 6)
    assert fakes.pids.tolist() == [1, 1, 1, 2] and fakes.camids.tolist() == [6] * 4 and fakes.is_generated.all()
    assert fakes.info["source"].tolist() == train.names[:4] and fakes.image_size == (64, 32)
    assert {train.names.index(name) for name in fakes.info["target"]} <= {4, 5, 6, 7}  # masks of camera 6
    again, other = (transfer(trained, train, 5, 6, seed=seed) for seed in (0, 3))
    assert torch.equal(fakes.images, again.images)
    assert fakes.info["target"].tolist() != other.info["target"].tolist()


def test_extension_is_what_generate_makes_one_by_one(trained):
    train = people()
    fakes = transfer(trained, train, 5, 6, batch_size=3)
    for i, target in enumerate(fakes.info["target"]):
        source, wanted = train.batch([i]), train.batch([train.names.index(target)])
        condition = trained.condition(wanted, source)
        out = trained.generate(source["images"].float() / 127.5 - 1, condition)
        assert (fakes.images[i].float() - (out[0] + 1) * 127.5).abs().max() < 1.01


def test_extension_of_chosen_images_and_to_files(trained, tmp_path):
    train = people()
    assert transfer(trained, train, 5, 6, subset="unpaired").pids.tolist() == [1, 2]
    some = transfer(trained, train, 5, 6, subset=torch.tensor([3, 0]), folder=tmp_path / "fakes")
    assert some.pids.tolist() == [2, 1] and (tmp_path / "fakes" / "images.npy").is_file()
    both = extend(train, some)
    assert len(both) == 11 and both.is_generated.sum() == 2
    with pytest.raises(ValueError, match=r"must be of camera 5, some are of \[6\]"):
        transfer(trained, train, 5, 6, subset=torch.tensor([0, 4]))
    with pytest.raises(
        ValueError, match="positions in the set, must be one of 'all', 'unpaired', 'new_ids'; got 'some'"
    ):
        transfer(trained, train, 5, 6, subset="some")
    with pytest.raises(ValueError, match="camera 7, which has no images"):
        transfer(trained, train, 5, 7)
    with pytest.raises(ValueError, match="no image of camera 7"):
        transfer(trained, train, 7, 6)


def test_12_extension_adds_no_class():
    from reidlib.datasets.sampling import class_labels

    train = people()
    method = CameraTransfer(model=4, preset="smoke")
    real = train.select(camids=5)
    both = extend(real, transfer(method, train, 5, 6))
    assert class_labels(both.pids).max() + 1 == real.pids.unique().numel() == 2
    assert both.pids.tolist() == [1, 1, 1, 2] * 2
