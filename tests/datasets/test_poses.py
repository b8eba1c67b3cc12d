import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from reidlib.datasets import poses as P


def points(**joints) -> torch.Tensor:
    """One person with the joints given as j4=(x, y); the rest missing."""
    out = torch.full((1, 18, 3), -1.0)
    out[..., 2] = 0
    for name, (x, y) in joints.items():
        out[0, int(name[1:])] = torch.tensor([x, y, 1.0])
    return out


def test_tables():
    assert len(P.JOINT_NAMES) == len(P.FLIPPED) == len(P.PALETTE) == 18 and len(P.LIMBS) == 17
    for j, mirrored in enumerate(P.FLIPPED):
        side, _, part = P.JOINT_NAMES[j].partition("-")
        expected = {"L": f"R-{part}", "R": f"L-{part}"}.get(side, P.JOINT_NAMES[j])
        assert P.JOINT_NAMES[mirrored] == expected and P.FLIPPED[mirrored] == j
    assert (2, 16) not in P.LIMBS and (5, 17) not in P.LIMBS


# as the public demo prints them: colours blue, green, red; joints counted from 1; the last two limbs are never drawn
DEMO_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)  # fmt: skip
DEMO_LIMBS = (
    (2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14), (2, 1),
    (1, 15), (15, 17), (1, 16), (16, 18), (3, 17), (6, 18),
)  # fmt: skip


@pytest.mark.parametrize("joint", range(18))
def test_each_joint_has_its_colour_of_the_demo(joint):
    shown = P.skeleton_images(points(**{f"j{joint}": (10, 20)}), (64, 32))[0, :, 20, 10]
    assert tuple(shown.tolist()) == (*DEMO_COLOURS[joint][::-1],)


@pytest.mark.parametrize("limb", range(19))
def test_each_limb_has_its_colour_of_the_demo_at_half_strength(limb):
    a, b = (joint - 1 for joint in DEMO_LIMBS[limb])
    shown = P.skeleton_images(points(**{f"j{a}": (16, 10), f"j{b}": (16, 50)}), (64, 32))[0, :, 30, 16]
    expected = torch.tensor(DEMO_COLOURS[limb][::-1] if limb < 17 else (0, 0, 0)) / 2
    assert torch.equal(shown, expected.round().to(torch.uint8))


def test_joints_that_were_not_found_are_cleared():
    both = points(j4=(3, 9), j0=(0, 1))
    found = torch.zeros(1, 18, dtype=torch.bool)
    found[0, 4] = True
    assert torch.equal(P.clear_missing(both, found), points(j4=(3, 9)))


@pytest.mark.parametrize("size", [(128, 64), (64, 32), (5, 9)])
def test_heat_maps_against_the_equation(size):
    g = torch.Generator().manual_seed(0)
    keypoints = torch.rand(3, 18, 3, generator=g) * torch.tensor([size[1], size[0], 1.0])
    keypoints[..., 2] = 1
    keypoints[1, 7] = torch.tensor([-1.0, -1.0, 0.0])
    maps = P.heat_maps(keypoints, size)
    sigma = 6 * size[0] / 128
    for b, j, y, x in ((0, 0, 0, 0), (1, 3, 4, 8), (2, 17, 2, 5), (0, 9, 3, 1)):
        px, py = keypoints[b, j, :2].tolist()
        expected = math.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * sigma**2))
        assert maps[b, j, y, x].item() == pytest.approx(expected, abs=1e-6)
    assert maps.shape == (3, 18, *size) and (maps[1, 7] == 0).all() and maps.min() >= 0 and maps.max() <= 1


def test_heat_map_width_is_six_pixels_at_128():
    maps = P.heat_maps(points(j0=(30, 60)), (128, 64))
    assert maps[0, 0, 60, 30] == 1 and maps[0, 0, 66, 30].item() == pytest.approx(math.exp(-0.5))
    assert P.heat_maps(points(j0=(30, 60)), (128, 64), sigma=2)[0, 0, 62, 30].item() == pytest.approx(math.exp(-0.5))
    with pytest.raises(ValueError, match="sigma"):
        P.heat_maps(points(), (8, 4), sigma=0)


