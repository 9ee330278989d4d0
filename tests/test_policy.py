"""Policies and critics: spaces to networks, one normalisation, immutability."""

import tracemalloc

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from helpers import gradient_by_differences

from minirl.checks import three_sigma
from minirl.distributions import Categorical, DiagonalGaussian
from minirl.networks import MLP, Linear, Table, WithLogStd
from minirl.normalization import RunningMoments
from minirl.policy import Critic, Policy, empty_statistics, make_critic, make_policy, require_fit
from minirl.settings import Settings
from minirl.training import train

VECTOR = spaces.Box(-np.inf, np.inf, (3,))
STATES = spaces.Discrete(6)
CHOICES = spaces.Discrete(4)
FORCES = spaces.Box(-1.0, 1.0, (2,))
STATISTICS = RunningMoments(10, np.array([1.0, -2.0, 0.5]), np.array([4.0, 0.25, 1.0]))


def observations_of(space, rng, rows=7):
    return rng.integers(0, 6, rows) if space is STATES else rng.normal(size=(rows, 3))


def linear_policy(statistics=None):
    theta = np.random.default_rng(0).normal(size=6)
    return Policy(Linear(3, 2), Categorical, theta, statistics)


# ------------------------------------------------------------ spaces


@pytest.mark.parametrize(
    ("observation_space", "action_space", "network", "distribution"),
    [
        (VECTOR, CHOICES, MLP((3, 8, 4), 0.01), Categorical),
        (VECTOR, FORCES, WithLogStd(MLP((3, 8, 2), 0.01), 2, -0.5), DiagonalGaussian),
        (STATES, CHOICES, Table(6, 4), Categorical),
        (STATES, FORCES, WithLogStd(Table(6, 2), 2, -0.5), DiagonalGaussian),
    ],
)
def test_spaces_choose_network_and_distribution(
    observation_space, action_space, network, distribution
):
    rng = np.random.default_rng(0)
    policy = make_policy(
        observation_space, action_space, rng, hidden_sizes=(8,), initial_log_std=-0.5
    )
    assert policy.network == network
    assert policy.distribution is distribution
    assert policy.parameters.shape == (network.size,)
    assert policy.parameters.dtype == network.dtype
    assert policy.observation_statistics is None
    observations = observations_of(observation_space, rng)
    for actions in (policy.act(observations), policy.act(observations, rng)):
        assert actions.shape == (7, *action_space.shape)
    if action_space is CHOICES:
        assert all(action_space.contains(action) for action in policy.act(observations, rng))
    else:
        _, log_std = np.split(policy(observations).eta, 2, axis=1)
        np.testing.assert_array_equal(log_std, -0.5)


@pytest.mark.parametrize(
    ("observation_space", "network"), [(VECTOR, MLP((3, 8, 1))), (STATES, Table(6, 1))]
)
def test_critics_have_one_value_a_row(observation_space, network):
    rng = np.random.default_rng(1)
    critic = make_critic(observation_space, rng, hidden_sizes=(8,))
    assert critic.network == network
    assert critic.values(observations_of(observation_space, rng)).shape == (7,)


def test_dtype_and_seed_are_passed_on():
    for make in (
        lambda rng, dtype: make_policy(VECTOR, CHOICES, rng, dtype=dtype),
        lambda rng, dtype: make_critic(VECTOR, rng, dtype=dtype),
    ):
        long = make(np.random.default_rng(2), "float64")
        short = make(np.random.default_rng(2), "float32")
        assert long.parameters.dtype == np.float64
        assert short.parameters.dtype == np.float32
        np.testing.assert_allclose(long.parameters, short.parameters, rtol=1e-6)


UNSUPPORTED = [
    spaces.Dict({"position": VECTOR}),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(3),
    spaces.Tuple((CHOICES, FORCES)),
    spaces.Discrete(3, start=1),
    spaces.Box(0.0, 1.0, (2, 2)),
    spaces.Box(0.0, 1.0, ()),
]


@pytest.mark.parametrize("space", UNSUPPORTED, ids=str)
def test_an_unsupported_space_is_named(space):
    for make, role in (
        (lambda: make_policy(space, CHOICES, np.random.default_rng(3)), "observation space"),
        (lambda: make_critic(space, np.random.default_rng(3)), "observation space"),
        (lambda: make_policy(VECTOR, space, np.random.default_rng(3)), "action space"),
    ):
        with pytest.raises(ValueError, match="minirl takes") as caught:
            make()
        assert str(caught.value).startswith(f"{role} {space} is not supported")


