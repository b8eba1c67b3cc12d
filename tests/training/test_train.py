"""`training.train`, the skeleton of every experiment, and the device of a training."""

import pytest
import torch
from toy_methods import Regressor

from reidlib import training
from reidlib.datasets import PersonImages
from reidlib.datasets.augment import flip
from reidlib.datasets.sampling import Batches, pair_batches, uniform_batches

QUIET = {"device": "cpu", "precision": "fp32", "progress": False}


def people(n: int = 24) -> PersonImages:
    pixels = torch.randint(0, 256, (n, 3, 4, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return PersonImages(pixels, torch.arange(n) // 4, [1] * n)


class Fresh(Regressor):
    """Draws its weights from torch's generator, as real methods do."""

    def __init__(self, steps: int, n_classes: int) -> None:
        super().__init__()
        self.given = (steps, n_classes)
        self.extra = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

    @classmethod
    def build(cls, steps: int, n_classes: int) -> "Fresh":
        drawn = torch.randn(())
        method = cls(steps, n_classes)
        with torch.no_grad():
            method.extra.copy_(drawn)
        return method


def test_train_is_build_batches_and_fit_under_one_seed():
    torch.manual_seed(77)
    before = torch.get_rng_state()
    labels = torch.arange(24) % 3
    method, history = training.train(
        Fresh.build, people(), uniform_batches(24, 8), images_seen=60, augment=flip, labels=labels, seed=4, **QUIET
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert history.steps == 7 and history.images == 56 and method.given == (7, 3)
    torch.manual_seed(4)
    own = Fresh.build(7, 3)
    batches = Batches(people(), uniform_batches(24, 8), augment=flip, seed=4, labels=labels)
    training.fit(own, batches, 7, seed=4, **QUIET)
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, method.state_dict()[name]), name
    other, _ = training.train(Fresh.build, people(), uniform_batches(24, 8), images_seen=60, seed=5, **QUIET)
    assert other.extra != method.extra


def test_evaluations_are_spread_evenly_and_options_reach_fit(tmp_path):
    options = dict(QUIET, evaluate=lambda method, step: {"step/10": step / 10}, evaluations=3, run_dir=tmp_path)
    _, history = training.train(Fresh.build, people(), uniform_batches(24, 8), images_seen=96, ema=0.9, **options)
    assert history.evaluations["step"].tolist() == [4, 8, 12] and history.checkpoint.exists()


@pytest.mark.parametrize(
    ("evaluations", "steps"), [(4, [3, 6, 9, 10]), (3, [4, 8, 10]), (6, [2, 4, 6, 8, 10]), (1, [10])]
)
def test_there_are_no_more_evaluations_than_were_asked_for(evaluations, steps):
    options = dict(QUIET, evaluate=lambda method, step: {"step": step}, evaluations=evaluations)
    _, history = training.train(Fresh.build, people(), uniform_batches(24, 8), images_seen=80, **options)
    assert history.evaluations["step"].tolist() == steps


def test_pairs_count_as_one_and_less_than_a_batch_is_refused():
    pairs = torch.tensor([[0, 1], [4, 5], [8, 9], [12, 13]])
    _, history = training.train(Fresh.build, people(), pair_batches(pairs, 2), images_seen=5, **QUIET)
    assert history.steps == 2
    with pytest.raises(ValueError, match="images_seen=7 is less than one batch of 8"):
        training.train(Fresh.build, people(), uniform_batches(24, 8), images_seen=7, **QUIET)


class Seen(Exception):
    """Raised by a step that has seen what it was to see."""


class Watching(Fresh):
    def training_step(self, batch, step, update):
        raise Seen({tensor.device.type for tensor in (*self.parameters(), *self.buffers(), *batch.values())})


@pytest.mark.parametrize("device", ["auto", "meta"])
@pytest.mark.parametrize("through", ["fit", "train"])
def test_method_and_batches_move_to_the_device(monkeypatch, device, through):
    """Without a GPU: the meta device stands for it, given by name or as what "auto" means on this machine."""
    monkeypatch.setattr("reidlib.training.fitting.pick_device", lambda name: torch.device("meta"))
    monkeypatch.setattr("torch.autocast", lambda *arguments, **options: torch.no_grad())
    options = {"device": device, "precision": "fp32", "progress": False}
    with pytest.raises(Seen) as caught:
        if through == "train":
            training.train(Watching, people(), uniform_batches(24, 8), images_seen=24, **options)
        else:
            training.fit(Watching(3, 6), Batches(people(), uniform_batches(24, 8)), 3, **options)
    assert caught.value.args[0] == {"meta"}
