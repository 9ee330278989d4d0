"""The KL to the reference: estimators by enumeration, the penalty by loops and by gradients."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cat import describe_the_cat
from scipy.special import log_softmax

from minirl.advantages import RewardToGo
from minirl.algorithms.policy_gradient import policy_gradient_loss
from minirl.algorithms.reference_loss import ReferenceLoss, k1, k2, k3
from minirl.batch import Batch, flatten
from minirl.distributions import Categorical
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.exact import sequences
from minirl.networks import Table
from minirl.policy import Policy
from minirl.rlhf.align import align
from minirl.rlhf.kl import AdaptiveReferenceBeta, ReferenceKL, log_ratios, next_token_kl
from minirl.rlhf.language_model import full_prefix_policy
from minirl.rlhf.objective import Objective
from minirl.rlhf.sft import fine_tune, sample_demonstrations
from minirl.rollout import collect, collect_episodes, reset

CAT = describe_the_cat()
SHAPE = 2, 13, 4  # prompts, contexts, tokens
ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
close = partial(np.testing.assert_allclose, rtol=0)


def random_log_probs(seed, scale):
    return log_softmax(scale * np.random.default_rng(seed).normal(size=SHAPE), axis=2)


def derivative(function, at, step=1e-3):
    """By five points, whose error is of order step^4."""
    before, after = function(at - step) - function(at + step), function(at + 2 * step)
    return (-8 * before + function(at - 2 * step) - after) / (12 * step)


def sample(policy, sentences, seed, critic=None, group_size=1):
    """That many sentences of the tiny task."""
    return collect_episodes(
        TokenGenerationVectorEnv(sentences, CAT),
        policy,
        critic,
        np.random.default_rng(seed),
        max_steps=CAT.max_words,
        seed=seed,
        group_size=group_size,
    )


OWN, THEIRS = random_log_probs(0, 1.0), random_log_probs(1, 1.0)
POLICY, REFERENCE = full_prefix_policy(CAT, OWN), full_prefix_policy(CAT, THEIRS)
OWN_RESPONSES = sequences.response_log_probs(OWN)
THEIR_RESPONSES = sequences.response_log_probs(THEIRS)
LOG_RATIO = OWN_RESPONSES - THEIR_RESPONSES
KL = sequences.kl(OWN_RESPONSES, THEIR_RESPONSES)


# ---------------------------------------------------------------- k1, k2, k3


def test_estimators_by_hand():
    """pi twice the reference, equal, half of it; log 2 = 0.693147."""
    log_ratio = np.log([2.0, 1.0, 0.5])
    close(k1(log_ratio), [0.693147, 0.0, -0.693147], atol=1e-6)
    close(k2(log_ratio), [0.240227, 0.0, 0.240227], atol=1e-6)
    close(k3(log_ratio), [0.5 - 1 + 0.693147, 0.0, 2 - 1 - 0.693147], atol=1e-6)


def test_k3_is_infinite_for_a_response_that_the_policy_excludes():
    with np.errstate(all="raise"):
        assert k3(np.array([-np.inf, np.inf, 0.0])).tolist() == [np.inf, np.inf, 0.0]


def test_a_token_that_policy_and_reference_exclude_adds_no_kl():
    policy, reference = (
        Policy(
            Table(1, 3),
            Categorical,
            np.log(np.array(probs), where=[True, False, True], out=np.full(3, -np.inf)),
        )
        for probs in ((0.8, 0, 0.2), (0.5, 0, 0.5))
    )
    assert next_token_kl(policy, reference, np.array([0])) == pytest.approx(0.19274, abs=5e-6)


def test_the_adaptive_coefficient_recovers_from_any_run_of_small_or_large_kls():
    rule = AdaptiveReferenceBeta(initial=0.3, target=2.0, horizon=100.0)
    for kl, bound, back in ((0.0, 0.3 / 2**20, 100.0), (100.0, 0.3 * 2**20, 0.0)):
        beta = 0.3
        for _ in range(20_000):
            beta = rule.next_beta(beta, kl, 100)
        assert beta == bound
        for _ in range(100):
            beta = rule.next_beta(beta, back, 100)
        assert bound == 0.3 / 2**20 or beta < 0.31
        assert bound == 0.3 * 2**20 or beta > 0.29


def test_k3_keeps_its_digits_near_the_reference():
    tiny = np.array([1e-7, -1e-7, 1e-5])
    np.testing.assert_allclose(k3(tiny), tiny**2 / 2 - tiny**3 / 6, rtol=1e-8)


def enumerated_mean(values, log_probs):
    """Mean over prompts of sum_y pi(y) values(y), response by response."""
    total = 0.0
    for prompt in range(2):
        for response in range(CAT.num_responses):
            probability = math.exp(log_probs[prompt, response])
            total += probability * values[prompt, response] / 2
    return total


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_k1_and_k3_are_unbiased_near_and_far(scale):
    own = sequences.response_log_probs(log_softmax(scale * OWN, axis=2))
    log_ratio = own - THEIR_RESPONSES
    kl = sequences.kl(own, THEIR_RESPONSES)
    for unbiased in (k1, k3):
        assert enumerated_mean(unbiased(log_ratio), own) == pytest.approx(kl, abs=1e-11)
    assert (k3(log_ratio) >= 0).all()
    assert (k1(log_ratio) < 0).any()


def test_the_bias_of_k2_vanishes_only_towards_the_reference():
    """It is of third order, the KL of second: half the way, half the relative bias."""
    relative_bias = []
    for share in (1.0, 1 / 32, 1 / 64):
        mixed = log_softmax(THEIRS + share * (OWN - THEIRS), axis=2)
        own = sequences.response_log_probs(mixed)
        kl = sequences.kl(own, THEIR_RESPONSES)
        relative_bias.append(enumerated_mean(k2(own - THEIR_RESPONSES), own) / kl - 1)
    assert abs(relative_bias[0]) > 0.1
    assert 0.001 < abs(relative_bias[2]) < abs(relative_bias[1]) < 0.05
    assert relative_bias[1] / relative_bias[2] == pytest.approx(2, abs=0.1)


def looped_kl(prompt, context):
    """KL(policy || reference) of the next token."""
    rows = zip(OWN[prompt, context], THEIRS[prompt, context], strict=True)
    return sum(math.exp(own) * (own - theirs) for own, theirs in rows)


def finite_difference_gradient(function):
    """d function(log-probabilities of the responses) / d logits of the policy."""
    gradient = np.empty(SHAPE)
    for index in np.ndindex(SHAPE):
        unit = np.zeros(SHAPE)
        unit[index] = 1.0
        gradient[index] = derivative(
            lambda t, unit=unit: function(
                sequences.response_log_probs(log_softmax(OWN + t * unit, axis=2))
            ),
            0.0,
        )
    return gradient


def test_as_a_loss_each_estimator_descends_something_else():
    """sum_y pi(y) k'(log ratio) grad log pi(y): 0, grad KL(pi || ref), grad KL(ref || pi)."""
    forward = finite_difference_gradient(lambda own: sequences.kl(own, THEIR_RESPONSES))
    backward = finite_difference_gradient(lambda own: sequences.kl(THEIR_RESPONSES, own))
    expected = {"k1": np.zeros(SHAPE), "k2": forward, "k3": backward}
    assert np.abs(forward - backward).max() > 0.01  # or the directions could be confused
    assert min(np.abs(forward).max(), np.abs(backward).max()) > 0.01
    for name, estimator in ESTIMATORS.items():
        slopes = np.exp(OWN_RESPONSES) * derivative(estimator, LOG_RATIO) / 2
        close(sequences.score_sum(OWN, slopes), expected[name], atol=1e-10)


