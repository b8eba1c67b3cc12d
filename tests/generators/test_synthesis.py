"""Generated sets: names and labels, the file that resumes, and what is refused."""

import errno
import json
import os
from functools import partial

import psutil
import pytest
import torch
from torch import nn

from reidlib.datasets import PersonImages
from reidlib.datasets.sampling import seeded
from reidlib.files import InUseError, locked
from reidlib.generators.camera_transfer import CameraTransfer
from reidlib.generators.controls import ColourMatching
from reidlib.generators.cyclegan import CycleGAN
from reidlib.generators.synthesis import stream, synthesise, train_generator
from reidlib.networks import device_of


class Shift(nn.Module):
    """Adds the target's key-point visibility, as a share, to the image; counts its images and may break."""

    def __init__(self, breaks_at=None):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.seen, self.breaks_at = 0, breaks_at

    def condition(self, targets, sources=None):
        return targets["keypoints"][..., 2].mean(1)

    def generate(self, images, condition):
        if self.breaks_at is not None and self.seen >= self.breaks_at:
            raise RuntimeError("the power went")
        self.seen += len(images)
        return (images + self.gain * condition[:, None, None, None]).clamp(-1, 1)


class Negative(nn.Module):
    def condition(self, targets, sources=None):
        return None

    def generate(self, images, condition):
        return -images


