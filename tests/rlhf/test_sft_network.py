"""Fine-tuning of a network against loops over the sentences, differences and the table."""

from collections import Counter

import numpy as np
import pytest
from cat import describe_the_cat

from minirl.checks import finite_difference
from minirl.envs.arithmetic import arithmetic
from minirl.networks import MLP, Features
from minirl.policy import Policy
from minirl.rlhf.language_model import log_table, network_policy
from minirl.rlhf.sft import (
    Corpus,
    demonstration_cross_entropy,
    demonstration_entropy,
    fine_tune,
    sample_demonstrations,
)
from minirl.rlhf.sft_network import context_counts, fine_tune_network, network_loss

CAT = describe_the_cat()  # words cat 0, dog 1, soft 2; EOS 3; two prompts; L = 3


def any_corpus(rng, count=60):
    responses = rng.integers(CAT.num_responses, size=count)
    responses[::3] = rng.integers(CAT.num_contexts, size=len(responses[::3]))
    return Corpus(rng.integers(2, size=count), responses)


def counts_by_loops(corpus, block_size):
    """Every token of the stream in turn: its context, if its prompt is in the same block."""
    counts, place, known, responses = Counter(), 0, 0, 0
    total = sum(
        1 + min(len(CAT.words(r)) + 1, 4) for r in corpus.responses
    )  # prompt, words, EOS (also after three words)
    end = total - total % block_size
    for prompt, response in zip(corpus.prompts, corpus.responses, strict=True):
        begin, node, place = place, 0, place + 1
        words = CAT.words(response)
        for step, word in enumerate([*words, None]):
            token = 3 if word is None else CAT.vocabulary.index(word)
            if place < end:
                responses += 1
                if place // block_size == begin // block_size:
                    known += 1
                    if step < 3:  # after three words there is nothing to choose
                        counts[prompt * 13 + node, token] += 1
            node, place = 3 * node + 1 + token, place + 1
    return counts, 1 - known / responses


@pytest.mark.parametrize("block_size", [4, 7, 32])
def test_counts_agree_with_loops(block_size):
    corpus = any_corpus(np.random.default_rng(0))
    observations, counts, lost = context_counts(CAT, corpus, block_size)
    expected, expected_lost = counts_by_loops(corpus, block_size)
    found = {
        (observations[row], token): counts[row, token] for row, token in np.argwhere(counts > 0)
    }
    assert found == dict(expected)
    assert lost == pytest.approx(expected_lost, abs=1e-15)
    assert (counts.sum(axis=1) > 0).all()


def test_the_same_tokens_are_lost_as_for_the_table():
    task = arithmetic()
    demonstrations = sample_demonstrations(task, 300, np.random.default_rng(0))
    table = fine_tune(task, demonstrations)
    _, counts, lost = context_counts(task, demonstrations, 32)
    assert counts.sum() == table.tokens
    assert lost == pytest.approx(table.lost_context, abs=1e-15)


def test_gradient_is_the_finite_difference():
    policy = network_policy(CAT, np.random.default_rng(0), hidden_sizes=(4,))
    policy = policy.with_parameters(np.random.default_rng(1).normal(size=policy.network.size))
    observations, counts, _ = context_counts(CAT, any_corpus(np.random.default_rng(2)), 32)
    loss, gradient = network_loss(policy, observations, counts)
    log_probs = log_table(CAT, policy).reshape(26, 4)[observations]
    assert loss == pytest.approx(-(counts * log_probs).sum() / counts.sum(), rel=1e-14)
    direction = np.random.default_rng(3).normal(size=gradient.size)
    numeric = finite_difference(
        lambda theta: network_loss(policy.with_parameters(theta), observations, counts)[0],
        policy.parameters,
        direction,
    )
    assert gradient @ direction == pytest.approx(float(numeric), rel=1e-7)


def test_one_step_is_a_step_of_adam():
    policy = network_policy(CAT, np.random.default_rng(0), hidden_sizes=(4,))
    policy = policy.with_parameters(np.random.default_rng(1).normal(size=policy.network.size))
    corpus = any_corpus(np.random.default_rng(2))
    observations, counts, _ = context_counts(CAT, corpus, 32)
    gradient = network_loss(policy, observations, counts)[1]
    tuned = fine_tune_network(CAT, corpus, policy, steps=1, learning_rate=0.01)
    expected = -0.01 * gradient / (np.abs(gradient) + 1e-8)  # Adam's first step
    np.testing.assert_allclose(tuned.policy.parameters - policy.parameters, expected, atol=1e-12)


def test_a_network_with_one_feature_per_context_finds_the_frequencies():
    """Then nothing is shared, and the optimum is known: the observed frequencies."""
    corpus = any_corpus(np.random.default_rng(3), count=200)
    network = Features(np.eye(27), MLP((27, 4), dtype="float64"))
    policy = Policy(
        network, network_policy(CAT, np.random.default_rng(0)).distribution, np.zeros(network.size)
    )
    observations, counts, _ = context_counts(CAT, corpus, 32)
    tuned = fine_tune_network(CAT, corpus, policy, steps=3000, learning_rate=0.05)
    seen = counts.min(axis=1) > 0
    assert seen.sum() > 3
    found = np.exp(log_table(CAT, tuned.policy)).reshape(26, 4)[observations[seen]]
    frequencies = counts[seen] / counts[seen].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, frequencies, atol=2e-3)


def test_the_network_is_nearer_to_the_demonstrations_than_the_bigram_table():
    task = arithmetic()
    demonstrations = sample_demonstrations(task, 2_000, np.random.default_rng(0))
    fresh = network_policy(task, np.random.default_rng(1))
    tuned = fine_tune_network(task, demonstrations, fresh)
    entropy = demonstration_entropy(task)
    network_kl = demonstration_cross_entropy(task, tuned.policy) - entropy
    table_kl = demonstration_cross_entropy(task, fine_tune(task, demonstrations).policy) - entropy
    assert 0 < network_kl < 0.04
    assert table_kl > 0.25
    assert not tuned.policy.parameters.flags.writeable
    assert tuned.perplexity > tuned.lowest_perplexity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0, got 0.0"),
        ({"block_size": 1}, "blocks of length 1 contain no token that the loss counts"),
    ],
)
def test_bad_options(options, message):
    corpus = any_corpus(np.random.default_rng(0))
    policy = network_policy(CAT, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        fine_tune_network(CAT, corpus, policy, **options)
