"""Notebook 05: solutions that the library has too give the same, and cells that name and pick what is recorded."""

import re
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import torch

from reidlib.course import figures, paper_tables
from reidlib.course.exercises import TRIALS, check, exercise
from reidlib.course.settings import Settings
from reidlib.datasets.poses import heat_maps
from reidlib.files import REPOSITORY
from reidlib.generators.blocks import adain, style_statistics
from reidlib.generators.pose_attention import PAIRS_PER_EPOCH, PRESETS, PoseAttention
from reidlib.generators.pose_attention_networks import Generator, PAANBlock
from reidlib.losses import draw_quartets, quartet_loss
from reidlib.losses.adversarial import adversarial_loss

NOTEBOOK = REPOSITORY / "notebooks" / "05_pose_attention.ipynb"


def draws(number):
    """An exercise's solution, and its arguments in every trial."""
    task = exercise(f"05-{number}")
    return task.solution, [task.inputs(torch.Generator().manual_seed(trial)) for trial in range(TRIALS)]


def test_the_map_of_a_joint():
    joint_map, given = draws(1)
    for x, y, visible, height, width in given:
        keypoints = torch.zeros(1, 18, 3)
        keypoints[0, 4] = torch.tensor([x, y, float(visible)])
        torch.testing.assert_close(joint_map(x, y, visible, height, width), heat_maps(keypoints, (height, width))[0, 4])


def test_how_many_blocks_fit():
    most_blocks, given = draws(2)
    for size in [*given, (64, 32), (128, 64)]:
        n = most_blocks(*size)
        if n:
            Generator(width=1, n_blocks=n).check_size(size)
        with pytest.raises(ValueError, match="blocks halve images"):
            Generator(width=1, n_blocks=n + 1).check_size(size)
    assert most_blocks(64, 32) == 4 and most_blocks(128, 64) == 5


def test_losses():
    adversarial_terms, given = draws(3)
    for *scores, weight in given:
        wanted = weight * sum(adversarial_loss(score, True) for score in scores if score is not None)
        torch.testing.assert_close(adversarial_terms(*scores, weight), wanted)
    quartet, given = draws(6)
    for features, rows, *margins in given:
        wanted = quartet_loss(*(features[column] for column in rows.T), margins=tuple(margins))
        torch.testing.assert_close(quartet(features, rows, *margins), wanted)


def test_blocks():
    sent_back, given = draws(4)
    for *maps, back in given:
        block = PAANBlock(1, 1, halve=True)
        leaves = [one.clone().requires_grad_() for one in maps]
        for name, value in zip(("appearance_in", "appearance_out", "pose_out"), leaves, strict=True):
            setattr(block, name, torch.nn.Module())
            getattr(block, name).forward = lambda _, value=value: value
        block.pose_in = torch.nn.Identity()
        wanted = torch.autograd.grad(block(torch.zeros(1), torch.zeros(1))[0], leaves, back)
        for found, gradient in zip(sent_back(*maps, back), wanted, strict=True):
            torch.testing.assert_close(found, gradient)


def test_adain_inside_masks():
    inside, given = draws(5)
    for content, style, content_mask, style_mask in given:
        found = inside(content, style, content_mask, style_mask)
        assert torch.equal(found.masked_fill(content_mask, 0), content.masked_fill(content_mask, 0))
        for i in range(len(content)):  # what the masks leave is a picture of one row
            parts = [one[i][:, mask[i, 0]][None, :, None] for one, mask in
                     ((found, content_mask), (content, content_mask), (style, style_mask))]  # fmt: skip
            torch.testing.assert_close(parts[0], adain(parts[1], *style_statistics(parts[2])), rtol=1e-4, atol=1e-4)


def test_the_sign_of_x_does_not_stand_for_visible():
    task = exercise("05-1")
    assert not check(task, lambda x, y, visible, height, width: task.solution(x, y, x >= 0, height, width))


@pytest.mark.parametrize(
    ("eval_mode", "frozen", "detached", "ready", "words"),
    [
        (True, True, True, True, ""),
        (True, True, False, True, ""),  # frozen weights leave no gradient, detached or not
        (True, True, True, False, "left frozen and in evaluation mode"),
        (False, True, True, True, "E is in training mode"),
        (True, False, True, True, "a gradient from the drawing's feature"),
        (True, False, False, True, "a gradient from both features"),
        (False, False, False, True, "nothing is guarded yet"),
    ],
)
def test_the_guard_of_the_encoder_tells_its_mistakes_apart(eval_mode, frozen, detached, ready, words, capsys):
    task = exercise("05-8")
    report = task.solution.__globals__["report"]

    def guarded(E, G, source):
        E.train(not eval_mode).requires_grad_(not frozen)
        wanted = E(source)
        loss = (E(G(source)) - (wanted.detach() if detached else wanted)).abs().mean()
        if ready:
            E.train().requires_grad_(True)
        return report(loss, E, G)

    assert check(task, guarded) == (not words)
    assert words in capsys.readouterr().out


