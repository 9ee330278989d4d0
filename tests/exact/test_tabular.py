"""The oracle for finite MDPs against sums over time, enumeration, derivatives and print."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import scipy.linalg
from helpers import gradient_by_differences
from hypothesis import given, settings
from hypothesis import strategies as st

import minirl.envs
from minirl.envs.chain import Chain
from minirl.envs.gridworld import GridWorld
from minirl.exact import tabular
from minirl.exact.tabular import (
    FiniteMDP,
    action_values,
    advantages,
    expected_gae,
    expected_return,
    finite_horizon_values,
    fisher_matrix,
    gae_variance,
    natural_gradient,
    optimal_values,
    performance_difference,
    policy_gradient,
    softmax_policy,
    state_kl,
    state_values,
    state_visitation,
    surrogate,
    trpo_lower_bound,
)

minirl.envs.register_environments()
seeds = st.integers(0, 2**32 - 1)


def random_mdp(rng, states=4, actions=3, discount=0.9):
    """Dense transitions that lose 5 to 15 % to termination, normal rewards."""
    outcomes = rng.dirichlet(np.ones(states), size=(states, actions))
    survival = rng.uniform(0.85, 0.95, size=(states, actions, 1))
    rewards = rng.normal(size=(states, actions))
    return FiniteMDP(outcomes * survival, rewards, rng.dirichlet(np.ones(states)), discount)


def random_policy(rng, mdp):
    return softmax_policy(rng.normal(size=mdp.rewards.shape))


def forward_distributions(mdp, policy, steps):
    """P(s_t = s, not yet terminated) for t = 0 .. steps - 1, by loops over single transitions."""
    states, actions = mdp.rewards.shape
    now, rows = mdp.start.copy(), []
    for _ in range(steps):
        rows.append(now)
        following = np.zeros(states)
        for s in range(states):
            for a in range(actions):
                following += now[s] * policy[s, a] * mdp.transitions[s, a]
        now = following
    return np.array(rows)


# ------------------------------------------------------------ reading environments


def test_terminations_become_missing_probability():
    mdp = FiniteMDP.from_gymnasium(Chain(length=2, slip=0.25), 0.9)
    right = [[0.0, 0.75], [0.25, 0.0]]
    np.testing.assert_array_equal(mdp.transitions[:, 1], right)
    np.testing.assert_allclose(mdp.rewards, [[0.075, 0.025], [0.25, 0.75]], rtol=1e-15)
    np.testing.assert_array_equal(mdp.start, [1.0, 0.0])


@pytest.mark.parametrize(
    ("identifier", "kwargs", "horizon", "within", "forever"),
    [
        ("FrozenLake-v1", {}, 100, 0.7442, 0.8235),
        ("FrozenLake-v1", {"map_name": "8x8"}, 200, 0.9132, 1.0),
        ("Taxi-v4", {}, 200, 7.93, 7.93),
        ("CliffWalking-v1", {}, 100, -13.0, -13.0),
    ],
)
def test_optima_of_gymnasium_environments(identifier, kwargs, horizon, within, forever):
    mdp = FiniteMDP.from_gymnasium(gymnasium.make(identifier, **kwargs), 1.0)
    values, policy = optimal_values(mdp)
    assert mdp.start @ finite_horizon_values(mdp, None, horizon) == pytest.approx(within, abs=6e-5)
    assert mdp.start @ values == pytest.approx(forever, abs=6e-5)
    assert expected_return(mdp, policy) == pytest.approx(mdp.start @ values, rel=1e-12)


def test_gridworld_has_the_optimal_values_in_print():
    """Utilities of the 4 x 3 world in Russell and Norvig's book, to the three digits printed."""
    values, policy = optimal_values(FiniteMDP.from_gymnasium(GridWorld(), 1.0))
    printed = [[0.812, 0.868, 0.918, 0], [0.762, 0, 0.660, 0], [0.705, 0.655, 0.611, 0.388]]
    np.testing.assert_allclose(values.reshape(3, 4), printed, atol=5.1e-4)
    np.testing.assert_array_equal(policy[[0, 1, 2, 4, 8]].argmax(1), [2, 2, 2, 3, 3])


def test_endless_chain_is_a_geometric_series():
    mdp = FiniteMDP.from_gymnasium(Chain(endless=True), 0.95)
    np.testing.assert_allclose(state_values(mdp, np.full((5, 2), 0.5)), 20.0, rtol=1e-13)
    np.testing.assert_allclose(optimal_values(mdp)[0], 20.0, rtol=1e-13)


