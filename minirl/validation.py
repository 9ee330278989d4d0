"""Argument checks: each names the argument, the value it got and what would be right."""

import math
from numbers import Integral, Real
from typing import Any


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


def require_count(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a whole number of at least 1."""
    if not _is_whole(value) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def require_flag(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def require_seed(value: Any) -> None:
    """Raise ValueError unless `value` is a whole number of at least 0."""
    if not _is_whole(value) or value < 0:
        raise ValueError(f"seed must be a whole number of at least 0, got {value!r}")


def require_methods(name: str, value: Any, *methods: str) -> None:
    """Raise ValueError unless `value` has all these methods or attributes."""
    if not all(hasattr(value, method) for method in methods):
        raise ValueError(f"{name} must have {', '.join(methods)}, got {value!r}")
