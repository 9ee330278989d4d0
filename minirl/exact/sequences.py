"""Exact answers for a language model small enough to enumerate every response.

Letters: X prompts, W words, V = W + 1 tokens (EOS is the last one, id W), responses of at most L
words. The prefixes of a prompt form a W-ary tree, numbered like a heap: the empty prefix is node 0,
and node i continued by word a is node ``W i + 1 + a``. With two words a, b and L = 2::

    0 ─┬─ 1 "a" ─┬─ 3 "a a"          contexts   0 1 2            (the next token is open)
       │         └─ 4 "a b"          responses  0 1 2            (the words, then EOS)
       └─ 2 "b" ─┬─ 5 "b a"                     3 4 5 6          (cut at the limit, no EOS)
                 └─ 6 "b b"

The C = 1 + W + ... + W^(L-1) nodes of fewer than L words are the contexts. All N = 1 + W C nodes
are the responses: a node that is a context means the response of its words and EOS; a node of L
words means the response that was cut there. A level of the tree is a slice, and the children of
this slice, in order, are the next level. Every recursion below is therefore one reshape per level.
The large recursions treat one prompt at a time, whose tables fit in the processor's cache. W and L
follow from the shapes.

Arrays are float64. `log_policy` and `log_reference` (X, C, V) hold the log-probability of each next
token in each context, normalised over the tokens and possibly -inf; `rewards` (X, N) the reward of
each response; `log_probs` (X, N) the log-probability of each response, normalised over the
responses. A sum of probabilities may differ from 1 by up to 2^-20, about 1e-6; a larger difference
raises ValueError. All prompts have the same weight in a mean. KL and entropy are in nats over whole
responses, and the objective is ``J = E[reward] - beta KL(policy || reference)``. Gradients are with
respect to the logits of a softmax table.

Examples
--------
With one word, L = 2 and uniform tokens, the responses "", "w" and "w w" have the probabilities 1/2,
1/4, 1/4; let the last have the reward 1. With beta = 1 / log 3, ``exp(reward / beta)`` is 1, 1, 3.
The value of the second context is ``beta log(1/2 + 3/2)``, that of the first
``beta log(1/2 + 2/2)``.

>>> log_reference, rewards = np.log(np.full((1, 2, 2), 0.5)), np.array([[0.0, 0.0, 1.0]])
>>> np.exp(response_log_probs(log_reference))
array([[0.5 , 0.25, 0.25]])
>>> visitation(log_reference)
array([[1. , 0.5]])
>>> objective(log_reference, log_reference, rewards, beta=0.1)
ObjectiveValue(objective=0.25, reward=0.25, kl=0.0)
>>> policy_gradient(log_reference, log_reference, rewards, beta=0.1)
array([[[ 0.125, -0.125],
        [ 0.125, -0.125]]])
>>> log_optimum, values = soft_optimal_policy(log_reference, rewards, beta=1 / np.log(3))
>>> np.exp(log_optimum).round(4)
array([[[0.6667, 0.3333],
        [0.75  , 0.25  ]]])
>>> np.exp(values * np.log(3)).round(4)
array([[1.5, 2. ]])
>>> np.exp(best_of_n(np.log([[1/2, 1/4, 1/4]]), rewards, n=2)) * 16  # 1 - (3/4)**2 for the best
array([[6., 3., 7.]])
"""

import math
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from minirl.support.arguments import check_arguments
from minirl.support.validation import require_finite_numbers

FloatArray = NDArray[np.float64]

# Largest accepted difference between 1 and a sum of probabilities. It allows for rounding errors.
_ROUNDING = 2.0**-20

# Within this range of beta, an optimum is exact to 1e-4 of its gain over the reference. With a
# smaller beta, `rewards / beta` loses digits; a larger beta multiplies the rounding of the KL.
_SMALLEST_BETA = 1e-8  # times the largest absolute reward
_LARGEST_BETA = 1e5  # times the largest difference of two rewards of a prompt


# ---------------------------------------------------------------- distributions over responses


def response_log_probs(log_policy: FloatArray) -> FloatArray:
    """Log-probability (X, N) of each response: ``log pi(y|x) = sum_t log pi(y_t | x, y_<t)``."""
    return _sum_of_steps(_checked_table("log_policy", log_policy))


