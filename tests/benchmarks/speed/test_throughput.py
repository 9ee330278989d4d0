"""Core-hours from steps a second, on numbers worked by hand."""

import subprocess
import sys
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from benchmarks.speed import throughput as script


def test_core_hours_by_hand():
    assert script.core_hours(5_000) == pytest.approx(200 / 3600)  # a million steps
    # no cluster is faster than its longest run
    assert [script.wall_hours(20.0, 0.5, cores) for cores in (10, 100)] == [2.0, 0.5]


BURN = "import time\nwhile time.process_time() < 0.3: pass"


def test_the_cost_of_processes_counts_those_that_have_ended_and_those_that_live():
    ended, _ = script.cost(lambda: subprocess.run([sys.executable, "-c", BURN], check=True))
    assert ended > 0.25
    waiting = [sys.executable, "-c", f"{BURN}\nprint(flush=True)\ninput()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with ExitStack() as living:  # closing its input ends a process
        spent, _ = script.cost(
            lambda: living.enter_context(subprocess.Popen(waiting, **pipes)).stdout.readline()
        )
    assert spent > 0.25


def test_overhead_is_told_apart(monkeypatch):
    # CPU seconds: 2 to start, 0.5 to end, 0.1 a run of one update, 1.5 a long one; each takes
    # three times as long by the wall clock, and every second of that costs 0.25 besides
    clocks = np.zeros(2)

    def spend(cpu, wall):
        clocks[:] += cpu + 0.25 * wall, wall

    @contextmanager
    def place():
        spend(2.0, 6.0)
        yield {}
        spend(0.5, 1.5)

    def compare(env, algorithms, *, seeds, total_steps, evaluation_episodes):
        work = seeds * (1.5 if total_steps == script.LONG_STEPS else 0.1)
        spend(work, 3 * work)

    monkeypatch.setattr(script, "clocks", clocks.copy)
    monkeypatch.setattr("minirl.compare", compare)
    monkeypatch.setattr("time.sleep", lambda seconds: spend(0.0, seconds))
    assert script.overhead(place) == pytest.approx((2.5, 0.1, 1.4, 0.25))
