"""Runs and environment steps per core-hour, and the cost of computing runs in other processes.

    .venv/bin/python -m benchmarks.speed.throughput

Prints the two tables of clusters.md; two to three minutes of CPU time. Needs the extras `dask`
and `mujoco`, and Linux. CPU seconds are those of this process and of every process that it started,
because wall seconds also depend on the other work of the machine.
"""

import argparse
import importlib
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import psutil

import minirl
from benchmarks import study
from benchmarks.speed.timing import machine

STEPS = {
    "CartPole-v1": 20_000,
    "Acrobot-v1": 20_000,
    "Pendulum-v1": 20_000,
    "HalfCheetah-v5": 8_192,
    "minirl/TokenGeneration-v0": 20_000,
}
ALGORITHMS = ("ppo", "trpo")
RUN_STEPS = 1_000_000  # of the runs that are counted in core-hours
GRID, CORES = 10 * 20 * 10, 100  # algorithms x environments x seeds of the extrapolation
PROCESSES = 2
LOADING_RUNS = 4  # after these, every process has imported what a run needs
SHORT_RUNS, LONG_RUNS = 24, 4
LONG_STEPS = 30_000
IDLE_SECONDS = 10


def clocks() -> np.ndarray:
    """CPU seconds of this process and of its children, living and ended; wall seconds."""
    this = psutil.Process()
    processes = [this, *this.children(recursive=True)]
    return np.array([sum(sum(one.cpu_times()[:4]) for one in processes), time.perf_counter()])


def cost(work: Callable[[], object]) -> np.ndarray:
    """CPU seconds of some work, in this process and in those that it starts; wall seconds."""
    began = clocks()
    work()
    return clocks() - began


def steps_per_second(env: str, name: str, steps: int, seed: int) -> float:
    """Environment steps per CPU second of one training run, without this process's start."""
    history = minirl.train(env, name, total_steps=steps, seed=seed).history
    return history.environment_steps / history.rows[-1]["cpu_seconds"]


def core_hours(rate: float) -> float:
    """CPU hours of a run of `RUN_STEPS` at `rate` steps per CPU second."""
    return RUN_STEPS / rate / 3600


def wall_hours(total: float, longest: float, cores: int) -> float:
    """The least time for `total` core-hours on `cores` cores, when no run is shared by two."""
    return max(total / cores, longest)


@contextmanager
def process_pool() -> Iterator[dict[str, Any]]:
    """Arguments of `compare`: a pool like the one it starts itself, for several comparisons."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as executor:
        yield {"executor": executor}


@contextmanager
def dask_cluster() -> Iterator[dict[str, Any]]:
    """Arguments of `compare`: the worker processes of a Dask cluster on this machine."""
    # Imported here, because a pool's processes import this file too.
    from distributed import Client, LocalCluster

    with (
        mock.patch.dict(os.environ),  # Dask sets its workers' variables in this process
        LocalCluster(
            n_workers=PROCESSES,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield {"executor": client.get_executor()}


Place = Callable[[], AbstractContextManager[dict[str, Any]]]
PLACES: dict[str, Place] = {
    "this process": lambda: nullcontext({"workers": 1}),
    f"a pool of {PROCESSES}": process_pool,
    f"Dask, {PROCESSES} workers": dask_cluster,
}


def overhead(place: Place) -> tuple[float, float, float, float]:
    """CPU seconds of computing runs in a place.

    Returns
    -------
    tuple of float
        CPU seconds of starting and ending the processes; of a run of one update; of the rest of a
        run of `LONG_STEPS`; and per idle second, which the others do not contain.
    """

    def runs(seeds: int, steps: int) -> np.ndarray:
        arguments = {"total_steps": steps, "evaluation_episodes": 1, **where}
        return cost(lambda: minirl.compare("CartPole-v1", ["trpo"], seeds=seeds, **arguments))

    began = clocks()
    with place() as where:
        runs(LOADING_RUNS, 1)
        idle = cost(lambda: time.sleep(IDLE_SECONDS))
        short = runs(SHORT_RUNS, 1) / SHORT_RUNS
        long = runs(LONG_RUNS, LONG_STEPS) / LONG_RUNS
    total = clocks() - began
    starting = total - (LOADING_RUNS + SHORT_RUNS) * short - LONG_RUNS * long
    waiting = idle[0] / idle[1]
    parts = [cpu - waiting * wall for cpu, wall in (starting, short, long - short)]
    return parts[0], parts[1], parts[2], waiting


def throughput_table(repeats: int) -> str:
    """The work of one core in an hour."""
    hours, lines = [], []
    for env, steps in STEPS.items():
        for name in ALGORITHMS:
            measured = [steps_per_second(env, name, steps, seed) for seed in range(repeats)]
            hours.append(core_hours(float(np.median(measured))))
            thousands = study.median_with_range([rate / 1e3 for rate in measured], ".1f")
            lines.append([env, name, f"{repeats} x {steps:,}", thousands, f"{1 / hours[-1]:.1f}"])
    mean, slowest = float(np.mean(hours)), max(hours)
    head = ["environment", "algorithm", "steps measured", "1,000 steps per CPU second"]
    table = study.markdown([*head, f"runs of {RUN_STEPS:,} steps per core-hour"], lines)
    return (
        f"{table}\n\n"
        f"A run of {RUN_STEPS:,} steps: {mean:.3f} core-hours in the mean over these "
        f"{len(hours)} lines, {slowest:.3f} in the slowest. {GRID} such runs: {GRID * mean:.0f} "
        f"core-hours at the mean, {GRID * slowest:.0f} at the slowest; on {CORES} cores "
        f"{wall_hours(GRID * mean, slowest, CORES):.1f} and "
        f"{wall_hours(GRID * slowest, slowest, CORES):.1f} hours."
    )


def overhead_table(repeats: int) -> str:
    """The cost of computing runs in each place."""
    turns = [[overhead(place) for place in PLACES.values()] for _ in range(repeats)]
    starting, short, training, waiting = np.moveaxis(turns, -1, 0)  # (repeats, places) each
    training = training / training[:, :1]  # relative to the first place
    columns = (starting, "z.1f"), (1e3 * short, ".0f"), (training, ".2f"), (1e3 * waiting, ".0f")
    lines = [
        [name, *(study.median_with_range(values[:, place], form) for values, form in columns)]
        for place, name in enumerate(PLACES)
    ]
    head = ["runs computed in", "starting and ending, CPU s", "a run of one update, CPU ms"]
    head += ["training, CPU s per CPU s in this process", "waiting, CPU ms per second"]
    return study.markdown(head, lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of everything; medians are shown")
    arguments = parser.parse_args()
    for extra in ("dask", "mujoco"):
        importlib.import_module(extra)  # an error now, not after a minute
    print(throughput_table(arguments.repeats), end="\n\n", flush=True)
    print(overhead_table(arguments.repeats))
    print(
        f"\nMedians of {arguments.repeats}, [smallest, largest]. {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; {machine()}."
    )


if __name__ == "__main__":
    main()
