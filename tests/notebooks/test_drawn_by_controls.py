"""What notebooks 02 to 07 draw when a reader moves their controls, on small made-up sets."""

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
from reidlib.datasets.annotations import LIP_LABELS
from reidlib.embedders.resnet import Embedder
from reidlib.files import REPOSITORY
from reidlib.generators.camera_transfer import CameraTransfer
from reidlib.generators.dg_net import DGNet
from reidlib.generators.pn_gan import PNGAN
from reidlib.generators.pose_attention import PoseAttention
from reidlib.generators.semantic_attention import SAN
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


def test_pose_attention_draws_a_person_in_the_next_eight_poses():
    test, artist = people(20), PoseAttention(preset="smoke")
    watched = torch.stack([torch.arange(10), torch.arange(10, 20)], 1)
    names = dict(people=test, watched=watched, artist=artist, whose_weights="nobody's")
    (draw,) = functions("05", "draw", **names)
    figure = draw(person=13, first_pose=7)  # the fourth of ten; poses 7, 8, 9, 0, ...
    sources, poses_of = torch.tensor([3] * 8), torch.tensor([17, 18, 19, 10, 11, 12, 13, 14])
    assert row_labels(figure) == ["photograph", "pose asked for", "its key points", "drawn (nobody's)"]
    photographs, asked, maps, drawn = pictures(figure).split(8)
    assert torch.equal(photographs, test.images[sources]) and torch.equal(asked, test.images[poses_of])
    assert torch.equal(maps, poses.skeleton_images(test.keypoints[poses_of], (64, 32)))
    made = KNOWN["synthesise"](artist, test, torch.stack([sources, poses_of], 1), targets=test).images
    assert torch.equal(drawn, made)


def labelled(n: int) -> PersonImages:
    """Three people, half clothes and half street; nobody but person 2 wears a skirt."""
    made, parsing = people(n), torch.zeros(n, 64, 32, dtype=torch.uint8)
    parsing[:, 20:40], parsing[:, 40:60] = LIP_LABELS.index("upper-clothes"), LIP_LABELS.index("pants")
    pids = torch.arange(n) % 3
    parsing[pids == 2, 40:50] = LIP_LABELS.index("skirt")
    return PersonImages(made.images, pids, made.camids, masks=made.masks, keypoints=made.keypoints, parsing=parsing)


def of_06(*wanted: str, test: PersonImages):
    artist = SAN(preset="smoke", use_perceptual=False)
    names = dict(test=test, artist=artist, people=[0, 1, 2], LABEL={name: i for i, name in enumerate(LIP_LABELS)})
    return artist, functions("06", *wanted, PersonImages=PersonImages, SLEEVES={}, **names)


def test_san_draws_one_person_after_the_maps_of_others_or_their_own():
    test = labelled(30)
    artist, (drawn, strip) = of_06("drawn", "strip", test=test)
    own = torch.arange(1, 30, 3)
    others = torch.tensor([row for row in range(30) if row % 3 != 1])[::2][:8]
    for choice, targets in (("other people", others), ("the person", own[1:9])):
        figure = strip(person=1, poses_of=choice)
        assert row_labels(figure) == ["photograph", "parse map", "drawn"]
        photographs, maps, made = pictures(figure).split(len(targets) + 1)
        rows = torch.cat([torch.tensor([1]), targets])
        assert torch.equal(photographs, test.images[rows]) and torch.equal(made[0], test.images[1])
        assert torch.equal(maps, figures.parse_pictures(test.parsing[rows]))
        sources, wanted = test.select(indices=[1] * len(targets)), test.select(indices=targets)
        assert torch.equal(made[1:], drawn(artist, sources, wanted))


def test_a_painted_class_is_repainted_in_the_map_and_in_no_other_place():
    test = labelled(9)
    *_, paint = of_06("drawn", "relabelled", "paint", test=test)[1]
    shown = pictures(paint(person=2, over="skirt", paint="left-leg"))
    before, after = test.parsing[2:3], test.parsing[2:3].clone()
    after[after == LIP_LABELS.index("skirt")] = LIP_LABELS.index("left-leg")
    assert torch.equal(shown[0], test.images[2]) and torch.equal(shown[1], figures.parse_pictures(before)[0])
    assert torch.equal(shown[3], figures.parse_pictures(after)[0])
    change = 3 * (shown[2].float() - shown[4].float()).abs().mean(0)
    assert torch.equal(shown[5], change.clamp(max=255).expand(3, -1, -1).byte())
    with pytest.raises(ValueError, match="this person's map has no skirt"):
        paint(person=0, over="skirt", paint="left-leg")


def test_dg_net_walks_between_two_outfits_and_frames_the_chosen_share():
    test, heads = people(4), [dict(dimensions=16, norm="batch")] * 2
    method = DGNet(Embedder(4, width=4, last_stride=1, pool="max", heads=heads), preset="smoke", feed_generated=False)
    outfits = [normalise(test.images[[row]], "signed") for row in (0, 1)]
    condition = method.condition(test.batch([2]))
    (walk,) = functions("07", "walk", drawer=method, outfits=outfits, condition=condition)
    figure = walk(share=0.3)
    shares = [0, 0.125, 0.25, 0.3, 0.375, 0.5, 0.625, 0.75, 0.875, 1]
    made = [denormalise(method.interpolate(*outfits, condition, share), "signed") for share in shares]
    shown = pictures(figure)
    assert torch.equal(shown[[0, -1]], test.images[:2])
    assert (shown[1:-1].int() - torch.cat(made).int()).abs().max() <= 1  # rounded by the figure
    framed = [axis.get_title() for axis in figure.axes if axis.spines["left"].get_visible() and axis.images]
    assert framed == ["0.30"]
