"""Rejection-sampling fine-tuning: its samples and fits agree with the exact distributions."""

from functools import partial

import numpy as np
import pytest
from cat import describe_the_cat, verdicts
from scipy.special import log_softmax

from minirl.envs.token_tasks import EOS, TokenTask
from minirl.exact import sequences
from minirl.exact.search import bigram_projection, given_right
from minirl.policy import Policy
from minirl.rlhf.language_model import full_prefix_policy, log_table, network_policy
from minirl.rlhf.rejection_sampling import (
    fit_bigrams,
    fit_network,
    fit_table,
    keep_best,
    keep_right,
    rejection_sampling,
)
from minirl.rlhf.sft import Corpus

CAT = describe_the_cat()
TABLE = log_softmax(0.7 * np.random.default_rng(0).normal(size=(2, 13, 4)), axis=2)
REFERENCE = full_prefix_policy(CAT, TABLE)
LOG_PROBS = sequences.response_log_probs(TABLE)
RIGHT = verdicts(CAT)


def run(policy=REFERENCE, rewards=RIGHT, select=keep_right, fit=fit_table, seed=0, **changes):
    settings = {"rounds": 1, "groups": 2000, "group_size": 4, **changes}
    rng = np.random.default_rng(seed)
    return rejection_sampling(CAT, policy, rewards, select, fit, rng=rng, **settings)


def response_probs(policy):
    return np.exp(sequences.response_log_probs(log_table(CAT, policy)))


def z_scores(kept: Corpus, prompt: int, expected: np.ndarray) -> np.ndarray:
    """Of the shares of the kept samples of a prompt against probabilities (N,)."""
    responses = kept.responses[kept.prompts == prompt]
    shares = np.bincount(responses, minlength=len(expected)) / len(responses)
    likely = (expected > 1e-3) & (expected < 1)
    error = np.sqrt(expected * (1 - expected) / len(responses))
    return (shares - expected)[likely] / error[likely]


@pytest.mark.parametrize(
    ("select", "rewards", "exact"),
    [
        (keep_best, CAT.utilities, sequences.best_of_n(LOG_PROBS, CAT.utilities, 4)),
        (keep_best, RIGHT, sequences.best_of_n(LOG_PROBS, RIGHT, 4)),
        (keep_right, RIGHT, given_right(LOG_PROBS, RIGHT)),
    ],
)
def test_kept_samples_have_the_exact_distribution(select, rewards, exact):
    (only,) = run(select=select, rewards=rewards)
    wrong = sequences.best_of_n(LOG_PROBS, rewards, 2)
    for distribution, low, high in ((exact, 0, 4), (wrong, 6, np.inf)):
        scores = [z_scores(only.kept, x, np.exp(distribution[x])) for x in (0, 1)]
        assert low < np.abs(np.concatenate(scores)).max() < high


def test_rounding_does_not_choose_among_equals():
    """Rewards that agree to 1e-13 of the largest are equal; larger differences are not."""
    mask = keep_best(np.array([[0.3, 0.1 + 0.2], [0.3, 0.3 + 1e-9], [0.0, 0.0], [-2.0, -1.0]]))
    assert mask.astype(int).tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_the_number_of_kept_samples_and_the_mean_reward():
    (only,) = run(groups=4000)
    success = (np.exp(LOG_PROBS) * RIGHT).sum(axis=1)
    shares = [np.mean(only.kept.prompts == x) for x in (0, 1)]
    # All right samples: a prompt counts as often as it succeeds.
    assert shares[0] == pytest.approx(success[0] / success.sum(), abs=0.02)
    assert only.reward == pytest.approx(success.mean(), abs=0.02)
    assert len(only.kept.prompts) == pytest.approx(16_000 * only.reward)
    (best,) = run(select=keep_best, groups=4000)
    assert len(best.kept.prompts) == 4000
    assert np.mean(best.kept.prompts == 0) == pytest.approx(0.5, abs=0.04)


# ---------------------------------------------------------------- fits


def loop_fit(kept: Corpus, previous: np.ndarray, key, smoothing: float) -> np.ndarray:
    """Smoothed counts by a loop over the tokens of each sample; `key(prompt, words)` is a row."""
    counts: dict[object, np.ndarray] = {}
    prior: dict[object, np.ndarray] = {}
    for x in (0, 1):
        for c in range(13):
            prior[key(x, CAT.words(c))] = previous[x, c]
    for x, y in zip(*kept, strict=True):
        words, cut = CAT.words(y), y >= 13
        tokens = [CAT.vocabulary.index(word) for word in words] + ([] if cut else [3])
        for t, token in enumerate(tokens):
            counts.setdefault(key(x, words[:t]), np.zeros(4))[token] += 1
    result = np.empty((2, 13, 4))
    for x in (0, 1):
        for c in range(13):
            row = key(x, CAT.words(c))
            weights = counts.get(row, np.zeros(4)) + smoothing * prior[row]
            result[x, c] = weights / weights.sum()
    return result


def test_a_table_is_fitted_by_smoothed_counts():
    (only,) = run(groups=40)
    expected = loop_fit(only.kept, np.exp(TABLE), lambda x, words: (x, words), 1.0)
    np.testing.assert_allclose(np.exp(log_table(CAT, only.policy)), expected, rtol=1e-12)
    assert np.isfinite(log_table(CAT, only.policy)).all()


