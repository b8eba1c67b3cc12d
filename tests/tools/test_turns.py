"""What a turn of the body costs, on distances worked out by hand."""

import pandas as pd
import pytest
import torch

from reidlib.datasets import PersonImages
from reidlib.tools.difficulty import pose_separation


def test_pairs_are_sorted_by_turn_and_compared_with_people_in_one_pose():
    #            person 1: three cameras, turned by 10 and 170 degrees; person 2: as the first; and a distractor
    pids, camids = [1, 1, 1, 2, 2, -1], [1, 2, 3, 2, 3, 2]
    yaw = [175.0, -175.0, 5.0, 175.0, 100.0, 175.0]
    places = torch.tensor([0.0, 2.0, 9.0, 5.0, 6.0, 0.1])[:, None]
    images = torch.zeros(6, 3, 8, 4, dtype=torch.uint8)
    people = PersonImages(images, pids, camids, info=pd.DataFrame({"yaw": yaw}))
    table, mean, near = pose_separation(places, people)
    # in one pose, other people, other camera: image 0 (camera 1) and image 3 (camera 2); images 1 and 3 share a camera
    assert (mean, near) == (5.0, 5.0)
    assert list(table.index) == ["0-30", "30-60", "60-90", "90-120", "120-150", "150-180"]
    assert table.pairs.tolist() == [1, 0, 1, 0, 0, 2]
    assert table.distance["0-30"] == 2.0 and table.confused["0-30"] == 0.0  # images 0 and 1, over 180 degrees
    assert table.distance["60-90"] == 1.0  # images 3 and 4
    assert table.distance["150-180"] == pytest.approx((9 + 7) / 2) and table.confused["150-180"] == 1.0
