"""What benchmarks/control/mujoco_tasks.py runs and stores, without MuJoCo."""

from collections import Counter
from dataclasses import replace

import minirl
from benchmarks.control import mujoco_tasks as script


def test_what_explains_a_difference_changes_what_it_names():
    preset = {name: minirl.preset("Swimmer-v5", name).settings for name in ("ppo", "trpo")}
    for method in (*script.FARSIGHTED, *script.UNCLIPPED):
        algorithm, settings = script.choices(script.Item("Swimmer-v5", method, 0))
        assert method.startswith(algorithm)
        assert settings.advantages.discount == settings.reward_transform.discount == 0.9999
        fit = preset[algorithm].critic_fit
        clip = None if method in script.UNCLIPPED else fit.value_clip
        assert settings.critic_fit == replace(fit, value_clip=clip)
    bounds = {
        env: script.choices(script.Item(env, script.ZOO, 0)) for env in script.ENVIRONMENTS[:4]
    }
    assert [algorithm.max_kl for algorithm, _ in bounds.values()] == [0.04, 0.01, 0.01, 0.01]
    assert [settings.advantages.discount for _, settings in bounds.values()] == [0.99] * 3 + [
        0.9999
    ]
    _, settings = script.choices(script.Item("Swimmer-v5", script.ZOO_NEARSIGHTED, 0))
    assert settings == script.ZOO_SETTINGS
    _, settings = script.choices(script.Item("HalfCheetah-v5", script.DEATH, 0))
    assert settings.advantages.estimator == preset["ppo"].advantages


def test_each_stored_curve_is_stored_once():
    found = Counter((row["env"], row["method"], row["seed"]) for row in script.CURVES.rows())
    assert set(found.values()) == {25}
    assert found.keys() <= {(item.env, item.method, str(item.seed)) for item in script.wanted(3)}
