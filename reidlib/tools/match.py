"""`reidlib match A.jpg B.jpg ...`: is the person of the first picture in the others, and how sure is that?

Prints a ranked list with distance, probability and verdict, and what the threshold's false accepts are; writes it as a
table and a contact sheet. A false accept means that somebody is taken for somebody else: they may be watched, stopped
or accused for what another person did. Match people who agreed to it, let a human look before anything follows from a
match, and never let one decide alone.
"""

import argparse
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from reidlib.checks import reading_inputs, some
from reidlib.course import figures
from reidlib.datasets import Benchmark, PersonImages, load
from reidlib.datasets.contract import check_size
from reidlib.datasets.pictures import SUFFIXES, UNREADABLE, open_picture, upright_rgb
from reidlib.embedders import Baseline
from reidlib.evaluators import Threshold, Verification, nearest_neighbours, reliability, verify
from reidlib.evaluators.judges import FOLDER, file_name, load_judges
from reidlib.files import atomic_path, resolve
from reidlib.networks import read_facts, read_weights
from reidlib.tools.annotate import main_person
from reidlib.tools.detectors import Detector, load_detectors

RENDERED = (
    "these weights learnt from rendered people only, and the threshold was fitted on rendered people: on photographs "
    "neither the probability nor the false-accept rate is what it says. Fit one on photographs of your cameras (--fit)"
)
VALIDATION_SEED = 2  # of rendered people, reserved for choices
SHAPES = (1.3, 4.0)  # height over width of a crop of one person
FAR = 0.001


class Network(NamedTuple):
    """What pictures are compared by: a name, uint8 [B, 3, H, W] -> features [B, D], the size it takes, its origin."""

    name: str
    embed: Callable[[Tensor], Tensor]
    image_size: tuple[int, int]
    rendered: bool  # trained on rendered people only


def load_network(
    weights: str | Path | None = None, *, preset: str = "course", image_size: tuple[int, int] = (64, 32)
) -> Network:
    """Load the recorded identity judge (`weights=None`), or a backbone of your own.

    Args:
        weights: a file of a backbone or an embedder of `preset`, as `networks.save_weights` writes it; the feature is
            the pooled one, scaled to length 1, without the heads.
        preset, image_size: of your own, see `Baseline`; the recorded one fixes both.

    Raises:
        FileNotFoundError, ValueError: see `load_judges`, `networks.read_weights` and `Baseline`.
    """
    if weights is None:
        judges = load_judges()
        return Network("recorded identity judge", judges.embed, judges.image_size, rendered=True)
    state = read_weights(weights)
    own = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    method = Baseline(2, preset=preset, start=own or state, normalise=True)
    rendered = "renderer_version" in read_facts(weights)
    return Network(Path(weights).name, torch.no_grad()(method.embed), check_size(image_size), rendered)


def read_pictures(
    paths: Sequence[str | Path], image_size: tuple[int, int], *, detector: Detector | None = None
) -> PersonImages:
    """Read picture files, each a crop of one person, and the files of folders, by name; names are the paths.

    Args:
        paths: files and folders.
        image_size: (height, width) that they are resized to.
        detector: of people (`detectors.load_detectors`): each picture is cropped to its main person.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: a folder without pictures, a file that cannot be read, a picture of one colour, or one in which the
            detector finds nobody.

    A picture that is no upright crop by its shape, or smaller than `image_size`, is read with a warning.
    """
    files = []
    for path in map(resolve, paths):
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} holds no picture ({', '.join(SUFFIXES)})")
        files += inside
    height, width = image_size
    crops, odd = [], []
    for path in files:
        try:
            with open_picture(path) as file:
                picture = _main_part(upright_rgb(file)[0], detector)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"there is no picture {path}") from error
        except UNREADABLE as error:
            raise ValueError(f"{path} cannot be used: {str(error).partition(chr(10))[0]}") from error
        if np.ptp(np.asarray(picture), axis=(0, 1)).max() < 8:
            raise ValueError(f"{path} is of one colour: it shows nobody")
        if not SHAPES[0] <= picture.height / picture.width <= SHAPES[1] or picture.height < height:
            odd.append(f"{path.name} ({picture.height}x{picture.width})")
        crops.append(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)))
    if odd:
        warnings.warn(
            f"{len(odd)} pictures are no upright crop of one person, about 2:1 and {height} pixels high or more; what "
            f"is said about them means little: {some(odd)}",
            stacklevel=2,
        )
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    return PersonImages(images, [-2] * len(files), [-1] * len(files), names=[str(path) for path in files])


