"""Every default in one place: what a run of any algorithm shares, and what each algorithm adds.

`Settings` holds what the algorithms of a comparison have in common. `PRESETS` gives, for each
environment, the settings, and for each algorithm its own hyperparameters and steps per update.
"""

import ast
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from minirl.advantages import (
    GAE,
    AdvantageEstimator,
    GroupNormalized,
    LeaveOneOut,
    RewardToGo,
)
from minirl.algorithms import (
    ALGORITHMS,
    PPO,
    TRPO,
    Algorithm,
    NaturalGradient,
    PolicyGradient,
)
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL, Unclipped
from minirl.critic_fit import CriticFit, TableFit
from minirl.networks import require_log_std
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.reward_transforms import ReturnScaling, RewardTransform
from minirl.rollout import MakeEnv, registered_id
from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    MOST_ENVIRONMENTS,
    MOST_ROWS,
    require_count,
    require_flag,
    require_methods,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What surrounds an algorithm's update.

    Parameters
    ----------
    num_envs : int
        Parallel environments E.
    rollout_steps : int
        Rows T of each environment between updates; with whole episodes, their longest length.
    whole_episodes : bool
        Between updates, one whole episode of each environment, instead of so many rows: losses and
        KL are then sums over an episode, averaged over episodes, and minibatches hold whole
        episodes.
    group_size : int
        So many neighbouring environments begin alike (see `collect_episodes`).
    advantages : AdvantageEstimator
        With the task's discount.
    hidden_sizes : tuple of int
        Of actor and critic, for Box observations.
    initial_log_std : float
        Of a fresh Gaussian policy, for Box actions.
    min_log_std : float, optional
        Lower bound of its log standard deviation, for Box actions: after every step the parameters
        are projected onto it (see `WithLogStd`). None, the default, sets no bound.
    normalize_observations : bool
        Standardise observations by running statistics kept with the policy.
    reward_transform : RewardTransform, optional
    critic_fit : CriticFit or TableFit
    discount_states : bool
        Weight each transition by discount^time: required for an unbiased gradient of the
        discounted return (see `minirl.batch.flatten`), and rarely done in practice.
    dtype : {"float32", "float64"}
        Of networks; tables are always float64.
    """

    num_envs: int = 8
    rollout_steps: int = 256
    whole_episodes: bool = False
    group_size: int = 1
    advantages: AdvantageEstimator = GAE(discount=0.99, lam=0.95)
    hidden_sizes: tuple[int, ...] = (64, 64)
    initial_log_std: float = 0.0
    min_log_std: float | None = None
    normalize_observations: bool = False
    reward_transform: RewardTransform | None = None
    critic_fit: CriticFit | TableFit = CriticFit()
    discount_states: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_count("num_envs", self.num_envs, most=MOST_ENVIRONMENTS)
        require_count("rollout_steps", self.rollout_steps, most=MOST_ROWS)
        require_flag("whole_episodes", self.whole_episodes)
        rows = self.num_envs * self.rollout_steps
        if rows > MOST_ROWS and not self.whole_episodes:
            raise ValueError(
                f"num_envs times rollout_steps must be at most {MOST_ROWS:,}, got {rows:,}: a "
                "rollout must fit into memory"
            )
        require_count("group_size", self.group_size)
        if self.num_envs % self.group_size:
            raise ValueError(
                f"group_size must divide num_envs, {self.num_envs}, got {self.group_size}"
            )
        if self.group_size > 1 and not self.whole_episodes:
            raise ValueError(f"group_size {self.group_size} needs whole_episodes=True")
        if not isinstance(self.hidden_sizes, tuple):
            raise ValueError(f"hidden_sizes must be a tuple of widths, got {self.hidden_sizes!r}")
        for width in self.hidden_sizes:
            require_count("every width in hidden_sizes", width)
        require_log_std(self.initial_log_std, self.min_log_std)
        require_flag("normalize_observations", self.normalize_observations)
        require_flag("discount_states", self.discount_states)
        require_methods("advantages", self.advantages, "__call__", "discount")
        require_methods("critic_fit", self.critic_fit, "init", "fit")
        if self.reward_transform is not None:
            require_methods("reward_transform", self.reward_transform, "init", "transform")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f'dtype must be "float32" or "float64", got {self.dtype!r}')


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults for one environment.

    Parameters
    ----------
    settings : Settings
        Shared by all algorithms.
    algorithms : mapping
        Name -> the algorithm with its hyperparameters.
    own_settings : mapping
        Name -> the fields of `Settings` in which this algorithm differs.
    """

    settings: Settings
    algorithms: Mapping[str, Algorithm]
    own_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# One setting for all networks: the numbers of the common CartPole comparison.
