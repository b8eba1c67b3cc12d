"""What notebooks 02, 03 and 04 draw when a reader moves their controls, on small made-up sets."""

import ast
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch

import reidlib.generators.synthesis
from reidlib.course import figures
from reidlib.datasets import PersonImages, poses
from reidlib.files import REPOSITORY
from reidlib.generators.camera_transfer import CameraTransfer
from reidlib.generators.pn_gan import PNGAN
from reidlib.networks import denormalise, normalise

RUN = SimpleNamespace(device=torch.device("cpu"))
SETTINGS = SimpleNamespace(size=(64, 32))
KNOWN = dict(torch=torch, figures=figures, poses=poses, normalise=normalise, denormalise=denormalise)
KNOWN |= dict(run=RUN, settings=SETTINGS, synthesise=reidlib.generators.synthesis.synthesise)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def functions(notebook: str, *wanted: str, **names):
    """Return functions that a notebook defines, each by its own text alone, with these names around them."""
    (path,) = (REPOSITORY / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    around = KNOWN | names
    for name in wanted:
        (source,) = [c.source for c in cells if c.cell_type == "code" and re.search(rf"^def {name}\(", c.source, re.M)]
        (node,) = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name]
        exec(ast.get_source_segment(source, node), around)
    return [around[name] for name in wanted]


def people(n: int, camid: int = 1) -> PersonImages:
    g = torch.Generator().manual_seed(camid)
    images = torch.randint(256, (n, 3, 64, 32), generator=g, dtype=torch.uint8)
    masks = torch.randint(256, (n, 64, 32), generator=g, dtype=torch.uint8)
    joints = torch.cat([torch.rand(n, 18, 2, generator=g) * 31, torch.ones(n, 18, 1)], -1)
    return PersonImages(images, torch.arange(n), [camid] * n, masks=masks, keypoints=joints)


def pictures(figure) -> torch.Tensor:
    """What a figure shows, axis by axis, uint8 [n,3,H,W]."""
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    return torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2)


def row_labels(figure) -> list[str]:
    return [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]


def test_a_point_of_the_map_shows_its_image_and_the_nearest_five():
    gallery, features = people(9), torch.tensor([0.0, 50, 2, 40, 7, 3, 90, 1, 60])[:, None]
    chosen = torch.tensor([8, 0, 2, 4, 5, 7, 1, 3])
    groups = {"person": gallery.pids[chosen].tolist(), "camera": [1] * 8}
    names = dict(points=np.arange(16.0).reshape(8, 2), groups=groups, chosen=chosen, main="lsr")
    names["distances"] = torch.cdist(features[chosen], features[chosen])
    (draw,) = functions("02", "feature_map", bench=SimpleNamespace(gallery=gallery), **names)
    figure = draw(point=1)  # image 0
    assert torch.equal(pictures(figure), gallery.images[[0, 7, 2, 5, 4, 3]])
    rings = [axis.collections[-1].get_offsets().tolist() for axis in figure.axes[:2]]
    assert rings == [[[2.0, 3.0]]] * 2


@pytest.mark.parametrize(("model", "drawn_by"), [("all", [3, 4]), (4, [4])])
def test_camera_transfer_draws_the_people_the_masks_and_the_models_asked_for(model, drawn_by):
    a, b = people(10, 5), people(12, 6)
    methods = {number: CameraTransfer(model=number, preset="smoke") for number in (3, 4)}
    (draw,) = functions("03", "draw_some", with_weights=methods, new_a=a, new_b=b, a=5, b=6)
    figure = draw(person=7, mask=2, model=model)
    asked = ["mask asked for"] * (3 in drawn_by)
    assert row_labels(figure) == ["camera 5", *asked, *(f"model {n}, recorded" for n in drawn_by)]
    rows, sources, masks = pictures(figure).split(8), torch.tensor([7, 8, 9, 0, 1, 2, 3, 4]), torch.arange(2, 10)
    assert torch.equal(rows[0], a.images[sources])
    if asked:
        assert torch.equal(rows[1][:, 0], b.masks[masks])
    pairs = torch.stack([sources, masks], 1)
    for row, number in zip(rows[1 + len(asked) :], drawn_by, strict=True):
        assert torch.equal(row, KNOWN["synthesise"](methods[number], a, pairs, targets=b, camids=6).images)


