"""A language model as a policy: its table, and the sentences it writes."""

import numpy as np
import pytest
import scipy.special
from cat import describe_the_cat

from minirl.distributions import Categorical
from minirl.envs.arithmetic import arithmetic
from minirl.envs.chain import Chain
from minirl.exact import sequences, tabular
from minirl.exact.tabular import FiniteMDP
from minirl.networks import Table
from minirl.policy import Policy
from minirl.rlhf import DPO, Objective, Preferences
from minirl.rlhf.language_model import (
    context_features,
    full_prefix_policy,
    log_table,
    network_policy,
    sample_responses,
)

CAT = describe_the_cat()
RANDOM = scipy.special.log_softmax(np.random.default_rng(0).normal(size=(2, 13, 4)), axis=2)


def response_probability(table, response):
    """The product of the token probabilities (C, V) along one response."""
    context, probability = 0, 1.0
    for word in CAT.words(response):
        token = CAT.vocabulary.index(word)
        probability *= table[context, token]
        context = 3 * context + 1 + token
    return probability if response >= 13 else probability * table[context, 3]


def always(*tokens):
    """Log-probabilities that say tokens[l] after l words, to every prompt."""
    log_probs = np.full((2, 13, 4), -np.inf)
    for level, token in zip((slice(0, 1), slice(1, 4), slice(4, 13)), tokens, strict=True):
        log_probs[:, level, token] = 0.0
    return log_probs


def test_a_table_comes_back_from_its_policy():
    policy = full_prefix_policy(CAT, RANDOM)
    np.testing.assert_allclose(log_table(CAT, policy), RANDOM, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(
        log_table(CAT, full_prefix_policy(CAT, always(0, 1, 3))), always(0, 1, 3)
    )
    unnormalised = full_prefix_policy(CAT, RANDOM + np.arange(26.0).reshape(2, 13, 1))
    np.testing.assert_allclose(log_table(CAT, unnormalised), RANDOM, rtol=0, atol=1e-13)


def test_a_table_is_normalised_in_float64_whatever_the_policy_computes_in():
    """A network other than a table may be float32."""

    class Network:
        def forward(self, theta, x):
            return theta.reshape(26, 4)[x], None

    short = Policy(Network(), Categorical, RANDOM.astype("float32"))
    table = log_table(CAT, short)
    assert table.dtype == np.float64
    np.testing.assert_allclose(np.exp(table).sum(axis=2), 1.0, rtol=1e-14)


def test_the_policy_sees_the_environments_observations():
    policy = full_prefix_policy(CAT, RANDOM)
    paths = CAT.paths(np.array([1]), np.array([CAT.response("soft cat")]))
    log_probs = policy(paths.observations[0]).log_prob(paths.tokens[0])
    # "Describe the dog": soft after nothing, cat after "soft" (node 3), EOS after node 3*3+1+0.
    expected = [RANDOM[1, 0, 2], RANDOM[1, 3, 0], RANDOM[1, 10, 3]]
    np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-14)
    ended = policy(np.array([26]))
    np.testing.assert_allclose(ended.probs, 0.25)


def test_sampled_responses_have_their_exact_frequencies():
    draws = 40_000
    prompts = np.tile([0, 1], draws)
    sampled = sample_responses(
        CAT, full_prefix_policy(CAT, RANDOM), prompts, np.random.default_rng(0)
    )
    for prompt in range(2):
        counts = np.bincount(sampled[prompts == prompt], minlength=40)
        table = np.exp(RANDOM[prompt])
        exact = np.array([response_probability(table, response) for response in range(40)])
        assert exact.sum() == pytest.approx(1.0, abs=1e-12)
        assert exact.min() * draws > 10
        z = (counts - draws * exact) / np.sqrt(draws * exact * (1 - exact))
        assert abs(z).max() < 4
        assert (z**2).mean() > 0.4  # and it is a sample, not a quota


def test_a_model_of_another_task_is_refused_everywhere():
    cat, arithmetic_task = describe_the_cat(), arithmetic()
    model = full_prefix_policy(cat, np.log(np.full((2, 13, 4), 0.25)))
    told = "Table of 27 observations and 4 tokens, a model of another task"
    prompts, rng = np.zeros(3, dtype=int), np.random.default_rng(0)
    with pytest.raises(ValueError, match=told):
        log_table(arithmetic_task, model)
    with pytest.raises(ValueError, match=told):
        sample_responses(arithmetic_task, model, prompts, rng)
    with pytest.raises(ValueError, match=told):
        Objective(arithmetic_task, model, arithmetic_task.utilities, 0.3)
    labels = Preferences(prompts[:1], np.array([1]), np.array([2]), np.array([1.0]))
    with pytest.raises(ValueError, match=told):
        DPO().fit(arithmetic_task, model, labels, rng)


def with_context(value):
    log_probs = RANDOM.copy()
    log_probs[1, 4] = value
    return log_probs


