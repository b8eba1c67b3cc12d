"""Train a generator, and make whole sets with it: in memory, in a file that resumes, or handed on batch by batch."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from reidlib.datasets.person_images import PersonImages
from reidlib.datasets.sampling import Sampler, pair_batches, seeded
from reidlib.files import atomic_path, locked, resolve, take_space
from reidlib.machine import free_memory, progress_bar
from reidlib.networks import denormalise, device_of, normalise
from reidlib.training import History, settle_precision, train
from reidlib.training.fingerprints import digest, images_digest, plain, weights_digest


def train_generator(
    build: Callable[..., nn.Module],
    images: PersonImages,
    pairs: Tensor | Sampler,
    *,
    batch_size: int | None = None,
    pairs_per_epoch: int | None = None,
    **options: Any,
) -> tuple[nn.Module, History]:
    """Build a generator and train it on pairs of images; return it with its history.

    ```
    train_generator(partial(PNGAN, preset="course"), train, pn_gan_pairs(train), images_seen=15_200, batch_size=16)
    train_generator(partial(CycleGAN, cameras=(5, 6)), train, random_targets(train, 5, 6), images_seen=8_000,
                    batch_size=8, augment=flip)
    ```

    Args:
        build: called as `build(steps=...)` under the seed, e.g. a method class, or `partial` of one.
        images: where both images of a pair are.
        pairs: int64 [P,2], rows of `images`: source and target; or a sampler, such as `two_pair_batches` for DG-Net.
        batch_size: pairs in a batch, where no sampler says it.
        pairs_per_epoch: see `pair_batches`; default all.
        options: of `training.train`: images_seen, the length of the training in pairs, always; augment, seed, device,
            ema, run_dir, evaluate, evaluations, settings, progress and so on.

    Raises:
        ValueError: less than one batch to see.
    """
    sampler = pairs if isinstance(pairs, Sampler) else pair_batches(pairs, batch_size, pairs_per_epoch=pairs_per_epoch)
    return train(lambda steps, _: build(steps=steps), images, sampler, **options)


@torch.no_grad()
def stream(
    method: nn.Module,
    sources: PersonImages,
    pairs: Tensor | None = None,
    *,
    targets: PersonImages | None = None,
    batch_size: int = 128,
    precision: str = "fp32",
    seed: int = 0,
    start: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Generate batch by batch and keep nothing: $\hat{x}_m = G(x_{i_m}, c(y_{j_m}))$ for the pairs $(i_m, j_m)$.

    What generates, embeds and keeps only features needs no more memory for a million images than for a hundred.

    Args:
        method: anything with `condition(targets, sources)` and `generate(images, condition)`. It works where its
            parameters lie (without any: its buffers; without those: the CPU).
        sources: the images to be changed.
        pairs: int64 [M,2], rows of `sources` and of `targets`; None: every source once, without targets.
            `torch.cartesian_prod(torch.arange(N), torch.arange(8))` pairs each of N sources with each of 8 targets.
        targets: whose pose, mask or camera is wanted.
        batch_size: images at a time.
        precision: "fp32", "bf16" (autocast: quicker, and pixels differ by about one level of 255 on average) or "auto",
            bf16 where the hardware computes in it.
        seed: of a method that draws noise (CamStyle's dropout, `stochastic_test`, DCGAN). With the batch's first row it
            seeds torch before each batch, so that a repeated or resumed run of the same batch size makes the same
            images. The caller's random state is put back.
        start: first pair that is made.

    Yields:
        (m, images): rows of `pairs`, int64 [B], and uint8 [B,3,H,W] on the method's device.

    Raises:
        ValueError: pairs of a wrong shape or without targets, sets of different image size, no targets (or targets
            without an annotation) where the method's condition needs them, images that come back in another size.
        IndexError: a pair that points outside its set.

    >>> class Negative(nn.Module):
    ...     def condition(self, targets, sources=None): return None
    ...     def generate(self, images, condition): return -images
    >>> people = PersonImages(torch.full((3, 3, 8, 4), 55, dtype=torch.uint8), [1, 1, 2], [1, 2, 1])
    >>> [(rows.tolist(), int(images.max())) for rows, images in stream(Negative(), people, batch_size=2)]
    [([0, 1], 200), ([2], 200)]
    """
    pairs = check_pairs(sources, pairs, targets)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    device, half = device_of(method), settle_precision(precision, device_of(method)) == "bf16"
    for first in range(start, len(pairs), batch_size):
        rows = torch.arange(first, min(first + batch_size, len(pairs)))
        batch = sources.batch(pairs[rows, 0], device)
        wanted = None if targets is None else targets.batch(pairs[rows, 1], device)
        with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
            torch.manual_seed(seeded(seed, first).initial_seed())
            condition = _condition(method, wanted, batch)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                images = method.generate(normalise(batch["images"], "signed"), condition)
        if images.shape != batch["images"].shape:
            got, want = list(images.shape), list(batch["images"].shape)
            raise ValueError(f"{type(method).__name__}.generate gave images {got} for {want}")
        yield rows, denormalise(images, "signed")


