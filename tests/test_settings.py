from dataclasses import fields, replace

import gymnasium
import numpy as np
import pytest

import minirl  # noqa: F401  (registers the environments)
from minirl.advantages import GAE, GroupNormalized, LeaveOneOut, RewardToGo
from minirl.algorithms import ALGORITHMS, PPO, PolicyGradient
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL, Unclipped
from minirl.critic_fit import CriticFit, TableFit
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.reward_transforms import ReturnScaling
from minirl.settings import (
    CONSTRUCTORS,
    GENERIC,
    PRESETS,
    Settings,
    choose,
    default_algorithm,
    default_settings,
    parse_value,
    preset_for,
)
from minirl.training import train

TOKENS = "minirl/TokenGeneration-v0"

ENVIRONMENTS = [
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "FrozenLake-v1",
    "FrozenLake8x8-v1",
    "CliffWalking-v1",
    "Taxi-v4",
    "minirl/Chain-v0",
    "minirl/GridWorld-v0",
    "minirl/LQR-v0",
]


# What the command line may write after NAME=


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


def test_every_constructor_goes_by_its_own_name():
    assert {name: kind.__name__ for name, kind in CONSTRUCTORS.items()} == {
        name: name for name in CONSTRUCTORS
    }


# Choosing


def test_choose_without_assignments_gives_the_defaults():
    algorithm, settings = choose("ppo", "CartPole-v1")
    assert algorithm == default_algorithm("ppo", "CartPole-v1")
    assert settings == default_settings("CartPole-v1", algorithm)


def test_choose_sets_fields_of_the_algorithm_and_of_the_settings():
    algorithm, settings = choose(
        "ppo",
        "CartPole-v1",
        ["objective=FixedKL(2.0)", "num_envs=3", "epochs=4", "epochs=5", "hidden_sizes=(7,)"],
    )
    default, common = choose("ppo", "CartPole-v1")
    assert algorithm == replace(default, objective=FixedKL(2.0), epochs=5)  # the last one holds
    assert settings == replace(common, num_envs=3, hidden_sizes=(7,))


def test_values_that_only_fit_together_may_stand_in_any_order():
    pair = ["num_envs=9", "group_size=3", "whole_episodes=True"]
    for assignments in (pair, pair[::-1]):
        _, settings = choose("ppo", "CartPole-v1", assignments)
        assert (settings.num_envs, settings.group_size) == (9, 3)


def test_groups_and_table_fits_are_settings_like_others():
    algorithm, settings = choose("grpo", TOKENS)
    assert (algorithm, settings) == (
        default_algorithm("grpo", TOKENS),
        default_settings(TOKENS, "grpo"),
    )
    changes = ["advantages=LeaveOneOut()", "critic_fit=TableFit(rate=0.3)", "group_size=2"]
    assert choose("grpo", TOKENS, changes)[1] == replace(
        settings, advantages=LeaveOneOut(), critic_fit=TableFit(rate=0.3), group_size=2
    )


def test_a_value_may_contain_an_equals_sign():
    _, settings = choose("trpo", "CartPole-v1", ["advantages=GAE(discount=0.5, lam=0.25)"])
    assert settings.advantages == GAE(discount=0.5, lam=0.25)


def test_an_unknown_algorithm_is_named_with_the_choices():
    with pytest.raises(ValueError, match=r"'a2c' is unknown.*policy-gradient.*natural.*trpo.*ppo"):
        choose("a2c", "CartPole-v1")
    for name in ("rloo", "grpo"):  # of another environment
        with pytest.raises(ValueError, match=rf"'{name}' is unknown; choose from .*ppo$"):
            choose(name, "CartPole-v1")
        assert choose(name, TOKENS)


def test_an_unknown_field_is_named_with_the_choices():
    with pytest.raises(ValueError, match=r"'max_lk' is unknown.*max_kl.*num_envs"):
        choose("trpo", "CartPole-v1", ["max_lk=0.1"])
    with pytest.raises(ValueError, match="'max_kl' is unknown"):  # another algorithm's
        choose("ppo", "CartPole-v1", ["max_kl=0.1"])


def test_an_assignment_needs_an_equals_sign():
    with pytest.raises(ValueError, match=r"NAME=VALUE.*'max_kl'"):
        choose("trpo", "CartPole-v1", ["max_kl"])


