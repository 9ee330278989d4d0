"""The records of a training run: a row of metrics per update, and every finished episode."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minirl.batch import Rollout
from minirl.support import metrics
from minirl.support.arguments import check_arguments
from minirl.support.serialization import csv_text
from minirl.support.validation import require_finite

WINDOW = 100  # episodes in a mean return

TOTALS = ("gradient_equivalents", "critic_gradient_equivalents")
TIMES = ("cpu_seconds",)


class Rows(Sequence[dict[str, float]]):
    """The metrics of each update, which can be read like a list of dictionaries.

    Each number takes 8 bytes, and rows with the same metrics share one tuple of names. A list of
    dictionaries would need about ten times as much memory.

    >>> rows = Rows()
    >>> rows.append({"kl": 0.25, "entropy": 0.5})
    >>> len(rows), rows[-1]
    (1, {'kl': 0.25, 'entropy': 0.5})
    """

    def __init__(self) -> None:
        self._shared: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._names: list[tuple[str, ...]] = []
        self._values = array("d")
        self._starts = array("q", [0])

    def append(self, row: Mapping[str, float]) -> None:
        """Add the metrics of one update."""
        names, values = tuple(row), array("d", row.values())
        self._names.append(self._shared.setdefault(names, names))
        self._values.extend(values)
        self._starts.append(len(self._values))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        values = self._values[self._starts[row] : self._starts[row + 1]]
        return dict(zip(self._names[row], values, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # rows can be added


class History:
    """The updates and episodes of one run, in order.

    Memory grows by 8 bytes per metric of an update, about 200 bytes per update, and by 24 bytes per
    finished episode.

    Attributes
    ----------
    rows : Rows
        One per update: metric name -> number, see the GLOSSARY of `minirl.support.metrics`.
    """

    def __init__(self) -> None:
        self.rows = Rows()
        self._ends, self._returns, self._lengths = array("q"), array("d"), array("q")

    @property
    def environment_steps(self) -> int:
        """Valid transitions so far."""
        return int(self.rows[-1]["environment_steps"]) if self.rows else 0

    @property
    def finished_episodes(self) -> int:
        """Episodes finished so far."""
        return int(self.rows[-1]["episodes"]) if self.rows else 0

    @property
    def episode_ends(self) -> np.ndarray:
        """Environment steps (K,) at which each episode ended."""
        return np.array(self._ends, dtype=np.int64)

    @property
    def episode_returns(self) -> np.ndarray:
        """Undiscounted raw return (K,) of each finished episode."""
        return np.array(self._returns)

    @property
    def episode_lengths(self) -> np.ndarray:
        """Steps (K,) of each finished episode."""
        return np.array(self._lengths, dtype=np.int64)

    def add_episodes(
        self, ends: Iterable[int], returns: Iterable[float], lengths: Iterable[int]
    ) -> None:
        """Add finished episodes, in order of their ends (environment steps since the start)."""
        self._ends.extend(map(int, ends))
        self._returns.extend(map(float, returns))
        self._lengths.extend(map(int, lengths))

    def record(self, rollout: Rollout, update: dict[str, float], cpu_seconds: float) -> None:
        """Add one update: its rollout's episodes and its metrics.

        Raises
        ------
        KeyError
            For a metric that the glossary does not define.
        """
        metrics.require_known(update)
        before = self.environment_steps
        self.add_episodes(
            before + rollout.episode_ends, rollout.episode_returns, rollout.episode_lengths
        )
        finished = len(rollout.episode_returns) + self.finished_episodes
        recent = self._recent_returns()
        row = {
            "environment_steps": float(before + rollout.valid.sum()),
            "episodes": float(finished),
            "mean_return": float(recent.mean()) if len(recent) else float("nan"),
            "cpu_seconds": cpu_seconds,
            **update,
        }
        if self.rows:
            last = self.rows[-1]
            for name in TOTALS:
                if name in row or name in last:
                    row[name] = row.get(name, 0.0) + last.get(name, 0.0)
        self.rows.append(row)

    def columns(self) -> dict[str, np.ndarray]:
        """Each metric as an array (U,) over the updates; nan where an update does not have it."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        columns = {name: np.full(len(self.rows), np.nan) for name in names}
        for update, row in enumerate(self.rows):
            for name, value in row.items():
                columns[name][update] = value
        return columns

    def final_return(self) -> float:
        """Mean return of the last 100 finished episodes, or of all if fewer; nan without any."""
        recent = self._recent_returns()
        return float(recent.mean()) if len(recent) else float("nan")

    def _recent_returns(self) -> np.ndarray:
        """Returns of the last 100 finished episodes, or of all if there are fewer."""
        return np.array(self._returns[-WINDOW:])

    def steps_to(self, threshold: float) -> int | None:
        """Environment steps at which the mean return of 100 episodes first reached `threshold`."""
        returns = self.episode_returns
        if len(returns) < WINDOW:
            return None
        means = np.convolve(returns, np.ones(WINDOW) / WINDOW, mode="valid")
        # The mean of equal returns may be lower than each of them by a rounding error.
        reached = np.flatnonzero(means >= threshold - 1e-9 * abs(threshold))
        return int(self.episode_ends[WINDOW - 1 + reached[0]]) if len(reached) else None

    def to_csv(self) -> str:
        """The columns as CSV text, one line per update; a metric that was not reported is empty."""
        columns = self.columns()
        rows: list[list[str]] = [list(columns)]
        for row in zip(*columns.values(), strict=True):
            rows.append(["" if np.isnan(value) else repr(float(value)) for value in row])
        return csv_text(rows)


@dataclass(frozen=True)
class ReturnReached:
    """A condition for `train(stop=...)`: the mean return of 100 episodes is at least `target`.

    It is False until 100 episodes have finished.

    >>> ReturnReached(475.0)(History())
    False
    """

    target: float

    def __post_init__(self) -> None:
        require_finite("target", self.target)

    def __call__(self, history: History) -> bool:
        """Whether the last 100 finished episodes have a mean return of at least `target`."""
        return history.finished_episodes >= WINDOW and history.final_return() >= self.target


check_arguments(__name__)