def visitation(log_policy: FloatArray) -> FloatArray:
    """The visitation ``d(x, s) = P(s is reached | x) / X`` (X, C) of each context s of prompt x.

    The sum over all prompts and contexts is the expected number of tokens in a response, EOS
    included.
    """
    log_policy = _checked_table("log_policy", log_policy)
    return np.exp(_context_log_probs(log_policy)) / len(log_policy)


def expected_reward(log_probs: FloatArray, rewards: FloatArray) -> float:
    """Mean over prompts x of ``sum_y p(y|x) reward(x, y)``, with log p = `log_probs` (X, N).

    Raises
    ------
    ValueError
        If the shapes differ, `log_probs` are not log-probabilities, or a reward is not finite.
    """
    log_probs, rewards = _matrix("log_probs", log_probs), _matrix("rewards", rewards)
    _require_shape("rewards", rewards, log_probs.shape)
    _require_finite("rewards", rewards)
    return _mean_under(_probabilities("log_probs", log_probs), rewards)


def kl(log_probs: FloatArray, other: FloatArray) -> float:
    """Mean over prompts x of ``KL(p || q) = sum_y p(y|x) log(p(y|x) / q(y|x))`` in nats.

    log p = `log_probs` and log q = `other`, both (X, N); 0 log 0 = 0.

    Raises
    ------
    ValueError
        If `other` gives probability 0 to a response that `log_probs` gives more than 0: the KL is
        infinite, and the message names the response. If the shapes differ, or one of the two is not
        log-probabilities.
    """
    log_probs, other = _matrix("log_probs", log_probs), _matrix("other", other)
    _require_shape("other", other, log_probs.shape)
    probs = _probabilities("log_probs", log_probs)
    _probabilities("other", other)
    return _mean_under(probs, _log_ratios(log_probs, other, "response"))


def entropy(log_probs: FloatArray) -> float:
    """Mean over prompts x of the entropy ``-sum_y p(y|x) log p(y|x)`` in nats.

    log p = `log_probs` (X, N). Raises ValueError if they are not log-probabilities.
    """
    log_probs = _matrix("log_probs", log_probs)
    return float(scipy.special.entr(_probabilities("log_probs", log_probs)).sum() / len(log_probs))


