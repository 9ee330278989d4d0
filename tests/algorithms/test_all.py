"""What all algorithms owe: metrics that are what the glossary says, schedules read at progress."""

from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from minirl.algorithms import PPO, TRPO, NaturalGradient, PolicyGradient
from minirl.batch import Batch
from minirl.critic_fit import CriticFit
from minirl.metrics import GLOSSARY
from minirl.optimizers import SGD, LinearSchedule
from minirl.policy import make_critic, make_policy

RNG = np.random.default_rng
STATES = spaces.Box(-1, 1, (4,))
ALGORITHMS = [
    PolicyGradient(learning_rate=0.05),
    NaturalGradient(step_size=1.0),
    TRPO(max_kl=0.05),
    PPO(learning_rate=0.02, epochs=3, minibatch_size=16),
]


def problem(n=48):
    rng = RNG(0)
    policy = make_policy(STATES, spaces.Discrete(3), rng, hidden_sizes=(8,), dtype="float64")
    policy = policy.with_parameters(0.7 * rng.standard_normal(policy.network.size))
    observations = rng.standard_normal((n, 4))
    actions = policy.act(observations, rng)
    weight = rng.uniform(0.5, 1.5, n)
    return policy, Batch(
        observations=observations,
        actions=actions,
        log_probs=policy.forward(observations)[0].log_prob(actions),
        values=np.zeros(n),
        advantages=rng.standard_normal(n),
        returns=rng.standard_normal(n),
        weight=weight / weight.sum(),
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_metrics_are_what_the_glossary_says(algorithm):
    policy, batch = problem()
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(1), 0.0)
    assert metrics.keys() <= GLOSSARY.keys()
    old, new = (some.forward(batch.observations)[0].probs for some in (policy, state.policy))
    kl = batch.weight @ (old * np.log(old / new)).sum(axis=1)
    reverse = batch.weight @ (new * np.log(new / old)).sum(axis=1)
    assert abs(kl - reverse) > 1e-4 * kl  # so that a swap would show
    assert np.isclose(metrics["kl"], kl, rtol=1e-9)
    assert np.isclose(metrics["entropy"], -(batch.weight @ (new * np.log(new)).sum(axis=1)))
    rows = np.arange(len(batch))
    ratio = new[rows, batch.actions] / old[rows, batch.actions]
    improvement = batch.weight @ ((ratio - 1) * batch.advantages)
    assert np.isclose(metrics["surrogate_improvement"], improvement)


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:3], ids=["NaturalGradient", "TRPO"])
def test_the_expected_improvement_is_that_of_a_linear_surrogate(algorithm):
    policy, batch = problem()
    if isinstance(algorithm, TRPO):
        small = replace(algorithm, max_kl=1e-8)
    else:
        small = replace(algorithm, step_size=1e-5)
    _, metrics = small.update(small.init(policy), batch, RNG(1), 0.0)
    assert np.isclose(metrics["expected_improvement"], metrics["surrogate_improvement"], rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda rate: PolicyGradient(learning_rate=rate, optimizer=SGD()), "policy"),
        (lambda rate: NaturalGradient(step_size=rate), "policy"),
        (lambda rate: PPO(learning_rate=rate, optimizer=SGD()), "policy"),
        (lambda rate: CriticFit(learning_rate=rate, optimizer=SGD()), "critic"),
    ],
    ids=["PolicyGradient", "NaturalGradient", "PPO", "CriticFit"],
)
def test_schedules_are_read_at_the_progress_of_training(make, field):
    policy, batch = problem()
    start = policy if field == "policy" else make_critic(STATES, RNG(2), dtype="float64")

    def parameters(rate):
        algorithm = make(rate)
        learn = algorithm.fit if field == "critic" else algorithm.update
        state, _ = learn(algorithm.init(start), batch, RNG(1), 0.75)
        return getattr(state, field).parameters

    assert np.array_equal(parameters(LinearSchedule(0.5, 0.0)), parameters(0.125))
    assert not np.array_equal(parameters(LinearSchedule(0.5, 0.0)), parameters(0.5))


@pytest.mark.parametrize(
    "algorithm",
    [
        TRPO(max_kl=np.float64(0.01)),
        NaturalGradient(step_size=np.float64(0.1)),
        PolicyGradient(learning_rate=np.float64(0.1), optimizer=SGD()),
        PPO(learning_rate=np.float64(0.1)),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_numpy_hyperparameters_do_not_change_the_networks_type(algorithm):
    policy, batch = problem()
    policy = make_policy(STATES, spaces.Discrete(3), RNG(3))
    state, _ = algorithm.update(algorithm.init(policy), batch, RNG(1), 0.0)
    assert state.policy.parameters.dtype == np.float32


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_a_switch_is_true_or_false(algorithm):
    with pytest.raises(ValueError, match="normalize_advantages must be True or False, got 'no'"):
        replace(algorithm, normalize_advantages="no")