# ------------------------------------------------------------ values and visitation


@settings(max_examples=15, deadline=None)
@given(seed=seeds, discount=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_values_and_visitation_are_sums_over_time(seed, discount):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, discount=discount)
    policy = random_policy(rng, mdp)
    distributions = forward_distributions(mdp, policy, 400)
    powers = discount ** np.arange(400.0)
    earned = distributions @ (policy * mdp.rewards).sum(1)
    assert expected_return(mdp, policy) == pytest.approx(powers @ earned, abs=1e-9)
    np.testing.assert_allclose(state_visitation(mdp, policy), powers @ distributions, atol=1e-9)
    np.testing.assert_allclose(state_visitation(mdp, policy, 1.0), distributions.sum(0), atol=1e-9)


def test_values_advantages_and_backward_induction_agree():
    rng = np.random.default_rng(0)
    mdp = random_mdp(rng)
    policy = random_policy(rng, mdp)
    long_ago = finite_horizon_values(mdp, policy, 500)
    np.testing.assert_allclose(state_values(mdp, policy), long_ago, atol=1e-12)
    np.testing.assert_allclose((policy * action_values(mdp, policy)).sum(1), long_ago, atol=1e-12)
    np.testing.assert_allclose((policy * advantages(mdp, policy)).sum(1), 0.0, atol=1e-14)
    one_step = mdp.rewards + 0.9 * np.einsum("sat,t->sa", mdp.transitions, long_ago)
    np.testing.assert_allclose(action_values(mdp, policy), one_step, atol=1e-12)
    np.testing.assert_array_equal(finite_horizon_values(mdp, policy, 0), 0.0)
    np.testing.assert_allclose(finite_horizon_values(mdp, None, 1), mdp.rewards.max(1))


