"""The judges' rules by hand, their training in small, and the recorded ones on freshly rendered people."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.datasets.procedural import render
from reidlib.evaluators.image_quality import fid
from reidlib.evaluators.judges import Judges, PoseJudge, camera_style, identity_kept, judge, load_judges, pose_pck
from reidlib.tools import train_judges as training


@dataclass(frozen=True, eq=False)
class FoundThere(Judges):
    """Judges that find these joints, whatever they see."""

    places: torch.Tensor = None

    def keypoints(self, images):
        return self.places


class FirstPixel(nn.Module):
    """Its answer is made from the first pixel (ImageNet-normalised), so that a test can say what it will be."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.nothing = answer, nn.Parameter(torch.zeros(()))

    def forward(self, images):
        red = (images[:, 0, 0, 0] * 0.229 + 0.485) * 255
        return self.answer(red.round())


def fake_judges(**answers):
    named = {name: FirstPixel(answers.get(name, lambda red: red[:, None])) for name in ("pose", "identity", "camera")}
    return Judges(**named, camids=(1, 2, 6), image_size=(8, 4))


def plain(*reds, size=(8, 4)):
    return torch.tensor(reds, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, *size).contiguous()


def rendered(ids, seed, *, scene="generation", moments=(0, 1), image_size=(64, 32)):
    rows = [(pid, camid, moment) for pid in ids for camid in range(1, 7) for moment in moments]
    pids, camids, times = zip(*rows, strict=True)
    made = render(pids, camids, moments=times, plain=False, seed=seed, scene=scene, image_size=image_size)
    return PersonImages(made.images, made.pids, made.camids, keypoints=made.keypoints)


@pytest.fixture(scope="module")
def people():
    return rendered(range(1, 5), 7, moments=(0,))


def test_pck_by_hand():
    """Height 40: within 4 pixels at 0.1, within 2 at 0.05; an unseen joint does not count."""
    wanted = torch.full((1, 18, 3), -1.0)
    wanted[..., 2] = 0
    wanted[0, :4] = torch.tensor([[10.0, 10.0, 1.0]] * 4)
    found = torch.zeros(1, 18, 2)
    found[0, :4] = torch.tensor([[10.0, 10.0], [10.0, 12.0], [13.0, 12.0], [13.0, 13.0]])  # 0, 2, 3.6 and 4.2 away
    judges = FoundThere(None, None, None, (1,), places=found)
    images = torch.zeros(1, 3, 40, 20, dtype=torch.uint8)
    assert pose_pck(images, wanted, judges) == 3 / 4
    assert pose_pck(images, wanted, judges, threshold=0.05) == 2 / 4
    with pytest.raises(ValueError, match="no joint is visible"):
        pose_pck(images, wanted * torch.tensor([1, 1, 0]), judges)
    with pytest.raises(ValueError, match=r"\[1,18,3\]"):
        pose_pck(images, wanted[:, :17], judges)
    with pytest.raises(ValueError, match="threshold=0"):
        pose_pck(images, wanted, judges, threshold=0)


def test_a_peaked_map_is_a_joint_in_pixels_of_the_image():
    maps = torch.zeros(1, 18, 4, 2)
    maps[:, :, 3, 1] = 100.0  # pixels (2..3, 6..7) of 8x4: centre (2.5, 6.5)
    torch.testing.assert_close(PoseJudge.places(maps), torch.tensor([2.5, 6.5]).expand(1, 18, 2))
    judges = fake_judges(pose=lambda red: maps.expand(len(red), -1, -1, -1))
    assert judges.keypoints(plain(0))[0, 0].tolist() == [2.5, 6.5]
    larger = judges.keypoints(plain(0, 0, size=(32, 12)))  # 4 and 3 times as large: (2.5 + 0.5) * 3 - 0.5
    torch.testing.assert_close(larger, torch.tensor([8.5, 27.5]).expand(2, 18, 2))