def test_a_bigram_table_is_fitted_by_smoothed_counts():
    (only,) = run(groups=40, fit=fit_bigrams)
    previous = np.exp(bigram_projection(TABLE))
    # The dictionary keeps one entry of each row, and all entries of a row are equal.
    expected = loop_fit(only.kept, previous, lambda x, words: (x, words[-1:]), 1.0)
    np.testing.assert_allclose(np.exp(log_table(CAT, only.policy)), expected, rtol=1e-12)


@pytest.mark.parametrize("fit", [fit_table, fit_bigrams])
def test_many_samples_give_the_exact_projection(fit):
    (only,) = run(groups=20_000, fit=partial(fit, smoothing=1e-3))
    exact = sequences.policy_of(given_right(LOG_PROBS, RIGHT), 3)
    projected = exact if fit is fit_table else bigram_projection(exact)
    other = exact if fit is fit_bigrams else bigram_projection(exact)
    probs = response_probs(only.policy)

    def error(table):
        return np.abs(probs - np.exp(sequences.response_log_probs(table))).max()

    assert error(projected) < 0.01 < 0.05 < error(other)


def test_two_rounds_of_raft_are_one_with_more_samples():
    first, second = run(
        select=keep_best, rewards=CAT.utilities, rounds=2, groups=20_000, group_size=2
    )
    at_once = np.exp(sequences.best_of_n(LOG_PROBS, CAT.utilities, 4))
    assert np.abs(response_probs(second.policy) - at_once).max() < 0.015
    assert np.abs(response_probs(first.policy) - at_once).max() > 0.05
    assert second.reward > first.reward


def test_a_second_round_of_all_right_samples_has_nothing_to_reject():
    first, second, third = run(rounds=3, groups=5000, fit=partial(fit_table, smoothing=1e-3))
    assert first.reward < 0.2
    assert second.reward > 0.998
    assert third.reward > 0.998


def test_a_network_is_fitted_too_and_generalises():
    policy = network_policy(CAT, np.random.default_rng(0), hidden_sizes=(16,))
    rounds = run(policy, rounds=3, groups=300, fit=fit_network)
    success = [(response_probs(p.policy) * RIGHT).sum(axis=1).mean() for p in rounds]
    assert rounds[0].reward < 0.4 < 0.6 < success[0]
    assert success[-1] > 0.9
    assert isinstance(rounds[-1].policy, Policy)
    assert rounds[-1].policy.network == policy.network


def test_the_base_model_can_be_fitted_in_every_round():
    """ReST-EM: the last argument of a fit is the current policy, and need not be used."""

    def restart(task, kept, policy):
        return fit_table(task, kept, REFERENCE, smoothing=1e-3)

    rounds = run(rounds=2, fit=restart)
    expected = fit_table(CAT, rounds[1].kept, REFERENCE, smoothing=1e-3)
    assert np.array_equal(rounds[1].policy.parameters, expected.parameters)


def test_the_first_policy_and_its_samples_are_reproducible():
    before = REFERENCE.parameters.copy()
    one, two, other = run(seed=3), run(seed=3), run(seed=4)
    assert np.array_equal(one[0].policy.parameters, two[0].policy.parameters)
    assert not np.array_equal(one[0].policy.parameters, other[0].policy.parameters)
    assert np.array_equal(REFERENCE.parameters, before)


def test_a_prompt_without_a_right_sample_keeps_its_probabilities():
    rewards = RIGHT * [[1.0], [0.0]]
    for fit, table in ((fit_table, TABLE), (fit_bigrams, bigram_projection(TABLE))):
        (only,) = run(rewards=rewards, fit=fit)
        new = log_table(CAT, only.policy)
        np.testing.assert_allclose(new[1], table[1], atol=1e-12)
        assert np.abs(new[0] - table[0]).max() > 0.5


def test_one_word_at_most_is_a_table_too():
    task = TokenTask(("?",), ("a", "b", EOS), 1, lambda *_: 0.0, lambda _: {"a": 1.0})
    policy = full_prefix_policy(task, np.log([[[0.2, 0.3, 0.5]]]))
    kept = Corpus(np.zeros(4, int), np.array([1, 1, 2, 0]))
    for fit in (fit_table, fit_bigrams):
        probs = np.exp(log_table(task, fit(task, kept, policy, 1.0)))
        np.testing.assert_allclose(probs, [[[2.2 / 5, 1.3 / 5, 1.5 / 5]]], rtol=1e-12)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group_size": 0}, "group_size must be a whole number of at least 1, got 0"),
        ({"groups": 0}, "groups must be a whole number of at least 1, got 0"),
        ({"rounds": 1.5}, "rounds must be a whole number, got 1.5|rounds must be a whole"),
        ({"rewards": 0 * RIGHT}, "select kept none of the 8000 samples of round 1: there is"),
        (
            {"rewards": 0.5 * RIGHT},
            "rewards must be 0 or 1, got 0.5; use .* or keep_best$",
        ),
        ({"rewards": RIGHT[:, :3]}, r"rewards must have shape \(2, 40\), got \(2, 3\)"),
        ({"select": lambda r: r}, r"select must return an array \(2000, 4\) of bool, got an"),
        ({"select": lambda r: r[0] > 0}, r"select must return an array \(2000, 4\) of bool"),
        ({"fit": lambda *given: fit_table(*given, smoothing=0.0)}, "smoothing must be a finite"),
    ],
)
def test_bad_input_is_one_clear_line(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        run(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("select", [keep_best, keep_right])
def test_rewards_come_in_groups(select):
    with pytest.raises(ValueError, match=r"rewards must have shape \(B, K\), one row per group"):
        select(np.zeros(3))
    with pytest.raises(ValueError, match="rewards must consist of finite numbers, got nan"):
        select(np.array([[0.0, np.nan]]))