@settings(max_examples=15, deadline=None)
@given(seed=seeds, discount=st.sampled_from([0.5, 0.9, 1.0]))
def test_policy_iteration_finds_the_limit_of_value_iteration(seed, discount):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, discount=discount)
    values, policy = optimal_values(mdp)
    np.testing.assert_allclose(values, finite_horizon_values(mdp, None, 600), atol=1e-9)
    np.testing.assert_allclose(values, state_values(mdp, policy), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_policy_iteration_sees_small_differences_and_keeps_ties(scale):
    rewards = scale * np.array([[1.0, 1.0 + 1e-6], [2.0, 2.0], [0.0, 0.0]])
    mdp = FiniteMDP(np.zeros((3, 2, 3)), rewards, [1.0, 0.0, 0.0], 1.0)
    values, policy = optimal_values(mdp)
    np.testing.assert_array_equal(values, rewards.max(1))
    np.testing.assert_array_equal(policy, [[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])


def test_policy_iteration_walks_past_ties_at_discount_one():
    """Without slip and cost every safe detour ties: a greedy policy may circle for ever."""
    lake = gymnasium.make("FrozenLake-v1", map_name="8x8", is_slippery=False)
    mdp = FiniteMDP.from_gymnasium(lake, 1.0)
    values, policy = optimal_values(mdp)
    assert values[0] == pytest.approx(1.0)
    assert expected_return(mdp, policy) == pytest.approx(1.0)


def test_where_nothing_is_earned_the_uniform_policy_is_optimal():
    """Every action ties, at a margin of zero."""
    mdp = FiniteMDP(np.zeros((2, 3, 2)), np.zeros((2, 3)), [1.0, 0.0], 0.9)
    values, policy = optimal_values(mdp)
    assert values.tolist() == [0.0, 0.0]
    np.testing.assert_allclose(policy, 1 / 3)


# ------------------------------------------------------------ gradients


@settings(max_examples=10, deadline=None)
@given(seed=seeds, discount=st.sampled_from([0.5, 0.9, 1.0]))
def test_gradient_is_the_derivative_of_the_return(seed, discount):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, discount=discount)
    logits = rng.normal(size=mdp.rewards.shape)
    numeric = gradient_by_differences(lambda x: expected_return(mdp, softmax_policy(x)), logits)
    np.testing.assert_allclose(policy_gradient(mdp, logits), numeric, atol=1e-8)


def test_undiscounted_weighting_keeps_the_discounted_advantages():
    rng = np.random.default_rng(2)
    mdp = random_mdp(rng)
    logits = rng.normal(size=mdp.rewards.shape)
    policy = softmax_policy(logits)
    visited = forward_distributions(mdp, policy, 400).sum(0)
    expected = visited[:, None] * policy * advantages(mdp, policy)
    np.testing.assert_allclose(policy_gradient(mdp, logits, 1.0), expected, atol=1e-9)
    assert np.abs(policy_gradient(mdp, logits, 1.0) - policy_gradient(mdp, logits)).max() > 0.1


def test_fisher_is_the_curvature_of_the_kl():
    rng = np.random.default_rng(4)
    mdp = random_mdp(rng)
    logits = rng.normal(size=mdp.rewards.shape)
    policy, step = softmax_policy(logits), 1e-3
    for state_discount in (None, 1.0):
        weights = state_visitation(mdp, policy, state_discount)
        fisher = fisher_matrix(mdp, logits, state_discount)
        for _ in range(5):
            direction = rng.normal(size=logits.shape)
            ahead, behind = (
                weights @ state_kl(policy, softmax_policy(logits + sign * step * direction))
                for sign in (1, -1)
            )
            curvature = direction.ravel() @ fisher @ direction.ravel()
            assert (ahead + behind) / step**2 == pytest.approx(curvature, rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_natural_gradient_is_the_pseudo_inverse_times_the_gradient(seed):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng)
    logits = rng.normal(size=mdp.rewards.shape)
    fisher, gradient = fisher_matrix(mdp, logits), policy_gradient(mdp, logits)
    expected = scipy.linalg.pinvh(fisher) @ gradient.ravel()
    np.testing.assert_allclose(natural_gradient(mdp, logits).ravel(), expected, atol=1e-8)


def test_natural_gradient_is_zero_in_states_never_visited():
    mdp = FiniteMDP(np.zeros((2, 2, 2)), [[1.0, 0.0], [1.0, 0.0]], [1.0, 0.0], 0.9)
    np.testing.assert_array_equal(natural_gradient(mdp, np.zeros((2, 2))), [[0.5, -0.5], [0, 0]])


# ------------------------------------------------------------ from one policy to the next


@settings(max_examples=15, deadline=None)
@given(seed=seeds, discount=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_performance_difference_lemma(seed, discount):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, discount=discount)
    new, old = random_policy(rng, mdp), random_policy(rng, mdp)
    difference = expected_return(mdp, new) - expected_return(mdp, old)
    assert performance_difference(mdp, old, new) == pytest.approx(difference, abs=1e-11)


def test_surrogate_touches_the_return_with_its_slope():
    rng = np.random.default_rng(5)
    mdp = random_mdp(rng)
    logits = rng.normal(size=mdp.rewards.shape)
    old = softmax_policy(logits)
    assert surrogate(mdp, old, old) == pytest.approx(expected_return(mdp, old), abs=1e-12)
    slope = gradient_by_differences(lambda x: surrogate(mdp, old, softmax_policy(x)), logits)
    np.testing.assert_allclose(slope, policy_gradient(mdp, logits), atol=1e-8)
    new = random_policy(rng, mdp)
    assert abs(surrogate(mdp, old, new) - expected_return(mdp, new)) > 1e-3


@settings(max_examples=40, deadline=None)
@given(seed=seeds, size=st.sampled_from([0.003, 0.03, 0.3]), discount=st.sampled_from([0.1, 0.9]))
def test_trpo_bound_holds(seed, size, discount):
    rng = np.random.default_rng(seed)
    mdp = random_mdp(rng, discount=discount)
    logits = rng.normal(size=mdp.rewards.shape)
    old, new = softmax_policy(logits), softmax_policy(logits + size * rng.normal(size=logits.shape))
    assert trpo_lower_bound(mdp, old, new) < expected_return(mdp, new) + 1e-12
    assert trpo_lower_bound(mdp, old, old) == pytest.approx(expected_return(mdp, old), abs=1e-12)


@pytest.mark.parametrize(
    ("discount", "earned", "estimate", "penalty"),
    [(1 / 2, 2 / 5, 2 / 3 - 2 / 9, 8 / 3), (3 / 4, 4 / 7, 4 / 5 - 4 / 25, 48 / 5)],
)
def test_trpo_bound_by_hand(discount, earned, estimate, penalty):
    """The waiting game of the module docstring, from a fair coin to waiting 3 times out of 4.

    At discount 1/2, |A| = 1/3 and the penalty is 4/3 * (1/2) / (1/4) = 8/3. At discount 3/4 the
    coin earns 4/5, so |A| = 1/5 and the penalty is 4/5 * (3/4) / (1/16) = 48/5.
    """
    mdp = FiniteMDP([[[0.0], [1.0]]], [[1.0, 0.0]], [1.0], discount)
    old, new = [[0.5, 0.5]], [[0.25, 0.75]]
    assert expected_return(mdp, new) == pytest.approx(earned)
    assert surrogate(mdp, old, new) == pytest.approx(estimate)
    kl = 0.5 * np.log(2.0) + 0.5 * np.log(2.0 / 3.0)
    np.testing.assert_allclose(state_kl(old, new), [kl])
    assert trpo_lower_bound(mdp, old, new) == pytest.approx(estimate - penalty * kl)


def test_kl_has_a_direction():
    old, new = [[0.5, 0.5]], [[1.0, 0.0]]
    assert state_kl(old, new) == np.inf
    np.testing.assert_allclose(state_kl(new, old), [np.log(2.0)])


# ------------------------------------------------------------ generalized advantage estimation


@pytest.mark.parametrize(("discount", "lam"), [(0.9, 0.0), (0.9, 0.7), (0.5, 1.0), (1.0, 1.0)])
def test_gae_is_the_discounted_sum_of_td_errors(discount, lam):
    rng = np.random.default_rng(6)
    mdp = random_mdp(rng, discount=discount)
    policy, wrong = random_policy(rng, mdp), rng.normal(size=4)
    delta = mdp.rewards + discount * mdp.transitions @ wrong - wrong[:, None]
    estimates = expected_gae(mdp, policy, wrong, lam)
    for s, a in np.ndindex(delta.shape):
        total, now = delta[s, a], mdp.transitions[s, a]
        for t in range(1, 400):
            total += (discount * lam) ** t * now @ (policy * delta).sum(1)
            now = np.einsum("s,sa,sat->t", now, policy, mdp.transitions)
        assert estimates[s, a] == pytest.approx(total, abs=1e-12)


def whole_futures(table, policy, values, discount, decay, state, action, steps):
    """Every future of (state, action) as (probability, GAE), by walking the tree of outcomes."""
    for probability, following, reward, terminated in table[state][action]:
        bootstrap = 0.0 if terminated else discount * values[following]
        delta = reward + bootstrap - values[state]
        if terminated or steps == 1:
            yield probability, delta
            continue
        for choice, chance in enumerate(policy[following]):
            rest = whole_futures(
                table, policy, values, discount, decay, following, choice, steps - 1
            )
            for later, gae in rest:
                yield probability * chance * later, delta + decay * gae


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_gae_variance_is_that_of_all_futures(lam):
    env, policy, values = Chain(length=2, slip=0.3), [[0.4, 0.6], [0.2, 0.8]], [0.3, -0.5]
    found = gae_variance(env, policy, values, discount=0.4, lam=lam)
    for s, a in np.ndindex(2, 2):
        futures = whole_futures(env.P, policy, values, 0.4, 0.4 * lam, s, a, steps=10)
        probability, gae = np.array(list(futures)).T
        assert probability.sum() == pytest.approx(1.0)
        variance = probability @ gae**2 - (probability @ gae) ** 2
        assert found[s, a] == pytest.approx(variance, rel=1e-4)


# ------------------------------------------------------------ precision, errors


def test_everything_is_computed_in_float64_whatever_is_handed_in():
    """The truth of a float32 table is that of the same numbers in float64, to the last bit."""
    rng = np.random.default_rng(7)
    base = random_mdp(rng)
    short = [array.astype("float32") for array in (base.transitions, base.rewards)]
    exact = FiniteMDP(*(array.astype(float) for array in short), base.start, 0.9)
    mdp = FiniteMDP(*short, base.start, 0.9)
    assert mdp.transitions.dtype == mdp.rewards.dtype == np.float64
    logits, values = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=4).astype("float32")
    half, other = (
        np.full((4, 3), row, "float32") for row in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25])
    )
    chain, policy = Chain(length=4), np.full((4, 2), 0.5)
    for question, arguments in (
        (lambda mdp, logits: softmax_policy(logits), (logits,)),
        (state_values, (half,)),
        (lambda mdp, old, new: state_kl(old, new), (half, other)),
        (lambda mdp, policy, values: expected_gae(mdp, policy, values, 0.7), (half, values)),
        (lambda mdp, values: gae_variance(chain, policy, values, discount=0.9, lam=0.7), (values,)),
    ):
        found = question(mdp, *arguments)
        truth = question(exact, *(argument.astype(float) for argument in arguments))
        assert found.dtype == np.float64
        assert found.tobytes() == truth.tobytes()
    whole = FiniteMDP([[[0], [1]]], [[1, 0]], [1], 0.5)
    assert whole.start.dtype == whole.rewards.dtype == np.float64


