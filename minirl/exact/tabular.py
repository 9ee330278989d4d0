"""Exact answers for a finite Markov decision process (MDP), each by one linear solve.

Shapes use S states and A actions. A `policy` is a table (S, A) of action probabilities; `logits`
(S, A) are the parameters of the softmax table policy. Where a function weights states by d(s), it
is the UNNORMALISED discounted visitation ``d(s) = sum_t discount**t P(s_t = s)``.

The sums of the rows of a policy may differ from 1 by up to 2^-20, about 1e-6, as those of float32
tables do because of rounding. The rows are scaled to a sum of 1 in float64. A larger difference
raises ValueError.

Examples
--------
In the only state, action 0 gives a reward of 1 and terminates, and action 1 gives 0 and stays.
For the uniform policy and discount 1/2, the value v solves v = 1/2 + 1/4 v, and the discounted
number of visits is 1 + 1/4 + 1/16 + ... = 4/3.

>>> mdp = FiniteMDP(transitions=[[[0.0], [1.0]]], rewards=[[1.0, 0.0]], start=[1.0], discount=0.5)
>>> logits = np.zeros((1, 2))
>>> policy = softmax_policy(logits)
>>> state_values(mdp, policy).round(4)  # 2/3
array([0.6667])
>>> action_values(mdp, policy).round(4)  # 1 and 1/2 * 2/3
array([[1.    , 0.3333]])
>>> state_visitation(mdp, policy).round(4)  # 4/3
array([1.3333])
>>> policy_gradient(mdp, logits).round(4)  # 4/3 * 1/2 * (1/3, -1/3)
array([[ 0.2222, -0.2222]])
>>> fisher_matrix(mdp, logits).round(4)  # 4/3 * (1/4, -1/4; -1/4, 1/4)
array([[ 0.3333, -0.3333],
       [-0.3333,  0.3333]])
>>> natural_gradient(mdp, logits).round(4)
array([[ 0.3333, -0.3333]])
>>> optimal_values(mdp)
(array([1.]), array([[1., 0.]]))
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
from numpy.typing import ArrayLike, NDArray

from minirl.support.arguments import check_arguments
from minirl.support.validation import described, require_shape

FloatArray = NDArray[np.float64]

# With this many expected steps to the end, a float64 solve has lost ten of its sixteen digits.
_LONGEST_EPISODE = 1e10

# By how much probabilities may miss a sum of 1: float32 rounds off less, mistakes are larger.
_ROUNDING = 2.0**-20


@dataclass(frozen=True, eq=False)
class FiniteMDP:
    """A finite MDP; the probability that is missing in its transitions is that of terminating.

    Parameters
    ----------
    transitions : array_like (S, A, S)
        ``transitions[s, a, t]``: probability to move from s by action a to t WITHOUT terminating.
        The episode terminates with that step with probability ``1 - transitions[s, a].sum()``.
    rewards : array_like (S, A)
        Expected reward of taking action a in s, terminating or not.
    start : array_like (S,)
        Probability of each first state; scaled to a sum of 1 as the rows of a policy are.
    discount : float
        In [0, 1]. With 1, every policy that is evaluated must terminate from every state.

    Raises
    ------
    ValueError
        If a shape, a probability, a reward or the discount is not as above.
    """

    transitions: FloatArray
    rewards: FloatArray
    start: FloatArray
    discount: float

    def __post_init__(self) -> None:
        for name in ("transitions", "rewards", "start"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        shape = self.transitions.shape
        if len(shape) != 3 or shape[0] != shape[2] or 0 in shape:
            raise ValueError(f"transitions must have shape (S, A, S), got {shape}")
        if self.rewards.shape != shape[:2]:
            raise ValueError(f"rewards must have shape {shape[:2]}, got {self.rewards.shape}")
        if self.start.shape != shape[:1]:
            raise ValueError(f"start must have shape {shape[:1]}, got {self.start.shape}")
        if not (self.transitions.min() >= 0.0 and self.transitions.sum(2).max() <= 1.0 + 1e-8):
            raise ValueError(
                "transitions must be probabilities whose rows sum to at most 1, got entries from "
                f"{self.transitions.min()} and row sums up to {self.transitions.sum(2).max()}"
            )
        if not np.isfinite(self.rewards).all():
            raise ValueError("rewards must be finite numbers")
        object.__setattr__(self, "start", _distributions("start", self.start))
        _require_discount("discount", self.discount)

    @classmethod
    def from_gymnasium(cls, env: Any, discount: float) -> "FiniteMDP":
        """The MDP of a toy-text environment, from the table `P` of its dynamics.

        Parameters
        ----------
        env : gymnasium.Env
            Its `unwrapped` has ``P[s][a] = [(probability, next_state, reward, terminated), ...]``
            and `initial_state_distrib` (S,). Time limits are not part of the MDP.
        discount : float
            In [0, 1].

        Raises
        ------
        ValueError
            If the environment publishes no such table.
        """
        inner = getattr(env, "unwrapped", env)
        if not (hasattr(inner, "P") and hasattr(inner, "initial_state_distrib")):
            raise ValueError(
                "env must publish its dynamics as attributes P and initial_state_distrib, as "
                'gymnasium.make("FrozenLake-v1") and gymnasium.make("minirl/Chain-v0") do, got '
                f"{described(inner)}"
            )
        transitions = np.zeros((len(inner.P), len(inner.P[0]), len(inner.P)))
        rewards = np.zeros(transitions.shape[:2])
        for state, actions in inner.P.items():
            for action, outcomes in actions.items():
                for probability, next_state, reward, terminated in outcomes:
                    rewards[state, action] += probability * reward
                    if not terminated:
                        transitions[state, action, next_state] += probability
        return cls(transitions, rewards, inner.initial_state_distrib, discount)


# ---------------------------------------------------------------- values of a policy


def softmax_policy(logits: ArrayLike) -> FloatArray:
    """The softmax policy ``pi(a|s) = exp(logits[s, a]) / sum_b exp(logits[s, b])`` (S, A).

    Raises ValueError unless each row of the table holds a finite number and neither NaN nor inf.
    """
    table = np.asarray(logits, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table.max(axis=1)).all():
        raise ValueError(
            "logits must be a table (S, A) of numbers, -inf only beside a finite one, got shape "
            f"{table.shape}" + (f" and {table.tolist()}" if table.size <= 16 else "")
        )
    return np.asarray(scipy.special.softmax(table, axis=1))


def state_values(mdp: FiniteMDP, policy: ArrayLike) -> FloatArray:
    """Expected discounted return (S,) from each state: the solution of ``v = r + discount P v``.

    Here ``r(s) = sum_a pi(a|s) r(s, a)`` and ``P(s, t) = sum_a pi(a|s) P(t|s, a)``.
    Raises ValueError if the discount is 1 and the policy does not terminate from every state.
    """
    policy = _checked_policy(mdp, policy)
    return _solve(_state_chain(mdp, policy), mdp.discount, (policy * mdp.rewards).sum(1))


def action_values(mdp: FiniteMDP, policy: ArrayLike) -> FloatArray:
    """Expected discounted return (S, A) of taking an action, then following `policy`.

    ``Q(s, a) = r(s, a) + discount sum_t P(t|s, a) v(t)`` with v the `state_values`.
    """
    return _backup(mdp, state_values(mdp, policy))


def advantages(mdp: FiniteMDP, policy: ArrayLike) -> FloatArray:
    """The advantages ``A(s, a) = Q(s, a) - v(s)`` (S, A) of the actions over the policy."""
    return action_values(mdp, policy) - state_values(mdp, policy)[:, None]


def state_visitation(
    mdp: FiniteMDP, policy: ArrayLike, state_discount: float | None = None
) -> FloatArray:
    """Unnormalised visitation (S,), ``d(s) = sum_t state_discount**t P(s_t = s)``.

    It is the solution of ``d = start + state_discount P' d``. With state_discount 1, the sum of d
    is the expected length of an episode in steps.

    Parameters
    ----------
    state_discount : float, optional
        In [0, 1]. Default: the discount of the MDP.
    """
    discount = mdp.discount if state_discount is None else state_discount
    _require_discount("state_discount", discount)
    chain = _state_chain(mdp, _checked_policy(mdp, policy))
    return _solve(chain, discount, mdp.start, transposed=True)


def expected_return(mdp: FiniteMDP, policy: ArrayLike) -> float:
    """The objective ``J = sum_s start(s) v(s)``: the expected discounted return of an episode."""
    return float(mdp.start @ state_values(mdp, policy))


# ---------------------------------------------------------------- gradients of the softmax table


def policy_gradient(
    mdp: FiniteMDP, logits: ArrayLike, state_discount: float | None = None
) -> FloatArray:
    """Gradient (S, A) of the return with respect to the logits: ``d(s) pi(a|s) A(s, a)``.

    The advantages always use the discount of the MDP, and `state_discount` changes only d(s). By
    default the result is the true gradient of `expected_return`. With state_discount 1 the states
    are weighted by the undiscounted visitation, as in most implementations. In general that is not
    the gradient of any objective.

    References
    ----------
    Sutton, McAllester, Singh and Mansour, "Policy gradient methods for reinforcement learning with
    function approximation" (2000).
    """
    policy = _checked_softmax(mdp, logits)
    visitation = state_visitation(mdp, policy, state_discount)
    return visitation[:, None] * policy * advantages(mdp, policy)


def fisher_matrix(
    mdp: FiniteMDP, logits: ArrayLike, state_discount: float | None = None
) -> FloatArray:
    """Fisher information (S A, S A) of the softmax table, weighted with the unnormalised d(s).

    The matrix is block-diagonal with the blocks ``d(s) (diag(p) - p p')``, where p are the action
    probabilities of state s. Rows and columns are ordered as ``logits.ravel()``. For the mean over
    visited states, divide by the sum of `state_visitation`. The matrix is singular, because a
    constant that is added to the logits of a state does not change the policy.
    """
    policy = _checked_softmax(mdp, logits)
    visitation = state_visitation(mdp, policy, state_discount)
    blocks = [d * (np.diag(p) - np.outer(p, p)) for d, p in zip(visitation, policy, strict=True)]
    return np.asarray(scipy.linalg.block_diag(*blocks))


def natural_gradient(mdp: FiniteMDP, logits: ArrayLike) -> FloatArray:
    """Natural gradient (S, A): the minimum-norm solution x of ``fisher x = policy gradient``.

    ``x(s, a) = A(s, a) - mean_b A(s, b)`` in visited states, and 0 in the others. The advantages
    are a solution, since ``d (diag(p) - p p') A(s, .) = d p A(s, .)`` because ``p . A(s, .) = 0``.
    Subtracting their mean over the actions removes the part in the null space. The weights d
    cancel, so there is no `state_discount`. Unlike a numerical pseudo-inverse, this formula is also
    accurate for actions whose probability is almost 0.

    References
    ----------
    Kakade, "A natural policy gradient" (2001).
    """
    policy = _checked_softmax(mdp, logits)
    visited = state_visitation(mdp, policy) > 0.0
    advantage = advantages(mdp, policy)
    return np.where(visited[:, None], advantage - advantage.mean(1, keepdims=True), 0.0)


# ---------------------------------------------------------------- optima


def optimal_values(mdp: FiniteMDP) -> tuple[FloatArray, FloatArray]:
    """Optimal state values (S,) and a policy (S, A) that has them, by policy iteration.

    The values solve ``v(s) = max_a (r(s, a) + discount sum_t P(t|s, a) v(t))``. The iteration
    begins with the uniform policy, which terminates from every state from which any policy does.
    The policy changes in a state only for a strict improvement. Every policy of the iteration
    therefore terminates, and discount 1 is possible. The rows of the policy are one-hot, or uniform
    where no action is better than the uniform policy.

    Raises
    ------
    ValueError
        If the discount is 1 and some state can never terminate.
    """
    states, actions = mdp.rewards.shape
    policy = np.full((states, actions), 1.0 / actions)
    magnitudes = replace(mdp, rewards=np.abs(mdp.rewards))
    while True:
        values = state_values(mdp, policy)
        candidates = _backup(mdp, values)
        best = candidates.argmax(1)
        # The margin exceeds the rounding error of a solve, so that the policy does not alternate
        # between equal actions. It is relative to the rewards that a state's value is the sum of.
        added = state_values(magnitudes, policy)
        next_added = _backup(magnitudes, added)[np.arange(states), best]
        margin = 1e-10 * np.maximum(added, next_added)
        improved = candidates.max(1) > values + margin
        if not improved.any():
            return values, policy
        policy[improved] = np.eye(actions)[best[improved]]


def finite_horizon_values(mdp: FiniteMDP, policy: ArrayLike | None, horizon: int) -> FloatArray:
    """Expected discounted return (S,) of the first `horizon` steps, by backward induction.

    ``v_0 = 0`` and ``v_{k+1}(s) = sum_a pi(a|s) (r(s, a) + discount sum_t P(t|s, a) v_k(t))``, or
    the maximum over a for the optimal policy. Rewards after the horizon do not count: this is the
    return of episodes that a time limit truncates.

    Parameters
    ----------
    policy : array_like (S, A) or None
        None for the optimal policy, which may depend on the remaining time.
    horizon : int
        Number of steps, at least 0.
    """
    if not isinstance(horizon, int | np.integer) or horizon < 0:
        raise ValueError(f"horizon must be a whole number of at least 0, got {horizon!r}")
    checked = None if policy is None else _checked_policy(mdp, policy)
    values = np.zeros(len(mdp.start))
    for _ in range(horizon):
        backup = _backup(mdp, values)
        values = backup.max(1) if checked is None else (checked * backup).sum(1)
    return values


# ---------------------------------------------------------------- from one policy to the next


def performance_difference(mdp: FiniteMDP, old: ArrayLike, new: ArrayLike) -> float:
    """``J(new) - J(old)`` as ``sum_s d_new(s) sum_a new(a|s) A_old(s, a)``, which is exact.

    References
    ----------
    Kakade and Langford, "Approximately optimal approximate reinforcement learning" (2002).
    """
    new, old = _checked_policy(mdp, new, "new"), _checked_policy(mdp, old, "old")
    gains = (new * advantages(mdp, old)).sum(1)
    return float(state_visitation(mdp, new) @ gains)


def surrogate(mdp: FiniteMDP, old: ArrayLike, new: ArrayLike) -> float:
    """``L_old(new) = J(old) + sum_s d_old(s) sum_a new(a|s) A_old(s, a)``.

    This is J(old) + `performance_difference` with the visitation of the old policy in place of the
    new. At ``new = old`` it has the same value and first derivative as J.
    """
    new, old = _checked_policy(mdp, new, "new"), _checked_policy(mdp, old, "old")
    gains = (new * advantages(mdp, old)).sum(1)
    return expected_return(mdp, old) + float(state_visitation(mdp, old) @ gains)


def state_kl(old: ArrayLike, new: ArrayLike) -> FloatArray:
    """``KL(old || new) = sum_a old(a|s) log(old(a|s) / new(a|s))`` in nats, for each state (S,).

    The policies are tables (S, A). The KL is infinite in a state where `new` gives probability 0 to
    an action that `old` may take. Raises ValueError unless both are probabilities of one shape.
    """
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if old.ndim != 2 or old.shape != new.shape:
        raise ValueError(f"old and new must have one shape (S, A), got {old.shape} and {new.shape}")
    divergences = scipy.special.rel_entr(_distributions("old", old), _distributions("new", new))
    return np.asarray(divergences.sum(1))


def trpo_lower_bound(mdp: FiniteMDP, old: ArrayLike, new: ArrayLike) -> float:
    """The lower bound ``L_old(new) - C max_s KL(old || new)(s)`` of J(new).

    ``C = 4 eps discount / (1 - discount)**2`` with ``eps = max |A_old|``. L_old is the `surrogate`.

    Raises
    ------
    ValueError
        If the discount is 1, where the constant is infinite.

    References
    ----------
    Schulman et al., "Trust region policy optimization" (2015), Theorem 1 and the bound after it.
    """
    if mdp.discount == 1.0:
        raise ValueError("discount must be below 1 for the bound, got 1")
    new, old = _checked_policy(mdp, new, "new"), _checked_policy(mdp, old, "old")
    largest_advantage = np.abs(advantages(mdp, old)).max()
    constant = 4.0 * largest_advantage * mdp.discount / (1.0 - mdp.discount) ** 2
    return surrogate(mdp, old, new) - float(constant * state_kl(old, new).max())


def expected_gae(mdp: FiniteMDP, policy: ArrayLike, values: ArrayLike, lam: float) -> FloatArray:
    """Expectation (S, A) of the GAE(discount, lam) advantage of (s, a), for any critic.

    It is the solution g of
    ``g(s, a) = delta(s, a) + discount lam sum_t P(t|s, a) sum_b pi(b|t) g(t, b)``
    with the expected TD error ``delta(s, a) = r(s, a) + discount sum_t P(t|s, a) values(t) -
    values(s)``, for episodes without a time limit.

    Parameters
    ----------
    values : array_like (S,)
        The critic's values. Exact values give the true advantages for every `lam`.
    lam : float
        In [0, 1]. 0 gives delta; 1 gives the true action values minus `values`.

    References
    ----------
    Schulman et al., "High-dimensional continuous control using generalized advantage estimation"
    (2016).
    """
    policy, values = _checked_policy(mdp, policy), np.asarray(values, np.float64)
    if values.shape != mdp.start.shape:
        raise ValueError(f"values must have shape {mdp.start.shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"values must be finite numbers, got {values.tolist()}")
    _require_discount("lam", lam)
    delta = _backup(mdp, values) - values[:, None]
    decay = mdp.discount * lam
    state_gae = _solve(_state_chain(mdp, policy), decay, (policy * delta).sum(1))
    return np.asarray(delta + decay * mdp.transitions @ state_gae)


def gae_variance(
    env: Any, policy: ArrayLike, values: ArrayLike, *, discount: float, lam: float
) -> FloatArray:
    """Variance (S, A) of the GAE(discount, lam) advantage of (s, a): ``E[G^2] - E[G]^2``.

    With x = discount lam, the estimate is ``G = delta + x G'``, so its second moment solves
    ``E[G^2] = E[delta^2 + 2 x delta E[G']] + x^2 E[G'^2]``. E[G] is `expected_gae`. The variance
    depends on the single outcomes, not only on their mean reward, so the environment is needed.

    Parameters
    ----------
    env : gymnasium.Env
        As for `FiniteMDP.from_gymnasium`; episodes have no time limit.
    values : array_like (S,)
        The critic's values.
    lam : float
        In [0, 1].
    """
    mdp = FiniteMDP.from_gymnasium(env, discount)
    policy, values = _checked_policy(mdp, policy), np.asarray(values, np.float64)
    mean = expected_gae(mdp, policy, values, lam)
    state_mean, decay = (policy * mean).sum(1), discount * lam
    now = np.zeros_like(mean)
    for state, actions in env.unwrapped.P.items():
        for action, outcomes in actions.items():
            for probability, next_state, reward, terminated in outcomes:
                continues = 0.0 if terminated else 1.0
                delta = reward + continues * discount * values[next_state] - values[state]
                later = continues * decay * state_mean[next_state]
                now[state, action] += probability * delta * (delta + 2.0 * later)
    state_square = _solve(_state_chain(mdp, policy), decay**2, (policy * now).sum(1))
    variance = now + decay**2 * mdp.transitions @ state_square - mean**2
    if not np.isfinite(variance).all():
        raise ValueError(
            f"values must be numbers whose squares are finite, got {np.abs(values).max():.3g}"
        )
    return np.asarray(variance)


# ---------------------------------------------------------------- the pieces


def _backup(mdp: FiniteMDP, values: FloatArray) -> FloatArray:
    """One step ahead (S, A): ``r(s, a) + discount sum_t P(t|s, a) values(t)``."""
    return np.asarray(mdp.rewards + mdp.discount * mdp.transitions @ values)


def _state_chain(mdp: FiniteMDP, policy: FloatArray) -> FloatArray:
    """Probabilities (S, S) to move from state to state under `policy` without terminating."""
    return np.asarray(np.einsum("sa,sat->st", policy, mdp.transitions))


def _solve(
    chain: FloatArray, discount: float, right_side: FloatArray, transposed: bool = False
) -> FloatArray:
    """The solution (S,) of ``(I - discount chain) x = right_side``, or of its transpose."""
    if discount == 1.0:
        _require_termination(chain)
    system = np.eye(len(chain)) - discount * chain
    return np.asarray(np.linalg.solve(system.T if transposed else system, right_side))


def _require_termination(chain: FloatArray) -> None:
    """Raise ValueError unless the chain terminates from every state.

    The expected number of steps to the end solves ``(I - chain) steps = 1``. A finite solution
    that is positive exists if and only if every state reaches the end.
    """
    try:
        steps = np.linalg.solve(np.eye(len(chain)) - chain, np.ones(len(chain)))
    except np.linalg.LinAlgError:
        steps = np.array([np.inf])
    if steps.min() <= 0.0 or steps.max() > _LONGEST_EPISODE:
        raise ValueError(
            "discount 1 needs a policy that terminates from every state, and this one does not "
            f"(or only after more than {_LONGEST_EPISODE:.0e} steps); use a discount below 1"
        )


def _checked_policy(mdp: FiniteMDP, policy: ArrayLike, name: str = "policy") -> FloatArray:
    """`policy` as a float64 array (S, A) whose rows sum to 1, or ValueError."""
    checked = np.asarray(policy, np.float64)
    require_shape(name, checked, mdp.rewards.shape)
    return _distributions(name, checked)


def _checked_softmax(mdp: FiniteMDP, logits: ArrayLike) -> FloatArray:
    """The softmax table (S, A) of `logits`, or ValueError."""
    policy = softmax_policy(logits)
    require_shape("logits", policy, mdp.rewards.shape)
    return policy


def _distributions(name: str, probabilities: FloatArray) -> FloatArray:
    """Each row (or the one vector) scaled to a sum of 1, or ValueError if it is further off.

    Without the scaling, the difference to 1 would count as a probability of terminating.
    """
    sums = probabilities.sum(-1, keepdims=True)
    if not (probabilities.min() >= 0.0 and np.abs(sums - 1.0).max() <= _ROUNDING):
        raise ValueError(
            f"{name} must be probabilities that sum to 1, got entries from {probabilities.min()} "
            f"and sums from {np.min(sums)} to {np.max(sums)}"
        )
    return np.asarray(probabilities / sums)


def _require_discount(name: str, value: float) -> None:
    if not isinstance(value, int | float | np.floating) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")


check_arguments(__name__)
