"""PPO: the clipped objective by hand and by differences, its reductions, its penalties."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import learning_problem, make_batch

from minirl.algorithms import PPO, PolicyGradient
from minirl.algorithms.policy_gradient import surrogate
from minirl.algorithms.ppo import (
    AdaptiveKL,
    Clipped,
    FixedKL,
    Unclipped,
    clipped_surrogate_loss,
    kl_to_old_policy,
)
from minirl.checks import finite_difference
from minirl.distributions import Categorical, DiagonalGaussian
from minirl.optimizers import SGD

RNG = np.random.default_rng


def test_the_clipped_objective_by_hand():
    """Six cases, epsilon 0.2: both signs of the advantage, ratio below, inside and above."""
    advantages = np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    ratio = np.array([0.5, 1.1, 1.5, 0.5, 0.9, 1.5])
    batch = make_batch(6, advantages=advantages, weight=np.ones(6))
    loss, d_log_prob = clipped_surrogate_loss(ratio, batch, 0.2)
    assert np.isclose(-loss, 0.5 + 1.1 + 1.2 - 0.8 - 0.9 - 1.5)
    # Zero only where the ratio has gone too far in the direction its advantage asks for.
    assert np.allclose(d_log_prob, [-0.5, -1.1, 0, 0, 0.9, 1.5])


@pytest.mark.parametrize("epsilon", [0.2, np.inf])
def test_its_derivative_against_finite_differences(epsilon):
    rng = RNG(0)
    log_ratio = rng.uniform(-0.6, 0.6, 40)
    ratio = np.exp(log_ratio)
    away_from_kinks = np.abs(np.abs(ratio - 1) - 0.2) > 1e-3
    log_ratio = log_ratio[away_from_kinks]
    n = len(log_ratio)
    batch = make_batch(n, advantages=rng.standard_normal(n), weight=rng.uniform(0.1, 1, n))

    def loss(log_ratio):
        return clipped_surrogate_loss(np.exp(log_ratio), batch, epsilon)[0]

    truth = [finite_difference(loss, log_ratio, unit) for unit in np.eye(len(log_ratio))]
    found = clipped_surrogate_loss(np.exp(log_ratio), batch, epsilon)[1]
    assert np.allclose(found, truth, atol=1e-8)


@pytest.mark.parametrize("kind", [Categorical, DiagonalGaussian])
def test_the_kl_penalty_is_kl_old_new_with_its_derivative(kind):
    rng = RNG(1)
    old, eta = kind(rng.standard_normal((7, 4))), rng.standard_normal((7, 4))
    weight = rng.uniform(0.1, 1, 7)
    assert np.isclose(
        kl_to_old_policy(old, kind(eta), weight, 3.0)[0], 3 * (weight @ old.kl(kind(eta)))
    )
    direction = rng.standard_normal(eta.shape)
    truth = finite_difference(
        lambda eta: kl_to_old_policy(old, kind(eta), weight, 3.0)[0], eta, direction
    )
    found = kl_to_old_policy(old, kind(eta), weight, 3.0)[1]
    assert np.isclose((found * direction).sum(), truth, atol=1e-8)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_unclipped_single_pass_is_the_policy_gradient(continuous, normalize):
    policy, batch = learning_problem(2, continuous=continuous)
    common = {"learning_rate": 0.1, "normalize_advantages": normalize, "entropy_coefficient": 0.01}
    ppo = PPO(objective=Unclipped(), epochs=1, minibatch_size=len(batch), **common)
    gradient = PolicyGradient(**common)
    by_ppo, _ = ppo.update(ppo.init(policy), batch, RNG(0))
    by_gradient, _ = gradient.update(gradient.init(policy), batch, RNG(0))
    assert not np.allclose(by_ppo.policy.parameters, policy.parameters, atol=1e-3)
    assert np.allclose(by_ppo.policy.parameters, by_gradient.policy.parameters, atol=1e-12)


def test_the_first_step_of_every_objective_is_the_policy_gradient():
    """At the old policy nothing is clipped, and the gradient of the KL penalty is zero."""
    first = [
        run(objective, epochs=1, minibatch_size=64, optimizer=SGD())[0].policy.parameters
        for objective in (Clipped(0.2), Unclipped(), FixedKL(5.0), AdaptiveKL(0.01, beta=5.0))
    ]
    assert np.allclose(first, first[0], atol=1e-12)


def run(objective, epochs=30, minibatch_size=16, **fields):
    policy, batch = learning_problem(4)
    fields = {"epochs": epochs, "minibatch_size": minibatch_size, "learning_rate": 0.02} | fields
    ppo = PPO(objective=objective, **fields)
    return ppo.update(ppo.init(policy), batch, RNG(0))


def test_clipping_and_penalties_hold_the_policy_near_the_old_one():
    free = run(Unclipped())[1]["kl"]
    assert run(Clipped(0.2))[1]["kl"] < free / 3
    weak, strong = run(FixedKL(0.3))[1]["kl"], run(FixedKL(10.0))[1]["kl"]
    assert strong < weak < free
    assert strong < free / 30


def test_the_adaptive_coefficient_follows_the_papers_rule():
    rule = AdaptiveKL(target=0.03, beta=1.0)
    assert rule.next_beta(1.0, 0.0199) == 0.5
    assert rule.next_beta(1.0, 0.0201) == 1.0
    assert rule.next_beta(1.0, 0.0449) == 1.0
    assert rule.next_beta(1.0, 0.0451) == 2.0
    for edge in (2.0, 4.5):
        assert AdaptiveKL(target=3.0).next_beta(1.0, edge) == 1.0
    state, metrics = run(AdaptiveKL(target=1e-9, beta=1.5))
    assert metrics["kl_coefficient"] == 1.5
    assert state.beta == 3.0


def test_the_adaptive_coefficient_recovers_from_any_run_of_small_or_large_updates():
    rule = AdaptiveKL(target=0.03, beta=3.0)
    for kl, bound, back in ((0.0, 3.0 / 2**20, 1.0), (1.0, 3.0 * 2**20, 0.0)):
        beta = 3.0
        for _ in range(1_100):
            beta = rule.next_beta(beta, kl)
        assert beta == bound
        for _ in range(20):
            beta = rule.next_beta(beta, back)
        assert beta == 3.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_infinite_ratio_has_the_derivatives_limit(dtype):
    """Zero where the advantage is not below 0: the ratio has left the interval, or weighs 0."""
    advantages, ratio = np.array([1.0, 1e6, 0.0, -1.0], dtype), np.full(4, np.inf, dtype)
    batch = make_batch(4, dtype, advantages=advantages, weight=np.ones(4, dtype))
    with np.errstate(over="ignore"):  # as in `train`
        loss, d_log_prob = clipped_surrogate_loss(ratio, batch, 0.2)
        finite, _ = clipped_surrogate_loss(ratio[:3], batch.rows(slice(3)), 0.2)
        moved = surrogate(ratio[:3], make_batch(3))
    assert d_log_prob[:3].tolist() == [0, 0, 0]
    assert d_log_prob.dtype == dtype
    assert d_log_prob[3] > 1e38
    assert loss > 1e38
    assert np.isclose(finite, -1.2 * (1 + 1e6))
    assert moved == 0


def test_without_an_entropy_bonus_an_action_may_be_ruled_out():
    """A logit of -inf, for which the entropy has no gradient that a computer could find."""
    policy, batch = learning_problem(4)
    theta = policy.parameters.copy()
    theta[-1] = -np.inf
    policy = policy.with_parameters(theta)
    new = policy(batch.observations)
    actions = np.minimum(batch.actions, 1)
    batch = replace(batch, actions=actions, log_probs=new.log_prob(actions))
    algorithm = PPO(objective=Unclipped())
    state, norm, _ = algorithm.step(algorithm.init(policy), batch, None)
    assert np.isfinite(norm)
    np.testing.assert_array_equal(np.isfinite(state.policy.parameters), np.isfinite(theta))


def test_training_stops_after_the_epoch_that_passes_the_target():
    metrics = run(Unclipped(), target_kl=0.05)[1]
    assert 1 <= metrics["epochs"] < 30
    assert metrics["kl"] > 0.05
    one_less = (
        run(Unclipped(), epochs=int(metrics["epochs"]) - 1)[1] if metrics["epochs"] > 1 else None
    )
    assert one_less is None or one_less["kl"] <= 0.05
    # a forward pass after each epoch decides whether to stop: a third of a gradient
    assert np.isclose(metrics["gradient_equivalents"], metrics["epochs"] * 64 * 4 / 3)


def test_a_kl_equal_to_the_target_has_not_passed_it():
    after_one = run(Unclipped(), epochs=1)[1]["kl"]
    assert run(Unclipped(), epochs=2, target_kl=after_one)[1]["epochs"] == 2
    assert run(Unclipped(), epochs=2, target_kl=after_one * 0.999)[1]["epochs"] == 1


def test_clip_fraction_counts_ratios_outside_the_interval():
    assert run(Clipped(0.2), epochs=1, minibatch_size=64)[1]["clip_fraction"] == 0
    assert run(Clipped(1e-4))[1]["clip_fraction"] > 0.5
    assert run(Unclipped())[1]["clip_fraction"] == 0


def test_the_clip_fraction_by_hand():
    """Ratios 1, 1.5, 0.8 and 2 and epsilon 0.5: the edge is inside, only the last outside."""
    policy, batch = learning_problem(9, n=4)
    log_probs = batch.log_probs - np.log([1.0, 1.5, 0.8, 2.0])
    edge = np.exp(batch.log_probs - log_probs)[1]  # 1.5 to the last bit
    ppo = PPO(objective=Clipped(edge - 1))
    batch = replace(batch, log_probs=log_probs)
    _, _, clip_fraction = ppo.step(ppo.init(policy), batch, None)
    assert clip_fraction == 0.25


def test_each_minibatch_gets_the_old_distributions_of_its_own_rows():
    policy, batch = learning_problem(8)

    class Watching(PPO):
        def step(self, state, minibatch, old):
            first = policy(minibatch.observations)
            assert np.allclose(old.eta, first.eta)
            return super().step(state, minibatch, old)

    ppo = Watching(objective=FixedKL(1.0), epochs=2, minibatch_size=10)
    ppo.update(ppo.init(policy), batch, RNG(0))