def test_identity_by_hand():
    gallery = PersonImages(plain(10, 11, 50, 90, 20), [1, 1, 2, 3, -1], [1, 2, 1, 1, 1])
    judges = fake_judges()
    kept = identity_kept(plain(12, 60, 49), torch.tensor([1, 3, 2]), gallery, judges)
    assert kept.rank1 == pytest.approx(2 / 3)  # 60 is nearer to 50 (person 2) than to 90
    assert kept.rank10 == 1.0  # fewer than ten are there
    assert kept.chance == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)  # junk does not count
    assert identity_kept(plain(21), [1], gallery, judges).rank1 == 1.0  # junk is not found either


def test_identity_does_not_find_its_source():
    gallery = PersonImages(plain(40, 11, 50), [1, 1, 2], [1, 2, 1])
    judges, image, pid = fake_judges(), plain(41), torch.tensor([1])
    assert identity_kept(image, pid, gallery, judges).rank1 == 1.0
    kept = identity_kept(image, pid, gallery, judges, source_rows=torch.tensor([0]))
    assert kept.rank1 == 0.0 and kept.rank10 == 1.0 and kept.chance == 1 / 2
    assert identity_kept(image, pid, gallery, judges, source_rows=torch.tensor([-1])).rank1 == 1.0
    junk_first = PersonImages(plain(7, 40, 11, 50), [-1, 1, 1, 2], [1, 1, 2, 1])  # rows move when junk is left out
    assert identity_kept(image, pid, junk_first, judges, source_rows=torch.tensor([1])).rank1 == 0.0


def test_person_0_can_be_found_and_distractors_are_wrong():
    gallery = PersonImages(plain(10, 30, 50, 90), [0, -3, 2, -1], [1, 1, 1, 1])
    judges = fake_judges()
    kept = identity_kept(plain(12, 49), torch.tensor([0, 2]), gallery, judges)
    assert kept == pytest.approx((1.0, 1.0, 1 / 3))  # of two people and a distractor
    assert identity_kept(plain(31), torch.tensor([0]), gallery, judges).rank1 == 0.0  # the distractor is nearest


def test_ten_nearest_are_ten():
    """The right person is the tenth nearest of the first image, and the eleventh of the second."""
    gallery = PersonImages(plain(*range(101, 111), 120, 200), [2] * 9 + [1] + [2, 3], [1] * 12)
    kept = identity_kept(plain(100, 120), torch.tensor([1, 3]), gallery, fake_judges())
    assert (kept.rank1, kept.rank10) == (0.0, 0.5)


def test_judge_gives_what_applies(people):
    judges = load_judges()
    asked = dict(keypoints=people.keypoints, pids=people.pids, gallery=people, source_rows=torch.arange(len(people)))
    found = judge(people.images, judges, **asked, camids=people.camids)
    kept = identity_kept(people.images, people.pids, people, judges, asked["source_rows"])
    assert found == {
        "PCK@0.1": pose_pck(people.images, people.keypoints, judges),
        "PCK@0.05": pose_pck(people.images, people.keypoints, judges, 0.05),
        "identity kept, rank-1": kept.rank1,
        "identity kept, any of 10": kept.rank10,
        "identity kept, by chance": kept.chance,
        "camera style": camera_style(people.images, people.camids, judges).share,
    }
    assert list(judge(people.images, judges, camids=3)) == ["camera style"]
    assert judge(people.images, judges, camids=3)["camera style"] == pytest.approx(1 / 6, abs=0.05)
    assert list(judge(people.images, judges, keypoints=people.keypoints)) == ["PCK@0.1", "PCK@0.05"]
    with pytest.raises(ValueError, match="nothing to judge by"):
        judge(people.images, judges)
    with pytest.raises(ValueError, match="give both or neither"):
        judge(people.images, judges, pids=people.pids)
    with pytest.raises(ValueError, match="give both or neither"):
        judge(people.images, judges, gallery=people, camids=3)


