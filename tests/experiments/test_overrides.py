from dataclasses import replace

import pytest

from minirl.advantages import GAE, GroupNormalized, LeaveOneOut, RewardToGo
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL, Unclipped
from minirl.critic_fit import CriticFit, TableFit
from minirl.experiments.overrides import CONSTRUCTORS, parse_value, with_overrides
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.presets import Preset, preset
from minirl.reward_transforms import ReturnScaling

PPO_PRESET = preset("CartPole-v1", "ppo")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("1e-3", 1e-3),
        ("True", True),
        ("None", None),
        ("'float64'", "float64"),
        ("(64, 64)", (64, 64)),
        ("()", ()),
        ("SGD()", SGD()),
        ("Adam(epsilon=1e-5)", Adam(epsilon=1e-5)),
        ("LinearSchedule(1e-3, end=1e-4)", LinearSchedule(1e-3, 1e-4)),
        ("GAE(discount=0.9, lam=1.0)", GAE(discount=0.9, lam=1.0)),
        ("RewardToGo(0.9)", RewardToGo(0.9)),
        ("LeaveOneOut()", LeaveOneOut()),
        ("GroupNormalized()", GroupNormalized()),
        ("ReturnScaling(discount=0.9)", ReturnScaling(discount=0.9)),
        ("Clipped(LinearSchedule(0.2))", Clipped(LinearSchedule(0.2))),
        ("Unclipped()", Unclipped()),
        ("FixedKL(0.5)", FixedKL(0.5)),
        ("AdaptiveKL(target=0.02)", AdaptiveKL(target=0.02)),
        ("CriticFit(epochs=2, optimizer=SGD())", CriticFit(epochs=2, optimizer=SGD())),
        ("TableFit(rate=0.3)", TableFit(rate=0.3)),
    ],
)
def test_parse_value(text, value):
    parsed = parse_value(text)
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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "float32",
        "1 +",
        "(1",
        "Foo(1)",
        "GAE(2)",
        "FixedKL(-1)",
        "FixedKL(volume=3)",
        "Adam('a', 1, 2, 3)",
        "FixedKL('a')",
        "CriticFit(epochs=(1,))",
        "TableFit(rate=2)",
        "LeaveOneOut(0.9)",  # episodes are not discounted
        "GroupNormalized(discount=0.9)",
        "x = 1",
        "1; 2",
    ],
)
def test_a_bad_value_is_refused_in_plain_words(text):
    with pytest.raises(ValueError, match="is not understood") as caught:
        parse_value(text)
    message = str(caught.value)
    assert repr(text) in message
    assert "FixedKL" in message  # what would be right
    assert "\n" not in message
    assert " object at 0x" not in message  # an object's address helps nobody


def test_every_constructor_is_called_by_its_own_name():
    assert {name: kind.__name__ for name, kind in CONSTRUCTORS.items()} == {
        name: name for name in CONSTRUCTORS
    }


def test_without_overrides_a_preset_stays_as_it_is():
    assert with_overrides(PPO_PRESET, []) == PPO_PRESET


def test_overrides_change_fields_of_the_algorithm_and_of_the_settings():
    overrides = ["objective=FixedKL(2.0)", "num_envs=3", "epochs=4", "epochs=5"]
    assert with_overrides(PPO_PRESET, overrides) == Preset(
        replace(PPO_PRESET.algorithm, objective=FixedKL(2.0), epochs=5),  # the last one is used
        replace(PPO_PRESET.settings, num_envs=3),
    )
    # spaces around the name, and an equals sign within the value
    changed = with_overrides(PPO_PRESET, [" advantages = GAE(discount=0.5, lam=0.25)"])
    assert changed.settings.advantages == GAE(discount=0.5, lam=0.25)


def test_values_that_are_valid_only_together_may_be_in_any_order():
    overrides = ["num_envs=9", "group_size=3", "whole_episodes=True"]
    assert with_overrides(PPO_PRESET, overrides) == with_overrides(PPO_PRESET, overrides[::-1])


def test_an_unknown_field_is_named_with_the_choices():
    trpo = preset("CartPole-v1", "trpo")
    with pytest.raises(ValueError, match=r"'max_lk' is unknown; TRPO has max_kl.*num_envs"):
        with_overrides(trpo, ["max_lk=0.1"])
    with pytest.raises(ValueError, match="'max_kl' is unknown"):  # another algorithm's
        with_overrides(PPO_PRESET, ["max_kl=0.1"])
    with pytest.raises(ValueError, match=r"NAME=VALUE.*'max_kl'"):
        with_overrides(trpo, ["max_kl"])


@pytest.mark.parametrize(
    ("algorithm", "override"),
    [
        ("trpo", "max_kl=0"),
        ("ppo", "learning_rate='fast'"),
        ("ppo", "epochs=1e999"),
        ("ppo", "objective=3"),
        ("ppo", "num_envs=0"),
    ],
)
def test_a_bad_value_is_refused_and_the_message_names_the_field(algorithm, override):
    with pytest.raises(ValueError, match=override.partition("=")[0]):
        with_overrides(preset("CartPole-v1", algorithm), [override])