def test_visible_and_torso():
    without = {"j2": (1, 1), "j5": (2, 1), "j8": (1, 5), "j0": (1, 1)}
    both = torch.cat([points(j2=(1, 1), j5=(2, 1), j8=(1, 5), j11=(2, 5)), points(**without)])
    assert P.visible(both).sum(1).tolist() == [4, 4] and P.has_torso(both).tolist() == [True, False]


def test_flip_swaps_names_and_mirrors_places():
    out = P.flip_keypoints(points(j4=(3, 9), j0=(0, 1), j15=(10, 2)), width=32)
    assert out[0, 7].tolist() == [28, 9, 1] and out[0, 0].tolist() == [31, 1, 1] and out[0, 14].tolist() == [21, 2, 1]
    assert out[0, 4].tolist() == [-1, -1, 0]
    assert torch.equal(P.flip_keypoints(out, width=32), points(j4=(3, 9), j0=(0, 1), j15=(10, 2)))


def test_heat_maps_hold_no_number_that_slows_a_network_down():
    maps = P.heat_maps(points(j0=(0, 0), j4=(63, 127)), (128, 64), sigma=3)
    assert maps[maps > 0].min() >= 1e-16 and (maps > 0).float().mean() < 0.1
    assert maps[0, 0, 0, 18].item() == pytest.approx(math.exp(-18), rel=1e-4)  # 1.5e-8 is kept
    assert maps[0, 0, 0, 19] == 0 and maps[0, 4, 127, 44] == 0


def test_flipped_heat_maps_are_mirrored_maps_of_the_other_side():
    g = torch.Generator().manual_seed(1)
    keypoints = torch.cat([torch.rand(2, 18, 2, generator=g) * 31, torch.ones(2, 18, 1)], dim=-1)
    maps = P.heat_maps(keypoints, (64, 32))
    mirrored = P.heat_maps(P.flip_keypoints(keypoints, 32), (64, 32))
    assert torch.allclose(mirrored, maps[:, P.FLIPPED].flip(-1), atol=1e-5)


def test_one_joint_gives_one_disc():
    picture = P.skeleton_images(points(j4=(40, 100)), (256, 128))[0]
    ys, xs = picture.any(0).nonzero().T
    assert picture[:, ys, xs].unique(dim=1).T.tolist() == [[0, 255, 170]]
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (96, 104, 36, 44)  # radius 4 at height 256


def test_two_joints_give_discs_and_a_half_strength_limb():
    picture = P.skeleton_images(points(j1=(30, 100), j2=(90, 100)), (256, 128))[0]
    assert picture[:, 100, 60].tolist() in ([0, 0, 127], [0, 0, 128])  # limb 0 over black
    assert picture[:, 100, 27].tolist() == [0, 85, 255] and picture[:, 100, 93].tolist() == [0, 170, 255]
    assert (picture[:, 97:104, 60].sum(0) > 0).all() and picture[:, 94, 60].sum() == picture[:, 106, 60].sum() == 0


def test_a_hidden_nose_takes_its_limbs_away():
    joints = {"j0": (60, 30), "j1": (60, 60), "j14": (50, 20), "j15": (70, 20), "j16": (40, 25), "j17": (80, 25)}
    seen = P.skeleton_images(points(**joints), (256, 128))[0]
    hidden = P.skeleton_images(points(**{k: v for k, v in joints.items() if k != "j0"}), (256, 128))[0]
    assert seen[:, 48, 60].sum() > 0 and hidden[:, 48, 60].sum() == 0  # limb 12, neck to nose
    assert hidden[:, 22, 45].sum() > 0  # limb 14, eye to ear


