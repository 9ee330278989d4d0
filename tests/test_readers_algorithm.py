"""A reader's own algorithm runs in `train` and `compare` unchanged; the docs show it as here."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import minirl
from minirl import CriticFit, Policy, Settings


@dataclass(frozen=True)
class MyState:
    policy: Policy


@dataclass(frozen=True)
class SignAscent:
    """Each parameter takes a step of fixed size up the sign of its policy gradient."""

    step: float = 0.003

    def init(self, policy):
        return MyState(policy)

    def update(self, state, batch, rng):
        policy = state.policy
        old, cache = policy.forward(batch.observations)
        score = old.grad_log_prob(batch.actions)
        batch = batch.with_normalized_advantages()
        gradient = policy.vjp(cache, (batch.weight * batch.advantages)[:, None] * score)
        policy = policy.with_parameters(policy.parameters + self.step * np.sign(gradient))
        new = policy(batch.observations)
        kl = float(batch.mean_weight @ old.kl(new))
        metrics = {"kl": kl, "gradient_equivalents": float(len(batch))}
        return replace(state, policy=policy), metrics


SETTINGS = Settings(num_envs=8, rollout_steps=64, critic_fit=CriticFit(epochs=4))


def test_it_trains_and_learns():
    result = minirl.train("CartPole-v1", SignAscent(), total_steps=12_000, settings=SETTINGS)
    first, last = result.history.episode_returns[:50], result.history.episode_returns[-50:]
    assert last.mean() > 2 * first.mean()


def test_it_is_compared_with_ours(tmp_path):
    comparison = minirl.compare(
        "CartPole-v1",
        {"mine": SignAscent(), "ppo": minirl.preset("CartPole-v1", "ppo").algorithm},
        seeds=2,
        total_steps=1000,
        settings=SETTINGS,
        evaluation_episodes=3,
        workers=1,
        out=tmp_path / "out",
    )
    assert comparison.summary["algorithms"].keys() == {"mine", "ppo"}
    assert (tmp_path / "out" / "curves.png").exists()


def test_the_docs_show_this_algorithm():
    here = Path(__file__).read_text()
    shown = here[here.index("@dataclass") : here.index("SETTINGS =")].strip()
    page = Path(__file__).parents[1] / "docs" / "algorithms" / "your-own-algorithm.md"
    assert shown in page.read_text()