def test_in_the_reward_only_k1_is_right():
    """sum_y pi(y) k(log ratio) grad log pi(y), with k as a constant reward: grad KL for k1 only."""
    forward = finite_difference_gradient(lambda own: sequences.kl(own, THEIR_RESPONSES))
    for name, estimator in ESTIMATORS.items():
        rewards = np.exp(OWN_RESPONSES) * estimator(LOG_RATIO) / 2
        error = np.abs(sequences.score_sum(OWN, rewards) - forward).max()
        assert error < 1e-10 if name == "k1" else error > 0.01, name


def test_times_the_ratio_k1_and_k3_are_right_as_losses():
    """d/d theta of sum_y old(y) (pi(y) / old(y)) k(log ratio) at pi = old."""
    forward = finite_difference_gradient(lambda own: sequences.kl(own, THEIR_RESPONSES))
    for name, estimator in ESTIMATORS.items():

        def loss(own, estimator=estimator):
            ratio = np.exp(own - OWN_RESPONSES)
            return (np.exp(OWN_RESPONSES) * ratio * estimator(own - THEIR_RESPONSES)).sum() / 2

        error = np.abs(finite_difference_gradient(loss) - forward).max()
        assert error < 1e-10 if name in ("k1", "k3") else error > 0.01, name


def test_summed_per_token_the_losses_freeze_the_visits():
    """k2 and k3 of each token give the gradients of each context's own KL, weighted by its visits.

    The effect of a token on which contexts follow is missing, so k2 is no longer grad KL.
    """
    responses = np.arange(CAT.num_responses)
    gradients = {}
    for name in ESTIMATORS:
        term = ReferenceLoss(name, 1.0, REFERENCE)
        gradients[name] = np.zeros(SHAPE)
        for x in range(2):
            paths = CAT.paths(np.full(len(responses), x), responses)
            rows = np.nonzero(paths.valid)
            observations, tokens = paths.observations[rows], paths.tokens[rows]
            weight = np.exp(OWN_RESPONSES[x])[rows[0]] / 2
            zeros = np.zeros(len(tokens))
            log_probs = POLICY(observations).log_prob(tokens)
            batch = Batch(observations, tokens, log_probs, zeros, zeros, zeros, weight)
            _, d_eta = term.loss(POLICY(observations), batch)
            np.add.at(gradients[name], (x, observations % 13), d_eta)
    frozen = {"k1": np.zeros(SHAPE), "k2": np.empty(SHAPE), "k3": np.empty(SHAPE)}
    visits = sequences.visitation(OWN)
    for x, s in np.ndindex(2, 13):
        own, theirs = np.exp(OWN[x, s]), np.exp(THEIRS[x, s])
        frozen["k2"][x, s] = visits[x, s] * own * (OWN[x, s] - THEIRS[x, s] - looped_kl(x, s))
        frozen["k3"][x, s] = visits[x, s] * (own - theirs)
    for name, gradient in gradients.items():
        close(gradient, frozen[name], atol=1e-12)
    forward = finite_difference_gradient(lambda own: sequences.kl(own, THEIR_RESPONSES))
    assert np.abs(frozen["k2"] - forward).max() > 0.01


