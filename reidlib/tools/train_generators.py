"""Training of the recorded generators, on many rendered people who are in no table.

`reidlib generators` renders 480 people of seed 3000 (size `many`, scene "generation"), trains each generator for an
hour or so of one core, judges it along the way on the 64 test people of that set, and writes its weights with a
`<name>.results.json` to `notebooks/weights`. A killed training goes on where it stopped.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from reidlib.checks import check_choice, reading_inputs
from reidlib.course import figures
from reidlib.course.runs import Run
from reidlib.course.settings import literal
from reidlib.datasets import PersonImages, extend, load, poses
from reidlib.datasets.procedural import RENDERER_VERSION
from reidlib.datasets.sampling import seeded, target_pairs
from reidlib.evaluators.judges import load_judges
from reidlib.experiments import judge_generator, train_baseline
from reidlib.files import atomic_path, resolve
from reidlib.generators.camera_transfer import train_transfer, transfer
from reidlib.generators.dg_net import train_dg_net
from reidlib.generators.pn_gan import PNGAN, pn_gan_pairs, some_pairs
from reidlib.generators.pose_attention import PoseAttention, pose_attention_pairs
from reidlib.generators.recorded import FOLDER, load_generator, load_recorded, save_generator
from reidlib.generators.semantic_attention import SAN, san_pairs
from reidlib.generators.synthesis import synthesise, train_generator
from reidlib.machine import pick_device
from reidlib.tools.swaps import judge_swaps, recorded_dg_net
from reidlib.training import History

SEED = 3000
NETWORK, SCENE = "market1501", "generation"
CAMERAS = (5, 6)  # of camera transfer
GUIDE_SEEN = 60_000  # images that the guide of a generator is trained on
RUNS = "runs/generators"  # where a killed training goes on
PAIRS = 512  # held-out ones that a generator is judged on

Trained = tuple[nn.Module, History]
Switches = Mapping[str, Any]  # of the method, in place of the plan's


class Plan(NamedTuple):
    """One generator: `train(people, images_seen, switches, **options)`, `judge(method, people, copy=)`, its length.

    The length is in pairs; `read(name, folder=)` reads what was stored.
    """

    train: Callable[..., Trained]
    judge: Callable[..., pd.DataFrame]
    images_seen: int
    read: Callable[..., tuple[nn.Module, Any]] = load_generator


def train_pn_gan(
    people: PersonImages, images_seen: int, switches: Switches, *, seed: int = 0, **options: Any
) -> Trained:
    """Train PN-GAN on pairs of one camera, beside a re-ID network of the same people as its guide."""
    options_of_guide = dict(start="none", seed=seed, progress=False)
    guide, _ = train_baseline(people, images_seen=min(GUIDE_SEEN, 4 * images_seen), **options_of_guide)
    chosen = dict(width=24, units=6, lambda_1=10.0, lr=4e-4, guide=guide.embedder.backbone)
    build = partial(PNGAN, **chosen | switches)
    pairs = pn_gan_pairs(people, "same_camera")
    return train_generator(
        build, people, pairs, images_seen=images_seen, batch_size=16, ema=0.999, seed=seed, **options
    )


def train_semantic_attention(
    people: PersonImages, images_seen: int, switches: Switches, *, seed: int = 0, **options: Any
) -> Trained:
    """Train SAN on pairs of one camera, beside a re-ID network of the same people as its guide.

    What it is to draw around the person is the source's background, and the guide looks from a place that moves.
    """
    guide, _ = train_baseline(people, images_seen=min(GUIDE_SEEN, 4 * images_seen), seed=seed, progress=False)
    chosen = dict(width=10, discriminator_width=8, n_blocks=5, alpha=1.0, lr=1e-3, background="source", guide_shift=4)
    build = partial(SAN, guide=guide.embedder.backbone, **chosen | switches)
    options |= dict(batch_size=16, ema=0.998, precision="fp32")  # quicker than bf16 in so narrow a network
    return train_generator(
        build, people, san_pairs(people, "same_camera"), images_seen=images_seen, seed=seed, **options
    )


def train_pose_attention(
    people: PersonImages, images_seen: int, switches: Switches, *, seed: int = 0, **options: Any
) -> Trained:
    """Train pose attention on pairs of one camera, beside a re-ID network of the same people: its E, and its guide.

    As for SAN, the background is to be the condition image's.
    """
    seen = min(GUIDE_SEEN, 4 * images_seen)
    head = dict(dimensions=128, norm="batch", relu=True, dropout=0.5, feature="layer")
    options_of_E = dict(loss="softmax+quartet", heads=[head], seed=seed, progress=False)
    E, _ = train_baseline(people, images_seen=seen, **options_of_E)
    # three halvings of 64x32 leave 8x4, as the paper's four do of 128x64
    chosen = dict(mode="staged", n_blocks=3, lambda_gan=0.5, background="source", guide_shift=4)
    pairs = pose_attention_pairs(people, "same_camera")
    build = partial(PoseAttention, E.embedder, guide=E.embedder.backbone, **chosen | switches)
    return train_generator(
        build, people, pairs, images_seen=images_seen, batch_size=16, ema=0.998, seed=seed, **options
    )


def judge_poses(method: nn.Module, people: PersonImages, **options: Any) -> pd.DataFrame:
    """Judge people in the pose of another image of theirs in the same camera."""
    pairs = some_pairs(people, PAIRS, "same_camera")
    options |= dict(judges=load_judges(), targets=people, gallery=people, source_rows=pairs[:, 0], name="trained")
    return judge_generator(method, people, pairs, **options)


def train_dg(people: PersonImages, images_seen: int, switches: Switches, *, seed: int = 0, **options: Any) -> Trained:
    """Train DG-Net by the course's preset beside a teacher of the same people, who sees each image twice.

    Its E_a is a re-ID network of these people before it starts, so that the codes differ from person to person from the
    first step on; the generator is asked more firmly than in the paper whose the clothes are (`lambda_id`), by the code
    as well (`code_gradient`). At the preset's rate of 2e-3, meant for some hundred steps, D and G diverged after 1,200.
    The teacher is not stored, but has a part in drawing: by its labels L_prim trains E_a.
    """
    common, every = dict(seed=seed, progress=False), 4 * images_seen
    teacher, _ = train_baseline(people, images_seen=min(2 * len(people), every), form="dg_net_teacher", **common)
    encoder, _ = train_baseline(people, images_seen=min(GUIDE_SEEN, every), form="dg_net", **common)
    chosen = dict(lambda_id=2.0, code_gradient=True, lr=1e-3, ema=0.995, seed=seed, precision="fp32")
    networks = encoder.embedder, teacher.embedder
    return train_dg_net(people, *networks, people.pids, images_seen=images_seen, **chosen | switches | options)


def judge_exchanges(method: nn.Module, people: PersonImages, *, copy: bool = False) -> pd.DataFrame:
    """Judge swaps between random images of different people, beside reconstructions (and the unchanged images)."""
    rows = torch.arange(len(people))
    pairs = target_pairs(rows, rows, seeded(SEED))
    pairs = pairs[people.pids[pairs[:, 0]] != people.pids[pairs[:, 1]]]
    pairs = pairs[torch.randperm(len(pairs), generator=seeded(SEED, 1))[:PAIRS]]
    table = judge_swaps({"trained": method}, people, pairs, judges=load_judges())
    return table if copy else table.filter(like="trained", axis=0)


def train_camera_transfer(
    people: PersonImages, images_seen: int, switches: Switches, *, model: int, **options: Any
) -> Trained:
    """Train one of the thesis's models from the first to the second of `CAMERAS`."""
    options |= dict(width=18) | dict(switches)
    return train_transfer(people, *CAMERAS, images_seen=images_seen, model=model, **options)


