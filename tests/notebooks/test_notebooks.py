"""Every notebook: its form, and a whole run by papermill on a Market-1501 folder, from another working folder."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from reidlib.course.settings import SHARED, read_parameters
from reidlib.datasets import procedural
from reidlib.files import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
pytestmark = pytest.mark.xdist_group("notebooks")  # one process renders the data for all of them


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_shared_parameters_stand_first_and_are_explained(notebook):
    parameters = read_parameters(notebook)  # raises for a line without type, literal or comment
    assert tuple(parameters)[: len(SHARED)] == SHARED
    assert parameters["profile"].default == "course" and parameters["dataset"].default == "procedural"


def test_form(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not any(cell.outputs or cell.execution_count for cell in code), "strip the outputs before you commit"
    assert max(len(cell.source.splitlines()) for cell in code) <= 40
    lines = sum(len([line for line in cell.source.splitlines() if line.strip()]) for cell in code)
    assert len(text.split()) / lines >= 1.5
    headings = [line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("## ")]
    closing = ["what did not match, and why", "summary", "exercises"]
    assert headings[-3:] == closing
    assert cells[0].source.startswith(f"# {notebook.stem[:2]} · ") and "**Question.**" in cells[0].source
    assert "run.finish(" in code[-1].source


@pytest.mark.parametrize(
    "name", ["03_camera_transfer", "04_pn_gan", "05_pose_attention", "06_semantic_attention", "07_dg_net"]
)
def test_a_paper_stands_in_two_parts_with_one_step_written_out(name):
    cells = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4).cells
    starts = {
        heading: next(i for i, cell in enumerate(cells) if cell.source.startswith(heading))
        for heading in ("# Part 1 · The method", "# Part 2 · The tables", "## What did not match, and why")
    }
    method, tables, end = starts.values()
    code = [cell.source for cell in cells[:end] if cell.cell_type == "code"]
    assert method < tables < end and len(code) <= 30
    assert sum(len([line for line in source.splitlines() if line.strip()]) for source in code) <= 450
    steps = [s for s in code if "library.training_step(batch" in s and "library.get_parameter(name)" in s]
    assert len(steps) == 1 and cells.index(next(c for c in cells if c.source == steps[0])) < tables
    of_re_id = name == "07_dg_net"  # a third step in a row
    assert steps[0].count("optimizer.step()") == 2 + of_re_id  # D's and G's


@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "07", "08", "09", "10"])
def test_two_parts_and_predictions(number):
    """Before a main result the reader is asked for a guess, in the text right above the cell."""
    (path,) = (REPOSITORY / "notebooks").glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    starts = [
        next(i for i, cell in enumerate(cells) if re.search(f"^{heading}", cell.source, re.M))
        for heading in ("# Part 1 · ", "# Part 2 · ", "## What did not match, and why")
    ]
    first, second = (
        [cell.source for cell in cells[start:end] if cell.cell_type == "code"]
        for start, end in pairwise(starts)  # after parameters and imports
    )
    assert starts == sorted(starts) and len(first) <= 20 and len(second) <= 10
    assert sum(len([line for line in source.splitlines() if line.strip()]) for source in first + second) <= 450
    asked = [i for i, cell in enumerate(cells) if "**Before you run this:**" in cell.source.split("\n\n")[-1]]
    assert len(asked) >= 4 and all(cells[i + 1].cell_type == "code" for i in asked)
    assert sum(cell.source.count("**Before you run this:**") for cell in cells) == len(asked)


def test_measured_times_are_noted(notebook):
    """The runner says beforehand how long the course takes; these are its source."""
    seconds = nbformat.read(notebook, as_version=4).metadata["reidlib"]["seconds_on_two_cores"]
    assert 0 < seconds["smoke"] <= 35 and 0 < seconds["course"] <= 360


def shape(function: ast.FunctionDef) -> str:
    """What a function does, whatever it and its names are called: its tree without names, docstrings and types."""
    tree = ast.parse(ast.unparse(function)).body[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        for field in ("id", "name", "arg", "annotation", "returns", "type_comment"):
            if hasattr(node, field) and not isinstance(node, ast.keyword):
                setattr(node, field, None)
    return ast.dump(tree)


def functions_of(source: str) -> dict[str, str]:
    """Functions of a notebook's code by shape; what is no more than one short line is nobody's."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return {shape(node): node.name for node in nodes if len(list(ast.walk(node))) > 12}


