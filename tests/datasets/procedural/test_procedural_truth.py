"""The renderer's truth: key points, masks, parsing, colours and sides agree with each other and with the pose."""

import pytest
import torch

from reidlib.datasets import load
from reidlib.datasets.augment import resize
from reidlib.datasets.procedural import in_pose, render, same_frame
from reidlib.datasets.procedural.compose import draw_shots
from reidlib.datasets.procedural.networks import network_named
from reidlib.datasets.procedural.occluders import OCCLUDERS
from reidlib.datasets.procedural.people import describe, people
from reidlib.datasets.procedural.shots import shots
from reidlib.datasets.procedural.skeleton import JOINTS, view_rotation

SIZE = (128, 64)
NOSE, NECK = JOINTS.index("nose"), JOINTS.index("neck")
RIGHT = [index for index, name in enumerate(JOINTS) if name.startswith("right")]
LEFT = [JOINTS.index(JOINTS[index].replace("right", "left")) for index in RIGHT]


@pytest.fixture(scope="module")
def crowd():
    """Ninety-six pictures as the data set holds them: occluders, strangers, cut boxes."""
    return render(list(range(1, 97)), [1 + index % 6 for index in range(96)], plain=False, image_size=SIZE)


def test_shapes_types_and_ranges(crowd):
    assert crowd.images.shape == (96, 3, *SIZE) and crowd.images.dtype == torch.uint8
    assert crowd.keypoints.shape == (96, 18, 3)
    assert crowd.parsing.max() < 20
    assert crowd.masks.unique().numel() > 20, "soft edges"


def test_visible_key_points_lie_inside_the_mask_and_hidden_ones_are_missing(crowd):
    seen = crowd.keypoints[..., 2] > 0
    assert 0.55 < seen.float().mean() < 0.95
    image, _ = seen.nonzero(as_tuple=True)
    x, y = crowd.keypoints[seen][:, :2].round().long().unbind(1)
    assert (crowd.masks[image, y, x] > 127).all()
    assert (crowd.keypoints[~seen] == torch.tensor([-1.0, -1.0, 0.0])).all()


def test_mask_is_over_half_exactly_where_a_label_is(crowd):
    """The rule: bags belong to the mask and carry the upper garment's label; occluders and strangers are background."""
    assert torch.equal(crowd.masks > 127, crowd.parsing > 0)
    assert (crowd.masks > 127).float().mean((1, 2)).min() > 0.02


def test_bags_are_in_the_mask_with_the_label_of_the_upper_garment():
    ids = list(range(1, 200))
    table = describe(people(ids, muted=0.3), ids)
    chosen = table[(table["bag"] == "backpack") & (table["upper"] == "tee")]["pid"].tolist()[:6]
    shown = render(
        chosen,
        1,
        yaws=180,
        phases=0.0,
        moments=7,
        background=(0, 0, 0),
        camera_effects=False,
        image_size=SIZE,
        difficulty=0.3 / 0.62,
    )
    bag = [torch.tensor([int(code[i : i + 2], 16) for i in (1, 3, 5)]) for code in shown.info["bag_colour"]]
    for image, parsing, mask, colour in zip(shown.images, shown.parsing, shown.masks, bag, strict=True):
        near = (image.int() - colour.view(3, 1, 1)).abs().amax(0) < 40
        near &= mask == 255
        assert near.sum() > 200
        assert ((parsing == 5) & near).sum() > 0.9 * near.sum()


def _ids(count, **wanted):
    ids = list(range(1, 600))
    table = describe(people(ids, muted=0.62), ids)
    keep = torch.ones(len(ids), dtype=torch.bool)
    for name, value in wanted.items():
        keep &= torch.tensor([entry == value for entry in table[name]])
    return [pid for pid, kept in zip(ids, keep.tolist(), strict=True) if kept][:count]


