"""The presets for verifiable rewards: their sampled updates agree with the exact expectations.

The task has two prompts of different difficulty and 40 responses. A batch is collected by the
training loop's own stages, and PPO's loss on it is differentiated. The mean over many batches must
be `expected_update`, within four standard errors in each of several directions.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.special
from cat import describe_the_cat, verdicts

from minirl import preset
from minirl.advantages import PassAtK, SuccessNormalized
from minirl.algorithms.ppo import Clipped
from minirl.algorithms.ratio_objectives import ClippedWeight, SequenceClip, SoftGate
from minirl.algorithms.reference_loss import ReferenceLoss
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.envs.verifiable import first_answer_correct, verifiable
from minirl.exact import sequences
from minirl.exact.groups import (
    clipped_gate,
    constant_weight_gate,
    expected_update,
    reference_gradient,
    soft_gate,
)
from minirl.policy import make_critic
from minirl.presets import VERIFIED
from minirl.rlhf.align import ENVIRONMENT, align
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.rlhf.sft import fine_tune, sample_demonstrations
from minirl.rollout import reset
from minirl.training import TrainingStopped, advantage_stage, new_learner, rollout_stage
from minirl.vector_env import make_vector_env

CAT = describe_the_cat()
RNG = np.random.default_rng(0)
TABLE = scipy.special.log_softmax(RNG.normal(size=(2, 13, 4)), axis=2)
CURRENT = scipy.special.log_softmax(TABLE + 1.0 * RNG.normal(size=TABLE.shape), axis=2)
REWARDS = verdicts(CAT)
BATCHES = 400
GROUP_SIZE, GROUPS = 4, 4
SMALL = {"num_envs": GROUP_SIZE * GROUPS, "group_size": GROUP_SIZE}


def sampled_gradients(name, sampling, current, batches=BATCHES, penalty=None, **changes):
    """The gradient of minus the loss, with respect to the logits, on each of many batches.

    With `penalty`, the loss is this term alone.
    """
    chosen = preset(ENVIRONMENT, name)
    settings = replace(chosen.settings, **{**SMALL, **changes})
    algorithm = replace(chosen.algorithm, penalty=None)
    policy, evaluated = full_prefix_policy(CAT, sampling), full_prefix_policy(CAT, current)
    make = partial(TokenGenerationVectorEnv, task=CAT, rewards=REWARDS)
    envs = make_vector_env(make, settings.num_envs)
    critic = make_critic(envs.single_observation_space, np.random.default_rng(0))
    learner = new_learner(algorithm, settings, policy, critic)
    state, rng = reset(envs, seed=1), np.random.default_rng(2)
    gradients = []
    for _ in range(batches):
        rollout, state = rollout_stage(envs, learner, settings, state, rng)
        batch, _, _ = advantage_stage(rollout, learner, settings)
        if algorithm.normalize_advantages:
            batch = batch.with_normalized_advantages()
        new, cache = evaluated.forward(batch.observations)
        ratio = np.exp(new.log_prob(batch.actions) - batch.log_probs)
        _, d_log_prob = algorithm.objective.loss(ratio, batch)
        d_eta = d_log_prob[:, None] * new.grad_log_prob(batch.actions)
        if penalty is not None:
            d_eta = penalty.loss(new, batch)[1]
        gradient = -evaluated.vjp(cache, d_eta)
        gradients.append(gradient[: TABLE.size])  # without the row of 'ended'
    return np.array(gradients)


def z_scores(gradients, exact, other):
    """Of the mean gradient against the exact one and against another one, both (directions,).

    The directions are random, except for the first two: the one from one to the other, which shows
    a wrong direction best, and the exact gradient itself, which shows a wrong length best.
    """
    directions = np.random.default_rng(3).normal(size=(6, exact.size))
    directions[:2] = (other - exact).ravel(), exact.ravel()
    samples = gradients @ directions.T
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return [(samples.mean(axis=0) - directions @ truth.ravel()) / error for truth in (exact, other)]


EXACT = {
    "grpo-paper": {"averaging": "response"},
    "dr-grpo": {"advantage": "centred"},
    "dapo": {"averaging": "group", "keep": "redraw"},
    "gspo": {"averaging": "response"},
    "cispo": {"averaging": "group"},
    "sapo": {"averaging": "response"},
    "maxrl": {"advantage": "success"},
    "grpo": {},
}


@pytest.mark.parametrize("name", EXACT)
def test_the_first_update_of_each_preset_is_its_exact_expectation(name):
    gradients = sampled_gradients(name, TABLE, TABLE)
    exact = expected_update(TABLE, REWARDS, GROUP_SIZE, **EXACT[name])
    averaging = {"averaging": "sum" if EXACT[name].get("averaging") else "response"}
    other = expected_update(TABLE, REWARDS, GROUP_SIZE, **{**EXACT[name], **averaging})
    z, z_other = z_scores(gradients, exact, other)
    assert np.abs(z).max() < 4
    assert np.abs(z_other).max() > 6  # the test can tell the averages apart


@pytest.mark.parametrize("name", ["reinforce++", "reinforce++-baseline"])
def test_whitening_over_the_tokens_of_large_batches_keeps_the_direction(name):
    """The update tends to grad E[reward], divided by a deviation and by the mean length.

    A mean and a deviation over all tokens of a large batch are constants. A constant baseline has
    no effect on the expectation, whatever it is.
    """
    k = 2 if name.endswith("baseline") else 1
    exact = expected_update(TABLE, REWARDS, 2, advantage="leave-one-out")
    probs = np.exp(sequences.response_log_probs(TABLE)) / 2
    lengths = np.array([len(CAT.words(y)) + (y < CAT.num_contexts) for y in range(40)])
    p = 2 * (probs * REWARDS).sum(axis=1, keepdims=True)
    centred = (1 - 1 / k) * (REWARDS - p) if k > 1 else REWARDS
    noise = (k - 1) / k**2 * p * (1 - p)
    tokens = (probs * lengths).sum()
    mean = (probs * lengths * centred).sum() / tokens
    variance = (probs * lengths * (centred**2 + noise)).sum() / tokens - mean**2
    scale = (1 - 1 / k if k > 1 else 1) / (np.sqrt(variance) * tokens)
    large = {"num_envs": 1024, "group_size": k}
    gradients = sampled_gradients(name, TABLE, TABLE, batches=60, **large)
    options = {"advantage": "leave-one-out", "averaging": "response"}
    other = expected_update(TABLE, REWARDS, 2, **options)
    other *= np.linalg.norm(scale * exact) / np.linalg.norm(other)
    z, z_other = z_scores(gradients, scale * exact, other)
    assert np.abs(z).max() < 4
    assert np.abs(z_other).max() > 6  # a mean over each response has another direction


@pytest.mark.parametrize(
    ("name", "changes", "rewards", "message"),
    [
        ("dr-grpo", {"group_size": 1}, REWARDS, "it needs a rollout with groups, .*group_size=4"),
        ("dapo", SMALL, np.ones((2, 40)), "0 of 4 groups had different returns in 100 rollouts"),
        ("maxrl", SMALL, np.full((2, 40), 0.5), "rewards for .* must be 0 or 1, got 0.5; use"),
    ],
)
def test_groups_that_teach_nothing_are_refused_in_one_line(name, changes, rewards, message):
    chosen = preset(ENVIRONMENT, name)
    chosen = replace(chosen, settings=replace(chosen.settings, **changes))
    reference = full_prefix_policy(CAT, TABLE)
    with pytest.raises((ValueError, TrainingStopped), match=message) as caught:
        align(CAT, reference, rewards, chosen, sentences=16, beta=None)
    assert "\n" not in str(caught.value)


def test_groups_of_equal_rewards_change_nothing():
    chosen = preset(ENVIRONMENT, "grpo-paper")
    chosen = replace(chosen, settings=replace(chosen.settings, **SMALL))
    reference = full_prefix_policy(CAT, TABLE)
    run = align(CAT, reference, np.ones((2, 40)), chosen, sentences=64, beta=None)
    np.testing.assert_array_equal(run.policy.parameters, reference.parameters)
    run = align(CAT, reference, REWARDS, chosen, sentences=64, beta=None)
    assert (run.policy.parameters != reference.parameters).any()


STALE = {
    "grpo-paper": {"token_gate": clipped_gate(0.2, 0.2)},
    "dapo": {"token_gate": clipped_gate(0.2, 0.28)},
    "gspo": {"response_gate": clipped_gate(3e-4, 4e-4), "length_root": True},
    "cispo": {"token_gate": constant_weight_gate(2.0)},
    "sapo": {"token_gate": soft_gate(1.0, 1.05)},
}


@pytest.mark.parametrize("name", STALE)
def test_updates_from_stale_samples_are_their_exact_expectation(name):
    gradients = sampled_gradients(name, TABLE, CURRENT)
    options = {**EXACT[name], "log_sampling": TABLE}
    exact = expected_update(CURRENT, REWARDS, GROUP_SIZE, **options, **STALE[name])
    other = expected_update(CURRENT, REWARDS, GROUP_SIZE, **options)  # no correction
    z, z_other = z_scores(gradients, exact, other)
    assert np.abs(z).max() < 4
    assert np.abs(z_other).max() > 6  # the test can tell the gates apart


def test_the_presets_are_what_their_papers_say():
    def objective(name):
        return preset(ENVIRONMENT, name).algorithm.objective

    assert objective("grpo-paper") == objective("dr-grpo") == Clipped(0.2)
    assert objective("dapo") == Clipped(0.2, 0.28)
    assert objective("gspo") == SequenceClip(3e-4, 4e-4)
    assert isinstance(objective("cispo"), ClippedWeight)
    assert objective("sapo") == SoftGate(1.0, 1.05)
    assert preset(ENVIRONMENT, "grpo-paper").algorithm.penalty.beta == 0.04
    assert preset(ENVIRONMENT, "grpo-paper").settings.group_size == 64
    assert preset(ENVIRONMENT, "reinforce++-baseline").algorithm.penalty.estimator == "k2"
    assert preset(ENVIRONMENT, "dapo").settings.mixed_groups
    assert objective("maxrl") == objective("pass-at-k") == Clipped(0.2)
    assert preset(ENVIRONMENT, "maxrl").settings.advantages == SuccessNormalized()
    assert preset(ENVIRONMENT, "pass-at-k").settings.advantages == PassAtK(4)
    averagings = {name: preset(ENVIRONMENT, name).settings.averaging for name in VERIFIED}
    assert averagings == {
        "grpo-paper": "response",
        "dr-grpo": "sum",
        "dapo": "group",
        "gspo": "response",
        "cispo": "group",
        "reinforce++": "tokens",
        "reinforce++-baseline": "tokens",
        "sapo": "response",
        "maxrl": "sum",
        "pass-at-k": "sum",
    }
    # One pass over each batch: one step for the GRPO paper, four steps for all others.
    for name in VERIFIED:
        chosen = preset(ENVIRONMENT, name)
        assert chosen.algorithm.epochs == 1
        steps = chosen.settings.num_envs / chosen.algorithm.minibatch_size
        assert steps == (1 if name == "grpo-paper" else 4)


# ---------------------------------------------------------------- the length of answers


@pytest.fixture(scope="module")
def verified():
    """The task of notebook 13, prompts of equal difficulty, and the reference's table."""
    task = verifiable(first_answer_correct)
    data = sample_demonstrations(task, 2000, np.random.default_rng(0))
    return task, log_table(task, fine_tune(task, data).policy)


