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
        ([..., ...], "unanswered"),
        ((1.0, ...), "unanswered"),
    ],
)
def test_outcomes_of_a_number(answer, outcome):
    assert compare(answer, 2.0).outcome == outcome


def test_words():
    assert compare("truncated", "truncated")
    wrong = compare("terminated", "truncated")
    assert wrong.message == "Not yet: 'terminated' is not the right word."


@pytest.mark.parametrize("answer", [np.ones(3), 1.0, ["truncated"]])
def test_no_word_where_a_word_is_asked_for(answer):
    message = compare(answer, "truncated").message
    assert message == f"Not yet: the answer should be a word, but it is {answer!r}."


def test_tolerances_are_the_callers():
    assert compare(2.1, 2.0, rtol=0.1)
    assert compare(0.1, 0.0, atol=0.2)
    assert not compare(0.1, 0.0)


def test_nan_is_right_only_where_it_is_exact():
    assert compare([1.0, np.nan], [1.0, np.nan])
    assert not compare([1.0, 2.0], [1.0, np.nan])


def test_a_difference_that_cannot_be_measured_is_no_warning():
    assert compare(np.inf, np.nan).message == "Not yet: a number is missing or infinite."
    assert compare(1.0, np.nan).message == "Not yet: a number is missing or infinite."


def test_a_known_mistake_is_named_and_an_unknown_one_measured():
    mistakes = {"the sign is wrong": -2.0}
    assert compare(-2.0, 2.0, mistakes=mistakes).message == "Not yet: the sign is wrong."
    assert compare(5.0, 2.0, mistakes=mistakes).message == "Not yet: off by up to 3."


def test_a_right_answer_is_right_though_a_mistake_gives_it_too():
    assert compare(2.0, 2.0, mistakes={"this hint is never shown": 2.0})


def test_a_function_must_be_right_in_every_case():
    cases = [(2.0,), (3.0,)]
    assert compare_function(square, square, cases)
    assert compare_function(lambda x: 2 * x, square, cases).outcome == "wrong"


def double(x):
    """This doubles the number."""
    return 2 * x


def test_a_mistake_must_explain_every_case():
    doubled = compare_function(lambda x: 2 * x, square, [(2.0,), (3.0,)], mistakes=[double])
    assert doubled.message == "Not yet: this doubles the number."
    other = compare_function(
        lambda x: 2 * x if x < 4 else 7.0, square, [(3.0,), (4.0,)], mistakes=[double]
    )
    assert other.message == "Not yet in case 1 of 2: off by up to 3."


def test_the_first_mistake_that_explains_the_answer_is_named():
    def also_double(x):
        """Not the first."""
        return x + x

    doubled = compare_function(double, square, [(3.0,)], mistakes=[double, also_double])
    assert doubled.message == "Not yet: this doubles the number."


@pytest.mark.parametrize(
    ("docstring", "message"),
    [
        ("A factor is missing.", "a factor is missing."),
        ("V(s') is missing.", "V(s') is missing."),
        (
            "KL(p || q) averages over p. Exchange them.",
            "KL(p || q) averages over p. Exchange them.",
        ),
        ("TRPO takes the longest step.", "TRPO takes the longest step."),
        ("M has a second part.", "M has a second part."),
        ("d is no distribution.", "d is no distribution."),
        ("Here, a factor\n        is missing.\n        ", "here, a factor is missing."),
    ],
)
def test_a_hint_continues_the_sentence_and_symbols_keep_their_capital(docstring, message):
    def mistake(x):
        return 2 * x

    mistake.__doc__ = docstring
    result = compare_function(double, square, [(3.0,)], mistakes=[mistake])
    assert result.message == f"Not yet: {message}"


@pytest.mark.parametrize("docstring", [None, "No full stop"])
def test_a_mistake_needs_a_sentence_as_its_docstring(docstring):
    def mistake(x): ...

    mistake.__doc__ = docstring
    with pytest.raises(ValueError, match=r"the docstring of .*mistake must be a hint .* full stop"):
        compare_function(double, square, [(3.0,)], mistakes=[mistake])


def test_a_stub_is_unanswered():
    def stub(x): ...

    assert compare_function(stub, square, [(2.0,)]).outcome == "unanswered"
    assert compare_function(lambda x: [...] * 2, square, [(2.0,)]).outcome == "unanswered"


def test_an_empty_function_is_a_stub_whatever_its_empty_body_is():
    def passing(x):
        pass

    def documented(x, y=1):
        """Only a docstring."""

    def dotted(*numbers):
        """A docstring and dots."""
        ...  # noqa: PIE790

    def returning_dots(x):
        return ...

    for stub in (passing, documented, dotted, returning_dots, lambda x: None):
        assert compare_function(stub, square, [(2.0,), (3.0,)]).outcome == "unanswered"


def test_a_forgotten_return_is_named():
    def forgetful(x):
        result = x**2  # noqa: F841

    def loop(x):
        for _ in range(2):
            x = x**2

    class Callable:
        def __call__(self, x): ...

    for answer in (forgetful, loop, Callable()):
        result = compare_function(answer, square, [(2.0,), (3.0,)])
        assert result.outcome == "wrong"
        assert result.message == (
            "Not yet: the function returned None; add `return` in front of its result."
        )


@pytest.mark.parametrize(
    ("nothing", "message"),
    [
        (None, "the function returned None; add `return` in front of its result"),
        (..., "the function returned ..., which is not an answer"),
    ],
)
def test_nothing_in_some_cases_only_is_a_wrong_answer(nothing, message):
    def forgetful(x):
        return x**2 if x > 0 else nothing

    result = compare_function(forgetful, square, [(2.0,), (-2.0,)])
    assert result.outcome == "wrong"
    assert result.message == f"Not yet in case 2 of 2: {message}."


def test_nothing_is_wrong_even_where_nan_is_right():
    result = compare_function(lambda x: x if x else None, lambda x: x or np.nan, [(1.0,), (0.0,)])
    assert result.outcome == "wrong"


def test_tolerances_of_a_function_are_the_callers():
    def near(x):
        return x**2 + 1e-4

    assert compare_function(near, square, [(2.0,)]).outcome == "wrong"
    assert compare_function(near, square, [(2.0,)], rtol=1e-2)
    assert compare_function(near, square, [(2.0,)], atol=1e-3)


def test_tolerances_of_a_function_hold_for_its_mistakes():
    result = compare_function(
        lambda x: 2 * x + 1e-4, square, [(3.0,)], mistakes=[double], rtol=1e-2
    )
    assert result.message == "Not yet: this doubles the number."


def test_an_answer_cannot_change_the_case_it_is_judged_by():
    def spoiling(x):
        x[:] = 0
        return x

    assert not compare_function(spoiling, lambda x: x, [(np.ones(2),)])


def test_an_answer_may_use_up_its_arguments():
    def appending(numbers, nested):
        numbers.append(nested.pop()[0])
        return sum(numbers)

    def exact(numbers, nested):
        return sum(numbers) + nested[-1][0]

    case = [1.0, 2.0], [np.array([3.0])]
    assert compare_function(appending, exact, [case])
    assert case == ([1.0, 2.0], [np.array([3.0])])


def test_an_exception_is_the_readers_to_see():
    with pytest.raises(ZeroDivisionError):
        compare_function(lambda x: x / 0, square, [(2.0,)])