# ---- what is recorded


def cell(beginning: str) -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (source,) = [one.source for one in cells if one.cell_type == "code" and one.source.startswith(beginning)]
    return source


def table_3(image_size: str, n_blocks: int, profile: str = "course", experiments=("blocks", "components")) -> tuple:
    """Run the cells of Table 3 with networks that learn nothing: what they record, change and show."""
    recorded, changes, shown = {}, [], []
    run = SimpleNamespace(metrics=lambda name, scores: recorded.setdefault(name, scores))
    scores = SimpleNamespace(rank=lambda k: 0.5, mAP=0.25)
    values = dict(profile=profile, dataset="procedural", data_root="data", image_size=image_size, seed=0, device="cpu")
    values |= dict(output_root="runs", experiments=["auto"] if profile == "smoke" else list(experiments))
    names = {
        "settings": Settings(values, (128, 64)), "n_blocks": n_blocks, "pairing": "same_camera", "pd": pd,
        "usual_pairs": "same_camera",
        "data_name": "market1501", "run": run,
        "generator": "main", "pose_generator": lambda changed: (changes.append(changed) or changed, None),
        "main": {"Pose-guided re-ID (Ours)": scores}, "figures": figures, "display": shown.append,
        "reid": SimpleNamespace(augmented=lambda *_, **__: None, score_benchmark=lambda *_: scores),
        "reid_network": lambda _: (None, None), "drawn_pairs": None, "train": None, "bench": None,
        "paper_tables": paper_tables,
    }  # fmt: skip
    for beginning in ("MAIN = ", "NAME = ", "generators, lines = "):
        exec(cell(beginning), names)
    return recorded, changes, shown


def test_table_3_at_128x64_has_the_papers_seven_rows():
    recorded, changes, shown = table_3("128x64", 4)
    printed = paper_tables.printed("pose_attention")
    assert set(recorded) == set(printed[printed.table == "T3"].row) and len(recorded) == 7
    assert [one["n_blocks"] for one in changes if "n_blocks" in one] == [2, 3, 5]
    assert len(changes) == 6 and len(shown[0]) == 7


def test_table_3_at_another_size_says_so():
    recorded, changes, _ = table_3("auto", 3)
    assert recorded and all(name.endswith(" (at 64x32, 3 blocks in the whole model)") for name in recorded)
    assert [one["n_blocks"] for one in changes if "n_blocks" in one] == [2, 4]  # three are the whole model's
    recorded, changes, _ = table_3("128x64", 2)
    assert all(name.endswith(" (at 128x64, 2 blocks in the whole model)") for name in recorded)


def test_smoke_runs_a_row_of_blocks_and_one_of_components():
    recorded, changes, _ = table_3("auto", 3, "smoke")
    assert changes == [{"n_blocks": 2}, {"use_appearance_discriminator": False}] and len(recorded) == 3


def test_recorded_means_keep_the_studies_apart():
    shown = []
    lines = [("tables", 0, 0.2), ("tables", 1, 0.4), ("pairings", 0, 0.8), ("ablations", 0, 0.9)]
    found = pd.DataFrame(
        [(f"05_pose_attention.{study}", "pairs/this run/PCK@0.1", seed, value) for study, seed, value in lines],
        columns=["study", "metric", "seed", "value"],
    )
    stub = SimpleNamespace(check_claims=lambda *_: None, summary=str, readable=lambda _: None)
    stub.against, stub.mean_text = paper_tables.against, paper_tables.mean_text
    values = {"real only": 3.0, "copy": 5.0, "real only (pairs: all)": 1.0, "Ours (Ours) (pairs: all)": 2.5}
    values |= {"real only (128x64)": 8.0, "copy (128x64)": 7.0}
    rows = [(f"T1|market1501|SL|{row}", metric, 0, values[row]) for row in values for metric in ("rank1", "mAP")]
    rows = pd.DataFrame([*rows, ("T3|x|y|copy", "mAP", 0, 9.0)], columns=["row", "metric", "seed", "value"])
    names = {
        "paper_tables": stub, "rows": rows, "found": found, "display": shown.append, "partial": partial, "re": re,
        "sweeps": SimpleNamespace(one_start=lambda rows: rows), "run": SimpleNamespace(figure=lambda *_: None),
        "figures": SimpleNamespace(claims_board=lambda _: None),
    }  # fmt: skip
    exec(cell("claims = "), names)
    *_, gains, table = shown
    assert gains["difference"].xs("mAP", level=1).tolist() == [2.0, 1.5, -1.0]
    (line,) = table.rename(columns=lambda study: study.partition(".")[2]).to_dict("records")
    assert line == {"tables": "0.300 ± 0.141", "pairings": "0.800", "ablations": "0.900"}