def test_the_training_is_shown_at_a_moment_and_at_its_end():
    train, watched = people(6), torch.tensor([4, 1])
    looks = {1: {f"{n} pairs": torch.full((2, 3, 64, 32), n, dtype=torch.uint8) for n in (10, 20, 30)}}
    looks[4] = {"25 pairs": torch.full((2, 3, 64, 32), 25, dtype=torch.uint8)}  # trained before: its end alone
    (draw,) = functions("03", "training_pictures", train=train, watched=watched, looks=looks)
    for moment, labels in ((2, ["model 1, 20 pairs", "model 1, 30 pairs"]), (3, ["model 1, 30 pairs"])):
        figure = draw(moment=moment)
        assert row_labels(figure) == ["source", *labels, "model 4, 25 pairs"]
        greys = [int(label.split()[2]) for label in (*labels, "model 4, 25 pairs")]
        assert pictures(figure)[2:, 0, 0, 0].tolist() == [grey for grey in greys for _ in range(2)]


def test_pn_gan_draws_four_people_in_eight_poses():
    test, method = people(20), PNGAN(preset="smoke")
    names = dict(with_weights=method, test=test, one_each=[0, 3, 5, 8, 13, 19])
    _, draw = functions("04", "pose_grid", "draw_some", **names)
    shown = pictures(draw(person=1, pose=6)).unflatten(0, (5, 9))
    rows, asked = torch.tensor([3, 5, 8, 13]), torch.arange(6, 14)
    assert torch.equal(shown[0, 1:], poses.skeleton_images(test.keypoints[asked], (64, 32)))
    assert torch.equal(shown[1:, 0], test.images[rows]) and (shown[0, 0] == 255).all()
    made = KNOWN["synthesise"](method, test, torch.cartesian_prod(rows, asked), targets=test).images
    assert torch.equal(shown[1:, 1:].flatten(0, 1), made)


@pytest.mark.parametrize("weights", [True, False])
def test_a_joint_can_be_moved(weights):
    train, method = people(5), PNGAN(preset="smoke")
    names = dict(with_weights=method if weights else None, train=train, most_joints=0)
    (draw,) = functions("04", "move_joint", **names)
    shown = pictures(draw(image=3, joint="R-knee", right=4, down=-5))
    moved = train.keypoints[[3, 3]].clone()
    moved[1, poses.JOINT_NAMES.index("R-knee"), :2] += torch.tensor([4.0, -5.0])
    asked = poses.skeleton_images(moved, (64, 32))
    assert torch.equal(shown[0], train.images[3]) and torch.equal(shown[1:3], asked) and len(shown) == 3 + 2 * weights
    if weights:
        source = normalise(train.images[[3, 3]], "signed")
        assert torch.equal(shown[3:], denormalise(method.generate(source, normalise(asked, "signed")), "signed"))


def test_a_drag_moves_the_joint_that_it_began_at():
    train = people(5)
    (drag,) = functions("04", "drag", train=train)
    x, y = train.keypoints[2, poses.JOINT_NAMES.index("L-hip"), :2].tolist()
    found = drag(None, (x + 0.01, y - 0.01), (x + 3.2, y - 6.1), {"image": 2, "joint": "nose", "right": 0, "down": 0})
    assert found == {"joint": "L-hip", "right": 3, "down": -6}


def test_a_click_on_the_map_takes_the_nearest_point():
    (nearest_point,) = functions("02", "nearest_point", points=np.array([[0.0, 0], [4, 0], [4, 5]]))
    _, (points, photograph) = plt.subplots(1, 2)
    photograph.imshow(np.zeros((2, 2)))
    assert nearest_point(points, (9, 9), (3.0, 1.0), {"point": 0}) == {"point": 1}
    assert nearest_point(photograph, (9, 9), (3.0, 1.0), {"point": 0}) == {}
