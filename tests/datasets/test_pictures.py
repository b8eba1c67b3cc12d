import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from reidlib.datasets import annotations, load
from reidlib.datasets.pictures import GROUND, UNREADABLE, open_picture, upright_rgb


def read(path, at_least=None):
    with open_picture(path) as picture:
        return upright_rgb(picture, at_least)


@pytest.mark.parametrize(
    "suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".gif"]
)  # as accepted, and whatever the name says
def test_accepted_formats(tmp_path, suffix):
    picture = Image.new("RGB", (8, 12), (200, 40, 90))
    picture.save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.jpg")
    pixels, size = read(tmp_path / "a.jpg")
    assert size == (8, 12) and np.abs(np.asarray(pixels).astype(int) - (200, 40, 90)).max() <= 3


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PPM", "TGA", "DDS"])
def test_other_formats_are_refused_and_start_nothing(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *a, **b: pytest.fail("an external program was started"))
    monkeypatch.setattr("subprocess.Popen", lambda *a, **b: pytest.fail("an external program was started"))
    Image.new("RGB", (8, 12)).save(tmp_path / "a.bin", format=kind)
    (tmp_path / "a.bin").rename(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg is none of JPEG, PNG, BMP, WEBP, TIFF, GIF, or is damaged"):
        read(tmp_path / "a.jpg")


def test_a_picture_of_too_many_pixels_is_one_of_the_unreadable(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        read(tmp_path / "a.png")
    assert issubclass(Image.DecompressionBombError, UNREADABLE)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    values = np.array([[0, 128, 257, 32_896, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert np.asarray(read(tmp_path / f"a.{suffix}")[0])[0, :, 1].tolist() == [0, 0, 1, 128, 255]


def test_sixteen_bits_with_a_transparent_value(tmp_path):
    Image.fromarray(np.array([[0, 512, 65_535]], np.uint16)).save(tmp_path / "a.png", transparency=512)
    assert np.asarray(read(tmp_path / "a.png")[0])[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(("dtype", "said"), [(np.int32, "whole numbers .0 to 70000"), (np.float32, "floating-point")])
def test_numbers_without_a_white_are_refused(tmp_path, dtype, said):
    Image.fromarray(np.array([[0, 70_000]], dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=f"32-bit {said}.*store 8 or 16 bits"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_lies_on_white(tmp_path, mode):
    """The hidden colour is dark; half transparent lies half way."""
    if mode in ("RGBA", "LA"):
        dark = (20, 20, 20) if mode == "RGBA" else (20,)
        picture = Image.new(mode, (3, 1))
        for x, alpha in enumerate((0, 255, 128)):
            picture.putpixel((x, 0), (*dark, alpha))
        picture.save(tmp_path / "a.png")
    else:
        picture = Image.new("RGB", (3, 1), (20, 20, 20))
        picture.putpixel((0, 0), (21, 20, 20))
        if mode == "P":
            picture = picture.quantize(2)
        picture.save(tmp_path / "a.png", transparency=picture.getpixel((0, 0)))
    pixels = np.asarray(read(tmp_path / "a.png")[0])[0].astype(int)
    assert GROUND == (255, 255, 255) and pixels[0].tolist() == [255] * 3
    assert np.abs(pixels[1] - 20).max() <= 1
    if mode in ("RGBA", "LA"):
        assert np.abs(pixels[2] - 137).max() <= 1


def corner(turn, size=(200, 400)):
    """A picture stored so that, turned as EXIF says, a white square lies at its upper left."""
    upright = Image.new("RGB", size)
    ImageDraw.Draw(upright).rectangle((0, 0, 99, 99), fill="white")
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    return (upright.transpose(back[turn]) if turn in back else upright), exif


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation(tmp_path, turn, suffix):
    picture, exif = corner(turn)
    picture.save(tmp_path / f"a.{suffix}", exif=exif)
    for at_least in (None, (50, 100)):
        pixels, size = read(tmp_path / f"a.{suffix}", at_least)
        assert size == (200, 400)
        small = np.asarray(pixels.resize((20, 40), Image.Resampling.BOX))[..., 0]
        assert small[:9, :9].min() > 220 and small[11:].max() < 35 and small[:, 11:].max() < 35
    if suffix == "jpg":
        assert pixels.size == (50, 100)  # decoded small


def test_damaged_exif_turns_nothing(tmp_path):
    Image.new("RGB", (8, 12), (250, 250, 250)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0")
    assert read(tmp_path / "a.jpg")[1] == (8, 12)


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_orientation_in_markets_layout_with_masks_and_key_points(tree, tmp_path, turn):
    """The annotations are those of the upright picture, which is what an annotator looks at."""
    tree.annotate()
    name = "0002_c1s1_000201_01.jpg"
    picture, exif = corner(turn, (64, 128))
    picture.save(tree.folder / "bounding_box_train" / name, exif=exif, quality=95)
    mask = np.zeros((128, 64), np.uint8)
    mask[:100, :50] = 255
    annotations.write_mask(tree.folder / "bounding_box_train_seg" / name.replace(".jpg", ".png"), mask)
    table = tree.folder / "market-annotation-train.csv"
    lines = [line for line in table.read_text().splitlines() if not line.startswith(name)]
    table.write_text("\n".join([*lines, f"{name}:{json.dumps([120] * 18)}:{json.dumps([60] * 18)}"]) + "\n")
    train = load("market1501", tree.folder, (128, 64), cache=tmp_path / "cache", progress=False).train
    assert (train.masks[0].numpy() == mask).all() and train.keypoints[0, 5].tolist() == [60, 120, 1]
    assert train.images[0, :, 5, 5].min() > 240 and train.images[0, :, 120, 5].max() < 15
