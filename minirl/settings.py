"""Every default in one place: what a run of any algorithm shares, and what each algorithm adds.

`Settings` holds what the algorithms of a comparison have in common. `PRESETS` gives, for each
environment, the settings, and for each algorithm its own hyperparameters and steps per update.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from minirl.advantages import GAE, AdvantageEstimator, RewardToGo
from minirl.algorithms import (
    ALGORITHMS,
    PPO,
    TRPO,
    Algorithm,
    NaturalGradient,
    PolicyGradient,
)
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL, Unclipped
from minirl.critic_fit import CriticFit
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.reward_transforms import ReturnScaling, RewardTransform
from minirl.rollout import MakeEnv
from minirl.validation import require_count


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What surrounds an algorithm's update.

    Parameters
    ----------
    num_envs : int
        Parallel environments E.
    rollout_steps : int
        Rows T of each environment between updates.
    advantages : AdvantageEstimator
        With the task's discount.
    hidden_sizes : tuple of int
        Of actor and critic, for Box observations.
    initial_log_std : float
        Of the Gaussian policy, for Box actions.
    normalize_observations : bool
        Standardise observations by running statistics kept with the policy.
    reward_transform : RewardTransform, optional
    critic_fit : CriticFit
    discount_states : bool
        Weight each transition by discount^time, as the gradient of the discounted return asks and
        as nobody does.
    dtype : {"float32", "float64"}
        Of networks; tables are always float64.
    """

    num_envs: int = 8
    rollout_steps: int = 256
    advantages: AdvantageEstimator = GAE(discount=0.99, lam=0.95)
    hidden_sizes: tuple[int, ...] = (64, 64)
    initial_log_std: float = 0.0
    normalize_observations: bool = False
    reward_transform: RewardTransform | None = None
    critic_fit: CriticFit = CriticFit()
    discount_states: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_count("num_envs", self.num_envs)
        require_count("rollout_steps", self.rollout_steps)
        for width in self.hidden_sizes:
            require_count("every width in hidden_sizes", width)
        if not np.isfinite(self.initial_log_std):
            raise ValueError(f"initial_log_std must be finite, got {self.initial_log_std!r}")
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
    rollout_steps : mapping
        Name -> rows between updates, where it differs from `settings`.
    """

    settings: Settings
    algorithms: Mapping[str, Algorithm]
    rollout_steps: Mapping[str, int] = field(default_factory=dict)


CLASSIC_ALGORITHMS: dict[str, Algorithm] = {
    "policy-gradient": PolicyGradient(learning_rate=1e-2, normalize_advantages=True),
    "natural-gradient": NaturalGradient(step_size=0.1, normalize_advantages=True),
    "trpo": TRPO(max_kl=0.01, normalize_advantages=True),
    "ppo": PPO(
        learning_rate=LinearSchedule(1e-3),
        epochs=10,
        minibatch_size=256,
        normalize_advantages=True,
    ),
}

GENERIC = Preset(
    settings=Settings(),
    algorithms=CLASSIC_ALGORITHMS,
    rollout_steps={"policy-gradient": 64},
)


def preset_for(env: MakeEnv) -> Preset:
    """The preset of an environment id; `GENERIC` for anything not listed."""
    return PRESETS.get(env, GENERIC) if isinstance(env, str) else GENERIC


def default_algorithm(name: str, env: MakeEnv) -> Algorithm:
    """The algorithm called `name` with its defaults for `env`.

    Raises
    ------
    ValueError
        For a name that is not in `ALGORITHMS`.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm {name!r} is unknown; choose from {', '.join(ALGORITHMS)}")
    return preset_for(env).algorithms[name]


def default_settings(env: MakeEnv, algorithm: Algorithm) -> Settings:
    """The settings for `env`, with the steps per update that this kind of algorithm prefers."""
    preset = preset_for(env)
    names = [name for name, kind in ALGORITHMS.items() if type(algorithm) is kind]
    rows = preset.rollout_steps.get(names[0]) if names else None
    return replace(preset.settings, rollout_steps=rows) if rows else preset.settings


PRESETS: dict[str, Preset] = {}


CONSTRUCTORS = {
    kind.__name__: kind
    for kind in (
        SGD,
        Adam,
        LinearSchedule,
        GAE,
        RewardToGo,
        ReturnScaling,
        CriticFit,
        Clipped,
        Unclipped,
        FixedKL,
        AdaptiveKL,
    )
}


def parse_value(text: str) -> Any:
    """A number, string, tuple, True, False, None or one of `CONSTRUCTORS`, e.g. "FixedKL(0.5)".

    Raises
    ------
    ValueError
        If the text is none of these; nothing else is ever executed.
    """

    def build(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            arguments = [build(argument) for argument in node.args]
            keywords = {str(item.arg): build(item.value) for item in node.keywords}
            return CONSTRUCTORS[node.func.id](*arguments, **keywords)
        return ast.literal_eval(node)

    try:
        return build(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"value {text!r} is not understood ({error}); give a Python literal or one of "
            f"{', '.join(CONSTRUCTORS)}"
        ) from error


def choose(name: str, env: MakeEnv, assignments: Sequence[str] = ()) -> tuple[Algorithm, Settings]:
    """The defaults for an algorithm and an environment, with `NAME=VALUE` assignments applied.

    Raises
    ------
    ValueError
        For an unknown algorithm or field, or a bad value.
    """
    algorithm: Any = default_algorithm(name, env)
    settings = default_settings(env, algorithm)
    for assignment in assignments:
        field_name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, got {assignment!r}")
        value = parse_value(text)
        own = [item.name for item in fields(algorithm)]
        common = [item.name for item in fields(Settings)]
        if field_name in own:
            algorithm = replace(algorithm, **{field_name: value})
        elif field_name in common:
            settings = replace(settings, **{field_name: value})
        else:
            raise ValueError(
                f"field {field_name!r} is unknown; {name} has {', '.join(own)}; settings have "
                f"{', '.join(common)}"
            )
    return algorithm, settings
