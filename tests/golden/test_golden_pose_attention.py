"""The discriminators of pose attention, as the method builds them, against the published relative's.

The rule, the inputs and the tolerance are those of `README.md` in this folder.
"""

import pytest
from test_golden import check
from torch import nn

from reidlib.generators.pose_attention import PoseAttention


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name, channels", [("D_I", 6), ("D_P", 21)])
def test_discriminators(name, channels, mode):
    network = getattr(PoseAttention(preset="paper", width=4, score="features"), name)
    title = f"discriminator batch norm, {channels} channels, {mode}"
    check(nn.Sequential(network, nn.Sigmoid()), "patn", title, eval_mode=mode == "eval")
