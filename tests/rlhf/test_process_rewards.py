"""Potential-based shaping as a reward transform, against the exact side."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cat import describe_the_cat
from scipy.special import log_softmax

from minirl import preset, train
from minirl.advantages import RewardToGo
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.exact import sequences
from minirl.exact.process_rewards import gradient_moments, shaped_rewards
from minirl.policy import make_critic
from minirl.rlhf.align import ENVIRONMENT
from minirl.rlhf.kl import ReferenceKL
from minirl.rlhf.language_model import full_prefix_policy
from minirl.rlhf.objective import Objective
from minirl.rlhf.process_rewards import PotentialShaping, soft_values
from minirl.rollout import reset
from minirl.training import advantage_stage, new_learner, rollout_stage
from minirl.vector_env import make_vector_env

CAT, BETA = describe_the_cat(), 0.5
RNG = np.random.default_rng(0)
REFERENCE_TABLE = log_softmax(RNG.normal(size=(2, 13, 4)), axis=2)
TABLE = log_softmax(REFERENCE_TABLE + 0.5 * RNG.normal(size=(2, 13, 4)), axis=2)
REFERENCE, POLICY = (full_prefix_policy(CAT, table) for table in (REFERENCE_TABLE, TABLE))
OBJECTIVE = Objective(CAT, REFERENCE, CAT.utilities, BETA)
ANY = RNG.normal(size=(2, 13))
ENVIRONMENTS = 64


def settings_and_envs(transform):
    chosen = preset(ENVIRONMENT, "policy-gradient")
    settings = replace(
        chosen.settings,
        num_envs=ENVIRONMENTS,
        advantages=RewardToGo(discount=1.0),
        reward_transform=transform,
    )
    make = partial(TokenGenerationVectorEnv, task=CAT, rewards=CAT.utilities)
    return chosen.algorithm, settings, make_vector_env(make, ENVIRONMENTS)


def a_rollout(transform=None):
    algorithm, settings, envs = settings_and_envs(transform)
    critic = make_critic(envs.single_observation_space, np.random.default_rng(0))
    learner = new_learner(algorithm, settings, POLICY, critic)
    return rollout_stage(envs, learner, settings, reset(envs, seed=1), np.random.default_rng(2))[0]


def test_soft_values_are_those_of_the_exact_side():
    _, values = sequences.soft_optimal_policy(REFERENCE_TABLE, CAT.utilities, BETA)
    np.testing.assert_allclose(soft_values(OBJECTIVE), values, atol=1e-14)


@pytest.mark.parametrize("first", [None, ReferenceKL(REFERENCE, BETA)])
def test_the_reward_of_each_token_is_the_exact_one(first):
    """Sampled sentences end with EOS and at the limit; both end with a potential of 0."""
    rollout = a_rollout()
    shaping = PotentialShaping(CAT, ANY, first)
    state, rewards, metrics = shaping.transform(shaping.init(ENVIRONMENTS), rollout, POLICY)
    exact = shaped_rewards(CAT.utilities, ANY)
    if first is not None:
        exact -= BETA * (TABLE - REFERENCE_TABLE)
    rows = rollout.valid
    contexts, tokens = rollout.observations[rows], rollout.actions[rows]
    np.testing.assert_allclose(rewards[rows], exact.reshape(-1, 4)[contexts, tokens], atol=1e-12)
    ends = tokens[rollout.done[rows]]
    assert (ends == 3).any()
    assert (ends != 3).any()
    assert (state, len(metrics)) == ((None, 0) if first is None else (BETA, 5))
    # The potential after the last token is 0, whatever the rows after it hold.
    refilled = replace(rollout, observations=np.where(rows, rollout.observations, 0))
    again = shaping.transform(shaping.init(ENVIRONMENTS), refilled, POLICY)[1]
    np.testing.assert_array_equal(again[rows], rewards[rows])
    # A shift by one position, a common mistake, is not exact.
    shifted = np.roll(rewards, 1, axis=0)[rows]
    assert np.abs(shifted - exact.reshape(-1, 4)[contexts, tokens]).max() > 0.1


def gradients(transform, batches=300):
    """The policy gradient of single sentences, (batches * ENVIRONMENTS, parameters)."""
    algorithm, settings, envs = settings_and_envs(transform)
    critic = make_critic(envs.single_observation_space, np.random.default_rng(0))
    learner = new_learner(algorithm, settings, POLICY, critic)
    state, rng, rows = reset(envs, seed=1), np.random.default_rng(2), []
    for _ in range(batches):
        rollout, state = rollout_stage(envs, learner, settings, state, rng)
        batch, _, _ = advantage_stage(rollout, learner, settings)
        scores = np.zeros((ENVIRONMENTS, *TABLE.shape))
        flat = scores.reshape(ENVIRONMENTS, -1, 4)
        column = np.nonzero(rollout.valid)[1]
        probs = np.exp(TABLE).reshape(-1, 4)[batch.observations]
        rise = np.eye(4)[batch.actions] - probs
        np.add.at(flat, (column, batch.observations), batch.advantages[:, None] * rise)
        rows.append(flat.reshape(ENVIRONMENTS, -1))
    return np.concatenate(rows)


@pytest.mark.parametrize("scale", [0.0, 5.0])
def test_sampled_gradients_have_the_exact_mean_and_variance(scale):
    """Also with a wrong potential, which raises the variance and leaves the mean."""
    samples = gradients(PotentialShaping(CAT, scale * ANY, ReferenceKL(REFERENCE, BETA)))
    penalty = BETA * (TABLE - REFERENCE_TABLE)
    exact = gradient_moments(TABLE, shaped_rewards(CAT.utilities, 0 * ANY) - penalty, scale * ANY)
    directions = np.random.default_rng(3).normal(size=(5, samples.shape[1]))
    projected = samples @ directions.T
    error = projected.std(axis=0, ddof=1) / np.sqrt(len(samples))
    z = (projected.mean(axis=0) - directions @ exact.mean.ravel()) / error
    assert np.abs(z).max() < 4
    squares = ((samples - exact.mean.ravel()) ** 2).sum(axis=1)
    z = (squares.mean() - exact.variance) / (squares.std(ddof=1) / np.sqrt(len(samples)))
    assert abs(z) < 4
    other = gradient_moments(
        TABLE, shaped_rewards(CAT.utilities, 0 * ANY) - penalty, (5.0 - scale) * ANY
    )
    assert abs(squares.mean() - other.variance) > 6 * squares.std() / np.sqrt(len(samples))


def test_training_depends_on_the_potential_as_the_variance_does():
    """The same sentences and steps: soft values, no potential, a wrong potential."""
    fractions = []
    for potential in (soft_values(OBJECTIVE), 0 * ANY, 5 * ANY):
        transform = PotentialShaping(CAT, potential, ReferenceKL(REFERENCE, BETA))
        algorithm, settings, _ = settings_and_envs(transform)
        result = train(
            partial(TokenGenerationVectorEnv, task=CAT, rewards=CAT.utilities),
            algorithm,
            total_episodes=6400,
            settings=settings,
            policy=REFERENCE,
        )
        fractions.append(OBJECTIVE.fraction_of_optimum(result.policy))
    assert fractions[0] > 0.6 > 0.4 > fractions[1] > 0 > fractions[2]


@pytest.mark.parametrize(
    ("potential", "words"),
    [
        (np.zeros((2, 12)), r"potential must have shape \(2, 13\), one number per context, got"),
        (np.zeros((2, 40)), r"got \(2, 40\); numbers per response depend on later tokens"),
        (np.full((2, 13), np.inf), "potential must consist of finite numbers, got inf"),
    ],
)
def test_a_potential_that_is_no_function_of_the_context_is_one_clear_line(potential, words):
    with pytest.raises(ValueError, match=words) as error:
        PotentialShaping(CAT, potential)
    assert "\n" not in str(error.value)


def test_sentences_must_be_whole():
    rollout = a_rollout()
    done = rollout.done & (np.cumsum(rollout.done, axis=0) > 1)
    with pytest.raises(ValueError, match="PotentialShaping needs settings with one whole"):
        PotentialShaping(CAT, ANY).transform(None, replace(rollout, terminated=done), POLICY)
