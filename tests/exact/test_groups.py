"""Expectations over groups, against the enumeration of all groups and the figures of the papers."""

import functools
import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import every_path

from minirl.checks import finite_difference
from minirl.exact import sequences
from minirl.exact.groups import (
    clipped_gate,
    constant_weight_gate,
    expected_update,
    normalized_weight,
    plain_gate,
    reference_gradient,
    silent_share,
    soft_gate,
)


def enumerated_weight(p, group_size, divide):
    """Expected advantage times score, per unit of grad p, over all 2^K groups of rewards."""
    total = 0.0
    for rewards in itertools.product([0.0, 1.0], repeat=group_size):
        rewards = np.array(rewards)
        probability = np.prod(np.where(rewards == 1, p, 1 - p))
        advantages = rewards - rewards.mean()
        if divide and advantages.any():
            advantages = advantages / rewards.std()
        score = np.where(rewards == 1, 1 / p, -1 / (1 - p))  # d log P(reward) / dp
        total += probability * np.mean(advantages * score)
    return total


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("group_size", [2, 3, 5, 8])
def test_weight_is_the_sum_over_all_groups(p, group_size):
    weight = normalized_weight(p, group_size)
    np.testing.assert_allclose(weight, enumerated_weight(p, group_size, divide=True), rtol=1e-12)
    plain = enumerated_weight(p, group_size, divide=False)
    np.testing.assert_allclose(plain, 1 - 1 / group_size, rtol=1e-12)
    if group_size > 3:
        assert abs(weight - plain) > 0.1


def test_small_groups_weigh_all_prompts_alike():
    p = np.array([0.01, 0.2, 0.5, 0.97])
    np.testing.assert_allclose(normalized_weight(p, 2), 1, rtol=1e-12)
    np.testing.assert_allclose(normalized_weight(p, 3), np.sqrt(2), rtol=1e-12)
    assert np.ptp(normalized_weight(p, 4)) > 0.01


def test_limits():
    np.testing.assert_allclose(normalized_weight(1e-9, 10), np.sqrt(9), rtol=1e-6)
    p = np.array([0.1, 0.5])
    np.testing.assert_allclose(normalized_weight(p, 100_000), (p * (1 - p)) ** -0.5, rtol=1e-4)


@pytest.mark.parametrize(
    ("p", "weights"),
    [(0.02, (1.72, 2.57, 5.86)), (0.1, (1.69, 2.33, 3.25)), (0.5, (1.62, 1.86, 1.98))],
)
def test_weights_that_the_docs_quote(p, weights):
    quoted = [normalized_weight(p, group_size) for group_size in (4, 8, 64)]
    np.testing.assert_allclose(quoted, weights, rtol=0, atol=0.005)
    sample = enumerated_weight(p, 4, divide=True) * np.sqrt(3 / 4)  # divisor K - 1
    assert abs(sample - weights[0]) > 0.1


def test_large_groups_maximise_the_arcsine_of_the_root():
    """The weight tends to 1 / sqrt(p (1 - p)), the derivative of 2 arcsin sqrt(p)."""
    p, step = 0.3, 1e-5
    rise = 2 * np.arcsin(np.sqrt(p + step)) - 2 * np.arcsin(np.sqrt(p - step))
    assert normalized_weight(p, 100_000) == pytest.approx(rise / (2 * step), rel=1e-4)
    assert abs(normalized_weight(p, 8) - rise / (2 * step)) > 0.1


def test_resampling_each_prompt_favours_the_hard_one():
    p = np.array([0.02, 0.5])
    plain = normalized_weight(p, 8)
    resampled = plain / (1 - silent_share(p, 8))
    np.testing.assert_allclose(plain / plain.sum(), [0.58, 0.42], rtol=0, atol=0.005)
    np.testing.assert_allclose(resampled / resampled.sum(), [0.90, 0.10], rtol=0, atol=0.005)
    assert silent_share(p[0], 8) == pytest.approx(0.85, abs=0.005)


def test_silent_share_is_the_probability_of_equal_rewards():
    p, group_size = 0.3, 4
    equal = sum(
        np.prod(np.where(np.array(rewards) == 1, p, 1 - p))
        for rewards in itertools.product([0, 1], repeat=group_size)
        if len(set(rewards)) == 1
    )
    np.testing.assert_allclose(silent_share(p, group_size), equal, rtol=1e-12)