@pytest.mark.parametrize(
    ("label", "column", "wanted"),
    [
        (5, "upper_colour", {"upper": "tee", "pattern": "plain", "bag": "none"}),
        (7, "upper_colour", {"upper": "coat", "pattern": "plain", "bag": "none"}),
        (6, "upper_colour", {"upper": "dress", "pattern": "plain", "bag": "none"}),
        (9, "lower_colour", {"lower": "trousers", "lower_pattern": "plain", "upper": "tee"}),
        (12, "lower_colour", {"lower": "skirt", "lower_pattern": "plain", "upper": "tee"}),
        (2, "hair_colour", {"hair": "long", "hat": "none"}),
        (13, "skin_colour", {"hair": "short", "upper": "tee"}),
    ],
)
def test_colours_of_a_label_are_those_of_the_attribute(label, column, wanted):
    ids = _ids(8, **wanted)
    assert len(ids) >= 3
    shown = render(
        ids, 1, yaws=150 if label in (2, 7) else 0, camera_effects=False, background=(1, 1, 1), image_size=SIZE
    )
    for image, parsing, mask, code in zip(shown.images, shown.parsing, shown.masks, shown.info[column], strict=True):
        pixels = image[:, (parsing == label) & (mask == 255)].float()
        assert pixels.shape[1] > 10
        attribute = torch.tensor([float(int(code[i : i + 2], 16)) for i in (1, 3, 5)])
        assert (pixels.median(1).values - attribute).abs().max() < 26


def test_turning_round_swaps_the_sides_and_hides_the_nose():
    ids = list(range(1, 17))
    front, back = (
        render(ids, 1, yaws=yaw, phases=0.0, walking=0.0, moments=3, background=(1, 1, 1), image_size=SIZE)
        for yaw in (0, 180)
    )
    assert (front.keypoints[:, NOSE, 2] == 1).all() and (back.keypoints[:, NOSE, 2] == 0).all()
    for shown, sign in ((front, 1), (back, -1)):
        for right, left in ((2, 5), (8, 11)):  # shoulders and hips
            assert ((shown.keypoints[:, left, 0] - shown.keypoints[:, right, 0]) * sign > 2).all()


def test_left_and_right_labels_agree_with_yaw():
    """Facing the camera the person's left is on the right of the picture; a side view shows the nearer side."""
    ids = _ids(8, upper="tee", lower="shorts", bag="none")
    column = torch.arange(SIZE[1]).float()
    for yaw, sign in ((0, 1), (180, -1)):
        shown = render(ids, 1, yaws=yaw, phases=0.0, walking=0.0, background=(1, 1, 1), image_size=SIZE)
        for right, left in ((15, 14), (17, 16), (19, 18)):
            for parsing in shown.parsing:
                places = [
                    ((parsing == label).float() * column).sum() / (parsing == label).sum() for label in (right, left)
                ]
                assert (places[1] - places[0]) * sign > 0
    for yaw, near, far in ((90, 17, 16), (270, 16, 17)):
        parsing = render(ids, 1, yaws=yaw, phases=0.0, walking=0.0, background=(1, 1, 1), image_size=SIZE).parsing
        assert ((parsing == near).sum((1, 2)) > (parsing == far).sum((1, 2))).all()


def test_one_side_of_the_face_and_the_farther_arm_hide_in_profile():
    shown = render(
        list(range(1, 25)), 1, yaws=90, phases=0.0, walking=0.0, moments=5, background=(1, 1, 1), image_size=SIZE
    )
    seen = shown.keypoints[..., 2]
    assert (seen[:, JOINTS.index("left ear")] == 0).all()
    assert seen[:, JOINTS.index("left eye")].mean() < 0.15, "only a turned head shows it"
    assert seen[:, JOINTS.index("right ear")].mean() > 0.8
    assert seen[:, RIGHT].sum() > seen[:, LEFT].sum() + 24