NETWORK_POLICY_GRADIENT = PolicyGradient(learning_rate=3e-3, normalize_advantages=True)
NETWORK_PPO = PPO(
    learning_rate=LinearSchedule(1e-3),
    epochs=10,
    minibatch_size=256,
    normalize_advantages=True,
)
NETWORK_ALGORITHMS: dict[str, Algorithm] = {
    "policy-gradient": NETWORK_POLICY_GRADIENT,
    "natural-gradient": NaturalGradient(step_size=1.0, damping=0.1, normalize_advantages=True),
    "trpo": TRPO(max_kl=0.01, damping=0.1, normalize_advantages=True),
    "ppo": NETWORK_PPO,
}
TABLE_PPO = PPO(
    learning_rate=LinearSchedule(0.05),
    epochs=10,
    minibatch_size=256,
    normalize_advantages=True,
)
# Tables: the Fisher matrix of a state is about its share of the visits, so damping is smaller; each
# logit has its own few samples, so first-order rates are larger.
TABLE_ALGORITHMS: dict[str, Algorithm] = {
    "policy-gradient": PolicyGradient(learning_rate=0.05, normalize_advantages=True),
    "natural-gradient": NaturalGradient(step_size=1.0, damping=0.01, normalize_advantages=True),
    "trpo": TRPO(max_kl=0.01, damping=0.01),
    "ppo": TABLE_PPO,
}
TABLE_CRITIC_FIT = CriticFit(learning_rate=0.1, epochs=10, minibatch_size=256)

# A single gradient step makes little use of a batch, so the policy gradient takes smaller ones.
SHORT_ROLLOUTS = {"policy-gradient": {"rollout_steps": 64}}

GENERIC = Preset(settings=Settings(), algorithms=NETWORK_ALGORITHMS, own_settings=SHORT_ROLLOUTS)
TABLE = Preset(
    settings=Settings(critic_fit=TABLE_CRITIC_FIT),
    algorithms=TABLE_ALGORITHMS,
    own_settings=SHORT_ROLLOUTS,
)
# One random episode in 70 earns anything: a gradient needs many of them.
FROZEN_LAKE = replace(
    TABLE,
    algorithms={
        **TABLE_ALGORITHMS,
        "policy-gradient": PolicyGradient(learning_rate=0.2, normalize_advantages=True),
    },
    own_settings={"policy-gradient": {"rollout_steps": 512}},
)
# Four times as many states, and one random episode in 500 earns anything. A policy that learns fast
# is certain of what noise taught it before it knows the way. Steps are therefore short: in nats, in
# logits, and by a damping that holds back changes in states that are seldom visited. The discount
# is near 1, since a safe way takes more than a hundred steps: the best policy at 0.99 earns 0.863
# of the possible 0.913.
FROZEN_LAKE_8X8 = replace(
    TABLE,
    settings=Settings(advantages=GAE(discount=0.999, lam=0.95), critic_fit=TABLE_CRITIC_FIT),
    algorithms={
        "policy-gradient": PolicyGradient(
            learning_rate=0.05, normalize_advantages=True, entropy_coefficient=0.01
        ),
        "natural-gradient": NaturalGradient(step_size=2.0, damping=0.1, normalize_advantages=True),
        "trpo": TRPO(max_kl=0.001, damping=0.1),
        "ppo": replace(
            TABLE_PPO, learning_rate=LinearSchedule(0.01), epochs=4, entropy_coefficient=0.003
        ),
    },
)

