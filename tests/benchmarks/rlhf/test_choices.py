"""Choices on the token task: the changed algorithms do what their names say."""

from dataclasses import replace

import numpy as np
import pytest

import minirl
from benchmarks.control import choices as choices_of_control
from benchmarks.rlhf import choices as script
from minirl.batch import Batch
from minirl.optimizers import at_progress


def test_averaged_tokens_make_every_sentence_weigh_the_same(monkeypatch):
    seen = []
    monkeypatch.setattr(
        minirl.PPO, "update", lambda self, state, batch, *others: seen.append(batch) or (state, {})
    )
    _, batch = token_batch()
    batch = replace(batch, episodes=np.array([0, 0, 0, 1]))
    script.AveragedTokens().update(None, batch, np.random.default_rng(0))
    sums = np.bincount(batch.episodes, seen[0].weight)
    np.testing.assert_allclose(sums, np.full(2, 0.5), rtol=1e-6)


@pytest.mark.parametrize("kind", ["KLInTheLoss", "K3InTheLoss"])
def test_the_kl_in_the_loss_has_the_derivative_of_its_value(kind):
    algorithm = getattr(script, kind)()
    rng = np.random.default_rng(0)
    eta, other = rng.normal(size=(2, 6, 4))
    actions, weight = rng.integers(4, size=6), rng.random(6)
    signals = np.zeros((4, 6))
    batch = Batch(np.zeros(6, int), actions, *signals, weight)

    def loss(eta):
        new, theirs = minirl.Categorical(eta), minirl.Categorical(other)
        return algorithm.kl_term(new, theirs, batch, 0.3)

    if kind == "KLInTheLoss":
        exact = minirl.Categorical(eta).kl(minirl.Categorical(other))
        assert loss(eta)[0] == pytest.approx(0.3 * weight @ exact)
    for place in np.ndindex(eta.shape):
        step = np.zeros_like(eta)
        step[place] = 1e-6
        slope = (loss(eta + step)[0] - loss(eta - step)[0]) / 2e-6
        assert loss(eta)[1][place] == pytest.approx(slope, abs=1e-8)


def tokens(num_envs, seed=0):
    """The environment, a fresh policy, a fresh critic, and the generator that made them."""
    envs = minirl.make_vector_env("minirl/TokenGeneration-v0", num_envs)
    rng = np.random.default_rng(seed)
    policy = minirl.make_policy(envs.single_observation_space, envs.single_action_space, rng)
    return envs, policy, minirl.make_critic(envs.single_observation_space, rng), rng


def token_batch():
    """A policy of random logits on two prompts, and a batch of whole sentences that it wrote."""
    _, policy, _, rng = tokens(1)
    policy = policy.with_parameters(rng.normal(size=policy.parameters.shape))
    contexts = np.array([0, 5, 0, 7])
    actions = policy.act(contexts, rng)
    log_probs = policy(contexts).log_prob(actions)
    signals = rng.normal(size=(3, 4))
    weight = np.full(4, 0.5)
    return policy, Batch(contexts, actions, log_probs, *signals, weight, np.array([0, 0, 1, 1]))


def test_the_kl_in_the_loss_pulls_towards_where_learning_began(monkeypatch):
    policy, batch = token_batch()
    plain, pulled = (
        kind(learning_rate=0.1, epochs=1, optimizer=minirl.SGD())
        for kind in (minirl.PPO, script.KLInTheLoss)
    )
    rng = np.random.default_rng(1)
    # At the reference itself the KL has no slope.
    at_start = [a.update(a.init(policy), batch, rng)[0].policy for a in (plain, pulled)]
    np.testing.assert_allclose(at_start[0].parameters, at_start[1].parameters, atol=1e-15)
    moved = policy.with_parameters(policy.parameters + rng.normal(size=policy.parameters.shape))
    state = replace(pulled.init(policy), policy=moved)
    after = pulled.update(state, batch, rng)[0]
    assert after.reference is policy
    without = plain.update(replace(plain.init(policy), policy=moved), batch, rng)[0]
    kls = [
        found.policy(batch.observations).kl(policy(batch.observations)).sum()
        for found in (after, without)
    ]
    assert kls[0] < kls[1]


def test_beta_in_the_loss_is_divided_as_the_advantages_are(monkeypatch):
    policy, batch = token_batch()
    seen = []
    monkeypatch.setattr(
        script.KLInTheLoss,
        "kl_term",
        lambda self, new, theirs, minibatch, beta: seen.append(beta) or (0.0, 0.0),
    )
    for whitened in (False, True):
        algorithm = script.KLInTheLoss(epochs=1, normalize_advantages=whitened)
        algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0))
    assert seen == [0.3, pytest.approx(0.3 / batch.advantages.std())]