def synthesise(
    method: nn.Module,
    sources: PersonImages,
    pairs: Tensor | None = None,
    *,
    targets: PersonImages | None = None,
    pids: int | Tensor | Sequence[int] | None = None,
    camids: int | Tensor | Sequence[int] | None = None,
    folder: str | os.PathLike | None = None,
    batch_size: int = 128,
    precision: str = "fp32",
    seed: int = 0,
    progress: bool = False,
) -> PersonImages:
    """Generate a whole set: image m is made from `sources[pairs[m, 0]]` to look as `targets[pairs[m, 1]]` is posed.

    It carries its source's pid and sequence, is marked as generated, has no key points or masks of its own, is called
    "<source>_to_<target>" ("<source>_generated" without targets), and `info` keeps both names.

    Args:
        method, sources, pairs, targets, batch_size, precision, seed: see `stream`.
        pids: instead of the sources': one for all or M of them; -2 is "without a label" (LSRO).
        camids: instead of the sources': one for all or M of them, where the method changes the camera.
        folder: keep the pixels in `folder`/images.npy, mapped into memory, and not in memory. A run that was killed
            goes on where it stopped, a finished one is only opened. A relative path counts from the repository root.
            What it was made of (the images, the pairs, the method's weights and settings, precision and seed) stands
            beside it, and a folder of another set is refused. One process at a time works on it.
        progress: show a progress bar.

    Raises:
        ValueError, IndexError: see `stream`; a folder that holds another set.
        MemoryError, OSError: the pixels would not fit, with the two sizes.
        InUseError: another process fills the folder.

    >>> class Same(nn.Module):
    ...     def condition(self, targets, sources=None): return None
    ...     def generate(self, images, condition): return images
    >>> people = PersonImages(torch.zeros(2, 3, 8, 4, dtype=torch.uint8), [4, 5], [1, 1], names=["a.jpg", "b.jpg"])
    >>> fakes = synthesise(Same(), people, torch.tensor([[1, 0], [0, 0]]), targets=people, camids=6)
    >>> fakes.names, fakes.pids.tolist(), fakes.camids.tolist(), fakes.is_generated.tolist()
    (['b_to_a', 'a_to_a'], [5, 4], [6, 6], [True, True])
    """
    known = check_pairs(sources, pairs, targets)
    shape = (len(known), 3, *sources.image_size)
    given = {name: labels for name, labels in (("pids", pids), ("camids", camids)) if labels is not None}
    made_from = sources.select(indices=known[:, 0]).with_labels(**given)  # a wrong label is said before the work
    place = None if folder is None else resolve(folder) / "images.npy"
    with nullcontext() if place is None else locked(place, wait=5):
        if place is None:
            store = _Memory(shape)
        else:
            facts = {
                "sources": images_digest(sources),
                "targets": "none" if targets is None else images_digest(targets),
                "pairs": digest(known),
                "method": f"{type(method).__name__} {weights_digest(method)}",
                "settings": plain(getattr(method, "settings", None)),
                "precision": settle_precision(precision, device_of(method)),
                "seed": seed,
            }
            store = _File(place, shape, facts)
        options = dict(batch_size=batch_size, precision=precision, seed=seed, start=store.done)
        made = stream(method, sources, pairs, targets=targets, **options)
        for rows, images in watched(made, len(known), "generating", progress, start=store.done):
            store.write(int(rows[0]), images.cpu().numpy())
        pixels = store.finish()
    info = {"source": made_from.names}
    if targets is not None:
        info["target"] = [targets.names[j] for j in known[:, 1].tolist()]
    stems = [[os.path.splitext(name)[0] for name in names] for names in info.values()]  # noqa: PTH122 - names, no files
    endings = ["generated"] * len(known) if targets is None else [f"to_{stem}" for stem in stems[1]]
    return PersonImages(
        pixels,
        made_from.pids,
        made_from.camids,
        sequences=made_from.sequences,
        names=[f"{stem}_{ending}" for stem, ending in zip(stems[0], endings, strict=True)],
        is_generated=torch.ones(len(known), dtype=torch.bool),
        info=pd.DataFrame(info),
    )


