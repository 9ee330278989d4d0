"""Checks of notebook 11: correct a bug, measure one, recognise three, and test for three.

`mystery_run` contains three bugs. Read it only after you have guessed which ones.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from minirl.advantages import GAE, discounted_sums, gae, td_errors
from minirl.algorithms.trpo import TRPO, backtracking_line_search
from minirl.batch import Batch, Rollout, flatten
from minirl.critic_fit import value_loss
from minirl.envs.chain import Chain
from minirl.exact import FiniteMDP, tabular
from minirl.exercises.verdict import UNANSWERED, Verdict, compare, compare_function, unanswered
from minirl.presets import preset
from minirl.solvers import LineSearchResult
from minirl.training import train

__all__ = ["critic_loss", "time_limit_error", "diagnosis", "gae_test"]

BUGS = (
    "time limit as death",
    "trace across episodes",
    "reset row",
    "N x N critic loss",
    "KL direction",
    "failed search kept",
)


def critic_loss(answer: Callable[..., Any]) -> Verdict:
    """The corrected loss: a float, from values (N, 1), returns (N,) and weight (N,)."""

    def exact(values: np.ndarray, returns: np.ndarray, weight: np.ndarray) -> float:
        nothing = np.zeros_like(returns)
        batch = Batch(nothing, nothing, nothing, nothing, nothing, returns, weight)
        return value_loss(values[:, 0], batch)[0]

    def every_pair(values: np.ndarray, returns: np.ndarray, weight: np.ndarray) -> float:
        """Every value is still compared with every return; print the shape of the error."""
        return float(0.5 * np.sum(weight * (values - returns) ** 2))

    def unweighted(values: np.ndarray, returns: np.ndarray, weight: np.ndarray) -> float:
        """Each row has its own weight: sum the weight times the squared error."""
        return float(0.5 * np.mean((values[:, 0] - returns) ** 2))

    def without_half(values: np.ndarray, returns: np.ndarray, weight: np.ndarray) -> float:
        """The factor 1/2 is missing."""
        return 2 * exact(values, returns, weight)

    rng = np.random.default_rng(0)
    cases = [(rng.normal(size=(n, 1)), rng.normal(size=n), rng.random(n)) for n in (3, 5)]
    return compare_function(answer, exact, cases, mistakes=[every_pair, unweighted, without_half])


def time_limit_error(answer: Callable[..., Any]) -> Verdict:
    """True value minus the value with the bug, (limit,) at t = 0 .. limit - 1.

    The arguments are discount and limit. Every step has the reward 1, the task has no end, and
    episodes are cut after `limit` steps.
    """

    def exact(discount: float, limit: int) -> np.ndarray:
        mdp = FiniteMDP.from_gymnasium(Chain(length=1, endless=True), discount)
        policy = np.full((1, 2), 0.5)
        left = [tabular.finite_horizon_values(mdp, policy, limit - t)[0] for t in range(limit)]
        return tabular.state_values(mdp, policy)[0] - np.array(left)

    def value_with_the_bug(discount: float, limit: int) -> np.ndarray:
        """This is the value with the bug; subtract it from the true value."""
        return 1 / (1 - discount) - exact(discount, limit)

    def one_step_too_few(discount: float, limit: int) -> np.ndarray:
        """At time t, limit - t steps remain, including the current one."""
        return exact(discount, limit) / discount

    def first_step_only(discount: float, limit: int) -> float:
        """This is only the error of the first step; the answer has one entry per t."""
        return float(exact(discount, limit)[0])

    return compare_function(
        answer,
        exact,
        [(0.9, 4), (0.99, 50)],
        mistakes=[value_with_the_bug, one_step_too_few, first_step_only],
        rtol=1e-5,
    )


def mystery_run(letter: str, *, bugged: bool = True, seed: int = 6) -> dict[str, np.ndarray]:
    """Metrics over the updates of a TRPO run on the chain; "A", "B" and "C" have one bug each.

    With ``bugged=False``, the same run does not have the bug. max_kl is 0.01, discount 0.9.
    """
    settings = replace(
        preset("minirl/Chain-v0", "trpo").settings,
        num_envs=4,
        rollout_steps=32,
        advantages=GAE(discount=0.9, lam=0.95),
    )
    bug: AbstractContextManager[Any] = _MYSTERIES[letter] if bugged else nullcontext(None)
    with bug, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a bug may make the policy collapse
        run = train("minirl/Chain-v0", TRPO(), total_steps=5_000, seed=seed, settings=settings)
    columns = run.history.columns()
    return {name: column for name, column in columns.items() if name != "cpu_seconds"}


def diagnosis(answer: Mapping[str, Any]) -> Verdict:
    """Which of `BUGS` the mystery runs "A", "B" and "C" have: letter -> bug."""
    truth = {"A": "reset row", "B": "failed search kept", "C": "N x N critic loss"}
    symptoms = {
        "time limit as death": "hardly any episode here reaches the limit of 100 steps",
        "trace across episodes": "look at the counts and at explained_variance once more",
        "reset row": (
            "critic_gradient_equivalents / 10 (its epochs) equals environment_steps here, as "
            "without the bug"
        ),
        "N x N critic loss": "the critic would have the same value everywhere, and explain nothing",
        "KL direction": "kl would exceed max_kl often and slightly, not hugely or never",
        "failed search kept": "kl never exceeds max_kl here",
    }
    if unanswered(answer):
        return UNANSWERED
    if not isinstance(answer, Mapping):
        return Verdict("wrong", f"Not yet: give a dict from letter to bug, not {answer!r}.")
    verdict = UNANSWERED
    for letter, bug in truth.items():
        given = answer.get(letter, ...)
        hints = {f"{letter}: {hint}": name for name, hint in symptoms.items() if name != bug}
        verdict = compare(given, bug, mistakes=hints)
        if not verdict:
            break
    return verdict


def gae_test(answer: Callable[[Callable[..., np.ndarray]], Any]) -> Verdict:
    """The answer is a test: it takes a `gae` and raises AssertionError exactly if it is wrong."""
    if unanswered(answer):
        return UNANSWERED
    if not callable(answer):
        return Verdict("wrong", f"Not yet: give a function that takes a gae, not {answer!r}.")
    calls = 0

    def catches(function: Callable[..., np.ndarray]) -> float:
        def counted(*arguments: Any, **options: Any) -> np.ndarray:
            nonlocal calls
            calls += 1
            return function(*arguments, **options)

        try:
            answer(counted)
        except AssertionError:
            return 1.0
        return 0.0

    caught = [catches(function) for function in (gae, *_BROKEN.values())]
    if not calls:
        return Verdict("unanswered", "Not answered yet: the test never calls the gae it is given.")
    missed = [name for name, seen in zip(_BROKEN, caught[1:], strict=True) if not seen]
    hint = f"the test does not detect {' or '.join(missed)}"
    if caught[0]:
        hint = "the test raises AssertionError for the correct gae"
    return compare(caught, [0.0, 1.0, 1.0, 1.0], mistakes={hint: caught})


# ---------------------------------------------------------------- functions with a bug


Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _gae_with(no_next_value: Mask, trace_stops: Mask) -> Callable[..., np.ndarray]:
    """A gae with two other masks, computed from terminated and truncated (T, E)."""

    def broken(
        rewards: np.ndarray,
        values: np.ndarray,
        next_values: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        *,
        discount: float,
        lam: float,
    ) -> np.ndarray:
        over = no_next_value(terminated, truncated)
        deltas = td_errors(rewards, values, next_values, over, discount)
        return discounted_sums(deltas, trace_stops(terminated, truncated), discount * lam)

    return broken


def _at_terminations(terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
    return terminated


def _nowhere(terminated: np.ndarray, truncated: np.ndarray) -> np.ndarray:
    return np.zeros_like(terminated)


_BROKEN: dict[str, Callable[..., np.ndarray]] = {
    "a trace that continues in the next episode": _gae_with(_at_terminations, _nowhere),
    "a time limit treated as a termination": _gae_with(np.logical_or, np.logical_or),
    "a value expected after a termination": _gae_with(_nowhere, np.logical_or),
}


def _with_reset_rows(rollout: Rollout, *estimates: np.ndarray, **options: Any) -> Batch:
    return flatten(replace(rollout, valid=np.ones_like(rollout.valid)), *estimates, **options)


def _shortest_step(
    reason_to_reject: Callable[[float], str | None], *, shrink: float, tries: int
) -> LineSearchResult:
    result = backtracking_line_search(reason_to_reject, shrink=shrink, tries=tries)
    return result if result.fraction > 0 else result._replace(fraction=shrink ** (tries - 1))


def _square_loss(
    values: np.ndarray, batch: Batch, clip_range: float | None = None
) -> tuple[float, np.ndarray]:
    error = values[:, None] - batch.returns
    return float(0.5 * (error**2).mean()), error.mean(axis=1) / len(batch)


_MYSTERIES: dict[str, AbstractContextManager[Any]] = {
    "A": patch("minirl.training.flatten", _with_reset_rows),
    "B": patch("minirl.algorithms.trpo.backtracking_line_search", _shortest_step),
    "C": patch("minirl.critic_fit.value_loss", _square_loss),
}
