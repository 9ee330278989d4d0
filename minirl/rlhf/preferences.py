"""Preferences: which of two answers to the same prompt is better.

Two sources. Pairs sampled from the reference policy and labelled by a Bradley-Terry annotator; and
answers to questions with votes, as on StackExchange, whose scores order them. Prompts and responses
are numbers, as in `TokenTask`. Two identical answers say nothing about a preference, so no record
holds such a pair; how many were left out is counted.
"""

from dataclasses import dataclass

import numpy as np
import scipy.special

from minirl.envs.token_tasks import TokenTask, require_indices
from minirl.policy import Policy
from minirl.rlhf.language_model import sample_responses
from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    require_count,
    require_positive,
    require_selection,
)

# A policy that says the same twice in so many pairs is taken for deterministic.
_FEWEST_DRAWN = 1000

# 2^62 votes still fit into an int64.
_MOST_DOUBLINGS = 62


@dataclass(frozen=True, eq=False)
class Preferences:
    """M pairs of different answers and how probably the first one is preferred.

    Parameters
    ----------
    prompts : ndarray (M,) of int
    first, second : ndarray (M,) of int
        The two responses.
    labels : ndarray (M,)
        In [0, 1]. A soft label is the probability that the first is preferred, a hard one is 1
        where it was and 0 where the second was.

    Raises
    ------
    ValueError
        For no pair, shapes that differ, numbers that are no numbers of prompts or responses, a
        label outside [0, 1], or a pair that names the same answer twice.
    """

    prompts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.float64))
        if self.labels.ndim != 1 or not self.labels.size:
            raise ValueError(
                f"labels must be one number a pair, at least one, got shape {self.labels.shape}"
            )
        for name in ("prompts", "first", "second"):
            numbers = np.asarray(getattr(self, name))
            if numbers.shape != self.labels.shape:
                raise ValueError(
                    f"{name} must have the shape of labels, {self.labels.shape}, got "
                    f"{numbers.shape}"
                )
            whole = np.issubdtype(numbers.dtype, np.integer)
            wrong = numbers[numbers < 0] if whole else numbers
            if wrong.size:
                raise ValueError(f"{name} must be whole numbers of at least 0, got {wrong[0]}")
            object.__setattr__(self, name, numbers)
        outside = np.flatnonzero(~((self.labels >= 0) & (self.labels <= 1)))
        if outside.size:
            row = outside[0]
            raise ValueError(f"labels must lie in [0, 1], got {self.labels[row]} in row {row}")
        same = np.flatnonzero(self.first == self.second)
        if same.size:
            row = same[0]
            raise ValueError(
                f"first and second must be different answers, got response {self.first[row]} twice "
                f"in row {row}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, selection: np.ndarray | slice) -> "Preferences":
        """The selected pairs: indices, a mask (M,), or a slice."""
        require_selection("selection", selection)
        return Preferences(
            self.prompts[selection],
            self.first[selection],
            self.second[selection],
            self.labels[selection],
        )

    @property
    def chosen(self) -> np.ndarray:
        """The preferred responses (M,). Raises ValueError for a label that is not 0 or 1."""
        return np.where(self._first_won(), self.first, self.second)

    @property
    def rejected(self) -> np.ndarray:
        """The other responses (M,). Raises ValueError for a label that is not 0 or 1."""
        return np.where(self._first_won(), self.second, self.first)

    def _first_won(self) -> np.ndarray:
        soft = np.flatnonzero((self.labels != 0) & (self.labels != 1))
        if soft.size:
            row = soft[0]
            raise ValueError(
                f"only hard labels, 0 or 1, say which answer was chosen, got {self.labels[row]} in "
                f"row {row}"
            )
        return self.labels == 1


# ---------------------------------------------------------------- pairs from the reference


@dataclass(frozen=True, eq=False)
class Pairs:
    """M pairs of different answers, not labelled yet.

    Parameters
    ----------
    prompts, first, second : ndarray (M,) of int
    identical : int
        Pairs drawn on the way that held the same answer twice and were dropped; M + identical
        pairs were drawn.
    """

    prompts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    identical: int

    def tied(self, utilities: np.ndarray) -> np.ndarray:
        """Whether both answers are worth the same (M,), up to rounding.

        Such pairs are kept: a soft label calls them 0.5, a hard one throws a coin.

        Parameters
        ----------
        utilities : ndarray (X, N)
        """
        first, second = _utilities_of(self, utilities)
        # Rounding is relative to the utilities that a prompt's answers have, not to 1.
        unit = np.abs(utilities).max(axis=1)[self.prompts]
        return np.abs(first - second) <= 1e-12 * unit


def _utilities_of(pairs: Pairs, utilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Utilities of the first and of the second answers, both (M,), from a table (X, N)."""
    table = np.asarray(utilities, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(
            "utilities must be a table (X, N) of finite numbers, one per prompt and response, got "
            f"shape {table.shape}" + ("" if np.isfinite(table).all() else " with NaN or inf")
        )
    require_indices("prompts of the pairs", pairs.prompts, len(table))
    for name in ("first", "second"):
        require_indices(f"{name} of the pairs", getattr(pairs, name), table.shape[1])
    return table[pairs.prompts, pairs.first], table[pairs.prompts, pairs.second]


def sample_pairs(task: TokenTask, policy: Policy, count: int, rng: np.random.Generator) -> Pairs:
    """Two independent answers to each of `count` prompts, drawn on until they differ.

    Prompts are drawn uniformly; a prompt with few answers loses more pairs to identical ones.

    Parameters
    ----------
    policy : Policy
        A language model for the task, usually the reference.
    count : int
        M, the pairs wanted.

    Raises
    ------
    ValueError
        If the policy seems to have one answer only: `count` pairs in a row, and not fewer than
        1000, were all identical.
    """
    require_count("count", count)
    block = max(count, _FEWEST_DRAWN)
    drawn = np.empty((3, 0), dtype=np.int64)
    while np.count_nonzero(drawn[1] != drawn[2]) < count:
        prompts = rng.integers(len(task.prompts), size=block)
        first, second = (sample_responses(task, policy, prompts, rng) for _ in range(2))
        if np.array_equal(first, second):
            raise ValueError(
                "policy must answer a prompt in more than one way to give pairs, got the same "
                f"answer twice in {block} of {block} pairs"
            )
        drawn = np.concatenate([drawn, [prompts, first, second]], axis=1)
    kept = np.flatnonzero(drawn[1] != drawn[2])[:count]
    prompts, first, second = drawn[:, kept]
    return Pairs(prompts, first, second, identical=int(kept[-1]) + 1 - count)


@dataclass(frozen=True)
class Annotator:
    """A human who prefers answers by the Bradley-Terry model, and errs.

    Parameters
    ----------
    temperature : float
        Above 0, in units of utility: how large a difference is clearly seen.
    flip : float
        In [0, 0.5): the probability that a label is turned round.

    References
    ----------
    Bradley and Terry, "Rank analysis of incomplete block designs" (1952).

    Examples
    --------
    An answer better by log 3 is preferred three times out of four; with a fifth of the labels
    turned round, in 0.8 * 3/4 + 0.2 * 1/4 of the cases.

    >>> better, worse = np.array([np.log(3)]), np.array([0.0])
    >>> Annotator().probability(better, worse).round(6)
    array([0.75])
    >>> Annotator(flip=0.2).probability(better, worse).round(6)
    array([0.65])
    """

    temperature: float = 1.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        require_positive("temperature", self.temperature)
        if not 0 <= self.flip < 0.5:
            raise ValueError(f"flip must lie in [0, 0.5), got {self.flip!r}")

    def probability(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The probability (M,) that the first is preferred, from both utilities (M,).

        Raises ValueError if the shapes differ or a utility is NaN.
        """
        first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
        if first.shape != second.shape:
            raise ValueError(
                f"first and second must have one shape, got {first.shape} and {second.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # a margin of inf is certainty
            margins = (first - second) / self.temperature
        if np.isnan(margins).any():
            raise ValueError("first and second must be utilities whose difference is a number")
        kept, turned = scipy.special.expit(margins), scipy.special.expit(-margins)
        return (1 - self.flip) * kept + self.flip * turned

    def soft(self, pairs: Pairs, utilities: np.ndarray) -> Preferences:
        """Pairs labelled with the probability itself, by a table of utilities (X, N)."""
        labels = self.probability(*_utilities_of(pairs, utilities))
        return Preferences(pairs.prompts, pairs.first, pairs.second, labels)

    def hard(self, pairs: Pairs, utilities: np.ndarray, rng: np.random.Generator) -> Preferences:
        """Pairs labelled 1 with that probability, else 0; one judgement a pair."""
        preferences = self.soft(pairs, utilities)
        labels = rng.random(len(preferences)) < preferences.labels
        return Preferences(pairs.prompts, pairs.first, pairs.second, labels)


check_arguments(__name__)
