"""The pages hold what the stored runs give, and the figure shows all of them."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import minirl
from minirl.batch import Batch
from minirl.optimizers import at_progress

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_a_bound_that_decides_a_verdict_is_never_printed_as_0(load):
    """Observations normalised on CartPole: better by an interval that begins at 0.013."""
    signed = load("control.choices").signed
    assert [signed(x) for x in (0.013, -0.302, 0.459, -0.5, 7.2, -186.1)] == (
        ["+0.01", "-0.3", "+0.5", "-0.5", "+7", "-186"]
    )


def gaussian_batch(rows=64):
    rng = np.random.default_rng(0)
    space = minirl.make_vector_env("Pendulum-v1", 1)
    policy = minirl.make_policy(space.single_observation_space, space.single_action_space, rng)
    space.close()
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    distribution = policy(observations)
    actions = 3 * distribution.sample(rng)
    signals = rng.normal(size=(3, rows)).astype(np.float32)
    weight = np.full(rows, 1 / rows, np.float32)
    log_probs = distribution.log_prob(actions)
    return policy, Batch(observations, actions, log_probs, *signals, weight)


def test_whitening_per_minibatch_gives_each_minibatch_mean_0(load, monkeypatch):
    kind = load("control.choices").WhitenedPerMinibatch
    seen = []
    step = minirl.PPO.step

    def spy(self, state, minibatch, old):
        seen.append(minibatch.advantages)
        return step(self, state, minibatch, old)

    monkeypatch.setattr(minirl.PPO, "step", spy)
    policy, batch = gaussian_batch()
    algorithm = kind(epochs=1, minibatch_size=16)
    algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0))
    assert len(seen) == 4
    for advantages in seen:
        assert advantages.mean() == pytest.approx(0, abs=1e-6)
        assert advantages.std() == pytest.approx(1, abs=1e-4)


def test_clipped_actions_are_what_the_environment_received(load, monkeypatch):
    kind = load("control.choices").ClippedActions
    seen = []
    update = minirl.PPO.update

    def spy(self, state, batch, *others):
        seen.append(batch)
        return update(self, state, batch, *others)

    monkeypatch.setattr(minirl.PPO, "update", spy)
    policy, batch = gaussian_batch()
    assert np.abs(batch.actions).max() > 2
    algorithm = kind(epochs=1)
    algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0))
    assert np.abs(seen[0].actions).max() == 2
    old = policy(batch.observations)
    np.testing.assert_allclose(seen[0].log_probs, old.log_prob(np.clip(batch.actions, -2, 2)))


def test_averaged_tokens_make_every_sentence_weigh_the_same(load, monkeypatch):
    kind = load("rlhf.choices").AveragedTokens
    seen = []
    monkeypatch.setattr(
        minirl.PPO, "update", lambda self, state, batch, *others: seen.append(batch) or (state, {})
    )
    _, batch = gaussian_batch(6)
    batch = replace(batch, episodes=np.array([0, 0, 0, 1, 2, 2]))
    kind().update(None, batch, np.random.default_rng(0))
    sums = np.bincount(batch.episodes, seen[0].weight)
    np.testing.assert_allclose(sums, np.full(3, 1 / 6), rtol=1e-6)


def test_damping_in_the_step_shortens_it(load):
    choices = load("control.choices")
    solution = minirl.algorithms.trpo.ConjugateGradientResult
    matrix, damping = np.diag([1.0, 2.0]), 0.5
    x = np.array([1.0, -1.0])
    found = solution(x=x, product=(matrix + damping * np.eye(2)) @ x, residual_norms=[1.0])
    plain = choices.trpo.full_step(found, damping, 0.01)
    with choices.with_damping_in_the_step():
        damped = choices.trpo.full_step(found, damping, 0.01)
    assert plain @ matrix @ plain / 2 == pytest.approx(0.01)
    assert damped @ (matrix + damping * np.eye(2)) @ damped / 2 == pytest.approx(0.01)


def search_that_finds(fraction, monkeypatch, choices):
    """Replace TRPO's search by one that only notes what it is given."""
    given = {}

    def search(*_, **named):
        given.update(named)
        return choices.trpo.LineSearchResult(fraction, ())

    monkeypatch.setattr(choices.trpo, "trust_region_search", search)
    return given


