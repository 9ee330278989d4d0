"""The code under "The loop" of each algorithm's page runs and computes what `update` computes."""

import re
from pathlib import Path

import numpy as np
import pytest

import minirl

PAGES = Path(__file__).parents[1] / "docs" / "algorithms"
ALGORITHMS = {
    "natural-gradient": minirl.NaturalGradient(damping=0.1),
    "trpo": minirl.TRPO(normalize_advantages=True),
    "ppo": minirl.PPO(learning_rate=1e-3, minibatch_size=256, normalize_advantages=True),
}


def blocks(name):
    """The Python code of the section, one string per block."""
    section = (PAGES / f"{name}.md").read_text().split("## The loop\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.S)


@pytest.fixture(scope="module")
def after_the_loop():
    names = {}
    training, one_update = blocks("policy-gradient")
    exec(training, names)
    exec(one_update, dict(names))
    return names


def test_the_training_loop_learns_from_batches(after_the_loop):
    assert len(after_the_loop["batch"]) > 400
    assert after_the_loop["metrics"]["kl"] > 0


def test_the_loop_of_advantages_prints_gae(capsys):
    exec(blocks("advantages")[0], {})
    advantages = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    errors = 0.99 * np.array([0.6, 0.7, 0.0]) - [0.5, 0.6, 0.7] + [0, 0, 1]
    decay = 0.99 * 0.95
    assert advantages[-1] == pytest.approx(errors @ decay ** np.arange(3), abs=1e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_core_on_the_page_gives_the_parameters_of_update(name, after_the_loop):
    state, batch = after_the_loop["state"], after_the_loop["batch"]
    algorithm = ALGORITHMS[name]
    update, _ = algorithm.update(algorithm.init(state.policy), batch, np.random.default_rng(3))
    page = dict(after_the_loop) | {"rng": np.random.default_rng(3)}
    exec(blocks(name)[0], page)
    np.testing.assert_array_equal(page["policy"].parameters, update.policy.parameters)
    assert not np.array_equal(page["policy"].parameters, state.policy.parameters)
