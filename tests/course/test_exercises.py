import torch

from reidlib.course.exercises import check


def numbers(generator):
    return (torch.rand(4, generator=generator),)


def test_right_answer_within_rounding(capsys):
    assert check(lambda x: float(x.sum()), lambda x: x.double().sum(), numbers)
    assert "right" in capsys.readouterr().out


def test_wrong_answers_are_shown_and_do_not_stop(capsys):
    def mean(x):
        return x.mean()

    def broken(x):
        return x.no_such_method()

    assert not check(mean, torch.sum, numbers)
    assert not check(broken, torch.sum, numbers)
    assert not check(lambda x: x, torch.sum, numbers)  # another shape
    assert not check(lambda x: "a", torch.sum, numbers)
    out = capsys.readouterr().out
    assert out.count("not yet") == 4
    assert "expected" in out and "AttributeError" in out
