"""Every default in one place: an algorithm's hyperparameters and settings for each environment.

`PRESETS[env][name]` is a `Preset`: the algorithm and the settings that belong together. RLOO and
GRPO, for example, are the policy gradient and PPO with settings of their own. `NETWORK_TOKENS`
contains the presets of the token task for policies that are networks instead of tables.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import ParamSpec, TypeVar

import gymnasium as gym

from minirl.advantages import (
    GAE,
    GroupCentered,
    GroupNormalized,
    LeaveOneOut,
    PassAtK,
    RewardToGo,
    SuccessNormalized,
)
from minirl.algorithms import ALGORITHMS, PPO, TRPO, Algorithm, NaturalGradient, PolicyGradient
from minirl.algorithms.ppo import Clipped
from minirl.algorithms.ratio_objectives import ClippedWeight, SequenceClip, SoftGate
from minirl.algorithms.reference_loss import ReferenceLoss
from minirl.critic_fit import CriticFit, TableFit
from minirl.networks import Features
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.policy import Policy
from minirl.reward_transforms import ReturnScaling
from minirl.settings import Settings
from minirl.support.arguments import check_arguments
from minirl.vector_env import MakeEnv, registered_id


@dataclass(frozen=True)
class Preset:
    """An algorithm with its hyperparameters, and the settings that it is used with.

    `train` and `compare` take a preset as the algorithm. Change either part with
    `dataclasses.replace`:

    >>> grpo = preset("minirl/TokenGeneration-v0", "grpo")
    >>> fewer_epochs = replace(grpo, algorithm=replace(grpo.algorithm, epochs=3))
    >>> fewer_epochs.settings.group_size
    16
    """

    algorithm: Algorithm
    settings: Settings


def _presets(
    settings: Settings, algorithms: Mapping[str, Algorithm], *, policy_gradient_steps: int = 64
) -> dict[str, Preset]:
    """Presets with the same settings, except that the policy gradient has shorter rollouts.

    A single gradient step makes little use of a batch, so the policy gradient takes smaller ones.
    """
    presets = {name: Preset(algorithm, settings) for name, algorithm in algorithms.items()}
    short = replace(settings, rollout_steps=policy_gradient_steps)
    presets["policy-gradient"] = replace(presets["policy-gradient"], settings=short)
    return presets


# One set of hyperparameters for all networks: those of the common CartPole comparison.
NETWORK_POLICY_GRADIENT = PolicyGradient(learning_rate=3e-3, normalize_advantages=True)
NETWORK_PPO = PPO(
    learning_rate=LinearSchedule(1e-3), epochs=10, minibatch_size=256, normalize_advantages=True
)
NETWORK_ALGORITHMS: dict[str, Algorithm] = {
    "policy-gradient": NETWORK_POLICY_GRADIENT,
    "natural-gradient": NaturalGradient(step_size=1.0, damping=0.1, normalize_advantages=True),
    "trpo": TRPO(max_kl=0.01, damping=0.1, normalize_advantages=True),
    "ppo": NETWORK_PPO,
}
GENERIC = _presets(Settings(), NETWORK_ALGORITHMS)

# The Fisher matrix of a table scales with each state's share of the visits, so damping is smaller
# than for networks. Each logit learns from few samples, so first-order learning rates are larger.
TABLE_PPO = replace(NETWORK_PPO, learning_rate=LinearSchedule(0.05))
TABLE_ALGORITHMS: dict[str, Algorithm] = {
    "policy-gradient": PolicyGradient(learning_rate=0.05, normalize_advantages=True),
    "natural-gradient": NaturalGradient(step_size=1.0, damping=0.01, normalize_advantages=True),
    "trpo": TRPO(max_kl=0.01, damping=0.01),
    "ppo": TABLE_PPO,
}
TABLE_CRITIC_FIT = CriticFit(learning_rate=0.1, epochs=10, minibatch_size=256)
TABLE_SETTINGS = Settings(critic_fit=TABLE_CRITIC_FIT)
TABLE = _presets(TABLE_SETTINGS, TABLE_ALGORITHMS)

# CleanRL's settings for continuous control, which are those of the PPO paper's MuJoCo runs: one
# environment, and observations and rewards are normalised. TRPO has its paper's bound on the KL.
MUJOCO_OPTIMIZER = Adam(epsilon=1e-5)
MUJOCO = _presets(
    Settings(
        num_envs=1,
        rollout_steps=2048,
        normalize_observations=True,
        reward_transform=ReturnScaling(discount=0.99),
        critic_fit=CriticFit(
            learning_rate=LinearSchedule(3e-4),
            epochs=10,
            minibatch_size=64,
            value_clip=0.2,
            max_gradient_norm=0.5,
            optimizer=MUJOCO_OPTIMIZER,
        ),
    ),
    {
        **NETWORK_ALGORITHMS,
        "ppo": PPO(
            learning_rate=LinearSchedule(3e-4),
            epochs=10,
            minibatch_size=64,
            normalize_advantages=True,
            max_gradient_norm=0.5,
            optimizer=MUJOCO_OPTIMIZER,
        ),
    },
    policy_gradient_steps=512,
)

# Losses are sums over a sentence, so learning rates and max_kl are per sentence too. Damping is
# small because the Fisher matrix of a context scales with its share of the visits, one in
# thousands. PPO makes four epochs of four minibatches of whole sentences.
SENTENCES = Settings(
    num_envs=512,
    rollout_steps=100,
    whole_episodes=True,
    advantages=GAE(discount=1.0, lam=0.95),
    critic_fit=TableFit(rate=0.5),
)
MANY_SENTENCES = replace(SENTENCES, num_envs=1024, advantages=GAE(discount=1.0, lam=1.0))
SENTENCE_POLICY_GRADIENT = PolicyGradient(learning_rate=30.0, optimizer=SGD())
SENTENCE_PPO = PPO(learning_rate=LinearSchedule(0.05), epochs=4, minibatch_size=128)
TOKENS = {
    "policy-gradient": Preset(
        SENTENCE_POLICY_GRADIENT,
        replace(SENTENCES, num_envs=256, advantages=RewardToGo(discount=1.0, baseline="critic")),
    ),
    "natural-gradient": Preset(NaturalGradient(step_size=0.5, damping=1e-3), MANY_SENTENCES),
    "trpo": Preset(TRPO(max_kl=0.01, damping=1e-3), MANY_SENTENCES),
    "ppo": Preset(replace(SENTENCE_PPO, normalize_advantages=True), SENTENCES),
    "rloo": Preset(
        SENTENCE_POLICY_GRADIENT,
        replace(SENTENCES, num_envs=256, group_size=4, advantages=LeaveOneOut()),
    ),
    "grpo": Preset(SENTENCE_PPO, replace(SENTENCES, group_size=16, advantages=GroupNormalized())),
}
# Reinforcement learning from verifiable rewards. Each preset follows a paper in the four choices
# that define it: the advantage, the ratio and its clipping, the averaging, and the place of the KL.
# Sizes and learning rates are those of the token task, not the papers'. Where public code differs
# from the paper, docs/rlhf/group-relative.md says how. maxrl and pass-at-k differ from their papers
# in the ratio, which the papers' gradients do not contain. These presets take four steps per batch,
# and PPO's ratio and clipping act from the second minibatch on.
GROUPS = replace(SENTENCES, group_size=16)
GROUP_PPO = replace(SENTENCE_PPO, epochs=1)
VERIFIED = {
    # arXiv:2402.03300: mean over each response, k3 in the loss, one step per batch
    "grpo-paper": Preset(
        replace(GROUP_PPO, minibatch_size=512, penalty=ReferenceLoss("k3")),
        replace(GROUPS, group_size=64, advantages=GroupNormalized(), averaging="response"),
    ),
    # arXiv:2503.20783: no division by the standard deviation or the length, no KL
    "dr-grpo": Preset(GROUP_PPO, replace(GROUPS, advantages=GroupCentered())),
    # arXiv:2503.14476: higher upper bound, mean over the group's tokens, mixed groups only, no KL
    "dapo": Preset(
        replace(GROUP_PPO, objective=Clipped(0.2, 0.28)),
        replace(GROUPS, advantages=GroupNormalized(), averaging="group", mixed_groups=True),
    ),
    # arXiv:2507.18071: one ratio per response, its length-th root, clipped very closely
    "gspo": Preset(
        replace(GROUP_PPO, objective=SequenceClip()),
        replace(GROUPS, advantages=GroupNormalized(), averaging="response"),
    ),
    # arXiv:2506.13585: the clipped ratio is a constant weight; no KL
    "cispo": Preset(
        replace(GROUP_PPO, objective=ClippedWeight()),
        replace(GROUPS, advantages=GroupNormalized(), averaging="group"),
    ),
    # arXiv:2501.03262: returns whitened over all tokens of the batch, the KL in the reward
    "reinforce++": Preset(
        replace(GROUP_PPO, normalize_advantages=True),
        replace(SENTENCES, advantages=RewardToGo(discount=1.0), averaging="tokens"),
    ),
    # the same paper's variant for groups: group mean, then whitening; k2 in the loss
    "reinforce++-baseline": Preset(
        replace(GROUP_PPO, normalize_advantages=True, penalty=ReferenceLoss("k2")),
        replace(GROUPS, advantages=GroupCentered(), averaging="tokens"),
    ),
    # arXiv:2511.20347: a smooth gate in place of the clipping
    "sapo": Preset(
        replace(GROUP_PPO, objective=SoftGate()),
        replace(GROUPS, advantages=GroupNormalized(), averaging="response"),
    ),
    # arXiv:2602.02710: the first terms of log p
    "maxrl": Preset(GROUP_PPO, replace(GROUPS, advantages=SuccessNormalized())),
    # arXiv:2505.15201: the gradient of pass@4, with the baseline of k - 1 samples
    "pass-at-k": Preset(GROUP_PPO, replace(GROUPS, advantages=PassAtK(4))),
}


def _for_networks(item: Preset) -> Preset:
    """The preset of a table, with the step sizes that suit a network of `Features`.

    A parameter of a network acts in thousands of contexts, and a logit of a table in a single one.
    Adam's steps are therefore a tenth as long. The policy gradient uses Adam too: the gradients of
    a network's layers differ in size, and SGD was less reliable. The natural gradient and TRPO
    already measure their steps by the Fisher matrix. Its entries are larger for a network, so the
    damping that is added to it is larger too.
    """
    algorithm = item.algorithm
    if isinstance(algorithm, PPO):
        algorithm = replace(algorithm, learning_rate=NETWORK_RATE)
    elif isinstance(algorithm, PolicyGradient):
        algorithm = replace(algorithm, learning_rate=LinearSchedule(0.01), optimizer=Adam())
    elif isinstance(algorithm, NaturalGradient | TRPO):
        algorithm = replace(algorithm, damping=1e-2)
    return replace(item, algorithm=algorithm)


# The token task with a network instead of a table: the same algorithms and settings, other steps.
NETWORK_RATE = LinearSchedule(0.005)
NETWORK_TOKENS = {name: _for_networks(item) for name, item in {**TOKENS, **VERIFIED}.items()}

TOKEN_ENVIRONMENT = "minirl/TokenGeneration-v0"
PRESETS: dict[str, dict[str, Preset]] = {
    "CartPole-v1": GENERIC,
    "Acrobot-v1": GENERIC,
    # Rewards go down to -16 per step; once they are scaled, the common critic fit suffices.
    "Pendulum-v1": _presets(
        Settings(
            advantages=GAE(discount=0.9, lam=0.95), reward_transform=ReturnScaling(discount=0.9)
        ),
        NETWORK_ALGORITHMS,
    ),
    # Position and velocity differ in scale by a factor of 20. Published runs on raw observations
    # stay at -200.
    "MountainCar-v0": _presets(
        Settings(
            num_envs=16,
            rollout_steps=128,
            advantages=GAE(discount=0.99, lam=0.98),
            normalize_observations=True,
        ),
        NETWORK_ALGORITHMS,
    ),
    # Standing still is a local optimum; a large initial standard deviation escapes from it.
    "MountainCarContinuous-v0": _presets(
        Settings(
            initial_log_std=0.5,
            normalize_observations=True,
            reward_transform=ReturnScaling(discount=0.99),
        ),
        NETWORK_ALGORITHMS,
    ),
    # The reward of a landing comes hundreds of steps after the start, so the discount is near 1.
    # The entropy bonus keeps the engines firing until the lander has learned to use them.
    "LunarLander-v3": _presets(
        Settings(advantages=GAE(discount=0.999, lam=0.98)),
        {
            **NETWORK_ALGORITHMS,
            "policy-gradient": replace(NETWORK_POLICY_GRADIENT, entropy_coefficient=0.01),
            "ppo": replace(NETWORK_PPO, entropy_coefficient=0.01),
        },
    ),
    "HalfCheetah-v5": MUJOCO,
    "Hopper-v5": MUJOCO,
    "InvertedPendulum-v5": MUJOCO,
    "Swimmer-v5": MUJOCO,
    "Walker2d-v5": MUJOCO,
    "minirl/LQR-v0": _presets(
        Settings(
            advantages=GAE(discount=0.95, lam=0.95),
            reward_transform=ReturnScaling(discount=0.95),
            initial_log_std=-0.5,
        ),
        {
            **NETWORK_ALGORITHMS,
            "natural-gradient": NaturalGradient(step_size=0.3, normalize_advantages=True),
        },
    ),
    # One random episode in 70 is rewarded, so a gradient needs many of them.
    "FrozenLake-v1": _presets(
        TABLE_SETTINGS,
        {
            **TABLE_ALGORITHMS,
            "policy-gradient": PolicyGradient(learning_rate=0.2, normalize_advantages=True),
        },
        policy_gradient_steps=512,
    ),
    # There are four times as many states, and one random episode in 500 is rewarded. A policy that
    # learns fast becomes deterministic on noise before it has found the way. Steps are therefore
    # short: in nats, in logits, and by a damping that limits changes in rarely visited states. The
    # discount is near 1, since a safe way takes more than a hundred steps: the best policy for a
    # discount of 0.99 reaches 0.863 of the possible 0.913.
    "FrozenLake8x8-v1": _presets(
        replace(TABLE_SETTINGS, advantages=GAE(discount=0.999, lam=0.95)),
        {
            "policy-gradient": PolicyGradient(
                learning_rate=0.05, normalize_advantages=True, entropy_coefficient=0.01
            ),
            "natural-gradient": NaturalGradient(
                step_size=2.0, damping=0.1, normalize_advantages=True
            ),
            "trpo": TRPO(max_kl=0.001, damping=0.1),
            "ppo": replace(
                TABLE_PPO, learning_rate=LinearSchedule(0.01), epochs=4, entropy_coefficient=0.003
            ),
        },
    ),
    "CliffWalking-v1": TABLE,
    # Each of the 500 states has few samples, and Adam's momentum moves logits that have none.
    "Taxi-v4": _presets(
        TABLE_SETTINGS,
        {**TABLE_ALGORITHMS, "ppo": replace(TABLE_PPO, learning_rate=LinearSchedule(0.01))},
    ),
    "minirl/Chain-v0": TABLE,
    "minirl/GridWorld-v0": TABLE,
    TOKEN_ENVIRONMENT: {**TOKENS, **VERIFIED},
}


def preset(env: MakeEnv, name: str, policy: Policy | None = None) -> Preset:
    """The preset called `name` for an environment.

    "gymnasium:Pendulum-v1" and "Pendulum" have the presets of "Pendulum-v1". A registered
    environment without presets of its own, and a function that makes environments, have those of
    CartPole.

    >>> preset("CartPole-v1", "trpo").algorithm.max_kl
    0.01

    Parameters
    ----------
    env : str or callable
    name : str
    policy : Policy, optional
        The policy to be trained. On the token task, a network of `Features` has presets of its own,
        `NETWORK_TOKENS`; everywhere else it makes no difference.

    Raises
    ------
    ValueError
        For an unknown environment, or a name that is not among the environment's presets.
    """
    presets = presets_of(env, policy)
    if name not in presets:
        raise ValueError(
            f"the algorithm name {name!r} is unknown; choose from the algorithms "
            f"{', '.join(presets)}"
        )
    return presets[name]


def presets_of(env: MakeEnv, policy: Policy | None = None) -> dict[str, Preset]:
    """All presets for an environment, by name; `GENERIC` if it has none of its own.

    For the token task, a policy with a `Features` network has those of `NETWORK_TOKENS`.

    Raises
    ------
    ValueError
        For an id that Gymnasium does not know.
    """
    if not isinstance(env, str):
        return GENERIC
    registered = registered_id(env)
    if ":" not in env and registered not in gym.registry:
        if any(env in presets for presets in PRESETS.values()):
            raise ValueError(
                f"env must be an environment, got the name of an algorithm, {env!r}; the "
                f'environment comes first, as in preset("CartPole-v1", {env!r})'
            )
        try:
            gym.spec(env)
        except gym.error.Error as error:
            raise ValueError(f"environment {env!r} can't be made: {error}") from error
    presets = PRESETS.get(registered, GENERIC)
    is_network = policy is not None and isinstance(policy.network, Features)
    return NETWORK_TOKENS if is_network and presets is PRESETS[TOKEN_ENVIRONMENT] else presets


def resolve(
    env: MakeEnv,
    algorithm: str | Preset | Algorithm,
    settings: Settings | None = None,
    policy: Policy | None = None,
) -> Preset:
    """The algorithm and the settings of a run, from the arguments of `train`, `compare` or `align`.

    `settings`, if given, are used. Otherwise a name or a preset has its own. An algorithm object
    gets the settings of the environment's presets of the same class, if these agree. A class
    without any preset, such as a reader's own, gets the settings of "ppo", which are the
    environment's common ones.

    Raises
    ------
    ValueError
        As `preset`; or for an algorithm object without `settings` whose class has presets with
        different settings, as PPO and GRPO have: the object does not say which of them it is.
    """
    if isinstance(algorithm, str):
        algorithm = preset(env, algorithm, policy)
    if not isinstance(algorithm, Preset):
        algorithm = Preset(algorithm, settings or _settings_of_class(env, algorithm, policy))
    return algorithm if settings is None else replace(algorithm, settings=settings)


def _settings_of_class(env: MakeEnv, algorithm: Algorithm, policy: Policy | None) -> Settings:
    """The settings of the presets whose algorithm has the class of this one."""
    presets = presets_of(env, policy)
    same_class = {
        name: item.settings
        for name, item in presets.items()
        if isinstance(algorithm, type(item.algorithm))
    } or {"ppo": presets["ppo"].settings}
    first, *others = same_class.values()
    if any(settings != first for settings in others):
        raise ValueError(
            f"settings must be given with this {type(algorithm).__name__}, because the presets "
            f"{', '.join(same_class)} of {env} use it with different ones; pass "
            f'settings=preset("{env}", "{[*same_class][1]}").settings, for example'
        )
    return first


Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def explain_fields(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Let a function say where a field of `Settings` or of an algorithm belongs.

    `train("CartPole-v1", "ppo", num_envs=4)` is then a ValueError that shows how to change a
    preset, instead of a TypeError that only says that `num_envs` is not expected.
    """
    expected = inspect.signature(function).parameters
    parts = {
        **{field.name: "algorithm" for kind in ALGORITHMS.values() for field in fields(kind)},
        **{field.name: "settings" for field in fields(Settings)},
    }

    @functools.wraps(function)
    def explained(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        for name, value in kwargs.items():
            if name not in expected and name in parts:
                part = parts[name]
                raise ValueError(
                    f"{name} is not an argument of {function.__name__}, but a field of a preset's "
                    f"{part}; with p = preset(env, name), pass "
                    f"replace(p, {part}=replace(p.{part}, {name}={value!r})) as the algorithm"
                )
        return function(*args, **kwargs)

    return explained


check_arguments(__name__)