@pytest.mark.parametrize("function", [normalized_weight, silent_share])
def test_arguments_outside_their_range_are_named(function):
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\), got 1.0"):
        function(1.0, 4)
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\), got nan"):
        function(float("nan"), 4)
    with pytest.raises(ValueError, match="group_size must be at least 2, got 1"):
        function(0.5, 1)


# ---------------------------------------------------------------- the whole update, by enumeration

WORDS, LONGEST, GROUP_SIZE = 2, 2, 3  # 7 responses, 343 groups per prompt
EPSILON = 0.05
RNG = np.random.default_rng(0)
LOG_POLICY, LOG_SAMPLING = scipy.special.log_softmax(RNG.normal(size=(2, 2, 3, 3)), axis=-1)
REWARDS = np.array([[1, 0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 1, 0]], dtype=float)
PATHS = [steps for _, steps in sorted(every_path(WORDS, LONGEST))]
LENGTHS = np.array([len(path) for path in PATHS])


@functools.cache
def score(x, response):
    """d log pi(response|x) / d logits (C, V), token by token: one array per token."""
    parts = []
    for context, token in PATHS[response]:
        part = np.zeros_like(LOG_POLICY[x])
        part[context] = -np.exp(LOG_POLICY[x, context])
        part[context, token] += 1
        parts.append(part)
    return parts


def log_prob(table, response):
    return sum(table[context, token] for context, token in PATHS[response])


def advantages_of(kind, rewards):
    centred = rewards - rewards.mean()
    if not centred.any():
        return centred
    return {
        "centred": centred,
        "leave-one-out": centred * len(rewards) / (len(rewards) - 1),
        "normalized": centred / (rewards.std() + EPSILON),
        "sample-normalized": centred / (rewards.std(ddof=1) + EPSILON),
        "success": centred / rewards.mean(),
    }[kind]


def enumerated_update(
    kind, averaging, gate=None, per="token", length_root=False, sampled=LOG_POLICY
):
    """The sum over all groups of both prompts, with one group in the batch."""
    update = np.zeros_like(LOG_POLICY)
    for x in range(2):
        for group in itertools.product(range(7), repeat=GROUP_SIZE):
            rewards = REWARDS[x, list(group)]
            probability = np.exp(sum(log_prob(sampled[x], y) for y in group))
            tokens = LENGTHS[list(group)].sum()
            for y, advantage in zip(group, advantages_of(kind, rewards), strict=True):
                share = {
                    "sum": 1 / GROUP_SIZE,
                    "response": 1 / (GROUP_SIZE * LENGTHS[y]),
                    "group": 1 / tokens,
                    "tokens": 1 / tokens,
                }[averaging]
                whole = np.exp(log_prob(LOG_POLICY[x], y) - log_prob(sampled[x], y))
                for (context, token), part in zip(PATHS[y], score(x, y), strict=True):
                    ratio = whole ** (1 / LENGTHS[y] if length_root else 1)
                    if per == "token":
                        ratio = np.exp(LOG_POLICY[x, context, token] - sampled[x, context, token])
                    factor = 1.0 if gate is None else gate(ratio, advantage)
                    update[x] += probability * advantage * share * factor * part / 2
    return update


