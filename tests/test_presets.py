from dataclasses import dataclass, fields, replace
from functools import partial

import gymnasium
import numpy as np
import pytest
from cat import describe_the_cat

import minirl
from minirl.advantages import GAE, GroupNormalized, LeaveOneOut
from minirl.algorithms import ALGORITHMS, PPO, TRPO, NaturalGradient, PolicyGradient
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.envs.verifiable import verifiable
from minirl.presets import (
    GENERIC,
    NETWORK_TOKENS,
    PRESETS,
    Preset,
    explain_fields,
    preset,
    presets_of,
    resolve,
)
from minirl.rlhf.language_model import full_prefix_policy, network_policy
from minirl.settings import Settings
from minirl.training import train

TOKENS = "minirl/TokenGeneration-v0"
CARTPOLE = "CartPole-v1"


@dataclass(frozen=True)
class Mine:
    """A reader's own algorithm."""

    step: float = 0.1

    def init(self, policy):
        return policy

    def update(self, state, batch, rng):
        return state, {}


# The table


def test_presets_belong_to_environments_that_exist():
    assert [name for name in PRESETS if name not in gymnasium.registry] == []


@pytest.mark.parametrize("env", PRESETS)
def test_every_environment_has_every_algorithm(env):
    classes = {name: type(item.algorithm) for name, item in PRESETS[env].items()}
    assert classes.items() >= ALGORITHMS.items()


@pytest.mark.parametrize("env", [*PRESETS, "Blackjack-v1"])
def test_on_control_tasks_presets_differ_in_the_steps_per_update_only(env):
    if env == TOKENS:
        return
    settings = [replace(preset(env, name).settings, rollout_steps=1) for name in ALGORITHMS]
    assert all(item == settings[0] for item in settings)
    assert preset(env, "trpo").settings == preset(env, "ppo").settings


def test_rloo_and_grpo_are_the_policy_gradient_and_ppo_with_groups():
    rloo, grpo = preset(TOKENS, "rloo"), preset(TOKENS, "grpo")
    assert [type(item.algorithm) for item in (rloo, grpo)] == [PolicyGradient, PPO]
    assert (rloo.settings.advantages, rloo.settings.group_size) == (LeaveOneOut(), 4)
    assert (grpo.settings.advantages, grpo.settings.group_size) == (GroupNormalized(), 16)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_hyperparameter_has_the_name_of_a_setting(name):
    names = {field.name for field in fields(ALGORITHMS[name])}
    assert names.isdisjoint(field.name for field in fields(Settings))


@pytest.mark.parametrize(
    ("env", "name"),
    [
        (env, name)
        for env, presets in PRESETS.items()
        for name in presets
        if not env.endswith("-v5") and env != "LunarLander-v3"  # MuJoCo and Box2D are extras
    ],
)
@pytest.mark.filterwarnings("ignore:update 1 moved the policy")  # from so few rows it may go far
def test_every_preset_trains(env, name):
    default = preset(env, name)
    settings = replace(
        default.settings, num_envs=max(2, default.settings.group_size), rollout_steps=16
    )
    # These learn from a verifier only; the default utility is not 0 or 1.
    task = verifiable() if name in ("maxrl", "pass-at-k") else None
    made = env if task is None else partial(TokenGenerationVectorEnv, task=task)
    result = train(made, replace(default, settings=settings), total_steps=1)
    (row,) = result.history.rows
    assert 0 < row["environment_steps"] <= settings.num_envs * 16
    assert np.isfinite(result.policy.parameters).all()
    assert np.isfinite(result.critic.parameters).all()
    assert np.isfinite(row["kl"])
    assert task or result.description["env"] == env


def test_lunar_lander_has_a_long_horizon_and_keeps_exploring():
    """The reward for landing comes hundreds of steps after the start."""
    for name in ALGORITHMS:
        algorithm, settings = vars(preset("LunarLander-v3", name)).values()
        assert settings.advantages == GAE(discount=0.999, lam=0.98)
        # TRPO and the natural gradient have no entropy bonus
        assert getattr(algorithm, "entropy_coefficient", 0.01) == 0.01
    pytest.importorskip("Box2D", reason="needs the extra box2d")
    settings = replace(preset("LunarLander-v3", "ppo").settings, num_envs=2, rollout_steps=16)
    train("LunarLander-v3", "ppo", total_steps=1, settings=settings)


# Looking one up


@pytest.mark.parametrize(
    ("given", "registered"),
    [
        ("gymnasium:Pendulum-v1", "Pendulum-v1"),
        ("Pendulum", "Pendulum-v1"),
        ("minirl:minirl/TokenGeneration-v0", TOKENS),
        ("minirl/TokenGeneration", TOKENS),
    ],
)
def test_presets_are_looked_up_by_the_registered_id(given, registered):
    assert presets_of(given) is PRESETS[registered] is not GENERIC
    assert preset(given, "ppo") is PRESETS[registered]["ppo"]