@pytest.mark.parametrize(
    ("pids", "sources", "message"),
    [
        ([1, 2], None, r"got 1 images, \[2\] pids"),
        ([9], None, r"no \(other\) image of people \[9\]"),
        ([2], [2], r"no \(other\) image of people \[2\]"),
        ([-2], None, r"people \[-2\]"),
        ([-3], None, r"people \[-3\]"),
        ([1], [3], "3 to 3 of 3"),
    ],
)
def test_identity_refuses_what_cannot_be_found(pids, sources, message):
    gallery = PersonImages(plain(40, 11, 50), [1, 1, 2], [1, 2, 1])
    sources = None if sources is None else torch.tensor(sources)
    with pytest.raises(ValueError, match=message):
        identity_kept(plain(41), torch.tensor(pids), gallery, fake_judges(), source_rows=sources)


def test_camera_share_and_confusion_by_hand():
    judges = fake_judges(camera=lambda red: nn.functional.one_hot(red.long(), 3).float())
    images = plain(0, 1, 2, 2)  # cameras 1, 2, 6, 6
    style = camera_style(images, torch.tensor([1, 6, 6, 6]), judges)
    assert style.share == 3 / 4
    assert style.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 2]]
    assert camera_style(images, 6, judges).share == 2 / 4
    unsorted = replace(judges, camids=(6, 1, 2))  # in the order of the judge's outputs, whatever that is
    style = camera_style(images, torch.tensor([6, 2, 2, 2]), unsorted)
    assert style.share == 3 / 4 and style.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 2]]
    with pytest.raises(ValueError, match=r"cameras \[1, 2, 6\] that the judge knows; got \[4\] with \[3\]"):
        camera_style(images, 3, judges)
    with pytest.raises(ValueError, match=r"got \[2\]"):
        camera_style(images, torch.tensor([1, 2]), judges)


def test_judges_of_other_data_are_refused():
    with pytest.raises(ValueError, match="trained on 'procedural' and know nothing of 'market1501'"):
        load_judges(dataset="market1501")


def test_judges_take_bytes_only():
    with pytest.raises(ValueError, match=r"torch.float32 \[1, 3, 8, 4\]"):
        fake_judges().embed(torch.zeros(1, 3, 8, 4))


def test_pose_loss_by_hand():
    points = torch.full((1, 18, 3), -1.0)
    points[..., 2] = 0
    points[0, 5] = torch.tensor([2.5, 4.5, 1.0])  # the centre of cell (row 2, column 1)
    batch = {"keypoints": points}
    flat = torch.zeros(1, 18, 4, 2)
    assert training.pose_loss(flat, batch).item() == pytest.approx(torch.tensor(8.0).log().item())
    right, wrong = flat.clone(), flat.clone()
    right[0, 5, 2, 1] = wrong[0, 5, 0, 0] = 20.0
    sharp = training.pose_loss(right, batch, sigma=0.01)
    assert sharp < 1e-5 and training.pose_loss(wrong, batch, sigma=0.01) == pytest.approx(20, abs=1e-3)
    right[0, 6] = torch.randn(4, 2)  # a joint that is not seen
    assert training.pose_loss(right, batch, sigma=0.01) == sharp


def test_disturb_changes_each_image_alone_and_leaves_the_batch():
    images = torch.full((64, 3, 16, 8), 100, dtype=torch.uint8)
    batch = {"images": images, "pids": torch.arange(64)}
    tinted = training.disturb(batch, torch.Generator().manual_seed(0), noise=0)["images"].float()
    assert (images == 100).all()
    assert (tinted.amax((2, 3)) == tinted.amin((2, 3))).all()  # one colour in each
    assert 75 <= tinted.min() < 80 and 120 < tinted.max() <= 125 and len(tinted[:, :, 0, 0].unique(dim=0)) > 60
    noisy = training.disturb(batch, torch.Generator().manual_seed(0), colour=0, blur=0)["images"].float()
    deviations = noisy.std((1, 2, 3))
    assert deviations.min() < 1.5 and 8 < deviations.max() < 11
    again = training.disturb(batch, torch.Generator().manual_seed(0), colour=0, blur=0)["images"].float()
    assert (again == noisy).all()


