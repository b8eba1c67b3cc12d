"""Batches for training: which images, in which order, augmented how; all a pure function of the step and the seed.

`Batches` is called with the step's number and gives that step's batch. Nothing depends on what was asked before, so a
run that resumes at step 700 sees what it would have seen, and each of several processes can take its own share.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.datasets.person_images import PersonImages

Augment = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]
# what stands before the names of a batch ("images", ...) by the number of images that belong together
PREFIXES = {1: ("",), 2: ("", "target_"), 4: ("", "positive_", "other_", "other_positive_")}
PAIRS = ("all", "same_camera")  # of one person: any two images, or two of one camera


@dataclass(frozen=True)
class Sampler:
    """How an epoch is cut into batches.

    Attributes:
        steps: batches in an epoch.
        draw: one epoch's batches from a generator: `steps` index tensors, [B], [B,2] for pairs, [B,4] for two pairs.
        unit: rows of a batch that belong together and go to one process (K for PxK batches).
    """

    steps: int
    draw: Callable[[torch.Generator], list[Tensor]]
    unit: int = 1


class Batches:
    """The batches of a training run: `batches(step)` gives one, `len(batches)` is the number of steps in an epoch.

    Args:
        images: where they are gathered from.
        sampler: what `uniform_batches`, `pk_batches` or `pair_batches` made.
        augment: called as `augment(batch, generator)`; see `reidlib.datasets.augment`.
        device: where the batch is gathered to and augmented.
        seed: the order of epoch e depends on (seed, e), the augmentation of step s on (seed, s, rank).
        labels: int64 [N] class of each image; default `class_labels(images.pids)`.

    A batch is what `PersonImages.batch` gives, with `labels` int64 added. For pairs the keys are those of the first
    images, and each has a twin named `target_...` with the second ones. For two pairs (`two_pair_batches`) they are
    those of the first anchors, with `positive_...`, `other_...` and `other_positive_...` beside them.

    >>> people = PersonImages(torch.zeros(10, 3, 8, 4, dtype=torch.uint8), pids=[5] * 6 + [9] * 4, camids=[1] * 10)
    >>> batches = Batches(people, uniform_batches(10, 4), seed=1)
    >>> len(batches), sorted(i for step in range(3) for i in batches(step)["indices"].tolist())
    (3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    >>> batches.n_classes, bool((batches(4)["labels"] == batches(4)["pids"].eq(9)).all())
    (2, True)
    """

    def __init__(
        self,
        images: PersonImages,
        sampler: Sampler,
        *,
        augment: Augment | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
        labels: Tensor | None = None,
    ) -> None:
        self.images, self.sampler, self.augment = images, sampler, augment
        self.device, self.seed = torch.device(device), seed
        self.labels = class_labels(images.pids) if labels is None else labels.long()
        if self.labels.shape != (len(images),):
            raise ValueError(f"labels must be [{len(images)}], one for each image, got {list(self.labels.shape)}")
        self.rank, self.world = 0, 1
        self._epoch: tuple[int, list[Tensor]] | None = None

    def __len__(self) -> int:
        return self.sampler.steps

    @property
    def n_classes(self) -> int:
        """Number of classes that the labels need."""
        return int(self.labels.max()) + 1

    def shard(self, rank: int, world: int) -> "Batches":
        """Return one process's share: a piece of every global batch, so all processes take the same steps.

        The pieces of a batch are neighbouring runs of whole units (identities, for PxK); together they are the batch,
        so over all processes an epoch shows what it shows to one.

        Raises:
            ValueError: if rank is not in [0, world), or a batch has fewer units than there are processes.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank must be in [0, {world}), got {rank}")
        units = min(len(rows) for rows in self._rows_of_epoch(0)) // self.sampler.unit
        if units < world:
            raise ValueError(
                f"the smallest batch has {units} units of {self.sampler.unit} rows, too few for {world} processes"
            )
        out = copy.copy(self)
        out.rank, out.world = rank, world
        return out

    def rows(self, step: int) -> Tensor:
        """Return the indices of this process's images at a step: int64 [B], [B,2] for pairs, [B,4] for two pairs."""
        epoch, position = divmod(step, len(self))
        rows = self._rows_of_epoch(epoch)[position]
        if self.world == 1:
            return rows
        units = rows.split(self.sampler.unit)
        cuts = np.array_split(np.arange(len(units)), self.world)[self.rank]
        return torch.cat([units[i] for i in cuts])

    def __call__(self, step: int) -> dict[str, Tensor]:
        rows = self.rows(step)
        columns = rows.reshape(len(rows), -1).T  # [images that belong together, B]
        batch = {}
        for prefix, column in zip(PREFIXES[len(columns)], columns, strict=True):
            part = self.images.batch(column, self.device) | {"labels": self.labels[column].to(self.device)}
            batch |= {prefix + name: tensor for name, tensor in part.items()}
        if self.augment is not None:
            batch = self.augment(batch, seeded(self.seed, 1, step, self.rank))
        return batch

    def _rows_of_epoch(self, epoch: int) -> list[Tensor]:
        if self._epoch is None or self._epoch[0] != epoch:  # only a memory of the last answer
            self._epoch = (epoch, self.sampler.draw(seeded(self.seed, 0, epoch)))
        return self._epoch[1]


def seeded(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded by several numbers, so that neighbouring seeds and steps share nothing.

    >>> torch.rand(1, generator=seeded(0, 1)) == torch.rand(1, generator=seeded(0, 1))
    tensor([True])
    """
    seed = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(seed[0]) << 31 ^ int(seed[1]))


def class_labels(pids: Tensor) -> Tensor:
    """Number the identities 0..K-1 in sorted pid order; negative pids (junk, unlabelled) get -1.

    >>> class_labels(torch.tensor([7, 2, -2, 7])).tolist()
    [1, 0, -1, 1]
    """
    known = pids[pids >= 0].unique()  # sorted
    return torch.where(pids >= 0, torch.searchsorted(known, pids), -1)


def uniform_batches(n: int, batch_size: int, *, drop_last: bool = False) -> Sampler:
    """Shuffle n images and cut them into batches; each image is seen once an epoch.

    An epoch has ceil(n / batch_size) batches whose sizes differ by one at most, so there is no tiny last batch. A batch
    of one image, on which batch normalisation fails, comes only where one is asked for: an odd number of images in
    batches of 2 makes one batch fewer, and one batch has 3. With `drop_last` every batch has exactly `batch_size`
    images and up to batch_size - 1 images, others each epoch, are left out.

    >>> [len(rows) for rows in uniform_batches(10, 4).draw(seeded(0))]
    [4, 3, 3]
    >>> [len(rows) for rows in uniform_batches(5, 2).draw(seeded(0))]
    [3, 2]
    """
    _check_positive(n=n, batch_size=batch_size)
    steps = n // batch_size if drop_last else _steps(n, batch_size)
    if steps == 0:
        raise ValueError(f"{n} images make no batch of {batch_size}")

    def draw(generator: torch.Generator) -> list[Tensor]:
        order = torch.randperm(n, generator=generator)
        return list((order[: steps * batch_size] if drop_last else order).tensor_split(steps))

    return Sampler(steps, draw)


def pk_batches(pids: Tensor, p: int, k: int) -> Sampler:
    r"""Draw batches of P identities with K images each.

    A pass: each identity's images are shuffled and cut into chunks of K (an identity with fewer than K is filled by
    drawing with replacement; a remainder shorter than K is dropped); while at least P identities have chunks left, P of
    them are drawn and give one chunk each. How many batches a pass makes depends on the draw, so an epoch has the
    number that one fixed pass made, and a pass that makes fewer is followed by another. Negative pids take no part.

    Raises:
        ValueError: if there are fewer than P identities.

    >>> pids = torch.tensor([1] * 5 + [2] * 4 + [3] * 2)
    >>> [len(rows) for rows in pk_batches(pids, p=2, k=4).draw(seeded(0))]
    [8]
    """
    _check_positive(p=p, k=k)
    groups = [(pids == pid).nonzero().flatten() for pid in pids[pids >= 0].unique()]
    if len(groups) < p:
        raise ValueError(f"P x K batches need at least P = {p} identities, got {len(groups)}")
    steps = len(_pk_pass(groups, p, k, seeded(0)))

    def draw(generator: torch.Generator) -> list[Tensor]:
        batches: list[Tensor] = []
        while len(batches) < steps:
            batches += _pk_pass(groups, p, k, generator)
        return batches[:steps]

    return Sampler(steps, draw, unit=k)


def _pk_pass(groups: Sequence[Tensor], p: int, k: int, generator: torch.Generator) -> list[Tensor]:
    chunks = []  # of each identity, those that are left
    for members in groups:
        n = len(members)
        order = torch.randint(n, (k,), generator=generator) if n < k else torch.randperm(n, generator=generator)
        chunks.append([members[order[i : i + k]] for i in range(0, len(order) - k + 1, k)])
    batches, left = [], list(range(len(groups)))
    while len(left) >= p:
        drawn = [left[i] for i in torch.randperm(len(left), generator=generator)[:p].tolist()]
        batches.append(torch.cat([chunks[i].pop() for i in drawn]))
        left = [i for i in left if chunks[i]]
    return batches


def mixed_batches(is_generated: Tensor, real_per_batch: int = 128, fake_per_batch: int = 46) -> Sampler:
    """Draw batches with so many real and so many generated images; CamStyle's mixture is 128 to 46.

    After Zhong et al., "Camera Style Adaptation for Person Re-identification", CVPR 2018, section 3.4.

    An epoch shows each real image once (up to real_per_batch - 1 are left out, others each time). Generated images come
    from as many shuffles of their whole set as are needed; most are not seen in one epoch. In a batch they stand evenly
    spread among the real ones, so pieces of it hold the same mixture.

    Args:
        is_generated: bool [N], of the set that the batches are gathered from.

    Raises:
        ValueError: fewer real images than a batch needs, or no generated ones.

    >>> sampler = mixed_batches(torch.tensor([False] * 8 + [True] * 3), 4, 2)
    >>> sampler.steps, [int((rows >= 8).sum()) for rows in sampler.draw(seeded(0))]
    (2, [2, 2])
    """
    real, fake = (~is_generated).nonzero().flatten(), is_generated.nonzero().flatten()
    if real_per_batch < 1 or fake_per_batch < 1 or len(real) < real_per_batch or not len(fake):
        raise ValueError(
            f"batches of {real_per_batch} real and {fake_per_batch} generated images cannot be drawn from {len(real)} "
            f"and {len(fake)}"
        )
    reals = uniform_batches(len(real), real_per_batch, drop_last=True)
    places = [(torch.arange(n) + 0.5) / n for n in (real_per_batch, fake_per_batch)]
    order = torch.cat(places).argsort(stable=True)

    def draw(generator: torch.Generator) -> list[Tensor]:
        shuffled = reals.draw(generator)
        passes = -(-reals.steps * fake_per_batch // len(fake))
        fakes = torch.cat([fake[torch.randperm(len(fake), generator=generator)] for _ in range(passes)])
        parts = zip(shuffled, fakes.split(fake_per_batch), strict=False)  # some fakes are left
        return [torch.cat([real[rows], chosen])[order] for rows, chosen in parts]

    return Sampler(reals.steps, draw)


def same_identity_pairs(pids: Tensor, usable: Tensor | None = None, *, camids: Tensor | None = None) -> Tensor:
    """List all ordered pairs (i, j), i != j, of images of one identity; images without a person (pid < 0) have none.

    Args:
        pids: int64 [N].
        usable: bool [N], images that may take part (for example `poses.has_torso(keypoints)`).
        camids: int64 [N]: only pairs of one camera; default pairs of any two.

    Returns:
        int64 [P,2], sorted.

    >>> same_identity_pairs(torch.tensor([4, 4, 8, 4])).tolist()
    [[0, 1], [0, 3], [1, 0], [1, 3], [3, 0], [3, 1]]
    >>> same_identity_pairs(torch.tensor([4, 4, 8, 4]), camids=torch.tensor([1, 2, 1, 1])).tolist()
    [[0, 3], [3, 0]]
    """
    allowed = pids >= 0 if usable is None else (pids >= 0) & usable
    groups = pids if camids is None else torch.stack([pids, camids]).unique(dim=1, return_inverse=True)[1]
    order = torch.argsort(groups, stable=True)
    order = order[allowed[order]]
    _, counts = groups[order].unique_consecutive(return_counts=True)
    pairs = [torch.zeros(0, 2, dtype=torch.int64)]
    for members in order.split(counts.tolist()):
        first, second = torch.meshgrid(members, members, indexing="ij")
        pairs.append(torch.stack([first, second], dim=-1)[first != second])
    found = torch.cat(pairs)
    return found[torch.argsort(found[:, 0], stable=True)]


def usable_pairs(train: PersonImages, usable: Tensor, pairs: str = "all") -> Tensor:
    """List the pairs (source, target) that a generator trains on, of two usable images of one identity: int64 [P,2].

    Args:
        train: where the images are.
        usable: bool [N], images that show what the generator needs.
        pairs: "all" as published, or "same_camera", those of one camera only: the street behind the target is then in
            the source, where that of another camera can be told from neither source nor condition, and becomes the mean
            of all streets.

    Raises:
        ValueError: another name; no pair at all.

    >>> people = PersonImages(torch.zeros(4, 3, 8, 4, dtype=torch.uint8), [7] * 4, [1, 2, 1, 1])
    >>> usable_pairs(people, torch.tensor([True, True, True, False]), "same_camera").tolist()
    [[0, 2], [2, 0]]
    """
    check_choice("pairs", pairs, PAIRS)
    found = same_identity_pairs(train.pids, usable, camids=None if pairs == "all" else train.camids)
    if len(found) == 0:
        raise ValueError(
            f"no identity has two images to pair: {int(usable.sum())} of {len(train)} images can be used "
            f"(pairs={pairs!r}), of {len(train.pids[usable].unique())} identities"
        )
    return found


def target_pairs(sources: Tensor, targets: Tensor, generator: torch.Generator, *, itself: bool = False) -> Tensor:
    """Draw a target for each source, uniformly, for one source without replacement: int64 [M,2], source and target.

    Args:
        sources: int64 [M], images; one stands there as often as it is to be drawn anew, its places together.
        targets: int64 [T], images whose pose or camera can be wanted.
        generator: of the draw.
        itself: an image may be its own target (the two are numbered in different sets).

    Raises:
        ValueError: fewer targets than a source needs.

    >>> pairs = target_pairs(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2]), seeded(0))
    >>> pairs[:2].sort(0).values.tolist(), pairs[2:].sort(0).values.tolist()
    ([[0, 1], [0, 2]], [[1, 0], [1, 2]])
    """
    drawn = [torch.zeros(0, dtype=torch.int64)]
    for row, n in zip(*(each.tolist() for each in sources.unique_consecutive(return_counts=True)), strict=True):
        order = targets[torch.randperm(len(targets), generator=generator)]
        order = order if itself else order[order != row]
        if len(order) < n:
            raise ValueError(f"the draw needs {n} targets for each image, there are {len(order)}")
        drawn.append(order[:n])
    return torch.stack([sources, torch.cat(drawn)], dim=1)


def pair_batches(pairs: Tensor, batch_size: int, *, pairs_per_epoch: int | None = None) -> Sampler:
    """Shuffle a list of pairs [P,2] into batches; the two images of a pair stay together.

    Args:
        pairs: int64 [P,2], from `same_identity_pairs` or a `camera_pair`'s `train_pairs`.
        batch_size: pairs in a batch; batches differ by one pair at most, and none has a single pair unless
            `batch_size` is 1, as in `uniform_batches`.
        pairs_per_epoch: draw only so many, others each epoch (pose-transfer work takes 4,000); default all.
    """
    if pairs.dim() != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise ValueError(f"pairs must be [P,2] with P > 0, got {list(pairs.shape)}")
    count = len(pairs) if pairs_per_epoch is None else min(pairs_per_epoch, len(pairs))
    _check_positive(batch_size=batch_size, pairs_per_epoch=count)
    steps = _steps(count, batch_size)

    def draw(generator: torch.Generator) -> list[Tensor]:
        return list(pairs[torch.randperm(len(pairs), generator=generator)[:count]].tensor_split(steps))

    return Sampler(steps, draw)


def by_identity(pids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sort the images by identity; those of nobody (pid < 0) are left out.

    Returns:
        int64 [n] each: the images in their new order; and of each, in that order, its identity's number from 0, how
        many images the identity has, and at which place of the order they start.

    >>> [values.tolist() for values in by_identity(torch.tensor([9, 4, -1, 9]))]
    [[1, 0, 3], [0, 1, 1], [1, 2, 2], [0, 1, 1]]
    """
    order = torch.argsort(pids, stable=True)
    order = order[pids[order] >= 0]
    _, group, counts = pids[order].unique_consecutive(return_inverse=True, return_counts=True)
    return order, group, counts[group], (counts.cumsum(0) - counts)[group]


