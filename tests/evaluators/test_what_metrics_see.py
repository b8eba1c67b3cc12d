"""PCKh by hand, and of every image metric a constructed case that it sees and one that it misses."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from reidlib.datasets import PersonImages
from reidlib.datasets.poses import limb_masks
from reidlib.datasets.procedural import render
from reidlib.evaluators.image_quality import fid, l1, lpips, lpips_net, mask_lpips, ssim
from reidlib.evaluators.judges import Judges, camera_style, identity_kept, load_judges, pckh, pose_pck


@dataclass(frozen=True, eq=False)
class FoundThere(Judges):
    """Judges that find these joints, whatever they see."""

    places: torch.Tensor = None

    def keypoints(self, images):
        return self.places


def test_pckh_by_hand():
    """A head box of 4x2; joints count within half of it, in x and in y; images without a head do not count."""
    wanted = torch.zeros(3, 18, 3)
    wanted[0, [0, 1], :] = torch.tensor([[10.0, 10.0, 1.0], [14.0, 12.0, 1.0]])  # nose and neck
    wanted[0, [4, 5, 6], :] = torch.tensor([20.0, 20.0, 1.0])
    wanted[1, [2, 3], :] = 1.0  # no joint of the head
    wanted[2, [17, 9], :] = 1.0  # one
    found = wanted[..., :2].clone() + 100 * (wanted[..., 2:] == 0)
    found[0, 4] += torch.tensor([1.9, 0.9])  # right
    found[0, 5] += torch.tensor([2.0, 0.0])  # half the box's width: no longer
    found[0, 6] += torch.tensor([0.0, -1.1])  # more than half its height
    judges = FoundThere(None, None, None, (1,), places=found)
    images = torch.zeros(3, 3, 40, 20, dtype=torch.uint8)
    assert pckh(images, wanted, judges) == 3 / 5
    assert pckh(images, wanted, judges, threshold=0.6) == 5 / 5
    assert pckh(images, wanted, judges, threshold=0.1) == 2 / 5
    for joint in (0, 1, 14, 15, 16, 17):  # each of the head's joints widens the box
        wider = wanted.clone()
        wider[0, joint] = torch.tensor([30.0, 20.0, 1.0])
        places = found.clone()
        places[0, joint] = torch.tensor([30.0, 20.0])
        at = FoundThere(None, None, None, (1,), places=places)
        assert pckh(images, wider, at) == 1.0
    with pytest.raises(ValueError, match="no image shows two joints of the wanted head"):
        pckh(images[1:], wanted[1:], judges)
    with pytest.raises(ValueError, match=r"\[3,18,3\]"):
        pckh(images, wanted[:2], judges)
    with pytest.raises(ValueError, match="threshold=0"):
        pckh(images, wanted, judges, threshold=0)


N = 36
CAMERAS = [1 + i % 6 for i in range(N)]


@pytest.fixture(scope="module")
def cases() -> dict:
    """People, others in their poses and cameras, the same people turned away; judges; an untrained LPIPS."""
    g = torch.Generator().manual_seed(0)
    yaws, phases, walking = 360 * torch.rand(N, generator=g), 6 * torch.rand(N, generator=g), torch.rand(N, generator=g)
    shot = dict(yaws=yaws, phases=phases, walking=walking, image_size=(64, 32), seed=7, scene="generation")
    truth = render(range(1, N + 1), CAMERAS, **shot)
    others = render(range(201, 201 + N), CAMERAS, **shot)
    turned = render(range(1, N + 1), CAMERAS, **shot | {"yaws": yaws + 120, "phases": phases + 3}, moments=[7] * N)
    torch.manual_seed(0)
    return dict(truth=truth, others=others.images, turned=turned.images, judges=load_judges(), net=lpips_net(None))


def blurred(images: torch.Tensor, side: int = 5) -> torch.Tensor:
    mean = F.avg_pool2d(images.float(), side, 1, side // 2, count_include_pad=False)
    return mean.round().to(torch.uint8)


@pytest.mark.parametrize("metric", ["ssim", "l1"])
def test_ssim_and_l1_see_another_person_and_prefer_blur_to_a_step_aside(cases, metric):
    truth = cases["truth"].images
    wrong = {"ssim": lambda images: 1 - ssim(images, truth).mean(), "l1": lambda images: l1(images, truth).mean()}[
        metric
    ]
    blur, aside = wrong(blurred(truth)), wrong(truth.roll(2, -1))  # two pixels of 32
    assert wrong(cases["others"]) > 1.1 * aside
    assert blur < 0.75 * aside


def test_fid_sees_blur_and_noise_and_misses_that_everybody_is_somebody_else(cases):
    truth, looks = cases["truth"].images, cases["judges"].looks
    g = torch.Generator().manual_seed(0)
    noisy = (truth + 20 * torch.randn(truth.shape, generator=g)).clamp(0, 255).to(torch.uint8)
    assert fid(truth, blurred(truth), features=looks).value > 0.5 and fid(truth, noisy, features=looks).value > 2
    swapped = truth.roll(1, 0)
    assert abs(fid(truth, swapped, features=looks).value) < 1e-3
    gallery = PersonImages(cases["turned"], range(N), [1] * N)
    assert identity_kept(swapped, torch.arange(N), gallery, cases["judges"]).rank1 < 0.2


def test_lpips_sees_another_person_and_minds_wrong_shoes_less_than_a_pixel_aside(cases):
    truth, net = cases["truth"].images, cases["net"]
    feet = torch.isin(cases["truth"].parsing, torch.tensor([18, 19], dtype=torch.uint8))[:, None]
    shoes = torch.where(feet, 255 - truth, truth)
    aside = lpips(truth.roll(1, -1), truth, net).mean()
    assert lpips(cases["others"], truth, net).mean() > 2 * aside
    assert lpips(shoes, truth, net).mean() < 0.75 * aside


def test_mask_lpips_misses_the_background_and_the_limbs_mask_what_stands_off_the_body(cases):
    truth, net = cases["truth"], cases["net"]
    images, whole = truth.images, (truth.masks > 127).to(torch.uint8) * 255
    limbs = limb_masks(truth.keypoints, (64, 32))
    street = torch.where(whole[:, None] > 0, images, 255 - images)
    assert (mask_lpips(street, images, whole, net) == 0).all() and (lpips(street, images, net) > 0).all()
    assert (mask_lpips(street, images, limbs, net) > 0).any()  # limbs drawn wider than thin arms hold some background
    beside = (whole > 0) & (limbs == 0)  # hair, skirts, bags
    assert beside.flatten(1).any(1).all()
    clothes = torch.where(beside[:, None], 255 - images, images)
    assert (mask_lpips(clothes, images, limbs, net) == 0).all()
    assert (mask_lpips(clothes, images, whole, net) > 0).all()


def test_pck_sees_another_pose_and_misses_another_person(cases):
    truth, judges = cases["truth"], cases["judges"]
    right = pose_pck(truth.images, truth.keypoints, judges)
    assert pose_pck(cases["turned"], truth.keypoints, judges) < right - 0.1
    assert pose_pck(cases["others"], truth.keypoints, judges) > right - 0.04


def test_pckh_sees_three_pixels_that_pck_misses_and_misses_another_person(cases):
    truth, judges = cases["truth"], cases["judges"]
    aside = truth.images.roll(3, -1)
    pose, head = pose_pck(truth.images, truth.keypoints, judges), pckh(truth.images, truth.keypoints, judges)
    assert pose_pck(aside, truth.keypoints, judges) > pose - 0.05
    assert pckh(aside, truth.keypoints, judges) < head - 0.3
    assert pckh(cases["others"], truth.keypoints, judges) > head - 0.12


def test_identity_sees_another_person_and_misses_that_the_pose_was_not_followed(cases):
    truth, judges = cases["truth"], cases["judges"]
    gallery = PersonImages(truth.images, range(N), [1] * N)
    copies, people = cases["turned"], torch.arange(N)  # nothing was done to the source
    assert identity_kept(copies, people, gallery, judges).rank1 > 0.85
    assert identity_kept(cases["others"], people, gallery, judges).rank1 < 0.2
    assert pose_pck(copies, truth.keypoints, judges) < pose_pck(truth.images, truth.keypoints, judges) - 0.1


def test_style_sees_the_camera_and_misses_another_person(cases):
    cameras, judges = torch.tensor(CAMERAS), cases["judges"]
    assert camera_style(cases["others"], cameras, judges).share > 0.95
    assert camera_style(cases["truth"].images.roll(1, 0), cameras, judges).share < 0.1
