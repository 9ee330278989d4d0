"""What all algorithms owe: honest metrics, and hyperparameters that do what they say."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from gymnasium import spaces
from helpers import learning_problem, make_batch

from minirl.algorithms import PPO, TRPO, NaturalGradient, PolicyGradient
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL
from minirl.checks import finite_difference
from minirl.critic_fit import CriticFit, TableFit
from minirl.distributions import DiagonalGaussian
from minirl.networks import MLP, WithLogStd
from minirl.optimizers import SGD, Adam, LinearSchedule, at_progress
from minirl.policy import Policy, make_critic
from minirl.support.metrics import GLOSSARY

RNG = np.random.default_rng
STATES = spaces.Box(-1, 1, (4,))
ALGORITHMS = [
    PolicyGradient(learning_rate=0.05),
    NaturalGradient(step_size=1.0),
    TRPO(max_kl=0.05),
    PPO(learning_rate=0.02, epochs=3, minibatch_size=16),
]


def problem(n=48):
    policy, batch = learning_problem(0, n=n)
    rng = RNG(1)
    weight = rng.uniform(0.5, 1.5, n)
    return policy, replace(batch, returns=rng.standard_normal(n), weight=weight / weight.sum())


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_metrics_are_what_the_glossary_says(algorithm):
    policy, batch = problem()
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(1))
    assert metrics.keys() <= GLOSSARY.keys()
    old, new = (some(batch.observations).probs for some in (policy, state.policy))
    kl = batch.weight @ (old * np.log(old / new)).sum(axis=1)
    reverse = batch.weight @ (new * np.log(new / old)).sum(axis=1)
    assert abs(kl - reverse) > 1e-4 * kl  # so that a swap would show
    assert np.isclose(metrics["kl"], kl, rtol=1e-9)
    assert np.isclose(metrics["entropy"], -(batch.weight @ (new * np.log(new)).sum(axis=1)))
    rows = np.arange(len(batch))
    ratio = new[rows, batch.actions] / old[rows, batch.actions]
    improvement = batch.weight @ ((ratio - 1) * batch.advantages)
    assert np.isclose(metrics["surrogate_improvement"], improvement)


def gaussian_problem(log_std, squared, min_log_std=-1.0, n=48):
    """Two action components; advantages reward deviations from the mean, or their absence."""
    rng = RNG(2)
    network = WithLogStd(MLP((4, 6, 2), dtype="float64"), 2, 0.0, min_log_std)
    theta = 0.7 * rng.standard_normal(network.size)
    theta[-2:] = log_std
    policy = Policy(network, DiagonalGaussian, theta)
    observations = rng.standard_normal((n, 4))
    old = policy(observations)
    actions = old.sample(rng)
    deviation = (((actions - old.mean) * np.exp(-old.log_std)) ** 2).sum(axis=1) - 2
    return policy, make_batch(
        n,
        observations=observations,
        actions=actions,
        log_probs=old.log_prob(actions),
        advantages=squared * deviation,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_a_bound_on_log_std_holds_exactly_and_can_be_left(algorithm):
    log_std = np.array([-1.0, -0.98])  # at the bound, and just above it
    policy, batch = gaussian_problem(log_std, squared=-1)
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(1))
    np.testing.assert_array_equal(state.policy.parameters[-2:], -1.0)
    assert metrics["smallest_std"] == np.exp(-1.0)
    # The reported KL is that of the projected policy, and TRPO's is within its bound.
    old, new = (some(batch.observations) for some in (policy, state.policy))
    variances = np.exp(2 * (old.log_std - new.log_std))
    squares = ((old.mean - new.mean) * np.exp(-new.log_std)) ** 2
    kl = 0.5 * (variances - 1 - np.log(variances) + squares).sum(axis=1)
    assert np.isclose(metrics["kl"], batch.weight @ kl, rtol=1e-9)
    if isinstance(algorithm, TRPO):
        assert 0 < metrics["kl"] <= algorithm.max_kl
    # Without the bound both fall below it; where deviations pay, both leave it.
    free, _ = gaussian_problem(log_std, squared=-1, min_log_std=None)
    state, metrics = algorithm.update(algorithm.init(free), batch, RNG(1))
    assert (state.policy.parameters[-2:] < -1).all()
    assert metrics["smallest_std"] == np.exp(state.policy.parameters[-2:].min())
    policy, batch = gaussian_problem(log_std, squared=1)
    state, _ = algorithm.update(algorithm.init(policy), batch, RNG(1))
    assert (state.policy.parameters[-2:] > log_std).all()


@pytest.mark.parametrize("episodes", [None, np.repeat(np.arange(12), 4)], ids=["rows", "episodes"])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_reported_means_do_not_depend_on_the_sum_of_the_weights(algorithm, episodes):
    """As with `discount_states`, whose weights sum to a tenth or less."""
    policy, batch = problem()
    total = 1.0 if episodes is None else 4.0  # per state, or per episode of 4 states
    batch = replace(batch, weight=0.1 * batch.weight, episodes=episodes)
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(1))
    old, new = (some(batch.observations) for some in (policy, state.policy))
    weight = total * batch.weight / batch.weight.sum()
    assert metrics["kl"] > 1e-6
    assert np.isclose(metrics["kl"], weight @ old.kl(new), rtol=1e-9)
    assert np.isclose(metrics["entropy"], weight @ new.entropy(), rtol=1e-12)


@pytest.mark.parametrize(
    "algorithm",
    [TRPO(max_kl=0.01), PPO(target_kl=0.01, learning_rate=1e-2, optimizer=Adam(epsilon=1e-30))],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_bounds_do_not_depend_on_the_sum_of_the_weights(algorithm):
    """The same steps are taken: TRPO and Adam, but for its epsilon, ignore the loss's scale."""
    policy, batch = problem()
    once, other = (
        algorithm.update(
            algorithm.init(policy), replace(batch, weight=factor * batch.weight), RNG(1)
        )
        for factor in (1.0, 0.01)
    )
    assert np.isclose(once[1]["kl"], other[1]["kl"], rtol=1e-4)
    assert 0.005 < other[1]["kl"] < 0.05
    assert once[1].get("epochs", 2) == other[1].get("epochs", 2) in range(2, 10)
    assert np.allclose(once[0].policy.parameters, other[0].policy.parameters, atol=1e-4)