def check_pairs(sources: PersonImages, pairs: Tensor | None, targets: PersonImages | None) -> Tensor:
    """Return the pairs [M,2] (or the sources' rows [N,1] where there are none), or say what is wrong with them."""
    if len(sources) == 0:
        raise ValueError("there are no source images")
    if pairs is None:
        if targets is not None:
            raise ValueError("targets were given without pairs [M,2], so nothing says which target each source takes")
        return torch.arange(len(sources))[:, None]
    pairs = torch.as_tensor(pairs).cpu()
    if pairs.dim() != 2 or pairs.shape[1] != 2 or len(pairs) == 0 or pairs.dtype != torch.int64:
        raise ValueError(f"pairs must be int64 [M,2] with M > 0, got {pairs.dtype} {list(pairs.shape)}")
    if targets is None:
        raise ValueError("pairs were given without targets; without pairs every source is changed once")
    if targets.image_size != sources.image_size:
        raise ValueError(f"sources are {sources.image_size} (height, width) and targets {targets.image_size}")
    for column, (name, images) in enumerate((("sources", sources), ("targets", targets))):
        low, high = int(pairs[:, column].min()), int(pairs[:, column].max())
        if low < 0 or high >= len(images):
            raise IndexError(f"pairs[:, {column}] must be in [0, {len(images)}), rows of {name}; got {low} to {high}")
    return pairs


def watched(
    batches: Iterable[tuple[Tensor, Tensor]], total: int, title: str, progress: bool, *, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Hand on what `stream` yields, under a progress bar if `progress`."""
    with progress_bar(total, title, "image", progress, done=start) as advance:
        for rows, images in batches:
            yield rows, images
            advance(len(rows))


def _condition(method: nn.Module, targets: dict[str, Tensor] | None, sources: dict[str, Tensor]) -> Any:
    try:
        return method.condition(targets, sources)
    except (KeyError, TypeError, AttributeError) as error:
        got = "no targets" if targets is None else f"targets with {', '.join(targets)}"
        raise ValueError(f"{type(method).__name__}.condition got {got}, and missed {error!r}") from error


class _Memory:
    """The pixels in memory."""

    done = 0  # rows that were there before

    def __init__(self, shape: tuple[int, ...]) -> None:
        needed, free = int(np.prod(shape)), free_memory(torch.device("cpu"))
        if free is not None and needed > free:
            sizes = f"{needed / 1e9:.2f} GB of {free / 1e9:.2f} GB free"
            raise MemoryError(f"{shape[0]} images need {sizes}; give folder= to keep them in")
        self.array = np.empty(shape, np.uint8)

    def write(self, start: int, images: np.ndarray) -> None:
        """Put images at their rows."""
        self.array[start : start + len(images)] = images

    def finish(self) -> Tensor:
        """Return the finished set."""
        return torch.from_numpy(self.array)


class _File(_Memory):
    """The pixels in `folder`: images.npy when they are whole, until then .images.part.npy with `done` rows."""

    def __init__(self, whole: Path, shape: tuple[int, ...], facts: dict[str, Any]) -> None:
        folder = whole.parent
        self.whole, self.part, self.state = whole, folder / ".images.part.npy", folder / "synthesis.json"
        self.facts = {"shape": list(shape), **facts}
        found = json.loads(self.state.read_text(encoding="utf-8")) if self.state.is_file() else None
        if found is None and whole.exists():
            raise ValueError(f"{whole} is there without {self.state.name}, so what it holds is not known")
        if other := [name for name, value in self.facts.items() if found is not None and found.get(name) != value]:
            raise ValueError(
                f"{folder} holds another set, of a different {', '.join(other)}: take another folder, or delete it"
            )
        if found is not None and (whole.exists() or self.part.exists()):
            self.done = found["done"]
        if whole.exists():
            return
        if not self.done:
            np.lib.format.open_memmap(self.part, mode="w+", dtype=np.uint8, shape=shape)
        try:
            take_space(self.part)
        except OSError:
            if not self.done:
                self.part.unlink()
            raise
        self.array = np.lib.format.open_memmap(self.part, mode="r+")
        self._save_state()

    def write(self, start: int, images: np.ndarray) -> None:
        """Put images at their rows, and only then say that they are there."""
        super().write(start, images)
        self.array.flush()
        self.done = start + len(images)
        self._save_state()

    def finish(self) -> Tensor:
        """Rename the file of the finished set and map it: copy-on-write, so no write reaches it."""
        self.array = None
        if not self.whole.exists():
            self.part.replace(self.whole)
        return torch.from_numpy(np.load(self.whole, mmap_mode="c"))

    def _save_state(self) -> None:
        with atomic_path(self.state) as path:
            path.write_text(json.dumps(self.facts | {"done": self.done}, indent=1) + "\n", encoding="utf-8")
