"""What the comparisons with published networks share."""

import pytest
import torch
from torch import Tensor


@pytest.fixture
def double(monkeypatch):
    """Methods bring what networks return to float32 before their losses; here that is float64 too."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