class CountedNetwork:
    """A network that counts its matrix products per layer and row."""

    def __init__(self, network):
        self.network, self.products, self.jvps = network, 0, 0
        self.dtype = network.dtype

    def forward(self, theta, x):
        self.products += len(x)
        return self.network.forward(theta, x)

    def vjp(self, cache, dy):
        self.products += 2 * len(dy)
        return self.network.vjp(cache, dy)

    def jvp(self, cache, dtheta):
        self.jvps += 1
        dy = self.network.jvp(cache, dtheta)
        self.products += 2 * len(dy)
        return dy


@pytest.mark.parametrize(
    ("algorithm", "reports"),
    [
        (PolicyGradient(), 1),
        (NaturalGradient(cg_iterations=4), 1),
        (TRPO(cg_iterations=4), 1),
        (PPO(epochs=3, minibatch_size=16), 2),
        (PPO(epochs=3, minibatch_size=16, target_kl=1.0), 2),
        (PPO(epochs=3, minibatch_size=16, objective=FixedKL(0.5)), 1),
        (PPO(epochs=3, minibatch_size=16, objective=AdaptiveKL(0.1, beta=0.5), target_kl=1.0), 1),
    ],
    ids=repr,
)
def test_gradient_equivalents_are_counted_matrix_products(algorithm, reports):
    """A gradient is three products; forward passes that only report what a step did are free."""
    policy, batch = problem()
    network = CountedNetwork(policy.network)
    policy = Policy(network, policy.distribution, policy.parameters)
    _, metrics = algorithm.update(algorithm.init(policy), batch, RNG(1))
    counted = (network.products - reports * len(batch)) / 3
    assert np.isclose(metrics["gradient_equivalents"], counted, rtol=1e-12)
    assert metrics.get("cg_iterations", 0) == network.jvps
    assert metrics.get("epochs", 3) == 3


