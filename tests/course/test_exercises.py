import pytest
import torch

from reidlib.course.exercises import TRIALS, Exercise, check, exercise, exercises_of


def numbers(generator):
    return (torch.rand(4, generator=generator),)


SUM = Exercise(
    "09-1",
    lambda x: x.double().sum(),
    numbers,
    {
        "that is the mean": lambda x: x.mean(),
        "that is the product": lambda x: x.prod(),
        "a list has no shape": lambda x: x.tolist().shape,
        "that is one number of them": lambda x: x[0],
    },
)


def told(capsys, answer, task=SUM):
    """What a reader is told about a wrong answer."""
    assert not check(task, answer)
    return capsys.readouterr().out


def test_right_answer_within_the_tolerance(capsys):
    assert check(SUM, lambda x: float(x.sum()))
    assert f"right: <lambda> agrees with the solution on {TRIALS} random inputs" in capsys.readouterr().out
    assert not check(SUM, lambda x: x.sum() * 1.0001)
    assert check(Exercise("09-1", SUM.solution, numbers, tolerance=1e-3), lambda x: x.sum() * 1.0001)


def test_wrong_answers_are_shown_and_do_not_stop(capsys):
    def broken(x):
        return x.no_such_method()

    assert told(capsys, broken).startswith("not yet: broken raised AttributeError")
    assert "expected tensor(" in told(capsys, lambda x: x)  # another shape
    assert "likely" not in told(capsys, lambda x: "a")
    assert told(capsys, lambda x: None) == "not yet: <lambda> returned None\n"


def test_a_known_wrong_answer_is_told_its_misconception(capsys):
    assert told(capsys, lambda x: x.sum() / 4).endswith("  likely: that is the mean\n")
    assert told(capsys, lambda x: x[0]).endswith("  likely: that is one number of them\n")
    assert told(capsys, lambda x: list(x.tolist()).shape).endswith("  likely: a list has no shape\n")  # the same error
    assert "likely" not in told(capsys, lambda x: x.mean() if x[0] < 0.9 else x.sum())  # equal on some inputs only


def test_constants_and_special_cases_fail(capsys):
    first = SUM.solution(*numbers(torch.Generator().manual_seed(0)))
    assert "input" in told(capsys, lambda x: first)


def test_every_call_has_inputs_of_its_own():
    def changes(x):
        x.mul_(2)
        return x.sum() / 2

    assert check(SUM, changes)


def test_several_results_are_compared_one_by_one():
    both = Exercise("09-2", lambda x: (x.sum(), x), numbers)
    assert check(both, lambda x: [x.sum(), x.tolist()])
    for wrong in (lambda x: (x.sum(),), lambda x: (x.sum(), x + 1), lambda x: x.sum()):
        assert not check(both, wrong)


def test_exercises_are_found_by_notebook_and_number(tmp_path):
    source = "from reidlib.course.exercises import Exercise\n"
    for k in (1, 2):
        source += f"task_{k} = Exercise('09-{k}', lambda x: {k} * x, lambda g: (1,))\n"
    (tmp_path / "09_made_up.py").write_text(source)
    assert list(exercises_of(tmp_path / "09_made_up.py")) == ["09-1", "09-2"]
    assert exercise("09-2", tmp_path).solution(3) == 6
    with pytest.raises(ValueError, match=r"09_made_up\.py has 09-1, 09-2"):
        exercise("09-3", tmp_path)
    with pytest.raises(ValueError, match="found 0"):
        exercise("08-1", tmp_path)
    with pytest.raises(ValueError, match="such as '03-2'"):
        exercise("3-2", tmp_path)