def test_pairs_that_are_never_drawn():
    for a, b in ((2, 16), (5, 17)):
        picture = P.skeleton_images(points(**{f"j{a}": (30, 100), f"j{b}": (90, 100)}), (256, 128))[0]
        assert picture[:, 100, 60].sum() == 0


def test_a_batch_is_drawn_person_by_person():
    g = torch.Generator().manual_seed(2)
    keypoints = torch.cat([torch.rand(4, 18, 2, generator=g) * 31, torch.ones(4, 18, 1)], dim=-1)
    keypoints[2, 5:9] = torch.tensor([-1.0, -1.0, 0.0])
    together = P.skeleton_images(keypoints, (64, 32))
    assert torch.equal(together, torch.cat([P.skeleton_images(k[None], (64, 32)) for k in keypoints]))
    assert P.skeleton_images(points(), (64, 32)).sum() == 0
    for draw in (P.heat_maps, P.skeleton_images, P.limb_masks):
        with pytest.raises(ValueError, match=r"\[4, 54\]"):
            draw(keypoints.flatten(1), (64, 32))


def test_joints_in_one_place_make_a_spot_and_not_a_canvas():
    picture = P.skeleton_images(points(j1=(30, 100), j2=(30, 100)), (256, 128))[0]
    assert picture[:, 100, 30].tolist() == [0, 85, 255]  # half disc 2, half limb 0
    assert (picture.sum(0) > 0).sum() == (P.skeleton_images(points(j2=(30, 100)), (256, 128))[0].sum(0) > 0).sum()
    apart = P.skeleton_images(points(j1=(30, 100), j2=(30.2, 100)), (256, 128))[0]
    assert apart.sum(0).nonzero().float().std(0).max() < 4  # joints almost in one place: the same


def test_turning_round_puts_the_shoulders_colours_on_opposite_sides():
    front = points(j1=(60, 60), j2=(40, 60), j5=(80, 60))  # the right shoulder is left in the image
    back = points(j1=(60, 60), j2=(80, 60), j5=(40, 60))
    right, left = [0, 170, 255], [0, 255, 85]
    for person, expected in ((front, (right, left)), (back, (left, right))):
        picture = P.skeleton_images(person, (256, 128))[0]
        assert (picture[:, 60, 37].tolist(), picture[:, 60, 83].tolist()) == expected


def test_limbs_blend_again_where_they_cross():
    picture = P.skeleton_images(points(j1=(60, 60), j2=(40, 60), j5=(80, 60)), (256, 128))[0]
    # the neck's disc (0, 85, 255), over it half of limb 0 (0, 0, 255), over that half of limb 1 (0, 85, 255)
    assert picture[:, 60, 60].tolist() == [0, 64, 255]
    crossing = points(j2=(40, 60), j3=(80, 60), j5=(60, 40), j6=(60, 80))  # limbs 2 and 4
    first, second = torch.tensor(P.PALETTE[2]), torch.tensor(P.PALETTE[4])
    expected = (0.25 * first + 0.5 * second).round().to(torch.uint8)
    assert P.skeleton_images(crossing, (256, 128))[0, :, 60, 60].tolist() == expected.tolist()


def test_the_smallest_disc_is_one_pixel_and_a_limb_without_length_is_no_longer_than_its_disc():
    shown = P.skeleton_images(points(j4=(10, 8)), (16, 32))[0]
    assert (shown.sum(0) > 0).sum() == 1  # radius 0.75 at every height below 48
    one_place = P.skeleton_images(points(j1=(30, 100), j2=(30, 100)), (256, 128))[0].sum(0) > 0
    rows, columns = one_place.nonzero().T
    assert columns.min() == 26 and columns.max() == 34 and rows.min() == 96 and rows.max() == 104  # radius 4, no more
    only_disc = P.skeleton_images(points(j2=(30, 100)), (256, 128))[0]
    both = P.skeleton_images(points(j1=(30, 100), j2=(30, 100)), (256, 128))[0]
    blended = (both != only_disc).any(0)  # the limb is half a pixel long: a column of the disc
    assert blended.any() and blended.nonzero()[:, 1].unique().tolist() == [30]