@pytest.mark.parametrize(
    "algorithm",
    [*ALGORITHMS[:3], PPO(epochs=1, minibatch_size=48)],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_the_gradient_norm_is_that_of_the_surrogates_differences(algorithm):
    policy, batch = problem()

    def objective(theta):
        new, _ = policy.with_parameters(theta).forward(batch.observations)
        ratio = np.exp(new.log_prob(batch.actions) - batch.log_probs)
        return float((batch.weight * batch.advantages) @ ratio)

    units = np.eye(policy.network.size)
    truth = [finite_difference(objective, policy.parameters, unit) for unit in units]
    _, metrics = algorithm.update(algorithm.init(policy), batch, RNG(1))
    assert np.isclose(metrics["gradient_norm"], np.linalg.norm(truth), rtol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: type(algorithm).__name__)
def test_normalize_advantages_whitens_them_once_over_the_whole_batch(algorithm):
    policy, batch = problem()
    batch = replace(batch, advantages=3 + 5 * batch.advantages)
    white = (batch.advantages - batch.advantages.mean()) / batch.advantages.std()
    switched = replace(algorithm, normalize_advantages=True)
    by_switch, _ = switched.update(algorithm.init(policy), batch, RNG(1))
    by_hand, _ = algorithm.update(algorithm.init(policy), replace(batch, advantages=white), RNG(1))
    assert np.allclose(by_switch.policy.parameters, by_hand.policy.parameters, rtol=1e-6)
    without, _ = algorithm.update(algorithm.init(policy), batch, RNG(1))
    assert not np.allclose(without.policy.parameters, by_hand.policy.parameters, rtol=1e-3)


FIRST_ORDER = [
    PolicyGradient(learning_rate=0.5, optimizer=SGD()),
    PPO(learning_rate=0.5, optimizer=SGD(), epochs=1, minibatch_size=48),
]


@pytest.mark.parametrize("algorithm", FIRST_ORDER, ids=["PolicyGradient", "PPO"])
def test_the_entropy_bonus_adds_its_coefficient_times_the_gradient_of_the_mean_entropy(algorithm):
    policy, batch = problem()

    def entropy(theta):
        probs = policy.with_parameters(theta)(batch.observations).probs
        return -float(batch.weight @ (probs * np.log(probs)).sum(axis=1))

    units = np.eye(policy.network.size)
    truth = np.array([finite_difference(entropy, policy.parameters, unit) for unit in units])
    plain, _ = algorithm.update(algorithm.init(policy), batch, RNG(1))
    with_bonus = replace(algorithm, entropy_coefficient=0.3)
    state, _ = with_bonus.update(with_bonus.init(policy), batch, RNG(1))
    difference = state.policy.parameters - plain.policy.parameters
    assert np.allclose(difference, 0.5 * 0.3 * truth, atol=1e-9)


@pytest.mark.parametrize("algorithm", FIRST_ORDER, ids=["PolicyGradient", "PPO"])
def test_a_gradient_beyond_its_limit_is_shortened_and_reported_at_full_length(algorithm):
    policy, batch = problem()
    steps, norms = [], []
    for limit in (None, 0.01):
        limited = replace(algorithm, max_gradient_norm=limit)
        state, metrics = limited.update(limited.init(policy), batch, RNG(1))
        steps.append(state.policy.parameters - policy.parameters)
        norms.append(metrics["gradient_norm"])
    assert norms[0] == norms[1] > 0.1
    assert np.allclose(steps[1], steps[0] * (0.01 / norms[0]), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("learner", "steps"),
    [(PolicyGradient(), 1), (PPO(epochs=3, minibatch_size=16), 9), (CriticFit(epochs=2), 2)],
    ids=lambda value: type(value).__name__,
)
def test_the_optimizers_state_is_carried_from_update_to_update(learner, steps):
    """Adam's moments, one a parameter from the start, and its count of steps."""
    policy, batch = problem()
    critic = make_critic(STATES, RNG(2), dtype="float64")
    of_critic = isinstance(learner, CriticFit)
    learn, start = (learner.fit, critic) if of_critic else (learner.update, policy)
    state = learner.init(start)
    for done in range(3):
        assert state.optimizer.steps == done * steps
        assert state.optimizer.mean.shape == state.optimizer.square.shape == start.parameters.shape
        state, _ = learn(state, batch, RNG(1))


@pytest.mark.parametrize("make", [PolicyGradient, PPO, CriticFit], ids=lambda make: make.__name__)
@pytest.mark.parametrize("missing", ["init", "step"])
def test_an_optimizer_without_one_of_its_methods_is_refused(make, missing):
    only = type("Half", (), {name: lambda *_: None for name in {"init", "step"} - {missing}})()
    with pytest.raises(ValueError, match="^optimizer must be an object with init, step"):
        make(optimizer=only)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make, field.name)
        for make in (
            *(PolicyGradient, NaturalGradient, TRPO, PPO),
            *(Clipped, FixedKL, AdaptiveKL, CriticFit, TableFit),
        )
        for field in fields(make)
    ],
)
def test_every_hyperparameter_is_checked(make, name):
    """No field accepts nan; which numbers each check accepts is tested with the checks."""
    needed = {"target": 0.01} if make is AdaptiveKL else {}
    with pytest.raises(ValueError, match=f"^{name} must .*got .*nan"):
        make(**needed | {name: math.nan})


