"""Preferences: which of two answers to the same prompt is better.

Pairs are sampled from the reference policy and labelled by a Bradley-Terry annotator::

    P(first preferred) = sigmoid((u(x, first) - u(x, second)) / temperature)

where u is the task's utility. (`votes.py` makes pairs from the scores of StackExchange instead.)
Prompts and responses are numbers, as in `TokenTask`. A pair of identical answers contains no
information about a preference, so such pairs are left out, and their number is reported.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy.special

from minirl.envs.token_tasks import TokenTask, require_indices
from minirl.policy import Policy
from minirl.rlhf.language_model import sample_responses
from minirl.support.arguments import check_arguments
from minirl.support.fields import Count, Positive, check_fields
from minirl.support.validation import (
    require_count,
    require_finite,
    require_finite_numbers,
    require_selection,
)

# A policy whose answers are identical in at least this many pairs is considered deterministic.
_FEWEST_DRAWN = 1000


@dataclass(frozen=True, eq=False)
class Preferences:
    """M pairs of different answers, labelled with the probability that the first is preferred.

    Parameters
    ----------
    prompts : ndarray (M,) of int
        Numbers of the prompts.
    first, second : ndarray (M,) of int
        Numbers of the two responses.
    labels : ndarray (M,)
        In [0, 1]. A soft label is the probability that the first response is preferred. A hard
        label is 1 where the first was preferred and 0 where the second was.

    Raises
    ------
    ValueError
        Without a pair, for shapes that differ, negative or fractional numbers of prompts or
        responses, a label outside [0, 1], or a pair of identical responses.
    """

    prompts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, dtype=np.float64))
        if self.labels.ndim != 1 or not self.labels.size:
            raise ValueError(
                f"labels must be one number per pair, at least one, got shape {self.labels.shape}"
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
        """The pairs that `selection`, an array of indices, a mask (M,) or a slice, selects."""
        require_selection("selection", selection)
        return Preferences(
            self.prompts[selection],
            self.first[selection],
            self.second[selection],
            self.labels[selection],
        )

    @property
    def chosen(self) -> np.ndarray:
        """Numbers of the preferred responses (M,); ValueError for a label that is not 0 or 1."""
        return np.where(self._first_won(), self.first, self.second)

    @property
    def rejected(self) -> np.ndarray:
        """Numbers of the other responses (M,); ValueError for a label that is not 0 or 1."""
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
    """M pairs of different answers without labels.

    Parameters
    ----------
    prompts, first, second : ndarray (M,) of int
        Numbers of the prompts and of the two responses.
    identical : int
        Number of sampled pairs that were left out because both answers were the same. M + identical
        pairs were sampled.
    """

    prompts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    identical: int

    def tied(self, utilities: np.ndarray) -> np.ndarray:
        """Whether both answers of a pair have the same utility up to rounding, (M,) of bool.

        abs(u(x, first) - u(x, second)) <= 1e-12 max_y abs(u(x, y)). These pairs are not left out:
        their soft label is 0.5, and their hard label is a fair coin flip.

        Parameters
        ----------
        utilities : ndarray (X, N)
            u(x, y) of every response to every prompt.
        """
        first, second = _utilities_of(self, utilities)
        # The rounding error is relative to the size of the prompt's utilities.
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
    """`count` pairs of different answers: x uniform, first and second independent ~ pi(.|x).

    Pairs of identical answers are left out. This happens more often for prompts to which the policy
    gives few different answers, so these prompts are rarer in the result.

    Parameters
    ----------
    task : TokenTask
    policy : Policy
        A language model for the task, usually the reference.
    count : int
        M, the number of pairs.
    rng : Generator

    Raises
    ------
    ValueError
        If the policy seems to give only one answer: max(count, 1000) successive pairs were all
        identical.
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
    rows = np.flatnonzero(drawn[1] != drawn[2])[:count]
    prompts, first, second = drawn[:, rows]
    return Pairs(prompts, first, second, identical=int(rows[-1]) + 1 - count)


def _require_flip(name: str, value: float) -> None:
    if not 0 <= value < 0.5:
        raise ValueError(f"{name} must lie in [0, 0.5), got {value!r}")