def test_no_function_stands_in_two_notebooks():
    seen: dict[str, str] = {}
    for path in NOTEBOOKS:
        source = "\n".join(cell.source for cell in code_cells(path))
        for form, name in functions_of(source).items():
            assert form not in seen, f"{name} of {path.stem} is {seen[form]} once more: it belongs in reidlib"
            seen[form] = f"{name} of {path.stem}"


def test_a_function_is_known_again_under_other_names():
    first = 'def mean(values: list) -> float:\n    """Mean."""\n    total = sum(values)\n    return total / len(values)'
    renamed = "def average(numbers):\n    s = sum(numbers)\n    return s / len(numbers)"
    other = "def average(numbers):\n    s = sum(numbers)\n    return s * len(numbers)"
    assert functions_of(first).keys() == functions_of(renamed).keys() != functions_of(other).keys()


def test_only_the_parameters_cell_annotates_names(notebook):
    """Settings.of takes the annotated names for parameters, also when its cell is run once more."""
    for cell in code_cells(notebook)[1:]:
        assert not [node for node in ast.parse(cell.source).body if isinstance(node, ast.AnnAssign)]


@pytest.fixture(scope="module")
def market_folder(tmp_path_factory) -> Path:
    """A rendered tree under the name of the real set: what somebody who has Market-1501 hands over."""
    root = tmp_path_factory.mktemp("real sets")
    made = procedural.make(root, size="smoke", progress=False)
    return Path(shutil.move(made, root / "Market-1501-v15.09.15"))


def run_smoke(notebook: Path, market: Path, workdir: Path, **given: str) -> dict:
    """Run with plain papermill, as a user might, and return results.json."""
    workdir.mkdir()
    parameters = {"profile": "smoke", "dataset": "market1501", "data_root": str(market.parent)}
    parameters |= {"output_root": str(workdir / "runs")} | given
    arguments = [text for name, value in parameters.items() for text in ("-p", name, value)]
    result = subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), "executed.ipynb", *arguments],
        cwd=workdir,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "random"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    (path,) = (workdir / "runs").glob("*/*/results.json")
    return json.loads(path.read_text())


def noise(cells: list) -> list[str]:
    """What of the executed code cells' output no student should see: warnings, traces of progress, raw Python."""
    found = []
    for output in [output for cell in cells for output in cell.get("outputs", [])]:
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        page = output.get("data", {}).get("text/html", "")
        if output.get("name") == "stderr" or output.output_type == "error":
            found.append(f"stderr: {text}")
        lines = [line for line in text.splitlines() if not line.startswith("Settings(")]
        raw = re.compile(r"Empty DataFrame|%\||it/s|\r|\d\.\d{9}|[{\[]'|\btensor\(|^<[a-z_.]+\.[A-Za-z]+ object at")
        found += [line for line in lines if raw.search(line)]
        found += re.findall(r"<td>[^<]*\.\.\.</td>", page)  # cut off
    return found


def said_of_00(values):
    """Which of four descriptions finds strangers of the same camera before the person in another one."""
    ratio = "other person same camera over same person other camera (mean distance)"
    nearer = [
        values[f"{description}/{ratio}"] < 1
        for description in ("whole image", "background only", "person only", "person only, light evened out")
        if f"{description}/{ratio}" in values  # a Market-1501 folder has no masks
    ]
    assert nearer == [True, True, True, False][: len(nearer)]


