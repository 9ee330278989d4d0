"""docs/cartpole.gif: CartPole before and after training, for the README.

    python docs/drawings/film.py

The upper half repeats episodes of an untrained network, the lower half is one episode of the PPO
policy that `benchmarks/policies/` stores. Both act greedily, as in `python -m minirl watch`.
"""

from itertools import islice
from pathlib import Path

import numpy as np

import minirl
from minirl.experiments.animation import cartpole_frames, save_gif

DOCS = Path(__file__).parents[1]
STORED = DOCS.parent / "benchmarks" / "policies" / "cartpole-ppo.npz"
STRIDE = 2  # CartPole takes 50 steps per second; the film shows every second one, in real time
PAUSE = 12  # frames between two episodes
LENGTH = 250  # frames: the 500 steps after which Gymnasium ends an episode


def one_episode(policy, seed):
    """Observations of one greedy episode, shape (T, 4)."""
    envs = minirl.make_vector_env("CartPole-v1", 1)
    rollout = minirl.collect_episodes(envs, policy, None, None, max_steps=500, seed=seed)
    envs.close()
    return rollout.observations[rollout.valid]


def untrained_policy(seed):
    envs = minirl.make_vector_env("CartPole-v1", 1)
    spaces = envs.single_observation_space, envs.single_action_space
    envs.close()
    return minirl.make_policy(*spaces, np.random.default_rng(seed), hidden_sizes=(64, 64))


def untrained_frames():
    """Frames of one short episode after the other, without end."""
    policy, seed = untrained_policy(0), 0
    while True:
        frames = list(cartpole_frames(one_episode(policy, seed), title="before training"))
        yield from frames + [frames[-1]] * PAUSE
        seed += 1


def main():
    trained, _ = minirl.load_policy(STORED)
    episode = one_episode(trained, 0)
    above = islice(untrained_frames(), LENGTH)
    below = cartpole_frames(episode, title="after training (PPO, 100,000 steps)", stride=STRIDE)
    frames = [np.concatenate(pair) for pair in zip(above, below, strict=False)]
    save_gif(frames, DOCS / "cartpole.gif", fps=50 / STRIDE)
    print(f"{len(frames)} frames, {(DOCS / 'cartpole.gif').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
