"""The pages hold what the stored runs give, and the figure shows all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minirl
from minirl.batch import Batch

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_holds_the_table_of_the_stored_runs(load):
    assert load("choices").table() in (DOCS / "choices.md").read_text()


def test_a_bound_that_decides_a_verdict_is_never_printed_as_0(load):
    """Observations normalised on CartPole: better by an interval that begins at 0.013."""
    signed = load("choices").signed
    assert [signed(x) for x in (0.013, -0.302, 0.459, -0.5, 7.2, -186.1)] == (
        ["+0.01", "-0.3", "+0.5", "-0.5", "+7", "-186"]
    )


def test_every_choice_has_ten_seeds(load):
    choices, rlhf_choices, stored = (load(n) for n in ("choices", "rlhf_choices", "stored"))
    wanted = {
        (choice.environment, choice.algorithm, choice.name, str(seed))
        for choice in choices.choices()
        for seed in range(10)
    }
    found = [
        tuple(row[name] for name in choices.COLUMNS[:4]) for row in stored.read(choices.RESULTS)
    ]
    assert sorted(found) == sorted(wanted)
    assert all(len(fractions) == 10 for fractions in rlhf_choices.scores().values())


def gaussian_batch(rows=64):
    rng = np.random.default_rng(0)
    space = minirl.make_vector_env("Pendulum-v1", 1)
    policy = minirl.make_policy(space.single_observation_space, space.single_action_space, rng)
    space.close()
    observations = rng.normal(size=(rows, 3)).astype(np.float32)
    distribution, _ = policy.forward(observations)
    actions = 3 * distribution.sample(rng)
    signals = rng.normal(size=(3, rows)).astype(np.float32)
    weight = np.full(rows, 1 / rows, np.float32)
    log_probs = distribution.log_prob(actions)
    return policy, Batch(observations, actions, log_probs, *signals, weight)


def test_whitening_per_minibatch_gives_each_minibatch_mean_0(load, monkeypatch):
    kind = load("choices").WhitenedPerMinibatch
    seen = []
    step = minirl.PPO.step

    def spy(self, state, minibatch, advantages, *others):
        seen.append(advantages)
        return step(self, state, minibatch, advantages, *others)

    monkeypatch.setattr(minirl.PPO, "step", spy)
    policy, batch = gaussian_batch()
    algorithm = kind(epochs=1, minibatch_size=16)
    algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0), 0.0)
    assert len(seen) == 4
    for advantages in seen:
        assert advantages.mean() == pytest.approx(0, abs=1e-6)
        assert advantages.std() == pytest.approx(1, abs=1e-4)


def test_clipped_actions_are_what_the_environment_received(load, monkeypatch):
    kind = load("choices").ClippedActions
    seen = []
    update = minirl.PPO.update

    def spy(self, state, batch, *others):
        seen.append(batch)
        return update(self, state, batch, *others)

    monkeypatch.setattr(minirl.PPO, "update", spy)
    policy, batch = gaussian_batch()
    assert np.abs(batch.actions).max() > 2
    algorithm = kind(epochs=1)
    algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0), 0.0)
    assert np.abs(seen[0].actions).max() == 2
    old, _ = policy.forward(batch.observations)
    np.testing.assert_allclose(seen[0].log_probs, old.log_prob(np.clip(batch.actions, -2, 2)))


def test_averaged_tokens_make_every_sentence_weigh_the_same(load, monkeypatch):
    kind = load("rlhf_choices").AveragedTokens
    seen = []
    monkeypatch.setattr(
        minirl.PPO, "update", lambda self, state, batch, *others: seen.append(batch) or (state, {})
    )
    _, batch = gaussian_batch(6)
    batch = replace(batch, episodes=np.array([0, 0, 0, 1, 2, 2]))
    kind().update(None, batch, np.random.default_rng(0), 0.0)
    sums = np.bincount(batch.episodes, seen[0].weight)
    np.testing.assert_allclose(sums, np.full(3, 1 / 6), rtol=1e-6)


def test_damping_in_the_step_shortens_it(load):
    choices = load("choices")
    solution = minirl.algorithms.trpo.ConjugateGradientResult
    matrix, damping = np.diag([1.0, 2.0]), 0.5
    x = np.array([1.0, -1.0])
    found = solution(x=x, product=(matrix + damping * np.eye(2)) @ x, residual_norms=[1.0])
    plain = choices.trpo.full_step(found, damping, 0.01)
    with choices.with_damping_in_the_step():
        damped = choices.trpo.full_step(found, damping, 0.01)
    assert plain @ matrix @ plain / 2 == pytest.approx(0.01)
    assert damped @ (matrix + damping * np.eye(2)) @ damped / 2 == pytest.approx(0.01)


def test_the_figure_has_a_mark_for_every_choice(load, tmp_path, monkeypatch):
    choices = load("choices")
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
        + sum(choice != "default" for _, choice in load("rlhf_choices").VARIANTS)
    )
    assert all(len(labels) == count for _, count, labels in marks)
