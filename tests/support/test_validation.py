"""Argument checks: the value just inside passes, the one just outside is named."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from minirl.support.validation import (
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
    ],
)
def test_each_check_passes_what_is_right_and_names_what_is_not(require, good, bad):
    for value in good:
        require("rate", value)
    for value in bad:
        with pytest.raises(ValueError, match=r"^rate must .*got ") as caught:
            require("rate", value)
        assert repr(value) in str(caught.value)


def test_a_seed_is_a_whole_number_from_0_on():
    for seed in (0, 7, np.int64(3)):
        require_seed(seed)
    for seed in (-1, 1.0, True, None):
        with pytest.raises(ValueError, match=rf"^seed must be .*got {seed!r}$"):
            require_seed(seed)


def test_methods_are_all_there_or_named():
    require_methods("text", "abc", "upper", "lower")
    for methods in (("upper", "fly"), ("fly", "upper"), ("fly",)):
        with pytest.raises(
            ValueError,
            match=f"^text must be an object with {', '.join(methods)}, got the str 'abc'$",
        ):
            require_methods("text", "abc", *methods)


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


def test_a_class_in_place_of_an_object_is_refused_though_it_has_the_methods():
    with pytest.raises(ValueError, match=r"got the class Fraction; did you mean Fraction\(\)\?$"):
        require_methods("value", Fraction, "limit_denominator")
