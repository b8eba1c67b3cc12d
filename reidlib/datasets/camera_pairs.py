r"""`camera_pair`: the thesis's DataSplit, which images of two cameras show the same walk of the same person.

Two images are a pair when identity and sequence agree. What has no partner is what a generator is used for: images of
camera A whose (identity, sequence) never occurs in B are moved to B; those among them whose identity never occurs in B
at all are the "new IDs". Source: Kolbeinsson, master's thesis, 2019, chapter on the data split.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reidlib.checks import check_choice
from reidlib.datasets.person_images import PersonImages
from reidlib.files import atomic_path, resolve


@dataclass(frozen=True, eq=False)
class CameraPair:
    """Indices into the training set: pairs, and what to generate from. All int64, in the set's order."""

    train_pairs: Tensor  # [P,2] (index in camera a, index in camera b)
    generate_from_a: Tensor  # images of a to be moved to b
    generate_from_b: Tensor
    new_ids_from_a: Tensor  # those of generate_from_a whose identity camera b never saw
    new_ids_from_b: Tensor
    train: PersonImages = field(repr=False)  # the set, for `write`

    def write(self, folder: str | os.PathLike, *, generate: str = "b") -> int:
        """Leave the thesis's folders of PNG files, for tools that want files, and return how many there are.

        `A/train/` and `B/train/` hold the two images of each pair under one name, stemA+stemB.png; `train/` holds them
        side by side, A left; `A/test/` and `B/test/` hold the images without a partner, and `test/` those of them that
        a generator is to be applied to. Files that are there already are written again.

        Args:
            folder: where; a relative path counts from the repository root.
            generate: the camera whose style is generated, "a" or "b"; "b" fills `test/` with images of a.

        Raises:
            ValueError: another `generate`.
        """
        check_choice("generate", generate, ("a", "b"))
        folder, names = resolve(folder), [os.path.splitext(name)[0] for name in self.train.names]  # noqa: PTH122

        def pictures() -> Iterator[tuple[str, Tensor]]:
            for i, j in self.train_pairs.tolist():
                a, b = self.train.batch([i, j])["images"]
                for place, pixels in (("A/train", a), ("B/train", b), ("train", torch.cat([a, b], dim=2))):
                    yield f"{place}/{names[i]}+{names[j]}.png", pixels
            for side, rows in (("A", self.generate_from_a), ("B", self.generate_from_b)):
                places = [f"{side}/test"] + ["test"] * ((side == "A") == (generate == "b"))
                for i in rows.tolist():
                    yield from ((f"{place}/{names[i]}.png", self.train.batch([i])["images"][0]) for place in places)

        written = 0
        for path, pixels in pictures():
            with atomic_path(folder / path) as temporary:
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(temporary, format="PNG")
            written += 1
        return written


def camera_pair(train: PersonImages, a: int, b: int) -> CameraPair:
    """Split the images of cameras `a` and `b` into training pairs and images to generate from.

    Images of nobody (pid < 0: junk, distractors, unlabelled ones) take no part.

    Raises:
        ValueError: if a and b are the same camera, a camera has no images, or no identity is in both.

    >>> images = torch.zeros(3, 3, 8, 4, dtype=torch.uint8)
    >>> train = PersonImages(images, pids=[1, 1, 2], camids=[1, 2, 1], sequences=[1, 1, 1])
    >>> pair = camera_pair(train, 1, 2)
    >>> pair.train_pairs.tolist(), pair.generate_from_a.tolist()
    ([[0, 1]], [2])
    """
    if a == b:
        raise ValueError(f"a camera pair needs two cameras, got {a} twice")
    pids, sequences = train.pids.numpy(), train.sequences.numpy()
    of_a, of_b = (_of_camera(train, camera, train.pids >= 0) for camera in (a, b))
    if not np.isin(pids[of_a], pids[of_b]).any():
        raise ValueError(f"no identity is in both camera {a} and camera {b}, so there is nothing to pair")
    key = np.unique(np.stack([pids, sequences]), axis=1, return_inverse=True)[1].reshape(-1)  # of (identity, sequence)
    pairs = [(i, j) for i in of_a.tolist() for j in of_b[key[of_b] == key[i]].tolist()]
    alone_a, alone_b = of_a[~np.isin(key[of_a], key[of_b])], of_b[~np.isin(key[of_b], key[of_a])]
    new_a, new_b = alone_a[~np.isin(pids[alone_a], pids[of_b])], alone_b[~np.isin(pids[alone_b], pids[of_a])]
    train_pairs = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return CameraPair(train_pairs, *map(torch.from_numpy, (alone_a, alone_b, new_a, new_b)), train)


def random_targets(train: PersonImages, a: int, b: int, *, per_source: int = 10, seed: int = 0) -> Tensor:
    """Pair every image of camera `a` with `per_source` distinct images of camera `b`, whoever they show.

    Drawn once, uniformly without replacement for each source; fewer where camera b has fewer. These are the pairs of
    the thesis's model 4, which needs no identities in b.

    Returns:
        int64 [P,2]: (index in a, index in b).

    Raises:
        ValueError: if a camera has no images.
    """
    of_a, of_b = (_of_camera(train, camera) for camera in (a, b))
    rng = np.random.default_rng(seed)
    count = min(per_source, len(of_b))
    targets = np.stack([rng.choice(of_b, count, replace=False) for _ in of_a])  # [n_a, count]
    return torch.from_numpy(np.stack([np.repeat(of_a, count), targets.reshape(-1)], axis=1))


def _of_camera(train: PersonImages, camera: int, taking_part: Tensor | bool = True) -> np.ndarray:
    """Return the images of one camera (that take part), at least one."""
    rows = ((train.camids == camera) & taking_part).numpy().nonzero()[0]
    if len(rows) == 0:
        raise ValueError(f"camera {camera} has no images; the set's cameras are {train.camids.unique().tolist()}")
    return rows
