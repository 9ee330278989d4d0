"""Small Gymnasium environments whose dynamics are published, so that exact answers exist.

========================  ===========================================  ==========
identifier                what it is                                   time limit
========================  ===========================================  ==========
``minirl/Chain-v0``       a walk along a row with two exits            100 steps
``minirl/GridWorld-v0``   a map of walls, goals and pits               100 steps
``minirl/LQR-v0``         linear dynamics, quadratic cost              50 steps
========================  ===========================================  ==========

Each time limit truncates an episode and never terminates it.
"""

import gymnasium

_REGISTERED = {
    "minirl/Chain-v0": ("minirl.envs.chain:Chain", 100),
    "minirl/GridWorld-v0": ("minirl.envs.gridworld:GridWorld", 100),
    "minirl/LQR-v0": ("minirl.envs.lqr:LQR", 50),
}


def register_environments() -> None:
    """Make the environments known to `gymnasium.make`; calling it again does nothing."""
    for identifier, (entry_point, max_episode_steps) in _REGISTERED.items():
        if identifier not in gymnasium.registry:
            gymnasium.register(identifier, entry_point, max_episode_steps=max_episode_steps)