def people(n=5, seed=0):
    pixels = torch.randint(0, 256, (n, 3, 8, 4), dtype=torch.uint8, generator=seeded(seed))
    names = [f"{pid:04d}_c1_{i}.jpg" for i, pid in enumerate(range(3, 3 + n))]
    return PersonImages(pixels, range(3, 3 + n), [1, 2] * (n // 2) + [1] * (n % 2), sequences=range(n), names=names)


def poses(k=8):
    """Pose j has 2 j visible joints."""
    points = torch.zeros(k, 18, 3)
    for j in range(k):
        points[j, : 2 * j, 2] = 1
    blank = torch.zeros(k, 3, 8, 4, dtype=torch.uint8)
    return PersonImages(blank, [-1] * k, [-1] * k, names=[f"{j + 1}" for j in range(k)], keypoints=points)


def every_pair(n, k):
    return torch.cartesian_prod(torch.arange(n), torch.arange(k))


def test_eight_images_of_every_source():
    """Acceptance check 14: 8 x N images named by source and pose number, labels equal to the sources'."""
    sources = people()
    made = synthesise(Shift(), sources, every_pair(5, 8), targets=poses())
    assert len(made) == 40 and made.names[:2] == ["0003_c1_0_to_1", "0003_c1_0_to_2"]
    assert made.names[-1] == "0007_c1_4_to_8" and len(set(made.names)) == 40
    for name in ("pids", "camids", "sequences"):
        assert torch.equal(getattr(made, name), getattr(sources, name).repeat_interleave(8))
    assert made.is_generated.all() and not made.has("keypoints")
    assert made.info.iloc[9].to_dict() == {"source": "0004_c1_1.jpg", "target": "2"}
    shift = torch.arange(8) * 2 / 18 * 127.5  # pixels that share adds
    want = (sources.images[:, None].float() + shift[:, None, None, None]).clamp(max=255)  # [5,8,3,8,4]
    assert (made.images.reshape(5, 8, 3, 8, 4) - want).abs().max() <= 0.51


def test_without_pairs_every_source_is_changed_once():
    sources = people()
    made = synthesise(Negative(), sources, camids=[6, 6, 5, 5, 5], pids=-2)
    assert torch.equal(made.images, 255 - sources.images)
    assert made.names[0] == "0003_c1_0_generated" and list(made.info.columns) == ["source"]
    assert made.pids.tolist() == [-2] * 5 and made.camids.tolist() == [6, 6, 5, 5, 5]
    assert torch.equal(sources.pids, torch.arange(3, 8))


def test_same_numbers_in_one_batch_or_many():
    arguments = (Shift(), people(), every_pair(5, 8))
    one, many = (synthesise(*arguments, targets=poses(), batch_size=size) for size in (40, 7))
    assert torch.equal(one.images, many.images)
    rows = [rows for rows, _ in stream(*arguments, targets=poses(), batch_size=7, start=30)]
    assert [len(r) for r in rows] == [7, 3] and torch.cat(rows).tolist() == list(range(30, 40))


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    pairs, options = every_pair(5, 8), {"targets": poses(), "folder": tmp_path / "fakes", "batch_size": 6}
    with pytest.raises(RuntimeError, match="the power went"):
        synthesise(Shift(breaks_at=18), people(), pairs, **options)
    state = json.loads((tmp_path / "fakes" / "synthesis.json").read_text())
    assert state["done"] == 18 and not (tmp_path / "fakes" / "images.npy").exists()
    again = Shift()
    made = synthesise(again, people(), pairs, **options)
    assert again.seen == 22
    assert torch.equal(made.images, synthesise(Shift(), people(), pairs, targets=poses()).images)
    assert sorted(p.name for p in (tmp_path / "fakes").iterdir()) == ["images.npy", "synthesis.json"]
    opened, pixels = synthesise(again, people(), pairs, **options), made.images.clone()
    assert again.seen == 22 and torch.equal(opened.images, pixels)
    opened.images.zero_()  # copy-on-write: the file stays as it is
    assert torch.equal(synthesise(again, people(), pairs, **options).images, pixels)


def test_a_folder_of_another_set_is_refused(tmp_path):
    def make(method=None, sources=None, pairs=None, targets=None):
        pairs = every_pair(5, 8) if pairs is None else pairs
        return synthesise(method or Shift(), sources or people(), pairs, targets=targets or poses(), folder=tmp_path)

    make()
    trained = Shift()
    trained.gain.data.fill_(0.5)
    moved = poses()
    moved.keypoints[0, 0, 2] = 1
    for other, what in (
        ({"method": trained}, "method"),
        ({"sources": people(seed=1)}, "sources"),
        ({"targets": moved}, "targets"),
        ({"pairs": every_pair(5, 8).flip(0)}, "pairs"),
        ({"pairs": every_pair(5, 7)}, "shape, pairs"),
    ):
        with pytest.raises(ValueError, match=f"holds another set, of a different {what}:"):
            make(**other)
    (tmp_path / "synthesis.json").unlink()
    with pytest.raises(ValueError, match="what it holds is not known"):
        make()


class Watching(Shift):
    """Notes the process's own memory (mapped files are shared, not own) whenever it generates."""

    def __init__(self):
        super().__init__()
        self.own = []

    def generate(self, images, condition):
        info = psutil.Process().memory_info()
        self.own.append(info.rss - getattr(info, "shared", info.rss))  # only Linux tells
        return super().generate(images, condition)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """16,000 images of 6 kB go into the file; the process itself grows by a small part of that."""
    sources = PersonImages(torch.zeros(100, 3, 64, 32, dtype=torch.uint8), [1] * 100, [1] * 100)
    joints = torch.zeros(8, 18, 3)
    targets = PersonImages(sources.images[:8], [1] * 8, [1] * 8, keypoints=joints)
    method = Watching()
    made = synthesise(method, sources, every_pair(100, 8).repeat(20, 1), targets=targets, folder=tmp_path)
    settled = method.own[25:]  # after the allocator has grown its arenas; 100 batches are left, of 79 MB
    assert len(made) == 16000 and max(settled) - settled[0] < 30e6


def test_what_does_not_fit_is_refused():
    sources, targets, pairs = people(), poses(), every_pair(5, 8)
    for error, arguments, message in (
        (IndexError, {"pairs": pairs + 1, "targets": targets}, r"pairs\[:, 0\] must be in \[0, 5\), rows of sources"),
        (IndexError, {"pairs": pairs, "targets": poses(4)}, r"pairs\[:, 1\] must be in \[0, 4\), rows of targets; got"),
        (ValueError, {"pairs": pairs.float(), "targets": targets}, r"int64 \[M,2\] with M > 0, got torch.float32"),
        (ValueError, {"pairs": pairs}, "pairs were given without targets"),
        (ValueError, {"targets": targets}, "targets were given without pairs"),
        (ValueError, {}, "Shift.condition got no targets, and missed TypeError"),
        (ValueError, {"pairs": pairs[:1], "targets": people()}, "got targets with images.*missed KeyError.'keypoints'"),
        (ValueError, {"pairs": pairs, "targets": targets, "pids": [1, 2]}, "must have one value for each of the 40"),
        (
            ValueError,
            {"pairs": pairs, "targets": targets, "precision": "fp16"},
            "precision must be one of 'auto', 'fp32'",
        ),
        (ValueError, {"pairs": pairs, "targets": targets, "batch_size": 0}, "batch_size must be at least 1, got 0"),
    ):
        with pytest.raises(error, match=message):
            synthesise(Shift(), sources, **arguments)


def larger(n=4):
    pixels = torch.randint(0, 256, (n, 3, 64, 32), dtype=torch.uint8, generator=seeded(0))
    return PersonImages(pixels, range(1, n + 1), [1] * n, masks=pixels[:, 0])


@pytest.mark.parametrize("switch", [dict(mask_threshold=0.5), dict(stochastic_test=True)])
def test_the_same_weights_with_another_setting_or_precision_are_another_set(tmp_path, switch):
    """The folder used to be opened although another `mask_threshold` makes other pictures."""
    sources = larger()
    torch.manual_seed(0)
    method = CameraTransfer(model=2, preset="smoke")
    pairs = torch.tensor([[0, 1], [2, 3]])
    make = partial(synthesise, sources=sources, pairs=pairs, targets=sources, folder=tmp_path)
    first = make(method)
    other = CameraTransfer(model=2, preset="smoke", **switch)
    other.load_state_dict(method.state_dict())
    with pytest.raises(ValueError, match="holds another set, of a different settings:"):
        make(other)
    with pytest.raises(ValueError, match="holds another set, of a different precision:"):
        make(method, precision="bf16")
    again = CameraTransfer(model=2, preset="smoke")
    again.load_state_dict(method.state_dict())
    assert torch.equal(make(again, precision="fp32").images, first.images)


def test_a_full_disk_is_said_in_words_before_anything_is_mapped(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = dict(pairs=every_pair(5, 8), targets=poses(), folder=tmp_path, batch_size=6)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(OSError, match=r"images.part.npy needs .* GB free \(No space left on device\): make room"):
            synthesise(Shift(), people(), **arguments)
    assert list(tmp_path.iterdir()) == []  # nothing that takes room, nothing that a next run would trip over
    with pytest.raises(RuntimeError, match="the power went"):
        synthesise(Shift(breaks_at=18), people(), **arguments)
    with monkeypatch.context() as patched:  # the room went between two sittings
        patched.setattr(os, "posix_fallocate", full, raising=False)
        with pytest.raises(OSError, match="make room"):
            synthesise(Shift(), people(), **arguments)
    again = Shift()
    made = synthesise(again, people(), **arguments)
    assert again.seen == 22 and torch.equal(
        made.images, synthesise(Shift(), people(), every_pair(5, 8), targets=poses()).images
    )


@pytest.mark.parametrize("system_call", [True, False])
def test_the_whole_file_is_on_the_disk_before_it_is_mapped(tmp_path, monkeypatch, system_call):
    if not system_call:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    sources = PersonImages(torch.zeros(100, 3, 64, 32, dtype=torch.uint8), [1] * 100, [1] * 100)
    blocks = []

    class Looking(Negative):
        def generate(self, images, condition):
            blocks.append((tmp_path / ".images.part.npy").stat().st_blocks * 512)
            return -images

    synthesise(Looking(), sources, folder=tmp_path, batch_size=10)
    assert blocks[0] >= 100 * 3 * 64 * 32


def test_two_at_once_in_one_folder_are_refused_in_words(tmp_path, monkeypatch):
    from reidlib.generators import synthesis

    monkeypatch.setattr(synthesis, "locked", lambda path, wait: locked(path))  # without the patience
    with locked(tmp_path / "images.npy"), pytest.raises(InUseError, match=r"images\.npy is in use by process"):
        synthesise(Negative(), people(), folder=tmp_path)
    assert len(synthesise(Negative(), people(), folder=tmp_path)) == 5


def test_a_method_works_where_its_parameters_or_else_its_buffers_lie():
    class Bare(Negative):
        def generate(self, images, condition):
            seen.append(images.device.type)
            return -images

    seen = []
    list(stream(Bare(), people()))
    assert seen == ["cpu"] and device_of(Bare()).type == "cpu"
    matching = ColourMatching(people(), people(seed=1))
    assert device_of(matching.to("meta")).type == "meta"
    assert device_of(Shift().to("meta")).type == "meta"
    with pytest.raises(TypeError, match="device"):
        synthesise(Negative(), people(), device="cpu")


def test_one_function_trains_any_generator_under_its_seed():
    sources = larger(6)
    pairs = torch.tensor([[i, (i + 1) % 6] for i in range(6)])
    options = dict(images_seen=12, batch_size=3, device="cpu", progress=False)
    build = partial(CycleGAN, preset="smoke", width=4, pool_size=2)
    (first, history), (second, _), (other, _) = (
        train_generator(build, sources, pairs, seed=seed, **options) for seed in (0, 0, 1)
    )
    assert history.steps == first.settings["steps"] == 4 and history.images == 12
    assert all(torch.equal(t, second.state_dict()[name]) for name, t in first.state_dict().items())
    assert not torch.equal(first.G_A.layers[1].weight, other.G_A.layers[1].weight)
    with pytest.raises(ValueError, match="images_seen=2 is less than one batch of 3"):
        train_generator(build, sources, pairs, **options | dict(images_seen=2))


def test_an_epoch_may_show_some_of_the_pairs_only():
    class Watcher(Shift):
        def __init__(self, steps):
            super().__init__()
            self.weight, self.seen = nn.Parameter(torch.zeros(())), []

        def optimizers(self):
            return {"W": ([self.weight], torch.optim.SGD([self.weight], 0.1), None)}

        def training_step(self, batch, step, update):
            self.seen += batch["indices"].tolist()
            update("W", self.weight**2)
            return {"W": self.weight.detach()}

    pairs = torch.tensor([[i, (i + 1) % 6] for i in range(6)])
    options = dict(images_seen=6, batch_size=1, device="cpu", progress=False, pairs_per_epoch=1)
    shown = train_generator(Watcher, larger(6), pairs, **options)[0].seen
    assert len(set(shown)) < 6  # six epochs of one pair each, drawn anew
    assert len(set(train_generator(Watcher, larger(6), pairs, **options | dict(pairs_per_epoch=6))[0].seen)) == 6
