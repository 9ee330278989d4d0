"""Several algorithms with several seeds on one environment: curves, tables, comparisons."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, is_dataclass
from itertools import combinations
from numbers import Integral
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from minirl.algorithms import Algorithm
from minirl.browser import DEFAULT_WORKERS
from minirl.experiments.evaluation import evaluate
from minirl.experiments.jobs import compute
from minirl.experiments.runs import RUNS, Run, claimed_folder
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.presets import Preset, explain_fields, resolve
from minirl.settings import Settings
from minirl.support.arguments import check_arguments
from minirl.support.interrupts import hold_interrupts
from minirl.support.serialization import (
    csv_text,
    describe,
    first_difference,
    source_hash,
    versions,
    write_text,
)
from minirl.support.validation import (
    MOST_ENVIRONMENTS,
    require_count,
    require_methods,
    require_seed,
)
from minirl.training import require_trainable, train
from minirl.vector_env import MakeEnv, registered_id, reward_threshold

MOST_SEEDS = 10_000  # more are a mistake: their work items alone would fill the memory
SCORES = ("final_training_return", "evaluation_return")


@dataclass(frozen=True)
class WorkItem:
    """One seed of one algorithm: everything that a worker needs, in a form that can be pickled."""

    env: MakeEnv
    name: str
    algorithm: Algorithm
    settings: Settings
    seed: int
    total_steps: int
    evaluation_episodes: int
    max_steps: int | None = None

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"

    def describe(self) -> dict[str, Any]:
        """JSON-ready identity of the run, which includes a hash of the package's code."""
        settings = {field.name: describe(getattr(self, field.name)) for field in fields(self)}
        return {**settings, "source": source_hash()}


def run_seed(item: WorkItem) -> Run:
    """Train and evaluate one seed; this is the function that workers run.

    Raises
    ------
    ValueError
        In a worker process that does not know the environment's id.
    """
    env = item.env
    if isinstance(env, str) and ":" not in env and registered_id(env) not in gym.registry:
        raise ValueError(
            f"environment {env!r} is not registered in a worker process; register it in a module "
            f"and give 'that_module:{env}', or pass workers=1"
        )
    result = train(
        item.env,
        item.algorithm,
        total_steps=item.total_steps,
        seed=item.seed,
        settings=item.settings,
    )
    fresh = evaluate(
        item.env,
        result.policy,
        episodes=item.evaluation_episodes,
        seed=item.seed,
        max_steps=item.max_steps,
    )
    threshold = reward_threshold(item.env)
    steps = None if threshold is None else result.history.steps_to(threshold)
    return Run(
        result.history.columns(),
        result.history.final_return(),
        fresh.mean,
        float("nan") if steps is None else float(steps),
        fresh.cut,
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """All runs of a comparison and their summary.

    Parameters
    ----------
    env : str
    runs : dict
        Algorithm name -> seed -> `Run`.
    summary : dict
        JSON-ready; see `summarize`.
    """

    env: str
    runs: dict[str, dict[int, Run]]
    summary: dict[str, Any]

    def table(self) -> str:
        """The results as plain text: one line per algorithm, then the comparison of each pair."""
        head = (
            f"{'algorithm':<17} {'training return':>24} {'evaluation return':>24} "
            f"{'steps to threshold':>19} {'CPU s':>6} {'grad-equiv.':>11}"
        )
        lines = [head, "-" * len(head)]
        for name, entry in self.summary["algorithms"].items():
            lines.append(
                f"{name:<17} {_score_text(entry['final_training_return']):>24} "
                f"{_score_text(entry['evaluation_return']):>24} "
                f"{_steps_text(entry['steps_to_threshold']):>19} "
                f"{np.median(entry['cpu_seconds']):>6.1f} "
                f"{_thousands(float(np.median(entry['gradient_equivalents']))):>11}"
            )
        seeds = len(next(iter(self.runs.values())))
        lines += [
            "",
            f"Returns are interquartile means over {seeds} seeds with their 95 % bootstrap "
            "intervals: training returns of the last",
            "100 episodes, evaluation returns of fresh greedy episodes. Steps, CPU seconds (one "
            "core) and gradient-equivalents are medians.",
        ]
        if seeds < 10:  # simulated: see the docstring of minirl.experiments.statistics
            lines += [
                "Intervals of few seeds are too narrow: for normal scores they contain the true "
                "value in about 74 % of cases with",
                "3 seeds, 90 % with 5 and 94 % with 10.",
            ]
        lines += [""]
        lines += self._cut_episodes()
        lines += [f"{pair['metric']}: {pair['text']}" for pair in self.summary["comparisons"]]
        return "\n".join(lines)

    def _cut_episodes(self) -> list[str]:
        """A line for each algorithm whose evaluation episodes did not all end."""
        episodes = self.summary["settings"]["evaluation_episodes"]
        lines = [
            f"{name}: {sum(cut)} of {len(cut) * episodes} evaluation episodes had not ended and "
            "were cut; the returns up to the cut are counted (max_steps allows longer episodes)."
            for name, entry in self.summary["algorithms"].items()
            if sum(cut := entry["cut_episodes"])
        ]
        return [*lines, ""] if lines else []


def _score_text(score: dict[str, Any]) -> str:
    """A score of `summary.json` with its interval, or the number of seeds without a score."""
    with hold_interrupts():  # a signal would break the import of a compiled module
        from minirl.experiments import statistics  # scipy.stats loads slowly

    if score["iqm"] is None:
        seeds, missing = len(score["per_seed"]), score["per_seed"].count(None)
        return "no episode ended" if missing == seeds else f"no episode: {missing} of {seeds} seeds"
    low, high = (math.nan if bound is None else bound for bound in score["ci95"])
    return statistics.with_interval(score["iqm"], low, high, ".1f")


def _steps_text(steps: list[int | None]) -> str:
    reached = [value for value in steps if value is not None]
    if not reached:
        return f"0 of {len(steps)}"
    return f"{_thousands(float(np.median(reached)))} ({len(reached)} of {len(steps)})"


def _thousands(value: float) -> str:
    return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.1f}k"