def test_the_looser_bound_is_half_as_large_again(load, monkeypatch):
    choices = load("control.choices")
    given = search_that_finds(1.0, monkeypatch, choices)
    with choices.with_search_bound(1.5):
        choices.trpo.trust_region_search(max_kl=0.01, shrink=0.7, tries=10)
    assert given == {"max_kl": pytest.approx(0.015), "shrink": 0.7, "tries": 10}


@pytest.mark.parametrize(("found", "taken"), [(0.0, 0.125), (0.5, 0.5)])
def test_a_failed_search_takes_its_last_try(load, monkeypatch, found, taken):
    choices = load("control.choices")
    search_that_finds(found, monkeypatch, choices)
    with choices.with_failed_steps_taken():
        search = choices.trpo.trust_region_search(max_kl=0.01, shrink=0.5, tries=4)
    assert search.fraction == taken


@pytest.mark.parametrize(
    ("rows", "size", "lengths"),
    [(2048, 256, [255] * 8 + [8]), (2043, 256, [254] * 8 + [11]), (2048, 128, [127] * 16 + [16])],
)
def test_the_stray_minibatch_is_short_and_the_others_keep_their_size(load, rows, size, lengths):
    _, batch = gaussian_batch(rows)
    with load("control.choices").with_a_stray_minibatch():
        parts = list(batch.minibatches(size, np.random.default_rng(0)))
    assert [len(chosen) for chosen, _ in parts] == lengths
    assert sorted(np.concatenate([chosen for chosen, _ in parts])) == list(range(rows))
    for chosen, part in parts:
        np.testing.assert_array_equal(part.returns, batch.returns[chosen])
        assert part.weight.sum() == pytest.approx(1, rel=1e-5)


def test_without_a_stray_row_the_minibatches_are_the_presets(load, monkeypatch):
    choices = load("control.choices")
    monkeypatch.setattr(choices, "STRAY", 0)
    _, batch = gaussian_batch(64)
    plain = list(batch.minibatches(16, np.random.default_rng(0)))
    with choices.with_a_stray_minibatch():
        exact = list(batch.minibatches(16, np.random.default_rng(0)))
    for (rows, part), (others, other) in zip(plain, exact, strict=True):
        np.testing.assert_array_equal(rows, others)
        np.testing.assert_array_equal(part.weight, other.weight)


def joint_and_apart(load, monkeypatch, norm, optimizer, epochs):
    """The joint stage, and the two updates that it joins; the batch is its own minibatch."""
    choices = load("control.choices")
    monkeypatch.setattr(choices, "JOINT_NORM", norm)
    policy, batch = gaussian_batch()
    space = minirl.make_vector_env("Pendulum-v1", 1)
    critic = minirl.make_critic(space.single_observation_space, np.random.default_rng(1))
    space.close()
    shared = {"learning_rate": 0.01, "epochs": epochs, "minibatch_size": 64, "optimizer": optimizer}
    algorithm = minirl.PPO(normalize_advantages=True, **shared)
    settings = minirl.Settings(critic_fit=minirl.CriticFit(**shared))
    learner = choices.training.new_learner(algorithm, settings, policy, critic)
    rng = np.random.default_rng(2)
    joint, metrics = choices.joint_stage(batch, learner, algorithm, settings, rng)
    apart, _ = choices.training.optimisation_stage(batch, learner, algorithm, settings, rng)
    return learner, joint, apart, metrics


def test_a_joint_loss_without_a_bound_is_both_updates(load, monkeypatch):
    _, joint, apart, metrics = joint_and_apart(load, monkeypatch, np.inf, minirl.Adam(), 3)
    np.testing.assert_array_equal(joint.policy.parameters, apart.policy.parameters)
    np.testing.assert_array_equal(joint.critic.parameters, apart.critic.parameters)
    assert metrics["kl"] > 0


def test_the_joint_bound_holds_for_both_gradients_together(load, monkeypatch):
    before, joint, apart, _ = joint_and_apart(load, monkeypatch, 1e-3, minirl.SGD(), 1)
    moved = [
        np.concatenate(
            [
                learner.policy.parameters - before.policy.parameters,
                learner.critic.parameters - before.critic.parameters,
            ]
        )
        for learner in (joint, apart)
    ]
    lengths = [float(np.linalg.norm(step)) for step in moved]
    assert lengths[0] == pytest.approx(1e-5, rel=1e-2)  # a rate of 0.01 times a norm of 0.001
    assert lengths[1] > 1e-3
    assert moved[0] @ moved[1] / np.prod(lengths) == pytest.approx(1, abs=1e-3)


