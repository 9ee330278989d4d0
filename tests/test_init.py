import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np

import minirl

ROOT = Path(__file__).parents[1]


def test_every_public_name_exists_once():
    assert len(minirl.__all__) == len(set(minirl.__all__))
    missing = [name for name in minirl.__all__ if not hasattr(minirl, name)]
    assert missing == []


def test_every_public_name_says_what_it_is():
    silent = [name for name in minirl.__all__ if not getattr(minirl, name).__doc__]
    assert silent == []


def test_the_verbs_are_functions():
    # `minirl.compare` must not be shadowed by a module of that name
    for verb in (minirl.train, minirl.evaluate, minirl.compare, minirl.watch):
        assert callable(verb)


def test_importing_registers_the_environments():
    for name in ("minirl/Chain-v0", "minirl/GridWorld-v0", "minirl/LQR-v0"):
        assert name in gymnasium.registry


def test_importing_loads_nothing_that_only_some_need_and_draws_no_random_number():
    code = """
import sys
import numpy as np
np.random.seed(0)
before = np.random.get_state()[1].tolist()
import minirl
assert np.random.get_state()[1].tolist() == before
heavy = ["matplotlib", "scipy.stats", "multiprocessing.pool", "concurrent.futures.process", "PIL"]
print(*[name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    assert done.stderr == ""


def test_training_leaves_the_global_random_state_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    minirl.train(
        "minirl/Chain-v0",
        "ppo",
        total_steps=1,
        settings=minirl.Settings(num_envs=2, rollout_steps=8),
    )
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