@explain_fields
def compare(
    env: MakeEnv,
    algorithms: Mapping[str, str | Preset | Algorithm] | Iterable[str],
    *,
    total_steps: int,
    seeds: int | Sequence[int] = 5,
    settings: Settings | Mapping[str, Settings] | None = None,
    evaluation_episodes: int = 100,
    max_steps: int | None = None,
    executor: Executor | None = None,
    workers: int = DEFAULT_WORKERS,
    out: Path | str | None = None,
    progress: bool = False,
) -> Comparison:
    """Train every algorithm on every seed and compare them.

    Parameters
    ----------
    env : str or callable
        As for `train`; a function must be importable by worker processes.
    algorithms : mapping or iterable of str
        Name -> algorithm or `Preset`, or names of the environment's presets.
    total_steps : int
        Environment steps of each run.
    seeds : int or sequence of int
        The number of seeds (0, 1, ...), or the seeds themselves.
    settings : Settings or mapping, optional
        For all algorithms, or name -> settings. Default: those of each algorithm's preset, which
        differ only in `rollout_steps` on control tasks.
    evaluation_episodes : int
        Fresh greedy episodes of each trained policy.
    max_steps : int, optional
        Number of steps after which an evaluation episode is cut; the table then says so. Default:
        the environment's own time limit, or 1,000 if it has none.
    executor : concurrent.futures.Executor, optional
        Computes the runs, in other processes or one after the other. It is never shut down here.
        Default: a process pool of `workers` processes, or this process if `workers` is 1.
    workers : int
        Number of worker processes. Default: 2, or 1 in a browser, which has no processes.
    out : path, optional
        Folder for finished runs, `curves.png`, `runs.csv` and `summary.json`. A comparison that
        was interrupted continues from the runs in this folder.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        For wrong arguments, or a folder that can't be written or belongs to another experiment.
    RuntimeError
        If two runs are computed at once in threads of one process, a worker process dies, or
        `executor` loses a run (with Dask: its workers died too often, or the cluster has gone).
        Finished seeds stay in `out`.
    """
    require_count("workers", workers)
    items = _work_items(
        algorithms, env, total_steps, seeds, settings, evaluation_episodes, max_steps
    )
    identity = {"kind": "compare", "env": describe(env), "total_steps": int(total_steps)}
    claim: contextlib.AbstractContextManager[Path | None] = (
        contextlib.nullcontext() if out is None else claimed_folder(out, identity)
    )
    with claim as folder:
        runs = _all_runs(items, folder, executor, workers, progress)
        comparison = Comparison(str(env), runs, summarize(items, runs))
        if folder is not None:
            _save_comparison(folder, comparison, items)
    return comparison