def test_the_joint_step_goes_down_the_slope_of_the_joint_loss(load, monkeypatch):
    """Policy loss plus half the mean squared error, by central differences in float64."""
    choices = load("control.choices")
    monkeypatch.setattr(choices, "JOINT_NORM", np.inf)
    _, batch = gaussian_batch()
    numbers = {
        item.name: getattr(batch, item.name).astype(np.float64)
        for item in fields(Batch)
        if item.name != "episodes"
    }
    batch = Batch(**numbers)
    space = minirl.make_vector_env("Pendulum-v1", 1)
    observed, acted = space.single_observation_space, space.single_action_space
    space.close()
    rng = np.random.default_rng(1)
    policy = minirl.make_policy(observed, acted, rng, dtype="float64")
    critic = minirl.make_critic(observed, rng, dtype="float64")
    plain = {"learning_rate": 1.0, "epochs": 1, "minibatch_size": 64, "optimizer": minirl.SGD()}
    algorithm = minirl.PPO(objective=minirl.Unclipped(), normalize_advantages=True, **plain)
    settings = minirl.Settings(critic_fit=minirl.CriticFit(**plain))
    learner = choices.training.new_learner(algorithm, settings, policy, critic)
    after, _ = choices.joint_stage(batch, learner, algorithm, settings, rng)
    before = np.concatenate([policy.parameters, critic.parameters])
    step = np.concatenate([after.policy.parameters, after.critic.parameters]) - before

    def loss(theta):
        new = policy.with_parameters(theta[: policy.parameters.size])
        values = critic.with_parameters(theta[policy.parameters.size :]).values(batch.observations)
        log_ratio = new(batch.observations).log_prob(batch.actions) - batch.log_probs
        gain = np.exp(log_ratio) * batch.with_normalized_advantages().advantages
        return -gain.mean() + 0.5 * ((values - batch.returns) ** 2).mean()

    for _ in range(5):
        direction = rng.normal(size=before.size)
        slope = (loss(before + 1e-6 * direction) - loss(before - 1e-6 * direction)) / 2e-6
        assert -step @ direction == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("kind", ["KLInTheLoss", "K3InTheLoss"])
def test_the_kl_in_the_loss_has_the_derivative_of_its_value(load, kind):
    algorithm = getattr(load("rlhf.choices"), kind)()
    rng = np.random.default_rng(0)
    eta, other = rng.normal(size=(2, 6, 4))
    actions, weight = rng.integers(4, size=6), rng.random(6)
    signals = np.zeros((4, 6))
    batch = Batch(np.zeros(6, int), actions, *signals, weight)

    def loss(eta):
        new, theirs = minirl.Categorical(eta), minirl.Categorical(other)
        return algorithm.penalty(new, theirs, batch, 0.3)

    if kind == "KLInTheLoss":
        exact = minirl.Categorical(eta).kl(minirl.Categorical(other))
        assert loss(eta)[0] == pytest.approx(0.3 * weight @ exact)
    for place in np.ndindex(eta.shape):
        step = np.zeros_like(eta)
        step[place] = 1e-6
        slope = (loss(eta + step)[0] - loss(eta - step)[0]) / 2e-6
        assert loss(eta)[1][place] == pytest.approx(slope, abs=1e-8)


def token_batch():
    """A policy of random logits on two prompts, and a batch of whole sentences that it wrote."""
    rng = np.random.default_rng(0)
    space = minirl.make_vector_env("minirl/TokenGeneration-v0", 1)
    policy = minirl.make_policy(space.single_observation_space, space.single_action_space, rng)
    space.close()
    policy = policy.with_parameters(rng.normal(size=policy.parameters.shape))
    contexts = np.array([0, 5, 0, 7])
    actions = policy.act(contexts, rng)
    log_probs = policy(contexts).log_prob(actions)
    signals = rng.normal(size=(3, 4))
    weight = np.full(4, 0.5)
    return policy, Batch(contexts, actions, log_probs, *signals, weight, np.array([0, 0, 1, 1]))


