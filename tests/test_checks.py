"""Checks at the door: one form of refusal, and long lists cut."""

import pytest

from reidlib.checks import check_choice, some


def test_what_is_accepted_passes_without_a_word():
    for value, accepted in (
        ("a", ("a", "b")),
        (None, (None, "a")),
        (2, [1, 2]),
        ("smoke", {"smoke": 1}),
        (1, range(3)),
    ):
        assert check_choice("name", value, accepted) is None


@pytest.mark.parametrize(
    ("value", "accepted", "said"),
    [
        ("c", ("a", "b"), "ap must be one of 'a', 'b'; got 'c'"),
        ("A", ("a", "b"), "ap must be one of 'a', 'b'; got 'A'"),
        (3, (1, 2), "ap must be one of 1, 2; got 3"),
        ("1", (1, 2), "ap must be one of 1, 2; got '1'"),
        (None, {"smoke": 0, "course": 1}, "ap must be one of 'smoke', 'course'; got None"),
        ("a", (None, "lsr"), "ap must be one of None, 'lsr'; got 'a'"),
        ("a", ("ab", "ac"), "ap must be one of 'ab', 'ac'; got 'a'"),  # a part of a name is none of them
    ],
)
def test_what_is_not_accepted_is_shown_with_all_that_is(value, accepted, said):
    with pytest.raises(ValueError) as caught:
        check_choice("ap", value, accepted)
    assert str(caught.value) == said


def test_a_long_list_is_cut_and_its_rest_counted():
    assert some([]) == ""
    assert some(["a"]) == "a"
    assert some(list("abcde")) == "a, b, c, d, e"  # five by default, none left over
    assert some(list("abcdef")) == "a, b, c, d, e and 1 more"
    assert some(range(10), most=3) == "0, 1, 2 and 7 more"
    assert some({"x": 1, "y": 2, "z": 3}, most=1) == "x and 2 more"
