import pytest
import torch

from reidlib.datasets import augment, parsing
from reidlib.datasets.annotations import LIP_FLIPPED, LIP_LABELS


def labels(n: int = 4, height: int = 6, width: int = 5) -> torch.Tensor:
    return torch.randint(20, (n, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_one_hot_against_a_slow_loop():
    given = labels()
    maps = parsing.one_hot(given)
    assert maps.shape == (4, 20, 6, 5) and maps.dtype == torch.float32
    for b in range(4):
        for y in range(6):
            for x in range(5):
                expected = [0.0] * 20
                expected[given[b, y, x]] = 1.0
                assert maps[b, :, y, x].tolist() == expected
    assert parsing.one_hot(given[:0]).shape == (0, 20, 6, 5)


def test_left_and_right_change_places_and_everything_else_stays():
    names = [LIP_LABELS[label] for label in LIP_FLIPPED]
    assert names[:14] == list(LIP_LABELS[:14])
    assert names[14:] == ["right-arm", "left-arm", "right-leg", "left-leg", "right-shoe", "left-shoe"]


def test_maps_of_flipped_labels_are_flipped_maps_with_sides_exchanged():
    given = labels()
    batch = {"images": torch.zeros(4, 3, 6, 5, dtype=torch.uint8), "parsing": given}
    mirrored = augment.flip(batch, torch.Generator(), p=1)["parsing"]
    maps = parsing.one_hot(given)
    assert torch.equal(maps[:, LIP_FLIPPED].flip(-1), parsing.one_hot(mirrored))
    assert not torch.equal(maps.flip(-1), parsing.one_hot(mirrored))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.full((1, 2, 2), 20, dtype=torch.uint8), "from 0 to 19, got 20"),
        (torch.full((1, 2, 2), 255, dtype=torch.uint8), "got 255"),  # "ignore" of other formats
        (torch.zeros(1, 2, 2), r"uint8 \[B,H,W\], got torch.float32"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), "torch.int64"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), r"\[1, 1, 2, 2\]"),
    ],
)
def test_other_labels_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        parsing.one_hot(wrong)
