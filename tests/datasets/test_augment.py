from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate, pad

import reidlib.torchvision_ops  # noqa: F401  must come before torchvision
from reidlib import networks
from reidlib.datasets import augment as A
from reidlib.datasets import poses
from reidlib.datasets.annotations import LIP_FLIPPED

H, W = 64, 32


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_batch(n: int = 16, seed: int = 0, height: int = H, width: int = W) -> dict:
    g = seeded(seed)
    keypoints = torch.rand(n, 18, 3, generator=g) * torch.tensor([width - 1.0, height - 1.0, 0])
    keypoints[..., :2] = keypoints[..., :2].round()
    keypoints[..., 2] = 1
    keypoints[:, 3] = torch.tensor([-1.0, -1.0, 0.0])
    return {
        "images": torch.randint(256, (n, 3, height, width), generator=g, dtype=torch.uint8),
        "masks": torch.randint(256, (n, height, width), generator=g, dtype=torch.uint8),
        "parsing": torch.randint(20, (n, height, width), generator=g, dtype=torch.uint8),
        "keypoints": keypoints,
        "pids": torch.arange(n),
    }


def dots(n: int = 24, seed: int = 0) -> dict:
    """Every visible joint j is drawn as one pixel of value 10 + 10 j (image, mask) and label 1 + j (parsing)."""
    g = seeded(seed)
    batch = {
        "images": torch.zeros(n, 3, H, W, dtype=torch.uint8),
        "masks": torch.zeros(n, H, W, dtype=torch.uint8),
        "parsing": torch.zeros(n, H, W, dtype=torch.uint8),
        "keypoints": torch.full((n, 18, 3), -1.0),
    }
    batch["keypoints"][..., 2] = 0
    for i in range(n):
        places = torch.randperm(H * W, generator=g)[:18]
        for j in range(18):
            if (i + j) % 5 == 0:
                continue  # missing
            y, x = divmod(int(places[j]), W)
            batch["keypoints"][i, j] = torch.tensor([x, y, 1])
            batch["images"][i, :, y, x] = batch["masks"][i, y, x] = 10 + 10 * j
            batch["parsing"][i, y, x] = 1 + j
    return batch


def check_dots(batch: dict, before: dict, flipped: torch.Tensor | None = None) -> int:
    """Each visible joint lies on its own pixel, in every plane; return how many there are."""
    found = 0
    for i in range(len(batch["images"])):
        swapped = flipped is not None and bool(flipped[i])
        for j in range(18):
            x, y, seen = batch["keypoints"][i, j].tolist()
            if not seen:
                assert [x, y] == [-1, -1]
                continue
            was = poses.FLIPPED[j] if swapped else j  # what the joint was called before a mirror
            value = 10 + 10 * was
            label = LIP_FLIPPED[1 + was] if swapped else 1 + was
            assert batch["images"][i, :, int(y), int(x)].tolist() == [value] * 3
            assert batch["masks"][i, int(y), int(x)] == value and batch["parsing"][i, int(y), int(x)] == label
            assert before["keypoints"][i, was, 2] == 1
            found += 1
    return found


@pytest.mark.parametrize("mode", ["imagenet", "signed"])
def test_normalise_there_and_back(mode):
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(1, 3, 16, 16)
    out = networks.normalise(pixels, mode)
    assert out.dtype == torch.float32 and torch.equal(networks.denormalise(out, mode), pixels)
    if mode == "signed":
        assert out.min() == -1 and out.max() == 1 and torch.allclose(out[0, 0, 0, 1], torch.tensor(1 / 127.5 - 1))
    else:
        from torchvision.transforms.v2.functional import normalize

        expected = normalize(pixels.float() / 255, list(networks.IMAGENET_MEAN), list(networks.IMAGENET_STD))
        assert torch.allclose(out, expected, atol=1e-6)
    assert networks.denormalise(torch.full((1, 3, 1, 1), 99.0), mode).tolist() == [[[[255]]] * 3]
    with pytest.raises(TypeError, match="float32"):
        networks.normalise(out, mode)
    with pytest.raises(TypeError, match="uint8"):
        networks.denormalise(pixels, mode)
    with pytest.raises(ValueError, match="'other'"):
        networks.normalise(pixels, "other")


