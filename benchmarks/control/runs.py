"""Scores of a finished run, its saved policy, and cells of tables, for the control scripts."""

import numpy as np

import minirl
from benchmarks import study

SCORES = ("final_training_return", "evaluation_return", "cpu_seconds")


def scores(result: minirl.Result, env: str, seed: int, episodes: int) -> tuple[float, ...]:
    """The columns `SCORES`: the last 100 training episodes, fresh greedy episodes, CPU seconds."""
    fresh = minirl.evaluate(env, result.policy, episodes=episodes, seed=seed)
    seconds = result.history.columns()["cpu_seconds"][-1]
    return float(result.history.final_return()), float(fresh.mean), float(seconds)


def short_name(env: str) -> str:
    """The environment's part of a file name: cartpole for CartPole-v1."""
    return env.split("-")[0].lower()


def save_policy(env: str, algorithm: str, result: minirl.Result) -> None:
    """Save the last policy in benchmarks/policies."""
    path = study.POLICIES / f"{short_name(env)}-{algorithm}.npz"
    minirl.save_policy(result.policy, path, result.description)


def iqm_cell(rows: list[study.Row], column: str, small: str = ".1f") -> str:
    """Interquartile mean over seeds with its 95 % interval; the digits depend on the scores.

    `small` is the format if no score exceeds 5.
    """
    values = study.numbers(rows, column)
    largest = np.abs(values).max(initial=0)
    form = ".0f" if largest >= 300 else ".1f" if largest > 5 else small
    return study.iqm_with_interval(values, form) if values else ""