def two_pair_batches(pids: Tensor, batch_size: int, *, distinct: bool = False) -> Sampler:
    """Draw batches of two independent pairs, each an image (anchor) and another one of the same person (positive).

    Each image with an identity is the first anchor once an epoch and, in an order of its own, the second anchor once,
    so the two anchors may show one person, as in DG-Net's released code. A positive is drawn uniformly from the other
    images of the anchor's identity; an image without any is its own positive.
    Zheng et al., "Joint Discriminative and Generative Learning for Person Re-identification", CVPR 2019.

    Args:
        pids: int64 [N]; images of nobody (pid < 0) take no part.
        batch_size: first anchors in a batch, cut as in `uniform_batches`.
        distinct: the two anchors of a row show two persons; where they do not, the second changes places with one of
            another row.

    Returns:
        A sampler of rows [B,4]: anchor, its positive, the other anchor, its positive. `Batches` calls them `images`,
        `positive_images`, `other_images`, `other_positive_images`; augment them by `compose(..., joint=False)`.

    Raises:
        ValueError: no image with an identity; with `distinct`, more than half of the images of one identity.

    >>> pids = torch.tensor([7, 7, 9, 9, -1])
    >>> rows = torch.cat(two_pair_batches(pids, 2).draw(seeded(0)))
    >>> rows.shape, bool((pids[rows[:, 0]] == pids[rows[:, 1]]).all()), rows[:, 2].sort().values.tolist()
    (torch.Size([4, 4]), True, [0, 1, 2, 3])
    """
    _check_positive(batch_size=batch_size)
    order, group, size, start = by_identity(pids)
    if len(order) == 0:
        raise ValueError(f"pairs of one person need images with an identity (pid >= 0), got {len(pids)} without")
    steps = _steps(len(order), batch_size)
    if distinct and 2 * int(size.max()) > len(order):
        raise ValueError(f"distinct: one identity has {int(size.max())} of {len(order)} images, more than half")

    def draw(generator: torch.Generator) -> list[Tensor]:
        columns = []
        anchors = [torch.randperm(len(order), generator=generator) for _ in range(2)]  # places in `order`
        while distinct and len(clash := (group[anchors[0]] == group[anchors[1]]).nonzero()[:, 0]):
            others = torch.randint(len(order), (len(clash),), generator=generator)
            for row, other in torch.stack([clash, others], dim=1).tolist():
                anchors[1][[row, other]] = anchors[1][[other, row]]
        for anchor in anchors:
            away = 1 + torch.randint(2**62, (len(order),), generator=generator) % (size[anchor] - 1).clamp_min(1)
            positive = start[anchor] + (anchor - start[anchor] + away) % size[anchor]
            columns += [order[anchor], order[positive]]
        return list(torch.stack(columns, dim=1).tensor_split(steps))

    return Sampler(steps, draw)


def _steps(n: int, batch_size: int) -> int:
    """Number of batches of at most batch_size, with no batch of one where larger ones were asked for."""
    return max(1, min(-(-n // batch_size), n // min(batch_size, 2)))


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a positive integer, got {number!r}")