def _all_runs(
    items: list[WorkItem],
    folder: Path | None,
    executor: Executor | None,
    workers: int,
    progress: bool,
) -> dict[str, dict[int, Run]]:
    """Name -> seed -> run: stored runs are loaded, the others are computed and stored."""
    runs: dict[tuple[str, int], Run] = {}
    if folder is not None:
        (folder / RUNS).mkdir(exist_ok=True)
        runs = {
            (item.name, item.seed): run
            for item in items
            if (run := Run.load(_path(folder, item), item.describe())) is not None
        }
    missing = [item for item in items if (item.name, item.seed) not in runs]
    bar = tqdm(
        total=len(items),
        initial=len(runs),
        unit="run",
        disable=not progress,
        desc=str(items[0].env),
    )
    # Closing `computed` ends the worker processes before an error here reaches its handlers.
    computed = compute(run_seed, missing, workers=workers, executor=executor)
    with bar, contextlib.closing(computed) as finished:
        for item, run in finished:
            runs[item.name, item.seed] = run
            if folder is not None:
                with hold_interrupts():
                    run.save(_path(folder, item), item.describe())
            bar.set_postfix_str(f"{item}: {run.final_training_return:.1f}")
            bar.update()
    by_name: dict[str, dict[int, Run]] = {item.name: {} for item in items}
    for item in items:
        by_name[item.name][item.seed] = runs[item.name, item.seed]
    return by_name


def _work_items(
    algorithms: Mapping[str, str | Preset | Algorithm] | Iterable[str],
    env: MakeEnv,
    total_steps: int,
    seeds: int | Sequence[int],
    settings: Settings | Mapping[str, Settings] | None,
    evaluation_episodes: int,
    max_steps: int | None,
) -> list[WorkItem]:
    require_count("evaluation_episodes", evaluation_episodes, most=MOST_ENVIRONMENTS)
    if max_steps is not None:
        require_count("max_steps", max_steps)
    if isinstance(algorithms, str):
        raise ValueError(f"algorithms must be a list or a mapping, got the string {algorithms!r}")
    if not isinstance(algorithms, Mapping):
        algorithms = list(algorithms)
        if not all(isinstance(name, str) for name in algorithms):
            raise ValueError(f"algorithms must be a mapping or a list of names, got {algorithms}")
        if len(set(algorithms)) < len(algorithms):
            raise ValueError(f"algorithms must be different, got {algorithms}")
        algorithms = {name: name for name in algorithms}
    if not algorithms:
        raise ValueError("algorithms must name at least one algorithm, got none")
    if isinstance(seeds, Integral):
        require_count("seeds", seeds)
        count = int(seeds)
        if count > MOST_SEEDS:
            raise ValueError(f"seeds must be at most {MOST_SEEDS:,}, got {count:,}; or list them")
        seeds = range(count)
    chosen_seeds = list(seeds)  # type: ignore[arg-type]  # an Integral is an int to mypy
    if len(set(chosen_seeds)) < len(chosen_seeds) or not chosen_seeds:
        raise ValueError(f"seeds must be different and at least one, got {chosen_seeds}")
    if isinstance(settings, Mapping) and settings.keys() - algorithms.keys():
        unknown = sorted(settings.keys() - algorithms.keys())
        raise ValueError(f"settings name {unknown}, which are not among {list(algorithms)}")
    for seed in chosen_seeds:
        require_seed(seed, name="every seed of seeds")
    presets = {}
    for name, algorithm in algorithms.items():
        if not name or Path(name).name != name or "\0" in name:
            raise ValueError(f"algorithm name {name!r} can't be part of a file name")
        if not isinstance(algorithm, str | Preset):
            require_methods(f"algorithms[{name!r}]", algorithm, "init", "update")
        given = settings.get(name) if isinstance(settings, Mapping) else settings
        presets[name] = resolve(env, algorithm, given)
        require_trainable(env, presets[name].algorithm, total_steps, 0, presets[name].settings)
    # Seed by seed, so that an interrupted comparison has runs of every algorithm.
    return [
        WorkItem(
            env,
            name,
            preset.algorithm,
            preset.settings,
            int(seed),
            int(total_steps),
            int(evaluation_episodes),
            None if max_steps is None else int(max_steps),
        )
        for seed in chosen_seeds
        for name, preset in presets.items()
    ]


