import re
from dataclasses import replace

import pytest

import minirl
from minirl.advantages import GAE
from minirl.algorithms.ppo import FixedKL
from minirl.experiments.overrides import CONSTRUCTORS, parse_value, with_overrides
from minirl.presets import Preset, preset

PPO_PRESET = preset("CartPole-v1", "ppo")


RIGHT = """
3 | -0.5 | 1e-3 | True | None | 'float64' | (64, 64) | () | SGD() | Adam(epsilon=1e-5)
LinearSchedule(1e-3, end=1e-4) | GAE(discount=0.9, lam=1.0) | RewardToGo(0.9) | LeaveOneOut()
GroupNormalized() | ReturnScaling(discount=0.9) | Clipped(LinearSchedule(0.2)) | Unclipped()
FixedKL(0.5) | AdaptiveKL(target=0.02) | CriticFit(epochs=2, optimizer=SGD()) | TableFit(rate=0.3)
"""
# of the last ones, episodes are not discounted
WRONG = """
abc | float32 | 1 + | (1 | Foo(1) | GAE(2) | FixedKL(-1) | FixedKL(volume=3) | Adam('a', 1, 2, 3)
FixedKL('a') | CriticFit(epochs=(1,)) | TableFit(rate=2) | x = 1 | 1; 2
LeaveOneOut(0.9) | GroupNormalized(discount=0.9)
"""


@pytest.mark.parametrize("text", re.split(r" \| |\n", RIGHT.strip()))
def test_parse_value(text):
    parsed, value = parse_value(text), eval(text, dict(vars(minirl)))
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {marker}')",
        "open('{marker}', 'w')",
        "SGD(open('{marker}', 'w'))",
        "SGD(*[open('{marker}', 'w')])",
        "SGD(**{{'a': open('{marker}', 'w')}})",
        "[open('{marker}', 'w') for _ in '1']",
        "(lambda: open('{marker}', 'w'))()",
        "(open('{marker}', 'w'),)",
        "GAE.__init__(open('{marker}', 'w'))",
        "f\"{{open('{marker}', 'w')}}\"",
    ],
)
def test_nothing_but_the_whitelist_is_ever_called(text, tmp_path):
    marker = tmp_path / "executed"
    with pytest.raises(ValueError, match="is not understood"):
        parse_value(text.format(marker=marker))
    assert not marker.exists()


@pytest.mark.parametrize("text", ["", *re.split(r" \| |\n", WRONG.strip())])
def test_a_bad_value_is_refused_in_plain_words(text):
    with pytest.raises(ValueError, match="is not understood") as caught:
        parse_value(text)
    message = str(caught.value)
    assert repr(text) in message
    assert "FixedKL" in message  # what would be right
    assert "\n" not in message
    assert " object at 0x" not in message  # an object's address helps nobody


def test_every_constructor_is_called_by_its_own_name():
    assert all(name == kind.__name__ for name, kind in CONSTRUCTORS.items())


def test_overrides_change_fields_of_the_algorithm_and_of_the_settings():
    assert with_overrides(PPO_PRESET, []) == PPO_PRESET
    overrides = ["objective=FixedKL(2.0)", "num_envs=3", "epochs=4", "epochs=5"]
    # spaces around the name, and an equals sign within the value
    overrides.append(" advantages = GAE(discount=0.5, lam=0.25)")
    assert with_overrides(PPO_PRESET, overrides) == Preset(
        replace(PPO_PRESET.algorithm, objective=FixedKL(2.0), epochs=5),  # the last one is used
        replace(PPO_PRESET.settings, num_envs=3, advantages=GAE(discount=0.5, lam=0.25)),
    )
    # what is valid only together may be in any order
    overrides = ["num_envs=9", "group_size=3", "whole_episodes=True"]
    assert with_overrides(PPO_PRESET, overrides) == with_overrides(PPO_PRESET, overrides[::-1])


@pytest.mark.parametrize(
    ("algorithm", "override", "words"),
    [
        ("trpo", "max_lk=0.1", r"'max_lk' is unknown; TRPO has max_kl.*num_envs"),
        ("ppo", "max_kl=0.1", "'max_kl' is unknown"),  # another algorithm's
        ("trpo", "max_kl", r"NAME=VALUE.*'max_kl'"),
        ("trpo", "max_kl=0", "max_kl"),
        ("ppo", "learning_rate='fast'", "learning_rate"),
        ("ppo", "epochs=1e999", "epochs"),
        ("ppo", "objective=3", "objective"),
        ("ppo", "num_envs=0", "num_envs"),
    ],
)
def test_a_bad_override_is_refused_and_the_message_names_the_field(algorithm, override, words):
    with pytest.raises(ValueError, match=words):
        with_overrides(preset("CartPole-v1", algorithm), [override])