@pytest.mark.parametrize("sign", [1, -1])
def test_probabilities_may_miss_a_sum_of_one_by_rounding_and_no_more(sign):
    """The value of (1/2, 1/2 + miss) is the scaled 1/2 where only the first action earns 1."""
    mdp = FiniteMDP(np.zeros((2, 2, 2)), [[1.0, 0.0]] * 2, [0.5, 0.5], 0.5)
    miss = sign * 2.0**-20
    scaled = 0.5 / (1 + miss)
    np.testing.assert_allclose(state_values(mdp, [[0.5, 0.5 + miss]] * 2), scaled, rtol=1e-15)
    start = FiniteMDP(mdp.transitions, mdp.rewards, [0.5, 0.5 + miss], 0.5).start
    np.testing.assert_allclose(start, [scaled, 1 - scaled], rtol=1e-15)
    miss *= 1.001
    with pytest.raises(ValueError, match="policy must be probabilities"):
        state_values(mdp, [[0.5, 0.5], [0.5, 0.5 + miss]])
    with pytest.raises(ValueError, match="start must be probabilities"):
        FiniteMDP(mdp.transitions, mdp.rewards, [0.5, 0.5 + miss], 0.5)


@pytest.mark.parametrize("miss", [-1e-7, 1e-7])
def test_a_probability_lost_to_rounding_ends_no_episode(miss):
    endless = FiniteMDP(np.ones((1, 2, 1)), [[1.0, 1.0]], [1.0], 1.0)
    with pytest.raises(ValueError, match="terminates from every state"):
        state_values(endless, [[0.5, 0.5 + miss]])