def said_of_01(values):
    """What the mistakes do, whom re-ranking helps, and that an offset a query spoils a threshold."""
    for name in ("histogram", "network"):
        of = {c: values[f"variants/{c}, {name}/mAP (plain AP)"] for c in ("the protocol, plain AP", *CHANGES)}
        protocol = of["the protocol, plain AP"]
        assert of["junk counted as wrong answers"] <= protocol <= of["distractors dropped"]
        assert values[f"{name}/mAP (trapezoid AP)"] <= values[f"{name}/mAP (plain AP)"] == protocol
    kept = values["variants/same-camera images kept as right answers, histogram/rank-1 (none)"]
    assert kept > values["histogram/rank-1"] + 0.5
    gain = {
        name: values[f"reranking/{name}, re-ranked, λ = 0.3/mAP (plain AP)"] - values[f"{name}/mAP (plain AP)"]
        for name in ("histogram", "network")
    }
    assert gain["network"] > gain["histogram"]
    assert values["verification/A/EER"] < values["verification/B/EER"]


def said_of_08(values):
    """Where generated pictures are worth something, by the recorded studies."""
    gain = {name.removeprefix("task/"): value for name, value in values.items() if name.startswith("task/")}
    one_camera = ("labels of camera 5 only, pictures of 6", "of camera 6, pictures of 3", "of camera 3, pictures of 2")
    one_camera += ("labels of camera 5, the generator's pairs of 5 and 6",)
    assert min(gain.pop(name) for name in one_camera) > 5
    assert 1 < gain.pop("labels of two cameras of six") < 4
    assert 5 < gain.pop("all cameras, a second network reads drawings") < 6.5  # the paper's pairs
    assert len(gain) == 4 and max(gain.values()) < 0
    assert 0.6 < values["luck/chosen on seeds 0 to 2"] - values["luck/checked on seeds 3 to 5"] < 1


def said_of_09(values):
    """What its text says of the recorded studies; more of them may make a sentence untrue."""
    wrong = {name.partition("/")[2]: share for name, share in values.items() if name.startswith("one run misleads")}
    assert values["sign_flip_p/ct14, 6 pairs"] == 12 / 64  # undecided, and five of its six pairs agree
    assert 0.0025 < values["sign_flip_p/ct14, 12 pairs"] < 0.0035  # decided, and eleven of its twelve
    assert (
        0.005 < wrong["its own pairs, from 3 points on"] < 0.015
        and 0.05 < wrong["its own pairs, effects below 3 points"] < 0.15
    )
    assert wrong["rows of different seeds, effects below 3 points"] > wrong["its own pairs, effects below 3 points"]
    assert 0.8 < values["spread/ratio"] < 1.1  # most dots lie along the line
    assert 0.2 < values["false alarms/95 %, after every pair"] < 0.3 and abs(values["power/24 pairs"] - 0.9) < 0.04
    assert values["false alarms/96.7%, after 6, 12 and 24"] <= 0.1
    assert abs(values["power/6 pairs"] - 0.25) < 0.06 and 0.5 < values["power/12 pairs"] < 2 / 3
    assert values["gain/below 25 %"] > 4 and values["gain/from 25 % on"] < -4
    assert values["guide/identity kept, rank-1"] > -values["guide/FID"] > 0.65 and abs(values["guide/PCK@0.1"]) < 0.65


CHANGES = ("junk counted as wrong answers", "distractors dropped")
SAID = {"00_data_tour": said_of_00, "01_retrieval_metrics": said_of_01}
SAID |= {"08_compare_methods": said_of_08, "09_ablations": said_of_09}


def test_runs_on_a_market_folder(notebook, market_folder, tmp_path):
    joint = {"mode": "joint"} if notebook.stem.startswith("05") else {}  # elsewhere it runs staged
    results = run_smoke(notebook, market_folder, tmp_path / "a folder with spaces", **joint)
    assert results["notebook"] == notebook.stem
    assert results["parameters"]["dataset"] == "market1501"
    assert results["metrics"] and results["figures"]
    assert not joint or "T1|market1501|SL|E, trained jointly/mAP (plain AP)" in results["metrics"]
    assert noise(code_cells(tmp_path / "a folder with spaces" / "executed.ipynb")) == []
    if notebook.stem in SAID:
        SAID[notebook.stem]({name: metric["value"] for name, metric in results["metrics"].items()})


