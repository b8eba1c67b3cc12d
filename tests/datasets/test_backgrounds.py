import pytest
import torch

from reidlib.datasets import PersonImages
from reidlib.datasets import backgrounds as B


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(values, masks) -> PersonImages:
    """One-pixel images, or whole planes where given."""
    images = torch.tensor(values, dtype=torch.uint8).reshape(len(values), 1, 1, 1).expand(-1, 3, 1, 1).contiguous()
    masks = torch.tensor(masks, dtype=torch.uint8).reshape(-1, 1, 1)
    return PersonImages(images, list(range(1, len(values) + 1)), [1] * len(values), masks=masks)


def random_people(n: int = 20) -> PersonImages:
    images = torch.randint(256, (n, 3, 8, 4), generator=seeded(1), dtype=torch.uint8)
    masks = torch.randint(256, (n, 8, 4), generator=seeded(2), dtype=torch.uint8)
    masks[:, 2, 3] = 255  # always person
    return PersonImages(images, [1] * n, [1] * n, masks=masks)


def test_mean_background_of_the_sheet():
    assert B.mean_background(people([2, 6], [0, 255])).flatten().tolist() == [2, 2, 2]
    assert B.mean_background(people([2, 6], [0, 0])).flatten().tolist() == [4, 4, 4]
    assert B.mean_background(people([2, 6], [255, 255])).flatten().tolist() == [4, 4, 4]  # no background anywhere


def test_mean_background_against_a_slow_loop():
    s = random_people()
    out = B.mean_background(s, batch_size=7)
    x, m = s.images.double().numpy(), s.masks.double().numpy()[:, None] / 255
    assert out[1, 5, 2] == pytest.approx(((1 - m) * x).sum(0)[1, 5, 2] / (1 - m).sum(0)[0, 5, 2], abs=1e-4)
    everywhere = ((1 - m) * x).sum((0, 2, 3)) / (1 - m).sum()
    assert out[:, 2, 3].numpy() == pytest.approx(everywhere, abs=1e-4)  # where no image shows background
    assert torch.allclose(out, B.mean_background(s), atol=1e-4)
    with pytest.raises(ValueError, match="needs images with masks"):
        B.mean_background(PersonImages(s.images, s.pids, s.camids))


def test_replace_mixes_soft_edges():
    images = torch.full((1, 3, 1, 3), 200, dtype=torch.uint8)
    masks = torch.tensor([[[255, 51, 0]]], dtype=torch.uint8)
    out = B.replace_background(images, masks, torch.full((1, 3, 1, 3), 100, dtype=torch.uint8))
    assert out[0, 0].tolist() == [[200, 120, 100]]
    with pytest.raises(ValueError, match=r"masks must be uint8 \[1, 1, 3\], got torch.uint8 \[1, 3, 1\]"):
        B.replace_background(images, masks.transpose(1, 2), torch.tensor(0.0))
    with pytest.raises(ValueError, match="has none"):
        B.replace_background(images, None, torch.tensor(0.0))
    with pytest.raises(ValueError, match="float32"):
        B.replace_background(images.float(), masks, torch.tensor(0.0))


def test_random_backgrounds_show_a_scene_whose_person_is_covered():
    s = random_people()
    mean = B.mean_background(s)
    rows = torch.randint(20, (6,), generator=seeded(3))
    expected = B.replace_background(s.images[rows], 255 - s.masks[rows], mean)
    assert torch.equal(B.random_backgrounds(s, 6, seeded(3), mean=mean), expected)
    assert (expected[:, :, 2, 3].float() - mean[:, 2, 3]).abs().max() <= 0.5


@pytest.mark.parametrize("kind", ["mean", "random", "none"])
def test_augmentation_keeps_the_person_and_is_seeded(kind):
    s = random_people()
    masks = torch.zeros(8, 8, 4, dtype=torch.uint8)
    masks[:, :4] = 255
    batch = {"images": s.images[:8], "masks": masks, "pids": torch.arange(8)}
    augment = B.background_augmentation(kind, s)
    out = augment(batch, seeded(0))
    assert torch.equal(out["images"][:, :, :4], batch["images"][:, :, :4])  # the person
    assert torch.equal(augment(batch, seeded(0))["images"], out["images"])
    behind = out["images"][:, :, 4:].float()
    if kind == "mean":
        assert (behind - B.mean_background(s)[:, 4:]).abs().max() <= 0.5
    elif kind == "none":
        assert (behind == 128).all()
    else:
        assert behind.flatten(1).unique(dim=0).shape[0] > 4
        assert not torch.equal(augment(batch, seeded(1))["images"], out["images"])
    half = B.background_augmentation(kind, s, p=0.5)(batch, seeded(4))["images"]
    changed = (half != batch["images"]).flatten(1).any(1)
    assert 0 < changed.sum() < 8 and half.dtype == torch.uint8


def test_unknown_kind_and_missing_masks():
    s = random_people()
    with pytest.raises(ValueError, match="kind must be one of 'mean', 'random', 'none'; got 'blur'"):
        B.background_augmentation("blur", s)
    with pytest.raises(ValueError, match="has none"):
        B.background_augmentation("none", s)({"images": s.images}, seeded())