def test_the_trap_names_both_constants_and_moves_what_the_text_says():
    names = {"torch": torch, "pd": pd, "quartet_loss": quartet_loss, "run": SimpleNamespace(metrics=lambda *_, **__: 0)}
    exec(cell("four, lines = "), names)
    table = pd.DataFrame(names["lines"]).T
    assert all("tau2" in name or "m2" in name for name in table.index)
    trap = table.loc["max, tau1 = +0.5, tau2 = 0.1"]
    moved = [abs(trap[f"gradient at {i}"]) > 0 for i in (1, 2, 3, 4)]
    assert moved == [True, True, False, False]


def test_the_library_draws_from_every_quartet():
    all_quartets, given = draws(7)
    for (labels,) in given:
        every = {tuple(row) for row in all_quartets(labels).tolist()}
        drawn = draw_quartets(labels, torch.Generator().manual_seed(0), n=40 * len(every))
        assert {tuple(row) for row in drawn.tolist()} == every


@pytest.mark.parametrize(
    ("profile", "epoch", "size", "seen"), [("paper", 4000, (128, 64), (256, 128)), ("course", None, (64, 32), (64, 32))]
)
def test_the_papers_profile_draws_pairs_and_sizes_as_published(profile, epoch, size, seen):
    """4,000 pairs an epoch, and E sees 256x128; the course takes all pairs, and E the generator's size."""
    given = []
    values = dict(profile=profile, dataset="procedural", data_root="data", image_size="auto", seed=0, device="cpu")
    values |= dict(output_root="runs", n_blocks=0, adain="auto", mode="auto", lambda_semantic=10.0, lambda_guide=0)
    values |= dict(gan_images_seen=0, use_appearance_discriminator=True, use_pose_discriminator=True)
    names = {
        "settings": Settings(values, (128, 64)), "preset": profile, "pairing": "all", "PoseAttention": PoseAttention,
        "torch": torch, "PAIRS_PER_EPOCH": PAIRS_PER_EPOCH, "partial": lambda kind, **options: options,
        "E": SimpleNamespace(embedder=None), "train": SimpleNamespace(has=lambda _: True),
        "run": SimpleNamespace(device="cpu", path=lambda *names: names), "pose_attention_pairs": lambda *_: None,
        "runs": SimpleNamespace(run_id=str),
        "train_generator": lambda build, *_, **options: given.append((build, options)),
    }  # fmt: skip
    exec(cell("torch.manual_seed(settings.seed)\nn_blocks").split("method = ")[0], names)
    exec(cell("gan_seen = "), names)
    names["pose_generator"]()
    ((build, options),) = given
    assert options["run_dir"][0] == "training"  # a study that was stopped goes on within a pair
    assert options["pairs_per_epoch"] == epoch and (PRESETS[profile] | build)["encoder_size"] == seen
    assert build["image_size"] == size


def test_masks_are_laid_over_the_image():
    names = {"torch": torch, "F": torch.nn.functional, "plt": plt, "settings": SimpleNamespace(size=(8, 4))}
    exec(cell("def over(").split("\n\n\n")[0], names)
    dark, light = torch.zeros(2, 3, 8, 4), torch.ones(2, 3, 8, 4)
    masks = [torch.zeros(2, 5, 2, 1), torch.ones(2, 5, 4, 2)]
    over = [names["over"](pictures, masks) for pictures in (dark, light)]
    assert over[0].shape == (4, 3, 8, 4) and all(one.min() >= 0 and one.max() <= 1 for one in over)
    torch.testing.assert_close(over[1] - over[0], torch.full((4, 3, 8, 4), 0.5))
    assert (over[0][2:].sum(1) > over[0][:2].sum(1)).all()  # an open mask is brighter than a closed one


class People(list):
    """Images of which only the renderer's table is known."""

    info = pd.DataFrame(
        [
            ("none", 0),
            ("bicycle", 0.1),
            ("bicycle", 0.5),
            ("pole", 0.3),
            ("person", 0.2),
            ("bicycle", 0.4),
            ("pole", 0),
        ],
        columns=["occluder", "occluded"],
    )


def test_covered_photographs_are_picked_by_what_stands_in_front():
    every = torch.cartesian_prod(torch.arange(7), torch.arange(2))
    shown, pictures = [], SimpleNamespace(images=torch.zeros(4, 3, 8, 4))
    names = {
        "torch": torch, "tested": every[:2], "judges": None, "rendered": True, "artist": None, "pairing": "all",
        "people": People(range(7)), "whose_weights": "", "run": SimpleNamespace(figure=lambda *_: None),
        "pn_gan": SimpleNamespace(some_pairs=lambda *_: every), "synthesise": lambda *_, **__: pictures,
        "beside": lambda chosen, _, labels: shown.append((chosen[:, 0].tolist(), labels)),
    }  # fmt: skip
    exec(cell("made, kinds = "), names)
    assert shown == [([0, 0, 2, 5, 4, 3], ["", "", "bicycle", "bicycle", "passer-by", "pole"])]


def test_table_3_of_the_paper_stands_where_none_runs(capsys):
    recorded, _, shown = table_3("auto", 3, "course", [])
    assert recorded == {} and len(shown[0]) == 7 and "the paper's own numbers" in capsys.readouterr().out
