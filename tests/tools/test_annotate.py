"""Annotation through stubs of torchvision's output, and through torchvision's own networks with random weights."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reidlib.__main__ import main
from reidlib.datasets import annotations, load
from reidlib.datasets.poses import FLIPPED, JOINT_NAMES
from reidlib.tools import detectors as networks
from reidlib.tools.annotate import annotate, find_images, main_person, to_openpose
from reidlib.tools.people_table import make_table

COCO = (
    "nose", "L-eye", "R-eye", "L-ear", "R-ear", "L-shoulder", "R-shoulder", "L-elbow", "R-elbow", "L-wrist", "R-wrist",
    "L-hip", "R-hip", "L-knee", "R-knee", "L-ankle", "R-ankle",
)  # fmt: skip


def coco_points() -> np.ndarray:
    """Point i of COCO's order lies at (10 + i, 100 + i)."""
    return np.array([(10 + i, 100 + i, 1) for i in range(17)], np.float32)


class Stub:
    """A detector with torchvision's output: the given people in every image, as boxes in shares of its size."""

    def __init__(self, people, joint_scores=None):
        self.people, self.seen = people, 0
        self.joint_scores = torch.full((17,), 9.0) if joint_scores is None else torch.as_tensor(joint_scores)

    def __call__(self, images):
        assert all(i.dtype == torch.float32 and i.shape[0] == 3 and i.min() >= 0 and i.max() <= 1 for i in images)
        self.seen += len(images)
        return [self.of(*image.shape[1:]) for image in images]

    def of(self, height, width):
        n = len(self.people)
        boxes = torch.tensor([box for box, _, _ in self.people]).reshape(n, 4)
        boxes = boxes * torch.tensor([width, height, width, height])
        keypoints, masks = torch.zeros(n, 17, 3), torch.zeros(n, 1, height, width)
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):  # joints on the box's diagonal, a soft mask in the box
            keypoints[i, :, 0], keypoints[i, :, 1] = torch.linspace(x1, x2, 17), torch.linspace(y1, y2, 17)
            keypoints[i, :, 2] = 1  # torchvision says so of every joint
            masks[i, 0, round(y1) : round(y2), round(x1) : round(x2)] = 0.8
        return {
            "boxes": boxes,
            "labels": torch.tensor([label for _, label, _ in self.people], dtype=torch.int64),
            "scores": torch.tensor([score for _, _, score in self.people]),
            "keypoints": keypoints,
            "keypoints_scores": self.joint_scores.expand(n, 17),
            "masks": masks,
        }


ONE = [((0.25, 0.1, 0.75, 0.9), 1, 0.99)]


@pytest.fixture
def album(tmp_path):
    folder = tmp_path / "my photos"
    for i, name in enumerate(("anna_1.jpg", "anna_2.png", "bob_1.jpg", "bob_2.jpg")):
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (20 + 3 * i, 50 - i), (40 * i, 80, 120)).save(folder / name)
    return folder


def both(people=ONE, **options):
    stub = Stub(people, **options)
    return {"keypoints": stub, "masks": stub}


def test_every_joint_keeps_its_name():
    points = to_openpose(coco_points())
    for place, name in enumerate(JOINT_NAMES):
        if name != "neck":
            assert points[place].tolist() == [10 + COCO.index(name), 100 + COCO.index(name), 1], name
    assert points[1].tolist() == [15.5, 105.5, 1]  # half-way between the shoulders, COCO's 5 and 6


@pytest.mark.parametrize("hidden", [(5,), (6,), (5, 6), (0,)])
def test_the_neck_needs_both_shoulders(hidden):
    points = coco_points()
    points[list(hidden), 2] = 0
    before = points.copy()
    out = to_openpose(points)
    assert np.array_equal(points, before)
    missing = {JOINT_NAMES.index(COCO[i]) for i in hidden} | ({1} if {5, 6} & set(hidden) else set())
    for place in range(18):
        assert (out[place].tolist() == [-1, -1, 0]) == (place in missing)