def _one_shot(pids, occluder):
    rows = {
        "pid": pids,
        "camid": [1] * len(pids),
        "sequence": [1] * len(pids),
        "frame": list(range(len(pids))),
        "step": [0] * len(pids),
        "box": ["drawn"] * len(pids),
    }
    shot = shots(rows, network=network_named("market1501"), seed=0, scene="generation", difficulty=1.0)
    shot["yaw"][:] = 0
    shot["stranger"][:] = 0
    shot["occluder"][:] = OCCLUDERS.index(occluder)
    shot["occluder_x"][:] = 0.0
    return draw_shots(
        pids, shot, network=network_named("market1501"), seed=0, scene="generation", difficulty=1.0, image_size=SIZE
    )


def test_what_an_occluder_covers_is_neither_mask_nor_seen_joint():
    ids = list(range(1, 13))
    free, poled, peopled = (_one_shot(ids, kind) for kind in ("none", "pole", "person"))
    assert (free.occluded == 0).all() and (poled.occluded > 0.05).all() and (peopled.occluded > 0.3).all()
    assert torch.equal(free.joints, poled.joints)
    assert (poled.keypoints[:, NOSE, 2] == 0).all() and (free.keypoints[:, NOSE, 2] == 1).all()
    assert (poled.keypoints[:, NECK, 2] == 0).all(), "the trunk's joints are hidden by things in front"
    lost = 1 - (poled.masks > 127).sum((1, 2)) / (free.masks > 127).sum((1, 2))
    assert (lost - poled.occluded).abs().max() < 0.05


def test_a_crossed_arm_is_hidden_behind_the_body_but_trunk_joints_are_reported():
    ids = list(range(1, 25))
    shown = render(ids, 1, yaws=180, phases=0.0, walking=0.0, background=(1, 1, 1), image_size=SIZE)
    assert (shown.keypoints[:, [1, 2, 5, 8, 11], 2] == 1).all()


