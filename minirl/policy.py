"""A policy and a critic: a network, its flat parameters and the observation statistics they share.

Both are immutable; learning returns a new one: `policy.with_parameters(theta)`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces

from minirl.distributions import Categorical, DiagonalGaussian, Distribution
from minirl.networks import MLP, Features, Linear, Network, Table, WithLogStd
from minirl.normalization import RunningMoments
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_rows

LARGEST_NETWORK = 50_000_000  # parameters; training keeps about six arrays of this size


def network_input(observations: np.ndarray, statistics: RunningMoments | None) -> np.ndarray:
    """Observations as the network receives them: normalised if there are statistics."""
    if statistics is None:
        return observations
    require_rows("observations", observations, statistics.mean.shape)
    return statistics.normalize(observations)


def _observation_ndim(network: Network) -> int | None:
    """The number of axes of one observation; None if the network is not one of minirl's."""
    means = network.mean if isinstance(network, WithLogStd) else network
    if isinstance(means, Table | Features):
        return 0
    return 1 if isinstance(means, (MLP, Linear)) else None


@dataclass(frozen=True, eq=False)
class Policy:
    """pi(a | s): a network that turns observations into the parameters of a distribution.

    Parameters
    ----------
    network : Network
        Observation features to eta (N, d).
    distribution : type
        `Categorical` or `DiagonalGaussian`.
    parameters : ndarray (P,)
        The flat parameter vector theta.
    observation_statistics : RunningMoments, optional
        Applied to every observation before the network; None leaves observations as they are.
    """

    network: Network
    distribution: type[Categorical] | type[DiagonalGaussian]
    parameters: np.ndarray
    observation_statistics: RunningMoments | None = None

    def __call__(self, observations: np.ndarray) -> Distribution:
        """pi(. | s_i): the distributions at raw observations (N, ...)."""
        return self.forward(observations)[0]

    def forward(self, observations: np.ndarray) -> tuple[Distribution, Any]:
        """The distributions at raw observations (N, ...), and the cache for `vjp` and `jvp`."""
        x = network_input(observations, self.observation_statistics)
        eta, cache = self.network.forward(self.parameters, x)
        return self.distribution(eta), cache

    def vjp(self, cache: Any, d_eta: np.ndarray) -> np.ndarray:
        """d_eta^T J (P,), with J = d eta / d theta the Jacobian at the observations of `cache`."""
        return self.network.vjp(cache, d_eta)

    def jvp(self, cache: Any, d_theta: np.ndarray) -> np.ndarray:
        """J d_theta (N, d)."""
        return self.network.jvp(cache, d_theta)

    def act(self, observations: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions (N, ...) at raw observations (N, ...), or one action at a single observation.

        Actions are sampled from pi(. | s) with `rng`; without it they are the mode of pi(. | s).
        """
        single = np.ndim(observations) == _observation_ndim(self.network)
        distribution = self(np.asarray(observations)[None] if single else observations)
        actions = distribution.mode() if rng is None else distribution.sample(rng)
        return actions[0] if single else actions

    def with_parameters(self, theta: np.ndarray) -> "Policy":
        """The same policy with other parameters, projected onto `min_log_std` if there is one."""
        # A NumPy float64 among the hyperparameters must not promote a float32 network.
        theta = theta.astype(self.network.dtype, copy=False)
        if isinstance(self.network, WithLogStd):
            theta = self.network.project(theta)
        return Policy(self.network, self.distribution, theta, self.observation_statistics)

    def with_observation_statistics(self, statistics: RunningMoments | None) -> "Policy":
        """The same policy with other observation statistics."""
        return replace(self, observation_statistics=statistics)


@dataclass(frozen=True, eq=False)
class Critic:
    """The value estimate: a network with one output per observation.

    Parameters
    ----------
    network : Network
        Observation features to one value (N, 1).
    parameters : ndarray (P,)
    observation_statistics : RunningMoments, optional
        The policy's; both see the same features.
    """

    network: Network
    parameters: np.ndarray
    observation_statistics: RunningMoments | None = None

    def forward(self, observations: np.ndarray) -> tuple[np.ndarray, Any]:
        """Values (N,) at raw observations (N, ...), and the cache for `vjp`."""
        x = network_input(observations, self.observation_statistics)
        y, cache = self.network.forward(self.parameters, x)
        return y[:, 0], cache

    def vjp(self, cache: Any, d_values: np.ndarray) -> np.ndarray:
        """d_values^T J (P,) for d_values (N,)."""
        return self.network.vjp(cache, d_values[:, None])

    def values(self, observations: np.ndarray) -> np.ndarray:
        """Values (N,) at raw observations (N, ...)."""
        return self.forward(observations)[0]

    def with_parameters(self, theta: np.ndarray) -> "Critic":
        """The same critic with other parameters."""
        theta = theta.astype(self.network.dtype, copy=False)
        return Critic(self.network, theta, self.observation_statistics)

    def with_observation_statistics(self, statistics: RunningMoments | None) -> "Critic":
        """The same critic with other observation statistics."""
        return replace(self, observation_statistics=statistics)


def _network(
    observation_space: spaces.Space[Any],
    outputs: int,
    hidden_sizes: tuple[int, ...],
    output_gain: float,
    dtype: str,
) -> MLP | Table:
    if isinstance(observation_space, spaces.Discrete) and observation_space.start == 0:
        network: MLP | Table = Table(int(observation_space.n), outputs)
        way_out = (
            "describe each state by a vector of a few numbers "
            "(gymnasium.wrappers.TransformObservation)"
        )
    elif isinstance(observation_space, spaces.Box) and len(observation_space.shape) == 1:
        sizes = (observation_space.shape[0], *hidden_sizes, outputs)
        network = MLP(sizes, output_gain, dtype)
        way_out = "choose smaller hidden_sizes, or spaces with fewer numbers"
    else:
        raise ValueError(
            f"observation space {observation_space} is not supported: minirl takes Box vectors of "
            "shape (D,) and Discrete states numbered from 0; "
            f"{_observation_wrapper(observation_space)}"
        )
    if network.size > LARGEST_NETWORK:
        raise ValueError(
            f"observation space {observation_space} with {outputs:,} outputs needs a network of "
            f"{network.size:,} parameters, and minirl allows {LARGEST_NETWORK:,}; {way_out}"
        )
    return network


def _observation_wrapper(space: spaces.Space[Any]) -> str:
    """The wrapper of Gymnasium that makes such observations usable."""
    if isinstance(space, spaces.Discrete):
        return (
            "wrap each environment in gymnasium.wrappers.TransformObservation(env, lambda state: "
            f"state - {space.start}, Discrete({space.n}))"
        )
    if not space.is_np_flattenable:
        return (
            "wrap each environment in gymnasium.wrappers.TransformObservation(env, function, "
            "space), whose function returns a vector"
        )
    smaller = (
        "; GrayscaleObservation and ResizeObservation (with opencv-python) make images smaller"
        if isinstance(space, spaces.Box) and len(space.shape) == 3
        else ""
    )
    return (
        "wrap each environment in gymnasium.wrappers.FlattenObservation, which makes a vector of "
        f"it{smaller}"
    )


def empty_statistics(observation_space: spaces.Space[Any]) -> RunningMoments:
    """Observation statistics to start from; only Box observations can be normalised."""
    if not isinstance(observation_space, spaces.Box):
        raise ValueError(
            f"normalize_observations needs Box observations, got {observation_space}; turn it off"
        )
    return RunningMoments.empty(observation_space.shape)


def make_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    rng: np.random.Generator,
    *,
    hidden_sizes: tuple[int, ...] = (64, 64),
    initial_log_std: float = 0.0,
    min_log_std: float | None = None,
    dtype: str = "float32",
) -> Policy:
    """A fresh policy for a pair of spaces.

    Box observations get an `MLP`, Discrete ones a `Table` (always float64); Discrete actions a
    `Categorical`, Box ones a `DiagonalGaussian` with a state-independent log std, which starts at
    `initial_log_std` and never falls below `min_log_std`.

    Raises
    ------
    ValueError
        For any other space, naming it and the wrapper that helps, and for a network of more than
        50 million parameters.
    """
    distribution, size = _action_distribution(action_space)
    logits_or_means = _network(observation_space, size, hidden_sizes, 0.01, dtype)
    network: Network = logits_or_means
    if distribution is DiagonalGaussian:
        network = WithLogStd(logits_or_means, size, initial_log_std, min_log_std)
    return Policy(network, distribution, network.init(rng))


def _action_distribution(
    action_space: spaces.Space[Any],
) -> tuple[type[Categorical] | type[DiagonalGaussian], int]:
    """The distribution for an action space, and its number of actions or of components."""
    if isinstance(action_space, spaces.Discrete) and action_space.start == 0:
        return Categorical, int(action_space.n)
    is_vector = isinstance(action_space, spaces.Box) and len(action_space.shape) == 1
    if is_vector and np.issubdtype(action_space.dtype, np.floating):
        return DiagonalGaussian, len(action_space.low)  # type: ignore[attr-defined]
    raise ValueError(
        f"action space {action_space} is not supported: minirl takes Discrete actions numbered "
        "from 0 and Box vectors of floats of shape (k,); wrap each environment in "
        "gymnasium.wrappers.TransformAction(env, function, space), whose space is one of these and "
        "whose function turns its actions into those of the environment"
    )


def require_fit(
    policy: Policy, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Raise ValueError unless the policy takes these observations and chooses these actions."""
    distribution, size = _action_distribution(action_space)
    outputs = size if distribution is Categorical else 2 * size  # means and log standard deviations
    states = int(observation_space.n) if isinstance(observation_space, spaces.Discrete) else None
    probe = np.zeros((1, *(observation_space.shape or ())), dtype=observation_space.dtype)
    network = getattr(policy.network, "mean", policy.network)
    try:
        fits = policy.distribution is distribution and policy(probe).eta.shape == (1, outputs)
    except (ValueError, IndexError, TypeError):
        fits = False
    fits = fits and getattr(network, "states", None) == states
    if not fits:
        raise ValueError(
            f"the policy, {policy.network} with {policy.distribution.__name__}, does not fit the "
            f"observation space {observation_space} and the action space {action_space}"
        )


def make_critic(
    observation_space: spaces.Space[Any],
    rng: np.random.Generator,
    *,
    hidden_sizes: tuple[int, ...] = (64, 64),
    dtype: str = "float32",
) -> Critic:
    """A fresh critic for an observation space: an `MLP` or, for Discrete states, a `Table`."""
    network = _network(observation_space, 1, hidden_sizes, 1.0, dtype)
    return Critic(network, network.init(rng))


check_arguments(__name__, often=("network_input", "Policy", "Critic"))