KINDS = ["centred", "leave-one-out", "normalized", "sample-normalized", "success"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("averaging", ["sum", "response", "group", "tokens"])
def test_expected_update_is_the_sum_over_all_groups(kind, averaging):
    epsilon = {"normalized": EPSILON, "sample-normalized": EPSILON}.get(kind, 0.0)
    update = expected_update(
        LOG_POLICY, REWARDS, GROUP_SIZE, advantage=kind, averaging=averaging, epsilon=epsilon
    )
    expected = enumerated_update(kind, averaging)
    np.testing.assert_allclose(update, expected, rtol=0, atol=1e-15)
    assert np.abs(expected).max() > 1e-3
    if averaging != "sum":
        assert np.abs(update - enumerated_update(kind, "sum")).max() > 1e-3


def ppo(ratio, advantage):
    kept = ratio <= 1.2 if advantage > 0 else ratio >= 0.9
    return ratio * kept


def sapo(ratio, advantage):
    sigmoid = 1 / (1 + np.exp(-(2.0 if advantage > 0 else 3.0) * (ratio - 1)))
    return 4 * ratio * sigmoid * (1 - sigmoid)


@pytest.mark.parametrize(
    ("gate", "options", "by_hand"),
    [
        (clipped_gate(0.1, 0.2), {}, ppo),
        (constant_weight_gate(0.3), {}, lambda ratio, _: min(ratio, 1.3)),
        (soft_gate(2.0, 3.0), {}, sapo),
        (plain_gate, {}, lambda ratio, _: ratio),
        (plain_gate, {"per": "response"}, lambda ratio, _: ratio),
        (clipped_gate(0.1, 0.2), {"per": "response", "length_root": True}, ppo),
    ],
)
def test_expected_update_of_stale_samples_is_the_sum_over_all_groups(gate, options, by_hand):
    expected = enumerated_update("normalized", "response", by_hand, sampled=LOG_SAMPLING, **options)
    per = options.get("per", "token")
    update = expected_update(
        LOG_POLICY,
        REWARDS,
        GROUP_SIZE,
        epsilon=EPSILON,
        averaging="response",
        log_sampling=LOG_SAMPLING,
        length_root=options.get("length_root", False),
        **{f"{per}_gate": gate},
    )
    np.testing.assert_allclose(update, expected, rtol=0, atol=1e-15)
    uncorrected = expected_update(
        LOG_POLICY,
        REWARDS,
        GROUP_SIZE,
        epsilon=EPSILON,
        averaging="response",
        log_sampling=LOG_SAMPLING,
    )
    assert np.abs(update - uncorrected).max() > 1e-3


def test_tokens_of_a_batch_of_two_groups():
    """The mean over all tokens of a batch depends on the tokens of the other groups."""
    expected = np.zeros_like(LOG_POLICY)
    table = np.exp(sequences.response_log_probs(LOG_POLICY))
    for x, other in itertools.product(range(2), repeat=2):
        for group in itertools.product(range(7), repeat=2):
            for rest in itertools.product(range(7), repeat=2):
                probability = table[x, list(group)].prod() * table[other, list(rest)].prod() / 4
                tokens = LENGTHS[list(group)].sum() + LENGTHS[list(rest)].sum()
                advantages = advantages_of("centred", REWARDS[x, list(group)])
                for y, advantage in zip(group, advantages, strict=True):
                    # twice: the second group contributes as much as the first
                    share = 2 * probability * advantage / tokens
                    expected[x] += share * sum(score(x, y))
    update = expected_update(
        LOG_POLICY, REWARDS, 2, advantage="centred", averaging="tokens", groups=2
    )
    np.testing.assert_allclose(update, expected, rtol=0, atol=1e-15)


# ---------------------------------------------------------------- the exact statements


def success_gradients(log_policy, rewards):
    """p (X,) and grad p (X, C, V) of each prompt."""
    p = (np.exp(sequences.response_log_probs(log_policy)) * rewards).sum(axis=1)
    gradient = sequences.policy_gradient(log_policy, log_policy, rewards, 0.0)
    return p, gradient * len(log_policy)


@pytest.mark.parametrize("group_size", [2, 3, 4, 16])
def test_division_by_the_deviation_weighs_prompts_by_their_difficulty(group_size):
    p, gradients = success_gradients(LOG_POLICY, REWARDS)
    update = expected_update(LOG_POLICY, REWARDS, group_size)
    weights = normalized_weight(p, group_size)
    np.testing.assert_allclose(update, weights[:, None, None] * gradients / 2, rtol=0, atol=1e-15)


def residual_shares(update, gradients):
    """Share of each prompt's update that is orthogonal to the gradient of its p, (X,)."""
    flat, other = update.reshape(len(update), -1), gradients.reshape(len(update), -1)
    directions = other / np.linalg.norm(other, axis=1, keepdims=True)
    along = (flat * directions).sum(axis=1, keepdims=True) * directions
    return np.linalg.norm(flat - along, axis=1) / np.linalg.norm(flat, axis=1)


@pytest.mark.parametrize(
    ("averaging", "low", "high"),
    [("sum", 0, 1e-14), ("response", 0.15, 0.18), ("group", 0.015, 0.02)],
)
def test_with_other_averages_the_update_is_not_proportional_to_the_gradient(averaging, low, high):
    _, gradients = success_gradients(LOG_POLICY, REWARDS)
    update = expected_update(LOG_POLICY, REWARDS, 8, averaging=averaging)
    shares = residual_shares(update, gradients)
    assert (low <= shares).all()
    assert (shares <= high).all()


def test_the_mean_over_a_groups_tokens_divides_by_the_mean_length_up_to_order_one_over_k():
    p, gradients = success_gradients(LOG_POLICY, REWARDS)
    probs = np.exp(sequences.response_log_probs(LOG_POLICY))
    lengths = (probs @ LENGTHS)[:, None, None]
    errors = []
    for group_size in (16, 64):
        update = expected_update(LOG_POLICY, REWARDS, group_size, averaging="group")
        limit = normalized_weight(p, group_size)[:, None, None] * gradients / lengths / 2
        errors.append(np.linalg.norm(update - limit) / np.linalg.norm(limit))
    assert 0.002 < errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.4)


