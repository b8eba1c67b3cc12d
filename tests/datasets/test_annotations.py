import json

import numpy as np
import pytest
from PIL import Image

from reidlib.datasets import annotations as a


def test_keypoints_there_and_back(tmp_path):
    points = np.random.default_rng(0).integers(0, 60, (3, 18, 3)).astype(float)
    points[..., 2] = 1
    points[1, 7] = (-1, -1, 0)
    points[2, 0] = (12.6, 3.2, 1)
    a.write_keypoints(tmp_path / "k.csv", ["x.jpg", "y.jpg", "z.jpg"], points)
    lines = (tmp_path / "k.csv").read_text().splitlines()
    assert lines[0] == "name:keypoints_y:keypoints_x" and lines[1].startswith("x.jpg:[") and len(lines) == 4
    back = a.read_keypoints(tmp_path / "k.csv")
    assert back["z.jpg"][0].tolist() == [13, 3, 1] and back["y.jpg"][7].tolist() == [-1, -1, 0]
    assert np.array_equal(back["x.jpg"], points[0])


def test_minus_one_in_either_coordinate_is_missing(tmp_path):
    y, x = [5] * 18, [7] * 18
    y[3], x[9] = -1, -1
    (tmp_path / "k.csv").write_text(f"name:keypoints_y:keypoints_x\nn.jpg: {y}: {x}\n")  # PATN writes spaces
    points = a.read_keypoints(tmp_path / "k.csv")["n.jpg"]
    assert points[3].tolist() == points[9].tolist() == [-1, -1, 0] and points[0].tolist() == [7, 5, 1]