@pytest.mark.parametrize(
    ("algorithm", "assignment"),
    [
        # out of range
        ("trpo", "max_kl=0"),
        ("trpo", "max_kl=-0.1"),
        ("trpo", "max_kl=1e999"),
        ("trpo", "damping=-1"),
        ("trpo", "cg_iterations=0"),
        ("natural-gradient", "step_size=0"),
        ("policy-gradient", "learning_rate=-1"),
        ("ppo", "epochs=0"),
        ("ppo", "minibatch_size=2.5"),
        ("ppo", "epochs=1e999"),
        ("ppo", "num_envs=0"),
        ("ppo", "num_envs=1e999"),
        ("ppo", "num_envs=True"),
        ("ppo", "rollout_steps=-1"),
        ("ppo", "hidden_sizes=(64, 0)"),
        ("ppo", "initial_log_std=1e999"),
        ("ppo", "min_log_std=0.5"),  # above initial_log_std
        ("ppo", "min_log_std=-1e999"),
        ("ppo", "dtype='float16'"),
        ("ppo", "group_size=0"),
        ("ppo", "group_size=3"),  # of 8 environments
        ("ppo", "group_size=2"),  # without whole episodes
        # of the wrong kind
        ("ppo", "num_envs=8.0"),  # NumPy takes no float as a length
        ("ppo", "num_envs=None"),
        ("ppo", "num_envs='many'"),
        ("ppo", "hidden_sizes=64"),
        ("ppo", "learning_rate=None"),
        ("ppo", "learning_rate='fast'"),
        ("trpo", "max_kl=None"),
        ("ppo", "initial_log_std='wide'"),
        ("ppo", "min_log_std='low'"),
        ("ppo", "objective=3"),
        ("ppo", "optimizer=1"),
        ("ppo", "advantages=0.99"),
        ("ppo", "critic_fit=None"),
        ("ppo", "reward_transform=2"),
        ("ppo", "whole_episodes=1"),
        ("ppo", "group_size=2.0"),
    ],
)
def test_a_bad_value_is_refused_before_training_and_names_the_field(algorithm, assignment):
    field = assignment.partition("=")[0]
    with pytest.raises(ValueError, match=field):
        choose(algorithm, "CartPole-v1", [assignment])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["num_envs", "rollout_steps", "initial_log_std"])
def test_settings_refuse_what_is_not_finite(field, value):
    with pytest.raises(ValueError, match=field):
        Settings(**{field: value})


# The table of presets


@pytest.mark.parametrize("preset", [GENERIC, *PRESETS.values()], ids=["generic", *PRESETS])
def test_a_preset_knows_every_algorithm(preset):
    kinds = {name: type(value) for name, value in preset.algorithms.items()}
    assert kinds.items() >= ALGORITHMS.items()
    assert set(preset.own_settings) <= set(kinds)
    for name in kinds:
        replace(preset.settings, **preset.own_settings.get(name, {}))  # names fields, fits together


def test_presets_belong_to_environments_that_exist():
    assert [name for name in PRESETS if name not in gymnasium.registry] == []


@pytest.mark.parametrize("env", [*ENVIRONMENTS, "Nobody/Knows-v0"])
def test_the_algorithms_of_a_comparison_share_everything_but_the_steps_per_update(env):
    common = [
        replace(default_settings(env, default_algorithm(name, env)), rollout_steps=1)
        for name in ALGORITHMS
    ]
    assert all(settings == common[0] for settings in common)


def test_a_name_has_settings_of_its_own():
    """RLOO and GRPO are the policy gradient and PPO; what makes them others is in the settings."""
    rloo, grpo = (default_settings(TOKENS, name) for name in ("rloo", "grpo"))
    assert (rloo.advantages, rloo.group_size) == (LeaveOneOut(), 4)
    assert (grpo.advantages, grpo.group_size) == (GroupNormalized(), 16)
    kinds = [type(default_algorithm(name, TOKENS)) for name in ("rloo", "grpo")]
    assert kinds == [PolicyGradient, PPO]
    assert default_settings("CartPole-v1", "policy-gradient").rollout_steps == 64
    assert default_settings("CartPole-v1", "trpo") == GENERIC.settings


