"""Choices on control tasks: the changed algorithms do what their names say, and the figure."""

from dataclasses import fields

import numpy as np
import pytest

import minirl
from benchmarks.control import choices
from benchmarks.rlhf import choices as choices_of_rlhf
from minirl.batch import Batch


def test_a_bound_that_decides_a_verdict_is_never_printed_as_0():
    """Observations normalised on CartPole: better by an interval that begins at 0.013."""
    assert [choices.signed(x) for x in (0.013, -0.302, 0.459, -0.5, 7.2, -186.1)] == (
        ["+0.01", "-0.3", "+0.5", "-0.5", "+7", "-186"]
    )


def gaussian_batch(rows=64):
    policy, _, rng = networks()
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    distribution = policy(observations)
    actions = 3 * distribution.sample(rng)
    signals = rng.normal(size=(3, rows)).astype(np.float32)
    weight = np.full(rows, 1 / rows, np.float32)
    log_probs = distribution.log_prob(actions)
    return policy, Batch(observations, actions, log_probs, *signals, weight)


def spied(monkeypatch, method, seen):
    """Let this method of PPO note its second argument, a batch."""
    original = getattr(minirl.PPO, method)

    def spy(self, state, batch, *others):
        seen.append(batch)
        return original(self, state, batch, *others)

    monkeypatch.setattr(minirl.PPO, method, spy)


def test_whitening_per_minibatch_gives_each_minibatch_mean_0(monkeypatch):
    seen = []
    spied(monkeypatch, "step", seen)
    policy, batch = gaussian_batch()
    algorithm = choices.WhitenedPerMinibatch(epochs=1, minibatch_size=16)
    algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0))
    assert len(seen) == 4
    for minibatch in seen:
        assert minibatch.advantages.mean() == pytest.approx(0, abs=1e-6)
        assert minibatch.advantages.std() == pytest.approx(1, abs=1e-4)


def test_clipped_actions_are_what_the_environment_received(monkeypatch):
    seen = []
    spied(monkeypatch, "update", seen)
    policy, batch = gaussian_batch()
    assert np.abs(batch.actions).max() > 2
    algorithm = choices.ClippedActions(epochs=1)
    algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0))
    assert np.abs(seen[0].actions).max() == 2
    old = policy(batch.observations)
    np.testing.assert_allclose(seen[0].log_probs, old.log_prob(np.clip(batch.actions, -2, 2)))


def test_damping_in_the_step_shortens_it():
    solution = minirl.algorithms.trpo.ConjugateGradientResult
    matrix, damping = np.diag([1.0, 2.0]), 0.5
    x = np.array([1.0, -1.0])
    found = solution(x=x, product=(matrix + damping * np.eye(2)) @ x, residual_norms=[1.0])
    plain = choices.trpo.full_step(found, damping, 0.01)
    damped = choices.damped_step(found, damping, 0.01)
    assert plain @ matrix @ plain / 2 == pytest.approx(0.01)
    assert damped @ (matrix + damping * np.eye(2)) @ damped / 2 == pytest.approx(0.01)


def search_that_finds(fraction, monkeypatch):
    """Replace TRPO's search by one that only stores its arguments."""
    given = {}

    def search(*_, **named):
        given.update(named)
        return choices.trpo.LineSearchResult(fraction, ())

    monkeypatch.setattr(choices, "SEARCH", search)
    return given


def test_the_looser_bound_is_half_as_large_again(monkeypatch):
    given = search_that_finds(1.0, monkeypatch)
    choices.search_within(1.5, max_kl=0.01, shrink=0.7, tries=10)
    assert given == {"max_kl": pytest.approx(0.015), "shrink": 0.7, "tries": 10}


@pytest.mark.parametrize(("found", "taken"), [(0.0, 0.125), (0.5, 0.5)])
def test_a_failed_search_takes_its_last_try(monkeypatch, found, taken):
    search_that_finds(found, monkeypatch)
    search = choices.search_that_moves(max_kl=0.01, shrink=0.5, tries=4)
    assert search.fraction == taken


@pytest.mark.parametrize(
    ("rows", "size", "lengths"),
    [(2048, 256, [255] * 8 + [8]), (2043, 256, [254] * 8 + [11]), (2048, 128, [127] * 16 + [16])],
)
def test_the_stray_minibatch_is_short_and_the_others_keep_their_size(rows, size, lengths):
    _, batch = gaussian_batch(rows)
    parts = list(choices.stray_minibatches(batch, size, np.random.default_rng(0)))
    assert [len(chosen) for chosen, _ in parts] == lengths
    assert sorted(np.concatenate([chosen for chosen, _ in parts])) == list(range(rows))
    for chosen, part in parts:
        np.testing.assert_array_equal(part.returns, batch.returns[chosen])
        assert part.weight.sum() == pytest.approx(1, rel=1e-5)


def test_without_a_stray_row_the_minibatches_are_the_presets(monkeypatch):
    monkeypatch.setattr(choices, "STRAY", 0)
    _, batch = gaussian_batch(64)
    plain = list(batch.minibatches(16, np.random.default_rng(0)))
    exact = list(choices.stray_minibatches(batch, 16, np.random.default_rng(0)))
    for (rows, part), (others, other) in zip(plain, exact, strict=True):
        np.testing.assert_array_equal(rows, others)
        np.testing.assert_array_equal(part.weight, other.weight)


