"""`align` against the loop written out."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cat import describe_the_cat
from scipy.special import log_softmax

from minirl.algorithms import PPO, PolicyGradient
from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.optimizers import SGD, at_progress
from minirl.policy import make_critic
from minirl.presets import preset
from minirl.rlhf.align import ENVIRONMENT, align
from minirl.rlhf.kl import AdaptiveReferenceBeta, ReferenceKL
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.rlhf.objective import Objective
from minirl.rollout import reset
from minirl.training import (
    TrainingStopped,
    advantage_stage,
    new_learner,
    optimisation_stage,
    rollout_stage,
    train,
)

CAT = describe_the_cat()
UTILITIES = CAT.utilities
NAMES = ["policy-gradient", "natural-gradient", "trpo", "ppo", "rloo", "grpo"]


def random_policy(seed, scale=1.0):
    logits = scale * np.random.default_rng(seed).normal(size=(2, 13, 4))
    return full_prefix_policy(CAT, log_softmax(logits, axis=2))


REFERENCE = random_policy(0)
OBJECTIVE = Objective(CAT, REFERENCE, UTILITIES, 0.3)


def columns_of(result):
    """The history without what a clock says."""
    columns = result.history.columns()
    del columns["cpu_seconds"]
    return columns


def same(one, other):
    assert one.policy.parameters.tobytes() == other.policy.parameters.tobytes()
    assert one.critic.parameters.tobytes() == other.critic.parameters.tobytes()
    assert columns_of(one).keys() == columns_of(other).keys()
    for name, column in columns_of(one).items():
        np.testing.assert_array_equal(column, columns_of(other)[name], err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_aligning_is_training_with_the_penalty_written_out(name):
    rewards = np.random.default_rng(1).normal(size=UTILITIES.shape)
    settings = preset(ENVIRONMENT, name).settings
    written_out = train(
        partial(TokenGenerationVectorEnv, task=CAT, rewards=rewards),
        preset(ENVIRONMENT, name).algorithm,
        total_episodes=2000,
        seed=2,
        settings=replace(settings, reward_transform=ReferenceKL(REFERENCE, 0.4)),
        policy=REFERENCE,
        measure=OBJECTIVE.measure,
    )
    aligned = align(
        CAT, REFERENCE, rewards, name, sentences=2000, beta=0.4, seed=2, measure=OBJECTIVE.measure
    )
    same(written_out, aligned)
    assert (columns_of(aligned)["reference_beta"] == 0.4).all()
    assert aligned.history.finished_episodes >= 2000
    other_seed = align(CAT, REFERENCE, rewards, name, sentences=2000, beta=0.4, seed=3)
    assert not np.array_equal(other_seed.policy.parameters, aligned.policy.parameters)


def test_seed_0_and_silence_if_nothing_else_is_asked_for(capsys):
    task = CAT, REFERENCE, UTILITIES, "policy-gradient"
    plain = align(*task, sentences=1)
    assert capsys.readouterr().err == ""
    same(plain, align(*task, sentences=1, seed=0, progress=True))
    assert "100%" in capsys.readouterr().err


def test_without_a_penalty_there_is_none():
    written_out = train(
        partial(TokenGenerationVectorEnv, task=CAT, rewards=UTILITIES),
        preset(ENVIRONMENT, "ppo").algorithm,
        total_episodes=1500,
        seed=2,
        settings=preset(ENVIRONMENT, "ppo").settings,
        policy=REFERENCE,
    )
    aligned = align(CAT, REFERENCE, UTILITIES, "ppo", sentences=1500, beta=None, seed=2)
    same(written_out, aligned)
    assert not [name for name in columns_of(aligned) if name.startswith("reference")]


def test_given_settings_and_algorithms_are_used_except_for_the_transform():
    """The transform of the settings gives way to the penalty; everything else stays."""
    settings = replace(
        preset(ENVIRONMENT, "rloo").settings,
        num_envs=64,
        reward_transform=ReferenceKL(REFERENCE, 9),
    )
    algorithm = PolicyGradient(learning_rate=1.0, optimizer=SGD())
    result = align(CAT, REFERENCE, UTILITIES, algorithm, sentences=129, beta=0.2, settings=settings)
    assert result.history.finished_episodes == 192
    assert (columns_of(result)["reference_beta"] == 0.2).all()
    without = align(
        CAT, REFERENCE, UTILITIES, algorithm, sentences=129, beta=None, settings=settings
    )
    assert "reference_beta" not in columns_of(without)
    changed = replace(preset(ENVIRONMENT, "ppo"), algorithm=PPO(learning_rate=0.01))
    result = align(CAT, REFERENCE, UTILITIES, changed, sentences=512)
    assert result.history.finished_episodes == 512  # one rollout of the preset for PPO


@pytest.mark.parametrize("name", NAMES)
def test_every_name_works_unchanged_on_another_task(name):
    result = align(
        CAT, REFERENCE, UTILITIES, name, sentences=16_384, seed=4, measure=OBJECTIVE.measure
    )
    measured = columns_of(result)
    assert measured["exact_objective"][0] == OBJECTIVE.value(REFERENCE).objective
    assert measured["exact_reference_kl"][0] == 0.0
    assert OBJECTIVE.fraction_of_optimum(result.policy) > 0.98
    assert np.isclose(
        measured["exact_objective"],
        measured["exact_reward"] - 0.3 * measured["exact_reference_kl"],
        rtol=0,
        atol=1e-12,
    ).all()


def test_the_adaptive_coefficient_brings_the_kl_to_its_target():
    """From a beta ten times too small and one ten times too large."""
    target = 0.5
    for initial in (0.06, 6.0):
        controller = AdaptiveReferenceBeta(initial=initial, target=target, horizon=2000.0)
        result = align(
            CAT,
            REFERENCE,
            UTILITIES,
            preset(ENVIRONMENT, "trpo").algorithm,
            sentences=120_000,
            beta=controller,
            measure=OBJECTIVE.measure,
        )
        measured = columns_of(result)
        assert measured["reference_beta"][0] == initial
        assert measured["exact_reference_kl"][-20:].mean() == pytest.approx(target, rel=0.1)
        assert 0.5 < measured["reference_beta"][-1] < 0.8  # the optimum has this KL at 0.6


def with_one(value):
    rewards = UTILITIES.copy()
    rewards[1, CAT.response("soft dog")] = value
    return rewards


@pytest.mark.parametrize(
    ("rewards", "beta", "message"),
    [
        (UTILITIES, 0, "beta must be a finite number above 0, got"),
        (UTILITIES, math.nan, "beta must be a finite number above 0, got"),
        (with_one(math.nan), 0.3, "finite numbers, got nan for 'soft dog' to 'Describe the dog'"),
        (with_one(-math.inf), 0.3, "finite numbers, got -inf for 'soft dog' to 'Describe the dog'"),
        (np.zeros((2, 39)), 0.3, r"rewards must have shape \(2, 40\), got"),
        (np.zeros((40, 2)), 0.3, r"rewards must have shape \(2, 40\), got"),
        (np.zeros(80), 0.3, r"rewards must have shape \(2, 40\), got"),
    ],
)
def test_bad_rewards_and_betas_are_named(rewards, beta, message):
    with pytest.raises(ValueError, match=message):
        align(CAT, REFERENCE, rewards, "ppo", sentences=10, beta=beta)
    with pytest.raises(ValueError, match=message):
        Objective(CAT, REFERENCE, rewards, beta)


def test_a_reference_that_does_not_fit_or_excludes_a_token_is_named():
    large = arithmetic()
    with pytest.raises(ValueError, match="does not fit the observation space Discrete"):
        align(large, REFERENCE, large.utilities, "ppo", sentences=10)
    longer = replace(CAT, max_words=4)
    with pytest.raises(ValueError, match=r"states=27.*does not fit.*Discrete\(81\)"):
        align(longer, REFERENCE, longer.utilities, "ppo", sentences=10)
    log_probs = log_table(CAT, REFERENCE)
    log_probs[0, 0, 1] = -np.inf
    excluding = full_prefix_policy(CAT, log_softmax(log_probs, axis=2))
    with pytest.raises(ValueError, match="reference must have finite parameters.*got -inf"):
        align(CAT, excluding, UTILITIES, "ppo", sentences=10)


@pytest.mark.parametrize(
    ("algorithm", "sentences", "message"),
    [
        ("dpo", 10, "algorithm name 'dpo' is unknown; choose from the"),
        (object(), 10, "algorithm must be .* an object with init, update, got"),
        ("ppo", 0, "^sentences must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_named(algorithm, sentences, message):
    with pytest.raises(ValueError, match=message):
        align(CAT, REFERENCE, UTILITIES, algorithm, sentences=sentences)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("factor", [1e-9, 1e6, 1e20, 1e300, 1e-300])
def test_a_beta_far_from_the_rewards_is_refused(unit, factor):
    """One unit for rewards and beta: the range follows the rewards."""
    told = r"^beta must be (from .* to .* for these rewards|a finite number above 0)"
    beta, rewards = factor * unit, unit * UTILITIES
    with pytest.raises(ValueError, match=told):
        Objective(CAT, REFERENCE, rewards, beta)
    for given in (beta, AdaptiveReferenceBeta(initial=beta)):
        with pytest.raises(ValueError, match=told):
            align(CAT, REFERENCE, rewards, "ppo", sentences=8, beta=given)


def test_the_kl_of_grpos_paper_is_in_the_loss_with_the_same_beta():
    """The rewards then contain no KL, and a larger beta keeps the policy nearer."""
    rewards = (np.median(UTILITIES, axis=1, keepdims=True) < UTILITIES).astype(float)
    arguments = {"sentences": 15_000, "seed": 1, "measure": OBJECTIVE.measure}
    runs = {
        beta: align(CAT, REFERENCE, rewards, "grpo-paper", beta=beta, **arguments)
        for beta in (None, 0.05, 3.0)
    }
    kls = {beta: columns_of(run)["exact_reference_kl"][-1] for beta, run in runs.items()}
    assert kls[None] > kls[0.05] > 1.5 * kls[3.0] > 0
    for run in runs.values():
        assert "reference_k1" not in columns_of(run)
    described = [run.description["algorithm"]["penalty"] for run in runs.values()]
    assert described[0] is None
    assert [item["beta"] for item in described[1:]] == [0.05, 3.0]
    with pytest.raises(ValueError, match="beta must be a number or None for an algorithm with"):
        align(CAT, REFERENCE, rewards, "grpo-paper", beta=AdaptiveReferenceBeta(), sentences=10)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_samples_are_as_old_as_the_lag(lag):
    """Update u learns from samples of the policy before update u - lag, or of the first one."""
    chosen = preset(ENVIRONMENT, "dr-grpo")
    algorithm = at_progress(chosen.algorithm, 0.0)
    settings = replace(chosen.settings, sampling_lag=lag)
    sampled, trained = [], []
    envs = TokenGenerationVectorEnv(settings.num_envs, CAT, (UTILITIES > 0).astype(float))
    critic = make_critic(envs.single_observation_space, np.random.default_rng(0))
    learner = new_learner(algorithm, settings, REFERENCE, critic)
    state, rng = reset(envs, seed=0), np.random.default_rng(0)
    for _ in range(5):
        rollout, state = rollout_stage(envs, learner, settings, state, rng)
        batch, learner, _ = advantage_stage(rollout, learner, settings)
        sampled.append(batch.log_probs.astype(float))
        trained.append([learner.policy, batch])
        learner, _ = optimisation_stage(batch, learner, algorithm, settings, rng)
    for update, (_, batch) in enumerate(trained):
        author = trained[max(0, update - lag)][0]
        log_probs = author(batch.observations).log_prob(batch.actions)
        np.testing.assert_allclose(sampled[update], log_probs, rtol=1e-6)
        if lag and update:
            current = trained[update][0](batch.observations).log_prob(batch.actions)
            assert np.abs(sampled[update] - current).max() > 1e-3


@pytest.mark.parametrize("name", ["maxrl", "pass-at-k"])
def test_algorithms_for_verdicts_refuse_other_returns_before_the_first_update(name):
    """The KL penalty, which `align` subtracts by default, makes other numbers of them."""
    verdicts = (np.median(UTILITIES) < UTILITIES).astype(float)

    def measure(*_):
        raise AssertionError("the training had begun")

    run = partial(align, CAT, REFERENCE, algorithm=name, sentences=8, measure=measure)
    with pytest.raises(ValueError, match=r"^beta must be None with \w+, .* got 0.3; the KL"):
        run(verdicts)
    with pytest.raises(ValueError, match=r"^rewards for \w+ must be 0 or 1, got 0.5; use the"):
        run(verdicts / 2, beta=None)
    with pytest.raises(TrainingStopped, match="begun"):
        run(verdicts, beta=None)
