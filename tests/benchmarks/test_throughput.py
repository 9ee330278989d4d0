"""Core-hours from steps a second, on numbers worked by hand."""

import subprocess
import sys

import pytest


@pytest.fixture
def script(load):
    return load("throughput")


def test_runs_of_a_core_hour(script):
    assert script.runs_an_hour(5_000, 1_000_000) == 18  # 200 seconds each


def test_core_hours_add_up_over_the_rates(script):
    # 3 runs of 100 s and 3 of 500 s
    assert script.core_hours([10_000, 2_000], 3, 1_000_000) == pytest.approx(0.5)


def test_no_cluster_is_faster_than_its_longest_run(script):
    assert script.wall_hours(20.0, 0.5, 10) == 2.0
    assert script.wall_hours(20.0, 0.5, 100) == 0.5


def test_the_cost_of_processes_counts_those_that_have_ended(script):
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    spent = script.cost(lambda: subprocess.run([sys.executable, "-c", burn], check=True))
    assert spent > 0.25
