"""Pixels and histograms by hand; colour spaces against other libraries."""

import colorsys

import pytest
import torch

from reidlib.embedders import colour_histogram, pixel_features
from reidlib.embedders.features import rgb_to_hsv
from reidlib.networks import rgb_to_lab


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 16, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_pixels(images):
    flat = torch.full((1, 3, 64, 32), 51, dtype=torch.uint8)
    torch.testing.assert_close(pixel_features(flat), torch.full((1, 384), 0.2))
    torch.testing.assert_close(pixel_features(images, size=(16, 8)), images.flatten(1) / 255)
    assert pixel_features(images, size=(4, 2)).shape == (4, 24)


def test_colour_spaces(images):
    rgb = torch.cat([images, images[:1, :1].expand(1, 3, 16, 8)]) / 255  # grey too
    flat = rgb.permute(0, 2, 3, 1).reshape(-1, 3)
    hsv = rgb_to_hsv(rgb).permute(0, 2, 3, 1).reshape(-1, 3)
    want = torch.tensor([colorsys.rgb_to_hsv(*pixel) for pixel in flat.tolist()])
    torch.testing.assert_close(hsv, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("rgb", "lab"),  # the primaries' published values, D65
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
        ((2, 2, 2), (0.55, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    got = rgb_to_lab(torch.tensor(rgb)[None, :, None, None] / 255).flatten()
    assert got.tolist() == pytest.approx(lab, abs=0.02)
    bins = (20, 32, 64)  # the colour's own bin of L in [0, 100], a and b in [-128, 128] holds the whole histogram
    histogram = colour_histogram(torch.tensor(rgb, dtype=torch.uint8)[None, :, None, None], space="lab", bins=bins)
    wanted = [int(got[0] / 5), int((got[1] + 128) / 8), int((got[2] + 128) / 4)]
    assert histogram[0].view(bins)[tuple(wanted)] == 1


@pytest.mark.parametrize("space", ["hsv", "lab"])
def test_histogram_equals_a_loop(images, space):
    bins, stripes = (3, 2, 4), 3
    masks = torch.randint(0, 256, (4, 16, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    got = colour_histogram(images, space=space, bins=bins, stripes=stripes, masks=masks)
    if space == "hsv":
        channels = rgb_to_hsv(images / 255)
    else:
        channels = (rgb_to_lab(images / 255) + torch.tensor([0, 128, 128])[:, None, None]) / 256
        channels[:, 0] *= 2.56
    want = torch.zeros(4, stripes, *bins)
    for n in range(4):
        for y in range(16):
            for x in range(8):
                a, b, c = (min(int(channels[n, i, y, x] * bins[i]), bins[i] - 1) for i in range(3))
                want[n, y * stripes // 16, a, b, c] += masks[n, y, x] / 255
    want = (want / want.sum((2, 3, 4), keepdim=True)).sqrt().flatten(1)
    torch.testing.assert_close(got, want)


def test_histogram_by_hand():
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[0, :, 0, 0] = 255  # one white pixel of four
    histogram = colour_histogram(image, bins=(1, 1, 2))
    torch.testing.assert_close(histogram, torch.tensor([[0.75**0.5, 0.25**0.5]]))
    stripes = colour_histogram(image, bins=(1, 1, 2), stripes=2)
    torch.testing.assert_close(stripes, torch.tensor([[0.5**0.5, 0.5**0.5, 1.0, 0.0]]))
    mask = torch.zeros(1, 2, 2, dtype=torch.uint8)
    mask[0, 0, 0] = 9
    assert colour_histogram(image, bins=(1, 1, 2), stripes=2, masks=mask).tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_centre_and_grey_world(images):
    side = torch.zeros(1, 3, 4, 8, dtype=torch.uint8)
    side[..., 0] = 255  # a bright left edge
    plain = colour_histogram(side, bins=(1, 1, 2))[0, 1] ** 2
    centred = colour_histogram(side, bins=(1, 1, 2), centre=True)[0, 1] ** 2
    assert plain == pytest.approx(1 / 8) and centred < plain / 2
    tinted = torch.full((1, 3, 4, 8), 100, dtype=torch.uint8)
    tinted[..., 4:] = 50
    tinted[:, 0] //= 2  # greys in bluish light: saturation 1/2
    assert colour_histogram(tinted, bins=(1, 4, 1)).tolist() == [[0, 0, 1, 0]]
    assert colour_histogram(tinted, bins=(1, 4, 1), grey_world=True).tolist() == [[1, 0, 0, 0]]


def test_a_caller_keeps_the_images(images):
    before = images.clone()
    colour_histogram(images, grey_world=True, centre=True), pixel_features(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(space="rgb"), "'hsv', 'lab'"), (dict(stripes=17), "16 rows"), (dict(masks=torch.zeros(4, 8, 8)), "masks")],
)
def test_bad_input_is_named(images, options, message):
    with pytest.raises(ValueError, match=message):
        colour_histogram(images, **options)
    with pytest.raises(ValueError, match="uint8"):
        pixel_features(images / 255)