def test_sparse_adam_leaves_alone_what_was_not_visited():
    policy, batch = token_batch()
    dense, sparse = (kind(learning_rate=0.1) for kind in (minirl.PPO, script.SparseAdam))
    state, _, _ = dense.step(sparse.init(policy), batch, None)
    # Contexts 0 and 5, the latter with no gradient at all: visited nevertheless. 7 waits.
    part, advantages = batch.rows(np.array([0, 1])), np.array([1.0, 0.0])
    expected, _, _ = dense.step(state, replace(part, advantages=advantages), None)
    found, *_ = sparse.step(state, replace(part, advantages=advantages), None)
    shape = policy.network.states, policy.network.outputs
    for read in (
        lambda one: one.policy.parameters,
        lambda one: one.optimizer.mean,
        lambda one: one.optimizer.square,
    ):
        before, after, wanted = (read(one).reshape(shape) for one in (state, found, expected))
        np.testing.assert_array_equal(after[[0, 5]], wanted[[0, 5]])
        np.testing.assert_array_equal(np.delete(after, [0, 5], 0), np.delete(before, [0, 5], 0))
        assert np.abs(wanted[7] - before[7]).min() > 0  # momentum
    assert found.optimizer.steps == expected.optimizer.steps


def test_a_sentence_cut_by_its_length_is_worth_the_same_truncated_or_terminated():
    """Nothing to measure: the critic's table has no transition to learn the last state from."""
    algorithm, settings = vars(minirl.preset("minirl/TokenGeneration-v0", "ppo")).values()
    training = choices_of_control.training
    envs, policy, critic, rng = tokens(64)
    learner = training.new_learner(algorithm, settings, policy, critic)
    cut = 0
    for _ in range(3):
        rollout = minirl.collect_episodes(envs, learner.policy, learner.critic, rng, max_steps=9)
        eos = rollout.actions == envs.single_action_space.n - 1
        limit = rollout.terminated & rollout.valid & ~eos
        cut += limit.sum()
        truncated = replace(rollout, terminated=rollout.terminated & ~limit, truncated=limit)
        for ended, other in zip(
            settings.advantages(rollout), settings.advantages(truncated), strict=True
        ):
            np.testing.assert_array_equal(ended[rollout.valid], other[rollout.valid])
        batch, learner, _ = training.advantage_stage(rollout, learner, settings)
        learner, _ = training.optimisation_stage(
            batch, learner, at_progress(algorithm, 0.0), settings, rng
        )
    envs.close()
    assert cut > 50
    assert np.abs(learner.critic.parameters).max() > 0


def test_the_sample_deviation_divides_by_one_less():
    envs, policy, _, rng = tokens(8)
    rollout = minirl.collect_episodes(envs, policy, None, rng, max_steps=9, group_size=4, seed=3)
    envs.close()
    groups = np.where(rollout.valid, rollout.rewards, 0.0).sum(axis=0).reshape(2, 4)
    deviation = groups.std(axis=1, ddof=1, keepdims=True)
    assert deviation.min() > 0
    expected = ((groups - groups.mean(axis=1, keepdims=True)) / deviation).ravel()
    np.testing.assert_allclose(script.SampleDeviation()(rollout)[0][0], expected)


def test_averaged_dpo_averages_and_its_gradient_follows(monkeypatch):
    rlhf, task = script.rlhf, script.rlhf.arithmetic()
    sums = script.dpo.path_log_probs
    checked = []

    def check(self, policy, first, second, reference_log_probs, labels, kl):
        lengths = first.valid.sum(axis=1)
        np.testing.assert_allclose(
            script.dpo.path_log_probs(policy, first)[0], sums(policy, first)[0] / lengths
        )
        rest = (first, second, reference_log_probs, labels, kl)
        _, gradient, _ = loss_and_gradient(self, policy, *rest)
        for place in np.argsort(-np.abs(gradient))[:3]:
            losses = []
            for step in (1e-5, -1e-5):
                theta = policy.parameters.copy()
                theta[place] += step
                losses.append(loss_and_gradient(self, policy.with_parameters(theta), *rest)[0])
            assert gradient[place] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)
        checked.append(len(set(lengths)))
        return loss_and_gradient(self, policy, *rest)

    loss_and_gradient = rlhf.DPO.loss_and_gradient
    monkeypatch.setattr(rlhf.DPO, "loss_and_gradient", check)
    rng = np.random.default_rng(0)
    reference = script.case(200).reference
    pairs = rlhf.sample_pairs(task, reference, 50, rng)
    preferences = rlhf.Annotator().soft(pairs, task.utilities)
    script.AveragedDPO(steps=2).fit(task, reference, preferences, rng)
    assert len(checked) == 2
    assert min(checked) > 1  # sentences of several lengths