class Odd(gym.Env):
    """An environment of any spaces, which takes only actions of its own space."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space
        self.received = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.received.append(action)
        return self.observation_space.sample(), 1.0, len(self.received) % 5 == 0, False, {}


def advice(observation_space, action_space):
    with pytest.raises(ValueError, match="is not supported") as caught:
        make_policy(observation_space, action_space, np.random.default_rng(0))
    return str(caught.value)


def train_a_little(make_one):
    def envs(num_envs):
        return SyncVectorEnv([make_one] * num_envs)

    settings = Settings(num_envs=2, rollout_steps=8)
    result = train(envs, "ppo", total_steps=16, settings=settings)
    assert result.history.finished_episodes > 0


FLATTEN = gym.wrappers.FlattenObservation


def transformed(function, space):
    return lambda env: gym.wrappers.TransformObservation(env, function, space)


@pytest.mark.parametrize(
    ("space", "words", "wrap"),
    [
        (spaces.Dict({"position": VECTOR, "key": CHOICES}), "wrappers.FlattenObs", FLATTEN),
        (spaces.Tuple((CHOICES, FORCES)), "wrappers.FlattenObs", FLATTEN),
        (spaces.MultiDiscrete([2, 3]), "wrappers.FlattenObs", FLATTEN),
        (spaces.MultiBinary(3), "wrappers.FlattenObs", FLATTEN),
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), "GrayscaleObservation and Resize", FLATTEN),
        (spaces.Box(0.0, 1.0, ()), "wrappers.FlattenObs", FLATTEN),
        (spaces.Text(4), "wrappers.FlattenObs", FLATTEN),
        (
            spaces.Discrete(3, start=1),
            "TransformObservation(env, lambda state: state - 1, Discrete(3))",
            transformed(lambda state: state - 1, spaces.Discrete(3)),
        ),
        (
            spaces.Sequence(FORCES),
            "TransformObservation(env, function, space), whose function returns a vector",
            transformed(lambda s: np.array([len(s)], np.float32), spaces.Box(0, np.inf, (1,))),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_wrapper_that_is_recommended_for_observations_works(space, words, wrap):
    text = advice(space, CHOICES)
    assert words in text
    assert ("FlattenObservation" in text) == (wrap is FLATTEN)
    assert ("GrayscaleObservation and ResizeObservation" in text) == (space.shape == (4, 4, 3))
    train_a_little(lambda: wrap(Odd(space, CHOICES)))


def test_the_wrappers_for_images_work():
    def small():
        env = Odd(spaces.Box(0, 255, (40, 40, 3), np.uint8), CHOICES)
        env = gym.wrappers.GrayscaleObservation(env)
        try:
            env = gym.wrappers.ResizeObservation(env, (8, 8))
        except gym.error.DependencyNotInstalled:
            pytest.skip("ResizeObservation needs opencv")
        return gym.wrappers.FlattenObservation(env)

    train_a_little(small)


@pytest.mark.parametrize(
    ("space", "chosen", "function"),
    [
        (spaces.MultiDiscrete([2, 3]), spaces.Discrete(6), lambda a: np.unravel_index(a, (2, 3))),
        (
            spaces.MultiBinary(3),
            spaces.Discrete(8),
            lambda a: np.array([int(a) >> bit & 1 for bit in range(3)], np.int8),
        ),
        (spaces.Tuple((CHOICES, CHOICES)), spaces.Discrete(16), lambda a: divmod(int(a), 4)),
        (spaces.Dict({"go": CHOICES}), CHOICES, lambda a: {"go": a}),
        (spaces.Discrete(4, start=-1), CHOICES, lambda a: a - 1),
        (spaces.Box(0, 5, (2,), np.int64), FORCES, lambda a: np.round(2 * a + 2).astype(int)),
        (spaces.Box(-1.0, 1.0, (2, 2)), spaces.Box(-1.0, 1.0, (4,)), lambda a: a.reshape(2, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_wrapper_that_is_recommended_for_actions_works(space, chosen, function):
    assert "gymnasium.wrappers.TransformAction(env, function, space)" in advice(FORCES, space)

    def taken(action):
        action = function(action)
        return np.array(action) if isinstance(space, spaces.MultiDiscrete) else action

    train_a_little(lambda: gym.wrappers.TransformAction(Odd(FORCES, space), taken, chosen))


@pytest.mark.parametrize(
    ("observation_space", "action_space", "hidden_sizes", "words"),
    [
        (spaces.Discrete(10**9), CHOICES, (64,), r"4,000,000,000.*allows 50,000,000.*Transform"),
        (STATES, spaces.Discrete(10**9), (64,), "6,000,000,000"),
        (VECTOR, spaces.Discrete(10**9), (64,), "65,000,000,256.*hidden_sizes"),
        (spaces.Discrete(10**9), FORCES, (64,), "2,000,000,000"),
        (spaces.Box(0, 1, (10**6,)), CHOICES, (64,), "64,000,324.*hidden_sizes"),
        (VECTOR, CHOICES, (100_000, 100_000), "hidden_sizes"),
        (VECTOR, spaces.Box(-1, 1, (10**6,)), (64,), "65,000,256"),
    ],
)
def test_a_network_too_large_is_refused_at_once(
    observation_space, action_space, hidden_sizes, words
):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=words):
            make_policy(
                observation_space, action_space, np.random.default_rng(0), hidden_sizes=hidden_sizes
            )
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_a_box_of_whole_numbers_can_be_observed_like_other_numbers():
    policy = make_policy(spaces.Box(0, 5, (2,), np.int64), CHOICES, np.random.default_rng(0))
    assert policy.act(np.array([[1, 4]])).shape == (1,)


PAIRS = [(VECTOR, CHOICES), (VECTOR, FORCES), (STATES, CHOICES), (STATES, FORCES)]


@pytest.mark.parametrize(("observation_space", "action_space"), PAIRS, ids=str)
def test_a_policy_fits_the_spaces_it_was_made_for_and_no_others(observation_space, action_space):
    """Others: another width, number of states, of actions, or kind of either."""
    rng = np.random.default_rng(9)
    policy = make_policy(observation_space, action_space, rng, hidden_sizes=(8, 8))
    require_fit(policy, observation_space, action_space)
    one_more_or_less = [
        *((spaces.Box(-1.0, 1.0, (n,)), action_space) for n in (2, 4)),
        *((spaces.Discrete(n), action_space) for n in (5, 7)),
        *((observation_space, spaces.Box(-1.0, 1.0, (n,))) for n in (1, 3)),
        *((observation_space, spaces.Discrete(n)) for n in (3, 5)),
    ]
    of_another_kind = [pair for pair in PAIRS if pair != (observation_space, action_space)]
    for other in one_more_or_less + of_another_kind:
        with pytest.raises(ValueError, match="does not fit the observation space") as caught:
            require_fit(policy, *other)
        assert all(str(space) in str(caught.value) for space in other)


def test_only_box_observations_have_statistics():
    statistics = empty_statistics(VECTOR)
    assert statistics.count == 0
    assert statistics.mean.shape == statistics.variance.shape == (3,)
    with pytest.raises(ValueError, match=r"normalize_observations .* Discrete\(6\)"):
        empty_statistics(STATES)


# ------------------------------------------------------------ observations


def by_hand(observations):
    return (observations - STATISTICS.mean) / np.sqrt(STATISTICS.variance)


def test_observations_are_normalised_exactly_once():
    rng = np.random.default_rng(5)
    observations = rng.normal(size=(7, 3)) + STATISTICS.mean
    copy = observations.copy()
    policy = linear_policy(STATISTICS)
    logits = by_hand(observations) @ policy.parameters.reshape(3, 2)
    np.testing.assert_allclose(policy(observations).eta, logits, rtol=1e-12)
    np.testing.assert_array_equal(policy.act(observations), logits.argmax(axis=1))
    critic = Critic(Linear(3, 1), np.array([1.0, 2.0, 3.0]), STATISTICS)
    values = by_hand(observations) @ [1.0, 2.0, 3.0]
    np.testing.assert_allclose(critic.values(observations), values, rtol=1e-12)
    np.testing.assert_allclose(critic.forward(observations)[0], values, rtol=1e-12)
    np.testing.assert_array_equal(observations, copy)


def test_wild_observations_are_clipped_before_the_network():
    critic = Critic(Linear(3, 1), np.array([1.0, 2.0, 3.0]), STATISTICS)
    np.testing.assert_allclose(critic.values(np.array([[1e9, 1e9, -1e9]])), [10 + 20 - 30])


# ------------------------------------------------------------ acting, derivatives


def test_without_a_generator_the_mode_with_one_a_sample():
    policy = linear_policy()
    observations = np.repeat([[0.3, -0.2, 0.1]], 20_000, axis=0)
    distribution = policy(observations[:1])
    assert set(policy.act(observations)) == {distribution.mode()[0]}
    sampled = policy.act(observations, np.random.default_rng(6))
    three_sigma(sampled[:, None] == [0, 1], distribution.probs[0])
    np.testing.assert_array_equal(sampled, policy.act(observations, np.random.default_rng(6)))


@pytest.mark.parametrize("action_space", [CHOICES, FORCES])
def test_the_policys_products_are_derivatives_of_eta(action_space):
    rng = np.random.default_rng(7)
    policy = make_policy(VECTOR, action_space, rng, hidden_sizes=(5,), dtype="float64")
    policy = policy.with_observation_statistics(STATISTICS)
    observations = rng.normal(size=(7, 3))
    distribution, cache = policy.forward(observations)
    direction, d_eta = rng.normal(size=policy.parameters.shape), rng.normal(size=(7, 4))
    ahead, behind = (
        policy.with_parameters(policy.parameters + h * direction)(observations).eta
        for h in (1e-6, -1e-6)
    )
    truth = (ahead - behind) / 2e-6
    np.testing.assert_allclose(policy.jvp(cache, direction), truth, atol=1e-8)
    backward = policy.vjp(cache, d_eta) @ direction
    np.testing.assert_allclose(backward, (d_eta * truth).sum(), rtol=1e-6)
    assert distribution.eta.shape == (7, 4)


def test_the_critics_product_is_the_derivative_of_its_values():
    rng = np.random.default_rng(8)
    critic = make_critic(VECTOR, rng, hidden_sizes=(5,), dtype="float64")
    observations, d_values = rng.normal(size=(7, 3)), rng.normal(size=7)
    values, cache = critic.forward(observations)
    assert values.shape == (7,)
    truth = gradient_by_differences(
        lambda theta: d_values @ critic.with_parameters(theta).values(observations),
        critic.parameters,
    )
    np.testing.assert_allclose(critic.vjp(cache, d_values), truth, atol=1e-7)


# ------------------------------------------------------------ new ones from old ones


@pytest.mark.parametrize(
    "old", [linear_policy(), Critic(Linear(3, 1), np.ones(3))], ids=["policy", "critic"]
)
def test_new_parameters_and_statistics_leave_the_old_one_untouched(old):
    before = old.parameters.copy()
    other = old.with_parameters(old.parameters + 1.0)
    normalised = other.with_observation_statistics(STATISTICS)
    np.testing.assert_array_equal(old.parameters, before)
    np.testing.assert_array_equal(other.parameters, before + 1.0)
    assert old.observation_statistics is None
    assert other.observation_statistics is None
    assert normalised.observation_statistics is STATISTICS
    assert normalised.with_parameters(before).observation_statistics is STATISTICS
    assert normalised.network is old.network
    with pytest.raises(AttributeError):
        old.parameters = before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_new_parameters_take_the_networks_dtype_and_are_copied_only_for_it(dtype):
    """A NumPy number among the hyperparameters makes float64 of a float32 step."""
    rng = np.random.default_rng(11)
    for old in (
        make_policy(VECTOR, CHOICES, rng, dtype=dtype),
        make_critic(VECTOR, rng, dtype=dtype),
    ):
        assert old.with_parameters(old.parameters * np.float64(0.5)).parameters.dtype == dtype
        assert old.with_parameters(old.parameters.astype("float32")).parameters.dtype == dtype
        theta = old.parameters + 1
        assert old.with_parameters(theta).parameters is theta


@pytest.mark.parametrize("observation_space", [VECTOR, STATES])
@pytest.mark.parametrize("action_space", [CHOICES, FORCES])
def test_one_observation_gets_one_action(observation_space, action_space):
    rng = np.random.default_rng(0)
    policy = make_policy(observation_space, action_space, rng)
    observations = observations_of(observation_space, rng)
    for seed in (None, 3):
        first, many = (
            policy.act(given, None if seed is None else np.random.default_rng(seed))
            for given in (observations[0], observations[:1])
        )
        np.testing.assert_array_equal(first, many[0])
        assert action_space.contains(first) or action_space is FORCES
        assert np.shape(first) == action_space.shape
    if observation_space is STATES:
        assert policy.act(int(observations[0])).shape == action_space.shape