def jacobian(function, logits, step=1e-4):
    """d function / d logits by central differences, a square matrix."""
    units = np.eye(logits.size).reshape(-1, *logits.shape)
    return np.array([finite_difference(function, logits, unit, step).ravel() for unit in units]).T


@pytest.mark.parametrize("advantage", ["centred", "normalized"])
@pytest.mark.parametrize("averaging", ["sum", "response", "group"])
def test_only_sums_are_the_gradient_of_an_objective(advantage, averaging):
    """The Jacobian of a gradient is symmetric."""

    def update(logits):
        log_policy = scipy.special.log_softmax(logits, axis=-1)
        return expected_update(log_policy, REWARDS, 4, advantage=advantage, averaging=averaging)

    matrix = jacobian(update, LOG_POLICY)
    asymmetry = np.linalg.norm(matrix - matrix.T) / np.linalg.norm(matrix)
    assert asymmetry < 1e-7 if averaging == "sum" else asymmetry > 0.01


def test_division_by_the_length_is_two_gradients_one_of_them_times_p():
    """The update is (1 - 1/K) (grad E[r / length] - p grad E[1 / length]), and p is no constant.

    The asymmetry of its Jacobian is that of the outer product of grad p and grad E[1 / length].
    """
    log_policy, rewards = LOG_POLICY[:1], REWARDS[:1]
    _, by_length = success_gradients(log_policy, rewards / LENGTHS)
    _, inverse = success_gradients(log_policy, 1 / LENGTHS[None])
    p, gradient = success_gradients(log_policy, rewards)
    options = {"advantage": "centred", "averaging": "response"}
    update = expected_update(log_policy, rewards, 4, **options)
    np.testing.assert_allclose(update, 0.75 * (by_length - p * inverse), rtol=0, atol=1e-15)
    assert np.abs(update - 0.75 * by_length).max() > 0.01  # without a baseline, it is a gradient

    def update_at(logits):
        return expected_update(scipy.special.log_softmax(logits, axis=-1), rewards, 4, **options)

    matrix = jacobian(update_at, log_policy)
    outer = np.outer(inverse.ravel(), gradient.ravel())
    np.testing.assert_allclose(matrix - matrix.T, -0.75 * (outer - outer.T), rtol=0, atol=1e-8)
    assert np.abs(outer - outer.T).max() > 0.001


def test_with_a_mean_over_each_answer_right_and_wrong_ones_have_gradients_of_their_own():
    """a_right grad E[r / length] - a_wrong grad E[(1 - r) / length], with a_right + a_wrong = w."""
    p, _ = success_gradients(LOG_POLICY, REWARDS)
    _, right = success_gradients(LOG_POLICY, REWARDS / LENGTHS)
    _, wrong = success_gradients(LOG_POLICY, (1 - REWARDS) / LENGTHS)
    others = np.arange(4)  # right answers among the others of a group of 4
    with np.errstate(divide="ignore"):
        of_right = np.sqrt((4 - others - 1) / (others + 1))
        of_wrong = np.where(others == 0, 0, np.sqrt(others / (4 - others)))
    for x in range(2):
        chances = scipy.stats.binom.pmf(others, 3, p[x])
        a_right, a_wrong = chances @ of_right, chances @ of_wrong
        assert a_right + a_wrong == pytest.approx(float(normalized_weight(p[x], 4)), rel=1e-12)
        update = expected_update(LOG_POLICY, REWARDS, 4, averaging="response")[x]
        expected = (a_right * right[x] - a_wrong * wrong[x]) / 2
        np.testing.assert_allclose(update, expected, rtol=0, atol=1e-15)
        assert np.abs(update - a_right * (right[x] - wrong[x]) / 2).max() > 1e-3