def test_judges_are_trained_stored_and_loaded(people, tmp_path):
    seen = {"pose": 128, "identity": 64, "camera": 128}
    state = torch.random.get_rng_state()
    judges = training.train_judges(people, dataset="toy", images_seen=seen, device="cpu", progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)
    stored = training.save_judges(judges, tmp_path, {"others": people}, seconds=100, command="none", renderer_version=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "judges-camera.safetensors", "judges-identity.safetensors", "judges-pose.safetensors", "judges.results.json",
    ]  # fmt: skip
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2e6
    results = json.loads((tmp_path / "judges.results.json").read_text())
    assert results["parameters"]["command"] == "none" and results["metrics"]["camera_style (others)"]["rule"]
    loaded = load_judges(tmp_path, dataset="toy")
    assert loaded.camids == (1, 2, 3, 4, 5, 6) and loaded.accuracy == stored.accuracy
    assert loaded.accuracy["pose_pck@0.1 (others)"] == pose_pck(people.images, people.keypoints, loaded)
    torch.testing.assert_close(loaded.embed(people.images), judges.embed(people.images), atol=5e-3, rtol=0)
    torch.testing.assert_close(loaded.keypoints(people.images), judges.keypoints(people.images), atol=0.1, rtol=0)
    with pytest.raises(ValueError, match="trained on 'toy' and know nothing of 'procedural'"):
        load_judges(tmp_path)
    weights = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    few = people.select(pids=people.pids.unique()[:3])
    for version in (7, 8):
        again = training.measure_again(tmp_path, {"few": few}, renderer_version=version)
    assert again.accuracy["pose_pck@0.1 (few)"] == pose_pck(few.images, few.keypoints, loaded)
    assert len(again.accuracy) == len(training.RULES)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == weights
    measured = json.loads((tmp_path / "judges.results.json").read_text())
    assert measured["parameters"]["renderer_version"] == 8 and measured["parameters"]["command"] == "none"
    assert measured["parameters"]["trained"] == {
        "commit": results["commit"], "finished": results["finished"], "renderer_version": 2,
    }  # fmt: skip
    assert 100 <= results["seconds"] <= measured["seconds"] < 130, "of the training; writing takes no time"
    (tmp_path / "judges-pose.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"judges-pose\.safetensors missing; `reidlib judges` makes"):
        load_judges(tmp_path, dataset="toy")


def test_training_needs_key_points_and_cameras(people):
    bare = PersonImages(people.images, people.pids, people.camids)
    with pytest.raises(ValueError, match="key points: False"):
        training.train_judges(bare, dataset="toy")
    with pytest.raises(ValueError, match=r"cameras \[2\]"):
        training.train_judges(people.select(camids=2), dataset="toy")


@pytest.mark.parametrize("scene", training.SCENES)
def test_recorded_judges_are_as_good_as_they_say(scene):
    """People of another seed, at another size, never seen before; a margin for 96 images."""
    judges = load_judges()
    fresh = rendered(range(1, 9), 1002, scene=scene, image_size=(128, 64))
    measured = training.judge_accuracy(judges, fresh)
    for name, margin in (("pose_pck@0.1", 0.03), ("pose_pck@0.05", 0.05), ("camera_style", 0.03)):
        assert measured[name] > judges.accuracy[f"{name} ({scene})"] - margin, name
    assert judges.accuracy[f"pose_pck@0.1 ({scene})"] >= 0.9
    assert judges.accuracy[f"camera_style ({scene})"] >= 0.95
    assert measured["identity_kept rank-1"] > 0.85
    wrong = camera_style(fresh.images, fresh.camids % 6 + 1, judges)
    assert wrong.share < 0.05
    others = pose_pck(fresh.images, fresh.keypoints.flip(0), judges)
    assert others < measured["pose_pck@0.1"] - 0.1  # another image's joints are further away


def test_fid_of_the_judges_looks_notices_light_noise_and_blur():
    judges = load_judges()
    real, other = (rendered(ids, 1002).images for ids in (range(1, 11), range(11, 21)))
    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))
    small = nn.functional.interpolate(other.float(), (32, 16), mode="bilinear", antialias=True)
    worse = (0.7 * other, other + 20 * noise, nn.functional.interpolate(small, (64, 32), mode="bilinear"))
    base = fid(real, other, features=judges.looks).value
    for images in worse:
        assert fid(real, images.clamp(0, 255).to(torch.uint8), features=judges.looks).value > 1.1 * base