@pytest.mark.parametrize(
    ("log_probs", "message"),
    [
        (np.zeros((2, 4, 4)), r"log_probs must have shape \(2, 13, 4\), got \(2, 4, 4\)"),
        # exp(p) is nearly uniform: a policy of .575 came out where .997 was meant
        (np.exp(RANDOM), "got probabilities: .* pass their logarithm"),
        (with_context(np.nan), "for prompt 1, context 4"),
        (with_context(np.inf), "for prompt 1, context 4"),
        (with_context(-np.inf), "for prompt 1, context 4"),
    ],
)
def test_what_is_no_table_of_log_probabilities_is_refused(log_probs, message):
    with pytest.raises(ValueError, match=message):
        full_prefix_policy(CAT, log_probs)
    assert full_prefix_policy(CAT, RANDOM.tolist()).parameters.shape == (27 * 4,)


def test_prompts_are_numbers_or_texts_of_the_task():
    policy = full_prefix_policy(CAT, RANDOM)
    sampled = [
        sample_responses(CAT, policy, prompts, np.random.default_rng(5))
        for prompts in (np.array([1, 0, 1]), [1, 0, 1], [CAT.prompts[i] for i in (1, 0, 1)])
    ]
    np.testing.assert_array_equal(sampled[0], sampled[1])
    np.testing.assert_array_equal(sampled[0], sampled[2])
    for prompt in (-1, 2):
        with pytest.raises(ValueError, match=f"prompts must be whole numbers 0 .. 1, got {prompt}"):
            sample_responses(CAT, policy, np.array([prompt]), np.random.default_rng(0))


def test_an_exact_function_says_how_a_policy_becomes_a_table():
    policy = full_prefix_policy(CAT, RANDOM)
    with pytest.raises(ValueError, match=r"got a Policy; its table is minirl\.rlhf\.log_table"):
        sequences.visitation(policy)
    with pytest.raises(ValueError, match="its table is sequences.response_log_probs"):
        sequences.entropy(policy)
    mdp = FiniteMDP.from_gymnasium(Chain(), 0.9)
    table = Policy(Table(5, 2), Categorical, np.zeros(10))
    with pytest.raises(ValueError, match=r"its table is policy\(numpy\.arange\(S\)\)\.probs"):
        tabular.state_values(mdp, table)
    np.testing.assert_array_equal(table(np.arange(5)).probs, np.full((5, 2), 0.5))


def features_by_words(prompt, context):
    """One row of `context_features` of the cat task, from the words of the context."""
    words = CAT.words(context)
    row = [float(prompt == 0), float(prompt == 1)]
    row += [float(len(words) == place) for place in range(3)]
    for place in range(2):
        row += [float(len(words) > place and words[place] == w) for w in ("cat", "dog", "soft")]
    return row


def test_features_are_the_prompt_the_position_and_each_previous_word():
    rows = [features_by_words(prompt, context) for prompt in range(2) for context in range(13)]
    np.testing.assert_array_equal(context_features(CAT), [*rows, [0.0] * 11])


def test_features_of_prompts_replace_their_one_hot():
    given = context_features(CAT, np.array([[0.5], [2.0]]))
    np.testing.assert_array_equal(given[:, 1:], context_features(CAT)[:, 2:])
    np.testing.assert_array_equal(given[:, 0], [0.5] * 13 + [2.0] * 13 + [0.0])
    with pytest.raises(ValueError, match=r"prompt_features must have shape \(2, K\).*\(3, 2\)"):
        context_features(CAT, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="prompt_features must .*finite"):
        context_features(CAT, np.array([[0.0], [np.inf]]))


def test_a_network_is_a_language_model():
    policy = network_policy(CAT, np.random.default_rng(0), hidden_sizes=(5,))
    table = log_table(CAT, policy)
    np.testing.assert_allclose(np.exp(table), 0.25, atol=0.02)  # a fresh one is nearly uniform
    theta = np.random.default_rng(1).normal(size=policy.network.size)
    policy = policy.with_parameters(theta)
    table = log_table(CAT, policy)
    prompts = np.zeros(20_000, dtype=int)
    sampled = sample_responses(CAT, policy, prompts, np.random.default_rng(0))
    exact = np.exp(sequences.response_log_probs(table))[0]
    counts = np.bincount(sampled, minlength=40)
    z = (counts - 20_000 * exact) / np.sqrt(20_000 * exact * (1 - exact))
    assert abs(z[exact * 20_000 > 10]).max() < 4


def test_a_network_of_another_task_is_refused():
    policy = network_policy(CAT, np.random.default_rng(0))
    with pytest.raises(ValueError, match="Features of 27 observations and 4 tokens.*another task"):
        log_table(arithmetic(), policy)
    with pytest.raises(ValueError, match="every width in hidden_sizes .*got 0"):
        network_policy(CAT, np.random.default_rng(0), hidden_sizes=(0,))