def test_limb_masks_against_a_slow_loop():
    """Every limb of the sheet, as rectangle and discs in plain Python, closed by scikit-image."""
    from skimage.morphology import closing

    names = {name: j for j, name in enumerate(P.JOINT_NAMES)}
    chains = [
        ("neck", "R-shoulder", "R-elbow", "R-wrist"), ("neck", "L-shoulder", "L-elbow", "L-wrist"),
        ("neck", "R-hip", "R-knee", "R-ankle"), ("neck", "L-hip", "L-knee", "L-ankle"),
        ("neck", "nose"), ("nose", "R-eye", "R-ear"), ("nose", "L-eye", "L-ear"), ("neck", "R-ear"), ("neck", "L-ear"),
        ("R-hip", "L-hip"), ("R-hip", "R-shoulder"), ("L-hip", "L-shoulder"), ("R-ear", "L-ear"),
    ]  # fmt: skip
    limbs = {(names[a], names[b]) for chain in chains for a, b in pairwise(chain)}
    assert {frozenset(limb) for limb in (*P.LIMBS, *P.TRUNK)} == {frozenset(limb) for limb in limbs}
    keypoints = torch.rand(2, 18, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([30.0, 60.0, 0.0])
    keypoints[..., 2] = 1
    keypoints[0, 5:] = torch.tensor(P.MISSING)  # the right arm and a head without eyes
    keypoints[1, 3] = torch.tensor(P.MISSING)
    for size, radius, side in (((128, 64), 4.0, 5), ((64, 32), 2.0, 3)):
        scaled = keypoints * torch.tensor([size[1] / 32, size[0] / 64, 1.0])
        scaled = P.clear_missing(scaled, P.visible(keypoints))
        for person, found in zip(scaled.tolist(), P.limb_masks(scaled, size), strict=True):
            mask = torch.zeros(size, dtype=torch.uint8)
            there = [j for j in range(18) if person[j][2]]
            for row in range(size[0]):
                for column in range(size[1]):
                    inside = any(math.dist((column, row), person[j][:2]) <= radius for j in there)
                    for a, b in limbs:
                        if inside or a not in there or b not in there:
                            continue
                        (ax, ay, _), (bx, by, _) = person[a], person[b]
                        length = math.dist((ax, ay), (bx, by))
                        along = ((column - ax) * (bx - ax) + (row - ay) * (by - ay)) / length
                        across = ((column - ax) * (by - ay) - (row - ay) * (bx - ax)) / length
                        inside = 0 <= along <= length and abs(across) <= radius
                    mask[row, column] = 255 * inside
            closed = closing(mask.numpy(), np.ones((side, side), np.uint8))
            assert (torch.from_numpy(closed) != found).sum() <= 2 and set(found.unique().tolist()) == {0, 255}
            assert (found != mask).any()  # the closing fills something
    nobody = torch.tensor(P.MISSING).expand(1, 18, 3)
    assert not P.limb_masks(nobody, (64, 32)).any()
    wide = P.limb_masks(points(j4=(10, 20)), (64, 32), radius=5.0)
    assert (wide > 0).sum() == 81  # pixels of a disc of radius 5


def test_limb_masks_of_joints_in_one_place_and_at_the_border():
    same = P.limb_masks(points(j2=(10, 20), j3=(10, 20)), (64, 32))
    assert torch.equal(same, P.limb_masks(points(j3=(10, 20)), (64, 32)))
    corner = P.limb_masks(points(j4=(0, 0)), (64, 32))[0] > 0
    assert corner[0, 0] and corner[0, 2] and not corner[0, 3]  # closing takes nothing from the border
