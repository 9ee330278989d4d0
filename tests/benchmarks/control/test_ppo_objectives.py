"""What benchmarks/control/ppo_objectives.py stores of a run that stopped."""

import pytest

import minirl
from benchmarks.control import ppo_objectives as script
from minirl.rollout import NonFiniteError


def stopped_by(reason, monkeypatch):
    """Train for a moment, then stop for that reason."""
    result = minirl.train("CartPole-v1", "ppo", total_steps=2_048)

    def train(*arguments, **named):
        raise minirl.TrainingStopped("stopped", result) from reason

    monkeypatch.setattr(minirl, "train", train)
    return result


def test_a_policy_that_became_non_finite_is_stored(monkeypatch):
    result = stopped_by(NonFiniteError("weights"), monkeypatch)
    score, *_ = script.run(script.Item(0, "CartPole-v1", "no clipping or penalty"))
    assert score == pytest.approx(result.history.final_return(), abs=1e-3)


def test_an_interrupted_run_is_not(monkeypatch):
    stopped_by(KeyboardInterrupt(), monkeypatch)
    with pytest.raises(minirl.TrainingStopped):
        script.run(script.Item(0, "CartPole-v1", "no clipping or penalty"))


def test_scaled_scores_are_0_for_a_fresh_policy_and_1_for_the_best_objective():
    scores = script.normalised_scores(script.STUDY.rows())
    for task in range(len(script.STEPS)):
        means = [by_task[task].mean() for by_task in scores.values()]
        assert max(means) == pytest.approx(1.0)
        assert -0.1 < min(means) < 1.0
