"""minirl beside the libraries one would otherwise take: the same work, one core each.

    make bench-peers                           (in its own environment, .venv-peers)
    python -m benchmarks.speed.peers           (the same where the extra [bench] is installed)
    python -m benchmarks.speed.peers --table   (the tables of docs/results/speed-peers.md)

Five seeds take about 25 minutes. Every run is a separate process with one thread (`peer_run.py`,
which contains the settings); CPU seconds include every thread that a library starts nevertheless.
The libraries take turns within a seed, because a machine's speed changes from minute to minute. A
library that cannot be imported is left out.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import study
from benchmarks.speed import peer_run
from benchmarks.speed.peer_run import TASKS, Task
from benchmarks.study import Row
from minirl import History
from minirl.experiments.statistics import bootstrap_interval

STUDY = study.Study(
    study.RESULTS / "peers.csv",
    ("task", "library", "seed"),
    (
        "version",
        "steps",
        "start_seconds",
        "cpu_seconds",
        "wall_seconds",
        "simulation_seconds",
        "peak_memory_mb",
        "import_seconds",
        "import_memory_mb",
        "final_return",
        "steps_to_threshold",
    ),
)
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "PYTHONWARNINGS": "ignore",
}


def in_a_process(task: str, library: str, seed: int) -> dict[str, Any]:
    """What `peer_run.py` prints.

    Raises
    ------
    RuntimeError
        With the end of its messages, if it fails.
    """
    # A script and not a module: importing the package `benchmarks` would be timed as well.
    command = [sys.executable, peer_run.__file__, task, library, str(seed)]
    with TemporaryDirectory() as folder:  # MuJoCo leaves a log where it runs
        done = subprocess.run(
            command, cwd=folder, env=os.environ | ONE_THREAD, capture_output=True, text=True
        )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def record(task: str, found: dict[str, Any]) -> dict[str, Any]:
    """The values of a row; scores are computed here, in the same way for every library."""
    ends, returns = np.array(found["episode_ends"]), np.array(found["episode_returns"])
    history = History()
    history.add_episodes(ends, returns, np.zeros(len(ends)))
    threshold = TASKS[task].threshold
    measured = {
        **found,
        "final_return": history.final_return() if len(returns) else None,
        "steps_to_threshold": history.steps_to(threshold) if threshold else None,
    }
    return {
        name: f"{value:.6g}" if isinstance(value, float) else value
        for name, value in measured.items()
        if name in STUDY.values
    }


def run(seeds: int, measure: Callable[[str, str, int], dict[str, Any]] = in_a_process) -> None:
    """Compute every run that the file does not contain yet."""
    wanted = [
        (name, library, seed)
        for seed in range(seeds)
        for name, task in TASKS.items()
        for library in task.libraries
    ]
    unavailable = set()
    for name, library, seed in (bar := tqdm(STUDY.missing(wanted), unit="run")):
        if (name, library) in unavailable:
            continue
        bar.set_postfix_str(f"{name}, {library}")
        found = measure(name, library, seed)
        if "unavailable" in found:
            unavailable.add((name, library))
            tqdm.write(f"{name} without {library}: {found['unavailable']}", file=sys.stderr)
            continue
        values = record(name, found)
        STUDY.append([[name, library, seed, *(values.get(key, "") for key in STUDY.values)]])


def cost(task: Task, row: Row) -> float:
    """What a run is judged by, in CPU seconds: of a step, or in all up to the threshold.

    A run that never reached the threshold counts with all of its time: less than it would need.
    """
    seconds = float(row["cpu_seconds"])
    if task.kind == "to threshold":
        return seconds
    if task.kind == "apart from simulation":
        seconds -= float(row["simulation_seconds"])
    return seconds / float(row["steps"])


def arrived(task: Task, row: Row) -> bool:
    """Whether the run reached its threshold, if it had one to reach."""
    return task.kind != "to threshold" or bool(row["steps_to_threshold"])


def spread(numbers: Sequence[float], form: str) -> str:
    """Median, smallest and largest; an empty cell without any."""
    if not len(numbers):
        return ""
    return study.with_interval(float(np.median(numbers)), min(numbers), max(numbers), form)


def ratio(task: Task, peer: list[Row], ours: list[Row]) -> str:
    """How many times ours the peer's cost is: median over seeds.

    A seed counts if both have it and one at least arrived. The 95 % interval is a bootstrap's.
    """
    partner = {row["seed"]: row for row in ours}
    ratios = [
        cost(task, row) / cost(task, partner[row["seed"]])
        for row in peer
        if row["seed"] in partner and (arrived(task, row) or arrived(task, partner[row["seed"]]))
    ]
    if not ratios:
        return ""
    low, high = bootstrap_interval(ratios, np.random.default_rng(0), np.median)
    interval = f" [{low:.1f}, {high:.1f}]" if len(ratios) > 1 else ""
    return f"**{np.median(ratios):.1f}x**{interval}"


def cells(task: Task, found: list[Row]) -> dict[str, str]:
    """Column title -> cell, for the runs of one library."""
    arrivals = [row for row in found if arrived(task, row)]
    costs = [cost(task, row) for row in arrivals]
    resources = {
        "wall seconds": spread(study.numbers(arrivals, "wall_seconds"), ".1f"),
        "peak memory, MB": spread(study.numbers(found, "peak_memory_mb"), ".0f"),
    }
    if task.kind == "apart from simulation":
        simulation = [float(row["simulation_seconds"]) / float(row["steps"]) for row in found]
        return {
            "training, CPU microseconds a step": spread([1e6 * value for value in costs], ".0f"),
            "simulation, CPU microseconds a step": spread([1e6 * s for s in simulation], ".0f"),
            **resources,
        }
    if task.kind == "to threshold":
        steps = [1e6 * float(row["cpu_seconds"]) / float(row["steps"]) for row in found]
        return {
            "reached": f"{len(costs)} of {len(found)}",
            "thousand steps": spread(
                [1e-3 * steps for steps in study.numbers(found, "steps_to_threshold")], ".0f"
            ),
            "CPU seconds": spread(costs, ".1f"),
            "CPU microseconds a step": spread(steps, ".0f"),
            **resources,
        }
    return {
        "steps a CPU second": spread([1 / value for value in costs], ",.0f"),
        "CPU seconds": spread(study.numbers(found, "cpu_seconds"), ".1f"),
        **resources,
        "mean return at the end": spread(study.numbers(found, "final_return"), ".0f"),
    }


def markdown(lines: list[dict[str, str]]) -> str:
    """A table with the keys of the first line as its head."""
    return study.markdown(list(lines[0]), [list(line.values()) for line in lines])


def of(everything: list[Row], task: str, library: str) -> list[Row]:
    return [row for row in everything if (row["task"], row["library"]) == (task, library)]


def task_table(name: str, everything: list[Row]) -> str:
    task = TASKS[name]
    references = [library for library in task.libraries if library.startswith("minirl")]
    lines = []
    for library in task.libraries:
        if found := of(everything, name, library):
            times = {
                f"CPU time / {ours}'s": ratio(task, found, of(everything, name, ours))
                for ours in references
            }
            if library in references:
                times[f"CPU time / {library}'s"] = ""
            lines.append({"library": library, **cells(task, found), **times})
    return f"**{task.title}**\n\n{markdown(lines)}"


def footprint_table(everything: list[Row]) -> str:
    """Import and memory, of the first task in which a library takes part."""
    first: dict[str, str] = {}
    for row in everything:
        first.setdefault(row["library"], row["task"])
    lines = []
    for library, task in first.items():
        found = of(everything, task, library)
        lines.append(
            {
                "library": found[0]["version"] if library != "minirl-sync" else library,
                "import, CPU seconds": spread(study.numbers(found, "import_seconds"), ".2f"),
                "to the end of the first update, CPU seconds": spread(
                    study.numbers(found, "start_seconds"), ".1f"
                ),
                "memory after the import, MB": spread(
                    study.numbers(found, "import_memory_mb"), ".0f"
                ),
                "peak memory, MB": spread(study.numbers(found, "peak_memory_mb"), ".0f"),
                "of": task,
            }
        )
    return f"**Import and memory**\n\n{markdown(lines)}"


def tables() -> str:
    everything = STUDY.rows()
    if not everything:
        return ""
    measured = {row["task"] for row in everything}
    parts = [task_table(name, everything) for name in TASKS if name in measured]
    return "\n\n".join([*parts, footprint_table(everything)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--table", action="store_true", help="print the tables, run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        run(arguments.seeds)
    print(tables())


if __name__ == "__main__":
    main()
