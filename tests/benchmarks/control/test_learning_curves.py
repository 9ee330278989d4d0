"""The benchmark behind notebook 05: what it keeps of a run, and the results that are stored."""

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks.control import learning_curves as script
from minirl import LinearSchedule
from minirl.experiments.compare import Comparison, Run

STORED = Path(__file__).parents[3] / "benchmarks" / "results" / "learning_curves"


def make_run(steps, returns, threshold=np.nan):
    steps = np.array(steps, dtype=float)
    columns = {
        "environment_steps": steps,
        "gradient_equivalents": 2 * steps,
        "cpu_seconds": steps / 1000,
        "mean_return": np.array(returns, dtype=float),
        "kl": np.full(len(steps), 0.0123456),
    }
    return Run(columns, returns[-1], 7.0, threshold)


def stored(name):
    with open(STORED / name, newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_a_stretch_and_always_the_last():
    steps = np.array([500, 1000, 2048, 2049, 4000, 4097, 5000])
    np.testing.assert_array_equal(script.stored_updates(steps), [2, 4, 6])


def test_curves_have_few_digits_and_empty_cells_for_nan():
    run = make_run([2048, 4096], [np.nan, 123.456789])
    assert script.curve_rows(Comparison("CartPole-v1", {"ppo": {3: run}}, {})) == [
        ["ppo", 3, "2048", "4096", "2.048", "", "0.0123"],
        ["ppo", 3, "4096", "8192", "4.096", "123.46", "0.0123"],
    ]


def test_the_average_weighs_each_update_by_its_steps_once_episodes_have_ended():
    run = make_run([10, 20, 50], [np.nan, 1.0, 3.0])
    assert script.average_return(run.columns) == pytest.approx((10 * 1.0 + 30 * 3.0) / 40)
    assert script.score_cells(run) == ["2.5", "3", "7", ""]
    assert script.score_cells(make_run([10], [3.0], threshold=10.0))[-1] == "10"


def test_the_knobs_are_turned_around_their_defaults_and_nothing_else_is():
    found = script.knob_settings("CartPole-v1")
    assert len(found) == 2 * len(script.FACTORS)
    standard = script.preset("CartPole-v1", "trpo").algorithm
    assert found["trpo max_kl 0.01"][-1] == standard
    assert found["trpo max_kl 0.3"][-1] == script.replace(standard, max_kl=0.3)
    assert found["ppo learning_rate 0.03"][-1].learning_rate == LinearSchedule(0.03)


@pytest.mark.parametrize("env", script.TOTAL_STEPS)
def test_stored_curves_are_whole_and_slim_and_end_in_the_stored_scores(env):
    name, total = script.short_name(env), script.TOTAL_STEPS[env]
    assert (STORED / f"{name}.csv").stat().st_size < 350e3
    last = {(row["algorithm"], row["seed"]): row for row in stored(f"{name}.csv")}
    assert set(last) == {(a, str(seed)) for a in script.ALGORITHMS for seed in range(script.SEEDS)}
    scores = {
        (row["algorithm"], row["seed"]): float(row["final_training_return"])
        for row in stored("scores.csv")
        if row["env"] == env
    }
    assert scores.keys() == last.keys()
    for run, row in last.items():
        assert total <= float(row["environment_steps"]) < total + 2 * script.STEPS_PER_ROW
        assert scores[run] == pytest.approx(float(row["mean_return"] or "nan"), rel=1e-4)


def test_stored_sensitivities_are_whole():
    found = {(r["env"], r["algorithm"], r["value"], r["seed"]) for r in stored("sensitivity.csv")}
    assert len(found) == len(script.SENSITIVITY_STEPS) * 14 * script.SENSITIVITY_SEEDS
