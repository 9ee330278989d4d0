"""Checks of a dataclass, declared with its fields.

The annotation of a field says which values are allowed, for example `epochs: Count = 10`. The line
`check_fields(self)` in `__post_init__` makes all the checks of a class.
"""

import functools
import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

from minirl.support.validation import (
    MOST_REPETITIONS,
    require_count,
    require_flag,
    require_fraction,
    require_non_negative,
    require_positive,
    require_positive_or_none,
)

Check = Callable[[str, Any], None]

Positive = Annotated[float, require_positive]
PositiveOrNone = Annotated[float | None, require_positive_or_none]
NonNegative = Annotated[float, require_non_negative]
Fraction = Annotated[float, require_fraction]
Count = Annotated[int, require_count]
Repetitions = Annotated[int, functools.partial(require_count, most=MOST_REPETITIONS)]
Flag = Annotated[bool, require_flag]


def check_fields(value: Any) -> None:
    """Check each field of a dataclass whose annotation declares a check.

    Raises
    ------
    ValueError
        For the first field with a wrong value, with its name.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Walk:
    ...     steps: Count = 10
    ...     def __post_init__(self):
    ...         check_fields(self)
    >>> Walk(steps=0)
    Traceback (most recent call last):
    ValueError: steps must be a whole number of at least 1, got 0
    """
    for name, check in _checks(value.__class__):
        check(name, getattr(value, name))


@functools.cache
def _checks(kind: type) -> list[tuple[str, Check]]:
    """Name and check of each field that declares one."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [
        (field.name, check)
        for field in fields(kind)
        for check in getattr(hints[field.name], "__metadata__", ())
        if callable(check)
    ]
