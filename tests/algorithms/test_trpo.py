"""TRPO: the step length, the promise kept after every update, the refused search."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import chain_mdp, exact_batch, learning_problem, logits_of, table_policy
from hypothesis import given, settings
from hypothesis import strategies as st

import minirl  # noqa: F401  (registers the environments)
from minirl.algorithms import TRPO
from minirl.algorithms.natural_gradient import fisher_vector_product, natural_direction
from minirl.algorithms.policy_gradient import policy_gradient_loss
from minirl.algorithms.trpo import full_step, trust_region_search
from minirl.exact import tabular

RNG = np.random.default_rng


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([1e-3, 1e-2, 0.1, 1.0]),
    st.sampled_from(["float32", "float64"]),
)
def test_the_constraint_holds_and_the_surrogate_improves_after_every_update(
    seed, box, max_kl, dtype
):
    policy, batch = learning_problem(seed, continuous=box, dtype=dtype)
    algorithm = TRPO(max_kl=max_kl)
    state = algorithm.init(policy)
    for _ in range(3):
        old = state.policy(batch.observations)
        batch = replace(batch, log_probs=old.log_prob(batch.actions))
        before = state.policy.parameters
        state, metrics = algorithm.update(state, batch, RNG(0))
        new = state.policy(batch.observations)
        kl = old.kl(new).mean()
        assert state.policy.parameters.dtype == dtype
        assert kl <= max_kl * (1 + 1e-5)
        assert np.isclose(metrics["kl"], kl, rtol=1e-3, atol=1e-6)
        if metrics["accepted_fraction"] > 0:
            assert metrics["surrogate_improvement"] > 0
        else:
            assert state.policy.parameters is before


def test_the_full_step_meets_the_quadratic_model_of_the_kl():
    policy, batch = learning_problem(1)
    old, cache = policy.forward(batch.observations)
    gradient = -policy.vjp(cache, policy_gradient_loss(old, batch)[1])
    for iterations in (2, 50):
        solution = natural_direction(
            policy, cache, old, batch, gradient, damping=0.1, iterations=iterations
        )
        step = full_step(solution, damping=0.1, max_kl=0.02)
        fisher = fisher_vector_product(policy, cache, old, batch.weight, step)
        assert np.isclose(0.5 * step @ fisher, 0.02, rtol=1e-9)


def test_undamped_exact_weights_step_along_the_exact_natural_gradient():
    mdp = chain_mdp()
    policy = table_policy(mdp, RNG(3))
    algorithm = TRPO(damping=0.0, cg_iterations=50, max_kl=1e-3)
    state, _ = algorithm.update(algorithm.init(policy), exact_batch(mdp, policy), RNG(0))
    step = state.policy.parameters - policy.parameters
    truth = tabular.natural_gradient(mdp, logits_of(mdp, policy)).ravel()
    cosine = step @ truth / np.linalg.norm(step) / np.linalg.norm(truth)
    assert cosine > 1 - 1e-10


def test_a_refused_search_leaves_the_parameters_unchanged():
    policy, batch = learning_problem(5)
    # Only the full step is tried, and its true KL is beyond the quadratic model's 3 nats.
    algorithm = TRPO(max_kl=3.0, damping=1e-3, cg_iterations=50, line_search_tries=1)
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(0))
    assert metrics["accepted_fraction"] == 0
    assert state.policy.parameters is policy.parameters
    assert metrics["kl"] == 0
    assert metrics["expected_improvement"] == 0
    products_and_one_try = metrics["cg_iterations"] * 4 / 3 + 1 / 3
    assert np.isclose(metrics["gradient_equivalents"], len(batch) * (1 + products_and_one_try))
    # With more tries the same step is accepted in part: the refusal above was the search's doing.
    more = TRPO(max_kl=3.0, damping=1e-3, cg_iterations=50, line_search_tries=20)
    assert 0 < more.update(more.init(policy), batch, RNG(0))[1]["accepted_fraction"] < 1


def test_the_search_says_why_it_refused_and_allows_the_bound_itself():
    policy, batch = learning_problem(5)
    old, cache = policy.forward(batch.observations)
    uphill = -policy.vjp(cache, policy_gradient_loss(old, batch)[1])
    step = 1e-2 * uphill / np.linalg.norm(uphill)
    new, _ = policy.with_parameters(policy.parameters + step).forward(batch.observations)
    kl = float(batch.weight @ old.kl(new))

    def search(step, max_kl):
        return trust_region_search(policy, old, batch, step, max_kl=max_kl, shrink=0.5, tries=2)

    assert search(step, kl) == (1.0, ())
    assert search(step, kl / 2) == (0.5, ("KL above max_kl",))
    assert search(-step, kl) == (0.0, ("surrogate not improved",) * 2)


@pytest.mark.parametrize("n", [1, 16])
def test_constant_advantages_and_batches_of_one_move_nothing_and_stay_finite(n):
    policy, batch = learning_problem(6, n=n)
    batch = replace(batch, advantages=np.ones(n))
    algorithm = TRPO(normalize_advantages=True)
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(0))
    assert state.policy.parameters is policy.parameters
    assert np.isfinite(list(metrics.values())).all()