def test_an_object_has_the_settings_of_its_kind():
    for name, kind in ALGORITHMS.items():
        assert default_settings(TOKENS, kind()) == default_settings(TOKENS, name)
    plain = default_settings(TOKENS, PolicyGradient(learning_rate=30.0, optimizer=SGD()))
    assert plain == default_settings(TOKENS, "policy-gradient")
    assert plain.advantages == RewardToGo(1.0, baseline="critic")


@pytest.mark.parametrize(
    ("given", "registered"),
    [
        ("gymnasium:Pendulum-v1", "Pendulum-v1"),
        ("Pendulum", "Pendulum-v1"),
        ("minirl:minirl/TokenGeneration-v0", TOKENS),
        ("minirl/TokenGeneration", TOKENS),
    ],
)
def test_a_preset_is_found_by_the_registered_id(given, registered):
    assert preset_for(given) is PRESETS[registered] is not GENERIC
    for name in PRESETS[registered].algorithms:
        assert default_algorithm(name, given) is default_algorithm(name, registered)
        assert default_settings(given, name) == default_settings(registered, name)
        assert choose(name, given) == choose(name, registered)


def test_a_default_algorithm_keeps_the_settings_of_its_name():
    """RLOO's algorithm equals the policy gradient's; what makes it RLOO are its settings."""
    for name in PRESETS[TOKENS].algorithms:
        algorithm = default_algorithm(name, TOKENS)
        assert default_settings(TOKENS, algorithm) == default_settings(TOKENS, name)
    assert default_settings(TOKENS, default_algorithm("rloo", TOKENS)).group_size == 4


def test_an_algorithm_of_ones_own_gets_the_common_settings():
    class Own:
        def init(self, policy):
            return policy

        def update(self, state, batch, rng):
            return state, {}

    assert default_settings("Nobody/Knows-v0", Own()) == GENERIC.settings
    assert default_settings(lambda num_envs: None, Own()) == GENERIC.settings


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_hyperparameter_hides_a_setting_of_the_same_name(name):
    own = {field.name for field in fields(ALGORITHMS[name])}
    assert own.isdisjoint(field.name for field in fields(Settings))


@pytest.mark.parametrize(
    ("env", "name"),
    [(env, name) for env in [*ENVIRONMENTS, TOKENS] for name in preset_for(env).algorithms],
)
@pytest.mark.filterwarnings("ignore:update 1 moved the policy")  # from so few rows it may go far
def test_every_preset_trains(env, name):
    own = default_settings(env, name)
    settings = replace(own, num_envs=max(2, own.group_size), rollout_steps=16)
    result = train(env, name, total_steps=1, settings=settings)
    (row,) = result.history.rows
    assert 0 < row["environment_steps"] <= settings.num_envs * 16
    assert np.isfinite(result.policy.parameters).all()
    assert np.isfinite(result.critic.parameters).all()
    assert np.isfinite(row["kl"])
    assert result.settings["env"] == env


def test_lunar_lander_looks_far_and_keeps_exploring():
    """The landing pad pays hundreds of steps after the start: at 0.99 that counts for little."""
    for name in ALGORITHMS:
        assert default_settings("LunarLander-v3", name).advantages == GAE(discount=0.999, lam=0.98)
        coefficient = getattr(
            default_algorithm(name, "LunarLander-v3"), "entropy_coefficient", 0.01
        )
        assert coefficient == 0.01  # TRPO and the natural gradient have none
    pytest.importorskip("Box2D", reason="needs the extra box2d")
    settings = replace(default_settings("LunarLander-v3", "ppo"), num_envs=2, rollout_steps=16)
    train("LunarLander-v3", "ppo", total_steps=1, settings=settings)


def test_groups_must_divide_the_environments_and_need_whole_episodes():
    with pytest.raises(ValueError, match="group_size must divide num_envs, 8, got 3"):
        Settings(num_envs=8, whole_episodes=True, group_size=3)
    with pytest.raises(ValueError, match="group_size 2 needs whole_episodes=True"):
        Settings(num_envs=8, group_size=2)
    assert Settings(num_envs=8, whole_episodes=True, group_size=8).group_size == 8