def test_other_environments_have_the_generic_presets():
    for env in ("Blackjack-v1", "somebody_elses_module:Task-v0", lambda num_envs: None):
        assert preset(env, "ppo") is GENERIC["ppo"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CARTPOLE, "a2c"), "algorithm name 'a2c' is unknown; choose from .*, ppo$"),
        ((CARTPOLE, "grpo"), "algorithm name 'grpo' is unknown; choose from .*, ppo$"),
        ((TOKENS, "a2c"), "choose from .*, rloo, grpo, .*, maxrl, pass-at-k$"),
        (("ppo", CARTPOLE), "got the name of an algorithm, 'ppo'; the environment comes first"),
        (("grpo", TOKENS), "got the name of an algorithm, 'grpo'; the environment comes first"),
        (("CartPol-v1", "ppo"), "environment 'CartPol-v1' can't be made: .*Did you mean"),
        (("CartPole-v7", "ppo"), "environment 'CartPole-v7' can't be made"),
        ((PPO(), CARTPOLE), "env must be a Gymnasium id or a function"),
    ],
)
def test_an_unknown_or_swapped_argument_is_one_line(arguments, message):
    for function in (preset, lambda *args: train(*args, total_steps=1)):
        with pytest.raises(ValueError, match=message) as caught:
            function(*arguments)
        assert "\n" not in str(caught.value)


# From the arguments of `train` to an algorithm and its settings


def test_a_name_and_a_preset_bring_their_settings():
    grpo = preset(TOKENS, "grpo")
    assert resolve(TOKENS, "grpo") == resolve(TOKENS, grpo) == grpo
    fewer = replace(grpo, algorithm=replace(grpo.algorithm, epochs=3))
    assert resolve(TOKENS, fewer) == fewer
    assert resolve(TOKENS, fewer).settings.group_size == 16
    other = replace(grpo.settings, num_envs=32)
    for algorithm in ("grpo", grpo, grpo.algorithm):
        assert resolve(TOKENS, algorithm, other) == Preset(grpo.algorithm, other)


def test_an_algorithm_object_gets_the_settings_of_its_class():
    assert resolve(TOKENS, TRPO()).settings == preset(TOKENS, "trpo").settings
    assert resolve(CARTPOLE, PolicyGradient()).settings.rollout_steps == 64
    assert resolve(lambda num_envs: None, PPO()).settings == GENERIC["ppo"].settings

    class Variant(PolicyGradient):
        pass

    assert resolve(CARTPOLE, Variant()).settings.rollout_steps == 64
    for env in (CARTPOLE, TOKENS, "Blackjack-v1"):
        assert resolve(env, Mine()) == Preset(Mine(), preset(env, "ppo").settings)


@pytest.mark.parametrize(
    ("name", "words"), [("grpo", "PPO.* ppo, grpo, "), ("rloo", "policy-gradient, rloo")]
)
def test_an_algorithm_object_cannot_lose_its_groups(name, words):
    algorithm = preset(TOKENS, name).algorithm
    for changed in (algorithm, replace(algorithm, max_gradient_norm=3.0)):
        with pytest.raises(ValueError, match=words) as caught:
            train(TOKENS, changed, total_steps=1)
        assert f'pass settings=preset("{TOKENS}", "{name}").settings' in str(caught.value)


# A field given as a keyword


@pytest.mark.parametrize(
    ("field", "part"), [("num_envs", "settings"), ("epochs", "algorithm"), ("max_kl", "algorithm")]
)
def test_a_field_as_a_keyword_is_answered_with_what_to_write(field, part):
    message = (
        f"{field} is not an argument of train, but a field of a preset's {part}; with p = "
        f"preset(env, name), pass replace(p, {part}=replace(p.{part}, {field}=4)) as the algorithm"
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        train(CARTPOLE, "ppo", total_steps=1, **{field: 4})
    assert str(caught.value) == message
    with pytest.raises(ValueError, match=f"{field} is not an argument of compare"):
        minirl.compare(env=CARTPOLE, algorithms=["ppo"], total_steps=1, **{field: 4})


def test_a_keyword_that_is_no_field_is_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'volume'"):
        train(CARTPOLE, "ppo", total_steps=1, volume=3)


def test_a_function_may_have_an_argument_with_the_name_of_a_field():
    @explain_fields
    def double(num_envs):
        return 2 * num_envs

    assert double(num_envs=4) == 8


# Networks on the token task


def test_a_network_has_presets_of_its_own_on_the_token_task_only():
    cat = describe_the_cat()
    network = network_policy(cat, np.random.default_rng(0))
    table = full_prefix_policy(cat, np.zeros((2, 13, 4)) - np.log(4))
    assert NETWORK_TOKENS.keys() == PRESETS[TOKENS].keys()
    assert preset(TOKENS, "ppo", network) is NETWORK_TOKENS["ppo"]
    assert preset(TOKENS, "ppo", table) is preset(TOKENS, "ppo") is PRESETS[TOKENS]["ppo"]
    assert preset(CARTPOLE, "ppo", network) is GENERIC["ppo"]
    assert resolve(TOKENS, "rloo", None, network) == NETWORK_TOKENS["rloo"]
    assert resolve(TOKENS, TRPO(), None, network).settings == NETWORK_TOKENS["trpo"].settings
    with pytest.raises(
        ValueError, match="algorithm name 'a2c' is unknown; choose from .*, pass-at-k$"
    ):
        preset(TOKENS, "a2c", network)


@pytest.mark.parametrize("name", NETWORK_TOKENS)
def test_presets_for_networks_differ_in_the_step_size_only(name):
    for_tables, for_networks = PRESETS[TOKENS][name], NETWORK_TOKENS[name]
    assert for_networks.settings == for_tables.settings
    tables, networks = for_tables.algorithm, for_networks.algorithm
    changed = {
        field.name
        for field in fields(tables)
        if getattr(tables, field.name) != getattr(networks, field.name)
    }
    expected = {
        PPO: {"learning_rate"},
        PolicyGradient: {"learning_rate", "optimizer"},
        TRPO: {"damping"},
        NaturalGradient: {"damping"},
    }
    assert changed == expected[type(tables)]
