"""A folder holds one training: another one is refused by name, and the same one goes on."""

import functools
from dataclasses import dataclass
from types import FunctionType

import pytest
import torch
from toy_methods import Game, Regressor, ToyBatches, interrupt

from reidlib import training
from reidlib.datasets import PersonImages
from reidlib.datasets.augment import compose, erase, flip, pad_crop
from reidlib.datasets.sampling import Batches, pk_batches, uniform_batches
from reidlib.training.fingerprints import describe, images_digest, plain

QUIET = {"device": "cpu", "precision": "fp32", "progress": False}


def people(n: int = 24, *, seed: int = 0, pids=None, names=None) -> PersonImages:
    pixels = torch.randint(0, 256, (n, 3, 4, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return PersonImages(pixels, torch.arange(n) // 4 if pids is None else pids, [1] * n, names=names)


def batches(images: PersonImages | None = None, sampler=None, **options) -> Batches:
    images = people() if images is None else images
    return Batches(images, sampler or uniform_batches(len(images), 8), **options)


def darkened(batch, generator, by: float = 0.5):
    return batch | {"images": (batch["images"] * by).to(torch.uint8)}


def darkening(by: float):
    return lambda batch, generator: darkened(batch, generator, by)


class Darken:
    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, batch, generator):
        return darkened(batch, generator, self.by)

    def method(self, batch, generator):
        return darkened(batch, generator, self.by)


def half(batch, generator):
    return batch | {"images": batch["images"] // 2}


def third(batch, generator):
    return batch | {"images": batch["images"] // 3}


def doubled(batch, generator):
    return batch | {"images": batch["images"] * 2}


strongly = FunctionType(darkened.__code__, globals(), "darkened", (0.9,))  # with another default


third.__qualname__ = doubled.__qualname__ = "half"  # a notebook's cell that was run again with another number in it


OTHERS = {
    "images": lambda: batches(people(seed=1)),
    "one other picture": lambda: batches(one_pixel(people())),
    "names": lambda: batches(people(names=[f"other {i}" for i in range(24)])),
    "labels": lambda: batches(people(pids=torch.arange(24) // 6)),
    "own labels": lambda: batches(labels=torch.arange(24) % 2),
    "number of images": lambda: batches(people(32)),
    "sampler": lambda: batches(sampler=uniform_batches(24, 7)),
    "sampler by identity": lambda: batches(sampler=pk_batches(people().pids, 2, 4)),
    "seed of the batches": lambda: batches(seed=1),
    "augmentation": lambda: batches(augment=flip),
}


def one_pixel(images: PersonImages) -> PersonImages:
    images.images[5, 0, 0, 0] ^= 1
    return images


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_is_refused_and_named(tmp_path, name):
    """On the old code each of these gave the old network back at once, or went on with the new data."""
    training.fit(Regressor(), batches(), 3, tmp_path, **QUIET)
    key = {"one other picture": "images", "names": "images", "own labels": "labels", "sampler by identity": "sampler"}
    with pytest.raises(ValueError, match=rf"(?s)of another training.*\n  {key.get(name, name)}: checkpoint .*, now "):
        training.fit(Regressor(), OTHERS[name](), 3, tmp_path, **QUIET)
    assert training.fit(Regressor(), batches(), 3, tmp_path, **QUIET).resumed_from == 3  # the same data goes on


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (flip, functools.partial(flip, p=0.25)),
        (functools.partial(flip, p=0.25), functools.partial(flip, p=0.75)),
        (compose(flip, pad_crop), compose(flip, pad_crop, erase)),
        (compose(flip, functools.partial(pad_crop, pad=1)), compose(flip, functools.partial(pad_crop, pad=2))),
        (darkening(0.5), darkening(0.25)),
        (Darken(0.5), Darken(0.25)),
        (Darken(0.5).method, Darken(0.25).method),
        (half, third),
        (half, doubled),
        (darkened, strongly),
    ],
)
def test_another_augmentation_is_told_by_its_name_and_its_options(tmp_path, one, other):
    training.fit(Regressor(), batches(augment=one), 3, tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"(?s)training.*\n  augmentation: checkpoint '.*', now '"):
        training.fit(Regressor(), batches(augment=other), 3, tmp_path, **QUIET)
    assert training.fit(Regressor(), batches(augment=one), 3, tmp_path, **QUIET).resumed_from == 3


class Weighted(Regressor):
    def __init__(self, weight: float = 1.0, *, settings=None) -> None:
        super().__init__()
        self.weight, self.settings = weight, settings


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (Regressor, lambda: Regressor(dropout=0.5), r"module net.3: checkpoint 'Dropout\(p=0.3.*now 'Dropout\(p=0.5"),
        (
            lambda: Regressor(schedule=lambda i: 0.5),
            lambda: Regressor(schedule=lambda i: 0.1),
            "schedule E: checkpoint",
        ),
        (Weighted, lambda: Weighted(2.0), r"module itself: checkpoint 'Weighted\(.*weight=1.0.*now .*weight=2.0"),
        (
            lambda: Weighted(settings={"loss": "lsr", "margin": 0.3}),
            lambda: Weighted(settings={"loss": "lsr", "margin": 0.5}),
            "method.settings.margin: checkpoint 0.3, now 0.5",
        ),
    ],
)
def test_another_method_is_refused_and_named(tmp_path, one, other, named):
    training.fit(one(), ToyBatches(), 3, tmp_path, **QUIET)
    with pytest.raises(ValueError, match=rf"(?s)another training.*{named}"):
        training.fit(other(), ToyBatches(), 3, tmp_path, **QUIET)
    assert training.fit(one(), ToyBatches(), 3, tmp_path, **QUIET).resumed_from == 3


def test_other_weights_at_the_start_are_refused(tmp_path):
    training.fit(Regressor(), ToyBatches(), 3, tmp_path, **QUIET)
    other = Regressor()
    with torch.no_grad():
        other.net[1].running_mean[2] += 1e-6  # one number of a buffer
    with pytest.raises(ValueError, match="weights at the start: checkpoint"):
        training.fit(other, ToyBatches(), 3, tmp_path, **QUIET)


def test_batches_of_another_kind_are_known_by_their_first_ones(tmp_path):
    def numbers(offset: int, late: int = 0):
        def batch(step: int) -> dict[str, torch.Tensor]:
            return {"images": torch.full((2, 3, 4, 2), float(step + offset + late * (step >= 2)))}

        return batch

    training.fit(Regressor(), numbers(0), 5, tmp_path, **QUIET)
    for other in (numbers(1), numbers(0, late=1)):
        with pytest.raises(ValueError, match="first batches: checkpoint"):
            training.fit(Regressor(), other, 5, tmp_path, **QUIET)
    assert training.fit(Regressor(), numbers(0), 5, tmp_path, **QUIET).resumed_from == 5


def test_batches_that_draw_from_torchs_generator_go_on(tmp_path):
    def noise(step: int) -> dict[str, torch.Tensor]:
        return {"images": torch.rand(4, 3, 4, 2)}

    straight, resumed = Regressor(), Regressor()
    training.fit(straight, noise, 6, **QUIET)
    with pytest.raises(training.Interrupted):
        training.fit(Regressor(), noise, 6, tmp_path, evaluate=interrupt, evaluate_every=4, **QUIET)
    training.fit(resumed, noise, 6, tmp_path, **QUIET)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_same_call_goes_on_with_the_method_that_was_interrupted(tmp_path):
    """In a notebook the cell is run again with the trained method: its weights are not those of the start."""
    straight, method = Game(), Game()
    training.fit(straight, ToyBatches(), 9, ema=0.5, **QUIET)
    for stop in (3, 6):
        with pytest.raises(training.Interrupted):
            training.fit(method, ToyBatches(), 9, tmp_path, ema=0.5, evaluate=interrupt, evaluate_every=stop, **QUIET)
    history = training.fit(method, ToyBatches(), 9, tmp_path, ema=0.5, **QUIET)
    assert history.resumed_from == 6
    for a, b in zip(straight.state_dict().values(), method.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="weights at the start"):  # in another folder it is what it holds now
        training.fit(Game(), ToyBatches(), 9, tmp_path / "new", **QUIET)
        training.fit(method, ToyBatches(), 9, tmp_path / "new", **QUIET)


def test_a_method_whose_weights_were_changed_begins_where_it_stands(tmp_path):
    method = Regressor()
    training.fit(method, ToyBatches(), 3, tmp_path, **QUIET)
    assert training.fit(method, ToyBatches(), 3, tmp_path, **QUIET).resumed_from == 3  # as the first call left it
    with torch.no_grad():
        method.net[0].bias += 1
    changed = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with pytest.raises(ValueError, match="weights at the start: checkpoint"):
        training.fit(method, ToyBatches(), 3, tmp_path, **QUIET)
    training.fit(method, ToyBatches(), 3, tmp_path, resume=False, **QUIET)
    again = Regressor()
    with pytest.raises(ValueError, match="weights at the start: checkpoint"):  # the folder knows what it began with
        training.fit(again, ToyBatches(), 3, tmp_path, **QUIET)
    again.load_state_dict(changed)
    assert training.fit(again, ToyBatches(), 3, tmp_path, **QUIET).resumed_from == 3


def test_a_long_list_of_differences_is_cut(tmp_path):
    training.fit(Regressor(), ToyBatches(), 3, tmp_path, settings=dict.fromkeys(map(str, range(40)), 1), **QUIET)
    with pytest.raises(ValueError, match=r"(?s)settings.0: checkpoint 1, now 2.*and 28 more\n"):
        training.fit(Regressor(), ToyBatches(), 3, tmp_path, settings=dict.fromkeys(map(str, range(40)), 2), **QUIET)


def test_the_order_in_which_options_are_written_is_no_difference():
    assert (
        describe({"width": 4, "lr": 1e-3}) == describe({"lr": 1e-3, "width": 4}) != describe({"lr": 4, "width": 1e-3})
    )
    one, other = (functools.partial(darkened, **options) for options in ({"by": 1, "a": 2}, {"a": 2, "by": 1}))
    assert describe(one) == describe(other)
    assert describe((1, 2)) != describe((2, 1))  # of a list it counts


def test_descriptions_are_the_same_in_every_process_and_end():
    @dataclass
    class Options:
        p: float = 0.5

    held = [torch.Generator()]
    knot = Darken(0.5)
    knot.by = knot  # holds itself
    for value in (lambda b, g: held, Options(), knot, torch.ones(3), torch.ones(3).numpy(), flip, {"a": (1, None)}):
        text = describe(value)
        assert text == describe(value) and " at 0x" not in text, text
    assert describe(torch.arange(5000).numpy()) != describe(torch.arange(5000).flip(0).numpy())
    assert describe(Darken(0.5)) == "Darken(by=0.5)"
    assert plain({"size": (64, 32), "augment": flip}) == {"augment": describe(flip), "size": [64, 32]}
    assert describe(flip).startswith("flip") and describe(half) != describe(third)


def test_a_set_is_known_by_names_cameras_and_pixels():
    known = images_digest(people())
    assert known == images_digest(people()) == images_digest(people().select(indices=range(24)))
    others = [people(seed=1), one_pixel(people()), people(names=list("abcdefghijklmnopqrstuvwx"))]
    assert known not in [images_digest(other) for other in [*others, people().with_labels(camids=3)]]