def test_leave_one_out_is_the_policy_gradient_and_the_group_mean_is_shorter():
    _, gradients = success_gradients(LOG_POLICY, REWARDS)
    for group_size in (2, 5):
        options = {"advantage": "leave-one-out"}
        update = expected_update(LOG_POLICY, REWARDS, group_size, **options)
        np.testing.assert_allclose(update, gradients / 2, rtol=0, atol=1e-15)
        update = expected_update(LOG_POLICY, REWARDS, group_size, advantage="centred")
        np.testing.assert_allclose(update, (1 - 1 / group_size) * gradients / 2, rtol=0, atol=1e-15)


def test_success_normalized_is_the_gradient_of_the_truncated_log():
    """- sum over j < K of (1 - p)^j / j has the derivative sum over j < K of (1 - p)^(j - 1)."""
    p, gradients = success_gradients(LOG_POLICY, REWARDS)
    for group_size in (2, 3, 6):
        slopes = sum((1 - p) ** (j - 1) for j in range(1, group_size))
        update = expected_update(LOG_POLICY, REWARDS, group_size, advantage="success")
        expected = slopes[:, None, None] * gradients / 2
        np.testing.assert_allclose(update, expected, rtol=0, atol=1e-14)
        one_term_more = slopes + (1 - p) ** (group_size - 1)
        assert np.abs(update - one_term_more[:, None, None] * gradients / 2).max() > 1e-3


def test_the_mean_score_of_the_successes_has_one_term_more_than_the_centred_form():
    """Mean over the successes of grad log pi(y), 0 without one: unbiased for T = N terms.

    Subtracting the mean score of all N responses wherever there is a success gives T = N - 1.
    """
    p, gradients = success_gradients(LOG_POLICY, REWARDS)
    by_group = {"successes": np.zeros_like(gradients), "centred": np.zeros_like(gradients)}
    for x in range(2):
        for group in itertools.product(range(7), repeat=GROUP_SIZE):
            right = REWARDS[x, list(group)]
            if not right.any():
                continue
            probability = np.exp(sum(log_prob(LOG_POLICY[x], y) for y in group))
            scores = np.array([sum(score(x, y)) for y in group])
            mean = np.tensordot(right, scores, axes=1) / right.sum()
            by_group["successes"][x] += probability * mean
            by_group["centred"][x] += probability * (mean - scores.mean(axis=0))

    def truncated(terms):
        return sum((1 - p) ** (k - 1) for k in range(1, terms + 1))[:, None, None] * gradients

    expected = {"successes": truncated(GROUP_SIZE), "centred": truncated(GROUP_SIZE - 1)}
    for name, value in by_group.items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-15)
    assert np.abs(expected["successes"] - expected["centred"]).max() > 0.01
    update = expected_update(LOG_POLICY, REWARDS, GROUP_SIZE, advantage="success")
    np.testing.assert_allclose(update, by_group["centred"] / 2, rtol=0, atol=1e-15)


def test_redrawing_keeps_the_direction_and_resampling_changes_the_weights():
    p, _ = success_gradients(LOG_POLICY, REWARDS)
    plain = expected_update(LOG_POLICY, REWARDS, 4)
    mixed = 1 - silent_share(p, 4)
    redrawn = expected_update(LOG_POLICY, REWARDS, 4, keep="redraw")
    np.testing.assert_allclose(redrawn, plain / mixed.mean(), rtol=0, atol=1e-15)
    resampled = expected_update(LOG_POLICY, REWARDS, 4, keep="resample")
    np.testing.assert_allclose(resampled, plain / mixed[:, None, None], rtol=0, atol=1e-15)
    assert np.ptp(mixed) > 0.01


def test_the_sequence_ratio_is_unbiased_and_the_others_are_not():
    _, gradients = success_gradients(LOG_POLICY, REWARDS)
    options = {"advantage": "leave-one-out", "log_sampling": LOG_SAMPLING}
    for group_size in (2, 4):
        update = expected_update(
            LOG_POLICY, REWARDS, group_size, response_gate=plain_gate, **options
        )
        # The baseline is the mean of samples from the sampling policy; the ratios sum to one.
        np.testing.assert_allclose(update, gradients / 2, rtol=0, atol=1e-14)
    for other in (
        {},
        {"token_gate": plain_gate},
        {"token_gate": clipped_gate(0.2, 0.2)},
        {"response_gate": clipped_gate(0.5, 0.5), "length_root": True},
    ):
        update = expected_update(LOG_POLICY, REWARDS, 4, **options, **other)
        assert np.abs(update - gradients / 2).max() > 0.01


