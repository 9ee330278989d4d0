"""The KL to a reference as a loss: derivatives by differences, expectations by enumeration."""

import numpy as np
import pytest
from helpers import gradient_by_differences, make_batch

from minirl import PPO
from minirl.algorithms.reference_loss import ReferenceLoss
from minirl.distributions import Categorical
from minirl.networks import Table
from minirl.policy import Policy

RNG = np.random.default_rng(0)
ETA, OLD, REFERENCE = RNG.normal(size=(3, 1, 4))
ALL = np.arange(4)


def policy_of(eta):
    return Policy(Table(1, 4), Categorical, eta.ravel())


def batch_of(actions, weight, old=OLD):
    states = np.zeros(len(actions), dtype=int)
    log_probs = policy_of(old)(states).log_prob(actions)
    columns = {"observations": states, "actions": actions, "log_probs": log_probs}
    return make_batch(len(actions), weight=weight, **columns)


def loss_of(term, eta, batch):
    return term.loss(Categorical(np.repeat(eta, len(batch), axis=0)), batch)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_derivative_is_the_finite_difference(estimator, weighted):
    term = ReferenceLoss(estimator, 0.3, policy_of(REFERENCE), importance_weighted=weighted)
    batch = batch_of(np.array([0, 2, 2]), np.array([0.5, 1.0, 2.0]))
    _, d_eta = loss_of(term, ETA, batch)
    numeric = gradient_by_differences(lambda eta: loss_of(term, eta, batch)[0], ETA, step=1e-6)
    np.testing.assert_allclose(d_eta.sum(axis=0, keepdims=True), numeric, rtol=0, atol=1e-8)


def gradient_of_kl(first, second, wrt):
    kl = Categorical(first).grad_kl(Categorical(second), wrt=wrt)
    return kl[0]


@pytest.mark.parametrize(
    ("estimator", "weighted", "expected"),
    [
        ("k1", False, np.zeros(4)),
        ("k2", False, gradient_of_kl(ETA, REFERENCE, "self")),  # KL(pi || ref)
        ("k3", False, gradient_of_kl(REFERENCE, ETA, "other")),  # KL(ref || pi)
        ("k1", True, gradient_of_kl(ETA, REFERENCE, "self")),
        ("k3", True, gradient_of_kl(ETA, REFERENCE, "self")),
    ],
)
def test_expected_gradients_of_samples_of_the_current_policy(estimator, weighted, expected):
    probs = Categorical(ETA).probs[0]
    term = ReferenceLoss(estimator, 1.0, policy_of(REFERENCE), importance_weighted=weighted)
    _, d_eta = loss_of(term, ETA, batch_of(ALL, probs, old=ETA))
    np.testing.assert_allclose(d_eta.sum(axis=0), expected, rtol=0, atol=1e-15)
    if not weighted:
        right = gradient_of_kl(ETA, REFERENCE, "self")
        assert (np.abs(d_eta.sum(axis=0) - right).max() > 0.01) == (estimator != "k2")


def test_the_reference_is_the_policy_at_the_start_unless_it_is_given():
    start, other = policy_of(ETA), policy_of(REFERENCE)
    assert PPO(penalty=ReferenceLoss()).init(start).penalty.reference is start
    given = ReferenceLoss(reference=other)
    assert PPO(penalty=given).init(start).penalty.reference is other
    with pytest.raises(ValueError, match="ReferenceLoss needs a reference"):
        loss_of(ReferenceLoss(), ETA, batch_of(ALL, np.ones(4)))


def test_ppo_steps_down_the_term():
    """Without advantages, the loss is the term alone: the policy moves to the reference."""
    term = ReferenceLoss("k2", 1.0, policy_of(REFERENCE))
    algorithm = PPO(penalty=term, epochs=1, minibatch_size=4, learning_rate=0.01)
    probs = Categorical(ETA).probs[0]
    state = algorithm.init(policy_of(ETA))
    after, _ = algorithm.update(state, batch_of(ALL, probs, old=ETA), np.random.default_rng(0))
    moved = after.policy.parameters - ETA.ravel()
    assert moved @ gradient_of_kl(ETA, REFERENCE, "self") < 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "k4"}, 'estimator must be "k1", "k2" or "k3", got .*k4'),
        ({"beta": 0.0}, "beta must be a finite number above 0, got 0.0"),
        ({"importance_weighted": 1}, "importance_weighted must be True or False, got 1"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(ValueError, match=message):
        ReferenceLoss(**options)
