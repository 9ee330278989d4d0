"""Sampled updates from an older policy, and of pass@k, agree with their exact expectations."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.special
from cat import describe_the_cat, verdicts

from minirl import preset
from minirl.algorithms.ppo import Clipped, Unclipped, clipped_surrogate_loss
from minirl.algorithms.ratio_objectives import ClippedWeight, SequenceRatio, Uncorrected
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.exact import sequences
from minirl.exact.groups import clipped_gate, constant_weight_gate, expected_update, plain_gate
from minirl.exact.pass_at_k import centred_gradient_weights, pass_at_k, pass_at_k_gradient
from minirl.policy import make_critic
from minirl.rlhf.align import ENVIRONMENT, align
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.rollout import reset
from minirl.training import advantage_stage, new_learner, rollout_stage
from minirl.vector_env import make_vector_env

CAT = describe_the_cat()
RNG = np.random.default_rng(0)
SAMPLING = scipy.special.log_softmax(RNG.normal(size=(2, 13, 4)), axis=2)
CURRENT = scipy.special.log_softmax(SAMPLING + 0.7 * RNG.normal(size=SAMPLING.shape), axis=2)
REWARDS = verdicts(CAT)
GROUP_SIZE, GROUPS, BATCHES = 8, 4, 300


def sampled_gradients(name, objective):
    """Minus the gradient of the loss at CURRENT, on many batches that SAMPLING generated."""
    settings = replace(
        preset(ENVIRONMENT, name).settings, num_envs=GROUP_SIZE * GROUPS, group_size=GROUP_SIZE
    )
    algorithm = preset(ENVIRONMENT, name).algorithm
    evaluated = full_prefix_policy(CAT, CURRENT)
    make = partial(TokenGenerationVectorEnv, task=CAT, rewards=REWARDS)
    envs = make_vector_env(make, settings.num_envs)
    critic = make_critic(envs.single_observation_space, np.random.default_rng(0))
    learner = new_learner(algorithm, settings, full_prefix_policy(CAT, SAMPLING), critic)
    state, rng = reset(envs, seed=1), np.random.default_rng(2)
    gradients = []
    for _ in range(BATCHES):
        rollout, state = rollout_stage(envs, learner, settings, state, rng)
        batch, _, _ = advantage_stage(rollout, learner, settings)
        new, cache = evaluated.forward(batch.observations)
        ratio = np.exp(new.log_prob(batch.actions) - batch.log_probs)
        if isinstance(objective, Unclipped):
            _, d_log_prob = clipped_surrogate_loss(ratio, batch, np.inf)
        else:
            _, d_log_prob = objective.loss(ratio, batch)
        gradient = -evaluated.vjp(cache, d_log_prob[:, None] * new.grad_log_prob(batch.actions))
        gradients.append(gradient[: SAMPLING.size])
    return np.array(gradients)


def success_probabilities(table):
    """Of both prompts, (2,)."""
    return (np.exp(sequences.response_log_probs(table)) * REWARDS).sum(axis=1)


def largest_z(gradients, exact, other):
    """Over random directions, and the one that leads from `exact` to `other`."""
    directions = np.random.default_rng(3).normal(size=(6, exact.size))
    directions[0] = (other - exact).ravel()
    samples = gradients @ directions.T
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return [
        np.abs((samples.mean(axis=0) - directions @ truth.ravel()) / error).max()
        for truth in (exact, other)
    ]


CORRECTIONS = {
    "none": (Uncorrected(), {}),
    "tokens": (Unclipped(), {"token_gate": plain_gate}),
    "clipped": (Clipped(0.2), {"token_gate": clipped_gate(0.2, 0.2)}),
    "truncated tokens": (ClippedWeight(0.5), {"token_gate": constant_weight_gate(0.5)}),
    "sequence": (SequenceRatio(), {"response_gate": plain_gate}),
    "truncated": (SequenceRatio(largest=1.5), {"response_gate": constant_weight_gate(0.5)}),
}


@pytest.mark.parametrize("name", CORRECTIONS)
def test_every_correction_has_its_exact_expectation(name):
    objective, gate = CORRECTIONS[name]
    options = {"advantage": "centred", "log_sampling": SAMPLING}
    exact = expected_update(CURRENT, REWARDS, GROUP_SIZE, **options, **gate)
    truth = sequences.policy_gradient(CURRENT, CURRENT, REWARDS, 0.0) * (1 - 1 / GROUP_SIZE)
    other = truth
    if name == "sequence":
        np.testing.assert_allclose(exact, truth, rtol=0, atol=1e-14)
        other = expected_update(CURRENT, REWARDS, GROUP_SIZE, **options)
    z, z_other = largest_z(sampled_gradients("dr-grpo", objective), exact, other)
    assert z < 4
    assert z_other > 5  # the test can tell the correction from the true gradient


def test_the_update_of_pass_at_k_is_its_gradient():
    gradients = sampled_gradients("pass-at-k", SequenceRatio())
    exact = pass_at_k_gradient(CURRENT, REWARDS, 4)
    sampling = expected_update(
        CURRENT,
        REWARDS,
        GROUP_SIZE,
        advantage=GROUP_SIZE * centred_gradient_weights(GROUP_SIZE, 4),
        log_sampling=SAMPLING,
        response_gate=plain_gate,
    )
    z, z_other = largest_z(gradients, sampling, exact)
    assert z < 4
    # The weights count the right answers of the older policy. The sequence ratio corrects a
    # response, but not the others of its group: the prompt is weighted by its older difficulty.
    assert z_other > 5
    p = success_probabilities(SAMPLING)[:, None, None]
    gradients = 2 * sequences.policy_gradient(CURRENT, CURRENT, REWARDS, 0.0)
    np.testing.assert_allclose(sampling, 4 * (1 - p) ** 3 * gradients / 2, rtol=0, atol=1e-14)


def test_training_for_pass_at_k_raises_pass_at_k():
    reference = full_prefix_policy(CAT, SAMPLING)
    result = align(CAT, reference, REWARDS, "pass-at-k", sentences=4096, beta=None)
    before = pass_at_k(success_probabilities(SAMPLING), 4)
    after = pass_at_k(success_probabilities(log_table(CAT, result.policy)), 4)
    assert after[0] > before[0] + 0.1  # the second prompt is right once in 2,000 answers
    assert after[1] > before[1]