def policy_of(log_probs: FloatArray, words: int) -> FloatArray:
    """The policy (X, C, V) that generates these responses; the inverse of `response_log_probs`.

    ``pi(a|s) = mass(s a) / mass(s)``: the probability of all responses that begin with the words
    of s and then a, divided by that of all responses that begin with s. The policy is uniform in
    contexts of probability 0.

    Parameters
    ----------
    log_probs : ndarray (X, N)
        Any distributions over responses, for example those of `best_of_n`.
    words : int
        W. It does not follow from N: a tree of 15 nodes may have 2 words or 14.

    Raises
    ------
    ValueError
        If N is not the size of a full tree of W words, or `log_probs` are not log-probabilities.
    """
    log_probs = _matrix("log_probs", log_probs)
    prompts, responses = log_probs.shape
    if not _is_count(words) or responses < 2 or (responses - 1) % words:
        raise ValueError(f"words must be W with N = 1 + W C responses, got {words} for {responses}")
    log_policy = np.zeros((prompts, (responses - 1) // words, words + 1))
    levels = _levels("the tree of log_probs and words", log_policy)
    _probabilities("log_probs", log_probs)
    for log_masses, leaves in zip(log_policy, log_probs, strict=True):
        log_totals = _fold(levels, log_masses, leaves, _log_sum)
        reached = log_totals > -np.inf
        log_masses[reached] -= log_totals[reached, None]
        log_masses[~reached] = -math.log(words + 1)
    return log_policy


# ---------------------------------------------------------------- the objective and its gradient


class ObjectiveValue(NamedTuple):
    """The value of a policy: ``objective = reward - beta kl``, means over prompts, KL in nats."""

    objective: float
    reward: float
    kl: float


def objective(
    log_policy: FloatArray, log_reference: FloatArray, rewards: FloatArray, beta: float
) -> ObjectiveValue:
    """The exact objective ``J = E[reward] - beta KL(policy || reference)``, with E[reward] and KL.

    Parameters
    ----------
    beta : float
        Coefficient of the KL in units of reward per nat, at least 0.

    Raises
    ------
    ValueError
        If the shapes do not belong to one tree, a table is not log-probabilities, a reward is not
        finite, `beta` is negative, or the KL is infinite.
    """
    log_policy, log_reference, rewards = _checked_objective(
        log_policy, log_reference, rewards, beta
    )
    sums = np.zeros(2)
    for x in range(len(log_policy)):
        prompt = slice(x, x + 1)
        log_probs = _sum_of_steps(log_policy[prompt])
        reference = _sum_of_steps(log_reference[prompt])
        # The mass of all responses is 1 if every context that is reached is normalised.
        probs = _probabilities("log_policy", log_probs)
        _probabilities("log_reference", reference)
        log_ratios = _log_ratios(log_probs, reference, "response", first_prompt=x)
        sums += _mean_under(probs, rewards[prompt]), _mean_under(probs, log_ratios)
    reward, divergence = map(float, sums / len(log_policy))
    return ObjectiveValue(reward - beta * divergence, reward, divergence)


def action_values(
    log_policy: FloatArray, log_reference: FloatArray, rewards: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray]:
    """Values (X, C, V) of each next token and (X, C) of each context, including the future KL.

    ``Q(s, a) = [reward of s a if it ends the response, else V(s a)] - beta (log pi(a|s) -
    log ref(a|s))`` and ``V(s) = sum_a pi(a|s) Q(s, a)``. The mean of V over the empty prefixes is
    the objective. For a token of probability 0, Q contains no KL term, because p log p has the
    limit 0 in V.

    Adding ``Q / beta`` to the logits is a natural gradient step of size 1/beta, and also a step of
    soft policy iteration. L such steps reach the optimum from any policy whose probabilities are
    all above 0.

    Raises
    ------
    ValueError
        As `objective`. In addition, a token of probability 0 under the reference must have
        probability 0 under the policy in every context, since every context has a value.
    """
    log_policy, log_reference, rewards = _checked_objective(
        log_policy, log_reference, rewards, beta
    )
    _probabilities("log_policy", log_policy)
    _probabilities("log_reference", log_reference)
    levels = _levels("log_policy", log_policy)
    token_values = _log_ratios(log_policy, log_reference, "context", "token")
    token_values *= -beta
    state_values = np.empty(log_policy.shape[:2])
    for x, values in enumerate(token_values):
        mean = partial(_mean, np.exp(log_policy[x]))
        state_values[x] = _fold(levels, values, rewards[x], mean)
    return token_values, state_values


def policy_gradient(
    log_policy: FloatArray, log_reference: FloatArray, rewards: FloatArray, beta: float
) -> FloatArray:
    """Gradient (X, C, V) of the objective: ``d(s) pi(a|s) (Q(s, a) - V(s))``.

    It is taken with respect to the logits. d is the `visitation`, and Q and V are the
    `action_values`. Raises ValueError as `action_values`.
    """
    log_policy = _matrices("log_policy", log_policy)
    gradient, state_values = action_values(log_policy, log_reference, rewards, beta)
    gradient -= state_values[:, :, None]
    gradient *= np.exp(_context_log_probs(log_policy))[:, :, None] / len(log_policy)
    for x, log_probs in enumerate(log_policy):
        gradient[x] *= np.exp(log_probs)
    return gradient


def fisher_product(log_policy: FloatArray, vector: FloatArray) -> FloatArray:
    """The Fisher matrix of the logits times `vector`: ``d(s) (diag(p) - p p') vector(s)``.

    The vector and the result have the shape (X, C, V), and p are the token probabilities of context
    s. The Fisher matrix is block-diagonal over contexts. It is the mean outer product of the score
    of a whole response, and also the Hessian of the KL between two equal policies.
    """
    log_policy, vector = _matrices("log_policy", log_policy), _matrices("vector", vector)
    _require_shape("vector", vector, log_policy.shape)
    require_finite_numbers("vector", vector)
    weights, policy = visitation(log_policy), np.exp(log_policy)
    return weights[:, :, None] * policy * (vector - _dot(policy, vector)[:, :, None])


def score_sum(log_policy: FloatArray, coefficients: FloatArray) -> FloatArray:
    """``sum over x and y of coefficients(x, y) d log pi(y|x) / d logits``, as (X, C, V).

    If the coefficients (X, N) are the derivatives of a loss with respect to the response
    log-probabilities, this is the gradient of the loss. Let ``mass(s, a)`` be the sum of the
    coefficients of all responses that contain token a in context s. An entry is then
    ``mass(s, a) - pi(a|s) sum_b mass(s, b)``. This is a sum over prompts, not a mean.
    """
    log_policy = _checked_table("log_policy", log_policy)
    levels, coefficients = _levels("log_policy", log_policy), np.asarray(coefficients, np.float64)
    _require_of_responses("coefficients", coefficients, log_policy)
    gradient = np.zeros(log_policy.shape)
    for x, masses in enumerate(gradient):
        context_masses = _fold(levels, masses, coefficients[x], _sum)
        masses -= np.exp(log_policy[x]) * context_masses[:, None]
    return gradient


def path_sums(values: FloatArray) -> FloatArray:
    """Sum (X, N) of `values` (X, C, V) over the tokens of each response.

    For log-probabilities, the result is `response_log_probs`.
    """
    values = _matrices("values", values)
    _levels("values", values)
    return _sum_of_steps(values)


def tree_sums(coefficients: FloatArray, words: int) -> FloatArray:
    """mass(s, a) (C, V): sum of `coefficients` (N,) over the responses with token a in context s.

    This is one prompt's part of `score_sum`. `words` is W.
    """
    coefficients = np.asarray(coefficients, np.float64)
    masses = np.zeros(((len(coefficients) - 1) // words, words + 1))
    _fold(_levels("coefficients", masses[None]), masses, coefficients, _sum)
    return masses


# ---------------------------------------------------------------- the optimum


def soft_optimal_policy(
    log_reference: FloatArray, rewards: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray]:
    """Log-probabilities (X, C, V) of the policy that maximises the objective, and V* (X, C).

    The probability of a response is ``pi*(y|x) = ref(y|x) exp(reward(y) / beta) / Z(x)``. Token by
    token, ``V*(s) = beta log sum_a ref(a|s) exp(V*(s a) / beta)`` is computed from the leaves to
    the root, where V* of a leaf is its reward, and
    ``pi*(a|s) = ref(a|s) exp((V*(s a) - V*(s)) / beta)``. The optimal objective is the mean of
    ``V*[:, 0]``; the objective of any other policy is lower by ``beta KL(policy || optimum)``.

    Parameters
    ----------
    beta : float
        From 1e-8 times the largest absolute reward to 1e5 times the largest difference of two
        rewards of a prompt. Outside this range the result would mainly consist of rounding errors.
        If all rewards of each prompt are equal, any number above 0.

    Raises
    ------
    ValueError
        If the shapes do not belong to one tree, the reference is not log-probabilities, a reward is
        not finite, or `beta` is outside its range.

    References
    ----------
    Rafailov et al., "Direct preference optimization" (2023), Eq. 4, for whole responses.
    """
    log_reference, rewards = (
        _checked_table("log_reference", log_reference),
        _matrix("rewards", rewards),
    )
    levels = _levels("log_reference", log_reference)
    _require_of_responses("rewards", rewards, log_reference)
    require_price("beta", beta, rewards)
    log_optimum, values = log_reference.copy(), np.empty(log_reference.shape[:2])
    for x, log_weights in enumerate(log_optimum):
        log_totals = _fold(levels, log_weights, rewards[x] / beta, _log_sum)
        log_weights -= log_totals[:, None]
        values[x] = beta * log_totals
    return log_optimum, values


class Frontier(NamedTuple):
    """The optimal policies for several coefficients beta: arrays (n,) with one entry per beta."""

    betas: FloatArray
    rewards: FloatArray
    kls: FloatArray
    objectives: FloatArray


def reward_kl_frontier(
    log_reference: FloatArray, rewards: FloatArray, betas: ArrayLike
) -> Frontier:
    """Reward, KL and objective of the optimum for each beta: the largest reward for each KL.

    Over whole responses: ``J* = beta log Z`` with ``Z = sum_y ref(y) exp(reward / beta)``, and
    ``KL = E[reward] / beta - log Z``. The curve of reward against KL is concave. No policy lies
    above one of its tangents: ``E[reward] - beta KL <= J*`` for each beta.

    Parameters
    ----------
    betas : array_like (n,)
        Each in the range of `soft_optimal_policy`.

    Raises
    ------
    ValueError
        As `soft_optimal_policy`.
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not betas.size:
        raise ValueError(f"betas must be a list of numbers, at least one, got shape {betas.shape}")
    log_reference = _checked_table("log_reference", log_reference)
    rewards = _matrix("rewards", rewards)
    log_responses = _sum_of_steps(log_reference)
    _require_of_responses("rewards", rewards, log_reference)
    for beta in betas:
        require_price("betas", float(beta), rewards)
    points = np.zeros((3, len(betas)))
    for i, beta in enumerate(betas):
        for log_probs, prompt_rewards in zip(log_responses, rewards, strict=True):
            # Relative to the best reward, the two terms of the KL stay small for a small beta.
            best = prompt_rewards.max()
            log_weights = log_probs + (prompt_rewards - best) / beta
            log_total = scipy.special.logsumexp(log_weights)
            below = (np.exp(log_weights - log_total) * (prompt_rewards - best)).sum()
            points[:, i] += best + below, below / beta - log_total, best + beta * log_total
    points /= len(log_responses)
    return Frontier(betas, *points)


# ---------------------------------------------------------------- best of n


def best_of_n(log_probs: FloatArray, rewards: FloatArray, n: int) -> FloatArray:
    """Log-probability log p_n(y) (X, N) that a response is the best of n samples of a reference.

    ``p_n(y) = ref(y) / mass(ties of y) (F(<= r)^n - F(< r)^n)``, where F is the distribution of the
    reward r under the reference: among samples with equal rewards, one is chosen at random. Rewards
    count as equal if they agree to 1e-13 of the prompt's largest.

    Parameters
    ----------
    log_probs : ndarray (X, N)
        Log-probabilities of whole responses under the reference, from `response_log_probs`.
    n : int
        Number of samples, at least 1. With 1 the result is the reference itself.

    Raises
    ------
    ValueError
        If the shapes differ, `log_probs` are not log-probabilities, a reward is not finite, or n is
        not a whole number of at least 1.
    """
    _require_draws(n)
    log_probs, rewards = _matrix("log_probs", log_probs), _matrix("rewards", rewards)
    _require_shape("rewards", rewards, log_probs.shape)
    _require_finite("rewards", rewards)
    _probabilities("log_probs", log_probs)
    return np.array(
        [row + _log_gains(np.exp(row), r, n) for row, r in zip(log_probs, rewards, strict=True)]
    )


def best_of_n_kl_bound(n: int) -> float:
    """The upper bound ``log n - (n - 1) / n`` of ``KL(best of n || reference)`` in nats.

    The KL is much smaller than the bound if a likely response is the best, or if many responses
    have equal rewards.

    References
    ----------
    Beirami et al., "Theoretical guarantees on the best-of-n alignment policy" (2024).
    """
    _require_draws(n)
    return math.log(n) - (n - 1) / n


def _log_gains(reference: FloatArray, rewards: FloatArray, n: int) -> FloatArray:
    """``log(p_n(y) / ref(y))`` for the responses (N,) of one prompt; -inf where the mass is 0.

    With ``share = mass / F(<= r)``, the difference ``F(<= r)^n - F(< r)^n`` is
    ``F(<= r)^n (1 - (1 - share)^n)``, which stays accurate for a mass of 1e-12 at the top.
    """
    # If all rewards are 0, all are equal, and any unit will do.
    unit = np.abs(rewards).max() or 1.0
    _, ties = np.unique((rewards / unit).round(13), return_inverse=True)
    masses = np.bincount(ties, reference)
    below = np.cumsum(masses)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_taken = np.log(-np.expm1(n * np.log1p(-masses / below)))
        log_gains = n * np.log(below / below[-1]) + log_taken - np.log(masses)
    return np.where(masses > 0.0, log_gains, -np.inf)[ties]


# ---------------------------------------------------------------- the tree


def _levels(name: str, table: FloatArray) -> list[slice]:
    """The contexts of each level of the tree, from the root down.

    Raises ValueError unless `table` is (X, C, V) with C contexts that make a full tree.
    """
    if table.ndim != 3 or 0 in table.shape or table.shape[2] < 2:
        raise ValueError(f"{name} must have shape (X, C, V), V at least 2, got {table.shape}")
    _, contexts, tokens = table.shape
    levels = [slice(0, 1)]
    while levels[-1].stop < contexts:
        start, stop = levels[-1].start, levels[-1].stop
        levels.append(slice(stop, stop + (stop - start) * (tokens - 1)))
    if levels[-1].stop != contexts:
        raise ValueError(
            f"{name} must have C = 1 + W + ... + W^(L-1) contexts; {contexts} is none of these "
            f"for the {tokens - 1} words of its shape {table.shape}"
        )
    return levels


def _children(nodes: FloatArray, words: int) -> FloatArray:
    """A view of `nodes` (..., 1 + W S) as (..., S, W): entry (s, a) is the child of s by word a."""
    return nodes[..., 1:].reshape(*nodes.shape[:-1], -1, words)


def _context_log_probs(log_policy: FloatArray) -> FloatArray:
    """Log-probability (X, C) that a response begins with the words of each context."""
    levels = _levels("log_policy", log_policy)
    log_probs = np.zeros(log_policy.shape[:2])
    children = _children(log_probs, log_policy.shape[2] - 1)
    for level in levels[:-1]:
        children[:, level] = log_probs[:, level, None] + log_policy[:, level, :-1]
    return log_probs


def _sum_of_steps(log_policy: FloatArray) -> FloatArray:
    """`response_log_probs` without the check."""
    context_log_probs = _context_log_probs(log_policy)
    prompts, contexts, tokens = log_policy.shape
    words = tokens - 1
    log_probs = np.empty((prompts, 1 + words * contexts))
    np.add(context_log_probs[:, :, None], log_policy[:, :, :-1], out=_children(log_probs, words))
    np.add(context_log_probs, log_policy[:, :, -1], out=log_probs[:, :contexts])
    return log_probs


def _mean_under(probs: FloatArray, values: FloatArray) -> float:
    """Mean over prompts of the expectation of `values` (X, N) under `probs` (X, N)."""
    return float((probs * values).sum() / len(probs))


def _fold(
    levels: list[slice],
    tokens: FloatArray,
    leaves: FloatArray,
    combine: Callable[[FloatArray, slice], FloatArray],
) -> FloatArray:
    """Evaluate a recursion over the tree of one prompt from the leaves to the root: a value (C,).

    The value of a context is ``combine(rows, level)`` of its row of `tokens`. Initially, `tokens`
    (C, V) contains the term of each token itself. It is changed in place: the value of what follows
    is added, which is the entry of `leaves` (N,) if the token ends the response, and else the value
    of the next context.
    """
    contexts, num_tokens = tokens.shape
    nodes = np.array(leaves, np.float64)
    after_word = _children(nodes, num_tokens - 1)
    tokens[:, -1] += nodes[:contexts]
    for level in reversed(levels):
        tokens[level, :-1] += after_word[level]
        nodes[level] = combine(tokens[level], level)
    return nodes[:contexts]


def _mean(policy: FloatArray, rows: FloatArray, level: slice) -> FloatArray:
    return _dot(policy[level], rows)


def _sum(rows: FloatArray, level: slice) -> FloatArray:
    return np.asarray(np.einsum("sa->s", rows))


def _log_sum(rows: FloatArray, level: slice) -> FloatArray:
    return np.asarray(np.logaddexp.reduce(rows, axis=1))


def _log_ratios(
    log_probs: FloatArray, other: FloatArray, *axes: str, first_prompt: int = 0
) -> FloatArray:
    """``log_probs - other``, but 0 where `log_probs` is -inf, since 0 log 0 = 0.

    Raises ValueError, naming the entry by its prompt and the further `axes`, where only `other` is
    -inf.
    """
    ratios = np.zeros(log_probs.shape)
    np.subtract(log_probs, other, out=ratios, where=log_probs > -np.inf)
    if ratios.max() == np.inf:
        place = np.unravel_index(ratios.argmax(), ratios.shape)
        names = [f"{axis} {index}" for axis, index in zip(axes, place[1:], strict=True)]
        where = ", ".join([f"prompt {first_prompt + place[0]}", *names])
        raise ValueError(
            f"the KL is infinite: {where} has probability {np.exp(log_probs[place]):.3g} in the "
            "first distribution and 0 in the second (the reference), which must not exclude it"
        )
    return ratios


def _dot(left: FloatArray, right: FloatArray) -> FloatArray:
    """Sums over tokens of the product of two tables (..., V)."""
    return np.asarray(np.einsum("...a,...a->...", left, right))


# ---------------------------------------------------------------- checks


def require_price(name: str, beta: float, rewards: FloatArray) -> None:
    """Raise ValueError unless the optimum for these finite `rewards` (X, N) is exact at this beta.

    The range is that of `soft_optimal_policy`.
    """
    if not _is_number(beta) or not 0.0 < beta < np.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {beta!r}")
    largest, difference = float(np.abs(rewards).max()), float(np.ptp(rewards, axis=1).max())
    low, high = _SMALLEST_BETA * largest, _LARGEST_BETA * difference
    if difference > 0.0 and not low <= beta <= high:
        raise ValueError(
            f"{name} must be from {low:.3g} to {high:.3g} for these rewards (1e-8 times the "
            "largest, 1e5 times the largest difference within a prompt), got "
            f"{beta:.6g}: outside this range, rounding errors would dominate the result"
        )


def _checked_objective(
    log_policy: FloatArray, log_reference: FloatArray, rewards: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The three arrays; ValueError unless their shapes agree and beta is finite and at least 0."""
    log_policy = _matrices("log_policy", log_policy)
    log_reference = _matrices("log_reference", log_reference)
    rewards = _matrix("rewards", rewards)
    _levels("log_policy", log_policy)
    _require_shape("log_reference", log_reference, log_policy.shape)
    _require_of_responses("rewards", rewards, log_policy)
    if not _is_number(beta) or not 0.0 <= beta < np.inf:
        raise ValueError(f"beta must be a finite number of at least 0, got {beta!r}")
    return log_policy, log_reference, rewards


def _checked_table(name: str, table: FloatArray) -> FloatArray:
    """`table` as an array (X, C, V) of log-probabilities over a full tree, or ValueError."""
    table = _matrices(name, table)
    _levels(name, table)
    _probabilities(name, table)
    return table


def _matrices(name: str, table: FloatArray) -> FloatArray:
    return _floats(name, table, 3, "(X, C, V)")


def _matrix(name: str, table: FloatArray) -> FloatArray:
    return _floats(name, table, 2, "(X, N)")


def _floats(name: str, values: FloatArray, dimensions: int, shape: str) -> FloatArray:
    """`values` as a float64 array with this number of axes, none of them empty, or ValueError."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be an array {shape} of numbers, got {values!r:.60}"
        ) from None
    if array.ndim != dimensions or not array.size:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def _probabilities(name: str, log_probs: FloatArray) -> FloatArray:
    """``exp(log_probs)``, or ValueError unless its sums over the last axis are 1."""
    with np.errstate(over="ignore"):
        probs = np.exp(log_probs)
    sums = np.einsum("...y->...", probs)
    if not np.abs(sums - 1.0).max() <= _ROUNDING:
        no_logarithm = log_probs.min() >= 0.0 and np.allclose(log_probs.sum(axis=-1), 1.0)
        raise ValueError(
            f"{name} must be log-probabilities, whose exponentials sum to 1 over the last axis, "
            f"got sums from {sums.min():.6g} to {sums.max():.6g}"
            + ("; these are probabilities: pass their logarithm" if no_logarithm else "")
        )
    return np.asarray(probs)


def _require_of_responses(name: str, values: FloatArray, table: FloatArray) -> None:
    """Raise ValueError unless `values` (X, N) are finite and belong to the tree of `table`."""
    prompts, contexts, tokens = table.shape
    _require_shape(name, values, (prompts, 1 + (tokens - 1) * contexts))
    _require_finite(name, values)


def _require_shape(name: str, array: FloatArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")


def _require_finite(name: str, values: FloatArray) -> None:
    if not np.isfinite(values).all():
        prompt, response = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{name} must be finite numbers, got {values[prompt, response]} for prompt {prompt}, "
            f"response {response}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _require_draws(n: int) -> None:
    if not _is_count(n):
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")


check_arguments(__name__)