def judge_cameras(method: nn.Module, people: PersonImages, **options: Any) -> pd.DataFrame:
    """Judge all images of the first camera moved to the second."""
    a, b = CAMERAS
    sources, rows = people.select(camids=a), (people.camids == a).nonzero()[:, 0]
    options |= dict(judges=load_judges(), gallery=people, source_rows=rows, camera=b, real=people.select(camids=b))
    return judge_generator(transfer(method, people, a, b), sources, name="trained", **options)


PLANS = {
    "pn_gan": Plan(train_pn_gan, judge_poses, 80_000),
    "pose_attention": Plan(train_pose_attention, judge_poses, 100_000),
    "semantic_attention": Plan(train_semantic_attention, judge_poses, 120_000),
    "dg_net": Plan(train_dg, judge_exchanges, 16_000, recorded_dg_net),
    **{
        f"camera_transfer-{model}": Plan(partial(train_camera_transfer, model=model), judge_cameras, seen)
        for model, seen in {1: 45_000, 2: 45_000, 3: 45_000, 4: 30_000}.items()  # 3: fewer people kept after 90,000
    },
}


def make_generator(
    name: str,
    *,
    size: str = "many",
    root: str | Path = "data",
    folder: str | Path = FOLDER,
    images_seen: int | None = None,
    identities: int | None = None,
    switches: Switches | None = None,
    evaluations: int = 8,
    progress: bool = True,
) -> pd.DataFrame:
    """Train a recorded generator, write it, and return the curve of what its judges say: a row each evaluation.

    Args:
        name: of `PLANS`.
        size, root: of the rendered people, see `datasets.load`.
        folder: gets `<name>.safetensors` and `<name>.results.json`.
        images_seen: length in pairs; default the plan's.
        identities: so many of the training people only.
        switches: of the method, such as `{"lambda_gan": 1.0}`, in place of the plan's.
        evaluations: points of the curve.
        progress: show progress.

    Raises:
        ValueError: an unknown name.
    """
    check_choice("name", name, PLANS)
    plan, folder = PLANS[name], resolve(folder)
    seen = images_seen or plan.images_seen
    bench = load("procedural", root, (64, 32), size=size, seed=SEED, scene=SCENE, network=NETWORK, progress=progress)
    people, held = (part.select(indices=part.pids >= 0) for part in (bench.train, extend(bench.query, bench.gallery)))
    people = people.select(pids=people.pids.unique()[:identities])
    parameters = dict(size=size, seed=SEED, scene=SCENE, network=NETWORK, images_seen=seen, renderer=RENDERER_VERSION)
    switches = dict(switches or {})
    command = f"reidlib generators {name}" + (f" --identities {identities}" if identities else "")
    command += "".join(f" -p {switch} {value}" for switch, value in switches.items())
    parameters |= dict(command=command, identities=len(people.pids.unique()), images=len(people))

    def evaluate(method: nn.Module, step: int) -> dict[str, float]:
        return plan.judge(method, held).loc["trained"].to_dict()

    of_run = [name, parameters["identities"], seen, *(f"{switch}={value}" for switch, value in switches.items())]
    run_dir = resolve(RUNS) / "-".join(map(str, of_run))
    run = Run(name, parameters, run_dir, pick_device())
    options = dict(run_dir=run_dir, evaluate=evaluate, evaluations=evaluations, progress=progress)
    method, history = plan.train(people, seen, switches, **options)
    save_generator(method, folder / f"{name}.safetensors", **parameters)
    curve = history.evaluations.drop(columns="evaluation_seconds")
    curve["step"] = (curve["step"] * seen / history.steps).round().astype(int).map("{:,} pairs seen".format)
    stored, _ = plan.read(name, folder=folder)
    judged = plan.judge(stored, held, copy=True).rename(index=lambda row: row.replace("trained", "as stored"))
    table = pd.concat([curve.set_index("step"), judged])
    for row, line in table.iterrows():
        for metric, value in line.dropna().items():
            run.metric(f"{row}/{metric}", value, f"judges, {PAIRS} pairs or all images of people not trained on")
    run.metric("seconds of training", history.seconds, "wall time without evaluations")
    with atomic_path(folder / f"{name}.results.json") as temporary:
        temporary.write_bytes(run.record().read_bytes())
    return table