def lengths_after(task, log_policy, averaging, rate, steps):
    """Accuracy, mean tokens of right and of wrong answers after exact ascent, by enumeration."""
    responses = np.arange(task.num_responses)
    lengths = task.paths(np.zeros_like(responses), responses).valid.sum(axis=1)
    for _ in range(steps):
        options = {"advantage": "leave-one-out", "averaging": averaging}
        update = expected_update(log_policy, task.utilities, 16, **options)
        log_policy = scipy.special.log_softmax(log_policy + rate * update, axis=2)
    probs = np.exp(sequences.response_log_probs(log_policy)) / len(log_policy)
    right, wrong = probs * task.utilities, probs * (1 - task.utilities)
    return right.sum(), (right @ lengths).sum() / right.sum(), (wrong @ lengths).sum() / wrong.sum()


def test_a_mean_over_each_answer_shortens_right_answers_and_lengthens_wrong_ones(verified):
    task, start = verified
    before = lengths_after(task, start, "sum", 0.0, 0)
    np.testing.assert_allclose(before, (0.650, 3.137, 2.830), rtol=0, atol=0.0006)
    summed = lengths_after(task, start, "sum", 30.0, 100)
    averaged = lengths_after(task, start, "response", 90.0, 100)
    np.testing.assert_allclose(summed, (0.998, 3.175, 2.791), rtol=0, atol=0.0006)
    np.testing.assert_allclose(averaged, (0.998, 2.856, 2.862), rtol=0, atol=0.0006)
    early = lengths_after(task, start, "response", 90.0, 5)
    assert early[0] > 0.94  # nearly all of the lengthening happens before the accuracy is high
    assert early[2] - before[2] > 0.9 * (averaged[2] - before[2])