@pytest.mark.parametrize(
    "line",
    [f"n.jpg:{[1] * 17 + [bad]}:{[1] * 18}" for bad in ("null", "NaN", "Infinity", "1e60")]
    + ["n.jpg:[1, 2]:[1, 2]", "n.jpg:[1]", "n.jpg:1:2", "n.jpg:what:[1]", f"n.jpg:{[1] * 18}:{[1] * 17}"],
)
def test_broken_rows_are_named(tmp_path, line):
    (tmp_path / "k.csv").write_text(f"name:keypoints_y:keypoints_x\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        a.read_keypoints(tmp_path / "k.csv")


def test_another_header_is_refused(tmp_path):
    (tmp_path / "k.csv").write_text("name,y,x\n")
    with pytest.raises(ValueError, match="must start with the header"):
        a.read_keypoints(tmp_path / "k.csv")
    with pytest.raises(ValueError, match=r"\[1, 18, 3\] for 1 names, got \(1, 17, 3\)"):
        a.write_keypoints(tmp_path / "k.csv", ["a"], np.zeros((1, 17, 3)))


def test_masks_of_every_kind(tmp_path):
    soft = np.arange(32, dtype=np.uint8).reshape(8, 4) * 8
    a.write_mask(tmp_path / "grey.png", soft)
    assert np.array_equal(a.read_mask(tmp_path / "grey.png"), soft)
    Image.fromarray(np.stack([soft, soft * 0, soft * 0], -1)).save(tmp_path / "rgb.png")
    assert np.array_equal(a.read_mask(tmp_path / "rgb.png"), soft)  # first channel
    Image.fromarray(soft > 100).save(tmp_path / "bits.png")
    assert np.array_equal(a.read_mask(tmp_path / "bits.png"), (soft > 100) * 255)
    palette = Image.fromarray((soft > 100).astype(np.uint8))
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(a.read_mask(tmp_path / "palette.png"), (soft > 100) * 255)
    Image.fromarray(soft.astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="8 bits"):
        a.read_mask(tmp_path / "deep.png")


@pytest.mark.parametrize("value", [1, 2, 19])
def test_masks_of_labels_are_refused(tmp_path, value):
    a.write_mask(tmp_path / "m.png", np.eye(8, dtype=np.uint8) * value)
    with pytest.raises(ValueError, match=f"values from 0 to 255, 255 the person.* got 0 to {value}$"):
        a.read_mask(tmp_path / "m.png")
    a.write_mask(tmp_path / "nobody.png", np.zeros((8, 4), np.uint8))
    assert not a.read_mask(tmp_path / "nobody.png").any()


def test_masks_in_another_channel_are_refused(tmp_path):
    half = np.zeros((8, 4), np.uint8)
    half[:, :2] = 255
    white, black = np.full_like(half, 255), np.zeros_like(half)
    for channels in ([white, half], [white] * 3 + [half], [black] * 3 + [half]):
        Image.fromarray(np.stack(channels, -1)).save(tmp_path / "m.png")
        with pytest.raises(ValueError, match="opaque and grey, 255 the person, got alpha 0 to 255"):
            a.read_mask(tmp_path / "m.png")
    Image.fromarray(half // 255).save(tmp_path / "m.png", transparency=0)
    with pytest.raises(ValueError, match="got alpha 0 to 255"):
        a.read_mask(tmp_path / "m.png")
    Image.fromarray(np.stack([half] * 3 + [white], -1)).save(tmp_path / "m.png")  # opaque
    assert np.array_equal(a.read_mask(tmp_path / "m.png"), half)
    Image.fromarray(np.stack([black, half, black], -1)).save(tmp_path / "m.png")  # green
    with pytest.raises(ValueError, match="in its first channel; got 0 to 0, 0 to 255, 0 to 0"):
        a.read_mask(tmp_path / "m.png")


def test_parsing_of_every_kind(tmp_path):
    labels = (np.arange(32) % 20).reshape(8, 4).astype(np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette(a.lip_palette().tobytes())
    palette.save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.mode == "P" and picture.convert("RGB").getpixel((1, 0)) == (128, 0, 0)
    assert np.array_equal(a.read_parsing(tmp_path / "p.png"), labels)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    assert np.array_equal(a.read_parsing(tmp_path / "grey.png"), labels)
    Image.fromarray(labels + 1).save(tmp_path / "twenty.png")
    with pytest.raises(ValueError, match="from 0 to 19, got 20"):
        a.read_parsing(tmp_path / "twenty.png")
    coloured = np.array(a.LIP_COLOURS, np.uint8)[labels]
    Image.fromarray(coloured).save(tmp_path / "rgb.png")
    assert np.array_equal(a.read_parsing(tmp_path / "rgb.png"), labels)
    assert len(set(a.LIP_COLOURS)) == 20 and (a.LIP_COLOURS[5], a.LIP_COLOURS[13]) == ((255, 85, 0), (0, 0, 255))
    for colour in ((0, 128, 1), (255, 255, 255), (0, 0, 1)):
        coloured[3, 1] = colour
        Image.fromarray(coloured).save(tmp_path / "rgb.png")
        with pytest.raises(ValueError, match=rf"the colour \({', '.join(map(str, colour))}\) is that of no LIP class"):
            a.read_parsing(tmp_path / "rgb.png")
    Image.fromarray(coloured).convert("RGBA").save(tmp_path / "rgba.png")
    with pytest.raises(ValueError, match="mode RGBA"):
        a.read_parsing(tmp_path / "rgba.png")


def test_the_writer_of_masks_checks_what_it_gets(tmp_path):
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), [[1]]):
        with pytest.raises(ValueError, match=r"uint8 array \[H,W\]"):
            a.write_mask(tmp_path / "x.png", wrong)
    assert list(tmp_path.iterdir()) == []


def test_find_beside_takes_every_usual_name(tmp_path):
    for name in ("a.png", "b.jpg.png", "c.jpg", "d.jpg", "d.png", "._a.png", "e.txt"):
        (tmp_path / "album_seg").mkdir(exist_ok=True)
        (tmp_path / "album_seg" / name).touch()
    album = tmp_path / "album"
    found = a.find_beside(album, ["a.jpg", "b.jpg", "c.jpg.jpg", "d.jpg", "e.jpg"], "masks")
    assert [p and p.name for p in found] == ["a.png", "b.jpg.png", "c.jpg", "d.png", None]
    assert a.find_beside(album, ["a.jpg"], "parsing") is None and a.find_beside(album, ["b/a.jpg"], "masks") is None
    inside = tmp_path / "album" / "b_keypoints" / "c"
    inside.mkdir(parents=True)
    (inside / "x.jpg_keypoints.json").touch()
    paths = ["b/c/x.jpg", "b/x.jpg", "x.jpg"]
    assert a.find_beside(album, paths, "openpose") == [inside / "x.jpg_keypoints.json", None, None]


def test_lip_tables():
    assert len(a.LIP_LABELS) == 20 == len(a.LIP_FLIPPED) == len(np.unique(a.lip_palette(), axis=0))
    for label, mirrored in enumerate(a.LIP_FLIPPED):
        swap = {"left": "right", "right": "left"}
        side, _, part = a.LIP_LABELS[label].partition("-")
        assert a.LIP_LABELS[mirrored] == (f"{swap[side]}-{part}" if side in swap else a.LIP_LABELS[label])


def test_truth(tmp_path):
    assert a.read_truth(tmp_path / "truth.csv") is None
    (tmp_path / "truth.csv").write_text("file,yaw\nx,1\n")
    with pytest.raises(ValueError, match=r"column `name`, got \['file', 'yaw'\]"):
        a.read_truth(tmp_path / "truth.csv")


def openpose(*people, key="pose_keypoints_2d"):
    return json.dumps({"version": 1.3, "people": [{key: [float(v) for joint in p for v in joint]} for p in people]})


def test_openpose_coco_and_body_25(tmp_path):
    path = tmp_path / "a_keypoints.json"
    coco = [(j, 2 * j + 1, 0.5) for j in range(18)]
    coco[4] = (0, 0, 0)
    path.write_text(openpose(coco))
    points = a.read_openpose(path, centre=(0, 0))
    assert points.dtype == np.float32 and points[4].tolist() == [-1, -1, 0] and points[17].tolist() == [17, 35, 1]
    # BODY_25: 8 is the middle of the hips, 9 to 14 the legs, 15 to 18 eyes and ears, the rest feet
    body = [(j, 50 + j, 0.9) for j in range(25)]
    path.write_text(openpose(body))
    points = a.read_openpose(path, centre=(0, 0))
    assert points[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    path.write_text(openpose(coco, key="pose_keypoints"))  # as older versions call it
    assert a.read_openpose(path, centre=(0, 0))[1].tolist() == [1, 3, 1]


def test_openpose_takes_the_person_with_most_joints_then_nearest_the_centre(tmp_path):
    path = tmp_path / "a_keypoints.json"

    def person(x, joints):
        return [(x, 64, 1) if j < joints else (0, 0, 0) for j in range(18)]

    for people, taken in (
        ([person(5, 3), person(30, 17), person(60, 16)], 30),
        ([person(5, 10), person(30, 10), person(60, 10)], 30),
        ([person(33, 10), person(30, 10)], 33),
        ([person(31, 10), person(32, 10)], 31),  # as near: the first
        ([person(0, 0), person(60, 1)], 60),
    ):
        path.write_text(openpose(*people))
        points = a.read_openpose(path, centre=(31.5, 63.5))
        assert points[points[:, 2] > 0, 0].tolist() == [taken] * len(points[points[:, 2] > 0])
    for nobody in (openpose(), openpose(person(0, 0))):
        path.write_text(nobody)
        assert a.read_openpose(path, centre=(0, 0)).tolist() == [[-1, -1, 0]] * 18


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"people": [{}]}',
        '{"people": [3]}',
        '{"people": [{"pose_keypoints_2d": [1, 2]}]}',
        '{"a": 1}',
        '{"people": [{"pose_keypoints_2d": [1, null, 1]}]}',
        '{"people": [{"pose_keypoints_2d": [1, 2, NaN]}]}',
    ],
)
def test_openpose_malformed(tmp_path, text):
    path = tmp_path / "a_keypoints.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a_keypoints\.json is not OpenPose's JSON"):
        a.read_openpose(path, centre=(0, 0))


def test_openpose_of_another_model(tmp_path):
    (tmp_path / "a.json").write_text(openpose([(1, 1, 1)] * 15))
    with pytest.raises(ValueError, match=r"18 joints \(COCO\) or 25 \(BODY_25\) expected, got 15"):
        a.read_openpose(tmp_path / "a.json", centre=(0, 0))