# Four epochs of four minibatches of whole sentences.
SENTENCE_PPO = PPO(learning_rate=LinearSchedule(0.05), epochs=4, minibatch_size=128)
# Sentences: losses per sentence, so rates and max_kl are per sentence too. Damping is small because
# the Fisher matrix of a context is about its share of the visits, one in thousands.
TOKENS = Preset(
    settings=Settings(
        num_envs=512,
        rollout_steps=100,
        whole_episodes=True,
        advantages=GAE(discount=1.0, lam=0.95),
        critic_fit=TableFit(rate=0.5),
    ),
    algorithms={
        "policy-gradient": PolicyGradient(learning_rate=30.0, optimizer=SGD()),
        "natural-gradient": NaturalGradient(step_size=0.5, damping=1e-3),
        "trpo": TRPO(max_kl=0.01, damping=1e-3),
        "ppo": replace(SENTENCE_PPO, normalize_advantages=True),
        "rloo": PolicyGradient(learning_rate=30.0, optimizer=SGD()),
        "grpo": SENTENCE_PPO,
    },
    own_settings={
        "policy-gradient": {
            "num_envs": 256,
            "advantages": RewardToGo(discount=1.0, baseline="critic"),
        },
        "natural-gradient": {"num_envs": 1024, "advantages": GAE(discount=1.0, lam=1.0)},
        "trpo": {"num_envs": 1024, "advantages": GAE(discount=1.0, lam=1.0)},
        "rloo": {"num_envs": 256, "group_size": 4, "advantages": LeaveOneOut()},
        "grpo": {"group_size": 16, "advantages": GroupNormalized()},
    },
)