# ---------------------------------------------------------------- the penalty in the reward


def looped_rewards(rollout, beta):
    """(4), row by row, from the tables the two policies were made of."""
    rewards = rollout.rewards.copy()
    for column in range(rewards.shape[1]):
        for row in range(len(rewards)):
            if rollout.valid[row, column]:
                prompt, context = divmod(int(rollout.observations[row, column]), 13)
                token = rollout.actions[row, column]
                own, theirs = OWN[prompt, context, token], THEIRS[prompt, context, token]
                rewards[row, column] -= beta * (own - theirs)
    return rewards


def written_responses(rollout):
    """Prompts and responses (E,), read off the columns word by word."""
    prompts, responses = [], []
    for column in range(rollout.valid.shape[1]):
        valid = rollout.valid[:, column]
        prompts.append(int(rollout.observations[0, column]) // 13)
        words = [CAT.vocabulary[token] for token in rollout.actions[valid, column] if token != 3]
        responses.append(CAT.response(" ".join(words), cut=len(words) == 3))
    return np.array(prompts), np.array(responses)


def test_rewards_against_a_plain_loop():
    rollout = sample(POLICY, 200, seed=2)
    assert 100 < (~rollout.valid).sum() < 500
    beta, rewards, metrics = ReferenceKL(REFERENCE, 0.3).transform(0.3, rollout, POLICY)
    assert beta == metrics["reference_beta"] == 0.3
    close(rewards, looped_rewards(rollout, 0.3), atol=1e-12)
    assert np.array_equal(rewards[~rollout.valid], rollout.rewards[~rollout.valid])
    assert (log_ratios(REFERENCE, rollout)[~rollout.valid] == 0).all()
    log_ratio = LOG_RATIO[written_responses(rollout)]
    for name, estimator in ESTIMATORS.items():
        expected = sum(float(estimator(one)) for one in log_ratio) / 200
        assert metrics[f"reference_{name}"] == pytest.approx(expected, abs=1e-12)


SENTENCES = 100_000
DIRECTIONS = np.random.default_rng(4).standard_normal((8, CAT.num_observations * 4))
BETA = 0.5


@pytest.fixture(scope="module")
def many():
    return sample(POLICY, SENTENCES, seed=5)


def z_scores(rollout, rewards, truth):
    """How many standard errors the policy gradient of these rewards is off, along 8 directions."""
    shaped = replace(rollout, rewards=rewards)
    advantages, returns = RewardToGo(discount=1.0)(shaped)
    batch = flatten(rollout, advantages, returns, per="episode", dtype="float64")
    distribution, cache = POLICY.forward(batch.observations)
    _, d_eta = policy_gradient_loss(distribution, batch)
    z = []
    for direction in DIRECTIONS:
        rows = -(d_eta * POLICY.jvp(cache, direction)).sum(axis=1) * SENTENCES
        sentences = np.bincount(batch.episodes, rows, SENTENCES)
        expected = direction[:-4] @ truth.ravel()  # the last row, 'ended', has no gradient
        z.append((sentences.mean() - expected) / (sentences.std() / math.sqrt(SENTENCES)))
    return np.abs(z)


def test_the_penalised_gradient_is_unbiased_and_the_wrong_ones_are_seen(many):
    truth = sequences.policy_gradient(OWN, THEIRS, CAT.utilities, BETA)
    _, rewards, _ = ReferenceKL(REFERENCE, BETA).transform(BETA, many, POLICY)
    assert z_scores(many, rewards, truth).max() < 4

    wrong_sign = 2 * many.rewards - rewards  # + beta log ratio, as it has been published
    assert z_scores(many, wrong_sign, truth).max() > 10
    assert z_scores(many, many.rewards, truth).max() > 10  # no penalty at all

    # The direction: no gradient of E[r] - beta KL(reference || policy) either.
    reward_alone = sequences.policy_gradient(OWN, THEIRS, CAT.utilities, 0.0)
    backward = -sequences.score_sum(OWN, np.exp(THEIR_RESPONSES) / 2)
    assert z_scores(many, rewards, reward_alone - BETA * backward).max() > 10


def test_kl_along_prefixes_is_unbiased_and_varies_less(many):
    """Exactly, by enumeration, and in the metrics of many sentences."""
    along = np.zeros(LOG_RATIO.shape)
    for prompt, response in np.ndindex(along.shape):
        observations, _, valid = CAT.paths(np.array([prompt]), np.array([response]))
        contexts = (observations[valid] - 13 * prompt).tolist()
        along[prompt, response] = sum(looped_kl(prompt, context) for context in contexts)
    assert enumerated_mean(along, OWN_RESPONSES) == pytest.approx(KL, abs=1e-12)
    deviations = {
        name: math.sqrt(enumerated_mean((values - KL) ** 2, OWN_RESPONSES))
        for name, values in {"along": along, "k1": LOG_RATIO}.items()
    }
    assert deviations["along"] < 0.6 * deviations["k1"]

    _, _, metrics = ReferenceKL(REFERENCE, BETA).transform(BETA, many, POLICY)
    error = {name: deviation / math.sqrt(SENTENCES) for name, deviation in deviations.items()}
    assert abs(metrics["reference_kl_along_prefixes"] - KL) < 4 * error["along"]
    assert abs(metrics["reference_k1"] - KL) < 4 * error["k1"]
    assert 20 * error["along"] < KL  # so that 0 would be seen


# ---------------------------------------------------------------- the adaptive coefficient


@pytest.mark.parametrize(
    ("kl", "sentences", "expected"),
    [
        (2.2, 500, 0.3 * 1.05),  # 10 % too much, half a horizon
        (2.0, 500, 0.3),
        (1.9, 1000, 0.3 * 0.95),
        (50.0, 1000, 0.3 * 1.2),  # clipped at 20 %
        (0.0, 1000, 0.3 * 0.8),
        (-1.0, 250, 0.3 * 0.95),
    ],
)
def test_the_controller_by_hand(kl, sentences, expected):
    controller = AdaptiveReferenceBeta(target=2.0, horizon=1000.0)
    assert controller.next_beta(0.3, kl, sentences) == pytest.approx(expected, abs=1e-12)


def test_the_penalty_carries_the_coefficient_from_rollout_to_rollout():
    controller = AdaptiveReferenceBeta(initial=0.4, target=1.2, horizon=1000.0)
    penalty = ReferenceKL(REFERENCE, controller)
    beta = penalty.init(num_envs=100)
    assert beta == 0.4
    unclipped = 0
    for seed in range(4):
        rollout = sample(POLICY, 100, seed)
        following, rewards, metrics = penalty.transform(beta, rollout, POLICY)
        close(rewards, looped_rewards(rollout, beta), atol=1e-12)
        assert metrics["reference_beta"] == beta
        k1_of_rollout = LOG_RATIO[written_responses(rollout)].mean()
        too_much = k1_of_rollout / 1.2 - 1
        unclipped += abs(too_much) < 0.2
        too_much = min(max(too_much, -0.2), 0.2)
        assert following == pytest.approx(beta * (1 + 0.1 * too_much), rel=1e-12)
        assert following != beta
        beta = following
    assert unclipped > 0


def test_a_horizon_too_short_for_the_rollout_is_named():
    controller = AdaptiveReferenceBeta(target=2.0, horizon=100.0)
    assert controller.next_beta(0.3, 0.0, 499) > 0
    with pytest.raises(ValueError, match="horizon must be above a fifth of a rollout of 500"):
        controller.next_beta(0.3, 0.0, 500)


# ---------------------------------------------------------------- at the first iteration


def test_at_first_everything_is_exactly_zero_in_training():
    objective = Objective(CAT, REFERENCE, CAT.utilities, 0.3)
    result = align(CAT, REFERENCE, CAT.utilities, "trpo", sentences=1, measure=objective.measure)
    first = result.history.rows[0]
    assert first["exact_reference_kl"] == 0.0
    for name in ("k1", "k2", "k3", "kl_along_prefixes"):
        assert first[f"reference_{name}"] == 0.0


# ---------------------------------------------------------------- what must not matter


def test_rows_after_the_end_never_matter():
    rollout = sample(POLICY, 400, seed=7)
    invalid, rng = ~rollout.valid, np.random.default_rng(8)

    def garbage(column, values):
        filled = column.copy()
        filled[invalid] = rng.choice(values, size=invalid.sum())
        return filled

    spoiled = replace(
        rollout,
        observations=garbage(rollout.observations, [0, 7, 10**9]),
        actions=garbage(rollout.actions, [0, 3, -(10**9)]),
        log_probs=garbage(rollout.log_probs, [-1e9, 0.0, np.nan]),
        rewards=garbage(rollout.rewards, [-1e9, 1e9]),
    )
    (_, clean, metrics), (_, dirty, same_metrics) = (
        ReferenceKL(REFERENCE, 0.3).transform(0.3, one, POLICY) for one in (rollout, spoiled)
    )
    assert np.array_equal(clean[rollout.valid], dirty[rollout.valid])
    assert metrics == same_metrics


def test_training_never_touches_the_reference():
    reference = fine_tune(CAT, sample_demonstrations(CAT, 200, np.random.default_rng(9))).policy
    before = reference.parameters.tobytes()
    for name in ("ppo", "trpo", "rloo"):
        learned = align(CAT, reference, CAT.utilities, name, sentences=2048).policy.parameters
        assert reference.parameters.tobytes() == before
        assert not np.array_equal(learned, reference.parameters)
        assert not np.shares_memory(learned, reference.parameters)
        assert learned.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        reference.parameters[0] = 0.0


# ---------------------------------------------------------------- bad input


def excluding(prompt, context, token):
    """The reference, with one token taken away in one context."""
    log_probs = THEIRS.copy()
    log_probs[prompt, context, token] = -np.inf
    return full_prefix_policy(CAT, log_softmax(log_probs, axis=2))


def test_an_infinite_kl_names_token_and_context():
    rollout = sample(POLICY, 200, seed=10)
    for prompt, context, token in [(0, 0, 2), (1, 0, 0), (1, 2, 3)]:
        message = f"token {token} probability 0 in context {13 * prompt + context}, "
        with pytest.raises(ValueError, match=message):
            ReferenceKL(excluding(prompt, context, token)).transform(0.3, rollout, POLICY)
    alone = sample(POLICY, 1, seed=10)  # a context that is visited once
    prompt = int(alone.observations[0, 0]) // 13
    with pytest.raises(ValueError, match=f"token 2 probability 0 in context {13 * prompt}, "):
        ReferenceKL(excluding(prompt, 0, 2)).transform(0.3, alone, POLICY)
    rare = THEIRS.copy()  # seen before the token is sampled
    rare[0, 0, 1] = -30.0
    policy = full_prefix_policy(CAT, log_softmax(rare, axis=2))
    rollout = sample(policy, 50, seed=11)
    assert not ((rollout.observations == 0) & (rollout.actions == 1)).any()
    with pytest.raises(ValueError, match="token 1 probability 0 in context 0"):
        ReferenceKL(excluding(0, 0, 1)).transform(0.3, rollout, policy)


@pytest.mark.parametrize(
    ("function", "name", "values"),
    [
        (lambda beta: ReferenceKL(REFERENCE, beta), "beta", [0, -0.3, math.nan, math.inf]),
        (lambda kl: AdaptiveReferenceBeta().next_beta(0.3, kl=kl, sentences=10), "kl", [math.inf]),
        (lambda value: AdaptiveReferenceBeta(initial=value), "initial", [0.0]),
        (lambda value: AdaptiveReferenceBeta(target=value), "target", [0.0]),
        (lambda value: AdaptiveReferenceBeta(horizon=value), "horizon", [0.0]),
    ],
)
def test_bad_numbers_are_named(function, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name} must be a finite number.*, got"):
            function(value)


def test_cut_or_several_sentences_a_column_are_refused():
    """Sums over a column would be no KL of a sentence."""
    envs = TokenGenerationVectorEnv(3, describe_the_cat())
    model = full_prefix_policy(envs.task, np.log(np.full((2, 13, 4), 0.25)))
    rng, penalty = np.random.default_rng(0), ReferenceKL(model, 0.3)
    several, _ = collect(envs, model, None, reset(envs, seed=0), rng, steps=12)
    cut = collect_episodes(envs, model, None, rng, max_steps=1)
    for rollout in (several, cut):
        with pytest.raises(ValueError, match="one whole sentence per column"):
            penalty.transform(0.3, rollout, model)


def test_a_penalty_that_is_not_finite_names_beta():
    policy = full_prefix_policy(CAT, random_log_probs(1, 1.0))
    reference = full_prefix_policy(CAT, random_log_probs(2, 30.0))
    rng = np.random.default_rng(0)
    rollout = collect_episodes(TokenGenerationVectorEnv(4, CAT), policy, None, rng, max_steps=3)
    penalty = ReferenceKL(reference, 1e308)
    with pytest.raises(
        ValueError, match="beta = 1e\\+308 times log-ratios of up to .* smaller beta"
    ):
        penalty.transform(penalty.init(4), rollout, policy)