def test_mirroring_before_or_after_is_the_same():
    points, width = coco_points(), 40
    swapped = [COCO.index(n.replace("L-", "R-") if n[0] == "L" else n.replace("R-", "L-")) for n in COCO]
    mirrored = points[swapped]
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    expected = to_openpose(points)[list(FLIPPED)]
    expected[:, 0] = width - 1 - expected[:, 0]
    assert np.array_equal(to_openpose(mirrored), expected)


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"must be \[\.\.\., 17, 3\] in COCO's order, got \[18, 3\]"):
        to_openpose(np.zeros((18, 3)))
    assert to_openpose(np.zeros((4, 17, 3))).shape == (4, 18, 3)


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ([], None),
        ([((0, 0, 1, 1), 18, 0.99)], None),  # a dog
        ([((0, 0, 1, 1), 1, 0.3)], None),  # too unsure
        ([((0.0, 0.4, 0.2, 0.6), 1, 0.99), ((0.2, 0.1, 0.8, 0.9), 1, 0.9)], 1),  # the larger
        ([((0.0, 0.0, 0.4, 0.8), 1, 0.9), ((0.3, 0.1, 0.7, 0.9), 1, 0.9)], 1),  # as large, more central
        ([((0.3, 0.1, 0.7, 0.9), 1, 0.7), ((0.3, 0.1, 0.7, 0.9), 1, 0.9)], 1),  # the surer
        ([((0.1, 0.1, 0.9, 0.9), 18, 0.99), ((0.4, 0.4, 0.6, 0.6), 1, 0.6)], 1),  # a horse fills the picture
    ],
)
def test_whom_a_crop_is_about(people, expected):
    assert main_person(Stub(people).of(128, 64), (128, 64)) == expected


def test_the_weight_of_a_person_by_hand():
    """Score 0.9, a quarter of the image, centre a quarter of the width off: 0.9 * 0.25 * exp(-0.5)."""
    weight = 0.9 * 0.25 * np.exp(-0.5)
    for other, expected in ((weight / 0.25 * 1.01, 1), (weight / 0.25 * 0.99, 0)):  # the other in the centre
        people = [((0.0, 0.25, 0.5, 0.75), 1, 0.9), ((0.25, 0.25, 0.75, 0.75), 1, other)]
        assert main_person(Stub(people).of(64, 32), (64, 32), min_score=0.1) == expected


def test_written_and_read_back_by_the_reader(album, tmp_path):
    make_table(album)
    done = annotate(album, both(), batch_size=3, progress=False)
    assert done == (4, 0, [], [])
    with pytest.warns(UserWarning, match="have no camera"):
        bench = load("folder", album, (50, 20), cache=tmp_path / "cache", progress=False)
    people = bench.query if "anna_1.jpg" in bench.query.names else bench.gallery
    row = people.names.index("anna_1.jpg")  # stored as 50 x 20: nothing is resized
    expected = to_openpose(Stub(ONE).of(50, 20)["keypoints"][0])
    assert np.allclose(people.keypoints[row], np.where(expected == -1, -1, expected), atol=0.51)
    assert people.keypoints[row][:, 2].all()
    mask = people.masks[row]
    assert mask[5:45, 5:15].eq(204).all() and mask[:5].eq(0).all() and mask[:, 15:].eq(0).all()
    assert {p.name for p in (tmp_path / "my photos_seg").iterdir()} == {
        "anna_1.png", "anna_2.png", "bob_1.png", "bob_2.png"
    }  # fmt: skip


def test_folders_and_the_layout_of_market(album, tmp_path):
    for sub in ("train/7", "query"):
        (album / sub).mkdir(parents=True)
    (album / "anna_1.jpg").rename(album / "train/7/a.jpg")
    places = {place.name: place for place in find_images(album)}
    assert places["train/7/a.jpg"].mask == album / "train_seg/7/a.png"
    assert places["bob_1.jpg"].table == album / "annotation.csv"
    market = tmp_path / "Market-1501-v15.09.15"
    for sub in ("bounding_box_train", "query"):
        (market / sub).mkdir(parents=True)
    (album / "bob_1.jpg").rename(market / "bounding_box_train/0002_c1s1_000451_03.jpg")
    (album / "bob_2.jpg").rename(market / "query/0003_c1s1_000451_00.jpg")
    annotate(market, both(), progress=False)
    train = annotations.read_keypoints(market / "market-annotation-train.csv")
    assert list(train) == ["0002_c1s1_000451_03.jpg"] and train["0002_c1s1_000451_03.jpg"][0, 2] == 1
    assert list(annotations.read_keypoints(market / "market-annotation-test.csv")) == ["0003_c1s1_000451_00.jpg"]
    assert annotations.read_mask(market / "query_seg/0003_c1s1_000451_00.png").max() == 204
    assert annotate(market, both(), progress=False) == (0, 2, [], [])  # masks are not taken for photographs


def test_occluded_joints_are_missing_and_points_stay_inside(album):
    scores = [9.0] * 17
    scores[COCO.index("L-wrist")] = 1.99
    scores[COCO.index("R-shoulder")] = -4.0
    people = [((-0.2, -0.2, 1.3, 1.3), 1, 0.9)]
    annotate(album, {"keypoints": Stub(people, scores)}, progress=False)
    points = annotations.read_keypoints(album / "annotation.csv")["anna_1.jpg"]
    missing = [JOINT_NAMES[i] for i in np.flatnonzero(points[:, 2] == 0)]
    assert missing == ["neck", "R-shoulder", "L-wrist"]
    seen = points[points[:, 2] > 0]
    assert (seen[:, :2] >= 0).all() and (seen[:, 0] <= 19).all() and (seen[:, 1] <= 49).all()
    assert not Path(f"{album}_seg").exists()