def _main_part(picture: Image.Image, detector: Detector | None) -> Image.Image:
    """Crop a picture to its main person."""
    if detector is None:
        return picture
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
    found = detector([pixels])[0]
    person = main_person(found, pixels.shape[1:])
    if person is None:
        raise ValueError("no person found in it")
    left, top, right, bottom = found["boxes"][person].tolist()
    return picture.crop((math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)))


def match(
    images: PersonImages, gallery: PersonImages, network: Network, threshold: Threshold, *, prior: float = 0.5
) -> pd.DataFrame:
    """Rank gallery pictures for each picture, nearest first, and say which show the same person.

    Args:
        images, gallery: pictures of any size that the network takes, see `read_pictures`.
        network: see `load_network`.
        threshold: fitted with this network, see `fit_threshold`.
        prior: share of pairs of one person among those asked about, for the probability.

    Returns:
        a row for each pair: picture, rank, gallery picture (names), distance, probability, same (the verdict).

    Raises:
        ValueError: no picture on one side; a threshold of another network.
    """
    if not len(images) or not len(gallery):
        raise ValueError(f"{len(images)} pictures against {len(gallery)}: one on each side is the least")
    if threshold.network != network.name:
        raise ValueError(f"the threshold was fitted with {threshold.network}, the pictures go through {network.name}")
    features = [network.embed(part.images) for part in (images, gallery)]
    found = nearest_neighbours(*features, len(gallery), distance=threshold.distance)
    distances = found.distances.flatten().double()
    return pd.DataFrame(
        {
            "picture": np.repeat(images.names, len(gallery)),
            "rank": np.tile(np.arange(1, len(gallery) + 1), len(images)),
            "gallery picture": [gallery.names[i] for i in found.indices.flatten().tolist()],
            "distance": distances.numpy(),
            "probability": threshold.probability(distances, prior).numpy(),
            "same": threshold.accept(distances).numpy(),
        }
    )


def verify_benchmark(network: Network, bench: Benchmark, **rules: object) -> Verification:
    """Count a benchmark's pairs of queries and gallery by its own camera rule, see `evaluators.verify`."""
    sides = []
    for part in (bench.query, bench.gallery):
        rows = torch.arange(len(part)).split(512)
        sides.append(torch.cat([network.embed(part.batch(chunk)["images"]).float().cpu() for chunk in rows]))
    people = dict(query_pids=bench.query.pids, query_camids=bench.query.camids)
    people |= dict(gallery_pids=bench.gallery.pids, gallery_camids=bench.gallery.camids)
    return verify(*sides, **people, **{"camera_rule": bench.protocol.camera_rule} | rules)


def fit_threshold(network: Network, bench: Benchmark, far: float = FAR, *, fitted_on: str = "") -> Threshold:
    """Fit a threshold on the people of a benchmark of which the network has seen nobody, such as its `validation`.

    Raises:
        ValueError: see `Threshold.fit`.
    """
    found = verify_benchmark(network, bench)
    return Threshold.fit(found, far, fitted_on=fitted_on or bench.name, network=network.name)


def contact_sheet(images: PersonImages, gallery: PersonImages, table: pd.DataFrame, most: int = 10) -> figures.Figure:
    """Draw each picture and its nearest gallery pictures: green frames are accepted, red ones are not."""
    place = {name: i for i, name in enumerate(gallery.names)}
    tiles, borders, titles = [], [], []
    for i, name in enumerate(images.names):
        rows = table[table["picture"] == name].head(most)
        near = gallery.batch([place[other] for other in rows["gallery picture"]])["images"]
        tiles += [images.batch([i])["images"], near]
        borders += [figures.QUERY, *(figures.RIGHT if same else figures.WRONG for same in rows["same"])]
        titles += [
            "asked",
            *(f"d {d:.2f}\np {p:.2f}" for d, p in zip(rows["distance"], rows["probability"], strict=True)),
        ]
    return figures.image_grid(torch.cat(tiles), 1 + min(most, len(gallery)), borders=borders, titles=titles, height=1.7)