def networks(dtype="float32"):
    """A policy and a critic for Pendulum, both of the generator that is returned with them."""
    space = minirl.make_vector_env("Pendulum-v1", 1)
    rng = np.random.default_rng(0)
    observed, acted = space.single_observation_space, space.single_action_space
    policy = minirl.make_policy(observed, acted, rng, dtype=dtype)
    space.close()
    return policy, minirl.make_critic(observed, rng, dtype=dtype), rng


def parameters(learner):
    return np.concatenate([learner.policy.parameters, learner.critic.parameters])


def joint_and_apart(batch, norm, monkeypatch, dtype="float32", **shared):
    """Parameters before, after the joint stage, and after both updates that it joins; metrics."""
    monkeypatch.setattr(choices, "JOINT_NORM", norm)
    shared |= {"minibatch_size": 64}  # the batch is its own minibatch
    # the two objectives have one gradient in the first step
    objective = minirl.Unclipped() if shared["epochs"] == 1 else minirl.Clipped()
    algorithm = minirl.PPO(normalize_advantages=True, objective=objective, **shared)
    settings = minirl.Settings(critic_fit=minirl.CriticFit(**shared))
    policy, critic, rng = networks(dtype)
    learner = choices.training.new_learner(algorithm, settings, policy, critic)
    joint, metrics = choices.joint_stage(batch, learner, algorithm, settings, rng)
    apart, _ = choices.training.optimisation_stage(batch, learner, algorithm, settings, rng)
    return *map(parameters, (learner, joint, apart)), metrics


def test_a_joint_loss_without_a_bound_is_both_updates(monkeypatch):
    shared = {"learning_rate": 0.01, "epochs": 3}
    _, joint, apart, metrics = joint_and_apart(gaussian_batch()[1], np.inf, monkeypatch, **shared)
    np.testing.assert_array_equal(joint, apart)
    assert metrics["kl"] > 0


def test_the_joint_bound_holds_for_both_gradients_together(monkeypatch):
    shared = {"learning_rate": 0.01, "epochs": 1, "optimizer": minirl.SGD()}
    before, joint, apart, _ = joint_and_apart(gaussian_batch()[1], 1e-3, monkeypatch, **shared)
    moved = joint - before, apart - before
    lengths = [float(np.linalg.norm(step)) for step in moved]
    assert lengths[0] == pytest.approx(1e-5, rel=1e-2)  # a rate of 0.01 times a norm of 0.001
    assert lengths[1] > 1e-3
    assert moved[0] @ moved[1] / np.prod(lengths) == pytest.approx(1, abs=1e-3)


def test_the_joint_step_goes_down_the_slope_of_the_joint_loss(monkeypatch):
    """Policy loss plus half the mean squared error, by central differences in float64."""
    names = [item.name for item in fields(Batch) if item.name != "episodes"]
    _, batch = gaussian_batch()
    batch = Batch(**{name: getattr(batch, name).astype(np.float64) for name in names})
    policy, critic, rng = networks("float64")
    shared = {"learning_rate": 1.0, "epochs": 1, "optimizer": minirl.SGD()}
    before, after, *_ = joint_and_apart(batch, np.inf, monkeypatch, "float64", **shared)

    def loss(theta):
        new = policy.with_parameters(theta[: policy.parameters.size])
        values = critic.with_parameters(theta[policy.parameters.size :]).values(batch.observations)
        log_ratio = new(batch.observations).log_prob(batch.actions) - batch.log_probs
        gain = np.exp(log_ratio) * batch.with_normalized_advantages().advantages
        return -gain.mean() + 0.5 * ((values - batch.returns) ** 2).mean()

    for _ in range(5):
        direction = rng.normal(size=before.size)
        slope = (loss(before + 1e-6 * direction) - loss(before - 1e-6 * direction)) / 2e-6
        assert -(after - before) @ direction == pytest.approx(slope, rel=1e-6)


def test_the_figures_have_a_mark_for_every_choice(tmp_path, monkeypatch):
    marks, draw_panel = [], choices.draw_panel

    def spy(axes, key, found):
        draw_panel(axes, key, found)
        marks.append((len(found), len(axes.texts)))

    monkeypatch.setattr(choices, "draw_panel", spy)
    choices.draw(tmp_path / "choices.png")
    names = ["choices.png", *(f"choices-{part}.png" for part in choices.PANELS)]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in names)
    every = [*choices.choices(), *choices_of_rlhf.choices()]
    assert sum(count for count, _ in marks) == sum(choice.name != "default" for choice in every)
    assert all(labels == count for count, labels in marks)


def test_the_largest_effects_come_first_and_are_certain():
    found = [*choices.stored_effects(), *choices_of_rlhf.stored_effects()]
    ten = choices.largest(found)
    assert len(ten) == choices.MOST
    sizes = [abs(share[0]) for _, share in ten]
    assert sizes == sorted(sizes, reverse=True)
    assert all(low > 0 or high < 0 for _, (_, low, high) in ten)
    # PPO on CartPole with lambda = 0, by hand: 59 instead of 245, and 22.5 untrained
    [share] = [share[0] for effect, share in ten if effect.choice.name == "lambda 0"]
    assert share == pytest.approx((59 - 245) / (245 - 22.5), abs=0.01)
