"""Checks of arguments: each message names the argument, its value and what would be right."""

import contextlib
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np

# Larger counts are mistakes, because they would take years or fill the memory.
MOST_STEPS = 10**11
MOST_REPETITIONS = 10**5
MOST_ENVIRONMENTS = 10**5
MOST_ROWS = 10**8


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number above 0."""
    if not _is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")


def require_positive_or_none(name: str, value: float | None) -> None:
    """Raise ValueError unless `value` is None or a finite number above 0."""
    if value is not None:
        require_positive(name, value)


def require_non_negative(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number of at least 0."""
    if not _is_finite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")


def require_finite(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a finite number."""
    if not _is_finite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def require_fraction(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies in [0, 1]."""
    if not _is_finite(value) or not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")


def require_within(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless `value` is a number from `low` to `high`."""
    if not _is_finite(value) or not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")


def require_count(name: str, value: Any, *, most: int | None = None) -> None:
    """Raise ValueError unless `value` is a whole number of at least 1 and at most `most`."""
    if not _is_whole(value) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {value:,}")


def require_whole(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a whole number of at least 0."""
    if not _is_whole(value) or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")


def require_verdicts(name: str, values: np.ndarray, way_out: str = "") -> None:
    """Raise ValueError unless all values are 0 or 1, as those of a verifier are."""
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        raise ValueError(
            f"{name} must be 0 or 1, got {wrong.flat[0]:.6g}; use the rewards of a verifier"
            f"{way_out}"
        )


def require_float_type(dtype: Any) -> None:
    """Raise ValueError unless `dtype` is "float32" or "float64"."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f'dtype must be "float32" or "float64", got {dtype!r}')


def require_flag(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def require_seed(value: Any, *, optional: bool = False, name: str = "seed") -> None:
    """Raise ValueError unless `value` is a whole number of at least 0, or None if `optional`."""
    if optional and value is None:
        return
    if not _is_whole(value) or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")


def require_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `array`, a NumPy array, has exactly this shape."""
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")


def require_rows(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `array`, a NumPy array, has rows of exactly this shape."""
    if array.shape[1:] != shape or not array.ndim:
        rows = ", ".join(["N", *map(str, shape)])
        raise ValueError(f"{name} must have shape ({rows}), got {array.shape}")


def require_columns(name: str, columns: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raise ValueError unless `columns` has all that are needed, of one length of at least 1.

    >>> require_columns("run", {"kl": [0.1, 0.2], "entropy": [0.7]}, ["kl", "entropy"])
    Traceback (most recent call last):
    ValueError: run must have columns of one length of at least 1, got kl (2,), entropy (1,)
    """
    shapes = {c: np.shape(columns[c]) if c in columns else "missing" for c in needed}
    distinct = set(shapes.values())
    if len(distinct) != 1 or len(*distinct) != 1 or (0,) in distinct:
        given = ", ".join(f"{column} {shape}" for column, shape in shapes.items())
        raise ValueError(
            f"{name} must have columns of one length of at least 1, got {given or 'none'}"
        )


def require_selection(name: str, value: Any) -> None:
    """Raise ValueError unless `value` selects rows: a slice, or an array of indices or a mask."""
    if not isinstance(value, slice) and not (value.ndim == 1 and value.dtype.kind in "biu"):
        raise ValueError(
            f"{name} must be a slice, whole numbers (n,) or a mask, got an array {value.shape} of "
            f"{value.dtype}"
        )


class NonFiniteError(ValueError):
    """Something that must consist of finite numbers contains NaN or an infinity."""


def require_finite_numbers(name: str, array: Any) -> None:
    """Raise NonFiniteError unless all numbers of `array` are finite."""
    finite = np.isfinite(array)
    if not finite.all():
        wrong = np.asarray(array)[~finite].flat[0]
        raise NonFiniteError(f"{name} must consist of finite numbers, got {wrong}")


def require_methods(name: str, value: Any, *methods: str) -> None:
    """Raise ValueError unless `value` is an object with all these methods or attributes."""

    def fits(other: Any) -> bool:
        return not isinstance(other, type) and all(hasattr(other, method) for method in methods)

    if not fits(value):
        raise ValueError(
            f"{name} must be an object with {', '.join(methods)}, got {described(value)}"
            f"{way_out(name, value, fits)}"
        )


def require_instance(name: str, value: Any, *kinds: type) -> None:
    """Raise ValueError unless `value` is an instance of one of `kinds`.

    The message names the most frequent mistakes: a class instead of an object, or an object that
    contains the required one.

    >>> require_instance("seed", "3", int)
    Traceback (most recent call last):
    ValueError: seed must be an int, got the str '3'
    """
    if not isinstance(value, kinds):
        expected = " or ".join(with_article(kind.__name__) for kind in kinds)
        raise ValueError(
            f"{name} must be {expected}, got {described(value)}"
            f"{way_out(name, value, lambda other: isinstance(other, kinds), kinds)}"
        )


def with_article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def described(value: Any) -> str:
    """A description of a value that is short enough for one line."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    if isinstance(value, bool | Real | str):
        return f"the {kind} {reprlib.repr(value)}"
    return with_article(kind)


def way_out(name: str, value: Any, fits: Callable[[Any], bool], kinds: Sequence[type] = ()) -> str:
    """The end of a message: a change that makes `value` a right value of the argument `name`.

    The known changes are an object instead of its class, an attribute or a method's result with the
    argument's name, and those of `_replacements`. `kinds` are the classes that fit.
    """
    if isinstance(value, type):
        # Only a class whose arguments all have defaults can be tried.
        with contextlib.suppress(Exception):
            if fits(value()):
                return f"; did you mean {value.__name__}()?"
        if type in kinds:
            return ""
        return f"; give an object: {value.__name__}(...)"
    with contextlib.suppress(Exception):
        part = getattr(value, name)
        if fits(part):
            return f"; did you mean .{name}?"
        if callable(part) and fits(part()):
            return f"; did you mean .{name}()?"
    for words, make in _replacements(value):
        with contextlib.suppress(Exception):
            if fits(make()):
                return f"; did you mean {words}?"
    names = [kind.__name__ for kind in kinds if is_dataclass(kind)]
    if isinstance(value, Mapping) and names:
        return f"; did you mean {names[0]}(**{name})?"
    if type(value).__name__ == "Pairs" and "Preferences" in names:
        return "; label the pairs: Annotator().hard(pairs, utilities, rng)"
    if type(value).__name__ == "Policy" and not kinds:
        return _TABLES.get(name, "")
    return ""


# For each argument of an exact function that is a table: how to make the table from a policy.
_TABLES = {
    **dict.fromkeys(
        ("log_policy", "log_reference"), "; its table is minirl.rlhf.log_table(task, policy)"
    ),
    **dict.fromkeys(
        ("log_probs", "other"),
        "; its table is sequences.response_log_probs(minirl.rlhf.log_table(task, policy))",
    ),
    **dict.fromkeys(
        ("policy", "old", "new"), "; its table is policy(numpy.arange(S)).probs, S states"
    ),
    "logits": "; its table is numpy.log(policy(numpy.arange(S)).probs), S states",
}


def _replacements(value: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Replacements of an object of another kind: the code, and a function that makes it."""
    for part in [item.name for item in fields(value)] if is_dataclass(value) else ():
        # Arrays and numbers are left out: nothing shows which of them is the right one.
        if not isinstance(getattr(value, part, None), Real | str | Sequence | np.ndarray):
            yield f".{part}", partial(getattr, value, part)
    if isinstance(value, Integral):
        yield f"numpy.random.default_rng({value})", partial(np.random.default_rng, int(value))
    if isinstance(value, float) and value.is_integer():
        yield f"{value:.0f}", partial(int, value)
    if isinstance(value, str):
        yield repr([value]), lambda: [value]
    identifier = getattr(getattr(value, "spec", None), "id", None)  # of a Gymnasium environment
    if identifier is not None:
        yield repr(identifier), lambda: identifier