def test_the_longest_episode_is_still_solved(monkeypatch):
    """One state that is left with probability 1/4: four steps, neither more nor less."""
    quarter = FiniteMDP([[[0.75]]], [[1.0]], [1.0], 1.0)
    monkeypatch.setattr(tabular, "_LONGEST_EPISODE", 4.0)
    assert state_values(quarter, [[1.0]]) == 4.0
    monkeypatch.setattr(tabular, "_LONGEST_EPISODE", 3.9)
    with pytest.raises(ValueError, match="terminates from every state"):
        state_values(quarter, [[1.0]])


def test_transitions_may_exceed_one_by_rounding():
    assert FiniteMDP([[[1.0 + 1e-8]]], [[1.0]], [1.0], 0.5).transitions == 1.0 + 1e-8
    with pytest.raises(ValueError, match="rows sum to at most 1"):
        FiniteMDP([[[1.0 + 1.1e-8]]], [[1.0]], [1.0], 0.5)


def test_improper_policies_are_explained_at_discount_one():
    left_for_ever = np.eye(4)[np.zeros(16, int)]
    lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1", is_slippery=False), 1.0)
    endless = FiniteMDP.from_gymnasium(Chain(endless=True), 1.0)
    rare = FiniteMDP([[[1.0 - 1e-13]]], [[1.0]], [1.0], 1.0)
    for ask in (
        lambda: state_values(lake, left_for_ever),
        lambda: state_visitation(lake, left_for_ever),
        lambda: policy_gradient(endless, np.zeros((5, 2))),
        lambda: optimal_values(endless),
        lambda: expected_gae(endless, np.full((5, 2), 0.5), np.zeros(5), 1.0),
        lambda: state_values(rare, [[1.0]]),
        lambda: state_visitation(
            FiniteMDP.from_gymnasium(Chain(endless=True), 0.9), np.full((5, 2), 0.5), 1.0
        ),
    ):
        with pytest.raises(ValueError, match="terminates from every state"):
            ask()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transitions": np.zeros((2, 3))}, r"transitions must have shape \(S, A, S\)"),
        ({"transitions": np.zeros((2, 3, 3))}, r"\(S, A, S\), got \(2, 3, 3\)"),
        ({"transitions": np.zeros((0, 3, 0))}, r"\(S, A, S\), got \(0, 3, 0\)"),
        ({"transitions": np.full((2, 3, 2), 0.6)}, "row sums up to 1.2"),
        ({"transitions": np.full((2, 3, 2), -0.1)}, "entries from -0.1"),
        ({"transitions": np.full((2, 3, 2), np.nan)}, "transitions must be probabilities"),
        ({"rewards": np.zeros(2)}, r"rewards must have shape \(2, 3\), got \(2,\)"),
        ({"rewards": np.full((2, 3), np.inf)}, "rewards must be finite"),
        ({"start": [0.5, 0.6]}, "start must be probabilities"),
        ({"start": [1.0]}, "start must have shape"),
        ({"discount": 1.5}, r"discount must be in \[0, 1\], got 1.5"),
        ({"discount": np.nan}, "discount"),
    ],
)
def test_wrong_problems_are_named(changes, message):
    fields = {
        "transitions": np.full((2, 3, 2), 0.4),
        "rewards": np.zeros((2, 3)),
        "start": [0.5, 0.5],
        "discount": 0.9,
    }
    FiniteMDP(**fields)
    with pytest.raises(ValueError, match=message):
        FiniteMDP(**(fields | changes))


