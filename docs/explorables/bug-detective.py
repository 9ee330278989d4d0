"""Bug detective: which bug a run has; the JavaScript half is bug-detective.js.

Three of the bugs are those of exercise 3 of notebook 11, with other seeds.
"""

from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np

from minirl.algorithms import trpo
from minirl.exercises.silent_bugs import mystery_run
from minirl.presets import preset

TITLE = "Bug detective"
CAPTION = (
    "Try: look at the four curves of a run, compare each with its dotted line, and choose what is "
    "wrong with the run. The dotted lines show the bound `max_kl`, a critic that predicts a "
    "constant, and one row per environment step. The figure contains six runs of TRPO on the "
    "chain of notebook 1. Five of them have a bug, and one has none. If every step of a line "
    "search is rejected, the policy does not change, and the KL of this update is 0. A KL below "
    "1e-5, such as 0, is drawn at the lower edge of the second panel. The links lead to the "
    "five functions that contain the bugs."
)
FUNCTIONS = [
    "minirl.algorithms.trpo.trust_region_search",
    "minirl.solvers.backtracking_line_search",
    "minirl.batch.flatten",
    "minirl.advantages.discounted_sums",
    "minirl.critic_fit.value_loss",
]
SECTIONS = ("11.13",)
MAX_KL = 0.01  # the default of TRPO, which `mystery_run` uses
CURVES = ("environment_steps", "mean_return", "kl", "explained_variance")
RUNS = {  # in the order of the list: the name of the bug and the seed
    "reset row": 1,
    "failed search kept": 2,
    "no bug": 4,
    "KL not checked": 2,
    "trace across episodes": 0,
    "N x N critic loss": 2,
}
LETTERS = {"reset row": "A", "failed search kept": "B", "N x N critic loss": "C"}
CLUES = {
    "no bug": (
        "there is no bug",
        "Without a bug, no KL exceeds max_kl, the critic explains more than half of the variance "
        "in the second half, and it uses one row per environment step.",
    ),
    "trace across episodes": (
        "GAE continues across the ends of episodes",
        "With this bug, the explained variance is low or negative, because the critic's targets "
        "contain rewards of the next episode.",
    ),
    "reset row": (
        "the row that resets an environment is used for training",
        "With this bug, the critic uses about a fifth more rows than there are environment steps. "
        "The additional targets also lower the explained variance.",
    ),
    "N x N critic loss": (
        "the critic's loss subtracts shape (N,) from shape (N, 1)",
        "With this bug, the explained variance stays near 0, because the critic predicts almost "
        "the same value in every state.",
    ),
    "KL not checked": (
        "the line search does not check the KL",
        "With this bug, {above} of {updates} updates exceed max_kl, the largest by a factor of "
        "{factor:.0f}. No update has a KL of 0, because no step is rejected. The return may still "
        "rise.",
    ),
    "failed search kept": (
        "the last step of a failed line search is accepted",
        "With this bug, the KL stays below max_kl as long as the line searches succeed. After "
        "the first line search that fails, the KL of an update is very large.",
    ),
}
CASES = [
    {"run": str(run), "guess": guess}
    for run, bug in enumerate(RUNS)
    for guess in ("?", bug, "no bug")
]


def without_end(terms: np.ndarray, done: np.ndarray, decay: float) -> np.ndarray:
    """`discounted_sums` with the bug of section 11.2: `done` is not used."""
    sums = terms.copy()
    for t in range(len(sums) - 2, -1, -1):
        sums[t] += decay * sums[t + 1]
    return sums


def without_bound(*arguments: Any, search: Any = trpo.trust_region_search, **options: Any) -> Any:
    """`trust_region_search` that accepts every KL."""
    return search(*arguments, **{**options, "max_kl": np.inf})


PATCHES = {
    "trace across episodes": ("minirl.advantages.discounted_sums", without_end),
    "KL not checked": ("minirl.algorithms.trpo.trust_region_search", without_bound),
}


def history_of(bug: str, seed: int) -> dict[str, np.ndarray]:
    if bug in LETTERS:
        return mystery_run(LETTERS[bug], seed=seed)
    if bug in PATCHES:
        with patch(*PATCHES[bug]):
            return mystery_run("A", bugged=False, seed=seed)
    return mystery_run("A", bugged=False, seed=seed)


@cache
def curves() -> dict[str, dict[str, np.ndarray]]:
    """What is drawn of each run, rounded to four digits."""
    epochs = preset("minirl/Chain-v0", "trpo").settings.critic_fit.epochs
    drawn = {}
    for bug, seed in RUNS.items():
        history = history_of(bug, seed)
        rows = history["critic_gradient_equivalents"] / epochs / history["environment_steps"]
        columns = {**{name: history[name] for name in CURVES}, "rows_per_step": rows}
        drawn[bug] = {name: rounded(column) for name, column in columns.items()}
    return drawn


def rounded(column: np.ndarray) -> np.ndarray:
    return np.array([float(f"{value:.4g}") for value in column])


def clue(bug: str) -> str:
    """The last text of `CLUES`, with the numbers of the run that has this bug."""
    kl = curves()[bug]["kl"]
    above = int(np.sum(kl > MAX_KL))
    return CLUES[bug][1].format(above=above, updates=len(kl), factor=kl.max() / MAX_KL)


def data() -> dict[str, Any]:
    return {
        "max_kl": MAX_KL,
        "clues": [[bug, label, clue(bug)] for bug, (label, _) in CLUES.items()],
        "runs": [
            {"bug": bug, **{name: column.tolist() for name, column in columns.items()}}
            for bug, columns in curves().items()
        ],
    }


def numbers(values: dict[str, str]) -> dict[str, Any]:
    bug, columns = [*curves().items()][int(values["run"])]
    explained = columns["explained_variance"]
    verdict = "right" if values["guess"] == bug else "wrong"
    return {
        "final_return": columns["mean_return"][-1],
        "largest_kl": columns["kl"].max(),
        "above": int(np.sum(columns["kl"] > MAX_KL)),
        "explained": explained[len(explained) // 2 :].mean(),
        "rows_per_step": columns["rows_per_step"][-1],
        "verdict": "open" if values["guess"] == "?" else verdict,
    }
