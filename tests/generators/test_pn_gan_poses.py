"""PN-GAN's canonical poses: clusters of the training set's poses, their members, what they are told apart by."""

import pytest
import torch
import torch.nn.functional as F

from reidlib.datasets import PersonImages, poses
from reidlib.generators import pn_gan
from reidlib.generators.pn_gan import canonical_poses, skeleton_features, vgg19_features

SIZES = [9, 6, 4]  # members of three poses


def pose_group(seed: int, members: int) -> torch.Tensor:
    """One random pose, and copies that differ from it by a few tenths of a pixel."""
    g = torch.Generator().manual_seed(seed)
    pose = torch.rand(1, 18, 2, generator=g) * torch.tensor([28.0, 60.0]) + 2
    places = pose + torch.randn(members, 18, 2, generator=g) * 0.3
    return torch.cat([places, torch.ones(members, 18, 1)], dim=-1)


def posed_people() -> PersonImages:
    """Three poses, 9, 6 and 4 times, mixed up; and a last image with nine joints."""
    keypoints = torch.cat([pose_group(seed, n) for seed, n in enumerate(SIZES)])
    keypoints = keypoints[torch.randperm(len(keypoints), generator=torch.Generator().manual_seed(9))]
    poor = keypoints[:1].clone()
    poor[:, 9:] = torch.tensor([-1.0, -1.0, 0.0])
    keypoints = torch.cat([keypoints, poor])
    n = len(keypoints)
    return PersonImages(torch.zeros(n, 3, 64, 32, dtype=torch.uint8), [1] * n, [1] * n, keypoints=keypoints)