def test_nobody_found_is_written_down_and_not_asked_again(album):
    done = annotate(album, both([]), progress=False)
    assert done.now == 4 and len(done.nobody) == 4
    rows = annotations.read_keypoints(album / "annotation.csv")
    assert all((row == [-1, -1, 0]).all() for row in rows.values()) and len(rows) == 4
    assert annotations.read_mask(Path(f"{album}_seg") / "bob_1.png").max() == 0
    stub = both()
    assert annotate(album, stub, progress=False).before == 4 and stub["masks"].seen == 0


def test_masks_and_key_points_show_the_same_person(album):
    left, right = ((0.0, 0.1, 0.45, 0.9), 1, 0.9), ((0.55, 0.1, 1.0, 0.9), 1, 0.8)
    detectors = {"keypoints": Stub([left]), "masks": Stub([(right[0], 1, 0.99), left])}
    annotate(album, detectors, progress=False)  # by itself the mask would be the right person's
    mask = annotations.read_mask(Path(f"{album}_seg") / "anna_1.png")
    assert mask[:, :9].max() == 204 and mask[:, 11:].max() == 0
    mask.tofile(album.parent / "first")
    (Path(f"{album}_seg") / "anna_1.png").unlink()
    annotate(album, {"masks": detectors["masks"]}, progress=False)  # later, from the stored key points: the same
    assert np.array_equal(annotations.read_mask(Path(f"{album}_seg") / "anna_1.png"), mask)


def test_resumes_where_it_was_stopped_and_keeps_what_is_there(album):
    annotations.write_keypoints(album / "mine-annotation.csv", ["bob_2.jpg"], np.full((1, 18, 3), 7.0))

    class Stopped(Stub):
        def __call__(self, images):
            if self.seen:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        annotate(album, {"keypoints": Stopped(ONE)}, batch_size=2, progress=False)
    assert set(annotations.read_keypoints(album / "mine-annotation.csv")) == {"anna_1.jpg", "anna_2.png", "bob_2.jpg"}
    stub = Stub(ONE)
    assert annotate(album, {"keypoints": stub}, progress=False)[:2] == (1, 3) and stub.seen == 1
    assert (annotations.read_keypoints(album / "mine-annotation.csv")["bob_2.jpg"][:, :2] == 7).all()
    annotate(album, {"masks": stub}, progress=False)  # the other kind, later: all four
    assert stub.seen == 5
    annotations.write_keypoints(album / "annotation.csv", [], np.zeros((0, 18, 3)))
    with pytest.raises(ValueError, match=r"2 tables, keep one: \['annotation\.csv', 'mine-annotation\.csv'\]"):
        annotate(album, {"masks": stub}, progress=False)


def test_broken_and_turned_photographs(album):
    (album / "bob_1.jpg").write_bytes((album / "bob_1.jpg").read_bytes()[:200])
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (50, 20)).save(album / "bob_2.jpg", exif=exif)
    with pytest.warns(UserWarning, match=r"bob_1\.jpg cannot be opened and is left out"):
        done = annotate(album, both(), progress=False)
    assert done == (3, 0, ["bob_1.jpg"], [])
    assert set(annotations.read_keypoints(album / "annotation.csv")) == {"anna_1.jpg", "anna_2.png", "bob_2.jpg"}
    assert annotations.read_mask(Path(f"{album}_seg") / "bob_2.png").shape == (50, 20)