def threshold_path(weights: str | Path | None) -> Path:
    """Return where the threshold of weights lies, beside them: `<name>.threshold.json`."""
    path = resolve(FOLDER) / file_name("identity") if weights is None else resolve(weights)
    return path.with_suffix(".threshold.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib match`."""
    parser.add_argument("pictures", nargs="*", help="the picture that asks, then pictures or folders to look in")
    parser.add_argument("--asking", type=int, default=1, help="so many of the first pictures ask (%(default)s)")
    parser.add_argument("--weights", help="your file of weights; default: the recorded identity judge")
    parser.add_argument("--preset", default="course", help="of your weights' network (%(default)s)")
    parser.add_argument("--image-size", default="64x32", help="of your weights' network, HEIGHTxWIDTH (%(default)s)")
    parser.add_argument("--threshold", help="file of the threshold; default: beside the weights")
    parser.add_argument("--prior", type=float, default=0.5, help="share of pairs of one person (%(default)s)")
    parser.add_argument("--detectors", nargs="+", default=[], help="your weights of Keypoint R-CNN: crop to the person")
    parser.add_argument("--out", default="runs/match", help="folder for match.csv and match.png (%(default)s)")
    parser.add_argument("--fit", metavar="DATASET", help="first fit the threshold on this data set's validation people")
    parser.add_argument("--data-root", default="data", help="where that data set lies (%(default)s)")
    parser.add_argument("--far", type=float, default=FAR, help="wanted false-accept rate of the fit (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Match, or fit a threshold, or both; print the list and write table and contact sheet."""
    with reading_inputs():
        size = tuple(int(n) for n in options.image_size.split("x"))
        network = load_network(options.weights, preset=options.preset, image_size=size)
        path = resolve(options.threshold) if options.threshold else threshold_path(options.weights)
        if options.fit:
            _fit(network, path, options)
        if not options.pictures and options.fit:
            return 0
        if not path.is_file():
            raise FileNotFoundError(f"no threshold at {path}: --fit DATASET makes one")
        threshold = Threshold.load(path)
        detector = load_detectors(options.detectors)["keypoints"] if options.detectors else None
        pictures = read_pictures(options.pictures, network.image_size, detector=detector) if options.pictures else []
        if not 1 <= options.asking < len(pictures):
            raise ValueError(
                f"{len(pictures)} pictures, {options.asking} of them asking: give one more than ask at least"
            )
        asking, gallery = (
            pictures.select(indices=range(*r)) for r in ((options.asking,), (options.asking, len(pictures)))
        )
        table = match(asking, gallery, network, threshold, prior=options.prior)
    folder = resolve(options.out)
    with atomic_path(folder / "match.csv") as temporary:
        table.round(6).to_csv(temporary, index=False)
    with atomic_path(folder / "match.png") as temporary:
        contact_sheet(asking, gallery, table).savefig(temporary, format="png", dpi=150, bbox_inches="tight")
    for name, rows in table.groupby("picture", sort=False):
        print(f"{name}\n rank  distance  probability  same person?")
        for row in rows.itertuples(index=False):
            print(f"{row[1]:5}  {row[3]:8.3f}  {row[4]:11.3f}  {'yes' if row[5] else 'no ':3}  {row[2]}")
    print(f"threshold: {threshold}")
    chance = 1 - (1 - threshold.far) ** len(gallery)
    print(
        f"false accepts: if all {len(gallery)} pictures show other people, at least one is taken for the person asked "
        f"for with probability {100 * chance:.2g} %; the column probability supposes that {100 * options.prior:g} % of "
        f"the pairs show one person"
    )
    if network.rendered:
        print(f"mind: {RENDERED}.")
    print(f"written: {folder / 'match.csv'}, {folder / 'match.png'}")
    return 0


def _fit(network: Network, path: Path, options: argparse.Namespace) -> None:
    """Fit a threshold on validation people, write it, and print how right its probability is on others of them."""
    bench = load(options.fit, options.data_root, network.image_size, seed=VALIDATION_SEED)
    if options.fit == "procedural":
        said = f"test people of the procedural network market1501, seed {VALIDATION_SEED}, scene retrieval"
    else:
        bench = bench.validation(min(100, len(bench.train.pids[bench.train.pids >= 0].unique()) // 2))
        said = f"validation people of {options.fit}, {network.image_size[0]}x{network.image_size[1]}"
    people = bench.query.pids.unique()
    halves = [_only(bench, people[k::2]) for k in (0, 1)]  # one half to fit, one to check
    threshold = fit_threshold(network, halves[0], options.far, fitted_on=f"half of the {said}")
    threshold.save(path)
    found = verify_benchmark(network, halves[1])
    far, tar = found.at(threshold.limit)
    table = reliability(threshold, found)
    print(f"{threshold}\nwritten: {path}")
    print(
        f"on the other half: false accepts {100 * far:.3g} %, true accepts {100 * tar:.3g} %, Brier score of the "
        f"probability {table.attrs['brier']:.3f} (always 0.5: 0.250)\n{table.round(3).to_string(index=False)}"
    )


def _only(bench: Benchmark, people: Tensor) -> Benchmark:
    """Keep these people, and the distractors."""
    parts = {name: getattr(bench, name) for name in ("query", "gallery")}
    kept = {name: part.select(indices=torch.isin(part.pids, people) | (part.pids < 0)) for name, part in parts.items()}
    return Benchmark(bench.name, bench.train, **kept, protocol=bench.protocol)