def _path(folder: Path, item: WorkItem) -> Path:
    return folder / RUNS / f"{item.name}-seed{item.seed}.npz"


def summarize(items: Sequence[WorkItem], runs: Mapping[str, Mapping[int, Run]]) -> dict[str, Any]:
    """The content of `summary.json`: scores with intervals, costs, pairwise comparisons.

    Returns
    -------
    dict
        env, total_steps, algorithms (name -> final_training_return and evaluation_return, each
        {iqm, ci95, per_seed}; steps_to_threshold, cut_episodes, cpu_seconds,
        gradient_equivalents per seed),
        comparisons (one per pair and score), settings, versions.
    """
    with hold_interrupts():  # a signal would break the import of a compiled module
        from minirl.experiments import statistics  # scipy.stats loads slowly

    rng = np.random.default_rng(0)
    algorithms, per_seed = {}, {}
    for name, seeds in runs.items():
        per_seed[name] = {
            score: np.array([getattr(run, score) for run in seeds.values()]) for score in SCORES
        }
        algorithms[name] = {
            **{score: _summary(values, rng) for score, values in per_seed[name].items()},
            "steps_to_threshold": [
                None if math.isnan(run.steps_to_threshold) else int(run.steps_to_threshold)
                for run in seeds.values()
            ],
            "cut_episodes": [run.cut_episodes for run in seeds.values()],
            "cpu_seconds": [float(run.columns["cpu_seconds"][-1]) for run in seeds.values()],
            "gradient_equivalents": [
                float(run.columns.get("gradient_equivalents", np.zeros(1))[-1])
                for run in seeds.values()
            ],
        }
    comparisons = []
    for first, second in combinations(runs, 2):
        for score in SCORES:
            if not np.isfinite([*per_seed[first][score], *per_seed[second][score]]).all():
                continue  # no episode has ended
            pair = statistics.compare_scores(per_seed[first][score], per_seed[second][score], rng)
            comparisons.append(
                {
                    "first": first,
                    "second": second,
                    "metric": score,
                    **_json_ready(describe(pair)),
                    "text": pair.describe(first, second),
                }
            )
    return {
        "env": describe(items[0].env),
        "total_steps": items[0].total_steps,
        "algorithms": algorithms,
        "comparisons": comparisons,
        "settings": {
            "seeds": list(dict.fromkeys(item.seed for item in items)),
            "evaluation_episodes": items[0].evaluation_episodes,
            "max_steps": items[0].max_steps,
            "algorithms": {
                item.name: {
                    "algorithm": describe(item.algorithm),
                    "settings": describe(item.settings),
                }
                for item in items
            },
        },
        "versions": versions(),
    }


