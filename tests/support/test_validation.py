"""Argument checks: the value just inside passes, the one just outside is named."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from minirl.support.validation import (
    require_columns,
    require_count,
    require_finite,
    require_flag,
    require_fraction,
    require_instance,
    require_methods,
    require_non_negative,
    require_positive,
    require_positive_or_none,
    require_seed,
)

NO_NUMBERS = [math.nan, math.inf, None, "1", True]


@pytest.mark.parametrize(
    ("require", "good", "bad"),
    [
        (require_positive, [1e-300, 1, 1e300], [0, -1.0, -math.inf, *NO_NUMBERS]),
        (require_positive_or_none, [None, 0.5], [0.0, math.nan]),
        (require_non_negative, [0, 0.0, 5.0], [-1e-300, *NO_NUMBERS]),
        (require_fraction, [0, 0.5, 1], [-1e-9, 1 + 1e-9, *NO_NUMBERS]),
        (require_finite, [-1e300, 0, 2.5], [math.nan, math.inf, -math.inf, "1", True]),
        (require_flag, [True, False], [0, 1, None, "no", np.True_]),
        (require_count, [1, np.int64(3)], [0, -1, 1.5, 2.0, -math.inf, *NO_NUMBERS]),
        (lambda name, x: require_seed(x, name=name), [0, 7, np.int64(3)], [-1, 1.0, True, None]),
    ],
)
def test_each_check_passes_what_is_right_and_names_what_is_not(require, good, bad):
    for value in good:
        require("rate", value)
    for value in bad:
        with pytest.raises(ValueError, match=r"^rate must .*got ") as caught:
            require("rate", value)
        assert repr(value) in str(caught.value)
    with pytest.raises(ValueError, match=r"^seed must be .*got -1$"):  # its default name
        require_seed(-1)


@pytest.mark.parametrize(
    ("value", "methods", "given"),
    [
        ("abc", ("upper", "fly"), "the str 'abc'"),
        ("abc", ("fly", "upper"), "the str 'abc'"),
        ("abc", ("fly",), "the str 'abc'"),
        # a class in place of an object has the methods
        (Fraction, ("limit_denominator",), "the class Fraction; did you mean Fraction()?"),
    ],
)
def test_methods_are_all_there_or_named(value, methods, given):
    require_methods("value", "abc", "upper", "lower")
    message = f"value must be an object with {', '.join(methods)}, got {given}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_methods("value", value, *methods)


@dataclass
class _Holder:
    count: int
    policy: Fraction


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_Holder(1, Fraction(1, 2)), "a _Holder; did you mean .policy?"),
        (Fraction, "the class Fraction; did you mean Fraction()?"),
        (_Holder, "the class _Holder; give an object: _Holder(...)"),
        (None, "None"),
        ("x" * 500, "the str 'xxxxxxxxxxxx...xxxxxxxxxxxxx'"),
        ([1], "a list"),
        (object(), "an object"),
    ],
)
def test_an_object_of_another_kind_is_answered_with_the_way_out(value, message):
    with pytest.raises(
        ValueError, match=f"^{re.escape(f'policy must be a Fraction, got {message}')}$"
    ):
        require_instance("policy", value, Fraction)
    require_instance("policy", Fraction(1, 2), Fraction)


@pytest.mark.parametrize(
    ("columns", "given"),
    [
        ({"x": [1.0, 2.0]}, "x (2,), y missing"),
        ({"x": [1.0, 2.0], "y": [1.0]}, "x (2,), y (1,)"),
        ({"x": [], "y": []}, "x (0,), y (0,)"),
        ({"x": [[1.0]], "y": [[1.0]]}, "x (1, 1), y (1, 1)"),
        ({"x": 1.0, "y": 1.0}, "x (), y ()"),
    ],
)
def test_columns_are_there_and_of_one_length(columns, given):
    with pytest.raises(ValueError, match=re.escape(given)):
        require_columns("curve", columns, ["x", "y"])
    require_columns("curve", {"x": [1.0], "y": [2.0], "z": []}, ["x", "y"])
