import numpy as np
import pytest

from minirl.exercises.verdict import Verdict, compare, compare_function


def square(x):
    return x**2


def test_only_right_is_true():
    assert Verdict("right", "")
    assert not Verdict("wrong", "")
    assert not Verdict("unanswered", "")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (2.0, "right"),
        (2.0 + 1e-7, "right"),
        (2.0 + 1e-4, "wrong"),
        (np.float32(2.0), "right"),
        ([2.0], "wrong"),
        ("two", "wrong"),
        (np.nan, "wrong"),
        (np.inf, "wrong"),
        (None, "unanswered"),
        (..., "unanswered"),
    ],
)
def test_outcomes_of_a_number(answer, outcome):
    assert compare(answer, 2.0).outcome == outcome


def test_words():
    assert compare("truncated", "truncated")
    assert compare("terminated", "truncated").message == "Not yet: 'terminated' is another word."


def test_tolerances_are_the_callers():
    assert compare(2.1, 2.0, rtol=0.1)
    assert compare(0.1, 0.0, atol=0.2)
    assert not compare(0.1, 0.0)


def test_nan_is_right_only_where_it_is_exact():
    assert compare([1.0, np.nan], [1.0, np.nan])
    assert not compare([1.0, 2.0], [1.0, np.nan])


def test_a_known_mistake_is_named_and_an_unknown_one_measured():
    mistakes = {"the sign is wrong": -2.0}
    assert compare(-2.0, 2.0, mistakes=mistakes).message == "Not yet: the sign is wrong."
    assert compare(5.0, 2.0, mistakes=mistakes).message == "Not yet: off by up to 3."


def test_a_right_answer_is_right_though_a_mistake_gives_it_too():
    assert compare(2.0, 2.0, mistakes={"never said": 2.0})


def test_a_function_must_be_right_in_every_case():
    cases = [(2.0,), (3.0,)]
    assert compare_function(square, square, cases)
    assert compare_function(lambda x: 2 * x, square, cases).outcome == "wrong"


def test_a_mistake_must_explain_every_case():
    mistakes = {"that doubles": lambda x: 2 * x}
    doubled = compare_function(lambda x: 2 * x, square, [(2.0,), (3.0,)], mistakes=mistakes)
    assert doubled.message == "Not yet: that doubles."
    other = compare_function(
        lambda x: 2 * x if x < 4 else 7.0, square, [(3.0,), (4.0,)], mistakes=mistakes
    )
    assert other.message == "Not yet in case 1 of 2: off by up to 3."


def test_a_stub_is_unanswered():
    def stub(x): ...

    assert compare_function(stub, square, [(2.0,)]).outcome == "unanswered"


def test_an_answer_cannot_change_the_case_it_is_judged_by():
    def spoiling(x):
        x[:] = 0
        return x

    assert not compare_function(spoiling, lambda x: x, [(np.ones(2),)])


def test_an_exception_is_the_readers_to_see():
    with pytest.raises(ZeroDivisionError):
        compare_function(lambda x: x / 0, square, [(2.0,)])