def _summary(scores: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    from minirl.experiments import statistics

    return _json_ready(statistics.summarize(scores, rng))


def _json_ready(value: Any) -> Any:
    """The value with None for every NaN in it, because JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items() if key != "type"}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def footnote(items: Sequence[WorkItem]) -> str:
    """Text under the figure: the settings that all algorithms share, then those of each."""
    distinct = {item.name: item for item in items}
    shared = next(iter(distinct.values())).settings
    differs = any(
        first_difference(
            {**describe(item.settings), "rollout_steps": 0},
            {**describe(shared), "rollout_steps": 0},
        )
        for item in distinct.values()
    )
    lines = []
    if differs:
        lines.append("The settings differ between the algorithms (see summary.json).")
    else:
        lines.append(
            f"All algorithms: {shared.num_envs} environments, {_short(shared.advantages)}, hidden "
            f"{'x'.join(map(str, shared.hidden_sizes))}, observations "
            f"{'normalised' if shared.normalize_observations else 'raw'}, rewards "
            f"{_short(shared.reward_transform) if shared.reward_transform else 'raw'}, "
            f"{'states discounted, ' if shared.discount_states else ''}{shared.dtype}, "
            f"{_short(shared.critic_fit)}."
        )
    for name, item in distinct.items():
        lines.append(
            f"{name}: rollouts of {item.settings.rollout_steps} steps, {_short(item.algorithm)}"
        )
    return "\n".join(lines)


def _short(value: Any) -> str:
    """A readable text of a dataclass, without the fields that are None, False or 0."""
    if isinstance(value, LinearSchedule):
        return f"{value.start:g} annealed to {value.end:g}"
    if isinstance(value, Adam | SGD):
        return type(value).__name__
    if not is_dataclass(value):
        return f"{value:g}" if isinstance(value, float) else str(value)
    parts = []
    for field in fields(value):
        setting, name = getattr(value, field.name), field.name.replace("_", " ")
        if setting is True:
            parts.append(name)
        elif setting not in (None, False, 0.0):
            parts.append(f"{name} {_short(setting)}")
    return f"{type(value).__name__}({', '.join(parts)})" if parts else type(value).__name__


def runs_csv(runs: Mapping[str, Mapping[int, Run]]) -> str:
    """All histories as CSV text: algorithm, seed, and the columns of the metrics glossary."""
    names = dict.fromkeys(
        column for seeds in runs.values() for run in seeds.values() for column in run.columns
    )
    lines: list[list[object]] = [["algorithm", "seed", *names]]
    for algorithm, seeds in runs.items():
        for seed, run in seeds.items():
            rows = len(run.columns["environment_steps"])
            missing = np.full(rows, np.nan)
            columns = [run.columns.get(name, missing) for name in names]
            for row in zip(*columns, strict=True):
                cells = ("" if np.isnan(value) else f"{value:.10g}" for value in row)
                lines.append([algorithm, seed, *cells])
    return csv_text(lines)


def _save_comparison(folder: Path, comparison: Comparison, items: Sequence[WorkItem]) -> None:
    with hold_interrupts():  # a signal would break the import of a compiled module
        from minirl.experiments import figures  # matplotlib is loaded only to draw

    write_text(folder / "runs.csv", runs_csv(comparison.runs))
    write_text(folder / "summary.json", json.dumps(comparison.summary, indent=2) + "\n")
    curves = {
        name: [run.columns for run in seeds.values()] for name, seeds in comparison.runs.items()
    }
    seeds = len(next(iter(comparison.runs.values())))
    figures.plot_comparison(
        curves,
        title=f"{comparison.env}: {seeds} seed{'s' if seeds > 1 else ''}, "
        f"{items[0].total_steps:,} environment steps each",
        threshold=reward_threshold(items[0].env),
        footnote=footnote(items),
        path=folder / "curves.png",
    )


check_arguments(__name__)