def test_flip_moves_joints_and_labels_with_the_pixels():
    before = dots()
    out = A.flip(before, seeded(1))
    chosen = torch.rand(24, generator=seeded(1)) < 0.5
    assert 0 < chosen.sum() < 24
    assert check_dots(out, before, chosen) == (before["keypoints"][..., 2] > 0).sum()
    for i in range(24):  # the same draw in a slow loop
        expected = before["images"][i].flip(-1) if chosen[i] else before["images"][i]
        assert torch.equal(out["images"][i], expected)


def test_flip_twice_is_nothing():
    before = random_batch()
    twice = A.flip(A.flip(before, seeded(), p=1), seeded(), p=1)
    assert all(torch.equal(twice[name], before[name]) for name in before)
    untouched = A.flip(before, seeded(), p=0)
    assert all(torch.equal(untouched[name], before[name]) for name in before)


def test_flip_equals_torchvision():
    from torchvision.transforms.v2.functional import horizontal_flip

    before = random_batch()
    assert torch.equal(A.flip(before, seeded(), p=1)["images"], horizontal_flip(before["images"]))


@settings(max_examples=40, deadline=None)
@given(top=st.integers(-20, 70), left=st.integers(-20, 40), h=st.integers(1, 40), w=st.integers(1, 40))
def test_crop_equals_torchvision(top, left, h, w):
    from torchvision.transforms.v2.functional import crop

    before = random_batch(3)
    out = A.crop(before, torch.full((3,), top), torch.full((3,), left), (h, w))
    overlap = -h < top < H and -w < left < W
    for name in ("images", "masks", "parsing"):
        if overlap:
            assert torch.equal(out[name], crop(before[name], top, left, h, w))
        else:  # torchvision hands a wrong size out here
            assert out[name].shape[-2:] == (h, w) and (out[name] == 0).all()


def test_pad_crop_keeps_joints_on_their_pixels_and_matches_a_slow_loop():
    before = dots()
    out = A.pad_crop(before, seeded(2), pad=7)
    found = check_dots(out, before)
    assert 0 < found < (before["keypoints"][..., 2] > 0).sum()  # some left the image
    draw = torch.randint(15, (2, 24), generator=seeded(2))
    assert draw.unique().numel() == 15  # every offset, for each image another
    for i in range(24):
        padded = pad(before["images"][i], (7, 7, 7, 7))
        top, left = draw[:, i].tolist()
        assert torch.equal(out["images"][i], padded[:, top : top + H, left : left + W])
        inside = sum((p[2] > 0) and top - 7 <= p[1] < top - 7 + H and left - 7 <= p[0] < left - 7 + W
                     for p in before["keypoints"][i])  # fmt: skip
        assert (out["keypoints"][i, :, 2] > 0).sum() == inside


def test_pad_crop_can_repeat_the_border():
    before = random_batch(6)
    out = A.pad_crop(before, seeded(2), pad=7, edge=True)
    zeros = A.pad_crop(before, seeded(2), pad=7)
    draw = torch.randint(15, (2, 6), generator=seeded(2)) - 7
    for i, (top, left) in enumerate(draw.T.tolist()):
        rows, columns = (torch.arange(n) + first for n, first in ((H, top), (W, left)))
        repeated = before["images"][i][:, rows.clamp(0, H - 1)][:, :, columns.clamp(0, W - 1)]
        assert torch.equal(out["images"][i], repeated)
        assert torch.equal(out["masks"][i], before["masks"][i][rows.clamp(0, H - 1)][:, columns.clamp(0, W - 1)])
    assert torch.equal(out["keypoints"], zeros["keypoints"]) and not torch.equal(out["images"], zeros["images"])


