"""minirl beside other libraries that do the same work, on one core each.

    make bench-peers                           (in its own environment, .venv-peers)
    python -m benchmarks.speed.peers           (the same where the extra [bench] is installed)
    python -m benchmarks.speed.peers --table   (the tables of docs/results/speed-peers.md)

Five seeds take about 25 minutes. Every run is a separate process with one thread (`peer_run.py`,
which contains the settings). CPU seconds include the threads that a library starts nevertheless.
The libraries take turns, because a machine's speed changes from minute to minute. A library that
cannot be imported is left out.
"""

import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import study
from benchmarks.speed import peer_run
from benchmarks.speed.peer_run import TASKS, Task
from benchmarks.study import Row
from minirl import History
from minirl.experiments.statistics import bootstrap_interval, interval_text

VALUES = ("version", "steps", "start_seconds", "cpu_seconds", "wall_seconds")
VALUES += ("simulation_seconds", "peak_memory_mb", "import_seconds", "import_memory_mb")
VALUES += ("final_return", "steps_to_threshold")
STUDY = study.Study(study.RESULTS / "peers.csv", ("task", "library", "seed"), VALUES)
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "PYTHONWARNINGS": "ignore",
}


def in_a_process(task: str, library: str, seed: int) -> dict[str, Any]:
    """Run `peer_run.py` and return the values that it prints; RuntimeError if it fails."""
    # A script and not a module, so that importing the package `benchmarks` is not timed.
    command = [sys.executable, peer_run.__file__, task, library, str(seed)]
    with TemporaryDirectory() as folder:  # MuJoCo writes a log into the working directory
        done = subprocess.run(
            command, cwd=folder, env=os.environ | ONE_THREAD, capture_output=True, text=True
        )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def row_values(task: str, printed: dict[str, Any]) -> list[object]:
    """The values of a row; scores are computed here, in the same way for every library."""
    ends, returns = np.array(printed["episode_ends"]), np.array(printed["episode_returns"])
    history = History()
    history.add_episodes(ends, returns, np.zeros(len(ends)))
    threshold = TASKS[task].threshold
    values = {
        **printed,
        "final_return": history.final_return() if len(returns) else None,
        "steps_to_threshold": history.steps_to(threshold) if threshold else None,
    }
    row = [values.get(name, "") for name in STUDY.values]
    return [f"{value:.6g}" if isinstance(value, float) else value for value in row]


def wanted(seeds: int) -> list[tuple[str, str, int]]:
    """Task, library and seed of all runs."""
    return [
        (name, library, seed)
        for seed in range(seeds)
        for name, task in TASKS.items()
        for library in task.libraries
    ]


UNAVAILABLE: set[tuple[str, str]] = set()  # tasks and libraries whose import failed


def run(item: tuple[str, str, int]) -> list[object] | None:
    """The values of a row; None without the library, which is then not tried again."""
    task, library, seed = item
    if (task, library) in UNAVAILABLE:
        return None
    printed = in_a_process(task, library, seed)
    if "unavailable" in printed:
        UNAVAILABLE.add((task, library))
        tqdm.write(f"{task} without {library}: {printed['unavailable']}", file=sys.stderr)
        return None
    return row_values(task, printed)


def cost(task: Task, row: Row) -> float:
    """The cost of a run in CPU seconds: per step, or in total until the threshold is reached.

    A run that never reached the threshold counts with all of its time, which is less than it needs.
    """
    seconds = float(row["cpu_seconds"])
    if task.kind == "to threshold":
        return seconds
    return (seconds - float(row["simulation_seconds"] or 0)) / float(row["steps"])


def succeeded(task: Task, row: Row) -> bool:
    """Whether the run reached its threshold; True for tasks without one."""
    return task.kind != "to threshold" or bool(row["steps_to_threshold"])


