"""Ablations: a preset with one choice changed at a time, compared with the preset itself."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import minirl
from minirl.experiments.statistics import PairComparison, compare_scores, with_interval

DEFAULT = "default"


@dataclass(frozen=True)
class Choice:
    """One change of an environment's preset.

    Parameters
    ----------
    environment, algorithm, name : str
        The choice named "default" is the preset itself.
    kind : type, optional
        Class of the algorithm, in place of the preset's.
    changes, settings : dict
        Changed fields of the algorithm and of the settings.
    replaced : tuple, optional
        A module or class, the name of its function, and the function that replaces it.
    """

    environment: str
    algorithm: str
    name: str = DEFAULT
    kind: type | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    replaced: tuple[Any, str, Callable[..., Any]] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Environment, algorithm and name, which identify the choice."""
        return self.environment, self.algorithm, self.name

    def replacement(self) -> AbstractContextManager[Any]:
        """A context in which the function is replaced; a run is computed within it."""
        return mock.patch.object(*self.replaced) if self.replaced else nullcontext()

    def variant(self) -> tuple[Any, minirl.Settings]:
        """The algorithm and the settings of the preset, with the changes."""
        preset = minirl.preset(self.environment, self.algorithm)
        algorithm: Any = preset.algorithm
        values = {item.name: getattr(algorithm, item.name) for item in fields(algorithm)}
        kind = self.kind or type(algorithm)
        return kind(**{**values, **self.changes}), replace(preset.settings, **self.settings)


class Effect(NamedTuple):
    """The scores of a choice, and their comparison with the default's (None for the default)."""

    choice: Choice
    scores: Sequence[float]
    comparison: PairComparison | None

    @property
    def verdict(self) -> str:
        """Whether the choice is better or worse than the default; empty for the default."""
        if not self.comparison:
            return ""
        if not self.comparison.distinguishable:
            return "cannot tell"
        return "better" if self.comparison.iqm_difference > 0 else "worse"

    def difference(self, text: Callable[[float], str]) -> str:
        """The difference to the default with its interval, each number formatted by `text`."""
        if not self.comparison:
            return ""
        pair = self.comparison
        return with_interval(pair.iqm_difference, *pair.difference_interval, text)


def effects(
    choices: Iterable[Choice], scores: Mapping[tuple[str, str, str], Sequence[float]]
) -> list[Effect]:
    """The effect of each choice that has scores, which are given by `Choice.key`."""
    listed = []
    for choice in choices:
        if values := scores.get(choice.key):
            default = scores[choice.environment, choice.algorithm, DEFAULT]
            pair = None
            if choice.name != DEFAULT:
                pair = compare_scores(values, default, np.random.default_rng(0))
            listed.append(Effect(choice, values, pair))
    return listed