# CleanRL's settings for continuous control, those of the PPO paper's MuJoCo runs: one environment,
# everything scaled. TRPO has its paper's bound and the damping of everything else here.
MUJOCO_OPTIMIZER = Adam(epsilon=1e-5)
MUJOCO = Preset(
    settings=Settings(
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
    algorithms={
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
    own_settings={"policy-gradient": {"rollout_steps": 512}},
)

PRESETS: dict[str, Preset] = {
    "CartPole-v1": GENERIC,
    "Acrobot-v1": GENERIC,
    # Rewards down to -16 a step: scaled, the common critic fit does.
    "Pendulum-v1": replace(
        GENERIC,
        settings=Settings(
            advantages=GAE(discount=0.9, lam=0.95), reward_transform=ReturnScaling(discount=0.9)
        ),
    ),
    # Position and velocity differ in scale by 20; published runs on raw ones stay at -200.
    "MountainCar-v0": replace(
        GENERIC,
        settings=Settings(
            num_envs=16,
            rollout_steps=128,
            advantages=GAE(discount=0.99, lam=0.98),
            normalize_observations=True,
        ),
    ),
    # Standing still is a local optimum; a bold start leaves it.
    "MountainCarContinuous-v0": replace(
        GENERIC,
        settings=Settings(
            initial_log_std=0.5,
            normalize_observations=True,
            reward_transform=ReturnScaling(discount=0.99),
        ),
    ),
    # What a landing earns comes hundreds of steps after the start, so the discount is near 1; the
    # entropy bonus keeps the engines firing until the lander has learned what they are for.
    "LunarLander-v3": replace(
        GENERIC,
        settings=Settings(advantages=GAE(discount=0.999, lam=0.98)),
        algorithms={
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
    "minirl/LQR-v0": Preset(
        settings=Settings(
            advantages=GAE(discount=0.95, lam=0.95),
            reward_transform=ReturnScaling(discount=0.95),
            initial_log_std=-0.5,
        ),
        algorithms={
            **NETWORK_ALGORITHMS,
            "natural-gradient": NaturalGradient(step_size=0.3, normalize_advantages=True),
        },
        own_settings=SHORT_ROLLOUTS,
    ),
    "FrozenLake-v1": FROZEN_LAKE,
    "FrozenLake8x8-v1": FROZEN_LAKE_8X8,
    "CliffWalking-v1": TABLE,
    # 500 states: few samples each, and Adam's momentum runs on where there is none.
    "Taxi-v4": replace(
        TABLE,
        algorithms={
            **TABLE_ALGORITHMS,
            "ppo": replace(TABLE_PPO, learning_rate=LinearSchedule(0.01)),
        },
    ),
    "minirl/Chain-v0": TABLE,
    "minirl/GridWorld-v0": TABLE,
    "minirl/TokenGeneration-v0": TOKENS,
}


def preset_for(env: MakeEnv) -> Preset:
    """The preset of an environment id; `GENERIC` for a function and for anything not listed.

    It is looked up by the registered id: "gymnasium:Pendulum-v1" and "Pendulum" get that of
    "Pendulum-v1".
    """
    return PRESETS.get(registered_id(env), GENERIC) if isinstance(env, str) else GENERIC


def default_algorithm(name: str, env: MakeEnv) -> Algorithm:
    """The algorithm called `name` with its defaults for `env`.

    Raises
    ------
    ValueError
        For a name that the environment's preset does not have.
    """
    known = preset_for(env).algorithms
    if name not in known:
        raise ValueError(f"the algorithm name {name!r} is unknown; choose from {', '.join(known)}")
    return known[name]


def default_settings(env: MakeEnv, algorithm: str | Algorithm) -> Settings:
    """The settings for `env`, with what an algorithm has of its own there.

    Parameters
    ----------
    algorithm : str or Algorithm
        A name, an algorithm as `default_algorithm` returns it, or any other one, which gets what
        its kind has: `PolicyGradient` the policy gradient's.
    """
    preset = preset_for(env)
    if not isinstance(algorithm, str):
        # By identity: RLOO's algorithm equals the policy gradient's, its settings don't.
        named = [name for name, known in preset.algorithms.items() if known is algorithm]
        kinds = [name for name, kind in ALGORITHMS.items() if type(algorithm) is kind]
        algorithm = [*named, *kinds, ""][0]
    return replace(preset.settings, **preset.own_settings.get(algorithm, {}))


CONSTRUCTORS = {
    kind.__name__: kind
    for kind in (
        SGD,
        Adam,
        LinearSchedule,
        GAE,
        RewardToGo,
        LeaveOneOut,
        GroupNormalized,
        ReturnScaling,
        CriticFit,
        TableFit,
        Clipped,
        Unclipped,
        FixedKL,
        AdaptiveKL,
    )
}

SHORTENED = reprlib.Repr()
SHORTENED.maxstring = 200  # characters of a value in a message


def parse_value(text: str) -> Any:
    """A number, string, tuple, True, False, None or one of `CONSTRUCTORS`, e.g. "FixedKL(0.5)".

    Raises
    ------
    ValueError
        If the text is none of these; nothing else is ever executed.
    """

    def build(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in CONSTRUCTORS:
            arguments = [build(argument) for argument in node.args]
            keywords = {str(item.arg): build(item.value) for item in node.keywords}
            return CONSTRUCTORS[node.func.id](*arguments, **keywords)  # type: ignore[attr-defined]
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise ValueError("neither a literal nor one of the names that follow") from None

    try:
        return build(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or "it is too deep"
        raise ValueError(
            f"value {SHORTENED.repr(text)} is not understood: {reason}; give a Python literal or "
            f"one of {', '.join(CONSTRUCTORS)}"
        ) from error


def choose(name: str, env: MakeEnv, assignments: Sequence[str] = ()) -> tuple[Algorithm, Settings]:
    """The defaults for an algorithm and an environment, with `NAME=VALUE` assignments applied.

    Raises
    ------
    ValueError
        For an unknown algorithm or field, or a bad value.
    """
    algorithm: Any = default_algorithm(name, env)
    own = [item.name for item in fields(algorithm)]
    common = [item.name for item in fields(Settings)]
    own_values: dict[str, Any] = {}
    common_values: dict[str, Any] = {}
    for assignment in assignments:
        field_name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, got {assignment!r}")
        field_name = field_name.strip()
        if field_name in own:
            own_values[field_name] = parse_value(text)
        elif field_name in common:
            common_values[field_name] = parse_value(text)
        else:
            raise ValueError(
                f"field {field_name!r} is unknown; {name} has {', '.join(own)}; settings have "
                f"{', '.join(common)}"
            )
    # All at once: values that only fit together must not depend on their order.
    settings = replace(default_settings(env, name), **common_values)
    return replace(algorithm, **own_values), settings


check_arguments(__name__)
