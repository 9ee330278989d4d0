"""Comparison of an answer with the exact one: right, wrong (with a hint), or not answered."""

import dis
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Verdict", "compare", "compare_function", "unanswered"]


@dataclass(frozen=True)
class Verdict:
    """The result of a check; true only if the answer is right.

    Parameters
    ----------
    outcome : {"right", "wrong", "unanswered"}
    message : str
        What the reader sees.
    """

    outcome: str
    message: str

    def __bool__(self) -> bool:
        return self.outcome == "right"

    def __repr__(self) -> str:
        return self.message


RIGHT = Verdict("right", "Right.")
UNANSWERED = Verdict("unanswered", "Not answered yet: put your answer in place of the dots.")
NO_RETURN = "the function returned None; add `return` in front of its result"


def unanswered(answer: Any) -> bool:
    """Whether this is None, ``...``, or a list or tuple that still contains a ``...``."""
    parts = answer if isinstance(answer, list | tuple) else [answer]
    return answer is None or any(part is ... for part in parts)


def compare(
    answer: Any,
    exact: ArrayLike,
    *,
    mistakes: Mapping[str, ArrayLike] | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> Verdict:
    """Compare a number, an array or a word with the exact one.

    Parameters
    ----------
    answer : object
        It counts as not answered if `unanswered` returns True for it.
    exact : array_like or str
    mistakes : mapping, optional
        From a hint for the reader to the answer that results from this mistake. A hint is a clause
        without a capital and without a full stop. (`compare_function` takes functions instead,
        whose docstrings are the hints; a plain value has no docstring.)
    rtol, atol : float
        Differences up to ``atol + rtol |exact|`` are right.

    Examples
    --------
    >>> compare(0.5, 0.5)
    Right.
    >>> compare([1.0, 2.0], [1.0, 4.0], mistakes={"the discount is missing": [1.0, 2.0]})
    Not yet: the discount is missing.
    >>> compare([[1.0], [4.0]], [1.0, 4.0])
    Not yet: the shape is (2, 1), but it should be (2,).
    >>> compare(..., 0.5)
    Not answered yet: put your answer in place of the dots.
    """
    if unanswered(answer):
        return UNANSWERED
    complaint = _difference(answer, exact, rtol, atol)
    if complaint is None:
        return RIGHT
    for message, mistaken in (mistakes or {}).items():
        if _difference(answer, mistaken, rtol, atol) is None:
            return Verdict("wrong", f"Not yet: {message}.")
    return Verdict("wrong", f"Not yet: {complaint}.")


def compare_function(
    answer: Callable[..., Any],
    exact: Callable[..., ArrayLike],
    cases: Iterable[tuple[Any, ...]],
    *,
    mistakes: Sequence[Callable[..., ArrayLike]] = (),
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> Verdict:
    """Compare a function with the exact one on several cases.

    Parameters
    ----------
    answer : callable
        It counts as not answered if its body is empty (``...``, ``pass`` or a docstring), or if it
        returns ``...`` in every case. A function with a body that returns None is wrong, and the
        message says that a `return` is missing. Exceptions are not caught, so that the reader sees
        them.
    exact : callable
        Takes the same arguments.
    cases : iterable of tuple
        Positional arguments; the answer receives a copy.
    mistakes : sequence of callables, optional
        Functions that each make one typical mistake. Their docstrings are the hints for the
        reader: complete sentences that end with a full stop. A hint is given if its function agrees
        with the answer in every case; the first such function counts. In the message, the hint
        follows a colon, so its first word loses its capital unless it is a symbol or an acronym.
    rtol, atol : float
        As for `compare`.

    Examples
    --------
    >>> compare_function(lambda x: 2 * x, lambda x: x**2, [(2.0,), (3.0,)])
    Not yet in case 2 of 2: off by up to 3.

    >>> def not_squared(x):
    ...     "The square is missing."
    ...     return x
    >>> compare_function(lambda x: x, lambda x: x**2, [(2.0,), (3.0,)], mistakes=[not_squared])
    Not yet: the square is missing.

    >>> def forgetful(x):
    ...     square = x**2
    >>> compare_function(forgetful, lambda x: x**2, [(2.0,), (3.0,)])
    Not yet: the function returned None; add `return` in front of its result.
    """
    cases = list(cases)
    answers = [answer(*deepcopy(case)) for case in cases]
    if all(value is None for value in answers) and not _is_empty(answer):
        return Verdict("wrong", f"Not yet: {NO_RETURN}.")
    if all(unanswered(value) for value in answers):
        return UNANSWERED
    complaints = [
        _difference(value, exact(*case), rtol, atol)
        for value, case in zip(answers, cases, strict=True)
    ]
    if not any(complaints):
        return RIGHT
    hints = [_hint(mistake) for mistake in mistakes]
    for hint, mistake in zip(hints, mistakes, strict=True):
        if not any(
            _difference(value, mistake(*case), rtol, atol)
            for value, case in zip(answers, cases, strict=True)
        ):
            return Verdict("wrong", f"Not yet: {hint}")
    number, complaint = next(
        (number, text) for number, text in enumerate(complaints, start=1) if text is not None
    )
    return Verdict("wrong", f"Not yet in case {number} of {len(cases)}: {complaint}.")


def _hint(mistake: Callable[..., Any]) -> str:
    """The function's docstring in one line, as it continues a sentence after a colon.

    The capital of a word such as "The" or "A" is that of the sentence and is removed. Symbols and
    acronyms ("V(s')", "KL") keep theirs.
    """
    hint = " ".join((mistake.__doc__ or "").split())
    if not hint.endswith("."):
        name = getattr(mistake, "__qualname__", repr(mistake))
        raise ValueError(
            f"the docstring of {name} must be a hint for the reader that ends with a full stop, "
            f"but it is {hint!r}"
        )
    first = hint.split(maxsplit=1)[0].rstrip(",:;")
    if first == "A" or (first.isalpha() and first[1:].islower()):
        hint = hint[0].lower() + hint[1:]
    return hint


def _is_empty(function: Callable[..., Any]) -> bool:
    """Whether the function's body does nothing: it is ``...``, ``pass`` or a docstring."""

    def stub() -> None: ...

    def steps(code: Any) -> list[str]:
        return [step.opname for step in dis.get_instructions(code) if step.opname != "NOP"]

    code = getattr(function, "__code__", None)
    return code is not None and steps(code) == steps(stub.__code__)


def _difference(answer: Any, exact: ArrayLike, rtol: float, atol: float) -> str | None:
    """How the answer differs from the exact one; None if it does not."""
    if answer is None:
        return NO_RETURN
    if answer is ...:
        return "the function returned ..., which is not an answer"
    if isinstance(exact, str):
        if not isinstance(answer, str):
            return f"the answer should be a word, but it is {answer!r}"
        return None if answer == exact else f"{answer!r} is not the right word"
    expected = np.asarray(exact, np.float64)
    try:
        received = np.asarray(answer, np.float64)
    except (TypeError, ValueError):
        return f"the answer should consist of numbers, but it is {answer!r}"
    if received.shape != expected.shape:
        return f"the shape is {received.shape}, but it should be {expected.shape}"
    if np.isnan(received).any() and not np.isnan(expected).any():
        missing = np.count_nonzero(np.isnan(received))
        return f"{missing} of the {received.size} values are nan"
    if np.allclose(received, expected, rtol=rtol, atol=atol, equal_nan=True):
        return None
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        differences = np.abs(received - expected)
    known = differences[~np.isnan(differences)]
    return f"off by up to {known.max():.3g}" if known.size else "a number is missing or infinite"