@pytest.mark.parametrize("shrink", [0.0, 1.0])
def test_a_line_search_must_shrink_the_step(shrink):
    with pytest.raises(ValueError, match=f"^line_search_shrink must .*got {shrink}"):
        TRPO(line_search_shrink=shrink)


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:3], ids=["NaturalGradient", "TRPO"])
def test_the_expected_improvement_is_that_of_a_linear_surrogate(algorithm):
    policy, batch = problem()
    if isinstance(algorithm, TRPO):
        small = replace(algorithm, max_kl=1e-8)
    else:
        small = replace(algorithm, step_size=1e-5)
    _, metrics = small.update(small.init(policy), batch, RNG(1))
    assert np.isclose(metrics["expected_improvement"], metrics["surrogate_improvement"], rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda rate: PolicyGradient(learning_rate=rate, optimizer=SGD()), "policy"),
        (lambda rate: NaturalGradient(step_size=rate), "policy"),
        (lambda rate: PPO(learning_rate=rate, optimizer=SGD()), "policy"),
        (lambda rate: CriticFit(learning_rate=rate, optimizer=SGD()), "critic"),
        (lambda weight: PolicyGradient(entropy_coefficient=weight, optimizer=SGD()), "policy"),
        (lambda weight: PPO(entropy_coefficient=weight, optimizer=SGD()), "policy"),
        (lambda epsilon: PPO(objective=Clipped(epsilon), learning_rate=0.05), "policy"),
    ],
    ids=[
        *("PolicyGradient", "NaturalGradient", "PPO", "CriticFit"),
        *("entropy in PolicyGradient", "entropy in PPO", "epsilon"),
    ],
)
def test_each_schedule_is_resolved_before_the_update(make, field):
    policy, batch = problem()
    start = policy if field == "policy" else make_critic(STATES, RNG(2), dtype="float64")

    def parameters(rate):
        algorithm = at_progress(make(rate), 0.75)
        learn = algorithm.fit if field == "critic" else algorithm.update
        state, _ = learn(algorithm.init(start), batch, RNG(1))
        return getattr(state, field).parameters

    assert np.array_equal(parameters(LinearSchedule(0.5, 0.0)), parameters(0.125))
    assert not np.array_equal(parameters(LinearSchedule(0.5, 0.0)), parameters(0.5))
    unresolved = make(LinearSchedule(0.5, 0.0))
    learn = unresolved.fit if field == "critic" else unresolved.update
    with pytest.raises(ValueError, match="replace it before the update"):
        learn(unresolved.init(start), batch, RNG(1))