def test_residuals_on_the_token_task(verified):
    """Share of an update that is not along the gradient of p: 20 % and 2 to 5 %."""
    task, start = verified
    gradient = sequences.policy_gradient(start, start, task.utilities, 0.0)
    flat = gradient.reshape(4, -1)
    units = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    for averaging, size, low, high in (
        ("sum", 8, 0.0, 1e-12),
        ("response", 8, 0.19, 0.21),
        ("group", 4, 0.045, 0.049),
        ("group", 8, 0.021, 0.025),
    ):
        update = expected_update(start, task.utilities, size, averaging=averaging).reshape(4, -1)
        rest = update - (update * units).sum(axis=1, keepdims=True) * units
        shares = np.linalg.norm(rest, axis=1) / np.linalg.norm(update, axis=1)
        assert (low <= shares).all(), averaging
        assert (shares <= high).all(), averaging


@pytest.mark.parametrize(("name", "averaging"), [("grpo-paper", "response"), ("dapo", "group")])
def test_the_sampled_kl_in_the_loss_is_its_exact_expectation(name, averaging):
    penalty = ReferenceLoss("k3", 1.0, full_prefix_policy(CAT, CURRENT))
    gradients = sampled_gradients(name, TABLE, TABLE, penalty=penalty, mixed_groups=False)
    options = {"averaging": averaging}
    exact = -reference_gradient(TABLE, CURRENT, GROUP_SIZE, **options)
    other = -reference_gradient(TABLE, CURRENT, GROUP_SIZE, estimator="k2", **options)
    z, z_other = z_scores(gradients, exact, other)
    assert np.abs(z).max() < 4
    assert np.abs(z_other).max() > 6
