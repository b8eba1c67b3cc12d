"""Colour matching and pasting: parity with skimage's Lab, statistics that arrive, pixels by hand."""

import numpy as np
import pytest
import torch
from skimage import color

from reidlib.datasets.backgrounds import fill_person, mean_background, replace_background
from reidlib.datasets.person_images import PersonImages
from reidlib.generators.controls import ColourMatching, Paste, lab_statistics
from reidlib.generators.synthesis import synthesise
from reidlib.networks import lab_to_rgb, normalise, rgb_to_lab


def people(n=6, seed=0, low=0, high=256, masks=True):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(low, high, (n, 3, 8, 4), generator=generator, dtype=torch.uint8)
    planes = torch.randint(0, 256, (n, 8, 4), generator=generator, dtype=torch.uint8) if masks else None
    return PersonImages(images, torch.arange(n) + 1, [1] * n, masks=planes)


def every_colour():
    """17 levels a channel, [1,3,17,289]."""
    levels = torch.linspace(0, 1, 17)
    return torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 17, 289)


def test_lab_is_skimages():
    rgb = every_colour()
    want = color.rgb2lab(rgb[0].permute(1, 2, 0).double().numpy())
    np.testing.assert_allclose(rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy(), want, atol=5e-3)
    exact = rgb_to_lab(rgb.double())[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(exact, want, atol=5e-4)  # skimage rounds two constants


def test_lab_and_back():
    rgb = every_colour()
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, rtol=0, atol=1e-4)
    lab = torch.tensor([70.0, 20.0, -15.0])[None, :, None, None]
    want = color.lab2rgb(np.array([[[70.0, 20.0, -15.0]]]))
    np.testing.assert_allclose(lab_to_rgb(lab)[0, :, 0, 0].numpy(), want[0, 0], atol=1e-5)
    assert lab_to_rgb(torch.tensor([50.0, 120.0, 120.0])[None, :, None, None]).flatten().tolist()[2] == 0  # cut


def test_statistics_over_all_pixels():
    images = people(5)
    lab = rgb_to_lab(images.images.double() / 255).permute(1, 0, 2, 3).reshape(3, -1)
    mean, deviation = lab_statistics(images, batch_size=2)
    torch.testing.assert_close(mean, lab.mean(1).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(deviation, lab.std(1, correction=0).float(), rtol=1e-4, atol=1e-4)


def test_colours_of_the_other_camera_arrive():
    """Both cameras in the middle of the gamut, where nothing is cut."""
    dark, light = people(40, seed=1, low=90, high=120), people(40, seed=2, low=140, high=160)
    method = ColourMatching(dark, light)
    moved = synthesise(method, dark, camids=6)
    (mean, deviation), (want_mean, want_deviation) = lab_statistics(moved), lab_statistics(light)
    torch.testing.assert_close(mean, want_mean, rtol=0, atol=0.1)
    torch.testing.assert_close(deviation, want_deviation, rtol=0, atol=0.1)
    # one pixel by hand, through skimage
    (mean_a, dev_a), (mean_b, dev_b) = lab_statistics(dark), lab_statistics(light)
    lab = color.rgb2lab(dark.images[3, :, 5, 2].numpy()[None, None] / 255.0)[0, 0]
    want = color.lab2rgb(((lab - mean_a.numpy()) * (dev_b / dev_a).numpy() + mean_b.numpy())[None, None])[0, 0]
    np.testing.assert_allclose(moved.images[3, :, 5, 2].numpy() / 255, want, atol=0.6 / 255)


def test_same_camera_changes_nothing():
    images = people(20)
    signed = normalise(images.images, "signed")
    torch.testing.assert_close(ColourMatching(images, images).generate(signed), signed, rtol=0, atol=1e-3)


def test_paste_by_hand():
    """Two targets: their own persons are covered by the mean background, the source's person stands before that."""
    targets = PersonImages(
        torch.tensor([[[[40, 80]]] * 3, [[[60, 200]]] * 3], dtype=torch.uint8).reshape(2, 3, 1, 2),
        [1, 2],
        [6, 6],
        masks=torch.tensor([[[0, 255]], [[0, 0]]], dtype=torch.uint8),
    )
    source = PersonImages(
        torch.full((1, 3, 1, 2), 10, dtype=torch.uint8), [9], [5], masks=torch.tensor([[[255, 0]]], dtype=torch.uint8)
    )
    method = Paste(targets)
    assert method.mean[0].tolist() == [[50.0, 200.0]]
    pasted = synthesise(method, source, torch.tensor([[0, 0], [0, 1]]), targets=targets, camids=6)
    assert pasted.images[:, 0, 0].tolist() == [[10, 200], [10, 200]]
    assert pasted.pids.tolist() == [9, 9] and pasted.camids.tolist() == [6, 6]


def test_paste_is_the_background_formula():
    sources, targets = people(6, seed=3), people(6, seed=4)
    pairs = torch.stack([torch.arange(6), torch.arange(6).flip(0)], 1)
    pasted = synthesise(Paste(targets), sources, pairs, targets=targets).images
    scenes = fill_person(targets.images, targets.masks, mean_background(targets)).flip(0)
    want = replace_background(sources.images, sources.masks, scenes)
    assert (pasted.int() - want.int()).abs().max() <= 1  # one rounding more or less


def test_bad_input():
    images, bare = people(2), people(2, masks=False)
    with pytest.raises(ValueError, match="needs images with masks"):
        Paste(bare)
    with pytest.raises(ValueError, match="need images"):
        ColourMatching(images.select(indices=[]), images)
    method = Paste(images)
    for sources, targets, message in (
        (None, images.batch([0]), "sources with masks, got nothing"),
        (images.batch([0]), None, "targets with masks, got nothing"),
        (bare.batch([0]), images.batch([0]), "sources with masks, got camids"),
    ):
        with pytest.raises(ValueError, match=message):
            method.condition(targets, sources)
    with pytest.raises(ValueError, match="needs targets with masks"):
        synthesise(method, images)