def test_a_gate_depends_on_the_sign_of_the_advantage_and_not_on_the_verdict():
    """With all advantages above 0, only the upper bound acts, also on wrong responses."""
    table = np.abs(RNG.normal(size=(2, GROUP_SIZE + 1)))

    def enumerated(sign_of):
        update = np.zeros_like(LOG_POLICY)
        for x, group in itertools.product(range(2), itertools.product(range(7), repeat=GROUP_SIZE)):
            probability = np.exp(sum(log_prob(LOG_SAMPLING[x], y) for y in group))
            right = REWARDS[x, list(group)].astype(int)
            for y, verdict in zip(group, right, strict=True):
                advantage = table[verdict, right.sum()]
                for (context, token), part in zip(PATHS[y], score(x, y), strict=True):
                    log_ratio = LOG_POLICY[x, context, token] - LOG_SAMPLING[x, context, token]
                    weight = ppo(np.exp(log_ratio), sign_of(advantage, verdict))
                    update[x] += probability * advantage * weight * part / GROUP_SIZE / 2
        return update

    update = expected_update(
        LOG_POLICY,
        REWARDS,
        GROUP_SIZE,
        advantage=table,
        log_sampling=LOG_SAMPLING,
        token_gate=clipped_gate(0.1, 0.2),
    )
    by_advantage = enumerated(lambda advantage, verdict: advantage)
    np.testing.assert_allclose(update, by_advantage, rtol=0, atol=1e-15)
    by_verdict = enumerated(lambda advantage, verdict: verdict - 0.5)
    assert np.abs(update - by_verdict).max() > 0.01


def rare(log_prob):
    """A sampling policy that gives the first token of each context this log-probability."""
    log_sampling = LOG_POLICY.copy()
    log_sampling[:, :, 0] = log_prob
    others = scipy.special.logsumexp(LOG_POLICY[:, :, 1:], axis=-1, keepdims=True)
    log_sampling[:, :, 1:] -= others
    return log_sampling


GATES = [plain_gate, clipped_gate(0.2, 0.2), soft_gate(1.0, 1.05), constant_weight_gate(0.2)]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("per", ["token_gate", "response_gate"])
def test_ratios_beyond_the_range_of_floats_are_refused(gate, per):
    run = functools.partial(expected_update, LOG_POLICY, REWARDS, 4, **{per: gate})
    message = "log_sampling must give log-ratios of at most 350, got (7|1[56])\\d\\d"
    with pytest.raises(ValueError, match=message):
        run(log_sampling=rare(-800.0))
    assert np.isfinite(run(log_sampling=rare(-100.0))).all()
    assert np.isfinite(expected_update(LOG_POLICY, REWARDS, 4, log_sampling=rare(-800.0))).all()


def test_the_soft_gate_of_large_ratios_is_zero():
    ratios = np.array([0.0, 0.5, 1.0, 3.0, 1e3, 1e200, np.inf])
    for tau, positive in ((1.0, True), (3.0, False)):
        weights = soft_gate(1.0, 3.0)(ratios, positive)
        np.testing.assert_allclose(
            weights[:4], ratios[:4] / np.cosh(tau * (ratios[:4] - 1) / 2) ** 2
        )
        np.testing.assert_array_equal(weights[4:], 0)
    np.testing.assert_allclose(soft_gate(1e-4, 1.0)(1e4, True), 1e4 / np.cosh(0.49995) ** 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": REWARDS * 2}, "rewards must be 0 or 1, got 2; use the rewards of a verifier"),
        ({"group_size": 1}, "group_size must be at least 2, got 1"),
        ({"advantage": "max"}, 'advantage must be "centred", .* got the str .max'),
        ({"keep": "some"}, "keep must be .* got 'some'"),
        ({"averaging": "mean"}, "averaging must be .*got .*mean"),
        ({"groups": 0}, "groups must be a whole number of at least 1, got 0"),
        ({"log_sampling": LOG_SAMPLING[:1]}, r"must have the shape .*\(2, 3, 3\), got \(1, 3, 3\)"),
        ({"epsilon": -0.1}, "epsilon must be a finite number of at least 0, got -0.1"),
        ({"group_size": 2.5}, "group_size must be a whole number, got 2.5"),
        ({"rewards": REWARDS * 0, "keep": "resample"}, "never ends: .* no group"),
        ({"token_gate": plain_gate, "response_gate": plain_gate}, "not both"),
    ],
)
def test_bad_arguments_of_the_update(change, message):
    arguments = {"rewards": REWARDS, "group_size": 4, **change}
    with pytest.raises(ValueError, match=message):
        expected_update(LOG_POLICY, **arguments)


