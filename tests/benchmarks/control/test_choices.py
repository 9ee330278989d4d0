"""Choices on control tasks: the changed algorithms do what their names say, and the figure."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import minirl
from minirl.batch import Batch

DOCS = Path(__file__).parents[3] / "docs" / "reference"


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


def test_damping_in_the_step_shortens_it(load):
    choices = load("control.choices")
    solution = minirl.algorithms.trpo.ConjugateGradientResult
    matrix, damping = np.diag([1.0, 2.0]), 0.5
    x = np.array([1.0, -1.0])
    found = solution(x=x, product=(matrix + damping * np.eye(2)) @ x, residual_norms=[1.0])
    plain = choices.trpo.full_step(found, damping, 0.01)
    damped = choices.damped_step(found, damping, 0.01)
    assert plain @ matrix @ plain / 2 == pytest.approx(0.01)
    assert damped @ (matrix + damping * np.eye(2)) @ damped / 2 == pytest.approx(0.01)


def search_that_finds(fraction, monkeypatch, choices):
    """Replace TRPO's search by one that only stores its arguments."""
    given = {}

    def search(*_, **named):
        given.update(named)
        return choices.trpo.LineSearchResult(fraction, ())

    monkeypatch.setattr(choices, "SEARCH", search)
    return given


def test_the_looser_bound_is_half_as_large_again(load, monkeypatch):
    choices = load("control.choices")
    given = search_that_finds(1.0, monkeypatch, choices)
    choices.search_within(1.5, max_kl=0.01, shrink=0.7, tries=10)
    assert given == {"max_kl": pytest.approx(0.015), "shrink": 0.7, "tries": 10}


@pytest.mark.parametrize(("found", "taken"), [(0.0, 0.125), (0.5, 0.5)])
def test_a_failed_search_takes_its_last_try(load, monkeypatch, found, taken):
    choices = load("control.choices")
    search_that_finds(found, monkeypatch, choices)
    search = choices.search_that_moves(max_kl=0.01, shrink=0.5, tries=4)
    assert search.fraction == taken


@pytest.mark.parametrize(
    ("rows", "size", "lengths"),
    [(2048, 256, [255] * 8 + [8]), (2043, 256, [254] * 8 + [11]), (2048, 128, [127] * 16 + [16])],
)
def test_the_stray_minibatch_is_short_and_the_others_keep_their_size(load, rows, size, lengths):
    _, batch = gaussian_batch(rows)
    stray_minibatches = load("control.choices").stray_minibatches
    parts = list(stray_minibatches(batch, size, np.random.default_rng(0)))
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
    exact = list(choices.stray_minibatches(batch, 16, np.random.default_rng(0)))
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
