"""Every exercise: its solution passes; wrong answers, placeholders and constants fail; notebooks and files agree."""

import inspect
import re

import nbformat
import pytest
import torch

from reidlib.course.exercises import SOLUTIONS, TRIALS, check, exercise, exercises_of
from reidlib.embedders.recipes import COURSE
from reidlib.evaluators.metric_learning import xqda_space
from reidlib.generators.blocks import PatchDiscriminator
from reidlib.losses import adversarial, batch_hard_triplet, label_smoothing
from reidlib.losses.reconstruction import variable_losses

FILES = sorted(SOLUTIONS.glob("[0-9][0-9]_*.py"))
EXERCISES = [task for path in FILES for task in exercises_of(path).values()]
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_exercise = pytest.mark.parametrize("task", EXERCISES, ids=lambda task: task.name)


def third_part(path) -> list:
    """The cells of a file's notebook from the exercises on."""
    cells = nbformat.read(SOLUTIONS.parent / f"{path.stem}.ipynb", as_version=4).cells
    start = next(i for i, cell in enumerate(cells) if re.search("^## Exercises", cell.source, re.M))
    return cells[start:]


def answer_of(source):
    """Run an exercise's cell as it stands and return the function that it hands to the check."""
    handed = []
    exec(source, {"torch": torch, "exercise": exercise, "check": lambda task, answer: handed.append(answer)})
    (answer,) = handed
    return answer


@every_exercise
def test_solution_passes_and_a_constant_fails(task):
    assert check(task, task.solution)
    first = task.solution(*task.inputs(torch.Generator().manual_seed(0)))
    assert not check(task, lambda *_: first)


@every_exercise
def test_wrong_answers_fail_and_are_named(task, capsys):
    for misconception, wrong in task.wrong.items():
        assert not check(task, wrong)
        assert capsys.readouterr().out.endswith(f"  likely: {misconception}\n")


@every_file
def test_a_notebook_has_typical_wrong_answers(path):
    assert sum(len(task.wrong) for task in exercises_of(path).values()) >= 5
    assert all(name.startswith(path.stem[:2] + "-") for name in exercises_of(path))


@every_file
def test_notebook_and_file_name_the_same_exercises(path):
    code = [cell.source for cell in third_part(path) if cell.cell_type == "code"][:-1]  # the last finishes the run
    named = [re.search(r'check\(exercise\("(\d\d-\d+)"\), \w+\)', source) for source in code]
    assert all(named) and [match[1] for match in named] == list(exercises_of(path))


@every_file
def test_every_placeholder_returns_none_and_fails(path, capsys):
    for source in [cell.source for cell in third_part(path) if cell.cell_type == "code"][:-1]:
        task, answer = exercise(re.search(r'exercise\("(.+?)"\)', source)[1]), answer_of(source)
        assert answer(*task.inputs(torch.Generator())) is None
        assert not check(task, answer)
        assert capsys.readouterr().out == f"not yet: {answer.__name__} returned None\n"
        assert inspect.signature(answer) == inspect.signature(task.solution)


@every_file
def test_eight_graded_exercises_with_folded_hints(path):
    cells = third_part(path)
    text = [cell.source for cell in cells if cell.cell_type == "markdown"]
    head = re.compile(r"^\*\*(\d) · [^*]+\*\* \((easy|medium|hard), (?:\d+ min|an hour)\)\. ", re.M)
    heads = [found.groups() for source in text for found in head.finditer(source)]
    assert [number for number, _ in heads] == list("12345678")
    assert {level for _, level in heads} == {"easy", "medium", "hard"}
    checked = [name.split("-")[1] for name in exercises_of(path)]
    assert len(checked) >= 6
    for source in text:
        number = head.search(source)[1]
        assert source.count("<details><summary>Hint</summary>\n\n") == 1
        assert (f"notebooks/solutions/{path.name}" in source) == (number in checked)
        assert source.count("<details>") == source.count("\n</details>") == 1 + (number in checked)
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert len(code) <= 16 and sum(len([x for x in c.splitlines() if x.strip()]) for c in code) <= 160