def ratio(task: Task, peer: list[Row], reference: list[Row]) -> str:
    """The median over seeds of the peer's cost divided by the reference's, with its 95 % interval.

    A seed counts if both have it and at least one of them reached the threshold.
    """
    ratios = [
        cost(task, row) / cost(task, other)
        for row in peer
        for other in reference
        if row["seed"] == other["seed"] and (succeeded(task, row) or succeeded(task, other))
    ]
    if not ratios:
        return ""
    low, high = bootstrap_interval(ratios, np.random.default_rng(0), np.median)
    return f"**{np.median(ratios):.1f}x**{interval_text(low, high, '.1f')}"


def cells(task: Task, rows: list[Row]) -> dict[str, str]:
    """Column title -> cell, for the runs of one library."""
    text = study.median_with_range
    arrivals = [row for row in rows if succeeded(task, row)]
    costs = np.array([cost(task, row) for row in arrivals])
    resources = {
        "wall seconds": text(study.numbers(arrivals, "wall_seconds"), ".1f"),
        "peak memory, MB": text(study.numbers(rows, "peak_memory_mb"), ".0f"),
    }
    steps, seconds = (np.array(study.numbers(rows, name)) for name in ("steps", "cpu_seconds"))
    if task.simulates_apart:
        simulation = 1e6 * np.array(study.numbers(rows, "simulation_seconds")) / steps
        return {
            "training, CPU microseconds per step": text(1e6 * costs, ".0f"),
            "simulation, CPU microseconds per step": text(simulation, ".0f"),
            **resources,
        }
    if task.kind == "to threshold":
        reached = np.array(study.numbers(rows, "steps_to_threshold"))
        return {
            "reached": f"{len(costs)} of {len(rows)}",
            "thousand steps": text(1e-3 * reached, ".0f"),
            "CPU seconds": text(costs, ".1f"),
            "CPU microseconds per step": text(1e6 * seconds / steps, ".0f"),
            **resources,
        }
    return {
        "steps per CPU second": text(1 / costs, ",.0f"),
        "CPU seconds": text(seconds, ".1f"),
        **resources,
        "mean return at the end": text(study.numbers(rows, "final_return"), ".0f"),
    }


def markdown(title: str, lines: list[dict[str, str]]) -> str:
    """A table below its title; the keys of the first line are its head."""
    return study.titled({f"**{title}**": study.markdown(list(lines[0]), map(dict.values, lines))})


def task_table(name: str, rows: list[Row]) -> str:
    """The libraries that have runs of a task, each compared with minirl."""
    task, runs = TASKS[name], study.grouped(rows, "task", "library")
    references = [library for library in task.libraries if library.startswith("minirl")]
    lines = []
    for library in task.libraries:
        if measured := runs.get((name, library)):
            line = {"library": library, **cells(task, measured)}
            for reference in references:
                others = runs.get((name, reference), []) if library != reference else []
                line[f"CPU time / {reference}'s"] = ratio(task, measured, others)
            lines.append(line)
    return markdown(task.title, lines)


def footprint_table(rows: list[Row]) -> str:
    """Import and memory, of the first task in which a library takes part."""
    columns = {
        "import, CPU seconds": ("import_seconds", ".2f"),
        "to the end of the first update, CPU seconds": ("start_seconds", ".1f"),
        "memory after the import, MB": ("import_memory_mb", ".0f"),
        "peak memory, MB": ("peak_memory_mb", ".0f"),
    }
    lines = []
    for library, runs in study.grouped(rows, "library").items():
        task = runs[0]["task"]
        measured = [row for row in runs if row["task"] == task]
        numbers = {
            title: study.median_with_range(study.numbers(measured, column), form)
            for title, (column, form) in columns.items()
        }
        version = library if library == "minirl-sync" else measured[0]["version"]
        lines.append({"library": version, **numbers, "of": task})
    return markdown("Import and memory", lines)


def tables() -> str:
    """The tables of docs/results/speed-peers-table.md; empty without runs."""
    rows = STUDY.rows()
    if not rows:
        return ""
    measured = {row["task"] for row in rows}
    by_task = [task_table(name, rows) for name in TASKS if name in measured]
    return "\n\n".join([*by_task, footprint_table(rows)])


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, tables, seeds=5, parallel=False)