# ---------------------------------------------------------------- the KL to a reference as a loss

SLOPES = {
    ("k1", False): lambda u: 1.0,
    ("k2", False): lambda u: u,
    ("k3", False): lambda u: 1 - np.exp(-u),
    ("k1", True): lambda u: 1 + u,
    ("k3", True): lambda u: (1 - np.exp(-u)) + (np.exp(-u) - 1 + u),
}


@pytest.mark.parametrize(("estimator", "weighted"), SLOPES)
@pytest.mark.parametrize("averaging", ["sum", "response", "group", "tokens"])
def test_a_reference_in_the_loss_is_the_sum_over_all_groups(estimator, weighted, averaging):
    expected = np.zeros_like(LOG_POLICY)
    for x in range(2):
        for group in itertools.product(range(7), repeat=GROUP_SIZE):
            probability = np.exp(sum(log_prob(LOG_POLICY[x], y) for y in group))
            tokens = LENGTHS[list(group)].sum()
            for y in group:
                share = {"sum": 1 / GROUP_SIZE, "response": 1 / (GROUP_SIZE * LENGTHS[y])}.get(
                    averaging, 1 / tokens
                )
                for (context, token), part in zip(PATHS[y], score(x, y), strict=True):
                    u = LOG_POLICY[x, context, token] - LOG_SAMPLING[x, context, token]
                    expected[x] += probability * share * SLOPES[estimator, weighted](u) * part / 2
    gradient = reference_gradient(
        LOG_POLICY,
        LOG_SAMPLING,
        GROUP_SIZE,
        estimator=estimator,
        averaging=averaging,
        importance_weighted=weighted,
    )
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-15)
    # k1 as a sum has the gradient 0: the score has mean 0 in every context
    assert (np.abs(expected).max() < 1e-15) == (
        (estimator, weighted, averaging) == ("k1", False, "sum")
    )


def test_weighted_terms_are_the_kl_of_each_context_at_frozen_visits():
    visits = sequences.visitation(LOG_POLICY)
    policy, differences = np.exp(LOG_POLICY), LOG_POLICY - LOG_SAMPLING
    kl = (policy * differences).sum(axis=2, keepdims=True)
    frozen = visits[:, :, None] * policy * (differences - kl)
    for estimator, weighted in (("k2", False), ("k1", True), ("k3", True)):
        options = {"estimator": estimator, "importance_weighted": weighted}
        gradient = reference_gradient(LOG_POLICY, LOG_SAMPLING, 4, **options)
        np.testing.assert_allclose(gradient, frozen, rtol=0, atol=1e-15)
    for estimator in ("k1", "k3"):
        gradient = reference_gradient(LOG_POLICY, LOG_SAMPLING, 4, estimator=estimator)
        assert np.abs(gradient - frozen).max() > 0.01


def test_tokens_of_a_batch_of_two_groups_share_the_mean_of_a_reference_loss():
    """Every token of the batch has the same share, so that both groups contribute alike."""
    table = np.exp(sequences.response_log_probs(LOG_POLICY))
    expected = np.zeros_like(LOG_POLICY)
    for x, other in itertools.product(range(2), repeat=2):
        for group in itertools.product(range(7), repeat=2):
            for rest in itertools.product(range(7), repeat=2):
                probability = table[x, list(group)].prod() * table[other, list(rest)].prod() / 4
                tokens = LENGTHS[list(group)].sum() + LENGTHS[list(rest)].sum()
                for y in group:
                    for (context, token), part in zip(PATHS[y], score(x, y), strict=True):
                        u = LOG_POLICY[x, context, token] - LOG_SAMPLING[x, context, token]
                        # twice: the second group contributes as much as the first
                        expected[x] += 2 * probability / tokens * u * part
    gradient = reference_gradient(
        LOG_POLICY, LOG_SAMPLING, 2, estimator="k2", averaging="tokens", groups=2
    )
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-15)
    one_group = reference_gradient(
        LOG_POLICY, LOG_SAMPLING, 2, estimator="k2", averaging="tokens", groups=1
    )
    assert np.abs(gradient - one_group).max() > 1e-4