def test_same_frame_shows_the_same_body_in_two_cameras():
    a, b = same_frame([1, 2, 3, 4], 1, 6, image_size=SIZE)
    for name in ("masks", "parsing", "keypoints"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert (a.images.float() - b.images.float()).abs().mean() > 12
    assert a.camids.tolist() == [1] * 4 and b.camids.tolist() == [6] * 4


def test_the_same_frame_is_reduced_from_the_stored_size():
    """Drawn at 64x32 it would be sharper than the photographs of the set, and told from them by that alone."""
    whole, small = (same_frame([3, 9], 5, 6, image_size=size)[1] for size in ((128, 64), (64, 32)))
    wanted = resize({"images": whole.images, "masks": whole.masks, "keypoints": whole.keypoints}, (64, 32))
    assert all(torch.equal(getattr(small, name), value) for name, value in wanted.items())


def test_in_pose_gives_a_set_s_own_images_back_and_moves_people_into_other_poses(tmp_path):
    bench = load("procedural", tmp_path, (64, 32), size="smoke", scene="generation", cache=tmp_path, progress=False)
    info = bench.train.info
    clear = (info["occluder"] == "none") & (info["cut"] == 0)
    images = bench.train.select(indices=torch.tensor(clear.to_numpy()))
    options = dict(image_size=(64, 32), scene="generation")
    again = in_pose(images.table(), images.table(), **options)
    masks = [made.batch(range(len(images)))["masks"] > 127 if made is images else made.masks > 127
             for made in (images, again)]  # fmt: skip
    overlap = (masks[0] & masks[1]).sum((1, 2)) / (masks[0] | masks[1]).sum((1, 2))
    assert overlap.mean() > 0.95  # but for the strangers and the rounding of what is written down
    off = (again.images.float() - images.images[:].float()).abs().mean((1, 2, 3))
    # of 255: saved and reduced as the set's files are (drawn at 64x32 it would be 4.8), and at its own place of the
    # track (at the first 3.3 in the course's set); strangers behind and rounding remain
    assert off.quantile(0.9) < 0.6
    order = torch.arange(len(images)).roll(7)
    moved = in_pose(images.table(), images.select(indices=order).table(), **options)
    assert torch.equal(moved.pids, images.pids) and torch.equal(moved.camids, images.camids)
    both = (moved.keypoints[..., 2] > 0) & (images.keypoints[order][..., 2] > 0)
    apart = (moved.keypoints - images.keypoints[order])[..., :2].norm(dim=2)
    own = (moved.keypoints - images.keypoints)[..., :2].norm(dim=2)
    assert both.float().mean() > 0.6 and apart[both].median() < 1.5 < own[both].median()
    with pytest.raises(ValueError, match="2 people and 1 poses"):
        in_pose(images.table()[:2], images.table()[:1])
    with pytest.raises(ValueError, match="lack frame, box"):
        in_pose(*[images.table()[:2].drop(columns=["frame", "box"])] * 2)


def test_the_person_is_the_same_with_and_without_a_background():
    scene, plain = (
        render([5, 6], 2, moments=1, background=background, camera_effects=False, image_size=SIZE)
        for background in ("scene", (0.2, 0.9, 0.2))
    )
    assert torch.equal(scene.masks, plain.masks)
    inside = (scene.masks == 255)[:, None].expand_as(scene.images)
    assert torch.equal(scene.images[inside], plain.images[inside])
    outside = plain.masks == 0
    assert plain.images.permute(0, 2, 3, 1)[outside].unique(dim=0).tolist() == [[51, 230, 51]]


def test_a_picture_does_not_depend_on_its_batch():
    together = render([3, 9, 27], [1, 4, 6], plain=False, moments=[0, 1, 2], image_size=SIZE)
    alone = render([27], [6], plain=False, moments=[2], image_size=SIZE)
    assert (together.images[2].int() - alone.images[0].int()).abs().max() <= 1
    assert torch.equal(together.keypoints[2, :, 2], alone.keypoints[0, :, 2])


def test_cameras_differ_and_repeat():
    ids = list(range(1, 13))
    views = [render(ids, camera, moments=0, image_size=SIZE).images.float().mean((0, 2, 3)) for camera in range(1, 7)]
    gaps = torch.cdist(torch.stack(views), torch.stack(views))
    assert gaps[~torch.eye(6, dtype=torch.bool)].min() > 3
    again = render(ids, 6, moments=0, image_size=SIZE).images.float().mean((0, 2, 3))
    assert torch.equal(again, views[5])


def test_difficulty_strengthens_cameras_collisions_and_occlusion():
    ids, cameras = list(range(1, 61)), [1 + index % 6 for index in range(60)]
    easy, hard = (
        render(ids, cameras, plain=False, difficulty=difficulty, image_size=(64, 32)) for difficulty in (0.0, 2.0)
    )
    assert (easy.info["occluder"] == "none").all() and (hard.info["occluder"] != "none").sum() > 10

    def saturation(shown):
        codes = [[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in shown.info["upper_colour"]]
        rgb = torch.tensor(codes).float()
        return (rgb.amax(1) - rgb.amin(1)).mean()

    assert saturation(hard) < 0.75 * saturation(easy)


def test_view_rotation_is_a_rotation():
    turn = view_rotation(torch.tensor([0.3, 2.0]), torch.tensor([0.2, 0.4]))
    assert torch.allclose(turn @ turn.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6)
    profile = view_rotation(torch.tensor([torch.pi / 2]), torch.zeros(1))[0] @ torch.tensor([0.0, 0.0, 1.0])
    assert torch.allclose(profile, torch.tensor([1.0, 0.0, 0.0]), atol=1e-6), "90 degrees walks to the right"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pids": [], "camids": 1}, "empty"),
        ({"pids": [1], "camids": 7}, "1 to 6"),
        ({"pids": [1], "scene": "easy"}, "retrieval"),
        ({"pids": [1], "network": "nowhere"}, "market1501"),
        ({"pids": [1], "image_size": (127, 64)}, "multiples of 4"),
        ({"pids": [1, 2], "yaws": [1, 2, 3]}, "each of the 2"),
        ({"pids": [1], "background": "sky"}, "scene"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        render(**arguments)