def test_9_members_of_the_training_set_distinct_and_repeatable():
    train = posed_people()
    found = canonical_poses(train, 3, seed=1)
    assert torch.equal(found.keypoints, train.keypoints[found.rows]) and found.rows.unique().numel() == 3
    assert torch.equal(found.pictures, poses.skeleton_images(found.keypoints, (64, 32)))
    again = canonical_poses(train, 3, seed=1)
    assert torch.equal(again.rows, found.rows) and torch.equal(again.clusters, found.clusters)
    places = torch.rand(60, 18, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([31, 63])
    anyhow = PersonImages(
        torch.zeros(60, 3, 64, 32, dtype=torch.uint8),
        [1] * 60,
        [1] * 60,
        keypoints=torch.cat([places, torch.ones(60, 18, 1)], dim=-1),
    )  # no groups: where k-means starts decides
    drawn = [canonical_poses(anyhow, 8, seed=seed).clusters for seed in (0, 1, 1)]
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("mode", ["medoid", "joint_mean", "pixel_mean"])
def test_9_one_cluster_and_as_many_as_images(mode):
    train = posed_people().select(indices=range(19))
    one, all_of_them = canonical_poses(train, 1, mode=mode), canonical_poses(train, 19, mode=mode)
    assert len(one) == 1 and one.counts.tolist() == [19] and (one.clusters == 0).all()
    assert sorted(all_of_them.rows.tolist()) == list(range(19)) and (all_of_them.counts == 1).all()
    assert torch.equal(all_of_them.pictures, poses.skeleton_images(train.keypoints, (64, 32))[all_of_them.rows])


def test_the_clusters_are_the_groups_and_the_largest_comes_first():
    train = posed_people()
    found = canonical_poses(train, 3)
    assert found.counts.tolist() == SIZES and found.clusters[-1] == -1 and len(found.features) == sum(SIZES)
    assert found.clusters[:-1].bincount().tolist() == SIZES
    for c in range(3):  # all members of a cluster lie near one another, and its medoid is nearest to their mean
        members = (found.clusters == c).nonzero().flatten()
        places = train.keypoints[members][..., :2]
        assert (places - places.mean(0)).abs().max() < 2
        own = found.features[members]
        assert found.rows[c] == members[(own - own.mean(0)).norm(dim=1).argmin()]


def test_joint_and_pixel_means_by_hand():
    train = posed_people()
    keypoints = train.keypoints.clone()
    keypoints[:2, 4] = torch.tensor([-1.0, -1.0, 0.0])
    keypoints[1, 5] = torch.tensor([-1.0, -1.0, 0.0])
    three = PersonImages(train.images[:3], [1] * 3, [1] * 3, keypoints=keypoints[:3])
    joint, pixel = (canonical_poses(three, 1, mode=m) for m in ("joint_mean", "pixel_mean"))
    assert joint.keypoints[0, 4].tolist() == [-1, -1, 0]  # one of three images shows it
    assert torch.allclose(joint.keypoints[0, 5, :2], (keypoints[0, 5, :2] + keypoints[2, 5, :2]) / 2)
    assert torch.allclose(joint.keypoints[0, 0, :2], keypoints[:3, 0, :2].mean(0))
    assert torch.equal(joint.pictures, poses.skeleton_images(joint.keypoints, (64, 32)))
    two = canonical_poses(three.select(indices=[1, 2]), 1, mode="joint_mean").keypoints[0]
    assert torch.equal(two[4], keypoints[2, 4]) and torch.equal(two[5], keypoints[2, 5])  # half of them is enough
    expected = poses.skeleton_images(keypoints[:3], (64, 32)).float().mean(0).round()
    assert torch.equal(pixel.pictures[0].float(), expected) and torch.equal(pixel.keypoints, joint.keypoints)


def test_as_images_are_targets_that_show_nobody():
    found = canonical_poses(posed_people(), 3)
    targets = found.as_images()
    assert targets.names == ["1", "2", "3"] and targets.pids.tolist() == [-1] * 3 and targets.is_generated.all()
    assert torch.equal(targets.keypoints, found.keypoints) and torch.equal(targets.images, found.pictures)
    assert canonical_poses(posed_people(), 3, mode="pixel_mean").as_images().keypoints is None


def test_skeleton_features_see_the_turn_and_not_the_place():
    front = pose_group(3, 1)
    moved = front + torch.tensor([3.0, -1.0, 0.0])
    turned = poses.flip_keypoints(front, 32)
    turned[..., 0] = 31 - turned[..., 0]  # the same places with left and right exchanged
    a, b, c = (skeleton_features(x, (64, 32)) for x in (front, moved, turned))
    assert a.shape == (1, 384) and torch.allclose(a, b, atol=1e-5) and (a - c).norm() > 0.3 * a.norm()
    larger = front * torch.tensor([4.0, 4.0, 1.0])
    assert (skeleton_features(larger, (256, 128)) - a).norm() < 0.3 * a.norm()


def test_vgg19_fc7_from_a_file(tmp_path):
    from safetensors.torch import save_file
    from torchvision.models import vgg19

    with torch.device("meta"):
        network = vgg19(weights=None)
    g = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        scale = (2 / tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else 0.1
        one = torch.randn(4096, generator=g) * scale  # drawing all 144 million would take seconds
        state[name] = one.repeat(-(-tensor.numel() // 4096))[: tensor.numel()].view(tensor.shape).contiguous()
    save_file(state, tmp_path / "vgg19.safetensors")
    keypoints = pose_group(1, 1)
    got = vgg19_features(keypoints, (64, 32), tmp_path / "vgg19.safetensors")
    x = poses.skeleton_images(keypoints, (64, 32)).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]
    x = F.interpolate(x, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        for i in [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]:
            x = F.relu(F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1))
            x = F.max_pool2d(x, 2) if i in (2, 7, 16, 25, 34) else x
        x = x.flatten(1)
        for i in (0, 3):
            x = F.relu(F.linear(x, state[f"classifier.{i}.weight"], state[f"classifier.{i}.bias"]))
    assert got.shape == (1, 4096) and torch.allclose(got, x, rtol=1e-3, atol=1e-3 * x.abs().max().item())
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors does not fit VGG"):
        vgg19_features(keypoints, (64, 32), tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="vgg19"):
        vgg19_features(keypoints, (64, 32), tmp_path / "none.pth")


def test_poses_are_clustered_by_vgg19_where_its_weights_are_given(tmp_path, monkeypatch):
    train, asked = posed_people(), []
    turned = torch.arange(19.0)[:, None].expand(19, 4096) % 3  # three groups that no skeleton shows

    def features(keypoints, size, weights, *, device):
        asked.append((len(keypoints), size, weights, device))
        return turned

    monkeypatch.setattr(pn_gan, "vgg19_features", features)
    found = canonical_poses(train, 3, weights="my/vgg.pth")
    assert asked == [(19, (64, 32), "my/vgg.pth", "cpu")] and found.source == "VGG-19 fc7 (vgg.pth)"
    assert torch.equal(found.features, turned) and sorted(found.counts.tolist()) == [6, 6, 7]
    assert found.clusters[found.clusters >= 0].view(-1)[:3].unique().numel() == 3
    monkeypatch.undo()
    assert canonical_poses(train, 3).source == "skeleton (no weights)"
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        canonical_poses(train, 3, weights=tmp_path / "none.pth")


def test_bad_input_of_canonical_poses_is_refused():
    train = posed_people()
    for options, words in ((dict(k=20), r"\[1, 19\]"), (dict(mode="mode"), "'medoid'")):
        with pytest.raises(ValueError, match=words):
            canonical_poses(train, **options)
    with pytest.raises(ValueError, match="key points"):
        canonical_poses(PersonImages(train.images, [1] * 20, [1] * 20))
    same = train.select(indices=[0] * 5)
    with pytest.raises(ValueError, match="there are 1"):
        canonical_poses(same, 2)