@dataclass(frozen=True)
class Annotator:
    """A simulated human who labels pairs by the Bradley-Terry model and sometimes errs.

    With utilities u and p = sigmoid((u_first - u_second) / temperature), the probability that the
    first answer is labelled as preferred is (1 - flip) p + flip (1 - p).

    Parameters
    ----------
    temperature : float
        Above 0, in units of utility. A difference of utilities much smaller than this is hardly
        noticed, a much larger one decides almost every label.
    flip : float
        In [0, 0.5): the probability that a label is the opposite of the judgement.

    References
    ----------
    Bradley and Terry, "Rank analysis of incomplete block designs" (1952).

    Examples
    --------
    An answer whose utility is larger by log 3 is preferred with probability 3/4. If a fifth of the
    labels are flipped, the probability is 0.8 * 3/4 + 0.2 * 1/4.

    >>> better, worse = np.array([np.log(3)]), np.array([0.0])
    >>> Annotator().probability(better, worse).round(6)
    array([0.75])
    >>> Annotator(flip=0.2).probability(better, worse).round(6)
    array([0.65])
    """

    temperature: Positive = 1.0
    flip: Annotated[float, _require_flip] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def probability(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The probability that the first answer is labelled as preferred, (M,).

        (1 - flip) p + flip (1 - p), p = sigmoid((first - second) / temperature), for the utilities
        `first` and `second` (M,) of the answers. Raises ValueError if the shapes differ or a
        utility is NaN.
        """
        first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
        if first.shape != second.shape:
            raise ValueError(
                f"first and second must have one shape, got {first.shape} and {second.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # an infinite margin means p = 1 or 0
            margins = (first - second) / self.temperature
        if np.isnan(margins).any():
            raise ValueError("first and second must be utilities whose difference is a number")
        first_preferred = scipy.special.expit(margins)
        second_preferred = scipy.special.expit(-margins)
        return (1 - self.flip) * first_preferred + self.flip * second_preferred

    def soft(self, pairs: Pairs, utilities: np.ndarray) -> Preferences:
        """Pairs labelled with `probability`, given the utilities (X, N) of all responses."""
        labels = self.probability(*_utilities_of(pairs, utilities))
        return Preferences(pairs.prompts, pairs.first, pairs.second, labels)

    def hard(self, pairs: Pairs, utilities: np.ndarray, rng: np.random.Generator) -> Preferences:
        """Pairs labelled 1 with probability `probability`, else 0: one judgement per pair."""
        preferences = self.soft(pairs, utilities)
        labels = rng.random(len(preferences)) < preferences.labels
        return Preferences(pairs.prompts, pairs.first, pairs.second, labels)


@dataclass(frozen=True, eq=False)
class FreshPairs:
    """Pairs that are drawn from the policy that learns and labelled at once: online preferences.

    `DPO.fit` draws `count` new pairs whenever all of the last ones have been used once. K draws
    cost K count labels.

    Parameters
    ----------
    task : TokenTask
    annotator : Annotator
        Gives each pair one judgement (a hard label).
    utilities : ndarray (X, N)
        What the annotator judges by.
    count : int
        Pairs per draw.
    """

    task: TokenTask
    annotator: Annotator
    utilities: np.ndarray
    count: Count

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "utilities", _of_task(self.task, self.utilities))

    def __len__(self) -> int:
        return self.count

    def draw(self, policy: Policy, rng: np.random.Generator) -> Preferences:
        """`count` pairs as in `sample_pairs`, with hard labels."""
        pairs = sample_pairs(self.task, policy, self.count, rng)
        return self.annotator.hard(pairs, self.utilities, rng)


def _of_task(task: TokenTask, utilities: np.ndarray) -> np.ndarray:
    """`utilities` as float64, or ValueError unless they are finite numbers (X, N)."""
    utilities = np.asarray(utilities, np.float64)
    if utilities.shape != (len(task.prompts), task.num_responses):
        raise ValueError(
            f"utilities must have shape {(len(task.prompts), task.num_responses)}, one per prompt "
            f"and response, got {utilities.shape}"
        )
    require_finite_numbers("utilities", utilities)
    return utilities


# ---------------------------------------------------------------- biases


def length_biased(task: TokenTask, utilities: np.ndarray, per_token: float) -> np.ndarray:
    """Utilities (X, N) of an annotator who likes long answers: u(x, y) + per_token len(y).

    len(y) is the number of tokens, EOS included. `per_token` is in units of utility, and may be
    negative. Raises ValueError for utilities of another shape, and for a number that is not
    finite.
    """
    utilities = _of_task(task, utilities)
    require_finite("per_token", per_token)
    return utilities + per_token * task.response_lengths


check_arguments(__name__)