def draw_picture(
    root: str | Path = "data", folder: str | Path = FOLDER, *, size: str = "many", columns: int = 12
) -> Figure:
    """Draw people whom no generator was trained on, by every recorded generator that there is: README's first picture.

    A column is one person. Camera transfer moves the photograph to the other camera; the pose generators draw it again
    in the pose, or by the parse map, of another photograph of that person, which stands below; DG-Net puts the next
    person's clothes on. The columns are drawn by a fixed seed.
    """
    bench = load("procedural", root, (64, 32), size=size, seed=SEED, scene=SCENE, network=NETWORK)
    held = extend(bench.query, bench.gallery)
    a, b = CAMERAS
    seen = held.select(camids=b)
    row_in_b = {pid: row for row, pid in reversed(list(enumerate(seen.pids.tolist())))}  # the first photograph there
    people = held.select(indices=(held.pids >= 0) & (held.camids == a) & torch.isin(held.pids, seen.pids))
    pairs = some_pairs(people, PAIRS, "same_camera")
    first = {int(people.pids[source]): row for row, source in reversed(list(enumerate(pairs[:, 0].tolist())))}
    pairs = pairs[sorted(first.values())[:columns]]
    source, target = (people.batch(column) for column in pairs.T)
    rows = {f"photograph\n(camera {a})": source["images"]}
    for method in load_recorded(["camera_transfer-4"], folder=folder).values():
        drawn = transfer(method, extend(people, seen), a, b, subset=pairs[:, 0], seed=SEED)
        rows[f"moved to camera {b}\n(camera transfer)"] = drawn.images
        there = [row_in_b[pid] for pid in source["pids"].tolist()]
        rows[f"really photographed\nby camera {b}"] = seen.batch(there)["images"]
    asked = {"pn_gan": "pose", "pose_attention": "pose", "semantic_attention": "parse map"}
    wanted = {
        "pose": poses.skeleton_images(target["keypoints"], people.image_size),
        "parse map": figures.parse_pictures(target["parsing"]),
    }
    for name, method in load_recorded(asked, folder=folder).items():
        rows.setdefault(f"{asked[name]}\nasked for", wanted[asked[name]])
        title = {"pn_gan": "PN-GAN", "pose_attention": "pose attention", "semantic_attention": "SAN"}[name]
        rows[f"drawn\n({title})"] = synthesise(method, people, pairs, targets=people).images
    rows["the photograph\nin that pose"] = target["images"]
    if (resolve(folder) / "dg_net.safetensors").is_file():
        clothes = torch.stack([pairs[:, 0].roll(-1), pairs[:, 0]], 1)  # of the next person
        drawn = synthesise(recorded_dg_net(folder=folder)[0], people, clothes, targets=people)
        rows["photograph, in the\nnext one's clothes\n(DG-Net)"] = drawn.images
    return figures.image_rows(rows, height=1.15)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `reidlib generators`."""
    parser.add_argument("name", nargs="*", help=f"which; default all of {', '.join(PLANS)}")
    parser.add_argument("--root", default="data", help="where the people are rendered to (default: data)")
    parser.add_argument("--folder", default=FOLDER, help=f"where the weights go (default: {FOLDER})")
    parser.add_argument("--size", default="many", help="how many people: smoke, course or many (default)")
    parser.add_argument("--images-seen", type=int, help="length of each training in pairs (default: each one's own)")
    parser.add_argument("--identities", type=int, help="train on so many people only (default: all)")
    parser.add_argument(
        "-p",
        dest="switches",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a switch of the method in place of the plan's, e.g. -p lambda_gan 1",
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="train nothing: draw README's picture by those that are there"
    )


def run(given: argparse.Namespace) -> int:
    """Make recorded generators and print what their judges say."""
    with reading_inputs():
        for name in given.name:
            check_choice("name", name, PLANS)
        switches = {name: literal(value.removeprefix(" ")) for name, value in given.switches}
    if given.picture:
        with atomic_path(resolve(given.picture)) as temporary:
            figure = draw_picture(given.root, given.folder, size=given.size)
            options = dict(
                format=Path(given.picture).suffix[1:], dpi=90, bbox_inches="tight", pil_kwargs={"quality": 88}
            )
            figure.savefig(temporary, **options)
        return 0
    options = {n: getattr(given, n) for n in ("root", "folder", "size", "images_seen", "identities")}
    for name in given.name or PLANS:
        print(f"{name}\n{make_generator(name, switches=switches, **options).round(3).to_string()}", flush=True)
    return 0
