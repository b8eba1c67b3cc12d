"""The studio that stands in for DeepFashion."""

import pytest
import torch

from reidlib.datasets.procedural import render, studio
from reidlib.datasets.procedural.outfits import WALL


def test_an_outfit_is_seen_from_all_sides_before_a_grey_wall():
    people = studio([3, 9], views=4)
    assert people.pids.tolist() == [301] * 4 + [901] * 4 and people.camids.unique().tolist() == [1]
    assert people.image_size == (64, 64) and not people.is_generated.any()
    batch = people.batch(range(8))
    wall = batch["images"].float()[:, :, :8, :8]  # a corner, where nobody stands
    assert (wall - 255 * torch.tensor(WALL)[:, None, None]).abs().max() < 1.5
    yaws = torch.deg2rad(torch.tensor(people.info["yaw"].to_numpy(dtype=float)))
    wanted = torch.deg2rad(torch.tensor([0.0, 90, 180, 270] * 2))
    assert torch.cos(yaws - wanted).min() > 0.7  # within 45 degrees of its side
    seen = batch["keypoints"][:, :, 2] > 0
    assert seen[0, 0] and not seen[2, 0]  # the nose from the front, not from the back
    feet, heads = batch["masks"][:, 50:].amax((1, 2)), batch["masks"][:, :16].amax((1, 2))
    assert (feet > 127).all() and (heads > 127).all()  # the whole body
    assert set(batch["parsing"].unique().tolist()) > {0, 2, 13}


def test_outfits_are_people_of_the_renderer_and_the_seed_changes_them():
    first, other = (studio([5], views=2, image_size=(32, 32), seed=seed) for seed in (0, 1))
    assert not torch.equal(first.batch([0])["images"], other.batch([0])["images"])
    again = studio([5], views=2, image_size=(32, 32))
    assert torch.equal(first.batch([0, 1])["images"], again.batch([0, 1])["images"])
    plain = render([5], 1, yaws=first.info["yaw"][:1].tolist(), scene="generation", image_size=(32, 32))
    assert plain.info["upper_colour"][0] == first.info["upper_colour"][0]


def test_a_garment_has_the_same_cut_in_other_colours():
    people = studio([5, 6], views=2, outfits=3, image_size=(64, 64))
    assert people.pids.tolist() == [501, 501, 502, 502, 503, 503, 601, 601, 602, 602, 603, 603]
    info = people.info
    assert info["garment"].tolist() == [5] * 6 + [6] * 6 and info["pid"].tolist() == people.pids.tolist()
    same = ["figure", "height", "hair", "upper", "pattern", "lower", "bag", "skin_colour", "hair_colour"]
    assert (info.groupby("garment")[same].nunique() == 1).all(axis=None)
    assert (info.groupby("pid")[["upper_colour", "lower_colour"]].nunique() == 1).all(axis=None)
    assert (info.groupby("garment")["upper_colour"].nunique() == 3).all()
    alone = studio([5], views=2, image_size=(64, 64))  # the first outfit is the person's own
    assert alone.info["upper_colour"][0] == info["upper_colour"][0] != info["upper_colour"][2]
    parsing = people.batch(range(6))["parsing"].float()
    upper = (parsing >= 5) & (parsing <= 7)  # of the six pictures of garment 5
    colours = [people.batch([i])["images"][0].float()[:, upper[i]].mean(1) for i in (0, 2, 4)]
    assert min((a - b).abs().max() for a, b in ((colours[0], colours[1]), (colours[0], colours[2]))) > 5


def test_nobody_is_refused():
    for garments, views, outfits in (([], 2, 1), ([1], 0, 1), ([1], 1, 0), ([1], 1, 100)):
        with pytest.raises(ValueError, match="one garment and one view at least and 1 to 99 outfits"):
            studio(garments, views, outfits=outfits)