CHAIN, UNIFORM = FiniteMDP.from_gymnasium(Chain(), 0.9), np.full((5, 2), 0.5)
NO_LOGITS = [0.0, 1.0], [[np.nan, 0.0]], [[0.0, 0.0], [-np.inf, -np.inf]], [[np.inf, 0.0]]


@pytest.mark.parametrize(
    ("message", "function", "arguments"),
    [
        ("state_discount must be in", state_visitation, (CHAIN, UNIFORM, 1.1)),
        ("lam must be in", expected_gae, (CHAIN, UNIFORM, np.zeros(5), -0.1)),
        (r"values must .* \(5,\), got \(5, 1\)", expected_gae, (CHAIN, UNIFORM, [[0]] * 5, 0.5)),
        ("values must be finite", expected_gae, (CHAIN, UNIFORM, np.full(5, np.nan), 0.5)),
        ("horizon must be a whole", finite_horizon_values, (CHAIN, UNIFORM, -1)),
        ("horizon must be a whole", finite_horizon_values, (CHAIN, UNIFORM, 2.5)),
        ("policy must", state_values, (CHAIN, np.full((5, 3), 1 / 3))),
        ("policy must", state_values, (CHAIN, np.full((5, 2), 0.4))),
        ("policy must", state_values, (CHAIN, np.tile([1.5, -0.5], (5, 1)))),
        ("policy must", state_values, (CHAIN, np.tile([0.5, 0.5 + 1e-5], (5, 1)))),
        ("one shape", state_kl, (UNIFORM, UNIFORM[:1])),
        *(
            (f"{name} must be probabilities", function, (CHAIN, *policies))
            for function in (performance_difference, surrogate, trpo_lower_bound)
            for name, *policies in (("old", 2 * UNIFORM, UNIFORM), ("new", UNIFORM, 2 * UNIFORM))
        ),
        ("old must be probabilities", state_kl, (2 * UNIFORM, UNIFORM)),
        *(("logits must be a table", softmax_policy, (logits,)) for logits in NO_LOGITS),
        ("new must be probabilities", state_kl, (UNIFORM, np.log(UNIFORM))),
        ("new must be probabilities", state_kl, (UNIFORM, UNIFORM / 2)),
        ("new must be probabilities", state_kl, (UNIFORM, np.full((5, 2), np.nan))),
    ],
)
def test_wrong_arguments_are_named(message, function, arguments):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_wrong_environments_are_named():
    with pytest.raises(ValueError, match="initial_state_distrib"):
        FiniteMDP.from_gymnasium(SimpleNamespace(P=Chain().P), 0.9)
    with pytest.raises(ValueError, match="got a CartPoleEnv$"):
        FiniteMDP.from_gymnasium(gymnasium.make("CartPole-v1"), 0.9)
    with pytest.raises(ValueError, match="discount must be below 1"):
        trpo_lower_bound(FiniteMDP.from_gymnasium(Chain(), 1.0), UNIFORM, UNIFORM)


def test_an_improvement_counts_beside_a_state_with_much_larger_rewards():
    """Two states that end at once; the second is worth 0.2 whatever the first may lose."""
    rewards = np.array([[-1e9, 1.0], [0.1, 0.2]])
    mdp = FiniteMDP(np.zeros((2, 2, 2)), rewards, start=[0.5, 0.5], discount=1.0)
    values, policy = optimal_values(mdp)
    np.testing.assert_array_equal(values, [1.0, 0.2])
    np.testing.assert_array_equal(policy, [[0, 1], [0, 1]])


def test_a_logit_may_be_minus_infinity():
    np.testing.assert_array_equal(softmax_policy([[-np.inf, 0.0]]), [[0.0, 1.0]])