@pytest.mark.parametrize(("height", "expected"), [(256, 10), (128, 5), (64, 2)])
def test_pad_is_in_proportion(height, expected):
    before = {"images": torch.full((64, 3, height, height // 2), 255, dtype=torch.uint8)}
    black = (A.pad_crop(before, seeded())["images"][:, 0, :, height // 4] == 0).sum(1)
    assert black.max() == expected


def test_enlarge_crop_against_a_slow_loop():
    before = random_batch(20)
    out = A.enlarge_crop(before, seeded(3))
    g = seeded(3)
    chosen = torch.rand(20, generator=g) < 0.5
    top, left = torch.randint(9, (20,), generator=g), torch.randint(5, (20,), generator=g)
    assert 0 < chosen.sum() < 20
    for i in range(20):
        expected = before["images"][i]
        if chosen[i]:
            large = interpolate(expected[None].float(), (72, 36), mode="bilinear", antialias=True)[0]
            expected = large.round().to(torch.uint8)[:, top[i] : top[i] + H, left[i] : left[i] + W]
        assert torch.equal(out["images"][i], expected)
    assert torch.equal(out["pids"], before["pids"])


def test_enlarge_crop_keeps_joints_near_their_spots():
    """A 3 x 3 spot around each joint stays around it after enlarging (the joint moves to a fraction of a pixel)."""
    n = 30
    g = seeded(0)
    x, y = torch.randint(1, W - 1, (n,), generator=g), torch.randint(1, H - 1, (n,), generator=g)
    batch = {"images": torch.zeros(n, 3, H, W, dtype=torch.uint8), "keypoints": torch.full((n, 18, 3), -1.0)}
    batch["keypoints"][..., 2] = 0
    for i in range(n):
        batch["images"][i, :, y[i] - 1 : y[i] + 2, x[i] - 1 : x[i] + 2] = 255
        batch["keypoints"][i, 4] = torch.tensor([x[i], y[i], 1])
    out = A.enlarge_crop(batch, seeded(1), p=1)
    seen = 0
    for i in range(n):
        px, py, found = out["keypoints"][i, 4].tolist()
        if not found or not (2 <= px <= W - 3 and 2 <= py <= H - 3):
            continue
        weight = out["images"][i, 0].float()
        centre_y = (weight.sum(1) * torch.arange(H)).sum() / weight.sum()
        centre_x = (weight.sum(0) * torch.arange(W)).sum() / weight.sum()
        assert abs(centre_x - px) < 0.05 and abs(centre_y - py) < 0.05
        seen += 1
    assert seen > 15


@pytest.mark.parametrize("size", [(128, 64), (32, 16), (40, 30)])
def test_resize_equals_torchvision(size):
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    before = random_batch(4)
    out = A.resize(before, size)
    expected = resize(before["images"].float(), list(size), antialias=True).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(out["images"], expected)
    nearest = resize(before["parsing"], list(size), interpolation=InterpolationMode.NEAREST_EXACT)
    assert torch.equal(out["parsing"], nearest)
    assert out["masks"].shape == (4, *size)
    factor = torch.tensor([size[1] / W, size[0] / H])
    there = out["keypoints"][0, 0, :2]
    assert torch.allclose((there + 0.5) / factor - 0.5, before["keypoints"][0, 0, :2], atol=1e-5)
    assert out["keypoints"][0, 3].tolist() == [-1, -1, 0]
    assert A.resize(before, (H, W))["images"] is before["images"]


@pytest.mark.parametrize("floats", [1, 3 * 72 * 36 * 5, 2**40])
def test_resizing_a_few_images_at_a_time_is_resizing_all(monkeypatch, floats):
    before = random_batch(13)
    whole = interpolate(before["images"].float(), (72, 36), mode="bilinear", antialias=True).round().to(torch.uint8)
    mask = interpolate(before["masks"][:, None].float(), (72, 36), mode="bilinear", antialias=True)[:, 0].round()
    monkeypatch.setattr(A, "IN_CACHE", floats)
    out = A.resize(before, (72, 36))
    assert torch.equal(out["images"], whole) and torch.equal(out["masks"].float(), mask)


def test_resize_agrees_with_the_cache(tree, tmp_path):
    """Resizing on the device moves masks, parsing and key points as the cache does when it decodes."""
    from reidlib.datasets import load

    tree.annotate()
    whole = load("market1501", tree.folder, (128, 64), cache=tmp_path / "c", progress=False)
    half = load("market1501", tree.folder, (64, 32), cache=tmp_path / "c", progress=False)
    small = A.resize(whole.train.batch(range(6)), (64, 32))
    assert (small["images"].int() - half.train.images.int()).abs().max() <= 1
    assert (small["masks"].int() - half.train.masks.int()).abs().max() <= 1
    assert torch.equal(small["parsing"], half.train.parsing)
    assert (small["keypoints"] - half.train.keypoints).abs().max() <= 0.25  # the cache clamps onto the image


def test_erasing_boxes_keep_the_rules():
    boxes = A.erase_boxes(5000, (H, W), seeded(), p=1.0)
    top, left, h, w = boxes.T.tolist()
    assert all(0 < a < H and 0 < b < W for a, b in zip(h, w, strict=True))
    assert all(t + a <= H and f + b <= W for t, f, a, b in zip(top, left, h, w, strict=True))
    area = boxes[:, 2] * boxes[:, 3] / (H * W)
    aspect = boxes[:, 2] / boxes[:, 3]
    assert area.min() > 0.02 * 0.8 and area.max() < 0.4 * 1.1  # sides are rounded
    assert area.quantile(0.05) < 0.05 and area.quantile(0.95) > 0.33
    assert aspect.min() > 0.2 and aspect.max() < 4.5
    assert min(top) == min(left) == 0 and (boxes[:, 0] + boxes[:, 2]).max() == H
    half = A.erase_boxes(4000, (H, W), seeded(), p=0.5)[:, 2] > 0
    assert 0.46 < half.float().mean() < 0.54
    assert (A.erase_boxes(100, (H, W), seeded(), p=0) == 0).all()
    assert (A.erase_boxes(10, (H, W), seeded(), p=1, area=(3.0, 4.0)) == 0).all()  # nothing fits: left as it is


def test_erasing_takes_the_first_box_that_fits():
    n, tries = 300, 100
    boxes = A.erase_boxes(n, (H, W), seeded(7), p=0.7)
    g = seeded(7)
    chosen, draws = torch.rand(n, generator=g) < 0.7, torch.rand(4, n, tries, generator=g)
    retried = 0
    for i in range(n):
        expected = [0, 0, 0, 0]
        for t in range(tries if chosen[i] else 0):
            area, aspect = (0.02 + 0.38 * draws[0, i, t]) * H * W, 0.3 + 3.03 * draws[1, i, t]
            h, w = int((area * aspect).sqrt().round()), int((area / aspect).sqrt().round())
            if 0 < h < H and 0 < w < W:
                expected = [int(draws[2, i, t] * (H - h + 1)), int(draws[3, i, t] * (W - w + 1)), h, w]
                break
            retried += 1
        assert boxes[i].tolist() == expected
    assert retried > 0


def test_erase_fills_the_box_with_the_mean_and_nothing_else():
    before = random_batch(32)
    out = A.erase(before, seeded(4))
    boxes = A.erase_boxes(32, (H, W), seeded(4))
    expected = before["images"].clone()
    for i, (t, f, h, w) in enumerate(boxes.tolist()):
        expected[i, :, t : t + h, f : f + w] = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
    assert torch.equal(out["images"], expected) and not torch.equal(expected, before["images"])
    filled = networks.normalise(torch.tensor([124, 116, 104], dtype=torch.uint8)[None, :, None, None])
    assert filled.abs().max() < 0.01  # 0 after normalisation
    assert all(out[name] is before[name] for name in ("masks", "parsing", "keypoints"))
    white = A.erase(before, seeded(4), p=1, fill=(255, 255, 255))["images"]
    assert (white == 255).all(1).flatten(1).sum(1).min() >= 30


@pytest.mark.parametrize("recipe", ["none", "flip", "flip_crop", "softmax", "bag_of_tricks", "camstyle"])
def test_recipes_are_seeded_draw_per_image_and_leave_the_input_alone(recipe):
    before = random_batch(32)
    before["images"][:] = before["images"][:1]  # one picture 32 times
    kept = {name: tensor.clone() for name, tensor in before.items()}
    augment = A.reid_augmentation(recipe)
    one, again, other = augment(before, seeded(1)), augment(before, seeded(1)), augment(before, seeded(2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert all(torch.equal(before[name], kept[name]) for name in before)
    assert one["images"].dtype == torch.uint8 and one["images"].shape == before["images"].shape
    if recipe == "none":
        assert torch.equal(one["images"], before["images"])
    else:
        assert not torch.equal(one["images"], other["images"])
        kinds = len({tuple(image.flatten().tolist()) for image in one["images"]})
        assert kinds == 2 if recipe == "flip" else kinds > 10


def test_unknown_recipe_lists_the_known():
    known = "'none', 'flip', 'flip_crop', 'softmax', 'bag_of_tricks', 'camstyle'"
    with pytest.raises(ValueError, match=f"must be one of {known}; got 'best'"):
        A.reid_augmentation("best")


@pytest.mark.parametrize("operation", [A.flip, A.pad_crop, A.enlarge_crop, partial(A.resize, image_size=(32, 16))])
def test_partners_and_masks_undergo_the_same_draw(operation):
    """The sheet's check: feed an image as its own partner and as its own mask, and compare."""
    images = random_batch(16)["images"]
    before = {"images": images, "target_images": images, "masks": images[:, 0], "target_masks": images[:, 1]}
    out = operation(before) if operation not in (A.flip, A.pad_crop, A.enlarge_crop) else operation(before, seeded(5))
    assert torch.equal(out["images"], out["target_images"])
    assert torch.equal(out["images"][:, 0], out["masks"]) and torch.equal(out["images"][:, 1], out["target_masks"])


FOUR = ("", "positive_", "other_", "other_positive_")


def four_times(batch: dict) -> dict:
    return {prefix + name: tensor for prefix in FOUR for name, tensor in batch.items()}


@pytest.mark.parametrize("operation", [A.flip, A.pad_crop, A.enlarge_crop])
def test_four_images_that_belong_together_undergo_one_draw(operation):
    out = operation(four_times(random_batch(16)), seeded(5))
    alone = operation(random_batch(16), seeded(5))
    for prefix in FOUR:
        assert all(torch.equal(out[prefix + name], tensor) for name, tensor in alone.items())


@pytest.mark.parametrize("recipe", ["flip", "softmax", "bag_of_tricks"])
def test_not_joint_draws_anew_for_each_image(recipe):
    """Each of the four is augmented alone, one after the other, from one generator."""
    before, draw = random_batch(16), seeded(5)
    out = A.compose(A.reid_augmentation(recipe), joint=False)(four_times(before), draw)
    assert sorted(out) == sorted(four_times(before))
    alone, again = A.reid_augmentation(recipe), seeded(5)
    expected = [alone(before, again) for _ in FOUR]
    for prefix, part in zip(FOUR, expected, strict=True):
        assert all(torch.equal(out[prefix + name], tensor) for name, tensor in part.items())
    shown = [part["images"] for part in expected]
    assert not any(torch.equal(shown[i], shown[j]) for i in range(4) for j in range(i))
    assert torch.equal(torch.rand(3, generator=draw), torch.rand(3, generator=again))
    twins = {"images": before["images"], "target_images": before["images"], "target_pids": before["pids"]}
    out = A.compose(A.flip, A.pad_crop, joint=False)(twins, seeded(1))
    assert not torch.equal(out["images"], out["target_images"]) and out["target_pids"] is before["pids"]


def test_not_joint_keeps_joints_on_their_pixels():
    before = dots(40)
    both = before | {f"target_{name}": tensor for name, tensor in before.items()}
    out = A.compose(partial(A.pad_crop, pad=5), joint=False)(both, seeded(9))
    found = [check_dots({n: out[p + n] for n in before}, before) for p in ("", "target_")]
    assert min(found) > 300 and found[0] != found[1]


@pytest.mark.parametrize("joint", [True, False])
def test_erasing_can_keep_the_clean_images(joint):
    before = random_batch(32)
    batch = before | {"target_images": before["images"]}
    erase = partial(A.erase, keep_clean=True)
    out = A.compose(erase, joint=joint)(batch, seeded(4))
    assert torch.equal(out["clean_images"], before["images"])
    assert torch.equal(out["images"], A.erase(before, seeded(4))["images"])
    assert ("target_clean_images" in out) != joint  # alone, each image is erased and has its own clean copy
    assert "clean_images" not in A.erase(before, seeded(4))
    moved = A.compose(erase, A.flip, A.pad_crop, joint=joint)(batch, seeded(4))
    boxes = A.erase_boxes(32, (H, W), seeded(4))
    kept = boxes[:, 2] == 0
    assert torch.equal(moved["clean_images"][kept], moved["images"][kept])  # what follows moves both alike
    geometry, same = A.compose(A.flip, A.pad_crop), seeded(4)
    A.erase_boxes(32, (H, W), same)
    assert torch.equal(moved["clean_images"], geometry(before, same)["images"])


def test_float_images_are_refused():
    with pytest.raises(ValueError, match=r"uint8 images .*float32"):
        A.flip({"images": torch.zeros(1, 3, 4, 4)}, seeded())


def test_composed_geometry_keeps_joints_on_their_pixels():
    before = dots(40)
    out = A.compose(A.flip, partial(A.pad_crop, pad=5))(before, seeded(9))
    chosen = torch.rand(40, generator=seeded(9)) < 0.5
    assert check_dots(out, before, chosen) > 300
    assert np.isfinite(out["keypoints"].numpy()).all()


@pytest.mark.parametrize("operation", [A.flip, A.pad_crop, A.enlarge_crop, A.erase, A.reid_augmentation("softmax")])
def test_everything_stays_on_the_device(operation):
    """On the meta device (shapes without numbers) a tensor of another device would stop the operation."""
    batch = {name: tensor.to("meta") for name, tensor in random_batch(8).items()}
    out = operation(batch, seeded())
    assert {tensor.device.type for tensor in out.values()} == {"meta"}
    assert {name: tensor.shape for name, tensor in out.items()} == {name: t.shape for name, t in batch.items()}
    assert A.resize(batch, (32, 16))["keypoints"].is_meta and networks.normalise(batch["images"]).is_meta


def test_random_rectangle_shows_a_window_of_the_image():
    """On a picture whose colours are its coordinates, each output is a window of the size that was asked for."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(32.0), indexing="ij")
    picture = torch.stack([y * 4, x * 8, y * 0]).round().to(torch.uint8)
    batch = {"images": picture.expand(200, -1, -1, -1), "masks": torch.zeros(200, 64, 32), "pids": torch.arange(200)}
    out = A.random_rectangle(batch, seeded())
    assert set(out) == {"images", "pids"} and out["images"].shape == (200, 3, 64, 32)
    shown = out["images"].float()
    height = (shown[:, 0, -2].mean(1) - shown[:, 0, 1].mean(1)) / 4 * 64 / 61
    width = (shown[:, 1, :, -2].mean(1) - shown[:, 1, :, 1].mean(1)) / 8 * 32 / 29
    area = height * width / (64 * 32)
    assert 0.6 < area.min() < 0.7 and area.max() > 0.9
    # 2 to 3 for windows; the whole image (aspect 2) where no draw fitted
    assert (height / width).min() > 1.9 and 2.5 < (height / width).max() < 3.1
    pair = A.random_rectangle(batch | {"target_images": batch["images"], "target_parsing": batch["masks"]}, seeded())
    assert set(pair) == {"images", "target_images", "pids"} and torch.equal(pair["images"], pair["target_images"])
    again = A.random_rectangle(batch, seeded())["images"]
    assert torch.equal(out["images"], again)
    whole = A.random_rectangle(batch, seeded(), area=(1.0, 1.0), aspect=(2.0, 2.0))["images"]
    assert torch.equal(whole, batch["images"])
