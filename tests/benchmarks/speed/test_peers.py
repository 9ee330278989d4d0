"""What benchmarks/speed/peers.py does without the other libraries: its file and its tables."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.speed import peer_run
from benchmarks.speed import peers as peers_script

ROOT = Path(__file__).parents[3]


@pytest.fixture
def peers(monkeypatch, tmp_path):
    stored = replace(peers_script.STUDY, path=tmp_path / "peers.csv")
    monkeypatch.setattr(peers_script, "STUDY", stored)
    few = {name: peers_script.TASKS[name] for name in ("ppo-cartpole", "ppo-zoo")}
    monkeypatch.setattr(peers_script, "TASKS", few)
    monkeypatch.setattr(peers_script, "UNAVAILABLE", set())
    return peers_script


@pytest.fixture
def run(peers, monkeypatch):
    """run(seeds, measure): all missing runs, with measure(task, library, seed) in their place."""

    def run(seeds, measure):
        monkeypatch.setattr(peers, "in_a_process", measure)
        peers.STUDY.complete(peers.run, peers.wanted(seeds))

    return run


def printed(cpu_seconds: float, steps: int = 1000, score: float = 500.0, simulation=None) -> dict:
    """What a run of 150 equal episodes prints; 10 environment steps each."""
    return {
        "version": "some 1.0, torch 2.0",
        "steps": steps,
        "start_seconds": 1.5,
        "cpu_seconds": cpu_seconds,
        "wall_seconds": 2 * cpu_seconds,
        "simulation_seconds": simulation,
        "peak_memory_mb": 100.0,
        "import_seconds": 0.5,
        "import_memory_mb": 50.0,
        "episode_ends": [10 * (episode + 1) for episode in range(150)],
        "episode_returns": [score] * 150,
    }


def test_libraries_take_turns_within_a_seed_and_a_second_call_goes_on(peers, run):
    called, limit = [], 4

    def measure(task, library, seed):
        if len(called) == limit:
            raise RuntimeError("the power went")
        called.append((seed, task, library))
        return printed(1.0)

    with pytest.raises(RuntimeError, match="power"):
        run(2, measure)
    limit = None
    run(2, measure)
    one_seed = [(name, library) for name, task in peers.TASKS.items() for library in task.libraries]
    assert called == [(seed, *pair) for seed in range(2) for pair in one_seed]
    assert [row["library"] for row in peers.STUDY.rows()] == [library for *_, library in called]


def test_a_library_that_cannot_be_imported_is_left_out_with_a_message(peers, run, capsys):
    called = []

    def measure(task, library, seed):
        called.append(library)
        if library == "sbx":
            return {"unavailable": "ModuleNotFoundError: No module named 'sbx'"}
        return printed(1.0)

    run(3, measure)
    assert called.count("sbx") == len(peers.TASKS)  # once a task, not once a seed
    assert "ppo-cartpole without sbx: ModuleNotFoundError" in capsys.readouterr().err
    assert "sbx" not in {row["library"] for row in peers.STUDY.rows()}
    assert "stable-baselines3" in peers.tables()
    assert "sbx" not in peers.tables()


@pytest.mark.parametrize(
    ("score", "cells"),
    [(480.0, ["480", 1000]), (474.0, ["474", None])],  # the end of the hundredth episode
)
def test_scores_are_counted_from_the_episodes(peers, score, cells):
    values = peers.row_values("ppo-zoo", printed(1.0, score=score))
    assert values[peers.STUDY.values.index("final_return") :] == cells


def test_the_ratio_pairs_seeds_and_costs(peers, run):
    seconds = {("minirl", 0): 1.0, ("minirl", 1): 2.0}
    peer = "stable-baselines3"
    seconds |= {(peer, 0): 6.0, (peer, 1): 14.0, (peer, 2): 100.0}

    def measure(task, library, seed):
        if (library, seed) not in seconds:
            return {"unavailable": ""}
        # Twice the steps in the same time is half the cost.
        steps = 2000 if library == "minirl" else 1000
        return printed(seconds[library, seed], steps)

    run(3, measure)
    lines = peers.task_table("ppo-cartpole", peers.STUDY.rows()).splitlines()
    assert lines[0] == "**PPO on CartPole-v1, 200,000 steps (tianshou: 40,960)**"
    assert lines[2].startswith("| library | steps per CPU second |")
    assert lines[4].startswith(
        "| minirl | 1,500 [1,000, 2,000] | 1.5 [1.0, 2.0] | 3.0 [2.0, 4.0] |"
    )
    # 6 / (1 / 2) = 12 and 14 / (2 / 2) = 14; the third seed has no partner.
    assert lines[5].endswith("| **13.0x** [12.0, 14.0] |  |")  # and no SyncVectorEnv


def test_to_a_threshold_failed_runs_are_in_the_ratio_with_all_of_their_time(peers, run):
    failures = {("minirl", 1): 4.0, ("stable-baselines3", 0): 10.0}
    failures |= {("minirl", 3): 1.0, ("stable-baselines3", 3): 90.0}  # neither: no comparison

    def measure(task, library, seed):
        if (library, seed) in failures:
            return printed(failures[library, seed], score=100.0)
        return printed(8.0 if library == "stable-baselines3" else 1.0)

    run(4, measure)
    table = peers.task_table("ppo-zoo", peers.STUDY.rows())
    assert "| minirl | 2 of 4 | 1 [1, 1] | 1.0 [1.0, 1.0] |" in table
    # 10 / 1, 8 / 4 and 8 / 1
    line = next(line for line in table.splitlines() if line.startswith("| stable-baselines3 "))
    assert line.startswith("| stable-baselines3 | 2 of 4 | 1 [1, 1] | 8.0 [8.0, 8.0] |")
    assert "| 16.0 [16.0, 16.0] | 100 [100, 100] | **8.0x** [2.0, 10.0]" in line  # wall, memory


def test_simulation_is_taken_off(peers):
    row = {"cpu_seconds": "3.0", "simulation_seconds": "1.0", "steps": "1000"}
    assert peers.cost(peer_run.TASKS["ppo-hopper"], row) == pytest.approx(2e-3)


def test_minirl_is_timed_until_it_reached_the_threshold(peers, monkeypatch):
    ticks = itertools.count()  # the clock is read at the start and after each rollout
    monkeypatch.setattr(peer_run, "clock", lambda: (tick := float(next(ticks)), tick))
    task = replace(peer_run.TASKS["ppo-zoo"], total_steps=20_000, threshold=145.0)
    whole = peer_run.run_minirl(replace(task, threshold=500.0), "minirl", 0)
    run = peer_run.run_minirl(task, "minirl", 0)
    assert run.steps < task.total_steps <= whole.steps
    assert run.episode_ends[-1] == run.steps
    assert sum(run.episode_returns[-100:]) >= 14_500
    assert sum(run.episode_returns[-101:-1]) < 14_500
    assert run.episode_returns == whole.episode_returns[: len(run.episode_returns)]
    rows = task.settings.num_envs * task.settings.rollout_steps
    assert run.steps / rows <= run.cpu_seconds <= 1.1 * run.steps / rows + 1 < whole.cpu_seconds


def test_a_run_is_a_process_that_prints_one_line(peers):
    def process(task, steps):
        path = ROOT / "benchmarks" / "speed" / "peer_run.py"
        command = [sys.executable, str(path), task, "minirl", "0", "--steps", str(steps)]
        return subprocess.run(command, capture_output=True, text=True)

    run = json.loads(process("ppo-zoo", 1000).stdout)
    assert run["steps"] >= 1000
    assert run["cpu_seconds"] > 0
    assert 10 < run["import_memory_mb"] <= run["peak_memory_mb"]
    assert run["episode_ends"] == sorted(run["episode_ends"])
    assert set(peers.STUDY.values) <= {*run, "final_return", "steps_to_threshold"}
    done = process("ppo-hopper", 4000)
    assert done.returncode == 2
    assert "--steps must be 4096 or more" in done.stderr