def test_the_kl_in_the_loss_pulls_towards_where_learning_began(load, monkeypatch):
    script = load("rlhf.choices")
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


def test_beta_in_the_loss_is_divided_as_the_advantages_are(load, monkeypatch):
    script = load("rlhf.choices")
    policy, batch = token_batch()
    seen = []
    monkeypatch.setattr(
        script.KLInTheLoss,
        "penalty",
        lambda self, new, theirs, minibatch, beta: seen.append(beta) or (0.0, 0.0),
    )
    for whitened in (False, True):
        algorithm = script.KLInTheLoss(epochs=1, normalize_advantages=whitened)
        algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0))
    assert seen == [0.3, pytest.approx(0.3 / batch.advantages.std())]


def test_sparse_adam_leaves_alone_what_was_not_visited(load):
    policy, batch = token_batch()
    dense, sparse = (
        kind(learning_rate=0.1) for kind in (minirl.PPO, load("rlhf.choices").SparseAdam)
    )
    state, _, _ = dense.step(dense.init(policy), batch, None)
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


def test_a_sentence_cut_by_its_length_is_worth_the_same_truncated_or_terminated(load):
    """Nothing to measure: the critic's table has no transition to learn the last state from."""
    settings = minirl.preset("minirl/TokenGeneration-v0", "ppo").settings
    algorithm = minirl.preset("minirl/TokenGeneration-v0", "ppo").algorithm
    envs = minirl.make_vector_env("minirl/TokenGeneration-v0", 64)
    rng = np.random.default_rng(0)
    spaces = envs.single_observation_space, envs.single_action_space
    policy = minirl.make_policy(*spaces, rng)
    training = load("control.choices").training
    learner = training.new_learner(algorithm, settings, policy, minirl.make_critic(spaces[0], rng))
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
        batch, learner, _ = training.evaluation_stage(rollout, learner, settings)
        learner, _ = training.optimisation_stage(
            batch, learner, at_progress(algorithm, 0.0), settings, rng
        )
    envs.close()
    assert cut > 50
    assert np.abs(learner.critic.parameters).max() > 0


def test_the_sample_deviation_divides_by_one_less(load):
    script = load("rlhf.choices")
    envs = minirl.make_vector_env("minirl/TokenGeneration-v0", 8)
    rng = np.random.default_rng(0)
    policy = minirl.make_policy(envs.single_observation_space, envs.single_action_space, rng)
    rollout = minirl.collect_episodes(envs, policy, None, rng, max_steps=9, group_size=4, seed=3)
    envs.close()
    groups = np.where(rollout.valid, rollout.rewards, 0.0).sum(axis=0).reshape(2, 4)
    deviation = groups.std(axis=1, ddof=1, keepdims=True)
    assert deviation.min() > 0
    expected = ((groups - groups.mean(axis=1, keepdims=True)) / deviation).ravel()
    np.testing.assert_allclose(script.SampleDeviation()(rollout)[0][0], expected)


def test_averaged_dpo_averages_and_its_gradient_follows(load, monkeypatch):
    script = load("rlhf.choices")
    rlhf, task = script.rlhf, script.rlhf.arithmetic()
    sums = script.dpo.path_log_probs
    checked = []

    def check(self, policy, first, second, reference_margins, labels):
        lengths = first.valid.sum(axis=1)
        np.testing.assert_allclose(
            script.dpo.path_log_probs(policy, first)[0], sums(policy, first)[0] / lengths
        )
        rest = (first, second, reference_margins, labels)
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


def test_the_figure_has_a_mark_for_every_choice(load, tmp_path, monkeypatch):
    choices = load("control.choices")
    marks = []
    draw_panel = choices.draw_panel

    def spy(axes, key, found):
        draw_panel(axes, key, found)
        marks.append((key, len(found), [text.get_text() for text in axes.texts]))

    monkeypatch.setattr(choices, "draw_panel", spy)
    choices.draw(tmp_path / "choices.png")
    assert (tmp_path / "choices.png").stat().st_size > 10_000
    assert sum(count for _, count, _ in marks) == (
        sum(choice.name != "default" for choice in choices.choices())
        + sum(choice.name != "default" for choice in load("rlhf.choices").choices())
    )
    assert all(len(labels) == count for _, count, labels in marks)
