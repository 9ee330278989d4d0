"""PPO and TRPO on five MuJoCo tasks, one million steps, three seeds, beside published results.

    pip install -e '.[mujoco]'
    python benchmarks/mujoco_tasks.py            (about three hours on one core)
    python benchmarks/mujoco_tasks.py --table    (the table of docs/results.md, from the stored runs)

Settings are the presets of minirl/settings.py. Runs go to benchmarks/results/mujoco as they finish:
scores.csv with a line a run and curves.csv with a line every 20 updates. benchmarks/policies gets
the last policy of seed 0 of each task (never the best seed's), which `python -m minirl evaluate`
and `watch` replay. A second call goes on from the runs that it finds stored (delete the folder to
begin anew).
"""

import argparse
import csv
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import minirl

RESULTS = Path(__file__).parent / "results" / "mujoco"
POLICIES = Path(__file__).parent / "policies"
ENVIRONMENTS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5", "InvertedPendulum-v5")
ALGORITHMS = ("ppo", "trpo")
STEPS = 1_000_000
SCORES = ["env", "algorithm", "seed", "final_training_return", "evaluation_return", "cpu_seconds"]
CURVES = ["env", "algorithm", "seed", "environment_steps", "mean_return", "kl"]
CURVES += ["explained_variance"]
UPDATES_A_LINE = 20

# Mean and spread at one million steps, -v4 and earlier: /docs/results.md names the sources.
PUBLISHED = {
    "ppo": {
        "CleanRL": ("1443 ± 46", "2383 ± 272", "2288 ± 572", "", "963 ± 22"),
        "PPO paper": ("~1800", "~2330", "~3460", "~108", ""),
        "Spinning Up": ("1738 ± 526", "1792 ± 535", "1216 ± 327", "108 ± 22", ""),
    },
    "trpo": {
        "Spinning Up": ("721 ± 278", "1161 ± 319", "555 ± 286", "85 ± 41", ""),
        "sb3-contrib, tuned": ("1803 ± 46", "3372 ± 215", "4502 ± 234", "359 ± 2", ""),
    },
}


class Item(NamedTuple):
    """One run."""

    env: str
    algorithm: str
    seed: int


class Finished(NamedTuple):
    """What is stored of a run: cells of scores.csv, and lines of curves.csv."""

    scores: list[str]
    curves: list[list[str]]


def policy_path(item: Item) -> Path:
    """Where the policy of a task and algorithm is kept: halfcheetah-ppo.npz."""
    return POLICIES / f"{item.env.split('-')[0].lower()}-{item.algorithm}.npz"


def run(item: Item) -> Finished:
    """Train and evaluate; seed 0 leaves its policy."""
    result = minirl.train(item.env, item.algorithm, total_steps=STEPS, seed=item.seed)
    fresh = minirl.evaluate(result.policy, item.env, episodes=20, seed=item.seed)
    if item.seed == 0:
        minirl.save_policy(policy_path(item), result.policy, result.settings)
    head = [item.env, item.algorithm, str(item.seed)]
    columns = result.history.columns()
    last = len(columns["environment_steps"]) - 1
    rows = sorted({*range(UPDATES_A_LINE - 1, last, UPDATES_A_LINE), last})
    curves = [[*head, *(f"{columns[name][row]:.5g}" for name in CURVES[3:])] for row in rows]
    scores = result.history.final_return(), fresh.mean, columns["cpu_seconds"][-1]
    return Finished([*head, *(f"{score:.6g}" for score in scores)], curves)


def finished(items: list[Item], workers: int) -> Iterator[Finished]:
    """The runs, as they finish."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run, item) for item in items]):
            yield future.result()


def append(path: Path, columns: list[str], lines: list[list[str]]) -> None:
    """Add lines to a CSV file, with its head if it is new."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(columns)
        writer.writerows(lines)


def rows(name: str) -> list[dict[str, str]]:
    """The lines of one of the stored files."""
    path = RESULTS / name
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table() -> str:
    """Mean over seeds, smallest and largest, for each task; published numbers beneath."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows("scores.csv"):
        scores = found.setdefault((row["algorithm"], row["env"]), [])
        scores.append(float(row["final_training_return"]))
    lines = [
        f"| | {' | '.join(env.removesuffix('-v5') for env in ENVIRONMENTS)} |",
        "|---|" + "---|" * len(ENVIRONMENTS),
    ]
    for algorithm in ALGORITHMS:
        cells = []
        for env in ENVIRONMENTS:
            scores = found.get((algorithm, env), [])
            span = f"{np.mean(scores):.0f} [{min(scores):.0f}, {max(scores):.0f}]" if scores else ""
            cells.append(span)
        lines.append(f"| **minirl {algorithm.upper()}** | {' | '.join(cells)} |")
        for source, published in PUBLISHED[algorithm].items():
            lines.append(f"| {source} {algorithm.upper()} | {' | '.join(published)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--table", action="store_true", help="print the table, train nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        RESULTS.mkdir(parents=True, exist_ok=True)
        POLICIES.mkdir(exist_ok=True)
        done = {Item(row["env"], row["algorithm"], int(row["seed"])) for row in rows("scores.csv")}
        items = [
            Item(env, algorithm, seed)
            for seed in range(arguments.seeds)
            for env in ENVIRONMENTS
            for algorithm in ALGORITHMS
        ]
        missing = [item for item in items if item not in done]
        for one in tqdm(finished(missing, arguments.workers), total=len(missing), unit="run"):
            append(RESULTS / "curves.csv", CURVES, one.curves)
            append(RESULTS / "scores.csv", SCORES, [one.scores])
    print(table())


if __name__ == "__main__":
    main()
