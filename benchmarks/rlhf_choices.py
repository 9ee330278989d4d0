"""What the choices of docs/rlhf.md are worth on the token task: one changed at a time.

    python benchmarks/rlhf_choices.py            (about six minutes on one core)
    python benchmarks/rlhf_choices.py --table    (numbers of docs/rlhf.md, from the stored runs)

Gold reward, beta = 0.3, the presets with one thing changed; ten corpora, each with a seed of its
own. A number is the fraction of the optimum. Runs go to benchmarks/results/rlhf_choices.csv; a
second call goes on from those it finds there (delete the file to begin anew).
"""

import argparse
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import stored  # the file beside this one

from minirl import PPO, rlhf
from minirl.advantages import GAE, RewardToGo
from minirl.algorithms.ppo import Unclipped
from minirl.batch import Batch
from minirl.experiments.alignment import SENTENCES
from minirl.experiments.statistics import interquartile_mean
from minirl.rlhf.align import ENVIRONMENT
from minirl.settings import default_algorithm, default_settings

RESULTS = Path(__file__).parent / "results" / "rlhf_choices.csv"
COLUMNS = ["algorithm", "choice", "corpus", "fraction"]
TASK = "token task"
CORPORA = range(200, 210)


@dataclass(frozen=True, kw_only=True)
class AveragedTokens(PPO):
    """Losses averaged over the tokens of a sentence instead of summed: short ones count more."""

    def update(self, state: Any, batch: Batch, *others: Any) -> tuple[Any, dict[str, float]]:
        lengths = np.bincount(batch.episodes)[batch.episodes]
        batch = replace(batch, weight=(batch.weight / lengths).astype(batch.weight.dtype))
        return super().update(state, batch, *others)


# Algorithm and choice -> the class if not the default's, its fields and fields of the settings.
VARIANTS: dict[tuple[str, str], tuple[type | None, dict[str, Any], dict[str, Any]]] = {
    ("ppo", "default"): (None, {}, {}),
    ("ppo", "constant learning rate 0.05"): (None, {"learning_rate": 0.05}, {}),
    ("ppo", "advantages not whitened"): (None, {"normalize_advantages": False}, {}),
    ("ppo", "lambda 1"): (None, {}, {"advantages": GAE(discount=1.0, lam=1.0)}),
    ("ppo", "lambda 0"): (None, {}, {"advantages": GAE(discount=1.0, lam=0.0)}),
    ("ppo", "not clipped"): (None, {"objective": Unclipped()}, {}),
    ("ppo", "tokens averaged in a sentence"): (AveragedTokens, {}, {}),
    ("trpo", "default"): (None, {}, {}),
    ("trpo", "damping 0.1"): (None, {"damping": 0.1}, {}),
    ("trpo", "max_kl 0.05"): (None, {"max_kl": 0.05}, {}),
    ("policy-gradient", "default"): (None, {}, {}),
    ("policy-gradient", "no baseline"): (None, {}, {"advantages": RewardToGo(discount=1.0)}),
    ("grpo", "default"): (None, {}, {}),
    ("grpo", "tokens averaged in a sentence"): (AveragedTokens, {}, {}),
}


@cache
def reference(corpus: int) -> Any:
    """The fine-tuned model that a corpus gives."""
    demonstrations = rlhf.sample_demonstrations(
        rlhf.arithmetic(), 2000, np.random.default_rng(corpus)
    )
    return rlhf.fine_tune(rlhf.arithmetic(), demonstrations).policy


def run(item: tuple[tuple[str, str], int]) -> list[str]:
    """Align one variant on one corpus: its line of the file."""
    (name, choice), corpus = item
    kind, own, common = VARIANTS[name, choice]
    default = default_algorithm(name, ENVIRONMENT)
    values = {field.name: getattr(default, field.name) for field in fields(default)}
    task = rlhf.arithmetic()
    result = rlhf.align(
        task,
        reference(corpus),
        task.utilities,
        (kind or type(default))(**{**values, **own}),
        sentences=SENTENCES[name],
        beta=0.3,
        seed=corpus,
        settings=replace(default_settings(ENVIRONMENT, name), **common),
    )
    objective = rlhf.Objective(task, reference(corpus), task.utilities, 0.3)
    return [name, choice, str(corpus), f"{objective.fraction_of_optimum(result.policy):.5f}"]


def scores() -> dict[tuple[str, str, str], list[float]]:
    """(task, algorithm, choice) -> the fractions of the stored runs."""
    found: dict[tuple[str, str, str], list[float]] = {(TASK, *key): [] for key in VARIANTS}
    for row in stored.read(RESULTS):
        found[TASK, row["algorithm"], row["choice"]].append(float(row["fraction"]))
    return found


def table() -> str:
    """Interquartile mean and the smallest over the corpora."""
    lines = [
        [algorithm, choice, f"{interquartile_mean(found):.3f}", f"{min(found):.3f}"]
        for (_, algorithm, choice), found in scores().items()
    ]
    return stored.markdown(["algorithm", "choice", "interquartile mean", "smallest"], lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--table", action="store_true", help="print the table, train nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        done = {(row["algorithm"], row["choice"], row["corpus"]) for row in stored.read(RESULTS)}
        missing = [
            (key, corpus)
            for corpus in CORPORA
            for key in VARIANTS
            if (*key, str(corpus)) not in done
        ]
        for line in stored.finished(run, missing, arguments.workers):
            stored.append(RESULTS, COLUMNS, [line])
    print(table())


if __name__ == "__main__":
    main()
