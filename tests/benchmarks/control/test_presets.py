"""What benchmarks/control/presets.py runs, and how it tabulates it."""

from dataclasses import replace

import pytest

import minirl
from benchmarks.control import presets
from minirl.presets import PRESETS


@pytest.fixture
def script(monkeypatch, tmp_path):
    stored = replace(presets.STUDY, path=tmp_path / "presets.csv")
    monkeypatch.setattr(presets, "STUDY", stored)
    return presets


def test_every_preset_and_algorithm_is_run_on_ten_seeds(script):
    wanted = script.wanted()
    assert {item.env for item in wanted} == PRESETS.keys()
    assert len(wanted) == len(set(wanted))
    for env in PRESETS:
        seeds = {(item.algorithm, item.seed) for item in wanted if item.env == env}
        assert len(seeds) == 10 * len(script.algorithms(env))
    assert script.algorithms("Hopper-v5") == ["trpo", "ppo"]
    assert "grpo" in script.algorithms(script.TOKENS)


def test_a_line_names_its_run_and_its_commit(script):
    item = script.Item("minirl/Chain-v0", "trpo", 500, 100)
    commit, training, evaluation, seconds = script.run(item)
    assert commit == minirl.support.serialization.versions().get("commit", "")
    result = minirl.train(item.env, item.algorithm, total_steps=500, seed=100)
    assert float(training) == pytest.approx(result.history.final_return(), rel=1e-5)
    fresh = minirl.evaluate(item.env, result.policy, episodes=100, seed=100)
    assert float(evaluation) == pytest.approx(fresh.mean, rel=1e-5)
    assert float(seconds) > 0


def test_of_the_token_task_the_fraction_of_the_optimum_is_stored(script):
    _, _, fraction, _ = script.run(script.Item(script.TOKENS, "ppo", 1_024, 100))
    assert 0 < float(fraction) < 1


def test_what_stands_beside_a_score_needs_no_physics_engine(script):
    assert script.yardstick("LunarLander-v3") == "threshold 200"
    assert script.yardstick("Walker2d-v5") == ""
    assert script.yardstick("FrozenLake8x8-v1") == "best possible 0.913"
    assert script.yardstick("CliffWalking-v1") == "best possible -13"
    assert script.yardstick("minirl/LQR-v0") == "optimal gain -6.9"


def test_the_table_holds_the_interquartile_mean_and_its_interval(script):
    for seed, score in enumerate([0.0, 0.5, 0.6, 0.7, 5.0]):
        line = ["FrozenLake8x8-v1", "ppo", "1", seed, "abc", score, score, "1"]
        script.STUDY.append([line])
    row = next(line for line in script.table().splitlines() if "8x8-v1 | ppo" in line)
    assert "| 0.600 [0.200, " in row  # the middle three of five
