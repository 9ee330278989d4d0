"""What benchmarks/ppo_objectives.py stores of a run that stopped."""

from pathlib import Path

import pytest

import minirl
from minirl.rollout import NonFiniteError


@pytest.fixture
def script(load):
    return load("ppo_objectives")


def stopped_by(reason, monkeypatch):
    """Train for a moment, then stop for that reason."""
    result = minirl.train("CartPole-v1", "ppo", total_steps=2_048)

    def train(*arguments, **named):
        raise minirl.TrainingStopped("stopped", result) from reason

    monkeypatch.setattr(minirl, "train", train)
    return result


def test_a_policy_that_became_non_finite_is_stored(script, monkeypatch):
    result = stopped_by(NonFiniteError("weights"), monkeypatch)
    row = script.run(script.Item("CartPole-v1", "no clipping or penalty", 0))
    assert row["return"] == pytest.approx(result.history.final_return(), abs=1e-3)


def test_an_interrupted_run_is_not(script, monkeypatch):
    stopped_by(KeyboardInterrupt(), monkeypatch)
    with pytest.raises(minirl.TrainingStopped):
        script.run(script.Item("CartPole-v1", "no clipping or penalty", 0))


def test_stored_rows_come_back_as_they_were(script, tmp_path):
    rows = script.read(script.RESULTS)
    assert len(rows) == 8 * 4 * 11 + 4
    script.normalise(rows)
    script.write(tmp_path / "again.csv", rows)
    assert (tmp_path / "again.csv").read_text() == script.RESULTS.read_text()


def test_the_results_page_holds_the_table_of_the_stored_runs(script):
    page = Path(__file__).parents[2] / "docs" / "results.md"
    assert script.table(script.read(script.RESULTS)) in page.read_text()
