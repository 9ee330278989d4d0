"""Seeds and environment steps a core-hour, and what it costs to compute runs in other processes.

    python benchmarks/throughput.py

Prints the two tables of docs/clusters.md; about two minutes of CPU time. CPU seconds are
those of this process and of every process that it started: wall seconds would measure what else
the machine has to do. HalfCheetah needs the extra `mujoco`, the cluster the
extra `dask`; without them their lines are left out.
"""

import argparse
import importlib.util
import logging
import os
import platform
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

import minirl
from minirl.settings import default_algorithm, default_settings

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
FEW, MANY = 2, 12  # tiny runs: the difference is the cost of a run, the rest that of starting
RUNS, REAL_STEPS = 4, 20_000
IDLE_SECONDS = 10


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def cost(work: Callable[[], object]) -> float:
    """CPU seconds of some work; processes that it starts must end with it."""
    began = cpu_seconds()
    work()
    return cpu_seconds() - began


def steps_a_second(env: str, name: str, steps: int, seed: int) -> float:
    """Environment steps a CPU second of one training, this process's start-up apart."""
    history = minirl.train(
        env,
        default_algorithm(name, env),
        total_steps=steps,
        seed=seed,
        settings=default_settings(env, name),
    ).history
    return history.environment_steps / history.rows[-1]["cpu_seconds"]


def runs_an_hour(rate: float, run_steps: int) -> float:
    """Runs of `run_steps` in 3,600 CPU seconds at `rate` steps a second."""
    return 3600 * rate / run_steps


def core_hours(rates: list[float], runs: int, run_steps: int) -> float:
    """CPU hours of `runs` runs at each of these rates, in steps a second."""
    return sum(runs * run_steps / rate for rate in rates) / 3600


def wall_hours(total: float, longest: float, cores: int) -> float:
    """The least time for `total` core-hours on so many cores, when no run is shared by two."""
    return max(total / cores, longest)


def pool(workers: int) -> AbstractContextManager[dict[str, Any]]:
    """Arguments of `compare`: its own processes, or this one."""
    return nullcontext({"workers": workers})


class DaskCluster:
    """Arguments of `compare`: two worker processes of a Dask cluster on this machine."""

    def __enter__(self) -> dict[str, Any]:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.ERROR
        )
        self.client = Client(self.cluster)
        return {"executor": self.client.get_executor()}

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.cluster.close()


PLACES: dict[str, Callable[[], AbstractContextManager[dict[str, Any]]]] = {
    "this process": lambda: pool(1),
    "`workers=2`": lambda: pool(2),
    "Dask, 2 workers": DaskCluster,
}


def compare_on(
    place: Callable[[], AbstractContextManager[dict[str, Any]]], seeds: int, **arguments: Any
) -> float:
    """CPU seconds of one comparison of TRPO on CartPole, its processes' start and end included."""

    def work() -> None:
        with place() as where:
            minirl.compare(["trpo"], "CartPole-v1", seeds=seeds, **arguments, **where)

    return cost(work)


def present(name: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(name) is not None


def throughput_table(repeats: int) -> None:
    """Print what one core does in an hour."""
    print(
        "| environment | algorithm | steps measured | 1,000 steps a CPU second "
        f"| runs of {RUN_STEPS:,} steps a core-hour |\n|---|---|---:|---:|---:|"
    )
    rates = []
    for env, steps in STEPS.items():
        if env == "HalfCheetah-v5" and not present("mujoco"):
            continue
        for name in ALGORITHMS:
            found = [steps_a_second(env, name, steps, seed) for seed in range(repeats)]
            rates.append(float(np.median(found)))
            low, high = (bound / 1e3 for bound in (min(found), max(found)))
            print(
                f"| {env} | {name} | {repeats} x {steps:,} "
                f"| {rates[-1] / 1e3:.1f} [{low:.1f}, {high:.1f}] "
                f"| {runs_an_hour(rates[-1], RUN_STEPS):.1f} |",
                flush=True,
            )
    mean = core_hours(rates, 1, RUN_STEPS) / len(rates)
    slowest = core_hours([min(rates)], 1, RUN_STEPS)
    print(
        f"\nA run of {RUN_STEPS:,} steps: {mean:.3f} core-hours in the mean over these "
        f"{len(rates)} lines, {slowest:.3f} in the slowest. {GRID} such runs: {GRID * mean:.0f} "
        f"core-hours at the mean, {GRID * slowest:.0f} at the slowest; on {CORES} cores "
        f"{wall_hours(GRID * mean, slowest, CORES):.1f} and "
        f"{wall_hours(GRID * slowest, slowest, CORES):.1f} hours.\n",
        flush=True,
    )


def idle_on(place: Callable[[], AbstractContextManager[dict[str, Any]]], seconds: float) -> float:
    """CPU seconds of waiting for so long, processes' start and end included."""

    def work() -> None:
        with place():
            time.sleep(seconds)

    return cost(work)


def overhead_table(repeats: int) -> None:
    """Print what computing runs elsewhere takes."""
    places = {name: place for name, place in PLACES.items() if name[:4] != "Dask" or DASK}
    tiny = {"total_steps": 1, "evaluation_episodes": 1}
    compare_on(PLACES["this process"], 1, **tiny)  # what is loaded only once
    turns = [
        {
            name: (
                compare_on(place, FEW, **tiny),
                compare_on(place, MANY, **tiny),
                idle_on(place, 0),
                idle_on(place, IDLE_SECONDS),
                compare_on(place, RUNS, total_steps=REAL_STEPS),
            )
            for name, place in places.items()
        }
        for _ in range(repeats)
    ]
    print(
        "| runs computed in | starting and ending, CPU s | a run of one step, CPU ms "
        f"| waiting, CPU ms a second | {RUNS} runs of {REAL_STEPS:,} steps, CPU s |\n"
        "|---|---:|---:|---:|---:|"
    )
    for name in places:
        few, many, opened, waited, long = np.array([turn[name] for turn in turns]).T
        a_run = (many - few) / (MANY - FEW)
        waiting = (waited - opened) / IDLE_SECONDS
        print(
            f"| {name} | {np.median(few - FEW * a_run):.1f} | {1e3 * np.median(a_run):.0f} "
            f"| {1e3 * np.median(waiting):.0f} | {np.median(long):.1f} |",
            flush=True,
        )


DASK = present("distributed")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of everything; medians are shown")
    arguments = parser.parse_args()
    throughput_table(arguments.repeats)
    overhead_table(arguments.repeats)
    print(
        f"\nMedians of {arguments.repeats}, [smallest, largest]. {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; {platform.machine()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}."
    )


if __name__ == "__main__":
    main()
