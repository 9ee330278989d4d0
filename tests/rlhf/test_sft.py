"""Fine-tuning against sentences counted by hand and by plain loops, and the exact entropy."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from cat import describe_the_cat

from minirl.checks import finite_difference, three_sigma
from minirl.envs.arithmetic import ANSWERS, DIGITS, arithmetic
from minirl.exact import sequences
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.rlhf.sft import (
    Corpus,
    demonstration_cross_entropy,
    demonstration_entropy,
    expand_bigrams,
    fine_tune,
    language_model_loss,
    pack,
    perplexity,
    sample_demonstrations,
    smoothed_optimum,
    token_stream,
    training_tokens,
)

CAT = describe_the_cat()  # words cat 0, dog 1, soft 2; EOS 3; prompts 4 (cat) and 5 (dog); L = 3
TWO_SENTENCES = Corpus(
    np.array([0, 1]), np.array([CAT.response("soft cat"), CAT.response("soft soft dog", cut=True)])
)


def any_corpus(rng, count=60):
    """Random responses of every length, among them many of L words."""
    responses = rng.integers(CAT.num_responses, size=count)
    responses[::3] = rng.integers(CAT.num_contexts, size=len(responses[::3]))
    return Corpus(rng.integers(2, size=count), responses)


def log_probs_of(policy, task):
    return sequences.response_log_probs(log_table(task, policy))


def counts_by_loops(corpus, block_size, mask_prompt):
    """Walk through the sentences with a running position; contexts are (prompt, previous)."""
    stream = []  # (token, prompt, previous word, where the prompt stands, kind)
    for prompt, response in zip(corpus.prompts, corpus.responses, strict=True):
        words, asked_at = CAT.words(response), len(stream)
        stream.append((f"[{prompt}]", None, None, asked_at, "prompt"))
        for previous, word in zip([None, *words], words, strict=False):
            stream.append((word, prompt, previous, asked_at, "response"))
        ends = "response" if len(words) < CAT.max_words else "nothing to learn"
        stream.append(("EOS", prompt, words[-1] if words else None, asked_at, ends))

    counts, lost, responses = Counter(), 0, 0
    for i, (token, prompt, previous, asked_at, kind) in enumerate(stream):
        start = i - i % block_size
        if start + block_size > len(stream):
            break
        known = asked_at >= start
        responses += kind == "response"
        lost += kind == "response" and not known
        if kind == "response" and known:
            counts[prompt, previous, token] += 1
        elif not mask_prompt and kind != "nothing to learn" and i > start:
            counts[None, previous, token] += 1
    return counts, lost / responses


def readable(counts):
    """The counts of a table as a Counter of (prompt, previous word, token)."""
    prompts, words = [0, 1, None], ["cat", "dog", "soft"]
    tokens = [*words, "EOS", "[0]", "[1]"]
    return Counter(
        {
            (prompts[row // 4], [*words, None][row % 4], tokens[column]): int(counts[row, column])
            for row, column in np.argwhere(counts)
        }
    )


def test_demonstrations_have_the_frequencies_of_the_task():
    count = 20_000
    corpus = sample_demonstrations(CAT, count, np.random.default_rng(0))
    seen = np.zeros((count, 2, CAT.num_responses))
    seen[np.arange(count), corpus.prompts, corpus.responses] = 1
    three_sigma(seen, CAT.demonstration_probs / 2, sigmas=4)


def test_stream_and_blocks_of_two_sentences():
    stream = token_stream(CAT, TWO_SENTENCES)
    np.testing.assert_array_equal(stream, [4, 2, 0, 3, 5, 2, 2, 1, 3])
    np.testing.assert_array_equal(pack(stream, 4), [[4, 2, 0, 3], [5, 2, 2, 1]])
    np.testing.assert_array_equal(pack(stream, 3), [[4, 2, 0], [3, 5, 2], [2, 1, 3]])
    np.testing.assert_array_equal(pack(stream, 9), [stream])


@pytest.mark.parametrize("mask_prompt", [True, False])
@pytest.mark.parametrize("block_size", [2, 3, 4, 5, 7, 16, 100])
def test_counts_agree_with_loops(block_size, mask_prompt):
    corpus = any_corpus(np.random.default_rng(block_size))
    blocks = pack(token_stream(CAT, corpus), block_size)
    options = {} if mask_prompt else {"mask_prompt": False}
    tokens = training_tokens(CAT, blocks, **options)
    assert tokens.counts.shape == ((8, 4) if mask_prompt else (12, 6))
    counts, lost = counts_by_loops(corpus, block_size, mask_prompt)
    assert readable(tokens.counts) == counts
    assert tokens.lost_context == pytest.approx(lost)
    assert 0 < lost < 1


def test_loss_is_the_mean_surprise_of_each_token():
    rng = np.random.default_rng(4)
    counts, logits = rng.integers(4, size=(5, 3)), rng.normal(size=(5, 3))
    surprise = -(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    for smoothing in (0, 0.7):
        expected = ((counts + smoothing) * surprise).sum() / counts.sum()
        assert language_model_loss(logits, counts, smoothing)[0] == pytest.approx(expected, 1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 2.0])
def test_gradient_is_the_finite_difference(smoothing):
    rng = np.random.default_rng(5)
    counts, logits = rng.integers(9, size=(4, 3)), rng.normal(size=(4, 3))
    _, d_logits = language_model_loss(logits, counts, smoothing)
    for unit, slope in zip(np.eye(12).reshape(12, 4, 3), d_logits.ravel(), strict=True):
        truth = finite_difference(
            lambda z: language_model_loss(z, counts, smoothing)[0], logits, unit
        )
        assert slope == pytest.approx(float(truth), abs=1e-9)


def test_closed_form_is_where_the_gradient_vanishes():
    """The loss is convex, so its gradient vanishes at the minimum only."""
    counts = np.array([[5, 0, 1], [0, 0, 0], [2, 2, 9]])
    optimum = smoothed_optimum(counts, 0.5)
    _, d_logits = language_model_loss(optimum, counts, 0.5)
    np.testing.assert_allclose(d_logits, 0, atol=1e-15)


@pytest.mark.parametrize("mask_prompt", [True, False])
def test_policy_repeats_the_bigrams_in_every_prefix(mask_prompt):
    corpus, smoothing = any_corpus(np.random.default_rng(7)), 0.3
    tuned = fine_tune(CAT, corpus, block_size=16, smoothing=smoothing, mask_prompt=mask_prompt)
    counts, _ = counts_by_loops(corpus, 16, True)
    parameters = tuned.policy.parameters.reshape(-1, 4)[:-1]  # without the row of 'ended'
    np.testing.assert_allclose(np.exp(parameters).sum(axis=1), 1, rtol=1e-12)
    probs = np.exp(log_table(CAT, tuned.policy))
    for prompt, node, token in np.ndindex(probs.shape):
        previous = CAT.words(node)[-1] if node else None
        seen = [counts[prompt, previous, v] + smoothing for v in ("cat", "dog", "soft", "EOS")]
        assert probs[prompt, node, token] == pytest.approx(seen[token] / sum(seen), rel=1e-12)
    if mask_prompt:
        previous, tokens = (None, "cat", "dog", "soft"), ("cat", "dog", "soft", "EOS")
        nats = sum(
            -counts[x, previous[node], tokens[v]] * math.log(probs[x, node, v])
            for x, node, v in np.ndindex(2, 4, 4)
        )
        assert tuned.loss == pytest.approx(nats / tuned.tokens, rel=1e-12)


def test_the_tail_is_dropped():
    """40 tokens are two blocks of 16; the last two of ten sentences of four count nowhere."""
    nodes = np.array([CAT.response("soft cat")] * 8 + [CAT.response("dog dog")] * 2)
    tuned = fine_tune(CAT, Corpus(np.zeros(10, int), nodes), block_size=16)
    assert (tuned.blocks, tuned.tokens, tuned.lost_context) == (2, 24, 0)
    dog = np.exp(log_table(CAT, tuned.policy))[0, 0, 1]
    assert dog == pytest.approx(0.05 / 8.2)


def test_a_block_holds_32_tokens_if_nothing_else_is_asked_for():
    nodes = np.full(16, CAT.response("soft cat"))  # four tokens each: prompt, two words, EOS
    assert fine_tune(CAT, Corpus(np.zeros(16, int), nodes)).blocks == 2


def test_nothing_changes_the_reference():
    tuned = fine_tune(CAT, TWO_SENTENCES, block_size=9)
    before = tuned.policy.parameters.copy()
    with pytest.raises(ValueError, match="read-only"):
        tuned.policy.parameters += 1
    tuned.policy.with_parameters(before + 1)
    np.testing.assert_array_equal(tuned.policy.parameters, before)


def test_entropy_and_perplexity_by_hand():
    probabilities = [0.4, 0.35, 0.15, 0.05, 0.05]
    entropy = -sum(p * math.log(p) for p in probabilities)
    tokens = 0.4 * 3 + 0.35 * 2 + 0.15 * 2 + 0.05 * 3 + 0.05 * 1
    assert demonstration_entropy(CAT) == pytest.approx(entropy, rel=1e-12)
    assert perplexity(CAT, entropy) == pytest.approx(math.exp(entropy / tokens), rel=1e-12)


@pytest.mark.parametrize("task", [CAT, arithmetic()], ids=["cat", "arithmetic"])
def test_perplexity_exceeds_the_entropy_by_the_kl(task):
    with np.errstate(divide="ignore"):
        truth = np.log(task.demonstration_probs)
    perfect = full_prefix_policy(task, sequences.policy_of(truth, task.num_words))
    entropy = demonstration_entropy(task)
    assert demonstration_cross_entropy(task, perfect) == pytest.approx(entropy, rel=1e-12)

    rng = np.random.default_rng(10)
    tuned = fine_tune(task, sample_demonstrations(task, 500, rng))
    excess = demonstration_cross_entropy(task, tuned.policy) - entropy
    kl = sequences.kl(truth, log_probs_of(tuned.policy, task))
    assert excess == pytest.approx(kl, abs=1e-11)
    assert excess > 0.01
    tokens = math.log(tuned.perplexity / tuned.lowest_perplexity)
    assert tuned.lowest_perplexity == pytest.approx(perplexity(task, entropy), rel=1e-12)
    assert tokens == pytest.approx(kl * math.log(tuned.lowest_perplexity) / entropy, rel=1e-10)


def test_a_policy_that_excludes_a_demonstration_has_infinite_perplexity():
    table = np.full((2, CAT.num_contexts, 4), -math.log(3))
    table[:, :, 2] = -np.inf  # never `soft`
    nats = demonstration_cross_entropy(CAT, full_prefix_policy(CAT, table))
    assert perplexity(CAT, nats) == math.inf


def test_the_reference_of_the_arithmetic_task():
    """Means of five corpora, within four standard errors of the long-run means."""
    task = arithmetic()
    right = np.zeros(task.utilities.shape)
    for response in range(task.num_responses):
        first = next((word for word in task.words(response) if word in DIGITS), None)
        for row, prompt in zip(right, task.prompts, strict=True):
            row[response] = first == ANSWERS[prompt]
    figures = []
    for seed in range(5):
        corpus = sample_demonstrations(task, 2000, np.random.default_rng(seed))
        tuned, small = fine_tune(task, corpus), fine_tune(task, corpus, block_size=8)
        log_probs = log_probs_of(tuned.policy, task)
        gold = sequences.expected_reward(log_probs, task.utilities)
        digit = sequences.expected_reward(log_probs, right)
        figures.append([gold, digit, tuned.lost_context, small.lost_context])
    gold, digit, lost, lost_by_8 = np.mean(figures, axis=0)
    assert gold == pytest.approx(1.42, abs=0.064)
    assert digit == pytest.approx(0.634, abs=0.018)
    assert lost == pytest.approx(0.066, abs=0.006)
    assert lost_by_8 == pytest.approx(0.266, abs=0.014)


ZERO, ONES = np.zeros(1, int), np.ones((2, 3))


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (Corpus(np.zeros(0, int), np.zeros(0, int)), "demonstrations are empty"),
        (Corpus(ZERO, np.zeros(2, int)), "one response per prompt, got shapes (1,) and (2,)"),
        (Corpus(ZERO + 2, ZERO), "prompts of the demonstrations must be whole numbers 0 .. 1"),
        (Corpus(ZERO - 1, ZERO), "prompts of the demonstrations must be whole numbers 0 .. 1"),
        (Corpus(ZERO, ZERO + 40), "responses of the demonstrations must be whole numbers 0 .. 39"),
        (Corpus(ZERO, ZERO - 1), "0 .. 39, got -1"),
        (Corpus(ZERO, ZERO + 0.5), "0 .. 39, got 0.5"),
    ],
)
def test_bad_demonstrations(corpus, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        fine_tune(CAT, corpus, block_size=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 10}, "block_size must be at most the 9 tokens of the stream, got 10"),
        ({"block_size": 0}, "block_size must be a whole number of at least 1, got 0"),
        ({"block_size": 1}, "blocks of length 1 contain no token"),
        ({"block_size": 1, "mask_prompt": False}, "blocks of length 1 contain no token"),
        ({"smoothing": 0}, "smoothing must be a finite number above 0, got 0; .* infinite"),
        ({"smoothing": math.inf}, "smoothing must be a finite number above 0, got inf"),
        ({"mask_prompt": 1}, "mask_prompt must be True or False, got 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        fine_tune(CAT, TWO_SENTENCES, **{"block_size": 9, **options})


@pytest.mark.parametrize(
    ("message", "function", "arguments"),
    [
        ("count must .* got 0", sample_demonstrations, (CAT, 0, np.random.default_rng(0))),
        ("stream is empty", pack, (np.zeros(0, int), 4)),
        ("tokens of the blocks .* 0 .. 5, got 6", training_tokens, (CAT, np.array([[4, 6]]))),
        (r"the shape \(2, 3\) of counts", language_model_loss, (ONES[:, :1], ONES, 0.05)),
        ("smoothing must .* at least 0", language_model_loss, (ONES, ONES, -1.0)),
        ("counts must be at least 0", language_model_loss, (ONES, 0 * ONES, 0.1)),
        ("counts must be at least 0", language_model_loss, (ONES, [[3, -1, 0]] * 2, 0.1)),
        ("counts must be at least 0", language_model_loss, (ONES, [[np.nan, 1, 1]] * 2, 0.1)),
        ("must be log-probabilities", expand_bigrams, (CAT, np.full((8, 4), 0.25))),
        (r"at least the shape \(8, 4\)", expand_bigrams, (CAT, np.log(np.full((7, 4), 0.25)))),
    ],
)
def test_bad_parts(message, function, arguments):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