def draws(name):
    """An exercise's solution, and its arguments in every trial."""
    task = exercise(name)
    return task.solution, [task.inputs(torch.Generator().manual_seed(trial)) for trial in range(TRIALS)]


def test_solutions_of_02_are_what_the_library_does():
    target, given = draws("02-1")
    for label, n_classes, epsilon in given:
        logits = torch.randn(1, n_classes, generator=torch.Generator().manual_seed(n_classes))
        ours = -(target(label, n_classes, epsilon) * logits.log_softmax(1)).sum()
        torch.testing.assert_close(ours, label_smoothing(logits, torch.tensor([label]), epsilon))
    factor = exercise("02-3").solution
    units = range(1, COURSE.length + 1)
    assert [factor(u, COURSE.warmup, COURSE.length) for u in units] == pytest.approx([*map(COURSE.factor, units)])
    rows_of, given = draws("02-5")
    for features, pids, _ in given:  # every image in a camera of its own: the batch-hard triplets
        distances = torch.cdist(features, features)
        positive, negative = rows_of(features, pids, torch.arange(len(pids))).T
        rows = torch.arange(len(pids))
        loss = (distances[rows, positive] - distances[rows, negative] + 0.3).clamp(min=0).mean()
        torch.testing.assert_close(loss, batch_hard_triplet(features, pids))
    matrix, given = draws("02-6")
    for intra, extra in given:
        space = xqda_space(intra, extra, solver="eig")
        torch.testing.assert_close(matrix(intra, extra), torch.from_numpy(space.basis @ space.metric @ space.basis.T))


def test_solutions_of_03_are_what_the_library_does():
    d_loss, given = draws("03-2")
    for real, fake in given:
        torch.testing.assert_close(d_loss(real, fake), adversarial.discriminator_loss(real, fake))
    g_loss, given = draws("03-3")
    for scores, fake, target, weight in given:
        gan = adversarial.adversarial_loss(scores, True)
        torch.testing.assert_close(g_loss(scores, fake, target, weight), gan + weight * (fake - target).abs().mean())
    overfit, given = draws("03-6")
    for (network, x, y, steps, lr), (same, *_) in zip(given, draws("03-6")[1], strict=True):
        optimizer, losses = torch.optim.SGD(same.parameters(), lr=lr), []
        for _ in range(steps + 1):
            losses.append(torch.nn.functional.l1_loss(same(x), y))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
        torch.testing.assert_close(overfit(network, x, y, steps, lr), torch.stack(losses).detach())
    weighted, given = draws("03-7")
    for generated, source, target, m_in, m_out, fg, bg in given:
        terms = variable_losses(generated, target, target_mask=m_out)
        wanted = fg * terms.foreground + bg * terms.background
        torch.testing.assert_close(weighted(generated, source, target, m_in, m_out, fg, bg), wanted)


def test_receptive_field_of_the_library_s_discriminator():
    """By gradients, on an image larger than the field; the notebook says how much of a 64x32 image that is."""
    network = PatchDiscriminator(1, width=2).eval()
    layers = [layer for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]
    field = exercise("03-5").solution([(layer.kernel_size[0], layer.stride[0]) for layer in layers])

    def rows_seen(height, width, row):
        image = torch.randn(1, 1, height, width, requires_grad=True)
        scores = network(image)
        (gradient,) = torch.autograd.grad(scores[0, 0, row, scores.shape[3] // 2], image)
        return [int((gradient.abs().sum(dim) > 0).sum()) for dim in ((0, 1, 3), (0, 1, 2))]

    assert field == 70 and rows_seen(160, 160, 9) == [70, 70]
    assert [rows_seen(64, 32, row) for row in range(6)] == [[rows, 32] for rows in (47, 55, 63, 63, 55, 47)]