def test_what_cannot_be_stored_is_refused(album, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        annotate(tmp_path / "none", both())
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no image \(\.jpg, "):
        annotate(tmp_path / "empty", both())
    with pytest.raises(ValueError, match=r"mapping with keypoints or masks, got \['pose'\]"):
        annotate(album, {"pose": Stub(ONE)})
    with pytest.raises(ValueError, match=r"detector of masks must return \{.*'masks': \(1, 1, 50, 20\)\}"):
        annotate(album, {"masks": lambda images: [{"boxes": torch.zeros(1, 4)}] * len(images)}, progress=False)
    with pytest.raises(ValueError, match="returned 0 results for 4 images"):
        annotate(album, {"masks": lambda images: []}, progress=False)
    (album / "anna_1.jpg").rename(album / "bob_2.png")
    with pytest.raises(ValueError, match=r"bob_2\.jpg and .*bob_2\.png would share the mask"):
        annotate(album, both())
    (album / "bob_2.png").rename(album / "12:30.png")
    with pytest.raises(ValueError, match=r"1 names hold a colon .* 12:30\.png"):
        annotate(album, both())


def test_missing_operators_say_what_to_install(album, monkeypatch, capsys):
    monkeypatch.setattr(networks.torchvision_ops, "COMPILED_OPS", False)
    with pytest.raises(
        networks.MissingOperators, match=r"compiled operators \(nms\).*Install torch and torchvision of"
    ):
        networks.load_detectors()
    assert main(["annotate", str(album)]) == 2
    assert "Install torch and torchvision of one build" in capsys.readouterr().err


def test_missing_weights_say_where_they_belong(album, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(networks.torchvision_ops, "COMPILED_OPS", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert main(["annotate", str(album)]) == 2
    said = capsys.readouterr().err
    assert "no weights: give files" in said and "keypointrcnn_resnet50_fpn_coco-" in said and "hub/checkpoints" in said
    with pytest.raises(FileNotFoundError, match=r"no such file of weights: .*mine\.pth"):
        networks.load_detectors([tmp_path / "mine.pth"])
    mine = tmp_path / "mine.pth"
    mine.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"mine\.pth holds no weights of torchvision's keypointrcnn_resnet50_fpn"):
        networks.load_detectors([mine])
    torch.save({"state_dict": {"module.roi_heads.box_predictor.cls_score.bias": torch.tensor([0, torch.nan])}}, mine)
    with pytest.raises(ValueError, match=r"weights that are not finite: roi_heads\.box_predictor\.cls_score\.bias"):
        networks.load_detectors([mine])
    cache = tmp_path / "hub/checkpoints"
    cache.mkdir(parents=True)
    (cache / networks._published()[1]).touch()
    assert networks.find_weights() == [cache / networks._published()[1]]
    assert main(["annotate", str(tmp_path / "nothing")]) == 2 and "is not a folder" in capsys.readouterr().err


def masks_of(album):
    return sorted(Path(f"{album}_seg").iterdir())


def plain_nms(boxes, scores, threshold):
    """Suppress overlapping boxes, as the compiled operator does."""
    from torchvision.ops import box_iou

    order, kept = scores.argsort(descending=True).tolist(), []
    overlap = box_iou(boxes, boxes)
    for i in order:
        if all(overlap[i, j] <= threshold for j in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


@pytest.mark.parametrize("kind", ["keypoints", "masks"])
def test_torchvisions_own_networks_give_this_format(kind, album, tmp_path, monkeypatch):
    """Random weights, stored and loaded as the user's are; only the compiled nms is replaced."""
    monkeypatch.setattr(networks.torchvision_ops, "COMPILED_OPS", True)
    monkeypatch.setattr("torchvision.ops.boxes.nms", plain_nms)
    few = {"rpn_pre_nms_top_n_test": 3, "rpn_post_nms_top_n_test": 4, "box_detections_per_img": 2}
    monkeypatch.setattr(networks, "build", partial(networks.build, **few))
    torch.manual_seed(0)
    n_classes = {"keypoints": 2, "masks": 91}[kind]
    small = networks.build(kind, n_classes=n_classes)
    state = {name: tensor.half() for name, tensor in small.state_dict().items()}  # half the file
    bias = state["roi_heads.box_predictor.cls_score.bias"]
    bias[1] += 12.0  # of everything it sees it is sure that it is a person
    if kind == "keypoints":  # as a trainer on several GPUs names them
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"model": state}, tmp_path / "weights.pth")
    detectors = networks.load_detectors([tmp_path / "weights.pth"], device="cpu", size=64)
    assert list(detectors) == [kind]
    found = detectors[kind]([torch.rand(3, 50, 20)])[0]
    n = len(found["boxes"])
    shapes = {"boxes": (n, 4), "labels": (n,), "scores": (n,)}
    shapes |= (
        {"keypoints": (n, 17, 3), "keypoints_scores": (n, 17)} if kind == "keypoints" else {"masks": (n, 1, 50, 20)}
    )
    assert n > 0 and {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    assert (found["labels"] == 1).any() and found["scores"].max() > 0.9
    assert kind == "masks" or (found["keypoints"][..., 2] == 1).all()
    assert annotate(album, detectors, progress=False)[:2] == (4, 0)
    assert len(annotations.read_keypoints(album / "annotation.csv") if kind == "keypoints" else masks_of(album)) == 4


def test_torchvision_builds_without_weights():
    import torchvision  # noqa: F401
    from torchvision.models.detection import keypointrcnn_resnet50_fpn

    theirs = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    ours = networks.build("keypoints", n_classes=2).state_dict()
    assert {k: v.shape for k, v in theirs.items() if "num_batches" not in k} == {k: v.shape for k, v in ours.items()}