def test_what_08_says_of_the_five_systems(tmp_path):
    """Whose person, pose, street and camera the recorded generators show, and what tells their pictures."""
    notebook = next(path for path in NOTEBOOKS if path.stem.startswith("08"))
    given = {"dataset": "procedural", "data_root": str(tmp_path)}
    results = run_smoke(notebook, tmp_path / "unused", tmp_path / "work", **given)
    found = {name: metric["value"] for name, metric in results["metrics"].items()}

    def whose(system, aspect, side):
        return found[f"whose/{system}/{aspect} is {side}'s"]

    for system in ("PN-GAN", "pose-attention", "SAN"):
        assert whose(system, "pose", "B") > 45 and whose(system, "street", "A") > 55
        assert whose(system, "camera", "A") > 85 and whose(system, "person", "A") > 60
    assert whose("model-4", "pose", "A") > 75 and whose("model-3", "pose", "B") > whose("model-3", "pose", "A")
    assert whose("DG-Net", "street", "B") == 100 and whose("DG-Net", "pose", "B") > 2 * whose("DG-Net", "pose", "A")
    for system in ("model-3", "model-4", "DG-Net", "paste", "colours"):
        assert whose(system, "camera", "B") > 85
    assert whose("paste", "pose", "A") > 75 and whose("paste", "street", "B") == 100
    assert whose("colours", "person", "A") >= max(whose(s, "person", "A") for s in ("model-3", "model-4", "DG-Net"))
    assert whose("A truly in B's pose", "pose", "B") > 80 and whose("A truly in B's pose", "person", "A") > 90
    chain = "chain/{}/all four".format
    assert found[chain("pose attention, then pasted by B's mask")] > found[chain("DG-Net alone")] > 25
    assert found[chain("model-3 alone")] < found[chain("DG-Net alone")]
    assert whose("another of camera 6", "street", "B") > 40  # what knowing the camera alone gives
    for system, aimed, away in (("paste", 6, 5), ("SAN", 5, 6)):
        to = f"crowd/{system}/FID to camera {{}}".format
        assert found[to(aimed)] < 20 < 80 < found[to(away)]
    by_detail = "crowd/{}/told by detail".format
    assert found[by_detail("A truly in B's pose")] < 0.65 and found[by_detail("paste")] > 0.75


def test_noise_is_found():
    def told(**output):
        return noise([{"outputs": [nbformat.v4.new_output(**output)]}])

    assert told(output_type="stream", name="stderr", text="UserWarning: old") == ["stderr: UserWarning: old"]
    lines = ["{'a': 1}", "['b']", "0.1234567890123", "50%|##   |", "tensor([1])", "Empty DataFrame"]
    assert told(output_type="stream", name="stdout", text="\n".join(["mAP 3.1 %", *lines])) == lines
    cut = {"text/html": "<td>detected bo...</td><td>whole</td>", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    assert told(output_type="display_data", data=cut) == ["<td>detected bo...</td>"]


def test_same_seed_same_numbers(market_folder, tmp_path):
    notebook = next(path for path in NOTEBOOKS if path.stem.startswith("02"))
    first, second = (run_smoke(notebook, market_folder, tmp_path / name)["metrics"] for name in ("one", "two"))
    assert first == second  # to the last digit


@pytest.mark.parametrize("network", ["dukemtmc", "cuhk03", "cuhk01", "msmt17"])
def test_one_parameter_takes_the_baseline_to_another_network(network, market_folder, tmp_path):
    """Its own layout, reader, cache, training and protocol."""
    notebook = next(path for path in NOTEBOOKS if path.stem.startswith("02"))
    given = {"dataset": "procedural", "network": network, "losses": "softmax", "camera_sets": "", "images_seen": "320"}
    results = run_smoke(notebook, market_folder, tmp_path / network, **given)
    rule = results["metrics"]["softmax/rank-1" + (" (separate views, single-shot x10)" if network == "cuhk03" else "")]
    assert 0 <= rule["value"] <= 1
